//! Configurations of the client's side, for the load generator and for tests.

use crate::{ALPN, Group, Version, provider};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    WebPkiServerVerifier,
};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, NamedGroup, RootCertStore, SignatureScheme,
};
use std::sync::{Arc, Mutex};

/// Whom a client trusts.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Certificates that one of these CAs has signed, for the name that is asked for.
    Ca(Vec<CertificateDer<'static>>),
    /// Anybody: the connection is encrypted, to whom is not known.
    Anybody,
}

/// What a configuration is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whom to trust.
    pub trust: Trust,
    /// Versions to speak. Not empty.
    pub versions: Vec<Version>,
    /// Tickets that are kept for coming back, at most; 0: each handshake is a full one.
    pub tickets_max: usize,
    /// A certificate to show, with its chain and key.
    pub identity: Option<Identity>,
}

/// A client's certificate.
#[derive(Debug)]
pub struct Identity {
    /// Its own certificate, then those between it and the CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// Makes a configuration.
pub fn config(settings: Settings) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(provider(&[Group::X25519, Group::P256, Group::P384]));
    let versions: Vec<_> = settings.versions.iter().map(|version| version.of_rustls()).collect();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)?
        .dangerous();
    let verifier: Arc<dyn ServerCertVerifier> = match settings.trust {
        Trust::Ca(certificates) => {
            let mut roots = RootCertStore::empty();
            certificates.into_iter().try_for_each(|certificate| roots.add(certificate))?;
            let roots = Arc::new(roots);
            WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| Error::General(error.to_string()))?
        }
        Trust::Anybody => Arc::new(Anybody(provider.signature_verification_algorithms)),
    };
    let builder = builder.with_custom_certificate_verifier(verifier);
    let mut config = match settings.identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain, identity.key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = match settings.tickets_max {
        0 => Resumption::disabled(),
        max => Resumption::store(Arc::new(Tickets { max, kept: Mutex::default() })),
    };
    Ok(Arc::new(config))
}

/// Tickets of connections to one server, each used once (RFC 8446, appendix C.4). rustls wants a store that threads may
/// share; each thread of the load generator has its own.
struct Tickets {
    max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    tls13: Vec<Tls13ClientSessionValue>,
    tls12: Option<Tls12ClientSessionValue>,
    group: Option<NamedGroup>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.with(|kept| kept.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(|kept| kept.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.with(|kept| kept.tls12 = Some(value));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.with(|kept| kept.tls12.clone())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.with(|kept| kept.tls12 = None);
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.with(|kept| {
            if kept.tls13.len() < self.max {
                kept.tls13.push(value);
            }
        });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.with(|kept| kept.tls13.pop())
    }
}

/// Takes any certificate whose key signed the handshake.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
