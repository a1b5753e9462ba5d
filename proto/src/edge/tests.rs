//! A router between a scripted reactor and scripted cores.

mod model;
mod presence;

use super::*;
use crate::id::MsgId;
use crate::link::LinkSend;
use crate::peer::PartitionState;
use crate::wire::{MessageHead, ServerFrame, split_frame};

const SHARDS: u16 = 8;
const PARTITIONS: u16 = 2;
const SERVING: PartitionState = PartitionState::Serving;
const BEHIND: PartitionState = PartitionState::Behind;

/// What the router wrote, frame by frame.
#[derive(Default)]
struct Wires {
    to_cores: Vec<Vec<Vec<u8>>>,
    to_clients: Vec<u8>,
    backlog: usize,
}

impl Effects for Wires {
    fn to_core(&mut self, core: CoreIndex, partition: u16) -> &mut Vec<u8> {
        &mut self.to_cores[core][usize::from(partition)]
    }

    fn backlog_bytes(&self, _: CoreIndex, _: u16) -> usize {
        self.backlog
    }

    fn to_client(&mut self, frame: &ToEdge<'_>) {
        frame.encode(&mut self.to_clients);
    }
}

/// A router of two cores.
struct Edge {
    router: Router,
    fx: Wires,
    now: u64,
}

fn conn(slot: u32) -> ConnId {
    ConnId::new(3, slot, 7)
}

/// A user whose shard prefers that core.
fn user_of(core: usize, skip: usize) -> String {
    let names = (0..).map(|n| format!("u{n}"));
    let prefers = |name: &String| {
        let shard = shard_for_user(UserKey::of(name), SHARDS);
        usize::from(weight(shard, 1) < weight(shard, 2)) == core
    };
    names.filter(prefers).nth(skip).unwrap()
}

impl Edge {
    /// Both cores serve.
    fn new() -> Self {
        let mut edge = Self::with(RouterConfig::new(3, SHARDS, vec![1, 2]));
        edge.up(0);
        edge.up(1);
        edge
    }

    /// No core is there.
    fn alone() -> Self {
        Self::with(RouterConfig { settle_ms: 0, ..RouterConfig::new(3, SHARDS, vec![1, 2]) })
    }

    fn with(config: RouterConfig) -> Self {
        let to_cores = vec![vec![Vec::new(); usize::from(PARTITIONS)]; 2];
        let fx = Wires { to_cores, ..Wires::default() };
        Self { router: Router::new(config), fx, now: 10_000 }
    }

    fn up(&mut self, core: usize) {
        self.router.core_up(core, PARTITIONS, &ShardRanges::all(SHARDS));
        self.state(core, SERVING);
    }

    fn state(&mut self, core: usize, state: PartitionState) {
        for partition in 0..PARTITIONS {
            self.router.core_state(self.now, core, partition, state);
        }
        self.poll();
    }

    fn down(&mut self, core: usize) {
        self.router.core_down(&mut self.fx, self.now, core);
        self.fx.to_cores[core].iter_mut().for_each(Vec::clear);
        self.poll();
    }

    fn poll(&mut self) {
        while self.router.poll(&mut self.fx, self.now) {}
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 5 {
            self.now += 5;
            self.poll();
        }
    }

    fn client(&mut self, frame: &ToCore<'_>) {
        self.router.handle_client(&mut self.fx, self.now, frame);
    }

    fn core(&mut self, core: usize, frame: &ToEdge<'_>) {
        self.router.handle_core(&mut self.fx, self.now, core, frame);
    }

    fn login(&mut self, slot: u32, name: &str, window: u32) {
        let user = UserKey::of(name);
        self.client(&ToCore::Login { conn: conn(slot), user, window, session: 0, name });
    }

    fn logout(&mut self, slot: u32, name: &str) {
        self.client(&ToCore::Logout { conn: conn(slot), user: UserKey::of(name) });
    }

    fn ack(&mut self, slot: u32, name: &str, upto: u32) {
        self.client(&ToCore::Ack { conn: conn(slot), user: UserKey::of(name), upto });
    }

    fn send(&mut self, slot: u32, seq: u32, to: &str) {
        let to = UserKey::of(to).0;
        let send = LinkSend {
            conn: conn(slot),
            seq,
            sender: UserKey::of("sender"),
            id: MsgId::v7(1, u128::from(seq)),
            flags: 0,
            from: "sender",
            to: &to,
            payload: &[b'x'; 100],
        };
        self.client(&ToCore::Send(send));
    }

    /// What was written for a core since the last time, as text.
    fn said_to(&mut self, core: usize) -> Vec<String> {
        let mut said = Vec::new();
        for buffer in &mut self.fx.to_cores[core] {
            let bytes = std::mem::take(buffer);
            let mut rest = bytes.as_slice();
            while let Some((frame, after)) = ToCore::split(rest).unwrap() {
                said.push(describe(&frame));
                rest = after;
            }
        }
        said
    }

    /// The names of the logins made at a core since the last time, with their session numbers and windows.
    fn logins_at(&mut self, core: usize) -> Vec<(ConnId, u64, u32)> {
        let mut logins = Vec::new();
        for buffer in &mut self.fx.to_cores[core] {
            let bytes = std::mem::take(buffer);
            let mut rest = bytes.as_slice();
            while let Some((frame, after)) = ToCore::split(rest).unwrap() {
                if let ToCore::Login { conn, session, window, .. } = frame {
                    logins.push((conn, session, window));
                }
                rest = after;
            }
        }
        logins
    }

    /// What clients were told since the last time, as text.
    fn told(&mut self) -> Vec<String> {
        let bytes = std::mem::take(&mut self.fx.to_clients);
        let (mut rest, mut told) = (bytes.as_slice(), Vec::new());
        while let Some((frame, after)) = ToEdge::split(rest).unwrap() {
            told.push(match frame {
                ToEdge::Welcome { conn, .. } => format!("welcome {}", conn.slot()),
                ToEdge::Accepted { conn, first, count, copies } => {
                    format!("accepted {} {first}+{count} x{copies}", conn.slot())
                }
                ToEdge::Rejected { conn, seq, code, .. } => {
                    format!("rejected {} {seq} {}", conn.slot(), code.name())
                }
                ToEdge::Kick { conn, code } => format!("kick {} {}", conn.slot(), code.name()),
                ToEdge::Frame { conn, bytes } => format!("{} {}", content(bytes), conn.slot()),
                ToEdge::Receipt { .. } => "receipt".to_owned(),
            });
            rest = after;
        }
        told
    }

    fn welcome(&mut self, core: usize, login: ConnId, session: u64) {
        self.core(core, &ToEdge::Welcome { conn: login, waiting: 0, session });
    }

    fn deliver(&mut self, core: usize, login: ConnId, no: u32) {
        let head = MessageHead { no, id: MsgId::v7(1, 1), time_ms: 1, flags: 0, from: "zoe" };
        let mut bytes = Vec::new();
        head.encode(b"hi", &mut bytes);
        self.core(core, &ToEdge::Frame { conn: login, bytes: &bytes });
    }
}

fn content(mut bytes: &[u8]) -> String {
    let mut words = Vec::new();
    while let Some((kind, body, rest)) = split_frame(bytes).unwrap() {
        words.push(match ServerFrame::decode(kind, body).unwrap() {
            ServerFrame::Message(head, _) => format!("message {}", head.no),
            ServerFrame::Presence(query, entries) => {
                let users: Vec<_> = entries
                    .iter()
                    .map(|(state, _, user)| format!("{user}={}", state as u8))
                    .collect();
                format!("presence {query} {}", users.join(","))
            }
            other => format!("{other:?}"),
        });
        bytes = rest;
    }
    words.join(" ")
}

fn describe(frame: &ToCore<'_>) -> String {
    match frame {
        ToCore::Login { session, window, name, .. } => format!("login {name} s{session} w{window}"),
        ToCore::Logout { .. } => "logout".to_owned(),
        ToCore::Send(send) => format!("send {}", send.id.0 as u32),
        ToCore::Ack { upto, .. } => format!("ack {upto}"),
        ToCore::Window { window, .. } => format!("window {window}"),
        ToCore::Presence(ask) => {
            let users: Vec<_> = ask.users.iter().collect();
            let watch = if ask.watch { " watch" } else { "" };
            format!("presence {}{watch} {}", ask.query, users.join(","))
        }
        ToCore::Unwatch { users, .. } => {
            format!("unwatch {}", users.iter().collect::<Vec<_>>().join(","))
        }
        ToCore::Receipt(_) => "receipt".to_owned(),
        ToCore::Gone { .. } => "gone".to_owned(),
    }
}

/// The name that the session in a slot has on links for SENDs and presence.
fn stable(edge: &mut Edge, slot: u32) -> ConnId {
    edge.router.sessions.get_mut(conn(slot)).unwrap().stable_name()
}

fn accept(edge: &mut Edge, core: usize, slot: u32, first: u32, count: u16) {
    let conn = stable(edge, slot);
    edge.core(core, &ToEdge::Accepted { conn, first, count, copies: 2 });
}

#[test]
fn weights_are_those_of_the_page() {
    let page = include_str!("../../../docs/LINKS.md");
    for (shard, node) in [(0, 1), (0, 2), (63, 1)] {
        let row = format!("| {shard} | {node} | {:016x} |", weight(ShardId(shard), node));
        assert!(page.contains(&row), "{row}");
    }
}

#[test]
fn weights_spread_shards_over_cores() {
    for nodes in [2, 3, 5] {
        let mut counts = vec![0_usize; nodes];
        for shard in 0..4096 {
            let of = |node: &usize| weight(ShardId(shard), *node as u32 + 1);
            counts[(0..nodes).max_by_key(of).unwrap()] += 1;
        }
        let fair = 4096 / nodes;
        assert!(counts.iter().all(|count| count.abs_diff(fair) < fair / 5), "{counts:?}");
    }
}

#[test]
fn a_session_lives_at_the_core_that_its_shard_prefers() {
    let mut edge = Edge::new();
    for core in [0, 1] {
        let name = user_of(core, 0);
        edge.login(core as u32, &name, 9);
        let [(login, 0, 9)] = edge.logins_at(core)[..] else { panic!("one login") };
        edge.welcome(core, login, 5);
        assert_eq!(edge.told(), [format!("welcome {core}")]);
        edge.deliver(core, login, 1);
        assert_eq!(edge.told(), [format!("message 1 {core}")]);
        edge.ack(core as u32, &name, 1);
        edge.client(&ToCore::Window {
            conn: conn(core as u32),
            user: UserKey::of(&name),
            window: 4,
        });
        edge.logout(core as u32, &name);
        assert_eq!(edge.said_to(core), ["ack 1", "window 4", "logout"]);
        assert_eq!(edge.said_to(1 - core), [""; 0]);
    }
    assert_eq!(edge.router.gauges(), Gauges::default());
}

#[test]
fn answers_carry_the_clients_numbers_and_join() {
    let mut edge = Edge::new();
    let (here, there) = (user_of(0, 0), user_of(1, 0));
    edge.login(0, "amy", 9);
    for (seq, to) in [(u32::MAX, &here), (0, &here), (1, &there), (2, &here)] {
        edge.send(0, seq, to);
    }
    edge.told();
    accept(&mut edge, 0, 0, 0, 2);
    assert_eq!(edge.told(), ["accepted 0 4294967295+2 x2"]);
    accept(&mut edge, 1, 0, 2, 1);
    let name = stable(&mut edge, 0);
    let refused = ToEdge::Rejected { conn: name, seq: 3, code: Code::InboxFull, retry_after_ms: 9 };
    edge.core(0, &refused);
    assert_eq!(edge.told(), ["accepted 0 1+1 x2", "rejected 0 2 inbox_full"]);
    assert_eq!(edge.router.gauges().pending, 0);
}

#[test]
fn made_up_answers_give_nothing() {
    let mut edge = Edge::new();
    edge.login(0, "amy", 9);
    edge.send(0, 5, "bob");
    edge.told();
    let name = stable(&mut edge, 0);
    for conn in [conn(0), conn(1), ConnId::new(3, 1 << 20, 0), ConnId(u64::MAX)] {
        if conn != name {
            edge.core(0, &ToEdge::Accepted { conn, first: 0, count: u16::MAX, copies: 1 });
            edge.core(0, &ToEdge::Welcome { conn, waiting: 0, session: 1 });
            edge.core(0, &ToEdge::Kick { conn, code: Code::Replaced });
            edge.core(0, &ToEdge::Frame { conn, bytes: &[] });
        }
    }
    for seq in [1, 7, u32::MAX] {
        edge.core(0, &ToEdge::Accepted { conn: name, first: seq, count: 1, copies: 1 });
        let code = Code::LowDisk;
        edge.core(0, &ToEdge::Rejected { conn: name, seq, code, retry_after_ms: 1 });
    }
    assert_eq!(edge.told(), [""; 0]);
    assert!(edge.router.counters().stale > 8);
    edge.core(0, &ToEdge::Accepted { conn: name, first: 0, count: u16::MAX, copies: 1 });
    edge.core(0, &ToEdge::Accepted { conn: name, first: 0, count: 1, copies: 1 });
    assert_eq!(edge.told(), ["accepted 0 5+1 x1"], "once");
}

#[test]
fn what_a_dead_core_left_unanswered_goes_to_the_other_one_in_order_with_the_same_ids() {
    let mut edge = Edge::new();
    let bob = user_of(0, 0);
    edge.login(0, "amy", 9);
    (0..5).for_each(|seq| edge.send(0, seq, &bob));
    accept(&mut edge, 0, 0, 0, 2);
    edge.told();
    edge.said_to(1);
    edge.down(0);
    let resent: Vec<_> =
        edge.said_to(1).into_iter().filter(|said| said.starts_with("send")).collect();
    assert_eq!(resent, ["send 2", "send 3", "send 4"]);
    edge.send(0, 5, &bob);
    assert_eq!(edge.said_to(1), ["send 5"]);
    accept(&mut edge, 1, 0, 2, 4);
    assert_eq!(edge.told(), ["accepted 0 2+4 x2"]);
    let counters = *edge.router.counters();
    assert_eq!((counters.resent, counters.failovers > 0), (3, true));
}

#[test]
fn without_any_core_sends_wait_a_bounded_time_and_are_refused_by_name() {
    let mut edge = Edge::new();
    edge.login(0, "amy", 9);
    edge.down(0);
    edge.down(1);
    edge.send(0, 1, "bob");
    edge.told();
    edge.pass(4900);
    assert_eq!(edge.told(), [""; 0]);
    edge.send(0, 2, "bob");
    edge.pass(105);
    assert_eq!(edge.told(), ["rejected 0 1 shard_unavailable"]);
    edge.up(1);
    assert!(edge.said_to(1).contains(&"send 2".to_owned()), "the younger one still goes");
    edge.pass(5000);
    assert_eq!(edge.told(), ["rejected 0 2 shard_unavailable"], "no core answered");
    accept(&mut edge, 1, 0, 1, 1);
    assert_eq!(edge.told(), [""; 0], "an answer that comes too late is none");
}

#[test]
fn a_session_moves_and_its_numbers_go_on() {
    let mut edge = Edge::new();
    let bob = user_of(0, 0);
    edge.login(0, &bob, 10);
    let [(first, 0, 10)] = edge.logins_at(0)[..] else { panic!("one login") };
    edge.welcome(0, first, 77);
    (1..=4).for_each(|no| edge.deliver(0, first, no));
    edge.ack(0, &bob, 1);
    edge.said_to(0);
    edge.told();
    edge.down(0);
    let [(second, 77, 7)] = edge.logins_at(1)[..] else {
        panic!("three of ten are unacknowledged")
    };
    assert_ne!(first, second);
    edge.welcome(1, second, 77);
    edge.deliver(0, first, 5);
    assert_eq!(edge.told(), [""; 0], "what still comes for the old login is nobody's");
    (1..=3).for_each(|no| edge.deliver(1, second, no));
    assert_eq!(edge.told(), ["message 5 0", "message 6 0", "message 7 0"]);
    edge.ack(0, &bob, 3);
    edge.ack(0, &bob, 6);
    assert_eq!(edge.said_to(1), ["window 9", "ack 2", "window 10"]);
    edge.ack(0, &bob, 8);
    assert_eq!(edge.told(), ["kick 0 bad_ack"], "never delivered");
    assert_eq!(edge.said_to(1), ["logout"]);
}

#[test]
fn logins_are_repeated_at_a_bounded_rate() {
    let mut edge = Edge::new();
    let mut config = edge.router.config.clone();
    config.relogins_per_s = 1000;
    edge.router = Router::new(config);
    edge.up(0);
    edge.up(1);
    for slot in 0..500 {
        edge.login(slot, &user_of(0, slot as usize), 1);
    }
    for (login, ..) in edge.logins_at(0) {
        edge.welcome(0, login, 9);
    }
    edge.down(0);
    let mut logins = edge.logins_at(1).len();
    assert!(logins <= 50);
    edge.pass(100);
    logins += edge.logins_at(1).len();
    assert!((100..=160).contains(&logins), "{logins} in a tenth of a second");
    edge.pass(1000);
    logins += edge.logins_at(1).len();
    assert_eq!(logins, 500);
    assert_eq!(edge.router.counters().relogins, 500);
}

#[test]
fn a_core_that_drains_is_left_in_order_and_nobody_gets_an_error() {
    let mut edge = Edge::new();
    let bob = user_of(0, 0);
    edge.login(0, &bob, 9);
    let [(login, ..)] = edge.logins_at(0)[..] else { panic!("one login") };
    edge.welcome(0, login, 3);
    edge.send(0, 0, &bob);
    edge.said_to(0);
    edge.state(0, PartitionState::Draining);
    edge.send(0, 1, &bob);
    assert_eq!((edge.said_to(0), edge.said_to(1)), (vec![], vec![]), "held back");
    accept(&mut edge, 0, 0, 0, 1);
    edge.pass(5);
    assert_eq!(edge.said_to(0), ["logout"]);
    assert_eq!(edge.said_to(1), ["send 1", &format!("login {bob} s3 w9")]);
    edge.told();
    // One that never answers is left all the same.
    let mut edge = Edge::new();
    edge.login(0, &bob, 9);
    edge.send(0, 0, &bob);
    edge.state(0, PartitionState::Draining);
    edge.said_to(1);
    edge.pass(250);
    assert!(edge.said_to(1).contains(&"send 0".to_owned()));
}

#[test]
fn shards_return_to_a_core_that_stays_up() {
    let mut edge = Edge::new();
    let bob = user_of(0, 0);
    edge.login(0, &bob, 9);
    edge.down(0);
    edge.pass(50);
    edge.said_to(1);
    edge.up(0);
    edge.pass(2900);
    assert_eq!(edge.said_to(0), [""; 0]);
    edge.pass(200);
    assert_eq!(edge.said_to(1), ["logout"]);
    assert_eq!(edge.said_to(0).len(), 1, "the login");
    assert!(edge.router.counters().moves > 0);
}

#[test]
fn shards_return_to_a_core_only_once_it_lacks_nothing() {
    let mut edge = Edge::new();
    let bob = user_of(0, 0);
    edge.login(0, &bob, 9);
    edge.down(0);
    edge.pass(50);
    edge.said_to(1);
    edge.up(0);
    edge.state(0, BEHIND);
    edge.pass(20_000);
    edge.send(0, 0, &bob);
    assert_eq!((edge.said_to(0), edge.said_to(1)), (vec![], vec!["send 0".to_owned()]));
    accept(&mut edge, 1, 0, 0, 1);
    edge.state(0, SERVING);
    edge.pass(2900);
    assert_eq!(edge.said_to(0), [""; 0], "it lacked something until now");
    edge.pass(200);
    assert_eq!(edge.said_to(0).len(), 1, "the login");
}

#[test]
fn a_core_that_lacks_records_is_used_if_no_other_is() {
    let mut edge = Edge::new();
    let bob = user_of(0, 0);
    edge.login(0, &bob, 9);
    edge.said_to(0);
    // Where the shard is, it stays, also if the other one lacks something, too.
    edge.state(0, BEHIND);
    edge.state(1, BEHIND);
    edge.pass(20_000);
    edge.send(0, 0, &bob);
    assert_eq!((edge.said_to(0), edge.said_to(1)), (vec!["send 0".to_owned()], vec![]));
    edge.down(0);
    assert_eq!(edge.said_to(1).len(), 2, "the login and the SEND");
    accept(&mut edge, 1, 0, 0, 1);
    // The one that has all is better, after a while.
    edge.up(0);
    edge.pass(2900);
    assert_eq!(edge.said_to(0), [""; 0]);
    edge.pass(200);
    assert_eq!(edge.said_to(0).len(), 1, "the login");
}

#[test]
fn a_shard_that_is_refused_is_asked_for_elsewhere_or_again() {
    let mut edge = Edge::new();
    let bob = user_of(0, 0);
    edge.login(0, "amy", 9);
    edge.said_to(0);
    edge.send(0, 4, &bob);
    edge.send(0, 5, &bob);
    let name = stable(&mut edge, 0);
    let refused = |seq| ToEdge::Rejected {
        conn: name,
        seq,
        code: Code::ShardUnavailable,
        retry_after_ms: 1000,
    };
    edge.said_to(1);
    edge.core(0, &refused(0));
    assert_eq!(edge.said_to(1)[..2], ["send 4", "send 5"]);
    edge.core(0, &refused(1));
    edge.core(1, &refused(0));
    edge.core(1, &refused(1));
    edge.told();
    edge.pass(900);
    assert_eq!((edge.said_to(0).len(), edge.told().len()), (2, 0), "only what was sent before");
    edge.pass(200);
    let again = [edge.said_to(0), edge.said_to(1)].concat();
    let sends = again.iter().filter(|said| said.starts_with("send")).count();
    assert_eq!(sends, 2, "after a second one of them is asked again: {again:?}");
}

#[test]
fn a_partition_that_does_not_answer_is_left_if_there_is_another_one() {
    let mut edge = Edge::new();
    let bob = user_of(0, 0);
    edge.login(0, "amy", 9);
    edge.send(0, 4, &bob);
    edge.said_to(1);
    edge.pass(990);
    assert_eq!(edge.said_to(1), [""; 0]);
    edge.pass(30);
    assert!(edge.said_to(1).contains(&"send 4".to_owned()));
    accept(&mut edge, 0, 0, 0, 1);
    assert_eq!(edge.told(), ["accepted 0 4+1 x2"], "late, and true");
    accept(&mut edge, 1, 0, 0, 1);
    assert_eq!(edge.told(), [""; 0], "once");
}

#[test]
fn unanswered_bytes_are_bounded_for_each_connection_and_in_all() {
    let mut edge = Edge::alone();
    edge.login(0, "amy", 9);
    let mut config = edge.router.config.clone();
    (config.conn_bytes_max, config.bytes_max) = (1000, 2000);
    edge.router.config = config;
    (0..10).for_each(|seq| edge.send(0, seq, "bob"));
    let told = edge.told();
    assert!((2..9).contains(&told.len()) && told.iter().all(|t| t.ends_with("overloaded")));
    for slot in 1..20 {
        edge.login(slot, &format!("u{slot}"), 9);
        edge.send(slot, 0, "bob");
    }
    assert!(edge.router.gauges().pending_bytes <= 2000);
    for slot in 0..20 {
        edge.logout(slot, "");
    }
    let gauges = edge.router.gauges();
    assert_eq!((gauges.pending, gauges.pending_bytes, gauges.sessions), (0, 0, 0));
}

#[test]
fn a_partition_that_takes_nothing_holds_sends_back() {
    let mut edge = Edge::new();
    let bob = user_of(0, 0);
    edge.login(0, "amy", 9);
    edge.said_to(0);
    edge.fx.backlog = 1 << 30;
    edge.send(0, 0, &bob);
    edge.pass(50);
    assert_eq!(edge.said_to(0), [""; 0]);
    edge.fx.backlog = 0;
    edge.pass(10);
    assert_eq!(edge.said_to(0), ["send 0"]);
}

#[test]
fn a_login_waits_for_a_core_and_is_sent_away_when_none_comes() {
    let mut edge = Edge::alone();
    edge.login(0, "amy", 9);
    edge.pass(1000);
    edge.login(1, "bob", 9);
    edge.pass(4000);
    assert_eq!(edge.told(), ["kick 0 unavailable"]);
    edge.logout(0, "amy");
    edge.up(0);
    assert_eq!(edge.said_to(0), ["login bob s0 w9"]);
}

#[test]
fn a_kick_ends_the_session_and_a_shard_that_is_elsewhere_only_the_login() {
    let mut edge = Edge::new();
    let bob = user_of(0, 0);
    edge.login(0, &bob, 9);
    let [(login, ..)] = edge.logins_at(0)[..] else { panic!("one login") };
    edge.core(0, &ToEdge::Kick { conn: login, code: Code::Unavailable });
    edge.pass(5);
    assert_eq!(edge.told(), [""; 0]);
    let [(login, ..)] = edge.logins_at(1)[..] else { panic!("it goes to the other one") };
    edge.core(1, &ToEdge::Kick { conn: login, code: Code::Replaced });
    assert_eq!(edge.told(), ["kick 0 replaced"]);
    edge.down(1);
    edge.logout(0, &bob);
    assert_eq!(edge.said_to(0), [""; 0], "it is over and moves nowhere");
}

#[test]
fn delivery_numbers_that_are_used_up_send_the_client_away() {
    let mut edge = Edge::new();
    let bob = user_of(0, 0);
    edge.login(0, &bob, 9);
    let [(login, ..)] = edge.logins_at(0)[..] else { panic!("one login") };
    edge.welcome(0, login, 3);
    edge.deliver(0, login, u32::MAX - 1);
    edge.down(0);
    let [(login, ..)] = edge.logins_at(1)[..] else { panic!("one login") };
    edge.told();
    edge.deliver(1, login, 1);
    edge.deliver(1, login, 2);
    assert_eq!(edge.told(), [format!("message {} 0", u32::MAX), "kick 0 draining".to_owned()]);
}

#[test]
fn shards_are_counted_at_the_core_that_they_go_to() {
    assert_eq!(Edge::alone().router.shards_by_core(), [0, 0]);
    let mut edge = Edge::new();
    edge.pass(10_000);
    let shards = edge.router.shards_by_core();
    assert!(shards.iter().all(|shards| *shards > 0), "both are preferred for some: {shards:?}");
    assert_eq!(shards.iter().sum::<u16>(), SHARDS);
    edge.down(0);
    assert_eq!(edge.router.shards_by_core(), [0, SHARDS]);
}
