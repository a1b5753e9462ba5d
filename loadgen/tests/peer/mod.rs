//! A tiny peer that speaks the protocol from memory: a thread per connection, one lock. It may be told to misbehave, so
//! that the load generator can be shown to notice. The real server is tested elsewhere.

use iris_proto::id::MsgId;
use iris_proto::wire::{
    AcceptedRun, ClientFrame, Code, MessageHead, Rejection, Welcome, put_accepted, put_error,
    put_ping, put_pong, put_rejected, split_frame,
};
use std::collections::{HashMap, HashSet, VecDeque};
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

type Message = (MsgId, String, Vec<u8>);

#[derive(Default)]
struct User {
    stream: Option<TcpStream>,
    /// Which login that is.
    login: u32,
    /// Delivered in it.
    delivered: u32,
    acknowledged: u32,
    is_paused: bool,
    /// Delivered or not, all that is not acknowledged.
    inbox: VecDeque<Message>,
    delayed: Vec<Message>,
    /// Whatever came, so that a repeat makes no second entry.
    seen: HashSet<(MsgId, String)>,
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
    let mut login = 0;
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        input.extend_from_slice(&chunk[..count]);
        let mut rest = &input[..];
        let mut out = Vec::new();
        while let Some((kind, body, after)) = split_frame(rest).unwrap() {
            rest = after;
            let frame = ClientFrame::decode(kind, body).unwrap();
            if !act(frame, &stream, &mut user, &mut login, world, fault, &mut out) {
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
    login: &mut u32,
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
            user.login += 1;
            *login = user.login;
            (user.delivered, user.acknowledged) = (0, 0);
            user.is_paused = hello.window == 0;
            welcome(me, hello.window, out);
            put_ping(out, *b"heartbea");
            // Who is gone already is noticed by the next read.
            let _ = stream.try_clone().unwrap().write_all(out);
            out.clear();
            user.deliver();
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
        ClientFrame::Ack(upto) => {
            let mut world = world.lock().unwrap();
            let user = world.get_mut(me).unwrap();
            // Of a connection that was replaced nothing counts.
            if user.login == *login {
                assert!(upto <= user.delivered);
                user.inbox.drain(..(upto - user.acknowledged) as usize);
                user.acknowledged = upto;
            }
        }
        ClientFrame::Window(window) => {
            let mut world = world.lock().unwrap();
            let user = world.get_mut(me).unwrap();
            user.is_paused = window == 0;
            user.deliver();
        }
        ClientFrame::Ping(echo) => put_pong(out, echo, 1),
        ClientFrame::Pong(echo) => assert_eq!(&echo, b"heartbea"),
        other => panic!("not expected of a load generator: {other:?}"),
    }
    true
}

fn welcome(user: &str, window: u32, out: &mut Vec<u8>) {
    Welcome {
        version: 1,
        server_time_ms: 1_800_000_000_000,
        waiting: 0,
        send_window: 32,
        recv_window: window.min(64),
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
        if !self.seen.insert((id, from.to_owned())) {
            return;
        }
        let mut payload = payload.to_vec();
        match fault {
            Fault::Lose => return,
            Fault::Damage => payload[30] ^= 1,
            Fault::Delay => {
                self.delayed.push((id, from.to_owned(), payload));
                return;
            }
            Fault::Repeat => self.inbox.push_back((id, from.to_owned(), payload.clone())),
            _ => {}
        }
        self.inbox.push_back((id, from.to_owned(), payload));
        // After a later one of the same sender: among those of others it is in its place.
        self.inbox.extend(self.delayed.extract_if(.., |(_, of, _)| of == from));
        self.deliver();
    }

    /// Delivers what was not delivered in this login.
    fn deliver(&mut self) {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.is_paused) else { return };
        let under_way = (self.delivered - self.acknowledged) as usize;
        for (id, from, payload) in self.inbox.iter().skip(under_way) {
            self.delivered += 1;
            let mut frame = Vec::new();
            MessageHead { no: self.delivered, id: *id, time_ms: 1, flags: 0, from }
                .encode(payload, &mut frame);
            // A receiver that is gone is noticed by its own thread.
            let _ = stream.write_all(&frame);
        }
    }
}
