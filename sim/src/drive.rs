//! What clients do in one millisecond.

use iris_proto::id::MsgId;

use crate::clients::{Open, Session};
use crate::model::{Last, User};
use crate::world::{T0, USERS, World};

/// Messages of one user without an answer, at most.
const OPEN_MAX: usize = 3;

impl World {
    pub(crate) fn use_clients(&mut self) {
        for user in 0..USERS {
            if self.is_sending && self.random.one_in(8) {
                self.begin_message(user);
            }
            self.send_some(user);
            if self.is_reading {
                self.read(user);
            }
            if self.is_sending && self.random.one_in(150) {
                self.clients.disconnect(user);
            }
        }
    }

    pub(crate) fn begin_message(&mut self, user: User) {
        if self.clients.open[user].len() >= OPEN_MAX {
            return;
        }
        let first = self.random.below(self.clients.keys.len() as u64) as User;
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
        self.clients.open[user].push(Open { id, at_ms: 0 });
    }

    /// Most users agree on a node most of the time.
    fn preferred(&mut self, user: User) -> usize {
        if self.random.one_in(6) { self.random.below(2) as usize } else { user % 2 }
    }

    fn send_some(&mut self, user: User) {
        if self.clients.open[user].is_empty() {
            return;
        }
        let is_late =
            self.clients.sending[user].as_ref().is_some_and(|of| of.until_ms <= self.now_ms);
        if self.clients.sending[user].is_none() || is_late {
            self.connect(user);
        }
        let twice = self.resend_until_ms > self.now_ms;
        let mut due: Vec<MsgId> = self.clients.open[user]
            .iter()
            .filter(|open| open.at_ms <= self.now_ms)
            .map(|open| open.id)
            .collect();
        if twice && self.random.one_in(2) {
            due.reverse();
        }
        for id in due {
            let times = if twice || self.random.one_in(12) { 2 } else { 1 };
            for _ in 0..times {
                self.send(user, id);
            }
        }
    }

    fn connect(&mut self, user: User) {
        let last = self.clients.sending[user].as_ref().map(|sending| sending.node);
        let node = match last {
            Some(node) => 1 - node,
            None => self.preferred(user),
        };
        self.clients.disconnect(user);
        let node = if self.can_reach(node) { node } else { 1 - node };
        if self.can_reach(node) {
            let until_ms = self.now_ms + self.random.between(20, 150);
            self.clients.connect(user, node, until_ms);
        }
    }

    /// Whether clients reach a node: it is up, and nothing is between.
    fn can_reach(&self, node: usize) -> bool {
        self.nodes[node].life.is_some() && self.edge_cut != Some(node)
    }

    fn send(&mut self, user: User, id: MsgId) {
        let Some(node) = self.clients.sending[user].as_ref().map(|sending| sending.node) else {
            return;
        };
        let again_ms = self.now_ms + 1000;
        if let Some(open) = self.clients.open[user].iter_mut().find(|open| open.id == id) {
            open.at_ms = again_ms;
        }
        let sent = self.model.sent(id).clone();
        let now = self.now(node);
        let Some(life) = &mut self.nodes[node].life else { return };
        let what = (&sent.to[..], &sent.text[..]);
        if let Some(made) = self.clients.send(life, now.unix_ms, (user, id), what) {
            self.model.made(id, made);
        }
    }

    /// A message was refused for now: it is sent again later, here or at the other node.
    pub(crate) fn try_later(&mut self, user: User, id: MsgId) {
        let at_ms = self.now_ms + self.random.between(2, 30);
        if let Some(open) = self.clients.open[user].iter_mut().find(|open| open.id == id) {
            open.at_ms = at_ms;
        }
        if self.random.one_in(2)
            && let Some(sending) = &mut self.clients.sending[user]
        {
            sending.until_ms = self.now_ms;
        }
    }

    fn read(&mut self, user: User) {
        let Some(session) = &self.clients.sessions[user] else {
            let chance = if self.is_sending { 30 } else { 5 };
            if self.random.one_in(chance) {
                self.log_in(user);
            }
            return;
        };
        let (node, behind) = (session.node, session.got > session.acked);
        // What a node cannot read now comes at the next login, here or there.
        let is_old = self.now_ms > session.since_ms + 150;
        if behind && self.random.one_in(10) {
            self.acknowledge(user);
        } else if self.random.one_in(120) && (self.is_sending || is_old) {
            self.log_out(user, node);
        }
    }

    fn log_in(&mut self, user: User) {
        let node = self.random.below(2) as usize;
        let now = self.now(node);
        if !self.can_reach(node) {
            return;
        }
        let Some(life) = &mut self.nodes[node].life else { return };
        if !life.replica.serves() {
            return;
        }
        let (conn, _) = self.clients.connection();
        let (key, name) = (self.clients.keys[user], self.clients.names[user].clone());
        let window = 1 + self.random.below(20) as u32;
        life.core.handle_login(&mut life.fx, now.unix_ms, conn, key, &name, window);
        let since_ms = self.now_ms;
        let (ids, last) = (Vec::new(), Last::new());
        let session = Session { node, conn, got: 0, acked: 0, ids, last, since_ms };
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
        let more = self.random.below(u64::from(session.got - session.acked)) as u32;
        let done = session.acked as usize;
        session.acked += 1 + more;
        for id in session.ids[done..session.acked as usize].iter().flatten() {
            self.model.acknowledged(user, *id);
        }
        let (node, conn, upto) = (session.node, session.conn, session.acked);
        let now = self.now(node);
        if let Some(life) = &mut self.nodes[node].life {
            life.core.handle_ack(&mut life.fx, now.unix_ms, conn, key, upto);
        }
    }
}
