//! What N connections take of a machine: threads and their CPUs, tables, open files, memory.
//!
//! The rules of the server are repeated here as numbers, each with its place; tests compare with what the server makes of
//! the written configuration.

use serde::Serialize;

use crate::facts::{Facts, UNLIMITED};

/// Kernel memory of an idle connection: socket, inode, armed poll. Measured, `bench/README.md`.
pub const KERNEL_BYTES: u64 = 4_264;
/// The server's own memory of one. Measured, `bench/README.md`.
pub const SERVER_BYTES: u64 = 415;
/// The same by TLS. Measured as 4,077.
pub const SERVER_TLS_BYTES: u64 = 4_100;
/// Both parts of one at the load generator (`loadgen/src/capacity.rs`).
pub const LOADGEN_BYTES: u64 = 4_700;
/// A user who is online, in a core (`docs/OPERATING.md`).
pub const USER_BYTES: u64 = 104;
/// Largest descriptor table of a ring (`IORING_MAX_FIXED_FILES`, io_uring/rsrc.c), and of a ring of the load generator.
pub const SLOTS_MAX: u64 = 1 << 20;
const LOADGEN_SLOTS_MAX: u64 = 65_536;
/// Receive buffers of one ring, bytes (`src/reactor/lanes.rs`), and the kernel's table: a pointer a slot.
const RING_BYTES: u64 = 1 << 20;
const SLOT_BYTES: u64 = 8;
/// Defaults of `wal.recent_window` and `wal.batch_max`; of batches there are some.
const LOG_BYTES: u64 = (16 << 20) + 4 * (1 << 20);
/// Bounds of `reactor.out_total_max` as it is written: its default is the most.
const OUT_TOTAL_MIN: u64 = 16 << 20;
const OUT_TOTAL_MAX: u64 = 256 << 20;
/// `core.num_shards`, its default: partitions are not more.
const PARTITIONS_MAX: usize = 64;
/// Open files that the server needs besides its tables (`src/preflight/mod.rs`).
const FILES_OTHER: u64 = 128;
const FILES_PER_REACTOR: u64 = 24;
const FILES_PER_RING: u64 = 2;
const FILES_PER_PARTITION: u64 = 64;
/// From this many connections on, everybody who reconnects at once is a storm.
const STORM: u64 = 10_000;

/// What the machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// A node that is edge and core in one process (iris.service)
    Node,
    /// An edge: holds connections (iris-edge@.service)
    Edge,
    /// A core: holds inboxes; N is users online (iris-core.service)
    Core,
    /// iris-loadgen; N is connections that it makes
    Loadgen,
    /// As node, for shorter wakes at the price of power (iris.service)
    Latency,
}

impl Profile {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Edge => "edge",
            Self::Core => "core",
            Self::Loadgen => "loadgen",
            Self::Latency => "latency",
        }
    }

    /// The unit that it is for; the load generator has none.
    pub fn unit(self) -> Option<&'static str> {
        match self {
            Self::Node | Self::Latency => Some("iris.service"),
            Self::Edge => Some("iris-edge@.service"),
            Self::Core => Some("iris-core.service"),
            Self::Loadgen => None,
        }
    }

    fn has_reactors(self) -> bool {
        matches!(self, Self::Node | Self::Edge | Self::Latency)
    }

    fn has_partitions(self) -> bool {
        matches!(self, Self::Node | Self::Core | Self::Latency)
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Request {
    /// Connections; users of a core.
    pub connections: u64,
    /// What the machine is for.
    pub profile: Profile,
    /// Whether clients come by TLS.
    pub tls: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sizing {
    /// Threads that hold connections, and the CPU of each.
    pub reactor_cpus: Vec<u32>,
    /// Threads that own inboxes, and the CPU of each.
    pub partition_cpus: Vec<u32>,
    /// Connections that one reactor must hold.
    pub connections_per_reactor: u64,
    /// Slots of a ring's descriptor table, as far as the limit of open files allows.
    pub ring_slots: u64,
    /// Rings of a reactor.
    pub rings_per_reactor: u64,
    /// Open files without which the server does not start.
    pub files: u64,
    /// Open files with which each reactor needs one ring.
    pub nofile: u64,
    /// Connections that may wait for accept.
    pub backlog: u64,
    /// Bytes queued for all connections of a reactor.
    pub out_total: u64,
    /// Memory.
    pub memory: Memory,
}

/// A budget of memory, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What there is.
    pub available: u64,
    /// Kernel's part of the connections.
    pub kernel: u64,
    /// The process's part of them.
    pub server: u64,
    /// Tables and receive buffers of rings.
    pub rings: u64,
    /// What may wait for slow readers in the process.
    pub queues: u64,
    /// The log's newest bytes and batches.
    pub log: u64,
    /// Kept for the system and everything else.
    pub system: u64,
    /// Connections of which all this fits into what there is.
    pub connections_max: u64,
}

impl Memory {
    /// All parts together.
    pub fn total(&self) -> u64 {
        [self.kernel, self.server, self.rings, self.queues, self.log, self.system]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// What `request` takes of that machine.
pub fn size(facts: &Facts, request: Request) -> Sizing {
    let cpus = if facts.cpus.is_empty() { vec![0] } else { facts.cpus.clone() };
    let usable = facts.quota.map_or(cpus.len(), |quota| quota.cpus().min(cpus.len()));
    let profile = request.profile;
    // As `Cpus` in src/boot.rs: reactors from the first CPU on, partitions from the last one backwards.
    let reactors = if profile.has_reactors() { usable.min(4096) } else { 0 };
    let partitions = match facts.log_partitions as usize {
        _ if !profile.has_partitions() => 0,
        // Fixed when the data directory was founded.
        fixed @ 1.. => fixed,
        0 => (usable / 4).clamp(1, PARTITIONS_MAX),
    };
    let reactor_cpus: Vec<u32> = (0..reactors).map(|index| cpus[index % cpus.len()]).collect();
    let partition_cpus: Vec<u32> =
        (0..partitions).map(|index| cpus[cpus.len() - 1 - index % cpus.len()]).collect();

    let rings = Rings::of(facts, request, reactors as u64);
    let files = FILES_OTHER
        + reactors as u64 * (FILES_PER_REACTOR + FILES_PER_RING * rings.per_reactor)
        + partitions as u64 * FILES_PER_PARTITION;
    Sizing {
        connections_per_reactor: rings.share,
        ring_slots: rings.slots,
        rings_per_reactor: rings.per_reactor,
        files,
        nofile: rings.slots_wanted.max(files),
        backlog: if request.connections >= STORM { 65_535 } else { 4096 },
        out_total: out_total(facts, reactors as u64),
        memory: memory(facts, request, reactors as u64, partitions as u64),
        reactor_cpus,
        partition_cpus,
    }
}

/// The rings of each reactor.
struct Rings {
    /// Connections that a reactor must hold.
    share: u64,
    /// Slots with which one ring holds them, if a ring can have as many.
    slots_wanted: u64,
    /// Slots that a ring has.
    slots: u64,
    /// Rings.
    per_reactor: u64,
}

impl Rings {
    fn of(facts: &Facts, request: Request, reactors: u64) -> Self {
        let share = share(request.connections, reactors);
        let loadgen = request.profile == Profile::Loadgen;
        let most = if loadgen { LOADGEN_SLOTS_MAX } else { SLOTS_MAX };
        // Some slots of a table are armed for connections that have not come yet.
        let slots_wanted = match request.profile {
            Profile::Core => 1024,
            _ => (share + 1024).next_power_of_two().clamp(4096, most),
        };
        let slots = slots_wanted.min(nofile_reachable(facts)).max(1);
        let (share, per_reactor) =
            if reactors == 0 { (0, 0) } else { (share, share.div_ceil(slots)) };
        Self { share, slots_wanted, slots, per_reactor }
    }
}

/// Connections of one reactor at most: SO_REUSEPORT spreads by hash and not evenly (`share` in src/config/limits.rs).
fn share(connections: u64, reactors: u64) -> u64 {
    let share = connections.div_ceil(reactors.max(1));
    if reactors <= 1 { share } else { share + share.div_ceil(4) }
}

/// The largest limit of open files that can be had: a unit gets what it asks for up to fs.nr_open, which can be raised;
/// another process has what it was given.
fn nofile_reachable(facts: &Facts) -> u64 {
    if facts.has_units() { UNLIMITED } else { facts.nofile }
}

/// An eighth of the memory for clients that do not read, in a power of two for each reactor.
fn out_total(facts: &Facts, reactors: u64) -> u64 {
    let each = facts.memory_available() / 8 / reactors.max(1);
    let power = (each / 2 + 1).next_power_of_two();
    power.clamp(OUT_TOTAL_MIN, OUT_TOTAL_MAX)
}

fn memory(facts: &Facts, request: Request, reactors: u64, partitions: u64) -> Memory {
    let (kernel_each, server_each) = match request.profile {
        Profile::Core => (0, USER_BYTES),
        Profile::Loadgen => (LOADGEN_BYTES - SERVER_BYTES, SERVER_BYTES),
        _ if request.tls => (KERNEL_BYTES, SERVER_TLS_BYTES),
        _ => (KERNEL_BYTES, SERVER_BYTES),
    };
    let available = facts.memory_available();
    let at = |connections: u64| {
        let rings = Rings::of(facts, Request { connections, ..request }, reactors);
        Memory {
            available,
            kernel: connections.saturating_mul(kernel_each),
            server: connections.saturating_mul(server_each),
            rings: reactors * rings.per_reactor * (RING_BYTES + rings.slots * SLOT_BYTES),
            queues: reactors * out_total(facts, reactors),
            log: partitions * LOG_BYTES,
            system: (128 << 20) + available / 50,
            connections_max: 0,
        }
    };
    // More connections never take less, so the most that fits is where the halves meet.
    let (mut fit, mut too_many) = (0, available / (kernel_each + server_each) + 1);
    while too_many - fit > 1 {
        let middle = fit + (too_many - fit) / 2;
        let is_fit = at(middle).total() <= available;
        if is_fit { fit = middle } else { too_many = middle }
    }
    Memory { connections_max: fit, ..at(request.connections) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Quota;

    fn machine(cpus: u32, gib: u64) -> Facts {
        Facts { cpus: (0..cpus).collect(), memory: gib << 30, nofile: 1 << 20, ..Facts::default() }
    }

    fn of(connections: u64, profile: Profile) -> Request {
        Request { connections, profile, tls: false }
    }

    #[test]
    fn threads_are_placed_as_the_server_places_them() {
        let sizing = size(&machine(8, 64), of(1_000_000, Profile::Node));
        assert_eq!(sizing.reactor_cpus, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(sizing.partition_cpus, [7, 6]);
        assert_eq!(size(&machine(8, 64), of(1, Profile::Edge)).partition_cpus, [0; 0]);
        assert_eq!(size(&machine(8, 64), of(1, Profile::Core)).reactor_cpus, [0; 0]);
        let none = size(&Facts::default(), of(1, Profile::Node));
        assert_eq!((none.reactor_cpus.len(), none.partition_cpus.len()), (1, 1));
    }

    #[test]
    fn a_quota_bounds_threads_and_a_log_fixes_partitions() {
        let quota = Some(Quota { max_us: 250_000, period_us: 100_000 });
        let facts = Facts { quota, log_partitions: 4, ..machine(8, 8) };
        let sizing = size(&facts, of(1000, Profile::Node));
        assert_eq!(sizing.reactor_cpus, [0, 1]);
        assert_eq!(sizing.partition_cpus, [7, 6, 5, 4]);
    }

    #[test]
    fn a_reactor_has_one_ring_where_the_limit_of_files_can_be_raised() {
        let sizing = size(&machine(64, 256), of(10_000_000, Profile::Edge));
        assert_eq!((sizing.ring_slots, sizing.rings_per_reactor), (262_144, 1));
        assert_eq!(sizing.nofile, 262_144);
        let container = Some("docker".to_owned());
        let small = Facts { container, nofile: 20_000, ..machine(2, 24) };
        let sizing = size(&small, of(1_000_000, Profile::Node));
        assert_eq!((sizing.ring_slots, sizing.rings_per_reactor), (20_000, 32));
    }

    #[test]
    fn memory_that_holds_so_many_connections_holds_no_more() {
        for profile in [Profile::Node, Profile::Edge, Profile::Core, Profile::Loadgen] {
            for tls in [false, true] {
                let facts = machine(2, 4);
                let most =
                    size(&facts, Request { tls, ..of(1000, profile) }).memory.connections_max;
                let at = |connections| size(&facts, Request { connections, profile, tls }).memory;
                assert!(at(most).total() <= at(most).available, "{profile:?}");
                assert!(at(most + 1).total() > at(most).available, "{profile:?}");
                assert_eq!(at(most * 9).connections_max, most, "whatever is asked for");
            }
        }
    }
}
