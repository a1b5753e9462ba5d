//! The gateway: one thread that owns this node's links to other nodes.
//!
//! It moves batches between links and the queues of reactors and partitions ([`super::traffic`]), and decides nothing
//! about messages. A turn takes what the ring, the threads and time bring, and sends what there is; nothing in it
//! waits. A link that fails ends alone.

use super::dials::{Dial, dials};
use super::ejects::HeardOf;
use super::ranges::Ranges;
use super::tls::{self, Tls};
use super::traffic::{CoreSide, EdgeSide};
use super::wire::{Side, Wire};
use super::{Me, Parts, States};
use crate::clock::Clock;
use crate::config::ClusterConfig;
use crate::eject::{Eject, Ejector};
use crate::metrics::{GatewayMetrics, Label, LinkEnd};
use crate::rt::Waker;
use crossbeam_channel::Receiver;
use iris_proto::edge::FromCore;
use iris_proto::peer::{End, EndCode, Event as LinkEvent, Hello, Link, LinkConfig, Purpose};
use iris_ring::{BufferId, Event, Ring, RingConfig, Token, stream_socket_to};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Links of a node, at most, those that are about to go included.
const LINKS_MAX: u32 = 512;
/// Connections that have not said who they are, at most.
const STRANGERS_MAX: usize = 64;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 16;
/// Events taken from the ring in one turn (I8).
const EVENTS_PER_TURN: usize = 256;
const BUFFERS: u16 = 64;
const BUFFER_BYTES: u32 = 32 << 10;
/// The shortest and the longest wait before a node is connected to again. Milliseconds.
const RETRY_MS: (u64, u64) = (50, 2000);
/// A link that was up for so long starts its waits anew when it ends. Milliseconds.
const STEADY_MS: u64 = 1000;
/// How long nothing must have come from edges before a core that leaves ends its links, and how long it waits for that.
const QUIET_MS: u64 = 200;
const LEAVE_MS: u64 = 3000;
/// Time to say goodbye on all links.
const GOODBYE_MS: u64 = 500;

const WAKE: Token = 0;
const LISTEN: Token = 1;

/// Why a link is over.
pub(super) struct Over {
    reason: LinkEnd,
    text: String,
    /// Whether the other side should be told, or has nobody to tell.
    say: bool,
}

impl From<End> for Over {
    fn from(end: End) -> Self {
        Self { reason: end.code.into(), text: end.to_string(), say: true }
    }
}

impl From<rustls::Error> for Over {
    fn from(error: rustls::Error) -> Self {
        let (name, text) = tls::explain(&error);
        Self { reason: LinkEnd::named(name), text, say: true }
    }
}

pub(super) struct Gateway {
    pub(super) config: ClusterConfig,
    pub(super) me: Me,
    listener: Option<TcpListener>,
    pub(super) ring: Ring,
    pub(super) waker: Waker,
    clock: Clock,
    pub(super) now_ms: u64,
    /// By the descriptor.
    pub(super) wires: Vec<Option<Box<Wire>>>,
    free: Vec<u16>,
    pub(super) generation: u64,
    pub(super) dials: Vec<Dial>,
    pub(super) ranges: Ranges,
    pub(super) edge: Option<EdgeSide>,
    pub(super) core: Option<CoreSide>,
    states: Arc<States>,
    pub(super) ejects: Receiver<Eject>,
    pub(super) ejector: Ejector,
    pub(super) heard_of: HeardOf,
    /// This process's own place among the cores.
    own_core: Option<usize>,
    leave: Arc<AtomicBool>,
    leaving_since_ms: Option<u64>,
    /// When a batch of an edge came last.
    pub(super) heard_ms: u64,
    said_goodbye_ms: Option<u64>,
    random: u64,
    plain: Vec<u8>,
    pub(super) metrics: Arc<GatewayMetrics>,
}

/// Runs the gateway until the node leaves. An error is the ring's and ends the node.
pub fn run(parts: Parts) -> io::Result<()> {
    let mut gateway = Gateway::new(parts)?;
    loop {
        if gateway.turn()? {
            let busy = gateway.clock.elapsed().as_nanos() as u64;
            gateway.metrics.busy_ns.add(busy);
            continue;
        }
        if gateway.is_done() {
            return Ok(());
        }
        gateway.sleep()?;
    }
}

impl Gateway {
    fn new(parts: Parts) -> io::Result<Self> {
        let mut ring = Ring::new(RingConfig {
            entries: 256,
            descriptors: LINKS_MAX,
            buffers: BUFFERS,
            buffer_bytes: BUFFER_BYTES,
        })?;
        ring.poll_eventfd(parts.waker.eventfd(), WAKE);
        if let Some(listener) = &parts.listener {
            listener.set_nonblocking(true)?;
            ring.poll_eventfd(listener.as_raw_fd(), LISTEN);
        }
        let me = parts.me;
        let takes_mirrors = parts.core.as_ref().is_some_and(|core| core.mirrors.is_some());
        let mut gateway = Self {
            ring,
            listener: parts.listener,
            waker: parts.waker,
            clock: Clock::new(parts.started),
            now_ms: 0,
            wires: (0..LINKS_MAX).map(|_| None).collect(),
            free: (0..LINKS_MAX as u16).rev().collect(),
            generation: 0,
            dials: dials(&parts.config, &me, takes_mirrors),
            ranges: Ranges::new(me.reactors),
            edge: parts.edge.map(EdgeSide::new),
            core: parts.core.map(CoreSide::new),
            states: parts.states,
            ejects: parts.ejects,
            ejector: parts.ejector,
            heard_of: HeardOf::default(),
            own_core: parts.config.cores.iter().position(|core| core.node == me.node),
            leave: parts.leave,
            leaving_since_ms: None,
            heard_ms: 0,
            said_goodbye_ms: None,
            random: parts.random | 1,
            plain: Vec::new(),
            metrics: parts.metrics,
            config: parts.config,
            me,
        };
        gateway.clock.turn();
        gateway.now_ms = gateway.clock.monotonic_ms();
        Ok(gateway)
    }

    /// One turn. Whether there was anything to do.
    fn turn(&mut self) -> io::Result<bool> {
        self.clock.turn();
        self.now_ms = self.clock.monotonic_ms();
        self.metrics.turns.add(1);
        self.ring.enter()?;
        let mut worked = false;
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = self.ring.next_event() else { break };
            self.take_event(event);
            worked = true;
        }
        worked |= self.take_home();
        worked |= self.take_ejects();
        self.tell_states();
        worked |= self.take_leave();
        self.dial_due();
        for slot in 0..self.wires.len() {
            worked |= self.with_wire(slot, Self::tend);
        }
        self.flush_threads();
        Ok(worked)
    }

    /// Lets `act` work on a wire and on the gateway. What ends it is told and forgotten here.
    fn with_wire(
        &mut self,
        slot: usize,
        act: impl FnOnce(&mut Self, &mut Wire) -> Result<bool, Over>,
    ) -> bool {
        let Some(mut wire) = self.wires[slot].take() else { return false };
        let worked = match act(self, &mut wire) {
            Ok(worked) => worked,
            Err(over) => {
                self.over(&mut wire, &over);
                true
            }
        };
        self.metrics.sent_bytes.add(wire.flush(&mut self.ring) as u64);
        let is_late = wire.parted_ms().is_some_and(|until_ms| until_ms <= self.now_ms);
        if !(is_late && wire.close(&mut self.ring)) {
            self.wires[slot] = Some(wire);
        }
        worked
    }

    fn tend(&mut self, wire: &mut Wire) -> Result<bool, Over> {
        if wire.is_parting() {
            return Ok(false);
        }
        // A stranger's time runs from the connection on; a dial's socket has a time-out of its own.
        if !wire.is_connecting() {
            wire.link.poll(self.now_ms)?;
        }
        // Looked at before the last bytes are taken, which say why.
        let is_cut = matches!(&wire.side, Side::Mirror { cut, .. } if cut.is_asked());
        let worked = self.pump(wire)?;
        self.grant(wire);
        if is_cut {
            let end = End::ours(EndCode::OutOfOrder, "a stream of the mirror cannot go on");
            wire.link.end(&end);
            return Err(end.into());
        }
        Ok(worked)
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Received { token, result, buffer, more, .. } => {
                let slot = slot_of(token);
                if let (Some(buffer), Ok(len)) = (buffer, usize::try_from(result)) {
                    self.metrics.received_bytes.add(len as u64);
                    if self.is_wire(token) {
                        self.with_wire(slot, |gateway, wire| gateway.received(wire, buffer, len));
                    }
                    self.ring.give_back(buffer);
                } else if let Some(buffer) = buffer {
                    self.ring.give_back(buffer);
                }
                if self.is_wire(token) {
                    self.with_wire(slot, |gateway, wire| gateway.after_receive(wire, result, more));
                }
            }
            Event::Sent { token, buffer, result } => {
                if self.is_wire(token) {
                    self.with_wire(slot_of(token), |_, wire| {
                        if wire.sent(buffer.len(), result) {
                            Ok(true)
                        } else {
                            Err(io_over(result))
                        }
                    });
                }
            }
            Event::Connected { token, result } => {
                if self.is_wire(token) {
                    self.with_wire(slot_of(token), |gateway, wire| gateway.connected(wire, result));
                }
            }
            Event::ShutDown { token } => {
                if self.is_wire(token) {
                    self.with_wire(slot_of(token), |_, wire| {
                        wire.shut_down();
                        Ok(true)
                    });
                }
            }
            Event::Closed { token } => self.free.push(slot_of(token) as u16),
            Event::Woken { token, more } => {
                if token == LISTEN {
                    self.accept();
                }
                if !more && let Some(fd) = self.polled(token) {
                    self.ring.poll_eventfd(fd, token);
                }
            }
            Event::Readable { .. } | Event::Accepted { .. } | Event::AcceptFailed { .. } => {
                unreachable!("a gateway neither polls sockets nor accepts in its ring")
            }
        }
    }

    fn polled(&self, token: Token) -> Option<RawFd> {
        match token {
            LISTEN => self.listener.as_ref().map(AsRawFd::as_raw_fd),
            _ => Some(self.waker.eventfd()),
        }
    }

    fn is_wire(&self, token: Token) -> bool {
        let wire = self.wires.get(slot_of(token)).and_then(Option::as_ref);
        wire.is_some_and(|wire| wire.token == token)
    }

    // ---- connections

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            let accepted = match &self.listener {
                Some(listener) => listener.accept(),
                None => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.metrics.accept_errors.add(1);
                    return;
                }
            };
            let strangers = self
                .wires
                .iter()
                .flatten()
                .filter(|wire| wire.dial.is_none() && matches!(wire.side, Side::Stranger));
            if strangers.count() >= STRANGERS_MAX || self.said_goodbye_ms.is_some() {
                self.metrics.ended.add(LinkEnd::Full, 1);
                continue;
            }
            let _ = stream.set_nodelay(true);
            let Ok(tls) = Tls::accept(&self.config.credentials) else { continue };
            let link = Link::accept(self.link_config(Purpose::Clients, None), self.now_ms);
            if let Some(slot) = self.add(&stream, peer, tls, link, None) {
                self.with_wire(slot, |gateway, wire| {
                    wire.open(&mut gateway.ring);
                    Ok(true)
                });
            }
        }
    }

    /// Puts a socket into the ring's table. `None` if there is no room.
    fn add(
        &mut self,
        socket: &impl AsRawFd,
        peer: SocketAddr,
        tls: Tls,
        link: Link,
        dial: Option<usize>,
    ) -> Option<usize> {
        let Some(slot) = self.free.pop() else {
            self.metrics.ended.add(LinkEnd::Full, 1);
            return None;
        };
        if self.ring.install(u32::from(slot), socket).is_err() {
            self.free.push(slot);
            self.metrics.accept_errors.add(1);
            return None;
        }
        self.generation += 1;
        let token = self.generation << 16 | u64::from(slot);
        let wire = Wire::new((token, u32::from(slot)), peer, tls, link, dial);
        self.wires[usize::from(slot)] = Some(Box::new(wire));
        Some(usize::from(slot))
    }

    fn dial_due(&mut self) {
        for index in 0..self.dials.len() {
            let dial = &self.dials[index];
            if dial.slot.is_some() || dial.next_ms > self.now_ms || self.leaving_since_ms.is_some()
            {
                continue;
            }
            let (core, purpose) = (dial.core, dial.purpose);
            if let Err(error) = self.dial(index, core, purpose) {
                self.metrics.cores[core].note_end(purpose, LinkEnd::ConnectFailed);
                self.dial_failed(index, LinkEnd::ConnectFailed, &error);
            }
        }
    }

    fn dial(&mut self, index: usize, core: usize, purpose: Purpose) -> Result<(), String> {
        let target = self.config.cores[core];
        let tls = Tls::dial(&self.config.credentials, &self.config.id, target.node)
            .map_err(|error| error.to_string())?;
        let socket = stream_socket_to(&target.addr).map_err(|error| error.to_string())?;
        let link = Link::dial(self.link_config(purpose, Some(target.node)), self.now_ms);
        let Some(slot) = self.add(&socket, target.addr, tls, link, Some(index)) else {
            return Err("no room for another link".to_owned());
        };
        self.dials[index].slot = Some(slot as u16);
        let token = self.wires[slot].as_ref().expect("it was added").token;
        self.ring.connect(slot as u32, &target.addr, token);
        Ok(())
    }

    fn link_config(&self, purpose: Purpose, expected_node: Option<u32>) -> LinkConfig {
        LinkConfig { me: self.me.hello(&self.config, purpose), expected_node }
    }

    fn connected(&mut self, wire: &mut Wire, result: i32) -> Result<bool, Over> {
        if wire.is_parting() {
            return Ok(true);
        }
        if result < 0 {
            let text = io::Error::from_raw_os_error(-result).to_string();
            return Err(Over { reason: LinkEnd::ConnectFailed, text, say: false });
        }
        wire.open(&mut self.ring);
        Ok(true)
    }

    fn received(&mut self, wire: &mut Wire, buffer: BufferId, len: usize) -> Result<bool, Over> {
        if wire.is_parting() {
            return Ok(true);
        }
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let bytes = self.ring.buffer(buffer, len);
        let result = wire.tls.receive(bytes, &mut plain).map_err(Over::from);
        // What was decrypted before a fault is whole and counts.
        let taken = self.take_plain(wire, &plain);
        self.plain = plain;
        taken.and(result).map(|()| true)
    }

    fn take_plain(&mut self, wire: &mut Wire, plain: &[u8]) -> Result<(), Over> {
        let mut rest = plain;
        while let Some(event) = wire.link.next(self.now_ms, &mut rest)? {
            match event {
                LinkEvent::Hello(hello) => {
                    if let Err(end) = self.judge(wire, &hello) {
                        wire.link.end(&end);
                        return Err(end.into());
                    }
                }
                LinkEvent::Batch { channel, bytes } => {
                    let len = bytes.len();
                    self.take_batch(wire, channel, bytes).inspect_err(|end| wire.link.end(end))?;
                    wire.owed[usize::from(channel)] += len;
                }
                LinkEvent::State { partition, state } => {
                    self.take_state(wire, partition, state);
                }
                LinkEvent::Eject { user, id } => self.take_eject(wire, user, id),
            }
        }
        Ok(())
    }

    fn after_receive(&mut self, wire: &mut Wire, result: i32, more: bool) -> Result<bool, Over> {
        if !more {
            wire.receive_ended();
        }
        if wire.is_parting() {
            // The other side is done as well, or gives nothing more.
            if result <= 0 {
                wire.hang_up();
            }
            return Ok(true);
        }
        match result {
            0 => {
                let text = "the other side closed without a word".to_owned();
                return Err(Over { reason: LinkEnd::PeerClosed, text, say: false });
            }
            1.. => {}
            _ if matches!(-result, libc::ENOBUFS | libc::EINTR | libc::EAGAIN) => {}
            _ => return Err(io_over(result)),
        }
        if !more {
            wire.receive(&mut self.ring);
        }
        Ok(true)
    }

    /// Whether the node behind a link is who it says, and has a place here.
    fn judge(&mut self, wire: &mut Wire, hello: &Hello) -> Result<(), End> {
        let refuse = |code, text: String| Err(End::ours(code, text));
        if let Err(text) = wire.tls.check_peer(&self.config.id, hello.node) {
            return refuse(EndCode::Identity, text);
        }
        self.replace_older(hello);
        if let Some(dial) = wire.dial {
            wire.link.establish(self.now_ms);
            match self.dials[dial].purpose {
                Purpose::Clients => self.join_core(wire, self.dials[dial].core, hello),
                Purpose::Replication => self.join_mirror(wire, hello),
            }
            self.dials[dial].last = None;
        } else {
            self.admit(hello)?;
            match hello.purpose {
                Purpose::Clients => self.join_edge(wire, hello)?,
                Purpose::Replication => {
                    wire.link.establish(self.now_ms);
                    self.join_mirror(wire, hello);
                }
            }
        }
        wire.up_since_ms = self.now_ms;
        self.metrics.links.add(1);
        self.note_up(wire);
        let (node, name, region) = (hello.node, &hello.name, &hello.region);
        tracing::info!(event = "linked", node, name, region, peer = %wire.peer, "linked");
        Ok(())
    }

    /// Whether a node that came to us is one of those that should.
    fn admit(&self, hello: &Hello) -> Result<(), End> {
        let Some(core) = &self.core else {
            return Err(End::ours(EndCode::Identity, "this node is no core"));
        };
        // Of two mirrors the one with the lower number connects.
        let mut mirrors = self.config.cores.iter().map(|core| core.node);
        let is_mirror = mirrors.any(|node| node == hello.node) && hello.node < self.me.node;
        if hello.purpose == Purpose::Replication && !(is_mirror && core.takes_mirrors()) {
            return Err(End::ours(EndCode::Identity, "this node does not mirror that one"));
        }
        Ok(())
    }

    /// A node that links anew has lost its older link, even if we have not noticed.
    fn replace_older(&mut self, hello: &Hello) {
        for slot in 0..self.wires.len() {
            let is_older = self.wires[slot].as_ref().is_some_and(|wire| {
                let peer = wire.link.peer().filter(|_| wire.dial.is_none() && wire.link.is_up());
                peer.is_some_and(|peer| peer.node == hello.node && peer.purpose == hello.purpose)
            });
            if is_older {
                self.with_wire(slot, |_, wire| {
                    let text = "a newer link of this node took over";
                    let end = End::ours(EndCode::Replaced, text);
                    wire.link.end(&end);
                    Err(end.into())
                });
            }
        }
    }

    /// A link is over: those who used it are told, and it is made again if it was ours to make.
    fn over(&mut self, wire: &mut Wire, over: &Over) {
        if wire.is_parting() {
            return;
        }
        self.metrics.ended.add(over.reason, 1);
        let was_up = wire.up_since_ms > 0;
        if was_up {
            self.metrics.links.sub(1);
        }
        self.note_end(wire, was_up, over.reason);
        let node = wire.link.peer().map(|peer| peer.node);
        let (reason, text) = (over.reason.name(), &over.text);
        if was_up {
            tracing::warn!(event = "link_ended", node, peer = %wire.peer, reason, text, "link ended");
        } else if wire.dial.is_none() {
            tracing::info!(peer = %wire.peer, reason, text, "a connection to the link port was refused");
        }
        self.leave_side(wire, over.reason);
        if over.say {
            wire.part(self.now_ms)
        } else {
            wire.hang_up()
        }
        if let Some(index) = wire.dial {
            if was_up && wire.up_since_ms + STEADY_MS <= self.now_ms {
                self.dials[index].attempt = 0;
            }
            self.dial_failed(index, over.reason, text);
        }
    }

    /// Waits before the next attempt, longer each time, and by chance, so that nodes do not come in step.
    fn dial_failed(&mut self, index: usize, reason: LinkEnd, text: &str) {
        let most = RETRY_MS.1.min(RETRY_MS.0 << self.dials[index].attempt.min(16));
        let wait_ms = most / 2 + self.chance() % (most / 2 + 1);
        let dial = &mut self.dials[index];
        dial.slot = None;
        dial.attempt += 1;
        dial.next_ms = self.now_ms + wait_ms;
        // The same reason again and again is said when it is news: the first time and at powers of two.
        if dial.last.replace(reason) != Some(reason) || dial.attempt.is_power_of_two() {
            let target = self.config.cores[dial.core];
            tracing::warn!(
                event = "core_unreachable",
                node = target.node,
                addr = %target.addr,
                reason = reason.name(),
                text,
                attempt = dial.attempt,
                "no link to a core"
            );
        }
    }

    /// Xorshift (Marsaglia, 2003): a jitter needs no better chance.
    pub(super) fn chance(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    // ---- time

    /// Tells edges what has changed of our partitions.
    fn tell_states(&mut self) {
        let Some(core) = &mut self.core else { return };
        for (partition, state) in core.changed_states(&self.states) {
            for wire in self.wires.iter_mut().flatten() {
                if matches!(wire.side, Side::Edge(_)) {
                    wire.link.tell_state(partition, state);
                }
            }
            if let (Some(edge), Some(own)) = (&mut self.edge, self.own_core) {
                edge.tell(own, &FromCore::State { partition, state });
            }
        }
    }

    /// The node stops: edges are given time to go elsewhere, then every link is ended.
    fn take_leave(&mut self) -> bool {
        if !self.leave.load(Ordering::Acquire) || self.said_goodbye_ms.is_some() {
            return false;
        }
        let since_ms = *self.leaving_since_ms.get_or_insert(self.now_ms);
        let is_linked =
            |is: fn(&Side) -> bool| self.wires.iter().flatten().any(|wire| is(&wire.side));
        let has_edges = is_linked(|side| matches!(side, Side::Edge(_)));
        let has_mirror = is_linked(|side| matches!(side, Side::Mirror { .. }));
        let is_quiet = self.now_ms >= since_ms.max(self.heard_ms) + QUIET_MS;
        let waits = (has_edges && !is_quiet) || (has_mirror && !self.states.have_drained());
        if waits && self.now_ms < since_ms + LEAVE_MS {
            return false;
        }
        self.said_goodbye_ms = Some(self.now_ms);
        for slot in 0..self.wires.len() {
            self.with_wire(slot, |_, wire| {
                let end = End::ours(EndCode::GoingAway, "the node stops");
                wire.link.end(&end);
                Err(end.into())
            });
        }
        true
    }

    fn is_done(&self) -> bool {
        self.said_goodbye_ms.is_some_and(|since_ms| {
            self.now_ms >= since_ms + GOODBYE_MS || self.wires.iter().all(Option::is_none)
        })
    }

    fn sleep(&mut self) -> io::Result<()> {
        let mut until_ms = self.now_ms + 500;
        let is_leaving = self.leave.load(Ordering::Acquire);
        if is_leaving {
            until_ms = self.now_ms + 20;
        }
        for wire in self.wires.iter().flatten() {
            let next_ms = wire.parted_ms().unwrap_or_else(|| wire.link.poll_timeout());
            until_ms = until_ms.min(next_ms);
        }
        for dial in self.dials.iter().filter(|dial| dial.slot.is_none()) {
            until_ms = until_ms.min(dial.next_ms);
        }
        let wait = Duration::from_millis(until_ms.saturating_sub(self.now_ms).max(1));
        let Self { waker, ring, wires, edge, core, ejects, .. } = self;
        let is_idle = || {
            ejects.is_empty()
                && wires.iter().flatten().all(|wire| wire.may_sleep())
                && edge.as_ref().is_none_or(EdgeSide::may_sleep)
                && core.as_ref().is_none_or(CoreSide::may_sleep)
        };
        waker.sleep_in(is_idle, || ring.enter_wait(wait)).unwrap_or(Ok(()))
    }
}

fn slot_of(token: Token) -> usize {
    (token & 0xffff) as usize
}

fn io_over(result: i32) -> Over {
    let text = io::Error::from_raw_os_error(-result.min(-1)).to_string();
    Over { reason: LinkEnd::IoError, text, say: false }
}
