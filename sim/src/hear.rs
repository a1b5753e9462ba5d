//! What nodes say, and what the model makes of it.

use std::hash::Hash;

use iris_proto::core::Delivery;
use iris_proto::id::{MsgId, shard_for_user};
use iris_proto::replica::Event;
use iris_wal::Body;
use iris_wal::views::proto_dot;

use crate::clients::Clients;
use crate::edges::DIRECT;
use crate::fx::Said;
use crate::model::{Broken, User};
use crate::node::SHARDS;
use crate::world::World;

impl World {
    pub(crate) fn hear(&mut self, node: usize) -> Result<(), Broken> {
        let Some(life) = &mut self.nodes[node].life else { return Ok(()) };
        for said in std::mem::take(&mut life.fx.said) {
            let told = (self.now_ms, node, format!("{said:?}"));
            told.hash(&mut self.digest);
            if said.conn().is_some_and(|conn| conn.reactor() != DIRECT) {
                self.say_to_edge(node, &said)?;
                continue;
            }
            match said {
                Said::Accepted { seq, copies, .. } => {
                    let Some((user, id, _)) = self.clients.answered(seq) else { continue };
                    self.model.says_accepted(node, id, copies)?;
                    self.model.accepted(id, copies)?;
                    self.trace(|| format!("node {} accepts {id:?}, {copies} copies", node + 1));
                    self.clients.close(user, id);
                }
                Said::Rejected { seq, code, .. } => {
                    let Some((user, id, _)) = self.clients.answered(seq) else { continue };
                    match Clients::is_final(code) {
                        true => self.clients.close(user, id),
                        false => self.try_later(user, id),
                    }
                }
                Said::Welcome { .. } => {}
                Said::Kick { conn, .. } => {
                    if let Some(user) = self.clients.reader(node, conn) {
                        self.clients.sessions[user] = None;
                    }
                }
                Said::Deliver(delivery) => self.deliver(node, &delivery)?,
                Said::Event(event) => self.note(node, &event),
            }
        }
        Ok(())
    }

    fn deliver(&mut self, node: usize, delivery: &Delivery) -> Result<(), Broken> {
        let Some(user) = self.clients.reader(node, delivery.conn) else { return Ok(()) };
        let life = self.nodes[node].life.as_mut().expect("it has just spoken");
        let Some(bytes) = life.record_at(delivery.pos, delivery.len) else {
            self.put_off(node, user, delivery);
            return Ok(());
        };
        let record = iris_wal::record::decode(&bytes).map_err(|error| error.to_string())?.0;
        let Body::Msg(msg) = record.body else {
            return Err("something else than a message is delivered".to_owned());
        };
        if proto_dot(record.head.dot()) != delivery.dot {
            self.put_off(node, user, delivery);
            return Ok(());
        }
        let id = MsgId(msg.msg_id);
        self.trace(|| format!("node {} delivers {id:?} to user {user}", node + 1));
        let session = self.clients.sessions[user].as_mut().expect("the reader has a session");
        self.model.delivers(node, user, id, msg.payload)?;
        self.model.received(user, id, msg.payload, &mut session.last)?;
        session.got += 1;
        session.ids.push(Some(id));
        if session.got != delivery.no {
            return Err(format!(
                "delivery {} to user {user} is numbered {}",
                session.got, delivery.no
            ));
        }
        Ok(())
    }

    fn put_off(&mut self, node: usize, user: User, delivery: &Delivery) {
        let now = self.now(node);
        let shard = shard_for_user(self.clients.keys[user], SHARDS).0;
        let life = self.nodes[node].life.as_mut().expect("it has just spoken");
        let key = self.clients.keys[user];
        let found = life.core.inbox(key).find(|(_, pos)| *pos == delivery.pos);
        life.cannot_read(now, delivery);
        if let Some(id) = found.and_then(|(dot, _)| self.model.id_of((shard, dot))) {
            self.trace(|| format!("node {} cannot read {id:?} for user {user}", node + 1));
            self.model.put_off(id);
        }
        let session = self.clients.sessions[user].as_mut().expect("the reader has a session");
        session.got += 1;
        session.ids.push(None);
        self.outcome.put_off += 1;
    }

    fn note(&mut self, node: usize, event: &Event) {
        self.trace(|| format!("node {}: {event:?}", node + 1));
        match event {
            Event::Mode { .. } => self.outcome.mode_changes += 1,
            Event::Healed => self.model.healed(),
            Event::Split { .. } => self.outcome.splits += 1,
            Event::Lost { records, .. } => self.outcome.lost_reported += records,
            Event::Fenced { .. } => self.outcome.fenced += 1,
            Event::Closed(_)
            | Event::RefusedByPeer(_)
            | Event::PeerClockAhead(_)
            | Event::Repaired
            | Event::PeerDrains
            | Event::Drained => {}
        }
    }

    pub(crate) fn trace_records(&self, node: usize, mut records: &[u8], lied: bool) {
        if self.options.trace == 0 {
            return;
        }
        let to = if lied { " elsewhere" } else { "" };
        while let Ok((record, len)) = iris_wal::record::decode(records) {
            records = &records[len..];
            let iris_wal::Dot { origin, seq } = record.head.dot();
            let dot = format!("{}/{}/{}:{seq}", record.head.shard, origin.node, origin.incarnation);
            let user = |key: &[u8]| self.clients.keys.iter().position(|of| of.0 == *key);
            let what = match record.body {
                Body::Msg(msg) => {
                    let to: Vec<_> = msg.recipients.chunks(16).filter_map(user).collect();
                    let copy = if msg.copy { " copy" } else { "" };
                    format!("MSG{copy} {:?} to {to:?}", MsgId(msg.msg_id))
                }
                Body::Tomb(tomb) => {
                    let of = |dot: iris_wal::Dot| {
                        format!("{}/{}:{}", dot.origin.node, dot.origin.incarnation, dot.seq)
                    };
                    let of: Vec<String> = tomb.targets.dots().map(of).collect();
                    format!("TOMB {} {:?} of {of:?}", tomb.reason.name(), user(&tomb.inbox))
                }
                Body::Epoch(epoch) => format!("EPOCH {} {}", epoch.state, epoch.state_id),
                Body::Mark(mark) => format!("MARK {} bytes", mark.vv.len()),
                Body::Dedup(body) => format!("DEDUP {} bytes", body.len()),
                Body::Checkpoint(_) => "CHECKPOINT".to_owned(),
            };
            self.trace(|| format!("node {} syncs{to} {dot} {what}", node + 1));
        }
    }
}
