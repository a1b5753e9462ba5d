//! The session of one connection, without I/O: bytes from the server in, bytes to the server and events out.
//!
//! One session speaks Iris's own protocol, MQTT or NATS; what uses it does not see which. Frames are read where they
//! lie; only a frame that is cut by the end of the input is copied, and an idle session holds no buffer. Whatever a
//! server must not do ends the session with a named reason.

mod cut;
pub mod iris;
pub mod mqtt;
pub mod nats;

use crate::protocol::Protocol;
use iris_proto::wire::PresenceEntries;
use std::borrow::Cow;

/// What a session tells. Numbers are those of the wire; [`crate::sender::Sender`] knows which message has which.
pub trait Events {
    /// The login is done.
    fn logged_in(&mut self, welcome: Welcome);
    /// `count` messages from number `first` on (modulo 2^32) are accepted.
    fn accepted(&mut self, first: u32, count: u16);
    /// A message was refused; the server asks to hold back for this long.
    fn rejected(&mut self, number: u32, code: u16, retry_after_ms: u32);
    /// The server has read every ACK up to this delivery: [`Session::ask`] was answered.
    fn confirmed(&mut self, upto: u32);
    /// A message arrived.
    fn message(&mut self, message: Message<'_>);
    /// Who is online.
    fn presence(&mut self, query: u32, entries: PresenceEntries<'_>);
    /// The server says it goes away.
    fn draining(&mut self);
}

/// A message that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Its sender, where the protocol says so.
    pub from: Option<&'a str>,
    /// Its number in this connection, from 1, where the protocol has one; else 0.
    pub no: u32,
    pub payload: &'a [u8],
}

/// What a login says of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Messages that may wait for their answers, at most.
    pub send_window: u32,
    /// The server's clock, Unix milliseconds, where the protocol says it.
    pub server_time_ms: Option<u64>,
}

/// Why a session ended: a stable name for reports.
pub type Ended = Cow<'static, str>;

/// One session, 48 bytes while nothing is under way.
#[derive(Debug)]
pub enum Session {
    Iris(iris::Session),
    Mqtt(mqtt::Session),
    Nats(nats::Session),
}

impl Session {
    /// A session before its login.
    pub fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Iris => Self::Iris(iris::Session::before_hello()),
            Protocol::Mqtt(settings) => Self::Mqtt(mqtt::Session::new(settings)),
            Protocol::Nats => Self::Nats(nats::Session::default()),
        }
    }

    /// Appends what logs `user` in, the first bytes of a connection. Only Iris takes a token, and a
    /// window of unacknowledged messages.
    pub fn log_in(&self, out: &mut Vec<u8>, user: &str, token: &str, window: u32) {
        match self {
            Self::Iris(_) => iris::hello(out, user, token, window),
            Self::Mqtt(session) => session.log_in(out, user),
            Self::Nats(_) => nats::log_in(out, user),
        }
    }

    /// Whether the login is done.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Iris(session) => session.is_open(),
            Self::Mqtt(session) => session.is_open(),
            Self::Nats(session) => session.is_open(),
        }
    }

    /// Messages that arrived and are to be acknowledged by [`Self::acknowledge`]. The others acknowledge each message at
    /// once, or none.
    pub fn unacknowledged(&self) -> u32 {
        match self {
            Self::Iris(session) => session.unacknowledged(),
            Self::Mqtt(_) | Self::Nats(_) => 0,
        }
    }

    /// Whether there is enough to acknowledge for a frame.
    pub fn is_batch_whole(&self) -> bool {
        matches!(self, Self::Iris(session) if session.is_batch_whole())
    }

    /// Appends the acknowledgement of everything delivered, unless that was said before.
    pub fn acknowledge(&mut self, out: &mut Vec<u8>) {
        if let Self::Iris(session) = self {
            session.acknowledge(out);
        }
    }

    /// Asks whether the server has read every acknowledgement before, where the protocol can.
    pub fn ask(&self, out: &mut Vec<u8>) {
        if let Self::Iris(session) = self {
            session.ask(out);
        }
    }

    /// Has the server send only so many unacknowledged messages from now on, where the protocol can; 0 pauses.
    pub fn set_window(&mut self, window: u32, out: &mut Vec<u8>) {
        if let Self::Iris(session) = self
            && session.recv_window() != window
        {
            session.set_window(window, out);
        }
    }

    /// Takes bytes of the server; what must be answered at once is appended to `out`.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        events: &mut impl Events,
    ) -> Result<(), Ended> {
        match self {
            Self::Iris(session) => {
                session.receive(bytes, out, events).map_err(|ended| ended.reason())
            }
            Self::Mqtt(session) => session.receive(bytes, out, events),
            Self::Nats(session) => session.receive(bytes, out, events),
        }
    }
}

/// A message as it goes over the wire, all but what differs from one to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    /// The whole frame.
    pub bytes: Vec<u8>,
    /// Where its payload begins.
    pub payload_at: usize,
    /// How answers name it.
    pub number: Number,
}

/// How the answer to a message names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Number {
    /// SEND's number and id.
    Iris,
    /// MQTT's packet identifier, big-endian at this place.
    PacketId { at: usize },
    /// Nothing answers.
    Unanswered,
}

/// The template of messages to `to` with this payload; only Iris sends to several at once.
pub fn template(protocol: Protocol, to: &[&str], payload: &[u8]) -> Template {
    match protocol {
        Protocol::Iris => iris::template(to, payload),
        Protocol::Mqtt(settings) => mqtt::template(settings, to[0], payload),
        Protocol::Nats => nats::template(to[0], payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_of_any_protocol_is_small() {
        assert!(size_of::<Session>() <= 48, "{}", size_of::<Session>());
    }
}
