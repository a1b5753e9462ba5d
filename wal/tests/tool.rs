//! What the tools say of sound and of damaged directories, and that they change nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Node, SEGMENT_BYTES, dot, export, head, msg, path_of, tomb};
use iris_wal::BLOCK;
use iris_wal::tool::{self, DumpOptions, EXIT_DAMAGED, EXIT_SOUND, EXIT_UNREADABLE, Summary};
use iris_wal::{Body, Mark, Msg, Record};
use serde_json::Value;

struct Said {
    summary: Summary,
    lines: Vec<Value>,
}

impl Said {
    fn of(&self, kind: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["kind"] == kind).collect()
    }
}

fn said(run: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<Summary>) -> Said {
    let mut out = Vec::new();
    let summary = run(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Said { summary, lines }
}

fn verify(dir: &Path) -> Said {
    said(|out| tool::verify(dir, out, true))
}

fn dump(dir: &Path, payloads: bool) -> Said {
    said(|out| tool::dump(dir, out, DumpOptions { json: true, payloads }))
}

fn segment(data: &Path, number: u32) -> PathBuf {
    data.join("wal/p000").join(iris_wal::recovery::segment_name(number))
}

/// A log of several segments: messages 1 to 200, a TOMB, a MARK; footers written.
fn some_log() -> Node {
    let mut node = Node::new();
    node.send(1..=200, &[1; 2000]);
    node.append(&tomb(201, &[dot(1), dot(2), dot(7)]));
    let mark = Body::Mark(Mark { heartbeat_hlc: 5, vv: b"vv" });
    node.append(&Record { head: head(0), body: mark });
    node.flush();
    node.write_footers();
    node
}

fn exported(node: &Node) -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    export(&node.disk, data.path());
    data
}

#[test]
fn a_sound_log_is_sound_wherever_one_points_in_it() {
    let data = exported(&some_log());
    for dir in ["", "wal", "wal/p000"] {
        let said = verify(&data.path().join(dir));
        assert_eq!(said.summary.exit_code(), EXIT_SOUND, "{:?}", said.lines);
        assert_eq!(said.summary.records, 202);
        assert_eq!(said.lines.last().unwrap()["verdict"], "sound");
        assert_eq!(said.of("segment")[0]["footer"], "whole");
    }
}

#[test]
fn a_log_of_short_messages_is_sound_without_footer_entries_and_rot_in_it_is_found() {
    let mut node = Node::new();
    for seq in 1..=8000 {
        node.append(&msg(seq, b"short"));
        if seq % 100 == 0 {
            node.flush();
        }
    }
    node.write_footers();
    let data = exported(&node);
    let sound = verify(data.path());
    assert_eq!((sound.summary.exit_code(), sound.summary.records), (EXIT_SOUND, 8000));
    assert!(sound.of("segment").len() > 3);
    let path = segment(data.path(), 2);
    let mut rotten = fs::read(&path).unwrap();
    let end = sound.of("segment")[1]["data_end"].as_u64().unwrap() as usize;
    rotten[end - BLOCK + 20] ^= 4;
    fs::write(&path, &rotten).unwrap();
    let said = verify(data.path());
    assert_eq!(said.summary.exit_code(), EXIT_DAMAGED);
    assert!(said.of("fault").iter().all(|fault| fault["segment"] == 2), "{:?}", said.lines);
}

#[test]
fn a_torn_tail_is_no_damage() {
    let mut node = some_log();
    node.append(&msg(300, &[3; 9000]));
    let write = node.log.take_write().unwrap();
    node.writer.perform(&write).unwrap();
    let end = write.offset() as usize + write.bytes().len();
    let path = path_of(write.segment());
    node.disk.damage(&path, |bytes| bytes[end - BLOCK..end].fill(0));
    let said = verify(exported(&node).path());
    assert_eq!(said.summary.exit_code(), EXIT_SOUND);
    let torn = said.of("torn_tail")[0];
    assert_eq!(torn["verdict"], "will be overwritten");
    assert_eq!(torn["offset"], write.offset());
}

#[test]
fn rot_is_found_in_every_place_where_it_can_be() {
    let node = some_log();
    let data = exported(&node);
    let path = segment(data.path(), 2);
    let sound = fs::read(&path).unwrap();
    let frames_end = verify(data.path()).of("segment")[1]["data_end"].as_u64().unwrap() as usize;
    let mut missed = Vec::new();
    // Every block of the header and of the frames, at a place that carries content.
    for block in 0..frames_end / BLOCK {
        let mut rotten = sound.clone();
        rotten[block * BLOCK + 20] ^= 4;
        fs::write(&path, &rotten).unwrap();
        let said = verify(data.path());
        assert_eq!(fs::read(&path).unwrap(), rotten, "nothing is changed");
        if said.summary.exit_code() != EXIT_DAMAGED {
            missed.push(block);
        }
    }
    assert_eq!(missed, [0; 0]);
}

#[test]
fn a_fault_names_its_place() {
    let mut node = Node::new();
    let sent = node.send(1..=9, b"payload");
    node.disk.damage(&path_of(1), |bytes| bytes[sent[4].offset as usize + 100] ^= 1);
    let said = verify(exported(&node).path());
    assert_eq!(said.summary.exit_code(), EXIT_DAMAGED);
    let record = said.of("fault").into_iter().find(|f| f["from"] == sent[4].offset).unwrap();
    assert_eq!((&record["log"], &record["segment"]), (&"p000".into(), &1.into()));
    let (from, to) = (record["from"].as_u64().unwrap(), record["to"].as_u64().unwrap());
    assert!(from + 100 < to && to <= u64::from(sent[5].offset), "{from} to {to}");
    assert_eq!(said.summary.records, 8, "the others are still read");
    assert!(said.lines.last().unwrap()["verdict"] == "damaged");
}

#[test]
fn a_missing_footer_is_no_damage_and_a_wrong_one_is() {
    let node = some_log();
    node.disk.damage(&path_of(1), |bytes| bytes[SEGMENT_BYTES - BLOCK..].fill(0));
    let said = verify(exported(&node).path());
    assert_eq!(said.summary.exit_code(), EXIT_SOUND);
    assert_eq!(said.of("segment")[0]["footer"], "missing");

    // A footer whose checksums are right and that names a record at another place.
    let node = some_log();
    node.disk.damage(&path_of(1), |bytes| {
        let trailer = SEGMENT_BYTES - 96;
        let word = |bytes: &[u8], at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
        };
        let (start, len) = (word(bytes, trailer + 24), word(bytes, trailer + 28));
        bytes[start] ^= 1;
        let crc = crc32c::crc32c(&bytes[start..start + len]);
        bytes[trailer + 88..trailer + 92].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[trailer..trailer + 92]);
        bytes[trailer + 92..trailer + 96].copy_from_slice(&crc.to_le_bytes());
    });
    let said = verify(exported(&node).path());
    assert_eq!(said.summary.exit_code(), EXIT_DAMAGED);
    assert_eq!(said.of("segment")[0]["footer"], "wrong");
}

#[test]
fn a_directory_without_a_log_cannot_be_read() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(verify(empty.path()).summary.exit_code(), EXIT_UNREADABLE);
    let missing = empty.path().join("missing");
    let said = verify(&missing);
    assert_eq!(said.summary.exit_code(), EXIT_UNREADABLE);
    assert!(said.of("unreadable")[0]["path"].as_str().unwrap().ends_with("missing"));
}

#[test]
fn another_format_version_is_named_and_the_rest_is_read() {
    let node = some_log();
    node.disk.damage(&path_of(2), |bytes| {
        bytes[8] = 9;
        let crc = crc32c::crc32c(&bytes[..BLOCK - 4]);
        bytes[BLOCK - 4..BLOCK].copy_from_slice(&crc.to_le_bytes());
    });
    let said = verify(exported(&node).path());
    assert_eq!(said.summary.exit_code(), EXIT_UNREADABLE);
    assert!(said.of("unreadable")[0]["why"].as_str().unwrap().contains("version 9.0"));
    assert!(said.summary.records > 100);
}

#[test]
fn a_dump_shows_every_record_and_payloads_only_when_asked() {
    let data = exported(&some_log());
    let said = dump(data.path(), false);
    let records = said.of("record");
    assert_eq!(records.len(), 202);
    assert_eq!((&records[4]["type"], &records[4]["seq"]), (&"MSG".into(), &5.into()));
    assert_eq!(records[4]["from"], "alice");
    assert_eq!(records[4]["msg_id"], "00000000-0000-0000-0000-000000000005");
    assert_eq!(records[4].get("payload"), None);
    assert_eq!(records[4]["payload_bytes"], 2000);
    assert_eq!(records[200]["type"], "TOMB");
    let runs = records[200]["targets"].as_array().unwrap();
    assert_eq!((&runs[0]["first"], &runs[0]["count"]), (&1.into(), &2.into()));
    assert_eq!((&runs[1]["first"], &runs[1]["count"]), (&7.into(), &1.into()));
    assert_eq!(records[201]["heartbeat_hlc"], 5);
    let with = dump(data.path(), true);
    assert_eq!(with.of("record")[4]["payload"].as_str().unwrap().len(), 4000);
}

#[test]
fn stat_counts_types_and_streams() {
    let data = exported(&some_log());
    let said = said(|out| tool::stat(data.path(), out, true));
    let types = said.of("type");
    let messages = types.iter().find(|line| line["type"] == "MSG").unwrap();
    assert_eq!(messages["records"], 200);
    let stream = said.of("stream")[0];
    assert_eq!((&stream["first_seq"], &stream["last_seq"]), (&1.into(), &201.into()));
    assert_eq!(said.summary.exit_code(), EXIT_SOUND);
}

#[test]
fn diff_finds_what_one_side_lacks_and_what_is_not_alike() {
    let data = exported(&some_log());
    let diff = |other: &Node| {
        let other = exported(other);
        said(|out| tool::diff(data.path(), other.path(), out, true))
    };
    let same = diff(&some_log());
    assert_eq!((same.summary.exit_code(), same.of("stream").len()), (EXIT_SOUND, 0));

    // Other batches, a copy for a message, and no MARK: still the same records.
    let mut node = Node::new();
    for seq in 1..=199 {
        node.append(&msg(seq, &[1; 2000]));
    }
    let payload = [1; 2000];
    let Body::Msg(last) = msg(200, &payload).body else { unreachable!() };
    let copy = Msg { copy: true, recipients: &[], ..last };
    node.append(&Record { head: head(200), body: Body::Msg(copy) });
    node.append(&tomb(201, &[dot(1), dot(2), dot(7)]));
    node.flush();
    assert_eq!(diff(&node).summary.exit_code(), EXIT_SOUND);

    let mut node = Node::new();
    node.send(1..=150, &[1; 2000]);
    node.send(151..=152, &[2; 2000]);
    node.send(250..=250, b"new");
    let said = diff(&node);
    assert_eq!(said.summary.exit_code(), EXIT_DAMAGED);
    let stream = said.of("stream")[0];
    assert_eq!(stream["only_a_ranges"], serde_json::json!([[153, 201]]));
    assert_eq!(stream["only_b_ranges"], serde_json::json!([[250, 250]]));
    assert_eq!(stream["unlike_ranges"], serde_json::json!([[151, 152]]));
}

#[test]
fn people_get_lines_and_programs_get_json() {
    let data = exported(&some_log());
    let mut out = Vec::new();
    tool::verify(data.path(), &mut out, false).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.lines().last().unwrap().starts_with("sound: 1 logs, "), "{text}");
    let mut out = Vec::new();
    tool::dump(data.path(), &mut out, DumpOptions::default()).unwrap();
    let first = String::from_utf8(out).unwrap().lines().next().unwrap().to_owned();
    assert!(first.starts_with("p000 00000001+4160 MSG shard 3 1/1#1 "), "{first}");
}
