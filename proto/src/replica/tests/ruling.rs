//! When messages are acknowledged.

use super::*;

#[test]
fn in_normal_a_message_is_acknowledged_when_both_nodes_synced_it() {
    let mut pair = Pair::normal();
    let seq = pair.a.send(1, "bob");
    pair.a.close();
    pair.carry();
    assert_eq!(pair.a.fx.accepted, [], "synced nowhere");
    pair.a.sync();
    assert_eq!(pair.a.fx.accepted, [], "synced here");
    pair.b.close();
    pair.carry();
    assert_eq!(pair.a.fx.accepted, [], "written there");
    pair.b.sync();
    pair.carry();
    assert_eq!(pair.a.fx.accepted, [(seq, 2)]);
    pair.run(2);
    assert_eq!((pair.a.numbers("bob"), pair.b.numbers("bob")), (vec![1], vec![1]));
}

#[test]
fn a_peer_that_synced_first_is_not_enough() {
    let mut pair = Pair::normal();
    let seq = pair.a.send(1, "bob");
    pair.a.close();
    pair.carry();
    pair.b.flush();
    pair.carry();
    assert_eq!((pair.a.fx.accepted.len(), pair.b.numbers("bob").len()), (0, 0));
    pair.a.sync();
    assert_eq!(pair.a.fx.accepted, [(seq, 2)]);
    pair.carry();
    assert_eq!(pair.b.numbers("bob"), [1], "covered there, too");
}

#[test]
fn alone_a_message_is_acknowledged_with_one_copy_after_the_epoch_is_synced() {
    let mut pair = Pair::normal();
    pair.cut(LinkDown::Lost);
    let seq = pair.a.send(1, "bob");
    pair.a.close();
    pair.a.sync();
    pair.tick(249);
    assert_eq!(pair.a.mode(), Mode::Normal);
    assert_eq!(pair.a.fx.accepted, []);
    pair.tick(1);
    assert!(!pair.a.fx.open.is_empty(), "the EPOCH");
    pair.a.close();
    assert_eq!(pair.a.fx.accepted, []);
    pair.a.sync();
    assert_eq!((pair.a.fx.accepted.as_slice(), pair.a.mode()), (&[(seq, 1)][..], Mode::Solo));
    let status = pair.a.replica.status(pair.a.at());
    assert_eq!((status.copies_one, status.label), (1, Label::Solo));
    assert_eq!(status.last_failover, Some((T0 + pair.a.now, 250)));
    let seq = pair.a.send(2, "bob");
    pair.a.flush();
    assert_eq!(pair.a.fx.accepted.last(), Some(&(seq, 1)));
}

#[test]
fn a_peer_whose_process_is_gone_is_not_waited_for() {
    let mut pair = Pair::normal();
    pair.cut(LinkDown::Gone);
    let seq = pair.a.send(1, "bob");
    pair.a.flush();
    assert_eq!((pair.a.fx.accepted.as_slice(), pair.a.mode()), (&[(seq, 1)][..], Mode::Solo));
}

#[test]
fn what_both_nodes_have_is_acknowledged_as_two_copies_when_the_mode_changes() {
    let mut pair = Pair::normal();
    let seq = pair.a.send(1, "bob");
    pair.a.close();
    pair.carry();
    pair.b.flush();
    pair.b.poll();
    pair.carry();
    // The peer has it; here, the EPOCH is in the same write.
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    assert_eq!(pair.a.fx.accepted, [(seq, 2)]);
}

#[test]
fn a_silent_peer_ends_the_link_and_then_normal() {
    let mut pair = Pair::normal();
    pair.run(1000);
    assert_eq!((pair.a.fx.closed, pair.a.mode()), (None, Mode::Normal), "heartbeats suffice");
    pair.tick(250);
    assert_eq!(pair.a.fx.closed, Some(RefuseCode::Silent));
    pair.tick(250);
    pair.a.flush();
    assert_eq!(pair.a.mode(), Mode::Solo);
    assert_eq!(pair.a.replica.counters().refused[RefuseCode::Silent as usize], 1);
}

#[test]
fn a_slow_peer_ends_normal_and_must_keep_up_for_a_while_to_begin_it_again() {
    let mut pair = Pair::normal();
    let seq = pair.a.send(1, "bob");
    pair.a.flush();
    for _ in 0..26 {
        // Heartbeats arrive, and the peer's disk stands still.
        pair.tick(10);
        pair.carry();
    }
    pair.a.flush();
    assert_eq!((pair.a.mode(), pair.a.fx.accepted.as_slice()), (Mode::Solo, &[(seq, 1)][..]));
    pair.run(990);
    assert_eq!(pair.a.mode(), Mode::Solo, "once bitten");
    pair.run(100);
    assert_eq!(pair.a.mode(), Mode::Normal);
}

#[test]
fn a_retry_at_the_other_node_is_known_and_answered_when_both_have_the_first() {
    let mut pair = Pair::normal();
    pair.a.send(1, "bob");
    pair.a.close();
    pair.carry();
    let retry = pair.b.send(1, "bob");
    assert_eq!(pair.b.core.counters().duplicates, 1);
    pair.b.flush();
    assert_eq!(pair.b.fx.accepted, [], "the first one is not synced there");
    pair.a.sync();
    pair.carry();
    assert_eq!(pair.b.fx.accepted, [(retry, 2)]);
    pair.run(2);
    assert_eq!(pair.b.inbox("bob").len(), 1);
}

#[test]
fn a_start_waits_for_the_peer_and_then_goes_on_alone() {
    let mut node = Node::new(1, |_| {});
    node.poll();
    assert!(!node.replica.serves());
    let seq = node.send(1, "bob");
    assert_eq!(node.fx.rejected, [(seq, RejectCode::NotServing)]);
    node.now += 999;
    node.poll();
    assert_eq!(node.mode(), Mode::Recovering);
    node.now += 1;
    node.poll();
    node.flush();
    assert_eq!((node.mode(), node.replica.serves()), (Mode::Solo, true));
    assert!(node.replica.status(node.at()).possibly_incomplete);
    let seq = node.send(1, "bob");
    node.flush();
    assert_eq!(node.fx.accepted, [(seq, 1)]);
}

#[test]
fn a_node_that_may_not_be_alone_refuses_what_is_new_and_keeps_what_it_has() {
    let mut pair = Pair::with(|config| config.when_alone = WhenAlone::Refuse);
    pair.connect();
    pair.run(20);
    assert_eq!(pair.a.mode(), Mode::Normal);
    let first = pair.a.send(1, "bob");
    pair.a.close();
    pair.cut(LinkDown::Gone);
    pair.a.sync();
    let second = pair.a.send(2, "bob");
    assert_eq!(pair.a.fx.rejected, [(second, RejectCode::NotServing)]);
    pair.run(2000);
    assert_eq!((pair.a.mode(), pair.a.fx.accepted.len()), (Mode::Normal, 0));
    pair.connect();
    pair.run(20);
    assert_eq!(pair.a.fx.accepted, [(first, 2)]);
    let third = pair.a.send(2, "bob");
    pair.run(2);
    assert_eq!(pair.a.fx.accepted.last(), Some(&(third, 2)));
}

#[test]
fn a_draining_node_hands_everything_over_and_its_peer_goes_on_at_once() {
    let mut pair = Pair::normal();
    let seq = pair.a.send(1, "bob");
    pair.a.close();
    let at = pair.a.at();
    pair.a.replica.drain(&mut pair.a.fx, &mut pair.a.core, at);
    let late = pair.a.send(2, "bob");
    assert_eq!(pair.a.fx.rejected, [(late, RejectCode::NotServing)]);
    assert!(!pair.a.replica.is_drained() && !pair.a.replica.serves());
    pair.run(1);
    assert!(pair.a.replica.is_drained());
    assert_eq!(pair.a.fx.accepted, [(seq, 2)]);
    pair.carry();
    pair.b.flush();
    assert_eq!(pair.b.mode(), Mode::Solo);
    assert!(pair.b.fx.events.contains(&Event::PeerDrains));
    let seq = pair.b.send(2, "bob");
    pair.b.flush();
    assert_eq!(pair.b.fx.accepted, [(seq, 1)]);
}

#[test]
fn a_lone_node_drains_when_its_own_log_is_synced() {
    let mut node = Node::new(1, |_| {});
    node.now += 1000;
    node.poll();
    node.flush();
    node.send(1, "bob");
    let at = node.at();
    node.replica.drain(&mut node.fx, &mut node.core, at);
    assert!(!node.replica.is_drained());
    node.flush();
    assert!(node.replica.is_drained());
}

#[test]
fn a_node_is_behind_until_it_has_all_that_its_peer_claimed() {
    let mut pair = Pair::normal();
    pair.cut(LinkDown::Gone);
    pair.a.flush();
    pair.b.flush();
    for id in 1..=10 {
        pair.a.send(id, "bob");
    }
    pair.a.flush();
    assert_eq!(pair.b.replica.partition_state(), PartitionState::Serving, "it knows of nothing");
    pair.connect();
    // What comes to it is not synced, and does not count.
    for _ in 0..30 {
        pair.tick(1);
        pair.a.flush();
        pair.carry();
    }
    assert_eq!(pair.b.replica.partition_state(), PartitionState::Behind);
    // What it lacks does not come by itself: without the link it stays behind.
    pair.cut(LinkDown::Lost);
    pair.a.flush();
    pair.b.flush();
    assert_eq!(pair.b.replica.partition_state(), PartitionState::Behind);
    pair.connect();
    pair.run(100);
    assert_eq!(pair.b.numbers("bob").len(), 10);
    for node in [&pair.a, &pair.b] {
        assert_eq!(node.replica.partition_state(), PartitionState::Serving);
    }
}
