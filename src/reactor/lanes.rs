//! The rings of a reactor and the listener they accept from.
//!
//! A ring's descriptor table is bounded by RLIMIT_NOFILE, so a reactor uses as many rings as its connections need, one
//! after the other: accepts are armed on one lane that has room, and the next lane is made when none has. All rings of a
//! reactor signal one eventfd.

use super::conn::{Conn, Parting, Reading};
use super::{Reactor, Settings};
use crate::metrics::{CloseReason, ReactorMetrics};
use crate::rt::Waker;
use iris_proto::id::ConnId;
use iris_proto::wire::Code;
use iris_ring::{Event, Listener, Ring, RingConfig, Token};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// Events taken from one ring in one turn (I8).
pub(super) const EVENTS_PER_TURN: usize = 512;
/// Accepts armed at a time for each listener: how many connections a turn can take.
pub const ACCEPTS: usize = 64;
/// Receive buffers of a ring, and bytes of each.
const BUFFERS: u16 = 128;
const BUFFER_BYTES: u32 = 8192;
/// How long nothing is accepted after an accept failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where clients of a reactor come in: one listener of a kind, or several if more were inherited than there are reactors.
#[derive(Debug, Default)]
pub struct Listeners {
    /// In the clear.
    pub tcp: Vec<Listener>,
    /// By TLS.
    pub tls: Vec<Listener>,
}

impl Listeners {
    /// How many.
    pub fn len(&self) -> usize {
        self.tcp.len() + self.tls.len()
    }

    /// Nobody can come in.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them with their names in tokens of accepts, which are their places in [`Lane::accepting`], too.
    fn each(&self) -> impl Iterator<Item = (Token, &Listener)> {
        (0..).zip(self.tcp.iter().chain(&self.tls))
    }

    fn is_tls(&self, door: Token) -> bool {
        door as usize >= self.tcp.len()
    }
}

/// One ring and how full it is.
pub(super) struct Lane {
    pub ring: Ring,
    used: u32,
    /// Accepts armed, for each listener.
    accepting: Box<[u32]>,
    /// Single receives under way: never more than there are buffers.
    receiving: u32,
    /// Connections with something to read, in the order the kernel told of them.
    waiting: VecDeque<ConnId>,
}

pub(super) struct Lanes {
    listeners: Listeners,
    waker: Waker,
    lanes: Vec<Lane>,
    /// Accepting goes on; false once the node drains.
    open: bool,
    /// After a failed accept: a fault that lasts must not keep the thread busy.
    accept_after: Instant,
}

/// A connection's name within its reactor fits a token.
pub(super) fn token(id: ConnId) -> Token {
    id.0 & ((1 << 52) - 1)
}

fn conn_of(token: Token, reactor: &Reactor) -> ConnId {
    ConnId(token | u64::from(reactor.conns.reactor()) << 52)
}

/// Why a socket operation ended a connection.
pub(super) fn reason_of(result: i32) -> CloseReason {
    match -result {
        libc::ECONNRESET | libc::EPIPE => CloseReason::PeerReset,
        libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH => CloseReason::PeerTimeout,
        _ => CloseReason::IoError,
    }
}

impl Lanes {
    pub(super) fn new(listeners: Listeners, waker: Waker, settings: &Settings) -> io::Result<Self> {
        let accept_after = Instant::now();
        let first = Self::make(&waker, true, listeners.len(), settings)?;
        Ok(Self { listeners, waker, lanes: vec![first], open: true, accept_after })
    }

    fn make(waker: &Waker, is_first: bool, doors: usize, settings: &Settings) -> io::Result<Lane> {
        let ring = Ring::new(RingConfig {
            entries: 1024,
            descriptors: settings.ring_slots,
            buffers: BUFFERS,
            buffer_bytes: BUFFER_BYTES,
        })?;
        // The thread sleeps in the first ring; the others make it ring through the waker's eventfd.
        let waiting = VecDeque::new();
        let accepting = vec![0; doors].into();
        let mut lane = Lane { ring, used: 0, accepting, receiving: 0, waiting };
        if is_first {
            lane.ring.poll_eventfd(waker.eventfd(), 0);
        } else {
            lane.ring.register_eventfd(waker.eventfd())?;
            lane.ring.wake_on_events(false);
        }
        Ok(lane)
    }

    /// Sleeps until something completes, somebody wakes this thread, or the time is over.
    pub(super) fn sleep(
        &mut self,
        timeout: Duration,
        is_idle: impl FnOnce() -> bool,
    ) -> io::Result<()> {
        let ring = &mut self.lanes[0].ring;
        self.waker.sleep_in(is_idle, || ring.enter_wait(timeout)).unwrap_or(Ok(()))
    }

    /// Whether the rings that the thread does not sleep in make a sound. After switching it on, take events once more.
    pub(super) fn wake_on_events(&mut self, on: bool) {
        self.lanes.iter_mut().skip(1).for_each(|lane| lane.ring.wake_on_events(on));
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn lane(&mut self, index: usize) -> &mut Lane {
        &mut self.lanes[index]
    }

    pub(super) fn enter(&mut self) -> io::Result<()> {
        self.lanes.iter_mut().try_for_each(|lane| lane.ring.enter())
    }

    /// Keeps accepts armed where a descriptor is sure to be free for each. A few connections beyond the limit are
    /// accepted, to be told why they must go.
    pub(super) fn arm_accepts(
        &mut self,
        connections: usize,
        now: Instant,
        settings: &Settings,
    ) -> io::Result<()> {
        if !self.open || now < self.accept_after {
            return Ok(());
        }
        let armed_at = |lanes: &[Lane], door: Token| -> usize {
            lanes.iter().map(|lane| lane.accepting[door as usize] as usize).sum()
        };
        let doors = self.listeners.len();
        let mut room = (settings.connections_max + doors * ACCEPTS)
            .saturating_sub(connections)
            .saturating_sub(self.lanes.iter().map(Lane::armed).sum::<u32>() as usize);
        for (door, listener) in self.listeners.each() {
            let armed = armed_at(&self.lanes, door);
            if armed >= ACCEPTS / 2 || room == 0 {
                continue;
            }
            let free = |lane: &Lane| settings.ring_slots - lane.used - lane.armed();
            if !self.lanes.iter().any(|lane| free(lane) > 0) {
                if self.lanes.len() == settings.rings_max {
                    return Ok(());
                }
                let lane = Self::make(&self.waker, false, doors, settings)?;
                self.lanes.push(lane);
            }
            let lane = self.lanes.iter_mut().find(|lane| free(lane) > 0).expect("one was added");
            // Each listener leaves room for the others in a ring that is nearly full.
            let slots = (free(lane) as usize).div_ceil(doors);
            let count = (ACCEPTS - armed).min(slots).min(room);
            for _ in 0..count {
                lane.ring.accept(listener, door);
                lane.accepting[door as usize] += 1;
            }
            room -= count;
        }
        Ok(())
    }

    /// Takes no more connections.
    pub(super) fn stop_accepting(&mut self) {
        if std::mem::take(&mut self.open) {
            for lane in &mut self.lanes {
                for (door, listener) in self.listeners.each() {
                    if lane.accepting[door as usize] > 0 {
                        lane.ring.cancel_accepts(listener);
                    }
                }
            }
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.lanes.iter().map(|lane| u64::from(lane.used)).sum()
    }

    pub(super) fn handle_event(&mut self, reactor: &mut Reactor, index: usize, event: Event) {
        let lane = &mut self.lanes[index];
        match event {
            Event::Received { token, result, buffer, once, more } => {
                let id = conn_of(token, reactor);
                if let (Some(buffer), Ok(len)) = (buffer, usize::try_from(result)) {
                    reactor.received(id, lane.ring.buffer_mut(buffer, len));
                }
                if let Some(buffer) = buffer {
                    lane.ring.give_back(buffer);
                }
                lane.receiving -= u32::from(once);
                lane.after_receive(reactor, id, result, more);
                lane.receive_waiting(reactor);
            }
            Event::Readable { token } => {
                let id = conn_of(token, reactor);
                if let Some(conn) = reactor.conns.get_mut(id) {
                    conn.reading = Reading::Ready;
                    if conn.is_handshaking() {
                        reactor.wait_for_handshake(id);
                    } else {
                        lane.waiting.push_back(id);
                        lane.receive_waiting(reactor);
                    }
                }
            }
            Event::Sent { token, buffer, result } => {
                reactor.sent(conn_of(token, reactor), buffer, result);
            }
            Event::Accepted { token: door, descriptor, peer } => {
                lane.accepting[door as usize] -= 1;
                lane.used += 1;
                if !self.open {
                    lane.ring.close(descriptor, 0);
                    return;
                }
                // Before anything is read, allocated or decrypted for it.
                let Some((pass, refused)) = reactor.judge(peer) else {
                    lane.ring.close(descriptor, 0);
                    return;
                };
                let mut conn = Conn::new(index as u16, descriptor, peer, reactor.now_s);
                conn.pass = pass;
                if self.listeners.is_tls(door) {
                    let tls =
                        reactor.tls.as_mut().expect("who listens for TLS has its configuration");
                    conn.tls = Some(tls.accept());
                    reactor.metrics.tls_connections.add(1);
                }
                let id = reactor.conns.insert(conn);
                reactor.metrics.connections.add(1);
                lane.ring.poll_readable(descriptor, token(id));
                reactor.look_again(id, reactor.now_s + reactor.settings.patience.login_s);
                if let Some(refused) = refused {
                    reactor.send_away(id, refused);
                } else if reactor.conns.len() > reactor.settings.connections_max {
                    reactor.fail(id, Code::ConnectionLimit);
                }
            }
            Event::AcceptFailed { token: door, errno } => {
                lane.accepting[door as usize] -= 1;
                if errno != libc::ECANCELED {
                    reactor.metrics.accept_errors.add(1);
                    self.accept_after = reactor.clock.instant() + ACCEPT_PAUSE;
                }
            }
            Event::Closed { .. } => lane.used -= 1,
            Event::ShutDown { token } => {
                let id = conn_of(token, reactor);
                if let Some(conn) = reactor.conns.get_mut(id)
                    && std::mem::replace(&mut conn.parting, Parting::Said) == Parting::EndsThen
                {
                    reactor.end(self, id);
                }
            }
            Event::Woken { more: false, token } => {
                lane.ring.poll_eventfd(self.waker.eventfd(), token);
            }
            Event::Woken { .. } => {}
            Event::Connected { .. } => unreachable!("a reactor connects to nobody"),
        }
    }

    /// Receives of a connection that was found readable and had to wait.
    pub(super) fn receive(&mut self, reactor: &mut Reactor, id: ConnId) {
        if let Some(conn) = reactor.conns.get_mut(id) {
            let lane = &mut self.lanes[usize::from(conn.lane)];
            lane.waiting.push_back(id);
            lane.receive_waiting(reactor);
        }
    }

    /// Gives a connection's descriptor back. What is under way on it is ended, a send to a client that does not read
    /// too: each operation would keep the socket alive.
    pub(super) fn release(&mut self, conn: &Conn, id: ConnId) {
        let ring = &mut self.lanes[usize::from(conn.lane)].ring;
        match conn.reading {
            Reading::Polling => ring.cancel_poll(token(id)),
            Reading::Multishot => ring.cancel_receive(token(id)),
            // A single receive is of a readable socket and ends by itself; a poll that fired is over.
            Reading::Ready | Reading::Once | Reading::Demoting | Reading::Paused => {}
        }
        if let Some(send) = conn.out.as_ref().and_then(|out| out.sending) {
            ring.cancel_send(send);
            // A socket that is closed with something unsent lives on until the kernel gives up on its peer.
            ring.disconnect(conn.descriptor);
        }
        ring.close(conn.descriptor, token(id));
    }
}

/// Leaves a client unread that lets its answers gather: what it asks for next would be answered by more of them.
fn pauses(conn: &mut Conn, settings: &Settings, metrics: &ReactorMetrics) -> bool {
    let leaves = !conn.closing && settings.slow.leaves_unread(conn.bytes_behind());
    if leaves {
        conn.reading = Reading::Paused;
        metrics.paused.add(1);
    }
    leaves
}

impl Lane {
    /// Accepts armed, of all listeners.
    fn armed(&self) -> u32 {
        self.accepting.iter().sum()
    }

    /// Receives of connections that have waited longest, as many as there are buffers. Submitting one for each readable
    /// connection would have most of them fail for lack of a buffer and start over, which takes the square of the time
    /// when thousands answer a PING at once.
    fn receive_waiting(&mut self, reactor: &mut Reactor) {
        while self.receiving < u32::from(BUFFERS) {
            let Some(id) = self.waiting.pop_front() else { return };
            if let Some(conn) = reactor.conns.get_mut(id)
                && (!conn.closing || conn.lingers)
                && !pauses(conn, &reactor.settings, &reactor.metrics)
            {
                conn.reading = Reading::Once;
                self.receiving += 1;
                self.ring.receive(conn.descriptor, token(id));
            }
        }
    }

    /// Decides how a connection waits next. Bytes twice within a second make it hot: a multishot receive then saves a
    /// submission per arrival; a quiet one goes back to the poll, which costs the kernel 600 bytes less.
    fn after_receive(&mut self, reactor: &mut Reactor, id: ConnId, result: i32, more: bool) {
        let now_s = reactor.now_s;
        if result == -libc::ENOBUFS {
            reactor.metrics.recv_no_buffer.add(1);
        } else if result == 0 {
            reactor.lose(id, CloseReason::PeerClosed);
        } else if result < 0 && !matches!(-result, libc::ECANCELED | libc::EAGAIN | libc::EINTR) {
            reactor.lose(id, reason_of(result));
        }
        let Some(conn) = reactor.conns.get_mut(id) else { return };
        let was_hot = result > 0 && conn.bytes_s == now_s;
        if result > 0 && !conn.closing {
            conn.bytes_s = now_s;
        }
        if more {
            return;
        }
        if conn.closing && !conn.lingers {
            conn.reading = Reading::Demoting;
            return;
        }
        if result == -libc::ENOBUFS {
            conn.reading = Reading::Ready;
            self.waiting.push_back(id);
            return;
        }
        if pauses(conn, &reactor.settings, &reactor.metrics) {
            return;
        }
        let stays_hot = conn.reading == Reading::Multishot;
        if (was_hot || stays_hot) && !conn.is_handshaking() {
            if !std::mem::replace(&mut conn.listed_hot, true) {
                reactor.hot.push(id);
            }
            conn.reading = Reading::Multishot;
            self.ring.receive_multishot(conn.descriptor, token(id));
        } else {
            conn.reading = Reading::Polling;
            self.ring.poll_readable(conn.descriptor, token(id));
        }
    }

    /// Reads a client again that was left unread.
    pub(super) fn read_again(&mut self, conn: &mut Conn, id: ConnId) {
        if !conn.closing || conn.lingers {
            conn.reading = Reading::Polling;
            self.ring.poll_readable(conn.descriptor, token(id));
        }
    }

    /// Ends a connection's multishot receive; its poll follows.
    pub(super) fn demote(&mut self, conn: &mut Conn, id: ConnId) {
        conn.reading = Reading::Demoting;
        self.ring.cancel_receive(token(id));
    }
}
