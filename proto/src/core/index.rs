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

/// A slot and 32 bits of the hash of its key, so that a table grows without a look at the slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    hash: u32,
    slot: u32,
}

/// hashbrown takes the place from the low bits and a tag from the seven highest ones. Multiplying by 2^64 over the golden
/// ratio (Knuth, TAOCP 6.4) spreads 32 bits over both.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Slots by the hash of their key. The keys stay with the slots; callers compare them.
pub(super) struct Index {
    tables: Box<[HashTable<Place>]>,
}

impl Index {
    /// An index of `tables` tables, a power of two.
    pub(super) fn new(tables: usize) -> Self {
        assert!(tables.is_power_of_two(), "the bits of a hash choose a table");
        Self { tables: (0..tables).map(|_| HashTable::new()).collect() }
    }

    /// The upper bits of a hash choose the table, since `spread` takes places from the lower ones.
    fn table(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.tables.len() as u64) >> 32) as usize
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let hash = hash as u32;
        let is_place = |place: &Place| place.hash == hash && is_it(place.slot);
        Some(self.tables[self.table(hash)].find(spread(hash), is_place)?.slot)
    }

    /// Adds a slot whose key is not in yet.
    pub(super) fn insert(&mut self, hash: u64, slot: u32) {
        let hash = hash as u32;
        let table = self.table(hash);
        let place = Place { hash, slot };
        self.tables[table].insert_unique(spread(hash), place, |place| spread(place.hash));
    }

    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let hash = hash as u32;
        let table = self.table(hash);
        let entry = self.tables[table].find_entry(spread(hash), |place| place.slot == slot);
        entry.expect("a live slot is in the index").remove();
    }
}
