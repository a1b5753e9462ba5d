//! Replication of one partition with the same partition of another core: two logs that become the same set of records.
//! A machine without I/O.
//!
//! Each node appends its own records under its own origin (node, incarnation) and ships them, in the order of its log and
//! byte for byte, to the other one, which appends them as they are. State is a function of the set of records (I4), so
//! nothing has to be decided together: healing is exchanging what either side lacks. What each node decides alone is
//! *when it acknowledges*: see `rule.rs` and the table in `docs/REPLICATION.md`.
//!
//! # How the driver uses it
//!
//! One [`Replica`] stands beside each [`Core`] of a paired node; a node without a peer has none and calls its core as
//! before. The effects of both are one [`ReplicaEffects`]. Times are [`Now`].
//!
//! 1. *Start.* [`Replica::new`]; for each record that recovery reads, in the order of the log: `Core::recover_*` as
//!    before, and [`Replica::recover`]. Then, instead of `Core::recovery_done`, [`Replica::recovery_done`], told whether
//!    the log had faults. The incarnation in [`ReplicaConfig::me`] must never have been used: the next one of the identity
//!    file or, to be safe when an old image of the disk comes back, the time in seconds if that is higher.
//! 2. *Input.* SENDs, ACKs, logins go to the core as before. The core refuses SENDs by itself while the replica wants it
//!    to (`RejectCode::NotServing`); while [`Replica::serves`] is false, logins are refused by the driver.
//! 3. *Log.* When a batch is taken for writing, [`Replica::batch_closed`] gets its records *before* the write begins; that
//!    is where they are shipped. When it is synced, the driver calls [`Replica::handle_durable`] **instead of**
//!    `Core::handle_durable`: the replica calls the core when the rule allows it. [`Replica::segment_dropped`] follows a
//!    drop; a segment may be dropped only if [`Replica::may_drop`] agrees as well. [`Replica::checkpoint`] is called
//!    when a dedup checkpoint ends, before the log is told that it is complete.
//! 4. *Link.* [`Replica::link_up`] with a number that is higher each time; then bytes in order, in pieces of any size, by
//!    [`Replica::handle_bytes`] with that number; [`Replica::link_down`] when it broke. Bytes of an older link are dropped.
//!    What [`ReplicaEffects::send`] sends goes over the link that is up; a driver bounds nothing there, because at most
//!    [`ReplicaConfig::window_bytes`] and some reports are under way.
//! 5. *Scans.* [`ReplicaEffects::scan`] asks for durable records of a segment; the answer goes to
//!    [`Replica::handle_scanned`] in a later turn. A driver may answer from memory or by `iris_wal::feed`.
//! 6. *Time.* [`Replica::poll`] after each bunch of inputs and at [`Replica::poll_timeout`], before [`Core::poll`].
//! 7. *End.* [`Replica::drain`], then wait for [`Replica::is_drained`], then stop.
//!
//! A replica that lacks room in the log stops taking input and goes on by itself in `poll`.

mod chain;
mod effects;
mod frame;
mod greet;
mod ranges;
mod receive;
mod recover;
mod rule;
mod ship;
mod status;
mod streams;
mod tail;
#[cfg(test)]
mod tests;
mod unread;

pub use effects::{
    EpochRecord, Event, Mode, RecordBody, RecordView, RefuseCode, ReplicaEffects, ScanFrom, Scanned,
};
pub use status::{Counters, Label, Status};

use std::collections::BTreeMap;

#[cfg(doc)]
use crate::core::Core;
use crate::id::{Dot, Origin, ShardId};
use crate::limits;
use greet::Greeting;
use ranges::Ranges;
use receive::Receiving;
use recover::Recovery;
use rule::Rule;
use ship::Shipping;
use streams::Streams;
use tail::Tail;

/// The time, twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Unix milliseconds; may stand still and step back.
    pub unix_ms: u64,
    /// Milliseconds since any moment; never steps back.
    pub mono_ms: u64,
}

/// What a node does when its peer is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenAlone {
    /// Goes on with one copy, and says so.
    Continue,
    /// Refuses new messages.
    Refuse,
}

/// Who a replica is and how patient it is.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// This node in this life; the same as the core's.
    pub me: Origin,
    /// The peer's node number.
    pub peer: u32,
    /// Which partition this is, of how many; and shards of the cluster. The peer's must be the same.
    pub partition: u16,
    /// Partitions of the node.
    pub partitions: u16,
    /// Shards of the cluster.
    pub num_shards: u16,
    /// A shard that is here: EPOCH and MARK records name it.
    pub first_shard: ShardId,
    /// What to do without a peer.
    pub when_alone: WhenAlone,
    /// A report goes out at least this often. Milliseconds.
    pub heartbeat_ms: u64,
    /// A link on which nothing was heard for so long is closed. Milliseconds.
    pub silent_ms: u64,
    /// A record that is synced here and not there for so long ends NORMAL. Milliseconds.
    pub degrade_ms: u64,
    /// How long a start waits for the peer before it goes on alone. Milliseconds.
    pub recover_ms: u64,
    /// After a slow peer ended NORMAL: how long it must keep up before NORMAL begins again; doubles each time, up to 32
    /// times. Milliseconds.
    pub steady_ms: u64,
    /// Bytes shipped and not reported synced, at most; and what we take from the peer.
    pub window_bytes: u32,
    /// Bytes of recent records of ours kept in memory for shipping.
    pub tail_bytes: usize,
    /// Bytes read from disk for healing in one millisecond, besides as many as are appended.
    pub heal_bytes_per_ms: usize,
    /// How long a part of the log that the disk does not read is tried again before it counts as lost. Milliseconds.
    pub unread_ms: u64,
    /// NORMAL begins when at most so many bytes are under way …
    pub near_bytes: usize,
    /// … or everything is, and since not longer than this. Milliseconds.
    pub near_ms: u64,
    /// Stamps of the peer further ahead of our time are not followed. Milliseconds.
    pub drift_ms_max: u64,
}

impl ReplicaConfig {
    /// The defaults for a pair in one data centre.
    pub fn new(me: Origin, peer: u32, num_shards: u16) -> Self {
        Self {
            me,
            peer,
            partition: 0,
            partitions: 1,
            num_shards,
            first_shard: ShardId(0),
            when_alone: WhenAlone::Continue,
            heartbeat_ms: 50,
            silent_ms: 200,
            degrade_ms: 250,
            recover_ms: 1000,
            steady_ms: 1000,
            window_bytes: 8 << 20,
            tail_bytes: 8 << 20,
            heal_bytes_per_ms: 16 << 10,
            unread_ms: 30_000,
            near_bytes: 64 << 10,
            near_ms: 10,
            drift_ms_max: limits::ID_FUTURE_MS_MAX,
        }
    }
}

/// How a link ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkDown {
    /// The peer's process is gone: it reset or refused the connection.
    Gone,
    /// Nothing is known of the peer.
    Lost,
}

/// One connection to the peer.
#[derive(Debug)]
struct Link {
    number: u64,
    /// When something was heard last, monotonic.
    heard_ms: u64,
    /// When a report was sent last, and what it said of our own frames.
    reported_ms: u64,
    reported_durable: u64,
    greeting: Greeting,
    shipping: Shipping,
    receiving: Receiving,
}

/// The replication of one partition. See the module's page for how to drive it.
pub struct Replica {
    config: ReplicaConfig,
    streams: Streams,
    tail: Tail,
    rule: Rule,
    link: Option<Link>,
    recovery: Option<Recovery>,
    /// The log has no damaged range that the peer may still fill.
    sound: bool,
    /// The peer has just repaired it.
    was_damaged: bool,
    /// Batches up to here were closed.
    closed_lsn: u64,
    /// Batches up to here are synced here.
    durable_lsn: u64,
    /// No link before this is synced: what recovery found is claimed then.
    greet_lsn: u64,
    /// MARK records that the log had no room for yet.
    marks_owed: bool,
    /// An END filled holes, and the MARK that says so is not appended yet.
    ends_filled: bool,
    /// A scan was asked for and not answered.
    scan_is_out: bool,
    last_link: u64,
    /// The peer claimed records that were not all here, and has not said since then that it sends all as it comes.
    behind: bool,
    /// What could not be read for an earlier link, by stream.
    unread_before: BTreeMap<u32, Ranges>,
    /// The peer, if it is retired; and where the MARK is that says so, or no longer.
    retired: Option<u32>,
    retired_lsn: u64,
    /// The log had no room for that MARK.
    retired_owed: bool,
    counters: Counters,
    scratch: Scratch,
}

/// Memory used again from input to input.
#[derive(Default)]
struct Scratch {
    out: Vec<u8>,
    targets: Vec<Dot>,
    come: Vec<(Dot, bool)>,
}
