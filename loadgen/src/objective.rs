//! Objectives: what a run must reach, as `--slo 'p99<1ms,lost=0,rate>=100k'`, and whether it did.
//!
//! Latencies are in the report's microseconds, so a bare number is microseconds, too; `us`, `ms` and `s` may follow. Counts
//! and rates take `k`, `M` and `G`; memory takes `B`, `KB` and `MB`, powers of 1,000; drifts are the last tenth of the
//! steady phase over the first. What a run did not measure meets no objective: an absent figure is no good figure.

use crate::report::{Report, grouped, round};
use crate::stats::Percentiles;
use serde::Serialize;

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Measure {
    Latency(Of, Point),
    Rate,
    DeliveredRate,
    LoginRate,
    DrainRate,
    ToldRate,
    Count(Counted),
    /// Messages delivered for each that was accepted: of a fan-out, the recipients that a SEND reached.
    Reach,
    /// The last tenth of the steady phase over the first.
    Drift(Point),
    DriftRss,
    Storm(Until),
    RssBytes,
    KernelBytes,
}

/// Which latency: to ACCEPTED from the intended send, from the real send, or to the receiver; to receivers that did not read
/// for a while; or from a change of presence to a watcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    Accepted,
    Service,
    Delivered,
    Stalled,
    Told,
}

/// How many are back after all connections were cut; of several storms, in the slowest one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Until {
    Half,
    Most,
    All,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Point {
    P50,
    P90,
    P99,
    P999,
    Max,
    Mean,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Counted {
    Lost,
    Repeated,
    Reordered,
    Damaged,
    Refused,
    Failed,
    NotSent,
    /// Changes of presence that no watcher was told as themselves.
    Missed,
    Redelivered,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Relation {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

/// One thing that a run must reach.
#[derive(Clone, PartialEq, Debug)]
pub struct Objective {
    measure: Measure,
    relation: Relation,
    bound: f64,
    text: String,
}

/// An objective beside what was measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Checked {
    /// As it was typed.
    pub objective: String,
    /// In the objective's base unit: microseconds, a second, bytes, or none; `None`: this run does not measure it.
    pub measured: Option<f64>,
    /// Whether it was reached.
    pub met: bool,
}

const NAMES: &str = "p50, p90, p99, p99.9, max, mean (also service.p99, delivered.p99, stalled.p99, told.p99, ...), rate, \
                     delivered_rate, login_rate, drain_rate, told_rate, reach, lost, repeated, reordered, damaged, refused, \
                     failed, not_sent, missed, redelivered, drift.p50, drift.p99, ..., drift.rss, storm.half, storm.most, \
                     storm.all, rss, kernel";

/// Reads a list of objectives, such as `p99<1ms,lost=0`.
pub fn parse(text: &str) -> Result<Vec<Objective>, String> {
    text.split(',').map(|one| Objective::parse(one.trim())).collect()
}

/// For the command line, which holds a list as one value.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Objectives(pub Vec<Objective>);

impl std::str::FromStr for Objectives {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).map(Self)
    }
}

impl Objectives {
    /// Each beside what a run measured.
    pub fn check(&self, report: &Report) -> Vec<Checked> {
        self.0.iter().map(|objective| objective.check(report)).collect()
    }
}

impl Objective {
    fn parse(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>', '=']).ok_or_else(|| {
            format!("{text:?} is no objective: write NAME<VALUE, such as p99<1ms or lost=0")
        })?;
        let (name, rest) = text.split_at(at);
        let relations = [
            ("<=", Relation::AtMost),
            (">=", Relation::AtLeast),
            ("==", Relation::Equal),
            ("<", Relation::Less),
            (">", Relation::More),
            ("=", Relation::Equal),
        ];
        let found = relations.iter().find_map(|(sign, relation)| {
            rest.strip_prefix(sign).map(|value| (*relation, value.trim()))
        });
        let (relation, value) = found.expect("it begins with one of the signs");
        let measure = Measure::parse(name.trim())
            .ok_or_else(|| format!("{:?} is not measured; there are {NAMES}", name.trim()))?;
        let bound = measure.value(value)?;
        Ok(Self { measure, relation, bound, text: text.to_owned() })
    }

    /// As it was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn check(&self, report: &Report) -> Checked {
        let measured = self.measure.of(report);
        let met = measured.is_some_and(|measured| match self.relation {
            Relation::Less => measured < self.bound,
            Relation::AtMost => measured <= self.bound,
            Relation::Equal => measured == self.bound,
            Relation::AtLeast => measured >= self.bound,
            Relation::More => measured > self.bound,
        });
        Checked { objective: self.text.clone(), measured, met }
    }
}

impl Measure {
    fn parse(name: &str) -> Option<Self> {
        if let Some(point) = Point::parse(name) {
            return Some(Self::Latency(Of::Accepted, point));
        }
        if let Some((of, point)) = name.split_once('.') {
            return Some(match (of, point) {
                ("accepted", point) => Self::Latency(Of::Accepted, Point::parse(point)?),
                ("service", point) => Self::Latency(Of::Service, Point::parse(point)?),
                ("delivered", point) => Self::Latency(Of::Delivered, Point::parse(point)?),
                ("stalled", point) => Self::Latency(Of::Stalled, Point::parse(point)?),
                ("told", point) => Self::Latency(Of::Told, Point::parse(point)?),
                ("drift", "rss") => Self::DriftRss,
                ("drift", point) => Self::Drift(Point::parse(point)?),
                ("storm", "half") => Self::Storm(Until::Half),
                ("storm", "most") => Self::Storm(Until::Most),
                ("storm", "all") => Self::Storm(Until::All),
                _ => return None,
            });
        }
        Some(match name {
            "rate" => Self::Rate,
            "delivered_rate" => Self::DeliveredRate,
            "login_rate" => Self::LoginRate,
            "drain_rate" => Self::DrainRate,
            "told_rate" => Self::ToldRate,
            "reach" => Self::Reach,
            "missed" => Self::Count(Counted::Missed),
            "redelivered" => Self::Count(Counted::Redelivered),
            "lost" => Self::Count(Counted::Lost),
            "repeated" | "duplicates" => Self::Count(Counted::Repeated),
            "reordered" => Self::Count(Counted::Reordered),
            "damaged" | "corrupted" => Self::Count(Counted::Damaged),
            "refused" | "rejected" => Self::Count(Counted::Refused),
            "failed" | "errors" => Self::Count(Counted::Failed),
            "not_sent" => Self::Count(Counted::NotSent),
            "rss" => Self::RssBytes,
            "kernel" => Self::KernelBytes,
            _ => return None,
        })
    }

    /// Reads a bound, with the units that this measure has.
    fn value(self, text: &str) -> Result<f64, String> {
        let units: &[(&str, f64)] = match self {
            Self::Latency(..) | Self::Storm(_) => {
                &[("", 1.0), ("us", 1.0), ("ms", 1e3), ("s", 1e6)]
            }
            Self::Reach | Self::Drift(_) | Self::DriftRss => &[("", 1.0), ("x", 1.0)],
            Self::RssBytes | Self::KernelBytes => {
                &[("", 1.0), ("B", 1.0), ("KB", 1e3), ("MB", 1e6)]
            }
            Self::Rate
            | Self::DeliveredRate
            | Self::LoginRate
            | Self::DrainRate
            | Self::ToldRate
            | Self::Count(_) => &[("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)],
        };
        scaled(text, units)
    }

    fn of(self, report: &Report) -> Option<f64> {
        let count = |map: &std::collections::BTreeMap<String, u64>| map.values().sum::<u64>();
        match self {
            Self::Latency(of, point) => {
                let found = match of {
                    Of::Accepted => &report.latency_us,
                    Of::Service => &report.service_latency_us,
                    Of::Delivered => &report.delivered_latency_us,
                    Of::Stalled => &report.delivered_stalled_latency_us,
                    Of::Told if report.presence.is_none() => &None,
                    Of::Told => &report.delivered_latency_us,
                };
                found.as_ref().map(|found| point.of(found))
            }
            Self::Rate => Some(report.rate_per_s),
            Self::DeliveredRate => Some(report.delivered_per_s),
            Self::LoginRate => Some(report.login.per_s),
            Self::DrainRate => report.drain.map(|drain| drain.per_s),
            Self::ToldRate => report.presence.map(|presence| presence.told_per_s),
            Self::Reach => (report.accepted > 0)
                .then(|| round(report.delivered as f64 / report.accepted as f64, 3)),
            Self::Drift(point) => {
                let drift = report.drift.as_ref()?;
                ratio(point.of(&drift.last_tenth_us), point.of(&drift.first_tenth_us))
            }
            Self::DriftRss => {
                let drift = report.drift.as_ref()?;
                let (first, last) = (drift.first_tenth_rss_bytes?, drift.last_tenth_rss_bytes?);
                ratio(last as f64, first as f64)
            }
            Self::Storm(until) => {
                let seconds = report.storms.iter().map(|storm| match until {
                    Until::Half => storm.half_s,
                    Until::Most => storm.most_s,
                    Until::All => storm.all_s,
                });
                // One that did not come to its end is worse than any.
                let slowest = seconds.reduce(|a, b| Some(a?.max(b?)))??;
                Some(slowest * 1e6)
            }
            Self::Count(counted) => Some(match counted {
                Counted::Lost => report.lost,
                Counted::Repeated => report.duplicates,
                Counted::Reordered => report.reordered,
                Counted::Damaged => report.corrupted,
                Counted::Refused => count(&report.rejected),
                Counted::Failed => count(&report.errors),
                Counted::NotSent => report.not_sent,
                Counted::Redelivered => report.returns.map_or(0, |returns| returns.redelivered),
                Counted::Missed => report.presence?.missed,
            } as f64),
            Self::RssBytes => report.server.as_ref().map(|server| server.rss_bytes_per_connection),
            Self::KernelBytes => {
                report.server.as_ref().and_then(|server| server.kernel_bytes_per_connection)
            }
        }
    }
}

fn ratio(last: f64, first: f64) -> Option<f64> {
    (first > 0.0).then(|| round(last / first, 3))
}

impl Point {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "p50" | "median" => Self::P50,
            "p90" => Self::P90,
            "p99" => Self::P99,
            "p99.9" | "p999" => Self::P999,
            "max" => Self::Max,
            "mean" => Self::Mean,
            _ => return None,
        })
    }

    fn of(self, of: &Percentiles) -> f64 {
        match self {
            Self::P50 => of.p50,
            Self::P90 => of.p90,
            Self::P99 => of.p99,
            Self::P999 => of.p999,
            Self::Max => of.max,
            Self::Mean => of.mean,
        }
    }
}

impl Checked {
    /// For people.
    pub fn line(&self) -> String {
        let verdict = if self.met { "met" } else { "MISSED" };
        match self.measured {
            Some(measured) if measured.fract() == 0.0 && measured >= 1000.0 => {
                format!("{}: {} {verdict}", self.objective, grouped(measured as u64))
            }
            Some(measured) => format!("{}: {measured} {verdict}", self.objective),
            None => format!("{}: not measured in this run, {verdict}", self.objective),
        }
    }
}

/// Reads a number such as `100k` or `2.5M`.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let number = scaled(text, &[("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)])?;
    if number < 1.0 { Err(format!("{text:?}: at least 1")) } else { Ok(number.round() as u64) }
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Result<f64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let Some((_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
        let names: Vec<&str> = units.iter().map(|unit| unit.0).filter(|n| !n.is_empty()).collect();
        return Err(format!("unknown unit {unit:?} in {text:?}: use {}", names.join(", ")));
    };
    let number: Option<f64> = digits.trim().parse().ok();
    number
        .map(|number| number * scale)
        .filter(|number| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Drift, Presence, Rate, Storm};
    use std::collections::BTreeMap;

    fn report() -> Report {
        let latency = Percentiles {
            p50: 100.0,
            p90: 300.0,
            p99: 900.5,
            p999: 2000.0,
            max: 5000.0,
            mean: 150.0,
            count: 10,
        };
        Report {
            latency_us: Some(latency),
            delivered_latency_us: Some(Percentiles { p99: 1500.0, ..latency }),
            rate_per_s: 100_000.0,
            login: Rate { per_s: 5.0, ..Rate::default() },
            accepted: 10,
            delivered: 2560,
            presence: Some(Presence { changes: 30, told: 28, told_per_s: 14.0, missed: 2 }),
            drift: Some(Drift {
                first_tenth_us: latency,
                last_tenth_us: Percentiles { p99: 1801.0, ..latency },
                first_tenth_rss_bytes: Some(100),
                last_tenth_rss_bytes: Some(110),
            }),
            storms: [0.5, 0.25]
                .map(|all_s| Storm { all_s: Some(all_s), ..Storm::default() })
                .into(),
            rejected: BTreeMap::from([("overloaded".to_owned(), 2), ("low_disk".to_owned(), 1)]),
            ..Report::default()
        }
    }

    #[test]
    fn objectives_are_met_by_what_was_measured() {
        for (text, met) in [
            ("p99<1ms", true),
            ("p99<900us", false),
            ("p99<=900.5", true),
            ("p99.9<2ms", false),
            ("p999<=2ms", true),
            ("delivered.p99<1ms", false),
            ("accepted.p50<0.2ms", true),
            ("max<0.01s", true),
            ("rate>=100k", true),
            ("rate > 0.1M", false),
            ("lost=0", true),
            ("lost==0", true),
            ("refused=3", true),
            ("rejected<3", false),
            ("login_rate>4", true),
            ("mean<150", false),
            ("told.p99<=1.5ms", true),
            ("told_rate>=14", true),
            ("missed<=2", true),
            ("missed=0", false),
            ("reach=256", true),
            ("drift.p50<=1", true),
            ("drift.p99<1.5x", false),
            ("drift.p99<=2x", true),
            ("drift.rss<=1.1", true),
            ("storm.all<=500ms", true),
            ("storm.all<0.5s", false),
            ("redelivered=0", true),
        ] {
            let objective = parse(text).unwrap().pop().unwrap();
            assert_eq!(objective.check(&report()).met, met, "{text}");
        }
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        let unmeasured = [
            "service.p99<1s",
            "rss<1MB",
            "kernel>=0",
            "stalled.p99<1s",
            "drain_rate>=0",
            "storm.half<9s",
        ];
        for text in unmeasured {
            let checked = parse(text).unwrap()[0].check(&report());
            assert_eq!((checked.met, checked.measured), (false, None), "{text}");
            assert!(checked.line().contains("not measured"));
        }
        let unlike =
            ["told.p99<1s", "told_rate>=0", "missed=0", "drift.p99<9", "reach>=0", "storm.all<9s"];
        for text in unlike {
            assert_eq!(parse(text).unwrap()[0].check(&Report::default()).measured, None, "{text}");
        }
    }

    #[test]
    fn a_list_is_read_in_order() {
        let Objectives(list) = "p99<1ms, lost=0,rate>=100k".parse().unwrap();
        let texts: Vec<&str> = list.iter().map(|objective| objective.text.as_str()).collect();
        assert_eq!(texts, ["p99<1ms", "lost=0", "rate>=100k"]);
    }

    #[test]
    fn bad_objectives_are_refused_with_what_to_write_instead() {
        for (text, hint) in [
            ("", "NAME<VALUE"),
            ("p99", "NAME<VALUE"),
            ("p99<", "no number"),
            ("p95<1ms", "p99.9"),
            ("p99<1h", "us, ms, s"),
            ("rate>1ms", "k, M, G"),
            ("rss<1k", "B, KB, MB"),
            ("drift.p99<1ms", "use x"),
            ("drift.p95<2", "drift.p99"),
            ("storm.some<1s", "storm.all"),
            ("lost=-1", "no number"),
            ("lost=NaN", "k, M, G"),
            ("wrong.p99<1", "not measured"),
            ("p99<1ms,,lost=0", "NAME<VALUE"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn counts_have_units() {
        assert_eq!(parse_count("2.5k"), Ok(2500));
        assert_eq!(parse_count("7"), Ok(7));
        assert!(["0", "k", "-1", "1x", ""].iter().all(|bad| parse_count(bad).is_err()));
    }
}
