//! Watches of presence: kept here by name, so that they can be repeated where their shard went.

use super::sessions::Session;
use super::{CoreIndex, Effects, Router};
use crate::id::{ConnId, ShardId, UserKey};
use crate::limits::WATCHED_PER_CONNECTION_MAX;
use crate::link::{PresenceAsk, ToCore};
use crate::wire::Names;

/// One user that a connection watches.
#[derive(Debug)]
struct Watch {
    name: Box<str>,
    shard: ShardId,
    /// The shard's version when the core was asked, which core that was, and on which link.
    version: u32,
    core: Option<CoreIndex>,
    epoch: u16,
}

/// What one connection watches.
#[derive(Debug, Default)]
pub(super) struct Watches(Vec<Watch>);

impl Router {
    /// Notes a watch that is asked for now. False if a bound is reached.
    pub(super) fn note_watch(&mut self, conn: ConnId, name: &str, shard: ShardId) -> bool {
        let has_room = self.asks.names() < self.config.names_max;
        let of_shard = &self.shards[usize::from(shard.0)];
        let (version, core) = (of_shard.version, of_shard.at);
        let epoch = core.map_or(0, |core| self.cores.epoch(core));
        let Some(session) = self.sessions.get_mut(conn) else { return false };
        let watches = session.watches.get_or_insert_default();
        if let Some(known) = watches.0.iter_mut().find(|watch| &*watch.name == name) {
            (known.version, known.core, known.epoch) = (version, core, epoch);
            return true;
        }
        if !has_room || watches.0.len() >= WATCHED_PER_CONNECTION_MAX {
            return false;
        }
        watches.0.push(Watch { name: name.into(), shard, version, core, epoch });
        self.asks.names_added(1);
        true
    }

    /// A core does not watch that user for the connection.
    pub(super) fn drop_watch(&mut self, conn: ConnId, name: &str) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        let Some(watches) = &mut session.watches else { return };
        let before = watches.0.len();
        watches.0.retain(|watch| &*watch.name != name);
        self.asks.names_removed(before - watches.0.len());
    }

    /// UNWATCH of a client; no names: all.
    pub(super) fn unwatch(&mut self, fx: &mut impl Effects, conn: ConnId, users: Names<'_>) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        let name = session.stable_name();
        let Some(mut watches) = session.watches.take() else { return };
        if users.is_empty() {
            self.end_watches(fx, name, &watches);
            self.asks.names_removed(watches.0.len());
            return;
        }
        let (ended, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut watches.0)
            .into_iter()
            .partition(|watch| users.iter().any(|user| user == &*watch.name));
        for watch in &ended {
            self.end_watch(fx, name, watch);
        }
        self.asks.names_removed(ended.len());
        watches.0 = kept;
        if let Some(session) = self.sessions.get_mut(conn)
            && !watches.0.is_empty()
        {
            session.watches = Some(watches);
        }
    }

    /// The connection is gone, and its watches with it.
    pub(super) fn forget_watches(&mut self, fx: &mut impl Effects, session: &mut Session) {
        if let Some(watches) = session.watches.take() {
            self.end_watches(fx, session.stable_name(), &watches);
            self.asks.names_removed(watches.0.len());
        }
    }

    /// Ends all watches of a connection, once at each partition that may have one.
    fn end_watches(&self, fx: &mut impl Effects, name: ConnId, watches: &Watches) {
        let mut places: Vec<(CoreIndex, u16)> = Vec::new();
        for watch in &watches.0 {
            if let Some(place) = self.place_of(watch)
                && !places.contains(&place)
            {
                places.push(place);
            }
        }
        for (core, partition) in places {
            let frame = ToCore::Unwatch { conn: name, users: Names::of_bytes(&[0, 0]) };
            frame.encode(fx.to_core(core, partition));
        }
    }

    fn end_watch(&self, fx: &mut impl Effects, name: ConnId, watch: &Watch) {
        if let Some((core, partition)) = self.place_of(watch) {
            let one = one_name(&watch.name);
            let frame = ToCore::Unwatch { conn: name, users: one.names() };
            frame.encode(fx.to_core(core, partition));
        }
    }

    /// The core and partition that a watch was asked of, if that link still stands.
    fn place_of(&self, watch: &Watch) -> Option<(CoreIndex, u16)> {
        let core = watch.core?;
        let is_there = self.cores.is_up(core) && self.cores.epoch(core) == watch.epoch;
        is_there.then(|| (core, self.cores.partition(core, watch.shard)))
    }

    /// Asks again for watches whose shard moved since. The state of the user comes as a change.
    pub(super) fn rewatch(&self, fx: &mut impl Effects, name: ConnId, watches: &mut Watches) {
        for watch in &mut watches.0 {
            let of_shard = &self.shards[usize::from(watch.shard.0)];
            let Some(core) = of_shard.at.filter(|_| watch.version != of_shard.version) else {
                continue;
            };
            if watch.core != Some(core) {
                self.end_watch(fx, name, watch);
            }
            watch.version = of_shard.version;
            (watch.core, watch.epoch) = (Some(core), self.cores.epoch(core));
            let one = one_name(&watch.name);
            let ask = PresenceAsk { conn: name, query: 0, watch: true, users: one.names() };
            let partition = self.cores.partition(core, watch.shard);
            ToCore::Presence(ask).encode(fx.to_core(core, partition));
        }
    }

    /// The shard of a user's name.
    pub(super) fn shard_of_name(&self, name: &str) -> ShardId {
        self.shard_of(UserKey::of(name))
    }
}

/// A list of names, as it stands in a frame.
pub(super) struct NameList(Vec<u8>);

impl NameList {
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let (mut bytes, mut count) = (vec![0, 0], 0_u16);
        for name in names {
            count += 1;
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes[..2].copy_from_slice(&count.to_le_bytes());
        Self(bytes)
    }

    pub(super) fn names(&self) -> Names<'_> {
        Names::of_bytes(&self.0)
    }
}

fn one_name(name: &str) -> NameList {
    NameList::of(std::iter::once(name))
}
