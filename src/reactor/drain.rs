//! The end of the node: clients are told to go, and are closed at the rate of the plan.
//!
//! Two passes over the slab, some places in each turn: the first tells every client when to come back, the second closes
//! connections as [`Drain::due`] says, and never overtakes the first.

use super::Reactor;
use super::lanes::Lanes;
use crate::clock::Clock;
use iris_proto::drain::{Advice, Drain, Plan};
use iris_proto::id::ConnId;
use iris_proto::wire::{Code, put_drain};

/// Connections told, places looked at and connections closed in one turn (I8).
const TOLD_PER_TURN: u32 = 2048;
const LOOKED_AT_PER_TURN: u32 = 4096;
const CLOSED_PER_TURN: u64 = 2048;

/// How far it is.
#[derive(Debug)]
pub(super) struct Draining {
    drain: Drain,
    begun_ms: u64,
    /// Places there are.
    slots: u32,
    told_upto: u32,
    closed_upto: u32,
}

impl Draining {
    fn now_ms(&self, clock: &Clock) -> u64 {
        clock.monotonic_ms().saturating_sub(self.begun_ms)
    }
}

impl Reactor {
    /// Sends connections away, some in each turn. Whether there was anything to do.
    pub(super) fn drain_some(&mut self, lanes: &mut Lanes) -> bool {
        if let Some(plan) = self.node.take_plan(self.conns.reactor().into()) {
            self.follow(plan);
        }
        let Some(draining) = &mut self.draining else { return false };
        draining.slots = self.conns.slots();
        let now_ms = draining.now_ms(&self.clock);
        if now_ms >= draining.drain.plan().accepts_until_ms() {
            lanes.stop_accepting();
        }
        let told = self.tell_some(now_ms);
        let closed = self.close_some(now_ms);
        told || closed
    }

    /// A plan begins, or another one takes its place.
    fn follow(&mut self, plan: Plan) {
        let drain = match &self.draining {
            None => Drain::new(plan, self.open),
            Some(before) => before.drain.hasten(plan),
        };
        let (begun_ms, slots) = (self.clock.monotonic_ms(), self.conns.slots());
        let draining = Draining { drain, begun_ms, slots, told_upto: 0, closed_upto: 0 };
        self.draining = Some(Box::new(draining));
    }

    fn tell_some(&mut self, now_ms: u64) -> bool {
        let Some(draining) = &mut self.draining else { return false };
        let from = draining.told_upto;
        let end = draining.slots.min(from + TOLD_PER_TURN);
        draining.told_upto = end.max(from);
        for slot in from..end {
            let Some(id) = self.conns.in_slot(slot) else { continue };
            let is_open = self.conns.get_mut(id).is_some_and(|conn| !conn.closing);
            if let (true, Some(draining)) = (is_open, &mut self.draining) {
                let advice = draining.drain.tell(now_ms);
                self.advise(id, advice);
            }
        }
        from < end
    }

    fn close_some(&mut self, now_ms: u64) -> bool {
        let Some(draining) = &mut self.draining else { return false };
        let mut due = draining.drain.due(now_ms).min(CLOSED_PER_TURN);
        let from = draining.closed_upto;
        let end = draining.told_upto.min(from + LOOKED_AT_PER_TURN);
        let mut slot = from;
        while slot < end && due > 0 {
            if let Some(id) = self.conns.in_slot(slot)
                && self.conns.get_mut(id).is_some_and(|conn| !conn.closing)
            {
                self.fail(id, Code::Draining);
                due -= 1;
            }
            slot += 1;
        }
        if let Some(draining) = &mut self.draining {
            draining.closed_upto = slot;
        }
        slot > from
    }

    fn advise(&mut self, id: ConnId, Advice { retry_after_ms, jitter_ms }: Advice) {
        self.metrics.drains_told.add(1);
        self.write(id, |out| {
            out.flush_run();
            put_drain(&mut out.pending, retry_after_ms, jitter_ms);
            out.frames += 1;
        });
    }

    /// What who is sent away now is told.
    pub(super) fn farewell(&self) -> Option<Advice> {
        let draining = self.draining.as_ref()?;
        Some(draining.drain.farewell(draining.now_ms(&self.clock)))
    }

    /// A connection came although nobody is let in any more: it was in the kernel's hands already.
    pub(super) fn turn_away(&mut self, id: ConnId) {
        if let Some(advice) = self.farewell() {
            self.advise(id, advice);
        }
        self.fail(id, Code::Draining);
    }

    /// A connection came.
    pub(super) fn note_open(&mut self) {
        self.open += 1;
        if let Some(draining) = &mut self.draining {
            draining.drain.came();
        }
    }

    /// A connection ends.
    pub(super) fn note_closed(&mut self) {
        self.open -= 1;
        if let Some(draining) = &mut self.draining {
            draining.drain.left();
        }
    }

    /// Whether the node drains, nobody is left, and nobody can come.
    pub(super) fn is_drained(&self, lanes: &Lanes) -> bool {
        self.draining.is_some() && self.conns.len() == 0 && lanes.are_closed()
    }
}
