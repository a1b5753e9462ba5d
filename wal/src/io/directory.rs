//! A node's data directory: one server at a time, an identity, one log directory per partition.
//!
//! ```text
//! <data>/LOCK            locked (flock) while a server runs; holds its process id
//! <data>/node            identity and incarnation
//! <data>/wal/p000/       the log of partition 0: 00000001.seg …, spare-0.seg …
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::identity::{Identity, IdentityError};
use super::{RealDisk, random_bytes};
use crate::disk::{Disk, is_full, next_step};
use crate::recovery::Place;

/// The lock file's name.
pub const LOCK_NAME: &str = "LOCK";

/// Decimal digits of a process id, at most.
const PID_DIGITS: usize = 10;

/// What a new data directory is founded with, and an old one must agree to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Founding {
    /// The cluster's UUID; `None` takes that of the directory, or a new one.
    pub cluster: Option<[u8; 16]>,
    /// The node's number in its cluster.
    pub node_id: u32,
    /// Shards of the cluster.
    pub num_shards: u16,
    /// Logs of the node.
    pub partitions: u16,
    /// The time, in seconds since 1970: no incarnation is below it. A disk that comes back empty or as an older image does
    /// not know the lives after it; the time most often does.
    pub now_s: u32,
}

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error("failed to {what} {path}: {error}; {}", next_step(error))]
    Io { what: &'static str, path: PathBuf, error: io::Error },
    /// Another server uses it.
    #[error("{path} is in use by process {pid}; stop it, or use another data directory")]
    Locked { path: PathBuf, pid: String },
    /// It was founded otherwise.
    #[error(
        "{path} was founded with {what} {found}, the configuration says {wanted}; \
         set it back, or use another data directory"
    )]
    Mismatch { path: PathBuf, what: &'static str, found: String, wanted: String },
    /// It holds logs and no identity: a number of theirs could be given out twice.
    #[error("{path} holds logs but no file `node`; restore that file, or use an empty directory")]
    NoIdentity { path: PathBuf },
    /// The identity cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A data directory that this process has locked.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

/// Where the log of a partition lies below a data directory.
pub fn log_dir(data: &Path, log_id: u16) -> PathBuf {
    data.join("wal").join(format!("p{log_id:03}"))
}

impl Directory {
    /// Opens a data directory, founding it if it is new: locks it, and begins a new life of the node.
    pub fn open(path: &Path, founding: &Founding) -> Result<Self, OpenError> {
        let disk = RealDisk;
        disk.make_dir(path).map_err(failed("create", path))?;
        let lock = lock(path)?;
        let identity = match Identity::read(path)? {
            Some(found) => {
                agree(path, founding, &found)?;
                let next = found.incarnation.checked_add(1);
                let next = next.expect("four billion starts take longer than that");
                Identity { incarnation: next.max(founding.now_s), ..found }
            }
            None => found_new(path, founding)?,
        };
        // Synced before the first append, so that no life's numbers are given out twice.
        identity.write(path)?;
        for log_id in 0..identity.partitions {
            let dir = log_dir(path, log_id);
            disk.make_dir(&dir).map_err(failed("create", &dir))?;
        }
        let wal = path.join("wal");
        disk.sync_dir(&wal).map_err(failed("sync", &wal))?;
        disk.sync_dir(path).map_err(failed("sync", path))?;
        Ok(Self { path: path.to_path_buf(), identity, _lock: lock })
    }

    /// Who this node is, in this life.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Has the next life begin above that incarnation: a peer knows it.
    pub fn raise_incarnation(&self, above: u32) -> Result<(), OpenError> {
        let incarnation = self.identity.incarnation.max(above);
        Identity { incarnation, ..self.identity.clone() }.write(&self.path)?;
        RealDisk.sync_dir(&self.path).map_err(failed("sync", &self.path))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log of a partition lies and whose it is.
    pub fn place(&self, log_id: u16) -> Place {
        assert!(log_id < self.identity.partitions, "the node has that partition");
        Place { dir: log_dir(&self.path, log_id), owner: self.identity.owner(log_id) }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |error| OpenError::Io { what, path: path.to_path_buf(), error }
}

fn lock(data: &Path) -> Result<File, OpenError> {
    let path = data.join(LOCK_NAME);
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the message; a holder that has not written its id yet is "unknown".
            let read = (&mut file).take(32).read_to_string(&mut pid);
            let known = read.is_ok() && !pid.trim().is_empty();
            let pid = if known { pid.trim().to_owned() } else { "unknown".to_owned() };
            return Err(OpenError::Locked { path: data.to_path_buf(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
    }
    // Over what stood there, of the same length: it needs no room on a full disk.
    let pid = format!("{:<PID_DIGITS$}\n", std::process::id());
    match file.rewind().and_then(|()| file.write_all(pid.as_bytes())) {
        Err(error) if !is_full(&error) => Err(failed("write", &path)(error)),
        // Without it only a message of others is less helpful.
        Ok(()) | Err(_) => Ok(file),
    }
}

fn agree(path: &Path, founding: &Founding, found: &Identity) -> Result<(), OpenError> {
    let pairs = [
        ("node id", found.node_id, founding.node_id),
        ("number of shards", u32::from(found.num_shards), u32::from(founding.num_shards)),
        ("number of partitions", u32::from(found.partitions), u32::from(founding.partitions)),
    ];
    let mismatch = |what, found: String, wanted: String| {
        Err(OpenError::Mismatch { path: path.to_path_buf(), what, found, wanted })
    };
    for (what, found, wanted) in pairs {
        if found != wanted {
            return mismatch(what, found.to_string(), wanted.to_string());
        }
    }
    match founding.cluster {
        Some(cluster) if cluster != found.cluster => {
            let (found, wanted) =
                (super::identity::uuid(&found.cluster), super::identity::uuid(&cluster));
            mismatch("cluster", found, wanted)
        }
        _ => Ok(()),
    }
}

fn found_new(path: &Path, founding: &Founding) -> Result<Identity, OpenError> {
    let wal = path.join("wal");
    let logs = match RealDisk.names(&wal) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed("list", &wal)(error)),
    };
    for log in logs {
        let dir = wal.join(log);
        let holds = RealDisk.names(&dir).is_ok_and(|names| !names.is_empty());
        if holds {
            return Err(OpenError::NoIdentity { path: path.to_path_buf() });
        }
    }
    let random = || random_bytes().map(version_4);
    let new = || random().map_err(failed("read", Path::new("/dev/urandom")));
    Ok(Identity {
        cluster: match founding.cluster {
            Some(cluster) => cluster,
            None => new()?,
        },
        node: new()?,
        node_id: founding.node_id,
        incarnation: founding.now_s.max(1),
        num_shards: founding.num_shards,
        partitions: founding.partitions,
    })
}

/// Marks random bytes as a version 4 UUID (RFC 9562, section 5.4).
fn version_4(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}
