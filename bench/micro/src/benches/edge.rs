//! The router of an edge, between sessions and two cores.

use std::hint::black_box;

use iris_proto::edge::{CoreIndex, Effects, Router, RouterConfig};
use iris_proto::id::{ConnId, MsgId, UserKey};
use iris_proto::link::{LinkSend, ToCore, ToEdge};
use iris_proto::peer::{PartitionState, ShardRanges};
use iris_proto::wire::MessageHead;

use super::{PAYLOAD, T0, USERS, name};
use crate::work::{Bench, Work};

const SHARDS: u16 = 16;
const CORES: usize = 2;
/// Messages of a session in a turn.
const EACH: u32 = 4;

pub(super) const BENCHES: &[Bench] = &[Bench {
    name: "edge/cycle",
    op: "message",
    ops: (USERS * EACH) as u64,
    warm: 4,
    turns: 10,
    start: || Box::new(Edge::new()),
}];

/// What the router wrote.
#[derive(Default)]
struct Wires {
    to_cores: [Vec<u8>; CORES],
    accepted: u64,
    delivered: u64,
}

impl Effects for Wires {
    fn to_core(&mut self, core: CoreIndex, _: u16) -> &mut Vec<u8> {
        &mut self.to_cores[core]
    }

    fn backlog_bytes(&self, core: CoreIndex, _: u16) -> usize {
        self.to_cores[core].len()
    }

    fn to_client(&mut self, frame: &ToEdge<'_>) {
        match black_box(frame) {
            ToEdge::Accepted { count, .. } => self.accepted += u64::from(*count),
            ToEdge::Frame { .. } => self.delivered += 1,
            ToEdge::Welcome { .. } => {}
            other => panic!("a session was told {other:?}"),
        }
    }
}

/// A session, as its reactor and its core name it.
struct Member {
    conn: ConnId,
    user: UserKey,
    core: CoreIndex,
    /// Its names on links: for deliveries, and for SENDs.
    login: ConnId,
    sends: ConnId,
}

/// Sessions that send to themselves and read.
struct Edge {
    router: Router,
    fx: Wires,
    members: Vec<Member>,
    /// A MESSAGE as a core writes it, for each delivery of a turn.
    messages: Vec<Vec<u8>>,
    /// The next SEND of each session, and the next delivery.
    number: u32,
    now: u64,
}

impl Edge {
    fn new() -> Self {
        let mut router = Router::new(RouterConfig::new(3, SHARDS, vec![1, 2]));
        let mut fx = Wires::default();
        let now = 10_000;
        for core in 0..CORES {
            router.core_up(core, 1, &ShardRanges::all(SHARDS));
            router.core_state(now, core, 0, PartitionState::Serving);
        }
        while router.poll(&mut fx, now) {}
        let members = (0..USERS).map(|slot| log_in(&mut router, &mut fx, now, slot)).collect();
        Self { router, fx, members, messages: vec![Vec::new(); EACH as usize], number: 1, now }
    }

    fn send(&mut self) {
        for number in self.number..self.number + EACH {
            for Member { conn, user, .. } in &self.members {
                send(&mut self.router, &mut self.fx, self.now, (*conn, *user, number));
            }
        }
    }

    fn answer(&mut self) {
        let Self { router, fx, members, messages, number, now } = self;
        for Member { core, sends, .. } in members.iter() {
            let (first, count) = (*number, EACH as u16);
            let answer = ToEdge::Accepted { conn: *sends, first, count, copies: 2 };
            router.handle_core(fx, *now, *core, &answer);
        }
        for Member { core, login, .. } in members.iter() {
            for bytes in messages.iter() {
                router.handle_core(fx, *now, *core, &ToEdge::Frame { conn: *login, bytes });
            }
        }
    }

    fn ack(&mut self) {
        let upto = self.number + EACH - 1;
        for Member { conn, user, .. } in &self.members {
            let ack = ToCore::Ack { conn: *conn, user: *user, upto };
            self.router.handle_client(&mut self.fx, self.now, &ack);
        }
    }
}

/// A user sends the message of that number to itself.
fn send(router: &mut Router, fx: &mut Wires, now: u64, of: (ConnId, UserKey, u32)) {
    let (conn, user, number) = of;
    let send = LinkSend {
        conn,
        seq: number,
        sender: user,
        id: MsgId::v7(T0, u128::from(number)),
        flags: 0,
        from: "sender-000012",
        to: &user.0,
        payload: &PAYLOAD,
    };
    router.handle_client(fx, now, &ToCore::Send(send));
}

/// Logs in a user of that number, and reads how the router names the session.
fn log_in(router: &mut Router, fx: &mut Wires, now: u64, slot: u32) -> Member {
    let name = name("user", slot);
    let (conn, user) = (ConnId::new(3, slot, 7), UserKey::of(&name));
    let frame = ToCore::Login { conn, user, window: 256, session: 0, name: &name };
    router.handle_client(fx, now, &frame);
    send(router, fx, now, (conn, user, 0));
    let core = fx.to_cores.iter().position(|bytes| !bytes.is_empty()).expect("a core was told");
    let bytes = std::mem::take(&mut fx.to_cores[core]);
    let (login, rest) = ToCore::split(&bytes).expect("a sound frame").expect("a frame");
    let (sent, _) = ToCore::split(rest).expect("a sound frame").expect("a frame");
    let (ToCore::Login { conn: login, .. }, ToCore::Send(sent)) = (login, sent) else {
        panic!("a core was told {login:?} and {sent:?}");
    };
    router.handle_core(fx, now, core, &ToEdge::Welcome { conn: login, waiting: 0, session: 1 });
    let answer = ToEdge::Accepted { conn: sent.conn, first: sent.seq, count: 1, copies: 2 };
    router.handle_core(fx, now, core, &answer);
    fx.accepted = 0;
    Member { conn, user, core, login, sends: sent.conn }
}

impl Work for Edge {
    fn prepare(&mut self) {
        self.now += 1;
        self.fx.to_cores.iter_mut().for_each(Vec::clear);
        for (bytes, no) in self.messages.iter_mut().zip(self.number..) {
            let id = MsgId::v7(T0, u128::from(no));
            bytes.clear();
            MessageHead { no, id, time_ms: T0, flags: 0, from: "sender-000012" }
                .encode(&PAYLOAD, bytes);
        }
    }

    fn turn(&mut self) {
        self.send();
        self.answer();
        self.ack();
        while self.router.poll(&mut self.fx, self.now) {}
        self.number += EACH;
    }

    fn done(&self) -> u64 {
        self.fx.accepted.min(self.fx.delivered)
    }
}
