//! Frames of a client, as a reactor takes them off a stream.

use iris_proto::limits::{
    DEVICE_BYTES_MAX, PRESENCE_USERS_MAX, RECIPIENTS_MAX, TOKEN_BYTES_MAX, USER_BYTES_MAX,
};
use iris_proto::wire::{ClientFrame, HEADER_BYTES, IGNORABLE, Names, split_frame};

/// A stream of frames, until one is refused or not whole.
pub fn run(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((kind, body, after))) = split_frame(rest) {
        if let Ok(frame) = ClientFrame::decode(kind, body) {
            check(kind, body, &frame);
        }
        rest = after;
    }
}

fn check(kind: u8, body: &[u8], frame: &ClientFrame<'_>) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    match frame {
        ClientFrame::Ignored => return assert!(bytes.is_empty() && kind & IGNORABLE != 0),
        ClientFrame::Hello(hello) => {
            assert!(hello.user.len() <= USER_BYTES_MAX && hello.token.len() <= TOKEN_BYTES_MAX);
            assert!(hello.device.len() <= DEVICE_BYTES_MAX);
        }
        ClientFrame::Send(send) => check_names(&send.to, 1, RECIPIENTS_MAX),
        ClientFrame::PresenceQuery(query) => {
            check_names(&query.users, 1, PRESENCE_USERS_MAX);
            assert!(query.query > 0);
        }
        ClientFrame::Unwatch(unwatch) => check_names(&unwatch.users, 0, PRESENCE_USERS_MAX),
        ClientFrame::Ack(_) | ClientFrame::Window(_) => {}
        ClientFrame::Ping(_) | ClientFrame::Pong(_) => {}
    }
    assert_eq!(bytes.len(), HEADER_BYTES + body.len(), "no field is shortened or left out");
    let (again, body, rest) = split_frame(&bytes).expect("it is ours").expect("it is whole");
    assert_eq!((again, rest), (kind, &[][..]));
    assert_eq!(ClientFrame::decode(again, body).as_ref(), Ok(frame));
}

fn check_names(names: &Names<'_>, least: usize, most: usize) {
    assert!((least..=most).contains(&names.len()));
    let count = names.iter().inspect(|name| assert!((1..=USER_BYTES_MAX).contains(&name.len())));
    assert_eq!(count.count(), names.len());
}
