//! What the main thread tells the generator threads, and what they tell it: plain atomics, no lock, no queue.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// What generator threads do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Log in who may, answer, acknowledge; send nothing new.
    Hold = 0,
    /// Send as well.
    Send = 1,
    /// Close everything and return.
    End = 2,
}

/// The times of a sending phase, nanoseconds since the run began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Window {
    /// The schedule begins.
    pub send_from_ns: u64,
    /// From here on it is measured.
    pub steady_from_ns: u64,
    /// Until here.
    pub until_ns: u64,
}

impl Window {
    /// Whether a moment is measured.
    pub fn is_steady(&self, at_ns: u64) -> bool {
        (self.steady_from_ns..self.until_ns).contains(&at_ns)
    }
}

/// Orders for all threads.
#[derive(Debug)]
pub struct Control {
    epoch: Instant,
    phase: AtomicU32,
    groups: AtomicU32,
    send_from_ns: AtomicU64,
    steady_from_ns: AtomicU64,
    until_ns: AtomicU64,
    interval: AtomicU32,
}

impl Control {
    /// The run begins now.
    pub fn start() -> Self {
        Self {
            epoch: Instant::now(),
            phase: AtomicU32::new(Phase::Hold as u32),
            groups: AtomicU32::new(0),
            send_from_ns: AtomicU64::new(0),
            steady_from_ns: AtomicU64::new(0),
            until_ns: AtomicU64::new(0),
            interval: AtomicU32::new(0),
        }
    }

    /// Nanoseconds since the run began, from 1.
    pub fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64 + 1
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        match self.phase.load(SeqCst) {
            0 => Phase::Hold,
            1 => Phase::Send,
            _ => Phase::End,
        }
    }

    /// Starts sending: `warmup` that is not measured, then `steady`. Gives the window.
    pub fn send(&self, warmup: Duration, steady: Duration) -> Window {
        let send_from_ns = self.now_ns();
        let steady_from_ns = send_from_ns + warmup.as_nanos() as u64;
        let until_ns = steady_from_ns + steady.as_nanos() as u64;
        self.send_from_ns.store(send_from_ns, SeqCst);
        self.steady_from_ns.store(steady_from_ns, SeqCst);
        self.until_ns.store(until_ns, SeqCst);
        self.phase.store(Phase::Send as u32, SeqCst);
        Window { send_from_ns, steady_from_ns, until_ns }
    }

    /// The latest window; complete once the phase is [`Phase::Send`].
    pub fn window(&self) -> Window {
        Window {
            send_from_ns: self.send_from_ns.load(SeqCst),
            steady_from_ns: self.steady_from_ns.load(SeqCst),
            until_ns: self.until_ns.load(SeqCst),
        }
    }

    /// Ends a sending phase.
    pub fn hold(&self) {
        self.phase.store(Phase::Hold as u32, SeqCst);
    }

    /// Ends the run.
    pub fn end(&self) {
        self.phase.store(Phase::End as u32, SeqCst);
    }

    /// Groups of users that may log in: those below this number.
    pub fn groups(&self) -> u32 {
        self.groups.load(SeqCst)
    }

    /// The interval that threads hand over, once for each new number.
    pub fn interval(&self) -> u32 {
        self.interval.load(Relaxed)
    }

    /// Asks all threads for what they measured since the last time. Gives the interval's number.
    pub fn end_interval(&self) -> u32 {
        self.interval.fetch_add(1, Relaxed) + 1
    }

    /// Lets groups below this number log in.
    pub fn let_in(&self, groups: u32) {
        self.groups.store(groups, SeqCst);
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One thread's counts for all to read.
        #[derive(Debug, Default)]
        pub struct Progress {
            $($name: AtomicU64,)*
            sending: AtomicBool,
        }

        /// Counts at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Progress {
            /// Publishes a thread's counts and whether it is in a sending phase.
            pub fn publish(&self, counts: &Counts, sending: bool) {
                $(self.$name.store(counts.$name, Relaxed);)*
                // After the counts: who sees the end of sending sees what was sent.
                self.sending.store(sending, SeqCst);
            }

            /// Adds this thread's counts to `sum`; whether it is in a sending phase.
            pub fn add_to(&self, sum: &mut Counts) -> bool {
                let sending = self.sending.load(SeqCst);
                $(sum.$name += self.$name.load(Relaxed);)*
                sending
            }
        }
    };
}

counters! {
    /// Logins done.
    logged_in,
    /// Connections that failed before their login.
    failed,
    /// Connections that ended after their login, before the run's end.
    ended,
    /// Messages sent.
    sent,
    /// Messages accepted.
    accepted,
    /// Messages refused.
    rejected,
    /// Messages that arrived, each counted once: the end of a run waits until all have.
    arrived,
    /// Connections with messages that are not acknowledged.
    unacknowledged,
}

impl Counts {
    /// Messages that have no answer yet.
    pub fn unanswered(&self) -> u64 {
        self.sent.saturating_sub(self.accepted + self.rejected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_threads_add_up() {
        let (a, b) = (Progress::default(), Progress::default());
        a.publish(&Counts { sent: 5, accepted: 2, rejected: 1, ..Counts::default() }, true);
        b.publish(&Counts { sent: 1, ..Counts::default() }, false);
        let mut sum = Counts::default();
        assert!(a.add_to(&mut sum) && !b.add_to(&mut sum));
        assert_eq!((sum.sent, sum.unanswered()), (6, 3));
    }

    #[test]
    fn a_window_has_its_warmup_before_the_steady_part() {
        let control = Control::start();
        let window = control.send(Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(control.phase(), Phase::Send);
        assert_eq!(window, control.window());
        assert!(!window.is_steady(window.send_from_ns) && window.is_steady(window.steady_from_ns));
        assert!(!window.is_steady(window.until_ns));
        assert_eq!(window.until_ns - window.send_from_ns, 3_000_000_000);
    }
}
