//! Records of these tests' logs: length 4, kind 1, reason 1, shard 2, node 4, incarnation 4, seq 8, hlc 8, then the rest.

use super::*;

pub(super) const HEAD_BYTES: usize = 32;

fn record(kind: u8, reason: u8, shard: ShardId, dot: Dot, hlc: Hlc, rest: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 0, kind, reason];
    out.extend_from_slice(&shard.0.to_le_bytes());
    out.extend_from_slice(&dot.origin.node.to_le_bytes());
    out.extend_from_slice(&dot.origin.incarnation.to_le_bytes());
    out.extend_from_slice(&dot.seq.to_le_bytes());
    out.extend_from_slice(&hlc.0.to_le_bytes());
    rest.iter().for_each(|part| out.extend_from_slice(part));
    let len = out.len() as u32;
    out[..4].copy_from_slice(&len.to_le_bytes());
    out
}

pub(super) fn msg(msg: &MsgRecord<'_>) -> Vec<u8> {
    let rest: [&[u8]; 5] = [
        &msg.sender.0,
        &msg.msg_id.0.to_be_bytes(),
        &(msg.recipients.len() as u32).to_le_bytes(),
        msg.recipients,
        msg.payload,
    ];
    record(1, 0, msg.shard, msg.dot, msg.hlc, &rest)
}

pub(super) fn tomb(tomb: &TombRecord<'_>) -> Vec<u8> {
    let targets: Vec<u8> = tomb.targets.iter().flat_map(|target| dot_bytes(target.dot)).collect();
    let rest: [&[u8]; 2] = [&tomb.inbox.0, &targets];
    record(2, tomb.reason as u8, tomb.shard, tomb.dot, tomb.hlc, &rest)
}

pub(super) fn epoch(epoch: &EpochRecord<'_>) -> Vec<u8> {
    let rest: [&[u8]; 2] = [&[epoch.mode], &epoch.state_id.to_le_bytes()];
    record(4, 0, epoch.shard, epoch.dot, epoch.hlc, &rest)
}

pub(super) fn outside(kind: u8, shard: ShardId, body: &[u8]) -> Vec<u8> {
    record(kind, 0, shard, Dot::default(), Hlc(0), &[body])
}

fn dot_bytes(dot: Dot) -> Vec<u8> {
    let mut out = dot.origin.node.to_le_bytes().to_vec();
    out.extend_from_slice(&dot.origin.incarnation.to_le_bytes());
    out.extend_from_slice(&dot.seq.to_le_bytes());
    out
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn dot_at(bytes: &[u8], at: usize) -> Option<Dot> {
    let origin = Origin { node: u32_at(bytes, at)?, incarnation: u32_at(bytes, at + 4)? };
    Some(Dot { origin, seq: u64_at(bytes, at + 8)? })
}

fn key_at(bytes: &[u8], at: usize) -> Option<UserKey> {
    Some(UserKey(bytes.get(at..at + 16)?.try_into().ok()?))
}

pub(super) fn decode<'a>(
    bytes: &'a [u8],
    targets: &'a mut Vec<Dot>,
) -> Option<(RecordView<'a>, usize)> {
    let len = u32_at(bytes, 0)? as usize;
    let bytes = bytes.get(..len).filter(|_| len >= HEAD_BYTES)?;
    let body = match bytes[4] {
        1 => {
            let keys = u32_at(bytes, 64)? as usize;
            RecordBody::Msg {
                sender: key_at(bytes, 32)?,
                msg_id: MsgId(u128::from_be_bytes(bytes.get(48..64)?.try_into().ok()?)),
                flags: 0,
                recipients: bytes.get(68..68 + keys)?,
            }
        }
        2 => {
            targets.clear();
            let dots = bytes.get(48..)?;
            targets.extend((0..dots.len() / 16).filter_map(|i| dot_at(dots, 16 * i)));
            let collapsed = bytes[5] == TombReason::Collapsed as u8;
            RecordBody::Tomb { inbox: key_at(bytes, 32)?, collapsed, targets }
        }
        4 => RecordBody::Epoch { mode: *bytes.get(32)?, state_id: u64_at(bytes, 33)? },
        5 => RecordBody::Mark(&bytes[HEAD_BYTES..]),
        _ => RecordBody::Other,
    };
    let shard = ShardId(u16::from_le_bytes([bytes[6], bytes[7]]));
    let (dot, hlc) = (dot_at(bytes, 8)?, Hlc(u64_at(bytes, 24)?));
    Some((RecordView { shard, dot, hlc, copy: false, body }, len))
}

/// The number that a message's id was made from.
pub(super) fn number_of(bytes: &[u8]) -> u128 {
    let mut targets = Vec::new();
    match decode(bytes, &mut targets).unwrap().0.body {
        RecordBody::Msg { msg_id, .. } => msg_id.0 & ((1 << 62) - 1),
        other => panic!("{other:?} is no message"),
    }
}
