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
