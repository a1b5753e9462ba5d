//! The link protocol, version 1: what two nodes of a cluster say to each other over one TCP connection with mutual TLS.
//! `docs/LINKS.md` is the norm; `proto/vectors/link-v1.json` has the bytes.
//!
//! A link carries *channels*, one per partition of the core that was dialled. On a link for clients the batches of a
//! channel are those of [`crate::link`], the same bytes that cross a queue inside one process. On a link for
//! replication they are opaque here: an ordered, reliable stream between one partition and its mirror.
//!
//! [`Link`] is the machine of one end, from the first byte to the last: handshake, versions, heartbeats, credit. It is
//! fed bytes and time and writes bytes; it knows no socket, no certificate and no thread. [`relay`] checks what a
//! batch of a peer holds, frame by frame, before anybody acts on it (I9).
//!
//! # How a driver uses it
//!
//! 1. [`Link::dial`] or [`Link::accept`] when the connection and TLS stand. Send [`Link::take_output`] after every
//!    call below.
//! 2. [`Link::next`] for what arrived, again and again until it gives `None`. [`Event::Hello`] comes once: check who it
//!    is (the certificate), then [`Link::establish`] or [`Link::end`]. After that [`Event::Batch`] and
//!    [`Event::State`].
//! 3. [`Link::consumed`] when bytes of a batch have left this thread: that gives the peer its credit back.
//! 4. [`Link::send`] while [`Link::credit`] allows; what does not fit waits with the driver, which stops taking in.
//! 5. [`Link::poll`] at [`Link::poll_timeout`] or earlier: heartbeats and silence.
//! 6. An [`End`] from any of these is the last word: send what [`Link::take_output`] has, then close.

mod code;
mod frame;
mod hello;
mod machine;
pub mod relay;

pub use code::{End, EndCode};
pub use frame::{BATCH_BYTES_MAX, HEADER_BYTES, HELLO_BYTES_MAX, PartitionState};
pub use hello::{CLUSTER_BYTES_MAX, Hello, Purpose, Roles, ShardRanges};
pub use machine::{Event, Link, LinkConfig, SILENT_AFTER};

/// The oldest version that this build speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest version that this build speaks.
pub const VERSION_MAX: u16 = 1;

#[cfg(test)]
mod tests;
