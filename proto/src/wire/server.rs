//! Frames a server sends.

use super::{Code, HEADER_BYTES, IGNORABLE, Reader, kind, put_frame};
use crate::id::MsgId;
use crate::limits::USER_BYTES_MAX;

/// WELCOME: the login is done, and these are the terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome<'a> {
    /// The version spoken from here on.
    pub version: u8,
    /// The server's clock, Unix milliseconds.
    pub server_time_ms: u64,
    /// Messages waiting in the inbox.
    pub waiting: u32,
    /// Unanswered SENDs allowed.
    pub send_window: u32,
    /// Unacknowledged MESSAGEs that the server will have under way.
    pub recv_window: u32,
    /// Largest payload, bytes.
    pub payload_max: u32,
    /// Most recipients of one SEND.
    pub recipients_max: u16,
    /// Silence after which the server closes, milliseconds.
    pub idle_timeout_ms: u32,
    /// When the token ends, and then the connection, Unix seconds.
    pub token_expires_s: u64,
    /// How long an id may be retried, milliseconds.
    pub dedup_window_ms: u64,
    /// Where the server is.
    pub region: &'a str,
    /// Which node it is.
    pub node: &'a str,
    /// Who the client is.
    pub user: &'a str,
}

/// Consecutive SENDs that were accepted: `first`, `first + 1`, ... (modulo 2^32), `count` of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcceptedRun {
    /// The first SEND's number.
    pub first: u32,
    /// How many, at least 1.
    pub count: u16,
}

/// One refused SEND.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// The SEND's number.
    pub seq: u32,
    /// Why: the number of a [`Code`].
    pub code: u16,
    /// When to try again, milliseconds; 0 where trying again is useless.
    pub retry_after_ms: u32,
}

/// A MESSAGE without its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageHead<'a> {
    /// Which delivery of this connection it is, from 1; ACK names it.
    pub no: u32,
    /// The sender's id for it.
    pub id: MsgId,
    /// When it was accepted, Unix milliseconds.
    pub time_ms: u64,
    /// Bit 0: the sender wants a receipt. Bit 1: this is a receipt.
    pub flags: u8,
    /// Who sent it.
    pub from: &'a str,
}

impl MessageHead<'_> {
    /// Flag: the message is a receipt: `from` acknowledged your message `id`. Its payload is empty.
    pub const IS_RECEIPT: u8 = 2;

    /// Appends a whole MESSAGE frame.
    pub fn encode(&self, payload: &[u8], out: &mut Vec<u8>) {
        put_frame(out, kind::MESSAGE, |w| {
            w.u32(self.no).id(self.id.0).u64(self.time_ms).u8(self.flags);
            w.str8(self.from).bytes(payload);
        });
    }

    /// Bytes of the whole frame with a payload of that many bytes.
    pub fn frame_bytes(&self, payload_bytes: usize) -> usize {
        HEADER_BYTES + 4 + 16 + 8 + 1 + 1 + self.from.len() + payload_bytes
    }
}

/// What PRESENCE says of a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PresenceState {
    /// Not logged in.
    Offline = 0,
    /// Logged in.
    Online = 1,
    /// Not watched: a limit was reached. The state is not told.
    Refused = 2,
}

/// What a server may say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerFrame<'a> {
    /// Logged in.
    Welcome(Welcome<'a>),
    /// SENDs accepted: copies, then runs of six bytes (see [`AcceptedRuns`]).
    Accepted {
        /// On how many nodes they are synced.
        copies: u8,
        /// Six bytes a run.
        runs: AcceptedRuns<'a>,
    },
    /// SENDs refused.
    Rejected(Rejections<'a>),
    /// A message.
    Message(MessageHead<'a>, &'a [u8]),
    /// Presence: the query answered (0: a change), and entries.
    Presence(u32, PresenceEntries<'a>),
    /// Come back after this time plus a random part of the jitter, both in milliseconds.
    Drain {
        /// Least wait.
        retry_after_ms: u32,
        /// Width of the random part.
        jitter_ms: u32,
    },
    /// The end of this connection.
    Error {
        /// The number of a [`Code`].
        code: u16,
        /// When to come back, milliseconds; 0: no advice.
        retry_after_ms: u32,
        /// One sentence for people.
        text: &'a str,
    },
    /// Answer me.
    Ping([u8; 8]),
    /// The answer to a PING, and the server's clock.
    Pong([u8; 8], u64),
    /// A frame from a later version that may be skipped.
    Ignored,
}

macro_rules! packed_list {
    ($(#[$doc:meta])* $list:ident, $item:ident, $bytes:literal, $read:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $list<'a>(&'a [u8]);

        impl<'a> $list<'a> {
            fn read(reader: &mut Reader<'a>) -> Result<Self, Code> {
                let bytes = reader.rest();
                if bytes.is_empty() || bytes.len() % $bytes != 0 {
                    return Err(Code::Malformed);
                }
                Ok(Self(bytes))
            }

            /// Each item, in order.
            pub fn iter(&self) -> impl Iterator<Item = $item> + use<'a> {
                self.0.chunks_exact($bytes).map($read)
            }
        }
    };
}

packed_list!(
    /// The runs of an ACCEPTED, at least one.
    AcceptedRuns,
    AcceptedRun,
    6,
    |b| AcceptedRun {
        first: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        count: u16::from_le_bytes([b[4], b[5]]),
    }
);
packed_list!(
    /// The entries of a REJECTED, at least one.
    Rejections,
    Rejection,
    10,
    |b| Rejection {
        seq: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        code: u16::from_le_bytes([b[4], b[5]]),
        retry_after_ms: u32::from_le_bytes([b[6], b[7], b[8], b[9]]),
    }
);

/// The entries of a PRESENCE, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PresenceEntries<'a>(&'a [u8]);

impl<'a> PresenceEntries<'a> {
    fn next(reader: &mut Reader<'a>) -> Result<(PresenceState, u64, &'a str), Code> {
        let state = match reader.u8()? {
            0 => PresenceState::Offline,
            1 => PresenceState::Online,
            2 => PresenceState::Refused,
            _ => return Err(Code::Malformed),
        };
        Ok((state, reader.u64()?, reader.name(USER_BYTES_MAX)?))
    }

    /// State, since when (Unix milliseconds, 0 unknown) and user of each entry.
    pub fn iter(&self) -> impl Iterator<Item = (PresenceState, u64, &'a str)> + use<'a> {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(
            move || if reader.is_empty() { None } else { Self::next(&mut reader).ok() },
        )
    }
}

impl<'a> ServerFrame<'a> {
    /// Reads the body of a frame of type `frame_kind`.
    pub fn decode(frame_kind: u8, body: &'a [u8]) -> Result<Self, Code> {
        let mut reader = Reader::new(body);
        let frame = match frame_kind {
            kind::ACCEPTED => {
                let copies = reader.u8()?;
                let runs = AcceptedRuns::read(&mut reader)?;
                if runs.iter().any(|run| run.count == 0) {
                    return Err(Code::Malformed);
                }
                Self::Accepted { copies, runs }
            }
            kind::MESSAGE => {
                let head = MessageHead {
                    no: reader.u32()?,
                    id: MsgId(reader.id()?),
                    time_ms: reader.u64()?,
                    flags: reader.u8()?,
                    from: reader.name(USER_BYTES_MAX)?,
                };
                Self::Message(head, reader.rest())
            }
            kind::REJECTED => Self::Rejected(Rejections::read(&mut reader)?),
            kind::WELCOME => Self::Welcome(decode_welcome(&mut reader)?),
            kind::PRESENCE => {
                let query = reader.u32()?;
                let entries = PresenceEntries(reader.rest());
                let mut check = Reader::new(entries.0);
                while !check.is_empty() {
                    PresenceEntries::next(&mut check)?;
                }
                Self::Presence(query, entries)
            }
            kind::DRAIN => Self::Drain { retry_after_ms: reader.u32()?, jitter_ms: reader.u32()? },
            kind::ERROR => Self::Error {
                code: reader.u16()?,
                retry_after_ms: reader.u32()?,
                text: reader.str16()?,
            },
            kind::PING => Self::Ping(reader.array()?),
            kind::PONG => Self::Pong(reader.array()?, reader.u64()?),
            ignorable if ignorable & IGNORABLE != 0 => return Ok(Self::Ignored),
            _ => return Err(Code::UnknownType),
        };
        reader.end()?;
        Ok(frame)
    }
}

fn decode_welcome<'a>(reader: &mut Reader<'a>) -> Result<Welcome<'a>, Code> {
    let version = reader.u8()?;
    let _reserved = reader.u8()?;
    Ok(Welcome {
        version,
        server_time_ms: reader.u64()?,
        waiting: reader.u32()?,
        send_window: reader.u32()?,
        recv_window: reader.u32()?,
        payload_max: reader.u32()?,
        recipients_max: reader.u16()?,
        idle_timeout_ms: reader.u32()?,
        token_expires_s: reader.u64()?,
        dedup_window_ms: reader.u64()?,
        region: reader.str8()?,
        node: reader.str8()?,
        user: reader.name(USER_BYTES_MAX)?,
    })
}

impl Welcome<'_> {
    /// Appends a WELCOME.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, kind::WELCOME, |w| {
            w.u8(self.version).u8(0).u64(self.server_time_ms).u32(self.waiting);
            w.u32(self.send_window).u32(self.recv_window).u32(self.payload_max);
            w.u16(self.recipients_max).u32(self.idle_timeout_ms);
            w.u64(self.token_expires_s).u64(self.dedup_window_ms);
            w.str8(self.region).str8(self.node).str8(self.user);
        });
    }
}

/// Appends an ACCEPTED with these runs.
pub fn put_accepted(out: &mut Vec<u8>, copies: u8, runs: &[AcceptedRun]) {
    put_frame(out, kind::ACCEPTED, |w| {
        w.u8(copies);
        runs.iter().for_each(|run| {
            w.u32(run.first).u16(run.count);
        });
    });
}

/// Appends a REJECTED with these entries.
pub fn put_rejected(out: &mut Vec<u8>, rejections: &[Rejection]) {
    put_frame(out, kind::REJECTED, |w| {
        rejections.iter().for_each(|r| {
            w.u32(r.seq).u16(r.code).u32(r.retry_after_ms);
        });
    });
}

/// Appends a PRESENCE with these entries.
pub fn put_presence(out: &mut Vec<u8>, query: u32, entries: &[(PresenceState, u64, &str)]) {
    put_frame(out, kind::PRESENCE, |w| {
        w.u32(query);
        entries.iter().for_each(|(state, since_ms, user)| {
            w.u8(*state as u8).u64(*since_ms).str8(user);
        });
    });
}

/// Appends a DRAIN.
pub fn put_drain(out: &mut Vec<u8>, retry_after_ms: u32, jitter_ms: u32) {
    put_frame(out, kind::DRAIN, |w| {
        w.u32(retry_after_ms).u32(jitter_ms);
    });
}

/// Appends an ERROR with the code's own advice.
pub fn put_error(out: &mut Vec<u8>, code: Code, retry_after_ms: u32) {
    put_frame(out, kind::ERROR, |w| {
        w.u16(code as u16).u32(retry_after_ms).str16(code.advice());
    });
}

/// Appends a PING.
pub fn put_ping(out: &mut Vec<u8>, echo: [u8; 8]) {
    put_frame(out, kind::PING, |w| {
        w.bytes(&echo);
    });
}

/// Appends a PONG with the server's clock.
pub fn put_pong(out: &mut Vec<u8>, echo: [u8; 8], time_ms: u64) {
    put_frame(out, kind::PONG, |w| {
        w.bytes(&echo).u64(time_ms);
    });
}
