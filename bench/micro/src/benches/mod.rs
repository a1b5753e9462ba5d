//! The benchmarks, in the order of a message's life: bytes of a client, session, limits, core, log, mirror, edge.
//!
//! Turns are as large as batches under load, some hundred messages of 64 bytes. Cryptographic hashes are left out:
//! valgrind shows no instructions for SHA-256, so their count would be that of code that hardly any machine runs.

mod admission;
mod codec;
mod core;
mod edge;
mod log;
mod node;
mod pair;
mod traffic;

use crate::work::Bench;

/// Milliseconds since 1970 at which every work begins.
const T0: u64 = 1_800_000_000_000;
/// The payload of each message.
const PAYLOAD: [u8; 64] = [7; 64];
/// Users of each kind, where there are several.
const USERS: u32 = 100;
/// Messages of a turn of the machines: what one sync covers at 300,000 a second and 1 ms a sync.
const BATCH: u32 = 300;

/// Every benchmark.
pub(crate) fn all() -> Vec<Bench> {
    let parts = [
        codec::BENCHES,
        admission::BENCHES,
        core::BENCHES,
        log::BENCHES,
        node::BENCHES,
        pair::BENCHES,
        edge::BENCHES,
    ];
    parts.concat()
}

/// The name of a user.
fn name(kind: &str, number: u32) -> String {
    format!("{kind}-{number:06}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::measured;
    use std::collections::BTreeSet;

    #[test]
    fn every_benchmark_does_its_work() {
        for bench in all() {
            Bench { warm: 2, turns: 2, ..bench }.run(measured);
        }
    }

    #[test]
    fn no_two_benchmarks_have_one_name() {
        let benches = all();
        let names: BTreeSet<&str> = benches.iter().map(|bench| bench.name).collect();
        assert_eq!(names.len(), benches.len());
    }
}
