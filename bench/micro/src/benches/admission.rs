//! The gate and the rates of a reactor: what a SEND and a connection cost beyond what they cost without limits.

use std::hint::black_box;

use iris_proto::admission::{Gate, Limit, Limits, SendRates, Sizes};

use super::BATCH;
use crate::work::{Bench, Whole, Work};

/// Nanoseconds between two SENDs of a connection, and between two connections.
const STEP: u64 = 1_000_000;
/// Bytes of a SEND of 64 bytes, names and header included.
const FRAME: u64 = 100;
/// Prefixes that connections come from.
const PREFIXES: u64 = 1000;

pub(super) const BENCHES: &[Bench] = &[
    bench("admission/send", "SEND", || sends(limits(false, 2000), true)),
    bench("admission/send-four-limits", "SEND", || sends(limits(true, 2000), true)),
    bench("admission/send-refused", "SEND", || sends(limits(false, 1), false)),
    bench("admission/connection", "connection", connections),
];

const fn bench(name: &'static str, op: &'static str, start: fn() -> Box<dyn Work>) -> Bench {
    Bench { name, op, ops: BATCH as u64, warm: 4, turns: 10, start }
}

fn per_s(units: u64, burst: u64) -> Option<Limit> {
    Limit::new(units, 1_000_000_000, burst)
}

/// Messages and bytes of a connection, and of its user as well.
fn limits(of_user: bool, messages: u64) -> Limits {
    let (messages, bytes) = (per_s(messages, 1), per_s(1 << 20, 1 << 20));
    let user = |limit| if of_user { limit } else { None };
    Limits {
        connection_messages: messages,
        connection_bytes: bytes,
        user_messages: user(messages),
        user_bytes: user(bytes),
        ..Limits::default()
    }
}

fn sends(limits: Limits, go_through: bool) -> Box<dyn Work> {
    let (mut rates, mut now) = (SendRates::default(), 0);
    if !go_through {
        assert!(rates.handle_send(now, &limits, FRAME).is_ok(), "the burst is used up");
    }
    Whole::boxed(move || {
        let mut done = 0;
        for _ in 0..BATCH {
            now += if go_through { STEP } else { 1 };
            let verdict = black_box(&mut rates).handle_send(now, black_box(&limits), FRAME);
            done += u64::from(verdict.is_ok() == go_through);
        }
        done
    })
}

/// Accepted, verified, logged in and gone.
fn connections() -> Box<dyn Work> {
    let limits = Limits {
        user_logins: per_s(1000, 1000),
        accepts: per_s(100_000, 1000),
        prefix_accepts: per_s(1000, 1000),
        prefix_logins: per_s(1000, 1000),
        prefix_connections_max: 10,
        pending_logins_max: 10,
        ..Limits::default()
    };
    let sizes = Sizes { v4_bits: 24, v6_bits: 64, entries: 1 << 12 };
    let (mut gate, mut now) = (Gate::new(limits, sizes, [1, 2], 3), 0_u64);
    Whole::boxed(move || {
        let mut done = 0;
        for _ in 0..BATCH {
            now += STEP;
            let of = u128::from(now / STEP % PREFIXES);
            let address = (0x2001_0db8 << 96 | of << 64 | 1_u128).to_be_bytes();
            let (mut pass, verdict) = gate.handle_accept(now, black_box(&address));
            let login = gate.handle_login(now, &address).and(verdict);
            let user = gate.handle_user_login(now, &of.to_be_bytes());
            gate.handle_settled(&mut pass);
            gate.handle_end(pass, &address);
            done += u64::from(login.and(user).is_ok());
        }
        done
    })
}
