//! Which message ids of a sender are in already, exact within a window and bounded per sender and in all.
//!
//! For each shard of recipients and each sender we keep the sender's newest ids, at most
//! [`DEDUP_IDS_PER_SENDER_MAX`], and a floor: every id at or below it is forgotten. Ids carry their time (UUIDv7), so a
//! sender whose newest id is older than the window can be forgotten whole: the time alone refuses a retry. This is the
//! idempotent producer of Kafka (KIP-98) with a set instead of a sequence, because SENDs may overtake each other.
//!
//! An id is new, known, or refused by name; it is never new twice (I5):
//! - before the window: `IdTooOld`; too far ahead: `IdInFuture`.
//! - known: a duplicate, whatever recipients and payload the retry has. The first one wins.
//! - at or below the sender's floor, or in the part of the window given up for want of memory: `StaleId`.
//! - anything else is new. The common case, an id above the sender's last one, takes no search.
//!
//! With each id stands the record that it is in, if that is still in the log: when both nodes of a pair took the same id
//! while they were apart, that is how the second entry is found.
//!
//! Memory: a sender costs the room of its ids (24 bytes each, 4, 8, 16 .. 512 of them) and as much as
//! [`SENDER_COST_IDS`] more. Above 7/8 of `ids_max` the sweep empties idle senders into their floors, then gives up the
//! older half of the window, and so on down to [`RETRY_MS_MIN`]. At `ids_max` nothing that needs more room is taken.

use std::collections::VecDeque;

use super::BadRecord;
use super::effects::RejectCode;
use super::index::{Hashing, Index};
use super::slab::{NIL, Slab, Slot};
use crate::id::{MsgId, ShardId, UserKey};
use crate::limits::{DEDUP_IDS_PER_SENDER_MAX, DEDUP_RECORD_BYTES_MAX};

/// What a sender costs besides its ids, in ids of 24 bytes: record, index and heap overhead.
pub(super) const SENDER_COST_IDS: u64 = 8;
/// A sender without a new id for so long is idle; the window is never given up below it. Milliseconds.
pub(super) const RETRY_MS_MIN: u64 = 60_000;
/// A pass of the sweep over all senders takes about this long. Milliseconds.
const PASS_MS: u64 = 60_000;
/// Senders looked at in one step of the sweep.
const STEP_SENDERS: u32 = 512;

/// An id and the record that it is in.
#[derive(Clone, Copy)]
struct Taken {
    id: [u64; 2],
    /// The record's packed dot; 0 if only the id is known.
    dot: u64,
}

const _: () = assert!(size_of::<Taken>() == 24);

impl Taken {
    fn new(id: MsgId, dot: u64) -> Self {
        Self { id: [(id.0 >> 64) as u64, id.0 as u64], dot }
    }

    fn id(&self) -> MsgId {
        MsgId(u128::from(self.id[0]) << 64 | u128::from(self.id[1]))
    }
}

/// A sender, as seen from one shard.
struct Sender {
    key: UserKey,
    /// Ids at or below are forgotten; all of `ids` are above.
    floor: MsgId,
    /// Ascending.
    ids: VecDeque<Taken>,
    next_free: u32,
    live: bool,
}

const _: () = assert!(size_of::<Sender>() <= 80);

impl Sender {
    fn newest(&self) -> MsgId {
        self.ids.back().map_or(self.floor, Taken::id)
    }

    fn cost(&self) -> u64 {
        self.ids.capacity() as u64 + SENDER_COST_IDS
    }

    /// Adds an id, forgetting the smallest when there are too many. Returns the dot of another record with the same id.
    fn insert(&mut self, id: MsgId, dot: u64) -> Option<u64> {
        if id <= self.floor {
            return None;
        }
        let place = match self.ids.back() {
            Some(last) if id <= last.id() => match self.ids.binary_search_by_key(&id, Taken::id) {
                Ok(place) => {
                    let known = &mut self.ids[place];
                    if known.dot == 0 {
                        known.dot = dot;
                    }
                    return (dot != 0 && known.dot != dot).then_some(known.dot);
                }
                Err(place) => place,
            },
            _ => self.ids.len(),
        };
        let taken = Taken::new(id, dot);
        if self.ids.len() < DEDUP_IDS_PER_SENDER_MAX {
            self.ids.insert(place, taken);
        } else if place == 0 {
            self.floor = id;
        } else {
            self.floor = self.ids.pop_front().expect("it holds the most ids it may").id();
            self.ids.insert(place - 1, taken);
        }
        None
    }

    fn raise_floor(&mut self, floor: MsgId) {
        if floor > self.floor {
            self.floor = floor;
            let forgotten = self.ids.partition_point(|taken| taken.id() <= floor);
            self.ids.drain(..forgotten);
        }
    }
}

impl Slot for Sender {
    fn is_live(&self) -> bool {
        self.live
    }

    fn vacate(&mut self, next_free: u32) {
        self.ids = VecDeque::new();
        self.live = false;
        self.next_free = next_free;
    }

    fn next_free(&self) -> u32 {
        self.next_free
    }
}

struct ShardSenders {
    slab: Slab<Sender, 64>,
    index: Index,
}

/// What is known of an id.
pub(super) enum Verdict {
    /// It is in.
    Known,
    /// It is not; [`Dedup::insert`] takes the place.
    New(Place),
}

/// Where a new id goes.
pub(super) struct Place {
    shard: ShardId,
    sender: UserKey,
    hash: u64,
    slot: u32,
}

/// Where a checkpoint goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckpointCursor {
    at: Hand,
    /// The mark that the records so far tell of.
    forgotten_ms: u64,
}

/// A slot of all shards' senders.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Hand {
    shard: u16,
    slot: u32,
}

/// The senders of all shards of a partition.
pub(super) struct Dedup {
    shards: Vec<ShardSenders>,
    first_owned: ShardId,
    hashing: Hashing,
    window_ms: u64,
    future_ms: u64,
    ids_max: u64,
    /// Room for ids and [`SENDER_COST_IDS`] per sender, together at most `ids_max`.
    cost: u64,
    ids: u64,
    senders: u64,
    /// Ids from this time on are kept although the window no longer covers them: the peer may have taken them, too.
    hold_ms: u64,
    /// Ids before this time may be forgotten although the window still covers them.
    forgotten_ms: u64,
    hand: Hand,
    last_step_ms: u64,
    /// When the next step is due; under pressure a step a millisecond is.
    next_step_ms: u64,
    /// Passes under pressure since it began.
    pressed_passes: u32,
}

impl Dedup {
    /// `owned[shard]` says whether the shard is here.
    pub(super) fn new(
        owned: &[bool],
        hashing: Hashing,
        window_ms: u64,
        future_ms: u64,
        ids_max: u64,
    ) -> Self {
        let here = owned.iter().filter(|owned| **owned).count().max(1);
        let tables = (1024 / here).max(1).next_power_of_two();
        let shard = |owned: &bool| ShardSenders {
            slab: Slab::new(),
            index: Index::new(if *owned { tables } else { 1 }),
        };
        Self {
            shards: owned.iter().map(shard).collect(),
            first_owned: ShardId(owned.iter().position(|owned| *owned).unwrap_or(0) as u16),
            hashing,
            window_ms,
            future_ms,
            ids_max,
            cost: 0,
            ids: 0,
            senders: 0,
            hold_ms: u64::MAX,
            forgotten_ms: 0,
            hand: Hand::default(),
            last_step_ms: 0,
            next_step_ms: 0,
            pressed_passes: 0,
        }
    }

    pub(super) fn ids(&self) -> u64 {
        self.ids
    }

    pub(super) fn senders(&self) -> u64 {
        self.senders
    }

    /// Room in use, in ids, of `ids_max`.
    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    /// Decides about an id of a sender.
    pub(super) fn check(
        &self,
        shard: ShardId,
        sender: UserKey,
        id: MsgId,
        now: u64,
    ) -> Result<Verdict, RejectCode> {
        let id_ms = id.unix_ms();
        if id_ms < now.saturating_sub(self.window_ms) {
            return Err(RejectCode::IdTooOld);
        }
        if id_ms > now + self.future_ms {
            return Err(RejectCode::IdInFuture);
        }
        let hash = self.hashing.of(&sender.0);
        let senders = &self.shards[usize::from(shard.0)];
        let found = senders.index.find(hash, |slot| senders.slab[slot].key == sender);
        let place = Place { shard, sender, hash, slot: found.unwrap_or(NIL) };
        let mut needs_room = SENDER_COST_IDS + 4;
        if let Some(slot) = found {
            let known = &senders.slab[slot];
            let last = known.ids.back().map(Taken::id);
            if last.is_some_and(|last| id <= last)
                && known.ids.binary_search_by_key(&id, Taken::id).is_ok()
            {
                return Ok(Verdict::Known);
            }
            let is_full = known.ids.len() == DEDUP_IDS_PER_SENDER_MAX;
            if id <= known.floor || (is_full && id < known.ids[0].id()) {
                return Err(RejectCode::StaleId);
            }
            let has_room = is_full || known.ids.len() < known.ids.capacity();
            needs_room = if has_room { 0 } else { known.ids.capacity().max(4) as u64 };
        }
        if id_ms < self.forgotten_until(now) {
            return Err(RejectCode::StaleId);
        }
        if needs_room > 0 && self.cost + needs_room > self.ids_max {
            return Err(RejectCode::Overloaded);
        }
        Ok(Verdict::New(place))
    }

    /// Ids before this time are forgotten. A mark ahead of the present was made under a wrong clock; obeying it would
    /// refuse every SEND.
    fn forgotten_until(&self, now: u64) -> u64 {
        if self.forgotten_ms > now { 0 } else { self.forgotten_ms }
    }

    /// Remembers an id that [`Dedup::check`] found new, and the record that it is in.
    pub(super) fn insert(&mut self, place: Place, id: MsgId, dot: u64) {
        let slot = match place.slot {
            NIL => self.add_sender(place.shard, place.sender, place.hash),
            slot => slot,
        };
        self.change(place.shard, slot, |sender| _ = sender.insert(id, dot));
    }

    /// Remembers an id of a record from the log or from the peer. Returns the dot of another record with the same id, 0 if
    /// that record is gone.
    pub(super) fn take_id(
        &mut self,
        shard: ShardId,
        sender: UserKey,
        id: MsgId,
        dot: u64,
    ) -> Option<u64> {
        let slot = self.find_or_add(shard, sender);
        let mut other = None;
        self.change(shard, slot, |sender| other = sender.insert(id, dot));
        other
    }

    /// Of two records with this id, `dot` is the one that stays.
    pub(super) fn set_dot(&mut self, shard: ShardId, sender: UserKey, id: MsgId, dot: u64) {
        let hash = self.hashing.of(&sender.0);
        let senders = &mut self.shards[usize::from(shard.0)];
        let found = senders.index.find(hash, |slot| senders.slab[slot].key == sender);
        let Some(known) = found.map(|slot| &mut senders.slab[slot].ids) else { return };
        if let Ok(place) = known.binary_search_by_key(&id, Taken::id) {
            known[place].dot = dot;
        }
    }

    fn find_or_add(&mut self, shard: ShardId, sender: UserKey) -> u32 {
        let hash = self.hashing.of(&sender.0);
        let senders = &self.shards[usize::from(shard.0)];
        match senders.index.find(hash, |slot| senders.slab[slot].key == sender) {
            Some(slot) => slot,
            None => self.add_sender(shard, sender, hash),
        }
    }

    fn add_sender(&mut self, shard: ShardId, key: UserKey, hash: u64) -> u32 {
        let ShardSenders { slab, index } = &mut self.shards[usize::from(shard.0)];
        let ids = VecDeque::new();
        let slot = slab.insert(Sender { key, floor: MsgId(0), ids, next_free: NIL, live: true });
        index.insert(hash, slot);
        self.senders += 1;
        self.cost += SENDER_COST_IDS;
        slot
    }

    fn remove_sender(&mut self, shard: ShardId, slot: u32) {
        self.change(shard, slot, |sender| sender.ids = VecDeque::new());
        let senders = &mut self.shards[usize::from(shard.0)];
        let hash = self.hashing.of(&senders.slab[slot].key.0);
        senders.index.remove(hash, slot);
        senders.slab.remove(slot);
        self.senders -= 1;
        self.cost -= SENDER_COST_IDS;
    }

    /// Changes a sender and keeps the books.
    fn change(&mut self, shard: ShardId, slot: u32, change: impl FnOnce(&mut Sender)) {
        let sender = &mut self.shards[usize::from(shard.0)].slab[slot];
        let (cost, ids) = (sender.cost(), sender.ids.len() as u64);
        change(sender);
        self.cost = self.cost - cost + sender.cost();
        self.ids = self.ids - ids + sender.ids.len() as u64;
    }

    /// Ids from this time on are not forgotten by the window; `u64::MAX` ends that.
    pub(super) fn hold(&mut self, from_ms: u64) {
        self.hold_ms = from_ms;
    }

    /// When [`Dedup::sweep`] wants to run, Unix milliseconds.
    pub(super) fn next_step_ms(&self) -> u64 {
        if self.is_pressed() { self.last_step_ms + 1 } else { self.next_step_ms }
    }

    /// The clock was set back: what was due later may be due now.
    pub(super) fn sweep_soon(&mut self) {
        (self.last_step_ms, self.next_step_ms) = (0, 0);
    }

    fn is_pressed(&self) -> bool {
        self.cost > self.ids_max / 8 * 7
    }

    /// Looks at some senders and forgets what the window no longer covers, or more when memory is short.
    pub(super) fn sweep(&mut self, now: u64) {
        if now < self.next_step_ms() {
            return;
        }
        let mut seen = 0;
        while seen < STEP_SENDERS {
            let slots = self.shards[usize::from(self.hand.shard)].slab.slots();
            if self.hand.slot >= slots {
                self.hand = Hand { shard: self.hand.shard + 1, slot: 0 };
                seen += 1;
                if usize::from(self.hand.shard) >= self.shards.len() {
                    self.end_pass(now);
                    break;
                }
                continue;
            }
            self.sweep_slot(ShardId(self.hand.shard), self.hand.slot, now);
            self.hand.slot += 1;
            seen += 1;
        }
        let steps = 1 + (self.senders + self.shards.len() as u64) / u64::from(STEP_SENDERS);
        self.last_step_ms = now;
        self.next_step_ms = now + PASS_MS.div_ceil(steps);
    }

    fn sweep_slot(&mut self, shard: ShardId, slot: u32, now: u64) {
        let Some(sender) = self.shards[usize::from(shard.0)].slab.live(slot) else { return };
        let window = now.saturating_sub(self.window_ms).min(self.hold_ms);
        let cut_ms = window.max(self.forgotten_until(now));
        let newest_ms = sender.newest().unix_ms();
        if newest_ms > now + self.window_ms + self.future_ms {
            // Accepted under a clock that was far ahead; its floor would refuse every id of today.
            return self.remove_sender(shard, slot);
        }
        if newest_ms < cut_ms {
            self.forgotten_ms = self.forgotten_ms.max(newest_ms + 1);
            return self.remove_sender(shard, slot);
        }
        let is_idle = newest_ms + RETRY_MS_MIN < now;
        let empties = self.is_pressed() && is_idle && sender.ids.capacity() > 0;
        self.change(shard, slot, |sender| {
            if empties {
                sender.floor = sender.newest();
                sender.ids = VecDeque::new();
            }
            while let Some(id) =
                sender.ids.front().map(Taken::id).filter(|id| id.unix_ms() < cut_ms)
            {
                sender.floor = id;
                sender.ids.pop_front();
            }
            if sender.ids.capacity() > 4 && sender.ids.len() * 4 <= sender.ids.capacity() {
                sender.ids.shrink_to((sender.ids.len() * 2).max(4));
            }
        });
    }

    fn end_pass(&mut self, now: u64) {
        self.hand = Hand::default();
        if !self.is_pressed() {
            self.pressed_passes = 0;
            return;
        }
        // The first pass under pressure empties the idle; each further one halves the window.
        self.pressed_passes = (self.pressed_passes + 1).min(32);
        if self.pressed_passes > 1 {
            let kept_ms = (self.window_ms >> (self.pressed_passes - 1)).max(RETRY_MS_MIN);
            self.forgotten_ms = self.forgotten_until(now).max(now.saturating_sub(kept_ms));
        }
    }
}

/// DEDUP records: `version u8 = 1, zero u8 x3, count u32, forgotten_ms u64`, then for each sender
/// `key 16, floor 16, ids u32, ids x 16`. Integers little-endian, message ids big-endian as everywhere.
const HEADER_BYTES: usize = 16;
const SENDER_HEADER_BYTES: usize = 36;
const _: () = assert!(
    HEADER_BYTES + SENDER_HEADER_BYTES + 16 * DEDUP_IDS_PER_SENDER_MAX <= DEDUP_RECORD_BYTES_MAX
);
/// Slots looked at for one record, at most.
const CHECKPOINT_SLOTS: u32 = 4096;

impl Dedup {
    /// Writes the next part of a checkpoint into `body`: at most [`DEDUP_RECORD_BYTES_MAX`] of one shard, nothing when the
    /// part has nothing to tell. Returns the shard and where to go on, `None` at the end.
    /// `tells` says whether to tell of an id, by shard and packed dot.
    pub(super) fn checkpoint(
        &self,
        from: CheckpointCursor,
        body: &mut Vec<u8>,
        tells: impl Fn(ShardId, u64) -> bool,
    ) -> (ShardId, Option<CheckpointCursor>) {
        body.clear();
        body.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        body.extend_from_slice(&self.forgotten_ms.to_le_bytes());
        // The mark may rise on the way, for senders that are gone before their turn: then it is told again.
        let is_told = self.forgotten_ms == from.forgotten_ms;
        let Some(from) = self.at_senders(from.at) else {
            if is_told {
                body.clear();
            }
            return (self.first_owned, None);
        };
        let shard = ShardId(from.shard);
        let slab = &self.shards[usize::from(shard.0)].slab;
        let (mut slot, mut count) = (from.slot, 0_u32);
        let last = from.slot.saturating_add(CHECKPOINT_SLOTS).min(slab.slots());
        while slot < last {
            if let Some(sender) = slab.live(slot) {
                let told = || sender.ids.iter().filter(|taken| tells(shard, taken.dot));
                let ids = told().count();
                let bytes = SENDER_HEADER_BYTES + 16 * ids;
                if body.len() + bytes > DEDUP_RECORD_BYTES_MAX {
                    break;
                }
                body.extend_from_slice(&sender.key.0);
                body.extend_from_slice(&sender.floor.0.to_be_bytes());
                body.extend_from_slice(&(ids as u32).to_le_bytes());
                told().for_each(|taken| body.extend_from_slice(&taken.id().0.to_be_bytes()));
                count += 1;
            }
            slot += 1;
        }
        body[4..8].copy_from_slice(&count.to_le_bytes());
        if count == 0 && is_told {
            body.clear();
        }
        let next = self.at_senders(Hand { shard: shard.0, slot });
        let forgotten_ms = self.forgotten_ms;
        (shard, next.map(|at| CheckpointCursor { at, forgotten_ms }))
    }

    /// The next slot at or after a cursor that was ever used.
    fn at_senders(&self, from: Hand) -> Option<Hand> {
        let shards = self.shards.iter().enumerate().skip(usize::from(from.shard));
        let slots = shards.map(|(shard, senders)| (shard as u16, senders.slab.slots()));
        slots
            .map(|(shard, slots)| (shard, if shard == from.shard { from.slot } else { 0 }, slots))
            .find(|(_, slot, slots)| slot < slots)
            .map(|(shard, slot, _)| Hand { shard, slot })
    }

    /// Takes over a DEDUP record. The result is the same in whatever order records and ids come, and however often:
    /// the highest floor, and the newest ids above it.
    pub(super) fn recover(&mut self, shard: ShardId, body: &[u8]) -> Result<(), BadRecord> {
        let senders = parse(body).ok_or(BadRecord::Dedup)?;
        let forgotten_ms = body[8..16].try_into().map(u64::from_le_bytes).expect("eight bytes");
        self.forgotten_ms = self.forgotten_ms.max(forgotten_ms);
        for (key, floor, ids) in senders {
            let slot = self.find_or_add(shard, key);
            self.change(shard, slot, |sender| {
                sender.raise_floor(floor);
                ids.chunks_exact(16).for_each(|id| _ = sender.insert(msg_id(id), 0));
            });
        }
        Ok(())
    }

    /// After recovery: forgets what is too old, however many senders there are.
    pub(super) fn recovery_done(&mut self, now: u64) {
        for shard in 0..self.shards.len() as u16 {
            for slot in 0..self.shards[usize::from(shard)].slab.slots() {
                self.sweep_slot(ShardId(shard), slot, now);
            }
        }
        self.next_step_ms = now + PASS_MS;
    }
}

fn msg_id(bytes: &[u8]) -> MsgId {
    MsgId(u128::from_be_bytes(bytes.try_into().expect("sixteen bytes")))
}

/// Checks a whole DEDUP record before anything of it is used.
fn parse(body: &[u8]) -> Option<impl Iterator<Item = (UserKey, MsgId, &[u8])>> {
    if body.len() < HEADER_BYTES || body[0] != 1 {
        return None;
    }
    let count = u32::from_le_bytes(body[4..8].try_into().ok()?) as usize;
    let mut rest = &body[HEADER_BYTES..];
    for _ in 0..count {
        rest = split_sender(rest)?.1;
    }
    if !rest.is_empty() {
        return None;
    }
    let mut rest = &body[HEADER_BYTES..];
    Some(std::iter::from_fn(move || {
        let (sender, tail) = split_sender(rest)?;
        rest = tail;
        Some(sender)
    }))
}

type ParsedSender<'a> = (UserKey, MsgId, &'a [u8]);

fn split_sender(bytes: &[u8]) -> Option<(ParsedSender<'_>, &[u8])> {
    let (header, rest) = bytes.split_at_checked(SENDER_HEADER_BYTES)?;
    let key = UserKey(header[..16].try_into().ok()?);
    let floor = msg_id(&header[16..32]);
    let count = u32::from_le_bytes(header[32..].try_into().ok()?) as usize;
    if count > DEDUP_IDS_PER_SENDER_MAX {
        return None;
    }
    let (ids, rest) = rest.split_at_checked(count * 16)?;
    Some(((key, floor, ids), rest))
}
