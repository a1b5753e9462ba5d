//! Which charts a run has.

use crate::chart::scale::{Axis, Unit};
use crate::chart::{Chart, Line};
use crate::report::Report;
use crate::series::{Row, Series};
use crate::stats::Spectrum;

/// Rows that a chart has room for.
const ROWS_MAX: usize = 360;
/// The last row of a run may be shorter than this, seconds: too short to be drawn as a rate.
const SPAN_MIN_S: f64 = 0.5;

/// All charts of a run that have something to show.
pub(super) fn charts(report: &Report) -> Vec<Chart> {
    let series = report.series.thinned(ROWS_MAX);
    let of = OverTime::new(&series);
    let latency =
        |point: fn(crate::series::Latency) -> f64| move |row: &Row| row.latency.map(point);
    let mut charts = vec![
        Chart {
            is_log: true,
            ..of.chart(
                "latency",
                &format!("Latency, intended send to {}", report.protocol.0.end()),
                Unit::Micros,
                vec![
                    of.line("p50", latency(|latency| latency.p50_us)),
                    of.line("p99", latency(|latency| latency.p99_us)),
                    of.line("max", latency(|latency| latency.max_us)),
                ],
            )
        },
        spectrum(report),
        of.chart(
            "rate",
            "Messages a second",
            Unit::PerSecond,
            vec![
                of.line("sent", |row| Some(row.per_s(row.counted.sent))),
                of.line("accepted", |row| Some(row.per_s(row.counted.accepted))),
                of.line("delivered", |row| Some(row.per_s(row.counted.delivered))),
                of.line("refused", |row| Some(row.per_s(row.counted.refused))),
            ],
        ),
        of.chart(
            "connections",
            "Connections that are logged in",
            Unit::Number,
            vec![of.line("open", |row| Some(row.connections as f64))],
        ),
        of.chart(
            "memory",
            "Resident memory of the server",
            Unit::Bytes,
            vec![of.line("server", |row| row.server_rss_bytes.map(|bytes| bytes as f64))],
        ),
        of.chart(
            "cpu",
            "CPU, 100 % is one core",
            Unit::Percent,
            vec![
                of.line("server", |row| row.server_cpu_percent),
                of.line("generator", |row| row.generator_cpu_percent),
            ],
        ),
    ];
    for (index, name) in series.metrics.iter().enumerate() {
        charts.push(of.metric(index, name));
    }
    // Nothing happened: no line is better than one along the axis.
    charts.iter_mut().for_each(|chart| chart.lines.retain(|line| !is_flat_zero(line)));
    charts.retain(|chart| !chart.is_empty());
    charts
}

fn is_flat_zero(line: &Line) -> bool {
    line.points.iter().all(|(_, value)| value.is_none_or(|value| value == 0.0))
}

/// Charts over the time of a run.
struct OverTime<'a> {
    rows: Vec<&'a Row>,
    x: Axis,
    shaded: Vec<(f64, f64)>,
}

impl<'a> OverTime<'a> {
    fn new(series: &'a Series) -> Self {
        let mut rows: Vec<&Row> = series.rows().iter().collect();
        if rows.len() > 1 && rows.last().is_some_and(|last| last.span_s < SPAN_MIN_S) {
            rows.pop();
        }
        let high = rows.last().map_or(1.0, |last| last.at_s);
        let is_measured = |row: &&&Row| matches!(row.phase, "send" | "hold");
        let mut shaded = Vec::new();
        if let Some(first) = rows.iter().find(is_measured) {
            shaded.push((0.0, first.at_s - first.span_s));
        }
        if let Some(last) = rows.iter().rfind(is_measured) {
            shaded.push((last.at_s, high));
        }
        shaded.retain(|(from, to)| to > from);
        Self { rows, x: Axis::Seconds { high }, shaded }
    }

    fn line(&self, name: &str, of: impl Fn(&Row) -> Option<f64>) -> Line {
        let points = self.rows.iter().map(|row| (row.at_s, of(row))).collect();
        Line { name: name.to_owned(), points }
    }

    fn chart(&self, name: &str, title: &str, unit: Unit, lines: Vec<Line>) -> Chart {
        Chart {
            name: name.to_owned(),
            title: title.to_owned(),
            unit,
            x: self.x.clone(),
            is_log: false,
            lines,
            shaded: self.shaded.clone(),
        }
    }

    /// One of the server's own figures.
    fn metric(&self, index: usize, name: &str) -> Chart {
        let (unit, scale) = match name {
            _ if name.contains("_bytes") && !name.ends_with("_per_s") => (Unit::Bytes, 1.0),
            _ if name.ends_with("_seconds_total_per_s") => (Unit::Percent, 100.0),
            _ if name.contains("_seconds") => (Unit::Micros, 1e6),
            _ if name.ends_with("_per_s") => (Unit::PerSecond, 1.0),
            _ => (Unit::Number, 1.0),
        };
        let value =
            |row: &Row| row.metrics.get(index).copied().flatten().map(|value| value * scale);
        let (file, title) = (format!("metric-{name}"), format!("The server says: {name}"));
        self.chart(&file, &title, unit, vec![self.line(name, value)])
    }
}

/// Latency over percentiles: each nine has as much room as the one before.
fn spectrum(report: &Report) -> Chart {
    let spectra = &report.spectra;
    let most = [&spectra.accepted, &spectra.service, &spectra.delivered].map(|of| of.count);
    // The slowest message stands at the end: its percentile is 100, which has no place on this axis.
    let high = (most.into_iter().max().unwrap_or(0).max(10) as f64).log10();
    let line = |name: &str, spectrum: &Spectrum| {
        let at =
            |quantile: f64| if quantile < 1.0 { Axis::nines(quantile).min(high) } else { high };
        let points = spectrum.steps.iter().map(|step| (at(step.quantile), Some(step.value_us)));
        Line { name: name.to_owned(), points: points.collect() }
    };
    let mut lines =
        vec![line("accepted", &spectra.accepted), line("delivered", &spectra.delivered)];
    // Without a rate both count from the real send.
    if report.environment.rate > 0 {
        lines.push(line("accepted, from the real send", &spectra.service));
    }
    lines.retain(|line| !line.points.is_empty());
    Chart {
        name: "spectrum".to_owned(),
        title: "Latency by percentile".to_owned(),
        unit: Unit::Micros,
        x: Axis::Nines { high },
        is_log: true,
        lines,
        shaded: Vec::new(),
    }
}
