//! Packets of both versions of MQTT by `mqtt-proto`, and what that crate leaves to its caller.
//!
//! The crate's decoders believe the lengths in a packet and stop where they are done, so the length in the fixed header is
//! bounded before anything is kept, a packet is decoded only when all of it is there, and one that says less than its
//! length is refused.

use super::super::Ended;
use crate::protocol::{Mqtt, Qos, Version};
use iris_proto::limits::PAYLOAD_BYTES_MAX;
use mqtt_proto::{Error, Pid, QoS, QosPid, TopicFilter, TopicName, v3, v5};
use std::fmt::Debug;

/// Bytes behind the fixed header, at most: a payload, and 1 KiB for topic and properties.
const REMAINING_MAX: usize = PAYLOAD_BYTES_MAX + 1024;
/// The longest there is, seconds: 18 hours.
const KEEP_ALIVE_S: u16 = u16::MAX;
/// How long a broker keeps a persistent session of MQTT 5, seconds. In 3.1.1 it is kept for good.
const SESSION_EXPIRY_S: u32 = 3600;

/// What a broker sends that a session acts on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Incoming<'a> {
    Connack {
        receive_max: u16,
    },
    Suback {
        qos: u8,
    },
    Publish {
        /// With QoS 1.
        id: Option<u16>,
        payload: &'a [u8],
    },
    Puback {
        id: u16,
        refused: Option<u8>,
    },
    /// CONNACK or SUBACK that says no, or DISCONNECT.
    Refused(Ended),
}

pub(super) fn connect(mqtt: Mqtt, user: &str, out: &mut Vec<u8>) {
    match mqtt.version {
        Version::V311 => {
            let mut connect = v3::Connect::new(user.into(), KEEP_ALIVE_S);
            connect.clean_session = !mqtt.persistent;
            put_v3(connect.into(), out);
        }
        Version::V5 => {
            let mut connect = v5::Connect::new(user.into(), KEEP_ALIVE_S);
            connect.clean_start = !mqtt.persistent;
            connect.properties.session_expiry_interval =
                mqtt.persistent.then_some(SESSION_EXPIRY_S);
            put_v5(connect.into(), out);
        }
    }
}

pub(super) fn subscribe(mqtt: Mqtt, user: &str, out: &mut Vec<u8>) {
    let filter = TopicFilter::try_from(user).expect("users' names are filters without wildcards");
    match mqtt.version {
        Version::V311 => {
            put_v3(v3::Subscribe::new(Pid::default(), vec![(filter, qos(mqtt))]).into(), out);
        }
        Version::V5 => {
            let options = v5::SubscriptionOptions::new(qos(mqtt));
            put_v5(v5::Subscribe::new(Pid::default(), vec![(filter, options)]).into(), out);
        }
    }
}

pub(super) fn publish(mqtt: Mqtt, to: &str, payload: &[u8]) -> Vec<u8> {
    let topic = TopicName::try_from(to).expect("users' names are topics without wildcards");
    let id = match mqtt.qos {
        Qos::AtMostOnce => QosPid::Level0,
        Qos::AtLeastOnce => QosPid::Level1(Pid::default()),
    };
    let (payload, mut out) = (payload.to_vec().into(), Vec::new());
    match mqtt.version {
        Version::V311 => put_v3(v3::Publish::new(id, topic, payload).into(), &mut out),
        Version::V5 => put_v5(v5::Publish::new(id, topic, payload).into(), &mut out),
    }
    out
}

/// A PUBACK without reason and properties is the same in both versions.
pub(super) fn puback(id: u16, out: &mut Vec<u8>) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[0x40, 2, high, low]);
}

fn qos(mqtt: Mqtt) -> QoS {
    match mqtt.qos {
        Qos::AtMostOnce => QoS::Level0,
        Qos::AtLeastOnce => QoS::Level1,
    }
}

fn put_v3(packet: v3::Packet, out: &mut Vec<u8>) {
    out.extend_from_slice(packet.encode().expect("our packets are short").as_ref());
}

fn put_v5(packet: v5::Packet, out: &mut Vec<u8>) {
    out.extend_from_slice(packet.encode().expect("our packets are short").as_ref());
}

/// Bytes of the packet at the start of some bytes, `None` while its length has not come.
pub(in crate::client) fn packet_bytes(bytes: &[u8]) -> Result<Option<usize>, Ended> {
    Ok(fixed_header(bytes)?.map(|(header, remaining)| header + remaining))
}

/// Bytes of the fixed header, and of what follows it: a type, then seven bits to a byte, low ones first.
fn fixed_header(bytes: &[u8]) -> Result<Option<(usize, usize)>, Ended> {
    let mut remaining = 0;
    for (place, byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return match remaining {
                0..=REMAINING_MAX => Ok(Some((place + 2, remaining))),
                _ => Err("packet_too_long".into()),
            };
        }
    }
    if bytes.len() > 4 { Err("undecodable_length".into()) } else { Ok(None) }
}

/// Decodes one whole packet of a broker.
pub(super) fn decode(version: Version, packet: &[u8]) -> Result<Incoming<'_>, Ended> {
    let (header, remaining) = fixed_header(packet)?.ok_or("undecodable_length")?;
    let body = &packet[header..];
    let mut read = 0;
    let lengths = (remaining as u32, packet.len() as u32);
    let incoming = match version {
        Version::V311 => {
            let header = v3::Header::new_with(packet[0], lengths.0, lengths.1);
            decode_v3(header.map_err(undecodable)?, body, &mut read).map_err(undecodable)?
        }
        Version::V5 => {
            let header = v5::Header::new_with(packet[0], lengths.0, lengths.1);
            decode_v5(header.map_err(undecodable_v5)?, body, &mut read).map_err(undecodable_v5)?
        }
    };
    match incoming {
        _ if read != body.len() => Err("undecodable_length".into()),
        Some(incoming) => Ok(incoming),
        None => Err("unexpected_frame".into()),
    }
}

/// `None`: a packet that no broker sends here.
fn decode_v3<'a>(
    header: v3::Header,
    body: &'a [u8],
    read: &mut usize,
) -> Result<Option<Incoming<'a>>, Error> {
    Ok(Some(match header.typ {
        v3::PacketType::Publish => {
            let publish = v3::Publish::decode(body, read, header)?;
            return Ok(message(publish.qos_pid, body, publish.payload.len()));
        }
        v3::PacketType::Puback => {
            let id: [u8; 2] = body.try_into().map_err(|_| Error::InvalidRemainingLength)?;
            *read = body.len();
            let id = Pid::try_from(u16::from_be_bytes(id))?;
            Incoming::Puback { id: id.value(), refused: None }
        }
        v3::PacketType::Connack => match v3::Connack::decode(body, read)?.code {
            v3::ConnectReturnCode::Accepted => Incoming::Connack { receive_max: u16::MAX },
            code => refused("connack", &code),
        },
        v3::PacketType::Suback => match v3::Suback::decode(body, read, header)?.topics[..] {
            [v3::SubscribeReturnCode::MaxLevel0] => Incoming::Suback { qos: 0 },
            [v3::SubscribeReturnCode::MaxLevel1] => Incoming::Suback { qos: 1 },
            [v3::SubscribeReturnCode::MaxLevel2] => Incoming::Suback { qos: 2 },
            _ => refused("suback", &"Failure"),
        },
        _ => {
            *read = body.len();
            return Ok(None);
        }
    }))
}

fn decode_v5<'a>(
    header: v5::Header,
    body: &'a [u8],
    read: &mut usize,
) -> Result<Option<Incoming<'a>>, v5::ErrorV5> {
    Ok(Some(match header.typ {
        v5::PacketType::Publish => {
            let publish = v5::Publish::decode(body, read, header)?;
            return Ok(message(publish.qos_pid, body, publish.payload.len()));
        }
        v5::PacketType::Puback => {
            let puback = v5::Puback::decode(body, read, header)?;
            let code = puback.reason_code as u8;
            Incoming::Puback { id: puback.pid.value(), refused: (code >= 0x80).then_some(code) }
        }
        v5::PacketType::Connack => {
            let connack = v5::Connack::decode(body, read, header)?;
            match connack.reason_code {
                v5::ConnectReasonCode::Success => Incoming::Connack {
                    receive_max: connack.properties.receive_max.unwrap_or(u16::MAX),
                },
                code => refused("connack", &code),
            }
        }
        v5::PacketType::Suback => match v5::Suback::decode(body, read, header)?.topics[..] {
            [code] if (code as u8) < 0x80 => Incoming::Suback { qos: code as u8 },
            [code] => refused("suback", &code),
            _ => refused("suback", &"Failure"),
        },
        v5::PacketType::Disconnect => {
            refused("disconnect", &v5::Disconnect::decode(body, read, header)?.reason_code)
        }
        _ => {
            *read = body.len();
            return Ok(None);
        }
    }))
}

/// The payload is the end of the body. Nobody subscribes with QoS 2 here.
fn message(id: QosPid, body: &[u8], payload_bytes: usize) -> Option<Incoming<'_>> {
    let id = match id {
        QosPid::Level0 => None,
        QosPid::Level1(id) => Some(id.value()),
        QosPid::Level2(_) => return None,
    };
    Some(Incoming::Publish { id, payload: &body[body.len() - payload_bytes..] })
}

fn refused(by: &str, code: &dyn Debug) -> Incoming<'static> {
    Incoming::Refused(format!("{by}_{}", snake(&format!("{code:?}"))).into())
}

fn undecodable(error: Error) -> Ended {
    if error.is_eof() || error == Error::InvalidRemainingLength {
        return "undecodable_length".into();
    }
    format!("undecodable_{}", snake(&format!("{error:?}"))).into()
}

fn undecodable_v5(error: v5::ErrorV5) -> Ended {
    match error {
        v5::ErrorV5::Common(error) => undecodable(error),
        error => format!("undecodable_{}", snake(&format!("{error:?}"))).into(),
    }
}

/// `NotAuthorized` and `InvalidQos(3)` as names: `not_authorized`, `invalid_qos`.
fn snake(name: &str) -> String {
    let word = name.trim_matches('"');
    let word = word.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    let mut out = String::new();
    for (place, c) in word.char_indices() {
        if c.is_ascii_uppercase() && place > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
