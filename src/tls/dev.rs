//! Certificates of `iris serve --dev`: made once, kept in the data directory.

use super::CertFiles;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// The CA's certificate in the data directory: what clients trust (`--ca`).
pub const DEV_CA_FILE: &str = "dev-ca.pem";
const CERT_FILE: &str = "dev-cert.pem";
const KEY_FILE: &str = "dev-key.pem";
/// Days that both are valid.
const DAYS: u32 = 365;
const DAY: Duration = Duration::from_secs(86_400);

/// The development certificate of a data directory, for localhost and loopback. One whose days are nearly over is made
/// again. An error is cause and next step.
pub(super) fn load_or_create(data_dir: &Path, now_unix_s: u64) -> Result<CertFiles, String> {
    let files = CertFiles { cert: data_dir.join(CERT_FILE), key: data_dir.join(KEY_FILE) };
    let is_good = super::identity(&files, now_unix_s)
        .is_ok_and(|(_, summary)| summary.days_left(now_unix_s) > 0);
    if !is_good || !data_dir.join(DEV_CA_FILE).exists() {
        create(data_dir, &files, now_unix_s).map_err(|cause| {
            let what = format!("{}: failed to make a development certificate", data_dir.display());
            format!("{what}: {cause}; name a data directory that this user may write to")
        })?;
    }
    Ok(files)
}

fn create(data_dir: &Path, files: &CertFiles, now_unix_s: u64) -> Result<(), String> {
    let failed = |error: rcgen::Error| error.to_string();
    let now = UNIX_EPOCH + Duration::from_secs(now_unix_s);
    let mut ca = CertificateParams::default();
    ca.distinguished_name = rcgen::DistinguishedName::new();
    ca.distinguished_name.push(DnType::CommonName, "Iris development");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (ca.not_before, ca.not_after) = ((now - DAY).into(), (now + DAY * DAYS).into());
    let ca_key = KeyPair::generate().map_err(failed)?;
    let ca_pem = ca.self_signed(&ca_key).map_err(failed)?.pem();
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (ca.not_before, ca.not_after);
    let key = KeyPair::generate().map_err(failed)?;
    let issuer = Issuer::from_params(&ca, &ca_key);
    let cert_pem = params.signed_by(&key, &issuer).map_err(failed)?.pem();
    // The CA's key is not kept: it has signed all that it will.
    let io = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(data_dir).map_err(io)?;
    write(&files.key, &key.serialize_pem(), 0o600).map_err(io)?;
    write(&files.cert, &cert_pem, 0o644).map_err(io)?;
    write(&data_dir.join(DEV_CA_FILE), &ca_pem, 0o644).map_err(io)
}

/// The file appears with its whole content, also in place of another.
fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let draft: PathBuf = path.with_extension(format!("pem.{}", std::process::id()));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&draft)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&draft, path)
}
