//! Limits of inboxes and what happens at them.

use std::collections::VecDeque;

use super::*;

/// What a record of the driver counts, for one inbox.
const CHARGE: u64 = 100 - 16;

fn ids(node: &Node, name: &str) -> Vec<MsgId> {
    let places = node.core.inbox(key(name));
    places.map(|(_, pos)| node.fx.id_at(pos)).collect()
}

fn rejections(node: &mut Node) -> Vec<RejectCode> {
    let said = node.fx.take();
    let codes = said.iter().filter_map(|said| match said {
        Said::Rejected(_, _, code) => Some(*code),
        _ => None,
    });
    codes.collect()
}

/// Reason and number of targets of each TOMB.
fn tombs(node: &Node) -> Vec<(TombReason, usize)> {
    let tombs = node.fx.log.iter().filter_map(|logged| match &logged.record {
        Record::Tomb { reason, targets, .. } => Some((*reason, targets.len())),
        _ => None,
    });
    tombs.collect()
}

/// What entries say of bytes, counted anew.
fn check_books(core: &Core) {
    let mut sum = 0;
    for slot in 0..core.users.slots() {
        let Some(user) = core.users.live(slot) else { continue };
        let (mut bytes, mut count, mut next) = (0, 0, user.head);
        while next != NIL {
            bytes += u64::from(core.entries[next].charge());
            count += 1;
            next = core.entries[next].next;
        }
        assert_eq!((user.bytes, user.count), (bytes, count));
        sum += bytes;
    }
    assert_eq!(core.inbox_bytes, sum);
}

#[test]
fn an_inbox_takes_messages_until_its_bytes_are_reached_and_then_refuses() {
    let mut node = Node::with(|config| config.inbox_bytes_max = 3 * CHARGE);
    (1..=4).for_each(|number| _ = node.send("alice", id(1, number), &["bob"]));
    assert_eq!(rejections(&mut node), [RejectCode::InboxFull]);
    assert_eq!(node.core.gauges().inbox_bytes, 3 * CHARGE);
    node.send("alice", id(1, 4), &["carol"]);
    node.sync();
    node.login("bob", 1, 8);
    node.poll();
    node.ack("bob", 1, 1);
    node.fx.take();
    node.send("alice", id(1, 5), &["bob"]);
    assert_eq!(rejections(&mut node), [], "there is room again");
    check_books(&node.core);
}

#[test]
fn a_node_that_holds_all_it_may_refuses_by_its_own_name() {
    let mut node = Node::with(|config| config.bytes_max = 2 * CHARGE);
    (1..=3).for_each(|number| _ = node.send("alice", id(1, number), &["bob"]));
    node.send("alice", id(1, 4), &["carol"]);
    assert_eq!(rejections(&mut node), [RejectCode::NodeFull, RejectCode::NodeFull]);
    assert_eq!(RejectCode::NodeFull.retry_after_ms(), 5000);
}

#[test]
fn the_oldest_gives_way_by_a_tomb_and_does_not_come_back() {
    let mut node = Node::with(|config| {
        (config.inbox_messages_max, config.messages_when_full) = (3, WhenFull::DropOldest);
    });
    (1..=5).for_each(|number| _ = node.deliverable(number, "bob"));
    let expected: Vec<_> = (3..=5).map(|number| id(number as u64, number)).collect();
    assert_eq!((rejections(&mut node), ids(&node, "bob")), (vec![], expected.clone()));
    assert_eq!(tombs(&node), [(TombReason::Displaced, 1); 2]);
    assert_eq!(node.core.counters().displaced, 2);
    // Records in any order say the same.
    let mut records = node.fx.log.clone();
    records.reverse();
    node.restart(&records);
    assert_eq!(ids(&node, "bob"), expected);
    node.send("sender", id(1, 1), &["bob"]);
    assert_eq!(ids(&node, "bob"), expected, "its id is known: a retry does not bring it back");
    check_books(&node.core);
}

#[test]
fn one_large_message_makes_as_many_give_way_as_are_too_many() {
    let mut node = Node::with(|config| config.bytes_when_full = WhenFull::DropOldest);
    (1..=600).for_each(|number| _ = node.deliverable(number, "bob"));
    node.core.config.inbox_bytes_max = 10 * CHARGE;
    node.deliverable(601, "bob");
    assert_eq!(node.core.waiting(key("bob")), 10);
    let displaced = TombReason::Displaced;
    assert_eq!(tombs(&node), [(displaced, 256), (displaced, 256), (displaced, 79)]);
    assert_eq!(ids(&node, "bob").last(), Some(&id(601, 601)));
}

#[test]
fn what_is_under_way_stays_and_the_next_one_gives_way_instead() {
    let mut node = Node::with(|config| {
        (config.inbox_messages_max, config.messages_when_full) = (3, WhenFull::DropOldest);
    });
    node.login("bob", 1, 2);
    (1..=4).for_each(|number| _ = node.deliverable(number, "bob"));
    assert_eq!(ids(&node, "bob"), [id(1, 1), id(2, 2), id(4, 4)]);
    node.ack("bob", 1, 2);
    node.poll();
    assert_eq!(ids(&node, "bob"), [id(4, 4)]);
    assert_eq!(node.fx.deliveries().last(), Some(&(3, id(4, 4))));
    check_books(&node.core);
}

#[test]
fn an_inbox_whose_messages_are_all_under_way_refuses() {
    let mut node = Node::with(|config| {
        (config.inbox_messages_max, config.messages_when_full) = (2, WhenFull::DropOldest);
    });
    node.login("bob", 1, 2);
    (1..=2).for_each(|number| _ = node.deliverable(number, "bob"));
    node.fx.take();
    node.send("alice", id(3, 3), &["bob"]);
    assert_eq!(rejections(&mut node), [RejectCode::InboxFull]);
    assert_eq!(node.core.counters().displaced, 0);
}

#[test]
fn a_limit_that_refuses_wins_over_one_that_drops() {
    let mut node = Node::with(|config| {
        (config.inbox_messages_max, config.messages_when_full) = (2, WhenFull::DropOldest);
        config.inbox_bytes_max = 2 * CHARGE;
    });
    (1..=2).for_each(|number| _ = node.deliverable(number, "bob"));
    node.fx.take();
    node.send("alice", id(3, 3), &["bob"]);
    assert_eq!(rejections(&mut node), [RejectCode::InboxFull]);
}

#[test]
fn a_log_that_refuses_the_tomb_refuses_the_send_and_drops_nothing() {
    let mut node = Node::with(|config| {
        (config.inbox_messages_max, config.messages_when_full) = (1, WhenFull::DropOldest);
    });
    node.deliverable(1, "bob");
    node.fx.take();
    node.fx.refuse_tomb = Some(Refusal::Full);
    node.send("alice", id(3, 3), &["bob"]);
    assert_eq!(rejections(&mut node), [RejectCode::Overloaded], "no record, no removal");
    assert_eq!((ids(&node, "bob"), tombs(&node)), (vec![id(1, 1)], vec![]));
}

/// Polls through a whole pass over the users.
fn pass(node: &mut Node) {
    for _ in 0..200 {
        node.now += 1000;
        node.sync();
    }
}

const AGE_MS: u64 = 3_600_000;

fn node_with_age() -> Node {
    Node::with(|config| config.message_age_ms_max = AGE_MS)
}

#[test]
fn what_is_too_old_goes_by_a_tomb_and_what_is_younger_stays() {
    let mut node = node_with_age();
    for number in 0..600 {
        node.deliverable(number, "bob");
    }
    node.now = T0 + AGE_MS / 2;
    let young = id(AGE_MS / 2, 1000);
    node.send("sender", young, &["bob"]);
    node.send("sender", id(AGE_MS / 2, 1001), &["carol"]);
    node.now = T0 + AGE_MS - 201_000;
    pass(&mut node);
    assert_eq!(node.core.waiting(key("bob")), 601, "nothing is older than the age");
    node.now = T0 + AGE_MS + 2 * AGE_MS / 64;
    pass(&mut node);
    assert_eq!((ids(&node, "bob"), node.core.waiting(key("carol"))), (vec![young], 1));
    let expired = TombReason::Expired;
    assert_eq!(tombs(&node), [(expired, 256), (expired, 256), (expired, 88)]);
    assert_eq!((node.core.counters().expired, node.core.counters().displaced), (600, 0));
    let records = node.fx.log.clone();
    node.restart(&records);
    assert_eq!(ids(&node, "bob"), [young]);
    check_books(&node.core);
}

#[test]
fn a_restart_knows_how_old_messages_are() {
    let mut node = node_with_age();
    node.deliverable(1, "bob");
    node.now = T0 + AGE_MS - 300_000;
    node.send("sender", id(AGE_MS - 300_000, 2), &["bob"]);
    node.sync();
    let records = node.fx.log.clone();
    node.restart(&records);
    assert_eq!(node.core.waiting(key("bob")), 2);
    node.now = T0 + AGE_MS + 2 * AGE_MS / 64;
    pass(&mut node);
    assert_eq!(ids(&node, "bob"), [id(AGE_MS - 300_000, 2)]);
}

#[test]
fn what_the_other_node_took_is_left_to_it_for_a_while() {
    let mut node = node_with_age();
    let dot = Dot { origin: Origin { node: 2, incarnation: 1 }, seq: 1 };
    let (shard, sender, bob, hlc) = (ShardId(0), key("alice"), key("bob"), Hlc::new(T0, 0));
    let (id, recipients) = (id(0, 1), &bob.0);
    let msg = ForeignMsg { shard, dot, hlc, sender, msg_id: id, flags: 0, recipients };
    node.core.check_foreign_msg(&msg, 100).unwrap();
    let record = Record::Msg { shard, dot, hlc, sender, id, flags: 0, to: vec![bob] };
    let appended = node.fx.append(record);
    node.core.foreign_msg(T0, &msg, &appended);
    node.sync();
    let span_ms = AGE_MS / 64;
    // Its span is over at the age and a span; the grace is a minute and a span.
    node.now = T0 + AGE_MS + 2 * span_ms + 59_000;
    node.core.sweep.soon();
    node.sync();
    assert_eq!(node.core.waiting(bob), 1, "its node is to remove it");
    node.now += 2000;
    node.core.sweep.soon();
    node.sync();
    assert_eq!((node.core.waiting(bob), tombs(&node)), (0, vec![(TombReason::Expired, 1)]));
}

#[test]
fn without_an_age_messages_wait_for_ever() {
    let mut node = Node::new();
    node.deliverable(1, "bob");
    node.now = T0 + 3650 * 86_400_000;
    pass(&mut node);
    assert_eq!((node.core.waiting(key("bob")), tombs(&node)), (1, vec![]));
}

#[test]
fn the_fullest_inbox_is_found() {
    let mut node = Node::new();
    (0..2000_u128).for_each(|number| {
        node.send(
            "alice",
            MsgId::v7(T0 + 1 + number as u64, number),
            &[&format!("u{}", number % 700)],
        );
    });
    (0..5).for_each(|number| _ = node.deliverable(10_000 + number, "bob"));
    pass(&mut node);
    let fullest = node.core.gauges().fullest;
    assert_eq!((fullest.messages, fullest.bytes), (5, 5 * CHARGE));
}

/// Random sends, logins, acknowledgements and restarts against a list per user.
#[test]
fn inboxes_that_drop_hold_the_newest_whatever_happens_and_a_restart_agrees() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let most = 1 + random.below(6);
        let mut node = Node::with(|config| {
            (config.inbox_messages_max, config.messages_when_full) = (most, WhenFull::DropOldest);
        });
        let names = ["amy", "bob", "cho"];
        let mut expected: Vec<VecDeque<MsgId>> = vec![VecDeque::new(); 3];
        for number in 0..300_u128 {
            let who = random.below(3) as usize;
            if random.one_in(8) {
                // Read everything.
                let conn = number as u32 + 1;
                node.login(names[who], conn, 100);
                node.poll();
                let waiting = expected[who].len() as u32;
                node.ack(names[who], conn, waiting);
                node.logout(names[who], conn);
                expected[who].clear();
                continue;
            }
            if random.one_in(20) {
                let records = node.fx.log.clone();
                node.restart(&records);
            }
            let id = node.deliverable(number, names[who]);
            expected[who].push_back(id);
            if expected[who].len() > most as usize {
                expected[who].pop_front();
            }
            for (name, expected) in names.iter().zip(&expected) {
                let found: VecDeque<MsgId> = ids(&node, name).into();
                assert_eq!(&found, expected, "seed {seed}, {number}");
            }
            check_books(&node.core);
        }
    }
}
