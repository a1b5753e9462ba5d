use super::*;
use iris_proto::wire::{
    AcceptedRun, MessageHead, PresenceEntries, PresenceState, Rejection, Welcome, put_accepted,
    put_drain, put_error, put_ping, put_pong, put_presence, put_rejected,
};

#[derive(Default, PartialEq, Eq, Debug, Clone)]
struct Seen(Vec<String>);

impl Events for Seen {
    fn logged_in(&mut self, welcome: crate::client::Welcome) {
        self.0.push(format!("welcome {}", welcome.send_window));
    }
    fn accepted(&mut self, first: u32, count: u16) {
        self.0.push(format!("accepted {first}+{count}"));
    }
    fn rejected(&mut self, number: u32, code: u16, retry_after_ms: u32) {
        self.0.push(format!("rejected {number} {code} {retry_after_ms}"));
    }
    fn message(&mut self, message: Message<'_>) {
        let Message { from, no, payload } = message;
        self.0.push(format!("message {no} {} {}", from.unwrap_or("?"), payload.len()));
    }
    fn draining(&mut self, retry_after_ms: u32, jitter_ms: u32) {
        self.0.push(format!("draining {retry_after_ms} {jitter_ms}"));
    }
    fn confirmed(&mut self, upto: u32) {
        self.0.push(format!("confirmed {upto}"));
    }
    fn presence(&mut self, query: u32, entries: PresenceEntries<'_>) {
        let told: Vec<String> =
            entries.iter().map(|(state, _, user)| format!("{state:?} {user}")).collect();
        self.0.push(format!("presence {query} {}", told.join(",")));
    }
}

fn session() -> crate::client::Session {
    crate::client::Session::new(crate::protocol::Protocol::Iris)
}

fn welcome(out: &mut Vec<u8>) {
    Welcome {
        version: 1,
        server_time_ms: 1,
        waiting: 0,
        send_window: 256,
        recv_window: 8,
        payload_max: 65536,
        recipients_max: 256,
        idle_timeout_ms: 300_000,
        token_expires_s: 2,
        dedup_window_ms: 3,
        region: "local",
        node: "n",
        user: "bob",
    }
    .encode(out);
}

fn message(out: &mut Vec<u8>, no: u32, payload: &[u8]) {
    MessageHead { no, id: MsgId::v7(1, 2), time_ms: 3, flags: 0, from: "alice" }
        .encode(payload, out);
}

fn transcript() -> Vec<u8> {
    let mut bytes = Vec::new();
    welcome(&mut bytes);
    put_accepted(
        &mut bytes,
        1,
        &[AcceptedRun { first: 0, count: 3 }, AcceptedRun { first: 9, count: 1 }],
    );
    message(&mut bytes, 1, &[7; 300]);
    put_ping(&mut bytes, *b"01234567");
    put_rejected(&mut bytes, &[Rejection { seq: 4, code: 503, retry_after_ms: 10 }]);
    bytes.extend_from_slice(&[0x81, 2, 0, 0, 1, 1]);
    message(&mut bytes, 2, &[]);
    put_drain(&mut bytes, 1, 2);
    bytes
}

fn expected() -> Vec<String> {
    let lines = "welcome 256|accepted 0+3|accepted 9+1|message 1 alice 300|rejected 4 503 10|\
                 message 2 alice 0|draining 1 2";
    lines.split('|').map(str::to_owned).collect()
}

#[test]
fn a_session_reads_the_same_however_its_bytes_are_cut() {
    let bytes = transcript();
    for piece in 1..=bytes.len() {
        let (mut session, mut seen, mut out) = (session(), Seen::default(), Vec::new());
        for part in bytes.chunks(piece) {
            session.receive(part, &mut out, &mut seen).unwrap();
        }
        assert_eq!(seen.0, expected(), "in pieces of {piece}");
        let (kind, body, rest) = split_frame(&out).unwrap().unwrap();
        assert_eq!(ClientFrame::decode(kind, body), Ok(ClientFrame::Pong(*b"01234567")));
        assert!(rest.is_empty() && session.cut.0.is_empty());
        assert_eq!(session.unacknowledged(), 2);
    }
}

#[test]
fn an_idle_session_holds_no_buffer() {
    let (mut session, mut seen, mut out) = (session(), Seen::default(), Vec::new());
    for part in transcript().chunks(5) {
        session.receive(part, &mut out, &mut seen).unwrap();
    }
    assert_eq!(session.cut.0.capacity(), 0);
}

#[test]
fn acks_are_cumulative_and_come_in_batches_of_a_quarter_window() {
    let (mut session, mut seen, mut out) = (session(), Seen::default(), Vec::new());
    let mut bytes = Vec::new();
    welcome(&mut bytes);
    message(&mut bytes, 1, &[]);
    session.receive(&bytes, &mut out, &mut seen).unwrap();
    assert!(!session.is_batch_whole(), "one of a window of eight is no batch");
    bytes.clear();
    message(&mut bytes, 2, &[]);
    session.receive(&bytes, &mut out, &mut seen).unwrap();
    assert!(session.is_batch_whole());
    session.acknowledge(&mut out);
    session.acknowledge(&mut out);
    let (kind, body, rest) = split_frame(&out).unwrap().unwrap();
    assert_eq!(ClientFrame::decode(kind, body), Ok(ClientFrame::Ack(2)));
    assert!(rest.is_empty(), "nothing is acknowledged twice");
}

fn end_of(fill: impl FnOnce(&mut Vec<u8>)) -> Ended {
    let (mut session, mut seen, mut bytes) = (session(), Seen::default(), Vec::new());
    fill(&mut bytes);
    session.receive(&bytes, &mut Vec::new(), &mut seen).unwrap_err()
}

#[test]
fn what_a_server_must_not_do_ends_the_session_by_name() {
    let error = end_of(|out| put_error(out, Code::Replaced, 0));
    assert_eq!(error, "server_error_replaced");
    assert_eq!(server_error(9999), "server_error_9999");
    let gap = end_of(|out| {
        welcome(out);
        message(out, 2, &[]);
    });
    assert_eq!(gap, "message_number_gap");
    let early = end_of(|out| message(out, 1, &[]));
    assert_eq!(early, "unexpected_frame");
    let twice = end_of(|out| {
        welcome(out);
        welcome(out);
    });
    assert_eq!(twice, "unexpected_frame");
    let garbage = end_of(|out| out.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n"));
    assert!(garbage.starts_with("undecodable_"), "{garbage:?}");
    let oversize = end_of(|out| out.extend_from_slice(&[0x44, 0xff, 0xff, 0xff]));
    assert_eq!(oversize, "undecodable_oversize");
}

#[test]
fn an_oversize_header_cut_in_two_is_refused_before_its_body() {
    let (mut session, mut seen, mut out) = (session(), Seen::default(), Vec::new());
    session.receive(&[0x44, 0xff], &mut out, &mut seen).unwrap();
    let end = session.receive(&[0xff, 0xff], &mut out, &mut seen).unwrap_err();
    assert_eq!(end, "undecodable_oversize");
}

#[test]
fn an_ack_is_known_to_be_read_once_the_question_after_it_is_answered() {
    let (mut session, mut seen, mut out) = (session(), Seen::default(), Vec::new());
    let mut bytes = Vec::new();
    welcome(&mut bytes);
    message(&mut bytes, 1, &[]);
    session.receive(&bytes, &mut out, &mut seen).unwrap();
    session.acknowledge(&mut out);
    session.ask(&mut out);
    let (_, _, rest) = split_frame(&out).unwrap().unwrap();
    let (kind, body, _) = split_frame(rest).unwrap().unwrap();
    let Ok(ClientFrame::Ping(echo)) = ClientFrame::decode(kind, body) else { panic!("no PING") };
    bytes.clear();
    put_pong(&mut bytes, echo, 9);
    put_presence(&mut bytes, 3, &[(PresenceState::Online, 1, "bob")]);
    session.receive(&bytes, &mut out, &mut seen).unwrap();
    assert_eq!(seen.0[2..], ["confirmed 1", "presence 3 Online bob"]);
}
