//! `fanin`: many senders, one inbox. How a popular user fares.

use super::{Shape, Stage, at_least};
use crate::cli::Flags;
use crate::names::Topology;
use crate::net::Load;
use crate::report::{Report, grouped};

/// Unanswered messages of all senders together, unless `--window` says otherwise: they all stand in one queue.
const UNANSWERED_IN_ALL: u32 = 65_536;

/// All connections but one send to that one.
pub fn run(flags: Flags) -> anyhow::Result<Report> {
    let options = flags.check(1001)?;
    at_least(options.connections, 2, "one receives, the others send")?;
    let senders = options.connections - 1;
    let window = options.window.unwrap_or((UNANSWERED_IN_ALL / senders).max(1));
    let does = format!(
        "{} senders to one inbox at {}, {} byte payloads, {}, at most {window} unanswered each, for {:?}",
        grouped(senders.into()),
        options.addr,
        options.payload,
        options.pace(),
        options.duration
    );
    let shape = Shape::new("fanin", Topology::FanIn(senders), Load::Busy, window, does);
    let users = options.connections;
    let mut stage = Stage::set(shape, options)?;
    stage.log_in(users)?;
    stage.send()?;
    stage.run.drain(stage.options.drain_wait)?;
    stage.end()
}
