//! How fast clients may connect, log in and send, and what of that is one reactor's part.

use iris_proto::admission::{Limit, Limits, Sizes};

use super::units::Rate;

/// The section `limits`. `None` and 0: no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// SENDs of a connection.
    pub connection_messages: Option<Rate>,
    /// Bytes of a connection's SENDs.
    pub connection_bytes: Option<Rate>,
    /// SENDs of a user.
    pub user_messages: Option<Rate>,
    /// Bytes of a user's SENDs.
    pub user_bytes: Option<Rate>,
    /// How many times the rate may be refused before the connection ends.
    pub flood_factor: u32,
    /// Logins of a user.
    pub user_logins: Option<Rate>,
    /// Connections that the node accepts.
    pub accepts: Option<Rate>,
    /// Connections of the node that have not logged in.
    pub pending_logins_max: u32,
    /// Connections accepted from a prefix.
    pub prefix_accepts: Option<Rate>,
    /// Logins tried from a prefix.
    pub prefix_logins: Option<Rate>,
    /// Connections open from a prefix.
    pub prefix_connections_max: u32,
    /// Bits of the prefix of an IPv4 address.
    pub prefix_v4: u8,
    /// Bits of the prefix of an IPv6 address.
    pub prefix_v6: u8,
    /// Entries of a reactor's table of prefixes, and of that of users.
    pub table_entries: usize,
}

impl LimitsConfig {
    /// What one of so many reactors keeps to. What counts for the node or for a prefix is shared out over them, as
    /// [`share`] does; a connection and its user are at one reactor and have it all.
    pub fn per_reactor(&self, reactors: usize) -> Limits {
        let whole = |rate: Option<Rate>| rate.map(|rate| limit_of(rate, 1));
        let shared = |rate: Option<Rate>| rate.map(|rate| limit_of(rate, reactors));
        let count = |most: u32| share(most as usize, reactors) as u32;
        Limits {
            connection_messages: whole(self.connection_messages),
            connection_bytes: whole(self.connection_bytes),
            user_messages: whole(self.user_messages),
            user_bytes: whole(self.user_bytes),
            flood_factor: self.flood_factor,
            user_logins: whole(self.user_logins),
            accepts: shared(self.accepts),
            prefix_accepts: shared(self.prefix_accepts),
            prefix_logins: shared(self.prefix_logins),
            prefix_connections_max: count(self.prefix_connections_max),
            pending_logins_max: count(self.pending_logins_max),
        }
    }

    /// What is fixed at the start.
    pub fn sizes(&self) -> Sizes {
        Sizes { v4_bits: self.prefix_v4, v6_bits: self.prefix_v6, entries: self.table_entries }
    }
}

/// One reactor's part of what a node may have: its share and a quarter more, because SO_REUSEPORT spreads connections by
/// hash and not evenly.
pub(super) fn share(all: usize, reactors: usize) -> usize {
    let share = all.div_ceil(reactors.max(1));
    if reactors <= 1 { share } else { share + share.div_ceil(4) }
}

/// The rate of one of so many reactors, with a quarter more as [`share`] has it.
fn limit_of(rate: Rate, reactors: usize) -> Limit {
    let burst = share(rate.burst() as usize, reactors) as u64;
    let (units, parts) = if reactors <= 1 { (1, 1) } else { (5, 4 * reactors as u64) };
    let per_ns = rate.per.as_nanos() as u64 * parts;
    let limit = Limit::new(rate.units * units, per_ns, burst);
    limit.expect("a checked rate is a limit, and so is a part of it")
}

impl Rate {
    /// Its burst; unless it is said, what comes in a second, and 1 at least.
    pub fn burst(&self) -> u64 {
        self.burst.unwrap_or((self.units / self.per.as_secs().max(1)).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iris_proto::admission::Gcra;
    use std::time::Duration;

    const S: u64 = 1_000_000_000;

    fn through(limit: Limit, seconds: u64) -> u64 {
        let mut used = Gcra::default();
        let times = 0..=seconds * 1000;
        times
            .map(|ms| {
                (0..9).filter(|_| used.handle(ms * S / 1000, &limit, 1).is_ok()).count() as u64
            })
            .sum()
    }

    #[test]
    fn reactors_have_their_share_and_a_quarter_more_of_what_all_have() {
        let rate = Rate { units: 100, per: Duration::from_secs(1), burst: Some(40) };
        assert_eq!(through(limit_of(rate, 1), 10), 1040);
        // 50 and a quarter more.
        assert_eq!(through(limit_of(rate, 2), 10), 625 + 25);
        let slow = Rate { units: 4, per: Duration::from_secs(60), burst: None };
        assert_eq!(through(limit_of(slow, 8), 600), 6 + 2);
        assert_eq!([share(100, 1), share(100, 2), share(1, 4), share(0, 4)], [100, 63, 2, 0]);
    }

    #[test]
    fn a_burst_that_is_not_said_is_what_comes_in_a_second() {
        let rate = |units, secs| Rate { units, per: Duration::from_secs(secs), burst: None };
        assert_eq!([rate(70, 1).burst(), rate(90, 60).burst(), rate(600, 60).burst()], [70, 1, 10]);
    }
}
