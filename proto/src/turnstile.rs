//! Who may do dear work now: so many in a turn, the others in the order in which they came, and no more than a bound.
//!
//! One step of a TLS handshake takes a hundred microseconds of cryptography. When ten thousand clients come at once, the
//! live ones must not wait for all of them (I8), and the last of them must not wait until they have given up: who finds
//! the queue full is told at once, which costs nothing.

use std::collections::VecDeque;

/// A turnstile. `T` names who waits; 8 bytes each for connections.
#[derive(Debug)]
pub struct Turnstile<T> {
    waiting: VecDeque<T>,
    left: usize,
    per_turn: usize,
    waiting_max: usize,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<T> Turnstile<T> {
    /// Lets `per_turn` through in a turn, and `waiting_max` wait.
    pub fn new(per_turn: usize, waiting_max: usize) -> Self {
        Self { waiting: VecDeque::new(), left: per_turn, per_turn, waiting_max }
    }

    /// A turn begins. Memory of a storm that is over is given back.
    pub fn begin_turn(&mut self) {
        self.left = self.per_turn;
        if self.waiting.is_empty() && self.waiting.capacity() > self.per_turn {
            self.waiting = VecDeque::new();
        }
    }

    /// Somebody comes. Each may wait once at a time.
    pub fn arrive(&mut self, who: T) -> Result<(), Full> {
        if self.waiting.len() >= self.waiting_max {
            return Err(Full);
        }
        self.waiting.push_back(who);
        Ok(())
    }

    /// The next one whose turn it is. Those for whom `counts` is false have gone, and take nobody's turn.
    pub fn next(&mut self, mut counts: impl FnMut(&T) -> bool) -> Option<T> {
        while self.left > 0 {
            let who = self.waiting.pop_front()?;
            if counts(&who) {
                self.left -= 1;
                return Some(who);
            }
        }
        None
    }

    /// How many wait; some may have gone.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    #[test]
    fn a_turn_lets_some_through_and_the_others_follow_in_order() {
        let mut turnstile = Turnstile::new(3, 10);
        (0..10).for_each(|who| assert_eq!(turnstile.arrive(who), Ok(())));
        assert_eq!(turnstile.arrive(10), Err(Full));
        let mut turns = Vec::new();
        while turnstile.waiting() > 0 {
            turnstile.begin_turn();
            turns.push(
                std::iter::from_fn(|| turnstile.next(|who| who % 2 == 0)).collect::<Vec<_>>(),
            );
        }
        assert_eq!(turns, [vec![0, 2, 4], vec![6, 8]]);
        assert_eq!(turnstile.arrive(11), Ok(()));
    }

    proptest! {
        #[test]
        fn nobody_is_lost_passed_or_let_through_twice(
            per_turn in 1..5_usize,
            waiting_max in 1..20_usize,
            arrivals in proptest::collection::vec(0..10_usize, 1..40),
            gone in any::<u64>(),
        ) {
            let mut turnstile = Turnstile::new(per_turn, waiting_max);
            let (mut number, mut let_in, mut through) = (0_u64, Vec::new(), Vec::new());
            for arriving in arrivals.into_iter().chain([0; 30]) {
                for _ in 0..arriving {
                    let was = turnstile.waiting();
                    match turnstile.arrive(number) {
                        Ok(()) => let_in.push(number),
                        Err(Full) => assert_eq!(was, waiting_max),
                    }
                    number += 1;
                }
                turnstile.begin_turn();
                let before = through.len();
                while let Some(who) = turnstile.next(|who| gone >> (who % 64) & 1 == 0) {
                    through.push(who);
                }
                assert!(through.len() - before <= per_turn && turnstile.waiting() <= waiting_max);
            }
            let_in.retain(|who| gone >> (who % 64) & 1 == 0);
            assert_eq!(through, let_in);
        }
    }
}
