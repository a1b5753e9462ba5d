//! Random damage to random logs: recovery boots, hands out nothing that was not written, and loses nothing but what
//! lies in the frames that were hit.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;

use common::{Node, Random, SEGMENT_BYTES, Told, dot, msg, path_of, read, tomb};
use iris_wal::{BLOCK, Pos};

/// A frame's place: segment, first byte, end.
type Place = (u32, usize, usize);

/// A log of several lives, and which frame each record stands in.
fn some_log(random: &mut Random) -> (Node, BTreeMap<Pos, (Told, Place)>) {
    let mut node = Node::new();
    let mut written = BTreeMap::new();
    let mut seq = 0;
    for life in 0..1 + random.below(3) {
        if life > 0 {
            node = Node::boot(&node.disk, 1000 * life as u64).0;
        }
        for _ in 0..random.below(60) {
            let mut batch = Vec::new();
            for _ in 0..1 + random.below(4) {
                seq += 1;
                let payload = vec![seq as u8; random.below(4000)];
                let targets = [dot(seq - seq.min(3)), dot(seq)];
                let record =
                    if random.below(4) == 0 { tomb(seq, &targets) } else { msg(seq, &payload) };
                let len = record.encoded_len() as u32;
                let pos = node.append(&record);
                let told = match record.body {
                    iris_wal::Body::Tomb(_) => Told::Tomb { pos, seq, targets: targets.to_vec() },
                    _ => Told::Msg { pos, len, seq, copy: false },
                };
                batch.push((node.log.lsn(), told));
            }
            while let Some(write) = node.log.take_write() {
                node.writer.perform(&write).unwrap();
                let from = write.offset() as usize;
                let place = (write.segment(), from, from + write.bytes().len());
                for (_, told) in batch.iter().filter(|(lsn, _)| *lsn == write.batch_no()) {
                    written.insert(told.pos(), (told.clone(), place));
                }
                node.log.synced(write);
            }
            if random.below(8) == 0 {
                node.write_footers();
            }
        }
    }
    if random.below(2) == 0 {
        node.write_footers();
    }
    (node, written)
}

/// Damages a stretch of one segment; returns it.
fn damage(node: &Node, segments: u32, random: &mut Random) -> Place {
    let segment = 1 + random.below(segments as usize) as u32;
    let from = random.below(SEGMENT_BYTES / BLOCK) * BLOCK;
    let kind = random.below(4);
    let to = match kind {
        0 => from + BLOCK * (1 + random.below(12)),
        _ => from + BLOCK,
    };
    let to = to.min(SEGMENT_BYTES);
    let at = random.below(BLOCK);
    node.disk.damage(&path_of(segment), |bytes| match kind {
        0 | 1 => bytes[from..to].fill(0),
        2 => bytes[from + at] ^= 1 << (at % 8),
        // A misdirected write: another block of the same segment.
        _ => {
            let other = bytes[BLOCK..2 * BLOCK].to_vec();
            bytes[from..to].copy_from_slice(&other);
        }
    });
    (segment, from, to)
}

#[test]
fn damage_costs_no_more_than_the_frames_it_hits() {
    let (mut lost, mut faults) = (0, 0);
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let (node, written) = some_log(&mut random);
        let Some((last, _)) = written.last_key_value() else { continue };
        let hits: Vec<Place> =
            (0..1 + random.below(3)).map(|_| damage(&node, last.segment, &mut random)).collect();
        let (recovered, told) = read(&node.disk).unwrap();
        let mut found = BTreeMap::new();
        for told in told {
            assert_eq!(written.get(&told.pos()).map(|(told, _)| told), Some(&told), "seed {seed}");
            assert!(found.insert(told.pos(), ()).is_none(), "seed {seed}: once");
        }
        for (pos, (_, (segment, from, to))) in &written {
            let hit = hits.iter().any(|hit| hit.0 == *segment && hit.1 < *to && *from < hit.2);
            assert!(hit || found.contains_key(pos), "seed {seed}: {pos:?} is lost, hits {hits:?}");
            lost += u32::from(!found.contains_key(pos));
        }
        faults += recovered.faults.len();
        // And the log goes on.
        let mut node = Node::resume(&node.disk, recovered, 1_000_000);
        let pos = node.send(9_999..=9_999, b"after")[0];
        let (_, told) = read(&node.disk).unwrap();
        assert!(told.iter().any(|told| told.pos() == pos), "seed {seed}");
        let after: BTreeMap<Pos, ()> = told.iter().map(|told| (told.pos(), ())).collect();
        assert!(found.keys().all(|pos| after.contains_key(pos)), "seed {seed}: nothing is cut");
    }
    assert!(lost > 300 && faults > 200, "{lost} lost, {faults} faults: the damage is worth it");
}
