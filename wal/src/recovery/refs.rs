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

/// Two segments hold the same message; the later one counts as the copy's.
fn link(reclaim: &mut Reclaim, one: u32, other: u32) {
    reclaim.copied(one.min(other), one.max(other));
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
