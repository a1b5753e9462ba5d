//! How old a message is, without a byte per message: records of a stream stand in order of time, so a list of where each
//! span of time began says of any of its numbers when it was accepted, to the span.
//!
//! A list is a function of the records that were seen, in any order, and does not depend on where they lie: copies have
//! the number and the time of the original. What is not known counts as young: nothing is removed for it.

use std::collections::{BTreeMap, VecDeque};

use crate::id::ShardId;

/// An age is told to this part of it.
const SPANS_PER_AGE: u64 = 64;
/// The shortest span. Milliseconds.
const SPAN_MS_MIN: u64 = 1000;
/// Spans of one stream, at most: those of an age, and some in which a clock was ahead.
const SPANS_MAX: usize = 2 * SPANS_PER_AGE as usize;

/// The spans of one stream.
#[derive(Default)]
struct Stream {
    /// Numbers below are too old.
    floor: u64,
    /// Number of the span of time and the lowest number of the stream seen in it, both ascending.
    spans: VecDeque<(u64, u64)>,
    /// The highest number seen.
    last: u64,
}

/// The ages of all streams of a partition.
pub(super) struct Ages {
    /// 0: nothing grows too old.
    age_ms: u64,
    span_ms: u64,
    /// By number of the origin and shard.
    streams: BTreeMap<(u16, ShardId), Stream>,
}

impl Ages {
    pub(super) fn new(age_ms: u64) -> Self {
        let span_ms = (age_ms / SPANS_PER_AGE).max(SPAN_MS_MIN);
        Self { age_ms, span_ms, streams: BTreeMap::new() }
    }

    pub(super) fn are_kept(&self) -> bool {
        self.age_ms > 0
    }

    /// The span that a message is told apart to. Milliseconds.
    pub(super) fn span_ms(&self) -> u64 {
        self.span_ms
    }

    /// A record with this number was accepted at this time.
    pub(super) fn note(&mut self, origin: u16, shard: ShardId, seq: u64, at_ms: u64) {
        if self.age_ms == 0 {
            return;
        }
        let span = at_ms / self.span_ms;
        let stream = self.streams.entry((origin, shard)).or_default();
        stream.last = stream.last.max(seq);
        if let Some((last, first)) = stream.spans.back_mut()
            && *last == span
        {
            *first = seq.min(*first);
            return;
        }
        match stream.spans.binary_search_by_key(&span, |(span, _)| *span) {
            Ok(place) => stream.spans[place].1 = stream.spans[place].1.min(seq),
            Err(place) => stream.spans.insert(place, (span, seq)),
        }
        if stream.spans.len() > SPANS_MAX {
            // Without its beginning, what is in it counts as young.
            stream.spans.pop_front();
        }
    }

    /// Whether a message was accepted more than the age and `grace_ms` ago.
    pub(super) fn is_over(
        &self,
        origin: u16,
        shard: ShardId,
        seq: u64,
        now: u64,
        grace_ms: u64,
    ) -> bool {
        let Some(stream) = self.streams.get(&(origin, shard)) else { return false };
        if seq < stream.floor {
            return true;
        }
        let place = stream.spans.partition_point(|(_, first)| *first <= seq);
        let span = place.checked_sub(1).map(|place| stream.spans[place].0);
        span.is_some_and(|span| self.end_ms(span) + grace_ms <= now)
    }

    /// When the last message of a span is too old.
    fn end_ms(&self, span: u64) -> u64 {
        (span + 1) * self.span_ms + self.age_ms
    }

    /// Forgets spans that are over, with the longest grace besides: only that they are is remembered.
    pub(super) fn prune(&mut self, now: u64, grace_ms: u64) {
        let (span_ms, age_ms) = (self.span_ms, self.age_ms);
        let over = |span: u64| (span + 1) * span_ms + age_ms + grace_ms <= now;
        for stream in self.streams.values_mut() {
            while stream.spans.front().is_some_and(|(span, _)| over(*span)) {
                stream.spans.pop_front();
                let next = stream.spans.front().map_or(stream.last + 1, |(_, first)| *first);
                stream.floor = stream.floor.max(next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE_MS: u64 = 64_000;
    const SHARD: ShardId = ShardId(3);

    #[test]
    fn a_message_is_over_once_its_span_is_older_than_the_age_and_not_before() {
        let mut ages = Ages::new(AGE_MS);
        for seq in 1..=200 {
            ages.note(0, SHARD, seq, 1_000_000 + seq * 100);
        }
        for seq in 1..=200 {
            let at_ms = 1_000_000 + seq * 100;
            assert!(!ages.is_over(0, SHARD, seq, at_ms + AGE_MS, 0), "{seq}");
            assert!(ages.is_over(0, SHARD, seq, at_ms + AGE_MS + 1000, 0), "{seq}");
        }
        assert!(!ages.is_over(1, SHARD, 1, u64::MAX, 0), "nothing is known of that stream");
        assert!(!ages.is_over(0, ShardId(4), 1, u64::MAX, 0));
    }

    #[test]
    fn the_order_in_which_records_are_seen_and_pruning_change_nothing() {
        let at_ms = |seq: u64| 5_000_000 + seq * 77;
        let mut ordered = Ages::new(AGE_MS);
        let mut shuffled = Ages::new(AGE_MS);
        (1..=1008).for_each(|seq| ordered.note(7, SHARD, seq, at_ms(seq)));
        // All numbers below a prime, in another order.
        let others = (1..=1008).map(|seq| seq * 389 % 1009);
        others.for_each(|seq| shuffled.note(7, SHARD, seq, at_ms(seq)));
        for now in (5_000_000..5_000_000 + 78_000 + 2 * AGE_MS).step_by(997) {
            ordered.prune(now, 0);
            for seq in (1..=1008).step_by(13) {
                let over = ordered.is_over(7, SHARD, seq, now, 0);
                assert_eq!(over, shuffled.is_over(7, SHARD, seq, now, 0), "{seq} at {now}");
            }
        }
        let spans: usize = ordered.streams.values().map(|stream| stream.spans.len()).sum();
        assert_eq!(spans, 0, "all is over and forgotten");
    }

    #[test]
    fn a_clock_that_runs_ahead_for_ever_fills_no_memory_and_makes_nothing_old() {
        let mut ages = Ages::new(AGE_MS);
        for seq in 1..=10_000 {
            ages.note(0, SHARD, seq, seq * 1000);
        }
        assert_eq!(ages.streams[&(0, SHARD)].spans.len(), SPANS_MAX);
        assert!(!ages.is_over(0, SHARD, 1, 20_000_000, 0), "its beginning was forgotten: young");
        assert!(ages.is_over(0, SHARD, 9999, 20_000_000, 0));
    }

    #[test]
    fn without_an_age_nothing_is_kept() {
        let mut ages = Ages::new(0);
        ages.note(0, SHARD, 1, 1);
        assert!(ages.streams.is_empty() && !ages.are_kept());
    }
}
