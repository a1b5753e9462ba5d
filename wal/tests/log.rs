//! The write side: group commit, bounds, low disk, what is still in memory.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::ErrorKind;

use common::{
    CONFIG, FRAME_BYTES, Node, Random, SEGMENT_BYTES, SUPPLY, dot, head, msg, path_of, place, tomb,
};
use iris_wal::disk::SyncMethod;
use iris_wal::disk::mem::MemDisk;
use iris_wal::record::decode;
use iris_wal::store::{PrepareError, ReadError, Supply, SupplyConfig, Writer};
use iris_wal::{AppendError, BLOCK, Body, Log, Mark, Msg, Pos, Ready, Record, Recovered};

fn ready(segment: u32) -> Ready {
    let (bytes, frame_bytes_max) = (SEGMENT_BYTES as u32, FRAME_BYTES as u32);
    Ready { segment, salt: 1, bytes, frame_bytes_max }
}

fn log(segments: u32) -> Log {
    let mut log = Log::resume(CONFIG, Recovered::default());
    (1..=segments).for_each(|segment| log.add_segment(ready(segment)));
    log
}

fn write_all(log: &mut Log) {
    while let Some(write) = log.take_write() {
        log.synced(write);
    }
}

#[test]
fn a_batch_is_whatever_came_while_the_last_sync_ran() {
    let mut log = log(3);
    log.append(&msg(1, b"a")).unwrap();
    let first = log.take_write().unwrap();
    assert_eq!((first.batch_no(), first.records(), first.bytes().len()), (1, 1, BLOCK));
    for seq in 2..=5 {
        log.append(&msg(seq, b"b")).unwrap();
    }
    assert!(log.take_write().is_none(), "one write at a time");
    assert_eq!(log.durable(), 0);
    log.synced(first);
    assert_eq!(log.durable(), 1);
    let second = log.take_write().unwrap();
    assert_eq!((second.batch_no(), second.records()), (2, 4));
    assert_eq!(second.offset(), 2 * BLOCK as u64);
    log.synced(second);
    assert!(log.is_idle() && log.take_write().is_none());
}

#[test]
fn a_place_is_final_when_append_returns() {
    let mut log = log(3);
    let mut appended = Vec::new();
    let mut writes = Vec::new();
    for seq in 1..=100 {
        let payload = vec![seq as u8; 1 + seq as usize * 37];
        let record = msg(seq, &payload);
        let pos = log.append(&record).unwrap();
        appended.push((pos, log.lsn(), record.to_vec()));
        if seq % 7 == 0 {
            let write = log.take_write().unwrap();
            writes.push((
                write.segment(),
                write.offset(),
                write.batch_no(),
                write.bytes().to_vec(),
            ));
            log.synced(write);
        }
    }
    while let Some(write) = log.take_write() {
        writes.push((write.segment(), write.offset(), write.batch_no(), write.bytes().to_vec()));
        log.synced(write);
    }
    for (pos, lsn, bytes) in appended {
        let (_, offset, _, written) = writes
            .iter()
            .find(|(segment, _, batch_no, _)| (*segment, *batch_no) == (pos.segment, lsn))
            .unwrap();
        let at = pos.offset as usize - *offset as usize;
        assert_eq!(&written[at..at + bytes.len()], bytes);
    }
}

#[test]
fn batches_that_wait_are_bounded() {
    let mut log = log(3);
    let payload = [1; 8000];
    let refused = (1..).find_map(|seq| log.append(&msg(seq, &payload)).err().map(|e| (seq, e)));
    // Four frames of four records each wait, the open one holds four more.
    assert_eq!(refused, Some((21, AppendError::Full)));
    let write = log.take_write().unwrap();
    assert_eq!(log.append(&msg(21, &payload)).map(|_| ()), Ok(()));
    log.synced(write);
}

#[test]
fn a_record_that_never_fits_is_refused_and_changes_nothing() {
    let mut log = log(3);
    let before = log.append(&msg(1, b"a")).unwrap();
    assert_eq!(log.append(&msg(2, &[0; FRAME_BYTES])), Err(AppendError::TooLarge));
    let long_name = [b'x'; 256];
    let Body::Msg(body) = msg(2, b"a").body else { unreachable!() };
    let record = Record { head: head(2), body: Body::Msg(Msg { from: &long_name, ..body }) };
    assert_eq!(log.append(&record), Err(AppendError::TooLarge));
    let after = log.append(&msg(2, b"a")).unwrap();
    assert_eq!(after.offset as usize - before.offset as usize, msg(1, b"a").encoded_len());
}

#[test]
fn the_last_segment_is_kept_for_what_frees_space() {
    let mut log = log(2);
    let payload = [1; 4000];
    let mut seq = 0;
    let mut until_refused = |log: &mut Log| loop {
        seq += 1;
        match log.append(&msg(seq, &payload)) {
            Ok(_) => {}
            Err(AppendError::Full) => {}
            Err(error) => return error,
        }
        while let Some(write) = log.take_write() {
            log.synced(write);
        }
    };
    assert_eq!(until_refused(&mut log), AppendError::NoSegment);
    log.set_low_disk(true);
    assert_eq!(until_refused(&mut log), AppendError::LowDisk);
    // A TOMB still fits, in the reserve if need be.
    let targets = [dot(1), dot(2)];
    while log.append(&tomb(1000, &targets)).unwrap().segment == 1 {}
    // In the reserve itself a new message finds no room either.
    assert_eq!(log.append(&msg(5000, b"small")), Err(AppendError::LowDisk));
    log.set_low_disk(false);
    assert!(log.append(&msg(5000, b"small")).is_ok());
}

/// Copies, parts of checkpoints, ends of checkpoints, MARKs.
fn upkeep(payload: &[u8]) -> [Record<'_>; 3] {
    let Body::Msg(body) = msg(1, payload).body else { unreachable!() };
    let mark = Mark { heartbeat_hlc: 1, vv: &[] };
    [
        Record { head: head(1), body: Body::Msg(Msg { copy: true, ..body }) },
        Record { head: head(0), body: Body::Dedup(payload) },
        Record { head: head(0), body: Body::Mark(mark) },
    ]
}

#[test]
fn what_can_wait_leaves_the_reserve_to_tombs_before_and_after_they_use_it() {
    let payload = [1; 4000];
    for kind in 0..3 {
        let mut log = log(2);
        let record = upkeep(&payload)[kind];
        log.append(&record).unwrap();
        let refused = loop {
            if let Err(error) = log.append(&record).or_else(|error| match error {
                AppendError::Full => Ok(Pos::default()),
                error => Err(error),
            }) {
                break error;
            }
            write_all(&mut log);
        };
        assert_eq!(refused, AppendError::NoSegment, "{kind}: the reserve is not for it");
        assert!(!log.has_room_for_upkeep());
        let mut fill = 2_000;
        while log.append(&tomb(fill, &[dot(1)])).unwrap().segment == 1 {
            write_all(&mut log);
            fill += 1;
        }
        assert_eq!(log.append(&record), Err(AppendError::NoSegment), "{kind}: nor what is left");
        assert_eq!(log.checkpoint_complete(head(0)), Err(AppendError::NoSegment));
        write_all(&mut log);
        assert_eq!(log.idle_mark(head(0)), Err(AppendError::NoSegment));
        assert!(log.append(&tomb(fill, &[dot(1)])).is_ok());
        log.add_segment(ready(3));
        assert!(log.append(&record).is_ok(), "{kind}: the reserve is whole again");
    }
}

#[test]
fn a_checkpoint_that_frees_space_may_use_the_reserve() {
    let mut log = log(2);
    let part = Record { head: head(0), body: Body::Dedup(&[1; 4000]) };
    while log.append(&part).is_ok() {
        write_all(&mut log);
    }
    let room = log.room_bytes();
    assert!((SEGMENT_BYTES - FRAME_BYTES..SEGMENT_BYTES + FRAME_BYTES).contains(&room), "{room}");
    log.set_checkpoint_frees(true);
    assert_eq!(log.append(&part).unwrap().segment, 2);
    assert_eq!(log.checkpoint_complete(head(0)), Ok(()));
    assert!(log.room_bytes() < room);
    log.set_checkpoint_frees(false);
    assert_eq!(log.append(&part), Err(AppendError::NoSegment));
}

#[test]
fn a_complete_checkpoint_counts_in_the_lives_to_come_and_a_damaged_one_does_not() {
    let mut node = Node::new();
    node.send(1..=150, &[1; 2000]);
    let began = node.append(&Record { head: head(0), body: Body::Dedup(&[1; 100]) });
    node.send(151..=300, &[1; 2000]);
    let part = node.append(&Record { head: head(0), body: Body::Dedup(&[2; 100]) });
    node.flush();
    assert_eq!(common::read(&node.disk).unwrap().0.checkpoint, None, "it is not complete");
    node.log.checkpoint_complete(head(0)).unwrap();
    node.flush();
    node.write_footers();
    let (recovered, _) = common::read(&node.disk).unwrap();
    assert!(1 < began.segment && began.segment < part.segment);
    assert_eq!(recovered.checkpoint, Some(began.segment));
    let next = Node::resume(&node.disk, recovered, 900);
    assert_eq!(next.log.droppable(), (1..began.segment).collect::<Vec<_>>(), "nothing is live");
    for (segment, whole) in [(began.segment - 1, true), (began.segment, false)] {
        let (disk, other) = (MemDisk::default(), path_of(segment));
        use iris_wal::disk::Disk;
        for name in node.disk.names(&place().dir).unwrap() {
            let path = place().dir.join(name);
            disk.put(&path, &node.disk.bytes(&path));
        }
        disk.damage(&other, |bytes| {
            bytes[8192] ^= 1;
            bytes[SEGMENT_BYTES - BLOCK..].fill(0);
        });
        let (recovered, _) = common::read(&disk).unwrap();
        assert_eq!(recovered.faults.len(), 1);
        assert_eq!(recovered.checkpoint.is_some(), whole, "segment {segment}");
    }
}

#[test]
fn a_checkpoint_begun_without_any_segment_begins_with_its_first_record() {
    let mut node = Node::new();
    // As after a recovery that left neither a tail nor unused segments.
    node.log.checkpoint_began();
    node.send(1..=200, &[1; 2000]);
    let first = node.append(&Record { head: head(0), body: Body::Dedup(&[1; 100]) });
    node.log.checkpoint_complete(head(0)).unwrap();
    node.flush();
    node.write_footers();
    assert_eq!(node.log.droppable(), (1..first.segment).collect::<Vec<_>>());
}

#[test]
fn a_checkpoint_of_nothing_needs_no_part() {
    let mut node = Node::new();
    node.send(1..=200, &[1; 2000]);
    node.write_footers();
    let sealed = node.log.reclaim().segments().filter(|segment| segment.sealed);
    let sealed: Vec<u32> = sealed.map(|segment| segment.segment).collect();
    assert!(node.log.droppable().is_empty() && node.log.reclaim().waiting_for_checkpoint() > 0);
    node.log.checkpoint_began();
    node.log.checkpoint_complete(head(0)).unwrap();
    node.flush();
    assert_eq!(node.log.droppable(), sealed);
    assert_eq!(node.log.reclaim().waiting_for_checkpoint(), 0);
    let (recovered, _) = common::read(&node.disk).unwrap();
    assert_eq!(recovered.checkpoint, sealed.last().map(|last| last + 1));
}

#[test]
fn a_log_wants_the_segments_it_will_need() {
    let mut log = Log::resume(CONFIG, Recovered::default());
    assert_eq!(log.wants_segments(), 3);
    assert_eq!(log.append(&msg(1, b"a")), Err(AppendError::NoSegment));
    log.add_segment(ready(1));
    log.append(&msg(1, b"a")).unwrap();
    assert_eq!(log.wants_segments(), 2);
    log.add_segment(ready(2));
    log.add_segment(ready(3));
    assert_eq!(log.wants_segments(), 0);
}

#[test]
fn a_record_written_lately_is_found_in_memory() {
    let mut log = log(3);
    let mut places: Vec<(Pos, Vec<u8>)> = Vec::new();
    for seq in 1..=40 {
        let payload = vec![seq as u8; 3000];
        let record = msg(seq, &payload);
        places.push((log.append(&record).unwrap(), record.to_vec()));
        if seq % 4 == 0 {
            let write = log.take_write().unwrap();
            log.synced(write);
        }
    }
    let found = places.iter().filter(|(pos, bytes)| {
        let recent = log.recent(*pos, bytes.len() as u32);
        assert!(recent.is_none_or(|recent| recent == bytes));
        recent.is_some_and(|recent| decode(recent).is_ok())
    });
    // A window of 64 KiB holds five frames of four such records.
    assert_eq!(found.count(), 20);
    assert_eq!(log.recent(Pos { segment: 9, offset: 4096 }, 10), None);
}

#[test]
fn of_a_batch_being_written_copies_are_found_and_new_messages_are_not() {
    let mut log = log(3);
    let new = msg(1, b"new");
    let Body::Msg(original) = msg(2, b"old").body else { panic!("a message") };
    let copy = Record { body: Body::Msg(Msg { copy: true, ..original }), ..msg(2, b"old") };
    let place = log.append(&new).unwrap();
    let write = log.take_write().unwrap();
    assert_eq!(log.recent(place, new.encoded_len() as u32), None, "it is not durable");
    log.synced(write);
    let place = log.append(&copy).unwrap();
    let write = log.take_write().unwrap();
    assert_eq!(log.recent(place, copy.encoded_len() as u32), Some(copy.to_vec().as_slice()));
    log.synced(write);
    assert_eq!(log.recent(place, copy.encoded_len() as u32), Some(copy.to_vec().as_slice()));
}

#[test]
#[should_panic(expected = "writes come back one by one")]
fn a_write_that_was_not_taken_cannot_be_reported() {
    let (mut one, mut other) = (log(3), log(3));
    one.append(&msg(1, b"a")).unwrap();
    other.append(&msg(1, b"a")).unwrap();
    let write = one.take_write().unwrap();
    other.synced(write);
}

#[test]
fn a_failed_or_short_write_or_sync_is_fatal() {
    type Break = fn(&Node);
    let breaks: [(Break, &str); 3] = [
        (|node| node.disk.fail_next_write(ErrorKind::StorageFull), "failed to write to"),
        (|node| node.disk.shorten_next_write(100), "short write: 100 of 4096 bytes at 4096"),
        (|node| node.disk.fail_next_sync(ErrorKind::Other), "failed to sync"),
    ];
    for (break_disk, said) in breaks {
        let mut node = Node::new();
        node.append(&msg(1, b"a"));
        let write = node.log.take_write().unwrap();
        break_disk(&node);
        let error = node.writer.perform(&write).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(error.contains("/wal/p000/00000001.seg"), "{error}");
        assert!(error.ends_with("the node must stop"), "{error}");
        assert_eq!(node.log.durable(), 0, "nothing of it is durable (I1)");
    }
}

#[test]
fn a_dsync_write_needs_no_further_sync() {
    let mut node = Node::new();
    node.writer = Writer::new(node.disk.clone(), place().dir, SyncMethod::DirectDsync);
    node.append(&msg(1, b"a"));
    let before = node.disk.syncs();
    node.flush();
    assert_eq!(node.disk.syncs(), before + 1);
    node.disk.crash(&mut |_| 0);
    assert_eq!(common::read(&node.disk).unwrap().1.len(), 1);
}

#[test]
fn no_segment_is_made_that_would_fill_the_disk() {
    let mut node = Node::new();
    node.feed();
    let segment = SUPPLY.segment_bytes as u64;
    node.disk.leave_free(SUPPLY.free_bytes_min + segment - 1);
    let error = node.supply.prepare(1, 0).unwrap_err();
    assert!(matches!(error, PrepareError::LowDisk { .. }), "{error}");
    // A retired file needs no space.
    let retired = node.disk.bytes(&path_of(3)).len();
    node.supply.retire(3).unwrap();
    assert_eq!(node.supply.spares(), 1);
    let ready = node.supply.prepare(2, 0).unwrap();
    assert_eq!((ready.segment, node.disk.bytes(&path_of(4)).len()), (4, retired));
    node.disk.leave_free(SUPPLY.free_bytes_min + segment);
    assert!(node.supply.prepare(3, 0).is_ok());
}

#[test]
fn files_that_are_not_needed_go_in_parts() {
    use iris_wal::disk::Disk;
    let (disk, recovered) = (MemDisk::default(), common::read(&MemDisk::default()).unwrap().0);
    let config = SupplyConfig { segment_bytes: 3 << 20, spares_max: 1, ..SUPPLY };
    let mut supply = Supply::open(disk.clone(), place(), config, &recovered).unwrap();
    for salt in 1..=3 {
        supply.prepare(salt, 0).unwrap();
    }
    for segment in 1..=3 {
        supply.retire(segment).unwrap();
    }
    assert_eq!(supply.spares(), 3, "until there is time");
    let bytes = |name: &str| disk.bytes(&place().dir.join(name)).len();
    let mut calls = 1;
    while supply.give_back().unwrap() {
        calls += 1;
        let leaving: usize =
            disk.names(&place().dir).unwrap().iter().map(|name| bytes(name) % (3 << 20)).sum();
        assert!(leaving <= 2 << 20, "one after the other");
    }
    assert_eq!((calls, supply.spares()), (6, 1));
    assert_eq!(disk.names(&place().dir).unwrap().len(), 1);
    assert!(!supply.give_back().unwrap());
    // One that is half gone is no spare for the next start.
    supply.prepare(4, 0).unwrap();
    supply.prepare(5, 0).unwrap();
    supply.retire(4).unwrap();
    supply.retire(5).unwrap();
    assert!(supply.give_back().unwrap());
    let supply = Supply::open(disk.clone(), place(), config, &recovered).unwrap();
    assert_eq!((supply.spares(), disk.names(&place().dir).unwrap().len()), (1, 1));
}

#[test]
fn a_preparation_that_was_cut_off_leaves_nothing_behind() {
    let node = Node::new();
    node.disk.put(&place().dir.join("spare-7.tmp"), &[0; 100]);
    node.disk.put(&place().dir.join("spare-8.seg"), &[0; 100]);
    node.disk.put(&place().dir.join("spare-9.seg"), &vec![0; SEGMENT_BYTES]);
    let (node, _) = Node::boot(&node.disk, 1);
    assert_eq!(node.supply.spares(), 1);
    use iris_wal::disk::Disk;
    assert_eq!(node.disk.names(&place().dir).unwrap(), ["spare-9.seg"]);
}

#[test]
fn records_are_read_back_one_by_one_and_together() {
    let mut node = Node::new();
    let mut places: Vec<(Pos, u32)> = Vec::new();
    for seq in 1..=150 {
        let payload = vec![seq as u8; 2500];
        let record = msg(seq, &payload);
        let len = record.encoded_len() as u32;
        places.push((node.append(&record), len));
        node.flush();
    }
    places.reverse();
    let mut read = vec![0; 150];
    node.reader.read_records(&places, &mut |i, record| {
        read[i] += 1;
        assert_eq!(record.unwrap().head.seq, 150 - i as u64);
    });
    assert!(read.iter().all(|times| *times == 1));
    let (pos, len) = places[3];
    assert_eq!(node.reader.read_record(pos, len).unwrap().head.seq, 147);
    // Damage is said of the one record that has it, alone or together with others.
    node.disk.damage(&path_of(pos.segment), |bytes| bytes[pos.offset as usize + 90] ^= 1);
    let error = node.reader.read_record(pos, len).unwrap_err();
    assert!(matches!(error, ReadError::Record { pos: at, .. } if at == pos), "{error}");
    let mut bad = Vec::new();
    node.reader.read_records(&places, &mut |i, record| {
        if record.is_err() {
            bad.push(i);
        }
    });
    assert_eq!(bad, [3]);
}

#[test]
fn records_beside_an_unreadable_block_are_still_read() {
    let mut node = Node::new();
    let places: Vec<(Pos, u32)> = (1..=5)
        .map(|seq| (node.send(seq..=seq, b"x")[0], msg(seq, b"x").encoded_len() as u32))
        .collect();
    node.disk.make_unreadable(&path_of(1), 3);
    let mut bad = Vec::new();
    node.reader.read_records(&places, &mut |i, record| {
        if record.is_err() {
            bad.push(i);
        }
    });
    assert_eq!(bad, [2]);
}

#[test]
fn has_room_means_that_the_next_record_goes_in_however_long_it_is() {
    // A TOMB is kept whole in the footer, so the longest one needs the most room in its segment. Dots with gaps
    // between them take a run of 12 bytes each.
    let most = (FRAME_BYTES - 64 - tomb(1, &[]).encoded_len() - 12) / 12;
    let targets: Vec<_> = (1..=most as u64).map(|i| dot(2 * i)).collect();
    let mut random = Random::new(3);
    let mut log = log(1);
    let (mut next_segment, mut seq, mut full, mut refused) = (2, 0, 0, 0);
    while seq < 4000 {
        seq += 1;
        let targets = if random.below(3) == 0 { &targets } else { &targets[..random.below(60)] };
        let had_room = log.has_room();
        let result = log.append(&tomb(seq, targets));
        assert!(!had_room || result.is_ok(), "record {seq}: {result:?}");
        full += u32::from(!had_room);
        refused += u32::from(result.is_err());
        if (!had_room && random.below(4) == 0) || random.below(20) == 0 {
            if let Some(write) = log.take_write() {
                log.synced(write);
            }
            if log.wants_segments() > 0 && random.below(2) == 0 {
                log.add_segment(ready(next_segment));
                next_segment += 1;
            }
            while log.take_footer().is_some() {}
        }
    }
    assert!(next_segment > 50 && full > 100 && refused > 50, "{next_segment} {full} {refused}");
}
