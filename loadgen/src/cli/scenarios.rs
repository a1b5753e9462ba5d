//! Flags that only one scenario has.

use super::{Flags, Part, parse_duration};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of `composite`.
#[derive(Clone, Debug, Args)]
pub struct CompositeFlags {
    #[command(flatten)]
    pub flags: Flags,
    /// Users that send to each other, as a share or a count: an even number, a share is rounded down to one
    #[arg(long, value_name = "PART", default_value = "1%")]
    pub active: Part,
    /// Time for which all users are silent before memory is measured and any message is sent
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub hold: Duration,
}

/// Flags of `fanout`; `--connections` are the recipients.
#[derive(Clone, Debug, Args)]
pub struct FanoutFlags {
    #[command(flatten)]
    pub flags: Flags,
    /// Users that send, each to all recipients
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub senders: u32,
    /// Recipients that a SEND names; default: as many as it may, 256
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub to: Option<u32>,
}

/// Flags of `storm`.
#[derive(Clone, Debug, Args)]
pub struct StormFlags {
    #[command(flatten)]
    pub flags: Flags,
    /// How often all connections are cut
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,
    /// Messages that wait in each inbox meanwhile
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub waiting: u32,
    /// Connections of a generator thread that are made or logged in at once; default: all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub at_once: Option<u32>,
}

/// Flags of `churn`.
#[derive(Clone, Debug, Args)]
pub struct ChurnFlags {
    #[command(flatten)]
    pub flags: Flags,
    /// Connections cut a second; default: one of a hundred
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub churn: Option<u64>,
    /// How long a user whose connection was cut stays away
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub away: Duration,
}

/// Flags of `slow`.
#[derive(Clone, Debug, Args)]
pub struct SlowFlags {
    #[command(flatten)]
    pub flags: Flags,
    /// Receivers that stop reading, as a share or a count
    #[arg(long, value_name = "PART", default_value = "10%")]
    pub stalled: Part,
    /// Senders that send to all receivers, 256 in a SEND; default: one for each receiver
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub senders: Option<u32>,
}

/// Flags of `presence`; `--connections` are the users who log in and out.
#[derive(Clone, Debug, Args)]
pub struct PresenceFlags {
    #[command(flatten)]
    pub flags: Flags,
    /// Users who watch
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub watchers: u32,
    /// How many each of them watches
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub watches: u32,
    /// Users who log out and in again a second; default: one of ten
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub flaps: Option<u64>,
    /// How long a user stays away
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub away: Duration,
}

/// Flags of `run`; the phases of the file have rates and times of their own.
#[derive(Clone, Debug, Args)]
pub struct RunFlags {
    /// The scenario file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub flags: Flags,
}
