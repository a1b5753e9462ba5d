//! Taking messages in: admission, one record per shard, one entry per inbox.

use super::dedup::Verdict;
use super::effects::{
    Appended, Effects, IS_RECEIPT, MsgRecord, Receipt, Refusal, RejectCode, WANTS_RECEIPT,
};
use super::inbox::{self, Entry, Origins, SEQ_END};
use super::slab::NIL;
use super::{Core, Pending};
use crate::id::{ConnId, Dot, MsgId, ShardId, UserKey};
use crate::limits::{PAYLOAD_BYTES_MAX, RECIPIENTS_MAX, USER_BYTES_MAX};
use crate::sabotage::{self, Sabotage};

/// A SEND, as its edge passes it on.
#[derive(Clone, Copy, Debug)]
pub struct SendRequest<'a> {
    /// Where the answer goes.
    pub conn: ConnId,
    /// What the answer is for.
    pub seq: u32,
    /// Who sends it.
    pub sender: UserKey,
    /// The same, as a name.
    pub from: &'a str,
    /// The sender's id for it, the same on each retry.
    pub msg_id: MsgId,
    /// [`WANTS_RECEIPT`]; other bits are dropped.
    pub flags: u16,
    /// 16 bytes for each recipient, all of one shard. One that is named twice counts once.
    pub recipients: &'a [u8],
    /// Opaque bytes.
    pub payload: &'a [u8],
}

impl From<Refusal> for RejectCode {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::LowDisk => Self::LowDisk,
            Refusal::Full => Self::Overloaded,
        }
    }
}

/// What a MSG record will say, except its identity.
struct Draft<'a> {
    shard: ShardId,
    sender: UserKey,
    from: &'a str,
    msg_id: MsgId,
    flags: u16,
    payload: &'a [u8],
}

impl Core {
    /// A message for recipients of one shard. The answer is one `accepted` (after the message is durable) or one
    /// `rejected` (at once) for its connection and number.
    pub fn handle_send(&mut self, fx: &mut impl Effects, now_ms: u64, send: &SendRequest<'_>) {
        let now = self.advance(now_ms);
        self.counters.sends += 1;
        if let Err(code) = self.try_send(fx, now, send) {
            self.counters.rejected[code as usize] += 1;
            fx.rejected(send.conn, send.seq, code, code.retry_after_ms());
        }
    }

    fn try_send(
        &mut self,
        fx: &mut impl Effects,
        now: u64,
        send: &SendRequest<'_>,
    ) -> Result<(), RejectCode> {
        if let Some(code) = self.admission {
            return Err(code);
        }
        let shard = self.check(send)?;
        let place = match self.dedup.check(shard, send.sender, send.msg_id, now)? {
            Verdict::Known => return self.answer_duplicate(fx, send),
            Verdict::New(place) => place,
        };
        let draft = Draft {
            shard,
            sender: send.sender,
            from: send.from,
            msg_id: send.msg_id,
            flags: send.flags & WANTS_RECEIPT,
            payload: send.payload,
        };
        let seq = self.append(fx, now, &draft, send.recipients, Some((send.conn, send.seq)))?;
        self.dedup.insert(place, send.msg_id, inbox::pack(Origins::OWN, seq));
        self.counters.appended += 1;
        Ok(())
    }

    /// Checks what a session has checked before, because an edge is a peer (I9). Returns the recipients' shard.
    fn check(&self, send: &SendRequest<'_>) -> Result<ShardId, RejectCode> {
        let (keys, rest) = send.recipients.as_chunks::<16>();
        if !rest.is_empty() || !(1..=RECIPIENTS_MAX).contains(&keys.len()) {
            return Err(RejectCode::BadRecipients);
        }
        if send.payload.len() > PAYLOAD_BYTES_MAX || send.from.len() > USER_BYTES_MAX {
            return Err(RejectCode::TooLarge);
        }
        if !send.msg_id.is_v7() {
            return Err(RejectCode::IdNotV7);
        }
        let shard = self.shard_of(UserKey(keys[0]));
        if keys[1..].iter().any(|key| self.shard_of(UserKey(*key)) != shard) {
            return Err(RejectCode::BadRecipients);
        }
        if !self.is_here(shard) {
            return Err(RejectCode::WrongShard);
        }
        Ok(shard)
    }

    /// The id is in. If its record may not be durable yet, the answer waits for all messages appended by now.
    fn answer_duplicate(
        &mut self,
        fx: &mut impl Effects,
        send: &SendRequest<'_>,
    ) -> Result<(), RejectCode> {
        if self.last_msg_lsn > self.durable_lsn && !sabotage::is(Sabotage::RetryAnswered) {
            if self.pending.len() >= self.config.pending_max {
                return Err(RejectCode::Overloaded);
            }
            let answer = Some((send.conn, send.seq));
            let (lsn, shard) = (self.last_msg_lsn, ShardId(0));
            self.pending.push_back(Pending { lsn, answer, user: NIL, shard, seq: 0 });
        } else {
            fx.accepted(send.conn, send.seq, self.copies);
        }
        self.counters.duplicates += 1;
        Ok(())
    }

    /// A receipt for the inbox of who sent a message: a MSG record with [`IS_RECEIPT`], the reader as its sender and the
    /// message's id. Nobody waits for an answer, so it is dropped and counted where a SEND would be refused. It is not
    /// admitted by id: the message may be older than the window, and a TOMB gives out its receipt once.
    pub fn handle_receipt(&mut self, fx: &mut impl Effects, now_ms: u64, receipt: &Receipt<'_>) {
        let now = self.advance(now_ms);
        let shard = self.shard_of(receipt.to);
        let draft = Draft {
            shard,
            sender: receipt.reader,
            from: receipt.reader_name,
            msg_id: receipt.msg_id,
            flags: IS_RECEIPT,
            payload: &[],
        };
        let is_fit = self.is_here(shard) && receipt.reader_name.len() <= USER_BYTES_MAX;
        if !is_fit || self.append(fx, now, &draft, &receipt.to.0, None).is_err() {
            self.counters.receipts_dropped += 1;
        }
    }

    /// Returns the record's place in our stream of the shard.
    fn append(
        &mut self,
        fx: &mut impl Effects,
        now: u64,
        draft: &Draft<'_>,
        recipients: &[u8],
        answer: Option<(ConnId, u32)>,
    ) -> Result<u64, RejectCode> {
        let mut unique = std::mem::take(&mut self.scratch.recipients);
        let recipients = match recipients.len() {
            16 => recipients,
            _ => {
                self.sort_out(recipients, &mut unique);
                &unique
            }
        };
        let appended = self.append_to(fx, now, draft, recipients, answer);
        self.scratch.recipients = unique;
        appended
    }

    /// Writes each recipient once.
    fn sort_out(&mut self, recipients: &[u8], unique: &mut Vec<u8>) {
        let keys = &mut self.scratch.keys;
        keys.clear();
        keys.extend(recipients.as_chunks().0.iter().map(|key| UserKey(*key)));
        keys.sort_unstable();
        keys.dedup();
        unique.clear();
        keys.iter().for_each(|key| unique.extend_from_slice(&key.0));
    }

    fn append_to(
        &mut self,
        fx: &mut impl Effects,
        now: u64,
        draft: &Draft<'_>,
        recipients: &[u8],
        answer: Option<(ConnId, u32)>,
    ) -> Result<u64, RejectCode> {
        let keys = recipients.as_chunks::<16>().0;
        self.make_sure_of_room(fx, now, keys)?;
        let seq = self.shards[usize::from(draft.shard.0)].next_seq;
        assert!(seq < SEQ_END, "a stream has fewer than 2^48 records");
        let hlc = self.hlc.tick(now);
        let appended = fx.append_msg(&MsgRecord {
            shard: draft.shard,
            dot: Dot { origin: self.config.origin, seq },
            hlc,
            sender: draft.sender,
            from: draft.from,
            msg_id: draft.msg_id,
            flags: draft.flags,
            recipients,
            payload: draft.payload,
        })?;
        self.shards[usize::from(draft.shard.0)].next_seq += 1;
        self.note_lsn(&appended);
        self.last_msg_lsn = appended.lsn;
        self.ages.note(Origins::OWN, draft.shard, seq, hlc.unix_ms());
        let wants_receipt = draft.flags & WANTS_RECEIPT != 0;
        let Appended { pos, len, .. } = appended;
        let entry = Entry::new(pos, len, Origins::OWN, seq, wants_receipt, keys.len());
        if self.has_waiting(draft.shard) {
            self.wait_with_foreign(draft.shard, &entry, &appended, keys);
            let (lsn, shard) = (appended.lsn, draft.shard);
            self.pending.push_back(Pending { lsn, answer, user: NIL, shard, seq });
            return Ok(seq);
        }
        let mut answer = answer;
        for (index, key) in keys.iter().enumerate() {
            let user = match self.scratch.found[index] {
                (hash, NIL) => self.users.insert_hashed(hash, UserKey(*key)),
                (_, user) => user,
            };
            inbox::push(&mut self.entries, &mut self.users[user], user, entry);
            self.inbox_bytes += u64::from(entry.charge());
            let (lsn, shard, answer) = (appended.lsn, draft.shard, answer.take());
            self.pending.push_back(Pending { lsn, answer, user, shard, seq });
        }
        Ok(seq)
    }
}
