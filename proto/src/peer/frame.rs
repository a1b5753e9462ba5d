//! Frames of a link: an eight-byte header and a body.
//!
//! The header holds a type, a reserved byte, a channel and a 32-bit length, which is checked before anything is
//! allocated or awaited. Integers are little-endian.

use super::code::{End, EndCode};
use crate::wire::{Reader, Writer};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 8;
/// Bytes of a BATCH's body, at most: the largest frame of [`crate::link`] and room to gather small ones.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the body of any other frame, at most: also what a stranger may make us wait for.
pub const HELLO_BYTES_MAX: usize = 4096;
/// Bytes of END's text, at most.
const END_TEXT_BYTES_MAX: usize = 512;
/// A type with this bit may be skipped by who does not know it; any other unknown type ends the link.
const IGNORABLE: u8 = 0x80;

/// Frame types.
pub(super) mod kind {
    /// Who this is and what it can do. First frame of each side.
    pub(in crate::peer) const HELLO: u8 = 0x01;
    /// Why the link ends. Last frame of a side.
    pub(in crate::peer) const END: u8 = 0x02;
    /// A sign of life.
    pub(in crate::peer) const HEARTBEAT: u8 = 0x03;
    /// Bytes of BATCH that the other side may send on a channel, in addition.
    pub(in crate::peer) const CREDIT: u8 = 0x04;
    /// Whether a partition serves.
    pub(in crate::peer) const STATE: u8 = 0x05;
    /// Bytes of a channel.
    pub(in crate::peer) const BATCH: u8 = 0x06;
    /// A user's sessions are to end. Who does not know it skips it.
    pub(in crate::peer) const EJECT: u8 = 0x81;
}

const _: () = assert!(BATCH_BYTES_MAX >= crate::limits::FRAME_BODY_BYTES_MAX + 4);

/// Whether a partition of a core serves clients.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum PartitionState {
    /// Not yet: it reads its log or waits for its mirror.
    #[default]
    Recovering = 0,
    /// It takes SENDs and logins.
    Serving = 1,
    /// It goes away: move to another core. What it has taken in, it still answers.
    Draining = 2,
    /// It takes SENDs and logins, and lacks records that its mirror has: their recipients get them here only once it has
    /// them, so a core that lacks none is better.
    Behind = 3,
}

impl PartitionState {
    /// The state of a number. One of a later version is no promise to serve.
    pub fn from_u8(number: u8) -> Self {
        match number {
            1 => Self::Serving,
            2 => Self::Draining,
            3 => Self::Behind,
            _ => Self::Recovering,
        }
    }

    /// Whether SENDs and logins are taken.
    pub fn takes(self) -> bool {
        matches!(self, Self::Serving | Self::Behind)
    }
}

/// A frame's header, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) channel: u16,
    pub(super) body_bytes: usize,
}

impl Header {
    /// Reads a header from the start of `bytes`: `None` if fewer than eight are there yet.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, End> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [kind, _, c0, c1, l0, l1, l2, l3] = *head;
        let body_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let most = if kind == kind::BATCH { BATCH_BYTES_MAX } else { HELLO_BYTES_MAX };
        if body_bytes > most {
            let text =
                format!("a frame of type {kind:#04x} with {body_bytes} bytes; {most} at most");
            return Err(End::ours(EndCode::Oversize, text));
        }
        Ok(Some(Self { kind, channel: u16::from_le_bytes([c0, c1]), body_bytes }))
    }

    /// Whether the type may be skipped.
    pub(super) fn is_ignorable(self) -> bool {
        self.kind & IGNORABLE != 0
    }
}

/// Appends a frame whose body `fill` writes.
pub(super) fn put(out: &mut Vec<u8>, kind: u8, channel: u16, fill: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    let mut head = [kind, 0, 0, 0, 0, 0, 0, 0];
    head[2..4].copy_from_slice(&channel.to_le_bytes());
    out.extend_from_slice(&head);
    fill(&mut Writer::new(out));
    let body = (out.len() - start - HEADER_BYTES) as u32;
    assert!(body as usize <= BATCH_BYTES_MAX, "a frame of ours fits its own bound");
    out[start + 4..start + HEADER_BYTES].copy_from_slice(&body.to_le_bytes());
}

/// HEARTBEAT: our clock, and the newest one of the peer that arrived here; milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Heartbeat {
    pub(super) now_ms: u64,
    pub(super) echo_ms: u64,
}

impl Heartbeat {
    pub(super) fn decode(body: &[u8]) -> Result<Self, End> {
        let mut r = Reader::new(body);
        read(|| Ok(Self { now_ms: r.u64()?, echo_ms: r.u64()? }), "HEARTBEAT")
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        put(out, kind::HEARTBEAT, 0, |w| {
            w.u64(self.now_ms).u64(self.echo_ms);
        });
    }
}

/// Reads an END. Whatever it holds, the link is over: a text that is none is left out.
pub(super) fn decode_end(body: &[u8]) -> End {
    let mut r = Reader::new(body);
    let code = r.u16().ok().and_then(EndCode::from_u16).unwrap_or(EndCode::GoingAway);
    let text = r.str16().unwrap_or_default();
    // It goes into a log, where a peer must not be able to begin a line of its own.
    let text = text.chars().filter(|c| !c.is_control()).take(END_TEXT_BYTES_MAX).collect();
    End { code, by_peer: true, text }
}

pub(super) fn put_end(out: &mut Vec<u8>, end: &End) {
    let cut = end.text.floor_char_boundary(END_TEXT_BYTES_MAX.min(end.text.len()));
    put(out, kind::END, 0, |w| {
        w.u16(end.code as u16).str16(&end.text[..cut]);
    });
}

/// A body that does not hold what its type says.
pub(super) fn malformed(what: &str) -> End {
    End::ours(EndCode::Malformed, format!("{what} does not hold what it should"))
}

/// Runs a reader of fields; what is left over in the body is for later versions.
pub(super) fn read<T>(
    fields: impl FnOnce() -> Result<T, crate::wire::Code>,
    what: &str,
) -> Result<T, End> {
    fields().map_err(|_| malformed(what))
}
