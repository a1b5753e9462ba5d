//! The Prometheus text format, version 0.0.4: families of samples with help and type.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write};

use super::cell::Snapshot;

/// The `Content-Type` of what [`Text`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Label names and values of one sample.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Writes families one after another.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Starts a family of counters. Its name ends in `_total`.
    pub fn counters(&mut self, name: &'static str, help: &str) -> Family<'_> {
        assert!(name.ends_with("_total"), "{name}: a counter's name ends in _total");
        self.family(name, help, "counter")
    }

    /// Starts a family of gauges.
    pub fn gauges(&mut self, name: &'static str, help: &str) -> Family<'_> {
        assert!(!name.ends_with("_total"), "{name}: a gauge is no total");
        self.family(name, help, "gauge")
    }

    /// Starts a family of histograms.
    pub fn histograms(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, "histogram")
    }

    fn family(&mut self, name: &'static str, help: &str, kind: &str) -> Family<'_> {
        debug_assert!(!self.0.contains(&format!("# TYPE {name} ")), "{name} was written before");
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect(INFALLIBLE);
        Family { out: &mut self.0, name }
    }

    /// All that was written.
    pub fn finish(self) -> String {
        self.0
    }
}

const INFALLIBLE: &str = "writing to a String cannot fail";

/// One family, to which samples are added.
#[derive(Debug)]
pub struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.line("", labels, None, value)
    }

    /// Adds a histogram. Bounds and sum are multiplied by `unit`, say 1e-9 for nanoseconds to seconds.
    pub fn histogram(&mut self, labels: Labels<'_>, snapshot: &Snapshot, unit: f64) -> &mut Self {
        let mut count = 0;
        for (bound, in_bucket) in &snapshot.buckets {
            count += in_bucket;
            // Rounded to a nanosecond, so that 16_000 ns is 0.000016 and not 0.000016000000000000003.
            let bound = (*bound as f64 * unit * 1e9).round() / 1e9;
            self.line("_bucket", labels, Some(&bound.to_string()), count);
        }
        count += snapshot.above;
        self.line("_bucket", labels, Some("+Inf"), count);
        self.line("_sum", labels, None, snapshot.sum as f64 * unit);
        self.line("_count", labels, None, count)
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: Labels<'_>,
        le: Option<&str>,
        value: impl Display,
    ) -> &mut Self {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        let all = labels.iter().copied().chain(le.map(|le| ("le", le)));
        let mut separator = '{';
        for (label, value) in all {
            write!(self.out, "{separator}{label}=\"").expect(INFALLIBLE);
            for c in value.chars() {
                match c {
                    '\\' | '"' => self.out.extend(['\\', c]),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.out.push('}');
        }
        writeln!(self.out, " {value}").expect(INFALLIBLE);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::cell::Histogram;

    #[test]
    fn samples_of_a_family_stand_below_its_help_and_type() {
        let mut text = Text::default();
        text.counters("a_total", "Of a.").sample(&[], 3).sample(&[("x", "q\"\\\n")], 0.5);
        let wanted = "# HELP a_total Of a.\n# TYPE a_total counter\na_total 3\n\
                      a_total{x=\"q\\\"\\\\\\n\"} 0.5\n";
        assert_eq!(text.finish(), wanted);
    }

    #[test]
    fn histogram_buckets_are_cumulative_and_in_base_units() {
        let histogram = Histogram::<16_000, 3>::default();
        for ns in [1, 16_000, 40_000, 1_000_000] {
            histogram.record(ns);
        }
        let mut text = Text::default();
        text.histograms("t_seconds", "T.").histogram(&[("p", "0")], &histogram.snapshot(), 1e-9);
        let lines: Vec<String> = text.finish().lines().skip(2).map(str::to_owned).collect();
        assert_eq!(
            lines[..4],
            [
                "t_seconds_bucket{p=\"0\",le=\"0.000016\"} 2",
                "t_seconds_bucket{p=\"0\",le=\"0.000032\"} 2",
                "t_seconds_bucket{p=\"0\",le=\"0.000064\"} 3",
                "t_seconds_bucket{p=\"0\",le=\"+Inf\"} 4",
            ]
        );
        assert!(lines[4].starts_with("t_seconds_sum{p=\"0\"} 0.001056"), "{}", lines[4]);
        assert_eq!(lines[5], "t_seconds_count{p=\"0\"} 4");
    }
}
