//! From bytes to frames to links.

use super::conn::{Conn, Partial};
use super::{Reactor, Split};
use crate::metrics::{CloseReason, FrameType, RejectReason};
use iris_proto::id::{ConnId, MsgId, UserKey, shard_for_user};
use iris_proto::limits::{
    DEVICE_BYTES_MAX, PAYLOAD_BYTES_MAX, RECV_WINDOW_MAX, TOKEN_BYTES_MAX, USER_BYTES_MAX,
};
use iris_proto::link::{LinkSend, PresenceAsk, ToCore};
use iris_proto::session::Seconds;
use iris_proto::wire::{
    ClientFrame, Code, HEADER_BYTES, Header, Hello, MAGIC, Names, PresenceQuery, Rejection, Send,
    kind, put_pong, put_rejected, split_frame,
};

/// The largest HELLO: what a stranger may make us keep.
const HELLO_BYTES_MAX: usize = 64 + USER_BYTES_MAX + DEVICE_BYTES_MAX + TOKEN_BYTES_MAX;

impl Reactor {
    /// Bytes of a client. They are parsed where they lie; only the start of a frame whose rest is missing is kept.
    pub(super) fn received(&mut self, id: ConnId, bytes: &mut [u8]) {
        self.metrics.recvs.add(1);
        self.metrics.recv_bytes.add(bytes.len() as u64);
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.closing {
            return;
        }
        match conn.tls {
            None => self.take_bytes(id, bytes),
            Some(_) => self.received_sealed(id, bytes),
        }
    }

    /// What a client says, in the clear.
    pub(super) fn take_bytes(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let verdict = match conn.partial.take() {
            None => self.take_frames(id, bytes),
            Some(mut partial) => {
                self.partial_bytes -= partial.len();
                partial.extend_from_slice(bytes);
                match split_frame(&partial) {
                    // It stays where it is: copying it with each arrival would make slow senders dear.
                    Ok(None) => self.keep_partial(id, partial),
                    _ => self.take_frames(id, &partial),
                }
            }
        };
        if let Err(code) = verdict {
            self.fail(id, code);
        }
    }

    fn take_frames(&mut self, id: ConnId, bytes: &[u8]) -> Result<(), Code> {
        let mut rest = bytes;
        while let Some((kind, body, after)) = split_frame(rest)? {
            self.metrics.frames_in.add(FrameType::of(kind), 1);
            let frame = ClientFrame::decode(kind, body).map_err(|code| self.blame(id, code))?;
            self.take_frame(id, &frame, HEADER_BYTES + body.len())?;
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { self.keep_partial(id, Box::new(rest.to_vec())) }
    }

    /// A stranger that sends what is no frame at all talks another protocol.
    fn blame(&mut self, id: ConnId, code: Code) -> Code {
        match (self.conns.get_mut(id), code) {
            (Some(conn), Code::UnknownType) if conn.session.awaits_hello() => Code::Garbage,
            _ => code,
        }
    }

    /// Keeps the start of a frame. Strangers may fill half of the room for it, so that they cannot throw users out; who
    /// finds no room is sent away and may come back.
    fn keep_partial(&mut self, id: ConnId, partial: Partial) -> Result<(), Code> {
        let Some(conn) = self.conns.get_mut(id) else { return Ok(()) };
        if conn.closing {
            return Ok(());
        }
        let header = Header::read(&partial)?;
        if conn.session.awaits_hello() {
            let needed = header.map_or(HEADER_BYTES, |h| HEADER_BYTES + h.body_bytes);
            if needed > HELLO_BYTES_MAX || !may_become_hello(&partial) {
                return Err(Code::Garbage);
            }
        }
        if self.partial_bytes + partial.len() > self.partial_room(id) {
            self.fail_because(id, Code::Unavailable, CloseReason::Overloaded);
            return Ok(());
        }
        self.partial_bytes += partial.len();
        let Some(conn) = self.conns.get_mut(id) else { return Ok(()) };
        conn.partial = Some(partial);
        Ok(())
    }

    /// Bytes of unfinished frames and records that may be there if this connection is to keep some of them.
    pub(super) fn partial_room(&mut self, id: ConnId) -> usize {
        let room = self.settings.partial_bytes_max;
        let is_stranger = self.conns.get_mut(id).is_none_or(|conn| conn.session.awaits_hello());
        if is_stranger { room / 2 } else { room }
    }

    /// `bytes` are those of the whole frame.
    fn take_frame(
        &mut self,
        id: ConnId,
        frame: &ClientFrame<'_>,
        bytes: usize,
    ) -> Result<(), Code> {
        let now_s = self.now_s;
        let Some(conn) = self.conns.get_mut(id) else { return Ok(()) };
        if conn.closing {
            return Ok(());
        }
        conn.session.handle_frame(now_s, frame)?;
        let user = conn.user;
        if self.metering && !self.is_within_rates(id, frame, bytes as u64) {
            return Ok(());
        }
        // A SEND is refused and told; other work for a partition that is this far behind ends the connection (I7).
        let goes_to_core = !matches!(
            frame,
            ClientFrame::Send(_)
                | ClientFrame::Ping(_)
                | ClientFrame::Pong(_)
                | ClientFrame::Ignored
        );
        if goes_to_core && self.is_behind(2 * self.settings.link_backlog_max) {
            return Err(Code::Overloaded);
        }
        let Some(conn) = self.conns.get_mut(id) else { return Ok(()) };
        match frame {
            ClientFrame::Send(send) => self.take_send(id, send),
            ClientFrame::Ack(upto) => {
                self.tell_home(user, &ToCore::Ack { conn: id, user, upto: *upto });
            }
            ClientFrame::Hello(hello) => return self.log_in(id, hello),
            ClientFrame::Window(window) => {
                let window = (*window).min(RECV_WINDOW_MAX);
                self.tell_home(user, &ToCore::Window { conn: id, user, window });
            }
            ClientFrame::PresenceQuery(query) => {
                conn.watches |= query.watch;
                self.ask_presence(id, query);
            }
            ClientFrame::Unwatch(unwatch) => self.forget_watches(id, unwatch.users),
            ClientFrame::Ping(echo) => {
                let now_ms = self.clock.unix_ms();
                self.metrics.frames_out.add(FrameType::Pong, 1);
                self.write(id, |out| {
                    out.flush_run();
                    put_pong(&mut out.pending, *echo, now_ms);
                    out.frames += 1;
                });
            }
            ClientFrame::Pong(_) | ClientFrame::Ignored => {}
        }
        Ok(())
    }

    fn log_in(&mut self, id: ConnId, hello: &Hello<'_>) -> Result<(), Code> {
        if hello.token.is_empty() {
            // Its certificate may say who a client is; the handshake has paid for the look at it.
            let user = self.certificate_user(id).ok_or(Code::TokenMissing)?;
            if !self.may_try_login(id) {
                return Ok(());
            }
            return self.admit(id, hello, user.name, user.expires_unix_s);
        }
        if !self.may_try_login(id) {
            return Ok(());
        }
        if !self.logins.may_go_on(id, hello) {
            return Ok(());
        }
        self.verify(id, hello)
    }

    pub(super) fn verify(&mut self, id: ConnId, hello: &Hello<'_>) -> Result<(), Code> {
        let now_unix_s = self.clock.unix_ms() / 1000;
        let claims = match self.verifier.verify(hello.token, now_unix_s) {
            Ok(claims) => claims,
            Err(error) => {
                self.fail_because(id, error.code(), CloseReason::from(error));
                return Ok(());
            }
        };
        // A token must be that of the user whom the certificate names.
        if self.certificate_user(id).is_some_and(|user| user.name != claims.user) {
            return Err(Code::TokenSubject);
        }
        self.admit(id, hello, claims.user, claims.expires_unix_s)
    }

    /// Logs a user in whose name is proved.
    fn admit(
        &mut self,
        id: ConnId,
        hello: &Hello<'_>,
        name: String,
        expires_unix_s: u64,
    ) -> Result<(), Code> {
        if !hello.user.is_empty() && hello.user != name {
            return Err(Code::TokenSubject);
        }
        if self.clock.unix_ms() / 1000 >= expires_unix_s {
            return Err(Code::TokenExpired);
        }
        if self.is_draining() {
            return Err(Code::Draining);
        }
        let ends_s = self.clock.seconds_at_unix(expires_unix_s);
        let ends_s = ends_s.saturating_add(self.outlast_s(id));
        let user = UserKey::of(&name);
        if let Err(refused) = self.gate.handle_user_login(self.clock.monotonic_ns(), &user.0) {
            self.send_away(id, refused);
            return Ok(());
        }
        let window = hello.window.min(RECV_WINDOW_MAX);
        let login = ToCore::Login { conn: id, user, window, session: 0, name: &name };
        self.tell_home(user, &login);
        let Some(conn) = self.conns.get_mut(id) else { return Ok(()) };
        self.gate.handle_settled(&mut conn.pass);
        conn.session.handle_verified(ends_s);
        conn.user = user;
        conn.window = window;
        conn.name = Some(name.into_boxed_str());
        conn.logged_in = true;
        self.metrics.logged_in.add(1);
        self.look_again(id, ends_s);
        Ok(())
    }

    /// How long a connection may outlast its token.
    pub(super) fn outlast_s(&self, id: ConnId) -> Seconds {
        self.settings.outlast.seconds(self.chance(id))
    }

    /// A number of the connection's own, another one in each life of the node.
    pub(super) fn chance(&self, id: ConnId) -> u64 {
        id.0 ^ self.settings.seed
    }

    /// Tells the partition of the user, and every partition that may hold watches of the connection.
    pub(super) fn log_out(&mut self, id: ConnId, user: UserKey, watches: bool) {
        self.tell_home(user, &ToCore::Logout { conn: id, user });
        if watches {
            self.forget_watches(id, Names::of_bytes(&[0, 0]));
        }
    }

    fn forget_watches(&mut self, id: ConnId, users: Names<'_>) {
        let frame = ToCore::Unwatch { conn: id, users };
        if let Some(routing) = &mut self.routing {
            return routing.client(self.clock.monotonic_ms(), &frame);
        }
        self.links.iter_mut().for_each(|link| frame.encode(link.buffer()));
    }

    /// Writes a frame into the batch of the partition where a user lives.
    pub(super) fn tell_home(&mut self, user: UserKey, frame: &ToCore<'_>) {
        if let Some(routing) = &mut self.routing {
            return routing.client(self.clock.monotonic_ms(), frame);
        }
        let partition = self.partition_of(user);
        frame.encode(self.links[partition].buffer());
    }

    /// Sends a message to recipients of one shard, 16 bytes each.
    fn tell_shard(&mut self, id: ConnId, send: &Send<'_>, to: &[UserKey]) {
        let partition = self.partition_of(to[0]);
        let Some(conn) = self.conns.get_mut(id) else { return };
        let link = link_send(id, conn, send);
        let Some(routing) = &mut self.routing else {
            return link.encode(self.links[partition].buffer(), |out| {
                to.iter().for_each(|user| out.extend_from_slice(&user.0));
            });
        };
        let several: Vec<u8>;
        let to = match to {
            [one] => &one.0[..],
            _ => {
                several = to.iter().flat_map(|user| user.0).collect();
                &several
            }
        };
        routing.client(self.clock.monotonic_ms(), &ToCore::Send(LinkSend { to, ..link }));
    }

    fn partition_of(&self, user: UserKey) -> usize {
        let shard = shard_for_user(user, self.settings.num_shards);
        usize::from(shard.0) % self.links.len().max(1)
    }

    /// Whether more than so many bytes wait for a partition.
    fn is_behind(&self, bytes: usize) -> bool {
        self.links.iter().any(|link| link.backlog_bytes() > bytes)
            || self.routing.as_ref().is_some_and(|routing| routing.is_behind(bytes))
    }

    fn take_send(&mut self, id: ConnId, send: &Send<'_>) {
        let refusal = if send.payload.len() > PAYLOAD_BYTES_MAX {
            Some((Code::PayloadTooLarge, 0))
        } else if !send.id.is_v7() {
            Some((Code::IdNotV7, 0))
        } else if self
            .links
            .iter()
            .any(|link| link.backlog_bytes() > self.settings.link_backlog_max)
        {
            Some((Code::Overloaded, 100))
        } else {
            None
        };
        if let Some((code, retry_after_ms)) = refusal {
            self.metrics.rejected.add(RejectReason::from(code), 1);
            return self.answer_refusal(id, send.seq, code, retry_after_ms);
        }
        if send.to.len() == 1 {
            let to = send.to.iter().next().map(UserKey::of).expect("the list has one name");
            self.tell_shard(id, send, &[to]);
        } else {
            self.split_send(id, send);
        }
    }

    /// A list: one frame per shard, so that each shard holds the payload once.
    fn split_send(&mut self, id: ConnId, send: &Send<'_>) {
        let num_shards = self.settings.num_shards;
        let mut to: Vec<UserKey> = send.to.iter().map(UserKey::of).collect();
        // Shards are ranges of keys, so sorted keys stand together by shard.
        to.sort_unstable();
        to.dedup();
        let shards =
            to.chunk_by(|a, b| shard_for_user(*a, num_shards) == shard_for_user(*b, num_shards));
        let mut waiting = 0;
        for shard in shards {
            waiting += 1;
            self.tell_shard(id, send, shard);
        }
        if waiting > 1 {
            let split = Split { waiting, copies: u8::MAX, refused: None };
            if self.splits.entry(id).or_default().insert(send.seq, split).is_some() {
                // Two of the same number: which one an answer is for cannot be told.
                self.fail(id, Code::Malformed);
            } else if let Some(conn) = self.conns.get_mut(id) {
                conn.split_sends += 1;
            }
        }
    }

    pub(super) fn answer_refusal(&mut self, id: ConnId, seq: u32, code: Code, retry_after_ms: u32) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.session.handle_answers(1);
        }
        self.write(id, |out| {
            out.flush_run();
            put_rejected(&mut out.pending, &[Rejection { seq, code: code as u16, retry_after_ms }]);
            out.frames += 1;
        });
    }

    /// Each partition answers for its own users.
    fn ask_presence(&mut self, id: ConnId, query: &PresenceQuery<'_>) {
        if let Some(routing) = &mut self.routing {
            let PresenceQuery { query, watch, users } = *query;
            let ask = PresenceAsk { conn: id, query, watch, users };
            return routing.client(self.clock.monotonic_ms(), &ToCore::Presence(ask));
        }
        let links = self.links.len();
        for partition in 0..links {
            let mut names = vec![0, 0];
            let mut count = 0_u16;
            for name in query.users.iter() {
                if self.partition_of(UserKey::of(name)) == partition {
                    count += 1;
                    names.push(name.len() as u8);
                    names.extend_from_slice(name.as_bytes());
                }
            }
            if count == 0 {
                continue;
            }
            names[..2].copy_from_slice(&count.to_le_bytes());
            let users = Names::of_bytes(&names);
            let ask = PresenceAsk { conn: id, query: query.query, watch: query.watch, users };
            ToCore::Presence(ask).encode(self.links[partition].buffer());
        }
    }
}

/// Whether these are the first bytes of a HELLO, as far as its type and magic are there.
fn may_become_hello(bytes: &[u8]) -> bool {
    let magic = bytes.get(HEADER_BYTES..).unwrap_or_default();
    bytes.first().is_none_or(|first| *first == kind::HELLO)
        && magic.iter().zip(MAGIC).all(|(got, wanted)| *got == wanted)
}

fn link_send<'a>(id: ConnId, conn: &'a Conn, send: &Send<'a>) -> LinkSend<'a> {
    LinkSend {
        conn: id,
        seq: send.seq,
        sender: conn.user,
        id: MsgId(send.id.0),
        flags: send.flags & Send::WANTS_RECEIPT,
        from: conn.name.as_deref().expect("who sends has logged in"),
        to: &[],
        payload: send.payload,
    }
}
