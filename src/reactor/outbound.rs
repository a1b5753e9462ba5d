//! From links to connections.

use super::Reactor;
use crate::metrics::FrameType;
use iris_proto::id::ConnId;
use iris_proto::limits::{PAYLOAD_BYTES_MAX, RECIPIENTS_MAX, SEND_WINDOW_MAX};
use iris_proto::link::{ReceiptPost, ToCore, ToEdge};
use iris_proto::wire::{AcceptedRun, Code, VERSION, Welcome, kind};
use std::collections::hash_map::Entry;

impl Reactor {
    /// A partition's batch. Inside one process a frame that does not parse is a bug of ours.
    pub(super) fn take_batch(&mut self, mut batch: &[u8]) {
        while let Some((frame, rest)) =
            ToEdge::split(batch).expect("a partition writes whole frames")
        {
            self.take_core_frame(&frame);
            batch = rest;
        }
    }

    fn take_core_frame(&mut self, frame: &ToEdge<'_>) {
        let kind = match *frame {
            ToEdge::Accepted { .. } => Some(kind::ACCEPTED),
            ToEdge::Frame { bytes, .. } => bytes.first().copied(),
            ToEdge::Rejected { .. } => Some(kind::REJECTED),
            ToEdge::Welcome { .. } => Some(kind::WELCOME),
            ToEdge::Kick { .. } => Some(kind::ERROR),
            ToEdge::Receipt { .. } => None,
        };
        if let Some(kind) = kind {
            self.metrics.frames_out.add(FrameType::of(kind), 1);
        }
        match *frame {
            ToEdge::Accepted { conn, first, count, copies } => {
                self.accepted(conn, first, count, copies);
            }
            ToEdge::Frame { conn, bytes } => {
                let mut replaced = 0;
                self.write(conn, |out| replaced = out.frame(bytes));
                self.metrics.changes_replaced.add(replaced);
            }
            ToEdge::Rejected { conn, seq, code, retry_after_ms } => {
                self.rejected(conn, seq, code, retry_after_ms);
            }
            ToEdge::Welcome { conn, waiting, .. } => self.welcome(conn, waiting),
            ToEdge::Kick { conn, code } => self.fail(conn, code),
            ToEdge::Receipt { to, reader, id, reader_name } => {
                self.tell_home(to, &ToCore::Receipt(ReceiptPost { to, reader, reader_name, id }));
            }
        }
    }

    fn accepted(&mut self, id: ConnId, first: u32, count: u16, copies: u8) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.split_sends == 0 {
            conn.session.handle_answers(count);
            self.write(id, |out| out.accepted(copies, AcceptedRun { first, count }));
            return;
        }
        for offset in 0..u32::from(count) {
            self.answer(id, first.wrapping_add(offset), copies, None);
        }
    }

    fn rejected(&mut self, id: ConnId, seq: u32, code: Code, retry_after_ms: u32) {
        self.answer(id, seq, 0, Some((code, retry_after_ms)));
    }

    /// One shard's answer to one SEND. A SEND to several shards is answered once, by the last of them: accepted if all
    /// accepted, on as few copies as the worst; else refused, by a refusal that may be retried if there is one.
    fn answer(&mut self, id: ConnId, seq: u32, copies: u8, refused: Option<(Code, u32)>) {
        let (mut copies, mut refused) = (copies, refused);
        let splits = self.splits.get_mut(&id);
        if let Some(split) = splits.and_then(|splits| splits.get_mut(&seq)) {
            split.waiting -= 1;
            if refused.is_none() {
                split.copies = split.copies.min(copies);
            }
            split.refused = match (split.refused, refused) {
                (Some(one), Some(two)) if !one.0.is_retryable() => Some(two),
                (None, other) => other,
                (some, _) => some,
            };
            if split.waiting > 0 {
                return;
            }
            (copies, refused) = (split.copies, split.refused);
            if let Entry::Occupied(mut splits) = self.splits.entry(id) {
                splits.get_mut().remove(&seq);
                if splits.get().is_empty() {
                    splits.remove();
                }
            }
            if let Some(conn) = self.conns.get_mut(id) {
                conn.split_sends -= 1;
            }
        }
        match refused {
            Some((code, retry_after_ms)) => self.answer_refusal(id, seq, code, retry_after_ms),
            None => {
                let Some(conn) = self.conns.get_mut(id) else { return };
                conn.session.handle_answers(1);
                self.write(id, |out| out.accepted(copies, AcceptedRun { first: seq, count: 1 }));
            }
        }
    }

    fn welcome(&mut self, id: ConnId, waiting: u32) {
        let now_s = self.now_s;
        let server_time_ms = self.clock.unix_ms();
        let settings = std::sync::Arc::clone(&self.settings);
        let outlast_s = self.outlast_s(id);
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.closing || !conn.session.handle_welcome(now_s) {
            return;
        }
        let expires_s = conn.session.ends_s().saturating_sub(outlast_s);
        let token_expires_s = self.clock.unix_at_seconds(expires_s);
        let (recv_window, user) = (conn.window, conn.name.clone().unwrap_or_default());
        let welcome = Welcome {
            version: VERSION,
            server_time_ms,
            waiting,
            send_window: SEND_WINDOW_MAX,
            recv_window,
            payload_max: PAYLOAD_BYTES_MAX as u32,
            recipients_max: RECIPIENTS_MAX as u16,
            idle_timeout_ms: settings.patience.idle_s.saturating_mul(1000),
            token_expires_s,
            dedup_window_ms: settings.dedup_window_ms,
            region: &settings.region,
            node: &settings.node,
            user: &user,
        };
        self.look_again(id, now_s + settings.patience.idle_s / 2);
        self.write(id, |out| {
            welcome.encode(&mut out.pending);
            out.frames += 1;
        });
    }
}
