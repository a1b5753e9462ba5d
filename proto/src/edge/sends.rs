//! SENDs: taking them in, sending them on, and their answers. And where shards go, because SENDs move with them.

use super::sessions::Sends;
use super::{CoreIndex, Effects, NIL, Router, refuse};
use crate::id::{ConnId, ShardId, UserKey};
use crate::link::{LinkSend, ToCore, ToEdge};
use crate::peer::PartitionState;
use crate::sabotage::{self, Sabotage};
use crate::wire::Code;

/// SENDs sent in one turn to shards that were held back (I8).
const PUMPED_PER_TURN: usize = 2048;
/// SENDs refused in one turn for lack of an answer (I8).
const EXPIRED_PER_TURN: usize = 2048;
/// When a client should try again, milliseconds.
const OVERLOADED_RETRY_MS: u32 = 100;
const UNAVAILABLE_RETRY_MS: u32 = 500;
/// Bytes that a SEND costs besides its frame.
const PENDING_BYTES: usize = 128;

impl Router {
    /// A SEND for recipients of one shard.
    pub(super) fn send(&mut self, fx: &mut impl Effects, now_ms: u64, send: &LinkSend<'_>) {
        let Some(session) = self.sessions.get_mut(send.conn) else { return };
        let about = PENDING_BYTES + send.payload.len() + send.to.len();
        let is_full = session.pending_bytes as usize + about > self.config.conn_bytes_max
            || self.pendings.bytes() + about > self.config.bytes_max;
        if is_full {
            self.counters.overloaded += 1;
            return refuse(fx, send.conn, send.seq, Code::Overloaded, OVERLOADED_RETRY_MS);
        }
        let to = send.to.first_chunk().expect("a SEND names at least one recipient");
        let shard = self.shard_of(UserKey(*to));
        let mut frame = self.pendings.buffer(about);
        let session = self.sessions.get_mut(send.conn).expect("it was there");
        let conn = session.stable_name();
        ToCore::Send(LinkSend { conn, seq: session.next_seq, ..*send }).encode(&mut frame);
        session.pending_bytes += frame.len() as u32;
        session.next_seq = session.next_seq.wrapping_add(1);
        let of_shard = &mut self.shards[usize::from(shard.0)];
        let who = (send.conn.slot(), send.seq, shard);
        let index = self.pendings.push(of_shard, who, now_ms, frame);
        session.sends.get_or_insert_default().0.push_back(index);
        // Behind others that are held back it waits its turn.
        if self.shards[usize::from(shard.0)].unsent == index {
            self.pump(fx, now_ms, shard, 1);
        }
    }

    /// Sends what a shard holds back, as far as it may go. How many went.
    fn pump(&mut self, fx: &mut impl Effects, now_ms: u64, shard: ShardId, most: usize) -> usize {
        let of_shard = &mut self.shards[usize::from(shard.0)];
        let (Some(core), None) = (of_shard.at, of_shard.moving) else { return 0 };
        if !self.cores.state(core, shard).takes() {
            return 0;
        }
        let partition = self.cores.partition(core, shard);
        let mut sent = 0;
        while sent < most && of_shard.unsent != NIL {
            if fx.backlog_bytes(core, partition) > self.config.backlog_max {
                break;
            }
            let pending = self.pendings.at(of_shard.unsent);
            fx.to_core(core, partition).extend_from_slice(&pending.frame);
            self.counters.resent += u64::from(pending.version != 0);
            (pending.core, pending.version, pending.sent_ms) =
                (Some(core), of_shard.version, now_ms);
            of_shard.unsent = pending.next;
            of_shard.under_way += 1;
            sent += 1;
        }
        sent
    }

    /// Sends what shards hold back. Whether there is more that may go now.
    pub(super) fn pump_some(&mut self, fx: &mut impl Effects, now_ms: u64) -> bool {
        let mut left = PUMPED_PER_TURN;
        for number in 0..self.shards.len() {
            if self.shards[number].unsent != NIL {
                left -= self.pump(fx, now_ms, ShardId(number as u16), left);
                if left == 0 {
                    self.next_tick_ms = now_ms;
                    return true;
                }
            }
        }
        false
    }

    /// Consecutive SENDs are durable, by the numbers that they have on links.
    pub(super) fn accepted(
        &mut self,
        fx: &mut impl Effects,
        name: ConnId,
        first: u32,
        count: u16,
        copies: u8,
    ) {
        let count = count + u16::from(sabotage::is(Sabotage::EdgeAcceptsMore));
        let mut run: Option<(u32, u16)> = None;
        let mut conn = None;
        for offset in 0..u32::from(count) {
            let Some((of, seq)) = self.settle(name, first.wrapping_add(offset)) else {
                self.counters.stale += 1;
                // Nothing of this connection waits: neither will what is left of a run that a peer made up.
                if self.sessions.of_stable_name(name).is_none_or(|session| session.sends.is_none())
                {
                    break;
                }
                continue;
            };
            conn = Some(of);
            run = match run {
                Some((first, count)) if first.wrapping_add(u32::from(count)) == seq => {
                    Some((first, count + 1))
                }
                other => {
                    if let Some((first, count)) = other {
                        fx.to_client(&ToEdge::Accepted { conn: of, first, count, copies });
                    }
                    Some((seq, 1))
                }
            };
        }
        if let (Some((first, count)), Some(conn)) = (run, conn) {
            fx.to_client(&ToEdge::Accepted { conn, first, count, copies });
        }
    }

    /// A SEND was refused. One that a core does not take because the shard is not its own now goes to another one.
    pub(super) fn rejected(
        &mut self,
        fx: &mut impl Effects,
        now_ms: u64,
        core: CoreIndex,
        name: ConnId,
        seq: u32,
        (code, retry_after_ms): (Code, u32),
    ) {
        let Some(index) = self.find(name, seq) else {
            self.counters.stale += 1;
            return;
        };
        let pending = self.pendings.at(index);
        let shard = pending.shard;
        // It was sent to another core since: that one's answer counts.
        if pending.core != Some(core)
            || pending.version != self.shards[usize::from(shard.0)].version
        {
            self.counters.stale += 1;
            return;
        }
        if code == Code::ShardUnavailable && sabotage::is(Sabotage::EdgeAcceptsRefused) {
            return self.accepted(fx, name, seq, 1, 2);
        }
        if code == Code::ShardUnavailable {
            return self.refused_by(fx, now_ms, core, shard);
        }
        if let Some((conn, seq)) = self.settle(name, seq) {
            fx.to_client(&ToEdge::Rejected { conn, seq, code, retry_after_ms });
        }
    }

    /// The place of an unanswered SEND, by the connection's and its own number on links.
    fn find(&mut self, name: ConnId, link_seq: u32) -> Option<u32> {
        let session = self.sessions.of_stable_name(name)?;
        let Sends(sends) = &**session.sends.as_ref()?;
        let first = session.next_seq.wrapping_sub(sends.len() as u32);
        let index = *sends.get(link_seq.wrapping_sub(first) as usize)?;
        (index != NIL).then_some(index)
    }

    /// A SEND is answered: whose it was, and the client's number for it.
    fn settle(&mut self, name: ConnId, link_seq: u32) -> Option<(ConnId, u32)> {
        let index = self.find(name, link_seq)?;
        let pending = self.pendings.at(index);
        let version = self.shards[usize::from(pending.shard.0)].version;
        if sabotage::is(Sabotage::EdgeRepeatsAnswer) && pending.version != version {
            let (slot, seq) = (pending.slot, pending.seq);
            return self.sessions.in_slot(slot).map(|session| (session.conn, seq));
        }
        let removed = self.pendings.remove(&mut self.shards, index);
        let session = self.sessions.of_stable_name(name).expect("it has the SEND");
        session.forget_send(index, removed.bytes);
        Some((session.conn, removed.seq))
    }

    /// A connection is gone: nobody waits for the answers. What was sent may be accepted all the same.
    pub(super) fn drop_sends(&mut self, sends: impl IntoIterator<Item = u32>) {
        for index in sends.into_iter().filter(|index| *index != NIL) {
            self.pendings.remove(&mut self.shards, index);
        }
    }
}

/// Where shards go.
impl Router {
    /// Looks at all shards again.
    pub(super) fn reconsider(&mut self, fx: &mut impl Effects, now_ms: u64) {
        for number in 0..self.shards.len() {
            self.reconsider_shard(fx, now_ms, ShardId(number as u16));
        }
    }

    fn reconsider_shard(&mut self, fx: &mut impl Effects, now_ms: u64, shard: ShardId) {
        let best = self.cores.best(shard);
        let of_shard = &mut self.shards[usize::from(shard.0)];
        let Some(at) = of_shard.at else {
            let is_first = of_shard.version == 1;
            let waits = is_first && self.cores.may_grow(shard, now_ms, self.config.settle_ms);
            if let Some(best) = best.filter(|_| !waits) {
                self.switch(fx, now_ms, shard, best);
            }
            return;
        };
        let state = self.cores.state(at, shard);
        let is_lost = state == PartitionState::Recovering;
        if is_lost || (self.cores.is_doubted(at, shard) && best.is_some()) {
            self.counters.failovers += 1;
            match best {
                Some(best) => self.switch(fx, now_ms, shard, best),
                None => self.strand(shard),
            }
            return;
        }
        if let Some((to, by_ms)) = of_shard.moving {
            if best != Some(to) {
                of_shard.moving = None;
            } else if of_shard.under_way == 0 || now_ms >= by_ms {
                self.counters.moves += 1;
                return self.switch(fx, now_ms, shard, to);
            }
            return;
        }
        let Some(best) = best.filter(|best| *best != at) else { return };
        let then_ms = now_ms.saturating_sub(self.config.failback_ms);
        let is_due =
            state == PartitionState::Draining || self.cores.is_good_since(best, shard, then_ms);
        if is_due {
            of_shard.moving = Some((best, now_ms + self.config.move_ms));
        }
    }

    /// No core takes the shard: what waits, waits.
    fn strand(&mut self, shard: ShardId) {
        if sabotage::is(Sabotage::EdgeForgetsSend) {
            self.forget_under_way(shard);
        }
        let of_shard = &mut self.shards[usize::from(shard.0)];
        self.unroutable += u32::from(of_shard.at.take().is_some());
        of_shard.moving = None;
        of_shard.version += 1;
        of_shard.unsent = of_shard.head;
        of_shard.under_way = 0;
    }

    /// Drops what was sent and not answered. Only builds that are wrong on purpose do.
    fn forget_under_way(&mut self, shard: ShardId) {
        while self.shards[usize::from(shard.0)].under_way > 0 {
            let index = self.shards[usize::from(shard.0)].head;
            let slot = self.pendings.at(index).slot;
            let removed = self.pendings.remove(&mut self.shards, index);
            let session = self.sessions.in_slot(slot).expect("a SEND goes with its connection");
            session.forget_send(index, removed.bytes);
        }
    }

    /// From now on a shard goes to that core: SENDs from the oldest one on, logins and watches.
    fn switch(&mut self, fx: &mut impl Effects, now_ms: u64, shard: ShardId, to: CoreIndex) {
        self.strand(shard);
        self.unroutable -= 1;
        self.shards[usize::from(shard.0)].at = Some(to);
        self.sessions.sweep(now_ms);
        self.asks_moved(fx, shard);
        self.pump(fx, now_ms, shard, PUMPED_PER_TURN);
    }

    /// A core said that a shard is not its own now. Another one is asked, or the same one again after a while.
    pub(super) fn refused_by(
        &mut self,
        fx: &mut impl Effects,
        now_ms: u64,
        core: CoreIndex,
        shard: ShardId,
    ) {
        self.cores.doubt(core, shard, now_ms);
        if self.shards[usize::from(shard.0)].at == Some(core) {
            self.strand(shard);
        }
        self.reconsider_shard(fx, now_ms, shard);
    }

    /// Deadlines of SENDs: the oldest one of each shard is at the head of its list.
    pub(super) fn take_time(&mut self, fx: &mut impl Effects, now_ms: u64) {
        let mut left = EXPIRED_PER_TURN;
        for number in 0..self.shards.len() {
            let shard = ShardId(number as u16);
            while left > 0 && self.shards[number].head != NIL {
                let pending = self.pendings.at(self.shards[number].head);
                let waits = sabotage::is(Sabotage::EdgeWaitsForever);
                if waits || pending.came_ms + self.config.send_wait_ms > now_ms {
                    break;
                }
                left -= 1;
                self.expire_head(fx, shard);
            }
            self.doubt_if_slow(now_ms, shard);
        }
    }

    fn expire_head(&mut self, fx: &mut impl Effects, shard: ShardId) {
        let index = self.shards[usize::from(shard.0)].head;
        let slot = self.pendings.at(index).slot;
        let removed = self.pendings.remove(&mut self.shards, index);
        let session = self.sessions.in_slot(slot).expect("a SEND goes with its connection");
        session.forget_send(index, removed.bytes);
        self.counters.unanswered += 1;
        refuse(fx, session.conn, removed.seq, Code::ShardUnavailable, UNAVAILABLE_RETRY_MS);
    }

    /// A partition that leaves its oldest SEND unanswered is doubted if there is another one to go to.
    fn doubt_if_slow(&mut self, now_ms: u64, shard: ShardId) {
        let of_shard = &self.shards[usize::from(shard.0)];
        let Some(at) = of_shard.at.filter(|_| of_shard.head != NIL) else { return };
        if of_shard.under_way == 0 || of_shard.head == of_shard.unsent {
            return;
        }
        let sent_ms = self.pendings.at(of_shard.head).sent_ms;
        let has_other = (0..self.cores.len()).any(|core| {
            core != at
                && self.cores.state(core, shard).takes()
                && !self.cores.is_doubted(core, shard)
        });
        if sent_ms + self.config.answer_ms <= now_ms && has_other {
            self.cores.doubt(at, shard, now_ms);
        }
    }
}
