//! The gateway of a node: wired between reactors, partitions and links, started, and ended before the partitions are.

use super::{FLUSH_TIMEOUT, Joiner, LINK_BATCHES_MAX, Links, NodeParts, Wakers};
use crate::cli::exit::Failure;
use crate::cluster::{self, CoreAttachment, CoreParts, EdgeParts, Me, States};
use crate::config::{ClusterConfig, Config};
use crate::eject::{Eject, Ejector};
use crate::link::{Attachment, Inbox, Outbox, links_into};
use crate::metrics::Registry;
use crate::partition::{Failed, MirrorParts};
use crate::preflight::{explain_bind, explain_ring};
use crate::reactor::{ClusterParts, GATEWAY};
use crate::rt::{self, Waker};
use crate::supervisor::Beat;
use crossbeam_channel::{Receiver, Sender, unbounded};
use iris_proto::edge::RouterConfig;
use iris_proto::id::{Origin, ShardId};
use iris_proto::peer::PartitionState;
use iris_proto::replica::ReplicaConfig;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Heartbeats that may fail to come before a stream to the mirror is given up.
const SILENT_AFTER: u64 = 4;

/// The socket for other nodes, if this node is one to come to.
pub(super) fn bind(config: &Config) -> Result<Option<TcpListener>, Failure> {
    let Some(cluster) = config.cluster.as_ref().filter(|_| config.roles.core) else {
        return Ok(None);
    };
    let bound = TcpListener::bind(cluster.listen);
    bound.map(Some).map_err(|error| explain_bind("cluster.listen", cluster.listen, &error))
}

/// What reactors and partitions get to reach other nodes, in order of their numbers.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) reactors: Vec<ClusterParts>,
    pub(super) partitions: Vec<PartitionEnds>,
}

/// What one partition gets.
pub(super) struct PartitionEnds {
    pub(super) attachments: Receiver<Attachment>,
    pub(super) home: Option<Outbox>,
    pub(super) mirror: Option<MirrorParts>,
}

/// A gateway that is not started yet.
pub(super) struct Wiring {
    config: ClusterConfig,
    waker: Waker,
    edge: Option<EdgeParts>,
    core: Option<CoreParts>,
    states: Arc<States>,
}

impl Wiring {
    /// Takes the gateway's queues out of those of the node, and makes what else it needs. `me` is this life, of a core.
    pub(super) fn new(
        config: &Config,
        me: Option<Origin>,
        wakers: &Wakers,
        links: &mut Links,
        registry: &Registry,
    ) -> Option<(Self, Ends)> {
        let cluster = config.cluster.clone()?;
        let waker = wakers.gateway.clone().expect("a node of a cluster has a gateway");
        let mut ends = Ends::default();
        // The gateway's own come last: one to the partitions, one for each core to the reactors.
        let to_partitions = links.to_partitions.pop().expect("the gateway's are among them");
        let cores = links.to_reactors.len() - cluster.cores.len();
        let to_reactors = links.to_reactors.split_off(cores);
        let edge = config.roles.edge.then(|| {
            let reactors = attach(&wakers.reactors, |index, attachments| {
                ends.reactors.push(cluster_parts(config, &cluster, index, attachments));
            });
            EdgeParts { to_reactors, reactors }
        });
        let states = Arc::new(States::new(config.partitions()));
        let core = me.map(|me| {
            let (home, ways) = home(&waker, &wakers.partitions);
            // With reactors here, the first one passes on what names no connection.
            let mut ways = ways.into_iter().map(|way| Some(way).filter(|_| !config.roles.edge));
            let mut mirrors = Vec::new();
            let partitions = attach(&wakers.partitions, |index, attachments| {
                let mirror = replica_config(config, &cluster, me, index).map(|config| {
                    let (sender, news) = unbounded();
                    mirrors.push(sender);
                    let (states, gateway) = (Arc::clone(&states), waker.clone());
                    let metrics = registry.mirror(usize::from(index));
                    MirrorParts { config, news, states, gateway, metrics }
                });
                let home = ways.next().flatten();
                ends.partitions.push(PartitionEnds { attachments, home, mirror });
            });
            let mirrors = Some(mirrors).filter(|mirrors| !mirrors.is_empty());
            if mirrors.is_none() {
                // Nothing is waited for: each serves from its start on.
                states.set_all(PartitionState::Serving);
            }
            CoreParts { to_partitions, partitions, home, mirrors }
        });
        Some((Self { config: cluster, waker, edge, core, states }, ends))
    }
}

/// `None`: nobody mirrors this core.
fn replica_config(
    config: &Config,
    cluster: &ClusterConfig,
    me: Origin,
    partition: u16,
) -> Option<ReplicaConfig> {
    let peer = cluster.mirror_of(me.node)?;
    let heartbeat_ms = cluster.heartbeat.as_millis() as u64;
    Some(ReplicaConfig {
        partition,
        partitions: config.partitions() as u16,
        first_shard: ShardId(partition),
        when_alone: cluster.when_alone,
        heartbeat_ms,
        silent_ms: SILENT_AFTER * heartbeat_ms,
        degrade_ms: cluster.degrade.as_millis() as u64,
        heal_bytes_per_ms: (cluster.heal_rate / 1000) as usize,
        ..ReplicaConfig::new(me, peer, config.core.num_shards)
    })
}

/// A channel for attachments to each thread, whose end goes to `give`.
fn attach<T>(wakers: &[Waker], mut give: impl FnMut(u16, Receiver<T>)) -> Vec<(Waker, Sender<T>)> {
    let each = |(index, waker): (u16, &Waker)| {
        let (sender, receiver) = unbounded();
        give(index, receiver);
        (waker.clone(), sender)
    };
    (0..).zip(wakers).map(each).collect()
}

fn home(gateway: &Waker, partitions: &[Waker]) -> (Inbox, Vec<Outbox>) {
    let senders: Vec<(u16, Waker)> = (0..).zip(partitions.iter().cloned()).collect();
    let (ways, inbox) = links_into(gateway, &senders, LINK_BATCHES_MAX);
    (inbox, ways)
}

fn cluster_parts(
    config: &Config,
    cluster: &ClusterConfig,
    reactor: u16,
    attachments: Receiver<CoreAttachment>,
) -> ClusterParts {
    let nodes: Vec<u32> = cluster.cores.iter().map(|core| core.node).collect();
    let mine = nodes.iter().position(|node| *node == config.node.node_id);
    let local = mine.filter(|_| config.roles.core);
    let send_wait_ms = cluster.send_wait.as_millis() as u64;
    let defaults = RouterConfig::new(reactor, config.core.num_shards, nodes);
    ClusterParts { router: RouterConfig { send_wait_ms, ..defaults }, local, attachments }
}

/// Threads that send batches, by the number in their batches.
pub(super) type Senders = Vec<(u16, Waker)>;

/// What the gateway is to partitions and to reactors.
pub(super) fn senders(config: &Config, gateway: &Waker) -> (Senders, Senders) {
    let cores = config.cluster.as_ref().map_or(0, |cluster| cluster.cores.len() as u16);
    let into_partitions = vec![(config.reactors() as u16, gateway.clone())];
    let into_reactors = (0..cores).map(|core| (GATEWAY | core, gateway.clone())).collect();
    (into_partitions, into_reactors)
}

/// A gateway that runs.
pub(super) struct Running {
    states: Arc<States>,
    leave: Arc<AtomicBool>,
    waker: Waker,
    thread: Joiner,
}

impl Running {
    pub(super) fn start(
        wiring: Wiring,
        listener: Option<TcpListener>,
        node: &NodeParts<'_>,
        incarnation: Option<u32>,
        (ejects, ejector): (Receiver<Eject>, Ejector),
    ) -> anyhow::Result<Self> {
        let (config, failures) = (node.config, node.failures.clone());
        let leave = Arc::new(AtomicBool::new(false));
        let random = super::seed()?;
        let parts = cluster::Parts {
            me: Me {
                node: config.node.node_id,
                incarnation: incarnation.map_or(random, u64::from),
                roles: config.roles,
                num_shards: config.core.num_shards,
                partitions: config.partitions() as u16,
                reactors: config.reactors() as u16,
                region: config.node.region.clone(),
                name: config.node.name.clone(),
            },
            random,
            config: wiring.config,
            listener,
            waker: wiring.waker.clone(),
            started: node.started,
            edge: wiring.edge,
            core: wiring.core,
            states: Arc::clone(&wiring.states),
            ejects,
            ejector,
            leave: Arc::clone(&leave),
            metrics: node.state.registry().gateway(),
        };
        let thread =
            std::thread::Builder::new().name("iris-gateway".to_owned()).spawn(move || {
                rt::become_batch_class();
                if let Err(error) = cluster::run(parts) {
                    let _ = failures
                        .send(Failed::Because(format!("iris-gateway: {}", explain_ring(&error))));
                }
            })?;
        let states = wiring.states;
        Ok(Self { states, leave, waker: wiring.waker, thread })
    }

    /// Whether each partition serves, or did.
    pub(super) fn has_begun(&self) -> bool {
        self.states.have_begun()
    }

    /// Edges are told to go elsewhere, the mirror gets what it lacks, and the links are ended.
    pub(super) fn stop(self, partitions: &[Waker], beat: &mut Beat) {
        self.states.set_all(PartitionState::Draining);
        partitions.iter().for_each(Waker::wake);
        self.leave.store(true, Ordering::Release);
        let mut leaves = || beat.tick(|| "saying goodbye to other nodes".to_owned());
        let (threads, wakers) = (vec![self.thread], [self.waker]);
        super::join_within(threads, FLUSH_TIMEOUT, &wakers, "gateway", &mut leaves);
    }
}
