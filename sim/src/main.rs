//! `iris-sim`: runs seeds, and says which ones broke what must be true.

use std::process::ExitCode;

use clap::Parser;
use iris_sim::faults::Kind;
use iris_sim::{Options, Outcome, run};

/// Runs a pair of cores on a fake machine, once for each seed.
#[derive(Parser, Debug)]
struct Args {
    /// How many seeds to run, from --from on.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Print each event of the run.
    #[arg(long)]
    trace: bool,
    /// Write the result as JSON.
    #[arg(long)]
    json: bool,
    /// Kinds of faults, separated by commas; all by default.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut kinds = Vec::new();
    for name in &args.faults {
        match Kind::of(name) {
            Some(kind) => kinds.push(kind),
            None => {
                let all: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
                eprintln!("there is no fault {name:?}; there are {}", all.join(", "));
                return ExitCode::from(2);
            }
        }
    }
    let seeds = match args.seed {
        Some(seed) => seed..seed + 1,
        None => args.from..args.from + args.seeds,
    };
    let mut total = Outcome::default();
    let mut broken = Vec::new();
    let mut ran = 0u64;
    for seed in seeds {
        let options = Options { trace: args.trace, kinds: kinds.clone(), ..Options::new(seed) };
        let outcome = run(&options);
        ran += 1;
        if let Some(what) = &outcome.broken {
            eprintln!("seed {seed} at {} ms: {what}", outcome.at_ms);
            eprintln!("  again: cargo run --release -p iris-sim -- --seed {seed} --trace");
            broken.push((seed, what.clone()));
        }
        total.add(&outcome);
    }
    if args.json {
        println!("{}", total.to_json(ran, &broken));
    } else {
        println!("{}", total.to_text(ran, broken.len()));
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
