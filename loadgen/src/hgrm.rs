//! The percentile spectrum as HdrHistogram's tools write and draw it (`.hgrm`): value, percentile, how many up to there, and
//! 1/(1-percentile), each step a fifth of the way that halves the distance to 100 %. Values are microseconds.

use crate::stats::Spectrum;
use std::fmt::Write;

const HEAD: &str = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n";

/// The file's text.
pub fn text(spectrum: &Spectrum) -> String {
    let mut text = HEAD.to_owned();
    for step in &spectrum.steps {
        let (value, total) = (step.value_us, step.total);
        // Writing to a String cannot fail.
        let _ = write!(text, "{value:12.3} {:2.12} {total:10}", step.quantile);
        if step.quantile < 1.0 {
            let _ = write!(text, " {:14.2}", 1.0 / (1.0 - step.quantile));
        }
        text.push('\n');
    }
    // What HdrHistogram calls sub-buckets: the next power of two that tells so many digits apart.
    let sub_buckets = (2 * 10u64.pow(spectrum.digits.into())).next_power_of_two();
    let Spectrum { mean_us, deviation_us, max_us, count, buckets, .. } = spectrum;
    let _ = writeln!(text, "#[Mean    = {mean_us:12.3}, StdDeviation   = {deviation_us:12.3}]");
    let _ = writeln!(text, "#[Max     = {max_us:12.3}, Total count    = {count:12}]");
    let _ = writeln!(text, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Latencies;

    #[test]
    fn the_text_is_what_tools_for_hgrm_files_read() {
        let mut latencies = Latencies::default();
        (1..=1000u64).for_each(|i| latencies.record(i * 1000));
        let text = text(&latencies.spectrum());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        assert_eq!(lines[2], "       1.000 0.000000000000          1           1.00");
        let half = lines.iter().find(|line| line.contains(" 0.500000000000 ")).unwrap();
        let cells: Vec<f64> = half.split_whitespace().map(|cell| cell.parse().unwrap()).collect();
        assert_eq!((cells[1], cells[2], cells[3]), (0.5, 500.0, 2.0));
        assert!((cells[0] - 500.0).abs() < 1.0, "{half}");
        let last = lines[lines.len() - 4];
        assert!(last.ends_with(" 1.000000000000       1000"), "{last}");
        assert!(lines[lines.len() - 3].starts_with("#[Mean    =      500."), "{text}");
        assert!(lines[lines.len() - 2].ends_with("Total count    =         1000]"), "{text}");
        assert!(lines[lines.len() - 1].ends_with("SubBuckets     =         2048]"), "{text}");
    }

    #[test]
    fn nothing_recorded_is_a_head_and_a_foot() {
        let text = text(&Latencies::default().spectrum());
        assert_eq!(text.lines().count(), 5, "{text}");
    }
}
