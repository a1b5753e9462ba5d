//! When each message of an open loop is due: `rate` messages a second in bursts, dealt to the senders in turn.
//!
//! Burst `g` of a phase is due `g * burst / rate` seconds after its start and belongs to sender `g mod senders`. All
//! of it is computed from counts, so a backlog costs no memory and no message is forgotten: what a sender could not
//! send in time keeps its intended time.

/// One thread's part of an open loop.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    start_ns: u64,
    until_ns: u64,
    /// Nanoseconds from one burst of this thread to the next.
    gap_ns: f64,
    burst: u64,
    senders: u64,
}

impl Schedule {
    /// `rate` messages a second over `senders` senders, at least one, in bursts of `burst`, at least 1.
    pub fn new(start_ns: u64, until_ns: u64, rate: f64, burst: u32, senders: u32) -> Self {
        assert!(rate > 0.0 && burst > 0 && senders > 0, "an open loop has a rate and senders");
        let burst = u64::from(burst);
        let gap_ns = 1e9 * burst as f64 / rate;
        Self { start_ns, until_ns, gap_ns, burst, senders: u64::from(senders) }
    }

    /// When burst `g` is due.
    pub fn due_ns(&self, burst: u64) -> u64 {
        self.start_ns + (burst as f64 * self.gap_ns) as u64
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
        let (mut low, mut high) = (0, (self.until_ns - self.start_ns) / self.gap_ns as u64 + 2);
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
        let schedule = Schedule::new(1_000, 1_000 + 2_000_000_000, 1000.0, 1, 8);
        let totals: Vec<u64> = (0..8).map(|sender| schedule.total_of(sender)).collect();
        assert_eq!(totals, [250; 8]);
        assert_eq!(schedule.intended_ns(3, 0), Some(1_000 + 3_000_000));
        assert_eq!(schedule.intended_ns(3, 1), Some(1_000 + 11_000_000));
        assert_eq!(schedule.intended_ns(3, 250), None);
    }

    #[test]
    fn messages_of_a_burst_are_due_together() {
        let schedule = Schedule::new(0, 1_000_000_000, 100.0, 10, 2);
        let due: Vec<_> = (0..12).map(|made| schedule.intended_ns(1, made)).collect();
        assert!(due[..10].iter().all(|due| *due == Some(100_000_000)), "{due:?}");
        assert_eq!(due[10], Some(300_000_000));
        assert_eq!(schedule.total_of(0) + schedule.total_of(1), 100);
    }

    #[test]
    fn bursts_and_senders_agree() {
        let schedule = Schedule::new(5, 1_000_000_000, 333.0, 2, 3);
        for burst in 0..20 {
            let (sender, made) = (schedule.sender_of(burst), burst / 3 * 2);
            assert_eq!(schedule.intended_ns(sender, made), Some(schedule.due_ns(burst)));
        }
    }

    #[test]
    fn a_rate_of_less_than_one_message_a_phase_has_the_first_one() {
        let schedule = Schedule::new(0, 1_000, 1.0, 1, 2);
        assert_eq!((schedule.total_of(0), schedule.total_of(1)), (1, 0));
        assert!(schedule.contains(0) && !schedule.contains(1));
    }
}
