//! Who is let in, and how fast who is in may go: the limits of one reactor.
//!
//! ```text
//!   accept ──▶ Gate::handle_accept ──▶ HELLO ──▶ handle_login ──▶ token ──▶ handle_user_login ──▶ live
//!                 prefix, node            prefix                     user          │
//!                                                                SendRates::handle_send, each SEND
//! ```
//!
//! The [`Gate`] decides before anything dear is done for a stranger: from the address alone when a connection is accepted,
//! from the address before a token is verified, and from the user after that. [`SendRates`] decides over each SEND of a
//! live connection. Every rate is a [`Gcra`] of eight bytes; what is kept of prefixes and of users who are away is in
//! [`Table`]s of fixed size.
//!
//! Each reactor has its own gate and tables and shares nothing (I8). The kernel spreads connections over reactors by a hash
//! of addresses and ports, so a limit of the node or of a prefix is shared out over them by the driver. A user has one live
//! connection at a time, at one reactor: what they used up is carried in the connection and put aside when it ends
//! (`docs/decisions/0015-where-limits-live.md`).

mod gate;
mod gcra;
mod rates;
mod table;

pub use gate::{Gate, Pass, Refused, Sizes};
pub use gcra::{BURST_NS_MAX, Gcra, Limit, retry_ms};
pub use rates::{Over, SendRates, UserRates};
pub use table::{Entry, Key, Table};

/// All limits of a reactor; `None` and 0: not limited. They may change while it runs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    /// SENDs of a connection.
    pub connection_messages: Option<Limit>,
    /// Bytes of a connection's SENDs, headers included.
    pub connection_bytes: Option<Limit>,
    /// SENDs of a user, over all their connections at this reactor.
    pub user_messages: Option<Limit>,
    /// Bytes of a user's SENDs.
    pub user_bytes: Option<Limit>,
    /// How many times as often as one of these lets SENDs through it may refuse them before the connection ends.
    pub flood_factor: u32,
    /// Logins of a user.
    pub user_logins: Option<Limit>,
    /// Connections accepted.
    pub accepts: Option<Limit>,
    /// Connections accepted from a prefix.
    pub prefix_accepts: Option<Limit>,
    /// Logins tried from a prefix.
    pub prefix_logins: Option<Limit>,
    /// Connections open from a prefix.
    pub prefix_connections_max: u32,
    /// Connections that have not logged in.
    pub pending_logins_max: u32,
}

impl Limits {
    /// Whether SENDs are looked at at all.
    pub fn meter_sends(&self) -> bool {
        let of_sends =
            [self.connection_messages, self.connection_bytes, self.user_messages, self.user_bytes];
        of_sends.iter().any(Option::is_some)
    }

    /// Whether something is kept of prefixes.
    fn know_prefixes(&self) -> bool {
        let rates = self.prefix_accepts.is_some() || self.prefix_logins.is_some();
        rates || self.prefix_connections_max > 0
    }

    /// Whether something is kept of users who are away.
    fn know_users(&self) -> bool {
        [self.user_messages, self.user_bytes, self.user_logins].iter().any(Option::is_some)
    }
}

/// Which limit refused something: its key in the section `limits` of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// [`Limits::connection_messages`].
    ConnectionMessages,
    /// [`Limits::connection_bytes`].
    ConnectionBytes,
    /// [`Limits::user_messages`].
    UserMessages,
    /// [`Limits::user_bytes`].
    UserBytes,
    /// [`Limits::flood_factor`].
    FloodFactor,
    /// [`Limits::user_logins`].
    UserLogins,
    /// [`Limits::accepts`].
    Accepts,
    /// [`Limits::prefix_accepts`].
    PrefixAccepts,
    /// [`Limits::prefix_logins`].
    PrefixLogins,
    /// [`Limits::prefix_connections_max`].
    PrefixConnectionsMax,
    /// [`Limits::pending_logins_max`].
    PendingLoginsMax,
}
