//! The command `iris-loadgen`: flags in, a run, a table and an exit code out.

use clap::Parser;
use iris_loadgen::cli::{Cli, Flags, Scenario};
use iris_loadgen::compare;
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
    let flags = scenario.flags().cloned();
    let report = match scenario {
        Scenario::Idle(flags) => scenario::idle::run(flags),
        Scenario::Latency(flags) => scenario::latency::run(flags),
        Scenario::Throughput(flags) => scenario::throughput::run(flags),
        Scenario::P2p(flags) => scenario::p2p::run(flags),
        Scenario::Fanin(flags) => scenario::fanin::run(flags),
        Scenario::Offline(flags) => scenario::offline::run(flags),
        Scenario::Composite(flags) => scenario::composite::run(flags),
        Scenario::Fanout(flags) => scenario::fanout::run(flags),
        Scenario::Storm(flags) => scenario::storm::run(flags),
        Scenario::Churn(flags) => scenario::churn::run(flags),
        Scenario::Slow(flags) => scenario::slow::run(flags),
        Scenario::Presence(flags) => scenario::presence::run(flags),
        Scenario::Run(flags) => scenario::script::run(flags),
        Scenario::Search(flags) => return scenario::search::run(flags),
        Scenario::Compare(flags) => return compare::run(&flags),
    }?;
    let flags = flags.expect("every scenario has flags");
    tell(report, &flags)
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
