//! The Iris server: what `proto` decides and `wal` lays out, done with io_uring.
//!
//! In reading order: [`cli`] and [`config`] turn what was typed into a checked [`config::Config`]; [`preflight`] looks
//! at the machine; [`boot`] brings the threads up, and the service manager hears of it by [`supervisor`]; [`admin`] shows
//! how they are, from what they count in [`metrics`]; [`auth`] verifies tokens, [`tls`] loads certificates, [`capacity`]
//! works out how many machines a plan needs. The data path is [`reactor`] (connections), [`link`] (batches between threads)
//! and [`partition`] (inboxes and their log), on the threads of [`rt`].

pub mod capacity;
pub mod cli;
pub mod config;
pub mod preflight;

pub mod boot;

pub mod cluster;
pub mod link;
pub mod partition;
pub mod reactor;
pub mod tls;

mod cgroup;
pub mod clock;
pub mod eject;
pub mod halt_poll;
pub mod queue;
pub mod rt;
pub mod supervisor;

pub mod admin;
pub mod auth;
pub mod events;
pub mod logging;
pub mod metrics;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of this build, from `IRIS_REVISION` at compile time.
pub const REVISION: &str = match option_env!("IRIS_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
