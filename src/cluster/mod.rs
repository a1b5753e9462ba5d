//! Links to other nodes: who they are, how they are reached, and what crosses.
//!
//! One thread, the gateway, owns all links of a node ([`gateway`]). To the reactors and partitions of the node another
//! node looks like threads of their own process: the same batches come out of the same queues. [`credentials`] and
//! [`pki`] say who may link, [`tls`] and [`wire`] carry one link, [`traffic`] moves batches, [`shown`] is for operators.
//! What is said on a link is `proto/src/peer/` and `docs/LINKS.md`.

mod credentials;
mod dials;
mod ejects;
mod gateway;
pub mod pki;
mod ranges;
mod shown;
mod tls;
mod traffic;
mod wire;

#[cfg(test)]
mod tests;

pub use credentials::{CredentialError, CredentialFiles, Credentials, is_cluster_name, node_name};
pub(crate) use credentials::{certificates, read_file};
pub use gateway::run;

use crate::config::{ClusterConfig, Roles};
use crate::eject::{Eject, Ejector};
use crate::link::{Attachment, Inbox, Outbox};
use crate::metrics::GatewayMetrics;
use crate::rt::Waker;
use crossbeam_channel::{Receiver, Sender};
use iris_proto::peer::{
    Hello, PartitionState, Purpose, Roles as PeerRoles, ShardRanges, VERSION_MAX, VERSION_MIN,
};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Instant;

/// Bytes that a peer may have under way on one channel.
const CHANNEL_WINDOW: u32 = 1 << 20;

/// What this node says of itself.
#[derive(Clone, Debug)]
pub struct Me {
    /// Its number in the cluster.
    pub node: u32,
    /// Another number in each life of the process.
    pub incarnation: u64,
    /// What it does.
    pub roles: Roles,
    /// Shards of the cluster.
    pub num_shards: u16,
    /// Its partitions; 0 without the role core.
    pub partitions: u16,
    /// Its reactors; 0 without the role edge.
    pub reactors: u16,
    /// Where it is.
    pub region: String,
    /// Its name.
    pub name: String,
}

impl Me {
    fn hello(&self, config: &ClusterConfig, purpose: Purpose) -> Hello {
        let role = |is, role| if is { role } else { PeerRoles::default() };
        let core = role(self.roles.core, PeerRoles::CORE);
        let shards = match self.roles.core {
            true => ShardRanges::all(self.num_shards),
            false => ShardRanges::none(),
        };
        Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            purpose,
            roles: role(self.roles.edge, PeerRoles::EDGE).with(core),
            node: self.node,
            incarnation: self.incarnation,
            num_shards: self.num_shards,
            partitions: self.partitions,
            reactors: self.reactors,
            heartbeat_ms: config.heartbeat.as_millis() as u32,
            credit: CHANNEL_WINDOW,
            shards,
            cluster: config.id.clone(),
            region: self.region.clone(),
            name: self.name.clone(),
        }
    }
}

/// Whether each partition of this node serves. Partitions and boot set it, the gateway tells edges.
#[derive(Debug)]
pub struct States {
    states: Vec<AtomicU8>,
    /// Whether the mirror has everything of it, as far as it can.
    drained: Vec<AtomicBool>,
}

impl States {
    /// All of them recover.
    pub fn new(partitions: usize) -> Self {
        let recovering = PartitionState::Recovering as u8;
        Self {
            states: (0..partitions).map(|_| AtomicU8::new(recovering)).collect(),
            drained: (0..partitions).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// The state of a partition.
    pub fn get(&self, partition: u16) -> PartitionState {
        PartitionState::from_u8(self.states[usize::from(partition)].load(Ordering::Acquire))
    }

    /// Sets the state of all. Wake the gateway afterwards.
    pub fn set_all(&self, state: PartitionState) {
        self.states.iter().for_each(|of| of.store(state as u8, Ordering::Release));
    }

    /// A partition says how it serves, and whether its mirror has everything. What drains goes on draining. Whether
    /// that changed anything: then wake the gateway.
    pub fn tell(&self, partition: u16, state: PartitionState, drained: bool) -> bool {
        let state = state as u8;
        let changed = self.states[usize::from(partition)].fetch_update(
            Ordering::AcqRel,
            Ordering::Acquire,
            |now| (now != state && now != PartitionState::Draining as u8).then_some(state),
        );
        let of = &self.drained[usize::from(partition)];
        let has_drained = drained && !of.swap(true, Ordering::AcqRel);
        changed.is_ok() || has_drained
    }

    /// Whether every partition serves, or did.
    pub fn have_begun(&self) -> bool {
        let recovering = PartitionState::Recovering as u8;
        self.states.iter().all(|of| of.load(Ordering::Acquire) != recovering)
    }

    /// Whether the mirror has everything of all of them, as far as it can.
    pub fn have_drained(&self) -> bool {
        self.drained.iter().all(|of| of.load(Ordering::Acquire))
    }
}

/// A way to each partition of a core that was linked, for a reactor. A newer one takes the place of an older one.
#[derive(Debug)]
pub struct CoreAttachment {
    /// Which core of `cluster.cores`.
    pub core: usize,
    /// By partition.
    pub outboxes: Vec<Outbox>,
}

/// The reactors of this node.
#[derive(Debug)]
pub struct EdgeParts {
    /// For each core of `cluster.cores`, the way to each reactor. What comes that way is read by
    /// [`iris_proto::edge::FromCore`].
    pub to_reactors: Vec<Vec<Outbox>>,
    /// How each reactor is woken, and where it gets its ways to cores.
    pub reactors: Vec<(Waker, Sender<CoreAttachment>)>,
}

/// The partitions of this node.
#[derive(Debug)]
pub struct CoreParts {
    /// The way to each partition.
    pub to_partitions: Vec<Outbox>,
    /// How each partition is woken, and where it gets its ways to edges.
    pub partitions: Vec<(Waker, Sender<Attachment>)>,
    /// What partitions say that names no connection.
    pub home: Inbox,
    /// Where each partition hears of its mirror; `None`: nobody listens, and mirrors are refused.
    pub mirrors: Option<Vec<Sender<MirrorNews>>>,
}

/// What a partition hears of the same partition of its mirror, in order. A link is a new stream of bytes each way.
#[derive(Debug)]
pub enum MirrorNews {
    /// A link stands.
    Up {
        /// Its number: higher than that of every link before.
        link: u64,
        /// The mirror's number in the cluster.
        node: u32,
        /// Which life of the mirror.
        incarnation: u64,
        /// Bytes of the mirror, in pieces that mean nothing.
        inbox: Inbox,
        /// Bytes for the mirror.
        outbox: Outbox,
        /// Ends the link.
        cut: Cut,
    },
    /// The link of that number is gone. What is left in its inbox may be dropped, like what was lost on the way.
    Down {
        /// Its number.
        link: u64,
        /// The mirror said that it stops, or its process is no more; else nothing is known of it.
        is_gone: bool,
    },
}

/// Ends the link to a mirror when one of its streams cannot go on.
#[derive(Clone, Debug)]
pub struct Cut {
    asked: Arc<AtomicBool>,
    gateway: Waker,
}

impl Cut {
    pub(crate) fn new(gateway: Waker) -> Self {
        Self { asked: Arc::default(), gateway }
    }

    /// Ends the link, after what was handed over before.
    pub fn now(&self) {
        self.asked.store(true, Ordering::Release);
        self.gateway.wake();
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

/// What a gateway is made of.
#[derive(Debug)]
pub struct Parts {
    /// The other nodes.
    pub config: ClusterConfig,
    /// This node.
    pub me: Me,
    /// A number that no other node has: the numbers of the wishes it tells begin with it.
    pub random: u64,
    /// Where other nodes come in; only of a core.
    pub listener: Option<TcpListener>,
    /// How the gateway is woken.
    pub waker: Waker,
    /// When the node started.
    pub started: Instant,
    /// The reactors, if there are any.
    pub edge: Option<EdgeParts>,
    /// The partitions, if there are any.
    pub core: Option<CoreParts>,
    /// How the partitions are.
    pub states: Arc<States>,
    /// What an operator wants of other nodes.
    pub ejects: Receiver<Eject>,
    /// The way to the reactors for what other nodes want.
    pub ejector: Ejector,
    /// Set, with a wake, when the node stops: edges go elsewhere, then the gateway ends.
    pub leave: Arc<AtomicBool>,
    /// What it counts.
    pub metrics: Arc<GatewayMetrics>,
}
