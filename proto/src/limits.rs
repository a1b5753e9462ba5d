//! Every bound of Iris in one place (I7). Each is part of the protocol or a default that the configuration may lower.

/// Bytes of a wire frame's body, largest.
pub const FRAME_BODY_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a message's payload, largest.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Recipients of one SEND, at most.
pub const RECIPIENTS_MAX: usize = 256;
/// Bytes of a user's name, at most; at least 1.
pub const USER_BYTES_MAX: usize = 128;
/// Bytes of a device's name, at most; may be 0.
pub const DEVICE_BYTES_MAX: usize = 64;
/// Bytes of a token, at most.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Unanswered SENDs of one connection, at most.
pub const SEND_WINDOW_MAX: u32 = 256;
/// Unacknowledged MESSAGEs of one connection, at most.
pub const RECV_WINDOW_MAX: u32 = 1024;
/// Bytes of unacknowledged MESSAGEs of one connection, above which no further one is started.
pub const RECV_WINDOW_BYTES: usize = 256 * 1024;
/// Ids kept of one sender in one shard. An unanswered SEND is never forgotten while its sender may retry it.
pub const DEDUP_IDS_PER_SENDER_MAX: usize = 512;
/// Users in one PRESENCE query, at most.
pub const PRESENCE_USERS_MAX: usize = 256;
/// Users that one connection watches, at most.
pub const WATCHED_PER_CONNECTION_MAX: usize = 1024;
/// Connections that watch one user, at most.
pub const WATCHERS_PER_USER_MAX: usize = 1024;
/// Messages waiting in one inbox, at most.
pub const INBOX_MESSAGES_MAX: u32 = 1_000_000;
/// Bytes waiting in one inbox, above which it takes no further message, by default.
pub const INBOX_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// How long a message id is known exactly, by default; older ids are refused. Milliseconds.
pub const DEDUP_WINDOW_MS: u64 = 60 * 60 * 1000;
/// How far ahead of the server's time a message id may be, by default. Milliseconds.
pub const ID_FUTURE_MS_MAX: u64 = 5 * 60 * 1000;
/// Room for message ids in one partition, 24 bytes each; a sender costs as much as 8 besides.
pub const DEDUP_IDS_PER_PARTITION_MAX: u64 = 16_000_000;
/// Bytes of a DEDUP record's body, at most.
pub const DEDUP_RECORD_BYTES_MAX: usize = 64 * 1024;
/// Messages that one TOMB record removes, at most.
pub const TOMB_TARGETS_MAX: usize = 256;
/// Messages waiting in all inboxes of one partition, at most; 28 bytes each.
pub const ENTRIES_PER_PARTITION_MAX: u32 = 100_000_000;
/// Watches in one partition, at most; some 40 bytes each.
pub const WATCHES_PER_PARTITION_MAX: u32 = 8_000_000;
/// Receipts in one partition between delivery and durable TOMB, at most; 48 bytes each.
pub const RECEIPTS_PER_PARTITION_MAX: u32 = 1_000_000;
/// Answers and deliveries of one partition that wait for a sync, at most; 48 bytes each.
pub const PENDING_PER_PARTITION_MAX: usize = 1 << 18;
/// Messages that collapsed into another one of the same id, remembered in one partition, at most; some 60 bytes each.
pub const COLLAPSED_MAX: usize = 1 << 16;
/// Messages of one partition whose TOMB came from the peer before they did, at most; some 60 bytes each.
pub const EARLY_TOMBS_MAX: usize = 1 << 20;
/// Streams (origins times shards) of one partition, at most; some hundred bytes each.
pub const STREAMS_PER_PARTITION_MAX: usize = 1 << 18;
/// Bytes of a MARK record's body, at most.
pub const MARK_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a frame between replicas, at most: a record and its header.
pub const REPLICA_FRAME_BYTES_MAX: usize = 528 * 1024;
/// Frames that a replica sends before the first of them is reported synced, at most.
pub const REPLICA_FRAMES_MAX: usize = 4096;
/// Connections of one reactor that are told why they were not let in, at a time and in a second; others are closed without
/// a word.
pub const REFUSALS_TOLD_MAX: u32 = 1024;
/// The shortest wait that a refused connection or login is told, before its random part. Milliseconds.
pub const REFUSED_RETRY_MS_MIN: u32 = 1000;
/// The longest wait that a SEND over its rate is told. Milliseconds.
pub const SEND_RETRY_MS_MAX: u32 = 60_000;
/// SENDs over their rate that a connection may have refused at once before that is a flood: four windows of them.
pub const FLOOD_REFUSALS_MIN: u32 = 1024;
/// Deliveries to one user before others have their turn.
pub const TURN_DELIVERIES_MAX: u32 = 32;

const _: () =
    assert!(PAYLOAD_BYTES_MAX + (RECIPIENTS_MAX + 1) * (USER_BYTES_MAX + 1) < FRAME_BODY_BYTES_MAX);
const _: () = assert!(DEDUP_IDS_PER_SENDER_MAX >= 2 * SEND_WINDOW_MAX as usize);
const _: () = assert!(FLOOD_REFUSALS_MIN >= 2 * SEND_WINDOW_MAX);
const _: () = assert!(RECIPIENTS_MAX <= PENDING_PER_PARTITION_MAX);
