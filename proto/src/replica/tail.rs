//! The records of ours that were appended last, kept in memory for shipping.

use std::collections::VecDeque;

use super::streams::Span;

/// Bytes of records in one frame, unless a single record is longer.
pub(crate) const CHUNK_BYTES: usize = 128 << 10;

/// Whole records that go into one frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    pub(crate) spans: Vec<Span>,
}

impl Chunk {
    /// Adds a record.
    pub(crate) fn add(&mut self, bytes: &[u8], stream: u32, seq: u64) {
        self.bytes.extend_from_slice(bytes);
        self.holds(stream, seq);
    }

    /// Notes a record whose bytes are added together with others.
    fn holds(&mut self, stream: u32, seq: u64) {
        super::streams::add_to_spans(&mut self.spans, stream, seq);
    }

    /// Whether a record of this length would make it too long.
    pub(crate) fn is_full(&self, len: usize) -> bool {
        !self.bytes.is_empty() && self.bytes.len() + len > CHUNK_BYTES
    }
}

/// Our records in one batch.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) lsn: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) bytes: usize,
}

/// Cuts the records of a batch into chunks. Records that stand together are copied together.
pub(crate) struct Cutter<'a> {
    records: &'a [u8],
    chunks: Vec<Chunk>,
    /// Noted in the last chunk and not copied yet: offsets in `records`.
    run: std::ops::Range<usize>,
    bytes: usize,
}

impl<'a> Cutter<'a> {
    pub(crate) fn new(records: &'a [u8]) -> Self {
        Self { records, chunks: Vec::new(), run: 0..0, bytes: 0 }
    }

    /// Takes the record that stands at `at`; they come in order.
    pub(crate) fn take(&mut self, at: std::ops::Range<usize>, stream: u32, seq: u64) {
        self.bytes += at.len();
        let filled = self.chunks.last().map_or(0, |chunk| chunk.bytes.len()) + self.run.len();
        if filled == 0 || filled + at.len() > CHUNK_BYTES {
            self.close();
            let bytes = Vec::with_capacity(CHUNK_BYTES.min(self.records.len() - at.start));
            self.chunks.push(Chunk { bytes, spans: Vec::new() });
        }
        if self.run.end != at.start {
            self.copy();
            self.run.start = at.start;
        }
        self.run.end = at.end;
        self.chunks.last_mut().expect("one is open").holds(stream, seq);
    }

    fn copy(&mut self) {
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.bytes.extend_from_slice(&self.records[self.run.clone()]);
        }
        self.run.start = self.run.end;
    }

    /// The last chunk gets nothing more. What it was given room for and does not hold is the peer's: it would not count.
    fn close(&mut self) {
        self.copy();
        if let Some(Chunk { bytes, .. }) = self.chunks.last_mut()
            && bytes.len() < bytes.capacity() / 2
        {
            bytes.shrink_to_fit();
        }
    }

    /// What was cut, and its bytes.
    pub(crate) fn finish(mut self) -> (Vec<Chunk>, usize) {
        self.close();
        (self.chunks, self.bytes)
    }
}

/// The last batches with records of ours, without gaps between them.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    batches: VecDeque<Batch>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn push(&mut self, batch: Batch) {
        self.bytes += batch.bytes;
        self.batches.push_back(batch);
    }

    /// Takes the oldest batch out if there are more bytes than `bytes_max` and it is durable.
    pub(crate) fn shrink(&mut self, bytes_max: usize, durable_lsn: u64) -> Option<Batch> {
        let is_durable = self.batches.front().is_some_and(|batch| batch.lsn <= durable_lsn);
        if self.bytes <= bytes_max || !is_durable {
            return None;
        }
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.bytes;
        Some(batch)
    }

    /// A segment is gone: its batches are no longer shipped, for TOMBs of the peer in it are gone as well. The position of
    /// the last of them.
    pub(crate) fn dropped(&mut self, segment: u32) -> Option<u64> {
        let gone = |batch: &&Batch| batch.segment == segment;
        let last = self.batches.iter().rfind(gone).map(|batch| batch.lsn);
        self.batches.retain(|batch| batch.segment != segment);
        self.bytes = self.batches.iter().map(|batch| batch.bytes).sum();
        last
    }

    /// The first batch after a log position.
    pub(crate) fn after(&self, lsn: u64) -> Option<&Batch> {
        self.batches.get(self.batches.partition_point(|batch| batch.lsn <= lsn))
    }

    /// Bytes in batches after a log position.
    pub(crate) fn bytes_after(&self, lsn: u64) -> usize {
        self.batches.iter().rev().take_while(|batch| batch.lsn > lsn).map(|batch| batch.bytes).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_batch_holds_what_was_taken_and_nothing_between() {
        const LEN: usize = CHUNK_BYTES / 10;
        let records: Vec<u8> = (0..40 * LEN).map(|at| (at / LEN) as u8).collect();
        let mut cutter = Cutter::new(&records);
        let mut taken = Vec::new();
        for number in (0..40).filter(|number| number % 7 != 3) {
            cutter.take(number * LEN..(number + 1) * LEN, number as u32 % 2, number as u64 + 1);
            taken.push(number as u8);
        }
        let (chunks, bytes) = cutter.finish();
        assert_eq!(bytes, taken.len() * LEN);
        let held: Vec<u8> =
            chunks.iter().flat_map(|chunk| chunk.bytes.chunks(LEN)).map(|r| r[0]).collect();
        assert_eq!(held, taken);
        for chunk in &chunks {
            assert!(chunk.bytes.len() <= CHUNK_BYTES && chunk.bytes.capacity() <= CHUNK_BYTES);
            let mut noted: Vec<u64> = chunk.spans.iter().flat_map(|s| s.first..=s.last).collect();
            noted.sort_unstable();
            let numbers: Vec<u64> = chunk.bytes.chunks(LEN).map(|r| u64::from(r[0]) + 1).collect();
            assert_eq!(noted, numbers);
        }
    }

    #[test]
    fn a_batch_of_the_peer_with_little_of_ours_takes_little_memory() {
        let records = vec![7; 4 * CHUNK_BYTES];
        let mut cutter = Cutter::new(&records);
        cutter.take(0..100, 0, 1);
        let (chunks, bytes) = cutter.finish();
        assert_eq!((chunks.len(), bytes), (1, 100));
        assert!(chunks[0].bytes.capacity() <= 200);
    }

    #[test]
    fn a_record_longer_than_a_chunk_is_a_chunk() {
        let records = vec![7; 3 * CHUNK_BYTES];
        let mut cutter = Cutter::new(&records);
        cutter.take(0..10, 0, 1);
        cutter.take(10..10 + 2 * CHUNK_BYTES, 0, 2);
        cutter.take(10 + 2 * CHUNK_BYTES..20 + 2 * CHUNK_BYTES, 0, 3);
        let (chunks, _) = cutter.finish();
        let lens: Vec<usize> = chunks.iter().map(|chunk| chunk.bytes.len()).collect();
        assert_eq!(lens, [10, 2 * CHUNK_BYTES, 10]);
    }
}
