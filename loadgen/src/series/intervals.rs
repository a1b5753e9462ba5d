//! What generator threads hand to the main thread for each second: over a bounded queue, so that neither waits.
//!
//! The main thread ends an interval by a new number in [`Control`]; each thread sees it within a tick and hands over what
//! it recorded since the last one. A thread whose queue is full hands it over with the next interval instead, and at the
//! end of the run what is left comes with its findings: nothing is counted twice, nothing is lost.

use crate::control::Control;
use crate::stats::{Latencies, Measured};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Intervals of a thread that may wait for the main thread.
const WAITING_MAX: usize = 4;

/// What one thread recorded in one interval.
pub struct Handed {
    thread: usize,
    interval: u32,
    latencies: Latencies,
    failures: Failures,
}

/// What went wrong so far, by reason.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Failures {
    /// Refused messages by code.
    pub rejected: BTreeMap<u16, u64>,
    /// Failures by reason.
    pub errors: BTreeMap<String, u64>,
}

/// A thread's end of the queue.
pub struct Reporter {
    thread: usize,
    handed: u32,
    queue: SyncSender<Handed>,
}

impl Reporter {
    /// Hands over what was measured if the main thread asks for it.
    pub fn hand_over(&mut self, control: &Control, measured: &mut Measured) {
        let interval = control.interval();
        if interval == self.handed {
            return;
        }
        let failures =
            Failures { rejected: measured.rejected.clone(), errors: measured.errors.clone() };
        self.hand_on(interval, &mut measured.interval, failures);
    }

    /// Hands over what was recorded up to this interval, and what failed up to now.
    pub fn hand_on(&mut self, interval: u32, recorded: &mut Latencies, failures: Failures) {
        let latencies = std::mem::replace(recorded, Latencies::of_interval());
        let handed = Handed { thread: self.thread, interval, latencies, failures };
        match self.queue.try_send(handed) {
            Ok(()) => self.handed = interval,
            // Full, or nobody listens any more: it stays here.
            Err(error) => {
                let (std::sync::mpsc::TrySendError::Full(kept)
                | std::sync::mpsc::TrySendError::Disconnected(kept)) = error;
                *recorded = kept.latencies;
            }
        }
    }
}

/// The main thread's end: gathers one interval of all threads.
pub struct Gathering {
    queue: Receiver<Handed>,
    handed: Vec<u32>,
    latencies: Latencies,
    failures: Vec<Failures>,
}

/// Queues for so many threads.
pub fn queues(threads: u32) -> (Vec<Reporter>, Gathering) {
    let threads = threads as usize;
    let (queue, receiver) = sync_channel(threads * WAITING_MAX);
    let reporters = (0..threads).map(|thread| Reporter { thread, handed: 0, queue: queue.clone() });
    let gathering = Gathering {
        queue: receiver,
        handed: vec![0; threads],
        latencies: Latencies::of_interval(),
        failures: vec![Failures::default(); threads],
    };
    (reporters.collect(), gathering)
}

impl Gathering {
    /// Takes what has come; whether all threads have handed over this interval.
    pub fn has_all(&mut self, interval: u32) -> bool {
        for handed in self.queue.try_iter() {
            self.handed[handed.thread] = handed.interval;
            self.latencies.merge(handed.latencies);
            self.failures[handed.thread] = handed.failures;
        }
        self.handed.iter().all(|handed| *handed >= interval)
    }

    /// What has come since the last call.
    pub fn take(&mut self) -> Latencies {
        std::mem::replace(&mut self.latencies, Latencies::of_interval())
    }

    /// What went wrong so far, of all threads.
    pub fn failures(&self) -> Failures {
        let mut sum = Failures::default();
        for of_thread in &self.failures {
            for (code, count) in &of_thread.rejected {
                *sum.rejected.entry(*code).or_default() += count;
            }
            for (reason, count) in &of_thread.errors {
                *sum.errors.entry(reason.clone()).or_default() += count;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(ns: u64) -> Measured {
        let mut measured = Measured::default();
        measured.interval.record(ns);
        measured.error("reset");
        measured
    }

    #[test]
    fn an_interval_is_whole_when_every_thread_has_handed_it_over_once() {
        let control = Control::start();
        let (mut reporters, mut gathering) = queues(2);
        let (mut a, mut b) = (measured(1000), measured(2000));
        reporters[0].hand_over(&control, &mut a);
        assert!(gathering.has_all(0) && gathering.take().count() == 0, "nobody has asked");
        let interval = control.end_interval();
        reporters[0].hand_over(&control, &mut a);
        reporters[0].hand_over(&control, &mut a);
        assert!(!gathering.has_all(interval));
        reporters[1].hand_over(&control, &mut b);
        assert!(gathering.has_all(interval));
        assert_eq!(gathering.take().count(), 2);
        assert_eq!(gathering.failures().errors["reset"], 2);
        assert_eq!((a.interval.count(), b.interval.count()), (0, 0));
    }

    #[test]
    fn what_a_full_queue_does_not_take_stays_with_its_thread() {
        let control = Control::start();
        let (mut reporters, mut gathering) = queues(1);
        let mut all = Measured::default();
        for _ in 0..WAITING_MAX + 3 {
            control.end_interval();
            all.interval.record(1000);
            reporters[0].hand_over(&control, &mut all);
        }
        assert_eq!(all.interval.count(), 3);
        gathering.has_all(0);
        assert_eq!(gathering.take().count(), WAITING_MAX as u64);
    }
}
