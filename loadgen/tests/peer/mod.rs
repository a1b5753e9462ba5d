//! A tiny peer that speaks the protocol from memory: a thread per connection, one lock. It may be told to misbehave, so
//! that the load generator can be shown to notice. The real server is tested elsewhere.

use iris_proto::id::MsgId;
use iris_proto::wire::{
    AcceptedRun, ClientFrame, Code, MessageHead, Rejection, Welcome, put_accepted, put_error,
    put_ping, put_rejected, split_frame,
};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the peer does wrong, to the seventh message of each sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    None,
    Lose,
    Repeat,
    Delay,
    Damage,
    Refuse,
    Hang,
    AnswerTwice,
    CloseConnection,
    RefuseTokens,
}

const FAULTY: u32 = 7;

#[derive(Default)]
struct User {
    stream: Option<TcpStream>,
    delivered: u32,
    waiting: Vec<(MsgId, String, Vec<u8>)>,
    delayed: Option<(MsgId, String, Vec<u8>)>,
}

type World = Arc<Mutex<HashMap<String, User>>>;

/// A running peer; its threads end when their connections do.
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
}

impl Peer {
    /// Listens on a free port.
    pub(crate) fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let world = World::default();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let world = world.clone();
                std::thread::spawn(move || serve(stream, &world, fault));
            }
        });
        Self { addr }
    }
}

fn serve(mut stream: TcpStream, world: &World, fault: Fault) {
    stream.set_nodelay(true).unwrap();
    let (mut input, mut chunk, mut user) = (Vec::new(), [0; 16384], String::new());
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        input.extend_from_slice(&chunk[..count]);
        let mut rest = &input[..];
        let mut out = Vec::new();
        while let Some((kind, body, after)) = split_frame(rest).unwrap() {
            rest = after;
            let frame = ClientFrame::decode(kind, body).unwrap();
            if !act(frame, &stream, &mut user, world, fault, &mut out) {
                let _ = stream.write_all(&out);
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
        }
        input = rest.to_vec();
        let _lock = world.lock().unwrap();
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

/// Whether the connection goes on.
fn act(
    frame: ClientFrame<'_>,
    stream: &TcpStream,
    me: &mut String,
    world: &World,
    fault: Fault,
    out: &mut Vec<u8>,
) -> bool {
    match frame {
        ClientFrame::Hello(hello) => {
            if fault == Fault::RefuseTokens {
                put_error(out, Code::TokenSignature, 0);
                return false;
            }
            assert!(!hello.token.is_empty());
            *me = hello.user.to_owned();
            let mut world = world.lock().unwrap();
            let user = world.entry(me.clone()).or_default();
            user.stream = Some(stream.try_clone().unwrap());
            welcome(me, out);
            put_ping(out, *b"heartbea");
            stream.try_clone().unwrap().write_all(out).unwrap();
            out.clear();
            for (id, from, payload) in std::mem::take(&mut user.waiting) {
                user.deliver(id, &from, &payload);
            }
        }
        ClientFrame::Send(send) => {
            let faulty = send.seq == FAULTY;
            match fault {
                Fault::Refuse if faulty => {
                    let code = Code::Overloaded as u16;
                    put_rejected(out, &[Rejection { seq: send.seq, code, retry_after_ms: 20 }]);
                    return true;
                }
                Fault::Hang if send.seq >= FAULTY => return true,
                Fault::CloseConnection if faulty => return false,
                _ => {}
            }
            put_accepted(out, 1, &[AcceptedRun { first: send.seq, count: 1 }]);
            if fault == Fault::AnswerTwice && faulty {
                put_accepted(out, 1, &[AcceptedRun { first: send.seq, count: 1 }]);
            }
            let mut world = world.lock().unwrap();
            for to in send.to.iter() {
                let user = world.entry(to.to_owned()).or_default();
                user.take(send.id, me, send.payload, if faulty { fault } else { Fault::None });
            }
        }
        ClientFrame::Ack(upto) => assert!(upto <= world.lock().unwrap()[me].delivered),
        ClientFrame::Pong(echo) => assert_eq!(&echo, b"heartbea"),
        other => panic!("not expected of a load generator: {other:?}"),
    }
    true
}

fn welcome(user: &str, out: &mut Vec<u8>) {
    Welcome {
        version: 1,
        server_time_ms: 1_800_000_000_000,
        waiting: 0,
        send_window: 32,
        recv_window: 64,
        payload_max: 65536,
        recipients_max: 256,
        idle_timeout_ms: 300_000,
        token_expires_s: 1_900_000_000,
        dedup_window_ms: 3_600_000,
        region: "test",
        node: "peer",
        user,
    }
    .encode(out);
}

impl User {
    fn take(&mut self, id: MsgId, from: &str, payload: &[u8], fault: Fault) {
        let mut payload = payload.to_vec();
        match fault {
            Fault::Lose => return,
            Fault::Damage => payload[30] ^= 1,
            Fault::Delay => {
                self.delayed = Some((id, from.to_owned(), payload));
                return;
            }
            Fault::Repeat => self.deliver(id, from, &payload),
            _ => {}
        }
        self.deliver(id, from, &payload);
        if let Some((id, from, payload)) = self.delayed.take() {
            self.deliver(id, &from, &payload);
        }
    }

    fn deliver(&mut self, id: MsgId, from: &str, payload: &[u8]) {
        let Some(stream) = &mut self.stream else {
            self.waiting.push((id, from.to_owned(), payload.to_vec()));
            return;
        };
        self.delivered += 1;
        let mut frame = Vec::new();
        MessageHead { no: self.delivered, id, time_ms: 1, flags: 0, from }
            .encode(payload, &mut frame);
        // A receiver that is gone is noticed by its own thread.
        let _ = stream.write_all(&frame);
    }
}
