//! Frames of a peer that lies: a core takes any order of any frames and neither panics nor loses count.

use super::*;
use crate::link::{LinkSend, PresenceAsk, ReceiptPost, ToCore};
use crate::peer::relay::{self, ReactorRange};
use crate::wire::Names;

const RANGE: ReactorRange = ReactorRange { first: 4, count: 2 };
const USERS: u32 = 5;

/// A frame with numbers that fit, nearly fit, or do not fit at all.
fn frame(random: &mut Random, out: &mut Vec<u8>) {
    let conn = ConnId::new(random.below(3) as u16, random.below(4), random.below(3));
    let name = format!("u{}", random.below(USERS));
    let (user, other) = (key(&name), key(&format!("u{}", random.below(USERS))));
    let number = match random.below(4) {
        0 => u32::MAX - random.below(3),
        _ => random.below(6),
    };
    let id = match random.below(8) {
        0 => MsgId(u128::from(random.next())),
        _ => id(u64::from(random.below(9)), u128::from(random.below(30))),
    };
    let list = [&[2, 0, 2][..], name.as_bytes(), &[2, b'u', b'1']].concat();
    let users = Names::of_bytes(if random.one_in(3) { &[0, 0] } else { &list });
    let to: Vec<u8> = (0..=random.below(3)).flat_map(|_| other.0).collect();
    match random.below(9) {
        0 | 1 => {
            let session = if random.one_in(2) { 0 } else { random.next() >> random.below(64) };
            ToCore::Login { conn, user, window: number, session, name: &name }.encode(out);
        }
        2 => ToCore::Logout { conn, user }.encode(out),
        3 => ToCore::Send(LinkSend {
            conn,
            seq: number,
            sender: user,
            id,
            flags: random.below(2) as u8,
            from: &name,
            to: &to,
            payload: b"x",
        })
        .encode(out),
        4 | 5 => ToCore::Ack { conn, user, upto: number }.encode(out),
        6 => ToCore::Window { conn, user, window: number }.encode(out),
        7 if users.is_empty() => ToCore::Unwatch { conn, users }.encode(out),
        7 => {
            let ask = PresenceAsk { conn, query: number, watch: random.one_in(2), users };
            ToCore::Presence(ask).encode(out);
        }
        _ => {
            let post = ReceiptPost { to: other, reader: user, reader_name: &name, id };
            ToCore::Receipt(post).encode(out);
        }
    }
}

/// What a partition does with a frame.
fn take(node: &mut Node, frame: &ToCore<'_>) {
    let (core, fx, now) = (&mut node.core, &mut node.fx, node.now);
    match *frame {
        ToCore::Login { conn, user, window, session: 0, name } => {
            core.handle_login(fx, now, conn, user, name, window);
        }
        ToCore::Login { conn, user, window, session, name } => {
            core.handle_relogin(fx, now, conn, user, name, window, session);
        }
        ToCore::Logout { conn, user } => {
            core.handle_logout(fx, now, conn, user);
            core.handle_gone(conn);
        }
        ToCore::Send(send) => {
            let LinkSend { conn, seq, sender, id, flags, from, to, payload } = send;
            let (msg_id, flags, recipients) = (id, u16::from(flags), to);
            let send = SendRequest { conn, seq, sender, from, msg_id, flags, recipients, payload };
            core.handle_send(fx, now, &send);
        }
        ToCore::Ack { conn, user, upto } => core.handle_ack(fx, now, conn, user, upto),
        ToCore::Window { conn, user, window } => core.handle_window(now, conn, user, window),
        ToCore::Presence(ask) => {
            let users = ask.users.iter().map(|name| (key(name), name));
            core.handle_presence_query(fx, ask.conn, ask.query, users, ask.watch);
        }
        ToCore::Unwatch { conn, .. } => core.handle_gone(conn),
        ToCore::Receipt(post) => {
            let ReceiptPost { to, reader, reader_name, id } = post;
            core.handle_receipt(fx, now, &Receipt { to, reader, reader_name, msg_id: id });
        }
        ToCore::Gone { .. } => panic!("a peer's is refused"),
    }
}

#[test]
fn any_frames_of_a_peer_in_any_order_are_taken() {
    let mut taken = 0;
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut node = Node::new();
        for _ in 0..150 {
            let (mut batch, mut checked) = (Vec::new(), Vec::new());
            (0..=random.below(4)).for_each(|_| frame(&mut random, &mut batch));
            if random.one_in(5) {
                let at = random.below(batch.len() as u32) as usize;
                batch[at] ^= 1 << random.below(8);
            }
            // What was checked before a fault is passed on; the link then ends.
            let _ = relay::to_core(&batch, RANGE, &mut checked);
            let mut rest = checked.as_slice();
            while let Some((frame, after)) = ToCore::split(rest).unwrap() {
                take(&mut node, &frame);
                taken += 1;
                rest = after;
            }
            if random.one_in(3) {
                node.sync();
                node.poll();
            }
        }
        let mut cursor = Some(EndCursor::default());
        while let Some(from) = cursor {
            cursor = node.core.end_reactors(&mut node.fx, node.now, &(4..6), from, 10);
        }
        let gauges = node.core.gauges();
        assert_eq!((gauges.online, gauges.watches), (0, 0), "seed {seed}: nobody is left behind");
    }
    assert!(taken > 10_000, "{taken} frames were good enough to be taken");
}

#[test]
fn a_message_acknowledged_under_the_peers_dot_goes_though_both_come_at_once() {
    let mut node = Node::new();
    let id = MsgId::v7(T0, 1);
    node.send("alice", id, &["bob"]);
    node.sync();
    let peer = |seq| Dot { origin: Origin { node: 2, incarnation: 1 }, seq };
    let (shard, bob) = (ShardId(0), key("bob"));
    let (dot, sender, recipients) = (peer(1), key("alice"), &bob.0);
    let msg =
        ForeignMsg { shard, dot, hlc: Hlc::new(T0, 0), sender, msg_id: id, flags: 0, recipients };
    node.core.check_foreign_msg(&msg, 100).unwrap();
    node.core.check_foreign_tomb(shard, peer(2), bob, &[dot]).unwrap();
    let hlc = Hlc::new(T0, 0);
    let to = vec![bob];
    let record = Record::Msg { shard, dot, hlc, sender, id, flags: 0, to };
    let appended = node.fx.append(record);
    node.core.foreign_msg(T0, &msg, &appended);
    let (inbox, reason, targets) = (bob, TombReason::Acked, vec![dot]);
    let record = Record::Tomb { shard, dot: peer(2), hlc, inbox, reason, targets };
    let appended = node.fx.append(record);
    let targets = &[(dot, false)];
    let tomb = ForeignTomb { shard, dot: peer(2), inbox: bob, collapsed: false, targets };
    node.core.foreign_tomb(T0, &tomb, &appended);
    // One sync covers the second record of the id and what says that it was read.
    node.sync();
    assert_eq!(node.core.inbox(bob).count(), 0, "it was read under its other dot");
    node.login("bob", 1, 10);
    node.sync();
    assert_eq!(node.fx.deliveries(), []);
}

#[test]
fn a_message_acknowledged_here_goes_under_its_other_dot_while_its_collapse_is_only_owed() {
    let mut node = Node::new();
    let id = MsgId::v7(T0, 1);
    node.send("alice", id, &["bob"]);
    node.sync();
    node.login("bob", 1, 10);
    node.poll();
    assert_eq!(node.fx.deliveries(), [(1, id)]);
    // The peer's record of the id has the lower dot: it stays, and ours is to go.
    let dot = Dot { origin: Origin { node: 0, incarnation: 1 }, seq: 1 };
    let (shard, sender, bob) = (ShardId(0), key("alice"), key("bob"));
    let (hlc, to, recipients) = (Hlc::new(T0, 0), vec![bob], &bob.0);
    let msg = ForeignMsg { shard, dot, hlc, sender, msg_id: id, flags: 0, recipients };
    node.core.check_foreign_msg(&msg, 100).unwrap();
    let appended = node.fx.append(Record::Msg { shard, dot, hlc, sender, id, flags: 0, to });
    node.core.foreign_msg(T0, &msg, &appended);
    let lsn = node.fx.lsn;
    node.core.handle_durable(&mut node.fx, node.now, lsn, 1);
    // The acknowledgement comes before the TOMB that is owed.
    node.ack("bob", 1, 1);
    node.sync();
    assert_eq!(node.core.inbox(bob).count(), 0, "it was read under its other dot");
    node.login("bob", 2, 10);
    node.sync();
    assert_eq!(node.fx.deliveries(), []);
}
