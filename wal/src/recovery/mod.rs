//! What a restart finds: reads footers of sealed segments, scans the rest, and says where the log goes on.
//!
//! Nothing is changed on disk here, except that what was written but perhaps not synced is synced before it is
//! believed. Damage never stops a start: a faulty range is reported and kept, its segment is quarantined, and the
//! log goes on in a fresh one. What does stop a start is a log that this program cannot understand or that belongs
//! to somebody else.
//!
//! Records are handed out in the order of the log, with all that the core needs and without payloads. Replaying is
//! idempotent and order does not matter to the core (I4): a message may be handed out twice, as itself and as a
//! copy.

use std::io;
use std::path::{Path, PathBuf};

use crate::Pos;
use crate::disk::{Disk, next_step};
use crate::log::{Active, Ready, Sealed};
use crate::reclaim::Reclaim;
use crate::record::{Checkpoint, Epoch, Head, Mark, MsgMeta, RecordError, Tomb};
use crate::scan::{Expected, Next};
use crate::segment::{HeaderError, Owner};

pub(crate) mod look;
mod read;
mod refs;
use look::Seen;
use read::Reading;

/// Where a log lies and whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The directory of the segment files.
    pub dir: PathBuf,
    /// Cluster, node and log that every segment must name; the incarnation is not compared.
    pub owner: Owner,
}

/// A record as recovery hands it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta<'a> {
    /// Where it stands.
    pub pos: Pos,
    /// Bytes of the whole record.
    pub len: u32,
    /// Shard, identity and time.
    pub head: Head,
    /// What recovery needs of it.
    pub body: MetaBody<'a>,
}

/// What recovery needs of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetaBody<'a> {
    /// A message, without sender's name and payload.
    Msg(MsgMeta<'a>),
    /// A removal.
    Tomb(Tomb<'a>),
    /// A part of a dedup checkpoint.
    Dedup(&'a [u8]),
    /// A change of the pair's mode.
    Epoch(Epoch<'a>),
    /// What was known of other streams.
    Mark(Mark<'a>),
    /// The end of a dedup checkpoint.
    Checkpoint(Checkpoint),
}

/// What is wrong with a part of a log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FaultKind {
    /// The segment's header is not usable.
    #[error("the segment's header is unusable: {0}")]
    Header(HeaderError),
    /// The file has another number in its header than in its name.
    #[error("the header says segment {0}")]
    Misnamed(u32),
    /// The file is shorter than its header says.
    #[error("the file ends too early")]
    Short,
    /// Frames that were once synced are not whole.
    #[error("frames that were synced are not whole")]
    Frames,
    /// A record that was once synced is not whole.
    #[error("a record is not whole: {0}")]
    Record(RecordError),
    /// The disk refuses to read.
    #[error("the disk refuses to read")]
    Unreadable,
    /// The segment does not begin with the batch that follows the segment before.
    #[error("batches are missing before this segment")]
    Gap,
}

/// A part of a log that is not as it was written. It is kept as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The segment.
    pub segment: u32,
    /// The first faulty byte of the file.
    pub from: u32,
    /// The first byte after the faulty ones.
    pub to: u32,
    /// What is wrong.
    pub kind: FaultKind,
}

/// What recovery found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The number of the newest batch that counts; 0 in an empty log.
    pub last_batch: u64,
    /// The chain through it.
    pub last_chain: u64,
    /// The newest HLC of any record.
    pub hlc_max: u64,
    /// How many records were handed out.
    pub records: u64,
    /// The lowest segment number that was never used.
    pub next_segment: u32,
    /// Whatever is damaged.
    pub faults: Vec<Fault>,
    /// Where a torn tail begins, if there is one; it is overwritten.
    pub torn: Option<Pos>,
    /// Segments that were scanned because they had no whole footer, the tail included.
    pub scanned: Vec<u32>,
    /// Records of unknown types that say they may be skipped.
    pub skipped: u64,
    /// The segment where the last complete dedup checkpoint began, if one is there and whole: dedup needs nothing older. The
    /// caller takes it away if it could not use a DEDUP record.
    pub checkpoint: Option<u32>,
    pub(crate) tail: Option<Active>,
    pub(crate) unused: Vec<Ready>,
    pub(crate) unsealed: Vec<Sealed>,
    pub(crate) reclaim: Reclaim,
}

/// Why a log cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The operating system refused.
    #[error("failed to {what} {path}: {error}; {}", next_step(error))]
    Io { what: &'static str, path: PathBuf, error: io::Error },
    /// A segment is of a format that this program does not know.
    #[error("{path} cannot be read by this version: {error}; start the version that wrote it")]
    Format { path: PathBuf, error: HeaderError },
    /// A segment belongs to another cluster, node or partition.
    #[error(
        "{path} belongs to another log: it names {found:?}, this is {wanted:?}; put it back where it came from"
    )]
    Foreign { path: PathBuf, found: Box<Owner>, wanted: Box<Owner> },
    /// A record has a type that this program does not know and may not skip.
    #[error(
        "{path} holds a record of type {kind} version {version} at byte {offset}, which this \
         version does not know and may not skip; start the version that wrote it"
    )]
    UnknownRecord { path: PathBuf, offset: u32, kind: u8, version: u8 },
}

/// The name of a segment's file.
pub fn segment_name(segment: u32) -> String {
    format!("{segment:08x}.seg")
}

/// The number in the name of a segment's file: 1 to 2^32 - 2.
pub fn segment_of_name(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let plain = digits.len() == 8 && digits.bytes().all(|b| b"0123456789abcdef".contains(&b));
    let number = if plain { u32::from_str_radix(digits, 16).ok()? } else { 0 };
    (1..u32::MAX).contains(&number).then_some(number)
}

/// Reads the log in `place` and hands every record to `on_record`, in the order of the log.
pub fn recover<D: Disk>(
    disk: &D,
    place: &Place,
    on_record: &mut dyn FnMut(Meta<'_>),
) -> Result<Recovered, RecoverError> {
    disk.sync_dir(&place.dir).map_err(io_error("sync", &place.dir))?;
    let numbers = look::segments_in(disk, &place.dir)?;
    let mut buf = Vec::new();
    let mut segments: Vec<Seen> = Vec::with_capacity(numbers.len());
    for number in numbers {
        let seen = look::look_at(disk, &place.dir, number, segments.last(), &mut buf)?;
        look::refuse_foreign(&seen, place)?;
        segments.push(seen);
    }
    let mut reading = Reading::new(disk, on_record, buf);
    reading.out.next_segment = segments.last().map_or(1, |seen| seen.number + 1);
    for (i, seen) in segments.iter().enumerate() {
        if !follows(&segments, i) {
            reading.expected = None;
        } else if i == 0 {
            reading.expected = Some(Expected { batch_no: 1, chain: Some(0) });
        }
        reading.segment(seen, next_of(&segments, i))?;
    }
    Ok(reading.finish())
}

/// Whether the segment before, if there was one, is still there: segments are reclaimed in any order, so batches
/// follow only from one number to the next.
pub(crate) fn follows(segments: &[Seen], i: usize) -> bool {
    let before = if i == 0 { 0 } else { segments[i - 1].number };
    before + 1 == segments[i].number
}

/// What the trailer of this segment and the segments after it say.
pub(crate) fn next_of(segments: &[Seen], i: usize) -> Next {
    if let Some(trailer) = &segments[i].trailer {
        // A footer is written after the last batch is synced, and the next batch went to the next segment.
        let durable_upto = trailer.last_batch;
        return Next::Begins { batch_no: durable_upto + 1, durable_upto };
    }
    // What a torn batch says of the ones before it is so; they stand here if no segment between may hold them.
    let (mut durable_upto, mut number, mut is_next) = (0, segments[i].number, true);
    for later in &segments[i + 1..] {
        is_next &= later.number == number + 1;
        match later.begins {
            Some((batch_no, durable_upto)) if later.number == segments[i].number + 1 => {
                return Next::Begins { batch_no, durable_upto };
            }
            Some((batch_no, _)) => return Next::Gap { batch_no, durable_upto },
            None if is_next => durable_upto = durable_upto.max(later.torn_durable_upto),
            None => {}
        }
        is_next &= !later.may_hold && later.faults.is_empty();
        number = later.number;
    }
    Next::None { durable_upto }
}

pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecoverError {
    move |error| RecoverError::Io { what, path: path.to_path_buf(), error }
}
