//! Which protocol a run speaks, and what an answer in it is worth.

use anyhow::{bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// `--driver`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Name {
    /// Iris's own protocol
    Iris,
    /// MQTT 3.1.1
    Mqtt,
    /// MQTT 5
    Mqtt5,
    /// Core NATS
    Nats,
    /// NATS with JetStream
    Jetstream,
}

/// A protocol with what it needs to know, as `--driver`, `--qos` and `--persistent` say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Protocol {
    #[default]
    Iris,
    Mqtt(Mqtt),
    Nats,
    Jetstream,
}

/// How MQTT is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mqtt {
    pub version: Version,
    pub qos: Qos,
    /// The broker keeps a user's subscription and messages while the user is away.
    pub persistent: bool,
}

/// A version of MQTT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Version {
    V311,
    V5,
}

/// Quality of service, of PUBLISH and of subscriptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Qos {
    AtMostOnce,
    AtLeastOnce,
}

impl Protocol {
    /// Checks the flags.
    pub fn new(name: Name, qos: Option<u8>, persistent: bool) -> anyhow::Result<Self> {
        let version = match name {
            Name::Mqtt => Version::V311,
            Name::Mqtt5 => Version::V5,
            Name::Iris | Name::Nats | Name::Jetstream => {
                ensure!(qos.is_none(), "--qos is of MQTT: add --driver mqtt or mqtt5");
                ensure!(!persistent, "--persistent is of MQTT: add --driver mqtt or mqtt5");
                return Ok(match name {
                    Name::Nats => Self::Nats,
                    Name::Jetstream => Self::Jetstream,
                    _ => Self::Iris,
                });
            }
        };
        let qos = if qos == Some(0) { Qos::AtMostOnce } else { Qos::AtLeastOnce };
        Ok(Self::Mqtt(Mqtt { version, qos, persistent }))
    }

    /// As `--driver` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Iris => "iris",
            Self::Mqtt(Mqtt { version: Version::V311, .. }) => "mqtt",
            Self::Mqtt(Mqtt { version: Version::V5, .. }) => "mqtt5",
            Self::Nats => "nats",
            Self::Jetstream => "jetstream",
        }
    }

    /// MQTT's quality of service.
    pub fn qos(self) -> Option<u8> {
        match self {
            Self::Mqtt(mqtt) => Some(u8::from(mqtt.qos == Qos::AtLeastOnce)),
            Self::Iris | Self::Nats | Self::Jetstream => None,
        }
    }

    /// The port that servers of it listen on.
    pub fn port(self) -> u16 {
        match self {
            Self::Iris => 7400,
            Self::Mqtt(_) => 1883,
            Self::Nats | Self::Jetstream => 4222,
        }
    }

    /// Whether the server answers a message. Where it does not, nothing is `accepted` and a message is through when it
    /// has arrived.
    pub fn answers(self) -> bool {
        match self {
            Self::Iris | Self::Jetstream => true,
            Self::Mqtt(mqtt) => mqtt.qos == Qos::AtLeastOnce,
            Self::Nats => false,
        }
    }

    /// What a message is that waits for nothing more of the server: what rates and latencies are of.
    pub fn through(self) -> &'static str {
        if self.answers() { "accepted" } else { "delivered" }
    }

    /// What latencies end with.
    pub fn end(self) -> &'static str {
        match self {
            Self::Iris => "ACCEPTED",
            Self::Mqtt(_) if self.answers() => "PUBACK",
            Self::Jetstream => "PubAck",
            Self::Mqtt(_) | Self::Nats => "delivery",
        }
    }

    /// What an answer promises.
    pub fn guarantee(self) -> &'static str {
        match self {
            Self::Iris => "in the log, synced",
            Self::Mqtt(Mqtt { qos: Qos::AtLeastOnce, .. }) => {
                "PUBACK: the broker has it; on disk as its configuration says"
            }
            Self::Jetstream => {
                "PubAck: the stream has it; synced as the server's configuration says"
            }
            Self::Mqtt(_) | Self::Nats => "none: messages have no answer",
        }
    }

    /// The same, with a server that keeps messages for users who are away; fails where there is no such thing.
    pub fn keeping(self) -> anyhow::Result<Self> {
        match self {
            Self::Iris | Self::Jetstream => Ok(self),
            Self::Mqtt(mqtt) if mqtt.qos == Qos::AtLeastOnce => {
                Ok(Self::Mqtt(Mqtt { persistent: true, ..mqtt }))
            }
            Self::Mqtt(_) => bail!(
                "--qos 0: brokers need not keep such messages for users who are away: leave it out, or say --qos 1"
            ),
            Self::Nats => bail!(
                "--driver nats: core NATS keeps no message for a user who is away: use iris, mqtt, mqtt5 or jetstream"
            ),
        }
    }

    /// Whether users must have been there once before messages are kept for them. A stream keeps all messages, of whomever.
    pub fn subscribes(self) -> bool {
        matches!(self, Self::Mqtt(_) | Self::Nats)
    }

    /// The name of a refusal's code.
    pub fn code_name(self, code: u16) -> Cow<'static, str> {
        match self {
            Self::Iris => crate::client::iris::code_name(code)
                .map_or_else(|| Cow::Owned(format!("code_{code}")), Cow::Borrowed),
            Self::Jetstream => Cow::Owned(format!("jetstream_error_{code}")),
            Self::Mqtt(_) | Self::Nats => Cow::Owned(format!("reason_0x{code:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_mqtt_are_refused_elsewhere_with_what_to_add() {
        for name in [Name::Iris, Name::Nats, Name::Jetstream] {
            for (qos, persistent) in [(Some(0), false), (None, true)] {
                let error = Protocol::new(name, qos, persistent).unwrap_err();
                assert!(error.to_string().contains("--driver mqtt"), "{error}");
            }
            assert_eq!(Protocol::new(name, None, false).unwrap().qos(), None);
        }
    }

    #[test]
    fn mqtt_is_at_least_once_unless_said_otherwise() {
        let of = |qos| Protocol::new(Name::Mqtt5, qos, false).unwrap();
        assert_eq!(
            (of(None).qos(), of(Some(1)).qos(), of(Some(0)).qos()),
            (Some(1), Some(1), Some(0))
        );
        assert!(of(None).answers() && !of(Some(0)).answers());
        assert!(of(Some(0)).guarantee().starts_with("none"));
        assert_eq!(of(None).name(), "mqtt5");
    }

    #[test]
    fn only_what_keeps_messages_can_be_offline() {
        let kept = Protocol::new(Name::Mqtt, None, false).unwrap().keeping().unwrap();
        assert!(matches!(kept, Protocol::Mqtt(Mqtt { persistent: true, .. })));
        for protocol in [Protocol::Iris, Protocol::Jetstream] {
            assert_eq!(protocol.keeping().unwrap(), protocol);
        }
        let refused = [Protocol::Nats, Protocol::new(Name::Mqtt, Some(0), false).unwrap()];
        for protocol in refused {
            let error = protocol.keeping().unwrap_err().to_string();
            assert!(error.contains("away"), "{error}");
        }
    }
}
