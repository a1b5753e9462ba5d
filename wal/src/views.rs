//! Between records of the log and what the machines of `iris-proto` look at. The crates know nothing of each other
//! otherwise; whoever drives both enables the feature `proto`.

use crate::{Body, Epoch, Head, Log, Mark, Meta, MetaBody, Msg, Reason, Record, Targets, Tomb};
use iris_proto::core::{
    Appended, BadRecord, Core, MsgRecord, Pos, RecoveredMsg, RecoveredTomb, TombRecord,
};
use iris_proto::hlc::Hlc;
use iris_proto::id::{Dot, MsgId, Origin, ShardId, UserKey};
use iris_proto::replica::{EpochRecord, RecordBody, RecordView};

/// An origin, as the log writes it.
pub fn wal_origin(origin: Origin) -> crate::Origin {
    crate::Origin { node: origin.node, incarnation: origin.incarnation }
}

/// A dot, as the log writes it.
pub fn wal_dot(dot: Dot) -> crate::Dot {
    crate::Dot { origin: wal_origin(dot.origin), seq: dot.seq }
}

/// A dot of the log.
pub fn proto_dot(dot: crate::Dot) -> Dot {
    let origin = Origin { node: dot.origin.node, incarnation: dot.origin.incarnation };
    Dot { origin, seq: dot.seq }
}

/// The head of a record of a stream.
pub fn wal_head(shard: ShardId, dot: Dot, hlc: Hlc) -> Head {
    Head { shard: shard.0, origin: wal_origin(dot.origin), seq: dot.seq, hlc: hlc.0 }
}

/// A place, as the log knows it.
pub fn wal_pos(pos: Pos) -> crate::Pos {
    crate::Pos { segment: pos.segment, offset: pos.offset }
}

/// A place of the log.
pub fn proto_pos(pos: crate::Pos) -> Pos {
    Pos { segment: pos.segment, offset: pos.offset }
}

/// A message of the core, as the log takes it.
#[inline]
pub fn msg_record<'a>(msg: &MsgRecord<'a>) -> Record<'a> {
    let body = Body::Msg(Msg {
        msg_id: msg.msg_id.0,
        sender: msg.sender.0,
        msg_flags: msg.flags,
        copy: false,
        recipients: msg.recipients,
        from: msg.from.as_bytes(),
        payload: msg.payload,
    });
    Record { head: wal_head(msg.shard, msg.dot, msg.hlc), body }
}

/// A TOMB of the core, as the log takes it. `targets` is room for what it removes.
#[inline]
pub fn tomb_record<'a>(tomb: &TombRecord<'_>, targets: &'a mut Vec<crate::Dot>) -> Record<'a> {
    targets.clear();
    targets.extend(tomb.targets.iter().map(|target| wal_dot(target.dot)));
    let body = Body::Tomb(Tomb {
        inbox: tomb.inbox.0,
        reason: Reason(tomb.reason as u8),
        targets: Targets::List(targets),
    });
    Record { head: wal_head(tomb.shard, tomb.dot, tomb.hlc), body }
}

/// An EPOCH of a replica, as the log takes it.
#[inline]
pub fn epoch_record<'a>(epoch: &EpochRecord<'a>) -> Record<'a> {
    let EpochRecord { mode: state, state_id, peer: peer_vv, .. } = *epoch;
    let body = Body::Epoch(Epoch { state, state_id, peer_vv });
    Record { head: wal_head(epoch.shard, epoch.dot, epoch.hlc), body }
}

/// A MARK of a replica: `head` stands outside the shards' streams.
#[inline]
pub fn mark_record(head: Head, vv: &[u8]) -> Record<'_> {
    Record { head, body: Body::Mark(Mark { heartbeat_hlc: head.hlc, vv }) }
}

/// Tells the log of the inbox entries that point to a message: one for each of its recipients.
#[inline]
pub fn entries_added(log: &mut Log, recipients: &[u8], appended: &Appended) {
    for _ in 0..recipients.len() / 16 {
        log.entry_added(wal_pos(appended.pos), appended.len);
    }
}

/// A record as replication sees it. `targets` is room for a TOMB's targets.
pub fn view<'a>(record: &Record<'a>, targets: &'a mut Vec<Dot>) -> RecordView<'a> {
    let (mut copy, head) = (false, record.head);
    let body = match record.body {
        Body::Msg(msg) => {
            copy = msg.copy;
            RecordBody::Msg {
                sender: UserKey(msg.sender),
                msg_id: MsgId(msg.msg_id),
                flags: msg.msg_flags,
                recipients: msg.recipients,
            }
        }
        Body::Tomb(tomb) => {
            targets.clear();
            targets.extend(tomb.targets.dots().map(proto_dot));
            let collapsed = tomb.reason == Reason::COLLAPSED;
            RecordBody::Tomb { inbox: UserKey(tomb.inbox), collapsed, targets }
        }
        Body::Epoch(epoch) => RecordBody::Epoch { mode: epoch.state, state_id: epoch.state_id },
        Body::Mark(mark) => RecordBody::Mark(mark.vv),
        Body::Dedup(_) | Body::Checkpoint(_) => RecordBody::Other,
    };
    let shard = ShardId(head.shard);
    RecordView { shard, dot: proto_dot(head.dot()), hlc: Hlc(head.hlc), copy, body }
}

/// The same, of what recovery reads.
pub fn view_of_meta<'a>(meta: &Meta<'a>, targets: &'a mut Vec<Dot>) -> RecordView<'a> {
    let (mut copy, head) = (false, meta.head);
    let body = match &meta.body {
        MetaBody::Msg(msg) => {
            copy = msg.copy;
            RecordBody::Msg {
                sender: UserKey(msg.sender),
                msg_id: MsgId(msg.msg_id),
                flags: msg.msg_flags,
                recipients: msg.recipients,
            }
        }
        MetaBody::Tomb(tomb) => {
            targets.clear();
            targets.extend(tomb.targets.dots().map(proto_dot));
            let collapsed = tomb.reason == Reason::COLLAPSED;
            RecordBody::Tomb { inbox: UserKey(tomb.inbox), collapsed, targets }
        }
        MetaBody::Epoch(epoch) => RecordBody::Epoch { mode: epoch.state, state_id: epoch.state_id },
        MetaBody::Mark(mark) => RecordBody::Mark(mark.vv),
        MetaBody::Dedup(_) | MetaBody::Checkpoint(_) => RecordBody::Other,
    };
    let shard = ShardId(head.shard);
    RecordView { shard, dot: proto_dot(head.dot()), hlc: Hlc(head.hlc), copy, body }
}

/// Hands what recovery reads to a core.
pub fn recover(core: &mut Core, meta: &Meta<'_>) -> Result<(), BadRecord> {
    let shard = ShardId(meta.head.shard);
    let (dot, hlc) = (proto_dot(meta.head.dot()), Hlc(meta.head.hlc));
    let pos = proto_pos(meta.pos);
    match &meta.body {
        MetaBody::Msg(msg) => core.recover_msg(&RecoveredMsg {
            shard,
            dot,
            hlc,
            pos,
            len: meta.len,
            sender: UserKey(msg.sender),
            msg_id: MsgId(msg.msg_id),
            flags: msg.msg_flags,
            recipients: msg.recipients,
        }),
        MetaBody::Tomb(tomb) => {
            let (inbox, collapsed) = (UserKey(tomb.inbox), tomb.reason == Reason::COLLAPSED);
            let record = RecoveredTomb { shard, dot, hlc, pos, inbox, collapsed };
            core.recover_tomb(&record, tomb.targets.dots().map(proto_dot))
        }
        MetaBody::Dedup(body) => core.recover_dedup(shard, body),
        MetaBody::Epoch(_) | MetaBody::Mark(_) | MetaBody::Checkpoint(_) => Ok(()),
    }
}
