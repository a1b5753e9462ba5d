use super::*;
use std::collections::BTreeSet;

/// What bob gets when he logs in.
fn inbox_of_bob(node: &mut Node) -> Vec<MsgId> {
    node.fx.take();
    node.login("bob", 99, 1024);
    node.poll();
    let delivered = node.fx.deliveries().into_iter().map(|(_, id)| id).collect();
    node.logout("bob", 99);
    delivered
}

#[test]
fn messages_come_back_in_order_whatever_order_their_records_come_in() {
    let mut node = Node::new();
    let ids: Vec<_> = (0..20).map(|number| node.deliverable(number, "bob")).collect();
    let log = node.fx.log.clone();
    for seed in 0..20 {
        let mut records = log.clone();
        Random(seed).shuffle(&mut records);
        node.restart(&records);
        assert_eq!(inbox_of_bob(&mut node), ids, "seed {seed}");
    }
}

#[test]
fn an_acknowledged_message_stays_gone_and_an_unsynced_ack_brings_it_back() {
    let mut node = Node::new();
    let ids: Vec<_> = (0..4).map(|number| node.deliverable(number, "bob")).collect();
    node.login("bob", 1, 10);
    node.poll();
    node.ack("bob", 1, 1);
    node.sync();
    node.ack("bob", 1, 3);
    let mut log = node.fx.log.clone();
    log.reverse();
    node.restart(&log);
    assert_eq!(inbox_of_bob(&mut node), ids[3..], "a TOMB may come before its MSG");
    log.remove(0);
    node.restart(&log);
    assert_eq!(inbox_of_bob(&mut node), ids[1..], "the batch of the second ACK was lost");
}

#[test]
fn a_retry_after_a_restart_is_a_duplicate_and_a_lost_one_is_new() {
    let mut node = Node::new();
    node.send("alice", id(1, 1), &["bob"]);
    node.send("alice", id(1, 2), &["bob"]);
    let log = node.fx.log[..1].to_vec();
    node.restart(&log);
    node.send("alice", id(1, 1), &["bob"]);
    assert!(matches!(node.fx.take()[..], [Said::Accepted(..)]), "durable, so answered at once");
    node.send("alice", id(1, 2), &["bob"]);
    assert_eq!((node.fx.take(), node.core.waiting(key("bob"))), (vec![], 2));
}

#[test]
fn a_new_life_starts_a_new_stream_and_later_stamps() {
    let mut node = Node::new();
    node.deliverable(1, "bob");
    let log = node.fx.log.clone();
    let Record::Msg { hlc: before, .. } = log[0].record else { panic!("a MSG") };
    node.now -= 1000;
    node.restart(&log);
    node.send("alice", id(1, 7), &["bob"]);
    let Record::Msg { dot, hlc, .. } = node.fx.log[1].record else { panic!("a MSG") };
    assert_eq!(dot, Dot { origin: Origin { node: 1, incarnation: 2 }, seq: 1 });
    assert!(hlc > before, "although the clock is behind");
}

#[test]
fn the_same_life_goes_on_behind_its_own_records() {
    let mut node = Node::new();
    node.deliverable(1, "bob");
    node.deliverable(2, "bob");
    let log = node.fx.log.clone();
    let config = node.core.config.clone();
    node.core = recover(config, &log, &mut node.fx, T0);
    node.send("alice", id(1, 7), &["bob"]);
    let Record::Msg { dot, .. } = node.fx.log[2].record else { panic!("a MSG") };
    assert_eq!(dot, Dot { origin: OWN, seq: 3 });
    assert_eq!(inbox_of_bob(&mut node).len(), 2, "the new one is not durable");
}

#[test]
fn records_of_several_origins_are_ordered_by_time_then_origin_then_sequence() {
    let origins = [3, 1, 2].map(|node| Origin { node, incarnation: 9 });
    let mut wanted = Vec::new();
    let mut log = Vec::new();
    for (number, origin) in origins.into_iter().enumerate() {
        for seq in 1..4_u64 {
            let hlc = Hlc::new(T0 + seq / 2, 0);
            let msg_id = id(seq, number as u128);
            wanted.push((hlc, origin, seq, msg_id));
            let record = Record::Msg {
                shard: ShardId(0),
                dot: Dot { origin, seq },
                hlc,
                sender: key("alice"),
                id: msg_id,
                flags: 0,
                to: vec![key("bob")],
            };
            let pos = Pos { segment: number as u32, offset: seq as u32 };
            log.push(Logged { pos, len: 100, lsn: 1, record });
        }
    }
    wanted.sort();
    let wanted: Vec<_> = wanted.into_iter().map(|(.., id)| id).collect();
    let mut node = Node::new();
    node.fx.log = log.clone();
    node.fx.log.sort_by_key(|logged| logged.pos);
    for seed in 0..20 {
        Random(seed).shuffle(&mut log);
        node.restart(&log);
        assert_eq!(inbox_of_bob(&mut node), wanted, "seed {seed}");
    }
}

#[test]
fn the_driver_learns_what_lives_what_is_dead_and_what_is_repeated() {
    let mut node = Node::new();
    for number in 0..3 {
        node.send("alice", id(1, number), &["bob", "carol"]);
    }
    node.sync();
    node.login("bob", 1, 10);
    node.poll();
    node.ack("bob", 1, 1);
    let [first, second, third, tomb] = [0, 1, 2, 3].map(|index| node.fx.log[index].pos);
    // A copy of the second message, for carol alone.
    node.fx.segment = 1;
    let Record::Msg { mut to, shard, dot, hlc, sender, id, flags } = node.fx.log[1].record.clone()
    else {
        panic!("a MSG")
    };
    to.retain(|recipient| *recipient == key("carol"));
    let copy = node.fx.append(Record::Msg { shard, dot, hlc, sender, id, flags, to }).pos;
    let mut log = node.fx.log.clone();
    log.extend_from_within(..2);
    for seed in 0..10 {
        Random(seed).shuffle(&mut log);
        node.restart(&log);
        let mut live = std::mem::take(&mut node.fx.live);
        live.sort();
        assert_eq!(live, [first, second, third, third, copy]);
        assert_eq!(std::mem::take(&mut node.fx.dead), [(first, tomb)]);
        assert_eq!(std::mem::take(&mut node.fx.repeated), [(copy, second)]);
    }
}

#[test]
fn impossible_records_are_refused_by_name_and_leave_nothing() {
    let config = || {
        let mut config = CoreConfig::new(OWN, 2, 1);
        config.shards = vec![ShardId(0)];
        config
    };
    let dot = Dot { origin: OWN, seq: 1 };
    let (low, high) = ([1; 16], [0xff; 16]);
    let good = RecoveredMsg {
        shard: ShardId(0),
        dot,
        hlc: Hlc::new(T0, 0),
        pos: Pos::default(),
        len: 100,
        sender: key("alice"),
        msg_id: id(1, 1),
        flags: 0,
        recipients: &low,
    };
    let both = [low, high].concat();
    let seq = |seq| Dot { origin: OWN, seq };
    let cases = [
        (RecoveredMsg { shard: ShardId(1), recipients: &high, ..good }, BadRecord::Shard),
        (RecoveredMsg { shard: ShardId(2), ..good }, BadRecord::Shard),
        (RecoveredMsg { recipients: &[], ..good }, BadRecord::Recipients),
        (RecoveredMsg { recipients: &low[1..], ..good }, BadRecord::Recipients),
        (RecoveredMsg { recipients: &both, ..good }, BadRecord::Recipients),
        (RecoveredMsg { len: 1 << 20, ..good }, BadRecord::Len),
        (RecoveredMsg { dot: seq(0), ..good }, BadRecord::Seq),
        (RecoveredMsg { dot: seq(1 << 48), ..good }, BadRecord::Seq),
    ];
    let mut core = Core::new(config());
    for (msg, bad) in cases {
        assert_eq!(core.recover_msg(&msg), Err(bad), "{bad}");
    }
    let (shard, inbox) = (ShardId(0), UserKey(high));
    let (hlc, pos, collapsed) = (good.hlc, good.pos, false);
    let tomb = RecoveredTomb { shard, dot, hlc, pos, inbox, collapsed };
    assert_eq!(core.recover_tomb(&tomb, []), Err(BadRecord::Recipients));
    let tomb = RecoveredTomb { inbox: UserKey(low), ..tomb };
    assert_eq!(core.recover_tomb(&tomb, [seq(1 << 48)]), Err(BadRecord::Seq));
    assert_eq!(core.recover_dedup(ShardId(1), &[]), Err(BadRecord::Shard));
    core.recovery_done(&mut Driver::default(), T0);
    assert_eq!(core.gauges(), Gauges::default());
}

#[test]
fn a_log_of_too_many_lives_is_refused_by_name() {
    let mut origins = Origins::new(OWN);
    for incarnation in 2..=1 << 16 {
        assert!(origins.intern(Origin { node: 1, incarnation }).is_some());
    }
    assert_eq!(origins.intern(Origin { node: 2, incarnation: 1 }), None);
    assert_eq!(origins.intern(Origin { node: 1, incarnation: 1 << 16 }), Some(u16::MAX));
}

/// Runs a whole checkpoint; returns its records.
fn checkpoint(node: &mut Node) -> Vec<Logged> {
    let before = node.fx.log.len();
    let mut cursor = Some(CheckpointCursor::default());
    while let Some(from) = cursor {
        cursor = node.core.checkpoint(&mut node.fx, from).unwrap();
    }
    node.fx.log[before..].to_vec()
}

#[test]
fn a_checkpoint_replaces_the_messages_as_memory_of_ids() {
    let mut node = Node::with(|config| *config = CoreConfig::new(OWN, 5, 42));
    let mut sent = Vec::new();
    for sender in 0..40 {
        // The last sender's ids are more than are remembered.
        let many = if sender == 39 { 700 } else { 60 };
        for number in 0..many {
            let (from, to) = (format!("s{sender}"), format!("u{sender}"));
            let id = id(number, u128::from(number));
            node.send(&from, id, &[&to]);
            sent.push((from, id, to));
        }
        node.sync();
    }
    let gauges = node.core.gauges();
    let records = checkpoint(&mut node);
    assert!(records.len() >= 5, "each shard has its own records");
    let mut twice: Vec<_> = records.iter().chain(&records).cloned().collect();
    Random(3).shuffle(&mut twice);
    node.restart(&twice);
    assert_eq!(node.core.gauges().dedup_ids, gauges.dedup_ids);
    node.fx.take();
    for (from, id, to) in &sent {
        node.send(from, *id, &[to]);
    }
    let counters = node.core.counters();
    assert_eq!(counters.rejected(RejectCode::StaleId), 700 - 512);
    assert_eq!((counters.duplicates, counters.appended), (sent.len() as u64 - 188, 0));
}

#[test]
fn a_checkpoint_remembers_how_much_of_the_window_was_given_up() {
    let mut node = Node::with(|config| config.dedup_ids_max = 120);
    for minute in 0..60 {
        node.now = T0 + minute * 60_000;
        node.send(&format!("s{minute}"), id(minute * 60_000, 1), &["bob"]);
        for step in 0..20 {
            node.now = T0 + minute * 60_000 + step * 1000;
            node.sync();
        }
    }
    assert!(node.core.gauges().senders < 20, "most senders made room");
    let now = node.now;
    let records = checkpoint(&mut node);
    node.restart(&records);
    node.now = now;
    let before = node.fx.log.len();
    for minute in 0..60 {
        node.send(&format!("s{minute}"), id(minute * 60_000, 1), &["bob"]);
    }
    assert_eq!(node.fx.log.len(), before, "none is taken for new");
}

#[test]
fn a_mark_that_rises_while_a_checkpoint_is_written_is_in_it() {
    let mut node = Node::with(|config| *config = CoreConfig::new(OWN, 2, 42));
    let lives_in = |shard| {
        let mut names = (0..).map(|number: u32| format!("user{number}"));
        names.find(|name| shard_for_user(key(name), 2) == ShardId(shard)).unwrap()
    };
    let (low, high) = (lives_in(0), lives_in(1));
    node.send("alice", id(5, 1), &[&low]);
    node.send("alice", id(5, 2), &[&high]);
    node.sync();
    let first = CheckpointCursor::default();
    let mut cursor = node.core.checkpoint(&mut node.fx, first).unwrap();
    assert!(cursor.is_some(), "the second shard is another record");
    node.now += limits::DEDUP_WINDOW_MS + 1000;
    node.poll();
    assert_eq!(node.core.gauges().senders, 0, "too old to be remembered");
    while let Some(from) = cursor {
        cursor = node.core.checkpoint(&mut node.fx, from).unwrap();
    }
    let records = node.fx.log.split_off(2);
    node.now = T0 + 1000;
    node.restart(&records);
    for (number, to) in [(1, &low), (2, &high)] {
        let sent = node.send("alice", id(5, number), &[to]);
        let refused = Said::Rejected(conn(0), sent, RejectCode::StaleId);
        assert_eq!(node.fx.take().pop(), Some(refused), "the clock went back, not the memory");
    }
}

/// Checkpoints are written part by part while senders come, age and are forgotten; what stands before a complete one
/// is gone after a restart, whose clock may be behind by less than the window.
#[test]
fn no_id_of_the_window_is_forgotten_with_the_records_before_a_checkpoint() {
    const WINDOW_MS: u32 = 100_000;
    let mut refused_as_stale = 0;
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut node = Node::with(|config| {
            *config = CoreConfig::new(OWN, 3, seed);
            config.dedup_window_ms = u64::from(WINDOW_MS);
        });
        let (mut sent, mut latest) = (Vec::new(), T0);
        let (mut covered, mut writing) = (0, None);
        for _ in 0..80 {
            match random.below(8) {
                0 | 1 => {
                    let (from, to) = (random.below(4), random.below(12));
                    let id = MsgId::v7(node.now, sent.len() as u128);
                    sent.push((format!("s{from}"), id, format!("u{to}")));
                    let (from, id, to) = &sent[sent.len() - 1];
                    node.send(from, *id, &[to]);
                }
                2 | 3 => {
                    node.now += u64::from(random.below(WINDOW_MS));
                    latest = latest.max(node.now);
                    node.sync();
                }
                4..=6 => {
                    let (began, from) = writing.unwrap_or((node.fx.log.len(), Default::default()));
                    let next = node.core.checkpoint(&mut node.fx, from).unwrap();
                    writing = next.map(|next| (began, next));
                    covered = if next.is_none() { began } else { covered };
                }
                _ => {
                    node.fx.log.drain(..covered);
                    (covered, writing) = (0, None);
                    let back = u64::from(random.below(WINDOW_MS));
                    node.now = (node.now - back).max(latest - u64::from(WINDOW_MS));
                    let records = node.fx.log.clone();
                    node.restart(&records);
                    for (from, id, to) in &sent {
                        node.send(from, *id, &[to]);
                    }
                    assert_eq!(
                        node.fx.log.len(),
                        records.len(),
                        "one is taken for new, seed {seed}"
                    );
                    refused_as_stale += node.core.counters().rejected(RejectCode::StaleId);
                }
            }
        }
    }
    assert!(refused_as_stale > 0, "no mark was needed");
}

#[test]
fn a_checkpoint_of_nothing_is_no_record_and_a_refused_part_is_tried_again() {
    let mut node = Node::new();
    assert!(checkpoint(&mut node).is_empty());
    for number in 0..600 {
        node.send(&format!("s{number}"), id(1, 1), &["bob"]);
    }
    node.fx.refuse_dedup = Some(Refusal::Full);
    let first = CheckpointCursor::default();
    assert_eq!(node.core.checkpoint(&mut node.fx, first), Err(Refusal::Full));
    node.fx.refuse_dedup = None;
    assert_eq!(node.core.checkpoint(&mut node.fx, first), Ok(None));
    let log = node.fx.log.split_off(600);
    assert_eq!(log.len(), 1);
    node.restart(&log);
    assert_eq!(node.core.gauges().senders, 600);
}

#[test]
fn a_dedup_record_cut_or_changed_anywhere_is_refused_or_harmless() {
    let mut node = Node::new();
    for number in 0..6_u128 {
        let from = format!("s{}", number % 2);
        node.send(&from, id(1, number), &["bob"]);
    }
    let records = checkpoint(&mut node);
    let Record::Dedup { body, .. } = &records[0].record else { panic!("a DEDUP") };
    let recover = |body: &[u8]| {
        let mut core = Core::new(CoreConfig::new(OWN, 1, 7));
        let result = core.recover_dedup(ShardId(0), body);
        core.recovery_done(&mut Driver::default(), T0);
        (result, core.gauges())
    };
    assert_eq!((recover(body).0, recover(body).1.dedup_ids), (Ok(()), 6));
    for end in 0..body.len() {
        assert_eq!(
            recover(&body[..end]),
            (Err(BadRecord::Dedup), Gauges::default()),
            "cut at {end}"
        );
    }
    assert_eq!(recover(&[body, &[0][..]].concat()).0, Err(BadRecord::Dedup), "one byte too many");
    for byte in 0..body.len() {
        for bit in [0, 3, 7] {
            let mut changed = body.clone();
            changed[byte] ^= 1 << bit;
            let (_, gauges) = recover(&changed);
            assert!(gauges.dedup_ids <= 6, "byte {byte}");
        }
    }
}

#[test]
fn survivors_move_out_of_a_segment_and_their_acks_name_the_copy() {
    let mut node = Node::new();
    node.send("alice", id(1, 1), &["bob", "carol", "dave"]);
    node.send("alice", id(1, 2), &["bob"]);
    node.fx.segment = 1;
    node.send("alice", id(1, 3), &["bob"]);
    node.sync();
    node.login("carol", 1, 10);
    node.login("bob", 2, 10);
    node.poll();
    node.fx.take();
    let mut found = Vec::new();
    let mut cursor = Some(0);
    while let Some(from) = cursor {
        cursor = node.core.live_in_segment(0, from, 2, &mut found);
    }
    assert_eq!(found.len(), 4);
    found.sort_by_key(|entry| (entry.pos, entry.user));
    // Carol acknowledges between the search and the move.
    node.ack("carol", 1, 1);
    let (first, second) = (&found[..3], &found[3..]);
    let mut taken = BTreeSet::new();
    let Driver { lsn, .. } = node.fx;
    let copy = Appended { pos: Pos { segment: 1, offset: 5000 }, len: 60, lsn: lsn + 1 };
    let moved = node.core.relocate(first, |recipients| {
        taken.extend(recipients.as_chunks().0.iter().map(|key| UserKey(*key)));
        Ok(copy)
    });
    assert_eq!((moved, taken), (Ok(2), BTreeSet::from([key("bob"), key("dave")])));
    assert_eq!(node.core.relocate(second, |_| Err(Refusal::Full)), Err(Refusal::Full));
    assert_eq!(node.core.relocate(first, |_| panic!("nothing is left there")), Ok(0));
    let mut left = Vec::new();
    assert_eq!(node.core.live_in_segment(0, 0, 100, &mut left), None);
    assert_eq!(left, second, "a refused move leaves the entry where it is");
    node.fx.log.push(Logged {
        pos: copy.pos,
        len: 60,
        lsn: copy.lsn,
        record: node.fx.log[0].record.clone(),
    });
    node.ack("bob", 2, 1);
    assert_eq!(node.fx.removed, [first[0].pos, copy.pos]);
    node.login("dave", 3, 1);
    node.poll();
    let Some(Said::Deliver(delivery)) = node.fx.take().pop() else { panic!("a delivery") };
    assert_eq!((delivery.pos, delivery.len), (copy.pos, 60));
}

#[test]
fn moves_to_shorter_records_in_flight_do_not_eat_the_byte_window() {
    let mut node = Node::new();
    node.core.config.recv_window_bytes = 150;
    node.login("bob", 1, 10);
    for round in 0..20_u32 {
        node.deliverable(u128::from(round), "bob");
        let mut found = Vec::new();
        node.core.live_in_segment(0, 0, 100, &mut found);
        let pos = Pos { segment: 1, offset: round };
        let lsn = node.fx.lsn;
        assert_eq!(node.core.relocate(&found, |_| Ok(Appended { pos, len: 10, lsn })), Ok(1));
        let record = node.fx.log.pop().unwrap().record;
        node.fx.log = vec![Logged { pos, len: 10, lsn, record }];
        assert_eq!(node.core.counters().delivered, u64::from(round) + 1);
        node.ack("bob", 1, round + 1);
        node.fx.log.clear();
    }
}
