//! Edge to core.

use crate::id::{ConnId, MsgId, UserKey};
use crate::limits::{PRESENCE_USERS_MAX, RECIPIENTS_MAX, USER_BYTES_MAX};
use crate::wire::{Code, Names, Reader, put_frame, split_frame};

mod kind {
    pub(super) const LOGIN: u8 = 0x01;
    pub(super) const LOGOUT: u8 = 0x02;
    pub(super) const SEND: u8 = 0x03;
    pub(super) const ACK: u8 = 0x04;
    pub(super) const WINDOW: u8 = 0x05;
    pub(super) const PRESENCE: u8 = 0x06;
    pub(super) const UNWATCH: u8 = 0x07;
    pub(super) const RECEIPT: u8 = 0x08;
    pub(super) const GONE: u8 = 0x20;
}

/// A message for recipients of one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkSend<'a> {
    /// Who sends it, and where the answer goes.
    pub conn: ConnId,
    /// The client's number for it.
    pub seq: u32,
    /// The sender.
    pub sender: UserKey,
    /// The sender's id for it.
    pub id: MsgId,
    /// The client's flags.
    pub flags: u8,
    /// The sender's name.
    pub from: &'a str,
    /// 16 bytes each, 1 to 256 of them, all of one shard.
    pub to: &'a [u8],
    /// Opaque bytes.
    pub payload: &'a [u8],
}

/// A presence question about users of one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PresenceAsk<'a> {
    /// Who asks.
    pub conn: ConnId,
    /// The client's number for the question.
    pub query: u32,
    /// Whether changes are wanted.
    pub watch: bool,
    /// About whom.
    pub users: Names<'a>,
}

/// A receipt on its way to the inbox of who sent the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceiptPost<'a> {
    /// Whose inbox it goes to.
    pub to: UserKey,
    /// Who acknowledged.
    pub reader: UserKey,
    /// The same, as a name.
    pub reader_name: &'a str,
    /// Which message.
    pub id: MsgId,
}

/// What an edge tells a core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToCore<'a> {
    /// A user logged in on a connection.
    Login {
        /// The connection.
        conn: ConnId,
        /// The user.
        user: UserKey,
        /// Unacknowledged MESSAGEs it takes.
        window: u32,
        /// The number that WELCOME gave to this login, when it moves from another core or link; 0: it is new.
        session: u64,
        /// The user's name.
        name: &'a str,
    },
    /// The connection of a user is gone.
    Logout {
        /// The connection.
        conn: ConnId,
        /// The user.
        user: UserKey,
    },
    /// A message.
    Send(LinkSend<'a>),
    /// Deliveries up to a number are done.
    Ack {
        /// The connection.
        conn: ConnId,
        /// Its user.
        user: UserKey,
        /// The last one done.
        upto: u32,
    },
    /// The receive window changed.
    Window {
        /// The connection.
        conn: ConnId,
        /// Its user.
        user: UserKey,
        /// The new window.
        window: u32,
    },
    /// Who is online?
    Presence(PresenceAsk<'a>),
    /// Tell no more; no names means all.
    Unwatch {
        /// The connection.
        conn: ConnId,
        /// About whom.
        users: Names<'a>,
    },
    /// A receipt for the sender of a message.
    Receipt(ReceiptPost<'a>),
    /// The connections of these reactors are gone, and nothing more comes from them. Only inside a process: from another
    /// node it is refused.
    Gone {
        /// The first reactor.
        first: u16,
        /// How many.
        count: u16,
    },
}

impl<'a> ToCore<'a> {
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
            kind::SEND => return decode_send(r),
            kind::ACK => Self::Ack { conn: r.conn()?, user: r.user_key()?, upto: r.u32()? },
            kind::LOGIN => Self::Login {
                conn: r.conn()?,
                user: r.user_key()?,
                window: r.u32()?,
                session: r.u64()?,
                name: r.name(USER_BYTES_MAX)?,
            },
            kind::LOGOUT => Self::Logout { conn: r.conn()?, user: r.user_key()? },
            kind::WINDOW => Self::Window { conn: r.conn()?, user: r.user_key()?, window: r.u32()? },
            kind::PRESENCE => Self::Presence(PresenceAsk {
                conn: r.conn()?,
                query: r.u32()?,
                watch: r.u8()? != 0,
                users: Names::read(&mut r, 1..=PRESENCE_USERS_MAX, USER_BYTES_MAX)?,
            }),
            kind::UNWATCH => Self::Unwatch {
                conn: r.conn()?,
                users: Names::read(&mut r, 0..=PRESENCE_USERS_MAX, USER_BYTES_MAX)?,
            },
            kind::RECEIPT => Self::Receipt(ReceiptPost {
                to: r.user_key()?,
                reader: r.user_key()?,
                id: MsgId(r.id()?),
                reader_name: r.name(USER_BYTES_MAX)?,
            }),
            kind::GONE => Self::Gone { first: r.u16()?, count: r.u16()? },
            _ => return Err(Code::UnknownType),
        };
        r.end()?;
        Ok(frame)
    }

    /// Appends this frame to a batch.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Login { conn, user, window, session, name } => put_frame(out, kind::LOGIN, |w| {
                w.u64(conn.0).bytes(&user.0).u32(*window).u64(*session).str8(name);
            }),
            Self::Logout { conn, user } => put_frame(out, kind::LOGOUT, |w| {
                w.u64(conn.0).bytes(&user.0);
            }),
            Self::Send(send) => send.encode(out, |out| out.extend_from_slice(send.to)),
            Self::Ack { conn, user, upto } => put_frame(out, kind::ACK, |w| {
                w.u64(conn.0).bytes(&user.0).u32(*upto);
            }),
            Self::Window { conn, user, window } => put_frame(out, kind::WINDOW, |w| {
                w.u64(conn.0).bytes(&user.0).u32(*window);
            }),
            Self::Presence(ask) => put_frame(out, kind::PRESENCE, |w| {
                w.u64(ask.conn.0).u32(ask.query).u8(u8::from(ask.watch));
                w.u16(ask.users.len() as u16).bytes(ask.users.as_bytes());
            }),
            Self::Unwatch { conn, users } => put_frame(out, kind::UNWATCH, |w| {
                w.u64(conn.0).u16(users.len() as u16).bytes(users.as_bytes());
            }),
            Self::Receipt(receipt) => put_frame(out, kind::RECEIPT, |w| {
                w.bytes(&receipt.to.0).bytes(&receipt.reader.0).id(receipt.id.0);
                w.str8(receipt.reader_name);
            }),
            Self::Gone { first, count } => put_frame(out, kind::GONE, |w| {
                w.u16(*first).u16(*count);
            }),
        }
    }
}

impl LinkSend<'_> {
    /// Appends this message with the recipients that `put_to` writes: 16 bytes each, 1 to 256 of them.
    pub fn encode(&self, out: &mut Vec<u8>, put_to: impl FnOnce(&mut Vec<u8>)) {
        const TO_COUNT: usize = 4 + 8 + 4 + 16 + 16 + 1;
        let start = out.len();
        let mut head = [0; TO_COUNT + 2];
        head[0] = kind::SEND;
        head[4..12].copy_from_slice(&self.conn.0.to_le_bytes());
        head[12..16].copy_from_slice(&self.seq.to_le_bytes());
        head[16..32].copy_from_slice(&self.sender.0);
        head[32..48].copy_from_slice(&self.id.0.to_be_bytes());
        head[48] = self.flags;
        out.extend_from_slice(&head);
        let to_start = out.len();
        put_to(out);
        let count = ((out.len() - to_start) / 16) as u16;
        out[start + TO_COUNT..start + TO_COUNT + 2].copy_from_slice(&count.to_le_bytes());
        out.push(self.from.len() as u8);
        out.extend_from_slice(self.from.as_bytes());
        out.extend_from_slice(self.payload);
        let body = (out.len() - start - 4) as u32;
        out[start + 1..start + 4].copy_from_slice(&body.to_le_bytes()[..3]);
    }
}

fn decode_send(mut r: Reader<'_>) -> Result<ToCore<'_>, Code> {
    let (conn, seq, sender) = (r.conn()?, r.u32()?, r.user_key()?);
    let (id, flags, count) = (MsgId(r.id()?), r.u8()?, usize::from(r.u16()?));
    if !(1..=RECIPIENTS_MAX).contains(&count) {
        return Err(Code::Malformed);
    }
    let to = r.bytes(count * 16)?;
    let from = r.name(USER_BYTES_MAX)?;
    Ok(ToCore::Send(LinkSend { conn, seq, sender, id, flags, from, to, payload: r.rest() }))
}
