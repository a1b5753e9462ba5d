//! A partition: one pinned thread that owns the inboxes of its shards.
//!
//! The way of a message: a batch from a reactor is decoded and put to the core machine ([`inputs`]); the core's effects
//! append records to the open batch of the log and answers to the batches of the reactors ([`effects`]). A writer thread
//! writes and syncs one batch while the next one gathers whatever comes meanwhile: that is the group commit. When it
//! returns, the core releases ACCEPTED and deliveries. Nothing here waits for the disk: writing, reading back and
//! preparing segments are other threads' work ([`disk`]), and [`housekeeping`] decides on it a little each turn.

mod disk;
mod doubles;
mod edges;
mod effects;
mod housekeeping;
mod inputs;
mod mirror;
mod pace;
mod recover;
mod rewrite;

pub use disk::{Failed, PartitionStore};
pub use mirror::MirrorParts;

use crate::clock::Clock;
use crate::link::{Attachment, Inbox, Links};
use crate::metrics::{PartitionMetrics, WalMetrics};
use crate::rt::{self, Waker};
use disk::{Disk, Done};
use edges::Edges;
use effects::Fx;
use housekeeping::Housekeeping;
use iris_proto::core::{Core, CoreConfig};
use iris_proto::replica::ScanFrom;
use iris_wal::LogConfig;
use mirror::Mirror;
use pace::{Open, Pace};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Batches taken from reactors in one turn (I8).
const BATCHES_PER_TURN: usize = 8;
/// Deliveries made in one turn.
const DELIVERIES_PER_TURN: u32 = 512;
/// How long a partition sleeps at most: housekeeping is looked at that often on a quiet node.
const SLEEP_MAX: Duration = Duration::from_millis(200);
/// How long records that nobody waits for gather before they are written. Written at once, the TOMB of each ACK would
/// make the next SEND wait for a sync.
const UNAWAITED_MAX: Duration = Duration::from_millis(5);
/// The same while the disk is low: a block for each TOMB would use the reserve up before a segment is free.
const UNAWAITED_LOW_DISK: Duration = Duration::from_millis(250);
/// Bytes that may wait for one reactor before nothing more is delivered or taken in.
const LINK_BACKLOG_MAX: usize = 8 << 20;

/// What a partition is told about its node.
#[derive(Clone, Debug)]
pub struct Settings {
    pub core: CoreConfig,
    pub log: LogConfig,
    /// Free bytes on the disk below which new messages are refused.
    pub disk_reserve: u64,
    /// From the begin of one batch to that of the next, at the least.
    pub batch_interval: Duration,
}

/// What a partition is made of; [`run`] takes it inside the executor.
pub struct Parts {
    pub index: u16,
    pub settings: Settings,
    pub store: PartitionStore,
    pub links: Links,
    pub inbox: Inbox,
    /// Ways to edges that the gateway opens: each is here before anything comes from its edge.
    pub attachments: Option<crossbeam_channel::Receiver<Attachment>>,
    /// `None`: nobody mirrors this core.
    pub mirror: Option<MirrorParts>,
    pub waker: Waker,
    pub started: Instant,
    pub metrics: Arc<PartitionMetrics>,
    pub wal_metrics: Arc<WalMetrics>,
    /// Told once, after recovery: whether the partition serves.
    pub ready: crossbeam_channel::Sender<Result<(), Failed>>,
    /// Told if the disk fails later.
    pub failed: crossbeam_channel::Sender<Failed>,
    /// Set when nobody sends any more; the partition then writes what it has and ends.
    pub stop: Arc<AtomicBool>,
}

struct Partition {
    core: Core,
    fx: Fx,
    inbox: Inbox,
    edges: Edges,
    mirror: Option<Mirror>,
    /// Told what ends the node.
    failed: crossbeam_channel::Sender<Failed>,
    disk: Disk,
    clock: Clock,
    housekeeping: Housekeeping,
    metrics: Arc<PartitionMetrics>,
    /// A batch of which frames before the offset were taken, until the log had no more room.
    unfinished: Option<(Vec<u8>, usize)>,
    pace: Pace,
    more: bool,
}

/// Recovers the log, then serves until told to stop.
pub async fn run(parts: Parts) -> io::Result<()> {
    let Parts { ready, failed, stop, .. } = &parts;
    let (ready, failed, stop) = (ready.clone(), failed.clone(), Arc::clone(stop));
    let waker = parts.waker.clone();
    let mut partition = match Partition::recover(parts, failed) {
        Ok(partition) => partition,
        Err(error) => {
            let _ = ready.send(Err(error));
            return Ok(());
        }
    };
    let mut told = false;
    loop {
        let worked = partition.turn();
        if !told && let Some(verdict) = partition.readiness() {
            told = ready.send(verdict).is_ok();
        }
        if worked {
            partition.metrics.busy_ns.add(partition.clock.elapsed().as_nanos() as u64);
            rt::yield_if_needed().await;
            continue;
        }
        if stop.load(Ordering::Acquire) && partition.is_finished() {
            return Ok(());
        }
        waker.park(partition.sleep_max(), || partition.may_sleep());
    }
}

impl Partition {
    /// One turn: what the disk did, what reactors sent, what is due, and all of it out again. Whether there was anything.
    fn turn(&mut self) -> bool {
        self.clock.turn();
        self.metrics.turns.add(1);
        let mut worked = self.take_done();
        worked |= self.take_mirror();
        if self.has_room() {
            worked |= self.take_own();
            worked |= self.take_batches();
        }
        self.poll_mirror(worked);
        if self.may_deliver() {
            worked |= self.poll();
        }
        worked |= self.end_gone_edges();
        worked |= self.keep_house();
        worked |= self.start_write();
        worked |= self.fx.flush();
        if self.fx.links.take_freed() {
            self.core.resume_stalled();
            (self.more, worked) = (true, true);
        }
        worked
    }

    fn may_sleep(&self) -> bool {
        let blocked = !self.has_room();
        let has_input =
            !self.inbox.is_empty() || self.unfinished.is_some() || !self.fx.own.is_empty();
        let has_more = self.more && self.may_deliver();
        (blocked || !(has_input || has_more))
            && self.disk.is_quiet()
            && self.edges.is_quiet()
            && self.mirror.as_ref().is_none_or(Mirror::is_quiet)
            && self.fx.mirror.may_sleep()
            && self.fx.links.may_sleep()
    }

    fn is_finished(&self) -> bool {
        self.inbox.is_empty()
            && self.unfinished.is_none()
            && self.fx.own.is_empty()
            && self.fx.log.is_idle()
            && self.disk.writes_under_way() == 0
    }

    /// Whether answers of another turn have somewhere to go.
    pub(super) fn has_room(&self) -> bool {
        self.fx.links.near_has_room(LINK_BACKLOG_MAX) && self.fx.log.has_room()
    }

    /// Whether deliveries have somewhere to go, and room on the way from the disk.
    fn may_deliver(&self) -> bool {
        self.has_room() && self.fx.reads_have_room()
    }

    fn take_done(&mut self) -> bool {
        let mut worked = false;
        while let Some(done) = self.disk.done() {
            worked = true;
            match done {
                Done::Written { write, sync_ns } => self.written(write, sync_ns),
                Done::Read(records) => self.read(records),
                Done::Prepared(ready) => self.prepared(ready),
                Done::NotPrepared(why) => self.not_prepared(why),
                Done::FooterWritten(footer) => {
                    self.fx.wal_metrics.written_bytes.add(footer.len() as u64);
                    self.fx.log.footer_written(footer);
                }
                Done::Dropped(segment) => self.dropped(segment),
                Done::Space(free) => free.into_iter().for_each(|free| self.space(free)),
                Done::CopyRead(records) => self.copy(records),
                Done::Compared(compared) => self.compared(&compared),
                Done::Forgotten(segment) => self.disk.retire(segment),
                Done::Scanned { from, fed } => self.scanned(from, &fed),
            }
        }
        worked
    }

    fn written(&mut self, write: iris_wal::Write, sync_ns: u64) {
        let wal = &self.fx.wal_metrics;
        wal.batches.add(1);
        wal.written_bytes.add(write.bytes().len() as u64);
        wal.batch_records.record(u64::from(write.records()));
        wal.sync_ns.record(sync_ns);
        self.fx.log.synced(write);
        let (now, durable) = (self.now(), self.fx.log.durable());
        match &mut self.mirror {
            None => self.core.handle_durable(&mut self.fx, now.unix_ms, durable, 1),
            Some(mirror) => {
                mirror.replica.handle_durable(&mut self.fx, &mut self.core, now, durable);
            }
        }
        self.more = true;
    }

    /// Takes what this partition had to say to itself, as long as the log has room.
    fn take_own(&mut self) -> bool {
        let mut own = std::mem::take(&mut self.fx.own);
        let taken = self.take_batch(&own);
        own.drain(..taken);
        self.fx.own = own;
        taken > 0
    }

    /// Takes what reactors sent, as long as the log has room: what waits here is refused nowhere.
    fn take_batches(&mut self) -> bool {
        let mut worked = false;
        for _ in 0..BATCHES_PER_TURN {
            let next = self
                .unfinished
                .take()
                .or_else(|| self.inbox.receive().map(|batch| (batch.bytes, 0)));
            let Some((batch, start)) = next else { break };
            self.attach_edges();
            let end = start + self.take_batch(&batch[start..]);
            worked |= end > start;
            if end < batch.len() {
                self.unfinished = Some((batch, end));
                break;
            }
        }
        worked
    }

    fn poll(&mut self) -> bool {
        let now_ms = self.clock.unix_ms();
        if !self.more && self.core.poll_timeout() > now_ms {
            return false;
        }
        self.more = self.core.poll(&mut self.fx, now_ms, DELIVERIES_PER_TURN);
        self.settle_deliveries();
        self.disk.read(self.fx.take_reads());
        self.more
    }

    /// Tells the core what became of deliveries that it wants to hear of.
    fn settle_deliveries(&mut self) {
        let now_ms = self.clock.unix_ms();
        for told in self.fx.delivered.drain(..) {
            self.core.handle_delivered(told.conn, told.user, told.no, told.sender, told.msg_id);
        }
        for lost in self.fx.unreadable.drain(..) {
            self.fx.log.quarantine(lost.pos.segment);
            self.core.handle_unreadable(now_ms, lost.conn, lost.user, lost.no);
        }
    }

    fn read(&mut self, records: disk::Records) {
        self.metrics.disk_reads.add(records.deliveries.len() as u64);
        self.fx.deliver_read(records);
        self.settle_deliveries();
    }

    fn start_write(&mut self) -> bool {
        if self.disk.writes_under_way() > 0 {
            return false;
        }
        let now = self.clock.monotonic_ns();
        if self.fx.log.is_idle() {
            self.pace.nothing();
            return false;
        }
        let open = Open {
            awaited: self.fx.awaited,
            has_room: self.fx.log.has_room(),
            unawaited_max: if self.fx.low_disk { UNAWAITED_LOW_DISK } else { UNAWAITED_MAX },
        };
        if !self.pace.is_due(now, open) {
            return false;
        }
        let Some(write) = self.fx.log.take_write() else { return false };
        self.fx.awaited &= self.fx.log.has_unwritten();
        self.pace.begun(now);
        let now = self.now();
        if let Some(mirror) = &mut self.mirror {
            let place = ScanFrom { segment: write.segment(), offset: write.offset() as u32 };
            let (replica, fx, core) = (&mut mirror.replica, &mut self.fx, &mut self.core);
            // Shipped while it is written.
            replica.batch_closed(fx, core, now, write.batch_no(), place, write.body());
        }
        self.disk.write(write);
        true
    }

    /// How long this thread may sleep.
    fn sleep_max(&self) -> Duration {
        let own = self.pace.sleep_max(self.clock.monotonic_ns()).unwrap_or(SLEEP_MAX);
        let now_ms = self.clock.monotonic_ms();
        self.mirror.as_ref().map_or(own, |mirror| mirror.sleep_max(now_ms).min(own)).min(SLEEP_MAX)
    }
}
