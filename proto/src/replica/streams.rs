//! What is known of every stream: which numbers are here, which are synced, what the peer has, and in which segments of
//! the log they lie.

use std::collections::{BTreeMap, VecDeque};

use super::chain::Chain;
use super::effects::RecordView;
use super::frame::{Known, StreamKey};
use super::ranges::Ranges;
use crate::limits::STREAMS_PER_PARTITION_MAX;
use crate::sabotage::{self, Sabotage};

/// A run of numbers of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) stream: u32,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Adds a number to a list of spans, as part of the last one if it follows.
pub(crate) fn add_to_spans(spans: &mut Vec<Span>, stream: u32, seq: u64) {
    match spans.iter_mut().rev().take(8).find(|span| span.stream == stream) {
        Some(span) if span.last + 1 == seq => span.last = seq,
        Some(span) if (span.first..=span.last).contains(&seq) => {}
        _ => spans.push(Span { stream, first: seq, last: seq }),
    }
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) key: StreamKey,
    /// Records that were appended here, and those that will never come because they were done with.
    pub(crate) known: Ranges,
    /// Of those, what a crash leaves: what may be claimed.
    pub(crate) synced: Ranges,
    pub(crate) chain: Chain,
    /// The same number means different records here and at the peer.
    pub(crate) fenced: bool,
    /// What the peer has or is being sent; not sent again over this link.
    pub(crate) peer_has: Ranges,
    /// What the peer has synced.
    pub(crate) peer_synced: Ranges,
    /// What the peer claimed without a hole when the link began.
    pub(crate) peer_claimed: u64,
    /// Up to where a synced MARK says that all is known.
    marked: u64,
    /// The segment that the newest record lies in, and its span there.
    at: (u32, usize),
}

impl Stream {
    fn new(key: StreamKey) -> Self {
        Self {
            key,
            known: Ranges::default(),
            synced: Ranges::default(),
            chain: Chain::default(),
            fenced: false,
            peer_has: Ranges::default(),
            peer_synced: Ranges::default(),
            peer_claimed: 0,
            marked: 0,
            at: (0, 0),
        }
    }

    /// Whether the peer claims records that are not known here. A fenced stream is exchanged no more.
    pub(super) fn lacks_claimed(&self) -> bool {
        let has = |from, to| self.known.covers(from, to);
        !self.fenced && !self.peer_has.ranges().iter().all(|(from, to)| has(*from, *to))
    }

    /// Up to where a MARK says that all is known.
    pub(crate) fn marks_upto(&self) -> u64 {
        match sabotage::is(Sabotage::MarkTooHigh) {
            true => self.known.last(),
            false => self.known.prefix(),
        }
    }

    /// What may be claimed of it.
    pub(crate) fn claim(&self) -> Known {
        let synced = if sabotage::is(Sabotage::ClaimUnsynced) { &self.known } else { &self.synced };
        let extra = synced.beyond_prefix();
        let extra = extra[..extra.len().min(super::frame::EXTRA_MAX)].to_vec();
        Known { stream: self.key, prefix: synced.prefix(), extra }
    }
}

/// All streams of a partition.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    all: Vec<Stream>,
    by_key: BTreeMap<StreamKey, u32>,
    /// The one asked for last.
    last: Option<(StreamKey, u32)>,
    /// What each segment holds.
    segments: BTreeMap<u32, Vec<Span>>,
    /// Appended and not synced: the log position, and what.
    unsynced: VecDeque<(u64, Span)>,
    /// MARKs appended and not synced: the log position, the stream, and up to where all of it is known.
    marks: VecDeque<(u64, u32, u64)>,
}

impl Streams {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.all.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.all.iter_mut()
    }

    pub(crate) fn find(&mut self, key: StreamKey) -> Option<u32> {
        if let Some((last, index)) = self.last
            && last == key
        {
            return Some(index);
        }
        let index = *self.by_key.get(&key)?;
        self.last = Some((key, index));
        Some(index)
    }

    pub(crate) fn get(&self, key: StreamKey) -> Option<&Stream> {
        Some(&self.all[*self.by_key.get(&key)? as usize])
    }

    /// The stream with this key; `None` if it is new and there are too many.
    pub(crate) fn find_or_add(&mut self, key: StreamKey) -> Option<u32> {
        if let Some(index) = self.find(key) {
            return Some(index);
        }
        if self.all.len() == STREAMS_PER_PARTITION_MAX {
            return None;
        }
        let index = self.all.len() as u32;
        self.all.push(Stream::new(key));
        self.by_key.insert(key, index);
        Some(index)
    }

    /// A record of the stream was appended for the first time.
    pub(crate) fn appended(&mut self, stream: u32, record: &RecordView<'_>, lsn: u64) {
        let seq = record.dot.seq;
        let of = &mut self.all[stream as usize];
        of.known.insert(seq, seq);
        if of.chain.seq() + 1 == seq {
            of.chain.push(record);
        }
        match self.unsynced.back_mut() {
            Some((last, span)) if (*last, span.stream, span.last + 1) == (lsn, stream, seq) => {
                span.last = seq;
            }
            _ => self.unsynced.push_back((lsn, Span { stream, first: seq, last: seq })),
        }
    }

    /// A MARK at this position says that all of a stream is known up to `last`: it may be claimed once that is synced, also
    /// what is dead, and also by lives to come.
    pub(crate) fn marked_at(&mut self, lsn: u64, stream: u32, last: u64) {
        self.unsynced.push_back((lsn, Span { stream, first: 1, last }));
        self.marks.push_back((lsn, stream, last));
    }

    /// Everything up to this log position is synced.
    pub(crate) fn synced(&mut self, lsn: u64) {
        while let Some((_, span)) = self.unsynced.front().filter(|(of, _)| *of <= lsn) {
            self.all[span.stream as usize].synced.insert(span.first, span.last);
            self.unsynced.pop_front();
        }
        while let Some((_, stream, last)) = self.marks.front().filter(|(of, ..)| *of <= lsn) {
            let (stream, last) = (*stream, *last);
            self.marks.pop_front();
            let of = &mut self.all[stream as usize];
            of.marked = of.marked.max(last);
        }
    }

    /// A record, or a copy of one, lies in a segment.
    pub(crate) fn lies_in(&mut self, segment: u32, stream: u32, seq: u64) {
        let of = &mut self.all[stream as usize];
        let spans = self.segments.entry(segment).or_default();
        if of.at.0 == segment
            && let Some(span) = spans.get_mut(of.at.1).filter(|span| span.stream == stream)
            && span.last + 1 == seq
        {
            span.last = seq;
            return;
        }
        of.at = (segment, spans.len());
        spans.push(Span { stream, first: seq, last: seq });
    }

    /// A segment is gone.
    pub(crate) fn dropped(&mut self, segment: u32) {
        self.segments.remove(&segment);
        for stream in self.all.iter_mut().filter(|stream| stream.at.0 == segment) {
            stream.at = (0, 0);
        }
    }

    /// What each segment holds, in order.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (u32, &[Span])> {
        self.segments.iter().map(|(segment, spans)| (*segment, spans.as_slice()))
    }

    /// What a segment holds.
    pub(crate) fn in_segment(&self, segment: u32) -> &[Span] {
        self.segments.get(&segment).map_or(&[][..], Vec::as_slice)
    }

    /// Whether the peer has everything in a segment synced, and a MARK will tell later lives that it was here: beyond a hole
    /// none does. Records of fenced streams stay here for good.
    pub(crate) fn is_covered(&self, segment: u32) -> bool {
        self.in_segment(segment).iter().all(|span| {
            let stream = &self.all[span.stream as usize];
            let is_there = stream.peer_synced.covers(span.first, span.last);
            let is_marked = span.last <= stream.marked;
            !stream.fenced && is_there && is_marked
        })
    }

    /// The highest incarnation of a node that a record is known of; 0 if none is.
    pub(crate) fn incarnation_of(&self, node: u32) -> u32 {
        let of_node = self.by_key.keys().filter(|key| key.origin.node == node);
        of_node.map(|key| key.origin.incarnation).max().unwrap_or(0)
    }
}

impl std::ops::Index<u32> for Streams {
    type Output = Stream;

    fn index(&self, index: u32) -> &Stream {
        &self.all[index as usize]
    }
}

impl std::ops::IndexMut<u32> for Streams {
    fn index_mut(&mut self, index: u32) -> &mut Stream {
        &mut self.all[index as usize]
    }
}
