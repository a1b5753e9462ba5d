//! `run`: phases from a file, one after the other. `iris-loadgen run --help` describes the file.

use super::{Shape, Stage};
use crate::cli::{RunFlags, parse_duration};
use crate::control::Load as Sending;
use crate::names::Topology;
use crate::net::Load;
use crate::report::{PhaseReport, Report, grouped};
use crate::worker::Back;
use anyhow::{Context, bail, ensure};
use iris_proto::limits::SEND_WINDOW_MAX;
use serde::{Deserialize, Deserializer};
use std::path::Path;
use std::time::{Duration, Instant};

const USERS_MAX: u32 = 16_000_000;
const RATE_MAX: u64 = 100_000_000;

/// A scenario file.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    users: u32,
    #[serde(rename = "phase", default)]
    phases: Vec<Phase>,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Phase {
    Connect {
        to: Option<u32>,
        #[serde(default)]
        rate: u64,
    },
    Hold {
        #[serde(deserialize_with = "time")]
        time: Duration,
    },
    Send {
        rate: u64,
        #[serde(deserialize_with = "time")]
        time: Duration,
        #[serde(default, deserialize_with = "time")]
        warmup: Duration,
    },
    Ramp {
        from: u64,
        to: u64,
        #[serde(deserialize_with = "time")]
        time: Duration,
    },
    Churn {
        cuts: u64,
        rate: u64,
        #[serde(deserialize_with = "time")]
        time: Duration,
        #[serde(default, deserialize_with = "time")]
        warmup: Duration,
    },
    Storm {},
    Stop {},
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

/// Does what the file says.
pub fn run(flags: RunFlags) -> anyhow::Result<Report> {
    let script = Script::read(&flags.file)?;
    let given = &flags.flags;
    ensure!(
        given.rate.is_none() && given.ramp.is_none() && given.connect_rate == 0,
        "--rate, --ramp and --connect-rate: the phases of {} have theirs",
        flags.file.display(),
    );
    ensure!(given.connections.is_none(), "--connections: {} says `users`", flags.file.display());
    let users = script.users;
    let mut options = flags.flags.check(users)?;
    options.rate =
        script.phases.iter().filter_map(Phase::load).map(|load| load.peak()).max().unwrap_or(0);
    options.hold = script.phases.iter().map(Phase::time).sum();
    let does = format!(
        "{} phases of {} with {} users at {}, {} byte payloads",
        script.phases.len(),
        flags.file.display(),
        grouped(users.into()),
        options.addr,
        options.payload,
    );
    let window = options.window.unwrap_or(SEND_WINDOW_MAX);
    let shape = Shape {
        comeback: Some(Back { churned: 0..users, away: Duration::ZERO }),
        ..Shape::new("run", Topology::Pairs(users), Load::Busy, window, does)
    };
    let mut stage = Stage::set(shape, options)?;
    for phase in &script.phases {
        if *phase == (Phase::Stop {}) {
            break;
        }
        let (before, began) = (stage.run.counts().0, Instant::now());
        stage.go(phase, users)?;
        let (after, seconds) = (stage.run.counts().0, began.elapsed().as_secs_f64());
        let phase = PhaseReport::new(phase.to_string(), seconds, &before, &after);
        stage.report.phases.push(phase);
    }
    stage.run.drain(stage.options.drain_wait)?;
    stage.sends = script.phases.iter().any(|phase| phase.load().is_some());
    stage.end()
}

impl Stage {
    fn go(&mut self, phase: &Phase, users: u32) -> anyhow::Result<()> {
        match phase {
            Phase::Connect { to, rate } => {
                self.options.connect_rate = *rate;
                self.log_in(to.unwrap_or(users))
            }
            Phase::Hold { time } => self.run.hold(*time),
            Phase::Storm {} => {
                self.run.control().set_logins_at_once(users);
                self.storm(users)
            }
            Phase::Stop {} => Ok(()),
            Phase::Churn { cuts, .. } => {
                self.churn_per_s = *cuts;
                let sent = phase.load().map_or(Ok(()), |load| self.send_load(load));
                self.churn_per_s = 0;
                sent?;
                self.rejoin(users, 0, |_| ())
            }
            Phase::Send { .. } | Phase::Ramp { .. } => {
                phase.load().map_or(Ok(()), |load| self.send_load(load))
            }
        }
    }
}

impl Script {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the scenario file {}", path.display()))?;
        Self::parse(&text).with_context(|| {
            format!("{}: `iris-loadgen run --help` says what may stand in it", path.display())
        })
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let script: Self = toml::from_str(text)?;
        let users = script.users;
        ensure!(
            (2..=USERS_MAX).contains(&users) && users.is_multiple_of(2),
            "users = {users}: must be an even number from 2 to {USERS_MAX}, they send in pairs",
        );
        ensure!(!script.phases.is_empty(), "no [[phase]]: nothing is to be done");
        let mut connected = 0;
        for (number, phase) in (1..).zip(&script.phases) {
            phase
                .check(users, &mut connected)
                .with_context(|| format!("phase {number}, {phase}"))?;
        }
        Ok(script)
    }
}

impl Phase {
    fn check(&self, users: u32, connected: &mut u32) -> anyhow::Result<()> {
        if let Self::Connect { to, .. } = self {
            let to = to.unwrap_or(users);
            ensure!(
                to > *connected && to <= users,
                "to = {to}: must be more than the {connected} that are connected, up to users = {users}",
            );
            *connected = to;
            return Ok(());
        }
        if let Self::Stop {} | Self::Hold { .. } = self {
            ensure!(*connected > 0, "nobody is connected by then: connect first");
            return Ok(());
        }
        ensure!(
            *connected == users,
            "{connected} of {users} users are connected by then: connect all first",
        );
        if let Some(load) = self.load() {
            ensure!(load.steady > Duration::ZERO, "time = 0s: must be longer");
            ensure!(
                (1..=RATE_MAX).contains(&load.peak()),
                "the rate must be from 1 to {RATE_MAX} messages a second",
            );
        }
        if let Self::Churn { cuts: 0, .. } = self {
            bail!("cuts = 0: that is a send");
        }
        Ok(())
    }

    /// What a phase sends, if it does.
    fn load(&self) -> Option<Sending> {
        let (rate_from, rate, ramp, warmup, steady) = match *self {
            Self::Send { rate, time, warmup } | Self::Churn { rate, time, warmup, .. } => {
                (rate, rate, Duration::ZERO, warmup, time)
            }
            Self::Ramp { from, to, time } => (from, to, time, Duration::ZERO, time),
            _ => return None,
        };
        Some(Sending { rate_from, rate, ramp, warmup, steady, messages_max: u64::MAX })
    }

    fn time(&self) -> Duration {
        match self {
            Self::Hold { time } => *time,
            _ => self.load().map_or(Duration::ZERO, |load| load.warmup + load.steady),
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect { to, rate } => {
                let to = to.map_or("all".to_owned(), |to| to.to_string());
                write!(out, "connect {to}")?;
                if *rate > 0 { write!(out, " at {rate}/s") } else { Ok(()) }
            }
            Self::Hold { time } => write!(out, "hold {time:?}"),
            Self::Send { rate, time, .. } => write!(out, "send {rate}/s for {time:?}"),
            Self::Ramp { from, to, time } => write!(out, "ramp {from} to {to}/s in {time:?}"),
            Self::Churn { cuts, rate, time, .. } => {
                write!(out, "churn {cuts}/s, send {rate}/s for {time:?}")
            }
            Self::Storm {} => write!(out, "storm"),
            Self::Stop {} => write!(out, "stop"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_has_every_kind_of_phase() {
        let script = Script::parse(include_str!("../../examples/day.toml")).unwrap();
        let mut kinds: Vec<String> = script
            .phases
            .iter()
            .map(|phase| phase.to_string().split(' ').next().unwrap_or_default().to_owned())
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds, ["churn", "connect", "hold", "ramp", "send", "stop", "storm"]);
        let time: Duration = script.phases.iter().map(Phase::time).sum();
        assert_eq!(time, Duration::from_secs(21));
    }

    #[test]
    fn a_wrong_file_is_refused_with_what_may_stand_there() {
        let all = "[[phase]]\ndo = \"connect\"\n";
        let phase = |lines: &str| format!("users = 4\n{all}[[phase]]\n{lines}");
        for (text, hints) in [
            (String::new(), &["users"][..]),
            ("users = 3\n".to_owned(), &["even"]),
            ("users = 4\n".to_owned(), &["[[phase]]"]),
            (format!("user = 4\n{all}"), &["unknown field `user`", "`users`"]),
            (phase("do = \"sent\""), &["unknown variant `sent`", "`send`"]),
            (phase("do = \"send\"\nrat = 1\ntime = \"1s\""), &["unknown field `rat`", "`rate`"]),
            (phase("do = \"send\"\nrate = 1"), &["missing field `time`"]),
            (phase("do = \"send\"\nrate = 1\ntime = \"1d\""), &["ms, s, m or h"]),
            (phase("do = \"send\"\nrate = 0\ntime = \"1s\""), &["phase 2", "from 1"]),
            (phase("do = \"send\"\nrate = 1\ntime = \"0s\""), &["longer"]),
            (phase("do = \"connect\"\nto = 5"), &["up to users = 4"]),
            (phase("do = \"churn\"\ncuts = 0\nrate = 1\ntime = \"1s\""), &["send"]),
            (phase("do = \"storm\"\nrounds = 2"), &["unknown field `rounds`"]),
            ("users = 4\n[[phase]]\ndo = \"storm\"".to_owned(), &["0 of 4", "connect all"]),
            ("users = 4\n[[phase]]\ndo = \"hold\"\ntime = \"1s\"".to_owned(), &["connect first"]),
        ] {
            let error = format!("{:#}", Script::parse(&text).unwrap_err());
            for hint in hints {
                assert!(error.contains(hint), "{text}\n{error}");
            }
        }
    }
}
