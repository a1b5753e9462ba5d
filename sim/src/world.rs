//! One run: a millisecond after the other, until what must be true is not, or everything is well.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use iris_proto::core::Delivery;
use iris_proto::id::{MsgId, Origin};
use iris_proto::replica::{Event, Mode, Now};
use iris_wal::Body;
use iris_wal::disk::mem::MemDisk;

use crate::clients::{Clients, Open, Session};
use crate::faults::Kind;
use crate::model::{Broken, Model, User};
use crate::net::Net;
use crate::node::{End, Life, Said};
use crate::options::{Options, Outcome};
use crate::random::Random;

/// When runs begin, Unix milliseconds.
const T0: u64 = 1_800_000_000_000;
const USERS: usize = 6;
/// Messages of one user without an answer, at most.
const OPEN_MAX: usize = 3;

/// A machine: a disk, a clock, and perhaps a process.
struct Machine {
    node: u32,
    disk: MemDisk,
    /// The incarnation of the last life.
    incarnation: u32,
    life: Option<Life>,
    restart_ms: u64,
    clock_ms: i64,
    write_ms: (u64, u64),
    draining: bool,
    /// What was dropped in earlier lives.
    dropped: u64,
}

/// A fault that lasts.
struct Ongoing {
    kind: Kind,
    node: usize,
    until_ms: u64,
}

/// A run under way.
struct World {
    options: Options,
    random: Random,
    now_ms: u64,
    nodes: [Machine; 2],
    net: Net,
    clients: Clients,
    model: Model,
    faults: Vec<Ongoing>,
    next_fault_ms: u64,
    counts: BTreeMap<Kind, u64>,
    outcome: Outcome,
    digest: DefaultHasher,
    next_id: u128,
    /// Whether clients begin new messages.
    is_sending: bool,
    /// Whether clients log in and acknowledge.
    is_reading: bool,
}

/// Runs a seed.
pub fn run(options: &Options) -> Outcome {
    let mut world = World::new(options.clone());
    let broken = world.go().err();
    world.end(broken)
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
            dropped: 0,
        };
        let clients = Clients::new(USERS);
        let keys = clients.keys.iter().map(|key| key.0).collect();
        Self {
            random: Random::new(options.seed),
            now_ms: 0,
            nodes: [machine(1), machine(2)],
            net: Net::new(),
            clients,
            model: Model::new(keys),
            faults: Vec::new(),
            next_fault_ms: 200,
            counts: BTreeMap::new(),
            outcome: Outcome::default(),
            digest: DefaultHasher::new(),
            next_id: 1,
            is_sending: true,
            is_reading: true,
            options,
        }
    }

    fn now(&self, node: usize) -> Now {
        let unix_ms = (T0 + self.now_ms).saturating_add_signed(self.nodes[node].clock_ms);
        Now { unix_ms, mono_ms: self.now_ms }
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.options.trace {
            println!("{:>6} {}", self.now_ms, what());
        }
    }

    fn go(&mut self) -> Result<(), Broken> {
        while self.now_ms < self.options.fault_ms {
            self.fault_some();
            self.tick()?;
        }
        self.end_faults();
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
        self.is_reading = true;
        self.read_everything()
    }

    /// Both nodes are in NORMAL, and nobody waits for an answer.
    fn is_well(&self) -> bool {
        let is_normal = |node: usize| {
            let life = self.nodes[node].life.as_ref();
            life.is_some_and(|life| life.mode(self.now(node)) == Mode::Normal)
        };
        is_normal(0) && is_normal(1) && self.clients.open.iter().all(Vec::is_empty)
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
        let keys = self.clients.keys.clone();
        let life = self.nodes[node].life.as_mut().ok_or("a node is down in calm times")?;
        let mut inboxes = Vec::new();
        for key in keys {
            let entries: Vec<_> = life.core.inbox(key).map(|(_, pos)| pos).collect();
            let mut ids = Vec::new();
            for pos in entries {
                ids.push(life.id_at(pos).ok_or("an inbox entry cannot be read")?);
            }
            inboxes.push(ids);
        }
        Ok(inboxes)
    }

    /// Everybody reads what waits for them, and acknowledges it.
    fn read_everything(&mut self) -> Result<(), Broken> {
        let calm = self.now_ms + self.options.calm_ms;
        while !self.all_read() {
            if self.now_ms >= calm {
                return Err("inboxes are not read to their end".to_owned());
            }
            self.tick()?;
        }
        self.outcome.received = self.model.all_received()?;
        Ok(())
    }

    fn all_read(&self) -> bool {
        let empty = |node: usize| {
            let life = self.nodes[node].life.as_ref();
            let mut keys = self.clients.keys.iter();
            life.is_some_and(|life| keys.all(|key| life.core.waiting(*key) == 0))
        };
        empty(0) && empty(1)
    }

    fn end(mut self, broken: Option<Broken>) -> Outcome {
        for machine in &mut self.nodes {
            let here = machine.life.as_ref().map_or(0, |life| life.dropped);
            self.outcome.dropped += machine.dropped + here;
            if let Some(life) = &machine.life {
                self.outcome.collapsed += life.core.counters().collapsed;
            }
        }
        self.outcome.at_ms = self.now_ms;
        self.outcome.broken = broken;
        self.outcome.accepted = self.model.accepted;
        self.outcome.accepted_alone = self.model.alone;
        self.outcome.repeated = self.model.repeated;
        self.outcome.excused = self.model.excused;
        self.outcome.faults = self.counts.into_iter().collect();
        self.outcome.digest = self.digest.finish();
        self.outcome
    }

    // One millisecond.

    fn tick(&mut self) -> Result<(), Broken> {
        self.now_ms += 1;
        self.start_nodes()?;
        self.move_link();
        let first = self.random.below(2) as usize;
        for node in [first, 1 - first] {
            self.turn(node)?;
        }
        self.use_clients();
        for node in [first, 1 - first] {
            self.hear(node)?;
        }
        Ok(())
    }

    fn start_nodes(&mut self) -> Result<(), Broken> {
        for node in 0..2 {
            if self.nodes[node].life.is_none() && self.now_ms >= self.nodes[node].restart_ms {
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
        machine.incarnation = (machine.incarnation + 1).max(self.now_ms as u32);
        let origin = Origin { node: machine.node, incarnation: machine.incarnation };
        self.model.node_starts(node);
        // What a crash left on the disk counts from now on, whether it was known to be synced or not.
        let model = &mut self.model;
        let mut keep = |meta: &iris_wal::Meta<'_>| model.found(node, meta);
        match Life::start(&machine.disk, origin, now, seed, &mut keep) {
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
    fn close_link(&mut self, end: usize, is_process_gone: bool) {
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
        let closed = std::mem::take(&mut life.fx.closed);
        let me = life.origin.node;
        let durable: Vec<_> = life.durable.drain(..).collect();
        for records in durable {
            if self.options.trace {
                self.trace_records(node, &records);
            }
            self.model.durable(node, me, &records);
        }
        let (from, to) = self.net.delay_ms;
        let delay_ms = self.random.between(from, to);
        self.net.send(node, bytes, self.now_ms, delay_ms);
        if closed {
            self.close_link(node, false);
        }
        match ended {
            None => self.finish_drain(node),
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

    fn trace_records(&self, node: usize, mut records: &[u8]) {
        while let Ok((record, len)) = iris_wal::record::decode(records) {
            records = &records[len..];
            let iris_wal::Dot { origin, seq } = record.head.dot();
            let dot = format!("{}/{}/{}:{seq}", record.head.shard, origin.node, origin.incarnation);
            let user = |key: &[u8]| self.clients.keys.iter().position(|of| of.0 == *key);
            let what = match record.body {
                Body::Msg(msg) => {
                    let to: Vec<_> = msg.recipients.chunks(16).filter_map(user).collect();
                    let copy = if msg.copy { " copy" } else { "" };
                    format!("MSG{copy} {:?} to {to:?}", MsgId(msg.msg_id))
                }
                Body::Tomb(tomb) => {
                    let of = |dot: iris_wal::Dot| {
                        format!("{}/{}:{}", dot.origin.node, dot.origin.incarnation, dot.seq)
                    };
                    let of: Vec<String> = tomb.targets.dots().map(of).collect();
                    format!("TOMB {} {:?} of {of:?}", tomb.reason.name(), user(&tomb.inbox))
                }
                Body::Epoch(epoch) => format!("EPOCH {} {}", epoch.state, epoch.state_id),
                Body::Mark(mark) => format!("MARK {} bytes", mark.vv.len()),
                Body::Dedup(body) => format!("DEDUP {} bytes", body.len()),
                Body::Checkpoint(_) => "CHECKPOINT".to_owned(),
            };
            self.trace(|| format!("node {} syncs {dot} {what}", node + 1));
        }
    }

    fn finish_drain(&mut self, node: usize) {
        let machine = &self.nodes[node];
        let is_over = machine.life.as_ref().is_some_and(|life| life.replica.is_drained());
        if machine.draining && is_over {
            self.trace(|| format!("node {} has drained", node + 1));
            // It stops when its last words are on their way.
            let restart = self.random.between(5, 60);
            self.stop(node, Kind::Kill, restart).expect("nothing was said since");
        }
    }

    /// A process ends. With a crash, its disk loses what was not synced.
    fn stop(&mut self, node: usize, how: Kind, for_ms: u64) -> Result<(), Broken> {
        self.hear(node)?;
        let machine = &mut self.nodes[node];
        machine.restart_ms = self.now_ms + for_ms;
        let Some(life) = machine.life.take() else { return Ok(()) };
        machine.dropped += life.dropped;
        life.die(self.random.one_in(2));
        match how {
            Kind::Crash | Kind::CrashBoth => {
                let random = &mut self.random;
                machine.disk.crash(&mut |n| random.below(n as u64) as usize);
            }
            _ => machine.disk.kill(),
        }
        self.clients.node_is_gone(node);
        self.close_link(node, true);
        Ok(())
    }

    // Clients.

    fn use_clients(&mut self) {
        for user in 0..USERS {
            if self.is_sending && self.random.one_in(8) {
                self.begin_message(user);
            }
            self.try_messages(user);
            if self.is_reading {
                self.read(user);
            }
            if self.is_sending && self.random.one_in(150) {
                self.clients.lose_answers(user);
            }
        }
    }

    fn begin_message(&mut self, user: User) {
        if self.clients.open[user].len() >= OPEN_MAX {
            return;
        }
        let first = self.random.below(USERS as u64) as User;
        let mut to = vec![first];
        if self.random.one_in(4) {
            to = self.clients.same_shard(first);
        }
        let id = MsgId::v7(T0 + self.now_ms, self.next_id);
        self.next_id += 1;
        let len = if self.random.one_in(10) { 2000 } else { 40 };
        let mut text = vec![self.random.draw() as u8; self.random.below(len) as usize];
        text.extend_from_slice(&id.0.to_be_bytes());
        self.model.begin(id, user, to, text);
        let node = self.preferred(user);
        self.clients.open[user].push(Open { id, node, at_ms: self.now_ms });
    }

    /// Most users agree on a node most of the time.
    fn preferred(&mut self, user: User) -> usize {
        if self.random.one_in(6) { self.random.below(2) as usize } else { user % 2 }
    }

    fn try_messages(&mut self, user: User) {
        for index in 0..self.clients.open[user].len() {
            let Open { id, node, at_ms } = self.clients.open[user][index].clone();
            if at_ms > self.now_ms {
                continue;
            }
            let sent = self.model.sent(id).clone();
            let now = self.now(node);
            let open = &mut self.clients.open[user][index];
            // The next try goes to either node, with the same id.
            open.at_ms = self.now_ms + self.random.between(4, 60);
            open.node = if self.random.one_in(2) { 1 - node } else { node };
            let Some(life) = &mut self.nodes[node].life else {
                self.clients.open[user][index].at_ms = self.now_ms + 3;
                continue;
            };
            let times = if self.random.one_in(12) { 2 } else { 1 };
            for _ in 0..times {
                let what = (&sent.to[..], &sent.text[..]);
                self.clients.send(life, now.unix_ms, node, (user, id), what);
            }
        }
    }

    fn read(&mut self, user: User) {
        match &self.clients.sessions[user] {
            None => {
                let chance = if self.is_sending { 30 } else { 5 };
                if self.random.one_in(chance) {
                    self.log_in(user);
                }
            }
            Some(session) => {
                let (node, behind) = (session.node, session.got > session.acked);
                if behind && self.random.one_in(10) {
                    self.acknowledge(user);
                } else if self.is_sending && self.random.one_in(120) {
                    self.log_out(user, node);
                }
            }
        }
    }

    fn log_in(&mut self, user: User) {
        let node = self.random.below(2) as usize;
        let now = self.now(node);
        let Some(life) = &mut self.nodes[node].life else { return };
        if !life.replica.serves() {
            return;
        }
        let (conn, _) = self.clients.connection();
        let (key, name) = (self.clients.keys[user], self.clients.names[user].clone());
        let window = 1 + self.random.below(20) as u32;
        life.core.handle_login(&mut life.fx, now.unix_ms, conn, key, &name, window);
        let session = Session { node, conn, got: 0, acked: 0, last: BTreeMap::new() };
        self.clients.sessions[user] = Some(session);
    }

    fn log_out(&mut self, user: User, node: usize) {
        let now = self.now(node);
        let Some(session) = self.clients.sessions[user].take() else { return };
        if let Some(life) = &mut self.nodes[node].life {
            let key = self.clients.keys[user];
            life.core.handle_logout(&mut life.fx, now.unix_ms, session.conn, key);
        }
    }

    fn acknowledge(&mut self, user: User) {
        let key = self.clients.keys[user];
        let Some(session) = &mut self.clients.sessions[user] else { return };
        let upto =
            session.acked + 1 + self.random.below(u64::from(session.got - session.acked)) as u32;
        (session.acked, _) = (upto, ());
        let (node, conn) = (session.node, session.conn);
        let now = self.now(node);
        if let Some(life) = &mut self.nodes[node].life {
            life.core.handle_ack(&mut life.fx, now.unix_ms, conn, key, upto);
        }
    }

    // What nodes say.

    fn hear(&mut self, node: usize) -> Result<(), Broken> {
        let Some(life) = &mut self.nodes[node].life else { return Ok(()) };
        for said in std::mem::take(&mut life.fx.said) {
            let told = (self.now_ms, node, format!("{said:?}"));
            told.hash(&mut self.digest);
            match said {
                Said::Accepted { seq, copies, .. } => {
                    let Some((user, id, _)) = self.clients.answered(seq) else { continue };
                    self.model.accepted(node, id, copies)?;
                    self.trace(|| format!("node {} accepts {id:?}, {copies} copies", node + 1));
                    self.clients.close(user, id);
                }
                Said::Rejected { seq, code, .. } => {
                    let Some((user, id, _)) = self.clients.answered(seq) else { continue };
                    if Clients::is_final(code) {
                        self.clients.close(user, id);
                    }
                }
                Said::Welcome { .. } => {}
                Said::Kick { conn } => {
                    if let Some(user) = self.clients.reader(node, conn) {
                        self.clients.sessions[user] = None;
                    }
                }
                Said::Deliver(delivery) => self.deliver(node, &delivery)?,
                Said::Event(event) => self.note(node, &event),
            }
        }
        Ok(())
    }

    fn deliver(&mut self, node: usize, delivery: &Delivery) -> Result<(), Broken> {
        let Some(user) = self.clients.reader(node, delivery.conn) else { return Ok(()) };
        let life = self.nodes[node].life.as_mut().expect("it has just spoken");
        let bytes = life.record_at(delivery.pos, delivery.len);
        let bytes =
            bytes.ok_or_else(|| format!("node {} cannot read what it delivers", node + 1))?;
        let record = iris_wal::record::decode(&bytes).map_err(|error| error.to_string())?.0;
        let Body::Msg(msg) = record.body else {
            return Err("something else than a message is delivered".to_owned());
        };
        let id = MsgId(msg.msg_id);
        self.trace(|| format!("node {} delivers {id:?} to user {user}", node + 1));
        self.model.delivered(node, user, id, msg.payload)?;
        let session = self.clients.sessions[user].as_mut().expect("the reader has a session");
        session.got += 1;
        if session.got != delivery.no {
            return Err(format!(
                "delivery {} to user {user} is numbered {}",
                session.got, delivery.no
            ));
        }
        Ok(())
    }

    fn note(&mut self, node: usize, event: &Event) {
        self.trace(|| format!("node {}: {event:?}", node + 1));
        match event {
            Event::Mode { .. } => self.outcome.mode_changes += 1,
            Event::Split { .. } => self.outcome.splits += 1,
            Event::Lost { records, .. } => self.outcome.lost_reported += records,
            Event::Fenced { .. } => self.outcome.fenced += 1,
            Event::Closed(_)
            | Event::RefusedByPeer(_)
            | Event::PeerClockAhead(_)
            | Event::Healed
            | Event::Repaired
            | Event::PeerDrains
            | Event::Drained => {}
        }
    }

    // Faults.

    fn fault_some(&mut self) {
        let now_ms = self.now_ms;
        let over: Vec<Ongoing> = self.faults.extract_if(.., |of| of.until_ms <= now_ms).collect();
        over.iter().for_each(|fault| self.end_fault(fault));
        if self.now_ms < self.next_fault_ms {
            return;
        }
        self.next_fault_ms = self.now_ms + self.random.between(30, 250);
        let kinds = match self.options.kinds.is_empty() {
            true => Kind::ALL.to_vec(),
            false => self.options.kinds.clone(),
        };
        let kind = kinds[self.random.below(kinds.len() as u64) as usize];
        let node = self.random.below(2) as usize;
        let until_ms = self.now_ms + self.random.between(5, 200);
        self.trace(|| format!("fault {kind:?} at node {} until {until_ms}", node + 1));
        *self.counts.entry(kind).or_default() += 1;
        self.begin_fault(&Ongoing { kind, node, until_ms });
        self.faults.push(Ongoing { kind, node, until_ms });
    }

    fn begin_fault(&mut self, fault: &Ongoing) {
        let Ongoing { kind, node, until_ms } = *fault;
        let for_ms = until_ms - self.now_ms;
        match kind {
            Kind::Crash | Kind::Kill => _ = self.stop(node, kind, for_ms),
            Kind::CrashBoth => {
                let _ = self.stop(0, kind, for_ms);
                let other = self.random.between(0, 100);
                let _ = self.stop(1, kind, other);
            }
            Kind::Partition => self.net.cut = [true, true],
            Kind::OneWay => self.net.cut[node] = true,
            Kind::Delay => self.net.delay_ms = (5, 5 + self.random.below(40)),
            Kind::Reset => self.close_link(node, self.random.clone().one_in(2)),
            Kind::SlowDisk => self.nodes[node].write_ms = (5, 5 + self.random.below(80)),
            Kind::ClockJump => {
                let far = self.random.between(1, 5000) as i64;
                let by = if self.random.one_in(2) { far } else { -far };
                self.nodes[node].clock_ms += by;
            }
            Kind::Drain => {
                let now = self.now(node);
                if let Some(life) = &mut self.nodes[node].life {
                    life.replica.drain(&mut life.fx, &mut life.core, now);
                    self.nodes[node].draining = true;
                    self.clients.node_is_gone(node);
                }
            }
        }
    }

    fn end_fault(&mut self, fault: &Ongoing) {
        match fault.kind {
            Kind::Partition => self.net.cut = [false, false],
            Kind::OneWay => self.net.cut[fault.node] = false,
            Kind::Delay => self.net.delay_ms = (0, 2),
            Kind::SlowDisk => self.nodes[fault.node].write_ms = (0, 2),
            Kind::Crash
            | Kind::CrashBoth
            | Kind::Kill
            | Kind::Reset
            | Kind::ClockJump
            | Kind::Drain => {}
        }
    }

    fn end_faults(&mut self) {
        let all = std::mem::take(&mut self.faults);
        all.iter().for_each(|fault| self.end_fault(fault));
        self.trace(|| "no more faults".to_owned());
    }
}
