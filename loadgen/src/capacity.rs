//! Before anything starts: whether ports, descriptors and memory allow the connections, in one line.

use crate::report::grouped;
use crate::server_probe::memory_available_bytes;
use anyhow::{Context, ensure};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Share of a source's ports that is used before another source is taken. `connect` tries every second port first
/// (`__inet_hash_connect`, net/ipv4/inet_hashtables.c): beyond one half each call walks all of these in vain, measured
/// as 9,000 connections a second before and 300 after.
const PORTS_USED_SHARE: f64 = 0.35;
/// Memory of both ends of an idle connection, kernel and user, bytes: measured as about 9,100.
const BYTES_BOTH_ENDS: u64 = 9_500;
/// Memory of our end, bytes.
const BYTES_OWN_END: u64 = 4_700;
/// Descriptors that the process needs besides its connections': files, rings, sockets on their way into a table.
const DESCRIPTORS_SPARE: u64 = 64;
/// Largest descriptor table of one ring.
const PER_RING_MAX: u64 = 65_536;

/// What the machine allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Addresses to connect from.
    pub sources: Vec<IpAddr>,
    /// Connections of one ring.
    pub per_ring: u32,
    /// The line for people.
    pub line: String,
}

/// What the machine has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Ephemeral ports of one source address to one destination.
    pub ports: u32,
    /// Hard limit of open descriptors, which is also the largest table of a ring.
    pub descriptors: u64,
    /// Memory available, bytes.
    pub memory_bytes: u64,
}

impl Machine {
    /// Reads it, and raises the soft limit of descriptors.
    pub fn read() -> anyhow::Result<Self> {
        let path = "/proc/sys/net/ipv4/ip_local_port_range";
        let range = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        Ok(Self {
            ports: port_count(&range).with_context(|| format!("{path} holds {range:?}"))?,
            descriptors: iris_ring::raise_descriptor_limit()
                .context("cannot read RLIMIT_NOFILE")?,
            memory_bytes: memory_available_bytes().context("cannot read /proc/meminfo")?,
        })
    }
}

fn port_count(range: &str) -> Option<u32> {
    let mut bounds = range.split_whitespace().map(str::parse::<u32>);
    let (low, high) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
    (low <= high).then(|| high - low + 1)
}

/// Plans `connections` to `target` from `sources` addresses (or as many as needed); fails where the machine says no.
/// Runs with other ids have other loopback addresses, and so have the parts of one run, of as many connections each.
pub fn plan(
    machine: Machine,
    target: SocketAddr,
    connections: u32,
    sources: Option<u32>,
    (run, part): (u32, u32),
) -> anyhow::Result<Capacity> {
    let many = target.is_ipv4() && target.ip().is_loopback();
    let comfortable = ((f64::from(machine.ports) * PORTS_USED_SHARE) as u32).max(1);
    let wanted = sources.unwrap_or(if many { connections.div_ceil(comfortable) } else { 1 });
    let capacity = u64::from(machine.ports) * u64::from(wanted);
    let ports = format!(
        "{} ports x {wanted} source address{}",
        grouped(machine.ports.into()),
        if wanted == 1 { "" } else { "es" }
    );
    let advice = if many {
        "raise --sources"
    } else {
        "widen net.ipv4.ip_local_port_range, or run on several machines"
    };
    ensure!(
        u64::from(connections) <= capacity,
        "{ports} allow {} connections to {target}, {} are wanted: {advice}",
        grouped(capacity),
        grouped(connections.into()),
    );
    ensure!(
        machine.descriptors > 2 * DESCRIPTORS_SPARE,
        "RLIMIT_NOFILE is {}: raise it (ulimit -n) above {}",
        machine.descriptors,
        2 * DESCRIPTORS_SPARE,
    );
    let bytes = if many { BYTES_BOTH_ENDS } else { BYTES_OWN_END } * u64::from(connections);
    ensure!(
        bytes <= machine.memory_bytes,
        "{} connections need about {} MB of memory, {} MB are available: lower --connections",
        grouped(connections.into()),
        grouped(bytes / 1_000_000),
        grouped(machine.memory_bytes / 1_000_000),
    );
    let per_ring = machine.descriptors.min(PER_RING_MAX) as u32;
    let rings = connections.div_ceil(per_ring);
    let line = format!(
        "allowed: {ports} = {} connections; {} descriptors x {rings} ring{}; memory about {} of {} MB",
        grouped(capacity),
        grouped(per_ring.into()),
        if rings == 1 { "" } else { "s" },
        grouped(bytes / 1_000_000),
        grouped(machine.memory_bytes / 1_000_000),
    );
    Ok(Capacity { sources: source_addresses(target, wanted, run, part), per_ring, line })
}

fn source_addresses(target: SocketAddr, count: u32, run: u32, part: u32) -> Vec<IpAddr> {
    match target.ip() {
        // 127.B.0.2 and up: all of 127.0.0.0/8 is there without being configured (RFC 1122, section 3.2.1.3). A block
        // of its own keeps a run clear of another's ports, under way or in TIME_WAIT.
        IpAddr::V4(v4) if v4.is_loopback() => {
            let block = Ipv4Addr::new(127, 1 + (run % 250) as u8, 0, 2);
            let first = u32::from(block) + part * count;
            (first..first + count).map(|bits| IpAddr::V4(Ipv4Addr::from(bits))).collect()
        }
        IpAddr::V4(_) => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        IpAddr::V6(_) => vec![IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine =
        Machine { ports: 28_232, descriptors: 20_000, memory_bytes: 20_000_000_000 };

    fn local() -> SocketAddr {
        "127.0.0.1:7400".parse().unwrap()
    }

    #[test]
    fn a_hundred_thousand_connections_take_several_sources_and_rings() {
        let capacity = plan(MACHINE, local(), 100_000, None, (7, 0)).unwrap();
        assert_eq!(capacity.sources.len(), 11);
        assert_eq!(capacity.sources[0], "127.8.0.2".parse::<IpAddr>().unwrap());
        assert_eq!(capacity.per_ring, 20_000);
        assert!(capacity.line.contains("28,232 ports x 11"), "{}", capacity.line);
        assert!(capacity.line.contains("x 5 rings"), "{}", capacity.line);
    }

    #[test]
    fn parts_of_a_run_have_no_source_address_in_common() {
        let of_part = |part| plan(MACHINE, local(), 50_000, None, (7, part)).unwrap().sources;
        let mut all: Vec<IpAddr> = (0..256).flat_map(of_part).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!((all.len(), count), (256 * 6, 256 * 6));
        assert!(all.iter().all(IpAddr::is_loopback));
    }

    #[test]
    fn what_the_machine_does_not_allow_is_refused_with_the_next_step() {
        let refusal = |machine, target, connections, sources| {
            format!("{:#}", plan(machine, target, connections, sources, (0, 0)).unwrap_err())
        };
        assert!(refusal(MACHINE, local(), 30_000, Some(1)).contains("raise --sources"));
        let far = "192.0.2.1:7400".parse().unwrap();
        assert!(refusal(MACHINE, far, 30_000, None).contains("ip_local_port_range"));
        assert!(refusal(MACHINE, local(), 10_000_000, None).contains("memory"));
        let few = Machine { descriptors: 100, ..MACHINE };
        assert!(refusal(few, local(), 10, None).contains("ulimit -n"));
    }

    #[test]
    fn the_port_range_counts_both_ends() {
        assert_eq!(port_count("32768\t60999\n"), Some(28_232));
        for bad in ["", "1", "9 1", "a b"] {
            assert_eq!(port_count(bad), None);
        }
    }

    #[test]
    fn this_machine_can_be_read() {
        assert!(Machine::read().unwrap().ports > 0);
    }
}
