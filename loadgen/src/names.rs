//! Who the users of a run are, and who sends to whom.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Bytes of a user's name.
pub const USER_BYTES: usize = 18;

/// The name of a user: `lg-RRRRRR-UUUUUUUU`, run (24 bits) and index in hexadecimal, so that each run has inboxes of
/// its own.
pub fn user(run: u32, index: u32) -> [u8; USER_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut name = *b"lg-000000-00000000";
    for place in 0..6 {
        name[8 - place] = DIGITS[(run >> (4 * place)) as usize & 0xf];
    }
    for place in 0..8 {
        name[17 - place] = DIGITS[(index >> (4 * place)) as usize & 0xf];
    }
    name
}

/// The name of a user as text.
pub fn user_name(run: u32, index: u32) -> String {
    user(run, index).iter().map(|byte| char::from(*byte)).collect()
}

/// Who sends to whom. Users are numbered from 0; senders come first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Topology {
    /// Nobody sends; this many are there.
    Silent(u32),
    /// An even number of users in pairs (0 and 1, 2 and 3, ...) that send to each other.
    Pairs(u32),
    /// Each of the senders to all of the recipients after them, with SENDs that name `each` of these in turn.
    FanOut { senders: u32, recipients: u32, each: u32 },
    /// This many users, of whom the first `active`, an even number, send to each other in pairs.
    Composite { users: u32, active: u32 },
    /// This many senders `i`, each to a receiver of its own, `n + i`.
    OneWay(u32),
    /// This many senders, all to the one receiver after them.
    FanIn(u32),
}

/// Users of a run, at most.
pub const USERS_MAX: u32 = 32_000_000;
/// Pairs of a sender and a recipient of it that are kept account of, at most: each thread has a place for each.
pub const FLOWS_MAX: u64 = 5_000_000;

impl Topology {
    /// Whether it is one: everybody who sends has a recipient, and there are not too many.
    pub fn is_sound(self) -> bool {
        let is_small = |n: u32| n <= USERS_MAX / 2;
        match self {
            Self::Silent(n) => (1..=USERS_MAX).contains(&n),
            Self::Pairs(n) => n > 0 && n.is_multiple_of(2) && n <= USERS_MAX,
            Self::OneWay(n) | Self::FanIn(n) => n > 0 && is_small(n),
            Self::Composite { users, active } => {
                users > 0 && users <= USERS_MAX && active.is_multiple_of(2) && active <= users
            }
            Self::FanOut { senders, recipients, each } => {
                senders > 0
                    && recipients > 0
                    && (1..=recipients).contains(&each)
                    && u64::from(senders) * u64::from(recipients) <= FLOWS_MAX
            }
        }
    }

    /// All users.
    pub fn users(self) -> u32 {
        match self {
            Self::Silent(n) | Self::Pairs(n) => n,
            Self::OneWay(n) => 2 * n,
            Self::FanIn(n) => n + 1,
            Self::Composite { users, .. } => users,
            Self::FanOut { senders, recipients, .. } => senders + recipients,
        }
    }

    /// How many send: users `0..senders()`.
    pub fn senders(self) -> u32 {
        match self {
            Self::Silent(_) => 0,
            Self::Pairs(n) | Self::OneWay(n) | Self::FanIn(n) => n,
            Self::Composite { active, .. } => active,
            Self::FanOut { senders, .. } => senders,
        }
    }

    /// Groups of recipients that a sender's messages go to in turn: message `i` to group `i mod groups()`.
    pub fn groups(self) -> u32 {
        match self {
            Self::FanOut { recipients, each, .. } => recipients.div_ceil(each),
            _ => 1,
        }
    }

    /// Whom a sender's messages to this group reach.
    pub fn recipients(self, sender: u32, group: u32) -> Range<u32> {
        let only = match self {
            Self::Silent(_) => return 0..0,
            Self::FanOut { senders, recipients, each } => {
                let first = senders + group * each;
                return first..(first + each).min(senders + recipients);
            }
            Self::Pairs(_) | Self::Composite { .. } => sender ^ 1,
            Self::OneWay(n) => n + sender,
            Self::FanIn(n) => n,
        };
        only..only + 1
    }

    /// Where a broker puts messages for a user: what reaches several at once has one topic, called as the first of them.
    pub fn mailbox(self, user: u32) -> u32 {
        match self {
            Self::FanOut { senders, each, .. } if user >= senders => {
                senders + (user - senders) / each * each
            }
            _ => user,
        }
    }

    /// How many a message of a sender reaches.
    pub fn copies(self, sender: u32, number: u32) -> u64 {
        match self {
            Self::FanOut { .. } => self.recipients(sender, number % self.groups()).len() as u64,
            _ => 1,
        }
    }

    /// Pairs of a sender and a recipient of its.
    pub fn flows(self) -> usize {
        match self {
            Self::FanOut { senders, recipients, .. } => senders as usize * recipients as usize,
            _ => self.senders() as usize,
        }
    }

    /// The place of such a pair among them, and the group that the recipient is in; `None` if it is none.
    pub fn flow(self, sender: u32, recipient: u32) -> Option<(usize, u32)> {
        if sender >= self.senders() {
            return None;
        }
        match self {
            Self::FanOut { senders, recipients, each } => {
                let place = recipient.checked_sub(senders).filter(|place| *place < recipients)?;
                let flow = sender as usize * recipients as usize + place as usize;
                Some((flow, place / each))
            }
            _ if self.recipients(sender, 0).contains(&recipient) => Some((sender as usize, 0)),
            _ => None,
        }
    }

    /// Which of `threads` threads a user belongs to. Sender and receiver share one, except in a fan-in or a
    /// fan-out.
    pub fn thread_of(self, user: u32, threads: u32) -> u32 {
        match self {
            Self::Silent(_) | Self::FanIn(_) | Self::FanOut { .. } => user % threads,
            Self::Pairs(_) => (user / 2) % threads,
            Self::Composite { active, .. } if user < active => (user / 2) % threads,
            Self::Composite { .. } => user % threads,
            Self::OneWay(n) => (user % n) % threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_run_and_index() {
        assert_eq!(user_name(0xabcdef, 0x1234), "lg-abcdef-00001234");
        assert_eq!(user_name(u32::MAX, u32::MAX), "lg-ffffff-ffffffff");
    }

    #[test]
    fn every_sender_has_a_recipient_among_the_users_on_a_thread_that_exists() {
        let composite = Topology::Composite { users: 11, active: 4 };
        let fan_out = Topology::FanOut { senders: 2, recipients: 7, each: 3 };
        let (pairs, one_way) = (Topology::Pairs(10), Topology::OneWay(5));
        for topology in [pairs, one_way, Topology::FanIn(9), composite, fan_out] {
            let mut flows = Vec::new();
            for sender in 0..topology.senders() {
                assert!(topology.thread_of(sender, 3) < 3);
                for group in 0..topology.groups() {
                    for recipient in topology.recipients(sender, group) {
                        assert!(recipient < topology.users() && recipient != sender);
                        let shares =
                            topology.thread_of(sender, 3) == topology.thread_of(recipient, 3);
                        let many = matches!(topology, Topology::FanIn(_) | Topology::FanOut { .. });
                        assert!(shares || many, "{topology:?}");
                        let (flow, of_group) = topology.flow(sender, recipient).unwrap();
                        assert_eq!(of_group, group, "{topology:?}");
                        flows.push(flow);
                    }
                }
                assert_eq!(topology.flow(sender, sender), None);
            }
            flows.sort_unstable();
            assert_eq!(flows, (0..topology.flows()).collect::<Vec<_>>(), "{topology:?}");
            assert_eq!(topology.flow(topology.senders(), 0), None);
        }
    }

    #[test]
    fn those_whom_a_message_reaches_together_have_one_mailbox() {
        let topology = Topology::FanOut { senders: 2, recipients: 5, each: 3 };
        let mailboxes: Vec<u32> = (0..7).map(|user| topology.mailbox(user)).collect();
        assert_eq!(mailboxes, [0, 1, 2, 2, 2, 5, 5]);
        for group in 0..topology.groups() {
            let mut recipients = topology.recipients(0, group);
            let first = recipients.start;
            assert!(recipients.all(|user| topology.mailbox(user) == first));
        }
        assert_eq!(Topology::Pairs(4).mailbox(3), 3);
    }

    #[test]
    fn what_is_no_topology_is_told_apart() {
        let fan_out = |senders, recipients, each| Topology::FanOut { senders, recipients, each };
        let composite = |users, active| Topology::Composite { users, active };
        for sound in [
            Topology::Silent(1),
            Topology::Pairs(2),
            Topology::OneWay(1),
            Topology::FanIn(USERS_MAX / 2),
            composite(3, 2),
            fan_out(1, 1000, 1000),
        ] {
            assert!(sound.is_sound(), "{sound:?}");
        }
        for bad in [
            Topology::Silent(0),
            Topology::Pairs(3),
            Topology::Pairs(0),
            Topology::OneWay(u32::MAX),
            Topology::FanIn(0),
            composite(3, 1),
            composite(2, 4),
            fan_out(1, 1, 0),
            fan_out(1, 1, 2),
            fan_out(0, 1, 1),
            fan_out(5_000, 5_000, 1),
        ] {
            assert!(!bad.is_sound(), "{bad:?}");
        }
    }

    #[test]
    fn idle_users_are_spread_over_the_threads_and_send_nothing() {
        let topology = Topology::Composite { users: 304, active: 4 };
        let mut by_thread = [0; 3];
        (0..304).for_each(|user| by_thread[topology.thread_of(user, 3) as usize] += 1);
        assert!(by_thread.iter().all(|users| (100..=104).contains(users)), "{by_thread:?}");
        assert_eq!((topology.users(), topology.senders()), (304, 4));
    }
}
