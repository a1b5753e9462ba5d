//! Connections of the TLS port: between the socket's bytes and [`Reactor::received`], and before they are sent.
//!
//! What a connection keeps is its [`ServerStream`]; bytes are decrypted in the ring's buffer into a scratch of the
//! reactor, and encrypted from the frames of a turn into the buffer that is sent. A handshake goes on when its turn has
//! come (`proto/src/turnstile.rs`): until then its bytes stay in the kernel, so waiting costs 8 bytes.

use super::conn::Conn;
use super::lanes::Lanes;
use super::{Reactor, keep};
use crate::metrics::{CloseReason, TlsFailure};
use crate::tls::{CertificateUser, Renewals, UserRule};
use iris_proto::id::ConnId;
use iris_proto::turnstile::Turnstile;
use iris_proto::wire::{Code, kind};
use iris_tls::{Fault, ServerConfig, ServerStream};
use std::sync::Arc;

/// Room for what bytes say, kept from one receive to the next.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

/// What a reactor of a node with TLS is told.
#[derive(Debug)]
pub struct TlsParts {
    /// For the first connections.
    pub config: Arc<ServerConfig>,
    /// For later ones.
    pub renewals: Renewals,
    /// Whom a client's certificate logs in.
    pub client_user: Option<UserRule>,
    /// Steps of handshakes in one turn.
    pub handshakes_per_turn: usize,
    /// Handshakes that may wait.
    pub handshakes_waiting: usize,
}

/// What a reactor has for connections of the TLS port.
#[derive(Debug)]
pub(super) struct Tls {
    config: Arc<ServerConfig>,
    renewals: Renewals,
    client_user: Option<UserRule>,
    handshakes: Turnstile<ConnId>,
    /// What received bytes say.
    scratch: Vec<u8>,
}

impl Tls {
    pub(super) fn new(parts: TlsParts) -> Self {
        Self {
            config: parts.config,
            renewals: parts.renewals,
            client_user: parts.client_user,
            handshakes: Turnstile::new(parts.handshakes_per_turn, parts.handshakes_waiting),
            scratch: Vec::new(),
        }
    }

    /// Takes the newest configuration.
    pub(super) fn renew(&mut self) {
        if let Ok(config) = self.renewals.try_recv() {
            self.config = config;
        }
    }

    /// The stream of a connection that was accepted just now.
    pub(super) fn accept(&mut self) -> Box<ServerStream> {
        self.renew();
        let stream = ServerStream::accept(&self.config);
        Box::new(stream.expect("a configuration that was checked makes connections"))
    }
}

impl Conn {
    /// Whether it has to wait for its turn before it is read.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|stream| stream.is_handshaking())
    }
}

impl Reactor {
    /// A connection in a handshake has something to read.
    pub(super) fn wait_for_handshake(&mut self, id: ConnId) {
        let Some(tls) = &mut self.tls else { return };
        if tls.handshakes.arrive(id).is_err() {
            self.lose(id, CloseReason::HandshakesFull);
        }
    }

    /// Reads those whose turn has come. Whether there were any.
    pub(super) fn take_handshakes(&mut self, lanes: &mut Lanes) -> bool {
        let Some(tls) = &mut self.tls else { return false };
        tls.handshakes.begin_turn();
        let mut worked = false;
        loop {
            let Self { tls, conns, .. } = self;
            let Some(tls) = tls else { return worked };
            let goes_on = |id: &ConnId| conns.get_mut(*id).is_some_and(|conn| !conn.closing);
            let Some(id) = tls.handshakes.next(goes_on) else {
                self.metrics.tls_waiting.set(tls.handshakes.waiting() as u64);
                return worked;
            };
            worked = true;
            lanes.receive(self, id);
        }
    }

    /// Bytes of a client on the TLS port. What they say is taken like that of any other client.
    pub(super) fn received_sealed(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Self { tls, conns, pool, partial_bytes, .. } = self;
        let (Some(tls), Some(conn)) = (tls, conns.get_mut(id)) else { return };
        let Some(stream) = &mut conn.tls else { return };
        let mut plain = std::mem::take(&mut tls.scratch);
        plain.clear();
        let mut answer = pool.pop().unwrap_or_default();
        let (first, kept) = (bytes.first().copied(), stream.kept_bytes());
        let was_handshaking = stream.is_handshaking();
        let taken = stream.receive(bytes, &mut plain, &mut answer);
        *partial_bytes = *partial_bytes - kept + stream.kept_bytes();
        if answer.is_empty() {
            keep(pool, answer);
        } else {
            conn.out.get_or_insert_default().sealed.append(&mut answer);
            self.pool(answer);
            self.mark_dirty(id);
        }
        match taken {
            Ok(progress) => {
                if progress.opened {
                    self.opened(id);
                }
                if !plain.is_empty() {
                    self.take_bytes(id, &plain);
                }
                if progress.closed {
                    self.take_goodbye(id);
                }
                self.bound_kept(id);
            }
            Err(fault) => {
                let is_plain = kept == 0 && first == Some(kind::HELLO);
                self.break_off(id, &fault, was_handshaking, is_plain);
            }
        }
        if let Some(tls) = self.tls.as_mut().filter(|_| plain.capacity() <= SCRATCH_BYTES_MAX) {
            tls.scratch = plain;
        }
    }

    fn opened(&mut self, id: ConnId) {
        let accepted = self.conns.get_mut(id).and_then(|conn| conn.tls.as_ref()?.accepted());
        if let Some(accepted) = accepted {
            self.metrics.tls_handshakes.add(accepted.kind.into(), 1);
        }
    }

    /// The client said that nothing follows: it is told the same, and what waits for it is dropped with the connection.
    fn take_goodbye(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| !conn.closing) else { return };
        let out = conn.out.get_or_insert_default();
        out.drop_frames();
        if let Some(stream) = &mut conn.tls {
            stream.finish(&mut out.sealed);
        }
        conn.lingers = false;
        self.close(id, CloseReason::PeerClosed);
    }

    /// TLS cannot go on. The client is told by an alert, which waits in `sealed`.
    fn break_off(&mut self, id: ConnId, fault: &Fault, was_handshaking: bool, is_plain: bool) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| !conn.closing) else { return };
        tracing::debug!(peer = %conn.peer(), %fault, "TLS failed");
        if let Some(out) = &mut conn.out {
            out.drop_frames();
        }
        conn.lingers = false;
        if was_handshaking {
            let failure = if is_plain { TlsFailure::Plain } else { TlsFailure::from(fault) };
            self.metrics.tls_failures.add(failure, 1);
        }
        self.close(id, CloseReason::Tls);
    }

    /// Unfinished records share the room of unfinished frames.
    fn bound_kept(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| !conn.closing) else { return };
        let keeps = conn.tls.as_ref().is_some_and(|stream| stream.kept_bytes() > 0);
        if keeps && self.partial_bytes > self.partial_room(id) {
            self.fail_because(id, Code::Unavailable, CloseReason::Overloaded);
        }
    }

    /// Who the certificate of a connection logs in, if it shows one and certificates name users.
    pub(super) fn certificate_user(&mut self, id: ConnId) -> Option<CertificateUser> {
        let rule = self.tls.as_ref()?.client_user.as_ref()?;
        let stream = self.conns.get_mut(id)?.tls.as_ref()?;
        rule.user_of(stream.peer_certificate()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conn::Out;
    use iris_tls::client::{self, Trust};
    use iris_tls::pki_types::{PrivateKeyDer, ServerName};
    use iris_tls::server::{self, ClientAuth, Identity};
    use iris_tls::tickets::Secret;
    use iris_tls::{ClientStream, Group, ServerStream, Version};
    use rcgen::{CertificateParams, KeyPair};

    fn streams() -> (ClientStream, ServerStream) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let chain = vec![params.self_signed(&key).unwrap().der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let server = server::config(server::Settings {
            identities: vec![Identity::new(chain, key).unwrap()],
            versions: Version::ALL.to_vec(),
            groups: vec![Group::X25519],
            secrets: vec![Secret::random()],
            client_auth: ClientAuth::Off,
            client_ca: Vec::new(),
        });
        let client = client::config(client::Settings {
            trust: Trust::Anybody,
            versions: Version::ALL.to_vec(),
            tickets_max: 0,
            identity: None,
        });
        let name = ServerName::try_from("a.example").unwrap();
        let client = ClientStream::connect(&client.unwrap(), name).unwrap();
        (client, ServerStream::accept(&server.unwrap()).unwrap())
    }

    /// Sends all that waits, of which the kernel takes so many bytes at a time. What `meanwhile` is queues after the first
    /// of them.
    fn send(
        out: &mut Out,
        server: &mut ServerStream,
        piece: usize,
        mut meanwhile: Option<&[u8]>,
        is_last: bool,
    ) -> Vec<u8> {
        let mut wire = Vec::new();
        loop {
            out.seal(server, Vec::new, is_last).unwrap();
            assert_eq!(out.sealed.capacity(), 0, "nothing is held beside what is sent");
            let Some((buffer, start)) = out.next(Vec::new) else { return wire };
            if let Some(frame) = meanwhile.take() {
                out.frame(frame);
            }
            let end = buffer.len().min(start + piece);
            wire.extend_from_slice(&buffer[start..end]);
            out.sent(buffer, end - start);
        }
    }

    #[test]
    fn frames_follow_what_tls_says_and_the_goodbye_is_last_however_little_the_kernel_takes() {
        for piece in [1, 1000, 1 << 20] {
            let (mut client, mut server) = streams();
            let (mut up, mut heard, mut none) = (Vec::new(), Vec::new(), Vec::new());
            client.start(&mut up).unwrap();
            let mut out = Out::default();
            server.receive(&mut up, &mut none, &mut out.sealed).unwrap();
            // What is for a client that cannot read it yet is dropped, and nothing of TLS with it.
            out.frame(b"early");
            let mut wire = send(&mut out, &mut server, piece, None, false);
            up.clear();
            client.receive(&mut wire, &mut heard, &mut up).unwrap();
            assert!(client.is_open());
            // The ticket comes before the first frames.
            server.receive(&mut up, &mut none, &mut out.sealed).unwrap();
            out.frame(&[1; 50_000]);
            let mut wire = send(&mut out, &mut server, piece, Some(&[2; 100]), false);
            assert!(!client.receive(&mut wire, &mut heard, &mut none).unwrap().closed);
            out.frame(b"last");
            let mut wire = send(&mut out, &mut server, piece, None, true);
            assert!(client.receive(&mut wire, &mut heard, &mut none).unwrap().closed);
            assert!(heard == [&[1; 50_000][..], &[2; 100], b"last"].concat(), "{}", heard.len());
            assert!(none.is_empty());
        }
    }

    #[test]
    fn who_says_goodbye_gets_one_and_nothing_of_what_waited() {
        let (mut client, mut server) = streams();
        let (mut up, mut heard, mut none) = (Vec::new(), Vec::new(), Vec::new());
        let mut out = Out::default();
        client.start(&mut up).unwrap();
        while !up.is_empty() {
            server.receive(&mut up, &mut none, &mut out.sealed).unwrap();
            up.clear();
            let mut wire = send(&mut out, &mut server, 1 << 20, None, false);
            client.receive(&mut wire, &mut heard, &mut up).unwrap();
        }
        client.finish(&mut up);
        assert!(server.receive(&mut up, &mut none, &mut out.sealed).unwrap().closed);
        out.frame(b"waited");
        out.drop_frames();
        server.finish(&mut out.sealed);
        let mut wire = send(&mut out, &mut server, 1, None, true);
        assert!(client.receive(&mut wire, &mut heard, &mut none).unwrap().closed);
        assert!(heard.is_empty() && none.is_empty());
    }
}
