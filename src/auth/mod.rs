//! Decides whether a token lets its bearer log in, and as whom.
//!
//! A token is a JSON Web Token (RFC 7519) in compact form. Its header picks keys by `kid`; a key knows its one
//! algorithm, and a header that names another one is refused, so that a public key never serves as an HMAC secret
//! (RFC 8725, section 3.1). `sub` is the user. `exp` is required. The time is an argument.

mod dev_key;
mod key;
mod secret;
mod token;

pub(crate) use dev_key::load_secret;
pub use dev_key::{DEV_KEY_FILE, load_or_create_dev_key};
pub use key::{Alg, Key, KeyError};
pub use secret::Secret;
pub use token::sign_hs256;

use std::sync::Arc;

use iris_proto::limits::{TOKEN_BYTES_MAX, USER_BYTES_MAX};
use iris_proto::wire::Code;

use token::Payload;

/// Who a token speaks for, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The user: 1 to 128 bytes of UTF-8 without control characters.
    pub user: String,
    /// The first second, in Unix time, at which the token no longer counts: `exp` plus the leeway.
    pub expires_unix_s: u64,
}

/// Why a token was refused. Metrics count each by [`crate::metrics::CloseReason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    /// Not three parts of base64url with a JSON header of a known algorithm; `alg: none` is one of these.
    #[error("the token is malformed or names an unknown algorithm")]
    Malformed,
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// No key has the token's `kid`, or the token has none and every key has one.
    #[error("no key is known by the token's kid")]
    UnknownKey,
    /// Keys have that `kid`, but none is for the header's algorithm.
    #[error("the token's algorithm is not that of its key")]
    WrongAlgorithm,
    /// No key with that `kid` and algorithm made the signature.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// The signature is right, but a claim is missing or of the wrong type.
    #[error("a claim of the token is missing or of the wrong type")]
    BadClaims,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` lies ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `sub` is empty, too long or holds a control character.
    #[error("the token's sub is not a user's name")]
    BadSubject,
    /// `iss` is not the configured one.
    #[error("the token's iss is another")]
    WrongIssuer,
    /// `aud` does not hold the configured one.
    #[error("the token's aud is another")]
    WrongAudience,
}

impl AuthError {
    /// The code that the client is told. It is coarser: who guesses tokens learns less than who reads the metrics.
    pub fn code(self) -> Code {
        match self {
            Self::Malformed | Self::TooLong | Self::BadClaims => Code::TokenMalformed,
            Self::UnknownKey | Self::WrongAlgorithm => Code::TokenKeyUnknown,
            Self::WrongIssuer | Self::WrongAudience => Code::TokenKeyUnknown,
            Self::BadSignature => Code::TokenSignature,
            Self::Expired => Code::TokenExpired,
            Self::NotYetValid => Code::TokenNotYet,
            Self::BadSubject => Code::TokenSubject,
        }
    }
}

/// What a token must say besides being signed.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Seconds of clock difference granted to `exp` and `nbf`.
    pub leeway_s: u64,
    /// `iss` that must match, if set.
    pub issuer: Option<String>,
    /// `aud` that must be among the token's, if set.
    pub audience: Option<String>,
}

/// Verifies tokens. Clones share the keys; every reactor has one.
#[derive(Clone, Debug)]
pub struct Verifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Vec<Key>,
    policy: Policy,
}

impl Verifier {
    /// A verifier of these keys; without any it refuses every token.
    pub fn new(keys: Vec<Key>, policy: Policy) -> Self {
        Self(Arc::new(Inner { keys, policy }))
    }

    /// Number of keys.
    pub fn num_keys(&self) -> usize {
        self.0.keys.len()
    }

    /// Whose token this is, at the time `now_unix_s` (seconds of Unix time).
    ///
    /// Costs a few microseconds for HS256 and EdDSA to some tens for RS256 and ES256, per key of the same `kid` and
    /// algorithm.
    pub fn verify(&self, token: &str, now_unix_s: u64) -> Result<Claims, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Malformed)?;
        if header.crit.is_some() {
            // RFC 7515, section 4.1.11: what is critical must be understood, and no extension is.
            return Err(AuthError::Malformed);
        }
        let mut refusal = AuthError::UnknownKey;
        for key in self.0.keys.iter().filter(|key| key.kid() == header.kid.as_deref()) {
            if key.alg().jwt() != header.alg {
                refusal = worse(refusal, AuthError::WrongAlgorithm);
                continue;
            }
            match key.open(token) {
                Ok(payload) => return self.0.policy.check(payload, now_unix_s),
                Err(error) => refusal = worse(refusal, error),
            }
        }
        Err(refusal)
    }
}

/// Of two refusals the one that came further, so that the reason names the last step that failed.
fn worse(a: AuthError, b: AuthError) -> AuthError {
    let rank = |error| match error {
        AuthError::UnknownKey => 0,
        AuthError::WrongAlgorithm => 1,
        _ => 2,
    };
    if rank(b) >= rank(a) { b } else { a }
}

impl Policy {
    fn check(&self, payload: Payload, now_unix_s: u64) -> Result<Claims, AuthError> {
        let expires_unix_s = payload.exp()?.saturating_add(self.leeway_s);
        if now_unix_s >= expires_unix_s {
            return Err(AuthError::Expired);
        }
        if payload.nbf()?.is_some_and(|nbf| nbf > now_unix_s.saturating_add(self.leeway_s)) {
            return Err(AuthError::NotYetValid);
        }
        if self.issuer.as_ref().is_some_and(|issuer| payload.issuer() != Some(issuer)) {
            return Err(AuthError::WrongIssuer);
        }
        if self.audience.as_ref().is_some_and(|audience| !payload.has_audience(audience)) {
            return Err(AuthError::WrongAudience);
        }
        let user = payload.into_subject()?;
        if !is_user_name(&user) {
            return Err(AuthError::BadSubject);
        }
        Ok(Claims { user, expires_unix_s })
    }
}

/// Whether a name can be a user's: 1 to [`USER_BYTES_MAX`] bytes, no control characters.
pub fn is_user_name(name: &str) -> bool {
    (1..=USER_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
