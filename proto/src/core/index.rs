//! From keys to slots: a hash table split into many small ones, so that no single growth takes long.

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

/// SipHash-1-3 under keys nobody outside knows. Keys of users come from names, and names from anybody.
#[derive(Clone, Copy)]
pub(super) struct Hashing {
    hasher: SipHasher13,
}

impl Hashing {
    /// `seed` is secret and random in production, anything in a simulation.
    pub(super) fn new(seed: u64) -> Self {
        let other = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self { hasher: SipHasher13::new_with_keys(seed, other) }
    }

    #[inline]
    pub(super) fn of(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash(bytes)
    }
}

/// Slots by the hash of their key. The keys stay with the slots; callers compare them.
pub(super) struct Index {
    tables: Box<[HashTable<u32>]>,
}

impl Index {
    /// An index of `tables` tables, a power of two.
    pub(super) fn new(tables: usize) -> Self {
        assert!(tables.is_power_of_two(), "the bits of a hash choose a table");
        Self { tables: (0..tables).map(|_| HashTable::new()).collect() }
    }

    /// hashbrown uses the low bits and the seven highest ones; these lie between.
    fn table(&self, hash: u64) -> usize {
        (hash >> 36) as usize & (self.tables.len() - 1)
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.tables[self.table(hash)].find(hash, |&slot| is_it(slot)).copied()
    }

    /// Adds a slot whose key is not in yet. `hash_of` is asked when the table grows.
    pub(super) fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        let table = self.table(hash);
        self.tables[table].insert_unique(hash, slot, |&other| hash_of(other));
    }

    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let table = self.table(hash);
        let entry = self.tables[table].find_entry(hash, |&other| other == slot);
        entry.expect("a live slot is in the index").remove();
    }
}
