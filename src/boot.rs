//! Brings a node up, waits, and takes it down.
//!
//! The order on the way up: addresses are bound first, so that a port in use is told before anything on disk changes;
//! then the data directory is locked and its logs are recovered; then reactors accept. On the way down: reactors send
//! their clients away and end, partitions write what they hold and end.

mod cluster;
mod drain;
mod listen;

use crate::admin::{Control, Event, NodeInfo, NodeState, Phase};
use crate::cli::announce::{Bound, announce};
use crate::cli::exit::{Exit, Failure};
use crate::clock::unix_ms;
use crate::config::{AdminSocket, Config, Reload, SyncMode};
use crate::eject::{Eject, Ejector};
use crate::halt_poll::{HaltPoll, cpu_quota};
use crate::link::{Inbox, Links as Ways, Outbox, links_into};
use crate::metrics::Registry;
use crate::partition::{self, Failed, PartitionStore};
use crate::preflight::explain_ring;
use crate::reactor::{self, Listeners};
use crate::rt::{self, Waker};
use crate::supervisor::{Supervision, watchdog};
use crate::tls::{Reloader, Renewals};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use iris_proto::admission::Gate;
use iris_proto::core::CoreConfig;
use iris_proto::id::{Origin, ShardId};
use iris_proto::session::{Outlast, Patience, SlowBounds};
use iris_ring::Listener;
use iris_tls::ServerConfig;
use iris_wal::LogConfig;
use iris_wal::disk::SyncMethod;
use iris_wal::io::{Directory, Founding, Identity, NODE_NAME, OpenError, random_bytes, self_test};
use iris_wal::store::SupplyConfig;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Batches under way from all reactors to one partition, or back.
const LINK_BATCHES_MAX: usize = 64;
/// Bytes that may wait for one partition before SENDs are refused as overload.
const LINK_BACKLOG_MAX: usize = 16 << 20;
/// Bytes of unfinished frames that one reactor keeps.
const PARTIAL_BYTES_MAX: usize = 64 << 20;
/// Time for partitions to write what they hold.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Between looks at whether cores are there, during the start.
const CORES_LOOK: Duration = Duration::from_millis(5);

type Joiner = std::thread::JoinHandle<()>;

/// Runs a node until it is told to stop; `reload` reads its configuration anew.
pub fn run(mut config: Config, reload: Reload, supervision: Supervision) -> anyhow::Result<()> {
    let started = Instant::now();
    rt::keep_freed_memory();
    adopt_partitions(&mut config);
    let connections_max = config.reactor.connections_max;
    let registry = Registry::new(config.reactors(), config.partitions(), connections_max);
    registry.bounds().set(&config);
    let Supervision { notifier, inherited } = supervision;
    let state = NodeState::new(NodeInfo::of(&config), registry).supervised(notifier.clone());
    let state = Arc::new(state);
    state.set_drain_time(config.reactor.drain_time);
    let listeners = listen::bind(&config, inherited, &notifier)?;
    let peers = cluster::bind(&config)?;
    let address = |listeners_of: fn(&Listeners) -> &Vec<Listener>| {
        listeners.first().and_then(|first| listeners_of(first).first().map(Listener::address))
    };
    let bound = Bound {
        tcp: address(|listeners| &listeners.tcp),
        tls: address(|listeners| &listeners.tls),
        link: peers.as_ref().map(TcpListener::local_addr).transpose()?,
        admin: config.listen.admin,
    };
    let (reloader, tls) = Reloader::start(&config, state.registry())?
        .map(|start| (start.reloader, (start.config, start.renewals)))
        .unzip();
    let mut control = Control::start(&config.listen, Arc::clone(&state), reload, reloader)?;
    let bound = Bound { admin: control.address(), ..bound };
    let directory = config.roles.core.then(|| open_directory(&config)).transpose()?.map(Arc::new);

    open_socket(&mut control, &config)?;
    state.advance(Phase::Recovering);
    let cpus = Cpus::of_process();
    let wakers = Wakers::new(&config, &cpus)?;
    let (mut links, inboxes) = wakers.links(&config);
    let (ejector, ejects, gateway_ejects) = Ejector::new(&wakers.reactors, wakers.gateway.as_ref());
    let me = directory.as_ref().map(|directory| origin_of(directory.identity()));
    let (wiring, ends) =
        cluster::Wiring::new(&config, me, &wakers, &mut links, state.registry()).unzip();
    let wishes = gateway_ejects.map(|wishes| (wishes, ejector.clone()));
    state.set_ejector(ejector);
    let ends = ends.unwrap_or_default();
    let node = NodeParts {
        config: &config,
        cpus: &cpus,
        state: &state,
        started,
        events: control.events(),
        failures: report_to(control.sender(), directory.clone()),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (ways, inboxes_in) = (links.to_reactors, inboxes.of_partitions);
    let Some(partitions) = node.start_partitions(
        directory.as_deref(),
        &wakers,
        ways,
        inboxes_in,
        ends.partitions,
        &stop,
    )?
    else {
        return Ok(());
    };
    let incarnation = me.map(|me| me.incarnation);
    let gateway = wiring
        .zip(wishes)
        .map(|(wiring, wishes)| cluster::Running::start(wiring, peers, &node, incarnation, wishes));
    let gateway = gateway.transpose()?;
    let (ways, inboxes_in) = (links.to_partitions, inboxes.of_reactors);
    let ends = (ends.reactors, ejects);
    let doors = node.doors(listeners, tls);
    let reactors = node.start_reactors(doors, &wakers, ways, inboxes_in, ends)?;
    let event = match node.wait_for_cores(gateway.as_ref())? {
        Some(event) => event,
        None => {
            state.registry().mark_baseline();
            state.advance(Phase::Ready);
            announce(&config, bound)?;
            notifier.ready(&watchdog::serving(&state));
            control.events().recv()?
        }
    };
    notifier.stopping(if matches!(event, Event::Fatal(_)) { "failed" } else { "draining" });
    let mut beat = notifier.beat();
    let clients = drain::Clients {
        state: &state,
        events: control.events(),
        reactors,
        wakers: &wakers.reactors,
        beat: &mut beat,
    };
    let sent_away = match event {
        Event::Signal(signal) => {
            tracing::info!(event = "draining", signal, "draining");
            clients.send_away(drain::by_signal(&state))
        }
        Event::Drain(wish) => clients.send_away(wish),
        Event::Fatal(failure) => Err(failure),
    };
    state.advance(Phase::Draining);
    // After a failure nothing is acknowledged any more; what is on disk is read at the next start (I6).
    let result = sent_away.and_then(|()| {
        if let Some(gateway) = gateway {
            gateway.stop(&wakers.partitions, &mut beat);
        }
        state.advance(Phase::Stopping);
        stop.store(true, Ordering::Release);
        let mut flushes = || beat.tick(|| "writing the log out".to_owned());
        let written =
            join_within(partitions, FLUSH_TIMEOUT, &wakers.partitions, "partitions", &mut flushes);
        let failed = control.events().try_iter().find_map(|event| match event {
            Event::Fatal(failure) => Some(failure),
            Event::Signal(_) | Event::Drain(_) => None,
        });
        failed.map_or(Ok(()), Err)?;
        if written && state.registry().connections() == 0 {
            drain::show_end(&state);
        }
        tracing::info!(event = "stopped", "stopped");
        Ok(())
    });
    control.stop();
    drop(directory);
    Ok(result?)
}

/// The admin server's socket. One that nobody asked for keeps nobody from starting: a full disk has no room for it.
fn open_socket(control: &mut Control, config: &Config) -> Result<(), Failure> {
    let Some(path) = config.admin_socket() else { return Ok(()) };
    match control.open_socket(&path) {
        Err(error) if config.listen.admin_socket == AdminSocket::Auto => {
            tracing::warn!(%error, "there is no admin socket");
            Ok(())
        }
        other => other,
    }
}

/// A data directory was founded with a number of partitions; a machine with more CPUs does not change it.
fn adopt_partitions(config: &mut Config) {
    if config.roles.core
        && config.core.partitions_auto
        && let Ok(Some(found)) = Identity::read(&config.node.data_dir)
    {
        config.core.partitions = usize::from(found.partitions.max(1));
    }
}

fn open_directory(config: &Config) -> Result<Directory, Failure> {
    let founding = Founding {
        cluster: None,
        node_id: config.node.node_id,
        num_shards: config.core.num_shards,
        partitions: config.core.partitions as u16,
        now_s: u32::try_from(unix_ms() / 1000).unwrap_or(0),
    };
    Directory::open(&config.node.data_dir, &founding).map_err(|error| {
        let exit = match &error {
            OpenError::Locked { .. } => Exit::InUse,
            OpenError::Io { error, .. } if error.kind() == ErrorKind::PermissionDenied => {
                Exit::Permission
            }
            OpenError::Mismatch { .. } => Exit::Config,
            OpenError::Io { .. } | OpenError::NoIdentity { .. } | OpenError::Identity(_) => {
                Exit::DataDir
            }
        };
        Failure::new(exit, error.to_string())
    })
}

fn origin_of(identity: &Identity) -> Origin {
    Origin { node: identity.node_id, incarnation: identity.incarnation }
}

/// How each thread is woken.
struct Wakers {
    reactors: Vec<Waker>,
    partitions: Vec<Waker>,
    /// In a cluster.
    gateway: Option<Waker>,
}

struct Links {
    /// For each reactor, its outboxes to the partitions; then the gateway's.
    to_partitions: Vec<Vec<Outbox>>,
    /// For each partition, its outboxes to the reactors; then the gateway's, for each core.
    to_reactors: Vec<Vec<Outbox>>,
}

struct Inboxes {
    of_reactors: Vec<Inbox>,
    of_partitions: Vec<Inbox>,
}

impl Wakers {
    fn new(config: &Config, cpus: &Cpus) -> std::io::Result<Self> {
        let halt_polls = cpus.halt_polls(config)?;
        let of = |waker: Waker, place: usize| waker.with_halt_poll(halt_polls[place].clone());
        let reactors = (0..config.reactors())
            .map(|index| Ok(of(Waker::of_ring()?, cpus.place_of_reactor(index))));
        let partitions = (0..config.partitions())
            .map(|index| of(Waker::of_parking(), cpus.place_of_partition(index)));
        Ok(Self {
            reactors: reactors.collect::<std::io::Result<_>>()?,
            partitions: partitions.collect(),
            gateway: config.cluster.as_ref().map(|_| Waker::of_ring()).transpose()?,
        })
    }

    /// Every reactor linked to every partition, both ways, and the gateway to all of them.
    fn links(&self, config: &Config) -> (Links, Inboxes) {
        let (mut into_partitions, mut into_reactors) =
            (numbered(&self.reactors), numbered(&self.partitions));
        if let Some(gateway) = &self.gateway {
            let (to_partitions, to_reactors) = cluster::senders(config, gateway);
            into_partitions.extend(to_partitions);
            into_reactors.extend(to_reactors);
        }
        let (to_partitions, of_partitions) = mesh(&into_partitions, &self.partitions);
        let (to_reactors, of_reactors) = mesh(&into_reactors, &self.reactors);
        (Links { to_partitions, to_reactors }, Inboxes { of_reactors, of_partitions })
    }
}

fn numbered(wakers: &[Waker]) -> cluster::Senders {
    (0..).zip(wakers.iter().cloned()).collect()
}

/// For each sender its outboxes to all receivers, and the receivers' inboxes.
fn mesh(senders: &[(u16, Waker)], receivers: &[Waker]) -> (Vec<Vec<Outbox>>, Vec<Inbox>) {
    let mut outboxes: Vec<Vec<Outbox>> = senders.iter().map(|_| Vec::new()).collect();
    let inboxes = receivers
        .iter()
        .map(|receiver| {
            let (links, inbox) = links_into(receiver, senders, LINK_BATCHES_MAX);
            outboxes.iter_mut().zip(links).for_each(|(of_sender, link)| of_sender.push(link));
            inbox
        })
        .collect();
    (outboxes, inboxes)
}

/// A way for partitions to say that they cannot go on.
fn report_to(
    events: crossbeam_channel::Sender<Event>,
    directory: Option<Arc<Directory>>,
) -> crossbeam_channel::Sender<Failed> {
    let (sender, receiver) = crossbeam_channel::unbounded::<Failed>();
    std::thread::spawn(move || {
        for failed in receiver {
            let failure = match failed {
                Failed::Because(message) => {
                    let why = "the node stops, because nothing can be kept safe";
                    Failure::new(Exit::Io, format!("{message}; {why}"))
                }
                Failed::Reincarnate(above) => rise_above(directory.as_deref(), above),
            };
            let _ = events.send(Event::Fatal(failure));
        }
    });
    sender
}

/// The mirror knows a later life of this node than the data directory does.
fn rise_above(directory: Option<&Directory>, above: u32) -> Failure {
    let what = "the mirror knows a later life of this node: the data directory is an older image";
    let raised = directory.map_or(Ok(()), |directory| directory.raise_incarnation(above));
    let next = match raised {
        Ok(()) => {
            "start it again: it goes on above that life and gets back what it lacks".to_owned()
        }
        Err(error) => error.to_string(),
    };
    Failure::new(Exit::Io, format!("{what}; {next}"))
}

struct NodeParts<'a> {
    config: &'a Config,
    cpus: &'a Cpus,
    state: &'a Arc<NodeState>,
    started: Instant,
    events: &'a Receiver<Event>,
    failures: crossbeam_channel::Sender<Failed>,
}

impl NodeParts<'_> {
    /// `None`: the node was told to stop meanwhile.
    fn start_partitions(
        &self,
        directory: Option<&Directory>,
        wakers: &Wakers,
        links: Vec<Vec<Outbox>>,
        inboxes: Vec<Inbox>,
        ends: Vec<cluster::PartitionEnds>,
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<Option<Vec<Joiner>>> {
        let Some(directory) = directory else { return Ok(Some(Vec::new())) };
        let mut ends = ends.into_iter();
        let method = self.sync_method(directory)?;
        let (ready, readiness) = crossbeam_channel::unbounded();
        let mut threads = Vec::new();
        for (index, (links, inbox)) in links.into_iter().zip(inboxes).enumerate() {
            let cpu = self.cpus.ids[self.cpus.place_of_partition(index)];
            let store = PartitionStore { cpu, ..self.store(directory, index as u16, method) };
            let (attachments, home, mirror) = match ends.next() {
                Some(ends) => (Some(ends.attachments), ends.home, ends.mirror),
                None => (None, None, None),
            };
            let parts = partition::Parts {
                index: index as u16,
                settings: self.partition_settings(directory, index)?,
                store,
                links: Ways::new(links, home),
                inbox,
                attachments,
                mirror,
                waker: wakers.partitions[index].clone(),
                started: self.started,
                metrics: self.state.registry().partition(index),
                wal_metrics: self.state.registry().wal(index),
                ready: ready.clone(),
                failed: self.failures.clone(),
                stop: Arc::clone(stop),
            };
            threads.push(spawn(
                &format!("iris-p{index}"),
                cpu,
                self.failures.clone(),
                move || partition::run(parts),
            )?);
        }
        for _ in 0..threads.len() {
            crossbeam_channel::select! {
                recv(readiness) -> ready => match ready? {
                    Ok(()) => {}
                    Err(Failed::Because(message)) => {
                        return Err(Failure::new(Exit::DataDir, message).into());
                    }
                    Err(Failed::Reincarnate(above)) => {
                        return Err(rise_above(Some(directory), above).into());
                    }
                },
                recv(self.events) -> event => match event? {
                    Event::Fatal(failure) => return Err(failure.into()),
                    Event::Signal(signal) => {
                        tracing::info!(signal, "stopped while starting");
                        return Ok(None);
                    }
                    Event::Drain(_) => unreachable!("a node that starts refuses to drain"),
                },
            }
        }
        Ok(Some(threads))
    }

    /// For each reactor its listeners, and what it needs for that of TLS.
    fn doors(
        &self,
        listeners: Vec<Listeners>,
        tls: Option<(Arc<ServerConfig>, Vec<Renewals>)>,
    ) -> Vec<(Listeners, Option<reactor::TlsParts>)> {
        let (Some((config, renewals)), Some(of)) = (tls, &self.config.tls) else {
            return listeners.into_iter().map(|listeners| (listeners, None)).collect();
        };
        let parts = |renewals| reactor::TlsParts {
            config: Arc::clone(&config),
            renewals,
            client_user: of.client_user.clone(),
            handshakes_per_turn: of.handshakes_per_turn,
            handshakes_waiting: of.handshakes_waiting,
        };
        listeners.into_iter().zip(renewals.into_iter().map(parts).map(Some)).collect()
    }

    fn start_reactors(
        &self,
        doors: Vec<(Listeners, Option<reactor::TlsParts>)>,
        wakers: &Wakers,
        links: Vec<Vec<Outbox>>,
        inboxes: Vec<Inbox>,
        (cluster, ejects): (Vec<reactor::ClusterParts>, Vec<Receiver<Eject>>),
    ) -> anyhow::Result<Vec<Joiner>> {
        if doors.is_empty() {
            return Ok(Vec::new());
        }
        let listeners_max = doors.iter().map(|(listeners, _)| listeners.len()).max();
        let settings = Arc::new(self.reactor_settings(listeners_max.unwrap_or(0))?);
        let limits = self.config.limits.per_reactor(self.config.reactors());
        let verifier = self.config.verifier()?;
        let mut cluster = cluster.into_iter();
        let mut threads = Vec::new();
        for (index, ((((listeners, tls), links), inbox), ejects)) in
            doors.into_iter().zip(links).zip(inboxes).zip(ejects).enumerate()
        {
            let cluster = cluster.next();
            let metrics = self.state.registry().reactor(index);
            // Until it has found a core for each of them.
            let unroutable = if cluster.is_some() { self.config.core.num_shards } else { 0 };
            metrics.unroutable_shards.set(u64::from(unroutable));
            metrics.limits_revision.set(self.state.registry().config().generation.value());
            let [key, seed] = [random_bytes()?, random_bytes()?].map(u128::from_le_bytes);
            let key = [key as u64, (key >> 64) as u64];
            let parts = reactor::Parts {
                index: index as u16,
                settings: Arc::clone(&settings),
                gate: Gate::new(limits, self.config.limits.sizes(), key, seed as u64),
                listeners,
                tls,
                verifier: verifier.clone(),
                links,
                inbox,
                ejects,
                cluster,
                waker: wakers.reactors[index].clone(),
                node: Arc::clone(self.state),
                started: self.started,
                metrics,
            };
            let cpu = self.cpus.ids[self.cpus.place_of_reactor(index)];
            threads.push(spawn(
                &format!("iris-r{index}"),
                cpu,
                self.failures.clone(),
                move || reactor::run(parts),
            )?);
        }
        Ok(threads)
    }

    /// An edge serves once each shard has a core, a core once its partitions do. What ends the wait early is given back.
    fn wait_for_cores(&self, gateway: Option<&cluster::Running>) -> anyhow::Result<Option<Event>> {
        let has_begun = || gateway.is_none_or(cluster::Running::has_begun);
        while self.state.registry().unroutable_shards() > 0 || !has_begun() {
            match self.events.recv_timeout(CORES_LOOK) {
                Ok(event) => return Ok(Some(event)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn reactor_settings(&self, listeners_max: usize) -> anyhow::Result<reactor::Settings> {
        let Config { reactor, core, node, auth, .. } = self.config;
        // Of several listeners, each has accepts armed for which the others cannot use the slots.
        let reserved = reactor::ACCEPTS * listeners_max.saturating_sub(1);
        let seconds = |duration: Duration| duration.as_secs().clamp(2, 1 << 30) as u32;
        let (grace, jitter) = auth.expiry;
        Ok(reactor::Settings {
            outlast: Outlast { grace_s: grace.as_secs() as u32, jitter_s: jitter.as_secs() as u32 },
            seed: seed()?,
            patience: Patience {
                login_s: seconds(reactor.login_timeout),
                idle_s: seconds(reactor.idle_timeout),
            },
            connections_max: reactor.connections_per_reactor(),
            ring_slots: reactor.ring_slots as u32,
            rings_max: (reactor.connections_per_reactor() + reserved).div_ceil(reactor.ring_slots),
            slow: SlowBounds {
                bytes_max: reactor.out_bytes_max,
                total_max: reactor.out_total_max,
                slow_s: seconds(reactor.slow_timeout),
            },
            link_backlog_max: LINK_BACKLOG_MAX,
            partial_bytes_max: PARTIAL_BYTES_MAX,
            num_shards: core.num_shards,
            dedup_window_ms: core.dedup_window.as_millis() as u64,
            region: node.region.clone(),
            node: node.name.clone(),
        })
    }

    fn partition_settings(
        &self,
        directory: &Directory,
        index: usize,
    ) -> anyhow::Result<partition::Settings> {
        let Config { core, wal, .. } = self.config;
        let identity = directory.identity();
        let origin = origin_of(identity);
        let seed = seed()?;
        let shards =
            (0..core.num_shards).filter(|shard| usize::from(*shard) % core.partitions == index);
        Ok(partition::Settings {
            core: CoreConfig {
                shards: shards.map(ShardId).collect(),
                dedup_window_ms: core.dedup_window.as_millis() as u64,
                id_future_ms_max: core.id_future_max.as_millis() as u64,
                inbox_messages_max: core.inbox_messages_max,
                messages_when_full: core.messages_when_full,
                inbox_bytes_max: core.inbox_bytes_max,
                bytes_when_full: core.bytes_when_full,
                message_age_ms_max: core.message_age_max.map_or(0, |age| age.as_millis() as u64),
                entries_max: core.partition_messages_max(),
                bytes_max: core.partition_bytes_max().unwrap_or(u64::MAX),
                ..CoreConfig::new(origin, core.num_shards, seed)
            },
            log: LogConfig {
                frame_bytes_max: wal.batch_max,
                window_bytes: wal.recent_window,
                ..LogConfig::default()
            },
            disk_reserve: wal.disk_reserve,
            batch_interval: wal.batch_interval,
        })
    }

    fn store(&self, directory: &Directory, index: u16, method: SyncMethod) -> PartitionStore {
        let wal = &self.config.wal;
        PartitionStore {
            place: directory.place(index),
            method,
            cpu: None,
            supply: SupplyConfig {
                segment_bytes: wal.segment_size as usize,
                frame_bytes_max: wal.batch_max,
                // New messages stop at the reserve; what frees space may use half of it.
                free_bytes_min: wal.disk_reserve / 2,
                method,
                ..SupplyConfig::default()
            },
        }
    }

    fn sync_method(&self, directory: &Directory) -> anyhow::Result<SyncMethod> {
        Ok(match self.config.wal.sync {
            SyncMode::Fdatasync => SyncMethod::DirectFdatasync,
            SyncMode::Dsync => SyncMethod::DirectDsync,
            SyncMode::Auto => {
                let path = directory.path();
                let test = self_test(path, &path.join(NODE_NAME)).map_err(|error| {
                    let what = format!("{}: no synced write works: {error}", path.display());
                    Failure::new(Exit::Io, what)
                })?;
                tracing::info!(method = test.method.name(), medians = ?test.medians, "sync method");
                test.method
            }
        })
    }
}

/// A number that nobody knows before.
fn seed() -> std::io::Result<u64> {
    let bytes = random_bytes()?;
    Ok(u64::from_le_bytes(bytes[..8].try_into().expect("eight of sixteen bytes")))
}

/// The CPUs this process may use, at least one, and who is where.
struct Cpus {
    /// `None`: the system does not say, and threads are not pinned.
    ids: Vec<Option<usize>>,
}

impl Cpus {
    fn of_process() -> Self {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        let ids: Vec<_> = ids.iter().map(|core| Some(core.id)).collect();
        Self { ids: if ids.is_empty() { vec![None] } else { ids } }
    }

    fn place_of_reactor(&self, index: usize) -> usize {
        index % self.ids.len()
    }

    /// From the last CPU backwards, so that partitions and the first reactors are apart.
    fn place_of_partition(&self, index: usize) -> usize {
        self.ids.len() - 1 - index % self.ids.len()
    }

    /// For each CPU who keeps it awake, if anybody.
    fn halt_polls(&self, config: &Config) -> std::io::Result<Vec<Option<Arc<HaltPoll>>>> {
        let limit = config.node.halt_poll;
        let quota = cpu_quota(Path::new("/"));
        if let (Some(quota), false) = (&quota, limit.is_zero()) {
            tracing::info!(quota, "halt_poll_us is off: it would use up the CPU quota");
        }
        let on = quota.is_none() && !limit.is_zero();
        let start =
            |id: &Option<usize>| id.filter(|_| on).map(|id| HaltPoll::start(id, limit)).transpose();
        self.ids.iter().map(start).collect()
    }
}

/// Runs a thread of the data path. If it cannot be made or its loop fails, the node stops.
fn spawn<G, F>(
    name: &str,
    cpu: Option<usize>,
    failures: crossbeam_channel::Sender<Failed>,
    body: G,
) -> anyhow::Result<Joiner>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = std::io::Result<()>> + 'static,
{
    let thread = rt::spawn_pinned(name, cpu, body).map_err(|error| explain_ring(&error))?;
    let name = name.to_owned();
    Ok(std::thread::Builder::new().name(format!("{name}-join")).spawn(move || {
        let message = match thread.join() {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{name}: {}", explain_ring(&error)),
            Err(error) => format!("{name}: {error}"),
        };
        let _ = failures.send(Failed::Because(message));
    })?)
}

/// Waits for threads to end, waking them meanwhile, and logs if some do not. `tick` is called while it waits. Whether all
/// have ended.
fn join_within(
    threads: Vec<Joiner>,
    timeout: Duration,
    wakers: &[Waker],
    what: &str,
    tick: &mut dyn FnMut(),
) -> bool {
    let deadline = Instant::now() + timeout;
    while threads.iter().any(|thread| !thread.is_finished()) {
        if Instant::now() >= deadline {
            tracing::warn!(what, "did not end in time; the process ends without them");
            return false;
        }
        wakers.iter().for_each(Waker::wake);
        tick();
        std::thread::park_timeout(Duration::from_millis(5));
    }
    true
}
