//! Edges: each is a real [`Router`] between its clients and both cores, whose frames cross links as bytes. Who is
//! behind them is in `behind`.
//!
//! A core's side of the frames is in `served`; the edge's side is what `src/reactor/routing.rs` does. What
//! edges add to chance comes from a sequence of its own.

use iris_proto::core::EndCursor;
use iris_proto::edge::{Counters, Effects, FromCore, Router, RouterConfig};
use iris_proto::link::ToEdge;
use iris_proto::peer::{PartitionState, ShardRanges};

use crate::behind::{Behind, Delivered};
use crate::faults::Kind;
use crate::inject::Ongoing;
use crate::links::{Link, Parcel, TO_CORE, TO_EDGE};
use crate::model::Broken;
use crate::node::SHARDS;
use crate::options::Options;
use crate::random::Random;
use crate::served::flush_accepted;
use crate::world::World;

/// The number of an edge's only reactor, as the edge counts.
pub(crate) const REACTOR: u16 = 3;
/// The reactor of direct clients, and so no edge's, as cores count.
pub(crate) const DIRECT: u16 = 1;
/// How long a SEND waits for an answer at an edge.
pub(crate) const SEND_WAIT_MS: u64 = 500;
/// Clients behind edges.
pub(crate) const BEHIND: usize = 4;

/// How patient the edges of a run are: a tenth of what they are in production.
fn config() -> RouterConfig {
    RouterConfig {
        send_wait_ms: SEND_WAIT_MS,
        answer_ms: 100,
        settle_ms: 25,
        failback_ms: 300,
        move_ms: 25,
        conn_bytes_max: 5000,
        backlog_max: 4000,
        ..RouterConfig::new(REACTOR, SHARDS, vec![1, 2])
    }
}

/// Where a router writes.
pub(crate) struct Hands {
    /// Frames for each core that is linked, and bytes that wait on the way there.
    cores: [Option<(Vec<u8>, usize)>; 2],
    /// Frames for clients.
    pub(crate) told: Vec<u8>,
}

impl Effects for Hands {
    fn to_core(&mut self, core: usize, _: u16) -> &mut Vec<u8> {
        &mut self.cores[core].as_mut().expect("an edge writes only to cores that are linked").0
    }

    fn backlog_bytes(&self, core: usize, _: u16) -> usize {
        self.cores[core].as_ref().map_or(0, |(bytes, waiting)| bytes.len() + waiting)
    }

    fn to_client(&mut self, frame: &ToEdge<'_>) {
        frame.encode(&mut self.told);
    }
}

/// One edge.
pub(crate) struct Edge {
    pub(crate) router: Option<Router>,
    pub(crate) hands: Hands,
    pub(crate) links: [Link; 2],
    /// Its number among the lives of all edges.
    pub(crate) life: u64,
    restart_ms: u64,
}

/// All edges of a run, and who is behind them.
pub(crate) struct Edges {
    /// The edges' own chance; while they have their turn it stands in the world's place.
    pub(crate) random: Random,
    pub(crate) edges: Vec<Edge>,
    pub(crate) behind: Vec<Behind>,
    kinds: Vec<Kind>,
    faults: Vec<Ongoing>,
    next_fault_ms: u64,
    delay_ms: (u64, u64),
    lives: u64,
    reactors: u16,
}

impl Edges {
    /// One edge or two, with `users` behind them.
    pub(crate) fn new(options: &Options, users: std::ops::Range<usize>) -> Self {
        let mut random = Random::new(options.seed ^ 0x6564_6765);
        let edge = |_| Edge {
            router: None,
            hands: Hands { cores: [None, None], told: Vec::new() },
            links: Default::default(),
            life: 0,
            restart_ms: 0,
        };
        let kinds = match options.kinds.is_empty() {
            true => Kind::OF_EDGES.into_iter().filter(|_| random.one_in(2)).collect(),
            false => options.kinds.iter().copied().filter(|kind| kind.is_of_edges()).collect(),
        };
        Self {
            edges: (0..random.between(1, 2)).map(edge).collect(),
            behind: users.map(Behind::new).collect(),
            random,
            kinds,
            faults: Vec::new(),
            next_fault_ms: 100,
            delay_ms: (0, 2),
            lives: 0,
            reactors: DIRECT,
        }
    }

    /// Nobody waits for an answer.
    pub(crate) fn is_quiet(&self) -> bool {
        self.behind.iter().all(Behind::is_quiet)
    }

    fn due_ms(&self, random: &mut Random, now_ms: u64) -> u64 {
        now_ms + random.between(self.delay_ms.0, self.delay_ms.1)
    }

    /// The link of an edge to a node on which the node gave the edge's reactor this number: that edge.
    pub(crate) fn edge_of(&self, node: usize, reactor: u16) -> Option<usize> {
        self.edges.iter().position(|edge| edge.links[node].at_core == Some(reactor))
    }

    /// What routers counted.
    pub(crate) fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.edges.iter().filter_map(|edge| edge.router.as_ref()).map(Router::counters)
    }

    /// With nobody waiting, nothing waits at an edge, and each has the sessions of who is connected.
    pub(crate) fn check_rest(&self) -> Result<(), Broken> {
        for (number, edge) in self.edges.iter().enumerate() {
            let Some(router) = &edge.router else { continue };
            let here = self.behind.iter().filter(|behind| behind.is_at(number)).count();
            let gauges = router.gauges();
            if gauges.pending > 0 || gauges.pending_bytes > 0 || gauges.sessions as usize != here {
                return Err(format!("edge {number} holds {gauges:?} for {here} clients"));
            }
        }
        Ok(())
    }
}

impl World {
    /// A turn of the edges, with their own chance.
    pub(crate) fn with_edges(
        &mut self,
        turn: impl FnOnce(&mut Self, &mut Edges) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let Some(mut edges) = self.edges.take() else { return Ok(()) };
        std::mem::swap(&mut self.random, &mut edges.random);
        let went = turn(self, &mut edges);
        std::mem::swap(&mut self.random, &mut edges.random);
        self.edges = Some(edges);
        went
    }

    fn is_cut(&self, link: &Link, node: usize) -> [bool; 2] {
        link.cut.map(|cut| cut || self.edge_cut == Some(node))
    }

    /// Links break and come up, and cores take in what arrives.
    pub(crate) fn turn_links(&mut self, edges: &mut Edges) -> Result<(), Broken> {
        for number in 0..edges.edges.len() {
            self.start_edge(edges, number);
            for node in 0..2 {
                self.turn_link(edges, number, node)?;
            }
        }
        Ok(())
    }

    fn start_edge(&mut self, edges: &mut Edges, number: usize) {
        let edge = &mut edges.edges[number];
        if edge.router.is_none() && self.now_ms >= edge.restart_ms {
            edges.lives += 1;
            edge.life = edges.lives;
            edge.router = Some(Router::new(config()));
            edge.hands = Hands { cores: [None, None], told: Vec::new() };
            self.trace(|| format!("edge {number} starts"));
        }
    }

    fn turn_link(&mut self, edges: &mut Edges, number: usize, node: usize) -> Result<(), Broken> {
        let cut = self.is_cut(&edges.edges[number].links[node], node);
        let due_ms = edges.due_ms(&mut self.random, self.now_ms);
        while let Some(parcel) =
            edges.edges[number].links[node].arrive(TO_CORE, self.now_ms, cut[TO_CORE])
        {
            match parcel {
                Parcel::Bytes(bytes) => self.take_batch(edges, (number, node), &bytes),
                Parcel::End => self.edge_is_gone(edges, (number, node), due_ms),
            }
        }
        let link = &mut edges.edges[number].links[node];
        if link.is_silent(TO_CORE, self.now_ms, cut[TO_CORE]) && link.at_core.is_some() {
            self.edge_is_gone(edges, (number, node), due_ms);
        }
        let is_there = edges.edges[number].router.is_some() && self.nodes[node].life.is_some();
        let link = &mut edges.edges[number].links[node];
        if is_there && cut == [false; 2] && link.may_connect(self.now_ms) {
            self.edge_is_gone(edges, (number, node), due_ms);
            edges.reactors += 1;
            let link = &mut edges.edges[number].links[node];
            link.connect(self.now_ms, edges.reactors);
            let up = FromCore::Up { partitions: 1, shards: ShardRanges::all(SHARDS) };
            up.encode(&mut link.out);
            self.trace(|| format!("edge {number} is linked to node {}", node + 1));
        }
        self.flush_link(edges, (number, node));
        Ok(())
    }

    /// What a core said since the last time goes on its way, and its state if that is another one.
    fn flush_link(&mut self, edges: &mut Edges, (number, node): (usize, usize)) {
        let machine = &self.nodes[node];
        let state = match &machine.life {
            _ if machine.draining => PartitionState::Draining,
            Some(life) => life.replica.partition_state(),
            None => PartitionState::Recovering,
        };
        let due_ms = edges.due_ms(&mut self.random, self.now_ms);
        let link = &mut edges.edges[number].links[node];
        if link.at_core.is_none() {
            return;
        }
        flush_accepted(link);
        if state != link.told {
            link.told = state;
            FromCore::State { partition: 0, state }.encode(&mut link.out);
        }
        let bytes = std::mem::take(&mut link.out);
        link.send(TO_EDGE, bytes, due_ms);
    }

    /// A core learns that an edge is gone, or has a new link: its connections end.
    fn edge_is_gone(&mut self, edges: &mut Edges, at: (usize, usize), due_ms: u64) {
        let (number, node) = at;
        let link = &mut edges.edges[number].links[node];
        let Some(reactor) = link.at_core else { return };
        link.leave_core(&mut self.random, due_ms);
        let now = self.now(node);
        self.trace(|| format!("node {} loses edge {number}", node + 1));
        let Some(life) = &mut self.nodes[node].life else { return };
        let mut from = EndCursor::default();
        let gone = reactor..reactor + 1;
        while let Some(next) =
            life.core.end_reactors(&mut life.fx, now.unix_ms, &gone, from, u32::MAX)
        {
            from = next;
        }
    }

    /// A node's process has ended, and has said its last words.
    pub(crate) fn lose_node(&mut self, edges: &mut Edges, node: usize) -> Result<(), Broken> {
        for number in 0..edges.edges.len() {
            self.flush_link(edges, (number, node));
            let due_ms = edges.due_ms(&mut self.random, self.now_ms);
            let link = &mut edges.edges[number].links[node];
            if link.at_core.is_some() {
                link.leave_core(&mut self.random, due_ms);
            }
        }
        Ok(())
    }
}

/// The edges' side.
impl World {
    /// Edges take in what cores and clients say.
    pub(crate) fn turn_edges(&mut self, edges: &mut Edges) -> Result<(), Broken> {
        for number in 0..edges.edges.len() {
            for node in 0..2 {
                self.hear_core(edges, number, node)?;
            }
        }
        self.use_behind(edges)?;
        for number in 0..edges.edges.len() {
            self.poll_edge(edges, number)?;
        }
        Ok(())
    }

    fn hear_core(&mut self, edges: &mut Edges, number: usize, node: usize) -> Result<(), Broken> {
        let cut = self.is_cut(&edges.edges[number].links[node], node)[TO_EDGE];
        let link = &mut edges.edges[number].links[node];
        let is_silent = link.is_silent(TO_EDGE, self.now_ms, cut);
        while edges.edges[number].links[node].at_edge {
            let link = &mut edges.edges[number].links[node];
            match link.arrive(TO_EDGE, self.now_ms, cut) {
                Some(Parcel::Bytes(bytes)) => self.hear_batch(edges, number, node, &bytes)?,
                Some(Parcel::End) => self.core_is_gone(edges, number, node)?,
                None if is_silent => self.core_is_gone(edges, number, node)?,
                None => break,
            }
        }
        Ok(())
    }

    fn hear_batch(
        &mut self,
        edges: &mut Edges,
        number: usize,
        node: usize,
        batch: &[u8],
    ) -> Result<(), Broken> {
        let mut rest = batch;
        while let Some((frame, after)) = FromCore::split(rest).expect("a core writes whole frames")
        {
            rest = after;
            let edge = &mut edges.edges[number];
            let Some(router) = &mut edge.router else { return Ok(()) };
            let mut delivered = None;
            match &frame {
                FromCore::Up { partitions, shards } => {
                    edge.hands.cores[node] = Some((Vec::new(), 0));
                    router.core_up(node, *partitions, shards);
                }
                FromCore::State { partition, state } => {
                    router.core_state(self.now_ms, node, *partition, *state);
                    self.trace(|| {
                        format!("edge {number} hears that node {} is {state:?}", node + 1)
                    });
                }
                FromCore::Frame(frame) => {
                    delivered = Delivered::of(frame, node, &mut edge.links[node])?;
                    router.handle_core(&mut edge.hands, self.now_ms, node, frame);
                }
                FromCore::Down => panic!("that stands in no batch of a core"),
            }
            self.hear_edge(edges, number, delivered)?;
        }
        Ok(())
    }

    /// An edge learns that a core is gone, or gives up the link.
    fn core_is_gone(
        &mut self,
        edges: &mut Edges,
        number: usize,
        node: usize,
    ) -> Result<(), Broken> {
        let due_ms = edges.due_ms(&mut self.random, self.now_ms);
        let edge = &mut edges.edges[number];
        edge.links[node].leave_edge(&mut self.random, self.now_ms, due_ms);
        self.trace(|| format!("edge {number} loses node {}", node + 1));
        if let Some(router) = &mut edge.router {
            router.core_down(&mut edge.hands, self.now_ms, node);
        }
        edge.hands.cores[node] = None;
        self.hear_edge(edges, number, None)
    }

    fn poll_edge(&mut self, edges: &mut Edges, number: usize) -> Result<(), Broken> {
        let edge = &mut edges.edges[number];
        let Some(router) = &mut edge.router else { return Ok(()) };
        let mut turns = 0;
        while router.poll(&mut edge.hands, self.now_ms) {
            turns += 1;
            if turns > 100 {
                return Err(format!("edge {number} is never done"));
            }
        }
        self.hear_edge(edges, number, None)?;
        for node in 0..2 {
            let due_ms = edges.due_ms(&mut self.random, self.now_ms);
            let edge = &mut edges.edges[number];
            let Some((bytes, waiting)) = &mut edge.hands.cores[node] else { continue };
            edge.links[node].send(TO_CORE, std::mem::take(bytes), due_ms);
            *waiting = edge.links[node].waiting(TO_CORE);
        }
        Ok(())
    }

    fn stop_edge(&mut self, edges: &mut Edges, number: usize, for_ms: u64) {
        let edge = &mut edges.edges[number];
        edge.restart_ms = self.now_ms + for_ms;
        let Some(router) = edge.router.take() else { return };
        self.outcome.count_edge(router.counters());
        for node in 0..2 {
            let due_ms = edges.due_ms(&mut self.random, self.now_ms);
            let link = &mut edges.edges[number].links[node];
            if link.at_edge {
                link.leave_edge(&mut self.random, self.now_ms, due_ms);
            }
        }
        edges.behind.iter_mut().for_each(|behind| behind.lose_edge(number));
        for user in edges.behind.iter().map(|behind| behind.user) {
            if edges.behind.iter().any(|behind| behind.user == user && behind.is_away()) {
                self.clients.open[user].iter_mut().for_each(|open| open.at_ms = 0);
            }
        }
    }
}

/// What goes wrong with edges.
impl World {
    pub(crate) fn fault_edges(&mut self, edges: &mut Edges) -> Result<(), Broken> {
        let now_ms = self.now_ms;
        let over: Vec<Ongoing> = edges.faults.extract_if(.., |of| of.until_ms <= now_ms).collect();
        over.iter().for_each(|fault| edges.end_fault(fault));
        if now_ms < edges.next_fault_ms || edges.kinds.is_empty() {
            return Ok(());
        }
        edges.next_fault_ms = now_ms + self.random.between(20, 200);
        let kind = edges.kinds[self.random.below(edges.kinds.len() as u64) as usize];
        let node = self.random.below(2) as usize;
        let number = self.random.below(edges.edges.len() as u64) as usize;
        let until_ms = now_ms + self.random.between(5, 150);
        self.trace(|| format!("fault {} at edge {number}, node {}", kind.name(), node + 1));
        *self.counts.entry(kind).or_default() += 1;
        match kind {
            Kind::EdgeRestart => self.stop_edge(edges, number, until_ms - now_ms),
            Kind::LinkCut => {
                let ways = self.random.between(1, 3);
                let link = &mut edges.edges[number].links[node];
                link.cut = [ways & 1 > 0, ways & 2 > 0];
            }
            Kind::LinkReset => {
                let due_ms = edges.due_ms(&mut self.random, now_ms);
                if edges.edges[number].links[node].at_edge {
                    self.edge_is_gone(edges, (number, node), due_ms);
                    self.core_is_gone(edges, number, node)?;
                }
            }
            _ => edges.delay_ms = (0, 5 + self.random.below(40)),
        }
        edges.faults.push(Ongoing { kind, node, until_ms });
        Ok(())
    }

    pub(crate) fn end_edge_faults(&mut self, edges: &mut Edges) -> Result<(), Broken> {
        let all = std::mem::take(&mut edges.faults);
        all.iter().for_each(|fault| edges.end_fault(fault));
        Ok(())
    }
}

impl Edges {
    fn end_fault(&mut self, fault: &Ongoing) {
        match fault.kind {
            Kind::LinkCut => {
                self.edges.iter_mut().for_each(|edge| edge.links[fault.node].cut = [false; 2]);
            }
            Kind::LinkDelay => self.delay_ms = (0, 2),
            _ => {}
        }
    }
}
