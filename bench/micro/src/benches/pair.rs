//! Two cores that mirror each other: what shipping and taking in cost besides the cycle of one node.

use std::mem;

use iris_proto::core::Core;
use iris_proto::id::Origin;
use iris_proto::replica::{Mode, Now, Replica, ReplicaConfig, ScanFrom};
use iris_wal::Write;

use super::node::{Fx, Node, SHARDS};
use super::traffic::FULL;
use super::{BATCH, T0};
use crate::work::{Bench, Cycle, Steps, Work};

pub(super) const BENCHES: &[Bench] = &[
    messages("pair/cycle", || Steps::whole(Pair::new())),
    messages("pair/ship", || Steps::boxed(Pair::new(), SHIP..SHIP + 1)),
    messages("pair/take-in", || Steps::boxed(Pair::new(), TAKE_IN..TAKE_IN + 1)),
];

const fn messages(name: &'static str, start: fn() -> Box<dyn Work>) -> Bench {
    Bench { name, op: "message", ops: BATCH as u64, warm: FULL, turns: 10, start }
}

/// Milliseconds in which a pair gets to NORMAL.
const MEET_MS: u64 = 100;

/// One of the two.
struct Side {
    node: Node,
    replica: Replica,
    write: Option<Write>,
}

impl Side {
    fn new(node: u32) -> Self {
        let me = Origin { node, incarnation: 1 };
        let replica = Replica::new(ReplicaConfig::new(me, 3 - node, SHARDS));
        let mut side = Self { node: Node::new(node), replica, write: None };
        side.with(|replica, fx, core, now| replica.recovery_done(fx, core, now, true, 0));
        side.with(|replica, fx, core, now| replica.link_up(fx, core, now, 1));
        side
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Replica, &mut Fx, &mut Core, Now) -> T) -> T {
        let now = Now { unix_ms: self.node.traffic.now, mono_ms: self.node.traffic.now - T0 };
        act(&mut self.replica, &mut self.node.fx, &mut self.node.core, now)
    }

    fn take_write(&mut self) {
        self.write = self.node.fx.log.take_write();
    }

    fn ship(&mut self) {
        let Some(write) = self.write.take() else { return };
        let place = ScanFrom { segment: write.segment(), offset: write.offset() as u32 };
        let lsn = write.batch_no();
        self.with(|replica, fx, core, now| {
            replica.batch_closed(fx, core, now, lsn, place, write.body());
        });
        self.write = Some(write);
    }

    fn synced(&mut self) {
        let Some(write) = self.write.take() else { return };
        self.node.fx.log.synced(write);
        let lsn = self.node.fx.log.durable();
        self.with(|replica, fx, core, now| replica.handle_durable(fx, core, now, lsn));
    }

    fn poll(&mut self) {
        self.with(|replica, fx, core, now| replica.poll(fx, core, now));
        self.node.deliver();
    }

    /// Takes the other side's bytes and gives their buffer back.
    fn take_in(&mut self, from: &mut Side) {
        let mut bytes = mem::take(&mut from.node.fx.to_mirror);
        self.with(|replica, fx, core, now| replica.handle_bytes(fx, core, now, 1, &bytes));
        bytes.clear();
        from.node.fx.to_mirror = bytes;
    }

    fn mode(&mut self) -> Mode {
        self.with(|replica, _, _, now| replica.status(now).mode)
    }
}

/// The first one has the clients.
struct Pair {
    first: Side,
    second: Side,
}

const SHIP: usize = 2;
const TAKE_IN: usize = 3;

impl Pair {
    /// Two in NORMAL.
    fn new() -> Self {
        let mut pair = Self { first: Side::new(1), second: Side::new(2) };
        for _ in 0..MEET_MS {
            pair.first.node.traffic.now += 1;
            pair.second.node.traffic.now += 1;
            pair.first.poll();
            pair.second.poll();
            pair.write();
        }
        assert_eq!((pair.first.mode(), pair.second.mode()), (Mode::Normal, Mode::Normal));
        pair.first.node.log_in();
        pair
    }

    /// Both write and sync what they have, and hear of each other.
    fn write(&mut self) {
        let Self { first, second } = self;
        for side in [&mut *first, &mut *second] {
            side.take_write();
            side.ship();
            side.synced();
        }
        second.take_in(first);
        first.take_in(second);
    }

    /// What was taken in is synced, and both know.
    fn settle(&mut self) {
        let Self { first, second } = self;
        first.synced();
        second.node.traffic.now = first.node.traffic.now;
        second.take_in(first);
        second.take_write();
        second.ship();
        second.synced();
        second.poll();
        first.take_in(second);
    }
}

impl Cycle for Pair {
    const STEPS: &'static [fn(&mut Self)] = &[
        |pair| pair.first.node.send(),
        |pair| pair.first.take_write(),
        |pair| pair.first.ship(),
        |pair| pair.second.take_in(&mut pair.first),
        Self::settle,
        |pair| pair.first.poll(),
        |pair| pair.first.node.ack(),
    ];

    fn done(&self) -> u64 {
        self.first.node.fx.accepted_with[2]
    }
}
