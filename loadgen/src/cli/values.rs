//! Values of flags that are more than a number.

use std::fmt;
use std::str::FromStr;

/// A part of the users: a share of them, or so many.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Part {
    /// `1%`.
    Percent(f64),
    /// `100`.
    Count(u32),
}

impl Part {
    /// How many of `all` that is.
    pub fn of(self, all: u32) -> u32 {
        match self {
            Self::Percent(percent) => (f64::from(all) * percent / 100.0) as u32,
            Self::Count(count) => count,
        }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: write a share such as 1% (up to 100%), or a count");
        match text.strip_suffix('%') {
            Some(number) => number
                .trim()
                .parse()
                .ok()
                .filter(|percent| (0.0..=100.0).contains(percent))
                .map(Self::Percent)
                .ok_or_else(wrong),
            None => text.parse().map(Self::Count).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(out, "{percent}%"),
            Self::Count(count) => write!(out, "{count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_share_or_a_count() {
        for (text, of_thousand) in [("1%", 10), ("0.5%", 5), ("100%", 1000), ("7", 7), ("0", 0)] {
            let part: Part = text.parse().unwrap();
            assert_eq!((part.of(1000), part.to_string().as_str()), (of_thousand, text));
        }
        for bad in ["", "%", "101%", "-1%", "NaN%", "-1", "1.5", "many"] {
            assert!(bad.parse::<Part>().unwrap_err().contains("1%"), "{bad}");
        }
    }
}
