//! Reads segment after segment, from its footer or by scanning it, and hands out what it finds.

use super::look::{self, Seen};
use super::refs::Refs;
use super::{Fault, FaultKind, Meta, MetaBody, RecoverError, Recovered, io_error};
use crate::codec::as_u32;
use crate::disk::Disk;
use crate::footer::{Entries, FooterBuilder};
use crate::log::{Active, Sealed};
use crate::record::{self, CRC_BYTES, HEAD_BYTES, Kind, MsgMeta, RawHead, RecordError};
use crate::scan::{self, Expected, FrameAt, Life, Next, SegmentFile};
use crate::segment::Trailer;
use crate::{BLOCK, Pos};

/// Recovery under way.
pub(super) struct Reading<'a, D: Disk> {
    disk: &'a D,
    on_record: &'a mut dyn FnMut(Meta<'_>),
    pub(super) out: Recovered,
    refs: Refs,
    /// The batch that the next segment should begin with.
    pub(super) expected: Option<Expected>,
    /// The scanned segment with the newest frames so far.
    tail: Option<Sealed>,
    buf: Vec<u8>,
    entries: Vec<u8>,
}

impl<'a, D: Disk> Reading<'a, D> {
    pub(super) fn new(disk: &'a D, on_record: &'a mut dyn FnMut(Meta<'_>), buf: Vec<u8>) -> Self {
        let (out, refs) = (Recovered::default(), Refs::default());
        Self { disk, on_record, out, refs, expected: None, tail: None, buf, entries: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Recovered {
        self.out.tail = self.tail.take().map(|tail| tail.active);
        // What is damaged may be a part of the checkpoint: then the segments before it are still needed.
        let faults = &self.out.faults;
        self.out.checkpoint =
            self.out.checkpoint.filter(|began| faults.iter().all(|fault| fault.segment < *began));
        self.refs.finish(&mut self.out.reclaim);
        self.out
    }

    pub(super) fn segment(&mut self, seen: &Seen, next: Next) -> Result<(), RecoverError> {
        let Some(life) = seen.life else {
            self.quarantine(seen.number, 0, seen.faults.clone());
            self.expected = None;
            return Ok(());
        };
        if seen.begins.is_none() && seen.faults.is_empty() && !seen.may_hold {
            self.without_frames(seen, next);
            return Ok(());
        }
        if let Some(trailer) = seen.trailer
            && self.footer(seen, &trailer)?
        {
            return Ok(());
        }
        self.scan(seen, &life, next)
    }

    fn quarantine(&mut self, segment: u32, data_end: usize, faults: Vec<Fault>) {
        self.seal_tail();
        self.out.reclaim.opened(segment);
        self.out.reclaim.sealed(segment, data_end as u64);
        self.out.reclaim.quarantine(segment);
        self.out.faults.extend(faults);
    }

    /// A later segment holds frames, or none may be added to this one: its footer is made up for. Nor is an empty segment
    /// before it filled: segments are used in the order of their numbers.
    fn seal_tail(&mut self) {
        for ready in self.out.unused.drain(..) {
            self.out.reclaim.opened_empty(ready.segment);
        }
        if let Some(tail) = self.tail.take() {
            let (segment, end) = (tail.active.ready.segment, tail.active.next);
            self.out.reclaim.sealed(segment, end as u64);
            self.out.unsealed.push(tail);
        }
    }

    /// A segment that no frame was ever synced to: it is still to be used, unless later ones are in use already.
    fn without_frames(&mut self, seen: &Seen, next: Next) {
        match seen.ready() {
            Some(ready) if matches!(next, Next::None { .. }) => self.out.unused.push(ready),
            _ => self.out.reclaim.opened_empty(seen.number),
        }
    }

    fn reached(&mut self, batch_no: u64, chain: u64, hlc_max: u64) {
        // The last segment says where the log goes on, also if an earlier one holds a batch with a higher number, which did
        // not count when this one was begun.
        (self.out.last_batch, self.out.last_chain) = (batch_no, chain);
        self.out.hlc_max = self.out.hlc_max.max(hlc_max);
        self.expected = Some(Expected { batch_no: batch_no + 1, chain: Some(chain) });
    }

    /// Hands out the records of a sealed segment from its footer; `false` if the footer is not whole.
    fn footer(&mut self, seen: &Seen, trailer: &Trailer) -> Result<bool, RecoverError> {
        if trailer.no_entries {
            return Ok(false);
        }
        let mut entries = std::mem::take(&mut self.entries);
        let mut file = look::open(self.disk, &seen.path, &mut self.buf)?;
        let whole = file.footer_entries(trailer, &mut entries);
        if whole {
            let mut handing = self.handing(seen);
            for (offset, prefix) in Entries::new(&entries).map_while(Result::ok) {
                handing.entry(offset, prefix, &mut file)?;
            }
            let mut faults = handing.faults;
            if self.expected.is_some_and(|expected| expected.batch_no < trailer.first_batch) {
                let (segment, at) = (seen.number, BLOCK as u32);
                faults.push(Fault { segment, from: at, to: at, kind: FaultKind::Gap });
            }
            if faults.is_empty() {
                self.seal_tail();
                self.out.reclaim.opened(seen.number);
                self.out.reclaim.sealed(seen.number, u64::from(trailer.data_end));
                self.out.reclaim.footer_written(seen.number);
            } else {
                self.quarantine(seen.number, trailer.data_end as usize, faults);
            }
            self.reached(trailer.last_batch, trailer.last_chain, trailer.hlc_max);
        }
        self.buf = file.into_buf();
        self.entries = entries;
        Ok(whole)
    }

    fn scan(&mut self, seen: &Seen, life: &Life, next: Next) -> Result<(), RecoverError> {
        let mut file = look::open(self.disk, &seen.path, &mut self.buf)?;
        // What was written but perhaps not synced is believed only after it is synced.
        file.sync().map_err(io_error("sync", &seen.path))?;
        let expected = seen.expected(self.expected);
        let mut handing = self.handing(seen);
        let scan = scan::scan(&mut file, life, expected, next, &mut |frame| handing.frame(&frame))?;
        let Handing { mut faults, footer, hlc_max, .. } = handing;
        faults.extend(holes(seen.number, &scan.holes));
        faults.extend(unreadable(seen.number, &file.unreadable));
        self.buf = file.into_buf();
        self.out.scanned.push(seen.number);
        if scan.torn {
            self.out.torn = Some(Pos { segment: seen.number, offset: as_u32(scan.end) });
        }
        if !faults.is_empty() {
            self.quarantine(seen.number, scan.end, faults);
        } else if scan.frames == 0 {
            self.without_frames(seen, next);
        } else if let Some(ready) = seen.ready() {
            self.seal_tail();
            self.out.reclaim.opened(seen.number);
            let first_batch = scan.first_batch;
            let active = Active { ready, next: scan.end, footer, first_batch, hlc_max };
            let (last_batch, last_chain) = (scan.last_batch, scan.last_chain);
            self.tail = Some(Sealed { active, last_batch, last_chain, waits_for: 0 });
            match seen.trailer {
                // It was full already, and there is nothing to write.
                Some(trailer) if trailer.no_entries && trailer.last_batch == last_batch => {
                    self.tail = None;
                    self.out.reclaim.sealed(seen.number, scan.end as u64);
                    self.out.reclaim.footer_written(seen.number);
                }
                // Only its footer is not whole.
                Some(_) => self.seal_tail(),
                None => {}
            }
        }
        match seen.trailer {
            // Whatever of it is damaged, the next segment goes on from there.
            Some(trailer) => self.reached(trailer.last_batch, trailer.last_chain, trailer.hlc_max),
            None => {
                let expected = scan.after(life, self.expected);
                if scan.frames > 0 {
                    self.reached(scan.last_batch, scan.last_chain, hlc_max);
                }
                self.expected = expected;
                // What was promised keeps its number, though it is lost: else nothing would tell that at the next start.
                if let (None, Next::None { durable_upto }) = (expected, next) {
                    self.out.last_batch = self.out.last_batch.max(durable_upto);
                }
            }
        }
        Ok(())
    }

    fn handing<'s>(&'s mut self, seen: &'s Seen) -> Handing<'s> {
        Handing {
            seen,
            on_record: self.on_record,
            refs: &mut self.refs,
            records: &mut self.out.records,
            skipped: &mut self.out.skipped,
            checkpoint: &mut self.out.checkpoint,
            faults: seen.faults.clone(),
            footer: FooterBuilder::new(seen.life.map_or(0, |life| life.bytes)),
            hlc_max: 0,
        }
    }
}

fn holes(segment: u32, holes: &[scan::Hole]) -> impl Iterator<Item = Fault> {
    holes.iter().map(move |hole| Fault {
        segment,
        from: as_u32(hole.from),
        to: as_u32(hole.to),
        kind: FaultKind::Frames,
    })
}

fn unreadable(segment: u32, blocks: &[u32]) -> impl Iterator<Item = Fault> {
    blocks.iter().map(move |block| Fault {
        segment,
        from: *block,
        to: *block + BLOCK as u32,
        kind: FaultKind::Unreadable,
    })
}

/// Hands out the records of one segment.
struct Handing<'s> {
    seen: &'s Seen,
    on_record: &'s mut dyn FnMut(Meta<'_>),
    refs: &'s mut Refs,
    records: &'s mut u64,
    skipped: &'s mut u64,
    checkpoint: &'s mut Option<u32>,
    faults: Vec<Fault>,
    footer: FooterBuilder,
    hlc_max: u64,
}

impl Handing<'_> {
    /// A record as a footer names it.
    fn entry<D: Disk>(
        &mut self,
        offset: u32,
        prefix: &[u8],
        file: &mut SegmentFile<'_, D>,
    ) -> Result<(), RecoverError> {
        let raw = RawHead::read(prefix);
        let meta = match raw.known() {
            Ok(Kind::Msg | Kind::Tomb) => meta(self.seen.number, offset, &raw, prefix),
            Ok(Kind::Dedup | Kind::Epoch | Kind::Mark | Kind::Checkpoint) => {
                let bytes = file.bytes(offset as usize, raw.len as usize);
                record::checked_bytes(bytes).and_then(|bytes| {
                    // A write that was lost leaves what an earlier use of the file wrote here: whole, and another record.
                    if !bytes.starts_with(prefix) {
                        let what = "another record stands where the footer names one";
                        return Err(RecordError::Malformed(what));
                    }
                    let body = &bytes[..bytes.len() - CRC_BYTES];
                    meta(self.seen.number, offset, &RawHead::read(bytes), body)
                })
            }
            Err(unknown) => Err(unknown),
        };
        self.hand_out(offset, raw.len, meta)
    }

    /// The records of a frame.
    fn frame(&mut self, frame: &FrameAt<'_>) -> Result<(), RecoverError> {
        frame.records(&mut |offset, found| match found {
            Ok(bytes) => {
                let raw = RawHead::read(bytes);
                let body = &bytes[..bytes.len() - CRC_BYTES];
                self.hlc_max = self.hlc_max.max(raw.head.hlc);
                self.footer.push(offset, record::footer_prefix(&raw, body));
                self.hand_out(offset, raw.len, meta(self.seen.number, offset, &raw, body))
            }
            Err(error) => self.hand_out(offset, 0, Err(error)),
        })
    }

    fn hand_out(
        &mut self,
        offset: u32,
        len: u32,
        meta: Result<Meta<'_>, RecordError>,
    ) -> Result<(), RecoverError> {
        match meta {
            Ok(meta) => {
                self.note_refs(&meta);
                *self.records += 1;
                (self.on_record)(meta);
            }
            Err(RecordError::Unknown { ignorable: true, .. }) => *self.skipped += 1,
            Err(RecordError::Unknown { kind, version, .. }) => {
                let path = self.seen.path.clone();
                return Err(RecoverError::UnknownRecord { path, offset, kind, version });
            }
            Err(error) => self.faults.push(Fault {
                segment: self.seen.number,
                from: offset,
                to: offset.saturating_add(len),
                kind: FaultKind::Record(error),
            }),
        }
        Ok(())
    }

    fn note_refs(&mut self, meta: &Meta<'_>) {
        let (segment, head) = (meta.pos.segment, &meta.head);
        match &meta.body {
            MetaBody::Msg(MsgMeta { copy, .. }) => {
                self.refs.msg(segment, head.shard, head.origin, head.seq, *copy);
            }
            MetaBody::Tomb(tomb) => {
                tomb.targets.runs().for_each(|run| self.refs.tomb(segment, head.shard, run));
            }
            MetaBody::Checkpoint(said) => {
                let began = if said.began == 0 { segment } else { said.began };
                // One that began later than it ended was never written by this code; it frees nothing.
                if began <= segment {
                    *self.checkpoint = Some(began);
                }
            }
            MetaBody::Dedup(_) | MetaBody::Epoch(_) | MetaBody::Mark(_) => {}
        }
    }
}

/// What `body`, a whole record without its checksum or the first bytes of a MSG, says.
fn meta<'b>(
    segment: u32,
    offset: u32,
    raw: &RawHead,
    body: &'b [u8],
) -> Result<Meta<'b>, RecordError> {
    let said = match raw.known()? {
        Kind::Msg => MetaBody::Msg(record::decode_msg_meta(raw, body)?),
        Kind::Tomb => MetaBody::Tomb(record::decode_tomb(body)?),
        Kind::Dedup => MetaBody::Dedup(&body[HEAD_BYTES..]),
        Kind::Epoch => MetaBody::Epoch(record::decode_epoch(body)?),
        Kind::Mark => MetaBody::Mark(record::decode_mark(body)?),
        Kind::Checkpoint => MetaBody::Checkpoint(record::decode_checkpoint(body)?),
    };
    Ok(Meta { pos: Pos { segment, offset }, len: raw.len, head: raw.head, body: said })
}
