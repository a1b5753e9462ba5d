//! Time, read once a turn. The only place of the data path that asks for it.

use iris_proto::session::Seconds;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of one thread's current turn.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    now: Instant,
    unix_ms: u64,
}

impl Clock {
    /// A clock whose seconds count from `started`, which all threads of a node share.
    pub fn new(started: Instant) -> Self {
        let mut clock = Self { started, now: started, unix_ms: 0 };
        clock.turn();
        clock
    }

    /// Reads the time.
    pub fn turn(&mut self) {
        self.now = Instant::now();
        self.unix_ms = unix_ms();
    }

    /// Milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        self.unix_ms
    }

    /// Monotonic seconds since the node started.
    pub fn seconds(&self) -> Seconds {
        self.now.duration_since(self.started).as_secs() as Seconds
    }

    /// The first monotonic second that begins at a Unix time or after it.
    pub fn seconds_at_unix(&self, unix_s: u64) -> Seconds {
        let ahead_ms = unix_s.saturating_mul(1000).saturating_sub(self.unix_ms);
        let at_ms = ahead_ms.saturating_add(self.monotonic_ms());
        Seconds::try_from(at_ms.div_ceil(1000)).unwrap_or(Seconds::MAX)
    }

    /// The Unix time, in whole seconds, at which a monotonic second begins.
    pub fn unix_at_seconds(&self, seconds: Seconds) -> u64 {
        (self.unix_ms + u64::from(seconds) * 1000).saturating_sub(self.monotonic_ms()) / 1000
    }

    /// Monotonic milliseconds since the node started.
    pub fn monotonic_ms(&self) -> u64 {
        self.now.duration_since(self.started).as_millis() as u64
    }

    /// Monotonic nanoseconds since the node started.
    pub fn monotonic_ns(&self) -> u64 {
        self.now.duration_since(self.started).as_nanos() as u64
    }

    /// When this turn began.
    pub fn instant(&self) -> Instant {
        self.now
    }

    /// Time since this turn began.
    pub fn elapsed(&self) -> Duration {
        self.now.elapsed()
    }
}

/// The moment, for who has no turns.
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since the Unix epoch; 0 for a clock before it.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_time_has_come_when_its_monotonic_second_begins_and_not_a_second_earlier() {
        let started = Instant::now();
        for (elapsed_ms, unix_ms) in
            [(0, 100_000), (300, 100_900), (1_999, 100_001), (7_000, 99_999)]
        {
            let now = started + Duration::from_millis(elapsed_ms);
            let clock = Clock { started, now, unix_ms };
            for unix_s in 101..110 {
                let second = clock.seconds_at_unix(unix_s);
                let begins_ms = unix_ms + u64::from(second) * 1000 - elapsed_ms;
                assert!((unix_s * 1000..(unix_s + 1) * 1000).contains(&begins_ms));
                assert_eq!(clock.unix_at_seconds(second), unix_s);
            }
            assert_eq!(clock.seconds_at_unix(u64::MAX), Seconds::MAX);
        }
    }
}
