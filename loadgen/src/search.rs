//! The search for the highest load that meets an objective: a staircase, then halving, then a confirmation.
//!
//! No I/O: [`Search::load_to_try`] says what to try, [`Search::found`] takes what came of it.
//!
//! ```text
//!   climb    from × step × step …       until one is missed, or the highest load allowed is met
//!   halve    the geometric middle       until met and missed are within the precision
//!   confirm  the best one, again and again; a miss makes it the one that is missed, and the next best one is the best
//! ```
//!
//! A run that is missed once by chance would hide everything above it, so each miss is tried a second time and counts if it
//! is missed again. If the lowest load is missed, the search goes down from there.

use serde::Serialize;

/// What a search is told.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Plan {
    /// The first load tried.
    pub from: u64,
    /// The highest load tried.
    pub to: u64,
    /// Each stair is so many times as high as the one before; above 1.
    pub step: f64,
    /// Met and missed may be so far apart at the end, as a share of the load.
    pub precision: f64,
    /// Runs at the best load that must all meet it.
    pub confirm: u32,
}

/// What a search is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Up the stairs, or down from the first one.
    Climb,
    /// Between what was met and what was missed.
    Halve,
    /// The best load again.
    Confirm,
}

/// What came of a search.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// This load meets the objective, a little more does not.
    Found(u64),
    /// The highest load allowed meets it.
    AtLeast(u64),
    /// Not even a load of 1 meets it, or none that could be confirmed.
    Nothing,
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    plan: Plan,
    /// Ascending, all below what was missed.
    met: Vec<u64>,
    missed: Option<u64>,
    /// The load that was missed once.
    doubted: Option<u64>,
    confirmed: u32,
    trying: Option<u64>,
}

impl Search {
    /// Begins. `from` is at most `to`, `step` above 1, `precision` above 0.
    pub fn new(plan: Plan) -> Self {
        assert!(plan.from >= 1 && plan.from <= plan.to, "a range of loads");
        assert!(plan.step > 1.0 && plan.precision > 0.0, "stairs that rise, and an end");
        Self { plan, met: Vec::new(), missed: None, doubted: None, confirmed: 0, trying: None }
    }

    /// What is being done.
    pub fn stage(&self) -> Stage {
        match (self.best(), self.missed) {
            (None, _) => Stage::Climb,
            (Some(met), None) if met < self.plan.to => Stage::Climb,
            (Some(_), Some(_)) if !self.is_close() => Stage::Halve,
            (Some(_), _) => Stage::Confirm,
        }
    }

    fn best(&self) -> Option<u64> {
        self.met.last().copied()
    }

    fn is_close(&self) -> bool {
        let (Some(met), Some(missed)) = (self.best(), self.missed) else { return false };
        missed <= met + 1 || (missed - met) as f64 <= missed as f64 * self.plan.precision
    }

    /// The load to try, or what came of the search.
    pub fn load_to_try(&mut self) -> Result<u64, Verdict> {
        let load = match (self.stage(), self.best(), self.missed) {
            (_, None, Some(1)) => return Err(Verdict::Nothing),
            (_, None, Some(missed)) => {
                ((missed as f64 / self.plan.step) as u64).clamp(1, missed - 1)
            }
            (_, None, None) => self.plan.from,
            (Stage::Climb, Some(met), _) => {
                ((met as f64 * self.plan.step) as u64).clamp(met + 1, self.plan.to)
            }
            (Stage::Halve, Some(met), Some(missed)) => {
                let middle = (met as f64 * missed as f64).sqrt() as u64;
                middle.clamp(met + 1, missed - 1)
            }
            (_, Some(met), missed) if self.confirmed >= self.plan.confirm => {
                return Err(match missed {
                    None => Verdict::AtLeast(met),
                    Some(_) => Verdict::Found(met),
                });
            }
            (_, Some(met), _) => met,
        };
        let load = self.doubted.unwrap_or(load);
        self.trying = Some(load);
        Ok(load)
    }

    /// What came of the load that was to be tried.
    pub fn found(&mut self, is_met: bool) {
        let load = self.trying.take().expect("a load was to be tried");
        if !is_met && self.doubted != Some(load) {
            self.doubted = Some(load);
            return;
        }
        self.doubted = None;
        let is_again = self.best() == Some(load);
        match is_met {
            true if is_again => self.confirmed += 1,
            true => {
                self.met.push(load);
                self.confirmed = 1;
            }
            false => {
                self.met.retain(|met| *met < load);
                (self.missed, self.confirmed) = (Some(load), 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { from: 1000, to: 1_000_000, step: 2.0, precision: 0.05, confirm: 3 };

    fn search(plan: Plan, mut meets: impl FnMut(u64) -> bool) -> (Verdict, Vec<u64>) {
        let mut search = Search::new(plan);
        let mut tried = Vec::new();
        loop {
            match search.load_to_try() {
                Ok(load) => {
                    tried.push(load);
                    assert!(tried.len() < 200, "a search ends: {tried:?}");
                    search.found(meets(load));
                }
                Err(verdict) => return (verdict, tried),
            }
        }
    }

    #[test]
    fn the_limit_is_found_within_the_precision_wherever_it_is() {
        for limit in [1, 2, 3, 10, 999, 1000, 1001, 1999, 31_415, 999_999] {
            let (verdict, tried) = search(PLAN, |load| load <= limit);
            let Verdict::Found(found) = verdict else { panic!("{limit}: {verdict:?}") };
            assert!(
                found <= limit && found as f64 >= limit as f64 * 0.94 - 1.0,
                "{limit}: {found}"
            );
            assert!(tried.iter().filter(|load| **load == found).count() >= 3, "{limit}: {tried:?}");
        }
    }

    #[test]
    fn a_load_that_always_does_is_said_to_be_a_lower_bound() {
        assert_eq!(search(PLAN, |_| true).0, Verdict::AtLeast(1_000_000));
    }

    #[test]
    fn what_nothing_meets_is_said_to_be_nothing() {
        assert_eq!(search(PLAN, |_| false).0, Verdict::Nothing);
    }

    #[test]
    fn one_unlucky_run_hides_nothing() {
        let mut runs = 0;
        let (verdict, _) = search(PLAN, |load| {
            runs += 1;
            load <= 100_000 && runs != 3 && runs != 9
        });
        let Verdict::Found(found) = verdict else { panic!("{verdict:?}") };
        assert!((94_000..=100_000).contains(&found), "{found}");
    }

    #[test]
    fn a_lucky_run_is_not_confirmed() {
        let mut lucky = Some(());
        let (verdict, _) = search(PLAN, |load| {
            let is_lucky = (50_000..80_000).contains(&load) && lucky.take().is_some();
            load <= 40_000 || is_lucky
        });
        let Verdict::Found(found) = verdict else { panic!("{verdict:?}") };
        assert!((37_000..=40_000).contains(&found), "{found}");
    }

    #[test]
    fn a_coin_ends_the_search_all_the_same() {
        for seed in 0..200_u64 {
            let mut state = seed;
            search(PLAN, |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
                state >> 63 == 0
            });
        }
    }
}
