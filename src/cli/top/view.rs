//! What went on between two looks at a node. No I/O: numbers in, numbers out.

use std::time::Instant;

use serde_json::Value;

use crate::cli::scrape::Scrape;
use crate::cli::status::Node;

/// A node as it was at one moment.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) node: Node,
    /// Its metrics and when they came, or why not.
    pub(super) metrics: Result<(Instant, Scrape), String>,
}

/// Rates, a second: name in JSON and the metrics that are summed up.
const RATES: [(&str, &[&str]); 14] = [
    ("connected", &["iris_connections_accepted_total"]),
    ("ended", &["iris_connections_closed_total"]),
    ("logins", &["iris_logins_total"]),
    ("frames_in", &["iris_frames_received_total"]),
    ("accepted", &["iris_sends_total"]),
    ("duplicates", &["iris_duplicates_total"]),
    ("delivered", &["iris_delivered_total"]),
    ("acked", &["iris_acked_total"]),
    ("refused", &["iris_rejected_total"]),
    ("limited", &["iris_limited_total"]),
    ("dropped", &["iris_dropped_total"]),
    ("received_bytes", &["iris_received_bytes_total"]),
    ("sent_bytes", &["iris_sent_bytes_total"]),
    ("written_bytes", &["iris_wal_written_bytes_total"]),
];

/// Threads that say how long they were busy: what they are called here, metric, label.
const THREADS: [(&str, &str, &str); 2] = [
    ("r", "iris_reactor_busy_seconds_total", "reactor"),
    ("p", "iris_partition_busy_seconds_total", "partition"),
];

/// Shares of syncs that are told.
const QUANTILES: [f64; 2] = [0.5, 0.99];

/// What is shown of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) admin: String,
    /// Why there is nothing to show.
    pub(super) error: Option<String>,
    /// `/status` of the second look.
    pub(super) status: Value,
    /// Between the looks.
    pub(super) seconds: f64,
    /// A second; those that the node has.
    pub(super) rates: Vec<(&'static str, f64)>,
    /// Share of the time that each thread worked.
    pub(super) busy: Vec<(String, f64)>,
    /// CPUs that the process took.
    pub(super) cpus: f64,
    /// A second, by reason, the most frequent first.
    pub(super) refused: Vec<(String, f64)>,
    /// The same by limit.
    pub(super) limited: Vec<(String, f64)>,
    /// Connections that ended, likewise.
    pub(super) ended: Vec<(String, f64)>,
    /// Syncs of the log a second; within how many seconds half of them and 99 % were done, at most.
    pub(super) syncs: Option<(f64, [Option<f64>; 2])>,
    pub(super) inbox_messages: Option<u64>,
    pub(super) inbox_bytes: Option<u64>,
    /// Bytes that wait for clients.
    pub(super) backlog_bytes: Option<u64>,
    /// Connections that have not logged in.
    pub(super) pending: Option<u64>,
    pub(super) disk_free_bytes: Option<u64>,
    pub(super) rss_bytes: Option<u64>,
    /// Memory of a connection; `None`: there are none.
    pub(super) bytes_per_connection: Option<u64>,
}

impl View {
    /// What went on between two looks. A counter that went back began anew, with the server.
    pub(super) fn between(before: &Look, now: &Look) -> Self {
        let admin = now.node.admin.clone();
        let (status, (at, page)) = match (&now.node.status, &now.metrics) {
            (Ok(status), Ok(metrics)) => (status.clone(), metrics),
            (Err(why), _) | (_, Err(why)) => {
                return Self { admin, error: Some(why.clone()), ..Self::default() };
            }
        };
        let empty = Scrape::default();
        // Without a look before there is no time to divide by: nothing has a rate yet.
        let (old, seconds) = match &before.metrics {
            Ok((then, page)) => (page, at.saturating_duration_since(*then).as_secs_f64()),
            Err(_) => (&empty, f64::INFINITY),
        };
        let span = Between { old, page, seconds: seconds.max(1e-3) };
        let gauge = |name: &str| page.sum(name).map(|value| value as u64);
        Self {
            admin,
            error: None,
            status,
            seconds: if seconds.is_finite() { seconds } else { 0.0 },
            rates: RATES.iter().filter_map(|(name, of)| Some((*name, span.rates(of)?))).collect(),
            busy: span.busy(),
            cpus: span.rate("iris_process_cpu_seconds_total").unwrap_or(0.0),
            refused: span.by("iris_rejected_total", "reason"),
            limited: span.by("iris_limited_total", "limit"),
            ended: span.by("iris_connections_closed_total", "reason"),
            syncs: span.syncs(),
            inbox_messages: gauge("iris_inbox_messages"),
            inbox_bytes: gauge("iris_inbox_bytes"),
            backlog_bytes: gauge("iris_client_backlog_bytes"),
            pending: gauge("iris_logins_pending"),
            disk_free_bytes: page.least("iris_wal_disk_free_bytes").map(|bytes| bytes as u64),
            rss_bytes: gauge("iris_process_resident_bytes"),
            bytes_per_connection: page
                .most("iris_memory_bytes_per_connection")
                .map(|bytes| bytes as u64)
                .filter(|bytes| *bytes > 0),
        }
    }

    /// A rate by its name.
    pub(super) fn rate(&self, name: &str) -> Option<f64> {
        self.rates.iter().find(|(known, _)| *known == name).map(|(_, rate)| *rate)
    }
}

/// Two pages and the time between them.
struct Between<'a> {
    old: &'a Scrape,
    page: &'a Scrape,
    seconds: f64,
}

impl Between<'_> {
    fn per_second(&self, old: f64, new: f64) -> f64 {
        let grown = if new < old { new } else { new - old };
        grown / self.seconds
    }

    fn rate(&self, name: &str) -> Option<f64> {
        let new = self.page.sum(name)?;
        Some(self.per_second(self.old.sum(name).unwrap_or(0.0), new))
    }

    fn rates(&self, names: &[&str]) -> Option<f64> {
        names.iter().filter_map(|name| self.rate(name)).reduce(|sum, rate| sum + rate)
    }

    /// For each value of the label, without those that did not grow.
    fn by(&self, name: &str, label: &str) -> Vec<(String, f64)> {
        let mut rates = self.all(name, label);
        rates.retain(|(_, rate)| *rate > 0.0);
        rates.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        rates
    }

    fn all(&self, name: &str, label: &str) -> Vec<(String, f64)> {
        let old = self.old.by(name, label);
        let was = |key: &str| old.iter().find(|(known, _)| known == key).map_or(0.0, |(_, n)| *n);
        let new = self.page.by(name, label).into_iter();
        new.map(|(key, value)| (key.clone(), self.per_second(was(&key), value))).collect()
    }

    fn busy(&self) -> Vec<(String, f64)> {
        let threads = THREADS.iter().flat_map(|(short, metric, label)| {
            let all = self.all(metric, label).into_iter();
            all.map(move |(index, share)| (format!("{short}{index}"), share))
        });
        let gateway = self.rate("iris_gateway_busy_seconds_total").filter(|share| *share > 0.0);
        threads.chain(gateway.map(|share| ("gateway".to_owned(), share))).collect()
    }

    /// Buckets are cumulative and have an upper bound each, so a quantile is known to be at most the bound of its bucket.
    fn syncs(&self) -> Option<(f64, [Option<f64>; 2])> {
        let rate = self.rate("iris_wal_sync_seconds_count")?;
        let buckets = self.all("iris_wal_sync_seconds_bucket", "le");
        let whole = buckets.last().map_or(0.0, |(_, rate)| *rate);
        let within = |share: f64| {
            let (bound, _) = buckets.iter().find(|(_, rate)| *rate >= whole * share)?;
            bound.parse::<f64>().ok().filter(|bound| whole > 0.0 && bound.is_finite())
        };
        Some((rate, QUANTILES.map(within)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn look(at: Instant, page: &str) -> Look {
        let status = Ok(json!({ "node": { "id": 1 } }));
        let node = Node { admin: "127.0.0.1:7480".to_owned(), status };
        Look { node, metrics: Ok((at, Scrape::parse(page).unwrap())) }
    }

    fn between(seconds: u64, before: &str, now: &str) -> View {
        let at = Instant::now();
        View::between(&look(at, before), &look(at + Duration::from_secs(seconds), now))
    }

    #[test]
    fn rates_are_what_counters_grew_by_in_a_second() {
        let before = "iris_sends_total{partition=\"0\"} 10\niris_sends_total{partition=\"1\"} 5\n";
        let now = "iris_sends_total{partition=\"0\"} 30\niris_sends_total{partition=\"1\"} 5\n";
        let view = between(2, before, now);
        assert_eq!(
            (view.rate("accepted"), view.rate("delivered"), view.seconds),
            (Some(10.0), None, 2.0)
        );
    }

    #[test]
    fn a_server_that_started_again_counts_from_zero() {
        let view = between(1, "iris_acked_total 1000\n", "iris_acked_total 7\n");
        assert_eq!(view.rate("acked"), Some(7.0));
    }

    #[test]
    fn without_a_look_before_nothing_has_a_rate_yet() {
        let at = Instant::now();
        let before = Look { metrics: Err("refused".to_owned()), ..look(at, "") };
        let view = View::between(&before, &look(at, "iris_acked_total 7\niris_inbox_messages 3\n"));
        assert_eq!(
            (view.rate("acked"), view.inbox_messages, view.error),
            (Some(0.0), Some(3), None)
        );
    }

    #[test]
    fn reasons_are_those_that_grew_the_most_frequent_first() {
        let page = |a, b, c| {
            format!(
                "iris_rejected_total{{reason=\"a\"}} {a}\niris_rejected_total{{reason=\"b\"}} {b}\n\
                 iris_rejected_total{{reason=\"c\"}} {c}\n"
            )
        };
        let view = between(1, &page(1, 1, 1), &page(2, 1, 9));
        assert_eq!(view.refused, [("c".to_owned(), 8.0), ("a".to_owned(), 1.0)]);
    }

    #[test]
    fn threads_are_busy_for_a_share_of_the_time() {
        let page = |a, b| {
            format!(
                "iris_reactor_busy_seconds_total{{reactor=\"0\"}} {a}\n\
                 iris_partition_busy_seconds_total{{partition=\"0\"}} {b}\niris_gateway_busy_seconds_total 0\n"
            )
        };
        let view = between(2, &page(1.0, 1.0), &page(2.0, 1.5));
        assert_eq!(view.busy, [("r0".to_owned(), 0.5), ("p0".to_owned(), 0.25)]);
    }

    #[test]
    fn of_syncs_the_bound_of_the_bucket_is_told() {
        let page = |a, b, c| {
            format!(
                "iris_wal_sync_seconds_bucket{{partition=\"0\",le=\"0.001\"}} {a}\n\
                 iris_wal_sync_seconds_bucket{{partition=\"0\",le=\"0.004\"}} {b}\n\
                 iris_wal_sync_seconds_bucket{{partition=\"0\",le=\"+Inf\"}} {c}\n\
                 iris_wal_sync_seconds_count{{partition=\"0\"}} {c}\n"
            )
        };
        let view = between(1, &page(5, 5, 5), &page(65, 105, 105));
        assert_eq!(view.syncs, Some((100.0, [Some(0.001), Some(0.004)])));
        let view = between(1, &page(5, 5, 5), &page(5, 5, 15));
        assert_eq!(view.syncs, Some((10.0, [None, None])), "above all bounds is no number");
        let view = between(1, &page(5, 5, 5), &page(5, 5, 5));
        assert_eq!(view.syncs, Some((0.0, [None, None])));
    }

    #[test]
    fn a_node_that_does_not_answer_has_nothing_but_the_reason() {
        let at = Instant::now();
        let now = Look { metrics: Err("refused".to_owned()), ..look(at, "") };
        let view = View::between(&look(at, "iris_acked_total 7\n"), &now);
        assert_eq!(view.error.as_deref(), Some("refused"));
        assert!(view.rates.is_empty());
    }
}
