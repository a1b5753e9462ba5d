//! Batches of an edge, as the gateway of a core takes them off a link and a partition acts on them.
//!
//! The edge says whatever it likes. The relay must pass on nothing but whole frames about the edge's own connections,
//! and the core must answer each SEND once, keep its bounds, and not panic.

use std::collections::BTreeMap;

use iris_proto::core::{
    Appended, Core, CoreConfig, Delivery, Effects, KickReason, MsgRecord, Pos, Presence, Receipt,
    Refusal, RejectCode, SendRequest, TombRecord,
};
use iris_proto::id::{ConnId, Origin, ShardId, UserKey};
use iris_proto::limits::{PRESENCE_USERS_MAX, RECIPIENTS_MAX, TOMB_TARGETS_MAX};
use iris_proto::link::ToCore;
use iris_proto::peer::relay::{ReactorRange, to_core};

use crate::Input;

/// Somewhat after the ids of the protocol's vectors.
const NOW_MS: u64 = 1_734_776_742_000;
const SHARDS: u16 = 4;
/// Of these, one lives elsewhere.
const SHARDS_HERE: u16 = 3;

/// A configuration in which each bound is near.
fn config() -> CoreConfig {
    CoreConfig {
        shards: (0..SHARDS_HERE).map(ShardId).collect(),
        // As long as the ids of inputs need to be young.
        dedup_window_ms: 1000 * 86_400_000,
        dedup_ids_max: 256,
        inbox_messages_max: 4,
        entries_max: 24,
        recv_window_bytes: 2000,
        watches_max: 6,
        receipts_max: 3,
        pending_max: 12,
        ..CoreConfig::new(Origin { node: 1, incarnation: 1 }, SHARDS, 7)
    }
}

/// Takes what a core does, and checks what can be checked at once.
#[derive(Default)]
struct Log {
    lsn: u64,
    offset: u32,
    /// Every so many-th record is refused; 0: none.
    refuses: u32,
    appends: u32,
    answers: BTreeMap<(ConnId, u32), u32>,
    deliveries: Vec<Delivery>,
    receipts: Vec<(UserKey, UserKey, u128)>,
    welcomes: u64,
    kicks: u64,
    presences: u64,
}

impl Log {
    fn append(&mut self, len: usize) -> Result<Appended, Refusal> {
        self.appends += 1;
        if self.refuses > 0 && self.appends.is_multiple_of(self.refuses) {
            return Err(if self.appends.is_multiple_of(2) {
                Refusal::Full
            } else {
                Refusal::LowDisk
            });
        }
        self.lsn += 1;
        self.offset += 4096;
        let pos = Pos { segment: 1, offset: self.offset };
        Ok(Appended { pos, len: len as u32, lsn: self.lsn })
    }
}

impl Effects for Log {
    fn append_msg(&mut self, record: &MsgRecord<'_>) -> Result<Appended, Refusal> {
        let recipients = record.recipients.len() / 16;
        assert!(record.recipients.len().is_multiple_of(16));
        assert!((1..=RECIPIENTS_MAX).contains(&recipients));
        assert!(record.shard.0 < SHARDS_HERE, "only what lives here is taken");
        self.append(100 + record.recipients.len() + record.payload.len())
    }

    fn append_tomb(&mut self, record: &TombRecord<'_>) -> Result<Appended, Refusal> {
        assert!((1..=TOMB_TARGETS_MAX).contains(&record.targets.len()));
        self.append(60 + record.targets.len() * 16)
    }

    fn append_dedup(&mut self, _shard: ShardId, body: &[u8]) -> Result<Appended, Refusal> {
        self.append(40 + body.len())
    }

    fn entry_removed(&mut self, _pos: Pos, _len: u32) {}
    fn entry_live(&mut self, _pos: Pos, _len: u32) {}
    fn entry_dead(&mut self, _pos: Pos, _tomb: Pos) {}
    fn entry_repeated(&mut self, _kept: Pos, _other: Pos) {}

    fn accepted(&mut self, conn: ConnId, seq: u32, copies: u8) {
        assert_eq!(copies, 1);
        *self.answers.entry((conn, seq)).or_default() += 1;
    }

    fn rejected(&mut self, conn: ConnId, seq: u32, _code: RejectCode, _retry_after_ms: u32) {
        *self.answers.entry((conn, seq)).or_default() += 1;
    }

    fn welcome(&mut self, _conn: ConnId, _waiting: u32, session: u64) {
        assert!(session > 0, "0 is no number of a login");
        self.welcomes += 1;
    }

    fn kick(&mut self, _conn: ConnId, _reason: KickReason) {
        self.kicks += 1;
    }

    fn deliver(&mut self, delivery: &Delivery) {
        assert!(delivery.no > 0);
        self.deliveries.push(*delivery);
    }

    fn receipt(&mut self, receipt: &Receipt<'_>) {
        assert!(!receipt.reader_name.is_empty());
        self.receipts.push((receipt.to, receipt.reader, receipt.msg_id.0));
    }

    fn presence(&mut self, _presence: &Presence<'_>) {
        self.presences += 1;
    }
}

/// One batch: first how the log is and which reactors the edge has, then the bytes of the link.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let range = ReactorRange { first: 9, count: 1 + u16::from(input.below(4)) };
    let mut log = Log { refuses: u32::from(input.below(8)), ..Log::default() };
    let unreadable = input.below(4);
    let mut batch = Vec::new();
    // After an error there is what stood before the fault, and the link ends.
    let told = to_core(input.rest(), range, &mut batch);
    let mut core = Core::new(config());
    core.recovery_done(&mut log, NOW_MS);
    let mut asked: BTreeMap<(ConnId, u32), u32> = BTreeMap::new();
    let (mut rest, mut frames, mut now_ms) = (batch.as_slice(), 0, NOW_MS);
    while let Some((frame, after)) = ToCore::split(rest).expect("the relay passes on whole frames")
    {
        frames += 1;
        check_frame(&frame, range);
        if let ToCore::Send(send) = &frame {
            *asked.entry((send.conn, send.seq)).or_default() += 1;
        }
        act(&mut core, &mut log, now_ms, &frame);
        if frames % 4 == 0 {
            now_ms += 40;
            settle(&mut core, &mut log, now_ms, unreadable);
        }
        rest = after;
    }
    assert!(told.is_err() || told == Ok(frames), "frames are counted");
    // The edge is gone; what it asked is answered all the same.
    log.refuses = 0;
    settle(&mut core, &mut log, now_ms, unreadable);
    assert_eq!(log.answers, asked, "each SEND is answered once");
    let mut cursor = Some(iris_proto::core::EndCursor::default());
    while let Some(from) = cursor {
        let reactors = range.first..range.first + range.count;
        cursor = core.end_reactors(&mut log, now_ms, &reactors, from, 512);
    }
    let gauges = core.gauges();
    assert_eq!((gauges.online, gauges.watches), (0, 0), "nothing is left of its connections");
}

fn check_frame(frame: &ToCore<'_>, range: ReactorRange) {
    let conn = match *frame {
        ToCore::Login { conn, .. } | ToCore::Logout { conn, .. } => Some(conn),
        ToCore::Ack { conn, .. } | ToCore::Window { conn, .. } => Some(conn),
        ToCore::Unwatch { conn, .. } => Some(conn),
        ToCore::Send(send) => Some(send.conn),
        ToCore::Presence(ask) => Some(ask.conn),
        ToCore::Receipt(_) => None,
        ToCore::Gone { .. } => panic!("an edge ends reactors"),
    };
    assert!(conn.is_none_or(|conn| range.contains(conn.reactor())), "a foreign connection");
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    let (again, rest) = ToCore::split(&bytes).expect("it is ours").expect("it is whole");
    assert!(again == *frame && rest.is_empty(), "{frame:?} came back as {again:?}");
}

/// What `src/partition/inputs.rs` does with a frame.
fn act(core: &mut Core, log: &mut Log, now_ms: u64, frame: &ToCore<'_>) {
    match *frame {
        ToCore::Send(send) => {
            let request = SendRequest {
                conn: send.conn,
                seq: send.seq,
                sender: send.sender,
                from: send.from,
                msg_id: send.id,
                flags: u16::from(send.flags),
                recipients: send.to,
                payload: send.payload,
            };
            core.handle_send(log, now_ms, &request);
        }
        ToCore::Ack { conn, user, upto } => core.handle_ack(log, now_ms, conn, user, upto),
        ToCore::Login { conn, user, window, session: 0, name } => {
            core.handle_login(log, now_ms, conn, user, name, window);
        }
        ToCore::Login { conn, user, window, session, name } => {
            core.handle_relogin(log, now_ms, conn, user, name, window, session);
        }
        ToCore::Logout { conn, user } => {
            core.handle_logout(log, now_ms, conn, user);
            core.handle_gone(conn);
        }
        ToCore::Window { conn, user, window } => core.handle_window(now_ms, conn, user, window),
        ToCore::Presence(ask) => {
            assert!(ask.users.len() <= PRESENCE_USERS_MAX);
            let users = ask.users.iter().map(|name| (UserKey::of(name), name));
            let before = log.presences;
            core.handle_presence_query(log, ask.conn, ask.query, users, ask.watch);
            let answered = log.presences - before;
            assert_eq!(answered, ask.users.len() as u64, "each user asked for is named once");
        }
        ToCore::Unwatch { conn, users } if users.is_empty() => core.handle_gone(conn),
        ToCore::Unwatch { conn, users } => {
            core.handle_unwatch(conn, users.iter().map(UserKey::of));
        }
        ToCore::Receipt(post) => {
            let (to, reader, msg_id) = (post.to, post.reader, post.id);
            let receipt = Receipt { to, reader, reader_name: post.reader_name, msg_id };
            core.handle_receipt(log, now_ms, &receipt);
        }
        ToCore::Gone { .. } => unreachable!("checked before"),
    }
}

/// The open batch is synced, and deliveries go out; every so many-th cannot be read.
fn settle(core: &mut Core, log: &mut Log, now_ms: u64, unreadable: u8) {
    for _ in 0..64 {
        let lsn = log.lsn;
        core.handle_durable(log, now_ms, lsn, 1);
        let more = core.poll(log, now_ms, 16);
        for (index, delivery) in std::mem::take(&mut log.deliveries).iter().enumerate() {
            let (conn, user, no) = (delivery.conn, delivery.user, delivery.no);
            if unreadable > 0 && index % usize::from(unreadable + 1) == 1 {
                core.handle_unreadable(now_ms, conn, user, no);
            } else if delivery.wants_receipt {
                let id = iris_proto::id::MsgId(delivery.dot.seq.into());
                core.handle_delivered(conn, user, no, UserKey::of("sender"), id);
            }
        }
        for (to, reader, id) in std::mem::take(&mut log.receipts) {
            let msg_id = iris_proto::id::MsgId(id);
            let receipt = Receipt { to, reader, reader_name: "reader", msg_id };
            core.handle_receipt(log, now_ms, &receipt);
        }
        check_bounds(core);
        if !more && lsn == log.lsn {
            return;
        }
    }
}

fn check_bounds(core: &Core) {
    let (gauges, config) = (core.gauges(), config());
    assert!(gauges.entries <= config.entries_max && gauges.watches <= config.watches_max);
    assert!(gauges.receipts <= config.receipts_max && gauges.pending <= config.pending_max);
    assert!(gauges.dedup_cost <= config.dedup_ids_max, "{gauges:?}");
}
