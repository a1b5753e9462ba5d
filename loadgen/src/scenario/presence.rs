//! `presence`: users who log in and out, and watchers who are told. How soon, and how much is missed.

use super::{SETTLE, Shape, Stage};
use crate::cli::PresenceFlags;
use crate::names::Topology;
use crate::net::Load;
use crate::report::{Report, grouped};
use crate::worker::Back;
use anyhow::ensure;
use iris_proto::limits::{WATCHED_PER_CONNECTION_MAX, WATCHERS_PER_USER_MAX};

/// `delivered_latency_us` runs from a change to the watcher being told of it.
pub fn run(flags: PresenceFlags) -> anyhow::Result<Report> {
    let options = flags.flags.check(1000)?;
    let (watched, watchers, each) = (options.connections, flags.watchers, flags.watches);
    ensure!(
        each as usize <= WATCHED_PER_CONNECTION_MAX,
        "--watches {each}: a connection watches {WATCHED_PER_CONNECTION_MAX} users at most",
    );
    let by_each = u64::from(watchers) * u64::from(each.min(watched)) / u64::from(watched);
    ensure!(
        by_each < WATCHERS_PER_USER_MAX as u64,
        "{watchers} watchers of {each} of {watched} users each: a user is watched by {WATCHERS_PER_USER_MAX} at most",
    );
    let per_s = flags.flaps.unwrap_or(u64::from(watched).div_ceil(10));
    let does = format!(
        "{} watchers at {} of {} of {} users each; {} users a second log out and in again after {:?}, for {:?}",
        grouped(watchers.into()),
        options.addr,
        grouped(each.min(watched).into()),
        grouped(watched.into()),
        grouped(per_s),
        flags.away,
        options.duration
    );
    let users = watchers + watched;
    let shape = Shape {
        comeback: Some(Back { churned: watchers..users, away: flags.away }),
        watched: watchers..users,
        watches: each,
        ..Shape::new("presence", Topology::Silent(users), Load::Quiet, 1, does)
    };
    let mut stage = Stage::set(shape, options)?;
    let watches = stage.watches;
    stage.log_in(users)?;
    stage.run.watch_presence(watches, stage.options.drain_wait)?;
    stage.run.hold(SETTLE)?;
    stage.measure_memory();
    stage.churn_per_s = per_s;
    stage.send()?;
    stage.rejoin(users, 0, |_| ())?;
    stage.run.drain(stage.options.drain_wait)?;
    stage.end()
}
