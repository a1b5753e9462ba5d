//! The batch frame: what one write and one sync put on disk.
//!
//! A frame begins on a block boundary, carries records back to back after its header, and is padded with zeros to
//! the next boundary. The header has its own checksum, so that no length is trusted before it is checked; it names
//! the segment and the offset it was written for, so that a misdirected or a recycled block is never taken for part
//! of this log.

use crate::BLOCK;
use crate::codec::{block_up, put_u16, put_u32, put_u64, u16_at, u32_at, u64_at};

/// Bytes of a frame's header; the first record follows.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Bytes of a frame, padding included, at most.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// Batch numbers are below it; no log gets there.
pub const BATCH_NO_END: u64 = 1 << 63;

const MAGIC: [u8; 4] = *b"IRBF";
const VERSION: u8 = 1;
const CRC_AT: usize = 60;

/// The header of a batch frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameHeader {
    /// Bytes of records after the header, without padding.
    pub body_len: u32,
    /// How many records.
    pub records: u32,
    /// The salt of the segment's present use.
    pub salt: u64,
    /// Grows by one with each batch of a log, over all segments, from 1.
    pub batch_no: u64,
    /// The highest batch number known synced when this frame was built.
    pub durable_upto: u64,
    /// [`chain`] through this batch.
    pub chain: u64,
    /// The segment it was written for.
    pub segment: u32,
    /// The offset in that segment it was written for.
    pub offset: u32,
    /// CRC32C of the body.
    pub body_crc: u32,
}

/// Why a block does not begin with a frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// Other bytes: zeros of a fresh file, the middle of a frame, or rot in the first four bytes.
    NoMagic,
    /// The magic is there and the checksum does not match.
    Crc,
    /// Sound, but of a version that this code does not know.
    Version(u8),
    /// Sound, but its lengths are impossible.
    Shape,
}

impl FrameHeader {
    /// Bytes of the whole frame, padding included.
    pub fn frame_len(&self) -> usize {
        block_up(FRAME_HEADER_BYTES + self.body_len as usize)
    }

    /// Whether these bytes, which may be too few, are its body, whole.
    pub(crate) fn is_body(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.body_len as usize && crc32c::crc32c(bytes) == self.body_crc
    }

    /// Writes it into the first [`FRAME_HEADER_BYTES`] of `out`.
    pub fn encode_into(&self, out: &mut [u8]) {
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = 0;
        put_u16(out, 6, FRAME_HEADER_BYTES as u16);
        put_u32(out, 8, self.body_len);
        put_u32(out, 12, self.records);
        put_u64(out, 16, self.salt);
        put_u64(out, 24, self.batch_no);
        put_u64(out, 32, self.durable_upto);
        put_u64(out, 40, self.chain);
        put_u32(out, 48, self.segment);
        put_u32(out, 52, self.offset);
        put_u32(out, 56, self.body_crc);
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        put_u32(out, CRC_AT, crc);
    }

    /// Reads and checks the header at the beginning of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() < FRAME_HEADER_BYTES || bytes[..4] != MAGIC {
            return Err(FrameError::NoMagic);
        }
        if u32_at(bytes, CRC_AT) != crc32c::crc32c(&bytes[..CRC_AT]) {
            return Err(FrameError::Crc);
        }
        if bytes[4] != VERSION {
            return Err(FrameError::Version(bytes[4]));
        }
        let header = Self {
            body_len: u32_at(bytes, 8),
            records: u32_at(bytes, 12),
            salt: u64_at(bytes, 16),
            batch_no: u64_at(bytes, 24),
            durable_upto: u64_at(bytes, 32),
            chain: u64_at(bytes, 40),
            segment: u32_at(bytes, 48),
            offset: u32_at(bytes, 52),
            body_crc: u32_at(bytes, 56),
        };
        let fits = header.body_len as usize <= FRAME_BYTES_MAX - FRAME_HEADER_BYTES;
        let placed = (header.offset as usize).is_multiple_of(BLOCK);
        let numbered = (1..BATCH_NO_END).contains(&header.batch_no);
        let ordered = numbered && header.durable_upto < header.batch_no;
        if !fits || !placed || !ordered || u16_at(bytes, 6) as usize != FRAME_HEADER_BYTES {
            return Err(FrameError::Shape);
        }
        Ok(header)
    }
}

/// The chain through a batch: XXH3-64 of its body, seeded with the chain through the batch before it (0 for the
/// first). Two logs with the same chain at the same batch hold the same batches up to there.
pub fn chain(before: u64, body: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(body, before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            body_len: 5000,
            records: 3,
            salt: 0x0123_4567_89ab_cdef,
            batch_no: 9,
            durable_upto: 8,
            chain: 77,
            segment: 4,
            offset: 8192,
            body_crc: 11,
        }
    }

    #[test]
    fn a_header_reads_back_as_written_and_any_flipped_bit_is_noticed() {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        header().encode_into(&mut bytes);
        assert_eq!(FrameHeader::decode(&bytes), Ok(header()));
        assert_eq!(header().frame_len(), 8192);
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_sound_header_with_impossible_lengths_is_refused() {
        for bad in [
            FrameHeader { body_len: u32::MAX, ..header() },
            FrameHeader { offset: 100, ..header() },
            FrameHeader { durable_upto: 9, ..header() },
            FrameHeader { batch_no: 0, durable_upto: 0, ..header() },
            FrameHeader { batch_no: BATCH_NO_END, ..header() },
        ] {
            let mut bytes = [0; FRAME_HEADER_BYTES];
            bad.encode_into(&mut bytes);
            assert_eq!(FrameHeader::decode(&bytes), Err(FrameError::Shape));
        }
    }
}
