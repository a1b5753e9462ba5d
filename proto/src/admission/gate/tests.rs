use super::super::Limit;
use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const S: u64 = 1_000_000_000;
const SIZES: Sizes = Sizes { v4_bits: 24, v6_bits: 64, entries: 1024 };

fn gate(limits: Limits) -> Gate {
    Gate::new(limits, SIZES, [1, 2], 3)
}

fn limit(per_s: u64, burst: u64) -> Option<Limit> {
    Some(Limit::new(per_s, S, burst).unwrap())
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> Key {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

fn v6(high: u64, low: u64) -> Key {
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

fn user(number: u8) -> Key {
    [number; 16]
}

/// By which limit a connection is not let in.
fn refused(gate: &mut Gate, now_ns: u64, address: Key) -> Option<Bound> {
    gate.handle_accept(now_ns, &address).1.err().map(|refused| refused.bound)
}

#[test]
fn addresses_of_one_prefix_are_one_and_of_two_are_two() {
    for (one, other, same) in [
        (v4(192, 0, 2, 1), v4(192, 0, 2, 255), true),
        (v4(192, 0, 2, 1), v4(192, 0, 3, 1), false),
        (v6(0x2001_0db8_0000_0001, 1), v6(0x2001_0db8_0000_0001, u64::MAX), true),
        (v6(0x2001_0db8_0000_0001, 1), v6(0x2001_0db8_0000_0002, 1), false),
        (v4(0, 0, 0, 1), v6(0, 1), false),
    ] {
        assert_eq!(prefix_of(&one, &SIZES) == prefix_of(&other, &SIZES), same, "{one:?} {other:?}");
    }
    for v4_bits in 0..=32 {
        let sizes = Sizes { v4_bits, ..SIZES };
        assert_eq!(prefix_of(&v4(255, 255, 255, 255), &sizes)[..12], v4(0, 0, 0, 0)[..12]);
    }
    let whole = Sizes { v4_bits: 32, v6_bits: 128, ..SIZES };
    let none = Sizes { v4_bits: 0, v6_bits: 0, ..SIZES };
    let address = v6(u64::MAX, 77);
    assert_eq!((prefix_of(&address, &whole), prefix_of(&address, &none)), (address, [0; 16]));
}

#[test]
fn each_limit_of_accepts_refuses_by_its_name_and_takes_nothing_for_who_is_refused() {
    let here = v4(192, 0, 2, 1);
    for (limits, bound) in [
        (Limits { accepts: limit(1, 2), ..Limits::default() }, Bound::Accepts),
        (Limits { prefix_accepts: limit(1, 2), ..Limits::default() }, Bound::PrefixAccepts),
        (Limits { prefix_connections_max: 2, ..Limits::default() }, Bound::PrefixConnectionsMax),
        (Limits { pending_logins_max: 2, ..Limits::default() }, Bound::PendingLoginsMax),
    ] {
        let mut gate = gate(limits);
        assert!((0..2).all(|_| refused(&mut gate, S, here).is_none()));
        let before = (gate.pending, gate.accepts);
        for _ in 0..1000 {
            assert_eq!(refused(&mut gate, S, here), Some(bound));
        }
        assert_eq!((gate.pending, gate.accepts), before);
    }
}

#[test]
fn a_prefix_that_is_refused_uses_up_nothing_of_what_others_share() {
    let mut gate =
        gate(Limits { accepts: limit(1, 10), prefix_accepts: limit(1, 1), ..Limits::default() });
    assert_eq!(refused(&mut gate, 0, v4(192, 0, 2, 1)), None);
    for _ in 0..1000 {
        assert_eq!(refused(&mut gate, 0, v4(192, 0, 2, 1)), Some(Bound::PrefixAccepts));
    }
    for other in 3..12 {
        assert_eq!(refused(&mut gate, 0, v4(192, 0, other, 1)), None);
    }
    assert_eq!(refused(&mut gate, 0, v4(192, 0, 12, 1)), Some(Bound::Accepts));
}

#[test]
fn who_logs_in_or_leaves_makes_room_once() {
    let mut gate =
        gate(Limits { pending_logins_max: 1, prefix_connections_max: 2, ..Limits::default() });
    let here = v4(192, 0, 2, 1);
    let (mut first, verdict) = gate.handle_accept(0, &here);
    assert_eq!(verdict, Ok(()));
    assert_eq!(refused(&mut gate, 0, here), Some(Bound::PendingLoginsMax));
    gate.handle_settled(&mut first);
    gate.handle_settled(&mut first);
    assert_eq!(gate.pending(), 0);
    let (second, verdict) = gate.handle_accept(0, &here);
    assert_eq!((verdict, gate.pending()), (Ok(()), 1));
    gate.handle_end(second, &here);
    assert_eq!(gate.pending(), 0);
    let (mut third, verdict) = gate.handle_accept(0, &here);
    assert_eq!(verdict, Ok(()));
    gate.handle_settled(&mut third);
    assert_eq!(refused(&mut gate, 0, here), Some(Bound::PrefixConnectionsMax));
    gate.handle_end(first, &here);
    assert_eq!(refused(&mut gate, 0, here), None);
}

#[test]
fn some_of_the_refused_are_told_and_the_rest_is_closed_without_a_word() {
    let mut gate = gate(Limits { accepts: limit(1, 1), ..Limits::default() });
    let here = v4(192, 0, 2, 1);
    assert_eq!(refused(&mut gate, 0, here), None);
    let passes: Vec<Pass> =
        (0..REFUSALS_TOLD_MAX + 10).map(|_| gate.handle_accept(0, &here).0).collect();
    let told = passes.iter().filter(|pass| pass.is_told()).count();
    assert_eq!(told, REFUSALS_TOLD_MAX as usize);
    assert!(!gate.handle_accept(S / 2, &here).0.is_told(), "so many are being told still");
    passes.into_iter().for_each(|pass| gate.handle_end(pass, &here));
    assert_eq!((gate.told, gate.pending()), (0, 1));
    // Each is gone at once from here on; a second has so many answers, and no more.
    let told = (0..10_000_u64).filter(|n| {
        let (pass, verdict) = gate.handle_accept(S / 2 + n * 1000, &here);
        gate.handle_end(pass, &here);
        verdict.is_err() && pass.is_told()
    });
    let told = told.count();
    assert!((512..600).contains(&told), "{told}");
}

#[test]
fn who_is_sent_away_together_comes_back_apart_and_never_early() {
    let mut gate = gate(Limits { accepts: limit(1, 1), ..Limits::default() });
    let here = v4(192, 0, 2, 1);
    assert_eq!(refused(&mut gate, 0, here), None);
    let mut waits: Vec<u32> =
        (0..1000).map(|_| gate.handle_accept(0, &here).1.unwrap_err().retry_after_ms).collect();
    assert!(waits.iter().all(|wait| (1000..2000).contains(wait)));
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 400, "{} different waits", waits.len());
}

#[test]
fn logins_of_a_prefix_and_of_a_user_are_limited_each_by_itself() {
    let limits = Limits {
        prefix_logins: limit(1, 2),
        user_logins: Some(Limit::new(2, 60 * S, 1).unwrap()),
        ..Limits::default()
    };
    let mut gate = gate(limits);
    let here = v4(192, 0, 2, 1);
    assert!((0..2).all(|_| gate.handle_login(0, &here).is_ok()));
    let refused = gate.handle_login(0, &v4(192, 0, 2, 200)).unwrap_err();
    assert_eq!(refused.bound, Bound::PrefixLogins);
    assert_eq!(gate.handle_login(0, &v4(192, 0, 3, 1)), Ok(()));
    assert_eq!(gate.handle_user_login(0, &user(1)), Ok(()));
    let refused = gate.handle_user_login(0, &user(1)).unwrap_err();
    assert_eq!(refused.bound, Bound::UserLogins);
    assert!((30_000..60_000).contains(&refused.retry_after_ms));
    assert_eq!(gate.handle_user_login(0, &user(2)), Ok(()));
    assert_eq!(gate.handle_user_login(30 * S, &user(1)), Ok(()));
}

#[test]
fn what_a_user_used_up_waits_for_them_and_never_shrinks() {
    let limit = Limit::new(1, S, 10).unwrap();
    let mut gate = gate(Limits { user_messages: Some(limit), ..Limits::default() });
    let rates = |units| {
        let mut rates = UserRates::default();
        rates.messages.take(0, &limit, units);
        rates
    };
    assert_eq!(gate.user_rates(&user(1)), UserRates::default());
    gate.keep_user_rates(0, &user(1), rates(5));
    // The end of an older connection may come after that of a newer one.
    gate.keep_user_rates(0, &user(1), rates(3));
    assert_eq!(gate.user_rates(&user(1)), rates(5));
    assert_eq!(gate.user_rates(&user(2)), UserRates::default());
    gate.keep_user_rates(9 * S, &user(3), rates(9));
    assert_eq!(gate.user_rates(&user(3)), UserRates::default(), "it has run out");
}

#[test]
fn limits_that_change_take_hold_at_once_and_open_connections_end_in_peace() {
    let here = v4(192, 0, 2, 1);
    let mut gate = gate(Limits::default());
    assert_eq!(gate.table_bytes(), 0, "nothing is kept that no limit asks for");
    let (before, verdict) = gate.handle_accept(0, &here);
    assert_eq!(verdict, Ok(()));
    gate.set_limits(Limits { prefix_connections_max: 1, ..Limits::default() });
    let bytes = gate.table_bytes();
    let (after, verdict) = gate.handle_accept(0, &here);
    assert_eq!(verdict, Ok(()));
    assert_eq!(refused(&mut gate, 0, here), Some(Bound::PrefixConnectionsMax));
    gate.handle_end(before, &here);
    assert_eq!(refused(&mut gate, 0, here), Some(Bound::PrefixConnectionsMax));
    gate.set_limits(Limits::default());
    assert_eq!(refused(&mut gate, 0, here), None);
    gate.handle_end(after, &here);
    gate.set_limits(Limits { accepts: limit(1, 1), ..Limits::default() });
    assert_eq!(refused(&mut gate, 0, here), None);
    assert_eq!(refused(&mut gate, 0, here), Some(Bound::Accepts));
    assert_eq!(gate.table_bytes(), bytes);
}

#[test]
fn a_hundred_thousand_prefixes_cost_what_the_table_was_made_for() {
    let limits =
        Limits { prefix_accepts: limit(1, 1), prefix_connections_max: 5, ..Limits::default() };
    let mut gate = Gate::new(limits, Sizes { entries: 65_536, ..SIZES }, [5, 6], 7);
    let bytes = gate.table_bytes();
    assert!(bytes <= 65_536 * 48, "{bytes}");
    let mut open = Vec::new();
    for number in 0..100_000_u64 {
        let address = v6(0x2001_0db8_0000_0000 | number, 1);
        let (pass, verdict) = gate.handle_accept(0, &address);
        assert_eq!(verdict, Ok(()), "who finds no room is let in");
        open.push((pass, address));
    }
    assert_eq!((gate.table_bytes(), gate.pending()), (bytes, 100_000));
    assert!(gate.crowded_out() >= 100_000 - 65_536);
    open.into_iter().for_each(|(pass, address)| gate.handle_end(pass, &address));
    assert_eq!((gate.table_bytes(), gate.pending()), (bytes, 0));
}

proptest! {
    /// Against plain counts: connections of a prefix and pending ones never pass their bounds, and nobody is refused
    /// by a bound that is not reached.
    #[test]
    fn counts_are_those_of_a_list(
        steps in prop::collection::vec((0_u8..3, 0_u8..8, any::<prop::sample::Index>()), 1..200),
        pending_max in 1_u32..10,
        prefix_max in 1_u32..6,
    ) {
        let limits = Limits {
            pending_logins_max: pending_max,
            prefix_connections_max: prefix_max,
            ..Limits::default()
        };
        let mut gate = gate(limits);
        let mut open: Vec<(Pass, u8, bool)> = Vec::new();
        for (step, prefix, index) in steps {
            let address = v4(10, 0, prefix, 1);
            match step {
                0 => {
                    let pending = open.iter().filter(|(_, _, pending)| *pending).count() as u32;
                    let mut counts = HashMap::<u8, u32>::new();
                    open.iter().for_each(|(_, of, _)| *counts.entry(*of).or_default() += 1);
                    let (pass, verdict) = gate.handle_accept(0, &address);
                    let count = counts.get(&prefix).copied().unwrap_or(0);
                    let expected = if pending >= pending_max {
                        Some(Bound::PendingLoginsMax)
                    } else {
                        (count >= prefix_max).then_some(Bound::PrefixConnectionsMax)
                    };
                    prop_assert_eq!(verdict.err().map(|refused| refused.bound), expected);
                    match verdict {
                        Ok(()) => open.push((pass, prefix, true)),
                        Err(_) => gate.handle_end(pass, &address),
                    }
                }
                1 if !open.is_empty() => {
                    let (pass, _, pending) = index.get_mut(&mut open);
                    gate.handle_settled(pass);
                    *pending = false;
                }
                2 if !open.is_empty() => {
                    let (pass, of, _) = open.swap_remove(index.index(open.len()));
                    gate.handle_end(pass, &v4(10, 0, of, 1));
                }
                _ => {}
            }
            let pending = open.iter().filter(|(_, _, pending)| *pending).count();
            prop_assert_eq!(gate.pending() as usize, pending);
        }
    }
}
