//! Configurations of the server's side.

use crate::certificate::{self, Facts};
use crate::tickets::{Secret, Tickets};
use crate::{ALPN, Group, Version, provider};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::time_provider::DefaultTimeProvider;
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use std::sync::Arc;

/// Tickets given out after a handshake. One is enough for a client that comes back once.
const TICKETS: usize = 1;

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    Off,
    /// They are asked; one that is shown must be good.
    Optional,
    /// They must show a good one.
    Required,
}

/// A certificate of the server with its chain and key, which fit.
#[derive(Clone, Debug)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    facts: Facts,
}

/// Why a certificate and a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityFault {
    /// The certificate does not parse.
    Certificate,
    /// The key is of a kind that is not known.
    Key,
    /// The key is another certificate's.
    Mismatch,
}

impl Identity {
    /// Checks that key and certificate fit. The server's own certificate comes first in the chain.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, IdentityFault> {
        let facts = chain.first().and_then(|own| certificate::read(own));
        let facts = facts.ok_or(IdentityFault::Certificate)?;
        let key =
            CertifiedKey::from_der(chain, key, &provider(&[])).map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => IdentityFault::Mismatch,
                Error::InvalidCertificate(_) => IdentityFault::Certificate,
                _ => IdentityFault::Key,
            })?;
        Ok(Self { key: Arc::new(key), facts })
    }

    /// What the server's own certificate says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    fn is_for(&self, name: &str) -> bool {
        self.facts.dns.iter().any(|pattern| covers(pattern, name))
    }
}

/// Whether a name of a certificate covers that of a host: alike, or with `*` for its first label (RFC 9525, 6.3).
fn covers(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(rest), Some((_, parent))) => rest.eq_ignore_ascii_case(parent),
        _ => pattern.eq_ignore_ascii_case(name),
    }
}

/// Picks a certificate by the name that the client asks for (SNI, RFC 6066) and the signatures it knows.
#[derive(Debug)]
struct Resolver(Vec<Identity>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |identity: &&Identity| {
            identity.key.key.choose_scheme(hello.signature_schemes()).is_some()
        };
        let named = hello
            .server_name()
            .and_then(|name| self.0.iter().filter(fits).find(|identity| identity.is_for(name)));
        // The client judges what it gets: a name that nobody has gets the first. Where no key fits, rustls says what is not
        // in common.
        let any = || self.0.iter().find(fits).or(self.0.first());
        named.or_else(any).map(|identity| Arc::clone(&identity.key))
    }
}

/// What a configuration is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Certificates; the first is that for names nobody has. Not empty.
    pub identities: Vec<Identity>,
    /// Versions to speak. Not empty.
    pub versions: Vec<Version>,
    /// Groups for the exchange of keys, the favourite first. Not empty.
    pub groups: Vec<Group>,
    /// Secrets of tickets. Not empty.
    pub secrets: Vec<Secret>,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// Certificates of the CAs that sign them. Not empty unless [`ClientAuth::Off`].
    pub client_ca: Vec<CertificateDer<'static>>,
}

/// Makes a configuration. Early data is off: what it carries could be repeated by anybody (RFC 8446, section 8).
pub fn config(settings: Settings) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(provider(&settings.groups));
    let versions: Vec<_> = settings.versions.iter().map(|version| version.of_rustls()).collect();
    // Who resumes is not asked for a certificate: a ticket counts only where the same was asked for.
    let asked = |mode| {
        let ca = settings.client_ca.iter().flat_map(|ca| ca.iter().copied());
        std::iter::once(mode).chain(ca).collect()
    };
    let context: Vec<u8> = match settings.client_auth {
        ClientAuth::Off => Vec::new(),
        ClientAuth::Optional => asked(1),
        ClientAuth::Required => asked(2),
    };
    let tickets = Tickets::new(settings.secrets, &context, Arc::new(DefaultTimeProvider));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)?;
    let builder = match settings.client_auth {
        ClientAuth::Off => builder.with_no_client_auth(),
        ClientAuth::Optional | ClientAuth::Required => {
            let is_required = settings.client_auth == ClientAuth::Required;
            let verifier = client_verifier(&settings.client_ca, is_required, &provider)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Resolver(settings.identities)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = TICKETS;
    config.max_tls13_tickets = TICKETS;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(tickets);
    config.max_early_data_size = 0;
    config.require_ems = true;
    Ok(Arc::new(config))
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    certificates.iter().try_for_each(|certificate| roots.add(certificate.clone()))?;
    Ok(Arc::new(roots))
}

fn client_verifier(
    ca: &[CertificateDer<'static>],
    is_required: bool,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots(ca)?, Arc::clone(provider));
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| Error::General(error.to_string()))
}

/// Whether these are certificates of CAs, as far as can be seen.
pub fn check_ca(certificates: &[CertificateDer<'static>]) -> Result<(), String> {
    let roots = roots(certificates).map_err(|error| error.to_string())?;
    WebPkiServerVerifier::builder_with_provider(roots, Arc::new(provider(&Group::ALL)))
        .build()
        .map(drop)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_covers_one_label() {
        assert!(covers("a.example", "A.example") && covers("*.example", "b.example"));
        for (pattern, name) in
            [("*.example", "example"), ("*.example", "a.b.example"), ("a.example", "b.example")]
        {
            assert!(!covers(pattern, name), "{pattern} {name}");
        }
    }
}
