use super::*;
use crate::benches;

fn count(name: &str, ops: u64, instructions: u64) -> Count {
    Count { name: name.to_owned(), op: "frame".to_owned(), ops, instructions }
}

fn baseline(counts: &[Count]) -> Baseline {
    let facts = Facts::from([("rustc".to_owned(), "rustc 1.92".to_owned())]);
    Baseline { date: "2026-11-27".to_owned(), facts, counts: counts.to_vec() }
}

fn verdicts(before: &[Count], now: &[Count]) -> Vec<Verdict> {
    compare(&baseline(before), now, 5.0).iter().map(|row| row.verdict).collect()
}

#[test]
fn growth_beyond_the_limit_is_more_and_up_to_it_is_not() {
    for (instructions, verdict) in [
        (10_000, Verdict::Same),
        (10_500, Verdict::Same),
        (10_501, Verdict::More),
        (20_000, Verdict::More),
        (9_500, Verdict::Same),
        (9_499, Verdict::Less),
    ] {
        let now = [count("wire/a", 100, instructions)];
        assert_eq!(verdicts(&[count("wire/a", 100, 10_000)], &now), [verdict], "{instructions}");
    }
}

#[test]
fn one_that_doubled_is_found_among_others() {
    let before = [count("a", 1, 100), count("b", 1, 200), count("c", 1, 300)];
    let now = [count("a", 1, 100), count("b", 1, 400), count("c", 1, 300)];
    assert_eq!(verdicts(&before, &now), [Verdict::Same, Verdict::More, Verdict::Same]);
}

#[test]
fn operations_count_and_not_turns() {
    let before = [count("a", 100, 10_000)];
    assert_eq!(verdicts(&before, &[count("a", 200, 20_000)]), [Verdict::Same]);
    assert_eq!(verdicts(&before, &[count("a", 100, 20_000)]), [Verdict::More]);
}

#[test]
fn what_one_side_lacks_is_named() {
    let (before, now) = ([count("old", 1, 100)], [count("new", 1, 100)]);
    assert_eq!(verdicts(&before, &now), [Verdict::New, Verdict::Gone]);
}

#[test]
fn the_table_has_a_line_for_each_and_shouts_at_more() {
    let before = baseline(&[count("wire/a", 10, 1000), count("wire/b", 10, 1000)]);
    let now = [count("wire/a", 10, 1000), count("wire/b", 10, 1100)];
    let table = table(&compare(&before, &now, 5.0));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>().join(" "),
        "wire/a frame 100.0 100.0 +0.00 %"
    );
    assert!(lines[2].ends_with("+10.00 %  MORE"), "{table}");
}

#[test]
fn another_compiler_is_told_with_what_to_do() {
    let before = baseline(&[]);
    assert_eq!(doubts(&before, &before.facts), "");
    let now = Facts::from([("rustc".to_owned(), "rustc 1.95".to_owned())]);
    let doubts = doubts(&before, &now);
    assert!(doubts.contains("rustc: rustc 1.92 in the baseline, rustc 1.95 now"), "{doubts}");
    assert!(doubts.contains("make bench-baseline"), "{doubts}");
}

#[test]
fn the_recorded_baseline_has_every_benchmark_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.json");
    let recorded = Baseline::read(&path).expect("it is part of the repository");
    let recorded: Vec<(&str, u64)> =
        recorded.counts.iter().map(|count| (count.name.as_str(), count.ops)).collect();
    let all = benches::all();
    let all: Vec<(&str, u64)> =
        all.iter().map(|bench| (bench.name, bench.ops_measured())).collect();
    assert_eq!(recorded, all, "record it anew: make bench-baseline");
}
