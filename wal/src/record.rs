//! Records: what the log is made of. Encoding into a caller's buffer, decoding as views over a caller's bytes.
//!
//! A record begins with a common header and ends with a CRC32C over everything before it. What recovery needs of a
//! MSG stands in front of what only delivery needs, so that a footer entry is a plain copy of the record's first
//! bytes. Every length is checked against the bytes at hand and against a bound before it is used; nothing is
//! allocated. `docs/WAL-FORMAT.md` gives the layout to the byte.

use crate::codec::{key_at, put_key, put_u16, put_u32, put_u64, u16_at, u32_at, u64_at};
use crate::targets::{Targets, TargetsError};

/// Bytes of the common header.
pub const HEAD_BYTES: usize = 36;
/// Bytes of the checksum at the end.
pub const CRC_BYTES: usize = 4;
/// Bytes of a record, at most. A length above it is never followed.
pub const RECORD_BYTES_MAX: usize = 512 * 1024;
/// Recipients of one MSG, at most.
pub const MSG_RECIPIENTS_MAX: usize = 4096;
/// Bytes of a sender's name in a MSG, at most.
pub const FROM_BYTES_MAX: usize = 255;
/// The version of every record type that this code writes, and the newest it reads.
pub const RECORD_VERSION: u8 = 1;

/// Header flag: a reader that does not know the type may skip the record.
pub const FLAG_IGNORABLE: u16 = 1;
/// Header flag of a MSG: a survivor rewritten from an older segment, same dot and same HLC.
pub const FLAG_COPY: u16 = 1 << 1;

const MSG_FIXED: usize = HEAD_BYTES + 16 + 16 + 2 + 2;
const TOMB_FIXED: usize = HEAD_BYTES + 16 + 1 + 1 + 2 + 4;
const EPOCH_FIXED: usize = HEAD_BYTES + 4 + 8;
const MARK_FIXED: usize = HEAD_BYTES + 8;
const CHECKPOINT_FIXED: usize = HEAD_BYTES + 8;

/// Who wrote a record first: a node in one of its lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Origin {
    /// The node's number in its cluster.
    pub node: u32,
    /// Which life of that node.
    pub incarnation: u32,
}

/// A record's identity within its shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Dot {
    /// Who wrote it first.
    pub origin: Origin,
    /// Its place in that origin's stream of the shard, from 1.
    pub seq: u64,
}

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A message and the inboxes of one shard that it goes to.
    Msg = 1,
    /// Removes messages from one inbox.
    Tomb = 2,
    /// A part of a checkpoint of one shard's dedup state.
    Dedup = 3,
    /// The pair's mode changed.
    Epoch = 4,
    /// Says how far other streams are known; also written when idle.
    Mark = 5,
    /// A dedup checkpoint of all shards is complete.
    Checkpoint = 6,
}

impl Kind {
    /// The kind of a type byte, if this code knows it.
    pub fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Msg),
            2 => Some(Self::Tomb),
            3 => Some(Self::Dedup),
            4 => Some(Self::Epoch),
            5 => Some(Self::Mark),
            6 => Some(Self::Checkpoint),
            _ => None,
        }
    }

    /// The name that documents and tools use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Msg => "MSG",
            Self::Tomb => "TOMB",
            Self::Dedup => "DEDUP",
            Self::Epoch => "EPOCH",
            Self::Mark => "MARK",
            Self::Checkpoint => "CHECKPOINT",
        }
    }
}

/// What every record says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// The shard whose stream it belongs to.
    pub shard: u16,
    /// Who wrote it first.
    pub origin: Origin,
    /// Its place in the (shard, origin) stream, from 1; 0 in records outside the streams (DEDUP, MARK, CHECKPOINT).
    pub seq: u64,
    /// Hybrid logical clock: 48 bits of Unix milliseconds, 16 bits of counter.
    pub hlc: u64,
}

impl Head {
    /// Its identity within its shard.
    pub fn dot(&self) -> Dot {
        Dot { origin: self.origin, seq: self.seq }
    }
}

/// A record, borrowing the bytes it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Shard, identity and time.
    pub head: Head,
    /// What it says.
    pub body: Body<'a>,
}

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// A message.
    Msg(Msg<'a>),
    /// A removal.
    Tomb(Tomb<'a>),
    /// A part of a dedup checkpoint; opaque here.
    Dedup(&'a [u8]),
    /// A change of the pair's mode.
    Epoch(Epoch<'a>),
    /// What is known of other streams.
    Mark(Mark<'a>),
    /// A dedup checkpoint is complete.
    Checkpoint(Checkpoint),
}

/// A message of one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msg<'a> {
    /// Chosen by the sender; stored big-endian, so that order of bytes is order in time (UUIDv7, RFC 9562).
    pub msg_id: u128,
    /// The sender's inbox key.
    pub sender: [u8; 16],
    /// Opaque here.
    pub msg_flags: u16,
    /// Whether it is a survivor rewritten from an older segment; then `recipients` are only those still waiting.
    pub copy: bool,
    /// Inbox keys of 16 bytes each, at most [`MSG_RECIPIENTS_MAX`].
    pub recipients: &'a [u8],
    /// The sender's name, at most [`FROM_BYTES_MAX`] bytes.
    pub from: &'a [u8],
    /// The message itself.
    pub payload: &'a [u8],
}

/// Why messages left an inbox.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reason(pub u8);

impl Reason {
    /// The recipient acknowledged them.
    pub const ACKED: Self = Self(1);
    /// They grew too old.
    pub const EXPIRED: Self = Self(2);
    /// An operator removed them.
    pub const ADMIN: Self = Self(3);
    /// Both nodes of a pair took the same message id; another record of it stays.
    pub const COLLAPSED: Self = Self(4);
    /// The inbox was full, and they gave way to a later message.
    pub const DISPLACED: Self = Self(5);

    /// The name that tools print.
    pub fn name(self) -> &'static str {
        match self {
            Self::ACKED => "acked",
            Self::EXPIRED => "expired",
            Self::ADMIN => "admin",
            Self::COLLAPSED => "collapsed",
            Self::DISPLACED => "displaced",
            _ => "unknown",
        }
    }
}

/// Removes messages from one inbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tomb<'a> {
    /// The inbox.
    pub inbox: [u8; 16],
    /// Why.
    pub reason: Reason,
    /// Which messages, by dot; all of the record's own shard.
    pub targets: Targets<'a>,
}

/// A change of the pair's mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Epoch<'a> {
    /// The new mode; opaque here.
    pub state: u8,
    /// Grows at every change.
    pub state_id: u64,
    /// The peer's version vector; opaque here.
    pub peer_vv: &'a [u8],
}

/// What is known of other streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark<'a> {
    /// The newest heartbeat.
    pub heartbeat_hlc: u64,
    /// A version vector; opaque here.
    pub vv: &'a [u8],
}

/// The end of a dedup checkpoint of all shards of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The segment with its first DEDUP; 0: it needed none.
    pub began: u32,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The length field is impossible, or passes the end of the bytes.
    #[error("length {len} is impossible with {available} bytes at hand")]
    Length { len: u32, available: usize },
    /// The checksum does not match.
    #[error("checksum is {stored:#010x}, content gives {computed:#010x}")]
    Crc { stored: u32, computed: u32 },
    /// Sound, but of a type or version that this code does not know.
    #[error("type {kind} version {version} is unknown")]
    Unknown { kind: u8, version: u8, ignorable: bool, len: u32 },
    /// The checksum matches and the content contradicts itself.
    #[error("{0}")]
    Malformed(&'static str),
}

impl From<TargetsError> for RecordError {
    fn from(error: TargetsError) -> Self {
        Self::Malformed(error.0)
    }
}

impl Record<'_> {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self.body {
            Body::Msg(_) => Kind::Msg,
            Body::Tomb(_) => Kind::Tomb,
            Body::Dedup(_) => Kind::Dedup,
            Body::Epoch(_) => Kind::Epoch,
            Body::Mark(_) => Kind::Mark,
            Body::Checkpoint(_) => Kind::Checkpoint,
        }
    }

    /// Bytes that it takes in the log, checksum included.
    pub fn encoded_len(&self) -> usize {
        let before_crc = match &self.body {
            Body::Msg(msg) => {
                MSG_FIXED + msg.recipients.len() + 1 + msg.from.len() + 4 + msg.payload.len()
            }
            Body::Tomb(tomb) => TOMB_FIXED + tomb.targets.encoded_len(),
            Body::Dedup(body) => HEAD_BYTES + body.len(),
            Body::Epoch(epoch) => EPOCH_FIXED + epoch.peer_vv.len(),
            Body::Mark(mark) => MARK_FIXED + mark.vv.len(),
            Body::Checkpoint(_) => CHECKPOINT_FIXED,
        };
        before_crc + CRC_BYTES
    }

    /// Bytes at its beginning that a footer keeps.
    pub(crate) fn prefix_len(&self, encoded_len: usize) -> usize {
        match &self.body {
            Body::Msg(msg) => MSG_FIXED + msg.recipients.len(),
            Body::Tomb(_) => encoded_len - CRC_BYTES,
            Body::Dedup(_) | Body::Epoch(_) | Body::Mark(_) | Body::Checkpoint(_) => HEAD_BYTES,
        }
    }

    /// Writes it into `out`, which is exactly [`Self::encoded_len`] bytes.
    pub fn encode_into(&self, out: &mut [u8]) {
        let len = out.len();
        put_u32(out, 0, u32::try_from(len).expect("the caller bounded the length"));
        out[4] = self.kind() as u8;
        out[5] = RECORD_VERSION;
        let flags =
            if matches!(self.body, Body::Msg(Msg { copy: true, .. })) { FLAG_COPY } else { 0 };
        put_u16(out, 6, flags);
        put_u16(out, 8, self.head.shard);
        put_u16(out, 10, 0);
        put_u32(out, 12, self.head.origin.node);
        put_u32(out, 16, self.head.origin.incarnation);
        put_u64(out, 20, self.head.seq);
        put_u64(out, 28, self.head.hlc);
        match &self.body {
            Body::Msg(msg) => encode_msg(msg, out),
            Body::Tomb(tomb) => encode_tomb(tomb, out),
            Body::Dedup(body) => out[HEAD_BYTES..len - CRC_BYTES].copy_from_slice(body),
            Body::Epoch(epoch) => {
                out[36] = epoch.state;
                out[37..40].fill(0);
                put_u64(out, 40, epoch.state_id);
                out[EPOCH_FIXED..len - CRC_BYTES].copy_from_slice(epoch.peer_vv);
            }
            Body::Mark(mark) => {
                put_u64(out, 36, mark.heartbeat_hlc);
                out[MARK_FIXED..len - CRC_BYTES].copy_from_slice(mark.vv);
            }
            Body::Checkpoint(checkpoint) => {
                put_u32(out, 36, checkpoint.began);
                put_u32(out, 40, 0);
            }
        }
        let crc = crc32c::crc32c(&out[..len - CRC_BYTES]);
        put_u32(out, len - CRC_BYTES, crc);
    }

    /// Its bytes in a buffer of their own; for tools and tests.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; self.encoded_len()];
        self.encode_into(&mut out);
        out
    }
}

fn encode_msg(msg: &Msg<'_>, out: &mut [u8]) {
    assert!(msg.recipients.len().is_multiple_of(16), "recipients are whole keys");
    put_key(out, 36, &msg.msg_id.to_be_bytes());
    put_key(out, 52, &msg.sender);
    put_u16(out, 68, msg.msg_flags);
    let count = u16::try_from(msg.recipients.len() / 16).expect("the log refuses longer lists");
    put_u16(out, 70, count);
    let mut at = MSG_FIXED;
    out[at..at + msg.recipients.len()].copy_from_slice(msg.recipients);
    at += msg.recipients.len();
    out[at] = u8::try_from(msg.from.len()).expect("the log refuses longer names");
    at += 1;
    out[at..at + msg.from.len()].copy_from_slice(msg.from);
    at += msg.from.len();
    put_u32(out, at, u32::try_from(msg.payload.len()).expect("the log bounds records"));
    at += 4;
    out[at..at + msg.payload.len()].copy_from_slice(msg.payload);
}

fn encode_tomb(tomb: &Tomb<'_>, out: &mut [u8]) {
    put_key(out, 36, &tomb.inbox);
    out[52] = tomb.reason.0;
    out[53] = 0;
    let end = out.len() - CRC_BYTES;
    let (groups, count) = tomb.targets.encode_into(&mut out[TOMB_FIXED..end]);
    put_u16(out, 54, groups);
    put_u32(out, 56, count);
}

/// The common header as it stands in the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RawHead {
    pub(crate) len: u32,
    pub(crate) kind: u8,
    pub(crate) version: u8,
    pub(crate) flags: u16,
    pub(crate) head: Head,
}

impl RawHead {
    /// Reads the first [`HEAD_BYTES`] of `bytes`, which has at least so many. Checks nothing.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let origin = Origin { node: u32_at(bytes, 12), incarnation: u32_at(bytes, 16) };
        Self {
            len: u32_at(bytes, 0),
            kind: bytes[4],
            version: bytes[5],
            flags: u16_at(bytes, 6),
            head: Head {
                shard: u16_at(bytes, 8),
                origin,
                seq: u64_at(bytes, 20),
                hlc: u64_at(bytes, 28),
            },
        }
    }

    /// The kind, or why this code does not know it.
    pub(crate) fn known(&self) -> Result<Kind, RecordError> {
        match Kind::of(self.kind) {
            Some(kind) if self.version == RECORD_VERSION => Ok(kind),
            _ => Err(RecordError::Unknown {
                kind: self.kind,
                version: self.version,
                ignorable: self.flags & FLAG_IGNORABLE != 0,
                len: self.len,
            }),
        }
    }
}

/// The first bytes of a record that a footer keeps; `body` is the record without its checksum.
pub(crate) fn footer_prefix<'a>(raw: &RawHead, body: &'a [u8]) -> &'a [u8] {
    let len = match Kind::of(raw.kind) {
        Some(Kind::Msg) if body.len() >= MSG_FIXED => MSG_FIXED + 16 * u16_at(body, 70) as usize,
        Some(Kind::Tomb) => body.len(),
        _ => HEAD_BYTES,
    };
    &body[..len.min(body.len())]
}

/// The record at the beginning of `bytes` by its length field, with its checksum checked; type and body are not
/// looked at.
pub(crate) fn checked_bytes(bytes: &[u8]) -> Result<&[u8], RecordError> {
    let available = bytes.len();
    if available < HEAD_BYTES + CRC_BYTES {
        return Err(RecordError::Length { len: 0, available });
    }
    let len = u32_at(bytes, 0);
    let size = len as usize;
    if !(HEAD_BYTES + CRC_BYTES..=RECORD_BYTES_MAX.min(available)).contains(&size) {
        return Err(RecordError::Length { len, available });
    }
    let stored = u32_at(bytes, size - CRC_BYTES);
    let computed = crc32c::crc32c(&bytes[..size - CRC_BYTES]);
    if stored != computed {
        return Err(RecordError::Crc { stored, computed });
    }
    Ok(&bytes[..size])
}

/// Decodes the record at the beginning of `bytes` and says how many bytes it takes.
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), RecordError> {
    decode_whole(checked_bytes(bytes)?)
}

/// As [`decode`], of a record that this process has just encoded: its checksum is not looked at.
pub fn decode_own(bytes: &[u8]) -> Result<(Record<'_>, usize), RecordError> {
    let available = bytes.len();
    let len = if available < HEAD_BYTES { 0 } else { u32_at(bytes, 0) };
    match bytes.get(..len as usize).filter(|_| len as usize >= HEAD_BYTES + CRC_BYTES) {
        Some(bytes) => decode_whole(bytes),
        None => Err(RecordError::Length { len, available }),
    }
}

fn decode_whole(bytes: &[u8]) -> Result<(Record<'_>, usize), RecordError> {
    let raw = RawHead::read(bytes);
    let body = &bytes[..bytes.len() - CRC_BYTES];
    let body = match raw.known()? {
        Kind::Msg => Body::Msg(decode_msg(&raw, body)?),
        Kind::Tomb => Body::Tomb(decode_tomb(body)?),
        Kind::Dedup => Body::Dedup(&body[HEAD_BYTES..]),
        Kind::Epoch => Body::Epoch(decode_epoch(body)?),
        Kind::Mark => Body::Mark(decode_mark(body)?),
        Kind::Checkpoint => Body::Checkpoint(decode_checkpoint(body)?),
    };
    Ok((Record { head: raw.head, body }, bytes.len()))
}

/// What a MSG's first bytes say: all that recovery needs of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsgMeta<'a> {
    /// Chosen by the sender.
    pub msg_id: u128,
    /// The sender's inbox key.
    pub sender: [u8; 16],
    /// Opaque here.
    pub msg_flags: u16,
    /// Whether it is a rewritten survivor.
    pub copy: bool,
    /// Inbox keys of 16 bytes each.
    pub recipients: &'a [u8],
}

pub(crate) fn decode_msg_meta<'a>(
    raw: &RawHead,
    bytes: &'a [u8],
) -> Result<MsgMeta<'a>, RecordError> {
    if bytes.len() < MSG_FIXED {
        return Err(RecordError::Malformed("a MSG is shorter than its fixed fields"));
    }
    let count = u16_at(bytes, 70) as usize;
    if count > MSG_RECIPIENTS_MAX {
        return Err(RecordError::Malformed("a MSG has too many recipients"));
    }
    let Some(recipients) = bytes.get(MSG_FIXED..MSG_FIXED + 16 * count) else {
        return Err(RecordError::Malformed("a MSG's recipients pass its end"));
    };
    Ok(MsgMeta {
        msg_id: u128::from_be_bytes(key_at(bytes, 36)),
        sender: key_at(bytes, 52),
        msg_flags: u16_at(bytes, 68),
        copy: raw.flags & FLAG_COPY != 0,
        recipients,
    })
}

fn decode_msg<'a>(raw: &RawHead, bytes: &'a [u8]) -> Result<Msg<'a>, RecordError> {
    let meta = decode_msg_meta(raw, bytes)?;
    let rest = &bytes[MSG_FIXED + meta.recipients.len()..];
    let Some((from_len, rest)) = rest.split_first() else {
        return Err(RecordError::Malformed("a MSG ends before its sender's name"));
    };
    let Some((from, rest)) = rest.split_at_checked(*from_len as usize) else {
        return Err(RecordError::Malformed("a MSG's sender name passes its end"));
    };
    if rest.len() < 4 || u32_at(rest, 0) as usize != rest.len() - 4 {
        return Err(RecordError::Malformed("a MSG's payload is not what is left of it"));
    }
    Ok(Msg {
        msg_id: meta.msg_id,
        sender: meta.sender,
        msg_flags: meta.msg_flags,
        copy: meta.copy,
        recipients: meta.recipients,
        from,
        payload: &rest[4..],
    })
}

pub(crate) fn decode_tomb(bytes: &[u8]) -> Result<Tomb<'_>, RecordError> {
    if bytes.len() < TOMB_FIXED {
        return Err(RecordError::Malformed("a TOMB is shorter than its fixed fields"));
    }
    let targets = Targets::decode(u16_at(bytes, 54), u32_at(bytes, 56), &bytes[TOMB_FIXED..])?;
    Ok(Tomb { inbox: key_at(bytes, 36), reason: Reason(bytes[52]), targets })
}

pub(crate) fn decode_epoch(bytes: &[u8]) -> Result<Epoch<'_>, RecordError> {
    if bytes.len() < EPOCH_FIXED {
        return Err(RecordError::Malformed("an EPOCH is shorter than its fixed fields"));
    }
    Ok(Epoch { state: bytes[36], state_id: u64_at(bytes, 40), peer_vv: &bytes[EPOCH_FIXED..] })
}

pub(crate) fn decode_mark(bytes: &[u8]) -> Result<Mark<'_>, RecordError> {
    if bytes.len() < MARK_FIXED {
        return Err(RecordError::Malformed("a MARK is shorter than its fixed fields"));
    }
    Ok(Mark { heartbeat_hlc: u64_at(bytes, 36), vv: &bytes[MARK_FIXED..] })
}

pub(crate) fn decode_checkpoint(bytes: &[u8]) -> Result<Checkpoint, RecordError> {
    if bytes.len() != CHECKPOINT_FIXED {
        return Err(RecordError::Malformed("a CHECKPOINT has another length"));
    }
    Ok(Checkpoint { began: u32_at(bytes, 36) })
}
