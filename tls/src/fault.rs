//! Why TLS ended a connection.

use rustls::{Error, PeerIncompatible};
use std::fmt;

/// Why TLS ended a connection. There is a reason for people, and a [`Cause`] for counting.
#[derive(Clone, Debug)]
pub enum Fault {
    /// What rustls says.
    Tls(Error),
    /// A record, or a message over several records, that is longer than may be kept.
    TooLong,
    /// The connection cannot carry bytes: its handshake is not done, or it has ended.
    NotOpen,
}

/// What a [`Fault`] is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The bytes are no TLS, or break its rules.
    Garbage,
    /// No version, cipher suite, group or signature scheme in common.
    Incompatible,
    /// The other side speaks other protocols (ALPN).
    Alpn,
    /// The other side has to show a certificate and did not.
    CertificateMissing,
    /// The other side's certificate is not taken.
    Certificate,
    /// The other side gave up and said so.
    Alert,
    /// Another fault.
    Other,
}

impl Cause {
    /// A name that stays.
    pub fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Incompatible => "incompatible",
            Self::Alpn => "alpn",
            Self::CertificateMissing => "certificate_missing",
            Self::Certificate => "certificate",
            Self::Alert => "alert",
            Self::Other => "other",
        }
    }
}

impl Fault {
    /// What it is counted as.
    pub fn cause(&self) -> Cause {
        let error = match self {
            Self::Tls(error) => error,
            Self::TooLong => return Cause::Garbage,
            Self::NotOpen => return Cause::Other,
        };
        match error {
            Error::InvalidMessage(_)
            | Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerSentOversizedRecord
            | Error::DecryptError => Cause::Garbage,
            Error::PeerIncompatible(_) => Cause::Incompatible,
            Error::NoApplicationProtocol => Cause::Alpn,
            Error::NoCertificatesPresented => Cause::CertificateMissing,
            Error::InvalidCertificate(_) => Cause::Certificate,
            Error::AlertReceived(_) => Cause::Alert,
            _ => Cause::Other,
        }
    }

    /// Whether the other side offered no version that is spoken here.
    pub fn is_version(&self) -> bool {
        matches!(
            self,
            Self::Tls(Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                    | PeerIncompatible::Tls12NotOfferedOrEnabled
                    | PeerIncompatible::ServerDoesNotSupportTls12Or13
                    | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                    | PeerIncompatible::SupportedVersionsExtensionRequired
                    // Every ClientHello from 1.2 on has it (RFC 5246, section 7.4.1.4.1, RFC 8446, section 4.2.3).
                    | PeerIncompatible::SignatureAlgorithmsExtensionRequired
            ))
        )
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Tls(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::TooLong => f.write_str("a record or handshake message is too long"),
            Self::NotOpen => f.write_str("the connection is not open"),
        }
    }
}

impl std::error::Error for Fault {}
