//! Records of the peer: what they change here, and message ids that both nodes took while they were apart.
//!
//! The driver appends a record of the peer to our log, then tells the core. Its message id is known from then on, so that
//! a retry here makes no second entry; a retry is answered once the record is covered by `handle_durable`. Inboxes change
//! only then, in the order of the log: what this node takes meanwhile for the same shard waits behind them.
//!
//! # One message id in two records
//!
//! While nodes are apart, each may take the same id. When the second record arrives, one of the two leaves each inbox by
//! a TOMB of ours, so that both nodes, and every restart, come to the same end (I4):
//!
//! - both entries are live: the one with the greater dot goes, reason [`TombReason::Collapsed`];
//! - the older one was acknowledged: the arriving one goes, too: the message is done;
//! - a TOMB arrives for an entry that had collapsed into another one: that one goes, too.
//!
//! Both nodes may append such TOMBs; more than one for a dot does no harm. If a crash loses one, recovery finds two records
//! of one id and owes it again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::effects::{
    Appended, Double, Effects, IS_RECEIPT, Pos, Refusal, RejectCode, TombReason, TombTarget,
    WANTS_RECEIPT,
};
use super::inbox::{self, Entry, LEN_END, Origins, SEQ_END, pack};
use super::slab::NIL;
use super::user::HAS_TOMBED;
use super::{BadRecord, CheckpointCursor, Core};
use crate::hlc::{Hlc, TooFarAhead};
use crate::id::{Dot, MsgId, Origin, ShardId, UserKey};
use crate::limits::{COLLAPSED_MAX, EARLY_TOMBS_MAX, TOMB_TARGETS_MAX};
use crate::sabotage::{self, Sabotage};

/// A MSG record of the peer, or one of ours that the peer gives back.
#[derive(Clone, Copy, Debug)]
pub struct ForeignMsg<'a> {
    /// Its shard.
    pub shard: ShardId,
    /// Its identity.
    pub dot: Dot,
    /// When it was accepted.
    pub hlc: Hlc,
    /// Who sent it.
    pub sender: UserKey,
    /// The sender's id for it.
    pub msg_id: MsgId,
    /// [`WANTS_RECEIPT`], [`IS_RECEIPT`].
    pub flags: u16,
    /// 16 bytes for each recipient.
    pub recipients: &'a [u8],
}

/// A TOMB record of the peer, or one of ours that the peer gives back.
#[derive(Clone, Copy, Debug)]
pub struct ForeignTomb<'a> {
    /// Its shard.
    pub shard: ShardId,
    /// Its identity.
    pub dot: Dot,
    /// Whose inbox.
    pub inbox: UserKey,
    /// Whether its reason is [`TombReason::Collapsed`].
    pub collapsed: bool,
    /// Which messages, and whether their record may still come.
    pub targets: &'a [(Dot, bool)],
}

/// A record that waits to be covered.
enum Waiting {
    Msg {
        shard: ShardId,
        dot: u64,
        sender: UserKey,
        msg_id: MsgId,
        at: Appended,
        wants_receipt: bool,
        recipients: usize,
        /// Another record with the same id.
        double: Option<u64>,
    },
    Tomb {
        inbox: UserKey,
        pos: Pos,
        collapsed: bool,
        targets: usize,
    },
}

/// An entry that must go by a TOMB of ours.
struct Owed {
    inbox: UserKey,
    dot: u64,
    reason: TombReason,
    /// Because of another record with its id.
    doubled: bool,
}

impl Owed {
    fn doubled(inbox: UserKey, dot: u64, reason: TombReason) -> Self {
        Self { inbox, dot, reason, doubled: true }
    }
}

/// What the peer's records left to do.
#[derive(Default)]
pub(super) struct Foreign {
    waiting: VecDeque<(u64, Waiting)>,
    /// Recipients of the waiting MSGs, in order.
    keys: VecDeque<UserKey>,
    /// Targets of the waiting TOMBs, in order: packed dot, and whether its record may still come.
    targets: VecDeque<(u64, bool)>,
    /// Messages whose TOMB came first, and where that is.
    early: BTreeMap<(UserKey, u64), Pos>,
    /// Entries that collapsed into another one: inbox and dot of the one that went, dot of the one that stayed; 0 if
    /// that one has not come yet.
    collapsed: BTreeMap<(UserKey, u64), u64>,
    owed: VecDeque<Owed>,
}

impl Core {
    /// Whether SENDs are taken: `None`, or the reason to refuse them all with.
    pub fn set_admission(&mut self, refuse_with: Option<RejectCode>) {
        self.admission = refuse_with;
    }

    /// Message ids taken from this time on are remembered although the window no longer covers them, as long as there is
    /// room; `None` ends that.
    pub fn hold_dedup(&mut self, since_ms: Option<u64>) {
        let from_ms = since_ms.map(|ms| ms.saturating_sub(self.config.dedup_window_ms));
        self.dedup.hold(from_ms.unwrap_or(u64::MAX));
    }

    /// The next part of what is remembered of message ids, as [`Core::checkpoint`] writes it: into `body`, which stays empty
    /// if the part has nothing to tell. The shard, and where to go on. Ids of our own records after number `sent` of a shard
    /// are left out: who is told of an id answers its retry, and nobody else may have that record yet.
    pub fn dedup_part(
        &self,
        from: CheckpointCursor,
        body: &mut Vec<u8>,
        sent: impl Fn(ShardId) -> u64,
    ) -> (ShardId, Option<CheckpointCursor>) {
        let is_own = |dot: u64| dot as u16 == Origins::OWN && dot != 0;
        self.dedup.checkpoint(from, body, |shard, dot| !is_own(dot) || dot >> 16 <= sent(shard))
    }

    /// Has `append` append a record of our own stream of a shard, with the next dot and the time.
    pub fn append_own(
        &mut self,
        now_ms: u64,
        shard: ShardId,
        append: impl FnOnce(Dot, Hlc) -> Result<Appended, Refusal>,
    ) -> Result<Appended, Refusal> {
        let now = self.advance(now_ms);
        let stream = &mut self.shards[usize::from(shard.0)];
        let dot = Dot { origin: self.config.origin, seq: stream.next_seq };
        let appended = append(dot, self.hlc.tick(now))?;
        stream.next_seq += 1;
        self.note_lsn(&appended);
        Ok(appended)
    }

    /// The greatest stamp given or seen.
    pub fn hlc(&self) -> Hlc {
        self.hlc.last()
    }

    /// Takes over a stamp of the peer; see [`crate::hlc::HlcClock::observe`].
    pub fn observe_hlc(
        &mut self,
        seen: Hlc,
        now_ms: u64,
        drift_ms_max: u64,
    ) -> Result<(), TooFarAhead> {
        self.hlc.observe(seen, now_ms, drift_ms_max)
    }

    /// Whether a MSG of the peer could be one, before it is appended.
    pub fn check_foreign_msg(&mut self, msg: &ForeignMsg<'_>, len: usize) -> Result<(), BadRecord> {
        self.check_foreign(msg.shard, msg.dot)?;
        let (keys, rest) = msg.recipients.as_chunks::<16>();
        if keys.is_empty()
            || !rest.is_empty()
            || keys.iter().any(|key| self.shard_of(UserKey(*key)) != msg.shard)
        {
            return Err(BadRecord::Recipients);
        }
        if len >= LEN_END as usize {
            return Err(BadRecord::Len);
        }
        Ok(())
    }

    /// Whether a TOMB of the peer could be one, before it is appended.
    pub fn check_foreign_tomb(
        &mut self,
        shard: ShardId,
        dot: Dot,
        inbox: UserKey,
        targets: &[Dot],
    ) -> Result<(), BadRecord> {
        self.check_foreign(shard, dot)?;
        if self.shard_of(inbox) != shard || targets.len() > TOMB_TARGETS_MAX {
            return Err(BadRecord::Recipients);
        }
        targets.iter().try_for_each(|target| self.check_foreign(shard, *target))
    }

    /// Whether a record with this dot may be there.
    pub fn check_foreign(&mut self, shard: ShardId, dot: Dot) -> Result<(), BadRecord> {
        if !self.is_here(shard) {
            return Err(BadRecord::Shard);
        }
        if !(1..SEQ_END).contains(&dot.seq) {
            return Err(BadRecord::Seq);
        }
        self.origins.intern(dot.origin).map(|_| ()).ok_or(BadRecord::Origins)
    }

    /// A MSG that [`Core::check_foreign_msg`] found fit was appended, for the first time.
    pub fn foreign_msg(&mut self, now_ms: u64, msg: &ForeignMsg<'_>, appended: &Appended) {
        self.advance(now_ms);
        self.note_lsn(appended);
        self.last_msg_lsn = appended.lsn;
        self.counters.foreign_msgs += 1;
        let dot = self.packed(msg.dot);
        self.ages.note(dot as u16, msg.shard, msg.dot.seq, msg.hlc.unix_ms());
        let is_receipt = msg.flags & IS_RECEIPT != 0;
        let double = match is_receipt {
            true => None,
            false if sabotage::is(Sabotage::ForeignIdsForgotten) => None,
            false => self.dedup.take_id(msg.shard, msg.sender, msg.msg_id, dot),
        };
        let keys = msg.recipients.as_chunks::<16>().0;
        self.foreign.keys.extend(keys.iter().map(|key| UserKey(*key)));
        let waiting = Waiting::Msg {
            shard: msg.shard,
            dot,
            sender: msg.sender,
            msg_id: msg.msg_id,
            at: *appended,
            wants_receipt: msg.flags & WANTS_RECEIPT != 0,
            recipients: keys.len(),
            double,
        };
        self.foreign.waiting.push_back((appended.lsn, waiting));
        self.shards[usize::from(msg.shard.0)].waiting += 1;
    }

    /// Whether messages of the shard wait that stand in the log before whatever is appended now.
    pub(super) fn has_waiting(&self, shard: ShardId) -> bool {
        self.shards[usize::from(shard.0)].waiting > 0
    }

    /// A message of ours comes after waiting ones of the peer: it waits like them, so that inboxes keep the order of the
    /// log.
    pub(super) fn wait_with_foreign(
        &mut self,
        shard: ShardId,
        entry: &Entry,
        at: &Appended,
        keys: &[[u8; 16]],
    ) {
        self.foreign.keys.extend(keys.iter().map(|key| UserKey(*key)));
        let waiting = Waiting::Msg {
            shard,
            dot: entry.packed(),
            // Only looked at for a second record of its id, and it is the first one.
            sender: UserKey([0; 16]),
            msg_id: MsgId(0),
            at: *at,
            wants_receipt: entry.wants_receipt(),
            recipients: keys.len(),
            double: None,
        };
        self.foreign.waiting.push_back((at.lsn, waiting));
        self.shards[usize::from(shard.0)].waiting += 1;
    }

    /// A TOMB that [`Core::check_foreign_tomb`] found fit was appended, for the first time.
    pub fn foreign_tomb(&mut self, now_ms: u64, tomb: &ForeignTomb<'_>, appended: &Appended) {
        self.advance(now_ms);
        self.note_lsn(appended);
        self.counters.foreign_tombs += 1;
        for (target, may_come) in tomb.targets {
            let packed = self.packed(*target);
            self.foreign.targets.push_back((packed, *may_come));
        }
        let waiting = Waiting::Tomb {
            inbox: tomb.inbox,
            pos: appended.pos,
            collapsed: tomb.collapsed,
            targets: tomb.targets.len(),
        };
        self.foreign.waiting.push_back((appended.lsn, waiting));
    }

    /// Another record of the peer was appended.
    pub fn foreign_other(&mut self, appended: &Appended) {
        self.note_lsn(appended);
    }

    /// Message ids that the peer remembers, a DEDUP record's body, taken over before it is appended.
    pub fn foreign_dedup(&mut self, shard: ShardId, body: &[u8]) -> Result<(), BadRecord> {
        if !self.is_here(shard) {
            return Err(BadRecord::Shard);
        }
        self.dedup.recover(shard, body)
    }

    /// The log position of the record appended last.
    pub fn last_lsn(&self) -> u64 {
        self.last_lsn
    }

    /// The first record of the peer that has not changed its inboxes yet.
    pub fn first_unapplied(&self) -> Option<Pos> {
        self.foreign.waiting.front().map(|(_, waiting)| match waiting {
            Waiting::Msg { at, .. } => at.pos,
            Waiting::Tomb { pos, .. } => *pos,
        })
    }

    /// Messages whose TOMB came before their record.
    pub fn early_tombs(&self) -> usize {
        self.foreign.early.len()
    }

    /// Whether a TOMB in this segment waits for its message.
    pub fn has_early_tomb_in(&self, segment: u32) -> bool {
        self.foreign.early.values().any(|tomb| tomb.segment == segment)
    }

    /// The records of this stream up to `upto` are here or will never come.
    pub fn forget_early(&mut self, origin: Origin, shard: ShardId, upto: u64) {
        let Some(number) = self.origins.intern(origin) else { return };
        let num_shards = self.config.num_shards;
        // A message that is here and that no inbox has taken in yet still needs its TOMB.
        let waiting = self.foreign.waiting.iter().filter_map(|(_, waiting)| match waiting {
            Waiting::Msg { dot, .. } => Some(*dot),
            Waiting::Tomb { .. } => None,
        });
        let waiting: BTreeSet<u64> = waiting.collect();
        self.foreign.early.retain(|(inbox, dot), _| {
            *dot as u16 != number
                || waiting.contains(dot)
                || *dot >> 16 > upto
                || crate::id::shard_for_user(*inbox, num_shards) != shard
        });
    }

    /// The messages in a user's inbox, in order.
    pub fn inbox(&self, user: UserKey) -> impl Iterator<Item = (Dot, Pos)> {
        let mut next = self.users.find(user).map_or(NIL, |slot| self.users[slot].head);
        let entries = std::iter::from_fn(move || {
            let entry = if next == NIL { None } else { Some(&self.entries[next]) }?;
            next = entry.next;
            Some(entry)
        });
        let live = entries.filter(|entry| !entry.is_tombed());
        live.map(|entry| (self.origins.dot(entry), entry.pos()))
    }

    /// What is live, from `cursor` on and about `most` entries: inbox and dot. Returns where to go on, `None` at the end;
    /// begin with 0. Messages of the peer that no inbox has taken in yet are live; they come first.
    pub fn live_entries(
        &self,
        cursor: u32,
        most: usize,
        out: &mut Vec<(UserKey, Dot)>,
    ) -> Option<u32> {
        if cursor == 0 {
            let mut keys = self.foreign.keys.iter();
            for (_, waiting) in &self.foreign.waiting {
                let Waiting::Msg { dot, recipients, .. } = waiting else { continue };
                let dot = self.origins.unpack(*dot);
                out.extend(keys.by_ref().take(*recipients).map(|key| (*key, dot)));
            }
        }
        let slots = self.entries.slots();
        let end = cursor.saturating_add(most as u32).min(slots);
        for slot in cursor..end {
            let Some(entry) = self.entries.live(slot).filter(|entry| !entry.is_tombed()) else {
                continue;
            };
            out.push((self.users[entry.user].key, self.origins.dot(entry)));
        }
        (end < slots).then_some(end)
    }

    /// Inbox entries for which `gone` says so, by shard, inbox and dot, leave by a TOMB of ours with reason
    /// [`TombReason::Collapsed`]: their records are no longer, or elsewhere nobody has them. How many there are.
    pub fn owe_removal(&mut self, gone: impl Fn(ShardId, UserKey, Dot) -> bool) -> u64 {
        let mut owed = 0;
        for slot in 0..self.entries.slots() {
            let Some(entry) = self.entries.live(slot).filter(|entry| !entry.is_tombed()) else {
                continue;
            };
            let (inbox, dot) = (self.users[entry.user].key, entry.packed());
            if gone(self.shard_of(inbox), inbox, self.origins.dot(entry)) {
                let reason = TombReason::Collapsed;
                self.foreign.owed.push_back(Owed { inbox, dot, reason, doubled: false });
                // It may have given way there to another record of its id, which is yet to come here.
                self.remember_collapse(inbox, dot);
                owed += 1;
            }
        }
        owed
    }

    fn packed(&mut self, dot: Dot) -> u64 {
        let origin = self.origins.intern(dot.origin).expect("checked before it was appended");
        pack(origin, dot.seq)
    }

    /// Whether the first dot comes before the second, on every node alike.
    fn is_before(&self, first: u64, second: u64) -> bool {
        self.origins.unpack(first) < self.origins.unpack(second)
    }

    /// Inboxes take in what is covered.
    pub(super) fn apply_foreign(&mut self, fx: &mut impl Effects, lsn: u64) {
        while self.foreign.waiting.front().is_some_and(|(of, _)| *of <= lsn) {
            let (_, waiting) = self.foreign.waiting.pop_front().expect("there is a first one");
            match waiting {
                Waiting::Tomb { inbox, pos, collapsed, targets } => {
                    self.apply_tomb(fx, inbox, pos, collapsed, targets);
                }
                msg @ Waiting::Msg { .. } => self.apply_msg(fx, &msg),
            }
        }
    }

    fn apply_msg(&mut self, fx: &mut impl Effects, msg: &Waiting) {
        let Waiting::Msg { shard, dot, sender, msg_id, at, wants_receipt, recipients, double } =
            *msg
        else {
            unreachable!("the caller looked")
        };
        self.shards[usize::from(shard.0)].waiting -= 1;
        let (origin, seq) = (dot as u16, dot >> 16);
        let entry = Entry::new(at.pos, at.len, origin, seq, wants_receipt, recipients);
        for _ in 0..recipients {
            let key = self.foreign.keys.pop_front().expect("keys stand beside their records");
            if let Some(tomb) = self.foreign.early.remove(&(key, dot)) {
                fx.entry_dead(at.pos, tomb);
                fx.entry_removed(at.pos, at.len);
                continue;
            }
            let user = self.users.find_or_insert(key);
            if let Some(other) = double.filter(|_| !sabotage::is(Sabotage::BothKept)) {
                self.collapse(fx, user, (shard, sender, msg_id), other, (dot, &at));
            }
            inbox::push(&mut self.entries, &mut self.users[user], user, entry);
            self.inbox_bytes += u64::from(entry.charge());
            self.wake(user);
        }
    }

    /// The arriving record `dot` has the id of the record `other`: one of them will go from this inbox.
    fn collapse(
        &mut self,
        fx: &mut impl Effects,
        user: u32,
        (shard, sender, msg_id): (ShardId, UserKey, MsgId),
        other: u64,
        (dot, at): (u64, &Appended),
    ) {
        let inbox = self.users[user].key;
        let Some(slot) = self.find_entry(user, other) else {
            if let Some(stays) = self.foreign.collapsed.get_mut(&(inbox, other)) {
                // The first one went because of this one, which comes only now.
                *stays = dot;
                return self.dedup.set_dot(shard, sender, msg_id, dot);
            }
            // The message is done, or its first record, which wins, is not for this inbox.
            return self.foreign.owed.push_back(Owed::doubled(inbox, dot, TombReason::Acked));
        };
        let existing =
            (self.origins.unpack(other), self.entries[slot].pos(), self.entries[slot].len());
        let arriving = (self.origins.unpack(dot), at.pos, at.len);
        let (kept, dropped, goes, stays) = match self.is_before(other, dot) {
            true => (existing, arriving, dot, other),
            false => (arriving, existing, other, dot),
        };
        self.dedup.set_dot(shard, sender, msg_id, stays);
        self.note_collapsed(inbox, goes, stays);
        self.foreign.owed.push_back(Owed::doubled(inbox, goes, TombReason::Collapsed));
        fx.doubled(&Double { shard, msg_id, kept, dropped });
    }

    /// Remembers what collapsed into what, the newest [`COLLAPSED_MAX`] of them. What is forgotten can at most be delivered
    /// once more, under an id that clients know.
    fn note_collapsed(&mut self, inbox: UserKey, gone: u64, stays: u64) {
        if self.foreign.collapsed.len() >= COLLAPSED_MAX {
            self.foreign.collapsed.pop_first();
        }
        self.foreign.collapsed.insert((inbox, gone), stays);
    }

    fn apply_tomb(
        &mut self,
        fx: &mut impl Effects,
        inbox: UserKey,
        tomb: Pos,
        collapsed: bool,
        targets: usize,
    ) {
        let all = self.foreign.targets.drain(..targets);
        let mut wanted: BTreeMap<u64, bool> = all.collect();
        for dot in wanted.keys() {
            if collapsed {
                self.remember_collapse(inbox, *dot);
            // Also if the entry is still here, because its own TOMB is only owed.
            } else {
                self.done_in_both(inbox, *dot);
            }
        }
        if let Some(user) = self.users.find(inbox) {
            self.remove_entries(fx, user, tomb, &mut wanted);
        }
        for (dot, may_come) in wanted {
            if may_come {
                self.foreign.early.insert((inbox, dot), tomb);
            }
        }
    }

    /// A TOMB of ours says that these are acknowledged. If one of them was to give way to another record of its id, and its
    /// TOMB was only owed, the other one is done, too.
    pub(super) fn done_by_own_tomb(&mut self, inbox: UserKey, targets: &[TombTarget]) {
        if self.foreign.collapsed.is_empty() {
            return;
        }
        for target in targets {
            let dot = self.packed(target.dot);
            self.done_in_both(inbox, dot);
        }
    }

    /// A record is acknowledged. If it gave way to another one of its id, that one is done, too.
    fn done_in_both(&mut self, inbox: UserKey, dot: u64) {
        if let Some(stays) = self.foreign.collapsed.remove(&(inbox, dot))
            && stays != 0
        {
            self.foreign.owed.push_back(Owed::doubled(inbox, stays, TombReason::Acked));
        }
    }

    /// Takes what is `wanted` out of an inbox, and out of `wanted`.
    fn remove_entries(
        &mut self,
        fx: &mut impl Effects,
        user: u32,
        tomb: Pos,
        wanted: &mut BTreeMap<u64, bool>,
    ) {
        let (mut before, mut slot) = (NIL, self.users[user].head);
        let mut is_delivered = self.users[user].is_online();
        while slot != NIL && !wanted.is_empty() {
            let next = self.entries[slot].next;
            is_delivered &= slot != self.users[user].cursor;
            let entry = &mut self.entries[slot];
            if entry.is_tombed() || wanted.remove(&entry.packed()).is_none() {
                (before, slot) = (slot, next);
                continue;
            }
            fx.entry_dead(entry.pos(), tomb);
            fx.entry_removed(entry.pos(), entry.len());
            if is_delivered {
                entry.set_tombed();
                self.users[user].flags |= HAS_TOMBED;
                before = slot;
            } else {
                self.unlink(user, before, slot);
            }
            slot = next;
        }
        self.users.release(user);
    }

    /// Takes an entry out of the list; `before` is the one before it.
    pub(super) fn unlink(&mut self, user: u32, before: u32, slot: u32) {
        let (next, charge) = (self.entries[slot].next, u64::from(self.entries[slot].charge()));
        self.inbox_bytes -= charge;
        let record = &mut self.users[user];
        match before {
            NIL => record.head = next,
            before => self.entries[before].next = next,
        }
        if record.tail == slot {
            record.tail = before;
        }
        if record.cursor == slot {
            record.cursor = next;
        }
        record.count -= 1;
        record.bytes -= charge;
        self.entries.remove(slot);
    }

    /// Takes tombed entries out of an inbox whose session ends. The cursor is put at its beginning.
    pub(super) fn purge(&mut self, user: u32) {
        if self.users[user].flags & HAS_TOMBED == 0 {
            return;
        }
        let (mut before, mut slot) = (NIL, self.users[user].head);
        while slot != NIL {
            let next = self.entries[slot].next;
            match self.entries[slot].is_tombed() {
                true => self.unlink(user, before, slot),
                false => before = slot,
            }
            slot = next;
        }
        let record = &mut self.users[user];
        record.flags &= !HAS_TOMBED;
        (record.cursor, record.kept_tail) = (record.head, NIL);
    }

    fn find_entry(&self, user: u32, dot: u64) -> Option<u32> {
        let mut slot = self.users[user].head;
        while slot != NIL {
            let entry = &self.entries[slot];
            if entry.packed() == dot && !entry.is_tombed() {
                return Some(slot);
            }
            slot = entry.next;
        }
        None
    }

    /// Appends the TOMBs that are owed, until the log refuses one.
    pub(super) fn settle_owed(&mut self, fx: &mut impl Effects, now: u64) {
        while let Some(owed) = self.foreign.owed.pop_front() {
            let Owed { inbox, dot, reason, doubled } = owed;
            let found = self.users.find(inbox);
            let Some(slot) = found.and_then(|user| self.find_entry(user, dot)) else { continue };
            let target =
                TombTarget { dot: self.origins.unpack(dot), pos: self.entries[slot].pos() };
            let Some(appended) = self.put_tomb(fx, now, inbox, reason, &[target]) else {
                return self.foreign.owed.push_front(owed);
            };
            self.counters.collapsed += u64::from(doubled);
            let user = found.expect("it was found");
            self.remove_entries(fx, user, appended.pos, &mut BTreeMap::from([(dot, false)]));
        }
    }

    /// A TOMB says that an entry collapsed into another one, which is here or may still come.
    pub(super) fn remember_collapse(&mut self, inbox: UserKey, gone: u64) {
        if self.foreign.collapsed.len() < COLLAPSED_MAX {
            self.foreign.collapsed.entry((inbox, gone)).or_insert(0);
        }
    }

    /// Recovery found the TOMB of a message that may still come.
    pub(super) fn tomb_came_first(&mut self, inbox: UserKey, dot: u64, tomb: Pos) {
        if self.foreign.early.len() < EARLY_TOMBS_MAX {
            self.foreign.early.insert((inbox, dot), tomb);
        }
    }

    /// Whether TOMBs are owed that the log refused.
    pub(super) fn owes(&self) -> bool {
        !self.foreign.owed.is_empty()
    }

    /// Recovery found two records of one id for an inbox; of each: whether it is live, and whether a TOMB other than one
    /// that collapsed it names it.
    pub(super) fn recovered_double(
        &mut self,
        inbox: UserKey,
        [first, second]: [(u64, bool, bool); 2],
    ) {
        let live: BTreeSet<u64> = [first, second].iter().filter(|of| of.1).map(|of| of.0).collect();
        if first.2 || second.2 {
            let owed = live.into_iter().map(|dot| Owed::doubled(inbox, dot, TombReason::Acked));
            return self.foreign.owed.extend(owed);
        }
        let (low, high) = match self.is_before(first.0, second.0) {
            true => (first.0, second.0),
            false => (second.0, first.0),
        };
        let (goes, stays) =
            if live.contains(&low) || live.is_empty() { (high, low) } else { (low, high) };
        self.note_collapsed(inbox, goes, stays);
        if live.len() == 2 {
            self.foreign.owed.push_back(Owed::doubled(inbox, goes, TombReason::Collapsed));
        }
    }
}
