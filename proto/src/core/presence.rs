//! Who hears when a user comes or goes.
//!
//! A watch is one connection's interest in one user. It is in three places: the user's list (to tell), the
//! connection's list (to end them all), and an index by both (to have no second one).

use hashbrown::HashTable;

use super::index::{Hashing, Index};
use super::slab::{NIL, Slab, Slot};
use super::user::Users;
use crate::id::{ConnId, UserKey};
use crate::limits::{WATCHED_PER_CONNECTION_MAX, WATCHERS_PER_USER_MAX};

use super::effects::Watch as Outcome;

struct Watch {
    conn: ConnId,
    /// [`NIL`] in a free slot.
    user: u32,
    next_of_user: u32,
    previous_of_user: u32,
    /// Of a free slot, the next free one.
    next_of_conn: u32,
    previous_of_conn: u32,
}

const _: () = assert!(size_of::<Watch>() == 32);

impl Slot for Watch {
    fn is_live(&self) -> bool {
        self.user != NIL
    }

    fn vacate(&mut self, next_free: u32) {
        self.user = NIL;
        self.next_of_conn = next_free;
    }

    fn next_free(&self) -> u32 {
        self.next_of_conn
    }
}

#[derive(Debug)]
struct Watcher {
    conn: ConnId,
    head: u32,
    count: u32,
}

/// All watches of a partition.
pub(super) struct Watches {
    slab: Slab<Watch, 1024>,
    index: Index,
    watchers: HashTable<Watcher>,
    hashing: Hashing,
    max: u32,
}

impl Watches {
    pub(super) fn new(hashing: Hashing, max: u32) -> Self {
        let index = Index::new(64);
        Self { slab: Slab::new(), index, watchers: HashTable::new(), hashing, max }
    }

    pub(super) fn len(&self) -> u32 {
        self.slab.used()
    }

    fn conn_hash(&self, conn: ConnId) -> u64 {
        self.hashing.of(&conn.0.to_le_bytes())
    }

    fn hash_of(hashing: &Hashing, conn: ConnId, user: u32) -> u64 {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&conn.0.to_le_bytes());
        bytes[8..].copy_from_slice(&user.to_le_bytes());
        hashing.of(&bytes)
    }

    fn find(&self, conn: ConnId, user: u32) -> Option<u32> {
        let hash = Self::hash_of(&self.hashing, conn, user);
        let is_it = |slot| {
            let watch: &Watch = &self.slab[slot];
            watch.conn == conn && watch.user == user
        };
        self.index.find(hash, is_it)
    }

    /// Makes `conn` a watcher of the user with this key, who gets a record if there is none.
    pub(super) fn add(&mut self, users: &mut Users, conn: ConnId, key: UserKey) -> Outcome {
        let known = users.find(key);
        if known.is_some_and(|user| self.find(conn, user).is_some()) {
            return Outcome::Watching;
        }
        let conn_hash = self.conn_hash(conn);
        let watcher = self.watchers.find(conn_hash, |watcher| watcher.conn == conn);
        if watcher.is_some_and(|watcher| watcher.count as usize >= WATCHED_PER_CONNECTION_MAX) {
            return Outcome::ConnectionFull;
        }
        let watched_by = known.map_or(0, |user| usize::from(users[user].watcher_count));
        if watched_by >= WATCHERS_PER_USER_MAX {
            return Outcome::UserFull;
        }
        if self.slab.used() >= self.max {
            return Outcome::PartitionFull;
        }
        let user = known.unwrap_or_else(|| users.find_or_insert(key));
        self.link(users, conn, conn_hash, user);
        Outcome::Watching
    }

    fn link(&mut self, users: &mut Users, conn: ConnId, conn_hash: u64, user: u32) {
        let Self { slab, index, watchers, hashing, .. } = self;
        let rehash = |watcher: &Watcher| hashing.of(&watcher.conn.0.to_le_bytes());
        let watcher = watchers
            .entry(conn_hash, |watcher| watcher.conn == conn, rehash)
            .or_insert(Watcher { conn, head: NIL, count: 0 })
            .into_mut();
        let record = &mut users[user];
        let slot = slab.insert(Watch {
            conn,
            user,
            next_of_user: record.watchers,
            previous_of_user: NIL,
            next_of_conn: watcher.head,
            previous_of_conn: NIL,
        });
        if record.watchers != NIL {
            slab[record.watchers].previous_of_user = slot;
        }
        if watcher.head != NIL {
            slab[watcher.head].previous_of_conn = slot;
        }
        record.watchers = slot;
        record.watcher_count += 1;
        watcher.head = slot;
        watcher.count += 1;
        index.insert(Self::hash_of(hashing, conn, user), slot);
    }

    /// Ends one watch, if there is one.
    pub(super) fn remove(&mut self, users: &mut Users, conn: ConnId, key: UserKey) {
        if let Some(user) = users.find(key)
            && let Some(slot) = self.find(conn, user)
        {
            self.unlink(users, slot);
        }
    }

    /// Ends all watches of a connection.
    pub(super) fn remove_all(&mut self, users: &mut Users, conn: ConnId) {
        let hash = self.conn_hash(conn);
        while let Some(watcher) = self.watchers.find(hash, |watcher| watcher.conn == conn) {
            let head = watcher.head;
            self.unlink(users, head);
        }
    }

    /// Ends the watches of connections that are gone, as far as some places. Returns where to go on, `None` at the end.
    pub(super) fn remove_some(
        &mut self,
        users: &mut Users,
        from: u32,
        slots_max: u32,
        is_gone: impl Fn(ConnId) -> bool,
    ) -> Option<u32> {
        let end = self.slab.slots().min(from.saturating_add(slots_max));
        for slot in from..end {
            if self.slab.live(slot).is_some_and(|watch| is_gone(watch.conn)) {
                self.unlink(users, slot);
            }
        }
        (end < self.slab.slots()).then_some(end)
    }

    fn unlink(&mut self, users: &mut Users, slot: u32) {
        let Watch { conn, user, next_of_user, previous_of_user, next_of_conn, previous_of_conn } =
            self.slab[slot];
        let record = &mut users[user];
        match previous_of_user {
            NIL => record.watchers = next_of_user,
            previous => self.slab[previous].next_of_user = next_of_user,
        }
        if next_of_user != NIL {
            self.slab[next_of_user].previous_of_user = previous_of_user;
        }
        record.watcher_count -= 1;
        let conn_hash = self.conn_hash(conn);
        let found = self.watchers.find_entry(conn_hash, |watcher| watcher.conn == conn);
        let mut watcher = found.expect("who has a watch is a watcher");
        match previous_of_conn {
            NIL => watcher.get_mut().head = next_of_conn,
            previous => self.slab[previous].next_of_conn = next_of_conn,
        }
        if next_of_conn != NIL {
            self.slab[next_of_conn].previous_of_conn = previous_of_conn;
        }
        watcher.get_mut().count -= 1;
        if watcher.get().count == 0 {
            watcher.remove();
        }
        self.index.remove(Self::hash_of(&self.hashing, conn, user), slot);
        self.slab.remove(slot);
        users.release(user);
    }

    /// The connections that watch a user.
    pub(super) fn of(&self, users: &Users, user: u32) -> impl Iterator<Item = ConnId> {
        let mut next = users[user].watchers;
        std::iter::from_fn(move || {
            let watch = (next != NIL).then(|| &self.slab[next])?;
            next = watch.next_of_user;
            Some(watch.conn)
        })
    }
}
