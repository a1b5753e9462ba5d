//! The generic cell rate algorithm: how often something may happen, in eight bytes.
//!
//! The virtual scheduling form of ITU-T I.371 and of ATM Forum af-tm-0056.000 (Traffic Management 4.0), section 4.4.2:
//! GCRA(T, tau) keeps the theoretical arrival time of the next cell. A cell conforms if it comes at most tau before that
//! time, and then moves it on by T. Here n units move it on by n T, and tau leaves room for a burst: what conforms is
//! what a bucket would let through that holds `burst` tokens and gains one each T, without counting tokens.
//!
//! All is integer arithmetic on nanoseconds of a monotonic clock. T has ten more bits for fractions of a nanosecond. It is
//! rounded down, and so is what units cost, by less than a nanosecond each: what a limit says always goes through.

/// The longest time that a burst may stand for: 400 days.
pub const BURST_NS_MAX: u64 = 400 * 24 * 3600 * 1_000_000_000;

/// Bits of [`Limit::cost`] for fractions of a nanosecond.
const FRACTION_BITS: u32 = 10;

/// How much is allowed: units per time, and how many of them at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Nanoseconds of one unit, with [`FRACTION_BITS`] of fraction: T.
    cost: u64,
    /// How far ahead of the clock the theoretical time may be: tau, and the T of the first unit.
    tolerance_ns: u64,
}

impl Limit {
    /// `units` in each `per_ns`, and `burst` at once. `None` for nothing at all, for a burst of more than
    /// [`BURST_NS_MAX`], and for units of less than 1/1024 nanosecond.
    pub fn new(units: u64, per_ns: u64, burst: u64) -> Option<Self> {
        let cost = (u128::from(per_ns) << FRACTION_BITS).checked_div(units.into())?;
        let tolerance_ns = (u128::from(per_ns) * u128::from(burst)).div_ceil(units.into());
        if cost == 0 || !(1..=u128::from(BURST_NS_MAX)).contains(&tolerance_ns) {
            return None;
        }
        Some(Self { cost: u64::try_from(cost).ok()?, tolerance_ns: tolerance_ns as u64 })
    }

    /// Nanoseconds that so many units stand for.
    #[inline]
    pub fn cost_ns(&self, units: u64) -> u64 {
        let cost = u128::from(self.cost) * u128::from(units);
        u64::try_from(cost >> FRACTION_BITS).unwrap_or(u64::MAX)
    }

    /// How often this one may refuse as many units before that is a flood: `factor` times as often as it lets them
    /// through, with as many times its burst, and with `least` times at once in any case.
    pub(super) fn of_refusals(&self, units: u64, factor: u32, least: u32) -> Self {
        let cost_ns = self.cost_ns(units) / u64::from(factor.max(1));
        let cost_ns = cost_ns.clamp(1, u64::MAX >> FRACTION_BITS);
        let tolerance_ns = self.tolerance_ns.max(cost_ns.saturating_mul(least.into()));
        Self { cost: cost_ns << FRACTION_BITS, tolerance_ns }
    }
}

/// What one source has used up: the theoretical arrival time. A new one has used nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Gcra(u64);

const _: () = assert!(size_of::<Gcra>() == 8);

impl Gcra {
    /// How long until so many units conform, in nanoseconds; 0: they do now. More than a burst never do.
    ///
    /// A limit that was lowered meanwhile finds the bucket empty, and no debt.
    #[inline]
    pub fn wait_ns(&mut self, now_ns: u64, limit: &Limit, units: u64) -> u64 {
        self.0 = self.0.min(now_ns.saturating_add(limit.tolerance_ns));
        let ahead = self.0.saturating_sub(now_ns);
        ahead.saturating_add(limit.cost_ns(units)).saturating_sub(limit.tolerance_ns)
    }

    /// Takes units of which [`Self::wait_ns`] said that they conform.
    #[inline]
    pub fn take(&mut self, now_ns: u64, limit: &Limit, units: u64) {
        self.0 = self.0.max(now_ns).saturating_add(limit.cost_ns(units));
    }

    /// Takes units that conform. The error is how many milliseconds until they do, at least 1; then nothing was taken.
    #[inline]
    pub fn handle(&mut self, now_ns: u64, limit: &Limit, units: u64) -> Result<(), u32> {
        match self.wait_ns(now_ns, limit, units) {
            0 => {
                self.take(now_ns, limit, units);
                Ok(())
            }
            wait_ns => Err(retry_ms(wait_ns)),
        }
    }

    /// From then on it is as good as a new one.
    pub fn until_ns(self) -> u64 {
        self.0
    }

    /// What the one used that used more.
    pub fn max(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }
}

/// Whole milliseconds, rounded up, so that who waits as long is not early.
pub fn retry_ms(wait_ns: u64) -> u32 {
    u32::try_from(wait_ns.div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    /// Tokens in nanoseconds' worth, exact: a bucket as it is drawn in books.
    struct Bucket {
        units: u128,
        per_ns: u128,
        burst: u128,
        /// Tokens times `per_ns`.
        filled: u128,
        at_ns: u64,
    }

    impl Bucket {
        fn new(units: u64, per_ns: u64, burst: u64) -> Self {
            let (units, per_ns, burst) = (units.into(), per_ns.into(), u128::from(burst));
            Self { units, per_ns, burst, filled: burst * per_ns, at_ns: 0 }
        }

        fn fill(&mut self, now_ns: u64) {
            let gained = u128::from(now_ns - self.at_ns) * self.units;
            self.filled = (self.filled + gained).min(self.burst * self.per_ns);
            self.at_ns = now_ns;
        }

        fn take(&mut self, now_ns: u64, n: u64) -> bool {
            self.fill(now_ns);
            let cost = u128::from(n) * self.per_ns;
            let has = self.filled >= cost;
            if has {
                self.filled -= cost;
            }
            has
        }
    }

    #[test]
    fn a_burst_goes_through_at_once_and_the_next_one_is_told_when() {
        for (units, per_ns, burst) in
            [(3, S, 3), (1, S, 1), (10, 60 * S, 20), (1_000_000, S, 7), (7, 3600 * S, 100)]
        {
            let limit = Limit::new(units, per_ns, burst).unwrap();
            let mut used = Gcra::default();
            for n in 0..burst {
                assert_eq!(used.handle(S, &limit, 1), Ok(()), "{n} of {burst}");
            }
            let retry_ms = used.handle(S, &limit, 1).unwrap_err();
            assert_eq!(u64::from(retry_ms), (per_ns / units).div_ceil(1_000_000).max(1));
            assert_eq!(used.handle(S + u64::from(retry_ms) * 1_000_000, &limit, 1), Ok(()));
        }
    }

    #[test]
    fn what_is_refused_costs_nothing() {
        let limit = Limit::new(1, S, 1).unwrap();
        let mut used = Gcra::default();
        assert_eq!(used.handle(0, &limit, 1), Ok(()));
        let before = used;
        (0..1000).for_each(|_| assert_eq!(used.handle(1, &limit, 1), Err(1000)));
        assert_eq!(used, before);
        assert_eq!(used.until_ns(), S);
    }

    #[test]
    fn a_limit_that_was_lowered_finds_an_empty_bucket_and_no_debt() {
        let wide = Limit::new(1, 60 * S, 1000).unwrap();
        let mut used = Gcra::default();
        used.take(0, &wide, 1000);
        let narrow = Limit::new(10, S, 1).unwrap();
        assert_eq!(used.handle(0, &narrow, 1), Err(100));
        assert_eq!(used.handle(S / 10, &narrow, 1), Ok(()));
    }

    #[test]
    fn nothing_and_endless_bursts_are_no_limits() {
        for (units, per_ns, burst) in
            [(0, S, 1), (1, 0, 1), (1, S, 0), (1, S, 400 * 86_400 + 1), (1 << 40, S, 1)]
        {
            assert_eq!(Limit::new(units, per_ns, burst), None);
        }
        assert!(Limit::new(1, S, 400 * 86_400).is_some());
        assert!(Limit::new(1 << 32, S, 1 << 40).is_some());
    }

    #[test]
    fn more_than_a_burst_never_conforms_and_nothing_overflows() {
        let limit = Limit::new(1, 3600 * S, 24).unwrap();
        let mut used = Gcra::default();
        assert!(used.handle(u64::MAX, &limit, 25).is_err());
        assert!(used.handle(0, &limit, u64::MAX).is_err());
        used.take(u64::MAX, &limit, 24);
        assert_eq!(used.until_ns(), u64::MAX);
    }

    proptest! {
        /// What the bucket lets through conforms. What conforms, the bucket lets through too, or would some nanoseconds
        /// later: two for each take, which is what rounding may give.
        #[test]
        fn it_lets_through_what_a_token_bucket_lets_through(
            units in 1_u64..2_000_000,
            per in prop_oneof![Just(S), Just(60 * S), Just(3600 * S)],
            burst in 1_u64..10_000,
            steps in prop::collection::vec((0_u64..50_000_000, 1_u64..200), 1..200),
        ) {
            let Some(limit) = Limit::new(units, per, burst) else { return Ok(()) };
            let mut bucket = Bucket::new(units, per, burst);
            let mut used = Gcra::default();
            let (mut now, mut takes) = (0, 0_u64);
            for (wait, n) in steps {
                now += wait;
                let n = n.min(burst);
                let conforms = used.handle(now, &limit, n);
                takes += 1;
                if bucket.take(now, n) {
                    prop_assert_eq!(conforms, Ok(()));
                } else if conforms.is_ok() {
                    let slack = 2 * u128::from(takes + 1) * bucket.units;
                    prop_assert!(bucket.filled + slack >= u128::from(n) * bucket.per_ns);
                    bucket.filled = 0;
                }
            }
        }

        /// Who waits as long as was said gets through, and a millisecond earlier does not.
        #[test]
        fn the_time_that_is_told_is_the_first_whole_millisecond_that_conforms(
            units in 1_u64..2_000_000,
            burst in 1_u64..1000,
            used_up in 0_u64..1000,
            now in 0_u64..(1 << 50),
            n in 1_u64..1000,
        ) {
            let Some(limit) = Limit::new(units, S, burst) else { return Ok(()) };
            let n = n.min(burst);
            let mut used = Gcra::default();
            for _ in 0..used_up {
                let _ = used.handle(now, &limit, 1);
            }
            if let Err(retry_ms) = used.handle(now, &limit, n) {
                let later = |ms: u32| now + u64::from(ms) * 1_000_000;
                prop_assert!(used.wait_ns(later(retry_ms), &limit, n) == 0);
                prop_assert!(used.wait_ns(later(retry_ms - 1), &limit, n) > 0);
            }
        }

        /// In any stretch of time no more goes through than the burst and what the time allows.
        #[test]
        fn no_stretch_of_time_lets_more_through_than_burst_and_rate(
            units in 1_u64..10_000,
            burst in 1_u64..100,
            steps in prop::collection::vec(0_u64..30_000_000, 1..300),
        ) {
            let Some(limit) = Limit::new(units, S, burst) else { return Ok(()) };
            let mut used = Gcra::default();
            let (mut now, mut through) = (0, Vec::new());
            for wait in steps {
                now += wait;
                if used.handle(now, &limit, 1).is_ok() {
                    through.push(now);
                }
            }
            for (i, start) in through.iter().enumerate() {
                for (j, end) in through.iter().enumerate().skip(i) {
                    let allowed = u128::from(burst)
                        + (u128::from(end - start) + (j - i) as u128) * u128::from(units) / u128::from(S);
                    prop_assert!(((j - i) as u128) < allowed + 1, "{} in {}", j - i + 1, end - start);
                }
            }
        }
    }
}
