//! `search`: the highest rate, or number of connections, that meets an objective. [`crate::search`] decides what to try.

use super::{TOO_SLOW, at_least, say};
use crate::cli::{SearchFlags, Searched, Varied};
use crate::objective::{Checked, Objectives};
use crate::report::{EXIT_INVALID, EXIT_MISSED, Report, grouped, round};
use crate::search::{Plan, Search, Stage, Verdict};
use anyhow::{Context, ensure};
use serde::Serialize;

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
    let flags = search.scenario.flags();
    let slo = flags.slo.clone().unwrap_or_default();
    ensure!(!slo.0.is_empty(), "search needs an objective: --slo 'p99<10ms'");
    flags.observe.check_no_files()?;
    let of = search.of.unwrap_or(match search.scenario.has_rate() {
        true => Varied::Rate,
        false => Varied::Connections,
    });
    let plan = check(&search, of)?;
    let unit = if of == Varied::Connections { search.scenario.users_together() } else { 1 };
    let in_units = Plan { from: plan.from.div_ceil(unit), to: plan.to / unit, ..plan };
    let mut hunt = Hunt { search, of, slo, probes: Vec::new(), best: None };
    let verdict = hunt.go(Search::new(in_units), unit)?;
    hunt.tell(plan, verdict)
}

fn check(search: &SearchFlags, of: Varied) -> anyhow::Result<Plan> {
    let SearchFlags { from, to, step, precision, confirm, ref scenario, .. } = *search;
    ensure!(from <= to, "--from {from}: more than --to {to}");
    ensure!(step.is_finite() && (1.1..=100.0).contains(&step), "--step {step}: 1.1 to 100");
    ensure!((0.5..=50.0).contains(&precision), "--precision {precision}: 0.5 to 50 percent");
    let has_rate = scenario.rate().unwrap_or(0) > 0;
    let (name, rate) = match scenario {
        Searched::Presence(_) => (scenario.name(), "--flaps"),
        _ => (scenario.name(), "--rate"),
    };
    match of {
        Varied::Rate => {
            ensure!(scenario.has_rate(), "{name} has no rate: search it with --of connections");
            ensure!(!has_rate, "{rate} is what is searched; leave it out, or use --of connections");
        }
        Varied::Connections => {
            let given = scenario.flags().connections;
            ensure!(given.is_none(), "--connections is what is searched; leave it out");
            ensure!(
                has_rate || scenario.is_paced() || !scenario.has_rate(),
                "--of connections with messages needs a --rate that stays the same"
            );
            let most = u32::try_from(to).context("--to: more connections than there can be")?;
            at_least(most, 2, "the search ends there")?;
            let least = scenario.connections_min();
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
        let one = self.search.scenario.at(self.of, load, !self.probes.is_empty())?;
        super::run(one).expect("what is searched is a scenario")
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
        why.extend(self.flaps_undone(load, report));
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

    /// Why a rate of users who log out was not reached: too many of them were away.
    fn flaps_undone(&self, load: u64, report: &Report) -> Option<String> {
        if self.of != Varied::Rate || report.presence.is_none() {
            return None;
        }
        let environment = &report.environment;
        let due = load as f64 * (environment.duration_seconds + environment.warmup_seconds);
        let cut = report.returns.map_or(0, |returns| returns.cut);
        // Each thread rounds its share down.
        let least = due * (1.0 - UNDONE_SHARE_MAX) - f64::from(report.generator.threads);
        ((cut as f64) < least).then(|| {
            format!(
                "of {} users due to log out {} did: use more --connections",
                grouped(due as u64),
                grouped(cut)
            )
        })
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
        let by_us = |why: &String| why.contains(TOO_SLOW) || why.contains("could not run");
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
        let found = Found {
            kind: "capacity",
            scenario: self.search.scenario.name(),
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
        if let Some(path) = &self.search.scenario.flags().json {
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
