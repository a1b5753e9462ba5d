//! What one partition of a pair tells of itself and its mirror, and the one wish that operators have of it.

use std::sync::atomic::{AtomicU32, Ordering};

use iris_proto::replica::{Counters, Label as State, Mode, RefuseCode, Status};

use super::cell::{Counter, CounterBy, Gauge, Histogram, Label};
use super::labels::{LinkRefusal, MirrorMode, MirrorState};

/// Milliseconds from 10 to 20,480, doubling.
pub type FailoverHistogram = Histogram<10, 12>;

/// The state of a pair, seen from one partition. Its thread writes it; nothing is shown before the first
/// [`MirrorMetrics::set`].
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct MirrorMetrics {
    /// 1 once this partition has a mirror.
    present: Gauge,
    /// Index of [`MirrorState`].
    state: Gauge,
    /// Index of [`MirrorMode`].
    mode: Gauge,
    /// Grows at every change of mode.
    pub state_id: Gauge,
    /// The mirror's node number and incarnation while it is linked; 0 otherwise.
    pub peer: Gauge,
    /// See [`MirrorMetrics::peer`].
    pub peer_incarnation: Gauge,
    /// Records synced here and not known to be synced there.
    pub lag_records: Gauge,
    /// Bytes of them.
    pub lag_bytes: Gauge,
    /// How long the oldest of them has waited, in milliseconds.
    pub lag_ms: Gauge,
    /// Messages with one copy.
    pub copies_one: Gauge,
    /// Changes from two copies to one, or to serving alone.
    pub failovers: Counter,
    /// When the last one was over, in Unix milliseconds; 0: none yet.
    pub last_failover_unix_ms: Gauge,
    /// How long nothing was acknowledged before that, in milliseconds.
    pub last_failover_ms: Gauge,
    /// The same of all of them.
    pub failover_ms: FailoverHistogram,
    /// Times that both nodes had taken messages alone.
    pub splits: Counter,
    /// Messages that this node had taken alone in the last one.
    pub last_split_mine: Gauge,
    /// Messages that the other one had.
    pub last_split_theirs: Gauge,
    /// Messages that both nodes had taken and that are there once now.
    pub collapsed: Counter,
    /// Of those, the ones that were two messages under one id.
    pub conflicts: Counter,
    /// Of the last split: how many had collapsed before.
    collapsed_before: Gauge,
    conflicts_before: Gauge,
    /// Streams that mean different things on both nodes.
    pub fenced_streams: Gauge,
    /// 1 until the mirror was met in this life.
    pub incomplete: Gauge,
    /// 1 while the log has damaged ranges that the mirror may fill.
    pub damaged: Gauge,
    /// Links that came up.
    pub links: Counter,
    /// Links that this node ended, by reason.
    pub refused: CounterBy<LinkRefusal, { LinkRefusal::COUNT }>,
    /// Links that the mirror ended by name.
    pub refused_by_peer: Counter,
    /// Bytes of records sent.
    pub shipped_bytes: Counter,
    /// Of those, read from the log for healing.
    pub healed_bytes: Counter,
    /// Records of the mirror appended.
    pub received_records: Counter,
    /// Bytes of them.
    pub received_bytes: Counter,
    /// Records of the mirror that were here already.
    pub repeated_records: Counter,
    /// Records of fenced streams that were not taken.
    pub fenced_records: Counter,
    /// Records that no node has any more.
    pub lost_records: Counter,
    /// Stamps too far ahead to follow.
    pub stamps_ahead: Counter,
    /// Bytes of links that were down already.
    pub stale_bytes: Counter,
    /// The node that was retired, until it comes back empty; 0: none.
    pub retired: Gauge,
    /// The node that is to be retired; 0: none. Written by the control thread, taken by the partition.
    wish: AtomicU32,
}

impl MirrorMetrics {
    /// Shows what the replica says. Call it twice a second and at each of its events.
    pub fn set(&self, status: &Status, counters: &Counters) {
        self.set_status(status);
        self.set_counters(counters);
        self.present.set(1);
    }

    /// This partition has no mirror: nothing is shown.
    pub fn set_absent(&self) {
        self.present.set(0);
    }

    /// Whether there is something to show.
    pub fn is_present(&self) -> bool {
        self.present.value() != 0
    }

    /// What operators call it.
    pub fn state(&self) -> MirrorState {
        MirrorState::ALL[self.state.value() as usize]
    }

    /// Which rule acknowledges.
    pub fn mode(&self) -> MirrorMode {
        MirrorMode::ALL[self.mode.value() as usize]
    }

    /// Whether the mirror has a link and said who it is.
    pub fn is_linked(&self) -> bool {
        self.peer.value() != 0
    }

    fn set_status(&self, status: &Status) {
        self.state.set(MirrorState::from(status.label).index() as u64);
        self.mode.set(MirrorMode::from(status.mode).index() as u64);
        self.state_id.set(status.state_id);
        self.peer.set(status.peer.map_or(0, |peer| peer.node.into()));
        self.peer_incarnation.set(status.peer.map_or(0, |peer| peer.incarnation.into()));
        self.retired.set(status.retired.unwrap_or(0).into());
        self.lag_records.set(status.lag_records);
        self.lag_bytes.set(status.lag_bytes);
        self.lag_ms.set(status.lag_ms);
        self.copies_one.set(status.copies_one);
        let last = (self.last_failover_unix_ms.value(), self.last_failover_ms.value());
        if let Some(failover) = status.last_failover
            && failover != last
        {
            self.failovers.add(1);
            self.last_failover_unix_ms.set(failover.0);
            self.last_failover_ms.set(failover.1);
            self.failover_ms.record(failover.1);
        }
        if status.splits > self.splits.value() {
            self.collapsed_before.set(self.collapsed.value());
            self.conflicts_before.set(self.conflicts.value());
        }
        self.splits.set(status.splits);
        self.last_split_mine.set(status.last_split.0);
        self.last_split_theirs.set(status.last_split.1);
        self.fenced_streams.set(status.fenced_streams);
        self.incomplete.set(status.possibly_incomplete.into());
        self.damaged.set(status.damaged.into());
    }

    /// So many messages that both nodes had taken collapsed into one each; of so many of them the payloads differed.
    pub fn note_doubles(&self, collapsed: u64, conflicts: u64) {
        self.collapsed.add(collapsed);
        self.conflicts.add(conflicts);
    }

    /// Messages that collapsed since the last split was found.
    pub fn last_split_collapsed(&self) -> u64 {
        self.collapsed.value().saturating_sub(self.collapsed_before.value())
    }

    /// Of those, the ones that were two messages under one id.
    pub fn last_split_conflicts(&self) -> u64 {
        self.conflicts.value().saturating_sub(self.conflicts_before.value())
    }

    fn set_counters(&self, counters: &Counters) {
        self.links.set(counters.links);
        for refusal in LinkRefusal::ALL {
            self.refused.at(*refusal).set(counters.refused[refusal.code() as usize]);
        }
        self.refused_by_peer.set(counters.refused_by_peer);
        self.shipped_bytes.set(counters.shipped_bytes);
        self.healed_bytes.set(counters.healed_bytes);
        self.received_records.set(counters.received_records);
        self.received_bytes.set(counters.received_bytes);
        self.repeated_records.set(counters.repeated_records);
        self.fenced_records.set(counters.fenced_records);
        self.lost_records.set(counters.lost_records);
        self.stamps_ahead.set(counters.stamps_ahead);
        self.stale_bytes.set(counters.stale_bytes);
    }

    /// Asks the partition to give up that node. It does at its next look, if the node is not linked then.
    pub fn ask_retire(&self, node: u32) {
        self.wish.store(node, Ordering::Release);
    }

    /// Whether the partition has not looked yet.
    pub fn is_retire_asked(&self) -> bool {
        self.wish.load(Ordering::Acquire) != 0
    }

    /// The node that operators want to be given up, once; never one that is linked. Whoever takes it calls
    /// [`iris_proto::replica::Replica::retire_peer`].
    pub fn take_retire(&self) -> Option<u32> {
        if !self.is_retire_asked() {
            return None;
        }
        let node = self.wish.load(Ordering::Acquire);
        self.wish.store(0, Ordering::Release);
        (!self.is_linked()).then_some(node)
    }
}

impl From<State> for MirrorState {
    fn from(state: State) -> Self {
        match state {
            State::Recovering => Self::Recovering,
            State::Normal => Self::Normal,
            State::Solo => Self::Solo,
            State::Healing => Self::Healing,
            State::Draining => Self::Draining,
            State::Fenced => Self::Fenced,
        }
    }
}

impl From<Mode> for MirrorMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Recovering => Self::Recovering,
            Mode::Normal => Self::Normal,
            Mode::Solo => Self::Solo,
        }
    }
}

impl LinkRefusal {
    /// The code of the protocol.
    fn code(self) -> RefuseCode {
        match self {
            Self::Version => RefuseCode::Version,
            Self::WrongNode => RefuseCode::WrongNode,
            Self::Layout => RefuseCode::Layout,
            Self::Malformed => RefuseCode::Malformed,
            Self::BadRecord => RefuseCode::BadRecord,
            Self::TooMuch => RefuseCode::TooMuch,
            Self::Retired => RefuseCode::Retired,
            Self::Silent => RefuseCode::Silent,
            Self::Reincarnate => RefuseCode::Reincarnate,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use iris_proto::id::Origin;

    pub(crate) fn alone() -> Status {
        Status {
            label: State::Solo,
            mode: Mode::Solo,
            state_id: 3,
            peer: None,
            lag_records: 5,
            lag_bytes: 500,
            lag_ms: 0,
            copies_one: 4,
            last_failover: Some((1_700_000_000_000, 12)),
            splits: 0,
            last_split: (0, 0),
            fenced_streams: 0,
            possibly_incomplete: false,
            damaged: false,
            retired: None,
        }
    }

    #[test]
    fn a_failover_is_counted_once_however_often_it_is_told() {
        let mirror = MirrorMetrics::default();
        let mut status = alone();
        for _ in 0..3 {
            mirror.set(&status, &Counters::default());
        }
        assert_eq!(mirror.failovers.value(), 1);
        status.last_failover = Some((1_700_000_009_000, 12));
        mirror.set(&status, &Counters::default());
        assert_eq!(mirror.failovers.value(), 2);
        assert_eq!(mirror.last_failover_unix_ms.value(), 1_700_000_009_000);
        let lengths = mirror.failover_ms.snapshot();
        assert_eq!((lengths.buckets[1], lengths.sum), ((20, 2), 24));
    }

    #[test]
    fn what_collapsed_counts_for_the_split_that_it_came_after() {
        let mirror = MirrorMetrics::default();
        let mut status = alone();
        (status.splits, status.last_split) = (1, (3, 4));
        mirror.set(&status, &Counters::default());
        mirror.note_doubles(2, 1);
        mirror.set(&status, &Counters::default());
        assert_eq!((mirror.last_split_collapsed(), mirror.last_split_conflicts()), (2, 1));
        status.splits = 2;
        mirror.set(&status, &Counters::default());
        assert_eq!((mirror.last_split_collapsed(), mirror.last_split_conflicts()), (0, 0));
        mirror.note_doubles(5, 0);
        assert_eq!((mirror.last_split_collapsed(), mirror.last_split_conflicts()), (5, 0));
        assert_eq!((mirror.collapsed.value(), mirror.conflicts.value()), (7, 1));
    }

    #[test]
    fn a_node_is_retired_once_and_only_while_it_is_not_linked() {
        let mirror = MirrorMetrics::default();
        let mut status = alone();
        mirror.set(&status, &Counters::default());
        assert_eq!(mirror.take_retire(), None);
        mirror.ask_retire(2);
        assert!(mirror.is_retire_asked());
        assert_eq!(mirror.take_retire(), Some(2));
        assert!(!mirror.is_retire_asked());
        assert_eq!(
            (mirror.take_retire(), mirror.retired.value()),
            (None, 0),
            "the log does not say it yet"
        );
        status.retired = Some(2);
        mirror.set(&status, &Counters::default());
        assert_eq!(mirror.retired.value(), 2);

        (status.peer, status.retired) = (Some(Origin { node: 2, incarnation: 9 }), None);
        mirror.set(&status, &Counters::default());
        assert_eq!(mirror.retired.value(), 0, "it is back");
        mirror.ask_retire(2);
        assert_eq!(mirror.take_retire(), None);
        assert!(!mirror.is_retire_asked() && mirror.retired.value() == 0);
    }

    #[test]
    fn states_modes_and_refusals_have_the_names_of_the_protocol() {
        for state in MirrorState::ALL {
            let mirror = MirrorMetrics::default();
            let label = [
                State::Recovering,
                State::Normal,
                State::Solo,
                State::Healing,
                State::Draining,
                State::Fenced,
            ][state.index()];
            mirror.set(&Status { label, ..alone() }, &Counters::default());
            assert_eq!((mirror.state(), state.name()), (*state, label.name()));
        }
        let mut counters = Counters::default();
        for (number, count) in counters.refused.iter_mut().enumerate() {
            *count = number as u64;
        }
        let mirror = MirrorMetrics::default();
        mirror.set(&alone(), &counters);
        let codes = (1..RefuseCode::COUNT as u8).filter_map(RefuseCode::of);
        for (code, refusal) in codes.zip(LinkRefusal::ALL) {
            assert_eq!(refusal.name(), code.name());
            assert_eq!(mirror.refused.at(*refusal).value(), code as u64);
        }
        assert_eq!(LinkRefusal::COUNT, RefuseCode::COUNT - 1);
        assert!(mirror.is_present());
        mirror.set_absent();
        assert!(!mirror.is_present());
    }
}
