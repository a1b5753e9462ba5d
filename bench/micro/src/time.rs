//! Times the same work that is counted. Times are for people: they differ from machine to machine and from hour to hour, so
//! nothing is decided by them.

use std::time::{Duration, Instant};

use crate::work::{Bench, measured};

/// Nanoseconds of one operation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Times {
    /// In the round in which it was fastest.
    pub(crate) least: f64,
    /// In the middle one of all rounds.
    pub(crate) median: f64,
}

/// Does the work of a benchmark so many times from its beginning.
pub(crate) fn time(bench: &Bench, rounds: usize) -> Times {
    let mut each: Vec<f64> = (0..rounds.max(1)).map(|_| round(bench)).collect();
    each.sort_by(f64::total_cmp);
    Times { least: each[0], median: each[each.len() / 2] }
}

fn round(bench: &Bench) -> f64 {
    let mut took = Duration::ZERO;
    bench.run(|work| {
        let began = Instant::now();
        measured(work);
        took += began.elapsed();
    });
    took.as_nanos() as f64 / bench.ops_measured() as f64
}
