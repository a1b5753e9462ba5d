//! A mirror that does not keep the rules: two replicas with their cores and logs in memory, and somebody between them who
//! changes, repeats, drops and makes up what one says to the other.
//!
//! Whatever comes, the victim must not panic, and what it has acknowledged or delivered by itself stays: the messages of
//! its own clients are in its log.

use iris_proto::core::{
    Appended, Core, CoreConfig, Delivery, Effects, KickReason, MsgRecord, Pos, Presence, Receipt,
    Refusal, RejectCode, SendRequest, TombRecord,
};
use iris_proto::hlc::Hlc;
use iris_proto::id::{ConnId, Dot, MsgId, Origin, ShardId, UserKey};
use iris_proto::replica::{
    EpochRecord, Event, LinkDown, Now, RecordView, RefuseCode, Replica, ReplicaConfig,
    ReplicaEffects, ScanFrom, Scanned,
};
use iris_wal::views::{view, wal_dot, wal_head, wal_origin};
use iris_wal::{Body, Epoch, Head, Mark, Msg, Reason, Record, Targets, Tomb, record};

use crate::Input;

const T0: u64 = 1_800_000_000_000;
const SHARDS: u16 = 2;
const USERS: [&str; 3] = ["ann", "bob", "zoe"];
/// Batches in one segment of these logs.
const BATCHES: u64 = 4;
const BATCH_STRIDE: u32 = 1 << 16;

/// A log, and what was said.
#[derive(Default)]
struct Disk {
    me: Origin,
    open: Vec<u8>,
    lsn: u64,
    batches: Vec<(u64, Vec<u8>)>,
    durable: u64,
    hlc: u64,
    accepted: u32,
    sent: Vec<u8>,
    closed: bool,
    halted: bool,
    scan: Option<ScanFrom>,
}

fn segment_of(lsn: u64) -> u32 {
    1 + (lsn / BATCHES) as u32
}

impl Disk {
    fn append(&mut self, record: &Record<'_>) -> Result<Appended, Refusal> {
        self.append_bytes(&record.to_vec())
    }

    fn append_bytes(&mut self, bytes: &[u8]) -> Result<Appended, Refusal> {
        if self.open.len() + bytes.len() > BATCH_STRIDE as usize {
            return Err(Refusal::Full);
        }
        if self.open.is_empty() {
            self.lsn += 1;
        }
        let offset = self.lsn as u32 * BATCH_STRIDE + self.open.len() as u32;
        self.open.extend_from_slice(bytes);
        let pos = Pos { segment: segment_of(self.lsn), offset };
        Ok(Appended { pos, len: bytes.len() as u32, lsn: self.lsn })
    }

    fn outside(&self, shard: ShardId) -> Head {
        Head { shard: shard.0, origin: wal_origin(self.me), seq: 0, hlc: self.hlc }
    }
}

impl Effects for Disk {
    fn append_msg(&mut self, msg: &MsgRecord<'_>) -> Result<Appended, Refusal> {
        self.hlc = self.hlc.max(msg.hlc.0);
        self.append(&Record {
            head: wal_head(msg.shard, msg.dot, msg.hlc),
            body: Body::Msg(Msg {
                msg_id: msg.msg_id.0,
                sender: msg.sender.0,
                msg_flags: msg.flags,
                copy: false,
                recipients: msg.recipients,
                from: msg.from.as_bytes(),
                payload: msg.payload,
            }),
        })
    }

    fn append_tomb(&mut self, tomb: &TombRecord<'_>) -> Result<Appended, Refusal> {
        let targets: Vec<_> = tomb.targets.iter().map(|target| wal_dot(target.dot)).collect();
        let (inbox, reason) = (tomb.inbox.0, Reason(tomb.reason as u8));
        let body = Body::Tomb(Tomb { inbox, reason, targets: Targets::List(&targets) });
        self.append(&Record { head: wal_head(tomb.shard, tomb.dot, tomb.hlc), body })
    }

    fn append_dedup(&mut self, shard: ShardId, body: &[u8]) -> Result<Appended, Refusal> {
        self.append(&Record { head: self.outside(shard), body: Body::Dedup(body) })
    }

    fn entry_removed(&mut self, _pos: Pos, _len: u32) {}
    fn entry_live(&mut self, _pos: Pos, _len: u32) {}
    fn entry_dead(&mut self, _pos: Pos, _tomb: Pos) {}
    fn entry_repeated(&mut self, _kept: Pos, _other: Pos) {}

    fn accepted(&mut self, _conn: ConnId, _seq: u32, copies: u8) {
        assert!((1..=2).contains(&copies), "a pair has two copies");
        self.accepted += 1;
    }

    fn rejected(&mut self, _conn: ConnId, _seq: u32, _code: RejectCode, _retry_after_ms: u32) {}
    fn welcome(&mut self, _conn: ConnId, _waiting: u32, _session: u64) {}
    fn kick(&mut self, _conn: ConnId, _reason: KickReason) {}
    fn deliver(&mut self, _delivery: &Delivery) {}
    fn receipt(&mut self, _receipt: &Receipt<'_>) {}
    fn presence(&mut self, _presence: &Presence<'_>) {}
}

impl ReplicaEffects for Disk {
    fn decode<'a>(
        &self,
        bytes: &'a [u8],
        check: bool,
        targets: &'a mut Vec<Dot>,
    ) -> Option<(RecordView<'a>, usize)> {
        let decoded = if check { record::decode(bytes) } else { record::decode_own(bytes) };
        let (record, len) = decoded.ok()?;
        Some((view(&record, targets), len))
    }

    fn append_foreign(&mut self, bytes: &[u8]) -> Result<Appended, Refusal> {
        let (_, len) = record::decode(bytes).expect("the replica has decoded it");
        self.append_bytes(&bytes[..len])
    }

    fn append_epoch(&mut self, epoch: &EpochRecord<'_>) -> Result<Appended, Refusal> {
        let EpochRecord { mode: state, state_id, peer: peer_vv, .. } = *epoch;
        let head = wal_head(epoch.shard, epoch.dot, epoch.hlc);
        self.append(&Record { head, body: Body::Epoch(Epoch { state, state_id, peer_vv }) })
    }

    fn append_mark(&mut self, shard: ShardId, body: &[u8]) -> Result<Appended, Refusal> {
        let head = self.outside(shard);
        let mark = Mark { heartbeat_hlc: head.hlc, vv: body };
        self.append(&Record { head, body: Body::Mark(mark) })
    }

    fn log_has_room(&self) -> bool {
        self.open.len() < BATCH_STRIDE as usize / 2
    }

    fn send(&mut self, head: &[u8], body: &[u8]) {
        self.sent.extend_from_slice(head);
        self.sent.extend_from_slice(body);
    }

    fn close(&mut self, _why: RefuseCode) {
        self.closed = true;
    }

    fn scan(&mut self, from: ScanFrom, _bytes_max: usize) {
        assert!(self.scan.replace(from).is_none(), "one scan at a time");
    }

    fn reincarnate(&mut self, _above: u32) {
        self.halted = true;
    }

    fn event(&mut self, _event: &Event) {}
}

struct Node {
    core: Core,
    replica: Replica,
    fx: Disk,
    seq: u32,
}

impl Node {
    fn new(node: u32, at: Now) -> Self {
        let me = Origin { node, incarnation: 2 };
        let mut core = Core::new(CoreConfig::new(me, SHARDS, 7));
        let mut replica = Replica::new(ReplicaConfig::new(me, 3 - node, SHARDS));
        let mut fx = Disk { me, ..Disk::default() };
        replica.recovery_done(&mut fx, &mut core, at, true, 0);
        Self { core, replica, fx, seq: 0 }
    }

    fn send(&mut self, at: Now, number: u8, to: u8) {
        self.seq += 1;
        let send = SendRequest {
            conn: ConnId::new(1, 1, 0),
            seq: self.seq,
            sender: UserKey::of("sender"),
            from: "sender",
            msg_id: MsgId::v7(T0, number.into()),
            flags: 0,
            recipients: &UserKey::of(USERS[usize::from(to) % USERS.len()]).0,
            payload: &[number; 5],
        };
        self.core.handle_send(&mut self.fx, at.unix_ms, &send);
    }

    fn visit(&mut self, at: Now, user: u8, what: u8) {
        let name = USERS[usize::from(user) % USERS.len()];
        let (key, conn) = (UserKey::of(name), ConnId::new(2, user.into(), what.into()));
        match what % 3 {
            0 => self.core.handle_login(&mut self.fx, at.unix_ms, conn, key, name, 8),
            1 => {
                if let Some(conn) = self.core.connection_of(key) {
                    let upto = u32::from(what / 3 % 4);
                    self.core.handle_ack(&mut self.fx, at.unix_ms, conn, key, upto);
                }
            }
            _ => self.core.handle_logout(&mut self.fx, at.unix_ms, conn, key),
        }
    }

    /// Closes the open batch, and syncs it.
    fn flush(&mut self, at: Now) {
        if !self.fx.open.is_empty() {
            let records = std::mem::take(&mut self.fx.open);
            let lsn = self.fx.lsn;
            let place = ScanFrom { segment: segment_of(lsn), offset: lsn as u32 };
            let Self { replica, fx, core, .. } = self;
            replica.batch_closed(fx, core, at, lsn, place, &records);
            self.fx.batches.push((lsn, records));
            self.fx.durable = lsn;
            self.replica.handle_durable(&mut self.fx, &mut self.core, at, lsn);
        }
        self.replica.poll(&mut self.fx, &mut self.core, at);
        self.core.poll(&mut self.fx, at.unix_ms, 32);
        self.answer_scan(at);
    }

    fn answer_scan(&mut self, at: Now) {
        let Some(from) = self.fx.scan.take() else { return };
        let (durable, batches) = (self.fx.durable, std::mem::take(&mut self.fx.batches));
        let mut found = batches.iter().filter(|(lsn, _)| {
            let is_here = segment_of(*lsn) == from.segment && *lsn <= durable;
            is_here && *lsn >= u64::from(from.offset)
        });
        let records = found.next().map_or(&[][..], |(_, records)| records);
        let next = found.next().map(|(lsn, _)| *lsn as u32);
        let scanned = Scanned { from, records, next };
        self.replica.handle_scanned(&mut self.fx, &mut self.core, at, &scanned);
        self.fx.batches = batches;
    }
}

struct World {
    victim: Node,
    peer: Node,
    link: u64,
    is_up: bool,
    now_ms: u64,
    /// What the peer said in all, for repeats.
    said: Vec<u8>,
}

/// Events, in any order.
pub fn run(data: &[u8]) {
    let at = Now { unix_ms: T0, mono_ms: 0 };
    let (victim, peer) = (Node::new(1, at), Node::new(2, at));
    let mut world = World { victim, peer, link: 0, is_up: false, now_ms: 0, said: Vec::new() };
    let mut input = Input::new(data);
    for _ in 0..input.below(4) {
        world.connect();
        world.honest(3);
    }
    while !input.is_empty() && !world.victim.fx.halted {
        world.step(&mut input);
    }
    // Alone again, it goes on.
    world.cut();
    if !world.victim.fx.halted {
        world.now_ms += 60_000;
        for _ in 0..8 {
            world.now_ms += 1000;
            let at = world.at();
            world.victim.flush(at);
        }
        let before = world.victim.fx.accepted;
        let at = world.at();
        let mut id = 200;
        while world.victim.fx.accepted == before && id < 205 {
            world.victim.send(at, id, 0);
            world.victim.flush(at);
            world.victim.flush(at);
            id += 1;
        }
        assert!(world.victim.fx.accepted > before, "it serves alone");
    }
}

impl World {
    fn at(&self) -> Now {
        Now { unix_ms: T0 + self.now_ms, mono_ms: self.now_ms }
    }

    fn connect(&mut self) {
        self.cut();
        (self.link, self.is_up) = (self.link + 1, true);
        let at = self.at();
        for node in [&mut self.victim, &mut self.peer] {
            (node.fx.closed, node.fx.sent) = (false, Vec::new());
            node.replica.link_up(&mut node.fx, &mut node.core, at, self.link);
        }
    }

    fn cut(&mut self) {
        let at = self.at();
        if std::mem::take(&mut self.is_up) {
            for node in [&mut self.victim, &mut self.peer] {
                let down = LinkDown::Lost;
                node.replica.link_down(&mut node.fx, &mut node.core, at, self.link, down);
            }
        }
    }

    /// Both talk undisturbed.
    fn honest(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.now_ms += 1;
            self.turn();
            let bytes = std::mem::take(&mut self.peer.fx.sent);
            self.give(&bytes);
        }
    }

    /// Both do what is due, and the peer hears the victim.
    fn turn(&mut self) {
        let at = self.at();
        self.victim.flush(at);
        self.peer.flush(at);
        let bytes = std::mem::take(&mut self.victim.fx.sent);
        if self.is_up {
            let Node { replica, fx, core, .. } = &mut self.peer;
            replica.handle_bytes(fx, core, at, self.link, &bytes);
        }
        if self.peer.fx.closed || self.victim.fx.closed {
            self.cut();
        }
    }

    fn give(&mut self, bytes: &[u8]) {
        if self.is_up {
            let at = self.at();
            let Node { replica, fx, core, .. } = &mut self.victim;
            replica.handle_bytes(fx, core, at, self.link, bytes);
            self.said.extend_from_slice(bytes);
            self.said.drain(..self.said.len().saturating_sub(4096));
        }
        if self.victim.fx.closed {
            self.cut();
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let at = self.at();
        match input.below(12) {
            0 => self.victim.send(at, input.u8() % 32, input.u8()),
            1 => self.peer.send(at, input.u8() % 32, input.u8()),
            2 => self.victim.visit(at, input.below(3), input.u8()),
            3 => self.peer.visit(at, input.below(3), input.u8()),
            4 => self.honest(1 + u32::from(input.below(8))),
            5 => self.connect(),
            6 => {
                self.now_ms += u64::from(input.u8()) * 10;
                self.turn();
            }
            // Changed on the way.
            7 => {
                self.turn();
                let mut bytes = std::mem::take(&mut self.peer.fx.sent);
                let (place, with) = (usize::from(input.u16()), input.u8());
                let len = bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(place % len) {
                    *byte ^= with | 1;
                }
                self.give(&bytes);
            }
            // Said again.
            8 => {
                let bytes = self.said.clone();
                let start = usize::from(input.u16()) % (bytes.len() + 1);
                self.give(&bytes[start..]);
            }
            // A frame of its own.
            9 => {
                let body = input.short();
                self.give(&frame(input.u8() % 13, body));
            }
            // Records with sound checksums.
            10 => {
                let (number, records) = (u64::from(input.u8()), made_up(input));
                let mut body = number.to_le_bytes().to_vec();
                body.extend_from_slice(&records);
                self.give(&frame(4, &body));
            }
            _ => {
                let bytes = input.short();
                self.give(bytes);
            }
        }
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = (1 + body.len() as u32).to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend_from_slice(body);
    frame
}

/// A record as no node would write it.
fn made_up(input: &mut Input<'_>) -> Vec<u8> {
    let user = |number: u8| UserKey::of(USERS[usize::from(number) % USERS.len()]).0;
    let origin = Origin { node: u32::from(input.below(4)), incarnation: u32::from(input.below(4)) };
    let seq = if input.u8() & 1 > 0 { u64::from(input.u8()) } else { input.u64() };
    let dot = Dot { origin, seq };
    let hlc = if input.u8() & 1 > 0 { T0 << 16 | u64::from(input.u8()) } else { input.u64() };
    let head = wal_head(ShardId(u16::from(input.below(3))), dot, Hlc(hlc));
    let kind = input.below(6);
    let (recipients, targets): (Vec<u8>, Vec<_>);
    let body = match kind {
        0 | 1 => {
            recipients = (0..input.below(4)).flat_map(user).collect();
            Body::Msg(Msg {
                msg_id: MsgId::v7(T0, u128::from(input.u8() % 32)).0,
                sender: UserKey::of("sender").0,
                msg_flags: u16::from(input.u8() % 4),
                copy: input.u8() & 1 > 0,
                recipients: &recipients,
                from: b"sender",
                payload: input.short(),
            })
        }
        2 => {
            let dot = |input: &mut Input<'_>| {
                let origin = Origin { node: input.below(4).into(), incarnation: 2 };
                wal_dot(Dot { origin, seq: u64::from(input.u8()) })
            };
            targets = (0..input.below(4)).map(|_| dot(input)).collect();
            let (inbox, reason) = (user(input.u8()), Reason(input.below(6)));
            Body::Tomb(Tomb { inbox, reason, targets: Targets::List(&targets) })
        }
        3 => {
            let (state, state_id) = (input.below(5), input.u64());
            Body::Epoch(Epoch { state, state_id, peer_vv: input.short() })
        }
        4 => Body::Mark(Mark { heartbeat_hlc: hlc, vv: input.short() }),
        _ => Body::Dedup(input.short()),
    };
    Record { head, body }.to_vec()
}
