//! Events: log lines with a name, of which the admin server shows the last ones.
//!
//! A line becomes an event by a field: `tracing::warn!(event = "mirror_solo", ...)`. Names are stable, and
//! `docs/OPERATING.md` lists them. A [`Named`] layer takes such lines, whatever `log.level` is, to whoever asks [`take`];
//! nobody waits for it, and what nobody takes is counted and dropped.

use std::fmt::{Debug, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::clock::unix_ms;

/// Events that wait for being taken, at most.
const WAITING_MAX: usize = 256;
/// Bytes of an event's text, at most.
const TEXT_BYTES_MAX: usize = 240;
/// The field that makes a line an event.
const NAME: &str = "event";

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, Unix milliseconds.
    pub unix_ms: u64,
    /// `error`, `warn` or `info`.
    pub level: &'static str,
    /// Its name.
    pub name: String,
    /// The line's message and its other fields.
    pub text: String,
}

static WAITING: LazyLock<(Sender<Event>, Receiver<Event>)> =
    LazyLock::new(|| crossbeam_channel::bounded(WAITING_MAX));
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The events since the last call, oldest first.
pub fn take() -> impl Iterator<Item = Event> {
    WAITING.1.try_iter()
}

/// Events that found no room.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// A layer that takes events of this crate from level info on.
pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    Named(WAITING.0.clone()).with_filter(LevelFilter::INFO)
}

#[derive(Debug)]
struct Named(Sender<Event>);

impl<S: Subscriber> Layer<S> for Named {
    fn on_event(&self, line: &tracing::Event<'_>, _: Context<'_, S>) {
        let about = line.metadata();
        let is_ours = about.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"));
        if !is_ours || about.fields().field(NAME).is_none() {
            return;
        }
        let mut fields = Fields::default();
        line.record(&mut fields);
        let Fields { name, mut text, more } = fields;
        text += &more;
        if text.len() > TEXT_BYTES_MAX {
            let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            text.push('\u{2026}');
        }
        let event = Event { unix_ms: unix_ms(), level: level_name(*about.level()), name, text };
        if self.0.try_send(event).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        _ => "info",
    }
}

/// Name, message and the rest of a line.
#[derive(Default)]
struct Fields {
    name: String,
    text: String,
    more: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            NAME => value.clone_into(&mut self.name),
            "message" => value.clone_into(&mut self.text),
            name => write!(self.more, " {name}={value}").expect("a String takes all"),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn a_line_with_a_name_is_an_event_and_others_are_not() {
        let (sender, events) = crossbeam_channel::unbounded();
        let layer = Named(sender).with_filter(LevelFilter::INFO);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("not this one");
            tracing::debug!(event = "quiet", "nor this one");
            tracing::info!(target: "elsewhere", event = "foreign", "nor what others say");
            tracing::warn!(event = "named", node = 7, text = "x y", "it has a {}", "name");
            tracing::error!(event = "long", "{}", "\u{e9}".repeat(TEXT_BYTES_MAX));
        });
        let mut events: Vec<Event> = events.try_iter().collect();
        let long = events.pop().unwrap();
        assert_eq!((long.level, long.text.chars().count()), ("error", TEXT_BYTES_MAX / 2 + 1));
        let [event] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((event.name.as_str(), event.level), ("named", "warn"));
        assert_eq!(event.text, "it has a name node=7 text=x y");
        assert!(event.unix_ms > 1_700_000_000_000);
    }
}
