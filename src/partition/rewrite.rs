//! Rewrites the survivors of a sparse segment, so that one old message does not keep 64 MiB.
//!
//! The index is searched for entries of the segment some slots a turn; their records are read back on the reader's
//! thread, some at a time; copies of those still live are appended, with the same dot and time.

use super::Partition;
use super::disk::{CopyRecords, CopyWanted};
use iris_proto::core::{Appended, LiveEntry};
use iris_wal::reclaim::Threshold;
use iris_wal::record::{self, Body};
use iris_wal::{Msg, Record, views};

/// Index slots looked at in one turn (I8): some tens of microseconds.
const SLOTS_PER_TURN: u32 = 16 << 10;
/// Records read back at a time.
const RECORDS_PER_READ: usize = 256;

/// Where a rewrite stands.
pub(super) enum Rewrite {
    Idle,
    /// Looking for entries of the segment.
    Searching {
        segment: u32,
        cursor: u32,
        found: Vec<LiveEntry>,
    },
    /// Entries left to copy, latest position first.
    Copying {
        left: Vec<LiveEntry>,
        reading: bool,
    },
}

impl Partition {
    pub(super) fn rewrite_some(&mut self) -> bool {
        match std::mem::replace(&mut self.housekeeping.rewrite, Rewrite::Idle) {
            Rewrite::Idle => {
                let due = self.clock.instant() - self.housekeeping.rewrite_looked
                    >= super::housekeeping::LOOK_EVERY;
                if !due || !self.fx.log.has_room_for_upkeep() {
                    return false;
                }
                self.housekeeping.rewrite_looked = self.clock.instant();
                let Some(segment) = self.fx.log.sparse(Threshold::default()) else { return false };
                self.housekeeping.rewrite =
                    Rewrite::Searching { segment, cursor: 0, found: Vec::new() };
                true
            }
            Rewrite::Searching { segment, cursor, mut found } => {
                let next = self.core.live_in_segment(segment, cursor, SLOTS_PER_TURN, &mut found);
                self.housekeeping.rewrite = match next {
                    Some(cursor) => Rewrite::Searching { segment, cursor, found },
                    None => {
                        found.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.pos));
                        Rewrite::Copying { left: found, reading: false }
                    }
                };
                true
            }
            Rewrite::Copying { left, reading: true } => {
                self.housekeeping.rewrite = Rewrite::Copying { left, reading: true };
                false
            }
            Rewrite::Copying { left, .. } if left.is_empty() => true,
            Rewrite::Copying { left, .. } if !self.fx.log.has_room_for_upkeep() => {
                self.housekeeping.rewrite = Rewrite::Copying { left, reading: false };
                false
            }
            Rewrite::Copying { mut left, .. } => {
                self.disk.read_copies(take_records(&mut left));
                self.housekeeping.rewrite = Rewrite::Copying { left, reading: true };
                true
            }
        }
    }

    /// Records of a sparse segment are in memory: the live ones are appended again.
    pub(super) fn copy(&mut self, records: CopyRecords) {
        for (entries, bytes) in &records {
            let Some(bytes) = bytes else {
                // What cannot be read cannot be moved: the segment stays as it is.
                self.fx.log.quarantine(entries[0].pos.segment);
                continue;
            };
            let Ok((original, _)) = record::decode(bytes) else { continue };
            let Body::Msg(msg) = original.body else { continue };
            let fx = &mut self.fx;
            let mut copied: Option<Appended> = None;
            let result = self.core.relocate(entries, |recipients| {
                let body = Body::Msg(Msg { copy: true, recipients, ..msg });
                let appended = fx.append(&Record { head: original.head, body })?;
                copied = Some(appended);
                Ok(appended)
            });
            match (result, copied) {
                (Ok(moved), Some(copy)) => {
                    let from = (views::wal_pos(entries[0].pos), entries[0].len);
                    for _ in 0..moved {
                        fx.log.entry_moved(from, (views::wal_pos(copy.pos), copy.len));
                    }
                    fx.wal_metrics.rewritten_bytes.add(u64::from(copy.len));
                }
                (Ok(_), None) => {}
                // No room in the log now: the segment stays sparse and is found again.
                (Err(_), _) => break,
            }
        }
        if let Rewrite::Copying { reading, .. } = &mut self.housekeeping.rewrite {
            *reading = false;
        }
    }
}

/// The next records to read, each with all its entries.
fn take_records(left: &mut Vec<LiveEntry>) -> Vec<CopyWanted> {
    let mut records: Vec<CopyWanted> = Vec::new();
    while let Some(entry) = left.last() {
        let is_full = records.len() == RECORDS_PER_READ;
        match records.last_mut() {
            Some(last) if last[0].pos == entry.pos => last.extend(left.pop()),
            _ if is_full => break,
            _ => records.push(left.pop().into_iter().collect()),
        }
    }
    records
}
