//! A link between an edge and a core: two ordered ways that are slow, stand still, or end. Each end learns for itself that
//! the link is over: by the end of what comes, or by silence.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iris_proto::id::{ConnId, MsgId};
use iris_proto::peer::PartitionState;

use crate::model::{Made, User};
use crate::random::Random;

/// The way of an edge's words.
pub(crate) const TO_CORE: usize = 0;
/// The way of a core's words.
pub(crate) const TO_EDGE: usize = 1;
/// An end that hears nothing for so long ends the link: four heartbeats, at the pace of the run.
const SILENT_MS: u64 = 20;

/// What is on its way.
#[derive(Debug)]
pub(crate) enum Parcel {
    /// Link frames.
    Bytes(Vec<u8>),
    /// The other end is gone.
    End,
}

/// A link, of which each end may stand alone for a while.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The number that the core gave to the edge's reactor, while its end stands.
    pub(crate) at_core: Option<u16>,
    /// Whether the edge's end stands.
    pub(crate) at_edge: bool,
    ways: [VecDeque<(u64, Parcel)>; 2],
    /// Whether a way stands still.
    pub(crate) cut: [bool; 2],
    heard_ms: [u64; 2],
    next_try_ms: u64,
    /// The state that the core told last.
    pub(crate) told: PartitionState,
    /// Frames of the core that are not on their way yet.
    pub(crate) out: Vec<u8>,
    /// Consecutive SENDs to be answered at once: whose, the first one, how many, on how many nodes.
    pub(crate) accepted: Option<(ConnId, u32, u16, u8)>,
    /// SENDs that the core looked at, by their names on the link.
    pub(crate) taken: BTreeMap<(ConnId, u32), (MsgId, Made)>,
    /// Who logged in by which name.
    pub(crate) logins: BTreeMap<ConnId, User>,
    /// Numbers of deliveries that the core could not read.
    pub(crate) unread: BTreeSet<(ConnId, u32)>,
    /// The last delivery of each login that came to the edge.
    pub(crate) last_no: BTreeMap<ConnId, u32>,
}

impl Link {
    /// Whether the edge may try to connect.
    pub(crate) fn may_connect(&self, now_ms: u64) -> bool {
        !self.at_edge && now_ms >= self.next_try_ms && self.cut == [false; 2]
    }

    /// A new connection, with this number of the edge's reactor. Nothing of the last one is left.
    pub(crate) fn connect(&mut self, now_ms: u64, reactor: u16) {
        let (at_core, heard_ms) = (Some(reactor), [now_ms; 2]);
        *self = Self { at_core, at_edge: true, heard_ms, ..Self::default() };
    }

    /// Bytes leave for the other end.
    pub(crate) fn send(&mut self, way: usize, bytes: Vec<u8>, due_ms: u64) {
        if !bytes.is_empty() {
            self.push(way, Parcel::Bytes(bytes), due_ms);
        }
    }

    fn push(&mut self, way: usize, parcel: Parcel, due_ms: u64) {
        let due_ms = self.ways[way].back().map_or(due_ms, |(last, _)| due_ms.max(*last));
        self.ways[way].push_back((due_ms, parcel));
    }

    /// What arrives now.
    pub(crate) fn arrive(&mut self, way: usize, now_ms: u64, is_cut: bool) -> Option<Parcel> {
        let is_due = self.ways[way].front().is_some_and(|(due_ms, _)| *due_ms <= now_ms);
        if is_cut || !is_due {
            return None;
        }
        self.ways[way].pop_front().map(|(_, parcel)| parcel)
    }

    /// Bytes on the way.
    pub(crate) fn waiting(&self, way: usize) -> usize {
        let bytes =
            |parcel: &Parcel| if let Parcel::Bytes(bytes) = parcel { bytes.len() } else { 0 };
        self.ways[way].iter().map(|(_, parcel)| bytes(parcel)).sum()
    }

    /// Whether the end that this way leads to gives the link up.
    pub(crate) fn is_silent(&mut self, way: usize, now_ms: u64, is_cut: bool) -> bool {
        if !is_cut {
            self.heard_ms[way] = now_ms;
        }
        now_ms > self.heard_ms[way] + SILENT_MS
    }

    /// The core's end is over; the edge hears of it after some of what was said before.
    pub(crate) fn leave_core(&mut self, random: &mut Random, due_ms: u64) {
        self.at_core = None;
        (self.accepted, self.out) = (None, Vec::new());
        self.ways[TO_CORE].clear();
        self.last_words(TO_EDGE, random, due_ms);
    }

    /// The edge's end is over; the core hears of it after some of what was said before.
    pub(crate) fn leave_edge(&mut self, random: &mut Random, now_ms: u64, due_ms: u64) {
        self.at_edge = false;
        self.next_try_ms = now_ms + random.between(1, 10);
        self.ways[TO_EDGE].clear();
        self.last_words(TO_CORE, random, due_ms);
    }

    fn last_words(&mut self, way: usize, random: &mut Random, due_ms: u64) {
        if random.one_in(2) {
            let kept = random.below(self.ways[way].len() as u64 + 1) as usize;
            self.ways[way].truncate(kept);
        }
        self.push(way, Parcel::End, due_ms);
    }
}
