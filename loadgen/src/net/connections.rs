//! The connections of one thread, of whichever kind its load needs.

use super::{ConnIndex, Handler, Handshakes, Net, Plain, Tls, TlsPlan};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How connections wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Load {
    /// Mostly silent: a poll, and small buffers.
    Quiet,
    /// Mostly busy: a multishot receive, and large buffers.
    Busy,
    /// Those that send, which are made first, are busy; the others are quiet.
    Mixed,
    /// Few connections with one message at a time: ordinary sockets.
    OneByOne,
}

/// The connections of one thread, of either kind.
pub enum Connections {
    /// On rings.
    Rings(Net),
    /// On ordinary sockets.
    Plain(Plain),
}

impl Connections {
    /// Room for `connections`, of which the first `senders` send, to be used by the calling thread only.
    pub fn new(
        target: SocketAddr,
        connections: u32,
        senders: u32,
        per_ring: u32,
        load: Load,
        tls: Option<&TlsPlan>,
    ) -> anyhow::Result<Self> {
        let tls = tls.map(|plan| Tls::new(plan, connections)).transpose()?;
        let busy = match load {
            Load::OneByOne => return Ok(Self::Plain(Plain::new(target).secured(tls))),
            Load::Busy => connections,
            Load::Mixed => senders,
            Load::Quiet => 0,
        };
        Ok(Self::Rings(Net::new(target, busy, connections - busy, per_ring)?.secured(tls)))
    }

    /// Handshakes of TLS that were done.
    pub fn handshakes(&self) -> Handshakes {
        match self {
            Self::Rings(net) => net.handshakes(),
            Self::Plain(plain) => plain.handshakes(),
        }
    }

    /// Starts the next connection from this source address, and gives its index.
    pub fn connect(&mut self, source: IpAddr) -> anyhow::Result<ConnIndex> {
        match self {
            Self::Rings(net) => net.connect(source),
            Self::Plain(plain) => plain.connect(),
        }
    }

    /// Makes a connection again that is [`Handler::gone`].
    pub fn connect_again(&mut self, conn: ConnIndex, source: IpAddr) -> anyhow::Result<()> {
        match self {
            Self::Rings(net) => net.begin(conn, source),
            Self::Plain(_) => unreachable!("connections that are cut are on rings"),
        }
    }

    /// Ends a connection at once, as a cut line does; [`Handler::gone`] follows. Whether it had not ended before.
    pub fn cut(&mut self, conn: ConnIndex) -> bool {
        match self {
            Self::Rings(net) => net.cut(conn),
            Self::Plain(_) => unreachable!("connections that are cut are on rings"),
        }
    }

    /// Stops reading a connection, or goes on.
    pub fn pause(&mut self, conn: ConnIndex, is_paused: bool) {
        match self {
            Self::Rings(net) => net.pause(conn, is_paused),
            Self::Plain(_) => unreachable!("connections that stall are on rings"),
        }
    }

    /// Has `fill` append bytes for the server; they leave with the next turn.
    pub fn write(&mut self, conn: ConnIndex, fill: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Rings(net) => net.write(conn, fill),
            Self::Plain(plain) => plain.write(conn, fill),
        }
    }

    /// Sends what was written, waits up to `wait` for something to happen and has `handler` act on it.
    pub fn turn(&mut self, wait: Duration, handler: &mut impl Handler) -> anyhow::Result<()> {
        match self {
            Self::Rings(net) => net.turn(wait, handler),
            Self::Plain(plain) => plain.turn(wait, handler),
        }
    }
}
