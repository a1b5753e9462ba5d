//! Questions and watches across moves.

use super::super::watches::NameList;
use super::*;
use crate::link::PresenceAsk;
use crate::wire::{PresenceState, put_presence};

fn ask(edge: &mut Edge, query: u32, watch: bool, users: &[&str]) {
    let list = NameList::of(users.iter().copied());
    let ask = PresenceAsk { conn: conn(0), query, watch, users: list.names() };
    edge.client(&ToCore::Presence(ask));
}

fn tell(edge: &mut Edge, core: usize, query: u32, users: &[&str]) {
    let entries: Vec<_> = users.iter().map(|user| (PresenceState::Online, 1, *user)).collect();
    let mut bytes = Vec::new();
    put_presence(&mut bytes, query, &entries);
    let conn = stable(edge, 0);
    edge.core(core, &ToEdge::Frame { conn, bytes: &bytes });
}

fn about_presence(said: Vec<String>) -> Vec<String> {
    said.into_iter().filter(|said| said.contains("presence") || said.contains("watch")).collect()
}

#[test]
fn a_question_is_cut_by_shard_and_each_user_is_named_once() {
    let mut edge = Edge::new();
    edge.login(0, "amy", 9);
    let (here, there) = (user_of(0, 0), user_of(1, 0));
    ask(&mut edge, 4, false, &[&here, &there]);
    edge.told();
    assert_eq!(about_presence(edge.said_to(0)), [format!("presence 4 {here}")]);
    assert_eq!(about_presence(edge.said_to(1)), [format!("presence 4 {there}")]);
    tell(&mut edge, 0, 4, &[&here, "somebody else"]);
    tell(&mut edge, 0, 4, &[&here]);
    tell(&mut edge, 1, 4, &[&there]);
    let expected = [format!("presence 4 {here}=1 0"), format!("presence 4 {there}=1 0")];
    assert_eq!(edge.told(), expected);
    assert!(edge.router.asks.is_empty() && edge.router.asks.names() == 0);
}

#[test]
fn an_open_question_follows_its_shard_or_is_answered_with_no_state() {
    let mut edge = Edge::new();
    edge.login(0, "amy", 9);
    let here = user_of(0, 0);
    ask(&mut edge, 4, false, &[&here]);
    edge.said_to(1);
    edge.down(0);
    assert_eq!(about_presence(edge.said_to(1)), [format!("presence 4 {here}")]);
    edge.down(1);
    edge.told();
    edge.pass(5000);
    assert_eq!(edge.told(), [format!("presence 4 {here}=2 0")]);
    tell(&mut edge, 1, 4, &[&here]);
    assert_eq!(edge.told(), [""; 0]);
}

#[test]
fn watches_follow_their_shard_and_changes_of_another_core_do_not_count() {
    let mut edge = Edge::new();
    edge.login(0, "amy", 9);
    let here = user_of(0, 0);
    ask(&mut edge, 4, true, &[&here]);
    tell(&mut edge, 0, 4, &[&here]);
    edge.said_to(1);
    edge.told();
    edge.down(0);
    assert_eq!(about_presence(edge.said_to(1)), [""; 0], "users come over first");
    edge.pass(400);
    assert_eq!(about_presence(edge.said_to(1)), [format!("presence 0 watch {here}")]);
    tell(&mut edge, 1, 0, &[&here]);
    assert_eq!(edge.told(), [format!("presence 0 {here}=1 0")]);
    tell(&mut edge, 0, 0, &[&here]);
    assert_eq!(edge.told(), [""; 0]);
    edge.up(0);
    edge.pass(4000);
    assert_eq!(about_presence(edge.said_to(1)), [format!("unwatch {here}")]);
    assert_eq!(about_presence(edge.said_to(0)), [format!("presence 0 watch {here}")]);
    edge.logout(0, "amy");
    assert_eq!(about_presence(edge.said_to(0)), ["unwatch "]);
    assert_eq!(edge.router.asks.names(), 0);
}

#[test]
fn unwatched_users_are_watched_nowhere_any_more() {
    let mut edge = Edge::new();
    edge.login(0, "amy", 9);
    let (one, two) = (user_of(0, 0), user_of(0, 1));
    ask(&mut edge, 4, true, &[&one, &two]);
    tell(&mut edge, 0, 4, &[&one, &two]);
    edge.said_to(0);
    let list = NameList::of([one.as_str()].into_iter());
    edge.client(&ToCore::Unwatch { conn: conn(0), users: list.names() });
    assert_eq!(about_presence(edge.said_to(0)), [format!("unwatch {one}")]);
    edge.down(0);
    edge.pass(400);
    assert_eq!(about_presence(edge.said_to(1)), [format!("presence 0 watch {two}")]);
    let all = NameList::of(std::iter::empty());
    edge.client(&ToCore::Unwatch { conn: conn(0), users: all.names() });
    assert_eq!(about_presence(edge.said_to(1)), ["unwatch "]);
    assert_eq!(edge.router.asks.names(), 0);
}

#[test]
fn more_names_than_may_be_watched_are_refused() {
    let mut edge = Edge::new();
    edge.login(0, "amy", 9);
    edge.router.config.names_max = 4;
    let users: Vec<String> = (0..4).map(|n| format!("w{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    ask(&mut edge, 4, true, &users);
    let refused: usize = edge.told().iter().map(|told| told.matches("=2").count()).sum();
    assert_eq!(refused, 2, "a name that is watched and asked for counts twice");
}
