//! The connections of one thread: sockets, rings and buffers; bytes in and out, and nothing of the protocol.
//!
//! A connection is made by an ordinary socket (its source address and options need one), which is moved into the
//! descriptor table of a ring and closed as a plain descriptor: tables are bounded by RLIMIT_NOFILE each, so a thread
//! holds as many connections as it has rings for. Busy connections keep a multishot receive armed; quiet ones a poll,
//! which is a third of the kernel memory; each kind has rings of its own. What callbacks write is sent once per turn
//! and connection, and a connection with nothing to send holds no buffer.
//!
//! A connection may be cut, and made again in its place once nothing of the old one is under way: operations are ended by
//! name, and the place is free when each has told so. Then no late event of the old one can be taken for the new one's.
//!
//! Never are more receives submitted than buffers are there. Otherwise, when thousands of connections have something at
//! once (the server's heartbeats), most receives find no buffer, start over behind all the others, and the few that
//! had one give it back last: the time grows with the square of the connections.

mod connections;
mod plain;
mod tls;
mod wake;

pub use connections::{Connections, Load};
pub use plain::Plain;
pub use tls::{Handshakes, Tls, TlsPlan, read_ca};

use anyhow::Context;
use iris_ring::{Event, Ring, RingConfig, SendId, bound_stream_socket};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tls::Sealed;
use wake::Wake;

/// Events handled between two submissions, so that sends leave in time.
const EVENTS_PER_TURN: usize = 512;
/// Spare send buffers kept, and how large one may be to be kept.
const SPARES_MAX: usize = 4096;
const SPARE_BYTES_MAX: usize = 256 * 1024;

/// A connection of this thread, numbered from 0 in the order of [`Net::connect`].
pub type ConnIndex = u32;

/// Who acts on what the connections do. Bytes for the server are appended to `out`.
pub trait Handler {
    /// The connection is made.
    fn connected(&mut self, conn: ConnIndex, out: &mut Vec<u8>);
    /// Bytes arrived; `Err` ends the connection for this reason.
    fn received(&mut self, conn: ConnIndex, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String>;
    /// The connection failed or ended by itself; nothing more comes of it.
    fn ended(&mut self, conn: ConnIndex, reason: &str);
    /// Nothing of an ended or cut connection is left: it may be made again.
    fn gone(&mut self, conn: ConnIndex);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Connecting,
    Open,
    Ended,
    /// Ended, and nothing of it is left.
    Gone,
}

/// What a connection waits for the kernel to tell, besides sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    Nothing,
    Connect,
    /// A poll or a multishot receive.
    Arrival,
    /// A single receive.
    Receive,
    /// In `waiting` of its lane.
    Buffer,
}

struct Conn {
    pending: Vec<u8>,
    /// By TLS.
    sealed: Option<Box<Sealed>>,
    sending: Option<SendId>,
    state: State,
    wait: Wait,
    /// A close is under way.
    closing: bool,
    /// Not to be read.
    paused: bool,
    /// In `dirty`.
    listed: bool,
}

impl Conn {
    /// Whether there is something to send.
    fn has_something(&self) -> bool {
        match &self.sealed {
            None => !self.pending.is_empty(),
            Some(sealed) => sealed.has_something(&self.pending),
        }
    }

    fn is_read(&self) -> bool {
        self.state == State::Open && !self.paused
    }
}

/// A ring and the receives of its connections, which are all busy or all quiet.
struct Lane {
    ring: Ring,
    is_quiet: bool,
    buffers: usize,
    /// Receives submitted and not completed; each may take one buffer.
    receiving: usize,
    /// Connections that have something, or whose multishot receive ended, for want of a buffer.
    waiting: VecDeque<ConnIndex>,
}

/// The connections of one thread.
pub struct Net {
    /// Those of busy connections come first.
    lanes: Vec<Lane>,
    per_ring: u32,
    /// Connections from this one on are quiet.
    quiet_from: u32,
    target: SocketAddr,
    conns: Vec<Conn>,
    /// Connections with something to send.
    dirty: Vec<ConnIndex>,
    spares: Vec<Vec<u8>>,
    sends_under_way: usize,
    wake: Option<Wake>,
    /// Connections are secured by it.
    tls: Option<Tls>,
}

impl Net {
    /// Room for `busy` connections and then `quiet` ones, to be used by the calling thread only.
    pub fn new(target: SocketAddr, busy: u32, quiet: u32, per_ring: u32) -> anyhow::Result<Self> {
        let per_ring = per_ring.max(1);
        let rings = |connections: u32, is_quiet| {
            let config = Lane::config(per_ring.min(connections), is_quiet);
            (0..connections.div_ceil(per_ring)).map(move |_| Lane::new(config, is_quiet))
        };
        let lanes = rings(busy, false).chain(rings(quiet, true)).collect::<Result<Vec<_>, _>>().context(
            "cannot make an io_uring: needs Linux 6.1, kernel.io_uring_disabled=0 and no seccomp filter against it",
        )?;
        let wake = if lanes.len() > 1 { Some(Wake::new(&lanes)?) } else { None };
        Ok(Self {
            lanes,
            per_ring,
            quiet_from: busy,
            target,
            conns: Vec::with_capacity((busy + quiet) as usize),
            dirty: Vec::new(),
            spares: Vec::new(),
            sends_under_way: 0,
            wake,
            tls: None,
        })
    }

    /// With connections that are secured, or not.
    pub fn secured(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Handshakes of TLS that were done.
    pub fn handshakes(&self) -> Handshakes {
        self.tls.as_ref().map(|tls| tls.handshakes).unwrap_or_default()
    }

    /// Starts the next connection from this source address, and gives its index.
    pub fn connect(&mut self, source: IpAddr) -> anyhow::Result<ConnIndex> {
        let conn = u32::try_from(self.conns.len()).context("too many connections")?;
        self.conns.push(Conn {
            pending: Vec::new(),
            sealed: None,
            sending: None,
            state: State::Gone,
            wait: Wait::Nothing,
            closing: false,
            paused: false,
            listed: false,
        });
        self.begin(conn, source)?;
        Ok(conn)
    }

    /// Starts a connection whose place is free.
    fn begin(&mut self, conn: ConnIndex, source: IpAddr) -> anyhow::Result<()> {
        let entry = &mut self.conns[conn as usize];
        assert!(entry.state == State::Gone, "nothing of the old connection is left");
        (entry.state, entry.wait, entry.paused) = (State::Connecting, Wait::Connect, false);
        let socket = bound_stream_socket(source)
            .with_context(|| format!("cannot make a socket from {source}"))?;
        let target = self.target;
        self.conns[conn as usize].sealed = self.tls.as_ref().map(Tls::connect).transpose()?;
        let (Lane { ring, .. }, descriptor) = self.place(conn);
        ring.install(descriptor, &socket).context("cannot put a socket into the ring's table")?;
        ring.connect(descriptor, &target, u64::from(conn));
        Ok(())
    }

    /// Ends a connection at once; [`Handler::gone`] follows. Whether it had not ended before.
    pub fn cut(&mut self, conn: ConnIndex) -> bool {
        let had_not = matches!(
            self.conns.get(conn as usize).map(|conn| conn.state),
            Some(State::Connecting | State::Open)
        );
        if had_not {
            self.close(conn);
        }
        had_not
    }

    /// Stops reading a connection, or goes on: what the server sends meanwhile stays in the kernel's buffers.
    pub fn pause(&mut self, conn: ConnIndex, is_paused: bool) {
        let Some(entry) = self.conns.get_mut(conn as usize) else { return };
        entry.paused = is_paused;
        if entry.state != State::Open {
            return;
        }
        match (is_paused, entry.wait) {
            (true, Wait::Arrival) => self.cancel_arrival(conn),
            (false, Wait::Nothing) => self.arm(conn),
            // What is under way ends first, and then it is armed again or not.
            _ => {}
        }
    }

    fn cancel_arrival(&mut self, conn: ConnIndex) {
        let (Lane { ring, is_quiet, .. }, _) = self.place(conn);
        if *is_quiet {
            ring.cancel_poll(u64::from(conn));
        } else {
            ring.cancel_receive(u64::from(conn));
        }
    }

    /// The lane of a connection, and its descriptor there.
    fn place(&mut self, conn: ConnIndex) -> (&mut Lane, u32) {
        let (first, place) = match conn.checked_sub(self.quiet_from) {
            None => (0, conn),
            Some(place) => (self.quiet_from.div_ceil(self.per_ring), place),
        };
        let lane = &mut self.lanes[(first + place / self.per_ring) as usize];
        (lane, place % self.per_ring)
    }

    /// Has `fill` append bytes for the server; they leave with the next turn. Not after the end of a connection.
    pub fn write(&mut self, conn: ConnIndex, fill: impl FnOnce(&mut Vec<u8>)) {
        if self.conns[conn as usize].state == State::Open {
            let mut out = self.take_out(conn);
            fill(&mut out);
            self.put_out(conn, out);
        }
    }

    /// Whether sends are under way or waiting.
    pub fn is_sending(&self) -> bool {
        self.sends_under_way > 0 || !self.dirty.is_empty()
    }

    /// Whether the connection is made and has not ended.
    pub fn is_open(&self, conn: ConnIndex) -> bool {
        self.conns.get(conn as usize).is_some_and(|conn| conn.state == State::Open)
    }

    fn take_out(&mut self, conn: ConnIndex) -> Vec<u8> {
        let pending = std::mem::take(&mut self.conns[conn as usize].pending);
        if pending.capacity() > 0 { pending } else { self.spares.pop().unwrap_or_default() }
    }

    fn put_out(&mut self, index: ConnIndex, out: Vec<u8>) {
        let conn = &mut self.conns[index as usize];
        if out.is_empty() || conn.state != State::Open {
            self.keep_spare(out);
            return;
        }
        conn.pending = out;
        self.list(index);
    }

    /// Has a connection sent at the end of the turn.
    fn list(&mut self, index: ConnIndex) {
        let conn = &mut self.conns[index as usize];
        if conn.sending.is_none() && !conn.listed {
            conn.listed = true;
            self.dirty.push(index);
        }
    }

    fn keep_spare(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= SPARE_BYTES_MAX && self.spares.len() < SPARES_MAX {
            buffer.clear();
            self.spares.push(buffer);
        }
    }

    /// Sends what was written, waits up to `wait` for something to happen and has `handler` act on it.
    pub fn turn(&mut self, wait: Duration, handler: &mut impl Handler) -> anyhow::Result<()> {
        self.flush(handler);
        self.receive_waiting(handler);
        self.wait(wait).context("io_uring_enter failed")?;
        for lane in 0..self.lanes.len() {
            for _ in 0..EVENTS_PER_TURN {
                let Some(event) = self.lanes[lane].ring.next_event() else { break };
                self.act(lane, event, handler);
            }
        }
        Ok(())
    }

    fn wait(&mut self, wait: Duration) -> std::io::Result<()> {
        match &self.wake {
            None => self.lanes[0].ring.enter_wait(wait),
            Some(wake) => {
                if wait.is_zero() || wake.any_ready(&mut self.lanes)? {
                    return self.lanes.iter_mut().try_for_each(|lane| lane.ring.enter());
                }
                wake.wait(&mut self.lanes, wait)
            }
        }
    }

    fn flush(&mut self, handler: &mut impl Handler) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let conn = &mut self.conns[index as usize];
            conn.listed = false;
            if conn.state != State::Open || conn.sending.is_some() || !conn.has_something() {
                continue;
            }
            let bytes = match &mut conn.sealed {
                None => std::mem::take(&mut conn.pending),
                Some(sealed) => {
                    let mut bytes = self.spares.pop().unwrap_or_default();
                    if let Err(reason) = sealed.seal(&mut conn.pending, &mut bytes) {
                        self.end(index, &reason, handler);
                        continue;
                    }
                    if conn.pending.is_empty() {
                        let spare = std::mem::take(&mut conn.pending);
                        self.keep_spare(spare);
                    }
                    bytes
                }
            };
            self.sends_under_way += 1;
            let (Lane { ring, .. }, descriptor) = self.place(index);
            let send = ring.send(descriptor, bytes, u64::from(index));
            self.conns[index as usize].sending = Some(send);
        }
        self.dirty = dirty;
    }

    fn receive_waiting(&mut self, handler: &mut impl Handler) {
        for index in 0..self.lanes.len() {
            let lane = &mut self.lanes[index];
            // A multishot receive that starts again may take several buffers.
            let free = lane.buffers.saturating_sub(lane.receiving);
            let (is_quiet, waiting) = (lane.is_quiet, lane.waiting.len());
            let room = if is_quiet { free } else { lane.buffers / 2 };
            for _ in 0..room.min(waiting) {
                let Some(conn) = self.lanes[index].waiting.pop_front() else { break };
                self.conns[conn as usize].wait = Wait::Nothing;
                if is_quiet {
                    self.receive_once(conn);
                } else {
                    self.arm(conn);
                }
                self.note_if_gone(conn, handler);
            }
        }
    }

    fn receive_once(&mut self, conn: ConnIndex) {
        if !self.conns[conn as usize].is_read() {
            return;
        }
        let (lane, descriptor) = self.place(conn);
        let wait = if lane.receiving < lane.buffers {
            lane.receiving += 1;
            lane.ring.receive(descriptor, u64::from(conn));
            Wait::Receive
        } else {
            lane.waiting.push_back(conn);
            Wait::Buffer
        };
        self.conns[conn as usize].wait = wait;
    }

    fn arm(&mut self, conn: ConnIndex) {
        if !self.conns[conn as usize].is_read() {
            return;
        }
        let (Lane { ring, is_quiet, .. }, descriptor) = self.place(conn);
        if *is_quiet {
            ring.poll_readable(descriptor, u64::from(conn));
        } else {
            ring.receive_multishot(descriptor, u64::from(conn));
        }
        self.conns[conn as usize].wait = Wait::Arrival;
    }

    fn act(&mut self, lane: usize, event: Event, handler: &mut impl Handler) {
        match event {
            Event::Connected { token, result } => self.connected(token as u32, result, handler),
            Event::Readable { token } => {
                self.conns[token as usize].wait = Wait::Nothing;
                self.receive_once(token as u32);
                self.note_if_gone(token as u32, handler);
            }
            Event::Received { token, result, buffer, more, .. } => {
                let conn = token as u32;
                if let (Ok(len @ 1..), Some(id)) = (usize::try_from(result), buffer) {
                    self.received(lane, conn, id, len, handler);
                }
                let lane = &mut self.lanes[lane];
                if let Some(id) = buffer {
                    lane.ring.give_back(id);
                }
                if lane.is_quiet {
                    lane.receiving -= 1;
                }
                self.after_receive(conn, result, more, handler);
            }
            Event::Sent { token, buffer, result } => {
                self.sent(token as u32, buffer, result, handler);
            }
            Event::Closed { token } => {
                self.conns[token as usize].closing = false;
                self.note_if_gone(token as u32, handler);
            }
            // Nothing of ours accepts or is woken.
            _ => {}
        }
    }

    fn connected(&mut self, conn: ConnIndex, result: i32, handler: &mut impl Handler) {
        let entry = &mut self.conns[conn as usize];
        entry.wait = Wait::Nothing;
        if entry.state == State::Ended {
            return self.release(conn);
        }
        if result < 0 {
            return self.end(conn, &format!("connect_{}", errno_name(-result)), handler);
        }
        entry.state = State::Open;
        match &mut entry.sealed {
            None => {
                let mut out = self.take_out(conn);
                handler.connected(conn, &mut out);
                self.put_out(conn, out);
            }
            Some(sealed) => {
                if let Err(reason) = sealed.start() {
                    return self.end(conn, &reason, handler);
                }
                self.list(conn);
            }
        }
        self.arm(conn);
    }

    fn received(
        &mut self,
        lane: usize,
        conn: ConnIndex,
        id: iris_ring::BufferId,
        len: usize,
        handler: &mut impl Handler,
    ) {
        if self.conns[conn as usize].state != State::Open {
            return;
        }
        let mut out = self.take_out(conn);
        let ring = &mut self.lanes[lane].ring;
        let verdict = match (&mut self.tls, &mut self.conns[conn as usize].sealed) {
            (Some(tls), Some(sealed)) => {
                tls.receive(sealed, conn, ring.buffer_mut(id, len), &mut out, handler)
            }
            _ => handler.received(conn, ring.buffer(id, len), &mut out),
        };
        match verdict {
            Ok(()) => {
                self.put_out(conn, out);
                if self.conns[conn as usize].has_something() {
                    self.list(conn);
                }
            }
            Err(reason) => {
                self.keep_spare(out);
                self.end(conn, &reason, handler);
            }
        }
    }

    fn after_receive(
        &mut self,
        conn: ConnIndex,
        result: i32,
        more: bool,
        handler: &mut impl Handler,
    ) {
        if !more {
            self.conns[conn as usize].wait = Wait::Nothing;
        }
        match result {
            0 => self.end(conn, "closed_by_server", handler),
            1.. if !more => self.arm(conn),
            1.. => {}
            errno if -errno == libc::ENOBUFS => {
                self.conns[conn as usize].wait = Wait::Buffer;
                self.place(conn).0.waiting.push_back(conn);
            }
            // Cancelled: paused, perhaps to go on already, or ended.
            errno if -errno == libc::EAGAIN || -errno == libc::ECANCELED => self.arm(conn),
            errno => self.end(conn, &format!("receive_{}", errno_name(-errno)), handler),
        }
        self.note_if_gone(conn, handler);
    }

    fn sent(&mut self, conn: ConnIndex, buffer: Vec<u8>, result: i32, handler: &mut impl Handler) {
        self.sends_under_way -= 1;
        let whole = usize::try_from(result) == Ok(buffer.len());
        self.keep_spare(buffer);
        let entry = &mut self.conns[conn as usize];
        entry.sending = None;
        if entry.state == State::Open && entry.has_something() {
            self.list(conn);
        }
        if result < 0 {
            self.end(conn, &format!("send_{}", errno_name(-result)), handler);
        } else if !whole {
            self.end(conn, "send_cut_short", handler);
        }
        self.note_if_gone(conn, handler);
    }

    fn end(&mut self, conn: ConnIndex, reason: &str, handler: &mut impl Handler) {
        if matches!(self.conns[conn as usize].state, State::Connecting | State::Open) {
            self.close(conn);
            handler.ended(conn, reason);
        }
        self.note_if_gone(conn, handler);
    }

    /// Ends what is under way, and the connection with it.
    fn close(&mut self, conn: ConnIndex) {
        let entry = &mut self.conns[conn as usize];
        entry.state = State::Ended;
        entry.pending = Vec::new();
        entry.sealed = None;
        let (wait, sending) = (entry.wait, entry.sending);
        match wait {
            // A connect ends by itself, and the connection when it has.
            Wait::Connect => return,
            Wait::Arrival => self.cancel_arrival(conn),
            Wait::Nothing | Wait::Receive | Wait::Buffer => {}
        }
        if let Some(send) = sending {
            self.place(conn).0.ring.cancel_send(send);
        }
        self.release(conn);
    }

    fn release(&mut self, conn: ConnIndex) {
        self.conns[conn as usize].closing = true;
        let (Lane { ring, .. }, descriptor) = self.place(conn);
        // A close alone would wait for what is under way on the descriptor table (before Linux 6.13, of all connections).
        ring.disconnect(descriptor);
        ring.close(descriptor, u64::from(conn));
    }

    fn note_if_gone(&mut self, conn: ConnIndex, handler: &mut impl Handler) {
        let entry = &mut self.conns[conn as usize];
        let is_free = entry.wait == Wait::Nothing && entry.sending.is_none() && !entry.closing;
        if entry.state == State::Ended && is_free {
            entry.state = State::Gone;
            handler.gone(conn);
        }
    }
}

impl Lane {
    fn new(config: RingConfig, is_quiet: bool) -> std::io::Result<Self> {
        let (buffers, ring) = (usize::from(config.buffers), Ring::new(config)?);
        Ok(Self { ring, is_quiet, buffers, receiving: 0, waiting: VecDeque::new() })
    }

    fn config(connections: u32, is_quiet: bool) -> RingConfig {
        let (entries, buffers, buffer_bytes) = match is_quiet {
            true => (1024, 256, 1024),
            false if connections <= 256 => (4096, 256, 16 * 1024),
            false => (4096, 2048, 4 * 1024),
        };
        RingConfig { entries, descriptors: connections, buffers, buffer_bytes }
    }
}

/// A short name for the errno values that networks give; others by number.
fn errno_name(errno: i32) -> String {
    match errno {
        libc::ECONNREFUSED => "refused".to_owned(),
        libc::ECONNRESET => "reset".to_owned(),
        libc::EPIPE => "broken_pipe".to_owned(),
        libc::ETIMEDOUT => "timed_out".to_owned(),
        libc::EADDRNOTAVAIL => "no_free_port".to_owned(),
        libc::ENETUNREACH | libc::EHOSTUNREACH => "unreachable".to_owned(),
        other => format!("errno_{other}"),
    }
}

#[cfg(test)]
mod tests;
