//! A table of fixed size whose keys attackers choose: what prefixes and users have used up.
//!
//! It is built like a cache of a CPU: a keyed hash (SipHash-1-3 under a random key, so nobody outside can aim) says in
//! which set of eight places a key may be. Nothing is chained, moved or allocated after the start, so finding, adding and
//! forgetting take the same short time however full it is, and its memory is what was asked for.
//!
//! An entry that has run out is as good as none and makes room first. When a set is full of entries that have not, the
//! one that would have run out first is forgotten: of all, it loses least. Entries that are held (they count connections)
//! are never forgotten. If a set holds nothing else, the newcomer gets no entry and is not limited by it. Both are
//! counted.

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// Places of a set.
const WAYS: usize = 8;

/// What is kept of a key.
pub trait Entry: Default {
    /// From then on it is as good as a new one.
    fn until_ns(&self) -> u64;

    /// It may not be forgotten.
    fn is_held(&self) -> bool {
        false
    }
}

/// A key: an address prefix, or a user.
pub type Key = [u8; 16];

#[derive(Clone, Default, Debug)]
struct Place<E> {
    key: Key,
    entry: E,
}

/// The table.
#[derive(Debug)]
pub struct Table<E> {
    /// Sets one after another; a place that was never used is one that has run out.
    places: Vec<Place<E>>,
    /// Number of sets, a power of two, less one.
    mask: usize,
    hasher: SipHasher13,
    /// Entries that were forgotten before they had run out.
    forgotten: u64,
    /// Times that there was no room for an entry.
    untracked: u64,
}

impl<E: Entry + Clone> Table<E> {
    /// Room for `entries`, rounded up to eight times a power of two.
    pub fn new(entries: usize, key: [u64; 2]) -> Self {
        let sets = entries.div_ceil(WAYS).max(1).next_power_of_two();
        Self {
            places: vec![Place::default(); sets * WAYS],
            mask: sets - 1,
            hasher: SipHasher13::new_with_keys(key[0], key[1]),
            forgotten: 0,
            untracked: 0,
        }
    }

    fn set(&mut self, key: &Key) -> &mut [Place<E>] {
        let mut hasher = self.hasher;
        hasher.write(key);
        let set = hasher.finish() as usize & self.mask;
        &mut self.places[set * WAYS..][..WAYS]
    }

    /// The entry of a key, if there is one.
    pub fn find(&mut self, key: &Key) -> Option<&mut E> {
        self.set(key).iter_mut().find(|place| place.key == *key).map(|place| &mut place.entry)
    }

    /// The entry of a key; a new one if there is none. `None`: there is no room.
    pub fn entry(&mut self, key: &Key, now_ns: u64) -> Option<&mut E> {
        let set = self.set(key);
        let at = match set.iter().position(|place| place.key == *key) {
            Some(at) => at,
            None => {
                let free = set.iter().enumerate().filter(|(_, place)| !place.entry.is_held());
                let Some((at, place)) = free.min_by_key(|(_, place)| place.entry.until_ns()) else {
                    self.untracked += 1;
                    return None;
                };
                let lives = place.entry.until_ns() > now_ns;
                set[at] = Place { key: *key, entry: E::default() };
                self.forgotten += u64::from(lives);
                at
            }
        };
        Some(&mut self.set(key)[at].entry)
    }

    /// Entries that were forgotten before they had run out, and newcomers for whom there was no room.
    pub fn crowded_out(&self) -> u64 {
        self.forgotten + self.untracked
    }

    /// Memory, fixed from the start.
    pub fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Place<E>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Gcra, Limit};
    use proptest::prelude::*;
    use std::collections::HashMap;

    const S: u64 = 1_000_000_000;

    #[derive(Clone, Default, Debug, PartialEq)]
    struct Used {
        gcra: Gcra,
        held: u32,
    }

    impl Entry for Used {
        fn until_ns(&self) -> u64 {
            self.gcra.until_ns()
        }

        fn is_held(&self) -> bool {
            self.held > 0
        }
    }

    fn key(number: u32) -> Key {
        let mut key = [0; 16];
        key[12..].copy_from_slice(&number.to_be_bytes());
        key
    }

    fn table(entries: usize) -> Table<Used> {
        Table::new(entries, [1, 2])
    }

    fn one_each(per_s: u64) -> Limit {
        Limit::new(per_s, S, 1).unwrap()
    }

    #[test]
    fn a_hundred_thousand_prefixes_take_no_more_memory_than_one_and_the_same_time() {
        let mut table = table(65_536);
        let bytes = table.bytes();
        assert_eq!(bytes, 65_536 * size_of::<Place<Used>>());
        let limit = one_each(1);
        for number in 0..100_000 {
            let entry = table.entry(&key(number), 0).expect("nothing is held");
            entry.gcra.take(0, &limit, 1);
        }
        assert_eq!((table.bytes(), table.places.len()), (bytes, 65_536));
        let kept = (0..100_000).filter(|number| table.find(&key(*number)).is_some()).count() as u64;
        assert!(kept <= 65_536);
        assert_eq!(table.forgotten, 100_000 - kept, "each that is not there was counted");
    }

    #[test]
    fn what_has_run_out_makes_room_without_being_counted() {
        let mut table = table(64);
        let limit = one_each(1);
        for round in 0..1000 {
            let now = round * 2 * S;
            // No more at a time than a set holds, so that none is full whatever the hash says.
            for number in 0..WAYS as u32 {
                let entry = table.entry(&key(round as u32 * 100 + number), now).unwrap();
                assert_eq!(entry.gcra.handle(now, &limit, 1), Ok(()));
            }
        }
        assert_eq!((table.forgotten, table.untracked), (0, 0));
    }

    #[test]
    fn of_a_full_set_the_one_that_loses_least_is_forgotten() {
        let mut table = table(1);
        let limit = Limit::new(1, S, 100).unwrap();
        for number in 0..WAYS as u32 {
            table.entry(&key(number), 0).unwrap().gcra.take(0, &limit, u64::from(number) + 1);
        }
        table.entry(&key(100), 0).unwrap().gcra.take(0, &limit, 50);
        assert!(table.find(&key(0)).is_none());
        assert!((1..WAYS as u32).all(|number| table.find(&key(number)).is_some()));
        assert_eq!(table.forgotten, 1);
    }

    #[test]
    fn what_is_held_is_never_forgotten_and_a_newcomer_goes_untracked() {
        let mut table = table(1);
        for number in 0..WAYS as u32 {
            table.entry(&key(number), 0).unwrap().held = 1;
        }
        assert!(table.entry(&key(100), 0).is_none());
        assert_eq!((table.forgotten, table.untracked), (0, 1));
        table.find(&key(3)).unwrap().held = 0;
        assert!(table.entry(&key(100), 0).is_some());
        assert!(table.find(&key(3)).is_none());
    }

    #[test]
    fn who_does_not_know_the_key_cannot_aim_at_a_set() {
        // Keys that share a set under one key are spread under another.
        let mut aimed = Table::<Used>::new(1 << 16, [7, 8]);
        let set_of = |table: &mut Table<Used>, number| table.set(&key(number)).as_ptr();
        let wanted = set_of(&mut aimed, 0);
        let same: Vec<u32> = (0..500_000).filter(|n| set_of(&mut aimed, *n) == wanted).collect();
        assert!(same.len() > 30);
        let mut other = Table::<Used>::new(1 << 16, [9, 10]);
        let mut sets: Vec<_> = same.iter().map(|n| set_of(&mut other, *n)).collect();
        sets.sort_unstable();
        sets.dedup();
        assert!(sets.len() > same.len() * 9 / 10);
    }

    proptest! {
        /// While nothing is forgotten, the table says what a map would say that keeps all.
        #[test]
        fn a_table_with_room_is_a_map(
            steps in prop::collection::vec((0_u32..16, 0_u64..S, any::<bool>()), 1..300),
        ) {
            // As many places as all keys could need in one set.
            let mut table = Table::<Used>::new(1 << 12, [3, 4]);
            let mut map = HashMap::<u32, Gcra>::new();
            let limit = Limit::new(2, S, 3).unwrap();
            let mut now = 0;
            for (number, wait, looks) in steps {
                now += wait;
                let known = map.entry(number).or_default();
                if looks {
                    let found = table.find(&key(number)).cloned().unwrap_or_default();
                    let waits = [found.gcra, *known].map(|mut used| used.wait_ns(now, &limit, 1));
                    prop_assert_eq!(waits[0], waits[1]);
                } else if let Some(entry) = table.entry(&key(number), now) {
                    prop_assert_eq!(entry.gcra.handle(now, &limit, 1), known.handle(now, &limit, 1));
                }
                prop_assume!(table.forgotten == 0);
            }
        }
    }
}
