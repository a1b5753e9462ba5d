//! A run as one page: a file that loads nothing and runs nothing, for a mail or a shelf.
//!
//! The page is HTML with its style and its charts inside. It forbids itself to load anything, and is readable where a
//! server's policy forbids inline styles as well: charts have their colours in attributes.

mod charts;
mod png;

use crate::chart::escape;
use crate::chart::scale::Unit;
use crate::report::{Report, grouped};
use crate::series::Row;
use crate::server_probe::CONNECTIONS_MIN;
use anyhow::Context;
use png::Painter;
use std::path::{Path, PathBuf};

const STYLE: &str = include_str!("style.css");
/// Rows of the table of seconds, at most.
const TABLE_ROWS_MAX: usize = 720;

/// Writes the page, and each chart beside it as a picture: `run.html`, `run-latency.png`, ...
pub fn write(path: &Path, report: &Report) -> anyhow::Result<()> {
    let put = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes)
            .with_context(|| format!("cannot write --report {}", path.display()))
    };
    put(path, html(report).as_bytes())?;
    let painter = Painter::default();
    for chart in charts::charts(report) {
        put(&beside(path, &chart.name), &painter.png(&chart)?)?;
    }
    Ok(())
}

/// The picture of a chart, beside the page.
fn beside(page: &Path, chart: &str) -> PathBuf {
    let stem = page.file_stem().unwrap_or_default().to_string_lossy();
    page.with_file_name(format!("{stem}-{chart}.png"))
}

/// The page.
pub fn html(report: &Report) -> String {
    let environment = &report.environment;
    let title = escape(&format!("{} at {}", report.scenario, environment.target));
    let (class, verdict) = verdict(report);
    let reasons: String = report
        .invalid_reasons
        .iter()
        .map(|reason| format!("<p class=\"void\">{}</p>\n", escape(reason)))
        .collect();
    let figures: String = charts::charts(report)
        .iter()
        .map(|chart| format!("<figure>\n{}</figure>\n", chart.svg()))
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>{title}</h1>\n<p class=\"faint\">iris-loadgen {}, {}</p>\n\
         <p class=\"verdict {class}\">{verdict}</p>\n{reasons}\
         <div class=\"tiles\">\n{}</div>\n<h2>Charts</h2>\n\
         <p class=\"faint\">Shaded: logging in, warming up and draining, which rates and percentiles of the run leave out. \
         The pointer shows values.</p>\n{figures}\
         <h2>Figures</h2>\n{}<h2>Environment</h2>\n{}{}</body>\n</html>\n",
        escape(environment.version),
        escape(&environment.date),
        tiles(report),
        figures_table(report),
        environment_table(report),
        seconds_table(report),
    )
}

fn verdict(report: &Report) -> (&'static str, &'static str) {
    match (report.valid, report.is_clean(), report.is_met()) {
        (false, ..) => ("void", "Invalid: its figures say nothing"),
        (true, false, _) => ("bad", "Valid; messages were lost, repeated, reordered or damaged"),
        (true, true, false) => ("bad", "Valid; an objective was missed"),
        (true, true, true) => ("good", "Valid; nothing lost, repeated, reordered or damaged"),
    }
}

fn tiles(report: &Report) -> String {
    let mut tiles = Vec::new();
    let mut tile = |name: &str, value: String| {
        tiles.push(format!(
            "<div class=\"tile\"><span class=\"faint\">{name}</span><b>{}</b></div>\n",
            escape(&value)
        ));
    };
    tile("connections", grouped(report.connections_open.into()));
    if report.sent > 0 {
        if report.protocol.0.answers() {
            tile("accepted", format!("{}/s", grouped(report.rate_per_s as u64)));
        }
        tile("delivered", format!("{}/s", grouped(report.delivered_per_s as u64)));
    } else {
        tile("logins", format!("{}/s", grouped(report.login.per_s as u64)));
    }
    let latency = match report.protocol.0.answers() {
        true => &report.latency_us,
        false => &report.delivered_latency_us,
    };
    if let Some(latency) = latency {
        tile("p50", Unit::Micros.text(latency.p50));
        tile("p99", Unit::Micros.text(latency.p99));
        tile("p99.9", Unit::Micros.text(latency.p999));
    }
    tile("lost", grouped(report.lost));
    if let Some(server) = &report.server {
        tile("server memory", Unit::Bytes.text(server.rss_bytes as f64));
        // Below, what the server needs without any connection is most of it.
        if report.connections_open >= CONNECTIONS_MIN {
            tile("memory a connection", Unit::Bytes.text(server.rss_bytes_per_connection));
        }
        tile("server CPU, steady", format!("{} s", server.cpu_seconds_steady));
    }
    tiles.concat()
}

/// A table of names and values.
fn table(rows: &[(String, String)]) -> String {
    let rows: String = rows
        .iter()
        .map(|(name, value)| {
            format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(name), escape(value))
        })
        .collect();
    format!("<div class=\"scroll\"><table>\n{rows}</table></div>\n")
}

fn figures_table(report: &Report) -> String {
    table(&report.rows())
}

fn environment_table(report: &Report) -> String {
    let environment = &report.environment;
    let machine = format!("{} x {}", environment.cores, environment.cpu);
    let load = format!(
        "{} byte payloads, rate {}, window {}, burst {}, {} s after {} s",
        environment.payload_bytes,
        if environment.rate == 0 {
            "as fast as the windows allow".to_owned()
        } else {
            grouped(environment.rate)
        },
        environment.window,
        environment.burst,
        environment.duration_seconds,
        environment.warmup_seconds,
    );
    let rows = [
        ("command", environment.command.clone()),
        ("load", load),
        ("protocol", report.protocol.0.name().to_owned()),
        ("kernel", environment.kernel.clone()),
        ("cores", machine),
        ("date", environment.date.clone()),
    ];
    table(&rows.map(|(name, value)| (name.to_owned(), value)))
}

/// What the charts show, as numbers.
fn seconds_table(report: &Report) -> String {
    let series = report.series.thinned(TABLE_ROWS_MAX);
    let cell = |value: Option<String>| format!("<td>{}</td>", value.unwrap_or_default());
    let line = |row: &Row| {
        let counted = row.counted;
        let counts = [
            counted.logins,
            counted.sent,
            counted.accepted,
            counted.delivered,
            counted.refused,
            counted.failed,
        ];
        let latency = row.latency.map(|latency| [latency.p50_us, latency.p99_us, latency.max_us]);
        let mut cells = vec![format!("<td>{:.1}</td><td>{}</td>", row.at_s, escape(row.phase))];
        cells.extend(counts.map(|count| cell(Some(grouped(count)))));
        cells.extend([0, 1, 2].map(|at| cell(latency.map(|latency| latency[at].to_string()))));
        cells.push(cell(Some(grouped(row.connections))));
        cells.push(cell(row.server_rss_bytes.map(|bytes| Unit::Bytes.text(bytes as f64))));
        cells.extend(
            [row.server_cpu_percent, row.generator_cpu_percent]
                .map(|cpu| cell(cpu.map(|cpu| cpu.to_string()))),
        );
        format!("<tr>{}</tr>\n", cells.concat())
    };
    let head: String = [
        "until s",
        "phase",
        "logins",
        "sent",
        "accepted",
        "delivered",
        "refused",
        "failed",
        "p50 us",
        "p99 us",
        "max us",
        "connections",
        "server memory",
        "server CPU %",
        "generator CPU %",
    ]
    .map(|name| format!("<th scope=\"col\">{name}</th>"))
    .concat();
    let lines: String = series.rows().iter().map(line).collect();
    format!(
        "<details>\n<summary>Each second in numbers</summary>\n<div class=\"scroll\"><table class=\"numbers\">\n\
         <thead><tr>{head}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table></div>\n</details>\n"
    )
}

#[cfg(test)]
mod tests;
