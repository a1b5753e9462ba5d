//! Sending clients away: readiness ends, reactors follow the plan, and the wait ends when nobody is left or time is up.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use iris_proto::drain::{Plan, Wish};

use super::Joiner;
use crate::admin::{Event, NodeState};
use crate::cli::exit::Failure;
use crate::rt::Waker;
use crate::supervisor::Beat;

/// Between looks at whether reactors have ended, and the longest that a reactor sleeps meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long the end is shown to whoever asked for it.
const SHOWN_MAX: Duration = Duration::from_secs(2);

/// The reactors of a node that stops.
pub(super) struct Clients<'a> {
    pub(super) state: &'a NodeState,
    pub(super) events: &'a Receiver<Event>,
    pub(super) reactors: Vec<Joiner>,
    pub(super) wakers: &'a [Waker],
    pub(super) beat: &'a mut Beat,
}

impl Clients<'_> {
    /// Sends all away. A signal that comes meanwhile counts for what it says: the time of `reactor.drain_time`, if that is
    /// sooner.
    pub(super) fn send_away(self, wish: Wish) -> Result<(), Failure> {
        let plan = self.begin(wish);
        let mut deadline = Instant::now() + Duration::from_millis(plan.limit_ms());
        while self.reactors.iter().any(|thread| !thread.is_finished()) {
            match self.events.try_recv() {
                Ok(Event::Fatal(failure)) => return Err(failure),
                Ok(Event::Signal(signal)) => {
                    let by = Instant::now() + self.state.drain_time();
                    if by < deadline {
                        tracing::info!(signal, "hastening the drain");
                        self.begin(by_signal(self.state));
                        deadline = by;
                    }
                }
                Ok(Event::Drain(_)) | Err(_) => {}
            }
            if Instant::now() >= deadline {
                let left = self.state.registry().connections();
                tracing::warn!(left, "time is up; the process ends without them");
                break;
            }
            self.wakers.iter().for_each(Waker::wake);
            let left = || self.state.registry().connections();
            self.beat.tick(|| format!("draining: {} connections left", left()));
            std::thread::park_timeout(LOOK_EVERY);
        }
        Ok(())
    }

    fn begin(&self, wish: Wish) -> Plan {
        let (connections, returns) =
            (self.state.registry().connections(), self.state.info().returns);
        let plan = Plan::new(wish, returns, connections, by_default_ms(self.state));
        let (rate_per_s, time_ms) = (plan.rate_per_s(), plan.limit_ms());
        tracing::info!(connections, rate_per_s, time_ms, "sending clients away");
        self.state.drain(plan);
        plan
    }
}

/// What a signal asks for.
pub(super) fn by_signal(state: &NodeState) -> Wish {
    Wish::within(by_default_ms(state))
}

fn by_default_ms(state: &NodeState) -> u64 {
    state.drain_time().as_millis() as u64
}

/// Waits until all who asked for the end have seen that nobody is left and all is on disk: the process is about to go.
pub(super) fn show_end(state: &NodeState) {
    state.set_empty();
    let deadline = Instant::now() + SHOWN_MAX;
    while state.is_end_awaited() && Instant::now() < deadline {
        std::thread::park_timeout(LOOK_EVERY);
    }
}
