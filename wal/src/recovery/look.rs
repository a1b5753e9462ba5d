//! A first look at each segment: header, trailer, and where its frames begin. Recovery and the tools share it.

use std::path::{Path, PathBuf};

use super::{Fault, FaultKind, Place, RecoverError, io_error, segment_name, segment_of_name};
use crate::BLOCK;
use crate::batch::FRAME_BYTES_MAX;
use crate::codec::{as_u32, block_up};
use crate::disk::{Access, Disk};
use crate::log::Ready;
use crate::scan::{self, Expected, Life, SegmentFile};
use crate::segment::{HeaderError, SEGMENT_BYTES_MAX, SegmentHeader, TRAILER_BYTES, Trailer};

/// A segment at first sight.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    /// The header, if it is whole.
    pub(crate) header: Option<SegmentHeader>,
    /// Which frames count; `None` if none can.
    pub(crate) life: Option<Life>,
    pub(crate) trailer: Option<Trailer>,
    /// The first batch in it and the durable mark of that batch's frame; `None` if it holds no frame that counts by itself.
    pub(crate) begins: Option<(u64, u64)>,
    /// Frames may stand in it all the same: the disk refused to read, or the only one is torn or has lost its header.
    pub(crate) may_hold: bool,
    /// The durable mark of that torn one, else 0.
    pub(crate) torn_durable_upto: u64,
    pub(crate) faults: Vec<Fault>,
}

impl Seen {
    /// The batch that it begins with: as the segment before leads to expect, else as its own trailer says.
    pub(crate) fn expected(&self, before: Option<Expected>) -> Option<Expected> {
        let of_trailer =
            self.trailer.map(|trailer| Expected { batch_no: trailer.first_batch, chain: None });
        before.or(of_trailer)
    }

    /// The segment as a prepared one.
    pub(crate) fn ready(&self) -> Option<Ready> {
        let life = self.life?;
        Some(Ready {
            segment: life.segment,
            salt: life.salt,
            bytes: as_u32(life.bytes),
            frame_bytes_max: as_u32(life.frame_bytes_max),
        })
    }
}

/// The numbers of the segments in a directory, ascending.
pub(crate) fn segments_in<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<u32>, RecoverError> {
    let names = disk.names(dir).map_err(io_error("list", dir))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment_of_name(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens a segment for reading; `buf` is the window's memory.
pub(crate) fn open<'d, D: Disk>(
    disk: &'d D,
    path: &Path,
    buf: &mut Vec<u8>,
) -> Result<SegmentFile<'d, D>, RecoverError> {
    let file = disk.open(path, Access::Read).map_err(io_error("open", path))?;
    let buf = std::mem::take(buf);
    SegmentFile::new(disk, file, SEGMENT_BYTES_MAX, buf).map_err(io_error("stat", path))
}

/// Reads header and trailer of a segment, and where its frames begin. `before` is the one looked at before it.
pub(crate) fn look_at<D: Disk>(
    disk: &D,
    dir: &Path,
    number: u32,
    before: Option<&Seen>,
    buf: &mut Vec<u8>,
) -> Result<Seen, RecoverError> {
    let path = dir.join(segment_name(number));
    let mut file = open(disk, &path, buf)?;
    let mut faults = Vec::new();
    let mut fault = |from: usize, to: usize, kind| {
        faults.push(Fault { segment: number, from: as_u32(from), to: as_u32(to), kind });
    };
    let (header, life) = match SegmentHeader::decode(file.bytes(0, BLOCK)) {
        Ok(header) if header.segment != number => {
            fault(0, BLOCK, FaultKind::Misnamed(header.segment));
            (Some(header), None)
        }
        Ok(header) => {
            let bytes = header.segment_bytes as usize;
            if file.len < bytes {
                fault(file.len, bytes, FaultKind::Short);
            }
            let frame_bytes_max = header.frame_bytes_max as usize;
            (
                Some(header),
                Some(Life { segment: number, salt: header.salt, bytes, frame_bytes_max }),
            )
        }
        Err(error @ (HeaderError::Version(..) | HeaderError::Features(_))) => {
            return Err(RecoverError::Format { path, error });
        }
        Err(error @ (HeaderError::NoMagic | HeaderError::Crc | HeaderError::Shape(_))) => {
            fault(0, BLOCK.min(file.len), FaultKind::Header(error));
            (None, life_without_header(&mut file, number))
        }
    };
    let trailer = life.and_then(|life| {
        let bytes = file.bytes(life.bytes - TRAILER_BYTES, TRAILER_BYTES);
        Trailer::decode(bytes, number, life.salt, as_u32(life.bytes))
    });
    let (mut may_hold, mut torn_durable_upto) = (false, 0);
    let begins = match (&trailer, &life) {
        (Some(trailer), _) => Some((trailer.first_batch, trailer.first_batch - 1)),
        (None, Some(life)) => {
            // If the very first frame is rotten, another one follows within the longest frame. If the segment before
            // is sealed, or something like a frame stands at the beginning, this one was begun, so a longer stretch of
            // nothing may be rot as well; else it would take too long to read every prepared segment to its end.
            let is_rotten = scan::is_rotten_frame(&mut file, BLOCK);
            let begun = before.is_some_and(|b| b.number + 1 == number && b.trailer.is_some());
            let within = if begun || is_rotten { life.bytes } else { 2 * life.frame_bytes_max };
            let first = scan::first_frame(&mut file, life, within);
            may_hold = first.is_some() || is_rotten;
            let counts = first.is_some_and(|first| scan::counts(&mut file, life, &first));
            torn_durable_upto = first.filter(|_| !counts).map_or(0, |first| first.durable_upto);
            first.filter(|_| counts).map(|first| {
                // Of one that is lost, what follows names the batch: each frame is written after the sync of the one before.
                let lost = u64::from(first.offset as usize > BLOCK && first.batch_no > 1);
                (first.batch_no - lost, first.durable_upto.saturating_sub(lost))
            })
        }
        (None, None) => None,
    };
    may_hold |= !file.unreadable.is_empty();
    *buf = file.into_buf();
    Ok(Seen { number, path, header, life, trailer, begins, may_hold, torn_durable_upto, faults })
}

/// What counts in a segment whose header is lost: numbers are never used again, so a trailer or a frame that was
/// written for this number tells the salt.
pub(crate) fn life_without_header<D: Disk>(
    file: &mut SegmentFile<'_, D>,
    number: u32,
) -> Option<Life> {
    // A file that was cut may end within the last frame's padding.
    let bytes = block_up(file.len);
    if bytes < 2 * BLOCK {
        return None;
    }
    let trailer = file.bytes(bytes - TRAILER_BYTES, TRAILER_BYTES);
    let of_trailer = Trailer::decode_any(trailer, number, as_u32(bytes)).map(|t| t.salt);
    let salt = of_trailer.or_else(|| scan::salt_of_frames(file, number))?;
    Some(Life { segment: number, salt, bytes, frame_bytes_max: FRAME_BYTES_MAX })
}

/// Refuses a segment of another cluster, node or partition.
pub(crate) fn refuse_foreign(seen: &Seen, place: &Place) -> Result<(), RecoverError> {
    let Some(header) = &seen.header else { return Ok(()) };
    let (found, wanted) = (header.owner, place.owner);
    if (found.cluster, found.node, found.log_id) == (wanted.cluster, wanted.node, wanted.log_id) {
        return Ok(());
    }
    let path = seen.path.clone();
    Err(RecoverError::Foreign { path, found: Box::new(found), wanted: Box::new(wanted) })
}
