//! A wheel of timers: one entry per thing that waits, one second a bucket, nothing to cancel.
//!
//! Whoever waits is looked at when its bucket comes and says when to look again, so a deadline that moves later costs
//! nothing until then (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", scheme 4, with lazy re-arming). An
//! entry is eight bytes. Deadlines beyond the wheel are looked at once a turn.
//!
//! A bucket with many entries is handed out evenly over its second. Ten thousand PINGs in one turn, and ten thousand
//! PONGs right after them, would keep everything else waiting.

use crate::session::Seconds;

const BUCKETS: usize = 256;
/// A bucket of so many entries at most is handed out at once.
const AT_ONCE: usize = 64;
/// How often a larger one asks for [`Wheel::advance`], milliseconds.
pub const STEP_MS: u64 = 5;

/// Timers for values that fit eight bytes.
#[derive(Debug)]
pub struct Wheel<T> {
    buckets: Vec<Vec<T>>,
    now_s: Seconds,
    /// Due in this second and not handed out.
    waiting: Vec<T>,
    /// How many were due as this second began.
    burst: usize,
}

impl<T> Wheel<T> {
    /// An empty wheel at a time.
    pub fn new(now_s: Seconds) -> Self {
        let buckets = (0..BUCKETS).map(|_| Vec::new()).collect();
        Self { buckets, now_s, waiting: Vec::new(), burst: 0 }
    }

    /// Has `value` looked at when `at_s` has come, or once before if that is more than a turn away. Never earlier than the
    /// next second.
    pub fn insert(&mut self, at_s: Seconds, value: T) {
        let wait = at_s.saturating_sub(self.now_s).clamp(1, BUCKETS as Seconds - 1);
        self.buckets[(self.now_s.wrapping_add(wait)) as usize % BUCKETS].push(value);
    }

    /// Moves to a time and takes into `due` what is due: a few at once, of many the share of the second that has passed.
    /// Call it at least once a turn of 255 seconds; after a longer pause everything is due.
    pub fn advance(&mut self, now_ms: u64, due: &mut Vec<T>) {
        let now_s = Seconds::try_from(now_ms / 1000).unwrap_or(Seconds::MAX);
        if now_s > self.now_s {
            self.begin_second(now_s);
        }
        let share = match self.burst {
            ..=AT_ONCE => self.burst,
            burst => (burst * (now_ms % 1000 + STEP_MS) as usize).div_ceil(1000).min(burst),
        };
        let left = self.waiting.len().min(self.burst - share);
        due.extend(self.waiting.drain(left..));
        if left == 0 && self.waiting.capacity() > 4096 {
            self.waiting = Vec::new();
        }
    }

    /// Whether some of this second are still to be handed out, in [`STEP_MS`].
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn begin_second(&mut self, now_s: Seconds) {
        let steps = (now_s - self.now_s).min(BUCKETS as Seconds);
        for step in 1..=steps {
            let bucket = &mut self.buckets[(self.now_s.wrapping_add(step)) as usize % BUCKETS];
            self.waiting.append(bucket);
            // A burst of logins fills one bucket; its memory goes back once the burst is spread.
            if bucket.capacity() > 4096 {
                *bucket = Vec::new();
            }
        }
        self.burst = self.waiting.len();
        self.now_s = now_s;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_at(wheel: &mut Wheel<u32>, now_ms: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(now_ms, &mut due);
        due
    }

    /// All that is due in a second, at its end.
    fn due(wheel: &mut Wheel<u32>, now_s: Seconds) -> Vec<u32> {
        due_at(wheel, u64::from(now_s) * 1000 + 999)
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

    #[test]
    fn many_of_one_second_come_evenly_and_few_at_once() {
        let mut wheel = Wheel::new(0);
        (0..10_000).for_each(|n| wheel.insert(1, n));
        let mut seen = Vec::new();
        for at_ms in (1000..2000).step_by(STEP_MS as usize) {
            let some = due_at(&mut wheel, at_ms);
            assert_eq!(some.len(), 50);
            seen.extend(some);
        }
        assert!(!wheel.is_waiting());
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..10_000));
        (0..AT_ONCE as u32).for_each(|n| wheel.insert(2, n));
        assert_eq!(due_at(&mut wheel, 2000).len(), AT_ONCE);
    }

    #[test]
    fn what_a_second_left_over_comes_in_the_next() {
        let mut wheel = Wheel::new(0);
        (0..1000).for_each(|n| wheel.insert(1, n));
        assert_eq!(due_at(&mut wheel, 1095).len(), 100);
        assert!(wheel.is_waiting());
        assert_eq!(due_at(&mut wheel, 2495).len(), 450);
        assert_eq!(due_at(&mut wheel, 2999).len(), 450);
        assert!(!wheel.is_waiting());
    }
}
