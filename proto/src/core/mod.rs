//! The core partition: inboxes, exactly-once admission, delivery under credit, presence. A machine without I/O.
//!
//! # Contract
//!
//! - The driver calls `handle_*` with one input and the time, and [`Core::poll`] after each bunch of inputs. Effects go
//!   to an [`Effects`] at once, in order; nothing is returned, and a bad peer is data: a rejection, a kick or a count.
//! - Time is Unix milliseconds and comes with the input. It may stand still and step back; see [`Core::poll_timeout`].
//! - A new core takes in what is left of its log (`recover_*`, any order, any number of times) and then
//!   [`Core::recovery_done`], also when there was no log. Inputs before that are a bug of the driver.
//! - Appends happen during `handle_send`, `handle_ack`, `handle_receipt`, `checkpoint` and `poll`. The log says where the
//!   record went ([`Appended`]) and later, by [`Core::handle_durable`], how far it is durable. ACCEPTED, deliveries of new
//!   messages and receipts are *produced* by `handle_durable` and the `poll` after it: none exists earlier (I1). In a
//!   mirrored pair the driver calls it when the ack rule holds, and says how many copies there are.
//! - No input does work without a bound. Backlogs are delivered by `poll`, some messages per user and turn (I8).
//!
//! # Delivery and numbers
//!
//! A login gets the messages of the inbox in order, numbered from 1, as long as fewer than `window` messages and
//! `recv_window_bytes` bytes are in flight. ACKs are cumulative; one makes TOMB records, and an entry leaves the inbox when
//! its TOMB is in the open batch. If that batch is lost in a crash, the message is delivered again. If the log refuses
//! the TOMB, the ACK is owed, and `poll` tries again.
//!
//! A delivery whose record the driver cannot read keeps its number, so the client sees a gap. The entry stays in the
//! inbox (I3) and is tried again at the next login. It counts as done as soon as all before it are; an ACK that covers it
//! makes no TOMB for it.
//!
//! # Senders
//!
//! Admission is by (shard, sender, message id): see `dedup.rs`. A SEND of a known id is answered like the first one,
//! once that one is durable, even if its recipients or payload differ: the first wins. A SEND is taken for all its
//! recipients or none: one full inbox refuses it, unless it is to have older messages give way (`policy.rs`).
//!
//! # State
//!
//! The state after recovery depends only on the set of records (I4): MSG minus TOMB per inbox, in order of HLC, origin
//! and sequence. Copies of a record (same dot) count once. A record removed once stays removed.
//!
//! # A pair
//!
//! Records of the peer come in by `foreign_msg` and `foreign_tomb`, after the driver appended them. A retry of a message id
//! in them is known at once and answered when the record is covered by `handle_durable`; inboxes change then, too. When
//! both nodes took the same id while they were apart, the record with the lowest dot stays, and the core appends a TOMB
//! for the other one. See [`crate::replica`].
//!
//! Bounds (I7) are in [`CoreConfig`] and [`crate::limits`]. Users have a record while online, watched, or having
//! messages, so their number is bounded by connections, watches and entries.

mod ages;
mod dedup;
mod delivery;
mod effects;
mod foreign;
mod inbox;
mod index;
mod names;
mod policy;
mod presence;
mod reactors;
mod receipt;
mod recovery;
mod rewrite;
mod send;
mod slab;
#[cfg(test)]
mod tests;
mod user;

use std::collections::VecDeque;

pub use dedup::CheckpointCursor;
pub use effects::{
    Appended, Delivery, Double, Effects, IS_RECEIPT, KickReason, MsgRecord, Pos, Presence, Receipt,
    Refusal, RejectCode, TombReason, TombRecord, TombTarget, WANTS_RECEIPT, Watch,
};
pub use foreign::{ForeignMsg, ForeignTomb};
pub use policy::{Fullest, WhenFull};
pub use reactors::EndCursor;
pub use recovery::{BadRecord, RecoveredMsg, RecoveredTomb};
pub use rewrite::LiveEntry;
pub use send::SendRequest;

use crate::hlc::HlcClock;
use crate::id::{ConnId, Origin, ShardId, UserKey, shard_for_user};
use crate::limits;
use crate::sabotage::{self, Sabotage};
use dedup::Dedup;
use inbox::{Entries, Origins};
use index::Hashing;
use names::Names;
use presence::Watches;
use receipt::Receipts;
use slab::NIL;
use user::Users;

/// Who a core is and how much it may hold.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This node in this life: a life that never wrote a record before.
    pub origin: Origin,
    /// Shards of the cluster, at least 1.
    pub num_shards: u16,
    /// The shards that are here.
    pub shards: Vec<ShardId>,
    /// Message ids older than this are refused; younger ones are known exactly. Milliseconds.
    pub dedup_window_ms: u64,
    /// How far ahead of our time an id may be. Milliseconds.
    pub id_future_ms_max: u64,
    /// Room for ids in all, in ids of 24 bytes; a sender costs 8 besides its ids.
    pub dedup_ids_max: u64,
    /// Messages in one inbox.
    pub inbox_messages_max: u32,
    /// What becomes of one more.
    pub messages_when_full: WhenFull,
    /// Bytes in one inbox, above which it takes no further message.
    pub inbox_bytes_max: u64,
    /// What becomes of one that comes then.
    pub bytes_when_full: WhenFull,
    /// Messages older than this leave their inboxes, 0: none do. Milliseconds.
    pub message_age_ms_max: u64,
    /// Messages in all inboxes.
    pub entries_max: u32,
    /// Bytes in all inboxes, above which no further message is taken.
    pub bytes_max: u64,
    /// Bytes in flight of one login, above which no further delivery is started.
    pub recv_window_bytes: u32,
    /// Watches of all connections.
    pub watches_max: u32,
    /// Receipts between delivery and durable TOMB.
    pub receipts_max: u32,
    /// Answers and deliveries that wait for `handle_durable`.
    pub pending_max: usize,
    /// Key of the hash tables: secret and random, or fixed in a simulation.
    pub seed: u64,
}

impl CoreConfig {
    /// The defaults, with all shards here.
    pub fn new(origin: Origin, num_shards: u16, seed: u64) -> Self {
        Self {
            origin,
            num_shards,
            shards: (0..num_shards).map(ShardId).collect(),
            dedup_window_ms: limits::DEDUP_WINDOW_MS,
            id_future_ms_max: limits::ID_FUTURE_MS_MAX,
            dedup_ids_max: limits::DEDUP_IDS_PER_PARTITION_MAX,
            inbox_messages_max: limits::INBOX_MESSAGES_MAX,
            messages_when_full: WhenFull::Refuse,
            inbox_bytes_max: limits::INBOX_BYTES_MAX,
            bytes_when_full: WhenFull::Refuse,
            message_age_ms_max: 0,
            entries_max: limits::ENTRIES_PER_PARTITION_MAX,
            bytes_max: u64::MAX,
            recv_window_bytes: limits::RECV_WINDOW_BYTES as u32,
            watches_max: limits::WATCHES_PER_PARTITION_MAX,
            receipts_max: limits::RECEIPTS_PER_PARTITION_MAX,
            pending_max: limits::PENDING_PER_PARTITION_MAX,
            seed,
        }
    }
}

/// What happened so far. Each only grows.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// SENDs, of any outcome.
    pub sends: u64,
    /// SENDs whose message became a record.
    pub appended: u64,
    /// SENDs whose id was known.
    pub duplicates: u64,
    /// SENDs refused, by [`RejectCode`] as index.
    pub rejected: [u64; RejectCode::COUNT],
    /// Logins taken.
    pub logins: u64,
    /// Connections ended by the core, by [`KickReason`] as index.
    pub kicked: [u64; KickReason::COUNT],
    /// Inputs that named a connection which is not the user's current one.
    pub stale_inputs: u64,
    /// Deliveries made.
    pub delivered: u64,
    /// Messages removed by an ACK.
    pub acked: u64,
    /// Messages removed because they grew too old.
    pub expired: u64,
    /// Messages that gave way to later ones because their inbox was full.
    pub displaced: u64,
    /// ACKs put off because the log refused the TOMB.
    pub acks_put_off: u64,
    /// Deliveries that the driver could not read.
    pub unreadable: u64,
    /// Receipts given out.
    pub receipts: u64,
    /// Receipts lost because there was no room for them.
    pub receipts_dropped: u64,
    /// Watches refused because a bound was reached.
    pub watches_refused: u64,
    /// Questions cut because they named too many users.
    pub queries_cut: u64,
    /// Times the clock stepped back by more than the dedup window, so that its older ids count again.
    pub clock_steps_back: u64,
    /// Entries moved to a copy of their record.
    pub relocated: u64,
    /// MSG records of the peer taken over.
    pub foreign_msgs: u64,
    /// TOMB records of the peer taken over.
    pub foreign_tombs: u64,
    /// Inbox entries removed because both nodes had taken the same message id.
    pub collapsed: u64,
}

/// How much there is now.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Gauges {
    /// Users with a record.
    pub users: u32,
    /// Users online.
    pub online: u32,
    /// Messages in all inboxes.
    pub entries: u32,
    /// Their bytes, as inboxes count them.
    pub inbox_bytes: u64,
    /// The most that one inbox holds, at the last look at all of them.
    pub fullest: Fullest,
    /// Senders known to the dedup tables, once per shard of recipients.
    pub senders: u64,
    /// Message ids known.
    pub dedup_ids: u64,
    /// Room taken of `dedup_ids_max`.
    pub dedup_cost: u64,
    /// Watches.
    pub watches: u32,
    /// Receipts between delivery and durable TOMB.
    pub receipts: u32,
    /// Answers and deliveries that wait for `handle_durable`.
    pub pending: usize,
}

struct Shard {
    is_here: bool,
    /// The next record's place in our stream of this shard.
    next_seq: u64,
    /// Our records up to here are durable.
    durable_seq: u64,
    /// Messages, the peer's and ours after them, that are not in their inboxes yet.
    waiting: u32,
}

/// What `handle_durable` releases.
struct Pending {
    lsn: u64,
    /// Whose SEND to answer, and its number.
    answer: Option<(ConnId, u32)>,
    /// Whose inbox got something to deliver, or [`NIL`].
    user: u32,
    shard: ShardId,
    /// The record, or 0 for a duplicate.
    seq: u64,
}

/// One partition of a core node. See the module's page for how to drive it.
pub struct Core {
    config: CoreConfig,
    shards: Vec<Shard>,
    hlc: HlcClock,
    now: u64,
    users: Users,
    entries: Entries,
    /// What all entries count against the bytes of inboxes.
    inbox_bytes: u64,
    ages: ages::Ages,
    sweep: policy::Sweep,
    origins: Origins,
    names: Names,
    dedup: Dedup,
    watches: Watches,
    receipts: Receipts,
    pending: VecDeque<Pending>,
    last_lsn: u64,
    /// The last one of a MSG record: what a duplicate waits for.
    last_msg_lsn: u64,
    durable_lsn: u64,
    copies: u8,
    /// The log refused a TOMB; it is asked again by the next poll, which need not be at once.
    log_refused: bool,
    online: u32,
    /// Users whose deliveries wait for room on the way.
    stalled: Vec<u32>,
    counters: Counters,
    recovery: Option<Box<recovery::Recovery>>,
    foreign: foreign::Foreign,
    /// Why nothing is taken at all, if so.
    admission: Option<RejectCode>,
    scratch: Scratch,
}

/// Memory used again from input to input.
#[derive(Default)]
struct Scratch {
    keys: Vec<UserKey>,
    recipients: Vec<u8>,
    /// Hash and slot ([`NIL`] without a record) of each recipient.
    found: Vec<(u64, u32)>,
    targets: Vec<TombTarget>,
    body: Vec<u8>,
}

impl Core {
    /// A core that waits for the records of its log.
    pub fn new(config: CoreConfig) -> Self {
        assert!(config.num_shards > 0 && !config.shards.is_empty(), "a partition has a shard");
        assert!(config.inbox_messages_max > 0 && config.entries_max < NIL, "slots fit an index");
        assert!(config.watches_max < NIL && config.receipts_max < NIL, "slots fit an index");
        let mut is_here = vec![false; usize::from(config.num_shards)];
        config.shards.iter().for_each(|shard| is_here[usize::from(shard.0)] = true);
        let hashing = Hashing::new(config.seed);
        let shard = |&is_here: &bool| Shard { is_here, next_seq: 1, durable_seq: 0, waiting: 0 };
        Self {
            shards: is_here.iter().map(shard).collect(),
            hlc: HlcClock::default(),
            now: 0,
            users: Users::new(hashing),
            entries: Entries::new(),
            inbox_bytes: 0,
            ages: ages::Ages::new(config.message_age_ms_max),
            sweep: policy::Sweep::default(),
            origins: Origins::new(config.origin),
            names: Names::new(),
            dedup: Dedup::new(
                &is_here,
                hashing,
                config.dedup_window_ms,
                config.id_future_ms_max,
                config.dedup_ids_max,
            ),
            watches: Watches::new(hashing, config.watches_max),
            receipts: Receipts::new(config.receipts_max),
            pending: VecDeque::with_capacity(config.pending_max.min(4096)),
            last_lsn: 0,
            last_msg_lsn: 0,
            durable_lsn: 0,
            copies: 1,
            log_refused: false,
            online: 0,
            stalled: Vec::new(),
            counters: Counters::default(),
            recovery: Some(Box::default()),
            foreign: foreign::Foreign::default(),
            admission: None,
            scratch: Scratch::default(),
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
            users: self.users.len(),
            online: self.online,
            entries: self.entries.used(),
            inbox_bytes: self.inbox_bytes,
            fullest: self.sweep.fullest(),
            senders: self.dedup.senders(),
            dedup_ids: self.dedup.ids(),
            dedup_cost: self.dedup.cost(),
            watches: self.watches.len(),
            receipts: self.receipts.len(),
            pending: self.pending.len(),
        }
    }

    /// Everything with this log position or a lower one is durable on `copies` nodes. Produces ACCEPTED and receipts, and
    /// makes new messages deliverable: call [`Core::poll`] afterwards.
    pub fn handle_durable(&mut self, fx: &mut impl Effects, now_ms: u64, lsn: u64, copies: u8) {
        self.advance(now_ms);
        self.durable_lsn = self.durable_lsn.max(lsn);
        self.copies = copies;
        while let Some(first) = self.pending.front().filter(|first| first.lsn <= lsn) {
            if let Some((conn, seq)) = first.answer {
                fx.accepted(conn, seq, copies);
            }
            let shard = &mut self.shards[usize::from(first.shard.0)];
            shard.durable_seq = shard.durable_seq.max(first.seq);
            let user = first.user;
            self.pending.pop_front();
            if user != NIL {
                self.wake(user);
            }
        }
        self.apply_foreign(fx, lsn);
        let given = &mut self.counters.receipts;
        self.receipts.durable(lsn, &mut self.names, |reader, reader_name, to, msg_id| {
            *given += 1;
            fx.receipt(&Receipt { to, reader, reader_name, msg_id });
        });
    }

    /// Does what is due: deliveries, at most about `budget` of them, and a step of forgetting old ids. Returns whether
    /// deliveries are left that could be made now.
    pub fn poll(&mut self, fx: &mut impl Effects, now_ms: u64, budget: u32) -> bool {
        let now = self.advance(now_ms);
        self.settle_owed(fx, now);
        self.deliver_turns(fx, now, budget);
        self.dedup.sweep(now);
        self.sweep_inboxes(fx, now);
        self.users.any_ready() && !self.log_refused
    }

    /// When to call [`Core::poll`] at the latest if nothing else happens, Unix milliseconds; 0: at once, whatever the clock
    /// does.
    pub fn poll_timeout(&self) -> u64 {
        match self.users.any_ready() {
            true if self.log_refused => self.now + 1,
            true => 0,
            false if self.owes() => self.now + 1,
            false => self.dedup.next_step_ms().min(self.sweep.next_ms()),
        }
    }

    /// Appends the next part of a checkpoint of the dedup state: at most one DEDUP record. Begin with the default cursor;
    /// `Ok(None)` ends it; after a refusal go on with the same cursor. The checkpoint is complete when all its records are
    /// durable. It then replaces the ids in MSG and DEDUP records of segments before the one where it began.
    pub fn checkpoint(
        &mut self,
        fx: &mut impl Effects,
        from: CheckpointCursor,
    ) -> Result<Option<CheckpointCursor>, Refusal> {
        self.assert_recovered();
        let mut body = std::mem::take(&mut self.scratch.body);
        let tells = |_, _| !sabotage::is(Sabotage::DedupForgotten);
        let (shard, next) = self.dedup.checkpoint(from, &mut body, tells);
        let appended =
            if body.is_empty() { Ok(()) } else { fx.append_dedup(shard, &body).map(|_| ()) };
        self.scratch.body = body;
        appended.map(|()| next)
    }

    /// The later of `now_ms` and the latest time seen, except after a step back by more than the dedup window: obeying a
    /// clock that was so far ahead would refuse every id as too old.
    fn advance(&mut self, now_ms: u64) -> u64 {
        self.assert_recovered();
        if now_ms + self.config.dedup_window_ms < self.now {
            self.counters.clock_steps_back += 1;
            self.now = now_ms;
            self.dedup.sweep_soon();
            self.sweep.soon();
        }
        self.now = self.now.max(now_ms);
        self.now
    }

    fn assert_recovered(&self) {
        assert!(self.recovery.is_none(), "recovery_done comes before any input");
    }

    fn shard_of(&self, user: UserKey) -> ShardId {
        shard_for_user(user, self.config.num_shards)
    }

    fn is_here(&self, shard: ShardId) -> bool {
        self.shards.get(usize::from(shard.0)).is_some_and(|shard| shard.is_here)
    }

    /// Takes note of an append, whose position in the log is never before the last one's.
    fn note_lsn(&mut self, appended: &Appended) {
        assert!(appended.lsn >= self.last_lsn, "log positions do not decrease");
        assert!(appended.len < inbox::LEN_END, "the log keeps records below 2^20 bytes");
        self.last_lsn = appended.lsn;
    }
}
