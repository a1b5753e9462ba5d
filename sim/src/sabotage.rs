//! Builds that are wrong on purpose: each must be noticed.

use std::process::{Command, ExitCode};
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
        // An assertion that fails ends a process that aborts: each has one of its own.
        let noticed = match chosen.len() {
            1 => first_seed(args, *what),
            _ => in_process(args, name),
        };
        match noticed {
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

/// The seed that notices in a process of its own, and what it says.
fn in_process(args: &Args, name: &str) -> Option<(u64, String)> {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.args(["--sabotage", name, "--seeds", &args.seeds.to_string()]);
    command.args(["--from", &args.from.to_string()]);
    let output = command.output().expect("this program can be started");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // "NAME seed N: WHAT" of a run that ended, "seed N panicked: WHAT" of one that aborted.
    let line = said.lines().find(|line| line.starts_with("seed ") || line.starts_with(name))?;
    let (_, rest) = line.split_once("seed ")?;
    let (seed, what) = rest.trim_start().split_once([':', ' '])?;
    Some((seed.parse().ok()?, what.trim().to_owned()))
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
