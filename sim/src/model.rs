//! What must be true, in plain maps that share nothing with the machines under test.
//!
//! The model hears what clients do and are told, which records became durable on which disk, and what a fault took from a
//! disk for good. It knows nothing of streams, vectors or modes beyond what stands in the records.
//!
//! **The loss budget.** A message that was accepted may be lost only if no disk holds a record of it any more, and that only
//! happens when a fault destroyed each record of it. Faults that destroy hit one disk of a run, so a message that both disks
//! held is never excused. A message may come back after its removal only if every record of the removal was destroyed.
//! Where inboxes have a policy to drop, what a TOMB says gave way need not come; elsewhere such a TOMB must not be.

use std::collections::{BTreeMap, BTreeSet};

use iris_proto::id::{Dot, MsgId, Origin};
use iris_proto::replica::Mode;
use iris_wal::views::proto_dot;
use iris_wal::{Body, Meta, MetaBody, Reason, Record, record};

/// A user's number.
pub type User = usize;
/// A record's identity, with its shard.
pub type At = (u16, Dot);

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
    /// The SENDs that a node took as new. Its records are in no doubt if that is one, and no fault touched it.
    made: Vec<Made>,
    touched: bool,
    /// The SEND that made it was answered with two copies: whichever node comes next has it.
    sure: bool,
}

/// A SEND that a node took as new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made {
    /// The client's connection, among all of the run.
    pub conn: u64,
    /// Its place among the SENDs of that connection.
    pub nth: u32,
    /// Which life of which node took it.
    pub by: Origin,
}

/// The last SENDs that a session saw, by connection and by the life of a node that took them.
pub type Last = BTreeMap<(u64, Origin), u32>;

/// What is on one disk.
#[derive(Clone, Default, Debug)]
struct OnDisk {
    /// Messages that the node was told are synced here.
    told: BTreeSet<MsgId>,
    /// Records that are here as far as faults let them.
    held: BTreeSet<At>,
    /// Records that a fault took.
    destroyed: BTreeSet<At>,
    /// Lives of its node.
    lives: u32,
    /// A batch never got here, perhaps one without a record of a stream: the log is damaged all the same.
    lacks_batch: bool,
    /// An EPOCH(SOLO) of the present life.
    solo: bool,
    /// What was told before the disk was replaced, until the pair has healed: the peer's words may speak of it.
    before: BTreeSet<MsgId>,
}

/// The model of a run.
#[derive(Default)]
pub struct Model {
    /// Keys of the users, to find them by.
    keys: Vec<[u8; 16]>,
    sent: BTreeMap<MsgId, Sent>,
    dots: BTreeMap<At, MsgId>,
    msgs: BTreeMap<MsgId, BTreeSet<At>>,
    /// The TOMBs that say that a message is done, other than by collapsing into another record of it.
    done: BTreeMap<(User, MsgId), BTreeSet<At>>,
    /// Records that gave way to another one of the same id, by inbox.
    collapsed: BTreeSet<(User, At)>,
    /// Inboxes have a policy by which they drop messages.
    may_drop: bool,
    /// What gave way in a full inbox.
    displaced: BTreeSet<(User, MsgId)>,
    disks: [OnDisk; 2],
    images: [Option<OnDisk>; 2],
    /// Who got what.
    seen: BTreeSet<(User, MsgId)>,
    /// Who acknowledged what.
    acked: BTreeSet<(User, MsgId)>,
    /// What nodes said to be accepted, with how many copies.
    said: BTreeSet<(MsgId, u8)>,
    /// A record that must not be.
    wrong: Option<Broken>,
    /// Messages accepted, and those with one copy.
    pub accepted: u64,
    /// Of those, with one copy.
    pub alone: u64,
    /// Deliveries of what was seen before.
    pub repeated: u64,
    /// Deliveries whose order was checked.
    pub ordered: u64,
}

/// What is not true.
pub type Broken = String;

impl Model {
    /// A model of users with these keys.
    /// Without `may_drop` only who reads a message removes it.
    pub fn new(keys: Vec<[u8; 16]>, may_drop: bool) -> Self {
        Self { keys, may_drop, ..Self::default() }
    }

    /// A sender begins a message.
    pub fn begin(&mut self, id: MsgId, from: User, to: Vec<User>, text: Vec<u8>) {
        let (accepted, touched, sure) = (false, false, false);
        let sent = Sent { from, to, text, accepted, made: Vec::new(), touched, sure };
        assert!(self.sent.insert(id, sent).is_none(), "ids are used once");
    }

    /// A message as its sender knows it.
    pub fn sent(&self, id: MsgId) -> &Sent {
        &self.sent[&id]
    }

    /// Messages that were accepted and are not excused.
    pub fn accepted_ids(&self) -> Vec<MsgId> {
        let held = |id: &MsgId, sent: &Sent| sent.to.iter().any(|user| self.is_held(*user, *id));
        let accepted = self.sent.iter().filter(|(id, sent)| sent.accepted && held(id, sent));
        accepted.map(|(id, _)| *id).collect()
    }

    /// A node took a SEND as new.
    pub fn made(&mut self, id: MsgId, made: Made) {
        let sent = self.sent.get_mut(&id).expect("only what was sent is made");
        sent.made.push(made);
    }

    /// A SEND is answered with two copies.
    pub fn is_on_both(&mut self, id: MsgId, send: Made) {
        let sent = self.sent.get_mut(&id).expect("answers are for messages that were sent");
        sent.sure |= sent.made == [send];
    }

    fn user(&self, key: &[u8; 16]) -> User {
        self.keys.iter().position(|of| of == key).expect("inboxes are those of users")
    }

    /// The message that a record holds.
    pub fn id_of(&self, at: At) -> Option<MsgId> {
        self.dots.get(&at).copied()
    }

    /// A batch is durable on a node's disk: its records. `lied`: it never got there, and the node does not know.
    pub fn durable(&mut self, node: usize, me: u32, mut records: &[u8], lied: bool) {
        self.disks[node].lacks_batch |= lied;
        while !records.is_empty() {
            let (record, len) = record::decode(records).expect("a durable batch is whole");
            records = &records[len..];
            let at = (record.head.shard, proto_dot(record.head.dot()));
            self.says(at, &record);
            if let Some(id) = self.dots.get(&at) {
                self.disks[node].told.insert(*id);
            }
            if let Body::Epoch(epoch) = &record.body
                && at.1.origin.node == me
            {
                self.disks[node].solo |= Mode::of(epoch.state) == Some(Mode::Solo);
            }
            if at.1.seq > 0 {
                let disk = &mut self.disks[node];
                match lied {
                    true if disk.held.contains(&at) => {}
                    true => _ = disk.destroyed.insert(at),
                    false => {
                        disk.held.insert(at);
                        disk.destroyed.remove(&at);
                    }
                }
            }
            if lied {
                self.touch(at);
            }
        }
    }

    /// What a record says of messages.
    fn says(&mut self, at: At, record: &Record<'_>) {
        match &record.body {
            Body::Msg(msg) => self.has_msg(at, MsgId(msg.msg_id)),
            Body::Tomb(tomb) => {
                let targets: Vec<Dot> = tomb.targets.dots().map(proto_dot).collect();
                self.has_tomb(at, &tomb.inbox, tomb.reason, &targets);
            }
            Body::Epoch(_) | Body::Dedup(_) | Body::Mark(_) | Body::Checkpoint(_) => {}
        }
    }

    fn has_msg(&mut self, at: At, id: MsgId) {
        self.dots.insert(at, id);
        self.msgs.entry(id).or_default().insert(at);
    }

    fn has_tomb(&mut self, at: At, inbox: &[u8; 16], reason: Reason, of: &[Dot]) {
        let user = self.user(inbox);
        if reason == Reason::COLLAPSED {
            return self.collapsed.extend(of.iter().map(|dot| (user, (at.0, *dot))));
        }
        for dot in of {
            if let Some(id) = self.dots.get(&(at.0, *dot)) {
                // Another record of an id that gave way goes like one of an id that was read.
                let is_over = |of: &BTreeSet<(User, MsgId)>| of.contains(&(user, *id));
                if reason == Reason::ACKED && !is_over(&self.acked) && !is_over(&self.displaced) {
                    let what =
                        format!("{id:?} is removed, and user {user} has not acknowledged it");
                    self.wrong.get_or_insert(what);
                }
                if matches!(reason, Reason::EXPIRED | Reason::DISPLACED) {
                    if !self.may_drop {
                        self.wrong.get_or_insert(format!("{id:?} is dropped without a policy"));
                    }
                    self.displaced.insert((user, *id));
                }
                self.done.entry((user, *id)).or_default().insert(at);
            }
        }
    }

    /// A node starts: no rule acknowledges yet.
    pub fn node_starts(&mut self, node: usize) {
        self.disks[node].solo = false;
        self.disks[node].lives += 1;
    }

    /// Both nodes have what the other had.
    pub fn healed(&mut self) {
        self.disks.iter_mut().for_each(|disk| disk.before.clear());
    }

    /// What recovery found: a crash may leave more than was known to be synced.
    pub fn found(&mut self, node: usize, meta: &Meta<'_>) {
        let at = (meta.head.shard, proto_dot(meta.head.dot()));
        match &meta.body {
            MetaBody::Msg(msg) => {
                self.has_msg(at, MsgId(msg.msg_id));
                self.disks[node].told.insert(MsgId(msg.msg_id));
            }
            MetaBody::Tomb(tomb) => {
                let targets: Vec<Dot> = tomb.targets.dots().map(proto_dot).collect();
                self.has_tomb(at, &tomb.inbox, tomb.reason, &targets);
            }
            MetaBody::Epoch(_) | MetaBody::Dedup(_) | MetaBody::Mark(_) => {}
            MetaBody::Checkpoint(_) => {}
        }
        let disk = &mut self.disks[node];
        if at.1.seq > 0 && !disk.destroyed.contains(&at) {
            disk.held.insert(at);
        }
    }

    /// A fault took these records from a node's disk.
    pub fn destroyed(&mut self, node: usize, lost: &BTreeSet<At>) {
        for at in lost {
            self.disks[node].held.remove(at);
            self.disks[node].destroyed.insert(*at);
            self.touch(*at);
        }
    }

    fn touch(&mut self, at: At) {
        if let Some(id) = self.dots.get(&at) {
            self.sent.get_mut(id).expect("records are of what was sent").touched = true;
        }
    }

    /// An image of a node's disk is taken.
    pub fn image_taken(&mut self, node: usize) {
        self.images[node] = Some(self.disks[node].clone());
    }

    /// A node's disk is what it was when the last image was taken, or empty.
    pub fn image_restored(&mut self, node: usize, is_empty: bool) {
        let image = self.images[node].take().filter(|_| !is_empty).unwrap_or_default();
        let now = std::mem::replace(&mut self.disks[node], image);
        let disk = &mut self.disks[node];
        disk.before = now.told;
        let lost: BTreeSet<At> =
            now.held.difference(&disk.held).chain(&now.destroyed).copied().collect();
        let lost: BTreeSet<At> = lost.into_iter().filter(|at| !disk.held.contains(at)).collect();
        self.destroyed(node, &lost);
    }

    /// Whether a disk still holds a record of a message for a user, other than one that gave way to another one.
    fn is_held(&self, user: User, id: MsgId) -> bool {
        let none = BTreeSet::new();
        let records = self.msgs.get(&id).unwrap_or(&none);
        let is_double = records.len() > 1;
        let counts = |at: &&At| !(is_double && self.collapsed.contains(&(user, **at)));
        let mut records = records.iter().filter(counts);
        records.any(|at| self.disks.iter().any(|disk| disk.held.contains(at)))
    }

    /// Whether a message may be in an inbox: nothing says that it is done, or all that said so was destroyed.
    fn may_be_there(&self, user: User, id: MsgId) -> bool {
        let Some(tombs) = self.done.get(&(user, id)) else { return true };
        !tombs.iter().any(|at| self.disks.iter().any(|disk| disk.held.contains(at)))
    }

    /// What a record says that must not be, if there was such a record.
    pub fn check_records(&self) -> Result<(), Broken> {
        self.wrong.clone().map_or(Ok(()), Err)
    }

    /// A recipient acknowledges a message.
    pub fn acknowledged(&mut self, user: User, id: MsgId) {
        self.acked.insert((user, id));
    }

    /// A node says that a message is in.
    pub fn says_accepted(&mut self, node: usize, id: MsgId, copies: u8) -> Result<(), Broken> {
        // What all recipients have acknowledged is over: a node with a new disk knows of it without its record.
        let is_over = self.sent[&id].to.iter().all(|user| self.acked.contains(&(*user, id)));
        let told = |disk: &OnDisk| disk.told.contains(&id) || disk.before.contains(&id);
        let [a, b] = [0, 1].map(|disk| is_over || told(&self.disks[disk]));
        if !is_over && !self.disks[node].told.contains(&id) {
            return Err(format!("{id:?} is accepted by node {} that has not synced it", node + 1));
        }
        if copies == 2 && !(a && b) {
            return Err(format!("{id:?} is accepted with two copies and is on one disk"));
        }
        if copies == 1 && !self.disks[node].solo {
            return Err(format!("{id:?} is accepted with one copy before SOLO is synced"));
        }
        self.said.insert((id, copies));
        Ok(())
    }

    /// A sender is told that its message is in.
    pub fn accepted(&mut self, id: MsgId, copies: u8) -> Result<(), Broken> {
        if !self.said.contains(&(id, copies)) {
            return Err(format!("{id:?} is accepted with {copies} copies, and no node said so"));
        }
        let sent = self.sent.get_mut(&id).expect("answers are for messages that were sent");
        if !sent.accepted {
            sent.accepted = true;
            self.accepted += 1;
            self.alone += u64::from(copies == 1);
        }
        Ok(())
    }

    /// A node delivers a message.
    pub fn delivers(
        &mut self,
        node: usize,
        user: User,
        id: MsgId,
        text: &[u8],
    ) -> Result<(), Broken> {
        self.is_theirs(user, id, text)?;
        let disk = &self.disks[node];
        if !disk.told.contains(&id) {
            return Err(format!("{id:?} is delivered by node {} that has not synced it", node + 1));
        }
        // Removals of the other node take effect when both have synced them. A log that was damaged gets back what it had
        // dropped, before it gets back why.
        let is_whole = disk.destroyed.is_empty() && !disk.lacks_batch;
        // Of an id whose record is reclaimed a later life knows no number, so it takes a second record for the first
        // (docs/REPLICATION.md, section 3).
        let is_second = self.msgs.get(&id).is_some_and(|records| records.len() > 1);
        let is_whole = is_whole && !(is_second && disk.lives > 1);
        let own = |at: &&At| at.1.origin.node == node as u32 + 1 && disk.held.contains(at);
        let tombs = self.done.get(&(user, id)).filter(|_| is_whole);
        if tombs.is_some_and(|tombs| tombs.iter().any(|at| own(&at))) {
            return Err(format!("{id:?} is delivered by node {} after its removal", node + 1));
        }
        Ok(())
    }

    fn is_theirs(&self, user: User, id: MsgId, text: &[u8]) -> Result<&Sent, Broken> {
        let Some(sent) = self.sent.get(&id) else {
            return Err(format!("user {user} got {id:?}, which nobody sent"));
        };
        if !sent.to.contains(&user) || sent.text != text {
            return Err(format!(
                "user {user} got {id:?}, which says something else or is not theirs"
            ));
        }
        Ok(sent)
    }

    /// A recipient gets a message. `last` is what their session saw.
    pub fn received(
        &mut self,
        user: User,
        id: MsgId,
        text: &[u8],
        last: &mut Last,
    ) -> Result<(), Broken> {
        let sent = self.is_theirs(user, id, text)?;
        if let [Made { conn, nth, by }] = sent.made[..]
            && !sent.touched
        {
            // What took a later SEND behind an edge may not have known what the other node, or an earlier life that a crash
            // took this from, had taken alone.
            let is_late = |(&(of, life), before): (&(u64, Origin), &u32)| {
                of == conn && *before > nth && (life == by || sent.sure)
            };
            if last.iter().any(is_late) {
                return Err(format!("{id:?} is delivered to user {user} after what came later"));
            }
            last.insert((conn, by), nth);
            self.ordered += 1;
        }
        let is_new = self.seen.insert((user, id));
        self.repeated += u64::from(!is_new);
        Ok(())
    }

    /// A node refused a SEND of an edge. Its client, or the edge if the link broke before it heard, sends it again, and it
    /// takes its place then.
    pub fn refused(&mut self, id: MsgId) {
        self.put_off(id);
    }

    /// A node could not read a message for its recipient: it comes later.
    pub fn put_off(&mut self, id: MsgId) {
        if let Some(sent) = self.sent.get_mut(&id) {
            sent.touched = true;
        }
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
                if let Some(id) = ids.iter().find(|id| !self.may_be_there(user, **id)) {
                    return Err(format!("{id:?} is back in user {user}'s inbox"));
                }
            }
            let inbox = &sets[0];
            for (id, sent) in self.sent.iter().filter(|(_, sent)| sent.to.contains(&user)) {
                let has = inbox.contains(id) || self.is_over(user, *id);
                if sent.accepted && !has && self.is_held(user, *id) {
                    return Err(format!("{id:?} to user {user} was accepted and is lost"));
                }
            }
        }
        Ok(())
    }

    /// Whether a recipient got a message, or it gave way in their inbox.
    fn is_over(&self, user: User, id: MsgId) -> bool {
        self.seen.contains(&(user, id)) || self.displaced.contains(&(user, id))
    }

    /// Messages that gave way and were never read.
    pub fn displaced(&self) -> u64 {
        self.displaced.difference(&self.seen).count() as u64
    }

    /// Every inbox was read to its end: messages received, and messages lost with the only disk that held them.
    pub fn all_received(&self) -> Result<(u64, u64), Broken> {
        let mut excused = 0;
        for (id, sent) in self.sent.iter().filter(|(_, sent)| sent.accepted) {
            let mut lacks = sent.to.iter().filter(|user| !self.is_over(**user, *id));
            if let Some(user) = lacks.clone().find(|user| self.is_held(**user, *id)) {
                return Err(format!("{id:?} to user {user} was accepted and never came"));
            }
            excused += u64::from(lacks.next().is_some());
        }
        Ok((self.seen.len() as u64, excused))
    }
}
