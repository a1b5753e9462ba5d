//! Reactors that are far away: their connections end all at once, and what they take may pile up on the way.

use super::Core;
use super::effects::Effects;
use super::slab::NIL;
use super::user::STALLED;
use crate::id::ConnId;
use std::ops::Range;

/// Where [`Core::end_reactors`] goes on. Begin with the default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EndCursor {
    users: u32,
    watches: u32,
}

impl Core {
    /// The connections of these reactors are gone: ends their sessions and watches, `slots_max` places a call. Returns where
    /// to go on, `None` at the end. Their inputs must have stopped before, and their numbers are not used again until the
    /// end.
    pub fn end_reactors(
        &mut self,
        fx: &mut impl Effects,
        now_ms: u64,
        reactors: &Range<u16>,
        from: EndCursor,
        slots_max: u32,
    ) -> Option<EndCursor> {
        let now = self.advance(now_ms);
        let is_gone = |conn: ConnId| reactors.contains(&conn.reactor());
        let end = self.users.slots().min(from.users.saturating_add(slots_max));
        for slot in from.users..end {
            let ends =
                self.users.live(slot).is_some_and(|user| user.is_online() && is_gone(user.conn));
            if ends {
                self.end_session(fx, now, slot);
            }
        }
        if end < self.users.slots() {
            return Some(EndCursor { users: end, watches: 0 });
        }
        let next = self.watches.remove_some(&mut self.users, from.watches, slots_max, is_gone);
        next.map(|watches| EndCursor { users: end, watches })
    }

    /// There is room again for deliveries that [`Effects::has_room`] refused: users who wait for it get their turns.
    pub fn resume_stalled(&mut self) {
        for slot in std::mem::take(&mut self.stalled) {
            // Who logged in elsewhere meanwhile is no longer stalled, and the place may be another's or nobody's.
            if self.users.live(slot).is_none_or(|user| user.flags & STALLED == 0) {
                continue;
            }
            self.users[slot].flags &= !STALLED;
            if self.users[slot].is_online() {
                self.wake(slot);
            } else {
                self.users.release(slot);
            }
        }
    }

    /// Whether users wait for room.
    pub fn has_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Puts a user aside until there is room on the way to them.
    pub(super) fn stall(&mut self, slot: u32) {
        assert!(slot != NIL && self.users[slot].flags & STALLED == 0, "who is stalled has no turn");
        self.users[slot].flags |= STALLED;
        self.stalled.push(slot);
    }
}
