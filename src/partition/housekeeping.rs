//! What a log needs besides appending: prepared segments, footers, checkpoints, reclaim. A little each turn.

use super::rewrite::Rewrite;
use super::{Failed, Partition};
use crate::metrics::{DropReason, Label, SegmentState};
use iris_proto::core::CheckpointCursor;
use iris_proto::id::ShardId;
use iris_wal::Ready;
use iris_wal::reclaim::SegmentUse;
use std::time::{Duration, Instant};

/// Segments filled between two checkpoints of the dedup state: it bounds how long dead segments are kept for the sake
/// of the ids in them.
const SEGMENTS_PER_CHECKPOINT: u32 = 8;
/// Bytes that a checkpoint takes for each sender, besides 16 for each id; and what frames and a small one take.
const CHECKPOINT_SENDER_BYTES: u64 = 36;
const CHECKPOINT_SPARE_BYTES: u64 = 16 << 10;
/// Memory of one message in an inbox's index, with its share of the slab's spare room.
const INBOX_ENTRY_BYTES: u64 = 30;
/// How often the disk's free space is asked for, and gauges are set.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Quiet time after which the last batch gets a MARK behind it, so that rot in it cannot pass for a torn tail.
const MARK_AFTER: Duration = Duration::from_millis(20);

pub(super) struct Housekeeping {
    last_segment: u32,
    preparing: bool,
    prepare_after: Instant,
    /// Why the last segment wanted could not be prepared.
    no_segment: Option<String>,
    has_past: bool,
    pub rewrite: Rewrite,
    disk_reserve: u64,
    dropping: bool,
    checkpoint: Option<CheckpointCursor>,
    /// All parts are written, and the record that says so is not.
    checkpoint_end: bool,
    /// The newest segment when the last checkpoint began.
    checkpoint_segment: u32,
    looked: Instant,
    wrote: Instant,
    pub rewrite_looked: Instant,
}

impl Housekeeping {
    pub(super) fn new(disk_reserve: u64, past: Past, now: Instant) -> Self {
        Self {
            last_segment: past.last_segment,
            preparing: false,
            prepare_after: now,
            no_segment: None,
            has_past: past.has_records,
            rewrite: Rewrite::Idle,
            disk_reserve,
            dropping: false,
            checkpoint: None,
            checkpoint_end: false,
            checkpoint_segment: past.checkpoint.unwrap_or(0),
            looked: now,
            wrote: now,
            rewrite_looked: now,
        }
    }
}

/// What recovery found of earlier lives.
pub(super) struct Past {
    /// The highest segment number given out; 0: none.
    pub last_segment: u32,
    /// Where the last complete checkpoint began.
    pub checkpoint: Option<u32>,
    /// Whether there is any record.
    pub has_records: bool,
}

impl Partition {
    pub(super) fn keep_house(&mut self) -> bool {
        self.disk.hurry(!self.fx.log.has_room());
        let mut worked = self.supply_segments();
        while let Some(footer) = self.fx.log.take_footer() {
            self.disk.write_footer(footer);
            worked = true;
        }
        worked |= self.checkpoint_some();
        worked |= self.rewrite_some();
        let now = self.clock.instant();
        if !self.fx.log.is_idle() {
            self.housekeeping.wrote = now;
        } else if now - self.housekeeping.wrote > MARK_AFTER {
            let head = self.fx.head_outside_streams(ShardId(0));
            worked |= self.fx.log.idle_mark(head).unwrap_or(false);
        }
        if now - self.housekeeping.looked >= LOOK_EVERY {
            self.housekeeping.looked = now;
            self.disk.ask_space();
            self.reclaim();
            self.free_by_checkpoint();
            self.set_gauges();
            self.look_at_mirror();
        }
        worked
    }

    fn supply_segments(&mut self) -> bool {
        let house = &mut self.housekeeping;
        let now = self.clock.instant();
        if house.preparing || self.fx.log.wants_segments() == 0 || now < house.prepare_after {
            return false;
        }
        house.preparing = true;
        self.disk.prepare(self.clock.unix_ms() << 16);
        true
    }

    /// A segment was prepared.
    pub(super) fn prepared(&mut self, ready: Ready) {
        self.housekeeping.preparing = false;
        self.housekeeping.no_segment = None;
        self.housekeeping.last_segment = ready.segment;
        self.fx.log.add_segment(ready);
    }

    /// There was no room for a segment; it is tried again later.
    pub(super) fn not_prepared(&mut self, why: String) {
        self.housekeeping.preparing = false;
        if self.housekeeping.no_segment.is_none() {
            // Once, and not at each new try.
            tracing::warn!(%why, "no segment prepared");
        }
        self.housekeeping.no_segment = Some(why);
        self.housekeeping.prepare_after = self.clock.instant() + LOOK_EVERY;
        self.space(self.fx.wal_metrics.disk_free_bytes.value());
    }

    /// Whether clients can be served; `None` while that is being found out. A log with a past is served also on a full
    /// disk, for those who read what is in it.
    pub(super) fn readiness(&self) -> Option<Result<(), Failed>> {
        if self.fx.log.wants_segments() < 2 {
            return Some(Ok(()));
        }
        let why = self.housekeeping.no_segment.as_ref()?;
        if self.housekeeping.has_past {
            return Some(Ok(()));
        }
        Some(Err(Failed::Because(format!(
            "{why}; make room on that disk, or lower wal.disk_reserve"
        ))))
    }

    fn checkpoint_some(&mut self) -> bool {
        if self.housekeeping.checkpoint_end {
            let head = self.fx.head_outside_streams(ShardId(0));
            let (fx, core) = (&mut self.fx, &mut self.core);
            let marked = match &mut self.mirror {
                None => true,
                Some(mirror) => mirror.replica.checkpoint(fx, core).is_ok(),
            };
            let ended = marked && self.fx.log.checkpoint_complete(head).is_ok();
            self.housekeeping.checkpoint_end = !ended;
            return ended;
        }
        let house = &mut self.housekeeping;
        let Some(cursor) = house.checkpoint.take() else {
            let filled = house.last_segment.saturating_sub(house.checkpoint_segment);
            if filled < SEGMENTS_PER_CHECKPOINT {
                return false;
            }
            self.begin_checkpoint();
            return true;
        };
        match self.core.checkpoint(&mut self.fx, cursor) {
            Ok(Some(next)) => self.housekeeping.checkpoint = Some(next),
            Ok(None) => self.housekeeping.checkpoint_end = true,
            Err(_) => {
                self.housekeeping.checkpoint = Some(cursor);
                return false;
            }
        }
        true
    }

    fn begin_checkpoint(&mut self) {
        let house = &mut self.housekeeping;
        house.checkpoint_segment = house.last_segment;
        house.checkpoint = Some(CheckpointCursor::default());
        self.fx.log.checkpoint_began();
    }

    /// On a full disk, completes a checkpoint for the sake of the segments that only wait for it. It may use the reserve if
    /// it fits in there, and it must free more than it takes: it will be dead bytes itself one day.
    fn free_by_checkpoint(&mut self) {
        let gauges = self.core.gauges();
        let bytes = CHECKPOINT_SENDER_BYTES * gauges.senders + 16 * gauges.dedup_ids;
        let bytes = bytes + bytes / 4 + CHECKPOINT_SPARE_BYTES;
        let frees = self.fx.low_disk
            && self.fx.log.reclaim().waiting_for_checkpoint() >= 2 * bytes
            && self.fx.log.room_bytes() as u64 >= bytes;
        self.fx.log.set_checkpoint_frees(frees);
        let house = &self.housekeeping;
        if frees && house.checkpoint.is_none() && !house.checkpoint_end {
            self.begin_checkpoint();
        }
    }

    fn reclaim(&mut self) {
        if self.housekeeping.dropping {
            return;
        }
        let mirror = self.mirror.as_ref().map(|mirror| &mirror.replica);
        let droppable = self.fx.log.droppable();
        let may_go = |segment: &&u32| mirror.is_none_or(|of| of.may_drop(&self.core, **segment));
        if let Some(segment) = droppable.iter().find(may_go) {
            self.housekeeping.dropping = true;
            self.disk.forget(*segment);
        }
    }

    pub(super) fn dropped(&mut self, segment: u32) {
        self.fx.log.dropped(segment);
        if let Some(mirror) = &mut self.mirror {
            mirror.replica.segment_dropped(segment);
        }
        self.fx.wal_metrics.reclaimed_segments.add(1);
        self.housekeeping.dropping = false;
        self.reclaim();
    }

    pub(super) fn space(&mut self, free: u64) {
        // Where no segment can be made, there is no room for messages, whatever the file system says of free bytes.
        let low = free < self.housekeeping.disk_reserve || self.housekeeping.no_segment.is_some();
        let was_low = self.fx.wal_metrics.low_disk.value() == 1;
        if low != was_low {
            let reserve = self.housekeeping.disk_reserve;
            tracing::warn!(
                event = "disk_space",
                free,
                reserve,
                low,
                "disk space: sends are refused while it is low"
            );
        }
        self.fx.wal_metrics.disk_free_bytes.set(free);
        self.fx.wal_metrics.low_disk.set(u64::from(low));
        self.fx.low_disk = low;
        self.fx.log.set_low_disk(low);
    }

    pub(super) fn set_gauges(&self) {
        let gauges = self.core.gauges();
        let counters = self.core.counters();
        let metrics = &self.metrics;
        metrics.users.set(u64::from(gauges.users));
        metrics.users_online.set(u64::from(gauges.online));
        metrics.inbox_messages.set(u64::from(gauges.entries));
        metrics.senders.set(gauges.senders);
        metrics.dedup_ids.set(gauges.dedup_ids);
        metrics.dedup_room.set(gauges.dedup_cost);
        metrics.watches.set(u64::from(gauges.watches));
        metrics.sends.set(counters.appended);
        metrics.duplicates.set(counters.duplicates);
        metrics.acked.set(counters.acked);
        metrics.logins.set(counters.logins);
        metrics.stale_inputs.set(counters.stale_inputs);
        metrics.acks_put_off.set(counters.acks_put_off);
        metrics.receipts_dropped.set(counters.receipts_dropped + self.fx.receipts_dropped);
        metrics.watches_refused.set(counters.watches_refused);
        metrics.clock_steps_back.set(counters.clock_steps_back);
        metrics.inbox_bytes.set(u64::from(gauges.entries) * INBOX_ENTRY_BYTES);
        metrics.inbox_content_bytes.set(gauges.inbox_bytes);
        metrics.fullest_messages.set(u64::from(gauges.fullest.messages));
        metrics.fullest_bytes.set(gauges.fullest.bytes);
        metrics.dropped[DropReason::Expired.index()].set(counters.expired);
        metrics.dropped[DropReason::InboxFull.index()].set(counters.displaced);
        let backlog = self.fx.links.backlog_bytes() as u64;
        metrics.link_backlog_bytes.set(backlog);
        self.set_segment_gauges();
    }

    fn set_segment_gauges(&self) {
        let wal = &self.fx.wal_metrics;
        let (mut live, mut counts) = (0, [0; SegmentState::ALL.len()]);
        for segment in self.fx.log.reclaim().segments() {
            live += segment.live_bytes;
            counts[state_of(&segment).index()] += 1;
        }
        counts[SegmentState::Ready.index()] = self.fx.log.ready_segments() as u64;
        wal.live_bytes.set(live);
        for (state, count) in SegmentState::ALL.iter().zip(counts) {
            wal.segments_in(*state).set(count);
        }
    }
}

fn state_of(segment: &SegmentUse) -> SegmentState {
    match segment {
        SegmentUse { quarantined: true, .. } => SegmentState::Quarantined,
        SegmentUse { sealed: false, .. } => SegmentState::Active,
        SegmentUse { footer_written: false, .. } => SegmentState::Sealing,
        SegmentUse { .. } => SegmentState::Sealed,
    }
}
