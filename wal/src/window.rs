//! The batches written last, kept in memory so that a message to somebody online is never read back from disk.
//!
//! A ring of bytes: each written frame is copied in (some 50 MB/s at full load, which is nothing beside the sync) so
//! that the large write buffers go straight back to work. The oldest frames make room for the newest.

use std::collections::VecDeque;

use crate::Pos;

#[derive(Clone, Copy, Debug)]
struct Frame {
    segment: u32,
    offset: u32,
    len: usize,
    at: usize,
}

impl Frame {
    fn overlaps(&self, from: usize, to: usize) -> bool {
        self.at < to && from < self.at + self.len
    }
}

/// The recent window of a log.
#[derive(Debug)]
pub(crate) struct Window {
    ring: Vec<u8>,
    next: usize,
    frames: VecDeque<Frame>,
}

impl Window {
    /// A window of `bytes`; pages of it are touched only when first used.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { ring: vec![0; bytes], next: 0, frames: VecDeque::new() }
    }

    /// Keeps a frame that stands at `pos`; positions only grow.
    pub(crate) fn push(&mut self, pos: Pos, bytes: &[u8]) {
        let len = bytes.len();
        if len > self.ring.len() {
            self.frames.clear();
            return;
        }
        let mut at = self.next;
        if at + len > self.ring.len() {
            // The frames between here and the ring's end are the oldest; they go before those at its beginning.
            while self.frames.front().is_some_and(|frame| frame.at >= at) {
                self.frames.pop_front();
            }
            at = 0;
        }
        while self.frames.front().is_some_and(|frame| frame.overlaps(at, at + len)) {
            self.frames.pop_front();
        }
        self.ring[at..at + len].copy_from_slice(bytes);
        self.frames.push_back(Frame { segment: pos.segment, offset: pos.offset, len, at });
        self.next = at + len;
    }

    /// The `len` bytes at `pos`, if the frame around them is still here.
    pub(crate) fn get(&self, pos: Pos, len: usize) -> Option<&[u8]> {
        let after = self
            .frames
            .partition_point(|frame| (frame.segment, frame.offset) <= (pos.segment, pos.offset));
        let frame = self.frames.get(after.checked_sub(1)?)?;
        if frame.segment != pos.segment {
            return None;
        }
        let skip = (pos.offset - frame.offset) as usize;
        if skip.checked_add(len)? > frame.len {
            return None;
        }
        Some(&self.ring[frame.at + skip..frame.at + skip + len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_what_was_written_and_the_newest_is_always_found() {
        // A plain linear congruential sequence (Knuth's MMIX constants) gives lengths of all kinds.
        let mut state = 1u64;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        let mut window = Window::new(10_000);
        let mut written: Vec<(Pos, Vec<u8>)> = Vec::new();
        let (mut segment, mut offset) = (1, 4096);
        for i in 0..2000 {
            let bytes = vec![i as u8; 1 + random() % 3000];
            if offset > 60_000 {
                (segment, offset) = (segment + 1, 4096);
            }
            let pos = Pos { segment, offset };
            window.push(pos, &bytes);
            offset += bytes.len() as u32;
            written.push((pos, bytes));
            let (pos, bytes) = written.last().unwrap();
            assert_eq!(window.get(*pos, bytes.len()), Some(&bytes[..]));
            assert_eq!(window.get(*pos, bytes.len() + 1), None);
            assert_eq!(window.get(Pos { segment: segment + 1, offset: 0 }, 1), None);
            let kept = written.iter().rev().take(20).filter(|(pos, bytes)| {
                let found = window.get(*pos, bytes.len());
                assert!(found.is_none_or(|found| found == bytes));
                found.is_some()
            });
            assert!(kept.map(|(_, bytes)| bytes.len()).sum::<usize>() <= 10_000);
        }
    }

    #[test]
    fn a_frame_larger_than_the_window_is_not_kept() {
        let mut window = Window::new(100);
        window.push(Pos { segment: 1, offset: 0 }, &[1; 60]);
        window.push(Pos { segment: 1, offset: 60 }, &[2; 101]);
        assert_eq!(window.get(Pos { segment: 1, offset: 0 }, 60), None);
        assert_eq!(window.get(Pos { segment: 1, offset: 60 }, 1), None);
    }
}
