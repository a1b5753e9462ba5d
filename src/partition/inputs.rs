//! From links to the core.

use super::Partition;
use iris_proto::core::{Effects, KickReason, Receipt, SendRequest};
use iris_proto::id::UserKey;
use iris_proto::link::ToCore;

impl Partition {
    /// A reactor's batch, as far as there is room for it and its answers: how many bytes of it were taken. Inside one
    /// process a frame that does not parse is a bug of ours.
    pub(super) fn take_batch(&mut self, batch: &[u8]) -> usize {
        let mut rest = batch;
        while self.has_room() {
            let frame = ToCore::split(rest).expect("a reactor writes whole frames");
            let Some((frame, after)) = frame else { break };
            self.take_frame(&frame);
            rest = after;
        }
        batch.len() - rest.len()
    }

    fn take_frame(&mut self, frame: &ToCore<'_>) {
        let now_ms = self.clock.unix_ms();
        let serves = self.serves();
        let (core, fx) = (&mut self.core, &mut self.fx);
        match *frame {
            ToCore::Send(send) => core.handle_send(
                fx,
                now_ms,
                &SendRequest {
                    conn: send.conn,
                    seq: send.seq,
                    sender: send.sender,
                    from: send.from,
                    msg_id: send.id,
                    flags: u16::from(send.flags),
                    recipients: send.to,
                    payload: send.payload,
                },
            ),
            ToCore::Ack { conn, user, upto } => {
                core.handle_ack(fx, now_ms, conn, user, upto);
                self.more = true;
            }
            ToCore::Login { conn, .. } if !serves => {
                fx.kick(conn, KickReason::BadLogin);
            }
            ToCore::Login { conn, user, window, session, name } => {
                match session {
                    0 => core.handle_login(fx, now_ms, conn, user, name, window),
                    _ => core.handle_relogin(fx, now_ms, conn, user, name, window, session),
                }
                self.more = true;
            }
            ToCore::Logout { conn, user } => {
                core.handle_logout(fx, now_ms, conn, user);
                core.handle_gone(conn);
            }
            ToCore::Window { conn, user, window } => {
                core.handle_window(now_ms, conn, user, window);
                self.more = true;
            }
            ToCore::Presence(ask) => {
                let users = ask.users.iter().map(|name| (UserKey::of(name), name));
                core.handle_presence_query(fx, ask.conn, ask.query, users, ask.watch);
            }
            ToCore::Unwatch { conn, users } if users.is_empty() => core.handle_gone(conn),
            ToCore::Unwatch { conn, users } => {
                core.handle_unwatch(conn, users.iter().map(UserKey::of));
            }
            ToCore::Receipt(post) => {
                let receipt = Receipt {
                    to: post.to,
                    reader: post.reader,
                    reader_name: post.reader_name,
                    msg_id: post.id,
                };
                core.handle_receipt(fx, now_ms, &receipt);
            }
            ToCore::Gone { first, count } => self.edge_gone(first..first.saturating_add(count)),
        }
    }
}
