//! A ring of provided buffers (`io_uring_register_buf_ring(3)`): the kernel picks one when data arrives, so a
//! connection that waits holds none.

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

/// Which buffer of the ring.
pub type BufferId = u16;

pub(crate) const GROUP: u16 = 0;

#[derive(Debug)]
pub(crate) struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    count: u16,
    bytes: u32,
    tail: u16,
}

impl Buffers {
    /// `count` is a power of two of at most 32,768.
    pub(crate) fn register(submitter: &Submitter<'_>, count: u16, bytes: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= 1 << 15 && bytes > 0);
        let entries = allocate(Self::entries_layout(count)).cast::<BufRingEntry>();
        let memory = allocate(Self::memory_layout(count, bytes));
        let mut buffers = Self { entries, memory, count, bytes, tail: 0 };
        // SAFETY: the entries are page-aligned, `count` of them, and live until the ring is gone (`Ring` drops its
        // io_uring first).
        unsafe { submitter.register_buf_ring_with_flags(entries as u64, count, GROUP, 0) }?;
        (0..count).for_each(|id| buffers.give_back(id));
        Ok(buffers)
    }

    fn entries_layout(count: u16) -> Layout {
        Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), 4096)
            .expect("at most 512 KiB")
    }

    // An alignment of 16 lets the allocator hand out untouched pages: buffers cost memory once they are used.
    fn memory_layout(count: u16, bytes: u32) -> Layout {
        Layout::from_size_align(usize::from(count) * bytes as usize, 16).expect("fits memory")
    }

    pub(crate) fn get(&self, id: BufferId, len: usize) -> &[u8] {
        assert!(id < self.count && len <= self.bytes as usize);
        // SAFETY: inside the allocation; the kernel owns the buffer only until its completion and again after
        // `give_back`, which takes `&mut self`.
        unsafe {
            let start = self.memory.add(usize::from(id) * self.bytes as usize);
            std::slice::from_raw_parts(start, len)
        }
    }

    pub(crate) fn get_mut(&mut self, id: BufferId, len: usize) -> &mut [u8] {
        assert!(id < self.count && len <= self.bytes as usize);
        // SAFETY: as in `get`; `&mut self` makes this the only slice.
        unsafe {
            let start = self.memory.add(usize::from(id) * self.bytes as usize);
            std::slice::from_raw_parts_mut(start, len)
        }
    }

    pub(crate) fn give_back(&mut self, id: BufferId) {
        assert!(id < self.count);
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `index < count`; the entry at the tail is not read by the kernel until the tail moves. The tail
        // overlays the first entry's reserved field and is published with release order, as liburing does.
        unsafe {
            let entry = &mut *self.entries.add(index);
            entry.set_addr(self.memory.add(usize::from(id) * self.bytes as usize) as u64);
            entry.set_len(self.bytes);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with these layouts; the io_uring that used them is closed (field order in `Ring`).
        unsafe {
            dealloc(self.entries.cast(), Self::entries_layout(self.count));
            dealloc(self.memory, Self::memory_layout(self.count, self.bytes));
        }
    }
}

fn allocate(layout: Layout) -> *mut u8 {
    // SAFETY: the layout is not empty (asserted by the caller).
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        handle_alloc_error(layout);
    }
    memory
}
