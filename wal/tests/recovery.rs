//! What a restart makes of each kind of damage.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{
    CONFIG, FRAME_BYTES, Node, SEGMENT_BYTES, Told, dot, head, msg, path_of, place, read, seqs,
    tomb,
};
use iris_wal::disk::mem::MemDisk;
use iris_wal::recovery::{FaultKind, RecoverError};
use iris_wal::segment::{SegmentHeader, TRAILER_BYTES, Trailer};
use iris_wal::{BLOCK, Body, Log, Pos, Record};

#[test]
fn what_was_synced_is_read_back_in_order() {
    let mut node = Node::new();
    let mut sent = node.send(1..=20, b"hello");
    sent.push(node.append(&tomb(21, &[dot(1), dot(2), dot(9)])));
    sent.push(node.append(&Record { head: head(22), body: Body::Dedup(b"state") }));
    node.flush();
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), (1..=22).collect::<Vec<_>>());
    assert_eq!(told.iter().map(Told::pos).collect::<Vec<_>>(), sent);
    assert_eq!(
        told[20],
        Told::Tomb { pos: sent[20], seq: 21, targets: vec![dot(1), dot(2), dot(9)] }
    );
    assert_eq!((recovered.last_batch, recovered.records), (21, 22));
    assert_eq!(recovered.hlc_max, 22 << 16);
    assert!(recovered.faults.is_empty() && recovered.torn.is_none());
}

#[test]
fn sealed_segments_are_read_from_their_footers_and_the_tail_is_scanned() {
    let mut node = Node::new();
    let sent = node.send(1..=200, &[1; 2000]);
    node.write_footers();
    let segments = sent.last().unwrap().segment;
    assert!(segments > 3);
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), (1..=200).collect::<Vec<_>>());
    assert_eq!(told.iter().map(Told::pos).collect::<Vec<_>>(), sent);
    assert_eq!(recovered.scanned, [segments]);
    assert_eq!(recovered.faults, []);
}

#[test]
fn the_log_goes_on_in_the_tail_segment() {
    let mut node = Node::new();
    let before = node.send(1..=5, b"a");
    let (mut node, told) = Node::boot(&node.disk, 200);
    assert_eq!(seqs(&told), [1, 2, 3, 4, 5]);
    let after = node.send(6..=9, b"b");
    assert_eq!(after[0].segment, before[0].segment);
    assert!(after[0].offset > before[4].offset);
    let (_, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), (1..=9).collect::<Vec<_>>());
}

#[test]
fn a_missing_footer_means_a_scan_and_is_made_up_for() {
    let mut node = Node::new();
    node.send(1..=200, &[1; 2000]);
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), (1..=200).collect::<Vec<_>>());
    assert!(recovered.scanned.len() > 3);
    assert_eq!(recovered.faults, []);
    let mut node = Node::resume(&node.disk, recovered, 300);
    node.write_footers();
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), (1..=200).collect::<Vec<_>>());
    assert_eq!(recovered.scanned.len(), 1);
}

#[test]
fn a_truncated_or_rotten_footer_means_a_scan() {
    for damage in [0, 1] {
        let mut node = Node::new();
        node.send(1..=200, &[1; 2000]);
        node.write_footers();
        let footer_block = SEGMENT_BYTES - BLOCK;
        node.disk.damage(&path_of(2), |bytes| match damage {
            0 => bytes[footer_block..].fill(0),
            _ => bytes[footer_block + 100] ^= 1,
        });
        let (recovered, told) = read(&node.disk).unwrap();
        assert_eq!(seqs(&told), (1..=200).collect::<Vec<_>>());
        assert!(recovered.scanned.contains(&2));
        assert_eq!(recovered.faults, []);
    }
}

#[test]
fn a_torn_tail_is_cut_and_overwritten() {
    let mut node = Node::new();
    let sent = node.send(1..=5, b"kept");
    node.append(&msg(6, &[3; 9000]));
    let write = node.log.take_write().unwrap();
    node.writer.perform(&write).unwrap();
    // The last 4 KiB of the unsynced batch never reached the disk.
    let end = write.offset() as usize + write.bytes().len();
    node.disk.damage(&path_of(1), |bytes| bytes[end - BLOCK..end].fill(0));
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), [1, 2, 3, 4, 5]);
    let torn = Pos { segment: 1, offset: write.offset() as u32 };
    assert_eq!((recovered.torn, &recovered.faults[..]), (Some(torn), &[][..]));
    let mut node = Node::resume(&node.disk, recovered, 300);
    let again = node.send(7..=7, b"new");
    assert_eq!(again[0].segment, sent[0].segment);
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), [1, 2, 3, 4, 5, 7]);
    assert!(recovered.torn.is_none());
}

#[test]
fn a_flipped_bit_below_the_durable_mark_is_reported_and_everything_else_is_kept() {
    let mut node = Node::new();
    let sent = node.send(1..=9, b"payload");
    let rotten = sent[4].offset as usize + 60;
    node.disk.damage(&path_of(1), |bytes| bytes[rotten] ^= 0x10);
    let before = node.disk.bytes(&path_of(1));
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), [1, 2, 3, 4, 6, 7, 8, 9]);
    assert!(recovered.faults.iter().any(|fault| fault.kind == FaultKind::Frames));
    assert!(recovered.torn.is_none());
    // The faulty segment stays as it is, and the log goes on in another one.
    let mut node = Node::resume(&node.disk, recovered, 300);
    let after = node.send(10..=10, b"later");
    assert_eq!(after[0].segment, 2);
    assert_eq!(node.disk.bytes(&path_of(1)), before);
    assert!(node.log.droppable().is_empty());
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), [1, 2, 3, 4, 6, 7, 8, 9, 10]);
    assert!(!recovered.faults.is_empty());
}

#[test]
fn a_flipped_bit_costs_one_record_of_its_batch() {
    let mut node = Node::new();
    let sent: Vec<_> = (1..=9).map(|seq| node.append(&msg(seq, b"same batch"))).collect();
    node.flush();
    node.send(10..=11, b"later");
    let rotten = sent[4].offset as usize + 100;
    node.disk.damage(&path_of(1), |bytes| bytes[rotten] ^= 1);
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]);
    let record = recovered.faults.iter().find(|f| matches!(f.kind, FaultKind::Record(_))).unwrap();
    assert_eq!(record.from, sent[4].offset);
}

#[test]
fn a_flipped_bit_in_a_frame_header_costs_that_frame_only() {
    let mut node = Node::new();
    let sent = node.send(1..=9, b"payload");
    let frame = sent[4].offset as usize / BLOCK * BLOCK;
    for at in [0, 8, 24, 40] {
        node.disk.damage(&path_of(1), |bytes| bytes[frame + at] ^= 1);
        let (recovered, told) = read(&node.disk).unwrap();
        assert_eq!(seqs(&told), [1, 2, 3, 4, 6, 7, 8, 9], "byte {at} of the header");
        assert_eq!(recovered.faults.len(), 1);
        node.disk.damage(&path_of(1), |bytes| bytes[frame + at] ^= 1);
    }
}

#[test]
fn a_rotten_segment_header_is_reported_and_costs_no_record() {
    let mut node = Node::new();
    node.send(1..=200, &[1; 2000]);
    node.write_footers();
    let last = node.log.reclaim().segments().last().unwrap().segment;
    for segment in [1, last] {
        node.disk.damage(&path_of(segment), |bytes| bytes[70] ^= 1);
        let (recovered, told) = read(&node.disk).unwrap();
        assert_eq!(seqs(&told), (1..=200).collect::<Vec<_>>());
        assert!(matches!(recovered.faults[0].kind, FaultKind::Header(_)));
        assert_eq!(recovered.faults[0].segment, segment);
        node.disk.damage(&path_of(segment), |bytes| bytes[70] ^= 1);
    }
}

#[test]
fn rot_in_the_last_synced_frame_is_seen_once_an_idle_mark_stands_behind_it() {
    let mut node = Node::new();
    let sent = node.send(1..=3, b"payload");
    assert!(node.log.idle_mark(head(0)).unwrap());
    node.flush();
    assert!(!node.log.idle_mark(head(0)).unwrap(), "one mark is enough");
    let last = sent[2].offset as usize + 60;
    node.disk.damage(&path_of(1), |bytes| bytes[last] ^= 1);
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), [1, 2, 0]);
    assert!(!recovered.faults.is_empty() && recovered.torn.is_none());
}

#[test]
fn frames_of_an_earlier_use_of_the_file_are_stale() {
    let mut node = Node::new();
    node.send(1..=200, &[1; 2000]);
    node.write_footers();
    // Segment 1 is dropped and comes back under another number, with its old frames and its old footer in it.
    node.supply.retire(1).unwrap();
    node.salt = 777;
    let ready = node.supply.prepare(777, 0).unwrap();
    assert!(node.disk.bytes(&path_of(ready.segment))[BLOCK..].iter().any(|byte| *byte != 0));
    let (recovered, told) = read(&node.disk).unwrap();
    let first = told[0].seq();
    assert!(first > 1);
    assert_eq!(seqs(&told), (first..=200).collect::<Vec<_>>());
    assert_eq!(recovered.faults, []);
    // Written to, it ends where its own frames end.
    let mut node = Node::resume(&node.disk, recovered, 900);
    let mut seq = 201;
    while node.send(seq..=seq, &[2; 2000])[0].segment != ready.segment {
        seq += 1;
    }
    node.write_footers();
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), (first..=seq).collect::<Vec<_>>());
    assert_eq!((recovered.faults, recovered.torn), (vec![], None));
}

#[test]
fn a_lost_first_frame_of_the_tail_segment_is_damage_and_not_the_end() {
    let mut node = Node::new();
    node.send(1..=3, b"payload");
    node.disk.damage(&path_of(1), |bytes| bytes[BLOCK..2 * BLOCK].fill(0));
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), [2, 3]);
    assert_eq!(recovered.faults[0].kind, FaultKind::Frames);
}

#[test]
fn an_unreadable_block_is_a_fault_and_the_node_boots() {
    let mut node = Node::new();
    let sent = node.send(1..=5, b"payload");
    node.disk.make_unreadable(&path_of(1), u64::from(sent[2].offset) / BLOCK as u64);
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), [1, 2, 4, 5]);
    assert!(recovered.faults.iter().any(|fault| fault.kind == FaultKind::Unreadable));
    assert!(recovered.faults.iter().any(|fault| fault.kind == FaultKind::Frames));
}

#[test]
fn a_shortened_file_keeps_what_it_holds() {
    let mut node = Node::new();
    node.send(1..=5, b"payload");
    let bytes = node.disk.bytes(&path_of(1));
    node.disk.put(&path_of(1), &bytes[..4 * BLOCK]);
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), [1, 2, 3]);
    assert_eq!(recovered.faults[0].kind, FaultKind::Short);
}

fn with_one_record_changed(change: impl FnOnce(&mut [u8])) -> MemDisk {
    let mut node = Node::new();
    let dedup = Record { head: head(1), body: Body::Dedup(&[5; 40]) };
    let pos = node.append(&dedup);
    let len = dedup.encoded_len();
    let write = node.log.take_write().unwrap();
    node.writer.perform(&write).unwrap();
    let (frame, at) = (write.offset() as usize, pos.offset as usize);
    node.log.synced(write);
    // A forger with a correct checksum: the next version of this program.
    node.disk.damage(&path_of(1), |bytes| {
        change(&mut bytes[at..at + len]);
        let crc = crc32c::crc32c(&bytes[at..at + len - 4]);
        bytes[at + len - 4..at + len].copy_from_slice(&crc.to_le_bytes());
        let body = &bytes[frame + 64..at + len];
        let (crc, chain) = (crc32c::crc32c(body), iris_wal::batch::chain(0, body));
        bytes[frame + 40..frame + 48].copy_from_slice(&chain.to_le_bytes());
        bytes[frame + 56..frame + 60].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[frame..frame + 60]);
        bytes[frame + 60..frame + 64].copy_from_slice(&crc.to_le_bytes());
    });
    node.disk
}

#[test]
fn an_unknown_ignorable_record_is_skipped() {
    let disk = with_one_record_changed(|record| {
        record[4] = 77;
        record[6] = 1;
    });
    let (recovered, told) = read(&disk).unwrap();
    assert_eq!((told, recovered.skipped), (vec![], 1));
    assert_eq!((recovered.last_batch, recovered.faults), (1, vec![]));
}

#[test]
fn an_unknown_record_that_may_not_be_skipped_is_refused_with_its_name() {
    let disk = with_one_record_changed(|record| record[4] = 77);
    let error = read(&disk).unwrap_err();
    assert!(matches!(error, RecoverError::UnknownRecord { kind: 77, version: 1, .. }));
    assert!(error.to_string().contains("/wal/p000/00000001.seg"), "{error}");
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let mut node = Node::new();
    node.send(1..=1, b"x");
    let mut other = place();
    other.owner.log_id = 1;
    let error = iris_wal::recovery::recover(&node.disk, &other, &mut |_| {}).unwrap_err();
    assert!(matches!(error, RecoverError::Foreign { .. }));
}

#[test]
fn a_tail_made_for_other_frames_is_sealed_and_not_filled() {
    let mut node = Node::new();
    node.send(1..=3, b"x");
    let (recovered, _) = read(&node.disk).unwrap();
    let mut config = CONFIG;
    config.frame_bytes_max = FRAME_BYTES / 2;
    let mut log = Log::resume(config, recovered);
    assert_eq!(log.take_footer().unwrap().segment(), 1);
    assert_eq!(log.wants_segments(), 3);
}

#[test]
fn a_frame_of_another_past_does_not_continue_the_log() {
    // Two lives of one file, alike up to batch numbers, places and salt: only the chain tells them apart.
    let (mut one, mut other) = (Node::new(), Node::new());
    one.send(1..=1, b"this past");
    one.send(2..=2, b"x");
    other.send(1..=1, b"that past");
    let foreign = other.send(2..=2, b"x")[0].offset as usize / BLOCK * BLOCK;
    let frame = other.disk.bytes(&path_of(1))[foreign..foreign + BLOCK].to_vec();
    one.disk.damage(&path_of(1), |bytes| bytes[foreign..foreign + BLOCK].copy_from_slice(&frame));
    let (recovered, told) = read(&one.disk).unwrap();
    assert_eq!((seqs(&told), recovered.last_batch), (vec![1], 1));
    assert_eq!(recovered.faults, []);
}

#[test]
fn a_number_alone_does_not_make_a_frame_count() {
    let mut node = Node::new();
    node.send(1..=3, b"x");
    let mut old = node.disk.bytes(&path_of(1));
    // The same number, used again with another salt.
    let mut header = SegmentHeader::decode(&old[..BLOCK]).unwrap();
    header.salt += 1;
    header.encode_into(&mut old[..BLOCK]);
    node.disk.put(&path_of(1), &old);
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!((told, recovered.last_batch), (vec![], 0));
}

#[test]
fn a_trailer_proves_the_last_batch_of_its_segment() {
    // The last segment is full, its footer is written, and nothing stands behind it.
    let mut node = Node::new();
    let sent = node.send(1..=60, &[1; 9000]);
    node.write_footers();
    let full = sent.last().unwrap().segment - 1;
    let last = sent.iter().rfind(|pos| pos.segment == full).unwrap();
    let lost = 1 + sent.iter().position(|pos| pos == last).unwrap() as u64;
    let after: Vec<u8> = node.disk.bytes(&path_of(full + 1))[..BLOCK].to_vec();
    let mut empty = vec![0; SEGMENT_BYTES];
    empty[..BLOCK].copy_from_slice(&after);
    node.disk.put(&path_of(full + 1), &empty);
    // The entries rot, so the segment is scanned; so does its last frame.
    node.disk.damage(&path_of(full), |bytes| {
        bytes[SEGMENT_BYTES - BLOCK] ^= 1;
        bytes[last.offset as usize + 100] ^= 1;
    });
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(seqs(&told), (1..lost).collect::<Vec<_>>());
    assert!(recovered.torn.is_none());
    assert!(recovered.faults.iter().any(|fault| fault.kind == FaultKind::Frames));
}

#[test]
fn a_long_rotten_stretch_at_the_beginning_of_the_tail_segment_is_damage() {
    let mut node = Node::new();
    let sent = node.send(1..=50, &[1; 9000]);
    node.write_footers();
    let tail = sent.last().unwrap().segment;
    let of_tail: Vec<usize> = (0..50).filter(|i| sent[*i].segment == tail).collect();
    assert!(sent[of_tail[8]].offset as usize > 3 * FRAME_BYTES);
    let whole_from = sent[of_tail[8]].offset as usize / BLOCK * BLOCK;
    node.disk.damage(&path_of(tail), |bytes| bytes[BLOCK..whole_from].fill(0));
    let (recovered, told) = read(&node.disk).unwrap();
    let kept = (0..50).filter(|i| !of_tail[..8].contains(i)).map(|i| i as u64 + 1);
    assert_eq!(seqs(&told), kept.collect::<Vec<_>>());
    assert_eq!(recovered.faults[0].kind, FaultKind::Frames);
}

#[test]
fn files_with_other_names_are_left_alone() {
    let mut node = Node::new();
    node.send(1..=3, b"x");
    for name in ["00000000.seg", "ffffffff.seg", "0000000A.seg", "1.seg", "00000002.segment"] {
        node.disk.put(&place().dir.join(name), b"not ours");
    }
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!((seqs(&told), recovered.faults), (vec![1, 2, 3], vec![]));
}

/// A log whose first segments are gone, so that nothing says which batch the oldest one left begins with.
fn without_its_beginning() -> (Node, Vec<Pos>, u32) {
    let mut node = Node::new();
    let sent = node.send(1..=200, &[1; 2000]);
    node.write_footers();
    node.supply.retire(1).unwrap();
    let of_second = sent.into_iter().filter(|pos| pos.segment == 2).collect();
    (node, of_second, 2)
}

#[test]
fn the_first_frame_of_the_oldest_segment_left_is_checked_like_any_other() {
    let (node, sent, segment) = without_its_beginning();
    let sound = read(&node.disk).unwrap().1;
    let lost = sound.iter().position(|told| told.pos() == sent[0]).unwrap();
    let kept: Vec<u64> = seqs(&sound).into_iter().filter(|seq| *seq != sound[lost].seq()).collect();
    let path = path_of(segment);
    let frame = sent[0].offset as usize / BLOCK * BLOCK;
    let other = sent[7].offset as usize / BLOCK * BLOCK;
    let misdirected = node.disk.bytes(&path)[other..other + BLOCK].to_vec();
    node.disk.damage(&path, |bytes| bytes[SEGMENT_BYTES - 1] ^= 1);
    for kind in 0..2 {
        let before = node.disk.bytes(&path);
        node.disk.damage(&path, |bytes| match kind {
            0 => bytes[sent[0].offset as usize + 200] ^= 1,
            _ => bytes[frame..frame + BLOCK].copy_from_slice(&misdirected),
        });
        let (recovered, told) = read(&node.disk).unwrap();
        assert_eq!(seqs(&told), kept, "kind {kind}");
        assert!(recovered.faults.iter().any(|fault| fault.kind == FaultKind::Frames));
        node.disk.put(&path, &before);
    }
}

#[test]
fn a_sealed_segment_with_no_frame_left_is_damage() {
    let (node, _, segment) = without_its_beginning();
    node.disk.damage(&path_of(segment), |bytes| bytes[BLOCK..SEGMENT_BYTES - BLOCK + 9].fill(0));
    let (recovered, told) = read(&node.disk).unwrap();
    assert!(!told.is_empty());
    let fault = &recovered.faults[0];
    assert_eq!((fault.segment, &fault.kind), (segment, &FaultKind::Frames));
}

/// A node with some sealed segments of short messages, a hundred in a batch.
fn short_messages() -> (Node, Vec<Pos>) {
    let mut node = Node::new();
    let mut sent = Vec::new();
    for seq in 1..=8000 {
        sent.push(node.append(&msg(seq, b"short")));
        if seq % 100 == 0 {
            node.flush();
        }
    }
    (node, sent)
}

#[test]
fn segments_of_short_records_get_no_footer_entries_and_are_read_from_their_frames() {
    let (mut node, sent) = short_messages();
    node.write_footers();
    let last = sent[7999].segment;
    assert!(last > 3);
    let trailer = |number: u32, disk: &MemDisk| {
        let bytes = disk.bytes(&path_of(number));
        let at = SEGMENT_BYTES - TRAILER_BYTES;
        let salt = SegmentHeader::decode(&bytes[..BLOCK]).unwrap().salt;
        Trailer::decode(&bytes[at..], number, salt, SEGMENT_BYTES as u32).unwrap()
    };
    for number in 1..last {
        let trailer = trailer(number, &node.disk);
        assert!(trailer.no_entries);
        assert!(trailer.data_end as usize > SEGMENT_BYTES - FRAME_BYTES, "the room is used");
    }
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(told.iter().map(Told::pos).collect::<Vec<_>>(), sent);
    assert_eq!((recovered.last_batch, &recovered.faults[..]), (node.log.durable(), &[][..]));
    let mut next = Node::resume(&node.disk, recovered, 900);
    assert!(next.log.take_footer().is_none(), "they have all they need");
    next.log.checkpoint_began();
    next.feed();
    next.log.checkpoint_complete(head(0)).unwrap();
    next.flush();
    assert_eq!(next.log.droppable(), (1..last).collect::<Vec<_>>());
}

#[test]
fn a_trailer_without_entries_still_proves_the_batches_of_its_segment() {
    let (mut node, sent) = short_messages();
    node.write_footers();
    let hit = *sent.iter().rfind(|pos| pos.segment == 2).unwrap();
    node.disk.damage(&path_of(2), |bytes| bytes[hit.offset as usize + 80] ^= 1);
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(told.len(), 7999, "all but that one");
    let faults: Vec<_> = recovered.faults.iter().map(|fault| fault.segment).collect();
    assert!(faults.contains(&2) && !faults.contains(&3), "{faults:?}");
}

#[test]
fn a_trailer_that_promises_more_than_the_frames_hold_is_damage() {
    let (mut node, sent) = short_messages();
    node.write_footers();
    let last_frame =
        sent.iter().rfind(|pos| pos.segment == 2).unwrap().offset as usize / BLOCK * BLOCK;
    node.disk.damage(&path_of(2), |bytes| {
        bytes[last_frame - 8 * BLOCK..SEGMENT_BYTES - BLOCK].fill(0);
    });
    let (recovered, told) = read(&node.disk).unwrap();
    assert!(told.len() < 8000 && !recovered.faults.is_empty());
    assert!(recovered.faults.iter().all(|fault| fault.segment == 2), "{:?}", recovered.faults);
    assert_eq!(seqs(&told).last(), Some(&8000));
}

#[test]
fn what_an_earlier_use_of_a_file_left_where_a_write_was_lost_is_no_record() {
    let mut node = Node::new();
    node.send(1..=3, b"hello");
    let dedup = node.append(&Record { head: head(0), body: Body::Dedup(&[5; 200]) });
    node.flush();
    node.send(4..=200, &[1; 2000]);
    node.write_footers();
    assert_eq!(dedup.segment, 1);
    let stale = msg(999, b"long gone");
    let mut bytes = vec![0; stale.encoded_len()];
    stale.encode_into(&mut bytes);
    assert!(bytes.len() < 200);
    let at = dedup.offset as usize;
    node.disk.damage(&path_of(1), |file| file[at..at + bytes.len()].copy_from_slice(&bytes));
    let (recovered, told) = read(&node.disk).unwrap();
    assert!(told.iter().all(|told| told.seq() != 999), "it was written for another use");
    let fault = recovered.faults.first().unwrap();
    assert_eq!((fault.segment, fault.from), (1, dedup.offset));
    assert!(matches!(fault.kind, FaultKind::Record(_)));
}
