//! A table of slots addressed by `u32`, grown chunk by chunk so that no growth copies what is there.

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

/// Slots of `T` in chunks of `CHUNK`, a power of two. Freed slots are used again, the last freed one first.
pub(super) struct Slab<T, const CHUNK: usize> {
    chunks: Vec<Vec<T>>,
    free: u32,
    used: u32,
}

impl<T: Slot, const CHUNK: usize> Slab<T, CHUNK> {
    const SHIFT: u32 = CHUNK.trailing_zeros();

    pub(super) const fn new() -> Self {
        const { assert!(CHUNK.is_power_of_two()) };
        Self { chunks: Vec::new(), free: NIL, used: 0 }
    }

    /// Slots in use.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Slots ever used: every live index is below this.
    pub(super) fn slots(&self) -> u32 {
        match self.chunks.last() {
            Some(last) => ((self.chunks.len() - 1) * CHUNK + last.len()) as u32,
            None => 0,
        }
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.used += 1;
        if self.free != NIL {
            let index = self.free;
            self.free = self[index].next_free();
            self[index] = value;
            return index;
        }
        let index = self.slots();
        assert!(index < NIL, "a slab holds fewer than 2^32 - 1 values");
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks.last_mut().expect("pushed above when there was none").push(value);
        index
    }

    pub(super) fn remove(&mut self, index: u32) {
        let next_free = self.free;
        let slot = &mut self[index];
        assert!(slot.is_live(), "a slot is freed once");
        slot.vacate(next_free);
        self.free = index;
        self.used -= 1;
    }

    /// The slot if it was ever used and holds a value.
    pub(super) fn live(&self, index: u32) -> Option<&T> {
        let chunk = self.chunks.get((index >> Self::SHIFT) as usize)?;
        chunk.get(index as usize & (CHUNK - 1)).filter(|slot| slot.is_live())
    }
}

impl<T, const CHUNK: usize> Index<u32> for Slab<T, CHUNK> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        &self.chunks[(index >> CHUNK.trailing_zeros()) as usize][index as usize & (CHUNK - 1)]
    }
}

impl<T, const CHUNK: usize> IndexMut<u32> for Slab<T, CHUNK> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[(index >> CHUNK.trailing_zeros()) as usize][index as usize & (CHUNK - 1)]
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

    #[test]
    fn freed_slots_are_used_again_before_the_slab_grows() {
        let mut slab = Slab::<Number, 4>::new();
        let slots: Vec<_> = (0..9).map(|value| slab.insert(Number { value, live: true })).collect();
        assert_eq!(slots, (0..9).collect::<Vec<_>>());
        slab.remove(3);
        slab.remove(7);
        assert!(slab.live(3).is_none() && slab.live(8).is_some() && slab.live(9).is_none());
        assert_eq!(slab.insert(Number { value: 70, live: true }), 7);
        assert_eq!(slab.insert(Number { value: 30, live: true }), 3);
        assert_eq!((slab.insert(Number { value: 9, live: true }), slab.used()), (9, 10));
        assert_eq!((slab[7].value, slab[3].value, slab[8].value), (70, 30, 8));
    }
}
