//! What goes wrong.

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
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
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
        }
    }

    /// The kind with this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
