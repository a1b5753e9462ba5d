//! What each step does, and what is checked after it.

use iris_proto::core::{EndCursor, KickReason, SendRequest};
use iris_proto::id::{ConnId, MsgId, ShardId, UserKey};
use iris_proto::link::{ToCore, ToEdge};
use iris_proto::peer::relay::{cut_for_edge, to_core};
use iris_proto::peer::{PartitionState, ShardRanges};
use iris_proto::wire::{ClientFrame, Code, Hello, ServerFrame, split_frame};

use super::model::End;
use super::world::{Checked, Flaw, NOW_MS, USER, World, check};

/// The sender's connection is of an edge that is not part of this.
const SENDER: u16 = 99;

impl World {
    // ---- clients and edges

    pub(crate) fn login(&mut self, index: usize) {
        let hello =
            Hello { version_min: 1, version_max: 1, window: 1, user: "", device: "", token: "t" };
        let client = &mut self.clients[index];
        client.is_in = true;
        client.session.handle_frame(0, &ClientFrame::Hello(hello)).expect("HELLO comes first");
        client.session.handle_verified(1_000_000);
        let (conn, window, user) = (client.conn, self.scenario.window, UserKey::of(USER));
        self.say(index, &ToCore::Login { conn, user, window, session: 0, name: USER });
    }

    pub(crate) fn ack(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.acked = client.got.len();
        let (conn, upto) = (client.conn, client.acked as u32);
        client.session.handle_frame(0, &ClientFrame::Ack(upto)).expect("a live session acks");
        self.say(index, &ToCore::Ack { conn, user: UserKey::of(USER), upto });
    }

    /// The connection is over, and the router hears of it.
    pub(crate) fn leave(&mut self, index: usize, end: End) {
        self.clients[index].end = Some(end);
        let conn = self.clients[index].conn;
        self.say(index, &ToCore::Logout { conn, user: UserKey::of(USER) });
    }

    fn say(&mut self, index: usize, frame: &ToCore<'_>) {
        let edge = &mut self.edges[self.clients[index].edge];
        let now_ms = edge.now_ms();
        edge.router.handle_client(&mut edge.side, now_ms, frame);
    }

    pub(crate) fn eject(&mut self, edge: usize) {
        self.edges[edge].ejected = true;
        for index in 0..self.clients.len() {
            if self.clients[index].edge == edge && self.clients[index].is_open() {
                self.leave(index, End::Ejected);
            }
        }
    }

    pub(crate) fn lose_link(&mut self) {
        self.losses -= 1;
        let edge = &mut self.edges[0];
        (edge.is_up, edge.unnoticed) = (false, true);
        edge.up.clear();
        edge.down.clear();
        let now_ms = edge.now_ms();
        edge.router.core_down(&mut edge.side, now_ms, 0);
    }

    pub(crate) fn come_back(&mut self) {
        let edge = &mut self.edges[0];
        (edge.is_up, edge.link) = (true, edge.link + 1);
        let now_ms = edge.now_ms();
        edge.router.core_up(0, 1, &ShardRanges::all(1));
        edge.router.core_state(now_ms, 0, 0, PartitionState::Serving);
        while edge.router.poll(&mut edge.side, now_ms) {}
    }

    /// What an edge said goes on its link; what it told clients is theirs.
    pub(crate) fn follow_edges(&mut self) -> Checked {
        for index in 0..self.edges.len() {
            let edge = &mut self.edges[index];
            let said = std::mem::take(&mut edge.side.up);
            let mut rest = said.as_slice();
            while let Some((_, after)) = ToCore::split(rest).expect("a router's frames are whole") {
                if edge.is_up {
                    edge.up.push_back(rest[..rest.len() - after.len()].to_vec());
                }
                rest = after;
            }
            let told = std::mem::take(&mut self.edges[index].side.told);
            let mut rest = told.as_slice();
            while let Some((frame, after)) = ToEdge::split(rest).expect("they are whole") {
                self.told(&frame)?;
                rest = after;
            }
        }
        Ok(())
    }

    /// A client is told something by its edge.
    fn told(&mut self, frame: &ToEdge<'_>) -> Checked {
        let conn = match *frame {
            ToEdge::Welcome { conn, .. } | ToEdge::Kick { conn, .. } => conn,
            ToEdge::Frame { conn, .. } => conn,
            _ => return Err(format!("nobody asked for {frame:?}")),
        };
        let index = conn.slot() as usize;
        let client = &mut self.clients[index];
        check!(client.conn == conn && client.is_in, "{frame:?} to nobody");
        check!(client.end.is_none(), "session {index} ended, and was told {frame:?}");
        match *frame {
            ToEdge::Welcome { .. } => {
                check!(client.session.handle_welcome(0), "session {index} is welcomed twice");
                client.is_welcome = true;
            }
            ToEdge::Kick { code, .. } => {
                check!(code == Code::Replaced, "session {index} was told {code:?}");
                if !client.is_welcome {
                    self.seen.push("replaced before WELCOME");
                }
                // The reactor closes the connection, and that is a logout.
                self.leave(index, End::Replaced);
                return self.follow_edges();
            }
            ToEdge::Frame { bytes, .. } => {
                let (kind, body, _) = split_frame(bytes).expect("ours").expect("whole");
                let Ok(ServerFrame::Message(head, payload)) = ServerFrame::decode(kind, body)
                else {
                    return Err("not a MESSAGE".to_owned());
                };
                check!(client.is_welcome, "session {index} got a MESSAGE before WELCOME");
                let wanted = client.got.len() as u32 + 1;
                check!(head.no == wanted, "session {index} got {} instead of {wanted}", head.no);
                client.got.push(usize::from(payload[0]));
            }
            _ => unreachable!("looked at above"),
        }
        Ok(())
    }

    // ---- the core

    pub(crate) fn send(&mut self) {
        let number = self.side.messages.len() + 1;
        self.model.inbox.push(number);
        let send = SendRequest {
            conn: ConnId::new(SENDER, 1, 0),
            seq: number as u32,
            sender: UserKey::of("s"),
            from: "s",
            msg_id: MsgId::v7(NOW_MS, number as u128),
            flags: 0,
            recipients: &UserKey::of(USER).0,
            payload: &[number as u8],
        };
        self.core.handle_send(&mut self.side, NOW_MS, &send);
    }

    pub(crate) fn sync(&mut self) {
        let lsn = self.side.lsn;
        self.side.durable = lsn;
        self.core.handle_durable(&mut self.side, NOW_MS, lsn, 1);
    }

    /// The core notices that the link of edge 0 is lost.
    pub(crate) fn notice(&mut self) {
        let edge = &mut self.edges[0];
        edge.unnoticed = false;
        // The numbers of the link that was lost: a newer one may be up.
        let link = if edge.is_up { edge.link - 1 } else { edge.link };
        let first = edge.range(0).first - edge.link + link;
        let reactors = first..first + 1;
        let mut cursor = Some(EndCursor::default());
        while let Some(from) = cursor {
            cursor = self.core.end_reactors(&mut self.side, NOW_MS, &reactors, from, 64);
        }
        if let Some((conn, _)) = self.model.current
            && reactors.contains(&conn.reactor())
        {
            self.model.current = None;
        }
    }

    /// The oldest frame of an edge reaches the core.
    pub(crate) fn up(&mut self, index: usize) -> Checked {
        let frame = self.edges[index].up.pop_front().expect("the step was possible");
        let mut bytes = Vec::new();
        to_core(&frame, self.edges[index].range(index), &mut bytes)
            .expect("a router says sound things");
        let (frame, _) = ToCore::split(&bytes).expect("sound").expect("whole");
        let current = self.model.current.map(|(conn, _)| conn);
        match frame {
            ToCore::Login { conn, user, window, session, name } => {
                if self.model.current.is_some() {
                    self.seen.push("a login took over");
                }
                if !self.model.log_in(conn, session) {
                    self.seen.push("an older login came back and was refused");
                }
                match session {
                    0 => self.core.handle_login(&mut self.side, NOW_MS, conn, user, name, window),
                    _ => self.core.handle_relogin(
                        &mut self.side,
                        NOW_MS,
                        conn,
                        user,
                        name,
                        window,
                        session,
                    ),
                }
            }
            ToCore::Logout { conn, user } => {
                self.model.log_out(conn);
                let conn = match current {
                    Some(current) if self.flaw == Flaw::LogoutUnfenced => current,
                    _ => conn,
                };
                if current.is_some_and(|current| current != conn) {
                    self.seen.push("an old session's end came late");
                }
                self.core.handle_logout(&mut self.side, NOW_MS, conn, user);
            }
            ToCore::Ack { conn, user, upto } => {
                self.model.ack(conn, upto)?;
                if current != Some(conn) {
                    self.seen.push("an old session's ACK came late");
                }
                let conn = match current {
                    Some(current) if self.flaw == Flaw::AckUnfenced => current,
                    _ => conn,
                };
                self.core.handle_ack(&mut self.side, NOW_MS, conn, user, upto);
            }
            ToCore::Window { conn, user, window } => {
                self.core.handle_window(NOW_MS, conn, user, window);
            }
            other => return Err(format!("an edge said {other:?}")),
        }
        Ok(())
    }

    /// The oldest frame of the core reaches an edge.
    pub(crate) fn down(&mut self, index: usize) -> Checked {
        let edge = &mut self.edges[index];
        let mut frame = edge.down.pop_front().expect("the step was possible");
        let (len, range) = (frame.len(), edge.range(index));
        let cut = cut_for_edge(&mut frame, len, range);
        check!(cut == Some(len), "a frame is cut");
        let (frame, _) = ToEdge::split(&frame).expect("sound").expect("whole");
        let stale = edge.router.counters().stale;
        let now_ms = edge.now_ms();
        edge.router.handle_core(&mut edge.side, now_ms, 0, &frame);
        let is_stale = edge.router.counters().stale > stale;
        match frame {
            ToEdge::Frame { .. } if is_stale => self.seen.push("a delivery came for nobody"),
            ToEdge::Kick { .. } if is_stale => self.seen.push("a kick came for nobody"),
            _ => {}
        }
        Ok(())
    }

    /// The core does what follows from its input; the model says what that must be.
    pub(crate) fn follow_core(&mut self) -> Checked {
        while self.core.poll(&mut self.side, NOW_MS, 16) {}
        for (conn, waiting, number) in std::mem::take(&mut self.side.welcomed) {
            check!(self.model.is_current(conn), "{conn:?} is welcomed and does not count");
            self.model.current = Some((conn, number));
            let inbox = self.model.inbox.len();
            check!(waiting as usize == inbox, "WELCOME says {waiting} wait, and {inbox} do");
        }
        for (conn, no, message) in std::mem::take(&mut self.side.delivered) {
            self.model.deliver(conn, no, message)?;
            let is_durable = self.side.lsns[&message] <= self.side.durable;
            check!(is_durable, "message {message} is delivered before it is synced");
            if self.flaw == Flaw::DeliveryLost && no == 1 && self.model.takeovers > 0 {
                let is_first = |(to, bytes): &(ConnId, Vec<u8>)| *to == conn && bytes[0] == FRAME;
                let first = self.side.told.iter().position(is_first);
                self.side.told.remove(first.expect("it was told"));
            }
        }
        for (conn, reason) in std::mem::take(&mut self.side.kicked) {
            check!(reason == KickReason::Replaced, "{conn:?} is ended: {reason:?}");
            check!(!self.model.is_current(conn), "the session that counts is ended");
            if self.flaw == Flaw::KickLost {
                self.side.told.retain(|(to, bytes)| *to != conn || bytes[0] == FRAME);
            }
        }
        for (conn, bytes) in std::mem::take(&mut self.side.told) {
            self.tell(conn, bytes);
        }
        let waiting = self.core.waiting(UserKey::of(USER)) as usize;
        let inbox = self.model.inbox.len();
        check!(waiting == inbox, "{waiting} messages wait, and {inbox} should");
        let current = self.core.connection_of(UserKey::of(USER));
        let wanted = self.model.current.map(|(conn, _)| conn);
        check!(current == wanted, "{current:?} counts, and {wanted:?} should");
        Ok(())
    }

    /// A frame goes on the link of its connection, if that is still the one.
    fn tell(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let place = self.edges.iter().enumerate().find(|(index, edge)| {
            edge.range(*index).contains(conn.reactor()) && edge.is_up && !edge.unnoticed
        });
        let Some((index, _)) = place else { return };
        self.edges[index].down.push_back(bytes);
    }

    // ---- the end

    /// Nothing more can happen: everything is where it should be.
    pub(crate) fn check_end(&mut self) -> Checked {
        let live: Vec<usize> =
            (0..self.clients.len()).filter(|index| self.clients[*index].is_open()).collect();
        check!(live.len() <= 1, "sessions {live:?} are live at once");
        for edge in &self.edges {
            check!(edge.up.is_empty() && edge.down.is_empty(), "something is under way");
            check!(edge.router.core_of(ShardId(0)).is_some(), "an edge lost its core");
        }
        check!(
            live.is_empty() == self.model.current.is_none(),
            "{live:?}: the core and edges differ"
        );
        if let [live] = live[..] {
            let client = &self.clients[live];
            check!(client.is_welcome, "session {live} waits for WELCOME for ever");
            let inbox = &self.model.inbox;
            check!(inbox.is_empty(), "{inbox:?} never reach session {live}");
            self.seen.push("one is left");
        }
        let count = self.scenario.waiting + self.scenario.coming;
        for message in (1..=count).filter(|message| !self.model.inbox.contains(message)) {
            let has_acked =
                |client: &&super::world::Client| client.got[..client.acked].contains(&message);
            check!(self.clients.iter().any(|c| has_acked(&c)), "message {message} is lost");
        }
        // Who comes now gets what is left, in order.
        let conn = ConnId::new(SENDER, 2, 0);
        let user = UserKey::of(USER);
        let left = self.model.inbox.clone();
        self.model.log_in(conn, 0);
        self.core.handle_login(&mut self.side, NOW_MS, conn, user, USER, 1000);
        while self.core.poll(&mut self.side, NOW_MS, 16) {}
        let got = self.side.delivered.iter().map(|(_, _, message)| *message);
        let got: Vec<usize> = got.collect();
        check!(got == left, "who comes later gets {got:?} instead of {left:?}");
        Ok(())
    }
}

/// The type of a frame of [`ToEdge::Frame`].
const FRAME: u8 = 0x44;
