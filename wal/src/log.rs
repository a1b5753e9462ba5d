//! The write side of a log: where a record goes, what is written next, what is durable.
//!
//! [`Log`] decides and touches neither file nor clock. The caller performs its [`Write`]s one at a time, in order:
//!
//! ```text
//! append() … append()      records join the open batch; each gets its final place at once
//! take_write()             closes the open batch: "whatever came while the last sync ran"
//!     (write + sync)
//! synced(write)            everything in that batch and before is durable: acknowledge it now, not earlier (I1)
//! ```
//!
//! Segments come in prepared ([`Log::wants_segments`], [`Log::add_segment`]) and their footers go out
//! ([`Log::take_footer`], [`Log::footer_written`]) beside the batches, so that no acknowledgement waits for either.
//!
//! Invariants:
//! - I1: `durable()` moves only in `synced`, and only by one write after the other.
//! - I6: a write that failed is never given back; the caller stops the node.
//! - I7: open batch, closed batches, recent window and ready segments are bounded by [`LogConfig`]; the footer in
//!   memory is bounded by its segment.
//! - A record's bytes are encoded once, in the buffer that is written.
//! - The reserve, the last prepared segments, is for what frees space ([`Use`]): on a full disk TOMBs still fit.

use std::collections::VecDeque;

use crate::batch::{self, FRAME_HEADER_BYTES, FrameHeader};
use crate::buffer::AlignedBuf;
use crate::codec::{as_u32, block_up};
use crate::footer::{ENTRY_HEAD_BYTES, FooterBuilder, FooterWrite};
use crate::reclaim::Reclaim;
use crate::record::{
    Body, FROM_BYTES_MAX, Head, MSG_RECIPIENTS_MAX, Mark, Msg, RECORD_BYTES_MAX, Record, Tomb,
};
use crate::recovery::Recovered;
use crate::segment::Trailer;
use crate::targets::TARGETS_MAX;
use crate::window::Window;
use crate::{BLOCK, Pos};

mod reports;

/// The bounds of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// Bytes of a frame, header and padding included, at most; a multiple of [`BLOCK`].
    pub frame_bytes_max: usize,
    /// Batches that wait for a write, at most, besides the open one and the one being written.
    pub closed_batches_max: usize,
    /// Bytes of written batches kept in memory.
    pub window_bytes: usize,
    /// Prepared segments to hold ready.
    pub ready_segments: usize,
    /// Of those, how many are kept for records that free space.
    pub reserve_segments: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            frame_bytes_max: 1 << 20,
            closed_batches_max: 4,
            window_bytes: 16 << 20,
            ready_segments: 2,
            reserve_segments: 1,
        }
    }
}

/// A prepared segment: header written, zeroed or recycled, synced, and listed in its directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// Its number; each one higher than the last.
    pub segment: u32,
    /// The salt in its header.
    pub salt: u64,
    /// Bytes of the file.
    pub bytes: u32,
    /// The longest frame that its header allows.
    pub frame_bytes_max: u32,
}

/// Why a record was not appended. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// The next prepared segment is not there yet, or only the reserve is; try again when it is.
    #[error("no prepared segment is ready")]
    NoSegment,
    /// Only the reserve is left, and this is a new message.
    #[error("the disk is nearly full")]
    LowDisk,
    /// All batch buffers wait for the disk.
    #[error("the disk is behind")]
    Full,
    /// The record passes a bound of the format or of the configuration; it never fits.
    #[error("the record is too large")]
    TooLarge,
}

/// What a record may use of the last prepared segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    /// New messages: not the reserve; and nothing while the disk is low and the reserve is not whole.
    Message,
    /// What frees space, or must be said: everything.
    Frees,
    /// What can wait: nothing while the reserve is not whole.
    Upkeep,
}

/// A closed batch on its way to disk.
#[derive(Debug)]
pub struct Write {
    segment: u32,
    offset: u32,
    batch_no: u64,
    records: u32,
    body_len: usize,
    buf: AlignedBuf,
}

impl Write {
    /// The segment to write to.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// Where in the segment's file; a multiple of [`BLOCK`].
    pub fn offset(&self) -> u64 {
        u64::from(self.offset)
    }

    /// The batch; everything up to it is durable once this write is synced.
    pub fn batch_no(&self) -> u64 {
        self.batch_no
    }

    /// How many records it holds.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Its records, back to back.
    pub fn body(&self) -> &[u8] {
        &self.buf.as_slice()[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.body_len]
    }

    /// What to write: aligned memory, whole blocks.
    pub fn bytes(&self) -> &[u8] {
        self.buf.as_slice()
    }
}

#[derive(Debug)]
struct Batch {
    segment: u32,
    salt: u64,
    offset: usize,
    batch_no: u64,
    records: u32,
    /// Some of its records are copies, whose messages may be delivered before it is synced.
    has_copies: bool,
    buf: AlignedBuf,
}

impl Batch {
    fn end(&self) -> usize {
        self.offset + block_up(self.buf.len())
    }

    fn holds(&self, pos: Pos, len: usize) -> Option<&[u8]> {
        let skip = (pos.offset as usize).checked_sub(self.offset)?;
        let fits = pos.segment == self.segment && skip + len <= self.buf.len();
        fits.then(|| &self.buf.as_slice()[skip..skip + len])
    }
}

/// The segment that is being filled.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) ready: Ready,
    /// Where the next batch begins.
    pub(crate) next: usize,
    pub(crate) footer: FooterBuilder,
    pub(crate) first_batch: u64,
    pub(crate) hlc_max: u64,
}

impl Active {
    fn new(ready: Ready) -> Self {
        let footer = FooterBuilder::new(ready.bytes as usize);
        Self { ready, next: BLOCK, footer, first_batch: 0, hlc_max: 0 }
    }

    /// Whether frames up to `end` and a footer with `entry` more bytes fit.
    fn fits(&self, end: usize, entry: usize) -> bool {
        end + self.footer.footer_len(entry) <= self.ready.bytes as usize
    }

    /// The same for entries of up to that many bytes.
    fn fits_any(&self, end: usize, entry: usize) -> bool {
        end + self.footer.footer_len_max(entry) <= self.ready.bytes as usize
    }
}

/// A full segment whose footer waits for the last batch to be synced.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) active: Active,
    pub(crate) last_batch: u64,
    pub(crate) last_chain: u64,
    /// Once this batch is synced, all of it is; 0 if that is so since the start.
    pub(crate) waits_for: u64,
}

/// The write side of one log.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    active: Option<Active>,
    ready: VecDeque<Ready>,
    low_disk: bool,
    open: Option<Batch>,
    closed: VecDeque<Batch>,
    in_flight: Option<u64>,
    /// The batch being written, if it holds copies: where it begins, and its bytes.
    copies_in_flight: Option<(Pos, Vec<u8>)>,
    pool: Vec<AlignedBuf>,
    sealed: VecDeque<Sealed>,
    /// The number of the batch opened last.
    batch_no: u64,
    durable: u64,
    chain: u64,
    /// Whether the last batch holds more than an idle MARK: then rot in it would look like a torn tail.
    uncovered: bool,
    window: Window,
    reclaim: Reclaim,
    /// Where the dedup checkpoint under way began; it begins with its first record.
    checkpoint: Option<u32>,
    /// Completing a dedup checkpoint is what frees space now.
    checkpoint_frees: bool,
}

impl Log {
    /// A log that goes on where recovery ended; for an empty directory that is the beginning.
    ///
    /// The tail segment is filled further, unless it was prepared for another frame length.
    pub fn resume(config: LogConfig, recovered: Recovered) -> Self {
        assert!(config.frame_bytes_max.is_multiple_of(BLOCK), "frames are whole blocks");
        assert!(config.frame_bytes_max <= batch::FRAME_BYTES_MAX, "the format bounds frames");
        assert!(config.reserve_segments <= config.ready_segments, "the reserve is ready");
        let mut log = Self {
            config,
            active: None,
            ready: VecDeque::new(),
            low_disk: false,
            open: None,
            closed: VecDeque::new(),
            in_flight: None,
            copies_in_flight: None,
            pool: Vec::new(),
            sealed: recovered.unsealed.into(),
            batch_no: recovered.last_batch,
            durable: recovered.last_batch,
            chain: recovered.last_chain,
            uncovered: recovered.last_batch > 0,
            window: Window::new(config.window_bytes),
            reclaim: recovered.reclaim,
            checkpoint: None,
            checkpoint_frees: false,
        };
        log.reclaim.durable(log.durable);
        if let Some(began) = recovered.checkpoint {
            log.reclaim.checkpoint_began(began);
            log.reclaim.checkpoint_complete(log.durable);
        }
        if let Some(tail) = recovered.tail {
            log.active = Some(tail);
            if log.active.as_ref().is_some_and(|tail| !log.usable(&tail.ready)) {
                log.seal();
            }
        }
        // Segments are used in the order of their numbers: what lies below one that cannot be filled is not filled either.
        let mut unused = recovered.unused;
        let passed = unused.iter().rposition(|ready| !log.usable(ready)).map_or(0, |last| last + 1);
        for ready in unused.drain(..passed) {
            log.reclaim.opened_empty(ready.segment);
        }
        log.ready.extend(unused);
        log
    }

    fn usable(&self, ready: &Ready) -> bool {
        ready.frame_bytes_max as usize == self.config.frame_bytes_max
    }

    /// Appends a record to the open batch. Its place is final; it is durable once [`Self::durable`] reaches the
    /// batch that [`Self::lsn`] names right after this call.
    ///
    /// Costs a bounds check, a copy and a checksum; it allocates only when a footer chunk or a batch buffer fills up.
    pub fn append(&mut self, record: &Record<'_>) -> Result<Pos, AppendError> {
        self.append_with(record, record.encoded_len(), |out| record.encode_into(out))
    }

    /// As [`Self::append`], of a record whose bytes are there already and stay what they are.
    pub fn append_encoded(
        &mut self,
        record: &Record<'_>,
        bytes: &[u8],
    ) -> Result<Pos, AppendError> {
        self.append_with(record, bytes.len(), |out| out.copy_from_slice(bytes))
    }

    fn append_with(
        &mut self,
        record: &Record<'_>,
        len: usize,
        put: impl FnOnce(&mut [u8]),
    ) -> Result<Pos, AppendError> {
        let prefix = record.prefix_len(len);
        let entry = ENTRY_HEAD_BYTES + prefix;
        let usage = self.usage(&record.body);
        if !self.is_within_bounds(record, len) {
            return Err(AppendError::TooLarge);
        }
        let whole = self.ready.len() >= self.config.reserve_segments;
        match usage {
            Use::Message if self.low_disk && !whole => return Err(AppendError::LowDisk),
            Use::Upkeep if !whole => return Err(AppendError::NoSegment),
            Use::Message | Use::Upkeep | Use::Frees => {}
        }
        if !self.fits_open_batch(len, entry) {
            self.open_batch(len, entry, usage)?;
        }
        let batch = self.open.as_mut().expect("a batch was opened or had room");
        let active = self.active.as_mut().expect("an open batch lies in the active segment");
        let at = batch.buf.len();
        let out = batch.buf.extend(len);
        put(out);
        let offset = as_u32(batch.offset + at);
        active.footer.push(offset, &out[..prefix]);
        active.hlc_max = active.hlc_max.max(record.head.hlc);
        batch.records += 1;
        batch.has_copies |= matches!(record.body, Body::Msg(Msg { copy: true, .. }));
        self.uncovered = true;
        let segment = batch.segment;
        if matches!(record.body, Body::Dedup(_)) && self.checkpoint.is_none() {
            self.checkpoint = Some(segment);
            self.reclaim.checkpoint_began(segment);
        }
        Ok(Pos { segment, offset })
    }

    fn usage(&self, body: &Body<'_>) -> Use {
        match body {
            Body::Msg(Msg { copy: false, .. }) => Use::Message,
            Body::Tomb(_) | Body::Epoch(_) => Use::Frees,
            // What is known must be said before a peer may be greeted, also on a full disk.
            Body::Mark(Mark { vv, .. }) if !vv.is_empty() => Use::Frees,
            Body::Dedup(_) | Body::Checkpoint(_) if self.checkpoint_frees => Use::Frees,
            Body::Msg(_) | Body::Dedup(_) | Body::Checkpoint(_) | Body::Mark(_) => Use::Upkeep,
        }
    }

    /// The batch of the record appended last.
    pub fn lsn(&self) -> u64 {
        self.batch_no
    }

    /// The batch up to which everything is synced.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Whether a record waits for a write or for a sync.
    pub fn is_idle(&self) -> bool {
        self.durable == self.batch_no
    }

    /// Whether the next message or TOMB can be appended without [`AppendError::Full`] or [`AppendError::NoSegment`],
    /// however long it is. Who asks before taking work in refuses none of it. On a full disk there is always room: then
    /// refusing is right.
    pub fn has_room(&self) -> bool {
        let frame = self.config.frame_bytes_max;
        let has_batch = self.closed.len() < self.config.closed_batches_max;
        let reserve = if self.active.is_some() { self.config.reserve_segments } else { 0 };
        let has_segment = self.low_disk || self.ready.len() > reserve || self.active_fits(frame);
        has_batch && has_segment
    }

    /// Whether a frame of this length, with as long a footer entry, still goes into the segment being filled.
    fn active_fits(&self, frame: usize) -> bool {
        self.active.as_ref().is_some_and(|active| {
            let next = self.open.as_ref().map_or(active.next, Batch::end);
            active.fits_any(next + frame, frame)
        })
    }

    /// Whether records wait for a write to be taken.
    pub fn has_unwritten(&self) -> bool {
        !self.closed.is_empty() || self.open.is_some()
    }

    /// Appends an empty MARK if nothing else is under way and the last batch holds data; `true` if it did.
    ///
    /// Rot in the very last frame of a log looks like a torn tail. A later frame that says "durable up to there"
    /// makes it visible; this is that frame for a log that went quiet. Call it some milliseconds after the last
    /// sync.
    pub fn idle_mark(&mut self, head: Head) -> Result<bool, AppendError> {
        if !self.is_idle() || !self.uncovered {
            return Ok(false);
        }
        let mark = Mark { heartbeat_hlc: head.hlc, vv: &[] };
        self.append(&Record { head: Head { seq: 0, ..head }, body: Body::Mark(mark) })?;
        self.uncovered = false;
        Ok(true)
    }

    fn is_within_bounds(&self, record: &Record<'_>, len: usize) -> bool {
        let shaped = match &record.body {
            Body::Msg(msg) => {
                msg.recipients.len() <= 16 * MSG_RECIPIENTS_MAX && msg.from.len() <= FROM_BYTES_MAX
            }
            Body::Tomb(Tomb { targets, .. }) => targets.len() <= TARGETS_MAX,
            Body::Dedup(_) | Body::Epoch(_) | Body::Mark(_) | Body::Checkpoint(_) => true,
        };
        shaped && len <= RECORD_BYTES_MAX.min(self.config.frame_bytes_max - FRAME_HEADER_BYTES)
    }

    fn fits_open_batch(&self, len: usize, entry: usize) -> bool {
        let (Some(batch), Some(active)) = (&self.open, &self.active) else { return false };
        let len = batch.buf.len() + len;
        len <= self.config.frame_bytes_max && active.fits(batch.offset + block_up(len), entry)
    }

    /// Closes the open batch if there is one and opens the next, in the next segment if need be.
    fn open_batch(&mut self, len: usize, entry: usize, usage: Use) -> Result<(), AppendError> {
        let frame = block_up(FRAME_HEADER_BYTES + len);
        let begins = self.open.as_ref().map(Batch::end);
        let fits = self
            .active
            .as_ref()
            .is_some_and(|active| active.fits(begins.unwrap_or(active.next) + frame, entry));
        if !fits {
            self.may_roll(frame, entry, usage)?;
        }
        if self.open.is_some() && self.closed.len() >= self.config.closed_batches_max {
            return Err(AppendError::Full);
        }
        self.close();
        if !fits {
            self.seal();
            let ready = self.ready.pop_front().expect("may_roll saw one");
            self.reclaim.opened(ready.segment);
            self.active = Some(Active::new(ready));
        }
        let active = self.active.as_mut().expect("there was one, or one was made just now");
        self.batch_no += 1;
        if active.first_batch == 0 {
            active.first_batch = self.batch_no;
        }
        let mut buf =
            self.pool.pop().unwrap_or_else(|| AlignedBuf::new(self.config.frame_bytes_max));
        buf.clear();
        buf.extend(FRAME_HEADER_BYTES).fill(0);
        self.open = Some(Batch {
            segment: active.ready.segment,
            salt: active.ready.salt,
            offset: active.next,
            batch_no: self.batch_no,
            records: 0,
            has_copies: false,
            buf,
        });
        Ok(())
    }

    fn may_roll(&self, frame: usize, entry: usize, usage: Use) -> Result<(), AppendError> {
        let keeps = match usage {
            // The very first segment may be filled before the reserve is prepared: a node is ready sooner.
            Use::Message => self.active.is_some() || self.low_disk,
            Use::Upkeep => true,
            Use::Frees => false,
        };
        let reserve = if keeps { self.config.reserve_segments } else { 0 };
        let Some(next) = self.ready.front().filter(|_| self.ready.len() > reserve) else {
            return Err(match usage == Use::Message && self.low_disk {
                true => AppendError::LowDisk,
                false => AppendError::NoSegment,
            });
        };
        match Active::new(*next).fits(BLOCK + frame, entry) {
            true => Ok(()),
            false => Err(AppendError::TooLarge),
        }
    }

    fn close(&mut self) {
        if let Some(batch) = self.open.take() {
            let active = self.active.as_mut().expect("an open batch lies in the active segment");
            active.next = batch.end();
            self.closed.push_back(batch);
        }
    }

    /// Seals the active segment; its batches may still wait for their writes.
    fn seal(&mut self) {
        if let Some(active) = self.active.take() {
            self.reclaim.sealed(active.ready.segment, active.next as u64);
            // `chain` is that of the last batch taken; `take_write` sets the right one if more are to come.
            let (last_batch, last_chain) = (self.batch_no, self.chain);
            self.sealed.push_back(Sealed { active, last_batch, last_chain, waits_for: last_batch });
        }
    }

    /// The next batch to write, if none is being written: closes the open one if nothing older waits.
    pub fn take_write(&mut self) -> Option<Write> {
        if self.in_flight.is_some() {
            return None;
        }
        if self.closed.is_empty() {
            self.close();
        }
        let mut batch = self.closed.pop_front()?;
        let body_len = batch.buf.len() - FRAME_HEADER_BYTES;
        let body = &batch.buf.as_slice()[FRAME_HEADER_BYTES..];
        self.chain = batch::chain(self.chain, body);
        let header = FrameHeader {
            body_len: as_u32(body_len),
            records: batch.records,
            salt: batch.salt,
            batch_no: batch.batch_no,
            durable_upto: self.durable,
            chain: self.chain,
            segment: batch.segment,
            offset: as_u32(batch.offset),
            body_crc: crc32c::crc32c(body),
        };
        header.encode_into(batch.buf.as_mut_slice());
        batch.buf.pad_to_block();
        let of_sealed = self.sealed.iter_mut().find(|sealed| sealed.waits_for == batch.batch_no);
        if let Some(sealed) = of_sealed {
            sealed.last_chain = self.chain;
        }
        self.in_flight = Some(batch.batch_no);
        let begins = Pos { segment: batch.segment, offset: as_u32(batch.offset) };
        self.copies_in_flight = batch.has_copies.then(|| (begins, batch.buf.as_slice().to_vec()));
        Some(Write {
            segment: batch.segment,
            offset: as_u32(batch.offset),
            batch_no: batch.batch_no,
            records: batch.records,
            body_len,
            buf: batch.buf,
        })
    }

    /// The write and its sync are done: its batch and all before it are durable.
    pub fn synced(&mut self, write: Write) {
        assert_eq!(self.in_flight.take(), Some(write.batch_no), "writes come back one by one (I1)");
        self.copies_in_flight = None;
        self.durable = write.batch_no;
        self.reclaim.durable(self.durable);
        let pos = Pos { segment: write.segment, offset: write.offset };
        self.window.push(pos, &write.buf.as_slice()[..FRAME_HEADER_BYTES + write.body_len]);
        if self.pool.len() <= self.config.closed_batches_max {
            self.pool.push(write.buf);
        }
    }

    /// The bytes of a record that is still in memory: in a batch to be written, or among those written last. Of the batch
    /// being written only copies are found: their messages are durable where they were copied from, and the file may
    /// hold anything at their new place until the write is done.
    pub fn recent(&self, pos: Pos, len: u32) -> Option<&[u8]> {
        let len = len as usize;
        let in_flight = self.copies_in_flight.as_ref().and_then(|(begins, bytes)| {
            let skip = pos.offset.checked_sub(begins.offset)? as usize;
            let here = begins.segment == pos.segment;
            if here { bytes.get(skip..skip + len) } else { None }
        });
        self.window.get(pos, len).or(in_flight).or_else(|| {
            self.closed.iter().chain(&self.open).find_map(|batch| batch.holds(pos, len))
        })
    }

    /// How many prepared segments to bring.
    pub fn wants_segments(&self) -> usize {
        let active = usize::from(self.active.is_none());
        (self.config.ready_segments + active).saturating_sub(self.ready.len())
    }

    /// Prepared segments that wait.
    pub fn ready_segments(&self) -> usize {
        self.ready.len()
    }

    /// Takes a prepared segment.
    pub fn add_segment(&mut self, ready: Ready) {
        let last = self.ready.back().or(self.active.as_ref().map(|active| &active.ready));
        assert!(last.is_none_or(|last| last.segment < ready.segment), "segment numbers only grow");
        assert!(self.usable(&ready), "segments are prepared for this log's frames");
        self.ready.push_back(ready);
    }

    /// Whether the disk has too little space for further segments: then new messages are refused once the segment
    /// being filled would eat into the reserve.
    pub fn set_low_disk(&mut self, low_disk: bool) {
        self.low_disk = low_disk;
    }

    /// The footer of a sealed segment all of whose batches are synced, to be written beside the batches.
    pub fn take_footer(&mut self) -> Option<FooterWrite> {
        self.sealed.front().filter(|sealed| sealed.waits_for <= self.durable)?;
        let Sealed { active, last_batch, last_chain, .. } = self.sealed.pop_front()?;
        let trailer = Trailer {
            segment: active.ready.segment,
            salt: active.ready.salt,
            data_end: as_u32(active.next),
            first_batch: active.first_batch,
            last_batch,
            last_chain,
            hlc_max: active.hlc_max,
            ..Trailer::default()
        };
        Some(active.footer.finish(trailer, active.ready.bytes))
    }

    /// A footer is written and synced.
    pub fn footer_written(&mut self, footer: FooterWrite) {
        assert!(footer.next_chunk().is_none(), "every chunk of the footer is written");
        self.reclaim.footer_written(footer.segment());
    }
}
