//! The command line: flags as typed, then checked options without anything left open.

mod scenarios;
mod searched;
mod secured;
mod values;

pub use scenarios::{
    ChurnFlags, CompositeFlags, FanoutFlags, PresenceFlags, RunFlags, SlowFlags, StormFlags,
};
pub use searched::{SearchFlags, Searched, Varied};
pub use secured::{TlsFlags, TlsVersion};
pub use values::Part;

use clap::{Args, Parser, Subcommand};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use crate::compare::CompareFlags;
use crate::control::Load;
use crate::fleet::{Fleet, FleetFlags, Wanted, WorkerFlags};
use crate::garbage::GarbageFlags;
use crate::manual::{CompletionsFlags, ManFlags};
use crate::net::TlsPlan;
use crate::objective::Objectives;
use crate::observe::Observe;
use crate::payload::HEAD_BYTES;
use crate::protocol::{Name, Protocol};
use anyhow::{Context, ensure};
use iris_proto::limits::{PAYLOAD_BYTES_MAX, SEND_WINDOW_MAX};

/// Where Iris listens for TLS by default.
const TLS_PORT: u16 = 7443;

/// Load for Iris: how many, how fast, and how do you know.
#[derive(Debug, Parser)]
#[command(name = "iris-loadgen", version, about, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub scenario: Scenario,
}

const AFTER_HELP: &str = "\
Every message carries its run, sender, number and intended time; lost, repeated, reordered and damaged ones are counted.
Exit code: 0 valid run, nothing lost, repeated or damaged, each --slo met; 99 a valid run that missed that; 2 invalid run or
no start.

Examples:
  iris serve --dev &                             a server on 127.0.0.1:7400, key in ./iris-data/dev.key
  iris-loadgen idle -n 100000 --pid $!           memory of 100,000 idle connections
  iris-loadgen latency --duration 10s            one message at a time, beside the machine's floor
  iris-loadgen latency -n 50 --rate 50000        open loop: latency counts from the intended time
  iris-loadgen throughput -n 100 --json out.json as fast as the windows allow
  iris-loadgen fanin -n 10001                    10,000 senders, one inbox
  iris-loadgen offline -n 100                    fill inboxes of users who are away, then log in and drain
  iris-loadgen p2p -n 10000                      10,000 messages a second between 10,000 pairs
  iris-loadgen composite -n 100000 --active 1% --hold 10m --pid $!
                                                 memory of silence, then latency of the few who send
  iris-loadgen storm -n 100000 --rounds 3        all cut at once: how long until all are back
  iris-loadgen churn -n 10000 --churn 500        500 users a second come and go; nothing is lost
  iris-loadgen run loadgen/examples/day.toml     phases from a file: connect, hold, ramp, churn, storm
  iris-loadgen latency -n 50 --rate 50000 --slo 'p99<5ms,lost=0'
                                                 exit code 99 if that is missed
  iris-loadgen search throughput --slo 'p99<10ms' --duration 5s
                                                 the highest rate that meets it; search --help has more
  iris-loadgen p2p --duration 8h --pid PID --slo 'drift.p99<1.5,drift.rss<1.05'
                                                 a soak: is it at the end as it was at the beginning?
  iris-loadgen throughput -n 1000 --processes 4  four processes as one generator
  iris-loadgen worker --listen 0.0.0.0:7490 --secret FILE
                                                 on each of several machines, and then on one more:
  iris-loadgen p2p -n 100000 --workers a:7490,b:7490 --secret FILE --addr SERVER:7400
  iris-loadgen throughput --report run.html      a page with charts of each second
  iris-loadgen compare before.json after.json    what changed
  iris-loadgen garbage -n 10000 --mix silent=1   connections that say nothing: when and how they end
  iris-loadgen throughput --driver mqtt          the same load for an MQTT broker on 127.0.0.1:1883";

/// A load; `iris-loadgen SCENARIO --help` has its flags.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Log in N connections, hold them, answer heartbeats; memory and login rate
    #[command(
        long_about = "Logs in N connections (default 1,000), holds them for --duration and answers the server's \
        heartbeats. With --pid: the server's memory per connection, user and kernel part."
    )]
    Idle(Flags),
    /// Send, wait for ACCEPTED, send again; beside the floor of this machine
    #[command(
        long_about = "N senders (default 1), each to a receiver of its own, with one message under way each. With \
        --rate: open loop, latency counted from intended times. The floor (bare echo, bare write and sync) is measured \
        before, between and after."
    )]
    Latency(LatencyFlags),
    /// Pipelined messages between pairs
    #[command(
        long_about = "N connections (an even number, default 100) in pairs that send to each other, pipelined \
        within the send window; ACKs go in batches of a quarter of the receive window."
    )]
    Throughput(Flags),
    /// Publishers, each to a subscriber of its own, at a steady rate
    #[command(
        name = "p2p",
        long_about = "N publishers (default 1,000), each to a subscriber of its own, pipelined, open loop: one message a \
        second each unless --rate says otherwise. Latency to ACCEPTED and to the subscriber. -n 50000 is the case \
        p2p-50K-50K-50K-50K of the Open MQTT Benchmark Suite."
    )]
    P2p(Flags),
    /// Many senders, one inbox
    #[command(long_about = "N-1 senders (default 1,000) send to the inbox of one connection.")]
    Fanin(Flags),
    /// Fill inboxes of users who are away, then log in and drain
    #[command(
        long_about = "N senders (default 100) each fill the inbox of a user who is away for --duration or until \
        --messages are accepted; then the users log in and read everything."
    )]
    Offline(OfflineFlags),
    /// Many idle users, a few who send to each other; memory, then latency
    #[command(
        long_about = "Logs in N users (default 10,000) and holds them silent for --hold, heartbeats answered. With --pid: \
        the server's memory per connection at the end of that, user and kernel part. Then --active of them send to each \
        other in pairs, open loop, for --warmup and --duration, while the others stay idle: latency."
    )]
    Composite(CompositeFlags),
    /// Few senders, many recipients, several in each SEND
    #[command(
        long_about = "--senders users (default 1) each send to all of N recipients (default 1,000); a SEND names --to of \
        them, in turn. Rates: SENDs accepted, and deliveries. --senders 5 -n 1000 --rate 1000 makes 250,000 deliveries a \
        second, as fanout-5-1000-5-250K of the Open MQTT Benchmark Suite."
    )]
    Fanout(FanoutFlags),
    /// Cut all connections at once; all users come back
    #[command(
        long_about = "Logs in N users (default 1,000), cuts all connections at once (resets them), and lets all users log \
        in again at once, --rounds times: how long until half, 99 % and all are back. A connection that fails is tried \
        again as the protocol says. With --waiting, so many messages wait in each inbox meanwhile and are read afterwards."
    )]
    Storm(StormFlags),
    /// Users come and go while they send
    #[command(
        long_about = "N users (an even number, default 1,000) in pairs send to each other, open loop, one message a second \
        each unless --rate says otherwise, while --churn connections a second are cut and made again. What had no answer is \
        sent again with its id. What comes again without its acknowledgement being known to be read is counted as \
        redelivered, anything else as repeated."
    )]
    Churn(ChurnFlags),
    /// Some receivers stop reading for a while
    #[command(
        long_about = "N senders (default 100), each to a receiver of its own, open loop, ten messages a second each unless \
        --rate says otherwise; with --senders, so many to all N receivers, 256 in a SEND, which makes one message a second \
        for each receiver. In the steady phase, --stalled of the receivers do not read their sockets. Latency of the \
        others, growth of the server's memory with --pid, and whether the stalled ones get everything afterwards."
    )]
    Slow(SlowFlags),
    /// Users log in and out, watchers are told
    #[command(
        long_about = "--watchers users (default 10) each watch the presence of --watches of N users (default 1,000), of \
        whom --flaps a second are cut and come back after --away. Changes that were told, how soon, and those that were not."
    )]
    Presence(PresenceFlags),
    /// Do what a scenario file says, phase by phase
    #[command(
        long_about = "Does what FILE says (TOML): `users = N`, an even number, who send to each other in pairs, and phases \
        in order. Each [[phase]] has a `do`:\n\n\
        connect   log in users until `to` (default all) are there, `rate` a second (default as fast as they can)\n\
        hold      no message for `time`\n\
        send      `rate` messages a second for `time`, after `warmup` (default 0s) that is not measured\n\
        ramp      as send, from `from` to `to` messages a second in a straight line over `time`\n\
        churn     as send, while `cuts` connections a second are cut and made again\n\
        storm     cut all connections at once, and wait until all users are back\n\
        stop      end here\n\n\
        Figures are of all phases together; `phases` has the counts of each. loadgen/examples/ has a file to start from."
    )]
    Run(RunFlags),
    /// Find the highest rate, or number of connections, that meets an objective
    #[command(
        long_about = "Runs a scenario again and again: from --from up by --step until --slo is missed, then between what \
        was met and what was missed until they are --precision apart, then --confirm times at the best load, which counts \
        only if each of these runs meets the objective. A missed run is tried once more before it counts. A run also \
        misses if over 1 % of the messages due were refused or never sent (of presence: of the users due to log out), or \
        if it was invalid. Each run has the scenario's --warmup and --duration.\n\n\
        What is searched is --rate, in presence --flaps; with --of connections, and always in idle and storm, it is \
        --connections. Exit code: 0 found, 99 not even the lowest load meets it, 2 a run could not start.",
        after_help = searched::EXAMPLES
    )]
    Search(SearchFlags),
    /// Connections that no server wants, and how it treats them
    #[command(
        long_about = "Makes N connections (default 1,000) of which none logs in, in parts as --mix says: garbage sends \
        random bytes, silent says nothing, half sends half a HELLO, oversize claims a frame longer than any, login sends a \
        HELLO with a forged token, leave closes at once. Tells how each kind ended, how long that took, and when they were \
        told to come again. It is no load of messages: run one beside it. Exit code: 0, or 2 if no connection was made."
    )]
    Garbage(GarbageFlags),
    /// Set runs against each other: what changed, and whether it is more than noise
    #[command(
        long_about = "Compares files of --json: two, or several repeats of both. Of each figure the medians; the noise is \
        the larger spread of repeats, from lowest to highest. Exit code: 0 nothing is worse beyond noise, 99 something is, \
        2 the runs are not comparable (another load or machine, or invalid; --force compares all the same)."
    )]
    Compare(CompareFlags),
    /// Make a part of the load for a run that another process leads
    #[command(
        long_about = "Waits for a run of `iris-loadgen SCENARIO --workers HOST:PORT,...` and makes its part of it, one run \
        after the other. All processes have to be of one version. Without --secret only loopback addresses may be listened \
        on: who can connect can have this machine make load. What goes over the connection is not encrypted."
    )]
    Worker(WorkerFlags),
    /// Print completions for a shell: bash, zsh, fish, elvish, powershell
    Completions(CompletionsFlags),
    /// Write manual pages
    Man(ManFlags),
}

/// Flags of every scenario.
#[derive(Clone, Debug, Args)]
pub struct Flags {
    /// What the server speaks; for comparing Iris with other brokers
    #[arg(
        long = "driver",
        value_name = "NAME",
        default_value = "iris",
        long_help = "What the server speaks: iris; mqtt (3.1.1) or mqtt5, each user with a topic of its own called as the \
        user; nats (core NATS, a subject each); jetstream (NATS with a stream called IRIS of the subjects lg.>, which has \
        to be there, and a durable consumer for each user). Peers are used without names and passwords. Where messages have \
        no answer (nats, --qos 0) nothing is accepted: rates and latencies are of deliveries, and the window is of messages \
        that have not arrived. The report's guarantee says what an answer promises."
    )]
    pub protocol: Name,
    /// Quality of service of mqtt and mqtt5; default: 1
    #[arg(long, value_name = "0|1", value_parser = clap::value_parser!(u8).range(0..=1))]
    pub qos: Option<u8>,
    /// Let mqtt and mqtt5 brokers keep sessions of users who are away, as offline always does
    #[arg(long)]
    pub persistent: bool,
    /// Server address; default: 127.0.0.1 and the protocol's port (iris 7400, mqtt 1883, nats and jetstream 4222)
    #[arg(long, value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// HS256 secret that signs the users' tokens of Iris: the file's bytes less one trailing newline
    #[arg(long, value_name = "FILE", default_value = "./iris-data/dev.key")]
    pub key: PathBuf,
    /// Connections
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub connections: Option<u32>,
    /// Length of the steady phase, such as 500ms, 30s, 10m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Load before the steady phase that is not measured
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Messages a second in total, open loop; 0: as fast as the windows allow
    #[arg(
        long,
        value_name = "R",
        value_parser = clap::value_parser!(u64).range(0..=100_000_000),
        long_help = "Messages a second in total, open loop; 0: as fast as the windows allow. Default: 0; in p2p, composite \
        and churn one a second for each user that sends, in slow ten."
    )]
    pub rate: Option<u64>,
    /// Messages a second from which the rate grows, or falls, to --rate during the warm-up
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    pub ramp: Option<u64>,
    /// Connections made a second, at most; 0: as fast as they can
    #[arg(long, value_name = "R", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub connect_rate: u64,
    /// Messages of one connection that an open loop sends at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub burst: u32,
    /// Payload bytes, at least 24
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub payload: usize,
    /// Unanswered messages per connection, at most; the server may allow fewer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(SEND_WINDOW_MAX)))]
    pub window: Option<u32>,
    /// Server process to watch (CPU time, memory)
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Generator threads, of each process
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Pin generator threads to the last cores
    #[arg(long)]
    pub pin: bool,
    /// Source addresses of 127.0.0.0/8 for a loopback server; default: as many as the connections need
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub sources: Option<u32>,
    /// What the run must reach, such as 'p99<1ms,lost=0,rate>=100k'; else it ends with 99
    #[arg(
        long,
        value_name = "LIST",
        long_help = "What the run must reach, separated by commas; else it ends with 99. NAME, a relation (< <= = >= >), \
        and a value.\n\n\
        p50, p90, p99, p99.9, max, mean: to ACCEPTED from the intended send (service.p99: from the real send; \
        delivered.p99: to the receiver; stalled.p99: to those who did not read; told.p99: from a change of presence to a \
        watcher), in us, ms or s\n\
        rate, delivered_rate, login_rate, drain_rate, told_rate: a second, with k, M or G\n\
        lost, repeated, reordered, damaged, refused, failed, not_sent, missed (changes of presence), redelivered: how many\n\
        reach: deliveries for each accepted message, of fanout\n\
        drift.p50, drift.p99, ..., drift.rss: the last tenth of the steady phase over the first, such as drift.p99<1.5; \
        rss with --pid\n\
        storm.half, storm.most, storm.all: until so many are back, in the slowest storm; in us, ms or s\n\
        rss, kernel: bytes of the server for each connection, with --pid"
    )]
    pub slo: Option<Objectives>,
    /// Longest wait for what is under way at the end
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub drain_wait: Duration,
    #[command(flatten)]
    pub fleet: FleetFlags,
    #[command(flatten)]
    pub secured: TlsFlags,
    #[command(flatten)]
    pub observe: Observe,
    /// One run of many: what it does was said.
    #[arg(skip)]
    pub quiet: bool,
}

/// Flags of `latency`.
#[derive(Clone, Debug, Args)]
pub struct LatencyFlags {
    #[command(flatten)]
    pub flags: Flags,
    /// Time for measuring the floor, in all; 0s: none
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    pub floor: Duration,
    /// Where the floor's file is written: the server's disk; default: beside the key, for a peer here
    #[arg(long, value_name = "DIR")]
    pub floor_dir: Option<PathBuf>,
}

/// Flags of `offline`.
#[derive(Clone, Debug, Args)]
pub struct OfflineFlags {
    #[command(flatten)]
    pub flags: Flags,
    /// Messages in total, at most; 0: as many as --duration allows
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub messages: u64,
}

/// Flags, checked.
#[derive(Clone, Debug)]
pub struct Options {
    pub addr: SocketAddr,
    pub protocol: Protocol,
    /// `None`: in the clear.
    pub tls: Option<TlsPlan>,
    pub key: PathBuf,
    pub connections: u32,
    pub duration: Duration,
    pub warmup: Duration,
    pub rate: u64,
    /// The rate at the start of the warm-up.
    pub ramp: Option<u64>,
    /// Connections a second; 0: no limit.
    pub connect_rate: u64,
    pub burst: u32,
    pub payload: usize,
    pub window: Option<u32>,
    pub pid: Option<u32>,
    pub threads: u32,
    pub pin: bool,
    pub sources: Option<u32>,
    pub drain_wait: Duration,
    pub fleet: FleetFlags,
    pub observe: Observe,
    /// Time without a message before the warm-up.
    pub hold: Duration,
    /// Says nothing up front.
    pub quiet: bool,
}

impl Flags {
    /// Checks the flags; `connections` is the scenario's default.
    pub fn check(self, connections: u32) -> anyhow::Result<Options> {
        let protocol = Protocol::new(self.protocol, self.qos, self.persistent)?;
        ensure!(
            !self.secured.tls || protocol == Protocol::Iris,
            "--tls is for Iris: peers are compared in the clear",
        );
        let port = if self.secured.tls { TLS_PORT } else { protocol.port() };
        let own = || format!("127.0.0.1:{port}");
        let addr = resolve(&self.addr.clone().unwrap_or_else(own))?;
        let tls = self.secured.check(self.addr.as_deref(), addr)?;
        ensure!(
            (HEAD_BYTES..=PAYLOAD_BYTES_MAX).contains(&self.payload),
            "--payload {}: must be {HEAD_BYTES} to {PAYLOAD_BYTES_MAX} bytes, the first {HEAD_BYTES} are the check",
            self.payload,
        );
        ensure!(
            self.ramp.is_none() || self.rate != Some(0) && self.warmup > Duration::ZERO,
            "--ramp is an open loop whose rate changes during the warm-up: needs --rate and --warmup above 0",
        );
        ensure!(self.duration > Duration::ZERO, "--duration 0s: must be longer");
        ensure!(
            self.sources.is_none() || addr.ip().is_loopback() && addr.is_ipv4(),
            "--sources needs an IPv4 loopback --addr: only 127.0.0.0/8 has addresses to spare",
        );
        Ok(Options {
            addr,
            protocol,
            tls,
            key: self.key,
            connections: self.connections.unwrap_or(connections),
            duration: self.duration,
            warmup: self.warmup,
            rate: self.rate.unwrap_or(0),
            ramp: self.ramp,
            connect_rate: self.connect_rate,
            burst: self.burst,
            payload: self.payload,
            window: self.window,
            pid: self.pid,
            threads: self.threads,
            pin: self.pin,
            sources: self.sources,
            drain_wait: self.drain_wait,
            fleet: self.fleet,
            observe: self.observe,
            hold: Duration::ZERO,
            quiet: self.quiet,
        })
    }
}

impl Flags {
    /// As [`Self::check`]; without `--rate`, each of the users that send (by the number of connections) sends one message
    /// a second.
    pub fn check_paced(
        self,
        connections: u32,
        senders: impl FnOnce(u32) -> u32,
    ) -> anyhow::Result<Options> {
        let is_paced = self.rate.is_some();
        let mut options = self.check(connections)?;
        if !is_paced {
            options.rate = senders(options.connections).into();
        }
        Ok(options)
    }
}

impl Options {
    /// What is sent, for the warm-up and the steady phase.
    pub fn load(&self) -> Load {
        Load {
            rate_from: self.ramp.unwrap_or(self.rate),
            rate: self.rate,
            ramp: if self.ramp.is_some() { self.warmup } else { Duration::ZERO },
            warmup: self.warmup,
            steady: self.duration,
            messages_max: u64::MAX,
        }
    }

    /// The processes that make the load, if it is not this one alone.
    pub fn fleet(&self, users: u32) -> anyhow::Result<Option<Fleet>> {
        let wanted = Wanted {
            target: self.addr,
            key: &self.key,
            users,
            threads: self.threads,
            sources: self.sources,
            pin: self.pin,
        };
        Fleet::gather(&self.fleet, wanted)
    }

    /// The load in words.
    pub fn pace(&self) -> String {
        match self.rate {
            0 => "as fast as the windows allow".to_owned(),
            rate => format!("{} messages a second", crate::report::grouped(rate)),
        }
    }
}

impl Scenario {
    /// What every scenario has; `None` for what is no scenario.
    pub fn flags(&self) -> Option<&Flags> {
        Some(match self {
            Self::Idle(flags) | Self::Throughput(flags) | Self::P2p(flags) | Self::Fanin(flags) => {
                flags
            }
            Self::Latency(latency) => &latency.flags,
            Self::Offline(offline) => &offline.flags,
            Self::Composite(composite) => &composite.flags,
            Self::Fanout(fanout) => &fanout.flags,
            Self::Storm(storm) => &storm.flags,
            Self::Churn(churn) => &churn.flags,
            Self::Slow(slow) => &slow.flags,
            Self::Run(run) => &run.flags,
            Self::Presence(presence) => &presence.flags,
            Self::Search(search) => search.scenario.flags(),
            Self::Garbage(_) | Self::Compare(_) | Self::Worker(_) => return None,
            Self::Completions(_) | Self::Man(_) => return None,
        })
    }
}

pub(crate) fn resolve(addr: &str) -> anyhow::Result<SocketAddr> {
    let hint = || format!("--addr {addr}: expected HOST:PORT, such as 127.0.0.1:7400");
    addr.to_socket_addrs().with_context(hint)?.next().with_context(hint)
}

/// Reads a time such as `500ms`, `30s`, `2m`, `1h`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_seconds = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit {unit:?}: use ms, s, m or h")),
    };
    let number: f64 =
        digits.parse().map_err(|_| format!("{digits:?} is no number: write 30s or 500ms"))?;
    Duration::try_from_secs_f64(number * unit_seconds)
        .ok()
        .filter(|time| *time <= Duration::from_secs(7 * 24 * 3600))
        .ok_or_else(|| "must be between 0 and 168h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> anyhow::Result<Options> {
        let cli = Cli::try_parse_from(["iris-loadgen", "throughput"].iter().chain(args))?;
        let Scenario::Throughput(flags) = cli.scenario else { panic!("another scenario") };
        flags.check(100)
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_need_no_flags() {
        let options = flags(&[]).unwrap();
        assert_eq!(options.addr, "127.0.0.1:7400".parse().unwrap());
        assert_eq!((options.connections, options.payload, options.rate), (100, 64, 0));
        assert_eq!(options.duration, Duration::from_secs(30));
    }

    #[test]
    fn a_protocol_brings_its_port() {
        for (name, port) in
            [("iris", 7400), ("mqtt", 1883), ("mqtt5", 1883), ("nats", 4222), ("jetstream", 4222)]
        {
            let options = flags(&["--driver", name]).unwrap();
            assert_eq!((options.addr.port(), options.protocol.name()), (port, name));
        }
    }

    #[test]
    fn tls_brings_its_port_and_the_name_to_ask_for() {
        let options = flags(&["--tls", "--insecure"]).unwrap();
        assert_eq!(options.addr.port(), 7443);
        assert_eq!(options.tls.unwrap().name.to_str(), "127.0.0.1");
        let options = flags(&["--tls", "--insecure", "--addr", "localhost:1"]).unwrap();
        assert_eq!(options.tls.unwrap().name.to_str(), "localhost");
        assert!(flags(&[]).unwrap().tls.is_none());
    }

    #[test]
    fn every_flag_others_script_against_is_there() {
        let args = "--addr 127.0.0.1:1 --key k --connections 7 --duration 2m --rate 9 --payload 24 --pid 1 --json f \
                    --threads 2 --sources 3 --warmup 0s";
        let options = flags(&args.split_whitespace().collect::<Vec<_>>()).unwrap();
        assert_eq!((options.connections, options.rate, options.pid), (7, 9, Some(1)));
        assert_eq!(options.duration, Duration::from_secs(120));
        for scenario in ["idle", "latency", "throughput", "fanin", "offline"] {
            assert!(Cli::try_parse_from(["iris-loadgen", scenario, "-n", "2"]).is_ok());
        }
    }

    #[test]
    fn bad_values_are_refused_with_what_to_write_instead() {
        for (args, hint) in [
            (&["--payload", "23"][..], "24"),
            (&["--payload", "70000"], "65536"),
            (&["--addr", "nowhere"], "HOST:PORT"),
            (&["--duration", "soon"], "ms, s, m or h"),
            (&["--duration", "1.2.3s"], "30s"),
            (&["--duration", "0s"], "longer"),
            (&["--duration", "3d"], "ms, s, m or h"),
            (&["--connections", "0"], "1"),
            (&["--window", "0"], "1"),
            (&["--addr", "192.0.2.1:7400", "--sources", "2"], "loopback"),
            (&["--driver", "amqp"], "mqtt5"),
            (&["--driver", "mqtt", "--qos", "2"], "0..=1"),
            (&["--qos", "1"], "--driver mqtt"),
            (&["--driver", "nats", "--persistent"], "--driver mqtt"),
            (&["--ca", "f"], "--tls"),
            (&["--tls", "--driver", "mqtt", "--insecure"], "in the clear"),
            (&["--tls", "--ca", "none.pem"], "no certificates"),
        ] {
            let message = format!("{:#}", flags(args).unwrap_err());
            assert!(message.contains(hint), "{args:?}: {message}");
        }
    }

    #[test]
    fn a_search_has_its_own_flags_and_those_of_a_run() {
        let args = "iris-loadgen search throughput --slo p99<10ms,lost=0 --from 2k --to 1M --step 3 --precision 2 \
                    --confirm 5 -n 20 --duration 5s";
        let cli = Cli::try_parse_from(args.split_whitespace()).unwrap();
        let Scenario::Search(search) = cli.scenario else { panic!("another scenario") };
        assert_eq!((search.from, search.to, search.confirm), (2000, 1_000_000, 5));
        assert!(matches!(search.scenario, Searched::Throughput(_)));
        assert_eq!(search.scenario.flags().slo.as_ref().unwrap().0.len(), 2);
        for bad in ["search", "search run", "search idle --from 0", "search idle --slo p95<1"] {
            let args = ["iris-loadgen"].into_iter().chain(bad.split_whitespace());
            assert!(Cli::try_parse_from(args).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_comparison_takes_two_files_or_repeats_of_both() {
        let parse = |line: &str| {
            Cli::try_parse_from(["iris-loadgen"].into_iter().chain(line.split_whitespace()))
        };
        for good in
            ["compare a b", "compare --a a1 a2 --b b1 --force --json c", "compare a b --force"]
        {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in
            ["compare a b c", "compare --a a1", "compare --b b1", "compare a b --a a1 --b b1"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_metric_is_one_of_an_address() {
        let options =
            flags(&["--metrics", "http://a:1/m", "--metric", "x", "--metric", "y"]).unwrap();
        assert_eq!(options.observe.names, ["x", "y"]);
        assert!(flags(&["--metric", "x"]).is_err());
        let error = format!("{:#}", flags(&["--metrics", "a:1"]).unwrap_err());
        assert!(error.contains("http://HOST:PORT/metrics"), "{error}");
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        for bad in ["", "s", "-1s", "1e99h", "NaN", "inf", "1x", "é"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
