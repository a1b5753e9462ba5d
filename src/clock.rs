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

    /// The monotonic second at which a Unix time will have come.
    pub fn seconds_at_unix(&self, unix_s: u64) -> Seconds {
        let ahead = unix_s.saturating_sub(self.unix_ms / 1000);
        self.seconds().saturating_add(Seconds::try_from(ahead).unwrap_or(Seconds::MAX))
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

/// Milliseconds since the Unix epoch; 0 for a clock before it.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
