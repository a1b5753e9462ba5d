//! SENDs without an answer: a slab of them, and one list per shard in the order of arrival.

use super::{CoreIndex, NIL};
use crate::id::ShardId;

/// A shard: where it is, and its unanswered SENDs.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) at: Option<CoreIndex>,
    /// Where it moves in order, and until when it waits for answers.
    pub(super) moving: Option<(CoreIndex, u64)>,
    /// Grows with each move, from 1.
    pub(super) version: u32,
    pub(super) head: u32,
    tail: u32,
    /// The first one that was not sent to `at`; all behind it were not, either.
    pub(super) unsent: u32,
    /// How many were sent to `at` in this version.
    pub(super) under_way: u32,
}

impl Shard {
    pub(super) fn new() -> Self {
        let (head, tail, unsent) = (NIL, NIL, NIL);
        Self { at: None, moving: None, version: 1, head, tail, unsent, under_way: 0 }
    }
}

/// A SEND without an answer.
#[derive(Debug)]
pub(super) struct Pending {
    /// The slot of its connection.
    pub(super) slot: u32,
    /// The client's number for it.
    pub(super) seq: u32,
    pub(super) shard: ShardId,
    /// To whom it was sent last.
    pub(super) core: Option<CoreIndex>,
    /// The shard's version then: with a later one, it is to be sent again.
    pub(super) version: u32,
    pub(super) came_ms: u64,
    pub(super) sent_ms: u64,
    /// The link frame.
    pub(super) frame: Vec<u8>,
    pub(super) next: u32,
    previous: u32,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Pendings {
    places: Vec<Option<Pending>>,
    free: Vec<u32>,
    bytes: usize,
    /// Buffers for the next ones, and how much they hold.
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
}

/// The largest buffer worth keeping, and the bytes of all that are kept: an allocation for each SEND costs an edge a
/// tenth of its time.
const SPARE_BYTES_EACH_MAX: usize = 1024;
const SPARE_BYTES_MAX: usize = 8 << 20;

impl Pendings {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), bytes: 0, spare: Vec::new(), spare_bytes: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        (self.places.len() - self.free.len()) as u32
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// An empty buffer for a frame of about so many bytes.
    pub(super) fn buffer(&mut self, bytes: usize) -> Vec<u8> {
        let Some(spare) = self.spare.pop() else { return Vec::with_capacity(bytes) };
        self.spare_bytes -= spare.capacity();
        spare
    }

    /// Appends to the list of a shard.
    pub(super) fn push(
        &mut self,
        shard: &mut Shard,
        (slot, seq, id): (u32, u32, ShardId),
        came_ms: u64,
        frame: Vec<u8>,
    ) -> u32 {
        self.bytes += frame.len();
        let pending = Pending {
            slot,
            seq,
            shard: id,
            core: None,
            version: 0,
            came_ms,
            sent_ms: 0,
            frame,
            next: NIL,
            previous: shard.tail,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.places[index as usize] = Some(pending);
                index
            }
            None => {
                self.places.push(Some(pending));
                u32::try_from(self.places.len() - 1).expect("bytes bound their number")
            }
        };
        match shard.tail {
            NIL => shard.head = index,
            tail => self.at(tail).next = index,
        }
        shard.tail = index;
        if shard.unsent == NIL {
            shard.unsent = index;
        }
        index
    }

    pub(super) fn at(&mut self, index: u32) -> &mut Pending {
        self.places[index as usize].as_mut().expect("lists hold what is there")
    }

    /// Takes one out of the list of its shard.
    pub(super) fn remove(&mut self, shards: &mut [Shard], index: u32) -> Removed {
        let pending = self.places[index as usize].take().expect("a SEND is answered once");
        self.free.push(index);
        let shard = &mut shards[usize::from(pending.shard.0)];
        if shard.unsent == index {
            shard.unsent = pending.next;
        }
        if pending.version == shard.version {
            shard.under_way -= 1;
        }
        match pending.previous {
            NIL => shard.head = pending.next,
            previous => self.at(previous).next = pending.next,
        }
        match pending.next {
            NIL => shard.tail = pending.previous,
            next => self.at(next).previous = pending.previous,
        }
        let bytes = pending.frame.len();
        self.bytes -= bytes;
        let mut frame = pending.frame;
        let spare_bytes = self.spare_bytes + frame.capacity();
        if frame.capacity() <= SPARE_BYTES_EACH_MAX && spare_bytes <= SPARE_BYTES_MAX {
            frame.clear();
            self.spare_bytes = spare_bytes;
            self.spare.push(frame);
        }
        Removed { seq: pending.seq, bytes }
    }
}

/// What is left of a SEND.
pub(super) struct Removed {
    /// The client's number for it.
    pub(super) seq: u32,
    /// Bytes of its frame.
    pub(super) bytes: usize,
}
