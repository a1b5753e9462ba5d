//! The beginning of a life: what our log holds, and what may be claimed of it.
//!
//! Records say which numbers are here. MARK records say which numbers were known when they were written, so that numbers
//! whose records were reclaimed since do not look like holes. In a log with damaged ranges only what is held counts: the
//! peer then sends again whatever it has of the rest.

use super::chain::Chain;
use super::effects::{Mode, RecordBody, RecordView, ReplicaEffects};
use super::frame::StreamKey;
use super::{Now, Replica};
use crate::core::{Core, Refusal};
use crate::id::{Origin, ShardId};
use crate::limits::MARK_BYTES_MAX;
use crate::sabotage::{self, Sabotage};
use crate::wire::{Reader, Writer};

/// The version of a MARK's body.
const MARK_VERSION: u8 = 1;
/// The flag of a MARK's body, in its second byte: the peer is retired.
const MARK_RETIRED: u8 = 1;
/// Bytes before a MARK's entries: version, flags, two zeros, number of entries.
const MARK_HEADER_BYTES: usize = 8;
/// Bytes of one entry: shard, node, incarnation, prefix, number of the digest, digest.
const MARK_ENTRY_BYTES: usize = 2 + 4 + 4 + 8 + 8 + 8;

/// What recovery found so far.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    marks: Vec<MarkEntry>,
    /// A life with a peer wrote here.
    had_peer: bool,
    /// The last MARK says that the peer is retired.
    retired: bool,
    /// The last EPOCH record of this node.
    state_id: u64,
    mode: Option<Mode>,
    /// When the last time alone began, and messages taken since.
    solo_since_ms: Option<u64>,
    solo_msgs: u64,
}

#[derive(Clone, Copy, Debug)]
struct MarkEntry {
    stream: StreamKey,
    prefix: u64,
    chain_seq: u64,
    digest: u64,
}

impl Replica {
    /// Takes in a record of our log that lies in `segment`. Records come in the order of the log.
    pub fn recover(&mut self, segment: u32, record: &RecordView<'_>) {
        let recovery = self.recovery.as_mut().expect("records come before recovery_done");
        if let RecordBody::Mark(body) = record.body {
            if let [MARK_VERSION, flags, ..] = body {
                (recovery.had_peer, recovery.retired) = (true, flags & MARK_RETIRED != 0);
            }
            for entry in mark_entries(body) {
                recovery.marks.push(entry);
                let index = self.streams.find_or_add(entry.stream);
                let Some(stream) = index.map(|index| &mut self.streams[index]) else { continue };
                if entry.chain_seq > stream.chain.seq() {
                    stream.chain.set(entry.chain_seq, entry.digest);
                }
            }
            return;
        }
        if record.dot.seq == 0 {
            return;
        }
        let is_own = record.dot.origin.node == self.config.me.node;
        match record.body {
            RecordBody::Epoch { mode, state_id } if is_own && state_id >= recovery.state_id => {
                recovery.state_id = state_id;
                recovery.mode = Mode::of(mode);
                recovery.solo_msgs = 0;
                let is_solo = recovery.mode == Some(Mode::Solo);
                recovery.solo_since_ms = is_solo.then_some(record.hlc.unix_ms());
            }
            RecordBody::Msg { .. } if is_own && !record.copy => recovery.solo_msgs += 1,
            _ => {}
        }
        let key = StreamKey { shard: record.shard, origin: record.dot.origin };
        // A log of more streams than the table holds could only be another's.
        let Some(index) = self.streams.find_or_add(key) else { return };
        self.streams.lies_in(segment, index, record.dot.seq);
        let stream = &mut self.streams[index];
        let seq = record.dot.seq;
        stream.known.insert(seq, seq);
        stream.synced.insert(seq, seq);
        if stream.chain.seq() + 1 == seq {
            stream.chain.push(record);
        }
    }

    /// All records are in; calls [`Core::recovery_done`]. `sound`: no range of the log is damaged. `lsn` is the log
    /// position of the last record.
    pub fn recovery_done(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        sound: bool,
        lsn: u64,
    ) {
        let recovery = self.recovery.take().expect("recovery is done once");
        (self.closed_lsn, self.durable_lsn) = (lsn, lsn);
        self.retired = recovery.retired.then_some(self.config.peer);
        self.sound = sound;
        if sound {
            self.fill_reclaimed(&recovery);
        }
        let is_solo = recovery.mode == Some(Mode::Solo);
        core.hold_dedup(recovery.solo_since_ms);
        let streams = &self.streams;
        core.recovery_done_in_pair(fx, now.unix_ms, |shard, dot| {
            let known = streams.get(StreamKey { shard, origin: dot.origin });
            !known.is_some_and(|stream| stream.known.contains(dot.seq))
        });
        let solo_msgs = if is_solo { recovery.solo_msgs } else { 0 };
        self.rule.begin(now, recovery.state_id, lsn, solo_msgs);
        self.greet_lsn = lsn;
        self.marks_owed = self.append_marks(fx, core).is_err();
        self.settle(fx, core, now);
    }

    /// What MARKs say was known, and is not here, was reclaimed.
    fn fill_reclaimed(&mut self, recovery: &Recovery) {
        for entry in &recovery.marks {
            let Some(index) = self.streams.find(entry.stream) else { continue };
            let stream = &mut self.streams[index];
            stream.known.insert(1, entry.prefix);
            stream.synced.insert(1, entry.prefix);
        }
        let taken_for_old = recovery.marks.is_empty() && sabotage::is(Sabotage::LogWithoutPeer);
        if recovery.had_peer && !taken_for_old {
            return;
        }
        // A log of before this node had a peer: our own numbers were given out one after the other, so what is missing
        // was reclaimed. The chain begins at the end; the MARK that follows keeps that.
        let me = self.config.me.node;
        for stream in self.streams.iter_mut().filter(|stream| stream.key.origin.node == me) {
            let last = stream.known.last();
            stream.known.insert(1, last);
            stream.synced.insert(1, last);
            if stream.chain.seq() < last {
                let mut chain = Chain::default();
                chain.set(last, last.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
                stream.chain = chain;
            }
        }
    }

    /// Appends what is known of all streams, also if there are none: from then on the log is one of a pair. It may be
    /// claimed once that is synced.
    pub(super) fn append_marks(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
    ) -> Result<(), Refusal> {
        let streams: Vec<u32> = (0..self.streams.len() as u32).collect();
        let per_mark = (MARK_BYTES_MAX - MARK_HEADER_BYTES) / MARK_ENTRY_BYTES;
        let none = streams.is_empty().then_some(&[][..]);
        for some in none.into_iter().chain(streams.chunks(per_mark)) {
            let flags = if self.retired.is_some() { MARK_RETIRED } else { 0 };
            let mut body = vec![MARK_VERSION, flags, 0, 0];
            body.extend_from_slice(&(some.len() as u32).to_le_bytes());
            for index in some {
                let stream = &self.streams[*index];
                let StreamKey { shard, origin } = stream.key;
                let mut w = Writer::new(&mut body);
                w.u16(shard.0).u32(origin.node).u32(origin.incarnation);
                w.u64(stream.marks_upto()).u64(stream.chain.seq()).u64(stream.chain.digest());
            }
            let appended = fx.append_mark(self.config.first_shard, &body)?;
            core.foreign_other(&appended);
            for index in some {
                let last = self.streams[*index].marks_upto();
                self.streams.marked_at(appended.lsn, *index, last);
            }
            self.greet_lsn = self.greet_lsn.max(appended.lsn);
        }
        // The first MARKs after the change say it; later ones only repeat it.
        if self.retired_lsn == u64::MAX {
            self.retired_lsn = core.last_lsn();
        }
        Ok(())
    }

    /// A dedup checkpoint ends: what it replaces includes the MARKs in older segments, so they are written again. Before the
    /// log is told that the checkpoint is complete.
    pub fn checkpoint(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
    ) -> Result<(), Refusal> {
        let greet_lsn = self.greet_lsn;
        let appended = self.append_marks(fx, core);
        // A link need not wait for it: nothing new is claimed.
        self.greet_lsn = greet_lsn;
        appended
    }

    /// The peer never comes back: nothing is kept for it any more, from when the MARK that says so is synced. It may only
    /// join again with an empty log, also after restarts of this node.
    pub fn retire_peer(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core) {
        self.set_retired(fx, core, Some(self.config.peer));
    }

    /// Whether the peer is retired, and no later life can take that back. On a log without room for the MARK that says so,
    /// segments go before it: nothing else would make room.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.is_some() && (self.durable_lsn >= self.retired_lsn || self.retired_owed)
    }

    /// Appends the MARK that had no room when the peer was retired.
    pub(super) fn append_owed_retirement(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core) {
        if self.retired_owed {
            self.retired_owed = self.checkpoint(fx, core).is_err();
        }
    }

    pub(super) fn set_retired(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        retired: Option<u32>,
    ) {
        if self.retired == retired {
            return;
        }
        (self.retired, self.retired_lsn, self.retired_owed) = (retired, u64::MAX, true);
        self.append_owed_retirement(fx, core);
    }
}

/// The entries of a MARK; none of one that this code cannot read.
fn mark_entries(body: &[u8]) -> Vec<MarkEntry> {
    let entries = body.get(MARK_HEADER_BYTES..).unwrap_or_default();
    if body.first() != Some(&MARK_VERSION) || !entries.len().is_multiple_of(MARK_ENTRY_BYTES) {
        return Vec::new();
    }
    entries.chunks_exact(MARK_ENTRY_BYTES).filter_map(mark_entry).collect()
}

fn mark_entry(bytes: &[u8]) -> Option<MarkEntry> {
    let mut r = Reader::new(bytes);
    let shard = ShardId(r.u16().ok()?);
    let origin = Origin { node: r.u32().ok()?, incarnation: r.u32().ok()? };
    let (prefix, chain_seq, digest) = (r.u64().ok()?, r.u64().ok()?, r.u64().ok()?);
    Some(MarkEntry { stream: StreamKey { shard, origin }, prefix, chain_seq, digest })
}
