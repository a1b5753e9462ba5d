//! Tickets that any node of a cluster can read: a client that loses its node resumes on another one.
//!
//! A ticket is what the server would otherwise keep of a session, encrypted (RFC 8446, section 4.6.1; RFC 5077). Its key
//! comes from a secret of the cluster and from the time, so nothing is shared but a file, and nothing is stored. Time is
//! divided into epochs of [`EPOCH_S`]; a ticket is made with the key of the present epoch and read in that one and the
//! next, so it is good for one epoch at least and two at most. A clock that is behind by less than an epoch reads tickets
//! of one that is ahead.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 4 | id of the secret: the start of what HKDF derives from it |
//! | 5 | 4 | epoch, big-endian |
//! | 9 | 12 | nonce, random |
//! | 21 | n + 16 | AES-256-GCM-SIV (RFC 8452) of the session; the first 9 bytes are authenticated, too |
//!
//! The key is HKDF-SHA-256 (RFC 5869) of secret, epoch, and what is asked of clients and verifies them: a ticket brings
//! the client's certificate back, or that there was none, without another look. So it must not outlive a change of the CA,
//! and not open where a certificate is required if it is from where none was. GCM-SIV stays safe when two of very many
//! random nonces are alike, which plain GCM does not.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::SHA256;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;
use std::fmt;
use std::sync::Arc;

/// Seconds of an epoch: how long a ticket is good for, at least.
pub const EPOCH_S: u32 = 6 * 3600;
/// Bytes of a secret.
pub const SECRET_BYTES: usize = 32;
/// Secrets that are read, at most; the first one makes tickets.
pub const SECRETS_MAX: usize = 8;
/// Bytes of a ticket, at most: what a client sends is decrypted before anything is known of it.
const TICKET_BYTES_MAX: usize = 16 << 10;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 9;
const NONCE_BYTES: usize = 12;

/// A secret of the cluster.
#[derive(Clone)]
pub struct Secret {
    prk: Prk,
    id: [u8; 4],
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

impl Secret {
    /// The secret of these bytes.
    pub fn new(bytes: &[u8; SECRET_BYTES]) -> Self {
        let prk = Salt::new(HKDF_SHA256, b"iris tls tickets 1").extract(bytes);
        let mut id = [0; 4];
        derive(&prk, &[b"id"], &mut id);
        Self { prk, id }
    }

    /// A secret that nobody else knows.
    pub fn random() -> Self {
        let mut bytes = [0; SECRET_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
        Self::new(&bytes)
    }

    /// The secrets of a file: a line of 64 hexadecimal digits each; empty lines and those that begin with # are passed
    /// over. An error names the line and never what is in it.
    pub fn parse_lines(text: &str) -> Result<Vec<Self>, String> {
        let mut secrets = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = hex(line).ok_or_else(|| {
                format!("line {} is not {} hexadecimal digits", index + 1, 2 * SECRET_BYTES)
            })?;
            secrets.push(Self::new(&bytes));
        }
        match secrets.len() {
            0 => Err("there is no secret in it".to_owned()),
            1..=SECRETS_MAX => Ok(secrets),
            count => Err(format!("{count} secrets; {SECRETS_MAX} at most")),
        }
    }

    fn key(&self, epoch: u32, context: &[u8]) -> Option<RandomizedNonceKey> {
        let mut key = [0; 32];
        derive(&self.prk, &[b"key", &epoch.to_be_bytes(), context], &mut key);
        RandomizedNonceKey::new(&AES_256_GCM_SIV, &key).ok()
    }
}

fn derive(prk: &Prk, info: &[&[u8]], out: &mut [u8]) {
    let len = out.len();
    let derived = prk.expand(info, Bytes(len)).and_then(|okm| okm.fill(out));
    derived.expect("HKDF gives 255 blocks at least");
}

fn hex(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut bytes = [0; SECRET_BYTES];
    if text.len() != 2 * SECRET_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Makes and reads tickets.
#[derive(Debug)]
pub struct Tickets {
    secrets: Vec<Secret>,
    context: [u8; 32],
    clock: Arc<dyn TimeProvider>,
}

impl Tickets {
    /// With these secrets, of which the first makes tickets and all read them. Tickets of another `context` are not read.
    pub fn new(secrets: Vec<Secret>, context: &[u8], clock: Arc<dyn TimeProvider>) -> Self {
        assert!(!secrets.is_empty(), "tickets need a secret");
        let digest = aws_lc_rs::digest::digest(&SHA256, context);
        let context = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
        Self { secrets, context, clock }
    }

    fn epoch(&self) -> Option<u32> {
        let now = self.clock.current_time()?.as_secs();
        u32::try_from(now / u64::from(EPOCH_S)).ok()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        EPOCH_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (secret, epoch) = (self.secrets.first()?, self.epoch()?);
        let mut head = [0; HEAD_BYTES];
        head[0] = VERSION;
        head[1..5].copy_from_slice(&secret.id);
        head[5..].copy_from_slice(&epoch.to_be_bytes());
        let mut sealed = plain.to_vec();
        let key = secret.key(epoch, &self.context)?;
        let nonce = key.seal_in_place_append_tag(Aad::from(head), &mut sealed).ok()?;
        let nonce: &[u8; NONCE_BYTES] = nonce.as_ref();
        let mut ticket = Vec::with_capacity(HEAD_BYTES + NONCE_BYTES + sealed.len());
        ticket.extend_from_slice(&head);
        ticket.extend_from_slice(nonce);
        ticket.append(&mut sealed);
        (ticket.len() <= TICKET_BYTES_MAX).then_some(ticket)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        if cipher.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (head, rest) = cipher.split_first_chunk::<HEAD_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let [VERSION, i0, i1, i2, i3, e0, e1, e2, e3] = *head else { return None };
        let epoch = u32::from_be_bytes([e0, e1, e2, e3]);
        let now = self.epoch()?;
        // Of the epoch before, of this one, or of a node whose clock is in the next one already.
        if !(now.saturating_sub(1)..=now.saturating_add(1)).contains(&epoch) {
            return None;
        }
        let secret = self.secrets.iter().find(|secret| secret.id == [i0, i1, i2, i3])?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let key = secret.key(epoch, &self.context)?;
        let len = key.open_in_place(nonce, Aad::from(*head), &mut plain).ok()?.len();
        plain.truncate(len);
        Some(plain)
    }
}
