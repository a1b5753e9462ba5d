//! A pair of cores on a fake machine: the decisions of `iris-proto`, the log of `iris-wal`, and disks, a network, clocks and
//! clients made of plain data. Single-threaded; a run is a function of its seed.
//!
//! In reading order: [`options`], what a run is; [`node`] and [`fx`], one core with its log on a disk in memory, driven as
//! the server drives it; [`net`], the link between the two; [`clients`], who send, retry, read and acknowledge; `edges`,
//! `served` and `links`, between the cores and the clients in `behind`; [`model`], what must be true, in plain maps;
//! [`faults`], what goes wrong, and [`disks`], how disks are spoiled; [`world`], one
//! millisecond after the other.

mod behind;
pub mod clients;
pub mod disks;
mod drive;
mod edges;
pub mod faults;
pub mod fx;
mod hear;
mod inject;
mod links;
pub mod model;
pub mod net;
pub mod node;
pub mod options;
pub mod random;
mod served;
mod wire;
pub mod world;

pub use options::{Options, Outcome};
pub use world::{current_seed, run};
