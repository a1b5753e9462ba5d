//! Saying that the node is alive, only while every thread of the data path is.
//!
//! A thread is alive if its loop turns. It does so whether it has work or not: one that sleeps wakes by itself twice a
//! second, and one that is busy counts each turn, of which none is long. So the count of turns, which each thread keeps
//! anyway, tells a stuck thread from an idle and from a busy one, and nothing is asked of the data path for it.
//!
//! The watchdog is fed when every thread has turned since it was fed last. With one stuck thread it goes hungry, and the
//! service manager ends the process one to one and a quarter `WatchdogSec=` after that thread's last turn. Threads that wait
//! for the disk are not looked at: a disk that hangs is not mended by a restart.
//!
//! This runs on the control thread, which must be alive as well: a node that cannot be told to stop is not well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Notifier;
use crate::admin::{NodeState, Phase};
use crate::clock;

/// Between looks, and the time that each asks for, while the node starts: reading a long log takes longer than any
/// limit that would suit a short one.
const START_LOOK: Duration = Duration::from_secs(1);
const START_TIME: Duration = Duration::from_secs(30);
/// Between looks at what people are told.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Between looks at threads.
const LOOK_MAX: Duration = Duration::from_secs(1);
const LOOK_MIN: Duration = Duration::from_millis(10);

/// Tells the service manager of the start and then that the node is alive, until the node stops: from then on whoever
/// stops it says how far that is ([`super::Beat`]).
pub async fn run(notifier: Notifier, state: Arc<NodeState>) {
    if notifier.is_heard() {
        while state.phase() < Phase::Ready {
            notifier.extend(START_TIME);
            notifier.status(&starting(&state));
            tokio::time::sleep(START_LOOK).await;
        }
        watch(&notifier, &state, period_of_env()).await;
    }
    std::future::pending().await
}

async fn watch(notifier: &Notifier, state: &NodeState, period: Option<Duration>) {
    let threads = Threads::of(state);
    let mut watch = Watch::new(period, threads.names(), clock::now());
    let look = period.map_or(LOOK_MAX, |period| (period / 8).clamp(LOOK_MIN, LOOK_MAX));
    let (mut told, mut told_at) = (String::new(), None);
    let mut stuck_told: Vec<String> = Vec::new();
    while state.phase() == Phase::Ready {
        let now = clock::now();
        let verdict = watch.look(now, threads.turns());
        if verdict.feed {
            notifier.feed();
        }
        for name in verdict.stuck.iter().filter(|name| !stuck_told.contains(name)) {
            tracing::error!(
                thread = name,
                "a thread does not turn; if it stays so, the watchdog ends the node"
            );
        }
        let is_news = verdict.stuck != stuck_told;
        stuck_told = verdict.stuck;
        if is_news || told_at.is_none_or(|at| now - at >= STATUS_EVERY) {
            let status = match stuck_told.as_slice() {
                [] => serving(state),
                stuck => format!("stuck: {}", stuck.join(", ")),
            };
            if status != told {
                notifier.status(&status);
                told = status;
            }
            told_at = Some(now);
        }
        tokio::time::sleep(look).await;
    }
}

fn starting(state: &NodeState) -> String {
    match state.registry().unroutable_shards() {
        0 => state.phase().name().to_owned(),
        shards => format!("waiting for a core: {shards} shards have none"),
    }
}

/// What people see of a node that serves.
pub fn serving(state: &NodeState) -> String {
    let registry = state.registry();
    let mut parts = Vec::new();
    if state.info().roles.edge {
        let (connections, logged_in) = (registry.connections(), registry.logged_in());
        parts.push(format!("{connections} connections, {logged_in} logged in"));
    }
    if state.info().roles.core {
        let (online, waiting) = (registry.users_online(), registry.waiting());
        parts.push(format!("{online} users online, {waiting} messages waiting"));
    }
    format!("serving: {}", parts.join("; "))
}

/// The period within which the service manager wants to hear of this process (`sd_watchdog_enabled(3)`).
fn period_of_env() -> Option<Duration> {
    period(|name| std::env::var(name).ok(), std::process::id())
}

fn period(get: impl Fn(&str) -> Option<String>, pid: u32) -> Option<Duration> {
    let us: u64 = get("WATCHDOG_USEC")?.parse().ok()?;
    let is_mine = get("WATCHDOG_PID").is_none_or(|of| of.parse() == Ok(pid));
    (us > 0 && is_mine).then(|| Duration::from_micros(us))
}

/// Where the turns of each thread are counted.
struct Threads<'a>(&'a NodeState);

impl<'a> Threads<'a> {
    fn of(state: &'a NodeState) -> Self {
        Self(state)
    }

    fn has_gateway(&self) -> bool {
        !self.0.info().cores.is_empty()
    }

    fn names(&self) -> Vec<String> {
        let registry = self.0.registry();
        let reactors = (0..registry.reactors()).map(|index| format!("iris-r{index}"));
        let partitions = (0..registry.partitions()).map(|index| format!("iris-p{index}"));
        let gateway = self.has_gateway().then(|| "iris-gateway".to_owned());
        reactors.chain(partitions).chain(gateway).collect()
    }

    fn turns(&self) -> Vec<u64> {
        let registry = self.0.registry();
        let reactors = (0..registry.reactors()).map(|index| registry.reactor(index).turns.value());
        let partitions =
            (0..registry.partitions()).map(|index| registry.partition(index).turns.value());
        let gateway = self.has_gateway().then(|| registry.gateway().turns.value());
        reactors.chain(partitions).chain(gateway).collect()
    }
}

/// Decides when the watchdog is fed.
struct Watch {
    /// `None`: there is none to feed, but stuck threads are told of.
    period: Option<Duration>,
    threads: Vec<Thread>,
    fed: Option<Instant>,
}

struct Thread {
    name: String,
    turns: Option<u64>,
    moved: Instant,
    has_moved: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    feed: bool,
    /// Threads that have not turned for half of the period.
    stuck: Vec<String>,
}

/// When a thread counts as stuck without a watchdog.
const PERIOD_ELSE: Duration = Duration::from_secs(30);

impl Watch {
    fn new(period: Option<Duration>, names: Vec<String>, now: Instant) -> Self {
        let thread = |name| Thread { name, turns: None, moved: now, has_moved: true };
        Self { period, threads: names.into_iter().map(thread).collect(), fed: None }
    }

    fn look(&mut self, now: Instant, turns: Vec<u64>) -> Verdict {
        for (thread, turns) in self.threads.iter_mut().zip(turns) {
            if thread.turns != Some(turns) {
                *thread = Thread {
                    turns: Some(turns),
                    moved: now,
                    has_moved: true,
                    name: std::mem::take(&mut thread.name),
                };
            }
        }
        let half = self.period.unwrap_or(PERIOD_ELSE) / 2;
        let is_stuck = |thread: &&Thread| now.duration_since(thread.moved) >= half;
        let stuck = self.threads.iter().filter(is_stuck).map(|thread| thread.name.clone());
        let stuck = stuck.collect();
        let is_due = self
            .period
            .is_some_and(|period| self.fed.is_none_or(|fed| now.duration_since(fed) >= period / 4));
        let feed = is_due && self.threads.iter().all(|thread| thread.has_moved);
        if feed {
            self.fed = Some(now);
            self.threads.iter_mut().for_each(|thread| thread.has_moved = false);
        }
        Verdict { feed, stuck }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(8);

    fn watch(now: Instant) -> Watch {
        Watch::new(Some(PERIOD), vec!["iris-r0".to_owned(), "iris-p0".to_owned()], now)
    }

    #[test]
    fn threads_that_turn_seldom_or_often_are_alive_and_feed_in_time() {
        let start = clock::now();
        let mut watch = watch(start);
        let mut fed = start;
        for second in 0..100_u64 {
            let now = start + Duration::from_secs(second);
            // One sleeps and turns every other second, the other turns a million times.
            let verdict = watch.look(now, vec![second / 2, second * 1_000_000]);
            assert!(verdict.stuck.is_empty(), "{second}");
            if verdict.feed {
                fed = now;
            }
            assert!(now - fed < PERIOD / 2, "hungry after {second} s");
        }
    }

    #[test]
    fn one_stuck_thread_starves_the_watchdog_and_is_named() {
        let start = clock::now();
        let mut watch = watch(start);
        let (mut fed, mut named) = (0, None);
        for second in 0..30_u64 {
            let now = start + Duration::from_secs(second);
            let verdict = watch.look(now, vec![second.min(10), second]);
            if verdict.feed {
                fed = second;
            }
            if let [name] = verdict.stuck.as_slice() {
                assert_eq!(name, "iris-r0");
                named.get_or_insert(second);
            }
        }
        // Its last turn was at 10: it was fed then or within a quarter of the period after, and is named after half of it.
        assert!((10..=12).contains(&fed), "{fed}");
        assert_eq!(named, Some(14));
    }

    #[test]
    fn one_that_turns_again_is_forgiven() {
        let start = clock::now();
        let mut watch = watch(start);
        watch.look(start, vec![1, 1]);
        let late = start + PERIOD;
        let verdict = watch.look(late, vec![1, 2]);
        assert_eq!(verdict, Verdict { feed: false, stuck: vec!["iris-r0".to_owned()] });
        let verdict = watch.look(late + LOOK_MAX, vec![2, 2]);
        assert_eq!(verdict, Verdict { feed: true, stuck: Vec::new() });
    }

    #[test]
    fn without_a_watchdog_nothing_is_fed_and_stuck_threads_are_named_all_the_same() {
        let start = clock::now();
        let mut watch = Watch::new(None, vec!["iris-r0".to_owned()], start);
        assert!(!watch.look(start, vec![0]).feed);
        assert_eq!(watch.look(start + PERIOD_ELSE, vec![0]).stuck, ["iris-r0"]);
    }

    #[test]
    fn the_period_is_for_the_process_that_is_named() {
        let get = |pid: &'static str| {
            move |name: &str| match name {
                "WATCHDOG_USEC" => Some("30000000".to_owned()),
                _ => Some(pid.to_owned()),
            }
        };
        assert_eq!(period(get("7"), 7), Some(Duration::from_secs(30)));
        assert_eq!(period(get("8"), 7), None);
        assert_eq!(period(|_| None, 7), None);
        assert_eq!(period(|_| Some("0".to_owned()), 0), None);
    }
}
