//! One end of a link: handshake, heartbeats, credit.
//!
//! ```text
//!   dialler   Greeting ──HELLO of the peer──▶ Judging ──establish──▶ Up
//!   acceptor  Greeting ──HELLO of the peer──▶ Judging ──establish, says HELLO──▶ Up
//!                 └──────────── any End, of either side ────────────┴──▶ over
//! ```
//!
//! Memory of one end is bounded by what it granted: `credit` bytes for each channel, and one frame that is not whole.

use super::code::{End, EndCode};
use super::frame::{
    BATCH_BYTES_MAX, HEADER_BYTES, HELLO_BYTES_MAX, Header, Heartbeat, PartitionState, decode_end,
    kind, malformed, put, put_end, read,
};
use super::hello::{Hello, Purpose, Roles};
use crate::id::UserKey;
use crate::wire::Reader;
use std::borrow::Cow;

/// A peer is silent after so many of its heartbeats did not come.
pub const SILENT_AFTER: u64 = 4;
/// Time for the peer's HELLO, milliseconds.
const HANDSHAKE_MS: u64 = 3000;
/// The slowest heartbeat that is taken, milliseconds.
const HEARTBEAT_MS_MAX: u32 = 60_000;
/// Reactors of a node, at most: a connection's name has 12 bits for its reactor.
const REACTORS_MAX: u16 = 1 << 12;
/// Credit is told once this part of the window is owed.
const CREDIT_PART: u32 = 4;

/// Who we are, and whom we expect.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// What we say. Its `credit` is at least twice [`BATCH_BYTES_MAX`]. Who is connected to takes over the purpose that the
    /// other side names.
    pub me: Hello,
    /// The node that was dialled; `None`: any node may come.
    pub expected_node: Option<u32>,
}

/// What arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// Who the peer says it is. Call [`Link::establish`] or [`Link::end`].
    Hello(Box<Hello>),
    /// Bytes of a channel. Call [`Link::consumed`] once they have left this thread.
    Batch {
        /// Which partition's.
        channel: u16,
        /// The bytes.
        bytes: Cow<'a, [u8]>,
    },
    /// A partition of the peer changed its state.
    State {
        /// Which partition.
        partition: u16,
        /// The state.
        state: PartitionState,
    },
    /// An operator wants the sessions of a user to end, wherever they are.
    Eject {
        /// The user.
        user: UserKey,
        /// The number of the wish, which comes by several ways and counts once: a session that begins after it stays.
        id: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Greeting,
    Judging,
    Up,
    Over,
}

/// Bytes that may go each way on one channel.
#[derive(Clone, Copy, Debug)]
struct Channel {
    /// We may send.
    credit: u32,
    /// The peer may send.
    granted: u32,
    /// Bytes that left this thread and were not told yet.
    owed: u32,
}

/// A frame that is not whole yet.
#[derive(Debug, Default)]
struct Partial {
    head: [u8; HEADER_BYTES],
    head_len: usize,
    body: Vec<u8>,
}

/// A whole frame.
type Frame<'a> = (Header, Cow<'a, [u8]>);

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    is_dialler: bool,
    phase: Phase,
    peer: Option<Hello>,
    channels: Vec<Channel>,
    partial: Partial,
    out: Vec<u8>,
    /// When the handshake must be over: a stranger that trickles bytes gains no time.
    greet_by_ms: u64,
    /// When the peer was heard last, or the link began.
    heard_ms: u64,
    polled_ms: u64,
    beat_due_ms: u64,
    /// The newest clock of the peer that arrived, to be echoed.
    peer_ms: u64,
    rtt_ms: Option<u64>,
}

impl Link {
    /// The side that connected. Its HELLO is ready to be sent.
    pub fn dial(config: LinkConfig, now_ms: u64) -> Self {
        let mut link = Self::new(config, true, now_ms);
        link.config.me.encode(&mut link.out);
        link
    }

    /// The side that was connected to. It says nothing before it knows to whom.
    pub fn accept(config: LinkConfig, now_ms: u64) -> Self {
        Self::new(config, false, now_ms)
    }

    fn new(config: LinkConfig, is_dialler: bool, now_ms: u64) -> Self {
        assert!(config.me.credit as usize >= 2 * BATCH_BYTES_MAX, "a window holds two batches");
        assert!((1..=HEARTBEAT_MS_MAX).contains(&config.me.heartbeat_ms), "a heart that beats");
        Self {
            config,
            is_dialler,
            phase: Phase::Greeting,
            peer: None,
            channels: Vec::new(),
            partial: Partial::default(),
            out: Vec::new(),
            greet_by_ms: now_ms + HANDSHAKE_MS,
            heard_ms: now_ms,
            polled_ms: now_ms,
            beat_due_ms: now_ms,
            peer_ms: 0,
            rtt_ms: None,
        }
    }

    /// What the peer said it is, once it did.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Whether batches may go.
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Channels of an established link.
    pub fn channels(&self) -> u16 {
        self.channels.len() as u16
    }

    /// Round trip of the newest heartbeat, milliseconds.
    pub fn rtt_ms(&self) -> Option<u64> {
        self.rtt_ms
    }

    /// Bytes to be sent, oldest first.
    pub fn take_output(&mut self) -> Vec<u8> {
        // What follows will be about as long: it does not grow to that by copies.
        let next = Vec::with_capacity(self.out.len().min(BATCH_BYTES_MAX));
        std::mem::replace(&mut self.out, next)
    }

    /// How many bytes are to be sent.
    pub fn output_bytes(&self) -> usize {
        self.out.len()
    }

    /// Takes the next event off the front of `input`; `None` when all of `input` is taken in.
    pub fn next<'a>(
        &mut self,
        now_ms: u64,
        input: &mut &'a [u8],
    ) -> Result<Option<Event<'a>>, End> {
        let result = self.try_next(now_ms, input);
        self.conclude(result)
    }

    fn try_next<'a>(
        &mut self,
        now_ms: u64,
        input: &mut &'a [u8],
    ) -> Result<Option<Event<'a>>, End> {
        assert!(matches!(self.phase, Phase::Greeting | Phase::Up), "who judges or is over, waits");
        if !input.is_empty() {
            self.heard_ms = self.heard_ms.max(now_ms);
        }
        while let Some((header, body)) = self.next_frame(input)? {
            if let Some(event) = self.take(now_ms, header, body)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// A whole frame: borrowed where it lies whole in `input`, else gathered.
    fn next_frame<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, End> {
        let partial = &mut self.partial;
        if partial.head_len == 0
            && let Some(header) = Header::read(input)?
            && let Some((frame, rest)) = input.split_at_checked(HEADER_BYTES + header.body_bytes)
        {
            check_order(self.phase, header)?;
            *input = rest;
            return Ok(Some((header, Cow::Borrowed(&frame[HEADER_BYTES..]))));
        }
        let lacking = HEADER_BYTES - partial.head_len;
        let (head, rest) = input.split_at(lacking.min(input.len()));
        partial.head[partial.head_len..partial.head_len + head.len()].copy_from_slice(head);
        partial.head_len += head.len();
        *input = rest;
        if partial.head_len < HEADER_BYTES {
            return Ok(None);
        }
        let header = Header::read(&partial.head)?.expect("the header is whole");
        check_order(self.phase, header)?;
        let lacking = header.body_bytes - partial.body.len();
        let (body, rest) = input.split_at(lacking.min(input.len()));
        // A stranger's grows as bytes come: its length alone makes nobody allocate.
        if self.phase == Phase::Up && partial.body.is_empty() {
            partial.body.reserve_exact(header.body_bytes);
        }
        partial.body.extend_from_slice(body);
        *input = rest;
        if partial.body.len() < header.body_bytes {
            return Ok(None);
        }
        partial.head_len = 0;
        Ok(Some((header, Cow::Owned(std::mem::take(&mut partial.body)))))
    }

    fn take<'a>(
        &mut self,
        now_ms: u64,
        header: Header,
        body: Cow<'a, [u8]>,
    ) -> Result<Option<Event<'a>>, End> {
        match header.kind {
            kind::HELLO => {
                let hello = Hello::decode(&body)?;
                if !self.is_dialler {
                    self.config.me.purpose = hello.purpose;
                }
                self.check(&hello)?;
                self.peer = Some(hello.clone());
                self.phase = Phase::Judging;
                return Ok(Some(Event::Hello(Box::new(hello))));
            }
            kind::END => return Err(decode_end(&body)),
            kind::HEARTBEAT => {
                let beat = Heartbeat::decode(&body)?;
                self.peer_ms = beat.now_ms;
                if beat.echo_ms > 0 {
                    self.rtt_ms = Some(now_ms.saturating_sub(beat.echo_ms));
                }
            }
            kind::CREDIT => {
                let more = read(|| Reader::new(&body).u32(), "CREDIT")?;
                let channel = self.channel(header.channel)?;
                channel.credit =
                    channel.credit.checked_add(more).ok_or_else(|| malformed("CREDIT"))?;
            }
            kind::STATE => {
                let state = read(|| Reader::new(&body).u8(), "STATE")?;
                self.channel(header.channel)?;
                let state = PartitionState::from_u8(state);
                return Ok(Some(Event::State { partition: header.channel, state }));
            }
            kind::BATCH => {
                let channel = self.channel(header.channel)?;
                let Some(left) = channel.granted.checked_sub(body.len() as u32) else {
                    let text = format!("{} bytes beyond what was granted", body.len());
                    return Err(End::ours(EndCode::Credit, text));
                };
                channel.granted = left;
                return Ok(Some(Event::Batch { channel: header.channel, bytes: body }));
            }
            kind::EJECT => {
                let mut r = Reader::new(&body);
                let (user, id) = read(|| Ok((r.user_key()?, r.u64()?)), "EJECT")?;
                return Ok(Some(Event::Eject { user, id }));
            }
            _ if header.is_ignorable() => {}
            other => {
                let text = format!("frame type {other:#04x}");
                return Err(End::ours(EndCode::UnknownType, text));
            }
        }
        Ok(None)
    }

    fn channel(&mut self, number: u16) -> Result<&mut Channel, End> {
        let count = self.channels.len();
        self.channels.get_mut(usize::from(number)).ok_or_else(|| {
            End::ours(EndCode::Malformed, format!("channel {number} of {count} channels"))
        })
    }

    /// Whether two nodes may be linked. What only a certificate can show is for the driver.
    fn check(&self, peer: &Hello) -> Result<(), End> {
        let me = &self.config.me;
        let refuse = |code, text: String| Err(End::ours(code, text));
        if peer.cluster != me.cluster {
            let text = format!("cluster {:?} instead of {:?}", peer.cluster, me.cluster);
            return refuse(EndCode::Cluster, text);
        }
        if let Some(wanted) = self.config.expected_node
            && wanted != peer.node
        {
            return refuse(EndCode::Identity, format!("node {} instead of {wanted}", peer.node));
        }
        if peer.node == me.node && peer.purpose == Purpose::Replication {
            let text = format!("two nodes are number {}: give each its own node_id", me.node);
            return refuse(EndCode::Identity, text);
        }
        let (mine, theirs) = match (me.purpose, self.is_dialler) {
            (Purpose::Replication, _) => (Roles::CORE, Roles::CORE),
            (Purpose::Clients, true) => (Roles::EDGE, Roles::CORE),
            (Purpose::Clients, false) => (Roles::CORE, Roles::EDGE),
        };
        if peer.purpose != me.purpose || !peer.roles.has(theirs) || !me.roles.has(mine) {
            let text = format!("roles {:#04x} do not fit this link", peer.roles.0);
            return refuse(EndCode::Identity, text);
        }
        if peer.num_shards != me.num_shards {
            let text = format!(
                "core.num_shards is {} there and {} here: it is the same in a cluster",
                peer.num_shards, me.num_shards
            );
            return refuse(EndCode::Layout, text);
        }
        if me.purpose == Purpose::Replication && peer.partitions != me.partitions {
            let text = format!(
                "core.partitions is {} there and {} here: mirrors have the same number",
                peer.partitions, me.partitions
            );
            return refuse(EndCode::Layout, text);
        }
        let channels = if theirs == Roles::CORE { peer.partitions } else { me.partitions };
        let reactors = if theirs == Roles::EDGE { peer.reactors } else { me.reactors };
        if channels == 0 || (me.purpose == Purpose::Clients && reactors == 0) {
            return refuse(EndCode::Layout, "no partitions or no reactors".to_owned());
        }
        // As many queues are made as it says.
        if channels > me.num_shards || reactors > REACTORS_MAX {
            let text = format!("{channels} partitions or {reactors} reactors are too many");
            return refuse(EndCode::Layout, text);
        }
        let has_window = peer.credit as usize >= 2 * BATCH_BYTES_MAX;
        if !has_window || peer.heartbeat_ms > HEARTBEAT_MS_MAX {
            return Err(malformed("HELLO"));
        }
        Ok(())
    }

    /// The peer is who it says: batches may go.
    pub fn establish(&mut self, now_ms: u64) {
        assert!(self.phase == Phase::Judging, "a HELLO is judged once");
        let peer = self.peer.as_ref().expect("a HELLO was taken");
        let dialled = if self.is_dialler { peer } else { &self.config.me };
        let channel = Channel { credit: peer.credit, granted: self.config.me.credit, owed: 0 };
        self.channels = vec![channel; usize::from(dialled.partitions)];
        if !self.is_dialler {
            self.config.me.encode(&mut self.out);
        }
        self.phase = Phase::Up;
        self.beat_due_ms = now_ms;
    }

    /// Bytes of one BATCH that may go on a channel now; 0 while the link is not up.
    pub fn credit(&self, channel: u16) -> usize {
        let credit = self.channels.get(usize::from(channel)).map_or(0, |channel| channel.credit);
        if self.is_up() { (credit as usize).min(BATCH_BYTES_MAX) } else { 0 }
    }

    /// Sends bytes on a channel, no more than [`Self::credit`] says.
    pub fn send(&mut self, channel: u16, bytes: &[u8]) {
        assert!(bytes.len() <= self.credit(channel), "what is sent was granted");
        self.channels[usize::from(channel)].credit -= bytes.len() as u32;
        put(&mut self.out, kind::BATCH, channel, |w| {
            w.bytes(bytes);
        });
    }

    /// So many bytes of batches of a channel have left this thread: the peer may send as many again.
    pub fn consumed(&mut self, channel: u16, bytes: usize) {
        let window = self.config.me.credit;
        let Some(state) = self.channels.get_mut(usize::from(channel)) else { return };
        state.owed += bytes as u32;
        assert!(state.owed + state.granted <= window, "what is consumed was granted");
        if state.owed >= window / CREDIT_PART {
            let more = std::mem::take(&mut state.owed);
            state.granted += more;
            put(&mut self.out, kind::CREDIT, channel, |w| {
                w.u32(more);
            });
        }
    }

    /// Tells whether a partition of ours serves.
    pub fn tell_state(&mut self, partition: u16, state: PartitionState) {
        if self.is_up() {
            put(&mut self.out, kind::STATE, partition, |w| {
                w.u8(state as u8);
            });
        }
    }

    /// The sessions of a user are to end, wherever they are.
    pub fn tell_eject(&mut self, user: UserKey, id: u64) {
        if self.is_up() {
            put(&mut self.out, kind::EJECT, 0, |w| {
                w.bytes(&user.0).u64(id);
            });
        }
    }

    /// What is due now: a heartbeat, or the end of a peer that is silent. To be called after what has arrived was given
    /// to [`Self::next`], so that a thread that was late does not blame its peer.
    pub fn poll(&mut self, now_ms: u64) -> Result<(), End> {
        let result = self.try_poll(now_ms);
        self.conclude(result)
    }

    fn try_poll(&mut self, now_ms: u64) -> Result<(), End> {
        let gap = now_ms.saturating_sub(self.polled_ms);
        self.polled_ms = now_ms;
        let beat_ms = u64::from(self.config.me.heartbeat_ms);
        // This thread stood still: what the peer sent meanwhile may still be on its way to us.
        if gap > 2 * beat_ms {
            self.heard_ms = self.heard_ms.saturating_add(gap).min(now_ms);
        }
        match self.phase {
            Phase::Greeting if now_ms >= self.greet_by_ms => {
                let text = format!("no HELLO within {HANDSHAKE_MS} ms");
                return Err(End::ours(EndCode::HandshakeTimeout, text));
            }
            Phase::Up => {}
            Phase::Greeting | Phase::Judging | Phase::Over => return Ok(()),
        }
        let silent_ms = SILENT_AFTER * self.peer_beat_ms();
        if now_ms >= self.heard_ms.saturating_add(silent_ms) {
            let text = format!("nothing was heard for {silent_ms} ms");
            return Err(End::ours(EndCode::Silent, text));
        }
        if now_ms >= self.beat_due_ms {
            Heartbeat { now_ms, echo_ms: self.peer_ms }.encode(&mut self.out);
            self.beat_due_ms = now_ms + beat_ms;
        }
        Ok(())
    }

    /// When [`Self::poll`] has something to do at the latest.
    pub fn poll_timeout(&self) -> u64 {
        match self.phase {
            Phase::Up => {
                let silent = self.heard_ms.saturating_add(SILENT_AFTER * self.peer_beat_ms());
                self.beat_due_ms.min(silent)
            }
            Phase::Greeting => self.greet_by_ms,
            Phase::Judging | Phase::Over => u64::MAX,
        }
    }

    fn peer_beat_ms(&self) -> u64 {
        u64::from(self.peer.as_ref().map_or(HEARTBEAT_MS_MAX, |peer| peer.heartbeat_ms))
    }

    /// Ends the link: the peer is told why, after what was sent before.
    pub fn end(&mut self, end: &End) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            if !end.by_peer {
                put_end(&mut self.out, end);
            }
        }
    }

    fn conclude<T>(&mut self, result: Result<T, End>) -> Result<T, End> {
        result.inspect_err(|end| self.end(end))
    }
}

/// A stranger may say HELLO or END and nothing else; who said HELLO does not say it again. Looked at before the body is
/// awaited, so that a stranger makes us keep no more than a HELLO.
fn check_order(phase: Phase, header: Header) -> Result<(), End> {
    let greets = matches!(header.kind, kind::HELLO | kind::END);
    let fits = match phase {
        Phase::Greeting => greets && header.body_bytes <= HELLO_BYTES_MAX,
        Phase::Up => header.kind != kind::HELLO,
        Phase::Judging | Phase::Over => false,
    };
    if fits {
        return Ok(());
    }
    let text = format!("frame type {:#04x}", header.kind);
    let code = if phase == Phase::Greeting { EndCode::Garbage } else { EndCode::OutOfOrder };
    Err(End::ours(code, text))
}
