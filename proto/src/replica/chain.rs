//! The chain digest of a stream: two nodes with the same digest at the same number hold the same records up to there.
//!
//! `digest(n) = SipHash-1-3(digest(n - 1), what record n says)`, with a fixed key: it tells accidents apart, such as a
//! number given out twice, and is no proof against an adversary. What a record says leaves out recipients and payload: a
//! rewritten copy has fewer recipients, and a restart reads no payloads. Two messages under one number differ in id or
//! time.
//!
//! A few points are kept: at each level k the last four multiples of 2^k. Of two chains whose ends lie d apart, both keep
//! a point less than d before the end of the shorter one, unless that is below a quarter of the longer one.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::effects::{RecordBody, RecordView};

/// Points kept at each level.
const POINTS: usize = 4;

/// The chain of one stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Chain {
    seq: u64,
    digest: u64,
    /// Number and digest of kept points, by level and by number.
    points: Vec<[(u64, u64); POINTS]>,
}

impl Chain {
    /// The last number.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The digest at the last number.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Goes on with the next record.
    pub(crate) fn push(&mut self, record: &RecordView<'_>) {
        assert_eq!(record.dot.seq, self.seq + 1, "a chain has no holes");
        let digest = link(self.digest, record);
        self.set(self.seq + 1, digest);
    }

    /// Goes on from a point that somebody else vouches for.
    pub(crate) fn set(&mut self, seq: u64, digest: u64) {
        (self.seq, self.digest) = (seq, digest);
        for level in 0..=seq.trailing_zeros().min(62) as usize {
            if self.points.len() <= level {
                self.points.push([(0, 0); POINTS]);
            }
            self.points[level][(seq >> level) as usize % POINTS] = (seq, digest);
        }
    }

    /// The digest at a number, if it is kept.
    pub(crate) fn at(&self, seq: u64) -> Option<u64> {
        if seq == self.seq {
            return (seq > 0).then_some(self.digest);
        }
        let levels = self.points.iter().enumerate();
        let mut points = levels.map(|(level, points)| points[(seq >> level) as usize % POINTS]);
        points.find(|point| point.0 == seq && seq > 0).map(|point| point.1)
    }

    /// The kept point with the greatest number up to `last`.
    pub(crate) fn point_upto(&self, last: u64) -> Option<(u64, u64)> {
        if (1..=last).contains(&self.seq) {
            return Some((self.seq, self.digest));
        }
        let points = self.points.iter().flatten().filter(|point| (1..=last).contains(&point.0));
        points.max().copied()
    }
}

fn link(before: u64, record: &RecordView<'_>) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x4972_6973, 0x6368_6169_6e31);
    let mut head = [0; 24];
    head[..8].copy_from_slice(&before.to_le_bytes());
    head[8..16].copy_from_slice(&record.dot.seq.to_le_bytes());
    head[16..].copy_from_slice(&record.hlc.0.to_le_bytes());
    match &record.body {
        RecordBody::Msg { sender, msg_id, flags, .. } => {
            // In one piece: most records are messages, and a hasher pays for each call.
            let mut bytes = [0; 59];
            bytes[..24].copy_from_slice(&head);
            bytes[24] = 1;
            bytes[25..41].copy_from_slice(&sender.0);
            bytes[41..57].copy_from_slice(&msg_id.0.to_be_bytes());
            bytes[57..].copy_from_slice(&flags.to_le_bytes());
            return hasher.hash(&bytes);
        }
        RecordBody::Tomb { inbox, targets, .. } => {
            hasher.write(&head);
            hasher.write_u8(2);
            hasher.write(&inbox.0);
            for dot in *targets {
                hasher.write_u32(dot.origin.node);
                hasher.write_u32(dot.origin.incarnation);
                hasher.write_u64(dot.seq);
            }
        }
        RecordBody::Epoch { mode, state_id } => {
            hasher.write(&head);
            hasher.write_u8(4);
            hasher.write_u8(*mode);
            hasher.write_u64(*state_id);
        }
        RecordBody::Mark(_) | RecordBody::Other => {
            hasher.write(&head);
            hasher.write_u8(0);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlc::Hlc;
    use crate::id::{Dot, MsgId, Origin, ShardId, UserKey};

    fn record(seq: u64, hlc: u64) -> RecordView<'static> {
        let origin = Origin { node: 1, incarnation: 1 };
        let body = RecordBody::Epoch { mode: 1, state_id: 1 };
        RecordView { shard: ShardId(0), dot: Dot { origin, seq }, hlc: Hlc(hlc), copy: false, body }
    }

    fn chain(len: u64, odd_from: u64) -> Chain {
        let mut chain = Chain::default();
        (1..=len).for_each(|seq| chain.push(&record(seq, u64::from(seq >= odd_from))));
        chain
    }

    #[test]
    fn two_chains_meet_near_the_end_of_the_shorter_one() {
        for (short, long) in [(1, 1), (1, 3), (5, 9), (100, 101), (1000, 1500), (300, 1100)] {
            let (a, b) = (chain(short, u64::MAX), chain(long, u64::MAX));
            let (seq, digest) = b.point_upto(short).unwrap();
            assert_eq!(a.at(seq), Some(digest), "{short} {long}: {seq}");
            assert!(seq + (long - short) >= short, "{short} {long}: met at {seq}");
        }
        assert_eq!(chain(10_000, u64::MAX).point_upto(7), None);
    }

    #[test]
    fn a_difference_shows_at_every_later_number() {
        let (a, b) = (chain(64, u64::MAX), chain(64, 10));
        assert_eq!(a.at(8), b.at(8));
        assert!([16, 32, 48, 62, 63, 64].iter().all(|seq| a.at(*seq) != b.at(*seq)));
        assert!(a.at(64).is_some() && a.at(3).is_none() && a.at(0).is_none());
    }

    #[test]
    fn the_digest_of_a_message_is_that_of_its_bytes_in_order() {
        let body = RecordBody::Msg {
            sender: UserKey([7; 16]),
            msg_id: MsgId(0x0102_0304),
            flags: 0x0506,
            recipients: &[],
        };
        let record = RecordView { body, ..record(9, 8) };
        let mut pieces = SipHasher13::new_with_keys(0x4972_6973, 0x6368_6169_6e31);
        for number in [5, 9, 8] {
            pieces.write_u64(number);
        }
        pieces.write_u8(1);
        pieces.write(&[7; 16]);
        pieces.write(&0x0102_0304_u128.to_be_bytes());
        pieces.write_u16(0x0506);
        assert_eq!(link(5, &record), pieces.finish());
    }

    #[test]
    fn memory_grows_with_the_logarithm() {
        assert_eq!(chain(10_000, u64::MAX).points.len(), 14);
    }
}
