//! `iris wal verify`: is every byte as it was written?

use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::walk::{Event, Footer, walk};
use super::{EXIT_DAMAGED, EXIT_SOUND, LogAt, Out, Summary};
use crate::record::RecordError;
use crate::recovery::Fault;
use crate::recovery::look::Seen;
use crate::scan::Scan;

/// Checks every checksum, chain and footer of the logs below `dir`. The summary's exit code is 0 if all is sound, 1 if
/// something is damaged, 2 if something cannot be read. A torn tail is what a crash leaves; it is not damage.
pub fn verify(dir: &Path, out: &mut dyn Write, json: bool) -> io::Result<Summary> {
    let mut out = Out { to: out, json };
    let summary = walk(dir, &mut out, &mut |log, event, out| match event {
        Event::Fault(fault) => say_fault(log, fault, out),
        Event::Torn(pos) => {
            let value = json!({
                "kind": "torn_tail",
                "log": log.name,
                "segment": pos.segment,
                "offset": pos.offset,
                "verdict": "will be overwritten",
            });
            out.say(&value, &|| {
                let name = &log.name;
                format!(
                    "{name} segment {:08x} byte {}: torn tail, will be overwritten",
                    pos.segment, pos.offset
                )
            })
        }
        Event::Segment { seen, scan, footer } => say_segment(log, seen, scan, footer, out),
        Event::Record { at, record: Err(error @ RecordError::Unknown { .. }), .. } => {
            let value = json!({
                "kind": "unknown_record", "log": log.name, "segment": at.segment,
                "offset": at.offset, "why": error.to_string(),
            });
            out.say(&value, &|| {
                format!("{} segment {:08x} byte {}: {error}", log.name, at.segment, at.offset)
            })
        }
        Event::Frame(_) | Event::Record { .. } => Ok(()),
    })?;
    let verdict = match summary.exit_code() {
        EXIT_SOUND => "sound",
        EXIT_DAMAGED => "damaged",
        _ => "unreadable",
    };
    let Summary { logs, segments, frames, records, faults, torn, unreadable } = summary;
    let value = json!({
        "kind": "summary", "verdict": verdict, "logs": logs, "segments": segments,
        "frames": frames, "records": records, "faults": faults, "torn_tails": torn,
        "unreadable": unreadable,
    });
    out.say(&value, &|| {
        format!(
            "{verdict}: {logs} logs, {segments} segments, {frames} frames, {records} records, \
             {faults} faults, {torn} torn tails"
        )
    })?;
    Ok(summary)
}

fn say_fault(log: &LogAt, fault: &Fault, out: &mut Out<'_>) -> io::Result<()> {
    let Fault { segment, from, to, kind } = fault;
    let value = json!({
        "kind": "fault", "log": log.name, "segment": segment, "from": from, "to": to,
        "what": kind.to_string(),
    });
    out.say(&value, &|| {
        let name = &log.name;
        format!(
            "{name} segment {segment:08x} bytes {from}..{to}: DAMAGED: {kind}; it is kept as it is"
        )
    })
}

fn say_segment(
    log: &LogAt,
    seen: &Seen,
    scan: &Scan,
    footer: Footer,
    out: &mut Out<'_>,
) -> io::Result<()> {
    let value = json!({
        "kind": "segment", "log": log.name, "segment": seen.number, "frames": scan.frames,
        "first_batch": scan.first_batch, "last_batch": scan.last_batch, "data_end": scan.end,
        "chain": format!("{:016x}", scan.last_chain), "footer": footer.name(),
    });
    out.say(&value, &|| {
        let (name, number) = (&log.name, seen.number);
        if scan.frames == 0 {
            return format!("{name} segment {number:08x}: no frames");
        }
        format!(
            "{name} segment {number:08x}: batches {}..={}, {} bytes, chain {:016x}, footer {}",
            scan.first_batch,
            scan.last_batch,
            scan.end,
            scan.last_chain,
            footer.name()
        )
    })
}
