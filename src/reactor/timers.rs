//! What time brings: logins that took too long, silence, tokens that end, and quiet connections.

use super::Reactor;
use super::conn::{Parting, Reading};
use super::lanes::Lanes;
use crate::metrics::{CloseReason, FrameType};
use iris_proto::id::ConnId;
use iris_proto::session::{Due, Seconds, Waiting};
use iris_proto::wire::{Code, put_ping};

/// A hot connection is quiet after this many seconds without bytes.
const QUIET_S: u32 = 2;
/// How far ahead the wheel looks; a later deadline is looked at then.
const WHEEL_REACH_S: Seconds = 255;

impl Reactor {
    pub(super) fn take_time(&mut self, lanes: &mut Lanes) -> bool {
        let drained = self.is_draining() && self.drain_some(lanes);
        let now_s = self.clock.seconds();
        let is_next = now_s != self.now_s;
        self.now_s = now_s;
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.clock.monotonic_ms(), &mut due);
        let worked = drained || !due.is_empty();
        for id in due.drain(..) {
            self.look_at(lanes, id);
        }
        self.due = due;
        if !is_next {
            return worked;
        }
        self.demote_quiet(lanes);
        self.look_at_limits();
        if let Some(tls) = &mut self.tls {
            tls.renew();
        }
        if let Some(routing) = &mut self.routing {
            routing.count(&self.metrics);
        }
        self.metrics.out_bytes.set(self.out_bytes as u64);
        self.metrics.rings.set(lanes.len() as u64);
        self.metrics.slots_used.set(lanes.used());
        self.metrics
            .slots_limit
            .set(self.settings.rings_max as u64 * u64::from(self.settings.ring_slots));
        true
    }

    /// Has a connection looked at, at `at_s` or before. An entry of the wheel that is later is dropped when it comes.
    pub(super) fn look_again(&mut self, id: ConnId, at_s: Seconds) {
        let at_s = at_s.clamp(self.now_s + 1, self.now_s + WHEEL_REACH_S);
        let Some(conn) = self.conns.get_mut(id) else { return };
        if at_s < conn.timer_s {
            conn.timer_s = at_s;
            self.wheel.insert(at_s, id);
        }
    }

    fn look_at(&mut self, lanes: &mut Lanes, id: ConnId) {
        let now_s = self.now_s;
        let (patience, slow) = (self.settings.patience, self.settings.slow);
        let chance = self.chance(id);
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.timer_s > now_s {
            return;
        }
        conn.timer_s = Seconds::MAX;
        if conn.closing {
            let end_s = conn.bytes_s;
            if now_s < end_s && conn.parting == Parting::Saying {
                return self.look_again(id, end_s);
            }
            return self.end(lanes, id);
        }
        let now_ns = self.clock.monotonic_ns();
        if conn.rates.as_ref().is_some_and(|rates| rates.is_idle(now_ns)) {
            conn.rates = None;
        }
        let sending = conn.out.as_ref().filter(|out| out.sending.is_some());
        if let Some((taken_s, bytes)) = sending.map(|out| (out.taken_s, out.queued_bytes())) {
            let waiting = Waiting { bytes, total: self.out_bytes, taken_s };
            if slow.ends(now_s, &waiting) {
                return self.fail(id, Code::SlowReader);
            }
            self.look_again(id, slow.look_s(&waiting));
        }
        let Some(conn) = self.conns.get_mut(id) else { return };
        match conn.session.handle_time(now_s, &patience, chance) {
            Due::At(at_s) => self.look_again(id, at_s),
            Due::Ping(at_s) => {
                self.look_again(id, at_s);
                let echo = self.clock.unix_ms().to_le_bytes();
                self.metrics.frames_out.add(FrameType::Ping, 1);
                self.write(id, |out| {
                    out.flush_run();
                    put_ping(&mut out.pending, echo);
                    out.frames += 1;
                });
            }
            // It was good when it came: told apart from a login with a token that has expired.
            Due::Close(Code::TokenExpired) => {
                self.fail_because(id, Code::TokenExpired, CloseReason::SessionExpired);
            }
            Due::Close(code) => self.fail(id, code),
        }
    }

    fn demote_quiet(&mut self, lanes: &mut Lanes) {
        let mut hot = std::mem::take(&mut self.hot);
        hot.retain(|id| {
            let Some(conn) = self.conns.get_mut(*id) else { return false };
            if conn.reading != Reading::Multishot {
                conn.listed_hot = false;
                return false;
            }
            let quiet = conn.bytes_s + QUIET_S < self.now_s && !conn.closing;
            if quiet {
                conn.listed_hot = false;
                lanes.lane(usize::from(conn.lane)).demote(conn, *id);
            }
            !quiet
        });
        self.hot = hot;
    }
}
