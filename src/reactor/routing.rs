//! The way to cores when there is more than this process: [`Router`] decides, and this is what it decides over.
//!
//! Without a cluster none of this exists, and frames go straight into the batches of this process's partitions.

use super::Reactor;
use crate::cluster::CoreAttachment;
use crate::link::Outbox;
use crate::metrics::{ReactorMetrics, RejectReason};
use crossbeam_channel::Receiver;
use iris_proto::edge::{Counters, Effects, FromCore, Router, RouterConfig};
use iris_proto::link::{ToCore, ToEdge};
use iris_proto::peer::ShardRanges;
use std::collections::VecDeque;
use std::time::Duration;

/// Batches with this bit in their origin come from the gateway; the rest of it is the core, in the order of
/// `cluster.cores`.
pub const GATEWAY: u16 = 1 << 15;

/// What a reactor is told about its cluster.
pub struct ClusterParts {
    /// The routing's own part.
    pub router: RouterConfig,
    /// Which of the cores this process is.
    pub local: Option<usize>,
    /// Ways to cores that the gateway has linked: each is here before its core is said to be up.
    pub attachments: Receiver<CoreAttachment>,
}

/// The routing of one reactor.
pub(super) struct Routing {
    router: Router,
    ways: Ways,
    local: Option<usize>,
    attachments: Receiver<CoreAttachment>,
    /// Ways to cores that were not said to be up yet, oldest first.
    early: VecDeque<CoreAttachment>,
    counted: Counters,
}

/// The router's hands.
struct Ways {
    /// By core and partition.
    cores: Vec<Vec<Outbox>>,
    /// Link frames for this reactor's connections.
    told: Vec<u8>,
}

impl Effects for Ways {
    fn to_core(&mut self, core: usize, partition: u16) -> &mut Vec<u8> {
        self.cores[core][usize::from(partition)].buffer()
    }

    fn backlog_bytes(&self, core: usize, partition: u16) -> usize {
        self.cores[core][usize::from(partition)].backlog_bytes()
    }

    fn to_client(&mut self, frame: &ToEdge<'_>) {
        frame.encode(&mut self.told);
    }
}

impl Routing {
    /// `links` go to this process's own partitions, if it has any.
    pub(super) fn new(parts: ClusterParts, links: Vec<Outbox>) -> Self {
        let num_shards = parts.router.num_shards;
        let cores = parts.router.nodes.iter().map(|_| Vec::new()).collect();
        let mut routing = Self {
            router: Router::new(parts.router),
            ways: Ways { cores, told: Vec::new() },
            local: parts.local,
            attachments: parts.attachments,
            early: VecDeque::new(),
            counted: Counters::default(),
        };
        if let Some(local) = parts.local {
            let partitions = links.len() as u16;
            routing.ways.cores[local] = links;
            // The gateway tells of its partitions' states, like of those elsewhere.
            routing.router.core_up(local, partitions, &ShardRanges::all(num_shards));
        }
        routing
    }

    pub(super) fn client(&mut self, now_ms: u64, frame: &ToCore<'_>) {
        self.router.handle_client(&mut self.ways, now_ms, frame);
    }

    /// Whether more than so many bytes wait for a partition.
    pub(super) fn is_behind(&self, bytes: usize) -> bool {
        self.ways.cores.iter().flatten().any(|way| way.backlog_bytes() > bytes)
    }

    pub(super) fn may_sleep(&self) -> bool {
        self.ways.cores.iter().flatten().all(Outbox::may_sleep)
    }

    /// Bytes that wait for partitions.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.ways.cores.iter().flatten().map(Outbox::backlog_bytes).sum()
    }

    /// How long the reactor may sleep at most.
    pub(super) fn sleep_max(&self, now_ms: u64, most: Duration) -> Duration {
        let wait_ms = self.router.poll_timeout(now_ms).saturating_sub(now_ms).max(1);
        most.min(Duration::from_millis(wait_ms))
    }

    /// A batch of a partition here or of a core elsewhere. The gateway has checked what came from elsewhere, so a frame
    /// that does not parse is a bug of ours.
    pub(super) fn take_batch(&mut self, now_ms: u64, from: u16, batch: &[u8]) {
        let core = match from & GATEWAY {
            0 => self.local.expect("a partition of this process is one of its core"),
            _ => usize::from(from & !GATEWAY),
        };
        let mut rest = batch;
        while let Some((frame, after)) = FromCore::split(rest).expect("whole frames") {
            rest = after;
            self.take_frame(now_ms, core, &frame);
        }
    }

    fn take_frame(&mut self, now_ms: u64, core: usize, frame: &FromCore<'_>) {
        let Self { router, ways, .. } = self;
        match frame {
            FromCore::Frame(frame) => router.handle_core(ways, now_ms, core, frame),
            FromCore::State { partition, state } => {
                router.core_state(now_ms, core, *partition, *state);
            }
            FromCore::Up { partitions, shards } => {
                self.early.extend(self.attachments.try_iter());
                // The oldest one of this core: a newer one belongs to a link whose news are still to come.
                let place = self.early.iter().position(|way| way.core == core);
                let way = place.and_then(|place| self.early.remove(place));
                ways.cores[core] = way.expect("a way is there before its core is up").outboxes;
                router.core_up(core, *partitions, shards);
            }
            FromCore::Down => {
                router.core_down(ways, now_ms, core);
                ways.cores[core].clear();
            }
        }
    }

    /// What is due. Whether there is more to do at once.
    pub(super) fn poll(&mut self, now_ms: u64) -> bool {
        self.router.poll(&mut self.ways, now_ms)
    }

    /// Hands the batches over; `each` is told how many frames. Whether there was any.
    pub(super) fn flush(&mut self, mut each: impl FnMut(u64)) -> bool {
        let mut worked = false;
        for frames in self.ways.cores.iter_mut().flatten().filter_map(Outbox::flush) {
            each(frames);
            worked = true;
        }
        worked
    }

    /// What was said to connections since the last time, into an empty buffer.
    fn take_told(&mut self, buffer: &mut Vec<u8>) -> bool {
        std::mem::swap(&mut self.ways.told, buffer);
        !buffer.is_empty()
    }

    /// Shows what was counted.
    pub(super) fn count(&mut self, metrics: &ReactorMetrics) {
        let (now, before) = (*self.router.counters(), self.counted);
        metrics.failovers.set(now.failovers);
        metrics.moves.set(now.moves);
        metrics.resent.set(now.resent);
        metrics.relogins.set(now.relogins);
        let unanswered = now.unanswered - before.unanswered;
        metrics.rejected.add(RejectReason::ShardUnavailable, unanswered);
        metrics.rejected.add(RejectReason::Overloaded, now.overloaded - before.overloaded);
        self.counted = now;
        metrics.unanswered.set(u64::from(self.router.gauges().pending));
        let shards = self.router.shards_by_core();
        metrics.shards_at.iter().zip(shards).for_each(|(gauge, shards)| gauge.set(shards.into()));
    }
}

impl Reactor {
    /// Gives connections what the router has for them. Whether there was anything.
    pub(super) fn take_told(&mut self) -> bool {
        let mut worked = false;
        let mut told = std::mem::take(&mut self.told);
        // What a connection is told may end it, and its end may tell others.
        while let Some(routing) = &mut self.routing
            && routing.take_told(&mut told)
        {
            worked = true;
            self.take_batch(&told);
            told.clear();
        }
        self.told = told;
        worked
    }

    /// The router's turn. Whether there was anything to do.
    pub(super) fn route(&mut self) -> bool {
        let now_ms = self.clock.monotonic_ms();
        let Some(routing) = &mut self.routing else { return false };
        let more = routing.poll(now_ms);
        let unroutable = u64::from(routing.router.gauges().unroutable);
        if self.metrics.unroutable_shards.value() != unroutable {
            self.metrics.unroutable_shards.set(unroutable);
        }
        self.take_told() | more
    }
}
