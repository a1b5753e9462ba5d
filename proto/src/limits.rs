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

const _: () = assert!(PAYLOAD_BYTES_MAX + (RECIPIENTS_MAX + 1) * (USER_BYTES_MAX + 1) < FRAME_BODY_BYTES_MAX);
const _: () = assert!(DEDUP_IDS_PER_SENDER_MAX >= 2 * SEND_WINDOW_MAX as usize);
