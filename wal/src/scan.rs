//! Follows the frames of one segment and decides, at the first one that does not follow, what that means.
//!
//! A crash leaves a segment in three parts: frames that were synced, a frame that was written but perhaps not
//! synced, and noise. Only the first part was ever acknowledged. The second may be kept, because replaying a record
//! that nobody was promised is harmless; the third is overwritten. Rot in the first part must never pass for the
//! third: each frame says up to which batch everything was synced when it was built, so a later frame proves that
//! what stands in front of it was once whole.
//!
//! Invariants:
//! - I3: no frame at or below a proven durable mark is cut. A bad one is [`Verdict::Damaged`]: reported, kept, and
//!   stepped over; records in it that are whole by their own checksum still count.
//! - Frames of an earlier use of the file never count: each names the salt, the segment and the offset it was
//!   written for.
//! - A whole frame at the beginning of a segment counts, whatever its number: a batch that did not count at some start,
//!   because it was torn or the disk refused to read it, stays where it is if its segment is not filled further. Its number
//!   is used again, and the batch that counts may stand before or after it.
//! - Memory is bounded by one frame and one read, whatever a length field claims.
//!
//! Why a table: three states of a frame and five of what comes later have fifteen combinations, and the one that
//! nobody wrote down is where data is lost. [`TABLE`] lists them; `every_pattern_meets_exactly_one_row` counts.

use std::io;

use crate::BLOCK;
use crate::batch::{self, FRAME_HEADER_BYTES, FrameError, FrameHeader};
use crate::codec::{as_u32, block_up, u32_at};
use crate::disk::Disk;
use crate::footer::{BadEntry, Entries};
use crate::record::{self, CRC_BYTES, HEAD_BYTES, RECORD_BYTES_MAX, RecordError};
use crate::segment::Trailer;

/// Bytes of a read, at least.
pub(crate) const READ_BYTES: usize = 4 << 20;

/// What stands where the next frame should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// The next frame, whole.
    Good,
    /// Nothing of this use of the file: zeros, an earlier use, or the left-over of a batch that was given up.
    Nothing,
    /// A frame of this use that is not whole, or one that skips batches.
    Broken,
}

/// What the rest of the log says of the batch that should stand here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Later {
    /// No later frame, here or in a later segment.
    Silent,
    /// The next segment with frames begins with this batch, or with one before it: it does not count here.
    Continues,
    /// Later segments hold frames and begin with a later batch, but the next one is gone or holds none, so how this one
    /// ended is not known.
    Unknown,
    /// There are later frames, and none was built after this batch was synced.
    Unproven,
    /// A later frame was built after this batch was synced.
    Proven,
}

/// What a scan makes of a place where the next frame should stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The frame counts.
    Keep,
    /// The log ends here, and ended cleanly.
    EndOfLog,
    /// The log goes on in the next segment.
    EndOfSegment,
    /// The last write was cut off before it was synced; nobody was promised anything of it. It is overwritten.
    Torn,
    /// Something that was once synced is not whole: kept, reported, stepped over.
    Damaged,
}

/// One row of the table: a state of the frame, states of what comes later, and the verdict.
pub(crate) type Row = (Found, &'static [Later], Verdict);

/// Every combination, once.
pub(crate) const TABLE: &[Row] = {
    use Later::{Continues, Proven, Silent, Unknown, Unproven};
    &[
        (Found::Good, &[Silent, Continues, Unknown, Unproven, Proven], Verdict::Keep),
        (Found::Nothing, &[Silent], Verdict::EndOfLog),
        (Found::Nothing, &[Continues, Unknown], Verdict::EndOfSegment),
        (Found::Nothing, &[Unproven], Verdict::Torn),
        (Found::Nothing, &[Proven], Verdict::Damaged),
        (Found::Broken, &[Silent, Unproven], Verdict::Torn),
        (Found::Broken, &[Continues], Verdict::EndOfSegment),
        (Found::Broken, &[Unknown, Proven], Verdict::Damaged),
    ]
};

/// The verdict of the row that matches.
pub(crate) fn verdict(found: Found, later: Later) -> Verdict {
    let mut rows = TABLE.iter().filter(|row| row.0 == found && row.1.contains(&later));
    rows.next().expect("the table covers every pattern").2
}

/// A segment file being read, a window at a time. What cannot be read counts as zeros, and is remembered.
pub(crate) struct SegmentFile<'d, D: Disk> {
    disk: &'d D,
    pub(crate) file: D::File,
    pub(crate) len: usize,
    buf: Vec<u8>,
    start: usize,
    filled: usize,
    /// Bytes that a read takes at least.
    ahead: usize,
    /// Offsets of blocks that the disk refused to read.
    pub(crate) unreadable: Vec<u32>,
}

impl<'d, D: Disk> SegmentFile<'d, D> {
    pub(crate) fn new(disk: &'d D, file: D::File, max: usize, buf: Vec<u8>) -> io::Result<Self> {
        let len = usize::try_from(disk.len(&file)?).unwrap_or(usize::MAX).min(max);
        let (start, filled, ahead, unreadable) = (0, 0, READ_BYTES, Vec::new());
        Ok(Self { disk, file, len, buf, start, filled, ahead, unreadable })
    }

    /// Reads at least so many bytes at a time from now on, as far as the file has them, instead of what suits a file that
    /// is read whole.
    pub(crate) fn read_ahead(&mut self, bytes: usize) {
        self.ahead = bytes.min(self.len);
    }

    /// The buffer, for the next file.
    pub(crate) fn into_buf(self) -> Vec<u8> {
        self.buf
    }

    /// Makes what was written to the file durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.disk.sync(&self.file)
    }

    /// Reads a footer's entries into `into`; `false` if they are not whole, or not what a footer is made of.
    pub(crate) fn footer_entries(&self, trailer: &Trailer, into: &mut Vec<u8>) -> bool {
        let (start, len) = (trailer.entries_start as usize, trailer.entries_len as usize);
        if start + len > self.len {
            return false;
        }
        into.resize(len, 0);
        let read = read_full(self.disk, &self.file, start, into);
        let mut count = 0;
        let shaped = |entry: Result<(u32, &[u8]), BadEntry>| {
            count += 1;
            entry.is_ok_and(|(offset, prefix)| {
                prefix.len() >= HEAD_BYTES
                    && u64::from(offset) + u64::from(u32_at(prefix, 0))
                        <= u64::from(trailer.data_end)
            })
        };
        read.is_ok()
            && crc32c::crc32c(into) == trailer.entries_crc
            && Entries::new(into).all(shaped)
            && count == trailer.entries
    }

    /// The bytes at an offset; fewer than asked for only where the file ends.
    pub(crate) fn bytes(&mut self, at: usize, len: usize) -> &[u8] {
        let len = len.min(self.len.saturating_sub(at));
        if len == 0 {
            return &[];
        }
        if at < self.start || at + len > self.start + self.filled {
            self.fill(at, len);
        }
        &self.buf[at - self.start..at - self.start + len]
    }

    fn fill(&mut self, at: usize, len: usize) {
        self.start = at / BLOCK * BLOCK;
        self.filled = block_up((at + len - self.start).max(self.ahead)).min(self.len - self.start);
        if self.buf.len() < self.filled {
            self.buf = vec![0; self.filled];
        }
        if read_full(self.disk, &self.file, self.start, &mut self.buf[..self.filled]).is_ok() {
            return;
        }
        for (i, block) in self.buf[..self.filled].chunks_mut(BLOCK).enumerate() {
            let at = self.start + i * BLOCK;
            if read_full(self.disk, &self.file, at, block).is_err() {
                block.fill(0);
                let at = as_u32(at);
                if let Err(place) = self.unreadable.binary_search(&at) {
                    self.unreadable.insert(place, at);
                }
            }
        }
    }
}

/// Reads until `into` is full; bytes that the file lacks are an error.
pub(crate) fn read_full<D: Disk>(
    disk: &D,
    file: &D::File,
    at: usize,
    into: &mut [u8],
) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        match disk.read_at(file, (at + done) as u64, &mut into[done..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            some => done += some,
        }
    }
    Ok(())
}

/// The use of a segment file whose frames count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Life {
    pub(crate) segment: u32,
    pub(crate) salt: u64,
    /// Where the segment ends.
    pub(crate) bytes: usize,
    pub(crate) frame_bytes_max: usize,
}

impl Life {
    /// The header of a frame of this life that stands at `at`, if there is one.
    pub(crate) fn header(&self, at: usize, bytes: &[u8]) -> Result<FrameHeader, FrameError> {
        let header = FrameHeader::decode(bytes)?;
        let ours = header.salt == self.salt
            && header.segment == self.segment
            && header.offset as usize == at;
        if !ours {
            return Err(FrameError::NoMagic);
        }
        let len = header.frame_len();
        match len <= self.frame_bytes_max && len <= self.bytes - at {
            true => Ok(header),
            false => Err(FrameError::Shape),
        }
    }
}

/// The batch that should stand at the beginning of a segment or after a frame, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expected {
    pub(crate) batch_no: u64,
    /// The chain through the batch before it.
    pub(crate) chain: Option<u64>,
}

/// What later segments say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// No later segment holds a frame that counts. 0, or the durable mark of one that is torn.
    None { durable_upto: u64 },
    /// The next segment by number begins with this frame.
    Begins { batch_no: u64, durable_upto: u64 },
    /// The next segment by number is gone or holds no frame that counts; the next one that does begins with this batch.
    /// 0, or the durable mark of a torn frame between.
    Gap { batch_no: u64, durable_upto: u64 },
}

/// A part of a segment that was once whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hole {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// A frame that the scan hands out.
pub(crate) struct FrameAt<'a> {
    pub(crate) header: FrameHeader,
    pub(crate) offset: usize,
    pub(crate) body: &'a [u8],
    /// Whether the body is whole; else only records with a checksum of their own count.
    pub(crate) whole: bool,
}

/// A record's bytes, or why there are none.
pub(crate) type RecordBytes<'a> = Result<&'a [u8], RecordError>;

impl FrameAt<'_> {
    /// Goes through the records: each with its offset in the segment, and its bytes or why they are none.
    ///
    /// In a whole frame the frame's checksum covers the records. In another one a record counts by its own, and
    /// after one that is not whole the next is believed only where the length leads to it.
    pub(crate) fn records<E>(
        &self,
        each: &mut dyn FnMut(u32, RecordBytes<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        while at < self.body.len() {
            let rest = &self.body[at..];
            let offset = as_u32(self.offset + FRAME_HEADER_BYTES + at);
            let len = record_len(rest);
            let found = match (self.whole, len) {
                (true, Some(len)) => Ok(&rest[..len]),
                _ => record::checked_bytes(rest),
            };
            let lost = found.is_err();
            each(offset, found)?;
            match len {
                Some(len) => at += len,
                None => break,
            }
            if lost && record::checked_bytes(&self.body[at..]).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// The length field of the record at the beginning of `bytes`, if it is possible.
fn record_len(bytes: &[u8]) -> Option<usize> {
    let len = if bytes.len() < HEAD_BYTES { 0 } else { u32_at(bytes, 0) as usize };
    let most = bytes.len().min(RECORD_BYTES_MAX);
    (HEAD_BYTES + CRC_BYTES..=most).contains(&len).then_some(len)
}

/// How a scan ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scan {
    pub(crate) frames: u64,
    pub(crate) first_batch: u64,
    pub(crate) last_batch: u64,
    pub(crate) last_chain: u64,
    /// Where the frames end.
    pub(crate) end: usize,
    pub(crate) torn: bool,
    pub(crate) holes: Vec<Hole>,
}

impl Scan {
    /// The batch that the next segment begins with, from what stands in this one: `before` is what this one should have
    /// begun with. If its end is damaged, nothing is known of it.
    pub(crate) fn after(&self, life: &Life, before: Option<Expected>) -> Option<Expected> {
        if self.holes.last().is_some_and(|hole| hole.to >= life.bytes) {
            return None;
        }
        let follows = Expected { batch_no: self.last_batch + 1, chain: Some(self.last_chain) };
        if self.frames > 0 { Some(follows) } else { before }
    }
}

enum At {
    /// The next frame.
    Good(FrameHeader),
    Nothing,
    /// The header if it is whole and names the expected batch.
    Broken(Option<FrameHeader>),
    /// Whole, but batches are missing before it.
    Skips,
    /// At the beginning of a segment: not whole, and of a number that is too low.
    Old(FrameHeader),
}

/// What stands at an offset. `first`: it is the beginning of the segment.
fn at<D: Disk>(
    file: &mut SegmentFile<'_, D>,
    life: &Life,
    offset: usize,
    expected: Option<Expected>,
    first: bool,
) -> At {
    let header = match life.header(offset, file.bytes(offset, FRAME_HEADER_BYTES)) {
        Ok(header) => header,
        Err(FrameError::NoMagic) => return At::Nothing,
        Err(FrameError::Crc | FrameError::Version(_) | FrameError::Shape) => {
            return At::Broken(None);
        }
    };
    if expected.is_some_and(|expected| header.batch_no > expected.batch_no) {
        return At::Skips;
    }
    let is_old = expected.is_some_and(|expected| header.batch_no < expected.batch_no);
    if is_old && !first {
        return At::Nothing;
    }
    let body = file.bytes(offset + FRAME_HEADER_BYTES, header.body_len as usize);
    let is_whole = header.is_body(body);
    match expected.and_then(|expected| expected.chain) {
        _ if !is_whole && is_old => At::Old(header),
        _ if !is_whole => At::Broken(Some(header)),
        // A batch that was given up, written over in part, and met again: its number fits and its past does not.
        Some(before) if !first && batch::chain(before, body) != header.chain => At::Nothing,
        _ => At::Good(header),
    }
}

/// Follows the frames of one life of a segment. `sink` takes each frame that counts; its error ends the scan.
pub(crate) fn scan<D: Disk, E>(
    file: &mut SegmentFile<'_, D>,
    life: &Life,
    mut expected: Option<Expected>,
    next: Next,
    sink: &mut dyn FnMut(FrameAt<'_>) -> Result<(), E>,
) -> Result<Scan, E> {
    let mut scan = Scan { end: BLOCK, ..Scan::default() };
    let mut offset = BLOCK;
    while offset + BLOCK <= life.bytes {
        let first = offset == BLOCK;
        let found = at(file, life, offset, expected, first);
        let (state, broken) = match &found {
            At::Good(header) => {
                take(file, *header, offset, true, &mut scan, sink)?;
                offset += header.frame_len();
                expected = Some(follows(header));
                continue;
            }
            At::Nothing => (Found::Nothing, None),
            At::Broken(header) => (Found::Broken, *header),
            At::Skips => (Found::Broken, None),
            At::Old(header) => (Found::Nothing, Some(*header)),
        };
        let from = if matches!(found, At::Skips) { offset } else { offset + BLOCK };
        let missing = match (&found, expected) {
            (At::Broken(Some(header)), _) => Some(header.batch_no),
            (_, expected) => expected.map(|expected| expected.batch_no),
        };
        // Frames of one use are written one after the other, each after the sync of the one before: any later one proves
        // that the first was whole, whatever their numbers.
        let proven_by = if first { 0 } else { missing.unwrap_or(0) };
        let (later, resume) = look_ahead(file, life, from, (missing, proven_by), next);
        match verdict(state, later) {
            Verdict::Keep => unreachable!("only a good frame is kept"),
            Verdict::EndOfLog | Verdict::EndOfSegment => break,
            Verdict::Torn => {
                scan.torn = true;
                break;
            }
            Verdict::Damaged => {}
        }
        let to = match (broken, resume) {
            // The header is whole, so the next frame's place is known.
            (Some(header), _) => {
                take(file, header, offset, false, &mut scan, sink)?;
                expected = Some(follows(&header));
                offset + header.frame_len()
            }
            (None, Some((to, header))) => {
                expected = Some(Expected { batch_no: header.batch_no, chain: None });
                to
            }
            (None, None) => life.bytes,
        };
        scan.holes.push(Hole { from: offset, to });
        offset = to;
    }
    Ok(scan)
}

fn follows(header: &FrameHeader) -> Expected {
    Expected { batch_no: header.batch_no + 1, chain: Some(header.chain) }
}

fn take<D: Disk, E>(
    file: &mut SegmentFile<'_, D>,
    header: FrameHeader,
    offset: usize,
    whole: bool,
    scan: &mut Scan,
    sink: &mut dyn FnMut(FrameAt<'_>) -> Result<(), E>,
) -> Result<(), E> {
    if scan.frames == 0 {
        scan.first_batch = header.batch_no;
    }
    scan.frames += 1;
    scan.last_batch = header.batch_no;
    scan.last_chain = header.chain;
    scan.end = offset + header.frame_len();
    let body = file.bytes(offset + FRAME_HEADER_BYTES, header.body_len as usize);
    sink(FrameAt { header, offset, body, whole })
}

/// What later frames say of the batch that is missing, if its number is known, and the first later frame of this segment
/// that proves it: one that was built after the batch `proven_by` was synced.
fn look_ahead<D: Disk>(
    file: &mut SegmentFile<'_, D>,
    life: &Life,
    from: usize,
    (missing, proven_by): (Option<u64>, u64),
    next: Next,
) -> (Later, Option<(usize, FrameHeader)>) {
    let batch_no = missing.unwrap_or(0);
    let mut unproven = false;
    for offset in (from..life.bytes).step_by(BLOCK) {
        let Ok(header) = life.header(offset, file.bytes(offset, FRAME_HEADER_BYTES)) else {
            continue;
        };
        if header.batch_no >= proven_by {
            if header.durable_upto >= proven_by {
                return (Later::Proven, Some((offset, header)));
            }
            unproven = true;
        }
    }
    let (first, durable_upto) = match next {
        Next::None { durable_upto } => (None, durable_upto),
        Next::Gap { batch_no, durable_upto } | Next::Begins { batch_no, durable_upto } => {
            (Some(batch_no), durable_upto)
        }
    };
    let later = match next {
        Next::None { durable_upto: 0 } if unproven => Later::Unproven,
        Next::None { durable_upto: 0 } => Later::Silent,
        _ if missing.is_none() => Later::Unknown,
        _ if first.is_some_and(|first| first <= batch_no) => Later::Continues,
        _ if durable_upto >= batch_no => Later::Proven,
        Next::Gap { .. } => Later::Unknown,
        Next::None { .. } if !unproven => Later::Silent,
        Next::None { .. } | Next::Begins { .. } => Later::Unproven,
    };
    (later, None)
}

/// The first frame of a life within the first `within` bytes after the segment's header.
pub(crate) fn first_frame<D: Disk>(
    file: &mut SegmentFile<'_, D>,
    life: &Life,
    within: usize,
) -> Option<FrameHeader> {
    let end = life.bytes.min(BLOCK + within);
    (BLOCK..end)
        .step_by(BLOCK)
        .find_map(|offset| life.header(offset, file.bytes(offset, FRAME_HEADER_BYTES)).ok())
}

/// Whether the first frame that is left of a segment says what the segment begins with: it is whole, another one follows,
/// which was written after it was synced, or one stood before it.
pub(crate) fn counts<D: Disk>(
    file: &mut SegmentFile<'_, D>,
    life: &Life,
    header: &FrameHeader,
) -> bool {
    let at = header.offset as usize;
    if at > BLOCK || header.is_body(file.bytes(at + FRAME_HEADER_BYTES, header.body_len as usize)) {
        return true;
    }
    let next = at + header.frame_len();
    next < life.bytes && life.header(next, file.bytes(next, FRAME_HEADER_BYTES)).is_ok()
}

/// Whether what stands at an offset was a frame's header and is not whole.
pub(crate) fn is_rotten_frame<D: Disk>(file: &mut SegmentFile<'_, D>, offset: usize) -> bool {
    let header = FrameHeader::decode(file.bytes(offset, FRAME_HEADER_BYTES));
    header.is_err_and(|error| error != FrameError::NoMagic)
}

/// The salt of the frames that were written for this segment number: for a segment whose header is lost. Numbers
/// are never used again, so any such frame is of the present use.
pub(crate) fn salt_of_frames<D: Disk>(file: &mut SegmentFile<'_, D>, segment: u32) -> Option<u64> {
    (BLOCK..file.len).step_by(BLOCK).find_map(|offset| {
        let header = FrameHeader::decode(file.bytes(offset, FRAME_HEADER_BYTES)).ok()?;
        let ours = header.segment == segment && header.offset as usize == offset;
        ours.then_some(header.salt)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_meets_exactly_one_row() {
        use Later::{Continues, Proven, Silent, Unknown, Unproven};
        for found in [Found::Good, Found::Nothing, Found::Broken] {
            for later in [Silent, Continues, Unknown, Unproven, Proven] {
                let rows = TABLE.iter().filter(|row| row.0 == found && row.1.contains(&later));
                assert_eq!(rows.count(), 1, "{found:?} {later:?}");
            }
        }
    }

    #[test]
    fn a_header_counts_only_where_it_was_written_for() {
        let life = Life { segment: 3, salt: 9, bytes: 1 << 20, frame_bytes_max: 8192 };
        let ours = FrameHeader {
            salt: 9,
            segment: 3,
            offset: 4096,
            batch_no: 1,
            ..FrameHeader::default()
        };
        let at_4096 = |header: FrameHeader| {
            let mut bytes = [0; FRAME_HEADER_BYTES];
            header.encode_into(&mut bytes);
            life.header(4096, &bytes)
        };
        assert_eq!(at_4096(ours), Ok(ours));
        for other in [
            FrameHeader { salt: 8, ..ours },
            FrameHeader { segment: 2, ..ours },
            FrameHeader { offset: 8192, ..ours },
        ] {
            assert_eq!(at_4096(other), Err(FrameError::NoMagic));
        }
        assert_eq!(at_4096(FrameHeader { body_len: 8192, ..ours }), Err(FrameError::Shape));
    }

    #[test]
    fn the_document_has_the_same_table() {
        let document = include_str!("../../docs/WAL-FORMAT.md");
        let rows: Vec<&str> = document
            .lines()
            .skip_while(|line| !line.starts_with("| where the next frame should stand"))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .collect();
        assert_eq!(rows.len(), TABLE.len());
        for (row, (found, later, verdict)) in rows.iter().zip(TABLE) {
            let later: Vec<String> = later.iter().map(|later| format!("{later:?}")).collect();
            assert_eq!(*row, format!("| {found:?} | {} | {verdict:?} |", later.join(", ")));
        }
    }

    #[test]
    fn what_was_proven_durable_is_never_cut() {
        for (found, later, verdict) in TABLE {
            if later.contains(&Later::Proven) && *found != Found::Good {
                assert_eq!(*verdict, Verdict::Damaged);
            }
        }
    }
}
