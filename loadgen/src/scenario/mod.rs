//! The scenarios: each plans who sends to whom, leads the run through its phases and fills the report.

pub mod churn;
pub mod composite;
pub mod fanin;
pub mod fanout;
pub mod idle;
pub mod latency;
pub mod offline;
pub mod p2p;
pub mod presence;
pub mod script;
pub mod search;
pub mod slow;
pub mod storm;
pub mod throughput;

use crate::capacity::{self, Machine};
use crate::cli::{Options, Scenario};
use crate::control::{Counts, Load as Sending};
use crate::fleet::Fleet;
use crate::live::Live;
use crate::names::Topology;
use crate::net::Load;
use crate::protocol::Protocol;
use crate::report::{Environment, Rate, Report, Server, Spoken, WorkerReport, grouped, round};
use crate::run::{Crew, Outcome, Run};
use crate::series::recorder::Sources;
use crate::server_probe::{CONNECTIONS_MIN, Process, Slabs, kernel_growth};
use crate::tokens::Signer;
use crate::usage::{Generator, Meter};
use crate::worker::{Back, Plan};
use anyhow::{Context, bail, ensure};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::ops::Range;
use std::time::Duration;

/// Share of late starts above which an open loop says nothing.
const LATE_SHARE_MAX: f64 = 0.01;
/// Busy share of a generator thread above which an open loop says nothing.
const BUSY_SHARE_MAX: f64 = 0.95;
/// What to do about a generator that is too slow.
const TOO_SLOW: &str = "lower --rate or use more --threads or --processes";
/// How much time the kernel gets to free what logging in needed, before memory is measured.
const SETTLE: Duration = Duration::from_secs(1);

/// Runs a scenario; `None` for what is none: a search, a comparison, a worker.
pub fn run(scenario: Scenario) -> Option<anyhow::Result<Report>> {
    Some(match scenario {
        Scenario::Idle(flags) => idle::run(flags),
        Scenario::Latency(flags) => latency::run(flags),
        Scenario::Throughput(flags) => throughput::run(flags),
        Scenario::P2p(flags) => p2p::run(flags),
        Scenario::Fanin(flags) => fanin::run(flags),
        Scenario::Offline(flags) => offline::run(flags),
        Scenario::Composite(flags) => composite::run(flags),
        Scenario::Fanout(flags) => fanout::run(flags),
        Scenario::Storm(flags) => storm::run(flags),
        Scenario::Churn(flags) => churn::run(flags),
        Scenario::Slow(flags) => slow::run(flags),
        Scenario::Presence(flags) => presence::run(flags),
        Scenario::Run(flags) => script::run(flags),
        Scenario::Completions(_)
        | Scenario::Man(_)
        | Scenario::Search(_)
        | Scenario::Compare(_)
        | Scenario::Garbage(_)
        | Scenario::Worker(_) => {
            return None;
        }
    })
}

/// What is special about a scenario.
struct Shape {
    name: &'static str,
    topology: Topology,
    /// Messages are kept for users who log in later.
    keeps: bool,
    load: Load,
    /// Unanswered messages of a connection, at most.
    window: u32,
    /// What becomes of connections that end.
    comeback: Option<Back>,
    /// Users that stall.
    stalled: Range<u32>,
    /// Users whose presence is watched, and how many each of the users before them watches.
    watched: Range<u32>,
    watches: u32,
    /// What it does, for the line up front.
    does: String,
}

impl Shape {
    /// A scenario whose connections last, and whose users read.
    fn new(name: &'static str, topology: Topology, load: Load, window: u32, does: String) -> Self {
        Self {
            name,
            topology,
            keeps: false,
            load,
            window,
            comeback: None,
            stalled: 0..0,
            watched: 0..0,
            watches: 0,
            does,
        }
    }

    /// Refuses what a protocol has not.
    fn check(&self, protocol: Protocol) -> anyhow::Result<()> {
        let resends = self.comeback.is_some() && self.topology.senders() > 0;
        let is_of_iris = resends || self.watches > 0;
        let waits = !self.stalled.is_empty() && !protocol.answers();
        ensure!(
            protocol == Protocol::Iris || !(is_of_iris || waits),
            "--driver {}: {} like this needs what only Iris's protocol has: leave it out",
            protocol.name(),
            self.name,
        );
        Ok(())
    }
}

/// A scenario that is ready to run.
struct Stage {
    options: Options,
    run: Run,
    generator: Generator,
    meter: Meter,
    before: Moment,
    /// With all connections, once that was measured.
    loaded: Option<Moment>,
    /// Messages are to be accepted in the steady phase.
    sends: bool,
    /// How many answers those who watch presence wait for.
    watches: u64,
    /// Connections cut a second while messages are sent.
    churn_per_s: u64,
    report: Report,
}

/// The server, the kernel and the generator at one moment.
struct Moment {
    server: Option<Process>,
    slabs: Slabs,
    generator: Option<Process>,
}

impl Stage {
    /// Checks the machine, says what will be done and starts the threads.
    fn set(shape: Shape, options: Options) -> anyhow::Result<Self> {
        let users = shape.topology.users();
        let run = RandomState::new().hash_one(std::process::id()) as u32 & 0xff_ffff;
        let protocol = options.protocol;
        shape.check(protocol)?;
        let capacity = if options.fleet.workers.is_empty() {
            let machine = Machine::read()?;
            Some(capacity::plan(machine, options.addr, users, options.sources, (run, 0))?)
        } else {
            None
        };
        if !options.quiet {
            let line =
                capacity.as_ref().map_or(String::new(), |capacity| capacity.line.clone() + "\n");
            say(&format!("{}: {}\n{line}", shape.name, shape.does));
        }
        let time = options.hold + options.warmup + options.duration;
        let mut fleet = options.fleet(users)?;
        let threads = fleet.as_ref().map_or(options.threads.min(users), Fleet::threads);
        let crosses = matches!(shape.topology, Topology::FanIn(_) | Topology::FanOut { .. });
        ensure!(
            protocol.answers() || !crosses || threads == 1,
            "{threads} threads: without answers only the thread of the receiver sees what has arrived: use one process and \
             one thread",
        );
        let signer = match protocol {
            Protocol::Iris if fleet.is_none() => Some(Signer::load(&options.key, time)?),
            Protocol::Iris | Protocol::Mqtt(_) | Protocol::Nats | Protocol::Jetstream => None,
        };
        let (sources, per_ring) = capacity
            .map_or_else(Default::default, |capacity| (capacity.sources, capacity.per_ring));
        let plan = Plan {
            target: options.addr,
            protocol,
            tls: options.tls.clone(),
            sources,
            topology: shape.topology,
            load: shape.load,
            per_ring,
            payload_bytes: options.payload,
            window_max: shape.window,
            burst: options.burst,
            comeback: shape.comeback,
            stalled: shape.stalled,
            watched: shape.watched,
            watches: shape.watches,
            threads,
            run,
            signer,
        };
        if shape.keeps && protocol.subscribes() {
            subscribe(&plan, crew(fleet, &options, time))?;
            fleet = options.fleet(users)?;
        }
        let processes = fleet.as_ref().map_or(1, Fleet::count);
        let generator = Generator { fleet: fleet.as_ref().map(Fleet::board) };
        let before = Moment::now(options.pid, &generator);
        if let (Some(pid), None) = (options.pid, before.server) {
            bail!("--pid {pid}: no such process, or /proc/{pid} is not readable");
        }
        let watches = plan.watches_in_all();
        let sources = options.observe.sources(options.pid, generator.clone())?;
        let crew = crew(fleet, &options, time);
        let run = Run::start(&plan, crew, sources, options.observe.live(protocol))?;
        if !options.quiet {
            run.allowed().iter().for_each(|line| say(&format!("{line}\n")));
        }
        let environment = Environment {
            target: options.addr.to_string(),
            qos: protocol.qos(),
            payload_bytes: options.payload,
            rate: options.rate,
            window: shape.window,
            burst: options.burst,
            duration_seconds: options.duration.as_secs_f64(),
            warmup_seconds: options.warmup.as_secs_f64(),
            ..Environment::read()
        };
        let report = Report {
            scenario: shape.name,
            protocol: Spoken(protocol),
            guarantee: protocol.guarantee(),
            connections: options.connections,
            connections_open: users,
            environment,
            ..Report::default()
        };
        let (meter, sends) =
            (Meter::new(options.pid, generator.clone()), shape.topology.senders() > 0);
        let mut stage = Self {
            meter,
            options,
            run,
            generator,
            before,
            loaded: None,
            sends,
            watches,
            churn_per_s: 0,
            report,
        };
        stage.report.generator.threads = threads;
        stage.report.generator.processes = processes;
        Ok(stage)
    }

    /// Logs in the users below `users`.
    fn log_in(&mut self, users: u32) -> anyhow::Result<()> {
        let per_s = self.options.connect_rate;
        let time = self
            .run
            .log_in(users, per_s)
            .with_context(|| format!("cannot log in at {}", self.options.addr))?;
        let logged_in = self.run.counts().0.online;
        self.report.login = Rate::new(logged_in, time);
        self.check_online(users, logged_in, "could log in");
        Ok(())
    }

    fn check_online(&mut self, users: u32, online: u64, what: &str) {
        if online < u64::from(users) {
            let (in_, all) = (grouped(online), grouped(users.into()));
            self.report.invalid(format!("only {in_} of {all} users {what}"));
        }
    }

    /// Waits until those who were cut are back, and `logins` were done in all.
    fn rejoin(&mut self, users: u32, logins: u64, look: impl FnMut(&Counts)) -> anyhow::Result<()> {
        self.run.rejoin(users, logins, self.options.drain_wait, look)?;
        let online = self.run.counts().0.online;
        self.check_online(users, online, "were logged in again within --drain-wait");
        Ok(())
    }

    /// Sends for warm-up and steady phase, watched by the meter, and waits for all answers.
    fn send(&mut self) -> anyhow::Result<()> {
        self.send_for(self.options.warmup, self.options.duration, u64::MAX)
    }

    fn send_for(
        &mut self,
        warmup: Duration,
        steady: Duration,
        messages_max: u64,
    ) -> anyhow::Result<()> {
        let all = self.options.load();
        let load = Sending { warmup, steady, messages_max, ramp: all.ramp.min(warmup), ..all };
        self.send_load(load)
    }

    fn send_load(&mut self, load: Sending) -> anyhow::Result<()> {
        self.run.control().churn(self.churn_per_s);
        self.run.send(load, &mut self.meter, |_| ())?;
        self.run.control().churn(0);
        self.run.settle(self.options.drain_wait)
    }

    /// Measures memory now, and not at the end.
    fn measure_memory(&mut self) {
        self.loaded = Some(Moment::now(self.options.pid, &self.generator));
    }

    /// Measures memory unless that was done, ends the run and fills the report.
    fn end(mut self) -> anyhow::Result<Report> {
        if self.loaded.is_none() {
            self.measure_memory();
        }
        let server = self.server();
        let own_memory = self.generator_bytes_per_connection();
        let mut outcome = self.run.finish()?;
        let protocol = self.options.protocol;
        for (place, worker) in outcome.workers.iter_mut().enumerate() {
            worker.busiest_thread = round(self.meter.busiest(place), 3);
            worker.gone.iter().for_each(|why| self.report.invalid(why.clone()));
        }
        let is_broken = outcome.workers.iter().any(|worker| worker.gone.is_some());
        if self.sends && !is_broken && outcome.measured.through_steady(protocol) == 0 {
            let through = protocol.through();
            self.report.invalid(format!("no message was {through} in the steady phase"));
        }
        let open_loop = (self.options.rate > 0).then(|| saturation(&outcome, &self.meter));
        self.report.fill(outcome, self.meter.usage());
        open_loop.into_iter().flatten().for_each(|reason| self.report.invalid(reason));
        let cpu = |process: Option<Process>| process.map(|process| process.cpu).unwrap_or_default();
        let own = cpu(self.generator.read()).saturating_sub(cpu(self.before.generator));
        self.report.generator.cpu_seconds = round(own.as_secs_f64(), 2);
        self.report.generator.rss_bytes_per_connection = own_memory;
        match server {
            Some(Ok(server)) => self.report.server = Some(server),
            Some(Err(reason)) => self.report.invalid(reason),
            None => {}
        }
        self.report.valid = self.report.invalid_reasons.is_empty();
        Ok(self.report)
    }

    fn server(&self) -> Option<Result<Server, String>> {
        let (pid, before) = (self.options.pid?, self.before.server?);
        let loaded = self.loaded.as_ref()?;
        let (Some(server), Some(now)) = (loaded.server, Process::read(pid)) else {
            return Some(Err(format!("the server process {pid} is gone")));
        };
        let connections = self.report.connections_open;
        let local = self.options.addr.ip().is_loopback() && connections >= CONNECTIONS_MIN;
        let kernel = local.then(|| kernel_growth(&self.before.slabs, &loaded.slabs, connections));
        let steady = self.meter.usage().server.unwrap_or_default();
        Some(Ok(Server {
            rss_bytes_per_connection: grown_bytes(before, server, connections),
            cpu_seconds: round((now.cpu.saturating_sub(before.cpu)).as_secs_f64(), 2),
            cpu_seconds_steady: round(steady.as_secs_f64(), 2),
            kernel_bytes_per_connection: kernel
                .as_ref()
                .map(|growth| growth.server_bytes_per_connection),
            rss_before_bytes: before.rss_bytes,
            rss_bytes: server.rss_bytes,
            kernel,
        }))
    }

    fn generator_bytes_per_connection(&self) -> Option<f64> {
        let loaded = self.loaded.as_ref()?.generator?;
        let connections = self.report.connections_open;
        (connections >= CONNECTIONS_MIN).then_some(grown_bytes(
            self.before.generator?,
            loaded,
            connections,
        ))
    }
}

impl Moment {
    fn now(pid: Option<u32>, generator: &Generator) -> Self {
        Self {
            server: pid.and_then(Process::read),
            slabs: Slabs::read(pid),
            generator: generator.read(),
        }
    }
}

fn crew(fleet: Option<Fleet>, options: &Options, time: Duration) -> Crew {
    fleet.map_or(Crew::Threads { pin: options.pin }, |fleet| Crew::Fleet(fleet, time))
}

/// Has all users log in once and go: brokers keep messages for subscriptions that they know.
fn subscribe(plan: &Plan, crew: Crew) -> anyhow::Result<()> {
    let users = plan.topology.users();
    let mut run = Run::start(plan, crew, Sources::default(), Live::new(false, plan.protocol))?;
    run.log_in(users, 0).with_context(|| format!("cannot subscribe at {}", plan.target))?;
    let logged_in = run.finish()?.counts.logged_in;
    ensure!(
        logged_in == u64::from(users),
        "only {} of {} users could subscribe at {}",
        grouped(logged_in),
        grouped(users.into()),
        plan.target
    );
    Ok(())
}

/// Growth of resident memory by connection.
fn grown_bytes(before: Process, loaded: Process, connections: u32) -> f64 {
    round((loaded.rss_bytes as f64 - before.rss_bytes as f64) / f64::from(connections), 1)
}

/// Why an open loop was not one: the generator, or a process of it, could not keep its own schedule.
fn saturation<'a>(outcome: &'a Outcome, meter: &Meter) -> Vec<String> {
    let whole = ("the generator", outcome.measured.late_starts, outcome.counts.sent);
    let mut parts = vec![(whole, meter.usage().busiest)];
    if !outcome.workers.is_empty() {
        let workers = outcome.workers.iter();
        let of = |one: &'a WorkerReport| (one.name.as_str(), one.late_starts, one.sent);
        parts = workers.map(|one| (of(one), one.busiest_thread)).collect();
    }
    let mut reasons = Vec::new();
    for ((name, late, sent), busiest) in parts {
        if late as f64 > sent as f64 * LATE_SHARE_MAX {
            reasons.push(format!(
                "{name} started {} bursts more than {} ms late: {TOO_SLOW}",
                grouped(late),
                crate::driver::LATE_NS / 1_000_000,
            ));
        }
        if busiest > BUSY_SHARE_MAX {
            reasons.push(format!(
                "a thread of {name} was {:.0} % busy in an open loop: {TOO_SLOW}",
                busiest * 100.0,
            ));
        }
    }
    reasons
}

/// Writes to standard output. Whoever closed it does not want to know; the exit code and the JSON remain.
pub fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Checks that a number of connections suits a scenario.
fn at_least(connections: u32, least: u32, why: &str) -> anyhow::Result<()> {
    ensure!(
        connections >= least,
        "--connections {connections}: at least {least} are needed: {why}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Handshakes;
    use crate::payload::Verdicts;
    use crate::series::Series;
    use crate::stats::Measured;

    #[test]
    fn a_process_that_cannot_keep_its_part_of_the_schedule_is_named() {
        let worker = |name: &str, late_starts, busiest_thread| WorkerReport {
            name: name.to_owned(),
            sent: 1000,
            late_starts,
            busiest_thread,
            ..WorkerReport::default()
        };
        let outcome = Outcome {
            measured: Measured { late_starts: 11, ..Measured::default() },
            verdicts: Verdicts::default(),
            counts: Counts { sent: 4000, ..Counts::default() },
            lost: 0,
            series: Series::default(),
            workers: vec![worker("a", 10, 0.95), worker("b", 11, 0.5), worker("c", 0, 0.96)],
            handshakes: Handshakes::default(),
        };
        let meter = Meter::new(None, Generator::default());
        let reasons = saturation(&outcome, &meter);
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(reasons[0].starts_with("b started 11 bursts"), "{reasons:?}");
        assert!(reasons[1].starts_with("a thread of c was 96 % busy"), "{reasons:?}");
        let alone = Outcome {
            workers: Vec::new(),
            counts: Counts { sent: 1000, ..outcome.counts },
            ..outcome
        };
        let reasons = saturation(&alone, &meter);
        assert!(reasons.len() == 1 && reasons[0].starts_with("the generator"), "{reasons:?}");
    }
}
