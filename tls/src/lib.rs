//! TLS for connections that mostly wait: rustls over the caller's buffers, and nothing kept besides keys.
//!
//! Server and load generator share it, as they share `ring/`. It does no I/O: bytes of the socket go in and come out as
//! slices and vectors. All of rustls's connections is behind [`stream`], so another version of it changes that file;
//! [`server`] and [`client`] make configurations, [`tickets`] lets a client resume on another node, [`certificate`] reads
//! the few fields of certificates that Iris itself looks at.

pub mod certificate;
pub mod client;
mod fault;
pub mod server;
pub mod stream;
pub mod tickets;

pub use fault::{Cause, Fault};
pub use rustls::pki_types;
pub use rustls::{ClientConfig, ServerConfig};
pub use stream::{Accepted, ClientStream, Kind, Progress, ServerStream, Stream};

/// The protocol's name in TLS's own negotiation (RFC 7301): `docs/PROTOCOL.md`, section 1.
pub const ALPN: &[u8] = b"iris/1";

use rustls::crypto::CryptoProvider;

/// The one provider of cryptography, with key exchange by these groups, in this order.
fn provider(groups: &[Group]) -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = groups.iter().map(|group| group.of_rustls()).collect();
    provider
}

/// A version of TLS that may be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 8446.
    Tls13,
    /// RFC 5246 with ECDHE and AEAD suites only.
    Tls12,
}

impl Version {
    /// All, newest first.
    pub const ALL: [Self; 2] = [Self::Tls13, Self::Tls12];

    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls13 => "1.3",
            Self::Tls12 => "1.2",
        }
    }

    fn of_rustls(self) -> &'static rustls::SupportedProtocolVersion {
        match self {
            Self::Tls13 => &rustls::version::TLS13,
            Self::Tls12 => &rustls::version::TLS12,
        }
    }
}

/// A group for the exchange of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// X25519 (RFC 7748).
    X25519,
    /// P-256 (FIPS 186-5).
    P256,
    /// P-384 (FIPS 186-5).
    P384,
    /// X25519 with ML-KEM-768 (FIPS 203): safe from quantum computers, 1.2 KB more each way, TLS 1.3 only.
    X25519MlKem768,
}

impl Group {
    /// All, in the order of the table of names.
    pub const ALL: [Self; 4] = [Self::X25519, Self::P256, Self::P384, Self::X25519MlKem768];

    /// As it is written in the configuration: the name of IANA's registry of TLS groups, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::X25519 => "x25519",
            Self::P256 => "secp256r1",
            Self::P384 => "secp384r1",
            Self::X25519MlKem768 => "x25519mlkem768",
        }
    }

    fn of_rustls(self) -> &'static dyn rustls::crypto::SupportedKxGroup {
        use rustls::crypto::aws_lc_rs::kx_group;
        match self {
            Self::X25519 => kx_group::X25519,
            Self::P256 => kx_group::SECP256R1,
            Self::P384 => kx_group::SECP384R1,
            Self::X25519MlKem768 => kx_group::X25519MLKEM768,
        }
    }
}

#[cfg(test)]
mod tests;
