//! What a core makes of an edge's frames, and what it says to edges: as `src/partition/inputs.rs` and
//! `src/partition/effects.rs` do.

use iris_proto::core::{Delivery, KickReason, RejectCode, SendRequest};
use iris_proto::hlc::Hlc;
use iris_proto::id::{ConnId, MsgId, shard_for_user};
use iris_proto::link::{LinkSend, ToCore, ToEdge};
use iris_proto::wire::{Code, MessageHead};
use iris_wal::Body;
use iris_wal::views::proto_dot;

use crate::edges::{Edges, REACTOR};
use crate::fx::Said;
use crate::links::Link;
use crate::model::{Broken, Made};
use crate::node::SHARDS;
use crate::world::World;

impl World {
    /// A core takes what an edge says.
    pub(crate) fn take_batch(
        &mut self,
        edges: &mut Edges,
        (number, node): (usize, usize),
        batch: &[u8],
    ) {
        let mut rest = batch;
        while let Some((frame, after)) = ToCore::split(rest).expect("an edge writes whole frames") {
            self.take_frame(edges, (number, node), &frame);
            rest = after;
        }
    }

    fn take_frame(&mut self, edges: &mut Edges, at: (usize, usize), frame: &ToCore<'_>) {
        let (number, node) = at;
        let now_ms = self.now(node).unix_ms;
        let edge = &mut edges.edges[number];
        let link = &mut edge.links[node];
        let (Some(reactor), Some(life)) = (link.at_core, &mut self.nodes[node].life) else {
            return;
        };
        let named = |conn: ConnId| ConnId::new(reactor, conn.slot(), conn.generation());
        let (core, fx, by) = (&mut life.core, &mut life.fx, life.origin);
        match *frame {
            ToCore::Send(send) => {
                let before = core.counters().appended;
                core.handle_send(fx, now_ms, &request(&send, named(send.conn)));
                let is_new = core.counters().appended > before;
                let conn = edge.life << 52 | send.conn.0 & ((1 << 52) - 1);
                let made = Made { conn, nth: send.seq, by };
                link.taken.insert((send.conn, send.seq), (send.id, made));
                if is_new {
                    self.model.made(send.id, made);
                }
                let word = if is_new { "takes" } else { "is sent" };
                self.trace(|| format!("node {} {word} {:?} by edge {number}", node + 1, send.id));
            }
            ToCore::Ack { conn, user, upto } => {
                core.handle_ack(fx, now_ms, named(conn), user, upto);
            }
            ToCore::Login { conn, .. } if !life.replica.serves() => {
                fx.said.push(Said::Kick { conn: named(conn), reason: KickReason::BadLogin });
            }
            ToCore::Login { conn, user, window, session, name } => {
                let who = self.clients.keys.iter().position(|key| *key == user);
                link.logins.insert(conn, who.expect("users log in"));
                let conn = named(conn);
                match session {
                    0 => core.handle_login(fx, now_ms, conn, user, name, window),
                    _ => core.handle_relogin(fx, now_ms, conn, user, name, window, session),
                }
                self.trace(|| format!("node {}: {name} logs in by edge {number}", node + 1));
            }
            ToCore::Logout { conn, user } => {
                core.handle_logout(fx, now_ms, named(conn), user);
                core.handle_gone(named(conn));
            }
            ToCore::Window { conn, user, window } => {
                core.handle_window(now_ms, named(conn), user, window);
            }
            ToCore::Presence(_) | ToCore::Unwatch { .. } | ToCore::Receipt(_) => {
                panic!("nobody asks for that")
            }
            ToCore::Gone { .. } => panic!("an edge does not say that"),
        }
    }

    /// What a node says to a connection of an edge.
    pub(crate) fn say_to_edge(&mut self, node: usize, said: &Said) -> Result<(), Broken> {
        let Some(edges) = &mut self.edges else { return Ok(()) };
        let conn = match said {
            Said::Accepted { conn, .. } | Said::Rejected { conn, .. } => *conn,
            Said::Welcome { conn, .. } | Said::Kick { conn, .. } => *conn,
            Said::Deliver(delivery) => return self.deliver_to_edge(node, delivery),
            Said::Event(_) => return Ok(()),
        };
        let Some(number) = edges.edge_of(node, conn.reactor()) else { return Ok(()) };
        let link = &mut edges.edges[number].links[node];
        let conn = ConnId::new(REACTOR, conn.slot(), conn.generation());
        match *said {
            Said::Accepted { seq, copies, .. } => {
                let (id, made) = link.taken[&(conn, seq)];
                accepted(link, conn, seq, copies);
                self.model.says_accepted(node, id, copies)?;
                if copies == 2 {
                    self.model.is_on_both(id, made);
                }
                self.trace(|| format!("node {} accepts {id:?}, {copies} copies", node + 1));
            }
            Said::Rejected { seq, code, retry_after_ms, .. } => {
                self.model.refused(link.taken[&(conn, seq)].0);
                let frame = ToEdge::Rejected { conn, seq, code: code_of(code), retry_after_ms };
                frame.encode(&mut link.out);
                self.trace(|| format!("node {} rejects {seq} of {conn:?}: {code:?}", node + 1));
            }
            Said::Welcome { waiting, session, .. } => {
                ToEdge::Welcome { conn, waiting, session }.encode(&mut link.out);
            }
            Said::Kick { reason, .. } => {
                ToEdge::Kick { conn, code: code_of_kick(reason) }.encode(&mut link.out);
            }
            Said::Deliver(_) | Said::Event(_) => {}
        }
        Ok(())
    }

    fn deliver_to_edge(&mut self, node: usize, delivery: &Delivery) -> Result<(), Broken> {
        let now = self.now(node);
        let (Some(edges), Some(life)) = (&mut self.edges, &mut self.nodes[node].life) else {
            return Ok(());
        };
        let Some(number) = edges.edge_of(node, delivery.conn.reactor()) else { return Ok(()) };
        let link = &mut edges.edges[number].links[node];
        let conn = ConnId::new(REACTOR, delivery.conn.slot(), delivery.conn.generation());
        let bytes = life.record_at(delivery.pos, delivery.len);
        let record = match &bytes {
            Some(bytes) => {
                Some(iris_wal::record::decode(bytes).map_err(|error| error.to_string())?.0)
            }
            None => None,
        };
        let Some(record) = record.filter(|record| proto_dot(record.head.dot()) == delivery.dot)
        else {
            let shard = shard_for_user(delivery.user, SHARDS).0;
            let found = life.core.inbox(delivery.user).find(|(_, pos)| *pos == delivery.pos);
            life.cannot_read(now, delivery);
            link.unread.insert((conn, delivery.no));
            if let Some(id) = found.and_then(|(dot, _)| self.model.id_of((shard, dot))) {
                self.model.put_off(id);
                self.trace(|| format!("node {} cannot read {id:?} for {conn:?}", node + 1));
            }
            self.outcome.put_off += 1;
            self.unread[node] = true;
            return Ok(());
        };
        let Body::Msg(msg) = record.body else {
            return Err("something else than a message is delivered".to_owned());
        };
        let head = MessageHead {
            no: delivery.no,
            id: MsgId(msg.msg_id),
            time_ms: Hlc(record.head.hlc).unix_ms(),
            flags: msg.msg_flags as u8,
            from: std::str::from_utf8(msg.from).map_err(|error| error.to_string())?,
        };
        ToEdge::encode_frame(conn, &mut link.out, |out| head.encode(msg.payload, out));
        let user = *link.logins.get(&conn).ok_or("a delivery for who never logged in")?;
        self.model.delivers(node, user, head.id, msg.payload)
    }
}

fn request<'a>(send: &LinkSend<'a>, conn: ConnId) -> SendRequest<'a> {
    SendRequest {
        conn,
        seq: send.seq,
        sender: send.sender,
        from: send.from,
        msg_id: send.id,
        flags: u16::from(send.flags),
        recipients: send.to,
        payload: send.payload,
    }
}

/// Answers in a row become one frame.
fn accepted(link: &mut Link, conn: ConnId, seq: u32, copies: u8) {
    if let Some((of, first, count, with)) = &mut link.accepted
        && (*of, *with) == (conn, copies)
        && first.wrapping_add(u32::from(*count)) == seq
    {
        *count += 1;
        return;
    }
    flush_accepted(link);
    link.accepted = Some((conn, seq, 1, copies));
}

/// What was said so far comes before what is said next.
pub(crate) fn flush_accepted(link: &mut Link) {
    if let Some((conn, first, count, copies)) = link.accepted.take() {
        ToEdge::Accepted { conn, first, count, copies }.encode(&mut link.out);
    }
}

fn code_of(code: RejectCode) -> Code {
    match code {
        RejectCode::IdTooOld => Code::IdTooOld,
        RejectCode::IdInFuture => Code::IdInFuture,
        RejectCode::StaleId => Code::IdStale,
        RejectCode::IdNotV7 => Code::IdNotV7,
        RejectCode::InboxFull => Code::InboxFull,
        RejectCode::LowDisk => Code::LowDisk,
        RejectCode::Overloaded | RejectCode::NodeFull => Code::Overloaded,
        RejectCode::WrongShard | RejectCode::NotServing => Code::ShardUnavailable,
        RejectCode::TooLarge | RejectCode::BadRecipients => Code::PayloadTooLarge,
    }
}

fn code_of_kick(reason: KickReason) -> Code {
    match reason {
        KickReason::Replaced => Code::Replaced,
        KickReason::BadAck => Code::BadAck,
        KickReason::SecondLogin => Code::OutOfOrder,
        KickReason::BadLogin => Code::Unavailable,
        KickReason::NumbersUsedUp => Code::Draining,
    }
}
