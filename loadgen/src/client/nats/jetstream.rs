//! JetStream, which keeps messages (docs.nats.io, "JetStream wire API reference"): one stream for all users, a durable
//! consumer for each.
//!
//! The stream is called [`STREAM`] and has the subjects `lg.>`; whoever starts the server makes it, and says there how long
//! it keeps messages and on what. A user's subject is `lg.` and the user. A login asks for the user's consumer, which is
//! made, or found as it is: push, explicit acknowledgement of each message, everything from the stream's beginning that was
//! not acknowledged. A publication names a subject for its answer, which ends with the publication's number.

use super::super::{Number, Template};
use super::Ended;
use iris_proto::limits::RECV_WINDOW_MAX;
use serde::Deserialize;

/// What the stream is called.
pub const STREAM: &str = "IRIS";
/// Subscriptions of a session: to the consumer's messages, and to answers.
const MESSAGES: &[u8] = b"1";
const ANSWERS: &[u8] = b"2";
/// How an answer to the login ends, instead of a number.
const LOGIN: &[u8] = b"login";
/// How long a message may be unacknowledged before it comes again: longer than a run drains, nanoseconds.
const ACK_WAIT_NS: u64 = 600_000_000_000;

/// What JetStream sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Came<'a> {
    /// A message, acknowledged by an empty publication to `ack`.
    Message { ack: &'a [u8], payload: &'a [u8] },
    /// The consumer is there, or why not.
    Consumer { error: u16 },
    /// A publication is in the stream, or why not.
    Answer { number: u32, error: u16 },
}

#[derive(Deserialize)]
struct Reply {
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    err_code: u16,
}

/// Appends the subscriptions and the wish for a consumer.
pub(super) fn log_in(out: &mut Vec<u8>, user: &str, mailbox: &str) {
    let config = format!(
        "{{\"stream_name\":\"{STREAM}\",\"config\":{{\"durable_name\":\"{user}\",\
         \"deliver_subject\":\"_d.{user}\",\"filter_subject\":\"lg.{mailbox}\",\"deliver_policy\":\"all\",\
         \"ack_policy\":\"explicit\",\"ack_wait\":{ACK_WAIT_NS},\"max_ack_pending\":{RECV_WINDOW_MAX},\
         \"replay_policy\":\"instant\"}}}}"
    );
    let wish =
        format!("$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.{user} _r.{user}.login {}", config.len());
    let all = format!("SUB _d.{user} 1\r\nSUB _r.{user}.* 2\r\nPUB {wish}\r\n{config}\r\n");
    out.extend_from_slice(all.as_bytes());
}

/// A PUB of `user` to the subject of `to`.
pub fn template(user: &str, to: &str, payload: &[u8]) -> Template {
    let line = format!("PUB lg.{to} _r.{user}.");
    let number = Number::ReplyTo { at: line.len() };
    let mut bytes = format!("{line}00000000 {}\r\n", payload.len()).into_bytes();
    let payload_at = bytes.len();
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
    Template { bytes, payload_at, number }
}

impl<'a> Came<'a> {
    /// Of the arguments of a MSG, `subject sid [reply-to] bytes`, and its payload.
    pub(super) fn read(arguments: &'a [u8], payload: &'a [u8]) -> Result<Self, Ended> {
        let mut parts = arguments.split(u8::is_ascii_whitespace).filter(|part| !part.is_empty());
        let (subject, sid, reply) = (parts.next(), parts.next(), parts.next());
        let (Some(subject), Some(sid)) = (subject, sid) else {
            return Err("undecodable_message".into());
        };
        match sid {
            // The length is the last one: a message without a reply subject has three.
            MESSAGES => match (reply, parts.next()) {
                (Some(ack), Some(_)) => Ok(Self::Message { ack, payload }),
                _ => Err("message_without_ack".into()),
            },
            ANSWERS => {
                let end = subject.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
                let reply: Reply =
                    serde_json::from_slice(payload).map_err(|_| "undecodable_answer")?;
                // A failure without a code is one, too.
                let error = reply.error.map_or(0, |failure| failure.err_code.max(1));
                if end == LOGIN {
                    return Ok(Self::Consumer { error });
                }
                let digits = std::str::from_utf8(end).ok().filter(|digits| digits.len() == 8);
                let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                Ok(Self::Answer { number: number.ok_or("undecodable_answer")?, error })
            }
            _ => Err("unexpected_frame".into()),
        }
    }
}
