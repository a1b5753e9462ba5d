//! Decides over connections and logins before anything dear is done for them.

use super::gcra::{Gcra, Limit, retry_ms};
use super::rates::UserRates;
use super::table::{Entry, Key, Table};
use super::{Bound, Limits};
use crate::limits::{REFUSALS_TOLD_MAX, REFUSED_RETRY_MS_MIN};

/// What is fixed when a gate is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Leading bits of an IPv4 address that make its prefix, at most 32.
    pub v4_bits: u8,
    /// Leading bits of an IPv6 address, at most 128.
    pub v6_bits: u8,
    /// Entries of the table of prefixes, and of that of users.
    pub entries: usize,
}

/// What the gate counts a connection among, in a byte of it: the gate is told when that ends.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Pass(u8);

impl Pass {
    /// Of those that have not logged in.
    const PENDING: u8 = 1;
    /// In the entry of its prefix.
    const COUNTED: u8 = 2;
    /// Of those that are not let in, and are told so.
    const TOLD: u8 = 4;

    /// Of a connection that was not let in: it is told why before it is closed.
    pub fn is_told(self) -> bool {
        self.0 & Self::TOLD != 0
    }
}

/// A connection or a login that is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// By which limit.
    pub bound: Bound,
    /// When to come again, with a random part.
    pub retry_after_ms: u32,
}

#[derive(Clone, Copy, Default, Debug)]
struct Prefix {
    accepts: Gcra,
    logins: Gcra,
    connections: u32,
}

impl Entry for Prefix {
    fn until_ns(&self) -> u64 {
        self.accepts.max(self.logins).until_ns()
    }

    fn is_held(&self) -> bool {
        self.connections > 0
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct User {
    sends: UserRates,
    logins: Gcra,
}

impl Entry for User {
    fn until_ns(&self) -> u64 {
        self.logins.until_ns().max(self.sends.until_ns())
    }
}

/// The gate of one reactor.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    sizes: Sizes,
    accepts: Gcra,
    /// Connections that have not logged in.
    pending: u32,
    /// Connections that are being told that they were not let in.
    told: u32,
    /// How often one was, and may be: a flood must not cost an answer each.
    telling: (Gcra, Limit),
    /// Made when a limit first needs it.
    prefixes: Option<Table<Prefix>>,
    users: Option<Table<User>>,
    /// The tables' hash key.
    key: [u64; 2],
    /// State of the generator of the random part of waits (splitmix64). Clients see its numbers, so the key is not of it.
    random: u64,
}

impl Gate {
    /// A gate that has seen nobody. Nobody outside may know `key`.
    pub fn new(limits: Limits, sizes: Sizes, key: [u64; 2], seed: u64) -> Self {
        assert!(sizes.v4_bits <= 32 && sizes.v6_bits <= 128, "prefixes are parts of addresses");
        let tellings = REFUSALS_TOLD_MAX.into();
        let telling = Limit::new(tellings, 1_000_000_000, tellings).expect("it is a limit");
        let mut gate = Self {
            limits: Limits::default(),
            sizes,
            accepts: Gcra::default(),
            pending: 0,
            told: 0,
            telling: (Gcra::default(), telling),
            prefixes: None,
            users: None,
            key,
            random: seed,
        };
        gate.set_limits(limits);
        gate
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Other limits from now on. What was used up stays used up; connections that are open are not counted for a prefix
    /// whose table is made now.
    pub fn set_limits(&mut self, limits: Limits) {
        if limits.know_prefixes() && self.prefixes.is_none() {
            self.prefixes = Some(Table::new(self.sizes.entries, self.key));
        }
        if limits.know_users() && self.users.is_none() {
            self.users = Some(Table::new(self.sizes.entries, self.key));
        }
        self.limits = limits;
    }

    /// A connection was accepted from an address (IPv4 ones as `::ffff:a.b.c.d`, RFC 4291, section 2.5.5.2). A refused one
    /// uses up nothing. It is told why if its pass says so (see [`Pass::is_told`]), else it is closed without a word.
    pub fn handle_accept(&mut self, now_ns: u64, address: &Key) -> (Pass, Result<(), Refused>) {
        match self.accept(now_ns, address) {
            Ok(counted) => {
                self.pending += 1;
                (Pass(if counted { Pass::PENDING | Pass::COUNTED } else { Pass::PENDING }), Ok(()))
            }
            Err((bound, wait_ns)) => {
                let (tellings, limit) = &mut self.telling;
                let told =
                    self.told < REFUSALS_TOLD_MAX && tellings.handle(now_ns, limit, 1).is_ok();
                self.told += u32::from(told);
                let retry_after_ms = self.spread(wait_ns);
                let pass = Pass(if told { Pass::TOLD } else { 0 });
                (pass, Err(Refused { bound, retry_after_ms }))
            }
        }
    }

    /// Whether the connection is counted for its prefix; or which limit it hits, and how long until that lets it in.
    fn accept(&mut self, now_ns: u64, address: &Key) -> Result<bool, (Bound, u64)> {
        let limits = self.limits;
        if limits.pending_logins_max > 0 && self.pending >= limits.pending_logins_max {
            return Err((Bound::PendingLoginsMax, 0));
        }
        let key = prefix_of(address, &self.sizes);
        let prefixes = self.prefixes.as_mut().filter(|_| limits.know_prefixes());
        let mut prefix = prefixes.and_then(|prefixes| prefixes.entry(&key, now_ns));
        if let Some(prefix) = &mut prefix {
            let most = limits.prefix_connections_max;
            if most > 0 && prefix.connections >= most {
                return Err((Bound::PrefixConnectionsMax, 0));
            }
            if let Some(limit) = &limits.prefix_accepts {
                let wait_ns = prefix.accepts.wait_ns(now_ns, limit, 1);
                if wait_ns > 0 {
                    return Err((Bound::PrefixAccepts, wait_ns));
                }
            }
        }
        // Last, so that who is refused for their own sake uses up nothing of what all share.
        if let Some(limit) = &limits.accepts {
            let wait_ns = self.accepts.wait_ns(now_ns, limit, 1);
            if wait_ns > 0 {
                return Err((Bound::Accepts, wait_ns));
            }
            self.accepts.take(now_ns, limit, 1);
        }
        let Some(prefix) = prefix else { return Ok(false) };
        prefix.connections += 1;
        if let Some(limit) = &limits.prefix_accepts {
            prefix.accepts.take(now_ns, limit, 1);
        }
        Ok(true)
    }

    /// A HELLO came; its token is verified only if this says yes.
    pub fn handle_login(&mut self, now_ns: u64, address: &Key) -> Result<(), Refused> {
        let Some(limit) = self.limits.prefix_logins else { return Ok(()) };
        let key = prefix_of(address, &self.sizes);
        let prefix = self.prefixes.as_mut().and_then(|prefixes| prefixes.entry(&key, now_ns));
        let Some(prefix) = prefix else { return Ok(()) };
        let wait_ns = prefix.logins.wait_ns(now_ns, &limit, 1);
        if wait_ns > 0 {
            let retry_after_ms = self.spread(wait_ns);
            return Err(Refused { bound: Bound::PrefixLogins, retry_after_ms });
        }
        prefix.logins.take(now_ns, &limit, 1);
        Ok(())
    }

    /// A token was good; its user is logged in only if this says yes.
    pub fn handle_user_login(&mut self, now_ns: u64, user: &Key) -> Result<(), Refused> {
        let Some(limit) = self.limits.user_logins else { return Ok(()) };
        let known = self.users.as_mut().and_then(|users| users.entry(user, now_ns));
        let Some(known) = known else { return Ok(()) };
        let wait_ns = known.logins.wait_ns(now_ns, &limit, 1);
        if wait_ns > 0 {
            let retry_after_ms = self.spread(wait_ns);
            return Err(Refused { bound: Bound::UserLogins, retry_after_ms });
        }
        known.logins.take(now_ns, &limit, 1);
        Ok(())
    }

    /// The connection has logged in, or ends.
    pub fn handle_settled(&mut self, pass: &mut Pass) {
        if pass.0 & Pass::PENDING != 0 {
            pass.0 &= !Pass::PENDING;
            self.pending -= 1;
        }
    }

    /// Nothing of the connection is left.
    pub fn handle_end(&mut self, mut pass: Pass, address: &Key) {
        self.handle_settled(&mut pass);
        self.told -= u32::from(pass.is_told());
        if pass.0 & Pass::COUNTED != 0 {
            let key = prefix_of(address, &self.sizes);
            let prefix = self.prefixes.as_mut().and_then(|prefixes| prefixes.find(&key));
            let prefix = prefix.expect("an entry that counts connections is kept");
            prefix.connections -= 1;
        }
    }

    /// What a user has used up at this reactor.
    pub fn user_rates(&mut self, user: &Key) -> UserRates {
        let known = self.users.as_mut().and_then(|users| users.find(user));
        known.map(|user| user.sends).unwrap_or_default()
    }

    /// Puts aside what a user has used up, for their next connection.
    pub fn keep_user_rates(&mut self, now_ns: u64, user: &Key, rates: UserRates) {
        if rates.until_ns() <= now_ns {
            return;
        }
        if let Some(known) = self.users.as_mut().and_then(|users| users.entry(user, now_ns)) {
            known.sends = known.sends.max(rates);
        }
    }

    /// Connections that have not logged in.
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// Entries that were forgotten before they had run out, and newcomers for whom there was no room.
    pub fn crowded_out(&self) -> u64 {
        let prefixes = self.prefixes.as_ref().map_or(0, Table::crowded_out);
        prefixes + self.users.as_ref().map_or(0, Table::crowded_out)
    }

    /// Memory of the tables.
    pub fn table_bytes(&self) -> usize {
        let prefixes = self.prefixes.as_ref().map_or(0, Table::bytes);
        prefixes + self.users.as_ref().map_or(0, Table::bytes)
    }

    /// The wait in milliseconds, [`REFUSED_RETRY_MS_MIN`] at least, and a random part of the same size: who was sent away
    /// together does not come back together.
    fn spread(&mut self, wait_ns: u64) -> u32 {
        let least = retry_ms(wait_ns).max(REFUSED_RETRY_MS_MIN);
        let part = self.random() % u64::from(least);
        least.saturating_add(part as u32)
    }

    /// The next number of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The leading bits of an address, the others 0.
fn prefix_of(address: &Key, sizes: &Sizes) -> Key {
    const V4: u128 = 0xffff_0000_0000;
    let bits = u128::from_be_bytes(*address);
    let kept = if bits >> 32 == V4 >> 32 { 96 + sizes.v4_bits } else { sizes.v6_bits };
    let mask = u128::MAX.checked_shl(128 - u32::from(kept)).unwrap_or(0);
    (bits & mask).to_be_bytes()
}

#[cfg(test)]
mod tests;
