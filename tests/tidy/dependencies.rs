//! Every direct dependency has a line in `docs/decisions/0008-dependencies.md`, and crates depend as drawn.

use std::collections::BTreeSet;

use crate::tree::{Faults, File, files};

const PAGE: &str = "docs/decisions/0008-dependencies.md";

/// What a crate of ours may depend on of ours.
const ARROWS: [(&str, &[&str]); 10] = [
    ("proto/Cargo.toml", &[]),
    ("wal/Cargo.toml", &["iris-proto"]),
    ("ring/Cargo.toml", &[]),
    ("tls/Cargo.toml", &[]),
    ("loadgen/Cargo.toml", &["iris-proto", "iris-ring", "iris-tls"]),
    ("sim/Cargo.toml", &["iris-proto", "iris-wal"]),
    ("tuning/Cargo.toml", &["iris-ring"]),
    ("bench/micro/Cargo.toml", &["iris-proto", "iris-wal"]),
    ("fuzz/Cargo.toml", &["iris-proto", "iris-wal", "iris-tls"]),
    ("Cargo.toml", &["iris-proto", "iris-wal", "iris-ring", "iris-tls"]),
];

const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// The direct dependencies of a manifest, by the names that the code uses.
fn direct(manifest: &File) -> BTreeSet<String> {
    let table: toml::Table = toml::from_str(&manifest.text).expect("cargo has read it before");
    let of_kind = |kind: &&str| table.get(*kind).and_then(toml::Value::as_table);
    KINDS.iter().filter_map(of_kind).flat_map(|table| table.keys().cloned()).collect()
}

/// The tests' Python packages, by name.
fn python() -> BTreeSet<String> {
    let file = File::read("tests/requirements.txt");
    let name = |line: &str| line.split(['=', '<', '>', '~', ' ']).next().map(str::to_owned);
    file.text.lines().filter_map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_direct_dependency_is_explained_and_nothing_else_is() {
    let mut faults = Faults::default();
    let mut used: BTreeSet<String> = files(&["Cargo.toml"]).iter().flat_map(direct).collect();
    used.retain(|name| name != "iris" && !name.starts_with("iris-"));
    used.extend(python());
    let page = File::read(PAGE);
    let mut explained = BTreeSet::new();
    for (number, line) in page.lines() {
        let cell = line.strip_prefix("| `").and_then(|rest| rest.split_once('`'));
        let Some((name, _)) = cell else { continue };
        explained.insert(name.to_owned());
        if !used.contains(name) {
            faults.add(PAGE, number, format!("{name} is no dependency: remove its line"));
        }
    }
    for name in used.difference(&explained) {
        faults.add(PAGE, 0, format!("{name} has no line: say why it is worth its weight"));
    }
    faults.end();
}

#[test]
fn crates_depend_on_each_other_as_drawn() {
    let mut faults = Faults::default();
    for (path, allowed) in ARROWS {
        let ours = direct(&File::read(path));
        for name in ours.iter().filter(|name| name.starts_with("iris-")) {
            if !allowed.contains(&name.as_str()) {
                faults.add(path, 0, format!("must not depend on {name}: see ARCHITECTURE.md"));
            }
        }
    }
    let manifests = files(&["Cargo.toml"]);
    for manifest in manifests.iter().filter(|file| !ARROWS.iter().any(|(at, _)| *at == file.path)) {
        faults.add(&manifest.path, 0, "a crate that ARROWS in tests/tidy/dependencies.rs lacks");
    }
    faults.end();
}

#[test]
fn only_the_simulator_can_be_wrong_on_purpose() {
    let mut faults = Faults::default();
    for manifest in files(&["Cargo.toml"]) {
        let is_home = ["sim/Cargo.toml", "proto/Cargo.toml"].contains(&manifest.path.as_str());
        for (number, line) in manifest.lines() {
            let is_default = line.trim_start().starts_with("default");
            if line.contains("sabotage") && (!is_home || is_default) {
                faults.add(&manifest.path, number, "sabotage is a feature of the simulator alone");
            }
        }
    }
    faults.end();
}

#[test]
fn versions_stand_in_one_place() {
    let mut faults = Faults::default();
    for manifest in files(&["Cargo.toml"]) {
        let table: toml::Table = toml::from_str(&manifest.text).expect("cargo has read it before");
        for kind in KINDS {
            let Some(section) = table.get(kind).and_then(toml::Value::as_table) else { continue };
            for (name, value) in section {
                let shared = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                if !shared {
                    let what = format!("{name}: give its version in [workspace.dependencies]");
                    faults.add(&manifest.path, 0, what);
                }
            }
        }
    }
    faults.end();
}
