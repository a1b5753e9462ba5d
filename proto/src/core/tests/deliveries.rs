use super::*;
use crate::limits::{TOMB_TARGETS_MAX, TURN_DELIVERIES_MAX};

fn numbers(node: &mut Node) -> Vec<u32> {
    node.fx.deliveries().into_iter().map(|(no, _)| no).collect()
}

/// A node where bob has `count` durable messages.
fn with_backlog(count: u128) -> Node {
    let mut node = Node::new();
    for number in 0..count {
        node.send("alice", id(number as u64, number), &["bob"]);
        if number % 500 == 0 {
            // Enough syncs that the answers waiting for one stay few.
            node.sync();
        }
    }
    node.sync();
    node.fx.take();
    node
}

#[test]
fn deliveries_stay_within_the_window_and_in_order() {
    let mut node = with_backlog(7);
    node.login("bob", 1, 3);
    node.poll();
    assert_eq!(node.fx.said[0], Said::Welcome(conn(1), 7));
    let first: Vec<_> = (0..3).map(|n| (n as u32 + 1, id(n, u128::from(n)))).collect();
    assert_eq!(node.fx.deliveries(), first);
    node.ack("bob", 1, 2);
    node.poll();
    assert_eq!(node.fx.deliveries(), [(4, id(3, 3)), (5, id(4, 4))]);
    node.ack("bob", 1, 5);
    node.poll();
    assert_eq!(numbers(&mut node), [6, 7]);
    node.ack("bob", 1, 7);
    node.poll();
    assert_eq!((node.fx.take(), node.core.waiting(key("bob"))), (vec![], 0));
}

#[test]
fn bytes_in_flight_hold_back_further_deliveries() {
    let mut node = with_backlog(5);
    // Every record of the tests' log has 100 bytes.
    node.core.config.recv_window_bytes = 250;
    node.login("bob", 1, 100);
    node.poll();
    assert_eq!(numbers(&mut node), [1, 2, 3]);
    node.ack("bob", 1, 1);
    node.poll();
    assert_eq!(numbers(&mut node), [4]);
}

#[test]
fn one_ack_makes_one_tomb_and_a_long_one_makes_as_few_as_fit() {
    let count = 2 * TOMB_TARGETS_MAX + 10;
    let mut node = with_backlog(count as u128);
    node.login("bob", 1, 1024);
    node.poll();
    let records = node.fx.log.len();
    node.ack("bob", 1, 10);
    let made = |node: &Node| -> Vec<usize> {
        let tombs = node.fx.log[records..].iter().map(|logged| match &logged.record {
            Record::Tomb { targets, .. } => targets.len(),
            other => panic!("{other:?} for an ACK"),
        });
        tombs.collect()
    };
    assert_eq!((made(&node), node.fx.removed.len()), (vec![10], 10));
    node.ack("bob", 1, 10);
    node.ack("bob", 1, 4);
    node.ack("bob", 1, 0);
    assert_eq!(made(&node), [10], "an ACK of what is done changes nothing");
    node.ack("bob", 1, count as u32);
    assert_eq!(made(&node), [10, TOMB_TARGETS_MAX, TOMB_TARGETS_MAX]);
    let mut removed = node.fx.removed.clone();
    removed.sort();
    removed.dedup();
    assert_eq!(removed.len(), count, "each entry is given back once");
    assert_eq!(node.core.gauges().entries, 0);
}

#[test]
fn an_ack_of_what_was_never_delivered_ends_the_session() {
    let mut node = with_backlog(3);
    node.login("bob", 1, 2);
    node.poll();
    node.fx.take();
    node.ack("bob", 1, 3);
    assert_eq!(node.fx.take(), [Said::Kick(conn(1), KickReason::BadAck)]);
    assert_eq!(node.core.connection_of(key("bob")), None);
    node.ack("bob", 1, 1);
    node.logout("bob", 1);
    node.poll();
    assert_eq!((node.fx.take(), node.core.waiting(key("bob"))), (vec![], 3));
    assert_eq!(node.core.counters().stale_inputs, 2);
}

#[test]
fn the_newest_login_wins_and_gets_what_the_old_one_had_in_flight() {
    let mut node = with_backlog(4);
    node.login("bob", 1, 3);
    node.poll();
    node.ack("bob", 1, 1);
    node.fx.take();
    node.login("bob", 2, 10);
    node.poll();
    assert_eq!(
        node.fx.said[..2],
        [Said::Kick(conn(1), KickReason::Replaced), Said::Welcome(conn(2), 3),]
    );
    assert_eq!(node.fx.deliveries(), [(1, id(1, 1)), (2, id(2, 2)), (3, id(3, 3))]);
    node.ack("bob", 1, 3);
    node.logout("bob", 1);
    node.core.handle_window(T0, conn(1), key("bob"), 0);
    assert_eq!(node.core.connection_of(key("bob")), Some(conn(2)), "the old one is fenced");
    assert_eq!((node.core.waiting(key("bob")), node.core.gauges().online), (3, 1));
    node.ack("bob", 2, 3);
    assert_eq!(node.core.waiting(key("bob")), 0);
}

#[test]
fn a_login_that_moves_here_late_does_not_throw_out_a_newer_one() {
    let mut node = with_backlog(2);
    let relogin = |node: &mut Node, number, session| {
        let fx = &mut node.fx;
        node.core.handle_relogin(fx, T0, conn(number), key("bob"), "bob", 8, session);
    };
    relogin(&mut node, 1, 7);
    assert_eq!(node.fx.take(), [Said::Welcome(conn(1), 2)]);
    relogin(&mut node, 2, 9);
    let replaced = |number| Said::Kick(conn(number), KickReason::Replaced);
    assert_eq!(node.fx.take(), [replaced(1), Said::Welcome(conn(2), 2)]);
    relogin(&mut node, 3, 8);
    assert_eq!(node.fx.take(), [replaced(3)], "older than the one that is here");
    assert_eq!(node.core.connection_of(key("bob")), Some(conn(2)));
    relogin(&mut node, 4, u64::MAX - 1);
    node.fx.take();
    node.login("bob", 5, 8);
    assert_eq!(node.fx.take(), [replaced(4), Said::Welcome(conn(5), 2)], "a new login wins");
    relogin(&mut node, 6, u64::MAX - 1);
    assert_eq!(node.fx.take(), [replaced(6)], "its number is above whatever was here");
}

#[test]
fn numbers_of_logins_grow() {
    let mut node = Node::new();
    let numbers: Vec<u64> = (1..5)
        .map(|number| {
            node.login("bob", number, 1);
            node.fx.session
        })
        .collect();
    assert!(numbers[0] > 0 && numbers.is_sorted() && numbers.windows(2).all(|n| n[0] != n[1]));
}

#[test]
fn logging_in_twice_on_one_connection_ends_it() {
    let mut node = Node::new();
    node.login("bob", 1, 3);
    node.fx.take();
    node.login("bob", 1, 3);
    assert_eq!(node.fx.take(), [Said::Kick(conn(1), KickReason::SecondLogin)]);
    assert_eq!(node.core.gauges(), Gauges::default());
}

#[test]
fn a_login_that_belongs_elsewhere_or_has_no_name_is_kicked() {
    let mut node = Node::with(|config| {
        config.num_shards = 2;
        config.shards = vec![ShardId(1)];
    });
    let elsewhere = (0..).map(|n| format!("u{n}")).find(|name| key(name).0[0] < 0x80).unwrap();
    node.login(&elsewhere, 1, 3);
    node.core.handle_login(&mut node.fx, T0, conn(2), UserKey([0xff; 16]), "", 3);
    let long = "x".repeat(129);
    node.core.handle_login(&mut node.fx, T0, conn(3), UserKey([0xff; 16]), &long, 3);
    let kicks: Vec<_> = (1..4).map(|n| Said::Kick(conn(n), KickReason::BadLogin)).collect();
    assert_eq!((node.fx.take(), node.core.gauges()), (kicks, Gauges::default()));
}

#[test]
fn a_window_of_zero_pauses_and_a_larger_one_goes_on() {
    let mut node = with_backlog(4);
    node.login("bob", 1, 0);
    node.poll();
    assert_eq!(numbers(&mut node), [0; 0]);
    node.core.handle_window(T0, conn(1), key("bob"), 2);
    node.poll();
    assert_eq!(numbers(&mut node), [1, 2]);
    node.core.handle_window(T0, conn(1), key("bob"), 1);
    node.ack("bob", 1, 1);
    node.poll();
    assert_eq!(numbers(&mut node), [0; 0], "one is still in flight");
    node.core.handle_window(T0, conn(1), key("bob"), u32::MAX);
    node.poll();
    assert_eq!(numbers(&mut node), [3, 4]);
}

#[test]
fn a_backlog_of_100_000_does_not_delay_another_user() {
    let mut node = with_backlog(100_000);
    let hello = node.deliverable(0, "carol");
    node.login("bob", 1, 1024);
    node.login("carol", 2, 8);
    node.fx.take();
    node.core.poll(&mut node.fx, T0, 2 * TURN_DELIVERIES_MAX);
    let to_carol = node.fx.said.iter().position(|said| match said {
        Said::Deliver(delivery) => delivery.conn == conn(2),
        _ => false,
    });
    assert_eq!(to_carol, Some(TURN_DELIVERIES_MAX as usize), "one turn of bob, then carol");
    assert_eq!(node.fx.deliveries().last().unwrap().1, id(63 - 1, 62), "then bob again");
    assert_eq!(hello, id(0, 0));
    let mut sent = 63;
    while node.core.waiting(key("bob")) > 0 {
        while node.core.poll(&mut node.fx, T0, 256) {}
        let more = node.fx.take().len() as u32;
        assert!((1..=1024).contains(&more), "{more} deliveries in a window of 1024");
        sent += more;
        node.ack("bob", 1, sent);
    }
    assert_eq!(node.core.counters().acked, 100_000);
}

#[test]
fn one_poll_makes_no_more_deliveries_than_its_budget() {
    let mut node = with_backlog(500);
    node.login("bob", 1, 1024);
    node.fx.take();
    for budget in [1, 7, 100] {
        assert!(node.core.poll(&mut node.fx, T0, budget));
        assert_eq!(node.fx.take().len(), budget as usize);
    }
}

#[test]
fn an_ack_that_the_log_refuses_is_owed_and_settled_later() {
    let mut node = with_backlog(4);
    node.login("bob", 1, 2);
    node.poll();
    node.fx.take();
    node.fx.refuse_tomb = Some(Refusal::Full);
    node.ack("bob", 1, 1);
    node.ack("bob", 1, 2);
    assert!(!node.core.poll(&mut node.fx, T0, 64), "nothing can be done until the log takes it");
    assert_eq!((numbers(&mut node), node.core.waiting(key("bob"))), (vec![], 4));
    assert_eq!(node.core.poll_timeout(), T0 + 1);
    node.fx.refuse_tomb = None;
    node.poll();
    assert_eq!((numbers(&mut node), node.core.waiting(key("bob"))), (vec![3, 4], 2));
    let tombs = node.fx.log.iter().filter(|l| matches!(l.record, Record::Tomb { .. })).count();
    assert_eq!((tombs, node.core.counters().acks_put_off), (1, 2));
}

#[test]
fn a_refusing_log_does_not_hold_back_deliveries_to_others() {
    let mut node = with_backlog(4);
    node.deliverable(9, "carol");
    node.login("bob", 1, 2);
    node.poll();
    node.fx.refuse_tomb = Some(Refusal::LowDisk);
    node.ack("bob", 1, 2);
    node.fx.take();
    node.login("carol", 2, 2);
    node.poll();
    assert_eq!(node.fx.deliveries(), [(1, id(9, 9))]);
}

#[test]
fn an_unreadable_message_is_skipped_kept_and_tried_again_at_the_next_login() {
    let mut node = with_backlog(5);
    node.login("bob", 1, 2);
    node.poll();
    node.fx.take();
    node.core.handle_unreadable(T0, conn(1), key("bob"), 1);
    node.poll();
    assert_eq!(numbers(&mut node), [3], "the oldest in flight takes no credit when it is skipped");
    node.core.handle_unreadable(T0, conn(1), key("bob"), 3);
    node.poll();
    assert_eq!(numbers(&mut node), [0; 0], "behind one that is in flight it does");
    node.ack("bob", 1, 2);
    node.poll();
    assert_eq!(numbers(&mut node), [4, 5]);
    node.ack("bob", 1, 5);
    assert_eq!((node.core.waiting(key("bob")), node.fx.removed.len()), (2, 3));
    node.deliverable(5, "bob");
    assert_eq!(numbers(&mut node), [6], "new messages go on");
    node.login("bob", 2, 10);
    node.poll();
    assert_eq!(node.fx.deliveries(), [(1, id(0, 0)), (2, id(2, 2)), (3, id(5, 5))]);
    node.ack("bob", 2, 3);
    assert_eq!((node.core.gauges().entries, node.core.counters().unreadable), (0, 2));
}

#[test]
fn an_ack_over_an_unreadable_message_makes_no_tomb_for_it() {
    let mut node = with_backlog(3);
    node.login("bob", 1, 3);
    node.poll();
    node.core.handle_unreadable(T0, conn(1), key("bob"), 2);
    node.core.handle_unreadable(T0, conn(1), key("bob"), 9);
    node.ack("bob", 1, 3);
    let Record::Tomb { targets, .. } = &node.fx.log[3].record else { panic!("a TOMB") };
    let seqs: Vec<_> = targets.iter().map(|dot| dot.seq).collect();
    assert_eq!((seqs, node.core.waiting(key("bob"))), (vec![1, 3], 1));
}

fn delivered(node: &mut Node, no: u32, from: &str, id: MsgId) {
    node.core.handle_delivered(conn(1), key("bob"), no, key(from), id);
}

#[test]
fn a_receipt_is_given_out_when_the_tomb_is_durable_and_becomes_a_message() {
    let mut node = Node::new();
    let ids = [id(1, 1), id(1, 2), id(1, 3)];
    ids.iter().for_each(|id| _ = node.send_with("alice", *id, &["bob"], WANTS_RECEIPT | 0xfe));
    node.send("alice", id(1, 4), &["bob"]);
    node.login("bob", 1, 10);
    node.sync();
    let flags = node.fx.take().into_iter().filter_map(|said| match said {
        Said::Deliver(delivery) => Some(delivery.wants_receipt),
        _ => None,
    });
    assert_eq!(flags.collect::<Vec<_>>(), [true, true, true, false]);
    [3, 1, 2].into_iter().for_each(|no| delivered(&mut node, no, "alice", ids[no as usize - 1]));
    node.ack("bob", 1, 2);
    node.logout("bob", 1);
    assert_eq!(node.fx.take(), [], "the TOMB is not durable");
    node.sync();
    let (to, reader) = (key("alice"), key("bob"));
    let receipt = |id| Said::Receipt { to, reader, id };
    assert_eq!(node.fx.take(), [receipt(ids[0]), receipt(ids[1])]);
    assert_eq!(node.fx.receipt_names, ["bob", "bob"]);
    assert_eq!(node.core.gauges().receipts, 0, "the third one went with the session");
    let receipt = Receipt { to, reader, reader_name: "bob", msg_id: ids[0] };
    node.core.handle_receipt(&mut node.fx, T0, &receipt);
    node.login("alice", 2, 10);
    node.sync();
    let Some(Said::Deliver(delivery)) = node.fx.take().pop() else { panic!("a delivery") };
    let Record::Msg { sender, id, flags, .. } = node.fx.record_at(delivery.pos) else { panic!() };
    assert_eq!((*sender, *id, *flags), (reader, ids[0], IS_RECEIPT));
    assert!(!delivery.wants_receipt);
}

#[test]
fn receipts_beyond_the_bound_are_dropped_and_counted() {
    let mut node = Node::with(|config| config.receipts_max = 2);
    for number in 0..3 {
        node.send_with("alice", id(1, number), &["bob"], WANTS_RECEIPT);
    }
    node.login("bob", 1, 10);
    node.sync();
    (1..4).for_each(|no| delivered(&mut node, no, "alice", id(1, 0)));
    assert_eq!((node.core.gauges().receipts, node.core.counters().receipts_dropped), (2, 1));
    delivered(&mut node, 0, "alice", id(1, 0));
    delivered(&mut node, 4, "alice", id(1, 0));
    assert_eq!(node.core.counters().receipts_dropped, 1, "numbers not in flight are ignored");
    node.ack("bob", 1, 3);
    node.sync();
    assert_eq!(node.core.counters().receipts, 2);
}

#[test]
fn a_receipt_for_a_full_inbox_or_another_shard_is_dropped_and_counted() {
    let mut node = Node::with(|config| config.inbox_messages_max = 1);
    let to = key("alice");
    let receipt = Receipt { to, reader: key("bob"), reader_name: "bob", msg_id: id(1, 1) };
    node.core.handle_receipt(&mut node.fx, T0, &receipt);
    node.core.handle_receipt(&mut node.fx, T0, &receipt);
    assert_eq!((node.core.waiting(to), node.core.counters().receipts_dropped), (1, 1));
}

#[test]
fn a_session_that_used_up_its_numbers_is_kicked_and_loses_nothing() {
    let mut node = with_backlog(3);
    node.login("bob", 1, 1);
    node.poll();
    let slot = node.core.users.find(key("bob")).unwrap();
    (node.core.users[slot].sent, node.core.users[slot].done) = (u32::MAX, u32::MAX - 1);
    node.fx.take();
    node.ack("bob", 1, u32::MAX);
    node.poll();
    assert_eq!(node.fx.take(), [Said::Kick(conn(1), KickReason::NumbersUsedUp)]);
    node.login("bob", 2, 9);
    node.poll();
    assert_eq!(node.fx.deliveries(), [(1, id(1, 1)), (2, id(2, 2))]);
}

#[test]
fn a_user_without_session_messages_and_watchers_takes_no_memory() {
    let mut node = Node::new();
    for number in 0..100 {
        node.login(&format!("user{number}"), number, 10);
    }
    node.deliverable(1, "user7");
    (0..100).for_each(|number| node.logout(&format!("user{number}"), number));
    node.poll();
    assert_eq!((node.core.gauges().users, node.core.gauges().online), (1, 0));
}

#[test]
fn who_has_no_room_on_the_way_waits_and_delays_nobody() {
    let mut node = with_backlog(3);
    node.deliverable(0, "carol");
    node.fx.congested = Some(1);
    node.login("bob", 1, 8);
    let far = ConnId::new(2, 1, 0);
    node.core.handle_login(&mut node.fx, T0, far, key("carol"), "carol", 8);
    node.poll();
    let to_carol: Vec<_> = node.fx.deliveries();
    assert_eq!(to_carol.len(), 1, "only who has room");
    assert!(node.core.has_stalled());
    assert!(!node.core.poll(&mut node.fx, T0, 100), "nothing can be done now");
    node.core.resume_stalled();
    node.poll();
    assert!(node.core.has_stalled(), "still no room");
    node.fx.congested = None;
    node.fx.take();
    node.core.resume_stalled();
    node.poll();
    assert_eq!(node.fx.deliveries().len(), 3);
    // One who leaves while stalled leaves nothing behind.
    node.fx.congested = Some(1);
    node.ack("bob", 1, 3);
    node.deliverable(0, "bob");
    node.poll();
    node.logout("bob", 1);
    node.core.resume_stalled();
    assert_eq!(node.core.gauges().online, 1);
}

#[test]
fn connections_of_reactors_that_are_gone_end_some_at_a_time() {
    let mut node = Node::new();
    for number in 0..100 {
        let conn = ConnId::new(5 + (number % 2) as u16, number, 0);
        let name = format!("u{number}");
        node.core.handle_login(&mut node.fx, T0, conn, key(&name), &name, 8);
        let watched = [(key("zoe"), "zoe")];
        node.core.handle_presence_query(&mut node.fx, conn, 1, watched, true);
    }
    let (mut cursor, mut calls) = (Some(EndCursor::default()), 0);
    while let Some(from) = cursor {
        cursor = node.core.end_reactors(&mut node.fx, T0, &(6..7), from, 7);
        calls += 1;
    }
    assert!(calls > 20, "{calls} calls of 7 places");
    let gauges = node.core.gauges();
    assert_eq!((gauges.online, gauges.watches), (50, 50), "those of the other reactor stay");
    assert_eq!(node.core.connection_of(key("u4")), Some(ConnId::new(5, 4, 0)));
    assert_eq!(node.core.connection_of(key("u5")), None);
}
