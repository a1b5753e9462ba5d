//! Sending: what the peer lacks, from the log first and from memory then.
//!
//! A link ships, in this order: the segments of the log in which something lies that the peer did not claim (*healing*,
//! throttled); the message ids of records that were reclaimed, if there are such; END, which says that what was not sent
//! is dead; and then batch after batch of our own records as they are closed (*live*). When more is appended than a window
//! lets out, the oldest batches leave memory, and their segments are read again.
//!
//! Frames with records are numbered. Once END is reported synced, so is everything in the log up to where it was made, and
//! `peer_lsn` follows the numbers.

use std::collections::{BTreeMap, VecDeque};

use super::effects::{RecordBody, ReplicaEffects, ScanFrom, Scanned};
use super::frame::{self, ENTRIES_MAX, LIVE_MAX, Point, StreamKey};
use super::streams::{Span, Streams};
use super::tail::{Batch, Chunk, Cutter, Tail};
use super::{Now, Replica};
use crate::core::{CheckpointCursor, Core};
use crate::limits::REPLICA_FRAMES_MAX;
use crate::sabotage::{self, Sabotage};

/// Bytes that one scan reads, about.
const SCAN_BYTES: usize = 256 << 10;

/// A numbered frame that is not reported synced yet.
#[derive(Debug)]
struct Sent {
    number: u64,
    /// When, monotonic milliseconds.
    at_ms: u64,
    bytes: usize,
    spans: Vec<Span>,
    /// With this frame, the peer has everything in our log up to here; 0: that is not known.
    upto: u64,
}

/// A part of the log to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) from: ScanFrom,
    /// The peer lacked something in it when the link began.
    pub(super) initial: bool,
}

/// What a link has sent and has to send.
#[derive(Debug, Default)]
pub(crate) struct Shipping {
    /// The greeting is over.
    ready: bool,
    window: usize,
    last_number: u64,
    sent: VecDeque<Sent>,
    in_flight: usize,
    /// Numbers whose records are not synced here yet, with their log position.
    undurable: VecDeque<(u64, u64)>,
    durable_number: u64,
    parts: VecDeque<Part>,
    /// The log is read for all that the peer lacked when the link began.
    from_log: bool,
    /// The first number of ours that came after the link began, by stream: shipped after END, in the order of the log.
    first_after: BTreeMap<u32, u64>,
    scanning: bool,
    scanned: VecDeque<Chunk>,
    budget: i64,
    budget_ms: u64,
    dedup: Option<CheckpointCursor>,
    /// Where the list of what is live goes on.
    live: Option<u32>,
    /// Since when a part could not be read whole, and when it is tried again; both monotonic.
    unread: Option<(u64, u64)>,
    end: End,
    /// Batches in memory up to here were shipped, and of the next one so many chunks.
    tail_lsn: u64,
    tail_chunks: usize,
    /// The peer has everything in our log up to here, synced.
    peer_lsn: u64,
}

#[derive(Debug, Default)]
struct End {
    points: VecDeque<Point>,
    lsn: u64,
    sent: bool,
    number: u64,
    synced: bool,
}

impl Shipping {
    /// Everything in our log up to here is synced at the peer; `None` until that is known.
    pub(super) fn peer_lsn(&self) -> Option<u64> {
        self.end.synced.then_some(self.peer_lsn)
    }

    /// The frames up to this number hold nothing that a crash here would lose.
    pub(super) fn durable_number(&self) -> u64 {
        self.durable_number
    }

    /// Whether healing is over and the rest is in memory.
    pub(super) fn is_live(&self) -> bool {
        self.end.synced && self.parts.is_empty() && self.scanned.is_empty()
    }

    /// Whether a part of the log is to be read, and time must pass for that.
    pub(super) fn wants_scan(&self) -> bool {
        !self.parts.is_empty() && !self.scanning
    }

    /// How long the oldest frame has been under way.
    pub(super) fn oldest_ms(&self, now: Now) -> u64 {
        self.sent.front().map_or(0, |sent| now.mono_ms.saturating_sub(sent.at_ms))
    }

    /// Bytes shipped and not reported.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Batches up to here were shipped from memory.
    pub(super) fn tail_lsn(&self) -> u64 {
        self.tail_lsn
    }

    /// Begins: `parts` are to be read, END will say `points` of everything up to `lsn`.
    pub(super) fn begin(
        &mut self,
        window: usize,
        parts: Vec<u32>,
        points: Vec<Point>,
        first_after: BTreeMap<u32, u64>,
        lsn: u64,
    ) {
        self.ready = true;
        self.first_after = first_after;
        self.window = window;
        let part = |segment| Part { from: ScanFrom { segment, offset: 0 }, initial: true };
        self.from_log = !parts.is_empty();
        self.parts = parts.into_iter().map(part).collect();
        self.end = End { points: points.into(), lsn, ..End::default() };
    }

    /// The peer lacks records that were reclaimed here: message ids are told before END.
    pub(super) fn say_dedup(&mut self) {
        self.dedup = Some(CheckpointCursor::default());
    }

    /// The peer may have messages whose TOMB was reclaimed here: what is live is told before END.
    pub(super) fn say_live(&mut self) {
        self.live = Some(0);
    }

    /// Batches up to here are gone from the log.
    pub(super) fn skip_to(&mut self, lsn: u64) {
        if lsn > self.tail_lsn {
            (self.tail_lsn, self.tail_chunks) = (lsn, 0);
        }
    }

    /// The first number of ours in this stream that came after the link began.
    pub(super) fn first_after(&self, stream: u32) -> u64 {
        self.first_after.get(&stream).copied().unwrap_or(u64::MAX)
    }

    /// The part of the log that is being read.
    pub(super) fn part(&self) -> Option<Part> {
        self.parts.front().copied()
    }

    /// It was read whole, or what is missing is lost.
    pub(super) fn part_is_read(&mut self) {
        self.parts.pop_front();
        self.unread = None;
    }

    /// It is read again from its beginning, not before `again_ms`. Since when that is so.
    pub(super) fn read_again(&mut self, again_ms: u64) -> u64 {
        if let Some(part) = self.parts.front_mut() {
            part.from.offset = 0;
        }
        let since_ms = self.unread.map_or(again_ms, |(since_ms, _)| since_ms);
        self.unread = Some((since_ms, again_ms));
        since_ms
    }

    /// What END says changes, and it is said again if it was said: our log was damaged, and the peer has repaired it.
    pub(super) fn renew_end(&mut self, points: Vec<Point>, lsn: u64) {
        (self.end.points, self.end.lsn, self.end.sent) = (points.into(), lsn, false);
    }

    fn has_window(&self, bytes: usize) -> bool {
        let fits = self.in_flight == 0 || self.in_flight + bytes <= self.window;
        fits && self.sent.len() < REPLICA_FRAMES_MAX
    }

    /// Up to where everything in the log was shipped; 0 while that cannot be said.
    fn shipped_lsn(&self, tail: &Tail, closed_lsn: u64) -> u64 {
        if !self.end.sent || !self.parts.is_empty() || !self.scanned.is_empty() {
            return 0;
        }
        tail.after(self.tail_lsn).map_or(closed_lsn, |batch| batch.lsn - 1)
    }

    fn send(
        &mut self,
        fx: &mut impl ReplicaEffects,
        out: &mut Vec<u8>,
        now: Now,
        chunk: &Chunk,
        (lsn, upto): (u64, u64),
    ) {
        self.last_number += 1;
        out.clear();
        frame::put_records_head(out, self.last_number, chunk.bytes.len());
        fx.send(out, &chunk.bytes);
        self.note_sent(now, chunk.bytes.len(), chunk.spans.clone(), (lsn, upto));
    }

    /// Notes a frame that was sent. `lsn` is where its records are.
    fn note_sent(&mut self, now: Now, bytes: usize, spans: Vec<Span>, (lsn, upto): (u64, u64)) {
        let (number, at_ms) = (self.last_number, now.mono_ms);
        self.in_flight += bytes;
        self.sent.push_back(Sent { number, at_ms, bytes, spans, upto });
        self.undurable.push_back((number, lsn));
    }

    /// The local log is synced up to here.
    pub(super) fn durable(&mut self, lsn: u64) {
        while let Some((number, _)) = self.undurable.front().filter(|(_, of)| *of <= lsn) {
            self.durable_number = *number;
            self.undurable.pop_front();
        }
    }

    /// The peer synced the frames up to `number`. False if there is no such frame.
    pub(super) fn reported(
        &mut self,
        number: u64,
        streams: &mut Streams,
        tail: &Tail,
        closed_lsn: u64,
    ) -> bool {
        if number > self.last_number {
            return false;
        }
        while let Some(sent) = self.sent.front().filter(|sent| sent.number <= number) {
            self.peer_lsn = self.peer_lsn.max(sent.upto);
            self.in_flight -= sent.bytes;
            for span in &sent.spans {
                streams[span.stream].peer_synced.insert(span.first, span.last);
            }
            self.sent.pop_front();
        }
        if self.end.sent && number >= self.end.number {
            self.end.synced = true;
        }
        self.caught_up(tail, closed_lsn);
        true
    }

    /// With nothing under way, the peer has all that was shipped.
    pub(super) fn caught_up(&mut self, tail: &Tail, closed_lsn: u64) {
        if self.sent.is_empty() {
            self.peer_lsn = self.peer_lsn.max(self.shipped_lsn(tail, closed_lsn));
        }
    }

    /// A batch leaves memory: if it was not shipped, it is read again later.
    fn left_memory(&mut self, batch: &Batch, is_there: impl Fn(&Span) -> bool) {
        if batch.lsn <= self.tail_lsn {
            return;
        }
        (self.tail_lsn, self.tail_chunks) = (batch.lsn, 0);
        let from = ScanFrom { segment: batch.segment, offset: batch.offset };
        let initial = !self.end.sent && batch.lsn <= self.end.lsn;
        // Unless the log was read for it before.
        let was_read = batch.chunks.iter().flat_map(|chunk| &chunk.spans).all(is_there);
        let is_due = |part: &Part| part.initial && part.from.segment == batch.segment;
        if initial && self.from_log && (was_read || self.parts.iter().any(is_due)) {
            return;
        }
        // A scan that is out may have looked before this batch was durable.
        let is_out = self.scanning && self.parts.len() == 1;
        let is_in = |part: &Part| part.initial == initial && part.from.segment == from.segment;
        if is_out || !self.parts.back().is_some_and(is_in) {
            self.parts.push_back(Part { from, initial });
        }
    }

    /// Whether everything that END speaks of was sent.
    fn is_end_due(&self, tail: &Tail) -> bool {
        let in_memory = tail.after(self.tail_lsn).is_some_and(|batch| batch.lsn <= self.end.lsn);
        let on_disk = self.parts.iter().any(|part| part.initial) || !self.scanned.is_empty();
        let early = sabotage::is(Sabotage::EndTooEarly);
        !self.end.sent && (early || !in_memory && !on_disk)
    }
}

impl Replica {
    /// A batch of the log is closed and about to be written. `records` are its records, back to back.
    pub fn batch_closed(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        lsn: u64,
        place: ScanFrom,
        records: &[u8],
    ) {
        assert!(lsn > self.closed_lsn, "batches close in order");
        self.closed_lsn = lsn;
        let mut cutter = Cutter::new(records);
        let mut targets = std::mem::take(&mut self.scratch.targets);
        let mut next = 0;
        while next < records.len() {
            let (record, len) = fx
                .decode(&records[next..], false, &mut targets)
                .expect("our own batch holds whole records");
            let at = next..next + len;
            next += len;
            if record.dot.seq == 0 || record.dot.origin != self.config.me && !record.copy {
                continue;
            }
            let key = StreamKey { shard: record.shard, origin: record.dot.origin };
            let stream = self.streams.find_or_add(key).expect("our own streams fit the table");
            self.streams.lies_in(place.segment, stream, record.dot.seq);
            if record.copy {
                continue;
            }
            assert_eq!(
                record.dot.seq,
                self.streams[stream].known.last() + 1,
                "our own stream has no holes"
            );
            self.streams.appended(stream, &record, lsn);
            if matches!(record.body, RecordBody::Msg { .. }) {
                self.rule.note_msg();
            }
            cutter.take(at, stream, record.dot.seq);
        }
        self.scratch.targets = targets;
        let (chunks, bytes) = cutter.finish();
        if let Some(link) = &mut self.link {
            link.shipping.budget += bytes as i64;
        }
        if bytes > 0 {
            let (segment, offset) = (place.segment, place.offset);
            self.tail.push(Batch { lsn, segment, offset, chunks, bytes });
        }
        self.rule.closed(lsn);
        self.trim_tail();
        self.ship(fx, core, now);
    }

    fn trim_tail(&mut self) {
        while let Some(batch) = self.tail.shrink(self.config.tail_bytes, self.durable_lsn) {
            if let Some(link) = &mut self.link {
                let streams = &self.streams;
                link.shipping.left_memory(&batch, |span| {
                    streams[span.stream].peer_has.covers(span.first, span.last)
                });
            }
        }
    }

    /// Which segments hold something that the peer lacks; none if all of it is in memory.
    ///
    /// What is shipped from the log comes in the order of the log, before anything from memory: a TOMB that lets one of two
    /// records of an id stay must not overtake that record, or this disk alone would hold the message again.
    pub(super) fn segments_wanted(&self) -> Vec<u32> {
        let in_memory = self.first_in_memory();
        let lacks = |span: &Span, upto: u64| {
            let stream = &self.streams[span.stream];
            let last = span.last.min(upto);
            !stream.fenced && span.first <= last && !stream.peer_has.covers(span.first, last)
        };
        let on_disk = |span: &Span| {
            let from = in_memory.get(&span.stream).copied().unwrap_or(u64::MAX);
            lacks(span, from.saturating_sub(1))
        };
        if !self.streams.segments().any(|(_, spans)| spans.iter().any(on_disk)) {
            return Vec::new();
        }
        let memory_first = sabotage::is(Sabotage::MemoryFirst);
        let wanted = |spans: &[Span]| match memory_first {
            true => spans.iter().any(on_disk),
            false => spans.iter().any(|span| lacks(span, u64::MAX)),
        };
        let segments = self.streams.segments().filter(|(_, spans)| wanted(spans));
        segments.map(|(segment, _)| segment).collect()
    }

    /// The next number of each of our streams.
    pub(super) fn next_numbers(&self) -> BTreeMap<u32, u64> {
        let numbered = (0_u32..).zip(self.streams.iter());
        let ours = numbered.filter(|(_, stream)| stream.key.origin == self.config.me);
        ours.map(|(index, stream)| (index, stream.known.last() + 1)).collect()
    }

    /// The first number of each stream that is still in memory.
    pub(super) fn first_in_memory(&self) -> BTreeMap<u32, u64> {
        let mut first = BTreeMap::new();
        let chunks = self.tail.iter().flat_map(|batch| &batch.chunks);
        for span in chunks.flat_map(|chunk| &chunk.spans) {
            first.entry(span.stream).or_insert(span.first);
        }
        first
    }

    /// Whether the peer lacks records that are no longer in our log.
    pub(super) fn peer_lacks_reclaimed(&self) -> bool {
        let mut held: BTreeMap<u32, super::ranges::Ranges> = BTreeMap::new();
        for (_, spans) in self.streams.segments() {
            for span in spans {
                held.entry(span.stream).or_default().insert(span.first, span.last);
            }
        }
        self.streams.iter().zip(0..).any(|(stream, index)| {
            let holes = stream.peer_has.holes(stream.known.prefix());
            let held = held.get(&index);
            let is_held = |(from, to): &(u64, u64)| held.is_some_and(|of| of.covers(*from, *to));
            !stream.fenced && !holes.iter().all(is_held)
        })
    }

    /// The driver read what [`ReplicaEffects::scan`] asked for.
    pub fn handle_scanned(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        scanned: &Scanned<'_>,
    ) {
        self.scan_is_out = false;
        let Some(link) = &mut self.link else { return };
        let shipping = &mut link.shipping;
        let Some(part) = shipping.parts.front_mut().filter(|part| part.from == scanned.from) else {
            // It was for another link.
            return self.ship(fx, core, now);
        };
        if !std::mem::take(&mut shipping.scanning) {
            return self.ship(fx, core, now);
        }
        shipping.budget -= scanned.records.len() as i64;
        let initial = part.initial;
        if let Some(offset) = scanned.next {
            part.from.offset = offset;
        }
        let mut targets = std::mem::take(&mut self.scratch.targets);
        let mut chunk = Chunk::default();
        let mut rest = scanned.records;
        while let Some((record, len)) = fx.decode(rest, true, &mut targets) {
            let bytes = &rest[..len];
            rest = &rest[len..];
            let key = StreamKey { shard: record.shard, origin: record.dot.origin };
            let Some(stream) = self.streams.find(key) else { continue };
            let of = &mut self.streams[stream];
            let is_late = initial && record.dot.seq >= shipping.first_after(stream);
            let is_there = of.peer_has.contains(record.dot.seq);
            if record.dot.seq == 0 || of.fenced || is_there || is_late {
                continue;
            }
            of.peer_has.insert(record.dot.seq, record.dot.seq);
            if chunk.is_full(len) {
                shipping.scanned.push_back(std::mem::take(&mut chunk));
            }
            chunk.add(bytes, stream, record.dot.seq);
        }
        if !chunk.bytes.is_empty() {
            shipping.scanned.push_back(chunk);
        }
        self.scratch.targets = targets;
        if scanned.next.is_none() {
            self.end_part(fx, core, now);
        }
        self.ship(fx, core, now);
    }

    /// Sends as much as the window allows.
    pub(super) fn ship(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now) {
        while self.ship_one(fx, core, now) {}
        if let Some(link) = &mut self.link {
            link.shipping.durable(self.durable_lsn);
            link.shipping.caught_up(&self.tail, self.closed_lsn);
        }
    }

    fn ship_one(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now) -> bool {
        let Some(link) = self.link.as_mut().filter(|link| link.shipping.ready) else {
            return false;
        };
        let shipping = &mut link.shipping;
        if let Some(chunk) = shipping.scanned.front() {
            if !shipping.has_window(chunk.bytes.len()) {
                return false;
            }
            let chunk = shipping.scanned.pop_front().expect("it was just seen");
            self.counters.shipped_bytes += chunk.bytes.len() as u64;
            self.counters.healed_bytes += chunk.bytes.len() as u64;
            shipping.send(fx, &mut self.scratch.out, now, &chunk, (0, 0));
            return true;
        }
        if shipping.is_end_due(&self.tail) {
            return self.ship_end(fx, core, now);
        }
        if !shipping.parts.is_empty() {
            self.start_scan(fx, now);
            return false;
        }
        let Some(batch) = self.tail.after(shipping.tail_lsn) else { return false };
        let chunk = &batch.chunks[shipping.tail_chunks];
        if !shipping.has_window(chunk.bytes.len()) {
            return false;
        }
        let lsn = batch.lsn;
        shipping.tail_chunks += 1;
        if shipping.tail_chunks == batch.chunks.len() {
            (shipping.tail_lsn, shipping.tail_chunks) = (lsn, 0);
        }
        let upto = shipping.shipped_lsn(&self.tail, self.closed_lsn);
        let is_there =
            |span: &Span| self.streams[span.stream].peer_has.covers(span.first, span.last);
        if !chunk.spans.iter().all(is_there) {
            self.counters.shipped_bytes += chunk.bytes.len() as u64;
            for span in &chunk.spans {
                self.streams[span.stream].peer_has.insert(span.first, span.last);
            }
            shipping.send(fx, &mut self.scratch.out, now, chunk, (lsn, upto));
        }
        true
    }

    fn start_scan(&mut self, fx: &mut impl ReplicaEffects, now: Now) {
        let Some(link) = &mut self.link else { return };
        let shipping = &mut link.shipping;
        let elapsed = now.mono_ms.saturating_sub(shipping.budget_ms).min(100) as i64;
        shipping.budget_ms = now.mono_ms;
        let rate = self.config.heal_bytes_per_ms as i64;
        let most = rate.saturating_mul(100).max(SCAN_BYTES as i64);
        // What a scan read beyond its share is owed by the next ones.
        let more = elapsed.saturating_mul(rate);
        shipping.budget = shipping.budget.saturating_add(more).min(most);
        // What lay in the log when the link began must be durable before a scan can find it.
        let is_late = shipping.unread.is_none_or(|(_, again_ms)| now.mono_ms >= again_ms);
        let is_due = shipping.budget > 0 && self.durable_lsn >= shipping.end.lsn && is_late;
        let Some(part) = shipping.parts.front() else { return };
        if self.scan_is_out || !is_due || !shipping.has_window(SCAN_BYTES) {
            return;
        }
        (self.scan_is_out, shipping.scanning) = (true, true);
        fx.scan(part.from, SCAN_BYTES);
    }

    /// Sends a part of what comes after healing: message ids of reclaimed records, then END.
    fn ship_end(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now) -> bool {
        let Some(link) = &mut self.link else { return false };
        // What a damaged log lacks, only the peer can say; if its log is damaged, too, nobody can.
        let hello = link.greeting.hello();
        if !self.sound && hello.is_some_and(|hello| hello.sound) && !link.receiving.is_healed() {
            return false;
        }
        let shipping = &mut link.shipping;
        if !shipping.has_window(0) {
            return false;
        }
        shipping.last_number += 1;
        let number = shipping.last_number;
        let out = &mut self.scratch.out;
        out.clear();
        if let Some(cursor) = shipping.dedup {
            let mut body = Vec::new();
            let (streams, origin) = (&self.streams, self.config.me);
            // What was not sent yet comes after END.
            let points = &shipping.end.points;
            let sent = |shard| {
                if sabotage::is(Sabotage::DedupTooEarly) {
                    return u64::MAX;
                }
                let key = StreamKey { shard, origin };
                let point = points.iter().find(|point| point.stream == key);
                let last = streams.get(key).map_or(0, |stream| stream.peer_has.last());
                last.max(point.map_or(0, |point| point.seq))
            };
            let (shard, next) = core.dedup_part(cursor, &mut body, sent);
            shipping.dedup = next;
            if body.is_empty() {
                shipping.last_number -= 1;
                return true;
            }
            frame::put_dedup(out, number, shard, &body);
            fx.send(out, &[]);
            shipping.note_sent(now, body.len(), Vec::new(), (0, 0));
            return true;
        }
        if let Some(cursor) = shipping.live {
            let mut entries = Vec::new();
            shipping.live = core.live_entries(cursor, LIVE_MAX, &mut entries);
            frame::put_live(out, number, shipping.live.is_some(), &entries);
            fx.send(out, &[]);
            shipping.note_sent(now, entries.len() * 32, Vec::new(), (0, 0));
            return true;
        }
        let count = shipping.end.points.len().min(ENTRIES_MAX);
        let points: Vec<Point> = shipping.end.points.drain(..count).collect();
        let more = !shipping.end.points.is_empty();
        frame::put_end(out, number, more, &points);
        fx.send(out, &[]);
        (shipping.end.sent, shipping.end.number) = (!more, number);
        let upto = shipping.shipped_lsn(&self.tail, self.closed_lsn).min(shipping.end.lsn);
        let spans = points.iter().filter_map(|point| {
            let stream = self.streams.find(point.stream)?;
            Some(Span { stream, first: 1, last: point.seq })
        });
        let spans: Vec<Span> = spans.collect();
        for span in &spans {
            self.streams[span.stream].peer_has.insert(span.first, span.last);
        }
        shipping.note_sent(now, 0, spans, (shipping.end.lsn, upto));
        true
    }
}
