//! What the batches of a peer may hold.
//!
//! A node passes frames on between a link and its own threads. Before that each frame is decoded as a whole, every
//! number in it that names something of ours is checked, and the reactor in the name of a connection is moved into the
//! range that this node gave to the link, so that one peer can never name another one's connections.

use super::code::{End, EndCode};
use crate::id::ConnId;
use crate::link::{ToCore, ToEdge};
use crate::wire::{Code, HEADER_BYTES, Send, split_frame};

/// Where the name of a connection stands in every frame that has one.
const CONN: std::ops::Range<usize> = HEADER_BYTES..HEADER_BYTES + 8;

/// The reactors of an edge in the numbers of a core: `first..first + count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReactorRange {
    /// The number that reactor 0 of the edge has here.
    pub first: u16,
    /// How many there are.
    pub count: u16,
}

impl ReactorRange {
    /// Whether a reactor in the core's numbers belongs to the edge.
    pub fn contains(self, reactor: u16) -> bool {
        reactor.checked_sub(self.first).is_some_and(|index| index < self.count)
    }
}

fn malformed(code: Code) -> End {
    End::ours(EndCode::Malformed, format!("a frame of a batch: {}", code.name()))
}

fn foreign(what: &str) -> End {
    End::ours(EndCode::OutOfOrder, what)
}

/// An edge's batch, checked and renamed, is appended to `out`; after an error, what stood before the fault. Tells how
/// many frames it held.
pub fn to_core(batch: &[u8], range: ReactorRange, out: &mut Vec<u8>) -> Result<u64, End> {
    let (mut rest, mut frames) = (batch, 0);
    while let Some((frame, after)) = ToCore::split(rest).map_err(malformed)? {
        let whole = &rest[..rest.len() - after.len()];
        let conn = match frame {
            ToCore::Send(send) if send.flags & !Send::WANTS_RECEIPT != 0 => {
                return Err(malformed(Code::Malformed));
            }
            ToCore::Send(send) => Some(send.conn),
            ToCore::Login { conn, .. }
            | ToCore::Logout { conn, .. }
            | ToCore::Ack { conn, .. }
            | ToCore::Window { conn, .. }
            | ToCore::Unwatch { conn, .. } => Some(conn),
            ToCore::Presence(ask) => Some(ask.conn),
            ToCore::Receipt(_) => None,
            ToCore::Gone { .. } => {
                return Err(foreign("a frame that only a process says to itself"));
            }
        };
        if conn.is_some_and(|conn| conn.reactor() >= range.count) {
            return Err(foreign("a connection of a reactor that the peer does not have"));
        }
        let start = out.len();
        out.extend_from_slice(whole);
        if let Some(conn) = conn {
            rename(&mut out[start..], conn, conn.reactor() + range.first);
        }
        frames += 1;
        rest = after;
    }
    Ok(frames)
}

/// Cuts the first bytes off a batch of ours for an edge, no more than `max`: whole frames, renamed back. `None` if not
/// even one fits. Frames of our own that do not parse are a bug of ours.
pub fn cut_for_edge(batch: &mut [u8], max: usize, range: ReactorRange) -> Option<usize> {
    let mut end = 0;
    while let Some((_, body, _)) = split_frame(&batch[end..]).expect("our frames are whole") {
        let next = end + HEADER_BYTES + body.len();
        if next > max {
            break;
        }
        let conn = conn_of(&batch[end..next]);
        assert!(range.contains(conn.reactor()), "a frame goes to the link that its connection has");
        rename(&mut batch[end..next], conn, conn.reactor() - range.first);
        end = next;
    }
    (end > 0).then_some(end)
}

/// Cuts the first bytes off a batch of ours for a core, no more than `max`: whole frames. `None` if not even one fits.
pub fn cut(batch: &[u8], max: usize) -> Option<usize> {
    if batch.len() <= max {
        return (!batch.is_empty()).then_some(batch.len());
    }
    let mut end = 0;
    while let Some((_, body, _)) = split_frame(&batch[end..]).expect("our frames are whole") {
        let next = end + HEADER_BYTES + body.len();
        if next > max {
            break;
        }
        end = next;
    }
    (end > 0).then_some(end)
}

/// A core's batch, checked, is given out frame by frame: the reactor and the frame's bytes.
pub fn to_edge(batch: &[u8], reactors: u16, mut give: impl FnMut(u16, &[u8])) -> Result<u64, End> {
    let (mut rest, mut frames) = (batch, 0);
    while let Some((frame, after)) = ToEdge::split(rest).map_err(malformed)? {
        let whole = &rest[..rest.len() - after.len()];
        let conn = match frame {
            ToEdge::Welcome { conn, .. }
            | ToEdge::Accepted { conn, .. }
            | ToEdge::Rejected { conn, .. }
            | ToEdge::Kick { conn, .. } => conn,
            ToEdge::Frame { conn, bytes } => {
                check_client_frames(bytes)?;
                conn
            }
            ToEdge::Receipt { .. } => return Err(foreign("a receipt for an edge to pass on")),
        };
        if conn.reactor() >= reactors {
            return Err(foreign("a connection of a reactor that this edge does not have"));
        }
        give(conn.reactor(), whole);
        frames += 1;
        rest = after;
    }
    Ok(frames)
}

/// What goes to a client as it is must be whole frames of the wire protocol: a torn one would garble all that follows.
fn check_client_frames(bytes: &[u8]) -> Result<(), End> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (_, _, after) =
            split_frame(rest).and_then(|f| f.ok_or(Code::Malformed)).map_err(malformed)?;
        rest = after;
    }
    Ok(())
}

fn conn_of(frame: &[u8]) -> ConnId {
    let bytes = frame[CONN].try_into().expect("eight bytes");
    ConnId(u64::from_le_bytes(bytes))
}

fn rename(frame: &mut [u8], conn: ConnId, reactor: u16) {
    let renamed = ConnId::new(reactor, conn.slot(), conn.generation());
    frame[CONN].copy_from_slice(&renamed.0.to_le_bytes());
}
