//! Hybrid logical clock: a 64-bit stamp near physical time that never repeats and never goes back.
//!
//! Layout: 48 bits of Unix milliseconds, then 16 bits of counter (Kulkarni et al., "Logical Physical Clocks and
//! Consistent Snapshots in Globally Distributed Databases", 2014). Stamps order records; no safety rests on them.

/// A stamp: `unix_ms << 16 | counter`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    /// Largest time a stamp can carry, in Unix milliseconds (the year 10889).
    pub const UNIX_MS_MAX: u64 = (1 << 48) - 1;

    /// The stamp of a time and a counter; the time is clamped to 48 bits.
    pub fn new(unix_ms: u64, counter: u16) -> Self {
        Self(unix_ms.min(Self::UNIX_MS_MAX) << 16 | u64::from(counter))
    }

    /// The time part, in Unix milliseconds.
    pub fn unix_ms(self) -> u64 {
        self.0 >> 16
    }

    /// The counter that tells stamps of one millisecond apart.
    pub fn counter(self) -> u16 {
        self.0 as u16
    }
}

impl std::fmt::Debug for Hlc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.unix_ms(), self.counter())
    }
}

/// Another node's stamp lies further ahead of our time than we accept; it was not taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooFarAhead {
    /// Milliseconds between our time and the stamp.
    pub ahead_ms: u64,
}

/// Gives out stamps: each is greater than every stamp given or seen before.
#[derive(Clone, Copy, Default, Debug)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// The greatest stamp given or seen so far.
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// The next stamp. When `now_ms` stands still or steps back, the stamp goes on from the last one, and carries
    /// into the milliseconds once the counter is used up.
    pub fn tick(&mut self, now_ms: u64) -> Hlc {
        assert!(self.last.0 < u64::MAX, "stamps are used up");
        self.last = Hlc::new(now_ms, 0).max(Hlc(self.last.0 + 1));
        self.last
    }

    /// Takes over a stamp of another node, so that ours come after it. One that is more than `drift_ms_max` ahead of
    /// `now_ms` is refused: a peer with a wrong clock must not push ours away from the time (I9).
    pub fn observe(
        &mut self,
        seen: Hlc,
        now_ms: u64,
        drift_ms_max: u64,
    ) -> Result<(), TooFarAhead> {
        let ahead_ms = seen.unix_ms().saturating_sub(now_ms);
        if ahead_ms > drift_ms_max {
            return Err(TooFarAhead { ahead_ms });
        }
        self.last = self.last.max(seen);
        Ok(())
    }

    /// Takes over a stamp of our own log, however far ahead: what is in the log was given out. A stamp so close to the
    /// end of the range that none could follow can only be damage and is left out.
    pub fn recover(&mut self, seen: Hlc) {
        if seen.unix_ms() < Hlc::UNIX_MS_MAX {
            self.last = self.last.max(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_when_the_clock_stands_still_or_steps_back() {
        let mut clock = HlcClock::default();
        let stamps: Vec<_> = [1000, 1000, 999, 5, 1001, 0].map(|now| clock.tick(now)).into();
        assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
        assert_eq!(stamps[4], Hlc::new(1001, 0));
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut clock = HlcClock::default();
        clock.recover(Hlc::new(7, u16::MAX));
        assert_eq!(clock.tick(7), Hlc::new(8, 0));
    }

    #[test]
    fn a_peer_within_the_drift_is_followed_and_one_beyond_is_refused() {
        let mut clock = HlcClock::default();
        assert_eq!(clock.observe(Hlc::new(1500, 3), 1000, 500), Ok(()));
        assert_eq!(clock.tick(1000), Hlc::new(1500, 4));
        assert_eq!(clock.observe(Hlc::new(1502, 0), 1000, 500), Err(TooFarAhead { ahead_ms: 502 }));
        assert_eq!(clock.tick(1000), Hlc::new(1500, 5));
    }

    #[test]
    fn a_stamp_at_the_end_of_the_range_does_not_stop_the_clock() {
        let mut clock = HlcClock::default();
        clock.recover(Hlc(u64::MAX));
        assert_eq!(clock.tick(9), Hlc::new(9, 0));
    }
}
