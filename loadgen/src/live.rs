//! What a run shows while it runs, on standard error: on a terminal a view that is redrawn in place, elsewhere, or with
//! `--no-live`, a line a second. Progress is for people: a closed standard error does not end the run.

use crate::control::Counts;
use crate::protocol::Protocol;
use crate::report::grouped;
use crate::series::intervals::Failures;
use crate::series::{Latency, Row};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Steps of the bar.
const STEPS: u64 = 1000;
/// Redrawn so often a second, at most.
const REDRAWS_PER_S: u8 = 5;
const REDRAW: Duration = Duration::from_millis(1000 / REDRAWS_PER_S as u64);
/// Lines under the bar.
const LINES: usize = 5;

/// A part of a run, and what it waits for.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// In a word or two.
    pub name: &'static str,
    /// When it is over.
    pub goal: Goal,
}

/// What a part of a run waits for.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// So many users are in.
    Users(u32),
    /// A time has passed.
    Time(Instant, Duration),
    /// Every message has its answer.
    Answers,
    /// Everything accepted, or sent where nothing is, has arrived.
    Deliveries,
}

impl Goal {
    /// How far it is, 0 to 1, and in words.
    fn progress(self, counts: &Counts) -> (f64, String) {
        let share = |done: u64, of: u64| if of == 0 { 1.0 } else { done as f64 / of as f64 };
        match self {
            Self::Users(users) => {
                let (through, users) = (counts.online + counts.failed, u64::from(users));
                (share(through, users), format!("{} of {} users", grouped(through), grouped(users)))
            }
            Self::Time(began, length) => {
                let passed = began.elapsed().min(length);
                let share = passed.as_secs_f64() / length.as_secs_f64().max(1e-9);
                (share, format!("{} of {} s", passed.as_secs(), length.as_secs_f64()))
            }
            Self::Answers => {
                let left = grouped(counts.unanswered());
                (share(counts.answered(), counts.sent), format!("{left} without an answer"))
            }
            Self::Deliveries => {
                let left = grouped(counts.owed.saturating_sub(counts.arrived));
                (share(counts.arrived, counts.owed), format!("{left} to be delivered"))
            }
        }
    }
}

/// Shows a run.
pub struct Live {
    protocol: Protocol,
    drawn: Option<Drawn>,
}

struct Drawn {
    bars: MultiProgress,
    bar: ProgressBar,
    lines: Vec<ProgressBar>,
    moved: Option<Instant>,
}

impl Live {
    /// `redraws`: in place, if standard error is a terminal.
    pub fn new(redraws: bool, protocol: Protocol) -> Self {
        let drawn = (redraws && std::io::stderr().is_terminal()).then(Drawn::new);
        Self { protocol, drawn }
    }

    /// Moves the bar.
    pub fn progress(&mut self, part: Part, counts: &Counts) {
        let Some(drawn) = &mut self.drawn else { return };
        if drawn.moved.is_some_and(|moved| moved.elapsed() < REDRAW) {
            return;
        }
        drawn.moved = Some(Instant::now());
        let (share, words) = part.goal.progress(counts);
        drawn.bar.set_prefix(part.name);
        drawn.bar.set_message(words);
        drawn.bar.set_position((share.clamp(0.0, 1.0) * STEPS as f64) as u64);
    }

    /// Shows the last second.
    pub fn show(&self, row: &Row, counts: &Counts, failures: impl FnOnce() -> Failures) {
        let Some(drawn) = &self.drawn else {
            let _ = writeln!(std::io::stderr().lock(), "{}", line(row, counts));
            return;
        };
        let texts = texts(row, counts, &failures(), self.protocol);
        for (place, text) in drawn.lines.iter().zip(texts) {
            place.set_message(text);
        }
    }

    /// Leaves the screen as it was.
    pub fn end(&mut self) {
        if let Some(drawn) = self.drawn.take() {
            let _ = drawn.bars.clear();
        }
    }
}

impl Drawn {
    fn new() -> Self {
        let style = |template| {
            ProgressStyle::with_template(template).expect("the template is the same in each run")
        };
        let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_S);
        let bars = MultiProgress::with_draw_target(target);
        let bar = bars.add(ProgressBar::new(STEPS));
        bar.set_style(style("  {prefix:<8} [{bar:30}] {wide_msg}").progress_chars("=> "));
        let lines = (0..LINES).map(|_| {
            let line = bars.add(ProgressBar::new(STEPS));
            line.set_style(style("  {wide_msg}"));
            line
        });
        Self { lines: lines.collect(), bar, bars, moved: None }
    }
}

fn rate(row: &Row, count: u64) -> String {
    grouped(row.per_s(count).round() as u64)
}

/// One line for a second.
fn line(row: &Row, counts: &Counts) -> String {
    let latency = row.latency.map_or(String::new(), |Latency { p50_us, p99_us, .. }| {
        format!("  p50 {p50_us} us  p99 {p99_us} us")
    });
    let counted = row.counted;
    format!(
        "{:>4}s {:<7} in {}  sent {}/s  accepted {}/s  arrived {}/s{latency}  unanswered {}  refused {}  ended {}",
        row.at_s as u64,
        row.phase,
        grouped(counts.online),
        rate(row, counted.sent),
        rate(row, counted.accepted),
        rate(row, counted.delivered),
        grouped(counts.unanswered()),
        grouped(counts.rejected),
        grouped(counts.lost_connections()),
    )
}

/// The lines under the bar.
fn texts(row: &Row, counts: &Counts, failures: &Failures, protocol: Protocol) -> [String; LINES] {
    let counted = row.counted;
    let mut rates = format!(
        "rate     sent {}/s  accepted {}/s  delivered {}/s",
        rate(row, counted.sent),
        rate(row, counted.accepted),
        rate(row, counted.delivered),
    );
    if counted.logins > 0 {
        rates += &format!("  logins {}/s", rate(row, counted.logins));
    }
    let latency = match row.latency {
        Some(Latency { p50_us, p99_us, max_us }) => {
            format!("latency  p50 {p50_us} us  p99 {p99_us} us  max {max_us} us")
        }
        None => format!("latency  nothing was {} in this second", protocol.through()),
    };
    let percent = |cpu: Option<f64>| cpu.map_or("?".to_owned(), |cpu| format!("{cpu:.0} %"));
    let open = format!(
        "open     {} connections  {} unanswered  {} s",
        grouped(row.connections),
        grouped(counts.unanswered()),
        row.at_s as u64,
    );
    let server = row.server_rss_bytes.map_or(String::new(), |bytes| {
        format!("server {:.1} MB, CPU {}  ", bytes as f64 / 1e6, percent(row.server_cpu_percent))
    });
    let machine = format!("machine  {server}generator CPU {}", percent(row.generator_cpu_percent));
    let refused = failures
        .rejected
        .iter()
        .map(|(code, count)| format!("{} {}", grouped(*count), protocol.code_name(*code)));
    let failed =
        failures.errors.iter().map(|(reason, count)| format!("{} {reason}", grouped(*count)));
    let wrong: Vec<String> = refused.chain(failed).collect();
    let wrong = if wrong.is_empty() { "none".to_owned() } else { wrong.join(", ") };
    [rates, latency, open, machine, format!("errors   {wrong}")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Counted;
    use crate::stats::Latencies;
    use std::collections::BTreeMap;

    fn row() -> Row {
        let mut latencies = Latencies::of_interval();
        (0..100).for_each(|_| latencies.record(50_000));
        Row {
            at_s: 7.02,
            span_s: 2.0,
            phase: "send",
            counted: Counted { sent: 3000, accepted: 2000, ..Counted::default() },
            server_rss_bytes: Some(25_000_000),
            server_cpu_percent: Some(150.4),
            ..Row::new(latencies)
        }
    }

    #[test]
    fn a_line_has_rates_and_percentiles_of_its_second() {
        let counts = Counts { online: 4, sent: 3000, accepted: 2000, ..Counts::default() };
        let line = line(&row(), &counts);
        assert!(line.starts_with("   7s send    in 4  sent 1,500/s  accepted 1,000/s"), "{line}");
        assert!(line.contains("p50 50.") && line.contains("unanswered 1,000"), "{line}");
        assert!(!super::line(&Row::default(), &counts).contains("p50"));
    }

    #[test]
    fn the_view_names_what_went_wrong() {
        let failures = Failures {
            rejected: BTreeMap::from([(60_000, 1200)]),
            errors: BTreeMap::from([("reset".to_owned(), 2)]),
        };
        let texts = texts(&row(), &Counts::default(), &failures, Protocol::Iris);
        assert_eq!(texts[4], "errors   1,200 code_60000, 2 reset");
        assert!(texts[3].contains("server 25.0 MB, CPU 150 %"), "{}", texts[3]);
        let (row, counts, failures) = (Row::default(), Counts::default(), Failures::default());
        let texts = super::texts(&row, &counts, &failures, Protocol::Iris);
        assert!(texts[1].contains("nothing") && texts[4].ends_with("none"), "{texts:?}");
        let texts = super::texts(&row, &counts, &failures, Protocol::Nats);
        assert!(texts[1].contains("nothing was delivered"), "{texts:?}");
    }

    #[test]
    fn the_view_fits_a_terminal_of_80_columns() {
        let second = Counted {
            sent: 1_740_549,
            accepted: 1_740_549,
            delivered: 1_740_549,
            ..Counted::default()
        };
        let row = Row { counted: second, span_s: 1.0, connections: 1_000_000, ..row() };
        let counts = Counts { sent: 1_000_000, ..Counts::default() };
        for text in texts(&row, &counts, &Failures::default(), Protocol::Iris) {
            assert!(text.chars().count() <= 78, "{text}");
        }
    }

    #[test]
    fn a_goal_is_reached_at_1() {
        let counts = Counts { online: 1, failed: 1, ..Counts::default() };
        let goals = [
            Goal::Users(2),
            Goal::Time(Instant::now(), Duration::ZERO),
            Goal::Answers,
            Goal::Deliveries,
        ];
        let reached = goals.map(|goal| goal.progress(&counts).0);
        assert_eq!(reached, [1.0, 0.0, 1.0, 1.0], "no time at all has no length to be passed");
        let half = Counts { sent: 4, accepted: 2, owed: 2, arrived: 1, ..Counts::default() };
        assert_eq!(Goal::Answers.progress(&half), (0.5, "2 without an answer".to_owned()));
        assert_eq!(Goal::Deliveries.progress(&half), (0.5, "1 to be delivered".to_owned()));
    }
}
