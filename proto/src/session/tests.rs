use super::*;
use crate::id::MsgId;
use crate::wire::{Names, Reader, Send};

const PATIENCE: Patience = Patience { login_s: 10, idle_s: 60 };
/// Of a connection whose PING comes as late as any.
const CHANCE: u64 = 0;

fn hello() -> ClientFrame<'static> {
    ClientFrame::Hello(crate::wire::Hello {
        version_min: 1,
        version_max: 1,
        window: 1,
        user: "amy",
        device: "",
        token: "t",
    })
}

fn send(seq: u32) -> ClientFrame<'static> {
    let to = Names::read(&mut Reader::new(&[1, 0, 1, b'b']), 1..=256, 128).unwrap();
    ClientFrame::Send(Send { seq, id: MsgId(0), flags: 0, to, payload: b"" })
}

fn active(now_s: Seconds) -> Session {
    let mut session = Session::new(now_s);
    session.handle_frame(now_s, &hello()).unwrap();
    session.handle_verified(1000);
    assert!(session.handle_welcome(now_s));
    session
}

#[test]
fn every_frame_but_hello_is_out_of_order_before_the_welcome() {
    for frame in [send(0), ClientFrame::Ack(1), ClientFrame::Ping([0; 8]), ClientFrame::Ignored] {
        let mut session = Session::new(0);
        assert_eq!(session.handle_frame(0, &frame), Err(Code::OutOfOrder));
        session.handle_frame(0, &hello()).unwrap();
        assert_eq!(session.handle_frame(0, &frame), Err(Code::OutOfOrder));
    }
}

#[test]
fn a_second_hello_is_out_of_order() {
    let mut session = Session::new(0);
    session.handle_frame(0, &hello()).unwrap();
    assert_eq!(session.handle_frame(0, &hello()), Err(Code::OutOfOrder));
    assert_eq!(active(0).handle_frame(0, &hello()), Err(Code::OutOfOrder));
}

#[test]
fn a_login_that_is_not_complete_in_time_ends() {
    let mut session = Session::new(5);
    assert_eq!(session.handle_time(5, &PATIENCE, CHANCE), Due::At(15));
    session.handle_frame(14, &hello()).unwrap();
    assert_eq!(session.handle_time(15, &PATIENCE, CHANCE), Due::Close(Code::LoginTimeout));
}

#[test]
fn silence_brings_one_ping_and_then_the_end() {
    let mut session = active(100);
    assert_eq!(session.handle_time(100, &PATIENCE, CHANCE), Due::At(130));
    assert_eq!(session.handle_time(130, &PATIENCE, CHANCE), Due::Ping(160));
    assert_eq!(session.handle_time(131, &PATIENCE, CHANCE), Due::At(160));
    assert_eq!(session.handle_time(160, &PATIENCE, CHANCE), Due::Close(Code::IdleTimeout));
    let mut session = active(100);
    assert_eq!(session.handle_time(130, &PATIENCE, CHANCE), Due::Ping(160));
    session.handle_frame(140, &ClientFrame::Pong([0; 8])).unwrap();
    assert_eq!(session.handle_time(160, &PATIENCE, CHANCE), Due::At(170));
}

#[test]
fn pings_of_connections_that_were_heard_together_are_spread_evenly() {
    let mut due = [0_u32; 61];
    for conn in 0..8_000_u64 {
        let Due::At(at_s) = active(100).handle_time(100, &PATIENCE, conn << 24) else { panic!() };
        let mut session = active(100);
        assert_eq!(session.handle_time(at_s - 1, &PATIENCE, conn << 24), Due::At(at_s));
        assert_eq!(
            session.handle_time(at_s, &PATIENCE, conn << 24),
            Due::Ping(160),
            "silence ends when it did"
        );
        due[at_s as usize - 100] += 1;
    }
    assert_eq!(due[23..=30].iter().sum::<u32>(), 8_000);
    assert!(due[23..=30].iter().all(|due| (900..1100).contains(due)), "{due:?}");
}

#[test]
fn a_token_that_ends_ends_a_busy_connection() {
    let mut session = active(990);
    session.handle_frame(999, &send(0)).unwrap();
    assert_eq!(session.handle_time(999, &PATIENCE, CHANCE), Due::At(1000));
    assert_eq!(session.handle_time(1000, &PATIENCE, CHANCE), Due::Close(Code::TokenExpired));
}

#[test]
fn the_send_window_is_a_bound_and_answers_open_it_again() {
    let mut session = active(0);
    for seq in 0..SEND_WINDOW_MAX {
        session.handle_frame(0, &send(seq)).unwrap();
    }
    session.handle_answers(1);
    session.handle_frame(0, &send(SEND_WINDOW_MAX)).unwrap();
    assert_eq!(session.handle_frame(0, &send(SEND_WINDOW_MAX + 1)), Err(Code::SendWindow));
    session.handle_answers(u16::MAX);
    session.handle_frame(0, &send(SEND_WINDOW_MAX + 1)).unwrap();
}

#[test]
fn sends_count_up_by_one_from_any_number_and_wrap() {
    for first in [0, 7, u32::MAX - 1] {
        let mut session = active(0);
        for step in 0..4 {
            session.handle_frame(0, &send(first.wrapping_add(step))).unwrap();
            session.handle_frame(0, &ClientFrame::Ping([0; 8])).unwrap();
        }
    }
}

#[test]
fn a_number_left_out_repeated_or_behind_is_a_bad_seq() {
    for wrong in [9, 8, 6, 11, 10 + (1 << 16), 0, u32::MAX] {
        let mut session = active(0);
        session.handle_frame(0, &send(8)).unwrap();
        session.handle_frame(0, &send(9)).unwrap();
        assert_eq!(session.handle_frame(0, &send(wrong)), Err(Code::BadSeq), "{wrong} after 9");
    }
}

#[test]
fn connections_outlast_their_tokens_by_the_grace_and_spread_over_the_jitter() {
    let outlast = Outlast { grace_s: 5, jitter_s: 9 };
    let mut ends = [0_u32; 15];
    for conn in 0..10_000_u64 {
        let seconds = outlast.seconds(conn << 24);
        assert_eq!(seconds, outlast.seconds(conn << 24), "asked twice, it says the same");
        ends[seconds as usize] += 1;
    }
    assert_eq!(ends[..5], [0; 5], "none ends within the grace");
    assert!(ends[5..].iter().all(|ends| (900..1100).contains(ends)), "{ends:?}");
    assert_eq!(Outlast::default().seconds(77), 0);
    let most = Outlast { grace_s: Seconds::MAX, jitter_s: Seconds::MAX };
    assert_eq!(most.seconds(77), Seconds::MAX);
}
