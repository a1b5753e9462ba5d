//! Names of users who are online, packed by length: 20 bytes for a short name instead of 48 on the heap.

use super::slab::{Slab, Slot};
use crate::limits::USER_BYTES_MAX;

/// A length byte and up to `BYTES - 1` bytes of name. A free one keeps the link in the first four bytes of the name.
struct Packed<const BYTES: usize>([u8; BYTES]);

impl<const BYTES: usize> Packed<BYTES> {
    fn new(name: &[u8]) -> Self {
        let mut bytes = [0; BYTES];
        bytes[0] = name.len() as u8;
        bytes[1..=name.len()].copy_from_slice(name);
        Self(bytes)
    }

    fn name(&self) -> &[u8] {
        &self.0[1..=usize::from(self.0[0])]
    }
}

impl<const BYTES: usize> Slot for Packed<BYTES> {
    fn is_live(&self) -> bool {
        self.0[0] != 0
    }

    fn vacate(&mut self, next_free: u32) {
        self.0[0] = 0;
        self.0[1..5].copy_from_slice(&next_free.to_le_bytes());
    }

    fn next_free(&self) -> u32 {
        u32::from_le_bytes([self.0[1], self.0[2], self.0[3], self.0[4]])
    }
}

/// Where a name is: the class in the two highest bits, then the slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NameRef(u32);

impl NameRef {
    pub(super) const NONE: Self = Self(u32::MAX);
}

/// The bits of a slot.
const SLOT: u32 = (1 << 30) - 1;
const LONG: usize = USER_BYTES_MAX + 1;
const _: () = assert!(USER_BYTES_MAX <= u8::MAX as usize);

/// The names.
pub(super) struct Names {
    short: Slab<Packed<16>, 1024>,
    medium: Slab<Packed<32>, 512>,
    large: Slab<Packed<64>, 256>,
    long: Slab<Packed<LONG>, 128>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self { short: Slab::new(), medium: Slab::new(), large: Slab::new(), long: Slab::new() }
    }

    /// Keeps a name of 1 to [`USER_BYTES_MAX`] bytes.
    pub(super) fn insert(&mut self, name: &str) -> NameRef {
        let name = name.as_bytes();
        let (class, slot) = match name.len() {
            0 => panic!("a name has at least one byte"),
            1..16 => (0, self.short.insert(Packed::new(name))),
            16..32 => (1, self.medium.insert(Packed::new(name))),
            32..64 => (2, self.large.insert(Packed::new(name))),
            _ => (3, self.long.insert(Packed::new(name))),
        };
        assert!(slot < SLOT, "a class holds fewer than 2^30 names");
        NameRef(class << 30 | slot)
    }

    /// Keeps the same name once more.
    pub(super) fn copy(&mut self, name: NameRef) -> NameRef {
        let slot = name.0 & SLOT;
        let slot = match name.0 >> 30 {
            0 => self.short.insert(Packed(self.short[slot].0)),
            1 => self.medium.insert(Packed(self.medium[slot].0)),
            2 => self.large.insert(Packed(self.large[slot].0)),
            _ => self.long.insert(Packed(self.long[slot].0)),
        };
        NameRef(name.0 & !SLOT | slot)
    }

    pub(super) fn remove(&mut self, name: NameRef) {
        let slot = name.0 & SLOT;
        match name.0 >> 30 {
            0 => self.short.remove(slot),
            1 => self.medium.remove(slot),
            2 => self.large.remove(slot),
            _ => self.long.remove(slot),
        }
    }

    pub(super) fn name(&self, name: NameRef) -> &str {
        let slot = name.0 & SLOT;
        let bytes = match name.0 >> 30 {
            0 => self.short[slot].name(),
            1 => self.medium[slot].name(),
            2 => self.large[slot].name(),
            _ => self.long[slot].name(),
        };
        std::str::from_utf8(bytes).expect("it came from a str")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_come_back() {
        let mut names = Names::new();
        let all: Vec<String> = (1..=USER_BYTES_MAX).map(|bytes| "x".repeat(bytes)).collect();
        for round in 0..3 {
            let kept: Vec<_> = all.iter().map(|name| names.insert(name)).collect();
            for (name, kept) in all.iter().zip(&kept) {
                assert_eq!(names.name(*kept), name, "round {round}");
            }
            kept.into_iter().for_each(|kept| names.remove(kept));
        }
        let Names { short, medium, large, long } = names;
        assert_eq!([short.used(), medium.used(), large.used(), long.used()], [0; 4]);
    }
}
