//! What can be searched, and how.

use super::{
    ChurnFlags, CompositeFlags, FanoutFlags, Flags, LatencyFlags, OfflineFlags, PresenceFlags,
    Scenario, SlowFlags, StormFlags,
};
use crate::objective::parse_count;
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

pub(super) const EXAMPLES: &str = "\
Examples:
  iris-loadgen search throughput --slo 'p99<10ms' --duration 5s
                                                 the highest rate of 100 users in pairs
  iris-loadgen search p2p --of connections --slo 'delivered.p99<20ms,lost=0' --from 1k --precision 10
                                                 the most publishers of one message a second each
  iris-loadgen search fanout -n 1024 --slo 'delivered.p99<50ms,reach=256' --from 10 --to 10k
                                                 the most SENDs a second, each to 256 of 1,024 users
  iris-loadgen search presence -n 5000 --slo 'told.p99<100ms,missed=0' --from 50
                                                 the most users a second who log out and in again
  iris-loadgen search composite --of connections --active 1% --hold 5s --slo 'p99<20ms,rss<600B' --pid PID
                                                 the most connections, one in a hundred talking
  iris-loadgen search storm --slo 'storm.all<10s' --from 10k --processes 2
                                                 the most users who are back within ten seconds
  iris-loadgen search p2p --help                 all flags; those of the search may stand anywhere";

/// What a search varies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Varied {
    /// Messages a second; in presence, users a second who log out and in again
    Rate,
    /// Connections
    Connections,
}

/// A scenario that can be searched.
#[derive(Clone, Debug, Subcommand)]
pub enum Searched {
    /// Connections that are logged in and silent; always connections
    Idle(Flags),
    /// Each sender to a receiver of its own
    Latency(Flags),
    /// Pipelined messages between pairs
    Throughput(Flags),
    /// Publishers, each to a subscriber of its own, at a steady rate
    #[command(name = "p2p")]
    P2p(Flags),
    /// Many senders, one inbox
    Fanin(Flags),
    /// Few senders, many recipients, several in each SEND
    Fanout(SearchedFanout),
    /// Fill inboxes of users who are away, then log in and drain
    Offline(OfflineFlags),
    /// Many idle users, a few who send to each other
    Composite(CompositeFlags),
    /// Cut all connections at once; always connections
    Storm(StormFlags),
    /// Users come and go while they send
    Churn(ChurnFlags),
    /// Some receivers stop reading for a while
    Slow(SlowFlags),
    /// Users log in and out, watchers are told; its rate is --flaps
    Presence(PresenceFlags),
}

/// Flags of a search for `fanout`: `--to` is the search's.
#[derive(Clone, Debug, Args)]
pub struct SearchedFanout {
    #[command(flatten)]
    pub flags: Flags,
    /// Users that send, each to all recipients
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub senders: u32,
    /// Recipients that a SEND names (--to of fanout itself); default: as many as it may, 256
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub each: Option<u32>,
}

/// Flags of `search`.
#[derive(Clone, Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct SearchFlags {
    /// What is run
    #[command(subcommand)]
    pub scenario: Searched,
    /// What is varied; default: connections for idle and storm, else rate
    #[arg(long, global = true, help_heading = "Search")]
    pub of: Option<Varied>,
    /// The first load tried
    #[arg(
        long,
        value_name = "N",
        default_value = "1000",
        global = true,
        value_parser = parse_count,
        help_heading = "Search"
    )]
    pub from: u64,
    /// The highest load tried
    #[arg(
        long,
        value_name = "N",
        default_value = "10M",
        global = true,
        value_parser = parse_count,
        help_heading = "Search"
    )]
    pub to: u64,
    /// How many times higher the next stair is
    #[arg(long, value_name = "X", default_value_t = 2.0, global = true, help_heading = "Search")]
    pub step: f64,
    /// Percent of the load that met and missed may be apart at the end
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 5.0,
        global = true,
        help_heading = "Search"
    )]
    pub precision: f64,
    /// Runs at the best load that must all meet the objective
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        global = true,
        value_parser = clap::value_parser!(u32).range(1..=100),
        help_heading = "Search"
    )]
    pub confirm: u32,
}

impl Searched {
    /// As `search` names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle(_) => "idle",
            Self::Latency(_) => "latency",
            Self::Throughput(_) => "throughput",
            Self::P2p(_) => "p2p",
            Self::Fanin(_) => "fanin",
            Self::Fanout(_) => "fanout",
            Self::Offline(_) => "offline",
            Self::Composite(_) => "composite",
            Self::Storm(_) => "storm",
            Self::Churn(_) => "churn",
            Self::Slow(_) => "slow",
            Self::Presence(_) => "presence",
        }
    }

    /// What every scenario has.
    pub fn flags(&self) -> &Flags {
        match self {
            Self::Idle(flags)
            | Self::Latency(flags)
            | Self::Throughput(flags)
            | Self::P2p(flags)
            | Self::Fanin(flags) => flags,
            Self::Fanout(fanout) => &fanout.flags,
            Self::Offline(offline) => &offline.flags,
            Self::Composite(composite) => &composite.flags,
            Self::Storm(storm) => &storm.flags,
            Self::Churn(churn) => &churn.flags,
            Self::Slow(slow) => &slow.flags,
            Self::Presence(presence) => &presence.flags,
        }
    }

    fn flags_mut(&mut self) -> &mut Flags {
        match self {
            Self::Idle(flags)
            | Self::Latency(flags)
            | Self::Throughput(flags)
            | Self::P2p(flags)
            | Self::Fanin(flags) => flags,
            Self::Fanout(fanout) => &mut fanout.flags,
            Self::Offline(offline) => &mut offline.flags,
            Self::Composite(composite) => &mut composite.flags,
            Self::Storm(storm) => &mut storm.flags,
            Self::Churn(churn) => &mut churn.flags,
            Self::Slow(slow) => &mut slow.flags,
            Self::Presence(presence) => &mut presence.flags,
        }
    }

    /// Whether it has a rate that can be varied.
    pub fn has_rate(&self) -> bool {
        !matches!(self, Self::Idle(_) | Self::Storm(_))
    }

    /// Whether without a rate it has one that goes with its connections.
    pub fn is_paced(&self) -> bool {
        matches!(
            self,
            Self::P2p(_) | Self::Composite(_) | Self::Churn(_) | Self::Slow(_) | Self::Presence(_)
        )
    }

    /// The rate that was given, if one was; 0: none.
    pub fn rate(&self) -> Option<u64> {
        match self {
            Self::Presence(presence) => presence.flaps,
            _ => self.flags().rate,
        }
    }

    /// How many users belong together: loads are multiples of it, with `--of connections`.
    pub fn users_together(&self) -> u64 {
        match self {
            Self::Throughput(_) | Self::Churn(_) => 2,
            Self::Storm(storm) if storm.waiting > 0 => 2,
            _ => 1,
        }
    }

    /// Connections that it needs at least.
    pub fn connections_min(&self) -> u64 {
        match self {
            Self::Fanin(_) | Self::Composite(_) => 2,
            _ => self.users_together(),
        }
    }

    /// One run of it at this load.
    pub fn at(&self, of: Varied, load: u64, is_quiet: bool) -> anyhow::Result<Scenario> {
        let mut one = self.clone();
        let flags = one.flags_mut();
        (flags.json, flags.quiet) = (None, is_quiet);
        match (of, &mut one) {
            (Varied::Connections, one) => one.flags_mut().connections = Some(u32::try_from(load)?),
            (Varied::Rate, Self::Presence(presence)) => presence.flaps = Some(load),
            (Varied::Rate, one) => one.flags_mut().rate = Some(load),
        }
        Ok(match one {
            Self::Idle(flags) => Scenario::Idle(flags),
            Self::Latency(flags) => {
                let (floor, floor_dir) = (Duration::ZERO, None);
                Scenario::Latency(LatencyFlags { flags, floor, floor_dir })
            }
            Self::Throughput(flags) => Scenario::Throughput(flags),
            Self::P2p(flags) => Scenario::P2p(flags),
            Self::Fanin(flags) => Scenario::Fanin(flags),
            Self::Fanout(SearchedFanout { flags, senders, each }) => {
                Scenario::Fanout(FanoutFlags { flags, senders, to: each })
            }
            Self::Offline(flags) => Scenario::Offline(flags),
            Self::Composite(flags) => Scenario::Composite(flags),
            Self::Storm(flags) => Scenario::Storm(flags),
            Self::Churn(flags) => Scenario::Churn(flags),
            Self::Slow(flags) => Scenario::Slow(flags),
            Self::Presence(flags) => Scenario::Presence(flags),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn search(line: &str) -> Result<SearchFlags, clap::Error> {
        let args = ["iris-loadgen", "search"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(args)?.scenario {
            Scenario::Search(search) => Ok(search),
            _ => unreachable!("that is a search"),
        }
    }

    #[test]
    fn flags_of_the_search_may_stand_before_or_after_the_scenario() {
        for line in ["--from 2k --to 1M fanout --each 7", "fanout --each 7 --from 2k --to 1M"] {
            let search = search(line).unwrap();
            assert_eq!((search.from, search.to, search.confirm), (2000, 1_000_000, 3), "{line}");
            let run = search.scenario.at(Varied::Rate, 5, true).unwrap();
            let Scenario::Fanout(fanout) = run else { panic!("another scenario") };
            assert_eq!(
                (fanout.to, fanout.flags.rate, fanout.flags.quiet),
                (Some(7), Some(5), true)
            );
        }
    }

    #[test]
    fn each_scenario_with_a_load_can_be_searched() {
        for (line, varied) in [
            ("idle", "connections"),
            ("latency", "rate"),
            ("throughput", "rate"),
            ("p2p", "rate"),
            ("fanin", "rate"),
            ("fanout --senders 2", "rate"),
            ("offline", "rate"),
            ("composite --active 4", "rate"),
            ("storm --waiting 1", "connections"),
            ("churn --churn 5", "rate"),
            ("slow --stalled 1%", "rate"),
            ("presence --watchers 3", "rate"),
        ] {
            let scenario = search(line).unwrap().scenario;
            assert_eq!(scenario.has_rate(), varied == "rate", "{line}");
            assert!(line.starts_with(scenario.name()));
            let run = scenario.at(Varied::Connections, 12, false).unwrap();
            assert_eq!(run.flags().unwrap().connections, Some(12), "{line}");
        }
        let presence = search("presence").unwrap().scenario.at(Varied::Rate, 9, false).unwrap();
        assert!(matches!(presence, Scenario::Presence(flags) if flags.flaps == Some(9)));
        for bad in ["", "run", "compare", "worker", "idle --from 0"] {
            assert!(search(bad).is_err(), "{bad}");
        }
    }
}
