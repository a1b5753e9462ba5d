//! TLS of client connections: the files it is made of, loaded, checked, and loaded again.
//!
//! `iris-tls` speaks TLS; here is what a node needs around it. [`TlsConfig::load`] reads certificates, keys, secrets of
//! tickets and the clients' CA, at a start, in `iris check` and at each SIGHUP ([`Reloader`]): what is wrong is found
//! before anything changes. Reactors get a whole configuration or none, over a queue each, and use it for connections
//! from then on; those that are there go on as they are. [`dev`] makes certificates for trying things out.

mod dev;
mod reload;
mod user;

#[cfg(test)]
mod tests;

pub use dev::DEV_CA_FILE;
pub use reload::{Reloader, Renewals, Start};
pub use user::{CertificateUser, Field as UserField, UserRule};

use crate::cluster::{certificates, read_file};
use iris_tls::pki_types::PrivateKeyDer;
use iris_tls::pki_types::pem::PemObject;
use iris_tls::server::{ClientAuth, Identity, IdentityFault, Settings, check_ca, config};
use iris_tls::tickets::Secret;
use iris_tls::{Group, ServerConfig, Version};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A certificate that is about to run out is worth a warning, seconds before.
pub const EXPIRES_SOON_S: u64 = 14 * 86_400;

/// The checked section `[tls]`.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// Certificates and their keys; empty under `--dev`: made at the start.
    pub certs: Vec<CertFiles>,
    /// Versions to speak.
    pub versions: Vec<Version>,
    /// Groups for the exchange of keys.
    pub groups: Vec<Group>,
    /// The file with the secrets of tickets; `None`: that of this process.
    pub ticket_secrets: Option<PathBuf>,
    /// A random secret, for who has no file.
    pub own_secret: Secret,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// Certificates of the CAs that sign them.
    pub client_ca: Option<PathBuf>,
    /// Whom a client's certificate logs in.
    pub client_user: Option<UserRule>,
    /// Steps of handshakes in one turn of a reactor.
    pub handshakes_per_turn: usize,
    /// Handshakes that may wait for one reactor.
    pub handshakes_waiting: usize,
}

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFiles {
    /// The certificate, then those between it and the CA, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// What is wrong with a file, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsProblem {
    /// Which key of `[tls]` names the file.
    pub key: &'static str,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tls.{}: {}; {}", self.key, self.cause, self.fix)
    }
}

/// What the files gave.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// For connections from now on.
    pub config: Arc<ServerConfig>,
    /// The certificates, in order.
    pub certs: Vec<CertSummary>,
}

/// What people want to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertSummary {
    /// Its names; the common name if there are none.
    pub names: Vec<String>,
    /// Until when it is valid, Unix seconds.
    pub expires_unix_s: u64,
}

impl CertSummary {
    /// Whole days that are left.
    pub fn days_left(&self, now_unix_s: u64) -> u64 {
        self.expires_unix_s.saturating_sub(now_unix_s) / 86_400
    }
}

impl Loaded {
    /// When the first certificate runs out, Unix seconds.
    pub fn expires_unix_s(&self) -> u64 {
        self.certs.iter().map(|cert| cert.expires_unix_s).min().unwrap_or(0)
    }
}

fn problem(
    key: &'static str,
    path: &Path,
    cause: impl fmt::Display,
    fix: impl Into<String>,
) -> TlsProblem {
    TlsProblem { key, cause: format!("{}: {cause}", path.display()), fix: fix.into() }
}

impl TlsConfig {
    /// Reads all files and checks that they fit each other and the time. All problems come at once.
    pub fn load(&self, now_unix_s: u64) -> Result<Loaded, Vec<TlsProblem>> {
        let mut problems = Vec::new();
        let mut note = |found: TlsProblem| problems.push(found);
        let (mut identities, mut certs) = (Vec::new(), Vec::new());
        for files in &self.certs {
            match identity(files, now_unix_s) {
                Ok((identity, summary)) => {
                    identities.push(identity);
                    certs.push(summary);
                }
                Err(found) => note(found),
            }
        }
        let secrets = match &self.ticket_secrets {
            None => Ok(vec![self.own_secret.clone()]),
            Some(path) => secrets(path),
        };
        let secrets = secrets.map_err(&mut note).unwrap_or_default();
        let client_ca = match &self.client_ca {
            Some(path) if self.client_auth != ClientAuth::Off => {
                let checked = certificates(path)
                    .and_then(|list| check_ca(&list).map(|()| list))
                    .map_err(|cause| {
                        let fix = "name a PEM file with the certificates of the clients' CAs";
                        problem("client_ca", path, cause, fix)
                    });
                checked.map_err(&mut note).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let settings = Settings {
            identities,
            versions: self.versions.clone(),
            groups: self.groups.clone(),
            secrets,
            client_auth: self.client_auth,
            client_ca,
        };
        match config(settings) {
            Ok(config) => Ok(Loaded { config, certs }),
            Err(error) => Err(vec![TlsProblem {
                key: "certs",
                cause: format!("TLS cannot be set up: {error}"),
                fix: "check tls.versions, tls.groups and the files".to_owned(),
            }]),
        }
    }
}

fn identity(files: &CertFiles, now_unix_s: u64) -> Result<(Identity, CertSummary), TlsProblem> {
    let CertFiles { cert, key } = files;
    let no_cert =
        "name a PEM file: the server's certificate first, then those between it and the CA";
    let no_key = "name the private key of the certificate in PEM (PKCS #8, SEC 1 or PKCS #1)";
    let chain = certificates(cert).map_err(|cause| problem("certs", cert, cause, no_cert))?;
    let loaded = read_file(key)
        .and_then(|pem| PrivateKeyDer::from_pem_slice(&pem).map_err(|error| error.to_string()))
        .map_err(|cause| problem("certs", key, cause, no_key))?;
    let identity = Identity::new(chain, loaded).map_err(|fault| match fault {
        IdentityFault::Certificate => problem("certs", cert, "it is no certificate", no_cert),
        IdentityFault::Key => problem("certs", key, "its kind of key is not known", no_key),
        IdentityFault::Mismatch => {
            let cause = format!("it does not fit {}", cert.display());
            problem("certs", key, cause, "use the key that the certificate was made for")
        }
    })?;
    let facts = identity.facts();
    let renew = "renew it, or correct the clock";
    if facts.not_after_s < now_unix_s {
        let days = (now_unix_s - facts.not_after_s) / 86_400;
        return Err(problem("certs", cert, format!("it has expired {days} days ago"), renew));
    }
    if facts.not_before_s > now_unix_s {
        let days = (facts.not_before_s - now_unix_s).div_ceil(86_400);
        return Err(problem("certs", cert, format!("it is valid in {days} days only"), renew));
    }
    let names = match facts.dns.is_empty() {
        true => facts.common_name.iter().cloned().collect(),
        false => facts.dns.clone(),
    };
    let summary = CertSummary { names, expires_unix_s: facts.not_after_s };
    Ok((identity, summary))
}

fn secrets(path: &Path) -> Result<Vec<Secret>, TlsProblem> {
    let parsed = read_file(path).and_then(|bytes| {
        let text = String::from_utf8(bytes).map_err(|_| "it is no text".to_owned())?;
        Secret::parse_lines(&text)
    });
    parsed.map_err(|cause| {
        let fix = "make a secret with `openssl rand -hex 32`, a line for each, the newest first";
        problem("ticket_secrets", path, cause, fix)
    })
}
