//! The effects of one node's machines: records go to its log, words to whoever simulates clients and operators.

use iris_proto::core::{
    Appended, Delivery, Double, Effects, KickReason, MsgRecord, Pos, Presence, Receipt, Refusal,
    RejectCode, TombRecord,
};
use iris_proto::id::{ConnId, Dot, Origin, ShardId};
use iris_proto::replica::{EpochRecord, Event, RecordView, RefuseCode, ReplicaEffects, ScanFrom};
use iris_proto::sabotage::{self, Sabotage};
use iris_wal::{AppendError, Body, Head, Log, Msg, Record, record, views};

/// What a node said to clients and operators.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// A SEND is in, on so many copies.
    Accepted { conn: ConnId, seq: u32, copies: u8 },
    /// A SEND is refused.
    Rejected { conn: ConnId, seq: u32, code: RejectCode, retry_after_ms: u32 },
    /// A login is done.
    Welcome { conn: ConnId, waiting: u32, session: u64 },
    /// A connection must end.
    Kick { conn: ConnId, reason: KickReason },
    /// A message is delivered.
    Deliver(Delivery),
    /// An event of the replica.
    Event(Event),
}

impl Said {
    /// To which connection it is said.
    pub fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Accepted { conn, .. } | Self::Rejected { conn, .. } => Some(*conn),
            Self::Welcome { conn, .. } | Self::Kick { conn, .. } => Some(*conn),
            Self::Deliver(delivery) => Some(delivery.conn),
            Self::Event(_) => None,
        }
    }
}

/// Where the effects go.
pub struct Fx {
    pub(crate) log: Log,
    /// What was said, in order.
    pub said: Vec<Said>,
    /// Bytes for the peer.
    pub out: Vec<u8>,
    /// The replica closed the link.
    pub closed: bool,
    /// Two records of one id, to be compared.
    pub doubles: Vec<Double>,
    pub(crate) scan: Option<(ScanFrom, usize)>,
    pub(crate) reincarnate: Option<u32>,
    /// Records appended and not synced: position in the log, shard and identity.
    pub(crate) unsynced: Vec<(u64, u16, Dot)>,
    origin: Origin,
    now_hlc: u64,
    targets: Vec<iris_wal::Dot>,
}

impl Fx {
    pub(crate) fn new(log: Log, origin: Origin) -> Self {
        Self {
            log,
            said: Vec::new(),
            out: Vec::new(),
            closed: false,
            doubles: Vec::new(),
            scan: None,
            reincarnate: None,
            unsynced: Vec::new(),
            origin,
            now_hlc: 0,
            targets: Vec::new(),
        }
    }

    pub(crate) fn append(&mut self, record: &Record<'_>) -> Result<Appended, Refusal> {
        let pos = self.log.append(record).map_err(|error| match error {
            AppendError::LowDisk => Refusal::LowDisk,
            AppendError::NoSegment | AppendError::Full => Refusal::Full,
            AppendError::TooLarge => panic!("the machines keep records within the log's bound"),
        })?;
        self.now_hlc = self.now_hlc.max(record.head.hlc);
        let is_copy = matches!(record.body, Body::Msg(Msg { copy: true, .. }));
        if record.head.seq > 0 && !is_copy {
            let dot = views::proto_dot(record.head.dot());
            self.unsynced.push((self.log.lsn(), record.head.shard, dot));
        }
        let len = record.encoded_len() as u32;
        Ok(Appended { pos: views::proto_pos(pos), len, lsn: self.log.lsn() })
    }

    pub(crate) fn outside(&self, shard: ShardId) -> Head {
        let origin = views::wal_origin(self.origin);
        Head { shard: shard.0, origin, seq: 0, hlc: self.now_hlc }
    }
}

impl Effects for Fx {
    fn append_msg(&mut self, msg: &MsgRecord<'_>) -> Result<Appended, Refusal> {
        let appended = self.append(&views::msg_record(msg))?;
        views::entries_added(&mut self.log, msg.recipients, &appended);
        Ok(appended)
    }

    fn append_tomb(&mut self, tomb: &TombRecord<'_>) -> Result<Appended, Refusal> {
        let mut targets = std::mem::take(&mut self.targets);
        let appended = self.append(&views::tomb_record(tomb, &mut targets));
        self.targets = targets;
        let appended = appended?;
        for target in tomb.targets {
            if sabotage::is(Sabotage::TombsPruned) {
                break;
            }
            self.log.tomb_refers(appended.pos.segment, target.pos.segment);
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
        if sabotage::is(Sabotage::TombsPruned) {
            return;
        }
        self.log.tomb_refers(tomb.segment, pos.segment);
    }

    fn entry_repeated(&mut self, kept: Pos, other: Pos) {
        self.log.entry_repeated(views::wal_pos(kept), views::wal_pos(other));
    }

    fn doubled(&mut self, double: &Double) {
        self.doubles.push(*double);
    }

    fn accepted(&mut self, conn: ConnId, seq: u32, copies: u8) {
        self.said.push(Said::Accepted { conn, seq, copies });
    }

    fn rejected(&mut self, conn: ConnId, seq: u32, code: RejectCode, retry_after_ms: u32) {
        self.said.push(Said::Rejected { conn, seq, code, retry_after_ms });
    }

    fn welcome(&mut self, conn: ConnId, waiting: u32, session: u64) {
        self.said.push(Said::Welcome { conn, waiting, session });
    }

    fn kick(&mut self, conn: ConnId, reason: KickReason) {
        self.said.push(Said::Kick { conn, reason });
    }

    fn deliver(&mut self, delivery: &Delivery) {
        self.said.push(Said::Deliver(*delivery));
    }

    fn receipt(&mut self, _receipt: &Receipt<'_>) {}

    fn presence(&mut self, _presence: &Presence<'_>) {}
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
        let (record, _) = record::decode(bytes).expect("the replica has decoded it");
        let appended = self.append(&record)?;
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
        self.out.extend_from_slice(head);
        self.out.extend_from_slice(body);
    }

    fn close(&mut self, _why: RefuseCode) {
        self.closed = true;
    }

    fn scan(&mut self, from: ScanFrom, bytes_max: usize) {
        assert!(self.scan.replace((from, bytes_max)).is_none(), "one scan at a time");
    }

    fn reincarnate(&mut self, above: u32) {
        self.reincarnate = Some(above);
    }

    fn event(&mut self, event: &Event) {
        self.said.push(Said::Event(*event));
    }
}
