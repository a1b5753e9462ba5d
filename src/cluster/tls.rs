//! TLS of one link: bytes of the socket in, bytes of the link out, and back.

use super::credentials::{ALPN, Credentials, is_certificate_of, server_name};
use rustls::{CertificateError, ClientConnection, Connection, ServerConnection};
use std::io::{BufRead, Write};
use std::sync::Arc;

/// Bytes that one record carries, and what it costs besides (RFC 8446, section 5: header, type and tag).
const RECORD_BYTES: usize = 16 << 10;
const RECORD_HEAD_BYTES: usize = 22;

/// One TLS connection.
pub(super) struct Tls {
    connection: Connection,
    /// Bytes that wait for [`Self::take_output`], about.
    waiting: usize,
}

impl Tls {
    /// The side that connects, to that node.
    pub(super) fn dial(
        credentials: &Credentials,
        cluster: &str,
        node: u32,
    ) -> Result<Self, rustls::Error> {
        let name = server_name(cluster, node);
        let connection = ClientConnection::new(Arc::clone(&credentials.client), name)?;
        Ok(Self::of(connection.into()))
    }

    /// The side that is connected to.
    pub(super) fn accept(credentials: &Credentials) -> Result<Self, rustls::Error> {
        let connection = ServerConnection::new(Arc::clone(&credentials.server))?;
        Ok(Self::of(connection.into()))
    }

    fn of(mut connection: Connection) -> Self {
        // What waits to be sent is bounded by the credit of the link.
        connection.set_buffer_limit(None);
        Self { connection, waiting: 0 }
    }

    /// Takes bytes of the socket in; what they say is appended to `plain`.
    pub(super) fn receive(
        &mut self,
        mut bytes: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            let general = |error: std::io::Error| rustls::Error::General(error.to_string());
            // After its goodbye nothing more of the other side is read.
            if self.connection.read_tls(&mut bytes).map_err(general)? == 0 {
                return Ok(());
            }
            let mut there = self.connection.process_new_packets()?.plaintext_bytes_to_read();
            let mut reader = self.connection.reader();
            while there > 0 {
                let chunk = reader.fill_buf().map_err(general)?;
                let len = chunk.len();
                plain.extend_from_slice(chunk);
                reader.consume(len);
                there -= len;
            }
        }
        Ok(())
    }

    /// Encrypts bytes of the link; before the handshake is over, they wait.
    pub(super) fn send(&mut self, plain: &[u8]) {
        let records = plain.len().div_ceil(RECORD_BYTES);
        self.waiting += plain.len() + records * RECORD_HEAD_BYTES;
        self.connection
            .writer()
            .write_all(plain)
            .expect("a buffer without a limit takes everything");
    }

    /// Says that nothing follows.
    pub(super) fn finish(&mut self) {
        self.connection.send_close_notify();
    }

    /// Bytes for the socket.
    pub(super) fn take_output(&mut self) -> Vec<u8> {
        if !self.connection.wants_write() {
            return Vec::new();
        }
        let mut out = Vec::with_capacity(std::mem::take(&mut self.waiting));
        while self.connection.wants_write() {
            self.connection.write_tls(&mut out).expect("a vector takes everything");
        }
        out
    }

    /// Whether the other side's certificate is that of the node, and it speaks the protocol of links.
    pub(super) fn check_peer(&self, cluster: &str, node: u32) -> Result<(), String> {
        if self.connection.alpn_protocol() != Some(ALPN) {
            return Err("the ALPN protocol is not iris-link".to_owned());
        }
        let chain = self.connection.peer_certificates().unwrap_or_default();
        let certificate = chain.first().ok_or("there is no certificate")?;
        is_certificate_of(certificate, cluster, node)
            .map_err(|_| format!("the certificate is not that of node {node}"))
    }
}

/// Why TLS failed, as a name that stays, and in words.
pub(super) fn explain(error: &rustls::Error) -> (&'static str, String) {
    use rustls::Error as E;
    let name = match error {
        E::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "certificate_issuer"
        }
        E::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "certificate_expired",
        E::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "certificate_name",
        E::InvalidCertificate(_) => "certificate_other",
        E::NoCertificatesPresented => "certificate_missing",
        E::AlertReceived(_) => "tls_alert",
        E::InvalidMessage(_) | E::PeerMisbehaved(_) | E::InappropriateMessage { .. } => {
            "tls_garbage"
        }
        _ => "tls_other",
    };
    (name, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::credentials::CredentialFiles;
    use super::super::pki;
    use super::*;
    use std::path::Path;
    use std::time::{Duration, UNIX_EPOCH};

    fn credentials(dir: &Path, cluster: &str, node: u32) -> Credentials {
        let now = UNIX_EPOCH + Duration::from_millis(crate::clock::unix_ms());
        if !dir.join("ca.pem").exists() {
            pki::init(dir, cluster, now).unwrap();
        }
        let (cert, key) = pki::issue(dir, node, 90, now).unwrap();
        let files = CredentialFiles { ca: dir.join("ca.pem"), cert, key };
        Credentials::load(&files, cluster, node).unwrap()
    }

    /// Lets both sides talk until one fails or nothing is left to say.
    fn talk(dialler: &mut Tls, acceptor: &mut Tls) -> Result<(Vec<u8>, Vec<u8>), rustls::Error> {
        let (mut to_dialler, mut to_acceptor) = (Vec::new(), Vec::new());
        loop {
            let (up, down) = (dialler.take_output(), acceptor.take_output());
            if up.is_empty() && down.is_empty() {
                return Ok((to_dialler, to_acceptor));
            }
            acceptor.receive(&up, &mut to_acceptor)?;
            dialler.receive(&down, &mut to_dialler)?;
        }
    }

    #[test]
    fn nodes_of_one_cluster_talk_and_know_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (credentials(dir.path(), "prod", 1), credentials(dir.path(), "prod", 2));
        let mut dialler = Tls::dial(&one, "prod", 2).unwrap();
        let mut acceptor = Tls::accept(&two).unwrap();
        dialler.send(b"hello");
        acceptor.send(&vec![7; 100_000]);
        let (down, up) = talk(&mut dialler, &mut acceptor).unwrap();
        assert_eq!((up.as_slice(), down.len()), (&b"hello"[..], 100_000));
        assert_eq!(dialler.check_peer("prod", 2), Ok(()));
        assert_eq!(acceptor.check_peer("prod", 1), Ok(()));
        assert!(acceptor.check_peer("prod", 2).is_err() && acceptor.check_peer("test", 1).is_err());
    }

    #[test]
    fn bytes_after_a_goodbye_are_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (credentials(dir.path(), "prod", 1), credentials(dir.path(), "prod", 2));
        let mut dialler = Tls::dial(&one, "prod", 2).unwrap();
        let mut acceptor = Tls::accept(&two).unwrap();
        talk(&mut dialler, &mut acceptor).unwrap();
        dialler.send(b"hello");
        dialler.finish();
        let mut bytes = dialler.take_output();
        bytes.extend_from_slice(b"more");
        let mut plain = Vec::new();
        acceptor.receive(&bytes, &mut plain).unwrap();
        acceptor.receive(b"and more", &mut plain).unwrap();
        assert_eq!(plain, b"hello");
    }

    #[test]
    fn strangers_are_refused_by_name() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = credentials(ours.path(), "prod", 1);
        let two = credentials(ours.path(), "prod", 2);
        let stranger = credentials(theirs.path(), "prod", 1);
        let name = |dialler: &Credentials, node, acceptor: &Credentials| {
            let mut dialler = Tls::dial(dialler, "prod", node).unwrap();
            let mut acceptor = Tls::accept(acceptor).unwrap();
            explain(&talk(&mut dialler, &mut acceptor).unwrap_err()).0
        };
        assert_eq!(name(&stranger, 2, &two), "certificate_issuer");
        assert_eq!(name(&one, 1, &stranger), "certificate_issuer");
        assert_eq!(name(&one, 3, &two), "certificate_name");
        let mut acceptor = Tls::accept(&two).unwrap();
        let error = acceptor.receive(b"GET / HTTP/1.1\r\n\r\n", &mut Vec::new()).unwrap_err();
        assert_eq!(explain(&error).0, "tls_garbage");
    }
}
