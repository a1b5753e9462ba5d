//! A driver for tests: a log in memory, and everything the core says, in order.

mod admission;
mod deliveries;
mod model;
mod peers;
mod policies;
mod recovering;
mod watching;

use super::*;
use crate::hlc::Hlc;
use crate::id::{ConnId, Dot, MsgId, Origin, ShardId, UserKey};

pub(super) const T0: u64 = 1_800_000_000_000;
const OWN: Origin = Origin { node: 1, incarnation: 1 };

/// A record as the log keeps it.
#[derive(Clone, Debug)]
pub(super) enum Record {
    Msg {
        shard: ShardId,
        dot: Dot,
        hlc: Hlc,
        sender: UserKey,
        id: MsgId,
        flags: u16,
        to: Vec<UserKey>,
    },
    Tomb {
        shard: ShardId,
        dot: Dot,
        hlc: Hlc,
        inbox: UserKey,
        reason: TombReason,
        targets: Vec<Dot>,
    },
    Dedup {
        shard: ShardId,
        body: Vec<u8>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) pos: Pos,
    pub(super) len: u32,
    pub(super) lsn: u64,
    pub(super) record: Record,
}

/// What the core told somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    Accepted(ConnId, u32),
    Rejected(ConnId, u32, RejectCode),
    Welcome(ConnId, u32),
    Kick(ConnId, KickReason),
    Deliver(Delivery),
    Receipt { to: UserKey, reader: UserKey, id: MsgId },
    Presence { conn: ConnId, query: u32, user: UserKey, online: bool, since_ms: u64, watch: Watch },
}

/// A log that gives each record its own position, and a list of what was said.
#[derive(Default)]
pub(super) struct Driver {
    pub(super) log: Vec<Logged>,
    pub(super) said: Vec<Said>,
    pub(super) removed: Vec<Pos>,
    /// Where TOMBs are, and where the records are that they name.
    pub(super) tomb_targets: Vec<(Pos, Pos)>,
    pub(super) live: Vec<Pos>,
    pub(super) dead: Vec<(Pos, Pos)>,
    pub(super) repeated: Vec<(Pos, Pos)>,
    pub(super) refuse_msg: Option<Refusal>,
    pub(super) refuse_tomb: Option<Refusal>,
    pub(super) refuse_dedup: Option<Refusal>,
    pub(super) segment: u32,
    pub(super) lsn: u64,
    next_offset: u32,
    pub(super) receipt_names: Vec<String>,
    /// Nothing goes to connections of this reactor.
    pub(super) congested: Option<u16>,
    /// The number of the last login.
    pub(super) session: u64,
}

impl Driver {
    pub(super) fn append(&mut self, record: Record) -> Appended {
        self.lsn += 1;
        self.next_offset += 128;
        let pos = Pos { segment: self.segment, offset: self.next_offset };
        let (lsn, len) = (self.lsn, 100);
        self.log.push(Logged { pos, len, lsn, record });
        Appended { pos, len, lsn }
    }

    pub(super) fn record_at(&self, pos: Pos) -> &Record {
        let index = self.log.binary_search_by_key(&pos, |logged| logged.pos);
        &self.log[index.expect("a record is there")].record
    }

    /// What was said since the last call.
    pub(super) fn take(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }

    /// The numbers and ids delivered since the last call; everything else said is dropped.
    pub(super) fn deliveries(&mut self) -> Vec<(u32, MsgId)> {
        let said = self.take();
        let numbered = said.iter().filter_map(|said| match said {
            Said::Deliver(delivery) => Some((delivery.no, self.id_at(delivery.pos))),
            _ => None,
        });
        numbered.collect()
    }

    pub(super) fn id_at(&self, pos: Pos) -> MsgId {
        match self.record_at(pos) {
            Record::Msg { id, .. } => *id,
            other => panic!("{other:?} was delivered"),
        }
    }
}

impl Effects for Driver {
    fn append_msg(&mut self, msg: &MsgRecord<'_>) -> Result<Appended, Refusal> {
        if let Some(refusal) = self.refuse_msg {
            return Err(refusal);
        }
        let MsgRecord { shard, dot, hlc, sender, msg_id, flags, .. } = *msg;
        let to = msg.recipients.as_chunks().0.iter().map(|key| UserKey(*key)).collect();
        Ok(self.append(Record::Msg { shard, dot, hlc, sender, id: msg_id, flags, to }))
    }

    fn append_tomb(&mut self, tomb: &TombRecord<'_>) -> Result<Appended, Refusal> {
        if let Some(refusal) = self.refuse_tomb {
            return Err(refusal);
        }
        assert!((1..=limits::TOMB_TARGETS_MAX).contains(&tomb.targets.len()));
        for target in tomb.targets {
            match self.record_at(target.pos) {
                Record::Msg { dot, .. } => assert_eq!(*dot, target.dot),
                other => panic!("a TOMB for {other:?}"),
            }
        }
        let TombRecord { shard, dot, hlc, inbox, reason, targets } = *tomb;
        let dots = targets.iter().map(|target| target.dot).collect();
        let tomb = self.append(Record::Tomb { shard, dot, hlc, inbox, reason, targets: dots });
        self.tomb_targets.extend(targets.iter().map(|target| (tomb.pos, target.pos)));
        Ok(tomb)
    }

    fn append_dedup(&mut self, shard: ShardId, body: &[u8]) -> Result<Appended, Refusal> {
        if let Some(refusal) = self.refuse_dedup {
            return Err(refusal);
        }
        assert!(body.len() <= limits::DEDUP_RECORD_BYTES_MAX);
        Ok(self.append(Record::Dedup { shard, body: body.to_vec() }))
    }

    fn entry_removed(&mut self, pos: Pos, _len: u32) {
        self.removed.push(pos);
    }

    fn entry_live(&mut self, pos: Pos, _len: u32) {
        self.live.push(pos);
    }

    fn entry_dead(&mut self, pos: Pos, tomb: Pos) {
        self.dead.push((pos, tomb));
    }

    fn entry_repeated(&mut self, kept: Pos, other: Pos) {
        self.repeated.push((kept, other));
    }

    fn accepted(&mut self, conn: ConnId, seq: u32, copies: u8) {
        assert_eq!(copies, 1);
        self.said.push(Said::Accepted(conn, seq));
    }

    fn rejected(&mut self, conn: ConnId, seq: u32, code: RejectCode, retry_after_ms: u32) {
        assert_eq!(retry_after_ms, code.retry_after_ms());
        self.said.push(Said::Rejected(conn, seq, code));
    }

    fn welcome(&mut self, conn: ConnId, waiting: u32, session: u64) {
        self.session = session;
        self.said.push(Said::Welcome(conn, waiting));
    }

    fn kick(&mut self, conn: ConnId, reason: KickReason) {
        self.said.push(Said::Kick(conn, reason));
    }

    fn has_room(&self, conn: ConnId) -> bool {
        self.congested != Some(conn.reactor())
    }

    fn deliver(&mut self, delivery: &Delivery) {
        self.said.push(Said::Deliver(*delivery));
    }

    fn receipt(&mut self, receipt: &Receipt<'_>) {
        let Receipt { to, reader, reader_name, msg_id } = *receipt;
        self.receipt_names.push(reader_name.to_owned());
        self.said.push(Said::Receipt { to, reader, id: msg_id });
    }

    fn presence(&mut self, presence: &Presence<'_>) {
        let Presence { conn, query, name, online, since_ms, watch } = *presence;
        let user = UserKey::of(name);
        self.said.push(Said::Presence { conn, query, user, online, since_ms, watch });
    }
}

/// A core that takes any number of shards and users by name, and its driver.
pub(super) struct Node {
    pub(super) core: Core,
    pub(super) fx: Driver,
    pub(super) now: u64,
    next_seq: u32,
}

/// Steele, Lea and Flood's SplitMix64 (OOPSLA 2014): a test's own source of chance.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(super) fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }

    pub(super) fn one_in(&mut self, chances: u32) -> bool {
        self.below(chances) == 0
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end as u32 + 1) as usize);
        }
    }
}

/// The connection with this number.
pub(super) fn conn(number: u32) -> ConnId {
    ConnId::new(1, number, 0)
}

/// The id with this number, made `ms` after the start.
pub(super) fn id(ms: u64, number: u128) -> MsgId {
    MsgId::v7(T0 + ms, number)
}

pub(super) fn key(name: &str) -> UserKey {
    UserKey::of(name)
}

impl Node {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A node of one shard whose configuration `change` changed.
    pub(super) fn with(change: impl FnOnce(&mut CoreConfig)) -> Self {
        let mut config = CoreConfig::new(OWN, 1, 42);
        change(&mut config);
        let mut node =
            Self { core: Core::new(config), fx: Driver::default(), now: T0, next_seq: 0 };
        node.core.recovery_done(&mut node.fx, T0);
        node
    }

    pub(super) fn login(&mut self, name: &str, number: u32, window: u32) {
        let (fx, now) = (&mut self.fx, self.now);
        self.core.handle_login(fx, now, conn(number), key(name), name, window);
    }

    pub(super) fn logout(&mut self, name: &str, number: u32) {
        self.core.handle_logout(&mut self.fx, self.now, conn(number), key(name));
    }

    pub(super) fn ack(&mut self, name: &str, number: u32, upto: u32) {
        self.core.handle_ack(&mut self.fx, self.now, conn(number), key(name), upto);
    }

    /// Sends from connection 0; returns the number of the SEND.
    pub(super) fn send(&mut self, from: &str, id: MsgId, to: &[&str]) -> u32 {
        self.send_with(from, id, to, 0)
    }

    pub(super) fn send_with(&mut self, from: &str, id: MsgId, to: &[&str], flags: u16) -> u32 {
        let recipients: Vec<u8> = to.iter().flat_map(|name| key(name).0).collect();
        self.send_raw(from, id, &recipients, flags)
    }

    pub(super) fn send_raw(&mut self, from: &str, id: MsgId, to: &[u8], flags: u16) -> u32 {
        self.next_seq += 1;
        let send = SendRequest {
            conn: conn(0),
            seq: self.next_seq,
            sender: key(from),
            from,
            msg_id: id,
            flags,
            recipients: to,
            payload: b"payload",
        };
        self.core.handle_send(&mut self.fx, self.now, &send);
        self.next_seq
    }

    /// Everything appended so far becomes durable, and what follows from it happens.
    pub(super) fn sync(&mut self) {
        let lsn = self.fx.lsn;
        self.core.handle_durable(&mut self.fx, self.now, lsn, 1);
        self.poll();
    }

    pub(super) fn poll(&mut self) {
        while self.core.poll(&mut self.fx, self.now, 64) {}
    }

    /// Sends one message and makes it durable.
    pub(super) fn deliverable(&mut self, number: u128, to: &str) -> MsgId {
        let id = id(number as u64, number);
        self.send("sender", id, &[to]);
        self.sync();
        id
    }

    /// A new life of the node from these records.
    pub(super) fn restart(&mut self, records: &[Logged]) {
        let mut config = self.core.config.clone();
        config.origin.incarnation += 1;
        self.core = recover(config, records, &mut self.fx, self.now);
    }
}

/// Builds a core from records.
pub(super) fn recover(config: CoreConfig, records: &[Logged], fx: &mut Driver, now: u64) -> Core {
    let mut core = Core::new(config);
    for Logged { pos, len, record, .. } in records {
        feed(&mut core, *pos, *len, record).unwrap();
    }
    core.recovery_done(fx, now);
    core
}

pub(super) fn feed(core: &mut Core, pos: Pos, len: u32, record: &Record) -> Result<(), BadRecord> {
    match record {
        Record::Msg { shard, dot, hlc, sender, id, flags, to } => {
            let recipients: Vec<u8> = to.iter().flat_map(|key| key.0).collect();
            core.recover_msg(&RecoveredMsg {
                shard: *shard,
                dot: *dot,
                hlc: *hlc,
                pos,
                len,
                sender: *sender,
                msg_id: *id,
                flags: *flags,
                recipients: &recipients,
            })
        }
        Record::Tomb { shard, dot, hlc, inbox, reason, targets } => {
            let (shard, dot, hlc, inbox) = (*shard, *dot, *hlc, *inbox);
            let collapsed = *reason == TombReason::Collapsed;
            core.recover_tomb(
                &RecoveredTomb { shard, dot, hlc, pos, inbox, collapsed },
                targets.iter().copied(),
            )
        }
        Record::Dedup { shard, body } => core.recover_dedup(*shard, body),
    }
}
