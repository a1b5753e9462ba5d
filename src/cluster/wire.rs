//! One link on its socket: TLS and the link's machine, what the ring has under way for it, and what waits to go.

use super::Cut;
use super::tls::Tls;
use crate::link::{Inbox, Outbox};
use iris_proto::peer::Link;
use iris_ring::{Ring, SendId, Token};
use std::net::SocketAddr;

/// Bytes of a link that may wait for its socket before no further batch is started.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Time for a last word, and for the other side to hear it. Milliseconds.
const PARTING_MS: u64 = 1000;

/// What a wire is to this node.
#[derive(Debug)]
pub(super) enum Side {
    /// Not known yet: no HELLO was judged.
    Stranger,
    /// We are its edge: which core of the list it is.
    Core(usize),
    /// It is our edge: its reactors, in our numbers.
    Edge(super::ranges::Lease),
    /// It is our mirror.
    Mirror {
        /// The number of the link.
        link: u64,
        /// The way to each partition.
        ways: Vec<Outbox>,
        /// Where a partition asks for the end.
        cut: Cut,
    },
}

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Connecting,
    Open,
    /// It is over: what is left to say is sent, until then at the latest.
    Parting(u64),
}

/// What goes out on one channel.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) inbox: Inbox,
    /// A batch of which the bytes before the offset have gone.
    pub(super) carry: Option<(Vec<u8>, usize)>,
    /// Since when the other side gives no credit for what waits. Milliseconds.
    pub(super) stuck_since_ms: Option<u64>,
}

impl Port {
    pub(super) fn new(inbox: Inbox) -> Self {
        Self { inbox, carry: None, stuck_since_ms: None }
    }

    /// Whether there is something that could go now.
    pub(super) fn has_work(&self) -> bool {
        self.stuck_since_ms.is_none() && (self.carry.is_some() || !self.inbox.is_empty())
    }
}

pub(super) struct Wire {
    pub(super) token: Token,
    pub(super) peer: SocketAddr,
    pub(super) tls: Tls,
    pub(super) link: Link,
    pub(super) side: Side,
    /// Which of the gateway's dials it belongs to; `None`: it came to us.
    pub(super) dial: Option<usize>,
    /// One per channel, once the link is up.
    pub(super) ports: Vec<Port>,
    /// Bytes of each channel that have not left this thread yet.
    pub(super) owed: Vec<usize>,
    pub(super) up_since_ms: u64,
    descriptor: u32,
    phase: Phase,
    is_receiving: bool,
    sending: Option<SendId>,
    is_shutting_down: bool,
    /// There is nobody to say a last word to, or it was said.
    said_all: bool,
    has_shut_down: bool,
    /// The descriptor was given back.
    is_closed: bool,
}

impl Wire {
    pub(super) fn new(
        (token, descriptor): (Token, u32),
        peer: SocketAddr,
        tls: Tls,
        link: Link,
        dial: Option<usize>,
    ) -> Self {
        Self {
            token,
            peer,
            tls,
            link,
            side: Side::Stranger,
            dial,
            ports: Vec::new(),
            owed: Vec::new(),
            up_since_ms: 0,
            descriptor,
            phase: Phase::Connecting,
            is_receiving: false,
            sending: None,
            is_shutting_down: false,
            said_all: false,
            has_shut_down: false,
            is_closed: false,
        }
    }

    /// The connection stands.
    pub(super) fn open(&mut self, ring: &mut Ring) {
        self.phase = Phase::Open;
        self.receive(ring);
    }

    pub(super) fn receive(&mut self, ring: &mut Ring) {
        self.is_receiving = true;
        ring.receive_multishot(self.descriptor, self.token);
    }

    /// The multishot receive has ended.
    pub(super) fn receive_ended(&mut self) {
        self.is_receiving = false;
    }

    pub(super) fn is_parting(&self) -> bool {
        matches!(self.phase, Phase::Parting(_))
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.phase == Phase::Connecting
    }

    /// Whether another batch may be started.
    pub(super) fn has_room(&self) -> bool {
        self.link.output_bytes() < OUTPUT_BYTES_MAX
    }

    /// Whether nothing could be done for it now without news of the ring, of a thread or of time.
    pub(super) fn may_sleep(&self) -> bool {
        if let Side::Mirror { ways, .. } = &self.side
            && !ways.iter().all(Outbox::may_sleep)
        {
            return false;
        }
        self.is_parting() || !self.has_room() || !self.ports.iter().any(Port::has_work)
    }

    /// Sends what there is, one send at a time. How many bytes went to the kernel.
    pub(super) fn flush(&mut self, ring: &mut Ring) -> usize {
        let is_mute = self.phase == Phase::Parting(0) || self.has_shut_down;
        if is_mute || self.is_connecting() || self.sending.is_some() || self.is_closed {
            return 0;
        }
        if self.link.output_bytes() > 0 {
            self.tls.send(&self.link.take_output());
        }
        if self.is_parting() && !self.said_all {
            self.said_all = true;
            self.tls.finish();
        }
        let bytes = self.tls.take_output();
        let count = bytes.len();
        if count > 0 {
            self.sending = Some(ring.send(self.descriptor, bytes, self.token));
        } else if self.is_parting() {
            (self.is_shutting_down, self.has_shut_down) = (true, true);
            ring.shutdown_write(self.descriptor, self.token);
        }
        count
    }

    /// A send ended. Whether it went well.
    pub(super) fn sent(&mut self, bytes: usize, result: i32) -> bool {
        self.sending = None;
        usize::try_from(result).is_ok_and(|sent| sent == bytes)
    }

    /// Nothing more is taken or given, but what was said last still goes out.
    pub(super) fn part(&mut self, now_ms: u64) {
        self.phase = match self.phase {
            // A connection that does not stand carries nothing.
            Phase::Connecting => Phase::Parting(0),
            Phase::Open => Phase::Parting(now_ms + PARTING_MS),
            parting @ Phase::Parting(_) => parting,
        };
    }

    /// There is nobody to hear a last word.
    pub(super) fn hang_up(&mut self) {
        self.phase = Phase::Parting(0);
    }

    /// Our side of the stream has ended: the other side's end is what is left to wait for.
    pub(super) fn shut_down(&mut self) {
        self.is_shutting_down = false;
    }

    /// When a last word has had its time.
    pub(super) fn parted_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Parting(until_ms) => Some(until_ms),
            Phase::Connecting | Phase::Open => None,
        }
    }

    /// Gives the descriptor back, with whatever is under way on it. Its event says when it may be used again. False: not
    /// yet, since the kernel still looks the descriptor up.
    pub(super) fn close(&mut self, ring: &mut Ring) -> bool {
        if self.is_shutting_down || self.is_closed {
            return self.is_closed;
        }
        self.is_closed = true;
        if self.is_receiving {
            ring.cancel_receive(self.token);
        }
        if let Some(send) = self.sending {
            ring.cancel_send(send);
        }
        ring.close(self.descriptor, self.token);
        true
    }
}
