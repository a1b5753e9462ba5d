//! Log lines on stderr: for people on a terminal, JSON for collectors. Nothing is logged per message.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};
use crate::events;

/// What `log.level` names: levels and `MODULE=LEVEL`, separated by commas; the longest module that fits decides.
///
/// The parsers of tracing-subscriber take any word for a module, so that a misspelled level would silence the log.
pub fn parse_filter(text: &str) -> Result<Targets, String> {
    let mut filter = Targets::new();
    for part in text.split(',').map(str::trim) {
        filter = match part.split_once('=') {
            None => filter.with_default(parse_level(part)?),
            Some(("", _)) => return Err(format!("no module before = in {part:?}")),
            Some((module, level)) => filter.with_target(module, parse_level(level)?),
        };
    }
    Ok(filter)
}

fn parse_level(level: &str) -> Result<LevelFilter, String> {
    match level {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(format!("there is no level {level:?}")),
    }
}

/// What decides which lines come out, in JSON and as text: of one format none do.
type Filters = [Handle<Targets, Registry>; 2];

static FILTERS: OnceLock<Filters> = OnceLock::new();

/// Sends the log lines of the whole process to stderr. A second call changes nothing.
pub fn init(config: &LogConfig) {
    let [json, text] = filters(config);
    let (json, of_json) = reload::Layer::new(json);
    let (text, of_text) = reload::Layer::new(text);
    let lines = || tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    // Both are layers of the registry itself, so that each sees every event and its own filter decides.
    let json = lines().json().flatten_event(true).with_current_span(false).with_filter(json);
    let text = lines().with_ansi(terminal).with_target(false).with_filter(text);
    let both: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![json.boxed(), text.boxed()];
    // Failing means that a subscriber is there already, which is then the one that was wanted.
    if tracing_subscriber::registry().with(both).with(events::layer()).try_init().is_ok() {
        let _ = FILTERS.set([of_json, of_text]);
    }
}

/// Has the log say what another configuration asks for, from the next line on.
pub fn apply(config: &LogConfig) {
    let Some(handles) = FILTERS.get() else { return };
    for (handle, filter) in handles.iter().zip(filters(config)) {
        // An error means that the subscriber is gone, and nobody logs.
        let _ = handle.reload(filter);
    }
}

/// For JSON and for text.
fn filters(config: &LogConfig) -> [Targets; 2] {
    let filter = parse_filter(&config.level).expect("a checked configuration has a valid level");
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    if json { [filter, Targets::new()] } else { [Targets::new(), filter] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_modules_parse_and_slips_do_not() {
        for level in ["info", "error", "off", "info,iris=debug", "warn, iris::reactor=trace"] {
            assert!(parse_filter(level).is_ok(), "{level}");
        }
        for level in ["", "inof", "iris=loud", "loud=", "=debug", "info,", "INFO"] {
            assert!(parse_filter(level).is_err(), "{level}");
        }
    }

    #[test]
    fn the_longest_module_that_fits_decides() {
        let filter = parse_filter("warn,iris=info,iris::wal=trace").unwrap();
        assert!(!filter.would_enable("glommio", &tracing::Level::INFO));
        assert!(filter.would_enable("iris::admin", &tracing::Level::INFO));
        assert!(filter.would_enable("iris::wal::writer", &tracing::Level::TRACE));
    }
}
