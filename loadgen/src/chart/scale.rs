//! Axes: where a value stands between the ends, which values are marked, and how they are written.

/// How values are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Microseconds, or what is larger.
    Micros,
    /// So many a second.
    PerSecond,
    Bytes,
    Percent,
    Number,
}

impl Unit {
    /// A value with three digits.
    pub fn text(self, value: f64) -> String {
        let (scale, name) = match self {
            Self::Micros => {
                scaled(value, &[(1e6, " s"), (1e3, " ms"), (1.0, " us"), (1e-3, " ns")])
            }
            Self::Bytes => scaled(value, &[(1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1.0, " B")]),
            Self::PerSecond => scaled(value, &[(1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")]),
            Self::Number => scaled(value, &[(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]),
            Self::Percent => (1.0, " %"),
        };
        format!("{}{name}", digits(value / scale))
    }
}

fn scaled(value: f64, units: &[(f64, &'static str)]) -> (f64, &'static str) {
    // Values that would be rounded up to the next unit have it.
    let fits = units.iter().find(|(scale, _)| value.abs() >= scale * 0.9995);
    let zero = units.iter().find(|(scale, _)| *scale == 1.0);
    *fits.or(if value == 0.0 { zero } else { units.last() }).expect("there are units")
}

/// Three significant digits, without zeros at the end.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        _ if value == 0.0 => 0,
        abs if abs >= 99.95 => 0,
        abs if abs >= 9.995 => 1,
        abs if abs >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// One direction of a chart.
#[derive(Clone, PartialEq, Debug)]
pub enum Axis {
    /// From 0.
    Linear { high: f64, step: f64 },
    /// Both ends above 0.
    Log { low: f64, high: f64 },
    /// Seconds from 0.
    Seconds { high: f64 },
    /// `log10(1 / (1 - quantile))`: each step is another nine.
    Nines { high: f64 },
}

impl Axis {
    /// From 0 to a round value that is not below `high`.
    pub fn linear(high: f64) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let step = round_step(high / 5.0);
        Self::Linear { high: (high / step - 1e-9).ceil() * step, step }
    }

    /// From a round value below to one above.
    pub fn log(low: f64, high: f64) -> Self {
        let low = round_down(low);
        let mut top = low;
        while top < high * 0.999 {
            top = next_round(top);
        }
        Self::Log { low, high: top.max(next_round(low)) }
    }

    /// Where a quantile below 1 stands on an axis of nines.
    pub fn nines(quantile: f64) -> f64 {
        -(1.0 - quantile).log10()
    }

    /// Where a value stands, 0 to 1.
    pub fn share(&self, value: f64) -> f64 {
        let share = match self {
            Self::Linear { high, .. } | Self::Seconds { high } | Self::Nines { high } => {
                value / high
            }
            Self::Log { low, high } => (value.max(*low) / low).ln() / (high / low).ln(),
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Values that are marked.
    pub fn ticks(&self) -> Vec<f64> {
        let up_to = |high: f64, step: f64| {
            let count = (high / step + 1e-6).floor().min(1000.0) as u32;
            (0..=count).map(|index| f64::from(index) * step).collect()
        };
        match self {
            Self::Linear { high, step } => up_to(*high, *step),
            Self::Log { low, high } => {
                let mut all = vec![*low];
                while let Some(last) = all.last().filter(|last| **last < high * 0.999) {
                    all.push(next_round(*last));
                }
                let is_power = |value: &f64| (value.log10() - value.log10().round()).abs() < 1e-6;
                // With room for six labels, only powers of ten stand on a long axis.
                if all.len() > 7 { all.into_iter().filter(is_power).collect() } else { all }
            }
            Self::Seconds { high } => {
                let step = STEPS_S.iter().find(|step| high / **step <= 10.0);
                up_to(*high, step.copied().unwrap_or_else(|| round_step(high / 10.0)))
            }
            Self::Nines { high } => {
                let mut ticks = vec![0.0, Self::nines(0.5)];
                ticks.extend(up_to(*high, 1.0).into_iter().skip(1));
                ticks
            }
        }
    }

    /// A value of this axis for people.
    pub fn label(&self, value: f64) -> String {
        match self {
            Self::Seconds { high } if *high >= 7200.0 => format!("{} h", digits(value / 3600.0)),
            Self::Seconds { high } if *high >= 300.0 => format!("{} min", digits(value / 60.0)),
            Self::Seconds { .. } => format!("{} s", digits(value)),
            Self::Nines { .. } => {
                let places = (value - 2.0 - 1e-6).ceil().clamp(0.0, 9.0) as usize;
                let percent = 100.0 - 100.0 * 10f64.powf(-value);
                format!("{percent:.places$} %")
            }
            Self::Linear { .. } | Self::Log { .. } => digits(value),
        }
    }
}

/// Round steps of a time.
const STEPS_S: [f64; 19] = [
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0,
    3600.0, 7200.0, 21_600.0, 86_400.0,
];

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let down = round_down(least);
    if down >= least * 0.999 { down } else { next_round(down) }
}

fn round_down(value: f64) -> f64 {
    let power = 10f64.powf((value * 1.0001).log10().floor());
    match value * 1.0001 / power {
        times if times >= 5.0 => 5.0 * power,
        times if times >= 2.0 => 2.0 * power,
        _ => power,
    }
}

fn next_round(round: f64) -> f64 {
    let power = 10f64.powf((round * 1.0001).log10().floor());
    match (round / power).round() as u32 {
        1 => 2.0 * power,
        2 => 5.0 * power,
        _ => 10.0 * power,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_with_three_digits_and_a_unit() {
        for (unit, value, text) in [
            (Unit::Micros, 0.0, "0 us"),
            (Unit::Micros, 0.25, "250 ns"),
            (Unit::Micros, 999.0, "999 us"),
            (Unit::Micros, 999.9, "1 ms"),
            (Unit::Micros, 12_345.0, "12.3 ms"),
            (Unit::Micros, 2.5e6, "2.5 s"),
            (Unit::PerSecond, 1_740_549.0, "1.74M/s"),
            (Unit::PerSecond, 0.2, "0.2/s"),
            (Unit::Bytes, 354.0, "354 B"),
            (Unit::Bytes, 24e9, "24 GB"),
            (Unit::Percent, 187.46, "187 %"),
            (Unit::Number, 100_000.0, "100k"),
        ] {
            assert_eq!(unit.text(value), text);
        }
    }

    #[test]
    fn axes_end_at_round_values_with_few_marks() {
        for high in [0.0, 1e-7, 0.3, 1.0, 7.0, 99.0, 101.0, 123_456.0, 1e12] {
            let axis = Axis::linear(high);
            let ticks = axis.ticks();
            assert!((2..=7).contains(&ticks.len()), "{high}: {ticks:?}");
            assert!(axis.share(high) <= 1.0 && axis.share(0.0) == 0.0);
            assert!(high == 0.0 || axis.share(high) > 0.5, "{high}: {axis:?}");
        }
        assert_eq!(Axis::linear(480.0).ticks(), [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
    }

    #[test]
    fn a_logarithm_has_even_decades() {
        let axis = Axis::log(13.0, 9_000.0);
        assert_eq!(axis, Axis::Log { low: 10.0, high: 10_000.0 });
        assert_eq!(axis.ticks(), [10.0, 100.0, 1000.0, 10_000.0]);
        assert!((axis.share(100.0) - 1.0 / 3.0).abs() < 1e-9);
        let narrow = Axis::log(100.0, 100.0);
        assert_eq!(narrow.ticks(), [100.0, 200.0]);
        assert_eq!(Axis::log(130.0, 700.0).ticks(), [100.0, 200.0, 500.0, 1000.0]);
    }

    #[test]
    fn percentiles_are_marked_by_their_nines() {
        let axis = Axis::Nines { high: 4.3 };
        let labels: Vec<String> = axis.ticks().iter().map(|tick| axis.label(*tick)).collect();
        assert_eq!(labels, ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn times_are_marked_in_round_steps() {
        let labels = |high| {
            let axis = Axis::Seconds { high };
            axis.ticks().iter().map(|tick| axis.label(*tick)).collect::<Vec<_>>()
        };
        assert_eq!(labels(4.0).last().unwrap(), "4 s");
        assert_eq!(labels(32.0), ["0 s", "5 s", "10 s", "15 s", "20 s", "25 s", "30 s"]);
        assert_eq!(labels(600.0).last().unwrap(), "10 min");
        assert_eq!(labels(86_400.0).last().unwrap(), "24 h");
        assert!(labels(604_800.0).len() <= 12 && labels(0.0).len() <= 12);
    }
}
