//! What a core tells its driver: records to append, answers, deliveries, and what became of log space.

use super::Counters;
use crate::hlc::Hlc;
use crate::id::{ConnId, Dot, MsgId, ShardId, UserKey};

/// Flag of a message: its sender wants a receipt.
pub const WANTS_RECEIPT: u16 = 1;
/// Flag of a message: it is a receipt. Clients cannot set it.
pub const IS_RECEIPT: u16 = 2;

/// Where the driver put a record. The core compares positions and never computes with them. No position is used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Pos {
    /// The log segment.
    pub segment: u32,
    /// Bytes from its start.
    pub offset: u32,
}

/// A record that the log took into its open batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Where it is.
    pub pos: Pos,
    /// Bytes of the whole record, below 2^20.
    pub len: u32,
    /// The log position to wait for: the record is durable once `handle_durable` named this or more. Never decreases.
    pub lsn: u64,
}

/// Why the log did not take a record. Nothing was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Only the reserve is left on the disk. TOMB records still fit.
    LowDisk,
    /// The queue of batches is full until a sync returns.
    Full,
}

/// A MSG record: the payload once for all recipients of a shard.
#[derive(Clone, Copy, Debug)]
pub struct MsgRecord<'a> {
    /// The shard of every recipient.
    pub shard: ShardId,
    /// Its identity.
    pub dot: Dot,
    /// When it was accepted.
    pub hlc: Hlc,
    /// Who sent it.
    pub sender: UserKey,
    /// The same, as a name.
    pub from: &'a str,
    /// The sender's id for it.
    pub msg_id: MsgId,
    /// [`WANTS_RECEIPT`], [`IS_RECEIPT`].
    pub flags: u16,
    /// 16 bytes for each recipient, each once.
    pub recipients: &'a [u8],
    /// Opaque bytes.
    pub payload: &'a [u8],
}

/// A message that a TOMB record removes from one inbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TombTarget {
    /// Which message.
    pub dot: Dot,
    /// Where its record is now. The TOMB must outlive that record, and if it is a copy, the originals of it.
    pub pos: Pos,
}

/// Why messages left an inbox. The numbers stand in TOMB records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TombReason {
    /// The recipient acknowledged them.
    Acked = 1,
    /// They grew too old.
    Expired = 2,
    /// Both nodes of a pair took the same message id while they were apart; another record of it stays.
    Collapsed = 4,
    /// The inbox was full, and they gave way to a later one.
    Displaced = 5,
}

/// Two records with the same sender and message id, taken by two nodes of a pair while they were apart. One stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Double {
    /// The shard of both.
    pub shard: ShardId,
    /// Which id.
    pub msg_id: MsgId,
    /// The one that stays, and where it is.
    pub kept: (Dot, Pos, u32),
    /// The other one. Its record stays in the log as long as others in its segment do.
    pub dropped: (Dot, Pos, u32),
}

/// A TOMB record: messages of one inbox that are done.
#[derive(Clone, Copy, Debug)]
pub struct TombRecord<'a> {
    /// The shard of the inbox.
    pub shard: ShardId,
    /// Its identity.
    pub dot: Dot,
    /// When they were acknowledged.
    pub hlc: Hlc,
    /// Whose inbox.
    pub inbox: UserKey,
    /// Why.
    pub reason: TombReason,
    /// Which messages, at most [`crate::limits::TOMB_TARGETS_MAX`].
    pub targets: &'a [TombTarget],
}

/// A message for a connection. The driver finds the record and sends MESSAGE with this number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// To whom.
    pub conn: ConnId,
    /// Whose inbox it is from: what `handle_delivered` and `handle_unreadable` want to know.
    pub user: UserKey,
    /// Which delivery of this login it is, from 1.
    pub no: u32,
    /// Which message. A record with another identity at this place was put there by a disk that writes astray: it counts
    /// as unreadable.
    pub dot: Dot,
    /// Where the record is.
    pub pos: Pos,
    /// Bytes of the whole record.
    pub len: u32,
    /// Whether its sender wants a receipt: then `handle_delivered` must follow.
    pub wants_receipt: bool,
}

/// A receipt for the inbox of who sent a message; `handle_receipt` of the core that owns that inbox takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt<'a> {
    /// Who sent the message.
    pub to: UserKey,
    /// Who acknowledged it.
    pub reader: UserKey,
    /// The same, as a name.
    pub reader_name: &'a str,
    /// Which message.
    pub msg_id: MsgId,
}

/// Whether a connection hears of later changes of a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watch {
    /// It did not ask to.
    Unasked,
    /// It does.
    Watching,
    /// No: it watches as many users as a connection may.
    ConnectionFull,
    /// No: as many connections watch the user as may.
    UserFull,
    /// No: this partition holds as many watches as it may.
    PartitionFull,
}

/// Whether a user is logged in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Presence<'a> {
    /// Who wants to know.
    pub conn: ConnId,
    /// The question this answers; 0 for a change.
    pub query: u32,
    /// About whom.
    pub name: &'a str,
    /// Whether they are logged in.
    pub online: bool,
    /// Since when, Unix milliseconds; 0 if that is not known, as for users who left long ago.
    pub since_ms: u64,
    /// Whether changes will be told.
    pub watch: Watch,
}

/// Why a SEND is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RejectCode {
    /// The id's time is before the dedup window.
    IdTooOld,
    /// The id's time is too far ahead of ours.
    IdInFuture,
    /// The id is below what is remembered of this sender, who may have used it before or not.
    StaleId,
    /// The id is no UUIDv7.
    IdNotV7,
    /// An inbox of the recipients is full. The message is in none of them.
    InboxFull,
    /// The disk is nearly full.
    LowDisk,
    /// More work than can be queued, or more senders than can be kept.
    Overloaded,
    /// No recipients, too many, half ones, or of several shards.
    BadRecipients,
    /// The recipients' shard is not here.
    WrongShard,
    /// The payload or the sender's name is too long.
    TooLarge,
    /// This node takes no messages now: it starts, drains, or may not be alone. The other node of the pair may.
    NotServing,
    /// All inboxes of this node together hold as much as they may.
    NodeFull,
}

impl RejectCode {
    /// How many there are.
    pub const COUNT: usize = 12;
    /// All of them, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::IdTooOld,
        Self::IdInFuture,
        Self::StaleId,
        Self::IdNotV7,
        Self::InboxFull,
        Self::LowDisk,
        Self::Overloaded,
        Self::BadRecipients,
        Self::WrongShard,
        Self::TooLarge,
        Self::NotServing,
        Self::NodeFull,
    ];

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::IdTooOld => "id_too_old",
            Self::IdInFuture => "id_in_future",
            Self::StaleId => "id_stale",
            Self::IdNotV7 => "id_not_v7",
            Self::InboxFull => "inbox_full",
            Self::LowDisk => "low_disk",
            Self::Overloaded => "overloaded",
            Self::BadRecipients => "bad_recipients",
            Self::WrongShard => "wrong_shard",
            Self::TooLarge => "too_large",
            Self::NotServing => "not_serving",
            Self::NodeFull => "node_full",
        }
    }

    /// When to try the same id again, in milliseconds; 0 where that is useless.
    pub fn retry_after_ms(self) -> u32 {
        match self {
            Self::Overloaded | Self::NotServing => 100,
            Self::InboxFull => 1000,
            Self::WrongShard => 1000,
            Self::LowDisk | Self::NodeFull => 5000,
            Self::IdTooOld
            | Self::IdInFuture
            | Self::StaleId
            | Self::IdNotV7
            | Self::BadRecipients
            | Self::TooLarge => 0,
        }
    }
}

/// Why a connection must end. The core has already forgotten it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum KickReason {
    /// A newer login of the same user took over.
    Replaced,
    /// It acknowledged a delivery that was never made.
    BadAck,
    /// It logged in twice.
    SecondLogin,
    /// The user's shard is not here, or the name is empty or too long.
    BadLogin,
    /// It used up the 2^32 - 1 delivery numbers; a new login starts again from 1.
    NumbersUsedUp,
}

impl KickReason {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// All of them, in order.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Replaced, Self::BadAck, Self::SecondLogin, Self::BadLogin, Self::NumbersUsedUp];

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::BadAck => "bad_ack",
            Self::SecondLogin => "second_login",
            Self::BadLogin => "bad_login",
            Self::NumbersUsedUp => "numbers_used_up",
        }
    }
}

/// Takes the effects of a core. Every method returns at once; none calls back into the core.
pub trait Effects {
    /// Appends a MSG record to the open batch. One index entry per recipient now refers to it.
    fn append_msg(&mut self, record: &MsgRecord<'_>) -> Result<Appended, Refusal>;

    /// Appends a TOMB record to the open batch.
    fn append_tomb(&mut self, record: &TombRecord<'_>) -> Result<Appended, Refusal>;

    /// Appends a DEDUP record: what `recover_dedup` reads. It is of this node alone and stands outside the gapless
    /// stream of its shard, so it has no sequence number.
    fn append_dedup(&mut self, shard: ShardId, body: &[u8]) -> Result<Appended, Refusal>;

    /// An inbox entry that referred to the record at `pos` is gone: its TOMB is in the open batch. The record's segment may
    /// go only after that TOMB is durable, or a crash would lose what nobody acknowledged durably.
    fn entry_removed(&mut self, pos: Pos, len: u32);

    /// `recovery_done`: an inbox entry refers to the record at `pos`.
    fn entry_live(&mut self, pos: Pos, len: u32);

    /// The record at `pos` is dead for one inbox because of the TOMB record at `tomb`. That TOMB must outlive the record, or
    /// the message comes back.
    fn entry_dead(&mut self, pos: Pos, tomb: Pos);

    /// `recovery_done`: the record at `other` has the same dot and inbox as the one at `kept`, which is the one in use. A
    /// later TOMB for `kept` must outlive both.
    fn entry_repeated(&mut self, kept: Pos, other: Pos);

    /// Both nodes took the same message id. Whether both records say the same, only who reads them can tell.
    fn doubled(&mut self, _double: &Double) {}

    /// The SEND that the connection numbered `seq` is in its inboxes, durable on `copies` nodes.
    fn accepted(&mut self, conn: ConnId, seq: u32, copies: u8);

    /// The SEND is in no inbox. `retry_after_ms` 0: the same id will never be taken.
    fn rejected(&mut self, conn: ConnId, seq: u32, code: RejectCode, retry_after_ms: u32);

    /// The login is done; so many messages wait in the inbox. `session` is the number of the login, above 0: later ones
    /// of this core have higher numbers. [`super::Core::handle_relogin`] takes it at the other core of a pair.
    fn welcome(&mut self, conn: ConnId, waiting: u32, session: u64);

    /// The connection must end. Nothing follows for its login, but its watches last until `handle_gone`.
    fn kick(&mut self, conn: ConnId, reason: KickReason);

    /// Whether deliveries for this connection can go on their way now. Users for whom they cannot wait for
    /// [`super::Core::resume_stalled`], and delay nobody else.
    fn has_room(&self, _conn: ConnId) -> bool {
        true
    }

    /// A message for a connection, in order and within its window.
    fn deliver(&mut self, delivery: &Delivery);

    /// A receipt for the inbox of a sender, perhaps of another core.
    fn receipt(&mut self, receipt: &Receipt<'_>);

    /// The answer to a question about a user, or a change.
    fn presence(&mut self, presence: &Presence<'_>);
}

impl Counters {
    /// SENDs refused for this reason.
    pub fn rejected(&self, code: RejectCode) -> u64 {
        self.rejected[code as usize]
    }

    /// Connections ended for this reason.
    pub fn kicked(&self, reason: KickReason) -> u64 {
        self.kicked[reason as usize]
    }
}
