//! The real disk: the only module of this crate that talks to the kernel, and the only one with `unsafe`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::disk::{Access, Disk, SyncMethod};

mod directory;
mod identity;
mod self_test;

pub use directory::{Directory, Founding, LOCK_NAME, OpenError, log_dir};
pub(crate) use identity::uuid;
pub use identity::{Identity, IdentityError, NODE_NAME};
pub use self_test::{SelfTest, self_test};

/// The kernel's file systems.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RealDisk;

fn flags(method: SyncMethod) -> libc::c_int {
    match method {
        SyncMethod::DirectFdatasync => libc::O_DIRECT,
        SyncMethod::DirectDsync => libc::O_DIRECT | libc::O_DSYNC,
        SyncMethod::BufferedFdatasync => 0,
    }
}

impl Disk for RealDisk {
    type File = File;

    fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        match access {
            Access::Read => File::open(path),
            Access::Write(method) => {
                OpenOptions::new().write(true).custom_flags(flags(method)).open(path)
            }
            Access::Create(method) => OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o640)
                .custom_flags(flags(method))
                .open(path),
        }
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read_at(&self, file: &File, at: u64, into: &mut [u8]) -> io::Result<usize> {
        file.read_at(into, at)
    }

    fn write_at(&self, file: &File, at: u64, bytes: &[u8]) -> io::Result<usize> {
        file.write_at(bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn cut(&self, path: &Path, len: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.set_len(len)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    #[expect(unsafe_code, reason = "the standard library has no statvfs(3)")]
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let path = std::ffi::CString::new(dir.as_os_str().as_bytes())?;
        let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: `path` is a C string that outlives the call, and `stat` is memory for what the call fills in.
        let result = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so it filled `stat` in; all zeros would be valid, too.
        let stat = unsafe { stat.assume_init() };
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

/// 16 random bytes from the kernel.
pub fn random_bytes() -> io::Result<[u8; 16]> {
    use std::io::Read;
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A random salt for a segment.
pub fn random_salt() -> io::Result<u64> {
    let bytes = random_bytes()?;
    Ok(bytes.iter().take(8).fold(0, |salt, byte| salt << 8 | u64::from(*byte)))
}
