//! Tokens: as strangers send them, and signed with the right key and otherwise of any content.
//!
//! What is taken must be signed by a key that the verifier has, for that key's algorithm, with claims that another reader
//! of JSON reads the same way.

use std::sync::OnceLock;

use iris::auth::{Alg, Key, Policy, Verifier, is_user_name};
use iris::metrics::{CloseReason, Label};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::Value;

use crate::Input;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW_S: u64 = 1_750_000_000;
const LEEWAY_S: u64 = 30;

fn verifiers() -> &'static [Verifier; 2] {
    static VERIFIERS: OnceLock<[Verifier; 2]> = OnceLock::new();
    VERIFIERS.get_or_init(|| {
        let file = |name: &str, alg, kid: Option<&str>| {
            let path = format!("{}/../src/auth/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
            Key::load(path.as_ref(), alg, kid.map(str::to_owned)).expect("a key of the tests")
        };
        let secret = |kid: Option<&str>| Key::hs256(SECRET, kid.map(str::to_owned));
        let keys = vec![
            secret(None).expect("it is long enough"),
            secret(Some("k")).expect("it is long enough"),
            file("es256.pub.pem", Alg::Es256, None),
            file("eddsa.pub.pem", Alg::EdDsa, None),
            file("rs256.pub.pem", Alg::Rs256, Some("k")),
        ];
        let strict = Policy {
            leeway_s: LEEWAY_S,
            issuer: Some("i".to_owned()),
            audience: Some("a".to_owned()),
        };
        let lax = Policy { leeway_s: LEEWAY_S, ..Policy::default() };
        [Verifier::new(keys.clone(), lax), Verifier::new(keys, strict)]
    })
}

/// How the rest is to be read, and the rest.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let what = input.u8();
    let is_strict = what & 8 > 0;
    match what % 3 {
        0 => {
            let Ok(token) = std::str::from_utf8(input.rest()) else { return };
            check(token, is_strict);
        }
        1 => {
            let header = input.short();
            check(&signed(header, input.rest()), is_strict);
        }
        _ => {
            let header: &[u8] = match what & 16 {
                0 => br#"{"alg":"HS256"}"#,
                _ => br#"{"alg":"HS256","kid":"k","typ":"JWT"}"#,
            };
            check(&signed(header, input.rest()), is_strict);
        }
    }
}

/// A token of these parts, signed with HS256 whatever the header says.
fn signed(header: &[u8], payload: &[u8]) -> String {
    let body = format!("{}.{}", base64url(header), base64url(payload));
    format!("{body}.{}", signature(&body))
}

fn signature(body: &str) -> String {
    let key = EncodingKey::from_secret(SECRET);
    jsonwebtoken::crypto::sign(body.as_bytes(), &key, Algorithm::HS256).expect("HMAC takes bytes")
}

/// Base64url without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for digit in 0..=chunk.len() {
            text.push(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63].into());
        }
    }
    text
}

/// The bytes of base64url without padding; `None` for anything else.
fn unbase64url(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0;
        for byte in chunk {
            bits = bits << 6 | u32::from(digit(*byte)?);
        }
        bits <<= 6 * (4 - chunk.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len().max(1)]);
    }
    Some(bytes)
}

fn check(token: &str, is_strict: bool) {
    let claims = match verifiers()[usize::from(is_strict)].verify(token, NOW_S) {
        Ok(claims) => claims,
        Err(error) => {
            assert!((201..=207).contains(&(error.code() as u16)), "{error}");
            assert!(!CloseReason::from(error).name().is_empty());
            assert!(!error.to_string().contains(token) || token.len() < 8, "it tells the token");
            return;
        }
    };
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "{token}");
    let json = |part: &str| -> Value {
        let bytes = unbase64url(part).expect("it was decoded before");
        serde_json::from_slice(&bytes).expect("it was parsed before")
    };
    let (header, payload) = (json(parts[0]), json(parts[1]));
    let alg = header["alg"].as_str().expect("an algorithm is named");
    assert!(["HS256", "ES256", "EdDSA", "RS256"].contains(&alg), "{alg}");
    if alg == "HS256" {
        let body = format!("{}.{}", parts[0], parts[1]);
        assert_eq!(signature(&body), parts[2], "it is signed with the secret");
    }
    assert!(header["kid"].is_null() || header["kid"] == "k");
    assert!(header.get("crit").is_none_or(Value::is_null), "what is critical is not understood");
    assert_eq!(payload["sub"].as_str(), Some(claims.user.as_str()));
    assert!(is_user_name(&claims.user));
    let seconds = |value: &Value| value.as_u64().or_else(|| value.as_f64().map(|f| f as u64));
    let exp = seconds(&payload["exp"]).expect("exp is a number");
    assert_eq!(exp.saturating_add(LEEWAY_S), claims.expires_unix_s);
    assert!(claims.expires_unix_s > NOW_S, "it has expired");
    if let Some(nbf) = seconds(&payload["nbf"]) {
        assert!(nbf <= NOW_S + LEEWAY_S, "its time has not come");
    }
    if is_strict {
        assert_eq!(payload["iss"], "i");
        let aud = &payload["aud"];
        let is_listed = |list: &Vec<Value>| list.iter().any(|one| one == "a");
        assert!(aud == "a" || aud.as_array().is_some_and(is_listed), "{aud}");
    }
}
