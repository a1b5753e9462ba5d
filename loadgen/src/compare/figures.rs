//! What is compared: the figures of a `--json` file, which way is better, and whether repeats of a run differ in them.

use serde_json::Value;

/// A figure of a run.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) is_better: Better,
    /// Not a measurement but a count of what must not happen: any growth is a change for the worse.
    pub(super) is_exact: bool,
    pub(super) of: fn(&Value) -> Option<f64>,
}

/// Which way is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Better {
    Higher,
    Lower,
}

const fn higher(name: &'static str, unit: &'static str, of: fn(&Value) -> Option<f64>) -> Figure {
    Figure { name, unit, is_better: Better::Higher, is_exact: false, of }
}

const fn lower(name: &'static str, unit: &'static str, of: fn(&Value) -> Option<f64>) -> Figure {
    Figure { name, unit, is_better: Better::Lower, is_exact: false, of }
}

const fn never(name: &'static str, of: fn(&Value) -> Option<f64>) -> Figure {
    Figure { name, unit: "", is_better: Better::Lower, is_exact: true, of }
}

/// All of them, in the order of the table.
pub(super) const FIGURES: [Figure; 21] = [
    higher("rate", "/s", |run| run["rate_per_s"].as_f64()),
    higher("delivered rate", "/s", |run| {
        run["delivered_per_s"].as_f64().filter(|_| run["sent"].as_u64() > Some(0))
    }),
    higher("login rate", "/s", |run| run["login"]["per_s"].as_f64()),
    lower("p50", "us", |run| run["latency_us"]["p50"].as_f64()),
    lower("p90", "us", |run| run["latency_us"]["p90"].as_f64()),
    lower("p99", "us", |run| run["latency_us"]["p99"].as_f64()),
    lower("p99.9", "us", |run| run["latency_us"]["p999"].as_f64()),
    lower("delivered p50", "us", |run| run["delivered_latency_us"]["p50"].as_f64()),
    lower("delivered p99", "us", |run| run["delivered_latency_us"]["p99"].as_f64()),
    lower("p50 over floor", "", |run| run["ratio_p50"].as_f64()),
    lower("server CPU a message", "ns", |run| {
        let accepted = run["accepted"].as_f64().filter(|accepted| *accepted > 0.0)?;
        Some(run["server"]["cpu_seconds"].as_f64()? * 1e9 / accepted)
    }),
    lower("server CPU, steady", "s", |run| run["server"]["cpu_seconds_steady"].as_f64()),
    lower("server memory a connection", "B", |run| {
        run["server"]["rss_bytes_per_connection"].as_f64()
    }),
    lower("kernel memory a connection", "B", |run| {
        run["server"]["kernel_bytes_per_connection"].as_f64()
    }),
    lower("refused", "", |run| sum(&run["rejected"])),
    lower("failed", "", |run| sum(&run["errors"])),
    lower("not sent", "", |run| run["not_sent"].as_f64()),
    never("lost", |run| run["lost"].as_f64()),
    never("repeated", |run| run["duplicates"].as_f64()),
    never("reordered", |run| run["reordered"].as_f64()),
    never("damaged", |run| run["corrupted"].as_f64()),
];

fn sum(counts: &Value) -> Option<f64> {
    // The sum of nothing is -0.
    Some(counts.as_object()?.values().filter_map(Value::as_f64).sum::<f64>() + 0.0)
}

/// What must be the same in all runs, so that a difference says something of the server: name and place.
pub(super) const CONDITIONS: [(&str, &str); 13] = [
    ("scenario", "/scenario"),
    ("protocol", "/protocol"),
    ("quality of service", "/environment/qos"),
    ("connections", "/connections"),
    ("payload bytes", "/environment/payload_bytes"),
    ("rate", "/environment/rate"),
    ("window", "/environment/window"),
    ("burst", "/environment/burst"),
    ("duration", "/environment/duration_seconds"),
    ("warm-up", "/environment/warmup_seconds"),
    ("generator threads", "/generator/threads"),
    ("cores", "/environment/cores"),
    ("CPU", "/environment/cpu"),
];

/// What may differ, and may be the reason for a change.
pub(super) const CIRCUMSTANCES: [(&str, &str); 3] = [
    ("version of iris-loadgen", "/environment/version"),
    ("kernel", "/environment/kernel"),
    ("generator processes", "/generator/processes"),
];
