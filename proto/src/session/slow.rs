//! Clients that take less than they are sent: what may wait for one, when its requests are left unread, when it ends,
//! and what becomes of news that are only worth something while they are new.
//!
//! Messages are bounded by credit: a core gives out no more than [`RECV_WINDOW_BYTES`] that are not acknowledged, and what
//! is not given out stays in the log. Answers are bounded here: a client that does not take them is not read. Changes of
//! presence are bounded by whom they are about: only the last one of each user waits.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Seconds;
use crate::limits::{FRAME_BODY_BYTES_MAX, RECV_WINDOW_BYTES};
use crate::wire::{HEADER_BYTES, ServerFrame, Writer, kind, put_frame, split_frame};

/// A client that took nothing for so long has stopped reading, and may be the one to end when too much waits for all.
/// Clocks of seconds: between one and two.
pub const STALLED_S: Seconds = 2;
/// Bytes of changes in one frame, about.
const CHANGES_FRAME_BYTES: usize = 16 << 10;
/// Memory of a change that waits, besides its name: a node of the tree has it and its neighbours.
const CHANGE_BYTES: usize = 64;

/// What may wait for clients that do not take it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlowBounds {
    /// Bytes that wait for one client behind what is being sent, above which its requests are left unread until half of it
    /// waits.
    pub bytes_max: usize,
    /// Bytes that wait for all clients of a reactor, above which those that have stopped reading are ended.
    pub total_max: usize,
    /// How long a client for whom something waits may take nothing.
    pub slow_s: Seconds,
}

/// What waits for one client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Bytes for it.
    pub bytes: usize,
    /// Bytes for all clients of its reactor.
    pub total: usize,
    /// When it took something last, or when there was something to take.
    pub taken_s: Seconds,
}

impl SlowBounds {
    /// Bytes that wait for one client, at most: what it may have asked for before it was left unread comes to the rest.
    pub fn most(&self) -> usize {
        self.bytes_max + RECV_WINDOW_BYTES + 2 * FRAME_BODY_BYTES_MAX
    }

    /// Whether a client's requests are left unread while so many bytes wait for it.
    pub fn leaves_unread(&self, bytes: usize) -> bool {
        bytes > self.bytes_max
    }

    /// Whether they are read again.
    pub fn reads_again(&self, bytes: usize) -> bool {
        bytes <= self.bytes_max / 2
    }

    /// When to look at a client that has not taken all.
    pub fn look_s(&self, waiting: &Waiting) -> Seconds {
        let patience_s = if waiting.total > self.total_max { STALLED_S } else { self.slow_s };
        waiting.taken_s.saturating_add(patience_s.min(self.slow_s))
    }

    /// Whether the client is ended: it took nothing for too long, too much waits for it, or it has stopped reading and too
    /// much waits for all.
    pub fn ends(&self, now_s: Seconds, waiting: &Waiting) -> bool {
        let silent_s = now_s.saturating_sub(waiting.taken_s);
        let counts = waiting.bytes > 0;
        let is_stalled = silent_s >= STALLED_S.min(self.slow_s);
        let over_all = waiting.total > self.total_max;
        counts && (silent_s >= self.slow_s || is_stalled && over_all) || waiting.bytes > self.most()
    }
}

/// Changes of presence that wait for one client: the last one of each user.
#[derive(Debug, Default)]
pub struct Changes {
    of: BTreeMap<Box<str>, (u8, u64)>,
    bytes: usize,
}

impl Changes {
    /// Whether a frame tells of changes, and answers no question.
    pub fn are(frame: &[u8]) -> bool {
        let query = frame.get(HEADER_BYTES..HEADER_BYTES + 4);
        frame.first() == Some(&kind::PRESENCE) && query == Some(&[0; 4])
    }

    /// Memory of what waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in a frame that tells of changes. How many that waited are gone because of it; `None` if it is none of a
    /// core's: nothing was taken.
    pub fn take(&mut self, frame: &[u8]) -> Option<u64> {
        let Ok(Some((kind, body, []))) = split_frame(frame) else { return None };
        let Ok(ServerFrame::Presence(0, entries)) = ServerFrame::decode(kind, body) else {
            return None;
        };
        let mut replaced = 0;
        for (state, since_ms, user) in entries.iter() {
            match self.of.entry(user.into()) {
                Entry::Occupied(mut place) => {
                    place.insert((state as u8, since_ms));
                    replaced += 1;
                }
                Entry::Vacant(place) => {
                    place.insert((state as u8, since_ms));
                    self.bytes += CHANGE_BYTES + user.len();
                }
            }
        }
        Some(replaced)
    }

    /// Writes all of them out. How many frames that was.
    pub fn put(self, out: &mut Vec<u8>) -> u32 {
        let mut left = self.of.into_iter().peekable();
        let mut frames = 0;
        while left.peek().is_some() {
            frames += 1;
            put_frame(out, kind::PRESENCE, |w| {
                w.u32(0);
                let mut bytes = 0;
                while bytes < CHANGES_FRAME_BYTES
                    && let Some((user, (state, since_ms))) = left.next()
                {
                    bytes += 10 + user.len();
                    put_change(w, state, since_ms, &user);
                }
            });
        }
        frames
    }
}

fn put_change(out: &mut Writer<'_>, state: u8, since_ms: u64, user: &str) {
    out.u8(state).u64(since_ms).str8(user);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{USER_BYTES_MAX, WATCHED_PER_CONNECTION_MAX};
    use crate::wire::{PresenceState, put_presence};

    const BOUNDS: SlowBounds = SlowBounds { bytes_max: 1000, total_max: 10_000, slow_s: 30 };

    fn waiting(bytes: usize, total: usize, taken_s: Seconds) -> Waiting {
        Waiting { bytes, total, taken_s }
    }

    #[test]
    fn a_client_that_takes_nothing_for_the_time_is_ended_and_one_that_takes_something_is_not() {
        assert!(!BOUNDS.ends(129, &waiting(1, 1, 100)));
        assert!(BOUNDS.ends(130, &waiting(1, 1, 100)));
        assert!(!BOUNDS.ends(130, &waiting(BOUNDS.most(), 1, 101)));
        assert!(!BOUNDS.ends(1000, &waiting(0, 1, 100)), "nothing waits for it");
        assert!(BOUNDS.ends(100, &waiting(BOUNDS.most() + 1, 1, 100)));
    }

    #[test]
    fn when_too_much_waits_for_all_those_who_stopped_are_ended_and_those_who_read_are_not() {
        assert!(BOUNDS.ends(100 + STALLED_S, &waiting(1, 10_001, 100)));
        assert!(!BOUNDS.ends(100 + STALLED_S - 1, &waiting(900, 10_001, 100)));
        assert!(!BOUNDS.ends(100 + STALLED_S, &waiting(1, 10_000, 100)));
        assert_eq!(BOUNDS.look_s(&waiting(1, 10_001, 100)), 100 + STALLED_S);
        assert_eq!(BOUNDS.look_s(&waiting(1, 10_000, 100)), 130);
    }

    #[test]
    fn a_client_is_left_unread_above_the_bound_and_read_again_below_half_of_it() {
        assert!(!BOUNDS.leaves_unread(1000) && BOUNDS.leaves_unread(1001));
        assert!(!BOUNDS.reads_again(501) && BOUNDS.reads_again(500));
    }

    fn frame(entries: &[(PresenceState, u64, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        put_presence(&mut out, 0, entries);
        out
    }

    fn told(bytes: &[u8]) -> Vec<(u8, u64, String)> {
        let (mut rest, mut told) = (bytes, Vec::new());
        while let Some((kind, body, after)) = split_frame(rest).unwrap() {
            rest = after;
            let Ok(ServerFrame::Presence(0, entries)) = ServerFrame::decode(kind, body) else {
                panic!("changes are frames of their own")
            };
            told.extend(entries.iter().map(|(of, ms, user)| (of as u8, ms, user.to_owned())));
        }
        told
    }

    #[test]
    fn the_last_change_of_each_user_waits() {
        let mut changes = Changes::default();
        let (on, off) = (PresenceState::Online, PresenceState::Offline);
        assert_eq!(changes.take(&frame(&[(on, 1, "amy"), (on, 2, "bob")])), Some(0));
        assert_eq!(changes.take(&frame(&[(off, 3, "amy")])), Some(1));
        assert_eq!(changes.take(&frame(&[(on, 4, "amy"), (off, 5, "amy")])), Some(2));
        let bytes = changes.bytes();
        let mut out = Vec::new();
        assert_eq!(changes.put(&mut out), 1);
        assert_eq!(told(&out), [(0, 5, "amy".to_owned()), (1, 2, "bob".to_owned())]);
        assert_eq!(bytes, 2 * CHANGE_BYTES + 6);
    }

    #[test]
    fn what_waits_is_bounded_by_who_is_watched_however_often_they_come_and_go() {
        let mut changes = Changes::default();
        let users = 0..WATCHED_PER_CONNECTION_MAX;
        let name = |user: usize| format!("{user:0>USER_BYTES_MAX$}");
        for round in 0..3 {
            for user in users.clone() {
                let entry = [(PresenceState::Online, round, &*name(user))];
                changes.take(&frame(&entry)).unwrap();
            }
        }
        let most = WATCHED_PER_CONNECTION_MAX * (CHANGE_BYTES + USER_BYTES_MAX);
        assert_eq!(changes.bytes(), most);
        let mut out = Vec::new();
        assert!(changes.put(&mut out) > 1, "several frames");
        let told = told(&out);
        assert_eq!(told.len(), WATCHED_PER_CONNECTION_MAX);
        assert!(told.iter().all(|(_, since_ms, _)| *since_ms == 2));
    }

    #[test]
    fn answers_and_other_frames_are_no_changes() {
        let mut answer = Vec::new();
        put_presence(&mut answer, 7, &[(PresenceState::Online, 1, "amy")]);
        assert!(!Changes::are(&answer) && Changes::default().take(&answer).is_none());
        let change = frame(&[(PresenceState::Online, 1, "amy")]);
        assert!(Changes::are(&change));
        assert!(!Changes::are(&change[..6]) && Changes::default().take(&change[..20]).is_none());
        let two = [change.clone(), change].concat();
        assert!(Changes::default().take(&two).is_none());
    }
}
