//! The log alone: appending and framing, reading back after a restart, reading forward for a mirror.

use std::path::PathBuf;

use iris_wal::disk::SyncMethod;
use iris_wal::disk::mem::MemDisk;
use iris_wal::feed::Feed;
use iris_wal::recovery::{Place, Recovered, recover};
use iris_wal::segment::Owner;
use iris_wal::store::{Supply, SupplyConfig, Writer};
use iris_wal::{AppendError, Body, Head, Log, LogConfig, Msg, Origin, Pos, Ready, Record};

use super::PAYLOAD;
use crate::work::{Bench, Whole, Work};

/// Records of a batch.
const BATCH: u64 = 200;
/// Records of the log that is read.
const FOUND: u64 = 4000;
/// Bytes of their payloads: footers are left out where they would take much of a segment, as with 64 bytes.
const FOUND_BYTES: usize = 1024;

pub(super) const BENCHES: &[Bench] = &[
    records("log/append", BATCH, 20, append),
    records("log/recover-footers", FOUND, 2, || recovering(Footers::Written)),
    records("log/recover-scan", FOUND, 2, || recovering(Footers::Missing)),
    records("log/feed", FOUND, 2, feed),
];

const fn records(name: &'static str, ops: u64, turns: u32, start: fn() -> Box<dyn Work>) -> Bench {
    Bench { name, op: "record", ops, warm: 2, turns, start }
}

/// Whether the segments of a log end in footers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Footers {
    Written,
    Missing,
}

fn record(seq: u64, payload: &[u8]) -> Record<'_> {
    let body = Msg {
        msg_id: u128::from(seq),
        sender: [3; 16],
        msg_flags: 0,
        copy: false,
        recipients: &[5; 16],
        from: b"sender-000012",
        payload,
    };
    let origin = Origin { node: 1, incarnation: 1 };
    Record { head: Head { shard: 1, origin, seq, hlc: seq << 16 }, body: Body::Msg(body) }
}

/// Prepared segments, as many as the log wants.
pub(super) fn add_segments(log: &mut Log) {
    for segment in 1..=log.wants_segments() as u32 {
        let frame_bytes_max = LogConfig::default().frame_bytes_max as u32;
        log.add_segment(Ready { segment, salt: 1, bytes: 64 << 20, frame_bytes_max });
    }
}

/// Batches that are written nowhere: encoding, checksums, the chain, the footer in memory and the recent window.
fn append() -> Box<dyn Work> {
    let mut log = Log::resume(LogConfig::default(), Recovered::default());
    add_segments(&mut log);
    let mut seq = 0;
    Whole::boxed(move || {
        for _ in 0..BATCH {
            seq += 1;
            log.append(&record(seq, &PAYLOAD)).expect("there is room");
        }
        let write = log.take_write().expect("a batch waits");
        let records = write.records();
        log.synced(write);
        u64::from(records)
    })
}

fn place() -> Place {
    let owner = Owner { cluster: [1; 16], node: [2; 16], node_id: 1, incarnation: 1, log_id: 0 };
    Place { dir: PathBuf::from("/log"), owner }
}

/// A log of some segments on a disk in memory.
fn written(footers: Footers, segment_bytes: usize) -> (MemDisk, u64) {
    let disk = MemDisk::default();
    let config = SupplyConfig {
        segment_bytes,
        frame_bytes_max: 256 << 10,
        free_bytes_min: 0,
        ..SupplyConfig::default()
    };
    let empty = Recovered::default();
    let mut supply = Supply::open(disk.clone(), place(), config, &empty).expect("an empty disk");
    let mut writer = Writer::new(disk.clone(), place().dir, SyncMethod::DirectFdatasync);
    let frames = LogConfig { frame_bytes_max: config.frame_bytes_max, ..LogConfig::default() };
    let mut log = Log::resume(frames, empty);
    for seq in 1..=FOUND {
        while let Err(error) = log.append(&record(seq, &[7; FOUND_BYTES])) {
            assert_eq!(error, AppendError::NoSegment);
            for _ in 0..log.wants_segments() {
                log.add_segment(supply.prepare(seq, 0).expect("the disk has room"));
            }
        }
        if seq % BATCH == 0 {
            while let Some(write) = log.take_write() {
                writer.perform(&write).expect("the disk takes it");
                log.synced(write);
            }
        }
        while let Some(mut footer) = log.take_footer() {
            let mut wants = footers == Footers::Written;
            while wants {
                wants = !writer.perform_footer(&mut footer).expect("the disk takes it");
            }
            while footer.next_chunk().is_some() {
                footer.chunk_written();
            }
            log.footer_written(footer);
        }
    }
    (disk, log.durable())
}

fn recovering(footers: Footers) -> Box<dyn Work> {
    let (disk, _) = written(footers, 1 << 20);
    let place = place();
    Whole::boxed(move || {
        let (mut records, mut sum) = (0, 0);
        let found = recover(&disk, &place, &mut |meta| {
            records += 1;
            sum += meta.head.seq;
        });
        let found = found.expect("the log is sound");
        let scanned = found.scanned.len();
        assert!(found.faults.is_empty() && sum == FOUND * (FOUND + 1) / 2);
        assert_eq!(scanned > 1, footers == Footers::Missing, "{scanned} segments were scanned");
        records
    })
}

fn feed() -> Box<dyn Work> {
    // Larger than what is read at once, as segments of a node are.
    let (disk, durable) = written(Footers::Written, 16 << 20);
    let mut feed = Feed::new(disk, place().dir);
    let record_bytes = record(1, &[7; FOUND_BYTES]).encoded_len();
    Whole::boxed(move || {
        let (mut segment, mut offset, mut bytes) = (1, 0, 0);
        while bytes < FOUND as usize * record_bytes {
            let fed = feed.read(Pos { segment, offset }, durable, 256 << 10).expect("it reads");
            bytes += fed.records.len();
            (segment, offset) = fed.next.map_or((segment + 1, 0), |next| (segment, next));
        }
        (bytes / record_bytes) as u64
    })
}
