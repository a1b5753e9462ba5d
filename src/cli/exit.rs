//! How commands end: exit codes, and failures that carry one.

use std::fmt;

/// The exit codes of `iris`. From 64 they are those of sysexits.h, so that a supervisor can tell what a restart may
/// mend: nothing at 64 to 78 except 71, 74 and 75.
///
/// | code | name | when |
/// |---|---|---|
/// | 0 | `Ok` | it did what was asked |
/// | 1 | `Negative` | the verdict is no: `check` found problems (an unreadable file is one), `wal verify` damage, `wal diff` differences; `core retire-node`, `drain` or `logout` was refused, `shard` found no core that serves it |
/// | 2 | `Usage` | the command line is wrong, or a file that it names cannot be read |
/// | 10 | `Unhealthy` | `status` found something that should not be: a node alone, damaged, not ready or not reachable; `top`: a node did not answer |
/// | 69 | `Unavailable` | the machine lacks something: io_uring, a limit |
/// | 70 | `Internal` | a thread could not be started, or another surprise |
/// | 71 | `Machine` | a sysctl or the memory is less than the configuration asks for by name |
/// | 73 | `DataDir` | the data directory cannot be used |
/// | 74 | `Io` | the log could not be written or synced (I6); restarting reads it |
/// | 75 | `InUse` | a port or the data directory is in use by another process |
/// | 77 | `Permission` | a right is missing |
/// | 78 | `Config` | `serve` found problems in the configuration |
/// | 130 | `Interrupted` | a second SIGINT or SIGTERM came while the node was draining |
/// | 134 | - | an assertion failed (SIGABRT): a bug, to be reported |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the table above says when each is used")]
pub enum Exit {
    Ok = 0,
    Negative = 1,
    Usage = 2,
    Unhealthy = 10,
    Unavailable = 69,
    Internal = 70,
    Machine = 71,
    DataDir = 73,
    Io = 74,
    InUse = 75,
    Permission = 77,
    Config = 78,
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed: one line (or one per problem) with cause and next step, and the exit code.
#[derive(Clone, Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    message: String,
}

impl Failure {
    /// A failure with its message: cause, then `; `, then what to do.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code of an error: that of the [`Failure`] in its chain, else [`Exit::Internal`].
pub fn exit_of(error: &anyhow::Error) -> Exit {
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    failure.map_or(Exit::Internal, |failure| failure.exit)
}
