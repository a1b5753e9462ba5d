//! The counts that were recorded, and whether today's are more.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::facts::{self, Facts};
use crate::work::Bench;

/// What a file of counts holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    /// When it was recorded.
    pub(crate) date: String,
    /// With what.
    pub(crate) facts: Facts,
    /// In the order in which they ran.
    pub(crate) counts: Vec<Count>,
}

/// Instructions of one benchmark.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {
    pub(crate) name: String,
    /// What one operation is.
    pub(crate) op: String,
    /// Operations that were measured, at least 1.
    pub(crate) ops: u64,
    /// Instructions of all of them.
    pub(crate) instructions: u64,
}

impl Count {
    pub(crate) fn new(bench: &Bench, instructions: u64) -> Self {
        let (name, op) = (bench.name.to_owned(), bench.op.to_owned());
        Self { name, op, ops: bench.ops_measured(), instructions }
    }

    /// Instructions of one operation.
    fn each(&self) -> f64 {
        self.instructions as f64 / self.ops.max(1) as f64
    }
}

impl Baseline {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let what = || {
            let path = path.display();
            format!("cannot read the baseline {path}: record one (make bench-baseline)")
        };
        let text = fs::read_to_string(path).with_context(what)?;
        serde_json::from_str(&text).with_context(what)
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// What became of one benchmark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Within the limit.
    Same,
    /// Fewer instructions, by more than the limit.
    Less,
    /// More instructions than the limit allows.
    More,
    /// The baseline does not know it.
    New,
    /// Only the baseline knows it.
    Gone,
}

impl Verdict {
    fn note(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Less => "less: record it",
            Self::More => "MORE",
            Self::New => "not in the baseline",
            Self::Gone => "in the baseline only",
        }
    }
}

/// One benchmark, then and now.
#[derive(Clone, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) verdict: Verdict,
    before: Option<&'a Count>,
    now: Option<&'a Count>,
}

impl Row<'_> {
    /// The change of one operation's instructions, in percent of the baseline's.
    fn change(&self) -> Option<f64> {
        let (before, now) = (self.before?.each(), self.now?.each());
        Some(100.0 * (now - before) / before)
    }
}

/// Compares, by instructions of one operation. More than `limit` percent of growth is [`Verdict::More`].
pub(crate) fn compare<'a>(baseline: &'a Baseline, now: &'a [Count], limit: f64) -> Vec<Row<'a>> {
    let of = |counts: &'a [Count], name: &str| counts.iter().find(|count| count.name == name);
    let today = now.iter().map(|count| {
        let mut row = Row {
            verdict: Verdict::New,
            before: of(&baseline.counts, &count.name),
            now: Some(count),
        };
        if let Some(change) = row.change() {
            row.verdict = match change {
                change if change > limit => Verdict::More,
                change if change < -limit => Verdict::Less,
                _ => Verdict::Same,
            };
        }
        row
    });
    let gone = baseline.counts.iter().filter(|count| of(now, &count.name).is_none());
    let gone = gone.map(|count| Row { verdict: Verdict::Gone, before: Some(count), now: None });
    today.chain(gone).collect()
}

/// The table, for people.
pub(crate) fn table(rows: &[Row<'_>]) -> String {
    let mut table = line("benchmark", "instructions a", ["baseline", "now", "change"], "");
    for row in rows {
        let each =
            |count: Option<&Count>| count.map_or("-".to_owned(), |of| format!("{:.1}", of.each()));
        let change = row.change().map_or("-".to_owned(), |change| format!("{change:+.2} %"));
        let Some(count) = row.now.or(row.before) else { continue };
        let cells = [each(row.before), each(row.now), change];
        table +=
            &line(&count.name, &count.op, cells.each_ref().map(String::as_str), row.verdict.note());
    }
    table
}

fn line(name: &str, op: &str, cells: [&str; 3], note: &str) -> String {
    let [before, now, change] = cells;
    let mut line = String::new();
    let result = write!(line, "{name:<24} {op:<14} {before:>10} {now:>10} {change:>10}  {note}");
    result.expect("writing to a String cannot fail");
    line.trim_end().to_owned() + "\n"
}

/// What differs from the baseline besides the code, and what that means. Empty if nothing does.
pub(crate) fn doubts(baseline: &Baseline, now: &Facts) -> String {
    let lines = facts::differences(&baseline.facts, now);
    if lines.is_empty() {
        return String::new();
    }
    format!(
        "The baseline of {} was recorded with something else, so counts may differ although the code does not:\n  \
         {}\nTo tell code from tools, record a baseline of the commit before here (make bench-baseline), and check again.\n",
        baseline.date,
        lines.join("\n  ")
    )
}

#[cfg(test)]
#[path = "baseline/tests.rs"]
mod tests;
