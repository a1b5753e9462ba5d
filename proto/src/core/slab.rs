//! A table of slots addressed by `u32`, grown chunk by chunk so that no growth copies what is there.

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};

/// The index of nothing.
pub(super) const NIL: u32 = u32::MAX;

/// A value that can lend one of its own fields to the list of free slots.
pub(super) trait Slot {
    /// Whether the slot holds a value.
    fn is_live(&self) -> bool;
    /// Turns the slot into a free one that points to the next free one.
    fn vacate(&mut self, next_free: u32);
    /// What `vacate` stored.
    fn next_free(&self) -> u32;
}

/// Slots of `T` in chunks of `CHUNK`, a power of two. The lowest chunk with room is filled first, and an empty chunk gives
/// its memory back, so that a peak that has passed costs little.
pub(super) struct Slab<T, const CHUNK: usize> {
    chunks: Vec<Chunk<T>>,
    /// The chunk that is being filled. It is not in `with_room`.
    current: u32,
    /// Chunks with free slots.
    with_room: BTreeSet<u32>,
    used: u32,
}

struct Chunk<T> {
    /// Grows up to `CHUNK` as slots are used for the first time; empty when given back.
    slots: Vec<T>,
    /// The first free slot, as an index of the slab.
    free: u32,
    used: u32,
}

impl<T: Slot, const CHUNK: usize> Slab<T, CHUNK> {
    const SHIFT: u32 = CHUNK.trailing_zeros();

    pub(super) const fn new() -> Self {
        const { assert!(CHUNK.is_power_of_two()) };
        Self { chunks: Vec::new(), current: 0, with_room: BTreeSet::new(), used: 0 }
    }

    /// Slots in use.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Every live index is below this.
    pub(super) fn slots(&self) -> u32 {
        let last = self.chunks.last().map_or(0, |last| last.slots.len());
        (self.chunks.len().saturating_sub(1) * CHUNK + last) as u32
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        let chunks = self.chunks.len();
        if chunks == 0 || self.chunks[self.current as usize].used as usize == CHUNK {
            self.current = self.with_room.pop_first().unwrap_or(chunks as u32);
            if self.current as usize == chunks {
                assert!((chunks + 1) * CHUNK <= NIL as usize, "slots fit an index");
                self.chunks.push(Chunk { slots: Vec::new(), free: NIL, used: 0 });
            }
        }
        self.used += 1;
        let chunk = &mut self.chunks[self.current as usize];
        chunk.used += 1;
        if chunk.free != NIL {
            let index = chunk.free;
            let slot = &mut chunk.slots[index as usize & (CHUNK - 1)];
            chunk.free = slot.next_free();
            *slot = value;
            return index;
        }
        if chunk.slots.is_empty() {
            chunk.slots.reserve_exact(CHUNK);
        }
        chunk.slots.push(value);
        (self.current << Self::SHIFT) + chunk.slots.len() as u32 - 1
    }

    pub(super) fn remove(&mut self, index: u32) {
        let number = index >> Self::SHIFT;
        let chunk = &mut self.chunks[number as usize];
        let slot = &mut chunk.slots[index as usize & (CHUNK - 1)];
        assert!(slot.is_live(), "a slot is freed once");
        slot.vacate(chunk.free);
        chunk.free = index;
        chunk.used -= 1;
        self.used -= 1;
        if number == self.current {
            return;
        }
        if chunk.used as usize == CHUNK - 1 {
            self.with_room.insert(number);
        }
        if chunk.used == 0 {
            self.give_back(number);
        }
    }

    fn give_back(&mut self, number: u32) {
        self.chunks[number as usize] = Chunk { slots: Vec::new(), free: NIL, used: 0 };
        let last = |slab: &Self| slab.chunks.len() as u32 - 1;
        while last(self) != self.current && self.chunks[last(self) as usize].used == 0 {
            self.with_room.remove(&last(self));
            self.chunks.pop();
        }
    }

    /// The slot if it holds a value.
    pub(super) fn live(&self, index: u32) -> Option<&T> {
        let chunk = self.chunks.get((index >> Self::SHIFT) as usize)?;
        chunk.slots.get(index as usize & (CHUNK - 1)).filter(|slot| slot.is_live())
    }
}

impl<T, const CHUNK: usize> Index<u32> for Slab<T, CHUNK> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        &self.chunks[(index >> CHUNK.trailing_zeros()) as usize].slots[index as usize & (CHUNK - 1)]
    }
}

impl<T, const CHUNK: usize> IndexMut<u32> for Slab<T, CHUNK> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[(index >> CHUNK.trailing_zeros()) as usize].slots
            [index as usize & (CHUNK - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Number {
        value: u32,
        live: bool,
    }

    impl Slot for Number {
        fn is_live(&self) -> bool {
            self.live
        }

        fn vacate(&mut self, next_free: u32) {
            *self = Self { value: next_free, live: false };
        }

        fn next_free(&self) -> u32 {
            self.value
        }
    }

    fn number(value: u32) -> Number {
        Number { value, live: true }
    }

    #[test]
    fn freed_slots_are_used_again_before_the_slab_grows() {
        let mut slab = Slab::<Number, 4>::new();
        let slots: Vec<_> = (0..9).map(|value| slab.insert(number(value))).collect();
        assert_eq!(slots, (0..9).collect::<Vec<_>>());
        [3, 7, 8].into_iter().for_each(|slot| slab.remove(slot));
        assert!(slab.live(3).is_none() && slab.live(6).is_some() && slab.live(99).is_none());
        let again: Vec<_> = (10..16).map(|value| slab.insert(number(value))).collect();
        assert_eq!(again, [8, 9, 10, 11, 3, 7], "what is begun first, then the lowest chunk");
        assert_eq!((slab.insert(number(16)), slab.used()), (12, 13));
        assert_eq!((slab[7].value, slab[3].value, slab[8].value), (15, 14, 10));
    }

    #[test]
    fn chunks_without_values_give_their_memory_back() {
        let mut slab = Slab::<Number, 4>::new();
        (0..4000).for_each(|value| _ = slab.insert(number(value)));
        (4..4000).filter(|slot| slot % 400 != 4).for_each(|slot| slab.remove(slot));
        let held = |slab: &Slab<Number, 4>| -> usize {
            slab.chunks.iter().map(|chunk| chunk.slots.capacity()).sum()
        };
        assert_eq!((slab.used(), held(&slab)), (14, 4 * 12), "with values, and the current one");
        (0..10).for_each(|chunk| slab.remove(chunk * 400 + 4));
        assert_eq!((slab.used(), slab.slots()), (4, 4000), "the current chunk is the last one");
        (0..4).for_each(|value| assert_eq!(slab.insert(number(value)) / 4, 999));
        (0..4).for_each(|value| assert_eq!(slab.insert(number(value)), 4 + value));
        (3996..4000).for_each(|slot| slab.remove(slot));
        assert_eq!((slab.used(), slab.slots()), (8, 8));
    }

    #[test]
    fn random_use_agrees_with_a_map() {
        let mut slab = Slab::<Number, 8>::new();
        let mut map = std::collections::BTreeMap::new();
        let mut random = 1_u64;
        for step in 0..20_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let draw = (random >> 33) as u32;
            // Waves of growing and shrinking.
            if draw % 100 < if step / 1000 % 2 == 0 { 70 } else { 30 } {
                assert!(map.insert(slab.insert(number(step)), step).is_none(), "in use already");
            } else if let Some(slot) = map.keys().nth(draw as usize % map.len().max(1)).copied() {
                assert_eq!(Some(slab[slot].value), map.remove(&slot));
                slab.remove(slot);
            }
            assert_eq!(slab.used() as usize, map.len());
        }
        let live: Vec<_> = (0..slab.slots()).filter(|slot| slab.live(*slot).is_some()).collect();
        assert_eq!(live, map.into_keys().collect::<Vec<_>>());
    }
}
