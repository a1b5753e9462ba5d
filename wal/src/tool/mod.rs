//! What `iris wal verify|dump|stat|diff DIR` does. Everything here reads only, takes no lock, and goes on past
//! damage; so it may be used on a copy, on a broken disk, and beside a running server (whose tail then looks torn).
//!
//! DIR is a node's data directory, its `wal` directory, or the directory of one log. With `json` each line of the
//! output is a JSON object with a field `kind`; without, it is a line for people.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::disk::Disk;
use crate::io::RealDisk;
use crate::recovery::segment_of_name;

mod diff;
mod dump;
mod stat;
mod verify;
mod walk;

pub use diff::diff;
pub use dump::{DumpOptions, dump};
pub use stat::stat;
pub use verify::verify;

/// Exit code: sound, or alike.
pub const EXIT_SOUND: u8 = 0;
/// Exit code: damaged, or not alike.
pub const EXIT_DAMAGED: u8 = 1;
/// Exit code: something could not be read at all, or there is no log.
pub const EXIT_UNREADABLE: u8 = 2;

/// What a tool found, all logs together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Logs in the directory.
    pub logs: u64,
    /// Segments in them.
    pub segments: u64,
    /// Whole frames.
    pub frames: u64,
    /// Whole records.
    pub records: u64,
    /// Damaged places, or differences.
    pub faults: u64,
    /// Torn tails; no damage, they will be overwritten.
    pub torn: u64,
    /// Files and directories that could not be read.
    pub unreadable: u64,
}

impl Summary {
    /// The exit code of the command.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self { unreadable: 1.., .. } | Self { logs: 0, .. } => EXIT_UNREADABLE,
            Self { faults: 1.., .. } => EXIT_DAMAGED,
            _ => EXIT_SOUND,
        }
    }
}

/// One log below the directory that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogAt {
    /// Its name: `p000` and so on.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
}

/// The logs below a directory, by name.
pub fn logs_in(dir: &Path) -> io::Result<Vec<LogAt>> {
    let names = RealDisk.names(dir)?;
    if names.iter().any(|name| segment_of_name(name).is_some()) {
        let name = dir.file_name().map_or("log".into(), |name| name.to_string_lossy());
        return Ok(vec![LogAt { name: name.into_owned(), dir: dir.to_path_buf() }]);
    }
    let wal = dir.join("wal");
    let inside = if wal.is_dir() { wal } else { dir.to_path_buf() };
    let mut names = RealDisk.names(&inside)?;
    names.retain(|name| is_log_name(name) && inside.join(name).is_dir());
    names.sort_unstable();
    Ok(names.into_iter().map(|name| LogAt { dir: inside.join(&name), name }).collect())
}

fn is_log_name(name: &str) -> bool {
    name.strip_prefix('p').is_some_and(|digits| {
        digits.len() >= 3 && digits.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// Writes lines for people or for programs.
struct Out<'a> {
    to: &'a mut dyn Write,
    json: bool,
}

impl Out<'_> {
    /// One finding: `value` for programs, `line` for people.
    fn say(&mut self, value: &Value, line: &dyn Fn() -> String) -> io::Result<()> {
        match self.json {
            true => writeln!(self.to, "{value}"),
            false => writeln!(self.to, "{}", line()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
