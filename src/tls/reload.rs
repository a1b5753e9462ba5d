//! Loading the files again while the node runs.

use super::dev;
use super::{EXPIRES_SOON_S, Loaded, TlsConfig, TlsProblem};
use crate::cli::exit::{Exit, Failure};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::metrics::{Registry, ReloadResult};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use iris_tls::ServerConfig;
use std::sync::Arc;

/// A reactor's end: the newest configuration that it has not taken, for connections from then on. It looks before each one
/// that it accepts.
pub type Renewals = Receiver<Arc<ServerConfig>>;

/// The way to a reactor: one place, in which the newest configuration stands.
#[derive(Debug)]
struct Place {
    sender: Sender<Arc<ServerConfig>>,
    /// For taking out what is older.
    receiver: Renewals,
}

impl Place {
    fn put(&self, config: &Arc<ServerConfig>) {
        while let Err(TrySendError::Full(_)) = self.sender.try_send(Arc::clone(config)) {
            let _older = self.receiver.try_recv();
        }
    }
}

/// Loads the files again when told to, and hands the outcome to the reactors.
#[derive(Debug)]
pub struct Reloader {
    config: TlsConfig,
    reactors: Vec<Place>,
    registry: Registry,
}

/// What a node with TLS starts with.
#[derive(Debug)]
pub struct Start {
    /// For the control thread.
    pub reloader: Reloader,
    /// For the first connections.
    pub config: Arc<ServerConfig>,
    /// An end for each reactor.
    pub renewals: Vec<Renewals>,
}

impl Reloader {
    /// Loads the files for a start. `None`: there is no TLS. Under `--dev` a certificate is made if none is named.
    pub fn start(config: &Config, registry: &Registry) -> Result<Option<Start>, Failure> {
        let Some(tls) = config.tls.as_ref().filter(|_| config.roles.edge) else { return Ok(None) };
        let (mut tls, now_unix_s) = (tls.clone(), unix_ms() / 1000);
        if tls.certs.is_empty() {
            let made = dev::load_or_create(&config.node.data_dir, now_unix_s);
            tls.certs.push(made.map_err(|error| Failure::new(Exit::DataDir, error))?);
        }
        let loaded = tls.load(now_unix_s).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure::new(Exit::Config, lines.join("\n"))
        })?;
        let places = (0..config.reactors()).map(|_| bounded(1));
        let reactors = places.map(|(sender, receiver)| Place { sender, receiver });
        let reactors: Vec<Place> = reactors.collect();
        let renewals = reactors.iter().map(|reactor| reactor.receiver.clone()).collect();
        let reloader = Self { config: tls, reactors, registry: registry.clone() };
        reloader.show(&loaded, now_unix_s);
        Ok(Some(Start { reloader, config: loaded.config, renewals }))
    }

    /// Loads the files again, under the paths of the start.
    pub fn load(&self) -> Result<Loaded, Vec<TlsProblem>> {
        self.config.load(unix_ms() / 1000)
    }

    /// Has every reactor use what was loaded.
    pub fn take(&self, loaded: &Loaded) {
        self.show(loaded, unix_ms() / 1000);
        self.reactors.iter().for_each(|reactor| reactor.put(&loaded.config));
        tracing::info!(
            event = "tls_reloaded",
            certificates = loaded.certs.len(),
            "TLS files loaded again"
        );
        self.registry.tls().reloads.add(ReloadResult::Ok, 1);
    }

    /// The configuration or a file has problems, so nothing is used that was not before.
    pub fn note_problems(&self) {
        tracing::error!(
            event = "tls_reload_failed",
            "TLS files not loaded; the old ones stay in use"
        );
        self.registry.tls().reloads.add(ReloadResult::Failed, 1);
    }

    fn show(&self, loaded: &Loaded, now_unix_s: u64) {
        self.registry.tls().certificate_expires_s.set(loaded.expires_unix_s());
        for cert in &loaded.certs {
            let (names, days_left) = (cert.names.join(", "), cert.days_left(now_unix_s));
            if cert.expires_unix_s < now_unix_s + EXPIRES_SOON_S {
                tracing::warn!(
                    event = "certificate_expires",
                    names,
                    days_left,
                    "a TLS certificate is about to expire: renew it"
                );
            } else {
                tracing::info!(names, days_left, "TLS certificate");
            }
        }
        if self.config.ticket_secrets.is_none() {
            tracing::info!("tls.ticket_secrets is not set: clients resume on this process alone");
        }
    }
}
