//! Reads a log forward from any frame, for a peer that lacks something: whole records, as they stand in the file.
//!
//! Only batches that the caller knows to be synced are read. Frames and records that are not whole are passed over: what
//! they held, the caller says it lacks. Each record is checked by its frame's checksum here and by its own where it is
//! used.

use std::io;
use std::path::PathBuf;

use crate::batch::FRAME_HEADER_BYTES;
use crate::codec::as_u32;
use crate::disk::{Access, Disk};
use crate::recovery::look::life_without_header;
use crate::recovery::segment_name;
use crate::scan::{FrameAt, Life, READ_BYTES, SegmentFile};
use crate::segment::{SEGMENT_BYTES_MAX, SegmentHeader, TRAILER_BYTES, Trailer};
use crate::{BLOCK, Pos};

/// What one step of a feed read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fed {
    /// Whole records, back to back, in the order of the log.
    pub records: Vec<u8>,
    /// Where the segment goes on; `None`: it holds no more frames that may be read.
    pub next: Option<u32>,
}

/// Reads segments of one log.
#[derive(Debug)]
pub struct Feed<D: Disk> {
    disk: D,
    dir: PathBuf,
    buf: Vec<u8>,
}

impl<D: Disk> Feed<D> {
    /// A feed of the segments in `dir`.
    pub fn new(disk: D, dir: PathBuf) -> Self {
        Self { disk, dir, buf: Vec::new() }
    }

    /// Reads frames from `from` on, which is the place of a frame or the segment's beginning, until `bytes_max` bytes of
    /// records are there, or a batch after `durable`, or the end of the frames. At least one frame is read if there is
    /// one. A segment whose header is lost is read by the salt that its trailer or its frames name, as recovery does.
    pub fn read(&mut self, from: Pos, durable: u64, bytes_max: usize) -> io::Result<Fed> {
        let path = self.dir.join(segment_name(from.segment));
        let handle = self.disk.open(&path, Access::Read)?;
        let buf = std::mem::take(&mut self.buf);
        let mut file = SegmentFile::new(&self.disk, handle, SEGMENT_BYTES_MAX, buf)?;
        // A step takes a small part of the segment.
        file.read_ahead(BLOCK);
        let life = life(&mut file, from.segment);
        file.read_ahead(bytes_max);
        let fed = match life {
            // A trailer is written after the last batch is synced.
            Some((life, sealed)) => {
                let durable = if sealed { u64::MAX } else { durable };
                read_frames(&mut file, &life, from.offset as usize, durable, bytes_max)
            }
            None => Fed::default(),
        };
        self.buf = file.into_buf();
        Ok(fed)
    }
}

/// Which frames count, and whether the segment has a trailer.
fn life<D: Disk>(file: &mut SegmentFile<'_, D>, segment: u32) -> Option<(Life, bool)> {
    let Ok(header) = SegmentHeader::decode(file.bytes(0, BLOCK)) else {
        file.read_ahead(READ_BYTES);
        return Some((life_without_header(file, segment)?, false));
    };
    let bytes = (header.segment_bytes as usize).min(file.len);
    let trailer = file.bytes(bytes.checked_sub(TRAILER_BYTES)?, TRAILER_BYTES);
    let trailer = Trailer::decode(trailer, segment, header.salt, as_u32(bytes));
    let bytes = trailer.map_or(bytes, |trailer| trailer.data_end as usize);
    let frame_bytes_max = header.frame_bytes_max as usize;
    let life = Life { segment, salt: header.salt, bytes, frame_bytes_max };
    (header.segment == segment).then_some((life, trailer.is_some()))
}

fn read_frames<D: Disk>(
    file: &mut SegmentFile<'_, D>,
    life: &Life,
    from: usize,
    durable: u64,
    bytes_max: usize,
) -> Fed {
    let mut fed = Fed::default();
    let mut at = from.max(BLOCK) / BLOCK * BLOCK;
    let (mut last, mut passed) = (0, 0);
    while at + BLOCK <= life.bytes && last < durable {
        if fed.records.len() >= bytes_max {
            fed.next = Some(as_u32(at));
            break;
        }
        let Ok(header) = life.header(at, file.bytes(at, FRAME_HEADER_BYTES)) else {
            // The end, or rot. A step passes over so much of it; the next one goes on, unless this may be a segment that is
            // not begun.
            (at, passed) = (at + BLOCK, passed + BLOCK);
            if passed > 2 * life.frame_bytes_max {
                let begun = from > BLOCK || last > 0;
                fed.next = (begun && at + BLOCK <= life.bytes).then(|| as_u32(at));
                break;
            }
            continue;
        };
        passed = 0;
        if header.batch_no > durable {
            break;
        }
        // What is left of a batch that was given up has a number that was used again.
        if header.batch_no > last {
            last = header.batch_no;
            let body = file.bytes(at + FRAME_HEADER_BYTES, header.body_len as usize);
            let whole = header.is_body(body);
            let frame = FrameAt { header, offset: at, body, whole };
            let taken: Result<(), io::Error> = frame.records(&mut |_, record| {
                fed.records.extend_from_slice(record.unwrap_or_default());
                Ok(())
            });
            taken.expect("the sink does not fail");
        }
        at += header.frame_len();
    }
    fed
}
