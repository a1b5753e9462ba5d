//! Sessions that an operator ends: the user is looked for among all connections, some in each turn.

use super::Reactor;
use crate::eject::Eject;
use crossbeam_channel::Receiver;
use iris_proto::wire::Code;

/// Places looked at in one turn (I8): some hundred microseconds.
const LOOKED_AT_PER_TURN: u32 = 4096;

/// Wishes to end a user's sessions, and how far the search for the first of them is.
#[derive(Debug)]
pub(super) struct Ejects {
    wishes: Receiver<Eject>,
    now: Option<Search>,
}

#[derive(Debug)]
struct Search {
    wish: Eject,
    from: u32,
    ended: u64,
}

impl Ejects {
    pub(super) fn new(wishes: Receiver<Eject>) -> Self {
        Self { wishes, now: None }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.now.is_none() && self.wishes.is_empty()
    }
}

impl Reactor {
    /// Looks for sessions to end. Whether there was anything to do.
    pub(super) fn eject_some(&mut self) -> bool {
        let next = || {
            let wish = self.ejects.wishes.try_recv().ok()?;
            Some(Search { wish, from: 0, ended: 0 })
        };
        let Some(mut search) = self.ejects.now.take().or_else(next) else { return false };
        let end = self.conns.slots().min(search.from + LOOKED_AT_PER_TURN);
        for slot in search.from..end {
            let Some(id) = self.conns.in_slot(slot) else { continue };
            let Some(conn) = self.conns.get_mut(id) else { continue };
            // Who has no user yet has a default one, which nobody's name gives.
            if conn.user == search.wish.user && conn.logged_in && !conn.closing {
                search.ended += 1;
                self.fail(id, Code::LoggedOut);
            }
        }
        search.from = end;
        if end < self.conns.slots() {
            self.ejects.now = Some(search);
        } else if let Some(ended) = &search.wish.ended {
            // Who asked may have given up.
            let _ = ended.send(search.ended);
        }
        true
    }
}
