//! One block of cells per thread. Each block has its own cache lines; only its thread writes it.

use iris_proto::peer::Purpose;

use super::cell::{Counter, CounterBy, Gauge, Histogram, Label};
use super::labels::{
    CloseReason, DropReason, FrameType, LimitHit, LinkEnd, RejectReason, ReloadResult,
    SegmentState, TlsFailure, TlsHandshake,
};
use crate::config::CORES_MAX;

/// Counts things per batch: 1 to 4096, doubling.
pub type BatchHistogram = Histogram<1, 13>;
/// Nanoseconds from 16 us to 1.05 s, doubling.
pub type LatencyHistogram = Histogram<16_000, 17>;

/// What one reactor counts.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct ReactorMetrics {
    /// Connections that are open now.
    pub connections: Gauge,
    /// Of these, those that have logged in.
    pub logged_in: Gauge,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections ended, by reason.
    pub closed: CounterBy<CloseReason, { CloseReason::COUNT }>,
    /// Accepts that failed (no slot, no memory).
    pub accept_errors: Counter,
    /// Nanoseconds spent working, not waiting.
    pub busy_ns: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Bytes received.
    pub recv_bytes: Counter,
    /// Receives that brought bytes.
    pub recvs: Counter,
    /// Receives that found every buffer in use.
    pub recv_no_buffer: Counter,
    /// Bytes sent.
    pub sent_bytes: Counter,
    /// Send operations.
    pub sends: Counter,
    /// Bytes that wait for clients.
    pub out_bytes: Gauge,
    /// Times that a client was left unread because it did not take its answers.
    pub paused: Counter,
    /// Changes of presence that a newer one replaced before they were sent.
    pub changes_replaced: Counter,
    /// Frames received, by type.
    pub frames_in: CounterBy<FrameType, { FrameType::COUNT }>,
    /// Frames sent, by type.
    pub frames_out: CounterBy<FrameType, { FrameType::COUNT }>,
    /// Frames per send operation.
    pub frames_per_send: BatchHistogram,
    /// Frames per batch to a partition.
    pub link_batch: BatchHistogram,
    /// Bytes that wait for partitions.
    pub link_backlog_bytes: Gauge,
    /// Sends refused before they reached a partition, by reason.
    pub rejected: CounterBy<RejectReason, { RejectReason::COUNT }>,
    /// Connections, logins and SENDs refused by a limit, by limit.
    pub limited: CounterBy<LimitHit, { LimitHit::COUNT }>,
    /// Connections that were not let in and closed without a word.
    pub shed: Counter,
    /// Connections that have not logged in.
    pub pending_logins: Gauge,
    /// Entries of the tables of limits that were forgotten early or found no room.
    pub limits_crowded_out: Counter,
    /// Memory of the tables of limits.
    pub limits_table_bytes: Gauge,
    /// Generation of the limits in force: 1 those of the start, one more with each reload.
    pub limits_revision: Gauge,
    /// Clients told to go and when to come back.
    pub drains_told: Counter,
    /// Shards that lost their core and went to another one at once.
    pub failovers: Counter,
    /// Shards that moved to another core in order.
    pub moves: Counter,
    /// SENDs that were sent again to another core.
    pub resent: Counter,
    /// Logins repeated at another core.
    pub relogins: Counter,
    /// SENDs that no core has answered yet.
    pub unanswered: Gauge,
    /// Shards that no core serves.
    pub unroutable_shards: Gauge,
    /// Shards whose traffic goes to each core, in the order of `cluster.cores`.
    pub shards_at: [Gauge; CORES_MAX],
    /// io_uring instances.
    pub rings: Gauge,
    /// Descriptor table slots in use.
    pub slots_used: Gauge,
    /// Descriptor table slots there are.
    pub slots_limit: Gauge,
    /// Open connections of the TLS port, those in a handshake among them.
    pub tls_connections: Gauge,
    /// Handshakes done, by kind.
    pub tls_handshakes: CounterBy<TlsHandshake, { TlsHandshake::COUNT }>,
    /// Handshakes that came to nothing, by reason.
    pub tls_failures: CounterBy<TlsFailure, { TlsFailure::COUNT }>,
    /// Handshakes that wait for their turn.
    pub tls_waiting: Gauge,
}

/// What the node counts of TLS. Its writer is the thread that loads the files.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct TlsMetrics {
    /// When the first certificate runs out, Unix seconds; 0: there is no TLS.
    pub certificate_expires_s: Gauge,
    /// Files loaded again, by result.
    pub reloads: CounterBy<ReloadResult, { ReloadResult::COUNT }>,
}

/// What one partition counts.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct PartitionMetrics {
    /// Sends accepted as new: one per message and shard.
    pub sends: Counter,
    /// Sends that were already in.
    pub duplicates: Counter,
    /// Sends refused, by reason.
    pub rejected: CounterBy<RejectReason, { RejectReason::COUNT }>,
    /// Messages handed to recipients, repeats included.
    pub delivered: Counter,
    /// Messages acknowledged by recipients.
    pub acked: Counter,
    /// Messages dropped by a policy of inboxes, by reason.
    pub dropped: [Counter; DropReason::COUNT],
    /// Receipts sent to senders.
    pub receipts: Counter,
    /// Logins.
    pub logins: Counter,
    /// Messages that wait in inboxes.
    pub inbox_messages: Gauge,
    /// Bytes of the inboxes' index.
    pub inbox_bytes: Gauge,
    /// Bytes of the messages in inboxes, as limits count them.
    pub inbox_content_bytes: Gauge,
    /// The most messages in one inbox.
    pub fullest_messages: Gauge,
    /// The most bytes in one inbox.
    pub fullest_bytes: Gauge,
    /// Users online.
    pub users_online: Gauge,
    /// Users known: online, watched or with messages.
    pub users: Gauge,
    /// Message ids remembered.
    pub dedup_ids: Gauge,
    /// Room that they and their senders take, in ids.
    pub dedup_room: Gauge,
    /// Senders whose ids are remembered.
    pub senders: Gauge,
    /// Presence watches.
    pub watches: Gauge,
    /// Deliveries whose record could not be read; the message stays.
    pub unreadable: Counter,
    /// Deliveries read from disk instead of memory.
    pub disk_reads: Counter,
    /// Nanoseconds spent working, not waiting.
    pub busy_ns: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Frames per batch to a reactor.
    pub link_batch: BatchHistogram,
    /// Bytes that wait for reactors.
    pub link_backlog_bytes: Gauge,
    /// Records read at start.
    pub recovered_records: Gauge,
    /// Inputs that named a connection which is not the user's current one.
    pub stale_inputs: Counter,
    /// ACKs put off because the log refused the TOMB.
    pub acks_put_off: Counter,
    /// Receipts lost because there was no room for them.
    pub receipts_dropped: Counter,
    /// Watches refused because a bound was reached.
    pub watches_refused: Counter,
    /// Times the clock stepped back by more than the dedup window.
    pub clock_steps_back: Counter,
    /// Nanoseconds the recovery took.
    pub recovery_ns: Gauge,
}

/// What one log writer counts. The writer's thread writes the counters of batches and syncs; the partition owns
/// appends and segments. Each cell has one writer all the same.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct WalMetrics {
    /// Records appended.
    pub appended_records: Counter,
    /// Bytes of records appended.
    pub appended_bytes: Counter,
    /// Batches synced.
    pub batches: Counter,
    /// Bytes written, padding and footers included.
    pub written_bytes: Counter,
    /// Records per batch.
    pub batch_records: BatchHistogram,
    /// Nanoseconds from the start of a batch's write to the end of its sync.
    pub sync_ns: LatencyHistogram,
    /// Segment files, by use.
    pub segments: [Gauge; SegmentState::COUNT],
    /// Bytes of records that are still needed.
    pub live_bytes: Gauge,
    /// Segments freed for reuse.
    pub reclaimed_segments: Counter,
    /// Bytes of records copied out of sparse segments.
    pub rewritten_bytes: Counter,
    /// Free bytes on the disk at the last look.
    pub disk_free_bytes: Gauge,
    /// Whether sends are refused for lack of disk: 0 or 1.
    pub low_disk: Gauge,
    /// Ranges of the log that could not be read at start.
    pub unreadable: Gauge,
}

impl WalMetrics {
    /// The gauge of segments in that state.
    pub fn segments_in(&self, state: SegmentState) -> &Gauge {
        &self.segments[state.index()]
    }
}

/// What the gateway counts: links to other nodes.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct GatewayMetrics {
    /// Links that are up.
    pub links: Gauge,
    /// Links that ended or did not come about, by reason.
    pub ended: CounterBy<LinkEnd, { LinkEnd::COUNT }>,
    /// Accepts that failed.
    pub accept_errors: Counter,
    /// Bytes received, encrypted.
    pub received_bytes: Counter,
    /// Bytes sent, encrypted.
    pub sent_bytes: Counter,
    /// Batches received.
    pub received_batches: Counter,
    /// Frames in them.
    pub received_frames: Counter,
    /// Batches sent.
    pub sent_batches: Counter,
    /// Wishes of other nodes to end a user's sessions.
    pub ejects: Counter,
    /// Of these, those that a reactor had no room for.
    pub ejects_dropped: Counter,
    /// Nanoseconds spent working, not waiting.
    pub busy_ns: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Links to the cores of the cluster, in the order of `cluster.cores`.
    pub cores: [CoreLinks; CORES_MAX],
    /// Links of edges to this core.
    pub edges: EdgeLinks,
}

/// Edges of a core that are shown, at most; further ones are counted among the links alone.
const EDGES_SHOWN: usize = 64;

/// The edges that are linked to this core, by number; 0 is a free place.
#[derive(Debug)]
pub struct EdgeLinks([Gauge; EDGES_SHOWN]);

impl Default for EdgeLinks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Gauge::default()))
    }
}

impl EdgeLinks {
    /// The link of that edge is up. The gateway alone says so.
    pub fn note_up(&self, node: u32) {
        if let Some(free) = self.0.iter().find(|place| place.value() == 0) {
            free.set(node.into());
        }
    }

    /// The link of that edge ended. The gateway alone says so.
    pub fn note_end(&self, node: u32) {
        if let Some(place) = self.0.iter().find(|place| place.value() == u64::from(node)) {
            place.set(0);
        }
    }

    /// The edges that are linked, in order of their numbers.
    pub fn nodes(&self) -> Vec<u64> {
        let mut nodes: Vec<u64> =
            self.0.iter().map(Gauge::value).filter(|node| *node != 0).collect();
        nodes.sort_unstable();
        nodes
    }
}

/// Partitions of another core whose state is shown, at most.
const PARTITIONS_SHOWN: usize = 256;

/// What the gateway knows of a core: the link of our clients to it, and the one that mirrors.
#[derive(Debug, Default)]
pub struct CoreLinks {
    clients: CoreLink,
    mirror: CoreLink,
    /// A bit for each partition that serves.
    serving: [Gauge; PARTITIONS_SHOWN / 64],
}

/// One link to a core.
#[derive(Debug, Default)]
pub struct CoreLink {
    /// Whether it is up: 0 or 1.
    pub up: Gauge,
    /// Times that it came up.
    pub ups: Counter,
    /// Times that it ended or did not come about.
    pub ends: Counter,
    last_end: Gauge,
}

impl CoreLink {
    /// Why it ended last, or did not come about.
    pub fn last_end(&self) -> Option<LinkEnd> {
        let index = (self.last_end.value() as usize).checked_sub(1)?;
        LinkEnd::ALL.get(index).copied()
    }
}

impl CoreLinks {
    /// The link of that purpose.
    pub fn link(&self, purpose: Purpose) -> &CoreLink {
        match purpose {
            Purpose::Clients => &self.clients,
            Purpose::Replication => &self.mirror,
        }
    }

    /// The link of that purpose is up.
    pub fn note_up(&self, purpose: Purpose) {
        let link = self.link(purpose);
        link.up.set(1);
        link.ups.add(1);
    }

    /// The link of that purpose ended or did not come about.
    pub fn note_end(&self, purpose: Purpose, why: LinkEnd) {
        let link = self.link(purpose);
        link.up.set(0);
        link.ends.add(1);
        link.last_end.set(why.index() as u64 + 1);
        if purpose == Purpose::Clients {
            self.serving.iter().for_each(|bits| bits.set(0));
        }
    }

    /// A partition of that core said whether it serves.
    pub fn note_serving(&self, partition: u16, serves: bool) {
        let (word, bit) = (usize::from(partition) / 64, 1 << (partition % 64));
        if let Some(bits) = self.serving.get(word) {
            bits.set(if serves { bits.value() | bit } else { bits.value() & !bit });
        }
    }

    /// Partitions of that core that serve.
    pub fn serving(&self) -> u32 {
        self.serving.iter().map(|bits| bits.value().count_ones()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_shown_while_it_is_linked_and_one_too_many_is_not() {
        let edges = EdgeLinks::default();
        for node in (1..=EDGES_SHOWN as u32 + 1).rev() {
            edges.note_up(node);
        }
        assert_eq!(edges.nodes(), (2..=EDGES_SHOWN as u64 + 1).collect::<Vec<_>>());
        edges.note_end(1);
        edges.note_end(7);
        assert_eq!(edges.nodes().len(), EDGES_SHOWN - 1);
        edges.note_up(1);
        assert_eq!(edges.nodes()[..3], [1, 2, 3]);
    }

    #[test]
    fn partitions_of_a_core_serve_until_they_say_otherwise_or_its_link_ends() {
        let core = CoreLinks::default();
        core.note_up(Purpose::Clients);
        for partition in [0, 1, 63, 64, 255, 256, u16::MAX] {
            core.note_serving(partition, true);
            core.note_serving(partition, true);
        }
        assert_eq!(core.serving(), 5);
        core.note_serving(64, false);
        assert_eq!(core.serving(), 4);
        core.note_end(Purpose::Replication, LinkEnd::Silent);
        assert_eq!(core.serving(), 4);
        assert_eq!(core.link(Purpose::Clients).last_end(), None);
        core.note_end(Purpose::Clients, LinkEnd::ALL[0]);
        assert_eq!(core.serving(), 0);
        assert_eq!(core.link(Purpose::Clients).last_end(), Some(LinkEnd::ALL[0]));
        assert_eq!(core.link(Purpose::Clients).up.value(), 0);
    }
}
