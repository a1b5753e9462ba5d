//! `iris wal dump`: every record, one line each.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::walk::{Event, walk};
use super::{LogAt, Out, Summary, hex};
use crate::Pos;
use crate::io::uuid;
use crate::record::{Body, Msg, RawHead, Record, RecordError, Tomb};

/// What a dump shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DumpOptions {
    /// JSON lines instead of lines for people.
    pub json: bool,
    /// Payloads in hexadecimal; they are what users wrote, so they are left out unless asked for.
    pub payloads: bool,
}

/// Prints every record of the logs below `dir` that is whole, and what is damaged in between.
pub fn dump(dir: &Path, out: &mut dyn Write, options: DumpOptions) -> io::Result<Summary> {
    let mut out = Out { to: out, json: options.json };
    walk(dir, &mut out, &mut |log, event, out| match event {
        Event::Record { at, batch_no, bytes, record } => {
            let place = Place { log, at, batch_no, len: bytes.len() };
            match record {
                Ok(record) => say_record(&place, &record, options, out),
                Err(error @ RecordError::Unknown { .. }) => say_unknown(&place, bytes, error, out),
                Err(_) => Ok(()),
            }
        }
        Event::Fault(fault) => {
            let value = json!({
                "kind": "fault", "log": log.name, "segment": fault.segment, "from": fault.from,
                "to": fault.to, "what": fault.kind.to_string(),
            });
            out.say(&value, &|| {
                let (name, segment) = (&log.name, fault.segment);
                format!("{name} {segment:08x}+{} DAMAGED {}", fault.from, fault.kind)
            })
        }
        Event::Frame(_) | Event::Segment { .. } | Event::Torn(_) => Ok(()),
    })
}

struct Place<'a> {
    log: &'a LogAt,
    at: Pos,
    batch_no: u64,
    len: usize,
}

impl Place<'_> {
    fn value(&self, kind: &str) -> Value {
        json!({
            "kind": kind, "log": self.log.name, "segment": self.at.segment,
            "offset": self.at.offset, "len": self.len, "batch": self.batch_no,
        })
    }

    fn line(&self) -> String {
        format!("{} {:08x}+{}", self.log.name, self.at.segment, self.at.offset)
    }
}

fn say_record(
    place: &Place<'_>,
    record: &Record<'_>,
    options: DumpOptions,
    out: &mut Out<'_>,
) -> io::Result<()> {
    let head = &record.head;
    let mut value = place.value("record");
    add(
        &mut value,
        json!({
            "type": record.kind().name(), "shard": head.shard, "node": head.origin.node,
            "incarnation": head.origin.incarnation, "seq": head.seq, "hlc": head.hlc,
        }),
    );
    add(
        &mut value,
        match &record.body {
            Body::Msg(msg) => msg_fields(msg, options),
            Body::Tomb(tomb) => tomb_fields(tomb),
            Body::Dedup(body) => json!({"body_bytes": body.len()}),
            Body::Epoch(epoch) => json!({
                "state": epoch.state, "state_id": epoch.state_id, "peer_vv": hex(epoch.peer_vv),
            }),
            Body::Mark(mark) => json!({"heartbeat_hlc": mark.heartbeat_hlc, "vv": hex(mark.vv)}),
            Body::Checkpoint(checkpoint) => json!({"began": checkpoint.began}),
        },
    );
    out.say(&value, &|| {
        let origin = head.origin;
        let said = match &record.body {
            Body::Msg(msg) => {
                let (to, copy) = (msg.recipients.len() / 16, if msg.copy { " copy" } else { "" });
                let (id, bytes) = (uuid(&msg.msg_id.to_be_bytes()), msg.payload.len());
                let from = String::from_utf8_lossy(msg.from);
                format!("{id}{copy} from {from:?} to {to} inboxes, {bytes} bytes")
            }
            Body::Tomb(tomb) => {
                let (inbox, reason) = (hex(&tomb.inbox), tomb.reason.name());
                format!("{} messages out of {inbox}, {reason}", tomb.targets.len())
            }
            Body::Dedup(body) => format!("{} bytes", body.len()),
            Body::Epoch(epoch) => format!("state {} id {}", epoch.state, epoch.state_id),
            Body::Mark(mark) => format!("heartbeat {}", mark.heartbeat_hlc),
            Body::Checkpoint(checkpoint) => format!("began in {:08x}", checkpoint.began),
        };
        format!(
            "{} {} shard {} {}/{}#{} {said}",
            place.line(),
            record.kind().name(),
            head.shard,
            origin.node,
            origin.incarnation,
            head.seq
        )
    })
}

fn add(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}

fn msg_fields(msg: &Msg<'_>, options: DumpOptions) -> Value {
    let recipients: Vec<String> = msg.recipients.chunks(16).map(hex).collect();
    let mut value = json!({
        "msg_id": uuid(&msg.msg_id.to_be_bytes()), "sender": hex(&msg.sender),
        "from": String::from_utf8_lossy(msg.from), "msg_flags": msg.msg_flags, "copy": msg.copy,
        "recipients": recipients, "payload_bytes": msg.payload.len(),
    });
    if options.payloads {
        add(&mut value, json!({"payload": hex(msg.payload)}));
    }
    value
}

fn tomb_fields(tomb: &Tomb<'_>) -> Value {
    let runs: Vec<Value> = tomb
        .targets
        .runs()
        .map(|run| {
            json!({
                "node": run.origin.node, "incarnation": run.origin.incarnation,
                "first": run.first, "count": run.count,
            })
        })
        .collect();
    json!({"inbox": hex(&tomb.inbox), "reason": tomb.reason.name(), "targets": runs})
}

fn say_unknown(
    place: &Place<'_>,
    bytes: &[u8],
    error: RecordError,
    out: &mut Out<'_>,
) -> io::Result<()> {
    let raw = RawHead::read(bytes);
    let mut value = place.value("unknown_record");
    add(&mut value, json!({"type": raw.kind, "version": raw.version, "flags": raw.flags}));
    out.say(&value, &|| format!("{} {error}", place.line()))
}
