//! The session of Iris's own protocol (docs/PROTOCOL.md), as [`super::Session`].

use super::{Ended, Events, Message, Number, Template};
use iris_proto::id::MsgId;
use iris_proto::wire::{
    ClientFrame, Code, HEADER_BYTES, Header, Hello, ServerFrame, VERSION, put_send, split_frame,
};
use std::borrow::Cow;

/// The name of a code of the protocol, if it is one of this version.
pub fn code_name(code: u16) -> Option<&'static str> {
    Code::from_u16(code).map(Code::name)
}

/// The server said ERROR with this code.
fn server_error(code: u16) -> Ended {
    code_name(code).map_or_else(
        || Cow::Owned(format!("server_error_{code}")),
        |name| Cow::Owned(format!("server_error_{name}")),
    )
}

/// The server's bytes break the protocol in this way.
fn undecodable(code: Code) -> Ended {
    Cow::Owned(format!("undecodable_{}", code.name()))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    AwaitsWelcome,
    Open,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    state: State,
    recv_window: u32,
    delivered: u32,
    acknowledged: u32,
}

impl Session {
    /// A session before its HELLO.
    pub fn before_hello() -> Self {
        Self { state: State::AwaitsWelcome, recv_window: 0, delivered: 0, acknowledged: 0 }
    }

    /// Whether the login is done.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// MESSAGEs that are not acknowledged yet.
    pub fn unacknowledged(&self) -> u32 {
        self.delivered.wrapping_sub(self.acknowledged)
    }

    /// Whether a quarter of the receive window or more is to be acknowledged: enough for an ACK.
    pub fn is_batch_whole(&self) -> bool {
        self.unacknowledged() >= (self.recv_window / 4).max(1)
    }

    /// Appends an ACK of everything delivered, unless that was said before.
    pub fn acknowledge(&mut self, out: &mut Vec<u8>) {
        if self.unacknowledged() > 0 {
            self.acknowledged = self.delivered;
            ClientFrame::Ack(self.delivered).encode(out);
        }
    }

    /// Appends a PING that the server answers once it has read every ACK before (docs/PROTOCOL.md, section 4).
    pub fn ask(&self, out: &mut Vec<u8>) {
        ClientFrame::Ping(u64::from(self.acknowledged).to_le_bytes()).encode(out);
    }

    /// How many unacknowledged MESSAGEs the server may send.
    pub fn recv_window(&self) -> u32 {
        self.recv_window
    }

    /// Appends a WINDOW: from now on so many unacknowledged MESSAGEs; 0 pauses.
    pub fn set_window(&mut self, window: u32, out: &mut Vec<u8>) {
        self.recv_window = window;
        ClientFrame::Window(window).encode(out);
    }

    /// Takes a whole frame of the server; an answer to its PING is appended to `out`.
    pub(super) fn frame(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        events: &mut impl Events,
    ) -> Result<(), Ended> {
        let split = split_frame(bytes).map_err(undecodable)?;
        let (kind, body, _) = split.expect("frames come whole");
        let frame = ServerFrame::decode(kind, body).map_err(undecodable)?;
        match (self.state, frame) {
            (State::Open, ServerFrame::Message(head, payload)) => {
                if head.no != self.delivered.wrapping_add(1) {
                    return Err("message_number_gap".into());
                }
                self.delivered = head.no;
                events.message(Message { from: Some(head.from), no: head.no, payload });
            }
            (State::Open, ServerFrame::Accepted { runs, .. }) => {
                runs.iter().for_each(|run| events.accepted(run.first, run.count));
            }
            (State::Open, ServerFrame::Rejected(rejections)) => {
                rejections.iter().for_each(|one| {
                    events.rejected(one.seq, one.code, one.retry_after_ms);
                });
            }
            (State::AwaitsWelcome, ServerFrame::Welcome(welcome)) => {
                self.state = State::Open;
                self.recv_window = welcome.recv_window;
                events.logged_in(super::Welcome {
                    send_window: welcome.send_window,
                    server_time_ms: Some(welcome.server_time_ms),
                });
            }
            (_, ServerFrame::Ping(echo)) => ClientFrame::Pong(echo).encode(out),
            (_, ServerFrame::Error { code, .. }) => return Err(server_error(code)),
            (_, ServerFrame::Drain { retry_after_ms, jitter_ms }) => {
                events.draining(retry_after_ms, jitter_ms);
            }
            (State::Open, ServerFrame::Pong(echo, _)) => {
                events.confirmed(u64::from_le_bytes(echo) as u32);
            }
            (_, ServerFrame::Ignored | ServerFrame::Pong(..)) => {}
            (State::Open, ServerFrame::Presence(query, entries)) => events.presence(query, entries),
            _ => return Err("unexpected_frame".into()),
        }
        Ok(())
    }
}

/// Appends the HELLO, the first frame of a connection.
pub fn hello(out: &mut Vec<u8>, user: &str, token: &str, window: u32) {
    let hello = Hello {
        version_min: VERSION,
        version_max: VERSION,
        window,
        user,
        device: "loadgen",
        token,
    };
    ClientFrame::Hello(hello).encode(out);
}

/// A SEND to these users; its number and id are written over for each message.
pub fn template(to: &[&str], payload: &[u8]) -> Template {
    let mut bytes = Vec::new();
    put_send(&mut bytes, 0, MsgId::default(), 0, to, payload);
    bytes.shrink_to_fit();
    let payload_at = bytes.len() - payload.len();
    Template { bytes, payload_at, number: Number::Iris }
}

/// How long the frame at the start of some bytes is.
pub(super) fn frame_bytes(bytes: &[u8]) -> Result<Option<usize>, Ended> {
    let header = Header::read(bytes).map_err(undecodable)?;
    Ok(header.map(|header| HEADER_BYTES + header.body_bytes))
}

#[cfg(test)]
mod tests;
