//! One core of the pair: its machines and its log on a disk in memory, driven as the server drives them.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;

use iris_proto::core::{CheckpointCursor, Core, CoreConfig, Delivery, LiveEntry, Pos, WhenFull};
use iris_proto::hlc::Hlc;
use iris_proto::id::{Origin, ShardId};
use iris_proto::replica::{Mode, Now, Replica, ReplicaConfig, ScanFrom, Scanned};
use iris_wal::disk::SyncMethod;
use iris_wal::disk::mem::MemDisk;
use iris_wal::feed::Feed;
use iris_wal::reclaim::Threshold;
use iris_wal::recovery::{Place, RecoverError, recover};
use iris_wal::segment::Owner;
use iris_wal::store::{PrepareError, Reader, Supply, SupplyConfig, Writer};
use iris_wal::views;
use iris_wal::{Body, Log, LogConfig, Msg, Record, Write, record};

use crate::disks;
use crate::fx::Fx;
use crate::model::At;
use crate::random::Random;

/// Shards of the cluster; all are in the one partition.
pub const SHARDS: u16 = 2;
const SEGMENT_BYTES: usize = 256 << 10;
const FRAME_BYTES: usize = 80 << 10;

const LOG: LogConfig = LogConfig {
    frame_bytes_max: FRAME_BYTES,
    closed_batches_max: 4,
    window_bytes: 64 << 10,
    ready_segments: 2,
    reserve_segments: 1,
};

/// How a life ended by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// The disk failed, as it may.
    Disk(String),
    /// The replica asks for a higher incarnation.
    Reincarnate(u32),
    /// Recovery was refused.
    Start(String),
}

/// One life of a node.
pub struct Life {
    /// The core.
    pub core: Core,
    /// Its replica.
    pub replica: Replica,
    /// What they said.
    pub fx: Fx,
    /// This life.
    pub origin: Origin,
    disk: MemDisk,
    supply: Supply<MemDisk>,
    writer: Writer<MemDisk>,
    footers: Writer<MemDisk>,
    feed: Feed<MemDisk>,
    reader: Reader<MemDisk>,
    in_flight: Option<(Write, u64)>,
    /// The next batch goes to another place, which is chosen by this; the other node's disk.
    pub misdirect: Option<(Random, MemDisk)>,
    /// What that destroyed.
    pub destroyed: BTreeSet<At>,
    low_disk: bool,
    salt: u64,
    checkpoint: Option<CheckpointCursor>,
    checkpoint_end: bool,
    checkpoint_segment: u32,
    last_segment: u32,
    looked_ms: u64,
    /// Segments dropped.
    pub dropped: u64,
    /// Batches that became durable since they were last asked for: their records, and whether they went elsewhere.
    pub durable: VecDeque<(Vec<u8>, bool)>,
}

/// Where a node's log lies.
pub fn dir() -> PathBuf {
    PathBuf::from("/wal")
}

fn place(node: u32, incarnation: u32) -> Place {
    let owner =
        Owner { cluster: [1; 16], node: [node as u8; 16], node_id: node, incarnation, log_id: 0 };
    Place { dir: dir(), owner }
}

/// How patient the replicas of a run are: a tenth of what they are in production.
pub fn replica_config(me: Origin) -> ReplicaConfig {
    let mut config = ReplicaConfig::new(me, 3 - me.node, SHARDS);
    config.heartbeat_ms = 5;
    config.silent_ms = 20;
    config.degrade_ms = 25;
    config.recover_ms = 100;
    config.steady_ms = 50;
    config.window_bytes = 32 << 10;
    config.tail_bytes = 16 << 10;
    config.heal_bytes_per_ms = 4 << 10;
    config.unread_ms = 400;
    config.near_bytes = 4 << 10;
    config.near_ms = 4;
    config
}

impl Life {
    /// Recovers what is on the disk. `keep` sees each record.
    pub fn start(
        disk: &MemDisk,
        origin: Origin,
        now: Now,
        (seed, drop_above): (u64, Option<u32>),
        keep: &mut dyn FnMut(&iris_wal::Meta<'_>),
    ) -> Result<Self, End> {
        let place = place(origin.node, origin.incarnation);
        let mut config = CoreConfig::new(origin, SHARDS, seed);
        config.dedup_window_ms = 60_000;
        if let Some(most) = drop_above {
            config.inbox_messages_max = most;
            config.messages_when_full = WhenFull::DropOldest;
        }
        let mut core = Core::new(config);
        let mut replica = Replica::new(replica_config(origin));
        let mut bad = None;
        let mut targets = Vec::new();
        let recovered = recover(disk, &place, &mut |meta| {
            if let Err(error) = views::recover(&mut core, &meta) {
                bad = Some(error.to_string());
            }
            replica.recover(meta.pos.segment, &views::view_of_meta(&meta, &mut targets));
            keep(&meta);
        });
        let recovered = recovered.map_err(|error| match error {
            RecoverError::Io { .. } => End::Disk(error.to_string()),
            error => End::Start(error.to_string()),
        })?;
        if let Some(bad) = bad {
            return Err(End::Start(bad));
        }
        let sound = recovered.faults.is_empty();
        let supply = SupplyConfig {
            segment_bytes: SEGMENT_BYTES,
            frame_bytes_max: FRAME_BYTES,
            spares_max: 2,
            free_bytes_min: 128 << 10,
            method: SyncMethod::DirectFdatasync,
        };
        let failed = |error: iris_wal::store::FileError| End::Disk(error.to_string());
        let supply = Supply::open(disk.clone(), place, supply, &recovered).map_err(failed)?;
        let last_segment = recovered.next_segment.saturating_sub(1);
        let fx = Fx::new(Log::resume(LOG, recovered), origin);
        let mut life = Self {
            core,
            replica,
            fx,
            origin,
            disk: disk.clone(),
            supply,
            writer: Writer::new(disk.clone(), dir(), SyncMethod::DirectFdatasync),
            footers: Writer::new(disk.clone(), dir(), SyncMethod::DirectFdatasync),
            feed: Feed::new(disk.clone(), dir()),
            reader: Reader::new(disk.clone(), dir()),
            in_flight: None,
            misdirect: None,
            destroyed: BTreeSet::new(),
            low_disk: false,
            salt: seed,
            checkpoint: None,
            checkpoint_end: false,
            checkpoint_segment: last_segment,
            last_segment,
            looked_ms: now.mono_ms,
            dropped: 0,
            durable: VecDeque::new(),
        };
        life.supply_segments(now)?;
        let lsn = life.fx.log.durable();
        life.replica.recovery_done(&mut life.fx, &mut life.core, now, sound, lsn);
        life.checkpoint = Some(CheckpointCursor::default());
        life.fx.log.checkpoint_began();
        Ok(life)
    }

    /// Which rule acknowledges.
    pub fn mode(&self, now: Now) -> Mode {
        self.replica.status(now).mode
    }

    /// One turn: what is due, with `write_ms` for the next write.
    pub fn turn(&mut self, now: Now, write_ms: u64) -> Result<(), End> {
        self.finish_write(now)?;
        self.replica.poll(&mut self.fx, &mut self.core, now);
        self.core.poll(&mut self.fx, now.unix_ms, 64);
        self.answer_scan(now);
        self.keep_house(now)?;
        self.start_write(now, write_ms);
        match self.fx.reincarnate {
            Some(above) => Err(End::Reincarnate(above)),
            None => Ok(()),
        }
    }

    fn start_write(&mut self, now: Now, write_ms: u64) {
        if self.in_flight.is_some() {
            return;
        }
        let Some(write) = self.fx.log.take_write() else { return };
        let place = ScanFrom { segment: write.segment(), offset: write.offset() as u32 };
        self.replica.batch_closed(
            &mut self.fx,
            &mut self.core,
            now,
            write.batch_no(),
            place,
            write.body(),
        );
        self.in_flight = Some((write, now.mono_ms + write_ms));
    }

    fn finish_write(&mut self, now: Now) -> Result<(), End> {
        let Some((write, _)) = self.in_flight.take_if(|(_, due)| *due <= now.mono_ms) else {
            return Ok(());
        };
        let goes_wrong = self.misdirect.take().and_then(|(mut random, other)| {
            let place = disks::elsewhere(&self.disk, &other, &mut random, write.bytes().len())?;
            self.disk.misdirect_next_write(&place.0, place.1);
            Some(disks::readable(&self.disk))
        });
        self.writer.perform(&write).map_err(|error| End::Disk(error.to_string()))?;
        if let Some(before) = &goes_wrong {
            self.destroyed.extend(disks::gone(before, &disks::readable(&self.disk)));
        }
        self.durable.push_back((write.body().to_vec(), goes_wrong.is_some()));
        self.fx.log.synced(write);
        let lsn = self.fx.log.durable();
        self.fx.unsynced.retain(|(of, ..)| *of > lsn);
        self.replica.handle_durable(&mut self.fx, &mut self.core, now, lsn);
        Ok(())
    }

    /// A delivery cannot be read.
    pub fn cannot_read(&mut self, now: Now, delivery: &Delivery) {
        self.core.handle_unreadable(now.unix_ms, delivery.conn, delivery.user, delivery.no);
    }

    /// The process dies now. A write under way has reached the disk in part, or not.
    pub fn die(mut self, reaches_disk: bool) {
        if let Some((write, _)) = self.in_flight.take()
            && reaches_disk
        {
            // The write happens and its sync does not.
            self.disk.power_off_after(1);
            assert!(self.writer.perform(&write).is_err(), "the power is off");
        }
    }

    fn answer_scan(&mut self, now: Now) {
        let Some((from, bytes_max)) = self.fx.scan.take() else { return };
        let pos = iris_wal::Pos { segment: from.segment, offset: from.offset };
        let durable = self.fx.log.durable();
        let fed = self.feed.read(pos, durable, bytes_max).unwrap_or_default();
        let scanned = Scanned { from, records: &fed.records, next: fed.next };
        self.replica.handle_scanned(&mut self.fx, &mut self.core, now, &scanned);
    }

    fn supply_segments(&mut self, now: Now) -> Result<(), End> {
        while self.fx.log.wants_segments() > 0 {
            self.salt = self.salt.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            match self.supply.prepare(self.salt, Hlc::new(now.unix_ms, 0).0) {
                Ok(ready) => {
                    self.last_segment = ready.segment;
                    self.set_low_disk(false);
                    self.fx.log.add_segment(ready);
                }
                Err(error) if is_full(&error) => {
                    self.set_low_disk(true);
                    return Ok(());
                }
                Err(error) => return Err(End::Disk(error.to_string())),
            }
        }
        Ok(())
    }

    fn set_low_disk(&mut self, low: bool) {
        self.low_disk = low;
        self.fx.log.set_low_disk(low);
    }

    fn keep_house(&mut self, now: Now) -> Result<(), End> {
        self.supply_segments(now)?;
        while let Some(mut footer) = self.fx.log.take_footer() {
            let failed = |error: iris_wal::store::FatalError| End::Disk(error.to_string());
            while !self.footers.perform_footer(&mut footer).map_err(failed)? {}
            self.fx.log.footer_written(footer);
        }
        self.checkpoint_some();
        if now.mono_ms < self.looked_ms + 20 {
            return Ok(());
        }
        self.looked_ms = now.mono_ms;
        let head = self.fx.outside(ShardId(0));
        let _ = self.fx.log.idle_mark(head);
        self.free_by_checkpoint();
        let threshold = Threshold { live_percent: 60, log_bytes_min: 2 * SEGMENT_BYTES as u64 };
        if let Some(segment) = self.fx.log.sparse(threshold) {
            self.rewrite(segment);
        }
        self.drop_segments()
    }

    /// On a full disk, a checkpoint for the sake of the segments that only wait for it.
    fn free_by_checkpoint(&mut self) {
        let gauges = self.core.gauges();
        let bytes = 36 * gauges.senders + 16 * gauges.dedup_ids;
        let bytes = bytes + bytes / 4 + (16 << 10);
        let frees = self.low_disk
            && self.fx.log.reclaim().waiting_for_checkpoint() >= 2 * bytes
            && self.fx.log.room_bytes() as u64 >= bytes;
        self.fx.log.set_checkpoint_frees(frees);
        if frees && self.checkpoint.is_none() && !self.checkpoint_end {
            self.begin_checkpoint();
        }
    }

    fn begin_checkpoint(&mut self) {
        self.checkpoint_segment = self.last_segment;
        self.checkpoint = Some(CheckpointCursor::default());
        self.fx.log.checkpoint_began();
    }

    fn checkpoint_some(&mut self) {
        if self.checkpoint_end {
            let head = self.fx.outside(ShardId(0));
            let marked = self.replica.checkpoint(&mut self.fx, &mut self.core).is_ok();
            self.checkpoint_end = !(marked && self.fx.log.checkpoint_complete(head).is_ok());
            return;
        }
        let Some(cursor) = self.checkpoint else {
            if self.last_segment >= self.checkpoint_segment + 3 {
                self.begin_checkpoint();
            }
            return;
        };
        if let Ok(next) = self.core.checkpoint(&mut self.fx, cursor) {
            (self.checkpoint, self.checkpoint_end) = (next, next.is_none());
        }
    }

    fn rewrite(&mut self, segment: u32) {
        let mut found: Vec<LiveEntry> = Vec::new();
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            cursor = self.core.live_in_segment(segment, from, 1000, &mut found);
        }
        found.sort_by_key(|entry| entry.pos);
        for entries in found.chunk_by(|a, b| a.pos == b.pos).take(20) {
            let (pos, len) = (views::wal_pos(entries[0].pos), entries[0].len);
            let Ok(original) = self.reader.read_record(pos, len) else {
                return self.fx.log.quarantine(segment);
            };
            let bytes = original.to_vec();
            let (original, _) = record::decode(&bytes).expect("it was just read");
            if views::proto_dot(original.head.dot()) != entries[0].dot {
                return self.fx.log.quarantine(segment);
            }
            let Body::Msg(msg) = original.body else { return };
            let fx = &mut self.fx;
            let mut copied = None;
            let moved = self.core.relocate(entries, |recipients| {
                let body = Body::Msg(Msg { copy: true, recipients, ..msg });
                let appended = fx.append(&Record { head: original.head, body })?;
                copied = Some(appended);
                Ok(appended)
            });
            let (Ok(moved), Some(copy)) = (moved, copied) else { return };
            for _ in 0..moved {
                self.fx.log.entry_moved((pos, len), (views::wal_pos(copy.pos), copy.len));
            }
        }
    }

    fn drop_segments(&mut self) -> Result<(), End> {
        for segment in self.fx.log.droppable() {
            if !self.replica.may_drop(&self.core, segment) {
                continue;
            }
            self.reader.forget(segment);
            self.supply.retire(segment).map_err(|error| End::Disk(error.to_string()))?;
            while self.supply.give_back().map_err(|error| End::Disk(error.to_string()))? {}
            self.fx.log.dropped(segment);
            self.replica.segment_dropped(segment);
            self.dropped += 1;
            // What TOMBs hold back is another list now.
            break;
        }
        Ok(())
    }

    /// The bytes of a record, from memory or from disk.
    pub fn record_at(&mut self, pos: Pos, len: u32) -> Option<Vec<u8>> {
        let pos = views::wal_pos(pos);
        if let Some(bytes) = self.fx.log.recent(pos, len) {
            return Some(bytes.to_vec());
        }
        Some(self.reader.read_record(pos, len).ok()?.to_vec())
    }
}

fn is_full(error: &PrepareError) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull, WriteZero};
    match error {
        PrepareError::LowDisk { .. } => true,
        PrepareError::File(error) => {
            matches!(error.error.kind(), StorageFull | QuotaExceeded | WriteZero)
        }
    }
}
