//! A start calls damaged what is, and not what stands beside it: a segment that is called damaged is never written to and
//! never reclaimed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{
    HEADER_BYTE, Node, head, messages, msg, path_of, read, resume_halved, rot, seqs,
    torn_in_the_second,
};
use iris_wal::{BLOCK, Pos};

/// The segments with faults, each once.
fn blamed(node: &Node) -> Vec<u32> {
    let (recovered, _) = read(&node.disk).unwrap();
    let mut segments: Vec<_> = recovered.faults.iter().map(|fault| fault.segment).collect();
    segments.dedup();
    segments
}

/// Four messages, and a torn batch of two behind them in the same segment.
fn torn_behind_four() -> Node {
    let mut node = Node::new();
    node.send(1..=4, b"payload");
    node.append(&msg(5, b"whole"));
    node.append(&msg(6, &[2; 20_000]));
    node.tear();
    node
}

#[test]
fn a_torn_batch_before_segments_for_other_frames_is_no_damage_and_does_not_come_back() {
    let node = torn_behind_four();
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(messages(&told), [1, 2, 3, 4]);
    let mut node = resume_halved(&node.disk, recovered, 200);
    assert!(node.send(7..=8, b"after")[0].segment > 2);
    // Before the footer of the first one is written.
    node.disk.crash(&mut |_| 0);
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!((messages(&told), recovered.faults), (vec![1, 2, 3, 4, 7, 8], vec![]));
}

#[test]
fn a_torn_batch_before_a_damaged_empty_segment_is_no_damage() {
    let node = torn_behind_four();
    rot(&node, 3, HEADER_BYTE);
    let (mut node, _) = Node::boot(&node.disk, 200);
    assert!(node.send(7..=8, b"after")[0].segment > 3);
    node.disk.crash(&mut |_| 0);
    assert_eq!(messages(&read(&node.disk).unwrap().1), [1, 2, 3, 4, 7, 8]);
    assert_eq!(blamed(&node), [3]);
}

#[test]
fn a_rotten_header_at_an_end_of_a_segment_is_no_fault_of_the_one_beside_it() {
    // The seventh message ends segment 1, the eighth begins segment 2.
    for (lost, segment) in [(7, 1), (8, 2)] {
        let mut node = Node::new();
        let pos = node.send(1..=9, &[1; 30_000])[lost - 1];
        assert_eq!(pos.segment, segment);
        rot(&node, segment, pos.offset as usize / BLOCK * BLOCK + 20);
        assert_eq!(blamed(&node), [segment]);
        let told = seqs(&read(&node.disk).unwrap().1);
        assert_eq!(told, (1..=9).filter(|seq| *seq != lost as u64).collect::<Vec<_>>());
    }
}

#[test]
fn rot_in_the_batch_before_a_torn_one_of_the_next_segment_is_no_torn_tail() {
    let disk = torn_in_the_second();
    let seventh = read(&disk).unwrap().1[6].pos();
    for byte in [seventh.offset as usize + 50, seventh.offset as usize / BLOCK * BLOCK + 20] {
        disk.damage(&path_of(1), |bytes| bytes[byte] ^= 1);
        let (recovered, told) = read(&disk).unwrap();
        assert_eq!(messages(&told), (1..=6).collect::<Vec<_>>());
        assert!(recovered.faults.iter().any(|fault| fault.segment == 1), "it was synced");
        disk.damage(&path_of(1), |bytes| bytes[byte] ^= 1);
    }
}

#[test]
fn damage_that_a_torn_batch_proves_stays_damage_once_the_log_went_on() {
    let disk = torn_in_the_second();
    let seventh = read(&disk).unwrap().1[6].pos().offset as usize / BLOCK * BLOCK;
    disk.damage(&path_of(1), |bytes| bytes[seventh + 20] ^= 1);
    let before = disk.bytes(&path_of(1));
    let mut node = Node::boot(&disk, 200).0;
    for life in 1..=3 {
        node.send(20 * life..=20 * life + 2, b"after");
        assert_eq!(blamed(&node), [1], "life {life}");
        node = Node::boot(&disk, 200 + 100 * life).0;
        node.write_footers();
    }
    assert!(disk.bytes(&path_of(1)) == before, "it is kept byte for byte");
    let told = messages(&read(&disk).unwrap().1);
    assert_eq!(told, [1, 2, 3, 4, 5, 6, 20, 21, 22, 40, 41, 42, 60, 61, 62]);
}

/// Message 8 alone in segment 2; then frames of another length, in segment 4: torn, or a whole one.
fn alone_in_the_second(torn: bool) -> (Node, Pos) {
    let mut node = Node::new();
    node.send(1..=7, &[1; 30_000]);
    let eighth = node.send(8..=8, &[2; 30_000])[0];
    assert_eq!(eighth.segment, 2);
    let (recovered, _) = read(&node.disk).unwrap();
    let mut node = resume_halved(&node.disk, recovered, 200);
    assert!(node.append(&msg(9, &[3; 14_000])).segment > 3);
    if torn {
        node.tear();
    } else {
        node.flush();
    }
    assert!(blamed(&node).is_empty(), "so far nothing is damaged");
    (node, eighth)
}

#[test]
fn rot_in_the_only_frame_of_a_segment_is_its_own_fault_and_it_is_kept() {
    for torn in [true, false] {
        for in_header in [true, false] {
            let (node, eighth) = alone_in_the_second(torn);
            rot(&node, 2, if in_header { BLOCK + 20 } else { eighth.offset as usize + 100 });
            let before = node.disk.bytes(&path_of(2));
            let what = format!("torn: {torn}, header: {in_header}");
            assert!(blamed(&node).iter().all(|segment| *segment == 2), "{what}");
            let (mut node, _) = Node::boot(&node.disk, 300);
            assert!(node.send(20..=22, b"after")[0].segment > 2, "{what}");
            assert!(node.disk.bytes(&path_of(2)) == before, "{what}: it was written to");
            let told = messages(&read(&node.disk).unwrap().1);
            assert!((1..=7).chain(20..=22).all(|seq| told.contains(&seq)), "{what}: {told:?}");
            assert_eq!(blamed(&node), [2], "{what}");
        }
    }
}

#[test]
fn a_rotten_first_header_before_a_torn_batch_is_no_fault_of_the_segment_before() {
    let mut node = Node::new();
    node.send(1..=7, &[1; 30_000]);
    assert_eq!(node.send(8..=8, &[2; 30_000])[0].segment, 2);
    node.append(&msg(9, &[3; 30_000]));
    node.tear();
    assert!(blamed(&node).is_empty());
    rot(&node, 2, BLOCK + 20);
    assert_eq!(messages(&read(&node.disk).unwrap().1), (1..=7).collect::<Vec<_>>());
    assert_eq!(blamed(&node), [2]);
}

#[test]
fn a_segment_that_is_cut_to_nothing_is_the_only_one_blamed_though_the_next_is_torn() {
    let mut node = Node::new();
    let mut seq = 1;
    while node.append(&msg(seq, &[1; 30_000])).segment < 3 {
        node.flush();
        seq += 1;
    }
    node.tear();
    assert!(blamed(&node).is_empty());
    node.disk.put(&path_of(2), &[]);
    assert_eq!(blamed(&node), [2]);
}

#[test]
fn rot_at_the_end_of_a_segment_is_seen_though_a_torn_batch_stands_in_the_next_one() {
    let (mut node, _) = Node::boot(&torn_in_the_second(), 200);
    node.send(10..=10, b"short");
    let whole = node.append(&msg(11, b"whole"));
    let rotten = node.append(&msg(12, b"rots"));
    node.flush();
    assert_eq!((whole.segment, rotten.segment), (1, 1));
    let (recovered, _) = read(&node.disk).unwrap();
    let mut node = resume_halved(&node.disk, recovered, 300);
    node.send(20..=22, b"after");
    rot(&node, 1, rotten.offset as usize + 50);
    assert_eq!(blamed(&node), [1]);
    let (recovered, told) = read(&node.disk).unwrap();
    assert_eq!(messages(&told), [1, 2, 3, 4, 5, 6, 7, 10, 11, 20, 21, 22]);
    // Nor is it reclaimed.
    let mut node = resume_halved(&node.disk, recovered, 400);
    node.write_footers();
    node.append(&msg(30, &[3; 10_000]));
    node.flush();
    node.log.checkpoint_began();
    node.log.checkpoint_complete(head(99)).unwrap();
    node.flush();
    assert!(!node.log.droppable().contains(&1));
}
