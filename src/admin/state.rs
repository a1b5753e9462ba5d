//! What the admin server knows of the node.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use iris_proto::admission::Limits;
use iris_proto::drain::{Plan, Return};

use crate::config::{Config, Roles};
use crate::eject::Ejector;
use crate::metrics::Registry;
use crate::supervisor::Notifier;

/// Where a node is in its life. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Threads are being started.
    Starting = 0,
    /// The log is being read.
    Recovering = 1,
    /// Clients are served.
    Ready = 2,
    /// Clients are being sent elsewhere.
    Draining = 3,
    /// Connections are closed, the log is being closed.
    Stopping = 4,
}

impl Phase {
    const ALL: [Self; 5] =
        [Self::Starting, Self::Recovering, Self::Ready, Self::Draining, Self::Stopping];

    /// A stable word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Recovering => "recovering",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
        }
    }
}

/// Who the node is, for display.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its number.
    pub node_id: u32,
    /// What it does.
    pub roles: Roles,
    /// The cores of its cluster; empty: a node alone.
    pub cores: Vec<u32>,
    /// The core that mirrors this one; `None`: it is no core of a pair.
    pub mirror: Option<u32>,
    /// Where its clients go when it stops.
    pub returns: Return,
}

impl NodeInfo {
    /// What a configuration says of the node.
    pub fn of(config: &Config) -> Self {
        let node_id = config.node.node_id;
        let cores = config.cluster.as_ref().map(|cluster| cluster.cores.as_slice());
        let cores: Vec<u32> = cores.unwrap_or_default().iter().map(|core| core.node).collect();
        let mirror = cores.iter().copied().find(|core| *core != node_id);
        Self {
            name: config.node.name.clone(),
            region: config.node.region.clone(),
            node_id,
            roles: config.roles,
            mirror: mirror.filter(|_| config.roles.core),
            returns: match &config.cluster {
                Some(_) => Return::Elsewhere,
                None => Return::Here,
            },
            cores,
        }
    }
}

/// The node's phase and counters, shared by the threads that set them and the one that shows them.
#[derive(Debug)]
pub struct NodeState {
    phase: AtomicU8,
    started: Instant,
    info: NodeInfo,
    registry: Registry,
    notifier: Notifier,
    /// For each reactor, the limits that it has not taken yet, with their generation.
    limits: Box<[Posted<(u64, Limits)>]>,
    /// And how it is to send its clients away.
    plans: Box<[Posted<Plan>]>,
    /// Time that a drain may take if nothing else is said, milliseconds.
    drain_ms: AtomicU64,
    /// Requests to drain whose askers have not seen the end yet.
    end_awaited: AtomicU64,
    /// Nobody is left, and what was accepted is on disk.
    is_empty: AtomicBool,
    /// Once the threads that hold connections can be reached.
    ejector: OnceLock<Ejector>,
    /// Where the admin server's socket is, once it is there.
    socket: OnceLock<PathBuf>,
}

/// What a reactor takes when it looks next: the newest one counts.
#[derive(Debug)]
struct Posted<T> {
    sender: Sender<T>,
    receiver: Receiver<T>,
}

impl<T: Copy> Posted<T> {
    fn for_each(reactors: usize) -> Box<[Self]> {
        let one = || {
            let (sender, receiver) = crossbeam_channel::bounded(1);
            Self { sender, receiver }
        };
        (0..reactors).map(|_| one()).collect()
    }

    /// Posts in place of what was not taken yet. By one thread alone.
    fn post(&self, what: T) {
        while let Err(TrySendError::Full(_)) = self.sender.try_send(what) {
            // It may have been taken just now; then there is room as well.
            let _ = self.receiver.try_recv();
        }
    }

    fn take(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

impl NodeState {
    /// A node that is starting.
    pub fn new(info: NodeInfo, registry: Registry) -> Self {
        let phase = AtomicU8::new(Phase::Starting as u8);
        let (ejector, socket) = (OnceLock::new(), OnceLock::new());
        Self {
            phase,
            started: Instant::now(),
            info,
            limits: Posted::for_each(registry.reactors()),
            plans: Posted::for_each(registry.reactors()),
            registry,
            notifier: Notifier::default(),
            drain_ms: AtomicU64::new(0),
            end_awaited: AtomicU64::new(0),
            is_empty: AtomicBool::new(false),
            ejector,
            socket,
        }
    }

    /// The same with a service manager, which hears of it.
    pub fn supervised(self, notifier: Notifier) -> Self {
        Self { notifier, ..self }
    }

    /// Has every reactor take these limits at its next look, in place of any that it has not taken yet. Called by the
    /// control thread alone.
    pub fn post_limits(&self, generation: u64, limits: Limits) {
        self.limits.iter().for_each(|of_reactor| of_reactor.post((generation, limits)));
    }

    /// What was posted for a reactor since it looked last.
    pub fn take_limits(&self, reactor: usize) -> Option<(u64, Limits)> {
        self.limits[reactor].take()
    }

    /// Has every reactor send its clients away by this plan, which begins now. Readiness ends first. Called by the main
    /// thread alone.
    pub fn drain(&self, plan: Plan) {
        self.registry.drain().note(&plan);
        self.plans.iter().for_each(|of_reactor| of_reactor.post(plan));
        self.advance(Phase::Draining);
    }

    /// The plan for a reactor, if there is one that it has not taken yet.
    pub fn take_plan(&self, reactor: usize) -> Option<Plan> {
        self.plans[reactor].take()
    }

    /// Time that a drain may take if nothing else is said (`reactor.drain_time`).
    pub fn drain_time(&self) -> Duration {
        Duration::from_millis(self.drain_ms.load(Ordering::Relaxed))
    }

    /// It is this from now on.
    pub fn set_drain_time(&self, time: Duration) {
        self.drain_ms.store(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// Somebody who asked for a drain waits to see its end.
    pub fn await_end(&self) {
        self.end_awaited.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether somebody still does.
    pub fn is_end_awaited(&self) -> bool {
        self.end_awaited.load(Ordering::Relaxed) > 0
    }

    /// The threads have ended, all that they had is on disk, and whoever waits for the end sees it.
    pub fn set_empty(&self) {
        self.is_empty.store(true, Ordering::Release);
    }

    /// Whether that is so.
    pub fn is_empty(&self) -> bool {
        self.is_empty.load(Ordering::Acquire)
    }

    /// Who waited has seen the end, or will not see it. Called by the control thread alone, like [`Self::await_end`].
    pub fn end_wait(&self) {
        let left = self.end_awaited.load(Ordering::Relaxed).saturating_sub(1);
        self.end_awaited.store(left, Ordering::Relaxed);
    }

    /// From now on sessions can be ended. Said once.
    pub fn set_ejector(&self, ejector: Ejector) {
        self.ejector.set(ejector).expect("it is said once");
    }

    /// The way to the threads that hold connections; `None` while they are not there.
    pub fn ejector(&self) -> Option<&Ejector> {
        self.ejector.get()
    }

    /// The admin server's socket is there. Said once.
    pub fn set_socket(&self, path: PathBuf) {
        self.socket.set(path).expect("it is said once");
    }

    /// Where the admin server's socket is.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.get().map(PathBuf::as_path)
    }

    /// Moves on to `phase`; one that lies behind changes nothing.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// Where the node is.
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    /// Time since the node was made.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Who it is.
    pub fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// For telling the service manager.
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// What it counts.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}
