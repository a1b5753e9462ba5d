//! Sets of sequence numbers as ascending, separate ranges. A healthy stream is one range.

/// A set of sequence numbers from 1. Memory is 16 bytes per hole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ranges {
    /// First and last number of each range; no two touch.
    ranges: Vec<(u64, u64)>,
}

impl Ranges {
    /// The numbers 1 to `last`.
    pub(crate) fn upto(last: u64) -> Self {
        let mut ranges = Self::default();
        ranges.insert(1, last);
        ranges
    }

    /// Adds the numbers from `first` to `last`; nothing if there are none between.
    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        if let Some(end) = self.ranges.last_mut()
            && end.0 <= first
            && first <= end.1.saturating_add(1)
        {
            end.1 = end.1.max(last);
            return;
        }
        let from = self.ranges.partition_point(|range| range.1.saturating_add(1) < first);
        let to = self.ranges.partition_point(|range| range.0 <= last.saturating_add(1));
        let (mut low, mut high) = (first, last);
        if from < to {
            low = low.min(self.ranges[from].0);
            high = high.max(self.ranges[to - 1].1);
        }
        self.ranges.splice(from..to, [(low, high)]);
    }

    /// Whether the number is in.
    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.covers(seq, seq)
    }

    /// Whether all numbers from `first` to `last` are in.
    pub(crate) fn covers(&self, first: u64, last: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < first);
        self.ranges.get(at).is_some_and(|range| range.0 <= first && last <= range.1)
    }

    /// The last number of those that are in without a hole from 1 on; 0 if 1 is not in.
    pub(crate) fn prefix(&self) -> u64 {
        self.ranges.first().filter(|range| range.0 == 1).map_or(0, |range| range.1)
    }

    /// The greatest number that is in; 0 if none is.
    pub(crate) fn last(&self) -> u64 {
        self.ranges.last().map_or(0, |range| range.1)
    }

    /// How many numbers are in.
    pub(crate) fn count(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to - from + 1).sum()
    }

    /// All ranges, in order.
    pub(crate) fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// The ranges after the prefix.
    pub(crate) fn beyond_prefix(&self) -> &[(u64, u64)] {
        match self.ranges.first() {
            Some((1, _)) => &self.ranges[1..],
            _ => &self.ranges,
        }
    }

    /// What is missing up to `last`.
    pub(crate) fn holes(&self, last: u64) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut next = 1;
        for (from, to) in self.ranges.iter().filter(|range| range.0 <= last) {
            if *from > next {
                holes.push((next, from - 1));
            }
            next = to.saturating_add(1);
        }
        if next <= last {
            holes.push((next, last));
        }
        holes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ranges_are_the_set_of_what_was_put_in() {
        let mut random = 7_u64;
        let mut next = move |end: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % end
        };
        for _ in 0..300 {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for _ in 0..next(30) {
                let first = 1 + next(60);
                let last = first + next(6);
                ranges.insert(first, last);
                set.extend(first..=last);
            }
            let prefix = (1..).take_while(|seq| set.contains(seq)).count() as u64;
            assert_eq!(ranges.prefix(), prefix);
            assert_eq!(ranges.last(), set.last().copied().unwrap_or(0));
            assert!((1..70).all(|seq| ranges.contains(seq) == set.contains(&seq)));
            let holes: Vec<u64> =
                ranges.holes(70).into_iter().flat_map(|(from, to)| from..=to).collect();
            assert_eq!(holes, (1..=70).filter(|seq| !set.contains(seq)).collect::<Vec<_>>());
            let first = 1 + next(60);
            let last = first + next(5);
            let all = (first..=last).all(|seq| set.contains(&seq));
            assert_eq!(ranges.covers(first, last), all);
            let apart = ranges.ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0);
            assert!(apart, "{ranges:?}");
        }
    }

    #[test]
    fn the_end_of_the_number_line_is_a_number() {
        let mut ranges = Ranges::upto(5);
        ranges.insert(u64::MAX, u64::MAX);
        ranges.insert(7, 7);
        assert_eq!(ranges.beyond_prefix(), [(7, 7), (u64::MAX, u64::MAX)]);
        assert_eq!(ranges.holes(8), [(6, 6), (8, 8)]);
    }
}
