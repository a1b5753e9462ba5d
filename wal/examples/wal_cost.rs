//! What the log costs: appending a record, writing it, reading a million back.
//!
//! ```text
//! cargo run --release -p iris-wal --example wal_cost [DIR]
//! ```
//!
//! DIR (default: the temporary directory) gets a data directory of some 400 MB, which is removed again.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use iris_wal::io::{Directory, Founding, RealDisk, random_salt, self_test};
use iris_wal::recovery::{Place, Recovered, recover};
use iris_wal::store::{Reader, Supply, SupplyConfig, Writer};
use iris_wal::{
    AppendError, Body, Head, Log, LogConfig, MetaBody, Msg, Origin, Pos, Ready, Record,
};

const RECORDS: u64 = 1_000_000;
const BATCH: u64 = 200;

fn main() {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("iris-wal-cost-{}", std::process::id()));
    append_in_memory();
    on_disk(&dir);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn record<'a>(seq: u64, recipient: &'a [u8; 16], payload: &'a [u8; 64]) -> Record<'a> {
    let origin = Origin { node: 1, incarnation: 1 };
    let body = Msg {
        msg_id: u128::from(seq) << 64,
        sender: [3; 16],
        msg_flags: 0,
        copy: false,
        recipients: recipient,
        from: b"user-000123",
        payload,
    };
    Record { head: Head { shard: 1, origin, seq, hlc: seq << 16 }, body: Body::Msg(body) }
}

/// Appending and framing alone: no disk.
fn append_in_memory() {
    let mut log = Log::resume(LogConfig::default(), Recovered::default());
    let mut segment = 0;
    let (recipient, payload) = ([5; 16], [7; 64]);
    let mut appended = 0;
    for round in 0..3 {
        let start = Instant::now();
        for seq in 1..=RECORDS {
            appended += 1;
            while let Err(error) = log.append(black_box(&record(appended, &recipient, &payload))) {
                assert_eq!(error, AppendError::NoSegment);
                for _ in 0..log.wants_segments() {
                    segment += 1;
                    let (bytes, frame_bytes_max) = (64 << 20, 1 << 20);
                    log.add_segment(Ready { segment, salt: 1, bytes, frame_bytes_max });
                }
            }
            if seq % BATCH == 0 {
                let write = log.take_write().unwrap();
                log.synced(black_box(write));
            }
        }
        let ns = start.elapsed().as_nanos() / u128::from(RECORDS);
        println!(
            "append + frame + window, {BATCH} records of 64 B a batch, round {round}: {ns} ns/record"
        );
        while let Some(footer) = log.take_footer() {
            black_box(footer.len());
        }
    }
}

struct Node {
    log: Log,
    supply: Supply<RealDisk>,
    writer: Writer<RealDisk>,
}

fn on_disk(dir: &Path) {
    let founding = Founding { cluster: None, node_id: 1, num_shards: 64, partitions: 1 };
    let directory = Directory::open(dir, &founding).unwrap();
    let found = self_test(dir).unwrap();
    println!("self-test: {:?}", found.medians);
    let place = directory.place(0);
    let start = Instant::now();
    let recovered = recover(&RealDisk, &place, &mut |_| {}).unwrap();
    let config = SupplyConfig { method: found.method, ..SupplyConfig::default() };
    let mut supply = Supply::open(RealDisk, place.clone(), config, &recovered).unwrap();
    let mut log = Log::resume(LogConfig::default(), recovered);
    log.add_segment(supply.prepare(random_salt().unwrap(), 0).unwrap());
    println!("first segment of an empty directory ready after {:?}", start.elapsed());
    let writer = Writer::new(RealDisk, place.dir.clone(), found.method);
    let mut node = Node { log, supply, writer };
    let places = fill(&mut node);
    drop(node);
    for temperature in ["cold (written past the page cache)", "warm"] {
        read_back(&place, temperature);
    }
    deliver(&place, &places);
}

fn fill(node: &mut Node) -> Vec<(Pos, u32)> {
    let (recipient, payload) = ([5; 16], [7; 64]);
    let mut places = Vec::new();
    let (start, mut preparing) = (Instant::now(), std::time::Duration::ZERO);
    for seq in 1..=RECORDS {
        let record = record(seq, &recipient, &payload);
        let pos = loop {
            match node.log.append(&record) {
                Ok(pos) => break pos,
                Err(error) => assert_eq!(error, AppendError::NoSegment),
            }
            let began = Instant::now();
            for _ in 0..node.log.wants_segments() {
                let ready = node.supply.prepare(random_salt().unwrap(), 0).unwrap();
                node.log.add_segment(ready);
            }
            preparing += began.elapsed();
        };
        places.push((pos, record.encoded_len() as u32));
        if seq % BATCH == 0 {
            let write = node.log.take_write().unwrap();
            node.writer.perform(&write).unwrap();
            node.log.synced(write);
        }
        while let Some(mut footer) = node.log.take_footer() {
            while !node.writer.perform_footer(&mut footer).unwrap() {}
            node.log.footer_written(footer);
        }
    }
    let took = start.elapsed() - preparing;
    println!(
        "{RECORDS} records in synced batches of {BATCH}, footers included: {took:?} \
         = {:.0}/s (preparing segments, beside it: {preparing:?})",
        RECORDS as f64 / took.as_secs_f64()
    );
    places
}

fn read_back(place: &Place, temperature: &str) {
    let start = Instant::now();
    let (mut messages, mut sum) = (0u64, 0u64);
    let recovered = recover(&RealDisk, place, &mut |meta| {
        if let MetaBody::Msg(msg) = meta.body {
            messages += 1;
            sum = sum.wrapping_add(meta.head.seq ^ u64::from(msg.recipients[0]));
        }
    })
    .unwrap();
    black_box(sum);
    println!(
        "recovery of {messages} live records, {temperature}: {:?}, {} segments scanned, {} faults",
        start.elapsed(),
        recovered.scanned.len(),
        recovered.faults.len()
    );
    assert_eq!(messages, RECORDS);
}

fn deliver(place: &Place, places: &[(Pos, u32)]) {
    let mut reader = Reader::new(RealDisk, place.dir.clone());
    let start = Instant::now();
    let mut whole = 0;
    for some in places.chunks(256) {
        reader.read_records(some, &mut |_, record| whole += u64::from(record.is_ok()));
    }
    assert_eq!(whole, RECORDS);
    let ns = start.elapsed().as_nanos() / u128::from(RECORDS);
    println!("reading records back for delivery, 256 at a time: {ns} ns/record");
}
