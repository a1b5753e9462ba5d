//! Sessions that an operator ends, wherever they are: wishes from here go to all nodes, those of other nodes to our reactors
//! and on to whom they cannot reach themselves.

use super::gateway::Gateway;
use super::wire::{Side, Wire};
use crate::eject::Full;
use iris_proto::id::UserKey;
use std::collections::VecDeque;

/// Wishes taken in one turn (I8).
const WISHES_PER_TURN: usize = 16;
/// Wishes that are remembered: they come again within milliseconds, if at all.
const HEARD_OF_MAX: usize = 256;

/// The numbers of the last wishes.
#[derive(Debug, Default)]
pub(super) struct HeardOf(VecDeque<u64>);

impl HeardOf {
    fn contains(&self, id: u64) -> bool {
        self.0.contains(&id)
    }

    fn push(&mut self, id: u64) {
        if self.0.len() == HEARD_OF_MAX {
            self.0.pop_front();
        }
        self.0.push_back(id);
    }
}

impl Gateway {
    /// Tells all nodes what an operator of this one wants. Whether there was anything.
    pub(super) fn take_ejects(&mut self) -> bool {
        let mut worked = false;
        for _ in 0..WISHES_PER_TURN {
            let Ok(wish) = self.ejects.try_recv() else { break };
            let id = self.chance();
            self.heard_of.push(id);
            self.tell(wish.user, id, |side| !matches!(side, Side::Stranger));
            worked = true;
        }
        worked
    }

    /// Another node wants the sessions of a user to end. What an edge says goes on to the other edges and to the mirror,
    /// what the mirror says to the edges, what a core says nowhere: so nothing goes round in circles.
    pub(super) fn take_eject(&mut self, wire: &Wire, user: UserKey, id: u64) {
        // By another way it came before, and who has logged in since stays.
        if self.heard_of.contains(id) {
            return;
        }
        self.heard_of.push(id);
        self.metrics.ejects.add(1);
        if self.ejector.here(user, None) == Err(Full) {
            self.metrics.ejects_dropped.add(1);
        }
        match wire.side {
            Side::Edge(_) => {
                self.tell(user, id, |side| matches!(side, Side::Edge(_) | Side::Mirror { .. }))
            }
            Side::Mirror { .. } => self.tell(user, id, |side| matches!(side, Side::Edge(_))),
            Side::Core(_) | Side::Stranger => {}
        }
    }

    /// Tells nodes; not the one whose bytes are being looked at, which is not among the wires then.
    fn tell(&mut self, user: UserKey, id: u64, goes_to: impl Fn(&Side) -> bool) {
        for wire in self.wires.iter_mut().flatten().filter(|wire| goes_to(&wire.side)) {
            wire.link.tell_eject(user, id);
        }
    }
}
