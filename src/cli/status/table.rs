//! What was seen, for people: a column for each node, then what is wrong and what to do.

use std::fmt::Write;

use serde_json::Value;

use super::{Node, Seen, next_step};
use crate::cli::text::{columns, size, span};

const INFALLIBLE: &str = "writing to a String cannot fail";

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
            let dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
            lines.push((name, cells.into_iter().map(dash).collect()));
        }
    }
    let mut out = columns(&lines);
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
