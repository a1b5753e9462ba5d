//! What of a plan is left to do, and what `undo` gives back. Decides only; [`crate::disk`] does it.
//!
//! Invariants, which tests in `tests/tune/undo.rs` try on arbitrary files:
//! - What was there before the first `apply` is kept until `undo`, however many times `apply` comes between.
//! - A file that somebody else has changed since is not touched, unless that is asked for.
//! - The state that is saved before the first change knows every change, so that a crash at any point can be undone.

use std::collections::BTreeMap;

use crate::plan::Plan;
use crate::state::{Contents, FileRecord, Kept, SettingRecord, State};

/// What there is.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Files that matter, by path; those that are not there are missing.
    pub files: BTreeMap<String, Kept>,
    /// Values of kernel settings that matter, by name.
    pub settings: BTreeMap<String, String>,
    /// Folders that must be made first.
    pub missing_folders: Vec<String>,
}

/// A change of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets those contents, and a mode and owner if it had some.
    Put {
        /// Where.
        path: String,
        /// What.
        contents: Contents,
        /// Whose mode and owner it keeps.
        like: Option<Kept>,
    },
    /// It becomes what it was.
    Restore {
        /// Where.
        path: String,
        /// What; `None`: it goes.
        before: Option<Kept>,
    },
}

/// A kernel setting to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// Its value to be.
    pub value: String,
}

/// What `apply` does, in this order.
#[derive(Clone, Debug)]
pub struct Apply {
    /// Saved first: it knows both what is and what will be.
    pub first: State,
    /// Files to change.
    pub files: Vec<Change>,
    /// Settings to write.
    pub settings: Vec<Set>,
    /// Saved last.
    pub last: State,
}

/// What `undo` does.
#[derive(Clone, Debug)]
pub struct Undo {
    /// Files to change.
    pub files: Vec<Change>,
    /// Settings to write.
    pub settings: Vec<Set>,
    /// Files that somebody else has changed since, and that stay.
    pub edited: Vec<String>,
    /// Settings that somebody else has changed since, and that stay.
    pub reset: Vec<String>,
    /// Folders to remove if they are empty, the deepest first.
    pub folders: Vec<String>,
    /// What is still to be undone; `None`: nothing.
    pub left: Option<State>,
}

fn find<'a>(state: Option<&'a State>, path: &str) -> Option<&'a FileRecord> {
    state?.files.iter().find(|record| record.path == path)
}

/// How a file stands to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// As we wrote it.
    Ours,
    /// As it was before us.
    Before,
    /// Neither.
    Edited,
}

fn standing(record: &FileRecord, current: Option<&Kept>) -> Standing {
    if current.is_some_and(|current| record.ours.contains(&current.contents)) {
        Standing::Ours
    } else if current == record.before.as_ref() {
        Standing::Before
    } else {
        Standing::Edited
    }
}

/// What is to be done for the plan; `live`: the settings of the kernel, too. Fails with the files that somebody else has
/// changed since the last time, unless `force`.
pub fn apply(
    plan: &Plan,
    state: Option<&State>,
    seen: &Seen,
    live: bool,
    force: bool,
) -> Result<Apply, Vec<String>> {
    let mut first = State::new(plan.request);
    first.folders = state.map(|state| state.folders.clone()).unwrap_or_default();
    first.folders.extend(seen.missing_folders.iter().cloned());
    first.folders.sort();
    first.folders.dedup();
    let (mut files, mut edited, mut done) = (Vec::new(), Vec::new(), Vec::new());
    for planned in &plan.files {
        let current = seen.files.get(&planned.path);
        let contents = Contents(planned.contents.clone().into_bytes());
        let is_there = current.is_some_and(|current| current.contents == contents);
        let mut record = match find(state, &planned.path) {
            Some(record) => {
                if standing(record, current) == Standing::Edited && !is_there && !force {
                    edited.push(planned.path.clone());
                }
                record.clone()
            }
            None => FileRecord {
                path: planned.path.clone(),
                before: current.cloned(),
                ours: Vec::new(),
            },
        };
        record.ours.retain(|ours| *ours != contents);
        record.ours.push(contents.clone());
        done.push(planned.path.as_str());
        first.files.push(record);
        if !is_there {
            let like = current.cloned();
            files.push(Change::Put { path: planned.path.clone(), contents, like });
        }
    }
    // What an earlier profile wrote and this one does not.
    let old = state.into_iter().flat_map(|state| &state.files);
    let stale: Vec<&FileRecord> =
        old.filter(|record| !done.contains(&record.path.as_str())).collect();
    for record in &stale {
        let restored = restore(record, seen.files.get(&record.path), force);
        files.extend(restored.map_err(|path| edited.push(path)).ok().flatten());
        first.files.push((*record).clone());
    }
    if !edited.is_empty() {
        return Err(edited);
    }
    first.settings = state.map(|state| state.settings.clone()).unwrap_or_default();
    let settings = if live { set_due(plan, &mut first.settings) } else { Vec::new() };
    let mut last = first.clone();
    last.files.retain(|record| !stale.iter().any(|stale| stale.path == record.path));
    last.settle();
    Ok(Apply { first, files, settings, last })
}

/// Settings that are not yet what they should be, noted in `records`.
fn set_due(plan: &Plan, records: &mut Vec<SettingRecord>) -> Vec<Set> {
    let mut sets = Vec::new();
    for setting in plan.settings.iter().filter(|setting| setting.is_due()) {
        let Some(current) = setting.current.clone() else { continue };
        let index = records.iter().position(|record| record.name == setting.name);
        let index = index.unwrap_or_else(|| {
            let name = setting.name.to_owned();
            records.push(SettingRecord { name, before: current, ours: Vec::new() });
            records.len() - 1
        });
        records[index].ours.push(setting.wanted.clone());
        sets.push(Set { name: setting.name.to_owned(), value: setting.wanted.clone() });
    }
    sets
}

/// What gives a file back; an error names a file that somebody else has changed.
fn restore(
    record: &FileRecord,
    current: Option<&Kept>,
    force: bool,
) -> Result<Option<Change>, String> {
    let change = Change::Restore { path: record.path.clone(), before: record.before.clone() };
    match standing(record, current) {
        // What was there before may be what we wrote, with another mode or owner.
        Standing::Ours if current == record.before.as_ref() => Ok(None),
        Standing::Ours => Ok(Some(change)),
        Standing::Before => Ok(None),
        Standing::Edited if force => Ok(Some(change)),
        Standing::Edited => Err(record.path.clone()),
    }
}

/// What gives back what was there before; `live`: the settings of the kernel, too.
pub fn undo(state: &State, seen: &Seen, live: bool, force: bool) -> Undo {
    let mut undo = Undo {
        files: Vec::new(),
        settings: Vec::new(),
        edited: Vec::new(),
        reset: Vec::new(),
        folders: state.folders.clone(),
        left: None,
    };
    let mut left = State { files: Vec::new(), settings: Vec::new(), ..state.clone() };
    for record in &state.files {
        match restore(record, seen.files.get(&record.path), force) {
            Ok(change) => undo.files.extend(change),
            Err(path) => {
                undo.edited.push(path);
                left.files.push(record.clone());
            }
        }
    }
    for record in state.settings.iter().filter(|_| live) {
        let current = seen.settings.get(&record.name);
        if current == Some(&record.before) {
            continue;
        }
        if force || current.is_some_and(|current| record.ours.contains(current)) {
            undo.settings.push(Set { name: record.name.clone(), value: record.before.clone() });
        } else {
            undo.reset.push(record.name.clone());
        }
    }
    // A folder in another one has the longer path.
    undo.folders.sort_by_key(|folder| std::cmp::Reverse(folder.len()));
    undo.left = (!left.files.is_empty()).then_some(left);
    undo
}
