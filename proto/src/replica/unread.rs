//! What the log should have given and did not: records that a disk no longer reads, or reads wrongly.
//!
//! END says that what was not sent is dead, so nothing may be left out because of a disk. A part of the log that was not
//! read whole is read again, before any later part: records keep their order. If it stays unread, the link is begun
//! anew: the peer may have synced by then what it had only appended. What it still lacks, and we still cannot read, is
//! lost, and said to be.

use std::collections::BTreeMap;

use super::effects::{Event, RefuseCode, ReplicaEffects};
use super::frame::StreamKey;
use super::ranges::Ranges;
use super::ship::Part;
use super::streams::Span;
use super::{Now, Replica};
use crate::core::Core;
use crate::sabotage::{self, Sabotage};

impl Replica {
    /// The first part of the log was read to its end.
    pub(super) fn end_part(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now) {
        let Some(part) = self.link.as_ref().and_then(|link| link.shipping.part()) else { return };
        let unread = self.unread(part);
        let Some(link) = &mut self.link else { return };
        let shipping = &mut link.shipping;
        if unread.is_empty() || sabotage::is(Sabotage::UnreadIgnored) {
            return shipping.part_is_read();
        }
        let again_ms = now.mono_ms + self.config.heartbeat_ms;
        let since_ms = shipping.read_again(again_ms);
        let is_old = |span: &Span| {
            let before = self.unread_before.get(&span.stream);
            before.is_some_and(|before| before.covers(span.first, span.last))
        };
        if !part.initial || !unread.iter().all(is_old) {
            if now.mono_ms >= since_ms + self.config.unread_ms {
                for span in &unread {
                    let before = self.unread_before.entry(span.stream).or_default();
                    before.insert(span.first, span.last);
                }
                self.refuse(fx, now, RefuseCode::BadRecord);
            }
            return;
        }
        shipping.part_is_read();
        // Among it may be TOMBs, and ids that nobody else was told of.
        shipping.say_live();
        shipping.say_dedup();
        self.lose(fx, core, &unread);
    }

    /// Records of a segment that the peer lacks, that are not in memory, and that no scan has found.
    fn unread(&self, part: Part) -> Vec<Span> {
        let Some(link) = &self.link else { return Vec::new() };
        let in_memory = self.first_in_memory();
        let mut unread = Vec::new();
        for span in self.streams.in_segment(part.from.segment) {
            let stream = &self.streams[span.stream];
            let late = link.shipping.first_after(span.stream);
            let before = in_memory.get(&span.stream).copied().unwrap_or(u64::MAX);
            let before = if part.initial { before.min(late) } else { before };
            let last = span.last.min(before.saturating_sub(1));
            if stream.fenced || last < span.first {
                continue;
            }
            let holes = stream.peer_has.holes(last).into_iter();
            let here = holes.map(|(from, to)| (from.max(span.first), to));
            let here = here.filter(|(from, to)| from <= to);
            unread.extend(here.map(|(first, last)| Span { first, last, ..*span }));
        }
        unread
    }

    /// No node has these records any more. Their entries go here as well.
    fn lose(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, spans: &[Span]) {
        let mut lost: BTreeMap<StreamKey, Ranges> = BTreeMap::new();
        for span in spans {
            let key = self.streams[span.stream].key;
            lost.entry(key).or_default().insert(span.first, span.last);
        }
        for (StreamKey { shard, origin }, ranges) in &lost {
            let records = ranges.count();
            fx.event(&Event::Lost { shard: *shard, origin: *origin, records });
            self.counters.lost_records += records;
        }
        core.owe_removal(|shard, _, dot| {
            let ranges = lost.get(&StreamKey { shard, origin: dot.origin });
            ranges.is_some_and(|ranges| ranges.contains(dot.seq))
        });
    }
}
