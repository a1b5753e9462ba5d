use super::*;

/// Row `index` of a run that accepts `index + 1` messages in each second, with latencies of as many microseconds.
fn row(index: u64) -> Row {
    let mut latencies = Latencies::of_interval();
    latencies.record((index + 1) * 1000);
    row_of(index, latencies)
}

fn row_of(index: u64, latencies: Latencies) -> Row {
    Row {
        at_s: (index + 1) as f64,
        span_s: 1.0,
        phase: "send",
        counted: Counted { accepted: index + 1, ..Counted::default() },
        connections: index,
        server_rss_bytes: Some(index),
        server_cpu_percent: Some(index as f64),
        metrics: vec![Some(1.0), None],
        ..Row::new(latencies)
    }
}

fn series(rows: u64) -> Series {
    let mut series = Series::new(vec!["a".to_owned(), "b".to_owned()]);
    (0..rows).for_each(|index| series.push(row(index)));
    series
}

#[test]
fn a_long_run_keeps_few_rows_and_counts_all() {
    let rows = 2 * ROWS_MAX as u64 + 5;
    let mut series = Series::new(vec!["a".to_owned(), "b".to_owned()]);
    // Rows without latencies: to merge so many histograms would take the test seconds.
    let one = row_of(0, Latencies::of_interval());
    for index in 0..rows {
        let counted = Counted { accepted: index + 1, ..Counted::default() };
        series.push(Row { at_s: (index + 1) as f64, counted, ..one.clone() });
    }
    assert!(series.rows().len() <= ROWS_MAX);
    let accepted: u64 = series.rows().iter().map(|row| row.counted.accepted).sum();
    assert_eq!(accepted, rows * (rows + 1) / 2);
    let span: f64 = series.rows().iter().map(|row| row.span_s).sum();
    assert_eq!(span, rows as f64);
    let in_order = series.rows().is_sorted_by(|a, b| a.at_s < b.at_s);
    assert!(in_order && series.rows().last().unwrap().at_s == rows as f64);
    assert!(series.rows().iter().rev().skip(1).all(|row| row.span_s == 4.0));
}

#[test]
fn joined_rows_have_the_percentiles_of_all_their_messages() {
    let mut first = row(0);
    (1..100).for_each(|index| first.join(row(index)));
    let latency = first.latency.unwrap();
    assert!((latency.p50_us - 50.0).abs() <= 1.0, "{latency:?}");
    assert!((latency.p99_us - 99.0).abs() <= 1.0 && (latency.max_us - 100.0).abs() <= 1.0);
    assert_eq!((first.connections, first.server_rss_bytes), (99, Some(99)));
    assert!((first.server_cpu_percent.unwrap() - 49.5).abs() < 1e-6);
    assert_eq!(first.metrics, [Some(1.0), None]);
}

#[test]
fn a_drawing_gets_no_more_rows_than_it_has_room_for() {
    let series = series(1000);
    assert_eq!(series.thinned(300).rows().len(), 250);
    assert_eq!(series.thinned(2000), series);
}

#[test]
fn lines_of_csv_have_a_cell_for_each_name() {
    let series = series(2);
    let head = series.csv_head();
    assert!(head.ends_with("generator_cpu_percent,a,b\n"), "{head}");
    for row in series.rows() {
        assert_eq!(row.csv_line().matches(',').count(), head.matches(',').count());
    }
    assert_eq!(series.rows()[1].csv_line(), "2.000,1.000,send,0,0,2,0,0,0,1,2,2,2,1,1,,1,\n");
}

#[test]
fn json_has_a_line_for_each_row() {
    let text = serde_json::to_string_pretty(&series(3)).unwrap();
    assert_eq!(text.lines().count(), 5, "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value[1]["accepted"], 2);
    assert_eq!(value[1]["metrics"]["a"], 1.0);
    assert!(value[1]["metrics"]["b"].is_null());
    assert_eq!(serde_json::to_string(&Series::default()).unwrap(), "[]");
}
