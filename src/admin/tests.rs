use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use iris_proto::drain::Return;
use iris_proto::id::Origin;
use iris_proto::peer::Purpose;
use iris_proto::replica::{Counters, Label, Mode, Status};

use super::*;
use crate::config::{AdminSocket, Host, Roles, Sources};
use crate::metrics::{LinkEnd, MirrorMetrics, Registry};

fn config(admin: &str) -> ListenConfig {
    ListenConfig {
        tcp: Some("127.0.0.1:0".parse().unwrap()),
        tls: None,
        admin: admin.parse().unwrap(),
        admin_allow_remote: false,
        admin_token: None,
        admin_socket: AdminSocket::None,
        backlog: 16,
    }
}

fn start() -> (Control, Arc<NodeState>) {
    start_at("127.0.0.1:0")
}

fn start_at(admin: &str) -> (Control, Arc<NodeState>) {
    let info = NodeInfo {
        name: "n".to_owned(),
        region: "r".to_owned(),
        node_id: 3,
        roles: Roles { edge: false, core: true },
        cores: vec![3, 4],
        mirror: Some(4),
        returns: Return::Elsewhere,
    };
    let state = Arc::new(NodeState::new(info, Registry::new(1, 2, 10)));
    let control = Control::start(&config(admin), Arc::clone(&state), reload(), None).unwrap();
    (control, state)
}

/// Of a node without a configuration file.
fn reload() -> Reload {
    let sources = Sources { dev: true, ..Sources::default() };
    let (_, layers) = crate::config::load(&sources, &Host::detect()).unwrap();
    Reload::new(sources, layers)
}

/// Status and body of a GET.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    talk(stream, request)
}

fn talk(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).unwrap();
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
    assert_eq!(get(address, "/nowhere").0, 404);
    assert_eq!(get(address, "/metrics/../etc/passwd").0, 404);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream
        .write_all(
            b"POST /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
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

/// A POST without a body; `more` is further header lines.
fn post_request(path: &str, more: &str) -> String {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{more}");
    format!("{head}Connection: close\r\n\r\n")
}

/// Status and body of a POST to the socket.
fn post(socket: &Path, path: &str, more: &str) -> (u16, String) {
    let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    talk(stream, &post_request(path, more))
}

/// A node with a socket in a folder of its own.
fn start_with_socket() -> (Control, Arc<NodeState>, tempfile::TempDir, PathBuf) {
    let (mut control, state) = start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    control.open_socket(&path).unwrap();
    (control, state, dir, path)
}

/// A core of a pair that serves alone, or with the mirror linked.
pub(super) fn pair(peer: Option<u32>) -> Status {
    Status {
        label: if peer.is_some() { Label::Normal } else { Label::Solo },
        mode: if peer.is_some() { Mode::Normal } else { Mode::Solo },
        state_id: 2,
        peer: peer.map(|node| Origin { node, incarnation: 7 }),
        lag_records: 3,
        lag_bytes: 300,
        lag_ms: 0,
        copies_one: if peer.is_some() { 0 } else { 2 },
        last_failover: Some((1_700_000_000_000, 12)),
        splits: 0,
        last_split: (0, 0),
        fenced_streams: 0,
        possibly_incomplete: false,
        damaged: false,
        retired: None,
    }
}

#[test]
fn a_mirror_is_retired_from_the_node_itself_while_it_is_not_linked() {
    let (control, state, _dir, socket) = start_with_socket();
    let address = socket.as_path();
    let mirrors = state.registry().mirrors();
    let set = |peer| mirrors.iter().for_each(|m| m.set(&pair(peer), &Counters::default()));
    assert_eq!(post(address, "/retire?node=4", "").0, 404, "nothing is known of a mirror yet");
    set(Some(4));
    let (status, body) = post(address, "/retire?node=4", "");
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("stop it first"), "{body}");
    set(None);
    for wrong in ["/retire", "/retire?node=0", "/retire?node=x", "/retire?node=4&node=5"] {
        assert_eq!(post(address, wrong, "").0, 400, "{wrong}");
    }
    assert_eq!(post(address, "/retire?node=3", "").0, 404, "not itself");
    assert_eq!(get(control.address(), "/retire?node=4").0, 405, "looking changes nothing");
    let by_tcp = ask(control.address(), &post_request("/retire?node=4", ""));
    assert_eq!(by_tcp.0, 403, "TCP changes nothing without a token: {}", by_tcp.1);
    let from_a_page = post(address, "/retire?node=4", "Origin: http://example.com\r\n");
    assert_eq!(from_a_page.0, 403, "{}", from_a_page.1);
    assert!(!mirrors.iter().any(|mirror| mirror.is_retire_asked()));

    let taken = std::thread::scope(|scope| {
        let answer = scope.spawn(|| post(address, "/retire?node=4", ""));
        let take = |mirror: &Arc<MirrorMetrics>| loop {
            if let Some(node) = mirror.take_retire() {
                break node;
            }
            std::thread::yield_now();
        };
        let taken: Vec<u32> = mirrors.iter().map(take).collect();
        // The answer waits until each log says so.
        for mirror in mirrors {
            assert!(!answer.is_finished());
            let status = Status { retired: Some(4), ..pair(None) };
            mirror.set(&status, &Counters::default());
        }
        assert_eq!(answer.join().unwrap().0, 200);
        taken
    });
    assert_eq!(taken, [4, 4]);
    control.stop();
}

/// `/status` of the node.
fn status(control: &Control) -> serde_json::Value {
    let (code, body) = get(control.address(), "/status");
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn problems(status: &serde_json::Value) -> Vec<&str> {
    let problems = status["problems"].as_array().unwrap();
    problems.iter().map(|problem| problem["name"].as_str().unwrap()).collect()
}

#[test]
fn status_adds_up_what_partitions_say_of_the_mirror() {
    let (control, state) = start();
    state.advance(Phase::Ready);
    let nothing = status(&control);
    assert_eq!(nothing["mirror"], serde_json::Value::Null, "no partition has said anything yet");
    assert_eq!((&nothing["ready"], &nothing["healthy"]), (&true.into(), &true.into()));

    let counters = Counters { shipped_bytes: 10, ..Counters::default() };
    let mirrors = state.registry().mirrors();
    mirrors[0].set(&pair(Some(4)), &counters);
    let mut other = pair(None);
    (other.last_failover, other.splits, other.last_split) =
        (Some((1_700_000_005_000, 90)), 1, (3, 4));
    mirrors[1].set(&other, &counters);
    let seen = status(&control);
    let mirror = &seen["mirror"];
    assert_eq!(
        (&mirror["node"], &mirror["state"], &mirror["mode"]),
        (&4.into(), &"solo".into(), &"solo".into())
    );
    assert_eq!(mirror["linked"], false);
    assert_eq!(mirror["lag"]["records"], 6);
    assert_eq!(mirror["one_copy_messages"], 2);
    assert_eq!(mirror["shipped_bytes"], 20);
    assert_eq!(mirror["failovers"], 1, "both partitions saw the same one");
    assert_eq!(mirror["last_failover"]["unix_ms"], 1_700_000_005_000_u64);
    assert_eq!(mirror["last_failover"]["took_ms"], 90);
    assert_eq!(
        (&mirror["last_split"]["mine"], &mirror["last_split"]["theirs"]),
        (&3.into(), &4.into())
    );
    assert_eq!(mirror["partitions"][0]["state"], "normal");
    assert_eq!(mirror["partitions"][0]["last_split"], serde_json::Value::Null);
    assert_eq!(mirror["partitions"][1]["partition"], 1);
    assert_eq!(problems(&seen), ["solo"]);
    assert_eq!(seen["healthy"], false);

    // A failover of long ago has nothing to do with the last one.
    other.last_failover = Some((1_700_001_000_000, 5));
    mirrors[1].set(&other, &counters);
    assert_eq!(status(&control)["mirror"]["last_failover"]["took_ms"], 5);
    control.stop();
}

#[test]
fn status_names_each_thing_that_should_not_be() {
    let (control, state) = start();
    assert_eq!(problems(&status(&control)), ["not_ready"]);
    state.advance(Phase::Ready);
    let mirrors = state.registry().mirrors();
    let set = |status: Status| {
        mirrors.iter().for_each(|mirror| mirror.set(&status, &Counters::default()));
    };
    for (label, name) in [
        (Label::Solo, "solo"),
        (Label::Healing, "healing"),
        (Label::Fenced, "fenced"),
        (Label::Recovering, "recovering"),
        (Label::Draining, "draining"),
        (Label::Normal, "mirror_not_linked"),
    ] {
        set(Status { label, ..pair(None) });
        assert_eq!(problems(&status(&control)), [name]);
    }
    set(Status { damaged: true, fenced_streams: 2, ..pair(Some(4)) });
    assert_eq!(problems(&status(&control)), ["fenced_streams", "damaged_log"]);
    set(pair(Some(4)));
    assert_eq!(status(&control)["healthy"], true);
    let wal = state.registry().wal(1);
    wal.low_disk.set(1);
    wal.unreadable.set(3);
    assert_eq!(problems(&status(&control)), ["low_disk"], "the mirror gave back what was damaged");
    assert_eq!(status(&control)["inboxes"]["unreadable_ranges"], 3);
    mirrors[0].set(&Status { damaged: true, ..pair(Some(4)) }, &Counters::default());
    assert_eq!(problems(&status(&control)), ["low_disk", "damaged_log"]);
    mirrors.iter().for_each(|mirror| mirror.set_absent());
    assert_eq!(problems(&status(&control)), ["low_disk", "damaged"]);
    control.stop();
}

#[test]
fn status_of_an_edge_shows_which_cores_it_sees() {
    let info = NodeInfo {
        name: "e".to_owned(),
        region: "r".to_owned(),
        node_id: 9,
        roles: Roles { edge: true, core: false },
        cores: vec![3, 4],
        mirror: None,
        returns: Return::Elsewhere,
    };
    let state = Arc::new(NodeState::new(info, Registry::new(1, 0, 10)));
    let control =
        Control::start(&config("127.0.0.1:0"), Arc::clone(&state), reload(), None).unwrap();
    state.advance(Phase::Ready);
    assert_eq!(problems(&status(&control)), ["core_not_linked", "core_not_linked"]);
    let gateway = state.registry().gateway();
    gateway.cores[0].note_up(Purpose::Clients);
    gateway.cores[0].note_serving(0, true);
    gateway.cores[1].note_end(Purpose::Clients, LinkEnd::ConnectFailed);
    let seen = status(&control);
    let cores = &seen["links"]["cores"];
    assert_eq!((&cores[0]["node"], &cores[0]["clients"]["up"]), (&3.into(), &true.into()));
    assert_eq!(cores[0]["serving_partitions"], 1);
    assert_eq!(cores[1]["clients"]["last_end"], "connect_failed");
    assert_eq!(
        (&cores[0]["mirror"], &seen["inboxes"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    assert_eq!(problems(&seen), ["core_not_linked"]);
    gateway.cores[1].note_up(Purpose::Clients);
    state.registry().reactor(0).unroutable_shards.set(5);
    let seen = status(&control);
    assert_eq!(problems(&seen), ["not_ready"]);
    assert_eq!(seen["clients"]["unroutable_shards"], 5);
    control.stop();
}

/// Adds the names of all fields, those within others included.
fn fields(value: &serde_json::Value, names: &mut BTreeSet<String>) {
    if let Some(object) = value.as_object() {
        names.extend(object.keys().cloned());
    }
    let within = value.as_object().into_iter().flat_map(|object| object.values());
    within.chain(value.as_array().into_iter().flatten()).for_each(|value| fields(value, names));
}

#[test]
fn every_field_of_status_is_documented() {
    let (control, state) = start();
    let mut status_of_pair = pair(Some(4));
    status_of_pair.splits = 1;
    state.registry().mirrors()[0].set(&status_of_pair, &Counters::default());
    let mut names = BTreeSet::new();
    fields(&status(&control), &mut names);
    assert!(names.contains("last_split") && names.contains("came_up"), "{names:?}");
    let page = include_str!("../../docs/OPERATING.md");
    let is_named = |name: &String| {
        let forms = [format!("`{name}`"), format!("`{name}[]`"), format!("`status.{name}`")];
        forms.iter().any(|form| page.contains(form))
    };
    let missing: Vec<&String> = names.iter().filter(|name| !is_named(name)).collect();
    assert!(missing.is_empty(), "not in docs/OPERATING.md: {missing:?}");
    control.stop();
}

/// Whether the other end has closed; waits for nothing.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut stream = stream;
    match stream.read(&mut [0; 16]) {
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        Ok(bytes) => bytes == 0,
    }
}

#[test]
fn silent_connections_make_room_for_who_asks_the_oldest_first() {
    let (control, _state) = start();
    let address = control.address();
    let connect = |_| TcpStream::connect(address).unwrap();
    let silent: Vec<TcpStream> = (0..64).map(connect).collect();
    // One of them speaks, at least in part, when all are there.
    let mut last = &silent[63];
    last.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n").unwrap();
    for _ in 0..10 {
        let kept = TcpStream::connect(address).unwrap();
        assert_eq!(get(address, "/livez").0, 200);
        drop(kept);
    }
    let closed: Vec<bool> = silent.iter().map(is_closed).collect();
    assert!(closed[0] && !closed[62], "{closed:?}");
    assert!(closed.is_sorted_by(|a, b| a >= b), "{closed:?}");
    last.set_nonblocking(false).unwrap();
    last.write_all(b"\r\n").unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    control.stop();
}

#[test]
fn a_request_that_trickles_in_is_ended_in_time() {
    let (control, _state) = start();
    let mut slow = TcpStream::connect(control.address()).unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: x").unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let started = std::time::Instant::now();
    // Every byte used to put the end off.
    let ended = || matches!(slow.try_clone().unwrap().read(&mut [0]), Ok(0));
    while !ended() && slow.try_clone().unwrap().write_all(b"x").is_ok() {
        assert!(started.elapsed() < Duration::from_secs(60), "it goes on and on");
    }
    control.stop();
}

#[test]
fn a_connection_that_was_answered_may_ask_again() {
    let (control, _state) = start();
    let mut kept = TcpStream::connect(control.address()).unwrap();
    kept.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    for _ in 0..3 {
        kept.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            let mut byte = [0];
            kept.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
    control.stop();
}

#[test]
fn an_admin_port_in_use_is_one_clear_line() {
    let (control, state) = start();
    let taken = config(&control.address().to_string());
    let failure = Control::start(&taken, state, reload(), None).unwrap_err();
    assert_eq!(failure.exit, Exit::InUse);
    assert!(failure.to_string().contains("listen.admin"), "{failure}");
    control.stop();
}

#[test]
fn with_a_token_tcp_shows_and_changes_for_who_has_it_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let secret = "0123456789abcdef0123456789abcdef";
    std::fs::write(&file, secret).unwrap();
    let token = Some(crate::auth::Secret::load(&file).unwrap());
    let (control, state) = start();
    control.stop();
    let config = ListenConfig { admin_token: token, ..config("127.0.0.1:0") };
    let control = Control::start(&config, Arc::clone(&state), reload(), None).unwrap();
    state.advance(Phase::Ready);
    let asked = |path: &str, shown: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{shown}");
        ask(control.address(), &format!("{head}Connection: close\r\n\r\n"))
    };
    let right = format!("Authorization: Bearer {secret}\r\n");
    let wrong = [
        String::new(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Basic {secret}\r\n"),
        format!("Authorization: Bearer {secret}0\r\n"),
        format!("Authorization: {secret}\r\n"),
    ];
    for page in ["/metrics", "/status", "/health?verbose"] {
        assert_eq!(asked(page, &right).0, 200, "{page}");
        for shown in &wrong {
            let (status, body) = asked(page, shown);
            assert_eq!(status, 401, "{page} {shown}: {body}");
            assert!(!body.contains(secret) && body.len() < 200, "{body}");
        }
    }
    for page in ["/livez", "/readyz"] {
        assert_eq!(asked(page, "").0, 200, "{page}");
    }
    let address = control.address();
    assert_eq!(ask(address, &post_request("/logout?user=ann", "")).0, 401);
    let by_page = format!("{right}Origin: http://example.com\r\n");
    let by_form = format!("{right}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: document\r\n");
    for other in [by_page, by_form] {
        assert_eq!(ask(address, &post_request("/logout?user=ann", &other)).0, 403, "{other}");
    }
    assert_eq!(ask(address, &post_request("/logout?user=ann", &right)).0, 503, "no threads yet");
    control.stop();
}

#[test]
fn pages_of_other_sites_see_nothing_under_whatever_name_they_come() {
    let (control, _) = start();
    let asked = |page: &str, head: &str| {
        let request = format!("GET {page} HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
        ask(control.address(), &request).0
    };
    for own in ["Host: 127.0.0.1:7480\r\n", "Host: [::1]:7480\r\n", "Host: LocalHost\r\n"] {
        assert_eq!(asked("/metrics", own), 200, "{own}");
    }
    let own = "Host: localhost:7480\r\n";
    assert_eq!(asked("/status", &format!("{own}Sec-Fetch-Site: same-origin\r\n")), 200);
    for page in ["/metrics", "/status", "/events", "/health"] {
        for other in ["Host: rebound.example:7480\r\n", "Host: localhost.example\r\n"] {
            assert_eq!(asked(page, other), 403, "{page} {other}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(
                asked(page, &format!("{own}Sec-Fetch-Site: {site}\r\n")),
                403,
                "{page} {site}"
            );
        }
    }
    // A link that somebody follows shows its answer to nobody else.
    let follows = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!(asked("/status", &format!("{own}{follows}")), 200);
    assert_eq!(asked("/status", &follows.replace("document", "iframe")), 403);
    // A balancer may ask by any name whether clients are served.
    assert_eq!(asked("/livez", "Host: balancer.example\r\n"), 200);
    control.stop();
}

#[test]
fn sessions_of_a_user_are_ended_through_the_socket_and_each_thread_is_asked() {
    let (control, state, _dir, socket) = start_with_socket();
    assert_eq!(post(&socket, "/logout?user=ann", "").0, 503, "the threads are not there yet");
    let wakers = [crate::rt::Waker::of_parking(), crate::rt::Waker::of_parking()];
    let (ejector, wishes, of_gateway) = crate::eject::Ejector::new(&wakers, Some(&wakers[0]));
    state.set_ejector(ejector);
    for wrong in ["/logout", "/logout?user=", "/logout?user=%0a", "/logout?who=ann"] {
        assert_eq!(post(&socket, wrong, "").0, 400, "{wrong}");
    }
    let (status, body) = std::thread::scope(|scope| {
        let answer = scope.spawn(|| post(&socket, "/logout?user=J%C3%B6rg", ""));
        for (wishes, ended) in wishes.iter().zip([2, 1]) {
            let wish = wishes.recv_timeout(Duration::from_secs(120)).unwrap();
            assert_eq!(wish.user, iris_proto::id::UserKey::of("J\u{f6}rg"));
            wish.ended.unwrap().send(ended).unwrap();
        }
        answer.join().unwrap()
    });
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["ended"]), (200, &3.into()), "{body}");
    assert_eq!(body["other_nodes_told"], true);
    assert_eq!(of_gateway.unwrap().len(), 1, "the other nodes are told");
    let path = socket.clone();
    control.stop();
    assert!(!path.exists(), "nothing is left of the socket");
}

/// Opens `/events`; what is read of it begins with the answer's head.
fn open_events(address: SocketAddr, more: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream
        .write_all(format!("GET /events HTTP/1.1\r\nHost: localhost\r\n{more}\r\n").as_bytes())
        .unwrap();
    stream
}

/// The next snapshot of a stream.
fn next_snapshot(stream: &mut TcpStream) -> serde_json::Value {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        let bytes = stream.read(&mut part).unwrap();
        assert!(bytes > 0, "closed after {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&part[..bytes]);
        let text = String::from_utf8_lossy(&text);
        if let Some((_, rest)) = text.split_once("data: ")
            && let Some((data, _)) = rest.split_once("\n\n")
        {
            return serde_json::from_str(data).unwrap();
        }
    }
}

#[test]
fn dashboards_are_told_at_once_and_further_ones_are_refused() {
    let (control, state) = start();
    state.advance(Phase::Ready);
    state.registry().reactor(0).connections.set(4);
    state.registry().reactor(0).rejected.add(crate::metrics::RejectReason::Overloaded, 2);
    let address = control.address();
    let mut pages: Vec<TcpStream> = (0..16).map(|_| open_events(address, "")).collect();
    for page in &mut pages {
        let snapshot = next_snapshot(page);
        assert_eq!(snapshot["status"]["phase"], "ready");
        assert_eq!(snapshot["threads"][0]["connections"], 4);
        assert_eq!(snapshot["refused"], serde_json::json!({ "overloaded": 2 }));
        let resource = &snapshot["resources"][0];
        assert_eq!((&resource["name"], &resource["used"]), (&"connections".into(), &4.into()));
    }
    assert_eq!(get(address, "/events").0, 503);
    let again = next_snapshot(&mut pages[0]);
    assert!(again["uptime_ms"].as_u64().unwrap() > 0, "it goes on");
    // A page that is closed makes room.
    pages.pop();
    let mut last = loop {
        let mut stream = open_events(address, "");
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        match &head {
            b"HTTP/1.1 200" => break stream,
            b"HTTP/1.1 503" => std::thread::yield_now(),
            other => panic!("{:?}", String::from_utf8_lossy(other)),
        }
    };
    assert_eq!(next_snapshot(&mut last)["status"]["node"]["id"], 3);
    control.stop();
}

#[test]
fn the_dashboard_is_for_everybody_and_what_it_shows_is_behind_the_gate() {
    let (control, state) = start();
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(control.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let policy = head.lines().find_map(|l| l.strip_prefix("content-security-policy: ")).unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!((nonce.len(), body.matches(nonce).count()), (32, 2), "{policy}");
    assert!(body.contains("<title>Iris</title>") && !body.contains("{nonce}"));
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(ask(control.address(), &post_request("/", "")).0, 405);
    control.stop();

    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "0123456789abcdef0123456789abcdef").unwrap();
    let token = Some(crate::auth::Secret::load(secret.path()).unwrap());
    let config = ListenConfig { admin_token: token, ..config("127.0.0.1:0") };
    let info = state.info().clone();
    let state = Arc::new(NodeState::new(info, Registry::new(1, 2, 10)));
    let control = Control::start(&config, state, reload(), None).unwrap();
    assert_eq!(get(control.address(), "/").0, 200);
    assert_eq!(get(control.address(), "/events").0, 401);
    let shown = "Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n";
    let snapshot = next_snapshot(&mut open_events(control.address(), shown));
    assert_eq!(snapshot["status"]["node"]["id"], 3);
    control.stop();
}
