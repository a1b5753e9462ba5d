//! A sheet as text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::assumed::{self, Assumption, Unit};
use super::{Part, Plan, Sheet, measured};

const INFALLIBLE: &str = "writing to a String cannot fail";

/// The sheet of a plan: what is needed where, of what each machine has how much, and dollars.
pub fn sheet(plan: &Plan, sheet: &Sheet) -> String {
    let mut out = format!(
        "{} daily users: an estimate, worked out from figures of single machines\n\n",
        grouped(plan.dau)
    );
    let head = [
        "region",
        "users",
        "connections",
        "messages/s",
        "edges",
        "cores",
        "CPUs",
        "shards",
        "memory",
        "disk",
        "$ a month",
    ];
    line(&mut out, &head.map(str::to_owned));
    let total = (sheet.regions.len() > 1).then_some(&sheet.total);
    for part in sheet.regions.iter().chain(total) {
        line(&mut out, &cells(part));
    }
    out.push('\n');
    machines(plan, sheet, &mut out);
    out
}

fn cells(part: &Part) -> [String; 11] {
    [
        part.name.clone(),
        count(part.users),
        count(part.connections),
        count(part.deliveries_per_s.ceil() as u64),
        grouped(part.edges),
        grouped(part.cores),
        grouped(part.cpus),
        grouped(part.shards),
        bytes(part.memory_bytes),
        bytes(part.disk_bytes),
        grouped(part.dollars().round() as u64),
    ]
}

fn line(out: &mut String, cells: &[String; 11]) {
    const WIDTHS: [usize; 11] = [18, 8, 12, 11, 7, 7, 7, 7, 10, 10, 13];
    let mut line = format!("{:<width$}", cells[0], width = WIDTHS[0]);
    for (cell, width) in cells.iter().zip(WIDTHS).skip(1) {
        write!(line, "{cell:>width$}").expect(INFALLIBLE);
    }
    writeln!(out, "{line}").expect(INFALLIBLE);
}

/// What each machine has, where that is most.
fn machines(plan: &Plan, sheet: &Sheet, out: &mut String) {
    let (total, assume) = (&sheet.total, |what| plan.assumed.value(what));
    let part = sheet.regions.iter().max_by_key(|part| part.users).unwrap_or(total);
    let working = part.edges - part.spare_edges;
    let each = part.connections.div_ceil(working.max(1));
    let by = if plan.tls { "by TLS" } else { "in the clear" };
    let mut row = |name: &str, text: String| {
        writeln!(out, "{name:<16}{text}").expect(INFALLIBLE);
    };
    row(
        "an edge",
        format!(
            "{} connections {by}, {} of {}, {:.2} of {} CPUs, {} out; as many as {} ask for",
            grouped(each),
            bytes(total.edge_memory_bytes),
            bytes(assume(Assumption::EdgeMemory)),
            total.edge_busy_cpus,
            assume(Assumption::EdgeCpus),
            bits(total.edge_out_bits_per_s),
            total.edges_by,
        ),
    );
    row(
        "a core",
        format!(
            "{} messages/s, {} of {}, {} of {} on disk, partitions: {}; as many as {} asks for",
            grouped(total.core_rate_per_s.ceil() as u64),
            bytes(total.core_memory_bytes),
            bytes(assume(Assumption::CoreMemory)),
            bytes(total.core_disk_bytes),
            bytes(assume(Assumption::CoreDisk)),
            grouped(part.partitions),
            total.cores_by,
        ),
    );
    row("waiting", format!("{} messages for users who are away", count(total.waiting)));
    row("an edge lost", format!("its clients are back in {:.0} s at best", total.return_s.ceil()));
    row(
        "dollars",
        format!(
            "{} a month for machines, {} for what goes out; {:.2} for 1,000 daily users",
            grouped(total.machine_dollars.round() as u64),
            grouped(total.traffic_dollars.round() as u64),
            total.dollars() / plan.dau as f64 * 1000.0,
        ),
    );
    if !sheet.beyond.is_empty() {
        out.push_str("\nnot in this version\n");
        for text in &sheet.beyond {
            writeln!(out, "  {text}").expect(INFALLIBLE);
        }
    }
}

/// What the sheet rests on: measured figures and assumptions, each with its source.
pub fn basis(plan: &Plan) -> String {
    let mut out = "measured, each of one machine\n".to_owned();
    for row in measured::TABLE {
        let figure = plan.measured.value(row.what);
        let shown = match row.unit {
            measured::Unit::Bytes => format!("{} B", decimal(figure)),
            measured::Unit::Micros => format!("{} us", decimal(figure * 1e6)),
            measured::Unit::PerCpu => format!("{}/s a CPU", grouped(figure as u64)),
        };
        let source = plan.measured.source(row.what);
        writeln!(out, "  {shown:>16}  {}\n{:20}{source}", row.text, "").expect(INFALLIBLE);
    }
    out.push_str("\nassumed, each a flag\n");
    for row in assumed::TABLE {
        let shown = value(plan.assumed.value(row.what), row.unit);
        let flag = format!("--{}", row.flag);
        let source = plan.assumed.source(row.what);
        writeln!(out, "  {flag:<18}{shown:>10}  {}\n{:32}{source}", row.text, "")
            .expect(INFALLIBLE);
    }
    let regions: Vec<String> =
        plan.regions.iter().map(|region| format!("{}={:.2}", region.name, region.share)).collect();
    writeln!(
        out,
        "  --regions         {}\n{:32}{}",
        regions.join(","),
        "",
        assumed::REGIONS_SOURCE
    )
    .expect(INFALLIBLE);
    out
}

/// All of it as JSON; docs/CAPACITY.md has its fields.
pub fn json(plan: &Plan, sheet: &Sheet) -> Value {
    let assumed = assumed::TABLE.iter().map(|row| {
        json!({
            "name": row.flag,
            "value": plan.assumed.value(row.what),
            "unit": format!("{:?}", row.unit).to_lowercase(),
            "text": row.text,
            "source": plan.assumed.source(row.what),
        })
    });
    let measured = measured::TABLE.iter().map(|row| {
        json!({
            "name": row.name,
            "value": plan.measured.value(row.what),
            "text": row.text,
            "source": plan.measured.source(row.what),
        })
    });
    json!({
        "kind": "capacity_plan",
        "estimate": true,
        "dau": plan.dau,
        "tls": plan.tls,
        "total": part(&sheet.total),
        "regions": sheet.regions.iter().map(part).collect::<Value>(),
        "not_in_this_version": sheet.beyond,
        "measured": measured.collect::<Value>(),
        "assumed": assumed.collect::<Value>(),
    })
}

fn part(part: &Part) -> Value {
    let whole = |number: f64| number.ceil() as u64;
    json!({
        "name": part.name,
        "users": part.users,
        "connections": part.connections,
        "sends_per_s": whole(part.sends_per_s),
        "deliveries_per_s": whole(part.deliveries_per_s),
        "waiting": part.waiting,
        "edges": part.edges,
        "spare_edges": part.spare_edges,
        "edges_by": part.edges_by,
        "cores": part.cores,
        "core_groups": part.groups,
        "cores_by": part.cores_by,
        "partitions": part.partitions,
        "shards": part.shards,
        "cpus": part.cpus,
        "memory_bytes": whole(part.memory_bytes),
        "disk_bytes": whole(part.disk_bytes),
        "edge": {
            "memory_bytes": whole(part.edge_memory_bytes),
            "busy_cpus": part.edge_busy_cpus,
            "out_bits_per_s": whole(part.edge_out_bits_per_s),
        },
        "core": {
            "memory_bytes": whole(part.core_memory_bytes),
            "disk_bytes": whole(part.core_disk_bytes),
            "messages_per_s": whole(part.core_rate_per_s),
        },
        "return_seconds": part.return_s,
        "dollars_per_month": part.dollars(),
        "machine_dollars_per_month": part.machine_dollars,
        "traffic_dollars_per_month": part.traffic_dollars,
    })
}

/// An assumption's value with its unit.
pub(super) fn value(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Share => format!("{} %", decimal(value * 100.0)),
        Unit::Count => match value >= 10_000.0 {
            true => grouped(value as u64),
            false => decimal(value),
        },
        Unit::Bytes => bytes(value),
        Unit::Time => match value {
            3600.0.. => format!("{} h", decimal(value / 3600.0)),
            _ => format!("{} s", decimal(value)),
        },
        Unit::Dollars => format!("$ {}", decimal(value)),
    }
}

/// With three digits after the point at most, and no zeros at the end.
fn decimal(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// With commas.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count short enough for a column: up to five digits before k or M.
fn count(number: u64) -> String {
    match number {
        0..100_000 => grouped(number),
        100_000..100_000_000 => format!("{} k", grouped((number + 500) / 1000)),
        _ => format!("{} M", grouped((number + 500_000) / 1_000_000)),
    }
}

/// Bytes in powers of 1024.
fn bytes(number: f64) -> String {
    let units = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let found = units.into_iter().map(|(name, shift)| (name, (1_u64 << shift) as f64));
    match found.into_iter().find(|(_, unit)| number >= *unit) {
        Some((name, unit)) if number / unit >= 100.0 => format!("{:.0} {name}", number / unit),
        Some((name, unit)) => {
            let text = format!("{:.1}", number / unit);
            format!("{} {name}", text.trim_end_matches(".0"))
        }
        None => format!("{number:.0} B"),
    }
}

/// Bits a second.
fn bits(number: f64) -> String {
    match number {
        1e9.. => format!("{:.1} Gbit/s", number / 1e9),
        1e6.. => format!("{:.0} Mbit/s", number / 1e6),
        _ => format!("{:.0} kbit/s", number / 1e3),
    }
}
