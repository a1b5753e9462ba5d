//! Two nodes in memory, each a core, a replica and a log, and a link between them that the test moves.

mod codec;
mod healing;
mod ruling;

use std::collections::VecDeque;

use super::*;
use crate::core::{
    Appended, Core, CoreConfig, Delivery, Double, Effects, KickReason, MsgRecord, Pos, Presence,
    Receipt, RecoveredMsg, RecoveredTomb, Refusal, RejectCode, SendRequest, TombReason, TombRecord,
};
use crate::hlc::Hlc;
use crate::id::{ConnId, MsgId, UserKey};
use crate::peer::PartitionState;

const T0: u64 = 1_800_000_000_000;
const SHARDS: u16 = 2;
/// Batches in a segment of these logs.
const BATCHES: u64 = 4;

#[derive(Clone, Debug)]
struct Batch {
    lsn: u64,
    records: Vec<u8>,
}

/// A log, and what was said.
#[derive(Default)]
struct Disk {
    open: Vec<u8>,
    /// The number of the open batch, or of the last one if none is open.
    lsn: u64,
    /// Closed batches, as they are on disk or on the way.
    batches: VecDeque<Batch>,
    durable: u64,
    has_room: bool,
    accepted: Vec<(u32, u8)>,
    rejected: Vec<(u32, RejectCode)>,
    delivered: Vec<(UserKey, Pos, u32)>,
    doubles: Vec<Double>,
    events: Vec<Event>,
    sent: Vec<u8>,
    closed: Option<RefuseCode>,
    scan: Option<(ScanFrom, usize)>,
    reincarnate: Option<u32>,
}

fn segment_of(lsn: u64) -> u32 {
    1 + (lsn / BATCHES) as u32
}

impl Disk {
    fn append(&mut self, bytes: &[u8]) -> Result<Appended, Refusal> {
        if !self.has_room {
            return Err(Refusal::Full);
        }
        if self.open.is_empty() {
            self.lsn += 1;
        }
        let offset = self.lsn as u32 * 100_000 + self.open.len() as u32;
        self.open.extend_from_slice(bytes);
        let pos = Pos { segment: segment_of(self.lsn), offset };
        Ok(Appended { pos, len: bytes.len() as u32, lsn: self.lsn })
    }

    fn record_at(&self, pos: Pos) -> &[u8] {
        let lsn = u64::from(pos.offset / 100_000);
        let batch = self.batches.iter().find(|batch| batch.lsn == lsn).expect("it is there");
        &batch.records[pos.offset as usize % 100_000..]
    }
}

impl Effects for Disk {
    fn append_msg(&mut self, record: &MsgRecord<'_>) -> Result<Appended, Refusal> {
        self.append(&codec::msg(record))
    }

    fn append_tomb(&mut self, record: &TombRecord<'_>) -> Result<Appended, Refusal> {
        self.append(&codec::tomb(record))
    }

    fn append_dedup(&mut self, shard: ShardId, body: &[u8]) -> Result<Appended, Refusal> {
        self.append(&codec::outside(3, shard, body))
    }

    fn entry_removed(&mut self, _pos: Pos, _len: u32) {}
    fn entry_live(&mut self, _pos: Pos, _len: u32) {}
    fn entry_dead(&mut self, _pos: Pos, _tomb: Pos) {}
    fn entry_repeated(&mut self, _kept: Pos, _other: Pos) {}

    fn doubled(&mut self, double: &Double) {
        self.doubles.push(*double);
    }

    fn accepted(&mut self, _conn: ConnId, seq: u32, copies: u8) {
        self.accepted.push((seq, copies));
    }

    fn rejected(&mut self, _conn: ConnId, seq: u32, code: RejectCode, _retry_after_ms: u32) {
        self.rejected.push((seq, code));
    }

    fn welcome(&mut self, _conn: ConnId, _waiting: u32, _session: u64) {}
    fn kick(&mut self, _conn: ConnId, _reason: KickReason) {}

    fn deliver(&mut self, delivery: &Delivery) {
        self.delivered.push((delivery.user, delivery.pos, delivery.no));
    }

    fn receipt(&mut self, _receipt: &Receipt<'_>) {}
    fn presence(&mut self, _presence: &Presence<'_>) {}
}

impl ReplicaEffects for Disk {
    fn decode<'a>(
        &self,
        bytes: &'a [u8],
        _check: bool,
        targets: &'a mut Vec<Dot>,
    ) -> Option<(RecordView<'a>, usize)> {
        codec::decode(bytes, targets)
    }

    fn append_foreign(&mut self, record: &[u8]) -> Result<Appended, Refusal> {
        self.append(record)
    }

    fn append_epoch(&mut self, record: &EpochRecord<'_>) -> Result<Appended, Refusal> {
        self.append(&codec::epoch(record))
    }

    fn append_mark(&mut self, shard: ShardId, body: &[u8]) -> Result<Appended, Refusal> {
        self.append(&codec::outside(5, shard, body))
    }

    fn log_has_room(&self) -> bool {
        self.has_room
    }

    fn send(&mut self, head: &[u8], body: &[u8]) {
        self.sent.extend_from_slice(head);
        self.sent.extend_from_slice(body);
    }

    fn close(&mut self, why: RefuseCode) {
        self.closed = Some(why);
    }

    fn scan(&mut self, from: ScanFrom, bytes_max: usize) {
        assert!(self.scan.replace((from, bytes_max)).is_none(), "one scan at a time");
    }

    fn reincarnate(&mut self, above: u32) {
        self.reincarnate = Some(above);
    }

    fn event(&mut self, event: &Event) {
        self.events.push(*event);
    }
}

struct Node {
    core: Core,
    replica: Replica,
    fx: Disk,
    now: u64,
    next_seq: u32,
    config: ReplicaConfig,
}

impl Node {
    fn new(node: u32, change: impl FnOnce(&mut ReplicaConfig)) -> Self {
        let me = Origin { node, incarnation: 1 };
        let mut config = ReplicaConfig::new(me, 3 - node, SHARDS);
        change(&mut config);
        Self::start(config, VecDeque::new(), true, 0)
    }

    /// A life with this log.
    fn start(config: ReplicaConfig, batches: VecDeque<Batch>, sound: bool, now: u64) -> Self {
        let core = Core::new(CoreConfig::new(config.me, SHARDS, 7));
        let replica = Replica::new(config.clone());
        let fx = Disk { has_room: true, ..Disk::default() };
        let mut node = Self { core, replica, fx, now, next_seq: 0, config };
        node.fx.lsn = batches.back().map_or(0, |batch| batch.lsn);
        node.fx.durable = node.fx.lsn;
        for batch in &batches {
            node.recover(batch);
        }
        node.fx.batches = batches;
        let (at, lsn) = (node.at(), node.fx.lsn);
        node.replica.recovery_done(&mut node.fx, &mut node.core, at, sound, lsn);
        node
    }

    fn recover(&mut self, batch: &Batch) {
        let mut targets = Vec::new();
        let mut at = 0;
        while let Some((record, len)) = codec::decode(&batch.records[at..], &mut targets) {
            let segment = segment_of(batch.lsn);
            let pos = Pos { segment, offset: batch.lsn as u32 * 100_000 + at as u32 };
            self.replica.recover(segment, &record);
            let RecordView { shard, dot, hlc, .. } = record;
            match record.body {
                RecordBody::Msg { sender, msg_id, flags, recipients } => {
                    let len = len as u32;
                    let msg = RecoveredMsg {
                        shard,
                        dot,
                        hlc,
                        pos,
                        len,
                        sender,
                        msg_id,
                        flags,
                        recipients,
                    };
                    self.core.recover_msg(&msg).unwrap();
                }
                RecordBody::Tomb { inbox, collapsed, targets } => {
                    let tomb = RecoveredTomb { shard, dot, hlc, pos, inbox, collapsed };
                    self.core.recover_tomb(&tomb, targets.iter().copied()).unwrap();
                }
                RecordBody::Other => {
                    let body = &batch.records[at + codec::HEAD_BYTES..at + len];
                    self.core.recover_dedup(shard, body).unwrap();
                }
                RecordBody::Epoch { .. } | RecordBody::Mark(_) => {}
            }
            at += len;
        }
        assert_eq!(at, batch.records.len());
    }

    /// The node stops and starts again with what was synced.
    fn restart(&mut self) {
        let mut batches = self.fx.batches.clone();
        batches.retain(|batch| batch.lsn <= self.fx.durable);
        let mut config = self.config.clone();
        config.me.incarnation += 1;
        *self = Self::start(config, batches, true, self.now);
    }

    fn at(&self) -> Now {
        Now { unix_ms: T0 + self.now, mono_ms: self.now }
    }

    fn send(&mut self, id: u128, to: &str) -> u32 {
        self.send_text(id, to, b"hello")
    }

    fn send_text(&mut self, id: u128, to: &str, payload: &[u8]) -> u32 {
        self.next_seq += 1;
        let send = SendRequest {
            conn: ConnId::new(1, 1, 0),
            seq: self.next_seq,
            sender: UserKey::of("sender"),
            from: "sender",
            msg_id: msg_id(id),
            flags: 0,
            recipients: &UserKey::of(to).0,
            payload,
        };
        self.core.handle_send(&mut self.fx, T0 + self.now, &send);
        self.next_seq
    }

    /// Logs a user in; returns the numbers of what is delivered.
    fn read(&mut self, user: &str, connection: u32) -> Vec<u128> {
        let (key, conn) = (UserKey::of(user), ConnId::new(2, connection, 0));
        self.fx.delivered.clear();
        self.core.handle_login(&mut self.fx, T0 + self.now, conn, key, user, 1000);
        self.delivered(user)
    }

    /// What is delivered to a user now.
    fn delivered(&mut self, user: &str) -> Vec<u128> {
        while self.core.poll(&mut self.fx, T0 + self.now, 64) {}
        let key = UserKey::of(user);
        let mine: Vec<Pos> =
            self.fx.delivered.iter().filter(|of| of.0 == key).map(|of| of.1).collect();
        mine.into_iter().map(|pos| codec::number_of(self.fx.record_at(pos))).collect()
    }

    fn ack(&mut self, user: &str, connection: u32, upto: u32) {
        let (key, conn) = (UserKey::of(user), ConnId::new(2, connection, 0));
        self.core.handle_ack(&mut self.fx, T0 + self.now, conn, key, upto);
    }

    /// Closes the open batch: its write begins.
    fn close(&mut self) {
        if self.fx.open.is_empty() {
            return;
        }
        let records = std::mem::take(&mut self.fx.open);
        let (lsn, at) = (self.fx.lsn, self.at());
        let place = ScanFrom { segment: segment_of(lsn), offset: lsn as u32 };
        self.fx.batches.push_back(Batch { lsn, records: records.clone() });
        self.replica.batch_closed(&mut self.fx, &mut self.core, at, lsn, place, &records);
    }

    /// All closed batches are synced.
    fn sync(&mut self) {
        self.fx.durable = self.fx.batches.back().map_or(0, |batch| batch.lsn);
        let (lsn, at) = (self.fx.durable, self.at());
        self.replica.handle_durable(&mut self.fx, &mut self.core, at, lsn);
        self.poll();
    }

    fn flush(&mut self) {
        while !self.fx.open.is_empty() || self.fx.durable < self.fx.lsn {
            self.close();
            self.sync();
        }
    }

    fn poll(&mut self) {
        let at = self.at();
        self.replica.poll(&mut self.fx, &mut self.core, at);
        while self.core.poll(&mut self.fx, at.unix_ms, 64) {}
        self.answer_scan();
    }

    /// Reads one batch of the segment for a scan.
    fn answer_scan(&mut self) {
        let Some((from, _)) = self.fx.scan.take() else { return };
        let in_segment = |batch: &&Batch| {
            let is_here = segment_of(batch.lsn) == from.segment && batch.lsn <= self.fx.durable;
            is_here && batch.lsn >= u64::from(from.offset)
        };
        let mut batches = self.fx.batches.iter().filter(in_segment);
        let records = batches.next().map_or(Vec::new(), |batch| batch.records.clone());
        let next = batches.next().map(|batch| batch.lsn as u32);
        let at = self.at();
        let scanned = Scanned { from, records: &records, next };
        self.replica.handle_scanned(&mut self.fx, &mut self.core, at, &scanned);
        self.poll();
    }

    fn mode(&self) -> Mode {
        self.replica.status(self.at()).mode
    }

    fn inbox(&self, user: &str) -> Vec<Dot> {
        let mut dots: Vec<Dot> = self.core.inbox(UserKey::of(user)).map(|(dot, _)| dot).collect();
        dots.sort();
        dots
    }

    fn numbers(&self, user: &str) -> Vec<u128> {
        let inbox = self.core.inbox(UserKey::of(user));
        let mut ids: Vec<u128> =
            inbox.map(|(_, pos)| codec::number_of(self.fx.record_at(pos))).collect();
        ids.sort_unstable();
        ids
    }
}

fn msg_id(number: u128) -> MsgId {
    MsgId::v7(T0, number)
}

/// Two nodes, and a link that is up or not.
struct Pair {
    a: Node,
    b: Node,
    link: Option<u64>,
    next_link: u64,
}

impl Pair {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl Fn(&mut ReplicaConfig)) -> Self {
        let (a, b) = (Node::new(1, &change), Node::new(2, &change));
        Self { a, b, link: None, next_link: 1 }
    }

    /// Two nodes in NORMAL.
    fn normal() -> Self {
        let mut pair = Self::new();
        pair.connect();
        pair.run(20);
        assert_eq!((pair.a.mode(), pair.b.mode()), (Mode::Normal, Mode::Normal));
        pair.forget();
        pair
    }

    fn connect(&mut self) {
        let link = self.next_link;
        self.next_link += 1;
        self.link = Some(link);
        for node in [&mut self.a, &mut self.b] {
            (node.fx.closed, node.fx.sent) = (None, Vec::new());
            let at = node.at();
            node.replica.link_up(&mut node.fx, &mut node.core, at, link);
        }
    }

    fn cut(&mut self, how: LinkDown) {
        let Some(link) = self.link.take() else { return };
        for node in [&mut self.a, &mut self.b] {
            let at = node.at();
            node.replica.link_down(&mut node.fx, &mut node.core, at, link, how);
        }
    }

    /// Carries what both have sent to the other one. Whether there was anything.
    fn carry(&mut self) -> bool {
        let Some(link) = self.link else { return false };
        let to_b = std::mem::take(&mut self.a.fx.sent);
        let to_a = std::mem::take(&mut self.b.fx.sent);
        for (node, bytes) in [(&mut self.a, &to_a), (&mut self.b, &to_b)] {
            // In pieces of any size.
            for piece in bytes.chunks(97) {
                let at = node.at();
                node.replica.handle_bytes(&mut node.fx, &mut node.core, at, link, piece);
            }
        }
        if self.a.fx.closed.is_some() || self.b.fx.closed.is_some() {
            self.cut(LinkDown::Lost);
        }
        !to_a.is_empty() || !to_b.is_empty()
    }

    /// Lets so many milliseconds pass in which everything works.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.tick(1);
            for _ in 0..4 {
                self.a.flush();
                self.b.flush();
                self.carry();
            }
        }
    }

    /// Time passes, and nothing else happens but what follows from that.
    fn tick(&mut self, ms: u64) {
        for node in [&mut self.a, &mut self.b] {
            node.now += ms;
            node.poll();
        }
    }

    /// Lets go of what was said.
    fn forget(&mut self) {
        for fx in [&mut self.a.fx, &mut self.b.fx] {
            (fx.accepted, fx.rejected, fx.events) = (Vec::new(), Vec::new(), Vec::new());
        }
    }

    fn assert_alike(&self, users: &[&str]) {
        for user in users {
            assert_eq!(self.a.inbox(user), self.b.inbox(user), "{user}");
        }
    }
}
