//! Clients behind edges: one connection each, over which they send, read and acknowledge as `docs/PROTOCOL.md` says. They
//! stay connected when cores die, and check what an edge tells them.

use std::collections::BTreeMap;
use std::hash::Hash;

use iris_proto::id::{ConnId, MsgId};
use iris_proto::link::{LinkSend, ToCore, ToEdge};
use iris_proto::wire::{Code, ServerFrame, split_frame};

use crate::edges::{Edges, REACTOR, SEND_WAIT_MS};
use crate::links::Link;
use crate::model::{Broken, Last, User};
use crate::world::World;

/// Unanswered SENDs of one connection.
const SEND_WINDOW: usize = 8;
/// How long after its time a SEND may be refused: an edge looks at deadlines every 5 ms.
const LATE_MS: u64 = 10;
/// How long an edge keeps a first login that finds no core.
const LOGIN_WAIT_MS: u64 = 5000;

/// A client.
pub(crate) struct Behind {
    pub(crate) user: User,
    at: Option<Connection>,
    /// Connections so far.
    count: u32,
}

/// A connection to an edge.
struct Connection {
    edge: usize,
    conn: ConnId,
    since_ms: u64,
    is_welcome: bool,
    next_seq: u32,
    /// SENDs without an answer: what, and since when.
    waiting: BTreeMap<u32, (MsgId, u64)>,
    /// The last delivery.
    top: u32,
    acked: u32,
    /// Deliveries that were not acknowledged.
    got: BTreeMap<u32, MsgId>,
    /// The login that the last delivery was for: at which node, and its name there.
    login: Option<(usize, ConnId)>,
    last: Last,
}

/// A delivery as the edge hears it from a core.
#[derive(Clone, Copy)]
pub(crate) struct Delivered {
    login: (usize, ConnId),
    /// Deliveries since the one before that the core could not read; their numbers stay theirs.
    unread: u32,
}

impl Delivered {
    /// What a frame of a core delivers, if it does.
    pub(crate) fn of(
        frame: &ToEdge<'_>,
        node: usize,
        link: &mut Link,
    ) -> Result<Option<Self>, Broken> {
        let ToEdge::Frame { conn, bytes } = *frame else { return Ok(None) };
        let Some(ServerFrame::Message(head, _)) = first_of(bytes) else { return Ok(None) };
        let before = link.last_no.insert(conn, head.no).unwrap_or(0);
        let is_unread = |no: &u32| link.unread.contains(&(conn, *no));
        if head.no <= before || !(before + 1..head.no).all(|no| is_unread(&no)) {
            return Err(format!("node {} delivers {} after {before}", node + 1, head.no));
        }
        Ok(Some(Self { login: (node, conn), unread: head.no - before - 1 }))
    }
}

fn first_of(bytes: &[u8]) -> Option<ServerFrame<'_>> {
    let (kind, body, _) = split_frame(bytes).ok()??;
    ServerFrame::decode(kind, body).ok()
}

impl Behind {
    pub(crate) fn new(user: User) -> Self {
        Self { user, at: None, count: 0 }
    }

    /// Nothing waits for an answer.
    pub(crate) fn is_quiet(&self) -> bool {
        self.at.as_ref().is_none_or(|at| at.waiting.is_empty())
    }

    /// Whether it is connected there.
    pub(crate) fn is_at(&self, edge: usize) -> bool {
        self.at.as_ref().is_some_and(|at| at.edge == edge)
    }

    /// Whether it is not connected.
    pub(crate) fn is_away(&self) -> bool {
        self.at.is_none()
    }

    /// An edge is gone, and its connections with it.
    pub(crate) fn lose_edge(&mut self, edge: usize) {
        if self.is_at(edge) {
            self.at = None;
        }
    }

    fn is_on(&self, edge: usize, conn: ConnId) -> bool {
        self.at.as_ref().is_some_and(|at| (at.edge, at.conn) == (edge, conn))
    }
}

impl World {
    /// What clients behind edges do in one millisecond.
    pub(crate) fn use_behind(&mut self, edges: &mut Edges) -> Result<(), Broken> {
        for index in 0..edges.behind.len() {
            let user = edges.behind[index].user;
            if self.is_sending && self.random.one_in(8) {
                self.begin_message(user);
            }
            let Some(at) = &edges.behind[index].at else {
                if self.is_reading && self.random.one_in(5) {
                    self.connect_behind(edges, index)?;
                }
                continue;
            };
            if let Some((seq, (id, _))) = at
                .waiting
                .iter()
                .find(|(_, (_, since))| since + SEND_WAIT_MS + LATE_MS < self.now_ms)
            {
                return Err(format!("SEND {seq} of user {user}, {id:?}, is not answered in time"));
            }
            if !at.is_welcome {
                continue;
            }
            let (is_old, edge) = (self.now_ms > at.since_ms + 150, at.edge);
            let is_behind = at.top > at.acked;
            self.send_behind(edges, index)?;
            if self.is_reading && is_behind && self.random.one_in(10) {
                self.acknowledge_behind(edges, index)?;
            } else if self.is_reading && self.random.one_in(150) {
                let window = self.random.below(20) as u32 + 1;
                let (conn, key) = self.name_behind(edges, index);
                let frame = ToCore::Window { conn, user: key, window };
                self.tell_edge(edges, edge, &frame)?;
            } else if self.is_reading && self.random.one_in(200) && (self.is_sending || is_old) {
                self.leave_edge(edges, index)?;
            }
        }
        Ok(())
    }

    fn name_behind(&self, edges: &Edges, index: usize) -> (ConnId, iris_proto::id::UserKey) {
        let behind = &edges.behind[index];
        let at = behind.at.as_ref().expect("it is connected");
        (at.conn, self.clients.keys[behind.user])
    }

    /// Passes what a client says to its edge.
    fn tell_edge(
        &mut self,
        edges: &mut Edges,
        edge: usize,
        frame: &ToCore<'_>,
    ) -> Result<(), Broken> {
        let of = &mut edges.edges[edge];
        let router = of.router.as_mut().expect("an edge with clients is up");
        router.handle_client(&mut of.hands, self.now_ms, frame);
        self.hear_edge(edges, edge, None)
    }

    fn connect_behind(&mut self, edges: &mut Edges, index: usize) -> Result<(), Broken> {
        let edge = match self.random.one_in(4) {
            true => self.random.below(edges.edges.len() as u64) as usize,
            false => index % edges.edges.len(),
        };
        if edges.edges[edge].router.is_none() {
            return Ok(());
        }
        let behind = &mut edges.behind[index];
        behind.count += 1;
        let (user, conn) = (behind.user, ConnId::new(REACTOR, index as u32, behind.count));
        // Any number is a first one, also one that soon overflows.
        let next_seq = 0_u32.wrapping_sub(self.random.below(20) as u32);
        let since_ms = self.now_ms;
        behind.at = Some(Connection {
            edge,
            conn,
            since_ms,
            is_welcome: false,
            next_seq,
            waiting: BTreeMap::new(),
            top: 0,
            acked: 0,
            got: BTreeMap::new(),
            login: None,
            last: Last::new(),
        });
        // What has no answer is sent again, in the old order and before anything new.
        self.clients.open[user].iter_mut().for_each(|open| open.at_ms = 0);
        let window = 1 + self.random.below(20) as u32;
        let (key, name) = (self.clients.keys[user], self.clients.names[user].clone());
        let frame = ToCore::Login { conn, user: key, window, session: 0, name: &name };
        self.tell_edge(edges, edge, &frame)
    }

    fn leave_edge(&mut self, edges: &mut Edges, index: usize) -> Result<(), Broken> {
        let (conn, user) = self.name_behind(edges, index);
        let edge = edges.behind[index].at.take().expect("who leaves is connected").edge;
        self.trace(|| format!("user {} leaves edge {edge}", edges.behind[index].user));
        self.tell_edge(edges, edge, &ToCore::Logout { conn, user })
    }

    fn send_behind(&mut self, edges: &mut Edges, index: usize) -> Result<(), Broken> {
        let user = edges.behind[index].user;
        let due: Vec<MsgId> = self.clients.open[user]
            .iter()
            .filter(|open| open.at_ms <= self.now_ms)
            .map(|open| open.id)
            .collect();
        let twice = self.resend_until_ms > self.now_ms;
        for id in due {
            for _ in 0..if twice || self.random.one_in(12) { 2 } else { 1 } {
                self.send_by_edge(edges, index, id)?;
            }
        }
        Ok(())
    }

    fn send_by_edge(&mut self, edges: &mut Edges, index: usize, id: MsgId) -> Result<(), Broken> {
        let behind = &mut edges.behind[index];
        let user = behind.user;
        // An answer may have come at once, and a connection may be over with it.
        let Some(at) = behind.at.as_mut().filter(|at| at.waiting.len() < SEND_WINDOW) else {
            return Ok(());
        };
        let Some(open) = self.clients.open[user].iter_mut().find(|open| open.id == id) else {
            return Ok(());
        };
        open.at_ms = self.now_ms + 1000;
        let (conn, edge, seq) = (at.conn, at.edge, at.next_seq);
        at.next_seq = seq.wrapping_add(1);
        at.waiting.insert(seq, (id, self.now_ms));
        let sent = self.model.sent(id).clone();
        let to: Vec<u8> = sent.to.iter().flat_map(|user| self.clients.keys[*user].0).collect();
        let (sender, name) = (self.clients.keys[user], self.clients.names[user].clone());
        let send =
            LinkSend { conn, seq, sender, id, flags: 0, from: &name, to: &to, payload: &sent.text };
        self.tell_edge(edges, edge, &ToCore::Send(send))
    }

    fn acknowledge_behind(&mut self, edges: &mut Edges, index: usize) -> Result<(), Broken> {
        let (conn, key) = self.name_behind(edges, index);
        let behind = &mut edges.behind[index];
        let at = behind.at.as_mut().expect("who acknowledges is connected");
        if at.top == at.acked {
            return Ok(());
        }
        at.acked += 1 + self.random.below(u64::from(at.top - at.acked)) as u32;
        let (upto, edge) = (at.acked, at.edge);
        let later = at.got.split_off(&(upto + 1));
        for id in std::mem::replace(&mut at.got, later).into_values() {
            self.model.acknowledged(behind.user, id);
        }
        self.tell_edge(edges, edge, &ToCore::Ack { conn, user: key, upto })
    }

    /// Clients hear what their edge wrote since the last time; `delivered` is what it had just heard from a core.
    pub(crate) fn hear_edge(
        &mut self,
        edges: &mut Edges,
        edge: usize,
        delivered: Option<Delivered>,
    ) -> Result<(), Broken> {
        let told = std::mem::take(&mut edges.edges[edge].hands.told);
        let mut rest = told.as_slice();
        told.hash(&mut self.digest);
        while let Some((frame, after)) = ToEdge::split(rest).expect("an edge writes whole frames") {
            rest = after;
            self.hear_frame(edges, edge, &frame, delivered)?;
        }
        Ok(())
    }

    fn hear_frame(
        &mut self,
        edges: &mut Edges,
        edge: usize,
        frame: &ToEdge<'_>,
        delivered: Option<Delivered>,
    ) -> Result<(), Broken> {
        let (ToEdge::Welcome { conn, .. }
        | ToEdge::Accepted { conn, .. }
        | ToEdge::Rejected { conn, .. }
        | ToEdge::Frame { conn, .. }
        | ToEdge::Kick { conn, .. }) = *frame
        else {
            return Err(format!("edge {edge} says {frame:?}"));
        };
        let Some(index) = edges.behind.iter().position(|behind| behind.is_on(edge, conn)) else {
            return Err(format!("edge {edge} speaks to {conn:?}, which is gone: {frame:?}"));
        };
        let user = edges.behind[index].user;
        let behind = &mut edges.behind[index];
        let at = behind.at.as_mut().expect("it is connected");
        match *frame {
            ToEdge::Welcome { .. } => {
                if std::mem::replace(&mut at.is_welcome, true) {
                    return Err(format!("user {user} is welcomed twice"));
                }
            }
            ToEdge::Accepted { first, count, copies, .. } => {
                for offset in 0..u32::from(count) {
                    let seq = first.wrapping_add(offset);
                    let Some((id, _)) = at.waiting.remove(&seq) else {
                        return Err(format!("SEND {seq} of user {user} is answered twice"));
                    };
                    self.model.accepted(id, copies)?;
                    self.trace(|| format!("user {user} is told of {id:?}, {copies} copies"));
                    self.clients.close(user, id);
                    self.outcome.accepted_behind += 1;
                }
            }
            ToEdge::Rejected { seq, code, retry_after_ms, .. } => {
                let Some((id, _)) = at.waiting.remove(&seq) else {
                    return Err(format!("SEND {seq} of user {user} is answered twice"));
                };
                self.trace(|| format!("user {user} is told {} of {id:?}", code.name()));
                match retry_after_ms {
                    0 => self.clients.close(user, id),
                    _ => self.try_later(user, id),
                }
            }
            ToEdge::Frame { bytes, .. } => {
                let Some(delivered) = delivered else {
                    return Err(format!("edge {edge} makes up a delivery"));
                };
                self.receive_behind(edges, index, bytes, &delivered)?;
            }
            ToEdge::Kick { code, .. } => {
                let waited_ms = self.now_ms - at.since_ms;
                let is_late = !at.is_welcome && waited_ms >= LOGIN_WAIT_MS;
                // An older connection of the same user may be on its way to another core.
                let is_second = behind.count > 1;
                let may_be = match code {
                    Code::Replaced => is_second,
                    Code::Unavailable => is_late,
                    _ => false,
                };
                if !may_be {
                    return Err(format!("user {user} is sent away: {}", code.name()));
                }
                self.trace(|| format!("user {user} is sent away: {}", code.name()));
                self.outcome.kicked += 1;
                self.leave_edge(edges, index)?;
            }
            ToEdge::Receipt { .. } => {}
        }
        Ok(())
    }

    fn receive_behind(
        &mut self,
        edges: &mut Edges,
        index: usize,
        bytes: &[u8],
        delivered: &Delivered,
    ) -> Result<(), Broken> {
        let behind = &mut edges.behind[index];
        let (user, at) = (behind.user, behind.at.as_mut().expect("it is connected"));
        let Some(ServerFrame::Message(head, text)) = first_of(bytes) else {
            return Err(format!("user {user} gets what is no message"));
        };
        if head.no != at.top + 1 + delivered.unread {
            let (top, unread) = (at.top, delivered.unread);
            return Err(format!(
                "user {user} gets {} after {top}, and {unread} could not be read",
                head.no
            ));
        }
        at.top = head.no;
        at.got.insert(head.no, head.id);
        // What an older login left unacknowledged comes again.
        if at.login.replace(delivered.login) != Some(delivered.login) {
            at.last.clear();
        }
        self.model.received(user, head.id, text, &mut at.last)
    }
}
