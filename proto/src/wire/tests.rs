//! The vectors, the tables of the protocol page, and properties over arbitrary bytes.

use super::*;
use crate::id::{MsgId, UserKey, shard_for_user};
use crate::limits;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const VECTORS: &str = include_str!("../../vectors/wire-v1.json");
const PROTOCOL: &str = include_str!("../../../docs/PROTOCOL.md");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn rows(section: &str) -> Vec<Value> {
    vectors()[section].as_array().unwrap().clone()
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_else(|| panic!("no {field} in {row}"))
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "half a byte in {hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn uuid(id: MsgId) -> String {
    format!("{id:?}")
}

/// Takes exactly one frame from `bytes`.
fn only_frame(bytes: &[u8]) -> Result<(u8, &[u8]), Code> {
    let (kind, body, rest) = split_frame(bytes)?.expect("a vector holds a whole frame");
    assert!(rest.is_empty(), "a vector holds one frame");
    Ok((kind, body))
}

fn describe_client(frame: &ClientFrame<'_>) -> (&'static str, Value) {
    match frame {
        ClientFrame::Hello(h) => (
            "HELLO",
            json!({"version_min": h.version_min, "version_max": h.version_max, "window": h.window,
                   "user": h.user, "device": h.device, "token": h.token}),
        ),
        ClientFrame::Send(s) => (
            "SEND",
            json!({"seq": s.seq, "id": uuid(s.id), "flags": s.flags,
                   "to": s.to.iter().collect::<Vec<_>>(), "payload": hex(s.payload)}),
        ),
        ClientFrame::Ack(upto) => ("ACK", json!({"upto": upto})),
        ClientFrame::Window(window) => ("WINDOW", json!({"window": window})),
        ClientFrame::PresenceQuery(q) => (
            "PRESENCE_QUERY",
            json!({"query": q.query, "watch": q.watch,
                   "users": q.users.iter().collect::<Vec<_>>()}),
        ),
        ClientFrame::Unwatch(u) => {
            ("UNWATCH", json!({"users": u.users.iter().collect::<Vec<_>>()}))
        }
        ClientFrame::Ping(echo) => ("PING", json!({"echo": hex(echo)})),
        ClientFrame::Pong(echo) => ("PONG", json!({"echo": hex(echo)})),
        ClientFrame::Ignored => ("IGNORED", json!({})),
    }
}

fn describe_server(frame: &ServerFrame<'_>) -> (&'static str, Value) {
    match frame {
        ServerFrame::Welcome(w) => (
            "WELCOME",
            json!({"version": w.version, "server_time_ms": w.server_time_ms, "waiting": w.waiting,
                   "send_window": w.send_window, "recv_window": w.recv_window,
                   "payload_max": w.payload_max, "recipients_max": w.recipients_max,
                   "idle_timeout_ms": w.idle_timeout_ms, "token_expires_s": w.token_expires_s,
                   "dedup_window_ms": w.dedup_window_ms, "region": w.region, "node": w.node,
                   "user": w.user}),
        ),
        ServerFrame::Accepted { copies, runs } => {
            let runs: Vec<_> =
                runs.iter().map(|run| json!({"first": run.first, "count": run.count})).collect();
            ("ACCEPTED", json!({"copies": copies, "runs": runs}))
        }
        ServerFrame::Rejected(rejections) => {
            let entries: Vec<_> = rejections
                .iter()
                .map(|r| json!({"seq": r.seq, "code": r.code, "retry_after_ms": r.retry_after_ms}))
                .collect();
            ("REJECTED", json!({"entries": entries}))
        }
        ServerFrame::Message(m, payload) => (
            "MESSAGE",
            json!({"no": m.no, "id": uuid(m.id), "time_ms": m.time_ms, "flags": m.flags,
                   "from": m.from, "payload": hex(payload)}),
        ),
        ServerFrame::Presence(query, entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|(s, since, user)| json!({"state": s as u8, "since_ms": since, "user": user}))
                .collect();
            ("PRESENCE", json!({"query": query, "entries": entries}))
        }
        ServerFrame::Drain { retry_after_ms, jitter_ms } => {
            ("DRAIN", json!({"retry_after_ms": retry_after_ms, "jitter_ms": jitter_ms}))
        }
        ServerFrame::Error { code, retry_after_ms, text } => {
            ("ERROR", json!({"code": code, "retry_after_ms": retry_after_ms, "text": text}))
        }
        ServerFrame::Ping(echo) => ("PING", json!({"echo": hex(echo)})),
        ServerFrame::Pong(echo, time_ms) => {
            ("PONG", json!({"echo": hex(echo), "time_ms": time_ms}))
        }
        ServerFrame::Ignored => ("IGNORED", json!({})),
    }
}

/// Encodes what was decoded, with the functions a server uses.
fn encode_server(frame: &ServerFrame<'_>, out: &mut Vec<u8>) {
    match frame {
        ServerFrame::Welcome(welcome) => welcome.encode(out),
        ServerFrame::Accepted { copies, runs } => {
            put_accepted(out, *copies, &runs.iter().collect::<Vec<_>>());
        }
        ServerFrame::Rejected(rejections) => {
            put_rejected(out, &rejections.iter().collect::<Vec<_>>());
        }
        ServerFrame::Message(head, payload) => {
            head.encode(payload, out);
            assert_eq!(out.len(), head.frame_bytes(payload.len()));
        }
        ServerFrame::Presence(query, entries) => {
            put_presence(out, *query, &entries.iter().collect::<Vec<_>>());
        }
        ServerFrame::Drain { retry_after_ms, jitter_ms } => {
            put_drain(out, *retry_after_ms, *jitter_ms);
        }
        ServerFrame::Error { code, retry_after_ms, text } => put_frame(out, kind::ERROR, |w| {
            w.u16(*code).u32(*retry_after_ms).str16(text);
        }),
        ServerFrame::Ping(echo) => put_ping(out, *echo),
        ServerFrame::Pong(echo, time_ms) => put_pong(out, *echo, *time_ms),
        ServerFrame::Ignored => {}
    }
}

/// Decodes a vector's frame and gives its type, its fields and the bytes it encodes to.
fn decode_and_encode(
    direction: &str,
    bytes: &[u8],
) -> Result<(&'static str, Value, Vec<u8>), Code> {
    let (frame_kind, body) = only_frame(bytes)?;
    let mut again = Vec::new();
    let (name, fields) = match direction {
        "client" => {
            let frame = ClientFrame::decode(frame_kind, body)?;
            frame.encode(&mut again);
            describe_client(&frame)
        }
        "server" => {
            let frame = ServerFrame::decode(frame_kind, body)?;
            encode_server(&frame, &mut again);
            describe_server(&frame)
        }
        other => panic!("a direction is client or server, not {other}"),
    };
    Ok((name, fields, again))
}

#[test]
fn every_valid_vector_decodes_to_its_fields_and_encodes_to_its_bytes() {
    for row in rows("frames") {
        let name = text(&row, "name");
        let bytes = unhex(text(&row, "hex"));
        let (kind, fields, again) = decode_and_encode(text(&row, "direction"), &bytes)
            .unwrap_or_else(|code| {
                panic!("{name} is refused as {}", code.name());
            });
        assert_eq!(kind, text(&row, "type"), "{name}");
        assert_eq!(fields, row["fields"], "{name}");
        if row["canonical"] != json!(false) {
            assert_eq!(hex(&again), hex(&bytes), "{name}");
        }
    }
}

#[test]
fn every_frame_type_of_each_direction_has_a_vector() {
    let seen: BTreeSet<_> = rows("frames")
        .iter()
        .map(|row| format!("{} {}", text(row, "direction"), text(row, "type")))
        .collect();
    let client = ["HELLO", "SEND", "ACK", "WINDOW", "PRESENCE_QUERY", "UNWATCH", "PING", "PONG"];
    let server = [
        "WELCOME", "ACCEPTED", "REJECTED", "MESSAGE", "PRESENCE", "DRAIN", "ERROR", "PING", "PONG",
    ];
    let client = client.iter().chain(&["IGNORED"]).map(|name| format!("client {name}"));
    let server = server.iter().chain(&["IGNORED"]).map(|name| format!("server {name}"));
    assert_eq!(seen, client.chain(server).collect());
}

#[test]
fn every_invalid_vector_is_refused_by_its_name() {
    for row in rows("invalid") {
        let bytes = unhex(text(&row, "hex"));
        let refused =
            decode_and_encode(text(&row, "direction"), &bytes).map(|(_, fields, _)| fields);
        let name = refused.map_err(Code::name);
        assert_eq!(name, Err(text(&row, "error")), "{}", text(&row, "name"));
    }
}

#[test]
fn the_vectors_cut_short_ask_for_more_and_never_decode() {
    for row in rows("frames") {
        let bytes = unhex(text(&row, "hex"));
        for len in 0..bytes.len() {
            assert_eq!(split_frame(&bytes[..len]), Ok(None), "{} at {len}", text(&row, "name"));
        }
    }
}

#[test]
fn a_body_cut_anywhere_never_panics_and_never_reads_past_its_end() {
    for row in rows("frames") {
        let bytes = unhex(text(&row, "hex"));
        let (frame_kind, body) = only_frame(&bytes).unwrap();
        for len in 0..body.len() {
            // A slice cannot be read past its end without a panic, so deciding at all is the proof.
            let _ = ClientFrame::decode(frame_kind, &body[..len]);
            let _ = ServerFrame::decode(frame_kind, &body[..len]);
        }
    }
}

#[test]
fn the_vectors_of_identity_hold() {
    for row in rows("users") {
        let key = UserKey::of(text(&row, "user"));
        assert_eq!(format!("{key:?}"), text(&row, "key"));
        for (num_shards, shard) in row["shards"].as_object().unwrap() {
            let got = shard_for_user(key, num_shards.parse().unwrap());
            assert_eq!(json!(got.0), *shard, "{row} over {num_shards}");
        }
    }
}

#[test]
fn the_vectors_of_message_ids_hold() {
    for row in rows("ids") {
        let id = MsgId(u128::from_str_radix(text(&row, "hex"), 16).unwrap());
        assert_eq!(uuid(id), text(&row, "uuid"));
        assert_eq!(json!(id.unix_ms()), row["unix_ms"]);
        assert_eq!(json!(id.is_v7()), row["is_v7"], "{row}");
        if id.is_v7() {
            let rand_a = u128::from(row["rand_a"].as_u64().unwrap());
            let rand_b = u128::from_str_radix(text(&row, "rand_b"), 16).unwrap();
            assert_eq!(MsgId::v7(id.unix_ms(), rand_a << 62 | rand_b), id);
        }
    }
}

/// The cells of every table row of the page that has this many, without their code quotes.
fn table_rows(cells: usize) -> Vec<Vec<String>> {
    let row = |line: &str| -> Option<Vec<String>> {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some(inner.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect())
    };
    PROTOCOL.lines().filter_map(row).filter(|row| row.len() == cells).collect()
}

#[test]
fn the_page_lists_exactly_the_codes_there_are() {
    let rows = table_rows(5);
    let listed: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((row[0].parse::<u16>().ok()?, row[1].as_str(), row[2].as_str())))
        .collect();
    let names: Vec<_> = listed.iter().map(|(number, name, _)| (*number, *name)).collect();
    let known: Vec<_> = Code::ALL.iter().map(|code| (*code as u16, code.name())).collect();
    assert_eq!(names, known);
    for (number, name, again) in listed {
        let retryable = Code::from_u16(number).is_some_and(Code::is_retryable);
        assert_eq!(again == "same id", retryable, "{number} {name}");
        let expected: &[&str] =
            if number < 400 { &["no", "yes", "fresh token"] } else { &["no", "same id"] };
        assert!(expected.contains(&again), "{number} {name}: {again}");
    }
}

#[test]
fn every_code_is_found_by_its_number_and_has_advice() {
    for code in Code::ALL {
        assert_eq!(Code::from_u16(code as u16), Some(code));
        assert!(!code.advice().is_empty());
    }
    assert!(Code::ALL.windows(2).all(|pair| pair[0] < pair[1]), "numbers grow");
    assert_eq!(Code::from_u16(0), None);
}

#[test]
fn the_page_lists_every_limit_with_its_value() {
    let expected: BTreeSet<(&str, u64)> = [
        ("FRAME_BODY_BYTES_MAX", FRAME_BODY_BYTES_MAX as u64),
        ("PAYLOAD_BYTES_MAX", limits::PAYLOAD_BYTES_MAX as u64),
        ("RECIPIENTS_MAX", limits::RECIPIENTS_MAX as u64),
        ("USER_BYTES_MAX", limits::USER_BYTES_MAX as u64),
        ("DEVICE_BYTES_MAX", limits::DEVICE_BYTES_MAX as u64),
        ("TOKEN_BYTES_MAX", limits::TOKEN_BYTES_MAX as u64),
        ("SEND_WINDOW_MAX", u64::from(limits::SEND_WINDOW_MAX)),
        ("RECV_WINDOW_MAX", u64::from(limits::RECV_WINDOW_MAX)),
        ("RECV_WINDOW_BYTES", limits::RECV_WINDOW_BYTES as u64),
        ("DEDUP_IDS_PER_SENDER_MAX", limits::DEDUP_IDS_PER_SENDER_MAX as u64),
        ("PRESENCE_USERS_MAX", limits::PRESENCE_USERS_MAX as u64),
        ("WATCHED_PER_CONNECTION_MAX", limits::WATCHED_PER_CONNECTION_MAX as u64),
        ("WATCHERS_PER_USER_MAX", limits::WATCHERS_PER_USER_MAX as u64),
        ("INBOX_MESSAGES_MAX", u64::from(limits::INBOX_MESSAGES_MAX)),
    ]
    .into_iter()
    .collect();
    let rows = table_rows(3);
    let listed: BTreeSet<(&str, u64)> = rows
        .iter()
        .filter_map(|row| Some((row[0].as_str(), row[1].replace(',', "").parse().ok()?)))
        .filter(|(name, _)| name.contains('_') && !name.contains(char::is_lowercase))
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn the_page_lists_every_frame_type_with_its_number() {
    let expected: BTreeSet<(u8, &str)> = [
        (kind::HELLO, "HELLO"),
        (kind::SEND, "SEND"),
        (kind::ACK, "ACK"),
        (kind::WINDOW, "WINDOW"),
        (kind::PRESENCE_QUERY, "PRESENCE_QUERY"),
        (kind::UNWATCH, "UNWATCH"),
        (kind::PING, "PING"),
        (kind::PONG, "PONG"),
        (kind::WELCOME, "WELCOME"),
        (kind::ACCEPTED, "ACCEPTED"),
        (kind::REJECTED, "REJECTED"),
        (kind::MESSAGE, "MESSAGE"),
        (kind::PRESENCE, "PRESENCE"),
        (kind::DRAIN, "DRAIN"),
        (kind::ERROR, "ERROR"),
    ]
    .into_iter()
    .collect();
    let rows = table_rows(4);
    let listed: BTreeSet<(u8, &str)> = rows
        .iter()
        .filter_map(|row| {
            let number = row[0].strip_prefix("0x")?;
            Some((u8::from_str_radix(number, 16).ok()?, row[1].as_str()))
        })
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn every_worked_example_of_the_page_is_a_vector() {
    let known = rows("frames");
    let mut examples = 0;
    for block in PROTOCOL.split("```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let (lines, _) = rest.split_once("```").unwrap();
        let bytes: String = lines
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default())
            .flat_map(str::chars)
            .filter(|c| !c.is_whitespace())
            .collect();
        let row = known.iter().find(|row| row["name"] == name);
        assert_eq!(bytes, text(row.unwrap_or_else(|| panic!("no vector {name}")), "hex"), "{name}");
        examples += 1;
    }
    assert!(examples >= 8, "the page shows {examples} examples");
}

fn name() -> impl Strategy<Value = String> {
    "[a-zà-ÿ日本語0-9]{1,32}".prop_filter("fits", |name| name.len() <= limits::USER_BYTES_MAX)
}

proptest! {
    #[test]
    fn random_bytes_never_panic(
        frame_kind: u8, body in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let _ = ClientFrame::decode(frame_kind, &body);
        let _ = ServerFrame::decode(frame_kind, &body);
        let _ = split_frame(&body);
    }

    #[test]
    fn a_damaged_vector_never_panics(
        at: prop::sample::Index, pick: prop::sample::Index, byte: u8,
    ) {
        let all = rows("frames");
        let mut bytes = unhex(text(&all[pick.index(all.len())], "hex"));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Some((frame_kind, body, _))) = split_frame(&bytes) {
            let _ = ClientFrame::decode(frame_kind, body);
            let _ = ServerFrame::decode(frame_kind, body);
        }
    }

    #[test]
    fn a_length_above_the_bound_is_refused_before_any_body_is_there(
        frame_kind: u8, len in 0_u32..1 << 24,
    ) {
        let [a, b, c, _] = len.to_le_bytes();
        let header = [frame_kind, a, b, c];
        let expected = if len as usize > FRAME_BODY_BYTES_MAX {
            Err(Code::Oversize)
        } else {
            Ok(Some(Header { kind: frame_kind, body_bytes: len as usize }))
        };
        prop_assert_eq!(Header::read(&header), expected);
    }

    #[test]
    fn a_send_comes_back_as_it_went(
        seq: u32, id: u128, flags: u8,
        to in prop::collection::vec(name(), 1..=limits::RECIPIENTS_MAX),
        payload in prop::collection::vec(any::<u8>(), 0..2000),
        after in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let names: Vec<_> = to.iter().map(String::as_str).collect();
        let mut bytes = Vec::new();
        put_send(&mut bytes, seq, MsgId(id), flags, &names, &payload);
        let whole = bytes.len();
        bytes.extend_from_slice(&after);
        let (frame_kind, body, rest) = split_frame(&bytes).unwrap().unwrap();
        prop_assert_eq!(rest, &after[..]);
        let ClientFrame::Send(send) = ClientFrame::decode(frame_kind, body).unwrap() else {
            panic!("a SEND decodes to a SEND")
        };
        prop_assert_eq!((send.seq, send.id, send.flags), (seq, MsgId(id), flags));
        prop_assert_eq!(send.to.len(), to.len());
        prop_assert!(send.to.iter().eq(names));
        prop_assert_eq!(send.payload, &payload[..]);
        let mut again = Vec::new();
        ClientFrame::Send(send).encode(&mut again);
        prop_assert_eq!(&again[..], &bytes[..whole]);
    }

    #[test]
    fn a_hello_comes_back_as_it_went(
        version_max in 1_u8.., window: u32, user in name(), device in "[a-z]{0,64}",
        token in "[A-Za-z0-9._-]{0,4096}",
    ) {
        let (user, token) = (user.as_str(), token.as_str());
        let hello = Hello { version_min: 1, version_max, window, user, device: &device, token };
        let mut bytes = Vec::new();
        ClientFrame::Hello(hello).encode(&mut bytes);
        let (frame_kind, body) = only_frame(&bytes).unwrap();
        prop_assert_eq!(ClientFrame::decode(frame_kind, body), Ok(ClientFrame::Hello(hello)));
    }

    #[test]
    fn what_a_server_says_comes_back_as_it_went(
        no: u32, id: u128, time_ms: u64, flags: u8, from in name(), copies: u8,
        payload in prop::collection::vec(any::<u8>(), 0..500),
        runs in prop::collection::vec((any::<u32>(), 1_u16..), 1..50),
        refused in prop::collection::vec((any::<u32>(), any::<u16>(), any::<u32>()), 1..50),
    ) {
        let head = MessageHead { no, id: MsgId(id), time_ms, flags, from: &from };
        let runs: Vec<_> =
            runs.into_iter().map(|(first, count)| AcceptedRun { first, count }).collect();
        let refused: Vec<_> = refused
            .into_iter()
            .map(|(seq, code, retry_after_ms)| Rejection { seq, code, retry_after_ms })
            .collect();
        let mut bytes = Vec::new();
        head.encode(&payload, &mut bytes);
        put_accepted(&mut bytes, copies, &runs);
        put_rejected(&mut bytes, &refused);
        let (frame_kind, body, rest) = split_frame(&bytes).unwrap().unwrap();
        let message = ServerFrame::decode(frame_kind, body);
        prop_assert_eq!(message, Ok(ServerFrame::Message(head, &payload)));
        let (frame_kind, body, rest) = split_frame(rest).unwrap().unwrap();
        let accepted = ServerFrame::decode(frame_kind, body);
        let Ok(ServerFrame::Accepted { copies: got, runs: list }) = accepted else {
            panic!("an ACCEPTED decodes to an ACCEPTED, not {accepted:?}")
        };
        prop_assert_eq!((got, list.iter().collect::<Vec<_>>()), (copies, runs));
        let (frame_kind, body, rest) = split_frame(rest).unwrap().unwrap();
        let rejected = ServerFrame::decode(frame_kind, body);
        let Ok(ServerFrame::Rejected(list)) = rejected else {
            panic!("a REJECTED decodes to a REJECTED, not {rejected:?}")
        };
        prop_assert_eq!(list.iter().collect::<Vec<_>>(), refused);
        prop_assert!(rest.is_empty());
    }
}
