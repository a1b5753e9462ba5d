//! What the configuration says that usage is compared with: limits, the cluster's cores, what the node costs.
//!
//! Set at the start, and whenever a limit changes, by whoever reads the configuration; read by whoever shows it.

use iris_proto::limits::DEDUP_IDS_PER_PARTITION_MAX;

use super::cell::{Gauge, Real};
use crate::config::{CORES_MAX, Config};

/// Limits of the node, of a reactor, or of a partition. 0: there is none.
#[derive(Debug, Default)]
pub struct Bounds {
    /// Messages in all inboxes of a partition: its share of `core.messages_max`.
    pub inbox_messages: Gauge,
    /// Bytes in all inboxes of a partition: its share of `core.bytes_max`.
    pub inbox_bytes: Gauge,
    /// Messages in one inbox (`core.inbox_messages_max`).
    pub one_inbox_messages: Gauge,
    /// Bytes in one inbox (`core.inbox_bytes_max`).
    pub one_inbox_bytes: Gauge,
    /// Room for the message ids of a partition, before the window shrinks.
    pub dedup_room: Gauge,
    /// Bytes that wait for the clients of one reactor (`reactor.out_total_max`).
    pub client_backlog_bytes: Gauge,
    /// Handshakes that wait for all reactors (`tls.handshakes_waiting`).
    pub handshakes_waiting: Gauge,
    /// Free bytes of the disk below which SENDs are refused (`wal.disk_reserve`).
    pub disk_reserve_bytes: Gauge,
    /// Dollars an hour that the node costs (`node.price_per_hour`).
    pub price_per_hour: Real,
    cores: [Gauge; CORES_MAX],
    node: Gauge,
}

impl Bounds {
    /// Takes what a configuration says.
    pub fn set(&self, config: &Config) {
        let core = &config.core;
        let of_core = |value: u64| if config.roles.core { value } else { 0 };
        let of_edge = |value: u64| if config.roles.edge { value } else { 0 };
        self.inbox_messages.set(of_core(core.partition_messages_max().into()));
        self.inbox_bytes.set(of_core(core.partition_bytes_max().unwrap_or(0)));
        self.one_inbox_messages.set(of_core(core.inbox_messages_max.into()));
        self.one_inbox_bytes.set(of_core(core.inbox_bytes_max));
        // From seven eighths on the window shrinks.
        self.dedup_room.set(of_core(DEDUP_IDS_PER_PARTITION_MAX / 8 * 7));
        self.client_backlog_bytes.set(of_edge(config.reactor.out_total_max as u64));
        let waiting = config.tls.as_ref().map_or(0, |tls| tls.handshakes_waiting as u64);
        self.handshakes_waiting.set(waiting * config.reactors() as u64);
        self.disk_reserve_bytes.set(of_core(config.wal.disk_reserve));
        self.price_per_hour.set(config.node.price_per_hour.unwrap_or(0.0));
        let cores = config.cluster.as_ref().map(|cluster| cluster.cores.as_slice());
        let cores: Vec<u32> = cores.unwrap_or_default().iter().map(|core| core.node).collect();
        self.set_cores(config.node.node_id, &cores);
    }

    /// This node, and the cores of the cluster in the order of `cluster.cores`.
    pub fn set_cores(&self, node: u32, nodes: &[u32]) {
        self.node.set(node.into());
        for (place, node) in self.cores.iter().zip(nodes) {
            place.set((*node).into());
        }
    }

    /// Number and place of each core of the cluster.
    pub fn cores(&self) -> impl Iterator<Item = (usize, u64)> {
        let cores = self.cores.iter().map(Gauge::value).enumerate();
        cores.filter(|(_, node)| *node != 0)
    }

    /// Whether that core is this node, which then has no link to it.
    pub fn is_own(&self, node: u64) -> bool {
        node == self.node.value()
    }
}
