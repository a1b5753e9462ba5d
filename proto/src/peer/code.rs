//! Why a link ended: stable numbers for the wire, stable names for logs and metrics.

use std::fmt;

/// Why a link ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum EndCode {
    /// The node stops.
    GoingAway = 1,
    /// The first bytes are no HELLO of this protocol.
    Garbage = 2,
    /// No version in common.
    Version = 3,
    /// The peer belongs to another cluster.
    Cluster = 4,
    /// The peer is not who it should be: node, role, or its certificate says another node.
    Identity = 5,
    /// The number of shards or partitions differs.
    Layout = 6,
    /// A field that does not fit its frame, is out of its range or is not UTF-8.
    Malformed = 7,
    /// A frame longer than the protocol allows.
    Oversize = 8,
    /// An unknown frame type that is not ignorable.
    UnknownType = 9,
    /// A frame that this state of the link does not allow, or that this side may not send.
    OutOfOrder = 10,
    /// A batch for which there was no credit.
    Credit = 11,
    /// Nothing was heard for too long.
    Silent = 12,
    /// No complete handshake in time.
    HandshakeTimeout = 13,
    /// The peer does not take what waits for it.
    SlowPeer = 14,
    /// There is no room for another link.
    Full = 15,
    /// A newer link of the same node took over.
    Replaced = 16,
}

impl EndCode {
    /// How many there are.
    pub const COUNT: usize = 16;
    /// All of them, in order of number.
    pub const ALL: [Self; Self::COUNT] = [
        Self::GoingAway,
        Self::Garbage,
        Self::Version,
        Self::Cluster,
        Self::Identity,
        Self::Layout,
        Self::Malformed,
        Self::Oversize,
        Self::UnknownType,
        Self::OutOfOrder,
        Self::Credit,
        Self::Silent,
        Self::HandshakeTimeout,
        Self::SlowPeer,
        Self::Full,
        Self::Replaced,
    ];

    /// The code of a number, if there is one.
    pub fn from_u16(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u16 == number)
    }

    /// The name in documents, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::GoingAway => "going_away",
            Self::Garbage => "garbage",
            Self::Version => "version",
            Self::Cluster => "cluster",
            Self::Identity => "identity",
            Self::Layout => "layout",
            Self::Malformed => "malformed",
            Self::Oversize => "oversize",
            Self::UnknownType => "unknown_type",
            Self::OutOfOrder => "out_of_order",
            Self::Credit => "credit",
            Self::Silent => "silent",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::SlowPeer => "slow_peer",
            Self::Full => "full",
            Self::Replaced => "replaced",
        }
    }
}

/// The end of a link: why, by whom, and a sentence for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Why. A number of a later version counts as [`EndCode::GoingAway`].
    pub code: EndCode,
    /// Whether the peer said so; else it is our verdict.
    pub by_peer: bool,
    /// What exactly, for logs.
    pub text: String,
}

impl End {
    /// Our verdict.
    pub fn ours(code: EndCode, text: impl Into<String>) -> Self {
        Self { code, by_peer: false, text: text.into() }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = if self.by_peer { "the peer says: " } else { "" };
        write!(f, "{}: {by}{}", self.code.name(), self.text)
    }
}
