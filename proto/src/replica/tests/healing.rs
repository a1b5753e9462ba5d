//! Two logs become one set, whatever happened in between.

use super::*;

#[test]
fn both_sides_of_a_split_are_merged_and_counted() {
    let mut pair = Pair::normal();
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    pair.b.flush();
    for id in 1..=10 {
        pair.a.send(id, "bob");
        pair.b.send(100 + id, "bob");
        pair.b.send(200 + id, "carol");
    }
    pair.a.flush();
    pair.b.flush();
    assert_eq!((pair.a.mode(), pair.b.mode()), (Mode::Solo, Mode::Solo));
    pair.connect();
    pair.run(30);
    assert_eq!((pair.a.mode(), pair.b.mode()), (Mode::Normal, Mode::Normal));
    pair.assert_alike(&["bob", "carol"]);
    assert_eq!(pair.a.numbers("bob").len(), 20);
    assert!(pair.a.fx.events.contains(&Event::Split { mine: 10, theirs: 20 }));
    assert!(pair.b.fx.events.contains(&Event::Split { mine: 20, theirs: 10 }));
    assert_eq!(pair.a.replica.status(pair.a.at()).copies_one, 0);
}

#[test]
fn an_id_taken_on_both_sides_is_one_entry_and_the_lowest_dot_stays() {
    let mut pair = Pair::normal();
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    pair.b.flush();
    pair.a.send(1, "bob");
    pair.b.send_text(1, "bob", b"something else");
    pair.a.flush();
    pair.b.flush();
    pair.connect();
    pair.run(30);
    pair.assert_alike(&["bob"]);
    let dots = pair.a.inbox("bob");
    assert_eq!((dots.len(), dots[0].origin.node), (1, 1));

    let double = pair.a.fx.doubles[0];
    assert_eq!((double.kept.0, double.dropped.0.origin.node), (dots[0], 2));
    assert_eq!(pair.b.fx.doubles.len(), 1);
    for node in [&mut pair.a, &mut pair.b] {
        node.restart();
        assert_eq!(node.inbox("bob"), dots, "after a restart");
    }
}

#[test]
fn an_id_taken_on_both_sides_and_acknowledged_on_one_is_done() {
    let mut pair = Pair::normal();
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    pair.b.flush();
    pair.a.send(1, "bob");
    pair.b.send(1, "bob");
    pair.a.flush();
    pair.b.flush();
    assert_eq!(pair.b.read("bob", 1), [1]);
    pair.b.ack("bob", 1, 1);
    pair.b.flush();
    pair.connect();
    pair.run(30);
    assert_eq!((pair.a.inbox("bob").len(), pair.b.inbox("bob").len()), (0, 0));
    pair.a.restart();
    pair.b.restart();
    assert_eq!((pair.a.inbox("bob").len(), pair.b.inbox("bob").len()), (0, 0));
}

#[test]
fn two_records_of_an_id_whose_tomb_a_crash_lost_collapse_after_the_restart() {
    let mut pair = Pair::normal();
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    pair.b.flush();
    pair.a.send(1, "bob");
    pair.b.send(1, "bob");
    pair.a.flush();
    pair.b.flush();
    pair.connect();
    // Everything but the TOMBs that follow from it.
    while pair.b.fx.doubles.is_empty() {
        pair.carry();
        pair.a.close();
        pair.b.close();
        pair.a.sync();
        pair.b.sync();
    }
    pair.b.fx.open.clear();
    pair.cut(LinkDown::Gone);
    pair.b.restart();
    assert_eq!(pair.b.inbox("bob").len(), 2);
    pair.b.poll();
    assert_eq!(pair.b.inbox("bob").len(), 1);
    pair.connect();
    pair.run(30);
    pair.assert_alike(&["bob"]);
}

#[test]
fn an_acknowledgement_removes_the_message_on_both_nodes_also_while_it_is_being_delivered() {
    let mut pair = Pair::normal();
    for id in 1..=3 {
        pair.a.send(id, "bob");
    }
    pair.run(2);
    assert_eq!(pair.b.read("bob", 1), [1, 2, 3]);
    assert_eq!(pair.a.read("bob", 2), [1, 2, 3]);
    pair.a.ack("bob", 2, 2);
    pair.run(2);
    assert_eq!(pair.b.numbers("bob"), [3]);
    pair.b.ack("bob", 1, 3);
    pair.run(2);
    assert_eq!((pair.a.numbers("bob").len(), pair.b.numbers("bob").len()), (0, 0));
    assert_eq!(pair.b.core.counters().acked, 1, "for the others there was a TOMB");
    pair.b.send(4, "bob");
    pair.run(2);
    assert_eq!((pair.b.delivered("bob").last(), pair.a.numbers("bob")), (Some(&4), vec![4]));
}

#[test]
fn a_suffix_that_a_crash_lost_comes_back_and_its_numbers_are_not_used_again() {
    let mut pair = Pair::normal();
    pair.a.send(1, "bob");
    pair.run(2);
    pair.a.send(2, "bob");
    pair.a.close();
    pair.carry();
    pair.b.flush();
    pair.cut(LinkDown::Gone);
    pair.a.restart();
    assert_eq!(pair.a.numbers("bob"), [1]);
    pair.connect();
    pair.run(20);
    assert_eq!(pair.a.numbers("bob"), [1, 2]);
    pair.a.send(3, "bob");
    pair.run(2);
    pair.assert_alike(&["bob"]);
    assert_eq!(pair.b.numbers("bob"), [1, 2, 3]);
}

#[test]
fn a_restart_goes_through_recovering_to_normal_without_being_alone() {
    let mut pair = Pair::normal();
    pair.a.send(1, "bob");
    pair.run(2);
    pair.cut(LinkDown::Gone);
    pair.b.flush();
    pair.b.send(2, "bob");
    pair.b.flush();
    pair.a.restart();
    pair.connect();
    pair.run(20);
    assert_eq!((pair.a.mode(), pair.b.mode()), (Mode::Normal, Mode::Normal));
    let solo = |event: &Event| matches!(event, Event::Mode { mode: Mode::Solo, .. });
    assert!(!pair.a.fx.events.iter().any(solo));
    pair.assert_alike(&["bob"]);
}

/// Drops every segment of a node that may go and of which `is_dead` says that the log's own rules allow it.
fn drop_segments(node: &mut Node, is_dead: impl Fn(u32) -> bool) -> usize {
    let last = segment_of(node.fx.lsn);
    let may = |segment: &u32| is_dead(*segment) && node.replica.may_drop(&node.core, *segment);
    let segments: Vec<u32> = (1..last).filter(may).collect();
    for segment in &segments {
        node.fx.batches.retain(|batch| segment_of(batch.lsn) != *segment);
        node.replica.segment_dropped(*segment);
    }
    segments.len()
}

#[test]
fn a_segment_is_kept_until_the_peer_has_all_of_it() {
    let mut pair = Pair::normal();
    pair.a.send(1, "bob");
    pair.run(2);
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    assert_eq!(pair.a.read("bob", 1), [1]);
    pair.a.ack("bob", 1, 1);
    let with_tomb = segment_of(pair.a.fx.lsn);
    for _ in 0..20 {
        pair.a.send(u128::from(pair.a.fx.lsn) + 100, "carol");
        pair.a.flush();
    }
    assert!(!pair.a.replica.may_drop(&pair.a.core, with_tomb));
    pair.connect();
    pair.run(30);
    // Later lives must know that it was here.
    assert!(!pair.a.replica.may_drop(&pair.a.core, with_tomb));
    pair.a.replica.checkpoint(&mut pair.a.fx, &mut pair.a.core).unwrap();
    pair.run(5);
    assert!(pair.a.replica.may_drop(&pair.a.core, with_tomb));
    assert_eq!(pair.b.inbox("bob"), []);
}

/// A pair of which the first node has reclaimed what is done.
fn reclaimed() -> Pair {
    let mut pair = Pair::normal();
    for id in 1..=20 {
        pair.a.send(id, "bob");
        pair.run(1);
    }
    assert_eq!(pair.a.read("bob", 1).len(), 20);
    pair.a.ack("bob", 1, 20);
    pair.a.send(21, "bob");
    pair.run(5);
    let at = segment_of(pair.a.fx.lsn);
    pair.a.replica.checkpoint(&mut pair.a.fx, &mut pair.a.core).unwrap();
    pair.run(5);
    for _ in 0..8 {
        pair.a.send(u128::from(pair.a.fx.lsn) + 100, "carol");
        pair.run(1);
    }
    let dropped = drop_segments(&mut pair.a, |segment| segment + 1 < at);
    assert!(dropped >= 4, "{dropped} dropped");
    pair
}

#[test]
fn a_peer_with_an_empty_disk_gets_everything_and_takes_a_new_life() {
    let mut pair = reclaimed();
    let carol = pair.a.inbox("carol");
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    let config = pair.b.config.clone();
    pair.b = Node::start(config.clone(), VecDeque::new(), true, pair.a.now);
    pair.connect();
    pair.run(5);
    assert_eq!(pair.b.fx.reincarnate, Some(1), "its numbers were given out");
    assert!(!pair.b.replica.serves());
    let mut config = config;
    config.me.incarnation = 2;
    pair.b = Node::start(config, VecDeque::new(), true, pair.a.now);
    pair.connect();
    pair.run(30);
    assert_eq!((pair.a.mode(), pair.b.mode()), (Mode::Normal, Mode::Normal));
    assert_eq!((pair.b.numbers("bob"), pair.b.inbox("carol")), (vec![21], carol));
    // Message ids of what is gone are known there, too.
    let retry = pair.b.send(5, "bob");
    pair.run(2);
    assert_eq!((pair.b.fx.accepted.last(), pair.b.numbers("bob")), (Some(&(retry, 2)), vec![21]));
    pair.b.restart();
    pair.connect();
    pair.run(30);
    assert_eq!(pair.b.numbers("bob"), [21]);
    let retry = pair.b.send(6, "bob");
    pair.run(2);
    assert_eq!((pair.b.fx.accepted.last(), pair.b.numbers("bob")), (Some(&(retry, 2)), vec![21]));
}

#[test]
fn a_reclaimed_log_knows_after_a_restart_that_nothing_is_missing() {
    let mut pair = reclaimed();
    pair.cut(LinkDown::Gone);
    pair.a.restart();
    pair.b.fx.events.clear();
    pair.connect();
    pair.run(30);
    assert_eq!((pair.a.mode(), pair.b.mode()), (Mode::Normal, Mode::Normal));
    let repeated =
        pair.a.replica.counters().repeated_records + pair.b.replica.counters().repeated_records;
    assert_eq!(repeated, 0, "nothing was sent twice");
    assert_eq!(pair.b.replica.counters().fenced, 0);
    pair.assert_alike(&["bob", "carol"]);
}

#[test]
fn an_old_image_of_a_disk_is_brought_up_to_date_under_a_new_incarnation() {
    let mut pair = Pair::normal();
    pair.a.send(1, "bob");
    pair.run(2);
    let image = pair.a.fx.batches.clone();
    pair.a.send(2, "bob");
    pair.run(2);
    pair.cut(LinkDown::Gone);
    pair.a.restart();
    pair.connect();
    pair.run(20);
    pair.a.send(3, "bob");
    pair.run(2);
    pair.cut(LinkDown::Gone);
    // The image knows nothing of the second life, and counts it anew.
    let mut config = pair.a.config.clone();
    config.me.incarnation = 2;
    pair.a = Node::start(config.clone(), image.clone(), true, pair.a.now);
    pair.connect();
    pair.run(5);
    assert_eq!(pair.a.fx.reincarnate, Some(2));
    config.me.incarnation = 3;
    pair.a = Node::start(config, image, true, pair.a.now);
    pair.connect();
    pair.run(30);
    assert_eq!((pair.a.mode(), pair.a.numbers("bob")), (Mode::Normal, vec![1, 2, 3]));
    pair.assert_alike(&["bob"]);
}

#[test]
fn numbers_used_twice_are_fenced_and_other_streams_go_on() {
    let mut pair = Pair::normal();
    pair.a.send(1, "bob");
    pair.run(2);
    let image = pair.a.fx.batches.clone();
    let life = |pair: &mut Pair, id: u128| {
        // A second life that the peer hears of, or does not.
        let mut config = pair.a.config.clone();
        config.me.incarnation = 2;
        pair.a = Node::start(config, image.clone(), true, pair.a.now + 1);
        pair.a.now += 1000;
        pair.a.poll();
        pair.a.flush();
        pair.a.send(id, "bob");
        pair.a.flush();
    };
    pair.cut(LinkDown::Gone);
    life(&mut pair, 2);
    pair.connect();
    pair.run(20);
    pair.cut(LinkDown::Gone);
    life(&mut pair, 3);
    pair.connect();
    pair.run(5);
    assert!(pair.a.fx.reincarnate.is_some());
    // A third life; what the second one wrote twice stays where it is.
    let mut config = pair.a.config.clone();
    config.me.incarnation = 3;
    let batches = pair.a.fx.batches.clone();
    pair.a = Node::start(config, batches, true, pair.a.now);
    pair.connect();
    pair.run(30);
    pair.a.send(4, "bob");
    pair.b.send(5, "bob");
    pair.run(5);
    assert_eq!(pair.a.numbers("bob"), [1, 3, 4, 5]);
    assert_eq!(pair.b.numbers("bob"), [1, 2, 4, 5]);
    assert_eq!(pair.b.replica.status(pair.b.at()).fenced_streams, 2, "EPOCHs, and messages");
}

#[test]
fn what_a_damaged_log_lost_comes_back_from_the_peer() {
    let mut pair = reclaimed();
    pair.cut(LinkDown::Gone);
    let mut batches = pair.a.fx.batches.clone();
    let before = pair.a.inbox("carol");
    batches.remove(batches.len() - 5);
    batches.remove(batches.len() - 3);
    let mut config = pair.a.config.clone();
    config.me.incarnation += 1;
    pair.a = Node::start(config, batches, false, pair.a.now);
    assert!(pair.a.inbox("carol").len() < before.len());
    pair.connect();
    pair.run(30);
    assert_eq!((pair.a.mode(), pair.b.mode()), (Mode::Normal, Mode::Normal));
    pair.assert_alike(&["bob", "carol"]);
    assert_eq!(pair.a.inbox("carol"), before);
    assert!(pair.a.fx.events.contains(&Event::Repaired));
    assert_eq!(pair.a.replica.counters().lost_records, 0);
    pair.cut(LinkDown::Gone);
    pair.a.restart();
    pair.connect();
    pair.run(30);
    assert_eq!(pair.a.mode(), Mode::Normal);
    pair.assert_alike(&["bob", "carol"]);
}

#[test]
fn what_neither_node_has_is_reported_lost() {
    let mut pair = Pair::normal();
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    for id in 1..=10 {
        pair.a.send(id, "bob");
        pair.a.flush();
    }
    let mut batches = pair.a.fx.batches.clone();
    batches.remove(batches.len() - 3);
    let mut config = pair.a.config.clone();
    config.me.incarnation += 1;
    pair.a = Node::start(config, batches, false, pair.a.now);
    pair.connect();
    pair.run(30);

    assert_eq!(pair.a.replica.counters().lost_records, 1);
    assert_eq!((pair.a.mode(), pair.a.numbers("bob").len()), (Mode::Normal, 9));
    pair.assert_alike(&["bob"]);
}

#[test]
fn a_backlog_that_is_larger_than_memory_is_read_from_the_log() {
    let mut pair = Pair::with(|config| {
        (config.tail_bytes, config.window_bytes) = (2000, 4000);
        config.near_bytes = 500;
    });
    pair.connect();
    pair.run(20);
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    for id in 1..=300 {
        pair.a.send(id, "bob");
        if id % 3 == 0 {
            pair.a.flush();
        }
    }
    pair.connect();
    pair.run(3);
    for id in 301..=400 {
        pair.a.send(id, "bob");
        pair.run(1);
    }
    pair.run(200);
    assert_eq!((pair.a.mode(), pair.b.mode()), (Mode::Normal, Mode::Normal));
    assert_eq!(pair.b.numbers("bob").len(), 400);
    pair.assert_alike(&["bob"]);
    assert!(pair.a.replica.counters().healed_bytes > 0);
}

#[test]
fn a_peer_without_room_takes_the_rest_when_it_has_some() {
    let mut pair = Pair::normal();
    pair.b.fx.has_room = false;
    let seq = pair.a.send(1, "bob");
    pair.run(5);
    assert_eq!(pair.a.fx.accepted, []);
    pair.b.fx.has_room = true;
    pair.run(5);
    assert_eq!((pair.a.fx.accepted.as_slice(), pair.b.numbers("bob")), (&[(seq, 2)][..], vec![1]));
}

#[test]
fn a_link_that_breaks_at_any_byte_does_no_harm() {
    for cut_at in 0..120 {
        let mut pair = Pair::normal();
        pair.cut(LinkDown::Lost);
        pair.a.send(1, "bob");
        pair.b.send(2, "bob");
        pair.a.flush();
        pair.b.flush();
        pair.connect();
        let mut left = cut_at * 7;
        while left > 0 && pair.a.mode() == Mode::Normal {
            let bytes = std::mem::take(&mut pair.a.fx.sent);
            let some = bytes.len().min(left);
            left -= some;
            let (at, link) = (pair.b.at(), pair.link.unwrap());
            pair.b.replica.handle_bytes(&mut pair.b.fx, &mut pair.b.core, at, link, &bytes[..some]);
            let bytes = std::mem::take(&mut pair.b.fx.sent);
            let at = pair.a.at();
            pair.a.replica.handle_bytes(&mut pair.a.fx, &mut pair.a.core, at, link, &bytes);
            pair.a.flush();
            pair.b.flush();
            if some == 0 {
                break;
            }
        }
        pair.cut(LinkDown::Lost);
        pair.connect();
        pair.run(30);
        assert_eq!((pair.a.mode(), pair.b.mode()), (Mode::Normal, Mode::Normal), "{cut_at}");
        pair.assert_alike(&["bob"]);
        assert_eq!(pair.a.numbers("bob"), [1, 2]);
    }
}

#[test]
fn bytes_of_an_older_link_are_dropped() {
    let mut pair = Pair::normal();
    let stale = pair.link.unwrap();
    pair.a.send(1, "bob");
    pair.a.close();
    let bytes = std::mem::take(&mut pair.a.fx.sent);
    pair.cut(LinkDown::Lost);
    pair.connect();
    let at = pair.b.at();
    pair.b.replica.handle_bytes(&mut pair.b.fx, &mut pair.b.core, at, stale, &bytes);
    assert_eq!(pair.b.replica.counters().stale_bytes, bytes.len() as u64);
    pair.run(10);
    assert_eq!(pair.b.numbers("bob"), [1]);
    assert_eq!(pair.b.replica.counters().repeated_records, 0);
}

#[test]
fn nothing_a_peer_sends_is_believed_and_nothing_makes_a_node_fall() {
    let mut source = Pair::normal();
    source.a.send(1, "bob");
    source.cut(LinkDown::Lost);
    source.a.flush();
    source.connect();
    let hello = std::mem::take(&mut source.a.fx.sent);
    source.b.fx.sent.clear();
    for byte in 0..hello.len() {
        for flip in [1, 0x80, 0xff] {
            let mut pair = Pair::normal();
            pair.cut(LinkDown::Lost);
            pair.connect();
            let mut bytes = hello.clone();
            bytes[byte] ^= flip;
            let (at, link) = (pair.b.at(), pair.link.unwrap());
            pair.b.replica.handle_bytes(&mut pair.b.fx, &mut pair.b.core, at, link, &bytes);
            pair.b.flush();
        }
    }
}

#[test]
fn a_peer_of_another_layout_is_refused_by_name() {
    for (change, code) in [
        ((|config: &mut ReplicaConfig| config.partitions = 2) as fn(&mut _), RefuseCode::Layout),
        (|config| config.num_shards = 3, RefuseCode::Layout),
        (|config| config.me.node = 9, RefuseCode::WrongNode),
    ] {
        let mut pair = Pair::new();
        pair.b = Node::new(2, change);
        pair.connect();
        // A greeting waits for the first MARK.
        pair.b.flush();
        let hello = std::mem::take(&mut pair.b.fx.sent);
        let at = pair.a.at();
        pair.a.replica.handle_bytes(&mut pair.a.fx, &mut pair.a.core, at, 1, &hello);
        assert_eq!(pair.a.fx.closed, Some(code));
        let refusal = std::mem::take(&mut pair.a.fx.sent);
        pair.b.replica.handle_bytes(&mut pair.b.fx, &mut pair.b.core, at, 1, &refusal);
        assert!(
            pair.b
                .fx
                .events
                .iter()
                .any(|e| matches!(e, Event::Closed(_) | Event::RefusedByPeer(_)))
        );
    }
}

#[test]
fn a_retired_peer_may_only_come_back_empty() {
    let mut pair = Pair::normal();
    pair.a.send(1, "bob");
    pair.run(2);
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    for _ in 0..20 {
        pair.a.send(u128::from(pair.a.fx.lsn) + 100, "carol");
        pair.a.flush();
    }
    let last = segment_of(pair.a.fx.lsn);
    assert!(!pair.a.replica.may_drop(&pair.a.core, last - 1));
    pair.a.replica.retire_peer(&mut pair.a.fx, &mut pair.a.core);
    assert!(!pair.a.replica.may_drop(&pair.a.core, last - 1), "a crash could take it back");
    pair.a.flush();
    assert!(pair.a.replica.may_drop(&pair.a.core, last - 1));
    pair.a.restart();
    assert!(pair.a.replica.may_drop(&pair.a.core, last - 1), "a later life knows it");
    assert_eq!(pair.a.replica.status(pair.a.at()).retired, Some(2));
    pair.connect();
    pair.carry();
    assert_eq!(pair.a.fx.closed, Some(RefuseCode::Retired));
    let mut config = pair.b.config.clone();
    config.me.incarnation = 2;
    pair.b = Node::start(config, VecDeque::new(), true, pair.a.now);
    pair.connect();
    pair.run(30);
    assert_eq!((pair.a.mode(), pair.b.mode()), (Mode::Normal, Mode::Normal));
    pair.assert_alike(&["bob", "carol"]);
    pair.a.flush();
    pair.cut(LinkDown::Gone);
    pair.a.restart();
    assert_eq!(
        pair.a.replica.status(pair.a.at()).retired,
        None,
        "it is back, for later lives, too"
    );
}

#[test]
fn a_log_without_room_lets_go_of_what_it_kept_for_a_retired_peer() {
    let mut pair = Pair::normal();
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    for _ in 0..20 {
        pair.a.send(u128::from(pair.a.fx.lsn) + 100, "carol");
        pair.a.flush();
    }
    let last = segment_of(pair.a.fx.lsn);
    pair.a.fx.has_room = false;
    pair.a.replica.retire_peer(&mut pair.a.fx, &mut pair.a.core);
    assert!(pair.a.replica.may_drop(&pair.a.core, last - 1), "nothing else makes room");
    pair.a.fx.has_room = true;
    pair.a.poll();
    assert!(!pair.a.replica.may_drop(&pair.a.core, last - 1), "now there is room to say it first");
    pair.a.flush();
    pair.a.restart();
    assert_eq!(pair.a.replica.status(pair.a.at()).retired, Some(2));
}

#[test]
fn a_retired_peer_is_filled_only_once_it_is_synced_that_it_is_back() {
    let mut pair = Pair::normal();
    pair.a.send(1, "bob");
    pair.run(2);
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    pair.a.replica.retire_peer(&mut pair.a.fx, &mut pair.a.core);
    pair.a.flush();
    let mut config = pair.b.config.clone();
    config.me.incarnation = 2;
    pair.b = Node::start(config, VecDeque::new(), true, pair.a.now);
    pair.b.flush();
    pair.connect();
    pair.carry();
    assert_eq!(pair.a.replica.status(pair.a.at()).retired, None);
    assert_eq!(pair.b.replica.status(pair.b.at()).peer, None, "nothing was said to it yet");
    // A crash now takes that back, and the peer, still empty, may come again.
    pair.cut(LinkDown::Gone);
    pair.a.restart();
    assert_eq!(pair.a.replica.status(pair.a.at()).retired, Some(2));
    pair.connect();
    pair.run(200);
    assert_eq!((pair.a.mode(), pair.b.mode()), (Mode::Normal, Mode::Normal));
    pair.assert_alike(&["bob"]);
}

#[test]
fn a_core_that_takes_over_keeps_the_order_of_what_its_peer_took_before() {
    let mut pair = Pair::normal();
    for id in 1..=3 {
        pair.a.send(id, "bob");
    }
    pair.a.close();
    pair.carry();
    // The peer's are in the log of b, and nobody has told b that they are synced on both.
    assert_eq!(pair.b.numbers("bob").len(), 0);
    for id in 4..=6 {
        pair.b.send(id, "bob");
    }
    pair.cut(LinkDown::Gone);
    pair.b.flush();
    pair.b.flush();
    assert_eq!(pair.b.mode(), Mode::Solo);
    assert_eq!(pair.b.numbers("bob"), [1, 2, 3, 4, 5, 6]);
    assert_eq!(pair.b.read("bob", 1), [1, 2, 3, 4, 5, 6]);
    assert_eq!(pair.b.fx.accepted.len(), 3, "its own, at one copy");
    pair.b.restart();
    assert_eq!(pair.b.numbers("bob"), [1, 2, 3, 4, 5, 6], "after a restart");
}

#[test]
fn healing_reads_no_more_of_the_log_than_its_rate_allows() {
    const RATE: usize = 2000;
    const SCAN: usize = 256 << 10;
    let mut pair = Pair::with(|config| {
        config.heal_bytes_per_ms = RATE;
        config.tail_bytes = 1 << 10;
    });
    pair.connect();
    pair.run(30);
    assert_eq!(pair.a.mode(), Mode::Normal);
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    for id in 1..=1500 {
        pair.a.send_text(id, "bob", &[7; 1000]);
        if id % 50 == 0 {
            pair.a.flush();
        }
    }
    pair.a.flush();
    pair.connect();
    let mut healed = 0;
    for ms in 1..=1500 {
        pair.run(1);
        healed = pair.a.replica.counters().healed_bytes as usize;
        assert!(healed <= ms * RATE + 2 * SCAN, "{healed} bytes in {ms} ms");
    }
    assert!(healed >= 1_000_000, "{healed}: the log is what heals");
    pair.assert_alike(&["bob"]);
}
