use super::*;
use crate::id::MsgId;
use crate::wire::{ClientFrame, Names, put_send, split_frame};

const CONN: ConnId = ConnId(0x0102_0304_0506_0708);
const USER: UserKey = UserKey([9; 16]);

fn names(bytes: &[u8]) -> Names<'_> {
    Names::read(&mut Reader::new(bytes), 0..=256, 128).unwrap()
}

#[test]
fn what_goes_to_a_core_comes_back_as_it_was() {
    let list = [2, 0, 2, b'a', b'b', 1, b'c'];
    let to = [7; 32];
    let send = LinkSend {
        conn: CONN,
        seq: 5,
        sender: USER,
        id: MsgId::v7(1, 2),
        flags: 1,
        from: "zoe",
        to: &to,
        payload: b"hi",
    };
    let frames = [
        ToCore::Login { conn: CONN, user: USER, window: 3, session: 4, name: "zoe" },
        ToCore::Logout { conn: CONN, user: USER },
        ToCore::Send(send),
        ToCore::Ack { conn: CONN, user: USER, upto: 9 },
        ToCore::Window { conn: CONN, user: USER, window: 0 },
        ToCore::Presence(PresenceAsk { conn: CONN, query: 1, watch: true, users: names(&list) }),
        ToCore::Unwatch { conn: CONN, users: names(&[0, 0]) },
        ToCore::Gone { first: 7, count: 2 },
        ToCore::Receipt(ReceiptPost { to: USER, reader: USER, reader_name: "amy", id: send.id }),
    ];
    let mut batch = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut batch));
    let mut rest = batch.as_slice();
    for frame in frames {
        let (got, after) = ToCore::split(rest).unwrap().unwrap();
        assert_eq!(got, frame);
        rest = after;
    }
    assert_eq!(ToCore::split(rest), Ok(None));
}

#[test]
fn what_goes_to_an_edge_comes_back_as_it_was() {
    let frames = [
        ToEdge::Welcome { conn: CONN, waiting: 3, session: 4 },
        ToEdge::Accepted { conn: CONN, first: u32::MAX, count: 2, copies: 1 },
        ToEdge::Rejected { conn: CONN, seq: 1, code: Code::InboxFull, retry_after_ms: 50 },
        ToEdge::Frame { conn: CONN, bytes: b"whole frames" },
        ToEdge::Kick { conn: CONN, code: Code::Replaced },
        ToEdge::Receipt { to: USER, reader: USER, id: MsgId(1), reader_name: "amy" },
    ];
    let mut batch = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut batch));
    ToEdge::encode_frame(CONN, &mut batch, |out| out.extend_from_slice(b"more"));
    let mut rest = batch.as_slice();
    for frame in frames.into_iter().chain([ToEdge::Frame { conn: CONN, bytes: b"more" }]) {
        let (got, after) = ToEdge::split(rest).unwrap().unwrap();
        assert_eq!(got, frame);
        rest = after;
    }
    assert_eq!(ToEdge::split(rest), Ok(None));
}

#[test]
fn a_batch_cut_anywhere_is_an_error_and_never_a_panic() {
    let mut batch = Vec::new();
    ToCore::Login { conn: CONN, user: USER, window: 3, session: 4, name: "zoe" }.encode(&mut batch);
    for end in 1..batch.len() {
        assert_eq!(ToCore::split(&batch[..end]), Err(Code::Malformed));
    }
}

#[test]
fn a_send_of_a_client_survives_the_way_over_a_link() {
    let mut wire = Vec::new();
    put_send(&mut wire, 4, MsgId(77), 1, &["bob", "eve"], b"payload");
    let (kind, body, _) = split_frame(&wire).unwrap().unwrap();
    let ClientFrame::Send(send) = ClientFrame::decode(kind, body).unwrap() else { panic!() };
    let mut batch = Vec::new();
    let link = LinkSend {
        conn: CONN,
        seq: send.seq,
        sender: USER,
        id: send.id,
        flags: send.flags,
        from: "zoe",
        to: &[],
        payload: send.payload,
    };
    link.encode(&mut batch, |out| {
        send.to.iter().for_each(|name| out.extend_from_slice(&UserKey::of(name).0));
    });
    let Some((ToCore::Send(got), _)) = ToCore::split(&batch).unwrap() else { panic!() };
    assert_eq!(got.to, [UserKey::of("bob").0, UserKey::of("eve").0].concat());
    assert_eq!(got.payload, b"payload");
}
