//! How often something may happen, and what is kept of whom.
//!
//! Every rate is a [`Gcra`] of eight bytes; what is kept of keys that attackers choose is in [`Table`]s of fixed size.

mod gcra;
mod table;

pub use gcra::{BURST_NS_MAX, Gcra, Limit, retry_ms};
pub use table::{Entry, Key, Table};
