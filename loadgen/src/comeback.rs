//! When connections that were cut, or that failed, are made again.
//!
//! What was cut on purpose comes back when it was told to. What failed waits as docs/PROTOCOL.md, section 9, has it: a
//! random time between 0 and `min(30 s, 0.25 s * 2^n)` in the n-th attempt.

use crate::net::ConnIndex;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const WAIT_NS: u64 = 250_000_000;
const WAIT_NS_MAX: u64 = 30_000_000_000;

/// Connections of one thread that wait to be made again.
#[derive(Debug)]
pub struct Comeback {
    due: BinaryHeap<Reverse<(u64, ConnIndex)>>,
    random: u64,
}

impl Comeback {
    /// None yet; `seed` is for the random waits.
    pub fn new(seed: u64) -> Self {
        Self { due: BinaryHeap::new(), random: seed | 1 }
    }

    /// This one comes back at `at_ns`.
    pub fn at(&mut self, conn: ConnIndex, at_ns: u64) {
        self.due.push(Reverse((at_ns, conn)));
    }

    /// This one failed `attempts` times, at least once, and waits a random time.
    pub fn after_failure(&mut self, conn: ConnIndex, attempts: u32, now_ns: u64) {
        let longest = (WAIT_NS << (attempts - 1).min(10)).min(WAIT_NS_MAX);
        // xorshift (Marsaglia 2003): spread is all that is asked of it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.at(conn, now_ns + self.random % longest);
    }

    /// One that is due.
    pub fn take_due(&mut self, now_ns: u64) -> Option<ConnIndex> {
        let Reverse((at_ns, _)) = self.due.peek()?;
        if *at_ns > now_ns {
            return None;
        }
        self.due.pop().map(|Reverse((_, conn))| conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_back_when_they_are_due() {
        let mut comeback = Comeback::new(1);
        comeback.at(7, 30);
        comeback.at(8, 20);
        assert_eq!(comeback.take_due(19), None);
        assert_eq!((comeback.take_due(30), comeback.take_due(30)), (Some(8), Some(7)));
        assert_eq!(comeback.take_due(30), None);
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_half_a_minute() {
        let mut comeback = Comeback::new(1);
        for (attempts, longest) in [(1, WAIT_NS), (2, 2 * WAIT_NS), (90, WAIT_NS_MAX)] {
            (0..1000).for_each(|conn| comeback.after_failure(conn, attempts, 5));
            let late = 5 + longest / 2;
            let early = std::iter::from_fn(|| comeback.take_due(late)).count();
            assert!((300..700).contains(&early), "{attempts}: {early} of 1,000 in the first half");
            let rest = std::iter::from_fn(|| comeback.take_due(5 + longest)).count();
            assert_eq!(early + rest, 1000);
        }
    }
}
