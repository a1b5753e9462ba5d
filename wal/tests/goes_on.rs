//! Where a log goes on when segments cannot be filled further, and what the next start makes of that.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{FRAME_BYTES, Node, SUPPLY, Told, path_of, place, read, seqs};
use iris_wal::BLOCK;
use iris_wal::disk::mem::MemDisk;
use iris_wal::recovery::FaultKind;
use iris_wal::store::{Supply, SupplyConfig};

/// Sequence numbers of messages, in the order they were told.
fn messages(told: &[Told]) -> Vec<u64> {
    seqs(told).into_iter().filter(|seq| *seq != 0).collect()
}

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
            bytes[70] ^= 1;
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
        let faults: Vec<_> = recovered.faults.iter().map(|fault| fault.segment).collect();
        assert_eq!(faults, [1, 2], "the two that are damaged, once each");
    }
}

#[test]
fn a_batch_that_could_not_be_read_at_one_start_hides_no_later_one_once_it_can() {
    for footers in [false, true] {
        let (node, last) = five();
        let frame = last / BLOCK * BLOCK;
        let whole = node.disk.bytes(&path_of(1));
        node.disk.damage(&path_of(1), |bytes| {
            bytes[70] ^= 1;
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
