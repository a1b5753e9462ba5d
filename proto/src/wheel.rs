//! A wheel of timers: one entry per thing that waits, one second a bucket, nothing to cancel.
//!
//! Whoever waits is looked at when its bucket comes and says when to look again, so a deadline that moves later costs
//! nothing until then (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", scheme 4, with lazy re-arming). An
//! entry is eight bytes. Deadlines beyond the wheel are looked at once a turn.

use crate::session::Seconds;

const BUCKETS: usize = 256;

/// Timers for values that fit eight bytes.
#[derive(Debug)]
pub struct Wheel<T> {
    buckets: Vec<Vec<T>>,
    now_s: Seconds,
}

impl<T> Wheel<T> {
    /// An empty wheel at a time.
    pub fn new(now_s: Seconds) -> Self {
        Self { buckets: (0..BUCKETS).map(|_| Vec::new()).collect(), now_s }
    }

    /// Has `value` looked at when `at_s` has come, or once before if that is more than a turn away. Never earlier than the
    /// next second.
    pub fn insert(&mut self, at_s: Seconds, value: T) {
        let wait = at_s.saturating_sub(self.now_s).clamp(1, BUCKETS as Seconds - 1);
        self.buckets[(self.now_s.wrapping_add(wait)) as usize % BUCKETS].push(value);
    }

    /// Moves to a time and takes what is due into `due`. Call it at least once a turn of 255 seconds; after a longer
    /// pause everything is due.
    pub fn advance(&mut self, now_s: Seconds, due: &mut Vec<T>) {
        let steps = now_s.saturating_sub(self.now_s).min(BUCKETS as Seconds);
        for step in 1..=steps {
            let bucket = &mut self.buckets[(self.now_s.wrapping_add(step)) as usize % BUCKETS];
            due.append(bucket);
            // A burst of logins fills one bucket; its memory goes back once the burst is spread.
            if bucket.capacity() > 4096 {
                *bucket = Vec::new();
            }
        }
        self.now_s = self.now_s.max(now_s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(wheel: &mut Wheel<u32>, now_s: Seconds) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(now_s, &mut due);
        due
    }

    #[test]
    fn what_waits_is_due_at_its_second_and_once() {
        let mut wheel = Wheel::new(1000);
        (0..250).for_each(|n| wheel.insert(1001 + n, n));
        for n in 0..250 {
            assert_eq!(due(&mut wheel, 1001 + n), [n]);
        }
        assert!(due(&mut wheel, 2000).is_empty());
    }

    #[test]
    fn the_past_is_due_in_the_next_second() {
        let mut wheel = Wheel::new(1000);
        wheel.insert(5, 1);
        assert!(due(&mut wheel, 1000).is_empty());
        assert_eq!(due(&mut wheel, 1001), [1]);
    }

    #[test]
    fn what_is_far_is_looked_at_within_a_turn() {
        let mut wheel = Wheel::new(0);
        wheel.insert(100_000, 1);
        assert_eq!(due(&mut wheel, 255), [1]);
    }

    #[test]
    fn a_long_pause_forgets_nobody() {
        let mut wheel = Wheel::new(0);
        (1..=300).for_each(|n| wheel.insert(n, n));
        assert_eq!(due(&mut wheel, 5000).len(), 300);
    }
}
