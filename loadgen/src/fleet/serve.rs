//! A worker: makes its part of a run that another process leads. [`super`] is the other side.

use super::clock;
use super::findings;
use super::gather::this_boot;
use super::secret::{Nonces, Secret, Side, nonce};
use super::wire::{
    Assignment, FORMAT, FRAME_BYTES_MAX, GREETING_BYTES_MAX, Link, Said, Told, Used, VERSION,
    Welcome,
};
use super::{SILENCE_MAX, WorkerFlags};
use crate::capacity::{self, Machine};
use crate::control::{Control, Counts, Progress};
use crate::driver::Findings;
use crate::payload::HEAD_BYTES;
use crate::protocol::Protocol;
use crate::series::intervals::{Gathering, queues};
use crate::server_probe::Process;
use crate::tokens::Signer;
use crate::worker::{self, AtWork};
use anyhow::{Context, bail, ensure};
use iris_proto::limits::PAYLOAD_BYTES_MAX;
use std::convert::Infallible;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How long who connects may take to show who it is, and how many may be at that.
const GREETING: Duration = Duration::from_secs(5);
const GREETING_MAX: usize = 16;
/// Counts are said this often if they have changed, memory and CPU time this often anyway.
const COUNTS: Duration = Duration::from_millis(10);
const USED: Duration = Duration::from_millis(50);
/// Unanswered messages of a connection that a plan may allow: as many as a few senders have to one inbox.
const UNANSWERED_MAX: u32 = 65_536;
/// Orders that wait to be taken, at most.
const ORDERS_MAX: usize = 16;

/// What all connections of a worker share.
struct Worker {
    secret: Option<Secret>,
    key: PathBuf,
    /// The clock's zero.
    base: Instant,
    /// A run is under way.
    busy: AtomicBool,
    /// Connections that have not shown who they are.
    greeting: AtomicUsize,
}

/// Serves runs, one after the other, until the process is ended. The exit code.
pub fn run(flags: &WorkerFlags) -> anyhow::Result<u8> {
    if flags.listen == "-" {
        let worker = Worker::new(flags)?;
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
        let mut link = Link::from(UnixStream::from(stdin));
        if let Some(busy) = worker.greet(&mut link)? {
            worker.session(link, busy)?;
        }
        return Ok(0);
    }
    let waiting = Waiting::open(flags)?;
    crate::scenario::say(&format!(
        "iris-loadgen worker {VERSION}: listening on {}\n",
        waiting.addr()?
    ));
    match waiting.serve()? {}
}

/// A worker that waits for runs.
pub struct Waiting {
    listener: TcpListener,
    worker: Arc<Worker>,
}

impl Waiting {
    /// Listens; nothing is served yet.
    pub fn open(flags: &WorkerFlags) -> anyhow::Result<Self> {
        let worker = Worker::new(flags)?;
        let listener = listen(&flags.listen, worker.secret.is_some())?;
        Ok(Self { listener, worker: Arc::new(worker) })
    }

    /// Where.
    pub fn addr(&self) -> anyhow::Result<SocketAddr> {
        self.listener.local_addr().context("cannot name the address")
    }

    /// Serves each connection in a thread: only one of them has a run, the others are told so.
    pub fn serve(&self) -> anyhow::Result<Infallible> {
        loop {
            let (stream, from) = self.listener.accept().context("cannot take a connection")?;
            if self.worker.greeting.fetch_add(1, SeqCst) >= GREETING_MAX {
                self.worker.greeting.fetch_sub(1, SeqCst);
                continue;
            }
            let worker = self.worker.clone();
            let body = move || {
                if let Err(error) = worker.serve(stream) {
                    let _ = writeln!(
                        std::io::stderr().lock(),
                        "iris-loadgen worker: {from}: {error:#}"
                    );
                }
            };
            let thread = std::thread::Builder::new().name("loadgen-session".to_owned()).spawn(body);
            thread.context("cannot start a thread")?;
        }
    }
}

fn listen(addr: &str, has_secret: bool) -> anyhow::Result<TcpListener> {
    let hint = || format!("--listen {addr}: expected HOST:PORT, such as 127.0.0.1:7490");
    let resolved = addr.to_socket_addrs().with_context(hint)?.next().with_context(hint)?;
    ensure!(
        has_secret || resolved.ip().is_loopback(),
        "--listen {addr}: others than this machine could have it make load: add --secret FILE, made with \
         `openssl rand -hex 32` and the same on all machines",
    );
    TcpListener::bind(resolved).with_context(|| format!("cannot listen on {addr}"))
}

impl Worker {
    fn new(flags: &WorkerFlags) -> anyhow::Result<Self> {
        Ok(Self {
            secret: flags.secret.as_deref().map(Secret::load).transpose()?,
            key: flags.key.clone(),
            base: Instant::now(),
            busy: AtomicBool::new(false),
            greeting: AtomicUsize::new(0),
        })
    }

    /// One connection; it was counted as greeting.
    fn serve(&self, stream: TcpStream) -> anyhow::Result<()> {
        let link = Link::try_from(stream).context("cannot set up the connection");
        let greeted = link.and_then(|mut link| {
            let busy = self.greet(&mut link)?;
            Ok(busy.map(|busy| (link, busy)))
        });
        self.greeting.fetch_sub(1, SeqCst);
        greeted?.map_or(Ok(()), |(link, busy)| self.session(link, busy))
    }

    /// The right to a run, if who connected may have one.
    fn greet(&self, link: &mut Link) -> anyhow::Result<Option<Busy<'_>>> {
        link.set_patience(GREETING)?;
        let own = nonce()?;
        link.send(&Said::Hello {
            format: FORMAT,
            version: VERSION.to_owned(),
            nonce: own.clone(),
            wants_proof: self.secret.is_some(),
        })?;
        let (format, version, theirs, proof) = match link.receive(GREETING_BYTES_MAX) {
            Ok(Told::Login { format, version, nonce, proof }) => (format, version, nonce, proof),
            // It sees by the first frame that it is of no use.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error).context("it does not log in"),
            Ok(_) => bail!("it does not log in"),
        };
        let nonces = Nonces { controller: &theirs, worker: &own };
        let is_known =
            |secret: &Secret| secret.is_proof(proof.as_deref(), Side::Controller, nonces);
        let refusal = if format != FORMAT || version != VERSION {
            Some("this worker is of another version")
        } else if !self.secret.as_ref().is_none_or(is_known) {
            Some("wrong secret: --secret must be the file that the worker was started with")
        } else {
            None
        };
        let busy = match refusal {
            Some(_) => None,
            None => (!self.busy.swap(true, SeqCst)).then_some(Busy(&self.busy)),
        };
        let Some(busy) = busy else {
            let why = refusal.unwrap_or("it is busy with another run");
            link.send(&Said::Refused(why.to_owned()))?;
            bail!("refused: {why}");
        };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let welcome = Welcome {
            proof: self.secret.as_ref().map(|secret| secret.proof(Side::Worker, nonces)),
            host: host.trim().to_owned(),
            boot: this_boot(),
            used: used(&[]),
        };
        link.send(&Said::Welcome(welcome)).context("it does not take the welcome")?;
        Ok(Some(busy))
    }

    /// The run of who may have one.
    fn session(&self, mut link: Link, busy: Busy<'_>) -> anyhow::Result<()> {
        link.set_patience(SILENCE_MAX)?;
        let assignment = loop {
            match link.receive(FRAME_BYTES_MAX) {
                Ok(Told::Clock) => link.send(&Said::Clock(clock::now(self.base)))?,
                Ok(Told::Plan(assignment)) => break assignment,
                Ok(_) => bail!("it says what it may not say now"),
                // Another worker was not to be had.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error).context("no plan came"),
            }
        };
        match Part::start(*assignment, &self.key, self.base) {
            Ok((part, allowed)) => {
                link.send(&Said::Ready(allowed))?;
                part.follow(link, busy)
            }
            Err(error) => {
                link.send(&Said::Failed(format!("{error:#}")))?;
                Err(error)
            }
        }
    }
}

/// While it lives, the worker has a run.
struct Busy<'a>(&'a AtomicBool);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

/// A worker's part of a run, under way.
struct Part {
    base: Instant,
    control: Arc<Control>,
    progress: Arc<Vec<Progress>>,
    threads: Vec<AtWork>,
    gathering: Gathering,
    /// What was said last.
    counts: (Counts, bool),
    used_at: Instant,
    interval: u32,
}

/// How the orders of a run ended.
enum End {
    /// As ordered.
    Ordered,
    /// Nobody is there any more who orders.
    Alone,
    /// A thread ended by itself.
    Early,
}

impl Part {
    /// Checks the machine, and starts the threads. Also what the machine allows.
    fn start(assignment: Assignment, key: &Path, base: Instant) -> anyhow::Result<(Self, String)> {
        check(&assignment)?;
        let Assignment { mut plan, time, part, threads, users_max, sources, pin, epoch_ns } =
            assignment;
        let share = (plan.run, part);
        let capacity = capacity::plan(Machine::read()?, plan.target, users_max, sources, share)?;
        (plan.sources, plan.per_ring) = (capacity.sources, capacity.per_ring);
        plan.signer = match plan.protocol {
            Protocol::Iris => Some(Signer::load(key, time)?),
            Protocol::Mqtt(_) | Protocol::Nats | Protocol::Jetstream => None,
        };
        let since_base = Duration::from_nanos(epoch_ns.unsigned_abs());
        let epoch =
            if epoch_ns < 0 { base.checked_sub(since_base) } else { base.checked_add(since_base) };
        let epoch = epoch.context("the run began before this machine did")?;
        let control = Arc::new(Control::since(epoch, Duration::ZERO));
        let (reporters, gathering) = queues(threads.len() as u32);
        let cores = pin.map(worker::cores).unwrap_or_default();
        let (threads, progress) = worker::start(&plan, threads, &cores, &control, reporters)?;
        let (counts, used_at) = ((Counts::default(), false), Instant::now());
        let part =
            Self { base, control, progress, threads, gathering, counts, used_at, interval: 0 };
        Ok((part, capacity.line))
    }

    /// Does as ordered to the end of the run, and says what was found.
    fn follow(mut self, mut link: Link, busy: Busy<'_>) -> anyhow::Result<()> {
        let (heard, orders) = sync_channel(ORDERS_MAX);
        let mut reading = link.try_clone().context("cannot share the connection")?;
        let body = move || {
            while let Ok(told) = reading.receive::<Told>(FRAME_BYTES_MAX) {
                if heard.send(told).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("loadgen-heard".to_owned()).spawn(body);
        let reader = thread.context("cannot start a thread")?;
        let done = self.lead(&mut link, &orders);
        self.control.end();
        let findings = worker::join(std::mem::take(&mut self.threads));
        let brought = match (done, findings) {
            (Ok(End::Alone), _) => Err(anyhow::anyhow!("nobody leads this run any more")),
            (Err(error), _) => Err(error),
            (Ok(_), Err(error)) => {
                link.send(&Said::Failed(format!("{error:#}")))?;
                Err(error)
            }
            (Ok(End::Early), Ok(_)) => {
                link.send(&Said::Failed("a generator thread ended early".to_owned()))?;
                Err(anyhow::anyhow!("a generator thread ended early"))
            }
            (Ok(End::Ordered), Ok(findings)) => self.bring_home(&mut link, findings, &orders, busy),
        };
        link.cut();
        drop(orders);
        let _ = reader.join();
        brought
    }

    /// Obeys, counts and says it until the run ends.
    fn lead(&mut self, link: &mut Link, orders: &Receiver<Told>) -> anyhow::Result<End> {
        let mut due = Instant::now();
        loop {
            match orders.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Told::Orders(orders)) => {
                    self.control.obey(&orders);
                    if orders.end() {
                        return Ok(End::Ordered);
                    }
                }
                Ok(Told::Clock) => link.send(&Said::Clock(clock::now(self.base)))?,
                Ok(_) => bail!("it says what it may not say now"),
                Err(RecvTimeoutError::Timeout) => {
                    due = Instant::now() + COUNTS;
                    self.say(link)?;
                    if self.threads.iter().any(AtWork::is_finished) {
                        return Ok(End::Early);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(End::Alone),
            }
        }
    }

    /// Says what has changed.
    fn say(&mut self, link: &mut Link) -> anyhow::Result<()> {
        let mut sum = Counts::default();
        let sending = self.progress.iter().fold(false, |any, one| one.add_to(&mut sum) | any);
        if (sum, sending) != self.counts {
            self.counts = (sum, sending);
            link.send(&Said::Counts(sum, sending))?;
        }
        if self.used_at.elapsed() >= USED {
            self.used_at = Instant::now();
            link.send(&Said::Used(used(&self.progress)))?;
        }
        let interval = self.control.interval();
        if interval != self.interval && self.gathering.has_all(interval) {
            self.interval = interval;
            let (latencies, failures) = (self.gathering.take(), self.gathering.failures());
            link.send(&Said::Interval(interval, latencies, failures))?;
        }
        Ok(())
    }

    /// Says what all threads found, and answers for the clock until the other side has ended.
    fn bring_home(
        mut self,
        link: &mut Link,
        mut findings: Vec<Findings>,
        orders: &Receiver<Told>,
        busy: Busy<'_>,
    ) -> anyhow::Result<()> {
        self.used_at = Instant::now().checked_sub(USED).unwrap_or(self.used_at);
        self.say(link)?;
        // What was handed over and not said yet.
        self.gathering.has_all(0);
        if let Some(first) = findings.first_mut() {
            first.measured.interval.merge(self.gathering.take());
        }
        for part in findings.into_iter().flat_map(findings::parts) {
            link.send(&Said::Part(part))?;
        }
        // Who hears the next may come with the next run at once.
        drop(busy);
        link.send(&Said::Done)?;
        while let Ok(told) = orders.recv_timeout(SILENCE_MAX) {
            if matches!(told, Told::Clock) {
                link.send(&Said::Clock(clock::now(self.base)))?;
            }
        }
        Ok(())
    }
}

/// Memory and CPU time of this process and of its generator threads.
fn used(progress: &[Progress]) -> Used {
    let process = Process::glance(std::process::id());
    Used {
        cpu_ns: process.map_or(0, |process| process.cpu.as_nanos() as u64),
        rss_bytes: process.map_or(0, |process| process.rss_bytes),
        threads_ns: progress.iter().map(Progress::cpu_ns).collect(),
    }
}

/// A plan that nobody made by flags is refused before anything is made of it.
fn check(assignment: &Assignment) -> anyhow::Result<()> {
    let Assignment { plan, part, threads, .. } = assignment;
    let users = plan.topology.users();
    let is_sound = plan.topology.is_sound()
        && threads.start < threads.end
        && threads.len() <= 256
        && threads.end <= plan.threads
        && plan.threads <= users.min(65_536)
        && *part < 256
        && (HEAD_BYTES..=PAYLOAD_BYTES_MAX).contains(&plan.payload_bytes)
        && (1..=UNANSWERED_MAX).contains(&plan.window_max)
        && (1..=256).contains(&plan.burst)
        && plan.watched.start <= plan.watched.end
        && plan.watched.end <= users;
    ensure!(
        is_sound,
        "the plan makes no sense: {threads:?} of {} threads, {users} users",
        plan.threads
    );
    let target: IpAddr = plan.target.ip();
    ensure!(!target.is_unspecified() && !target.is_multicast(), "the plan has no server: {target}");
    Ok(())
}
