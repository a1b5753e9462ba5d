//! Load for Iris that says what it measured, and whether the figures mean anything.
//!
//! `cli` reads the flags; a `scenario` plans a run; `run` leads the generator threads (`worker`) through its phases;
//! each thread's `driver` decides what its connections do and `net` does it; `client`, `sender`, `schedule` and
//! `payload` are without I/O. `protocol` says what is spoken and what an answer in it is worth. `series` records each second
//! of a run, with what `scrape` reads of the server's metrics; `fleet` makes
//! several processes, on one machine or many, work as one; `floor`, `server_probe` and `usage` measure the machine,
//! `report` tells; `live`, `hgrm`, `page` and `chart` show it, and `compare` sets one run against another.
//! `garbage` makes connections that no server wants, `manual` completions and manual pages.

pub mod capacity;
pub mod chart;
pub mod cli;
pub mod client;
pub mod comeback;
pub mod compare;
pub mod control;
pub mod driver;
pub mod fleet;
pub mod floor;
pub mod garbage;
pub mod hgrm;
pub mod live;
pub mod manual;
pub mod names;
pub mod net;
pub mod objective;
pub mod observe;
pub mod page;
pub mod payload;
pub mod presence;
pub mod protocol;
pub mod ranges;
pub mod report;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod scrape;
pub mod search;
pub mod sender;
pub mod series;
pub mod server_probe;
pub mod stats;
pub mod tokens;
pub mod usage;
pub mod worker;
