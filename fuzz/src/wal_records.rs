//! Single structures of a log, with the checksum made to fit: what rot never makes, but a hostile disk or mirror might.

use iris_proto::core::{
    Appended, Core, CoreConfig, Delivery, Effects, KickReason, MsgRecord, Pos, Presence, Receipt,
    Refusal, RejectCode, TombRecord,
};
use iris_proto::id::{ConnId, Origin, ShardId};
use iris_proto::replica::{Replica, ReplicaConfig};
use iris_wal::batch::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader};
use iris_wal::record::{self, RECORD_BYTES_MAX};
use iris_wal::segment::{SEGMENT_BYTES_MAX, SegmentHeader, TRAILER_BYTES, Trailer};
use iris_wal::targets::TARGETS_MAX;
use iris_wal::{BLOCK, Body, Meta, MetaBody, views};

const SHARDS: u16 = 2;

/// Which structure, then its bytes.
pub fn run(data: &[u8]) {
    let Some((what, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    match what % 6 {
        0 => records(&bytes),
        1 => {
            if bytes.len() >= 8 {
                let len = bytes.len() as u32;
                bytes[..4].copy_from_slice(&len.to_le_bytes());
                seal(&mut bytes);
            }
            records(&bytes);
        }
        2 => {
            bytes.resize(FRAME_HEADER_BYTES, 0);
            bytes[..4].copy_from_slice(b"IRBF");
            seal(&mut bytes);
            if let Ok(header) = FrameHeader::decode(&bytes) {
                assert!(header.frame_len() <= FRAME_BYTES_MAX);
                let mut again = [0; FRAME_HEADER_BYTES];
                header.encode_into(&mut again);
                assert_eq!(FrameHeader::decode(&again), Ok(header));
            }
        }
        3 => {
            bytes.resize(BLOCK, 0);
            bytes[..8].copy_from_slice(b"IRISWAL\0");
            seal(&mut bytes);
            if let Ok(header) = SegmentHeader::decode(&bytes) {
                assert!(header.segment_bytes as usize <= SEGMENT_BYTES_MAX);
                let mut again = vec![0; BLOCK];
                header.encode_into(&mut again);
                assert_eq!(SegmentHeader::decode(&again), Ok(header));
            }
        }
        4 => {
            bytes.resize(TRAILER_BYTES, 0);
            bytes[..8].copy_from_slice(b"IRISFOOT");
            seal(&mut bytes);
            if let Some(trailer) = Trailer::decode_any(&bytes, 1, 1 << 20) {
                assert!(trailer.entries_start + trailer.entries_len <= 1 << 20);
                let mut again = [0; TRAILER_BYTES];
                trailer.encode_into(&mut again);
                assert_eq!(Trailer::decode_any(&again, 1, 1 << 20), Some(trailer));
            }
        }
        _ => checkpoint(&bytes),
    }
}

/// Puts a CRC32C of what stands before into the last four bytes.
fn seal(bytes: &mut [u8]) {
    let (body, crc) = bytes.split_at_mut(bytes.len() - 4);
    crc.copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
}

/// A core and a replica that start from these records, one after the other.
fn records(bytes: &[u8]) {
    let (mut core, mut replica) = node();
    let mut rest = bytes;
    let mut offset = 4096;
    while let Ok((record, len)) = record::decode(rest) {
        assert!(len <= RECORD_BYTES_MAX && len <= rest.len());
        if let Body::Tomb(tomb) = &record.body {
            assert!(tomb.targets.len() <= TARGETS_MAX);
            assert_eq!(tomb.targets.dots().count(), tomb.targets.len());
        }
        let again = record.to_vec();
        assert_eq!(record::decode(&again), Ok((record, again.len())), "it comes back");
        let pos = iris_wal::Pos { segment: 1, offset };
        let meta = Meta { pos, len: len as u32, head: record.head, body: meta_of(&record.body) };
        let mut targets = Vec::new();
        replica.recover(1, &views::view(&record, &mut targets));
        // A record that cannot be is told, and the start goes on.
        let _ = views::recover(&mut core, &meta);
        offset += len as u32;
        rest = &rest[len..];
    }
    start(core, replica);
}

fn meta_of<'a>(body: &Body<'a>) -> MetaBody<'a> {
    match *body {
        Body::Msg(msg) => MetaBody::Msg(record::MsgMeta {
            msg_id: msg.msg_id,
            sender: msg.sender,
            msg_flags: msg.msg_flags,
            copy: msg.copy,
            recipients: msg.recipients,
        }),
        Body::Tomb(tomb) => MetaBody::Tomb(tomb),
        Body::Dedup(body) => MetaBody::Dedup(body),
        Body::Epoch(epoch) => MetaBody::Epoch(epoch),
        Body::Mark(mark) => MetaBody::Mark(mark),
        Body::Checkpoint(checkpoint) => MetaBody::Checkpoint(checkpoint),
    }
}

/// A part of a dedup checkpoint.
fn checkpoint(bytes: &[u8]) {
    let (mut core, replica) = node();
    let _ = core.recover_dedup(ShardId(0), bytes);
    start(core, replica);
}

fn node() -> (Core, Replica) {
    let me = Origin { node: 1, incarnation: 9 };
    let config = CoreConfig { dedup_ids_max: 4096, ..CoreConfig::new(me, SHARDS, 7) };
    (Core::new(config), Replica::new(ReplicaConfig::new(me, 2, SHARDS)))
}

fn start(mut core: Core, _replica: Replica) {
    let mut none = Nowhere;
    core.recovery_done(&mut none, 1_800_000_000_000);
    core.poll(&mut none, 1_800_000_000_001, 16);
}

/// A log that takes nothing.
struct Nowhere;

impl Effects for Nowhere {
    fn append_msg(&mut self, _record: &MsgRecord<'_>) -> Result<Appended, Refusal> {
        Err(Refusal::Full)
    }
    fn append_tomb(&mut self, _record: &TombRecord<'_>) -> Result<Appended, Refusal> {
        Err(Refusal::Full)
    }
    fn append_dedup(&mut self, _shard: ShardId, _body: &[u8]) -> Result<Appended, Refusal> {
        Err(Refusal::Full)
    }
    fn entry_removed(&mut self, _pos: Pos, _len: u32) {}
    fn entry_live(&mut self, _pos: Pos, _len: u32) {}
    fn entry_dead(&mut self, _pos: Pos, _tomb: Pos) {}
    fn entry_repeated(&mut self, _kept: Pos, _other: Pos) {}
    fn accepted(&mut self, _conn: ConnId, _seq: u32, _copies: u8) {}
    fn rejected(&mut self, _conn: ConnId, _seq: u32, _code: RejectCode, _retry_after_ms: u32) {}
    fn welcome(&mut self, _conn: ConnId, _waiting: u32, _session: u64) {}
    fn kick(&mut self, _conn: ConnId, _reason: KickReason) {}
    fn deliver(&mut self, _delivery: &Delivery) {}
    fn receipt(&mut self, _receipt: &Receipt<'_>) {}
    fn presence(&mut self, _presence: &Presence<'_>) {}
}
