//! `iris wal stat`: how much of what is in the logs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::walk::{Event, walk};
use super::{Out, Summary};
use crate::record::{Kind, Origin};

#[derive(Default)]
struct OfKind {
    records: u64,
    bytes: u64,
}

/// A log, a shard, and who wrote.
type StreamKey = (String, u16, Origin);

#[derive(Default)]
struct OfStream {
    records: u64,
    first: u64,
    last: u64,
    hlc_max: u64,
}

#[derive(Default)]
struct Counts {
    kinds: BTreeMap<(String, Kind), OfKind>,
    streams: BTreeMap<StreamKey, OfStream>,
    /// By log: frames, and bytes of them.
    frames: BTreeMap<String, OfKind>,
}

/// Counts records, bytes and sequence numbers of the logs below `dir`.
pub fn stat(dir: &Path, out: &mut dyn Write, json: bool) -> io::Result<Summary> {
    let mut counts = Counts::default();
    let mut out = Out { to: out, json };
    let summary = walk(dir, &mut out, &mut |log, event, _| {
        match event {
            Event::Frame(header) => {
                let frames = counts.frames.entry(log.name.clone()).or_default();
                frames.records += 1;
                frames.bytes += header.frame_len() as u64;
            }
            Event::Record { record: Ok(record), bytes, .. } => {
                let kind = counts.kinds.entry((log.name.clone(), record.kind())).or_default();
                kind.records += 1;
                kind.bytes += bytes.len() as u64;
                let head = record.head;
                if head.seq > 0 {
                    let key = (log.name.clone(), head.shard, head.origin);
                    let stream = counts.streams.entry(key).or_default();
                    let first = if stream.records == 0 { head.seq } else { stream.first };
                    stream.first = first.min(head.seq);
                    stream.last = stream.last.max(head.seq);
                    stream.hlc_max = stream.hlc_max.max(head.hlc);
                    stream.records += 1;
                }
            }
            Event::Record { record: Err(_), .. }
            | Event::Segment { .. }
            | Event::Fault(_)
            | Event::Torn(_) => {}
        }
        Ok(())
    })?;
    say(&counts, &mut out)?;
    let Summary { logs, segments, faults, torn, .. } = summary;
    let value = json!({
        "kind": "summary", "logs": logs, "segments": segments, "frames": summary.frames,
        "records": summary.records, "faults": faults, "torn_tails": torn,
        "unreadable": summary.unreadable,
    });
    out.say(&value, &|| {
        let records = summary.records;
        format!("{logs} logs, {segments} segments, {records} records, {faults} faults, {torn} torn")
    })?;
    Ok(summary)
}

fn say(counts: &Counts, out: &mut Out<'_>) -> io::Result<()> {
    for (log, OfKind { records, bytes }) in &counts.frames {
        let value = json!({"kind": "frames", "log": log, "frames": records, "bytes": bytes});
        out.say(&value, &|| format!("{log} frames: {records}, {bytes} bytes"))?;
    }
    for ((log, kind), OfKind { records, bytes }) in &counts.kinds {
        let kind = kind.name();
        let value =
            json!({"kind": "type", "log": log, "type": kind, "records": records, "bytes": bytes});
        out.say(&value, &|| format!("{log} {kind}: {records} records, {bytes} bytes"))?;
    }
    for ((log, shard, origin), stream) in &counts.streams {
        let Origin { node, incarnation } = origin;
        let OfStream { records, first, last, hlc_max } = stream;
        let value = json!({
            "kind": "stream", "log": log, "shard": shard, "node": node,
            "incarnation": incarnation, "records": records, "first_seq": first, "last_seq": last,
            "hlc_max": hlc_max,
        });
        out.say(&value, &|| {
            format!("{log} shard {shard} {node}/{incarnation}: {records} records, {first}..={last}")
        })?;
    }
    Ok(())
}
