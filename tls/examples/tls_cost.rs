//! What TLS costs alone, without sockets: memory of an idle connection of the server's side, CPU time of its handshakes,
//! and of bytes both ways. `cargo run --release -p iris-tls --example tls_cost [CONNECTIONS]`
#![expect(clippy::unwrap_used, reason = "a measurement that fails says where")]

use iris_tls::client::{self, Trust};
use iris_tls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use iris_tls::server::{self, ClientAuth, Identity};
use iris_tls::tickets::Secret;
use iris_tls::{ClientConfig, ClientStream, Group, Kind, ServerConfig, ServerStream, Version};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn server() -> Arc<ServerConfig> {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![params.self_signed(&key).unwrap().der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    server::config(server::Settings {
        identities: vec![Identity::new(chain, key).unwrap()],
        versions: Version::ALL.to_vec(),
        groups: vec![Group::X25519, Group::P256],
        secrets: vec![Secret::random()],
        client_auth: ClientAuth::Off,
        client_ca: Vec::new(),
    })
    .unwrap()
}

fn client(version: Version, tickets_max: usize) -> Arc<ClientConfig> {
    let trust = Trust::Anybody;
    client::config(client::Settings { trust, versions: vec![version], tickets_max, identity: None })
        .unwrap()
}

/// One handshake: both sides, and the time that the server's side took.
fn shake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> (ClientStream, Box<ServerStream>, Duration) {
    let name = ServerName::try_from("a.example").unwrap();
    let mut ours = ClientStream::connect(client, name).unwrap();
    let (mut up, mut down, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    ours.start(&mut up).unwrap();
    let began = Instant::now();
    let mut theirs = Box::new(ServerStream::accept(server).unwrap());
    let mut spent = began.elapsed();
    while !up.is_empty() || !down.is_empty() {
        let began = Instant::now();
        theirs.receive(&mut std::mem::take(&mut up), &mut plain, &mut down).unwrap();
        spent += began.elapsed();
        ours.receive(&mut std::mem::take(&mut down), &mut plain, &mut up).unwrap();
    }
    assert!(ours.is_open() && theirs.is_open());
    (ours, theirs, spent)
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
}

fn main() {
    let count: usize = std::env::args().nth(1).map_or(10_000, |text| text.parse().unwrap());
    println!("a stream itself: {} B", size_of::<ServerStream>());
    for version in Version::ALL {
        let server = server();
        let plain = client(version, 0);
        // What both sides and the allocator need once is there before it is counted.
        let mut held: Vec<Box<ServerStream>> = Vec::with_capacity(count + 100);
        held.extend((0..100).map(|_| shake(&plain, &server).1));
        let (before, mut spent) = (resident_bytes(), Duration::ZERO);
        for _ in 0..count {
            let (_, theirs, time) = shake(&plain, &server);
            held.push(theirs);
            spent += time;
        }
        let bytes = (resident_bytes() - before) / count;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        let name = version.name();
        println!("TLS {name}: {bytes} B an idle connection");
        println!("TLS {name}: {:.0} us a full handshake of the server's side", each(spent));
        let resuming = client(version, 16);
        shake(&resuming, &server);
        let mut spent = Duration::ZERO;
        for _ in 0..count {
            let (ours, _, time) = shake(&resuming, &server);
            assert!(ours.accepted().is_some_and(|accepted| accepted.kind == Kind::Resumed));
            spent += time;
        }
        println!("TLS {name}: {:.0} us a resumed one", each(spent));
        for len in [64, 1024, 16_384] {
            let (mut ours, mut theirs, _) = shake(&plain, &server);
            let (bytes, rounds) = (vec![7; len], count);
            let (mut records, mut said) = (Vec::new(), Vec::new());
            let (mut sealing, mut opening) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..rounds {
                ours.seal(&bytes, &mut records).unwrap();
                let began = Instant::now();
                theirs.receive(&mut records, &mut said, &mut Vec::new()).unwrap();
                opening += began.elapsed();
                records.clear();
                let began = Instant::now();
                theirs.seal(&said, &mut records).unwrap();
                sealing += began.elapsed();
                ours.receive(&mut records, &mut Vec::new(), &mut Vec::new()).unwrap();
                records.clear();
                said.clear();
            }
            println!(
                "TLS {name}: {:.2} us to open a record of {len} B, {:.2} us to seal it",
                each(opening),
                each(sealing)
            );
        }
    }
}
