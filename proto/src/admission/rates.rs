//! How fast a live connection and its user may send.

use super::gcra::{Gcra, Limit, retry_ms};
use super::{Bound, Limits};
use crate::limits::{FLOOD_REFUSALS_MIN, SEND_RETRY_MS_MAX};

/// What a user has used up; it outlives their connections.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct UserRates {
    /// SENDs.
    pub messages: Gcra,
    /// Their bytes.
    pub bytes: Gcra,
}

impl UserRates {
    /// What both of two used that used more.
    pub fn max(self, other: Self) -> Self {
        Self { messages: self.messages.max(other.messages), bytes: self.bytes.max(other.bytes) }
    }

    /// From then on they are as good as new ones.
    pub fn until_ns(self) -> u64 {
        self.messages.max(self.bytes).until_ns()
    }
}

/// What a live connection and its user have used up. Made at the first SEND while SENDs are limited, and worth nothing
/// any more once it [`SendRates::is_idle`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SendRates {
    /// Messages and bytes of the connection, then of the user: see [`BOUNDS`].
    used: [Gcra; 4],
    /// Refusals.
    refused: Gcra,
    /// Up to when refused SENDs were told to come again: the next one is told a later time, or all would come at once.
    promised_ns: u64,
}

const _: () = assert!(size_of::<SendRates>() == 48);

/// Which limit each place of [`SendRates::used`] is for.
const BOUNDS: [Bound; 4] =
    [Bound::ConnectionMessages, Bound::ConnectionBytes, Bound::UserMessages, Bound::UserBytes];

/// The limit that allows a message last.
struct Worst {
    bound: Bound,
    wait_ns: u64,
    limit: Limit,
    units: u64,
}

/// A SEND, or another frame, over a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// It is refused, by this limit; it may come again then.
    Refuse(Bound, u32),
    /// It was refused too often: the connection ends, and may come again then.
    Flood(u32),
}

impl SendRates {
    /// Of a connection whose user has used that before.
    pub fn new(user: UserRates) -> Self {
        let new = Gcra::default();
        Self { used: [new, new, user.messages, user.bytes], ..Self::default() }
    }

    /// What the user has used, for their next connection.
    pub fn user(&self) -> UserRates {
        UserRates { messages: self.used[2], bytes: self.used[3] }
    }

    /// A SEND of so many bytes, header included, came. A refused one uses up nothing.
    pub fn handle_send(&mut self, now_ns: u64, limits: &Limits, bytes: u64) -> Result<(), Over> {
        let Some(worst) = self.take(now_ns, limits, bytes) else { return Ok(()) };
        // The first one is told when it would conform, the next one when the one after that would: else a window of
        // SENDs came back as one, and most of it were refused again.
        let latest_ns = now_ns + u64::from(SEND_RETRY_MS_MAX) * 1_000_000;
        let at_ns = self.promised_ns.max(now_ns.saturating_add(worst.wait_ns)).min(latest_ns);
        self.promised_ns = at_ns.saturating_add(worst.limit.cost_ns(worst.units));
        let retry_after_ms = retry_ms(at_ns - now_ns);
        match self.is_flood(now_ns, limits, &worst) {
            true => Err(Over::Flood(retry_after_ms)),
            false => Err(Over::Refuse(worst.bound, retry_after_ms)),
        }
    }

    /// Another frame that a client sends of its own accord came. It counts as a message; it cannot be refused, so over a
    /// limit it is done and counts as a refusal. The error is when to come again after the end of the connection.
    pub fn handle_other(&mut self, now_ns: u64, limits: &Limits, bytes: u64) -> Result<(), u32> {
        match self.take(now_ns, limits, bytes) {
            Some(worst) if self.is_flood(now_ns, limits, &worst) => {
                Err(retry_ms(worst.wait_ns).min(SEND_RETRY_MS_MAX))
            }
            _ => Ok(()),
        }
    }

    /// Takes one message of so many bytes if all limits allow it; else nothing, and gives the limit that allows it last.
    #[inline]
    fn take(&mut self, now_ns: u64, limits: &Limits, bytes: u64) -> Option<Worst> {
        let limits = [
            &limits.connection_messages,
            &limits.connection_bytes,
            &limits.user_messages,
            &limits.user_bytes,
        ];
        let units = [1, bytes, 1, bytes];
        let mut waits_ns = [0; 4];
        for (i, limit) in limits.iter().enumerate() {
            if let Some(limit) = limit {
                waits_ns[i] = self.used[i].wait_ns(now_ns, limit, units[i]);
            }
        }
        if waits_ns == [0; 4] {
            for (i, limit) in limits.iter().enumerate() {
                if let Some(limit) = limit {
                    self.used[i].take(now_ns, limit, units[i]);
                }
            }
            return None;
        }
        let (last, wait_ns) = (0..).zip(waits_ns).max_by_key(|(_, wait_ns)| *wait_ns)?;
        let limit = (*limits[last])?;
        Some(Worst { bound: BOUNDS[last], wait_ns, limit, units: units[last] })
    }

    /// Notes a refusal. Whether it is one too many.
    fn is_flood(&mut self, now_ns: u64, limits: &Limits, worst: &Worst) -> bool {
        let factor = limits.flood_factor;
        let of_refusals = worst.limit.of_refusals(worst.units, factor, FLOOD_REFUSALS_MIN);
        factor > 0 && self.refused.handle(now_ns, &of_refusals, 1).is_err()
    }

    /// Nothing of it says more than a new one would.
    pub fn is_idle(&self, now_ns: u64) -> bool {
        let until_ns = self.used.iter().fold(self.refused, |most, used| most.max(*used)).until_ns();
        until_ns.max(self.promised_ns) <= now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SEND_WINDOW_MAX;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;
    const MS: u64 = 1_000_000;

    fn limit(per_s: u64, burst: u64) -> Option<Limit> {
        Some(Limit::new(per_s, S, burst).unwrap())
    }

    #[test]
    fn each_limit_refuses_by_its_name_and_the_slowest_one_says_when() {
        let slow = Limits { connection_messages: limit(100, 1), ..Limits::default() };
        for (limits, bound, retry_ms) in [
            (slow, Bound::ConnectionMessages, 10),
            (
                Limits { connection_bytes: limit(1000, 100), ..Limits::default() },
                Bound::ConnectionBytes,
                100,
            ),
            (Limits { user_messages: limit(10, 1), ..Limits::default() }, Bound::UserMessages, 100),
            (Limits { user_bytes: limit(100, 100), ..Limits::default() }, Bound::UserBytes, 1000),
            (Limits { user_messages: limit(10, 1), ..slow }, Bound::UserMessages, 100),
        ] {
            let mut rates = SendRates::default();
            assert_eq!(rates.handle_send(S, &limits, 100), Ok(()));
            assert_eq!(rates.handle_send(S, &limits, 100), Err(Over::Refuse(bound, retry_ms)));
            assert_eq!(rates.handle_send(S + u64::from(retry_ms) * MS, &limits, 100), Ok(()));
        }
    }

    #[test]
    fn what_one_limit_refuses_uses_up_nothing_of_the_others() {
        let limits = Limits {
            connection_messages: limit(1, 1),
            connection_bytes: limit(1000, 1000),
            user_bytes: limit(1000, 1000),
            ..Limits::default()
        };
        let mut rates = SendRates::default();
        assert_eq!(rates.handle_send(0, &limits, 100), Ok(()));
        let before = rates.used;
        for _ in 0..100 {
            assert!(rates.handle_send(0, &limits, 100).is_err());
        }
        assert_eq!(rates.used, before);
    }

    #[test]
    fn without_limits_everything_goes_and_nothing_is_kept() {
        let mut rates = SendRates::default();
        for _ in 0..1000 {
            assert_eq!(rates.handle_send(7, &Limits::default(), u64::MAX), Ok(()));
            assert_eq!(rates.handle_other(7, &Limits::default(), u64::MAX), Ok(()));
        }
        assert_eq!(rates, SendRates::default());
        assert!(rates.is_idle(0));
    }

    /// A client that keeps its window full and comes again when it was told to is never taken for a flood, and loses
    /// little of what it may send.
    #[test]
    fn a_client_that_waits_as_it_was_told_gets_its_rate_and_is_no_flood() {
        let limits =
            Limits { connection_messages: limit(100, 10), flood_factor: 2, ..Limits::default() };
        let mut rates = SendRates::default();
        let mut due: Vec<u64> = vec![0; SEND_WINDOW_MAX as usize];
        let (mut accepted, mut refused) = (0_u64, 0_u64);
        for now_ms in 0..60_000 {
            for at_ms in &mut due {
                if *at_ms > now_ms {
                    continue;
                }
                match rates.handle_send(now_ms * MS, &limits, 100) {
                    Ok(()) => accepted += 1,
                    Err(Over::Refuse(_, retry_ms)) => {
                        refused += 1;
                        // And a random part of the same size: docs/PROTOCOL.md, section 5.
                        let spread = (refused * 7919) % u64::from(retry_ms + 1);
                        *at_ms = now_ms + u64::from(retry_ms) + spread;
                    }
                    Err(Over::Flood(_)) => panic!("after {now_ms} ms, {accepted}, {refused}"),
                }
            }
        }
        assert!((3000..=6010).contains(&accepted), "{accepted} accepted, {refused} refused");
    }

    #[test]
    fn who_goes_on_far_beyond_is_a_flood_by_sends_and_by_other_frames() {
        let limits =
            Limits { connection_messages: limit(10, 10), flood_factor: 2, ..Limits::default() };
        let (burst, most) = (10, FLOOD_REFUSALS_MIN as usize);
        let mut rates = SendRates::default();
        let answers: Vec<_> =
            (0..=burst + most).map(|_| rates.handle_send(0, &limits, 1)).collect();
        assert!(answers[..burst].iter().all(Result::is_ok));
        let is_refused = |answer: &Result<(), Over>| matches!(answer, Err(Over::Refuse(..)));
        assert!(answers[burst..burst + most].iter().all(is_refused));
        assert!(matches!(answers[burst + most], Err(Over::Flood(1..))));
        let mut rates = SendRates::default();
        assert!((0..burst + most).all(|_| rates.handle_other(0, &limits, 1).is_ok()));
        assert!(rates.handle_other(0, &limits, 1).is_err());
        let never = Limits { flood_factor: 0, ..limits };
        assert!((0..10_000).all(|_| rates.handle_other(0, &never, 1).is_ok()));
    }

    #[test]
    fn refusals_at_less_than_the_factor_are_no_flood_however_long_and_more_are() {
        let limits =
            Limits { connection_messages: limit(100, 1000), flood_factor: 3, ..Limits::default() };
        // One is let through in 10 ms; three more may be refused.
        let flood_after = |every_us: u64| {
            let mut rates = SendRates::default();
            let ends = |n: &u64| {
                let answer = rates.handle_send(n * every_us * 1000, &limits, 1);
                matches!(answer, Err(Over::Flood(_)))
            };
            (0..200_000).find(ends)
        };
        assert_eq!(flood_after(2_600), None);
        let sends = flood_after(1_000).expect("nine of ten are refused, three may be");
        assert!((6_000..6_300).contains(&sends), "{sends}");
    }

    #[test]
    fn nobody_is_told_to_wait_for_longer_than_the_bound() {
        let hourly = Some(Limit::new(1, 3600 * S, 1).unwrap());
        let limits = Limits { connection_messages: hourly, ..Limits::default() };
        let mut rates = SendRates::default();
        assert_eq!(rates.handle_send(0, &limits, 1), Ok(()));
        for _ in 0..1000 {
            let over = rates.handle_send(0, &limits, 1).unwrap_err();
            assert_eq!(over, Over::Refuse(Bound::ConnectionMessages, SEND_RETRY_MS_MAX));
        }
    }

    #[test]
    fn a_user_s_next_connection_goes_on_where_the_last_one_ended() {
        let limits = Limits {
            connection_messages: limit(1, 1),
            user_messages: limit(1, 5),
            ..Limits::default()
        };
        let mut user = UserRates::default();
        for _ in 0..5 {
            let mut rates = SendRates::new(user);
            assert_eq!(rates.handle_send(0, &limits, 1), Ok(()));
            assert!(!rates.is_idle(S - 1));
            user = rates.user();
        }
        let over = SendRates::new(user).handle_send(0, &limits, 1).unwrap_err();
        assert_eq!(over, Over::Refuse(Bound::UserMessages, 1000));
        assert!(SendRates::new(user).is_idle(5 * S));
    }

    proptest! {
        /// Whatever is sent when, each limit holds by itself.
        #[test]
        fn no_limit_is_ever_passed(
            steps in prop::collection::vec((0_u64..20 * MS, 1_u64..2000), 1..300),
            messages in 1_u64..1000,
            bytes in 2000_u64..1_000_000,
        ) {
            let limits = Limits {
                connection_messages: limit(messages, 20),
                user_bytes: limit(bytes, 4000),
                ..Limits::default()
            };
            let mut rates = SendRates::default();
            let (mut now, mut sent) = (0, (0_u64, 0_u64));
            for (wait, size) in steps {
                now += wait;
                if rates.handle_send(now, &limits, size).is_ok() {
                    sent = (sent.0 + 1, sent.1 + size);
                }
                let slack_ns = 4 * sent.0 + 1;
                prop_assert!(sent.0 <= 20 + (now + slack_ns) * messages / S + 1);
                prop_assert!(sent.1 <= 4000 + (now + slack_ns) * bytes / S + 1);
            }
        }
    }
}
