//! The secret that a controller and its workers share, and how each shows that it has it.
//!
//! Both sides give a number that was never used before; each signs both numbers and its own part in the talk (a JWT, RFC
//! 7519, HS256). So nothing that was heard once is of use again, and no answer can be sent back to who gave it. What is
//! said afterwards is neither hidden nor signed: between machines, use a network that you trust, or a tunnel.

use anyhow::{Context, ensure};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a secret, at least.
const SECRET_BYTES_MIN: usize = 16;

/// Which side shows that it has the secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Side {
    Controller,
    Worker,
}

/// The numbers of both sides.
#[derive(Clone, Copy, Debug)]
pub struct Nonces<'a> {
    pub controller: &'a str,
    pub worker: &'a str,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    side: Side,
    controller: String,
    worker: String,
}

/// The secret.
pub struct Secret {
    signs: EncodingKey,
    verifies: DecodingKey,
}

impl Secret {
    /// The file's bytes less one trailing newline.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let mut bytes = std::fs::read(path)
            .with_context(|| format!("cannot read --secret {}", path.display()))?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        ensure!(
            bytes.len() >= SECRET_BYTES_MIN,
            "--secret {}: {} bytes, at least {SECRET_BYTES_MIN}: make one with `openssl rand -hex 32`",
            path.display(),
            bytes.len(),
        );
        Ok(Self::new(&bytes))
    }

    fn new(bytes: &[u8]) -> Self {
        Self { signs: EncodingKey::from_secret(bytes), verifies: DecodingKey::from_secret(bytes) }
    }

    /// Shows that this side has it.
    pub fn proof(&self, side: Side, nonces: Nonces<'_>) -> String {
        let (controller, worker) = (nonces.controller.to_owned(), nonces.worker.to_owned());
        encode(&Header::new(Algorithm::HS256), &Claims { side, controller, worker }, &self.signs)
            .expect("an HMAC key of any length signs plain claims")
    }

    /// Whether the other side has it, too.
    pub fn is_proof(&self, proof: Option<&str>, side: Side, nonces: Nonces<'_>) -> bool {
        let mut how = Validation::new(Algorithm::HS256);
        // The numbers take the place of a time.
        (how.required_spec_claims, how.validate_exp) = (Default::default(), false);
        proof
            .and_then(|proof| decode::<Claims>(proof, &self.verifies, &how).ok())
            .map(|data| data.claims)
            .is_some_and(|claims| {
                claims.side == side
                    && claims.controller == nonces.controller
                    && claims.worker == nonces.worker
            })
    }
}

/// A number that was never used before: 128 random bits.
pub fn nonce() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    read.context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_the_same_side_and_the_same_numbers_are_a_proof() {
        let (ours, other) = (Secret::new(b"0123456789abcdef"), Secret::new(b"0123456789abcdeF"));
        let (a, b) = (nonce().unwrap(), nonce().unwrap());
        assert!(a != b && a.len() == 32);
        let nonces = Nonces { controller: &a, worker: &b };
        let proof = ours.proof(Side::Controller, nonces);
        assert!(ours.is_proof(Some(&proof), Side::Controller, nonces));
        assert!(!other.is_proof(Some(&proof), Side::Controller, nonces), "another secret");
        assert!(!ours.is_proof(Some(&proof), Side::Worker, nonces), "sent back");
        let later = Nonces { controller: &a, worker: &a };
        assert!(!ours.is_proof(Some(&proof), Side::Controller, later), "heard before");
        for bad in [None, Some(""), Some("a.b.c"), Some(&proof[1..])] {
            assert!(!ours.is_proof(bad, Side::Controller, nonces), "{bad:?}");
        }
    }

    #[test]
    fn a_file_that_is_no_secret_says_how_to_make_one() {
        let path = std::env::temp_dir().join(format!("iris-loadgen-secret-{}", std::process::id()));
        std::fs::write(&path, "short\n").unwrap();
        let error = format!("{:#}", Secret::load(&path).err().unwrap());
        assert!(error.contains("openssl rand"), "{error}");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        assert!(Secret::load(&path).is_ok());
        std::fs::remove_file(&path).unwrap();
        assert!(format!("{:#}", Secret::load(&path).err().unwrap()).contains("--secret"));
    }
}
