//! The text format of Prometheus, as far as figures need it: kinds, names and values, summed up over labels.

use std::collections::HashMap;

/// What a metric's values mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Is what it is.
    Gauge,
    /// `_sum` and `_count` grow.
    Histogram,
}

/// All samples of one answer.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Samples {
    kinds: HashMap<String, Kind>,
    values: HashMap<String, f64>,
}

impl Samples {
    /// Reads an answer; lines that are no samples are skipped.
    pub(super) fn parse(text: &str) -> Self {
        let mut samples = Self::default();
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                samples.take_kind(rest);
            } else if !line.starts_with('#') {
                samples.take_value(line);
            }
        }
        samples
    }

    fn take_kind(&mut self, rest: &str) {
        let mut words = rest.split_whitespace();
        let (Some(name), Some(kind)) = (words.next(), words.next()) else { return };
        let kind = match kind {
            "counter" => Kind::Counter,
            "histogram" | "summary" => Kind::Histogram,
            _ => Kind::Gauge,
        };
        self.kinds.insert(name.to_owned(), kind);
    }

    fn take_value(&mut self, line: &str) {
        let name_end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        let (name, rest) = line.split_at(name_end);
        let Some(rest) = past_labels(rest).filter(|_| is_name(name)) else { return };
        let value = rest.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
        if let Some(value) = value.filter(|value| value.is_finite()) {
            *self.values.entry(name.to_owned()).or_default() += value;
        }
    }

    /// What kind of metric this is; `None` if it is not there.
    pub(super) fn kind(&self, name: &str) -> Option<Kind> {
        // OpenMetrics leaves `_total` out of a counter's declaration.
        let declared =
            self.kinds.get(name).or_else(|| self.kinds.get(name.strip_suffix("_total")?));
        match declared {
            Some(Kind::Histogram) => self.value(&format!("{name}_count")).map(|_| Kind::Histogram),
            Some(kind) => self.value(name).map(|_| *kind),
            None => self.value(name).map(|_| Kind::Gauge),
        }
    }

    /// The sum over all labels.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }
}

/// Names become names of files, too, so only what Prometheus allows in a name is one.
fn is_name(name: &str) -> bool {
    let may_stand = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !name.is_empty() && name.chars().all(may_stand)
}

/// What follows the labels; a label's value may hold anything, brackets too.
fn past_labels(rest: &str) -> Option<&str> {
    let Some(labels) = rest.strip_prefix('{') else { return Some(rest) };
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in labels.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            '}' if !quoted => return Some(&labels[at + 1..]),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP iris_sends_total Sends accepted as new.
# TYPE iris_sends_total counter
iris_sends_total{partition=\"0\"} 5
iris_sends_total{partition=\"1\"} 7 1700000000
# TYPE iris_connections gauge
iris_connections 3
# TYPE iris_wal_sync_seconds histogram
iris_wal_sync_seconds_bucket{le=\"0.001\"} 1
iris_wal_sync_seconds_bucket{le=\"+Inf\"} 2
iris_wal_sync_seconds_sum 0.5
iris_wal_sync_seconds_count 2
odd{name=\"a}b\\\"{ 9\"} 4
untyped 1e3
";

    #[test]
    fn values_are_summed_over_labels_and_kinds_are_known() {
        let samples = Samples::parse(TEXT);
        assert_eq!(samples.value("iris_sends_total"), Some(12.0));
        assert_eq!(samples.kind("iris_sends_total"), Some(Kind::Counter));
        assert_eq!(samples.kind("iris_connections"), Some(Kind::Gauge));
        assert_eq!(samples.kind("iris_wal_sync_seconds"), Some(Kind::Histogram));
        assert_eq!(samples.value("iris_wal_sync_seconds_count"), Some(2.0));
        assert_eq!(samples.value("odd"), Some(4.0));
        assert_eq!((samples.kind("untyped"), samples.kind("none")), (Some(Kind::Gauge), None));
    }

    #[test]
    fn what_is_no_sample_is_skipped() {
        for text in [
            "", "#", "# TYPE", "# TYPE a", "{} 1", "a{b=\"c", "a", "a x", "a NaN", "../a 1",
            "\u{e9} ",
        ] {
            assert_eq!(Samples::parse(text).values.len(), 0, "{text}");
        }
    }
}
