//! What the log needs of a disk, small enough that a simulator can be one.
//!
//! [`crate::io::RealDisk`] is the kernel's; [`mem::MemDisk`] keeps apart what was written and what was synced.

use std::io;
use std::path::Path;

pub mod mem;

/// What an operator can do about an error of a file.
pub(crate) fn next_step(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "let the server's user read and write it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk",
        io::ErrorKind::ReadOnlyFilesystem => "mount that disk for writing",
        io::ErrorKind::NotFound => "restore it, or name another data directory",
        _ => "see `dmesg` for what the disk said",
    }
}

/// Whether an error says that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How batches reach the disk; a start-up self-test picks the fastest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncMethod {
    /// O_DIRECT write, then fdatasync.
    #[default]
    DirectFdatasync,
    /// O_DIRECT and O_DSYNC: the write returns when the data is durable.
    DirectDsync,
    /// A write through the page cache, then fdatasync: where O_DIRECT is not supported, as on tmpfs.
    BufferedFdatasync,
}

impl SyncMethod {
    /// The name that logs print.
    pub fn name(self) -> &'static str {
        match self {
            Self::DirectFdatasync => "direct+fdatasync",
            Self::DirectDsync => "direct+dsync",
            Self::BufferedFdatasync => "buffered+fdatasync",
        }
    }
}

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading through the page cache.
    Read,
    /// Writing in place to a file that exists.
    Write(SyncMethod),
    /// Making a file that must not exist yet, and writing it.
    Create(SyncMethod),
}

/// A file system, as far as the log uses it. Errors are the operating system's.
///
/// Writes and reads of a method other than [`SyncMethod::BufferedFdatasync`] are block-aligned in memory, offset and
/// length. With [`SyncMethod::DirectDsync`] a write that returned is durable; else [`Disk::sync`] makes it so.
/// Names are durable after [`Disk::sync_dir`].
pub trait Disk {
    /// An open file; closed when dropped.
    type File;

    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Self::File>;
    /// The names in a directory, in any order; names that are not UTF-8 are left out.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Bytes in a file.
    fn len(&self, file: &Self::File) -> io::Result<u64>;
    /// Reads at an offset; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, file: &Self::File, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes at an offset, once; may write less than given.
    fn write_at(&self, file: &Self::File, at: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Makes what was written durable, length included.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Renames a file, over another one if there is one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Cuts a file to a length that is below its own.
    fn cut(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory and its parents if they are not there.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that may still be written below a directory.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}
