//! What the node counts, and how it is shown.
//!
//! Each thread on the data path owns one block of cells and is its only writer; the admin thread reads all of them when
//! it is asked. Nothing is locked, pushed or aggregated on the data path.
//!
//! Names follow the Prometheus conventions: prefix `iris_`, base units, `_total` for counters, limits beside usage, and
//! no label whose values come from outside.

mod blocks;
mod bounds;
pub(crate) mod cell;
pub mod cost;
mod kernel;
mod labels;
mod mirror;
mod process;
mod render;
mod resources;
pub mod text;

pub use blocks::{
    BatchHistogram, CoreLink, CoreLinks, EdgeLinks, GatewayMetrics, LatencyHistogram,
    PartitionMetrics, ReactorMetrics, TlsMetrics, WalMetrics,
};
pub use bounds::Bounds;
pub use cell::{Counter, CounterBy, Gauge, Histogram, Label, Real, Snapshot};
pub use kernel::{KernelMemory, Scope};
pub use labels::{
    CloseReason, DropReason, FrameType, LimitHit, LinkEnd, LinkRefusal, MirrorMode, MirrorState,
    RejectReason, ReloadResult, SegmentState, TlsFailure, TlsHandshake,
};
pub use mirror::{FailoverHistogram, MirrorMetrics};
pub use process::{Process, resident_bytes_now};
pub use resources::{MemoryPerConnection, Resource};

use std::sync::Arc;

/// The blocks of all threads. Clones share them.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Blocks>);

#[derive(Debug)]
struct Blocks {
    reactors: Box<[Arc<ReactorMetrics>]>,
    partitions: Box<[Arc<PartitionMetrics>]>,
    wals: Box<[Arc<WalMetrics>]>,
    mirrors: Box<[Arc<MirrorMetrics>]>,
    gateway: Arc<GatewayMetrics>,
    tls: TlsMetrics,
    connections_max: u64,
    bounds: Bounds,
    cost: cost::CostMetrics,
    ready: Gauge,
    baseline_bytes: Gauge,
    baseline_kernel_bytes: Gauge,
}

impl Registry {
    /// Blocks for so many reactors, and for so many partitions with a log each.
    pub fn new(reactors: usize, partitions: usize, connections_max: usize) -> Self {
        Self(Arc::new(Blocks {
            reactors: (0..reactors).map(|_| Arc::default()).collect(),
            partitions: (0..partitions).map(|_| Arc::default()).collect(),
            wals: (0..partitions).map(|_| Arc::default()).collect(),
            mirrors: (0..partitions).map(|_| Arc::default()).collect(),
            gateway: Arc::default(),
            tls: TlsMetrics::default(),
            connections_max: connections_max as u64,
            bounds: Bounds::default(),
            cost: cost::CostMetrics::default(),
            ready: Gauge::default(),
            baseline_bytes: Gauge::default(),
            baseline_kernel_bytes: Gauge::default(),
        }))
    }

    /// Number of reactors.
    pub fn reactors(&self) -> usize {
        self.0.reactors.len()
    }

    /// Number of partitions.
    pub fn partitions(&self) -> usize {
        self.0.partitions.len()
    }

    /// The block of that reactor, for its thread.
    pub fn reactor(&self, index: usize) -> Arc<ReactorMetrics> {
        Arc::clone(&self.0.reactors[index])
    }

    /// The block of that partition, for its thread.
    pub fn partition(&self, index: usize) -> Arc<PartitionMetrics> {
        Arc::clone(&self.0.partitions[index])
    }

    /// The block of that partition's log.
    pub fn wal(&self, index: usize) -> Arc<WalMetrics> {
        Arc::clone(&self.0.wals[index])
    }

    /// The block of that partition's mirror, for the partition's thread.
    pub fn mirror(&self, index: usize) -> Arc<MirrorMetrics> {
        Arc::clone(&self.0.mirrors[index])
    }

    /// The blocks of all partitions' mirrors.
    pub fn mirrors(&self) -> &[Arc<MirrorMetrics>] {
        &self.0.mirrors
    }

    /// Shards that no core serves, as the reactor sees it that sees most.
    pub fn unroutable_shards(&self) -> u64 {
        let of_each = self.0.reactors.iter().map(|reactor| reactor.unroutable_shards.value());
        of_each.max().unwrap_or(0)
    }

    /// Shards whose traffic goes to a core of that place in `cluster.cores`, as the first reactor has it.
    pub fn shards_at(&self, core: usize) -> u64 {
        self.0.reactors.first().map_or(0, |reactor| reactor.shards_at[core].value())
    }

    /// The oldest revision of the limits that a reactor has; `None`: there is no reactor.
    pub fn limits_revision(&self) -> Option<u64> {
        self.0.reactors.iter().map(|reactor| reactor.limits_revision.value()).min()
    }

    /// Connections that have logged in, on all reactors.
    pub fn logged_in(&self) -> u64 {
        self.0.reactors.iter().map(|reactor| reactor.logged_in.value()).sum()
    }

    /// SENDs of all reactors that no core has answered yet.
    pub fn unanswered(&self) -> u64 {
        self.0.reactors.iter().map(|reactor| reactor.unanswered.value()).sum()
    }

    /// Shards that lost their core and went to another one at once, as the reactor counts them that counts most.
    pub fn shard_failovers(&self) -> u64 {
        let of_each = self.0.reactors.iter().map(|reactor| reactor.failovers.value());
        of_each.max().unwrap_or(0)
    }

    /// Connections that ended for that reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.0.reactors.iter().map(|m| m.closed.at(reason).value()).sum()
    }

    /// Connections, logins and SENDs refused by that limit.
    pub fn limited(&self, limit: LimitHit) -> u64 {
        self.0.reactors.iter().map(|m| m.limited.at(limit).value()).sum()
    }

    /// SENDs refused for that reason, before they reached a partition or there.
    pub fn rejected(&self, reason: RejectReason) -> u64 {
        let early: u64 = self.0.reactors.iter().map(|m| m.rejected.at(reason).value()).sum();
        let late: u64 = self.0.partitions.iter().map(|m| m.rejected.at(reason).value()).sum();
        early + late
    }

    /// Messages that wait in the inboxes of all partitions.
    pub fn waiting(&self) -> u64 {
        self.0.partitions.iter().map(|partition| partition.inbox_messages.value()).sum()
    }

    /// Users online in all partitions.
    pub fn users_online(&self) -> u64 {
        self.0.partitions.iter().map(|partition| partition.users_online.value()).sum()
    }

    /// Free bytes on the disk of the logs, at the last look.
    pub fn disk_free_bytes(&self) -> u64 {
        self.0.wals.iter().map(|wal| wal.disk_free_bytes.value()).min().unwrap_or(0)
    }

    /// What the node counts of TLS.
    pub fn tls(&self) -> &TlsMetrics {
        &self.0.tls
    }

    /// The block of the gateway.
    pub fn gateway(&self) -> Arc<GatewayMetrics> {
        Arc::clone(&self.0.gateway)
    }

    /// What usage is compared with.
    pub fn bounds(&self) -> &Bounds {
        &self.0.bounds
    }

    /// The cost score, which the control thread keeps.
    pub fn cost(&self) -> &cost::CostMetrics {
        &self.0.cost
    }

    /// Whether clients are served, as `/readyz` says. The control thread says it.
    pub fn set_ready(&self, is_ready: bool) {
        self.0.ready.set(is_ready.into());
    }

    /// Takes today's memory as that of the empty server, from which bytes per connection are counted. Call it once, when
    /// the node is ready and before it accepts.
    pub fn mark_baseline(&self) {
        self.0.baseline_bytes.set(resident_bytes_now());
        self.0.baseline_kernel_bytes.set(KernelMemory::now().kernel_bytes);
    }

    /// Connections open now, on all reactors.
    pub fn connections(&self) -> u64 {
        self.0.reactors.iter().map(|reactor| reactor.connections.value()).sum()
    }

    /// Connections the node may hold.
    pub fn connections_max(&self) -> u64 {
        self.0.connections_max
    }

    /// Whether any partition refuses sends for lack of disk.
    pub fn low_disk(&self) -> bool {
        self.0.wals.iter().any(|wal| wal.low_disk.value() != 0)
    }

    /// Whether a log has unreadable ranges that no mirror has made up for.
    pub fn is_damaged(&self) -> bool {
        let of_each = self.0.wals.iter().zip(&self.0.mirrors);
        let is_mended = |mirror: &MirrorMetrics| mirror.is_present() && mirror.damaged.value() == 0;
        of_each.into_iter().any(|(wal, mirror)| wal.unreadable.value() > 0 && !is_mended(mirror))
    }

    /// Unreadable ranges of all logs.
    pub fn unreadable(&self) -> u64 {
        self.0.wals.iter().map(|wal| wal.unreadable.value()).sum()
    }
}
