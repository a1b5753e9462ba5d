//! The generator threads: each connects its users, keeps the schedule, and turns its rings until the run ends.

use crate::comeback::Comeback;
use crate::control::{Control, Phase, Progress};
use crate::driver::{Driver, DriverParts, Findings, Member, When};
use crate::names::Topology;
use crate::net::{ConnIndex, Connections, Load, TlsPlan};
use crate::payload::Checker;
use crate::presence::Watching;
use crate::protocol::Protocol;
use crate::schedule::{Pace, Schedule};
use crate::sender::Sender;
use crate::series::intervals::Reporter;
use crate::tokens::Signer;
use crate::usage::ThreadClock;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Connections begun in a turn, so that those that are made already get their turn.
const CONNECTS_PER_TURN: usize = 256;
/// Connections cut before their completions are taken.
const CUTS_PER_TURN: u32 = 1024;
/// Users looked at in a turn for the next one to cut.
const LOOKS_PER_TURN: u32 = 1024;
/// Longest sleep: orders are seen and the last deliveries acknowledged after at most this.
const TICK: Duration = Duration::from_millis(10);
/// In an open loop above this many bursts a second and thread, starts are gathered for this long.
const GATHER_ABOVE: f64 = 20_000.0;
const GATHER: Duration = Duration::from_micros(50);

/// What all threads of a run share, in all its processes.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Where the server is.
    pub target: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// How connections are secured; `None`: not at all, as in a fleet.
    #[serde(skip)]
    pub tls: Option<TlsPlan>,
    /// Source addresses of this process, used in turn.
    #[serde(skip)]
    pub sources: Vec<IpAddr>,
    /// Who sends to whom.
    pub topology: Topology,
    /// How connections wait.
    pub load: Load,
    /// Connections of a ring of this process.
    #[serde(skip)]
    pub per_ring: u32,
    /// Payload size.
    pub payload_bytes: usize,
    /// Unanswered messages of a connection, at most.
    pub window_max: u32,
    /// Messages due at once.
    pub burst: u32,
    /// What becomes of connections that end.
    pub comeback: Option<Back>,
    /// Users that do not read while they are told to stall.
    pub stalled: Range<u32>,
    /// Users from 0 to the first of these watch the presence of `watches` of these each.
    pub watched: Range<u32>,
    /// See there.
    pub watches: u32,
    /// Threads of all processes.
    pub threads: u32,
    /// The run's id, 24 bits.
    pub run: u32,
    /// Tokens, if the protocol has any. Each process reads the key itself.
    #[serde(skip)]
    pub signer: Option<Signer>,
}

/// How connections that end are made again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Back {
    /// The users whose connections churn cuts.
    pub churned: Range<u32>,
    /// How long a user stays away whose connection was cut.
    pub away: Duration,
}

impl Plan {
    /// The users of a thread in the order of connecting.
    pub fn members(&self, thread: u32) -> Vec<Member> {
        let users = 0..self.topology.users();
        let mine = users.filter(|user| self.topology.thread_of(*user, self.threads) == thread);
        // Senders have the lower numbers.
        (0..)
            .zip(mine)
            .map(|(place, user)| {
                let sender = (user < self.topology.senders()).then_some(place);
                Member { user, sender }
            })
            .collect()
    }
}

impl Plan {
    /// How many answers the watchers of all threads wait for.
    pub fn watches_in_all(&self) -> u64 {
        let of_thread = |thread| watching(self, &self.members(thread)).map_or(0, |w| w.watches());
        (0..self.threads).map(of_thread).sum()
    }
}

/// A thread that is at work.
pub type AtWork = JoinHandle<anyhow::Result<Findings>>;

/// Starts these of the threads of a run, each with a reporter and, pinned, with the next of `cores`.
pub fn start(
    plan: &Plan,
    threads: Range<u32>,
    cores: &[core_affinity::CoreId],
    control: &Arc<Control>,
    reporters: Vec<Reporter>,
) -> anyhow::Result<(Vec<AtWork>, Arc<Vec<Progress>>)> {
    let progress: Arc<Vec<Progress>> =
        Arc::new(threads.clone().map(|_| Progress::default()).collect());
    let started = threads.zip(reporters).enumerate().map(|(place, (thread, reporter))| {
        let (plan, control, progress) = (plan.clone(), control.clone(), progress.clone());
        let core = cores.get(place % cores.len().max(1)).copied();
        let body = move || {
            if let Some(core) = core {
                core_affinity::set_for_current(core);
            }
            work(&plan, thread, &control, &progress[place], reporter)
        };
        std::thread::Builder::new().name(format!("loadgen-{thread}")).spawn(body)
    });
    let started = started.collect::<Result<_, _>>().context("cannot start a thread")?;
    Ok((started, progress))
}

/// What all of them found, once they have ended.
pub fn join(threads: Vec<AtWork>) -> anyhow::Result<Vec<Findings>> {
    let joined = threads
        .into_iter()
        .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a generator thread panicked"))?);
    joined.collect()
}

/// The cores that threads are pinned to, from the last one down: servers take the first ones first. The first `taken` are
/// those of other processes.
pub fn cores(taken: u32) -> Vec<core_affinity::CoreId> {
    let mut cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.reverse();
    let others = taken as usize % cores.len().max(1);
    cores.rotate_left(others);
    cores
}

/// Runs one thread to the end of the run.
fn work(
    plan: &Plan,
    thread: u32,
    control: &Control,
    progress: &Progress,
    reporter: Reporter,
) -> anyhow::Result<Findings> {
    let members = plan.members(thread);
    let senders: Vec<Sender> = members
        .iter()
        .filter(|member| member.sender.is_some())
        .map(|member| {
            let (run, topology) = (plan.run, plan.topology);
            Sender::new(plan.protocol, run, member.user, topology, plan.payload_bytes)
        })
        .collect();
    let share = senders.len() as f64 / f64::from(plan.topology.senders().max(1));
    let (users, sending) = (members.len() as u32, senders.len() as u32);
    let tls = plan.tls.as_ref();
    let net = Connections::new(plan.target, users, sending, plan.per_ring, plan.load, tls)?;
    let driver = Driver::new(DriverParts {
        control,
        protocol: plan.protocol,
        signer: plan.signer.as_ref(),
        run: plan.run,
        window_max: plan.window_max,
        checker: Checker::new(plan.run, plan.payload_bytes, plan.topology),
        comes_back: plan.comeback.is_some(),
        watching: watching(plan, &members),
        stalled: plan.stalled.clone(),
        members,
        senders,
    });
    let worker = Worker {
        plan,
        share,
        senders: sending,
        control,
        progress,
        reporter,
        net,
        driver,
        connected: 0,
        let_in: (0, 0),
        next_burst: 0,
        rate: 0.0,
        comeback: Comeback::new(u64::from(plan.run) << 16 | u64::from(thread)),
        cuts: 0,
        churned: Churned::default(),
        recv_window: control.recv_window(),
        is_stalled: false,
    };
    worker.run()
}

fn watching(plan: &Plan, members: &[Member]) -> Option<Watching> {
    let (mut watchers, mut watched): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
    members.iter().for_each(|Member { user, .. }| match user {
        user if plan.watched.contains(user) => watched.push(*user),
        user if *user < plan.watched.start => watchers.push(*user),
        _ => {}
    });
    (plan.watches > 0).then(|| Watching::new(plan.run, watchers, &watched, plan.watches))
}

/// How far a churn is.
#[derive(Clone, Copy, Debug, Default)]
struct Churned {
    /// Which churn it is.
    from_ns: u64,
    /// Connections cut in it.
    cut: u64,
    /// Where the next one is looked for.
    next: ConnIndex,
}

struct Worker<'a> {
    plan: &'a Plan,
    /// This thread's part of what is sent.
    share: f64,
    senders: u32,
    /// Messages a second of this thread, at most, in the phase.
    rate: f64,
    control: &'a Control,
    progress: &'a Progress,
    reporter: Reporter,
    net: Connections,
    driver: Driver<'a>,
    connected: u32,
    /// When users were let in last, and how many were connected then.
    let_in: (u64, u32),
    next_burst: u64,
    comeback: Comeback,
    /// How often all connections were cut.
    cuts: u32,
    churned: Churned,
    recv_window: u32,
    is_stalled: bool,
}

impl Worker<'_> {
    fn run(mut self) -> anyhow::Result<Findings> {
        let mut last_tick_ns = 0;
        let clock = ThreadClock::of_this_thread();
        loop {
            let phase = self.control.phase();
            if phase == Phase::End {
                break;
            }
            let now_ns = self.driver.tick();
            self.follow(phase, now_ns);
            self.obey(now_ns)?;
            self.connect_more(now_ns).context("cannot open another connection")?;
            if self.driver.is_sending() {
                self.start_due();
            }
            if now_ns - last_tick_ns >= TICK.as_nanos() as u64 {
                last_tick_ns = now_ns;
                self.acknowledge_and_resume();
                self.reporter.hand_over(self.control, self.driver.measured());
                self.progress.publish_cpu(clock.used());
            }
            self.progress.publish(&self.driver.counts(), self.driver.is_sending());
            let wait = self.wait(phase);
            self.net.turn(wait, &mut self.driver)?;
            self.go_on_after_arrivals();
        }
        self.progress.publish(&self.driver.counts(), false);
        let handshakes = self.net.handshakes();
        Ok(Findings { handshakes, ..self.driver.findings() })
    }

    /// Takes up a new phase.
    fn follow(&mut self, phase: Phase, now_ns: u64) {
        match (phase, self.driver.is_sending()) {
            (Phase::Send, false) => {
                let window = self.control.window();
                if now_ns < window.send_from_ns {
                    return;
                }
                let part = |rate: u64| rate as f64 * self.share;
                let (from, to) = (part(window.rate_from), part(window.rate));
                self.rate = from.max(to);
                let schedule = (self.rate > 0.0).then(|| {
                    let pace = Pace { from, to, ramp_ns: window.ramp_ns };
                    let (from_ns, until_ns) = (window.send_from_ns, window.until_ns);
                    Schedule::new(from_ns, until_ns, pace, self.plan.burst, self.senders)
                });
                self.driver.begin_sending(window, schedule);
                self.next_burst = 0;
                if schedule.is_none() {
                    self.start_all();
                }
            }
            (Phase::Hold, true) => self.driver.end_sending(),
            _ => {}
        }
    }

    /// Cuts, stalls and windows, as told.
    fn obey(&mut self, now_ns: u64) -> anyhow::Result<()> {
        for _ in self.cuts..self.control.cuts() {
            self.cuts += 1;
            for conn in 0..self.connected {
                self.cut(conn);
                // Completion queues are bounded: what a cut completes is taken in between.
                if conn % CUTS_PER_TURN == CUTS_PER_TURN - 1 {
                    self.net.turn(Duration::ZERO, &mut self.driver)?;
                }
            }
        }
        if self.recv_window != self.control.recv_window() {
            self.recv_window = self.control.recv_window();
            for conn in 0..self.connected {
                self.net.write(conn, |out| self.driver.set_window(conn, self.recv_window, out));
            }
        }
        if self.is_stalled != self.control.stalled() {
            self.is_stalled = self.control.stalled();
            self.stall();
        }
        self.churn(now_ns);
        Ok(())
    }

    fn cut(&mut self, conn: ConnIndex) -> bool {
        let had_not_ended = self.net.cut(conn);
        if had_not_ended {
            self.driver.cut(conn);
        }
        had_not_ended
    }

    fn stall(&mut self) {
        for conn in 0..self.connected {
            let user = self.driver.members()[conn as usize].user;
            if self.plan.stalled.contains(&user) {
                self.net.pause(conn, self.is_stalled);
            }
        }
    }

    /// Cuts the connections whose time has come: one user after the other.
    fn churn(&mut self, now_ns: u64) {
        let Some(back) = &self.plan.comeback else { return };
        let (from_ns, due) = self.control.churn_due(now_ns);
        if from_ns != self.churned.from_ns {
            self.churned = Churned { from_ns, cut: 0, ..self.churned };
        }
        let due = (due * self.part()) as u64;
        for _ in 0..self.connected.min(LOOKS_PER_TURN) {
            if self.churned.cut >= due {
                return;
            }
            let conn = self.churned.next % self.connected;
            self.churned.next = conn + 1;
            let user = self.driver.members()[conn as usize].user;
            if back.churned.contains(&user) && self.driver.is_online(conn) && self.cut(conn) {
                self.churned.cut += 1;
            }
        }
    }

    fn source(&self, conn: ConnIndex) -> IpAddr {
        let user = self.driver.members()[conn as usize].user;
        self.plan.sources[user as usize % self.plan.sources.len()]
    }

    fn connect_more(&mut self, now_ns: u64) -> anyhow::Result<()> {
        let away_ns = self.plan.comeback.as_ref().map_or(0, |back| back.away.as_nanos() as u64);
        for (conn, when) in self.driver.take_gone() {
            match when {
                When::Away => self.comeback.at(conn, now_ns + away_ns),
                When::Failed(attempts) => self.comeback.after_failure(conn, attempts, now_ns),
                When::At(at_ns) => self.comeback.at(conn, at_ns),
            }
        }
        let may_begin = self.may_begin(now_ns);
        for _ in 0..CONNECTS_PER_TURN {
            if self.driver.counts().connecting >= u64::from(self.control.logins_at_once()) {
                return Ok(());
            }
            if let Some(conn) = self.comeback.take_due(now_ns) {
                self.net.connect_again(conn, self.source(conn))?;
            } else {
                let users = self.control.users();
                let member = self.driver.members().get(self.connected as usize);
                let is_let_in = member.is_some_and(|member| member.user < users);
                if !is_let_in || self.connected >= may_begin {
                    return Ok(());
                }
                self.net.connect(self.source(self.connected))?;
                self.connected += 1;
            }
            self.driver.connects();
        }
        Ok(())
    }

    /// How many connections of this thread may have been begun for the first time.
    fn may_begin(&mut self, now_ns: u64) -> u32 {
        let (let_in_ns, due) = self.control.connects_due(now_ns);
        if self.let_in.0 != let_in_ns {
            self.let_in = (let_in_ns, self.connected);
        }
        due.map_or(u32::MAX, |due| self.let_in.1 + (due * self.part()) as u32)
    }

    /// This thread's part of all users.
    fn part(&self) -> f64 {
        self.driver.members().len() as f64 / f64::from(self.plan.topology.users())
    }

    fn start_all(&mut self) {
        for conn in 0..self.connected {
            if self.driver.members()[conn as usize].sender.is_some() {
                self.net.write(conn, |out| self.driver.send_due(conn, out));
            }
        }
    }

    /// Starts the bursts of an open loop that are due.
    fn start_due(&mut self) {
        let Some(schedule) = self.driver.schedule() else { return };
        let now_ns = self.driver.tick();
        while schedule.contains(self.next_burst) && schedule.due_ns(self.next_burst) <= now_ns {
            self.driver.note_start(self.next_burst);
            let conn = self.conn_of_sender(schedule.sender_of(self.next_burst));
            self.net.write(conn, |out| self.driver.send_due(conn, out));
            self.next_burst += 1;
        }
    }

    /// Senders have the lower user numbers, so they are the first members, in order.
    fn conn_of_sender(&self, place: usize) -> u32 {
        let conn = place as u32;
        debug_assert_eq!(self.driver.members()[place].sender, Some(conn));
        conn
    }

    fn go_on_after_arrivals(&mut self) {
        for conn in self.driver.take_arrived() {
            if self.driver.is_sending() {
                self.net.write(conn, |out| self.driver.send_due(conn, out));
            }
        }
    }

    fn acknowledge_and_resume(&mut self) {
        for conn in self.driver.take_unacknowledged() {
            self.net.write(conn, |out| self.driver.acknowledge(conn, out));
        }
        if self.driver.is_sending() {
            for conn in self.driver.take_resumed() {
                self.net.write(conn, |out| self.driver.send_due(conn, out));
            }
        }
    }

    fn wait(&self, phase: Phase) -> Duration {
        if phase == Phase::Send && !self.driver.is_sending() {
            let begins_ns = self.control.window().send_from_ns;
            let until = Duration::from_nanos(begins_ns.saturating_sub(self.control.now_ns()));
            return until.min(TICK);
        }
        let Some(schedule) = self.driver.schedule().filter(|_| self.driver.is_sending()) else {
            return TICK;
        };
        if !schedule.contains(self.next_burst) {
            return TICK;
        }
        let due_ns = schedule.due_ns(self.next_burst).saturating_sub(self.control.now_ns());
        let gathers = self.rate / f64::from(self.plan.burst) > GATHER_ABOVE;
        let least = if gathers { GATHER } else { Duration::ZERO };
        Duration::from_nanos(due_ns).clamp(least, TICK)
    }
}
