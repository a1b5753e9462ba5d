use super::*;
use crate::limits::{DEDUP_IDS_PER_SENDER_MAX, RECIPIENTS_MAX};

#[test]
fn nothing_is_accepted_or_delivered_before_it_is_durable() {
    let mut node = Node::new();
    node.login("bob", 1, 8);
    node.poll();
    assert_eq!(node.fx.take(), [Said::Welcome(conn(1), 0)]);
    let first = node.send("alice", id(1, 1), &["bob"]);
    let lsn = node.fx.lsn;
    node.send("alice", id(1, 2), &["bob"]);
    node.poll();
    assert_eq!(node.fx.take(), []);
    node.core.handle_durable(&mut node.fx, T0, lsn, 1);
    node.poll();
    assert_eq!(node.fx.said[0], Said::Accepted(conn(0), first));
    assert_eq!(node.fx.deliveries(), [(1, id(1, 1))]);
    node.sync();
    assert_eq!(node.fx.deliveries(), [(2, id(1, 2))]);
}

#[test]
fn a_retried_send_makes_one_entry_and_two_answers() {
    let mut node = Node::new();
    let first = node.send("alice", id(1, 1), &["bob"]);
    let again = node.send("alice", id(1, 1), &["bob"]);
    assert_eq!(node.fx.take(), [], "the original is not durable yet");
    node.sync();
    assert_eq!(node.fx.take(), [Said::Accepted(conn(0), first), Said::Accepted(conn(0), again)]);
    let late = node.send("alice", id(1, 1), &["bob"]);
    assert_eq!(node.fx.take(), [Said::Accepted(conn(0), late)]);
    assert_eq!((node.core.waiting(key("bob")), node.fx.log.len()), (1, 1));
    assert_eq!(node.core.counters().duplicates, 2);
}

#[test]
fn a_retry_to_others_is_a_duplicate_and_the_first_wins() {
    let mut node = Node::new();
    node.send("alice", id(1, 1), &["bob"]);
    node.send("alice", id(1, 1), &["carol"]);
    node.sync();
    assert_eq!((node.core.waiting(key("bob")), node.core.waiting(key("carol"))), (1, 0));
}

#[test]
fn the_same_id_of_another_sender_is_another_message() {
    let mut node = Node::new();
    node.send("alice", id(1, 1), &["bob"]);
    node.send("mallory", id(1, 1), &["bob"]);
    assert_eq!(node.core.waiting(key("bob")), 2);
}

#[test]
fn a_recipient_named_twice_gets_one_entry_and_the_payload_is_logged_once() {
    let mut node = Node::new();
    node.send("alice", id(1, 1), &["bob", "carol", "bob", "carol", "bob"]);
    assert_eq!((node.core.waiting(key("bob")), node.core.waiting(key("carol"))), (1, 1));
    assert_eq!(node.fx.log.len(), 1);
    let Record::Msg { to, .. } = &node.fx.log[0].record else { panic!("a MSG") };
    assert_eq!(to.len(), 2);
}

fn refusal(node: &mut Node) -> RejectCode {
    match node.fx.take()[..] {
        [Said::Rejected(_, _, code)] => code,
        ref other => panic!("{other:?} instead of one rejection"),
    }
}

#[test]
fn each_refusal_has_its_name_and_count_and_appends_nothing() {
    let mut node = Node::with(|config| config.num_shards = 2);
    // With two shards the first bit of a key is its shard.
    let to = |first: u8| [[first; 16], [first ^ 1; 16]].concat();
    let window_ms = node.core.config.dedup_window_ms;
    let old = MsgId::v7(T0 - window_ms - 1, 1);
    let early = MsgId::v7(T0 + node.core.config.id_future_ms_max + 1, 1);
    let cases: [(MsgId, Vec<u8>, RejectCode); 8] = [
        (old, to(0), RejectCode::IdTooOld),
        (early, to(0), RejectCode::IdInFuture),
        (MsgId(1), to(0), RejectCode::IdNotV7),
        (id(1, 1), vec![], RejectCode::BadRecipients),
        (id(1, 1), vec![0; 17], RejectCode::BadRecipients),
        (id(1, 1), vec![0; 16 * (RECIPIENTS_MAX + 1)], RejectCode::BadRecipients),
        (id(1, 1), [[0; 16], [0x80; 16]].concat(), RejectCode::BadRecipients),
        (id(1, 1), to(0x80), RejectCode::WrongShard),
    ];
    for (id, to, code) in cases {
        node.send_raw("alice", id, &to, 0);
        assert_eq!(refusal(&mut node), code);
    }
    assert_eq!(node.core.counters().rejected(RejectCode::BadRecipients), 4);
    assert!(node.fx.log.is_empty());
    for id in [MsgId::v7(T0 - window_ms, 1), MsgId::v7(T0 + 300_000, 2)] {
        node.send_raw("alice", id, &to(0), 0);
        assert_eq!(node.fx.take(), [], "the edges of the window are inside");
    }
    let from = "x".repeat(129);
    node.send_raw(&from, id(1, 3), &to(0), 0);
    assert_eq!(refusal(&mut node), RejectCode::TooLarge);
}

#[test]
fn a_refusing_log_leaves_no_trace_and_the_retry_succeeds() {
    let mut node = Node::new();
    for (refusal_of_log, code) in
        [(Refusal::LowDisk, RejectCode::LowDisk), (Refusal::Full, RejectCode::Overloaded)]
    {
        node.fx.refuse_msg = Some(refusal_of_log);
        node.send("alice", id(1, 1), &["bob", "carol"]);
        assert_eq!(refusal(&mut node), code);
        assert_eq!(node.core.gauges(), Gauges::default());
    }
    node.fx.refuse_msg = None;
    node.send("alice", id(1, 1), &["bob", "carol"]);
    assert_eq!(node.core.gauges().entries, 2);
    let Record::Msg { dot, .. } = node.fx.log[0].record else { panic!("a MSG") };
    assert_eq!(dot, Dot { origin: OWN, seq: 1 }, "a refusal takes no number");
}

#[test]
fn one_full_inbox_refuses_the_send_for_all() {
    let mut node = Node::with(|config| config.inbox_messages_max = 2);
    node.send("alice", id(1, 1), &["bob"]);
    node.send("alice", id(1, 2), &["bob"]);
    node.send("alice", id(1, 3), &["carol", "bob", "dave"]);
    assert_eq!(refusal(&mut node), RejectCode::InboxFull);
    assert_eq!(node.core.gauges().users, 1, "carol and dave have no record");
    node.sync();
    node.login("bob", 1, 1);
    node.poll();
    node.ack("bob", 1, 1);
    node.fx.take();
    node.send("alice", id(1, 3), &["carol", "bob", "dave"]);
    assert_eq!((node.fx.take(), node.core.gauges().entries), (vec![], 4));
}

#[test]
fn the_bounds_of_the_partition_refuse_by_name() {
    let mut node = Node::with(|config| (config.entries_max, config.pending_max) = (3, 4));
    node.send("alice", id(1, 1), &["bob", "carol"]);
    node.send("alice", id(1, 2), &["bob", "carol"]);
    assert_eq!(refusal(&mut node), RejectCode::NodeFull, "entries");
    node.send("alice", id(1, 1), &["bob"]);
    node.send("alice", id(1, 1), &["bob"]);
    assert_eq!(node.fx.take(), []);
    node.send("alice", id(1, 1), &["bob"]);
    assert_eq!(refusal(&mut node), RejectCode::Overloaded, "answers waiting for a sync");
    node.sync();
    assert_eq!(node.fx.take().len(), 3);
}

#[test]
fn an_id_forgotten_by_count_is_stale_and_never_new() {
    let mut node = Node::new();
    let many = DEDUP_IDS_PER_SENDER_MAX as u64;
    // Every second number, so that ids that were never sent lie between.
    for number in 0..=many {
        node.send("alice", id(2 * number, 0), &["bob"]);
    }
    assert_eq!((node.fx.take(), node.fx.log.len() as u64), (vec![], many + 1));
    node.send("alice", id(0, 0), &["bob"]);
    assert_eq!(refusal(&mut node), RejectCode::StaleId, "it was accepted");
    node.send("alice", id(1, 0), &["bob"]);
    assert_eq!(refusal(&mut node), RejectCode::StaleId, "it would be forgotten at once");
    node.send("alice", id(2, 0), &["bob"]);
    assert_eq!(node.fx.take(), [], "the oldest remembered one is a duplicate");
    node.send("alice", id(5, 0), &["bob"]);
    assert_eq!((node.fx.take(), node.fx.log.len() as u64), (vec![], many + 2), "late, but new");
    node.send("alice", id(2, 0), &["bob"]);
    assert_eq!(refusal(&mut node), RejectCode::StaleId, "it made room for the late one");
    assert_eq!(node.core.gauges().dedup_ids, many);
}

#[test]
fn ids_in_any_order_are_each_taken_once() {
    let mut node = Node::new();
    for round in 0..2 {
        for number in 0..300_u64 {
            node.send("alice", id(number * 7919 % 300, 0), &["bob"]);
        }
        assert_eq!(node.core.waiting(key("bob")), 300, "round {round}");
    }
}

#[test]
fn a_silent_sender_is_forgotten_after_the_window_and_its_ids_stay_refused() {
    let mut node = Node::new();
    node.send("alice", id(1, 1), &["bob"]);
    node.sync();
    assert_eq!(node.core.gauges().senders, 1);
    node.now = T0 + node.core.config.dedup_window_ms + 2;
    assert!(node.core.poll_timeout() <= node.now);
    (0..4).for_each(|_| node.poll());
    assert_eq!((node.core.gauges().senders, node.core.gauges().dedup_cost), (0, 0));
    node.fx.take();
    node.send("alice", id(1, 1), &["bob"]);
    assert_eq!(refusal(&mut node), RejectCode::IdTooOld);
    node.now = T0 + 2;
    node.send("alice", id(1, 1), &["bob"]);
    assert_eq!(refusal(&mut node), RejectCode::IdTooOld, "a clock that steps back changes nothing");
}

#[test]
fn a_clock_that_was_far_ahead_does_not_stop_sends_once_it_is_right() {
    let mut node = Node::new();
    let year_ms = 365 * 24 * 3_600_000;
    node.now = T0 + year_ms;
    for number in 0..600 {
        node.send("alice", id(year_ms + number, 0), &["bob"]);
    }
    node.sync();
    node.fx.take();
    node.now = T0;
    (0..4).for_each(|_| node.sync());
    node.send("alice", id(1, 1), &["bob"]);
    assert_eq!((node.fx.take(), node.core.waiting(key("bob"))), (vec![], 601));
    assert_eq!(node.core.counters().clock_steps_back, 1);
}

#[test]
fn memory_for_ids_is_bounded_and_pressure_never_makes_a_known_id_new() {
    let mut node = Node::with(|config| config.dedup_ids_max = 1200);
    let mut sent = Vec::new();
    for minute in 0..50_u64 {
        node.now = T0 + minute * 60_000;
        for number in 0..4 {
            let (from, id) = (format!("s{minute}-{number}"), id(minute * 60_000, number));
            node.send(&from, id, &["bob"]);
            if node.fx.take().is_empty() {
                sent.push((from, id));
            }
        }
        node.sync();
        (0..200).for_each(|step| {
            node.now = T0 + minute * 60_000 + step;
            node.poll();
        });
        assert!(node.core.gauges().dedup_cost <= 1200);
        node.fx.take();
    }
    assert!(sent.len() > 190, "{} of 200 were taken: old senders make room", sent.len());
    let before = node.fx.log.len();
    for (from, id) in &sent {
        node.send(from, *id, &["bob"]);
    }
    assert_eq!(node.fx.log.len(), before, "no retry makes a second message");
    let stale = node.core.counters().rejected(RejectCode::StaleId);
    assert!(stale > 0 && (stale as usize) < sent.len(), "{stale} of {} are stale", sent.len());
}

#[test]
fn busy_senders_that_fill_the_memory_are_refused_and_not_forgotten() {
    let mut node = Node::with(|config| config.dedup_ids_max = 240);
    for number in 0..30_u32 {
        node.send(&format!("s{number}"), id(1, 1), &["bob"]);
        node.sync();
    }
    let counters = *node.core.counters();
    assert_eq!((counters.appended, counters.rejected(RejectCode::Overloaded)), (20, 10));
    for number in 0..20_u32 {
        node.send(&format!("s{number}"), id(1, 1), &["bob"]);
    }
    assert_eq!(node.core.counters().duplicates, 20);
}
