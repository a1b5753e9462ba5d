//! Signs the tokens of the run's users: JWT (RFC 7519), HS256.

use anyhow::{Context, ensure};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tokens outlive the planned run by this: logging in and draining take time, too.
const SPARE: Duration = Duration::from_secs(6 * 3600);

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
}

/// Signs with one secret.
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
    issued_s: u64,
    expires_s: u64,
}

impl Signer {
    /// Reads the secret: the file's bytes less one trailing newline. Tokens last for `run` and some hours.
    pub fn load(path: &Path, run: Duration) -> anyhow::Result<Self> {
        let mut secret = std::fs::read(path).with_context(|| {
            format!(
                "cannot read the key {}: `iris serve --dev` writes one to DATA_DIR/dev.key, name it with --key",
                path.display()
            )
        })?;
        if secret.last() == Some(&b'\n') {
            secret.pop();
        }
        ensure!(!secret.is_empty(), "the key {} is empty", path.display());
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        Ok(Self {
            key: EncodingKey::from_secret(&secret),
            issued_s: now.as_secs(),
            expires_s: (now + run + SPARE).as_secs(),
        })
    }

    /// A token for this user.
    pub fn token(&self, user: &str) -> String {
        let claims = Claims { sub: user, iat: self.issued_s, exp: self.expires_s };
        encode(&Header::new(Algorithm::HS256), &claims, &self.key)
            .expect("an HMAC key of any length signs plain claims")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation, decode};

    #[test]
    fn a_token_verifies_with_the_file_less_its_newline() {
        let path = std::env::temp_dir().join(format!("iris-loadgen-key-{}", std::process::id()));
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        let signer = Signer::load(&path, Duration::from_secs(60)).unwrap();
        std::fs::remove_file(&path).unwrap();
        let key = DecodingKey::from_secret(b"0123456789abcdef0123456789abcdef");
        let token = signer.token("lg-000001-00000002");
        let claims: serde_json::Value =
            decode(&token, &key, &Validation::new(Algorithm::HS256)).unwrap().claims;
        assert_eq!(claims["sub"], "lg-000001-00000002");
    }

    #[test]
    fn a_missing_key_says_where_keys_come_from() {
        let error = Signer::load(Path::new("/nonexistent/key"), Duration::ZERO).err().unwrap();
        assert!(format!("{error:#}").contains("iris serve --dev"), "{error:#}");
    }
}
