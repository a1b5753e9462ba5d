//! The command `iris-loadgen`: flags in, a run, a table and an exit code out.

use clap::Parser;
use iris_loadgen::cli::{Cli, Flags, Scenario};
use iris_loadgen::compare;
use iris_loadgen::fleet;
use iris_loadgen::garbage;
use iris_loadgen::manual;
use iris_loadgen::observe::check_writable;
use iris_loadgen::report::{EXIT_INVALID, Report};
use iris_loadgen::scenario;
use std::process::ExitCode;

fn main() -> ExitCode {
    let scenario = Cli::parse().scenario;
    match scenario.flags().map_or(Ok(()), check_files).and_then(|()| run(scenario)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("iris-loadgen: {error:#}");
            ExitCode::from(EXIT_INVALID)
        }
    }
}

/// A file that cannot be written is better known before the run than after it.
fn check_files(flags: &Flags) -> anyhow::Result<()> {
    flags.json.as_deref().map_or(Ok(()), |path| check_writable("--json", path))?;
    flags.observe.check()
}

fn run(scenario: Scenario) -> anyhow::Result<u8> {
    match scenario {
        Scenario::Search(flags) => scenario::search::run(flags),
        Scenario::Garbage(flags) => garbage::run(&flags),
        Scenario::Compare(flags) => compare::run(&flags),
        Scenario::Worker(flags) => fleet::serve::run(&flags),
        Scenario::Completions(flags) => manual::completions(&flags),
        Scenario::Man(flags) => manual::man(&flags),
        scenario => {
            let flags = scenario.flags().cloned().expect("every scenario has flags");
            tell(scenario::run(scenario).expect("it is a scenario")?, &flags)
        }
    }
}

fn tell(mut report: Report, flags: &Flags) -> anyhow::Result<u8> {
    report.objectives = flags.slo.clone().unwrap_or_default().check(&report);
    scenario::say(&report.table());
    if let Some(path) = &flags.json {
        report.write_json(path)?;
    }
    flags.observe.write(&report)?;
    Ok(report.exit_code())
}
