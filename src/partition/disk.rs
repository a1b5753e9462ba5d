//! The threads that wait for the disk, so that the partition never does.
//!
//! - The *writer* writes and syncs the log's batches, one at a time. How long it takes decides how much the next batch
//!   gathers.
//! - The *keeper* does what may take long: preparing segments, writing footers, retiring segments.
//! - The *reader* fetches records that are no longer in memory, in the order they were asked for.
//!
//! A failed write or sync is never repeated: the partition is told nothing more, so nothing more is acknowledged, and the
//! node stops (I6).

use super::SLEEP_MAX;
use super::doubles::{self, Compared};
use super::effects::{Delivered, put_message};
use crate::queue::Queue;
use crate::rt::{self, Waker};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use iris_proto::core::{Delivery, Double, LiveEntry};
use iris_proto::replica::ScanFrom;
use iris_wal::disk::SyncMethod;
use iris_wal::feed::{Fed, Feed};
use iris_wal::io::{RealDisk, random_salt};
use iris_wal::recovery::Place;
use iris_wal::store::{PrepareError, Reader, Supply, SupplyConfig, Writer};
use iris_wal::{FooterWrite, Pos, Ready, Recovered, Write, views};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Deliveries read for one answer.
const READS_PER_ANSWER: usize = 256;
/// Pauses between the writes that nobody waits for.
const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// Between parts of files that are given back.
const GIVE_BACK_EVERY: Duration = Duration::from_millis(20);

/// Where a partition's log lies and how it is written.
#[derive(Clone, Debug)]
pub struct PartitionStore {
    pub place: Place,
    pub method: SyncMethod,
    pub supply: SupplyConfig,
    /// Where the partition is pinned, and the writer with it: they take turns, and a wake across CPUs is what a
    /// lock-step SEND would pay most for.
    pub cpu: Option<usize>,
}

/// Why a partition cannot go on.
#[derive(Debug)]
pub enum Failed {
    /// The whole story, for the log and the exit.
    Because(String),
    /// This life's numbers were given out before: the node must start again with an incarnation above this one.
    Reincarnate(u32),
}

/// A delivery to be read.
pub(super) type Wanted = Delivery;
/// Entries of one record to be copied.
pub(super) type CopyWanted = Vec<LiveEntry>;

/// Deliveries that were read: link frames, ready to be passed on.
pub(super) struct Records {
    pub frames: Vec<u8>,
    /// Each delivery; `None`: it could not be read.
    pub deliveries: Vec<(Delivery, Option<FrameRead>)>,
}

/// Where a delivery's frame ends, and what the core wants to hear of it.
pub(super) struct FrameRead {
    pub end: usize,
    pub delivered: Option<Delivered>,
}

/// Records that were read to be copied, encoded; `None`: it could not be read.
pub(super) type CopyRecords = Vec<(CopyWanted, Option<Vec<u8>>)>;

/// What the threads report.
pub(super) enum Done {
    Written {
        write: Write,
        sync_ns: u64,
    },
    Prepared(Ready),
    /// No segment, and why: the disk is nearly full.
    NotPrepared(String),
    FooterWritten(FooterWrite),
    Dropped(u32),
    /// Free bytes on the disk, if it said.
    Space(Option<u64>),
    Read(Records),
    CopyRead(CopyRecords),
    Compared(Compared),
    Forgotten(u32),
    Scanned {
        from: ScanFrom,
        fed: Fed,
    },
}

enum KeeperJob {
    Prepare { created_hlc: u64 },
    Footer(FooterWrite),
    Retire(u32),
    Space,
}

enum ReaderJob {
    Deliver(Vec<Wanted>),
    Copy(Vec<CopyWanted>),
    Compare(Vec<Double>),
    Forget(u32),
    Scan { from: ScanFrom, durable: u64, bytes_max: usize },
}

/// The partition's end of its threads. They end when it is dropped.
pub(super) struct Disk {
    writer: Queue<Write>,
    writer_waker: Waker,
    keeper: Sender<KeeperJob>,
    reader: Sender<ReaderJob>,
    done: Queue<Done>,
    hurry: Arc<AtomicBool>,
    writes_under_way: usize,
    /// The keeper was asked for the free space and has not answered.
    asks_space: bool,
}

impl Disk {
    /// Starts the threads after recovery.
    pub(super) fn start(
        name: &str,
        store: PartitionStore,
        recovered: &Recovered,
        waker: &Waker,
        failed: &Sender<Failed>,
    ) -> Result<Self, Failed> {
        let supply = Supply::open(RealDisk, store.place.clone(), store.supply, recovered)
            .map_err(|error| Failed::Because(error.to_string()))?;
        let done = Queue::unbounded();
        let report = Report { done: done.clone(), waker: waker.clone(), failed: failed.clone() };
        let writer = Queue::unbounded();
        let writes = writer.clone();
        let (keeper, keeper_jobs) = unbounded();
        let (reader, reader_jobs) = unbounded();
        let dir = store.place.dir.clone();
        let log_writer = Writer::new(RealDisk, dir.clone(), store.method);
        let footer_writer = Writer::new(RealDisk, dir.clone(), store.method);
        let log_reader = Reader::new(RealDisk, dir.clone());
        let feed = Feed::new(RealDisk, dir.clone());
        let spawn = |role: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(format!("{name}-{role}")).spawn(body).map_err(
                |error| Failed::Because(format!("failed to start thread {name}-{role}: {error}")),
            )
        };
        let to = report.clone();
        let writer_waker = Waker::of_parking();
        let waker = writer_waker.clone();
        let cpu = store.cpu;
        let body = move || {
            if let Some(id) = cpu {
                core_affinity::set_for_current(core_affinity::CoreId { id });
            }
            rt::become_batch_class();
            write_loop(log_writer, &writes, &waker, &to);
        };
        spawn("write", Box::new(body))?;
        let to = report.clone();
        let hurry = Arc::new(AtomicBool::new(true));
        let hurried = Arc::clone(&hurry);
        let body = move || keep_loop(supply, footer_writer, &dir, &keeper_jobs, &hurried, &to);
        spawn("keep", Box::new(body))?;
        spawn("read", Box::new(move || read_loop(log_reader, feed, &reader_jobs, &report)))?;
        let (writes_under_way, asks_space) = (0, false);
        Ok(Self { writer, writer_waker, keeper, reader, done, hurry, writes_under_way, asks_space })
    }

    pub(super) fn done(&mut self) -> Option<Done> {
        let done = self.done.pop()?;
        match &done {
            Done::Written { .. } => self.writes_under_way -= 1,
            Done::Space(_) => self.asks_space = false,
            _ => {}
        }
        Some(done)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.done.is_empty()
    }

    pub(super) fn writes_under_way(&self) -> usize {
        self.writes_under_way
    }

    // A thread that is gone has reported its failure; the node is stopping.

    pub(super) fn write(&mut self, write: Write) {
        self.writes_under_way += 1;
        let _ = self.writer.push(write);
        self.writer_waker.wake();
    }

    pub(super) fn prepare(&self, created_hlc: u64) {
        let _ = self.keeper.send(KeeperJob::Prepare { created_hlc });
    }

    /// Whether the log waits for the keeper, who otherwise leaves the disk to its batches most of the time.
    pub(super) fn hurry(&self, on: bool) {
        self.hurry.store(on, Ordering::Relaxed);
    }

    pub(super) fn write_footer(&self, footer: FooterWrite) {
        let _ = self.keeper.send(KeeperJob::Footer(footer));
    }

    /// Has the reader let go of a segment; [`Self::retire`] comes after [`Done::Forgotten`].
    pub(super) fn forget(&self, segment: u32) {
        let _ = self.reader.send(ReaderJob::Forget(segment));
    }

    pub(super) fn retire(&self, segment: u32) {
        let _ = self.keeper.send(KeeperJob::Retire(segment));
    }

    /// Asks once, however long a disk that hangs leaves it unanswered.
    pub(super) fn ask_space(&mut self) {
        if !std::mem::replace(&mut self.asks_space, true) {
            let _ = self.keeper.send(KeeperJob::Space);
        }
    }

    pub(super) fn read(&self, wanted: Vec<Wanted>) {
        if !wanted.is_empty() {
            let _ = self.reader.send(ReaderJob::Deliver(wanted));
        }
    }

    /// Reads batches of a segment up to `durable` for the mirror.
    pub(super) fn scan(&self, from: ScanFrom, durable: u64, bytes_max: usize) {
        let _ = self.reader.send(ReaderJob::Scan { from, durable, bytes_max });
    }

    pub(super) fn read_copies(&self, wanted: Vec<CopyWanted>) {
        let _ = self.reader.send(ReaderJob::Copy(wanted));
    }

    pub(super) fn compare(&self, doubles: Vec<Double>) {
        let _ = self.reader.send(ReaderJob::Compare(doubles));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.writer.close();
        self.writer_waker.wake();
    }
}

#[derive(Clone)]
struct Report {
    done: Queue<Done>,
    waker: Waker,
    failed: Sender<Failed>,
}

impl Report {
    fn done(&self, done: Done) {
        let _ = self.done.push(done);
        self.waker.wake();
    }

    fn failed(&self, error: &dyn std::fmt::Display) {
        let _ = self.failed.send(Failed::Because(error.to_string()));
    }
}

/// Sleeps like the threads it works for: a channel's own wait spins and yields first, which takes the CPU
/// from them on a small machine.
fn write_loop(mut writer: Writer<RealDisk>, writes: &Queue<Write>, waker: &Waker, report: &Report) {
    loop {
        let Some(write) = writes.pop() else {
            if writes.is_closed() {
                return;
            }
            waker.park(SLEEP_MAX, || writes.is_empty() && !writes.is_closed());
            continue;
        };
        let started = Instant::now();
        if let Err(error) = writer.perform(&write) {
            return report.failed(&error);
        }
        let sync_ns = started.elapsed().as_nanos() as u64;
        report.done(Done::Written { write, sync_ns });
    }
}

fn keep_loop(
    mut supply: Supply<RealDisk>,
    mut footers: Writer<RealDisk>,
    dir: &std::path::Path,
    jobs: &Receiver<KeeperJob>,
    hurry: &Arc<AtomicBool>,
    report: &Report,
) {
    // A life that ended early may have left more spares than are kept.
    let mut gives_back = true;
    loop {
        let job = match gives_back {
            true => jobs.recv_timeout(GIVE_BACK_EVERY),
            false => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let job = match job {
            Ok(job) => job,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => match supply.give_back() {
                Ok(more) => {
                    gives_back = more;
                    continue;
                }
                Err(error) => return report.failed(&error),
            },
        };
        match job {
            KeeperJob::Prepare { created_hlc } => {
                let mut pace = Pace::new(hurry);
                let prepared = random_salt()
                    .map_err(|error| format!("failed to read random bytes: {error}"))
                    .map(|salt| supply.prepare_paced(salt, created_hlc, &mut || pace.wait()));
                match prepared {
                    Ok(Ok(ready)) => report.done(Done::Prepared(ready)),
                    Ok(Err(error)) if is_full(&error) => {
                        report.done(Done::NotPrepared(error.to_string()));
                    }
                    Ok(Err(error)) => return report.failed(&error),
                    Err(error) => return report.failed(&error),
                }
            }
            KeeperJob::Footer(mut footer) => {
                let mut pace = Pace::new(hurry);
                loop {
                    match footers.perform_footer(&mut footer) {
                        Ok(false) => pace.wait(),
                        Ok(true) => break report.done(Done::FooterWritten(footer)),
                        Err(error) => return report.failed(&error),
                    }
                }
            }
            KeeperJob::Retire(segment) => match supply.retire(segment) {
                Ok(()) => {
                    gives_back = true;
                    report.done(Done::Dropped(segment));
                }
                Err(error) => return report.failed(&error),
            },
            KeeperJob::Space => {
                let free = free_bytes(dir);
                if let Err(error) = &free {
                    tracing::warn!(%error, "failed to ask for free disk space");
                }
                report.done(Done::Space(free.ok()));
            }
        }
    }
}

/// Leaves the disk to others for as long as the last write took, and a little: a batch that is being acknowledged would
/// otherwise wait behind megabytes that nobody waits for.
struct Pace {
    since: Instant,
    hurry: Arc<AtomicBool>,
}

impl Pace {
    fn new(hurry: &Arc<AtomicBool>) -> Self {
        Self { since: Instant::now(), hurry: Arc::clone(hurry) }
    }

    fn wait(&mut self) {
        if !self.hurry.load(Ordering::Relaxed) {
            std::thread::sleep(self.since.elapsed().clamp(PAUSE_MIN, PAUSE_MAX));
        }
        self.since = Instant::now();
    }
}

fn is_full(error: &PrepareError) -> bool {
    match error {
        PrepareError::LowDisk { .. } => true,
        // A short write of zeros is how a disk fills up.
        PrepareError::File(error) => matches!(
            error.error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero
        ),
    }
}

fn free_bytes(dir: &std::path::Path) -> io::Result<u64> {
    use iris_wal::disk::Disk as _;
    RealDisk.free_bytes(dir)
}

fn read_loop(
    mut reader: Reader<RealDisk>,
    mut feed: Feed<RealDisk>,
    jobs: &Receiver<ReaderJob>,
    report: &Report,
) {
    for job in jobs {
        match job {
            ReaderJob::Deliver(wanted) => {
                for some in wanted.chunks(READS_PER_ANSWER) {
                    report.done(Done::Read(read_deliveries(&mut reader, some)));
                }
            }
            ReaderJob::Copy(wanted) => {
                report.done(Done::CopyRead(read_copies(&mut reader, wanted)));
            }
            ReaderJob::Compare(doubles) => {
                report.done(Done::Compared(doubles::compare(&mut reader, &doubles)));
            }
            ReaderJob::Forget(segment) => {
                reader.forget(segment);
                report.done(Done::Forgotten(segment));
            }
            ReaderJob::Scan { from, durable, bytes_max } => {
                let pos = Pos { segment: from.segment, offset: from.offset };
                // What cannot be read the mirror does not get; its END does not claim it either.
                let fed = feed.read(pos, durable, bytes_max).unwrap_or_else(|error| {
                    // One that was reclaimed since has nothing to give: its live records were copied.
                    if error.kind() != io::ErrorKind::NotFound {
                        tracing::error!(segment = from.segment, %error, "cannot be read for the mirror");
                    }
                    Fed::default()
                });
                report.done(Done::Scanned { from, fed });
            }
        }
    }
}

/// Frames stand in the order of the log, which is not always that of the deliveries: each delivery names its own.
fn read_deliveries(reader: &mut Reader<RealDisk>, wanted: &[Wanted]) -> Records {
    let places: Vec<(Pos, u32)> = wanted.iter().map(|d| (views::wal_pos(d.pos), d.len)).collect();
    let mut frames: Vec<Vec<u8>> = Vec::new();
    frames.resize_with(wanted.len(), Vec::new);
    let mut delivered: Vec<Option<Option<Delivered>>> = Vec::new();
    delivered.resize_with(wanted.len(), || None);
    reader.read_records(&places, &mut |index, result| match result {
        Ok(record) => delivered[index] = put_message(&mut frames[index], &wanted[index], &record),
        Err(error) => tracing::error!(%error, "a message cannot be read and stays in its inbox"),
    });
    let mut records = Records { frames: Vec::new(), deliveries: Vec::with_capacity(wanted.len()) };
    for ((delivery, frame), told) in wanted.iter().zip(frames).zip(delivered) {
        records.frames.extend_from_slice(&frame);
        let end = records.frames.len();
        records.deliveries.push((*delivery, told.map(|delivered| FrameRead { end, delivered })));
    }
    records
}

fn read_copies(reader: &mut Reader<RealDisk>, wanted: Vec<CopyWanted>) -> CopyRecords {
    let places: Vec<(Pos, u32)> =
        wanted.iter().map(|entries| (views::wal_pos(entries[0].pos), entries[0].len)).collect();
    let mut records: CopyRecords = wanted.into_iter().map(|entries| (entries, None)).collect();
    reader.read_records(&places, &mut |index, result| match result {
        // A whole record of another message is worse than none.
        Ok(record) if views::proto_dot(record.head.dot()) == records[index].0[0].dot => {
            records[index].1 = Some(record.to_vec());
        }
        Ok(_) => tracing::error!("another record stands where a message was to be copied from"),
        Err(error) => tracing::error!(%error, "a message cannot be copied and stays where it is"),
    });
    records
}
