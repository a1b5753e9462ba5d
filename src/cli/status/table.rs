//! What was seen, for people: a column for each node, then what is wrong and what to do.

use std::fmt::Write;

use serde_json::Value;

use super::{Node, Seen, next_step};

const INFALLIBLE: &str = "writing to a String cannot fail";
/// Characters of one cell, at most.
const CELL_MAX: usize = 64;

/// The name of a row, and its cell for a node; `None`: the row does not apply to it.
type Row = (&'static str, fn(&Node) -> Option<String>);

const ROWS: [Row; 15] = [
    ("admin", |node| Some(node.admin.clone())),
    ("name", |node| Some(format!("{}, {}", text(node, "/node/name"), text(node, "/node/region")))),
    ("version", |node| Some(format!("{} ({})", text(node, "/version"), text(node, "/revision")))),
    ("roles", |node| {
        let roles = node.at("/roles").as_array()?;
        Some(roles.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "))
    }),
    ("phase", |node| {
        let ready = if node.at("/ready") == true { "" } else { ", not ready" };
        let up = span(number(node, "/uptime_seconds") * 1000);
        Some(format!("{}{ready}, up {up}", text(node, "/phase")))
    }),
    ("clients", |node| {
        node.at("/clients").as_object()?;
        let (open, logged_in) = ("/clients/connections", "/clients/logged_in");
        Some(format!("{} open, {} logged in", number(node, open), number(node, logged_in)))
    }),
    ("cores", |node| {
        node.at("/clients").as_object()?;
        let cores = node.at("/links/cores").as_array()?;
        Some(cores.iter().filter_map(core).collect::<Vec<_>>().join("; "))
    }),
    ("inboxes", |node| {
        node.at("/inboxes").as_object()?;
        Some(format!("{} messages wait", number(node, "/inboxes/messages")))
    }),
    ("mirror", |node| {
        let mirror = node.at("/mirror/node").as_u64()?;
        let retired = if node.at("/mirror/retired") == true { ", retired" } else { "" };
        let linked = if node.at("/mirror/linked") == true { "linked" } else { "not linked" };
        Some(format!("node {mirror}, {linked}{retired}"))
    }),
    ("state", |node| {
        node.at("/mirror").as_object()?;
        Some(format!("{}, mode {}", text(node, "/mirror/state"), text(node, "/mirror/mode")))
    }),
    ("lag", |node| {
        node.at("/mirror").as_object()?;
        let records = number(node, "/mirror/lag/records");
        let bytes = size(number(node, "/mirror/lag/bytes"));
        Some(format!("{records} records, {bytes}, {} ms", number(node, "/mirror/lag/ms")))
    }),
    ("copies=1", |node| {
        Some(format!("{} messages", node.at("/mirror/one_copy_messages").as_u64()?))
    }),
    ("last failover", |node| {
        node.at("/mirror").as_object()?;
        let Some(at) = node.at("/mirror/last_failover/unix_ms").as_u64() else {
            return Some("none".to_owned());
        };
        let ago = span(number(node, "/time_unix_ms").saturating_sub(at));
        let took = number(node, "/mirror/last_failover/took_ms");
        let all = number(node, "/mirror/failovers");
        Some(format!("{ago} ago, took {took} ms ({all} in all)"))
    }),
    ("splits", |node| Some(node.at("/mirror/splits").as_u64()?.to_string())),
    ("last split", |node| {
        let mine = node.at("/mirror/last_split/mine").as_u64()?;
        let theirs = number(node, "/mirror/last_split/theirs");
        let collapsed = number(node, "/mirror/last_split/collapsed");
        let conflicts = number(node, "/mirror/last_split/conflicts");
        Some(format!("mine {mine}, theirs {theirs}, both {collapsed}, conflicts {conflicts}"))
    }),
];

pub(super) fn render(seen: &Seen) -> String {
    let mut out = String::new();
    let heads = seen.nodes.iter().map(|node| match node.id() {
        Some(id) => format!("node {id}"),
        None => "unreachable".to_owned(),
    });
    let mut lines = vec![("", heads.collect::<Vec<_>>())];
    for (name, cell) in ROWS {
        let cells = seen.nodes.iter().map(|node| match &node.status {
            Err(_) if name != "admin" => Some(String::new()),
            _ => cell(node),
        });
        let cells: Vec<Option<String>> = cells.collect();
        let applies = |cell: &Option<String>| cell.as_ref().is_some_and(|cell| !cell.is_empty());
        if cells.iter().any(applies) {
            let dash = |cell: Option<String>| clean(&cell.unwrap_or_else(|| "-".to_owned()));
            lines.push((name, cells.into_iter().map(dash).collect()));
        }
    }
    let widths: Vec<usize> = (0..seen.nodes.len())
        .map(|column| lines.iter().map(|(_, cells)| cells[column].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    for (name, cells) in &lines {
        let mut line = format!("{name:<14}");
        for (cell, width) in cells.iter().zip(&widths) {
            write!(line, "  {cell:<width$}").expect(INFALLIBLE);
        }
        writeln!(out, "{}", line.trim_end()).expect(INFALLIBLE);
    }
    out.push('\n');
    for problem in &seen.problems {
        let place = match (problem.node, problem.admin.as_str()) {
            (Some(node), _) => format!("node {node}: "),
            (None, "") => String::new(),
            (None, admin) => format!("{admin}: "),
        };
        let (name, text) = (&problem.name, &problem.text);
        let line = format!("{place}{name}: {text}; {}", next_step(name));
        writeln!(out, "{}", line.replace(char::is_control, " ")).expect(INFALLIBLE);
    }
    out.push_str(if seen.problems.is_empty() { "healthy\n" } else { "not healthy\n" });
    out
}

/// A core as an edge sees it.
fn core(core: &Value) -> Option<String> {
    let node = core["node"].as_u64()?;
    let clients = core["clients"].as_object()?;
    if clients.get("up")?.as_bool()? {
        let serving = core["serving_partitions"].as_u64()?;
        return Some(format!("{node}: {serving} partitions serve"));
    }
    let why = clients.get("last_end")?.as_str().unwrap_or("not tried yet");
    Some(format!("{node}: not linked, {why}"))
}

fn number(node: &Node, pointer: &str) -> u64 {
    node.at(pointer).as_u64().unwrap_or(0)
}

fn text<'a>(node: &'a Node, pointer: &str) -> &'a str {
    node.at(pointer).as_str().unwrap_or("?")
}

/// What may stand in a cell: no control characters, no end of the screen.
fn clean(cell: &str) -> String {
    let shown = cell.chars().map(|c| if c.is_control() { ' ' } else { c });
    if cell.chars().count() <= CELL_MAX {
        return shown.collect();
    }
    shown.take(CELL_MAX - 3).chain("...".chars()).collect()
}

/// A span of time as people say it.
fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_have_the_unit_that_fits() {
        for (ms, wanted) in [
            (999, "0 s"),
            (59_999, "59 s"),
            (60_000, "1 min 0 s"),
            (3_661_000, "1 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(ms), wanted);
        }
        for (bytes, wanted) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (3 << 20, "3.0 MiB"),
            (u64::MAX, "17179869184.0 GiB"),
        ] {
            assert_eq!(size(bytes), wanted);
        }
    }

    #[test]
    fn a_cell_holds_what_a_screen_can_show() {
        assert_eq!(clean("a\u{1b}[2Jb"), "a [2Jb");
        let long = clean(&"x".repeat(100));
        assert!(long.len() == CELL_MAX && long.ends_with("x..."), "{long}");
    }
}
