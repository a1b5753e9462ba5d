//! What a node says once it is ready: its addresses in a file for programs, and under `--dev` what to try next.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use super::exit::{Exit, Failure};
use super::print;
use super::token::unix_s;
use crate::auth::{self, DEV_KEY_FILE};
use crate::config::Config;
use crate::tls::DEV_CA_FILE;

/// Where the node really listens: ports 0 have been replaced.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// For clients in the clear; `None`: not an edge, or TLS alone.
    pub tcp: Option<SocketAddr>,
    /// For clients by TLS; `None`: not an edge, or no TLS.
    pub tls: Option<SocketAddr>,
    /// For other nodes; `None`: not a core of a cluster.
    pub link: Option<SocketAddr>,
    /// For the admin server.
    pub admin: SocketAddr,
}

/// Seconds that the tokens printed under `--dev` are valid.
const DEV_TOKEN_TTL_S: u64 = 24 * 3600;

/// Writes the ports file and, under `--dev`, prints addresses, two tokens and the next command. Call it once, when
/// clients are served.
pub fn announce(config: &Config, bound: Bound) -> Result<(), Failure> {
    let Bound { tcp, tls, link, admin } = bound;
    let [tcp, tls, link] = [tcp, tls, link].map(|address| address.map(tracing::field::display));
    tracing::info!(event = "ready", tcp, tls, link, %admin, "ready");
    if let Some(file) = &config.ports_file {
        write_ports(file, bound).map_err(|error| {
            let cause = format!("{}: failed to write the ports file: {error}", file.display());
            Failure::new(Exit::Usage, format!("{cause}; name a writable place with --ports-file"))
        })?;
    }
    if config.dev && bound.tcp.or(bound.tls).is_some() {
        let secret = auth::load_or_create_dev_key(&config.node.data_dir)
            .map_err(|error| Failure::new(Exit::DataDir, error.to_string()))?;
        print(&banner(config, bound, &secret, unix_s()));
    }
    Ok(())
}

/// The file appears with its whole content or not at all, so a reader may wait for it to exist.
fn write_ports(file: &Path, bound: Bound) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let draft = file.with_file_name(name);
    let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    let admin = bound.admin.to_string();
    let mut ports = json!({ "tcp": text(bound.tcp), "admin": admin });
    if bound.tls.is_some() {
        ports["tls"] = json!(text(bound.tls));
    }
    if bound.link.is_some() {
        ports["link"] = json!(text(bound.link));
    }
    let mut out = fs::File::create(&draft)?;
    writeln!(out, "{ports}")?;
    fs::rename(&draft, file).inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })
}

fn banner(config: &Config, bound: Bound, secret: &[u8], now_unix_s: u64) -> String {
    let token = |user| auth::sign_hs256(secret, None, user, now_unix_s, DEV_TOKEN_TTL_S);
    let key = config.node.data_dir.join(DEV_KEY_FILE);
    let (key, admin) = (key.display(), bound.admin);
    let mut clients = String::new();
    let mut next = String::new();
    if let Some(tls) = bound.tls {
        clients += &format!("\n  by TLS    {tls}");
        next = format!("{tls} --tls");
        if config.tls.as_ref().is_some_and(|tls| tls.certs.is_empty()) {
            let ca = config.node.data_dir.join(DEV_CA_FILE);
            clients += &format!("   certificates signed by {}", ca.display());
            next += &format!(" --ca {}", ca.display());
        }
    }
    if let Some(tcp) = bound.tcp {
        clients = format!("\n  clients   {tcp}") + &clients;
        next = tcp.to_string();
    }
    format!(
        "
Iris is ready, in development mode: do not expose it.
{clients}
  admin     http://{admin}/   http://{admin}/metrics
  data      {data}
  key       {key}

Tokens, valid for 24 hours; others with: iris token --user NAME --key {key}

  alice     {alice}
  bob       {bob}

Try next:   iris-loadgen latency --addr {next} --key {key} --duration 5s
Stop with Ctrl-C.

",
        data = config.node.data_dir.display(),
        alice = token("alice"),
        bob = token("bob"),
    )
}
