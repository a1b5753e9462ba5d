//! One io_uring for sockets: direct descriptors, provided buffers, and ownership of whatever the kernel is using.
//!
//! A [`Ring`] belongs to one thread (SINGLE_ISSUER, DEFER_TASKRUN): completions are only made when that thread enters
//! the kernel, so nothing happens behind its back. Sockets live in the ring's own descriptor table, which is bounded by
//! RLIMIT_NOFILE *per ring*; a process that needs more connections uses more rings.
//!
//! Everything an operation points at (bytes to send, addresses) is owned by the ring until the completion, so callers
//! need no `unsafe` and a connection may be forgotten while a send of it is still under way.
//!
//! Operations carry a [`Token`] of the caller's, 56 bits, given back with the completion. `io_uring(7)` and
//! `io_uring_setup(2)` have the kernel's side; Linux 6.1 is enough.

mod buffers;
mod pass;
mod ring;
mod slots;
mod socket;

pub use buffers::BufferId;
pub use pass::{send_with_descriptor, take_passed_descriptors};
pub use ring::{Event, Ring, RingConfig, SendId, Token};
pub use socket::{Listener, bound_stream_socket, raise_descriptor_limit, stream_socket_to};
