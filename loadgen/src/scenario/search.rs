//! `search`: the highest rate, or number of connections, that meets an objective. [`crate::search`] decides what to try.

use super::{at_least, fanin, idle, latency, say, throughput};
use crate::cli::{Flags, LatencyFlags, SearchFlags, Searched, Varied};
use crate::objective::{Checked, Objectives};
use crate::report::{EXIT_INVALID, EXIT_MISSED, Report, grouped, round};
use crate::search::{Plan, Search, Stage, Verdict};
use anyhow::{Context, ensure};
use serde::Serialize;
use std::time::Duration;

/// More than this share of the messages that fell due and were refused or never sent: the rate was not reached, whatever the
/// latencies of the rest say.
const UNDONE_SHARE_MAX: f64 = 0.01;

/// One run of a search.
#[derive(Debug, Serialize)]
struct Probe {
    stage: Stage,
    load: u64,
    met: bool,
    /// A run that says nothing counts as missed.
    valid: bool,
    /// Why it was missed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why: Vec<String>,
    rate_per_s: f64,
    p99_us: Option<f64>,
    objectives: Vec<Checked>,
}

/// What a search found: the file of `--json`.
#[derive(Debug, Serialize)]
struct Found<'a> {
    /// `capacity`: what kind of file this is.
    kind: &'static str,
    scenario: &'a str,
    /// `rate` or `connections`.
    of: &'a str,
    verdict: &'a str,
    value: Option<u64>,
    slo: Vec<&'a str>,
    precision_percent: f64,
    confirmed: u32,
    /// The generator, and not the server, was what stood in the way.
    generator_limited: bool,
    probes: &'a [Probe],
    /// The last run at that value.
    best: Option<&'a Report>,
}

/// Searches. The exit code.
pub fn run(search: SearchFlags) -> anyhow::Result<u8> {
    let slo = search.flags.slo.clone().unwrap_or_default();
    ensure!(!slo.0.is_empty(), "search needs an objective: --slo 'p99<10ms'");
    search.flags.observe.check_no_files()?;
    let of = search.of.unwrap_or(match search.scenario {
        Searched::Idle => Varied::Connections,
        Searched::Throughput | Searched::Latency | Searched::Fanin => Varied::Rate,
    });
    let plan = check(&search, of)?;
    // Pairs come in twos.
    let of_pairs = of == Varied::Connections && search.scenario == Searched::Throughput;
    let unit = if of_pairs { 2 } else { 1 };
    let in_units = Plan { from: plan.from.div_ceil(unit), to: plan.to / unit, ..plan };
    let mut hunt = Hunt { search, of, slo, probes: Vec::new(), best: None };
    let verdict = hunt.go(Search::new(in_units), unit)?;
    hunt.tell(plan, verdict)
}

fn check(search: &SearchFlags, of: Varied) -> anyhow::Result<Plan> {
    let SearchFlags { from, to, step, precision, confirm, ref flags, scenario, .. } = *search;
    ensure!(from <= to, "--from {from}: more than --to {to}");
    ensure!(step.is_finite() && (1.1..=100.0).contains(&step), "--step {step}: 1.1 to 100");
    ensure!((0.5..=50.0).contains(&precision), "--precision {precision}: 0.5 to 50 percent");
    let is_idle = scenario == Searched::Idle;
    match of {
        Varied::Rate => {
            ensure!(!is_idle, "idle sends nothing: search it with --of connections");
            ensure!(
                flags.rate.unwrap_or(0) == 0,
                "--rate is what is searched; leave it out, or use --of connections"
            );
        }
        Varied::Connections => {
            ensure!(flags.connections.is_none(), "--connections is what is searched; leave it out");
            ensure!(
                is_idle || flags.rate.unwrap_or(0) > 0,
                "--of connections with messages needs a --rate that stays the same"
            );
            let most = u32::try_from(to).context("--to: more connections than there can be")?;
            at_least(most, 2, "the search ends there")?;
            let least = if is_idle { 1 } else { 2 };
            ensure!(from >= least && from < to, "--from {from}: {least} to less than --to");
        }
    }
    Ok(Plan { from, to, step, precision: precision / 100.0, confirm })
}

struct Hunt {
    search: SearchFlags,
    of: Varied,
    slo: Objectives,
    probes: Vec<Probe>,
    best: Option<(u64, Report)>,
}

impl Hunt {
    fn go(&mut self, mut search: Search, unit: u64) -> anyhow::Result<Verdict> {
        loop {
            let load = match search.load_to_try() {
                Ok(load) => load * unit,
                Err(Verdict::Found(load)) => return Ok(Verdict::Found(load * unit)),
                Err(Verdict::AtLeast(load)) => return Ok(Verdict::AtLeast(load * unit)),
                Err(Verdict::Nothing) => return Ok(Verdict::Nothing),
            };
            let stage = search.stage();
            let mut report = match self.run_once(load) {
                Ok(report) => report,
                // The first one shows what is wrong with the command; later ones, what is too much.
                Err(error) if self.probes.is_empty() => return Err(error),
                Err(error) => Report {
                    invalid_reasons: vec![format!("it could not run: {error:#}")],
                    ..Report::default()
                },
            };
            report.objectives = self.slo.check(&report);
            let probe = self.judge(stage, load, &report);
            say(&self.line(&probe));
            search.found(probe.met);
            if probe.met {
                self.best = Some((load, report));
            }
            self.probes.push(probe);
        }
    }

    fn run_once(&self, load: u64) -> anyhow::Result<Report> {
        let mut flags: Flags = self.search.flags.clone();
        (flags.json, flags.quiet) = (None, !self.probes.is_empty());
        match self.of {
            Varied::Rate => flags.rate = Some(load),
            Varied::Connections => {
                flags.connections = Some(u32::try_from(load)?);
            }
        }
        match self.search.scenario {
            Searched::Throughput => throughput::run(flags),
            Searched::Fanin => fanin::run(flags),
            Searched::Idle => idle::run(flags),
            Searched::Latency => {
                let (floor, floor_dir) = (Duration::ZERO, None);
                latency::run(LatencyFlags { flags, floor, floor_dir })
            }
        }
    }

    fn judge(&self, stage: Stage, load: u64, report: &Report) -> Probe {
        let mut why = report.invalid_reasons.clone();
        if !report.is_clean() {
            why.push("messages were lost, repeated, reordered or damaged".to_owned());
        }
        let missed = report.objectives.iter().filter(|objective| !objective.met);
        why.extend(missed.map(Checked::line));
        let refused: u64 = report.rejected.values().sum();
        let due = report.sent + report.not_sent;
        if (report.not_sent + refused) as f64 > due as f64 * UNDONE_SHARE_MAX {
            let (not_sent, refused) = (grouped(report.not_sent), grouped(refused));
            let due = grouped(due);
            why.push(format!("of {due} messages due {not_sent} were not sent, {refused} refused"));
        }
        Probe {
            stage,
            load,
            met: why.is_empty(),
            valid: report.valid,
            why,
            rate_per_s: report.rate_per_s,
            p99_us: report.latency_us.as_ref().map(|latency| latency.p99),
            objectives: report.objectives.clone(),
        }
    }

    fn unit(&self) -> &'static str {
        match self.of {
            Varied::Rate => "/s",
            Varied::Connections => " connections",
        }
    }

    fn line(&self, probe: &Probe) -> String {
        let stage = match probe.stage {
            Stage::Climb => "climb",
            Stage::Halve => "halve",
            Stage::Confirm => "confirm",
        };
        let p99 = probe.p99_us.map_or(String::new(), |p99| format!("  p99 {p99} us"));
        let verdict = if probe.met { "met" } else { "missed" };
        let why = probe.why.join("; ");
        let load = format!("{}{}", grouped(probe.load), self.unit());
        format!("{stage:<8} {load:<22} {verdict:<7}{p99}  {why}\n")
    }

    /// Whether the lowest load that was missed at last was missed because the generator could not make it.
    fn is_generator_limited(&self, value: u64) -> bool {
        let above = self.probes.iter().filter(|probe| probe.load > value && !probe.met);
        let lowest = above.min_by_key(|probe| probe.load);
        let by_us = |why: &String| why.contains("generator") || why.contains("could not run");
        lowest.is_some_and(|probe| !probe.valid && probe.why.iter().any(by_us))
    }

    fn tell(&self, plan: Plan, verdict: Verdict) -> anyhow::Result<u8> {
        let value = match verdict {
            Verdict::Found(value) | Verdict::AtLeast(value) => Some(value),
            Verdict::Nothing => None,
        };
        let generator_limited = value.is_some_and(|value| self.is_generator_limited(value));
        let is_bound = matches!(verdict, Verdict::AtLeast(_)) || generator_limited;
        let best = self.best.as_ref().filter(|(load, _)| Some(*load) == value).map(|(_, of)| of);
        let name = match self.search.scenario {
            Searched::Throughput => "throughput",
            Searched::Latency => "latency",
            Searched::Fanin => "fanin",
            Searched::Idle => "idle",
        };
        let found = Found {
            kind: "capacity",
            scenario: name,
            of: if self.of == Varied::Rate { "rate" } else { "connections" },
            verdict: match (value, is_bound) {
                (None, _) => "nothing",
                (Some(_), true) => "at_least",
                (Some(_), false) => "found",
            },
            value,
            slo: self.slo.0.iter().map(|objective| objective.text()).collect(),
            precision_percent: round(plan.precision * 100.0, 3),
            confirmed: plan.confirm,
            generator_limited,
            probes: &self.probes,
            best,
        };
        say(&self.capacity_line(&found));
        if let Some(path) = &self.search.flags.json {
            let text = serde_json::to_string_pretty(&found).context("cannot make JSON")?;
            std::fs::write(path, text + "\n")
                .with_context(|| format!("cannot write --json {}", path.display()))?;
        }
        Ok(match value {
            Some(_) => 0,
            None if self.probes.iter().all(|probe| !probe.valid) => EXIT_INVALID,
            None => EXIT_MISSED,
        })
    }

    fn capacity_line(&self, found: &Found<'_>) -> String {
        let slo = found.slo.join(",");
        let Some(value) = found.value else {
            return format!("capacity: no {} of {} meets {slo}\n", found.of, found.scenario);
        };
        let bound = match (found.verdict, found.generator_limited) {
            ("at_least", true) => {
                "at least (the generator could not make more: use --threads, or more machines) "
            }
            ("at_least", false) => "at least (--to) ",
            _ => "",
        };
        let mut line = format!(
            "capacity: {bound}{}{} of {} meet {slo}; confirmed {} times, within {} %",
            grouped(value),
            self.unit(),
            found.scenario,
            found.confirmed,
            found.precision_percent,
        );
        if let Some(server) = found.best.and_then(|best| best.server.as_ref()) {
            line += &format!(
                "; server {} B rss a connection, CPU {} s steady",
                server.rss_bytes_per_connection, server.cpu_seconds_steady
            );
        }
        line + "\n"
    }
}
