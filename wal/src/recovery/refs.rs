//! Rebuilds, from the records that recovery reads, which segments hold messages that the TOMBs of which segments
//! name. Reclaim needs it for TOMBs written before the restart.
//!
//! A stream is gapless and is appended in order, so the first MSGs of a segment are a few ranges of sequence numbers
//! per (shard, origin). Copies, and whatever else is out of order, are listed one by one.

use crate::reclaim::Reclaim;
use crate::record::Origin;
use crate::targets::Run;

#[derive(Clone, Copy, Debug)]
struct Range {
    stream: u32,
    first: u64,
    last: u64,
    segment: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Single {
    stream: u32,
    seq: u64,
    segment: u32,
}

#[derive(Debug)]
struct Stream {
    id: u32,
    origin: Origin,
    /// The range that the next MSG probably extends.
    range: Option<usize>,
    newest: u64,
}

/// Collects MSGs and TOMBs.
#[derive(Debug, Default)]
pub(super) struct Refs {
    by_shard: Vec<Vec<Stream>>,
    streams: u32,
    ranges: Vec<Range>,
    singles: Vec<Single>,
    tombs: Vec<Range>,
}

impl Refs {
    /// A MSG or a copy stands in `segment`.
    pub(super) fn msg(&mut self, segment: u32, shard: u16, origin: Origin, seq: u64, copy: bool) {
        let Self { by_shard, streams, ranges, singles, .. } = self;
        let stream = stream(by_shard, streams, shard, origin);
        let id = stream.id;
        if copy || seq <= stream.newest {
            singles.push(Single { stream: id, seq, segment });
            return;
        }
        stream.newest = seq;
        if let Some(range) = stream.range.map(|i| &mut ranges[i])
            && range.segment == segment
        {
            // Between two MSGs of a stream stand its TOMBs: no other segment holds a MSG in between.
            range.last = seq;
            return;
        }
        stream.range = Some(ranges.len());
        ranges.push(Range { stream: id, first: seq, last: seq, segment });
    }

    /// A TOMB in `segment` names a run of dots.
    pub(super) fn tomb(&mut self, segment: u32, shard: u16, run: Run) {
        let id = stream(&mut self.by_shard, &mut self.streams, shard, run.origin).id;
        let last = run.first + u64::from(run.count) - 1;
        if let Some(end) = self.tombs.last_mut()
            && (end.stream, end.segment) == (id, segment)
            && end.last.checked_add(1) == Some(run.first)
        {
            end.last = last;
            return;
        }
        self.tombs.push(Range { stream: id, first: run.first, last, segment });
    }

    /// Tells `reclaim` what refers to what. Every segment is open there.
    pub(super) fn finish(mut self, reclaim: &mut Reclaim) {
        self.ranges.sort_by_key(|range| (range.stream, range.first));
        self.singles.sort_unstable();
        self.singles.dedup();
        self.tell_copies(reclaim);
        let mut told = None;
        let tombs = std::mem::take(&mut self.tombs);
        for tomb in &tombs {
            self.holders(tomb, &mut |holder| {
                if told.replace((tomb.segment, holder)) != Some((tomb.segment, holder)) {
                    reclaim.tomb_refers(tomb.segment, holder);
                }
            });
        }
    }

    fn tell_copies(&self, reclaim: &mut Reclaim) {
        let same = |a: &Single, b: &Single| (a.stream, a.seq) == (b.stream, b.seq);
        for copies in self.singles.chunk_by(same) {
            for (i, copy) in copies.iter().enumerate() {
                let dot =
                    Range { stream: copy.stream, first: copy.seq, last: copy.seq, segment: 0 };
                self.ranges_over(&dot, &mut |from| link(reclaim, from, copy.segment));
                copies[..i].iter().for_each(|from| link(reclaim, from.segment, copy.segment));
            }
        }
    }

    fn holders(&self, dots: &Range, tell: &mut dyn FnMut(u32)) {
        self.ranges_over(dots, tell);
        let from =
            self.singles.partition_point(|one| (one.stream, one.seq) < (dots.stream, dots.first));
        let inside = self.singles[from..]
            .iter()
            .take_while(|one| one.stream == dots.stream && one.seq <= dots.last);
        inside.for_each(|one| tell(one.segment));
    }

    fn ranges_over(&self, dots: &Range, tell: &mut dyn FnMut(u32)) {
        let from = self.ranges.partition_point(|r| (r.stream, r.last) < (dots.stream, dots.first));
        let over = self.ranges[from..]
            .iter()
            .take_while(|range| range.stream == dots.stream && range.first <= dots.last);
        over.for_each(|range| tell(range.segment));
    }
}

/// Two segments hold the same message. Which of the two the index will point to is the core's choice, so each counts as
/// a copy of the other.
fn link(reclaim: &mut Reclaim, one: u32, other: u32) {
    reclaim.copied(one, other);
    reclaim.copied(other, one);
}

fn stream<'a>(
    by_shard: &'a mut Vec<Vec<Stream>>,
    streams: &mut u32,
    shard: u16,
    origin: Origin,
) -> &'a mut Stream {
    let shard = usize::from(shard);
    if by_shard.len() <= shard {
        by_shard.resize_with(shard + 1, Vec::new);
    }
    let of_shard = &mut by_shard[shard];
    // The newest origin is the busiest, so the search begins at the end.
    let found = of_shard.iter().rposition(|stream| stream.origin == origin);
    let index = found.unwrap_or_else(|| {
        of_shard.push(Stream { id: *streams, origin, range: None, newest: 0 });
        *streams += 1;
        of_shard.len() - 1
    });
    &mut of_shard[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { node: 1, incarnation: 1 };

    fn run(first: u64, count: u32) -> Run {
        Run { origin: ORIGIN, first, count }
    }

    /// Ten sealed segments without live entries, and what `refs` knows of them.
    fn told(refs: Refs) -> Reclaim {
        let mut reclaim = Reclaim::default();
        (1..=10).for_each(|segment| reclaim.opened_empty(segment));
        reclaim.opened(11);
        reclaim.checkpoint_began(11);
        reclaim.checkpoint_complete(0);
        refs.finish(&mut reclaim);
        reclaim
    }

    #[test]
    fn tombs_hold_on_to_the_segments_of_exactly_the_messages_they_name() {
        let mut refs = Refs::default();
        for seq in 1..=30 {
            refs.msg(1 + (seq / 10) as u32, 5, ORIGIN, seq, false);
        }
        // Another shard and another life have the same numbers, elsewhere.
        refs.msg(9, 6, ORIGIN, 12, false);
        refs.msg(9, 5, Origin { node: 1, incarnation: 2 }, 12, false);
        refs.tomb(7, 5, run(12, 1));
        refs.tomb(8, 5, run(19, 2));
        assert_eq!(told(refs).droppable(), [1, 2, 3, 4, 5, 6, 9, 10]);
    }

    #[test]
    fn a_tomb_of_a_copy_holds_on_to_the_original_after_a_restart() {
        let mut refs = Refs::default();
        refs.msg(1, 5, ORIGIN, 7, false);
        refs.msg(2, 5, ORIGIN, 8, false);
        refs.msg(4, 5, ORIGIN, 7, true);
        refs.msg(6, 5, ORIGIN, 7, true);
        let mut reclaim = told(refs);
        reclaim.tomb_refers(8, 6);
        assert_eq!(reclaim.droppable(), [1, 2, 3, 4, 5, 6, 7, 9, 10]);
        reclaim.dropped(6);
        reclaim.dropped(1);
        assert!(!reclaim.droppable().contains(&8), "4 still holds the message");
        reclaim.dropped(4);
        assert!(reclaim.droppable().contains(&8));
    }

    #[test]
    fn a_tomb_of_an_original_holds_on_to_its_copy_after_a_restart() {
        let mut refs = Refs::default();
        refs.msg(1, 5, ORIGIN, 7, false);
        refs.msg(4, 5, ORIGIN, 7, true);
        let mut reclaim = told(refs);
        reclaim.tomb_refers(8, 1);
        reclaim.dropped(1);
        assert!(!reclaim.droppable().contains(&8), "4 still holds the message");
        reclaim.dropped(4);
        assert!(reclaim.droppable().contains(&8));
    }

    #[test]
    fn a_tomb_that_stands_before_its_message_counts() {
        let mut refs = Refs::default();
        refs.tomb(2, 5, run(7, 1));
        refs.msg(3, 5, ORIGIN, 7, false);
        refs.msg(3, 5, ORIGIN, 3, false);
        refs.tomb(4, 5, run(3, 1));
        assert_eq!(told(refs).droppable(), [1, 3, 5, 6, 7, 8, 9, 10]);
    }
}
