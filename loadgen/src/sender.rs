//! The sending half of one connection: frames from a template, the window, and when each message was meant and made.

use crate::names::{Topology, user_name};
use crate::payload::{HEAD_BYTES, Head, filled};
use crate::ranges::Ranges;
use iris_proto::id::MsgId;
use iris_proto::wire::{HEADER_BYTES, put_send};

const SEQ_AT: usize = HEADER_BYTES;
const ID_AT: usize = SEQ_AT + 4;

/// When a message was to be sent and when it was, nanoseconds since the run began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// The schedule's time.
    pub intended_ns: u64,
    /// The real time.
    pub sent_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct InFlight {
    times: Times,
    waits: bool,
}

/// Sends one user's messages to one inbox.
#[derive(Debug)]
pub struct Sender {
    /// A whole SEND frame; number, id and payload head are written over for each message.
    template: Vec<u8>,
    payload_at: usize,
    user: u32,
    run: u32,
    /// Messages made so far; the next SEND's number.
    sent: u32,
    /// Every number below is answered.
    oldest: u32,
    unanswered: u32,
    /// A power of two, so that a number finds its place by a mask.
    in_flight: Box<[InFlight]>,
    window: u32,
    refused: Ranges,
    /// The server asked to hold back until then.
    resume_ns: u64,
}

impl Sender {
    /// A sender for `user`, before its login.
    pub fn new(run: u32, user: u32, topology: Topology, payload_bytes: usize) -> Self {
        let mut template = Vec::new();
        let to = user_name(run, topology.recipient_of(user));
        put_send(&mut template, 0, MsgId::default(), 0, &[&to], &filled(payload_bytes));
        let payload_at = template.len() - payload_bytes;
        Self {
            template,
            payload_at,
            user,
            run,
            sent: 0,
            oldest: 0,
            unanswered: 0,
            in_flight: Box::default(),
            window: 0,
            refused: Ranges::default(),
            resume_ns: 0,
        }
    }

    /// Allows this many unanswered messages from now on; called once, at the login.
    pub fn open(&mut self, window: u32) {
        assert!(self.sent == 0, "a connection has one login");
        self.window = window;
        self.in_flight =
            vec![InFlight::default(); window.max(1).next_power_of_two() as usize].into();
    }

    /// Messages made so far.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// Messages without an answer.
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Whether a message may be sent now. Answers may come in any order, so the span of numbers is bounded, too; and a
    /// connection sends 2^32 - 1 messages at most, so that no number comes twice.
    pub fn may_send(&self, now_ns: u64) -> bool {
        self.unanswered < self.window
            && self.sent < u32::MAX
            && self.sent.wrapping_sub(self.oldest) < self.in_flight.len() as u32
            && now_ns >= self.resume_ns
    }

    /// When the server's wish to hold back ends.
    pub fn resume_ns(&self) -> u64 {
        self.resume_ns
    }

    /// Appends the next SEND. `unix_ms` does not go back, so ids increase (RFC 9562, section 6.2, method 1).
    pub fn send(&mut self, times: Times, unix_ms: u64, out: &mut Vec<u8>) {
        let seq = self.sent;
        let counter = u128::from(seq) << 32 | u128::from(self.user ^ self.run.rotate_left(8));
        let id = MsgId::v7(unix_ms, counter);
        self.template[SEQ_AT..ID_AT].copy_from_slice(&seq.to_le_bytes());
        self.template[ID_AT..ID_AT + 16].copy_from_slice(&id.0.to_be_bytes());
        Head { run: self.run, sender: self.user, seq, intended_ns: times.intended_ns }
            .write(&mut self.template[self.payload_at..self.payload_at + HEAD_BYTES]);
        out.extend_from_slice(&self.template);
        *self.slot(seq) = InFlight { times, waits: true };
        self.sent += 1;
        self.unanswered += 1;
    }

    fn slot(&mut self, seq: u32) -> &mut InFlight {
        let mask = self.in_flight.len() - 1;
        &mut self.in_flight[seq as usize & mask]
    }

    /// Takes an answer; `None` if this number waits for none.
    pub fn answered(&mut self, seq: u32) -> Option<Times> {
        if seq.wrapping_sub(self.oldest) >= self.sent.wrapping_sub(self.oldest) {
            return None;
        }
        let slot = self.slot(seq);
        if !std::mem::take(&mut slot.waits) {
            return None;
        }
        let times = slot.times;
        self.unanswered -= 1;
        while self.oldest != self.sent && !self.slot(self.oldest).waits {
            self.oldest += 1;
        }
        Some(times)
    }

    /// Takes a refusal, and holds back until `resume_ns`; whether this number waited for an answer.
    pub fn refused(&mut self, seq: u32, resume_ns: u64) -> bool {
        let known = self.answered(seq).is_some();
        if known {
            self.refused.insert(seq, seq + 1);
            self.resume_ns = self.resume_ns.max(resume_ns);
        }
        known
    }

    /// All messages that were refused or have no answer.
    pub fn not_accepted(&mut self) -> Ranges {
        let mut all = self.refused.clone();
        for seq in self.oldest..self.sent {
            if self.slot(seq).waits {
                all.insert(seq, seq + 1);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iris_proto::wire::{ClientFrame, split_frame};

    fn sender(window: u32) -> Sender {
        let mut sender = Sender::new(0xabc, 0, Topology::Pairs(2), 64);
        sender.open(window);
        sender
    }

    fn send(sender: &mut Sender, at: u64) -> Vec<u8> {
        let mut out = Vec::new();
        sender.send(Times { intended_ns: at, sent_ns: at + 1 }, 1_700_000_000_000, &mut out);
        out
    }

    #[test]
    fn frames_are_valid_and_ids_increase_under_one_time() {
        let mut sender = sender(256);
        let mut last = MsgId::default();
        for seq in 0..200 {
            let bytes = send(&mut sender, 5);
            let (kind, body, rest) = split_frame(&bytes).unwrap().unwrap();
            let ClientFrame::Send(frame) = ClientFrame::decode(kind, body).unwrap() else {
                panic!("not a SEND")
            };
            assert!(rest.is_empty() && frame.seq == seq && frame.id.is_v7() && frame.id > last);
            assert_eq!(frame.to.iter().collect::<Vec<_>>(), ["lg-000abc-00000001"]);
            let head = Head::read(frame.payload).unwrap();
            assert_eq!(head, Head { run: 0xabc, sender: 0, seq, intended_ns: 5 });
            assert_eq!(frame.payload[HEAD_BYTES..], filled(64)[HEAD_BYTES..]);
            last = frame.id;
        }
    }

    #[test]
    fn the_window_and_the_span_of_numbers_are_kept() {
        let mut sender = sender(4);
        (0..4).for_each(|_| drop(send(&mut sender, 1)));
        assert!(!sender.may_send(9));
        assert!(sender.answered(3).is_some() && sender.answered(1).is_some());
        assert!(!sender.may_send(9), "number 0 still waits, so number 4 would take its place");
        assert!(sender.answered(0).is_some());
        assert!(sender.may_send(9));
        assert_eq!(sender.unanswered(), 1);
    }

    #[test]
    fn only_what_waits_can_be_answered_and_only_once() {
        let mut sender = sender(4);
        drop(send(&mut sender, 7));
        assert_eq!(sender.answered(1), None);
        assert_eq!(sender.answered(u32::MAX), None);
        assert_eq!(sender.answered(0), Some(Times { intended_ns: 7, sent_ns: 8 }));
        assert_eq!(sender.answered(0), None);
        assert!(!sender.refused(0, 0));
    }

    #[test]
    fn refused_and_unanswered_messages_are_not_accepted_and_a_refusal_holds_back() {
        let mut sender = sender(8);
        (0..6).for_each(|_| drop(send(&mut sender, 1)));
        for seq in [0, 2, 3] {
            assert!(sender.answered(seq).is_some());
        }
        assert!(sender.refused(1, 1000));
        assert!(!sender.may_send(999) && sender.may_send(1000));
        let mut expected = Ranges::default();
        expected.insert(1, 2);
        expected.insert(4, 6);
        assert_eq!(sender.not_accepted(), expected);
    }
}
