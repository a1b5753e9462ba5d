//! What inboxes may hold, and what happens when one holds it.
//!
//! The decision is made where a SEND is taken, before it is a record: it is refused, or older messages give way. What
//! leaves an inbox other than by its recipient leaves by a TOMB, as an ACK does: it is durable, goes to the mirror and
//! is gone after every restart, on both nodes (I3). What the decision depends on (how many messages, of how many bytes,
//! how old) is a function of the records that are live, so both nodes of a pair, and a restart, decide alike.
//!
//! Messages that are under way to their recipient stay: credit bounds them, and the recipient may be about to say that
//! they are done.
//!
//! A message that has grown too old is removed by the node that took it. The other one does so some time later, if it is
//! still there then: that node may be gone.

use super::Core;
use super::effects::{Appended, Effects, RejectCode, TombReason, TombRecord, TombTarget};
use super::inbox::Entry;
use super::slab::NIL;
use crate::id::{Dot, UserKey};
use crate::limits::TOMB_TARGETS_MAX;

/// What becomes of a message for an inbox that is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenFull {
    /// It is refused by name; its sender may try again.
    #[default]
    Refuse,
    /// It is taken, and the oldest ones that are not under way to the recipient go.
    DropOldest,
}

/// Users looked at in one step.
const STEP_USERS: u32 = 512;
/// A pass over all users takes about this long. Milliseconds.
const PASS_MS: u64 = 20_000;
/// TOMBs for what is too old in one step (I8).
const STEP_TOMBS: u32 = 8;
/// How much later a node removes what the other one took. Milliseconds, besides a span of [`super::ages`].
const GRACE_MS: u64 = 60_000;

/// Goes over all users: what is too old is removed, and the fullest inbox is found.
#[derive(Default)]
pub(super) struct Sweep {
    hand: u32,
    next_ms: u64,
    /// Of the pass under way.
    fullest: Fullest,
    /// Of the last whole pass.
    shown: Fullest,
}

/// The most that one inbox held, each by itself.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Fullest {
    /// Messages.
    pub messages: u32,
    /// Their bytes.
    pub bytes: u64,
}

impl Fullest {
    fn take(&mut self, messages: u32, bytes: u64) {
        self.messages = self.messages.max(messages);
        self.bytes = self.bytes.max(bytes);
    }
}

impl Sweep {
    pub(super) fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// The fullest inbox of the last pass and of this one.
    pub(super) fn fullest(&self) -> Fullest {
        let mut fullest = self.shown;
        fullest.take(self.fullest.messages, self.fullest.bytes);
        fullest
    }

    pub(super) fn soon(&mut self) {
        self.next_ms = 0;
    }
}

/// Which messages give way.
#[derive(Clone, Copy)]
enum Goes {
    /// As many of the oldest as there are too many.
    ForRoom,
    /// Those that are too old at this time.
    Old(u64),
}

impl Core {
    /// Whether an inbox is full: whoever comes next is refused, or others give way.
    fn is_full(&self, messages: u32, bytes: u64) -> Option<WhenFull> {
        let config = &self.config;
        let by_count = messages >= config.inbox_messages_max;
        let by_bytes = bytes >= config.inbox_bytes_max;
        match (by_count, by_bytes) {
            (false, false) => None,
            (true, false) => Some(config.messages_when_full),
            (false, true) => Some(config.bytes_when_full),
            (true, true) if config.messages_when_full == config.bytes_when_full => {
                Some(config.messages_when_full)
            }
            (true, true) => Some(WhenFull::Refuse),
        }
    }

    /// Looks the recipients up and refuses them all if one inbox, or the partition, takes no more.
    pub(super) fn make_sure_of_room(
        &mut self,
        fx: &mut impl Effects,
        now: u64,
        keys: &[[u8; 16]],
    ) -> Result<(), RejectCode> {
        let entries_left = self.config.entries_max.saturating_sub(self.entries.used());
        if keys.len() > entries_left as usize || self.inbox_bytes >= self.config.bytes_max {
            return Err(RejectCode::NodeFull);
        }
        if keys.len() > self.config.pending_max.saturating_sub(self.pending.len()) {
            return Err(RejectCode::Overloaded);
        }
        let mut gives_way = false;
        self.scratch.found.clear();
        for key in keys {
            let key = UserKey(*key);
            let hash = self.users.hash(key);
            let user = self.users.find_hashed(hash, key);
            if let Some(user) = user {
                let record = &self.users[user];
                match self.is_full(record.count, record.bytes) {
                    None => {}
                    Some(WhenFull::Refuse) => return Err(RejectCode::InboxFull),
                    Some(WhenFull::DropOldest) => gives_way = true,
                }
            }
            self.scratch.found.push((hash, user.unwrap_or(NIL)));
        }
        if gives_way {
            self.make_room(fx, now)?;
        }
        Ok(())
    }

    /// Has the oldest messages of full inboxes among those that were just looked up give way.
    fn make_room(&mut self, fx: &mut impl Effects, now: u64) -> Result<(), RejectCode> {
        for index in 0..self.scratch.found.len() {
            let (_, user) = self.scratch.found[index];
            while user != NIL && self.lacks_room(user) {
                if self.remove_oldest(fx, now, user, Goes::ForRoom)? == 0 {
                    return Err(RejectCode::InboxFull);
                }
            }
        }
        Ok(())
    }

    fn lacks_room(&self, user: u32) -> bool {
        let record = &self.users[user];
        self.is_full(record.count, record.bytes).is_some()
    }

    /// Removes the oldest messages of an inbox that are not under way, by one TOMB. How many.
    fn remove_oldest(
        &mut self,
        fx: &mut impl Effects,
        now: u64,
        user: u32,
        goes: Goes,
    ) -> Result<usize, RejectCode> {
        let before = self.last_under_way(user);
        let record = &self.users[user];
        let (inbox, mut messages, mut bytes) = (record.key, record.count, record.bytes);
        let mut next = self.after(user, before);
        let mut targets = std::mem::take(&mut self.scratch.targets);
        targets.clear();
        while next != NIL && targets.len() < TOMB_TARGETS_MAX {
            let entry = &self.entries[next];
            let does = match goes {
                Goes::ForRoom => self.is_full(messages, bytes).is_some(),
                Goes::Old(at) => self.is_over(entry, inbox, at),
            };
            if !does {
                break;
            }
            targets.push(TombTarget { dot: self.origins.dot(entry), pos: entry.pos() });
            messages -= 1;
            bytes -= u64::from(entry.charge());
            next = entry.next;
        }
        let reason = match goes {
            Goes::ForRoom => TombReason::Displaced,
            Goes::Old(_) => TombReason::Expired,
        };
        let removed = match targets.is_empty() {
            true => Ok(0),
            false => self.remove_these(fx, now, user, before, (&targets, reason)),
        };
        self.scratch.targets = targets;
        removed
    }

    fn remove_these(
        &mut self,
        fx: &mut impl Effects,
        now: u64,
        user: u32,
        before: u32,
        (targets, reason): (&[TombTarget], TombReason),
    ) -> Result<usize, RejectCode> {
        let inbox = self.users[user].key;
        self.put_tomb(fx, now, inbox, reason, targets).ok_or(RejectCode::Overloaded)?;
        self.done_by_own_tomb(inbox, targets);
        for _ in targets {
            let slot = self.after(user, before);
            let (pos, len) = (self.entries[slot].pos(), self.entries[slot].len());
            self.unlink(user, before, slot);
            fx.entry_removed(pos, len);
        }
        let dropped = match reason {
            TombReason::Expired => &mut self.counters.expired,
            _ => &mut self.counters.displaced,
        };
        *dropped += targets.len() as u64;
        Ok(targets.len())
    }

    /// The last message of an inbox that is under way to its recipient, or was kept behind such ones.
    fn last_under_way(&self, user: u32) -> u32 {
        let record = &self.users[user];
        let (mut last, mut next) = (NIL, record.head);
        while record.is_online() && next != NIL && next != record.cursor {
            (last, next) = (next, self.entries[next].next);
        }
        last
    }

    fn after(&self, user: u32, before: u32) -> u32 {
        match before {
            NIL => self.users[user].head,
            before => self.entries[before].next,
        }
    }

    /// Appends a TOMB for these messages of an inbox. `None` if the log refused it.
    pub(super) fn put_tomb(
        &mut self,
        fx: &mut impl Effects,
        now: u64,
        inbox: UserKey,
        reason: TombReason,
        targets: &[TombTarget],
    ) -> Option<Appended> {
        let shard = self.shard_of(inbox);
        let stream = &mut self.shards[usize::from(shard.0)];
        let dot = Dot { origin: self.config.origin, seq: stream.next_seq };
        let hlc = self.hlc.tick(now);
        let appended =
            fx.append_tomb(&TombRecord { shard, dot, hlc, inbox, reason, targets }).ok()?;
        stream.next_seq += 1;
        self.note_lsn(&appended);
        Some(appended)
    }

    /// Whether a message is too old. What another node took is left to it for a while.
    fn is_over(&self, entry: &Entry, inbox: UserKey, now: u64) -> bool {
        let is_own = self.origins.origin(entry.origin()).node == self.config.origin.node;
        let grace_ms = if is_own { 0 } else { self.grace_ms() };
        self.ages.is_over(entry.origin(), self.shard_of(inbox), entry.seq(), now, grace_ms)
    }

    fn grace_ms(&self) -> u64 {
        self.ages.span_ms() + GRACE_MS
    }

    /// Looks at some users.
    pub(super) fn sweep_inboxes(&mut self, fx: &mut impl Effects, now: u64) {
        if now < self.sweep.next_ms {
            return;
        }
        let slots = self.users.slots();
        let end = slots.min(self.sweep.hand.saturating_add(STEP_USERS));
        let mut tombs = 0;
        while self.sweep.hand < end && tombs < STEP_TOMBS {
            let user = self.sweep.hand;
            if let Some(record) = self.users.live(user) {
                let (messages, bytes) = (record.count, record.bytes);
                self.sweep.fullest.take(messages, bytes);
                if self.ages.are_kept() && messages > 0 {
                    let Ok(removed) = self.remove_oldest(fx, now, user, Goes::Old(now)) else {
                        break;
                    };
                    tombs += u32::from(removed > 0);
                    if removed == TOMB_TARGETS_MAX {
                        // There may be more: the hand stays.
                        continue;
                    }
                    self.users.release(user);
                }
            }
            self.sweep.hand += 1;
        }
        let steps = 1 + u64::from(slots / STEP_USERS);
        let is_behind = self.sweep.hand < end;
        self.sweep.next_ms = now + if is_behind { 1 } else { PASS_MS.div_ceil(steps) };
        if self.sweep.hand >= slots {
            self.sweep.hand = 0;
            self.sweep.shown = std::mem::take(&mut self.sweep.fullest);
            let grace_ms = self.grace_ms();
            self.ages.prune(now, grace_ms);
        }
    }
}
