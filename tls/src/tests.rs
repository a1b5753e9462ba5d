//! Both sides against each other in memory, over pipes that cut bytes as they like.

use crate::client::{self, Trust};
use crate::server::{self, ClientAuth, Identity, IdentityFault};
use crate::stream::{KEPT_BYTES_MAX, Side};
use crate::tickets::{EPOCH_S, Secret, Tickets};
use crate::{
    ALPN, Cause, ClientConfig, ClientStream, Fault, Group, Kind, ServerConfig, ServerStream,
    Stream, Version,
};
use proptest::prelude::{any, prop_oneof, proptest};
use proptest::strategy::{Just, Strategy};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A CA that signs certificates for tests.
struct Ca {
    params: CertificateParams,
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { params, key, certificate }
    }

    fn issue(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    fn identity(&self, name: &str) -> Identity {
        let (chain, key) = self.issue(name);
        Identity::new(chain, key).unwrap()
    }
}

fn server_settings(ca: &Ca, secret: u8) -> server::Settings {
    server::Settings {
        identities: vec![ca.identity("a.example")],
        versions: Version::ALL.to_vec(),
        groups: vec![Group::X25519, Group::P256],
        secrets: vec![Secret::new(&[secret; 32])],
        client_auth: ClientAuth::Off,
        client_ca: Vec::new(),
    }
}

fn client_settings(ca: &Ca, version: Version) -> client::Settings {
    client::Settings {
        trust: Trust::Ca(vec![ca.certificate.clone()]),
        versions: vec![version],
        tickets_max: 0,
        identity: None,
    }
}

/// Bytes under way to one side.
type Pipe = Vec<u8>;

/// One side with what it has heard.
struct End<S> {
    stream: Stream<S>,
    plain: Vec<u8>,
    out: Pipe,
    opened: u32,
    closed: bool,
}

impl<S: Side> End<S> {
    fn new(stream: Stream<S>) -> Self {
        Self { stream, plain: Vec::new(), out: Vec::new(), opened: 0, closed: false }
    }

    fn hear(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        let progress = self.stream.receive(bytes, &mut self.plain, &mut self.out)?;
        self.opened += u32::from(progress.opened);
        self.closed |= progress.closed;
        assert!(self.stream.kept_bytes() <= KEPT_BYTES_MAX);
        Ok(())
    }
}

type Pair = (
    End<rustls::client::UnbufferedClientConnection>,
    End<rustls::server::UnbufferedServerConnection>,
);

fn pair(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &str) -> Pair {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = End::new(ClientStream::connect(client, name).unwrap());
    client.stream.start(&mut client.out).unwrap();
    (client, End::new(ServerStream::accept(server).unwrap()))
}

/// Lets both sides talk until nothing is under way; `cut` says how many bytes come next.
fn talk((client, server): &mut Pair, mut cut: impl FnMut() -> usize) -> Result<(), Fault> {
    while !client.out.is_empty() || !server.out.is_empty() {
        let mut up = std::mem::take(&mut client.out);
        while !up.is_empty() {
            let mut rest = up.split_off(cut().clamp(1, up.len()));
            server.hear(&mut up)?;
            std::mem::swap(&mut up, &mut rest);
        }
        let mut down = std::mem::take(&mut server.out);
        while !down.is_empty() {
            let mut rest = down.split_off(cut().clamp(1, down.len()));
            client.hear(&mut down)?;
            std::mem::swap(&mut down, &mut rest);
        }
    }
    Ok(())
}

fn connect(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &str,
) -> Result<Pair, Fault> {
    let mut pair = pair(client, server, name);
    talk(&mut pair, || usize::MAX).map(|()| pair)
}

fn configs(version: Version) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let ca = Ca::new();
    let client = client::config(client_settings(&ca, version)).unwrap();
    (client, server::config(server_settings(&ca, 1)).unwrap())
}

fn kind(pair: &Pair) -> Kind {
    let (ours, theirs) = (pair.0.stream.accepted().unwrap(), pair.1.stream.accepted().unwrap());
    assert_eq!(ours, theirs);
    ours.kind
}

#[test]
fn both_versions_open_in_single_bytes_and_agree_on_the_protocol() {
    for version in Version::ALL {
        let (client, server) = configs(version);
        let mut pair = pair(&client, &server, "a.example");
        talk(&mut pair, || 1).unwrap();
        let (client, server) = &pair;
        assert_eq!((client.opened, server.opened), (1, 1));
        assert_eq!((client.stream.alpn(), server.stream.alpn()), (Some(ALPN), Some(ALPN)));
        assert_eq!(server.stream.accepted().unwrap().is_tls13, version == Version::Tls13);
        assert_eq!((client.stream.kept_bytes(), server.stream.kept_bytes()), (0, 0));
        assert!(server.stream.peer_certificate().is_none());
    }
}

#[test]
fn what_is_sealed_takes_as_few_records_as_it_fits() {
    for version in Version::ALL {
        let (client, server) = configs(version);
        let mut pair = connect(&client, &server, "a.example").unwrap();
        for (len, records) in [(1, 1), (16_384, 1), (16_385, 2), (100_000, 7)] {
            let mut sealed = vec![9];
            pair.1.stream.seal(&vec![7; len], &mut sealed).unwrap();
            let (mut count, mut rest) = (0, &sealed[1..]);
            while let [_, _, _, high, low, after @ ..] = rest {
                rest = &after[usize::from(*high) << 8 | usize::from(*low)..];
                count += 1;
            }
            assert_eq!(count, records, "{len}");
            pair.1.out.extend_from_slice(&sealed[1..]);
        }
        talk(&mut pair, || usize::MAX).unwrap();
        assert_eq!(pair.0.plain.len(), 1 + 16_384 + 16_385 + 100_000);
    }
}

#[test]
fn many_records_of_one_byte_come_in_one_read() {
    for version in Version::ALL {
        let (client, server) = configs(version);
        let mut pair = connect(&client, &server, "a.example").unwrap();
        for byte in 0..=255 {
            pair.0.stream.seal(&[byte], &mut pair.0.out).unwrap();
        }
        talk(&mut pair, || usize::MAX).unwrap();
        assert_eq!(pair.1.plain, (0..=255).collect::<Vec<u8>>());
    }
}

#[test]
fn a_goodbye_is_said_once_and_what_follows_it_is_dropped() {
    for version in Version::ALL {
        let (client, server) = configs(version);
        let mut pair = connect(&client, &server, "a.example").unwrap();
        pair.0.stream.seal(b"last", &mut pair.0.out).unwrap();
        pair.0.stream.finish(&mut pair.0.out);
        let len = pair.0.out.len();
        pair.0.stream.finish(&mut pair.0.out);
        assert_eq!(pair.0.out.len(), len);
        pair.0.out.extend_from_slice(b"and more");
        talk(&mut pair, || usize::MAX).unwrap();
        assert_eq!((pair.1.plain.as_slice(), pair.1.closed), (&b"last"[..], true));
        pair.1.stream.finish(&mut pair.1.out);
        talk(&mut pair, || usize::MAX).unwrap();
        assert!(pair.0.closed);
        pair.1.hear(&mut b"and still more".to_vec()).unwrap();
        assert_eq!(pair.1.stream.kept_bytes(), 0);
    }
}

#[test]
fn who_changes_keys_is_answered_with_the_next_word_and_may_not_do_nothing_else() {
    let (client, server) = configs(Version::Tls13);
    let mut pair = connect(&client, &server, "a.example").unwrap();
    for round in 0..20 {
        (0..32).for_each(|_| pair.0.stream.change_keys(&mut pair.0.out));
        pair.0.stream.seal(&[round], &mut pair.0.out).unwrap();
        talk(&mut pair, || if round < 10 { usize::MAX } else { 7 }).unwrap();
        // However many were asked for: one change, and only when there is something to say.
        assert!(pair.1.out.is_empty());
        if round % 2 == 1 {
            pair.1.stream.seal(&[round], &mut pair.1.out).unwrap();
            assert!(pair.1.out.len() < 64, "{}", pair.1.out.len());
            talk(&mut pair, || if round < 10 { usize::MAX } else { 7 }).unwrap();
        }
    }
    assert_eq!(pair.1.plain, (0..20).collect::<Vec<u8>>());
    assert_eq!(pair.0.plain, (0..20).filter(|round| round % 2 == 1).collect::<Vec<u8>>());
    (0..40).for_each(|_| pair.0.stream.change_keys(&mut pair.0.out));
    assert_eq!(talk(&mut pair, || usize::MAX).unwrap_err().cause(), Cause::Garbage);
}

#[test]
fn a_record_that_says_it_is_longer_than_any_is_refused_before_it_is_kept() {
    for version in Version::ALL {
        let (client, server) = configs(version);
        let mut pair = connect(&client, &server, "a.example").unwrap();
        let mut head = vec![23, 3, 3, 0xff, 0xff];
        let fault = pair.1.hear(&mut head).unwrap_err();
        assert_eq!(fault.cause(), Cause::Garbage, "{fault}");
        assert_eq!(pair.1.stream.kept_bytes(), 0);
        assert!(matches!(pair.1.hear(&mut [0; 8192]), Err(Fault::NotOpen)));
    }
}

#[test]
fn nothing_can_be_said_before_the_handshake_is_done() {
    let (client, server) = configs(Version::Tls13);
    let mut pair = pair(&client, &server, "a.example");
    let mut out = Vec::new();
    assert!(matches!(pair.1.stream.seal(b"x", &mut out), Err(Fault::NotOpen)));
    pair.1.stream.finish(&mut out);
    assert!(out.is_empty() && pair.1.stream.accepted().is_none());
}

#[test]
fn a_ticket_resumes_once_at_any_server_with_the_secret_and_at_no_other() {
    for version in Version::ALL {
        let ca = Ca::new();
        let settings = client::Settings { tickets_max: 9, ..client_settings(&ca, version) };
        let server = |secret| server::config(server_settings(&ca, secret)).unwrap();
        let client = client::config(settings).unwrap();
        assert_eq!(kind(&connect(&client, &server(1), "a.example").unwrap()), Kind::Full);
        assert_eq!(kind(&connect(&client, &server(1), "a.example").unwrap()), Kind::Resumed);
        assert_eq!(kind(&connect(&client, &server(2), "a.example").unwrap()), Kind::Full);
        // The other server has a new secret for tickets and still reads those of the old one.
        let mut both = server_settings(&ca, 3);
        both.secrets.push(Secret::new(&[2; 32]));
        let both = server::config(both).unwrap();
        assert_eq!(kind(&connect(&client, &both, "a.example").unwrap()), Kind::Resumed);
        assert_eq!(kind(&connect(&client, &server(3), "a.example").unwrap()), Kind::Resumed);
    }
}

#[test]
fn a_client_shows_its_certificate_and_shows_it_when_it_resumes_but_not_to_another_ca() {
    for version in Version::ALL {
        let (ca, clients, others) = (Ca::new(), Ca::new(), Ca::new());
        let server = |ca_of_clients: &Ca, client_auth| {
            let client_ca = vec![ca_of_clients.certificate.clone()];
            let settings = server::Settings { client_auth, client_ca, ..server_settings(&ca, 1) };
            server::config(settings).unwrap()
        };
        let (chain, key) = clients.issue("u1");
        let own = chain[0].clone();
        let settings = client::Settings {
            tickets_max: 9,
            identity: Some(client::Identity { chain, key }),
            ..client_settings(&ca, version)
        };
        let client = client::config(settings).unwrap();
        let known = server(&clients, ClientAuth::Required);
        for wanted in [Kind::Full, Kind::Resumed] {
            let pair = connect(&client, &known, "a.example").unwrap();
            assert_eq!(kind(&pair), wanted);
            assert_eq!(pair.1.stream.peer_certificate(), Some(&own));
        }
        let stranger = server(&others, ClientAuth::Optional);
        let fault = connect(&client, &stranger, "a.example").err().unwrap();
        assert_eq!(fault.cause(), Cause::Certificate);
        let nobody = client::config(client_settings(&ca, version)).unwrap();
        let fault = connect(&nobody, &known, "a.example").err().unwrap();
        assert_eq!(fault.cause(), Cause::CertificateMissing);
        // A ticket from where none was needed does not open where one is.
        let settings = client::Settings { tickets_max: 9, ..client_settings(&ca, version) };
        let nobody = client::config(settings).unwrap();
        let welcome = server(&clients, ClientAuth::Optional);
        for wanted in [Kind::Full, Kind::Resumed] {
            let pair = connect(&nobody, &welcome, "a.example").unwrap();
            assert_eq!(kind(&pair), wanted);
            assert!(pair.1.stream.peer_certificate().is_none());
        }
        let fault = connect(&nobody, &known, "a.example").err().unwrap();
        assert_eq!(fault.cause(), Cause::CertificateMissing);
    }
}

#[test]
fn the_name_asked_for_picks_the_certificate_and_others_get_the_first() {
    let ca = Ca::new();
    let mut settings = server_settings(&ca, 1);
    settings.identities.push(ca.identity("*.b.example"));
    let server = server::config(settings).unwrap();
    let client = client::config(client_settings(&ca, Version::Tls13)).unwrap();
    for name in ["a.example", "x.b.example"] {
        assert!(connect(&client, &server, name).is_ok(), "{name}");
    }
    assert!(connect(&client, &server, "c.example").is_err());
}

#[test]
fn keys_of_other_certificates_and_rubbish_are_told_apart() {
    let ca = Ca::new();
    let ((chain, _), (_, key)) = (ca.issue("a.example"), ca.issue("a.example"));
    let fault = |chain, key| Identity::new(chain, key).err();
    assert_eq!(fault(chain.clone(), key.clone_key()), Some(IdentityFault::Mismatch));
    let rubbish = PrivateKeyDer::Pkcs8(vec![1, 2, 3].into());
    assert_eq!(fault(chain, rubbish), Some(IdentityFault::Key));
    assert_eq!(fault(vec![vec![1].into()], key), Some(IdentityFault::Certificate));
}

#[test]
fn who_does_not_fit_gets_an_alert_and_a_cause() {
    let (_, server) = configs(Version::Tls13);
    let mut only_13 = server_settings(&Ca::new(), 1);
    only_13.versions = vec![Version::Tls13];
    let only_13 = server::config(only_13).unwrap();
    let ca = Ca::new();
    let old = client::config(client_settings(&ca, Version::Tls12)).unwrap();
    let mut refused = pair(&old, &only_13, "a.example");
    let fault = talk(&mut refused, || usize::MAX).unwrap_err();
    assert!(fault.cause() == Cause::Incompatible && fault.is_version(), "{fault}");
    assert_eq!(refused.1.out[0], 21, "an alert");
    let mut other = client::config(client_settings(&ca, Version::Tls13)).unwrap();
    Arc::get_mut(&mut other).unwrap().alpn_protocols = vec![b"h2".to_vec()];
    let fault = connect(&other, &server, "a.example").err().unwrap();
    assert_eq!(fault.cause(), Cause::Alpn);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[1; 64], &[22, 3, 1, 0xff, 0xff, 0], &[0; 9]] {
        let mut server = End::new(ServerStream::accept(&server).unwrap());
        let fault = server.hear(&mut garbage.to_vec()).unwrap_err();
        assert_eq!(fault.cause(), Cause::Garbage, "{garbage:?}: {fault}");
        assert_eq!(server.out[0], 21, "an alert");
    }
}

/// A clock that is set.
#[derive(Debug)]
struct SetClock(AtomicU64);

impl TimeProvider for SetClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

#[test]
fn a_ticket_is_good_for_one_epoch_at_least_and_two_at_most() {
    let epoch = u64::from(EPOCH_S);
    let clock = Arc::new(SetClock(AtomicU64::new(100 * epoch + epoch / 2)));
    let tickets = Tickets::new(vec![Secret::new(&[1; 32])], b"", Arc::clone(&clock) as _);
    let ticket = tickets.encrypt(b"session").unwrap();
    for (at, is_good) in [
        (98 * epoch, false),
        (99 * epoch, true),
        (100 * epoch, true),
        (102 * epoch - 1, true),
        (102 * epoch, false),
    ] {
        clock.0.store(at, Ordering::Relaxed);
        let plain = tickets.decrypt(&ticket);
        assert_eq!(plain.as_deref(), is_good.then_some(&b"session"[..]), "{at}");
    }
    let context = Tickets::new(vec![Secret::new(&[1; 32])], b"ca", Arc::clone(&clock) as _);
    clock.0.store(100 * epoch, Ordering::Relaxed);
    assert_eq!(context.decrypt(&ticket), None);
    assert_ne!(tickets.encrypt(b"session"), tickets.encrypt(b"session"));
}

#[test]
fn secrets_are_lines_of_hexadecimal_digits_and_errors_do_not_show_them() {
    let line = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";
    assert_eq!(Secret::parse_lines(&format!("# now\n{line}\n\n {line} \n")).unwrap().len(), 2);
    for (text, wanted) in [
        ("", "there is no secret"),
        ("# nothing", "there is no secret"),
        (&format!("{line}\n{}", &line[1..]), "line 2 is not 64"),
        (&line.replace('a', "\u{e4}"), "line 1 is not 64"),
        (&format!("{line}\n").repeat(9), "9 secrets; 8 at most"),
    ] {
        let error = Secret::parse_lines(text).unwrap_err();
        assert!(error.contains(wanted) && !error.contains("0123"), "{error}");
    }
}

/// How reads cut what is sent: tiny, about a record, or all there is.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    let cut = prop_oneof![1..8_usize, 1..20_000_usize, Just(8192), Just(usize::MAX)];
    proptest::collection::vec(cut, 1..24)
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn what_one_side_says_the_other_hears_however_it_is_cut(
        is_13 in any::<bool>(),
        cuts in cuts(),
        lens in proptest::collection::vec(prop_oneof![0..64_usize, 0..40_000_usize], 0..12),
        ups in proptest::collection::vec(any::<bool>(), 12),
    ) {
        let version = if is_13 { Version::Tls13 } else { Version::Tls12 };
        let (client, server) = configs(version);
        let mut next = cuts.iter().cycle().copied();
        let mut pair = pair(&client, &server, "a.example");
        talk(&mut pair, || next.next().unwrap_or(1)).unwrap();
        let (mut said_up, mut said_down) = (Vec::new(), Vec::new());
        for ((len, up), fill) in lens.iter().zip(ups).zip(0_u8..) {
            let bytes: Vec<u8> = (0..*len).map(|at| fill.wrapping_add(at as u8)).collect();
            if up {
                pair.0.stream.seal(&bytes, &mut pair.0.out).unwrap();
                said_up.extend_from_slice(&bytes);
            } else {
                pair.1.stream.seal(&bytes, &mut pair.1.out).unwrap();
                said_down.extend_from_slice(&bytes);
            }
        }
        talk(&mut pair, || next.next().unwrap_or(1)).unwrap();
        assert_eq!((&pair.1.plain, &pair.0.plain), (&said_up, &said_down));
        assert_eq!((pair.0.stream.kept_bytes(), pair.1.stream.kept_bytes()), (0, 0));
    }

    #[test]
    fn a_byte_that_is_changed_on_the_way_ends_it_and_nobody_hears_what_was_not_said(
        is_13 in any::<bool>(),
        of_client in any::<bool>(),
        at in prop_oneof![0..300_usize, 0..3000_usize],
        flip in 1_u8..,
        cuts in cuts(),
    ) {
        let version = if is_13 { Version::Tls13 } else { Version::Tls12 };
        let (client, server) = configs(version);
        let (mut client, mut server) = pair(&client, &server, "a.example");
        let mut next = cuts.iter().cycle().copied();
        let (mut passed, mut said) = (0, 0);
        // The first fault ends it: what was said by then is heard as a beginning, if at all.
        'talk: while said < 4 || !client.out.is_empty() || !server.out.is_empty() {
            if said < 4 && client.stream.is_open() && server.stream.is_open() {
                client.stream.seal(&[7; 200], &mut client.out).unwrap();
                server.stream.seal(&[7; 200], &mut server.out).unwrap();
                said += 1;
            }
            if client.out.is_empty() && server.out.is_empty() {
                break;
            }
            for up in [true, false] {
                let out = if up { &mut client.out } else { &mut server.out };
                let mut bytes = std::mem::take(out);
                if up == of_client {
                    if (passed..passed + bytes.len()).contains(&at) {
                        bytes[at - passed] ^= flip;
                    }
                    passed += bytes.len();
                }
                while !bytes.is_empty() {
                    let mut rest = bytes.split_off(next.next().unwrap_or(1).clamp(1, bytes.len()));
                    let heard = if up { server.hear(&mut bytes) } else { client.hear(&mut bytes) };
                    if heard.is_err() {
                        break 'talk;
                    }
                    std::mem::swap(&mut bytes, &mut rest);
                }
            }
        }
        for plain in [&client.plain, &server.plain] {
            assert!(plain.len() <= 800 && plain.len() % 200 == 0, "{}", plain.len());
            assert!(plain.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn no_bytes_make_a_server_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        is_wrapped in any::<bool>(),
        at in any::<u16>(),
        with in any::<u8>(),
        cuts in cuts(),
    ) {
        let (client, server) = configs(Version::Tls13);
        // Rubbish, rubbish in a record of the handshake, and a good first message with one wrong byte.
        let record = [&[22, 3, 1, (bytes.len() >> 8) as u8, bytes.len() as u8][..], &bytes].concat();
        let mut hello = pair(&client, &server, "a.example").0.out;
        let at = usize::from(at) % hello.len();
        hello[at] = with;
        for mut all in [if is_wrapped { record } else { bytes }, hello] {
            let mut server = End::new(ServerStream::accept(&server).unwrap());
            let mut next = cuts.iter().cycle().copied();
            while !all.is_empty() {
                let mut rest = all.split_off(next.next().unwrap_or(1).clamp(1, all.len()));
                if server.hear(&mut all).is_err() {
                    break;
                }
                std::mem::swap(&mut all, &mut rest);
            }
        }
    }
}
