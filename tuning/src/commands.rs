//! The verbs: each gathers, decides, acts if it is one that does, prints, and says how the process ends.

use std::io::Write as _;

use anyhow::Context;
use serde::Serialize;
use serde_json::json;

use crate::catalogue::{ENTRIES, Entry, Severity, entry_of};
use crate::changes::{self, Change, Set};
use crate::cli::{Cli, Explain, Flags, Verb, Writing};
use crate::disk;
use crate::facts::Facts;
use crate::findings::{Finding, Fix};
use crate::gather::{Root, gather, sysctl};
use crate::plan::{Plan, obstacles, plan};
use crate::show;
use crate::state::{STATE_FILE, State};

/// All is well, or there are warnings and nobody is strict about them.
pub const EXIT_OK: u8 = 0;
/// There are warnings.
pub const EXIT_WARNING: u8 = 1;
/// Something is fatal, or nothing could be done.
pub const EXIT_FATAL: u8 = 2;
/// The form of all JSON that is printed.
const SCHEMA: u32 = 1;

/// A thing that was done, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// A file's path, or a setting's name.
    pub target: String,
    /// What became of it.
    pub outcome: Outcome,
    /// More about that.
    pub detail: String,
}

/// What became of a file or setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has other contents now.
    Written,
    /// It was so already.
    Unchanged,
    /// It has its value now.
    Set,
    /// It is as it was before.
    Restored,
    /// It was not there before, and is not now.
    Removed,
    /// Somebody else has changed it since.
    Left,
    /// It could not be done.
    Failed,
}

/// What `verify` compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// A file's path, or a setting's name.
    pub target: String,
    /// How it was applied.
    pub applied: String,
    /// How it is.
    pub current: String,
    /// Whether that is no less.
    pub passed: bool,
}

/// Does what was typed.
pub fn run(cli: Cli) -> anyhow::Result<u8> {
    match cli.verb {
        Verb::Check(flags) => check(&flags),
        Verb::Plan(writing) => show_plan(&writing),
        Verb::Apply(writing) => apply(&writing),
        Verb::Undo(writing) => undo(&writing),
        Verb::Verify(flags) => verify(&flags),
        Verb::List(flags) => list(&flags),
        Verb::Explain(explain) => explained(&explain),
    }
}

/// What all verbs look at first.
struct Look {
    root: Root,
    state: Option<State>,
    facts: Facts,
    plan: Plan,
}

impl Look {
    fn take(flags: &Flags) -> anyhow::Result<Self> {
        if !flags.root.is_dir() {
            anyhow::bail!("--root {}: there is no such folder", flags.root.display());
        }
        let root = Root::new(&flags.root);
        let state = disk::load(&root)?;
        let request = flags.request(state.as_ref());
        let facts = gather(&root, request.profile);
        let plan = plan(&facts, request);
        Ok(Self { root, state, facts, plan })
    }

    /// What all JSON begins with.
    fn json(&self, verb: &str, exit: u8) -> serde_json::Value {
        json!({
            "schema": SCHEMA,
            "verb": verb,
            "exit": exit,
            "request": self.plan.request,
            "sizing": self.plan.sizing,
            "findings": self.plan.findings,
        })
    }
}

fn exit_of<'a>(failed: impl Iterator<Item = &'a Finding>, strict: bool) -> u8 {
    match failed.map(|finding| finding.severity).max() {
        Some(Severity::Fatal) => EXIT_FATAL,
        Some(Severity::Warning) if strict => EXIT_WARNING,
        _ => EXIT_OK,
    }
}

fn failed(plan: &Plan) -> impl Iterator<Item = &Finding> {
    plan.findings.iter().filter(|finding| !finding.passed)
}

fn check(flags: &Flags) -> anyhow::Result<u8> {
    let look = Look::take(flags)?;
    let exit = exit_of(failed(&look.plan), flags.strict);
    if flags.json {
        let mut value = look.json("check", exit);
        value["machine"] = json!(look.facts);
        return print_json(&value, exit);
    }
    print(&show::check(&look.facts, &look.plan))?;
    Ok(exit)
}

fn show_plan(writing: &Writing) -> anyhow::Result<u8> {
    let look = Look::take(&writing.flags)?;
    if writing.script {
        print(&show::script::apply(&look.plan))?;
        return Ok(EXIT_OK);
    }
    let exit = exit_of(obstacles(&look.plan), false);
    if writing.flags.json {
        let mut value = look.json("plan", exit);
        value["machine"] = json!(look.facts);
        value["settings"] = json!(look.plan.settings);
        value["files"] = json!(look.plan.files);
        return print_json(&value, exit);
    }
    print(&show::plan(&look.facts, &look.plan))?;
    Ok(exit)
}

fn apply(writing: &Writing) -> anyhow::Result<u8> {
    let look = Look::take(&writing.flags)?;
    if writing.script {
        print(&show::script::apply(&look.plan))?;
        return Ok(EXIT_OK);
    }
    let flags = &writing.flags;
    let against: Vec<&Finding> = obstacles(&look.plan).collect();
    if !against.is_empty() && !writing.force {
        if flags.json {
            let mut value = look.json("apply", EXIT_FATAL);
            value["applied"] = json!(false);
            value["steps"] = json!([]);
            return print_json(&value, EXIT_FATAL);
        }
        print(&show::refused(&against))?;
        return Ok(EXIT_FATAL);
    }
    let steps = carry_out(&look, writing.force)?;
    // Where the kernel's values were set, they are looked at again.
    let after = Look::take(flags)?;
    let is_live = look.root.is_real();
    let left = failed(&after.plan).filter(|finding| is_live || finding.fix != Some(Fix::Apply));
    let left: Vec<&Finding> = left.collect();
    let has_failed = steps.iter().any(|step| step.outcome == Outcome::Failed);
    let exit = if has_failed { EXIT_FATAL } else { exit_of(left.iter().copied(), flags.strict) };
    if flags.json {
        let mut value = after.json("apply", exit);
        value["applied"] = json!(true);
        value["steps"] = json!(steps);
        return print_json(&value, exit);
    }
    print(&show::applied(&look.plan, &steps, &left, is_live))?;
    Ok(exit)
}

/// Changes what is to be changed. The state is on disk before the first change, so that each of them can be undone.
fn carry_out(look: &Look, force: bool) -> anyhow::Result<Vec<Step>> {
    let Look { root, plan, .. } = look;
    let before = disk::lock(root)?;
    let state = disk::load(root)?;
    let paths: Vec<String> = plan.files.iter().map(|file| file.path.clone()).collect();
    let seen = disk::see(root, &paths, state.as_ref())?;
    let apply = changes::apply(plan, state.as_ref(), &seen, root.is_real(), force);
    let mut apply = apply.map_err(|edited| {
        anyhow::anyhow!(
            "{} changed since iris-tune wrote it, so nothing was changed; keep your lines in a file of their own, or use \
             --force, which overwrites them",
            edited.join(", ")
        )
    })?;
    disk::make_folders(root, &seen.missing_folders)?;
    let _lock = match before {
        Some(lock) => Some(lock),
        None => disk::lock(root)?,
    };
    disk::save(root, &apply.first)?;
    let mut steps = Vec::new();
    for change in &apply.files {
        disk::change(root, change)
            .context("stopped half-way; iris-tune undo puts back what was done")?;
        steps.push(step_of(change, Outcome::Written));
    }
    for file in &plan.files {
        if !steps.iter().any(|step| step.target == file.path) {
            let (target, detail) = (file.path.clone(), String::new());
            steps.push(Step { target, outcome: Outcome::Unchanged, detail });
        }
    }
    for set in &apply.settings {
        let step = set_step(root, set, Outcome::Set);
        if step.outcome == Outcome::Failed {
            // It was not taken, or not as it was written: what it is now is not ours.
            let is_ours = |value: &String| Some(value) != Some(&set.value);
            for record in apply.last.settings.iter_mut().filter(|record| record.name == set.name) {
                record.ours.retain(is_ours);
                record.ours.extend(sysctl(root, &set.name).filter(|now| *now != record.before));
            }
        }
        steps.push(step);
    }
    apply.last.settings.retain(|record| !record.ours.is_empty());
    disk::save(root, &apply.last)?;
    Ok(steps)
}

fn step_of(change: &Change, put: Outcome) -> Step {
    let (target, outcome) = match change {
        Change::Put { path, .. } => (path.clone(), put),
        Change::Restore { path, before: Some(_) } => (path.clone(), Outcome::Restored),
        Change::Restore { path, before: None } => (path.clone(), Outcome::Removed),
    };
    Step { target, outcome, detail: String::new() }
}

fn set_step(root: &Root, set: &Set, done: Outcome) -> Step {
    let target = set.name.clone();
    let was = sysctl(root, &set.name).unwrap_or_default();
    match disk::set(root, &set.name, &set.value) {
        Ok(()) => Step { target, outcome: done, detail: format!("{was} -> {}", set.value) },
        Err(error) => Step { target, outcome: Outcome::Failed, detail: error.to_string() },
    }
}

fn undo(writing: &Writing) -> anyhow::Result<u8> {
    let flags = &writing.flags;
    let root = Root::new(&flags.root);
    let _lock = disk::lock(&root)?;
    let Some(state) = disk::load(&root)? else {
        if flags.json {
            let value = json!({
                "schema": SCHEMA, "verb": "undo", "exit": EXIT_OK, "undone": false, "steps": [],
            });
            return print_json(&value, EXIT_OK);
        }
        print(&format!("nothing was applied: there is no {STATE_FILE}\n"))?;
        return Ok(EXIT_OK);
    };
    let seen = disk::see(&root, &[], Some(&state))?;
    let undo = changes::undo(&state, &seen, root.is_real(), writing.force);
    if writing.script {
        print(&show::script::undo(&undo))?;
        return Ok(EXIT_OK);
    }
    let mut steps = Vec::new();
    for change in &undo.files {
        disk::change(&root, change)
            .context("stopped half-way; iris-tune undo goes on from here")?;
        steps.push(step_of(change, Outcome::Restored));
    }
    steps.extend(undo.settings.iter().map(|set| set_step(&root, set, Outcome::Restored)));
    let changed = undo.edited.iter().chain(&undo.reset);
    steps.extend(changed.map(|target| Step {
        target: target.clone(),
        outcome: Outcome::Left,
        detail: "somebody else has changed it since; --force puts it back, too".to_owned(),
    }));
    // A setting that could not be put back is kept for the next try.
    let failed = |name: &String| {
        let mut steps = steps.iter();
        steps.any(|step| step.outcome == Outcome::Failed && step.target == *name)
    };
    let kept = state.settings.iter().filter(|record| failed(&record.name)).cloned();
    let kept: Vec<_> = kept.collect();
    let left = undo.left.clone().or_else(|| (!kept.is_empty()).then(|| State::new(state.request)));
    match left {
        Some(left) => disk::save(&root, &State { settings: kept, ..left })?,
        None => {
            disk::forget(&root, &state)?;
            disk::remove_folders(&root, &undo.folders);
        }
    }
    let is_left = !undo.edited.is_empty() || steps.iter().any(|s| s.outcome == Outcome::Failed);
    let exit = if is_left { EXIT_FATAL } else { EXIT_OK };
    if flags.json {
        let value = json!({
            "schema": SCHEMA, "verb": "undo", "exit": exit, "undone": true, "steps": steps,
        });
        return print_json(&value, exit);
    }
    print(&show::undone(&steps, root.is_real()))?;
    Ok(exit)
}

fn verify(flags: &Flags) -> anyhow::Result<u8> {
    let look = Look::take(flags)?;
    let Some(state) = &look.state else {
        if flags.json {
            let mut value = look.json("verify", EXIT_FATAL);
            value["applied"] = json!(false);
            value["compared"] = json!([]);
            return print_json(&value, EXIT_FATAL);
        }
        print(&format!(
            "nothing was applied: there is no {STATE_FILE}; iris-tune apply makes it\n"
        ))?;
        return Ok(EXIT_FATAL);
    };
    let compared = compare(&look, state)?;
    let is_live = look.root.is_real();
    let left = failed(&look.plan).filter(|finding| is_live || finding.fix != Some(Fix::Apply));
    let left: Vec<&Finding> = left.collect();
    let exit = match compared.iter().all(|row| row.passed) {
        true => exit_of(left.iter().copied(), flags.strict),
        false => EXIT_FATAL,
    };
    if flags.json {
        let mut value = look.json("verify", exit);
        value["applied"] = json!(true);
        value["compared"] = json!(compared);
        return print_json(&value, exit);
    }
    print(&show::verified(&compared, &left))?;
    Ok(exit)
}

/// What was applied beside what is there: files to the byte, settings if they are no lower.
fn compare(look: &Look, state: &State) -> anyhow::Result<Vec<Compared>> {
    let mut rows = Vec::new();
    let asked = look.plan.request.connections;
    rows.push(Compared {
        target: "connections".to_owned(),
        applied: state.request.connections.to_string(),
        current: asked.to_string(),
        passed: asked <= state.request.connections,
    });
    for record in &state.files {
        let current = disk::read(&look.root, &record.path)?;
        let is_ours = current.as_ref().is_some_and(|kept| record.ours.contains(&kept.contents));
        let current = match (&current, is_ours) {
            (None, _) => "not there",
            (Some(_), true) => "as written",
            (Some(_), false) => "changed",
        };
        rows.push(Compared {
            target: record.path.clone(),
            applied: "as written".to_owned(),
            current: current.to_owned(),
            passed: is_ours,
        });
    }
    for record in state.settings.iter().filter(|_| look.root.is_real()) {
        let applied = record.ours.last().cloned().unwrap_or_default();
        let current = sysctl(&look.root, &record.name).unwrap_or_default();
        let knob = crate::knobs::KNOBS.iter().find(|knob| knob.name == record.name);
        let passed = knob
            .map_or(current == applied, |knob| crate::knobs::holds(knob.order, &current, &applied));
        rows.push(Compared { target: record.name.clone(), applied, current, passed });
    }
    Ok(rows)
}

fn list(flags: &Flags) -> anyhow::Result<u8> {
    let look = Look::take(flags)?;
    let here = |entry: &Entry| look.plan.findings.iter().find(|finding| finding.id == entry.id);
    if flags.json {
        let conditions: Vec<_> = ENTRIES
            .iter()
            .map(|entry| {
                let mut value = json!(entry);
                value["here"] = json!(here(entry));
                value
            })
            .collect();
        let value = json!({
            "schema": SCHEMA, "verb": "list", "exit": EXIT_OK, "request": look.plan.request,
            "conditions": conditions,
        });
        return print_json(&value, EXIT_OK);
    }
    print(&show::list(&look.plan))?;
    Ok(EXIT_OK)
}

fn explained(explain: &Explain) -> anyhow::Result<u8> {
    let Some(entry) = entry_of(&explain.id) else {
        anyhow::bail!("there is no condition {:?}; iris-tune list has all of them", explain.id);
    };
    if explain.json {
        let mut value = json!(entry);
        value["schema"] = json!(SCHEMA);
        return print_json(&value, EXIT_OK);
    }
    print(&show::explain(entry))?;
    Ok(EXIT_OK)
}

fn print_json(value: &serde_json::Value, exit: u8) -> anyhow::Result<u8> {
    print(&format!("{value:#}\n"))?;
    Ok(exit)
}

/// Whoever closes our output has seen enough.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("failed to write to standard output")
        }
        _ => Ok(()),
    }
}
