//! A core, edges and clients of one user, and the frames between them, one step at a time.
//!
//! What a component is depends on nothing but what came to it, in its order. So a state of all of them is known by what
//! came to each ([`World::key`]), and two orders of steps that no component can tell apart lead to one state.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use iris_proto::core::{
    Appended, Core, CoreConfig, Delivery, Effects, KickReason, MsgRecord, Pos, Presence, Receipt,
    Refusal, RejectCode, TombRecord,
};
use iris_proto::edge::{self, Router, RouterConfig};
use iris_proto::id::{ConnId, MsgId, Origin, ShardId};
use iris_proto::link::ToEdge;
use iris_proto::peer::relay::ReactorRange;
use iris_proto::peer::{PartitionState, ShardRanges};
use iris_proto::session::Session;
use iris_proto::wire::{Code, MessageHead};

use super::model::{End, Model};

pub(crate) const USER: &str = "u";
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

/// What happens, and what may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// For each session the edge that it is at. They log in at their edges in this order, and reach the core in any.
    pub(crate) sessions: &'static [usize],
    /// Messages that wait before, and that come while all this happens.
    pub(crate) waiting: usize,
    pub(crate) coming: usize,
    pub(crate) window: u32,
    /// Which sessions may leave by themselves.
    pub(crate) leave: &'static [usize],
    /// How often the link of edge 0 may be lost; it comes back.
    pub(crate) losses: u8,
    /// Whether an operator ends the user's sessions, once at each edge.
    pub(crate) ejects: bool,
}

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Step {
    /// A session's HELLO is verified at its edge.
    Login(usize),
    /// A client acknowledges all that it has got.
    Ack(usize),
    /// A client goes away.
    Leave(usize),
    /// The oldest frame of an edge reaches the core, or of the core an edge.
    Up(usize),
    Down(usize),
    /// What the core has written is synced.
    Sync,
    /// Somebody's message reaches the core.
    Send,
    /// The link of an edge breaks, and the edge knows; the core knows; it is back.
    Lost,
    Noticed,
    Back,
    /// An edge ends all sessions of the user.
    Eject(usize),
}

impl Step {
    /// Whether it need never happen.
    pub(crate) fn is_voluntary(self) -> bool {
        matches!(self, Self::Leave(_) | Self::Lost)
    }
}

/// Ways in which all this could be wrong, to see that it would be noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    Nothing,
    /// The old session is not told.
    KickLost,
    /// What an old session acknowledges counts for the one that is there.
    AckUnfenced,
    /// The end of an old session ends the one that is there.
    LogoutUnfenced,
    /// A message is not delivered to the session that took over.
    DeliveryLost,
}

/// Where the core's effects go.
#[derive(Default)]
pub(crate) struct CoreSide {
    pub(crate) lsn: u64,
    pub(crate) durable: u64,
    /// By number in the stream: which message.
    pub(crate) messages: BTreeMap<u64, usize>,
    /// Frames for edges, by the core's name of the connection.
    pub(crate) told: Vec<(ConnId, Vec<u8>)>,
    pub(crate) delivered: Vec<(ConnId, u32, usize)>,
    pub(crate) kicked: Vec<(ConnId, KickReason)>,
    pub(crate) welcomed: Vec<(ConnId, u32, u64)>,
    /// When each message is durable.
    pub(crate) lsns: BTreeMap<usize, u64>,
}

impl CoreSide {
    fn append(&mut self, len: usize) -> Result<Appended, Refusal> {
        self.lsn += 1;
        let pos = Pos { segment: 1, offset: self.lsn as u32 * 1000 };
        Ok(Appended { pos, len: len as u32, lsn: self.lsn })
    }

    fn tell(&mut self, conn: ConnId, frame: &ToEdge<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.told.push((conn, bytes));
    }
}

impl Effects for CoreSide {
    fn append_msg(&mut self, record: &MsgRecord<'_>) -> Result<Appended, Refusal> {
        let message = usize::from(record.payload[0]);
        self.messages.insert(record.dot.seq, message);
        let appended = self.append(100)?;
        self.lsns.insert(message, appended.lsn);
        Ok(appended)
    }
    fn append_tomb(&mut self, _record: &TombRecord<'_>) -> Result<Appended, Refusal> {
        self.append(60)
    }
    fn append_dedup(&mut self, _shard: ShardId, _body: &[u8]) -> Result<Appended, Refusal> {
        Err(Refusal::Full)
    }
    fn entry_removed(&mut self, _pos: Pos, _len: u32) {}
    fn entry_live(&mut self, _pos: Pos, _len: u32) {}
    fn entry_dead(&mut self, _pos: Pos, _tomb: Pos) {}
    fn entry_repeated(&mut self, _kept: Pos, _other: Pos) {}
    fn accepted(&mut self, _conn: ConnId, _seq: u32, _copies: u8) {}
    fn rejected(&mut self, _conn: ConnId, seq: u32, code: RejectCode, _retry_after_ms: u32) {
        panic!("SEND {seq} was refused: {code:?}");
    }
    fn welcome(&mut self, conn: ConnId, waiting: u32, session: u64) {
        self.welcomed.push((conn, waiting, session));
        self.tell(conn, &ToEdge::Welcome { conn, waiting, session });
    }
    fn kick(&mut self, conn: ConnId, reason: KickReason) {
        self.kicked.push((conn, reason));
        let code = match reason {
            KickReason::Replaced => Code::Replaced,
            KickReason::BadAck => Code::BadAck,
            KickReason::SecondLogin => Code::OutOfOrder,
            KickReason::BadLogin | KickReason::NumbersUsedUp => Code::Unavailable,
        };
        self.tell(conn, &ToEdge::Kick { conn, code });
    }
    fn deliver(&mut self, delivery: &Delivery) {
        let message = self.messages[&delivery.dot.seq];
        self.delivered.push((delivery.conn, delivery.no, message));
        let id = MsgId(message as u128);
        let head = MessageHead { no: delivery.no, id, time_ms: NOW_MS, flags: 0, from: "s" };
        let mut bytes = Vec::new();
        ToEdge::encode_frame(delivery.conn, &mut bytes, |out| head.encode(&[message as u8], out));
        self.told.push((delivery.conn, bytes));
    }
    fn receipt(&mut self, _receipt: &Receipt<'_>) {}
    fn presence(&mut self, _presence: &Presence<'_>) {}
}

/// What a router says.
#[derive(Default)]
pub(crate) struct EdgeSide {
    pub(crate) up: Vec<u8>,
    pub(crate) told: Vec<u8>,
}

impl edge::Effects for EdgeSide {
    fn to_core(&mut self, _core: usize, _partition: u16) -> &mut Vec<u8> {
        &mut self.up
    }
    fn backlog_bytes(&self, _core: usize, _partition: u16) -> usize {
        0
    }
    fn to_client(&mut self, frame: &ToEdge<'_>) {
        frame.encode(&mut self.told);
    }
}

/// An edge, its link, and what is under way on it.
pub(crate) struct Edge {
    pub(crate) router: Router,
    pub(crate) side: EdgeSide,
    pub(crate) up: VecDeque<Vec<u8>>,
    pub(crate) down: VecDeque<Vec<u8>>,
    /// Which link it is: the core gives each one numbers of its own.
    pub(crate) link: u16,
    pub(crate) is_up: bool,
    /// The core has not noticed yet that the link before this one is lost.
    pub(crate) unnoticed: bool,
    pub(crate) ejected: bool,
    /// How much has come to it: also its clock.
    pub(crate) events: u64,
    pub(crate) history: u64,
}

impl Edge {
    pub(crate) fn range(&self, index: usize) -> ReactorRange {
        ReactorRange { first: 1 + 10 * index as u16 + self.link, count: 1 }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        1000 + 200 * self.events
    }
}

/// A session, as its edge and its client know it.
pub(crate) struct Client {
    pub(crate) edge: usize,
    pub(crate) conn: ConnId,
    pub(crate) session: Session,
    pub(crate) is_in: bool,
    pub(crate) is_welcome: bool,
    /// How it ended.
    pub(crate) end: Option<End>,
    /// Messages that it got, by its numbers from 1.
    pub(crate) got: Vec<usize>,
    pub(crate) acked: usize,
}

impl Client {
    pub(crate) fn is_open(&self) -> bool {
        self.is_in && self.end.is_none()
    }
}

/// All of it.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) flaw: Flaw,
    pub(crate) core: Core,
    pub(crate) side: CoreSide,
    pub(crate) edges: Vec<Edge>,
    pub(crate) clients: Vec<Client>,
    pub(crate) model: Model,
    pub(crate) coming: usize,
    pub(crate) losses: u8,
    pub(crate) core_history: u64,
    /// What was seen on the way, by name.
    pub(crate) seen: Vec<&'static str>,
}

/// What is wrong, if something is.
pub(crate) type Checked = Result<(), String>;

macro_rules! check {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}
pub(crate) use check;

fn mix(history: u64, what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (history, what).hash(&mut hasher);
    hasher.finish()
}

impl World {
    pub(crate) fn new(scenario: &Scenario, flaw: Flaw) -> Self {
        let origin = Origin { node: 1, incarnation: 1 };
        let mut core = Core::new(CoreConfig::new(origin, 1, 7));
        let mut side = CoreSide::default();
        core.recovery_done(&mut side, NOW_MS);
        let count = scenario.sessions.iter().max().map_or(0, |last| last + 1);
        let edges = (0..count).map(|_| {
            let mut router = Router::new(RouterConfig::new(0, 1, vec![1]));
            let mut side = EdgeSide::default();
            router.core_up(0, 1, &ShardRanges::all(1));
            router.core_state(0, 0, 0, PartitionState::Serving);
            router.poll(&mut side, 0);
            assert!(router.core_of(ShardId(0)).is_some(), "the edge has a core");
            Edge {
                router,
                side,
                up: VecDeque::new(),
                down: VecDeque::new(),
                link: 0,
                is_up: true,
                unnoticed: false,
                ejected: false,
                events: 0,
                history: 0,
            }
        });
        let clients = scenario.sessions.iter().enumerate().map(|(slot, edge)| Client {
            edge: *edge,
            conn: ConnId::new(0, slot as u32, 0),
            session: Session::new(0),
            is_in: false,
            is_welcome: false,
            end: None,
            got: Vec::new(),
            acked: 0,
        });
        let (edges, clients) = (edges.collect(), clients.collect());
        let mut world = Self {
            scenario: *scenario,
            flaw,
            core,
            side,
            edges,
            clients,
            model: Model::default(),
            coming: scenario.coming,
            losses: scenario.losses,
            core_history: 0,
            seen: Vec::new(),
        };
        for _ in 0..scenario.waiting {
            world.send();
        }
        world.sync();
        world
    }

    /// What may happen now.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let next = self.clients.iter().position(|client| !client.is_in);
        steps.extend(next.map(Step::Login));
        for (index, client) in self.clients.iter().enumerate().filter(|(_, c)| c.is_open()) {
            if client.got.len() > client.acked {
                steps.push(Step::Ack(index));
            }
            if self.scenario.leave.contains(&index) {
                steps.push(Step::Leave(index));
            }
        }
        for (index, edge) in self.edges.iter().enumerate() {
            let is_first = index == 0;
            if edge.is_up && !edge.unnoticed && !edge.up.is_empty() {
                steps.push(Step::Up(index));
            }
            if edge.is_up && !edge.down.is_empty() {
                steps.push(Step::Down(index));
            }
            if is_first && edge.is_up && self.losses > 0 {
                steps.push(Step::Lost);
            }
            if is_first && edge.unnoticed {
                steps.push(Step::Noticed);
            }
            if is_first && !edge.is_up {
                steps.push(Step::Back);
            }
            let all_in = self.clients.iter().all(|client| client.is_in);
            if self.scenario.ejects && !edge.ejected && all_in {
                steps.push(Step::Eject(index));
            }
        }
        if self.side.lsn > self.side.durable {
            steps.push(Step::Sync);
        }
        if self.coming > 0 {
            steps.push(Step::Send);
        }
        steps
    }

    /// What has come to the core and to each edge once a step is taken.
    fn histories_after(&self, step: Step) -> (u64, Vec<u64>) {
        let mut core = self.core_history;
        let mut edges: Vec<u64> = self.edges.iter().map(|edge| edge.history).collect();
        match step {
            Step::Login(of) | Step::Ack(of) | Step::Leave(of) => {
                let edge = self.clients[of].edge;
                edges[edge] = mix(edges[edge], &step);
            }
            Step::Up(edge) => core = mix(core, &(step, &self.edges[edge].up[0])),
            Step::Down(edge) => edges[edge] = mix(edges[edge], &(step, &self.edges[edge].down[0])),
            Step::Sync | Step::Send | Step::Noticed => core = mix(core, &step),
            Step::Lost | Step::Back => edges[0] = mix(edges[0], &step),
            Step::Eject(edge) => edges[edge] = mix(edges[edge], &step),
        }
        (core, edges)
    }

    /// The state that a step leads to, without taking it.
    pub(crate) fn key_after(&self, step: Step) -> u128 {
        let (core, edges) = self.histories_after(step);
        u128::from(core) << 64 | u128::from(mix(0, &edges))
    }

    /// Takes a step, and checks what must hold after it.
    pub(crate) fn take(&mut self, step: Step) -> Checked {
        let (core, edges) = self.histories_after(step);
        match step {
            Step::Login(index) => self.login(index),
            Step::Ack(index) => self.ack(index),
            Step::Leave(index) => self.leave(index, End::Left),
            Step::Up(edge) => self.up(edge)?,
            Step::Down(edge) => self.down(edge)?,
            Step::Sync => self.sync(),
            Step::Send => {
                self.coming -= 1;
                self.send();
            }
            Step::Lost => self.lose_link(),
            Step::Noticed => self.notice(),
            Step::Back => self.come_back(),
            Step::Eject(edge) => self.eject(edge),
        }
        self.core_history = core;
        for (edge, history) in self.edges.iter_mut().zip(edges) {
            edge.events += u64::from(edge.history != history);
            edge.history = history;
        }
        self.follow_core()?;
        self.follow_edges()
    }
}
