//! Clients: they send with ids of their own, try the same id again at either node, read, and acknowledge.

use std::collections::BTreeMap;

use iris_proto::core::{RejectCode, SendRequest};
use iris_proto::id::{ConnId, MsgId, UserKey, shard_for_user};

use crate::model::User;
use crate::node::{Life, SHARDS};

/// A message that its sender has no answer for.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its id.
    pub id: MsgId,
    /// Where it is tried next.
    pub node: usize,
    /// When.
    pub at_ms: u64,
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
    /// The last number of each stream that was delivered.
    pub last: BTreeMap<(u32, u32), u64>,
}

/// All clients.
#[derive(Default)]
pub struct Clients {
    /// Keys of the users.
    pub keys: Vec<UserKey>,
    /// Names of the users.
    pub names: Vec<String>,
    /// Messages without an answer, by user.
    pub open: Vec<Vec<Open>>,
    /// Where each user reads.
    pub sessions: Vec<Option<Session>>,
    /// Tries that an answer may come for: what, and where.
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
            sessions: vec![None; users],
            ..Self::default()
        }
    }

    /// A connection that was never used.
    pub fn connection(&mut self) -> (ConnId, u32) {
        self.next += 1;
        (ConnId::new(1, self.next, 0), self.next)
    }

    /// Users of the same shard as `user`.
    pub fn same_shard(&self, user: User) -> Vec<User> {
        let shard = |user: User| shard_for_user(self.keys[user], SHARDS);
        (0..self.keys.len()).filter(|other| shard(*other) == shard(user)).collect()
    }

    /// Sends a message to a node that is up.
    pub fn send(
        &mut self,
        life: &mut Life,
        unix_ms: u64,
        node: usize,
        (user, id): (User, MsgId),
        (to, text): (&[User], &[u8]),
    ) {
        let (conn, seq) = self.connection();
        self.tries.insert(seq, (user, id, node));
        let recipients: Vec<u8> = to.iter().flat_map(|user| self.keys[*user].0).collect();
        let send = SendRequest {
            conn,
            seq,
            sender: self.keys[user],
            from: &self.names[user],
            msg_id: id,
            flags: 0,
            recipients: &recipients,
            payload: text,
        };
        life.core.handle_send(&mut life.fx, unix_ms, &send);
    }

    /// What an answer is for; `None` if the connection broke meanwhile.
    pub fn answered(&mut self, seq: u32) -> Option<(User, MsgId, usize)> {
        self.tries.remove(&seq)
    }

    /// A message needs no further try.
    pub fn close(&mut self, user: User, id: MsgId) {
        self.open[user].retain(|open| open.id != id);
    }

    /// A node is gone: answers of it no longer come, and sessions there end.
    pub fn node_is_gone(&mut self, node: usize) {
        self.tries.retain(|_, (.., of)| *of != node);
        for session in &mut self.sessions {
            if session.as_ref().is_some_and(|session| session.node == node) {
                *session = None;
            }
        }
    }

    /// Connections that waited for an answer break.
    pub fn lose_answers(&mut self, user: User) {
        self.tries.retain(|_, (of, ..)| *of != user);
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
