//! The beginning of a link: who is there, what either side has, and whether it is the same.
//!
//! Each side sends HELLO and what it has of every stream, synced. When both are there, each compares chain digests where
//! both ends meet, and begins to ship what the other lacks.

use super::effects::{Event, RefuseCode, ReplicaEffects};
use super::frame::{self, ENTRIES_MAX, Hello, Known, Point, StreamKey};
use super::receive::{Receiving, claimed};
use super::ship::Shipping;
use super::{Link, LinkDown, Now, Replica};
use crate::core::Core;
use crate::id::Dot;
use crate::limits::STREAMS_PER_PARTITION_MAX;
use crate::sabotage::{self, Sabotage};

/// How far a greeting is.
#[derive(Debug, Default)]
pub(crate) struct Greeting {
    is_sent: bool,
    hello: Option<Hello>,
    known: Vec<Known>,
    over: bool,
}

impl Greeting {
    /// What the peer said of itself.
    pub(super) fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Whether both sides have said what they have.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    fn is_whole(&self) -> bool {
        let streams = self.hello.map(|hello| hello.streams as usize);
        self.is_sent && streams.is_some_and(|streams| streams == self.known.len())
    }
}

impl Replica {
    /// A link to the peer is up. `link` is higher each time; an older link counts as down.
    pub fn link_up(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now, link: u64) {
        assert!(self.recovery.is_none(), "recovery comes before links");
        assert!(link > self.last_link, "links are numbered upwards");
        self.last_link = link;
        if self.rule.is_halted() {
            return fx.close(RefuseCode::Reincarnate);
        }
        self.counters.links += 1;
        self.link = Some(Link {
            number: link,
            heard_ms: now.mono_ms,
            reported_ms: now.mono_ms,
            reported_durable: 0,
            greeting: Greeting::default(),
            shipping: Shipping::default(),
            receiving: Receiving::default(),
        });
        self.greet(fx, core, now);
    }

    /// The link with this number is down.
    pub fn link_down(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        link: u64,
        how: LinkDown,
    ) {
        if self.link.as_ref().is_some_and(|of| of.number == link) {
            self.lose_link(now, how);
        } else if self.link.is_none() && how == LinkDown::Gone {
            self.rule.peer_is_gone();
        }
        self.settle(fx, core, now);
    }

    pub(super) fn lose_link(&mut self, now: Now, how: LinkDown) {
        if self.link.take().is_some() {
            self.rule.lost_link(now);
        }
        if how == LinkDown::Gone {
            self.rule.peer_is_gone();
        }
    }

    /// Ends the link, and says why.
    pub(super) fn refuse(&mut self, fx: &mut impl ReplicaEffects, now: Now, why: RefuseCode) {
        self.counters.refused[why as usize] += 1;
        let out = &mut self.scratch.out;
        out.clear();
        frame::put_refuse(out, why);
        fx.send(out, &[]);
        fx.close(why);
        fx.event(&Event::Closed(why));
        self.lose_link(now, LinkDown::Lost);
    }

    pub(super) fn is_greeted(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.greeting.over)
    }

    /// Sends our side of the greeting, once what we are about to claim is synced.
    pub(super) fn greet(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now) {
        // A retired peer is filled only once it is synced that it is back: a later life would refuse what was filled.
        let is_retired = self.retired.is_some() || self.retired_owed;
        let is_back = !is_retired && self.durable_lsn >= self.retired_lsn;
        let is_due = self.durable_lsn >= self.greet_lsn && !self.marks_owed && is_back;
        let Some(link) = self.link.as_mut().filter(|link| is_due && !link.greeting.is_sent) else {
            return;
        };
        link.greeting.is_sent = true;
        let claims: Vec<Known> = self.streams.iter().map(|stream| stream.claim()).collect();
        let (mode, state_id) = self.rule.mode();
        let hello = Hello {
            version_min: frame::VERSION,
            version_max: frame::VERSION,
            me: self.config.me,
            partition: self.config.partition,
            partitions: self.config.partitions,
            num_shards: self.config.num_shards,
            mode,
            sound: self.sound,
            draining: self.rule.is_draining(),
            state_id,
            known_incarnation: self.streams.incarnation_of(self.config.peer),
            hlc: core.hlc(),
            window_bytes: self.config.window_bytes,
            solo_msgs: self.rule.solo_msgs(),
            streams: claims.len() as u32,
        };
        let out = &mut self.scratch.out;
        out.clear();
        frame::put_hello(out, &hello);
        for entries in claims.chunks(ENTRIES_MAX / 8) {
            frame::put_known(out, entries);
        }
        fx.send(out, &[]);
        if link.greeting.is_whole()
            && let Err(code) = self.begin(fx, core, now)
        {
            self.refuse(fx, now, code);
        }
    }

    pub(super) fn take_hello(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        hello: Hello,
    ) -> Result<(), RefuseCode> {
        let config = &self.config;
        let greeting = &mut self.link.as_mut().expect("frames come over a link").greeting;
        if greeting.hello.is_some() {
            return Err(RefuseCode::Malformed);
        }
        if !(hello.version_min..=hello.version_max).contains(&frame::VERSION) {
            return Err(RefuseCode::Version);
        }
        if hello.me.node != config.peer {
            return Err(RefuseCode::WrongNode);
        }
        let theirs = (hello.partition, hello.partitions, hello.num_shards);
        if theirs != (config.partition, config.partitions, config.num_shards) {
            return Err(RefuseCode::Layout);
        }
        if hello.streams as usize > STREAMS_PER_PARTITION_MAX {
            return Err(RefuseCode::TooMuch);
        }
        if self.retired == Some(hello.me.node) && hello.streams > 0 {
            return Err(RefuseCode::Retired);
        }
        self.set_retired(fx, core, None);
        let greeting = &mut self.link.as_mut().expect("frames come over a link").greeting;
        greeting.hello = Some(hello);
        let ignored = sabotage::is(Sabotage::DigestIgnored);
        if hello.known_incarnation > self.config.me.incarnation && !ignored {
            return Err(self.reincarnate(fx, hello.known_incarnation));
        }
        self.take_known(fx, core, now, Vec::new())
    }

    pub(super) fn take_known(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        entries: Vec<Known>,
    ) -> Result<(), RefuseCode> {
        let greeting = &mut self.link.as_mut().expect("frames come over a link").greeting;
        let Some(hello) = greeting.hello.filter(|_| !greeting.over) else {
            return Err(RefuseCode::Malformed);
        };
        greeting.known.extend(entries);
        if greeting.known.len() > hello.streams as usize {
            return Err(RefuseCode::Malformed);
        }
        if greeting.is_whole() { self.begin(fx, core, now) } else { Ok(()) }
    }

    /// Both sides have said what they have.
    fn begin(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
    ) -> Result<(), RefuseCode> {
        let greeting = &mut self.link.as_mut().expect("a greeting is over a link").greeting;
        greeting.over = true;
        let claims = std::mem::take(&mut greeting.known);
        let hello = greeting.hello.expect("it is there when a greeting is whole");
        self.take_claims(fx, core, &claims)?;
        self.behind |= self.streams.iter().any(super::streams::Stream::lacks_claimed);
        let points = self.points_to_check(&claims);
        let out = &mut self.scratch.out;
        out.clear();
        points.chunks(ENTRIES_MAX).for_each(|points| frame::put_check(out, points));
        fx.send(out, &[]);
        let segments = self.segments_wanted();
        let lacks_reclaimed = self.peer_lacks_reclaimed();
        let has_records = hello.streams > 0;
        let points = self.points_of_end();
        let next = self.next_numbers();
        let window = (hello.window_bytes as usize).min(self.config.window_bytes as usize);
        let link = self.link.as_mut().expect("a greeting is over a link");
        link.shipping.begin(window, segments, points, next, self.closed_lsn);
        if lacks_reclaimed {
            link.shipping.say_dedup();
        }
        if lacks_reclaimed && has_records && !sabotage::is(Sabotage::NothingUnlisted) {
            link.shipping.say_live();
        }
        link.shipping.durable(self.durable_lsn);
        self.rule.greeted(fx, &hello);
        self.send_report(fx, core, now);
        self.ship(fx, core, now);
        Ok(())
    }

    fn take_claims(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        claims: &[Known],
    ) -> Result<(), RefuseCode> {
        for stream in self.streams.iter_mut() {
            stream.peer_has = Default::default();
            stream.peer_synced = Default::default();
            stream.peer_claimed = 0;
        }
        for known in claims {
            let ranges = claimed(known);
            let StreamKey { shard, origin } = known.stream;
            let dot = Dot { origin, seq: ranges.last().max(1) };
            core.check_foreign(shard, dot).map_err(|_| RefuseCode::Malformed)?;
            let index = self.streams.find_or_add(known.stream).ok_or(RefuseCode::TooMuch)?;
            let stream = &mut self.streams[index];
            let is_behind = origin == self.config.me && ranges.last() > stream.known.last();
            if is_behind && !sabotage::is(Sabotage::DigestIgnored) {
                let above = origin.incarnation;
                return Err(self.reincarnate(fx, above));
            }
            stream.peer_claimed = ranges.prefix();
            stream.peer_has = ranges.clone();
            stream.peer_synced = ranges;
        }
        Ok(())
    }

    /// Where both sides have a stream, the last number at which we can say its digest.
    fn points_to_check(&self, claims: &[Known]) -> Vec<Point> {
        let of = |known: &Known| {
            let stream = self.streams.iter().find(|stream| stream.key == known.stream)?;
            let last = known.prefix.min(stream.known.prefix());
            let (seq, digest) = stream.chain.point_upto(last)?;
            Some(Point { stream: known.stream, seq, digest })
        };
        claims.iter().filter_map(of).collect()
    }

    /// Up to where END will speak of each stream, and the digest there; 0 if we do not know it.
    pub(super) fn points_of_end(&self) -> Vec<Point> {
        let lacks = self
            .streams
            .iter()
            .filter(|stream| !stream.fenced && stream.known.prefix() > stream.peer_has.prefix());
        let point = |stream: &super::streams::Stream| {
            let seq = stream.known.prefix();
            Point { stream: stream.key, seq, digest: stream.chain.at(seq).unwrap_or(0) }
        };
        lacks.map(point).collect()
    }

    pub(super) fn take_check(
        &mut self,
        fx: &mut impl ReplicaEffects,
        _now: Now,
        points: &[Point],
    ) -> Result<(), RefuseCode> {
        for point in points {
            let Some(index) = self.streams.find(point.stream) else { continue };
            let stream = &self.streams[index];
            let is_other = stream.chain.at(point.seq).is_some_and(|mine| mine != point.digest);
            if is_other && !stream.fenced && !sabotage::is(Sabotage::DigestIgnored) {
                self.fence(fx, index)?;
            }
        }
        Ok(())
    }

    /// The same number means different records here and there: nothing more of this stream is exchanged.
    pub(super) fn fence(
        &mut self,
        fx: &mut impl ReplicaEffects,
        stream: u32,
    ) -> Result<(), RefuseCode> {
        let of = &mut self.streams[stream];
        if std::mem::replace(&mut of.fenced, true) {
            return Ok(());
        }
        let key = of.key;
        self.counters.fenced += 1;
        fx.event(&Event::Fenced { shard: key.shard, origin: key.origin });
        let out = &mut self.scratch.out;
        out.clear();
        frame::put_fenced(out, key);
        fx.send(out, &[]);
        if key.origin == self.config.me {
            return Err(self.reincarnate(fx, key.origin.incarnation));
        }
        Ok(())
    }

    /// This life's numbers were used before: nothing is acknowledged any more.
    fn reincarnate(&mut self, fx: &mut impl ReplicaEffects, above: u32) -> RefuseCode {
        if self.rule.halt() {
            fx.reincarnate(above);
        }
        RefuseCode::Reincarnate
    }
}
