//! The program on recorded machines, on arbitrary files, and on the running kernel.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[path = "tune/common.rs"]
mod common;
#[path = "tune/live.rs"]
mod live;
#[path = "tune/snapshots.rs"]
mod snapshots;
#[path = "tune/undo.rs"]
mod undo;
