//! What the main thread tells the generator threads, and what they tell it: plain atomics, no lock, no queue.

use iris_proto::limits::RECV_WINDOW_MAX;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Connections of a thread that are being made or logged in at once, unless told otherwise, so that accept queues are not
/// overrun.
const LOGINS_AT_ONCE: u32 = 256;

/// What generator threads do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// Log in who may, answer, acknowledge; send nothing new.
    Hold = 0,
    /// Send as well.
    Send = 1,
    /// Close everything and return.
    End = 2,
}

/// What is to be sent in a phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Messages a second of all threads at the beginning.
    pub rate_from: u64,
    /// And once the rate has grown, or fallen; both 0: as fast as the windows allow.
    pub rate: u64,
    /// How long the rate takes to get there.
    pub ramp: Duration,
    /// Before the measured part.
    pub warmup: Duration,
    /// The measured part.
    pub steady: Duration,
    /// Messages of all users, at most; each user that sends has its share.
    pub messages_max: u64,
}

impl Load {
    /// The highest rate of it.
    pub fn peak(&self) -> u64 {
        self.rate_from.max(self.rate)
    }
}

/// The times of a sending phase, nanoseconds since the run began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Window {
    /// The schedule begins.
    pub send_from_ns: u64,
    /// From here on it is measured.
    pub steady_from_ns: u64,
    /// Until here.
    pub until_ns: u64,
    /// As in [`Load`].
    pub rate_from: u64,
    /// As in [`Load`].
    pub rate: u64,
    /// As in [`Load`].
    pub ramp_ns: u64,
    /// As in [`Load`].
    pub messages_max: u64,
}

impl Window {
    /// In which tenth of the measured part a moment is, 0 to 9; more after its end.
    pub fn tenth(&self, at_ns: u64) -> u64 {
        let whole_ns = (self.until_ns - self.steady_from_ns).max(1);
        10 * at_ns.saturating_sub(self.steady_from_ns) / whole_ns
    }

    /// Whether a moment is measured.
    pub fn is_steady(&self, at_ns: u64) -> bool {
        (self.steady_from_ns..self.until_ns).contains(&at_ns)
    }
}

/// All orders at one moment, for threads of another process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Orders {
    phase: Phase,
    window: Window,
    users: u32,
    connects_per_s: u64,
    let_in_ns: u64,
    logins_at_once: u32,
    cuts: u32,
    churn_per_s: u64,
    churn_from_ns: u64,
    recv_window: u32,
    stalled: bool,
    interval: u32,
}

impl Orders {
    /// Whether they end the run.
    pub fn end(&self) -> bool {
        self.phase == Phase::End
    }
}

/// Orders for all threads.
#[derive(Debug)]
pub struct Control {
    epoch: Instant,
    /// How long before a sending phase it is announced, so that all processes of a run begin it together.
    lead: Duration,
    phase: AtomicU32,
    users: AtomicU32,
    let_in_ns: AtomicU64,
    connects_per_s: AtomicU64,
    logins_at_once: AtomicU32,
    cuts: AtomicU32,
    churn_per_s: AtomicU64,
    churn_from_ns: AtomicU64,
    recv_window: AtomicU32,
    stalled: AtomicBool,
    send_from_ns: AtomicU64,
    steady_from_ns: AtomicU64,
    until_ns: AtomicU64,
    interval: AtomicU32,
    rate_from: AtomicU64,
    rate: AtomicU64,
    ramp_ns: AtomicU64,
    messages_max: AtomicU64,
}

impl Control {
    /// The run begins now.
    pub fn start() -> Self {
        Self::since(Instant::now(), Duration::ZERO)
    }

    /// The run began then; sending is announced by `lead` before it begins.
    pub fn since(epoch: Instant, lead: Duration) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            epoch,
            lead,
            phase: AtomicU32::new(Phase::Hold as u32),
            users: AtomicU32::new(0),
            let_in_ns: zero(),
            connects_per_s: zero(),
            logins_at_once: AtomicU32::new(LOGINS_AT_ONCE),
            cuts: AtomicU32::new(0),
            churn_per_s: zero(),
            churn_from_ns: zero(),
            recv_window: AtomicU32::new(RECV_WINDOW_MAX),
            stalled: AtomicBool::new(false),
            send_from_ns: zero(),
            steady_from_ns: zero(),
            until_ns: zero(),
            rate_from: zero(),
            rate: zero(),
            ramp_ns: zero(),
            messages_max: zero(),
            interval: AtomicU32::new(0),
        }
    }

    /// When the run began.
    pub fn epoch(&self) -> Instant {
        self.epoch
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

    /// Starts sending, and gives the times.
    pub fn send(&self, load: Load) -> Window {
        let send_from_ns = self.now_ns() + self.lead.as_nanos() as u64;
        let steady_from_ns = send_from_ns + load.warmup.as_nanos() as u64;
        let window = Window {
            send_from_ns,
            steady_from_ns,
            until_ns: steady_from_ns + load.steady.as_nanos() as u64,
            rate_from: load.rate_from,
            rate: load.rate,
            ramp_ns: load.ramp.as_nanos() as u64,
            messages_max: load.messages_max,
        };
        self.announce(&window);
        self.phase.store(Phase::Send as u32, SeqCst);
        window
    }

    fn announce(&self, window: &Window) {
        self.send_from_ns.store(window.send_from_ns, SeqCst);
        self.steady_from_ns.store(window.steady_from_ns, SeqCst);
        self.until_ns.store(window.until_ns, SeqCst);
        self.rate_from.store(window.rate_from, SeqCst);
        self.rate.store(window.rate, SeqCst);
        self.ramp_ns.store(window.ramp_ns, SeqCst);
        self.messages_max.store(window.messages_max, SeqCst);
    }

    /// The latest window; complete once the phase is [`Phase::Send`].
    pub fn window(&self) -> Window {
        Window {
            send_from_ns: self.send_from_ns.load(SeqCst),
            steady_from_ns: self.steady_from_ns.load(SeqCst),
            until_ns: self.until_ns.load(SeqCst),
            rate_from: self.rate_from.load(SeqCst),
            rate: self.rate.load(SeqCst),
            ramp_ns: self.ramp_ns.load(SeqCst),
            messages_max: self.messages_max.load(SeqCst),
        }
    }

    /// All orders. What was stored last is read first, so that nothing is ordered whose times are not there yet.
    pub fn orders(&self) -> Orders {
        let (phase, users) = (self.phase(), self.users());
        let churn_per_s = self.churn_per_s.load(SeqCst);
        Orders {
            phase,
            window: self.window(),
            users,
            connects_per_s: self.connects_per_s.load(SeqCst),
            let_in_ns: self.let_in_ns.load(SeqCst),
            logins_at_once: self.logins_at_once(),
            cuts: self.cuts(),
            churn_per_s,
            churn_from_ns: self.churn_from_ns.load(SeqCst),
            recv_window: self.recv_window(),
            stalled: self.stalled(),
            interval: self.interval(),
        }
    }

    /// Takes over the orders of another process.
    pub fn obey(&self, orders: &Orders) {
        self.stalled.store(orders.stalled, SeqCst);
        self.recv_window.store(orders.recv_window, SeqCst);
        self.churn_from_ns.store(orders.churn_from_ns, SeqCst);
        self.churn_per_s.store(orders.churn_per_s, SeqCst);
        self.logins_at_once.store(orders.logins_at_once, SeqCst);
        self.cuts.store(orders.cuts, SeqCst);
        self.let_in_ns.store(orders.let_in_ns, SeqCst);
        self.connects_per_s.store(orders.connects_per_s, SeqCst);
        self.users.store(orders.users, SeqCst);
        self.interval.store(orders.interval, Relaxed);
        self.announce(&orders.window);
        self.phase.store(orders.phase as u32, SeqCst);
    }

    /// Ends a sending phase.
    pub fn hold(&self) {
        self.phase.store(Phase::Hold as u32, SeqCst);
    }

    /// Ends the run.
    pub fn end(&self) {
        self.phase.store(Phase::End as u32, SeqCst);
    }

    /// Users that may log in: those below this number.
    pub fn users(&self) -> u32 {
        self.users.load(SeqCst)
    }

    /// The interval that threads hand over, once for each new number.
    pub fn interval(&self) -> u32 {
        self.interval.load(Relaxed)
    }

    /// Asks all threads for what they measured since the last time. Gives the interval's number.
    pub fn end_interval(&self) -> u32 {
        self.interval.fetch_add(1, Relaxed) + 1
    }

    /// Lets users below this number log in, so many connections a second of all threads; 0: as fast as they can.
    pub fn let_in(&self, users: u32, connects_per_s: u64) {
        self.let_in_ns.store(self.now_ns(), SeqCst);
        self.connects_per_s.store(connects_per_s, SeqCst);
        self.users.store(users, SeqCst);
    }

    /// When users were let in last, and how many connections may have been begun since; `None`: no limit.
    pub fn connects_due(&self, now_ns: u64) -> (u64, Option<f64>) {
        let (per_s, from_ns) = (self.connects_per_s.load(SeqCst), self.let_in_ns.load(SeqCst));
        let since_s = now_ns.saturating_sub(from_ns) as f64 / 1e9;
        (from_ns, (per_s > 0).then_some(per_s as f64 * since_s))
    }

    /// Connections of a thread that may be made or logged in at once.
    pub fn logins_at_once(&self) -> u32 {
        self.logins_at_once.load(SeqCst)
    }

    /// Lets each thread make or log in so many connections at once.
    pub fn set_logins_at_once(&self, count: u32) {
        self.logins_at_once.store(count, SeqCst);
    }

    /// Has every thread cut all its connections once.
    pub fn cut_all(&self) {
        self.cuts.fetch_add(1, SeqCst);
    }

    /// How often all connections were to be cut.
    pub fn cuts(&self) -> u32 {
        self.cuts.load(SeqCst)
    }

    /// Cuts so many connections a second of all threads from now on; 0: none.
    pub fn churn(&self, per_s: u64) {
        self.churn_from_ns.store(self.now_ns(), SeqCst);
        self.churn_per_s.store(per_s, SeqCst);
    }

    /// How many connections of all threads are to be cut by now since [`Self::churn`], and when that was.
    pub fn churn_due(&self, now_ns: u64) -> (u64, f64) {
        let from_ns = self.churn_from_ns.load(SeqCst);
        let per_s = self.churn_per_s.load(SeqCst);
        (from_ns, per_s as f64 * now_ns.saturating_sub(from_ns) as f64 / 1e9)
    }

    /// From now on, users take so many unacknowledged messages; 0: none.
    pub fn set_recv_window(&self, window: u32) {
        self.recv_window.store(window, SeqCst);
    }

    /// How many unacknowledged messages users take.
    pub fn recv_window(&self) -> u32 {
        self.recv_window.load(SeqCst)
    }

    /// Has users that stall stop reading, or go on.
    pub fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, SeqCst);
    }

    /// Whether users that stall do not read now.
    pub fn stalled(&self) -> bool {
        self.stalled.load(SeqCst)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One thread's counts for all to read.
        #[derive(Debug, Default)]
        pub struct Progress {
            $($name: AtomicU64,)*
            sending: AtomicBool,
            /// CPU time of the thread, nanoseconds.
            cpu_ns: AtomicU64,
        }

        /// Counts at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
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
    /// Logins done, each again counted.
    logged_in,
    /// Connections that are made and not through their login.
    connecting,
    /// Users that are logged in now.
    online,
    /// Connections that failed before their login and are not made again.
    failed,
    /// Connections that failed before their login and are made again.
    retried,
    /// Connections that ended by themselves after their login, before the run's end, and are not made again.
    ended,
    /// Connections that ended by themselves after their login and are made again.
    dropped,
    /// Connections cut on purpose.
    cut,
    /// Messages sent.
    sent,
    /// SENDs of messages that an ended connection left without an answer.
    resent,
    /// Messages accepted.
    accepted,
    /// Deliveries that the accepted messages make, one for each recipient.
    owed,
    /// Messages refused.
    rejected,
    /// Messages that no answer will come for: the protocol has none.
    unanswerable,
    /// Messages that arrived, each counted once: the end of a run waits until all have.
    arrived,
    /// Connections with messages that are not acknowledged.
    unacknowledged,
    /// Users whose presence watchers were told when they asked.
    watches,
}

impl Progress {
    /// Publishes the thread's CPU time.
    pub fn publish_cpu(&self, time: Duration) {
        self.cpu_ns.store(time.as_nanos() as u64, Relaxed);
    }

    /// The thread's CPU time as it was published last, nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        self.cpu_ns.load(Relaxed)
    }
}

impl Counts {
    /// Connections that failed or ended by themselves.
    pub fn lost_connections(&self) -> u64 {
        self.failed + self.retried + self.ended + self.dropped
    }

    /// Messages that wait for nothing more of the server, though perhaps for their arrival.
    pub fn answered(&self) -> u64 {
        self.accepted + self.rejected + self.unanswerable
    }

    /// Messages that have no answer yet.
    pub fn unanswered(&self) -> u64 {
        self.sent.saturating_sub(self.answered())
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
        let window = control.send(Load {
            rate_from: 1,
            rate: 2,
            ramp: Duration::from_secs(1),
            warmup: Duration::from_secs(1),
            steady: Duration::from_secs(2),
            messages_max: 3,
        });
        assert_eq!(control.phase(), Phase::Send);
        assert_eq!(window, control.window());
        assert!(!window.is_steady(window.send_from_ns) && window.is_steady(window.steady_from_ns));
        assert!(!window.is_steady(window.until_ns));
        assert_eq!(window.until_ns - window.send_from_ns, 3_000_000_000);
    }

    #[test]
    fn orders_that_another_process_obeys_are_the_same_there() {
        let (here, there) =
            (Control::since(Instant::now(), Duration::from_secs(1)), Control::start());
        here.let_in(7, 5);
        here.set_logins_at_once(3);
        here.set_recv_window(0);
        here.cut_all();
        here.churn(9);
        here.stall(true);
        here.end_interval();
        let load = Load {
            rate_from: 1,
            rate: 2,
            ramp: Duration::from_secs(3),
            warmup: Duration::from_secs(4),
            steady: Duration::from_secs(5),
            messages_max: 6,
        };
        let window = here.send(load);
        assert!(window.send_from_ns > here.now_ns(), "it is announced a second before");
        there.obey(&here.orders());
        assert_eq!(there.orders(), here.orders());
        assert_eq!((there.phase(), there.window(), there.users()), (Phase::Send, window, 7));
        here.end();
        assert!(here.orders().end() && !there.orders().end());
    }
}
