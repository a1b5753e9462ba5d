//! What one thread's connections do: log in, send within window and schedule, check what arrives, acknowledge.

use crate::client::{Events, Login, Message, Session, Welcome};
use crate::control::{Control, Counts, Window};
use crate::names::user_name;
use crate::net::{ConnIndex, Handler, Handshakes};
use crate::payload::{Arrival, Arrivals, Checker, Head, Verdicts};
use crate::presence::Watching;
use crate::protocol::Protocol;
use crate::ranges::Ranges;
use crate::schedule::Schedule;
use crate::sender::{Sender, Sent, Times};
use crate::stats::Measured;
use crate::tokens::Signer;
use iris_proto::wire::{PresenceEntries, PresenceState};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;

/// A start later than this by the generator's own fault is a late one.
pub const LATE_NS: u64 = 10_000_000;

/// A user of this thread, in the order of connecting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// The user's index in the run.
    pub user: u32,
    /// Its place among this thread's senders.
    pub sender: Option<u32>,
}

/// What is kept of a user's logins where connections come back.
#[derive(Clone, Copy, Debug, Default)]
struct Visits {
    /// Logins that have ended.
    ended: u32,
    /// Deliveries of this login up to this one are done, and of the one before.
    done: u32,
    done_before: u32,
    /// Attempts to log in that failed since the last login.
    attempts: u32,
    /// When the server that goes away said to come back; 0: it did not.
    back_ns: u64,
}

/// When a connection that is gone is made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// It was cut: after the time that such a user stays away.
    Away,
    /// So many attempts to log in have failed since its last login: after a random time.
    Failed(u32),
    /// Then: the server said so (docs/PROTOCOL.md, section 9, DRAIN).
    At(u64),
}

/// One thread's sessions and everything they count.
pub struct Driver<'a> {
    control: &'a Control,
    protocol: Protocol,
    signer: Option<&'a Signer>,
    run: u32,
    window_max: u32,
    members: Vec<Member>,
    sessions: Vec<Session>,
    senders: Vec<Sender>,
    /// Messages of the current phase by sender.
    made: Vec<u64>,
    /// Whether a sender is in `held_back`.
    holds_back: Vec<bool>,
    checker: Checker,
    measured: Measured,
    counts: Counts,
    now_ns: u64,
    window: Window,
    sending: bool,
    schedule: Option<Schedule>,
    /// By connection, if they come back; else empty.
    visits: Vec<Visits>,
    /// Connections of which nothing is left, and that come back.
    gone: Vec<ConnIndex>,
    watching: Option<Watching>,
    stalled: Range<u32>,
    /// Server's clock less ours, milliseconds, from the first WELCOME.
    unix_offset_ms: Option<u64>,
    /// Connections with deliveries that are not acknowledged.
    unacknowledged: Vec<ConnIndex>,
    /// Connections that the server asked to hold back.
    held_back: Vec<ConnIndex>,
    /// Senders whose messages arrived where nothing else answers.
    arrived: Vec<ConnIndex>,
}

/// What a thread brings home.
#[derive(Debug)]
pub struct Findings {
    /// Latencies and failures.
    pub measured: Measured,
    /// What the receivers checked.
    pub verdicts: Verdicts,
    /// What came to them.
    pub arrivals: Arrivals,
    /// Totals.
    pub counts: Counts,
    /// What each sender sent.
    pub sent: Vec<SentBy>,
    /// Handshakes of TLS, which the driver does not see.
    pub handshakes: Handshakes,
}

/// What one sender sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SentBy {
    /// The sender.
    pub user: u32,
    /// Messages.
    pub messages: u32,
    /// Which of them were not accepted.
    pub not_accepted: Ranges,
}

/// What a driver is made of.
pub struct DriverParts<'a> {
    /// Orders.
    pub control: &'a Control,
    /// What is spoken.
    pub protocol: Protocol,
    /// Tokens, if the protocol has any.
    pub signer: Option<&'a Signer>,
    /// The run's id.
    pub run: u32,
    /// Unanswered messages of a connection, at most.
    pub window_max: u32,
    /// The users.
    pub members: Vec<Member>,
    /// Their senders.
    pub senders: Vec<Sender>,
    /// The check of what arrives.
    pub checker: Checker,
    /// Whether connections that end are made again.
    pub comes_back: bool,
    /// Who watches whom.
    pub watching: Option<Watching>,
    /// Users whose deliveries are late because they do not read for a while.
    pub stalled: Range<u32>,
}

impl<'a> Driver<'a> {
    /// Before the first connection.
    pub fn new(parts: DriverParts<'a>) -> Self {
        let sessions = parts.members.iter().map(|_| Session::new(parts.protocol)).collect();
        let (made, holds_back) = (vec![0; parts.senders.len()], vec![false; parts.senders.len()]);
        let comes_back = if parts.comes_back { parts.members.len() } else { 0 };
        Self {
            control: parts.control,
            protocol: parts.protocol,
            signer: parts.signer,
            run: parts.run,
            window_max: parts.window_max,
            members: parts.members,
            sessions,
            senders: parts.senders,
            made,
            holds_back,
            checker: parts.checker,
            measured: Measured::default(),
            counts: Counts::default(),
            now_ns: parts.control.now_ns(),
            window: Window::default(),
            sending: false,
            schedule: None,
            visits: vec![Visits::default(); comes_back],
            gone: Vec::new(),
            watching: parts.watching,
            stalled: parts.stalled,
            unix_offset_ms: None,
            unacknowledged: Vec::new(),
            held_back: Vec::new(),
            arrived: Vec::new(),
        }
    }

    /// The users, in the order of connecting.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Totals so far.
    pub fn counts(&self) -> Counts {
        Counts { unacknowledged: self.unacknowledged.len() as u64, ..self.counts }
    }

    /// Reads the clock, and returns it.
    pub fn tick(&mut self) -> u64 {
        self.now_ns = self.control.now_ns();
        self.now_ns
    }

    /// Whether messages are being sent.
    pub fn is_sending(&self) -> bool {
        self.sending
    }

    /// Starts a sending phase, open loop if there is a schedule.
    pub fn begin_sending(&mut self, window: Window, schedule: Option<Schedule>) {
        self.window = window;
        self.schedule = schedule;
        self.sending = true;
        self.made.fill(0);
        if let Some(watching) = &mut self.watching {
            watching.begin();
        }
    }

    /// Ends it; what was due and is not sent is counted.
    pub fn end_sending(&mut self) {
        self.sending = false;
        let Some(schedule) = self.schedule else { return };
        for (place, made) in self.made.iter().enumerate() {
            self.measured.not_sent += schedule.total_of(place).saturating_sub(*made);
        }
    }

    /// The open loop's schedule.
    pub fn schedule(&self) -> Option<Schedule> {
        self.schedule
    }

    /// Messages that this sender may send in the phase.
    fn share(&self, user: u32, senders: u64) -> u64 {
        let all = self.window.messages_max;
        if all == u64::MAX {
            all
        } else {
            all / senders + u64::from(u64::from(user) < all % senders)
        }
    }

    /// Sends what a connection may send now, because it may (closed loop) or because it is due (open loop).
    pub fn send_due(&mut self, conn: ConnIndex, out: &mut Vec<u8>) {
        let member = self.members[conn as usize];
        let Some(place) = member.sender.map(|place| place as usize) else { return };
        let share = self.share(member.user, self.checker.topology().senders().into());
        let offset_ms = self.unix_offset_ms.unwrap_or(0);
        let sender = &mut self.senders[place];
        while self.made[place] < share && sender.may_send(self.now_ns) {
            let intended_ns = match &self.schedule {
                None if self.now_ns < self.window.until_ns => self.now_ns,
                None => return,
                Some(schedule) => match schedule.intended_ns(place, self.made[place]) {
                    Some(due_ns) if due_ns <= self.now_ns => due_ns,
                    _ => return,
                },
            };
            let number = sender.sent();
            sender.send(Times { intended_ns, sent_ns: self.now_ns }, offset_ms, out);
            self.made[place] += 1;
            self.counts.sent += 1;
            if !self.protocol.answers() {
                self.counts.unanswerable += 1;
                self.counts.owed += self.checker.topology().copies(member.user, number);
            }
        }
        if sender.resume_ns() > self.now_ns && !std::mem::replace(&mut self.holds_back[place], true)
        {
            self.held_back.push(conn);
        }
    }

    /// Notes a burst that starts late although its sender could have started it in time.
    pub fn note_start(&mut self, burst: u64) {
        let Some(schedule) = &self.schedule else { return };
        let place = schedule.sender_of(burst);
        let due_ns = schedule.due_ns(burst);
        let first_waiting = schedule.intended_ns(place, self.made[place]);
        let is_free = first_waiting == Some(due_ns) && self.senders[place].may_send(self.now_ns);
        if is_free && self.now_ns - due_ns > LATE_NS {
            self.measured.late_starts += 1;
        }
    }

    /// Senders that the server asked to hold back and that may go on now.
    pub fn take_resumed(&mut self) -> Vec<ConnIndex> {
        let (now_ns, senders, members) = (self.now_ns, &self.senders, &self.members);
        let holds_back = &mut self.holds_back;
        let resumes = |conn: &mut ConnIndex| {
            let place = members[*conn as usize].sender.expect("only senders hold back") as usize;
            holds_back[place] = senders[place].resume_ns() > now_ns;
            !holds_back[place]
        };
        self.held_back.extract_if(.., resumes).collect()
    }

    /// Senders that may go on because messages of theirs arrived, where nothing else answers.
    pub fn take_arrived(&mut self) -> Vec<ConnIndex> {
        std::mem::take(&mut self.arrived)
    }

    /// Connections with deliveries to acknowledge; the caller has each call [`Self::acknowledge`].
    pub fn take_unacknowledged(&mut self) -> Vec<ConnIndex> {
        std::mem::take(&mut self.unacknowledged)
    }

    /// Acknowledges everything delivered to a connection.
    pub fn acknowledge(&mut self, conn: ConnIndex, out: &mut Vec<u8>) {
        let (session, before) = (&mut self.sessions[conn as usize], out.len());
        session.acknowledge(out);
        if out.len() > before && !self.visits.is_empty() {
            session.ask(out);
        }
    }

    /// Tells the server how many unacknowledged messages a user takes from now on.
    pub fn set_window(&mut self, conn: ConnIndex, window: u32, out: &mut Vec<u8>) {
        let session = &mut self.sessions[conn as usize];
        if session.is_open() {
            session.set_window(window, out);
        }
    }

    /// A connection is being made, for the first time or again.
    pub fn connects(&mut self) {
        self.counts.connecting += 1;
    }

    /// A connection was cut on purpose.
    pub fn cut(&mut self, conn: ConnIndex) {
        self.counts.cut += 1;
        self.left(conn);
    }

    /// Whether a user is logged in.
    pub fn is_online(&self, conn: ConnIndex) -> bool {
        self.sessions.get(conn as usize).is_some_and(Session::is_open)
    }

    /// Connections that are to be made again, and when.
    pub fn take_gone(&mut self) -> Vec<(ConnIndex, When)> {
        let visits = &mut self.visits;
        let mut when = |conn: ConnIndex| {
            let visits = &mut visits[conn as usize];
            match (std::mem::take(&mut visits.back_ns), visits.attempts) {
                (0, 0) => When::Away,
                (0, attempts) => When::Failed(attempts),
                (back_ns, _) => When::At(back_ns),
            }
        };
        self.gone.drain(..).map(|conn| (conn, when(conn))).collect()
    }

    /// A connection is over; whether its login was done.
    fn left(&mut self, conn: ConnIndex) -> bool {
        let (index, member) = (conn as usize, self.members[conn as usize]);
        let was_open =
            std::mem::replace(&mut self.sessions[index], Session::new(self.protocol)).is_open();
        if let Some(place) = member.sender {
            self.senders[place as usize].leave();
        }
        if !was_open {
            self.counts.connecting -= 1;
            return false;
        }
        self.counts.online -= 1;
        if let Some(visits) = self.visits.get_mut(index) {
            let done_before = visits.done;
            let back_ns = visits.back_ns;
            *visits = Visits { ended: visits.ended + 1, done_before, back_ns, ..Visits::default() };
        }
        self.note_change(member.user, false);
        true
    }

    fn note_change(&mut self, user: u32, is_online: bool) {
        if let Some(watching) = &mut self.watching {
            self.counts.owed += u64::from(watching.changed(user, is_online, self.now_ns));
        }
    }

    /// What was measured so far, to hand a part of it over.
    pub fn measured(&mut self) -> &mut Measured {
        &mut self.measured
    }

    /// All findings, at the end.
    pub fn findings(mut self) -> Findings {
        let counts = self.counts();
        let users = self.members.iter().filter(|member| member.sender.is_some());
        let sent = users
            .zip(&mut self.senders)
            .map(|(member, sender)| SentBy {
                user: member.user,
                messages: sender.sent(),
                not_accepted: sender.not_accepted(),
            })
            .collect();
        let (measured, verdicts) = (self.measured, self.checker.verdicts);
        let (arrivals, handshakes) = (self.checker.arrivals(), Handshakes::default());
        Findings { measured, verdicts, arrivals, counts, sent, handshakes }
    }
}

impl Handler for Driver<'_> {
    fn connected(&mut self, conn: ConnIndex, out: &mut Vec<u8>) {
        let member = self.members[conn as usize].user;
        let user = user_name(self.run, member);
        let mailbox = user_name(self.run, self.checker.topology().mailbox(member));
        let token = self.signer.map(|signer| signer.token(&user)).unwrap_or_default();
        let window = self.control.recv_window();
        let login = Login { user: &user, mailbox: &mailbox, token: &token, window };
        self.sessions[conn as usize].log_in(out, login);
    }

    fn received(&mut self, conn: ConnIndex, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.tick();
        let member = self.members[conn as usize];
        let session = &mut self.sessions[conn as usize];
        let (had_none, was_open) = (session.unacknowledged() == 0, session.is_open());
        let mut sink = Sink {
            user: member.user,
            place: member.sender.map(|place| place as usize),
            members: &self.members,
            senders: &mut self.senders,
            arrived: (!self.protocol.answers()).then_some(&mut self.arrived),
            window_max: self.window_max,
            checker: &mut self.checker,
            measured: &mut self.measured,
            counts: &mut self.counts,
            now_ns: self.now_ns,
            window: self.window,
            unix_offset_ms: &mut self.unix_offset_ms,
            stalls: self.stalled.contains(&member.user),
            visits: self.visits.get_mut(conn as usize),
            watching: self.watching.as_mut(),
        };
        session.receive(bytes, out, &mut sink).map_err(Cow::into_owned)?;
        if session.is_open() && !was_open {
            self.note_change(member.user, true);
            if let Some(watching) = &self.watching {
                watching.watch(member.user, out);
            }
            // It may have changed since the HELLO.
            self.sessions[conn as usize].set_window(self.control.recv_window(), out);
        }
        let session = &mut self.sessions[conn as usize];
        if had_none && session.unacknowledged() > 0 {
            self.unacknowledged.push(conn);
        }
        if session.is_batch_whole() {
            self.acknowledge(conn, out);
        }
        if let Some(place) = member.sender {
            let sender = &mut self.senders[place as usize];
            self.counts.resent += sender.send_again(self.unix_offset_ms.unwrap_or(0), out);
        }
        if self.sending {
            self.send_due(conn, out);
        }
        Ok(())
    }

    fn ended(&mut self, conn: ConnIndex, reason: &str) {
        self.tick();
        let was_open = self.left(conn);
        let count = match (self.visits.get_mut(conn as usize), was_open) {
            (None, true) => &mut self.counts.ended,
            (None, false) => &mut self.counts.failed,
            (Some(_), true) => &mut self.counts.dropped,
            (Some(visits), false) => {
                visits.attempts += 1;
                &mut self.counts.retried
            }
        };
        *count += 1;
        self.measured.error(reason);
    }

    fn gone(&mut self, conn: ConnIndex) {
        if !self.visits.is_empty() {
            self.gone.push(conn);
        }
    }
}

/// Where one connection's events go.
struct Sink<'a> {
    user: u32,
    /// The connection's own sender.
    place: Option<usize>,
    members: &'a [Member],
    senders: &'a mut [Sender],
    /// Where nothing answers: connections whose messages arrived.
    arrived: Option<&'a mut Vec<ConnIndex>>,
    window_max: u32,
    checker: &'a mut Checker,
    measured: &'a mut Measured,
    counts: &'a mut Counts,
    now_ns: u64,
    window: Window,
    unix_offset_ms: &'a mut Option<u64>,
    stalls: bool,
    visits: Option<&'a mut Visits>,
    watching: Option<&'a mut Watching>,
}

impl Sink<'_> {
    fn sender(&mut self) -> Option<&mut Sender> {
        self.place.map(|place| &mut self.senders[place])
    }

    /// Frees the window of a sender of this thread: senders are the first connections, in the order of users.
    fn free(&mut self, head: Head) {
        let Some(arrived) = &mut self.arrived else { return };
        let senders = &self.members[..self.senders.len()];
        if let Ok(place) = senders.binary_search_by_key(&head.sender, |member| member.user) {
            self.senders[place].arrived(head.seq);
            let conn = place as ConnIndex;
            if arrived.last() != Some(&conn) {
                arrived.push(conn);
            }
        }
    }
}

impl Events for Sink<'_> {
    fn logged_in(&mut self, welcome: Welcome) {
        self.counts.logged_in += 1;
        self.counts.online += 1;
        self.counts.connecting -= 1;
        if let Some(visits) = &mut self.visits {
            (visits.attempts, visits.back_ns) = (0, 0);
        }
        if let Some(server_ms) = welcome.server_time_ms {
            let offset_ms = server_ms.saturating_sub(self.now_ns / 1_000_000);
            self.unix_offset_ms.get_or_insert(offset_ms);
        }
        let window = welcome.send_window.min(self.window_max);
        if let Some(sender) = self.sender() {
            sender.open(window);
        }
    }

    fn accepted(&mut self, first: u32, count: u16) {
        for offset in 0..u32::from(count) {
            let seq = first.wrapping_add(offset);
            let answered = self.sender().and_then(|sender| sender.answered(seq));
            let Some(Sent { times, number }) = answered else {
                self.measured.error("answer_to_nothing");
                continue;
            };
            self.counts.accepted += 1;
            self.counts.owed += self.checker.topology().copies(self.user, number);
            self.measured.note_accepted(times, self.now_ns, self.window);
        }
    }

    fn rejected(&mut self, number: u32, code: u16, retry_after_ms: u32) {
        let resume_ns = self.now_ns + u64::from(retry_after_ms) * 1_000_000;
        if self.sender().is_some_and(|sender| sender.refused(number, resume_ns)) {
            self.counts.rejected += 1;
            *self.measured.rejected.entry(code).or_default() += 1;
        } else {
            self.measured.error("answer_to_nothing");
        }
    }

    fn message(&mut self, message: Message<'_>) {
        let before = self.checker.verdicts.arrived();
        let is_steady = self.window.is_steady(self.now_ns);
        self.measured.delivered_steady += u64::from(is_steady);
        let visits = self.visits.as_deref().copied().unwrap_or_default();
        let arrival = Arrival {
            login: visits.ended,
            no: message.no,
            done: visits.done,
            done_before: visits.done_before,
        };
        let Message { from, payload, .. } = message;
        if let Some(head) = self.checker.arrived(self.user, from, payload, arrival) {
            if self.window.is_steady(head.intended_ns) {
                let latencies = if self.stalls {
                    &mut self.measured.delivered_stalled
                } else {
                    &mut self.measured.delivered
                };
                latencies.record(self.now_ns.saturating_sub(head.intended_ns));
            }
            if self.arrived.is_some() {
                self.measured.note_through(head.intended_ns, self.now_ns, self.window);
            }
            self.free(head);
        }
        self.counts.arrived += self.checker.verdicts.arrived() - before;
    }

    fn confirmed(&mut self, upto: u32) {
        if let Some(visits) = &mut self.visits {
            visits.done = visits.done.max(upto);
        }
    }

    fn presence(&mut self, query: u32, entries: PresenceEntries<'_>) {
        let Some(watching) = &mut self.watching else { return };
        for (state, _, user) in entries.iter() {
            self.counts.watches += u64::from(query != 0);
            if state == PresenceState::Refused {
                self.measured.error("watch_refused");
                continue;
            }
            let is_online = state == PresenceState::Online;
            let told = watching.told(self.user, user, is_online, self.now_ns);
            self.counts.arrived += u64::from(told.settled);
            if let Some(age_ns) = told.age_ns {
                self.measured.told += 1;
                self.measured.told_steady += u64::from(self.window.is_steady(self.now_ns));
                self.measured.delivered.record(age_ns);
            }
        }
    }

    fn draining(&mut self, retry_after_ms: u32, jitter_ms: u32) {
        self.measured.error("server_drains");
        if let Some(visits) = &mut self.visits {
            // The random part: a user's number, mixed, is evenly spread over the width (Knuth, 6.4).
            let part = u64::from(self.user.wrapping_mul(0x9e37_79b9));
            let jitter_ns = u64::from(jitter_ms) * part / (u64::from(u32::MAX) / 1_000_000);
            visits.back_ns = self.now_ns + u64::from(retry_after_ms) * 1_000_000 + jitter_ns;
        }
    }
}
