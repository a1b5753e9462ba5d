//! The server's own metrics, read each second of a run by a thread of their own: a server that answers late delays nothing.
//!
//! A counter becomes how much it grew a second, a histogram the mean of what came since the last time, a gauge is what it
//! is. Values of all labels are summed up.

mod exposition;
mod http;

use anyhow::{Context, bail};
use exposition::{Kind, Samples};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

pub use http::Endpoint;

/// Metrics of Iris that tell most about a run; those that a server does not show are left out.
const WATCHED: [&str; 10] = [
    "iris_sends_total",
    "iris_delivered_total",
    "iris_connections",
    "iris_inbox_messages",
    "iris_wal_sync_seconds",
    "iris_wal_batch_records",
    "iris_wal_written_bytes_total",
    "iris_partition_busy_seconds_total",
    "iris_reactor_busy_seconds_total",
    "iris_process_resident_bytes",
];

/// A metric that is watched.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Watched {
    name: String,
    kind: Kind,
}

/// Reads the metrics of one server on demand.
pub struct Scraper {
    watched: Vec<Watched>,
    ask: SyncSender<()>,
    answers: Receiver<Option<(Instant, Samples)>>,
    under_way: bool,
    last: (Instant, Samples),
    latest: Option<(Instant, Samples)>,
}

impl Scraper {
    /// Reads once, so that a wrong address is known before the run, and starts the thread. `names`: what is watched;
    /// none: what tells most of Iris.
    pub fn start(endpoint: Endpoint, names: &[String]) -> anyhow::Result<Self> {
        let text = endpoint.get().with_context(|| format!("cannot read --metrics {endpoint}"))?;
        let samples = Samples::parse(&text);
        let watched = watched(&samples, names).with_context(|| endpoint.to_string())?;
        let (ask, asked) = sync_channel::<()>(1);
        let (answer, answers) = sync_channel(1);
        let body = move || {
            while asked.recv().is_ok() {
                let samples =
                    endpoint.get().ok().map(|text| (Instant::now(), Samples::parse(&text)));
                if answer.send(samples).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("loadgen-metrics".to_owned()).spawn(body);
        thread.context("cannot start a thread")?;
        let last = (Instant::now(), samples);
        Ok(Self { watched, ask, answers, under_way: false, last, latest: None })
    }

    /// What each figure is called: with `_per_s` and `_mean` where it is not the metric itself.
    pub fn names(&self) -> Vec<String> {
        let name = |watched: &Watched| match watched.kind {
            Kind::Counter => format!("{}_per_s", watched.name),
            Kind::Histogram => format!("{}_mean", watched.name),
            Kind::Gauge => watched.name.clone(),
        };
        self.watched.iter().map(name).collect()
    }

    /// Has the thread read the metrics now, unless it still does.
    pub fn ask(&mut self) {
        if !self.under_way {
            self.under_way = self.ask.try_send(()).is_ok();
        }
    }

    /// Whether nothing is under way.
    pub fn is_answered(&mut self) -> bool {
        if self.under_way
            && let Ok(answer) = self.answers.try_recv()
        {
            self.under_way = false;
            self.latest = answer;
        }
        !self.under_way
    }

    /// The figures since the last answer; all `None` if none has come.
    pub fn figures(&mut self) -> Vec<Option<f64>> {
        let Some(latest) = self.latest.take() else { return vec![None; self.watched.len()] };
        let seconds = (latest.0 - self.last.0).as_secs_f64();
        let (new, old) = (&latest.1, &self.last.1);
        let figures =
            self.watched.iter().map(|watched| watched.figure(old, new, seconds)).collect();
        self.last = latest;
        figures
    }
}

/// What is watched of what a server shows.
fn watched(samples: &Samples, names: &[String]) -> anyhow::Result<Vec<Watched>> {
    let found = |name: &str| {
        let kind = samples.kind(name)?;
        Some(Watched { name: name.to_owned(), kind })
    };
    if names.is_empty() {
        let watched: Vec<Watched> = WATCHED.iter().filter_map(|name| found(name)).collect();
        if watched.is_empty() {
            bail!("no metrics of Iris there: name others with --metric NAME");
        }
        return Ok(watched);
    }
    let of_name = |name: &String| {
        found(name).with_context(|| format!("--metric {name}: there is no such metric"))
    };
    names.iter().map(of_name).collect()
}

impl Watched {
    fn figure(&self, old: &Samples, new: &Samples, seconds: f64) -> Option<f64> {
        let grown = |name: &str| Some((new.value(name)? - old.value(name)?).max(0.0));
        let figure = match self.kind {
            Kind::Gauge => new.value(&self.name)?,
            Kind::Counter => grown(&self.name)? / seconds.max(1e-3),
            Kind::Histogram => {
                let count = grown(&format!("{}_count", self.name))?;
                let sum = grown(&format!("{}_sum", self.name))?;
                if count == 0.0 {
                    return None;
                }
                sum / count
            }
        };
        // Enough for any drawing, and short in a file.
        Some(format!("{figure:.6e}").parse().unwrap_or(figure))
    }
}

#[cfg(test)]
mod tests;
