//! Keys: from files, each bound to one algorithm.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::AuthError;
use super::token::Payload;

/// Bytes of an HS256 secret, at least (RFC 7518, section 3.2: as long as the hash).
const SECRET_BYTES_MIN: usize = 32;
/// Bytes of a key file, at most.
const KEY_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Keys of a JWKS file, at most; keys without a `kid` are tried one after another.
const JWKS_KEYS_MAX: usize = 256;

/// A signature algorithm (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alg {
    /// HMAC with SHA-256.
    Hs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// Ed25519.
    EdDsa,
}

impl Alg {
    pub(super) fn jwt(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Es256 => Algorithm::ES256,
            Self::Rs256 => Algorithm::RS256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

impl FromStr for Alg {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        match name {
            "HS256" => Ok(Self::Hs256),
            "ES256" => Ok(Self::Es256),
            "RS256" => Ok(Self::Rs256),
            "EdDSA" => Ok(Self::EdDsa),
            _ => Err(KeyError {
                cause: format!("{name:?} is not an algorithm that is taken"),
                fix: "use HS256, ES256, RS256 or EdDSA".to_owned(),
            }),
        }
    }
}

/// Why a key could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.fix)
    }
}

impl std::error::Error for KeyError {}

/// A key that verifies, its algorithm and its name.
#[derive(Clone)]
pub struct Key {
    kid: Option<String>,
    alg: Alg,
    key: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key {{ kid: {:?}, alg: {:?} }}", self.kid, self.alg)
    }
}

impl Key {
    /// A key of that algorithm from a file: a secret for HS256, a public key in PEM otherwise.
    pub fn load(path: &Path, alg: Alg, kid: Option<String>) -> Result<Self, KeyError> {
        let bytes = read(path)?;
        if alg == Alg::Hs256 {
            return Self::hs256(secret_of_file(&bytes), kid).map_err(|error| error.of(path));
        }
        let pem = match alg {
            Alg::Hs256 => unreachable!("returned above"),
            Alg::Es256 => DecodingKey::from_ec_pem(&bytes),
            Alg::Rs256 => DecodingKey::from_rsa_pem(&bytes),
            Alg::EdDsa => DecodingKey::from_ed_pem(&bytes),
        };
        let key = pem.map_err(|error| KeyError {
            cause: format!("{}: not a public key for {alg:?} in PEM: {error}", path.display()),
            fix: "extract it with: openssl pkey -in private.pem -pubout".to_owned(),
        })?;
        if String::from_utf8_lossy(&bytes).contains("PRIVATE KEY") {
            return Err(KeyError {
                cause: format!("{}: this is a private key", path.display()),
                fix: "a server needs only the public one: openssl pkey -in F -pubout".to_owned(),
            });
        }
        Ok(Self::new(kid, alg, key))
    }

    /// An HS256 key of a secret of [`SECRET_BYTES_MIN`] bytes or more.
    pub fn hs256(secret: &[u8], kid: Option<String>) -> Result<Self, KeyError> {
        check_secret(secret)?;
        Ok(Self::new(kid, Alg::Hs256, DecodingKey::from_secret(secret)))
    }

    /// The keys of a JSON Web Key Set that can sign tokens here. Others are passed over (RFC 7517, section 5).
    pub fn load_jwks(path: &Path) -> Result<Vec<Self>, KeyError> {
        let bytes = read(path)?;
        let set: JwkSet = serde_json::from_slice(&bytes).map_err(|error| KeyError {
            cause: format!("{}: not a JSON Web Key Set: {error}", path.display()),
            fix: "it looks like {\"keys\": [{\"kty\": ...}]}; see RFC 7517".to_owned(),
        })?;
        if set.keys.len() > JWKS_KEYS_MAX {
            return Err(KeyError {
                cause: format!("{}: more than {JWKS_KEYS_MAX} keys", path.display()),
                fix: "remove those that are no longer used".to_owned(),
            });
        }
        let mut keys = Vec::new();
        for jwk in set
            .keys
            .iter()
            .filter(|jwk| jwk.common.public_key_use != Some(PublicKeyUse::Encryption))
        {
            let Some(alg) = alg_of_jwk(jwk) else { continue };
            let kid = jwk.common.key_id.clone();
            let key = Self::from_jwk(jwk, alg).map_err(|error| KeyError {
                cause: format!(
                    "{}: key {:?}: {}",
                    path.display(),
                    kid.as_deref().unwrap_or(""),
                    error.cause
                ),
                fix: error.fix,
            })?;
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(KeyError {
                cause: format!("{}: no key for HS256, ES256, RS256 or EdDSA in it", path.display()),
                fix: "add the key that signs the tokens".to_owned(),
            });
        }
        Ok(keys)
    }

    fn from_jwk(jwk: &Jwk, alg: Alg) -> Result<Self, KeyError> {
        let kid = jwk.common.key_id.clone();
        let key = DecodingKey::from_jwk(jwk).map_err(|error| KeyError {
            cause: format!("not a key: {error}"),
            fix: "compare it with RFC 7518, section 6".to_owned(),
        })?;
        if alg == Alg::Hs256 {
            return Self::hs256(key.try_get_as_bytes().unwrap_or_default(), kid);
        }
        Ok(Self::new(kid, alg, key))
    }

    fn new(kid: Option<String>, alg: Alg, key: DecodingKey) -> Self {
        let mut validation = Validation::new(alg.jwt());
        // Only the signature: claims are judged by `Policy`, with the caller's clock.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self { kid, alg, key, validation }
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub(super) fn alg(&self) -> Alg {
        self.alg
    }

    /// The claims of a token that this key signed.
    pub(super) fn open(&self, token: &str) -> Result<Payload, AuthError> {
        use jsonwebtoken::errors::ErrorKind;
        match jsonwebtoken::decode::<Payload>(token, &self.key, &self.validation) {
            Ok(data) => Ok(data.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::Base64(_) | ErrorKind::InvalidToken => AuthError::Malformed,
                // Claims are read only below a right signature.
                ErrorKind::Json(_) | ErrorKind::Utf8(_) => AuthError::BadClaims,
                ErrorKind::InvalidAlgorithm => AuthError::WrongAlgorithm,
                _ => AuthError::BadSignature,
            }),
        }
    }
}

impl KeyError {
    pub(super) fn of(self, path: &Path) -> Self {
        Self { cause: format!("{}: {}", path.display(), self.cause), ..self }
    }
}

/// The algorithm of a key, from `alg` or from its type; `None` when Iris takes no tokens of it.
fn alg_of_jwk(jwk: &Jwk) -> Option<Alg> {
    let by_type = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => Alg::Hs256,
        AlgorithmParameters::RSA(_) => Alg::Rs256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Alg::Es256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Alg::EdDsa,
        _ => return None,
    };
    let by_name = match jwk.common.key_algorithm {
        None => by_type,
        Some(KeyAlgorithm::HS256) => Alg::Hs256,
        Some(KeyAlgorithm::ES256) => Alg::Es256,
        Some(KeyAlgorithm::RS256) => Alg::Rs256,
        Some(KeyAlgorithm::EdDSA) => Alg::EdDsa,
        Some(_) => return None,
    };
    (by_name == by_type).then_some(by_type)
}

/// The secret in a file's bytes: all of them but one trailing newline, which editors and `echo` add.
pub(super) fn secret_of_file(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\n").unwrap_or(bytes)
}

/// Refuses secrets that are short, and PEM files: a public key is no secret, and who has it could sign tokens.
pub(super) fn check_secret(secret: &[u8]) -> Result<(), KeyError> {
    if secret.starts_with(b"-----BEGIN") {
        return Err(KeyError {
            cause: "this is a key in PEM, not a secret".to_owned(),
            fix: "name its algorithm in alg: ES256, RS256 or EdDSA".to_owned(),
        });
    }
    if secret.len() < SECRET_BYTES_MIN {
        return Err(KeyError {
            cause: format!("a secret of {} bytes; it must have {SECRET_BYTES_MIN}", secret.len()),
            fix: "make one with: openssl rand -hex 32".to_owned(),
        });
    }
    Ok(())
}

/// A key file's bytes, bounded.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    use std::io::Read;
    let failed = |error: std::io::Error| KeyError {
        cause: format!("{}: failed to read the key: {error}", path.display()),
        fix: "name a file that this user may read".to_owned(),
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(KeyError {
            cause: format!("{}: larger than {KEY_FILE_BYTES_MAX} bytes", path.display()),
            fix: "name a file that holds a key and nothing else".to_owned(),
        });
    }
    Ok(bytes)
}
