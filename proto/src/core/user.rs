//! A user: their session if they are online, their inbox as a list of entries, and who watches them.
//!
//! A user has a record while online, while messages wait, or while watched. In a list of entries stand, in this order:
//! those kept although their number passed (unreadable on disk), those in flight, and those not delivered yet.

use super::index::{Hashing, Index};
use super::names::NameRef;
use super::slab::{NIL, Slab, Slot};
use crate::id::{ConnId, UserKey};

pub(super) const LIVE: u16 = 1;
pub(super) const ONLINE: u16 = 2;
/// In the list of users who want a turn.
pub(super) const QUEUED: u16 = 4;
/// Entries before the cursor may be tombed.
pub(super) const HAS_TOMBED: u16 = 16;

/// Among those who wait for room on the way to them.
pub(super) const STALLED: u16 = 8;

/// One user. The lists are indices of entries, watches and receipts.
pub(super) struct User {
    pub(super) key: UserKey,
    /// The session; means something while ONLINE.
    pub(super) conn: ConnId,
    /// When they came or left, Unix milliseconds; 0 before the first login.
    pub(super) since_ms: u64,
    /// Which login the session goes back to; means something while ONLINE.
    pub(super) session: u64,
    /// What the entries in the list count against the bytes of an inbox.
    pub(super) bytes: u64,
    pub(super) head: u32,
    pub(super) tail: u32,
    /// The first entry that was not delivered to this session.
    pub(super) cursor: u32,
    /// The last entry that was passed and kept.
    pub(super) kept_tail: u32,
    /// Entries in the list.
    pub(super) count: u32,
    /// Deliveries made to this session.
    pub(super) sent: u32,
    /// Deliveries done with; in flight are those above, up to `sent`.
    pub(super) done: u32,
    /// Bytes of the records in flight.
    pub(super) flight_bytes: u32,
    /// Deliveries that the client acknowledged and that no TOMB record covers yet.
    pub(super) acks_owed: u16,
    pub(super) window: u16,
    pub(super) watcher_count: u16,
    pub(super) flags: u16,
    pub(super) name: NameRef,
    pub(super) watchers: u32,
    /// Receipts of deliveries in flight: the last one of a circle in order of number.
    pub(super) receipts: u32,
    /// The next user who wants a turn; of a free slot, the next free one.
    pub(super) next: u32,
}

const _: () = assert!(size_of::<User>() == 104, "a million users are 104 MB");
const _: () = assert!(crate::limits::RECV_WINDOW_MAX <= u16::MAX as u32);
const _: () = assert!(crate::limits::WATCHERS_PER_USER_MAX <= u16::MAX as usize);

impl User {
    fn new(key: UserKey) -> Self {
        Self {
            key,
            conn: ConnId(0),
            since_ms: 0,
            session: 0,
            bytes: 0,
            head: NIL,
            tail: NIL,
            cursor: NIL,
            kept_tail: NIL,
            count: 0,
            sent: 0,
            done: 0,
            flight_bytes: 0,
            acks_owed: 0,
            window: 0,
            watcher_count: 0,
            flags: LIVE,
            name: NameRef::NONE,
            watchers: NIL,
            receipts: NIL,
            next: NIL,
        }
    }

    pub(super) fn is_online(&self) -> bool {
        self.flags & ONLINE != 0
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.sent - self.done
    }

    /// The oldest delivery in flight is over. Its record may have become shorter since it was delivered, when a copy for
    /// fewer recipients took its place; so the bytes are put right whenever nothing is in flight.
    pub(super) fn finish_delivery(&mut self, len: u32) {
        self.done += 1;
        self.flight_bytes =
            if self.in_flight() == 0 { 0 } else { self.flight_bytes.saturating_sub(len) };
    }

    /// Whether a turn could do anything: an ACK to settle, or a message and credit for it.
    pub(super) fn wants_turn(&self, flight_bytes_max: u32) -> bool {
        let may_deliver = self.cursor != NIL
            && self.in_flight() < u32::from(self.window)
            && self.flight_bytes < flight_bytes_max;
        self.is_online() && (self.acks_owed > 0 || may_deliver)
    }
}

impl Slot for User {
    fn is_live(&self) -> bool {
        self.flags & LIVE != 0
    }

    fn vacate(&mut self, next_free: u32) {
        self.flags = 0;
        self.next = next_free;
    }

    fn next_free(&self) -> u32 {
        self.next
    }
}

/// All users who have a record.
pub(super) struct Users {
    slab: Slab<User, 1024>,
    index: Index,
    hashing: Hashing,
    ready_head: u32,
    ready_tail: u32,
}

impl Users {
    pub(super) fn new(hashing: Hashing) -> Self {
        Self {
            slab: Slab::new(),
            index: Index::new(512),
            hashing,
            ready_head: NIL,
            ready_tail: NIL,
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.slab.used()
    }

    pub(super) fn slots(&self) -> u32 {
        self.slab.slots()
    }

    pub(super) fn live(&self, user: u32) -> Option<&User> {
        self.slab.live(user)
    }

    pub(super) fn hash(&self, key: UserKey) -> u64 {
        self.hashing.of(&key.0)
    }

    #[inline]
    pub(super) fn find_hashed(&self, hash: u64, key: UserKey) -> Option<u32> {
        self.index.find(hash, |user| self.slab[user].key == key)
    }

    pub(super) fn find(&self, key: UserKey) -> Option<u32> {
        self.find_hashed(self.hash(key), key)
    }

    /// Adds a user who has no record yet.
    pub(super) fn insert_hashed(&mut self, hash: u64, key: UserKey) -> u32 {
        let user = self.slab.insert(User::new(key));
        self.index.insert(hash, user);
        user
    }

    pub(super) fn find_or_insert(&mut self, key: UserKey) -> u32 {
        let hash = self.hash(key);
        match self.find_hashed(hash, key) {
            Some(user) => user,
            None => self.insert_hashed(hash, key),
        }
    }

    /// Frees the record if nothing needs it.
    pub(super) fn release(&mut self, user: u32) {
        let record = &self.slab[user];
        if record.flags == LIVE && record.count == 0 && record.watchers == NIL {
            self.index.remove(self.hash(record.key), user);
            self.slab.remove(user);
        }
    }

    /// Puts a user at the end of the line for a turn, once.
    pub(super) fn queue(&mut self, user: u32) {
        let record = &mut self.slab[user];
        if record.flags & QUEUED != 0 {
            return;
        }
        record.flags |= QUEUED;
        record.next = NIL;
        match self.ready_tail {
            NIL => self.ready_head = user,
            tail => self.slab[tail].next = user,
        }
        self.ready_tail = user;
    }

    /// Takes the first user off the line.
    pub(super) fn next_ready(&mut self) -> Option<u32> {
        let user = self.ready_head;
        if user == NIL {
            return None;
        }
        let record = &mut self.slab[user];
        record.flags &= !QUEUED;
        self.ready_head = record.next;
        if self.ready_head == NIL {
            self.ready_tail = NIL;
        }
        Some(user)
    }

    pub(super) fn any_ready(&self) -> bool {
        self.ready_head != NIL
    }
}

impl std::ops::Index<u32> for Users {
    type Output = User;

    #[inline]
    fn index(&self, user: u32) -> &User {
        &self.slab[user]
    }
}

impl std::ops::IndexMut<u32> for Users {
    #[inline]
    fn index_mut(&mut self, user: u32) -> &mut User {
        &mut self.slab[user]
    }
}
