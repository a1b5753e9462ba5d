//! What goes wrong, by name.

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A node loses power: what was not synced is there or not, sector by sector.
    Crash,
    /// Both do, at once.
    CrashBoth,
    /// A node's process is killed: what was written stays.
    Kill,
    /// Nothing gets through between the nodes.
    Partition,
    /// Nothing gets through one way.
    OneWay,
    /// Everything between the nodes takes long.
    Delay,
    /// The connection between the nodes breaks.
    Reset,
    /// A node's disk takes long.
    SlowDisk,
    /// A node's clock jumps.
    ClockJump,
    /// A node stops in good order and starts again.
    Drain,
    /// A write fails with EIO.
    WriteError,
    /// A sync fails with EIO, and what it covered is there or not.
    SyncError,
    /// All reads of a node fail for a while.
    ReadError,
    /// A node's disk is full for a while.
    DiskFull,
    /// A bit of what a disk holds flips, where the other disk holds the record as well.
    BitRot,
    /// A write goes to another place and is reported as done.
    Misdirected,
    /// A node comes back with its disk of some time ago.
    OldImage,
    /// A node comes back with an empty disk.
    EmptyDisk,
    /// Clients cannot reach a node that the other node can reach.
    EdgeCut,
    /// A node is very slow, disk and link, and not dead.
    GrayPeer,
    /// Clients send everything twice, and not in order.
    Resend,
    /// An edge dies and starts again; its clients connect anew, there or elsewhere.
    EdgeRestart,
    /// Nothing gets through between one edge and one node, or only one way.
    LinkCut,
    /// The link between one edge and one node breaks.
    LinkReset,
    /// Everything between edges and nodes takes long.
    LinkDelay,
}

impl Kind {
    /// Those of edges: only runs with edges have them.
    pub const OF_EDGES: [Self; 4] =
        [Self::EdgeRestart, Self::LinkCut, Self::LinkReset, Self::LinkDelay];

    /// All others.
    pub const ALL: [Self; 21] = [
        Self::Crash,
        Self::CrashBoth,
        Self::Kill,
        Self::Partition,
        Self::OneWay,
        Self::Delay,
        Self::Reset,
        Self::SlowDisk,
        Self::ClockJump,
        Self::Drain,
        Self::WriteError,
        Self::SyncError,
        Self::ReadError,
        Self::DiskFull,
        Self::BitRot,
        Self::Misdirected,
        Self::OldImage,
        Self::EmptyDisk,
        Self::EdgeCut,
        Self::GrayPeer,
        Self::Resend,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::CrashBoth => "crash_both",
            Self::Kill => "kill",
            Self::Partition => "partition",
            Self::OneWay => "one_way",
            Self::Delay => "delay",
            Self::Reset => "reset",
            Self::SlowDisk => "slow_disk",
            Self::ClockJump => "clock_jump",
            Self::Drain => "drain",
            Self::WriteError => "write_error",
            Self::SyncError => "sync_error",
            Self::ReadError => "read_error",
            Self::DiskFull => "disk_full",
            Self::BitRot => "bit_rot",
            Self::Misdirected => "misdirected",
            Self::OldImage => "old_image",
            Self::EmptyDisk => "empty_disk",
            Self::EdgeCut => "edge_cut",
            Self::GrayPeer => "gray_peer",
            Self::Resend => "resend",
            Self::EdgeRestart => "edge_restart",
            Self::LinkCut => "link_cut",
            Self::LinkReset => "link_reset",
            Self::LinkDelay => "link_delay",
        }
    }

    /// Whether it may destroy what a disk holds for good. Such faults hit one disk of a run only.
    pub fn destroys(self) -> bool {
        matches!(self, Self::BitRot | Self::Misdirected | Self::OldImage | Self::EmptyDisk)
    }

    /// The kind with this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::OF_EDGES).find(|kind| kind.name() == name)
    }

    /// Whether only runs with edges have it.
    pub fn is_of_edges(self) -> bool {
        Self::OF_EDGES.contains(&self)
    }
}
