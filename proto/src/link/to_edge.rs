//! Core to edge.

use crate::id::{ConnId, MsgId, UserKey};
use crate::limits::USER_BYTES_MAX;
use crate::wire::{Code, Reader, put_frame, split_frame};

mod kind {
    pub(super) const WELCOME: u8 = 0x41;
    pub(super) const ACCEPTED: u8 = 0x42;
    pub(super) const REJECTED: u8 = 0x43;
    pub(super) const FRAME: u8 = 0x44;
    pub(super) const KICK: u8 = 0x45;
    pub(super) const RECEIPT: u8 = 0x46;
}

/// What a core tells an edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToEdge<'a> {
    /// The user is logged in on this connection.
    Welcome {
        /// The connection.
        conn: ConnId,
        /// Messages waiting.
        waiting: u32,
        /// The number of the login, above 0: a later one of the user has a higher number.
        session: u64,
    },
    /// Consecutive SENDs are durable.
    Accepted {
        /// The connection.
        conn: ConnId,
        /// The first one's number.
        first: u32,
        /// How many, from 1.
        count: u16,
        /// On how many nodes.
        copies: u8,
    },
    /// A SEND was refused.
    Rejected {
        /// The connection.
        conn: ConnId,
        /// The SEND's number.
        seq: u32,
        /// Why.
        code: Code,
        /// When to try again, milliseconds; 0: never.
        retry_after_ms: u32,
    },
    /// Whole wire frames for the client, as they are.
    Frame {
        /// The connection.
        conn: ConnId,
        /// The frames.
        bytes: &'a [u8],
    },
    /// End this connection.
    Kick {
        /// The connection.
        conn: ConnId,
        /// Why.
        code: Code,
    },
    /// A receipt to pass on to the shard of who sent the message.
    Receipt {
        /// Who sent the message.
        to: UserKey,
        /// Who acknowledged it.
        reader: UserKey,
        /// Which message.
        id: MsgId,
        /// The name of who acknowledged it.
        reader_name: &'a str,
    },
}

impl<'a> ToEdge<'a> {
    /// Takes the first frame off a batch: the frame and what follows. `None` at the end of the batch.
    pub fn split(batch: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, Code> {
        if batch.is_empty() {
            return Ok(None);
        }
        let (frame_kind, body, rest) = split_frame(batch)?.ok_or(Code::Malformed)?;
        Ok(Some((Self::decode(frame_kind, body)?, rest)))
    }

    fn decode(frame_kind: u8, body: &'a [u8]) -> Result<Self, Code> {
        let mut r = Reader::new(body);
        let frame = match frame_kind {
            kind::FRAME => Self::Frame { conn: r.conn()?, bytes: r.rest() },
            kind::ACCEPTED => Self::Accepted {
                conn: r.conn()?,
                first: r.u32()?,
                count: r.u16()?,
                copies: r.u8()?,
            },
            kind::REJECTED => Self::Rejected {
                conn: r.conn()?,
                seq: r.u32()?,
                code: Code::from_u16(r.u16()?).ok_or(Code::Malformed)?,
                retry_after_ms: r.u32()?,
            },
            kind::WELCOME => {
                Self::Welcome { conn: r.conn()?, waiting: r.u32()?, session: r.u64()? }
            }
            kind::KICK => Self::Kick {
                conn: r.conn()?,
                code: Code::from_u16(r.u16()?).ok_or(Code::Malformed)?,
            },
            kind::RECEIPT => Self::Receipt {
                to: r.user_key()?,
                reader: r.user_key()?,
                id: MsgId(r.id()?),
                reader_name: r.name(USER_BYTES_MAX)?,
            },
            _ => return Err(Code::UnknownType),
        };
        r.end()?;
        Ok(frame)
    }

    /// Appends this frame to a batch.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Welcome { conn, waiting, session } => put_frame(out, kind::WELCOME, |w| {
                w.u64(conn.0).u32(waiting).u64(session);
            }),
            Self::Accepted { conn, first, count, copies } => put_frame(out, kind::ACCEPTED, |w| {
                w.u64(conn.0).u32(first).u16(count).u8(copies);
            }),
            Self::Rejected { conn, seq, code, retry_after_ms } => {
                put_frame(out, kind::REJECTED, |w| {
                    w.u64(conn.0).u32(seq).u16(code as u16).u32(retry_after_ms);
                })
            }
            Self::Frame { conn, bytes } => put_frame(out, kind::FRAME, |w| {
                w.u64(conn.0).bytes(bytes);
            }),
            Self::Kick { conn, code } => put_frame(out, kind::KICK, |w| {
                w.u64(conn.0).u16(code as u16);
            }),
            Self::Receipt { to, reader, id, reader_name } => put_frame(out, kind::RECEIPT, |w| {
                w.bytes(&to.0).bytes(&reader.0).id(id.0).str8(reader_name);
            }),
        }
    }

    /// Appends a [`ToEdge::Frame`] whose bytes `fill` writes.
    pub fn encode_frame(conn: ConnId, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        out.extend_from_slice(&[kind::FRAME, 0, 0, 0]);
        out.extend_from_slice(&conn.0.to_le_bytes());
        fill(out);
        let body = (out.len() - start - 4) as u32;
        assert!(body < 1 << 24, "a frame of ours fits its length field");
        out[start + 1..start + 4].copy_from_slice(&body.to_le_bytes()[..3]);
    }
}
