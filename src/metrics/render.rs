//! All metrics as Prometheus text. One table per kind of block: name, help, cell.

mod life;
mod mirror;
mod node;
mod tls;

use super::cell::{Label, Snapshot};
use super::text::Text;
use super::{
    CloseReason, DropReason, FrameType, GatewayMetrics, LimitHit, LinkEnd, PartitionMetrics,
    ReactorMetrics, Registry, RejectReason, SegmentState, WalMetrics,
};

const NS: f64 = 1e-9;

type Cells<B> = &'static [(&'static str, &'static str, fn(&B) -> u64)];

const REACTOR_COUNTERS: Cells<ReactorMetrics> = &[
    ("iris_connections_accepted_total", "Connections accepted.", |m| m.accepted.value()),
    ("iris_accept_errors_total", "Accepts that failed.", |m| m.accept_errors.value()),
    ("iris_connections_shed_total", "Connections not let in, and closed without a word.", |m| {
        m.shed.value()
    }),
    ("iris_limits_crowded_out_total", "Entries of limits forgotten early or without room.", |m| {
        m.limits_crowded_out.value()
    }),
    ("iris_drain_told_total", "Clients told to go and when to come back (DRAIN).", |m| {
        m.drains_told.value()
    }),
    ("iris_reactor_turns_total", "Turns of the loop.", |m| m.turns.value()),
    ("iris_received_bytes_total", "Bytes received from clients.", |m| m.recv_bytes.value()),
    ("iris_receives_total", "Receives that brought bytes.", |m| m.recvs.value()),
    ("iris_receives_without_buffer_total", "Receives that found every buffer in use.", |m| {
        m.recv_no_buffer.value()
    }),
    ("iris_sent_bytes_total", "Bytes sent to clients.", |m| m.sent_bytes.value()),
    ("iris_send_operations_total", "Send operations.", |m| m.sends.value()),
    ("iris_reads_paused_total", "Times a client that took no answers was left unread.", |m| {
        m.paused.value()
    }),
    (
        "iris_presence_conflated_total",
        "Changes of presence that newer ones replaced unsent.",
        |m| m.changes_replaced.value(),
    ),
    ("iris_shard_failovers_total", "Shards that lost their core and went to another.", |m| {
        m.failovers.value()
    }),
    ("iris_shard_moves_total", "Shards that went to another core in order.", |m| m.moves.value()),
    ("iris_sends_repeated_total", "Sends repeated to another core.", |m| m.resent.value()),
    ("iris_logins_repeated_total", "Logins repeated at another core.", |m| m.relogins.value()),
];

const GATEWAY_COUNTERS: Cells<GatewayMetrics> = &[
    ("iris_link_accept_errors_total", "Accepts on the link port that failed.", |m| {
        m.accept_errors.value()
    }),
    ("iris_link_received_bytes_total", "Bytes received from other nodes, encrypted.", |m| {
        m.received_bytes.value()
    }),
    ("iris_link_sent_bytes_total", "Bytes sent to other nodes, encrypted.", |m| {
        m.sent_bytes.value()
    }),
    ("iris_link_received_batches_total", "Batches received from other nodes.", |m| {
        m.received_batches.value()
    }),
    ("iris_link_received_frames_total", "Frames received from other nodes.", |m| {
        m.received_frames.value()
    }),
    ("iris_link_sent_batches_total", "Batches sent to other nodes.", |m| m.sent_batches.value()),
    ("iris_link_ejects_total", "Wishes of other nodes to end a user's sessions.", |m| {
        m.ejects.value()
    }),
    ("iris_link_ejects_dropped_total", "Of these, those that a reactor had no room for.", |m| {
        m.ejects_dropped.value()
    }),
    ("iris_gateway_turns_total", "Turns of the loop.", |m| m.turns.value()),
];

const REACTOR_GAUGES: Cells<ReactorMetrics> = &[
    ("iris_connections", "Connections open now.", |m| m.connections.value()),
    ("iris_connections_logged_in", "Open connections that have logged in.", |m| {
        m.logged_in.value()
    }),
    ("iris_logins_pending", "Connections that have not logged in.", |m| m.pending_logins.value()),
    ("iris_limits_table_bytes", "Memory of the tables of limits.", |m| {
        m.limits_table_bytes.value()
    }),
    (
        "iris_limits_revision",
        "Generation of the configuration whose limits the reactor has.",
        |m| m.limits_revision.value(),
    ),
    ("iris_client_backlog_bytes", "Bytes that wait for clients.", |m| m.out_bytes.value()),
    ("iris_reactor_link_backlog_bytes", "Bytes that wait for partitions.", |m| {
        m.link_backlog_bytes.value()
    }),
    ("iris_sends_unanswered", "Sends that no core of the cluster has answered yet.", |m| {
        m.unanswered.value()
    }),
    ("iris_shards_unroutable", "Shards that no core serves.", |m| m.unroutable_shards.value()),
    ("iris_rings", "io_uring instances.", |m| m.rings.value()),
    ("iris_ring_slots_used", "Slots of descriptor tables in use.", |m| m.slots_used.value()),
    ("iris_ring_slots_limit", "Slots of descriptor tables.", |m| m.slots_limit.value()),
];

const PARTITION_COUNTERS: Cells<PartitionMetrics> = &[
    ("iris_sends_total", "Sends accepted as new.", |m| m.sends.value()),
    ("iris_duplicates_total", "Sends that were already in.", |m| m.duplicates.value()),
    ("iris_delivered_total", "Messages handed to recipients, repeats included.", |m| {
        m.delivered.value()
    }),
    ("iris_acked_total", "Messages acknowledged by recipients.", |m| m.acked.value()),
    ("iris_receipts_total", "Receipts sent to senders.", |m| m.receipts.value()),
    ("iris_logins_total", "Logins.", |m| m.logins.value()),
    ("iris_unreadable_deliveries_total", "Deliveries whose record could not be read.", |m| {
        m.unreadable.value()
    }),
    ("iris_disk_reads_total", "Deliveries read from disk instead of memory.", |m| {
        m.disk_reads.value()
    }),
    ("iris_partition_turns_total", "Turns of the loop.", |m| m.turns.value()),
    ("iris_stale_inputs_total", "Inputs of connections that a newer login replaced.", |m| {
        m.stale_inputs.value()
    }),
    ("iris_acks_put_off_total", "ACKs put off because the log had no room.", |m| {
        m.acks_put_off.value()
    }),
    ("iris_receipts_dropped_total", "Receipts lost for lack of room.", |m| {
        m.receipts_dropped.value()
    }),
    ("iris_watches_refused_total", "Presence watches refused at a bound.", |m| {
        m.watches_refused.value()
    }),
    ("iris_clock_steps_back_total", "Steps of the clock back beyond the dedup window.", |m| {
        m.clock_steps_back.value()
    }),
];

const PARTITION_GAUGES: Cells<PartitionMetrics> = &[
    ("iris_inbox_messages", "Messages that wait in inboxes.", |m| m.inbox_messages.value()),
    ("iris_inbox_index_bytes", "Memory of the inboxes' index.", |m| m.inbox_bytes.value()),
    ("iris_inbox_bytes", "Bytes of messages that wait, as limits of inboxes count them.", |m| {
        m.inbox_content_bytes.value()
    }),
    ("iris_inbox_highest_messages", "Messages in the fullest inbox, at looks every 20 s.", |m| {
        m.fullest_messages.value()
    }),
    ("iris_inbox_highest_bytes", "Bytes in the inbox that holds most, likewise.", |m| {
        m.fullest_bytes.value()
    }),
    ("iris_users_online", "Users online.", |m| m.users_online.value()),
    ("iris_users", "Users online, watched or with messages.", |m| m.users.value()),
    ("iris_dedup_ids", "Message ids remembered.", |m| m.dedup_ids.value()),
    (
        "iris_dedup_room_used",
        "Room taken of that for message ids: 4 to 512 by a sender, and 8 more, in each shard.",
        |m| m.dedup_room.value(),
    ),
    ("iris_dedup_senders", "Senders whose ids are remembered.", |m| m.senders.value()),
    ("iris_presence_watches", "Presence watches.", |m| m.watches.value()),
    ("iris_partition_link_backlog_bytes", "Bytes that wait for reactors.", |m| {
        m.link_backlog_bytes.value()
    }),
    ("iris_recovered_records", "Records read from the log at start.", |m| {
        m.recovered_records.value()
    }),
];

const WAL_COUNTERS: Cells<WalMetrics> = &[
    ("iris_wal_appended_records_total", "Records appended to the log.", |m| {
        m.appended_records.value()
    }),
    ("iris_wal_appended_bytes_total", "Bytes of records appended.", |m| m.appended_bytes.value()),
    ("iris_wal_batches_total", "Batches synced.", |m| m.batches.value()),
    ("iris_wal_written_bytes_total", "Bytes written, padding and footers included.", |m| {
        m.written_bytes.value()
    }),
    ("iris_wal_reclaimed_segments_total", "Segments freed for reuse.", |m| {
        m.reclaimed_segments.value()
    }),
    ("iris_wal_rewritten_bytes_total", "Bytes copied out of sparse segments.", |m| {
        m.rewritten_bytes.value()
    }),
];

const WAL_GAUGES: Cells<WalMetrics> = &[
    ("iris_wal_live_bytes", "Bytes of records that are still needed.", |m| m.live_bytes.value()),
    ("iris_wal_disk_free_bytes", "Free bytes on the log's disk.", |m| m.disk_free_bytes.value()),
    ("iris_wal_low_disk", "1 while sends are refused for lack of disk.", |m| m.low_disk.value()),
    ("iris_wal_unreadable_ranges", "Ranges of the log that could not be read.", |m| {
        m.unreadable.value()
    }),
];

impl Registry {
    /// Everything, as Prometheus text.
    pub fn render(&self) -> String {
        let mut text = Text::default();
        let revision = crate::REVISION;
        let labels = [("version", crate::VERSION), ("revision", revision)];
        text.gauges("iris_build_info", "Version of the server.").sample(&labels, 1);
        node::render(&mut text, self);
        life::render(&mut text, &self.0.config, &self.0.drain);
        self.render_reactors(&mut text);
        self.render_partitions(&mut text);
        self.render_wals(&mut text);
        mirror::render(&mut text, &self.0.mirrors);
        tls::render(&mut text, &self.0.reactors, &self.0.tls);
        node::render_cluster(&mut text, self);
        self.render_gateway(&mut text);
        text.finish()
    }

    fn render_gateway(&self, text: &mut Text) {
        let gateway = &self.0.gateway;
        text.gauges("iris_links", "Links to other nodes.").sample(&[], gateway.links.value());
        for (name, help, read) in GATEWAY_COUNTERS {
            text.counters(name, help).sample(&[], read(gateway));
        }
        let name = "iris_gateway_busy_seconds_total";
        let mut family = text.counters(name, "Time spent working, not waiting.");
        family.sample(&[], gateway.busy_ns.value() as f64 * NS);
        let help = "Links that ended or did not come about, by reason.";
        let mut family = text.counters("iris_links_ended_total", help);
        by_label(&mut family, "reason", LinkEnd::ALL, |reason| gateway.ended.at(reason).value());
    }

    fn render_reactors(&self, text: &mut Text) {
        let reactors = &self.0.reactors;
        cells(text, "reactor", reactors, REACTOR_COUNTERS, REACTOR_GAUGES);
        let name = "iris_reactor_busy_seconds_total";
        let mut family = text.counters(name, "Time spent working, not waiting.");
        each("reactor", reactors, |labels, m| {
            family.sample(labels, m.busy_ns.value() as f64 * NS);
        });
        let mut family = text.counters("iris_connections_closed_total", "Ended, by reason.");
        by_label(&mut family, "reason", CloseReason::ALL, |reason| self.closed(reason));
        let help = "Connections, logins and sends refused by a limit, by its key.";
        let mut family = text.counters("iris_limited_total", help);
        by_label(&mut family, "limit", LimitHit::ALL, |limit| self.limited(limit));
        let mut family = text.counters("iris_frames_received_total", "Frames, by type.");
        by_label(&mut family, "type", FrameType::ALL, |kind| {
            reactors.iter().map(|m| m.frames_in.at(kind).value()).sum()
        });
        let mut family = text.counters("iris_frames_sent_total", "Frames, by type.");
        by_label(&mut family, "type", FrameType::ALL, |kind| {
            reactors.iter().map(|m| m.frames_out.at(kind).value()).sum()
        });
        let mut family = text.counters("iris_rejected_total", "Sends refused, by reason.");
        by_label(&mut family, "reason", RejectReason::ALL, |reason| self.rejected(reason));
        histogram(
            text,
            "reactor",
            reactors,
            "iris_frames_per_send",
            "Frames per send.",
            1.0,
            |m| m.frames_per_send.snapshot(),
        );
        let name = "iris_reactor_link_batch_frames";
        histogram(text, "reactor", reactors, name, "Frames per batch to a partition.", 1.0, |m| {
            m.link_batch.snapshot()
        });
    }

    fn render_partitions(&self, text: &mut Text) {
        let partitions = &self.0.partitions;
        cells(text, "partition", partitions, PARTITION_COUNTERS, PARTITION_GAUGES);
        let name = "iris_partition_busy_seconds_total";
        let mut family = text.counters(name, "Time spent working, not waiting.");
        each("partition", partitions, |labels, m| {
            family.sample(labels, m.busy_ns.value() as f64 * NS);
        });
        let help = "Messages that a policy of inboxes dropped unread, by reason.";
        let mut family = text.counters("iris_dropped_total", help);
        by_label(&mut family, "reason", DropReason::ALL, |reason| {
            partitions.iter().map(|m| m.dropped[reason.index()].value()).sum()
        });
        let mut family = text.gauges("iris_recovery_seconds", "Time the recovery took.");
        each("partition", partitions, |labels, m| {
            family.sample(labels, m.recovery_ns.value() as f64 * NS);
        });
        let name = "iris_partition_link_batch_frames";
        histogram(
            text,
            "partition",
            partitions,
            name,
            "Frames per batch to a reactor.",
            1.0,
            |m| m.link_batch.snapshot(),
        );
    }

    fn render_wals(&self, text: &mut Text) {
        let wals = &self.0.wals;
        cells(text, "partition", wals, WAL_COUNTERS, WAL_GAUGES);
        let mut family = text.gauges("iris_wal_segments", "Segment files, by use.");
        each("partition", wals, |labels, m| {
            for state in SegmentState::ALL {
                let labels = [labels[0], ("state", state.name())];
                family.sample(&labels, m.segments_in(*state).value());
            }
        });
        let name = "iris_wal_batch_records";
        histogram(text, "partition", wals, name, "Records per synced batch.", 1.0, |m| {
            m.batch_records.snapshot()
        });
        let name = "iris_wal_sync_seconds";
        let help = "From the start of a batch's write to the end of its sync.";
        histogram(text, "partition", wals, name, help, NS, |m| m.sync_ns.snapshot());
    }
}

/// Calls `f` with the label and block of every thread.
fn each<B>(label: &str, blocks: &[B], mut f: impl FnMut(&[(&str, &str)], &B)) {
    for (i, block) in blocks.iter().enumerate() {
        f(&[(label, &i.to_string())], block);
    }
}

fn cells<B>(
    text: &mut Text,
    label: &str,
    blocks: &[std::sync::Arc<B>],
    counters: Cells<B>,
    gauges: Cells<B>,
) {
    for (name, help, cell) in counters {
        let mut family = text.counters(name, help);
        each(label, blocks, |labels, block| {
            family.sample(labels, cell(block));
        });
    }
    for (name, help, cell) in gauges {
        let mut family = text.gauges(name, help);
        each(label, blocks, |labels, block| {
            family.sample(labels, cell(block));
        });
    }
}

/// A sample per variant of a label. All are written, so that a rate exists from the start.
fn by_label<L: Label>(
    family: &mut super::text::Family<'_>,
    label: &str,
    variants: &[L],
    value: impl Fn(L) -> u64,
) {
    for variant in variants {
        family.sample(&[(label, variant.name())], value(*variant));
    }
}

fn histogram<B>(
    text: &mut Text,
    label: &str,
    blocks: &[B],
    name: &'static str,
    help: &str,
    unit: f64,
    snapshot: impl Fn(&B) -> Snapshot,
) {
    let mut family = text.histograms(name, help);
    each(label, blocks, |labels, block| {
        family.histogram(labels, &snapshot(block), unit);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_written_once_and_every_sample_parses() {
        let registry = Registry::new(2, 3, 1000);
        registry.reactor(1).accepted.add(7);
        registry.reactor(0).closed.add(CloseReason::Garbage, 2);
        registry.reactor(0).rejected.add(RejectReason::LowDisk, 1);
        registry.partition(2).rejected.add(RejectReason::LowDisk, 4);
        registry.wal(2).sync_ns.record(40_000);
        assert!(!registry.render().contains("iris_mirror"), "a node alone has no mirror");
        registry.mirror(1).set(&crate::metrics::mirror::tests::alone(), &Default::default());
        let text = registry.render();
        let mut families = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split_whitespace().next().unwrap();
                assert!(name.starts_with("iris_"), "{name}");
                assert!(!families.contains(&name), "{name} stands twice");
                families.push(name);
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().unwrap() >= 0.0, "{line}");
                assert!(name.starts_with(families.last().unwrap()), "{line}");
            }
        }
        for line in [
            "iris_connections_accepted_total{reactor=\"1\"} 7",
            "iris_connections_closed_total{reason=\"garbage\"} 2",
            "iris_rejected_total{reason=\"low_disk\"} 5",
            "iris_wal_sync_seconds_count{partition=\"2\"} 1",
            "iris_connections_limit 1000",
            "iris_mirror_state{partition=\"1\",state=\"solo\"} 1",
            "iris_mirror_state{partition=\"1\",state=\"normal\"} 0",
            "iris_mirror_mode{partition=\"1\",mode=\"solo\"} 1",
            "iris_mirror_lag_records{partition=\"1\"} 5",
            "iris_mirror_one_copy_messages{partition=\"1\"} 4",
            "iris_mirror_failovers_total{partition=\"1\"} 1",
            "iris_mirror_last_failover_timestamp_seconds{partition=\"1\"} 1700000000",
            "iris_mirror_last_failover_seconds{partition=\"1\"} 0.012",
            "iris_mirror_failover_seconds_bucket{partition=\"1\",le=\"0.02\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
    }

    #[test]
    fn an_edge_shows_its_links_and_routes_and_a_core_that_is_an_edge_none_to_itself() {
        let registry = Registry::new(1, 1, 10);
        assert!(!registry.render().contains("iris_core_"), "a node alone has no cores");
        registry.bounds().set_cores(2, &[1, 2]);
        registry.bounds().price_per_hour.set(0.25);
        registry.reactor(0).shards_at[1].set(16);
        registry.gateway().cores[0].note_up(iris_proto::peer::Purpose::Clients);
        let text = registry.render();
        for line in [
            "iris_core_link_up{core=\"1\",purpose=\"clients\"} 1",
            "iris_core_link_up{core=\"1\",purpose=\"mirror\"} 0",
            "iris_core_shards{core=\"1\"} 0",
            "iris_core_shards{core=\"2\"} 16",
            "iris_edges_linked 0",
            "iris_cost_dollars_per_hour 0.25",
            "iris_cost_messages_per_dollar 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
        assert!(!text.contains("iris_core_link_up{core=\"2\""), "no link to itself");
    }

    #[test]
    fn memory_per_connection_counts_from_the_empty_server() {
        let registry = Registry::new(1, 1, 10);
        registry.mark_baseline();
        assert!(registry.render().contains("\niris_memory_bytes_per_connection 0\n"));
        let ballast = vec![1u8; 64 << 20];
        registry.reactor(0).connections.set(64);
        let text = registry.render();
        assert_eq!(ballast.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 64 << 20);
        let value = text.lines().find_map(|l| l.strip_prefix("iris_memory_bytes_per_connection "));
        let bytes: u64 = value.unwrap().parse().unwrap();
        assert!((1 << 19..1 << 22).contains(&bytes), "{bytes}");
    }
}
