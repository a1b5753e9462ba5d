//! The way from a partition to each reactor: those of this process, and those of edges far away, which come and go.
//!
//! Reactors have one space of numbers: first those of this process, then ranges that the gateway gives to edges. A range
//! is attached when its edge is linked and detached when that link is gone; its number is not used again before every
//! partition has let go of it.

use super::Outbox;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that may wait for one edge before nothing more is delivered to its users: the rest stays in the inboxes.
const FAR_BACKLOG_MAX: usize = 1 << 20;
/// Bytes that may wait for one edge before its link is given up: answers and changes of presence do not wait elsewhere.
const FAR_BACKLOG_END: usize = 32 << 20;
/// Bytes that may wait on the way for what names no connection: receipts, which may be lost.
const HOME_BACKLOG_MAX: usize = 8 << 20;

/// The way to an edge, handed to a partition.
#[derive(Debug)]
pub struct Attachment {
    /// The numbers of its reactors.
    pub reactors: Range<u16>,
    /// What goes to them.
    pub outbox: Outbox,
    /// Held as long as the range is in use here.
    pub in_use: Arc<()>,
}

const NOWHERE: u16 = u16::MAX;

#[derive(Debug)]
struct Far {
    way: Attachment,
    is_congested: bool,
}

/// All ways of one partition.
#[derive(Debug)]
pub struct Links {
    near: Vec<Outbox>,
    far: Vec<Option<Far>>,
    /// For each reactor's number, its place in `far`, or [`NOWHERE`].
    route: Vec<u16>,
    /// For what names no connection: to the gateway, on a node without reactors.
    home: Option<Outbox>,
    /// What goes to nobody: to connections of an edge that is gone.
    lost: Vec<u8>,
    was_freed: bool,
}

impl Links {
    /// Ways to the reactors of this process, in order, and to the gateway if there is one.
    pub fn new(near: Vec<Outbox>, home: Option<Outbox>) -> Self {
        assert!(!near.is_empty() || home.is_some(), "a partition talks to somebody");
        let (far, route, lost) = (Vec::new(), Vec::new(), Vec::new());
        Self { near, far, route, home, lost, was_freed: false }
    }

    /// Where a frame for a connection of that reactor is written.
    pub fn to(&mut self, reactor: u16) -> &mut Vec<u8> {
        let index = usize::from(reactor);
        if index < self.near.len() {
            return self.near[index].buffer();
        }
        match self.place(reactor).and_then(|place| self.far[place].as_mut()) {
            Some(far) => far.way.outbox.buffer(),
            None => &mut self.lost,
        }
    }

    fn place(&self, reactor: u16) -> Option<usize> {
        let place = self.route.get(usize::from(reactor)).filter(|place| **place != NOWHERE)?;
        Some(usize::from(*place))
    }

    /// Where a frame is written that names no connection.
    pub fn to_any(&mut self) -> &mut Vec<u8> {
        match &mut self.home {
            Some(home) => home.buffer(),
            None => self.near[0].buffer(),
        }
    }

    /// Whether there is room where [`Self::to_any`] leads.
    pub fn any_has_room(&self) -> bool {
        let way = self.home.as_ref().unwrap_or_else(|| &self.near[0]);
        way.backlog_bytes() < HOME_BACKLOG_MAX
    }

    /// Whether deliveries to that reactor may go on. Those of this process are asked for all at once:
    /// [`Self::near_has_room`].
    pub fn has_room(&self, reactor: u16) -> bool {
        let far = self.place(reactor).and_then(|place| self.far[place].as_ref());
        far.is_none_or(|far| !far.is_congested)
    }

    /// Whether fewer than so many bytes wait for each reactor of this process.
    pub fn near_has_room(&self, bytes_max: usize) -> bool {
        self.near.iter().all(|near| near.backlog_bytes() < bytes_max)
    }

    /// Bytes that wait for reactors.
    pub fn backlog_bytes(&self) -> usize {
        let far = self.far.iter().flatten().map(|far| &far.way.outbox);
        self.near.iter().chain(far).map(Outbox::backlog_bytes).sum()
    }

    /// An edge is linked.
    pub fn attach(&mut self, way: Attachment) {
        let end = usize::from(way.reactors.end);
        if self.route.len() < end {
            self.route.resize(end, NOWHERE);
        }
        let place = self.far.iter().position(Option::is_none).unwrap_or(self.far.len());
        for reactor in way.reactors.clone() {
            let route = &mut self.route[usize::from(reactor)];
            assert!(*route == NOWHERE, "a number is in use once");
            *route = place as u16;
        }
        if place == self.far.len() {
            self.far.push(None);
        }
        self.far[place] = Some(Far { way, is_congested: false });
    }

    /// An edge is gone, and everything of its connections was ended.
    pub fn detach(&mut self, first: u16) {
        let Some(place) = self.place(first) else { return };
        let far = self.far[place].take().expect("a route leads somewhere");
        for reactor in far.way.reactors {
            self.route[usize::from(reactor)] = NOWHERE;
        }
        self.was_freed = true;
    }

    /// Hands every batch over; `each` is told how many frames it has. Whether there was any.
    pub fn flush(&mut self, mut each: impl FnMut(u64)) -> bool {
        self.lost.clear();
        let mut worked = false;
        let mut hand_over = |outbox: &mut Outbox| {
            if let Some(frames) = outbox.flush() {
                each(frames);
                worked = true;
            }
        };
        self.near.iter_mut().chain(&mut self.home).for_each(&mut hand_over);
        for far in self.far.iter_mut().flatten() {
            hand_over(&mut far.way.outbox);
            let backlog = far.way.outbox.backlog_bytes();
            if backlog > FAR_BACKLOG_END {
                far.way.outbox.cut_off();
            }
            let limit = if far.is_congested { FAR_BACKLOG_MAX / 2 } else { FAR_BACKLOG_MAX };
            let is_congested = backlog > limit;
            self.was_freed |= far.is_congested && !is_congested;
            far.is_congested = is_congested;
        }
        worked
    }

    /// Whether there is room again on a way where there was none, since the last time this was asked.
    pub fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.was_freed)
    }

    /// Whether this thread may sleep as far as its ways out are concerned.
    pub fn may_sleep(&self) -> bool {
        let far = self.far.iter().flatten().map(|far| &far.way.outbox);
        self.near.iter().chain(&self.home).chain(far).all(Outbox::may_sleep)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Inbox, links_into};
    use super::*;
    use crate::rt::Waker;

    fn way(reactors: Range<u16>) -> (Attachment, Inbox) {
        let (here, there) = (Waker::of_parking(), Waker::of_parking());
        let (mut outboxes, inbox) = links_into(&there, &[(0, here)], 2);
        let outbox = outboxes.pop().unwrap();
        (Attachment { reactors, outbox, in_use: Arc::new(()) }, inbox)
    }

    #[test]
    fn frames_find_their_reactor_near_and_far() {
        let (near, near_inbox) = way(0..1);
        let (far, far_inbox) = way(5..7);
        let mut links = Links::new(vec![near.outbox], None);
        links.attach(far);
        for reactor in [0, 6, 9] {
            links.to(reactor).push(reactor as u8);
        }
        links.to_any().push(42);
        let mut frames = 0;
        assert!(links.flush(|count| frames += count));
        assert_eq!(frames, 3);
        assert_eq!(near_inbox.receive().unwrap().bytes, [0, 42]);
        assert_eq!(far_inbox.receive().unwrap().bytes, [6]);
        links.detach(5);
        links.to(6).push(6);
        assert!(!links.flush(|_| ()), "it goes to nobody");
        assert!(links.has_room(6) && links.take_freed() && !links.take_freed());
    }

    #[test]
    fn an_edge_that_takes_nothing_is_congested_and_the_others_are_not() {
        let ((slow, slow_inbox), (fast, _fast_inbox)) = (way(1..2), way(2..3));
        let mut links = Links::new(Vec::new(), Some(way(0..1).0.outbox));
        links.attach(slow);
        links.attach(fast);
        for _ in 0..4 {
            links.to(1).resize(FAR_BACKLOG_MAX + 1, 0);
            links.flush(|_| ());
        }
        assert!(!links.has_room(1) && links.has_room(2) && links.near_has_room(1));
        assert!(!links.take_freed());
        while slow_inbox.receive().is_some() {
            links.flush(|_| ());
        }
        links.flush(|_| ());
        assert!(links.has_room(1) && links.take_freed());
    }

    #[test]
    fn an_edge_for_which_too_much_waits_is_given_up_and_keeps_no_memory() {
        let (slow, slow_inbox) = way(1..2);
        let mut links = Links::new(Vec::new(), Some(way(0..1).0.outbox));
        links.attach(slow);
        while !slow_inbox.is_cut_off() {
            let more = links.to(1);
            more.resize(more.len() + FAR_BACKLOG_END / 4, 0);
            links.flush(|_| ());
        }
        assert_eq!(links.backlog_bytes(), 0);
        links.to(1).push(1);
        links.flush(|_| ());
        assert_eq!(links.backlog_bytes(), 0, "what comes later is dropped");
    }

    #[test]
    fn receipts_are_not_kept_without_bound() {
        let mut links = Links::new(Vec::new(), Some(way(0..1).0.outbox));
        assert!(links.any_has_room());
        links.to_any().resize(HOME_BACKLOG_MAX, 0);
        assert!(!links.any_has_room());
    }

    #[test]
    fn a_range_is_in_use_until_it_is_detached() {
        let (attachment, _inbox) = way(3..4);
        let in_use = Arc::clone(&attachment.in_use);
        let mut links = Links::new(Vec::new(), Some(way(0..1).0.outbox));
        links.attach(attachment);
        assert_eq!(Arc::strong_count(&in_use), 2);
        links.detach(3);
        assert_eq!(Arc::strong_count(&in_use), 1);
    }
}
