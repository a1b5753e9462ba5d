//! Power failures at every kind of moment, under a load of sends, acknowledgements, rewrites and reclaim.
//!
//! A model in plain maps says what was promised: a message whose batch was synced is in the log until a TOMB for it
//! is; a message whose TOMB was synced never comes back. The disk loses, keeps or tears, sector by sector, whatever
//! was not synced. The seed is in every assertion's message; running it alone replays the run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{KEY, ORIGIN, Random, Told, dot, head, place};
use iris_wal::disk::SyncMethod;
use iris_wal::disk::mem::MemDisk;
use iris_wal::reclaim::Threshold;
use iris_wal::recovery::recover;
use iris_wal::store::{PrepareError, Reader, Supply, SupplyConfig, Writer};
use iris_wal::{
    AppendError, Body, Log, LogConfig, MetaBody, Msg, Pos, Reason, Record, Targets, Tomb,
};

const CONFIG: LogConfig = LogConfig {
    frame_bytes_max: 16 << 10,
    closed_batches_max: 3,
    window_bytes: 32 << 10,
    ready_segments: 2,
    reserve_segments: 1,
};

const SUPPLY: SupplyConfig = SupplyConfig {
    segment_bytes: 64 << 10,
    frame_bytes_max: 16 << 10,
    spares_max: 2,
    free_bytes_min: 0,
    method: SyncMethod::DirectFdatasync,
};

const THRESHOLD: Threshold = Threshold { live_percent: 40, log_bytes_min: 256 << 10 };

/// The power is off.
struct Off;

/// What was promised, and what was only asked for.
#[derive(Default)]
struct Model {
    /// Messages by seq, with the batch of their MSG.
    sent: BTreeMap<u64, u64>,
    /// Removed messages by seq, with the batch of their TOMB.
    removed: BTreeMap<u64, u64>,
}

struct World {
    log: Log,
    supply: Supply<MemDisk>,
    writer: Writer<MemDisk>,
    /// Where the index says that live messages are.
    index: BTreeMap<u64, (Pos, u32)>,
    salt: u64,
    dropped: u32,
    rewritten: u32,
}

/// For some times short ones only, whose segments get no footer entries.
fn payload(seq: u64) -> Vec<u8> {
    let most = if (seq / 1000).is_multiple_of(2) { 1500 } else { 60 };
    vec![seq as u8; 1 + (seq.wrapping_mul(0x9e37_79b9) >> 3) as usize % most]
}

fn message(seq: u64, payload: &[u8], copy: bool) -> Record<'_> {
    let body = Msg {
        msg_id: u128::from(seq),
        sender: [9; 16],
        msg_flags: 0,
        copy,
        recipients: &KEY,
        from: b"alice",
        payload,
    };
    Record { head: head(seq), body: Body::Msg(body) }
}

/// Whether a message is taken out next: most go soon, those of some times hardly ever.
fn goes(seq: u64, random: &mut Random) -> bool {
    let long = (seq / 150).is_multiple_of(3) && seq.is_multiple_of(5);
    random.below(if long { 400 } else { 4 }) == 0
}

impl World {
    /// Restarts on what the disk holds, and checks it against the model.
    fn boot(disk: &MemDisk, model: &Model, durable: u64, seed: u64, salt: u64) -> Self {
        let mut index = BTreeMap::new();
        let mut gone = BTreeSet::new();
        let (mut before, mut parts) = (None, BTreeSet::new());
        let recovered = recover(disk, &place(), &mut |meta| {
            assert!(before.replace(meta.pos) < Some(meta.pos), "seed {seed}: in order");
            match (Told::of(&meta), meta.body) {
                (Told::Msg { pos, len, seq, .. }, MetaBody::Msg(msg)) => {
                    assert_eq!(msg.msg_id, u128::from(seq), "seed {seed}");
                    // Of a message and its copies an index may point to any.
                    if seq % 2 == 0 || !index.contains_key(&seq) {
                        index.insert(seq, (pos, len));
                    }
                }
                (Told::Other { pos, .. }, MetaBody::Dedup(_)) => {
                    parts.insert(pos.segment);
                }
                (Told::Tomb { targets, .. }, _) => gone.extend(targets.iter().map(|dot| dot.seq)),
                _ => {}
            }
        })
        .unwrap();
        assert_eq!(recovered.faults, [], "seed {seed}: a crash is no damage");
        index.retain(|seq, _| !gone.contains(seq));
        let checkpoint = recovered.checkpoint;
        assert!(checkpoint.is_none_or(|began| parts.contains(&began)), "seed {seed}: it is there");
        let last = recovered.last_batch;
        assert!(last >= durable, "seed {seed}: batch {durable} was synced, {last} is the last");
        for (seq, _) in model.sent.iter().filter(|(_, batch)| **batch <= last) {
            // Exactly the batches up to the last one happened: a message is gone if its TOMB did, and only then.
            let removed = model.removed.get(seq).is_some_and(|batch| *batch <= last);
            let here = index.contains_key(seq);
            assert_eq!(here, !removed, "seed {seed}: message {seq}, removed: {removed}");
        }
        assert!(index.keys().all(|seq| model.sent.contains_key(seq)), "seed {seed}: no garbage");
        let mut reader = Reader::new(disk.clone(), place().dir);
        for (seq, (pos, len)) in &index {
            let record = reader.read_record(*pos, *len).unwrap();
            let Body::Msg(msg) = record.body else { panic!("seed {seed}: {record:?}") };
            assert_eq!(msg.payload, payload(*seq), "seed {seed}: as it was sent");
        }
        let supply = Supply::open(disk.clone(), place(), SUPPLY, &recovered).unwrap();
        let mut log = Log::resume(CONFIG, recovered);
        index.values().for_each(|(pos, len)| log.entry_added(*pos, *len));
        let writer = Writer::new(disk.clone(), place().dir, SyncMethod::DirectFdatasync);
        Self { log, supply, writer, index, salt, dropped: 0, rewritten: 0 }
    }

    fn feed(&mut self) -> Result<(), Off> {
        for _ in 0..self.log.wants_segments() {
            self.salt += 1;
            match self.supply.prepare(self.salt, 0) {
                Ok(ready) => self.log.add_segment(ready),
                Err(PrepareError::File(_)) => return Err(Off),
                Err(PrepareError::LowDisk { .. }) => unreachable!("the disk is large"),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Off> {
        while let Some(write) = self.log.take_write() {
            self.writer.perform(&write).map_err(|_| Off)?;
            self.log.synced(write);
        }
        Ok(())
    }

    fn append(&mut self, record: &Record<'_>) -> Result<Pos, Off> {
        loop {
            match self.log.append(record) {
                Ok(pos) => return Ok(pos),
                Err(AppendError::NoSegment) => self.feed()?,
                Err(AppendError::Full) => self.flush()?,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn send(&mut self, seq: u64, model: &mut Model) -> Result<(), Off> {
        let payload = payload(seq);
        let record = message(seq, &payload, false);
        let pos = self.append(&record)?;
        let len = record.encoded_len() as u32;
        self.log.entry_added(pos, len);
        self.index.insert(seq, (pos, len));
        model.sent.insert(seq, self.log.lsn());
        Ok(())
    }

    fn remove(&mut self, seqs: &[u64], tomb_seq: u64, model: &mut Model) -> Result<(), Off> {
        let targets: Vec<_> = seqs.iter().map(|seq| dot(*seq)).collect();
        let targets = Targets::List(&targets);
        let body = Body::Tomb(Tomb { inbox: KEY, reason: Reason::ACKED, targets });
        let pos = self.append(&Record { head: head(tomb_seq), body })?;
        for seq in seqs {
            let (at, len) = self.index.remove(seq).unwrap();
            self.log.entry_removed(at, len);
            self.log.tomb_refers(pos.segment, at.segment);
            model.removed.insert(*seq, self.log.lsn());
        }
        Ok(())
    }

    fn footers(&mut self) -> Result<(), Off> {
        while let Some(mut footer) = self.log.take_footer() {
            while !self.writer.perform_footer(&mut footer).map_err(|_| Off)? {}
            self.log.footer_written(footer);
        }
        Ok(())
    }

    fn reclaim(&mut self, random: &mut Random) -> Result<(), Off> {
        if random.below(2) == 0 {
            self.log.checkpoint_began();
            self.append(&Record { head: head(0), body: Body::Dedup(&[1; 100]) })?;
            loop {
                match self.log.checkpoint_complete(head(0)) {
                    Ok(()) => break,
                    Err(AppendError::NoSegment) => self.feed()?,
                    Err(AppendError::Full) => self.flush()?,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let sealed = self.log.reclaim().segments().filter(|segment| segment.sealed);
        let sealed: Vec<u32> = sealed.map(|segment| segment.segment).collect();
        let any = sealed.get(random.below(sealed.len() + 4)).copied();
        if let Some(segment) = any.or_else(|| self.log.sparse(THRESHOLD)) {
            let moving: Vec<_> =
                self.index.iter().filter(|(_, (pos, _))| pos.segment == segment).collect();
            let moving: Vec<_> = moving.into_iter().map(|(seq, from)| (*seq, *from)).collect();
            for (seq, from) in moving {
                let payload = payload(seq);
                let record = message(seq, &payload, true);
                let to = (self.append(&record)?, record.encoded_len() as u32);
                self.log.entry_moved(from, to);
                self.index.insert(seq, to);
            }
            self.rewritten += 1;
        }
        for segment in self.log.droppable() {
            self.supply.retire(segment).map_err(|_| Off)?;
            while self.supply.give_back().map_err(|_| Off)? {}
            self.log.dropped(segment);
            self.dropped += 1;
        }
        Ok(())
    }

    fn step(&mut self, random: &mut Random, next: &mut u64, model: &mut Model) -> Result<(), Off> {
        *next += 1;
        match random.below(100) {
            0..=49 => self.send(*next, model),
            50..=79 => {
                let seqs: Vec<u64> =
                    self.index.keys().copied().filter(|seq| goes(*seq, random)).collect();
                let seqs: Vec<u64> = seqs.into_iter().take(random.below(6)).collect();
                if seqs.is_empty() { Ok(()) } else { self.remove(&seqs, *next, model) }
            }
            80..=91 => self.flush(),
            92..=94 => self.footers(),
            95..=96 => self.feed(),
            97 => match self.log.idle_mark(head(0)) {
                Ok(_) | Err(AppendError::NoSegment | AppendError::Full) => Ok(()),
                Err(error) => panic!("{error}"),
            },
            _ => self.reclaim(random),
        }
    }
}

fn run(seed: u64) -> (u32, u32) {
    let mut random = Random::new(seed);
    let disk = MemDisk::default();
    let mut model = Model::default();
    let (mut next, mut durable, mut salt) = (0, 0, 0);
    let (mut dropped, mut rewritten) = (0, 0);
    for life in 0..12 {
        let mut world = World::boot(&disk, &model, durable, seed, salt);
        // What is found once is promised from now on: recovery synced it.
        durable = world.log.durable();
        model.sent.retain(|_, batch| *batch <= durable);
        model.removed.retain(|_, batch| *batch <= durable);
        let operations = random.below([3, 400, 400, 3000][life % 4]);
        disk.power_off_after(operations as u64);
        while world.step(&mut random, &mut next, &mut model).is_ok() {}
        durable = durable.max(world.log.durable());
        salt = world.salt + 1000;
        dropped += world.dropped;
        rewritten += world.rewritten;
        match random.below(4) {
            0 => disk.kill(),
            _ => disk.crash(&mut |n| random.below(n)),
        }
    }
    World::boot(&disk, &model, durable, seed, salt);
    (dropped, rewritten)
}

#[test]
fn whatever_a_crash_leaves_what_was_synced_is_there_and_what_was_removed_stays_away() {
    let (mut dropped, mut rewritten) = (0, 0);
    for seed in 0..40 {
        let (d, r) = run(seed);
        dropped += d;
        rewritten += r;
    }
    // The load is worth something only if it got to reclaim.
    assert!(dropped > 100 && rewritten > 20, "{dropped} dropped, {rewritten} rewritten");
    assert_eq!(ORIGIN, dot(1).origin);
}
