//! Runs of mixed faults: those that failed once, and as many others as a test may take time for.

use iris_sim::faults::Kind;
use iris_sim::{Options, Outcome, run};

fn check(seed: u64) -> Outcome {
    let outcome = run(&Options::new(seed));
    if let Some(what) = &outcome.broken {
        panic!(
            "seed {seed} at {} ms: {what}\nagain: cargo run --release -p iris-sim -- --seed {seed} --trace",
            outcome.at_ms
        );
    }
    outcome
}

#[test]
fn seeds_that_failed_once_do_not_fail() {
    let list = include_str!("../seeds.txt");
    let seeds: Vec<u64> =
        list.lines().filter(|line| !line.starts_with('#')).filter_map(|s| s.parse().ok()).collect();
    assert!(!seeds.is_empty());
    seeds.into_iter().for_each(|seed| _ = check(seed));
}

#[test]
fn two_hundred_seeds_of_mixed_faults_keep_what_was_promised() {
    let mut total = Outcome::default();
    (0..200).for_each(|seed| total.add(&check(seed)));
    // A run in which nothing happens proves nothing.
    assert_eq!(total.faults.len(), Kind::ALL.len(), "{:?}", total.faults);
    assert!(total.faults.iter().all(|(_, count)| *count > 50), "{:?}", total.faults);
    assert!(total.accepted > 50_000 && total.accepted_alone > 10_000, "{total:?}");
    assert!(total.splits > 200 && total.collapsed > 200 && total.dropped > 200, "{total:?}");
    assert!(total.ordered > 50_000 && total.put_off > 200 && total.excused > 50, "{total:?}");
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    let (first, second) = (check(7), check(7));
    assert_eq!(first, second);
    assert_ne!(first.digest, check(8).digest);
}
