//! Rebuilds inboxes and dedup tables from records in any order.
//!
//! Records are only collected, in a list per inbox, until all are in. Then each inbox is sorted by dot: a dot with a
//! TOMB is dead, wherever the TOMB stood; otherwise its records are copies of one message, and the one with the highest
//! position is kept. What is left is sorted by time. So the result is a function of the set (I4).

use std::collections::BTreeMap;

use super::Core;
use super::effects::{Effects, IS_RECEIPT, Pos, WANTS_RECEIPT};
use super::inbox::{self, Entry, LEN_END, Origins, SEQ_END};
use super::slab::NIL;
use crate::hlc::Hlc;
use crate::id::{Dot, MsgId, ShardId, UserKey};
use crate::sabotage::{self, Sabotage};

/// A MSG record (or a copy of one) as the log's index gives it.
#[derive(Clone, Copy, Debug)]
pub struct RecoveredMsg<'a> {
    /// Its shard.
    pub shard: ShardId,
    /// Its identity.
    pub dot: Dot,
    /// When it was accepted.
    pub hlc: Hlc,
    /// Where it is.
    pub pos: Pos,
    /// Bytes of the whole record.
    pub len: u32,
    /// Who sent it.
    pub sender: UserKey,
    /// The sender's id for it.
    pub msg_id: MsgId,
    /// [`WANTS_RECEIPT`](super::WANTS_RECEIPT), [`IS_RECEIPT`].
    pub flags: u16,
    /// 16 bytes for each recipient.
    pub recipients: &'a [u8],
}

/// A TOMB record as the log gives it, without its targets.
#[derive(Clone, Copy, Debug)]
pub struct RecoveredTomb {
    /// Its shard.
    pub shard: ShardId,
    /// Its identity.
    pub dot: Dot,
    /// When it was made.
    pub hlc: Hlc,
    /// Where it is.
    pub pos: Pos,
    /// Whose inbox.
    pub inbox: UserKey,
    /// Whether its reason is [`TombReason::Collapsed`](super::TombReason::Collapsed).
    pub collapsed: bool,
}

/// A record whose checksum is right and whose contents cannot be ours. Nothing of it was taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadRecord {
    /// Its shard does not exist or is not here.
    Shard,
    /// Its sequence number is 0 or 2^48 or more.
    Seq,
    /// Its length is 2^20 or more.
    Len,
    /// Its recipients are none, not whole, or of another shard.
    Recipients,
    /// The log holds records of more than 2^16 lives of nodes.
    Origins,
    /// A DEDUP body of an unknown version, cut short, or with lengths that do not fit.
    Dedup,
}

impl std::fmt::Display for BadRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Shard => "its shard is not one of this partition",
            Self::Seq => "its sequence number is out of range",
            Self::Len => "its length is out of range",
            Self::Recipients => "its recipients are none, not whole or of another shard",
            Self::Origins => "the log names more than 65536 lives of nodes",
            Self::Dedup => "its dedup state is of an unknown version or does not fit its length",
        })
    }
}

impl std::error::Error for BadRecord {}

const TOMB: u32 = 1 << 31;
const RECEIPT: u32 = 1 << 30;
const COLLAPSED: u32 = 1 << 29;
/// Above the length: how many inboxes the record names, less one.
const OTHERS_SHIFT: u32 = 20;

/// A record's word about one dot of one inbox.
#[derive(Clone, Copy)]
struct Item {
    pos: Pos,
    hlc: Hlc,
    /// The sequence number, then the origin's number in the low 16 bits.
    dot: u64,
    next: u32,
    len_and_flags: u32,
}

const _: () = assert!(size_of::<Item>() == 32);

impl Item {
    fn is_tomb(&self) -> bool {
        self.len_and_flags & TOMB != 0
    }

    fn is_done(&self) -> bool {
        self.is_tomb() && self.len_and_flags & COLLAPSED == 0
    }

    fn origin(&self) -> u16 {
        self.dot as u16
    }

    fn seq(&self) -> u64 {
        self.dot >> 16
    }

    fn entry(&self) -> Entry {
        let wants_receipt = self.len_and_flags & RECEIPT != 0;
        let recipients = (self.len_and_flags >> OTHERS_SHIFT & 0xff) as usize + 1;
        let len = self.len_and_flags & (LEN_END - 1);
        Entry::new(self.pos, len, self.origin(), self.seq(), wants_receipt, recipients)
    }
}

const CHUNK: usize = 8192;

/// What was collected so far. Users' `head` points here until recovery is done.
#[derive(Default)]
pub(super) struct Recovery {
    chunks: Vec<Vec<Item>>,
    /// Two records with the same message id, by inbox.
    doubles: BTreeMap<UserKey, Vec<(u64, u64)>>,
}

impl Recovery {
    fn push(&mut self, item: Item) -> u32 {
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.chunks.len() - 1;
        let last = &mut self.chunks[chunk];
        last.push(item);
        let slot = chunk * CHUNK + last.len() - 1;
        assert!(slot < NIL as usize, "a partition's log names fewer than 2^32 inbox entries");
        slot as u32
    }

    /// Moves the list that begins at `head` into `items`, in the order the records came.
    fn take_list(&self, head: u32, items: &mut Vec<Item>) {
        items.clear();
        let mut next = head;
        while next != NIL {
            let item = self.chunks[next as usize / CHUNK][next as usize % CHUNK];
            items.push(item);
            next = item.next;
        }
        items.reverse();
    }
}

impl Core {
    /// Takes in a MSG record or a copy.
    pub fn recover_msg(&mut self, msg: &RecoveredMsg<'_>) -> Result<(), BadRecord> {
        let (keys, rest) = msg.recipients.as_chunks::<16>();
        self.check_shard(msg.shard)?;
        if keys.is_empty()
            || !rest.is_empty()
            || keys.iter().any(|key| self.shard_of(UserKey(*key)) != msg.shard)
        {
            return Err(BadRecord::Recipients);
        }
        if msg.len >= LEN_END {
            return Err(BadRecord::Len);
        }
        let dot = self.recover_dot(msg.shard, msg.dot, msg.hlc)?;
        self.ages.note(dot as u16, msg.shard, msg.dot.seq, msg.hlc.unix_ms());
        let receipt = if msg.flags & WANTS_RECEIPT != 0 { RECEIPT } else { 0 };
        let others = (keys.len() - 1).min(0xff) as u32;
        for key in keys {
            let (pos, hlc) = (msg.pos, msg.hlc);
            let len_and_flags = msg.len | others << OTHERS_SHIFT | receipt;
            self.collect(UserKey(*key), Item { pos, hlc, dot, next: NIL, len_and_flags });
        }
        if msg.flags & IS_RECEIPT == 0
            && let Some(other) = self.dedup.take_id(msg.shard, msg.sender, msg.msg_id, dot)
        {
            let recovery = self.recovery.as_mut().expect("checked by check_shard");
            for key in keys {
                recovery.doubles.entry(UserKey(*key)).or_default().push((other, dot));
            }
        }
        Ok(())
    }

    /// Takes in a TOMB record with its targets.
    pub fn recover_tomb(
        &mut self,
        tomb: &RecoveredTomb,
        targets: impl IntoIterator<Item = Dot>,
    ) -> Result<(), BadRecord> {
        self.check_shard(tomb.shard)?;
        if self.shard_of(tomb.inbox) != tomb.shard {
            return Err(BadRecord::Recipients);
        }
        self.recover_dot(tomb.shard, tomb.dot, tomb.hlc)?;
        for target in targets {
            let dot = self.pack_dot(target)?;
            let (pos, hlc) = (tomb.pos, tomb.hlc);
            let len_and_flags = if tomb.collapsed { TOMB | COLLAPSED } else { TOMB };
            self.collect(tomb.inbox, Item { pos, hlc, dot, next: NIL, len_and_flags });
        }
        Ok(())
    }

    /// Takes in a DEDUP record.
    pub fn recover_dedup(&mut self, shard: ShardId, body: &[u8]) -> Result<(), BadRecord> {
        self.check_shard(shard)?;
        self.dedup.recover(shard, body)
    }

    /// All records are in. Builds the inboxes and tells the driver which positions are in use and which TOMBs must stay:
    /// `entry_live`, `entry_dead`, `entry_repeated`.
    pub fn recovery_done(&mut self, fx: &mut impl Effects, now_ms: u64) {
        self.recovery_done_in_pair(fx, now_ms, |_, _| false);
    }

    /// As [`Core::recovery_done`], of a node with a peer: `may_come` says whether a message that is not here, of which there
    /// is a TOMB, may still come from the peer.
    pub fn recovery_done_in_pair(
        &mut self,
        fx: &mut impl Effects,
        now_ms: u64,
        may_come: impl Fn(ShardId, Dot) -> bool,
    ) {
        let recovery = self.recovery.take().expect("recovery is done once");
        self.now = now_ms;
        let ranks = self.origins.ranks();
        let (mut items, mut kept) = (Vec::new(), Vec::new());
        for slot in 0..self.users.slots() {
            let Some(user) = self.users.live(slot) else { continue };
            recovery.take_list(user.head, &mut items);
            let doubles = recovery.doubles.get(&user.key).map_or(&[][..], Vec::as_slice);
            let inbox = user.key;
            for (first, second) in doubles {
                let said = [*first, *second].map(|dot| what_is_said(&items, dot));
                self.recovered_double(inbox, said);
            }
            for tomb in items.iter().filter(|item| item.is_tomb()) {
                let dot = self.origins.unpack(tomb.dot);
                if !tomb.is_done() {
                    self.remember_collapse(inbox, tomb.dot);
                }
                if may_come(self.shard_of(inbox), dot) {
                    self.tomb_came_first(inbox, tomb.dot, tomb.pos);
                }
            }
            let user = &mut self.users[slot];
            user.head = NIL;
            kept.clear();
            merge(&mut items, &ranks, &mut kept, fx);
            for item in &kept {
                let entry = item.entry();
                inbox::push(&mut self.entries, user, slot, entry);
                self.inbox_bytes += u64::from(entry.charge());
                fx.entry_live(item.pos, item.len_and_flags & (LEN_END - 1));
            }
            self.users.release(slot);
        }
        self.dedup.recovery_done(now_ms);
    }

    fn check_shard(&self, shard: ShardId) -> Result<(), BadRecord> {
        assert!(self.recovery.is_some(), "records come before recovery_done");
        if self.is_here(shard) { Ok(()) } else { Err(BadRecord::Shard) }
    }

    fn pack_dot(&mut self, dot: Dot) -> Result<u64, BadRecord> {
        if !(1..SEQ_END).contains(&dot.seq) {
            return Err(BadRecord::Seq);
        }
        let origin = self.origins.intern(dot.origin).ok_or(BadRecord::Origins)?;
        Ok(dot.seq << 16 | u64::from(origin))
    }

    /// Takes note of a record's own dot and time. Records of this very life can only be there if it is not new; to go on
    /// behind them keeps a dot from meaning two records.
    fn recover_dot(&mut self, shard: ShardId, dot: Dot, hlc: Hlc) -> Result<u64, BadRecord> {
        let packed = self.pack_dot(dot)?;
        if dot.origin == self.config.origin {
            let shard = &mut self.shards[usize::from(shard.0)];
            shard.next_seq = shard.next_seq.max(dot.seq + 1);
            shard.durable_seq = shard.next_seq - 1;
        }
        self.hlc.recover(hlc);
        Ok(packed)
    }

    fn collect(&mut self, inbox: UserKey, mut item: Item) {
        let slot = self.users.find_or_insert(inbox);
        let user = &mut self.users[slot];
        item.next = user.head;
        let recovery = self.recovery.as_mut().expect("checked by check_shard");
        user.head = recovery.push(item);
    }
}

/// Whether the message is live, and whether it is done, and did not just collapse into another one.
fn what_is_said(items: &[Item], dot: u64) -> (u64, bool, bool) {
    let of = || items.iter().filter(|item| item.dot == dot);
    let is_live = of().next().is_some() && !of().any(Item::is_tomb);
    (dot, is_live, of().any(Item::is_done))
}

/// Decides about the items of one inbox: what is kept, in order, goes to `kept`.
fn merge(items: &mut [Item], ranks: &[u16], kept: &mut Vec<Item>, fx: &mut impl Effects) {
    let rank = |item: &Item| ranks[usize::from(item.origin())];
    items.sort_by_key(|item| (rank(item), item.seq(), item.is_tomb(), item.pos));
    for same in items.chunk_by(|a, b| a.dot == b.dot) {
        let msgs = &same[..same.partition_point(|item| !item.is_tomb())];
        let Some(last) = msgs.last() else { continue };
        let tomb = same.last().filter(|item| item.is_tomb());
        if tomb.is_none() {
            kept.push(*last);
        }
        for records in msgs.chunk_by(|a, b| a.pos == b.pos) {
            match tomb {
                Some(tomb) => fx.entry_dead(records[0].pos, tomb.pos),
                None if records[0].pos != last.pos => fx.entry_repeated(last.pos, records[0].pos),
                None => {}
            }
        }
    }
    kept.sort_by_key(|item| (item.hlc, rank(item), item.seq()));
    if sabotage::is(Sabotage::OrderLost) {
        kept.reverse();
    }
}

impl Origins {
    /// The place of each number's origin in order of origin, which does not depend on who came first.
    fn ranks(&self) -> Vec<u16> {
        let mut order: Vec<u16> = (0..=self.last_number()).collect();
        order.sort_by_key(|number| self.origin(*number));
        let mut ranks = vec![0; order.len()];
        for (rank, number) in order.into_iter().enumerate() {
            ranks[usize::from(number)] = rank as u16;
        }
        ranks
    }
}
