//! `compare`: what changed from the runs A to the runs B, and whether it is more than repeats of one run differ.
//!
//! Of each figure the medians are compared. The noise is the larger of both spreads: from the lowest to the highest value
//! of A's runs, or of B's. A change counts if it is larger than that. One run each has no spread, so its changes are
//! told and judged as unknown; counts of lost, repeated, reordered and damaged messages have no noise and always count.

mod figures;

use crate::report::{EXIT_INVALID, EXIT_MISSED, grouped, round};
use crate::scenario::say;
use anyhow::{Context, bail, ensure};
use clap::Args;
use figures::{Better, CIRCUMSTANCES, CONDITIONS, FIGURES, Figure};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Flags of `compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareFlags {
    /// Two files of --json: before and after
    #[arg(value_name = "FILE", num_args = 0..=2, conflicts_with_all = ["a", "b"])]
    pub files: Vec<PathBuf>,
    /// Files of --json, repeats of the run before
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "b")]
    pub a: Vec<PathBuf>,
    /// Files of --json, repeats of the run after
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "a")]
    pub b: Vec<PathBuf>,
    /// Write the comparison to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Compare runs of different loads or machines, and invalid ones, as well
    #[arg(long)]
    pub force: bool,
}

/// What became of a figure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Same,
    WithinNoise,
    NoiseUnknown,
    Better,
    Worse,
}

/// A figure of both sides.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Change {
    figure: &'static str,
    unit: &'static str,
    /// Medians.
    a: f64,
    b: f64,
    /// Of A; `None` if that is 0.
    change_percent: Option<f64>,
    /// The larger spread of repeats, in the figure's unit; `None` if nothing was repeated.
    noise: Option<f64>,
    verdict: Verdict,
}

/// The file of `--json`.
#[derive(Debug, Serialize)]
struct Comparison<'a> {
    /// `comparison`: what kind of file this is.
    kind: &'static str,
    a: &'a [PathBuf],
    b: &'a [PathBuf],
    /// `worse`, `no_worse`, or `not_comparable`.
    verdict: &'static str,
    /// Why the runs are not comparable; with `--force`, what was passed over.
    differences: Vec<String>,
    /// What may differ, and may be why.
    circumstances: Vec<String>,
    changes: Vec<Change>,
}

/// A run, and the name of its file.
struct Read {
    name: String,
    run: Value,
}

/// Compares. The exit code.
pub fn run(flags: &CompareFlags) -> anyhow::Result<u8> {
    let (a, b) = match flags.files.as_slice() {
        [] if !flags.a.is_empty() => (flags.a.as_slice(), flags.b.as_slice()),
        [a, b] => (std::slice::from_ref(a), std::slice::from_ref(b)),
        _ => bail!("compare needs two files, A.json B.json, or repeats: --a A1 A2 --b B1 B2"),
    };
    let read =
        |paths: &[PathBuf]| paths.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>();
    let (of_a, of_b) = (read(a)?, read(b)?);
    let all: Vec<&Read> = of_a.iter().chain(&of_b).collect();
    let differences = differences(&all);
    let is_comparable = differences.is_empty() || flags.force;
    let changes = if is_comparable { changes(&of_a, &of_b) } else { Vec::new() };
    let is_worse = changes.iter().any(|change| change.verdict == Verdict::Worse);
    let comparison = Comparison {
        kind: "comparison",
        a,
        b,
        verdict: match (is_comparable, is_worse) {
            (false, _) => "not_comparable",
            (true, true) => "worse",
            (true, false) => "no_worse",
        },
        differences,
        circumstances: unlike(&all, &CIRCUMSTANCES),
        changes,
    };
    say(&comparison.table());
    if let Some(path) = &flags.json {
        let text = serde_json::to_string_pretty(&comparison).context("cannot make JSON")?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write --json {}", path.display()))?;
    }
    Ok(match (is_comparable, is_worse) {
        (false, _) => EXIT_INVALID,
        (true, true) => EXIT_MISSED,
        (true, false) => 0,
    })
}

fn read(path: &Path) -> anyhow::Result<Read> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let run: Value = serde_json::from_str(&text).with_context(|| format!("{name} is no JSON"))?;
    if let Some(kind) = run["kind"].as_str() {
        bail!("{name} is a {kind}, not a run: compare files that a scenario wrote with --json");
    }
    let is_run = run["scenario"].is_string() && run["environment"].is_object();
    ensure!(is_run, "{name} is no file that a scenario of iris-loadgen wrote with --json");
    Ok(Read { name, run })
}

/// Why these runs cannot be compared.
fn differences(all: &[&Read]) -> Vec<String> {
    let mut found: Vec<String> = all
        .iter()
        .filter(|read| read.run["valid"].as_bool() != Some(true))
        .map(|read| format!("{} is invalid: its figures say nothing", read.name))
        .collect();
    found.extend(unlike(all, &CONDITIONS));
    found
}

/// What is not the same in all runs; each with the first run that differs from the first of all.
fn unlike(all: &[&Read], places: &[(&str, &str)]) -> Vec<String> {
    let shown = |value: Option<&Value>| value.map_or("not said".to_owned(), Value::to_string);
    let differing = places.iter().filter_map(|(what, place)| {
        let (first, rest) = all.split_first()?;
        let of_first = first.run.pointer(place);
        let other = rest.iter().find(|read| read.run.pointer(place) != of_first)?;
        let (one, two) = (shown(of_first), shown(other.run.pointer(place)));
        Some(format!("{what}: {one} in {}, {two} in {}", first.name, other.name))
    });
    differing.collect()
}

fn changes(a: &[Read], b: &[Read]) -> Vec<Change> {
    let values = |figure: &Figure, reads: &[Read]| {
        reads.iter().map(|read| (figure.of)(&read.run)).collect::<Option<Vec<f64>>>()
    };
    let changed = FIGURES.iter().filter_map(|figure| {
        let (a, b) = (values(figure, a)?, values(figure, b)?);
        Some(change(figure, a, b))
    });
    changed.collect()
}

fn change(figure: &Figure, mut a: Vec<f64>, mut b: Vec<f64>) -> Change {
    let (spread_a, spread_b) = (spread(&mut a), spread(&mut b));
    let noise = match figure.is_exact {
        true => Some(0.0),
        false => [spread_a, spread_b].into_iter().flatten().reduce(f64::max),
    };
    let (a, b) = (median(&a), median(&b));
    let (grown, is_up) = ((b - a).abs(), b > a);
    let verdict = match noise {
        _ if grown == 0.0 => Verdict::Same,
        None => Verdict::NoiseUnknown,
        Some(noise) if grown <= noise => Verdict::WithinNoise,
        Some(_) if is_up == (figure.is_better == Better::Higher) => Verdict::Better,
        Some(_) => Verdict::Worse,
    };
    let change_percent = (a != 0.0).then(|| round((b - a) / a * 100.0, 2));
    let (figure, unit) = (figure.name, figure.unit);
    Change { figure, unit, a, b, change_percent, noise, verdict }
}

/// Sorts the values; from the lowest to the highest, if there are several.
fn spread(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (first, last) = (values.first()?, values.last()?);
    (values.len() > 1).then_some(last - first)
}

/// Of sorted values.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values[middle],
        _ => values[middle - 1].midpoint(values[middle]),
    }
}

impl Comparison<'_> {
    /// For people.
    fn table(&self) -> String {
        let mut table = String::new();
        if !self.changes.is_empty() {
            line(&mut table, ["figure", "A", "B", "change", "noise", ""]);
        }
        for change in &self.changes {
            let percent =
                change.change_percent.map_or("-".to_owned(), |percent| format!("{percent:+} %"));
            let noise = match (change.noise, change.a) {
                (None, _) => "unknown".to_owned(),
                (Some(noise), a) if a != 0.0 => format!("{} %", round(noise / a.abs() * 100.0, 2)),
                (Some(noise), _) => number(noise),
            };
            let name = match change.unit {
                "" => change.figure.to_owned(),
                unit => format!("{}, {unit}", change.figure),
            };
            let (a, b) = (number(change.a), number(change.b));
            line(&mut table, [&name, &a, &b, &percent, &noise, change.verdict.text()]);
        }
        let mut note = |text: &str| table += &format!("{text}\n");
        self.circumstances
            .iter()
            .for_each(|other| note(&format!("  differs, and may be why: {other}")));
        self.differences.iter().for_each(|other| note(&format!("  not comparable: {other}")));
        if self.changes.iter().any(|change| change.verdict == Verdict::NoiseUnknown) {
            note("  the noise is unknown: repeat both runs, and give --a A1 A2 A3 --b B1 B2 B3");
        }
        let worse = self.changes.iter().filter(|change| change.verdict == Verdict::Worse);
        let worse: Vec<&str> = worse.map(|change| change.figure).collect();
        note(&match self.verdict {
            "not_comparable" => "not comparable; --force compares all the same".to_owned(),
            "worse" => format!("WORSE beyond noise: {}", worse.join(", ")),
            _ => "no worse beyond noise".to_owned(),
        });
        table
    }
}

fn line(table: &mut String, cells: [&str; 6]) {
    let [name, a, b, change, noise, verdict] = cells;
    // Writing to a String cannot fail.
    let _ = writeln!(table, "  {name:<29} {a:>14} {b:>14} {change:>11} {noise:>9}  {verdict}");
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::WithinNoise => "within noise",
            Self::NoiseUnknown => "?",
            Self::Better => "better",
            Self::Worse => "WORSE",
        }
    }
}

fn number(value: f64) -> String {
    match value {
        value if value >= 1000.0 => grouped(value.round() as u64),
        value => round(value, 2).to_string(),
    }
}

#[cfg(test)]
mod tests;
