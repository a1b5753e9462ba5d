//! Receiving: frames out of bytes, records into our log, and what may be reported synced.

use std::collections::{BTreeSet, VecDeque};

use super::chain::Chain;
use super::effects::{Event, RecordBody, RecordView, RefuseCode, ReplicaEffects};
use super::frame::{self, Frame, Malformed, Point, Report, StreamKey};
use super::ranges::Ranges;
use super::streams::{Span, Streams, add_to_spans};
use super::{LinkDown, Now, Replica};
use crate::core::{Appended, Core, ForeignMsg, ForeignTomb, Refusal};
use crate::hlc::Hlc;
use crate::id::{Dot, ShardId, UserKey};
use crate::limits::{
    DEDUP_RECORD_BYTES_MAX, EARLY_TOMBS_MAX, ENTRIES_PER_PARTITION_MAX, REPLICA_FRAME_BYTES_MAX,
    REPLICA_FRAMES_MAX,
};
use crate::sabotage::{self, Sabotage};

/// A numbered frame of the peer that was taken in.
#[derive(Debug, Default)]
struct Got {
    number: u64,
    /// Where its first record went in our log; 0 if none was new.
    first_lsn: u64,
    /// When this position is synced, so is all that it holds.
    last_lsn: u64,
    spans: Vec<Span>,
}

/// What a link has received.
#[derive(Debug, Default)]
pub(crate) struct Receiving {
    input: Vec<u8>,
    /// Bytes of records of the first frame of `input` that were taken in already.
    taken: usize,
    /// The frame that is being taken in.
    open: Got,
    last_number: u64,
    got: VecDeque<Got>,
    /// What we reported.
    reported: u64,
    /// The peer synced what its frames up to this one hold.
    peer_durable: u64,
    /// What is live at the peer, as far as it has told.
    live: BTreeSet<(UserKey, Dot)>,
    /// END was received whole; it counts when this position of our log is synced.
    end_lsn: Option<u64>,
    healed: bool,
    /// What the peer has, it sends as it appends it.
    peer_is_live: bool,
}

/// Why a frame was not taken in.
enum Stop {
    /// The log has no room now.
    Later,
    /// The link ends.
    Refuse(RefuseCode),
}

impl From<Refusal> for Stop {
    fn from(_: Refusal) -> Self {
        Self::Later
    }
}

impl From<RefuseCode> for Stop {
    fn from(code: RefuseCode) -> Self {
        Self::Refuse(code)
    }
}

impl Receiving {
    /// Whether all that the peer had when the link began is here, synced.
    pub(super) fn is_healed(&self) -> bool {
        self.healed
    }

    /// Whether frames wait for room in the log.
    pub(super) fn is_waiting(&self) -> bool {
        !self.input.is_empty()
    }

    /// Records of the peer in our log up to here are synced at the peer, too.
    pub(super) fn covered_lsn(&self) -> u64 {
        let open = (self.open.first_lsn > 0).then_some(&self.open);
        let mut uncovered = self.got.iter().chain(open);
        let first = uncovered.find(|got| got.first_lsn > 0 && got.number > self.peer_durable);
        first.map_or(u64::MAX, |got| got.first_lsn - 1)
    }

    /// The number of the last frame that is synced here, given how far the log is.
    fn synced_number(&self, durable_lsn: u64) -> u64 {
        let early = sabotage::is(Sabotage::ReportUnsynced);
        let after = self.got.partition_point(|got| early || got.last_lsn <= durable_lsn);
        after.checked_sub(1).map_or(self.reported, |last| self.got[last].number)
    }

    /// Lets go of frames that both sides have synced.
    fn settle(&mut self, streams: &mut Streams) {
        let done = |got: &&Got, peer: u64, mine: u64| got.number <= peer.min(mine);
        while let Some(got) = self.got.front().filter(|g| done(g, self.peer_durable, self.reported))
        {
            for span in &got.spans {
                streams[span.stream].peer_synced.insert(span.first, span.last);
            }
            self.got.pop_front();
        }
    }
}

impl Replica {
    /// Bytes of the link with this number, in order.
    pub fn handle_bytes(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        link: u64,
        bytes: &[u8],
    ) {
        let Some(link) = self.link.as_mut().filter(|of| of.number == link) else {
            self.counters.stale_bytes += bytes.len() as u64;
            return;
        };
        link.heard_ms = now.mono_ms;
        if link.receiving.input.is_empty() {
            // Taken in where they lie: most of them are whole frames.
            let Some(taken) = self.take_frames(fx, core, now, bytes) else { return };
            let link = self.link.as_mut().expect("the link was not ended");
            link.receiving.input.extend_from_slice(&bytes[taken..]);
        } else {
            link.receiving.input.extend_from_slice(bytes);
            if !self.take_input(fx, core, now) {
                return;
            }
        }
        // A window of frames, their headers, and reports between them.
        let most = self.config.window_bytes as usize + 2 * REPLICA_FRAME_BYTES_MAX;
        let link = self.link.as_ref().expect("the link was not ended");
        if link.receiving.input.len() > most {
            return self.refuse(fx, now, RefuseCode::TooMuch);
        }
        self.settle(fx, core, now);
    }

    /// Takes in what the log has room for. False if the link was ended.
    pub(super) fn take_input(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
    ) -> bool {
        let Some(link) = &mut self.link else { return false };
        let mut input = std::mem::take(&mut link.receiving.input);
        let Some(taken) = self.take_frames(fx, core, now, &input) else { return false };
        input.drain(..taken);
        let Some(link) = &mut self.link else { return false };
        link.receiving.input = input;
        true
    }

    /// Takes in the frames at the start of `input`: how many bytes; `None` if the link was ended.
    fn take_frames(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        input: &[u8],
    ) -> Option<usize> {
        let mut start = 0;
        let stop = loop {
            match frame::split(&input[start..]) {
                Ok(None) => break None,
                Ok(Some((frame, len))) => match self.take_frame(fx, core, now, frame) {
                    Ok(()) if self.link.is_none() => return None,
                    Ok(()) => start += len,
                    Err(stop) => break Some(stop),
                },
                Err(Malformed) => break Some(Stop::Refuse(RefuseCode::Malformed)),
            }
        };
        if let Some(Stop::Refuse(code)) = stop {
            self.refuse(fx, now, code);
            return None;
        }
        Some(start)
    }

    fn take_frame(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        frame: Frame<'_>,
    ) -> Result<(), Stop> {
        match frame {
            Frame::Hello(hello) => self.take_hello(fx, core, now, hello)?,
            Frame::Known(entries) => self.take_known(fx, core, now, entries)?,
            Frame::Skipped => {}
            Frame::Refuse(code) => {
                let code = RefuseCode::of(code).unwrap_or(RefuseCode::Malformed);
                fx.event(&Event::RefusedByPeer(code));
                self.counters.refused_by_peer += 1;
                self.lose_link(now, LinkDown::Lost);
            }
            Frame::Bye => self.take_bye(fx),
            _ if !self.is_greeted() => return Err(RefuseCode::Malformed.into()),
            Frame::Check(points) => self.take_check(fx, now, &points)?,
            Frame::Records { number, records } => {
                self.take_records(fx, core, now, number, records)?;
            }
            Frame::Dedup { number, shard, body } => {
                self.take_dedup(fx, core, number, shard, body)?;
            }
            Frame::Live { number, more, entries } => self.take_live(core, number, more, entries)?,
            Frame::End { number, more, points } => {
                self.take_end(fx, core, now, number, more, &points)?;
            }
            Frame::Report(report) => self.take_report(fx, core, now, report)?,
            Frame::Fenced(stream) => {
                if let Some(index) = self.streams.find(stream) {
                    self.fence(fx, index)?;
                }
            }
        }
        Ok(())
    }

    /// The number of the frame that is being taken in: each is one higher than the last.
    fn open_frame(&mut self, number: u64) -> Result<&mut Receiving, Stop> {
        let link = self.link.as_mut().expect("frames come over a link");
        let receiving = &mut link.receiving;
        if receiving.open.number == 0 {
            if number != receiving.last_number + 1 {
                return Err(RefuseCode::Malformed.into());
            }
            if receiving.got.len() > REPLICA_FRAMES_MAX {
                return Err(RefuseCode::TooMuch.into());
            }
            receiving.open.number = number;
        }
        Ok(receiving)
    }

    /// The frame is taken in whole.
    fn close_frame(&mut self, core: &Core) {
        let receiving = &mut self.link.as_mut().expect("frames come over a link").receiving;
        let mut got = std::mem::take(&mut receiving.open);
        receiving.last_number = got.number;
        receiving.taken = 0;
        // What it repeats may have been appended just before.
        got.last_lsn = core.last_lsn();
        receiving.got.push_back(got);
    }

    fn take_records(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        number: u64,
        records: &[u8],
    ) -> Result<(), Stop> {
        let mut taken = self.open_frame(number)?.taken;
        let mut targets = std::mem::take(&mut self.scratch.targets);
        let mut outcome = Ok(());
        while taken < records.len() && outcome.is_ok() {
            let Some((record, len)) = fx.decode(&records[taken..], true, &mut targets) else {
                outcome = Err(RefuseCode::BadRecord.into());
                break;
            };
            outcome = self.take_record(fx, core, now, &record, &records[taken..taken + len]);
            if outcome.is_ok() {
                taken += len;
            }
        }
        self.scratch.targets = targets;
        if let Some(link) = &mut self.link {
            link.receiving.taken = taken;
        }
        outcome?;
        self.close_frame(core);
        Ok(())
    }

    fn take_record(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        record: &RecordView<'_>,
        bytes: &[u8],
    ) -> Result<(), Stop> {
        if record.dot.origin == self.config.me {
            return Err(RefuseCode::BadRecord.into());
        }
        let bad = |_| RefuseCode::BadRecord;
        core.check_foreign(record.shard, record.dot).map_err(bad)?;
        let key = StreamKey { shard: record.shard, origin: record.dot.origin };
        let stream = self.streams.find_or_add(key).ok_or(RefuseCode::TooMuch)?;
        let of = &mut self.streams[stream];
        if of.fenced {
            self.counters.fenced_records += 1;
            return Ok(());
        }
        let seq = record.dot.seq;
        of.peer_has.insert(seq, seq);
        if of.known.contains(seq) {
            self.counters.repeated_records += 1;
            self.note_got(stream, seq, 0);
            return Ok(());
        }
        if !fx.log_has_room() {
            return Err(Stop::Later);
        }
        let appended = self.append_record(fx, core, now, record, bytes)?;
        self.streams.appended(stream, record, appended.lsn);
        self.streams.lies_in(appended.pos.segment, stream, seq);
        self.note_got(stream, seq, appended.lsn);
        self.counters.received_records += 1;
        self.counters.received_bytes += bytes.len() as u64;
        self.observe(fx, core, now, record.hlc);
        Ok(())
    }

    fn note_got(&mut self, stream: u32, seq: u64, lsn: u64) {
        let got = &mut self.link.as_mut().expect("records come over a link").receiving.open;
        if got.first_lsn == 0 {
            got.first_lsn = lsn;
        }
        add_to_spans(&mut got.spans, stream, seq);
    }

    fn append_record(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        record: &RecordView<'_>,
        bytes: &[u8],
    ) -> Result<Appended, Stop> {
        let bad = |_| RefuseCode::BadRecord;
        let (shard, dot) = (record.shard, record.dot);
        match record.body {
            RecordBody::Msg { sender, msg_id, flags, recipients } => {
                let hlc = record.hlc;
                let msg = ForeignMsg { shard, dot, hlc, sender, msg_id, flags, recipients };
                core.check_foreign_msg(&msg, bytes.len()).map_err(bad)?;
                let appended = fx.append_foreign(bytes)?;
                core.foreign_msg(now.unix_ms, &msg, &appended);
                Ok(appended)
            }
            RecordBody::Tomb { inbox, collapsed, targets } => {
                core.check_foreign_tomb(shard, dot, inbox, targets).map_err(bad)?;
                if core.early_tombs() + targets.len() > EARLY_TOMBS_MAX {
                    return Err(RefuseCode::TooMuch.into());
                }
                self.scratch.come.clear();
                for target in targets {
                    let key = StreamKey { shard, origin: target.origin };
                    let index = self.streams.find(key);
                    let is_known =
                        index.is_some_and(|index| self.streams[index].known.contains(target.seq));
                    let may_come = !is_known && !sabotage::is(Sabotage::EarlyTombLost);
                    self.scratch.come.push((*target, may_come));
                }
                let appended = fx.append_foreign(bytes)?;
                let targets = &self.scratch.come;
                let tomb = ForeignTomb { shard, dot, inbox, collapsed, targets };
                core.foreign_tomb(now.unix_ms, &tomb, &appended);
                Ok(appended)
            }
            RecordBody::Epoch { .. } => {
                let appended = fx.append_foreign(bytes)?;
                core.foreign_other(&appended);
                Ok(appended)
            }
            RecordBody::Mark(_) | RecordBody::Other => Err(RefuseCode::BadRecord.into()),
        }
    }

    /// Our stamps follow the peer's, unless its clock is wrong.
    fn observe(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now, hlc: Hlc) {
        if let Err(ahead) = core.observe_hlc(hlc, now.unix_ms, self.config.drift_ms_max) {
            if self.counters.stamps_ahead == 0 {
                fx.event(&Event::PeerClockAhead(ahead.ahead_ms));
            }
            self.counters.stamps_ahead += 1;
        }
    }

    fn take_dedup(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        number: u64,
        shard: ShardId,
        body: &[u8],
    ) -> Result<(), Stop> {
        self.open_frame(number)?;
        if body.len() > DEDUP_RECORD_BYTES_MAX {
            return Err(RefuseCode::TooMuch.into());
        }
        if !fx.log_has_room() {
            return Err(Stop::Later);
        }
        // A body that does not parse must not reach the log. Taking ids over twice does no harm.
        core.foreign_dedup(shard, body).map_err(|_| RefuseCode::BadRecord)?;
        let appended = fx.append_dedup(shard, body)?;
        core.foreign_other(&appended);
        self.close_frame(core);
        Ok(())
    }

    /// What is live at the peer of all that it claimed. What is live here besides was removed there, and its TOMB is gone:
    /// this log was damaged, or is older than it was.
    fn take_live(
        &mut self,
        core: &mut Core,
        number: u64,
        more: bool,
        entries: Vec<(UserKey, Dot)>,
    ) -> Result<(), Stop> {
        let receiving = self.open_frame(number)?;
        if receiving.live.len() + entries.len() > ENTRIES_PER_PARTITION_MAX as usize {
            return Err(RefuseCode::TooMuch.into());
        }
        receiving.live.extend(entries);
        if !more {
            let live = std::mem::take(&mut receiving.live);
            let streams = &self.streams;
            self.counters.unlisted += core.owe_removal(|shard, inbox, dot| {
                let stream = streams.get(StreamKey { shard, origin: dot.origin });
                let is_claimed = stream.is_some_and(|of| !of.fenced && dot.seq <= of.peer_claimed);
                is_claimed && !live.contains(&(inbox, dot))
            });
        }
        self.close_frame(core);
        Ok(())
    }

    fn take_end(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        number: u64,
        more: bool,
        points: &[Point],
    ) -> Result<(), Stop> {
        self.open_frame(number)?;
        let mut filled = false;
        for point in points {
            core.check_foreign(
                point.stream.shard,
                Dot { origin: point.stream.origin, seq: point.seq },
            )
            .map_err(|_| RefuseCode::Malformed)?;
            let stream = self.streams.find_or_add(point.stream).ok_or(RefuseCode::TooMuch)?;
            filled |= self.take_end_of(fx, core, stream, point)?;
        }
        // A stream may have been filled by an earlier END frame whose MARK the log refused.
        self.ends_filled |= filled;
        if !more && !self.sound {
            self.give_up_holes(fx);
            self.ends_filled = true;
        }
        if !more && self.ends_filled {
            self.append_marks(fx, core)?;
            self.ends_filled = false;
        }
        self.close_frame(core);
        if !more {
            let lsn = core.last_lsn();
            if let Some(link) = &mut self.link {
                link.receiving.end_lsn = Some(lsn);
            }
            self.finish_healing(fx, core, now);
        }
        Ok(())
    }

    /// Everything of a stream up to a point was sent: what is not here is dead. Returns whether something was missing.
    fn take_end_of(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        stream: u32,
        point: &Point,
    ) -> Result<bool, Stop> {
        let of = &mut self.streams[stream];
        if of.fenced {
            return Ok(false);
        }
        let is_whole = of.known.covers(1, point.seq);
        let is_other = of.chain.at(point.seq).is_some_and(|mine| mine != point.digest);
        if is_other && point.digest != 0 && !sabotage::is(Sabotage::DigestIgnored) {
            self.fence(fx, stream)?;
            return Ok(false);
        }
        if of.chain.seq() < point.seq && point.digest != 0 {
            of.chain.set(point.seq, point.digest);
        }
        of.peer_has.insert(1, point.seq);
        if is_whole {
            return Ok(false);
        }
        of.known.insert(1, point.seq);
        core.forget_early(point.stream.origin, point.stream.shard, point.seq);
        Ok(true)
    }

    /// A damaged log is as whole as it gets: what neither node has is lost.
    fn give_up_holes(&mut self, fx: &mut impl ReplicaEffects) {
        for stream in self.streams.iter_mut().filter(|stream| !stream.fenced) {
            let last = stream.known.last();
            let lost: u64 = stream.known.holes(last).iter().map(|(from, to)| to - from + 1).sum();
            if lost > 0 {
                let StreamKey { shard, origin } = stream.key;
                fx.event(&Event::Lost { shard, origin, records: lost });
                self.counters.lost_records += lost;
                stream.known.insert(1, last);
                // The chain has a hole that nobody can close.
                stream.chain = Chain::default();
            }
        }
        (self.sound, self.was_damaged) = (true, true);
        fx.event(&Event::Repaired);
    }

    fn take_report(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        Report { synced, durable, hlc, live }: Report,
    ) -> Result<(), Stop> {
        let link = self.link.as_mut().expect("reports come over a link");
        let is_known =
            link.shipping.reported(synced, &mut self.streams, &self.tail, self.closed_lsn);
        // A report may speak of the frame that is being taken in.
        let last = link.receiving.last_number.max(link.receiving.open.number);
        if !is_known || durable > last {
            return Err(RefuseCode::Malformed.into());
        }
        link.receiving.peer_durable = link.receiving.peer_durable.max(durable);
        link.receiving.settle(&mut self.streams);
        // What a peer cannot send as it comes, it reads from its log later: then it is missing here.
        let was_live = std::mem::replace(&mut link.receiving.peer_is_live, live);
        if live || was_live {
            self.behind = !live;
        }
        self.observe(fx, core, now, hlc);
        self.ship(fx, core, now);
        Ok(())
    }

    /// Whether there is something to report: frames of the peer are synced here, or more of ours are.
    pub(super) fn report_due(&self) -> bool {
        let Some(link) = &self.link else { return false };
        link.receiving.synced_number(self.durable_lsn) > link.receiving.reported
            || link.shipping.durable_number() > link.reported_durable
    }

    /// Says how far we are.
    pub(super) fn send_report(&mut self, fx: &mut impl ReplicaEffects, core: &Core, now: Now) {
        let Some(link) = self.link.as_mut().filter(|link| link.greeting.is_over()) else { return };
        let synced = link.receiving.synced_number(self.durable_lsn);
        link.receiving.reported = synced;
        link.receiving.settle(&mut self.streams);
        link.reported_ms = now.mono_ms;
        link.reported_durable = link.shipping.durable_number();
        let out = &mut self.scratch.out;
        out.clear();
        let (durable, live) = (link.shipping.durable_number(), link.shipping.is_live());
        frame::put_report(out, Report { synced, durable, hlc: core.hlc(), live });
        fx.send(out, &[]);
    }

    /// Notes that what the peer had is here, once that is synced.
    pub(super) fn finish_healing(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
    ) {
        let Some(link) = &mut self.link else { return };
        let is_synced = link.receiving.end_lsn.is_some_and(|lsn| lsn <= self.durable_lsn);
        if !is_synced || std::mem::replace(&mut link.receiving.healed, true) {
            return;
        }
        self.rule.met_peer();
        if std::mem::take(&mut self.was_damaged) {
            let points = self.points_of_end();
            let link = self.link.as_mut().expect("it was just there");
            link.shipping.renew_end(points, self.closed_lsn);
        }
        self.ship(fx, core, now);
    }
}

/// Ranges that a peer claims, checked when they were decoded.
pub(super) fn claimed(known: &frame::Known) -> Ranges {
    let mut ranges = Ranges::upto(known.prefix);
    known.extra.iter().for_each(|(from, to)| ranges.insert(*from, *to));
    ranges
}
