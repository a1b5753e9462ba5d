//! `garbage`: connections that no server wants, and how it treats them.
//!
//! No connection logs in, so nothing here is a load of messages: run one beside it. Everything is bounded: connections,
//! their pace, bytes of each, and the time.

mod crowd;
mod kind;

pub use kind::{KINDS, Kind, Mix};

use crate::capacity::{self, Machine};
use crate::cli::{parse_duration, resolve};
use crate::net::{Connections, Load};
use crate::report::{EXIT_INVALID, grouped, round};
use crate::scenario::say;
use crate::server_probe::Process;
use anyhow::{Context, ensure};
use clap::Args;
use crowd::{Crowd, Ends};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Connections under way at a time, at most: fewer than a listener's backlog.
const CONNECTING_MAX: u32 = 1024;
/// The longest wait for something to happen.
const TURN: Duration = Duration::from_millis(10);

/// Flags of `garbage`.
#[derive(Clone, Debug, Args)]
pub struct GarbageFlags {
    /// Server address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7400")]
    pub addr: String,
    /// Connections, at a time with --again
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// What they do, in parts: garbage, silent, half, oversize, login, leave
    #[arg(long, value_name = "LIST", default_value = "garbage=4,silent=3,half=2,oversize=1")]
    pub mix: Mix,
    /// Connections made a second, at most; 0: as fast as they can
    #[arg(long, value_name = "R", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub connect_rate: u64,
    /// Longest time; without --again it ends earlier when all connections have ended
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Make connections that have ended again, until the time is over
    #[arg(long)]
    pub again: bool,
    /// Source addresses of 127.0.0.0/8 for a loopback server; default: as many as the connections need
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub sources: Option<u32>,
    /// Server process to watch (memory)
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The file of `--json`.
#[derive(Debug, Serialize)]
struct Garbage {
    scenario: &'static str,
    /// Connections were made.
    valid: bool,
    connections: u32,
    seconds: f64,
    /// Connections made, all in all and a second.
    connected: u64,
    connected_per_s: f64,
    /// Connections that did not come about, by reason.
    not_connected: BTreeMap<String, u64>,
    kinds: Vec<OfKind>,
    /// Resident bytes of the server before and at the end, with --pid.
    server_rss_bytes: Option<(u64, u64)>,
}

#[derive(Debug, Serialize)]
struct OfKind {
    kind: &'static str,
    /// Open at the end.
    held: u64,
    ends: Vec<End>,
}

#[derive(Debug, Serialize)]
struct End {
    /// A code's name, or what the socket said.
    how: String,
    count: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Shortest and longest wait that they were told.
    retry_after_ms: Option<(u32, u32)>,
}

/// Runs it, tells, and gives the exit code.
pub fn run(flags: &GarbageFlags) -> anyhow::Result<u8> {
    let addr = resolve(&flags.addr)?;
    ensure!(
        flags.sources.is_none() || addr.ip().is_loopback() && addr.is_ipv4(),
        "--sources needs an IPv4 loopback --addr: only 127.0.0.0/8 has addresses to spare",
    );
    let run = std::process::id() & 0xff_ffff;
    let capacity =
        capacity::plan(Machine::read()?, addr, flags.connections, flags.sources, (run, 0))?;
    let what = if flags.again { " at a time" } else { "" };
    say(&format!(
        "garbage: {} connections{what} to {addr} that nobody wants\n{}\n",
        grouped(flags.connections.into()),
        capacity.line,
    ));
    let rss = |pid: Option<u32>| pid.and_then(Process::read).map(|process| process.rss_bytes);
    let before = rss(flags.pid);
    ensure!(flags.pid.is_none() || before.is_some(), "--pid: no such process");
    let per_ring = capacity.per_ring;
    let mut net = Connections::new(addr, flags.connections, 0, per_ring, Load::Quiet, None)?;
    let mut crowd = Crowd::new(flags.mix.clone(), flags.connections, u64::from(run) << 20 | 7);
    let began = Instant::now();
    let mut made = Made { started: 0, next: 0 };
    while began.elapsed() < flags.duration {
        let source = |n: u32| capacity.sources[n as usize % capacity.sources.len()];
        while crowd.connecting < CONNECTING_MAX && made.is_due(flags, began) {
            if made.next < flags.connections {
                net.connect(source(made.next))?;
                made.next += 1;
            } else if let Some(conn) = crowd.free.pop_front().filter(|_| flags.again) {
                net.connect_again(conn, source(conn))?;
            } else {
                break;
            }
            made.started += 1;
            crowd.connecting += 1;
        }
        net.turn(TURN, &mut crowd).context("io_uring failed")?;
        for conn in std::mem::take(&mut crowd.leaving) {
            if net.cut(conn) {
                crowd.left(conn);
            }
        }
        if !flags.again && made.next == flags.connections && !crowd.is_there() {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let rss = before.zip(rss(flags.pid));
    tell(flags, &Garbage::new(flags, &crowd, seconds, rss))
}

/// How many connections were begun, and the next place that was never used.
struct Made {
    started: u64,
    next: u32,
}

impl Made {
    fn is_due(&self, flags: &GarbageFlags, began: Instant) -> bool {
        let due = began.elapsed().as_secs_f64() * flags.connect_rate as f64;
        flags.connect_rate == 0 || self.started < due as u64 + 1
    }
}

fn tell(flags: &GarbageFlags, garbage: &Garbage) -> anyhow::Result<u8> {
    say(&garbage.table());
    if let Some(path) = &flags.json {
        let text = serde_json::to_string_pretty(garbage)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if garbage.valid { 0 } else { EXIT_INVALID })
}

impl Garbage {
    fn new(
        flags: &GarbageFlags,
        crowd: &Crowd,
        seconds: f64,
        server_rss_bytes: Option<(u64, u64)>,
    ) -> Self {
        let of_kind = |kind: Kind| OfKind {
            kind: kind.name(),
            held: crowd.held(kind),
            ends: crowd.ends.iter().filter(|((of, _), _)| *of == kind).map(End::new).collect(),
        };
        let was_there = |of: &OfKind| of.held > 0 || !of.ends.is_empty();
        Self {
            scenario: "garbage",
            valid: crowd.connected > 0,
            connections: flags.connections,
            seconds: round(seconds, 3),
            connected: crowd.connected,
            connected_per_s: round(crowd.connected as f64 / seconds.max(1e-9), 1),
            not_connected: crowd.not_connected.clone(),
            kinds: KINDS.into_iter().map(of_kind).filter(was_there).collect(),
            server_rss_bytes,
        }
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} connections made in {:.1} s, {}/s\n\n{:<10}{:<20}{:>10}{:>12}{:>12}{:>12}  come back after",
            grouped(self.connected),
            self.seconds,
            grouped(self.connected_per_s as u64),
            "kind",
            "end",
            "count",
            "p50 ms",
            "p99 ms",
            "max ms",
        );
        for of in &self.kinds {
            for end in &of.ends {
                let wait = end.retry_after_ms.map(|(a, b)| format!("{a} to {b} ms"));
                let _ = writeln!(
                    text,
                    "{:<10}{:<20}{:>10}{:>12.1}{:>12.1}{:>12.1}  {}",
                    of.kind,
                    end.how,
                    grouped(end.count),
                    end.p50_ms,
                    end.p99_ms,
                    end.max_ms,
                    wait.unwrap_or_default(),
                );
            }
            if of.held > 0 {
                let _ = writeln!(text, "{:<10}{:<20}{:>10}", of.kind, "open", grouped(of.held));
            }
        }
        for (reason, count) in &self.not_connected {
            let _ = writeln!(text, "not made  {reason:<20}{:>10}", grouped(*count));
        }
        if let Some((before, after)) = self.server_rss_bytes {
            let mb = |bytes: u64| bytes as f64 / 1e6;
            let _ =
                writeln!(text, "\nserver memory: {:.1} MB, before {:.1} MB", mb(after), mb(before));
        }
        text
    }
}

impl End {
    fn new(((_, how), ends): (&(Kind, String), &Ends)) -> Self {
        let ms = |us: u64| round(us as f64 / 1000.0, 3);
        Self {
            how: how.clone(),
            count: ends.took_us.len(),
            p50_ms: ms(ends.took_us.value_at_quantile(0.5)),
            p99_ms: ms(ends.took_us.value_at_quantile(0.99)),
            max_ms: ms(ends.took_us.max()),
            retry_after_ms: ends.retry_after_ms,
        }
    }
}
