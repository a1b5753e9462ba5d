//! `throughput`: pairs that send to each other, pipelined. How many durable messages a second.

use super::{Shape, Stage, at_least};
use crate::cli::Flags;
use crate::names::Topology;
use crate::net::Load;
use crate::report::{Report, grouped};
use anyhow::ensure;
use iris_proto::limits::SEND_WINDOW_MAX;

/// Every connection sends to its partner and receives from it.
pub fn run(flags: Flags) -> anyhow::Result<Report> {
    let options = flags.check(100)?;
    let users = options.connections;
    at_least(users, 2, "they send to each other in pairs")?;
    ensure!(users.is_multiple_of(2), "--connections {users}: must be even, they send in pairs");
    let does = format!(
        "{} connections at {} in pairs, {} byte payloads, {} for {:?}",
        grouped(users.into()),
        options.addr,
        options.payload,
        options.pace(),
        options.duration
    );
    let window = options.window.unwrap_or(SEND_WINDOW_MAX);
    let shape = Shape::new("throughput", Topology::Pairs(users), Load::Busy, window, does);
    let mut stage = Stage::set(shape, options)?;
    stage.log_in(users)?;
    stage.send()?;
    stage.run.drain(stage.options.drain_wait)?;
    stage.end()
}
