//! TLS as a stranger speaks it, and a connection whose bytes somebody between the two sides changes.
//!
//! Whatever is changed, added or left out, what the server takes as said is the beginning of what the client said, and what
//! it keeps is bounded. If nothing is changed, all of it arrives.

use std::sync::{Arc, OnceLock};

use iris_tls::client::{self, Trust};
use iris_tls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use iris_tls::server::{self, ClientAuth, Identity};
use iris_tls::stream::KEPT_BYTES_MAX;
use iris_tls::tickets::Secret;
use iris_tls::{ClientConfig, ClientStream, Group, ServerConfig, ServerStream, Version};

use crate::Input;

const NAME: &str = "a.example";

struct Configs {
    server: Arc<ServerConfig>,
    tls13: Arc<ClientConfig>,
    tls12: Arc<ClientConfig>,
}

fn configs() -> &'static Configs {
    static CONFIGS: OnceLock<Configs> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let key = rcgen::KeyPair::generate().expect("the system gives random bytes");
        let params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
        let certificate: CertificateDer<'static> =
            params.self_signed(&key).expect("the key signs").der().clone();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let identity = Identity::new(vec![certificate], key).expect("they fit");
        let server = server::config(server::Settings {
            identities: vec![identity],
            versions: Version::ALL.to_vec(),
            groups: vec![Group::X25519, Group::P256],
            secrets: vec![Secret::new(&[7; 32])],
            client_auth: ClientAuth::Off,
            client_ca: Vec::new(),
        });
        // A client that has come before shows a ticket, which the server decrypts before anything else.
        let client = |version| {
            let settings = client::Settings {
                trust: Trust::Anybody,
                versions: vec![version],
                tickets_max: 1,
                identity: None,
            };
            client::config(settings).expect("a version and a provider")
        };
        Configs {
            server: server.expect("they fit"),
            tls13: client(Version::Tls13),
            tls12: client(Version::Tls12),
        }
    })
}

/// The server's side, and what it has heard.
struct Server {
    stream: ServerStream,
    heard: Vec<u8>,
    out: Vec<u8>,
    has_failed: bool,
}

impl Server {
    fn new() -> Self {
        let stream = ServerStream::accept(&configs().server).expect("a connection begins");
        Self { stream, heard: Vec::new(), out: Vec::new(), has_failed: false }
    }

    fn hear(&mut self, bytes: &mut [u8]) {
        let taken = self.stream.receive(bytes, &mut self.heard, &mut self.out);
        assert!(self.stream.kept_bytes() <= KEPT_BYTES_MAX);
        assert!(
            self.stream.is_open() || self.heard.is_empty() || taken.is_err() || self.has_failed
        );
        match taken {
            Ok(_) => assert!(!self.has_failed, "it goes on after an error"),
            Err(fault) => {
                self.has_failed = true;
                assert!(!fault.to_string().is_empty() && !fault.cause().name().is_empty());
                assert!(self.stream.seal(b"x", &mut Vec::new()).is_err());
                assert_eq!(self.stream.kept_bytes(), 0);
            }
        }
    }
}

/// Which of both it is, and the rest.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 4 {
        0 => strange(&mut input),
        what => between(&mut input, what % 2 > 0),
    }
}

/// Bytes that are no client's, in pieces.
fn strange(input: &mut Input<'_>) {
    let mut server = Server::new();
    let piece = usize::from(input.u8()) * 16 + 1;
    for bytes in input.rest().chunks(piece) {
        server.hear(&mut bytes.to_vec());
    }
    assert!(server.heard.is_empty() && !server.stream.is_open(), "a handshake by chance");
}

/// A client, a server, and orders for who stands between them.
fn between(input: &mut Input<'_>, is_tls13: bool) {
    let config = if is_tls13 { &configs().tls13 } else { &configs().tls12 };
    let name = ServerName::try_from(NAME).expect("a name");
    let mut client = ClientStream::connect(config, name).expect("a connection begins");
    let mut server = Server::new();
    let (mut up, mut said) = (Vec::new(), Vec::new());
    let (mut is_changed, mut is_finished) = (false, false);
    client.start(&mut up).expect("a client says hello");
    while !input.is_empty() {
        match input.u8() % 8 {
            0 => {
                let count = usize::from(input.u16()).min(up.len());
                let rest = up.split_off(count);
                server.hear(&mut up);
                up = rest;
            }
            1 => carry_all(&mut client, &mut server, &mut up),
            2 if client.is_open() && !is_finished => {
                let bytes = vec![said.len() as u8; usize::from(input.u16())];
                client.seal(&bytes, &mut up).expect("it is open");
                said.extend_from_slice(&bytes);
            }
            3 if !up.is_empty() => {
                let place = usize::from(input.u16()) % up.len();
                let change = input.u8();
                up[place] ^= change;
                is_changed |= change > 0;
            }
            4 => {
                let more = input.short();
                up.extend_from_slice(more);
                is_changed |= !more.is_empty();
            }
            5 if !up.is_empty() => {
                let count = usize::from(input.u16()) % up.len();
                up.drain(..count);
                is_changed |= count > 0;
            }
            6 if server.stream.is_open() => {
                let bytes = vec![1; usize::from(input.u16())];
                server.stream.seal(&bytes, &mut server.out).expect("it is open");
            }
            7 => {
                client.finish(&mut up);
                is_finished |= client.is_open();
            }
            _ => {}
        }
        assert!(said.starts_with(&server.heard), "nobody said that");
    }
    carry_all(&mut client, &mut server, &mut up);
    assert!(said.starts_with(&server.heard), "nobody said that");
    if !is_changed {
        assert!(!server.has_failed && server.stream.is_open() && server.heard == said);
    }
}

/// All that is under way arrives, and what is answered to it. A client that hears nonsense has ended.
fn carry_all(client: &mut ClientStream, server: &mut Server, up: &mut Vec<u8>) {
    while !up.is_empty() || !server.out.is_empty() {
        server.hear(&mut std::mem::take(up));
        let mut down = std::mem::take(&mut server.out);
        if client.receive(&mut down, &mut Vec::new(), up).is_err() {
            up.clear();
            break;
        }
    }
}
