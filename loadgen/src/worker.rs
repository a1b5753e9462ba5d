//! One generator thread: connects its users, keeps the schedule, and turns its rings until the run ends.

use crate::control::{Control, Phase, Progress};
use crate::driver::{Driver, DriverParts, Findings, Member};
use crate::names::Topology;
use crate::net::{Connections, Load};
use crate::payload::Checker;
use crate::schedule::Schedule;
use crate::sender::Sender;
use crate::series::intervals::Reporter;
use crate::tokens::Signer;
use anyhow::Context;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Connections of a thread that are being made or logged in at once, so that accept queues are not overrun.
const LOGINS_AT_ONCE: u64 = 256;
/// Longest sleep: orders are seen and the last deliveries acknowledged after at most this.
const TICK: Duration = Duration::from_millis(10);
/// In an open loop above this many bursts a second and thread, starts are gathered for this long.
const GATHER_ABOVE: f64 = 20_000.0;
const GATHER: Duration = Duration::from_micros(50);

/// What all threads of a run share.
#[derive(Clone)]
pub struct Plan {
    /// Where the server is.
    pub target: SocketAddr,
    /// Source addresses, used in turn.
    pub sources: Vec<IpAddr>,
    /// Who sends to whom.
    pub topology: Topology,
    /// Users from this one on log in later, with the second group.
    pub late_from: u32,
    /// How connections wait.
    pub load: Load,
    /// Connections of a ring.
    pub per_ring: u32,
    /// Payload size.
    pub payload_bytes: usize,
    /// Unanswered messages of a connection, at most.
    pub window_max: u32,
    /// Messages a second of all threads; 0: closed loop.
    pub rate: u64,
    /// Messages due at once.
    pub burst: u32,
    /// Messages in total, at most.
    pub messages_max: u64,
    /// Threads.
    pub threads: u32,
    /// The run's id, 24 bits.
    pub run: u32,
    /// Tokens.
    pub signer: Signer,
}

impl Plan {
    /// The users of a thread in the order of connecting, groups in order.
    pub fn members(&self, thread: u32) -> Vec<Member> {
        let users = 0..self.topology.users();
        let mut members: Vec<Member> = users
            .filter(|user| self.topology.thread_of(*user, self.threads) == thread)
            .map(|user| Member { user, group: u32::from(user >= self.late_from), sender: None })
            .collect();
        members.sort_by_key(|member| (member.group, member.user));
        let senders = members.iter_mut().filter(|member| member.user < self.topology.senders());
        (0..).zip(senders).for_each(|(place, member)| member.sender = Some(place));
        members
    }
}

/// Runs one thread to the end of the run.
pub fn work(
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
        .map(|member| Sender::new(plan.run, member.user, plan.topology, plan.payload_bytes))
        .collect();
    let all_senders = u64::from(plan.topology.senders().max(1));
    let share = senders.len() as f64 / all_senders as f64;
    let (users, sending) = (members.len() as u32, senders.len() as u32);
    let net = Connections::new(plan.target, users, sending, plan.per_ring, plan.load)?;
    let driver = Driver::new(DriverParts {
        control,
        signer: &plan.signer,
        run: plan.run,
        window_max: plan.window_max,
        checker: Checker::new(plan.run, plan.payload_bytes, plan.topology),
        quota: quota(plan.messages_max, senders.len() as u64, all_senders),
        members,
        senders,
    });
    let rate = plan.rate as f64 * share;
    let connected = 0;
    Worker { plan, rate, control, progress, reporter, net, driver, connected, next_burst: 0 }.run()
}

fn quota(messages_max: u64, senders: u64, all_senders: u64) -> u64 {
    if messages_max == u64::MAX {
        return messages_max;
    }
    (u128::from(messages_max) * u128::from(senders)).div_ceil(u128::from(all_senders)) as u64
}

struct Worker<'a> {
    plan: &'a Plan,
    rate: f64,
    control: &'a Control,
    progress: &'a Progress,
    reporter: Reporter,
    net: Connections,
    driver: Driver<'a>,
    connected: u32,
    next_burst: u64,
}

impl Worker<'_> {
    fn run(mut self) -> anyhow::Result<Findings> {
        let mut last_tick_ns = 0;
        loop {
            let phase = self.control.phase();
            if phase == Phase::End {
                break;
            }
            let now_ns = self.driver.tick();
            self.follow(phase);
            self.connect_more().context("cannot open another connection")?;
            if self.driver.is_sending() {
                self.start_due();
            }
            if now_ns - last_tick_ns >= TICK.as_nanos() as u64 {
                last_tick_ns = now_ns;
                self.acknowledge_and_resume();
                self.reporter.hand_over(self.control, self.driver.measured());
            }
            self.progress.publish(&self.driver.counts(), self.driver.is_sending());
            let wait = self.wait();
            self.net.turn(wait, &mut self.driver)?;
        }
        self.progress.publish(&self.driver.counts(), false);
        Ok(self.driver.findings())
    }

    /// Takes up a new phase.
    fn follow(&mut self, phase: Phase) {
        match (phase, self.driver.is_sending()) {
            (Phase::Send, false) => {
                let window = self.control.window();
                let senders = self.senders();
                let schedule = (self.rate > 0.0 && senders > 0).then(|| {
                    let (from, until) = (window.send_from_ns, window.until_ns);
                    Schedule::new(from, until, self.rate, self.plan.burst, senders)
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

    fn senders(&self) -> u32 {
        self.driver.members().iter().filter(|member| member.sender.is_some()).count() as u32
    }

    fn connect_more(&mut self) -> anyhow::Result<()> {
        let (groups, counts) = (self.control.groups(), self.driver.counts());
        let mut under_way =
            u64::from(self.connected).saturating_sub(counts.logged_in + counts.failed);
        while under_way < LOGINS_AT_ONCE
            && let Some(member) = self.driver.members().get(self.connected as usize)
            && member.group < groups
        {
            let source = self.plan.sources[member.user as usize % self.plan.sources.len()];
            self.net.connect(source)?;
            self.connected += 1;
            under_way += 1;
        }
        Ok(())
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

    /// Senders have the lower user numbers, so they are the first members of their group, in order.
    fn conn_of_sender(&self, place: usize) -> u32 {
        let conn = place as u32;
        debug_assert_eq!(self.driver.members()[place].sender, Some(conn));
        conn
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

    fn wait(&self) -> Duration {
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
