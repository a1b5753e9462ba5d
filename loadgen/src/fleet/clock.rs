//! How another machine's clock is to ours: asked for several times, the quickest answer counts.
//!
//! An answer was given some time between question and answer, so its moment is known to half of that time (as NTP has it,
//! RFC 5905, section 8). The run's time of a worker is set by this; only what is sent by one worker and received by another
//! one depends on it.

use super::wire::{FRAME_BYTES_MAX, Link, Moment, Said, Told};
use anyhow::{Context, bail};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Questions of one measurement.
const QUESTIONS: usize = 32;

/// A question and its answer: our clock before and after, nanoseconds, and the other one's between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Exchange {
    asked: Moment,
    answered: Moment,
    heard_ns: u64,
}

/// The other clock, as it was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measured {
    /// The other one's own time less ours, nanoseconds.
    pub own_offset_ns: i64,
    /// The other machine's time of day less ours, nanoseconds.
    pub unix_offset_ns: i64,
    /// Both are known to this, nanoseconds: half of the quickest round.
    pub error_ns: u64,
}

/// What our clocks say, by the time since `base`.
pub fn now(base: Instant) -> Moment {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment { own_ns: base.elapsed().as_nanos() as u64, unix_ns: unix.as_nanos() as u64 }
}

/// Asks the worker at the other end.
pub fn measure(link: &mut Link, base: Instant) -> anyhow::Result<Measured> {
    let mut exchanges = Vec::new();
    for _ in 0..QUESTIONS {
        let asked = now(base);
        link.send(&Told::Clock).context("cannot ask for its clock")?;
        let answered = match link.receive(FRAME_BYTES_MAX).context("it does not tell its clock")? {
            Said::Clock(answered) => answered,
            _ => bail!("it does not tell its clock"),
        };
        exchanges.push(Exchange { asked, answered, heard_ns: base.elapsed().as_nanos() as u64 });
    }
    best(&exchanges).context("it does not tell its clock")
}

fn best(exchanges: &[Exchange]) -> Option<Measured> {
    let quickest =
        exchanges.iter().min_by_key(|one| one.heard_ns.saturating_sub(one.asked.own_ns))?;
    let error_ns = quickest.heard_ns.saturating_sub(quickest.asked.own_ns).div_ceil(2);
    let less =
        |theirs: u64, ours: u64| theirs.wrapping_sub(ours.wrapping_add(error_ns)).cast_signed();
    Some(Measured {
        own_offset_ns: less(quickest.answered.own_ns, quickest.asked.own_ns),
        unix_offset_ns: less(quickest.answered.unix_ns, quickest.asked.unix_ns),
        error_ns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other clock is 500 ahead; the question takes `there`, the answer `back`.
    fn exchange(asked_ns: u64, there: u64, back: u64) -> Exchange {
        let moment = |ns| Moment { own_ns: ns, unix_ns: ns };
        let answered = moment(asked_ns + there + 500);
        Exchange { asked: moment(asked_ns), answered, heard_ns: asked_ns + there + back }
    }

    #[test]
    fn the_quickest_answer_counts_and_is_right_to_half_of_its_time() {
        let all = [exchange(0, 900, 100), exchange(5000, 20, 10), exchange(9000, 300, 300)];
        let found = best(&all).unwrap();
        assert_eq!(found.error_ns, 15);
        assert!((found.own_offset_ns - 500).unsigned_abs() <= found.error_ns, "{found:?}");
        assert_eq!(found.own_offset_ns, found.unix_offset_ns);
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn a_clock_behind_ours_has_a_negative_offset() {
        let moment = |ns| Moment { own_ns: ns, unix_ns: ns };
        let one = Exchange { asked: moment(1000), answered: moment(10), heard_ns: 1010 };
        assert_eq!(best(&[one]).unwrap().own_offset_ns, -995);
    }
}
