//! The core's effects: records into the log, answers into the reactors' batches.

use super::disk::{FrameRead, Records, Wanted};
use super::mirror::Hands;
use crate::link::Links;
use crate::metrics::{PartitionMetrics, RejectReason, WalMetrics};
use iris_proto::core::{
    Appended, CoreConfig, Delivery, Double, Effects, KickReason, MsgRecord, Pos, Presence, Receipt,
    Refusal, RejectCode, TombRecord, Watch,
};
use iris_proto::hlc::Hlc;
use iris_proto::id::{ConnId, MsgId, Origin, ShardId, UserKey, shard_for_user};
use iris_proto::link::{ReceiptPost, ToCore, ToEdge};
use iris_proto::wire::{Code, MessageHead, PresenceState, Writer, kind, put_frame};
use iris_wal::record;
use iris_wal::{AppendError, Body, Head, Log, Record, views};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of records that are read from disk at a time for deliveries, above which none is begun.
const READ_BYTES_MAX: usize = 32 << 20;
/// Bytes of presence entries in one frame, at most.
const PRESENCE_FRAME_BYTES: usize = 16 << 10;

/// A delivery that the core wants to hear of, because its sender wants a receipt.
pub(super) struct Delivered {
    pub conn: ConnId,
    pub user: UserKey,
    pub no: u32,
    pub sender: UserKey,
    pub msg_id: MsgId,
}

/// Where the effects go.
pub(super) struct Fx {
    pub log: Log,
    pub links: Links,
    pub origin: Origin,
    pub delivered: Vec<Delivered>,
    pub unreadable: Vec<Delivery>,
    /// Whether a sender waits for what was appended and not written yet. TOMBs of
    /// plain ACKs are waited for by nobody; losing one means a repeated delivery.
    pub awaited: bool,
    /// Link frames to this partition itself: receipts for users who live here, too. They stay out of the reactors' way and
    /// arrive when no reactor is left.
    pub own: Vec<u8>,
    /// New messages are refused; what frees space is taken as long as there is any.
    pub low_disk: bool,
    pub metrics: Arc<PartitionMetrics>,
    pub wal_metrics: Arc<WalMetrics>,
    /// Where the replica's effects go, if there is one.
    pub mirror: Hands,
    /// Which of all shards are here.
    here: Vec<bool>,
    /// Deliveries whose record is not in memory.
    reads: Vec<Wanted>,
    /// How many of a connection's deliveries are being read: later ones queue behind them, to keep the order.
    reading: HashMap<ConnId, u32>,
    /// Bytes of the records that are being read.
    read_bytes: usize,
    /// Receipts dropped because the way to other partitions is full.
    pub receipts_dropped: u64,
    accepted: Option<(ConnId, u32, u16, u8)>,
    presence: Option<(ConnId, u32)>,
    presence_bytes: Vec<u8>,
    targets: Vec<iris_wal::Dot>,
    now_hlc: u64,
}

impl Fx {
    pub(super) fn new(
        partition: u16,
        log: Log,
        links: Links,
        core: &CoreConfig,
        metrics: Arc<PartitionMetrics>,
        wal_metrics: Arc<WalMetrics>,
    ) -> Self {
        let mut here = vec![false; usize::from(core.num_shards)];
        core.shards.iter().for_each(|shard| here[usize::from(shard.0)] = true);
        Self {
            log,
            links,
            origin: core.origin,
            delivered: Vec::new(),
            unreadable: Vec::new(),
            awaited: false,
            own: Vec::new(),
            mirror: Hands::new(partition),
            here,
            low_disk: false,
            metrics,
            wal_metrics,
            reads: Vec::new(),
            reading: HashMap::new(),
            read_bytes: 0,
            receipts_dropped: 0,
            accepted: None,
            presence: None,
            presence_bytes: Vec::new(),
            targets: Vec::new(),
            now_hlc: 0,
        }
    }

    /// Appends a record of this node; the log position to wait for comes with it.
    pub(super) fn append(&mut self, record: &Record<'_>) -> Result<Appended, Refusal> {
        let appended = self.log.append(record);
        self.appended(record, record.encoded_len(), appended)
    }

    /// Appends a record of the mirror as it is.
    pub(super) fn append_encoded(
        &mut self,
        record: &Record<'_>,
        bytes: &[u8],
    ) -> Result<Appended, Refusal> {
        let appended = self.log.append_encoded(record, bytes);
        self.appended(record, bytes.len(), appended)
    }

    fn appended(
        &mut self,
        record: &Record<'_>,
        len: usize,
        appended: Result<iris_wal::Pos, AppendError>,
    ) -> Result<Appended, Refusal> {
        let pos = appended.map_err(|error| match error {
            AppendError::LowDisk => Refusal::LowDisk,
            AppendError::NoSegment | AppendError::Full => Refusal::Full,
            AppendError::TooLarge => unreachable!("limits.rs keeps records within the log's bound"),
        })?;
        let len = len as u32;
        self.now_hlc = self.now_hlc.max(record.head.hlc);
        self.wal_metrics.appended_records.add(1);
        self.wal_metrics.appended_bytes.add(u64::from(len));
        Ok(Appended { pos: views::proto_pos(pos), len, lsn: self.log.lsn() })
    }

    /// Hands every batch over. Whether there was any.
    pub(super) fn flush(&mut self) -> bool {
        self.flush_accepted();
        self.flush_presence();
        let Self { links, metrics, mirror, .. } = self;
        // The mirror first: its answer takes longest.
        mirror.flush() | links.flush(|frames| metrics.link_batch.record(frames))
    }

    /// The head of a record of this node that stands outside the shards' streams.
    pub(super) fn head_outside_streams(&self, shard: ShardId) -> Head {
        Head { shard: shard.0, origin: views::wal_origin(self.origin), seq: 0, hlc: self.now_hlc }
    }

    pub(super) fn take_reads(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.reads)
    }

    /// Whether further deliveries may be read from disk: what is read waits in memory.
    pub(super) fn reads_have_room(&self) -> bool {
        self.read_bytes < READ_BYTES_MAX
    }

    /// Deliveries whose records were read from disk, or could not be.
    pub(super) fn deliver_read(&mut self, records: Records) {
        let mut start = 0;
        for (delivery, told) in records.deliveries {
            self.read_bytes -= delivery.len as usize;
            if let Some(count) = self.reading.get_mut(&delivery.conn) {
                *count -= 1;
                if *count == 0 {
                    self.reading.remove(&delivery.conn);
                }
            }
            match told {
                Some(FrameRead { end, delivered }) => {
                    self.link(delivery.conn).extend_from_slice(&records.frames[start..end]);
                    start = end;
                    self.metrics.delivered.add(1);
                    self.delivered.extend(delivered);
                }
                None => {
                    self.metrics.unreadable.add(1);
                    self.unreadable.push(delivery);
                }
            }
        }
    }

    fn link(&mut self, conn: ConnId) -> &mut Vec<u8> {
        self.links.to(conn.reactor())
    }

    fn flush_accepted(&mut self) {
        if let Some((conn, first, count, copies)) = self.accepted.take() {
            ToEdge::Accepted { conn, first, count, copies }.encode(self.link(conn));
        }
    }

    fn flush_presence(&mut self) {
        let Some((conn, query)) = self.presence.take() else { return };
        let entries = std::mem::take(&mut self.presence_bytes);
        ToEdge::encode_frame(conn, self.link(conn), |out| {
            put_frame(out, kind::PRESENCE, |w| {
                w.u32(query).bytes(&entries);
            });
        });
        self.presence_bytes = entries;
        self.presence_bytes.clear();
    }
}

/// Writes the link frame that delivers a record. `None` if it is no MSG record; else what the core wants to hear.
#[expect(clippy::option_option, reason = "no message, and a message nobody wants to hear of")]
pub(super) fn put_message(
    out: &mut Vec<u8>,
    delivery: &Delivery,
    record: &Record<'_>,
) -> Option<Option<Delivered>> {
    let Body::Msg(msg) = &record.body else { return None };
    // A whole record of somebody else's message is worse than none.
    let is_theirs = msg.recipients.as_chunks::<16>().0.contains(&delivery.user.0);
    if !is_theirs || views::proto_dot(record.head.dot()) != delivery.dot {
        return None;
    }
    let head = MessageHead {
        no: delivery.no,
        id: MsgId(msg.msg_id),
        time_ms: Hlc(record.head.hlc).unix_ms(),
        flags: msg.msg_flags as u8,
        from: std::str::from_utf8(msg.from).ok()?,
    };
    ToEdge::encode_frame(delivery.conn, out, |out| head.encode(msg.payload, out));
    Some(delivery.wants_receipt.then_some(Delivered {
        conn: delivery.conn,
        user: delivery.user,
        no: delivery.no,
        sender: UserKey(msg.sender),
        msg_id: MsgId(msg.msg_id),
    }))
}

impl From<RejectCode> for RejectReason {
    fn from(code: RejectCode) -> Self {
        match code {
            // Clients are told the same as of a full queue; operators have to know.
            RejectCode::NodeFull => Self::NodeFull,
            code => Self::from(code_of(code)),
        }
    }
}

fn code_of(code: RejectCode) -> Code {
    match code {
        RejectCode::IdTooOld => Code::IdTooOld,
        RejectCode::IdInFuture => Code::IdInFuture,
        RejectCode::StaleId => Code::IdStale,
        RejectCode::IdNotV7 => Code::IdNotV7,
        RejectCode::InboxFull => Code::InboxFull,
        RejectCode::LowDisk => Code::LowDisk,
        RejectCode::Overloaded | RejectCode::NodeFull => Code::Overloaded,
        RejectCode::WrongShard | RejectCode::NotServing => Code::ShardUnavailable,
        RejectCode::TooLarge | RejectCode::BadRecipients => Code::PayloadTooLarge,
    }
}

impl Effects for Fx {
    fn append_msg(&mut self, record: &MsgRecord<'_>) -> Result<Appended, Refusal> {
        if self.low_disk {
            return Err(Refusal::LowDisk);
        }
        let appended = self.append(&views::msg_record(record))?;
        self.awaited = true;
        views::entries_added(&mut self.log, record.recipients, &appended);
        Ok(appended)
    }

    fn doubled(&mut self, double: &Double) {
        self.mirror.doubled(double);
    }

    fn append_tomb(&mut self, record: &TombRecord<'_>) -> Result<Appended, Refusal> {
        let mut targets = std::mem::take(&mut self.targets);
        let appended = self.append(&views::tomb_record(record, &mut targets));
        self.targets = targets;
        let appended = appended?;
        let mut last = None;
        for target in record.targets {
            if last != Some(target.pos.segment) {
                last = Some(target.pos.segment);
                self.log.tomb_refers(appended.pos.segment, target.pos.segment);
            }
        }
        Ok(appended)
    }

    fn append_dedup(&mut self, shard: ShardId, body: &[u8]) -> Result<Appended, Refusal> {
        let head = self.head_outside_streams(shard);
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
            && *count < u16::MAX
        {
            *count += 1;
            return;
        }
        self.flush_accepted();
        self.accepted = Some((conn, seq, 1, copies));
    }

    fn rejected(&mut self, conn: ConnId, seq: u32, code: RejectCode, retry_after_ms: u32) {
        self.metrics.rejected.add(RejectReason::from(code), 1);
        let code = code_of(code);
        ToEdge::Rejected { conn, seq, code, retry_after_ms }.encode(self.link(conn));
    }

    fn welcome(&mut self, conn: ConnId, waiting: u32, session: u64) {
        ToEdge::Welcome { conn, waiting, session }.encode(self.link(conn));
    }

    fn kick(&mut self, conn: ConnId, reason: KickReason) {
        let code = match reason {
            KickReason::Replaced => Code::Replaced,
            KickReason::BadAck => Code::BadAck,
            KickReason::SecondLogin => Code::OutOfOrder,
            KickReason::BadLogin => Code::Unavailable,
            KickReason::NumbersUsedUp => Code::Draining,
        };
        ToEdge::Kick { conn, code }.encode(self.link(conn));
    }

    fn has_room(&self, conn: ConnId) -> bool {
        self.links.has_room(conn.reactor())
    }

    fn deliver(&mut self, delivery: &Delivery) {
        let in_order = self.reading.is_empty() || !self.reading.contains_key(&delivery.conn);
        if in_order
            && let Some(bytes) = self.log.recent(views::wal_pos(delivery.pos), delivery.len)
            && let Ok((record, _)) = record::decode_own(bytes)
            && let Some(delivered) =
                { put_message(self.links.to(delivery.conn.reactor()), delivery, &record) }
        {
            self.metrics.delivered.add(1);
            self.delivered.extend(delivered);
            return;
        }
        *self.reading.entry(delivery.conn).or_default() += 1;
        self.read_bytes += delivery.len as usize;
        self.reads.push(*delivery);
    }

    fn receipt(&mut self, receipt: &Receipt<'_>) {
        self.metrics.receipts.add(1);
        let shard = shard_for_user(receipt.to, self.here.len() as u16);
        if self.here[usize::from(shard.0)] {
            let Receipt { to, reader, reader_name, msg_id } = *receipt;
            let post = ReceiptPost { to, reader, reader_name, id: msg_id };
            return ToCore::Receipt(post).encode(&mut self.own);
        }
        // Any reactor can pass it on to the shard of the sender, and the gateway can. That it is lost proves nothing.
        if !self.links.any_has_room() {
            self.receipts_dropped += 1;
            return;
        }
        let frame = ToEdge::Receipt {
            to: receipt.to,
            reader: receipt.reader,
            id: receipt.msg_id,
            reader_name: receipt.reader_name,
        };
        frame.encode(self.links.to_any());
    }

    fn presence(&mut self, presence: &Presence<'_>) {
        let to = (presence.conn, presence.query);
        if self.presence != Some(to) || self.presence_bytes.len() > PRESENCE_FRAME_BYTES {
            self.flush_presence();
            self.presence = Some(to);
        }
        let state = match presence.watch {
            Watch::ConnectionFull | Watch::UserFull | Watch::PartitionFull => {
                PresenceState::Refused
            }
            Watch::Unasked | Watch::Watching if presence.online => PresenceState::Online,
            Watch::Unasked | Watch::Watching => PresenceState::Offline,
        };
        let mut out = Writer::new(&mut self.presence_bytes);
        out.u8(state as u8).u64(presence.since_ms).str8(presence.name);
    }
}
