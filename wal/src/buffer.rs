//! A byte buffer whose memory begins on a block boundary, as O_DIRECT wants it (open(2), NOTES).

use crate::BLOCK;

/// Bytes in memory aligned to [`BLOCK`], with a fixed capacity: it never moves and never grows.
#[derive(Debug)]
pub struct AlignedBuf {
    memory: Vec<u8>,
    skew: usize,
    capacity: usize,
    len: usize,
}

impl AlignedBuf {
    /// An empty buffer for `capacity` bytes, rounded up to whole blocks.
    ///
    /// The memory comes zeroed from the allocator, so pages that are never used are never touched.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(BLOCK);
        let memory = vec![0; capacity + BLOCK];
        let address = memory.as_ptr().addr();
        let skew = address.next_multiple_of(BLOCK) - address;
        Self { memory, skew, capacity, len: 0 }
    }

    /// Bytes in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that may be in use.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The bytes in use.
    pub fn as_slice(&self) -> &[u8] {
        &self.memory[self.skew..self.skew + self.len]
    }

    /// The bytes in use, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.skew..self.skew + self.len]
    }

    /// Takes `more` further bytes in use and gives them out; their content is whatever was there before.
    pub fn extend(&mut self, more: usize) -> &mut [u8] {
        assert!(more <= self.capacity - self.len, "the caller checked that {more} bytes fit");
        let from = self.skew + self.len;
        self.len += more;
        &mut self.memory[from..from + more]
    }

    /// Fills up with zeros to the next multiple of [`BLOCK`].
    pub fn pad_to_block(&mut self) {
        let padding = self.len.next_multiple_of(BLOCK) - self.len;
        self.extend(padding).fill(0);
    }

    /// Forgets the content, keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_begins_on_a_block_and_padding_is_zero() {
        let mut buf = AlignedBuf::new(5000);
        assert_eq!(buf.capacity(), 8192);
        buf.extend(8192).fill(7);
        buf.clear();
        buf.extend(4097).fill(1);
        buf.pad_to_block();
        assert_eq!(buf.as_slice().as_ptr().addr() % BLOCK, 0);
        assert_eq!(buf.len(), 8192);
        assert!(buf.as_slice()[4097..].iter().all(|byte| *byte == 0));
    }
}
