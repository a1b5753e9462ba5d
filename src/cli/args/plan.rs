//! The grammar of `iris capacity`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::capacity::Assumption;
use crate::config::units::{ByteSize, Span};

/// Work out how many machines so many daily users need, and what they cost.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
It is an estimate: figures measured of single machines, times assumptions. All of them are printed, with their
sources; each assumption is a flag. docs/CAPACITY.md says how it is worked out, and has the sheets for 1 million,
100 million and 5 billion daily users.

Measure your own machines, then plan by them; the later file wins:
  iris-loadgen idle -n 100000 --duration 20s --pid PID --json idle.json
  iris-loadgen search throughput -n 100 --slo 'p99<20ms' --duration 5s --pid PID --json capacity.json
  iris capacity --dau 100000000 --from idle.json --from capacity.json

Examples:
  iris capacity --dau 5000000000
  iris capacity --dau 1000000 --messages 200 --payload 1KiB --edge-cpus 8 --edge-memory 32GiB --edge-price 0.4
  iris capacity --dau 20000000 --regions eu=0.4,us=0.6
  iris capacity --dau 1000000 --json | jq .total.dollars_per_month

Exits with 0, or with 2 if asked wrongly or if a file says nothing that can be planned by.")]
pub(in crate::cli) struct Capacity {
    /// Users a day, such as 1000000, 100M or 5G
    #[arg(long, value_name = "N", value_parser = users)]
    pub(in crate::cli) dau: u64,
    /// Figures of your own: a file of iris-loadgen --json or search --json, or a search's output; - is stdin. Repeatable
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) from: Vec<PathBuf>,
    /// Print one JSON object; docs/CAPACITY.md has its fields
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Clients connect in the clear, not by TLS
    #[arg(long)]
    pub(in crate::cli) clear: bool,
    /// Where users are: eu=0.4,us=0.6, or a number of regions alike; else as many as such a number of users has
    #[arg(long, value_name = "REGIONS")]
    pub(in crate::cli) regions: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) assumed: Assumed,
}

/// What is assumed; the defaults and why they are so are printed.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Assumptions")]
pub(in crate::cli) struct Assumed {
    /// Daily users who are connected at the peak, 0 to 1
    #[arg(long, value_name = "SHARE")]
    concurrency: Option<f64>,
    /// SENDs of a user a day
    #[arg(long, value_name = "N")]
    messages: Option<f64>,
    /// Recipients of a SEND
    #[arg(long, value_name = "N")]
    recipients: Option<f64>,
    /// Messages in the busiest second, to the mean of the day
    #[arg(long, value_name = "FACTOR")]
    peak: Option<f64>,
    /// Bytes of a payload, such as 256B or 1KiB
    #[arg(long, value_name = "SIZE")]
    payload: Option<ByteSize>,
    /// How long a message for who is away waits, on average
    #[arg(long, value_name = "TIME")]
    retention: Option<Span>,
    /// The core.dedup_window
    #[arg(long, value_name = "TIME")]
    window: Option<Span>,
    /// Cores that hold each inbox: 2 is a pair, 1 has one copy
    #[arg(long, value_name = "N")]
    copies: Option<u32>,
    /// How busy a machine may be at the peak, 0 to 1
    #[arg(long, value_name = "SHARE")]
    cpu_max: Option<f64>,
    /// Memory that may be in use, 0 to 1
    #[arg(long, value_name = "SHARE")]
    memory_max: Option<f64>,
    /// Disk of a core that may be in use, 0 to 1
    #[arg(long, value_name = "SHARE")]
    disk_max: Option<f64>,
    /// Spare edges of a region, to those that are needed; one at least
    #[arg(long, value_name = "SHARE")]
    spare: Option<f64>,
    /// Connections of an edge, at most
    #[arg(long, value_name = "N")]
    connections_max: Option<u64>,
    /// CPUs of an edge
    #[arg(long, value_name = "N")]
    edge_cpus: Option<u32>,
    /// Memory of an edge
    #[arg(long, value_name = "SIZE")]
    edge_memory: Option<ByteSize>,
    /// Dollars an hour for an edge
    #[arg(long, value_name = "DOLLARS")]
    edge_price: Option<f64>,
    /// CPUs of a core
    #[arg(long, value_name = "N")]
    core_cpus: Option<u32>,
    /// Memory of a core
    #[arg(long, value_name = "SIZE")]
    core_memory: Option<ByteSize>,
    /// Disk of a core
    #[arg(long, value_name = "SIZE")]
    core_disk: Option<ByteSize>,
    /// Dollars an hour for a core
    #[arg(long, value_name = "DOLLARS")]
    core_price: Option<f64>,
    /// Dollars for a GB that goes out to clients
    #[arg(long, value_name = "DOLLARS")]
    egress_price: Option<f64>,
}

impl Assumed {
    /// What was given.
    pub(in crate::cli) fn given(&self) -> Vec<(Assumption, f64)> {
        let bytes = |size: Option<ByteSize>| size.map(|size| size.0 as f64);
        let time = |span: Option<Span>| span.map(|span| span.0.as_secs_f64());
        let all = [
            (Assumption::Concurrency, self.concurrency),
            (Assumption::Messages, self.messages),
            (Assumption::Recipients, self.recipients),
            (Assumption::Peak, self.peak),
            (Assumption::Payload, bytes(self.payload)),
            (Assumption::Retention, time(self.retention)),
            (Assumption::Window, time(self.window)),
            (Assumption::Copies, self.copies.map(f64::from)),
            (Assumption::CpuMax, self.cpu_max),
            (Assumption::MemoryMax, self.memory_max),
            (Assumption::DiskMax, self.disk_max),
            (Assumption::Spare, self.spare),
            (Assumption::ConnectionsMax, self.connections_max.map(|most| most as f64)),
            (Assumption::EdgeCpus, self.edge_cpus.map(f64::from)),
            (Assumption::EdgeMemory, bytes(self.edge_memory)),
            (Assumption::EdgePrice, self.edge_price),
            (Assumption::CoreCpus, self.core_cpus.map(f64::from)),
            (Assumption::CoreMemory, bytes(self.core_memory)),
            (Assumption::CoreDisk, bytes(self.core_disk)),
            (Assumption::CorePrice, self.core_price),
            (Assumption::EgressPrice, self.egress_price),
        ];
        all.into_iter().filter_map(|(what, value)| Some((what, value?))).collect()
    }
}

/// A number of users: digits, with `_` between them if that helps, and k, M or G.
fn users(text: &str) -> Result<u64, String> {
    let most = crate::capacity::DAU_MAX;
    let wrong = || format!("a number of users, 1 to {most}, such as 1000000, 100M or 5G");
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 'k')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1_u64),
    };
    let digits = digits.replace(['_', ','], "");
    let number = digits.parse::<u64>().ok().filter(|_| !digits.starts_with('+'));
    let number = number.and_then(|number| number.checked_mul(factor));
    number.filter(|number| (1..=most).contains(number)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_counted_in_digits_or_by_a_unit() {
        for (text, wanted) in [
            ("1", 1),
            ("5_000_000_000", 5_000_000_000),
            ("100M", 100_000_000),
            ("5G", 5_000_000_000),
        ] {
            assert_eq!(users(text), Ok(wanted));
        }
        for wrong in ["", "0", "-1", "+1", "M", "1.5M", "1T", "101G", "99999999999999999999", "1é"]
        {
            assert!(users(wrong).is_err(), "{wrong}");
        }
    }
}
