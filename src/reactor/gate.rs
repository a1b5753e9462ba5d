//! What the gate and the rates decide, done: who is let in, who is told what, and what is counted.

use super::Reactor;
use super::conn::address_of;
use crate::metrics::{CloseReason, LimitHit, RejectReason};
use iris_proto::admission::{Bound, Over, Pass, Refused, SendRates};
use iris_proto::id::ConnId;
use iris_proto::wire::{ClientFrame, Code};
use std::net::SocketAddr;

impl Reactor {
    /// Decides over a connection that was just accepted. `None`: it is to be closed without a word.
    pub(super) fn judge(&mut self, peer: SocketAddr) -> Option<(Pass, Option<Refused>)> {
        self.metrics.accepted.add(1);
        let (pass, verdict) = self.gate.handle_accept(self.clock.monotonic_ns(), &address_of(peer));
        match verdict {
            Ok(()) => Some((pass, None)),
            Err(refused) if pass.is_told() => Some((pass, Some(refused))),
            Err(refused) => {
                self.metrics.limited.add(refused.bound.into(), 1);
                self.metrics.closed.add(CloseReason::from(code_of(refused.bound)), 1);
                self.metrics.shed.add(1);
                None
            }
        }
    }

    /// Tells a client that is not let in when to come again, and ends the connection.
    pub(super) fn send_away(&mut self, id: ConnId, refused: Refused) {
        self.metrics.limited.add(refused.bound.into(), 1);
        let code = code_of(refused.bound);
        self.fail_until(id, code, CloseReason::from(code), refused.retry_after_ms);
    }

    /// Whether the token of a HELLO may be verified. If not, the connection is ending.
    pub(super) fn may_try_login(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return false };
        let verdict = self.gate.handle_login(self.clock.monotonic_ns(), &conn.address());
        if let Err(refused) = verdict {
            self.send_away(id, refused);
        }
        verdict.is_ok()
    }

    /// Whether a frame of a live connection is within its rates. If not, a SEND is refused and told, and whoever goes on
    /// far beyond ends.
    pub(super) fn is_within_rates(
        &mut self,
        id: ConnId,
        frame: &ClientFrame<'_>,
        bytes: u64,
    ) -> bool {
        // Answers to what others sent and to what the server asked: a client does not choose how many. And the one HELLO.
        if let ClientFrame::Ack(_) | ClientFrame::Pong(_) | ClientFrame::Hello(_) = frame {
            return true;
        }
        let now_ns = self.clock.monotonic_ns();
        let Self { conns, gate, .. } = self;
        let Some(conn) = conns.get_mut(id) else { return false };
        let user = conn.user;
        let rates =
            conn.rates.get_or_insert_with(|| SendRates::new(gate.user_rates(&user.0)).into());
        let flood_retry_ms = match frame {
            ClientFrame::Send(send) => match rates.handle_send(now_ns, gate.limits(), bytes) {
                Ok(()) => return true,
                Err(Over::Refuse(bound, retry_after_ms)) => {
                    self.metrics.limited.add(bound.into(), 1);
                    self.metrics.rejected.add(RejectReason::SendRate, 1);
                    self.answer_refusal(id, send.seq, Code::SendRate, retry_after_ms);
                    return false;
                }
                Err(Over::Flood(retry_after_ms)) => retry_after_ms,
            },
            _ => match rates.handle_other(now_ns, gate.limits(), bytes) {
                Ok(()) => return true,
                Err(retry_after_ms) => retry_after_ms,
            },
        };
        self.metrics.limited.add(LimitHit::FloodFactor, 1);
        self.fail_until(id, Code::Flood, CloseReason::Flood, flood_retry_ms);
        false
    }

    /// Takes limits that were read anew, and shows how full the gate's tables are. Once a second.
    pub(super) fn look_at_limits(&mut self) {
        if let Some((revision, limits)) = self.node.take_limits(self.conns.reactor().into()) {
            self.gate.set_limits(limits);
            self.metering = limits.meter_sends();
            self.metrics.limits_revision.set(revision);
        }
        self.metrics.pending_logins.set(self.gate.pending().into());
        self.metrics.limits_crowded_out.set(self.gate.crowded_out());
        self.metrics.limits_table_bytes.set(self.gate.table_bytes() as u64);
    }
}

/// What a client is told that is not let in.
fn code_of(bound: Bound) -> Code {
    match bound {
        Bound::PrefixConnectionsMax => Code::ConnectionLimit,
        _ => Code::LoginRate,
    }
}
