use super::*;
use crate::limits::{PRESENCE_USERS_MAX, WATCHED_PER_CONNECTION_MAX, WATCHERS_PER_USER_MAX};

impl Node {
    fn ask(&mut self, number: u32, query: u32, names: &[String], watch: bool) -> Vec<Watch> {
        let users = names.iter().map(|name| (key(name), name.as_str()));
        self.core.handle_presence_query(&mut self.fx, conn(number), query, users, watch);
        let said = self.fx.take().into_iter().map(|said| match said {
            Said::Presence { watch, query: answered, .. } => {
                assert_eq!(answered, query);
                watch
            }
            other => panic!("{other:?} for a question"),
        });
        said.collect()
    }

    fn watch(&mut self, number: u32, name: &str) -> Watch {
        self.ask(number, 1, &[name.to_owned()], true)[0]
    }
}

fn change(number: u32, user: &str, online: bool, since_ms: u64) -> Said {
    let (conn, user, watch) = (conn(number), key(user), Watch::Watching);
    Said::Presence { conn, query: 0, user, online, since_ms, watch }
}

#[test]
fn watchers_hear_of_login_and_logout_once_and_not_of_a_takeover() {
    let mut node = Node::new();
    for _ in 0..3 {
        assert_eq!(node.watch(7, "bob"), Watch::Watching, "asking again makes no second watch");
    }
    node.now += 5;
    node.login("bob", 1, 8);
    assert_eq!(node.fx.take(), [Said::Welcome(conn(1), 0), change(7, "bob", true, T0 + 5)]);
    node.now += 5;
    node.login("bob", 2, 8);
    let kick = Said::Kick(conn(1), KickReason::Replaced);
    assert_eq!(node.fx.take(), [kick, Said::Welcome(conn(2), 0)]);
    node.logout("bob", 1);
    assert_eq!(node.fx.take(), []);
    node.logout("bob", 2);
    assert_eq!(node.fx.take(), [change(7, "bob", false, T0 + 10)]);
}

#[test]
fn a_question_tells_the_state_and_leaves_no_watch() {
    let mut node = Node::new();
    node.now += 3;
    node.login("bob", 1, 8);
    node.fx.take();
    let names = ["bob", "nobody"];
    let users = names.map(|name| (key(name), name));
    node.core.handle_presence_query(&mut node.fx, conn(7), 9, users, false);
    let (conn, query, watch) = (conn(7), 9, Watch::Unasked);
    let bob = (key("bob"), true, T0 + 3);
    let nobody = (key("nobody"), false, 0);
    let expected = [bob, nobody].map(|(user, online, since_ms)| Said::Presence {
        conn,
        query,
        user,
        online,
        since_ms,
        watch,
    });
    assert_eq!(node.fx.take(), expected);
    node.logout("bob", 1);
    assert_eq!((node.fx.take(), node.core.gauges()), (vec![], Gauges::default()));
}

#[test]
fn a_watch_ends_with_unwatch_and_with_its_connection() {
    let mut node = Node::new();
    for number in 1..4 {
        assert_eq!(node.watch(number, "bob"), Watch::Watching);
        assert_eq!(node.watch(number, "carol"), Watch::Watching);
    }
    node.core.handle_unwatch(conn(2), [key("bob"), key("nobody")]);
    node.core.handle_gone(conn(3));
    node.core.handle_gone(conn(3));
    node.login("bob", 9, 1);
    assert_eq!(node.fx.take()[1..], [change(1, "bob", true, T0)]);
    node.login("carol", 10, 1);
    assert_eq!(node.fx.take()[1..], [change(2, "carol", true, T0), change(1, "carol", true, T0)]);
    (1..3).for_each(|number| node.core.handle_gone(conn(number)));
    node.logout("bob", 9);
    node.logout("carol", 10);
    assert_eq!((node.fx.take(), node.core.gauges()), (vec![], Gauges::default()));
}

#[test]
fn every_bound_on_watches_is_refused_by_name_and_the_state_is_still_told() {
    let mut node = Node::with(|config| {
        config.watches_max = (WATCHED_PER_CONNECTION_MAX + WATCHERS_PER_USER_MAX) as u32;
    });
    let names: Vec<_> = (0..=WATCHED_PER_CONNECTION_MAX).map(|n| format!("user{n}")).collect();
    let mut told = Vec::new();
    for names in names.chunks(PRESENCE_USERS_MAX) {
        told.extend(node.ask(1, 5, names, true));
    }
    assert_eq!(told.pop(), Some(Watch::ConnectionFull));
    assert_eq!(told, [Watch::Watching; WATCHED_PER_CONNECTION_MAX]);
    for number in 0..WATCHERS_PER_USER_MAX as u32 {
        assert_eq!(node.watch(100 + number, "star"), Watch::Watching);
    }
    assert_eq!(node.watch(2, "star"), Watch::UserFull);
    assert_eq!(node.watch(2, "other"), Watch::PartitionFull);
    assert_eq!(node.core.counters().watches_refused, 3);
    node.core.handle_gone(conn(1));
    assert_eq!(node.watch(2, "other"), Watch::Watching);
    assert_eq!(node.core.gauges().users, 2, "refused watches leave no record behind");
}

#[test]
fn a_question_about_too_many_users_is_cut_and_counted() {
    let mut node = Node::new();
    let names: Vec<_> = (0..PRESENCE_USERS_MAX + 2).map(|n| format!("user{n}")).collect();
    assert_eq!(node.ask(1, 5, &names, false).len(), PRESENCE_USERS_MAX);
    assert_eq!(node.core.counters().queries_cut, 1);
}

#[test]
fn random_watches_agree_with_a_set_of_pairs() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let mut node = Node::new();
        let mut pairs = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let (number, user) = (random.below(6), random.below(6));
            let name = format!("user{user}");
            match random.below(8) {
                0 | 1 => {
                    node.core.handle_unwatch(conn(number), [key(&name)]);
                    pairs.remove(&(user, number));
                }
                2 => {
                    node.core.handle_gone(conn(number));
                    pairs.retain(|(_, watcher)| *watcher != number);
                }
                _ => {
                    node.watch(number, &name);
                    pairs.insert((user, number));
                }
            }
            assert_eq!(node.core.watches.len() as usize, pairs.len(), "seed {seed}");
            node.fx.take();
            node.login(&name, 50, 1);
            let told = node.fx.take().into_iter().filter_map(|said| match said {
                Said::Presence { conn, .. } => Some(conn.slot()),
                _ => None,
            });
            let mut told: Vec<_> = told.collect();
            told.sort_unstable();
            let wanted: Vec<_> =
                pairs.iter().filter(|(watched, _)| *watched == user).map(|pair| pair.1).collect();
            assert_eq!(told, wanted, "seed {seed}");
            node.logout(&name, 50);
            node.fx.take();
        }
    }
}
