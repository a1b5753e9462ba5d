//! Segment files on a [`Disk`]: prepared ahead, recycled, written, read.
//!
//! Three parts for three threads: [`Supply`] prepares and retires segments in the background, [`Writer`] performs the
//! log's writes, [`Reader`] fetches records for delivery.
//!
//! A new file is filled with real zeros, not merely allocated: a synced write into allocated but never written
//! blocks costs a journal commit as well (three to four times the time on NVMe; ext4 and XFS convert the extent). A
//! file gets its number only after its new header is synced, by a rename whose directory is synced.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::batch::FRAME_BYTES_MAX;
use crate::buffer::AlignedBuf;
use crate::disk::{Access, Disk, SyncMethod};
use crate::footer::FooterWrite;
use crate::log::{Ready, Write};
use crate::record::{self, Record, RecordError};
use crate::recovery::{Place, Recovered, segment_name};
use crate::segment::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SegmentHeader};
use crate::{BLOCK, Pos};

/// Bytes that one write of zeros covers.
const ZEROS_BYTES: usize = 256 << 10;
/// Bytes of a file that is not needed that one call gives back.
const GIVE_BACK_BYTES: u64 = 1 << 20;
/// Bytes of a footer that one call writes.
const FOOTER_STEP_BYTES: usize = 128 << 10;

/// What failed, on which file.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} {path}: {error}")]
pub struct FileError {
    /// The operation.
    pub what: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The operating system's reason.
    pub error: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |error| FileError { what, path: path.to_path_buf(), error }
}

/// How segments are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SupplyConfig {
    /// Bytes of a segment; a multiple of [`BLOCK`].
    pub segment_bytes: usize,
    /// Bytes of a frame, at most; the same as the log's.
    pub frame_bytes_max: usize,
    /// Retired files kept for reuse, at most; further ones go by [`Supply::give_back`].
    pub spares_max: usize,
    /// Bytes to leave free on the file system: no new file is made that would eat into them.
    pub free_bytes_min: u64,
    /// How new files are written.
    pub method: SyncMethod,
}

impl Default for SupplyConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            frame_bytes_max: 1 << 20,
            // What one checkpoint of the dedup state frees at once, so that little is filled with zeros a second time.
            spares_max: 10,
            free_bytes_min: 256 << 20,
            method: SyncMethod::DirectFdatasync,
        }
    }
}

/// Why no segment was prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The disk is nearly full; tell the log, and try again when segments were retired.
    #[error("{path} has {free} bytes free, of which {keep} are to stay free")]
    LowDisk { path: PathBuf, free: u64, keep: u64 },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Prepares segments and takes back those that are no longer needed.
#[derive(Debug)]
pub struct Supply<D: Disk> {
    disk: D,
    place: Place,
    config: SupplyConfig,
    next_segment: u32,
    spares: Vec<u32>,
    next_spare: u32,
    /// Files on their way out, and how long they are still.
    leaving: VecDeque<(PathBuf, u64)>,
}

impl<D: Disk> Supply<D> {
    /// A supply for the log in `place` after recovery. Removes left-overs of a preparation that was cut off.
    pub fn open(
        disk: D,
        place: Place,
        config: SupplyConfig,
        recovered: &Recovered,
    ) -> Result<Self, FileError> {
        assert!(config.segment_bytes.is_multiple_of(BLOCK), "segments are whole blocks");
        assert!(
            (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&config.segment_bytes),
            "the format bounds segments"
        );
        assert!(
            config.frame_bytes_max <= FRAME_BYTES_MAX
                && config.frame_bytes_max + 2 * BLOCK <= config.segment_bytes,
            "a frame fits into a segment"
        );
        let next_segment = recovered.next_segment.max(1);
        let (spares, next_spare, leaving) = (Vec::new(), 0, VecDeque::new());
        let mut supply = Self { disk, place, config, next_segment, spares, next_spare, leaving };
        supply.take_stock()?;
        Ok(supply)
    }

    fn take_stock(&mut self) -> Result<(), FileError> {
        let dir = self.place.dir.clone();
        for name in self.disk.names(&dir).map_err(failed("list", &dir))? {
            let path = dir.join(&name);
            if name.starts_with("spare-") && name.ends_with(".tmp") {
                self.disk.remove(&path).map_err(failed("remove", &path))?;
            }
            let digits = name.strip_prefix("spare-").and_then(|rest| rest.strip_suffix(".seg"));
            let Some(number) = digits.and_then(|digits| digits.parse::<u32>().ok()) else {
                continue;
            };
            let file = self.disk.open(&path, Access::Read).map_err(failed("open", &path))?;
            let len = self.disk.len(&file).map_err(failed("stat", &path))?;
            if len == self.config.segment_bytes as u64 {
                self.spares.push(number);
                self.next_spare = self.next_spare.max(number.saturating_add(1));
            } else {
                self.disk.remove(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    fn spare(&self, number: u32) -> PathBuf {
        self.place.dir.join(format!("spare-{number}.seg"))
    }

    /// Retired files that wait for reuse.
    pub fn spares(&self) -> usize {
        self.spares.len()
    }

    /// Prepares the next segment: from a retired file if there is one, else from a new file. `salt` is random.
    ///
    /// Takes as long as the disk needs for a segment of zeros, so it runs beside the log, not in it.
    pub fn prepare(&mut self, salt: u64, created_hlc: u64) -> Result<Ready, PrepareError> {
        self.prepare_paced(salt, created_hlc, &mut || {})
    }

    /// As [`Self::prepare`], calling `between` after each part of the zeros is written: who waits there leaves the disk to
    /// the log's batches in between.
    pub fn prepare_paced(
        &mut self,
        salt: u64,
        created_hlc: u64,
        between: &mut dyn FnMut(),
    ) -> Result<Ready, PrepareError> {
        let dir = self.place.dir.clone();
        let (from, file) = match self.spares.pop() {
            Some(number) => {
                let path = self.spare(number);
                let access = Access::Write(self.method());
                let file = self.disk.open(&path, access).map_err(failed("open", &path))?;
                (path, file)
            }
            None => self.new_file(&dir, between)?,
        };
        let header = SegmentHeader {
            owner: self.place.owner,
            segment: self.next_segment,
            salt,
            created_hlc,
            segment_bytes: self.config.segment_bytes as u32,
            frame_bytes_max: self.config.frame_bytes_max as u32,
            incompatible: 0,
            compatible: 0,
        };
        let mut block = AlignedBuf::new(BLOCK);
        header.encode_into(block.extend(BLOCK));
        write_all(&self.disk, &file, 0, block.as_slice()).map_err(failed("write", &from))?;
        self.disk.sync(&file).map_err(failed("sync", &from))?;
        let to = dir.join(segment_name(header.segment));
        self.disk.rename(&from, &to).map_err(failed("rename", &from))?;
        self.disk.sync_dir(&dir).map_err(failed("sync", &dir))?;
        self.next_segment += 1;
        Ok(Ready {
            segment: header.segment,
            salt,
            bytes: header.segment_bytes,
            frame_bytes_max: header.frame_bytes_max,
        })
    }

    /// Files are filled without O_DSYNC and synced once: small synced writes would take far longer.
    fn method(&self) -> SyncMethod {
        match self.config.method {
            SyncMethod::BufferedFdatasync => SyncMethod::BufferedFdatasync,
            SyncMethod::DirectFdatasync | SyncMethod::DirectDsync => SyncMethod::DirectFdatasync,
        }
    }

    fn new_file(
        &mut self,
        dir: &Path,
        between: &mut dyn FnMut(),
    ) -> Result<(PathBuf, D::File), PrepareError> {
        let keep = self.config.free_bytes_min;
        let mut free = self.disk.free_bytes(dir).map_err(failed("stat", dir))?;
        if free < keep.saturating_add(self.config.segment_bytes as u64) {
            while self.give_back()? {}
            free = self.disk.free_bytes(dir).map_err(failed("stat", dir))?;
        }
        if free < keep.saturating_add(self.config.segment_bytes as u64) {
            return Err(PrepareError::LowDisk { path: dir.to_path_buf(), free, keep });
        }
        let path = dir.join(format!("spare-{}.tmp", self.next_spare));
        self.next_spare += 1;
        let created = self.disk.open(&path, Access::Create(self.method()));
        let file = created.map_err(failed("create", &path))?;
        let mut zeros = AlignedBuf::new(ZEROS_BYTES);
        zeros.extend(ZEROS_BYTES).fill(0);
        for at in (0..self.config.segment_bytes).step_by(ZEROS_BYTES) {
            let len = ZEROS_BYTES.min(self.config.segment_bytes - at);
            let written = write_all(&self.disk, &file, at as u64, &zeros.as_slice()[..len]);
            if let Err(error) = written {
                drop(file);
                // The space it took is needed more than ever; if even this fails, the next start removes it.
                let _ = self.disk.remove(&path);
                return Err(failed("fill", &path)(error).into());
            }
            between();
        }
        Ok((path, file))
    }

    /// Takes a segment out of the log, and syncs that. The file is used again, or goes by [`Self::give_back`]. Tell the log
    /// by `dropped` afterwards.
    pub fn retire(&mut self, segment: u32) -> Result<(), FileError> {
        let path = self.place.dir.join(segment_name(segment));
        let file = self.disk.open(&path, Access::Read).map_err(failed("open", &path))?;
        let len = self.disk.len(&file).map_err(failed("stat", &path))?;
        drop(file);
        let number = self.next_spare;
        self.next_spare += 1;
        if len == self.config.segment_bytes as u64 {
            let spare = self.spare(number);
            self.disk.rename(&path, &spare).map_err(failed("rename", &path))?;
            self.spares.push(number);
        } else {
            self.leave(&path, number, len)?;
        }
        self.disk.sync_dir(&self.place.dir).map_err(failed("sync", &self.place.dir))
    }

    /// A file goes: under a name that a start removes.
    fn leave(&mut self, path: &Path, number: u32, len: u64) -> Result<(), FileError> {
        let leaving = self.place.dir.join(format!("spare-{number}.tmp"));
        self.disk.rename(path, &leaving).map_err(failed("rename", path))?;
        self.leaving.push_back((leaving, len));
        Ok(())
    }

    /// Gives back a little of what files take that are not needed. Whether there is more: then call it again after a pause.
    ///
    /// A file system that frees a whole segment at once keeps the syncs of all other files waiting meanwhile: ext4 with
    /// `discard` 40 to 300 ms for 64 MiB. In parts of [`GIVE_BACK_BYTES`], 20 ms apart, they hardly notice.
    pub fn give_back(&mut self) -> Result<bool, FileError> {
        let bytes = self.config.segment_bytes as u64;
        if self.leaving.is_empty() && self.spares.len() > self.config.spares_max {
            let number = self.spares.remove(0);
            self.leave(&self.spare(number), number, bytes)?;
        }
        let Some((path, len)) = self.leaving.front_mut() else { return Ok(false) };
        if *len > GIVE_BACK_BYTES {
            *len -= GIVE_BACK_BYTES;
            self.disk.cut(path, *len).map_err(failed("cut", path))?;
            return Ok(true);
        }
        self.disk.remove(path).map_err(failed("remove", path))?;
        self.leaving.pop_front();
        Ok(!self.leaving.is_empty() || self.spares.len() > self.config.spares_max)
    }
}

/// One write; a short one is an error (I6).
fn write_all<D: Disk>(disk: &D, file: &D::File, at: u64, bytes: &[u8]) -> io::Result<()> {
    let written = disk.write_at(file, at, bytes)?;
    if written == bytes.len() {
        return Ok(());
    }
    let said = format!("short write: {written} of {} bytes at {at}", bytes.len());
    Err(io::Error::new(ErrorKind::WriteZero, said))
}

/// A write or a sync of the log failed. What is on disk is not known; the node stops and recovers by reading (I6).
#[derive(Debug, thiserror::Error)]
#[error("the log cannot be trusted any more: {0}; the node must stop")]
pub struct FatalError(#[from] FileError);

/// Performs a log's writes, one after the other.
#[derive(Debug)]
pub struct Writer<D: Disk> {
    disk: D,
    dir: PathBuf,
    method: SyncMethod,
    batches: Option<(u32, D::File)>,
    footer: Option<(u32, D::File)>,
}

impl<D: Disk> Writer<D> {
    /// A writer for the segments in `dir`.
    pub fn new(disk: D, dir: PathBuf, method: SyncMethod) -> Self {
        Self { disk, dir, method, batches: None, footer: None }
    }

    /// Writes a batch and syncs it. After an error the caller stops the node; it never tries again.
    pub fn perform(&mut self, write: &Write) -> Result<(), FatalError> {
        let path = self.dir.join(segment_name(write.segment()));
        let (_, file) = match self.batches.take().filter(|(open, _)| *open == write.segment()) {
            Some(open) => self.batches.insert(open),
            None => {
                let access = Access::Write(self.method);
                let file = self.disk.open(&path, access).map_err(failed("open", &path))?;
                self.batches.insert((write.segment(), file))
            }
        };
        write_all(&self.disk, file, write.offset(), write.bytes())
            .map_err(failed("write to", &path))?;
        if self.method != SyncMethod::DirectDsync {
            self.disk.sync(file).map_err(failed("sync", &path))?;
        }
        Ok(())
    }

    /// Writes a part of a footer, and syncs after the last part; `true` when it is all done. Each call takes about as
    /// long as a large batch, so calls may alternate with batches.
    pub fn perform_footer(&mut self, footer: &mut FooterWrite) -> Result<bool, FatalError> {
        let path = self.dir.join(segment_name(footer.segment()));
        let (_, file) = match self.footer.take().filter(|(open, _)| *open == footer.segment()) {
            Some(open) => self.footer.insert(open),
            None => {
                // Synced once at the end: O_DSYNC would only slow it down.
                let method = match self.method {
                    SyncMethod::BufferedFdatasync => SyncMethod::BufferedFdatasync,
                    SyncMethod::DirectFdatasync | SyncMethod::DirectDsync => {
                        SyncMethod::DirectFdatasync
                    }
                };
                let opened = self.disk.open(&path, Access::Write(method));
                self.footer.insert((footer.segment(), opened.map_err(failed("open", &path))?))
            }
        };
        let mut bytes = 0;
        while let Some((at, chunk)) = footer.next_chunk() {
            write_all(&self.disk, file, at, chunk).map_err(failed("write the footer of", &path))?;
            bytes += chunk.len();
            footer.chunk_written();
            if bytes >= FOOTER_STEP_BYTES {
                return Ok(false);
            }
        }
        self.disk.sync(file).map_err(failed("sync the footer of", &path))?;
        self.footer = None;
        Ok(true)
    }
}

/// Why a record could not be read. It stays in the log as it is (I3).
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The bytes are not the record that was written.
    #[error("segment {}, byte {}: {error}", pos.segment, pos.offset)]
    Record { pos: Pos, error: RecordError },
}

/// Reads records for delivery, through the page cache.
#[derive(Debug)]
pub struct Reader<D: Disk> {
    disk: D,
    dir: PathBuf,
    /// Open segments, used last at the end.
    files: Vec<(u32, D::File)>,
    buf: Vec<u8>,
}

/// Segments that a reader holds open, at most.
const FILES_MAX: usize = 32;
/// Records closer together than this many bytes are fetched by one read.
const NEAR_BYTES: usize = 16 << 10;
/// Bytes of one read, at most, unless a single record is longer.
const READ_BYTES_MAX: usize = 1 << 20;

impl<D: Disk> Reader<D> {
    /// A reader for the segments in `dir`.
    pub fn new(disk: D, dir: PathBuf) -> Self {
        Self { disk, dir, files: Vec::new(), buf: Vec::new() }
    }

    /// Reads one record, checksum and all.
    pub fn read_record(&mut self, pos: Pos, len: u32) -> Result<Record<'_>, ReadError> {
        self.fetch(pos.segment, pos.offset as usize, len as usize)?;
        whole(pos, &self.buf[..len as usize])
    }

    /// Reads several records with as few reads as their places allow. `each` gets the index in `places` and the
    /// record, in the order of the log.
    pub fn read_records(
        &mut self,
        places: &[(Pos, u32)],
        each: &mut dyn FnMut(usize, Result<Record<'_>, ReadError>),
    ) {
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_unstable_by_key(|i| places[*i].0);
        let mut rest = &order[..];
        while let Some(first) = rest.first() {
            let start = places[*first].0;
            let mut end = start.offset as usize;
            let together = rest.iter().take_while(|i| {
                let (pos, len) = places[**i];
                let from = pos.offset as usize;
                let to = end.max(from + len as usize);
                let near = pos.segment == start.segment
                    && from <= end + NEAR_BYTES
                    && (end == start.offset as usize
                        || to - start.offset as usize <= READ_BYTES_MAX);
                if near {
                    end = to;
                }
                near
            });
            let (group, further) = rest.split_at(together.count());
            rest = further;
            let skip = start.offset as usize;
            let one_by_one = self.fetch(start.segment, skip, end - skip).is_err();
            for i in group {
                let (pos, len) = places[*i];
                if one_by_one {
                    each(*i, self.read_record(pos, len));
                } else {
                    let from = pos.offset as usize - skip;
                    each(*i, whole(pos, &self.buf[from..from + len as usize]));
                }
            }
        }
    }

    /// Forgets a segment; call it before the segment is retired, for its file is used again under another number.
    pub fn forget(&mut self, segment: u32) {
        self.files.retain(|(open, _)| *open != segment);
    }

    fn fetch(&mut self, segment: u32, at: usize, len: usize) -> Result<(), FileError> {
        let path = self.dir.join(segment_name(segment));
        let open = self.files.iter().position(|(open, _)| *open == segment);
        let entry = match open {
            Some(i) => self.files.remove(i),
            None => {
                let file = self.disk.open(&path, Access::Read).map_err(failed("open", &path))?;
                (segment, file)
            }
        };
        if self.files.len() == FILES_MAX {
            self.files.remove(0);
        }
        self.files.push(entry);
        let (_, file) = &self.files[self.files.len() - 1];
        if self.buf.len() < len {
            self.buf.resize(len, 0);
        }
        crate::scan::read_full(&self.disk, file, at, &mut self.buf[..len])
            .map_err(failed("read", &path))
    }
}

fn whole(pos: Pos, bytes: &[u8]) -> Result<Record<'_>, ReadError> {
    match record::decode(bytes) {
        Ok((record, len)) if len == bytes.len() => Ok(record),
        Ok(_) => {
            let error = RecordError::Malformed("another record stands there");
            Err(ReadError::Record { pos, error })
        }
        Err(error) => Err(ReadError::Record { pos, error }),
    }
}
