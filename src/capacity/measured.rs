//! What was measured of one machine: the figures of recorded runs, and how to take newer ones out of what
//! `iris-loadgen` wrote.
//!
//! What is taken of a report: memory of a connection from 1,000 connections on; CPU time of a message at a given rate,
//! which falls as the rate grows, so one at a low rate is an upper bound; messages a second of a run that went as fast as
//! it could, which server and generator shared the CPUs for, so it is a lower bound.

use serde_json::Value;

use super::assumed::{Assumed, Assumption};

/// Connections from which on the growth of memory says something.
const CONNECTIONS_MIN: f64 = 1000.0;

/// The unit of a figure, for showing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds, shown as microseconds.
    Micros,
    /// A second, for each CPU.
    PerCpu,
}

/// Something measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
#[expect(missing_docs, reason = "TABLE says what each is")]
pub enum Measure {
    RssTls,
    RssClear,
    Kernel,
    IdleCpu,
    MessageCpu,
    CoreRate,
    RecordBytes,
    Handshakes,
    Logins,
    Base,
}

/// A row of [`TABLE`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which one.
    pub what: Measure,
    /// Its name in JSON.
    pub name: &'static str,
    /// What it is.
    pub text: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// The recorded one.
    pub value: f64,
    /// The run that it was recorded in: folder and file below `bench/runs`.
    pub run: &'static str,
}

const MILLION: &str = "2026-11-28-6.18.44-2cores-1000000/composite.json";
const PAIR: &str = "2026-11-28-6.18.44-2cores-pair/pair-throughput-3.json";
const TLS: &str = "2026-11-28-6.18.44-2cores-tls/idle-tls.json";

const fn row(
    what: Measure,
    name: &'static str,
    text: &'static str,
    (unit, value, run): (Unit, f64, &'static str),
) -> Row {
    Row { what, name, text, unit, value, run }
}

/// All of them, in the order of the enum. A test compares them with the recorded runs.
pub const TABLE: [Row; 10] = [
    row(
        Measure::RssTls,
        "rss_bytes_per_connection_tls",
        "server memory of an idle connection by TLS",
        (Unit::Bytes, 4076.6, TLS),
    ),
    row(
        Measure::RssClear,
        "rss_bytes_per_connection",
        "server memory of an idle connection in the clear",
        (Unit::Bytes, 415.1, MILLION),
    ),
    row(
        Measure::Kernel,
        "kernel_bytes_per_connection",
        "kernel memory of a connection",
        (Unit::Bytes, 4264.0, MILLION),
    ),
    row(
        Measure::IdleCpu,
        "idle_cpu_seconds_per_connection_second",
        "CPU time of an idle connection in a second, heartbeats",
        (Unit::Micros, 0.172_567e-6, MILLION),
    ),
    row(
        Measure::MessageCpu,
        "cpu_seconds_per_message",
        "CPU time of a message to a quiet client, core included",
        (Unit::Micros, 61.842e-6, MILLION),
    ),
    row(
        Measure::CoreRate,
        "messages_per_second_and_cpu",
        "messages of a core with its mirror, as fast as it goes",
        (Unit::PerCpu, 150_082.55, PAIR),
    ),
    row(
        Measure::RecordBytes,
        "log_bytes_per_message",
        "bytes in the log for a message besides its payload",
        (Unit::Bytes, 117.148, PAIR),
    ),
    row(
        Measure::Handshakes,
        "tls_logins_per_second_and_cpu",
        "logins by TLS, full handshakes",
        (Unit::PerCpu, 2757.25, TLS),
    ),
    row(
        Measure::Logins,
        "logins_per_second_and_cpu",
        "logins in the clear",
        (Unit::PerCpu, 5053.2, MILLION),
    ),
    row(
        Measure::Base,
        "empty_bytes",
        "memory of an empty server",
        (Unit::Bytes, 9_281_536.0, MILLION),
    ),
];

#[derive(Clone, Debug, PartialEq)]
struct Held {
    value: f64,
    /// Where one that was not recorded comes from.
    given: Option<String>,
}

/// All figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured([Held; TABLE.len()]);

/// A figure that was found in a report.
pub type Found = (Measure, f64);

impl Measured {
    /// The figures of the runs in `bench/runs`.
    pub fn recorded() -> Self {
        Self(TABLE.map(|row| Held { value: row.value, given: None }))
    }

    /// The figure.
    pub fn value(&self, what: Measure) -> f64 {
        self.0[what as usize].value
    }

    /// Where it is from.
    pub fn source(&self, what: Measure) -> String {
        let recorded = || format!("bench/runs/{}", TABLE[what as usize].run);
        self.0[what as usize].given.clone().unwrap_or_else(recorded)
    }

    fn set(&mut self, (what, value): Found, source: &str) {
        self.0[what as usize] = Held { value, given: Some(source.to_owned()) };
    }

    /// Takes what a file of `iris-loadgen --json` or `iris-loadgen search --json` says, or a line `capacity: ...` of a
    /// search. An error says why there is nothing in it.
    pub fn take(&mut self, assumed: &mut Assumed, text: &str, source: &str) -> Result<(), String> {
        let Ok(report) = serde_json::from_str::<Value>(text) else {
            let line = text.lines().rev().find_map(|line| line.trim().strip_prefix("capacity: "));
            let line =
                line.ok_or("it is neither JSON nor has it a line `capacity: ...` of a search")?;
            return self.take_line(assumed, line, source);
        };
        if report["kind"] != "capacity" {
            let found = of_report(&report)?;
            let source = described(&report, source);
            found.into_iter().for_each(|figure| self.set(figure, &source));
            return Ok(());
        }
        let value = report["value"].as_f64().filter(|value| *value >= 1.0);
        let value = value.ok_or("the search found no load that meets its objective")?;
        let best = &report["best"];
        let source = described(best, source);
        match report["of"].as_str() {
            Some("rate") => {
                let cpus = cpus(best).ok_or("the search does not say on how many cores it ran")?;
                self.set((Measure::CoreRate, value / cpus), &source);
            }
            Some("connections") => {
                assumed.set(Assumption::ConnectionsMax, value, &source)?;
            }
            _ => return Err("it says neither rate nor connections".to_owned()),
        }
        // Memory as well, if the server was looked at. What it did as fast as it may is what the search found.
        let found = of_report(best).unwrap_or_default();
        let more = found.into_iter().filter(|(what, _)| *what != Measure::CoreRate);
        more.for_each(|figure| self.set(figure, &source));
        Ok(())
    }

    /// Such as `518,735/s of throughput meet p99<500ms; ...; server 415.1 B rss a connection, CPU 1 s steady`.
    fn take_line(&mut self, assumed: &mut Assumed, line: &str, source: &str) -> Result<(), String> {
        let wrong = || "its line `capacity: ...` names no load that meets the objective".to_owned();
        let (load, rest) = line.split_once(" of ").ok_or_else(wrong)?;
        let is_of_connections = load.ends_with(" connections");
        let load = load.trim_end_matches("/s").trim_end_matches(" connections");
        let load = load.rsplit(' ').next().unwrap_or_default();
        let value: f64 = load.replace(',', "").parse().map_err(|_| wrong())?;
        if !(value.is_finite() && value >= 1.0) {
            return Err(wrong());
        }
        match is_of_connections {
            true => assumed.set(Assumption::ConnectionsMax, value, source)?,
            // The line does not say how many CPUs there were: as many as a core is planned to have.
            false => {
                let cpus = assumed.value(Assumption::CoreCpus);
                self.set((Measure::CoreRate, value / cpus), source);
            }
        }
        let rss = rest.split_once("; server ").and_then(|(_, rest)| rest.split_once(" B rss"));
        let rss = rss.and_then(|(rss, _)| rss.parse::<f64>().ok()).filter(is_usable);
        if let Some(rss) = rss.filter(|_| is_of_connections && value >= CONNECTIONS_MIN) {
            self.set((Measure::RssClear, rss), source);
        }
        Ok(())
    }
}

fn is_usable(value: &f64) -> bool {
    value.is_finite() && *value > 0.0 && *value < 1e15
}

fn number(report: &Value, pointer: &str) -> Option<f64> {
    report.pointer(pointer).and_then(Value::as_f64).filter(is_usable)
}

fn cpus(report: &Value) -> Option<f64> {
    number(report, "/environment/cores")
}

/// Where a report is from: its file, when it was made, on what, and whether it is valid.
fn described(report: &Value, source: &str) -> String {
    let text = |pointer: &str| report.pointer(pointer).and_then(Value::as_str);
    let mut out = source.to_owned();
    if let (Some(date), Some(kernel)) = (text("/environment/date"), text("/environment/kernel")) {
        let clean = |c: &char| c.is_ascii_graphic();
        let (date, kernel) = (date.chars().take(20), kernel.chars().take(40));
        let date: String = date.filter(clean).collect();
        let kernel: String = kernel.filter(clean).collect();
        out += &format!(" ({date}, Linux {kernel})");
    }
    if report["valid"] == false {
        out += ", an invalid run: its latencies say nothing";
    }
    out
}

/// The figures of a report.
pub fn of_report(report: &Value) -> Result<Vec<Found>, String> {
    if !report["scenario"].is_string() {
        return Err("it is no report of iris-loadgen --json".to_owned());
    }
    if report["protocol"].as_str().is_some_and(|protocol| protocol != "iris") {
        return Err("it is of another server than Iris".to_owned());
    }
    for fault in ["lost", "duplicates", "reordered", "corrupted"] {
        if report[fault].as_u64().is_some_and(|count| count > 0) {
            return Err(format!("messages were {fault} in that run: nothing can be planned by it"));
        }
    }
    let mut found = Vec::new();
    memory(report, &mut found);
    processor(report, &mut found);
    speed(report, &mut found);
    if found.is_empty() {
        return Err(
            "there is nothing to plan by in it: give iris-loadgen the server's --pid and 1,000 \
                    connections or more, or a scenario throughput without --rate"
                .to_owned(),
        );
    }
    Ok(found)
}

fn is_tls(report: &Value) -> bool {
    report["tls_handshakes"].is_object()
}

fn memory(report: &Value, found: &mut Vec<Found>) {
    if number(report, "/connections_open").is_none_or(|open| open < CONNECTIONS_MIN) {
        return;
    }
    let rss = if is_tls(report) { Measure::RssTls } else { Measure::RssClear };
    let of = [
        (rss, "/server/rss_bytes_per_connection"),
        (Measure::Kernel, "/server/kernel_bytes_per_connection"),
        (Measure::Base, "/server/rss_before_bytes"),
    ];
    found.extend(of.into_iter().filter_map(|(what, at)| Some((what, number(report, at)?))));
    let login = match (is_tls(report), cpus(report)) {
        // What reactors took for it is known: what the generator took of the same CPUs does not count.
        (true, _) => number(report, "/server_reactor_busy_seconds")
            .and_then(|busy| Some((Measure::Handshakes, number(report, "/login/count")? / busy))),
        (false, Some(cpus)) => {
            number(report, "/login/per_s").map(|per_s| (Measure::Logins, per_s / cpus))
        }
        (false, None) => None,
    };
    found.extend(login);
}

fn processor(report: &Value, found: &mut Vec<Found>) {
    let connections = number(report, "/connections_open").unwrap_or(0.0);
    let idle = number(report, "/hold/server_cpu_seconds")
        .zip(number(report, "/hold/seconds"))
        .filter(|_| connections >= CONNECTIONS_MIN)
        .map(|(cpu, seconds)| cpu / seconds / connections);
    found.extend(idle.map(|idle| (Measure::IdleCpu, idle)));
    let is_paced = number(report, "/environment/rate").is_some();
    let of = |at| number(report, at);
    let (Some(cpu), Some(rate), Some(seconds)) = (
        of("/server/cpu_seconds_steady").filter(|_| is_paced),
        of("/rate_per_s"),
        of("/environment/duration_seconds"),
    ) else {
        return;
    };
    let cpu = cpu - idle.unwrap_or(0.0) * connections * seconds;
    let each = cpu / (rate * seconds);
    found.extend(Some((Measure::MessageCpu, each)).filter(|(_, each)| is_usable(each)));
}

fn speed(report: &Value, found: &mut Vec<Found>) {
    let is_free = report["environment"]["rate"].as_u64() == Some(0);
    let is_fast =
        ["throughput", "fanin"].contains(&report["scenario"].as_str().unwrap_or_default());
    if is_free && is_fast && report["valid"] == true {
        let rate = number(report, "/rate_per_s").zip(cpus(report));
        found.extend(rate.map(|(rate, cpus)| (Measure::CoreRate, rate / cpus)));
    }
    // `bench/pair.py` notes what both cores wrote.
    let nodes = report["nodes"].as_array().map_or(0, Vec::len);
    let cores = report["nodes"].as_array().into_iter().flatten();
    let cores = cores.filter(|node| node["roles"] == serde_json::json!(["core"])).count();
    let written = number(report, "/written_bytes").zip(number(report, "/messages"));
    let payload = report["environment"]["payload_bytes"].as_f64();
    if let (Some((bytes, messages)), Some(payload), true) =
        (written, payload, nodes > 0 && cores > 0)
    {
        let each = bytes / cores as f64 / messages - payload;
        found.extend(Some((Measure::RecordBytes, each)).filter(|(_, each)| is_usable(each)));
    }
}
