//! What a restart makes of segment files that are not as they were written.
//!
//! An input names one of some sound logs and what happens to it: bytes that change, files that are cut or go, blocks that
//! the disk refuses, whole files of anything. Recovery must not panic, must hand out every record of a frame that stands
//! before the first damage of its segment, and the log must go on afterwards, through further starts, power failures and
//! blocks that can be read again, without losing what was told or synced since. Structures that lie under a sound
//! checksum, which no accident makes, need only be survived.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use iris_wal::batch::{FRAME_HEADER_BYTES, FrameHeader};
use iris_wal::disk::SyncMethod;
use iris_wal::disk::mem::MemDisk;
use iris_wal::feed::Feed;
use iris_wal::record;
use iris_wal::recovery::{Place, RecoverError, Recovered, recover, segment_name};
use iris_wal::segment::{Owner, SEGMENT_BYTES_MIN, SegmentHeader, TRAILER_BYTES, Trailer};
use iris_wal::store::{Supply, SupplyConfig, Writer};
use iris_wal::{
    AppendError, BLOCK, Body, Dot, Epoch, Head, Log, LogConfig, Mark, Msg, Origin, Pos, Reason,
    Record, Targets, Tomb,
};

use crate::Input;

const FRAME_BYTES: usize = 8 << 10;
const CONFIG: LogConfig = LogConfig {
    frame_bytes_max: FRAME_BYTES,
    closed_batches_max: 4,
    window_bytes: 16 << 10,
    ready_segments: 2,
    reserve_segments: 1,
};
const SUPPLY: SupplyConfig = SupplyConfig {
    segment_bytes: SEGMENT_BYTES_MIN,
    frame_bytes_max: FRAME_BYTES,
    spares_max: 1,
    free_bytes_min: 1 << 20,
    method: SyncMethod::DirectFdatasync,
};
/// Changes of one input, at most.
const CHANGES_MAX: u32 = 8;
/// Lives of the log after them, at most.
const LIVES_MAX: u8 = 4;

/// The power is off.
#[derive(Debug)]
struct Off;

const POWER: &str = "the power is on";

fn place() -> Place {
    let owner = Owner { cluster: [1; 16], node: [2; 16], node_id: 1, incarnation: 1, log_id: 0 };
    Place { dir: PathBuf::from("/wal/p000"), owner }
}

fn path_of(segment: u32) -> PathBuf {
    place().dir.join(segment_name(segment))
}

/// A frame of a sound log: where it ends, and the records in it.
#[derive(Clone, Debug)]
struct Frame {
    segment: u32,
    end: usize,
    records: Vec<(Pos, u64)>,
}

/// A sound log: its files by number of segment, and all its frames.
#[derive(Debug)]
struct Sound {
    files: Vec<Vec<u8>>,
    frames: Vec<Frame>,
}

fn head(seq: u64) -> Head {
    Head { shard: 3, origin: Origin { node: 1, incarnation: 1 }, seq, hlc: seq << 16 }
}

fn msg(seq: u64, payload: &[u8]) -> Record<'_> {
    let body = Msg {
        msg_id: u128::from(seq),
        sender: [9; 16],
        msg_flags: 0,
        copy: false,
        recipients: &[7; 32],
        from: b"alice",
        payload,
    };
    Record { head: head(seq), body: Body::Msg(body) }
}

/// One of each kind, and messages.
fn with_record(seq: u64, act: impl FnOnce(&Record<'_>)) {
    let dots = [1, 2, 9].map(|seq| Dot { origin: Origin { node: 1, incarnation: 1 }, seq });
    let outside = Head { seq: 0, ..head(seq) };
    let body = match seq % 9 {
        3 => {
            let targets = Targets::List(&dots);
            Body::Tomb(Tomb { inbox: [7; 16], reason: Reason::ACKED, targets })
        }
        5 => Body::Epoch(Epoch { state: 2, state_id: seq, peer_vv: b"vv" }),
        6 => return act(&Record { head: outside, body: Body::Dedup(b"state") }),
        7 => {
            let mark = Mark { heartbeat_hlc: seq, vv: b"vv" };
            return act(&Record { head: outside, body: Body::Mark(mark) });
        }
        _ => return act(&msg(seq, &vec![seq as u8; seq as usize * 97 % 3000])),
    };
    act(&Record { head: head(seq), body });
}

/// A log of some records, in batches of one to three. With `footers`, full segments are sealed.
fn make(records: u64, footers: bool) -> Sound {
    let disk = MemDisk::default();
    let mut node = Node::resume(&disk, Recovered::default(), 0, FRAME_BYTES);
    let mut frames = Vec::new();
    let mut pending = Vec::new();
    for seq in 1..=records {
        with_record(seq, |record| pending.push((node.append(record).expect(POWER), seq)));
        if seq % 3 == 0 || seq % 7 == 0 || seq == records {
            let flushed = node.flush(|segment, start, end| {
                let is_here = |(pos, _): &(Pos, u64)| {
                    pos.segment == segment && (start..end).contains(&(pos.offset as usize))
                };
                let records = pending.iter().copied().filter(is_here).collect();
                frames.push(Frame { segment, end, records });
            });
            flushed.expect(POWER);
            pending.clear();
        }
    }
    if footers {
        node.write_footers().expect(POWER);
    }
    assert!(frames.iter().map(|frame| frame.records.len() as u64).sum::<u64>() == records);
    let files = (1..).map(path_of).take_while(|path| disk.files().iter().any(|(p, _)| p == path));
    Sound { files: files.map(|path| disk.bytes(&path)).collect(), frames }
}

fn sound(which: u8) -> &'static Sound {
    static LOGS: OnceLock<Vec<Sound>> = OnceLock::new();
    let logs = LOGS.get_or_init(|| {
        vec![make(5, false), make(60, false), make(90, true), make(30, true), make(0, false)]
    });
    &logs[usize::from(which) % logs.len()]
}

/// A node's log on a disk in memory.
struct Node {
    log: Log,
    supply: Supply<MemDisk>,
    writer: Writer<MemDisk>,
    salt: u64,
}

impl Node {
    /// `life` counts them: salts are never used again.
    fn resume(disk: &MemDisk, recovered: Recovered, life: u8, frame_bytes_max: usize) -> Self {
        let supply = SupplyConfig { frame_bytes_max, ..SUPPLY };
        let supply = Supply::open(disk.clone(), place(), supply, &recovered);
        let config = LogConfig { frame_bytes_max, ..CONFIG };
        Self {
            supply: supply.expect("a disk in memory refuses nothing"),
            log: Log::resume(config, recovered),
            writer: Writer::new(disk.clone(), place().dir, SyncMethod::DirectFdatasync),
            salt: 100 + 1000 * u64::from(life),
        }
    }

    fn append(&mut self, record: &Record<'_>) -> Result<Pos, Off> {
        loop {
            match self.log.append(record) {
                Ok(pos) => return Ok(pos),
                Err(AppendError::NoSegment) => {
                    self.salt += 1;
                    let ready = self.supply.prepare(self.salt, 0).map_err(|_| Off)?;
                    self.log.add_segment(ready);
                }
                Err(AppendError::Full) => self.flush(|_, _, _| ())?,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Writes and syncs what waits; `each` is told segment, start and end of each frame.
    fn flush(&mut self, mut each: impl FnMut(u32, usize, usize)) -> Result<(), Off> {
        while let Some(write) = self.log.take_write() {
            self.writer.perform(&write).map_err(|_| Off)?;
            let start = write.offset() as usize;
            each(write.segment(), start, start + write.bytes().len());
            self.log.synced(write);
        }
        Ok(())
    }

    fn write_footers(&mut self) -> Result<(), Off> {
        while let Some(mut footer) = self.log.take_footer() {
            while !self.writer.perform_footer(&mut footer).map_err(|_| Off)? {}
            self.log.footer_written(footer);
        }
        Ok(())
    }

    /// Appends a few messages and syncs them, some together; `synced` gets the places of those that are.
    fn live(
        &mut self,
        input: &mut Input<'_>,
        payload_max: usize,
        synced: &mut BTreeSet<Pos>,
    ) -> Result<(), Off> {
        let mut waiting = Vec::new();
        for seq in 1000..1003 + u64::from(input.below(40)) {
            let payload = vec![seq as u8; 5 + 24 * usize::from(input.u8()) % payload_max];
            waiting.push(self.append(&msg(seq, &payload))?);
            if input.below(4) < 3 {
                self.flush(|_, _, _| ())?;
                synced.extend(waiting.drain(..));
            }
        }
        self.flush(|_, _, _| ())?;
        synced.extend(waiting);
        if input.below(2) == 1 { self.write_footers() } else { Ok(()) }
    }
}

/// What an input did to a log.
struct Damaged {
    disk: MemDisk,
    /// By segment that was written: the first byte that is not as it was.
    from: Vec<usize>,
    /// Something lies under a sound checksum.
    lies: bool,
}

/// Which log, and what happens to it.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let log = sound(input.u8());
    let damaged = damage(log, &mut input);
    let (recovered, told) = match read(&damaged.disk) {
        Ok(read) => read,
        Err(error) => return assert!(damaged.lies, "an accident stops a start: {error}"),
    };
    if !damaged.lies {
        for frame in &log.frames {
            if frame.end <= damaged.from[frame.segment as usize - 1] {
                for record in &frame.records {
                    assert!(told.contains(&record.0), "{record:?} stood before the damage");
                }
            }
        }
    }
    follow(&damaged.disk, recovered.last_batch);
    go_on(&damaged, recovered, told, &mut input);
}

fn read(disk: &MemDisk) -> Result<(Recovered, BTreeSet<Pos>), RecoverError> {
    let mut told = BTreeSet::new();
    let recovered = recover(disk, &place(), &mut |meta| {
        told.insert(meta.pos);
    })?;
    Ok((recovered, told))
}

/// A mirror that lacks something reads what is there.
fn follow(disk: &MemDisk, durable: u64) {
    let mut feed = Feed::new(disk.clone(), place().dir);
    for segment in 1..=4 {
        let mut from = Pos { segment, offset: 0 };
        // A step takes a frame at least, so this is more than there can be.
        for _ in 0..=SEGMENT_BYTES_MIN / BLOCK {
            let Ok(fed) = feed.read(from, durable, 4096) else { break };
            let mut rest = fed.records.as_slice();
            while let Ok((_, len)) = record::decode(rest) {
                rest = &rest[len..];
            }
            let Some(next) = fed.next else { break };
            assert!(next > from.offset, "a feed that goes on goes forward");
            from.offset = next;
        }
    }
}

/// The log goes on, and loses nothing of what was told or synced.
fn go_on(
    damaged: &Damaged,
    mut recovered: Recovered,
    mut told: BTreeSet<Pos>,
    input: &mut Input<'_>,
) {
    let Damaged { disk, lies, .. } = damaged;
    let mut synced = BTreeSet::new();
    for life in 1..=1 + input.below(LIVES_MAX) {
        let is_used_up = recovered.last_batch > 1 << 60 || recovered.next_segment > 1 << 30;
        if *lies && is_used_up {
            return;
        }
        let hlc_max = recovered.hlc_max;
        let frame_bytes = if input.below(4) == 1 { FRAME_BYTES / 2 } else { FRAME_BYTES };
        let mut node = Node::resume(disk, recovered, life, frame_bytes);
        let operations = input.below(60);
        if operations > 0 {
            disk.power_off_after(operations.into());
        }
        let ended = node.live(input, frame_bytes - 512, &mut synced);
        assert!(ended.is_ok() || operations > 0, "a disk in memory refuses nothing");
        disk.crash(&mut |choices| usize::from(input.u8()) % choices);
        if input.below(4) == 1 {
            disk.make_readable();
        }
        if input.below(4) == 1 {
            // If a header lied and is lost, nothing tells which use of the file counts.
            if *lies {
                return;
            }
            rot_header(disk, 1 + u32::from(input.below(8)));
        }
        match read(disk) {
            Ok((now, again)) => {
                assert!(synced.is_subset(&again), "what is synced stays");
                assert!(*lies || told.is_subset(&again), "what was told stays");
                assert!(*lies || now.hlc_max >= hlc_max);
                (recovered, told) = (now, again);
            }
            Err(error) => {
                return assert!(*lies, "the log that went on does not start: {error}");
            }
        }
    }
}

/// Damages the header of a segment, if it is there: no record depends on it.
fn rot_header(disk: &MemDisk, segment: u32) {
    let path = path_of(segment);
    if disk.files().iter().any(|(at, len)| *at == path && *len > 0) {
        disk.damage(&path, |bytes| bytes[70.min(bytes.len() - 1)] ^= 1);
    }
}

fn damage(log: &Sound, input: &mut Input<'_>) -> Damaged {
    let mut files: Vec<Option<Vec<u8>>> = log.files.iter().cloned().map(Some).collect();
    let mut unreadable = Vec::new();
    let mut lies = false;
    let count = files.len() as u8;
    for _ in 0..CHANGES_MAX {
        if input.is_empty() {
            break;
        }
        let (what, file) = (input.below(12), usize::from(input.below(count.max(1))));
        if what == 10 {
            // A file of anything behind the others.
            files.push(Some(input.short().to_vec()));
            continue;
        }
        let other = usize::from(count.saturating_sub(1)).saturating_sub(file);
        let other = files.get(other).cloned().flatten().unwrap_or_default();
        let Some(Some(bytes)) = files.get_mut(file) else { continue };
        let at = usize::from(input.u16()) % bytes.len().max(1);
        let len = usize::from(input.u8()) * 64;
        let end = bytes.len().min(at + len);
        match what {
            0 | 1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= input.u8() | 1;
                }
            }
            2 => bytes[at..end].fill(input.u8()),
            3 => {
                let from = usize::from(input.u16()) % other.len().max(1);
                let len = (end - at).min(other.len() - from.min(other.len()));
                bytes[at..at + len].copy_from_slice(&other[from..from + len]);
            }
            4 => bytes.truncate(at),
            5 => {
                for (byte, with) in bytes[at..].iter_mut().zip(input.short()) {
                    *byte = *with;
                }
            }
            6 => unreadable.push((file, at / BLOCK)),
            7 => files[file] = None,
            _ => lies |= lie(bytes, what, at, input),
        }
    }
    let disk = MemDisk::default();
    let mut from = vec![usize::MAX; log.files.len()];
    for (index, file) in files.iter().enumerate() {
        let Some(file) = file else {
            from.get_mut(index).into_iter().for_each(|from| *from = 0);
            continue;
        };
        let path: &Path = &path_of(index as u32 + 1);
        disk.put(path, file);
        if let Some(written) = log.files.get(index) {
            let differs = first_difference(file, written);
            let is_cut = (file.len() < written.len()).then_some(file.len());
            from[index] = differs.or(is_cut).unwrap_or(usize::MAX);
        }
    }
    for (file, block) in unreadable {
        if files[file].is_some() {
            disk.make_unreadable(&path_of(file as u32 + 1), block as u64);
            from.get_mut(file).into_iter().for_each(|from| *from = (*from).min(block * BLOCK));
        }
    }
    Damaged { disk, from, lies }
}

/// The first byte that differs, of those that both have. Whole blocks first: most are alike.
fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let blocks = one.chunks(BLOCK).zip(other.chunks(BLOCK));
    let (place, (one, other)) = blocks.enumerate().find(|(_, (one, other))| {
        let both = one.len().min(other.len());
        one[..both] != other[..both]
    })?;
    let within = one.iter().zip(other).position(|(one, other)| one != other);
    Some(place * BLOCK + within.expect("these blocks differ"))
}

/// Changes a structure and makes its checksum fit. Whether there was one.
fn lie(bytes: &mut [u8], what: u8, at: usize, input: &mut Input<'_>) -> bool {
    let (field, value) = (input.below(10), input.u64());
    match what {
        8 => {
            let at = at / BLOCK * BLOCK;
            let Some(place) = bytes.get_mut(at..at + FRAME_HEADER_BYTES) else { return false };
            let Ok(mut header) = FrameHeader::decode(place) else { return false };
            match field {
                0 => header.body_len = value as u32,
                1 => header.records = value as u32,
                2 => header.batch_no = value,
                3 => header.durable_upto = value,
                4 => header.chain = value,
                5 => header.body_crc = value as u32,
                6 => header.batch_no = header.batch_no.wrapping_add(value % 16),
                7 => header.body_len = header.body_len.wrapping_add(value as u32 % 64),
                8 => header.salt = value,
                _ => header.offset = value as u32,
            }
            header.encode_into(place);
        }
        9 => {
            let Some(place) = bytes.get_mut(..BLOCK) else { return false };
            let Ok(mut header) = SegmentHeader::decode(place) else { return false };
            match field {
                0 => header.segment = value as u32,
                1 => header.salt = value,
                2 => header.segment_bytes = value as u32,
                3 => header.frame_bytes_max = value as u32,
                4 => header.owner.node_id = value as u32,
                5 => header.incompatible = value,
                6 => header.segment_bytes = (value as u32 % 64) * BLOCK as u32,
                7 => header.frame_bytes_max = (value as u32 % 64) * BLOCK as u32,
                _ => header.compatible = value,
            }
            header.encode_into(place);
        }
        _ => {
            let Some(start) = bytes.len().checked_sub(TRAILER_BYTES) else { return false };
            let (len, place) = (bytes.len() as u32, &mut bytes[start..]);
            let Some(mut trailer) =
                (1..=4).find_map(|segment| Trailer::decode_any(place, segment, len))
            else {
                return false;
            };
            match field {
                0 => trailer.entries_start = (value as u32 % 64) * BLOCK as u32,
                1 => trailer.entries_len = value as u32,
                2 => trailer.entries = value as u32,
                3 => trailer.data_end = value as u32,
                4 => trailer.first_batch = value,
                5 => trailer.last_batch = value,
                6 => trailer.last_chain = value,
                7 => trailer.entries_crc = value as u32,
                8 => trailer.no_entries = !trailer.no_entries,
                _ => trailer.hlc_max = value,
            }
            trailer.encode_into(place);
        }
    }
    true
}
