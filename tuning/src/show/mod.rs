//! Text for people. JSON is the data itself, and made where it is printed.

pub mod script;

use std::fmt::Write as _;

use crate::catalogue::{ENTRIES, Entry, Scope, Severity};
use crate::commands::{Compared, Outcome, Step};
use crate::facts::Facts;
use crate::findings::{Finding, Fix, mib};
use crate::plan::{Plan, list as cpu_list};

const INFALLIBLE: &str = "writing to a String cannot fail";
/// Columns of prose.
const COLUMNS: usize = 100;

/// A table: columns as wide as their widest cell, the last one as it comes.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            write!(line, "{cell:width$}  ").expect(INFALLIBLE);
        }
        writeln!(text, "{}", line.trim_end()).expect(INFALLIBLE);
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

fn severity(severity: Severity) -> String {
    match severity {
        Severity::Warning => "warning",
        Severity::Fatal => "fatal",
    }
    .to_owned()
}

fn findings<'a>(findings: impl Iterator<Item = &'a Finding>) -> String {
    let row = |finding: &Finding| {
        vec![
            finding.condition.to_owned(),
            finding.required.clone(),
            finding.current.clone(),
            severity(finding.severity),
            if finding.passed { "yes" } else { "no" }.to_owned(),
            finding.why.to_owned(),
        ]
    };
    let rows: Vec<_> = findings.map(row).collect();
    table(&["CONDITION", "REQUIRED", "CURRENT", "SEVERITY", "PASSED", "WHY"], &rows)
}

/// What to do about what does not hold.
fn to_do<'a>(failed: impl Iterator<Item = &'a Finding>) -> String {
    let mut text = String::new();
    for finding in failed {
        let next = finding.next.as_deref().unwrap_or_default();
        writeln!(text, "  {}: {next}", finding.id).expect(INFALLIBLE);
    }
    text
}

fn failed(plan: &Plan) -> Vec<&Finding> {
    plan.findings.iter().filter(|finding| !finding.passed).collect()
}

/// Threads and memory.
fn sizing(facts: &Facts, plan: &Plan) -> String {
    let (sizing, memory) = (&plan.sizing, &plan.sizing.memory);
    let request = &plan.request;
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect(INFALLIBLE);
    line(format!(
        "{} connections{}, profile {}, on {}{}, {}{}",
        request.connections,
        if request.tls { " by TLS" } else { "" },
        request.profile.name(),
        if facts.cpus.len() == 1 {
            "1 CPU".to_owned()
        } else {
            format!("{} CPUs", facts.cpus.len())
        },
        facts.quota.map_or(String::new(), |quota| format!(" (quota {})", quota.cpus())),
        mib(memory.available),
        facts.container.as_ref().map_or(String::new(), |kind| format!(", in a container ({kind})")),
    ));
    if !sizing.reactor_cpus.is_empty() {
        line(format!(
            "reactors    {} on CPU {}; up to {} connections each, in {} of {} slots",
            sizing.reactor_cpus.len(),
            cpu_list(&sizing.reactor_cpus),
            sizing.connections_per_reactor,
            if sizing.rings_per_reactor == 1 {
                "a ring".to_owned()
            } else {
                format!("{} rings", sizing.rings_per_reactor)
            },
            sizing.ring_slots,
        ));
    }
    if !sizing.partition_cpus.is_empty() {
        let cpus = cpu_list(&sizing.partition_cpus);
        line(format!("partitions  {} on CPU {cpus}", sizing.partition_cpus.len()));
    }
    let parts = [
        ("kernel", memory.kernel),
        ("server", memory.server),
        ("rings", memory.rings),
        ("queues", memory.queues),
        ("log", memory.log),
        ("system", memory.system),
    ];
    let parts = parts.iter().filter(|(_, bytes)| *bytes > 0);
    let parts: Vec<_> = parts.map(|(name, bytes)| format!("{name} {}", mib(*bytes))).collect();
    line(format!("memory      {}: {}", mib(memory.total()), parts.join(", ")));
    line(format!("            about {} connections fit into it\n", memory.connections_max));
    text
}

/// The answer of `check`.
pub fn check(facts: &Facts, plan: &Plan) -> String {
    let mut text = sizing(facts, plan);
    text += &findings(plan.findings.iter());
    text += "\n";
    text += &verdict(plan);
    text
}

fn verdict(plan: &Plan) -> String {
    let failed = failed(plan);
    let all = plan.findings.len();
    if failed.is_empty() {
        return format!("all {all} conditions hold\n");
    }
    let fatal = failed.iter().filter(|finding| finding.severity == Severity::Fatal).count();
    let ours = failed.iter().filter(|finding| finding.fix == Some(Fix::Apply)).count();
    let counts = format!(
        "{} of {all} conditions do not hold, {fatal} of them fatal; iris-tune apply sets {ours}:",
        failed.len()
    );
    format!("{counts}\n{}", to_do(failed.into_iter()))
}

/// The answer of `plan`.
pub fn plan(facts: &Facts, plan: &Plan) -> String {
    let mut text = sizing(facts, plan);
    text += &verdict(plan);
    let due: Vec<_> = plan.settings.iter().filter(|setting| setting.is_due()).collect();
    if !due.is_empty() {
        text += "\nKernel settings that change:\n";
        let row = |current: &str, name: &str, wanted: &str| {
            vec![format!("  {name}"), current.to_owned(), "->".to_owned(), wanted.to_owned()]
        };
        let rows: Vec<_> = due
            .iter()
            .map(|setting| {
                row(setting.current.as_deref().unwrap_or(""), setting.name, &setting.wanted)
            })
            .collect();
        text += &table(&["  SETTING", "NOW", "", "THEN"], &rows);
    }
    for file in &plan.files {
        writeln!(text, "\n==> {} <==\n{}", file.path, file.contents.trim_end()).expect(INFALLIBLE);
    }
    text
}

/// The answer of an `apply` that does nothing.
pub fn refused(against: &[&Finding]) -> String {
    let mut text = findings(against.iter().copied());
    text += "\nnothing was changed: apply cannot change what is fatal here; --force goes on in spite of it\n";
    text += &to_do(against.iter().copied());
    text
}

fn steps(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let outcome = match step.outcome {
            Outcome::Written => "written",
            Outcome::Unchanged => "as it was",
            Outcome::Set => "set",
            Outcome::Restored => "restored",
            Outcome::Removed => "removed",
            Outcome::Left => "left",
            Outcome::Failed => "FAILED",
        };
        let line = format!("{outcome:10} {}  {}", step.target, step.detail);
        writeln!(text, "{}", line.trim_end()).expect(INFALLIBLE);
    }
    text
}

/// The answer of `apply`.
pub fn applied(plan: &Plan, done: &[Step], left: &[&Finding], is_live: bool) -> String {
    let mut text = steps(done);
    if !is_live {
        text +=
            "\nThis is not the running machine: files were written, kernel values were not set.\n";
    }
    if !left.is_empty() {
        text += "\nLeft to do:\n";
        text += &to_do(left.iter().copied());
    }
    let is_changed = done
        .iter()
        .any(|step| step.target.contains("/systemd/") && step.outcome != Outcome::Unchanged);
    if let (Some(unit), true) = (plan.request.profile.unit(), is_live && is_changed) {
        let unit = unit.trim_end_matches(".service");
        let unit = if unit.ends_with('@') { format!("{unit}NAME") } else { unit.to_owned() };
        writeln!(text, "\nThen: systemctl daemon-reload && systemctl restart {unit}")
            .expect(INFALLIBLE);
    }
    text
}

/// The answer of `undo`.
pub fn undone(done: &[Step], is_live: bool) -> String {
    let mut text = steps(done);
    if done.is_empty() {
        text += "all is as it was before\n";
    }
    if is_live && done.iter().any(|step| step.target.contains("/systemd/")) {
        text += "\nThen: systemctl daemon-reload, and restart the service\n";
    }
    text
}

/// The answer of `verify`.
pub fn verified(compared: &[Compared], left: &[&Finding]) -> String {
    let row = |row: &Compared| {
        let passed = if row.passed { "yes" } else { "no" };
        vec![row.target.clone(), row.applied.clone(), row.current.clone(), passed.to_owned()]
    };
    let rows: Vec<_> = compared.iter().map(row).collect();
    let mut text = table(&["WHAT", "APPLIED", "CURRENT", "PASSED"], &rows);
    let changed = compared.iter().filter(|row| !row.passed).count();
    text += "\n";
    match changed {
        0 => text += "all is as it was applied\n",
        _ => {
            let noun = if changed == 1 { "row differs" } else { "rows differ" };
            writeln!(text, "{changed} {noun}: iris-tune apply sets it again").expect(INFALLIBLE);
        }
    }
    if !left.is_empty() {
        text += "\nBesides, these conditions do not hold:\n";
        text += &to_do(left.iter().copied());
    }
    text
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Host => "apply, on the host",
        Scope::Namespace => "apply",
        Scope::Unit => "apply, in the unit",
        Scope::Boot => "you, at boot",
        Scope::Hand => "you",
    }
}

/// The answer of `list`.
pub fn list(plan: &Plan) -> String {
    let row = |entry: &Entry| {
        let finding = plan.findings.iter().find(|finding| finding.id == entry.id);
        let here = match finding.map(|finding| (finding.passed, finding.fix)) {
            None => "not asked for",
            Some((true, _)) => "holds",
            Some((_, Some(Fix::Apply))) => "apply sets it",
            Some((_, Some(Fix::Host))) => "set on the host",
            Some(_) => "by hand",
        };
        let profiles: Vec<_> = entry.profiles.iter().map(|profile| profile.name()).collect();
        vec![
            entry.id.to_owned(),
            here.to_owned(),
            scope(entry.scope).to_owned(),
            profiles.join(","),
            entry.condition.to_owned(),
        ]
    };
    let rows: Vec<_> = ENTRIES.iter().map(row).collect();
    table(&["ID", "HERE", "CHANGED BY", "PROFILES", "CONDITION"], &rows)
}

/// The answer of `explain`.
pub fn explain(entry: &Entry) -> String {
    let profiles: Vec<_> = entry.profiles.iter().map(|profile| profile.name()).collect();
    let mut text = format!("{}: {}\n\n", entry.id, entry.condition);
    text += &wrapped(&format!("Why: {}.", entry.why));
    text += "\n";
    text += &wrapped(entry.explanation);
    let (by, profiles) = (scope(entry.scope), profiles.join(", "));
    writeln!(text, "\nChanged by: {by}. Profiles: {profiles}.").expect(INFALLIBLE);
    text
}

fn wrapped(text: &str) -> String {
    let (mut lines, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > COLUMNS {
            lines.push('\n');
            column = 0;
        } else if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines += word;
        column += width;
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "long cell".to_owned(), "x y".to_owned()]];
        assert_eq!(table(&["HEAD", "B", "C"], &rows), "HEAD  B          C\na     long cell  x y\n");
    }

    #[test]
    fn prose_fits_its_columns_and_loses_no_word() {
        for entry in ENTRIES {
            let text = wrapped(entry.explanation);
            assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{}", entry.id);
            assert!(text.split_whitespace().eq(entry.explanation.split_whitespace()));
        }
    }
}
