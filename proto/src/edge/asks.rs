//! Questions about presence that are not answered yet: each user asked for is named exactly once, whatever cores do.

use super::watches::NameList;
use super::{CoreIndex, Effects, Router};
use crate::id::{ConnId, ShardId};
use crate::link::{PresenceAsk, ToCore, ToEdge};
use crate::wire::{PresenceState, ServerFrame, put_presence, split_frame};

/// Users of one shard that a question names and no core has told of.
#[derive(Debug)]
struct Ask {
    conn: ConnId,
    name: ConnId,
    query: u32,
    watch: bool,
    shard: ShardId,
    users: Vec<Box<str>>,
    came_ms: u64,
}

/// All open questions, and how many names are kept in all.
#[derive(Debug, Default)]
pub(super) struct Asks {
    open: Vec<Ask>,
    names: usize,
}

impl Asks {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Names kept, of questions and watches.
    pub(super) fn names(&self) -> usize {
        self.names
    }

    pub(super) fn names_added(&mut self, count: usize) {
        self.names += count;
    }

    pub(super) fn names_removed(&mut self, count: usize) {
        self.names -= count;
    }

    /// A connection is gone.
    pub(super) fn forget(&mut self, conn: ConnId) {
        let Self { open, names } = self;
        open.retain(|ask| {
            let stays = ask.conn != conn;
            *names -= if stays { 0 } else { ask.users.len() };
            stays
        });
    }

    /// A core told of a user: whether somebody still asks.
    fn answer(&mut self, name: ConnId, query: u32, user: &str) -> bool {
        let of_query = |ask: &&mut Ask| ask.name == name && ask.query == query;
        for ask in self.open.iter_mut().filter(of_query) {
            if let Some(at) = ask.users.iter().position(|asked| &**asked == user) {
                ask.users.swap_remove(at);
                self.names -= 1;
                self.open.retain(|ask| !ask.users.is_empty());
                return true;
            }
        }
        false
    }
}

impl Router {
    /// A question of a client, cut into one for each shard.
    pub(super) fn ask(&mut self, fx: &mut impl Effects, now_ms: u64, ask: &PresenceAsk<'_>) {
        let Some(session) = self.sessions.get_mut(ask.conn) else { return };
        let (conn, name) = (ask.conn, session.stable_name());
        let mut users: Vec<(ShardId, &str)> =
            ask.users.iter().map(|user| (self.shard_of_name(user), user)).collect();
        users.sort_unstable();
        users.dedup();
        let mut refused = Vec::new();
        for of_shard in users.chunk_by(|a, b| a.0 == b.0) {
            let shard = of_shard[0].0;
            let mut kept: Vec<&str> = Vec::with_capacity(of_shard.len());
            for (_, user) in of_shard {
                let has_room = self.asks.names < self.config.names_max
                    && (!ask.watch || self.note_watch(conn, user, shard));
                if has_room { &mut kept } else { &mut refused }.push(*user);
            }
            if kept.is_empty() {
                continue;
            }
            self.asks.names += kept.len();
            self.put_ask(fx, shard, (name, ask.query, ask.watch), &kept);
            self.asks.open.push(Ask {
                conn,
                name,
                query: ask.query,
                watch: ask.watch,
                shard,
                users: kept.into_iter().map(Into::into).collect(),
                came_ms: now_ms,
            });
        }
        tell_refused(fx, conn, ask.query, refused.into_iter());
    }

    /// Puts a question to the core of the shard, if there is one.
    fn put_ask(
        &self,
        fx: &mut impl Effects,
        shard: ShardId,
        (conn, query, watch): (ConnId, u32, bool),
        users: &[impl AsRef<str>],
    ) {
        if let Some(core) = self.shards[usize::from(shard.0)].at {
            let list = NameList::of(users.iter().map(AsRef::as_ref));
            let ask = PresenceAsk { conn, query, watch, users: list.names() };
            ToCore::Presence(ask).encode(fx.to_core(core, self.cores.partition(core, shard)));
        }
    }

    /// A shard moved: its open questions are put to the new core.
    pub(super) fn asks_moved(&self, fx: &mut impl Effects, shard: ShardId) {
        for ask in self.asks.open.iter().filter(|ask| ask.shard == shard) {
            self.put_ask(fx, shard, (ask.name, ask.query, ask.watch), &ask.users);
        }
    }

    /// Questions that no core answered in time: the state is not told.
    pub(super) fn asks_take_time(&mut self, fx: &mut impl Effects, now_ms: u64) {
        let wait_ms = self.config.send_wait_ms;
        let mut open = std::mem::take(&mut self.asks.open);
        open.retain(|ask| {
            if ask.came_ms + wait_ms > now_ms {
                return true;
            }
            self.asks.names -= ask.users.len();
            if ask.watch {
                ask.users.iter().for_each(|user| self.drop_watch(ask.conn, user));
            }
            tell_refused(fx, ask.conn, ask.query, ask.users.iter().map(|user| &**user));
            false
        });
        self.asks.open = open;
    }

    /// PRESENCE frames of a core: answers to open questions, and changes of users whose shard it has.
    pub(super) fn presence(
        &mut self,
        fx: &mut impl Effects,
        core: CoreIndex,
        name: ConnId,
        bytes: &[u8],
    ) {
        let Some(conn) = self.sessions.of_stable_name(name).map(|session| session.conn) else {
            return;
        };
        let (mut rest, mut out) = (bytes, std::mem::take(&mut self.scratch));
        out.clear();
        while let Ok(Some((kind, body, after))) = split_frame(rest) {
            rest = after;
            let Ok(ServerFrame::Presence(query, entries)) = ServerFrame::decode(kind, body) else {
                self.counters.stale += 1;
                continue;
            };
            let mut told = Vec::new();
            for (state, since_ms, user) in entries.iter() {
                let counts = if query == 0 {
                    self.shards[usize::from(self.shard_of_name(user).0)].at == Some(core)
                } else {
                    self.asks.answer(name, query, user)
                };
                if state == PresenceState::Refused {
                    self.drop_watch(conn, user);
                }
                if counts {
                    told.push((state, since_ms, user));
                } else {
                    self.counters.stale += 1;
                }
            }
            if !told.is_empty() {
                put_presence(&mut out, query, &told);
            }
        }
        if !out.is_empty() {
            fx.to_client(&ToEdge::Frame { conn, bytes: &out });
        }
        self.scratch = out;
    }
}

fn tell_refused<'a>(
    fx: &mut impl Effects,
    conn: ConnId,
    query: u32,
    users: impl Iterator<Item = &'a str>,
) {
    let told: Vec<_> = users.map(|user| (PresenceState::Refused, 0, user)).collect();
    if !told.is_empty() {
        let mut bytes = Vec::new();
        put_presence(&mut bytes, query, &told);
        fx.to_client(&ToEdge::Frame { conn, bytes: &bytes });
    }
}
