//! The payload of a token, and making one.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};

use super::AuthError;

/// The claims that are looked at, each as it came: what is missing or odd is judged claim by claim.
#[derive(Deserialize)]
pub(super) struct Payload {
    sub: Option<serde_json::Value>,
    exp: Option<serde_json::Value>,
    nbf: Option<serde_json::Value>,
    iss: Option<serde_json::Value>,
    aud: Option<serde_json::Value>,
    /// What nobody looks at must be JSON as well: the parser passes over a member that nobody takes without a look at its
    /// bytes, and other readers of the token would refuse it.
    #[serde(flatten)]
    _others: serde_json::Map<String, serde_json::Value>,
}

impl Payload {
    /// `exp` in whole seconds; required.
    pub(super) fn exp(&self) -> Result<u64, AuthError> {
        self.exp.as_ref().and_then(numeric_date).ok_or(AuthError::BadClaims)
    }

    /// `nbf` in whole seconds; may be missing.
    pub(super) fn nbf(&self) -> Result<Option<u64>, AuthError> {
        match &self.nbf {
            None => Ok(None),
            Some(value) => numeric_date(value).map(Some).ok_or(AuthError::BadClaims),
        }
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        self.iss.as_ref()?.as_str()
    }

    /// `aud` is one string or a list of them (RFC 7519, section 4.1.3).
    pub(super) fn has_audience(&self, wanted: &str) -> bool {
        match &self.aud {
            Some(serde_json::Value::Array(list)) => {
                list.iter().any(|aud| aud.as_str() == Some(wanted))
            }
            Some(one) => one.as_str() == Some(wanted),
            None => false,
        }
    }

    pub(super) fn into_subject(self) -> Result<String, AuthError> {
        match self.sub {
            Some(serde_json::Value::String(sub)) => Ok(sub),
            Some(_) | None => Err(AuthError::BadSubject),
        }
    }
}

/// Seconds of Unix time, fractions cut (RFC 7519, section 2); negative and infinite ones are none.
fn numeric_date(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0 && seconds.is_finite())?;
        Some(seconds as u64)
    })
}

#[derive(Serialize)]
struct NewClaims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
}

/// A token for `user`, signed with HS256, valid from `now_unix_s` for `ttl_s` seconds.
pub fn sign_hs256(
    secret: &[u8],
    kid: Option<&str>,
    user: &str,
    now_unix_s: u64,
    ttl_s: u64,
) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = kid.map(str::to_owned);
    let claims = NewClaims { sub: user, iat: now_unix_s, exp: now_unix_s.saturating_add(ttl_s) };
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret))
        .expect("HMAC takes a secret of any length and these claims are JSON")
}
