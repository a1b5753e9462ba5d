use super::*;
use crate::protocol::Protocol;
use crate::report::{Environment, Spoken};
use crate::series::{Counted, Series};
use crate::stats::Latencies;

fn report() -> Report {
    let mut series = Series::new(vec!["iris_wal_sync_seconds_mean".to_owned()]);
    let mut accepted = Latencies::default();
    for second in 0..10u64 {
        let mut interval = Latencies::of_interval();
        for message in 1..=50 {
            interval.record(message * 1000 * (second + 1));
            accepted.record(message * 1000 * (second + 1));
        }
        series.push(Row {
            at_s: second as f64 + 1.0,
            span_s: 1.0,
            phase: if second < 2 { "warm up" } else { "send" },
            counted: Counted { sent: 50, accepted: 50, delivered: 49, ..Counted::default() },
            connections: 10,
            server_rss_bytes: Some(25_000_000),
            server_cpu_percent: Some(80.0),
            generator_cpu_percent: Some(90.0),
            metrics: vec![Some(0.0001)],
            ..Row::new(interval)
        });
    }
    let mut report = Report {
        scenario: "throughput",
        valid: true,
        connections_open: 10,
        sent: 500,
        series,
        latency_us: accepted.percentiles(),
        environment: Environment {
            command: "iris-loadgen throughput --key '<script>alert(1)</script>'".to_owned(),
            target: "127.0.0.1:7400".to_owned(),
            ..Environment::default()
        },
        ..Report::default()
    };
    report.spectra.accepted = accepted.spectrum();
    report
}

#[test]
fn a_page_has_each_chart_once_with_lines() {
    let page = html(&report());
    let names = ["latency", "spectrum", "rate", "connections", "memory", "cpu"];
    for name in names.into_iter().chain(["metric-iris_wal_sync_seconds_mean"]) {
        assert_eq!(page.matches(&format!("id=\"chart-{name}\"")).count(), 1, "{name}");
    }
    assert_eq!(page.matches("<svg ").count(), 7);
    assert!(!page.contains("NaN") && page.contains("class=\"shade\""));
}

#[test]
fn a_page_loads_nothing_and_runs_nothing() {
    let page = html(&report());
    for word in ["<script", "src=", "href=", "url(", "@import", "style=\"", "onload"] {
        assert!(!page.contains(word), "{word}");
    }
    let links = page.matches("http://").count()
        - page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count();
    assert_eq!((links, page.matches("https://").count()), (0, 0));
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn what_was_typed_stands_there_as_text() {
    let page = html(&report());
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

#[test]
fn a_page_says_what_the_run_is_worth() {
    let mut report = report();
    assert!(html(&report).contains("verdict good"));
    report.lost = 1;
    assert!(html(&report).contains("verdict bad"));
    (report.valid, report.invalid_reasons) = (false, vec!["it was <late>".to_owned()]);
    let page = html(&report);
    assert!(page.contains("verdict void") && page.contains("it was &lt;late&gt;"));
}

#[test]
fn where_nothing_answers_the_latencies_are_those_of_deliveries() {
    let mut report = report();
    assert!(html(&report).contains("intended send to ACCEPTED"));
    report.protocol = Spoken(Protocol::Nats);
    report.delivered_latency_us = report.latency_us.take();
    let page = html(&report);
    assert!(page.contains("intended send to delivery") && page.contains(">p99<"));
    assert!(!page.contains(">accepted</span>"), "no tile of what nothing is");
}

#[test]
fn a_run_without_messages_has_charts_of_what_there_is() {
    let mut report = Report { scenario: "idle", ..Report::default() };
    assert!(charts::charts(&report).is_empty(), "nothing was recorded");
    report.series.push(Row {
        at_s: 0.2,
        span_s: 0.2,
        phase: "end",
        connections: 5,
        ..Row::default()
    });
    let names: Vec<String> = charts::charts(&report).into_iter().map(|chart| chart.name).collect();
    assert_eq!(names, ["connections"]);
}

#[test]
fn pictures_lie_beside_the_page() {
    assert_eq!(beside(Path::new("a/run.html"), "latency"), Path::new("a/run-latency.png"));
    assert_eq!(beside(Path::new("run"), "cpu"), Path::new("run-cpu.png"));
}
