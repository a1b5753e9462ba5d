//! The session of core NATS, as [`super::Session`]: subscribe to the user's own subject, publish to others'.
//!
//! The codec is ours: the clients that are maintained bring their own sockets and threads or an async runtime, and what a
//! load needs of the protocol (docs.nats.io, "Client protocol") is a line of text and sometimes a payload. Verbs come in
//! any case; a line is bounded, and the length of a payload is checked before any of it is kept. The login is CONNECT,
//! SUB and PING in one piece, and is done when the PONG comes; the server's INFO is read, not waited for. Core NATS
//! answers no PUB, so nothing is ever accepted there; [`jetstream`] keeps messages and answers.

pub mod jetstream;

use super::{Ended, Events, Message, Number, Template, Welcome};
use iris_proto::limits::PAYLOAD_BYTES_MAX;
use serde::Deserialize;

/// Bytes of a line, at most. INFO names all servers of a cluster; the others are shorter than 4 KiB.
const LINE_BYTES_MAX: usize = 32 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    AwaitsInfo,
    AwaitsLogin,
    Open,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    state: State,
    jetstream: bool,
}

/// What INFO says that stands in the way.
#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    auth_required: bool,
}

/// A PUB to one user.
pub fn template(to: &str, payload: &[u8]) -> Template {
    let mut bytes = format!("PUB {to} {}\r\n", payload.len()).into_bytes();
    let payload_at = bytes.len();
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
    Template { bytes, payload_at, number: Number::Unanswered }
}

impl Session {
    /// A session before its login, of core NATS or with JetStream.
    pub fn new(jetstream: bool) -> Self {
        Self { state: State::default(), jetstream }
    }

    /// Appends CONNECT, SUB of the user's messages and what asks whether that is done: PING, or JetStream for a consumer.
    pub fn log_in(&self, out: &mut Vec<u8>, user: &str, mailbox: &str) {
        let connect =
            r#"CONNECT {"verbose":false,"pedantic":false,"tls_required":false,"lang":"rust","#;
        out.extend_from_slice(connect.as_bytes());
        let version = env!("CARGO_PKG_VERSION");
        let rest =
            format!("\"name\":\"iris-loadgen\",\"version\":\"{version}\",\"protocol\":0}}\r\n");
        out.extend_from_slice(rest.as_bytes());
        if self.jetstream {
            jetstream::log_in(out, user, mailbox);
        } else {
            out.extend_from_slice(format!("SUB {mailbox} 1\r\nPING\r\n").as_bytes());
        }
    }

    /// Whether the login is done.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Takes a whole frame of the server; a PONG to its PING is appended to `out`.
    pub(super) fn frame(
        &mut self,
        frame: &[u8],
        out: &mut Vec<u8>,
        events: &mut impl Events,
    ) -> Result<(), Ended> {
        let line = line_of(frame)?.ok_or("undecodable_line")?;
        match (self.state, line.verb) {
            (State::AwaitsInfo, Verb::Info) => {
                let info: Info =
                    serde_json::from_slice(line.rest).map_err(|_| "undecodable_info")?;
                if info.tls_required {
                    return Err("server_wants_tls".into());
                }
                if info.auth_required {
                    return Err("server_wants_credentials".into());
                }
                self.state = State::AwaitsLogin;
            }
            (State::AwaitsLogin, Verb::Pong) if !self.jetstream => self.open(events),
            (State::AwaitsLogin | State::Open, Verb::Message { payload_bytes }) => {
                let payload = &frame[line.bytes..line.bytes + payload_bytes];
                if &frame[line.bytes + payload_bytes..] != b"\r\n" {
                    return Err("undecodable_payload_end".into());
                }
                if self.jetstream {
                    return self.of_stream(
                        &jetstream::Came::read(line.rest, payload)?,
                        out,
                        events,
                    );
                }
                if !self.is_open() {
                    return Err("unexpected_frame".into());
                }
                events.message(Message { from: None, no: 0, payload });
            }
            (State::AwaitsLogin | State::Open, Verb::Ping) => out.extend_from_slice(b"PONG\r\n"),
            // A server tells of its cluster again when that changes.
            (State::AwaitsLogin | State::Open, Verb::Info | Verb::Ok) => {}
            (_, Verb::Error) => return Err(server_error(line.rest)),
            _ => return Err("unexpected_frame".into()),
        }
        Ok(())
    }

    fn open(&mut self, events: &mut impl Events) {
        self.state = State::Open;
        events.logged_in(Welcome { send_window: u32::MAX, server_time_ms: None });
    }

    /// What JetStream sent. A consumer that is there already may be given messages before its answer.
    fn of_stream(
        &mut self,
        came: &jetstream::Came<'_>,
        out: &mut Vec<u8>,
        events: &mut impl Events,
    ) -> Result<(), Ended> {
        match (self.state, *came) {
            (_, jetstream::Came::Message { ack, payload }) => {
                out.extend_from_slice(b"PUB ");
                out.extend_from_slice(ack);
                out.extend_from_slice(b" 0\r\n\r\n");
                events.message(Message { from: None, no: 0, payload });
            }
            (State::AwaitsLogin, jetstream::Came::Consumer { error: 0 }) => self.open(events),
            (State::AwaitsLogin, jetstream::Came::Consumer { error }) => {
                return Err(format!("server_error_jetstream_{error}").into());
            }
            (State::Open, jetstream::Came::Answer { number, error: 0 }) => {
                events.accepted(number, 1);
            }
            (State::Open, jetstream::Came::Answer { number, error }) => {
                events.rejected(number, error, 0);
            }
            _ => return Err("unexpected_frame".into()),
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Info,
    Message { payload_bytes: usize },
    Ping,
    Pong,
    Ok,
    Error,
}

/// A line of the server.
struct Line<'a> {
    verb: Verb,
    /// What follows the verb, without the line's end.
    rest: &'a [u8],
    /// Bytes of the line with its end.
    bytes: usize,
}

/// The line at the start of some bytes, `None` while its end has not come.
fn line_of(bytes: &[u8]) -> Result<Option<Line<'_>>, Ended> {
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err("line_too_long".into()) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or("undecodable_line_end")?;
    let split = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (verb, rest) = line.split_at(split);
    // Messages first: most lines are.
    let verb = if verb.eq_ignore_ascii_case(b"MSG") {
        Verb::Message { payload_bytes: payload_bytes(rest)? }
    } else {
        let verbs = [
            (&b"PING"[..], Verb::Ping),
            (b"PONG", Verb::Pong),
            (b"+OK", Verb::Ok),
            (b"INFO", Verb::Info),
            (b"-ERR", Verb::Error),
        ];
        let known = verbs.iter().find(|(name, _)| verb.eq_ignore_ascii_case(name));
        known.map(|(_, verb)| *verb).ok_or("undecodable_verb")?
    };
    Ok(Some(Line { verb, rest, bytes: end + 1 }))
}

/// `subject sid [reply-to] bytes`: the length, bounded.
fn payload_bytes(arguments: &[u8]) -> Result<usize, Ended> {
    let parts = || arguments.split(u8::is_ascii_whitespace).filter(|part| !part.is_empty());
    let is_whole = matches!(parts().count(), 3 | 4);
    let digits = parts().next_back().filter(|_| is_whole).ok_or("undecodable_message")?;
    let number = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
    let bytes = number.and_then(|number| number.parse().ok()).ok_or("undecodable_length")?;
    if bytes > PAYLOAD_BYTES_MAX { Err("payload_too_long".into()) } else { Ok(bytes) }
}

/// How long the frame at the start of some bytes is.
pub(super) fn frame_bytes(bytes: &[u8]) -> Result<Option<usize>, Ended> {
    Ok(line_of(bytes)?.map(|line| match line.verb {
        Verb::Message { payload_bytes } => line.bytes + payload_bytes + 2,
        _ => line.bytes,
    }))
}

/// `'Slow Consumer'` as a name of bounded length.
fn server_error(text: &[u8]) -> Ended {
    let text = String::from_utf8_lossy(text);
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name = words.take(6).collect::<Vec<_>>().join("_").to_ascii_lowercase();
    format!("server_error_{}", name.chars().take(60).collect::<String>()).into()
}

#[cfg(test)]
mod tests;
