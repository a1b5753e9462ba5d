//! A connection of a reactor, and the slab they live in.

use iris_proto::admission::{Pass, SendRates};
use iris_proto::id::{ConnId, UserKey};
use iris_proto::session::{Changes, Seconds, Session};
use iris_proto::wire::{AcceptedRun, kind, put_accepted};
use iris_ring::SendId;
use iris_tls::{Fault, ServerStream};
use std::net::{IpAddr, SocketAddr};

/// How a connection waits for bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reading {
    /// A poll is armed: 256 bytes in the kernel.
    Polling,
    /// The poll fired; the connection waits for a buffer.
    Ready,
    /// One receive is under way.
    Once,
    /// A multishot receive is armed: 864 bytes in the kernel, no submission per arrival.
    Multishot,
    /// The multishot receive is being ended; the poll follows its last event.
    Demoting,
    /// The client does not take its answers: nothing is read until it has.
    Paused,
}

/// How far the end of a connection is, once nothing that comes counts any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parting {
    /// Something is to be sent still.
    Saying,
    /// All is sent, and our direction of the stream is ended.
    Said,
    /// The end of our direction is under way in the kernel.
    ShuttingDown,
    /// So it is, and the connection ends once that is done.
    EndsThen,
}

/// The start of a frame whose rest has not come: 8 bytes in an idle connection, where a `Vec` would take 24.
pub(super) type Partial = Box<Vec<u8>>;

/// One connection. A million of these is what a node holds, so each byte counts.
pub(super) struct Conn {
    pub session: Session,
    pub user: UserKey,
    pub name: Option<Box<str>>,
    /// The start of a frame whose rest has not come.
    pub partial: Option<Partial>,
    pub out: Option<Box<Out>>,
    /// What it has used up, while SENDs are limited and it says something.
    pub rates: Option<Box<SendRates>>,
    /// On the TLS port: keys and the start of a record. A connection without costs 8 bytes for it.
    pub tls: Option<Box<ServerStream>>,
    peer_ip: [u8; 16],
    peer_port: u16,
    pub lane: u16,
    pub descriptor: u32,
    /// Unacknowledged MESSAGEs the client asked to have under way, as granted.
    pub window: u32,
    /// When the wheel looks at it next.
    pub timer_s: Seconds,
    /// When bytes came last: twice within a second makes the connection hot. While closing, when it ends at the latest.
    pub bytes_s: Seconds,
    /// SENDs that went to several shards and are not answered by all.
    pub split_sends: u16,
    pub reading: Reading,
    pub dirty: bool,
    /// Nothing that comes counts any more; what is queued is sent, then it ends.
    pub closing: bool,
    /// While closing: once all is sent, the client's own end is awaited.
    pub lingers: bool,
    pub parting: Parting,
    /// What the gate counts it among.
    pub pass: Pass,
    /// In the reactor's list of those with a multishot receive.
    pub listed_hot: bool,
    pub logged_in: bool,
    /// It asked to be told of presence: every partition may know it.
    pub watches: bool,
}

const _: () = assert!(size_of::<Conn>() <= 128);

/// An address in sixteen bytes, IPv4 ones mapped (RFC 4291, section 2.5.5.2).
pub(super) fn address_of(peer: SocketAddr) -> [u8; 16] {
    match peer.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl Conn {
    pub(super) fn new(lane: u16, descriptor: u32, peer: SocketAddr, now_s: Seconds) -> Self {
        Self {
            session: Session::new(now_s),
            user: UserKey::default(),
            name: None,
            partial: None,
            out: None,
            rates: None,
            tls: None,
            peer_ip: address_of(peer),
            peer_port: peer.port(),
            lane,
            descriptor,
            window: 0,
            timer_s: Seconds::MAX,
            bytes_s: 0,
            split_sends: 0,
            reading: Reading::Polling,
            dirty: false,
            closing: false,
            lingers: false,
            parting: Parting::Saying,
            pass: Pass::default(),
            listed_hot: false,
            logged_in: false,
            watches: false,
        }
    }

    /// Where the client is.
    pub(super) fn peer(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from(self.peer_ip).to_canonical(), self.peer_port)
    }

    /// The address alone, as [`address_of`] has it.
    pub(super) fn address(&self) -> [u8; 16] {
        self.peer_ip
    }

    /// Bytes waiting for the client.
    pub(super) fn queued_bytes(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.queued_bytes())
    }

    /// Of those, the ones behind what is being sent.
    pub(super) fn bytes_behind(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.bytes_behind())
    }
}

/// What goes to a client. Exists only while there is something.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub pending: Vec<u8>,
    /// On the TLS port: what TLS itself has to say, as it is sent, before what is pending.
    pub sealed: Vec<u8>,
    pub frames: u32,
    pub sending: Option<SendId>,
    /// A buffer of which the kernel took only the beginning.
    rest: Option<Vec<u8>>,
    /// Bytes of the buffer that is being sent, or of `rest`, and how many of it the kernel has taken.
    under_way: usize,
    taken: usize,
    /// When the kernel took something last, or when there was something to take.
    pub taken_s: Seconds,
    /// How much of this is in the reactor's sum.
    pub counted: usize,
    run: Option<(u8, AcceptedRun)>,
    /// Changes of presence that wait behind what is being sent.
    changes: Option<Box<Changes>>,
}

impl Out {
    /// Bytes that wait for the client and were not taken by the kernel.
    pub(super) fn queued_bytes(&self) -> usize {
        self.bytes_behind() + self.under_way - self.taken
    }

    /// Of those, the ones behind what is being sent: a client that takes all at once has none for longer than a turn.
    pub(super) fn bytes_behind(&self) -> usize {
        self.pending.len() + self.changes.as_ref().map_or(0, |changes| changes.bytes())
    }

    /// Queues a frame of a core. Changes of presence that find something being sent wait beside it, the last one of each
    /// user; an answer comes after all that it may know of. How many changes are gone because newer ones came.
    pub(super) fn frame(&mut self, bytes: &[u8]) -> u64 {
        if bytes.first() == Some(&kind::PRESENCE) {
            let is_busy = self.sending.is_some() || self.rest.is_some() || self.changes.is_some();
            match Changes::are(bytes) {
                true if is_busy => {
                    let changes = self.changes.get_or_insert_default();
                    if let Some(replaced) = changes.take(bytes) {
                        return replaced;
                    }
                }
                true => {}
                false => self.flush_changes(),
            }
        }
        self.flush_run();
        self.pending.extend_from_slice(bytes);
        self.frames += 1;
        0
    }

    fn flush_changes(&mut self) {
        if let Some(changes) = self.changes.take() {
            self.flush_run();
            self.frames += changes.put(&mut self.pending);
        }
    }

    /// What to send next, and from where on: the rest of the last buffer, or what has gathered, for which `empty` takes its
    /// place. `None`: nothing waits.
    pub(super) fn next(&mut self, empty: impl FnOnce() -> Vec<u8>) -> Option<(Vec<u8>, usize)> {
        if let Some(rest) = self.rest.take() {
            return Some((rest, self.taken));
        }
        self.flush_run();
        self.flush_changes();
        if self.pending.is_empty() {
            return None;
        }
        let bytes = std::mem::replace(&mut self.pending, empty());
        (self.under_way, self.taken) = (bytes.len(), 0);
        Some((bytes, 0))
    }

    /// A send ended, of which the kernel took so many bytes. Gives the buffer back once it has all.
    pub(super) fn sent(&mut self, buffer: Vec<u8>, taken: usize) -> Option<Vec<u8>> {
        self.sending = None;
        self.taken += taken;
        if self.taken < buffer.len() {
            self.rest = Some(buffer);
            return None;
        }
        (self.under_way, self.taken) = (0, 0);
        Some(buffer)
    }

    /// Drops what was not begun to be sent.
    pub(super) fn drop_pending(&mut self) {
        self.pending.clear();
        self.changes = None;
    }

    /// Drops everything: the client is gone.
    pub(super) fn drop_all(&mut self) {
        self.drop_pending();
        self.sealed.clear();
        if self.rest.take().is_some() {
            (self.under_way, self.taken) = (0, 0);
        }
    }

    /// The last word follows.
    pub(super) fn finish(&mut self) {
        self.changes = None;
        self.flush_run();
    }

    /// Queues the answer to consecutive SENDs, joined to the one before where they follow each other.
    pub(super) fn accepted(&mut self, copies: u8, run: AcceptedRun) {
        if let Some((last_copies, last)) = &mut self.run
            && *last_copies == copies
            && last.first.wrapping_add(u32::from(last.count)) == run.first
            && let Some(count) = last.count.checked_add(run.count)
        {
            last.count = count;
            return;
        }
        self.flush_run();
        self.run = Some((copies, run));
    }

    /// Forgets what waits for the client, but not what TLS has to say.
    pub(super) fn drop_frames(&mut self) {
        self.drop_pending();
        self.run = None;
        self.frames = 0;
    }

    /// On the TLS port, before [`Self::next`]: makes of what has gathered what is sent. First comes what TLS has to say,
    /// then the frames in as few records as they fit, then the goodbye of a connection that ends. Gives back the buffer
    /// that the frames were in: a client that takes nothing must not hold it beside what it is sent.
    pub(super) fn seal(
        &mut self,
        stream: &mut ServerStream,
        buffer: impl FnOnce() -> Vec<u8>,
        is_last: bool,
    ) -> Result<Option<Vec<u8>>, Fault> {
        if self.rest.is_some() {
            return Ok(None);
        }
        self.flush_run();
        self.flush_changes();
        let mut sealed = std::mem::take(&mut self.sealed);
        // Whoever has not finished the handshake cannot be told anything but by TLS itself.
        if stream.is_open() && !self.pending.is_empty() {
            if sealed.capacity() == 0 {
                sealed = buffer();
            }
            stream.seal(&self.pending, &mut sealed)?;
        }
        if is_last && !sealed.is_empty() {
            stream.finish(&mut sealed);
        }
        Ok(Some(std::mem::replace(&mut self.pending, sealed)))
    }

    /// Writes the gathered answer out; to be called before anything that must come after it, and before sending.
    pub(super) fn flush_run(&mut self) {
        if let Some((copies, run)) = self.run.take() {
            put_accepted(&mut self.pending, copies, &[run]);
            self.frames += 1;
        }
    }
}

const CHUNK: usize = 1024;

struct Place {
    generation: u32,
    conn: Option<Conn>,
}

/// Connections under slots that are reused with a new generation. Grows by chunks, so growing moves nothing and a
/// connection's memory is its own size.
pub(super) struct Conns {
    reactor: u16,
    chunks: Vec<Box<[Place]>>,
    free: Vec<u32>,
    len: usize,
}

impl Conns {
    pub(super) fn new(reactor: u16) -> Self {
        Self { reactor, chunks: Vec::new(), free: Vec::new(), len: 0 }
    }

    pub(super) fn reactor(&self) -> u16 {
        self.reactor
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Every slot there ever was, in use or not.
    pub(super) fn slots(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    pub(super) fn insert(&mut self, conn: Conn) -> ConnId {
        if self.free.is_empty() {
            let start = self.slots();
            let place = |_| Place { generation: 0, conn: None };
            self.chunks.push((0..CHUNK).map(place).collect());
            self.free.extend((start..start + CHUNK as u32).rev());
        }
        let slot = self.free.pop().expect("a chunk was added");
        let place = self.place(slot).expect("a free slot exists");
        place.conn = Some(conn);
        let generation = place.generation;
        self.len += 1;
        ConnId::new(self.reactor, slot, generation)
    }

    fn place(&mut self, slot: u32) -> Option<&mut Place> {
        self.chunks.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)
    }

    /// The connection, if it is still that one.
    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let place = self.place(id.slot())?;
        if place.generation == id.generation() { place.conn.as_mut() } else { None }
    }

    /// The connection in a slot and its whole name.
    pub(super) fn in_slot(&mut self, slot: u32) -> Option<ConnId> {
        let reactor = self.reactor;
        let place = self.place(slot)?;
        place.conn.as_ref().map(|_| ConnId::new(reactor, slot, place.generation))
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        let place = self.place(id.slot())?;
        if place.generation != id.generation() {
            return None;
        }
        let conn = place.conn.take()?;
        place.generation = (place.generation + 1) & 0xff_ffff;
        self.free.push(id.slot());
        self.len -= 1;
        Some(conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iris_proto::wire::{PresenceState, put_presence};

    fn conn() -> Conn {
        Conn::new(0, 0, "192.0.2.1:5".parse().unwrap(), 0)
    }

    #[test]
    fn a_slot_used_again_does_not_answer_to_its_old_name() {
        let mut conns = Conns::new(3);
        let old = conns.insert(conn());
        assert!(conns.remove(old).is_some());
        let new = conns.insert(conn());
        assert_eq!((old.slot(), old.reactor()), (new.slot(), 3));
        assert!(conns.get_mut(old).is_none() && conns.remove(old).is_none());
        assert!(conns.get_mut(new).is_some());
        assert_eq!(conns.len(), 1);
    }

    #[test]
    fn the_peer_is_kept_as_it_came() {
        for text in ["192.0.2.1:5", "[2001:db8::1]:65535"] {
            let peer: SocketAddr = text.parse().unwrap();
            assert_eq!(Conn::new(0, 0, peer, 0).peer(), peer);
        }
    }

    #[test]
    fn consecutive_answers_become_one_run_across_the_wrap() {
        let mut out = Out::default();
        out.accepted(1, AcceptedRun { first: u32::MAX, count: 1 });
        out.accepted(1, AcceptedRun { first: 0, count: 2 });
        out.flush_run();
        let mut expected = Vec::new();
        put_accepted(&mut expected, 1, &[AcceptedRun { first: u32::MAX, count: 3 }]);
        assert_eq!(out.pending, expected);
        out.accepted(1, AcceptedRun { first: 9, count: 1 });
        out.accepted(2, AcceptedRun { first: 10, count: 1 });
        out.flush_run();
        assert_eq!(out.frames, 3);
    }

    #[test]
    fn what_the_kernel_did_not_take_is_sent_next_and_counts_until_then() {
        let mut out = Out::default();
        out.frame(b"first");
        let (buffer, start) = out.next(Vec::new).unwrap();
        assert_eq!((&*buffer, start, out.queued_bytes()), (&b"first"[..], 0, 5));
        out.frame(b"second");
        assert!(out.sent(buffer, 2).is_none());
        assert_eq!(out.queued_bytes(), 3 + 6);
        let (buffer, start) = out.next(Vec::new).unwrap();
        assert_eq!((&*buffer, start), (&b"first"[..], 2));
        assert_eq!(out.sent(buffer, 3).unwrap(), b"first");
        assert_eq!(out.next(Vec::new).unwrap().0, b"second");
        assert_eq!(out.queued_bytes(), 6);
    }

    fn presence(query: u32, state: PresenceState) -> Vec<u8> {
        let mut frame = Vec::new();
        put_presence(&mut frame, query, &[(state, 1, "amy")]);
        frame
    }

    #[test]
    fn changes_wait_behind_what_is_sent_and_an_answer_comes_after_them() {
        let mut out = Out::default();
        let (on, off) = (PresenceState::Online, PresenceState::Offline);
        assert_eq!(out.frame(&presence(0, on)), 0);
        let (buffer, _) = out.next(Vec::new).unwrap();
        assert_eq!(buffer, presence(0, on), "nothing is sent: it goes at once");
        assert!(out.sent(buffer, 5).is_none());
        assert_eq!(out.frame(&presence(0, off)), 0);
        assert_eq!(out.frame(&presence(0, on)), 1);
        assert!(out.pending.is_empty() && out.queued_bytes() > 0);
        out.frame(&presence(7, off));
        assert_eq!(out.pending, [presence(0, on), presence(7, off)].concat());
        out.frame(&presence(0, off));
        let (rest, _) = out.next(Vec::new).unwrap();
        let left = rest.len() - 5;
        assert!(out.sent(rest, left).is_some());
        out.frame(&presence(0, on));
        let (all, _) = out.next(Vec::new).unwrap();
        assert_eq!(all, [presence(0, on), presence(7, off), presence(0, on)].concat());
    }
}
