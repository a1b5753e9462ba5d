//! A set of numbers as sorted half-open ranges: small while what is in it comes in runs.

use serde::{Deserialize, Serialize};

/// The set. Ranges are disjoint, not touching, ascending.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u32, u32)>")]
pub struct Ranges(Vec<(u32, u32)>);

impl TryFrom<Vec<(u32, u32)>> for Ranges {
    type Error = &'static str;

    fn try_from(ranges: Vec<(u32, u32)>) -> Result<Self, Self::Error> {
        let are_ranges = ranges.iter().all(|(from, until)| from < until);
        if are_ranges && ranges.windows(2).all(|pair| pair[0].1 < pair[1].0) {
            Ok(Self(ranges))
        } else {
            Err("ranges that are empty, touch or do not ascend")
        }
    }
}

impl Ranges {
    /// Adds `from..until`; what is in already stays.
    pub fn insert(&mut self, from: u32, until: u32) {
        if from >= until {
            return;
        }
        if let Some(last) = self.0.last_mut()
            && last.0 <= from
            && from <= last.1
        {
            last.1 = last.1.max(until);
            return;
        }
        let start = self.0.partition_point(|range| range.1 < from);
        let end = self.0.partition_point(|range| range.0 <= until);
        let merged = self.0[start..end]
            .iter()
            .fold((from, until), |all, range| (all.0.min(range.0), all.1.max(range.1)));
        self.0.splice(start..end, [merged]);
    }

    /// Takes one number out; whether it was in.
    pub fn remove(&mut self, number: u32) -> bool {
        let at = self.0.partition_point(|range| range.1 <= number);
        let Some(&(from, until)) = self.0.get(at).filter(|range| range.0 <= number) else {
            return false;
        };
        let left = (from < number).then_some((from, number));
        let right = (number + 1 < until).then_some((number + 1, until));
        self.0.splice(at..=at, left.into_iter().chain(right));
        true
    }

    /// How many ranges they come in.
    pub fn pieces(&self) -> usize {
        self.0.len()
    }

    /// How many numbers are in.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(from, until)| u64::from(until - from)).sum()
    }

    /// Of these numbers, those of residue `group` modulo `groups`, each divided by that.
    pub fn of_group(&self, group: u32, groups: u32) -> Self {
        let mut part = Self::default();
        for (from, until) in &self.0 {
            let count_below = |number: u32| number.saturating_sub(group).div_ceil(groups);
            part.insert(count_below(*from), count_below(*until));
        }
        part
    }

    /// How many numbers are in both sets.
    pub fn overlap(&self, other: &Self) -> u64 {
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = 0;
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            both += u64::from(a.1.min(b.1).saturating_sub(a.0.max(b.0)));
            if a.1 <= b.1 {
                mine.next();
            } else {
                theirs.next();
            }
        }
        both
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_group_has_each_of_its_numbers() {
        let mut ranges = Ranges::default();
        let numbers = [0, 1, 2, 5, 9, 10, 11, 12, 13, 20];
        numbers.iter().for_each(|number| ranges.insert(*number, *number + 1));
        for groups in 1..6 {
            for group in 0..groups {
                let mut expected = Ranges::default();
                let of_group = numbers.iter().filter(|number| *number % groups == group);
                of_group.for_each(|number| expected.insert(number / groups, number / groups + 1));
                assert_eq!(ranges.of_group(group, groups), expected, "{group} of {groups}");
            }
        }
    }

    #[test]
    fn ranges_of_another_process_are_sound_or_refused() {
        let mut ranges = Ranges::default();
        [(2, 5), (7, 8)].iter().for_each(|(from, until)| ranges.insert(*from, *until));
        let text = serde_json::to_string(&ranges).unwrap();
        assert_eq!(serde_json::from_str::<Ranges>(&text).unwrap(), ranges);
        for bad in ["[[5,2]]", "[[1,1]]", "[[1,3],[2,5]]", "[[4,5],[1,2]]", "[[1,2],[2,3]]"] {
            assert!(serde_json::from_str::<Ranges>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_agree_with_a_plain_set_after_many_changes() {
        let mut state = 12345u32;
        let mut next = |bound: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % bound
        };
        let (mut ranges, mut plain) = (Ranges::default(), BTreeSet::new());
        let (mut other, mut other_plain) = (Ranges::default(), BTreeSet::new());
        for _ in 0..5000 {
            let (from, count) = (next(200), next(6));
            match next(3) {
                0 => {
                    ranges.insert(from, from + count);
                    plain.extend(from..from + count);
                }
                1 => assert_eq!(ranges.remove(from), plain.remove(&from)),
                _ => {
                    other.insert(from, from + 1);
                    other_plain.insert(from);
                    assert_eq!(other.remove(from + 1), other_plain.remove(&(from + 1)));
                }
            }
            assert_eq!(ranges.count(), plain.len() as u64);
            assert_eq!(ranges.overlap(&other), plain.intersection(&other_plain).count() as u64);
            assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "{ranges:?}");
        }
    }
}
