//! Frames of a server, as a client, the load generator and an edge read them.

use iris_proto::limits::USER_BYTES_MAX;
use iris_proto::wire::{
    Code, HEADER_BYTES, ServerFrame, put_accepted, put_drain, put_error, put_ping, put_pong,
    put_presence, put_rejected, split_frame,
};

/// A stream of frames, until one is refused or not whole.
pub fn run(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((kind, body, after))) = split_frame(rest) {
        if let Ok(frame) = ServerFrame::decode(kind, body) {
            check(body, &frame);
        }
        rest = after;
    }
}

fn check(body: &[u8], frame: &ServerFrame<'_>) {
    let mut out = Vec::new();
    match frame {
        ServerFrame::Welcome(welcome) => welcome.encode(&mut out),
        ServerFrame::Accepted { copies, runs } => {
            let runs: Vec<_> = runs.iter().inspect(|run| assert!(run.count > 0)).collect();
            assert!(!runs.is_empty());
            put_accepted(&mut out, *copies, &runs);
        }
        ServerFrame::Rejected(rejections) => {
            let entries: Vec<_> = rejections.iter().collect();
            assert!(!entries.is_empty());
            put_rejected(&mut out, &entries);
        }
        ServerFrame::Message(head, payload) => {
            assert!((1..=USER_BYTES_MAX).contains(&head.from.len()));
            head.encode(payload, &mut out);
            assert_eq!(out.len(), head.frame_bytes(payload.len()));
        }
        ServerFrame::Presence(query, entries) => {
            let entries: Vec<_> = entries.iter().collect();
            put_presence(&mut out, *query, &entries);
        }
        ServerFrame::Drain { retry_after_ms, jitter_ms } => {
            put_drain(&mut out, *retry_after_ms, *jitter_ms);
        }
        ServerFrame::Error { code, retry_after_ms, text } => {
            // Only what a server of this version says has this encoding.
            match Code::from_u16(*code).filter(|code| code.advice() == *text) {
                Some(code) => put_error(&mut out, code, *retry_after_ms),
                None => return,
            }
        }
        ServerFrame::Ping(echo) => put_ping(&mut out, *echo),
        ServerFrame::Pong(echo, time_ms) => put_pong(&mut out, *echo, *time_ms),
        ServerFrame::Ignored => return,
    }
    assert_eq!(out.len(), HEADER_BYTES + body.len(), "no field is shortened or left out");
    let (kind, body, rest) = split_frame(&out).expect("it is ours").expect("it is whole");
    assert!(rest.is_empty());
    assert_eq!(ServerFrame::decode(kind, body).as_ref(), Ok(frame));
}
