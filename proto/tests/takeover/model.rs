//! What must be so, written down without the machines: one inbox, and the session that counts.

use iris_proto::id::ConnId;

use super::world::{Checked, check};

/// How a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The client went away.
    Left,
    /// It was told that a newer login took over.
    Replaced,
    /// It was told that an operator ended it.
    Ejected,
}

/// The inbox of the user.
#[derive(Default)]
pub(crate) struct Model {
    /// Messages that nobody has acknowledged, in order.
    pub(crate) inbox: Vec<usize>,
    /// The login that counts, by the core's name, and its number.
    pub(crate) current: Option<(ConnId, u64)>,
    /// Deliveries made to it, and those of them that it acknowledged.
    pub(crate) sent: u32,
    pub(crate) done: u32,
    /// Logins that took over from another one.
    pub(crate) takeovers: u32,
}

impl Model {
    /// A login reaches the core; `number` is 0 of a new one. Whether it counts from here on.
    pub(crate) fn log_in(&mut self, conn: ConnId, number: u64) -> bool {
        if number > 0 && self.current.is_some_and(|(_, newest)| newest > number) {
            return false;
        }
        self.takeovers += u32::from(self.current.is_some());
        // A new one gets a number above all others, which the core tells.
        (self.current, self.sent, self.done) = (Some((conn, number)), 0, 0);
        true
    }

    pub(crate) fn is_current(&self, conn: ConnId) -> bool {
        self.current.is_some_and(|(current, _)| current == conn)
    }

    pub(crate) fn log_out(&mut self, conn: ConnId) {
        if self.is_current(conn) {
            self.current = None;
        }
    }

    /// An acknowledgement reaches the core: only that of the login that counts does anything.
    pub(crate) fn ack(&mut self, conn: ConnId, upto: u32) -> Checked {
        if self.is_current(conn) && upto > self.done {
            check!(upto <= self.sent, "an ACK of {upto}, and {} deliveries", self.sent);
            self.inbox.drain(..(upto - self.done) as usize);
            self.done = upto;
        }
        Ok(())
    }

    /// The core delivers.
    pub(crate) fn deliver(&mut self, conn: ConnId, no: u32, message: usize) -> Checked {
        check!(self.is_current(conn), "delivery {no} to {conn:?}, which does not count");
        check!(no == self.sent + 1, "delivery {no} after {}", self.sent);
        let wanted = self.inbox.get((self.sent - self.done) as usize);
        check!(wanted == Some(&message), "message {message} instead of {wanted:?}");
        self.sent = no;
        Ok(())
    }
}
