//! Frames a client sends.

use super::{Code, IGNORABLE, MAGIC, Names, Reader, kind, put_frame};
use crate::id::MsgId;
use crate::limits::{
    DEVICE_BYTES_MAX, PRESENCE_USERS_MAX, RECIPIENTS_MAX, TOKEN_BYTES_MAX, USER_BYTES_MAX,
};

/// The recipients of a SEND: 1 to 256 names.
pub type Recipients<'a> = Names<'a>;

/// HELLO: the first frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello<'a> {
    /// Lowest version the client speaks.
    pub version_min: u8,
    /// Highest version the client speaks.
    pub version_max: u8,
    /// Unacknowledged MESSAGEs it can take; the server may grant fewer.
    pub window: u32,
    /// Who it wants to be; empty means "as the token says".
    pub user: &'a str,
    /// A name for this installation; may be empty.
    pub device: &'a str,
    /// A signed JWT.
    pub token: &'a str,
}

/// SEND: a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Send<'a> {
    /// The client's number for this SEND in this connection; the answer names it.
    pub seq: u32,
    /// Chosen by the client, the same on each retry.
    pub id: MsgId,
    /// Bit 0: a receipt is wanted.
    pub flags: u8,
    /// Who gets it.
    pub to: Recipients<'a>,
    /// Opaque bytes.
    pub payload: &'a [u8],
}

impl Send<'_> {
    /// Flag: tell me when a recipient acknowledged it.
    pub const WANTS_RECEIPT: u8 = 1;
}

/// PRESENCE_QUERY: who of these is online?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PresenceQuery<'a> {
    /// Not 0; the answers carry it.
    pub query: u32,
    /// Whether to be told of later changes.
    pub watch: bool,
    /// 1 to 256 users.
    pub users: Names<'a>,
}

/// UNWATCH: tell me no more about these; none means all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unwatch<'a> {
    /// 0 to 256 users.
    pub users: Names<'a>,
}

/// What a client may say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientFrame<'a> {
    /// Log in.
    Hello(Hello<'a>),
    /// Send a message.
    Send(Send<'a>),
    /// All deliveries up to this number are done.
    Ack(u32),
    /// Allow this many unacknowledged MESSAGEs from now on; 0 pauses.
    Window(u32),
    /// Ask about presence.
    PresenceQuery(PresenceQuery<'a>),
    /// Stop watching.
    Unwatch(Unwatch<'a>),
    /// Answer me with these eight bytes.
    Ping([u8; 8]),
    /// The answer to a PING of the server.
    Pong([u8; 8]),
    /// A frame from a later version that may be skipped.
    Ignored,
}

impl<'a> ClientFrame<'a> {
    /// Reads the body of a frame of type `frame_kind`.
    pub fn decode(frame_kind: u8, body: &'a [u8]) -> Result<Self, Code> {
        let mut reader = Reader::new(body);
        let frame = match frame_kind {
            kind::SEND => return decode_send(reader),
            kind::ACK => Self::Ack(reader.u32()?),
            kind::HELLO => Self::Hello(decode_hello(&mut reader)?),
            kind::WINDOW => Self::Window(reader.u32()?),
            kind::PRESENCE_QUERY => {
                let query = reader.u32()?;
                let flags = reader.u8()?;
                let users = Names::read(&mut reader, 1..=PRESENCE_USERS_MAX, USER_BYTES_MAX)?;
                if query == 0 {
                    return Err(Code::Malformed);
                }
                Self::PresenceQuery(PresenceQuery { query, watch: flags & 1 != 0, users })
            }
            kind::UNWATCH => Self::Unwatch(Unwatch {
                users: Names::read(&mut reader, 0..=PRESENCE_USERS_MAX, USER_BYTES_MAX)?,
            }),
            kind::PING => Self::Ping(reader.array()?),
            kind::PONG => {
                let echo = reader.array()?;
                reader.u64()?;
                Self::Pong(echo)
            }
            ignorable if ignorable & IGNORABLE != 0 => return Ok(Self::Ignored),
            _ => return Err(Code::UnknownType),
        };
        reader.end()?;
        Ok(frame)
    }

    /// Appends this frame. [`Self::Ignored`] has no bytes of its own.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => put_frame(out, kind::HELLO, |w| {
                w.bytes(&MAGIC)
                    .u8(hello.version_min)
                    .u8(hello.version_max)
                    .u16(0)
                    .u32(hello.window);
                w.str8(hello.user).str8(hello.device).str16(hello.token);
            }),
            Self::Send(send) => put_frame(out, kind::SEND, |w| {
                w.u32(send.seq).id(send.id.0).u8(send.flags).u16(send.to.len() as u16);
                w.bytes(send.to.as_bytes()).bytes(send.payload);
            }),
            Self::Ack(upto) => put_frame(out, kind::ACK, |w| {
                w.u32(*upto);
            }),
            Self::Window(window) => put_frame(out, kind::WINDOW, |w| {
                w.u32(*window);
            }),
            Self::PresenceQuery(query) => put_frame(out, kind::PRESENCE_QUERY, |w| {
                w.u32(query.query).u8(u8::from(query.watch)).u16(query.users.len() as u16);
                w.bytes(query.users.as_bytes());
            }),
            Self::Unwatch(unwatch) => put_frame(out, kind::UNWATCH, |w| {
                w.u16(unwatch.users.len() as u16).bytes(unwatch.users.as_bytes());
            }),
            Self::Ping(echo) => put_frame(out, kind::PING, |w| {
                w.bytes(echo);
            }),
            Self::Pong(echo) => put_frame(out, kind::PONG, |w| {
                w.bytes(echo).u64(0);
            }),
            Self::Ignored => {}
        }
    }
}

/// Appends a SEND to one recipient: what a client does most, without a list to build first.
pub fn put_send(out: &mut Vec<u8>, seq: u32, id: MsgId, flags: u8, to: &[&str], payload: &[u8]) {
    put_frame(out, kind::SEND, |w| {
        w.u32(seq).id(id.0).u8(flags).u16(to.len() as u16);
        to.iter().for_each(|name| {
            w.str8(name);
        });
        w.bytes(payload);
    });
}

fn decode_send(mut reader: Reader<'_>) -> Result<ClientFrame<'_>, Code> {
    Ok(ClientFrame::Send(Send {
        seq: reader.u32()?,
        id: MsgId(reader.id()?),
        flags: reader.u8()?,
        to: Names::read(&mut reader, 1..=RECIPIENTS_MAX, USER_BYTES_MAX)?,
        payload: reader.rest(),
    }))
}

fn decode_hello<'a>(reader: &mut Reader<'a>) -> Result<Hello<'a>, Code> {
    if reader.array().map_err(|_| Code::Garbage)? != MAGIC {
        return Err(Code::Garbage);
    }
    let (version_min, version_max) = (reader.u8()?, reader.u8()?);
    if version_min > version_max {
        return Err(Code::Malformed);
    }
    if version_min > super::VERSION || version_max < super::VERSION {
        return Err(Code::Version);
    }
    let _flags = reader.u16()?;
    let hello = Hello {
        version_min,
        version_max,
        window: reader.u32()?,
        user: reader.str8()?,
        device: reader.str8()?,
        token: reader.str16()?,
    };
    if hello.user.len() > USER_BYTES_MAX
        || hello.device.len() > DEVICE_BYTES_MAX
        || hello.token.len() > TOKEN_BYTES_MAX
    {
        return Err(Code::Malformed);
    }
    Ok(hello)
}
