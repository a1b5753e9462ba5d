//! A run from the main thread: starts the generator threads, here or in the processes of a fleet, leads them through the
//! phases and shows the progress.

use crate::control::{Control, Counts, Load, Progress};
use crate::driver::Findings;
use crate::fleet::{Brought, Fleet, Running};
use crate::live::{Goal, Live, Part};
use crate::names::Topology;
use crate::net::Handshakes;
use crate::payload::Verdicts;
use crate::protocol::Protocol;
use crate::report::WorkerReport;
use crate::series::Series;
use crate::series::recorder::{Recorder, Sources};
use crate::stats::Measured;
use crate::usage::Meter;
use crate::worker::{self, AtWork, Plan};
use anyhow::bail;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the main thread looks at the counters.
const LOOK: Duration = Duration::from_millis(5);
/// Logging in is given up when nothing moves for this long.
const LOGIN_STALL: Duration = Duration::from_secs(15);

/// Who makes the load.
pub enum Crew {
    /// Threads of this process, pinned or not.
    Threads { pin: bool },
    /// Other processes; how long tokens have to last.
    Fleet(Fleet, Duration),
}

/// A crew at work.
enum Hands {
    Threads(Vec<AtWork>),
    Fleet(Running),
    /// They have been joined.
    Gone,
}

/// A run under way.
pub struct Run {
    control: Arc<Control>,
    /// By thread of this process, or by process of a fleet.
    progress: Arc<Vec<Progress>>,
    hands: Hands,
    /// A worker is gone: why. The run goes to its end without waiting for anything.
    broken: Option<String>,
    protocol: Protocol,
    topology: Topology,
    recorder: Recorder,
    live: Live,
}

/// Everything the threads found, merged.
#[derive(Debug)]
pub struct Outcome {
    /// Latencies, rates and failures.
    pub measured: Measured,
    /// What the receivers checked.
    pub verdicts: Verdicts,
    /// Totals.
    pub counts: Counts,
    /// Accepted, and not delivered by the end.
    pub lost: u64,
    /// The run second by second.
    pub series: Series,
    /// Of a fleet: what each process did.
    pub workers: Vec<WorkerReport>,
    /// Handshakes of TLS.
    pub handshakes: Handshakes,
}

impl Run {
    /// Starts the threads, or has a fleet get ready; nothing connects yet. Each second is recorded, with what the sources
    /// tell, and shown.
    pub fn start(plan: &Plan, crew: Crew, sources: Sources, live: Live) -> anyhow::Result<Self> {
        let (processes, lead) = match &crew {
            Crew::Threads { .. } => (plan.threads, Duration::ZERO),
            Crew::Fleet(fleet, _) => (fleet.count(), fleet.lead()),
        };
        let control = Arc::new(Control::since(Instant::now(), lead));
        let (recorder, reporters) = Recorder::start(processes, sources);
        let (hands, progress) = match crew {
            Crew::Threads { pin } => {
                let cores = if pin { worker::cores(0) } else { Vec::new() };
                let (threads, progress) =
                    worker::start(plan, 0..plan.threads, &cores, &control, reporters)?;
                (Hands::Threads(threads), progress)
            }
            Crew::Fleet(fleet, time) => {
                let progress = Arc::new((0..processes).map(|_| Progress::default()).collect());
                let running = fleet.start(plan, time, &control, &progress, reporters)?;
                (Hands::Fleet(running), progress)
            }
        };
        let (protocol, topology, broken) = (plan.protocol, plan.topology, None);
        Ok(Self { control, progress, hands, broken, protocol, topology, recorder, live })
    }

    /// What the machines of a fleet allow, a line each.
    pub fn allowed(&self) -> &[String] {
        match &self.hands {
            Hands::Fleet(running) => &running.allowed,
            Hands::Threads(_) | Hands::Gone => &[],
        }
    }

    /// The sum of all threads' counts, and whether one of them is still sending.
    pub fn counts(&self) -> (Counts, bool) {
        let mut sum = Counts::default();
        let sending = self.progress.iter().fold(false, |any, one| one.add_to(&mut sum) | any);
        (sum, sending)
    }

    /// Orders for the threads.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Lets users below `users` log in until all are through, one way or the other, `connects_per_s` of them a second; 0: as
    /// fast as they can. Gives the time.
    pub fn log_in(&mut self, users: u32, connects_per_s: u64) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.control.let_in(users, connects_per_s);
        let (mut through, mut moved) = (0, Instant::now());
        // A slow ramp has its pauses.
        let stall = LOGIN_STALL + Duration::from_secs(1).div_f64(connects_per_s.max(1) as f64);
        let part = Part { name: "log in", goal: Goal::Users(users) };
        self.watch(part, |counts, _| {
            let now_through = counts.online + counts.failed + counts.ended;
            if now_through != through {
                (through, moved) = (now_through, Instant::now());
            }
            through >= u64::from(users) || moved.elapsed() > stall
        })?;
        if let Some(why) = &self.broken {
            bail!("{why}");
        }
        let counts = self.counts().0;
        if counts.logged_in == 0 {
            bail!(self.why_nobody_is_in());
        }
        Ok(began.elapsed())
    }

    /// Waits until so many users are logged in and so many logins were done in all, at most `wait`; `look` sees each count.
    pub fn rejoin(
        &mut self,
        users: u32,
        logins: u64,
        wait: Duration,
        mut look: impl FnMut(&Counts),
    ) -> anyhow::Result<()> {
        let until = Instant::now() + wait;
        self.watch(Part { name: "log in", goal: Goal::Users(users) }, |counts, _| {
            look(counts);
            let all_in = counts.online >= u64::from(users) && counts.logged_in >= logins;
            all_in || Instant::now() >= until
        })
    }

    /// Waits until all watchers were told of all whom they watch, at most `wait`.
    pub fn watch_presence(&mut self, watches: u64, wait: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + wait;
        let part = Part { name: "watch", goal: Goal::Time(Instant::now(), wait) };
        self.watch(part, |counts, _| counts.watches >= watches || Instant::now() >= until)
    }

    fn why_nobody_is_in(&mut self) -> String {
        self.control.end();
        let reasons = self.join().map(|outcome| outcome.measured.errors).unwrap_or_default();
        let most =
            reasons.iter().max_by_key(|(_, count)| **count).map(|(reason, _)| reason.as_str());
        match most {
            Some("connect_refused") if self.protocol == Protocol::Iris => {
                "nothing listens there: start a server with `iris serve --dev`, or name it with --addr".into()
            }
            Some("connect_refused") => {
                "nothing listens there: start a broker, or name its HOST:PORT with --addr".into()
            }
            Some(reason) if reason.starts_with("server_error_token") => format!(
                "the server refuses the tokens ({reason}): --key must be the key it verifies with, \
                 such as DATA_DIR/dev.key"
            ),
            Some(reason) => format!("no connection could log in: {reason}"),
            None => "the server does not answer: no login was done in 15 s".into(),
        }
    }

    /// Sends for the time of the load, or until as many messages as may be sent are answered. The meter watches the steady
    /// phase; `at_steady` is called when it begins.
    pub fn send(
        &mut self,
        load: Load,
        meter: &mut Meter,
        at_steady: impl FnOnce(&Control),
    ) -> anyhow::Result<()> {
        let answered_before = self.counts().0.answered();
        let window = self.control.send(load);
        let control = self.control.clone();
        let timed = |name, length| Part { name, goal: Goal::Time(Instant::now(), length) };
        let done = |counts: &Counts| counts.answered() - answered_before >= load.messages_max;
        self.watch(timed("warm up", load.warmup), |counts, _| {
            control.now_ns() >= window.steady_from_ns || done(counts)
        })?;
        meter.start();
        at_steady(&control);
        let part = timed("send", load.steady);
        self.watch(part, |counts, _| done(counts) || window.tenth(control.now_ns()) > 0)?;
        meter.first_tenth();
        self.watch(part, |counts, _| done(counts) || control.now_ns() >= window.until_ns)?;
        meter.stop();
        self.control.hold();
        Ok(())
    }

    /// Waits until every message sent has its answer, at most `wait`.
    pub fn settle(&mut self, wait: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + wait;
        self.watch(Part { name: "settle", goal: Goal::Answers }, |counts, sending| {
            !sending && counts.unanswered() == 0 || Instant::now() >= until
        })
    }

    /// Waits until everything accepted, or sent where nothing is, has arrived and is acknowledged, at most `wait`.
    pub fn drain(&mut self, wait: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + wait;
        self.watch(Part { name: "drain", goal: Goal::Deliveries }, |counts, _| {
            counts.arrived >= counts.owed && counts.unacknowledged == 0 || Instant::now() >= until
        })
    }

    /// Holds the connections for this long.
    pub fn hold(&mut self, time: Duration) -> anyhow::Result<()> {
        let (now, until) = (Instant::now(), Instant::now() + time);
        let part = Part { name: "hold", goal: Goal::Time(now, time) };
        self.watch(part, |_, _| Instant::now() >= until)
    }

    /// Ends the run and gathers the findings.
    pub fn finish(mut self) -> anyhow::Result<Outcome> {
        self.control.end();
        self.join()
    }

    /// Looks until `done` or until all connections have ended, showing the progress each second; fails when a thread ended
    /// early. Where a process of a fleet is gone, everything is over: what the others found remains.
    fn watch(
        &mut self,
        part: Part,
        mut done: impl FnMut(&Counts, bool) -> bool,
    ) -> anyhow::Result<()> {
        loop {
            if let Hands::Fleet(running) = &self.hands
                && let Some(why) = running.gone()
            {
                self.broken = Some(why.to_owned());
            }
            if self.broken.is_some() {
                self.control.end();
                return Ok(());
            }
            let (counts, sending) = self.counts();
            let nobody_left = counts.ended + counts.failed >= u64::from(self.topology.users());
            if done(&counts, sending) || nobody_left {
                return Ok(());
            }
            if let Hands::Threads(threads) = &self.hands
                && threads.iter().any(AtWork::is_finished)
            {
                self.control.end();
                self.join()?;
                bail!("a generator thread ended early");
            }
            self.live.progress(part, &counts);
            if self.recorder.look(&self.control, &counts, part.name)
                && let Some(row) = self.recorder.latest()
            {
                self.live.show(row, &counts, || self.recorder.failures());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn join(&mut self) -> anyhow::Result<Outcome> {
        let Brought { mut findings, workers } =
            match std::mem::replace(&mut self.hands, Hands::Gone) {
                Hands::Threads(threads) => {
                    let findings = worker::join(threads)?.into_iter().map(Some).collect();
                    Brought { findings, workers: Vec::new() }
                }
                Hands::Fleet(running) => running.join(&self.progress)?,
                Hands::Gone => bail!("the run is over"),
            };
        self.live.end();
        if let Some(why) = workers.iter().find_map(|worker| worker.gone.as_ref()) {
            self.broken.get_or_insert(why.clone());
        }
        // A broken run did not wait for what was under way.
        let lost = self.broken.is_none().then(|| lost(self.topology, &findings));
        let mut outcome = Outcome {
            measured: Measured::default(),
            verdicts: Verdicts::default(),
            counts: self.counts().0,
            lost: lost.unwrap_or(0),
            series: Series::default(),
            workers,
            handshakes: Handshakes::default(),
        };
        for found in findings.drain(..).flatten() {
            outcome.handshakes.full += found.handshakes.full;
            outcome.handshakes.resumed += found.handshakes.resumed;
            outcome.verdicts.add(&found.verdicts);
            outcome.measured.merge(found.measured);
        }
        let left = outcome.measured.interval.clone();
        outcome.series = self.recorder.finish(&outcome.counts, left);
        Ok(outcome)
    }
}

/// What was accepted and did not come, of all threads that are there: what one of them sent may have come to another.
fn lost(topology: Topology, findings: &[Option<Findings>]) -> u64 {
    let threads = findings.len() as u32;
    let all = findings.iter().flatten().flat_map(|found| &found.sent);
    all.map(|sent| {
        let groups = 0..topology.groups();
        let recipients = groups.flat_map(|group| topology.recipients(sent.user, group));
        let lost_by = |recipient| {
            let thread = topology.thread_of(recipient, threads) as usize;
            let arrivals = findings[thread].as_ref().map(|found| &found.arrivals);
            arrivals.map_or(0, |arrivals| {
                arrivals.lost(sent.user, recipient, sent.messages, &sent.not_accepted)
            })
        };
        recipients.map(lost_by).sum::<u64>()
    })
    .sum()
}
