//! Sessions: login and logout, delivery in turns, acknowledgement.

use super::Core;
use super::effects::{Delivery, Effects, KickReason, Presence, TombReason, TombTarget, Watch};
use super::inbox::{self, Origins};
use super::slab::NIL;
use super::user::{ONLINE, STALLED, User};
use crate::id::{ConnId, MsgId, UserKey};
use crate::limits::{
    PRESENCE_USERS_MAX, RECV_WINDOW_MAX, TOMB_TARGETS_MAX, TURN_DELIVERIES_MAX, USER_BYTES_MAX,
};
use crate::sabotage::{self, Sabotage};

/// A login, first or moved.
struct Login<'a> {
    conn: ConnId,
    user: UserKey,
    name: &'a str,
    window: u32,
    session: u64,
}

impl Core {
    /// A user logged in on a connection, and takes up to `window` unacknowledged messages. The newest login wins: an
    /// older connection is kicked, and what still comes from it is ignored. All that waits is delivered from number 1,
    /// also what the older connection had in flight.
    pub fn handle_login(
        &mut self,
        fx: &mut impl Effects,
        now_ms: u64,
        conn: ConnId,
        user: UserKey,
        name: &str,
        window: u32,
    ) {
        let now = self.advance(now_ms);
        let stamp = self.hlc.tick(now).0;
        let here = self.users.find(user).map(|slot| &self.users[slot]);
        let here = here.filter(|record| record.is_online()).map_or(0, |record| record.session);
        // The clock of the core that numbered the session may have been ahead of ours.
        let session = stamp.max(here.saturating_add(1));
        self.log_in(fx, now, &Login { conn, user, name, window, session });
    }

    /// A session that another core, or this one before its edge lost it, gave the number `session` goes on here, as a
    /// login with everything delivered from number 1. If a newer login is here, that one stays: an edge that was slow to
    /// move its users does not throw out who logged in since.
    #[expect(clippy::too_many_arguments, reason = "a login and its number")]
    pub fn handle_relogin(
        &mut self,
        fx: &mut impl Effects,
        now_ms: u64,
        conn: ConnId,
        user: UserKey,
        name: &str,
        window: u32,
        session: u64,
    ) {
        let now = self.advance(now_ms);
        self.log_in(fx, now, &Login { conn, user, name, window, session });
    }

    fn log_in(&mut self, fx: &mut impl Effects, now: u64, login: &Login<'_>) {
        let &Login { conn, user, name, window, session } = login;
        let is_name = (1..=USER_BYTES_MAX).contains(&name.len());
        if !is_name || !self.is_here(self.shard_of(user)) {
            return self.kick(fx, conn, KickReason::BadLogin);
        }
        let slot = self.users.find_or_insert(user);
        let was_online = self.users[slot].is_online();
        if was_online {
            let old = self.users[slot].conn;
            if old != conn && self.users[slot].session > session {
                return self.kick(fx, conn, KickReason::Replaced);
            }
            if old == conn {
                self.end_session(fx, now, slot);
                return self.kick(fx, conn, KickReason::SecondLogin);
            }
            self.receipts.forget(&mut self.users[slot].receipts);
            if !sabotage::is(Sabotage::TakeoverUntold) {
                self.kick(fx, old, KickReason::Replaced);
            }
        }
        self.purge(slot);
        let record = &mut self.users[slot];
        record.conn = conn;
        record.session = session;
        record.window = window.min(RECV_WINDOW_MAX) as u16;
        record.flags = (record.flags | ONLINE) & !STALLED;
        if !(was_online && sabotage::is(Sabotage::TakeoverKeepsFlight)) {
            record.cursor = record.head;
            record.kept_tail = NIL;
            (record.sent, record.done) = (0, 0);
            (record.flight_bytes, record.acks_owed) = (0, 0);
        }
        self.counters.logins += 1;
        fx.welcome(conn, record.count, session);
        if !was_online {
            record.since_ms = now;
            record.name = self.names.insert(name);
            self.online += 1;
            self.tell_watchers(fx, slot, name);
        }
        self.wake(slot);
    }

    /// The connection of a user is gone. Ignored if another one took over. Call [`Core::handle_gone`] for its watches.
    pub fn handle_logout(
        &mut self,
        fx: &mut impl Effects,
        now_ms: u64,
        conn: ConnId,
        user: UserKey,
    ) {
        let now = self.advance(now_ms);
        if let Some(slot) = self.session(conn, user) {
            self.end_session(fx, now, slot);
        }
    }

    /// All deliveries up to this number are done; see the module's page. An ACK of what was never delivered is a kick.
    pub fn handle_ack(
        &mut self,
        fx: &mut impl Effects,
        now_ms: u64,
        conn: ConnId,
        user: UserKey,
        upto: u32,
    ) {
        let now = self.advance(now_ms);
        let Some(slot) = self.session(conn, user) else { return };
        let record = &mut self.users[slot];
        if upto > record.sent {
            self.end_session(fx, now, slot);
            return self.kick(fx, conn, KickReason::BadAck);
        }
        let acked = upto.saturating_sub(record.done);
        if acked <= u32::from(record.acks_owed) {
            return;
        }
        record.acks_owed = acked as u16;
        if !self.settle(fx, now, slot) {
            self.counters.acks_put_off += 1;
            self.log_refused = true;
        }
        self.wake(slot);
    }

    /// The client takes up to `window` unacknowledged messages from now on; 0 pauses. Above the limit counts as the limit.
    pub fn handle_window(&mut self, now_ms: u64, conn: ConnId, user: UserKey, window: u32) {
        self.advance(now_ms);
        if let Some(slot) = self.session(conn, user) {
            self.users[slot].window = window.min(RECV_WINDOW_MAX) as u16;
            self.wake(slot);
        }
    }

    /// A delivery with `wants_receipt` was read: whose message it is. To be called before its ACK can arrive, so before
    /// MESSAGE is sent.
    pub fn handle_delivered(
        &mut self,
        conn: ConnId,
        user: UserKey,
        no: u32,
        sender: UserKey,
        msg_id: MsgId,
    ) {
        let Some(slot) = self.session(conn, user) else { return };
        let record = &mut self.users[slot];
        if no <= record.done || no > record.sent {
            return;
        }
        if !self.receipts.add(&mut record.receipts, no, sender, msg_id) {
            self.counters.receipts_dropped += 1;
        }
    }

    /// A delivery's record cannot be read: it is skipped and kept; see the module's page.
    pub fn handle_unreadable(&mut self, now_ms: u64, conn: ConnId, user: UserKey, no: u32) {
        self.advance(now_ms);
        let Some(slot) = self.session(conn, user) else { return };
        let record = &mut self.users[slot];
        if no <= record.done || no > record.sent {
            return;
        }
        let mut entry = inbox::first_in_flight(&self.entries, record);
        for _ in record.done + 1..no {
            entry = self.entries[entry].next;
        }
        self.entries[entry].set_unreadable(true);
        self.counters.unreadable += 1;
        self.pass_unreadable(slot);
        self.wake(slot);
    }

    /// The user's current connection, if they are online.
    pub fn connection_of(&self, user: UserKey) -> Option<ConnId> {
        let record = &self.users[self.users.find(user)?];
        record.is_online().then_some(record.conn)
    }

    /// Messages in a user's inbox.
    pub fn waiting(&self, user: UserKey) -> u32 {
        self.users.find(user).map_or(0, |slot| self.users[slot].count)
    }

    /// The user's record if this is their current connection.
    fn session(&mut self, conn: ConnId, user: UserKey) -> Option<u32> {
        let found = self.users.find(user).filter(|slot| {
            let record = &self.users[*slot];
            let is_theirs = record.conn == conn || sabotage::is(Sabotage::TakeoverStaleAck);
            record.is_online() && is_theirs
        });
        if found.is_none() {
            self.counters.stale_inputs += 1;
        }
        found
    }

    fn kick(&mut self, fx: &mut impl Effects, conn: ConnId, reason: KickReason) {
        self.counters.kicked[reason as usize] += 1;
        fx.kick(conn, reason);
    }

    pub(super) fn end_session(&mut self, fx: &mut impl Effects, now: u64, slot: u32) {
        self.purge(slot);
        let record = &mut self.users[slot];
        record.flags &= !ONLINE;
        record.since_ms = now;
        record.acks_owed = 0;
        self.receipts.forget(&mut record.receipts);
        let name = record.name;
        self.online -= 1;
        let Self { users, names, watches, .. } = self;
        tell(fx, watches.of(users, slot), &users[slot], names.name(name));
        self.names.remove(name);
        self.users.release(slot);
    }

    fn tell_watchers(&self, fx: &mut impl Effects, slot: u32, name: &str) {
        tell(fx, self.watches.of(&self.users, slot), &self.users[slot], name);
    }

    /// Puts a user in the line for a turn if a turn can do something.
    pub(super) fn wake(&mut self, slot: u32) {
        let user = &self.users[slot];
        if user.flags & STALLED == 0 && user.wants_turn(self.config.recv_window_bytes) {
            self.users.queue(slot);
        }
    }

    /// Gives users their turns until the budget is used up or every user in line had one.
    pub(super) fn deliver_turns(&mut self, fx: &mut impl Effects, now: u64, budget: u32) {
        let mut left = budget;
        self.log_refused = false;
        let mut first_owing = NIL;
        while left > 0 {
            let Some(slot) = self.users.next_ready() else { return };
            if slot == first_owing {
                return self.users.queue(slot);
            }
            if !self.users[slot].is_online() {
                self.users.release(slot);
                left -= 1;
                continue;
            }
            if !fx.has_room(self.users[slot].conn) {
                self.stall(slot);
                left -= 1;
                continue;
            }
            if !self.log_refused {
                self.log_refused = !self.settle(fx, now, slot);
            }
            let most = left.min(TURN_DELIVERIES_MAX);
            let made = self.deliver_turn(fx, now, slot, most);
            left -= made.max(1);
            if self.users[slot].acks_owed > 0 {
                self.users.queue(slot);
                first_owing = if first_owing == NIL { slot } else { first_owing };
            } else if made == most {
                self.wake(slot);
            }
        }
    }

    fn deliver_turn(&mut self, fx: &mut impl Effects, now: u64, slot: u32, most: u32) -> u32 {
        for made in 0..most {
            let record = &mut self.users[slot];
            let has_credit = record.in_flight() < u32::from(record.window)
                && record.flight_bytes < self.config.recv_window_bytes;
            if !has_credit || record.cursor == NIL {
                return made;
            }
            let entry = &mut self.entries[record.cursor];
            if entry.origin() == Origins::OWN {
                let shard = crate::id::shard_for_user(record.key, self.config.num_shards);
                let durable = self.shards[usize::from(shard.0)].durable_seq;
                if entry.seq() > durable && !sabotage::is(Sabotage::DeliverUnsynced) {
                    // Its `handle_durable` wakes the user.
                    return made;
                }
            }
            if record.sent == u32::MAX {
                let conn = record.conn;
                self.end_session(fx, now, slot);
                self.kick(fx, conn, KickReason::NumbersUsedUp);
                return made;
            }
            entry.set_unreadable(false);
            record.sent += 1;
            record.flight_bytes += entry.len();
            record.cursor = entry.next;
            self.counters.delivered += 1;
            fx.deliver(&Delivery {
                conn: record.conn,
                user: record.key,
                no: record.sent,
                dot: self.origins.dot(entry),
                pos: entry.pos(),
                len: entry.len(),
                wants_receipt: entry.wants_receipt(),
            });
        }
        most
    }

    /// Makes TOMB records for the deliveries that the client acknowledged. False if the log refused one; the rest stays
    /// owed.
    fn settle(&mut self, fx: &mut impl Effects, now: u64, slot: u32) -> bool {
        while self.users[slot].acks_owed > 0 {
            let count = usize::from(self.users[slot].acks_owed).min(TOMB_TARGETS_MAX);
            let Some(lsn) = self.append_tomb(fx, now, slot, count) else { return false };
            for _ in 0..count {
                self.finish_first(fx, slot);
            }
            let record = &mut self.users[slot];
            record.acks_owed -= count as u16;
            let (reader, name, done) = (record.key, record.name, record.done);
            let names = &mut self.names;
            self.receipts.acknowledge(&mut record.receipts, done, lsn, reader, || names.copy(name));
        }
        self.pass_unreadable(slot);
        true
    }

    /// Appends a TOMB for the first so many deliveries in flight, except unreadable ones. Returns the log position to
    /// wait for, `None` if the log refused.
    fn append_tomb(
        &mut self,
        fx: &mut impl Effects,
        now: u64,
        slot: u32,
        count: usize,
    ) -> Option<u64> {
        let record = &self.users[slot];
        let mut targets = std::mem::take(&mut self.scratch.targets);
        targets.clear();
        let mut next = inbox::first_in_flight(&self.entries, record);
        for _ in 0..count {
            let entry = &self.entries[next];
            if !entry.is_unreadable() && !entry.is_tombed() {
                targets.push(TombTarget { dot: self.origins.dot(entry), pos: entry.pos() });
            }
            next = entry.next;
        }
        let mut lsn = Some(self.last_lsn);
        if !targets.is_empty() {
            let inbox = record.key;
            let appended = self.put_tomb(fx, now, inbox, TombReason::Acked, &targets);
            if appended.is_some() {
                self.counters.acked += targets.len() as u64;
                self.done_by_own_tomb(inbox, &targets);
            }
            lsn = appended.map(|appended| appended.lsn);
        }
        self.scratch.targets = targets;
        lsn
    }

    /// The oldest delivery in flight is done: its entry goes, or stays behind as kept if it was unreadable.
    fn finish_first(&mut self, fx: &mut impl Effects, slot: u32) {
        let record = &mut self.users[slot];
        let first = inbox::first_in_flight(&self.entries, record);
        let len = self.entries[first].len();
        record.finish_delivery(len);
        let is_tombed = self.entries[first].is_tombed();
        if self.entries[first].is_unreadable() && !is_tombed {
            record.kept_tail = first;
            return;
        }
        let entry = inbox::remove_first_in_flight(&mut self.entries, record);
        self.inbox_bytes -= u64::from(entry.charge());
        if !is_tombed {
            fx.entry_removed(entry.pos(), len);
        }
    }

    /// Unreadable deliveries need no ACK once they are the oldest in flight.
    fn pass_unreadable(&mut self, slot: u32) {
        let record = &mut self.users[slot];
        while record.in_flight() > 0 && record.acks_owed == 0 {
            let first = inbox::first_in_flight(&self.entries, record);
            if !self.entries[first].is_unreadable() {
                return;
            }
            record.finish_delivery(self.entries[first].len());
            match self.entries[first].is_tombed() {
                true => {
                    let entry = inbox::remove_first_in_flight(&mut self.entries, record);
                    self.inbox_bytes -= u64::from(entry.charge());
                }
                false => record.kept_tail = first,
            }
        }
    }
}

impl Core {
    /// Who of these is online? One `presence` each, at most [`PRESENCE_USERS_MAX`]. With `watch`, changes follow as
    /// `presence` with query 0, until `handle_unwatch` or `handle_gone`.
    pub fn handle_presence_query<'a>(
        &mut self,
        fx: &mut impl Effects,
        conn: ConnId,
        query: u32,
        users: impl IntoIterator<Item = (UserKey, &'a str)>,
        watch: bool,
    ) {
        self.assert_recovered();
        for (index, (key, name)) in users.into_iter().enumerate() {
            if index == PRESENCE_USERS_MAX {
                self.counters.queries_cut += 1;
                return;
            }
            let watch = match watch {
                true if self.is_here(self.shard_of(key)) => {
                    self.watches.add(&mut self.users, conn, key)
                }
                _ => Watch::Unasked,
            };
            if !matches!(watch, Watch::Unasked | Watch::Watching) {
                self.counters.watches_refused += 1;
            }
            let record = self.users.find(key).map(|slot| &self.users[slot]);
            let online = record.is_some_and(User::is_online);
            let since_ms = record.map_or(0, |record| record.since_ms);
            fx.presence(&Presence { conn, query, name, online, since_ms, watch });
        }
    }

    /// The connection no longer watches these users.
    pub fn handle_unwatch(&mut self, conn: ConnId, users: impl IntoIterator<Item = UserKey>) {
        for key in users.into_iter().take(PRESENCE_USERS_MAX) {
            self.watches.remove(&mut self.users, conn, key);
        }
    }

    /// The connection is gone, or watches nobody any more. Harmless for one that never watched.
    pub fn handle_gone(&mut self, conn: ConnId) {
        self.watches.remove_all(&mut self.users, conn);
    }
}

fn tell(fx: &mut impl Effects, watchers: impl Iterator<Item = ConnId>, user: &User, name: &str) {
    for conn in watchers {
        fx.presence(&Presence {
            conn,
            query: 0,
            name,
            online: user.is_online(),
            since_ms: user.since_ms,
            watch: Watch::Watching,
        });
    }
}
