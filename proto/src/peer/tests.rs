//! The vectors, the machine between two ends, and properties over arbitrary bytes.

use super::frame::{Heartbeat, kind, put, put_end};
use super::relay::ReactorRange;
use super::*;
use crate::id::{ConnId, MsgId, UserKey};
use crate::link::{LinkSend, PresenceAsk, ReceiptPost, ToCore, ToEdge};
use crate::wire::{Code, MessageHead, Names};
use proptest::prelude::*;
use serde_json::{Value, json};

const VECTORS: &str = include_str!("../../vectors/link-v1.json");
const PAGE: &str = include_str!("../../../docs/LINKS.md");

fn edge() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        purpose: Purpose::Clients,
        roles: Roles::EDGE,
        node: 7,
        incarnation: 0x0102_0304_0506_0708,
        num_shards: 64,
        partitions: 0,
        reactors: 2,
        heartbeat_ms: 50,
        credit: 1 << 20,
        shards: ShardRanges::none(),
        cluster: "prod".to_owned(),
        region: "eu".to_owned(),
        name: "edge-7".to_owned(),
    }
}

fn core() -> Hello {
    Hello {
        roles: Roles::CORE,
        node: 1,
        incarnation: 9,
        partitions: 4,
        reactors: 0,
        shards: ShardRanges::of(&[(0, 31), (40, 63)]).unwrap(),
        name: "core-1".to_owned(),
        ..edge()
    }
}

fn config(me: Hello, expected_node: Option<u32>) -> LinkConfig {
    LinkConfig { me, expected_node }
}

/// Two ends with a wire between them.
struct Pair {
    dialler: Link,
    acceptor: Link,
}

impl Pair {
    fn new(dialler: Hello, expected: Option<u32>, acceptor: Hello) -> Self {
        Self {
            dialler: Link::dial(config(dialler, expected), 0),
            acceptor: Link::accept(config(acceptor, None), 0),
        }
    }

    fn up() -> Self {
        let mut pair = Self::new(edge(), Some(1), core());
        assert_eq!(pair.greet(), Ok(()));
        pair
    }

    /// The handshake, as far as it goes.
    fn greet(&mut self) -> Result<(), End> {
        deliver(&mut self.dialler, &mut self.acceptor, 1)?;
        self.acceptor.establish(1);
        deliver(&mut self.acceptor, &mut self.dialler, 2)?;
        self.dialler.establish(2);
        Ok(())
    }
}

/// Carries what one end has for the other; returns the events.
fn deliver(from: &mut Link, to: &mut Link, now_ms: u64) -> Result<Vec<Event<'static>>, End> {
    let bytes = from.take_output();
    let mut rest = bytes.as_slice();
    let mut events = Vec::new();
    while let Some(event) = to.next(now_ms, &mut rest)? {
        let is_hello = matches!(event, Event::Hello(_));
        events.push(owned(event));
        if is_hello {
            break;
        }
    }
    assert!(rest.is_empty(), "everything was taken in");
    Ok(events)
}

fn owned(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Hello(hello) => Event::Hello(hello),
        Event::Batch { channel, bytes } => {
            Event::Batch { channel, bytes: bytes.into_owned().into() }
        }
        Event::State { partition, state } => Event::State { partition, state },
        Event::Eject { user, id } => Event::Eject { user, id },
    }
}

fn code(result: Result<(), End>) -> EndCode {
    result.unwrap_err().code
}

// ---- vectors

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn made(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fill(&mut out);
    out
}

const CONN: ConnId = ConnId(0x0010_0000_0200_0003);
const USER: UserKey = UserKey([0xaa; 16]);

/// Frames of a link, then frames inside a batch; each with its name on the page.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let heartbeat = Heartbeat { now_ms: 1000, echo_ms: 990 };
    let end = End::ours(EndCode::Cluster, "x");
    let beyond = put_of(0x86, 0, |w| w.extend_from_slice(b"later"));
    let id = MsgId::v7(0x0192_0000_0000, 5);
    let to = [0xbb; 16];
    let send = LinkSend {
        conn: CONN,
        seq: 9,
        sender: USER,
        id,
        flags: 1,
        from: "zoe",
        to: &to,
        payload: b"hi",
    };
    let names = Names::of_bytes(b"\x01\x00\x03bob");
    let ask = PresenceAsk { conn: CONN, query: 4, watch: true, users: names };
    let receipt = ReceiptPost { to: USER, reader: UserKey(to), reader_name: "bob", id };
    let head = MessageHead { no: 1, id, time_ms: 2, flags: 0, from: "zoe" };
    let core_hello = core();
    let core = |frame: ToCore<'_>| made(|out| frame.encode(out));
    let edge_frame = |frame: ToEdge<'_>| made(|out| frame.encode(out));
    vec![
        ("hello_of_an_edge", made(|out| edge().encode(out))),
        ("hello_of_a_core", made(|out| core_hello.encode(out))),
        ("end_cluster", made(|out| put_end(out, &end))),
        ("heartbeat", made(|out| heartbeat.encode(out))),
        ("credit", put_of(kind::CREDIT, 3, |out| out.extend_from_slice(&65_536_u32.to_le_bytes()))),
        ("state_draining", put_of(kind::STATE, 2, |out| out.push(2))),
        ("batch", put_of(kind::BATCH, 1, |out| out.extend_from_slice(b"bytes"))),
        (
            "eject",
            put_of(kind::EJECT, 0, |out| {
                out.extend([&USER.0[..], &[7, 0, 0, 0, 0, 0, 0, 0]].concat())
            }),
        ),
        ("ignored", beyond),
        (
            "login",
            core(ToCore::Login { conn: CONN, user: USER, window: 256, session: 0, name: "zoe" }),
        ),
        ("logout", core(ToCore::Logout { conn: CONN, user: USER })),
        ("send", core(ToCore::Send(send))),
        ("ack", core(ToCore::Ack { conn: CONN, user: USER, upto: 3 })),
        ("window", core(ToCore::Window { conn: CONN, user: USER, window: 0 })),
        ("presence", core(ToCore::Presence(ask))),
        ("unwatch", core(ToCore::Unwatch { conn: CONN, users: names })),
        ("receipt", core(ToCore::Receipt(receipt))),
        ("welcome", edge_frame(ToEdge::Welcome { conn: CONN, waiting: 2, session: 77 })),
        ("accepted", edge_frame(ToEdge::Accepted { conn: CONN, first: 9, count: 3, copies: 2 })),
        (
            "rejected",
            edge_frame(ToEdge::Rejected {
                conn: CONN,
                seq: 9,
                code: Code::ShardUnavailable,
                retry_after_ms: 1000,
            }),
        ),
        ("frame", made(|out| ToEdge::encode_frame(CONN, out, |out| head.encode(b"hi", out)))),
        ("kick", edge_frame(ToEdge::Kick { conn: CONN, code: Code::Replaced })),
    ]
}

fn put_of(kind: u8, channel: u16, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let body = made(fill);
    made(|out| {
        put(out, kind, channel, |w| {
            w.bytes(&body);
        });
    })
}

#[test]
fn every_frame_is_as_the_vectors_say() {
    let entries: Vec<Value> =
        frames().iter().map(|(name, bytes)| json!({ "name": name, "hex": hex(bytes) })).collect();
    let wanted: Value = serde_json::from_str(VECTORS).unwrap();
    assert_eq!(wanted["link_version"], u64::from(VERSION_MAX));
    for entry in &entries {
        let name = &entry["name"];
        let found = wanted["frames"].as_array().unwrap().iter().find(|row| row["name"] == *name);
        assert_eq!(found, Some(entry), "{}", serde_json::to_string(&entries).unwrap());
    }
    assert_eq!(wanted["frames"].as_array().unwrap().len(), entries.len());
}

#[test]
fn the_page_shows_the_vectors_and_every_code() {
    for row in serde_json::from_str::<Value>(VECTORS).unwrap()["frames"].as_array().unwrap() {
        let (name, hex) = (row["name"].as_str().unwrap(), row["hex"].as_str().unwrap());
        assert!(PAGE.contains(&format!("`{name}`: `{hex}`")), "`{name}`: `{hex}`");
    }
    for code in EndCode::ALL {
        let row = format!("| {} | `{}` |", code as u16, code.name());
        assert!(PAGE.contains(&row), "{row}");
        assert_eq!(EndCode::from_u16(code as u16), Some(code));
    }
}

#[test]
fn a_hello_comes_back_as_it_was() {
    for hello in [edge(), core()] {
        let bytes = made(|out| hello.encode(out));
        assert_eq!(Hello::decode(&bytes[HEADER_BYTES..]), Ok(hello));
    }
}

// ---- handshake

#[test]
fn a_core_that_claims_more_partitions_than_there_are_shards_is_refused() {
    for (partitions, wanted) in
        [(64, Ok(())), (65, Err(EndCode::Layout)), (65_535, Err(EndCode::Layout))]
    {
        let mut pair = Pair::new(edge(), Some(1), Hello { partitions, ..core() });
        assert_eq!(pair.greet().map_err(|end| end.code), wanted, "{partitions}");
    }
}

#[test]
fn a_wish_to_end_sessions_crosses_whole_and_only_a_link_that_is_up() {
    let mut pair = Pair::up();
    pair.dialler.tell_eject(USER, 77);
    let events = deliver(&mut pair.dialler, &mut pair.acceptor, 3);
    assert_eq!(events, Ok(vec![Event::Eject { user: USER, id: 77 }]));
    let short = put_of(kind::EJECT, 0, |out| out.extend_from_slice(&[1; 23]));
    let end = pair.dialler.next(3, &mut short.as_slice()).unwrap_err();
    assert_eq!(end.code, EndCode::Malformed);
    pair.dialler.take_output();
    pair.dialler.tell_eject(USER, 78);
    assert_eq!(pair.dialler.output_bytes(), 0, "it is over");
}

#[test]
fn an_edge_and_a_core_come_to_terms() {
    let pair = Pair::up();
    assert!(pair.dialler.is_up() && pair.acceptor.is_up());
    assert_eq!((pair.dialler.channels(), pair.acceptor.channels()), (4, 4));
    assert_eq!(pair.dialler.credit(3), BATCH_BYTES_MAX);
    assert_eq!(pair.dialler.peer(), Some(&core()));
    assert_eq!(pair.acceptor.peer(), Some(&edge()));
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_the_other_side_is_told() {
    let mirror = Hello { purpose: Purpose::Replication, ..core() };
    let cases = [
        (Hello { cluster: "test".to_owned(), ..edge() }, core(), EndCode::Cluster),
        (Hello { num_shards: 32, ..edge() }, core(), EndCode::Layout),
        (Hello { roles: Roles::CORE, ..edge() }, core(), EndCode::Identity),
        (Hello { reactors: 0, ..edge() }, core(), EndCode::Layout),
        (Hello { reactors: 4097, ..edge() }, core(), EndCode::Layout),
        (Hello { version_min: 2, version_max: 3, ..edge() }, core(), EndCode::Version),
        (Hello { version_min: 0, version_max: 0, ..edge() }, core(), EndCode::Version),
        (Hello { node: 0, ..edge() }, core(), EndCode::Malformed),
        (Hello { heartbeat_ms: 1 << 20, ..edge() }, core(), EndCode::Malformed),
        (Hello { node: 2, roles: Roles::EDGE, ..mirror.clone() }, core(), EndCode::Identity),
        (mirror.clone(), mirror.clone(), EndCode::Identity),
        (Hello { node: 2, partitions: 8, ..mirror.clone() }, mirror.clone(), EndCode::Layout),
    ];
    for (theirs, ours, wanted) in cases {
        let mut acceptor = Link::accept(config(ours, None), 0);
        let bytes = made(|out| theirs.encode(out));
        let end = acceptor.next(1, &mut bytes.as_slice()).unwrap_err();
        assert_eq!((end.code, end.by_peer), (wanted, false), "{theirs:?}");
        let mut dialler = Link::dial(config(edge(), None), 0);
        let told = deliver(&mut acceptor, &mut dialler, 1).unwrap_err();
        assert_eq!((told.code, told.by_peer, told.text), (wanted, true, end.text));
    }
    let mut pair = Pair::new(edge(), Some(2), core());
    assert_eq!(code(pair.greet()), EndCode::Identity, "another node than was dialled");
    let mut dialler = Link::dial(config(edge(), None), 0);
    let bytes = made(|out| mirror.encode(out));
    let end = dialler.next(1, &mut bytes.as_slice()).unwrap_err();
    assert_eq!(end.code, EndCode::Identity, "another purpose than was dialled for");
}

#[test]
fn a_later_version_is_spoken_with_by_the_one_in_common() {
    let later = Hello { version_max: 9, ..edge() };
    let mut bytes = made(|out| later.encode(out));
    bytes.extend_from_slice(b"what a later version adds");
    let body = (bytes.len() - HEADER_BYTES) as u32;
    bytes[4..8].copy_from_slice(&body.to_le_bytes());
    let mut acceptor = Link::accept(config(core(), None), 0);
    let event = acceptor.next(1, &mut bytes.as_slice());
    assert_eq!(event, Ok(Some(Event::Hello(Box::new(later)))));
}

#[test]
fn mirrors_come_to_terms() {
    let one = Hello { purpose: Purpose::Replication, ..core() };
    let two = Hello { node: 2, ..one.clone() };
    let mut pair = Pair::new(one, Some(2), two);
    assert_eq!(pair.greet(), Ok(()));
    assert_eq!(pair.dialler.channels(), 4);
}

#[test]
fn a_stranger_that_says_anything_else_or_nothing_is_ended() {
    let batch = put_of(kind::BATCH, 0, |out| out.extend_from_slice(b"x"));
    let large = put_of(kind::HELLO, 0, |out| out.resize(HELLO_BYTES_MAX + 1, 0));
    let http = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    let no_magic = put_of(kind::HELLO, 0, |out| out.extend_from_slice(b"none"));
    for (bytes, wanted) in [
        (batch, EndCode::Garbage),
        (large, EndCode::Oversize),
        (http, EndCode::Oversize),
        (no_magic, EndCode::Garbage),
    ] {
        let mut acceptor = Link::accept(config(core(), None), 0);
        // Byte by byte: the verdict does not wait for a body.
        let mut end = None;
        for byte in bytes.chunks(1) {
            end = acceptor.next(1, &mut &*byte).err();
            if end.is_some() {
                break;
            }
        }
        assert_eq!(end.unwrap().code, wanted);
    }
    let mut acceptor = Link::accept(config(core(), None), 0);
    assert_eq!(acceptor.poll(2999), Ok(()));
    assert_eq!(acceptor.next(2999, &mut &[kind::HELLO][..]), Ok(None), "trickling gains no time");
    assert_eq!(code(acceptor.poll(3000)), EndCode::HandshakeTimeout);
}

// ---- batches

#[test]
fn batches_cross_both_ways_and_unknown_types_are_skipped_or_end_it() {
    let mut pair = Pair::up();
    pair.dialler.send(2, b"up");
    let events = deliver(&mut pair.dialler, &mut pair.acceptor, 3).unwrap();
    assert_eq!(events, [Event::Batch { channel: 2, bytes: b"up".to_vec().into() }]);
    pair.acceptor.tell_state(3, PartitionState::Draining);
    pair.acceptor.send(1, b"down");
    let events = deliver(&mut pair.acceptor, &mut pair.dialler, 3).unwrap();
    let state = Event::State { partition: 3, state: PartitionState::Draining };
    assert_eq!(events, [state, Event::Batch { channel: 1, bytes: b"down".to_vec().into() }]);
    let mut later = put_of(0x86, 0, |out| out.extend_from_slice(b"later"));
    later.extend(put_of(kind::BATCH, 0, |out| out.push(1)));
    let event = pair.acceptor.next(4, &mut later.as_slice()).unwrap();
    assert_eq!(event, Some(Event::Batch { channel: 0, bytes: vec![1].into() }));
    for (bytes, wanted) in [
        (put_of(0x06 + 1, 0, |_| ()), EndCode::UnknownType),
        (made(|out| edge().encode(out)), EndCode::OutOfOrder),
        (put_of(kind::BATCH, 4, |out| out.push(0)), EndCode::Malformed),
        (put_of(kind::STATE, 4, |out| out.push(0)), EndCode::Malformed),
        (put_of(kind::STATE, 0, |_| ()), EndCode::Malformed),
        (put_of(kind::CREDIT, 0, |out| out.extend([0xff; 4])), EndCode::Malformed),
        (vec![kind::BATCH, 0, 0, 0, 1, 0, 4, 0], EndCode::Oversize),
        (vec![kind::CREDIT, 0, 0, 0, 0, 0, 1, 0], EndCode::Oversize),
    ] {
        let mut acceptor = Pair::up().acceptor;
        assert_eq!(acceptor.next(5, &mut bytes.as_slice()).unwrap_err().code, wanted);
    }
}

#[test]
fn a_stream_cut_anywhere_gives_the_same_events() {
    let mut whole = put_of(kind::BATCH, 1, |out| out.extend((0..=255).cycle().take(1000)));
    whole.extend(put_of(kind::STATE, 0, |out| out.push(1)));
    whole.extend(put_of(kind::BATCH, 0, |_| ()));
    let events = |cuts: &[usize]| {
        let mut link = Pair::up().acceptor;
        let (mut events, mut start) = (Vec::new(), 0);
        for end in cuts.iter().copied().chain([whole.len()]) {
            let mut part = &whole[start..end];
            start = end;
            while let Some(event) = link.next(3, &mut part).unwrap() {
                events.push(owned(event));
            }
        }
        events
    };
    let expected = events(&[]);
    assert_eq!(expected.len(), 3);
    for cut in 0..whole.len() {
        assert_eq!(events(&[cut]), expected, "cut at {cut}");
    }
    assert_eq!(events(&(0..whole.len()).collect::<Vec<_>>()), expected);
}

#[test]
fn no_more_goes_than_was_granted_and_what_left_is_granted_again() {
    let mut pair = Pair::up();
    let batch = vec![7; BATCH_BYTES_MAX];
    let mut sent = 0;
    while pair.dialler.credit(0) == BATCH_BYTES_MAX {
        pair.dialler.send(0, &batch);
        sent += batch.len();
    }
    assert_eq!((sent, pair.dialler.credit(0)), (1 << 20, 0));
    assert_eq!(pair.dialler.credit(1), BATCH_BYTES_MAX, "another channel goes on");
    let events = deliver(&mut pair.dialler, &mut pair.acceptor, 3).unwrap();
    assert_eq!(events.len(), 4);
    pair.acceptor.consumed(0, 100);
    deliver(&mut pair.acceptor, &mut pair.dialler, 3).unwrap();
    assert_eq!(pair.dialler.credit(0), 0, "small change is not told at once");
    pair.acceptor.consumed(0, BATCH_BYTES_MAX);
    deliver(&mut pair.acceptor, &mut pair.dialler, 3).unwrap();
    assert_eq!(pair.dialler.credit(0), BATCH_BYTES_MAX);
    // One that takes more than it was granted is ended.
    pair.dialler.send(0, &batch);
    let mut bytes = pair.dialler.take_output();
    bytes.extend(put_of(kind::BATCH, 0, |out| out.resize(101, 0)));
    let mut rest = bytes.as_slice();
    pair.acceptor.next(4, &mut rest).unwrap().unwrap();
    let end = pair.acceptor.next(4, &mut rest).unwrap_err();
    assert_eq!(end.code, EndCode::Credit);
}

// ---- time

#[test]
fn hearts_beat_and_tell_the_round_trip() {
    let mut pair = Pair::up();
    for now_ms in (10..1000).step_by(10) {
        assert_eq!((pair.dialler.poll(now_ms), pair.acceptor.poll(now_ms)), (Ok(()), Ok(())));
        deliver(&mut pair.dialler, &mut pair.acceptor, now_ms + 1).unwrap();
        deliver(&mut pair.acceptor, &mut pair.dialler, now_ms + 3).unwrap();
    }
    assert!(pair.dialler.rtt_ms().unwrap() < 100);
    assert!(pair.dialler.poll_timeout() <= 1050);
}

#[test]
fn a_silent_peer_is_ended_after_four_beats_and_a_late_thread_blames_nobody() {
    let mut pair = Pair::up();
    for now_ms in (10..200).step_by(10) {
        assert_eq!(pair.dialler.poll(now_ms), Ok(()));
    }
    assert_eq!(code(pair.dialler.poll(210)), EndCode::Silent);
    let mut pair = Pair::up();
    assert_eq!(pair.dialler.poll(100_000), Ok(()), "it was this thread that stood still");
    for now_ms in (100_010..100_200).step_by(10) {
        assert_eq!(pair.dialler.poll(now_ms), Ok(()));
    }
    assert_eq!(code(pair.dialler.poll(100_200)), EndCode::Silent);
}

// ---- what batches hold

const RANGE: ReactorRange = ReactorRange { first: 100, count: 2 };

fn batch_to_core() -> Vec<u8> {
    let inside = frames().into_iter().skip_while(|(name, _)| *name != "login");
    inside.take_while(|(name, _)| *name != "welcome").flat_map(|(_, bytes)| bytes).collect()
}

fn batch_to_edge() -> Vec<u8> {
    let inside = frames().into_iter().skip_while(|(name, _)| *name != "welcome");
    inside.flat_map(|(_, bytes)| bytes).collect()
}

#[test]
fn frames_for_a_core_keep_their_content_and_get_its_numbers() {
    let (batch, mut out) = (batch_to_core(), Vec::new());
    assert_eq!(relay::to_core(&batch, RANGE, &mut out), Ok(8));
    assert_eq!(out.len(), batch.len());
    let (mut rest, mut conns) = (out.as_slice(), 0);
    while let Some((frame, after)) = ToCore::split(rest).unwrap() {
        if let ToCore::Send(send) = frame {
            assert_eq!((send.conn.reactor(), send.conn.slot()), (101, CONN.slot()));
            assert_eq!((send.seq, send.payload), (9, &b"hi"[..]));
            conns += 1;
        }
        rest = after;
    }
    assert_eq!(conns, 1);
    let gone = made(|out| ToCore::Gone { first: 0, count: 9 }.encode(out));
    let end = relay::to_core(&gone, RANGE, &mut Vec::new()).unwrap_err();
    assert_eq!(end.code, EndCode::OutOfOrder, "no peer ends what is not its own");
    let narrow = ReactorRange { first: 100, count: 1 };
    let end = relay::to_core(&batch, narrow, &mut out).unwrap_err();
    assert_eq!(end.code, EndCode::OutOfOrder, "reactor 1 of 1");
    let mut forged = frames().into_iter().find(|(name, _)| *name == "send").unwrap().1;
    forged[48] = 2;
    let end = relay::to_core(&forged, RANGE, &mut out).unwrap_err();
    assert_eq!(end.code, EndCode::Malformed, "an edge cannot make receipts of SENDs");
}

#[test]
fn frames_for_an_edge_reach_their_reactor_under_their_old_names() {
    let mut renamed = Vec::new();
    for (_, bytes) in frames().iter().skip_while(|(name, _)| *name != "welcome") {
        let mut bytes = bytes.clone();
        let conn = ConnId::new(RANGE.first + 1, CONN.slot(), CONN.generation());
        bytes[4..12].copy_from_slice(&conn.0.to_le_bytes());
        renamed.extend(bytes);
    }
    let len = relay::cut_for_edge(&mut renamed, usize::MAX, RANGE);
    assert_eq!((len, &renamed), (Some(renamed.len()), &batch_to_edge()));
    let mut given = Vec::new();
    let frames =
        relay::to_edge(&renamed, 2, |reactor, frame| given.push((reactor, frame.to_vec())));
    assert_eq!((frames, given.len()), (Ok(5), 5));
    assert!(given.iter().all(|(reactor, _)| *reactor == 1));
    let end = relay::to_edge(&renamed, 1, |_, _| ()).unwrap_err();
    assert_eq!(end.code, EndCode::OutOfOrder);
    let torn = made(|out| ToEdge::encode_frame(CONN, out, |out| out.extend([1, 2])));
    assert_eq!(relay::to_edge(&torn, 2, |_, _| ()).unwrap_err().code, EndCode::Malformed);
    let receipt = ToEdge::Receipt { to: USER, reader: USER, id: MsgId(1), reader_name: "amy" };
    let receipt = made(|out| receipt.encode(out));
    assert_eq!(relay::to_edge(&receipt, 2, |_, _| ()).unwrap_err().code, EndCode::OutOfOrder);
}

#[test]
fn a_batch_is_cut_between_frames() {
    let batch = batch_to_core();
    let (first, whole) = (frames()[9].1.len(), batch.len());
    assert_eq!(relay::cut(&batch, whole), Some(whole));
    assert_eq!(relay::cut(&batch, first + 3), Some(first));
    assert_eq!(relay::cut(&batch, first - 1), None);
    assert_eq!(relay::cut(&[], 10), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_end_a_link_or_wait_and_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        kind in 0_u8..10,
        greeted in any::<bool>(),
    ) {
        let mut link = if greeted { Pair::up().acceptor } else {
            Link::accept(config(core(), None), 0)
        };
        let mut framed = put_of(kind, 0, |out| out.extend_from_slice(&bytes));
        framed.extend_from_slice(&bytes);
        for input in [&framed, &bytes] {
            let mut rest = input.as_slice();
            while let Ok(Some(event)) = link.next(5, &mut rest) {
                if let Event::Hello(_) = event {
                    return Ok(());
                }
            }
            if !link.is_up() {
                return Ok(());
            }
        }
    }

    #[test]
    fn arbitrary_batches_are_refused_or_passed_on_whole(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        at in 0_usize..400,
        flip in any::<u8>(),
    ) {
        let mut out = Vec::new();
        let _ = relay::to_core(&bytes, RANGE, &mut out);
        let _ = relay::to_edge(&bytes, 2, |_, _| ());
        for mut batch in [batch_to_core(), batch_to_edge()] {
            let at = at % batch.len();
            batch[at] ^= flip;
            out.clear();
            if relay::to_core(&batch, RANGE, &mut out).is_ok() {
                // What was passed on parses there, too: a partition takes it for our own.
                let mut rest = out.as_slice();
                while let Some((_, after)) = ToCore::split(rest).unwrap() {
                    rest = after;
                }
            }
            let _ = relay::to_edge(&batch, 2, |reactor, frame| {
                assert!(reactor < 2 && ToEdge::split(frame).unwrap().is_some());
            });
        }
    }
}
