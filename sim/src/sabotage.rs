//! Builds that are wrong on purpose: each must be noticed.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use iris_proto::sabotage::Sabotage;
use iris_sim::{Options, run};

use crate::Args;

/// Runs one way of being wrong, or all, until a seed notices. Fails if one is not noticed.
pub(crate) fn run_all(args: &Args, name: &str) -> ExitCode {
    let chosen: Vec<_> =
        Sabotage::ALL.iter().filter(|(_, of, _)| name == "all" || name == *of).collect();
    if chosen.is_empty() {
        let all: Vec<&str> = Sabotage::ALL.iter().map(|(_, name, _)| *name).collect();
        eprintln!("there is no sabotage {name:?}; there are all, {}", all.join(", "));
        return ExitCode::from(2);
    }
    let mut missed = 0;
    for (what, name, says) in &chosen {
        match first_seed(args, *what) {
            Some((seed, broken)) => println!("{name:22} seed {seed:4}: {broken}"),
            None => {
                missed += 1;
                println!("{name:22} NOT NOTICED in {} seeds ({says})", args.seeds);
            }
        }
    }
    println!("{} of {} noticed", chosen.len() - missed, chosen.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The lowest seed that notices, and what it says.
fn first_seed(args: &Args, what: Sabotage) -> Option<(u64, String)> {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    let (next, found) = (AtomicU64::new(args.from), AtomicU64::new(u64::MAX));
    let to = args.from + args.seeds;
    let search = || {
        let mut first = None;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= to || seed > found.load(Ordering::Relaxed) {
                return first;
            }
            let options = Options { sabotage: Some(what), ..Options::new(seed) };
            if let Some(broken) = run(&options).broken {
                found.fetch_min(seed, Ordering::Relaxed);
                first.get_or_insert((seed, broken));
            }
        }
    };
    std::thread::scope(|scope| {
        let jobs = args.jobs.unwrap_or(cpus).max(1);
        let all: Vec<_> = (0..jobs).map(|_| scope.spawn(search)).collect();
        all.into_iter().filter_map(|job| job.join().ok().flatten()).min()
    })
}
