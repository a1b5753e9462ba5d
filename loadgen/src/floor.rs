//! The floor: what this machine does with the same steps and no server between them.
//!
//! Echo: 64 bytes over loopback TCP to a thread that sends them back, blocking sockets, one at a time. Sync: 4 KiB
//! written with O_DIRECT over a file that is already written (`open(2)`, as a recycled log segment is), then
//! fdatasync. A durable answer needs at least one of each.

use crate::stats::{Latencies, Percentiles};
use anyhow::Context;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ECHO_BYTES: usize = 64;
const BLOCK_BYTES: usize = 4096;
const FILE_BLOCKS: u64 = 1024;

/// Both measurements, spread over the run so that the machine's noise is shared with what they are compared to.
#[derive(Debug)]
pub struct Floor {
    echo: Latencies,
    sync: Latencies,
    stream: TcpStream,
    file: File,
    path: PathBuf,
    block: Vec<u8>,
    next_block: u64,
    direct: bool,
}

/// The floor in a report, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FloorReport {
    pub echo_p50: f64,
    pub sync_p50: f64,
    /// The sum of both.
    pub sum_p50: f64,
    pub echo: Percentiles,
    pub sync: Percentiles,
    /// Whether the file took O_DIRECT; otherwise the write goes through the page cache.
    pub direct: bool,
}

impl Floor {
    /// Starts the echo thread and writes the file into `dir`.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(format!("iris-loadgen-floor-{}.tmp", std::process::id()));
        let (file, direct) = open(&path).with_context(|| {
            format!(
                "cannot write {} for the floor: choose --floor-dir or --floor 0s",
                path.display()
            )
        })?;
        let mut floor = Self {
            echo: Latencies::default(),
            sync: Latencies::default(),
            stream: echo_thread().context("cannot start the echo of the floor")?,
            file,
            path,
            block: vec![0x5a; 2 * BLOCK_BYTES],
            next_block: 0,
            direct,
        };
        (0..FILE_BLOCKS).try_for_each(|_| floor.write_block()).context("floor file")?;
        floor.file.sync_all().context("floor file")?;
        Ok(floor)
    }

    /// Measures for about this long, half of it each, and each at least once.
    pub fn measure(&mut self, time: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut bytes = [0x11; ECHO_BYTES];
        loop {
            let start = Instant::now();
            self.stream.write_all(&bytes).context("floor echo")?;
            self.stream.read_exact(&mut bytes).context("floor echo")?;
            self.echo.record(start.elapsed().as_nanos() as u64);
            if began.elapsed() >= time / 2 {
                break;
            }
        }
        loop {
            let start = Instant::now();
            self.write_block().context("floor write")?;
            self.file.sync_data().context("floor sync")?;
            self.sync.record(start.elapsed().as_nanos() as u64);
            if began.elapsed() >= time {
                return Ok(());
            }
        }
    }

    /// The percentiles of all measurements so far, if there were any.
    pub fn report(&mut self) -> Option<FloorReport> {
        let (echo, sync) = (self.echo.percentiles()?, self.sync.percentiles()?);
        let sum_p50 = ((echo.p50 + sync.p50) * 10.0).round() / 10.0;
        let (echo_p50, sync_p50) = (echo.p50, sync.p50);
        Some(FloorReport { echo_p50, sync_p50, sum_p50, echo, sync, direct: self.direct })
    }

    fn write_block(&mut self) -> std::io::Result<()> {
        // O_DIRECT wants memory and offset at multiples of the device's block.
        let start = self.block.as_ptr().align_offset(BLOCK_BYTES);
        let block = &self.block[start..start + BLOCK_BYTES];
        self.file.write_all_at(block, self.next_block % FILE_BLOCKS * BLOCK_BYTES as u64)?;
        self.next_block += 1;
        Ok(())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // The file is scratch: a failure to remove it is no failure of the run.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> std::io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    match options.clone().custom_flags(libc::O_DIRECT).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Ok((options.open(path)?, false))
        }
        Err(error) => Err(error),
    }
}

/// The client end of an echo; the thread ends when the client end is closed.
fn echo_thread() -> std::io::Result<TcpStream> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    client.set_nodelay(true)?;
    let (mut server, _) = listener.accept()?;
    server.set_nodelay(true)?;
    std::thread::Builder::new().name("floor-echo".to_owned()).spawn(move || {
        let mut bytes = [0; ECHO_BYTES];
        while server.read_exact(&mut bytes).is_ok() && server.write_all(&bytes).is_ok() {}
    })?;
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_has_both_parts_and_leaves_no_file() {
        let dir =
            std::env::temp_dir().join(format!("iris-loadgen-floor-test-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut floor = Floor::new(&dir).unwrap();
        assert!(floor.report().is_none(), "nothing was measured yet");
        floor.measure(Duration::ZERO).unwrap();
        let report = floor.report().unwrap();
        assert!(report.echo_p50 > 0.0 && report.sync_p50 > 0.0);
        assert!((report.sum_p50 - report.echo_p50 - report.sync_p50).abs() < 0.11);
        drop(floor);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        std::fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = Floor::new(Path::new("/nonexistent/iris")).unwrap_err();
        assert!(format!("{error:#}").contains("--floor-dir"), "{error:#}");
    }
}
