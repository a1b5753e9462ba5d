//! The command `iris-loadgen`: flags in, a run, a table and an exit code out.

use clap::Parser;
use iris_loadgen::cli::{Cli, Scenario};
use iris_loadgen::report::{EXIT_INVALID, Report};
use iris_loadgen::scenario;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let scenario = Cli::parse().scenario;
    let json = scenario.json();
    match run(scenario).and_then(|report| tell(&report, json)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("iris-loadgen: {error:#}");
            ExitCode::from(EXIT_INVALID)
        }
    }
}

fn run(scenario: Scenario) -> anyhow::Result<Report> {
    match scenario {
        Scenario::Idle(flags) => scenario::idle::run(flags),
        Scenario::Latency(flags) => scenario::latency::run(flags),
        Scenario::Throughput(flags) => scenario::throughput::run(flags),
        Scenario::Fanin(flags) => scenario::fanin::run(flags),
        Scenario::Offline(flags) => scenario::offline::run(flags),
    }
}

fn tell(report: &Report, json: Option<PathBuf>) -> anyhow::Result<u8> {
    print!("{}", report.table());
    if let Some(path) = json {
        report.write_json(&path)?;
    }
    Ok(report.exit_code())
}
