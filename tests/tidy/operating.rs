//! `docs/OPERATING.md` says what the code does: keys, exit codes, metrics, reasons, bounds.

use std::collections::BTreeMap;
use std::fmt::Write;

use iris::config::schema;
use iris::metrics::{CloseReason, Label, Registry, RejectReason};
use iris_proto::id::Origin;
use iris_proto::replica::{Now, Replica, ReplicaConfig};

use crate::tree::{Faults, File, compare_generated, files};

pub(crate) const PAGE: &str = "docs/OPERATING.md";
const LIMITS: &str = "proto/src/limits.rs";

#[test]
fn generated_tables_are_those_of_the_code() {
    let tables = [("keys", keys()), ("exit codes", exit_codes()), ("metrics", metrics())];
    compare_generated(PAGE, tables.map(|(name, table)| (name.to_owned(), table)));
}

fn keys() -> String {
    let mut table = String::from(
        "| key | default | with `--dev` | reload | what it does |\n|---|---|---|---|---|\n",
    );
    for key in schema::KEYS {
        let dev = key.dev.map(|dev| format!("`{dev}`")).unwrap_or_default();
        let doc = key.doc.replace('\n', " ").replace('|', "\\|");
        let schema::Key { section, name, default, .. } = key;
        let reload = if schema::is_reloaded(section, name) { "yes" } else { "" };
        let row = format!("| `{section}.{name}` | `{default}` | {dev} | {reload} | {doc} |");
        writeln!(table, "{row}").expect(INFALLIBLE);
    }
    table
}

const INFALLIBLE: &str = "writing to a String cannot fail";

/// The table in the comment of the enum; that it lists every variant with its number is checked on the way.
fn exit_codes() -> String {
    let source = File::read("src/cli/exit.rs");
    let rows: Vec<&str> =
        source.text.lines().filter_map(|line| line.strip_prefix("/// |")).collect();
    for (number, line) in source.lines() {
        let variant = line.trim().strip_suffix(',').and_then(|line| line.split_once(" = "));
        let Some((name, code)) = variant.filter(|(_, code)| code.parse::<u8>().is_ok()) else {
            continue;
        };
        let row = format!(" {code} | `{name}` | ");
        let found = rows.iter().any(|cells| cells.starts_with(&row));
        assert!(found, "src/cli/exit.rs:{number}: the table above lacks {name}");
    }
    rows.iter().map(|cells| format!("|{cells}\n")).collect()
}

/// Name, type and labels, and help of each family that a server shows.
pub(crate) fn families() -> BTreeMap<String, (String, String)> {
    let registry = Registry::new(1, 1, 1);
    let origin = Origin { node: 1, incarnation: 1 };
    let of_a_pair = Replica::new(ReplicaConfig::new(origin, 2, 1));
    let status = of_a_pair.status(Now { unix_ms: 0, mono_ms: 0 });
    registry.mirror(0).set(&status, of_a_pair.counters());
    registry.bounds().set_cores(1, &[1, 2]);
    registry.bounds().price_per_hour.set(1.0);
    let shown = registry.render();
    let mut families = BTreeMap::new();
    let mut help = "";
    let mut lines = shown.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        }
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let sample = lines.peek().copied().unwrap_or_default();
        let labels = sample.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        let labels = labels.map_or("", |(labels, _)| labels).split(',');
        let labels = labels.filter_map(|label| label.split_once('=')).map(|(label, _)| label);
        let labels: Vec<&str> = labels.filter(|label| *label != "le").collect();
        let kind = match labels.is_empty() {
            true => kind.to_owned(),
            false => format!("{kind} by {}", labels.join(", ")),
        };
        families.insert(name.to_owned(), (kind, help.to_owned()));
    }
    families
}

fn metrics() -> String {
    let mut table = String::from("| metric | type | what it says |\n|---|---|---|\n");
    for (name, (kind, help)) in families() {
        writeln!(table, "| `{name}` | {kind} | {help} |").expect(INFALLIBLE);
    }
    table
}

#[test]
fn metrics_named_in_pages_exist() {
    let families = families();
    let mut faults = Faults::default();
    for path in [PAGE, "README.md", "ARCHITECTURE.md", "bench/README.md"] {
        for (number, line) in File::read(path).lines() {
            for (start, _) in line.match_indices("iris_") {
                let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                let name = &line[start..];
                let name = name.find(|c| !is_name(c)).map_or(name, |end| &name[..end]);
                // The Python package is named alike.
                let is_client = name == "iris_client" || name == "iris_";
                if !is_client && !families.contains_key(name) {
                    faults.add(path, number, format!("there is no metric {name}"));
                }
            }
        }
    }
    faults.end();
}

#[test]
fn every_reason_for_an_end_or_a_refusal_is_explained() {
    let page = File::read(PAGE).text;
    let between = |start: &str, end: &str| {
        let start = page.find(start).unwrap_or_else(|| panic!("{PAGE}: no {start:?}"));
        let len = page[start..].find(end).unwrap_or_else(|| panic!("{PAGE}: no {end:?}"));
        page[start..start + len].to_owned()
    };
    let check = |names: Vec<&str>, part: &str, metric: &str| {
        for name in names {
            let what = format!("{PAGE}: add {name} to the reasons below {metric}");
            assert!(part.contains(&format!("`{name}`")), "{what}");
        }
    };
    let (ends, refusals) = ("**Why connections end**", "**Why SENDs are refused**");
    let reasons = CloseReason::ALL.iter().map(|reason| reason.name()).collect();
    check(reasons, &between(ends, refusals), ends);
    let reasons = RejectReason::ALL.iter().map(|reason| reason.name());
    let reasons = reasons.filter(|name| *name != "other").collect();
    check(reasons, &between(refusals, "## Bounds"), refusals);
}

/// The constants of a source, each with the text of its value and the line.
fn constants(source: &File) -> BTreeMap<&str, (&str, usize)> {
    let mut constants = BTreeMap::new();
    for (number, line) in source.lines() {
        let line = line.trim_start();
        let rest = line.split_once("const ").filter(|(before, _)| !before.contains("//"));
        let Some((name, rest)) = rest.and_then(|(_, rest)| rest.split_once(": ")) else { continue };
        let Some((_, value)) = rest.split_once(" = ") else { continue };
        constants.insert(name, (value.trim_end_matches(';'), number));
    }
    constants
}

/// What a constant's expression comes to, as the page writes it: `262,144`, `15 s`, `500 ms`.
fn value_of(expression: &str) -> Option<String> {
    for (start, unit) in [("Duration::from_secs(", "s"), ("Duration::from_millis(", "ms")] {
        if let Some(inner) = expression.strip_prefix(start) {
            return Some(format!("{} {unit}", value_of(inner.strip_suffix(')')?)?));
        }
    }
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().ok();
    let number = match expression.split_once("<<") {
        Some((base, shift)) => number(base)? << number(shift)?,
        None => expression.split('*').map(number).product::<Option<u64>>()?,
    };
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    Some(grouped)
}

/// Rows of tables that begin with a name in capitals: name, line, cells.
fn rows_of_bounds(page: &File) -> Vec<(String, usize, Vec<String>)> {
    let mut rows = Vec::new();
    for (number, line) in page.lines() {
        let cells: Vec<String> =
            line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let is_constant = |name: &String| {
            name.len() > 3 && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        if line.starts_with('|') && cells.first().is_some_and(is_constant) {
            rows.push((cells[0].clone(), number, cells));
        }
    }
    rows
}

#[test]
fn bounds_are_documented_and_have_the_values_of_the_code() {
    let mut faults = Faults::default();
    let page = File::read(PAGE);
    let mut documented: Vec<String> = Vec::new();
    for (name, number, cells) in rows_of_bounds(&page) {
        let [_, place, value, ..] = cells.as_slice() else { continue };
        if !place.ends_with(".rs") {
            continue;
        }
        let source = File::read(place);
        let found = constants(&source).get(name.as_str()).map(|(expression, _)| *expression);
        match found.map(value_of) {
            Some(Some(real)) if real == *value => documented.push(name),
            Some(real) => {
                let real = real.unwrap_or_else(|| "no plain number".to_owned());
                faults.add(PAGE, number, format!("{name} is {real} in {place}, not {value}"));
            }
            None => faults.add(PAGE, number, format!("{place} has no constant {name}")),
        }
    }
    let protocol = File::read("docs/PROTOCOL.md");
    for (name, number, cells) in rows_of_bounds(&protocol) {
        let limits = File::read(LIMITS);
        let real = constants(&limits).get(name.as_str()).and_then(|(text, _)| value_of(text));
        match real == cells.get(1).cloned() {
            true => documented.push(name),
            false => faults.add(&protocol.path, number, format!("{name} is {real:?} in {LIMITS}")),
        }
    }
    let limits = File::read(LIMITS);
    let lines: Vec<&str> = limits.text.lines().collect();
    for (name, (_, number)) in constants(&limits).into_iter().filter(|(name, _)| *name != "_") {
        if !documented.iter().any(|known| known == name) {
            let what = format!("{name}: add a row to the table of bounds in {PAGE}");
            faults.add(LIMITS, number, what);
        }
        if number < 2 || !lines[number - 2].starts_with("/// ") {
            faults.add(LIMITS, number, format!("{name}: say what it bounds, in which unit"));
        }
    }
    faults.end();
}

#[test]
fn every_bound_of_the_page_has_a_test_that_exists() {
    let mut faults = Faults::default();
    let page = File::read(PAGE);
    let sources = files(&[".rs", ".py"]);
    let exists = |test: &str| {
        let (rust, python) = (format!("fn {test}("), format!("def {test}("));
        sources.iter().any(|file| file.text.contains(&rust) || file.text.contains(&python))
    };
    let mut column = None;
    for (number, line) in page.lines() {
        if !line.starts_with('|') {
            column = None;
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let Some(place) = cells.iter().position(|cell| *cell == "test") {
            column = Some(place);
            continue;
        }
        let Some(cell) = column.map(|place| cells.get(place).copied().unwrap_or_default()) else {
            continue;
        };
        if cell.starts_with("---") || cell == "the same test" || cell.starts_with("none: ") {
            continue;
        }
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            faults.add(PAGE, number, format!("{cell:?} names no test"));
        }
        for name in names.into_iter().filter(|name| !exists(name)) {
            faults.add(PAGE, number, format!("there is no test {name}"));
        }
    }
    faults.end();
}

#[test]
fn values_are_written_as_on_the_page() {
    for (expression, value) in [
        ("128 * 1024", "131,072"),
        ("1 << 18", "262,144"),
        ("16_000_000", "16,000,000"),
        ("60 * 60 * 1000", "3,600,000"),
        ("512", "512"),
        ("Duration::from_millis(5)", "5 ms"),
    ] {
        assert_eq!(value_of(expression).as_deref(), Some(value), "{expression}");
    }
    assert_eq!(value_of("64 + USER_BYTES_MAX"), None);
}
