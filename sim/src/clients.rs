//! Clients: they send with ids of their own, try the same id again at either node, read, and acknowledge.

use std::collections::BTreeMap;

use iris_proto::core::{RejectCode, SendRequest};
use iris_proto::id::{ConnId, MsgId, UserKey, shard_for_user};

use crate::edges::DIRECT;
use crate::model::{Last, Made, User};
use crate::node::{Life, SHARDS};

/// A message that its sender has no answer for.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its id.
    pub id: MsgId,
    /// When it is sent next; it waits for an answer until then.
    pub at_ms: u64,
}

/// A connection over which a user sends.
#[derive(Clone, Debug)]
pub struct Sending {
    /// To which node.
    pub node: usize,
    /// Which connection.
    pub conn: ConnId,
    /// Its number among all connections.
    pub number: u32,
    /// SENDs so far.
    pub sends: u32,
    /// The client gives it up if nothing is answered until then.
    pub until_ms: u64,
}

/// A login of a user at a node.
#[derive(Clone, Debug)]
pub struct Session {
    /// Where.
    pub node: usize,
    /// On which connection.
    pub conn: ConnId,
    /// Deliveries so far.
    pub got: u32,
    /// Of those, acknowledged.
    pub acked: u32,
    /// What was delivered, by number from 1; nothing where it could not be read.
    pub ids: Vec<Option<MsgId>>,
    /// The last SEND of each connection of a sender that was delivered.
    pub last: Last,
    /// When it began.
    pub since_ms: u64,
}

/// All clients.
#[derive(Default)]
pub struct Clients {
    /// Keys of the users.
    pub keys: Vec<UserKey>,
    /// Names of the users.
    pub names: Vec<String>,
    /// Messages without an answer, by user, in the order in which they were begun.
    pub open: Vec<Vec<Open>>,
    /// Over what each user sends.
    pub sending: Vec<Option<Sending>>,
    /// Where each user reads.
    pub sessions: Vec<Option<Session>>,
    /// SENDs that an answer may come for: whose, what, and where.
    tries: BTreeMap<u32, (User, MsgId, usize)>,
    next: u32,
}

impl Clients {
    /// So many users.
    pub fn new(users: usize) -> Self {
        let names: Vec<String> = (0..users).map(|user| format!("user{user}")).collect();
        Self {
            keys: names.iter().map(|name| UserKey::of(name)).collect(),
            names,
            open: vec![Vec::new(); users],
            sending: vec![None; users],
            sessions: vec![None; users],
            ..Self::default()
        }
    }

    /// A connection that was never used, and its number.
    pub fn connection(&mut self) -> (ConnId, u32) {
        self.next += 1;
        (ConnId::new(DIRECT, self.next, 0), self.next)
    }

    /// Users of the same shard as `user`.
    pub fn same_shard(&self, user: User) -> Vec<User> {
        let shard = |user: User| shard_for_user(self.keys[user], SHARDS);
        (0..self.keys.len()).filter(|other| shard(*other) == shard(user)).collect()
    }

    /// A user connects to a node to send.
    pub fn connect(&mut self, user: User, node: usize, until_ms: u64) {
        self.disconnect(user);
        let (conn, number) = self.connection();
        self.sending[user] = Some(Sending { node, conn, number, sends: 0, until_ms });
        // What has no answer is sent again, in the old order and before anything new.
        self.open[user].iter_mut().for_each(|open| open.at_ms = 0);
    }

    /// The connection over which a user sends breaks.
    pub fn disconnect(&mut self, user: User) {
        self.sending[user] = None;
        self.tries.retain(|_, (of, ..)| *of != user);
    }

    /// Sends a message over the user's connection to a node that is up. If it was new there: which SEND made it.
    pub fn send(
        &mut self,
        life: &mut Life,
        unix_ms: u64,
        (user, id): (User, MsgId),
        (to, text): (&[User], &[u8]),
    ) -> Option<Made> {
        self.next += 1;
        let seq = self.next;
        let sending = self.sending[user].as_mut().expect("who sends is connected");
        sending.sends += 1;
        self.tries.insert(seq, (user, id, sending.node));
        let recipients: Vec<u8> = to.iter().flat_map(|user| self.keys[*user].0).collect();
        let send = SendRequest {
            conn: sending.conn,
            seq,
            sender: self.keys[user],
            from: &self.names[user],
            msg_id: id,
            flags: 0,
            recipients: &recipients,
            payload: text,
        };
        let before = life.core.counters().appended;
        life.core.handle_send(&mut life.fx, unix_ms, &send);
        let is_new = life.core.counters().appended > before;
        let (conn, nth, by) = (u64::from(sending.number), sending.sends, life.origin);
        is_new.then_some(Made { conn, nth, by })
    }

    /// What an answer is for; `None` if the connection broke meanwhile.
    pub fn answered(&mut self, seq: u32) -> Option<(User, MsgId, usize)> {
        self.tries.remove(&seq)
    }

    /// A message needs no further try.
    pub fn close(&mut self, user: User, id: MsgId) {
        self.open[user].retain(|open| open.id != id);
    }

    /// Clients lose a node: answers of it no longer come, and sessions there end.
    pub fn node_is_gone(&mut self, node: usize) {
        for user in 0..self.keys.len() {
            if self.sending[user].as_ref().is_some_and(|sending| sending.node == node) {
                self.disconnect(user);
            }
            if self.sessions[user].as_ref().is_some_and(|session| session.node == node) {
                self.sessions[user] = None;
            }
        }
    }

    /// Whether a refusal is for good.
    pub fn is_final(code: RejectCode) -> bool {
        code.retry_after_ms() == 0
    }

    /// The user on a connection at a node.
    pub fn reader(&self, node: usize, conn: ConnId) -> Option<User> {
        self.sessions.iter().position(|session| {
            session.as_ref().is_some_and(|session| (session.node, session.conn) == (node, conn))
        })
    }
}
