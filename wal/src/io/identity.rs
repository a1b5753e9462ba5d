//! Who a node is: the file `node` in its data directory.
//!
//! One line of JSON for the operator's eyes, with a checksum: a lost or altered incarnation would let a node give the
//! same dot to two messages. Written to a temporary file, synced, renamed, and the directory synced.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RealDisk;
use crate::disk::{Access, Disk, SyncMethod, next_step};
use crate::segment::Owner;

/// The file's name.
pub const NODE_NAME: &str = "node";
const FORMAT: u32 = 1;
const FILE_BYTES_MAX: u64 = 64 << 10;

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
        let damaged = |why: String| IdentityError::Damaged { path: path.clone(), why };
        let text = match read_bounded(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged("it is not text".to_owned()));
            }
            Err(error) => return Err(IdentityError::Io { what: "read", path, error }),
        };
        let line: Line = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if line.format != FORMAT {
            return Err(damaged(format!("format {} is unknown", line.format)));
        }
        let bytes = |text: &str| of_uuid(text).ok_or_else(|| damaged(format!("{text} is no UUID")));
        let identity = Self {
            cluster: bytes(&line.cluster)?,
            node: bytes(&line.node)?,
            node_id: line.node_id,
            incarnation: line.incarnation,
            num_shards: line.num_shards,
            partitions: line.partitions,
        };
        match identity.line().crc32c == line.crc32c {
            true => Ok(Some(identity)),
            false => Err(damaged("its checksum does not match".to_owned())),
        }
    }

    /// Writes the identity into `dir`; when this returns it is durable.
    pub fn write(&self, dir: &Path) -> Result<(), IdentityError> {
        let (path, new) = (dir.join(NODE_NAME), dir.join("node.tmp"));
        let failed = |what, path: &Path| {
            let path = path.to_path_buf();
            move |error| IdentityError::Io { what, path, error }
        };
        let disk = RealDisk;
        match disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &new)(error));
            }
            _ => {}
        }
        let mut text = serde_json::to_string(&self.line()).expect("plain fields serialize");
        text.push('\n');
        let file = disk
            .open(&new, Access::Create(SyncMethod::BufferedFdatasync))
            .map_err(failed("create", &new))?;
        let written = disk.write_at(&file, 0, text.as_bytes()).map_err(failed("write", &new))?;
        if written != text.len() {
            return Err(failed("write", &new)(io::ErrorKind::WriteZero.into()));
        }
        disk.sync(&file).map_err(failed("sync", &new))?;
        disk.rename(&new, &path).map_err(failed("rename", &new))?;
        disk.sync_dir(dir).map_err(failed("sync", dir))
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
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
