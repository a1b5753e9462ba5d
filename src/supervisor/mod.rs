//! What the service manager is told and asked: `sd_notify(3)`, `sd_listen_fds(3)`, `sd_watchdog_enabled(3)`.
//!
//! [`Notifier`] says where the node is in its life; without a service manager it says nothing. [`Inherited`] is what an
//! earlier life, or a socket unit, left for this one: listeners with the connections that wait in them. [`watchdog`] says
//! that the node is alive, but only while every thread of the data path takes its turns.
//!
//! The protocol is written here, in datagrams of lines, rather than taken from a crate: addresses of the abstract kind and
//! descriptors are needed, and tests that are the service manager themselves.

mod inherit;
mod notify;
pub mod watchdog;

pub use inherit::{Inherited, Kind};
pub use notify::{Beat, Notifier};

/// What the service manager gave the process at its start.
#[derive(Debug, Default)]
pub struct Supervision {
    /// For telling it.
    pub notifier: Notifier,
    /// Sockets that it kept.
    pub inherited: Inherited,
}

impl Supervision {
    /// What the environment says. Call it once, early: from then on the descriptors that were passed have an owner.
    pub fn from_env() -> Self {
        Self { notifier: Notifier::from_env(), inherited: Inherited::from_env() }
    }
}
