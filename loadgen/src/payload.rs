//! What a message of the load generator carries, so that its receiver can tell lost, repeated, reordered and damaged.
//!
//! Layout, little-endian: run (4 bytes), check (4), sender (4), sequence (4), intended time (8, nanoseconds since the
//! run began), then filler up to the payload's size: byte `i` of the payload is `i * 131 + 7` modulo 256.
//!
//! The check word is a multiplicative mix of the other header fields: it costs a few nanoseconds and finds a header
//! that was damaged or put together from two messages. The filler is compared byte by byte.

use crate::names::Topology;
use crate::ranges::Ranges;
use serde::{Deserialize, Serialize};

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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Verdicts {
    /// Messages that came for the first time.
    pub delivered: u64,
    /// Messages that came again and must not have.
    pub duplicates: u64,
    /// Messages that came again after a reconnect, as they may: their acknowledgement was not known to be read.
    pub redelivered: u64,
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
        self.redelivered += other.redelivered;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
    }

    /// Messages that arrived, sound or not, each counted once.
    pub fn arrived(&self) -> u64 {
        self.delivered + self.corrupted
    }
}

/// How a message came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Arrival {
    /// In which of its recipient's logins, from 0.
    pub login: u32,
    /// Its number there, from 1.
    pub no: u32,
    /// Deliveries of this login up to this number are done: the server is known to have read their ACK.
    pub done: u32,
    /// The same of the login before.
    pub done_before: u32,
}

/// What came of one sender's messages to one recipient.
///
/// What a connection leaves unacknowledged comes again at the next login, in the same order (docs/PROTOCOL.md, section 7).
/// So a message that comes again is the server's fault if it came before in the same login, or if its acknowledgement is
/// known to be read; else it is a redelivery.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    next: u32,
    missing: Ranges,
    /// Of the newest arrival.
    login: u32,
    no: u32,
    /// What came in this login is below.
    here: u32,
    /// What came and is below is done.
    done: u32,
}

impl Flow {
    fn arrived(&mut self, seq: u32, arrival: Arrival, verdicts: &mut Verdicts) {
        let done = match arrival.login.wrapping_sub(self.login) {
            0 => arrival.done,
            1 => arrival.done_before,
            _ => 0,
        };
        if self.no <= done {
            self.done = self.done.max(self.here);
        }
        if arrival.login != self.login {
            self.here = 0;
        }
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
        } else if seq < self.here.max(self.done) {
            verdicts.duplicates += 1;
        } else {
            verdicts.redelivered += 1;
        }
        (self.login, self.no, self.here) = (arrival.login, arrival.no, self.here.max(seq + 1));
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
        let flows = vec![Flow::default(); topology.flows()];
        Self { run, filler: filled(payload_bytes), topology, flows, verdicts: Verdicts::default() }
    }

    /// Takes a payload that `recipient` received, from the user called `from` if the protocol says so; gives its header if
    /// it is sound.
    pub fn arrived(
        &mut self,
        recipient: u32,
        from: Option<&str>,
        payload: &[u8],
        arrival: Arrival,
    ) -> Option<Head> {
        let sound = Head::read(payload).filter(|head| {
            head.run == self.run
                && head.seq < u32::MAX
                && payload.len() == self.filler.len()
                && payload[HEAD_BYTES..] == self.filler[HEAD_BYTES..]
                && from
                    .is_none_or(|from| from.as_bytes() == crate::names::user(self.run, head.sender))
        });
        let groups = self.topology.groups();
        let flow = sound.and_then(|head| {
            let (flow, group) = self.topology.flow(head.sender, recipient)?;
            (head.seq % groups == group).then_some((flow, head))
        });
        let Some((flow, head)) = flow else {
            self.verdicts.corrupted += 1;
            return None;
        };
        self.flows[flow].arrived(head.seq / groups, arrival, &mut self.verdicts);
        Some(head)
    }

    /// Who sends to whom.
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// What came, at the end.
    pub fn arrivals(self) -> Arrivals {
        let (topology, flows) = (self.topology, (0..).zip(self.flows));
        let came = flows.filter(|(_, flow)| flow.next > 0);
        let came = came.map(|(place, flow)| Came { place, next: flow.next, missing: flow.missing });
        Arrivals { topology, came: came.collect() }
    }
}

/// What came of one sender's messages to one recipient, at the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Came {
    /// The flow's place among all ([`Topology::flow`]).
    pub place: u32,
    /// Nothing came from this number on.
    pub next: u32,
    /// What did not come below it.
    pub missing: Ranges,
}

/// What came to the receivers of one thread: of the flows that had anything, ascending.
#[derive(Clone, Debug)]
pub struct Arrivals {
    topology: Topology,
    came: Vec<Came>,
}

impl Arrivals {
    /// Nothing yet.
    pub fn none(topology: Topology) -> Self {
        Self { topology, came: Vec::new() }
    }

    /// Takes what another process found, in order; whether it can be.
    pub fn add(&mut self, came: Vec<Came>) -> bool {
        let flows = self.topology.flows() as u64;
        let mut next = self.came.last().map_or(0, |last| u64::from(last.place) + 1);
        let is_sound = came.iter().all(|one| {
            let place = u64::from(one.place);
            let follows = place >= next && place < flows;
            next = place + 1;
            follows
        });
        self.came.extend(came);
        is_sound
    }

    /// All flows that had anything.
    pub fn into_came(self) -> Vec<Came> {
        self.came
    }

    /// Of `sent` messages of a sender, those that were accepted and did not come to this recipient.
    pub fn lost(&self, sender: u32, recipient: u32, sent: u32, not_accepted: &Ranges) -> u64 {
        let Some((flow, group)) = self.topology.flow(sender, recipient) else { return 0 };
        let groups = self.topology.groups();
        let sent = sent.saturating_sub(group).div_ceil(groups);
        let of_group = (groups > 1).then(|| not_accepted.of_group(group, groups));
        let not_accepted = of_group.as_ref().unwrap_or(not_accepted);
        let came = self.came.binary_search_by_key(&(flow as u32), |came| came.place);
        let (next, mut absent) = came.map_or((0, Ranges::default()), |place| {
            let came = &self.came[place];
            (came.next, came.missing.clone())
        });
        absent.insert(next.min(sent), sent);
        absent.count() - absent.overlap(not_accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 0xabcdef;
    const FIRST: Arrival = Arrival { login: 0, no: 1, done: 0, done_before: 0 };

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
            let head = checker.arrived(1, Some(&name(0)), &payload(0, *seq), FIRST).unwrap();
            assert_eq!((head.seq, head.intended_ns), (*seq, 77));
        }
        (checker.verdicts, checker)
    }

    #[test]
    fn messages_in_order_are_just_delivered() {
        let (verdicts, checker) = after(&[0, 1, 2, 3]);
        assert_eq!(verdicts, Verdicts { delivered: 4, ..Verdicts::default() });
        assert_eq!(checker.arrivals().lost(0, 1, 4, &Ranges::default()), 0);
    }

    #[test]
    fn a_repeated_message_arrives_once() {
        let (verdicts, mut checker) = after(&[0, 0, 0]);
        assert_eq!(verdicts.arrived(), 1, "the end of a run waits for the others");
        checker.arrived(1, Some(&name(0)), b"damaged", FIRST);
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
        assert_eq!(checker.arrivals().lost(0, 1, 4, &Ranges::default()), 0);
    }

    #[test]
    fn lost_are_the_accepted_ones_that_never_came() {
        let came = after(&[0, 1, 4, 5]).1.arrivals();
        assert_eq!(came.lost(0, 1, 8, &Ranges::default()), 4, "2, 3 and the tail 6, 7");
        let mut refused = Ranges::default();
        refused.insert(3, 4);
        refused.insert(7, 8);
        assert_eq!(came.lost(0, 1, 8, &refused), 2, "2 and 6 were accepted");
    }

    #[test]
    fn what_came_to_another_process_is_taken_in_order_or_refused() {
        let came = after(&[0, 1, 4, 5]).1.arrivals().into_came();
        let mut taken = Arrivals::none(Topology::Pairs(2));
        assert!(taken.add(came.clone()));
        assert_eq!(taken.lost(0, 1, 8, &Ranges::default()), 4);
        assert_eq!(taken.lost(1, 0, 8, &Ranges::default()), 8, "of this one nothing came");
        assert!(!taken.add(came), "the same flow again");
        let beyond = Came { place: 2, next: 1, missing: Ranges::default() };
        assert!(!Arrivals::none(Topology::Pairs(2)).add(vec![beyond]), "no such flow");
    }

    #[test]
    fn any_damaged_byte_is_corruption() {
        let sound = payload(0, 0);
        for at in 0..sound.len() {
            let mut checker = Checker::new(RUN, 64, Topology::Pairs(2));
            let mut damaged = sound.clone();
            damaged[at] ^= 0x10;
            assert_eq!(checker.arrived(1, Some(&name(0)), &damaged, FIRST), None, "byte {at}");
            assert_eq!(checker.verdicts, Verdicts { corrupted: 1, ..Verdicts::default() });
        }
    }

    #[test]
    fn a_message_of_another_run_sender_recipient_or_length_is_corruption() {
        let mut checker = Checker::new(RUN, 64, Topology::Pairs(2));
        let mut refused = |recipient, from: &str, payload: &[u8], why| {
            assert_eq!(checker.arrived(recipient, Some(from), payload, FIRST), None, "{why}");
            let without = checker.arrived(recipient, None, payload, FIRST);
            assert_eq!(without.is_some(), why == FROM, "{why}");
        };
        const FROM: &str = "from says another user";
        refused(0, &name(0), &payload(0, 0), "for user 1, got by user 0");
        refused(1, &name(1), &payload(0, 0), FROM);
        refused(1, &name(0), &payload(0, 0)[..63], "cut");
        refused(1, &name(0), &[], "empty");
        let mut other = Checker::new(RUN + 1, 64, Topology::Pairs(2));
        assert_eq!(other.arrived(1, None, &payload(0, 0), FIRST), None, "another run");
        assert_eq!(checker.verdicts.corrupted, 7);
        assert_eq!(checker.verdicts.delivered, 1, "where nothing says who it is from");
    }

    /// Deliveries of 0, 1, 2 in the first login, of which two are known to be done, and then of others in the next.
    fn after_a_cut(again: &[u32]) -> Verdicts {
        let mut checker = Checker::new(RUN, 64, Topology::Pairs(2));
        let mut deliver = |seq: u32, arrival: Arrival| {
            checker.arrived(1, Some(&name(0)), &payload(0, seq), arrival);
        };
        deliver(0, Arrival { no: 1, ..FIRST });
        deliver(1, Arrival { no: 2, ..FIRST });
        deliver(2, Arrival { no: 3, done: 2, ..FIRST });
        for (no, seq) in (1..).zip(again) {
            deliver(*seq, Arrival { login: 1, no, done: 0, done_before: 2 });
        }
        checker.verdicts
    }

    #[test]
    fn what_was_not_known_to_be_acknowledged_may_come_again_after_a_cut_and_counts_once() {
        let verdicts = after_a_cut(&[2, 3]);
        assert_eq!((verdicts.redelivered, verdicts.duplicates, verdicts.delivered), (1, 0, 4));
    }

    #[test]
    fn what_was_acknowledged_and_comes_again_is_a_duplicate() {
        let verdicts = after_a_cut(&[1, 2, 3]);
        assert_eq!((verdicts.redelivered, verdicts.duplicates), (1, 1));
    }

    #[test]
    fn what_comes_twice_in_one_login_is_a_duplicate() {
        let verdicts = after_a_cut(&[2, 2, 3, 3]);
        assert_eq!((verdicts.redelivered, verdicts.duplicates, verdicts.delivered), (1, 2, 4));
    }

    #[test]
    fn what_a_redelivery_has_reached_is_all_that_its_acknowledgement_covers() {
        let mut checker = Checker::new(RUN, 64, Topology::Pairs(2));
        let mut deliver = |login, no, seq, done, done_before| {
            let arrival = Arrival { login, no, done, done_before };
            checker.arrived(1, Some(&name(0)), &payload(0, seq), arrival);
        };
        (0..6).for_each(|seq| deliver(0, seq + 1, seq, 0, 0));
        (0..3).for_each(|seq| deliver(1, seq + 1, seq, 0, 0));
        // The ACK of the second login's three is read; the other three were never acknowledged.
        (3..6).for_each(|seq| deliver(2, seq - 2, seq, 0, 3));
        assert_eq!((checker.verdicts.redelivered, checker.verdicts.duplicates), (6, 0));
    }

    #[test]
    fn a_message_to_many_is_checked_for_each_of_them() {
        let topology = Topology::FanOut { senders: 1, recipients: 3, each: 2 };
        let mut checker = Checker::new(RUN, 64, topology);
        // Messages 0, 2, 4 go to users 1 and 2, messages 1 and 3 to user 3.
        for (recipient, seq) in [(1, 0), (1, 2), (1, 4), (2, 0), (2, 4), (3, 1)] {
            assert!(checker.arrived(recipient, Some(&name(0)), &payload(0, seq), FIRST).is_some());
        }
        let came = checker.arrivals();
        let lost = |recipient, refused: &Ranges| came.lost(0, recipient, 5, refused);
        let none = Ranges::default();
        assert_eq!([1, 2, 3].map(|recipient| lost(recipient, &none)), [0, 1, 1]);
        let mut refused = Ranges::default();
        refused.insert(3, 4);
        assert_eq!([2, 3].map(|recipient| lost(recipient, &refused)), [1, 0]);
        let mut checker = Checker::new(RUN, 64, topology);
        assert_eq!(
            checker.arrived(3, Some(&name(0)), &payload(0, 0), FIRST),
            None,
            "of another group"
        );
        assert_eq!(checker.verdicts.corrupted, 1);
    }
}
