//! Messages that wait: 28 bytes each, in one list per inbox. What they say stays in the log.

use std::collections::BTreeMap;

use super::effects::Pos;
use super::slab::{NIL, Slab, Slot};
use super::user::User;
use crate::id::{Dot, Origin};
use crate::limits::RECIPIENTS_MAX;

/// Largest sequence number an entry can hold, exclusive. At 10^6 records a second that is nine years of one life.
pub(super) const SEQ_END: u64 = 1 << 48;
/// Largest length of a record, exclusive.
pub(super) const LEN_END: u32 = 1 << 20;

/// Flags of an entry, above its length.
const LIVE: u32 = 1 << 20;
const WANTS_RECEIPT: u32 = 1 << 21;
const UNREADABLE: u32 = 1 << 22;
/// A TOMB of the peer removed it while it was in flight: it leaves the list when its number is acknowledged.
const TOMBED: u32 = 1 << 23;
/// Above the flags: how many inboxes its record names, less one.
const OTHERS_SHIFT: u32 = 24;

const _: () = assert!(RECIPIENTS_MAX - 1 <= 0xff, "eight bits are left for them");

/// A dot in eight bytes: the sequence number, then the origin's number. Never 0.
pub(super) fn pack(origin: u16, seq: u64) -> u64 {
    seq << 16 | u64::from(origin)
}

/// One message in one inbox.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pos: Pos,
    seq_low: u32,
    seq_high: u16,
    /// Index into [`Origins`].
    origin: u16,
    /// The next entry of the inbox; of a free slot, the next free one.
    pub(super) next: u32,
    /// Whose inbox.
    pub(super) user: u32,
    /// Length in the low 20 bits, then four flags, then the number of other inboxes that the record names.
    len_and_flags: u32,
}

const _: () = assert!(size_of::<Entry>() == 28, "at most 32 bytes per queued message");

impl Entry {
    /// Of a record that names so many inboxes.
    pub(super) fn new(
        pos: Pos,
        len: u32,
        origin: u16,
        seq: u64,
        wants_receipt: bool,
        recipients: usize,
    ) -> Self {
        assert!(
            len < LEN_END && seq < SEQ_END,
            "lengths and sequences were checked where they came in"
        );
        let flags = if wants_receipt { LIVE | WANTS_RECEIPT } else { LIVE };
        let flags = flags | others(recipients) << OTHERS_SHIFT;
        Self {
            pos,
            seq_low: seq as u32,
            seq_high: (seq >> 32) as u16,
            origin,
            next: NIL,
            user: NIL,
            len_and_flags: flags | len,
        }
    }

    pub(super) fn pos(&self) -> Pos {
        self.pos
    }

    pub(super) fn len(&self) -> u32 {
        self.len_and_flags & (LEN_END - 1)
    }

    /// What counts against the bytes of an inbox: the record without the keys of the inboxes that it names, so that a copy
    /// for fewer of them counts the same.
    pub(super) fn charge(&self) -> u32 {
        let recipients = (self.len_and_flags >> OTHERS_SHIFT) + 1;
        self.len().saturating_sub(16 * recipients)
    }

    pub(super) fn origin(&self) -> u16 {
        self.origin
    }

    pub(super) fn seq(&self) -> u64 {
        u64::from(self.seq_high) << 32 | u64::from(self.seq_low)
    }

    pub(super) fn wants_receipt(&self) -> bool {
        self.has(WANTS_RECEIPT)
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.has(UNREADABLE)
    }

    pub(super) fn set_unreadable(&mut self, unreadable: bool) {
        self.len_and_flags = match unreadable {
            true => self.len_and_flags | UNREADABLE,
            false => self.len_and_flags & !UNREADABLE,
        };
    }

    pub(super) fn is_tombed(&self) -> bool {
        self.has(TOMBED)
    }

    pub(super) fn set_tombed(&mut self) {
        self.len_and_flags |= TOMBED;
    }

    /// Its record's packed dot.
    pub(super) fn packed(&self) -> u64 {
        pack(self.origin(), self.seq())
    }

    /// The record has a new place, where it names so many inboxes; a damaged one may be readable there.
    pub(super) fn relocate(&mut self, pos: Pos, len: u32, recipients: usize) {
        assert!(len < LEN_END, "the log keeps records below 2^20 bytes");
        self.pos = pos;
        let flags = self.len_and_flags & (LIVE | WANTS_RECEIPT | UNREADABLE | TOMBED);
        self.len_and_flags = flags | others(recipients) << OTHERS_SHIFT | len;
    }

    fn has(&self, flag: u32) -> bool {
        self.len_and_flags & flag != 0
    }
}

fn others(recipients: usize) -> u32 {
    recipients.saturating_sub(1).min(0xff) as u32
}

impl Slot for Entry {
    fn is_live(&self) -> bool {
        self.has(LIVE)
    }

    fn vacate(&mut self, next_free: u32) {
        self.len_and_flags = 0;
        self.next = next_free;
    }

    fn next_free(&self) -> u32 {
        self.next
    }
}

/// All entries of a partition.
pub(super) type Entries = Slab<Entry, 4096>;

/// Puts an entry at the end of a user's inbox.
pub(super) fn push(
    entries: &mut Entries,
    user: &mut User,
    user_slot: u32,
    mut entry: Entry,
) -> u32 {
    entry.user = user_slot;
    user.bytes += u64::from(entry.charge());
    let slot = entries.insert(entry);
    match user.tail {
        NIL => user.head = slot,
        tail => entries[tail].next = slot,
    }
    user.tail = slot;
    user.count += 1;
    if user.cursor == NIL {
        user.cursor = slot;
    }
    slot
}

/// The oldest delivery in flight, or where it would be.
pub(super) fn first_in_flight(entries: &Entries, user: &User) -> u32 {
    match user.kept_tail {
        NIL => user.head,
        kept => entries[kept].next,
    }
}

/// Takes the oldest delivery in flight out of the inbox.
pub(super) fn remove_first_in_flight(entries: &mut Entries, user: &mut User) -> Entry {
    let slot = first_in_flight(entries, user);
    let entry = entries[slot];
    match user.kept_tail {
        NIL => user.head = entry.next,
        kept => entries[kept].next = entry.next,
    }
    if user.tail == slot {
        user.tail = user.kept_tail;
    }
    user.count -= 1;
    user.bytes -= u64::from(entry.charge());
    entries.remove(slot);
    entry
}

/// The origins that entries name, by a small number: 0 is our own.
pub(super) struct Origins {
    all: Vec<Origin>,
    numbers: BTreeMap<Origin, u16>,
    /// The one asked for last: records of one life come together.
    last: u16,
}

impl Origins {
    pub(super) const OWN: u16 = 0;
    /// Lives of nodes whose records one log can hold.
    pub(super) const MAX: usize = 1 << 16;

    pub(super) fn new(own: Origin) -> Self {
        Self { all: vec![own], numbers: BTreeMap::from([(own, Self::OWN)]), last: Self::OWN }
    }

    /// The number of an origin; `None` when there are too many.
    pub(super) fn intern(&mut self, origin: Origin) -> Option<u16> {
        if self.all[usize::from(self.last)] == origin {
            return Some(self.last);
        }
        let number = match self.numbers.get(&origin) {
            Some(number) => *number,
            None if self.all.len() == Self::MAX => return None,
            None => {
                let number = self.all.len() as u16;
                self.all.push(origin);
                self.numbers.insert(origin, number);
                number
            }
        };
        self.last = number;
        Some(self.last)
    }

    pub(super) fn last_number(&self) -> u16 {
        (self.all.len() - 1) as u16
    }

    pub(super) fn origin(&self, number: u16) -> Origin {
        self.all[usize::from(number)]
    }

    /// The dot that [`pack`] packed.
    pub(super) fn unpack(&self, packed: u64) -> Dot {
        Dot { origin: self.origin(packed as u16), seq: packed >> 16 }
    }

    pub(super) fn dot(&self, entry: &Entry) -> Dot {
        Dot { origin: self.origin(entry.origin), seq: entry.seq() }
    }
}
