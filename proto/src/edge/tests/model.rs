//! Random runs: clients, a router, and two cores that mirror each other, with links that break and cores that stall.
//!
//! Checked all the time: a SEND is answered at most once, ACCEPTED only when a core has the message, numbers of
//! deliveries count up by one, the client's window is kept, a core never sees an ACK of what it did not deliver, memory
//! is bounded.
//! At the end, when faults are over: each SEND was answered, and accepted messages are in the order of their SENDs.

use super::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const CLIENTS: u32 = 6;
const WINDOW: u32 = 4;
const BYTES_MAX: usize = 60_000;

/// Steele, Lea and Flood's SplitMix64 (OOPSLA 2014): a test's own source of chance.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }

    fn one_in(&mut self, chances: u32) -> bool {
        self.below(chances) == 0
    }
}

/// A login at a core.
struct Login {
    name: ConnId,
    session: u64,
    window: u32,
    sent: u32,
    acked: u32,
}

/// A core: what it was sent and has not looked at, what it says, and who is logged in.
#[derive(Default)]
struct Core {
    is_up: bool,
    is_stalled: bool,
    state: PartitionState,
    input: VecDeque<Vec<u8>>,
    output: VecDeque<Vec<u8>>,
    logins: BTreeMap<[u8; 16], Login>,
}

#[derive(Default)]
struct Client {
    next_seq: u32,
    answered: BTreeSet<u32>,
    accepted: Vec<u32>,
    last_no: u32,
    acked: u32,
    is_in: bool,
    /// Which connection it is on.
    generation: u32,
}

impl Client {
    fn conn(&self, slot: u32) -> ConnId {
        ConnId::new(3, slot, self.generation)
    }
}

struct World {
    edge: Edge,
    random: Random,
    cores: [Core; 2],
    clients: Vec<Client>,
    /// What both cores have, since they mirror each other: (client, seq), in the order of arrival, by shard.
    stored: BTreeMap<u16, Vec<(u32, u32)>>,
    next_session: u64,
    welcomed: u64,
}

fn name(client: u32) -> String {
    format!("client{client}")
}

impl World {
    fn new(seed: u64) -> Self {
        let mut edge = Edge::alone();
        let mut config = edge.router.config.clone();
        (config.bytes_max, config.conn_bytes_max) = (BYTES_MAX, BYTES_MAX / 2);
        edge.router = Router::new(config);
        let mut world = Self {
            edge,
            random: Random(seed),
            cores: Default::default(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            stored: BTreeMap::new(),
            next_session: 1,
            welcomed: 0,
        };
        (0..CLIENTS).for_each(|client| world.login(client));
        world
    }

    fn login(&mut self, client: u32) {
        let (conn, name) = (self.clients[client as usize].conn(client), name(client));
        let (user, window) = (UserKey::of(&name), WINDOW);
        self.edge.client(&ToCore::Login { conn, user, window, session: 0, name: &name });
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0..=4 => self.client_sends(),
            5 => self.client_acks(),
            6..=8 => {
                let core = self.random.below(2) as usize;
                self.core_works(core, 8);
            }
            9 => self.edge.pass(u64::from(5 * self.random.below(60))),
            10 if self.random.one_in(6) => self.fault(),
            _ => {}
        }
        self.settle();
    }

    /// Frames move: from the router to the cores' input, from clients' side to the model.
    fn settle(&mut self) {
        self.edge.poll();
        for (core, buffers) in self.edge.fx.to_cores.iter_mut().enumerate() {
            for buffer in buffers {
                let bytes = std::mem::take(buffer);
                assert!(bytes.is_empty() || self.cores[core].is_up, "nothing goes to who is away");
                let mut rest = bytes.as_slice();
                while let Some((_, after)) = ToCore::split(rest).unwrap() {
                    let frame = rest[..rest.len() - after.len()].to_vec();
                    self.cores[core].input.push_back(frame);
                    rest = after;
                }
            }
        }
        let bytes = std::mem::take(&mut self.edge.fx.to_clients);
        let mut rest = bytes.as_slice();
        while let Some((frame, after)) = ToEdge::split(rest).unwrap() {
            self.client_hears(&frame);
            rest = after;
        }
        let gauges = self.edge.router.gauges();
        assert!(gauges.pending_bytes <= BYTES_MAX, "memory is bounded");
    }

    fn client_sends(&mut self) {
        let client = self.random.below(CLIENTS);
        let to = name(self.random.below(CLIENTS));
        let state = &mut self.clients[client as usize];
        let seq = state.next_seq;
        state.next_seq += 1;
        let id = MsgId::v7(u64::from(client), u128::from(seq));
        let to = UserKey::of(&to).0;
        let payload = vec![0; self.random.below(900) as usize];
        let send = LinkSend {
            conn: self.clients[client as usize].conn(client),
            seq,
            sender: UserKey::of(&name(client)),
            id,
            flags: 0,
            from: "x",
            to: &to,
            payload: &payload,
        };
        self.edge.client(&ToCore::Send(send));
    }

    fn client_acks(&mut self) {
        let client = self.random.below(CLIENTS);
        let state = &mut self.clients[client as usize];
        if state.last_no > state.acked {
            state.acked += 1 + self.random.below(state.last_no - state.acked);
            let (upto, conn) = (state.acked, state.conn(client));
            self.edge.client(&ToCore::Ack { conn, user: UserKey::of(&name(client)), upto });
        }
    }

    fn client_hears(&mut self, frame: &ToEdge<'_>) {
        let (ToEdge::Welcome { conn, .. }
        | ToEdge::Accepted { conn, .. }
        | ToEdge::Rejected { conn, .. }
        | ToEdge::Frame { conn, .. }
        | ToEdge::Kick { conn, .. }) = *frame
        else {
            panic!("no core says that")
        };
        // A connection that was ended hears nothing more.
        if self.clients[conn.slot() as usize].conn(conn.slot()) != conn {
            return;
        }
        match *frame {
            ToEdge::Welcome { conn, .. } => {
                let client = &mut self.clients[conn.slot() as usize];
                assert!(!std::mem::replace(&mut client.is_in, true), "one WELCOME");
            }
            ToEdge::Accepted { conn, first, count, .. } => {
                for seq in first..first + u32::from(count) {
                    let client = conn.slot();
                    let has = |list: &Vec<(u32, u32)>| list.contains(&(client, seq));
                    assert!(self.stored.values().any(has), "an accepted message is somewhere");
                    let client = &mut self.clients[client as usize];
                    assert!(client.answered.insert(seq), "a SEND is answered once");
                    client.accepted.push(seq);
                }
            }
            ToEdge::Rejected { conn, seq, code, .. } => {
                let retryable = [Code::ShardUnavailable, Code::Overloaded, Code::InboxFull];
                assert!(retryable.contains(&code), "{code:?}");
                let client = &mut self.clients[conn.slot() as usize];
                assert!(client.answered.insert(seq), "a SEND is answered once");
            }
            ToEdge::Frame { conn, bytes } => {
                let (_, body, rest) = split_frame(bytes).unwrap().unwrap();
                assert!(rest.is_empty());
                let no = u32::from_le_bytes(*body.first_chunk().unwrap());
                let client = &mut self.clients[conn.slot() as usize];
                assert_eq!(no, client.last_no + 1, "deliveries count up by one");
                client.last_no = no;
                assert!(no - client.acked <= WINDOW, "the window is kept");
            }
            ToEdge::Kick { conn, code } => {
                // Nobody else logs in as this user, and no ACK is false.
                assert_eq!(code, Code::Unavailable);
                let client = conn.slot();
                assert!(!self.clients[client as usize].is_in, "who is in stays in");
                let user = UserKey::of(&name(client));
                self.edge.client(&ToCore::Logout { conn, user });
                let state = &mut self.clients[client as usize];
                (state.acked, state.last_no) = (0, 0);
                state.generation += 1;
                state.answered.extend(0..state.next_seq);
                self.login(client);
            }
            ToEdge::Receipt { .. } => {}
        }
    }

    fn core_works(&mut self, core: usize, most: u32) {
        if !self.cores[core].is_up || self.cores[core].is_stalled {
            return;
        }
        for _ in 0..self.random.below(most) {
            let Some(frame) = self.cores[core].input.pop_front() else { break };
            let (frame, _) = ToCore::split(&frame).unwrap().unwrap();
            self.core_takes(core, &frame);
        }
        self.core_delivers(core);
        for _ in 0..self.random.below(most) {
            let Some(frame) = self.cores[core].output.pop_front() else { break };
            let (frame, _) = ToEdge::split(&frame).unwrap().unwrap();
            self.edge.core(core, &frame);
            self.settle();
        }
    }

    fn core_takes(&mut self, core: usize, frame: &ToCore<'_>) {
        let refuses = self.cores[core].state != SERVING;
        let here = &mut self.cores[core];
        match *frame {
            ToCore::Send(send) => {
                let shard = shard_for_user(UserKey(*send.to.first_chunk().unwrap()), SHARDS);
                let message = (send.id.unix_ms() as u32, send.id.0 as u32);
                let stored = self.stored.entry(shard.0).or_default();
                let (conn, seq) = (send.conn, send.seq);
                let mut code = None;
                if !stored.contains(&message) {
                    // The same verdict wherever it is asked for: a refusal that gets lost with its core and an
                    // acceptance by the other one would change places with what came between.
                    code = match (message.0 + message.1) % 40 {
                        _ if refuses => Some(Code::ShardUnavailable),
                        0 => Some(Code::InboxFull),
                        _ => None,
                    };
                    if code.is_none() {
                        stored.push(message);
                    }
                }
                let answer = match code {
                    Some(code) => ToEdge::Rejected { conn, seq, code, retry_after_ms: 1 },
                    None => ToEdge::Accepted { conn, first: seq, count: 1, copies: 2 },
                };
                here.say(&answer);
            }
            ToCore::Login { conn, user, window, session, .. } => {
                let session = match session {
                    0 => {
                        self.next_session += 1;
                        self.next_session
                    }
                    session => session,
                };
                let login = Login { name: conn, session, window, sent: 0, acked: 0 };
                if let Some(old) = here.logins.insert(user.0, login) {
                    assert!(old.session <= session, "one user has one session");
                }
                here.say(&ToEdge::Welcome { conn, waiting: 0, session });
                self.welcomed += 1;
            }
            ToCore::Logout { conn, user } => {
                here.logins.retain(|key, login| *key != user.0 || login.name != conn);
            }
            ToCore::Ack { conn, user, upto } => {
                if let Some(login) = here.logins.get_mut(&user.0).filter(|l| l.name == conn) {
                    assert!(upto <= login.sent, "an ACK of what was delivered");
                    login.acked = login.acked.max(upto);
                }
            }
            ToCore::Window { conn, user, window } => {
                if let Some(login) = here.logins.get_mut(&user.0).filter(|l| l.name == conn) {
                    login.window = window;
                }
            }
            ToCore::Presence(_)
            | ToCore::Unwatch { .. }
            | ToCore::Receipt(_)
            | ToCore::Gone { .. } => {
                panic!("nobody asks for that")
            }
        }
    }

    /// As long as the window has room there is something to deliver.
    fn core_delivers(&mut self, core: usize) {
        let here = &mut self.cores[core];
        let mut frames = Vec::new();
        for login in here.logins.values_mut() {
            while login.sent - login.acked < login.window && !self.random.one_in(3) {
                login.sent += 1;
                let no = login.sent;
                let head = MessageHead { no, id: MsgId(1), time_ms: 1, flags: 0, from: "zoe" };
                let mut bytes = Vec::new();
                head.encode(b"", &mut bytes);
                frames.push((login.name, bytes));
            }
        }
        for (conn, bytes) in frames {
            here.say(&ToEdge::Frame { conn, bytes: &bytes });
        }
    }

    fn fault(&mut self) {
        let core = self.random.below(2) as usize;
        match self.random.below(7) {
            0 | 1 if self.cores[core].is_up => self.lose(core),
            2 | 3 if !self.cores[core].is_up => self.join(core),
            4 => self.cores[core].is_stalled ^= true,
            // It goes away, and tells the router or not. What it refused once, it refuses for the rest of this life.
            5 if self.cores[core].is_up => {
                self.cores[core].state = PartitionState::Draining;
                if self.random.one_in(2) {
                    self.edge.state(core, PartitionState::Draining);
                }
            }
            6 if self.cores[core].state == SERVING => {
                let is_behind = self.random.one_in(2);
                self.edge.state(core, if is_behind { BEHIND } else { SERVING });
            }
            _ => {}
        }
    }

    fn lose(&mut self, core: usize) {
        self.cores[core] = Core::default();
        self.edge.down(core);
    }

    fn join(&mut self, core: usize) {
        self.cores[core].is_up = true;
        self.cores[core].state = SERVING;
        self.edge.up(core);
    }

    /// Faults end: everything is answered, and in order.
    fn finish(&mut self) {
        for core in 0..2 {
            self.cores[core].is_stalled = false;
            if self.cores[core].state != SERVING {
                self.lose(core);
                self.join(core);
            }
        }
        for _ in 0..2000 {
            self.settle();
            self.edge.pass(5);
            self.core_works(0, 40);
            self.core_works(1, 40);
            self.client_acks();
        }
        for (number, client) in self.clients.iter().enumerate() {
            let lacking = (0..client.next_seq).find(|seq| !client.answered.contains(seq));
            assert_eq!(lacking, None, "client {number} waits for an answer");
            assert!(client.is_in, "client {number} is logged in");
        }
        assert_eq!(self.edge.router.gauges().pending, 0);
        for messages in self.stored.values() {
            for client in 0..CLIENTS {
                let accepted = &self.clients[client as usize].accepted;
                let of_client = |m: &&(u32, u32)| m.0 == client && accepted.contains(&m.1);
                let seqs: Vec<u32> = messages.iter().filter(of_client).map(|m| m.1).collect();
                assert!(seqs.is_sorted(), "client {client}: {seqs:?}");
            }
        }
    }
}

impl Core {
    fn say(&mut self, frame: &ToEdge<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.output.push_back(bytes);
    }
}

#[test]
fn every_send_is_answered_once_whatever_links_and_cores_do() {
    let (mut counters, mut welcomed) = (Counters::default(), 0);
    for seed in 0..60 {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..1500).for_each(|_| world.step());
            world.finish();
            world
        });
        let world = run.unwrap_or_else(|failure| {
            eprintln!("seed {seed} failed");
            std::panic::resume_unwind(failure)
        });
        let these = world.edge.router.counters();
        counters.failovers += these.failovers;
        counters.moves += these.moves;
        counters.resent += these.resent;
        counters.relogins += these.relogins;
        counters.unanswered += these.unanswered;
        counters.overloaded += these.overloaded;
        counters.stale += these.stale;
        welcomed += world.welcomed;
    }
    let Counters { failovers, moves, resent, relogins, unanswered, overloaded, stale } = counters;
    let reached = [failovers, moves, resent, relogins, unanswered, overloaded, stale, welcomed];
    assert!(reached.into_iter().all(|count| count > 0), "not every case came up: {reached:?}");
}
