//! How many machines so many daily users need, and what they cost: a sheet worked out from what was measured of one
//! machine and from assumptions that are all shown and can all be changed.
//!
//! Nothing here reads a file or a clock. [`Plan`] holds what goes in, [`Plan::sheet`] works it out for each region,
//! [`show`] writes it down. Figures of recorded runs and of new ones are [`Measured`].
//!
//! It is an estimate, and leans to more machines rather than fewer: each delivery counts as a message of its own, figures
//! that fall with load are taken where load is low, and each region is planned for a peak of its own.

pub mod assumed;
pub mod measured;
pub mod show;
#[cfg(test)]
mod tests;

use iris_proto::limits::{DEDUP_IDS_PER_PARTITION_MAX, ENTRIES_PER_PARTITION_MAX};

use crate::config::CORES_MAX;
pub use assumed::{Assumed, Assumption, Region};
pub use measured::{Measure, Measured};

/// Daily users of a plan, at most: more than there are people.
pub const DAU_MAX: u64 = 100_000_000_000;
/// Hours of a month: a twelfth of a year.
const HOURS_A_MONTH: f64 = 730.0;
const DAYS_A_MONTH: f64 = HOURS_A_MONTH / 24.0;
const SECONDS_A_DAY: f64 = 86_400.0;
/// Memory of a waiting message in the inboxes' index, bytes (docs/OPERATING.md, bounds).
const WAITING_BYTES: f64 = 28.0;
/// Memory of a user who is online or has messages, bytes.
const USER_BYTES: f64 = 104.0;
/// Memory of a message id that is remembered, bytes.
const ID_BYTES: f64 = 24.0;
/// A sender takes the room of so many ids besides, in each shard that remembers one of its ids, and has room for so many
/// at least.
const SENDER_IDS: f64 = 8.0;
const SENDER_ROOM_MIN: f64 = 4.0;
/// The log takes so many times what is live in it: sparse segments are rewritten when half of them is dead.
const DISK_FACTOR: f64 = 2.0;
/// Seconds between two heartbeats of a connection: three eighths to a half of `reactor.idle_timeout`, spread evenly.
const HEARTBEAT_S: f64 = 300.0 * (3.0 / 8.0 + 1.0 / 2.0) / 2.0;
/// Bytes that go out to a client for a delivery besides the payload: MESSAGE with a name of 10 bytes (44), a TLS record
/// (22), TCP and IP with timestamps (52), and the TCP acknowledgement of the client's ACK (52).
const DELIVERY_OUT_BYTES: f64 = 44.0 + 22.0 + 52.0 + 52.0;
/// Bytes that go out to a sender for a SEND: ACCEPTED (17), a TLS record, TCP and IP.
const SEND_OUT_BYTES: f64 = 17.0 + 22.0 + 52.0;
/// Bytes that go out for a heartbeat: PING (12), a TLS record, TCP and IP, and the acknowledgement of the PONG.
const HEARTBEAT_OUT_BYTES: f64 = 12.0 + 22.0 + 52.0 + 52.0;
/// Shards for each partition, at least, so that the load of shards evens out.
const SHARDS_PER_PARTITION: u64 = 4;
/// Shards by default (`core.num_shards`).
const SHARDS_MIN: u64 = 64;
/// Shards at most.
const SHARDS_MAX: u64 = 4096;
/// Links that a node takes (`LINKS_MAX` of src/cluster/gateway.rs): each edge has one to each core.
const LINKS_MAX: u64 = 512;
/// Memory of a partition: `wal.recent_window`, bytes.
const PARTITION_BYTES: f64 = 16.0 * 1024.0 * 1024.0;
/// Disk of an empty partition: three segments, bytes.
const PARTITION_DISK_BYTES: f64 = 3.0 * 64.0 * 1024.0 * 1024.0;
/// Of the ids that a partition remembers, the share from which on it remembers them for less long.
const IDS_SHARE: f64 = 7.0 / 8.0;

/// What a sheet is worked out from.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Users a day.
    pub dau: u64,
    /// Where they are; shares that sum up to 1.
    pub regions: Vec<Region>,
    /// Whether clients connect by TLS.
    pub tls: bool,
    /// What is assumed.
    pub assumed: Assumed,
    /// What was measured.
    pub measured: Measured,
}

/// A plan worked out.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// Each region.
    pub regions: Vec<Part>,
    /// All of them together.
    pub total: Part,
    /// What of it this version of Iris does not do; empty: nothing.
    pub beyond: Vec<String>,
}

/// What a region needs, or all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// The region's name.
    pub name: String,
    /// Users a day.
    pub users: u64,
    /// Connections at the peak.
    pub connections: u64,
    /// SENDs a second at the peak.
    pub sends_per_s: f64,
    /// Deliveries a second at the peak.
    pub deliveries_per_s: f64,
    /// Messages that wait for who is away.
    pub waiting: u64,
    /// Edge machines, spare ones included.
    pub edges: u64,
    /// Of these, spare ones.
    pub spare_edges: u64,
    /// What decides the number of edges: `connections`, `memory` or `CPU`.
    pub edges_by: &'static str,
    /// Sets of cores that hold the same inboxes: pairs, with two copies.
    pub groups: u64,
    /// Core machines.
    pub cores: u64,
    /// What decides their number: `rate`, `memory` or `disk`.
    pub cores_by: &'static str,
    /// `core.partitions` of each core.
    pub partitions: u64,
    /// `core.num_shards`.
    pub shards: u64,
    /// CPUs of all machines.
    pub cpus: u64,
    /// Memory used at the peak by all machines, the kernel's part for connections included, bytes.
    pub memory_bytes: f64,
    /// Of an edge that is not spare, bytes.
    pub edge_memory_bytes: f64,
    /// Of a core, bytes.
    pub core_memory_bytes: f64,
    /// Disk of a core, bytes.
    pub core_disk_bytes: f64,
    /// Disk of all cores, bytes.
    pub disk_bytes: f64,
    /// CPUs of an edge that are busy at the peak.
    pub edge_busy_cpus: f64,
    /// Messages a second of a core at the peak.
    pub core_rate_per_s: f64,
    /// Bits a second that an edge sends at the peak.
    pub edge_out_bits_per_s: f64,
    /// Seconds until the clients of a lost edge are back, at the full speed of the others.
    pub return_s: f64,
    /// Dollars a month for machines.
    pub machine_dollars: f64,
    /// Dollars a month for what goes out to clients.
    pub traffic_dollars: f64,
}

impl Part {
    /// Dollars a month.
    pub fn dollars(&self) -> f64 {
        self.machine_dollars + self.traffic_dollars
    }
}

impl Plan {
    /// The plan of the built-in figures and assumptions.
    pub fn recorded(dau: u64) -> Self {
        Self {
            dau,
            regions: assumed::regions_of(dau),
            tls: true,
            assumed: Assumed::default(),
            measured: Measured::recorded(),
        }
    }

    fn assume(&self, what: Assumption) -> f64 {
        self.assumed.value(what)
    }

    fn measure(&self, what: Measure) -> f64 {
        self.measured.value(what)
    }

    /// Memory of a connection, the kernel's with it, bytes.
    pub fn connection_bytes(&self) -> f64 {
        let rss = if self.tls { Measure::RssTls } else { Measure::RssClear };
        self.measure(rss) + self.measure(Measure::Kernel)
    }

    /// Works it out.
    pub fn sheet(&self) -> Sheet {
        let regions: Vec<Part> = self.regions.iter().map(|region| self.region(region)).collect();
        let total = total(&regions);
        let beyond = self.beyond(&regions);
        Sheet { regions, total, beyond }
    }

    fn region(&self, region: &Region) -> Part {
        let users = self.dau as f64 * region.share;
        let sends_per_s = users * self.assume(Assumption::Messages) / SECONDS_A_DAY
            * self.assume(Assumption::Peak);
        let mut part = Part {
            name: region.name.clone(),
            users: users.round() as u64,
            connections: (users * self.assume(Assumption::Concurrency)).round() as u64,
            sends_per_s,
            deliveries_per_s: sends_per_s * self.assume(Assumption::Recipients),
            ..Part::default()
        };
        self.edges(&mut part);
        self.cores(&mut part);
        self.traffic(&mut part);
        let edge_dollars = part.edges as f64 * self.assume(Assumption::EdgePrice);
        let core_dollars = part.cores as f64 * self.assume(Assumption::CorePrice);
        part.machine_dollars = (edge_dollars + core_dollars) * HOURS_A_MONTH;
        let edge_cpus = part.edges as f64 * self.assume(Assumption::EdgeCpus);
        part.cpus = (edge_cpus + part.cores as f64 * self.assume(Assumption::CoreCpus)) as u64;
        let edges = (part.edges - part.spare_edges) as f64 * part.edge_memory_bytes;
        part.memory_bytes = edges + part.cores as f64 * part.core_memory_bytes;
        part.disk_bytes = part.cores as f64 * part.core_disk_bytes;
        part
    }

    fn edges(&self, part: &mut Part) {
        let (connections, base) = (part.connections as f64, self.measure(Measure::Base));
        let room = self.assume(Assumption::EdgeMemory) * self.assume(Assumption::MemoryMax) - base;
        let busy = part.deliveries_per_s * self.measure(Measure::MessageCpu)
            + connections * self.measure(Measure::IdleCpu);
        let cpus = self.assume(Assumption::EdgeCpus);
        let (needed, by) = most([
            ("connections", connections / self.assume(Assumption::ConnectionsMax)),
            ("memory", connections * self.connection_bytes() / room.max(1.0)),
            ("CPU", busy / (cpus * self.assume(Assumption::CpuMax))),
        ]);
        part.spare_edges = (needed as f64 * self.assume(Assumption::Spare)).ceil().max(1.0) as u64;
        part.edges = needed + part.spare_edges;
        part.edges_by = by;
        let each = 1.0 / needed as f64;
        part.edge_memory_bytes = base + connections * each * self.connection_bytes();
        part.edge_busy_cpus = busy * each;
        let of_others = (part.edges - 1) as f64 * cpus;
        let logins = if self.tls { Measure::Handshakes } else { Measure::Logins };
        part.return_s = connections * each / (of_others * self.measure(logins));
    }

    fn cores(&self, part: &mut Part) {
        let away = 1.0 - self.assume(Assumption::Concurrency);
        let users = part.users as f64;
        let a_day = users * self.assume(Assumption::Messages) * self.assume(Assumption::Recipients);
        let waiting = a_day * away * self.assume(Assumption::Retention) / SECONDS_A_DAY;
        let ids = part.deliveries_per_s * self.assume(Assumption::Window);
        let record = self.assume(Assumption::Payload) + self.measure(Measure::RecordBytes);
        // What proves an id stays on disk for the window (I5), what waits until it is read.
        let disk = (waiting + ids) * record * DISK_FACTOR;
        let base = self.measure(Measure::Base);
        let room = self.assume(Assumption::CoreMemory) * self.assume(Assumption::MemoryMax) - base;
        let rate = self.measure(Measure::CoreRate) * self.assume(Assumption::CoreCpus);
        let of_partition = DEDUP_IDS_PER_PARTITION_MAX as f64 * IDS_SHARE;
        let (mut groups, mut by) = (1, "rate");
        let mut partitions = (self.assume(Assumption::CoreCpus) / 4.0).ceil().max(1.0) as u64;
        // A sender takes room in each shard that has ids of it, so the room grows with the number of shards, and that with
        // the room: up to where each id has a sender of its own.
        let (memory, shards) = loop {
            let shards = (groups * partitions * SHARDS_PER_PARTITION)
                .next_power_of_two()
                .clamp(SHARDS_MIN, SHARDS_MAX);
            let kept = room_for_ids(users, ids, shards as f64);
            let memory = waiting * WAITING_BYTES + kept * ID_BYTES + users * USER_BYTES;
            let room = room - partitions as f64 * PARTITION_BYTES;
            let needed = most([
                ("rate", part.deliveries_per_s / (rate * self.assume(Assumption::CpuMax))),
                ("memory", memory / room.max(1.0)),
                (
                    "disk",
                    disk / (self.assume(Assumption::CoreDisk) * self.assume(Assumption::DiskMax)),
                ),
            ]);
            by = if needed.0 >= groups { needed.1 } else { by };
            let grown = groups.max(needed.0);
            let each = 1.0 / grown as f64;
            let bounds = [kept / of_partition, waiting / f64::from(ENTRIES_PER_PARTITION_MAX)];
            let bound = bounds.into_iter().fold(0.0, f64::max) * each;
            let finer = partitions.max(bound.ceil() as u64);
            if (grown, finer) == (groups, partitions) {
                break (memory, shards);
            }
            (groups, partitions) = (grown, finer);
        };
        let each = 1.0 / groups as f64;
        part.waiting = waiting.round() as u64;
        part.groups = groups;
        part.cores = groups * self.assume(Assumption::Copies) as u64;
        part.cores_by = by;
        part.partitions = partitions;
        part.shards = shards;
        part.core_memory_bytes = base + memory * each + partitions as f64 * PARTITION_BYTES;
        part.core_disk_bytes = disk * each + partitions as f64 * PARTITION_DISK_BYTES;
        part.core_rate_per_s = part.deliveries_per_s * each;
    }

    fn traffic(&self, part: &mut Part) {
        let delivery = self.assume(Assumption::Payload) + DELIVERY_OUT_BYTES;
        // Heartbeats as if the peak's connections stayed all day.
        let heartbeats = part.connections as f64 / HEARTBEAT_S * HEARTBEAT_OUT_BYTES;
        let messages = part.deliveries_per_s * delivery + part.sends_per_s * SEND_OUT_BYTES;
        let edges = (part.edges - part.spare_edges) as f64;
        part.edge_out_bits_per_s = (messages + heartbeats) * 8.0 / edges;
        let mean = messages / self.assume(Assumption::Peak) + heartbeats;
        let gigabytes = mean * SECONDS_A_DAY * DAYS_A_MONTH / 1e9;
        part.traffic_dollars = gigabytes * self.assume(Assumption::EgressPrice);
    }

    /// What this version does not do of it.
    fn beyond(&self, regions: &[Part]) -> Vec<String> {
        let mut beyond = Vec::new();
        if regions.len() > 1 {
            let text = "regions: each is a cluster of its own, and nothing carries messages between clusters";
            beyond.push(text.to_owned());
        }
        let most = |of: fn(&Part) -> u64| regions.iter().map(of).max().unwrap_or(0);
        let groups = most(|part| part.groups);
        if groups > 1 {
            beyond.push(format!(
                "cores: a cluster has {CORES_MAX} (cluster.cores), the largest region needs {}",
                most(|part| part.cores),
            ));
        }
        if self.assume(Assumption::Copies) as usize > CORES_MAX {
            beyond.push(format!("copies: {CORES_MAX} at most"));
        }
        let edges = most(|part| part.edges);
        if edges > LINKS_MAX {
            beyond.push(format!(
                "edges: a core links to {LINKS_MAX}, the largest region has {edges}; use larger ones"
            ));
        }
        let lack =
            |part: &&Part| part.groups * part.partitions * SHARDS_PER_PARTITION > part.shards;
        if let Some(part) = regions.iter().find(lack) {
            beyond.push(format!(
                "shards: {} at most, and {} has {} partitions; use larger cores",
                SHARDS_MAX,
                part.name,
                part.groups * part.partitions,
            ));
        }
        beyond
    }
}

/// Room, in ids, for what shards remember of `users` who wrote `ids` messages by chance to users of so many shards
/// (`proto/src/core/dedup.rs`): in each that a sender wrote to it has room for 4, 8, 16 and so on of its ids.
fn room_for_ids(users: f64, ids: f64, shards: f64) -> f64 {
    let of_each = ids / users.max(1.0);
    let senders = shards * users * (1.0 - (-of_each / shards).exp());
    // Room doubles, so it is half as much again on average.
    let room = (1.5 * ids / senders.max(1.0)).max(SENDER_ROOM_MIN);
    senders * (SENDER_IDS + room)
}

/// The largest need, in whole machines, and whose it is.
fn most<const N: usize>(needs: [(&'static str, f64); N]) -> (u64, &'static str) {
    let mut most = needs[0];
    for need in needs {
        if need.1 > most.1 {
            most = need;
        }
    }
    (most.1.ceil().max(1.0) as u64, most.0)
}

/// All regions: sums, and of what is each machine's the largest.
fn total(regions: &[Part]) -> Part {
    let sum = |of: fn(&Part) -> u64| regions.iter().map(of).sum::<u64>();
    let add = |of: fn(&Part) -> f64| regions.iter().map(of).sum::<f64>();
    let most = |of: fn(&Part) -> f64| regions.iter().map(of).fold(0.0, f64::max);
    let largest = regions.iter().max_by_key(|part| part.users).cloned().unwrap_or_default();
    Part {
        name: "all".to_owned(),
        users: sum(|part| part.users),
        connections: sum(|part| part.connections),
        sends_per_s: add(|part| part.sends_per_s),
        deliveries_per_s: add(|part| part.deliveries_per_s),
        waiting: sum(|part| part.waiting),
        edges: sum(|part| part.edges),
        spare_edges: sum(|part| part.spare_edges),
        edges_by: largest.edges_by,
        groups: sum(|part| part.groups),
        cores: sum(|part| part.cores),
        cores_by: largest.cores_by,
        partitions: largest.partitions,
        shards: sum(|part| part.shards),
        cpus: sum(|part| part.cpus),
        memory_bytes: add(|part| part.memory_bytes),
        edge_memory_bytes: most(|part| part.edge_memory_bytes),
        core_memory_bytes: most(|part| part.core_memory_bytes),
        core_disk_bytes: most(|part| part.core_disk_bytes),
        disk_bytes: add(|part| part.disk_bytes),
        edge_busy_cpus: most(|part| part.edge_busy_cpus),
        core_rate_per_s: most(|part| part.core_rate_per_s),
        edge_out_bits_per_s: most(|part| part.edge_out_bits_per_s),
        return_s: most(|part| part.return_s),
        machine_dollars: add(|part| part.machine_dollars),
        traffic_dollars: add(|part| part.traffic_dollars),
    }
}
