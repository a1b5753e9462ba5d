//! The session machine: events in any order that a driver can bring about, against the rules of `docs/PROTOCOL.md`,
//! section 4, 5 and 9, written down a second time.

use iris_proto::id::MsgId;
use iris_proto::limits::SEND_WINDOW_MAX;
use iris_proto::session::{Due, Patience, Session};
use iris_proto::wire::{ClientFrame, Code, Hello, Names, Send, Unwatch};

use crate::Input;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Hello,
    LoggingIn,
    Live,
}

/// What must be so.
struct Model {
    state: State,
    patience: Patience,
    heard_s: u32,
    /// When the connection ends, once the token is verified.
    ends_s: Option<u32>,
    next_seq: Option<u32>,
    unanswered: u32,
    pinged: bool,
}

/// Events of one connection, until it is closed.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let patience =
        Patience { login_s: 1 + u32::from(input.u8()), idle_s: 2 + u32::from(input.u8()) };
    let mut now_s = match input.u8() {
        0..=250 => 100,
        near_the_end => u32::MAX - u32::from(near_the_end),
    };
    let mut session = Session::new(now_s);
    let mut model = Model {
        state: State::Hello,
        patience,
        heard_s: now_s,
        ends_s: None,
        next_seq: None,
        unanswered: 0,
        pinged: false,
    };
    while !input.is_empty() {
        match input.below(8) {
            0..=2 => {
                let verdict = take_frame(&mut input, now_s, &mut session, &mut model);
                if verdict.is_err() {
                    return;
                }
            }
            3 => now_s = now_s.saturating_add(u32::from(input.u8())),
            4 if model.state == State::LoggingIn && model.ends_s.is_none() => {
                let ends_s = now_s.saturating_add(u32::from(input.u16()));
                session.handle_verified(ends_s);
                model.ends_s = Some(ends_s);
                assert_eq!(session.ends_s(), ends_s);
            }
            5 => {
                let is_news = model.state == State::LoggingIn;
                assert_eq!(session.handle_welcome(now_s), is_news, "a login is welcomed once");
                if is_news {
                    (model.state, model.heard_s) = (State::Live, now_s);
                }
            }
            6 => {
                let count = input.u16();
                session.handle_answers(count);
                model.unanswered = model.unanswered.saturating_sub(count.into());
            }
            _ => {
                let due = session.handle_time(now_s, &patience, 0);
                model.check_due(now_s, due);
                if matches!(due, Due::Close(_)) {
                    return;
                }
            }
        }
        assert_eq!(session.is_active(), model.state == State::Live);
        assert_eq!(session.awaits_hello(), model.state == State::Hello);
    }
}

fn take_frame(
    input: &mut Input<'_>,
    now_s: u32,
    session: &mut Session,
    model: &mut Model,
) -> Result<(), Code> {
    let no_names = Names::of_bytes(&[0, 0]);
    let frame = match input.below(10) {
        0 => {
            let hello = Hello {
                version_min: 1,
                version_max: 1,
                window: 1,
                user: "",
                device: "",
                token: "t",
            };
            ClientFrame::Hello(hello)
        }
        kind @ 1..=4 => {
            // Mostly the number that is right.
            let seq = match (kind, model.next_seq) {
                (1..=3, Some(next)) => next,
                _ => input.u32(),
            };
            let names = Names::of_bytes(&[1, 0, 1, b'b']);
            ClientFrame::Send(Send { seq, id: MsgId(0), flags: 0, to: names, payload: b"" })
        }
        5 => ClientFrame::Ack(input.u32()),
        6 => ClientFrame::Window(input.u32()),
        7 => ClientFrame::Unwatch(Unwatch { users: no_names }),
        8 => ClientFrame::Ping([0; 8]),
        _ => ClientFrame::Ignored,
    };
    let verdict = session.handle_frame(now_s, &frame);
    assert_eq!(verdict, model.judge(now_s, &frame), "{frame:?}");
    verdict
}

impl Model {
    fn judge(&mut self, now_s: u32, frame: &ClientFrame<'_>) -> Result<(), Code> {
        match (self.state, frame) {
            (State::Hello, ClientFrame::Hello(_)) => self.state = State::LoggingIn,
            (State::Live, ClientFrame::Hello(_)) | (State::Hello | State::LoggingIn, _) => {
                return Err(Code::OutOfOrder);
            }
            (State::Live, ClientFrame::Send(send)) => {
                if self.next_seq.is_some_and(|next| next != send.seq) {
                    return Err(Code::BadSeq);
                }
                if self.unanswered == SEND_WINDOW_MAX {
                    return Err(Code::SendWindow);
                }
                self.unanswered += 1;
                self.next_seq = Some(send.seq.wrapping_add(1));
                (self.heard_s, self.pinged) = (now_s, false);
            }
            (State::Live, _) => (self.heard_s, self.pinged) = (now_s, false),
        }
        Ok(())
    }

    fn check_due(&mut self, now_s: u32, due: Due) {
        let after = |seconds: u32| self.heard_s.saturating_add(seconds);
        if self.state != State::Live {
            let end_s = after(self.patience.login_s);
            return match due {
                Due::At(at_s) => assert!(now_s < end_s && at_s == end_s),
                Due::Close(code) => assert!(now_s >= end_s && code == Code::LoginTimeout),
                Due::Ping(_) => panic!("a PING before WELCOME"),
            };
        }
        let ends_s = self.ends_s.unwrap_or(u32::MAX);
        let (half_s, idle_s) = (after(self.patience.idle_s / 2), after(self.patience.idle_s));
        match due {
            Due::Close(Code::TokenExpired) => assert!(now_s >= ends_s),
            Due::Close(Code::IdleTimeout) => assert!(now_s < ends_s && now_s >= idle_s),
            Due::Close(code) => panic!("it was closed with {code:?}"),
            Due::Ping(at_s) => {
                assert!(!self.pinged && now_s >= half_s && now_s < idle_s.min(ends_s));
                assert!(at_s > now_s && at_s <= idle_s.min(ends_s));
                self.pinged = true;
            }
            Due::At(at_s) => {
                assert!(now_s < idle_s.min(ends_s) && (self.pinged || now_s < half_s));
                assert!(at_s > now_s && at_s <= idle_s.min(ends_s), "nothing is slept over");
            }
        }
    }
}
