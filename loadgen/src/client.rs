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
use cut::Cut;
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
    /// The server says it goes away: come back after so many milliseconds and a random part of so many more.
    fn draining(&mut self, retry_after_ms: u32, jitter_ms: u32);
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

/// Who logs in.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    pub user: &'a str,
    /// Whose messages it gets, which is the user, or one of several who get the same: of brokers.
    pub mailbox: &'a str,
    /// Of Iris.
    pub token: &'a str,
    /// Messages that it takes before it acknowledges one: of Iris.
    pub window: u32,
}

/// Why a session ended: a stable name for reports.
pub type Ended = Cow<'static, str>;

/// One session, 48 bytes while nothing is under way.
#[derive(Debug)]
pub struct Session {
    /// The frame that has not come to its end.
    cut: Cut,
    spoken: Spoken,
}

/// What one speaks: takes whole frames.
#[derive(Debug)]
enum Spoken {
    Iris(iris::Session),
    Mqtt(mqtt::Session),
    Nats(nats::Session),
}

impl Session {
    /// A session before its login.
    pub fn new(protocol: Protocol) -> Self {
        let spoken = match protocol {
            Protocol::Iris => Spoken::Iris(iris::Session::before_hello()),
            Protocol::Mqtt(settings) => Spoken::Mqtt(mqtt::Session::new(settings)),
            Protocol::Nats => Spoken::Nats(nats::Session::new(false)),
            Protocol::Jetstream => Spoken::Nats(nats::Session::new(true)),
        };
        Self { cut: Cut::default(), spoken }
    }

    /// Appends what logs a user in, the first bytes of a connection.
    pub fn log_in(&self, out: &mut Vec<u8>, login: Login<'_>) {
        match &self.spoken {
            Spoken::Iris(_) => iris::hello(out, login.user, login.token, login.window),
            Spoken::Mqtt(session) => session.log_in(out, login.user, login.mailbox),
            Spoken::Nats(session) => session.log_in(out, login.user, login.mailbox),
        }
    }

    /// Whether the login is done.
    pub fn is_open(&self) -> bool {
        match &self.spoken {
            Spoken::Iris(session) => session.is_open(),
            Spoken::Mqtt(session) => session.is_open(),
            Spoken::Nats(session) => session.is_open(),
        }
    }

    /// Messages that arrived and are to be acknowledged by [`Self::acknowledge`]. The others acknowledge each message at
    /// once, or none.
    pub fn unacknowledged(&self) -> u32 {
        match &self.spoken {
            Spoken::Iris(session) => session.unacknowledged(),
            Spoken::Mqtt(_) | Spoken::Nats(_) => 0,
        }
    }

    /// Whether there is enough to acknowledge for a frame.
    pub fn is_batch_whole(&self) -> bool {
        matches!(&self.spoken, Spoken::Iris(session) if session.is_batch_whole())
    }

    /// Appends the acknowledgement of everything delivered, unless that was said before.
    pub fn acknowledge(&mut self, out: &mut Vec<u8>) {
        if let Spoken::Iris(session) = &mut self.spoken {
            session.acknowledge(out);
        }
    }

    /// Asks whether the server has read every acknowledgement before, where the protocol can.
    pub fn ask(&self, out: &mut Vec<u8>) {
        if let Spoken::Iris(session) = &self.spoken {
            session.ask(out);
        }
    }

    /// Has the server send only so many unacknowledged messages from now on, where the protocol can; 0 pauses.
    pub fn set_window(&mut self, window: u32, out: &mut Vec<u8>) {
        if let Spoken::Iris(session) = &mut self.spoken
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
        let cut = &mut self.cut;
        match &mut self.spoken {
            Spoken::Iris(session) => {
                cut.feed(bytes, iris::frame_bytes, |frame| session.frame(frame, out, events))
            }
            Spoken::Mqtt(session) => {
                cut.feed(bytes, mqtt::packet_bytes, |packet| session.packet(packet, out, events))
            }
            Spoken::Nats(session) => {
                cut.feed(bytes, nats::frame_bytes, |frame| session.frame(frame, out, events))
            }
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
    /// The end of the subject that an answer goes to: eight hexadecimal digits at this place.
    ReplyTo { at: usize },
    /// Nothing answers.
    Unanswered,
}

/// The template of messages of `user` to `to` with this payload; of several, brokers take the first one's topic.
pub fn template(protocol: Protocol, user: &str, to: &[&str], payload: &[u8]) -> Template {
    match protocol {
        Protocol::Iris => iris::template(to, payload),
        Protocol::Mqtt(settings) => mqtt::template(settings, to[0], payload),
        Protocol::Nats => nats::template(to[0], payload),
        Protocol::Jetstream => nats::jetstream::template(user, to[0], payload),
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
