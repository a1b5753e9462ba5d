//! What Iris keeps on disk, and what the bytes mean. `docs/WAL-FORMAT.md` is the format to the byte.
//!
//! A node has one log per partition: a directory of numbered segment files. Segments hold batch frames, frames hold
//! records. This crate knows nothing of the wire protocol; identities are plain numbers and keys.
//!
//! In reading order:
//! - [`record`], [`targets`]: records, encoded and viewed;
//! - [`batch`], [`segment`], `footer`: frames, and the two ends of a segment;
//! - [`log`]: the write side, without I/O; `window` keeps what was written last in memory;
//! - [`reclaim`]: which segments may go;
//! - [`recovery`], with `scan`: what a restart finds, and the table of verdicts;
//! - [`feed`]: reading a log forward, for a peer;
//! - [`disk`]: what is needed of a disk; [`store`]: segment files on one: prepare, recycle, write, read;
//! - [`io`]: the real disk, a node's directory, its identity and lock;
//! - [`tool`]: verify, dump, stat, diff;
//! - `views`, with the feature `proto`: records as the machines of `iris-proto` see them.

#![deny(unsafe_code)]

/// Bytes of a block: frames, headers and footers begin on multiples of it.
pub const BLOCK: usize = 4096;

pub mod batch;
pub mod buffer;
mod codec;
pub mod disk;
pub mod feed;
mod footer;
pub mod io;
pub mod log;
pub mod reclaim;
pub mod record;
pub mod recovery;
mod scan;
pub mod segment;
pub mod store;
pub mod targets;
pub mod tool;
#[cfg(feature = "proto")]
pub mod views;
mod window;

pub use footer::FooterWrite;
pub use log::{AppendError, Log, LogConfig, Ready, Write};
pub use record::{
    Body, Checkpoint, Dot, Epoch, Head, Kind, Mark, Msg, MsgMeta, Origin, Reason, Record, Tomb,
};
pub use recovery::{Meta, MetaBody, Recovered};
pub use targets::Targets;

/// A record's place in its log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Pos {
    /// The segment's number.
    pub segment: u32,
    /// The record's first byte in that segment's file.
    pub offset: u32,
}
