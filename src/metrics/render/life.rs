//! The configuration in force, and the drain.

use crate::metrics::text::Text;
use crate::metrics::{ConfigMetrics, DrainMetrics};

const MS: f64 = 1e-3;

pub(super) fn render(text: &mut Text, config: &ConfigMetrics, drain: &DrainMetrics) {
    let mut gauge = |name, help, value: f64| {
        text.gauges(name, help).sample(&[], value);
    };
    gauge(
        "iris_config_generation",
        "How often the configuration was read with success, the start included.",
        config.generation.value() as f64,
    );
    gauge(
        "iris_config_last_reload_timestamp_seconds",
        "When the configuration was read with success last, Unix seconds.",
        config.loaded_unix_ms.value() as f64 * MS,
    );
    gauge(
        "iris_config_last_reload_successful",
        "0 if the last attempt to read the configuration anew failed, else 1.",
        config.successful.value() as f64,
    );
    gauge(
        "iris_drain_connections",
        "Connections open when the drain began; 0 before.",
        drain.connections.value() as f64,
    );
    gauge(
        "iris_drain_started_timestamp_seconds",
        "When the drain began, Unix seconds; 0: the node does not drain.",
        drain.started_unix_ms.value() as f64 * MS,
    );
    gauge(
        "iris_drain_end_timestamp_seconds",
        "By when a draining node ends, whoever is left, Unix seconds.",
        drain.end_unix_ms.value() as f64 * MS,
    );
}
