//! Who watches whom, and whether the changes of those who log in and out are told.
//!
//! Users of a thread that watch, watch others of the same thread, in turn, so that each is watched by about as many. A
//! change is missed when its watcher is told of a later one, or of nothing, instead: the server conflates changes that come
//! quickly after each other (docs/PROTOCOL.md, section 8).

use crate::names::user_name;
use iris_proto::limits::PRESENCE_USERS_MAX;
use iris_proto::wire::{kind, put_frame};

/// The flag of a PRESENCE_QUERY that asks to be told of changes.
const WATCH: u8 = 1;

/// A user that logs in and out.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    is_online: bool,
    /// Changes so far.
    changes: u32,
    /// When the newest one was, and the one before.
    at_ns: u64,
    before_ns: u64,
}

/// The watches of one thread.
#[derive(Debug)]
pub struct Watching {
    run: u32,
    watchers: Vec<u32>,
    watched: Vec<(u32, Watched)>,
    /// How many each one watches.
    each: usize,
    /// By watcher and place in its list: the newest change it was told of.
    told: Vec<u32>,
    /// Changes are counted.
    counts: bool,
}

/// What came of being told something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// Changes that are settled with it: the one told, and the missed ones before.
    pub settled: u32,
    /// How long ago the change told was, if it was a new one.
    pub age_ns: Option<u64>,
}

impl Watching {
    /// `watchers` watch `each` of `watched` users each; both ascending.
    pub fn new(run: u32, watchers: Vec<u32>, watched: &[u32], each: u32) -> Self {
        let each = (each as usize).min(watched.len());
        Self {
            run,
            told: vec![0; watchers.len() * each],
            watchers,
            watched: watched.iter().map(|user| (*user, Watched::default())).collect(),
            each,
            counts: false,
        }
    }

    /// How many answers all watchers wait for.
    pub fn watches(&self) -> u64 {
        self.told.len() as u64
    }

    /// From here on changes are counted.
    pub fn begin(&mut self) {
        for watcher in 0..self.watchers.len() {
            for place in 0..self.each {
                let (_, watched) = self.watched[self.nth(watcher, place)];
                self.told[watcher * self.each + place] = watched.changes;
            }
        }
        self.counts = true;
    }

    /// The `place`th one that a watcher watches.
    fn nth(&self, watcher: usize, place: usize) -> usize {
        (watcher * self.each + place) % self.watched.len()
    }

    /// Where in the list of a watcher one that is watched is.
    fn slot(&self, watcher: usize, watched: usize) -> Option<usize> {
        let first = watcher * self.each % self.watched.len().max(1);
        let place = (watched + self.watched.len() - first) % self.watched.len();
        (place < self.each).then_some(watcher * self.each + place)
    }

    fn place_of(&self, user: u32) -> Option<usize> {
        self.watched.binary_search_by_key(&user, |(user, _)| *user).ok()
    }

    /// Appends the queries of a watcher that has logged in; nothing for anybody else.
    pub fn watch(&self, user: u32, out: &mut Vec<u8>) {
        let Ok(watcher) = self.watchers.binary_search(&user) else { return };
        let names: Vec<String> = (0..self.each)
            .map(|place| user_name(self.run, self.watched[self.nth(watcher, place)].0))
            .collect();
        for (query, names) in (1..).zip(names.chunks(PRESENCE_USERS_MAX)) {
            put_frame(out, kind::PRESENCE_QUERY, |frame| {
                frame.u32(query).u8(WATCH).u16(names.len() as u16);
                names.iter().for_each(|name| {
                    frame.str8(name);
                });
            });
        }
    }

    /// A user came or went; how many are to be told.
    pub fn changed(&mut self, user: u32, is_online: bool, now_ns: u64) -> u32 {
        let Some(place) = self.place_of(user) else { return 0 };
        let (_, watched) = &mut self.watched[place];
        if watched.is_online == is_online {
            return 0;
        }
        *watched = Watched {
            is_online,
            changes: watched.changes + 1,
            at_ns: now_ns,
            before_ns: watched.at_ns,
        };
        let watchers = 0..self.watchers.len();
        let all = watchers.filter(|watcher| self.slot(*watcher, place).is_some()).count();
        if self.counts { all as u32 } else { 0 }
    }

    /// A watcher is told that a user is online, or not.
    pub fn told(&mut self, watcher: u32, user: &str, is_online: bool, now_ns: u64) -> Told {
        let place =
            user.rsplit_once('-').and_then(|(_, index)| u32::from_str_radix(index, 16).ok());
        let place = place.and_then(|user| self.place_of(user));
        let (Ok(watcher), Some(place)) = (self.watchers.binary_search(&watcher), place) else {
            return Told::default();
        };
        let Some(slot) = self.slot(watcher, place) else { return Told::default() };
        let (_, watched) = &self.watched[place];
        let old = &mut self.told[slot];
        let (change, at_ns) = if watched.is_online == is_online {
            (watched.changes, watched.at_ns)
        } else if is_online && *old + 1 >= watched.changes {
            // Its WELCOME is still on the way to us.
            (watched.changes + 1, now_ns)
        } else {
            (watched.changes.saturating_sub(1), watched.before_ns)
        };
        if !self.counts || change <= *old {
            return Told::default();
        }
        let settled = change - std::mem::replace(old, change);
        Told { settled, age_ns: Some(now_ns.saturating_sub(at_ns)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iris_proto::wire::{ClientFrame, split_frame};

    fn watching() -> Watching {
        let mut watching = Watching::new(0xabc, vec![0, 2, 4], &[10, 12, 14], 2);
        [10, 12, 14].iter().for_each(|user| assert_eq!(watching.changed(*user, true, 1), 0));
        watching.begin();
        watching
    }

    #[test]
    fn each_one_is_watched_by_as_many() {
        let mut watching = watching();
        assert_eq!(watching.watches(), 6);
        for user in [10, 12, 14] {
            assert_eq!(watching.changed(user, false, 5), 2, "two are to be told of {user}");
        }
        assert_eq!(watching.changed(0, false, 5), 0, "nobody watches a watcher");
    }

    #[test]
    fn a_change_is_told_once_and_has_an_age() {
        let mut watching = watching();
        let name = user_name(0xabc, 10);
        assert_eq!(watching.told(0, &name, true, 90), Told::default(), "that was the answer");
        watching.changed(10, false, 100);
        assert_eq!(watching.told(0, &name, false, 130), Told { settled: 1, age_ns: Some(30) });
        assert_eq!(watching.told(0, &name, false, 140), Told::default());
        assert_eq!(watching.told(4, &name, false, 140), Told::default(), "it watches others");
    }

    #[test]
    fn a_change_that_is_told_after_the_next_one_was_made_counts_as_itself() {
        let mut watching = watching();
        let name = user_name(0xabc, 10);
        watching.changed(10, false, 100);
        watching.changed(10, true, 200);
        assert_eq!(watching.told(0, &name, false, 210), Told { settled: 1, age_ns: Some(110) });
        assert_eq!(watching.told(0, &name, true, 220), Told { settled: 1, age_ns: Some(20) });
        watching.changed(10, false, 300);
        watching.changed(10, true, 400);
        let told = watching.told(0, &name, true, 410);
        assert_eq!(told, Told { settled: 2, age_ns: Some(10) }, "the one between was missed");
    }

    #[test]
    fn a_login_may_be_told_before_its_welcome_is_here() {
        let mut watching = watching();
        let name = user_name(0xabc, 10);
        watching.changed(10, false, 100);
        watching.told(0, &name, false, 110);
        assert_eq!(watching.told(0, &name, true, 190), Told { settled: 1, age_ns: Some(0) });
        watching.changed(10, true, 200);
        assert_eq!(watching.told(0, &name, true, 210), Told::default());
        watching.changed(10, false, 300);
        assert_eq!(watching.told(0, &name, true, 390), Told { settled: 2, age_ns: Some(0) });
    }

    #[test]
    fn a_watcher_asks_for_its_users_and_nobody_else_asks() {
        let watching = watching();
        let mut out = Vec::new();
        watching.watch(10, &mut out);
        assert!(out.is_empty());
        watching.watch(2, &mut out);
        let (kind, body, rest) = split_frame(&out).unwrap().unwrap();
        let ClientFrame::PresenceQuery(query) = ClientFrame::decode(kind, body).unwrap() else {
            panic!("not a PRESENCE_QUERY")
        };
        let users: Vec<&str> = query.users.iter().collect();
        assert!(rest.is_empty() && query.watch && query.query == 1);
        assert_eq!(users, [user_name(0xabc, 14), user_name(0xabc, 10)]);
    }
}
