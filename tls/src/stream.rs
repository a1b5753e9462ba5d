//! One connection over the caller's buffers.
//!
//! Received bytes are decrypted where they lie; only the start of a record whose rest is missing is kept (while a
//! handshake goes on, also a message that spans records). What TLS itself has to say (its handshake, alerts, key
//! updates) and what is sealed are appended to the caller's vector. So a connection that waits is what rustls keeps of
//! it, and an empty vector.
//!
//! Contract: give every received byte to [`Stream::receive`], in order, and send everything that was appended to `out`,
//! in order. Once it is open, [`Stream::seal`] takes what is to be sent. After an error nothing more may be asked of it
//! than what `out` got with the error, an alert.

use crate::fault::Fault;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState, Error, HandshakeKind, ProtocolVersion, ServerConfig};
use std::sync::Arc;

/// Bytes that are kept of what is not whole, at most: the largest record of TLS 1.2 (RFC 5246, section 6.2.3: 2^14 + 2048)
/// with its header. A handshake message over several records may be as long.
pub const KEPT_BYTES_MAX: usize = 18_437;
/// Bytes that one record carries (RFC 8446, section 5.1).
const RECORD_BYTES: usize = 1 << 14;
/// What a record costs besides, at most: header, explicit nonce (TLS 1.2), type (TLS 1.3), tag.
const RECORD_COST_BYTES: usize = 5 + 8 + 1 + 16;

/// One side's connection of rustls: the two have the same methods and no trait in common.
pub trait Side {
    /// What rustls keeps for this side.
    type Data;
    /// Goes on with these bytes.
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
    /// What both sides have.
    fn common(&self) -> &CommonState;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// One TLS connection.
pub struct Stream<S> {
    connection: S,
    /// The start of a record whose rest has not come. rustls may know places in it, so it changes only by what rustls
    /// discards.
    kept: Vec<u8>,
    phase: Phase,
    has_said_goodbye: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Open,
    /// An error ended it.
    Over,
}

/// A connection that was accepted.
pub type ServerStream = Stream<UnbufferedServerConnection>;
/// A connection that was made.
pub type ClientStream = Stream<UnbufferedClientConnection>;

/// What received bytes changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The handshake is done: with these bytes, not before.
    pub opened: bool,
    /// The other side said that nothing follows (close_notify).
    pub closed: bool,
}

/// Which handshake it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With certificates.
    Full,
    /// By a ticket of an earlier connection.
    Resumed,
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Which handshake it was.
    pub kind: Kind,
    /// Whether it is TLS 1.3, or 1.2.
    pub is_tls13: bool,
}

impl ServerStream {
    /// The side that was connected to.
    pub fn accept(config: &Arc<ServerConfig>) -> Result<Self, Fault> {
        Ok(Self::of(UnbufferedServerConnection::new(Arc::clone(config))?))
    }
}

impl ClientStream {
    /// The side that connects. The first message is asked for by [`Self::start`].
    pub fn connect(config: &Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Fault> {
        Ok(Self::of(UnbufferedClientConnection::new(Arc::clone(config), name)?))
    }

    /// Appends the first message to `out`.
    pub fn start(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.receive(&mut [], &mut Vec::new(), out).map(drop)
    }
}

#[cfg(test)]
impl ClientStream {
    /// Changes the keys of its direction and asks the other side to do so, too (RFC 8446, section 4.6.3).
    pub(crate) fn change_keys(&mut self, out: &mut Vec<u8>) {
        let Ok(ConnectionState::WriteTraffic(traffic)) =
            self.connection.process(&mut self.kept).state
        else {
            panic!("an open connection that has said everything")
        };
        traffic.refresh_traffic_keys().unwrap();
        self.start(out).unwrap();
    }
}

impl<S: Side> Stream<S> {
    fn of(connection: S) -> Self {
        Self { connection, kept: Vec::new(), phase: Phase::Handshake, has_said_goodbye: false }
    }

    /// Takes bytes of the socket in, which are overwritten. What they say is appended to `plain`, what TLS answers to
    /// `out`.
    pub fn receive(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Progress, Fault> {
        if self.phase == Phase::Over {
            return Err(Fault::NotOpen);
        }
        let taken = self.take_all(bytes, plain, out);
        if taken.is_err() {
            self.phase = Phase::Over;
            self.kept = Vec::new();
        }
        taken
    }

    fn take_all(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Progress, Fault> {
        if self.kept.is_empty() {
            let (used, progress) = self.take(bytes, plain, out)?;
            self.kept = bytes[used..].to_vec();
            return if self.kept.len() > KEPT_BYTES_MAX {
                Err(Fault::TooLong)
            } else {
                Ok(progress)
            };
        }
        let mut kept = std::mem::take(&mut self.kept);
        kept.extend_from_slice(bytes);
        let (used, progress) = self.take(&mut kept, plain, out)?;
        if used < kept.len() {
            kept.drain(..used);
            self.kept = kept;
        }
        if self.kept.len() > KEPT_BYTES_MAX { Err(Fault::TooLong) } else { Ok(progress) }
    }

    /// All that can be done with these bytes. How many of them are used up.
    fn take(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Progress), Fault> {
        let (mut used, mut progress) = (0, Progress::default());
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process(&mut bytes[used..]);
            let is_done = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, out)?;
                    false
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    progress.closed = true;
                    false
                }
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => true,
                // Early data is off. What comes after the end is dropped.
                Ok(_) => {
                    used = bytes.len();
                    discard = 0;
                    true
                }
                Err(error) => {
                    self.take_alert(out);
                    return Err(error.into());
                }
            };
            used += discard;
            if is_done {
                break;
            }
        }
        if self.phase == Phase::Handshake && !self.connection.common().is_handshaking() {
            self.phase = Phase::Open;
            progress.opened = true;
        }
        if progress.closed {
            used = bytes.len();
        }
        Ok((used, progress))
    }

    /// The alert that tells the other side of an error.
    fn take_alert(&mut self, out: &mut Vec<u8>) {
        while self.connection.common().wants_write() {
            // Without bytes and with something to write, nothing is read: an error cannot repeat itself.
            match self.connection.process(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    if encode(data, out).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Encrypts `plain` into as few records as it fits, and appends them to `out`.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let records = plain.len().div_ceil(RECORD_BYTES).max(1);
        let room = plain.len() + records * RECORD_COST_BYTES;
        self.write(out, room, |traffic, room| traffic.encrypt(plain, room))
    }

    /// Says that nothing follows (close_notify), if it can be said and was not.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.is_open() && !std::mem::replace(&mut self.has_said_goodbye, true) {
            let room = 2 + RECORD_COST_BYTES;
            // What cannot be said is not missed: the end of the stream says it, too.
            let _ = self.write(out, room, |traffic, room| traffic.queue_close_notify(room));
        }
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        mut room: usize,
        mut fill: impl FnMut(&mut WriteTraffic<'_, S::Data>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), Fault> {
        if !self.is_open() {
            return Err(Fault::NotOpen);
        }
        loop {
            // The bytes that are kept are what rustls has not discarded: it must find them where they were.
            match self.connection.process(&mut self.kept).state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let start = out.len();
                    out.resize(start + room, 0);
                    let written = fill(&mut traffic, &mut out[start..]);
                    out.truncate(start + *written.as_ref().unwrap_or(&0));
                    match written {
                        Ok(_) => return Ok(()),
                        Err(EncryptError::InsufficientSize(InsufficientSizeError {
                            required_size,
                        })) if required_size > room => room = required_size,
                        Err(_) => return Err(Fault::NotOpen),
                    }
                }
                ConnectionState::EncodeTlsData(data) => encode(data, out)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => {}
                _ => return Err(Fault::NotOpen),
            }
        }
    }

    /// Whether the handshake is done, and nothing has ended the connection since.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the handshake goes on.
    pub fn is_handshaking(&self) -> bool {
        self.phase == Phase::Handshake
    }

    /// Bytes kept of what is not whole.
    pub fn kept_bytes(&self) -> usize {
        self.kept.len()
    }

    /// What both sides agreed on; `None` before the end of the handshake.
    pub fn accepted(&self) -> Option<Accepted> {
        let common = self.connection.common();
        let kind = match common.handshake_kind()? {
            HandshakeKind::Resumed => Kind::Resumed,
            HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest => Kind::Full,
        };
        let is_tls13 = common.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        self.is_open().then_some(Accepted { kind, is_tls13 })
    }

    /// The protocol that ALPN chose, if the client offered any.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.common().alpn_protocol()
    }

    /// The other side's own certificate, whose chain was verified; of a resumed connection that of the first.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.common().peer_certificates()?.first()
    }
}

/// Appends what rustls has to say.
fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let start = out.len();
    let mut encoded = data.encode(&mut []);
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = encoded {
        out.resize(start + required_size, 0);
        encoded = data.encode(&mut out[start..]);
    }
    match encoded {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::Tls(Error::General(error.to_string()))),
    }
}
