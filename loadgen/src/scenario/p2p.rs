//! `p2p`: publishers, each to a subscriber of its own, at a steady rate. The point-to-point case of broker benchmarks.

use super::{Shape, Stage};
use crate::cli::Flags;
use crate::names::Topology;
use crate::net::Load;
use crate::report::{Report, grouped};
use iris_proto::limits::SEND_WINDOW_MAX;

/// Open loop: one message a second from each publisher, unless `--rate` says otherwise.
pub fn run(flags: Flags) -> anyhow::Result<Report> {
    let options = flags.check_paced(1000, |publishers| publishers)?;
    let publishers = options.connections;
    let does = format!(
        "{} publishers at {}, each to a subscriber of its own, {} byte payloads, {}, for {:?}",
        grouped(publishers.into()),
        options.addr,
        options.payload,
        options.pace(),
        options.duration
    );
    let window = options.window.unwrap_or(SEND_WINDOW_MAX);
    let shape = Shape::new("p2p", Topology::OneWay(publishers), Load::Busy, window, does);
    let mut stage = Stage::set(shape, options)?;
    stage.log_in(2 * publishers)?;
    stage.send()?;
    stage.run.drain(stage.options.drain_wait)?;
    stage.end()
}
