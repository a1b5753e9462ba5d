use serde_json::{Value, json};

use super::*;

fn recorded(dau: u64) -> Sheet {
    Plan::recorded(dau).sheet()
}

fn run(name: &str) -> Value {
    let path = format!("{}/bench/runs/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_built_in_figures_are_those_of_the_recorded_runs() {
    for row in measured::TABLE {
        let found = measured::of_report(&run(row.run)).unwrap();
        let found = found.iter().find(|(what, _)| *what == row.what);
        let (_, value) = found.unwrap_or_else(|| panic!("{}: not in {}", row.name, row.run));
        let off = (value - row.value).abs() / row.value;
        assert!(off < 1e-4, "{}: {value} in {}, not {}", row.name, row.run, row.value);
    }
}

#[test]
fn tables_are_in_the_order_of_their_enums_and_defaults_within_their_bounds() {
    for (index, row) in assumed::TABLE.iter().enumerate() {
        assert_eq!(row.what as usize, index, "{}", row.flag);
        assert!((row.range.0..=row.range.1).contains(&row.default), "{}", row.flag);
        assert!(!row.source.is_empty() && !row.text.is_empty());
    }
    for (index, row) in measured::TABLE.iter().enumerate() {
        assert_eq!(row.what as usize, index, "{}", row.name);
    }
    for dau in [1, 49_999_999, 50_000_000, 499_999_999, 500_000_000, DAU_MAX] {
        let sum: f64 = assumed::regions_of(dau).iter().map(|region| region.share).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{dau}");
    }
}

/// One region with these assumptions, and the part that it needs.
fn planned(dau: u64, changes: &[(Assumption, f64)]) -> Part {
    let mut plan = Plan::recorded(dau);
    plan.regions = assumed::parse_regions("1").unwrap();
    for (what, value) in changes {
        plan.assumed.set(*what, *value, "given").unwrap();
    }
    plan.sheet().total
}

#[test]
fn a_million_users_are_450_000_connections_and_2917_messages_a_second() {
    let part = planned(1_000_000, &[]);
    assert_eq!(part.connections, 450_000);
    // 60 SENDs a day, twice as many in the busiest second, to 2.1 recipients.
    assert!((part.sends_per_s - 1_388.9).abs() < 0.1, "{}", part.sends_per_s);
    assert!((part.deliveries_per_s - 2_916.7).abs() < 0.1, "{}", part.deliveries_per_s);
    // 126 messages for a user, 55 % to who is away, for 4 of 24 hours.
    assert_eq!(part.waiting, 11_550_000);
    assert_eq!((part.edges, part.spare_edges, part.groups, part.cores), (2, 1, 1, 2));
    // A million users write 10.5 messages each in an hour, by chance to 64 shards: 9.7 million senders with room for four
    // ids take the room of 116 million, where a partition has 14.
    assert_eq!((part.partitions, part.shards), (9, 64));
}

#[test]
fn what_is_scarce_decides_the_number_of_machines() {
    use Assumption::*;
    const GIB: f64 = (1_u64 << 30) as f64;
    let edges = [
        (vec![], "connections"),
        (vec![(EdgeMemory, 2.0 * GIB)], "memory"),
        (vec![(Messages, 600.0)], "CPU"),
    ];
    for (changes, by) in edges {
        assert_eq!(planned(100_000_000, &changes).edges_by, by, "{changes:?}");
    }
    let cores = [
        (vec![(Retention, 0.0), (Window, 60.0)], "rate"),
        (vec![(CoreDisk, 1e6 * GIB)], "memory"),
        (vec![(CoreMemory, 60_000.0 * GIB), (Payload, 65_536.0)], "disk"),
    ];
    for (changes, by) in cores {
        assert_eq!(planned(1_000_000_000, &changes).cores_by, by, "{changes:?}");
    }
}

#[test]
fn ten_times_the_users_are_ten_times_the_machines_and_never_fewer() {
    let (one, ten) = (planned(100_000_000, &[]), planned(1_000_000_000, &[]));
    for (name, less, more) in [("edges", one.edges, ten.edges), ("cores", one.cores, ten.cores)] {
        // Less than ten times where rounding up weighs less.
        let times = more as f64 / less as f64;
        assert!((8.5..=10.5).contains(&times), "{name}: {less}, {more}");
    }
    let mut last = 0.0;
    for dau in [1, 1_000, 1_000_000, 10_000_000, 100_000_000, 5_000_000_000, DAU_MAX] {
        let dollars = planned(dau, &[]).dollars();
        assert!(dollars.is_finite() && dollars >= last, "{dau}: {dollars} after {last}");
        last = dollars;
    }
}

#[test]
fn a_sender_takes_room_in_each_shard_that_it_writes_to() {
    // Who writes much is in all of few shards, who writes little to many in one for each message.
    assert!((room_for_ids(1000.0, 4e6, 4.0) - 4000.0 * (8.0 + 1500.0)).abs() < 1e3);
    assert!((room_for_ids(1e6, 2e6, 1e6) / (2e6 * 12.0) - 1.0).abs() < 1e-3);
    assert_eq!(room_for_ids(1e6, 0.0, 64.0), 0.0);
    let part = planned(100_000_000, &[]);
    let kept = room_for_ids(1e8, part.deliveries_per_s * 3600.0, part.shards as f64);
    let in_all = (part.groups * part.partitions) as f64;
    assert!(kept / in_all <= 14e6, "{kept} in {in_all} partitions");
    let of_core = 0.75 * 16.0 * (1_u64 << 30) as f64;
    assert!(part.core_memory_bytes <= of_core, "{}", part.core_memory_bytes);
}

#[test]
fn one_copy_takes_half_the_cores_and_the_clear_less_memory() {
    let (two, one) =
        (planned(100_000_000, &[]), planned(100_000_000, &[(Assumption::Copies, 1.0)]));
    assert_eq!((two.groups, two.cores), (one.groups, 2 * one.cores));
    let mut plan = Plan::recorded(100_000_000);
    assert!((plan.connection_bytes() - 8340.6).abs() < 0.1);
    plan.tls = false;
    assert!((plan.connection_bytes() - 4679.1).abs() < 0.1);
}

#[test]
fn a_total_is_the_sum_of_its_regions() {
    let sheet = recorded(5_000_000_000);
    assert_eq!(sheet.regions.len(), 6);
    let sum = |of: fn(&Part) -> u64| sheet.regions.iter().map(of).sum::<u64>();
    assert_eq!(sheet.total.edges, sum(|part| part.edges));
    assert_eq!(sheet.total.cores, sum(|part| part.cores));
    assert!(sheet.total.connections.abs_diff(2_250_000_000) <= 6);
    assert!(sheet.regions.iter().all(|part| part.partitions <= 1024 && part.shards <= SHARDS_MAX));
}

#[test]
fn what_this_version_does_not_do_is_named() {
    assert!(recorded(1_000_000).beyond.is_empty());
    let beyond = recorded(5_000_000_000).beyond.join("\n");
    for name in ["regions: ", "cores: a cluster has 2", "edges: a core links to 512"] {
        assert!(beyond.contains(name), "{name}: {beyond}");
    }
}

#[test]
fn the_bounds_of_the_cluster_are_those_of_the_code() {
    let source = |path: &str| {
        std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let links = format!("const LINKS_MAX: u32 = {LINKS_MAX};");
    assert!(source("src/cluster/gateway.rs").contains(&links));
    let shards = format!("(\"core\", \"num_shards\"), 1..={SHARDS_MAX}");
    assert!(source("src/config/check.rs").contains(&shards));
}

#[test]
fn an_assumption_outside_its_bounds_is_refused_by_its_flag() {
    let mut assumed = Assumed::default();
    for (what, value) in [
        (Assumption::Concurrency, 0.0),
        (Assumption::Concurrency, 1.1),
        (Assumption::Peak, f64::NAN),
        (Assumption::Copies, 3.0),
        (Assumption::EdgePrice, f64::INFINITY),
    ] {
        let error = assumed.set(what, value, "given").unwrap_err();
        assert!(error.starts_with(&format!("--{}: from ", assumed::TABLE[what as usize].flag)));
    }
    assert_eq!(assumed, Assumed::default());
}

#[test]
fn regions_are_names_with_shares_or_a_number() {
    let regions = assumed::parse_regions("eu=0.4, us=0.6").unwrap();
    assert_eq!((regions[1].name.as_str(), regions[1].share), ("us", 0.6));
    assert_eq!(assumed::parse_regions("4").unwrap()[3].share, 0.25);
    for wrong in
        ["", "0", "65", "eu", "eu=0.5", "eu=0.5,eu=0.5", "a b=1", "eu=x", "eu=-1,us=2", "eu=NaN"]
    {
        assert!(assumed::parse_regions(wrong).is_err(), "{wrong}");
    }
}

fn taken(text: &str) -> Result<(Measured, Assumed), String> {
    let (mut measured, mut assumed) = (Measured::recorded(), Assumed::default());
    measured.take(&mut assumed, text, "run.json").map(|()| (measured, assumed))
}

/// A report as `iris-loadgen` writes it, of so many connections at a rate.
fn report(connections: u64, rate: u64) -> Value {
    json!({
        "scenario": "throughput", "protocol": "iris", "valid": true,
        "connections_open": connections, "lost": 0, "rate_per_s": 1000.0,
        "server": {
            "rss_bytes_per_connection": 500.0, "kernel_bytes_per_connection": 4000.0,
            "cpu_seconds_steady": 0.5, "rss_before_bytes": 1_000_000,
        },
        "environment": {
            "cores": 4, "rate": rate, "duration_seconds": 10.0, "payload_bytes": 64,
            "date": "2026-01-02T03:04:05Z", "kernel": "6.18",
        },
    })
}

#[test]
fn a_report_gives_memory_and_processor_time_and_says_where_they_are_from() {
    let (measured, _) = taken(&report(2000, 1000).to_string()).unwrap();
    assert_eq!(measured.value(Measure::RssClear), 500.0);
    assert_eq!(measured.value(Measure::Kernel), 4000.0);
    assert!((measured.value(Measure::MessageCpu) - 50e-6).abs() < 1e-12);
    assert_eq!(measured.source(Measure::Kernel), "run.json (2026-01-02T03:04:05Z, Linux 6.18)");
    let recorded = Measured::recorded();
    assert_eq!(measured.value(Measure::RssTls), recorded.value(Measure::RssTls));
    assert_eq!(measured.value(Measure::CoreRate), recorded.value(Measure::CoreRate));
}

#[test]
fn of_few_connections_memory_says_nothing_and_of_a_free_run_the_rate_counts() {
    let (measured, _) = taken(&report(100, 0).to_string()).unwrap();
    let recorded = Measured::recorded();
    assert_eq!(measured.value(Measure::RssClear), recorded.value(Measure::RssClear));
    assert_eq!(measured.value(Measure::CoreRate), 250.0);
}

#[test]
fn a_search_gives_what_it_found_as_a_file_or_as_its_last_line() {
    let found = json!({
        "kind": "capacity", "of": "rate", "value": 400_000, "verdict": "found",
        "best": report(100, 400_000),
    });
    let (measured, _) = taken(&found.to_string()).unwrap();
    assert_eq!(measured.value(Measure::CoreRate), 100_000.0);
    let found = json!({ "kind": "capacity", "of": "connections", "value": 30_000, "best": report(30_000, 5) });
    let (measured, assumed) = taken(&found.to_string()).unwrap();
    assert_eq!(assumed.value(Assumption::ConnectionsMax), 30_000.0);
    assert_eq!(measured.value(Measure::RssClear), 500.0);
    let line = "climb 1\ncapacity: at least (--to) 518,735/s of throughput meet p99<500ms; confirmed 3 times, \
                within 5 %; server 415.1 B rss a connection, CPU 1 s steady\n";
    let (measured, _) = taken(line).unwrap();
    assert_eq!(measured.value(Measure::CoreRate), 518_735.0 / 2.0);
    let line = "capacity: 50,000 connections of idle meet kernel<5000; confirmed 3 times, within 5 %; server \
                400.5 B rss a connection, CPU 1 s steady";
    let (measured, assumed) = taken(line).unwrap();
    assert_eq!(assumed.value(Assumption::ConnectionsMax), 50_000.0);
    assert_eq!(measured.value(Measure::RssClear), 400.5);
}

#[test]
fn what_nothing_can_be_planned_by_is_refused_with_a_reason() {
    let with = |at: &str, value: Value| {
        let mut report = report(2000, 1000);
        *report.pointer_mut(at).unwrap() = value;
        report.to_string()
    };
    for (text, why) in [
        (String::new(), "neither JSON"),
        ("capacity: no rate of p2p meets p99<1ms".to_owned(), "no load"),
        ("capacity: NaN/s of p2p meet p99<1ms".to_owned(), "no load"),
        ("[]".to_owned(), "no report"),
        ("{}".to_owned(), "no report"),
        (json!({ "kind": "capacity", "value": null }).to_string(), "found no load"),
        (
            json!({ "kind": "capacity", "value": 5, "of": "rate", "best": null }).to_string(),
            "how many cores",
        ),
        (with("/lost", json!(1)), "lost"),
        (with("/protocol", json!("mqtt")), "another server"),
        (with("/server", Value::Null), "nothing to plan by"),
        (
            with(
                "/server",
                json!({ "rss_bytes_per_connection": -5.0, "cpu_seconds_steady": 1e300 }),
            ),
            "nothing to plan by",
        ),
    ] {
        let error = taken(&text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn an_invalid_run_says_so_where_its_figures_are_shown() {
    let mut report = report(2000, 1000);
    report["valid"] = json!(false);
    let mut plan = Plan::recorded(1_000_000);
    plan.measured.take(&mut plan.assumed, &report.to_string(), "run.json").unwrap();
    let basis = show::basis(&plan);
    assert!(basis.contains("an invalid run"), "{basis}");
}

#[test]
fn every_figure_and_every_assumption_is_shown_with_its_source() {
    let plan = Plan::recorded(1_000_000);
    let (basis, json) = (show::basis(&plan), show::json(&plan, &plan.sheet()));
    for row in assumed::TABLE {
        assert!(
            basis.contains(&format!("--{} ", row.flag)) && basis.contains(row.source),
            "{}",
            row.flag
        );
    }
    for row in measured::TABLE {
        assert!(basis.contains(row.text) && basis.contains(row.run), "{}", row.name);
    }
    assert_eq!(json["assumed"].as_array().unwrap().len(), assumed::TABLE.len());
    assert_eq!(json["measured"].as_array().unwrap().len(), measured::TABLE.len());
    assert_eq!(json["total"]["connections"], 450_000);
    assert_eq!(json["estimate"], true);
}
