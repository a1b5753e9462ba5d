//! `slow`: some receivers stop reading while messages for them go on coming, and then read everything.

use super::{Shape, Stage, fanout};
use crate::cli::{Part, SlowFlags};
use crate::names::Topology;
use crate::net::Load;
use crate::report::{Report, Stall, grouped, round};
use crate::server_probe::Process;
use crate::worker::Back;
use anyhow::ensure;
use iris_proto::limits::{RECIPIENTS_MAX, SEND_WINDOW_MAX};
use std::time::Duration;

/// Senders, each to a receiver of its own, or few to all; in the steady phase, some receivers do not read.
pub fn run(flags: SlowFlags) -> anyhow::Result<Report> {
    let few = flags.senders;
    // With few senders, each receiver is sent a message a second.
    let options = flags.flags.check_paced(100, |receivers| match few {
        None => 10 * receivers,
        Some(_) => receivers.div_ceil(RECIPIENTS_MAX as u32),
    })?;
    let receivers = options.connections;
    let stalled = stalled(flags.stalled, receivers)?;
    let topology = match few {
        None => Topology::OneWay(receivers),
        Some(senders) => {
            fanout::check_flows(senders, receivers)?;
            let each = receivers.min(RECIPIENTS_MAX as u32);
            Topology::FanOut { senders, recipients: receivers, each }
        }
    };
    let senders = topology.senders();
    let does = format!(
        "{} senders at {}, {}, {} byte payloads, {}, for {:?}; {} receivers do not read in it",
        grouped(senders.into()),
        options.addr,
        match few {
            None => "each to a receiver of its own".to_owned(),
            Some(_) => format!("each to all {} receivers", grouped(receivers.into())),
        },
        options.payload,
        options.pace(),
        options.duration,
        grouped(stalled.into()),
    );
    let window = options.window.unwrap_or(SEND_WINDOW_MAX);
    let shape = Shape {
        // The server may end a connection that does not read.
        comeback: Some(Back { churned: 0..0, away: Duration::ZERO }),
        stalled: senders..senders + stalled,
        ..Shape::new("slow", topology, Load::Busy, window, does)
    };
    let mut stage = Stage::set(shape, options)?;
    stage.log_in(topology.users())?;
    let rss = |pid: Option<u32>| pid.and_then(Process::read).map(|process| process.rss_bytes);
    let mut before = None;
    let pid = stage.options.pid;
    stage.run.send(stage.options.load(), &mut stage.meter, |control| {
        before = rss(pid);
        control.stall(true);
    })?;
    let after = rss(pid);
    stage.measure_memory();
    stage.run.control().stall(false);
    stage.run.settle(stage.options.drain_wait)?;
    stage.rejoin(topology.users(), 0, |_| ())?;
    stage.run.drain(stage.options.drain_wait)?;
    let seconds = round(stage.options.duration.as_secs_f64(), 1);
    let mut report = stage.end()?;
    let grown = before.zip(after).map(|(before, after)| after as i64 - before as i64);
    if let Topology::FanOut { each, .. } = topology {
        report.recipients_per_send = Some(each);
    }
    report.stall = Some(Stall { users: stalled, seconds, server_rss_growth_bytes: grown });
    Ok(report)
}

fn stalled(part: Part, receivers: u32) -> anyhow::Result<u32> {
    let stalled = match part {
        Part::Percent(_) => part.of(receivers).max(1),
        Part::Count(count) => count,
    };
    ensure!(
        (1..=receivers).contains(&stalled),
        "--stalled {part}: must be 1 to --connections {receivers}: they are among the receivers",
    );
    Ok(stalled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_at_least_one_receiver_and_a_count_has_to_be_right() {
        for (part, expected) in [("10%", 2), ("1%", 1), ("20", 20)] {
            assert_eq!(stalled(part.parse().unwrap(), 20).unwrap(), expected, "{part}");
        }
        for bad in ["0", "21"] {
            assert!(stalled(bad.parse().unwrap(), 20).unwrap_err().to_string().contains("1 to"));
        }
    }
}
