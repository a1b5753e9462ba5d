//! What the log costs: appending a record, writing it, reading a million back.
//!
//! ```text
//! cargo run --release -p iris-wal --example wal_cost [DIR]
//! ```
//!
//! DIR (default: the temporary directory) gets a data directory of some 700 MB, which is removed again.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use iris_wal::io::{Directory, Founding, RealDisk, random_salt, self_test};
use iris_wal::recovery::{Place, Recovered, recover};
use iris_wal::store::{Reader, Supply, SupplyConfig, Writer};
use iris_wal::{
    AppendError, Body, Dot, Head, Log, LogConfig, MetaBody, Msg, Origin, Pos, Ready, Reason,
    Record, Targets, Tomb,
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
    /// Bytes of batches and of footers.
    written: [usize; 2],
}

fn on_disk(dir: &Path) {
    let founding = Founding { cluster: None, node_id: 1, num_shards: 64, partitions: 1, now_s: 0 };
    let directory = Directory::open(dir, &founding).unwrap();
    let found = self_test(dir, dir).unwrap();
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
    let mut node = Node { log, supply, writer, written: [0; 2] };
    let places = fill(&mut node);
    for temperature in ["cold (written past the page cache)", "warm"] {
        read_back(&place, temperature);
    }
    deliver(&place, &places);
    remove_all(&mut node, &places);
    drop(node);
    read_back(&place, "as many TOMBs beside them");
}

impl Node {
    /// Appends; returns the place and the time that preparing segments took.
    fn append(&mut self, record: &Record<'_>) -> (Pos, Duration) {
        let mut preparing = Duration::ZERO;
        loop {
            match self.log.append(record) {
                Ok(pos) => return (pos, preparing),
                Err(error) => assert_eq!(error, AppendError::NoSegment),
            }
            let began = Instant::now();
            for _ in 0..self.log.wants_segments() {
                let ready = self.supply.prepare(random_salt().unwrap(), 0).unwrap();
                self.log.add_segment(ready);
            }
            preparing += began.elapsed();
        }
    }

    fn flush(&mut self) {
        let write = self.log.take_write().unwrap();
        self.writer.perform(&write).unwrap();
        self.written[0] += write.bytes().len();
        self.log.synced(write);
        while let Some(mut footer) = self.log.take_footer() {
            while !self.writer.perform_footer(&mut footer).unwrap() {}
            self.written[1] += footer.len();
            self.log.footer_written(footer);
        }
    }
}

/// Writes a TOMB for every message, in no order.
fn remove_all(node: &mut Node, places: &[(Pos, u32)]) {
    let origin = Origin { node: 1, incarnation: 1 };
    // A step that has no factor in common with the number of records visits each once.
    let order = (0..RECORDS).map(|i| 1 + i * 7_777_777 % RECORDS);
    for (i, seq) in order.enumerate() {
        let targets = [Dot { origin, seq }];
        let targets = Targets::List(&targets);
        let body = Body::Tomb(Tomb { inbox: [5; 16], reason: Reason::ACKED, targets });
        let head = Head { shard: 1, origin, seq: RECORDS + 1 + i as u64, hlc: 0 };
        let (pos, _) = node.append(&Record { head, body });
        node.log.tomb_refers(pos.segment, places[seq as usize - 1].0.segment);
        if i % 5000 == 4999 {
            node.flush();
        }
    }
}

fn fill(node: &mut Node) -> Vec<(Pos, u32)> {
    let (recipient, payload) = ([5; 16], [7; 64]);
    let mut places = Vec::new();
    let (start, mut preparing) = (Instant::now(), Duration::ZERO);
    for seq in 1..=RECORDS {
        let record = record(seq, &recipient, &payload);
        let (pos, waited) = node.append(&record);
        preparing += waited;
        places.push((pos, record.encoded_len() as u32));
        if seq % BATCH == 0 {
            node.flush();
        }
    }
    let took = start.elapsed() - preparing;
    println!(
        "{RECORDS} records in synced batches of {BATCH}, footers included: {took:?} \
         = {:.0}/s (preparing segments, beside it: {preparing:?})",
        RECORDS as f64 / took.as_secs_f64()
    );
    let [batches, footers] = node.written.map(|bytes| bytes as f64 / RECORDS as f64);
    println!("written for a record of 64 B: {batches:.0} B in batches, {footers:.0} B in footers");
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
        "recovery of {messages} messages, {temperature}: {:?}, {} segments scanned, {} faults",
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
