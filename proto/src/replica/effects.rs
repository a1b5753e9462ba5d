//! What a replica tells its driver, and how it sees records.

use crate::core::{Appended, Effects, Refusal};
use crate::hlc::Hlc;
use crate::id::{Dot, MsgId, Origin, ShardId, UserKey};

/// A record of the log as far as replication looks at it.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Its shard.
    pub shard: ShardId,
    /// Its identity; `seq` is 0 for records outside the streams (DEDUP, MARK).
    pub dot: Dot,
    /// When it was made.
    pub hlc: Hlc,
    /// Whether it is a survivor rewritten from an older segment.
    pub copy: bool,
    /// What it says.
    pub body: RecordBody<'a>,
}

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub enum RecordBody<'a> {
    /// A message.
    Msg {
        /// Who sent it.
        sender: UserKey,
        /// The sender's id for it.
        msg_id: MsgId,
        /// Flags of [`crate::core::MsgRecord`].
        flags: u16,
        /// 16 bytes for each recipient.
        recipients: &'a [u8],
    },
    /// A removal.
    Tomb {
        /// Whose inbox.
        inbox: UserKey,
        /// Whether its reason is [`crate::core::TombReason::Collapsed`].
        collapsed: bool,
        /// Which messages.
        targets: &'a [Dot],
    },
    /// A change of mode.
    Epoch {
        /// The new mode: [`Mode`] as a number.
        mode: u8,
        /// Grows at every change.
        state_id: u64,
    },
    /// A version vector: what [`ReplicaEffects::append_mark`] wrote.
    Mark(&'a [u8]),
    /// Anything else.
    Other,
}

/// Which rule acknowledges. The numbers stand in EPOCH records and HELLO frames.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Mode {
    /// Nothing is acknowledged: this life has not decided yet.
    Recovering = 0,
    /// A message is acknowledged when it is synced on both nodes.
    Normal = 1,
    /// A message is acknowledged when it is synced here: one copy.
    Solo = 2,
}

impl Mode {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recovering => "recovering",
            Self::Normal => "normal",
            Self::Solo => "solo",
        }
    }

    /// The mode with this number.
    pub fn of(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Recovering),
            1 => Some(Self::Normal),
            2 => Some(Self::Solo),
            _ => None,
        }
    }
}

/// An EPOCH record: from here on another rule acknowledges.
#[derive(Clone, Copy, Debug)]
pub struct EpochRecord<'a> {
    /// The shard whose stream it takes a number of.
    pub shard: ShardId,
    /// Its identity.
    pub dot: Dot,
    /// When the change began.
    pub hlc: Hlc,
    /// [`Mode`] as a number.
    pub mode: u8,
    /// Grows at every change.
    pub state_id: u64,
    /// What the peer was known to have: opaque, at most [`crate::limits::MARK_BYTES_MAX`].
    pub peer: &'a [u8],
}

/// Where a scan of the log goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanFrom {
    /// The segment.
    pub segment: u32,
    /// The first byte of a frame in it; 0: the first frame.
    pub offset: u32,
}

/// What a scan of the log read: see [`ReplicaEffects::scan`].
#[derive(Clone, Copy, Debug)]
pub struct Scanned<'a> {
    /// What was asked for.
    pub from: ScanFrom,
    /// Whole records, back to back, in the order of the log.
    pub records: &'a [u8],
    /// Where the segment goes on; `None`: it holds no more durable frames.
    pub next: Option<u32>,
}

/// Why a link is not wanted. The numbers stand in REFUSE frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RefuseCode {
    /// No version in common.
    Version = 1,
    /// Not the node that the configuration names.
    WrongNode = 2,
    /// Another number of shards or partitions, or another partition.
    Layout = 3,
    /// A frame that does not parse, or that may not come now.
    Malformed = 4,
    /// A record that does not decode or cannot be the peer's.
    BadRecord = 5,
    /// More than a bound allows.
    TooMuch = 6,
    /// The node was retired and did not come back empty.
    Retired = 7,
    /// Nothing was heard for too long.
    Silent = 8,
    /// This life's numbers were given out before: it must take another incarnation.
    Reincarnate = 9,
}

impl RefuseCode {
    /// How many there are, with room for 0.
    pub const COUNT: usize = 10;

    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::WrongNode => "wrong_node",
            Self::Layout => "layout",
            Self::Malformed => "malformed",
            Self::BadRecord => "bad_record",
            Self::TooMuch => "too_much",
            Self::Retired => "retired",
            Self::Silent => "silent",
            Self::Reincarnate => "reincarnate",
        }
    }

    /// The code with this number.
    pub fn of(number: u8) -> Option<Self> {
        [
            Self::Version,
            Self::WrongNode,
            Self::Layout,
            Self::Malformed,
            Self::BadRecord,
            Self::TooMuch,
            Self::Retired,
            Self::Silent,
            Self::Reincarnate,
        ]
        .into_iter()
        .find(|code| *code as u8 == number)
    }
}

/// Something that operators want to hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The rule that acknowledges changed; `took_ms` is how long nothing could be acknowledged before that.
    Mode { mode: Mode, state_id: u64, took_ms: u64 },
    /// This node closed the link.
    Closed(RefuseCode),
    /// The peer refused this node.
    RefusedByPeer(RefuseCode),
    /// Both nodes took messages alone: how many, not yet known to the other, when they met again.
    Split { mine: u64, theirs: u64 },
    /// The peer's stamps are this far ahead of our time, in milliseconds: ours do not follow them.
    PeerClockAhead(u64),
    /// Everything that either side lacked was exchanged.
    Healed,
    /// The same number means different records here and there. Nothing more of this stream is exchanged; both copies are
    /// kept.
    Fenced { shard: ShardId, origin: Origin },
    /// Records that no node has any more, although they were synced once.
    Lost { shard: ShardId, origin: Origin, records: u64 },
    /// A damaged log is whole again: the peer gave back what it has.
    Repaired,
    /// The peer said that it goes away.
    PeerDrains,
    /// Everything is on the peer; this node may stop.
    Drained,
}

/// Takes the effects of a replica, besides those of its core. Every method returns at once; none calls back.
pub trait ReplicaEffects: Effects {
    /// The record at the beginning of `bytes` and how many bytes it takes; `None` if there is none. With `check` its
    /// checksum is verified: it comes from the peer or from a disk. `targets` is room for a TOMB's targets.
    fn decode<'a>(
        &self,
        bytes: &'a [u8],
        check: bool,
        targets: &'a mut Vec<Dot>,
    ) -> Option<(RecordView<'a>, usize)>;

    /// Appends a MSG, TOMB or EPOCH record of the peer to the open batch as it is. For a MSG the log notes one inbox entry
    /// for each recipient, as for one of our own; the core takes back those that it does not want.
    fn append_foreign(&mut self, record: &[u8]) -> Result<Appended, Refusal>;

    /// Appends an EPOCH record to the open batch.
    fn append_epoch(&mut self, record: &EpochRecord<'_>) -> Result<Appended, Refusal>;

    /// Appends a MARK record to the open batch.
    fn append_mark(&mut self, shard: ShardId, body: &[u8]) -> Result<Appended, Refusal>;

    /// Whether a record of any length can be appended now.
    fn log_has_room(&self) -> bool;

    /// Sends the two parts, one after the other, over the link that is up.
    fn send(&mut self, head: &[u8], body: &[u8]);

    /// Closes the link that is up. `link_down` need not follow.
    fn close(&mut self, why: RefuseCode);

    /// Reads durable frames of a segment from a place on, until about `bytes_max` bytes of records are read or the segment
    /// has no more; the answer is [`super::Replica::handle_scanned`]. There is one scan at a time.
    fn scan(&mut self, from: ScanFrom, bytes_max: usize);

    /// This life's numbers were given out before, by a life that this node does not remember: it must start again with an
    /// incarnation above this one. Nothing is acknowledged any more.
    fn reincarnate(&mut self, above: u32);

    /// Something happened that operators want to hear of.
    fn event(&mut self, event: &Event);
}
