//! Batches between links and the threads of this node.

use super::gateway::{Gateway, Over};
use super::ranges::Lease;
use super::wire::{Port, Side, Wire};
use super::{CoreAttachment, CoreParts, Cut, EdgeParts, MirrorNews, States};
use crate::link::{Attachment, Inbox, Outbox, links_into};
use crate::metrics::LinkEnd;
use crate::rt::Waker;
use crossbeam_channel::Sender;
use iris_proto::edge::FromCore;
use iris_proto::id::shard_for_user;
use iris_proto::link::{ReceiptPost, ToCore, ToEdge};
use iris_proto::peer::relay::{self, ReactorRange};
use iris_proto::peer::{End, EndCode, Hello, PartitionState};
use std::borrow::Cow;

/// Batches that wait in one queue to a link.
const PORT_BATCHES_MAX: usize = 16;
/// Bytes that may wait for a thread of ours before its peer gets no more credit.
const THREAD_BACKLOG_MAX: usize = 1 << 20;
/// A peer that gives no credit for so long while something waits is ended. Milliseconds.
const STUCK_MS: u64 = 10_000;
/// Batches started on one channel in one turn (I8).
const BATCHES_PER_TURN: usize = 8;

/// What links to cores feed: the reactors.
pub(super) struct EdgeSide {
    /// For each core of the list, the way to each reactor.
    to_reactors: Vec<Vec<Outbox>>,
    reactors: Vec<(Waker, Sender<CoreAttachment>)>,
}

impl EdgeSide {
    pub(super) fn new(parts: EdgeParts) -> Self {
        Self { to_reactors: parts.to_reactors, reactors: parts.reactors }
    }

    pub(super) fn may_sleep(&self) -> bool {
        self.to_reactors.iter().flatten().all(Outbox::may_sleep)
    }

    pub(super) fn tell(&mut self, core: usize, news: &FromCore<'_>) {
        self.to_reactors[core].iter_mut().for_each(|outbox| news.encode(outbox.buffer()));
    }

    fn has_room(&self, core: usize) -> bool {
        self.to_reactors[core].iter().all(|to| to.backlog_bytes() < THREAD_BACKLOG_MAX)
    }

    fn flush(&mut self) {
        self.to_reactors.iter_mut().flatten().for_each(|outbox| {
            outbox.flush();
        });
    }
}

/// What links to edges feed: the partitions.
pub(super) struct CoreSide {
    to_partitions: Vec<Outbox>,
    partitions: Vec<(Waker, Sender<Attachment>)>,
    /// Frames of partitions that name no connection.
    home: Inbox,
    mirrors: Option<Vec<Sender<MirrorNews>>>,
    told: Vec<PartitionState>,
}

impl CoreSide {
    pub(super) fn new(parts: CoreParts) -> Self {
        Self {
            told: vec![PartitionState::Recovering; parts.partitions.len()],
            to_partitions: parts.to_partitions,
            partitions: parts.partitions,
            home: parts.home,
            mirrors: parts.mirrors,
        }
    }

    /// Whether somebody listens to a mirror.
    pub(super) fn takes_mirrors(&self) -> bool {
        self.mirrors.is_some()
    }

    pub(super) fn may_sleep(&self) -> bool {
        let has_work = !self.home.is_empty() && self.has_room();
        !has_work && self.to_partitions.iter().all(Outbox::may_sleep)
    }

    /// Whether partitions take frames that name no connection.
    fn has_room(&self) -> bool {
        self.to_partitions.iter().all(|to| to.backlog_bytes() < THREAD_BACKLOG_MAX)
    }

    /// What edges were not told yet.
    pub(super) fn changed_states(&mut self, states: &States) -> Vec<(u16, PartitionState)> {
        let mut changed = Vec::new();
        for (partition, told) in (0..).zip(&mut self.told) {
            let state = states.get(partition);
            if *told != state {
                *told = state;
                changed.push((partition, state));
            }
        }
        changed
    }
}

impl Gateway {
    /// A core is linked: reactors get a way to each of its partitions, and hear of it.
    pub(super) fn join_core(&mut self, wire: &mut Wire, core: usize, hello: &Hello) {
        let edge = self.edge.as_mut().expect("who dials cores is an edge");
        let senders: Vec<(u16, Waker)> =
            (0..).zip(edge.reactors.iter().map(|(waker, _)| waker.clone())).collect();
        let mut ways: Vec<Vec<Outbox>> = senders.iter().map(|_| Vec::new()).collect();
        for _ in 0..hello.partitions {
            let (outboxes, inbox) = links_into(&self.waker, &senders, PORT_BATCHES_MAX);
            ways.iter_mut().zip(outboxes).for_each(|(of_reactor, way)| of_reactor.push(way));
            wire.ports.push(Port::new(inbox));
            wire.owed.push(0);
        }
        for ((_, attach), outboxes) in edge.reactors.iter().zip(ways) {
            // A reactor that has ended needs no way.
            let _ = attach.send(CoreAttachment { core, outboxes });
        }
        wire.side = Side::Core(core);
        let (partitions, shards) = (hello.partitions, hello.shards.clone());
        edge.tell(core, &FromCore::Up { partitions, shards });
    }

    /// An edge wants to be linked.
    pub(super) fn join_edge(&mut self, wire: &mut Wire, hello: &Hello) -> Result<(), End> {
        let core = self.core.as_ref().expect("who admits edges is a core");
        let Some(lease) = self.ranges.lease(hello.reactors) else {
            let text = format!("no numbers for {} more reactors", hello.reactors);
            return Err(End::ours(EndCode::Full, text));
        };
        wire.link.establish(self.now_ms);
        for (partition, (waker, attach)) in (0..).zip(&core.partitions) {
            let (mut outboxes, inbox) =
                links_into(&self.waker, &[(partition, waker.clone())], PORT_BATCHES_MAX);
            let Lease { reactors, in_use } = lease.clone();
            let outbox = outboxes.pop().expect("one sender has one outbox");
            // A partition that has ended needs no way.
            let _ = attach.send(Attachment { reactors, outbox, in_use });
            wire.ports.push(Port::new(inbox));
            wire.owed.push(0);
            wire.link.tell_state(partition, core.told[usize::from(partition)]);
        }
        wire.side = Side::Edge(lease);
        Ok(())
    }

    /// The mirror is linked: each partition gets a stream to its own.
    pub(super) fn join_mirror(&mut self, wire: &mut Wire, hello: &Hello) {
        let core = self.core.as_ref().expect("who mirrors is a core");
        let mirrors = core.mirrors.as_ref().expect("mirrors are linked if somebody listens");
        self.generation += 1;
        let (link, node, incarnation) = (self.generation, hello.node, hello.incarnation);
        let mut ways = Vec::new();
        let cut = Cut::new(self.waker.clone());
        for ((partition, (waker, _)), news) in (0..).zip(&core.partitions).zip(mirrors) {
            let own = [(partition, waker.clone())];
            let (outboxes, from_partition) = links_into(&self.waker, &own, PORT_BATCHES_MAX);
            let gateway = [(partition, self.waker.clone())];
            let (to_partition, inbox) = links_into(waker, &gateway, PORT_BATCHES_MAX);
            let outbox = outboxes.into_iter().next().expect("one sender has one outbox");
            // A partition that has ended needs no news.
            let cut = cut.clone();
            let _ = news.send(MirrorNews::Up { link, node, incarnation, inbox, outbox, cut });
            waker.wake();
            ways.extend(to_partition);
            wire.ports.push(Port::new(from_partition));
            wire.owed.push(0);
        }
        wire.side = Side::Mirror { link, ways, cut };
    }

    /// A link is over: who used it hears of it, after everything that came over it.
    pub(super) fn leave_side(&mut self, wire: &mut Wire, reason: LinkEnd) {
        wire.ports.clear();
        match std::mem::replace(&mut wire.side, Side::Stranger) {
            Side::Stranger => {}
            Side::Mirror { link, mut ways, .. } => {
                // What came before the end is taken before it.
                ways.iter_mut().for_each(|way| {
                    way.flush();
                });
                let is_gone =
                    matches!(reason, LinkEnd::PeerClosed | LinkEnd::IoError | LinkEnd::GoingAway);
                let core = self.core.as_ref().expect("who mirrors is a core");
                let mirrors = core.mirrors.as_ref().expect("somebody listens");
                for (news, (waker, _)) in mirrors.iter().zip(&core.partitions) {
                    let _ = news.send(MirrorNews::Down { link, is_gone });
                    waker.wake();
                }
            }
            Side::Core(core) => {
                let edge = self.edge.as_mut().expect("who dials cores is an edge");
                edge.tell(core, &FromCore::Down);
            }
            Side::Edge(lease) => {
                let core = self.core.as_mut().expect("who has edges is a core");
                let (first, count) = (lease.reactors.start, lease.reactors.len() as u16);
                for outbox in &mut core.to_partitions {
                    ToCore::Gone { first, count }.encode(outbox.buffer());
                }
            }
        }
    }

    /// Bytes of a channel, checked frame by frame before a thread of ours sees them.
    pub(super) fn take_batch(
        &mut self,
        wire: &mut Wire,
        channel: u16,
        bytes: Cow<'_, [u8]>,
    ) -> Result<(), End> {
        let frames = match &mut wire.side {
            Side::Mirror { ways, .. } => {
                // Most of what a mirror takes in comes this way: it is not copied again.
                ways[usize::from(channel)].give(bytes.into_owned());
                1
            }
            Side::Core(core) => {
                let edge = self.edge.as_mut().expect("who dials cores is an edge");
                let ways = &mut edge.to_reactors[*core];
                relay::to_edge(&bytes, ways.len() as u16, |reactor, frame| {
                    ways[usize::from(reactor)].buffer().extend_from_slice(frame);
                })?
            }
            Side::Edge(lease) => {
                self.heard_ms = self.now_ms;
                let core = self.core.as_mut().expect("who has edges is a core");
                let out = core.to_partitions[usize::from(channel)].buffer();
                relay::to_core(&bytes, range_of(lease), out)?
            }
            Side::Stranger => 0,
        };
        self.metrics.received_frames.add(frames);
        self.metrics.received_batches.add(1);
        Ok(())
    }

    /// A partition of a core changed its state.
    pub(super) fn take_state(&mut self, wire: &Wire, partition: u16, state: PartitionState) {
        if let (Side::Core(core), Some(edge)) = (&wire.side, &mut self.edge) {
            edge.tell(*core, &FromCore::State { partition, state });
            self.metrics.cores[*core].note_serving(partition, state.takes());
        }
    }

    /// Frames of our own partitions that name no connection: receipts for users of another partition.
    pub(super) fn take_home(&mut self) -> bool {
        let num_shards = self.me.num_shards;
        let Some(core) = &mut self.core else { return false };
        let mut worked = false;
        for _ in 0..BATCHES_PER_TURN {
            if !core.has_room() {
                break;
            }
            let Some(batch) = core.home.receive() else { break };
            worked = true;
            let mut rest = batch.bytes.as_slice();
            while let Some((frame, after)) =
                ToEdge::split(rest).expect("a partition writes whole frames")
            {
                rest = after;
                if let ToEdge::Receipt { to, reader, id, reader_name } = frame {
                    let shard = usize::from(shard_for_user(to, num_shards).0);
                    let partition = shard % core.to_partitions.len();
                    let post = ReceiptPost { to, reader, reader_name, id };
                    ToCore::Receipt(post).encode(core.to_partitions[partition].buffer());
                }
            }
        }
        worked
    }

    /// Sends what threads have for a link, as far as there is credit and room. Whether anything went.
    pub(super) fn pump(&mut self, wire: &mut Wire) -> Result<bool, Over> {
        if !wire.link.is_up() {
            return Ok(false);
        }
        let mut worked = false;
        for channel in 0..wire.ports.len() {
            for _ in 0..BATCHES_PER_TURN {
                if !wire.has_room() || !self.pump_once(wire, channel)? {
                    break;
                }
                worked = true;
            }
        }
        Ok(worked)
    }

    fn pump_once(&mut self, wire: &mut Wire, channel: usize) -> Result<bool, Over> {
        let Wire { ports, link, side, .. } = wire;
        let port = &mut ports[channel];
        if port.inbox.is_cut_off() {
            let text = format!("too much waits for it on channel {channel}");
            let end = End::ours(EndCode::SlowPeer, text);
            link.end(&end);
            return Err(end.into());
        }
        let next = port.carry.take().or_else(|| port.inbox.receive().map(|b| (b.bytes, 0)));
        let Some((mut batch, start)) = next else { return Ok(false) };
        let credit = link.credit(channel as u16);
        let cut = match side {
            Side::Edge(lease) => relay::cut_for_edge(&mut batch[start..], credit, range_of(lease)),
            // A stream of bytes may be cut anywhere.
            Side::Mirror { .. } => Some(credit.min(batch.len() - start)).filter(|len| *len > 0),
            _ => relay::cut(&batch[start..], credit),
        };
        let Some(len) = cut else {
            port.carry = Some((batch, start));
            let since_ms = *port.stuck_since_ms.get_or_insert(self.now_ms);
            if since_ms + STUCK_MS <= self.now_ms {
                let text = format!("it gave no credit on channel {channel} for {STUCK_MS} ms");
                let end = End::ours(EndCode::SlowPeer, text);
                link.end(&end);
                return Err(end.into());
            }
            return Ok(false);
        };
        port.stuck_since_ms = None;
        link.send(channel as u16, &batch[start..start + len]);
        self.metrics.sent_batches.add(1);
        if start + len < batch.len() {
            port.carry = Some((batch, start + len));
        }
        Ok(true)
    }

    /// Gives credit back for what has left this thread. What a mirror said leaves it here.
    pub(super) fn grant(&mut self, wire: &mut Wire) {
        if let Side::Mirror { ways, .. } = &mut wire.side {
            ways.iter_mut().for_each(|way| {
                way.flush();
            });
        }
        for channel in 0..wire.owed.len() {
            if wire.owed[channel] == 0 {
                continue;
            }
            let has_room = match (&wire.side, &self.edge, &self.core) {
                (Side::Mirror { ways, .. }, ..) => {
                    ways[channel].backlog_bytes() < THREAD_BACKLOG_MAX
                }
                (Side::Core(core), Some(edge), _) => edge.has_room(*core),
                (Side::Edge(_), _, Some(core)) => {
                    core.to_partitions[channel].backlog_bytes() < THREAD_BACKLOG_MAX
                }
                _ => true,
            };
            if has_room {
                wire.link.consumed(channel as u16, std::mem::take(&mut wire.owed[channel]));
            }
        }
    }

    /// Hands over what this turn gathered for the threads.
    pub(super) fn flush_threads(&mut self) {
        if let Some(edge) = &mut self.edge {
            edge.flush();
        }
        if let Some(core) = &mut self.core {
            core.to_partitions.iter_mut().for_each(|outbox| {
                outbox.flush();
            });
        }
    }
}

fn range_of(lease: &Lease) -> ReactorRange {
    ReactorRange { first: lease.reactors.start, count: lease.reactors.len() as u16 }
}
