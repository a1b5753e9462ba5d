//! Receipts on their way: from the delivery of a message whose sender wants one to the TOMB that makes it true.

use std::collections::VecDeque;

use super::names::{NameRef, Names};
use super::slab::{NIL, Slab, Slot};
use crate::id::{MsgId, UserKey};

/// What a receipt will say, while its delivery is in flight and until its TOMB is durable.
struct Pending {
    sender: UserKey,
    msg_id: MsgId,
    no: u32,
    /// The next one of the circle; of a free slot, the next free one.
    next: u32,
    live: bool,
}

impl Slot for Pending {
    fn is_live(&self) -> bool {
        self.live
    }

    fn vacate(&mut self, next_free: u32) {
        self.live = false;
        self.next = next_free;
    }

    fn next_free(&self) -> u32 {
        self.next
    }
}

/// Receipts of one ACK, waiting for its TOMB.
struct Acknowledged {
    lsn: u64,
    reader: UserKey,
    reader_name: NameRef,
    /// The last one of a circle.
    tail: u32,
}

/// All receipts of a partition. Each user's are a circle in order of delivery number, known by its last one.
pub(super) struct Receipts {
    slab: Slab<Pending, 256>,
    acknowledged: VecDeque<Acknowledged>,
    max: u32,
}

impl Receipts {
    pub(super) fn new(max: u32) -> Self {
        Self { slab: Slab::new(), acknowledged: VecDeque::new(), max }
    }

    pub(super) fn len(&self) -> u32 {
        self.slab.used()
    }

    /// Adds one to a circle; false when there is no room.
    pub(super) fn add(&mut self, tail: &mut u32, no: u32, sender: UserKey, msg_id: MsgId) -> bool {
        if self.slab.used() >= self.max {
            return false;
        }
        let slot = self.slab.insert(Pending { sender, msg_id, no, next: NIL, live: true });
        if *tail == NIL {
            self.slab[slot].next = slot;
            *tail = slot;
            return true;
        }
        // Disk reads finish in any order; nearly always this one is the last.
        let is_last = self.slab[*tail].no < no;
        let mut before = *tail;
        while !is_last && self.slab[self.slab[before].next].no < no {
            before = self.slab[before].next;
        }
        self.slab[slot].next = self.slab[before].next;
        self.slab[before].next = slot;
        if is_last {
            *tail = slot;
        }
        true
    }

    /// Takes those up to a number out of a circle; their TOMB is in the batch `lsn`.
    pub(super) fn acknowledge(
        &mut self,
        tail: &mut u32,
        upto: u32,
        lsn: u64,
        reader: UserKey,
        name: impl FnOnce() -> NameRef,
    ) {
        if *tail == NIL || self.slab[self.slab[*tail].next].no > upto {
            return;
        }
        let first = self.slab[*tail].next;
        let mut last = first;
        while last != *tail && self.slab[self.slab[last].next].no <= upto {
            last = self.slab[last].next;
        }
        if last == *tail {
            *tail = NIL;
        } else {
            self.slab[*tail].next = self.slab[last].next;
            self.slab[last].next = first;
        }
        let reader_name = name();
        self.acknowledged.push_back(Acknowledged { lsn, reader, reader_name, tail: last });
    }

    /// Forgets a circle: its session ended.
    pub(super) fn forget(&mut self, tail: &mut u32) {
        let mut slot = std::mem::replace(tail, NIL);
        if slot == NIL {
            return;
        }
        let last = slot;
        loop {
            let next = self.slab[slot].next;
            self.slab.remove(slot);
            slot = next;
            if slot == last {
                return;
            }
        }
    }

    /// Gives out the receipts whose TOMB is durable: reader, reader's name, sender, message.
    pub(super) fn durable(
        &mut self,
        lsn: u64,
        names: &mut Names,
        mut give: impl FnMut(UserKey, &str, UserKey, MsgId),
    ) {
        while let Some(first) = self.acknowledged.front().filter(|first| first.lsn <= lsn) {
            let &Acknowledged { reader, reader_name, mut tail, .. } = first;
            self.acknowledged.pop_front();
            let mut slot = self.slab[tail].next;
            loop {
                let Pending { sender, msg_id, next, .. } = self.slab[slot];
                give(reader, names.name(reader_name), sender, msg_id);
                if slot == tail {
                    break;
                }
                slot = next;
            }
            self.forget(&mut tail);
            names.remove(reader_name);
        }
    }
}
