//! A node's log on a disk in memory, as the tests of this crate drive it.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test file compiles this module for itself and uses a part of it"
)]

use std::path::{Path, PathBuf};

use iris_wal::disk::SyncMethod;
use iris_wal::disk::mem::MemDisk;
use iris_wal::feed::Feed;
use iris_wal::recovery::{Place, RecoverError, Recovered, recover, segment_name};
use iris_wal::segment::Owner;
use iris_wal::store::{Reader, Supply, SupplyConfig, Writer};
use iris_wal::{
    AppendError, Body, Dot, Head, Log, LogConfig, Meta, MetaBody, Msg, Origin, Pos, Reason, Record,
    Targets, Tomb, record,
};

pub(crate) const SEGMENT_BYTES: usize = 256 << 10;
pub(crate) const FRAME_BYTES: usize = 32 << 10;

pub(crate) const CONFIG: LogConfig = LogConfig {
    frame_bytes_max: FRAME_BYTES,
    closed_batches_max: 4,
    window_bytes: 64 << 10,
    ready_segments: 2,
    reserve_segments: 1,
};

pub(crate) const SUPPLY: SupplyConfig = SupplyConfig {
    segment_bytes: SEGMENT_BYTES,
    frame_bytes_max: FRAME_BYTES,
    spares_max: 2,
    free_bytes_min: 1 << 20,
    method: SyncMethod::DirectFdatasync,
};

pub(crate) const ORIGIN: Origin = Origin { node: 1, incarnation: 1 };
pub(crate) const KEY: [u8; 16] = [7; 16];

pub(crate) fn place() -> Place {
    let owner = Owner { cluster: [1; 16], node: [2; 16], node_id: 1, incarnation: 1, log_id: 0 };
    Place { dir: PathBuf::from("/wal/p000"), owner }
}

pub(crate) fn path_of(segment: u32) -> PathBuf {
    Path::new("/wal/p000").join(segment_name(segment))
}

/// A record as recovery told it, without borrows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    Msg { pos: Pos, len: u32, seq: u64, copy: bool },
    Tomb { pos: Pos, seq: u64, targets: Vec<Dot> },
    Other { pos: Pos, seq: u64 },
}

impl Told {
    pub(crate) fn of(meta: &Meta<'_>) -> Self {
        let (pos, seq) = (meta.pos, meta.head.seq);
        match &meta.body {
            MetaBody::Msg(msg) => Told::Msg { pos, len: meta.len, seq, copy: msg.copy },
            MetaBody::Tomb(tomb) => Told::Tomb { pos, seq, targets: tomb.targets.dots().collect() },
            _ => Told::Other { pos, seq },
        }
    }

    pub(crate) fn seq(&self) -> u64 {
        match self {
            Told::Msg { seq, .. } | Told::Tomb { seq, .. } | Told::Other { seq, .. } => *seq,
        }
    }

    pub(crate) fn pos(&self) -> Pos {
        match self {
            Told::Msg { pos, .. } | Told::Tomb { pos, .. } | Told::Other { pos, .. } => *pos,
        }
    }
}

pub(crate) fn head(seq: u64) -> Head {
    Head { shard: 3, origin: ORIGIN, seq, hlc: seq << 16 }
}

pub(crate) fn msg(seq: u64, payload: &[u8]) -> Record<'_> {
    let body = Msg {
        msg_id: u128::from(seq),
        sender: [9; 16],
        msg_flags: 0,
        copy: false,
        recipients: &KEY,
        from: b"alice",
        payload,
    };
    Record { head: head(seq), body: Body::Msg(body) }
}

pub(crate) fn tomb(seq: u64, targets: &[Dot]) -> Record<'_> {
    let body = Tomb { inbox: KEY, reason: Reason::ACKED, targets: Targets::List(targets) };
    Record { head: head(seq), body: Body::Tomb(body) }
}

pub(crate) fn dot(seq: u64) -> Dot {
    Dot { origin: ORIGIN, seq }
}

pub(crate) struct Node {
    pub(crate) disk: MemDisk,
    pub(crate) log: Log,
    pub(crate) supply: Supply<MemDisk>,
    pub(crate) writer: Writer<MemDisk>,
    pub(crate) reader: Reader<MemDisk>,
    pub(crate) salt: u64,
}

pub(crate) fn read(disk: &MemDisk) -> Result<(Recovered, Vec<Told>), RecoverError> {
    let mut told = Vec::new();
    let recovered = recover(disk, &place(), &mut |meta| told.push(Told::of(&meta)))?;
    Ok((recovered, told))
}

impl Node {
    /// Recovers what is on the disk and goes on.
    pub(crate) fn boot(disk: &MemDisk, salt: u64) -> (Self, Vec<Told>) {
        let (recovered, told) = read(disk).unwrap();
        (Self::resume(disk, recovered, salt), told)
    }

    pub(crate) fn resume(disk: &MemDisk, recovered: Recovered, salt: u64) -> Self {
        Self::resume_with(disk, recovered, salt, SUPPLY)
    }

    /// Goes on with segments and frames of other lengths.
    pub(crate) fn resume_with(
        disk: &MemDisk,
        recovered: Recovered,
        salt: u64,
        supply: SupplyConfig,
    ) -> Self {
        let config = LogConfig { frame_bytes_max: supply.frame_bytes_max, ..CONFIG };
        let supply = Supply::open(disk.clone(), place(), supply, &recovered).unwrap();
        let dir = place().dir;
        Self {
            disk: disk.clone(),
            log: Log::resume(config, recovered),
            supply,
            writer: Writer::new(disk.clone(), dir.clone(), SyncMethod::DirectFdatasync),
            reader: Reader::new(disk.clone(), dir),
            salt,
        }
    }

    pub(crate) fn new() -> Self {
        Self::boot(&MemDisk::default(), 100).0
    }

    pub(crate) fn feed(&mut self) {
        for _ in 0..self.log.wants_segments() {
            self.salt += 1;
            let ready = self.supply.prepare(self.salt, 0).unwrap();
            self.log.add_segment(ready);
        }
    }

    /// Writes and syncs whatever waits.
    pub(crate) fn flush(&mut self) {
        while let Some(write) = self.log.take_write() {
            self.writer.perform(&write).unwrap();
            self.log.synced(write);
        }
    }

    pub(crate) fn write_footers(&mut self) {
        while let Some(mut footer) = self.log.take_footer() {
            while !self.writer.perform_footer(&mut footer).unwrap() {}
            self.log.footer_written(footer);
        }
    }

    /// Has the power fail in the next write, of which the first sector is there.
    pub(crate) fn tear(&mut self) {
        let write = self.log.take_write().unwrap();
        // The write, and not the sync.
        self.disk.power_off_after(1);
        assert!(self.writer.perform(&write).is_err());
        let mut asked = 0;
        self.disk.crash(&mut |choices| {
            asked += 1;
            match choices {
                // In part, and of that the first sector.
                3 => 2,
                2 => usize::from(asked == 3),
                _ => 0,
            }
        });
    }

    /// Appends; brings segments and writes batches when the log asks for it.
    pub(crate) fn append(&mut self, record: &Record<'_>) -> Pos {
        loop {
            match self.log.append(record) {
                Ok(pos) => return pos,
                Err(AppendError::NoSegment) => self.feed(),
                Err(AppendError::Full) => self.flush(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Appends and syncs messages, one batch for each.
    pub(crate) fn send(&mut self, seqs: std::ops::RangeInclusive<u64>, payload: &[u8]) -> Vec<Pos> {
        let positions = seqs.map(|seq| {
            let pos = self.append(&msg(seq, payload));
            self.flush();
            pos
        });
        positions.collect()
    }
}

/// A bit of a segment's header: no record depends on it, and the segment is not filled further.
pub(crate) const HEADER_BYTE: usize = 70;

/// Sequence numbers of messages, in the order they were told.
pub(crate) fn messages(told: &[Told]) -> Vec<u64> {
    seqs(told).into_iter().filter(|seq| *seq != 0).collect()
}

pub(crate) fn rot(node: &Node, segment: u32, byte: usize) {
    node.disk.damage(&path_of(segment), |bytes| bytes[byte] ^= 1);
}

/// A log that goes on with frames of half the length.
pub(crate) fn resume_halved(disk: &MemDisk, recovered: Recovered, salt: u64) -> Node {
    let supply = SupplyConfig { frame_bytes_max: FRAME_BYTES / 2, ..SUPPLY };
    Node::resume_with(disk, recovered, salt, supply)
}

/// Messages 1 to 7, a batch each, in segment 1, which has room for short ones. A long one went to segment 2, and the power
/// failed in its write: the first sector is there.
pub(crate) fn torn_in_the_second() -> MemDisk {
    let mut node = Node::new();
    let sent = node.send(1..=7, &[1; 30_000]);
    assert!(sent.iter().all(|pos| pos.segment == 1));
    let torn = node.append(&msg(8, &[2; 30_000]));
    assert_eq!(torn.segment, 2);
    node.tear();
    node.disk
}

pub(crate) fn seqs(told: &[Told]) -> Vec<u64> {
    told.iter().map(Told::seq).collect()
}

/// The sequence numbers that a feed gives from the beginning of a segment, in steps of `bytes_max`.
pub(crate) fn fed(node: &Node, segment: u32, durable: u64, bytes_max: usize) -> Vec<u64> {
    let mut feed = Feed::new(node.disk.clone(), place().dir);
    let (mut seqs, mut offset) = (Vec::new(), Some(0));
    while let Some(from) = offset {
        let fed = feed.read(Pos { segment, offset: from }, durable, bytes_max).unwrap();
        let mut rest = &fed.records[..];
        while !rest.is_empty() {
            let (record, len) = record::decode(rest).unwrap();
            seqs.push(record.head.seq);
            rest = &rest[len..];
        }
        offset = fed.next;
        assert!(offset.is_none_or(|next| next > from), "a feed goes forward");
    }
    seqs
}

/// SplitMix64 (Steele, Lea, Flood 2014): a run is a pure function of its seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is at least 1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Writes the log of a disk in memory to `<data>/wal/p000` of the real one.
pub(crate) fn export(disk: &MemDisk, data: &Path) {
    use iris_wal::disk::Disk;
    let dir = iris_wal::io::log_dir(data, 0);
    std::fs::create_dir_all(&dir).unwrap();
    for name in disk.names(&place().dir).unwrap() {
        std::fs::write(dir.join(&name), disk.bytes(&place().dir.join(&name))).unwrap();
    }
}
