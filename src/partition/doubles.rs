//! What both nodes of a pair took under one message id while they were apart: the same message twice, or two messages.
//!
//! The core decides which record stays ([`iris_proto::core::Effects::doubled`]); whether both say the same only matters to
//! people, and only a look at both payloads tells. The reader's thread looks.

use super::Partition;
use iris_proto::core::Double;
use iris_wal::disk::Disk;
use iris_wal::store::Reader;
use iris_wal::{Body, Pos, views};

/// Pairs of records whose payloads are in memory at once.
const READ_AT_ONCE: usize = 32;

/// What a look at doubles showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Messages that are there once now.
    pub collapsed: u64,
    /// Of those, the ones whose payloads differ.
    pub conflicts: Vec<Double>,
    /// Pairs of which one could not be read.
    pub unread: u64,
}

/// Reads both records of each.
pub(super) fn compare<D: Disk>(reader: &mut Reader<D>, doubles: &[Double]) -> Compared {
    let mut compared = Compared { collapsed: doubles.len() as u64, ..Compared::default() };
    for some in doubles.chunks(READ_AT_ONCE) {
        let records = some.iter().flat_map(|double| [double.kept, double.dropped]);
        let records: Vec<_> = records.collect();
        let places = records.iter().map(|(_, pos, len)| (views::wal_pos(*pos), *len));
        let places: Vec<(Pos, u32)> = places.collect();
        let mut payloads: Vec<Option<Vec<u8>>> = vec![None; places.len()];
        reader.read_records(&places, &mut |index, result| {
            // A whole record of another message is worse than none.
            if let Ok(record) = result
                && record.head.dot() == views::wal_dot(records[index].0)
                && let Body::Msg(msg) = record.body
            {
                payloads[index] = Some(msg.payload.to_vec());
            }
        });
        for (double, pair) in some.iter().zip(payloads.chunks_exact(2)) {
            match (&pair[0], &pair[1]) {
                (Some(kept), Some(dropped)) if kept != dropped => compared.conflicts.push(*double),
                (Some(_), Some(_)) => {}
                _ => compared.unread += 1,
            }
        }
    }
    compared
}

impl Partition {
    /// Has what was found twice since the last turn looked at.
    pub(super) fn look_at_doubles(&mut self) {
        let doubles = self.fx.mirror.take_doubles();
        if !doubles.is_empty() {
            self.disk.compare(doubles);
        }
    }

    /// Tells operators. Of a conflict both records are named, so that `iris wal dump` finds them while they last.
    pub(super) fn compared(&mut self, compared: &Compared) {
        let Some(mirror) = &self.mirror else { return };
        mirror.metrics.note_doubles(compared.collapsed, compared.conflicts.len() as u64);
        for Double { shard, msg_id, kept, dropped } in &compared.conflicts {
            tracing::warn!(
                shard = shard.0,
                id = ?msg_id,
                kept = ?kept.0,
                dropped = ?dropped.0,
                "two messages under one id: a client sent another one again, and the first one stays"
            );
        }
        if compared.unread > 0 {
            let messages = compared.unread;
            tracing::warn!(messages, "messages that both cores took could not be compared");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::mirror::Hands;
    use iris_proto::core::Pos as CorePos;
    use iris_proto::id::{Dot, MsgId, Origin, ShardId};

    fn double(shard: u16, seq: u64) -> Double {
        let record = |node| {
            let origin = Origin { node, incarnation: 1 };
            (Dot { origin, seq }, CorePos { segment: 1, offset: 0 }, 0)
        };
        let msg_id = MsgId(7);
        Double { shard: ShardId(shard), msg_id, kept: record(1), dropped: record(2) }
    }

    #[test]
    fn a_message_with_many_recipients_is_one_and_numbers_are_those_of_their_shard() {
        let mut hands = Hands::default();
        for double in [double(0, 1), double(0, 1), double(0, 1), double(1, 1), double(1, 2)] {
            hands.doubled(&double);
        }
        let records: Vec<(u16, u64)> =
            hands.take_doubles().iter().map(|d| (d.shard.0, d.kept.0.seq)).collect();
        assert_eq!(records, [(0, 1), (1, 1), (1, 2)]);
        assert!(hands.take_doubles().is_empty());
    }
}
