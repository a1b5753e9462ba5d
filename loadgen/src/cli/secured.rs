//! Flags of TLS.

use crate::net::{TlsPlan, read_ca};
use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use iris_tls::Version;
use iris_tls::client::Trust;
use iris_tls::pki_types::ServerName;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How connections are secured.
#[derive(Clone, Debug, Default, Args)]
pub struct TlsFlags {
    /// Connect by TLS; default port 7443. One process only
    #[arg(long, conflicts_with_all = ["processes", "workers"])]
    pub tls: bool,
    /// CA certificates that the server's must be signed by, PEM; default: ./iris-data/dev-ca.pem
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub ca: Option<PathBuf>,
    /// Take any certificate
    #[arg(long, requires = "tls", conflicts_with = "ca")]
    pub insecure: bool,
    /// The name that the server's certificate must have; default: the host of --addr
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub server_name: Option<String>,
    /// Version to speak
    #[arg(long, value_name = "VERSION", default_value = "1.3", requires = "tls")]
    pub tls_version: TlsVersion,
    /// Resume by tickets of earlier connections; without it each handshake is a full one
    #[arg(long, requires = "tls")]
    pub resume: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TlsVersion {
    /// RFC 5246
    #[value(name = "1.2")]
    V12,
    /// RFC 8446
    #[default]
    #[value(name = "1.3")]
    V13,
}

impl TlsFlags {
    /// Checks the flags; `host` is that of `--addr` as it was typed.
    pub fn check(self, host: Option<&str>, addr: SocketAddr) -> anyhow::Result<Option<TlsPlan>> {
        if !self.tls {
            return Ok(None);
        }
        let own = || {
            let host = host.and_then(|host| host.rsplit_once(':')).map(|(host, _)| host);
            host.map_or_else(
                || addr.ip().to_string(),
                |host| host.trim_matches(['[', ']']).to_owned(),
            )
        };
        let name = self.server_name.unwrap_or_else(own);
        let name = ServerName::try_from(name.clone())
            .with_context(|| format!("--server-name {name}: no host name or address"))?;
        let trust = match (self.insecure, self.ca) {
            (true, _) => Trust::Anybody,
            (false, Some(ca)) => read_ca(&ca)?,
            (false, None) => {
                let ca = PathBuf::from("./iris-data/dev-ca.pem");
                ensure!(ca.exists(), "--tls needs --ca FILE with the server's CA, or --insecure");
                read_ca(&ca)?
            }
        };
        let version = match self.tls_version {
            TlsVersion::V12 => Version::Tls12,
            TlsVersion::V13 => Version::Tls13,
        };
        Ok(Some(TlsPlan { trust, name, versions: vec![version], resumes: self.resume }))
    }
}
