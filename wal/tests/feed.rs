//! Reading a log for a peer: what is synced, whole, in order, from any frame on.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{FRAME_BYTES, Node, SEGMENT_BYTES, fed, msg, path_of, place};
use iris_wal::Pos;
use iris_wal::feed::Feed;

#[test]
fn a_feed_gives_what_is_synced_in_order_in_steps_of_any_size() {
    let mut node = Node::new();
    node.send(1..=40, &[7; 500]);
    let all: Vec<u64> = (1..=40).collect();
    for bytes_max in [1, 1000, 1 << 20, usize::MAX] {
        assert_eq!(fed(&node, 1, node.log.durable(), bytes_max), all);
        assert_eq!(fed(&node, 1, 25, bytes_max), all[..25]);
    }
    assert!(fed(&node, 2, node.log.durable(), 1000).is_empty());
}

#[test]
fn a_sealed_segment_ends_where_its_frames_end() {
    let mut node = Node::new();
    node.send(1..=90, &[7; 4000]);
    node.write_footers();
    let parts: Vec<Vec<u64>> = (1..=3).map(|segment| fed(&node, segment, 90, 5000)).collect();
    assert!(parts.iter().all(|part| !part.is_empty()));
    assert_eq!(parts.concat(), (1..=90).collect::<Vec<_>>());
}

#[test]
fn a_step_reads_little_more_than_it_gives() {
    let mut node = Node::new();
    node.send(1..=50, &[7; 4000]);
    let before = node.disk.bytes_read();
    let given = 4000 * fed(&node, 1, node.log.durable(), 20_000).len() as u64;
    let read = node.disk.bytes_read() - before;
    assert!(read < 4 * given, "{read} bytes for {given}");
}

#[test]
fn rot_is_passed_over_and_the_rest_is_given() {
    let mut node = Node::new();
    let places = node.send(1..=30, &[7; 500]);
    node.disk.damage(&path_of(1), |bytes| {
        // The header of one frame; a record of another.
        bytes[places[9].offset as usize - 64] ^= 1;
        bytes[places[19].offset as usize + 80] ^= 1;
    });
    let expected: Vec<u64> = (1..=30).filter(|seq| ![10, 20].contains(seq)).collect();
    assert_eq!(fed(&node, 1, 30, 1 << 20), expected);
}

#[test]
fn a_long_stretch_of_rot_is_passed_over_in_steps_and_a_segment_not_begun_is_not_read() {
    let mut node = Node::new();
    let places = node.send(1..=7, &[7; 30_000]);
    node.disk.damage(&path_of(1), |bytes| {
        places[1..4].iter().for_each(|pos| bytes[pos.offset as usize - 64] ^= 1);
    });
    let durable = node.log.durable();
    for bytes_max in [1, 1 << 20] {
        assert_eq!(fed(&node, 1, durable, bytes_max), [1, 5, 6, 7]);
        assert_eq!(fed(&node, 1, durable + 1, bytes_max), [1, 5, 6, 7]);
    }
    let before = node.disk.bytes_read();
    assert!(fed(&node, 2, durable, 1).is_empty());
    let read = node.disk.bytes_read() - before;
    assert!(read < 3 * FRAME_BYTES as u64, "{read} bytes of a segment of {SEGMENT_BYTES}");
}

#[test]
fn a_feed_goes_on_where_the_log_grew() {
    let mut node = Node::new();
    node.send(1..=3, b"a");
    let mut feed = Feed::new(node.disk.clone(), place().dir);
    let step = feed.read(Pos { segment: 1, offset: 0 }, node.log.durable(), 1).unwrap();
    node.append(&msg(4, b"b"));
    let next = step.next.unwrap();
    let step = feed.read(Pos { segment: 1, offset: next }, node.log.durable(), 1 << 20).unwrap();
    assert_eq!(step.next, None);
    node.flush();
    assert_eq!(fed(&node, 1, node.log.durable(), 1 << 20), [1, 2, 3, 4]);
    assert!(feed.read(Pos { segment: 9, offset: 0 }, 4, 1).is_err(), "no such segment");
}
