//! Sessions: where each is logged in, and numbers that go on when it logs in elsewhere.

use super::watches::Watches;
use super::{CoreIndex, Effects, NIL, Router};
use crate::id::{ConnId, UserKey};
use crate::link::{ToCore, ToEdge};
use crate::sabotage::{self, Sabotage};
use crate::wire::{Code, HEADER_BYTES, kind, split_frame};
use std::collections::VecDeque;

/// Slots looked at in one turn for logins to repeat (I8).
const SWEPT_PER_TURN: u32 = 4096;
/// Milliseconds between a move and the repetition of its watches, so that most users have come over before.
const WATCHES_AFTER_MS: u64 = 300;
/// How long a first login waits for a core, milliseconds.
const LOGIN_WAIT_MS: u64 = 5000;
const CHUNK: usize = 1024;

/// Places of unanswered SENDs, in the order of their numbers; [`NIL`]: answered.
#[derive(Debug, Default)]
pub(super) struct Sends(pub(super) VecDeque<u32>);

/// One connection that has logged in.
#[derive(Debug)]
pub(super) struct Session {
    /// The reactor's name for it.
    pub(super) conn: ConnId,
    user: UserKey,
    name: Box<str>,
    /// What WELCOME gave it; 0: no WELCOME yet.
    number: u64,
    /// Generation of its name for SENDs and presence, which stays, and for the login, which changes.
    stable: u32,
    login: u32,
    /// Where it is logged in, on which link.
    core: Option<CoreIndex>,
    epoch: u16,
    window: u16,
    /// The client's number of this login's delivery 0.
    base: u32,
    /// The highest number delivered, and acknowledged, as the client counts.
    top: u32,
    acked: u32,
    /// It was ended by a core and is about to go.
    is_over: bool,
    /// The number of the next SEND on links.
    pub(super) next_seq: u32,
    pub(super) pending_bytes: u32,
    /// The last one has the number before `next_seq`.
    pub(super) sends: Option<Box<Sends>>,
    pub(super) watches: Option<Box<Watches>>,
}

const _: () = assert!(size_of::<Session>() <= 128);

impl Session {
    /// Its name on links for SENDs and presence.
    pub(super) fn stable_name(&self) -> ConnId {
        ConnId::new(self.conn.reactor(), self.conn.slot(), self.stable)
    }

    fn login_name(&self) -> ConnId {
        ConnId::new(self.conn.reactor(), self.conn.slot(), self.login)
    }

    /// Unacknowledged MESSAGEs that the core may have under way: those of older logins count, too.
    fn window_now(&self) -> u32 {
        u32::from(self.window).saturating_sub(self.base.saturating_sub(self.acked))
    }

    /// A SEND was answered.
    pub(super) fn forget_send(&mut self, index: u32, bytes: usize) {
        self.pending_bytes -= bytes as u32;
        let Sends(sends) = &mut **self.sends.as_mut().expect("it had SENDs");
        if sends.front() == Some(&index) {
            sends.pop_front();
        } else {
            let place = sends.iter_mut().find(|place| **place == index);
            *place.expect("it had this SEND") = NIL;
        }
        while sends.front() == Some(&NIL) {
            sends.pop_front();
        }
        if sends.is_empty() {
            self.sends = None;
        }
    }
}

#[derive(Debug, Default)]
struct Place {
    /// Counts sessions and logins in this slot: the source of generations.
    generations: u32,
    session: Option<Session>,
}

/// All sessions, by the slot of their connection. Grows by chunks, so growing moves nothing.
#[derive(Debug)]
pub(super) struct Sessions {
    reactor: u16,
    chunks: Vec<Box<[Place]>>,
    len: u32,
    /// Where the search for sessions to move is, and whether it begins again afterwards.
    cursor: Option<u32>,
    again: bool,
    watches_at_ms: Option<u64>,
    watch_cursor: Option<u32>,
    relogins_per_s: u32,
    tokens: u32,
    filled_ms: u64,
    /// First logins that found no core, oldest first.
    waiting: VecDeque<(ConnId, u64)>,
}

impl Sessions {
    pub(super) fn new(reactor: u16, relogins_per_s: u32) -> Self {
        Self {
            reactor,
            chunks: Vec::new(),
            len: 0,
            cursor: None,
            again: false,
            watches_at_ms: None,
            watch_cursor: None,
            relogins_per_s,
            tokens: 0,
            filled_ms: 0,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    fn slots(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    fn place(&mut self, slot: u32) -> Option<&mut Place> {
        self.chunks.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)
    }

    pub(super) fn in_slot(&mut self, slot: u32) -> Option<&mut Session> {
        self.place(slot)?.session.as_mut()
    }

    /// The session of a connection, by the reactor's name.
    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.in_slot(conn.slot()).filter(|session| session.conn == conn)
    }

    /// The session, by its name on links that stays.
    pub(super) fn of_stable_name(&mut self, name: ConnId) -> Option<&mut Session> {
        self.in_slot(name.slot()).filter(|session| session.stable_name() == name)
    }

    /// The session, by the name of its login there; not by that of an older one.
    fn of_login(&mut self, core: CoreIndex, name: ConnId) -> Option<&mut Session> {
        let session = self.in_slot(name.slot())?;
        let is_known = sabotage::is(Sabotage::EdgeStaleLogin) || session.login_name() == name;
        (is_known && session.core == Some(core)).then_some(session)
    }

    fn next_generation(&mut self, slot: u32) -> u32 {
        let place = self.place(slot).expect("the slot is there");
        place.generations = (place.generations + 1) & 0xff_ffff;
        place.generations
    }

    /// Something moved: sessions are searched for those that must log in again.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        match self.cursor {
            None => self.cursor = Some(0),
            Some(_) => self.again = true,
        }
        self.watches_at_ms = Some(now_ms + WATCHES_AFTER_MS);
    }

    /// Whether there is something to do without further input.
    pub(super) fn has_work(&self) -> bool {
        self.cursor.is_some() || self.watch_cursor.is_some()
    }

    fn refill(&mut self, now_ms: u64) {
        let gone_ms = now_ms.saturating_sub(self.filled_ms).min(1000);
        let more = u64::from(self.relogins_per_s) * gone_ms / 1000;
        if more > 0 {
            // A burst of a twentieth of a second's worth, so that nothing waits on a quiet node.
            let most = (self.relogins_per_s / 20).max(1);
            self.tokens = self.tokens.saturating_add(more as u32).min(most);
            self.filled_ms = now_ms;
        }
    }

    fn remove(&mut self, conn: ConnId) -> Option<Session> {
        let place = self.place(conn.slot())?;
        let session = place.session.take_if(|session| session.conn == conn)?;
        self.len -= 1;
        Some(session)
    }
}

impl Router {
    /// A user logged in on a connection.
    pub(super) fn login(
        &mut self,
        fx: &mut impl Effects,
        now_ms: u64,
        conn: ConnId,
        user: UserKey,
        name: &str,
        window: u32,
    ) {
        assert!(conn.reactor() == self.sessions.reactor, "a router has one reactor's connections");
        self.logout(fx, conn);
        while self.sessions.slots() <= conn.slot() {
            self.sessions.chunks.push((0..CHUNK).map(|_| Place::default()).collect());
        }
        let stable = self.sessions.next_generation(conn.slot());
        let session = Session {
            conn,
            user,
            name: name.into(),
            number: 0,
            stable,
            login: stable,
            core: None,
            epoch: 0,
            window: window.min(crate::limits::RECV_WINDOW_MAX) as u16,
            base: 0,
            top: 0,
            acked: 0,
            is_over: false,
            next_seq: 0,
            pending_bytes: 0,
            sends: None,
            watches: None,
        };
        self.sessions.place(conn.slot()).expect("a chunk was added").session = Some(session);
        self.sessions.len += 1;
        if !self.log_in(fx, conn) {
            self.sessions.waiting.push_back((conn, now_ms));
        }
    }

    /// The connection is gone.
    pub(super) fn logout(&mut self, fx: &mut impl Effects, conn: ConnId) {
        if let Some(home) = self.home_of(conn) {
            self.leave(fx, conn, home);
        }
        let Some(mut session) = self.sessions.remove(conn) else { return };
        self.forget_watches(fx, &mut session);
        self.asks.forget(conn);
        self.drop_sends(session.sends.into_iter().flat_map(|sends| sends.0));
    }

    /// Tells the core where a session is logged in that it ends there.
    fn leave(&mut self, fx: &mut impl Effects, conn: ConnId, (core, partition): (CoreIndex, u16)) {
        let session = self.sessions.get_mut(conn).expect("it is logged in");
        session.core = None;
        ToCore::Logout { conn: session.login_name(), user: session.user }
            .encode(fx.to_core(core, partition));
    }

    /// Where a session is logged in, if that link still stands: core and partition.
    fn home_of(&mut self, conn: ConnId) -> Option<(CoreIndex, u16)> {
        let session = self.sessions.get_mut(conn)?;
        let (user, core, epoch) = (session.user, session.core?, session.epoch);
        let is_there = self.cores.is_up(core) && self.cores.epoch(core) == epoch;
        is_there.then(|| (core, self.cores.partition(core, self.shard_of(user))))
    }

    /// Whether a session has to log in where its shard is now; and where that is.
    fn lacks_home(&mut self, slot: u32) -> Option<(CoreIndex, u16, bool)> {
        let session = self.sessions.in_slot(slot).filter(|session| !session.is_over)?;
        let (user, core, epoch) = (session.user, session.core, session.epoch);
        let is_first = session.number == 0;
        let shard = self.shard_of(user);
        let at = self.shards[usize::from(shard.0)].at?;
        let is_home = core == Some(at) && epoch == self.cores.epoch(at);
        (!is_home).then(|| (at, self.cores.partition(at, shard), is_first))
    }

    /// Logs a session in where its shard is now. False if no core takes logins.
    fn log_in(&mut self, fx: &mut impl Effects, conn: ConnId) -> bool {
        let session = self.sessions.get_mut(conn).expect("who logs in has a session");
        let user = session.user;
        let shard = self.shard_of(user);
        let Some(core) = self.shards[usize::from(shard.0)].at else { return false };
        if !self.cores.state(core, shard).takes() {
            return false;
        }
        if let Some(home) = self.home_of(conn) {
            self.leave(fx, conn, home);
        }
        let login = self.sessions.next_generation(conn.slot());
        let (epoch, partition) = (self.cores.epoch(core), self.cores.partition(core, shard));
        let session = self.sessions.get_mut(conn).expect("it was there");
        (session.login, session.core, session.epoch) = (login, Some(core), epoch);
        session.base = if sabotage::is(Sabotage::EdgeNotRenumbered) { 0 } else { session.top };
        let frame = ToCore::Login {
            conn: session.login_name(),
            user,
            window: session.window_now(),
            session: session.number,
            name: &session.name,
        };
        frame.encode(fx.to_core(core, partition));
        true
    }

    /// Repeats logins of shards that moved, and then watches. Whether there is more to do at once.
    pub(super) fn relogin_some(&mut self, fx: &mut impl Effects, now_ms: u64) -> bool {
        self.sessions.refill(now_ms);
        self.give_up_waiting(fx, now_ms);
        if self.sessions.watches_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.sessions.watches_at_ms = None;
            self.sessions.watch_cursor = Some(0);
        }
        let mut more = self.rewatch_some(fx);
        let Some(start) = self.sessions.cursor else { return more };
        let end = self.sessions.slots().min(start + SWEPT_PER_TURN);
        for slot in start..end {
            let Some((at, partition, is_first)) = self.lacks_home(slot) else { continue };
            let is_full = fx.backlog_bytes(at, partition) > self.config.backlog_max;
            if self.sessions.tokens == 0 || is_full {
                self.sessions.cursor = Some(slot);
                return more;
            }
            self.sessions.tokens -= 1;
            self.counters.relogins += u64::from(!is_first);
            let conn = self.sessions.in_slot(slot).expect("it lacks a home").conn;
            self.log_in(fx, conn);
        }
        let is_done = end == self.sessions.slots();
        let again = is_done && std::mem::take(&mut self.sessions.again);
        self.sessions.cursor = match (is_done, again) {
            (false, _) => Some(end),
            (true, true) => Some(0),
            (true, false) => None,
        };
        more |= self.sessions.cursor.is_some();
        more
    }

    /// First logins that waited too long for a core.
    fn give_up_waiting(&mut self, fx: &mut impl Effects, now_ms: u64) {
        while let Some((conn, came_ms)) = self.sessions.waiting.front().copied() {
            let session = self.sessions.get_mut(conn);
            let waits = session.is_some_and(|session| session.core.is_none() && !session.is_over);
            if waits && came_ms + LOGIN_WAIT_MS > now_ms {
                return;
            }
            self.sessions.waiting.pop_front();
            if waits {
                self.end_session(fx, conn, Code::Unavailable);
            }
        }
    }

    /// Repeats watches of shards that moved. Whether there is more to do at once.
    fn rewatch_some(&mut self, fx: &mut impl Effects) -> bool {
        let Some(start) = self.sessions.watch_cursor else { return false };
        let end = self.sessions.slots().min(start + SWEPT_PER_TURN / 8);
        for slot in start..end {
            let place = self.sessions.place(slot).expect("below the number of slots");
            let Some(session) = &mut place.session else { continue };
            let name = session.stable_name();
            if let Some(mut watches) = session.watches.take() {
                self.rewatch(fx, name, &mut watches);
                let place = self.sessions.place(slot).expect("below the number of slots");
                if let Some(session) = &mut place.session {
                    session.watches = Some(watches);
                }
            }
        }
        self.sessions.watch_cursor = (end < self.sessions.slots()).then_some(end);
        self.sessions.watch_cursor.is_some()
    }

    /// Ends a connection for a reason that its client is told.
    fn end_session(&mut self, fx: &mut impl Effects, conn: ConnId, code: Code) {
        if let Some(session) = self.sessions.get_mut(conn) {
            session.is_over = true;
            fx.to_client(&ToEdge::Kick { conn, code });
        }
    }

    /// A core took a login.
    pub(super) fn welcome(
        &mut self,
        fx: &mut impl Effects,
        core: CoreIndex,
        name: ConnId,
        waiting: u32,
        number: u64,
    ) {
        let Some(session) = self.sessions.of_login(core, name) else {
            self.counters.stale += 1;
            return;
        };
        let is_first = session.number == 0;
        session.number = number.max(1);
        if is_first {
            fx.to_client(&ToEdge::Welcome { conn: session.conn, waiting, session: number });
        }
    }

    /// A core ended a login.
    pub(super) fn kick(
        &mut self,
        fx: &mut impl Effects,
        now_ms: u64,
        core: CoreIndex,
        name: ConnId,
        code: Code,
    ) {
        let Some(session) = self.sessions.of_login(core, name) else {
            self.counters.stale += 1;
            return;
        };
        session.core = None;
        let (conn, user) = (session.conn, session.user);
        if code == Code::Unavailable {
            // The shard is not its own now: it is looked for elsewhere.
            self.sessions.waiting.push_back((conn, now_ms));
            self.refused_by(fx, now_ms, core, self.shard_of(user));
            self.sessions.sweep(now_ms);
            return;
        }
        self.end_session(fx, conn, code);
    }

    /// The client acknowledged deliveries.
    pub(super) fn ack(&mut self, fx: &mut impl Effects, conn: ConnId, upto: u32) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        if upto > session.top {
            if let Some(home) = self.home_of(conn) {
                self.leave(fx, conn, home);
            }
            return self.end_session(fx, conn, Code::BadAck);
        }
        if upto <= session.acked {
            return;
        }
        let old_window = session.window_now();
        session.acked = upto;
        let (base, window) = (session.base, session.window_now());
        let (user, name) = (session.user, session.login_name());
        let Some((core, partition)) = self.home_of(conn) else { return };
        if upto > base {
            let known = if sabotage::is(Sabotage::EdgeAcksUntranslated) { 0 } else { base };
            let frame = ToCore::Ack { conn: name, user, upto: upto - known };
            frame.encode(fx.to_core(core, partition));
        }
        if window != old_window {
            ToCore::Window { conn: name, user, window }.encode(fx.to_core(core, partition));
        }
    }

    /// The client takes more or fewer deliveries at a time.
    pub(super) fn window(&mut self, fx: &mut impl Effects, conn: ConnId, window: u32) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        session.window = window.min(crate::limits::RECV_WINDOW_MAX) as u16;
        let (user, name, window) = (session.user, session.login_name(), session.window_now());
        if let Some((core, partition)) = self.home_of(conn) {
            ToCore::Window { conn: name, user, window }.encode(fx.to_core(core, partition));
        }
    }

    /// Frames for a client as they are: deliveries, renumbered, or presence.
    pub(super) fn client_frames(
        &mut self,
        fx: &mut impl Effects,
        core: CoreIndex,
        name: ConnId,
        bytes: &[u8],
    ) {
        if self.sessions.of_stable_name(name).is_some() {
            return self.presence(fx, core, name, bytes);
        }
        let mut out = std::mem::take(&mut self.scratch);
        let Some(session) = self.sessions.of_login(core, name) else {
            self.counters.stale += 1;
            return;
        };
        let conn = session.conn;
        out.clear();
        match renumber(session, bytes, &mut out) {
            Some(true) => fx.to_client(&ToEdge::Frame { conn, bytes: &out }),
            Some(false) => fx.to_client(&ToEdge::Frame { conn, bytes }),
            None => self.end_session(fx, conn, Code::Draining),
        }
        self.scratch = out;
    }
}

/// Numbers the MESSAGEs of a login as the client counts: into `out` and true if that changes anything. `None`: the
/// numbers are used up.
fn renumber(session: &mut Session, bytes: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    let mut rest = bytes;
    while let Ok(Some((frame_kind, body, after))) = split_frame(rest) {
        let whole = &rest[..rest.len() - after.len()];
        let at = out.len();
        if session.base > 0 {
            out.extend_from_slice(whole);
        }
        if frame_kind == kind::MESSAGE
            && let Some(number) = body.first_chunk()
        {
            let number = u32::from_le_bytes(*number).checked_add(session.base)?;
            session.top = session.top.max(number);
            if session.base > 0 {
                let place = at + HEADER_BYTES;
                out[place..place + 4].copy_from_slice(&number.to_le_bytes());
            }
        }
        rest = after;
    }
    Some(session.base > 0)
}
