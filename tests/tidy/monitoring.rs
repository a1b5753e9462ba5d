//! `docs/monitoring/` names metrics that exist, each alert has a test and a place in the runbook, and events are listed.

use std::collections::{BTreeMap, BTreeSet};

use crate::operating::{PAGE, families};
use crate::tree::{Faults, File, files};

const RULES: &str = "docs/monitoring/iris-alerts.yml";
const TESTS: &str = "docs/monitoring/iris-alerts-test.yml";
const DASHBOARD: &str = "docs/monitoring/iris-dashboard.json";

/// Words that begin with `iris_`, with their lines.
fn names(file: &File) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (number, line) in file.lines() {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        for (start, _) in line.match_indices("iris_") {
            let name = &line[start..];
            let name = name.find(|c| !is_name(c)).map_or(name, |end| &name[..end]);
            names.push((number, name.to_owned()));
        }
    }
    names
}

#[test]
fn metrics_named_for_prometheus_exist() {
    let families = families();
    let mut faults = Faults::default();
    for path in [RULES, TESTS, DASHBOARD] {
        let file = File::read(path);
        for (number, name) in names(&file) {
            let histogram = ["_bucket", "_sum", "_count"];
            let family = histogram.iter().find_map(|suffix| name.strip_suffix(suffix));
            let is_part = family
                .and_then(|family| families.get(family))
                .is_some_and(|(kind, _)| kind.starts_with("histogram"));
            let is_whole =
                families.get(&name).is_some_and(|(kind, _)| !kind.starts_with("histogram"));
            if !is_part && !is_whole {
                faults.add(path, number, format!("there is no metric {name}"));
            }
        }
    }
    faults.end();
}

/// What `#` and this heading make a place of, as GitHub does.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_alert_has_a_severity_a_summary_a_test_and_a_place_in_the_runbook() {
    let page = File::read(PAGE);
    let headings: BTreeMap<String, usize> = page
        .lines()
        .filter_map(|(number, line)| Some((anchor(line.strip_prefix("### ")?), number)))
        .collect();
    let (rules, tests) = (File::read(RULES), File::read(TESTS));
    let mut faults = Faults::default();
    let mut alerts = Vec::new();
    let blocks: Vec<&str> = rules.text.split("- alert: ").skip(1).collect();
    for block in blocks {
        let name = block.lines().next().unwrap_or_default().trim();
        alerts.push(name.to_owned());
        let place = anchor(name);
        let url = format!("runbook_url: {PAGE}#{place}");
        for wanted in [url.as_str(), "summary: ", "severity: ", "expr: "] {
            if !block.lines().any(|line| line.contains(wanted)) {
                faults.add(RULES, 0, format!("{name}: no {wanted}"));
            }
        }
        match headings.get(&place) {
            None => faults.add(PAGE, 0, format!("add a section ### {name}")),
            Some(number) => {
                let section = page.text.lines().skip(*number).take_while(|l| !l.starts_with('#'));
                let section = section.collect::<Vec<_>>().join("\n");
                for part in ["- **Means:**", "- **Look at:**", "- **Do:**"] {
                    if !section.contains(part) {
                        faults.add(PAGE, *number, format!("{name}: no {part}"));
                    }
                }
            }
        }
        if !tests.text.contains(&format!("alertname: {name}\n")) {
            faults.add(TESTS, 0, format!("{name} is not tested"));
        }
    }
    assert!(alerts.len() > 10, "{alerts:?}");
    faults.end();
}

/// Names that lines of the log give to events, by where.
fn events() -> BTreeMap<String, (String, usize)> {
    let mut events = BTreeMap::new();
    for file in files(&[".rs"]).into_iter().filter(|file| file.path.starts_with("src/")) {
        // What stands in a test is no event of the server.
        let text = file.text.split("#[cfg(test)]").next().unwrap_or_default();
        for (index, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().starts_with("//")) {
            for rest in line.split("event = \"").skip(1) {
                let name = rest.split('"').next().unwrap_or_default().to_owned();
                events.insert(name, (file.path.clone(), index + 1));
            }
        }
    }
    events
}

#[test]
fn events_are_listed_and_no_others() {
    let page = File::read(PAGE).text;
    let start = page.find("\n## Events\n").expect("the page has events");
    let part = &page[start..];
    let part = &part[..part.find("\n## Monitoring\n").expect("and then monitoring")];
    let rows = part.lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeSet<&str> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2))
        .collect();
    let mut faults = Faults::default();
    let events = events();
    for (name, (path, line)) in &events {
        if !listed.contains(name.as_str()) {
            faults.add(path, *line, format!("event {name}: add it to the events of {PAGE}"));
        }
    }
    for name in listed.iter().filter(|name| !events.contains_key(**name)) {
        faults.add(PAGE, 0, format!("there is no event {name}"));
    }
    faults.end();
}

#[test]
fn places_are_named_as_pages_show_them() {
    assert_eq!(anchor("IrisDown"), "irisdown");
    assert_eq!(anchor("States, and what to do"), "states-and-what-to-do");
}
