//! The session of MQTT 3.1.1 and 5, as [`super::Session`]: a topic of the user's own, QoS 0 or 1.
//!
//! CONNECT and SUBSCRIBE go out in one piece, as both versions allow (3.1.1 section 3.1.4, 5 section 3.1.4), and the login
//! is done with the SUBACK; a persistent session may be given its messages before that. Each message of QoS 1 is
//! acknowledged at once. The keep alive is the longest there is, 18 hours, so a shorter run sends no PINGREQ.

mod codec;

use super::{Ended, Events, Message, Number, Template, Welcome};
use crate::protocol::{Mqtt, Qos};
use codec::Incoming;

pub(super) use codec::packet_bytes;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    AwaitsConnack,
    AwaitsSuback,
    Open,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    mqtt: Mqtt,
    /// Messages that the broker takes before their answers.
    receive_max: u16,
    state: State,
}

/// A PUBLISH to one user's topic.
pub fn template(mqtt: Mqtt, to: &str, payload: &[u8]) -> Template {
    let bytes = codec::publish(mqtt, to, payload);
    let payload_at = bytes.len() - payload.len();
    // MQTT 5 has its properties, none here, between identifier and payload: one byte that says so.
    let behind = match mqtt.version {
        crate::protocol::Version::V311 => 2,
        crate::protocol::Version::V5 => 3,
    };
    let number = match mqtt.qos {
        Qos::AtMostOnce => Number::Unanswered,
        Qos::AtLeastOnce => Number::PacketId { at: payload_at - behind },
    };
    Template { bytes, payload_at, number }
}

impl Session {
    /// A session before its CONNECT.
    pub fn new(mqtt: Mqtt) -> Self {
        Self { mqtt, receive_max: u16::MAX, state: State::AwaitsConnack }
    }

    /// Appends CONNECT and SUBSCRIBE. The client is called as the user, the topic as the user whose messages it gets.
    pub fn log_in(&self, out: &mut Vec<u8>, user: &str, mailbox: &str) {
        codec::connect(self.mqtt, user, out);
        codec::subscribe(self.mqtt, mailbox, out);
    }

    /// Whether the login is done.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Takes a whole packet of the broker; a PUBACK is appended to `out`.
    pub(super) fn packet(
        &mut self,
        packet: &[u8],
        out: &mut Vec<u8>,
        events: &mut impl Events,
    ) -> Result<(), Ended> {
        self.act(codec::decode(self.mqtt.version, packet)?, out, events)
    }

    fn act(
        &mut self,
        incoming: Incoming<'_>,
        out: &mut Vec<u8>,
        events: &mut impl Events,
    ) -> Result<(), Ended> {
        match (self.state, incoming) {
            (State::AwaitsSuback | State::Open, Incoming::Publish { id, payload }) => {
                if let Some(id) = id {
                    codec::puback(id, out);
                }
                events.message(Message { from: None, no: 0, payload });
            }
            (State::Open, Incoming::Puback { id, refused: None }) => {
                events.accepted(u32::from(id), 1);
            }
            (State::Open, Incoming::Puback { id, refused: Some(code) }) => {
                events.rejected(u32::from(id), u16::from(code), 0);
            }
            (State::AwaitsConnack, Incoming::Connack { receive_max }) => {
                self.receive_max = receive_max;
                self.state = State::AwaitsSuback;
            }
            (State::AwaitsSuback, Incoming::Suback { qos }) => {
                if qos < self.mqtt.qos as u8 {
                    return Err("suback_with_less_qos".into());
                }
                self.state = State::Open;
                let send_window = u32::from(self.receive_max);
                events.logged_in(Welcome { send_window, server_time_ms: None });
            }
            (_, Incoming::Refused(reason)) => return Err(reason),
            _ => return Err("unexpected_frame".into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
