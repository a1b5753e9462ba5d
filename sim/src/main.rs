//! `iris-sim`: runs seeds, and says which ones broke what must be true.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser;
use iris_sim::faults::Kind;
use iris_sim::{Options, Outcome, current_seed, run};

#[cfg(feature = "sabotage")]
mod sabotage;

/// Lines of the trace that a failing seed shows.
const TAIL_LINES: usize = 40;
/// How often a terminal is told how far the run is.
const PROGRESS_EVERY: Duration = Duration::from_secs(3);

/// Runs a pair of cores on a fake machine, once for each seed, and checks what must be true.
///
/// Each run has two nodes with the decisions and the log of the server, on disks, a network and clocks made of plain
/// data, and clients who send, retry, read and acknowledge; in even seeds some of them through edges. For one and a half
/// seconds of its time things go wrong, as
/// the seed decides; then everything must be well again. A model in plain maps checks each answer and each delivery, and
/// both nodes at the end: nothing accepted is lost, no id is in an inbox twice, nothing comes back, order is kept, both
/// nodes are alike.
///
/// A seed that breaks something prints its number, what is not true, the end of its trace, and how to run it again.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:\n  \
    iris-sim --seeds 10000                  ten thousand runs on all CPUs\n  \
    iris-sim --seed 581 --trace             one run, each event printed\n  \
    iris-sim --faults crash,bit_rot         only these faults, in every run\n\n\
    Exit codes: 0 all seeds are clean, 1 a seed broke something, 2 wrong arguments.")]
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
    /// Print each event of the run; for a single seed.
    #[arg(long)]
    trace: bool,
    /// Write the result as JSON to standard output.
    #[arg(long)]
    json: bool,
    /// Kinds of faults, separated by commas; by default each seed chooses some of all.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Runs without edges, also of even seeds.
    #[arg(long)]
    direct: bool,
    /// Inboxes hold so many messages, and the oldest ones give way.
    #[arg(long)]
    drop_above: Option<u32>,
    /// Run a build that is wrong on purpose in this way, or in each of them, one after the other: `all`. Each must break
    /// something within --seeds; the first seed that does is named.
    #[cfg(feature = "sabotage")]
    #[arg(long)]
    sabotage: Option<String>,
    /// Runs at the same time; by default as many as there are CPUs.
    #[arg(long)]
    jobs: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut kinds = Vec::new();
    for name in &args.faults {
        match Kind::of(name) {
            Some(kind) => kinds.push(kind),
            None => {
                let all: Vec<&str> =
                    Kind::ALL.iter().chain(&Kind::OF_EDGES).map(|kind| kind.name()).collect();
                eprintln!("there is no fault {name:?}; there are {}", all.join(", "));
                return ExitCode::from(2);
            }
        }
    }
    std::panic::set_hook(Box::new(|what| {
        // Where a panic unwinds, it is told with its seed; where it aborts, there is no later.
        if cfg!(panic = "abort") {
            let seed = current_seed();
            eprintln!("seed {seed} panicked: {what}");
            eprintln!("  again: cargo run --release -p iris-sim -- --seed {seed} --trace");
        }
    }));
    #[cfg(feature = "sabotage")]
    if let Some(name) = &args.sabotage {
        return sabotage::run_all(&args, name);
    }
    let (total, broken, seeds) = run_all(&args, &kinds);
    if args.json {
        println!("{}", total.to_json(seeds, &broken));
    } else {
        println!("{}", total.to_text(seeds, broken.len()));
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the seeds on several threads. The sum, the seeds that broke something in their order, and how many there were.
fn run_all(args: &Args, kinds: &[Kind]) -> (Outcome, Vec<(u64, String)>, u64) {
    let (from, to) = match args.seed {
        Some(seed) => (seed, seed + 1),
        None => (args.from, args.from + args.seeds),
    };
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    let jobs = args.jobs.unwrap_or(cpus).clamp(1, (to - from).max(1));
    let next = AtomicU64::new(from);
    let (told, outcomes) = mpsc::channel();
    let (mut total, mut broken) = (Outcome::default(), Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (told, next) = (told.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to || told.send((seed, run_one(args, kinds, seed))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(told);
        let mut progress = Progress::new(to - from);
        for (seed, outcome) in outcomes {
            if let Some(what) = &outcome.broken {
                report(args, seed, &outcome, what);
                broken.push((seed, what.clone()));
            } else {
                outcome.trace.iter().for_each(|line| println!("{line}"));
            }
            total.add(&outcome);
            progress.one_more(broken.len());
        }
    });
    broken.sort();
    (total, broken, to - from)
}

fn run_one(args: &Args, kinds: &[Kind], seed: u64) -> Outcome {
    let trace = if args.trace && args.seed.is_some() { usize::MAX } else { 0 };
    let mut options = Options { trace, kinds: kinds.to_vec(), ..Options::new(seed) };
    options.edges &= !args.direct;
    options.drop_above = args.drop_above;
    let outcome = run(&options);
    if outcome.broken.is_none() || trace > 0 {
        return outcome;
    }
    // The same run again, with its trace: whoever reads the report sees what led there.
    run(&Options { trace: TAIL_LINES, ..options })
}

fn report(args: &Args, seed: u64, outcome: &Outcome, what: &str) {
    let mut out = std::io::stderr().lock();
    let mut say = |line: std::fmt::Arguments<'_>| {
        // A terminal that is gone is no reason to stop.
        let _ = writeln!(out, "{line}");
    };
    say(format_args!("seed {seed} at {} ms: {what}", outcome.at_ms));
    outcome.trace.iter().for_each(|line| say(format_args!("  {line}")));
    let faults = match args.faults.is_empty() {
        true => String::new(),
        false => format!(" --faults {}", args.faults.join(",")),
    };
    let direct = if args.direct { " --direct" } else { "" };
    let drops = args.drop_above.map(|most| format!(" --drop-above {most}")).unwrap_or_default();
    say(format_args!(
        "  again: cargo run --release -p iris-sim -- --seed {seed} --trace{faults}{direct}{drops}"
    ));
}

/// Tells a terminal how far the run is.
struct Progress {
    of: u64,
    done: u64,
    began: Instant,
    told: Instant,
    is_watched: bool,
}

impl Progress {
    fn new(of: u64) -> Self {
        let now = Instant::now();
        let is_watched = std::io::stderr().is_terminal();
        Self { of, done: 0, began: now, told: now, is_watched }
    }

    fn one_more(&mut self, broken: usize) {
        self.done += 1;
        if self.is_watched && self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            let left = self.began.elapsed().as_secs_f64() / self.done as f64
                * (self.of - self.done) as f64;
            eprintln!("{} of {} seeds, {broken} broken, {left:.0} s to go", self.done, self.of);
        }
    }
}
