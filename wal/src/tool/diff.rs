//! `iris wal diff A B`: do two directories hold the same records?
//!
//! Records are compared by identity (shard, origin, sequence number), wherever they stand: two mirrors write the
//! same streams in different batches. A message and its rewritten copy are the same message; which recipients are
//! left in a copy is not compared.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::walk::{Event, walk};
use super::{Out, Summary};
use crate::record::{Body, Origin, Record};

/// Ranges of sequence numbers named in one line, at most; the count is always exact.
const RANGES_MAX: usize = 100;

/// By shard and origin: digests of records by sequence number.
type Streams = BTreeMap<(u16, Origin), BTreeMap<u64, u64>>;

/// Compares the logs below `a` with those below `b`, stream by stream. The summary counts both; its `faults` are
/// the streams that differ, its exit code is 0 if there are none, 1 if there are, 2 if a side cannot be read.
pub fn diff(a: &Path, b: &Path, out: &mut dyn Write, json: bool) -> io::Result<Summary> {
    let mut out = Out { to: out, json };
    let (in_a, of_a) = streams(a, &mut out)?;
    let (in_b, of_b) = streams(b, &mut out)?;
    let mut summary = Summary {
        logs: of_a.logs.min(of_b.logs),
        segments: of_a.segments + of_b.segments,
        frames: of_a.frames + of_b.frames,
        records: of_a.records + of_b.records,
        faults: 0,
        torn: of_a.torn + of_b.torn,
        unreadable: of_a.unreadable + of_b.unreadable,
    };
    let none = BTreeMap::new();
    let mut keys: Vec<_> = in_a.keys().chain(in_b.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let (of_a, of_b) = (in_a.get(key).unwrap_or(&none), in_b.get(key).unwrap_or(&none));
        let only_a = ranges(of_a.keys().filter(|seq| !of_b.contains_key(seq)));
        let only_b = ranges(of_b.keys().filter(|seq| !of_a.contains_key(seq)));
        let other =
            |(seq, digest): &(&u64, &u64)| of_b.get(seq).is_some_and(|other| other != *digest);
        let unlike = ranges(of_a.iter().filter(other).map(|(seq, _)| seq));
        if only_a.is_empty() && only_b.is_empty() && unlike.is_empty() {
            continue;
        }
        summary.faults += 1;
        say_stream(*key, [&only_a, &only_b, &unlike], &mut out)?;
    }
    let Summary { records, faults, .. } = summary;
    let value = json!({
        "kind": "summary", "alike": faults == 0, "streams_that_differ": faults,
        "records": records, "unreadable": summary.unreadable,
    });
    out.say(&value, &|| match faults {
        0 => format!("alike: {records} records in all"),
        _ => format!("{faults} streams differ"),
    })?;
    Ok(summary)
}

fn streams(dir: &Path, out: &mut Out<'_>) -> io::Result<(Streams, Summary)> {
    let mut streams = Streams::new();
    let summary = walk(dir, out, &mut |_, event, _| {
        if let Event::Record { record: Ok(record), .. } = event
            && record.head.seq > 0
        {
            let key = (record.head.shard, record.head.origin);
            streams.entry(key).or_default().insert(record.head.seq, digest(&record));
        }
        Ok(())
    })?;
    Ok((streams, summary))
}

/// What must be the same in every copy of a record.
fn digest(record: &Record<'_>) -> u64 {
    let bytes = match &record.body {
        Body::Msg(msg) => {
            let same = Body::Msg(crate::Msg { copy: false, recipients: &[], ..*msg });
            Record { head: record.head, body: same }.to_vec()
        }
        Body::Tomb(_) | Body::Dedup(_) | Body::Epoch(_) | Body::Mark(_) | Body::Checkpoint(_) => {
            record.to_vec()
        }
    };
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

fn ranges<'s>(seqs: impl Iterator<Item = &'s u64>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for seq in seqs {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*seq) => *last = *seq,
            _ => ranges.push((*seq, *seq)),
        }
    }
    ranges
}

fn say_stream(
    (shard, origin): (u16, Origin),
    [only_a, only_b, unlike]: [&[(u64, u64)]; 3],
    out: &mut Out<'_>,
) -> io::Result<()> {
    let count = |ranges: &[(u64, u64)]| ranges.iter().map(|(a, b)| b - a + 1).sum::<u64>();
    let some = |ranges: &[(u64, u64)]| -> Value {
        ranges.iter().take(RANGES_MAX).map(|(first, last)| json!([first, last])).collect()
    };
    let Origin { node, incarnation } = origin;
    let value = json!({
        "kind": "stream", "shard": shard, "node": node, "incarnation": incarnation,
        "only_a": count(only_a), "only_a_ranges": some(only_a),
        "only_b": count(only_b), "only_b_ranges": some(only_b),
        "unlike": count(unlike), "unlike_ranges": some(unlike),
    });
    out.say(&value, &|| {
        format!(
            "shard {shard} {node}/{incarnation}: {} only in A, {} only in B, {} unlike",
            count(only_a),
            count(only_b),
            count(unlike)
        )
    })
}
