//! Sending all clients of a node away: who is told what, and how many are closed by when.
//!
//! Each client is told at once that it has to go (DRAIN) and when to come back; then connections are closed at a steady
//! rate, so that neither this node, nor the balancer, nor the nodes that clients go to see all of them in one moment. When
//! clients come back depends on where to:
//!
//! - [`Return::Here`]: this node alone serves them, and restarts. The first is closed at once. All are told to come back
//!   when the node is expected back, spread by chance over as long as it needs to let all of them in.
//! - [`Return::Elsewhere`]: other nodes serve them, too. Nobody is closed for [`NOTICE_MS_MAX`], in which balancers see
//!   that the node is not ready. Each is told its own turn, spread by chance over as much, and is closed by the server if
//!   it has not left by the end of that.
//!
//! The node's plan is made once, of the number of its connections. Each reactor has a [`Drain`], which spreads its own
//! connections over the plan's time. No clock and no chance in here: clients add the chance.

use std::num::NonZeroU32;

/// Connections a second that are closed at least, as far as time allows: a node with few is empty soon.
pub const RATE_MIN: u64 = 1000;
/// Clients a second that a node which starts is expected to let in: the spread of those that come back to it.
pub const COMEBACK_RATE: u64 = 10_000;
/// Bounds of that spread, milliseconds.
pub const COMEBACK_MS: (u64, u64) = (1000, 300_000);
/// How long a node that restarts is away, as clients are told, milliseconds.
pub const AWAY_MS: u64 = 1000;
/// Before the first connection is closed if clients may go elsewhere, at most; and the spread of each client's own time.
pub const NOTICE_MS_MAX: u64 = 1000;
/// Of the time allowed, the part in which connections are closed: the rest is for last words to clients that read slowly.
const CLOSING_PART: (u64, u64) = (4, 5);
/// The same rest, if the rate says how long it takes.
const REST_MS: u64 = 5000;
/// The longest drain: a rate that would take longer is raised.
pub const TIME_MS_MAX: u64 = 24 * 3600 * 1000;

/// Where clients come back to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Return {
    /// To this node, after a restart.
    Here,
    /// To other nodes.
    Elsewhere,
}

/// What whoever ends a node asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Time for all of it, milliseconds. `None`: as long as the rate takes, and the default without one.
    pub time_ms: Option<u64>,
    /// Connections a second to close. `None`: as many as fit the time. Both: the time counts.
    pub rate_per_s: Option<NonZeroU32>,
}

impl Wish {
    /// To be gone within a time.
    pub fn within(time_ms: u64) -> Self {
        Self { time_ms: Some(time_ms), rate_per_s: None }
    }
}

/// What a client is told, as in DRAIN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advice {
    /// Least wait before it connects again.
    pub retry_after_ms: u32,
    /// Width of the random part that it adds.
    pub jitter_ms: u32,
}

/// The plan of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    connections: u64,
    returns: Return,
    /// From the begin to the first close, and the spread of a client's own time.
    notice_ms: u64,
    /// In which connections are closed.
    span_ms: u64,
    limit_ms: u64,
}

impl Plan {
    /// The plan for so many connections. `default_ms` is the time if nothing else says it.
    pub fn new(wish: Wish, returns: Return, connections: u64, default_ms: u64) -> Self {
        let allowed_ms = wish.time_ms.unwrap_or(default_ms).min(TIME_MS_MAX);
        let closing_ms = allowed_ms * CLOSING_PART.0 / CLOSING_PART.1;
        let notice_ms = match returns {
            Return::Here => 0,
            Return::Elsewhere => NOTICE_MS_MAX.min(closing_ms / 8),
        };
        // First notice, then the turns of all, then the last one's own time.
        let room_ms = closing_ms - 2 * notice_ms;
        let rate = wish.rate_per_s.map_or(RATE_MIN, |rate| u64::from(rate.get()));
        let wanted_ms = connections.saturating_mul(1000).div_ceil(rate);
        let (span_ms, limit_ms) = match wish {
            Wish { time_ms: None, rate_per_s: Some(_) } => {
                let span_ms = wanted_ms.min(TIME_MS_MAX);
                (span_ms, allowed_ms.max(2 * notice_ms + span_ms + REST_MS))
            }
            _ => (wanted_ms.min(room_ms), allowed_ms),
        };
        Self { connections, returns, notice_ms, span_ms, limit_ms }
    }

    /// Connections when it was made.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// Where clients come back to.
    pub fn returns(&self) -> Return {
        self.returns
    }

    /// Connections closed a second, on all reactors together.
    pub fn rate_per_s(&self) -> u64 {
        self.connections.saturating_mul(1000).div_ceil(self.span_ms.max(1))
    }

    /// Until when new connections are accepted: a balancer that asks `/readyz` must see the node not ready first.
    pub fn accepts_until_ms(&self) -> u64 {
        self.notice_ms
    }

    /// By when the last connection is told its last word.
    pub fn closed_ms(&self) -> u64 {
        2 * self.notice_ms + self.span_ms
    }

    /// By when the node ends, whoever is left.
    pub fn limit_ms(&self) -> u64 {
        self.limit_ms
    }

    /// The spread of those that come back to this node.
    fn comeback_ms(&self) -> u64 {
        let needed_ms = self.connections.saturating_mul(1000) / COMEBACK_RATE;
        needed_ms.clamp(COMEBACK_MS.0, COMEBACK_MS.1)
    }
}

/// A reactor's part of a plan. Times are since its begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    plan: Plan,
    /// Connections that this is about.
    connections: u64,
    told: u64,
    gone: u64,
}

impl Drain {
    /// For a reactor with so many connections.
    pub fn new(plan: Plan, connections: u64) -> Self {
        Self { plan, connections, told: 0, gone: 0 }
    }

    /// The same connections by another plan, which begins now: all are told anew, because who was to come back later
    /// would stay away for all of that time.
    pub fn hasten(self, plan: Plan) -> Self {
        let left = self.connections - self.gone;
        Self { plan, connections: left, told: 0, gone: 0 }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the next client is told, in the order in which they are closed.
    pub fn tell(&mut self, now_ms: u64) -> Advice {
        let Plan { returns, notice_ms, span_ms, .. } = self.plan;
        let place = self.told.min(self.connections);
        self.told += 1;
        match returns {
            Return::Here => self.farewell(now_ms),
            Return::Elsewhere => {
                let turn_ms = notice_ms + part_of(span_ms, place, self.connections);
                Advice {
                    retry_after_ms: ms(turn_ms.saturating_sub(now_ms)),
                    jitter_ms: ms(notice_ms),
                }
            }
        }
    }

    /// What a client is told that is closed now.
    pub fn farewell(&self, now_ms: u64) -> Advice {
        match self.plan.returns {
            Return::Here => Advice {
                retry_after_ms: ms(self.plan.closed_ms().saturating_sub(now_ms) + AWAY_MS),
                jitter_ms: ms(self.plan.comeback_ms()),
            },
            Return::Elsewhere => Advice { retry_after_ms: 0, jitter_ms: ms(self.plan.notice_ms) },
        }
    }

    /// A client came that had to be accepted.
    pub fn came(&mut self) {
        self.connections += 1;
    }

    /// A connection ended, by whomever.
    pub fn left(&mut self) {
        self.gone += 1;
        debug_assert!(self.gone <= self.connections, "who leaves was there");
    }

    /// How many to close now: as many as should be gone by now and are not.
    pub fn due(&self, now_ms: u64) -> u64 {
        let Plan { notice_ms, span_ms, .. } = self.plan;
        let by_now = match now_ms.checked_sub(2 * notice_ms) {
            None => 0,
            Some(since_ms) if since_ms >= span_ms => self.connections,
            Some(since_ms) => part_of(self.connections, since_ms, span_ms),
        };
        by_now.saturating_sub(self.gone)
    }
}

/// `all * part / of`, rounded down.
fn part_of(all: u64, part: u64, of: u64) -> u64 {
    let product = u128::from(all) * u128::from(part) / u128::from(of.max(1));
    u64::try_from(product).unwrap_or(u64::MAX)
}

fn ms(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_oneof, proptest};
    use proptest::strategy::{Just, Strategy};

    fn wish(time_ms: Option<u64>, rate: u32) -> Wish {
        Wish { time_ms, rate_per_s: NonZeroU32::new(rate) }
    }

    #[test]
    fn the_rate_fits_the_number_of_connections_and_the_time() {
        use Return::{Elsewhere, Here};
        // Time allowed, rate asked for; connections; rate, all closed by, ended by.
        for (wish, returns, connections, rate, closed_ms, limit_ms) in [
            (wish(None, 0), Here, 0, 0, 0, 15_000),
            (wish(None, 0), Here, 1, 1000, 1, 15_000),
            (wish(None, 0), Here, 5000, 1000, 5000, 15_000),
            (wish(None, 0), Here, 1_000_000, 83_334, 12_000, 15_000),
            (wish(Some(600_000), 0), Here, 1_000_000, 2084, 480_000, 600_000),
            (wish(Some(60_000), 500), Here, 1_000_000, 20_834, 48_000, 60_000),
            (wish(Some(60_000), 500), Here, 5000, 500, 10_000, 60_000),
            (wish(None, 500), Here, 1_000_000, 500, 2_000_000, 2_005_000),
            (wish(None, 500), Here, 100, 500, 200, 15_000),
            (
                wish(None, 1),
                Here,
                u64::MAX,
                u64::MAX / 86_400_000 + 1,
                TIME_MS_MAX,
                TIME_MS_MAX + 5000,
            ),
            (wish(None, 0), Elsewhere, 0, 0, 2000, 15_000),
            (wish(None, 0), Elsewhere, 5000, 1000, 7000, 15_000),
            (wish(None, 0), Elsewhere, 1_000_000, 100_000, 12_000, 15_000),
            (wish(Some(1000), 0), Elsewhere, 1_000_000, 1_666_667, 800, 1000),
            (wish(Some(0), 0), Elsewhere, 10, 10_000, 0, 0),
        ] {
            let plan = Plan::new(wish, returns, connections, 15_000);
            let got = (plan.rate_per_s(), plan.closed_ms(), plan.limit_ms());
            assert_eq!(got, (rate, closed_ms, limit_ms), "{wish:?} {returns:?} {connections}");
        }
    }

    #[test]
    fn who_comes_back_here_is_told_when_the_node_is_back_and_is_spread_by_number() {
        for (connections, at_ms, retry_after_ms, jitter_ms) in [
            (100, 0, 1100, 1000),
            (100, 60, 1040, 1000),
            (100_000, 0, 13_000, 10_000),
            (1_000_000, 2000, 11_000, 100_000),
            (10_000_000, 12_000, 1000, 300_000),
        ] {
            let plan = Plan::new(wish(None, 0), Return::Here, connections, 15_000);
            let mut drain = Drain::new(plan, connections);
            let advice = Advice { retry_after_ms, jitter_ms };
            assert_eq!((drain.tell(at_ms), drain.farewell(at_ms)), (advice, advice));
        }
    }

    #[test]
    fn who_goes_elsewhere_is_told_its_own_turn_and_is_closed_only_after_it() {
        let plan = Plan::new(wish(None, 100), Return::Elsewhere, 200, 15_000);
        let mut drain = Drain::new(plan, 100);
        let turns: Vec<u32> = (0..100).map(|_| drain.tell(0).retry_after_ms).collect();
        assert_eq!((turns[0], turns[1], turns[50], turns[99]), (1000, 1020, 2000, 2980));
        // The last of its own time is over two seconds after the begin.
        for (at_ms, due) in [(0, 0), (1999, 0), (2000, 0), (2020, 1), (3000, 50), (4000, 100)] {
            assert_eq!(drain.due(at_ms), due, "{at_ms}");
        }
        (0..60).for_each(|_| drain.left());
        assert_eq!((drain.due(3000), drain.due(4000)), (0, 40), "they left by themselves");
    }

    #[test]
    fn a_second_wish_closes_who_is_left_by_its_own_time() {
        let slow = Plan::new(wish(None, 1), Return::Here, 1000, 15_000);
        let mut drain = Drain::new(slow, 1000);
        (0..400).for_each(|_| drain.left());
        let fast = Plan::new(Wish::within(100), Return::Here, 600, 15_000);
        let drain = drain.hasten(fast);
        assert_eq!((drain.due(0), drain.due(40), drain.due(80)), (0, 300, 600));
    }

    fn wishes() -> impl Strategy<Value = Wish> {
        let time =
            prop_oneof![Just(None), (0..100_000_u64).prop_map(Some), any::<u64>().prop_map(Some)];
        (time, any::<u32>()).prop_map(|(time_ms, rate)| wish(time_ms, rate))
    }

    proptest! {
        #[test]
        fn everybody_is_closed_in_time_at_no_more_than_the_rate_and_told_a_time_that_is_kept(
            wish in wishes(),
            elsewhere in any::<bool>(),
            shares in proptest::collection::vec(0..3000_u64, 1..5),
            steps in proptest::collection::vec(0..5000_u64, 1..60),
            leavers in any::<u64>(),
        ) {
            let returns = if elsewhere { Return::Elsewhere } else { Return::Here };
            let all: u64 = shares.iter().sum();
            let plan = Plan::new(wish, returns, all, 15_000);
            assert!(plan.closed_ms() <= plan.limit_ms() && plan.accepts_until_ms() <= plan.closed_ms());
            if let Wish { time_ms: None, rate_per_s: Some(rate) } = wish {
                let wanted = u64::from(rate.get());
                assert!(all == 0 || plan.rate_per_s() <= wanted + 1 || plan.closed_ms() - 2 * plan.notice_ms <= 1);
            }
            for share in shares {
                let mut drain = Drain::new(plan, share);
                let told: Vec<Advice> = (0..share).map(|_| drain.tell(0)).collect();
                assert!(told.is_sorted_by_key(|advice| advice.retry_after_ms));
                let (mut now_ms, mut gone) = (0, 0);
                for (count, step_ms) in steps.iter().enumerate() {
                    now_ms += step_ms;
                    if leavers >> (count % 64) & 1 == 1 && gone < share {
                        drain.left();
                        gone += 1;
                    }
                    let due = drain.due(now_ms);
                    assert!(gone + due <= share);
                    if due > 0 {
                        // Nobody is closed before its turn has come.
                        let turn_ms = u64::from(told[(gone + due - 1) as usize].retry_after_ms);
                        assert!(!elsewhere || turn_ms <= now_ms);
                    }
                    // A farewell never puts off beyond what a client was told.
                    let first = told.first().map_or(u64::MAX, |a| u64::from(a.retry_after_ms));
                    let farewell = u64::from(drain.farewell(now_ms).retry_after_ms);
                    assert!(elsewhere || now_ms > plan.closed_ms() || now_ms + farewell <= first.saturating_add(1));
                    (0..due).for_each(|_| drain.left());
                    gone += due;
                }
                let due = drain.due(plan.closed_ms().max(now_ms));
                assert_eq!(gone + due, share, "all are gone when it is time");
            }
        }
    }
}
