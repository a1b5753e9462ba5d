//! A reactor: one pinned thread that holds client connections and decides nothing about messages.
//!
//! The way of a message: [`inbound`] turns received bytes into frames, asks the session machine, and writes SENDs into
//! the batch of their partition; the partition's answer comes back as a batch, and [`outbound`] writes it to the
//! connections it names and sends once a turn, many frames at a time. [`lanes`] owns the rings, [`conn`] the slab.
//! On the TLS port, [`sealed`] stands between the socket's bytes and both.
//!
//! No task, timer or buffer exists per idle connection: it is a place in a slab, an entry in a wheel and an armed poll.

mod conn;
mod drain;
mod ejects;
mod gate;
mod inbound;
mod lanes;
mod logins;
mod outbound;
mod routing;
mod sealed;
mod timers;

pub use lanes::{ACCEPTS, Listeners};
pub use routing::{ClusterParts, GATEWAY};
pub use sealed::TlsParts;

use crate::admin::{NodeState, Phase};
use crate::auth::Verifier;
use crate::clock::Clock;
use crate::eject::Eject;
use crate::link::{Inbox, Outbox};
use crate::metrics::{CloseReason, Label, ReactorMetrics, TlsFailure};
use crate::rt::{self, Waker};
use conn::{Conns, Out, Parting, Reading};
use drain::Draining;
use ejects::Ejects;
use iris_proto::admission::Gate;
use iris_proto::id::ConnId;
use iris_proto::session::{Outlast, Patience, Seconds, SlowBounds, Waiting};
use iris_proto::wheel::{STEP_MS, Wheel};
use iris_proto::wire::{Code, put_error};
use lanes::Lanes;
use logins::Logins;
use routing::Routing;
use sealed::Tls;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Batches taken from partitions in one turn (I8).
const BATCHES_PER_TURN: usize = 16;
/// How long a reactor sleeps at most: timers are looked at that often on a quiet node.
const SLEEP_MAX: Duration = Duration::from_millis(500);
/// Send buffers kept for the next use, and the largest one worth keeping.
const POOLED_BUFFERS: usize = 256;
const POOLED_BYTES_MAX: usize = 64 << 10;
/// Time for a last word to a client that does not read.
const CLOSING_S: Seconds = 5;
/// Time for a client to end its side once it was told why.
const LINGER_S: Seconds = 2;

/// What a reactor is told about its node.
#[derive(Debug)]
pub struct Settings {
    pub patience: Patience,
    /// How long connections may outlast their tokens, and what makes that differ from life to life.
    pub outlast: Outlast,
    pub seed: u64,
    pub connections_max: usize,
    pub ring_slots: u32,
    pub rings_max: usize,
    /// What may wait for clients that do not take it.
    pub slow: SlowBounds,
    /// Bytes that may wait for one partition before SENDs are refused as overload.
    pub link_backlog_max: usize,
    /// Bytes of unfinished frames of all connections.
    pub partial_bytes_max: usize,
    pub num_shards: u16,
    pub dedup_window_ms: u64,
    pub region: String,
    pub node: String,
}

/// What a reactor is made of; [`Reactor::run`] takes it inside the executor.
pub struct Parts {
    pub index: u16,
    pub settings: Arc<Settings>,
    pub gate: Gate,
    pub listeners: Listeners,
    /// With the TLS listener.
    pub tls: Option<TlsParts>,
    pub verifier: Verifier,
    /// One per partition of this process, in order.
    pub links: Vec<Outbox>,
    pub inbox: Inbox,
    /// Wishes to end a user's sessions.
    pub ejects: crossbeam_channel::Receiver<Eject>,
    /// `None`: this process is alone.
    pub cluster: Option<ClusterParts>,
    pub waker: Waker,
    pub node: Arc<NodeState>,
    pub started: Instant,
    pub metrics: Arc<ReactorMetrics>,
}

/// A SEND whose recipients live in several shards, answered when each shard has answered.
struct Split {
    waiting: u16,
    copies: u8,
    refused: Option<(Code, u32)>,
}

struct Reactor {
    settings: Arc<Settings>,
    gate: Gate,
    /// SENDs are limited.
    metering: bool,
    verifier: Verifier,
    tls: Option<Box<Tls>>,
    links: Vec<Outbox>,
    inbox: Inbox,
    /// In a cluster: the way to all partitions, those of `links` among them.
    routing: Option<Box<Routing>>,
    /// Memory for what the router tells connections.
    told: Vec<u8>,
    node: Arc<NodeState>,
    clock: Clock,
    conns: Conns,
    wheel: Wheel<ConnId>,
    /// Memory for what the wheel hands out.
    due: Vec<ConnId>,
    /// Connections with something to send.
    dirty: Vec<ConnId>,
    /// Connections with a multishot receive.
    hot: Vec<ConnId>,
    splits: HashMap<ConnId, HashMap<u32, Split>>,
    logins: Logins,
    ejects: Ejects,
    pool: Vec<Vec<u8>>,
    partial_bytes: usize,
    /// Bytes that wait for all clients.
    out_bytes: usize,
    now_s: Seconds,
    /// Connections that are not ending.
    open: u64,
    /// Once the node sends its clients away.
    draining: Option<Box<Draining>>,
    metrics: Arc<ReactorMetrics>,
}

/// Runs a reactor until the node stops. An error is the ring's and ends the node: nothing can be served without it.
pub async fn run(parts: Parts) -> io::Result<()> {
    let clock = Clock::new(parts.started);
    let settings = Arc::clone(&parts.settings);
    let mut lanes = Lanes::new(parts.listeners, parts.waker, &settings)?;
    let mut links = parts.links;
    let routing =
        parts.cluster.map(|cluster| Box::new(Routing::new(cluster, std::mem::take(&mut links))));
    let mut reactor = Reactor {
        metering: parts.gate.limits().meter_sends(),
        gate: parts.gate,
        verifier: parts.verifier,
        tls: parts.tls.map(|parts| Box::new(Tls::new(parts))),
        links,
        inbox: parts.inbox,
        routing,
        told: Vec::new(),
        node: parts.node,
        conns: Conns::new(parts.index),
        wheel: Wheel::new(clock.seconds()),
        due: Vec::new(),
        dirty: Vec::new(),
        hot: Vec::new(),
        splits: HashMap::new(),
        logins: Logins::default(),
        ejects: Ejects::new(parts.ejects),
        pool: Vec::new(),
        partial_bytes: 0,
        out_bytes: 0,
        now_s: clock.seconds(),
        open: 0,
        draining: None,
        metrics: parts.metrics,
        clock,
        settings,
    };
    loop {
        if reactor.turn(&mut lanes)? {
            reactor.metrics.busy_ns.add(reactor.clock.elapsed().as_nanos() as u64);
            rt::yield_if_needed().await;
            continue;
        }
        if reactor.is_drained(&lanes) {
            return Ok(());
        }
        let is_alone = lanes.len() == 1;
        lanes.wake_on_events(true);
        if is_alone || !reactor.turn(&mut lanes)? {
            lanes.sleep(reactor.sleep_max(), || reactor.may_sleep())?;
        }
        lanes.wake_on_events(false);
    }
}

/// Keeps a buffer for the next use.
fn keep(pool: &mut Vec<Vec<u8>>, mut buffer: Vec<u8>) {
    if (1..=POOLED_BYTES_MAX).contains(&buffer.capacity()) && pool.len() < POOLED_BUFFERS {
        buffer.clear();
        pool.push(buffer);
    }
}

impl Reactor {
    /// One turn: what came from partitions, what came from clients, what is due, and all of it out again. Whether there
    /// was anything.
    fn turn(&mut self, lanes: &mut Lanes) -> io::Result<bool> {
        self.clock.turn();
        self.metrics.turns.add(1);
        lanes.enter()?;
        let mut worked = self.take_batches();
        worked |= self.take_logins();
        worked |= self.take_handshakes(lanes);
        worked |= self.take_events(lanes)?;
        worked |= self.take_time(lanes);
        worked |= self.eject_some();
        worked |= self.route();
        worked |= self.flush(lanes);
        Ok(worked)
    }

    fn is_draining(&self) -> bool {
        self.node.phase() >= Phase::Draining
    }

    fn may_sleep(&self) -> bool {
        self.inbox.is_empty()
            && self.ejects.is_quiet()
            && self.links.iter().all(Outbox::may_sleep)
            && self.routing.as_ref().is_none_or(|routing| routing.may_sleep())
    }

    fn sleep_max(&self) -> Duration {
        let now_ms = self.clock.monotonic_ms();
        let max = if self.wheel.is_waiting() { Duration::from_millis(STEP_MS) } else { SLEEP_MAX };
        self.routing.as_ref().map_or(max, |routing| routing.sleep_max(now_ms, max))
    }

    fn take_batches(&mut self) -> bool {
        let mut worked = false;
        for _ in 0..BATCHES_PER_TURN {
            let Some(batch) = self.inbox.receive() else { break };
            match &mut self.routing {
                Some(routing) => {
                    routing.take_batch(self.clock.monotonic_ms(), batch.from, &batch.bytes);
                    self.take_told();
                }
                None => self.take_batch(&batch.bytes),
            }
            worked = true;
        }
        worked
    }

    fn take_events(&mut self, lanes: &mut Lanes) -> io::Result<bool> {
        let mut worked = false;
        for index in 0..lanes.len() {
            for _ in 0..lanes::EVENTS_PER_TURN {
                let Some(event) = lanes.lane(index).ring.next_event() else { break };
                lanes.handle_event(self, index, event);
                worked = true;
            }
        }
        lanes.arm_accepts(self.conns.len(), self.clock.instant(), &self.settings)?;
        Ok(worked)
    }

    /// Sends what this turn gathered: one send per connection, one batch per partition.
    fn flush(&mut self, lanes: &mut Lanes) -> bool {
        let mut worked = false;
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            worked = true;
            self.flush_conn(lanes, id);
        }
        // Who was ended on the way has a last word to be sent in the next turn.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        let Self { links, routing, metrics, .. } = self;
        for frames in links.iter_mut().filter_map(Outbox::flush) {
            metrics.link_batch.record(frames);
            worked = true;
        }
        let mut backlog: usize = links.iter().map(Outbox::backlog_bytes).sum();
        if let Some(routing) = routing {
            worked |= routing.flush(|frames| metrics.link_batch.record(frames));
            backlog += routing.backlog_bytes();
        }
        metrics.link_backlog_bytes.set(backlog as u64);
        worked
    }

    fn flush_conn(&mut self, lanes: &mut Lanes, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.dirty = false;
        let Some(out) = &mut conn.out else { return self.all_sent(lanes, id) };
        if out.sending.is_none() {
            let pool = &mut self.pool;
            if let Some(stream) = &mut conn.tls {
                match out.seal(stream, || pool.pop().unwrap_or_default(), conn.closing) {
                    Ok(frames) => frames.into_iter().for_each(|buffer| keep(pool, buffer)),
                    // Its keys are used up.
                    Err(_) => return self.lose(id, CloseReason::Tls),
                }
            }
            let Some((bytes, start)) = out.next(|| pool.pop().unwrap_or_default()) else {
                self.out_bytes -= out.counted;
                conn.out = None;
                return self.all_sent(lanes, id);
            };
            self.metrics.sends.add(1);
            if start == 0 {
                self.metrics.sent_bytes.add(bytes.len() as u64);
                self.metrics.frames_per_send.record(u64::from(std::mem::take(&mut out.frames)));
            }
            out.taken_s = self.now_s;
            let ring = &mut lanes.lane(usize::from(conn.lane)).ring;
            out.sending = Some(ring.send_some(conn.descriptor, bytes, start, lanes::token(id)));
        }
        self.weigh(lanes, id);
    }

    /// Counts what waits for a client that has not taken all, and does something about one that takes too little.
    fn weigh(&mut self, lanes: &mut Lanes, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(out) = &mut conn.out else { return };
        let (bytes, behind) = (out.queued_bytes(), out.bytes_behind());
        self.out_bytes = self.out_bytes - out.counted + bytes;
        out.counted = bytes;
        let slow = self.settings.slow;
        let waiting = Waiting { bytes, total: self.out_bytes, taken_s: out.taken_s };
        if !conn.closing && slow.ends(self.now_s, &waiting) {
            return self.fail(id, Code::SlowReader);
        }
        let lane = lanes.lane(usize::from(conn.lane));
        match conn.reading {
            // It goes on as paused.
            Reading::Multishot if slow.leaves_unread(behind) => lane.demote(conn, id),
            Reading::Paused if slow.reads_again(behind) => lane.read_again(conn, id),
            _ => {}
        }
        self.look_again(id, slow.look_s(&waiting));
    }

    /// Nothing waits for a client.
    fn all_sent(&mut self, lanes: &mut Lanes, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.reading == Reading::Paused {
            lanes.lane(usize::from(conn.lane)).read_again(conn, id);
        }
        if conn.closing {
            self.part(lanes, id);
        }
    }

    /// A send ended: what the kernel did not take of it, or what gathered meanwhile, goes next.
    fn sent(&mut self, id: ConnId, buffer: Vec<u8>, result: i32) {
        let taken = usize::try_from(result).unwrap_or(0);
        let out = self.conns.get_mut(id).and_then(|conn| conn.out.as_mut());
        let Some(out) = out else { return self.pool(buffer) };
        let len = buffer.len();
        // Of one that failed, nothing is sent any more.
        let done = out.sent(buffer, if taken > 0 { taken } else { len });
        done.into_iter().for_each(|buffer| self.pool(buffer));
        if taken > 0 {
            self.mark_dirty(id);
        } else {
            self.lose(id, lanes::reason_of(result));
        }
    }

    fn pool(&mut self, buffer: Vec<u8>) {
        keep(&mut self.pool, buffer);
    }

    fn mark_dirty(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Lets `fill` write frames for a client. A client that lets too much gather is ended.
    fn write(&mut self, id: ConnId, fill: impl FnOnce(&mut Out)) {
        let bound = self.settings.slow.most();
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.closing {
            return;
        }
        fill(conn.out.get_or_insert_default());
        if conn.queued_bytes() > bound {
            self.fail(id, Code::SlowReader);
        }
        self.mark_dirty(id);
    }

    /// Ends a connection for a reason the client is told.
    fn fail(&mut self, id: ConnId, code: Code) {
        self.fail_because(id, code, CloseReason::from(code));
    }

    /// As [`Self::fail`], with a reason that is finer than what the client is told.
    fn fail_because(&mut self, id: ConnId, code: Code, reason: CloseReason) {
        let retry_after_ms = match code {
            Code::Draining => self.farewell().map_or(1000, |advice| advice.retry_after_ms),
            Code::ConnectionLimit | Code::Unavailable => 1000,
            _ => 0,
        };
        self.fail_until(id, code, reason, retry_after_ms);
    }

    /// As [`Self::fail_because`], and says when to come again.
    fn fail_until(&mut self, id: ConnId, code: Code, reason: CloseReason, retry_after_ms: u32) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.closing {
            return;
        }
        let out = conn.out.get_or_insert_default();
        if code == Code::SlowReader {
            out.drop_pending();
        }
        out.finish();
        put_error(&mut out.pending, code, retry_after_ms);
        out.frames += 1;
        conn.lingers = conn.logged_in && code != Code::SlowReader;
        self.close(id, reason);
    }

    /// Ends a connection whose client is gone already.
    fn lose(&mut self, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Some(out) = &mut conn.out {
            out.drop_all();
        }
        conn.lingers = false;
        if !conn.closing {
            self.close(id, reason);
        }
        self.mark_dirty(id);
    }

    fn close(&mut self, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.closing = true;
        conn.bytes_s = self.now_s + CLOSING_S;
        let partial = conn.partial.take().map_or(0, |partial| partial.len());
        let (logged_in, user) = (std::mem::take(&mut conn.logged_in), conn.user);
        let (watches, is_handshaking) = (conn.watches, conn.is_handshaking());
        self.gate.handle_settled(&mut conn.pass);
        if let Some(rates) = conn.rates.take() {
            self.gate.keep_user_rates(self.clock.monotonic_ns(), &user.0, rates.user());
        }
        tracing::debug!(peer = %conn.peer(), reason = reason.name(), "connection ended");
        self.note_closed();
        self.partial_bytes -= partial;
        self.metrics.closed.add(reason, 1);
        if is_handshaking {
            self.metrics.tls_failures.add(TlsFailure::of_end(reason), 1);
        }
        if logged_in {
            self.metrics.logged_in.sub(1);
            self.log_out(id, user, watches);
        }
        self.look_again(id, self.now_s + CLOSING_S);
        self.mark_dirty(id);
    }

    /// All is said. A socket that is closed while the client still sends answers with a reset, and a client that sees it
    /// first never reads why: `replaced` would look like a lost connection and be tried again for ever. So who logged in
    /// is read on, and what comes is dropped, until the client ends its side or the time for it is up.
    fn part(&mut self, lanes: &mut Lanes, id: ConnId) {
        let draining = self.is_draining();
        let Some(conn) = self.conns.get_mut(id) else { return };
        if !conn.lingers {
            return self.end(lanes, id);
        }
        if conn.parting != Parting::Saying {
            return;
        }
        conn.parting = Parting::Said;
        // A drain ends all connections at once, and this operation needs a thread: there DRAIN and ERROR must do.
        if !draining {
            conn.parting = Parting::ShuttingDown;
            let ring = &mut lanes.lane(usize::from(conn.lane)).ring;
            ring.shutdown_write(conn.descriptor, lanes::token(id));
        }
        self.look_again(id, self.now_s + LINGER_S);
    }

    /// Frees everything of a connection. Events that still come for it find nobody.
    fn end(&mut self, lanes: &mut Lanes, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        assert!(conn.closing, "a connection ends after its reason was counted");
        if matches!(conn.parting, Parting::ShuttingDown | Parting::EndsThen) {
            // Its descriptor may not be given to somebody else before: the kernel looks it up when it gets to it.
            conn.parting = Parting::EndsThen;
            return;
        }
        let conn = self.conns.remove(id).expect("it was there");
        self.gate.handle_end(conn.pass, &conn.address());
        self.out_bytes -= conn.out.as_ref().map_or(0, |out| out.counted);
        self.metrics.connections.sub(1);
        if let Some(stream) = &conn.tls {
            self.partial_bytes -= stream.kept_bytes();
            self.metrics.tls_connections.sub(1);
        }
        if conn.split_sends > 0 {
            self.splits.remove(&id);
        }
        lanes.release(&conn, id);
    }
}
