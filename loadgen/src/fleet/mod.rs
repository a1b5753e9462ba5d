//! Several processes, on one machine or many, as one generator: the controller's side. [`serve`] is the workers'.
//!
//! Threads are numbered over all processes, and each user belongs to one of them as within one process; so users, rate,
//! connections and messages are shared out without another rule, and no two processes have a user in common. The
//! controller leads the run by the same [`Control`] as in one process: a thread sends its orders on whenever they change.
//! What a worker counts comes back into a [`Progress`] of its own, what its threads recorded each second into the
//! recorder's queue, and what they found at the end as findings of the run's threads: from there on nothing knows the
//! difference.
//!
//! All begin together: a run begins when all workers have said that they are ready, and sending is announced some time
//! before it begins, by a clock that was measured on each worker.

pub mod clock;
pub mod findings;
mod flags;
mod gather;
pub mod secret;
pub mod serve;
pub mod wire;

pub use flags::{FleetFlags, WorkerFlags};
pub use gather::{Fleet, Wanted};

use crate::control::{Control, Progress};
use crate::driver::Findings;
use crate::report::WorkerReport;
use crate::series::intervals::Reporter;
use crate::server_probe::Process;
use crate::stats::Latencies;
use crate::worker::Plan;
use anyhow::{Context, bail};
use findings::Assembly;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::{Assignment, FRAME_BYTES_MAX, Link, Said, Told, Used, is_late};

/// A worker that says nothing for so long is gone; it has something to say twenty times a second.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long it may take until a worker is ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// Orders are looked at this often, and said again after so long.
const LOOK: Duration = Duration::from_millis(1);
const ORDERS_AGAIN: Duration = Duration::from_secs(1);
/// Sending is announced by this and ten of the longest rounds before it begins.
const LEAD: Duration = Duration::from_millis(50);

/// What the workers said last, for all to read.
#[derive(Debug)]
pub struct Board(Vec<Seat>);

/// One worker on the board.
#[derive(Debug)]
struct Seat {
    cpu_ns: AtomicU64,
    rss_bytes: AtomicU64,
    threads_ns: Vec<AtomicU64>,
    /// Why it is not there any more.
    gone: OnceLock<String>,
}

impl Board {
    fn new(workers: u32, threads: u32) -> Self {
        let zero = || AtomicU64::new(0);
        let seat = |_| Seat {
            cpu_ns: zero(),
            rss_bytes: zero(),
            threads_ns: (0..threads).map(|_| zero()).collect(),
            gone: OnceLock::new(),
        };
        Self((0..workers).map(seat).collect())
    }

    /// Memory and CPU time of each.
    pub fn processes(&self) -> impl Iterator<Item = Process> {
        self.0.iter().map(|seat| Process {
            rss_bytes: seat.rss_bytes.load(Relaxed),
            cpu: Duration::from_nanos(seat.cpu_ns.load(Relaxed)),
        })
    }

    /// CPU time of each generator thread, by process and thread.
    pub fn threads(&self) -> impl Iterator<Item = ((usize, u32), Duration)> {
        self.0.iter().enumerate().flat_map(|(place, seat)| {
            let times = (0..).zip(&seat.threads_ns);
            times.map(move |(thread, ns)| ((place, thread), Duration::from_nanos(ns.load(Relaxed))))
        })
    }

    /// Why one of them is gone.
    fn gone(&self) -> Option<&str> {
        self.0.iter().find_map(|seat| seat.gone.get()).map(String::as_str)
    }
}

impl Seat {
    fn note(&self, used: &Used) {
        self.cpu_ns.store(used.cpu_ns, Relaxed);
        self.rss_bytes.store(used.rss_bytes, Relaxed);
        self.threads_ns.iter().zip(&used.threads_ns).for_each(|(at, ns)| at.store(*ns, Relaxed));
    }
}

/// A worker that is there, before and after its run.
struct Member {
    /// As it is called in reports.
    name: String,
    host: String,
    link: Link,
    /// Its process, if it is one of ours.
    child: Option<Child>,
    clock: clock::Measured,
}

/// A worker's run, followed to its end.
struct Followed {
    member: Member,
    findings: Vec<Findings>,
    /// Whether all of them came.
    is_whole: bool,
}

/// Workers at work.
pub struct Running {
    board: Arc<Board>,
    base: Instant,
    threads_each: u32,
    followers: Vec<JoinHandle<Followed>>,
    pump: JoinHandle<()>,
    stop: SyncSender<()>,
    /// What each machine allows, in a line each.
    pub allowed: Vec<String>,
}

/// What all workers brought home.
pub struct Brought {
    /// By thread of the run; those of a worker that is gone are missing.
    pub findings: Vec<Option<Findings>>,
    /// What is said of each worker.
    pub workers: Vec<WorkerReport>,
}

impl Fleet {
    /// When orders are to be given before sending begins.
    pub fn lead(&self) -> Duration {
        let worst = self.members.iter().map(|member| member.clock.error_ns).max().unwrap_or(0);
        LEAD + Duration::from_nanos(20 * worst)
    }

    /// Has all workers prepare their part of the plan, and waits until all are ready. Nothing connects yet. `time`: how long
    /// tokens have to last.
    pub fn start(
        mut self,
        plan: &Plan,
        time: Duration,
        control: &Arc<Control>,
        progress: &Arc<Vec<Progress>>,
        reporters: Vec<Reporter>,
    ) -> anyhow::Result<Running> {
        let parts = self.members.len() as u32;
        let each = self.threads_each;
        for (part, member) in (0..parts).zip(&mut self.members) {
            let epoch_ns = (control.epoch() - self.base).as_nanos() as i64;
            let assignment = Assignment {
                plan: plan.clone(),
                time,
                part,
                threads: part * each..(part + 1) * each,
                users_max: plan.topology.users().div_ceil(parts),
                sources: self.sources.map(|sources| sources.div_ceil(parts)),
                pin: self.pin.then(|| self.before_on_its_machine[part as usize] * each),
                epoch_ns: epoch_ns.saturating_add(member.clock.own_offset_ns),
            };
            let sent = member.link.send(&Told::Plan(Box::new(assignment)));
            sent.with_context(|| format!("{} does not take the plan", member.name))?;
        }
        let mut allowed = Vec::new();
        for member in &mut self.members {
            member.link.set_patience(READY_MAX)?;
            let answer = member.link.receive(FRAME_BYTES_MAX);
            match answer.with_context(|| format!("{} does not get ready", member.name))? {
                Said::Ready(line) => allowed.push(format!("{}: {line}", member.name)),
                Said::Failed(why) => bail!("{}: {why}", member.name),
                _ => bail!("{} does not get ready", member.name),
            }
            member.link.set_patience(SILENCE_MAX)?;
        }
        let links = self.members.iter().map(|member| member.link.try_clone());
        let links = links.collect::<Result<_, _>>().context("cannot share a connection")?;
        let (stop, stopped) = sync_channel(0);
        let pump = {
            let control = control.clone();
            let name = "loadgen-orders".to_owned();
            let body = move || send_orders(links, &control, &stopped);
            std::thread::Builder::new().name(name).spawn(body).context("cannot start a thread")?
        };
        let members = self.members.into_iter().zip(reporters).enumerate();
        let followers = members.map(|(place, (member, reporter))| {
            let (board, progress) = (self.board.clone(), progress.clone());
            let topology = plan.topology;
            let began = control.epoch();
            let body = move || {
                let follower = Follower {
                    seat: &board.0[place],
                    progress: &progress[place],
                    reporter,
                    left: Latencies::of_interval(),
                    began,
                };
                follower.follow(member, Assembly::new(topology), each)
            };
            std::thread::Builder::new().name(format!("loadgen-worker-{place}")).spawn(body)
        });
        let followers = followers.collect::<Result<_, _>>().context("cannot start a thread")?;
        let (board, base) = (self.board, self.base);
        Ok(Running { board, base, threads_each: each, followers, pump, stop, allowed })
    }
}

impl Running {
    /// Why a worker is gone, if one is.
    pub fn gone(&self) -> Option<&str> {
        self.board.gone()
    }

    /// Waits for everything that the workers found, once the run is at its end, and measures their clocks again.
    pub fn join(self, progress: &[Progress]) -> anyhow::Result<Brought> {
        let mut brought = Brought { findings: Vec::new(), workers: Vec::new() };
        let followers = self.followers.into_iter().map(JoinHandle::join);
        let followed: Vec<Followed> = followers
            .collect::<Result<_, _>>()
            .map_err(|_| anyhow::anyhow!("a thread that follows a worker panicked"))?;
        drop(self.stop);
        self.pump.join().map_err(|_| anyhow::anyhow!("the thread of orders panicked"))?;
        for (place, one) in followed.into_iter().enumerate() {
            let Followed { mut member, findings, is_whole } = one;
            let after =
                is_whole.then(|| clock::measure(&mut member.link, self.base).ok()).flatten();
            let mut counts = crate::control::Counts::default();
            progress[place].add_to(&mut counts);
            let late_starts = findings.iter().map(|found| found.measured.late_starts).sum();
            brought.workers.push(WorkerReport {
                threads: self.threads_each,
                sent: counts.sent,
                accepted: counts.accepted,
                delivered: counts.arrived,
                late_starts,
                gone: self.board.0[place].gone.get().cloned(),
                ..WorkerReport::new(member.name, member.host, member.clock, after)
            });
            brought.findings.extend(findings.into_iter().map(Some));
            brought.findings.resize_with((place + 1) * self.threads_each as usize, || None);
            // Its connection ends here, and a process of ours with it.
            drop(member.link);
            if let Some(mut child) = member.child {
                let _ = child.wait();
            }
        }
        Ok(brought)
    }
}

/// Sends orders on whenever they change, until nobody holds the other end of `stopped`.
fn send_orders(mut links: Vec<Link>, control: &Control, stopped: &Receiver<()>) {
    let mut said = None;
    let mut at = Instant::now();
    loop {
        let orders = control.orders();
        if said != Some(orders) || at.elapsed() >= ORDERS_AGAIN {
            (said, at) = (Some(orders), Instant::now());
            // A worker that does not take them is gone, which its follower sees.
            links.iter_mut().for_each(|link| drop(link.send(&Told::Orders(orders))));
        }
        if stopped.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Takes what one worker says.
struct Follower<'a> {
    seat: &'a Seat,
    progress: &'a Progress,
    reporter: Reporter,
    /// What the recorder's queue did not take.
    left: Latencies,
    began: Instant,
}

impl Follower<'_> {
    fn follow(mut self, mut member: Member, mut assembly: Assembly, threads: u32) -> Followed {
        let end = loop {
            match member.link.receive(FRAME_BYTES_MAX) {
                Ok(Said::Done) => break Ok(()),
                Ok(said) => {
                    if let Err(why) = self.take(said, &mut assembly) {
                        break Err(why);
                    }
                }
                Err(error) if is_late(&error) => {
                    break Err(format!("said nothing for {} s", SILENCE_MAX.as_secs()));
                }
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    break Err(format!("says what makes no sense: {error}"));
                }
                Err(error) => break Err(died(&mut member, &error)),
            }
        };
        let mut findings = assembly.finish();
        let end = end.and_then(|()| {
            let is_whole = findings.len() == threads as usize;
            is_whole.then_some(()).ok_or_else(|| "did not bring home what it found".to_owned())
        });
        let is_whole = end.is_ok();
        if let Err(why) = end {
            let seconds = self.began.elapsed().as_secs_f64();
            let _ =
                self.seat.gone.set(format!("{} {why}, {seconds:.1} s into the run", member.name));
            findings.clear();
            member.link.cut();
            if let Some(child) = &mut member.child {
                let _ = child.kill();
            }
        } else if let Some(first) = findings.first_mut() {
            first.measured.interval.merge(self.left);
        }
        Followed { member, findings, is_whole }
    }

    fn take(&mut self, said: Said, assembly: &mut Assembly) -> Result<(), String> {
        match said {
            Said::Counts(counts, sending) => self.progress.publish(&counts, sending),
            Said::Used(used) => self.seat.note(&used),
            Said::Interval(interval, latencies, failures) => {
                self.left.merge(latencies);
                self.reporter.hand_on(interval, &mut self.left, failures);
            }
            Said::Part(part) => {
                return assembly.take(part).map_err(|what| format!("brings home {what}"));
            }
            Said::Failed(why) => return Err(format!("failed: {why}")),
            // An answer that came late.
            Said::Clock(_) | Said::Done => {}
            Said::Hello { .. } | Said::Refused(_) | Said::Welcome(_) | Said::Ready(_) => {
                return Err("says what it may not say now".to_owned());
            }
        }
        Ok(())
    }
}

/// How a worker ended whose connection did.
fn died(member: &mut Member, error: &std::io::Error) -> String {
    match member.child.take().map(|mut child| child.wait()) {
        Some(Ok(status)) => format!("died: {status}"),
        Some(Err(_)) => "died".to_owned(),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "died, or was cut off: its connection ended".to_owned()
        }
        None => format!("died, or was cut off: {error}"),
    }
}
