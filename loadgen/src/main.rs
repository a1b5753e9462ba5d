//! The command `iris-loadgen`: flags in, a run, a table and an exit code out.

use anyhow::Context;
use clap::Parser;
use iris_loadgen::cli::{Cli, Scenario};
use iris_loadgen::report::{EXIT_INVALID, Report};
use iris_loadgen::scenario;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let scenario = Cli::parse().scenario;
    let json = scenario.flags().json.clone();
    let checked = json.as_deref().map_or(Ok(()), check_writable);
    match checked.and_then(|()| run(scenario, json)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("iris-loadgen: {error:#}");
            ExitCode::from(EXIT_INVALID)
        }
    }
}

fn run(scenario: Scenario, json: Option<PathBuf>) -> anyhow::Result<u8> {
    let slo = scenario.flags().slo.clone().unwrap_or_default();
    let mut report = match scenario {
        Scenario::Idle(flags) => scenario::idle::run(flags),
        Scenario::Latency(flags) => scenario::latency::run(flags),
        Scenario::Throughput(flags) => scenario::throughput::run(flags),
        Scenario::Fanin(flags) => scenario::fanin::run(flags),
        Scenario::Offline(flags) => scenario::offline::run(flags),
        Scenario::Search(flags) => return scenario::search::run(flags),
    }?;
    report.objectives = slo.check(&report);
    tell(&report, json)
}

/// A file that cannot be written is better known before the run than after it.
fn check_writable(path: &Path) -> anyhow::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map(drop).with_context(|| format!("cannot write --json {}", path.display()))
}

fn tell(report: &Report, json: Option<PathBuf>) -> anyhow::Result<u8> {
    scenario::say(&report.table());
    if let Some(path) = json {
        report.write_json(&path)?;
    }
    Ok(report.exit_code())
}
