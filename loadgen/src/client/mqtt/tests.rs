use super::*;
use crate::protocol::Version;

#[derive(Default)]
struct Seen(Vec<String>);

impl Events for Seen {
    fn logged_in(&mut self, welcome: Welcome) {
        self.0.push(format!("logged in, window {}", welcome.send_window));
    }
    fn accepted(&mut self, first: u32, count: u16) {
        self.0.push(format!("accepted {first}+{count}"));
    }
    fn rejected(&mut self, number: u32, code: u16, _: u32) {
        self.0.push(format!("rejected {number} {code:#x}"));
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
        panic!("MQTT has no such packet");
    }
}

fn session(mqtt: Mqtt) -> crate::client::Session {
    crate::client::Session::new(crate::protocol::Protocol::Mqtt(mqtt))
}

fn mqtt(version: Version, qos: Qos) -> Mqtt {
    Mqtt { version, qos, persistent: false }
}

const V311: Mqtt = Mqtt { version: Version::V311, qos: Qos::AtLeastOnce, persistent: false };
const V5: Mqtt = Mqtt { version: Version::V5, qos: Qos::AtLeastOnce, persistent: false };

fn login(mqtt: Mqtt) -> Vec<u8> {
    let mut out = Vec::new();
    Session::new(mqtt).log_in(&mut out, "bob", "bob");
    out
}

#[test]
fn a_login_is_connect_and_subscribe_byte_for_byte() {
    // MQTT 3.1.1, figures 3.6 and 3.22 in their layout: clean session, keep alive 65,535 s, client "bob"; then packet
    // identifier 1, topic "bob", QoS 1.
    let expected = b"\x10\x0f\0\x04MQTT\x04\x02\xff\xff\0\x03bob\x82\x08\0\x01\0\x03bob\x01";
    assert_eq!(login(V311), expected);
    let kept = b"\x10\x0f\0\x04MQTT\x04\0\xff\xff\0\x03bob\x82\x08\0\x01\0\x03bob\x01";
    assert_eq!(login(Mqtt { persistent: true, ..V311 }), kept);
    let once = b"\x10\x0f\0\x04MQTT\x04\x02\xff\xff\0\x03bob\x82\x08\0\x01\0\x03bob\0";
    assert_eq!(login(mqtt(Version::V311, Qos::AtMostOnce)), once);
    // MQTT 5: a length of properties in each, a session expiry interval of an hour when kept.
    let five = b"\x10\x10\0\x04MQTT\x05\x02\xff\xff\0\0\x03bob\x82\x09\0\x01\0\0\x03bob\x09";
    assert_eq!(login(V5), five);
    let kept = login(Mqtt { persistent: true, ..V5 });
    assert!(kept.windows(6).any(|part| part == b"\x05\x11\0\0\x0e\x10"), "{kept:02x?}");
}

#[test]
fn a_message_is_a_publish_whose_identifier_lies_where_the_template_says() {
    for (settings, expected, at) in [
        (V311, &b"\x32\x09\0\x03bob\0\x01hi"[..], Some(7)),
        (V5, b"\x32\x0a\0\x03bob\0\x01\0hi", Some(7)),
        (mqtt(Version::V311, Qos::AtMostOnce), b"\x30\x07\0\x03bobhi", None),
        (mqtt(Version::V5, Qos::AtMostOnce), b"\x30\x08\0\x03bob\0hi", None),
    ] {
        let made = template(settings, "bob", b"hi");
        assert_eq!(made.bytes, expected);
        assert_eq!(&made.bytes[made.payload_at..], b"hi");
        let number = at.map_or(Number::Unanswered, |at| Number::PacketId { at });
        assert_eq!(made.number, number);
    }
}

/// CONNACK, SUBACK, a message of QoS 1 and one of QoS 0, PUBACK.
const STREAM_V311: &[u8] =
    b"\x20\x02\0\0\x90\x03\0\x01\x01\x32\x09\0\x03bob\x12\x34hi\x30\x07\0\x03bobyo\x40\x02\0\x07";
/// The same of MQTT 5: with a receive maximum of 20, a topic alias maximum, and PUBACKs with a reason.
const STREAM_V5: &[u8] =
    b"\x20\x09\0\0\x06\x22\0\x0a\x21\0\x14\x90\x04\0\x01\0\x01\x32\x0a\0\x03bob\x12\x34\0hi\
      \x30\x08\0\x03bob\0yo\x40\x02\0\x07\x40\x03\0\x08\x10\x40\x04\0\x09\x97\0";

#[test]
fn a_session_reads_the_same_however_its_bytes_are_cut() {
    let all = "logged in, window 65535|message hi|message yo|accepted 7+1";
    let five =
        "logged in, window 20|message hi|message yo|accepted 7+1|accepted 8+1|rejected 9 0x97";
    for (settings, stream, expected) in [(V311, STREAM_V311, all), (V5, STREAM_V5, five)] {
        for piece in 1..=stream.len() {
            let (mut session, mut seen, mut out) = (session(settings), Seen::default(), Vec::new());
            for part in stream.chunks(piece) {
                session.receive(part, &mut out, &mut seen).unwrap();
            }
            assert_eq!(seen.0.join("|"), expected, "in pieces of {piece}");
            assert_eq!(out, b"\x40\x02\x12\x34", "one PUBACK, for the message of QoS 1");
            assert!(session.is_open());
            assert_eq!(session.cut.0.capacity(), 0, "an idle session holds no buffer");
        }
    }
}

#[test]
fn a_kept_session_may_be_given_its_messages_before_its_suback() {
    let stream = b"\x20\x02\x01\0\x3a\x09\0\x03bob\0\x01hi\x90\x03\0\x01\x01";
    let (mut session, mut seen, mut out) = (session(V311), Seen::default(), Vec::new());
    session.receive(stream, &mut out, &mut seen).unwrap();
    assert_eq!(seen.0, ["message hi", "logged in, window 65535"]);
    assert_eq!(out, b"\x40\x02\0\x01");
}

fn end_of(settings: Mqtt, open: bool, bytes: &[u8]) -> Ended {
    let (mut session, mut seen, mut out) = (session(settings), Seen::default(), Vec::new());
    if open {
        let login: &[u8] = match settings.version {
            Version::V311 => b"\x20\x02\0\0\x90\x03\0\x01\x01",
            Version::V5 => b"\x20\x03\0\0\0\x90\x04\0\x01\0\x01",
        };
        session.receive(login, &mut out, &mut seen).unwrap();
        assert!(session.is_open());
    }
    let ended = session.receive(bytes, &mut out, &mut seen);
    ended.expect_err(&format!("{bytes:02x?} was taken: {:?}", seen.0))
}

#[test]
fn a_refusal_is_named() {
    assert_eq!(end_of(V311, false, b"\x20\x02\0\x05"), "connack_not_authorized");
    assert_eq!(end_of(V311, false, b"\x20\x02\0\x04"), "connack_bad_user_name_or_password");
    assert_eq!(end_of(V5, false, b"\x20\x03\0\x87\0"), "connack_not_authorized");
    assert_eq!(end_of(V311, false, b"\x20\x02\0\0\x90\x03\0\x01\x80"), "suback_failure");
    assert_eq!(end_of(V311, false, b"\x20\x02\0\0\x90\x03\0\x01\0"), "suback_with_less_qos");
    assert_eq!(end_of(V5, false, b"\x20\x03\0\0\0\x90\x04\0\x01\0\x87"), "suback_not_authorized");
    assert_eq!(end_of(V5, true, b"\xe0\x01\x8e"), "disconnect_session_taken_over");
    assert_eq!(end_of(V5, true, b"\xe0\0"), "disconnect_normal_disconnect");
}

#[test]
fn what_a_broker_must_not_do_ends_the_session_by_name() {
    for (open, bytes, reason) in [
        // At the wrong time, or never from a broker.
        (false, &b"\x90\x03\0\x01\x01"[..], "unexpected_frame"),
        (false, b"\x32\x09\0\x03bob\0\x01hi", "unexpected_frame"),
        (true, b"\x20\x02\0\0", "unexpected_frame"),
        (true, b"\xc0\0", "unexpected_frame"),
        (true, b"\x34\x09\0\x03bob\0\x01hi", "unexpected_frame"),
        // Lengths.
        (true, b"\x30\xff\xff\xff\xff\x01", "undecodable_length"),
        (true, b"\x30\xff\xff\xff\x7f", "packet_too_long"),
        (true, b"\x30\x81\x88\x04", "packet_too_long"),
        (true, b"\x32\0", "undecodable_length"),
        (true, b"\x32\x02\0\x03", "undecodable_length"),
        (true, b"\x32\x06\0\x03bob\0", "undecodable_length"),
        (true, b"\x40\x01\0", "undecodable_length"),
        // Flags, identifiers, characters.
        (true, b"\x36\x09\0\x03bob\0\x01hi", "undecodable_invalid_qos"),
        (true, b"\x42\x02\0\x07", "undecodable_invalid_header"),
        (true, b"\0\0", "undecodable_invalid_header"),
        (true, b"\x40\x02\0\0", "undecodable_zero_pid"),
        (true, b"\x32\x09\0\x03bob\0\0hi", "undecodable_zero_pid"),
        (true, b"\x30\x07\0\x03b\xffbhi", "undecodable_invalid_string"),
        (true, b"\x30\x07\0\x03b#bhi", "undecodable_invalid_topic_name"),
    ] {
        for settings in [V311, V5] {
            let ended = end_of(settings, open, bytes);
            let is_so = ended == reason || (settings == V5 && ended.starts_with("undecodable_"));
            assert!(is_so, "{bytes:02x?} of {:?}: {ended}, not {reason}", settings.version);
        }
    }
    for (bytes, reason) in [
        (&b"\x20\x02\x02\0"[..], "undecodable_invalid_connack_flags"),
        (b"\x20\x02\0\x06", "undecodable_invalid_connect_return_code"),
        (b"\x20\x03\0\0\0", "undecodable_length"),
    ] {
        assert_eq!(end_of(V311, false, bytes), reason, "{bytes:02x?}");
    }
    for (bytes, reason) in [
        (&b"\x40\x03\0\x07\x55"[..], "undecodable_invalid_reason_code"),
        (b"\x40\x06\0\x07\0\x02\x22\0", "undecodable_invalid_property"),
        (b"\x40\x05\0\x07\0\x09\x1f", "undecodable_length"),
        (b"\x30\x0b\0\x03bob\x03\x99\0\x01hi", "undecodable_invalid_property_id"),
        (b"\x30\x0b\0\x03bob\x04\x01\x01\x01\0h", "undecodable_duplicated_property"),
    ] {
        let ended = end_of(V5, true, bytes);
        assert_eq!(ended, reason, "{bytes:02x?}");
    }
}

#[test]
fn any_bytes_end_or_wait_and_never_panic() {
    let mut state = 7u64;
    for round in 0..20_000 {
        let mut bytes = if round % 2 == 0 { STREAM_V311.to_vec() } else { STREAM_V5.to_vec() };
        for _ in 0..1 + round % 4 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 24) as u8;
        }
        for settings in [V311, V5] {
            let (mut session, mut seen) = (session(settings), Seen::default());
            let _ = session.receive(&bytes, &mut Vec::new(), &mut seen);
        }
    }
}
