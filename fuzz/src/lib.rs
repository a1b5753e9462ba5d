//! Whatever takes bytes from outside, as functions of bytes: they return if all is well and panic if not.
//!
//! Each module is a target. The binaries in `fuzz/fuzz_targets/` give it to libFuzzer (`make fuzz`), and
//! `fuzz/tests/corpus.rs` gives it the inputs in `fuzz/corpus/` with every `cargo test`. A target asserts more than that
//! nothing panics: what was decoded comes back after encoding, machines keep their promises to a peer that keeps none, and
//! a damaged log loses nothing that stands before the damage.
//!
//! An input is read from its front ([`Input`]): a target that needs numbers and choices takes them from there, so that
//! a changed byte changes one thing.

#[cfg(feature = "server")]
pub mod config;
mod input;
pub mod link_peer;
pub mod link_to_core;
pub mod link_to_edge;
pub mod replica;
pub mod session;
#[cfg(feature = "server")]
pub mod tls;
#[cfg(feature = "server")]
pub mod token;
pub mod wal_records;
pub mod wal_recovery;
pub mod wire_client;
pub mod wire_server;

pub use input::Input;

/// A target: its name, which is also that of its corpus and its binary, and what runs it.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("wire_client", wire_client::run),
    ("wire_server", wire_server::run),
    ("session", session::run),
    ("link_to_core", link_to_core::run),
    ("link_to_edge", link_to_edge::run),
    ("link_peer", link_peer::run),
    ("replica", replica::run),
    ("wal_recovery", wal_recovery::run),
    ("wal_records", wal_records::run),
    #[cfg(feature = "server")]
    ("config", config::run),
    #[cfg(feature = "server")]
    ("token", token::run),
    #[cfg(feature = "server")]
    ("tls", tls::run),
];
