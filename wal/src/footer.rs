//! The footer of a sealed segment: for each record its offset and the first bytes of it, which are all that
//! recovery needs. So recovery reads footers and the tail, not payloads.
//!
//! The footer is collected in memory while its segment fills, in chunks that are checksummed as they fill up, and
//! goes to disk after every batch of the segment is synced, while acknowledgements go on in the next one. Nothing
//! depends on it: a segment whose footer is missing or broken is scanned.
//!
//! Of short records it would repeat most: entries that pass a quarter of the segment are given up, and a trailer alone
//! says that the frames are to be read. They are at most three times as many bytes, and were written once.

use crate::BLOCK;
use crate::buffer::AlignedBuf;
use crate::codec::{as_u32, block_up, put_u32, u32_at};
use crate::segment::{TRAILER_BYTES, Trailer};

/// Bytes in front of the copied record prefix in an entry: offset and prefix length.
pub(crate) const ENTRY_HEAD_BYTES: usize = 8;

const CHUNK_BYTES: usize = 64 << 10;

/// Collects the entries of the segment that is being filled.
#[derive(Debug)]
pub(crate) struct FooterBuilder {
    /// Bytes of entries, at most.
    entries_max: usize,
    /// There were more.
    given_up: bool,
    chunks: Vec<AlignedBuf>,
    entries_len: usize,
    entries: u32,
    crc: u32,
}

impl FooterBuilder {
    /// For a segment of that length.
    pub(crate) fn new(segment_bytes: usize) -> Self {
        Self {
            entries_max: segment_bytes / 4,
            given_up: false,
            chunks: Vec::new(),
            entries_len: 0,
            entries: 0,
            crc: 0,
        }
    }

    /// Adds the record at `offset` of the segment, of which `prefix` are the first bytes.
    pub(crate) fn push(&mut self, offset: u32, prefix: &[u8]) {
        if !self.takes(ENTRY_HEAD_BYTES + prefix.len()) {
            *self = Self { given_up: true, ..Self::new(4 * self.entries_max) };
            return;
        }
        let mut head = [0; ENTRY_HEAD_BYTES];
        put_u32(&mut head, 0, offset);
        put_u32(&mut head, 4, as_u32(prefix.len()));
        self.put(&head);
        self.put(prefix);
        self.entries += 1;
        self.entries_len += ENTRY_HEAD_BYTES + prefix.len();
    }

    fn takes(&self, more: usize) -> bool {
        !self.given_up && self.entries_len + more <= self.entries_max
    }

    /// Bytes that the footer takes at the end of its segment if `more` bytes of entries are added.
    pub(crate) fn footer_len(&self, more: usize) -> usize {
        let entries = if self.takes(more) { self.entries_len + more } else { 0 };
        block_up(entries + TRAILER_BYTES)
    }

    /// The most that [`Self::footer_len`] gives for an entry of up to `more` bytes.
    pub(crate) fn footer_len_max(&self, more: usize) -> usize {
        let entries = if self.given_up { 0 } else { self.entries_max.min(self.entries_len + more) };
        block_up(entries + TRAILER_BYTES)
    }

    /// Closes the footer with `trailer`, whose places and checksum are filled in here.
    pub(crate) fn finish(mut self, mut trailer: Trailer, segment_bytes: u32) -> FooterWrite {
        let len = self.footer_len(0);
        let start = segment_bytes as usize - len;
        let unsummed = self.chunks.last().filter(|chunk| chunk.len() < CHUNK_BYTES);
        trailer.entries_crc = match unsummed {
            Some(chunk) => crc32c::crc32c_append(self.crc, chunk.as_slice()),
            None => self.crc,
        };
        trailer.entries_start = as_u32(start);
        trailer.entries_len = as_u32(self.entries_len);
        trailer.entries = self.entries;
        trailer.no_entries = self.given_up;
        let mut padding = len - TRAILER_BYTES - self.entries_len;
        while padding > 0 {
            let zeros = [0; BLOCK];
            let some = padding.min(BLOCK);
            self.put(&zeros[..some]);
            padding -= some;
        }
        let mut bytes = [0; TRAILER_BYTES];
        trailer.encode_into(&mut bytes);
        self.put(&bytes);
        FooterWrite { segment: trailer.segment, start, chunks: self.chunks, written: 0 }
    }

    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_BYTES) {
                self.chunks.push(AlignedBuf::new(CHUNK_BYTES));
            }
            let chunk = self.chunks.last_mut().expect("one was pushed just now");
            let some = bytes.len().min(CHUNK_BYTES - chunk.len());
            chunk.extend(some).copy_from_slice(&bytes[..some]);
            bytes = &bytes[some..];
            if chunk.len() == CHUNK_BYTES {
                self.crc = crc32c::crc32c_append(self.crc, chunk.as_slice());
            }
        }
    }
}

/// A sealed segment's footer on its way to disk, chunk by chunk.
#[derive(Debug)]
pub struct FooterWrite {
    segment: u32,
    start: usize,
    chunks: Vec<AlignedBuf>,
    written: usize,
}

impl FooterWrite {
    /// The sealed segment.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// The next chunk to write, with its offset; `None` when only the sync is left.
    pub fn next_chunk(&self) -> Option<(u64, &[u8])> {
        let chunk = self.chunks.get(self.written)?;
        Some(((self.start + self.written * CHUNK_BYTES) as u64, chunk.as_slice()))
    }

    /// The chunk that [`Self::next_chunk`] gave is written.
    pub fn chunk_written(&mut self) {
        assert!(self.written < self.chunks.len(), "there was a chunk to write");
        self.written += 1;
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(AlignedBuf::len).sum()
    }

    /// Whether there is nothing to write; never so.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

/// Iterates over a footer's entries, whose checksum the caller has compared: offset, and the record's first bytes.
/// An entry that passes the end is given as an error once, and ends the iteration.
#[derive(Clone, Debug)]
pub(crate) struct Entries<'a> {
    bytes: &'a [u8],
}

impl<'a> Entries<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

/// An entry's lengths contradict the footer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadEntry;

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(u32, &'a [u8]), BadEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        if self.bytes.len() >= ENTRY_HEAD_BYTES {
            let (offset, len) = (u32_at(self.bytes, 0), u32_at(self.bytes, 4) as usize);
            if let Some((prefix, rest)) = self.bytes[ENTRY_HEAD_BYTES..].split_at_checked(len) {
                self.bytes = rest;
                return Some(Ok((offset, prefix)));
            }
        }
        self.bytes = &[];
        Some(Err(BadEntry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(builder: FooterBuilder, segment_bytes: u32) -> (usize, Vec<u8>) {
        let (first_batch, last_batch) = (1, 1);
        let trailer = Trailer {
            segment: 1,
            salt: 2,
            data_end: 4096,
            first_batch,
            last_batch,
            ..Trailer::default()
        };
        let mut write = builder.finish(trailer, segment_bytes);
        let (start, mut bytes) = (write.start, Vec::new());
        while let Some((at, chunk)) = write.next_chunk() {
            assert_eq!(at as usize, start + bytes.len());
            bytes.extend_from_slice(chunk);
            write.chunk_written();
        }
        (start, bytes)
    }

    #[test]
    fn entries_read_back_whatever_their_number() {
        // 683 entries of 96 bytes pass one chunk; others end just before and after a block.
        for count in [0u32, 1, 41, 42, 43, 682, 683, 1400] {
            let mut builder = FooterBuilder::new(1 << 20);
            for i in 0..count {
                builder.push(i * 10, &[i as u8; 88]);
            }
            let predicted = builder.footer_len(0);
            let (start, bytes) = written(builder, 1 << 20);
            assert_eq!(bytes.len(), predicted);
            assert_eq!(start + bytes.len(), 1 << 20);
            let trailer = &bytes[bytes.len() - TRAILER_BYTES..];
            let trailer = Trailer::decode(trailer, 1, 2, 1 << 20).unwrap();
            let entries = &bytes[..trailer.entries_len as usize];
            assert_eq!(trailer.entries_crc, crc32c::crc32c(entries));
            let read: Vec<_> = Entries::new(entries).map(Result::unwrap).collect();
            assert_eq!(read.len() as u32, count);
            for (i, (offset, prefix)) in read.into_iter().enumerate() {
                assert_eq!((offset as usize, prefix), (i * 10, &[i as u8; 88][..]));
            }
        }
    }

    #[test]
    fn entries_that_pass_a_quarter_of_the_segment_are_given_up() {
        let mut builder = FooterBuilder::new(1 << 20);
        let in_a_quarter = (256 << 10) / 96;
        for i in 0..in_a_quarter {
            builder.push(i * 10, &[1; 88]);
        }
        let most = builder.footer_len(0);
        assert!(most > 256 << 10 && builder.footer_len_max(1000) >= most);
        assert_eq!(builder.footer_len(96), BLOCK, "one more is too many");
        builder.push(0, &[1; 88]);
        assert_eq!((builder.footer_len(0), builder.footer_len_max(1000)), (BLOCK, BLOCK));
        builder.push(0, &[1; 10]);
        let (start, bytes) = written(builder, 1 << 20);
        assert_eq!((start, bytes.len()), ((1 << 20) - BLOCK, BLOCK));
        let trailer = &bytes[BLOCK - TRAILER_BYTES..];
        let trailer = Trailer::decode(trailer, 1, 2, 1 << 20).unwrap();
        assert!(trailer.no_entries && trailer.entries == 0 && trailer.entries_len == 0);
    }

    #[test]
    fn an_entry_that_passes_the_end_is_an_error_and_not_a_panic() {
        let bytes = [1, 0, 0, 0, 9, 0, 0, 0, 1, 2, 3];
        assert_eq!(Entries::new(&bytes).collect::<Vec<_>>(), [Err(BadEntry)]);
        assert_eq!(Entries::new(&bytes[..5]).collect::<Vec<_>>(), [Err(BadEntry)]);
    }
}
