//! Who sends what to whom in the benchmarks of a core, turn by turn, and what recipients acknowledge.

use std::mem;

use iris_proto::core::{Core, Delivery, Effects, SendRequest};
use iris_proto::id::{ConnId, MsgId, UserKey};

use super::{BATCH, PAYLOAD, T0, USERS, name};

/// Turns until each sender has as many ids as are kept of one.
pub(super) const FULL: u32 = 512 * USERS / BATCH + 10;

pub(super) fn keys(kind: &str, count: u32) -> Vec<UserKey> {
    (0..count).map(|number| UserKey::of(&name(kind, number))).collect()
}

/// The last delivery of each recipient since its last ACK.
#[derive(Default)]
pub(super) struct Unacked(Vec<(ConnId, UserKey, u32)>);

impl Unacked {
    pub(super) fn note(&mut self, delivery: &Delivery) {
        match self.0.last_mut() {
            Some(last) if last.0 == delivery.conn => last.2 = delivery.no,
            _ => self.0.push((delivery.conn, delivery.user, delivery.no)),
        }
    }
}

/// Effects that note what is to be acknowledged.
pub(super) trait Notes: Effects {
    fn unacked(&mut self) -> &mut Unacked;
}

/// Senders, and recipients who are online.
pub(super) struct Traffic {
    senders: Vec<UserKey>,
    recipients: Vec<UserKey>,
    /// Messages so far.
    pub(super) number: u32,
    /// The turn's time, Unix milliseconds.
    pub(super) now: u64,
}

impl Traffic {
    /// `recipients` inboxes, of which each sender writes to one.
    pub(super) fn new(recipients: u32) -> Self {
        let (senders, recipients) = (keys("sender", USERS), keys("recipient", recipients));
        Self { senders, recipients, number: 0, now: T0 }
    }

    /// All recipients log in.
    pub(super) fn log_in(&self, core: &mut Core, fx: &mut impl Effects) {
        for (at, user) in self.recipients.iter().enumerate() {
            let conn = ConnId::new(2, at as u32, 0);
            core.handle_login(fx, self.now, conn, *user, "recipient", 1024);
        }
        self.deliver(core, fx);
    }

    /// A turn's messages. Each turn is a millisecond.
    pub(super) fn send(&mut self, core: &mut Core, fx: &mut impl Effects) {
        self.now += 1;
        self.number += BATCH;
        self.send_last(core, fx);
    }

    /// The messages of the last turn, perhaps once more.
    pub(super) fn send_last(&self, core: &mut Core, fx: &mut impl Effects) {
        for number in self.number - BATCH..self.number {
            // A stride that visits users in no order.
            let at = (u64::from(number) * 2_654_435_761 % u64::from(USERS)) as usize;
            let send = SendRequest {
                conn: ConnId::new(1, at as u32, 0),
                seq: number,
                sender: self.senders[at],
                from: "sender-000012",
                msg_id: MsgId::v7(self.now, u128::from(number)),
                flags: 0,
                recipients: &self.recipients[at % self.recipients.len()].0,
                payload: &PAYLOAD,
            };
            core.handle_send(fx, self.now, &send);
        }
    }

    pub(super) fn deliver(&self, core: &mut Core, fx: &mut impl Effects) {
        while core.poll(fx, self.now, 4096) {}
    }

    pub(super) fn ack(&self, core: &mut Core, fx: &mut impl Notes) {
        let mut unacked = mem::take(fx.unacked());
        for (conn, user, no) in unacked.0.drain(..) {
            core.handle_ack(fx, self.now, conn, user, no);
        }
        *fx.unacked() = unacked;
    }
}
