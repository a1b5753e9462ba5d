use std::path::PathBuf;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::*;

/// The time at which the tokens of `testdata` are valid.
const NOW: u64 = 1_950_000_000;
const SECRET: &[u8] = b"a secret of more than thirty-two bytes";

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/auth/testdata").join(name)
}

fn token(name: &str) -> String {
    std::fs::read_to_string(testdata(name)).unwrap().trim().to_owned()
}

fn public(name: &str, alg: Alg) -> Key {
    Key::load(&testdata(name), alg, None).unwrap()
}

fn all_public_keys() -> Vec<Key> {
    vec![
        public("es256.pub.pem", Alg::Es256),
        public("rs256.pub.pem", Alg::Rs256),
        public("eddsa.pub.pem", Alg::EdDsa),
    ]
}

fn verifier(keys: Vec<Key>) -> Verifier {
    Verifier::new(keys, Policy::default())
}

fn hs256() -> Verifier {
    verifier(vec![Key::hs256(SECRET, None).unwrap()])
}

/// A token of any header and claims, signed with HS256 of `secret`.
fn sign(header: &Header, claims: &serde_json::Value, secret: &[u8]) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret)).unwrap()
}

fn sign_claims(claims: &serde_json::Value) -> String {
    sign(&Header::new(Algorithm::HS256), claims, SECRET)
}

#[test]
fn each_algorithm_verifies_its_own_token_from_pem_and_from_jwks() {
    let pem = verifier(all_public_keys());
    let jwks = verifier(Key::load_jwks(&testdata("jwks.json")).unwrap());
    assert_eq!(jwks.num_keys(), 3, "keys of other curves and for encryption are passed over");
    let alice = Claims { user: "alice".to_owned(), expires_unix_s: 2_000_000_000 };
    for alg in ["es256", "rs256", "eddsa"] {
        assert_eq!(pem.verify(&token(&format!("{alg}.jwt")), NOW), Ok(alice.clone()), "{alg}");
        let with_kid = token(&format!("{alg}.kid.jwt"));
        assert_eq!(jwks.verify(&with_kid, NOW), Ok(alice.clone()), "{alg}");
        assert_eq!(pem.verify(&with_kid, NOW), Err(AuthError::UnknownKey), "{alg}");
    }
}

#[test]
fn what_sign_hs256_signs_verifies() {
    let token = sign_hs256(SECRET, None, "bob", NOW, 60);
    let claims = hs256().verify(&token, NOW + 59).unwrap();
    assert_eq!(claims, Claims { user: "bob".to_owned(), expires_unix_s: NOW + 60 });
}

/// RFC 8725, section 2.1: a public key is public; used as an HMAC secret, anybody could sign.
#[test]
fn a_public_key_never_verifies_an_hmac_of_itself() {
    for name in ["es256.pub.pem", "rs256.pub.pem", "eddsa.pub.pem"] {
        let pem = std::fs::read(testdata(name)).unwrap();
        let forged = sign_hs256(&pem, None, "mallory", NOW, 60);
        let refused = verifier(all_public_keys()).verify(&forged, NOW);
        assert_eq!(refused, Err(AuthError::WrongAlgorithm), "{name}");
        // Nor does the configuration take a public key for a secret.
        assert!(Key::load(&testdata(name), Alg::Hs256, None).is_err(), "{name}");
        assert!(Key::hs256(&pem, None).is_err(), "{name}");
    }
    // With an HS256 key beside them, the forged one is tried against that key alone.
    let mut keys = all_public_keys();
    keys.push(Key::hs256(SECRET, None).unwrap());
    let pem = std::fs::read(testdata("rs256.pub.pem")).unwrap();
    let forged = sign_hs256(&pem, None, "mallory", NOW, 60);
    assert_eq!(verifier(keys).verify(&forged, NOW), Err(AuthError::BadSignature));
}

#[test]
fn alg_none_is_refused_however_it_is_spelled() {
    // {"alg":"none"}, {"alg":"None"}, {"typ":"JWT"} without alg; claims of alice, no signature.
    let claims = token("es256.jwt").split('.').nth(1).unwrap().to_owned();
    for header in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIn0", "eyJ0eXAiOiJKV1QifQ"] {
        for signature in ["", "AAAA"] {
            let unsigned = format!("{header}.{claims}.{signature}");
            assert_eq!(hs256().verify(&unsigned, NOW), Err(AuthError::Malformed), "{unsigned}");
        }
    }
}

#[test]
fn a_changed_token_never_verifies() {
    let keys = verifier({
        let mut keys = all_public_keys();
        keys.push(Key::hs256(SECRET, None).unwrap());
        keys
    });
    let tokens =
        [token("es256.jwt"), token("eddsa.jwt"), sign_hs256(SECRET, None, "alice", NOW, 60)];
    for token in tokens {
        assert!(keys.verify(&token, NOW).is_ok());
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(keys.verify(&changed, NOW).is_err(), "byte {at} of {token}");
            assert!(keys.verify(&token[..at], NOW).is_err(), "{at} bytes of {token}");
        }
    }
}

#[test]
fn garbage_is_malformed_and_the_length_is_checked_first() {
    for garbage in ["", ".", "..", "a.b.c", "....", "\u{0}", "ä.ö.ü", "eyJhbGciOiJIUzI1NiJ9"] {
        assert_eq!(hs256().verify(garbage, NOW), Err(AuthError::Malformed), "{garbage:?}");
    }
    let long = "a".repeat(TOKEN_BYTES_MAX + 1);
    assert_eq!(hs256().verify(&long, NOW), Err(AuthError::TooLong));
}

#[test]
fn expiry_is_that_of_the_callers_clock_and_exact() {
    let claims = |leeway_s, now| {
        let key = Key::hs256(SECRET, None).unwrap();
        let policy = Policy { leeway_s, ..Policy::default() };
        let token = sign_claims(&json!({ "sub": "a", "exp": NOW, "nbf": NOW - 100 }));
        Verifier::new(vec![key], policy).verify(&token, now)
    };
    assert!(claims(0, NOW - 1).is_ok());
    assert_eq!(claims(0, NOW), Err(AuthError::Expired));
    assert!(claims(0, NOW - 100).is_ok());
    assert_eq!(claims(0, NOW - 101), Err(AuthError::NotYetValid));
    assert_eq!(claims(10, NOW + 9).unwrap().expires_unix_s, NOW + 10);
    assert_eq!(claims(10, NOW + 10), Err(AuthError::Expired));
    assert!(claims(10, NOW - 110).is_ok());
    assert_eq!(claims(10, NOW - 111), Err(AuthError::NotYetValid));
}

#[test]
fn claims_of_odd_types_are_refused_and_never_overflow() {
    let verify = |claims: serde_json::Value| hs256().verify(&sign_claims(&claims), NOW);
    let later = NOW + 10;
    for exp in [json!(null), json!("x"), json!(-5), json!([later]), json!(true)] {
        assert_eq!(verify(json!({ "sub": "a", "exp": exp })), Err(AuthError::BadClaims), "{exp}");
    }
    assert_eq!(verify(json!({ "sub": "a" })), Err(AuthError::BadClaims));
    assert_eq!(verify(json!(["a"])), Err(AuthError::BadClaims));
    assert_eq!(
        verify(json!({ "sub": "a", "exp": later, "nbf": "now" })),
        Err(AuthError::BadClaims)
    );
    assert_eq!(verify(json!({ "sub": "a", "exp": 1e300 })).unwrap().expires_unix_s, u64::MAX);
    let fraction = later as f64 + 0.9;
    assert_eq!(verify(json!({ "sub": "a", "exp": fraction })).unwrap().expires_unix_s, later);
}

#[test]
fn the_subject_must_be_a_users_name() {
    let verify = |sub: serde_json::Value| {
        hs256().verify(&sign_claims(&json!({ "sub": sub, "exp": NOW + 10 })), NOW)
    };
    let longest = "ü".repeat(USER_BYTES_MAX / 2);
    assert_eq!(verify(json!(longest)).unwrap().user, longest);
    let too_long = format!("{longest}x");
    for sub in [json!(""), json!(too_long), json!("a\nb"), json!("\u{7f}"), json!(7), json!(null)] {
        assert_eq!(verify(sub.clone()), Err(AuthError::BadSubject), "{sub}");
    }
}

#[test]
fn the_kid_picks_the_key_and_keys_without_one_serve_tokens_without() {
    let other: &[u8] = b"another secret, also of thirty-two bytes";
    let keys = verifier(vec![
        Key::hs256(SECRET, Some("old".to_owned())).unwrap(),
        Key::hs256(other, Some("new".to_owned())).unwrap(),
    ]);
    let sign = |secret, kid| sign_hs256(secret, kid, "a", NOW, 60);
    assert!(keys.verify(&sign(SECRET, Some("old")), NOW).is_ok());
    assert!(keys.verify(&sign(other, Some("new")), NOW).is_ok());
    assert_eq!(keys.verify(&sign(SECRET, Some("new")), NOW), Err(AuthError::BadSignature));
    assert_eq!(keys.verify(&sign(SECRET, Some("x")), NOW), Err(AuthError::UnknownKey));
    assert_eq!(keys.verify(&sign(SECRET, None), NOW), Err(AuthError::UnknownKey));
    // Two keys without a name: both are tried, so that one can follow the other.
    let pair = verifier(vec![Key::hs256(SECRET, None).unwrap(), Key::hs256(other, None).unwrap()]);
    assert!(pair.verify(&sign(SECRET, None), NOW).is_ok());
    assert!(pair.verify(&sign(other, None), NOW).is_ok());
    assert_eq!(verifier(Vec::new()).verify(&sign(SECRET, None), NOW), Err(AuthError::UnknownKey));
}

#[test]
fn a_member_that_nobody_asks_for_must_be_json_as_well() {
    let verify = |payload: &str| {
        let body = format!("eyJhbGciOiJIUzI1NiJ9.{payload}");
        let key = EncodingKey::from_secret(SECRET);
        let signature =
            jsonwebtoken::crypto::sign(body.as_bytes(), &key, Algorithm::HS256).unwrap();
        hs256().verify(&format!("{body}.{signature}"), NOW).map(|claims| claims.user)
    };
    // Payloads are {"sub":"alice","exp":2000000000,"x":...}.
    assert_eq!(
        verify("eyJzdWIiOiJhbGljZSIsImV4cCI6MjAwMDAwMDAwMCwieCI6InkifQ").as_deref(),
        Ok("alice")
    );
    for (payload, x) in [
        ("eyJzdWIiOiJhbGljZSIsImV4cCI6MjAwMDAwMDAwMCwieCI6Iv8ifQ", "no UTF-8"),
        (
            "eyJzdWIiOiJhbGljZSIsImV4cCI6MjAwMDAwMDAwMCwieCI6Ilx1ZDgwMCJ9",
            "half of a surrogate pair",
        ),
        ("eyJzdWIiOiJhbGljZSIsImV4cCI6MjAwMDAwMDAwMCwieCI6MWU5OTl9", "a number beyond any"),
    ] {
        assert_eq!(verify(payload), Err(AuthError::BadClaims), "{x}");
    }
}

#[test]
fn a_critical_header_that_nobody_understands_is_refused() {
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["exp".to_owned()]);
    let token = sign(&header, &json!({ "sub": "a", "exp": NOW + 10 }), SECRET);
    assert_eq!(hs256().verify(&token, NOW), Err(AuthError::Malformed));
}

#[test]
fn issuer_and_audience_must_match_where_configured() {
    let verify = |claims: serde_json::Value| {
        let policy = Policy {
            leeway_s: 0,
            issuer: Some("https://id.example".to_owned()),
            audience: Some("iris".to_owned()),
        };
        let key = Key::hs256(SECRET, None).unwrap();
        Verifier::new(vec![key], policy).verify(&sign_claims(&claims), NOW)
    };
    let (iss, exp) = ("https://id.example", NOW + 10);
    assert!(verify(json!({ "sub": "a", "exp": exp, "iss": iss, "aud": "iris" })).is_ok());
    assert!(verify(json!({ "sub": "a", "exp": exp, "iss": iss, "aud": ["x", "iris"] })).is_ok());
    for iss in [json!("https://evil.example"), json!(null), json!([iss])] {
        let refused = verify(json!({ "sub": "a", "exp": exp, "iss": iss, "aud": "iris" }));
        assert_eq!(refused, Err(AuthError::WrongIssuer));
    }
    for aud in [json!("other"), json!([]), json!(null), json!({ "iris": 1 })] {
        let refused = verify(json!({ "sub": "a", "exp": exp, "iss": iss, "aud": aud }));
        assert_eq!(refused, Err(AuthError::WrongAudience));
    }
    // Without a configured audience, any is fine.
    assert!(
        hs256().verify(&sign_claims(&json!({ "sub": "a", "exp": exp, "aud": "x" })), NOW).is_ok()
    );
}

#[test]
fn key_files_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let cause = |path: &std::path::Path, alg| Key::load(path, alg, None).unwrap_err().to_string();
    assert!(cause(&dir.path().join("none"), Alg::Hs256).contains("failed to read"));
    assert!(cause(dir.path(), Alg::Hs256).contains("failed to read"));
    assert!(cause(&file("short", &[b'x'; 31]), Alg::Hs256).contains("31 bytes"));
    assert!(
        cause(&file("short-line", b"0123456789012345678901234567890\n"), Alg::Hs256).contains("31")
    );
    assert!(cause(&file("text", b"hello"), Alg::Es256).contains("not a public key"));
    assert!(cause(&testdata("rs256.pub.pem"), Alg::Es256).contains("not a public key"));
    assert!(cause(&testdata("eddsa.pub.pem"), Alg::Rs256).contains("not a public key"));
    assert!(cause(&file("big", &[0; 1024 * 1024 + 1]), Alg::Hs256).contains("larger"));
    let jwks = |content: &[u8]| Key::load_jwks(&file("jwks", content)).unwrap_err().to_string();
    assert!(jwks(b"{}").contains("not a JSON Web Key Set"));
    assert!(jwks(b"{\"keys\":[]}").contains("no key for"));
    assert!(jwks(b"{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}").contains("3 bytes"));
}

#[test]
fn one_trailing_newline_is_no_part_of_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    for (end, verifies) in [("", true), ("\n", true), ("\n\n", false)] {
        std::fs::write(&path, [SECRET, end.as_bytes()].concat()).unwrap();
        let keys = verifier(vec![Key::load(&path, Alg::Hs256, None).unwrap()]);
        let token = sign_hs256(SECRET, None, "a", NOW, 60);
        assert_eq!(keys.verify(&token, NOW).is_ok(), verifies, "{end:?}");
    }
}

#[test]
fn the_development_key_is_made_once_and_only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let first = load_or_create_dev_key(&data_dir).unwrap();
    assert_eq!(first.len(), 64);
    assert!(first.iter().all(u8::is_ascii_hexdigit));
    assert_eq!(load_or_create_dev_key(&data_dir).unwrap(), first);
    let path = data_dir.join(DEV_KEY_FILE);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = std::fs::read_dir(&data_dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(names, std::slice::from_ref(&path), "no draft is left");
    std::fs::write(&path, "short").unwrap();
    assert!(load_or_create_dev_key(&data_dir).unwrap_err().to_string().contains("5 bytes"));
}

#[test]
fn of_many_that_make_the_development_key_at_once_all_get_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path();
    let keys: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| load_or_create_dev_key(data_dir).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[test]
fn debug_output_shows_no_secret() {
    let shown = format!("{:?}", hs256());
    assert!(shown.contains("Hs256") && !shown.contains("secret of more"), "{shown}");
}
