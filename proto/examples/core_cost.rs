//! What the core costs: time per message for send, durable, deliver and acknowledge, time to recover, and memory.
//!
//! `cargo run --release -p iris-proto --example core_cost [messages]`. Nothing is written anywhere: the log only counts.
//! Times are processor time, except the slowest of many, which is time on the wall.

use std::process::Command;
use std::time::{Duration, Instant};

use iris_proto::core::{
    Appended, CheckpointCursor, Core, CoreConfig, Delivery, Effects, KickReason, MsgRecord, Pos,
    Presence, Receipt, RecoveredMsg, Refusal, RejectCode, SendRequest, TombRecord,
};
use iris_proto::hlc::Hlc;
use iris_proto::id::{ConnId, Dot, MsgId, Origin, ShardId, UserKey, shard_for_user};

const T0: u64 = 1_800_000_000_000;
const SHARDS: u16 = 16;
/// Messages between two syncs, as at 300,000/s with 1 ms syncs.
const BATCH: u32 = 300;

/// A log that keeps nothing, and the last delivery number of each connection that got one.
#[derive(Default)]
struct Counting {
    bytes: u64,
    lsn: u64,
    accepted: u64,
    delivered: Vec<(ConnId, UserKey, u32)>,
    live: u64,
}

impl Counting {
    fn append(&mut self, len: u32) -> Appended {
        let pos =
            Pos { segment: (self.bytes >> 26) as u32, offset: self.bytes as u32 & 0x3ff_ffff };
        self.bytes += u64::from(len);
        Appended { pos, len, lsn: self.lsn }
    }
}

impl Effects for Counting {
    fn append_msg(&mut self, record: &MsgRecord<'_>) -> Result<Appended, Refusal> {
        Ok(self.append((80 + record.recipients.len() + record.payload.len()) as u32))
    }

    fn append_tomb(&mut self, record: &TombRecord<'_>) -> Result<Appended, Refusal> {
        Ok(self.append((60 + 8 * record.targets.len()) as u32))
    }

    fn append_dedup(&mut self, _: ShardId, body: &[u8]) -> Result<Appended, Refusal> {
        Ok(self.append(body.len() as u32))
    }

    fn entry_removed(&mut self, _: Pos, _: u32) {}

    fn entry_live(&mut self, _: Pos, _: u32) {
        self.live += 1;
    }

    fn entry_dead(&mut self, _: Pos, _: Pos) {}

    fn entry_repeated(&mut self, _: Pos, _: Pos) {}

    fn accepted(&mut self, _: ConnId, _: u32, _: u8) {
        self.accepted += 1;
    }

    fn rejected(&mut self, _: ConnId, _: u32, code: RejectCode, _: u32) {
        panic!("a SEND was refused: {}", code.name());
    }

    fn welcome(&mut self, _: ConnId, _: u32, _: u64) {}

    fn kick(&mut self, _: ConnId, reason: KickReason) {
        panic!("a connection was kicked: {}", reason.name());
    }

    fn deliver(&mut self, delivery: &Delivery) {
        match self.delivered.last_mut() {
            Some(last) if last.0 == delivery.conn => last.2 = delivery.no,
            _ => self.delivered.push((delivery.conn, delivery.user, delivery.no)),
        }
    }

    fn receipt(&mut self, _: &Receipt<'_>) {}

    fn presence(&mut self, _: &Presence<'_>) {}
}

/// Bytes of memory this process holds.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Processor time of this process: unlike the clock on the wall it does not grow while others run.
fn cpu() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let ns = schedstat.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.unwrap_or(0))
}

fn per(started: Duration, count: u32) -> f64 {
    (cpu() - started).as_nanos() as f64 / f64::from(count)
}

fn fresh() -> (Core, Counting) {
    let mut core = Core::new(CoreConfig::new(Origin { node: 1, incarnation: 1 }, SHARDS, 7));
    let mut fx = Counting::default();
    core.recovery_done(&mut fx, T0);
    (core, fx)
}

fn keys(prefix: &str, count: u32) -> Vec<UserKey> {
    (0..count).map(|number| UserKey::of(&format!("{prefix}{number}"))).collect()
}

fn send(core: &mut Core, fx: &mut Counting, number: u32, sender: UserKey, to: UserKey) {
    let now = T0 + u64::from(number / BATCH);
    let send = SendRequest {
        conn: ConnId::new(1, 0, 0),
        seq: number,
        sender,
        from: "sender-12",
        msg_id: MsgId::v7(now, u128::from(number)),
        flags: 0,
        recipients: &to.0,
        payload: &[7; 64],
    };
    core.handle_send(fx, now, &send);
}

/// Send, durable, deliver, acknowledge: `users` senders to as many recipients who are online.
fn cycles(messages: u32, users: u32) {
    let (mut core, mut fx) = fresh();
    let (senders, recipients) = (keys("sender", users), keys("recipient", users));
    for (number, user) in recipients.iter().enumerate() {
        let conn = ConnId::new(2, number as u32, 0);
        core.handle_login(&mut fx, T0, conn, *user, &format!("recipient{number}"), 256);
    }
    while core.poll(&mut fx, T0, 4096) {}
    let started = cpu();
    for number in 0..messages {
        // A stride that visits users in no order.
        let user = (u64::from(number) * 2_654_435_761 % u64::from(users)) as usize;
        send(&mut core, &mut fx, number, senders[user], recipients[user]);
        if number % BATCH == BATCH - 1 {
            let (now, lsn) = (T0 + u64::from(number / BATCH), fx.lsn);
            fx.lsn += 1;
            core.handle_durable(&mut fx, now, lsn, 1);
            while core.poll(&mut fx, now, 4096) {}
            let mut delivered = std::mem::take(&mut fx.delivered);
            for (conn, user, no) in delivered.drain(..) {
                core.handle_ack(&mut fx, now, conn, user, no);
            }
            fx.delivered = delivered;
        }
    }
    let ns = per(started, messages);
    let acked = core.counters().acked;
    println!("cycle, {users:>7} pairs: {ns:6.0} ns per message ({acked} acknowledged)");
}

/// The parts of a cycle, each alone, and the bytes of a message that waits.
fn parts(messages: u32) {
    let (mut core, mut fx) = fresh();
    let (senders, recipients) = (keys("sender", 100), keys("recipient", 100));
    let before = resident_bytes();
    let started = cpu();
    for number in 0..messages {
        let user = (number % 100) as usize;
        send(&mut core, &mut fx, number, senders[user], recipients[user]);
        if number % BATCH == BATCH - 1 {
            let lsn = fx.lsn;
            fx.lsn += 1;
            core.handle_durable(&mut fx, T0 + u64::from(number / BATCH), lsn, 1);
        }
    }
    println!("send and durable, offline:   {:6.0} ns per message", per(started, messages));
    let bytes = (resident_bytes() - before) as f64 / f64::from(messages);
    println!("memory per waiting message:  {bytes:6.1} bytes");
    let (now, lsn) = (T0 + u64::from(messages / BATCH), fx.lsn);
    core.handle_durable(&mut fx, now, lsn, 1);
    let started = cpu();
    for (number, user) in recipients.iter().enumerate() {
        core.handle_login(&mut fx, now, ConnId::new(2, number as u32, 0), *user, "x", 1024);
    }
    while core.gauges().entries > 0 {
        core.poll(&mut fx, now, 4096);
        let mut delivered = std::mem::take(&mut fx.delivered);
        for (conn, user, no) in delivered.drain(..) {
            core.handle_ack(&mut fx, now, conn, user, no);
        }
        fx.delivered = delivered;
    }
    println!("deliver and acknowledge:     {:6.0} ns per message", per(started, messages));
}

/// Senders who sent one message within the window.
fn senders(count: u32) {
    let senders = keys("sender", count);
    let recipient = UserKey::of("recipient");
    let (mut core, mut fx) = fresh();
    let before = resident_bytes();
    for (number, sender) in senders.iter().enumerate() {
        send(&mut core, &mut fx, number as u32, *sender, recipient);
        if number as u32 % BATCH == BATCH - 1 {
            fx.lsn += 1;
            let lsn = fx.lsn - 1;
            core.handle_durable(&mut fx, T0, lsn, 1);
        }
    }
    let bytes = (resident_bytes() - before) as f64 / f64::from(count);
    println!("memory per active sender:    {:6.1} bytes, with one id and one message", bytes);
    let started = cpu();
    let mut cursor = Some(CheckpointCursor::default());
    let mut slowest_us = 0;
    fx.bytes = 0;
    while let Some(from) = cursor {
        let one = Instant::now();
        cursor = core.checkpoint(&mut fx, from).expect("the log takes everything");
        slowest_us = slowest_us.max(one.elapsed().as_micros());
    }
    let (all, bytes) = (cpu() - started, fx.bytes >> 20);
    println!("checkpoint of {count} senders: {all:?}, {bytes} MiB, slowest part {slowest_us} us");
}

/// Users who are online and idle.
fn online(users: u32) {
    let keys = keys("user", users);
    let (mut core, mut fx) = fresh();
    let before = resident_bytes();
    let started = cpu();
    let mut slowest_us = 0;
    for (number, user) in keys.iter().enumerate() {
        let name = format!("user{number}");
        let one = Instant::now();
        core.handle_login(&mut fx, T0, ConnId::new(2, number as u32, 0), *user, &name, 256);
        slowest_us = slowest_us.max(one.elapsed().as_micros());
    }
    let bytes = (resident_bytes() - before) as f64 / f64::from(users);
    println!(
        "login, {users} users:        {:6.0} ns, slowest {slowest_us} us",
        per(started, users)
    );
    println!("memory per online user:      {bytes:6.1} bytes");
}

/// One message each for many users, and many for few.
fn recovery(messages: u32, users: u32) {
    let (recipients, senders) = (keys("recipient", users), keys("sender", 1000));
    let mut core = Core::new(CoreConfig::new(Origin { node: 1, incarnation: 2 }, SHARDS, 7));
    let mut fx = Counting::default();
    let before = resident_bytes();
    let started = cpu();
    for number in 0..messages {
        let user = recipients[(number % users) as usize];
        let result = core.recover_msg(&RecoveredMsg {
            shard: shard_for_user(user, SHARDS),
            dot: Dot { origin: Origin { node: 1, incarnation: 1 }, seq: u64::from(number) + 1 },
            hlc: Hlc::new(T0 + u64::from(number / BATCH), (number % BATCH) as u16),
            pos: Pos { segment: number >> 19, offset: number & 0x7_ffff },
            len: 160,
            sender: senders[(number % 1000) as usize],
            msg_id: MsgId::v7(T0 + u64::from(number / BATCH), u128::from(number)),
            flags: 0,
            recipients: &user.0,
        });
        assert_eq!(result, Ok(()), "a good record");
    }
    let fed = cpu() - started;
    core.recovery_done(&mut fx, T0 + u64::from(messages / BATCH));
    let all = cpu() - started;
    assert_eq!(fx.live, u64::from(messages), "every message is live");
    let bytes = (resident_bytes() - before) as f64 / f64::from(messages);
    println!(
        "recovery, {messages} to {users} users: {all:?}, of it {fed:?} feeding; {bytes:.0} B each"
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let messages = arguments.get(1).and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    match arguments.get(2).map(String::as_str) {
        Some("parts") => parts(messages),
        Some("senders") => senders(messages),
        Some("online") => online(messages),
        Some("few") => recovery(messages, 1000),
        Some("many") => recovery(messages, messages),
        Some(users) => cycles(messages, users.parse().unwrap_or(100)),
        None => {
            // Each in a process of its own: memory that one part freed would hide what the next one takes.
            for part in ["parts", "100", "10000", "200000", "senders", "online", "few", "many"] {
                let part = Command::new(&arguments[0]).arg(messages.to_string()).arg(part).status();
                assert!(part.is_ok_and(|status| status.success()), "a part failed");
            }
        }
    }
}
