//! A partition as a node drives it, without threads, sockets and disk: a core, its log, perhaps a replica.

use std::mem;

use iris_proto::core::{
    Appended, Core, CoreConfig, Delivery, Effects, KickReason, MsgRecord, Pos, Presence, Receipt,
    Refusal, RejectCode, TombRecord,
};
use iris_proto::hlc::Hlc;
use iris_proto::id::{ConnId, Dot, MsgId, Origin, ShardId};
use iris_proto::link::ToEdge;
use iris_proto::replica::{EpochRecord, Event, RecordView, RefuseCode, ReplicaEffects, ScanFrom};
use iris_proto::wire::MessageHead;
use iris_wal::recovery::Recovered;
use iris_wal::{Body, Head, Log, LogConfig, Record, record, views};

use super::log::add_segments;
use super::traffic::{FULL, Notes, Traffic, Unacked};
use super::{BATCH, T0, USERS};
use crate::work::{Bench, Cycle, Steps};

/// Shards of the cluster.
pub(super) const SHARDS: u16 = 16;
pub(super) const BENCHES: &[Bench] = &[Bench {
    name: "node/cycle",
    op: "message",
    ops: BATCH as u64,
    warm: FULL,
    turns: 10,
    start: || Steps::whole(Single::new()),
}];

/// Records go to the log, words to an edge's batch.
pub(super) struct Fx {
    pub(super) log: Log,
    /// Bytes for the mirror.
    pub(super) to_mirror: Vec<u8>,
    to_edge: Vec<u8>,
    accepted: Option<(ConnId, u32, u16, u8)>,
    unacked: Unacked,
    /// SENDs accepted with so many copies.
    pub(super) accepted_with: [u64; 3],
    targets: Vec<iris_wal::Dot>,
    origin: Origin,
    now_hlc: u64,
}

impl Fx {
    fn append(&mut self, record: &Record<'_>) -> Result<Appended, Refusal> {
        let pos = self.log.append(record);
        self.appended(record, record.encoded_len(), pos)
    }

    fn appended(
        &mut self,
        record: &Record<'_>,
        len: usize,
        pos: Result<iris_wal::Pos, iris_wal::AppendError>,
    ) -> Result<Appended, Refusal> {
        let pos = pos.expect("a turn's records fit the log");
        self.now_hlc = self.now_hlc.max(record.head.hlc);
        Ok(Appended { pos: views::proto_pos(pos), len: len as u32, lsn: self.log.lsn() })
    }

    fn outside(&self, shard: ShardId) -> Head {
        let origin = views::wal_origin(self.origin);
        Head { shard: shard.0, origin, seq: 0, hlc: self.now_hlc }
    }

    fn flush_accepted(&mut self) {
        if let Some((conn, first, count, copies)) = self.accepted.take() {
            self.accepted_with[usize::from(copies)] += u64::from(count);
            ToEdge::Accepted { conn, first, count, copies }.encode(&mut self.to_edge);
        }
    }
}

impl Effects for Fx {
    fn append_msg(&mut self, msg: &MsgRecord<'_>) -> Result<Appended, Refusal> {
        let appended = self.append(&views::msg_record(msg))?;
        views::entries_added(&mut self.log, msg.recipients, &appended);
        Ok(appended)
    }

    fn append_tomb(&mut self, tomb: &TombRecord<'_>) -> Result<Appended, Refusal> {
        let mut targets = mem::take(&mut self.targets);
        let appended = self.append(&views::tomb_record(tomb, &mut targets))?;
        self.targets = targets;
        let mut last = None;
        for target in tomb.targets {
            if last != Some(target.pos.segment) {
                last = Some(target.pos.segment);
                self.log.tomb_refers(appended.pos.segment, target.pos.segment);
            }
        }
        Ok(appended)
    }

    fn append_dedup(&mut self, shard: ShardId, body: &[u8]) -> Result<Appended, Refusal> {
        let head = self.outside(shard);
        self.append(&Record { head, body: Body::Dedup(body) })
    }

    fn entry_removed(&mut self, pos: Pos, len: u32) {
        self.log.entry_removed(views::wal_pos(pos), len);
    }

    fn entry_live(&mut self, pos: Pos, len: u32) {
        self.log.entry_added(views::wal_pos(pos), len);
    }

    fn entry_dead(&mut self, pos: Pos, tomb: Pos) {
        self.log.tomb_refers(tomb.segment, pos.segment);
    }

    fn entry_repeated(&mut self, kept: Pos, other: Pos) {
        self.log.entry_repeated(views::wal_pos(kept), views::wal_pos(other));
    }

    fn accepted(&mut self, conn: ConnId, seq: u32, copies: u8) {
        if let Some((last, first, count, last_copies)) = &mut self.accepted
            && *last == conn
            && *last_copies == copies
            && first.wrapping_add(u32::from(*count)) == seq
        {
            *count += 1;
            return;
        }
        self.flush_accepted();
        self.accepted = Some((conn, seq, 1, copies));
    }

    fn rejected(&mut self, _: ConnId, _: u32, code: RejectCode, _: u32) {
        panic!("a SEND was refused: {}", code.name());
    }

    fn welcome(&mut self, _: ConnId, _: u32, _: u64) {}

    fn kick(&mut self, _: ConnId, reason: KickReason) {
        panic!("a connection was kicked: {}", reason.name());
    }

    fn deliver(&mut self, delivery: &Delivery) {
        let bytes = self.log.recent(views::wal_pos(delivery.pos), delivery.len);
        let (record, _) = record::decode_own(bytes.expect("it is in memory")).expect("it is whole");
        let Body::Msg(msg) = record.body else { panic!("an entry is a message") };
        let is_theirs = msg.recipients.as_chunks::<16>().0.contains(&delivery.user.0);
        assert!(is_theirs && views::proto_dot(record.head.dot()) == delivery.dot);
        let head = MessageHead {
            no: delivery.no,
            id: MsgId(msg.msg_id),
            time_ms: Hlc(record.head.hlc).unix_ms(),
            flags: msg.msg_flags as u8,
            from: str::from_utf8(msg.from).expect("names are checked"),
        };
        let payload = msg.payload;
        ToEdge::encode_frame(delivery.conn, &mut self.to_edge, |out| head.encode(payload, out));
        self.unacked.note(delivery);
    }

    fn receipt(&mut self, _: &Receipt<'_>) {}

    fn presence(&mut self, _: &Presence<'_>) {}
}

impl Notes for Fx {
    fn unacked(&mut self) -> &mut Unacked {
        &mut self.unacked
    }
}

impl ReplicaEffects for Fx {
    fn decode<'a>(
        &self,
        bytes: &'a [u8],
        check: bool,
        targets: &'a mut Vec<Dot>,
    ) -> Option<(RecordView<'a>, usize)> {
        let decoded = if check { record::decode(bytes) } else { record::decode_own(bytes) };
        let (record, len) = decoded.ok()?;
        Some((views::view(&record, targets), len))
    }

    fn append_foreign(&mut self, bytes: &[u8]) -> Result<Appended, Refusal> {
        let (record, _) = record::decode_own(bytes).expect("the replica has checked it");
        let pos = self.log.append_encoded(&record, bytes);
        let appended = self.appended(&record, bytes.len(), pos)?;
        if let Body::Msg(msg) = record.body {
            views::entries_added(&mut self.log, msg.recipients, &appended);
        }
        Ok(appended)
    }

    fn append_epoch(&mut self, epoch: &EpochRecord<'_>) -> Result<Appended, Refusal> {
        self.append(&views::epoch_record(epoch))
    }

    fn append_mark(&mut self, shard: ShardId, body: &[u8]) -> Result<Appended, Refusal> {
        let head = self.outside(shard);
        self.append(&views::mark_record(head, body))
    }

    fn log_has_room(&self) -> bool {
        self.log.has_room()
    }

    fn send(&mut self, head: &[u8], body: &[u8]) {
        self.to_mirror.extend_from_slice(head);
        self.to_mirror.extend_from_slice(body);
    }

    fn close(&mut self, why: RefuseCode) {
        panic!("a link was closed: {}", why.name());
    }

    fn scan(&mut self, _: ScanFrom, _: usize) {
        panic!("a pair that lacks nothing scans nothing");
    }

    fn reincarnate(&mut self, _: u32) {
        panic!("both lives are the first");
    }

    fn event(&mut self, _: &Event) {}
}

/// A partition with senders, and recipients who are online.
pub(super) struct Node {
    pub(super) core: Core,
    pub(super) fx: Fx,
    pub(super) traffic: Traffic,
}

impl Node {
    /// One that has not recovered yet.
    pub(super) fn new(node: u32) -> Self {
        let origin = Origin { node, incarnation: 1 };
        let mut log = Log::resume(LogConfig::default(), Recovered::default());
        add_segments(&mut log);
        let fx = Fx {
            log,
            to_mirror: Vec::new(),
            to_edge: Vec::new(),
            accepted: None,
            unacked: Unacked::default(),
            accepted_with: [0; 3],
            targets: Vec::new(),
            origin,
            now_hlc: 0,
        };
        let core = Core::new(CoreConfig::new(origin, SHARDS, 7));
        Self { core, fx, traffic: Traffic::new(USERS) }
    }

    pub(super) fn log_in(&mut self) {
        self.traffic.log_in(&mut self.core, &mut self.fx);
    }

    pub(super) fn send(&mut self) {
        self.fx.to_edge.clear();
        self.traffic.send(&mut self.core, &mut self.fx);
    }

    pub(super) fn deliver(&mut self) {
        self.traffic.deliver(&mut self.core, &mut self.fx);
        self.fx.flush_accepted();
    }

    pub(super) fn ack(&mut self) {
        self.traffic.ack(&mut self.core, &mut self.fx);
    }
}

/// A node without a mirror.
struct Single(Node);

impl Single {
    fn new() -> Self {
        let mut node = Node::new(1);
        node.core.recovery_done(&mut node.fx, T0);
        node.log_in();
        Self(node)
    }

    fn write(&mut self) {
        let Node { core, fx, traffic } = &mut self.0;
        let write = fx.log.take_write().expect("a turn's records wait");
        fx.log.synced(write);
        let lsn = fx.log.durable();
        core.handle_durable(fx, traffic.now, lsn, 1);
    }
}

impl Cycle for Single {
    const STEPS: &'static [fn(&mut Self)] =
        &[|node| node.0.send(), Self::write, |node| node.0.deliver(), |node| node.0.ack()];

    fn done(&self) -> u64 {
        self.0.fx.accepted_with[1]
    }
}
