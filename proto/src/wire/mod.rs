//! The wire protocol, version 1: frames between a client and an edge. `docs/PROTOCOL.md` is the norm; the vectors in
//! `proto/vectors/wire-v1.json` are read by these tests and by the clients'.
//!
//! A frame is a four-byte header and a body. The header holds a type and a 24-bit length, which is checked against
//! [`FRAME_BODY_BYTES_MAX`] before anything is allocated or awaited. Decoding borrows from the input, copies nothing
//! and looks at each byte once; what is left over in a body is an error, except where the last field is "the rest".
//!
//! Integers are little-endian. Message ids are the 16 bytes of the UUID in network order (RFC 9562, section 4).

mod client;
mod code;
mod server;
mod span;

pub use client::{ClientFrame, Hello, PresenceQuery, Recipients, Send, Unwatch, put_send};
pub use code::Code;
pub use server::{
    AcceptedRun, AcceptedRuns, MessageHead, PresenceEntries, PresenceState, Rejection, Rejections,
    ServerFrame, Welcome, put_accepted, put_drain, put_error, put_ping, put_pong, put_presence,
    put_rejected,
};
pub use span::{Names, Reader, Writer};

use crate::limits::FRAME_BODY_BYTES_MAX;

/// The only version there is.
pub const VERSION: u8 = 1;
/// The first four bytes of a HELLO's body.
pub const MAGIC: [u8; 4] = *b"IRIS";
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 4;
/// A type with this bit may be skipped by who does not know it; any other unknown type ends the connection.
pub const IGNORABLE: u8 = 0x80;

/// Frame types. Clients send below 0x40, servers from 0x40; PING and PONG go both ways.
pub mod kind {
    /// First frame of a client: who it is and what it can do.
    pub const HELLO: u8 = 0x01;
    /// A message for one recipient or a list.
    pub const SEND: u8 = 0x02;
    /// All deliveries up to a number are done.
    pub const ACK: u8 = 0x03;
    /// Changes the receive window.
    pub const WINDOW: u8 = 0x04;
    /// Asks who is online, and optionally to be told of changes.
    pub const PRESENCE_QUERY: u8 = 0x05;
    /// Ends watching.
    pub const UNWATCH: u8 = 0x06;
    /// Asks for a PONG.
    pub const PING: u8 = 0x07;
    /// Answers a PING.
    pub const PONG: u8 = 0x08;
    /// Answers a HELLO.
    pub const WELCOME: u8 = 0x41;
    /// SENDs that are durable in their inboxes.
    pub const ACCEPTED: u8 = 0x42;
    /// SENDs that were refused, each with its reason.
    pub const REJECTED: u8 = 0x43;
    /// A message out of the inbox.
    pub const MESSAGE: u8 = 0x44;
    /// Who is online.
    pub const PRESENCE: u8 = 0x45;
    /// The server goes away: come back later.
    pub const DRAIN: u8 = 0x46;
    /// Last frame of a server before it closes.
    pub const ERROR: u8 = 0x47;
}

/// A frame's header, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the body is.
    pub kind: u8,
    /// Bytes of the body, at most [`FRAME_BODY_BYTES_MAX`].
    pub body_bytes: usize,
}

impl Header {
    /// Reads a header from the start of `bytes`: `None` if fewer than four are there yet.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, Code> {
        let Some(&[kind, a, b, c]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let body_bytes = u32::from_le_bytes([a, b, c, 0]) as usize;
        if body_bytes > FRAME_BODY_BYTES_MAX {
            return Err(Code::Oversize);
        }
        Ok(Some(Self { kind, body_bytes }))
    }
}

/// A frame's type, its body, and the bytes that follow it.
pub type SplitFrame<'a> = (u8, &'a [u8], &'a [u8]);

/// Takes one whole frame off the front of `bytes`, or `None` if it is not all there.
pub fn split_frame(bytes: &[u8]) -> Result<Option<SplitFrame<'_>>, Code> {
    let Some(header) = Header::read(bytes)? else { return Ok(None) };
    let end = HEADER_BYTES + header.body_bytes;
    if bytes.len() < end {
        return Ok(None);
    }
    let (frame, rest) = bytes.split_at(end);
    Ok(Some((header.kind, &frame[HEADER_BYTES..], rest)))
}

/// Appends a frame whose body `fill` writes. The length is patched in afterwards.
pub fn put_frame(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[kind, 0, 0, 0]);
    fill(&mut Writer::new(out));
    let body = out.len() - start - HEADER_BYTES;
    assert!(body <= FRAME_BODY_BYTES_MAX, "a frame of ours fits its own bound");
    out[start + 1..start + HEADER_BYTES].copy_from_slice(&(body as u32).to_le_bytes()[..3]);
}

#[cfg(test)]
mod tests;
