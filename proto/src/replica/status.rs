//! What operators see, and the small rest of the interface.

use super::effects::{Mode, RefuseCode};
use super::recover::Recovery;
use super::rule::Rule;
use super::streams::Streams;
use super::tail::Tail;
use super::{Now, Replica, ReplicaConfig, Scratch};
use crate::core::Core;
use crate::id::{Origin, ShardId};
use crate::peer::PartitionState;
use crate::sabotage::{self, Sabotage};

/// The state of a node of a pair, as operators call it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Label {
    /// It started and does not serve yet.
    Recovering,
    /// Two copies of everything.
    Normal,
    /// It serves alone.
    Solo,
    /// It serves alone, and both sides exchange what they lack.
    Healing,
    /// It is about to stop.
    Draining,
    /// It must start again with another incarnation.
    Fenced,
}

impl Label {
    /// The name in status and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recovering => "recovering",
            Self::Normal => "normal",
            Self::Solo => "solo",
            Self::Healing => "healing",
            Self::Draining => "draining",
            Self::Fenced => "fenced",
        }
    }
}

/// What happened so far. Each only grows.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Links that came up.
    pub links: u64,
    /// Links that this node ended, by [`RefuseCode`] as index.
    pub refused: [u64; RefuseCode::COUNT],
    /// Links that the peer ended by name.
    pub refused_by_peer: u64,
    /// Bytes of records sent.
    pub shipped_bytes: u64,
    /// Of those, read from the log for healing.
    pub healed_bytes: u64,
    /// Records of the peer appended.
    pub received_records: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Records of the peer that were here already.
    pub repeated_records: u64,
    /// Records of fenced streams that were not taken.
    pub fenced_records: u64,
    /// Streams fenced.
    pub fenced: u64,
    /// Records that no node has any more.
    pub lost_records: u64,
    /// Inbox entries removed because the peer had removed them and both TOMBs were gone.
    pub unlisted: u64,
    /// Stamps of the peer that were too far ahead to follow.
    pub stamps_ahead: u64,
    /// Bytes of links that were down already.
    pub stale_bytes: u64,
}

/// The state of a pair, seen from one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// What operators call it.
    pub label: Label,
    /// Which rule acknowledges.
    pub mode: Mode,
    /// Grows at every change of mode.
    pub state_id: u64,
    /// The peer in its present life, while a link is up.
    pub peer: Option<Origin>,
    /// Records of our own life that the peer is not known to have synced.
    pub lag_records: u64,
    /// Bytes of them as far as they are in memory.
    pub lag_bytes: u64,
    /// How long the oldest record has been synced here and not there, in milliseconds; 0 outside of NORMAL.
    pub lag_ms: u64,
    /// Messages taken alone since the last NORMAL: a loss of this disk would lose those that the peer lacks.
    pub copies_one: u64,
    /// When the last change to SOLO was over (Unix milliseconds), and how long nothing was acknowledged before it.
    pub last_failover: Option<(u64, u64)>,
    /// Times that both nodes had taken messages alone.
    pub splits: u64,
    /// Messages of the last one: ours, theirs.
    pub last_split: (u64, u64),
    /// Streams that mean different things here and at the peer.
    pub fenced_streams: u64,
    /// The peer was not met in this life: inboxes may lack messages that only it has.
    pub possibly_incomplete: bool,
    /// The log has damaged ranges that the peer may fill.
    pub damaged: bool,
    /// The peer, if operators said that it never comes back, once that is synced. `None` from when it has come back empty.
    pub retired: Option<u32>,
}

impl Replica {
    /// A replica that waits for the records of its log.
    pub fn new(config: ReplicaConfig) -> Self {
        assert!(config.me.node != config.peer, "a node is not its own peer");
        assert!(config.silent_ms > config.heartbeat_ms, "silence is longer than a heartbeat");
        Self {
            streams: Streams::default(),
            tail: Tail::default(),
            rule: Rule::new(),
            link: None,
            last_link: 0,
            behind: false,
            recovery: Some(Recovery::default()),
            sound: true,
            was_damaged: false,
            closed_lsn: 0,
            durable_lsn: 0,
            greet_lsn: 0,
            marks_owed: false,
            ends_filled: false,
            scan_is_out: false,
            unread_before: Default::default(),
            retired: None,
            retired_lsn: 0,
            retired_owed: false,
            counters: Default::default(),
            scratch: Scratch::default(),
            config,
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether logins are taken. While they are not, the peer serves.
    pub fn serves(&self) -> bool {
        self.rule.has_waited() && !self.rule.is_halted() && !self.rule.is_draining()
    }

    /// What edges are told. A life before its first greeting does not know yet what it lacks.
    pub fn partition_state(&self) -> PartitionState {
        match (self.serves(), self.behind && self.retired.is_none()) {
            (false, _) => PartitionState::Recovering,
            (true, false) => PartitionState::Serving,
            (true, true) => PartitionState::Behind,
        }
    }

    /// Whether a segment may be dropped as far as the pair is concerned: the peer has all of it synced, and our inboxes know
    /// all of it. The log's own rules come besides.
    pub fn may_drop(&self, core: &Core, segment: u32) -> bool {
        let is_applied = core.first_unapplied().is_none_or(|pos| segment < pos.segment);
        // A TOMB that came before its message is what keeps that message out.
        let early = core.has_early_tomb_in(segment);
        let is_covered = self.streams.is_covered(segment);
        let is_needed = !sabotage::is(Sabotage::DroppedBeforePeer) && (early || !is_covered);
        is_applied && (self.is_retired() || !is_needed)
    }

    /// A segment is gone from the log.
    pub fn segment_dropped(&mut self, segment: u32) {
        self.streams.dropped(segment);
        if let (Some(lsn), Some(link)) = (self.tail.dropped(segment), &mut self.link) {
            link.shipping.skip_to(lsn);
        }
    }

    /// What is known of each stream: shard, origin, how far without a hole, and the chain digest there if it is known. Two
    /// nodes that are alike say the same.
    pub fn streams(&self) -> impl Iterator<Item = (ShardId, Origin, u64, Option<u64>)> {
        self.streams.iter().map(|stream| {
            let prefix = stream.known.prefix();
            (stream.key.shard, stream.key.origin, prefix, stream.chain.at(prefix))
        })
    }

    /// The state of the pair, seen from here.
    pub fn status(&self, now: Now) -> Status {
        let (mode, state_id) = self.rule.mode();
        let ours = self.streams.iter().filter(|stream| stream.key.origin == self.config.me);
        let lag = |stream: &super::streams::Stream| {
            stream.known.last().saturating_sub(stream.peer_synced.prefix())
        };
        let (splits, last_split) = self.rule.splits();
        let hello = self.link.as_ref().and_then(|link| link.greeting.hello());
        let in_flight = self.link.as_ref().map_or(0, |link| link.shipping.in_flight());
        let shipped = self.link.as_ref().map_or(self.rule.two_lsn(), |l| l.shipping.tail_lsn());
        Status {
            label: self.label(),
            mode,
            state_id,
            peer: hello.map(|hello| hello.me),
            lag_records: ours.map(lag).sum(),
            lag_bytes: (in_flight + self.tail.bytes_after(shipped)) as u64,
            lag_ms: self.rule.oldest_wait_ms(now),
            copies_one: self.rule.solo_msgs(),
            last_failover: self.rule.last_failover(),
            splits,
            last_split,
            fenced_streams: self.streams.iter().filter(|stream| stream.fenced).count() as u64,
            possibly_incomplete: !self.rule.has_met(),
            damaged: !self.sound,
            retired: self.retired.filter(|_| self.is_retired()),
        }
    }
}
