//! The metrics of a pair. A node that is no core of a pair shows none of them.

use super::{Cells, by_label, cells, each, histogram};
use crate::metrics::text::Text;
use crate::metrics::{Label, LinkRefusal, MirrorMetrics, MirrorMode, MirrorState};

const MS_PER_S: f64 = 1e3;

const COUNTERS: Cells<MirrorMetrics> = &[
    ("iris_mirror_failovers_total", "Times that this node went on alone.", |m| m.failovers.value()),
    ("iris_mirror_splits_total", "Times that both nodes had taken messages alone.", |m| {
        m.splits.value()
    }),
    (
        "iris_mirror_collapsed_total",
        "Messages that both had taken, and that are there once.",
        |m| m.collapsed.value(),
    ),
    ("iris_mirror_conflicts_total", "Of those, two different messages under one id.", |m| {
        m.conflicts.value()
    }),
    ("iris_mirror_links_total", "Links to the mirror that came up.", |m| m.links.value()),
    ("iris_mirror_refused_by_mirror_total", "Links that the mirror ended by name.", |m| {
        m.refused_by_peer.value()
    }),
    ("iris_mirror_shipped_bytes_total", "Bytes of records sent to the mirror.", |m| {
        m.shipped_bytes.value()
    }),
    ("iris_mirror_healed_bytes_total", "Of those, bytes read from the log for healing.", |m| {
        m.healed_bytes.value()
    }),
    ("iris_mirror_received_records_total", "Records of the mirror appended here.", |m| {
        m.received_records.value()
    }),
    ("iris_mirror_received_bytes_total", "Bytes of them.", |m| m.received_bytes.value()),
    ("iris_mirror_repeated_records_total", "Records of the mirror that were here already.", |m| {
        m.repeated_records.value()
    }),
    ("iris_mirror_fenced_records_total", "Records of fenced streams that were not taken.", |m| {
        m.fenced_records.value()
    }),
    ("iris_mirror_lost_records_total", "Records that no node has any more.", |m| {
        m.lost_records.value()
    }),
    ("iris_mirror_stamps_ahead_total", "Stamps of the mirror too far ahead to follow.", |m| {
        m.stamps_ahead.value()
    }),
    ("iris_mirror_stale_bytes_total", "Bytes of links that were down already.", |m| {
        m.stale_bytes.value()
    }),
];

const GAUGES: Cells<MirrorMetrics> = &[
    ("iris_mirror_linked", "1 while the mirror is linked.", |m| m.is_linked().into()),
    ("iris_mirror_state_id", "Grows at every change of mode.", |m| m.state_id.value()),
    ("iris_mirror_lag_records", "Records here that the mirror is not known to have.", |m| {
        m.lag_records.value()
    }),
    ("iris_mirror_lag_bytes", "Bytes of them, as far as they are in memory.", |m| {
        m.lag_bytes.value()
    }),
    ("iris_mirror_one_copy_messages", "Messages that this node alone is known to have.", |m| {
        m.copies_one.value()
    }),
    ("iris_mirror_fenced_streams", "Streams that differ on both nodes and are kept apart.", |m| {
        m.fenced_streams.value()
    }),
    ("iris_mirror_incomplete", "1 until the mirror was met in this life.", |m| {
        m.incomplete.value()
    }),
    ("iris_mirror_damaged", "1 while the log has damage that the mirror may mend.", |m| {
        m.damaged.value()
    }),
    ("iris_mirror_retired", "1 once the mirror was retired, until it comes back empty.", |m| {
        u64::from(m.retired.value() != 0)
    }),
];

/// Times, in milliseconds.
const TIMES: Cells<MirrorMetrics> = &[
    ("iris_mirror_lag_seconds", "How long the oldest of them has waited; 0 if not normal.", |m| {
        m.lag_ms.value()
    }),
    ("iris_mirror_last_failover_timestamp_seconds", "When it went on alone last; 0: never.", |m| {
        m.last_failover_unix_ms.value()
    }),
    ("iris_mirror_last_failover_seconds", "How long nothing was acknowledged before that.", |m| {
        m.last_failover_ms.value()
    }),
];

pub(super) fn render(text: &mut Text, mirrors: &[std::sync::Arc<MirrorMetrics>]) {
    if !mirrors.iter().any(|mirror| mirror.is_present()) {
        return;
    }
    cells(text, "partition", mirrors, COUNTERS, GAUGES);
    for (name, help, cell) in TIMES {
        let mut family = text.gauges(name, help);
        each("partition", mirrors, |labels, m| {
            family.sample(labels, cell(m) as f64 / MS_PER_S);
        });
    }
    let help = "How long nothing was acknowledged before it went on alone, each time.";
    histogram(text, "partition", mirrors, "iris_mirror_failover_seconds", help, 1e-3, |m| {
        m.failover_ms.snapshot()
    });
    let mut family = text.gauges("iris_mirror_state", "1 for the present state, 0 for others.");
    each("partition", mirrors, |labels, m| {
        for state in MirrorState::ALL {
            let labels = [labels[0], ("state", state.name())];
            family.sample(&labels, u64::from(m.state() == *state));
        }
    });
    let mut family = text.gauges("iris_mirror_mode", "1 for the rule that acknowledges.");
    each("partition", mirrors, |labels, m| {
        for mode in MirrorMode::ALL {
            let labels = [labels[0], ("mode", mode.name())];
            family.sample(&labels, u64::from(m.mode() == *mode));
        }
    });
    let help = "The last split: taken alone here and there, by both, and by both differently.";
    let mut family = text.gauges("iris_mirror_last_split_messages", help);
    each("partition", mirrors, |labels, m| {
        for (kind, messages) in [
            ("mine", m.last_split_mine.value()),
            ("theirs", m.last_split_theirs.value()),
            ("collapsed", m.last_split_collapsed()),
            ("conflicts", m.last_split_conflicts()),
        ] {
            family.sample(&[labels[0], ("kind", kind)], messages);
        }
    });
    let help = "Links to the mirror that this node ended, by reason.";
    let mut family = text.counters("iris_mirror_refused_total", help);
    by_label(&mut family, "reason", LinkRefusal::ALL, |reason| {
        mirrors.iter().map(|m| m.refused.at(reason).value()).sum()
    });
}
