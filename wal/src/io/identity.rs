//! Who a node is: the file `node` in its data directory.
//!
//! Two copies, each a line of JSON for the operator's eyes, with a checksum: a lost or altered incarnation would let a node
//! give the same dot to two messages. A new life overwrites the copies in place, one after the other, so that it needs no
//! room on a full disk. It begins when both are synced: whatever one copy alone says was never used by a life that the
//! other does not know.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RealDisk;
use crate::BLOCK;
use crate::disk::{Access, Disk, SyncMethod, next_step};
use crate::segment::Owner;

/// The file's name.
pub const NODE_NAME: &str = "node";
const FORMAT: u32 = 1;
/// Bytes of a copy, filled up with spaces: a block of its own, so that a torn write harms one at most.
const COPY_BYTES: usize = BLOCK;
const FILE_BYTES: usize = 2 * COPY_BYTES;

/// Who a node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster's UUID.
    pub cluster: [u8; 16],
    /// The node's UUID; new with every new data directory.
    pub node: [u8; 16],
    /// The node's number in its cluster.
    pub node_id: u32,
    /// Which life of the node this is; grows by one at each start, synced before use.
    pub incarnation: u32,
    /// Shards of the cluster.
    pub num_shards: u16,
    /// Logs of the node.
    pub partitions: u16,
}

/// Why the identity could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The operating system refused.
    #[error("failed to {what} {path}: {error}; {}", next_step(error))]
    Io { what: &'static str, path: PathBuf, error: io::Error },
    /// The file is not what was written.
    #[error(
        "{path} is damaged ({why}); restore it from a copy, or give the node an empty directory"
    )]
    Damaged { path: PathBuf, why: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    format: u32,
    cluster: String,
    node: String,
    node_id: u32,
    incarnation: u32,
    num_shards: u16,
    partitions: u16,
    crc32c: String,
}

impl Identity {
    /// Whose segments a partition of this node writes.
    pub fn owner(&self, log_id: u16) -> Owner {
        Owner {
            cluster: self.cluster,
            node: self.node,
            node_id: self.node_id,
            incarnation: self.incarnation,
            log_id,
        }
    }

    fn line(&self) -> Line {
        let sums = format!(
            "{FORMAT} {} {} {} {} {} {}",
            uuid(&self.cluster),
            uuid(&self.node),
            self.node_id,
            self.incarnation,
            self.num_shards,
            self.partitions
        );
        Line {
            format: FORMAT,
            cluster: uuid(&self.cluster),
            node: uuid(&self.node),
            node_id: self.node_id,
            incarnation: self.incarnation,
            num_shards: self.num_shards,
            partitions: self.partitions,
            crc32c: format!("{:08x}", crc32c::crc32c(sums.as_bytes())),
        }
    }

    /// Reads the identity in `dir`; `None` if there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(NODE_NAME);
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(IdentityError::Io { what: "read", path, error }),
        };
        let found = if bytes.len() == FILE_BYTES {
            let (first, second) = bytes.split_at(COPY_BYTES);
            newer(Self::of_line(first), Self::of_line(second))
        } else {
            // A single line, as the first version wrote it.
            Self::of_line(&bytes)
        };
        found.map(Some).map_err(|why| IdentityError::Damaged { path, why })
    }

    fn of_line(bytes: &[u8]) -> Result<Self, String> {
        let line: Line = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if line.format != FORMAT {
            return Err(format!("format {} is unknown", line.format));
        }
        let bytes = |text: &str| of_uuid(text).ok_or_else(|| format!("{text} is no UUID"));
        let identity = Self {
            cluster: bytes(&line.cluster)?,
            node: bytes(&line.node)?,
            node_id: line.node_id,
            incarnation: line.incarnation,
            num_shards: line.num_shards,
            partitions: line.partitions,
        };
        match identity.line().crc32c == line.crc32c {
            true => Ok(identity),
            false => Err("its checksum does not match".to_owned()),
        }
    }

    fn copy(&self) -> Vec<u8> {
        let mut copy = serde_json::to_vec(&self.line()).expect("plain fields serialize");
        assert!(copy.len() < COPY_BYTES, "the fields are of bounded length");
        copy.resize(COPY_BYTES - 1, b' ');
        copy.push(b'\n');
        copy
    }

    /// Writes the identity into `dir`; when this returns it is durable. Needs no room where it stood before.
    pub fn write(&self, dir: &Path) -> Result<(), IdentityError> {
        let path = dir.join(NODE_NAME);
        let has_room = RealDisk
            .open(&path, Access::Read)
            .and_then(|file| RealDisk.len(&file))
            .is_ok_and(|len| len == FILE_BYTES as u64);
        if has_room { self.overwrite(&path) } else { self.create(dir, &path) }
    }

    fn overwrite(&self, path: &Path) -> Result<(), IdentityError> {
        let disk = RealDisk;
        let access = Access::Write(SyncMethod::BufferedFdatasync);
        let file = disk.open(path, access).map_err(failed("open", path))?;
        for at in [0, COPY_BYTES as u64] {
            write_all(&disk, &file, at, &self.copy()).map_err(failed("write", path))?;
            disk.sync(&file).map_err(failed("sync", path))?;
        }
        Ok(())
    }

    /// To a temporary file, which is synced and renamed, so that there is a whole one or none.
    fn create(&self, dir: &Path, path: &Path) -> Result<(), IdentityError> {
        let new = dir.join("node.tmp");
        let disk = RealDisk;
        match disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &new)(error));
            }
            _ => {}
        }
        let access = Access::Create(SyncMethod::BufferedFdatasync);
        let file = disk.open(&new, access).map_err(failed("create", &new))?;
        let bytes = [self.copy(), self.copy()].concat();
        write_all(&disk, &file, 0, &bytes).map_err(failed("write", &new))?;
        disk.sync(&file).map_err(failed("sync", &new))?;
        disk.rename(&new, path).map_err(failed("rename", &new))?;
        disk.sync_dir(dir).map_err(failed("sync", dir))
    }
}

/// What two copies say. One that is not whole was being written when the node died, or has rotted since: the other one
/// knows every life that began.
fn newer(
    first: Result<Identity, String>,
    second: Result<Identity, String>,
) -> Result<Identity, String> {
    match (first, second) {
        (Ok(first), Ok(second)) => {
            let incarnation = first.incarnation.max(second.incarnation);
            let [first, second] = [first, second].map(|copy| Identity { incarnation, ..copy });
            if first == second { Ok(first) } else { Err("its copies name two nodes".to_owned()) }
        }
        (Ok(whole), Err(_)) | (Err(_), Ok(whole)) => Ok(whole),
        (Err(why), Err(_)) => Err(why),
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_path_buf();
    move |error| IdentityError::Io { what, path, error }
}

fn write_all(disk: &RealDisk, file: &std::fs::File, at: u64, bytes: &[u8]) -> io::Result<()> {
    match disk.write_at(file, at, bytes)? {
        written if written == bytes.len() => Ok(()),
        // How a disk fills up.
        _ => Err(io::ErrorKind::StorageFull.into()),
    }
}

/// The file's bytes, and one more than it should have at most.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// 16 bytes as a UUID is written (RFC 9562, section 4).
pub(crate) fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn of_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if text.len() != 36 || digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}
