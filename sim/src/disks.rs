//! What disks truly hold, and how to spoil that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use iris_wal::Pos;
use iris_wal::disk::mem::MemDisk;
use iris_wal::feed::Feed;
use iris_wal::record;
use iris_wal::recovery::segment_of_name;

use crate::model::At;
use crate::node::dir;
use crate::random::Random;
use iris_wal::views::proto_dot;

/// The segments of a disk and their lengths.
fn segments(disk: &MemDisk) -> Vec<(PathBuf, u32, usize)> {
    let number = |path: &Path| segment_of_name(path.file_name()?.to_str()?);
    let files = disk.files().into_iter();
    files.filter_map(|(path, len)| Some((path.clone(), number(&path)?, len))).collect()
}

/// The records that can be read of one segment, and how often each stands there.
fn records_in(disk: &MemDisk, segment: u32, found: &mut BTreeMap<At, u32>) {
    let mut feed = Feed::new(disk.clone(), dir());
    let Ok(fed) = feed.read(Pos { segment, offset: 0 }, u64::MAX, usize::MAX) else { return };
    let mut rest = &fed.records[..];
    while let Ok((record, len)) = record::decode(rest) {
        rest = &rest[len..];
        if record.head.seq > 0 {
            *found.entry((record.head.shard, proto_dot(record.head.dot()))).or_default() += 1;
        }
    }
}

/// The records that can be read on a disk, and how often each stands there.
pub fn readable(disk: &MemDisk) -> BTreeMap<At, u32> {
    let mut found = BTreeMap::new();
    segments(disk).iter().for_each(|(_, segment, _)| records_in(disk, *segment, &mut found));
    found
}

/// What stood on a disk and no longer does.
pub fn gone(before: &BTreeMap<At, u32>, after: &BTreeMap<At, u32>) -> BTreeSet<At> {
    let is_gone = |at: &&At| !after.contains_key(*at);
    before.keys().filter(is_gone).copied().collect()
}

/// Flips a bit somewhere on a disk, where all that becomes unreadable stands on the other disk as well. What became
/// unreadable here altogether; `None` if no such place was found.
pub fn rot(disk: &MemDisk, other: &MemDisk, random: &mut Random) -> Option<BTreeSet<At>> {
    let segments = segments(disk);
    let held = readable(other);
    for _ in 0..8 {
        let (path, segment, len) =
            segments.get(random.below(64) as usize % segments.len().max(1))?;
        let mut before = BTreeMap::new();
        records_in(disk, *segment, &mut before);
        if before.is_empty() {
            continue;
        }
        let (byte, bit) = (random.below(*len as u64) as usize, random.below(8) as u8);
        disk.flip_bit(path, byte, bit);
        let mut after = BTreeMap::new();
        records_in(disk, *segment, &mut after);
        let hit = gone(&before, &after);
        // A place that holds nothing proves nothing, most of the time.
        if hit.iter().all(|at| held.contains_key(at)) && (!hit.is_empty() || random.one_in(4)) {
            let here = readable(disk);
            return Some(hit.into_iter().filter(|at| !here.contains_key(at)).collect());
        }
        disk.flip_bit(path, byte, bit);
    }
    None
}

/// Where a write of so many bytes may go wrong: it hits nothing that the other disk does not hold.
pub fn elsewhere(
    disk: &MemDisk,
    other: &MemDisk,
    random: &mut Random,
    bytes: usize,
) -> Option<(PathBuf, u64)> {
    let segments = segments(disk);
    let held = readable(other);
    for _ in 0..8 {
        let (path, segment, len) =
            segments.get(random.below(64) as usize % segments.len().max(1))?;
        let at = random.below((*len / 4096).max(1) as u64) as usize * 4096;
        let mut before = BTreeMap::new();
        records_in(disk, *segment, &mut before);
        let scratch = MemDisk::default();
        scratch.put(path, &disk.bytes(path));
        scratch.damage(path, |file| {
            let end = file.len().min(at + bytes);
            file[at.min(end)..end].fill(0xa5);
        });
        let mut after = BTreeMap::new();
        records_in(&scratch, *segment, &mut after);
        if gone(&before, &after).iter().all(|at| held.contains_key(at)) {
            return Some((path.clone(), at as u64));
        }
    }
    None
}
