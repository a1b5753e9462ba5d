//! When this node acknowledges: its mode, and how it changes.
//!
//! | mode | begins when | a message is acknowledged when | new messages |
//! |---|---|---|---|
//! | RECOVERING | a life begins | never | refused: the peer takes them |
//! | NORMAL | EPOCH(NORMAL), and all before it, is synced on both nodes | it is synced on both | taken |
//! | SOLO | EPOCH(SOLO) is synced here | it is synced here; the answer says 1 copy | taken |
//!
//! Between the append of EPOCH(NORMAL) and its sync on both nodes, only what stands before it is acknowledged, by the rule
//! of SOLO. So the log alone says for each message which rule acknowledged it (I2).
//!
//! NORMAL ends when the peer says that it goes, when its process is gone, when no link is up for `degrade_ms`, or when a
//! record is synced here and not there for so long. It begins when both sides have what the other had, little is under
//! way, and a peer that was slow before has kept up for a while. The modes of both nodes may differ; each only decides
//! when its own node acknowledges.
//!
//! With `WhenAlone::Refuse` NORMAL does not end: new messages are refused, and those under way wait for the peer.

use std::collections::VecDeque;

use super::effects::{EpochRecord, Event, Mode, RefuseCode, ReplicaEffects};
use super::frame::{self, Hello};
use super::{Label, Now, Replica, WhenAlone};
use crate::core::{Core, RejectCode};
use crate::sabotage::{self, Sabotage};
use crate::wire::Writer;

/// A NORMAL that was shorter than this makes the next one wait for longer. Milliseconds.
const STEADY_NORMAL_MS: u64 = 30_000;
/// How many times `steady_ms` the wait gets at most.
const STEADY_MAX: u64 = 32;
/// Counts of messages kept apart; beyond that they are added up.
const UNCOVERED_MAX: usize = 4096;
/// Streams that an EPOCH says the peer's numbers of.
const EPOCH_STREAMS_MAX: usize = 1024;

/// A change of mode under way.
#[derive(Clone, Copy, Debug)]
struct Change {
    to: Mode,
    /// Where its EPOCH record is; `None` while the log has no room for it.
    lsn: Option<u64>,
    since_ms: u64,
}

/// The state of the rule.
#[derive(Debug)]
pub(crate) struct Rule {
    mode: Mode,
    state_id: u64,
    change: Option<Change>,
    /// Everything in our log up to here is synced at the peer, whether it is here or not.
    there_lsn: u64,
    /// Everything in our log up to here is synced on both nodes.
    two_lsn: u64,
    /// Synced here and not known to be synced there: position, and since when.
    waits: VecDeque<(u64, u64)>,
    /// Messages in batches that are not known to be synced on both nodes, by position.
    uncovered: VecDeque<(u64, u64)>,
    /// Messages of the batch that is being closed.
    msgs_closing: u64,
    started_ms: u64,
    /// The peer had its time to come.
    waited: bool,
    /// Since when there is no link.
    lost_ms: Option<u64>,
    peer_gone: bool,
    peer_left: bool,
    calm_since_ms: Option<u64>,
    steady_ms: u64,
    normal_since_ms: u64,
    /// Since when nothing could be acknowledged, if so.
    trouble_since_ms: Option<u64>,
    last_failover: Option<(u64, u64)>,
    halted: bool,
    draining: bool,
    drained: bool,
    met: bool,
    split_of: Option<(u64, u64)>,
    splits: u64,
    last_split: (u64, u64),
}

impl Rule {
    pub(super) fn new() -> Self {
        Self {
            mode: Mode::Recovering,
            state_id: 0,
            change: None,
            there_lsn: 0,
            two_lsn: 0,
            waits: VecDeque::new(),
            uncovered: VecDeque::new(),
            msgs_closing: 0,
            started_ms: 0,
            waited: false,
            lost_ms: None,
            peer_gone: false,
            peer_left: false,
            calm_since_ms: None,
            steady_ms: 0,
            normal_since_ms: 0,
            trouble_since_ms: None,
            last_failover: None,
            halted: false,
            draining: false,
            drained: false,
            met: false,
            split_of: None,
            splits: 0,
            last_split: (0, 0),
        }
    }

    /// Recovery is over.
    pub(super) fn begin(&mut self, now: Now, state_id: u64, lsn: u64, solo_msgs: u64) {
        self.state_id = state_id;
        if solo_msgs > 0 {
            self.uncovered.push_back((lsn, solo_msgs));
        }
        (self.started_ms, self.lost_ms) = (now.mono_ms, Some(now.mono_ms));
    }

    pub(super) fn mode(&self) -> (Mode, u64) {
        (self.mode, self.state_id)
    }

    pub(super) fn two_lsn(&self) -> u64 {
        self.two_lsn
    }

    pub(super) fn is_halted(&self) -> bool {
        self.halted
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    /// Messages that were taken alone and are not known to be on the peer.
    pub(super) fn solo_msgs(&self) -> u64 {
        match self.mode {
            Mode::Normal => 0,
            Mode::Solo | Mode::Recovering => self.uncovered.iter().map(|(_, msgs)| msgs).sum(),
        }
    }

    /// Whether the peer had its time to come, or came.
    pub(super) fn has_waited(&self) -> bool {
        self.waited || self.mode != Mode::Recovering
    }

    pub(super) fn last_failover(&self) -> Option<(u64, u64)> {
        self.last_failover
    }

    pub(super) fn splits(&self) -> (u64, (u64, u64)) {
        (self.splits, self.last_split)
    }

    /// How long the oldest record has waited for the peer.
    pub(super) fn oldest_wait_ms(&self, now: Now) -> u64 {
        self.waits.front().map_or(0, |wait| now.mono_ms.saturating_sub(wait.1))
    }

    /// Whether a peer was met in this life, and all that it had is here.
    pub(super) fn has_met(&self) -> bool {
        self.met
    }

    pub(super) fn met_peer(&mut self) {
        self.met = true;
    }

    /// Nothing is acknowledged any more. False if that was so before.
    pub(super) fn halt(&mut self) -> bool {
        !std::mem::replace(&mut self.halted, true)
    }

    pub(super) fn lost_link(&mut self, now: Now) {
        self.lost_ms.get_or_insert(now.mono_ms);
        self.calm_since_ms = None;
    }

    pub(super) fn peer_is_gone(&mut self) {
        self.peer_gone = true;
    }

    /// A message of ours is in the batch that is being closed.
    pub(super) fn note_msg(&mut self) {
        self.msgs_closing += 1;
    }

    /// A batch is closed.
    pub(super) fn closed(&mut self, lsn: u64) {
        let msgs = std::mem::take(&mut self.msgs_closing);
        if msgs == 0 {
            return;
        }
        let is_full = self.uncovered.len() >= UNCOVERED_MAX;
        match self.uncovered.back_mut().filter(|_| is_full) {
            Some(last) => *last = (lsn, last.1 + msgs),
            None => self.uncovered.push_back((lsn, msgs)),
        }
    }

    /// The greeting of a link is over.
    pub(super) fn greeted(&mut self, fx: &mut impl ReplicaEffects, hello: &Hello) {
        self.lost_ms = None;
        self.peer_gone = false;
        self.peer_left = hello.draining;
        let key = (self.state_id, hello.state_id);
        let alone = self.mode != Mode::Normal && hello.mode != Mode::Normal;
        let (mine, theirs) = (self.solo_msgs(), hello.solo_msgs);
        if alone && mine > 0 && theirs > 0 && self.split_of != Some(key) {
            self.split_of = Some(key);
            self.splits += 1;
            self.last_split = (mine, theirs);
            fx.event(&Event::Split { mine, theirs });
        }
    }

    /// Why NORMAL must end, if so: since when nothing is acknowledged, and whether a slow peer is the reason.
    fn trouble(&self, now: Now, degrade_ms: u64) -> Option<(u64, bool)> {
        let no_link = self
            .lost_ms
            .filter(|since| self.peer_gone || self.peer_left || now.mono_ms >= since + degrade_ms);
        if let Some(since) = no_link {
            return Some((since, false));
        }
        if self.peer_left {
            return Some((now.mono_ms, false));
        }
        let oldest = self.waits.front().map(|wait| wait.1)?;
        (now.mono_ms >= oldest + degrade_ms).then_some((oldest, true))
    }
}

impl Replica {
    /// The batches of our log up to `lsn` are synced. Calls [`Core::handle_durable`] as far as the rule allows.
    pub fn handle_durable(
        &mut self,
        fx: &mut impl ReplicaEffects,
        core: &mut Core,
        now: Now,
        lsn: u64,
    ) {
        if lsn <= self.durable_lsn {
            return;
        }
        assert!(lsn <= self.closed_lsn, "a batch is closed before it is synced");
        self.durable_lsn = lsn;
        self.streams.synced(lsn);
        if let Some(link) = &mut self.link {
            link.shipping.durable(lsn);
        }
        self.greet(fx, core, now);
        self.finish_healing(fx, core, now);
        if self.report_due() {
            self.send_report(fx, core, now);
        }
        if self.rule.mode == Mode::Normal {
            self.rule.waits.push_back((lsn, now.mono_ms));
        }
        self.settle(fx, core, now);
    }

    /// Acknowledges what may be acknowledged, and changes the mode if it is time.
    pub(super) fn settle(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now) {
        if self.rule.halted {
            return core.set_admission(Some(RejectCode::NotServing));
        }
        self.note_covered();
        self.change_mode(fx, core, now);
        self.acknowledge(fx, core, now);
        self.drain_some(fx, core, now);
        core.set_admission(self.refuses(now).then_some(RejectCode::NotServing));
    }

    /// How far both nodes have our log.
    fn note_covered(&mut self) {
        let rule = &mut self.rule;
        if let Some(link) = &self.link
            && let Some(peer_lsn) = link.shipping.peer_lsn()
        {
            rule.there_lsn = rule.there_lsn.max(peer_lsn.min(link.receiving.covered_lsn()));
        }
        rule.two_lsn = rule.two_lsn.max(rule.there_lsn.min(self.durable_lsn));
        while rule.waits.front().is_some_and(|(lsn, _)| *lsn <= rule.two_lsn) {
            rule.waits.pop_front();
        }
        while rule.uncovered.front().is_some_and(|(lsn, _)| *lsn <= rule.two_lsn) {
            rule.uncovered.pop_front();
        }
    }

    fn acknowledge(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now) {
        let rule = &self.rule;
        let (two, local) = (rule.two_lsn, self.durable_lsn);
        let pending = rule.change.and_then(|change| Some((change.to, change.lsn?)));
        let two = if sabotage::is(Sabotage::AckBeforePeer) { local } else { two };
        let is_solo = rule.mode == Mode::Solo;
        let early = is_solo && sabotage::is(Sabotage::AckBeforeSync);
        let local = if early { self.closed_lsn } else { local };
        let alone = if is_solo && sabotage::is(Sabotage::CopiesLie) { 2 } else { 1 };
        match (rule.mode, pending) {
            (Mode::Normal, _) => core.handle_durable(fx, now.unix_ms, two, 2),
            (Mode::Solo | Mode::Recovering, Some((Mode::Normal, lsn))) => {
                core.handle_durable(fx, now.unix_ms, local.min(lsn - 1), alone);
            }
            (Mode::Solo | Mode::Recovering, _) => {
                core.handle_durable(fx, now.unix_ms, local, alone);
            }
        }
    }

    fn change_mode(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now) {
        self.finish_change(fx, core, now);
        let change_to = self.rule.change.map(|change| change.to);
        let is_late = self
            .rule
            .change
            .is_some_and(|change| now.mono_ms >= change.since_ms + self.config.degrade_ms);
        let may_be_alone = self.config.when_alone == WhenAlone::Continue;
        let wanted = match (self.rule.mode, change_to) {
            (_, Some(Mode::Solo)) | (Mode::Normal, Some(_)) => None,
            (Mode::Normal, None) => {
                let trouble = self.rule.trouble(now, self.config.degrade_ms);
                trouble.filter(|_| may_be_alone).map(|(since, is_slow)| {
                    self.rule.trouble_since_ms = Some(since);
                    self.wait_longer(now, is_slow);
                    Mode::Solo
                })
            }
            (Mode::Solo, Some(_)) => (is_late || !self.is_live()).then_some(Mode::Solo),
            (Mode::Recovering, Some(_)) if is_late || !self.is_live() => {
                self.rule.change = None;
                None
            }
            (Mode::Recovering, Some(_)) => None,
            (Mode::Solo | Mode::Recovering, None) if self.is_steady(now) => Some(Mode::Normal),
            (Mode::Solo, None) => None,
            (Mode::Recovering, None) => {
                self.rule.waited |= now.mono_ms >= self.rule.started_ms + self.config.recover_ms;
                let may_begin = self.rule.waited && !self.marks_owed;
                (may_begin && may_be_alone).then_some(Mode::Solo)
            }
        };
        if let Some(to) = wanted {
            self.rule.change = Some(Change { to, lsn: None, since_ms: now.mono_ms });
        }
        self.append_epoch(fx, core, now);
    }

    /// After a slow peer, or a short NORMAL, the next one must be earned.
    fn wait_longer(&mut self, now: Now, is_slow: bool) {
        let rule = &mut self.rule;
        let was_short = now.mono_ms < rule.normal_since_ms + STEADY_NORMAL_MS;
        let least = self.config.steady_ms;
        rule.steady_ms = match (is_slow, was_short) {
            (true, true) => (2 * rule.steady_ms).clamp(least, STEADY_MAX * least),
            (true, false) => least,
            (false, _) => 0,
        };
    }

    fn append_epoch(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now) {
        let Some(change) = self.rule.change.filter(|change| change.lsn.is_none()) else { return };
        let mut peer = Vec::new();
        let ours = |stream: &&super::streams::Stream| stream.key.origin == self.config.me;
        for stream in self.streams.iter().filter(ours).take(EPOCH_STREAMS_MAX) {
            let mut w = Writer::new(&mut peer);
            w.u16(stream.key.shard.0).u64(stream.peer_synced.prefix());
        }
        let (shard, mode) = (self.config.first_shard, change.to as u8);
        let state_id = self.rule.state_id + 1;
        let appended = core.append_own(now.unix_ms, shard, |dot, hlc| {
            fx.append_epoch(&EpochRecord { shard, dot, hlc, mode, state_id, peer: &peer })
        });
        if let Ok(appended) = appended {
            self.rule.state_id = state_id;
            self.rule.change = Some(Change { lsn: Some(appended.lsn), ..change });
        }
    }

    /// The change under way is over once its EPOCH is synced: on both nodes, for NORMAL.
    fn finish_change(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now) {
        let Some(Change { to, lsn: Some(lsn), .. }) = self.rule.change else { return };
        let synced = match to {
            Mode::Normal => self.rule.two_lsn,
            Mode::Solo | Mode::Recovering => self.durable_lsn,
        };
        let unsynced = to == Mode::Solo && sabotage::is(Sabotage::SoloUnsynced);
        if synced < lsn && !unsynced {
            return;
        }
        // What both nodes have is acknowledged as that, before the rule changes.
        if self.rule.mode == Mode::Normal {
            core.handle_durable(fx, now.unix_ms, self.rule.two_lsn, 2);
        }
        let rule = &mut self.rule;
        (rule.mode, rule.change) = (to, None);
        rule.calm_since_ms = None;
        let since = rule.trouble_since_ms.take();
        let took_ms = since.map_or(0, |since| now.mono_ms.saturating_sub(since));
        rule.waits.clear();
        match to {
            Mode::Normal => {
                if self.durable_lsn > rule.two_lsn {
                    rule.waits.push_back((self.durable_lsn, now.mono_ms));
                }
                rule.normal_since_ms = now.mono_ms;
                core.hold_dedup(None);
                fx.event(&Event::Healed);
            }
            Mode::Solo | Mode::Recovering => {
                if since.is_some() {
                    rule.last_failover = Some((now.unix_ms, took_ms));
                }
                core.hold_dedup(Some(now.unix_ms));
            }
        }
        fx.event(&Event::Mode { mode: to, state_id: rule.state_id, took_ms });
    }

    /// Whether both sides have what the other had, and what is appended here is shipped from memory.
    fn is_live(&self) -> bool {
        let both = |link: &super::Link| link.shipping.is_live() && link.receiving.is_healed();
        let may_end = self.rule.peer_left || self.rule.draining;
        self.link.as_ref().is_some_and(both) && !may_end
    }

    /// Whether, besides, little is under way, or all of it since a short time.
    fn is_near(&self, now: Now) -> bool {
        let Some(link) = &self.link else { return false };
        let unsent = self.tail.bytes_after(link.shipping.tail_lsn());
        let is_little = link.shipping.in_flight() + unsent <= self.config.near_bytes;
        let is_recent = unsent == 0 && link.shipping.oldest_ms(now) <= self.config.near_ms;
        self.is_live() && (is_little || is_recent)
    }

    /// Whether it has been near for long enough.
    fn is_steady(&mut self, now: Now) -> bool {
        if !self.is_near(now) {
            self.rule.calm_since_ms = None;
            return false;
        }
        let since = *self.rule.calm_since_ms.get_or_insert(now.mono_ms);
        now.mono_ms >= since + self.rule.steady_ms
    }

    /// Whether new messages are refused.
    fn refuses(&self, now: Now) -> bool {
        let must_not = self.config.when_alone == WhenAlone::Refuse;
        let alone = match self.rule.mode {
            Mode::Normal => must_not && self.rule.trouble(now, self.config.degrade_ms).is_some(),
            Mode::Recovering => true,
            Mode::Solo => must_not,
        };
        self.rule.draining || alone
    }

    pub(super) fn take_bye(&mut self, fx: &mut impl ReplicaEffects) {
        if !std::mem::replace(&mut self.rule.peer_left, true) {
            fx.event(&Event::PeerDrains);
        }
    }

    /// Begins an orderly end: no new messages; what there is goes to the peer.
    pub fn drain(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now) {
        self.rule.draining = true;
        self.settle(fx, core, now);
    }

    /// Whether everything is where it can be: on the peer if there is one, else synced here.
    pub fn is_drained(&self) -> bool {
        self.rule.drained
    }

    fn drain_some(&mut self, fx: &mut impl ReplicaEffects, core: &Core, _now: Now) {
        let last = core.last_lsn();
        let local = self.durable_lsn >= last;
        let is_over = match &self.link {
            Some(_) if self.is_greeted() && !self.rule.peer_left => {
                local && self.rule.two_lsn >= last
            }
            _ => local,
        };
        if !self.rule.draining || self.rule.drained || !is_over {
            return;
        }
        self.rule.drained = true;
        if self.link.is_some() {
            let out = &mut self.scratch.out;
            out.clear();
            frame::put_bye(out);
            fx.send(out, &[]);
        }
        fx.event(&Event::Drained);
    }

    /// Does what is due: input that waited for room, reports, shipping, changes of mode. After each bunch of inputs and at
    /// [`Replica::poll_timeout`].
    pub fn poll(&mut self, fx: &mut impl ReplicaEffects, core: &mut Core, now: Now) {
        if self.rule.halted {
            return;
        }
        if self.marks_owed {
            self.marks_owed = self.append_marks(fx, core).is_err();
        }
        self.append_owed_retirement(fx, core);
        self.greet(fx, core, now);
        if let Some(link) = &self.link
            && now.mono_ms >= link.heard_ms + self.config.silent_ms
        {
            self.refuse(fx, now, RefuseCode::Silent);
        }
        if self.link.as_ref().is_some_and(|link| link.receiving.is_waiting()) {
            self.take_input(fx, core, now);
        }
        let heartbeat_ms = self.config.heartbeat_ms;
        let is_quiet = |link: &super::Link| now.mono_ms >= link.reported_ms + heartbeat_ms;
        if self.report_due() || self.link.as_ref().is_some_and(is_quiet) {
            self.send_report(fx, core, now);
        }
        self.ship(fx, core, now);
        self.settle(fx, core, now);
    }

    /// When to call [`Replica::poll`] at the latest if nothing else happens, in monotonic milliseconds.
    pub fn poll_timeout(&self, now: Now) -> u64 {
        let soon = now.mono_ms + 1;
        let change = self.rule.change.map(|change| match change.lsn {
            Some(_) => change.since_ms + self.config.degrade_ms,
            None => soon,
        });
        let link = self.link.as_ref().map(|link| {
            let is_busy = link.receiving.is_waiting() || link.shipping.wants_scan();
            let idle = link.reported_ms + self.config.heartbeat_ms;
            let silent = link.heard_ms + self.config.silent_ms;
            if is_busy { soon } else { idle.min(silent) }
        });
        let degrade = self.config.degrade_ms;
        let lost = self.rule.lost_ms.filter(|_| self.rule.mode == Mode::Normal);
        let waits = self.rule.waits.front().map(|wait| wait.1 + degrade);
        let started = (self.rule.mode == Mode::Recovering)
            .then_some(self.rule.started_ms + self.config.recover_ms);
        let calm = self.rule.calm_since_ms.map(|since| since + self.rule.steady_ms);
        let owed = self.marks_owed.then_some(soon);
        let times = [change, link, lost.map(|ms| ms + degrade), waits, started, calm, owed];
        times.into_iter().flatten().min().unwrap_or(u64::MAX).max(soon)
    }

    /// What operators call the state.
    pub fn label(&self) -> Label {
        let is_linked = self.is_greeted();
        match self.rule.mode {
            _ if self.rule.halted => Label::Fenced,
            _ if self.rule.draining => Label::Draining,
            Mode::Recovering => Label::Recovering,
            Mode::Normal => Label::Normal,
            Mode::Solo if is_linked => Label::Healing,
            Mode::Solo => Label::Solo,
        }
    }
}
