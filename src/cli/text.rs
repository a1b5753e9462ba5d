//! How commands write: columns, spans of time, sizes, times of day.

use std::fmt::Write;

const INFALLIBLE: &str = "writing to a String cannot fail";
/// Characters of one cell, at most.
const CELL_MAX: usize = 64;
/// Characters before the first column.
const NAME_WIDTH: usize = 14;

/// Lines of a name and as many cells as there are columns, each column as wide as its widest cell. What cells hold may
/// come from outside: nothing in them moves the cursor.
pub(super) fn columns(lines: &[(&str, Vec<String>)]) -> String {
    let lines: Vec<(&str, Vec<String>)> = lines
        .iter()
        .map(|(name, cells)| (*name, cells.iter().map(|cell| clean(cell)).collect()))
        .collect();
    let count = lines.iter().map(|(_, cells)| cells.len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|column| lines.iter().filter_map(move |(_, cells)| cells.get(column)))
        .map(|cells| cells.map(|cell| cell.chars().count()).max().unwrap_or_default())
        .collect();
    let mut out = String::new();
    for (name, cells) in &lines {
        let mut line = format!("{name:<NAME_WIDTH$}");
        for (cell, width) in cells.iter().zip(&widths) {
            write!(line, "  {cell:<width$}").expect(INFALLIBLE);
        }
        writeln!(out, "{}", line.trim_end()).expect(INFALLIBLE);
    }
    out
}

/// What may stand in a cell: no control characters, no end of the screen.
fn clean(cell: &str) -> String {
    let shown = cell.chars().map(|c| if c.is_control() { ' ' } else { c });
    if cell.chars().count() <= CELL_MAX {
        return shown.collect();
    }
    shown.take(CELL_MAX - 3).chain("...".chars()).collect()
}

/// A span of time as people say it.
pub(super) fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Bytes as people say them.
pub(super) fn size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

/// A time of day in UTC as RFC 3339 has it, of Unix seconds before the year 10000.
pub(super) fn utc(unix_s: u64) -> String {
    // Days to a date: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_have_the_unit_that_fits() {
        for (ms, wanted) in [
            (999, "0 s"),
            (59_999, "59 s"),
            (60_000, "1 min 0 s"),
            (3_661_000, "1 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(ms), wanted);
        }
        for (bytes, wanted) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (3 << 20, "3.0 MiB"),
            (u64::MAX, "17179869184.0 GiB"),
        ] {
            assert_eq!(size(bytes), wanted);
        }
    }

    #[test]
    fn a_cell_holds_what_a_screen_can_show() {
        assert_eq!(clean("a\u{1b}[2Jb"), "a [2Jb");
        let long = clean(&"x".repeat(100));
        assert!(long.len() == CELL_MAX && long.ends_with("x..."), "{long}");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let cells = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let text = columns(&[("", cells("one", "two")), ("name", cells("longer", "x"))]);
        assert_eq!(text, "                one     two\nname            longer  x\n");
        assert_eq!(columns(&[]), "");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (unix_s, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(unix_s), wanted);
        }
    }
}
