//! The routing of an edge: which core a shard's traffic goes to, and what becomes of it when that core goes away.
//!
//! A [`Router`] belongs to one reactor and stands between its sessions and the cores. Clients stay connected while a core
//! dies: their users are logged in again at the other core of the shard, and what was not answered is sent to it with
//! the same ids. To a client all cores look like one.
//!
//! # Rules
//!
//! - *Choice.* A shard goes to the usable core with the highest weight for it (rendezvous hashing, [`weight`]), so that all
//!   edges choose alike. Usable: its link is up, it serves the shard, the partition says so and has not just proven
//!   otherwise. One that lacks records of its mirror is chosen only if no other is usable: it would deliver what it lacks
//!   late. A core that comes back gets its shards again after `failback_ms` in which it lacked nothing and had no fault.
//! - *SENDs* of a shard form one queue, in the order of arrival. A SEND stays in it until it is answered; when the shard
//!   moves, the queue is sent again from its head. So the order of a session is kept, each SEND is answered exactly once,
//!   and an answer is only ever a core's own or a refusal of ours: `shard_unavailable` after `send_wait_ms`,
//!   `overloaded` beyond a bound. After such a refusal the message may be in the inbox all the same: the client sends
//!   the same id again.
//! - *Orderly moves* (the core drains, or the preferred one is back) hold new SENDs until those under way are answered, for
//!   `move_ms` at most; nobody gets an error.
//! - *Sessions.* Each login at a core has a name of its own on the link, so that what still comes for an older one is told
//!   apart. Deliveries are numbered from 1 at each login; towards the client the numbers go on, and its
//!   acknowledgements are translated back. What it acknowledges of an older login's deliveries cannot be told to the new
//!   core: it is delivered again, and dropped by its id. Logins of a shard that moved are repeated at a bounded rate, with
//!   the number that the first one got, so that the newest login of a user wins wherever it arrives last.
//! - *Presence.* Watches and open questions move with their shard. Changes count only from the core that the shard is at.
//!
//! # How a driver uses it
//!
//! Time is monotonic milliseconds. [`Router::core_up`], [`Router::core_state`] and [`Router::core_down`] follow the links;
//! frames of sessions go to [`Router::handle_client`], frames of cores to [`Router::handle_core`]; [`Router::poll`] is
//! called once a turn. All of them write to [`Effects`] and return at once.

mod asks;
mod cores;
mod news;
mod queue;
mod sends;
mod sessions;
#[cfg(test)]
mod tests;
mod watches;

pub use cores::weight;
pub use news::FromCore;

use crate::id::{ConnId, ShardId, UserKey, shard_for_user};
use crate::link::{ToCore, ToEdge};
use crate::peer::ShardRanges;
use crate::wire::Code;
use asks::Asks;
use cores::Cores;
use queue::{Pendings, Shard};
use sessions::Sessions;

/// No core, no place: the end of a list.
const NIL: u32 = u32::MAX;
/// Milliseconds between looks at deadlines.
const TICK_MS: u64 = 5;

/// A core of the cluster, by its place in [`RouterConfig::nodes`].
pub type CoreIndex = usize;

/// What a router is told.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// The reactor's number: it is part of the names of connections.
    pub reactor: u16,
    /// Shards of the cluster.
    pub num_shards: u16,
    /// Node numbers of the cores.
    pub nodes: Vec<u32>,
    /// A SEND that nobody answered is refused after this time.
    pub send_wait_ms: u64,
    /// A partition that leaves a SEND unanswered for so long is left for another core, if there is one.
    pub answer_ms: u64,
    /// How long the first choice waits for the other cores after one is there, so that shards do not move at once.
    pub settle_ms: u64,
    /// How long a core must have been usable, and have lacked nothing, before shards return to it.
    pub failback_ms: u64,
    /// How long an orderly move waits for answers.
    pub move_ms: u64,
    /// Logins that are repeated in a second.
    pub relogins_per_s: u32,
    /// Bytes of unanswered SENDs of one connection.
    pub conn_bytes_max: usize,
    /// Bytes of unanswered SENDs of all connections.
    pub bytes_max: usize,
    /// Bytes that may wait for one partition before SENDs are held back here.
    pub backlog_max: usize,
    /// Names watched and asked for by all connections.
    pub names_max: usize,
}

impl RouterConfig {
    /// The defaults.
    pub fn new(reactor: u16, num_shards: u16, nodes: Vec<u32>) -> Self {
        Self {
            reactor,
            num_shards,
            nodes,
            send_wait_ms: 5000,
            answer_ms: 1000,
            settle_ms: 250,
            failback_ms: 3000,
            move_ms: 250,
            relogins_per_s: 50_000,
            conn_bytes_max: 1 << 20,
            bytes_max: 64 << 20,
            backlog_max: 16 << 20,
            names_max: 1 << 20,
        }
    }
}

/// Takes the effects of a router. Every method returns at once; none calls back into the router.
pub trait Effects {
    /// Where a frame for a partition of a core is written.
    fn to_core(&mut self, core: CoreIndex, partition: u16) -> &mut Vec<u8>;

    /// Bytes that wait for it.
    fn backlog_bytes(&self, core: CoreIndex, partition: u16) -> usize;

    /// A frame for a connection of the reactor.
    fn to_client(&mut self, frame: &ToEdge<'_>);
}

/// What happened so far. Each only grows.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Shards that lost their core and went to another one at once.
    pub failovers: u64,
    /// Shards that moved in order.
    pub moves: u64,
    /// SENDs that were sent again.
    pub resent: u64,
    /// Logins that were repeated.
    pub relogins: u64,
    /// SENDs refused because no core answered in time.
    pub unanswered: u64,
    /// SENDs refused because too much waits.
    pub overloaded: u64,
    /// Frames of cores that named nothing of ours (any more).
    pub stale: u64,
}

/// How much there is now.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Gauges {
    /// Sessions.
    pub sessions: u32,
    /// SENDs without an answer.
    pub pending: u32,
    /// Bytes of these.
    pub pending_bytes: usize,
    /// Shards without a usable core.
    pub unroutable: u32,
}

/// The routing of one reactor. See the module's page for how to drive it.
pub struct Router {
    config: RouterConfig,
    cores: Cores,
    shards: Vec<Shard>,
    pendings: Pendings,
    sessions: Sessions,
    asks: Asks,
    counters: Counters,
    next_tick_ms: u64,
    /// Something changed that decides where shards go.
    reconsider: bool,
    unroutable: u32,
    scratch: Vec<u8>,
}

impl Router {
    /// A router that knows no core yet.
    pub fn new(config: RouterConfig) -> Self {
        assert!(config.num_shards > 0, "a cluster has at least one shard");
        assert!(config.nodes.len() < usize::from(u8::MAX), "cores are numbered in a byte");
        Self {
            cores: Cores::new(&config.nodes),
            shards: (0..config.num_shards).map(|_| Shard::new()).collect(),
            pendings: Pendings::new(),
            sessions: Sessions::new(config.reactor, config.relogins_per_s),
            asks: Asks::default(),
            counters: Counters::default(),
            next_tick_ms: 0,
            reconsider: false,
            unroutable: u32::from(config.num_shards),
            scratch: Vec::new(),
            config,
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How much there is now.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            sessions: self.sessions.len(),
            pending: self.pendings.len(),
            pending_bytes: self.pendings.bytes(),
            unroutable: self.unroutable,
        }
    }

    /// The core that a shard goes to.
    pub fn core_of(&self, shard: ShardId) -> Option<CoreIndex> {
        self.shards[usize::from(shard.0)].at
    }

    /// How many shards go to each core, in the order of the configuration. A look at every shard.
    pub fn shards_by_core(&self) -> Vec<u16> {
        let mut shards = vec![0; self.config.nodes.len()];
        for core in self.shards.iter().filter_map(|shard| shard.at) {
            shards[core] += 1;
        }
        shards
    }

    /// A link to a core stands. Its partitions count as recovering until [`Self::core_state`].
    pub fn core_up(&mut self, core: CoreIndex, partitions: u16, shards: &ShardRanges) {
        self.cores.up(core, partitions, shards, self.config.num_shards);
        self.reconsider = true;
    }

    /// A partition of a core changed its state.
    pub fn core_state(
        &mut self,
        now_ms: u64,
        core: CoreIndex,
        partition: u16,
        state: crate::peer::PartitionState,
    ) {
        self.cores.set_state(core, partition, state, now_ms);
        self.reconsider = true;
        // Logins may have waited for it.
        self.sessions.sweep(now_ms);
    }

    /// A link to a core ended. Nothing of it comes any more, and nothing for it is taken.
    pub fn core_down(&mut self, fx: &mut impl Effects, now_ms: u64, core: CoreIndex) {
        self.cores.down(core);
        self.reconsider(fx, now_ms);
    }

    /// A frame of a session: what a reactor without a router would write into the batch of a partition.
    pub fn handle_client(&mut self, fx: &mut impl Effects, now_ms: u64, frame: &ToCore<'_>) {
        match frame {
            ToCore::Send(send) => self.send(fx, now_ms, send),
            ToCore::Ack { conn, upto, .. } => self.ack(fx, *conn, *upto),
            ToCore::Login { conn, user, window, name, .. } => {
                self.login(fx, now_ms, *conn, *user, name, *window);
            }
            ToCore::Logout { conn, .. } => self.logout(fx, *conn),
            ToCore::Window { conn, window, .. } => self.window(fx, *conn, *window),
            ToCore::Presence(ask) => self.ask(fx, now_ms, ask),
            ToCore::Unwatch { conn, users } => self.unwatch(fx, *conn, *users),
            ToCore::Receipt(post) => self.receipt(fx, frame, post.to),
            ToCore::Gone { .. } => panic!("a session does not say that"),
        }
    }

    /// A frame of a core.
    pub fn handle_core(
        &mut self,
        fx: &mut impl Effects,
        now_ms: u64,
        core: CoreIndex,
        frame: &ToEdge<'_>,
    ) {
        match *frame {
            ToEdge::Accepted { conn, first, count, copies } => {
                self.accepted(fx, conn, first, count, copies);
            }
            ToEdge::Frame { conn, bytes } => self.client_frames(fx, core, conn, bytes),
            ToEdge::Rejected { conn, seq, code, retry_after_ms } => {
                self.rejected(fx, now_ms, core, conn, seq, (code, retry_after_ms));
            }
            ToEdge::Welcome { conn, waiting, session } => {
                self.welcome(fx, core, conn, waiting, session);
            }
            ToEdge::Kick { conn, code } => self.kick(fx, now_ms, core, conn, code),
            ToEdge::Receipt { to, reader, id, reader_name } => {
                let post = crate::link::ReceiptPost { to, reader, reader_name, id };
                self.receipt(fx, &ToCore::Receipt(post), to);
            }
        }
    }

    /// What is due: moves, logins to repeat, deadlines. Whether there is more to do at once.
    pub fn poll(&mut self, fx: &mut impl Effects, now_ms: u64) -> bool {
        if std::mem::take(&mut self.reconsider) {
            self.reconsider(fx, now_ms);
        }
        let mut more = false;
        if now_ms >= self.next_tick_ms {
            self.next_tick_ms = now_ms + TICK_MS;
            self.cores.expire(now_ms);
            self.reconsider(fx, now_ms);
            more |= self.pump_some(fx, now_ms);
            self.take_time(fx, now_ms);
            self.asks_take_time(fx, now_ms);
        }
        more | self.relogin_some(fx, now_ms)
    }

    /// When [`Self::poll`] has something to do at the latest, besides more input.
    pub fn poll_timeout(&self, now_ms: u64) -> u64 {
        if self.reconsider || self.sessions.has_work() {
            return now_ms;
        }
        let is_quiet = self.pendings.len() == 0 && self.asks.is_empty();
        if is_quiet { now_ms + 100 } else { self.next_tick_ms }
    }

    /// A receipt for somebody of a shard; one that finds no core is lost like one of a node that dies.
    fn receipt(&mut self, fx: &mut impl Effects, frame: &ToCore<'_>, to: UserKey) {
        let shard = self.shard_of(to);
        match self.shards[usize::from(shard.0)].at {
            Some(core) => frame.encode(fx.to_core(core, self.cores.partition(core, shard))),
            None => self.counters.stale += 1,
        }
    }

    fn shard_of(&self, user: UserKey) -> ShardId {
        shard_for_user(user, self.config.num_shards)
    }
}

/// Refuses a SEND of a connection.
fn refuse(fx: &mut impl Effects, conn: ConnId, seq: u32, code: Code, retry_after_ms: u32) {
    fx.to_client(&ToEdge::Rejected { conn, seq, code, retry_after_ms });
}
