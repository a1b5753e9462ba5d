//! Measures, at start-up, which way of writing and syncing is fastest on this disk.
//!
//! It differs by device: on a drive with a power-loss-protected cache O_DSYNC saves a system call, on consumer
//! drives the FUA writes behind it can take longer than a flush, and some file systems have no O_DIRECT.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::RealDisk;
use crate::BLOCK;
use crate::buffer::AlignedBuf;
use crate::disk::{Access, Disk, SyncMethod, is_full};

/// Writes of each method, at most.
const WRITES: usize = 40;
/// Time for all methods, about.
const BUDGET: Duration = Duration::from_millis(80);
const FILE_BYTES: usize = 64 << 10;

/// What the self-test found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelfTest {
    /// The fastest method.
    pub method: SyncMethod,
    /// The median time of a synced 4 KiB write for each method that works.
    pub medians: Vec<(SyncMethod, Duration)>,
}

/// Tries the methods in `dir` for about 100 ms in all, on a file that is removed afterwards.
///
/// They take turns write by write, so that whatever else the disk does in that time slows all of them alike. Writing
/// through the page cache is taken only where O_DIRECT is refused: after a failed sync the cache may hold as clean what
/// the disk never got (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
///
/// On a full disk nothing can be measured: `medians` is empty, and the method is the common one of those that `existing`,
/// any file of the directory, can be opened for.
pub fn self_test(dir: &Path, existing: &Path) -> io::Result<SelfTest> {
    let path = dir.join("self-test.tmp");
    let disk = RealDisk;
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let tested = measure(&disk, &path);
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match tested {
        Err(error) if is_full(&error) => {
            let direct = disk.open(existing, Access::Write(SyncMethod::DirectFdatasync)).is_ok();
            let buffered = SyncMethod::BufferedFdatasync;
            let method = if direct { SyncMethod::DirectFdatasync } else { buffered };
            Ok(SelfTest { method, medians: Vec::new() })
        }
        tested => tested,
    }
}

fn measure(disk: &RealDisk, path: &Path) -> io::Result<SelfTest> {
    let file = disk.open(path, Access::Create(SyncMethod::BufferedFdatasync))?;
    if disk.write_at(&file, 0, &[0; FILE_BYTES])? < FILE_BYTES {
        return Err(io::ErrorKind::StorageFull.into());
    }
    disk.sync(&file)?;
    drop(file);
    let direct = [SyncMethod::DirectFdatasync, SyncMethod::DirectDsync];
    let mut found = medians(disk, path, &direct);
    if found.is_empty() {
        found = medians(disk, path, &[SyncMethod::BufferedFdatasync]);
    }
    let fastest = found.iter().min_by_key(|(_, time)| *time);
    let (method, _) =
        *fastest.ok_or_else(|| io::Error::other("no way of syncing a write works"))?;
    Ok(SelfTest { method, medians: found })
}

/// The median of each method that works.
fn medians(disk: &RealDisk, path: &Path, methods: &[SyncMethod]) -> Vec<(SyncMethod, Duration)> {
    let mut block = AlignedBuf::new(BLOCK);
    block.extend(BLOCK).fill(1);
    let mut runs: Vec<_> = methods
        .iter()
        .filter_map(|method| {
            let file = disk.open(path, Access::Write(*method)).ok()?;
            Some((*method, file, Vec::with_capacity(WRITES)))
        })
        .collect();
    let began = Instant::now();
    for i in 0..WRITES {
        runs.retain_mut(|(method, file, times)| {
            let start = Instant::now();
            let at = (i * BLOCK % FILE_BYTES) as u64;
            let written = disk.write_at(file, at, block.as_slice());
            let synced = written.is_ok_and(|bytes| bytes == BLOCK)
                && (*method == SyncMethod::DirectDsync || disk.sync(file).is_ok());
            times.push(start.elapsed());
            synced
        });
        if began.elapsed() > BUDGET {
            break;
        }
    }
    runs.into_iter()
        .map(|(method, _, mut times)| {
            times.sort_unstable();
            (method, times[times.len() / 2])
        })
        .collect()
}
