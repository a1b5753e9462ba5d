//! A disk in memory that keeps *live* bytes (what a read gives) and *durable* bytes (what a crash leaves) apart.
//!
//! [`MemDisk::crash`] lets every write since the last sync happen, not happen, or happen in part, sector by sector,
//! and keeps some first part of the renames since the last directory sync. Errors are injected by count. The model
//! follows redb's `crash_consistency` tests and TigerBeetle's storage fault model.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Access, Disk, SyncMethod};

/// The unit that a disk writes whole or not at all, in bytes.
pub const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    /// From, to: one change, for a rename is kept or lost whole.
    Rename(PathBuf, PathBuf),
}

#[derive(Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    syncs: u64,
    fail_sync: Option<ErrorKind>,
    fail_write: Option<ErrorKind>,
    write_at_most: Option<usize>,
    unreadable: Vec<(PathBuf, u64)>,
    fail_reads: bool,
    bytes_read: u64,
    misdirect_write: Option<(PathBuf, u64)>,
    used_up: u64,
    operations_left: Option<u64>,
}

impl State {
    fn end_faults(&mut self) {
        self.fail_sync = None;
        self.fail_write = None;
        self.misdirect_write = None;
        self.write_at_most = None;
        self.operations_left = None;
    }

    /// Counts an operation that changes the disk; fails once the power is off.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// What a disk held at some time: see [`MemDisk::image`].
#[derive(Clone, Debug, Default)]
pub struct Image {
    files: Vec<Vec<u8>>,
    names: BTreeMap<PathBuf, usize>,
}

/// A disk in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

/// An open file of a [`MemDisk`].
#[derive(Debug)]
pub struct MemFile {
    inode: usize,
    path: PathBuf,
    access: Access,
}

impl MemDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loses power. `choose(n)` gives a number below `n` and decides what survives of what was not synced.
    pub fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) {
        let mut state = self.state();
        let kept = choose(state.unsynced_names.len() + 1);
        let changes: Vec<_> = state.unsynced_names.drain(..).take(kept).collect();
        changes.into_iter().for_each(|change| apply(&mut state.durable_names, change));
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            for (at, bytes) in std::mem::take(&mut inode.unsynced) {
                let fate = choose(3);
                for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                    if fate == 1 || (fate == 2 && choose(2) == 1) {
                        put(&mut inode.durable, at + i * SECTOR, sector);
                    }
                }
            }
            inode.live = inode.durable.clone();
        }
        state.end_faults();
    }

    /// Stops the process only: everything written stays, nothing more is synced.
    pub fn kill(&self) {
        self.state().end_faults();
    }

    /// Turns the power off after so many further writes, syncs, renames and removals: all later ones fail.
    pub fn power_off_after(&self, operations: u64) {
        self.state().operations_left = Some(operations);
    }

    /// The next sync fails.
    pub fn fail_next_sync(&self, kind: ErrorKind) {
        self.state().fail_sync = Some(kind);
    }

    /// The next write fails.
    pub fn fail_next_write(&self, kind: ErrorKind) {
        self.state().fail_write = Some(kind);
    }

    /// The next write writes at most so many bytes.
    pub fn shorten_next_write(&self, bytes: usize) {
        self.state().write_at_most = Some(bytes);
    }

    /// Reads that touch this block of 4096 bytes fail until it is written anew: a drive gives it another place then.
    pub fn make_unreadable(&self, path: &Path, block: u64) {
        self.state().unreadable.push((path.to_path_buf(), block));
    }

    /// All blocks can be read, also those that could not.
    pub fn make_readable(&self) {
        self.state().unreadable.clear();
    }

    /// Bytes that were read so far.
    pub fn bytes_read(&self) -> u64 {
        self.state().bytes_read
    }

    /// All reads fail from now on, or no longer.
    pub fn fail_reads(&self, fail: bool) {
        self.state().fail_reads = fail;
    }

    /// The next write goes to this place instead of its own, and is reported as done. What it would make longer stays as
    /// long as it is.
    pub fn misdirect_next_write(&self, path: &Path, at: u64) {
        self.state().misdirect_write = Some((path.to_path_buf(), at));
    }

    /// Flips a bit of what is in a file, live and durable alike.
    pub fn flip_bit(&self, path: &Path, byte: usize, bit: u8) {
        let mut state = self.state();
        let inode = state.names[path];
        let inode = &mut state.inodes[inode];
        for bytes in [&mut inode.live, &mut inode.durable] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1 << bit;
            }
        }
    }

    /// The files and their lengths, by name.
    pub fn files(&self) -> Vec<(PathBuf, usize)> {
        let state = self.state();
        let len = |inode: &usize| state.inodes[*inode].live.len();
        state.names.iter().map(|(path, inode)| (path.clone(), len(inode))).collect()
    }

    /// What a crash would leave now at least: an image to come back to.
    pub fn image(&self) -> Image {
        let state = self.state();
        let names: Vec<_> = state.durable_names.iter().collect();
        Image {
            files: names.iter().map(|(_, inode)| state.inodes[**inode].durable.clone()).collect(),
            names: names.iter().enumerate().map(|(i, (path, _))| ((*path).clone(), i)).collect(),
        }
    }

    /// Becomes what an image holds; an empty one makes the disk empty. Nobody has a file of it open.
    pub fn restore(&self, image: &Image) {
        let mut state = self.state();
        let inode = |bytes: &Vec<u8>| Inode {
            live: bytes.clone(),
            durable: bytes.clone(),
            unsynced: Vec::new(),
        };
        state.inodes = image.files.iter().map(inode).collect();
        (state.names, state.durable_names) = (image.names.clone(), image.names.clone());
        state.unsynced_names.clear();
        state.unreadable.clear();
        state.end_faults();
    }

    /// Leaves so many bytes free.
    pub fn leave_free(&self, bytes: u64) {
        self.state().used_up = u64::MAX - bytes;
    }

    /// How often something was synced.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// A file's bytes, to be damaged in place; live and durable alike.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut [u8])) {
        let mut state = self.state();
        let inode = state.names[path];
        let inode = &mut state.inodes[inode];
        change(&mut inode.live);
        inode.durable = inode.live.clone();
        inode.unsynced.clear();
    }

    /// A copy of a file's bytes.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[path]].live.clone()
    }

    /// Puts a file there, synced.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.inodes.len();
        let (live, durable) = (bytes.to_vec(), bytes.to_vec());
        state.inodes.push(Inode { live, durable, unsynced: Vec::new() });
        state.names.insert(path.to_path_buf(), inode);
        state.durable_names.insert(path.to_path_buf(), inode);
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() == at {
        return file.extend_from_slice(bytes);
    }
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path, inode);
        }
        NameChange::Unlink(path) => {
            names.remove(&path);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(&from) {
                names.insert(to, inode);
            }
        }
    }
}

fn change_name(state: &mut State, change: NameChange) {
    apply(&mut state.names, change.clone());
    state.unsynced_names.push(change);
}

impl Disk for MemDisk {
    type File = MemFile;

    fn open(&self, path: &Path, access: Access) -> io::Result<MemFile> {
        let mut state = self.state();
        let found = state.names.get(path).copied();
        let inode = match (found, access) {
            (Some(_), Access::Create(_)) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(inode), Access::Read | Access::Write(_)) => inode,
            (None, Access::Create(_)) => {
                state.operate()?;
                let inode = state.inodes.len();
                state.inodes.push(Inode::default());
                change_name(&mut state, NameChange::Link(path.to_path_buf(), inode));
                inode
            }
            (None, Access::Read | Access::Write(_)) => return Err(ErrorKind::NotFound.into()),
        };
        Ok(MemFile { inode, path: path.to_path_buf(), access })
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        let names = inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        Ok(names.collect())
    }

    fn len(&self, file: &MemFile) -> io::Result<u64> {
        Ok(self.state().inodes[file.inode].live.len() as u64)
    }

    fn read_at(&self, file: &MemFile, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        if state.fail_reads {
            return Err(io::Error::from_raw_os_error(5));
        }
        let (first, last) = (at / 4096, (at + into.len() as u64).saturating_sub(1) / 4096);
        let hit =
            |(path, block): &(PathBuf, u64)| *path == file.path && (first..=last).contains(block);
        if state.unreadable.iter().any(hit) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let live = &state.inodes[file.inode].live;
        let from = (at as usize).min(live.len());
        let len = into.len().min(live.len() - from);
        into[..len].copy_from_slice(&live[from..from + len]);
        state.bytes_read += len as u64;
        Ok(len)
    }

    fn write_at(&self, file: &MemFile, at: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        state.operate()?;
        if let Some(kind) = state.fail_write.take() {
            return Err(kind.into());
        }
        let len = state.write_at_most.take().unwrap_or(usize::MAX).min(bytes.len());
        if let Some((path, at)) = state.misdirect_write.take() {
            let inode = state.names.get(&path).copied();
            let at = at as usize;
            if let Some(inode) = inode.map(|inode| &mut state.inodes[inode]) {
                for file in [&mut inode.live, &mut inode.durable] {
                    let room = file.len().saturating_sub(at).min(len);
                    if room > 0 {
                        put(file, at, &bytes[..room]);
                    }
                }
            }
            return Ok(len);
        }
        let dsync = match file.access {
            Access::Read => return Err(ErrorKind::PermissionDenied.into()),
            Access::Write(method) | Access::Create(method) => method == SyncMethod::DirectDsync,
        };
        let inode = &mut state.inodes[file.inode];
        put(&mut inode.live, at as usize, &bytes[..len]);
        inode.unsynced.push((at as usize, bytes[..len].to_vec()));
        let written = at.div_ceil(4096)..(at + len as u64) / 4096;
        state.unreadable.retain(|(path, block)| *path != file.path || !written.contains(block));
        drop(state);
        if dsync {
            self.sync(file)?;
        }
        Ok(len)
    }

    fn sync(&self, file: &MemFile) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.syncs += 1;
        if let Some(kind) = state.fail_sync.take() {
            return Err(kind.into());
        }
        let inode = &mut state.inodes[file.inode];
        for (at, bytes) in std::mem::take(&mut inode.unsynced) {
            put(&mut inode.durable, at, &bytes);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        if !state.names.contains_key(from) {
            return Err(ErrorKind::NotFound.into());
        }
        change_name(&mut state, NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    /// As if the new length were durable at once.
    fn cut(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        let inode = *state.names.get(path).ok_or(ErrorKind::NotFound)?;
        let inode = &mut state.inodes[inode];
        inode.unsynced.clear();
        inode.live.truncate(len as usize);
        inode.durable.truncate(len as usize);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        if !state.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        change_name(&mut state, NameChange::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn make_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(u64::MAX - self.state().used_up)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.syncs += 1;
        let in_dir = |change: &NameChange| match change {
            NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(_, path) => {
                path.parent() == Some(dir)
            }
        };
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.unsynced_names).into_iter().partition(in_dir);
        state.unsynced_names = elsewhere;
        here.into_iter().for_each(|change| apply(&mut state.durable_names, change));
        Ok(())
    }
}
