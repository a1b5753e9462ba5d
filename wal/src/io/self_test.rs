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
use crate::disk::{Access, Disk, SyncMethod};

/// Writes of each method, at most.
const WRITES: usize = 24;
/// Time for each method, about.
const BUDGET: Duration = Duration::from_millis(30);
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
pub fn self_test(dir: &Path) -> io::Result<SelfTest> {
    let path = dir.join("self-test.tmp");
    let disk = RealDisk;
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(&path, Access::Create(SyncMethod::BufferedFdatasync))?;
    let filled = disk.write_at(&file, 0, &[0; FILE_BYTES]).and_then(|_| disk.sync(&file));
    drop(file);
    let methods =
        [SyncMethod::DirectFdatasync, SyncMethod::DirectDsync, SyncMethod::BufferedFdatasync];
    let medians: Vec<_> = methods
        .into_iter()
        .filter_map(|method| Some((method, median(&disk, &path, method).ok()?)))
        .collect();
    disk.remove(&path)?;
    filled?;
    let fastest = medians.iter().min_by_key(|(_, time)| *time);
    let (method, _) =
        *fastest.ok_or_else(|| io::Error::other("no way of syncing a write works"))?;
    Ok(SelfTest { method, medians })
}

fn median(disk: &RealDisk, path: &Path, method: SyncMethod) -> io::Result<Duration> {
    let file = disk.open(path, Access::Write(method))?;
    let mut block = AlignedBuf::new(BLOCK);
    block.extend(BLOCK).fill(1);
    let began = Instant::now();
    let mut times = Vec::with_capacity(WRITES);
    for i in 0..WRITES {
        let start = Instant::now();
        let at = (i * BLOCK % FILE_BYTES) as u64;
        if disk.write_at(&file, at, block.as_slice())? != BLOCK {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if method != SyncMethod::DirectDsync {
            disk.sync(&file)?;
        }
        times.push(start.elapsed());
        if began.elapsed() > BUDGET {
            break;
        }
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
