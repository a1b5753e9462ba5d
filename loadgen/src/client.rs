//! The session of one connection, without I/O: bytes from the server in, bytes to the server and events out.
//!
//! Frames are read where they lie; only a frame that is cut by the end of the input is copied, and an idle session
//! holds no buffer. Whatever a server must not do ends the session with a named reason.

use iris_proto::wire::{
    ClientFrame, Code, HEADER_BYTES, Header, Hello, MessageHead, PresenceEntries, Rejection,
    ServerFrame, VERSION, Welcome,
};
use std::borrow::Cow;

/// What a session tells.
pub trait Events {
    /// The login is done.
    fn welcome(&mut self, welcome: &Welcome<'_>);
    /// `count` SENDs from number `first` on (modulo 2^32) are durable.
    fn accepted(&mut self, first: u32, count: u16);
    /// A SEND was refused.
    fn rejected(&mut self, rejection: Rejection);
    /// The server has read every ACK up to this delivery: [`Session::ask`] was answered.
    fn confirmed(&mut self, upto: u32);
    /// A message arrived.
    fn message(&mut self, head: &MessageHead<'_>, payload: &[u8]);
    /// Who is online.
    fn presence(&mut self, query: u32, entries: PresenceEntries<'_>);
    /// The server says it goes away.
    fn draining(&mut self);
}

/// Why a session ended; [`Self::reason`] is its name in reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The server said ERROR with this code.
    Server(u16),
    /// The server's bytes break the protocol in this way.
    Undecodable(Code),
    /// A frame that must not come now, such as a second WELCOME.
    Unexpected,
    /// A MESSAGE does not have the number after the last one's.
    MessageNumber,
}

impl Ended {
    /// A stable name.
    pub fn reason(self) -> Cow<'static, str> {
        match self {
            Self::Server(code) => code_name(code).map_or_else(
                || Cow::Owned(format!("server_error_{code}")),
                |name| Cow::Owned(format!("server_error_{name}")),
            ),
            Self::Undecodable(code) => Cow::Owned(format!("undecodable_{}", code.name())),
            Self::Unexpected => Cow::Borrowed("unexpected_frame"),
            Self::MessageNumber => Cow::Borrowed("message_number_gap"),
        }
    }
}

/// The name of a code of the protocol, if it is one of this version.
pub fn code_name(code: u16) -> Option<&'static str> {
    Code::from_u16(code).map(Code::name)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    AwaitsWelcome,
    Open,
}

/// One session. 48 bytes while nothing is under way.
#[derive(Debug)]
pub struct Session {
    /// The start of a frame whose end has not come yet.
    cut: Vec<u8>,
    state: State,
    recv_window: u32,
    delivered: u32,
    acknowledged: u32,
}

impl Session {
    /// A session before its HELLO.
    pub fn before_hello() -> Self {
        Self {
            cut: Vec::new(),
            state: State::AwaitsWelcome,
            recv_window: 0,
            delivered: 0,
            acknowledged: 0,
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

    /// Takes bytes of the server; answers to its PINGs are appended to `out`.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        events: &mut impl Events,
    ) -> Result<(), Ended> {
        if !self.cut.is_empty() {
            let Some(rest) = self.complete(bytes)? else { return Ok(()) };
            bytes = rest;
            let frame = std::mem::take(&mut self.cut);
            let left = self.whole_frames(&frame, out, events)?;
            assert!(left.is_empty(), "exactly one frame was completed");
        }
        let rest = self.whole_frames(bytes, out, events)?;
        if !rest.is_empty() {
            self.cut.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Appends what the cut frame lacks. `None`: it is still not whole.
    fn complete<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Ended> {
        let header = Header::read(&self.cut).map_err(Ended::Undecodable)?;
        let whole = header.map_or(HEADER_BYTES, |header| HEADER_BYTES + header.body_bytes);
        let lacks = whole.saturating_sub(self.cut.len());
        let (taken, rest) = bytes.split_at(lacks.min(bytes.len()));
        self.cut.extend_from_slice(taken);
        if taken.len() < lacks {
            return Ok(None);
        }
        // With the header whole, the body may still be to come.
        if header.is_none() { self.complete(rest) } else { Ok(Some(rest)) }
    }

    fn whole_frames<'a>(
        &mut self,
        mut bytes: &'a [u8],
        out: &mut Vec<u8>,
        events: &mut impl Events,
    ) -> Result<&'a [u8], Ended> {
        loop {
            let split = iris_proto::wire::split_frame(bytes).map_err(Ended::Undecodable)?;
            let Some((kind, body, rest)) = split else { return Ok(bytes) };
            let frame = ServerFrame::decode(kind, body).map_err(Ended::Undecodable)?;
            self.frame(frame, out, events)?;
            bytes = rest;
        }
    }

    fn frame(
        &mut self,
        frame: ServerFrame<'_>,
        out: &mut Vec<u8>,
        events: &mut impl Events,
    ) -> Result<(), Ended> {
        match (self.state, frame) {
            (State::Open, ServerFrame::Message(head, payload)) => {
                if head.no != self.delivered.wrapping_add(1) {
                    return Err(Ended::MessageNumber);
                }
                self.delivered = head.no;
                events.message(&head, payload);
            }
            (State::Open, ServerFrame::Accepted { runs, .. }) => {
                runs.iter().for_each(|run| events.accepted(run.first, run.count));
            }
            (State::Open, ServerFrame::Rejected(rejections)) => {
                rejections.iter().for_each(|rejection| events.rejected(rejection));
            }
            (State::AwaitsWelcome, ServerFrame::Welcome(welcome)) => {
                self.state = State::Open;
                self.recv_window = welcome.recv_window;
                events.welcome(&welcome);
            }
            (_, ServerFrame::Ping(echo)) => ClientFrame::Pong(echo).encode(out),
            (_, ServerFrame::Error { code, .. }) => return Err(Ended::Server(code)),
            (_, ServerFrame::Drain { .. }) => events.draining(),
            (State::Open, ServerFrame::Pong(echo, _)) => {
                events.confirmed(u64::from_le_bytes(echo) as u32);
            }
            (_, ServerFrame::Ignored | ServerFrame::Pong(..)) => {}
            (State::Open, ServerFrame::Presence(query, entries)) => events.presence(query, entries),
            _ => return Err(Ended::Unexpected),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
