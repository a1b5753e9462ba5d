//! TLS of connections, below what the handler sees: records in and out, over buffers of the thread.

use super::{ConnIndex, Handler};
use anyhow::{Context, ensure};
use iris_tls::client::{Settings, Trust, config};
use iris_tls::pki_types::ServerName;
use iris_tls::{ClientConfig, ClientStream, Fault, Kind, Version};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// How connections are secured.
#[derive(Clone, Debug)]
pub struct TlsPlan {
    /// Whom to trust.
    pub trust: Trust,
    /// The name that the server's certificate must have.
    pub name: ServerName<'static>,
    /// Versions to speak.
    pub versions: Vec<Version>,
    /// Whether connections resume by tickets of earlier ones.
    pub resumes: bool,
}

/// The certificates of a PEM file.
pub fn read_ca(path: &Path) -> anyhow::Result<Trust> {
    use iris_tls::pki_types::CertificateDer;
    use iris_tls::pki_types::pem::PemObject;
    let what = || format!("{}: no certificates of a CA in PEM (--ca)", path.display());
    let pem = std::fs::read(path).with_context(what)?;
    let list: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().with_context(what)?;
    ensure!(!list.is_empty(), what());
    Ok(Trust::Ca(list))
}

/// Handshakes done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Handshakes {
    /// With certificates.
    pub full: u64,
    /// By tickets.
    pub resumed: u64,
}

/// What the connections of a thread share.
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// What received bytes say.
    plain: Vec<u8>,
    /// Handshakes done.
    pub handshakes: Handshakes,
}

impl Tls {
    /// For so many connections.
    pub fn new(plan: &TlsPlan, connections: u32) -> anyhow::Result<Self> {
        let settings = Settings {
            trust: plan.trust.clone(),
            versions: plan.versions.clone(),
            tickets_max: if plan.resumes { connections as usize } else { 0 },
            identity: None,
        };
        let config = config(settings).context("TLS cannot be set up")?;
        let (plain, handshakes) = (Vec::new(), Handshakes::default());
        Ok(Self { config, name: plan.name.clone(), plain, handshakes })
    }

    /// A connection that is about to be made.
    pub(super) fn connect(&self) -> anyhow::Result<Box<Sealed>> {
        let stream = ClientStream::connect(&self.config, self.name.clone())?;
        Ok(Box::new(Sealed { stream, answer: Vec::new() }))
    }

    /// Has the handler act on what bytes of the socket say. The handler sees the connection once it is open.
    pub(super) fn receive(
        &mut self,
        sealed: &mut Sealed,
        conn: ConnIndex,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) -> Result<(), String> {
        self.plain.clear();
        let taken = sealed.stream.receive(bytes, &mut self.plain, &mut sealed.answer);
        let progress = taken.map_err(|fault| reason(&fault))?;
        if progress.opened {
            match sealed.stream.accepted().map(|accepted| accepted.kind) {
                Some(Kind::Resumed) => self.handshakes.resumed += 1,
                _ => self.handshakes.full += 1,
            }
            handler.connected(conn, out);
        }
        if !self.plain.is_empty() {
            handler.received(conn, &self.plain, out)?;
        }
        if progress.closed { Err("closed_by_server".to_owned()) } else { Ok(()) }
    }
}

/// One connection.
pub(super) struct Sealed {
    stream: ClientStream,
    /// What TLS has to say.
    answer: Vec<u8>,
}

impl Sealed {
    /// The socket is connected: the first message.
    pub(super) fn start(&mut self) -> Result<(), String> {
        self.stream.start(&mut self.answer).map_err(|fault| reason(&fault))
    }

    /// Whether there is something to send, if this waits.
    pub(super) fn has_something(&self, pending: &[u8]) -> bool {
        !self.answer.is_empty() || (self.stream.is_open() && !pending.is_empty())
    }

    /// Appends what is to be sent to `sealed`. What cannot be sent yet stays in `pending`.
    pub(super) fn seal(
        &mut self,
        pending: &mut Vec<u8>,
        sealed: &mut Vec<u8>,
    ) -> Result<(), String> {
        sealed.append(&mut self.answer);
        // It comes about once or twice in the life of a connection.
        self.answer = Vec::new();
        if self.stream.is_open() && !pending.is_empty() {
            self.stream.seal(pending, sealed).map_err(|fault| reason(&fault))?;
            pending.clear();
        }
        Ok(())
    }
}

fn reason(fault: &Fault) -> String {
    format!("tls_{}", fault.cause().name())
}
