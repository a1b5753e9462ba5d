//! The cost score: what the node does for the CPU time, the memory and the money that it takes, over the last minute.
//!
//! Whoever looks once a second feeds a [`Window`]; what comes out is kept in [`CostMetrics`], so that all who ask, and
//! however often, are told the same.

use std::collections::VecDeque;

use super::cell::Real;

/// How far back the window goes.
const WINDOW_MS: u64 = 60_000;
/// Looks that it holds, at most, however often somebody looks.
const SAMPLES_MAX: usize = 128;
/// Bytes of the gigabyte of the score.
const GIGABYTE: f64 = 1e9;

/// One look at the node.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// When, monotonic milliseconds.
    pub at_ms: u64,
    /// CPU time of the process so far, milliseconds.
    pub cpu_ms: u64,
    /// Messages taken in and handed out so far.
    pub messages: u64,
    /// Connections open now.
    pub connections: u64,
    /// Resident memory now, bytes.
    pub resident_bytes: u64,
}

/// The score.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Messages for each second of CPU time.
    pub messages_per_core_second: f64,
    /// Seconds of connections held for each second of CPU time.
    pub connections_per_core_second: f64,
    /// Messages a second for each gigabyte of resident memory.
    pub messages_per_second_per_gigabyte: f64,
    /// Connections for each gigabyte of resident memory.
    pub connections_per_gigabyte: f64,
    /// Messages a second.
    pub messages_per_second: f64,
    /// Connections, on average.
    pub connections: f64,
    /// CPUs in use, on average.
    pub cores: f64,
}

impl Cost {
    /// Messages for a dollar, at this rate.
    pub fn messages_per_dollar(&self, price_per_hour: f64) -> f64 {
        share(self.messages_per_second * 3600.0, price_per_hour)
    }

    /// Seconds of connections held for a dollar.
    pub fn connection_seconds_per_dollar(&self, price_per_hour: f64) -> f64 {
        share(self.connections * 3600.0, price_per_hour)
    }
}

/// The looks of the last minute.
#[derive(Debug, Default)]
pub struct Window(VecDeque<Sample>);

impl Window {
    /// Takes a look in, and says what the window shows: nothing before the second look.
    pub fn add(&mut self, sample: Sample) -> Cost {
        let is_old = |first: &Sample| first.at_ms + WINDOW_MS < sample.at_ms;
        while self.0.len() >= SAMPLES_MAX || self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
        self.0.push_back(sample);
        let first = self.0[0];
        let since = |of: fn(&Sample) -> u64| of(&sample).saturating_sub(of(&first)) as f64;
        let wall_s = since(|s| s.at_ms) / 1e3;
        let cpu_s = since(|s| s.cpu_ms) / 1e3;
        if wall_s <= 0.0 {
            return Cost::default();
        }
        let of_all: u64 = self.0.iter().map(|sample| sample.connections).sum();
        let connections = of_all as f64 / self.0.len() as f64;
        let messages_per_second = since(|s| s.messages) / wall_s;
        let gigabytes = sample.resident_bytes as f64 / GIGABYTE;
        Cost {
            messages_per_core_second: share(since(|s| s.messages), cpu_s),
            connections_per_core_second: share(connections * wall_s, cpu_s),
            messages_per_second_per_gigabyte: share(messages_per_second, gigabytes),
            connections_per_gigabyte: share(connections, gigabytes),
            messages_per_second,
            connections,
            cores: cpu_s / wall_s,
        }
    }
}

/// Of nothing there is no share.
fn share(of: f64, parts: f64) -> f64 {
    if parts > 0.0 { of / parts } else { 0.0 }
}

/// The score as it was last reckoned. The control thread writes it.
#[derive(Debug, Default)]
pub struct CostMetrics {
    messages_per_core_second: Real,
    connections_per_core_second: Real,
    messages_per_second_per_gigabyte: Real,
    connections_per_gigabyte: Real,
    messages_per_second: Real,
    connections: Real,
    cores: Real,
}

impl CostMetrics {
    /// Keeps a score.
    pub fn set(&self, cost: &Cost) {
        self.messages_per_core_second.set(cost.messages_per_core_second);
        self.connections_per_core_second.set(cost.connections_per_core_second);
        self.messages_per_second_per_gigabyte.set(cost.messages_per_second_per_gigabyte);
        self.connections_per_gigabyte.set(cost.connections_per_gigabyte);
        self.messages_per_second.set(cost.messages_per_second);
        self.connections.set(cost.connections);
        self.cores.set(cost.cores);
    }

    /// The score that is kept.
    pub fn get(&self) -> Cost {
        Cost {
            messages_per_core_second: self.messages_per_core_second.value(),
            connections_per_core_second: self.connections_per_core_second.value(),
            messages_per_second_per_gigabyte: self.messages_per_second_per_gigabyte.value(),
            connections_per_gigabyte: self.connections_per_gigabyte.value(),
            messages_per_second: self.messages_per_second.value(),
            connections: self.connections.value(),
            cores: self.cores.value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at: u64, messages: u64) -> Sample {
        Sample {
            at_ms: at * 1000,
            cpu_ms: at * 500,
            messages,
            connections: 1000,
            resident_bytes: 500_000_000,
        }
    }

    #[test]
    fn the_score_is_what_was_done_for_what_was_taken() {
        let mut window = Window::default();
        assert_eq!(window.add(second(0, 7)), Cost::default(), "one look shows no rate");
        let cost = window.add(second(10, 7 + 100_000));
        assert_eq!(cost.messages_per_core_second, 20_000.0);
        assert_eq!(cost.connections_per_core_second, 2000.0);
        assert_eq!(cost.messages_per_second_per_gigabyte, 20_000.0);
        assert_eq!((cost.connections_per_gigabyte, cost.cores), (2000.0, 0.5));
        assert_eq!(cost.messages_per_dollar(0.5), 72_000_000.0);
        assert_eq!(cost.connection_seconds_per_dollar(0.5), 7_200_000.0);
        assert_eq!(cost.messages_per_dollar(0.0), 0.0, "no price, no score");
    }

    #[test]
    fn what_is_older_than_a_minute_does_not_count_and_looks_are_bounded() {
        let mut window = Window::default();
        window.add(second(0, 0));
        window.add(second(10, 1_000_000));
        let cost = window.add(second(70, 1_000_060));
        assert_eq!(cost.messages_per_second, 1.0);
        for at_ms in 0..1000 {
            window.add(Sample { at_ms: 70_000 + at_ms, ..second(70, 0) });
        }
        assert_eq!(window.0.len(), SAMPLES_MAX);
    }

    #[test]
    fn a_node_that_does_nothing_has_no_score_and_no_division_by_nothing() {
        let mut window = Window::default();
        let idle = |at_ms| Sample { at_ms, ..Sample::default() };
        window.add(idle(0));
        assert_eq!(window.add(idle(1000)), Cost::default());
    }
}
