//! The two ends of a segment file: the header block in front, the trailer that closes the footer at the back.

use crate::BLOCK;
use crate::batch::{BATCH_NO_END, FRAME_BYTES_MAX};
use crate::codec::{key_at, put_key, put_u16, put_u32, put_u64, u16_at, u32_at, u64_at};

/// The major version of the format: a reader refuses another one.
pub const MAJOR: u16 = 1;
/// The minor version of the format: a reader takes any.
pub const MINOR: u16 = 0;
/// Bytes of a segment, at least.
pub const SEGMENT_BYTES_MIN: usize = 64 << 10;
/// Bytes of a segment, at most.
pub const SEGMENT_BYTES_MAX: usize = 1 << 30;
/// Bytes of the trailer, which ends where the segment ends.
pub const TRAILER_BYTES: usize = 96;

const HEADER_MAGIC: [u8; 8] = *b"IRISWAL\0";
const TRAILER_MAGIC: [u8; 8] = *b"IRISFOOT";
const CHECKSUM_CRC32C: u8 = 1;
const CHAIN_XXH3: u8 = 1;
const COMPRESSION_NONE: u8 = 0;
const TRAILER_VERSION: u16 = 1;
/// Trailer flag: the segment has no entries, its frames are to be read.
const FLAG_NO_ENTRIES: u16 = 1;

/// Whose log a segment belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Owner {
    /// The cluster's UUID.
    pub cluster: [u8; 16],
    /// The node's UUID; a node with an empty or rolled-back disk takes a new one.
    pub node: [u8; 16],
    /// The node's number in its cluster.
    pub node_id: u32,
    /// The life of the node in which the segment was prepared.
    pub incarnation: u32,
    /// Which partition of the node.
    pub log_id: u16,
}

/// The first block of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegmentHeader {
    /// Whose it is.
    pub owner: Owner,
    /// Its number; never used again in this log.
    pub segment: u32,
    /// Random, new at each use of the file.
    pub salt: u64,
    /// When it was prepared, as an HLC.
    pub created_hlc: u64,
    /// Bytes of the whole file.
    pub segment_bytes: u32,
    /// Bytes of the longest frame in it, padding included, at most.
    pub frame_bytes_max: u32,
    /// Features that a reader must know.
    pub incompatible: u64,
    /// Features that a reader may ignore.
    pub compatible: u64,
}

/// Why a block is not a segment header that this code can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// Other bytes.
    #[error("it does not begin with the magic of a segment")]
    NoMagic,
    /// The checksum does not match.
    #[error("the header's checksum does not match")]
    Crc,
    /// Sound, and of another format.
    #[error("format version {0}.{1} is unknown (this program knows {MAJOR}.x)")]
    Version(u16, u16),
    /// Sound, and in need of something unknown.
    #[error("feature bits {0:#x} are unknown and may not be ignored")]
    Features(u64),
    /// Sound, and impossible.
    #[error("{0}")]
    Shape(&'static str),
}

impl SegmentHeader {
    /// Writes it into `out`, one block.
    pub fn encode_into(&self, out: &mut [u8]) {
        assert_eq!(out.len(), BLOCK, "a header takes one block");
        out.fill(0);
        out[..8].copy_from_slice(&HEADER_MAGIC);
        put_u16(out, 8, MAJOR);
        put_u16(out, 10, MINOR);
        put_u32(out, 12, BLOCK as u32);
        put_key(out, 16, &self.owner.cluster);
        put_key(out, 32, &self.owner.node);
        put_u32(out, 48, self.owner.node_id);
        put_u32(out, 52, self.owner.incarnation);
        put_u16(out, 56, self.owner.log_id);
        put_u32(out, 60, self.segment);
        put_u64(out, 64, self.salt);
        put_u64(out, 72, self.created_hlc);
        put_u32(out, 80, self.segment_bytes);
        put_u32(out, 84, BLOCK as u32);
        put_u32(out, 88, self.frame_bytes_max);
        out[92] = CHECKSUM_CRC32C;
        out[93] = CHAIN_XXH3;
        out[94] = COMPRESSION_NONE;
        put_u64(out, 96, self.incompatible);
        put_u64(out, 104, self.compatible);
        let crc = crc32c::crc32c(&out[..BLOCK - 4]);
        put_u32(out, BLOCK - 4, crc);
    }

    /// Reads and checks one block.
    pub fn decode(block: &[u8]) -> Result<Self, HeaderError> {
        if block.len() < BLOCK || block[..8] != HEADER_MAGIC {
            return Err(HeaderError::NoMagic);
        }
        if u32_at(block, BLOCK - 4) != crc32c::crc32c(&block[..BLOCK - 4]) {
            return Err(HeaderError::Crc);
        }
        let (major, minor) = (u16_at(block, 8), u16_at(block, 10));
        if major != MAJOR {
            return Err(HeaderError::Version(major, minor));
        }
        let header = Self {
            owner: Owner {
                cluster: key_at(block, 16),
                node: key_at(block, 32),
                node_id: u32_at(block, 48),
                incarnation: u32_at(block, 52),
                log_id: u16_at(block, 56),
            },
            segment: u32_at(block, 60),
            salt: u64_at(block, 64),
            created_hlc: u64_at(block, 72),
            segment_bytes: u32_at(block, 80),
            frame_bytes_max: u32_at(block, 88),
            incompatible: u64_at(block, 96),
            compatible: u64_at(block, 104),
        };
        if header.incompatible != 0 {
            return Err(HeaderError::Features(header.incompatible));
        }
        if block[92] != CHECKSUM_CRC32C || block[93] != CHAIN_XXH3 || block[94] != COMPRESSION_NONE
        {
            return Err(HeaderError::Shape("its checksum, chain or compression is unknown"));
        }
        let bytes = header.segment_bytes as usize;
        if u32_at(block, 12) as usize != BLOCK || u32_at(block, 84) as usize != BLOCK {
            return Err(HeaderError::Shape("its blocks are not of 4096 bytes"));
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) || !bytes.is_multiple_of(BLOCK)
        {
            return Err(HeaderError::Shape("its length is out of bounds"));
        }
        let frame = header.frame_bytes_max as usize;
        if frame > FRAME_BYTES_MAX || frame + 2 * BLOCK > bytes {
            return Err(HeaderError::Shape("its longest frame does not fit into it"));
        }
        Ok(header)
    }
}

/// The last bytes of a sealed segment: where its footer is and what it sums up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trailer {
    /// The segment it was written for.
    pub segment: u32,
    /// The footer has no entries, and the segment has records: its frames are to be read.
    pub no_entries: bool,
    /// The salt of the segment's present use.
    pub salt: u64,
    /// Where the entries begin; a block boundary.
    pub entries_start: u32,
    /// Bytes of entries.
    pub entries_len: u32,
    /// How many entries.
    pub entries: u32,
    /// Where the frames end.
    pub data_end: u32,
    /// The first batch in the segment.
    pub first_batch: u64,
    /// The last batch in the segment.
    pub last_batch: u64,
    /// The chain through the last batch.
    pub last_chain: u64,
    /// The newest HLC of a record in the segment.
    pub hlc_max: u64,
    /// CRC32C of the entries.
    pub entries_crc: u32,
}

impl Trailer {
    /// Writes it into `out`, [`TRAILER_BYTES`] long.
    pub fn encode_into(&self, out: &mut [u8]) {
        assert_eq!(out.len(), TRAILER_BYTES, "a trailer has one length");
        out.fill(0);
        out[..8].copy_from_slice(&TRAILER_MAGIC);
        put_u16(out, 8, TRAILER_VERSION);
        put_u16(out, 10, if self.no_entries { FLAG_NO_ENTRIES } else { 0 });
        put_u32(out, 12, self.segment);
        put_u64(out, 16, self.salt);
        put_u32(out, 24, self.entries_start);
        put_u32(out, 28, self.entries_len);
        put_u32(out, 32, self.entries);
        put_u32(out, 36, self.data_end);
        put_u64(out, 40, self.first_batch);
        put_u64(out, 48, self.last_batch);
        put_u64(out, 56, self.last_chain);
        put_u64(out, 64, self.hlc_max);
        put_u32(out, 88, self.entries_crc);
        let crc = crc32c::crc32c(&out[..92]);
        put_u32(out, 92, crc);
    }

    /// The trailer of the segment with this number, salt and length, if `bytes` are one. A footer that is missing,
    /// half written or left over from an earlier use of the file gives `None`: the segment is then scanned.
    pub fn decode(bytes: &[u8], segment: u32, salt: u64, segment_bytes: u32) -> Option<Self> {
        let trailer = Self::decode_any(bytes, segment, segment_bytes)?;
        (trailer.salt == salt).then_some(trailer)
    }

    /// As [`Self::decode`], whatever the salt: for a segment whose header is lost.
    pub fn decode_any(bytes: &[u8], segment: u32, segment_bytes: u32) -> Option<Self> {
        let sound = bytes.len() == TRAILER_BYTES
            && bytes[..8] == TRAILER_MAGIC
            && u32_at(bytes, 92) == crc32c::crc32c(&bytes[..92])
            && u16_at(bytes, 8) == TRAILER_VERSION;
        if !sound {
            return None;
        }
        let trailer = Self {
            segment: u32_at(bytes, 12),
            no_entries: u16_at(bytes, 10) & FLAG_NO_ENTRIES != 0,
            salt: u64_at(bytes, 16),
            entries_start: u32_at(bytes, 24),
            entries_len: u32_at(bytes, 28),
            entries: u32_at(bytes, 32),
            data_end: u32_at(bytes, 36),
            first_batch: u64_at(bytes, 40),
            last_batch: u64_at(bytes, 48),
            last_chain: u64_at(bytes, 56),
            hlc_max: u64_at(bytes, 64),
            entries_crc: u32_at(bytes, 88),
        };
        let end = u64::from(trailer.entries_start) + u64::from(trailer.entries_len);
        let shaped = end + TRAILER_BYTES as u64 <= u64::from(segment_bytes)
            && trailer.data_end <= trailer.entries_start
            && trailer.data_end as usize >= BLOCK
            && (trailer.entries_start as usize).is_multiple_of(BLOCK)
            && (1..=trailer.last_batch).contains(&trailer.first_batch)
            && trailer.last_batch < BATCH_NO_END;
        (shaped && trailer.segment == segment).then_some(trailer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            owner: Owner { cluster: [1; 16], node: [2; 16], node_id: 3, incarnation: 4, log_id: 5 },
            segment: 6,
            salt: 7,
            created_hlc: 8,
            segment_bytes: 1 << 20,
            frame_bytes_max: 64 << 10,
            incompatible: 0,
            compatible: 9,
        }
    }

    fn encoded(header: &SegmentHeader) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        header.encode_into(&mut block);
        block
    }

    #[test]
    fn a_header_reads_back_as_written_and_any_flipped_bit_is_noticed() {
        let block = encoded(&header());
        assert_eq!(SegmentHeader::decode(&block), Ok(header()));
        for bit in (0..128 * 8).chain((BLOCK - 4) * 8..BLOCK * 8) {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_a_reader_must_know_and_does_not_is_refused_by_name() {
        let unknown = SegmentHeader { incompatible: 4, ..header() };
        assert_eq!(SegmentHeader::decode(&encoded(&unknown)), Err(HeaderError::Features(4)));
        let mut block = encoded(&header());
        put_u16(&mut block, 8, 2);
        let crc = crc32c::crc32c(&block[..BLOCK - 4]);
        put_u32(&mut block, BLOCK - 4, crc);
        assert_eq!(SegmentHeader::decode(&block), Err(HeaderError::Version(2, 0)));
    }

    #[test]
    fn a_trailer_of_an_earlier_use_of_the_file_is_no_trailer() {
        let trailer = Trailer {
            segment: 6,
            no_entries: true,
            salt: 7,
            entries_start: 8192,
            entries_len: 100,
            entries: 1,
            data_end: 8192,
            first_batch: 1,
            last_batch: 2,
            last_chain: 3,
            hlc_max: 4,
            entries_crc: 5,
        };
        let mut bytes = [0; TRAILER_BYTES];
        trailer.encode_into(&mut bytes);
        assert_eq!(Trailer::decode(&bytes, 6, 7, 1 << 20), Some(trailer));
        assert_eq!(Trailer::decode(&bytes, 6, 8, 1 << 20), None);
        assert_eq!(Trailer::decode(&bytes, 5, 7, 1 << 20), None);
        assert_eq!(Trailer::decode(&bytes, 6, 7, 8192), None);
    }
}
