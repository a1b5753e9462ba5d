//! `fanout`: few senders, many recipients; each SEND names several of them. A broker's message goes to a topic that several
//! have subscribed to.

use super::{Shape, Stage};
use crate::cli::FanoutFlags;
use crate::names::{FLOWS_MAX, Topology};
use crate::net::Load;
use crate::protocol::Protocol;
use crate::report::{Report, grouped};
use anyhow::ensure;
use iris_proto::limits::{RECIPIENTS_MAX, SEND_WINDOW_MAX};

/// Every sender sends to all recipients, so many in a SEND.
pub fn run(flags: FanoutFlags) -> anyhow::Result<Report> {
    let options = flags.flags.check(1000)?;
    let (recipients, senders) = (options.connections, flags.senders);
    // A broker's topic reaches all who subscribe; a SEND of Iris names its recipients.
    let most = match options.protocol {
        Protocol::Iris => RECIPIENTS_MAX as u32,
        Protocol::Mqtt(_) | Protocol::Nats | Protocol::Jetstream => recipients,
    };
    let each = flags.to.unwrap_or(most).min(recipients);
    check_flows(senders, recipients)?;
    let does = format!(
        "{} sender{} to {} recipients at {}, {each} in a SEND, {} byte payloads, {}, for {:?}",
        grouped(senders.into()),
        if senders == 1 { "" } else { "s" },
        grouped(recipients.into()),
        options.addr,
        options.payload,
        options.pace(),
        options.duration
    );
    let window = options.window.unwrap_or(SEND_WINDOW_MAX);
    let topology = Topology::FanOut { senders, recipients, each };
    let shape = Shape::new("fanout", topology, Load::Busy, window, does);
    let mut stage = Stage::set(shape, options)?;
    stage.log_in(senders + recipients)?;
    stage.send()?;
    stage.run.drain(stage.options.drain_wait)?;
    let mut report = stage.end()?;
    report.recipients_per_send = Some(each);
    Ok(report)
}

/// Refuses more pairs of a sender and a recipient than are kept account of.
pub(super) fn check_flows(senders: u32, recipients: u32) -> anyhow::Result<()> {
    ensure!(
        u64::from(recipients) * u64::from(senders) <= FLOWS_MAX,
        "--senders {senders} times --connections {recipients}: at most {FLOWS_MAX}, each pair is kept account of",
    );
    Ok(())
}
