//! What it costs a generator thread to record a message: in the run's histograms alone, and for its second as well.
//!
//! `cargo run --release -p iris-loadgen --example record_cost`

use iris_loadgen::control::Window;
use iris_loadgen::sender::Times;
use iris_loadgen::stats::{Latencies, Measured};
use std::hint::black_box;
use std::time::Instant;

const MESSAGES: u64 = 20_000_000;

/// Latencies of 20 us to some milliseconds, most of them small, each unlike the one before.
fn latency_ns(random: &mut u64) -> u64 {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    20_000 + (*random >> 33) % (1 << (10 + (*random >> 60)))
}

fn ns_each(mut one: impl FnMut(u64)) -> f64 {
    let mut random = 1;
    let began = Instant::now();
    for _ in 0..MESSAGES {
        one(black_box(latency_ns(&mut random)));
    }
    began.elapsed().as_nanos() as f64 / MESSAGES as f64
}

fn main() {
    let now_ns = 1_000_000_000;
    let times = |ns| Times { intended_ns: now_ns - ns, sent_ns: now_ns - ns };
    let window =
        Window { send_from_ns: 0, steady_from_ns: 0, until_ns: u64::MAX, ..Window::default() };
    let nothing = ns_each(|ns| {
        black_box(times(ns));
    });
    let mut measured = Measured::default();
    let all = ns_each(|ns| measured.note_accepted(times(ns), now_ns, window)) - nothing;
    let mut interval = Latencies::of_interval();
    let of_interval = ns_each(|ns| interval.record(ns)) - nothing;
    println!("each message: {all:.1} ns, {of_interval:.1} ns of it for the series");
    let began = Instant::now();
    let packed = black_box(interval.packed());
    println!("each second: {} us to pack {} bytes", began.elapsed().as_micros(), packed.len());
}
