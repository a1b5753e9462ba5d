use super::*;
use crate::clock::unix_ms;
use crate::config::{Host, Sources};
use crate::metrics::{Registry, ReloadResult};
use iris_tls::tickets::Secret;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use std::time::{Duration, UNIX_EPOCH};

const DAY_S: u64 = 86_400;

fn now_s() -> u64 {
    unix_ms() / 1000
}

/// A certificate of its own, valid between these days from now.
fn write_pair(dir: &Path, name: &str, (from_day, to_day): (i64, i64)) -> CertFiles {
    let day = |day: i64| {
        let at = now_s().saturating_add_signed(day * DAY_S as i64);
        (UNIX_EPOCH + Duration::from_secs(at)).into()
    };
    let mut params = CertificateParams::new(vec![format!("{name}.example")]).unwrap();
    (params.not_before, params.not_after) = (day(from_day), day(to_day));
    let key = KeyPair::generate().unwrap();
    let files = CertFiles {
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}-key.pem")),
    };
    std::fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

fn tls(certs: Vec<CertFiles>) -> TlsConfig {
    TlsConfig {
        certs,
        versions: Version::ALL.to_vec(),
        groups: vec![Group::X25519],
        ticket_secrets: None,
        own_secret: Secret::random(),
        client_auth: ClientAuth::Off,
        client_ca: None,
        client_user: None,
        handshakes_per_turn: 4,
        handshakes_waiting: 16,
    }
}

/// Key and cause of each problem.
fn problems(config: &TlsConfig) -> Vec<(&'static str, String)> {
    let found = config.load(now_s()).unwrap_err();
    assert!(found.iter().all(|problem| !problem.fix.is_empty()));
    found.into_iter().map(|problem| (problem.key, problem.cause)).collect()
}

#[test]
fn all_that_is_wrong_with_the_files_is_said_at_once() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let good = write_pair(dir, "good", (-1, 10));
    let other = write_pair(dir, "other", (-1, 30));
    let loaded = tls(vec![good.clone(), other.clone()]).load(now_s()).unwrap();
    assert_eq!(loaded.certs[0].names, ["good.example"]);
    // Some time passes while the test runs.
    assert!((29..=30).contains(&loaded.certs[1].days_left(now_s())));
    assert_eq!(loaded.expires_unix_s(), loaded.certs[0].expires_unix_s);
    let rubbish = dir.join("rubbish");
    std::fs::write(&rubbish, "rubbish").unwrap();
    let mut bad = tls(vec![
        CertFiles { key: other.key, ..good.clone() },
        write_pair(dir, "old", (-20, -3)),
        write_pair(dir, "young", (2, 30)),
        CertFiles { cert: rubbish.clone(), ..good.clone() },
        CertFiles { key: dir.join("none"), ..good },
    ]);
    bad.ticket_secrets = Some(rubbish.clone());
    bad.client_auth = ClientAuth::Required;
    bad.client_ca = Some(rubbish);
    let found = problems(&bad);
    for (place, (key, cause)) in [
        ("certs", "does not fit"),
        ("certs", "expired 3 days ago"),
        ("certs", "valid in 2 days only"),
        ("certs", "no certificate in it"),
        ("certs", "failed to read"),
        ("ticket_secrets", "line 1 is not 64 hexadecimal digits"),
        ("client_ca", "no certificate in it"),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(found[place].0 == key && found[place].1.contains(cause), "{place}: {found:?}");
    }
    assert_eq!(found.len(), 7);
}

#[test]
fn a_certificate_names_a_user_by_the_field_and_prefix_of_the_rule() {
    let mut params = CertificateParams::new(vec!["alice.users.example".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "alice");
    for uri in ["spiffe://example/web", "iris:user/al\u{69}ce", "iris:user/bob"] {
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    }
    params.subject_alt_names.push(SanType::Rfc822Name("alice@example".try_into().unwrap()));
    let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
    let name = |field, prefix: &str| {
        UserRule { field, prefix: prefix.to_owned() }.user_of(&der).map(|user| user.name)
    };
    assert_eq!(name(UserField::CommonName, "").as_deref(), Some("alice"));
    assert_eq!(name(UserField::Dns, "").as_deref(), Some("alice.users.example"));
    assert_eq!(name(UserField::Uri, "iris:user/").as_deref(), Some("alice"));
    assert_eq!(name(UserField::Email, "").as_deref(), Some("alice@example"));
    assert_eq!(name(UserField::Email, "bob"), None);
    assert_eq!(name(UserField::CommonName, "alice"), None, "nothing is left of it");
    assert_eq!(UserRule { field: UserField::Dns, prefix: String::new() }.user_of(b"no"), None);
}

/// A node that listens for TLS, with more keys of `[tls]`.
fn node(dir: &Path, more: &str) -> crate::config::Config {
    let file = dir.join("iris.toml");
    let data = dir.join("data");
    let text = format!(
        "[node]\ndata_dir = {data:?}\n[listen]\ntls = \"127.0.0.1:0\"\n[reactor]\ncount = 2\n[tls]\n{more}"
    );
    std::fs::write(&file, text).unwrap();
    let sources = Sources { file: Some(file), dev: true, env: Vec::new(), flags: Vec::new() };
    let host = Host { cpus: 2, name: "host".to_owned(), nofile_hard: 1000, credentials: None };
    crate::config::load(&sources, &host).unwrap().0
}

#[test]
fn under_dev_a_certificate_is_made_once_and_again_when_it_has_run_out() {
    let home = tempfile::tempdir().unwrap();
    let config = node(home.path(), "");
    let registry = Registry::new(2, 1, 10);
    let start = || Reloader::start(&config, &registry).unwrap().unwrap().reloader;
    let key = config.node.data_dir.join("dev-key.pem");
    drop(start());
    let first = std::fs::read(&key).unwrap();
    drop(start());
    assert_eq!(std::fs::read(&key).unwrap(), first);
    let old = write_pair(home.path(), "old", (-20, -3));
    std::fs::copy(&old.cert, config.node.data_dir.join("dev-cert.pem")).unwrap();
    std::fs::copy(&old.key, &key).unwrap();
    drop(start());
    assert_ne!(std::fs::read(&key).unwrap(), first);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(registry.tls().certificate_expires_s.value() > now_s() + 300 * DAY_S);
}

#[test]
fn each_reactor_gets_what_was_loaded_again_and_nothing_of_bad_files() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let files = write_pair(dir, "a", (-1, 10));
    let config = node(dir, "certs = [{ cert = \"a.pem\", key = \"a-key.pem\" }]\n");
    let registry = Registry::new(2, 1, 10);
    let start = Reloader::start(&config, &registry).unwrap().unwrap();
    let Start { reloader, config: first, renewals } = start;
    assert_eq!(renewals.len(), 2);
    let before = registry.tls().certificate_expires_s.value();
    let reload = || match reloader.load() {
        Ok(loaded) => reloader.take(&loaded),
        Err(_) => reloader.note_problems(),
    };
    std::fs::write(&files.key, "rubbish").unwrap();
    reload();
    assert!(renewals.iter().all(|reactor| reactor.try_recv().is_err()));
    write_pair(dir, "a", (-1, 20));
    reload();
    for reactor in &renewals {
        assert!(!Arc::ptr_eq(&reactor.try_recv().unwrap(), &first));
    }
    let reloads = &registry.tls().reloads;
    assert_eq!(
        (reloads.at(ReloadResult::Ok).value(), reloads.at(ReloadResult::Failed).value()),
        (1, 1)
    );
    assert!(registry.tls().certificate_expires_s.value() >= before + 10 * DAY_S);
    // However often files are loaded before a thread looks, it finds the last ones, and nothing piles up.
    (0..9).for_each(|_| reload());
    let last = reloader.load().unwrap();
    reloader.take(&last);
    for reactor in &renewals {
        let waiting: Vec<_> = reactor.try_iter().collect();
        assert!(waiting.len() == 1 && Arc::ptr_eq(&waiting[0], &last.config));
    }
    assert_eq!(reloads.at(ReloadResult::Failed).value(), 1, "none of those failed");
}
