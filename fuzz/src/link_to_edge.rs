//! Batches of a core, as the gateway of an edge takes them off a link and the router of a reactor acts on them.
//!
//! Cores say whatever they like, links come and go, clients log in and send. Towards clients the router must keep what it
//! promises: each SEND is answered once, by an answer to a SEND that was made, and each login is welcomed once.

use std::collections::{BTreeMap, BTreeSet};

use iris_proto::edge::{Effects, FromCore, Router, RouterConfig};
use iris_proto::id::{ConnId, MsgId, UserKey};
use iris_proto::limits::SEND_WINDOW_MAX;
use iris_proto::link::{LinkSend, PresenceAsk, ToCore, ToEdge};
use iris_proto::peer::relay::to_edge;
use iris_proto::peer::{PartitionState, ShardRanges};
use iris_proto::wire::{Code, MessageHead, Names};

use crate::Input;

const REACTOR: u16 = 0;
const SHARDS: u16 = 4;
const PARTITIONS: u16 = 2;
const CORES: usize = 2;
const USERS: [&str; 4] = ["ann", "bob", "zoe", "x"];

fn config() -> RouterConfig {
    RouterConfig {
        send_wait_ms: 400,
        answer_ms: 100,
        settle_ms: 20,
        failback_ms: 200,
        move_ms: 50,
        relogins_per_s: 1000,
        conn_bytes_max: 1000,
        bytes_max: 3000,
        names_max: 12,
        ..RouterConfig::new(REACTOR, SHARDS, vec![1, 2])
    }
}

/// What clients are told, and what cores are asked.
#[derive(Default)]
struct Sides {
    batches: [[Vec<u8>; PARTITIONS as usize]; CORES],
    told: Vec<u8>,
}

impl Effects for Sides {
    fn to_core(&mut self, core: usize, partition: u16) -> &mut Vec<u8> {
        &mut self.batches[core][usize::from(partition)]
    }

    fn backlog_bytes(&self, core: usize, partition: u16) -> usize {
        self.batches[core][usize::from(partition)].len()
    }

    fn to_client(&mut self, frame: &ToEdge<'_>) {
        frame.encode(&mut self.told);
    }
}

/// What a client of ours did and got.
#[derive(Default)]
struct Client {
    is_in: bool,
    is_welcomed: bool,
    is_over: bool,
    generation: u32,
    next_seq: u32,
    unanswered: BTreeSet<u32>,
}

struct World {
    router: Router,
    sides: Sides,
    clients: [Client; 4],
    is_up: [bool; CORES],
    /// Names of connections that cores have heard of.
    names: [Vec<ConnId>; CORES],
    now_ms: u64,
}

/// Events, in any order.
pub fn run(data: &[u8]) {
    let mut world = World {
        router: Router::new(config()),
        sides: Sides::default(),
        clients: Default::default(),
        is_up: [false; CORES],
        names: Default::default(),
        now_ms: 1000,
    };
    let mut input = Input::new(data);
    while !input.is_empty() {
        match input.below(8) {
            0 => world.link_event(&mut input),
            1 | 2 => world.client_event(&mut input),
            3 => world.pass(u64::from(input.u8())),
            4 => {
                let core = usize::from(input.below(CORES as u8));
                let bytes = input.short();
                world.core_says(core, bytes);
            }
            _ => world.core_answers(&mut input),
        }
        world.check_told();
        world.take_names();
    }
    world.end();
}

impl World {
    fn link_event(&mut self, input: &mut Input<'_>) {
        let core = usize::from(input.below(CORES as u8));
        let what = input.u8();
        match (self.is_up[core], what % 4) {
            (false, _) => {
                self.is_up[core] = true;
                self.router.core_up(core, PARTITIONS, &ShardRanges::all(SHARDS));
                for partition in 0..PARTITIONS {
                    let state = PartitionState::from_u8(1 + what / 4 % 3);
                    self.router.core_state(self.now_ms, core, partition, state);
                }
            }
            (true, 0) => {
                self.is_up[core] = false;
                self.sides.batches[core].iter_mut().for_each(Vec::clear);
                self.names[core].clear();
                self.router.core_down(&mut self.sides, self.now_ms, core);
            }
            (true, _) => {
                let partition = u16::from(what / 4) % (PARTITIONS + 1);
                let state = PartitionState::from_u8(what / 16 % 5);
                self.router.core_state(self.now_ms, core, partition, state);
            }
        }
    }

    fn conn(&self, index: usize) -> ConnId {
        ConnId::new(REACTOR, index as u32, self.clients[index].generation)
    }

    fn client_event(&mut self, input: &mut Input<'_>) {
        let index = usize::from(input.below(4));
        let (conn, name) = (self.conn(index), USERS[index]);
        let user = UserKey::of(name);
        let client = &mut self.clients[index];
        if !client.is_in {
            *client = Client { is_in: true, generation: client.generation, ..Client::default() };
            let window = u32::from(input.u8());
            return self.say(&ToCore::Login { conn, user, window, session: 0, name });
        }
        match input.below(8) {
            0 => {
                (client.is_in, client.generation) = (false, client.generation + 1);
                client.unanswered.clear();
                self.say(&ToCore::Logout { conn, user });
            }
            // What a session lets through: live, numbered, within its window.
            1..=3 if client.is_welcomed && !client.is_over => {
                if client.unanswered.len() >= SEND_WINDOW_MAX as usize {
                    return;
                }
                let seq = client.next_seq;
                client.next_seq += 1;
                client.unanswered.insert(seq);
                let to = UserKey::of(USERS[usize::from(input.below(4))]).0;
                let (id, payload) = (MsgId::v7(self.now_ms, seq.into()), input.short());
                let send = LinkSend {
                    conn,
                    seq,
                    sender: user,
                    id,
                    flags: 0,
                    from: name,
                    to: &to,
                    payload,
                };
                self.say(&ToCore::Send(send));
            }
            4 => self.say(&ToCore::Ack { conn, user, upto: u32::from(input.u8() % 8) }),
            5 => self.say(&ToCore::Window { conn, user, window: input.u32() }),
            6 => {
                let names = [2, 0, 3, b'a', b'n', b'n', 1, b'x'];
                let users = Names::of_bytes(&names);
                let (query, watch) = (1 + u32::from(input.u8()), input.u8() & 1 > 0);
                self.say(&ToCore::Presence(PresenceAsk { conn, query, watch, users }));
            }
            _ => {
                let names: &[u8] = if input.u8() & 1 > 0 { &[0, 0] } else { &[1, 0, 1, b'x'] };
                self.say(&ToCore::Unwatch { conn, users: Names::of_bytes(names) });
            }
        }
    }

    fn say(&mut self, frame: &ToCore<'_>) {
        self.router.handle_client(&mut self.sides, self.now_ms, frame);
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        for _ in 0..4 {
            if !self.router.poll(&mut self.sides, self.now_ms) {
                return;
            }
        }
    }

    /// Bytes of a link; what the relay lets through reaches the router.
    fn core_says(&mut self, core: usize, bytes: &[u8]) {
        if !self.is_up[core] {
            return;
        }
        let mut passed = Vec::new();
        let told = to_edge(bytes, 1, |reactor, frame| {
            assert_eq!(reactor, REACTOR, "a reactor that is not there");
            passed.extend_from_slice(frame);
        });
        let (mut rest, mut frames) = (passed.as_slice(), 0);
        while let Some((frame, after)) =
            FromCore::split(rest).expect("the relay passes whole frames")
        {
            let FromCore::Frame(frame) = frame else { panic!("news crossed a link: {frame:?}") };
            let mut again = Vec::new();
            frame.encode(&mut again);
            assert_eq!(ToEdge::split(&again), Ok(Some((frame, &[][..]))));
            self.router.handle_core(&mut self.sides, self.now_ms, core, &frame);
            (rest, frames) = (after, frames + 1);
        }
        assert!(told.is_err() || told == Ok(frames), "frames are counted");
    }

    /// What a core that keeps the rules might say, and a little else, about a connection that it knows.
    fn core_answers(&mut self, input: &mut Input<'_>) {
        let core = usize::from(input.below(CORES as u8));
        let known = &self.names[core];
        if known.is_empty() {
            return;
        }
        let conn = known[usize::from(input.u8()) % known.len()];
        let mut bytes = Vec::new();
        match input.below(6) {
            0 => {
                let session = 1 + u64::from(input.u8());
                ToEdge::Welcome { conn, waiting: 1, session }.encode(&mut bytes);
            }
            1 => {
                let (first, count) = (u32::from(input.u8()), u16::from(input.u8() % 9));
                ToEdge::Accepted { conn, first, count, copies: 2 }.encode(&mut bytes);
            }
            2 => {
                let code = Code::ALL[usize::from(input.u8()) % Code::ALL.len()];
                let seq = u32::from(input.u8());
                ToEdge::Rejected { conn, seq, code, retry_after_ms: 5 }.encode(&mut bytes);
            }
            3 => {
                let code = Code::ALL[usize::from(input.u8()) % Code::ALL.len()];
                ToEdge::Kick { conn, code }.encode(&mut bytes);
            }
            4 => {
                let no = if input.u8() & 1 > 0 { u32::from(input.u8()) } else { input.u32() };
                let head = MessageHead { no, id: MsgId(1), time_ms: 1, flags: 0, from: "ann" };
                ToEdge::encode_frame(conn, &mut bytes, |out| head.encode(b"hi", out));
            }
            _ => {
                let body = input.short();
                ToEdge::encode_frame(conn, &mut bytes, |out| {
                    iris_proto::wire::put_frame(out, iris_proto::wire::kind::PRESENCE, |w| {
                        w.bytes(body);
                    });
                });
            }
        }
        self.core_says(core, &bytes);
    }

    /// Cores learn names of connections from what they are told.
    fn take_names(&mut self) {
        for (core, batches) in self.sides.batches.iter_mut().enumerate() {
            for batch in batches {
                let mut rest = batch.as_slice();
                while let Some((frame, after)) =
                    ToCore::split(rest).expect("the router's are whole")
                {
                    let conn = match frame {
                        ToCore::Login { conn, .. } => Some(conn),
                        ToCore::Send(send) => Some(send.conn),
                        ToCore::Presence(ask) => Some(ask.conn),
                        _ => None,
                    };
                    assert!(self.is_up[core], "nothing is said to a core that is away");
                    self.names[core].extend(conn);
                    rest = after;
                }
                batch.clear();
            }
            let len = self.names[core].len();
            self.names[core].drain(..len.saturating_sub(32));
        }
    }

    fn check_told(&mut self) {
        let told = std::mem::take(&mut self.sides.told);
        let mut rest = told.as_slice();
        while let Some((frame, after)) = ToEdge::split(rest).expect("the router's are whole") {
            rest = after;
            let mut answered: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
            let conn = match frame {
                ToEdge::Accepted { conn, first, count, .. } => {
                    let seqs = (0..u32::from(count)).map(|offset| first.wrapping_add(offset));
                    answered.insert(conn.slot() as usize, seqs.collect());
                    conn
                }
                ToEdge::Rejected { conn, seq, .. } => {
                    answered.insert(conn.slot() as usize, vec![seq]);
                    conn
                }
                ToEdge::Welcome { conn, .. } => conn,
                ToEdge::Kick { conn, .. } | ToEdge::Frame { conn, .. } => conn,
                ToEdge::Receipt { .. } => panic!("a receipt for a client"),
            };
            let index = conn.slot() as usize;
            assert!(self.clients[index].is_in && conn == self.conn(index), "{frame:?} to nobody");
            let client = &mut self.clients[index];
            for seq in answered.remove(&index).unwrap_or_default() {
                assert!(
                    client.unanswered.remove(&seq),
                    "SEND {seq} was answered before, or not made"
                );
            }
            match frame {
                ToEdge::Welcome { .. } => {
                    assert!(!client.is_welcomed, "a second WELCOME");
                    client.is_welcomed = true;
                }
                ToEdge::Kick { .. } => client.is_over = true,
                _ => {}
            }
        }
    }

    /// Time passes, and no core says anything: every SEND is answered.
    fn end(&mut self) {
        for _ in 0..60 {
            self.pass(20);
            self.check_told();
            self.take_names();
        }
        for client in self.clients.iter().filter(|client| client.is_in && !client.is_over) {
            assert!(client.unanswered.is_empty(), "no answer: {:?}", client.unanswered);
        }
        for (index, name) in USERS.iter().enumerate().take(self.clients.len()) {
            if self.clients[index].is_in {
                let (conn, user) = (self.conn(index), UserKey::of(name));
                self.say(&ToCore::Logout { conn, user });
            }
        }
        let gauges = self.router.gauges();
        assert_eq!((gauges.sessions, gauges.pending, gauges.pending_bytes), (0, 0, 0));
    }
}
