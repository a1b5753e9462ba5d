use super::*;
use crate::control::Counts;
use crate::payload::Verdicts;
use crate::stats::Measured;

fn outcome() -> Outcome {
    let mut measured = Measured { accepted_steady: 100, ..Measured::default() };
    measured.accepted.record(50_000);
    measured.delivered.record(70_000);
    Outcome {
        measured,
        verdicts: Verdicts { delivered: 100, ..Verdicts::default() },
        counts: Counts { sent: 100, accepted: 100, ..Counts::default() },
        lost: 0,
        series: Series::default(),
        workers: Vec::new(),
        handshakes: Handshakes::default(),
    }
}

fn filled(outcome: Outcome) -> Report {
    let mut report = Report { scenario: "throughput", ..Report::default() };
    report.fill(outcome, Usage { wall: Duration::from_secs(2), ..Usage::default() });
    report.valid = report.invalid_reasons.is_empty();
    report
}

#[test]
fn a_clean_run_is_valid_and_ends_with_0() {
    let report = filled(outcome());
    assert_eq!((report.exit_code(), report.rate_per_s), (0, 50.0));
    assert!(report.table().contains("nothing lost"), "{}", report.table());
}

#[test]
fn a_missed_objective_ends_a_clean_run_with_99() {
    let mut report = filled(outcome());
    let slo: crate::objective::Objectives = "p99<1ms,rate>=50".parse().unwrap();
    report.objectives = slo.check(&report);
    assert_eq!(report.exit_code(), 0);
    let slo: crate::objective::Objectives = "p99<1us,rate>=50".parse().unwrap();
    report.objectives = slo.check(&report);
    assert_eq!(report.exit_code(), EXIT_MISSED);
    assert!(report.table().contains("p99<1us: 50 MISSED"), "{}", report.table());
    report.valid = false;
    assert_eq!(report.exit_code(), EXIT_INVALID, "what says nothing missed nothing");
}

#[test]
fn the_json_has_the_names_that_others_script_against() {
    let json = serde_json::to_value(filled(outcome())).unwrap();
    let names = "scenario protocol guarantee valid connections sent accepted delivered lost duplicates reordered \
                 rate_per_s latency_us delivered_latency_us rejected errors environment generator series";
    for name in names.split_whitespace() {
        assert!(json.get(name).is_some(), "{name}");
    }
    for name in ["p50", "p90", "p99", "p999", "max"] {
        assert!(json["latency_us"][name].is_f64(), "{name}");
    }
    assert_eq!(json["latency_us"]["p50"].as_f64().unwrap().round(), 50.0);
}

#[test]
fn where_nothing_answers_rates_are_of_deliveries_and_nothing_is_waited_for() {
    let mut report = Report { protocol: Spoken(Protocol::Nats), ..Report::default() };
    let mut measured = Measured { delivered_steady: 80, ..Measured::default() };
    measured.delivered.record(70_000);
    let counts = Counts { sent: 100, unanswerable: 100, ..Counts::default() };
    let verdicts = Verdicts { delivered: 90, ..Verdicts::default() };
    let (series, workers) = (Series::default(), Vec::new());
    let handshakes = Handshakes { full: 3, resumed: 4 };
    let outcome = Outcome { measured, verdicts, counts, lost: 10, series, workers, handshakes };
    report.fill(outcome, Usage { wall: Duration::from_secs(2), ..Usage::default() });
    report.valid = report.invalid_reasons.is_empty();
    assert_eq!((report.rate_per_s, report.accepted, report.lost), (40.0, 0, 10));
    assert_eq!(report.exit_code(), EXIT_MISSED, "{}", report.table());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["protocol"], &json["latency_us"]), (&"nats".into(), &().into()));
}

#[test]
fn each_kind_of_damage_misses_the_objective() {
    let damages: [fn(&mut Outcome); 4] = [
        |outcome| outcome.lost = 1,
        |outcome| outcome.verdicts.duplicates = 1,
        |outcome| outcome.verdicts.reordered = 1,
        |outcome| outcome.verdicts.corrupted = 1,
    ];
    for damage in damages {
        let mut damaged = outcome();
        damage(&mut damaged);
        assert_eq!(filled(damaged).exit_code(), EXIT_MISSED);
    }
}

#[test]
fn ended_connections_and_missing_answers_make_a_run_invalid() {
    let flaws: [fn(&mut Outcome); 4] = [
        |outcome| outcome.counts.ended = 1,
        |outcome| outcome.counts.failed = 1,
        |outcome| outcome.counts.accepted = 99,
        |outcome| outcome.measured.error("answer_to_nothing"),
    ];
    for flaw in flaws {
        let mut flawed = outcome();
        flaw(&mut flawed);
        let report = filled(flawed);
        assert_eq!(report.exit_code(), EXIT_INVALID);
        assert!(report.table().contains("INVALID"));
    }
}

#[test]
fn numbers_and_dates_are_written_for_people() {
    assert_eq!(grouped(0), "0");
    assert_eq!(grouped(999), "999");
    assert_eq!(grouped(1_234_567), "1,234,567");
    assert_eq!(utc(0), "1970-01-01T00:00:00Z");
    assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
    assert_eq!(utc(1_795_132_800), "2026-11-20T00:00:00Z");
}
