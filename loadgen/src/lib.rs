//! Load for Iris that says what it measured, and whether the figures mean anything.
//!
//! `cli` reads the flags; a `scenario` plans a run; `run` leads the generator threads (`worker`) through its phases;
//! each thread's `driver` decides what its connections do and `net` does it; `client`, `sender`, `schedule` and
//! `payload` are without I/O. `floor`, `server_probe` and `usage` measure the machine, `report` tells.

pub mod capacity;
pub mod cli;
pub mod client;
pub mod control;
pub mod driver;
pub mod floor;
pub mod names;
pub mod net;
pub mod objective;
pub mod payload;
pub mod ranges;
pub mod report;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod search;
pub mod sender;
pub mod server_probe;
pub mod stats;
pub mod tokens;
pub mod usage;
pub mod worker;
