//! The link between the two nodes: ordered and whole while it is up, slow, cut, or cut one way.

use std::collections::VecDeque;

use iris_proto::replica::LinkDown;

/// A number for each of the two directions or nodes.
pub type Two<T> = [T; 2];

/// Bytes on their way.
#[derive(Debug)]
struct Parcel {
    due_ms: u64,
    bytes: Vec<u8>,
}

/// The network between two nodes.
#[derive(Debug, Default)]
pub struct Net {
    /// The connection that is up at each end; an end may learn later than the other that it is down.
    up: Two<Option<u64>>,
    last: u64,
    /// To each node.
    ways: Two<VecDeque<Parcel>>,
    /// Whether nothing gets through to a node.
    pub cut: Two<bool>,
    /// Milliseconds on the way.
    pub delay_ms: (u64, u64),
    /// When a connection may be tried again.
    next_try_ms: u64,
}

impl Net {
    /// A network that works.
    pub fn new() -> Self {
        Self { delay_ms: (0, 2), ..Self::default() }
    }

    /// Whether nothing keeps bytes from either node.
    pub fn is_whole(&self) -> bool {
        !self.cut[0] && !self.cut[1]
    }

    /// The connection at this end.
    pub fn at(&self, end: usize) -> Option<u64> {
        self.up[end]
    }

    /// Tries to connect if no end has a connection: the number of the new one.
    pub fn connect(&mut self, now_ms: u64) -> Option<u64> {
        let is_down = self.up[0].is_none() && self.up[1].is_none();
        if !is_down || !self.is_whole() || now_ms < self.next_try_ms {
            return None;
        }
        self.last += 1;
        self.up = [Some(self.last), Some(self.last)];
        self.ways.iter_mut().for_each(VecDeque::clear);
        Some(self.last)
    }

    /// An end closes its connection, or is gone. Returns whether the other end learns of it now.
    pub fn close(&mut self, end: usize, now_ms: u64) -> bool {
        self.up[end] = None;
        self.next_try_ms = now_ms + 3;
        self.ways[end].clear();
        // What was sent before is lost or not; here it is lost.
        self.ways[1 - end].clear();
        let hears = !self.cut[1 - end] && self.up[1 - end].is_some();
        if hears {
            self.up[1 - end] = None;
        }
        hears
    }

    /// How the other end hears of a close.
    pub fn how(is_process_gone: bool) -> LinkDown {
        if is_process_gone { LinkDown::Gone } else { LinkDown::Lost }
    }

    /// Bytes leave this end.
    pub fn send(&mut self, from: usize, bytes: Vec<u8>, now_ms: u64, delay_ms: u64) {
        let to = 1 - from;
        if self.up[from].is_none() || bytes.is_empty() {
            return;
        }
        let due_ms = now_ms + delay_ms;
        let due_ms = self.ways[to].back().map_or(due_ms, |last| last.due_ms.max(due_ms));
        self.ways[to].push_back(Parcel { due_ms, bytes });
    }

    /// Bytes that arrive at this end now. While the way is cut they stand still, as retransmission makes them.
    pub fn arrive(&mut self, end: usize, now_ms: u64) -> Option<Vec<u8>> {
        let is_due = self.ways[end].front().is_some_and(|parcel| parcel.due_ms <= now_ms);
        if self.cut[end] || self.up[end].is_none() || !is_due {
            return None;
        }
        self.ways[end].pop_front().map(|parcel| parcel.bytes)
    }
}
