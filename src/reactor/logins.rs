//! Logins that wait: verifying a signature takes some microseconds (HS256) to some tens (RS256, ES256), and live
//! connections must not wait for thousands of them (I8).

use super::Reactor;
use iris_proto::id::ConnId;
use iris_proto::wire::Hello;
use std::collections::VecDeque;

/// Logins verified in one turn: less than a millisecond of work.
const LOGINS_PER_TURN: usize = 16;

/// A HELLO whose token is not verified yet. Its connection may say nothing more before WELCOME, so there is one for each
/// connection at most.
#[derive(Debug)]
struct Login {
    conn: ConnId,
    version_min: u8,
    version_max: u8,
    window: u32,
    user: Box<str>,
    device: Box<str>,
    token: Box<str>,
}

/// Who waits, in the order in which the HELLOs came, and how many may still be verified in this turn.
#[derive(Debug, Default)]
pub(super) struct Logins {
    waiting: VecDeque<Login>,
    left: usize,
}

impl Logins {
    fn begin_turn(&mut self) {
        self.left = LOGINS_PER_TURN;
        if self.waiting.is_empty() {
            // A storm is over.
            self.waiting = VecDeque::new();
        }
    }

    /// Whether a HELLO that came just now is verified at once; if not, it waits.
    pub(super) fn may_go_on(&mut self, conn: ConnId, hello: &Hello<'_>) -> bool {
        if self.left > 0 && self.waiting.is_empty() {
            self.left -= 1;
            return true;
        }
        self.waiting.push_back(Login {
            conn,
            version_min: hello.version_min,
            version_max: hello.version_max,
            window: hello.window,
            user: hello.user.into(),
            device: hello.device.into(),
            token: hello.token.into(),
        });
        false
    }

    /// The next login of this turn that still counts.
    fn next(&mut self, mut counts: impl FnMut(ConnId) -> bool) -> Option<Login> {
        while self.left > 0 {
            let login = self.waiting.pop_front()?;
            if counts(login.conn) {
                self.left -= 1;
                return Some(login);
            }
        }
        None
    }
}

impl Reactor {
    /// Verifies logins of earlier turns. Whether there were any.
    pub(super) fn take_logins(&mut self) -> bool {
        self.logins.begin_turn();
        let mut worked = false;
        loop {
            let Self { logins, conns, .. } = self;
            let counts = |id| conns.get_mut(id).is_some_and(|conn| !conn.closing);
            let Some(login) = logins.next(counts) else { return worked };
            worked = true;
            let hello = Hello {
                version_min: login.version_min,
                version_max: login.version_max,
                window: login.window,
                user: &login.user,
                device: &login.device,
                token: &login.token,
            };
            if let Err(code) = self.verify(login.conn, &hello) {
                self.fail(login.conn, code);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(token: &str) -> Hello<'_> {
        Hello { version_min: 1, version_max: 1, window: 5, user: "u", device: "d", token }
    }

    #[test]
    fn a_turn_verifies_some_logins_and_the_rest_follow_in_order_in_later_turns() {
        let mut logins = Logins::default();
        logins.begin_turn();
        let mut done = Vec::new();
        for number in 0..50 {
            if logins.may_go_on(ConnId(number), &hello(&number.to_string())) {
                done.push(number);
            }
        }
        assert_eq!(done.len(), LOGINS_PER_TURN);
        let mut turns = 0;
        while !logins.waiting.is_empty() {
            turns += 1;
            logins.begin_turn();
            let before = done.len();
            while let Some(login) = logins.next(|_| true) {
                assert_eq!(&*login.token, login.conn.0.to_string());
                done.push(login.conn.0);
            }
            assert!(done.len() - before <= LOGINS_PER_TURN);
            // Who comes now does not pass those that wait.
            let newcomer = 1000 + turns;
            if turns == 1 {
                assert!(!logins.may_go_on(ConnId(newcomer), &hello(&newcomer.to_string())));
            }
        }
        assert_eq!(done, (0..50).chain([1001]).collect::<Vec<_>>());
        assert_eq!(turns, 3);
    }

    #[test]
    fn who_left_meanwhile_takes_nobody_s_turn() {
        let mut logins = Logins::default();
        (0..100).for_each(|number| assert!(!logins.may_go_on(ConnId(number), &hello("t"))));
        logins.begin_turn();
        let mut stayed = Vec::new();
        while let Some(login) = logins.next(|id| id.0 >= 90) {
            stayed.push(login.conn.0);
        }
        assert_eq!(stayed, (90..100).collect::<Vec<_>>());
    }
}
