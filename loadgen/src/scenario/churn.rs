//! `churn`: users come and go while they send. Nothing that was accepted is lost, and nothing comes twice.

use super::{Shape, Stage, at_least};
use crate::cli::ChurnFlags;
use crate::names::Topology;
use crate::net::Load;
use crate::report::{Report, grouped};
use crate::worker::Back;
use anyhow::ensure;
use iris_proto::limits::SEND_WINDOW_MAX;

/// Pairs that send to each other; so many connections a second are cut, and come back.
pub fn run(flags: ChurnFlags) -> anyhow::Result<Report> {
    let options = flags.flags.check_paced(1000, |users| users)?;
    let users = options.connections;
    at_least(users, 2, "they send to each other in pairs")?;
    ensure!(users.is_multiple_of(2), "--connections {users}: must be even, they send in pairs");
    let per_s = flags.churn.unwrap_or(u64::from(users).div_ceil(100));
    let does = format!(
        "{} users at {} in pairs, {} byte payloads, {}; {} connections a second are cut and made again after {:?}, for {:?}",
        grouped(users.into()),
        options.addr,
        options.payload,
        options.pace(),
        grouped(per_s),
        flags.away,
        options.duration
    );
    let window = options.window.unwrap_or(SEND_WINDOW_MAX);
    let shape = Shape {
        comeback: Some(Back { churned: 0..users, away: flags.away }),
        ..Shape::new("churn", Topology::Pairs(users), Load::Busy, window, does)
    };
    let mut stage = Stage::set(shape, options)?;
    stage.log_in(users)?;
    stage.churn_per_s = per_s;
    stage.send()?;
    stage.rejoin(users, 0, |_| ())?;
    stage.run.settle(stage.options.drain_wait)?;
    stage.run.drain(stage.options.drain_wait)?;
    stage.end()
}
