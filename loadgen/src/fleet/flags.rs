//! Flags of a run over several processes, and of a worker.

use clap::Args;
use std::path::PathBuf;

/// Several processes as one generator: part of every scenario's flags.
#[derive(Clone, Debug, Default, Args)]
pub struct FleetFlags {
    /// Make the load with so many processes of this machine, each of --threads threads
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "workers",
        value_parser = clap::value_parser!(u32).range(1..=256),
        long_help = "Make the load with so many processes of this machine, each of --threads threads. They are started for \
        the run; each takes its share of users, rate and source addresses. Counts are summed, histograms merged."
    )]
    pub processes: Option<u32>,
    /// Make the load with these workers, separated by commas
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        long_help = "Make the load with these workers, separated by commas: processes of `iris-loadgen worker`, on this \
        machine or others. All begin together when all are ready. A worker that dies, or that cannot keep its part of the \
        schedule, makes the run invalid. --key is a file of each worker's own machine, as its own --key says."
    )]
    pub workers: Vec<String>,
    /// The workers' secret
    #[arg(long, value_name = "FILE", requires = "workers")]
    pub secret: Option<PathBuf>,
}

/// Flags of `worker`.
#[derive(Clone, Debug, Args)]
pub struct WorkerFlags {
    /// Address to wait at for a run; port 0 takes a free one. `-`: standard input is the connection, for one run
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7490")]
    pub listen: String,
    /// File with a secret, at least 16 bytes, that the other side has to have, too; needed unless --listen is loopback
    #[arg(long, value_name = "FILE")]
    pub secret: Option<PathBuf>,
    /// HS256 secret that signs the users' tokens of Iris; it never goes over the connection
    #[arg(long, value_name = "FILE", default_value = "./iris-data/dev.key")]
    pub key: PathBuf,
}
