//! What must be true, in plain maps that share nothing with the machines under test.
//!
//! The model hears what clients do and are told, and which records became durable on which disk. It knows nothing of
//! streams, vectors or modes beyond what stands in the records.

use std::collections::{BTreeMap, BTreeSet};

use iris_proto::id::{Dot, MsgId};
use iris_proto::replica::Mode;
use iris_wal::views::proto_dot;
use iris_wal::{Body, Meta, MetaBody, Reason, record};

/// A user's number.
pub type User = usize;

/// A message as its sender knows it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Who sends it.
    pub from: User,
    /// To whom.
    pub to: Vec<User>,
    /// What it says.
    pub text: Vec<u8>,
    /// The sender was told that it is in.
    pub accepted: bool,
    /// The disk that alone held it is gone.
    pub excused: bool,
}

/// What is on one disk.
#[derive(Clone, Default, Debug)]
struct OnDisk {
    msgs: BTreeSet<MsgId>,
    /// Acknowledged for good, as far as this disk knows.
    done: BTreeSet<(User, MsgId)>,
    /// An EPOCH(SOLO) of the present life.
    solo: bool,
}

/// The model of a run.
#[derive(Default)]
pub struct Model {
    /// Keys of the users, to find them by.
    keys: Vec<[u8; 16]>,
    sent: BTreeMap<MsgId, Sent>,
    dots: BTreeMap<(u16, Dot), MsgId>,
    disks: [OnDisk; 2],
    /// Who got what.
    seen: BTreeSet<(User, MsgId)>,
    /// Messages accepted, and those with one copy.
    pub accepted: u64,
    /// Of those, with one copy.
    pub alone: u64,
    /// Deliveries of what was seen before.
    pub repeated: u64,
    /// Messages lost with their only disk.
    pub excused: u64,
}

/// What is not true.
pub type Broken = String;

impl Model {
    /// A model of users with these keys.
    pub fn new(keys: Vec<[u8; 16]>) -> Self {
        Self { keys, ..Self::default() }
    }

    /// A sender begins a message.
    pub fn begin(&mut self, id: MsgId, from: User, to: Vec<User>, text: Vec<u8>) {
        let sent = Sent { from, to, text, accepted: false, excused: false };
        assert!(self.sent.insert(id, sent).is_none(), "ids are used once");
    }

    /// A message as its sender knows it.
    pub fn sent(&self, id: MsgId) -> &Sent {
        &self.sent[&id]
    }

    fn user(&self, key: &[u8; 16]) -> User {
        self.keys.iter().position(|of| of == key).expect("inboxes are those of users")
    }

    /// A batch is durable on a node's disk: its records.
    pub fn durable(&mut self, node: usize, me: u32, mut records: &[u8]) {
        while !records.is_empty() {
            let (record, len) = record::decode(records).expect("a durable batch is whole");
            records = &records[len..];
            let (shard, dot) = (record.head.shard, proto_dot(record.head.dot()));
            match record.body {
                Body::Msg(msg) => self.has_msg(node, shard, dot, MsgId(msg.msg_id)),
                Body::Tomb(tomb) => {
                    let targets: Vec<Dot> = tomb.targets.dots().map(proto_dot).collect();
                    self.has_tomb(node, shard, &tomb.inbox, tomb.reason, &targets);
                }
                Body::Epoch(epoch) if dot.origin.node == me => {
                    self.disks[node].solo |= Mode::of(epoch.state) == Some(Mode::Solo);
                }
                Body::Epoch(_) | Body::Dedup(_) | Body::Mark(_) | Body::Checkpoint(_) => {}
            }
        }
    }

    fn has_msg(&mut self, node: usize, shard: u16, dot: Dot, id: MsgId) {
        self.dots.insert((shard, dot), id);
        self.disks[node].msgs.insert(id);
    }

    fn has_tomb(&mut self, node: usize, shard: u16, inbox: &[u8; 16], reason: Reason, of: &[Dot]) {
        if reason == Reason::COLLAPSED {
            return;
        }
        let user = self.user(inbox);
        for dot in of {
            if let Some(id) = self.dots.get(&(shard, *dot)) {
                self.disks[node].done.insert((user, *id));
            }
        }
    }

    /// A node starts: no rule acknowledges yet.
    pub fn node_starts(&mut self, node: usize) {
        self.disks[node].solo = false;
    }

    /// A node's disk is another one than it was; what is on it follows.
    pub fn disk_changed(&mut self, node: usize) {
        self.disks[node] = OnDisk::default();
    }

    /// What recovery found on a disk that changed.
    pub fn found(&mut self, node: usize, meta: &Meta<'_>) {
        let (shard, dot) = (meta.head.shard, proto_dot(meta.head.dot()));
        match &meta.body {
            MetaBody::Msg(msg) => self.has_msg(node, shard, dot, MsgId(msg.msg_id)),
            MetaBody::Tomb(tomb) => {
                let targets: Vec<Dot> = tomb.targets.dots().map(proto_dot).collect();
                self.has_tomb(node, shard, &tomb.inbox, tomb.reason, &targets);
            }
            MetaBody::Epoch(_) | MetaBody::Dedup(_) | MetaBody::Mark(_) => {}
            MetaBody::Checkpoint(_) => {}
        }
    }

    /// After a disk changed: what no disk holds any more is excused.
    pub fn excuse(&mut self) {
        let [a, b] = &self.disks;
        for (id, sent) in &mut self.sent {
            let is_held = a.msgs.contains(id) || b.msgs.contains(id);
            if sent.accepted && !sent.excused && !is_held {
                sent.excused = true;
                self.excused += 1;
            }
        }
    }

    /// A sender is told that its message is in.
    pub fn accepted(&mut self, node: usize, id: MsgId, copies: u8) -> Result<(), Broken> {
        let [a, b] = [0, 1].map(|disk| self.disks[disk].msgs.contains(&id));
        let here = [a, b][node];
        if !here {
            return Err(format!("{id:?} is accepted by node {} that has not synced it", node + 1));
        }
        if copies == 2 && !(a && b) {
            return Err(format!("{id:?} is accepted with two copies and is on one disk"));
        }
        if copies == 1 && !self.disks[node].solo {
            return Err(format!("{id:?} is accepted with one copy before SOLO is synced"));
        }
        let sent = self.sent.get_mut(&id).expect("answers are for messages that were sent");
        if !sent.accepted {
            sent.accepted = true;
            self.accepted += 1;
            self.alone += u64::from(copies == 1);
        }
        Ok(())
    }

    /// A recipient gets a message from a node. Whether it is new to them.
    pub fn delivered(
        &mut self,
        node: usize,
        user: User,
        id: MsgId,
        text: &[u8],
    ) -> Result<bool, Broken> {
        let Some(sent) = self.sent.get(&id) else {
            return Err(format!("user {user} got {id:?}, which nobody sent"));
        };
        if !sent.to.contains(&user) || sent.text != text {
            return Err(format!(
                "user {user} got {id:?}, which says something else or is not theirs"
            ));
        }
        if !self.disks[node].msgs.contains(&id) {
            return Err(format!("{id:?} is delivered by node {} that has not synced it", node + 1));
        }
        let is_new = self.seen.insert((user, id));
        self.repeated += u64::from(!is_new);
        Ok(is_new)
    }

    /// Everything is well again. `inboxes` are the ids in each user's inbox on each node.
    pub fn settled(&self, inboxes: &[Vec<Vec<MsgId>>; 2]) -> Result<(), Broken> {
        for (user, (a, b)) in inboxes[0].iter().zip(&inboxes[1]).enumerate() {
            let sets = [a, b].map(|ids| ids.iter().copied().collect::<BTreeSet<_>>());
            if sets[0] != sets[1] {
                let only: Vec<_> = sets[0].symmetric_difference(&sets[1]).collect();
                return Err(format!("user {user}'s inboxes differ: {only:?} is in one of them"));
            }
            for (node, ids) in [a, b].into_iter().enumerate() {
                if ids.len() != sets[node].len() {
                    return Err(format!("user {user} has an id twice on node {}", node + 1));
                }
                let is_done =
                    |id: &&MsgId| self.disks.iter().any(|disk| disk.done.contains(&(user, **id)));
                if let Some(id) = ids.iter().find(is_done) {
                    return Err(format!("{id:?} is back in user {user}'s inbox"));
                }
            }
            let inbox = &sets[0];
            for (id, sent) in self.sent.iter().filter(|(_, sent)| sent.to.contains(&user)) {
                let has = inbox.contains(id) || self.seen.contains(&(user, *id));
                if sent.accepted && !sent.excused && !has {
                    return Err(format!("{id:?} to user {user} was accepted and is lost"));
                }
            }
        }
        Ok(())
    }

    /// Every inbox was read to its end.
    pub fn all_received(&self) -> Result<u64, Broken> {
        for (id, sent) in self.sent.iter().filter(|(_, sent)| sent.accepted && !sent.excused) {
            for user in &sent.to {
                if !self.seen.contains(&(*user, *id)) {
                    return Err(format!("{id:?} to user {user} was accepted and never came"));
                }
            }
        }
        Ok(self.seen.len() as u64)
    }
}
