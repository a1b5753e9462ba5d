//! What the caller reports to a log besides appending, and what it asks: inbox entries, checkpoints, reclaim, room.

use super::{AppendError, Log};
use crate::reclaim::{Reclaim, Threshold};
use crate::record::{Body, Checkpoint, Head, Record};
use crate::{BLOCK, Pos};

impl Log {
    /// An inbox entry points to the record at `pos`; say so in the turn in which the record is appended.
    pub fn entry_added(&mut self, pos: Pos, len: u32) {
        self.reclaim.entry_added(pos, len);
    }

    /// An inbox entry no longer points there, because of a TOMB appended in this turn.
    pub fn entry_removed(&mut self, pos: Pos, len: u32) {
        self.reclaim.entry_removed(pos, len, self.batch_no);
    }

    /// An inbox entry points to a copy appended in this turn.
    pub fn entry_moved(&mut self, from: (Pos, u32), to: (Pos, u32)) {
        self.reclaim.entry_moved(from, to, self.batch_no);
    }

    /// The record at `other` has the dot of the one at `kept`, which the inbox points to: a TOMB outlives both.
    pub fn entry_repeated(&mut self, kept: Pos, other: Pos) {
        self.reclaim.copied(other.segment, kept.segment);
    }

    /// A TOMB in segment `tomb` names a message in segment `target`.
    pub fn tomb_refers(&mut self, tomb: u32, target: u32) {
        self.reclaim.tomb_refers(tomb, target);
    }

    /// A dedup checkpoint of every shard begins; its first record says where. The records of an unfinished one are
    /// forgotten.
    pub fn checkpoint_began(&mut self) {
        self.checkpoint = None;
    }

    /// The checkpoint's last record was appended: says so in the log, for the lives to come. It counts once that is synced.
    pub fn checkpoint_complete(&mut self, head: Head) -> Result<(), AppendError> {
        let body = Body::Checkpoint(Checkpoint { began: self.checkpoint.unwrap_or(0) });
        let end = self.append(&Record { head: Head { seq: 0, ..head }, body })?;
        if self.checkpoint.take().is_none() {
            self.reclaim.checkpoint_began(end.segment);
        }
        self.reclaim.checkpoint_complete(self.batch_no);
        Ok(())
    }

    /// Whether completing a checkpoint is what frees space now: then its records may use the reserve. Who says so has seen
    /// that it fits ([`Self::room_bytes`]) and that it frees more ([`Reclaim::waiting_for_checkpoint`]).
    pub fn set_checkpoint_frees(&mut self, frees: bool) {
        self.checkpoint_frees = frees;
    }

    /// Bytes of frames and footers that the prepared segments and the one being filled still take, about.
    pub fn room_bytes(&self) -> usize {
        let active = self.active.as_ref().map_or(0, |active| {
            let next = self.open.as_ref().map_or(active.next, super::Batch::end);
            (active.ready.bytes as usize).saturating_sub(next + active.footer.footer_len(0))
        });
        let ready = self.ready.iter().map(|ready| ready.bytes as usize - 2 * BLOCK);
        active + ready.sum::<usize>()
    }

    /// Whether a record that can wait (a copy, a part of a checkpoint, a MARK) finds room beside the reserve.
    pub fn has_room_for_upkeep(&self) -> bool {
        let (ready, reserve) = (self.ready.len(), self.config.reserve_segments);
        ready > reserve || (ready == reserve && self.active_fits(self.config.frame_bytes_max))
    }

    /// A record in this segment was found damaged: the segment is kept as it is, for repair, and nothing is rewritten
    /// from it any more.
    pub fn quarantine(&mut self, segment: u32) {
        self.reclaim.quarantine(segment);
    }

    /// The segments that may be dropped now.
    pub fn droppable(&self) -> Vec<u32> {
        self.reclaim.droppable()
    }

    /// The sealed segment whose survivors are best rewritten.
    pub fn sparse(&self, threshold: Threshold) -> Option<u32> {
        self.reclaim.sparse(threshold)
    }

    /// A segment is gone from the disk, and its absence is synced.
    pub fn dropped(&mut self, segment: u32) {
        self.reclaim.dropped(segment);
    }

    /// The accounting behind reclaim, for metrics.
    pub fn reclaim(&self) -> &Reclaim {
        &self.reclaim
    }
}
