//! `storm`: all connections are cut at once, and all users come back at once.

use super::{SETTLE, Shape, Stage, at_least};
use crate::cli::StormFlags;
use crate::names::Topology;
use crate::net::Load;
use crate::report::{Report, Storm, grouped, round};
use crate::worker::Back;
use anyhow::ensure;
use iris_proto::limits::{RECV_WINDOW_MAX, SEND_WINDOW_MAX};
use std::time::{Duration, Instant};

/// `rate_per_s` is of the logins after the cuts.
pub fn run(flags: StormFlags) -> anyhow::Result<Report> {
    let options = flags.flags.check(1000)?;
    let (users, waiting) = (options.connections, flags.waiting);
    let topology = if waiting > 0 { Topology::Pairs(users) } else { Topology::Silent(users) };
    if waiting > 0 {
        at_least(users, 2, "they send to each other in pairs what waits")?;
        ensure!(users.is_multiple_of(2), "--connections {users}: must be even with --waiting");
    }
    let does = format!(
        "log in {} users at {}, cut all connections at once and let all come back, {} time{}{}",
        grouped(users.into()),
        options.addr,
        flags.rounds,
        if flags.rounds == 1 { "" } else { "s" },
        match waiting {
            0 => String::new(),
            count => format!("; {} messages wait in each inbox", grouped(count.into())),
        },
    );
    let window = options.window.unwrap_or(SEND_WINDOW_MAX);
    let shape = Shape {
        comeback: Some(Back { churned: 0..0, away: Duration::ZERO }),
        ..Shape::new("storm", topology, Load::Quiet, window, does)
    };
    let mut stage = Stage::set(shape, options)?;
    if waiting > 0 {
        stage.run.control().set_recv_window(0);
    }
    stage.log_in(users)?;
    stage.run.hold(SETTLE)?;
    stage.measure_memory();
    stage.run.control().set_logins_at_once(flags.at_once.unwrap_or(users));
    for _ in 0..flags.rounds {
        if waiting > 0 {
            stage.run.control().set_recv_window(0);
            let messages = u64::from(waiting) * u64::from(users);
            stage.send_for(Duration::ZERO, stage.options.duration, messages)?;
        }
        stage.storm(users)?;
        stage.run.drain(stage.options.drain_wait)?;
    }
    let storms = std::mem::take(&mut stage.report.storms);
    let mut report = stage.end()?;
    let seconds: f64 = storms.iter().filter_map(|storm| storm.all_s).sum();
    let logins = storms.iter().filter(|storm| storm.all_s.is_some()).count() as f64;
    report.rate_per_s = round(logins * f64::from(users) / seconds.max(1e-9), 1);
    report.storms = storms;
    Ok(report)
}

impl Stage {
    /// Cuts all connections, and waits until `users` are logged in again.
    pub(super) fn storm(&mut self, users: u32) -> anyhow::Result<()> {
        let before = self.run.counts().0;
        let began = Instant::now();
        self.run.control().cut_all();
        self.run.control().set_recv_window(RECV_WINDOW_MAX);
        let mut storm = Storm { users, ..Storm::default() };
        let seconds = || round(began.elapsed().as_secs_f64(), 3);
        let marks = [(50, 0), (99, 1)]
            .map(|(percent, mark)| ((u64::from(users) * percent).div_ceil(100), mark));
        let mut at = [None; 2];
        self.rejoin(users, before.logged_in + u64::from(users), |counts| {
            for (logins, mark) in marks {
                if at[mark].is_none() && counts.logged_in - before.logged_in >= logins {
                    at[mark] = Some(seconds());
                }
            }
        })?;
        let now = self.run.counts().0;
        if now.online >= u64::from(users) {
            storm.all_s = Some(seconds());
            storm.logins_per_s = round(f64::from(users) / began.elapsed().as_secs_f64(), 1);
        }
        (storm.half_s, storm.most_s) = (at[0], at[1]);
        storm.failed = now.retried + now.dropped - before.retried - before.dropped;
        self.report.storms.push(storm);
        Ok(())
    }
}
