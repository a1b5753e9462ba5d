use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::*;
use crate::metrics::Registry;

fn config(admin: &str) -> ListenConfig {
    ListenConfig {
        tcp: "127.0.0.1:0".parse().unwrap(),
        admin: admin.parse().unwrap(),
        admin_allow_remote: false,
        backlog: 16,
    }
}

fn start() -> (Control, Arc<NodeState>) {
    start_at("127.0.0.1:0")
}

fn start_at(admin: &str) -> (Control, Arc<NodeState>) {
    let info = NodeInfo { name: "n".to_owned(), region: "r".to_owned(), node_id: 3 };
    let state = Arc::new(NodeState::new(info, Registry::new(1, 1, 10)));
    let control = Control::start(&config(admin), Arc::clone(&state)).unwrap();
    (control, state)
}

/// Status and body of a GET.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn readiness_follows_the_phase_and_liveness_does_not() {
    // An address of this test's own, so that nobody takes the port once it is free.
    let (control, state) = start_at("127.0.0.78:0");
    let address = control.address();
    for (phase, status, word) in [
        (Phase::Starting, 503, "starting"),
        (Phase::Recovering, 503, "recovering"),
        (Phase::Ready, 200, "ready"),
        (Phase::Draining, 503, "draining"),
        (Phase::Stopping, 503, "stopping"),
    ] {
        state.advance(phase);
        let (got, body) = get(address, "/readyz");
        assert_eq!(got, status, "{body}");
        assert!(body.starts_with(word), "{body}");
        assert_eq!(get(address, "/livez"), (200, "ok\n".to_owned()));
    }
    state.advance(Phase::Ready);
    assert_eq!(state.phase(), Phase::Stopping, "a node never goes back");
    control.stop();
    assert!(TcpStream::connect(address).is_err(), "the port is free again");
}

#[test]
fn metrics_and_health_show_what_the_threads_count() {
    let (control, state) = start();
    state.advance(Phase::Ready);
    let reactor = state.registry().reactor(0);
    reactor.accepted.add(5);
    let (status, body) = get(control.address(), "/metrics");
    assert_eq!(status, 200);
    assert!(body.contains("iris_connections_accepted_total{reactor=\"0\"} 5\n"), "{body}");

    let (status, body) = get(control.address(), "/health?verbose");
    assert_eq!(status, 200, "{body}");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(health["ok"], true);
    assert_eq!(health["node"]["id"], 3);

    reactor.connections.set(10);
    state.registry().wal(0).low_disk.set(1);
    let (status, body) = get(control.address(), "/health?verbose");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &health["ok"]), (503, &serde_json::json!(false)));
    let checks = health["checks"].as_array().unwrap();
    let failed: Vec<&str> = checks
        .iter()
        .filter(|check| check["ok"] == false)
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["disk", "connections"]);
    let (_, brief) = get(control.address(), "/health");
    assert!(!brief.contains("checks"), "{brief}");
    control.stop();
}

#[test]
fn other_paths_methods_and_garbage_change_nothing() {
    let (control, _state) = start();
    let address = control.address();
    assert_eq!(get(address, "/").0, 404);
    assert_eq!(get(address, "/metrics/../etc/passwd").0, 404);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream
        .write_all(
            b"POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let mut garbage = TcpStream::connect(address).unwrap();
    garbage.write_all(&[0; 4096]).unwrap();
    assert_eq!(get(address, "/livez").0, 200);
    control.stop();
}

#[test]
fn idle_connections_do_not_keep_others_out() {
    let (control, _state) = start();
    let address = control.address();
    // One fewer than may be held at once; none of them says a word.
    let idle: Vec<TcpStream> = (0..63).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(get(address, "/livez").0, 200);
    drop(idle);
    control.stop();
}

#[test]
fn an_admin_port_in_use_is_one_clear_line() {
    let (control, state) = start();
    let taken = config(&control.address().to_string());
    let failure = Control::start(&taken, state).unwrap_err();
    assert_eq!(failure.exit, Exit::InUse);
    assert!(failure.to_string().contains("listen.admin"), "{failure}");
    control.stop();
}
