//! When each message of an open loop is due: in bursts, dealt to the senders in turn.
//!
//! Burst `g` of a phase is due when the rate makes it message `g * burst`, and belongs to sender `g mod senders`. The rate
//! is constant, or goes in a straight line from one to another first. All of it is computed from counts, so a backlog
//! costs no memory and no message is forgotten: what a sender could not send in time keeps its intended time.

/// Messages a second over the time of a phase.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pace {
    /// At the start.
    pub from: f64,
    /// After the ramp.
    pub to: f64,
    /// How long the rate takes from one to the other, nanoseconds.
    pub ramp_ns: u64,
}

impl Pace {
    /// The same rate all the time.
    pub fn constant(rate: f64) -> Self {
        Self { from: rate, to: rate, ramp_ns: 0 }
    }

    /// When `count` messages were due, nanoseconds since the start.
    fn after_ns(&self, count: f64) -> f64 {
        let ramp_s = self.ramp_ns as f64 / 1e9;
        let of_ramp = self.from.midpoint(self.to) * ramp_s;
        if count >= of_ramp {
            let after_s = if count > of_ramp { (count - of_ramp) / self.to } else { 0.0 };
            return (ramp_s + after_s) * 1e9;
        }
        // count = from t + (to - from) t^2 / (2 ramp), solved so that nothing cancels out.
        let root = (self.from * self.from + 2.0 * (self.to - self.from) / ramp_s * count).max(0.0);
        if count > 0.0 { 2e9 * count / (self.from + root.sqrt()) } else { 0.0 }
    }
}

/// One thread's part of an open loop.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    start_ns: u64,
    until_ns: u64,
    pace: Pace,
    burst: u64,
    senders: u64,
}

impl Schedule {
    /// `pace` of all messages over `senders` senders, at least one, in bursts of `burst`, at least 1.
    pub fn new(start_ns: u64, until_ns: u64, pace: Pace, burst: u32, senders: u32) -> Self {
        assert!(pace.from.max(pace.to) > 0.0, "an open loop has a rate");
        assert!(burst > 0 && senders > 0, "and senders");
        Self { start_ns, until_ns, pace, burst: burst.into(), senders: senders.into() }
    }

    /// When burst `g` is due.
    pub fn due_ns(&self, burst: u64) -> u64 {
        let after_ns = self.pace.after_ns((burst * self.burst) as f64);
        self.start_ns.saturating_add(after_ns as u64)
    }

    /// Which sender burst `g` belongs to.
    pub fn sender_of(&self, burst: u64) -> usize {
        (burst % self.senders) as usize
    }

    /// When the message is due that `sender` sends after `made` others of this phase; `None` after the phase's end.
    pub fn intended_ns(&self, sender: usize, made: u64) -> Option<u64> {
        let burst = sender as u64 + made / self.burst * self.senders;
        Some(self.due_ns(burst)).filter(|due| *due < self.until_ns)
    }

    /// Whether burst `g` still belongs to the phase.
    pub fn contains(&self, burst: u64) -> bool {
        self.due_ns(burst) < self.until_ns
    }

    /// How many messages of `sender` the whole phase has.
    pub fn total_of(&self, sender: usize) -> u64 {
        let all = self.pace.from.max(self.pace.to) * (self.until_ns - self.start_ns) as f64 / 1e9;
        let (mut low, mut high) = (0, (all / self.burst as f64) as u64 + 2);
        while low < high {
            let middle = low.midpoint(high);
            if self.intended_ns(sender, middle * self.burst).is_some() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low * self.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_has_rate_times_time_messages_evenly_dealt() {
        let schedule = Schedule::new(1_000, 1_000 + 2_000_000_000, Pace::constant(1000.0), 1, 8);
        let totals: Vec<u64> = (0..8).map(|sender| schedule.total_of(sender)).collect();
        assert_eq!(totals, [250; 8]);
        assert_eq!(schedule.intended_ns(3, 0), Some(1_000 + 3_000_000));
        assert_eq!(schedule.intended_ns(3, 1), Some(1_000 + 11_000_000));
        assert_eq!(schedule.intended_ns(3, 250), None);
    }

    #[test]
    fn messages_of_a_burst_are_due_together() {
        let schedule = Schedule::new(0, 1_000_000_000, Pace::constant(100.0), 10, 2);
        let due: Vec<_> = (0..12).map(|made| schedule.intended_ns(1, made)).collect();
        assert!(due[..10].iter().all(|due| *due == Some(100_000_000)), "{due:?}");
        assert_eq!(due[10], Some(300_000_000));
        assert_eq!(schedule.total_of(0) + schedule.total_of(1), 100);
    }

    #[test]
    fn bursts_and_senders_agree() {
        let schedule = Schedule::new(5, 1_000_000_000, Pace::constant(333.0), 2, 3);
        for burst in 0..20 {
            let (sender, made) = (schedule.sender_of(burst), burst / 3 * 2);
            assert_eq!(schedule.intended_ns(sender, made), Some(schedule.due_ns(burst)));
        }
    }

    #[test]
    fn a_rate_of_less_than_one_message_a_phase_has_the_first_one() {
        let schedule = Schedule::new(0, 1_000, Pace::constant(1.0), 1, 2);
        assert_eq!((schedule.total_of(0), schedule.total_of(1)), (1, 0));
        assert!(schedule.contains(0) && !schedule.contains(1));
    }

    #[test]
    fn a_rate_grows_and_falls_in_a_straight_line_and_stays() {
        let second = 1_000_000_000;
        // 0 to 1,000 a second within a second is 500 messages, and then a second of 1,000.
        let pace = Pace { from: 0.0, to: 1000.0, ramp_ns: second };
        let schedule = Schedule::new(7, 7 + 2 * second, pace, 1, 4);
        assert_eq!((0..4).map(|sender| schedule.total_of(sender)).sum::<u64>(), 1500);
        assert_eq!(schedule.due_ns(0), 7);
        assert_eq!(schedule.due_ns(125), 7 + second / 2, "a quarter of them in the first half");
        assert_eq!((schedule.due_ns(500), schedule.due_ns(1000)), (7 + second, 7 + 3 * second / 2));
        let pace = Pace { from: 1000.0, to: 0.0, ramp_ns: second };
        let schedule = Schedule::new(0, second, pace, 1, 1);
        assert_eq!(schedule.total_of(0), 500);
        assert_eq!(schedule.due_ns(375), second / 2);
        assert!(!schedule.contains(501), "never, once the rate is 0");
        let mut last = 0;
        for burst in 0..500 {
            assert!(schedule.due_ns(burst) >= last);
            last = schedule.due_ns(burst);
        }
    }
}
