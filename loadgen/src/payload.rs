//! What a message of the load generator carries, so that its receiver can tell lost, repeated, reordered and damaged.
//!
//! Layout, little-endian: run (4 bytes), check (4), sender (4), sequence (4), intended time (8, nanoseconds since the
//! run began), then filler up to the payload's size: byte `i` of the payload is `i * 131 + 7` modulo 256.
//!
//! The check word is a multiplicative mix of the other header fields: it costs a few nanoseconds and finds a header
//! that was damaged or put together from two messages. The filler is compared byte by byte.

use crate::names::Topology;
use crate::ranges::Ranges;

/// Bytes of the header: the smallest payload.
pub const HEAD_BYTES: usize = 24;

/// The header of a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Which run sent it.
    pub run: u32,
    /// The sending user's index.
    pub sender: u32,
    /// Its number among the messages of this sender, from 0.
    pub seq: u32,
    /// When it was to be sent, nanoseconds since the run began.
    pub intended_ns: u64,
}

impl Head {
    fn check(&self) -> u32 {
        let ids = u64::from(self.sender) << 32 | u64::from(self.seq);
        let mixed = (ids ^ u64::from(self.run).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .wrapping_add(self.intended_ns.rotate_left(29))
            .wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed >> 32) as u32
    }

    /// Writes the header over the first [`HEAD_BYTES`] of `payload`.
    pub fn write(&self, payload: &mut [u8]) {
        payload[0..4].copy_from_slice(&self.run.to_le_bytes());
        payload[4..8].copy_from_slice(&self.check().to_le_bytes());
        payload[8..12].copy_from_slice(&self.sender.to_le_bytes());
        payload[12..16].copy_from_slice(&self.seq.to_le_bytes());
        payload[16..24].copy_from_slice(&self.intended_ns.to_le_bytes());
    }

    /// Reads a header; `None` if it is too short or its check word does not fit.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (head, _) = payload.split_first_chunk::<HEAD_BYTES>()?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let read = Self {
            run: word(0),
            sender: word(8),
            seq: word(12),
            intended_ns: u64::from(word(16)) | u64::from(word(20)) << 32,
        };
        (read.check() == word(4)).then_some(read)
    }
}

/// A payload of `bytes` bytes: an empty header and the filler.
pub fn filled(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| if i < HEAD_BYTES { 0 } else { (i * 131 + 7) as u8 }).collect()
}

/// What the receivers of one thread counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verdicts {
    /// Messages that came for the first time.
    pub delivered: u64,
    /// Messages that came again.
    pub duplicates: u64,
    /// Messages that came after a later one of the same sender.
    pub reordered: u64,
    /// Payloads damaged, of another run, cut, from another user than they say, or for another recipient.
    pub corrupted: u64,
}

impl Verdicts {
    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
    }

    /// Messages that arrived, sound or not, each counted once.
    pub fn arrived(&self) -> u64 {
        self.delivered + self.corrupted
    }
}

/// What came of one sender's messages, which all go to one inbox.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    next: u32,
    missing: Ranges,
}

impl Flow {
    fn arrived(&mut self, seq: u32, verdicts: &mut Verdicts) {
        if seq == self.next {
            self.next += 1;
            verdicts.delivered += 1;
        } else if seq > self.next {
            self.missing.insert(self.next, seq);
            self.next = seq + 1;
            verdicts.delivered += 1;
        } else if self.missing.remove(seq) {
            verdicts.delivered += 1;
            verdicts.reordered += 1;
        } else {
            verdicts.duplicates += 1;
        }
    }

    /// Messages that were accepted but did not come: of `sent` messages, those not in `not_accepted` and not here.
    pub fn lost(&self, sent: u32, not_accepted: &Ranges) -> u64 {
        let mut absent = self.missing.clone();
        absent.insert(self.next.min(sent), sent);
        absent.count() - absent.overlap(not_accepted)
    }
}

/// Checks every payload that a thread's receivers get.
#[derive(Debug)]
pub struct Checker {
    run: u32,
    filler: Vec<u8>,
    topology: Topology,
    flows: Vec<Flow>,
    /// The counts so far.
    pub verdicts: Verdicts,
}

impl Checker {
    /// For payloads of `payload_bytes` of this run.
    pub fn new(run: u32, payload_bytes: usize, topology: Topology) -> Self {
        let flows = vec![Flow::default(); topology.senders() as usize];
        Self { run, filler: filled(payload_bytes), topology, flows, verdicts: Verdicts::default() }
    }

    /// Takes a payload that `recipient` received from the user called `from`; gives the intended time if it is sound.
    pub fn arrived(&mut self, recipient: u32, from: &str, payload: &[u8]) -> Option<u64> {
        let sound = Head::read(payload).filter(|head| {
            head.run == self.run
                && head.seq < u32::MAX
                && payload.len() == self.filler.len()
                && payload[HEAD_BYTES..] == self.filler[HEAD_BYTES..]
                && head.sender < self.topology.senders()
                && self.topology.recipient_of(head.sender) == recipient
                && from.as_bytes() == crate::names::user(self.run, head.sender)
        });
        let Some(head) = sound else {
            self.verdicts.corrupted += 1;
            return None;
        };
        self.flows[head.sender as usize].arrived(head.seq, &mut self.verdicts);
        Some(head.intended_ns)
    }

    /// What came of a sender's messages.
    pub fn flow(&self, sender: u32) -> &Flow {
        &self.flows[sender as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 0xabcdef;

    fn payload(sender: u32, seq: u32) -> Vec<u8> {
        let mut bytes = filled(64);
        Head { run: RUN, sender, seq, intended_ns: 77 }.write(&mut bytes);
        bytes
    }

    fn name(sender: u32) -> String {
        String::from_utf8(crate::names::user(RUN, sender).to_vec()).unwrap()
    }

    fn after(seqs: &[u32]) -> (Verdicts, Checker) {
        let mut checker = Checker::new(RUN, 64, Topology::Pairs(2));
        for seq in seqs {
            assert_eq!(checker.arrived(1, &name(0), &payload(0, *seq)), Some(77));
        }
        (checker.verdicts, checker)
    }

    #[test]
    fn messages_in_order_are_just_delivered() {
        let (verdicts, checker) = after(&[0, 1, 2, 3]);
        assert_eq!(verdicts, Verdicts { delivered: 4, ..Verdicts::default() });
        assert_eq!(checker.flow(0).lost(4, &Ranges::default()), 0);
    }

    #[test]
    fn a_repeated_message_arrives_once() {
        let (verdicts, mut checker) = after(&[0, 0, 0]);
        assert_eq!(verdicts.arrived(), 1, "the end of a run waits for the others");
        checker.arrived(1, &name(0), b"damaged");
        assert_eq!(checker.verdicts.arrived(), 2, "and for no other in the place of a damaged one");
    }

    #[test]
    fn a_repeated_message_is_a_duplicate() {
        assert_eq!(after(&[0, 1, 1, 0]).0.duplicates, 2);
    }

    #[test]
    fn a_message_after_a_later_one_is_reordered_and_not_lost() {
        let (verdicts, checker) = after(&[0, 2, 1, 3]);
        assert_eq!((verdicts.reordered, verdicts.delivered, verdicts.duplicates), (1, 4, 0));
        assert_eq!(checker.flow(0).lost(4, &Ranges::default()), 0);
    }

    #[test]
    fn lost_are_the_accepted_ones_that_never_came() {
        let (_, checker) = after(&[0, 1, 4, 5]);
        assert_eq!(checker.flow(0).lost(8, &Ranges::default()), 4, "2, 3 and the tail 6, 7");
        let mut refused = Ranges::default();
        refused.insert(3, 4);
        refused.insert(7, 8);
        assert_eq!(checker.flow(0).lost(8, &refused), 2, "2 and 6 were accepted");
    }

    #[test]
    fn any_damaged_byte_is_corruption() {
        let sound = payload(0, 0);
        for at in 0..sound.len() {
            let mut checker = Checker::new(RUN, 64, Topology::Pairs(2));
            let mut damaged = sound.clone();
            damaged[at] ^= 0x10;
            assert_eq!(checker.arrived(1, &name(0), &damaged), None, "byte {at}");
            assert_eq!(checker.verdicts, Verdicts { corrupted: 1, ..Verdicts::default() });
        }
    }

    #[test]
    fn a_message_of_another_run_sender_recipient_or_length_is_corruption() {
        let mut checker = Checker::new(RUN, 64, Topology::Pairs(2));
        assert_eq!(checker.arrived(0, &name(0), &payload(0, 0)), None, "for user 1, got by user 0");
        assert_eq!(checker.arrived(1, &name(1), &payload(0, 0)), None, "from says another user");
        assert_eq!(checker.arrived(1, &name(0), &payload(0, 0)[..63]), None, "cut");
        assert_eq!(checker.arrived(1, &name(0), &[]), None, "empty");
        let mut other = Checker::new(RUN + 1, 64, Topology::Pairs(2));
        assert_eq!(other.arrived(1, &name(0), &payload(0, 0)), None, "another run");
        assert_eq!(checker.verdicts.corrupted, 4);
        assert_eq!(checker.verdicts.delivered, 0);
    }
}
