//! Edges that come and go: ways to them are attached, and the connections of one that is gone end some at a time.

use super::Partition;
use crate::link::Attachment;
use crossbeam_channel::Receiver;
use iris_proto::core::EndCursor;
use std::collections::VecDeque;
use std::ops::Range;

/// Places of the core looked at in one turn for connections that are gone (I8): some tens of microseconds.
const ENDED_PER_TURN: u32 = 4096;

/// What a partition knows of edges.
#[derive(Debug)]
pub(super) struct Edges {
    attachments: Option<Receiver<Attachment>>,
    /// Reactors that are gone, and how far their connections have been ended.
    gone: VecDeque<(Range<u16>, EndCursor)>,
}

impl Edges {
    pub(super) fn new(attachments: Option<Receiver<Attachment>>) -> Self {
        Self { attachments, gone: VecDeque::new() }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.gone.is_empty()
    }
}

impl Partition {
    /// Attaches the ways that the gateway has opened. To be called before a batch of the gateway is looked at: its edge may
    /// be new.
    pub(super) fn attach_edges(&mut self) {
        let Some(attachments) = &self.edges.attachments else { return };
        while let Ok(way) = attachments.try_recv() {
            self.fx.links.attach(way);
        }
    }

    /// The connections of these reactors are gone.
    pub(super) fn edge_gone(&mut self, reactors: Range<u16>) {
        self.edges.gone.push_back((reactors, EndCursor::default()));
    }

    /// Ends some connections of edges that are gone. Whether there was anything to do.
    pub(super) fn end_gone_edges(&mut self) -> bool {
        let Some((reactors, cursor)) = self.edges.gone.front() else { return false };
        let (now_ms, core, fx) = (self.clock.unix_ms(), &mut self.core, &mut self.fx);
        let next = core.end_reactors(fx, now_ms, reactors, *cursor, ENDED_PER_TURN);
        match next {
            Some(cursor) => self.edges.gone[0].1 = cursor,
            None => {
                let (reactors, _) = self.edges.gone.pop_front().expect("it is the first one");
                self.fx.links.detach(reactors.start);
            }
        }
        true
    }
}
