use super::*;

#[derive(Default)]
struct Seen(Vec<String>);

impl Events for Seen {
    fn logged_in(&mut self, welcome: Welcome) {
        assert_eq!(welcome.server_time_ms, None);
        self.0.push("logged in".to_owned());
    }
    fn accepted(&mut self, first: u32, count: u16) {
        panic!("accepted {first}+{count}: core NATS answers nothing");
    }
    fn rejected(&mut self, number: u32, _: u16, _: u32) {
        panic!("rejected {number}: core NATS answers nothing");
    }
    fn message(&mut self, message: Message<'_>) {
        assert_eq!((message.from, message.no), (None, 0));
        self.0.push(format!("message {}", String::from_utf8_lossy(message.payload)));
    }
    fn confirmed(&mut self, upto: u32) {
        panic!("confirmed {upto}: of Iris alone");
    }
    fn presence(&mut self, query: u32, _: iris_proto::wire::PresenceEntries<'_>) {
        panic!("presence {query}: of Iris alone");
    }
    fn draining(&mut self, _: u32, _: u32) {
        panic!("core NATS has no such frame");
    }
}

/// As nats-server 2.9.10 greets, less what is not read.
const INFO: &str = "INFO {\"server_id\":\"NA\",\"version\":\"2.9.10\",\"headers\":true,\"max_payload\":1048576} \r\n";

fn session() -> crate::client::Session {
    crate::client::Session::new(crate::protocol::Protocol::Nats)
}

fn receive(text: &str) -> (Result<(), Ended>, Vec<String>, String) {
    let (mut session, mut seen, mut out) = (session(), Seen::default(), Vec::new());
    let ended = session.receive(text.as_bytes(), &mut out, &mut seen);
    (ended, seen.0, String::from_utf8(out).unwrap())
}

#[test]
fn a_login_is_connect_subscribe_and_ping_in_one_piece() {
    let mut out = Vec::new();
    Session::new(false).log_in(&mut out, "me", "lg-000001-00000002");
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.split("\r\n").collect();
    let options: serde_json::Value =
        serde_json::from_str(lines[0].strip_prefix("CONNECT ").unwrap()).unwrap();
    assert_eq!((&options["verbose"], &options["tls_required"]), (&false.into(), &false.into()));
    assert_eq!(lines[1..], ["SUB lg-000001-00000002 1", "PING", ""]);
}

#[test]
fn a_publication_is_one_line_and_its_payload() {
    let made = template("bob", b"12345");
    assert_eq!(made.bytes, b"PUB bob 5\r\n12345\r\n");
    assert_eq!(&made.bytes[made.payload_at..made.payload_at + 5], b"12345");
    assert_eq!(made.number, Number::Unanswered);
}

#[test]
fn a_session_reads_the_same_however_its_bytes_are_cut() {
    let rest = "+OK\r\nPONG\r\nMSG bob 1 5\r\nhe\r\no\r\nPING\r\nmsg bob 1  reply\t0\r\n\r\nINFO {}\r\nMSG b 1 1\r\nx\r\n";
    let stream = format!("{INFO}{rest}");
    for piece in 1..=stream.len() {
        let (mut session, mut seen, mut out) = (session(), Seen::default(), Vec::new());
        for part in stream.as_bytes().chunks(piece) {
            session.receive(part, &mut out, &mut seen).unwrap();
        }
        let expected = ["logged in", "message he\r\no", "message ", "message x"];
        assert_eq!(seen.0, expected, "in pieces of {piece}");
        assert_eq!(out, b"PONG\r\n");
        assert!(session.is_open());
        assert_eq!(session.cut.0.capacity(), 0, "an idle session holds no buffer");
    }
}

#[test]
fn what_a_server_must_not_do_ends_the_session_by_name() {
    let open = format!("{INFO}PONG\r\n");
    for (text, reason) in [
        ("HTTP/1.1 400 Bad Request\r\n", "undecodable_verb"),
        ("INFO {\r\n", "undecodable_info"),
        ("INFO {\"tls_required\":true}\r\n", "server_wants_tls"),
        ("INFO {\"auth_required\":true}\r\n", "server_wants_credentials"),
        ("PONG\r\n", "unexpected_frame"),
        ("MSG bob 1 0\r\n\r\n", "unexpected_frame"),
        ("-ERR 'Maximum Connections Exceeded'\r\n", "server_error_maximum_connections_exceeded"),
        ("-ERR\r\n", "server_error_"),
        ("@PONG\r\n", "unexpected_frame"),
        ("@PING\n", "undecodable_line_end"),
        ("@\r\n", "undecodable_verb"),
        ("@MSG\r\n", "undecodable_message"),
        ("@MSG bob 5\r\n", "undecodable_message"),
        ("@MSG bob 1 2 3 4\r\n", "undecodable_message"),
        ("@MSG bob 1 +5\r\nhello\r\n", "undecodable_length"),
        ("@MSG bob 1 -1\r\n", "undecodable_length"),
        ("@MSG bob 1 99999999999999999999999\r\n", "undecodable_length"),
        ("@MSG bob 1 65537\r\n", "payload_too_long"),
        ("@MSG bob 1 5\r\nhello!!", "undecodable_payload_end"),
        ("@HMSG bob 1 12 12\r\n", "undecodable_verb"),
        ("@-ERR 'Slow Consumer'\r\n", "server_error_slow_consumer"),
    ] {
        let text = text.replace('@', &open);
        let (ended, ..) = receive(&text);
        assert_eq!(ended.unwrap_err(), reason, "{text}");
    }
}

#[test]
fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
    let endless = "I".repeat(LINE_BYTES_MAX);
    assert_eq!(receive(&endless[1..]).0, Ok(()));
    assert_eq!(receive(&endless).0.unwrap_err(), "line_too_long");
}

#[derive(Default)]
struct Kept(Vec<String>);

impl Events for Kept {
    fn logged_in(&mut self, _: Welcome) {
        self.0.push("logged in".to_owned());
    }
    fn accepted(&mut self, first: u32, count: u16) {
        self.0.push(format!("accepted {first}+{count}"));
    }
    fn rejected(&mut self, number: u32, code: u16, _: u32) {
        self.0.push(format!("rejected {number} {code}"));
    }
    fn message(&mut self, message: Message<'_>) {
        self.0.push(format!("message {}", String::from_utf8_lossy(message.payload)));
    }
    fn confirmed(&mut self, _: u32) {}
    fn presence(&mut self, _: u32, _: iris_proto::wire::PresenceEntries<'_>) {}
    fn draining(&mut self, _: u32, _: u32) {}
}

fn receive_of_stream(text: &str) -> (Result<(), Ended>, Vec<String>, String) {
    let mut session = crate::client::Session::new(crate::protocol::Protocol::Jetstream);
    let (mut kept, mut out) = (Kept::default(), Vec::new());
    let ended = session.receive(text.as_bytes(), &mut out, &mut kept);
    (ended, kept.0, String::from_utf8(out).unwrap())
}

/// A MSG with its payload.
fn msg(arguments: &str, payload: &str) -> String {
    format!("MSG {arguments} {}\r\n{payload}\r\n", payload.len())
}

#[test]
fn a_login_with_jetstream_asks_for_a_durable_consumer_of_the_users_subject() {
    let mut out = Vec::new();
    Session::new(true).log_in(&mut out, "bob", "all");
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines[1..3], ["SUB _d.bob 1", "SUB _r.bob.* 2"]);
    let (subject, bytes) = lines[3].rsplit_once(' ').unwrap();
    assert_eq!(subject, "PUB $JS.API.CONSUMER.DURABLE.CREATE.IRIS.bob _r.bob.login");
    assert_eq!(bytes.parse(), Ok(lines[4].len()));
    let wish: serde_json::Value = serde_json::from_str(lines[4]).unwrap();
    assert_eq!(wish["config"]["filter_subject"], "lg.all");
    assert_eq!(wish["config"]["durable_name"], "bob");
    assert_eq!(lines[5..], [""]);
}

#[test]
fn a_stream_answers_by_number_and_each_message_is_acknowledged() {
    let text = [
        INFO.to_owned(),
        msg("lg.bob 1 $JS.ACK.IRIS.bob.1.1.1.9.0", "early"),
        msg("_r.bob.login 2", "{\"type\":\"x\",\"name\":\"bob\"}"),
        msg("_r.bob.000000ff 2", "{\"stream\":\"IRIS\",\"seq\":7}"),
        msg("_r.bob.00000100 2", "{\"error\":{\"code\":503,\"err_code\":10077}}"),
        "PING\r\n".to_owned(),
    ];
    let (ended, seen, out) = receive_of_stream(&text.concat());
    assert_eq!(ended, Ok(()));
    assert_eq!(seen, ["message early", "logged in", "accepted 255+1", "rejected 256 10077"]);
    assert_eq!(out, "PUB $JS.ACK.IRIS.bob.1.1.1.9.0 0\r\n\r\nPONG\r\n");
}

#[test]
fn what_a_stream_must_not_do_ends_the_session_by_name() {
    let open = format!("{INFO}{}", msg("_r.bob.login 2", "{}"));
    let no_stream = msg("_r.bob.login 2", "{\"error\":{\"err_code\":10059}}");
    for (text, reason) in [
        (format!("{INFO}{no_stream}"), "server_error_jetstream_10059"),
        (format!("{INFO}{}", msg("_r.bob.00000001 2", "{}")), "unexpected_frame"),
        (format!("{open}{}", msg("_r.bob.login 2", "{}")), "unexpected_frame"),
        (format!("{open}{}", msg("_r.bob.1 2", "{}")), "undecodable_answer"),
        (format!("{open}{}", msg("_r.bob.0000000x 2", "{}")), "undecodable_answer"),
        (format!("{open}{}", msg("_r.bob.00000001 2", "{")), "undecodable_answer"),
        (format!("{open}{}", msg("lg.bob 1", "hi")), "message_without_ack"),
        (format!("{open}{}", msg("lg.bob 3", "hi")), "unexpected_frame"),
    ] {
        assert_eq!(receive_of_stream(&text).0.unwrap_err(), reason, "{text}");
    }
}
