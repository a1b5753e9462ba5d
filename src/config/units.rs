//! Durations, sizes and rates as people write them: `30s`, `64KiB`, `100/s burst 200`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A span of time: a whole number and one of `us`, `ms`, `s`, `m`, `h`, `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes: a whole number and one of `B`, `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// How often: so many in a second, a minute or an hour, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Messages, bytes, logins, connections.
    pub units: u64,
    /// In this time.
    pub per: Duration,
    /// At once; `None`: left to the reader.
    pub burst: Option<u64>,
}

impl Rate {
    /// Reads `100/s`, `10/m burst 20` or, with `of_bytes`, `1MiB/s burst 4MiB`; `off` is none.
    pub fn parse(text: &str, of_bytes: bool) -> Result<Option<Self>, String> {
        let example = if of_bytes { "\"1MiB/s burst 4MiB\"" } else { "\"100/s burst 200\"" };
        let fault = || format!("{text:?} is not \"off\" or a rate such as {example}");
        let units = |text: &str| match of_bytes {
            true => text.parse::<ByteSize>().ok().map(|size| size.0),
            false => text.parse::<u64>().ok().filter(|_| !text.starts_with('+')),
        };
        let mut words = text.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        let burst = match rest.as_slice() {
            [] if first == "off" => return Ok(None),
            [] => None,
            ["burst", burst] => Some(units(burst).ok_or_else(fault)?),
            _ => return Err(fault()),
        };
        let (amount, unit) = first.rsplit_once('/').ok_or_else(fault)?;
        let (_, us) = SPANS[1..4].iter().find(|(name, _)| *name == unit).ok_or_else(fault)?;
        let per = Duration::from_micros(*us);
        Ok(Some(Self { units: units(amount).ok_or_else(fault)?, per, burst }))
    }
}

/// Unit and how many microseconds it has, largest first.
const SPANS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Unit and how many bytes it has, largest first.
const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, &SPANS).map(|us| Self(Duration::from_micros(us))).ok_or_else(|| {
            format!("{text:?} is not a duration such as \"30s\", \"250ms\" or \"1h\"")
        })
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, &SIZES).map(Self).ok_or_else(|| {
            format!("{text:?} is not a size such as \"64KiB\", \"16MiB\" or \"1GiB\"")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        if us == 0 { f.write_str("0s") } else { print(f, us, &SPANS) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.0, &SIZES)
    }
}

/// The number times its unit, or nothing when a part is missing, unknown or too large for 64 bits.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The largest unit that leaves no remainder, so that what is printed parses to the same value.
fn print(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)]) -> fmt::Result {
    let (name, factor) = units
        .iter()
        .find(|(_, factor)| amount >= *factor && amount.is_multiple_of(*factor))
        .or_else(|| units.last())
        .expect("every table of units has entries");
    write!(f, "{}{name}", amount / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_parses_to_the_same_value() {
        for text in ["0s", "30s", "5m", "1h", "250ms", "7us", "2d", "90s"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span, "{text}");
        }
        for text in ["0B", "1B", "64KiB", "3GiB", "1025B"] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.to_string(), text);
        }
        assert_eq!("90s".parse::<Span>().unwrap().to_string(), "90s");
        assert_eq!("120s".parse::<Span>().unwrap().to_string(), "2m");
    }

    #[test]
    fn rates_are_a_number_in_a_time_and_a_burst_or_off() {
        let rate =
            |units, secs, burst| Ok(Some(Rate { units, per: Duration::from_secs(secs), burst }));
        for (text, of_bytes, wanted) in [
            ("off", false, Ok(None)),
            ("off", true, Ok(None)),
            ("100/s", false, rate(100, 1, None)),
            (" 10/m  burst 20 ", false, rate(10, 60, Some(20))),
            ("7/h", false, rate(7, 3600, None)),
            ("1MiB/s burst 4MiB", true, rate(1 << 20, 1, Some(4 << 20))),
        ] {
            assert_eq!(Rate::parse(text, of_bytes), wanted, "{text}");
        }
        for (text, of_bytes) in [
            ("", false),
            ("100", false),
            ("100/d", false),
            ("100/ms", false),
            ("100 / s", false),
            ("-1/s", false),
            ("+1/s", false),
            ("1.5/s", false),
            ("100/s burst", false),
            ("100/s burst 5 6", false),
            ("100/s 200", false),
            ("off burst 5", false),
            ("100/s", true),
            ("1MiB/s", false),
            ("1MiB/s burst 7", true),
            ("99999999999999999999/s", false),
        ] {
            assert!(Rate::parse(text, of_bytes).unwrap_err().contains("burst"), "{text}");
        }
    }

    #[test]
    fn numbers_without_a_unit_and_units_without_a_number_are_refused() {
        for text in ["", "30", "s", "-1s", "1.5s", "30 sec", "1e3s", "18446744073709551615h"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["", "64", "KiB", "64KB", "64kib", "-1B", "99999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
