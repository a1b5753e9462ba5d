//! Runs of mixed faults: those that failed once, and as many others as a test may take time for.

use iris_sim::faults::Kind;
use iris_sim::{Options, Outcome, run};

fn check(seed: u64) -> Outcome {
    check_run(Options::new(seed), "")
}

fn check_run(options: Options, more: &str) -> Outcome {
    let outcome = run(&options);
    if let Some(what) = &outcome.broken {
        let seed = options.seed;
        panic!(
            "seed {seed} at {} ms: {what}\nagain: cargo run --release -p iris-sim -- --seed {seed} --trace{more}",
            outcome.at_ms
        );
    }
    outcome
}

#[test]
fn seeds_that_failed_once_do_not_fail() {
    let list = include_str!("../seeds.txt");
    let mut count = 0;
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let (seed, is_direct) = match line.strip_suffix(" direct") {
            Some(seed) => (seed, true),
            None => (line, false),
        };
        let options = Options::new(seed.parse().expect("a line is a seed"));
        let edges = options.edges && !is_direct;
        check_run(Options { edges, ..options }, if is_direct { " --direct" } else { "" });
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn two_hundred_seeds_of_mixed_faults_keep_what_was_promised() {
    let mut total = Outcome::default();
    (0..200).for_each(|seed| total.add(&check(seed)));
    // A run in which nothing happens proves nothing.
    let kinds = Kind::ALL.len() + Kind::OF_EDGES.len();
    assert_eq!(total.faults.len(), kinds, "{:?}", total.faults);
    assert!(total.faults.iter().all(|(_, count)| *count > 50), "{:?}", total.faults);
    assert!(total.accepted > 50_000 && total.accepted_alone > 10_000, "{total:?}");
    assert!(total.splits > 200 && total.collapsed > 200 && total.dropped > 200, "{total:?}");
    assert!(total.ordered > 50_000 && total.put_off > 200 && total.excused > 50, "{total:?}");
    assert!(total.accepted_behind > 20_000 && total.moves[0] > 500, "{total:?}");
    assert!(total.moves[1] > 50 && total.repeats.iter().all(|count| *count > 500), "{total:?}");
}

#[test]
fn inboxes_that_drop_lose_only_what_a_record_says_and_both_nodes_agree() {
    let mut total = Outcome::default();
    for seed in 0..60 {
        let drop_above = Some(1 + seed as u32 % 7);
        let options = Options { drop_above, ..Options::new(seed) };
        let more = format!(" --drop-above {}", 1 + seed % 7);
        total.add(&check_run(options, &more));
    }
    assert!(total.displaced > 1000 && total.received > 5000, "{total:?}");
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    for seed in [7, 8] {
        let (first, second) = (check(seed), check(seed));
        assert_eq!(first, second);
        assert_ne!(first.digest, check(seed + 2).digest);
    }
}
