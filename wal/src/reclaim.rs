//! Decides which segments may go, and which sparse one is worth rewriting.
//!
//! A message is live while its MSG is in the log and no TOMB for it is. So a segment is dropped only when
//!
//! 1. it is sealed, its footer is written, and no live inbox entry lies in it;
//! 2. no TOMB in it names a message of which a MSG or a rewritten copy still exists in another segment: else the
//!    message would come back (I3);
//! 3. it is older than the segment where the last complete dedup checkpoint began: else a retry could pass (I5);
//! 4. the batch that made 1 true is itself synced: else a crash could lose a message together with the TOMB or the
//!    copy that made it dead here;
//! 5. every older segment has its footer or is quarantined: recovery follows batch numbers from segment to segment.
//!
//! With a mirror there is one more, which the caller checks: the peer has synced every record in it.
//!
//! A quarantined segment (a faulty range was found in it) is never dropped and never rewritten from.
//!
//! Copies: when survivors move from segment A to B, A still holds their first MSG until it is dropped. Who refers to
//! B therefore refers to A as well, for as long as A exists.

use std::collections::VecDeque;

use crate::Pos;

/// When a sparse segment is worth rewriting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold {
    /// Rewrite when live bytes are below this share of what the rewrite would free.
    pub live_percent: u64,
    /// Rewrite nothing while the log is smaller than this, in bytes.
    pub log_bytes_min: u64,
}

impl Default for Threshold {
    fn default() -> Self {
        Self { live_percent: 40, log_bytes_min: 512 << 20 }
    }
}

/// What is known of one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentUse {
    /// Its number.
    pub segment: u32,
    /// Inbox entries in it.
    pub live: u64,
    /// Bytes of records that inbox entries point to; a message with several recipients counts once for each, but
    /// never more in all than `data_bytes`.
    pub live_bytes: u64,
    /// Bytes of frames in it; of the active segment 0.
    pub data_bytes: u64,
    /// Whether it is full.
    pub sealed: bool,
    /// Whether its footer is on disk.
    pub footer_written: bool,
    /// Whether a faulty range was found in it.
    pub quarantined: bool,
}

#[derive(Debug, Default)]
struct Segment {
    live: u64,
    live_bytes: u64,
    data_bytes: u64,
    sealed: bool,
    footer_written: bool,
    quarantined: bool,
    /// The batch with the last removal or move; the segment stays until it is synced.
    gate: u64,
    /// Other existing segments with messages that TOMBs in here name; ascending.
    refers: Vec<u32>,
    /// Other existing segments that survivors in here were copied from; ascending.
    copied_from: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Checkpoint {
    /// Where the one being written began.
    began: Option<u32>,
    /// Where one began whose last batch, the second number, is not synced yet.
    written: Option<(u32, u64)>,
    /// Segments below may go, as far as dedup is concerned.
    floor: u32,
}

/// The accounting of one log. The caller reports in the same turn as it appends.
#[derive(Debug, Default)]
pub struct Reclaim {
    /// The number of `segments[0]`. Numbers only grow, so a deque is a map with constant-time look-up.
    first: u32,
    segments: VecDeque<Option<Box<Segment>>>,
    durable: u64,
    checkpoint: Checkpoint,
}

impl Reclaim {
    /// A segment exists from now on.
    pub fn opened(&mut self, segment: u32) {
        if self.segments.is_empty() {
            self.first = segment;
        }
        let index = segment.checked_sub(self.first).expect("segment numbers only grow") as usize;
        while self.segments.len() <= index {
            self.segments.push_back(None);
        }
        assert!(self.segments[index].is_none(), "segment {segment} is opened once");
        self.segments[index] = Some(Box::default());
    }

    /// A segment without frames exists, and none will be written to it.
    pub fn opened_empty(&mut self, segment: u32) {
        self.opened(segment);
        self.sealed(segment, 0);
        self.footer_written(segment);
    }

    /// It is full, with this many bytes of frames.
    pub fn sealed(&mut self, segment: u32, data_bytes: u64) {
        let state = self.state(segment);
        state.sealed = true;
        state.data_bytes = data_bytes;
    }

    /// Its footer is on disk.
    pub fn footer_written(&mut self, segment: u32) {
        self.state(segment).footer_written = true;
    }

    /// A faulty range was found in it: it stays. One that is gone already stays gone.
    pub fn quarantine(&mut self, segment: u32) {
        if let Some(state) = self.get_mut(segment) {
            state.quarantined = true;
        }
    }

    /// An inbox entry points to the record at `pos`.
    pub fn entry_added(&mut self, pos: Pos, len: u32) {
        let state = self.state(pos.segment);
        state.live += 1;
        state.live_bytes += u64::from(len);
    }

    /// It no longer does; batch `gate` holds the TOMB.
    pub fn entry_removed(&mut self, pos: Pos, len: u32, gate: u64) {
        let state = self.state(pos.segment);
        assert!(state.live > 0, "an entry is removed from {} once", pos.segment);
        state.live -= 1;
        state.live_bytes -= u64::from(len);
        state.gate = state.gate.max(gate);
    }

    /// An entry points to the copy at `to` instead; batch `gate` holds the copy.
    pub fn entry_moved(&mut self, from: (Pos, u32), to: (Pos, u32), gate: u64) {
        self.entry_removed(from.0, from.1, gate);
        self.entry_added(to.0, to.1);
        self.copied(from.0.segment, to.0.segment);
    }

    /// Segment `to` holds copies of messages in `from`.
    pub(crate) fn copied(&mut self, from: u32, to: u32) {
        if from == to || self.state(to).copied_from.binary_search(&from).is_ok() {
            return;
        }
        let mut all = self.state(from).copied_from.clone();
        all.push(from);
        let into = &mut self.state(to).copied_from;
        all.into_iter().filter(|segment| *segment != to).for_each(|segment| insert(into, segment));
    }

    /// A TOMB in `tomb` names a message in `target`. A target that no longer exists needs no TOMB.
    pub fn tomb_refers(&mut self, tomb: u32, target: u32) {
        let Some(state) = self.get(target) else { return };
        if state.copied_from.is_empty() {
            if tomb != target {
                insert(&mut self.state(tomb).refers, target);
            }
            return;
        }
        let mut all = state.copied_from.clone();
        all.push(target);
        let into = &mut self.state(tomb).refers;
        all.into_iter().filter(|target| *target != tomb).for_each(|target| insert(into, target));
    }

    /// A dedup checkpoint of all shards begins; its first record goes to `segment` or a later one.
    pub fn checkpoint_began(&mut self, segment: u32) {
        self.checkpoint.began = Some(segment);
    }

    /// It is complete; batch `gate` holds its last record.
    pub fn checkpoint_complete(&mut self, gate: u64) {
        if let Some(began) = self.checkpoint.began.take() {
            self.checkpoint.written = Some((began, gate));
            self.settle_checkpoint();
        }
    }

    /// Everything up to this batch is synced.
    pub fn durable(&mut self, batch_no: u64) {
        self.durable = self.durable.max(batch_no);
        self.settle_checkpoint();
    }

    fn settle_checkpoint(&mut self) {
        if let Some((began, gate)) = self.checkpoint.written
            && gate <= self.durable
        {
            self.checkpoint.floor = began;
            self.checkpoint.written = None;
        }
    }

    /// The segments that may be dropped now. Those that TOMBs hold back follow after [`Self::dropped`].
    pub fn droppable(&self) -> Vec<u32> {
        let older = self.dead().take_while(|(segment, _)| *segment < self.checkpoint.floor);
        older.map(|(segment, _)| segment).collect()
    }

    /// Bytes of frames in segments that could be dropped if a dedup checkpoint were complete.
    pub fn waiting_for_checkpoint(&self) -> u64 {
        let waiting = self.dead().filter(|(segment, _)| *segment >= self.checkpoint.floor);
        waiting.map(|(_, state)| state.data_bytes).sum()
    }

    /// The segments that only a dedup checkpoint may still need.
    fn dead(&self) -> impl Iterator<Item = (u32, &Segment)> {
        let settled =
            self.each().take_while(|(_, state)| state.footer_written || state.quarantined);
        settled.filter(|(_, state)| {
            let synced = state.gate <= self.durable;
            state.live == 0 && state.refers.is_empty() && synced && !state.quarantined
        })
    }

    /// The sealed segment whose survivors are best rewritten, if the log is larger than live data justifies.
    ///
    /// A rewrite frees the segment, and its share of segments without live entries whose TOMBs only wait for it to
    /// go: one long-lived message must not hold back a thousand segments of TOMBs.
    pub fn sparse(&self, threshold: Threshold) -> Option<u32> {
        let (mut data, mut live) = (0u64, 0u64);
        let mut held = vec![0u64; self.segments.len()];
        for (_, state) in self.each().filter(|(_, state)| state.sealed) {
            data += state.data_bytes;
            live += state.live_bytes.min(state.data_bytes);
            if state.live == 0 && !state.quarantined {
                let share = state.data_bytes / state.refers.len().max(1) as u64;
                for target in &state.refers {
                    held[(target - self.first) as usize] += share;
                }
            }
        }
        if data < threshold.log_bytes_min || data * threshold.live_percent <= live * 100 {
            return None;
        }
        let worth = self.each().filter_map(|(segment, state)| {
            let frees = state.data_bytes + held[(segment - self.first) as usize];
            let sparse = state.live_bytes * 100 < frees * threshold.live_percent;
            let usable = state.sealed && state.footer_written && !state.quarantined;
            (usable && state.live > 0 && sparse).then_some((segment, state.live_bytes, frees))
        });
        // The least live bytes for each byte freed, compared without division.
        worth
            .min_by_key(|(_, live, frees)| u128::from(*live) * (1 << 64) / u128::from(*frees))
            .map(|(segment, ..)| segment)
    }

    /// The segment is gone from the disk, and its absence is synced.
    pub fn dropped(&mut self, segment: u32) {
        let index = (segment - self.first) as usize;
        assert!(self.segments[index].take().is_some(), "segment {segment} existed");
        for state in self.segments.iter_mut().flatten() {
            remove(&mut state.refers, segment);
            remove(&mut state.copied_from, segment);
        }
        while self.segments.front().is_some_and(Option::is_none) {
            self.segments.pop_front();
            self.first += 1;
        }
    }

    /// Every existing segment.
    pub fn segments(&self) -> impl Iterator<Item = SegmentUse> {
        self.each().map(|(segment, state)| SegmentUse {
            segment,
            live: state.live,
            live_bytes: match state.sealed {
                true => state.live_bytes.min(state.data_bytes),
                false => state.live_bytes,
            },
            data_bytes: state.data_bytes,
            sealed: state.sealed,
            footer_written: state.footer_written,
            quarantined: state.quarantined,
        })
    }

    fn each(&self) -> impl Iterator<Item = (u32, &Segment)> {
        let numbered = (self.first..).zip(&self.segments);
        numbered.filter_map(|(segment, state)| Some((segment, state.as_deref()?)))
    }

    fn get(&self, segment: u32) -> Option<&Segment> {
        self.segments.get(segment.checked_sub(self.first)? as usize)?.as_deref()
    }

    fn get_mut(&mut self, segment: u32) -> Option<&mut Segment> {
        let index = segment.checked_sub(self.first)? as usize;
        self.segments.get_mut(index)?.as_deref_mut()
    }

    fn state(&mut self, segment: u32) -> &mut Segment {
        self.get_mut(segment).expect("entries and TOMBs lie in segments that exist")
    }
}

fn insert(sorted: &mut Vec<u32>, segment: u32) {
    if let Err(at) = sorted.binary_search(&segment) {
        sorted.insert(at, segment);
    }
}

fn remove(sorted: &mut Vec<u32>, segment: u32) {
    if let Ok(at) = sorted.binary_search(&segment) {
        sorted.remove(at);
    }
}

#[cfg(test)]
mod tests;
