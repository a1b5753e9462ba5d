//! What went on, for people and for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::view::View;
use crate::cli::text::{columns, size, span, utc};

const INFALLIBLE: &str = "writing to a String cannot fail";
/// Reasons of one kind that are shown, at most.
const REASONS_MAX: usize = 4;
/// Busy threads that are shown in one cell; of more the busiest.
const THREADS_MAX: usize = 8;

/// Connections from which on the memory of one is shown.
const CONNECTIONS_MIN: u64 = 1000;

/// The name of a row, and its cell for a node; `None`: the row does not apply to it.
type Row = (&'static str, fn(&View) -> Option<String>);

const ROWS: [Row; 19] = [
    ("admin", |view| Some(view.admin.clone())),
    ("phase", |view| {
        let up = span(number(view, "/uptime_seconds").unwrap_or(0) * 1000);
        Some(format!("{}, up {up}", text(view, "/phase")))
    }),
    ("problems", |view| {
        let names = view.status["problems"].as_array()?.iter();
        let names: Vec<&str> = names.filter_map(|problem| problem["name"].as_str()).collect();
        Some(if names.is_empty() { "none".to_owned() } else { names.join(", ") })
    }),
    ("connections", |view| {
        let open = number(view, "/clients/connections")?;
        let limit = number(view, "/clients/limit")?;
        Some(format!("{} of {}", grouped(open), grouped(limit)))
    }),
    ("logged in", |view| {
        let logged_in = number(view, "/clients/logged_in")?;
        Some(format!("{}, {} not yet", grouped(logged_in), grouped(view.pending?)))
    }),
    ("coming, going", |view| {
        number(view, "/clients/connections")?;
        Some(format!("{}, {}", rate(view, "connected")?, rate(view, "ended")?))
    }),
    ("logins", |view| core_rate(view, "logins")),
    ("accepted", |view| {
        Some(format!("{}, {} again", core_rate(view, "accepted")?, rate(view, "duplicates")?))
    }),
    ("delivered", |view| core_rate(view, "delivered")),
    ("acknowledged", |view| core_rate(view, "acked")),
    ("bytes in, out", |view| {
        number(view, "/clients/connections")?;
        let bytes = |name| view.rate(name).map(|bytes| format!("{}/s", size(bytes as u64)));
        Some(format!("{}, {}", bytes("received_bytes")?, bytes("sent_bytes")?))
    }),
    ("inboxes", |view| {
        number(view, "/inboxes/messages")?;
        let (messages, bytes) = (grouped(view.inbox_messages?), size(view.inbox_bytes?));
        Some(format!("{messages} messages wait, {bytes}"))
    }),
    ("log", |view| {
        number(view, "/inboxes/messages")?;
        let (syncs, [half, most]) = view.syncs?;
        let written = size(view.rate("written_bytes")? as u64);
        let at_most =
            |s: Option<f64>| s.map_or("?".to_owned(), |s| format!("{} us", (s * 1e6).round()));
        let times = format!("p50 <= {}, p99 <= {}", at_most(half), at_most(most));
        Some(format!("{} syncs/s, {written}/s; {times}", grouped(syncs.round() as u64)))
    }),
    ("mirror", |view| {
        let state = view.status.pointer("/mirror/state")?.as_str()?;
        let records = number(view, "/mirror/lag/records")?;
        let ms = number(view, "/mirror/lag/ms")?;
        Some(format!("{state}, lag {} records, {ms} ms", grouped(records)))
    }),
    ("memory", |view| {
        // Of few connections it says nothing: other memory drowns it.
        let many = number(view, "/clients/connections").is_some_and(|open| open >= CONNECTIONS_MIN);
        let each = view.bytes_per_connection.filter(|_| many);
        let each = each.map_or(String::new(), |each| format!(", {each} B a connection"));
        Some(format!("{}{each}", size(view.rss_bytes?)))
    }),
    ("CPUs, busy", |view| {
        let mut threads = view.busy.clone();
        if threads.len() > THREADS_MAX {
            threads.sort_by(|a, b| b.1.total_cmp(&a.1));
            threads.truncate(THREADS_MAX);
        }
        let threads: Vec<String> =
            threads.iter().map(|(name, share)| format!("{name} {:.0}%", share * 100.0)).collect();
        Some(format!("{:.2}: {}", view.cpus, threads.join(" ")))
    }),
    ("refused", |view| Some(reasons(&view.refused))),
    ("limited", |view| Some(reasons(&view.limited)).filter(|_| !view.limited.is_empty())),
    ("ended", |view| {
        number(view, "/clients/connections")?;
        Some(reasons(&view.ended))
    }),
];

/// A column for each node.
pub(super) fn table(views: &[View], unix_s: u64) -> String {
    let seconds = views.iter().map(|view| view.seconds).fold(0.0, f64::max);
    let mut out = format!("iris top   {}   rates of {seconds:.1} s\n\n", utc(unix_s));
    let heads = views.iter().map(|view| match &view.error {
        None => format!("node {}", number(view, "/node/id").unwrap_or(0)),
        Some(_) => "no answer".to_owned(),
    });
    let mut lines = vec![("", heads.collect::<Vec<_>>())];
    for (name, cell) in ROWS {
        let cells = views.iter().map(|view| match &view.error {
            Some(_) if name != "admin" => None,
            _ => cell(view),
        });
        let cells: Vec<Option<String>> = cells.collect();
        if cells.iter().any(Option::is_some) {
            let dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
            lines.push((name, cells.into_iter().map(dash).collect()));
        }
    }
    out += &columns(&lines);
    for view in views {
        if let Some(why) = &view.error {
            let line = format!("\n{}: {why}", view.admin)
                .replace(|c: char| c.is_control() && c != '\n', " ");
            writeln!(out, "{line}").expect(INFALLIBLE);
        }
    }
    out
}

/// A line for each node: the time, then names and values.
pub(super) fn lines(views: &[View], unix_s: u64) -> String {
    let mut out = String::new();
    for view in views {
        write!(out, "{} admin={}", utc(unix_s), view.admin).expect(INFALLIBLE);
        if let Some(why) = &view.error {
            let why = why.replace(char::is_control, " ");
            writeln!(out, " error={why:?}").expect(INFALLIBLE);
            continue;
        }
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                write!(out, " {name}={value}").expect(INFALLIBLE);
            }
        };
        let whole = |pointer| number(view, pointer).map(|number| number.to_string());
        put("node", whole("/node/id"));
        put("connections", whole("/clients/connections"));
        put("logged_in", whole("/clients/logged_in"));
        for (name, rate) in &view.rates {
            put(name, Some(format!("{rate:.1}")));
        }
        put("waiting", whole("/inboxes/messages"));
        put("lag_records", whole("/mirror/lag/records"));
        put("cpus", Some(format!("{:.2}", view.cpus)));
        for (name, share) in &view.busy {
            put(&format!("busy_{name}"), Some(format!("{share:.2}")));
        }
        for (name, rate) in &view.refused {
            put(&format!("refused_{name}"), Some(format!("{rate:.1}")));
        }
        out.push('\n');
    }
    out
}

/// One object; docs/OPERATING.md has its fields.
pub(super) fn json(views: &[View], unix_s: u64) -> Value {
    let map = |list: &[(String, f64)]| {
        list.iter().map(|(name, rate)| (name.clone(), json!(rounded(*rate)))).collect::<Map<_, _>>()
    };
    let node = |view: &View| {
        let rates =
            view.rates.iter().map(|(name, rate)| ((*name).to_owned(), json!(rounded(*rate))));
        json!({
            "admin": view.admin,
            "reachable": view.error.is_none(),
            "error": view.error,
            "node": view.status.pointer("/node/id"),
            "phase": view.status.pointer("/phase"),
            "healthy": view.status.pointer("/healthy"),
            "connections": view.status.pointer("/clients/connections"),
            "connections_limit": view.status.pointer("/clients/limit"),
            "logged_in": view.status.pointer("/clients/logged_in"),
            "logins_pending": view.pending,
            "seconds": rounded(view.seconds),
            "rates": rates.collect::<Map<_, _>>(),
            "busy": map(&view.busy),
            "cpus": rounded(view.cpus),
            "refused": map(&view.refused),
            "limited": map(&view.limited),
            "ended": map(&view.ended),
            "syncs": view.syncs.map(|(rate, [half, most])| json!({
                "per_s": rounded(rate), "p50_seconds_at_most": half, "p99_seconds_at_most": most,
            })),
            "inbox": { "messages": view.inbox_messages, "bytes": view.inbox_bytes },
            "client_backlog_bytes": view.backlog_bytes,
            "lag": view.status.pointer("/mirror/lag"),
            "mirror_state": view.status.pointer("/mirror/state"),
            "disk_free_bytes": view.disk_free_bytes,
            "resident_bytes": view.rss_bytes,
            "bytes_per_connection": view.bytes_per_connection,
        })
    };
    json!({ "time_unix_s": unix_s, "nodes": views.iter().map(node).collect::<Value>() })
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn number(view: &View, pointer: &str) -> Option<u64> {
    view.status.pointer(pointer)?.as_u64()
}

fn text<'a>(view: &'a View, pointer: &str) -> &'a str {
    view.status.pointer(pointer).and_then(Value::as_str).unwrap_or("?")
}

fn rate(view: &View, name: &str) -> Option<String> {
    view.rate(name).map(per_second)
}

/// A rate that only a core has.
fn core_rate(view: &View, name: &str) -> Option<String> {
    number(view, "/inboxes/messages")?;
    rate(view, name)
}

fn per_second(rate: f64) -> String {
    match rate {
        0.0 => "0/s".to_owned(),
        _ if rate < 10.0 => format!("{rate:.1}/s"),
        _ => format!("{}/s", grouped(rate.round() as u64)),
    }
}

fn reasons(list: &[(String, f64)]) -> String {
    if list.is_empty() {
        return "none".to_owned();
    }
    let sum: f64 = list.iter().map(|(_, rate)| rate).sum();
    let shown =
        list.iter().take(REASONS_MAX).map(|(name, rate)| format!("{name} {}", per_second(*rate)));
    format!("{}: {}", per_second(sum), shown.collect::<Vec<_>>().join(", "))
}

fn grouped(number: u64) -> String {
    crate::capacity::show::grouped(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            admin: "127.0.0.1:7480".to_owned(),
            status: json!({
                "node": { "id": 3 }, "phase": "ready", "uptime_seconds": 61, "problems": [],
                "clients": { "connections": 12_345, "logged_in": 12_000, "limit": 1_000_000 },
                "inboxes": { "messages": 7 },
            }),
            seconds: 1.0,
            rates: vec![
                ("accepted", 1234.4),
                ("duplicates", 0.0),
                ("connected", 0.5),
                ("ended", 0.0),
            ],
            busy: (0..20).map(|n| (format!("r{n}"), f64::from(n) / 20.0)).collect(),
            refused: vec![("overloaded".to_owned(), 3.0)],
            pending: Some(345),
            ..View::default()
        }
    }

    #[test]
    fn a_table_has_a_column_for_each_node_and_says_who_did_not_answer() {
        let gone = View {
            admin: "b:1".to_owned(),
            error: Some("no\x1b[2J".to_owned()),
            ..View::default()
        };
        let text = table(&[view(), gone], 0);
        for wanted in [
            "node 3",
            "no answer",
            "12,345 of 1,000,000",
            "1,234/s, 0/s again",
            "0.5/s, 0/s",
            "b:1: no [2J",
            "3.0/s: overloaded 3.0/s",
            "r19 95%",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(!text.contains("r3 "), "of many threads the busiest are shown: {text}");
        assert!(!text.contains("mirror"), "a row that applies to none is left out: {text}");
    }

    #[test]
    fn a_line_holds_a_whole_look() {
        let gone = View {
            admin: "b:1".to_owned(),
            error: Some("a \"b\"\n".to_owned()),
            ..View::default()
        };
        let text = lines(&[view(), gone], 86_400);
        let all: Vec<&str> = text.lines().collect();
        assert_eq!(all.len(), 2, "{text}");
        assert!(
            all[0]
                .starts_with("1970-01-02T00:00:00Z admin=127.0.0.1:7480 node=3 connections=12345")
        );
        assert!(
            all[0].contains(" accepted=1234.4 ") && all[0].ends_with(" refused_overloaded=3.0")
        );
        assert!(all[1].ends_with(r#"error="a \"b\" ""#), "{text}");
    }

    #[test]
    fn json_has_numbers_and_null_for_what_is_not_known() {
        let value = json(&[view()], 5);
        let node = &value["nodes"][0];
        assert_eq!((&node["rates"]["accepted"], &node["node"]), (&json!(1234.4), &json!(3)));
        assert_eq!((&node["lag"], &node["error"]), (&Value::Null, &Value::Null));
    }
}
