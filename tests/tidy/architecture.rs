//! `ARCHITECTURE.md`, `README.md` and all links: what they name exists.

use std::collections::BTreeSet;

use crate::tree::{Faults, File, files, has_word, root};

const PAGE: &str = "ARCHITECTURE.md";

/// What stands between backticks in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_path(name: &str) -> bool {
    let endings = [".rs", ".md", ".toml", ".json", ".py", ".sh", ".txt", "/"];
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    name.chars().all(plain)
        && !name.starts_with(['/', '.'])
        && endings.iter().any(|ending| name.ends_with(ending))
}

/// `Type::function` and the like: its parts.
fn parts_of_name(name: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = name.trim_end_matches("()").split("::").collect();
    let is_ident = |part: &&str| {
        part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !part.is_empty()
    };
    (parts.len() > 1 && parts.iter().all(is_ident)).then_some(parts)
}

#[test]
fn every_path_and_name_of_the_map_exists() {
    let mut faults = Faults::default();
    let sources: Vec<File> = files(&[".rs"]);
    let mut paths = 0;
    for (number, line) in File::read(PAGE).lines() {
        for name in quoted(line) {
            if is_path(name) {
                paths += 1;
                if !root().join(name).exists() {
                    faults.add(PAGE, number, format!("{name} does not exist: correct the map"));
                }
            } else if let Some(parts) = parts_of_name(name) {
                let lost = parts
                    .iter()
                    .find(|part| !sources.iter().any(|file| has_word(&file.text, part)));
                if let Some(part) = lost {
                    let what = format!("{name}: no source names {part}: correct the map");
                    faults.add(PAGE, number, what);
                }
            }
        }
    }
    faults.end();
    assert!(paths > 40, "the map names {paths} paths, which is no map");
}

#[test]
fn every_folder_of_sources_is_on_the_map() {
    let map = File::read(PAGE).text;
    let mut faults = Faults::default();
    let mut folders = BTreeSet::new();
    for file in files(&[".rs"]).iter().filter(|file| !file.path.ends_with("tests.rs")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if !folder.contains("tests") {
            folders.insert(format!("{folder}/"));
        }
    }
    for folder in folders {
        if !map.contains(&format!("`{folder}")) {
            faults.add(PAGE, 0, format!("`{folder}` is not on the map: say what it is for"));
        }
    }
    faults.end();
}

#[test]
fn invariants_are_numbered_as_the_map_numbers_them() {
    let map = File::read(PAGE);
    let listed = |n: u32| map.text.lines().any(|line| line.starts_with(&format!("| I{n} ")));
    let count = (1..).take_while(|n| listed(*n)).count() as u32;
    assert_eq!(count, 10, "the table of invariants in {PAGE}");
    let mut faults = Faults::default();
    for file in files(&[".rs", ".py", ".md"]) {
        for (number, line) in file.lines() {
            for n in count + 1..count + 30 {
                if has_word(line, &format!("I{n}")) {
                    faults.add(&file.path, number, format!("there is no I{n}: see {PAGE}"));
                }
            }
        }
    }
    faults.end();
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut faults = Faults::default();
    for file in files(&[".md"]) {
        let folder = root().join(&file.path);
        let folder = folder.parent().expect("a file lies in a folder");
        for (number, line) in file.lines() {
            for (start, _) in line.match_indices("](") {
                let target = &line[start + 2..];
                let target = target.split_once(')').map_or(target, |(target, _)| target);
                let target = target.split_once('#').map_or(target, |(page, _)| page);
                let outside = target.contains("://") || target.is_empty();
                if !outside && !folder.join(target).exists() {
                    faults.add(&file.path, number, format!("{target} does not exist"));
                }
            }
        }
    }
    faults.end();
}

#[test]
fn decisions_are_numbered_whole_and_on_the_map() {
    let map = File::read(PAGE).text;
    let mut faults = Faults::default();
    let pages: Vec<File> = files(&[".md"])
        .into_iter()
        .filter(|file| file.path.starts_with("docs/decisions/"))
        .collect();
    for (index, page) in pages.iter().enumerate() {
        let name = page.path.trim_start_matches("docs/decisions/");
        if !name.starts_with(&format!("{:04}-", index + 1)) {
            faults.add(&page.path, 0, format!("decisions count up; this is number {}", index + 1));
        }
        for part in ["## Context", "## Decision", "## Why", "## Consequences"] {
            if !page.text.lines().any(|line| line == part) {
                faults.add(&page.path, 0, format!("it lacks the heading {part:?}"));
            }
        }
        if !map.contains(&page.path) {
            faults.add(PAGE, 0, format!("{} is not linked", page.path));
        }
    }
    faults.end();
    assert!(!pages.is_empty());
}

#[test]
fn programs_in_the_readme_are_the_examples() {
    let readme = File::read("README.md").text;
    for path in ["clients/python/examples/bob.py", "clients/python/examples/alice.py"] {
        let program = File::read(path).text;
        let block = format!("```python\n{program}```\n");
        assert!(readme.contains(&block), "README.md does not hold {path} as it stands");
        assert!(readme.contains(&format!("python3 {path}")), "README.md does not run {path}");
    }
}
