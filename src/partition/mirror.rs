//! A partition of a pair: drives its [`Replica`] between the core, the log and the mirror's link.
//!
//! What the replica decides is `docs/REPLICATION.md`; here its bytes come and go, its scans are read, and its state is
//! shown to edges and operators.

use super::effects::Fx;
use super::{Failed, LINK_BACKLOG_MAX, Partition};
use crate::cluster::{Cut, MirrorNews, States};
use crate::link::{Inbox, Outbox};
use crate::metrics::MirrorMetrics;
use crate::rt::Waker;
use crossbeam_channel::Receiver;
use iris_proto::core::{Appended, Double, Refusal};
use iris_proto::id::{Dot, ShardId};
use iris_proto::peer::PartitionState;
use iris_proto::replica::{
    EpochRecord, Event, LinkDown, Mode, Now, RecordView, RefuseCode, Replica, ReplicaConfig,
    ReplicaEffects, ScanFrom, Scanned,
};
use iris_wal::feed::Fed;
use iris_wal::{Body, record, views};
use std::sync::Arc;
use std::time::Duration;

/// Batches of the mirror taken in one turn (I8).
const BATCHES_PER_TURN: usize = 8;

/// What a partition of a core that has a mirror is told.
pub struct MirrorParts {
    /// Who both are, and how patient.
    pub config: ReplicaConfig,
    /// Links to the same partition of the mirror, as the gateway makes and loses them.
    pub news: Receiver<MirrorNews>,
    /// Where edges see whether this partition serves.
    pub states: Arc<States>,
    /// The gateway, woken when that changes.
    pub gateway: Waker,
    /// Where operators see how both are.
    pub metrics: Arc<MirrorMetrics>,
}

/// The replica's hands.
#[derive(Default)]
pub(super) struct Hands {
    partition: u16,
    outbox: Option<(Outbox, Cut)>,
    scan: Option<(ScanFrom, usize)>,
    reincarnate: Option<u32>,
    /// Something happened that operators see at once.
    has_news: bool,
    /// What both nodes took, and nobody has compared yet.
    doubles: Vec<Double>,
}

impl Hands {
    pub(super) fn new(partition: u16) -> Self {
        Self { partition, ..Self::default() }
    }

    /// Notes a message that both nodes took. One with many recipients is told of for each inbox, one right after the other.
    pub(super) fn doubled(&mut self, double: &Double) {
        let records = |double: &Double| (double.shard, double.kept.0, double.dropped.0);
        if self.doubles.last().map(records) != Some(records(double)) {
            self.doubles.push(*double);
        }
    }

    pub(super) fn take_doubles(&mut self) -> Vec<Double> {
        std::mem::take(&mut self.doubles)
    }

    pub(super) fn flush(&mut self) -> bool {
        self.outbox.as_mut().is_some_and(|(outbox, _)| outbox.flush().is_some())
    }

    pub(super) fn may_sleep(&self) -> bool {
        self.outbox.as_ref().is_none_or(|(outbox, _)| outbox.may_sleep())
    }
}

/// What a partition knows of its mirror.
pub(super) struct Mirror {
    pub(super) replica: Replica,
    index: u16,
    news: Receiver<MirrorNews>,
    /// The link that is up: its number and what comes over it.
    link: Option<(u64, Inbox)>,
    states: Arc<States>,
    gateway: Waker,
    pub(super) metrics: Arc<MirrorMetrics>,
    /// Monotonic milliseconds.
    due_ms: u64,
    is_draining: bool,
}

impl Mirror {
    pub(super) fn new(index: u16, parts: MirrorParts) -> Self {
        let MirrorParts { config, news, states, gateway, metrics } = parts;
        Self {
            replica: Replica::new(config),
            index,
            news,
            link: None,
            states,
            gateway,
            metrics,
            due_ms: 0,
            is_draining: false,
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.news.is_empty() && self.link.as_ref().is_none_or(|(_, inbox)| inbox.is_empty())
    }

    /// How long until the replica has something to do.
    pub(super) fn sleep_max(&self, now_ms: u64) -> Duration {
        Duration::from_millis(self.due_ms.saturating_sub(now_ms).max(1))
    }
}

impl Partition {
    pub(super) fn now(&self) -> Now {
        Now { unix_ms: self.clock.unix_ms(), mono_ms: self.clock.monotonic_ms() }
    }

    /// Takes what the gateway and the mirror said. Whether there was anything.
    pub(super) fn take_mirror(&mut self) -> bool {
        let now = self.now();
        let Some(mirror) = &mut self.mirror else { return false };
        let mut worked = take_bytes(mirror, &mut self.fx, &mut self.core, now, BATCHES_PER_TURN);
        while let Ok(news) = mirror.news.try_recv() {
            worked = true;
            // What came before the news counts before them: a goodbye comes right before the end.
            take_bytes(mirror, &mut self.fx, &mut self.core, now, usize::MAX);
            match news {
                MirrorNews::Up { link, inbox, outbox, cut, .. } => {
                    mirror.link = Some((link, inbox));
                    self.fx.mirror.outbox = Some((outbox, cut));
                    mirror.replica.link_up(&mut self.fx, &mut self.core, now, link);
                }
                MirrorNews::Down { link, is_gone } => {
                    if mirror.link.take_if(|(up, _)| *up == link).is_some() {
                        self.fx.mirror.outbox = None;
                    }
                    let how = if is_gone { LinkDown::Gone } else { LinkDown::Lost };
                    mirror.replica.link_down(&mut self.fx, &mut self.core, now, link, how);
                }
            }
        }
        self.more |= worked;
        worked
    }

    /// Lets the replica do what is due, after everything else that came in this turn.
    pub(super) fn poll_mirror(&mut self, worked: bool) {
        let now = self.now();
        let Some(mirror) = &mut self.mirror else { return };
        if !worked && now.mono_ms < mirror.due_ms {
            return;
        }
        let is_draining = mirror.states.get(mirror.index) == PartitionState::Draining;
        if is_draining && !std::mem::replace(&mut mirror.is_draining, true) {
            mirror.replica.drain(&mut self.fx, &mut self.core, now);
        }
        mirror.replica.poll(&mut self.fx, &mut self.core, now);
        mirror.due_ms = mirror.replica.poll_timeout(now);
        if let Some((from, bytes_max)) = self.fx.mirror.scan.take() {
            self.disk.scan(from, self.fx.log.durable(), bytes_max);
        }
        let state = mirror.replica.partition_state();
        let is_drained = mirror.is_draining && mirror.replica.is_drained();
        if mirror.states.tell(mirror.index, state, is_drained) {
            mirror.gateway.wake();
        }
        if let Some(above) = self.fx.mirror.reincarnate.take() {
            let _ = self.failed.send(Failed::Reincarnate(above));
        }
        if std::mem::take(&mut self.fx.mirror.has_news) {
            mirror.metrics.set(&mirror.replica.status(now), mirror.replica.counters());
        }
        self.look_at_doubles();
        self.more = true;
    }

    /// Shows operators how both are, and does what they wish.
    pub(super) fn look_at_mirror(&mut self) {
        let now = self.now();
        let Some(mirror) = &mut self.mirror else { return };
        mirror.metrics.set(&mirror.replica.status(now), mirror.replica.counters());
        if let Some(node) = mirror.metrics.take_retire() {
            tracing::warn!(
                partition = mirror.index,
                node,
                "nothing is kept for this mirror any more"
            );
            mirror.replica.retire_peer(&mut self.fx, &mut self.core);
        }
    }

    /// A part of the log was read for the mirror.
    pub(super) fn scanned(&mut self, from: ScanFrom, fed: &Fed) {
        let now = self.now();
        let Some(mirror) = &mut self.mirror else { return };
        let scanned = Scanned { from, records: &fed.records, next: fed.next };
        mirror.replica.handle_scanned(&mut self.fx, &mut self.core, now, &scanned);
    }

    /// Whether logins are taken.
    pub(super) fn serves(&self) -> bool {
        self.mirror.as_ref().is_none_or(|mirror| mirror.replica.serves())
    }
}

/// Bytes of the mirror, so many batches at most. They are bounded by what it may have under way.
fn take_bytes(
    mirror: &mut Mirror,
    fx: &mut Fx,
    core: &mut iris_proto::core::Core,
    now: Now,
    batches: usize,
) -> bool {
    let mut worked = false;
    for _ in 0..batches {
        let Some((link, inbox)) = &mirror.link else { break };
        let Some(batch) = inbox.receive() else { break };
        mirror.replica.handle_bytes(fx, core, now, *link, &batch.bytes);
        worked = true;
    }
    worked
}

impl ReplicaEffects for Fx {
    fn decode<'a>(
        &self,
        bytes: &'a [u8],
        check: bool,
        targets: &'a mut Vec<Dot>,
    ) -> Option<(RecordView<'a>, usize)> {
        let decoded = if check { record::decode(bytes) } else { record::decode_own(bytes) };
        let (record, len) = decoded.ok()?;
        Some((views::view(&record, targets), len))
    }

    fn append_foreign(&mut self, bytes: &[u8]) -> Result<Appended, Refusal> {
        let (record, _) = record::decode_own(bytes).expect("the replica has checked it");
        let appended = self.append_encoded(&record, bytes)?;
        match record.body {
            Body::Msg(msg) => {
                self.awaited = true;
                views::entries_added(&mut self.log, msg.recipients, &appended);
            }
            Body::Epoch(_) => self.awaited = true,
            _ => {}
        }
        Ok(appended)
    }

    fn append_epoch(&mut self, epoch: &EpochRecord<'_>) -> Result<Appended, Refusal> {
        let appended = self.append(&views::epoch_record(epoch))?;
        self.awaited = true;
        Ok(appended)
    }

    fn append_mark(&mut self, shard: ShardId, body: &[u8]) -> Result<Appended, Refusal> {
        let head = self.head_outside_streams(shard);
        let appended = self.append(&views::mark_record(head, body))?;
        self.awaited = true;
        Ok(appended)
    }

    fn log_has_room(&self) -> bool {
        self.log.has_room() && self.links.near_has_room(LINK_BACKLOG_MAX)
    }

    fn send(&mut self, head: &[u8], body: &[u8]) {
        // A link that is down takes nothing more.
        let Some((outbox, _)) = &mut self.mirror.outbox else { return };
        let buffer = outbox.buffer();
        buffer.extend_from_slice(head);
        buffer.extend_from_slice(body);
    }

    fn close(&mut self, _why: RefuseCode) {
        if let Some((mut outbox, cut)) = self.mirror.outbox.take() {
            // The reason goes out before the end.
            outbox.flush();
            cut.now();
        }
    }

    fn scan(&mut self, from: ScanFrom, bytes_max: usize) {
        assert!(self.mirror.scan.replace((from, bytes_max)).is_none(), "one scan at a time");
    }

    fn reincarnate(&mut self, above: u32) {
        self.mirror.reincarnate = Some(above);
    }

    fn event(&mut self, event: &Event) {
        let partition = self.mirror.partition;
        self.mirror.has_news = true;
        match *event {
            Event::Mode { mode: Mode::Solo, state_id, took_ms } => {
                tracing::warn!(
                    event = "mirror_solo",
                    partition,
                    state_id,
                    took_ms,
                    "solo: one copy is acknowledged"
                );
            }
            Event::Mode { mode, state_id, took_ms } => {
                tracing::info!(
                    event = "mirror_normal",
                    partition,
                    state_id,
                    took_ms,
                    "{}: two copies",
                    mode.name()
                );
            }
            Event::Closed(why) => {
                tracing::warn!(
                    event = "mirror_closed",
                    partition,
                    reason = why.name(),
                    "the mirror's stream was closed here"
                );
            }
            Event::RefusedByPeer(why) => {
                tracing::warn!(
                    event = "mirror_refused",
                    partition,
                    reason = why.name(),
                    "the mirror refused this node"
                );
            }
            Event::Split { mine, theirs } => {
                tracing::warn!(
                    event = "mirror_split",
                    partition,
                    mine,
                    theirs,
                    "both cores took messages alone; they are merged now"
                );
            }
            Event::PeerClockAhead(ahead_ms) => {
                tracing::warn!(
                    event = "mirror_clock_ahead",
                    partition,
                    ahead_ms,
                    "the mirror's clock is ahead and is not followed"
                );
            }
            Event::Healed => tracing::info!(
                event = "mirror_healed",
                partition,
                "both cores have the same records"
            ),
            Event::Fenced { shard, origin } => tracing::error!(
                event = "mirror_fenced",
                partition,
                shard = shard.0,
                node = origin.node,
                incarnation = origin.incarnation,
                "one number means two records: this stream is exchanged no more, both copies are kept"
            ),
            Event::Lost { shard, origin, records } => tracing::error!(
                event = "mirror_lost",
                partition,
                shard = shard.0,
                node = origin.node,
                incarnation = origin.incarnation,
                records,
                "records are lost: they were synced once, and neither core has them"
            ),
            Event::Repaired => {
                tracing::info!(
                    event = "mirror_repaired",
                    partition,
                    "the mirror gave back what the damaged log lacked"
                )
            }
            Event::PeerDrains => {
                tracing::info!(event = "mirror_drains", partition, "the mirror goes away")
            }
            Event::Drained => {
                tracing::info!(
                    event = "mirror_drained",
                    partition,
                    "everything is on the mirror, or synced here"
                )
            }
        }
    }
}
