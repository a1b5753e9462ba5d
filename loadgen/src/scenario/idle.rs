//! `idle`: connections that are logged in and silent. What one costs, and how fast they come.

use super::{SETTLE, Shape, Stage};
use crate::cli::Flags;
use crate::names::Topology;
use crate::net::Load;
use crate::report::{Report, grouped};

/// Logs in, holds, measures. `rate_per_s` is logins a second.
pub fn run(flags: Flags) -> anyhow::Result<Report> {
    let options = flags.check(1000)?;
    let users = options.connections;
    let does = format!(
        "log in {} users at {} and hold them for {:?}",
        grouped(users.into()),
        options.addr,
        options.duration
    );
    let window = 1;
    let shape = Shape::new("idle", Topology::Silent(users), Load::Quiet, window, does);
    let mut stage = Stage::set(shape, options)?;
    stage.log_in(users)?;
    stage.run.hold(SETTLE)?;
    stage.meter.start();
    stage.run.hold(stage.options.duration)?;
    stage.meter.stop();
    let mut report = stage.end()?;
    report.rate_per_s = report.login.per_s;
    Ok(report)
}
