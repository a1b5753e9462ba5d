//! TLS of client connections. A node without it shows zeros.

use std::sync::Arc;

use super::by_label;
use crate::metrics::cell::Label;
use crate::metrics::text::Text;
use crate::metrics::{Gauge, ReactorMetrics, ReloadResult, TlsFailure, TlsHandshake, TlsMetrics};

pub(super) fn render(text: &mut Text, reactors: &[Arc<ReactorMetrics>], node: &TlsMetrics) {
    let sum = |gauge: fn(&ReactorMetrics) -> &Gauge| -> u64 {
        reactors.iter().map(|reactor| gauge(reactor).value()).sum()
    };
    let help = "Open connections of the TLS port, in a handshake or after it.";
    text.gauges("iris_tls_connections", help).sample(&[], sum(|m| &m.tls_connections));
    let help = "Handshakes that wait for their turn.";
    text.gauges("iris_tls_handshakes_waiting", help).sample(&[], sum(|m| &m.tls_waiting));
    let mut family = text.counters("iris_tls_handshakes_total", "Handshakes done, by kind.");
    by_label(&mut family, "kind", TlsHandshake::ALL, |kind| {
        reactors.iter().map(|m| m.tls_handshakes.at(kind).value()).sum()
    });
    let help = "Handshakes that came to nothing, by reason.";
    let mut family = text.counters("iris_tls_handshakes_failed_total", help);
    by_label(&mut family, "reason", TlsFailure::ALL, |reason| {
        reactors.iter().map(|m| m.tls_failures.at(reason).value()).sum()
    });
    let help = "When the first certificate runs out, Unix seconds; 0 without TLS.";
    text.gauges("iris_tls_certificate_expiry_timestamp_seconds", help)
        .sample(&[], node.certificate_expires_s.value());
    let help = "TLS files loaded again (SIGHUP), by result.";
    let mut family = text.counters("iris_tls_reloads_total", help);
    by_label(&mut family, "result", ReloadResult::ALL, |result| node.reloads.at(result).value());
}
