//! The main thread's part of the time series: each second it asks all threads for their interval, looks at both processes,
//! and makes a row of it.

use super::intervals::{Failures, Gathering, Reporter, queues};
use super::{Counted, Row, Series};
use crate::control::{Control, Counts};
use crate::scrape::Scraper;
use crate::server_probe::Process;
use crate::stats::Latencies;
use crate::usage::Generator;
use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// From one row to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a row waits for a thread or for the server's metrics; what comes later is in the next one.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a recording needs beside the run itself.
#[derive(Default)]
pub struct Sources {
    /// The server's process.
    pub server: Option<u32>,
    /// The server's metrics.
    pub scraper: Option<Scraper>,
    /// A line for each row goes here.
    pub csv: Option<File>,
    /// Who makes the load.
    pub generator: Generator,
}

/// Makes the series of a run.
pub struct Recorder {
    series: Series,
    gathering: Gathering,
    sources: Sources,
    csv_error: Option<io::Error>,
    began: Instant,
    due: Instant,
    /// The interval asked for and when, until its row is made.
    asked: Option<(u32, Instant)>,
    last: Look,
}

/// What the last row ended with.
struct Look {
    at: Instant,
    counts: Counts,
    server: Option<Process>,
    generator: Option<Process>,
}

impl Recorder {
    /// Begins with the first login, now. Each thread, or process of a fleet, gets a reporter.
    pub fn start(threads: u32, sources: Sources) -> (Self, Vec<Reporter>) {
        let (reporters, gathering) = queues(threads);
        let names = sources.scraper.as_ref().map(Scraper::names).unwrap_or_default();
        let now = Instant::now();
        let last = Look {
            at: now,
            counts: Counts::default(),
            server: sources.server.and_then(Process::glance),
            generator: sources.generator.glance(),
        };
        let mut recorder = Self {
            series: Series::new(names),
            gathering,
            sources,
            csv_error: None,
            began: now,
            due: now + INTERVAL,
            asked: None,
            last,
        };
        recorder.write(&recorder.series.csv_head());
        (recorder, reporters)
    }

    /// Makes a row if one is due and all have given their part; whether it did.
    pub fn look(&mut self, control: &Control, counts: &Counts, phase: &'static str) -> bool {
        let now = Instant::now();
        let Some((interval, asked_at)) = self.asked else {
            if now >= self.due {
                self.asked = Some((control.end_interval(), now));
                self.sources.scraper.iter_mut().for_each(Scraper::ask);
            }
            return false;
        };
        let has_all = self.gathering.has_all(interval);
        let is_answered = self.sources.scraper.as_mut().is_none_or(Scraper::is_answered);
        if !(has_all && is_answered) && now < asked_at + PATIENCE {
            return false;
        }
        self.asked = None;
        let rows_late = (now - self.due).as_nanos() / INTERVAL.as_nanos();
        self.due += INTERVAL * (rows_late as u32 + 1);
        let latencies = self.gathering.take();
        self.row(now, counts, latencies, phase);
        true
    }

    /// The last row, of less than a second; `left` is what the threads had not handed over. Gives the whole series.
    pub fn finish(&mut self, counts: &Counts, left: Latencies) -> Series {
        self.gathering.has_all(0);
        let mut latencies = self.gathering.take();
        latencies.merge(left);
        self.row(Instant::now(), counts, latencies, "end");
        if let Some(error) = self.csv_error.take() {
            eprintln!("iris-loadgen: the file of --csv is not complete: {error}");
        }
        std::mem::take(&mut self.series)
    }

    /// The row that was made last.
    pub fn latest(&self) -> Option<&Row> {
        self.series.rows().last()
    }

    /// What went wrong so far, by reason.
    pub fn failures(&self) -> Failures {
        self.gathering.failures()
    }

    fn row(&mut self, now: Instant, counts: &Counts, latencies: Latencies, phase: &'static str) {
        let look = Look {
            at: now,
            counts: *counts,
            server: self.sources.server.and_then(Process::glance),
            generator: self.sources.generator.glance(),
        };
        let old = std::mem::replace(&mut self.last, look);
        let span = now - old.at;
        let cpu_percent = |new: Option<Process>, old: Option<Process>| {
            let used = new?.cpu.saturating_sub(old?.cpu);
            let percent = 100.0 * used.as_secs_f64() / span.as_secs_f64().max(1e-9);
            Some(crate::report::round(percent, 1))
        };
        let row = Row {
            at_s: (now - self.began).as_secs_f64(),
            span_s: span.as_secs_f64(),
            phase,
            counted: counted(&old.counts, counts),
            connections: counts.online,
            server_rss_bytes: self.last.server.map(|server| server.rss_bytes),
            server_cpu_percent: cpu_percent(self.last.server, old.server),
            generator_cpu_percent: cpu_percent(self.last.generator, old.generator),
            metrics: self.sources.scraper.as_mut().map(Scraper::figures).unwrap_or_default(),
            ..Row::new(latencies)
        };
        self.write(&row.csv_line());
        self.series.push(row);
    }

    /// A row a second: each goes to the file at once, so that others can follow it.
    fn write(&mut self, line: &str) {
        if let Some(csv) = &mut self.sources.csv
            && let Err(error) = csv.write_all(line.as_bytes())
        {
            (self.csv_error, self.sources.csv) = (Some(error), None);
        }
    }
}

fn counted(old: &Counts, new: &Counts) -> Counted {
    let grown = |of: fn(&Counts) -> u64| of(new).saturating_sub(of(old));
    Counted {
        logins: grown(|counts| counts.logged_in),
        sent: grown(|counts| counts.sent),
        accepted: grown(|counts| counts.accepted),
        delivered: grown(|counts| counts.arrived),
        refused: grown(|counts| counts.rejected),
        failed: grown(Counts::lost_connections),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_full_does_not_end_the_run() {
        let csv = File::options().write(true).open("/dev/full").ok();
        let (mut recorder, _reporters) = Recorder::start(1, Sources { csv, ..Sources::default() });
        assert!(recorder.csv_error.is_some());
        let counts = Counts { accepted: 3, ..Counts::default() };
        let series = recorder.finish(&counts, Latencies::of_interval());
        assert_eq!(series.rows()[0].counted.accepted, 3);
    }

    #[test]
    fn a_row_does_not_wait_for_a_thread_that_hangs() {
        let control = Control::start();
        let (mut recorder, _reporters) = Recorder::start(2, Sources::default());
        let counts = Counts { sent: 5, logged_in: 3, online: 2, ended: 1, ..Counts::default() };
        assert!(!recorder.look(&control, &counts, "send"), "a second is not over");
        recorder.due = Instant::now();
        let until = Instant::now() + Duration::from_secs(60);
        while !recorder.look(&control, &counts, "send") {
            assert!(Instant::now() < until, "there is a row");
            std::thread::yield_now();
        }
        let row = recorder.latest().unwrap();
        assert_eq!((row.counted.sent, row.counted.failed, row.connections), (5, 1, 2));
        assert!(recorder.due > Instant::now(), "the next one is due after another second");
    }
}
