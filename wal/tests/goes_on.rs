//! Where a log goes on when a segment cannot be filled further, and what later starts make of what stands in it.
//!
//! The number of a batch that did not count is used again, in another segment: no later start may take the one for the
//! other.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;

use common::{
    FRAME_BYTES, HEADER_BYTE, Node, Random, SEGMENT_BYTES, SUPPLY, fed, head, messages, msg,
    path_of, place, read, rot, seqs, torn_in_the_second,
};
use iris_wal::batch::FrameHeader;
use iris_wal::disk::mem::MemDisk;
use iris_wal::recovery::FaultKind;
use iris_wal::segment::{TRAILER_BYTES, Trailer};
use iris_wal::store::{Supply, SupplyConfig};
use iris_wal::{AppendError, BLOCK, Pos};

/// Five messages in a batch each, and where the last one stands.
fn five() -> (Node, usize) {
    let mut node = Node::new();
    let sent = node.send(1..=5, b"payload");
    (node, sent[4].offset as usize)
}

#[test]
fn what_follows_a_torn_batch_in_a_damaged_segment_stays_though_a_segment_between_is_useless() {
    for footers in [false, true] {
        let (node, last) = five();
        node.disk.damage(&path_of(1), |bytes| {
            bytes[HEADER_BYTE] ^= 1;
            bytes[last + 60] ^= 1;
        });
        let short = node.disk.bytes(&path_of(2))[..5 * BLOCK].to_vec();
        node.disk.put(&path_of(2), &short);
        let (mut node, told) = Node::boot(&node.disk, 200);
        assert_eq!(seqs(&told), [1, 2, 3, 4]);
        let after = node.send(6..=200, &[1; 2000]);
        assert!(after.iter().all(|pos| pos.segment > 2));
        if footers {
            node.write_footers();
        }
        let (recovered, told) = read(&node.disk).unwrap();
        assert_eq!(messages(&told), (1..=4).chain(6..=200).collect::<Vec<_>>());
        assert_eq!(recovered.last_batch, node.log.durable());
        let mut of_damaged = recovered.faults.iter().map(|fault| fault.segment);
        assert!(of_damaged.all(|segment| segment <= 2), "{:?}", recovered.faults);
    }
}

#[test]
fn a_batch_that_could_not_be_read_at_one_start_hides_no_later_one_once_it_can() {
    for footers in [false, true] {
        let (node, last) = five();
        let frame = last / BLOCK * BLOCK;
        let whole = node.disk.bytes(&path_of(1));
        node.disk.damage(&path_of(1), |bytes| {
            bytes[HEADER_BYTE] ^= 1;
            bytes[frame..frame + BLOCK].fill(0);
        });
        let (mut node, told) = Node::boot(&node.disk, 200);
        assert_eq!(seqs(&told), [1, 2, 3, 4]);
        node.send(6..=200, &[1; 2000]);
        if footers {
            node.write_footers();
        }
        node.disk.put(&path_of(1), &whole);
        let (recovered, told) = read(&node.disk).unwrap();
        assert_eq!(messages(&told), (1..=200).collect::<Vec<_>>());
        assert_eq!((recovered.last_batch, recovered.torn), (node.log.durable(), None));
        assert_eq!(recovered.faults, []);
    }
}

#[test]
fn a_torn_batch_in_a_later_segment_hides_no_batch_that_was_written_before_it_with_its_number() {
    // How the segment with the torn batch comes to be passed over; then how many batches go to the first segment before, and
    // to later ones after.
    for passed_by in ["its header", "the next header", "other frames"] {
        for (before, after) in [(1, 1), (1, 3), (2, 3)] {
            let (mut node, told) = Node::boot(&torn_in_the_second(), 200);
            assert_eq!(messages(&told), (1..=7).collect::<Vec<_>>());
            let sent = node.send(10..=9 + before, b"short");
            assert!(sent.iter().all(|pos| pos.segment == 1));
            let mut supply = SUPPLY;
            match passed_by {
                "its header" => rot(&node, 2, HEADER_BYTE),
                "the next header" => rot(&node, 3, HEADER_BYTE),
                _ => supply.frame_bytes_max /= 2,
            }
            let (recovered, told) = read(&node.disk).unwrap();
            let mut all: Vec<_> = (1..=7).chain(10..=9 + before).collect();
            assert_eq!(messages(&told), all);
            let mut node = Node::resume_with(&node.disk, recovered, 300, supply);
            let sent = node.send(20..=19 + after, b"after");
            assert!(sent.iter().all(|pos| pos.segment > 2), "{passed_by}");
            all.extend(20..=19 + after);
            let (recovered, told) = read(&node.disk).unwrap();
            assert_eq!(messages(&told), all, "{passed_by}, {before} before, {after} after");
            assert_eq!(recovered.last_batch, node.log.durable());
            let is_header = |kind: &FaultKind| matches!(kind, FaultKind::Header(_));
            assert!(recovered.faults.iter().all(|fault| is_header(&fault.kind)));
        }
    }
}

#[test]
fn the_log_goes_on_behind_its_last_batch_though_one_before_has_its_number_or_a_higher_one() {
    for (unreadable, after) in [(1, 1), (1, 3), (2, 3)] {
        let (node, last) = five();
        for back in 0..unreadable {
            node.disk.make_unreadable(&path_of(1), (last / BLOCK) as u64 - back);
        }
        let (mut node, told) = Node::boot(&node.disk, 200);
        assert_eq!(messages(&told), (1..=5 - unreadable).collect::<Vec<_>>());
        assert_eq!(node.send(6..=6, b"six")[0].segment, 2);
        node.disk.make_readable();
        let (mut node, told) = Node::boot(&node.disk, 300);
        assert_eq!(messages(&told), (1..=6).collect::<Vec<_>>());
        node.send(7..=6 + after, b"after");
        let (recovered, told) = read(&node.disk).unwrap();
        assert_eq!(messages(&told), (1..=6 + after).collect::<Vec<_>>());
        assert_eq!((recovered.last_batch, recovered.faults), (node.log.durable(), vec![]));
    }
}

#[test]
fn a_lost_first_frame_behind_a_batch_that_did_not_count_takes_no_other_one_with_it() {
    for upto in [7, 9] {
        for healed in [false, true] {
            let (node, last) = five();
            if healed {
                node.disk.make_unreadable(&path_of(1), (last / BLOCK) as u64);
            } else {
                rot(&node, 1, HEADER_BYTE);
                rot(&node, 1, last + 60);
            }
            let (mut node, _) = Node::boot(&node.disk, 200);
            assert_eq!(node.send(6..=upto, b"x")[0].segment, 2);
            node.disk.make_readable();
            rot(&node, 2, BLOCK + 20);
            let (recovered, told) = read(&node.disk).unwrap();
            for seq in 7..=upto {
                assert!(messages(&told).contains(&seq), "{seq} of {upto}, healed: {healed}");
            }
            let of_second = |fault: &iris_wal::recovery::Fault| fault.segment == 2;
            assert!(recovered.faults.iter().any(of_second), "what is lost is said");
        }
    }
}

/// Seven messages in segment 1, and one in segment 2 that cannot be read.
fn with_an_unreadable_second() -> Node {
    let mut node = Node::new();
    node.send(1..=7, &[1; 30_000]);
    assert_eq!(node.send(8..=8, &[1; 30_000])[0], Pos { segment: 2, offset: BLOCK as u32 + 64 });
    node.disk.make_unreadable(&path_of(2), 1);
    node
}

#[test]
fn a_segment_whose_only_frame_cannot_be_read_is_kept_and_said() {
    let node = with_an_unreadable_second();
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(messages(&told), (1..=7).collect::<Vec<_>>());
    assert!(recovered.faults.iter().any(|fault| fault.kind == FaultKind::Unreadable));
    let mut node = Node::resume(&node.disk, recovered, 200);
    let sent = node.send(20..=40, &[3; 30_000]);
    assert!(sent.iter().all(|pos| pos.segment > 2));
    node.disk.make_readable();
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(messages(&told), (1..=8).chain(20..=40).collect::<Vec<_>>());
    assert_eq!(recovered.faults, []);
}

#[test]
fn a_segment_whose_only_frame_cannot_be_read_is_not_reclaimed() {
    let node = with_an_unreadable_second();
    rot(&node, 3, HEADER_BYTE);
    let (mut node, _) = Node::boot(&node.disk, 200);
    node.send(20..=20, &[3; 30_000]);
    node.write_footers();
    node.log.checkpoint_began();
    node.log.checkpoint_complete(head(99)).unwrap();
    node.flush();
    assert_eq!(node.log.droppable(), [1], "nothing of it is live");
}

#[test]
fn two_lost_headers_at_the_beginning_of_a_segment_hide_no_frame_behind_them() {
    let mut node = Node::new();
    let sent = node.send(1..=12, &[1; 30_000]);
    assert_eq!((sent[7].segment, sent[9].offset as usize / BLOCK), (2, 17));
    [BLOCK, 9 * BLOCK].into_iter().for_each(|frame| rot(&node, 2, frame + 20));
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(messages(&told), (1..=7).chain(10..=12).collect::<Vec<_>>());
    assert!(recovered.faults.iter().any(|fault| fault.kind == FaultKind::Frames));
}

#[test]
fn a_lost_end_of_a_segment_before_a_missing_one_is_damage() {
    let mut node = Node::new();
    let sent = node.send(1..=200, &[1; 2000]);
    let last = sent.iter().rposition(|pos| pos.segment == 2).unwrap();
    let lost = last as u64 + 1;
    node.disk.damage(&path_of(2), |bytes| bytes[sent[last].offset as usize + 100] ^= 1);
    node.supply.retire(3).unwrap();
    let (recovered, told) = read(&node.disk).unwrap();
    assert!(!seqs(&told).contains(&lost) && seqs(&told).contains(&(lost - 1)));
    assert!(
        recovered.faults.iter().any(|fault| fault.segment == 2 && fault.kind == FaultKind::Frames)
    );
}

#[test]
fn segments_prepared_for_two_lengths_of_frames_are_filled_in_the_order_of_their_numbers() {
    let disk = MemDisk::default();
    // Who starts now wants frames as long as those of the first and the third.
    for (salt, frame_bytes_max) in [(1, FRAME_BYTES), (2, 2 * FRAME_BYTES), (3, FRAME_BYTES)] {
        let config = SupplyConfig { frame_bytes_max, ..SUPPLY };
        let (recovered, _) = read(&disk).unwrap();
        let mut supply = Supply::open(disk.clone(), place(), config, &recovered).unwrap();
        supply.prepare(salt, 0).unwrap();
    }
    let (mut node, told) = Node::boot(&disk, 100);
    assert_eq!(told, []);
    let sent = node.send(1..=200, &[1; 2000]);
    assert_eq!(sent[0].segment, 3, "below the second, which cannot be filled, is none");
    assert!(sent.is_sorted());
    let (recovered, told) = read(&disk).unwrap();
    assert_eq!((seqs(&told), recovered.faults), ((1..=200).collect::<Vec<_>>(), vec![]));
}

#[test]
fn what_can_be_read_again_gets_its_own_footer_and_the_mirror_gets_it() {
    let mut node = Node::new();
    let sent = node.send(1..=9, b"payload");
    for pos in &sent[3..] {
        node.disk.make_unreadable(&path_of(1), u64::from(pos.offset) / BLOCK as u64);
    }
    let (mut node, _) = Node::boot(&node.disk, 200);
    assert_eq!(node.send(10..=10, b"x")[0].segment, 2);
    node.disk.make_readable();
    let (mut node, told) = Node::boot(&node.disk, 300);
    assert_eq!(messages(&told), (1..=10).collect::<Vec<_>>());
    // Up to a batch of the number that the first segment ends with.
    node.send(11..=20, b"y");
    node.write_footers();
    let bytes = node.disk.bytes(&path_of(1));
    let trailer = &bytes[SEGMENT_BYTES - TRAILER_BYTES..];
    let trailer = Trailer::decode_any(trailer, 1, SEGMENT_BYTES as u32).unwrap();
    let last = FrameHeader::decode(&bytes[sent[8].offset as usize / BLOCK * BLOCK..]).unwrap();
    assert_eq!((trailer.last_batch, trailer.last_chain), (last.batch_no, last.chain));
    // As of a start, whose last batch has a lower number.
    assert_eq!(fed(&node, 1, 4, SEGMENT_BYTES), (1..=9).collect::<Vec<_>>());
}

#[test]
fn a_rotten_record_in_the_first_frame_behind_a_batch_that_did_not_count_is_the_only_one_lost() {
    let (node, last) = five();
    for back in 0..2 {
        node.disk.make_unreadable(&path_of(1), (last / BLOCK) as u64 - back);
    }
    let (mut node, _) = Node::boot(&node.disk, 200);
    node.append(&msg(6, b"whole"));
    let rotten = node.append(&msg(7, b"rots"));
    node.flush();
    node.send(8..=8, b"x");
    node.disk.make_readable();
    rot(&node, 2, rotten.offset as usize + 50);
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(messages(&told), [1, 2, 3, 4, 5, 6, 8]);
    assert!(recovered.faults.iter().all(|fault| fault.segment == 2));
}

/// What was synced: by sequence number, where it is and where its frame begins.
type Synced = BTreeMap<u64, (Pos, usize)>;

/// Segments that are there.
fn segments(disk: &MemDisk) -> Vec<u32> {
    let files = disk.files();
    (1..64).filter(|segment| files.iter().any(|(path, _)| *path == path_of(*segment))).collect()
}

/// Appends and syncs messages of random length, until the power fails; footers at times.
fn live(
    node: &mut Node,
    frame_bytes: usize,
    seq: &mut u64,
    random: &mut Random,
    synced: &mut Synced,
) {
    for _ in 0..1 + random.below(12) {
        *seq += 1;
        let len =
            if random.below(2) == 0 { random.below(200) } else { random.below(frame_bytes - 400) };
        let payload = vec![*seq as u8; len];
        let pos = loop {
            match node.log.append(&msg(*seq, &payload)) {
                Ok(pos) => break pos,
                Err(AppendError::NoSegment) => {
                    node.salt += 1;
                    let Ok(ready) = node.supply.prepare(node.salt, 0) else { return };
                    node.log.add_segment(ready);
                }
                Err(error) => panic!("{error}"),
            }
        };
        while let Some(write) = node.log.take_write() {
            let frame = write.offset() as usize;
            if node.writer.perform(&write).is_err() {
                return;
            }
            node.log.synced(write);
            synced.insert(*seq, (pos, frame));
        }
        while random.below(4) == 0
            && let Some(mut footer) = node.log.take_footer()
        {
            loop {
                match node.writer.perform_footer(&mut footer) {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(_) => return,
                }
            }
            node.log.footer_written(footer);
        }
    }
}

/// What happens to the disk between two lives. What it takes for good is no longer in `synced`.
fn suffer(disk: &MemDisk, random: &mut Random, synced: &mut Synced) {
    let here = segments(disk);
    let any = |random: &mut Random| here.get(random.below(here.len().max(1))).copied();
    if random.below(3) == 0
        && let Some(segment) = any(random)
    {
        disk.damage(&path_of(segment), |bytes| bytes[HEADER_BYTE] ^= 1);
    }
    if random.below(3) == 0
        && let Some(segment) = any(random)
    {
        disk.make_unreadable(&path_of(segment), random.below(SEGMENT_BYTES / 4 / BLOCK) as u64);
    }
    // A frame rots; of the last one nothing proves that it was synced.
    let index = random.below(synced.len().max(1));
    if random.below(3) == 0
        && let Some((seq, (pos, frame))) = synced.iter().nth(index).map(|(seq, at)| (*seq, *at))
        && synced.last_key_value().is_some_and(|(last, _)| *last != seq)
    {
        let byte = if random.below(2) == 0 { frame + 20 } else { pos.offset as usize + 50 };
        disk.damage(&path_of(pos.segment), |bytes| bytes[byte] ^= 1);
        synced.retain(|_, (other, begins)| (other.segment, *begins) != (pos.segment, frame));
    }
}

#[test]
fn no_synced_message_is_lost_by_crashes_damage_beside_it_and_disks_that_refuse_for_a_while() {
    const FRAME: usize = 16 << 10;
    for seed in 0..600 {
        let random = &mut Random::new(seed);
        let disk = MemDisk::default();
        let (mut synced, mut seq, mut all_readable) = (Synced::new(), 0, true);
        for life in 1..=7 {
            let (recovered, told) = read(&disk).unwrap();
            let told = messages(&told);
            for (seq, (pos, _)) in synced.iter().filter(|_| all_readable) {
                assert!(told.contains(seq), "seed {seed}, life {life}: {seq} at {pos:?} is lost");
            }
            let frame_bytes_max = if random.below(4) == 0 { FRAME / 2 } else { FRAME };
            let segment_bytes = SEGMENT_BYTES / 4;
            let supply = SupplyConfig { segment_bytes, frame_bytes_max, ..SUPPLY };
            let mut node = Node::resume_with(&disk, recovered, 1000 * life, supply);
            if random.below(3) > 0 {
                disk.power_off_after(1 + random.below(40) as u64);
            }
            live(&mut node, frame_bytes_max, &mut seq, random, &mut synced);
            disk.crash(&mut |choices| random.below(choices));
            suffer(&disk, random, &mut synced);
            // At the end all can be read.
            all_readable = life == 6 || random.below(2) == 0;
            if all_readable {
                disk.make_readable();
            }
        }
    }
}
