//! The command `iris-micro`: what the machines of Iris cost, in instructions and in time.
//!
//! `work.rs` says what a benchmark is, `benches/` has them all; `count.rs` counts, `baseline.rs` compares, `time.rs` times.

mod baseline;
mod benches;
mod count;
mod facts;
mod time;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};

use baseline::{Baseline, Count, Verdict};
use count::Counter;
use work::{Bench, measured};

/// Something takes more instructions than the baseline allows.
const EXIT_MORE: u8 = 99;
/// The run says nothing.
const EXIT_INVALID: u8 = 2;

/// What the machines of Iris cost: instructions, compared with a baseline, and time.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Names the benchmarks.
    List,
    /// Counts instructions and fails (exit code 99) if one operation takes more than the baseline allows.
    Check {
        #[command(flatten)]
        counting: Counting,
        /// Growth of one operation's instructions that is allowed, in percent.
        #[arg(long, default_value_t = 5.0, value_parser = percent)]
        limit: f64,
        /// Only benchmarks whose names contain one of these.
        names: Vec<String>,
    },
    /// Counts instructions and makes them the baseline.
    Record {
        #[command(flatten)]
        counting: Counting,
    },
    /// Times the same work, in nanoseconds of one operation.
    Time {
        /// How often the work is done from its beginning.
        #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
        /// Only benchmarks whose names contain one of these.
        names: Vec<String>,
    },
    /// Does the work of one benchmark: what valgrind runs.
    #[command(hide = true)]
    Run { name: String },
}

#[derive(Args)]
struct Counting {
    /// The file of the baseline.
    #[arg(long, value_name = "FILE", default_value = "bench/micro/baseline.json")]
    baseline: PathBuf,
    /// The program that counts.
    #[arg(long, value_name = "PROGRAM", default_value = "valgrind")]
    valgrind: PathBuf,
    /// Benchmarks at a time; 0: as many as there are CPUs.
    #[arg(long, default_value_t = 0)]
    at_once: usize,
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse::<f64>().ok().filter(|percent| percent.is_finite() && *percent >= 0.0);
    percent.ok_or_else(|| format!("{text:?} is no percentage from 0"))
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("iris-micro: {error:#}");
            ExitCode::from(EXIT_INVALID)
        }
    }
}

fn run(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::List => {
            for bench in benches::all() {
                println!("{:<24} {}", bench.name, bench.op);
            }
            Ok(0)
        }
        Command::Check { counting, limit, names } => check(&counting, limit, &names),
        Command::Record { counting } => record(&counting),
        Command::Time { rounds, names } => {
            println!("{:<24} {:<14} {:>10} {:>10}", "benchmark", "ns a", "least", "median");
            for bench in named(&names)? {
                let times = time::time(&bench, usize::from(rounds));
                let (least, median) = (times.least, times.median);
                println!("{:<24} {:<14} {least:>10.1} {median:>10.1}", bench.name, bench.op);
            }
            Ok(0)
        }
        Command::Run { name } => {
            let Some(bench) = benches::all().into_iter().find(|bench| bench.name == name) else {
                bail!("there is no benchmark {name}: see `iris-micro list`");
            };
            bench.run(measured);
            Ok(0)
        }
    }
}

/// The benchmarks whose names contain one of `parts`; all without any.
fn named(parts: &[String]) -> anyhow::Result<Vec<Bench>> {
    let mut benches = benches::all();
    if !parts.is_empty() {
        benches.retain(|bench| parts.iter().any(|part| bench.name.contains(part.as_str())));
    }
    if benches.is_empty() {
        bail!("no benchmark has {} in its name: see `iris-micro list`", parts.join(" or "));
    }
    Ok(benches)
}

impl Counting {
    /// Counts, and says with what.
    fn count(&self, benches: &[Bench]) -> anyhow::Result<(facts::Facts, Vec<Count>)> {
        let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
        let at_once = if self.at_once == 0 { cpus() } else { self.at_once };
        let counter = Counter { valgrind: self.valgrind.clone(), at_once };
        let facts = facts::here(counter.version()?);
        let counts = counter.count(benches)?;
        let counts = benches.iter().zip(counts).map(|(bench, count)| Count::new(bench, count));
        Ok((facts, counts.collect()))
    }
}

fn check(counting: &Counting, limit: f64, names: &[String]) -> anyhow::Result<u8> {
    let mut baseline = Baseline::read(&counting.baseline)?;
    let benches = named(names)?;
    if !names.is_empty() {
        baseline.counts.retain(|count| names.iter().any(|part| count.name.contains(part.as_str())));
    }
    let (facts, counts) = counting.count(&benches)?;
    let rows = baseline::compare(&baseline, &counts, limit);
    print!("{}", baseline::table(&rows));
    let are = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    print!("{}", baseline::doubts(&baseline, &facts));
    let more = are(Verdict::More);
    if more > 0 {
        eprintln!(
            "iris-micro: {more} of {} take over {limit} % more instructions than on {}: make them cheaper, or say why in \
             the commit that records a new baseline (make bench-baseline)",
            rows.len(),
            baseline.date
        );
        return Ok(EXIT_MORE);
    }
    if are(Verdict::New) + are(Verdict::Gone) > 0 {
        bail!("the baseline does not name the same benchmarks: record it (make bench-baseline)");
    }
    println!("{} benchmarks within {limit} % of the baseline of {}", rows.len(), baseline.date);
    Ok(0)
}

fn record(counting: &Counting) -> anyhow::Result<u8> {
    let benches = benches::all();
    let (facts, counts) = counting.count(&benches)?;
    let baseline = Baseline { date: facts::today(), facts, counts };
    let before = Baseline::read(&counting.baseline).unwrap_or_else(|_| baseline.clone());
    baseline.write(&counting.baseline)?;
    print!("{}", baseline::table(&baseline::compare(&before, &baseline.counts, f64::INFINITY)));
    println!("{} counts in {}", baseline.counts.len(), counting.baseline.display());
    Ok(0)
}
