//! Moving the last survivors out of a sparse segment.
//!
//! The driver looks for entries of the segment with [`Core::live_in_segment`], reads each record, and calls
//! [`Core::relocate`], which picks the recipients that are still live, has the copy appended and points their entries at
//! it, all in one step: no ACK can come between, so no copy names an inbox whose TOMB does not know of it.
//!
//! The old segment may go once the copies are durable, reads of old positions are finished, and no TOMB in it is needed.
//! That last one can take long, and until then the log holds the original as well as the copy. So a TOMB for a copy must
//! outlive both: a TOMB that names a segment is needed as long as that segment is there, or any that its copies came
//! from, directly or through other copies.

use super::Core;
use super::effects::{Appended, Pos, Refusal};
use super::inbox::LEN_END;
use crate::id::{Dot, UserKey};

/// An inbox entry of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveEntry {
    /// Where its record is.
    pub pos: Pos,
    /// Bytes of the whole record.
    pub len: u32,
    /// Whose inbox.
    pub user: UserKey,
    /// The record's identity.
    pub dot: Dot,
    slot: u32,
}

impl Core {
    /// Looks at up to `slots_max` entries from `cursor` on and adds those of the segment to `out`. Returns where to go on,
    /// `None` at the end. Begin with 0. Entries of one record are not together: sort by position.
    pub fn live_in_segment(
        &self,
        segment: u32,
        cursor: u32,
        slots_max: u32,
        out: &mut Vec<LiveEntry>,
    ) -> Option<u32> {
        let slots = self.entries.slots();
        let end = cursor.saturating_add(slots_max).min(slots);
        for slot in cursor..end {
            let Some(entry) = self.entries.live(slot) else { continue };
            if entry.pos().segment == segment && !entry.is_tombed() {
                let user = self.users[entry.user].key;
                let dot = self.origins.dot(entry);
                out.push(LiveEntry { pos: entry.pos(), len: entry.len(), user, dot, slot });
            }
        }
        (end < slots).then_some(end)
    }

    /// Copies one record for those of `entries` that are still live; all are of that record. `append` gets their keys, 16
    /// bytes each, and appends the COPY, with the same dot and time. It is not called when none is left. Returns how
    /// many entries now refer to the copy instead of the original.
    pub fn relocate(
        &mut self,
        entries: &[LiveEntry],
        append: impl FnOnce(&[u8]) -> Result<Appended, Refusal>,
    ) -> Result<u32, Refusal> {
        self.assert_recovered();
        let record = entries.first().map(|entry| entry.pos);
        assert!(entries.iter().all(|entry| Some(entry.pos) == record), "one record at a time");
        let mut recipients = std::mem::take(&mut self.scratch.recipients);
        recipients.clear();
        let live = |core: &Self, entry: &LiveEntry| {
            let now = core.entries.live(entry.slot);
            now.is_some_and(|now| now.pos() == entry.pos && !now.is_tombed())
        };
        for entry in entries.iter().filter(|entry| live(self, entry)) {
            recipients.extend_from_slice(&entry.user.0);
        }
        let named = recipients.len() / 16;
        let appended = if recipients.is_empty() { Ok(None) } else { append(&recipients).map(Some) };
        self.scratch.recipients = recipients;
        let Some(copy) = appended? else { return Ok(0) };
        assert!(copy.len < LEN_END, "the log keeps records below 2^20 bytes");
        let mut moved = 0;
        for entry in entries {
            if live(self, entry) {
                let moving = &mut self.entries[entry.slot];
                let (user, before) = (moving.user, u64::from(moving.charge()));
                moving.relocate(copy.pos, copy.len, named);
                let after = u64::from(moving.charge());
                self.users[user].bytes = self.users[user].bytes - before + after;
                self.inbox_bytes = self.inbox_bytes - before + after;
                moved += 1;
            }
        }
        self.counters.relocated += u64::from(moved);
        Ok(moved)
    }
}
