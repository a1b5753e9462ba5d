//! What the admin server knows of the node.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use iris_proto::admission::Limits;

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
    /// For each reactor, the limits that it has not taken yet.
    posted: Box<[Posted]>,
    /// Once the threads that hold connections can be reached.
    ejector: OnceLock<Ejector>,
    /// Where the admin server's socket is, once it is there.
    socket: OnceLock<PathBuf>,
}

/// Limits with their revision, one at a time.
type Posted = (Sender<(u64, Limits)>, Receiver<(u64, Limits)>);

impl NodeState {
    /// A node that is starting.
    pub fn new(info: NodeInfo, registry: Registry) -> Self {
        let phase = AtomicU8::new(Phase::Starting as u8);
        let posted = (0..registry.reactors()).map(|_| crossbeam_channel::bounded(1)).collect();
        let (ejector, socket) = (OnceLock::new(), OnceLock::new());
        let notifier = Notifier::default();
        Self { phase, started: Instant::now(), info, registry, notifier, posted, ejector, socket }
    }

    /// The same with a service manager, which hears of it.
    pub fn supervised(self, notifier: Notifier) -> Self {
        Self { notifier, ..self }
    }

    /// Has every reactor take these limits at its next look, in place of any that it has not taken yet. Called by the
    /// control thread alone.
    pub fn post_limits(&self, revision: u64, limits: Limits) {
        for (sender, receiver) in &self.posted {
            while let Err(TrySendError::Full(_)) = sender.try_send((revision, limits)) {
                // The reactor may have taken it just now; then there is room as well.
                let _ = receiver.try_recv();
            }
        }
    }

    /// What was posted for a reactor since it looked last.
    pub fn take_limits(&self, reactor: usize) -> Option<(u64, Limits)> {
        self.posted[reactor].1.try_recv().ok()
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
