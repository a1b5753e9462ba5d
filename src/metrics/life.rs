//! What is shown of a node's life as a whole: its configuration, and its end.

use iris_proto::drain::Plan;

use super::Gauge;
use crate::clock::unix_ms;

/// The drain, once there is one. Written by the main thread.
#[derive(Debug, Default)]
pub struct DrainMetrics {
    /// Connections when it began.
    pub connections: Gauge,
    /// Connections that are closed a second.
    pub rate_per_s: Gauge,
    /// When it began, Unix milliseconds; 0: the node does not drain.
    pub started_unix_ms: Gauge,
    /// By when all are closed.
    pub closed_unix_ms: Gauge,
    /// By when the node ends, whoever is left.
    pub end_unix_ms: Gauge,
}

impl DrainMetrics {
    /// A plan begins now.
    pub fn note(&self, plan: &Plan) {
        let now_ms = unix_ms();
        self.connections.set(plan.connections());
        self.rate_per_s.set(plan.rate_per_s());
        self.closed_unix_ms.set(now_ms + plan.closed_ms());
        self.end_unix_ms.set(now_ms + plan.limit_ms());
        if self.started_unix_ms.value() == 0 {
            self.started_unix_ms.set(now_ms);
        }
    }
}

/// What is in force of the configuration. Written by the control thread.
#[derive(Debug)]
pub struct ConfigMetrics {
    /// How often it was read with success, the start included.
    pub generation: Gauge,
    /// When it was read with success last, Unix milliseconds.
    pub loaded_unix_ms: Gauge,
    /// 1 unless the last attempt to read it failed.
    pub successful: Gauge,
}

impl ConfigMetrics {
    /// The configuration that the node starts with.
    pub fn at_start() -> Self {
        let of = |value| {
            let gauge = Gauge::default();
            gauge.set(value);
            gauge
        };
        Self { generation: of(1), loaded_unix_ms: of(unix_ms()), successful: of(1) }
    }

    /// It was read anew. Its number.
    pub fn note_loaded(&self) -> u64 {
        let generation = self.generation.value() + 1;
        self.generation.set(generation);
        self.loaded_unix_ms.set(unix_ms());
        self.successful.set(1);
        generation
    }

    /// It has problems, and the one before stays.
    pub fn note_failed(&self) {
        self.successful.set(0);
    }
}
