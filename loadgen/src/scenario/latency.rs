//! `latency`: one message at a time, beside the floor of this machine.

use super::{Shape, Stage};
use crate::cli::LatencyFlags;
use crate::floor::Floor;
use crate::names::Topology;
use crate::net::Load;
use crate::protocol::Protocol;
use crate::report::{Report, grouped, round};
use iris_proto::limits::SEND_WINDOW_MAX;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The measured time is cut into this many slices with the floor before, between and after, so that both see the same
/// machine: a disk's mood changes within seconds.
const SLICES: u32 = 8;
/// Up to this many senders are on ordinary sockets, like the floor's echo.
const PLAIN_SENDERS_MAX: u32 = 16;
/// The warm-up of a later slice: the first one has warmed everything up.
const WARMUP_AGAIN: Duration = Duration::from_millis(50);

/// Senders, each with a receiver of its own and one message under way; the floor before, between and after.
pub fn run(flags: LatencyFlags) -> anyhow::Result<Report> {
    let (floor_time, floor_dir) = (flags.floor, flags.floor_dir);
    let options = flags.flags.check(1)?;
    let senders = options.connections;
    let lock_step = options.rate == 0;
    let window = options.window.unwrap_or(if lock_step { 1 } else { SEND_WINDOW_MAX });
    let does = format!(
        "{} sender{} at {}, each with a receiver of its own, {} byte payloads, {}, for {:?}",
        grouped(senders.into()),
        if senders == 1 { "" } else { "s" },
        options.addr,
        options.payload,
        if lock_step { "one at a time".to_owned() } else { options.pace() },
        options.duration
    );
    let is_plain = lock_step && senders <= PLAIN_SENDERS_MAX;
    let load = if is_plain { Load::OneByOne } else { Load::Busy };
    let shape = Shape::new("latency", Topology::OneWay(senders), load, window, does);
    let dir = floor_dir.unwrap_or_else(|| match options.protocol {
        Protocol::Iris => beside(&options.key),
        Protocol::Mqtt(_) | Protocol::Nats | Protocol::Jetstream => PathBuf::from("."),
    });
    let mut floor = if floor_time.is_zero() { None } else { Some(Floor::new(&dir)?) };
    let measure_floor = |floor: &mut Option<Floor>| {
        floor.as_mut().map_or(Ok(()), |floor| floor.measure(floor_time / (SLICES + 1)))
    };
    let mut stage = Stage::set(shape, options)?;
    stage.log_in(2 * senders)?;
    measure_floor(&mut floor)?;
    for slice in 0..SLICES {
        let warmup = if slice == 0 { stage.options.warmup } else { WARMUP_AGAIN };
        stage.send_for(warmup, stage.options.duration / SLICES, u64::MAX)?;
        stage.run.drain(stage.options.drain_wait)?;
        measure_floor(&mut floor)?;
    }
    let mut report = stage.end()?;
    report.floor_us = floor.as_mut().and_then(Floor::report);
    if let (Some(latency), Some(floor)) = (&report.latency_us, &report.floor_us) {
        report.ratio_p50 = Some(round(latency.p50 / floor.sum_p50, 2));
    }
    Ok(report)
}

fn beside(file: &Path) -> PathBuf {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_measured_beside_the_key() {
        assert_eq!(beside(Path::new("./iris-data/dev.key")), Path::new("./iris-data"));
        assert_eq!(beside(Path::new("dev.key")), Path::new("."));
        assert_eq!(beside(Path::new("/")), Path::new("."));
    }
}
