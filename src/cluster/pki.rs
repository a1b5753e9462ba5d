//! A certificate authority for those who have none: `iris pki`.
//!
//! A directory with the CA's certificate and key, the cluster's name, and the certificates and keys of nodes. Keys are
//! ECDSA on P-256 (FIPS 186-5); what is there is never overwritten.

use super::credentials::{CredentialFiles, Credentials, is_cluster_name, node_name};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Days that the CA's certificate is valid.
const CA_DAYS: u32 = 3650;
/// Clocks of nodes may differ by so much.
const CLOCK_SLACK: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What a command of the PKI could not do: cause, then what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PkiError(pub String);

impl std::fmt::Display for PkiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes a CA for a cluster in a directory, which is made if it is missing. Returns the CA's certificate file.
pub fn init(dir: &Path, cluster: &str, now: SystemTime) -> Result<PathBuf, PkiError> {
    if !is_cluster_name(cluster) {
        let cause = format!("{cluster:?} cannot be the name of a cluster");
        return Err(PkiError(format!("{cause}; use 1 to 63 of a-z, 0-9 and - in between")));
    }
    std::fs::create_dir_all(dir).map_err(|error| {
        PkiError(format!("{}: failed to make it: {error}; name another --dir", dir.display()))
    })?;
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = ca_params(cluster, now).self_signed(&key).map_err(failed)?;
    // The key first: who has a certificate has its key, too.
    write_new(&dir.join("ca-key.pem"), &key.serialize_pem(), 0o600)?;
    write_new(&dir.join("cluster"), &format!("{cluster}\n"), 0o644)?;
    let file = dir.join("ca.pem");
    write_new(&file, &certificate.pem(), 0o644)?;
    Ok(file)
}

/// Makes the certificate and key of a node, valid for so many days, with the CA of a directory. Returns both files.
pub fn issue(
    dir: &Path,
    node: u32,
    days: u32,
    now: SystemTime,
) -> Result<(PathBuf, PathBuf), PkiError> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(|error| {
            let cause = format!("{}: failed to read it: {error}", path.display());
            PkiError(format!("{cause}; make a CA with `iris pki init --dir {}`", dir.display()))
        })
    };
    let (cluster, ca_key) = (read("cluster")?, read("ca-key.pem")?);
    let cluster = cluster.trim();
    let broken = |error: rcgen::Error| {
        let path = dir.join("ca-key.pem");
        PkiError(format!("{}: {error}; restore it from a copy", path.display()))
    };
    let ca_key = KeyPair::from_pem(&ca_key).map_err(broken)?;
    // The issuer is found by its name and key: both are the same in each run.
    let ca = ca_params(cluster, now);
    let issuer = Issuer::from_params(&ca, &ca_key);
    let key = KeyPair::generate().map_err(failed)?;
    let name = node_name(cluster, node);
    let mut params = CertificateParams::new(vec![name.clone()]).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + DAY * days).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
    let cert_file = dir.join(format!("node-{node}.pem"));
    let key_file = dir.join(format!("node-{node}-key.pem"));
    write_new(&key_file, &key.serialize_pem(), 0o600)?;
    write_new(&cert_file, &certificate.pem(), 0o644)?;
    Ok((cert_file, key_file))
}

/// Whether a node could start with what [`issue`] made.
pub fn check(dir: &Path, node: u32) -> Result<(), PkiError> {
    let cluster = std::fs::read_to_string(dir.join("cluster")).unwrap_or_default();
    let files = CredentialFiles {
        ca: dir.join("ca.pem"),
        cert: dir.join(format!("node-{node}.pem")),
        key: dir.join(format!("node-{node}-key.pem")),
    };
    let loaded = Credentials::load(&files, cluster.trim(), node);
    loaded.map(drop).map_err(|error| PkiError(format!("{}; {}", error.cause, error.fix)))
}

fn ca_params(cluster: &str, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Iris cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + DAY * CA_DAYS).into();
    params
}

fn failed(error: rcgen::Error) -> PkiError {
    PkiError(format!("failed to make a key or a certificate: {error}; try again"))
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        let fix = match error.kind() {
            io::ErrorKind::AlreadyExists => "remove it first if nothing uses it any more",
            _ => "name a directory that you may write to with --dir",
        };
        PkiError(format!("{}: failed to write it: {error}; {fix}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_node_can_start_with_what_was_issued_and_nothing_is_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("pki");
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(crate::clock::unix_ms());
        assert!(issue(&dir, 1, 90, now).unwrap_err().0.contains("pki init"));
        init(&dir, "prod", now).unwrap();
        assert!(init(&dir, "prod", now).unwrap_err().0.contains("remove it first"));
        let (_, key) = issue(&dir, 1, 90, now).unwrap();
        check(&dir, 1).unwrap();
        assert!(check(&dir, 2).is_err());
        assert!(issue(&dir, 1, 90, now).is_err());
        for key in [key, dir.join("ca-key.pem")] {
            assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(init(home.path(), "No Label", now).unwrap_err().0.contains("cannot be the name"));
    }
}
