//! The core alone: a message from SEND to ACK, a retry, logins, recovery. The log that it appends to keeps nothing.

use iris_proto::core::{
    Appended, Core, CoreConfig, Delivery, Effects, KickReason, MsgRecord, Pos, Presence, Receipt,
    RecoveredMsg, Refusal, RejectCode, TombRecord,
};
use iris_proto::hlc::Hlc;
use iris_proto::id::{ConnId, Dot, MsgId, Origin, ShardId, UserKey, shard_for_user};

use super::traffic::{FULL, Notes, Traffic, Unacked, keys};
use super::{BATCH, T0, USERS, name};
use crate::work::{Bench, Cycle, Steps, Work};

const SHARDS: u16 = 16;
/// Messages that are found at a start.
const FOUND: u32 = 10_000;

pub(super) const BENCHES: &[Bench] = &[
    messages("core/cycle", || Steps::whole(Inboxes::pairs())),
    messages("core/cycle-one-inbox", || Steps::whole(Inboxes::one())),
    messages("core/send", || Steps::boxed(Inboxes::pairs(), 0..1)),
    messages("core/durable", || Steps::boxed(Inboxes::pairs(), 1..2)),
    messages("core/deliver", || Steps::boxed(Inboxes::pairs(), 2..3)),
    messages("core/ack", || Steps::boxed(Inboxes::pairs(), 3..4)),
    messages("core/retry", || Box::new(Retries(Inboxes::pairs()))),
    Bench {
        op: "login",
        ops: USERS as u64,
        warm: 4,
        turns: 20,
        ..messages("core/login", || Box::new(Logins::new()))
    },
    Bench {
        op: "record",
        ops: FOUND as u64,
        warm: 1,
        turns: 2,
        ..messages("core/recover", || Box::new(Recovery::new()))
    },
];

const fn messages(name: &'static str, start: fn() -> Box<dyn Work>) -> Bench {
    Bench { name, op: "message", ops: BATCH as u64, warm: FULL, turns: 10, start }
}

/// A log that keeps nothing.
#[derive(Default)]
struct Nowhere {
    bytes: u64,
    lsn: u64,
    unacked: Unacked,
    live: u64,
}

impl Nowhere {
    fn append(&mut self, len: usize) -> Appended {
        let pos =
            Pos { segment: (self.bytes >> 26) as u32, offset: self.bytes as u32 & 0x3ff_ffff };
        self.bytes += len as u64;
        Appended { pos, len: len as u32, lsn: self.lsn }
    }
}

impl Effects for Nowhere {
    fn append_msg(&mut self, record: &MsgRecord<'_>) -> Result<Appended, Refusal> {
        Ok(self.append(80 + record.recipients.len() + record.payload.len()))
    }

    fn append_tomb(&mut self, record: &TombRecord<'_>) -> Result<Appended, Refusal> {
        Ok(self.append(60 + 8 * record.targets.len()))
    }

    fn append_dedup(&mut self, _: ShardId, body: &[u8]) -> Result<Appended, Refusal> {
        Ok(self.append(body.len()))
    }

    fn entry_removed(&mut self, _: Pos, _: u32) {}

    fn entry_live(&mut self, _: Pos, _: u32) {
        self.live += 1;
    }

    fn entry_dead(&mut self, _: Pos, _: Pos) {}

    fn entry_repeated(&mut self, _: Pos, _: Pos) {}

    fn accepted(&mut self, _: ConnId, _: u32, _: u8) {}

    fn rejected(&mut self, _: ConnId, _: u32, code: RejectCode, _: u32) {
        panic!("a SEND was refused: {}", code.name());
    }

    fn welcome(&mut self, _: ConnId, _: u32, _: u64) {}

    fn kick(&mut self, _: ConnId, reason: KickReason) {
        panic!("a connection was kicked: {}", reason.name());
    }

    fn deliver(&mut self, delivery: &Delivery) {
        self.unacked.note(delivery);
    }

    fn receipt(&mut self, _: &Receipt<'_>) {}

    fn presence(&mut self, _: &Presence<'_>) {}
}

impl Notes for Nowhere {
    fn unacked(&mut self) -> &mut Unacked {
        &mut self.unacked
    }
}

fn fresh() -> (Core, Nowhere) {
    let mut core = Core::new(CoreConfig::new(Origin { node: 1, incarnation: 1 }, SHARDS, 7));
    let mut fx = Nowhere::default();
    core.recovery_done(&mut fx, T0);
    (core, fx)
}

/// Messages from SEND to ACK.
struct Inboxes {
    core: Core,
    fx: Nowhere,
    traffic: Traffic,
}

impl Inboxes {
    fn new(recipients: u32) -> Self {
        let ((mut core, mut fx), traffic) = (fresh(), Traffic::new(recipients));
        traffic.log_in(&mut core, &mut fx);
        Self { core, fx, traffic }
    }

    /// Each sender has a recipient of its own.
    fn pairs() -> Self {
        Self::new(USERS)
    }

    /// All send to one.
    fn one() -> Self {
        Self::new(1)
    }

    fn durable(&mut self) {
        let lsn = self.fx.lsn;
        self.fx.lsn += 1;
        self.core.handle_durable(&mut self.fx, self.traffic.now, lsn, 1);
    }
}

impl Cycle for Inboxes {
    const STEPS: &'static [fn(&mut Self)] = &[
        |of| of.traffic.send(&mut of.core, &mut of.fx),
        Self::durable,
        |of| of.traffic.deliver(&mut of.core, &mut of.fx),
        |of| of.traffic.ack(&mut of.core, &mut of.fx),
    ];

    fn done(&self) -> u64 {
        self.core.counters().acked
    }
}

/// SENDs that come a second time.
struct Retries(Inboxes);

impl Work for Retries {
    fn prepare(&mut self) {
        Inboxes::STEPS.iter().for_each(|step| step(&mut self.0));
    }

    fn turn(&mut self) {
        let Inboxes { core, fx, traffic } = &mut self.0;
        traffic.send_last(core, fx);
    }

    fn done(&self) -> u64 {
        self.0.core.counters().duplicates
    }
}

/// Users who come and go.
struct Logins {
    core: Core,
    fx: Nowhere,
    users: Vec<(UserKey, String)>,
    now: u64,
}

impl Logins {
    fn new() -> Self {
        let (core, fx) = fresh();
        let users = (0..USERS).map(|number| name("user", number));
        let users = users.map(|name| (UserKey::of(&name), name)).collect();
        Self { core, fx, users, now: T0 }
    }
}

impl Work for Logins {
    fn turn(&mut self) {
        self.now += 1;
        let Self { core, fx, users, now } = self;
        for (at, (user, name)) in users.iter().enumerate() {
            core.handle_login(fx, *now, ConnId::new(1, at as u32, 0), *user, name, 256);
        }
        while core.poll(fx, *now, 4096) {}
        for (at, (user, _)) in users.iter().enumerate() {
            core.handle_logout(fx, *now, ConnId::new(1, at as u32, 0), *user);
        }
    }

    fn done(&self) -> u64 {
        self.core.counters().logins
    }
}

/// A start with messages in the log.
struct Recovery {
    senders: Vec<UserKey>,
    recipients: Vec<UserKey>,
    core: Core,
    fx: Nowhere,
}

impl Recovery {
    fn new() -> Self {
        let (core, fx) = fresh();
        Self { senders: keys("sender", USERS), recipients: keys("recipient", 1000), core, fx }
    }
}

impl Work for Recovery {
    fn prepare(&mut self) {
        self.core = Core::new(CoreConfig::new(Origin { node: 1, incarnation: 2 }, SHARDS, 7));
    }

    fn turn(&mut self) {
        for number in 0..FOUND {
            let user = self.recipients[number as usize % self.recipients.len()];
            let ms = u64::from(number / BATCH);
            let record = RecoveredMsg {
                shard: shard_for_user(user, SHARDS),
                dot: Dot { origin: Origin { node: 1, incarnation: 1 }, seq: u64::from(number) + 1 },
                hlc: Hlc::new(T0 + ms, (number % BATCH) as u16),
                pos: Pos { segment: 1, offset: number * 160 },
                len: 160,
                sender: self.senders[(number % USERS) as usize],
                msg_id: MsgId::v7(T0 + ms, u128::from(number)),
                flags: 0,
                recipients: &user.0,
            };
            self.core.recover_msg(&record).expect("a sound record");
        }
        self.core.recovery_done(&mut self.fx, T0 + 1000);
    }

    fn done(&self) -> u64 {
        self.fx.live
    }
}
