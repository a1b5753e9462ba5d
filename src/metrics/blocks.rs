//! One block of cells per thread. Each block has its own cache lines; only its thread writes it.

use super::cell::{Counter, CounterBy, Gauge, Histogram};
use super::labels::{CloseReason, FrameType, LinkEnd, RejectReason, SegmentState};

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
    /// io_uring instances.
    pub rings: Gauge,
    /// Descriptor table slots in use.
    pub slots_used: Gauge,
    /// Descriptor table slots there are.
    pub slots_limit: Gauge,
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
    /// Receipts sent to senders.
    pub receipts: Counter,
    /// Logins.
    pub logins: Counter,
    /// Messages that wait in inboxes.
    pub inbox_messages: Gauge,
    /// Bytes of the inboxes' index.
    pub inbox_bytes: Gauge,
    /// Users online.
    pub users_online: Gauge,
    /// Users known: online, watched or with messages.
    pub users: Gauge,
    /// Message ids remembered.
    pub dedup_ids: Gauge,
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
        use super::Label;
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
    /// Nanoseconds spent working, not waiting.
    pub busy_ns: Counter,
    /// Turns of the loop.
    pub turns: Counter,
}
