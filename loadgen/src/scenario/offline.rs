//! `offline`: inboxes are filled while their users are away; then these log in and read everything.

use super::{Shape, Stage};
use crate::cli::OfflineFlags;
use crate::names::Topology;
use crate::net::Load;
use crate::report::{Rate, Report, grouped};
use iris_proto::limits::SEND_WINDOW_MAX;
use std::time::{Duration, Instant};

/// `rate_per_s` is of the fill; `drain` counts from the first login of the receivers to the last message.
pub fn run(flags: OfflineFlags) -> anyhow::Result<Report> {
    let messages_max = if flags.messages == 0 { u64::MAX } else { flags.messages };
    let mut options = flags.flags.check(100)?;
    options.protocol = options.protocol.keeping()?;
    let senders = options.connections;
    let does = format!(
        "{} senders fill as many inboxes at {} for {:?}{}, {} byte payloads; then these users log in and read",
        grouped(senders.into()),
        options.addr,
        options.duration,
        if messages_max == u64::MAX {
            String::new()
        } else {
            format!(" or {} messages", grouped(messages_max))
        },
        options.payload,
    );
    let window = options.window.unwrap_or(SEND_WINDOW_MAX);
    let shape = Shape {
        keeps: true,
        ..Shape::new("offline", Topology::OneWay(senders), Load::Busy, window, does)
    };
    let mut stage = Stage::set(shape, options)?;
    stage.log_in(senders)?;
    let began = Instant::now();
    stage.send_for(Duration::ZERO, stage.options.duration, messages_max)?;
    let filled = stage.run.counts().0.accepted;
    let fill = Rate::new(filled, began.elapsed());
    let began = Instant::now();
    stage.log_in(2 * senders)?;
    stage.run.drain(stage.options.drain_wait)?;
    let drain = Rate::new(stage.run.counts().0.arrived, began.elapsed());
    let mut report = stage.end()?;
    (report.rate_per_s, report.delivered_per_s) = (fill.per_s, drain.per_s);
    report.drain = Some(drain);
    Ok(report)
}
