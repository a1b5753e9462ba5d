//! One run: a millisecond after the other, until what must be true is not, or everything is well.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use iris_proto::id::{MsgId, Origin, ShardId, shard_for_user};
use iris_proto::replica::{Mode, Now};
use iris_proto::sabotage::{self, Sabotage};
use iris_wal::disk::mem::{Image, MemDisk};

use crate::clients::Clients;
use crate::edges::{BEHIND, Edges};
use crate::faults::Kind;
use crate::inject::Ongoing;
use crate::model::{Broken, Model};
use crate::net::Net;
use crate::node::{End, Life, SHARDS};
use crate::options::{Options, Outcome};
use crate::random::Random;
use crate::wire;

/// When runs begin, Unix milliseconds.
pub(crate) const T0: u64 = 1_800_000_000_000;
/// Milliseconds after which a node that cannot read goes away, when nothing goes wrong any more.
const UNREAD_MS: u64 = 500;
/// How long it stays away: the users behind edges are at the other one by then, and have read.
const AWAY_MS: u64 = 300;
/// Users who reach the cores directly; those behind edges come after them.
pub(crate) const USERS: usize = 6;

/// A machine: a disk, a clock, and perhaps a process.
pub(crate) struct Machine {
    pub(crate) node: u32,
    pub(crate) disk: MemDisk,
    /// The incarnation of the last life; it lies on the disk.
    pub(crate) incarnation: u32,
    pub(crate) life: Option<Life>,
    pub(crate) restart_ms: u64,
    pub(crate) clock_ms: i64,
    pub(crate) write_ms: (u64, u64),
    pub(crate) draining: bool,
    /// The disk refuses to read.
    pub(crate) reads_fail: bool,
    /// What the disk will come back as.
    pub(crate) image: Option<(Image, u32)>,
    /// What was dropped in earlier lives.
    pub(crate) dropped: u64,
    /// Entries that collapsed in earlier lives.
    pub(crate) collapsed: u64,
}

/// A run under way.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) now_ms: u64,
    pub(crate) nodes: [Machine; 2],
    pub(crate) net: Net,
    pub(crate) clients: Clients,
    /// Edges, if the run has any; not here while they have their turn.
    pub(crate) edges: Option<Edges>,
    pub(crate) model: Model,
    /// The kinds of faults of this run.
    pub(crate) kinds: Vec<Kind>,
    /// The node whose disk may be spoiled for good.
    pub(crate) victim: usize,
    pub(crate) faults: Vec<Ongoing>,
    pub(crate) next_fault_ms: u64,
    pub(crate) counts: BTreeMap<Kind, u64>,
    /// Nodes that could not read for clients behind edges since nothing goes wrong any more.
    pub(crate) unread: [bool; 2],
    /// The node that clients cannot reach.
    pub(crate) edge_cut: Option<usize>,
    /// Until when clients repeat and mix up what they send.
    pub(crate) resend_until_ms: u64,
    pub(crate) outcome: Outcome,
    pub(crate) digest: DefaultHasher,
    pub(crate) next_id: u128,
    /// Whether clients begin new messages.
    pub(crate) is_sending: bool,
    /// Whether clients log in and acknowledge.
    pub(crate) is_reading: bool,
    /// The last lines of the trace.
    told: RefCell<VecDeque<String>>,
}

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// The seed that this thread runs, or ran last.
pub fn current_seed() -> u64 {
    SEED.get()
}

/// Runs a seed.
pub fn run(options: &Options) -> Outcome {
    SEED.set(options.seed);
    #[cfg(feature = "sabotage")]
    sabotage::set(options.sabotage);
    let mut world = World::new(options.clone());
    // An assertion of the machines under test is something that is not true, as any other.
    let went = catch_unwind(AssertUnwindSafe(|| world.go()));
    let broken = went.unwrap_or_else(|panic| Err(words_of(panic.as_ref()))).err();
    world.end(broken)
}

fn words_of(panic: &(dyn Any + Send)) -> Broken {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without words"))
}

impl World {
    fn new(options: Options) -> Self {
        let machine = |node| Machine {
            node,
            disk: MemDisk::default(),
            incarnation: 0,
            life: None,
            restart_ms: 0,
            clock_ms: 0,
            write_ms: (0, 2),
            draining: false,
            reads_fail: false,
            image: None,
            dropped: 0,
            collapsed: 0,
        };
        let mut random = Random::new(options.seed);
        let kinds = kinds_of(&options, &mut random);
        let users = USERS + if options.edges { BEHIND } else { 0 };
        let clients = Clients::new(users);
        let keys = clients.keys.iter().map(|key| key.0).collect();
        Self {
            victim: random.below(2) as usize,
            random,
            kinds,
            now_ms: 0,
            nodes: [machine(1), machine(2)],
            net: Net::new(),
            clients,
            edges: options.edges.then(|| Edges::new(&options, USERS..users)),
            model: Model::new(keys, options.drop_above.is_some()),
            faults: Vec::new(),
            next_fault_ms: 200,
            counts: BTreeMap::new(),
            unread: [false; 2],
            edge_cut: None,
            resend_until_ms: 0,
            told: RefCell::default(),
            outcome: Outcome::default(),
            digest: DefaultHasher::new(),
            next_id: 1,
            is_sending: true,
            is_reading: true,
            options,
        }
    }

    pub(crate) fn now(&self, node: usize) -> Now {
        let unix_ms = (T0 + self.now_ms).saturating_add_signed(self.nodes[node].clock_ms);
        Now { unix_ms, mono_ms: self.now_ms }
    }

    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.options.trace == 0 {
            return;
        }
        let mut told = self.told.borrow_mut();
        if told.len() == self.options.trace {
            told.pop_front();
        }
        told.push_back(format!("{:>6} {}", self.now_ms, what()));
    }

    fn go(&mut self) -> Result<(), Broken> {
        while self.now_ms < self.options.fault_ms {
            self.fault_some()?;
            self.with_edges(Self::fault_edges)?;
            self.tick()?;
        }
        self.end_faults()?;
        self.is_sending = false;
        let calm = self.now_ms + self.options.calm_ms;
        let mut quiet = 0;
        while quiet < 60 {
            // Who reads changes inboxes: nobody does while they are compared.
            self.is_reading = quiet == 0;
            if self.now_ms >= calm {
                return Err(self.what_is_stuck());
            }
            self.tick()?;
            quiet = if self.is_well() { quiet + 1 } else { 0 };
        }
        let inboxes = [self.inboxes(0)?, self.inboxes(1)?];
        self.model.settled(&inboxes)?;
        self.compare_streams()?;
        self.send_all_again()?;
        self.is_reading = true;
        self.read_everything()
    }

    /// Both nodes are in NORMAL, and nobody waits for an answer.
    fn is_well(&self) -> bool {
        let is_normal = |node: usize| {
            let life = self.nodes[node].life.as_ref();
            life.is_some_and(|life| life.mode(self.now(node)) == Mode::Normal)
        };
        let is_answered = self.clients.open.iter().all(Vec::is_empty);
        let is_quiet = self.edges.as_ref().is_none_or(Edges::is_quiet);
        is_normal(0) && is_normal(1) && is_answered && is_quiet
    }

    fn what_is_stuck(&self) -> Broken {
        let status = |node: usize| {
            let life = self.nodes[node].life.as_ref();
            life.map(|life| life.replica.status(self.now(node)))
        };
        let open: usize = self.clients.open.iter().map(Vec::len).sum();
        format!("no progress: {open} messages unanswered, {:?}, {:?}", status(0), status(1))
    }

    fn inboxes(&mut self, node: usize) -> Result<Vec<Vec<MsgId>>, Broken> {
        let life = self.nodes[node].life.as_ref().ok_or("a node is down in calm times")?;
        let mut inboxes = Vec::new();
        for key in &self.clients.keys {
            let shard = shard_for_user(*key, SHARDS).0;
            let ids = life.core.inbox(*key).map(|(dot, _)| self.model.id_of((shard, dot)));
            inboxes.push(ids.collect::<Option<_>>().ok_or("an inbox holds what nobody sent")?);
        }
        Ok(inboxes)
    }

    /// Both nodes know the same records.
    fn compare_streams(&self) -> Result<(), Broken> {
        let of = |node: usize| {
            let life = self.nodes[node].life.as_ref();
            life.map(|life| life.replica.streams().collect::<Vec<Stream>>()).unwrap_or_default()
        };
        let mut both = [of(0), of(1)];
        both.iter_mut().for_each(|streams| streams.sort());
        if self.outcome.fenced > 0 {
            return Err(format!("{} streams are fenced", self.outcome.fenced));
        }
        let [a, b] = &both;
        let differ = |a: &Stream, b: &Stream| {
            let chains = a.3.zip(b.3);
            (a.0, a.1, a.2) != (b.0, b.1, b.2) || chains.is_some_and(|(a, b)| a != b)
        };
        match a.iter().zip(b).find(|(a, b)| differ(a, b)) {
            _ if a.len() != b.len() => Err(format!("streams differ: {a:?} {b:?}")),
            Some((a, b)) => Err(format!("a stream differs: {a:?} {b:?}")),
            None => Ok(()),
        }
    }

    /// Both nodes know each message that was accepted: sent again, it is in already.
    fn send_all_again(&mut self) -> Result<(), Broken> {
        for id in self.model.accepted_ids() {
            let sent = self.model.sent(id).clone();
            for node in 0..2 {
                let now = self.now(node);
                self.clients.connect(sent.from, node, u64::MAX);
                let Some(life) = &mut self.nodes[node].life else { continue };
                let what = (&sent.to[..], &sent.text[..]);
                if self.clients.send(life, now.unix_ms, (sent.from, id), what).is_some() {
                    return Err(format!("node {} takes {id:?} again as new", node + 1));
                }
            }
        }
        (0..self.clients.keys.len()).for_each(|user| self.clients.disconnect(user));
        Ok(())
    }

    /// Everybody reads what waits for them, and acknowledges it.
    fn read_everything(&mut self) -> Result<(), Broken> {
        let from_ms = self.now_ms;
        self.unread = [false; 2];
        while !self.all_read() {
            let so_far_ms = self.now_ms - from_ms;
            if so_far_ms >= self.options.calm_ms {
                return Err("inboxes are not read to their end".to_owned());
            }
            // Edges ask the core that a shard prefers, again and again. One that cannot read what it holds goes away for a
            // while, as an operator would have it, so that the other one is asked.
            if so_far_ms % UNREAD_MS == UNREAD_MS - 1
                && let Some(node) = self.unread.iter().position(|unread| *unread)
            {
                self.unread[node] = false;
                self.trace(|| format!("node {} goes away: it cannot read", node + 1));
                self.stop(node, Kind::Kill, AWAY_MS)?;
            }
            self.tick()?;
        }
        self.edges.as_ref().map_or(Ok(()), Edges::check_rest)?;
        (self.outcome.received, self.outcome.excused) = self.model.all_received()?;
        self.outcome.displaced = self.model.displaced();
        Ok(())
    }

    fn all_read(&self) -> bool {
        let empty = |node: usize| {
            let life = self.nodes[node].life.as_ref();
            let mut keys = self.clients.keys.iter();
            // What a session that was left behind has in flight is counted until it ends, though the other node removed it.
            life.is_some_and(|life| keys.all(|key| life.core.inbox(*key).next().is_none()))
        };
        empty(0) && empty(1)
    }

    fn end(mut self, broken: Option<Broken>) -> Outcome {
        for machine in &mut self.nodes {
            let here = machine.life.as_ref().map_or(0, |life| life.dropped);
            self.outcome.dropped += machine.dropped + here;
            let here = machine.life.as_ref().map_or(0, |life| life.core.counters().collapsed);
            self.outcome.collapsed += machine.collapsed + here;
        }
        for counters in self.edges.iter().flat_map(Edges::counters) {
            self.outcome.count_edge(counters);
        }
        self.outcome.at_ms = self.now_ms;
        self.outcome.broken = broken;
        self.outcome.accepted = self.model.accepted;
        self.outcome.accepted_alone = self.model.alone;
        self.outcome.repeated = self.model.repeated;
        self.outcome.ordered = self.model.ordered;
        self.outcome.trace = self.told.take().into();
        self.outcome.faults = self.counts.into_iter().collect();
        self.outcome.digest = self.digest.finish();
        self.outcome
    }

    // One millisecond.

    fn tick(&mut self) -> Result<(), Broken> {
        self.now_ms += 1;
        self.start_nodes()?;
        self.move_link();
        self.with_edges(Self::turn_links)?;
        let first = self.random.below(2) as usize;
        for node in [first, 1 - first] {
            self.turn(node)?;
        }
        self.use_clients();
        self.with_edges(Self::turn_edges)?;
        for node in [first, 1 - first] {
            self.hear(node)?;
        }
        self.model.check_records()
    }

    fn start_nodes(&mut self) -> Result<(), Broken> {
        for node in 0..2 {
            let machine = &self.nodes[node];
            let is_due = self.now_ms >= machine.restart_ms && !machine.reads_fail;
            if machine.life.is_none() && is_due {
                self.start(node)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, node: usize) -> Result<(), Broken> {
        let now = self.now(node);
        let seed = self.random.draw();
        let machine = &mut self.nodes[node];
        // A number that no life had before, also when an old disk is back: the time, if that is later.
        let next = (machine.incarnation + 1).max(self.now_ms as u32);
        let again =
            sabotage::is(Sabotage::IncarnationReused) || sabotage::is(Sabotage::DigestIgnored);
        machine.incarnation = if again { machine.incarnation.max(1) } else { next };
        let origin = Origin { node: machine.node, incarnation: machine.incarnation };
        self.model.node_starts(node);
        // What a crash left on the disk counts from now on, whether it was known to be synced or not.
        let model = &mut self.model;
        let mut keep = |meta: &iris_wal::Meta<'_>| model.found(node, meta);
        let drop_above = self.options.drop_above;
        match Life::start(&machine.disk, origin, now, (seed, drop_above), &mut keep) {
            Ok(life) => {
                machine.draining = false;
                machine.life = Some(life);
                self.trace(|| format!("node {} starts as {}", node + 1, origin.incarnation));
                Ok(())
            }
            Err(End::Disk(why)) => {
                machine.restart_ms = self.now_ms + 20;
                self.trace(|| format!("node {} cannot start: {why}", node + 1));
                Ok(())
            }
            Err(why) => Err(format!("node {} does not start: {why:?}", node + 1)),
        }
    }

    fn move_link(&mut self) {
        let ends = [self.net.at(0), self.net.at(1)];
        // The end that does not know that the other one closed learns it when it can.
        for end in 0..2 {
            let is_alone = ends[end].is_some() && ends[1 - end].is_none();
            if is_alone && !self.net.cut[end] {
                self.close_link(end, false);
            }
        }
        if self.nodes.iter().all(|machine| machine.life.is_some())
            && let Some(link) = self.net.connect(self.now_ms)
        {
            self.trace(|| format!("link {link} is up"));
            for node in 0..2 {
                let now = self.now(node);
                let Some(life) = &mut self.nodes[node].life else { continue };
                (life.fx.closed, life.fx.out) = (false, Vec::new());
                life.replica.link_up(&mut life.fx, &mut life.core, now, link);
            }
        }
        for node in 0..2 {
            while let Some(bytes) = self.net.arrive(node, self.now_ms) {
                let now = self.now(node);
                let (Some(life), Some(link)) = (&mut self.nodes[node].life, self.net.at(node))
                else {
                    break;
                };
                life.replica.handle_bytes(&mut life.fx, &mut life.core, now, link, &bytes);
            }
        }
    }

    /// This end of the link is closed; the other one hears of it if it can.
    pub(crate) fn close_link(&mut self, end: usize, is_process_gone: bool) {
        let links = [self.net.at(0), self.net.at(1)];
        let hears = self.net.close(end, self.now_ms);
        for (node, link) in links.into_iter().enumerate() {
            let (is_told, now) = (node == end || hears, self.now(node));
            let how = Net::how(is_process_gone && node != end);
            let Some(link) = link.filter(|_| is_told) else { continue };
            if let Some(life) = &mut self.nodes[node].life {
                life.replica.link_down(&mut life.fx, &mut life.core, now, link, how);
            }
        }
    }

    fn turn(&mut self, node: usize) -> Result<(), Broken> {
        let now = self.now(node);
        let (from, to) = self.nodes[node].write_ms;
        let write_ms = self.random.between(from, to);
        let Some(life) = &mut self.nodes[node].life else { return Ok(()) };
        let ended = life.turn(now, write_ms).err();
        let bytes = std::mem::take(&mut life.fx.out);
        if let Some((shard, dot)) = wire::claimed_unsynced(&bytes, &life.fx.unsynced) {
            return Err(format!("node {} claims {shard} {dot:?}, which is not synced", node + 1));
        }
        let closed = std::mem::take(&mut life.fx.closed);
        let me = life.origin.node;
        let durable: Vec<_> = life.durable.drain(..).collect();
        let destroyed = std::mem::take(&mut life.destroyed);
        for (records, lied) in durable {
            self.trace_records(node, &records, lied);
            self.model.durable(node, me, &records, lied);
        }
        self.model.destroyed(node, &destroyed);
        let (from, to) = self.net.delay_ms;
        let delay_ms = self.random.between(from, to);
        self.net.send(node, bytes, self.now_ms, delay_ms);
        if closed {
            self.close_link(node, false);
        }
        match ended {
            None => self.finish_drain(node)?,
            Some(End::Reincarnate(above)) => {
                self.trace(|| format!("node {} must start above {above}", node + 1));
                self.nodes[node].incarnation = self.nodes[node].incarnation.max(above);
                self.stop(node, Kind::Kill, 5)?;
            }
            Some(why) => {
                self.trace(|| format!("node {} stops: {why:?}", node + 1));
                self.stop(node, Kind::Crash, 20)?;
            }
        }
        Ok(())
    }

    fn finish_drain(&mut self, node: usize) -> Result<(), Broken> {
        let machine = &self.nodes[node];
        let is_over = machine.life.as_ref().is_some_and(|life| life.replica.is_drained());
        if machine.draining && is_over {
            self.trace(|| format!("node {} has drained", node + 1));
            // It stops when its last words are on their way.
            let restart = self.random.between(5, 60);
            self.stop(node, Kind::Kill, restart)?;
        }
        Ok(())
    }

    /// A process ends. With a crash, its disk loses what was not synced.
    pub(crate) fn stop(&mut self, node: usize, how: Kind, for_ms: u64) -> Result<(), Broken> {
        self.hear(node)?;
        let machine = &mut self.nodes[node];
        machine.restart_ms = self.now_ms + for_ms;
        let Some(life) = machine.life.take() else { return Ok(()) };
        machine.dropped += life.dropped;
        machine.collapsed += life.core.counters().collapsed;
        life.die(self.random.one_in(2));
        match how {
            Kind::Crash | Kind::CrashBoth => {
                let random = &mut self.random;
                machine.disk.crash(&mut |n| random.below(n as u64) as usize);
            }
            _ => machine.disk.kill(),
        }
        self.clients.node_is_gone(node);
        self.with_edges(|world, edges| world.lose_node(edges, node))?;
        self.close_link(node, true);
        Ok(())
    }
}

/// A stream as a replica knows it: shard, origin, up to where, and the digest there.
type Stream = (ShardId, Origin, u64, Option<u64>);

/// A run has some kinds of faults, not all: what is rare beside everything else must be frequent in some runs.
fn kinds_of(options: &Options, random: &mut Random) -> Vec<Kind> {
    if !options.kinds.is_empty() {
        return options.kinds.iter().copied().filter(|kind| !kind.is_of_edges()).collect();
    }
    let mut all = Kind::ALL.to_vec();
    let count = random.between(3, 12);
    let mut kinds = Vec::new();
    for _ in 0..count {
        kinds.push(all.swap_remove(random.below(all.len() as u64) as usize));
    }
    kinds
}
