//! Who a node is to other nodes: a certificate of the cluster's CA, checked when the configuration is.
//!
//! A certificate names one node of one cluster: the DNS name `node-N.CLUSTER.iris`. Both sides of a link show one
//! (`docs/LINKS.md`, section 1). TLS 1.3 only, one crypto provider, no resumption: links are few and long.

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The protocol in TLS's own negotiation (RFC 7301).
pub(super) const ALPN: &[u8] = b"iris-link";
/// Bytes of a PEM file, at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with a file of credentials, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialError {
    /// Which key of the configuration names the file.
    pub key: &'static str,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

/// Where the files are, and what the certificate must say.
#[derive(Clone, Debug)]
pub struct CredentialFiles {
    /// Certificates of the CA, PEM.
    pub ca: PathBuf,
    /// The node's certificate and those between it and the CA, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Loaded, matching and valid credentials.
#[derive(Clone)]
pub struct Credentials {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// The name of a node in its certificate.
pub fn node_name(cluster: &str, node: u32) -> String {
    format!("node-{node}.{cluster}.iris")
}

/// Whether this can be the name of a cluster: a label of the DNS (RFC 1035, 2.3.1), because certificates hold it.
pub fn is_cluster_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=iris_proto::peer::CLUSTER_BYTES_MAX).contains(&name.len())
        && name.chars().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

pub(super) fn server_name(cluster: &str, node: u32) -> ServerName<'static> {
    ServerName::try_from(node_name(cluster, node)).expect("a checked name of a cluster is a label")
}

/// Whether a certificate, whose chain TLS has checked, is that of the node.
pub(super) fn is_certificate_of(
    certificate: &CertificateDer<'_>,
    cluster: &str,
    node: u32,
) -> Result<(), rustls::Error> {
    verify_server_name(&ParsedCertificate::try_from(certificate)?, &server_name(cluster, node))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Credentials {
    /// Reads the files and checks that they fit each other, the cluster and the node, now.
    pub fn load(
        files: &CredentialFiles,
        cluster: &str,
        node: u32,
    ) -> Result<Self, CredentialError> {
        let fail = |key, path: &Path, cause: String, fix: &str| CredentialError {
            key,
            cause: format!("{}: {cause}", path.display()),
            fix: fix.to_owned(),
        };
        let no_certificate = "name a PEM file with certificates; `iris pki` makes one";
        let mut roots = RootCertStore::empty();
        for certificate in
            certificates(&files.ca).map_err(|cause| fail("ca", &files.ca, cause, no_certificate))?
        {
            roots.add(certificate).map_err(|error| {
                fail("ca", &files.ca, format!("no certificate of a CA: {error}"), no_certificate)
            })?;
        }
        let chain = certificates(&files.cert)
            .map_err(|cause| fail("cert", &files.cert, cause, no_certificate))?;
        let no_key = "name the private key of cluster.cert in PEM (PKCS #8, SEC 1 or PKCS #1)";
        let key = read_file(&files.key)
            .and_then(|pem| PrivateKeyDer::from_pem_slice(&pem).map_err(|e| e.to_string()))
            .map_err(|cause| fail("key", &files.key, cause, no_key))?;
        let roots = Arc::new(roots);
        check_own(&roots, &chain, cluster, node)
            .map_err(|(cause, fix)| fail("cert", &files.cert, cause, &fix))?;
        Self::build(&roots, chain, key).map_err(|error| {
            let fix = "use the key that the certificate was made for";
            fail(
                "key",
                &files.key,
                format!("it does not fit {}: {error}", files.cert.display()),
                fix,
            )
        })
    }

    fn build(
        roots: &Arc<RootCertStore>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let versions = [&rustls::version::TLS13];
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)?
            .with_root_certificates(Arc::clone(roots))
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}

/// Whether other nodes would take the node's own certificate: what they would say is said here, before anything starts.
fn check_own(
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    cluster: &str,
    node: u32,
) -> Result<(), (String, String)> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider()).build();
    let verifier = verifier.map_err(|error| (error.to_string(), "check cluster.ca".to_owned()))?;
    let name = server_name(cluster, node);
    let checked = verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now());
    let error = match checked {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let issue = format!("`iris pki issue --node {node}` makes one");
    Err(match &error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => (
            format!("it is not the certificate of {}", node_name(cluster, node)),
            format!("check cluster.id and node.node_id; {issue}"),
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => (
            "it is not signed by a certificate of cluster.ca".to_owned(),
            format!("use certificates of one CA; {issue}"),
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => ("it has expired".to_owned(), issue),
        other => (format!("it cannot be used: {other}"), issue),
    })
}

/// A file of at most a mebibyte.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("failed to read it: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

/// The certificates of a PEM file, one at least.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read_file(path)?;
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match list {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err("there is no certificate in it".to_owned()),
        Err(error) => Err(format!("it is not PEM: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::pki;
    use super::*;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(crate::clock::unix_ms())
    }

    fn files(dir: &Path, node: u32) -> CredentialFiles {
        CredentialFiles {
            ca: dir.join("ca.pem"),
            cert: dir.join(format!("node-{node}.pem")),
            key: dir.join(format!("node-{node}-key.pem")),
        }
    }

    fn issue(dir: &Path, node: u32, now: SystemTime) {
        pki::issue(dir, node, 90, now).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_key_and_a_fix() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, two) = (one.path(), two.path());
        let now = now();
        pki::init(one, "prod", now).unwrap();
        pki::init(two, "prod", now).unwrap();
        issue(one, 1, now);
        issue(one, 2, now);
        issue(two, 1, now);
        let good = files(one, 1);
        assert!(Credentials::load(&good, "prod", 1).is_ok());
        let failure = |files: &CredentialFiles, cluster, node| {
            let error = Credentials::load(files, cluster, node).unwrap_err();
            (error.key, error.cause)
        };
        let (key, cause) = failure(&good, "prod", 2);
        assert!(key == "cert" && cause.contains("node-2.prod.iris"), "{cause}");
        let (key, cause) = failure(&good, "test", 1);
        assert!(key == "cert" && cause.contains("node-1.test.iris"), "{cause}");
        let other_ca = CredentialFiles { ca: files(two, 1).ca, ..good.clone() };
        let (key, cause) = failure(&other_ca, "prod", 1);
        assert!(key == "cert" && cause.contains("not signed"), "{cause}");
        let other_key = CredentialFiles { key: files(one, 2).key, ..good.clone() };
        let (key, cause) = failure(&other_key, "prod", 1);
        assert!(key == "key" && cause.contains("does not fit"), "{cause}");
        let no_file = CredentialFiles { ca: one.join("none"), ..good.clone() };
        assert_eq!(failure(&no_file, "prod", 1).0, "ca");
        let no_pem = CredentialFiles { cert: one.join("cluster"), ..good };
        assert_eq!(failure(&no_pem, "prod", 1).0, "cert");
        std::fs::remove_file(files(one, 1).cert).unwrap();
        std::fs::remove_file(files(one, 1).key).unwrap();
        issue(one, 1, UNIX_EPOCH + Duration::from_secs(86_400 * 365));
        let (key, cause) = failure(&files(one, 1), "prod", 1);
        assert!(key == "cert" && cause.contains("expired"), "{cause}");
    }

    #[test]
    fn a_certificate_is_that_of_its_node_alone() {
        let dir = tempfile::tempdir().unwrap();
        let now = now();
        pki::init(dir.path(), "prod", now).unwrap();
        issue(dir.path(), 12, now);
        let chain = certificates(&files(dir.path(), 12).cert).unwrap();
        assert!(is_certificate_of(&chain[0], "prod", 12).is_ok());
        for (cluster, node) in [("prod", 1), ("prod", 2), ("prod", 121), ("test", 12)] {
            assert!(is_certificate_of(&chain[0], cluster, node).is_err(), "{cluster} {node}");
        }
    }

    #[test]
    fn names_of_clusters_are_labels() {
        for name in ["a", "prod", "eu-1", &"x".repeat(63)] {
            assert!(is_cluster_name(name), "{name}");
        }
        for name in ["", "Prod", "a.b", "-a", "a-", "ä", &"x".repeat(64)] {
            assert!(!is_cluster_name(name), "{name}");
        }
    }
}
