//! What a gateway tells a reactor of a core: its frames, and before, between and after them how its link is.
//!
//! Both are in one stream, so that their order is that of the link. The news are this process's own: on a link their
//! types are unknown.

use crate::link::ToEdge;
use crate::peer::{PartitionState, ShardRanges};
use crate::wire::{Code, Reader, put_frame, split_frame};

mod kind {
    pub(super) const UP: u8 = 0x60;
    pub(super) const STATE: u8 = 0x61;
    pub(super) const DOWN: u8 = 0x62;
}

/// One frame of the stream of a core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromCore<'a> {
    /// What the core says.
    Frame(ToEdge<'a>),
    /// The link stands.
    Up {
        /// Partitions of the core.
        partitions: u16,
        /// The shards that it serves.
        shards: ShardRanges,
    },
    /// A partition changed its state.
    State {
        /// Which partition.
        partition: u16,
        /// The state.
        state: PartitionState,
    },
    /// The link ended; nothing of it follows.
    Down,
}

impl<'a> FromCore<'a> {
    /// Takes the first frame off a batch: the frame and what follows. `None` at the end of the batch.
    pub fn split(batch: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, Code> {
        let Some(first) = batch.first() else { return Ok(None) };
        if !(kind::UP..=kind::DOWN).contains(first) {
            let split = ToEdge::split(batch)?;
            return Ok(split.map(|(frame, rest)| (Self::Frame(frame), rest)));
        }
        let (frame_kind, body, rest) = split_frame(batch)?.ok_or(Code::Malformed)?;
        let mut r = Reader::new(body);
        let news = match frame_kind {
            kind::UP => {
                let (partitions, count) = (r.u16()?, r.u16()?);
                let ranges: Result<Vec<_>, Code> =
                    (0..count).map(|_| Ok((r.u16()?, r.u16()?))).collect();
                let shards = ShardRanges::of(&ranges?).ok_or(Code::Malformed)?;
                Self::Up { partitions, shards }
            }
            kind::STATE => {
                Self::State { partition: r.u16()?, state: PartitionState::from_u8(r.u8()?) }
            }
            _ => Self::Down,
        };
        r.end()?;
        Ok(Some((news, rest)))
    }

    /// Appends this frame to a batch.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Frame(frame) => frame.encode(out),
            Self::Up { partitions, shards } => put_frame(out, kind::UP, |w| {
                w.u16(*partitions).u16(shards.iter().count() as u16);
                shards.iter().for_each(|(first, last)| {
                    w.u16(first).u16(last);
                });
            }),
            Self::State { partition, state } => put_frame(out, kind::STATE, |w| {
                w.u16(*partition).u8(*state as u8);
            }),
            Self::Down => put_frame(out, kind::DOWN, |_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnId;

    #[test]
    fn news_and_frames_come_back_in_order() {
        let shards = ShardRanges::of(&[(0, 3), (9, 9)]).unwrap();
        let frames = [
            FromCore::Up { partitions: 4, shards },
            FromCore::State { partition: 3, state: PartitionState::Serving },
            FromCore::Frame(ToEdge::Welcome { conn: ConnId(5), waiting: 1, session: 2 }),
            FromCore::Down,
        ];
        let mut batch = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut batch));
        let mut rest = batch.as_slice();
        for frame in frames {
            let (got, after) = FromCore::split(rest).unwrap().unwrap();
            assert_eq!(got, frame);
            rest = after;
        }
        assert_eq!(FromCore::split(rest), Ok(None));
    }

    #[test]
    fn news_do_not_cross_links() {
        for news in
            [FromCore::Down, FromCore::State { partition: 0, state: PartitionState::Serving }]
        {
            let mut batch = Vec::new();
            news.encode(&mut batch);
            assert_eq!(ToEdge::split(&batch), Err(Code::UnknownType));
        }
    }
}
