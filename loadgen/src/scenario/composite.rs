//! `composite`: many users are idle and a few send. What the silent ones cost, and what they do to the latency of others.

use super::{SETTLE, Shape, Stage, at_least};
use crate::cli::{CompositeFlags, Part};
use crate::names::Topology;
use crate::net::Load;
use crate::report::{Hold, Report, grouped};
use crate::usage::Meter;
use anyhow::ensure;
use iris_proto::limits::SEND_WINDOW_MAX;

/// Logs in, holds all silent, measures memory; then the active ones send to each other in pairs.
pub fn run(flags: CompositeFlags) -> anyhow::Result<Report> {
    let part = flags.active;
    let mut options =
        flags.flags.check_paced(10_000, |users| active(part, users).unwrap_or_default())?;
    let users = options.connections;
    at_least(users, 2, "two of them send to each other")?;
    let active = active(part, users)?;
    options.hold = flags.hold;
    let does = format!(
        "log in {} users at {}, hold them silent for {:?}; then {} of them send in pairs, {} byte payloads, {}, for {:?}",
        grouped(users.into()),
        options.addr,
        options.hold,
        grouped(active.into()),
        options.payload,
        options.pace(),
        options.duration
    );
    let window = options.window.unwrap_or(SEND_WINDOW_MAX);
    let shape =
        Shape::new("composite", Topology::Composite { users, active }, Load::Mixed, window, does);
    let mut stage = Stage::set(shape, options)?;
    stage.log_in(users)?;
    stage.run.hold(SETTLE)?;
    let mut held = Meter::new(stage.options.pid, stage.generator.clone());
    held.start();
    stage.run.hold(stage.options.hold)?;
    held.stop();
    stage.measure_memory();
    stage.send()?;
    stage.run.drain(stage.options.drain_wait)?;
    let mut report = stage.end()?;
    report.connections_active = Some(active);
    report.hold = Some(Hold::new(held.usage()));
    Ok(report)
}

/// A share is rounded down to pairs, at least one; a count has to be right.
fn active(part: Part, users: u32) -> anyhow::Result<u32> {
    let active = match part {
        Part::Percent(_) => (part.of(users) & !1).max(2),
        Part::Count(count) => count,
    };
    ensure!(
        active >= 2 && active.is_multiple_of(2) && active <= users,
        "--active {part}: must be an even number from 2 to --connections {users}, they send in pairs",
    );
    Ok(active)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down_to_pairs_and_a_count_has_to_be_right() {
        for (part, users, expected) in
            [("1%", 1000, 10), ("1%", 1150, 10), ("0.01%", 100, 2), ("100%", 7, 6), ("4", 4, 4)]
        {
            assert_eq!(active(part.parse().unwrap(), users).unwrap(), expected, "{part} {users}");
        }
        for bad in ["0", "3", "6"] {
            let error = active(bad.parse().unwrap(), 4).unwrap_err().to_string();
            assert!(error.contains("--active") && error.contains("even"), "{error}");
        }
    }
}
