//! A segment as format 1.0 writes it, kept as text: this code still writes the same bytes and still reads them.
//!
//! `IRIS_WAL_GOLDEN=write cargo test -p iris-wal --test golden` writes the file anew; a change of it is a change of the
//! format and is reviewed as one.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;

use common::{Random, place};
use iris_wal::disk::SyncMethod;
use iris_wal::disk::mem::MemDisk;
use iris_wal::recovery::{recover, segment_name};
use iris_wal::store::{Reader, Supply, SupplyConfig, Writer};
use iris_wal::{
    Body, Checkpoint, Dot, Epoch, Head, Log, LogConfig, Mark, Msg, Origin, Reason, Record,
    Recovered, Targets, Tomb,
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/segment-v1.hex");
const SEGMENT_BYTES: usize = 64 << 10;
const FRAME_BYTES: usize = 56 << 10;
const ROW: usize = 32;

fn dot(node: u32, incarnation: u32, seq: u64) -> Dot {
    Dot { origin: Origin { node, incarnation }, seq }
}

/// Calls `f` with each record of the golden segment, and whether its batch ends after it.
fn each_record(f: &mut dyn FnMut(&Record<'_>, bool)) {
    let head = |seq| {
        let origin = Origin { node: 0x0102_0304, incarnation: 5 };
        Head { shard: 0x0607, origin, seq, hlc: 0x0191_2345_6789_0000 + seq }
    };
    let msg = Msg {
        msg_id: 0x0191_2345_6789_7abc_8def_0123_4567_89ab,
        sender: *b"sender-key-0000!",
        msg_flags: 0x0001,
        copy: false,
        recipients: b"recipient-key-1!recipient-key-2!",
        from: b"alice",
        payload: "Grüße, Bob".as_bytes(),
    };
    let copy = Msg { copy: true, recipients: b"recipient-key-2!", ..msg };
    let targets = [dot(1, 2, 10), dot(1, 2, 11), dot(1, 2, 12), dot(1, 2, 20), dot(3, 1, 7)];
    let tomb = Tomb {
        inbox: *b"recipient-key-1!",
        reason: Reason::ACKED,
        targets: Targets::List(&targets),
    };
    let epoch = Epoch { state: 2, state_id: 9, peer_vv: b"peer vv" };
    let mark = Mark { heartbeat_hlc: 0x0191_2345_6789_0001, vv: b"vv" };
    let long = vec![0; 46_000];
    f(&Record { head: head(1), body: Body::Msg(msg) }, false);
    f(&Record { head: head(1), body: Body::Msg(copy) }, true);
    f(&Record { head: head(2), body: Body::Tomb(tomb) }, false);
    f(&Record { head: head(3), body: Body::Epoch(epoch) }, false);
    f(&Record { head: head(0), body: Body::Mark(mark) }, true);
    let checkpoint = Checkpoint { began: 0x0a0b_0c0d };
    f(&Record { head: head(0), body: Body::Checkpoint(checkpoint) }, false);
    f(&Record { head: head(0), body: Body::Dedup(&long) }, true);
    // Does not fit any more: the segment is sealed.
    f(&Record { head: head(0), body: Body::Dedup(&long) }, true);
}

fn written() -> (MemDisk, Vec<u8>) {
    let disk = MemDisk::default();
    let recovered = Recovered::default();
    let config = SupplyConfig {
        segment_bytes: SEGMENT_BYTES,
        frame_bytes_max: FRAME_BYTES,
        spares_max: 0,
        free_bytes_min: 0,
        method: SyncMethod::DirectFdatasync,
    };
    let mut supply = Supply::open(disk.clone(), place(), config, &recovered).unwrap();
    let mut writer = Writer::new(disk.clone(), place().dir, SyncMethod::DirectFdatasync);
    let config = LogConfig { frame_bytes_max: FRAME_BYTES, ..LogConfig::default() };
    let mut log = Log::resume(config, recovered);
    // The third is the reserve, which a DEDUP leaves alone.
    for salt in 0x5a17_0000_0000_0001..=0x5a17_0000_0000_0003 {
        log.add_segment(supply.prepare(salt, 0x0191_2345_6788_0000).unwrap());
    }
    each_record(&mut |record, ends_batch| {
        log.append(record).unwrap();
        if ends_batch {
            let write = log.take_write().unwrap();
            writer.perform(&write).unwrap();
            log.synced(write);
        }
    });
    let mut footer = log.take_footer().unwrap();
    while !writer.perform_footer(&mut footer).unwrap() {}
    let bytes = disk.bytes(&place().dir.join(segment_name(1)));
    (disk, bytes)
}

/// Rows of 32 bytes with their offset; rows of zeros are left out.
fn to_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (i, row) in bytes.chunks(ROW).enumerate() {
        if row.iter().any(|byte| *byte != 0) {
            let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&format!("{:06x}  {}\n", i * ROW, hex.join(" ")));
        }
    }
    text
}

fn of_text(text: &str) -> Vec<u8> {
    let mut bytes = vec![0; SEGMENT_BYTES];
    for line in text.lines() {
        let (at, row) = line.split_once("  ").unwrap();
        let at = usize::from_str_radix(at, 16).unwrap();
        for (i, byte) in row.split(' ').enumerate() {
            bytes[at + i] = u8::from_str_radix(byte, 16).unwrap();
        }
    }
    bytes
}

fn golden() -> String {
    if std::env::var("IRIS_WAL_GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(GOLDEN, to_text(&written().1)).unwrap();
    }
    std::fs::read_to_string(Path::new(GOLDEN)).unwrap()
}

#[test]
fn this_code_writes_the_golden_bytes() {
    assert_eq!(to_text(&written().1), golden());
}

/// What recovery says of each record, with its place; the same from the footer and from the frames.
fn told(bytes: &[u8]) -> Vec<String> {
    let disk = MemDisk::default();
    disk.put(&place().dir.join(segment_name(1)), bytes);
    let mut told = Vec::new();
    let recovered = recover(&disk, &place(), &mut |meta| told.push(format!("{meta:?}"))).unwrap();
    assert_eq!(recovered.faults, []);
    told
}

#[test]
fn this_code_reads_the_golden_bytes() {
    let bytes = of_text(&golden());
    let disk = MemDisk::default();
    disk.put(&place().dir.join(segment_name(1)), &bytes);
    let mut places = Vec::new();
    recover(&disk, &place(), &mut |meta| places.push((meta.pos, meta.len))).unwrap();
    assert_eq!(places.len(), 7);
    let mut reader = Reader::new(disk, place().dir);
    let mut next = places.into_iter();
    each_record(&mut |record, _| {
        if let Some((pos, len)) = next.next() {
            let read = reader.read_record(pos, len).unwrap();
            assert_eq!(&read, record);
            assert_eq!(read.to_vec(), record.to_vec());
        }
    });
    let from_footer = told(&bytes);
    let mut without = bytes.clone();
    without[SEGMENT_BYTES - 96..].fill(0);
    assert_eq!(told(&without), from_footer);
}

#[test]
fn no_flipped_bit_of_the_golden_segment_makes_a_record_of_nothing() {
    let bytes = of_text(&golden());
    let sound = told(&bytes);
    let used: Vec<usize> = (0..SEGMENT_BYTES).filter(|at| bytes[*at] != 0).collect();
    let mut random = Random::new(1);
    for at in used {
        let mut rotten = bytes.clone();
        rotten[at] ^= 1 << random.below(8);
        let disk = MemDisk::default();
        disk.put(&place().dir.join(segment_name(1)), &rotten);
        // It boots, and hands out nothing that was not written.
        let outcome = recover(&disk, &place(), &mut |meta| {
            assert!(sound.contains(&format!("{meta:?}")), "byte {at}");
        });
        assert!(outcome.is_ok(), "byte {at}");
    }
}
