//! Frames of clients and links, written and read; and a session's rules.

use std::hint::black_box;

use iris_proto::id::{ConnId, MsgId, UserKey};
use iris_proto::link::{LinkSend, ToCore, ToEdge};
use iris_proto::session::{Patience, Session};
use iris_proto::wire::{
    AcceptedRun, ClientFrame, Hello, MessageHead, ServerFrame, put_accepted, put_send, split_frame,
};

use super::{PAYLOAD, T0, name};
use crate::work::{Bench, Whole, Work};

/// Frames of a turn.
const FRAMES: u32 = 64;
/// SENDs of a session's life.
const SENDS: u32 = 16;
/// Runs of an ACCEPTED, as for a connection whose SENDs went to several partitions.
const RUNS: u32 = 4;
const PATIENCE: Patience = Patience { login_s: 10, idle_s: 60 };

pub(super) const BENCHES: &[Bench] = &[
    frames("wire/encode-send", encode_send),
    frames("wire/decode-send", decode_send),
    frames("wire/encode-message", encode_message),
    frames("wire/decode-message", decode_message),
    frames("wire/encode-accepted", encode_accepted),
    frames("wire/decode-accepted", decode_accepted),
    frames("link/encode-send", encode_link_send),
    frames("link/decode-send", decode_link_send),
    frames("link/encode-message", encode_link_message),
    frames("link/decode-message", decode_link_message),
    Bench { op: "session", ..frames("session/life", lives) },
];

const fn frames(name: &'static str, start: fn() -> Box<dyn Work>) -> Bench {
    Bench { name, op: "frame", ops: FRAMES as u64, warm: 4, turns: 100, start }
}

fn id(number: u32) -> MsgId {
    MsgId::v7(T0, u128::from(number))
}

/// Writes the frames of a turn into a buffer that is used again.
fn encoding(mut put: impl FnMut(&mut Vec<u8>, u32) + 'static) -> Box<dyn Work> {
    let mut out = Vec::new();
    Whole::boxed(move || {
        out.clear();
        for number in 0..FRAMES {
            put(&mut out, black_box(number));
        }
        black_box(&out);
        u64::from(FRAMES)
    })
}

/// Reads frames that `put` wrote: `take` gets what is left of them, and returns what is left after one.
fn decoding(
    mut put: impl FnMut(&mut Vec<u8>, u32),
    mut take: impl FnMut(&[u8]) -> &[u8] + 'static,
) -> Box<dyn Work> {
    let mut bytes = Vec::new();
    (0..FRAMES).for_each(|number| put(&mut bytes, number));
    Whole::boxed(move || {
        let (mut rest, mut frames) = (black_box(bytes.as_slice()), 0);
        while !rest.is_empty() {
            rest = take(rest);
            frames += 1;
        }
        frames
    })
}

fn take_client(bytes: &[u8]) -> &[u8] {
    let (kind, body, rest) = split_frame(bytes).expect("a frame").expect("a whole frame");
    let frame = ClientFrame::decode(kind, body).expect("a sound frame");
    black_box(&frame);
    rest
}

fn take_server(bytes: &[u8]) -> &[u8] {
    let (kind, body, rest) = split_frame(bytes).expect("a frame").expect("a whole frame");
    let frame = ServerFrame::decode(kind, body).expect("a sound frame");
    if let ServerFrame::Accepted { runs, .. } = &frame {
        black_box(runs.iter().map(|run| u32::from(run.count)).sum::<u32>());
    }
    black_box(&frame);
    rest
}

fn take_to_core(bytes: &[u8]) -> &[u8] {
    let (frame, rest) = ToCore::split(bytes).expect("a sound frame").expect("a frame");
    black_box(&frame);
    rest
}

fn take_to_edge(bytes: &[u8]) -> &[u8] {
    let (frame, rest) = ToEdge::split(bytes).expect("a sound frame").expect("a frame");
    black_box(&frame);
    rest
}

fn put_wire_send(out: &mut Vec<u8>, number: u32) {
    put_send(out, number, id(number), 0, black_box(&["recipient-000012"]), black_box(&PAYLOAD));
}

fn put_message(out: &mut Vec<u8>, number: u32) {
    let head =
        MessageHead { no: number, id: id(number), time_ms: T0, flags: 0, from: "sender-000012" };
    black_box(head).encode(black_box(&PAYLOAD), out);
}

fn put_runs(out: &mut Vec<u8>, number: u32) {
    let runs: [AcceptedRun; RUNS as usize] =
        std::array::from_fn(|at| AcceptedRun { first: number + 32 * at as u32, count: 16 });
    put_accepted(out, 1, black_box(&runs));
}

fn put_link_send(out: &mut Vec<u8>, number: u32) {
    let send = LinkSend {
        conn: ConnId::new(1, number, 0),
        seq: number,
        sender: UserKey([3; 16]),
        id: id(number),
        flags: 0,
        from: "sender-000012",
        to: &[5; 16],
        payload: &PAYLOAD,
    };
    ToCore::Send(black_box(send)).encode(out);
}

fn put_link_message(out: &mut Vec<u8>, number: u32) {
    ToEdge::encode_frame(ConnId::new(1, number, 0), out, |out| put_message(out, number));
}

fn encode_send() -> Box<dyn Work> {
    encoding(put_wire_send)
}

fn decode_send() -> Box<dyn Work> {
    decoding(put_wire_send, take_client)
}

fn encode_message() -> Box<dyn Work> {
    encoding(put_message)
}

fn decode_message() -> Box<dyn Work> {
    decoding(put_message, take_server)
}

fn encode_accepted() -> Box<dyn Work> {
    encoding(put_runs)
}

fn decode_accepted() -> Box<dyn Work> {
    decoding(put_runs, take_server)
}

fn encode_link_send() -> Box<dyn Work> {
    encoding(put_link_send)
}

fn decode_link_send() -> Box<dyn Work> {
    decoding(put_link_send, take_to_core)
}

fn encode_link_message() -> Box<dyn Work> {
    encoding(put_link_message)
}

fn decode_link_message() -> Box<dyn Work> {
    decoding(put_link_message, take_to_edge)
}

/// What a client says from its login to its last ACK.
fn life() -> Vec<u8> {
    let mut bytes = Vec::new();
    let (user, token) = (name("sender", 12), "t".repeat(200));
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        window: 256,
        user: &user,
        device: "phone",
        token: &token,
    };
    ClientFrame::Hello(hello).encode(&mut bytes);
    (0..SENDS).for_each(|number| put_wire_send(&mut bytes, number));
    ClientFrame::Ack(SENDS).encode(&mut bytes);
    ClientFrame::Ping([1; 8]).encode(&mut bytes);
    bytes
}

/// Sessions from HELLO to their last ACK, frames read as a reactor reads them.
fn lives() -> Box<dyn Work> {
    let bytes = life();
    Whole::boxed(move || {
        let mut lives = 0;
        for now_s in 0..FRAMES {
            let mut session = Session::new(now_s);
            let mut rest = black_box(bytes.as_slice());
            while let Some((kind, body, after)) = split_frame(rest).expect("a frame") {
                let frame = ClientFrame::decode(kind, body).expect("a sound frame");
                session.handle_frame(now_s, &frame).expect("a frame in its place");
                if let ClientFrame::Hello(_) = frame {
                    session.handle_verified(now_s + 3600);
                    session.handle_welcome(now_s);
                }
                rest = after;
            }
            session.handle_answers(SENDS as u16);
            black_box(session.handle_time(now_s + 40, &PATIENCE, u64::from(now_s)));
            lives += u64::from(session.is_active());
        }
        lives
    })
}
