//! Goes through logs, frame by frame, for all tools alike. Frames are what was written; footers are only compared.

use std::io;
use std::path::Path;

use serde_json::json;

use super::{LogAt, Out, Summary, logs_in};
use crate::Pos;
use crate::batch::FrameHeader;
use crate::codec::as_u32;
use crate::disk::Disk;
use crate::footer::Entries;
use crate::io::RealDisk;
use crate::record::{self, CRC_BYTES, RawHead, Record, RecordError};
use crate::recovery::look::{self, Seen};
use crate::recovery::{Fault, FaultKind, follows, next_of};
use crate::scan::{self, Expected, FrameAt, Life, Scan, SegmentFile};

/// What a walk meets, in the order of the log.
pub(super) enum Event<'a> {
    /// A whole frame, or one whose header is whole.
    Frame(&'a FrameHeader),
    /// A record, or why there is none.
    Record { at: Pos, batch_no: u64, bytes: &'a [u8], record: Result<Record<'a>, RecordError> },
    /// A segment is done.
    Segment { seen: &'a Seen, scan: &'a Scan, footer: Footer },
    /// Something is damaged.
    Fault(&'a Fault),
    /// The log ends in a torn batch.
    Torn(Pos),
}

/// What a segment's footer is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Footer {
    /// There, and it says what the frames say.
    Whole,
    /// Not there, or not whole: the segment is scanned at a restart. No damage.
    Missing,
    /// Whole, and it does not say what the frames say.
    Wrong,
}

impl Footer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Missing => "missing",
            Self::Wrong => "wrong",
        }
    }
}

/// Takes what a walk meets.
pub(super) type Visitor<'v> = dyn FnMut(&LogAt, Event<'_>, &mut Out<'_>) -> io::Result<()> + 'v;

/// Walks through every log below `dir`, and counts.
pub(super) fn walk(dir: &Path, out: &mut Out<'_>, visit: &mut Visitor<'_>) -> io::Result<Summary> {
    let mut summary = Summary::default();
    let logs = match logs_in(dir) {
        Ok(logs) => logs,
        Err(error) => {
            refuse(out, dir, &error.to_string())?;
            summary.unreadable = 1;
            return Ok(summary);
        }
    };
    if logs.is_empty() {
        refuse(out, dir, "there is no log in it")?;
    }
    for log in &logs {
        summary.logs += 1;
        LogWalk { log, out, visit, summary: &mut summary, buf: Vec::new() }.run()?;
    }
    Ok(summary)
}

fn refuse(out: &mut Out<'_>, path: &Path, why: &str) -> io::Result<()> {
    let value = json!({"kind": "unreadable", "path": path.to_string_lossy(), "why": why});
    out.say(&value, &|| format!("cannot read {}: {why}", path.display()))
}

struct LogWalk<'w, 'o, 'v> {
    log: &'w LogAt,
    out: &'w mut Out<'o>,
    visit: &'w mut Visitor<'v>,
    summary: &'w mut Summary,
    buf: Vec<u8>,
}

impl LogWalk<'_, '_, '_> {
    fn tell(&mut self, event: Event<'_>) -> io::Result<()> {
        match &event {
            Event::Frame(_) => self.summary.frames += 1,
            Event::Record { record: Ok(_), .. } => self.summary.records += 1,
            Event::Record { record: Err(RecordError::Unknown { ignorable, .. }), .. } => {
                self.summary.unreadable += u64::from(!ignorable);
            }
            Event::Record { record: Err(_), .. } => {}
            Event::Segment { .. } => self.summary.segments += 1,
            Event::Fault(_) => self.summary.faults += 1,
            Event::Torn(_) => self.summary.torn += 1,
        }
        (self.visit)(self.log, event, self.out)
    }

    fn run(mut self) -> io::Result<()> {
        let dir = &self.log.dir;
        let numbers = match look::segments_in(&RealDisk, dir) {
            Ok(numbers) => numbers,
            Err(error) => {
                self.summary.unreadable += 1;
                return refuse(self.out, dir, &error.to_string());
            }
        };
        let mut segments: Vec<Seen> = Vec::with_capacity(numbers.len());
        for number in numbers {
            match look::look_at(&RealDisk, dir, number, segments.last(), &mut self.buf) {
                Ok(seen) => segments.push(seen),
                Err(error) => {
                    self.summary.unreadable += 1;
                    refuse(self.out, dir, &error.to_string())?;
                }
            }
        }
        let mut expected = None;
        for i in 0..segments.len() {
            let before = match (follows(&segments, i), i) {
                (true, 0) => Some(Expected { batch_no: 1, chain: Some(0) }),
                (true, _) => expected,
                (false, _) => None,
            };
            expected = self.segment(&segments, i, before)?;
        }
        Ok(())
    }

    /// Walks through one segment; returns the batch that the next one should begin with.
    fn segment(
        &mut self,
        segments: &[Seen],
        i: usize,
        before: Option<Expected>,
    ) -> io::Result<Option<Expected>> {
        let seen = &segments[i];
        for fault in &seen.faults {
            self.tell(Event::Fault(fault))?;
        }
        let Some(life) = &seen.life else { return Ok(None) };
        let mut file = match look::open(&RealDisk, &seen.path, &mut self.buf) {
            Ok(file) => file,
            Err(error) => {
                self.summary.unreadable += 1;
                refuse(self.out, &self.log.dir, &error.to_string())?;
                return Ok(None);
            }
        };
        let expected = seen.expected(before);
        let mut footer = FooterCheck::new(&file, seen, before);
        let next = next_of(segments, i);
        let mut sink = |frame: FrameAt<'_>| self.frame(seen.number, &frame, &mut footer);
        let scan = scan::scan(&mut file, life, expected, next, &mut sink)?;
        footer.finish(seen, &scan);
        self.ends(seen, life, &scan, &file, &footer)?;
        self.buf = file.into_buf();
        let after = |batch, chain| Some(Expected { batch_no: batch + 1, chain: Some(chain) });
        Ok(match seen.trailer {
            Some(trailer) => after(trailer.last_batch, trailer.last_chain),
            None => scan.after(life, before),
        })
    }

    fn ends(
        &mut self,
        seen: &Seen,
        life: &Life,
        scan: &Scan,
        file: &SegmentFile<'_, RealDisk>,
        footer: &FooterCheck,
    ) -> io::Result<()> {
        let segment = seen.number;
        for hole in &scan.holes {
            let (from, to) = (as_u32(hole.from), as_u32(hole.to.min(life.bytes)));
            self.tell(Event::Fault(&Fault { segment, from, to, kind: FaultKind::Frames }))?;
        }
        for block in &file.unreadable {
            let (from, to) = (*block, *block + crate::BLOCK as u32);
            self.tell(Event::Fault(&Fault { segment, from, to, kind: FaultKind::Unreadable }))?;
        }
        for fault in &footer.faults {
            self.tell(Event::Fault(fault))?;
        }
        if scan.torn {
            self.tell(Event::Torn(Pos { segment, offset: as_u32(scan.end) }))?;
        }
        self.tell(Event::Segment { seen, scan, footer: footer.state })
    }

    fn frame(
        &mut self,
        segment: u32,
        frame: &FrameAt<'_>,
        footer: &mut FooterCheck,
    ) -> io::Result<()> {
        self.tell(Event::Frame(&frame.header))?;
        let batch_no = frame.header.batch_no;
        let mut records = 0;
        frame.records(&mut |offset, found| {
            records += 1;
            let at = Pos { segment, offset };
            // In a whole frame the walk led here by lengths alone; the record's own checksum is looked at too.
            let record = found.and_then(|bytes| Ok((bytes, record::decode(bytes)?.0)));
            let (bytes, record) = match record {
                Ok((bytes, record)) => (bytes, Ok(record)),
                Err(error) => (found.unwrap_or_default(), Err(error)),
            };
            footer.record(offset, bytes);
            if let Err(error) = &record
                && !matches!(error, RecordError::Unknown { .. })
            {
                let kind = FaultKind::Record(*error);
                // Where a record that is not whole ends, only its frame can tell.
                let end = found.map_or(frame.offset + frame.header.frame_len(), |whole| {
                    offset as usize + whole.len()
                });
                let to = as_u32(end);
                self.tell(Event::Fault(&Fault { segment, from: offset, to, kind }))?;
            }
            self.tell(Event::Record { at, batch_no, bytes, record })
        })?;
        if frame.whole && records != frame.header.records {
            let kind = FaultKind::Record(RecordError::Malformed(
                "the frame does not hold as many records as its header says",
            ));
            let (from, to) =
                (as_u32(frame.offset), as_u32(frame.offset + frame.header.frame_len()));
            self.tell(Event::Fault(&Fault { segment, from, to, kind }))?;
        }
        Ok(())
    }
}

/// Compares a footer with the records of its segment.
struct FooterCheck {
    entries: Vec<u8>,
    /// The trailer says that there are none.
    no_entries: bool,
    /// Bytes of `entries` already met.
    met: usize,
    state: Footer,
    faults: Vec<Fault>,
}

impl FooterCheck {
    fn new<D: Disk>(file: &SegmentFile<'_, D>, seen: &Seen, before: Option<Expected>) -> Self {
        let mut entries = Vec::new();
        let whole = seen.trailer.is_some_and(|trailer| file.footer_entries(&trailer, &mut entries));
        let state = if whole { Footer::Whole } else { Footer::Missing };
        let no_entries = seen.trailer.is_some_and(|trailer| trailer.no_entries);
        let mut check = Self { entries, no_entries, met: 0, state, faults: Vec::new() };
        if let (Some(trailer), Some(before)) = (&seen.trailer, before)
            && trailer.first_batch > before.batch_no
        {
            check.fault(seen.number, crate::BLOCK as u32, FaultKind::Gap);
        }
        check
    }

    fn fault(&mut self, segment: u32, at: u32, kind: FaultKind) {
        self.faults.push(Fault { segment, from: at, to: at, kind });
    }

    fn record(&mut self, offset: u32, bytes: &[u8]) {
        if self.state != Footer::Whole || self.no_entries || bytes.len() < CRC_BYTES {
            return;
        }
        let body = &bytes[..bytes.len() - CRC_BYTES];
        let wanted = (offset, record::footer_prefix(&RawHead::read(bytes), body));
        match Entries::new(&self.entries[self.met..]).next() {
            Some(Ok(entry)) if entry == wanted => {
                self.met += crate::footer::ENTRY_HEAD_BYTES + entry.1.len();
            }
            _ => self.state = Footer::Wrong,
        }
    }

    fn finish(&mut self, seen: &Seen, scan: &Scan) {
        let Some(trailer) = &seen.trailer else { return };
        let ended = (scan.last_batch, scan.end) == (trailer.last_batch, trailer.data_end as usize);
        // A footer that names more than the frames hold is right, and the frames are damaged: that is said already.
        let missing = self.met < self.entries.len() && scan.holes.is_empty();
        if self.state == Footer::Whole && (missing || !ended && scan.holes.is_empty()) {
            self.state = Footer::Wrong;
        }
        if self.state == Footer::Wrong && scan.holes.is_empty() {
            let what = RecordError::Malformed("the footer does not say what the frames say");
            self.fault(seen.number, trailer.entries_start, FaultKind::Record(what));
        }
    }
}
