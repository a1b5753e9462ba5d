//! The sending half of one user: frames from a template, the window, and when each message was meant and made.
//!
//! A connection that ends leaves messages without an answer. They are sent again with their ids on the next one, in the
//! old order and before anything new (docs/PROTOCOL.md, section 5). A message keeps its number; each SEND of it has a
//! number of its connection.

use crate::client::{Number, Template, template};
use crate::names::{Topology, user_name};
use crate::payload::{HEAD_BYTES, Head, filled};
use crate::protocol::Protocol;
use crate::ranges::Ranges;
use iris_proto::id::MsgId;
use iris_proto::wire::HEADER_BYTES;
use std::collections::VecDeque;

const SEQ_AT: usize = HEADER_BYTES;
const ID_AT: usize = SEQ_AT + 4;
/// MQTT's packet identifiers are 1 to 65,535; a message takes the next one.
const PACKET_IDS: u32 = 65_535;

/// When a message was to be sent and when it was, nanoseconds since the run began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// The schedule's time.
    pub intended_ns: u64,
    /// The real time of the first SEND.
    pub sent_ns: u64,
}

/// A message without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// When it was to be sent and when it was.
    pub times: Times,
    /// Its number among the user's messages, from 0.
    pub number: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct InFlight {
    message: Sent,
    waits: bool,
}

/// Sends one user's messages.
#[derive(Debug)]
pub struct Sender {
    /// Whole frames, one for each group of recipients; number, id and payload head are written over for each message.
    templates: Box<[Template]>,
    user: u32,
    run: u32,
    /// Messages made so far; the next one's number.
    sent: u32,
    /// The next SEND's number in this connection.
    next_seq: u32,
    /// Every SEND below is answered.
    oldest: u32,
    unanswered: u32,
    /// A power of two, so that a number finds its place by a mask.
    in_flight: Box<[InFlight]>,
    /// Messages that an ended connection left without an answer, oldest first.
    again: VecDeque<Sent>,
    /// 0 before the login.
    window: u32,
    refused: Ranges,
    /// The server asked to hold back until then.
    resume_ns: u64,
}

impl Sender {
    /// A sender for `user`, before its login.
    pub fn new(
        protocol: Protocol,
        run: u32,
        user: u32,
        topology: Topology,
        payload_bytes: usize,
    ) -> Self {
        let templates = (0..topology.groups()).map(|group| {
            let to: Vec<String> =
                topology.recipients(user, group).map(|to| user_name(run, to)).collect();
            let to: Vec<&str> = to.iter().map(String::as_str).collect();
            template(protocol, &user_name(run, user), &to, &filled(payload_bytes))
        });
        Self {
            templates: templates.collect(),
            user,
            run,
            sent: 0,
            next_seq: 0,
            oldest: 0,
            unanswered: 0,
            in_flight: Box::default(),
            again: VecDeque::new(),
            window: 0,
            refused: Ranges::default(),
            resume_ns: 0,
        }
    }

    /// A login: allows this many unanswered messages from now on.
    pub fn open(&mut self, window: u32) {
        assert!(self.window == 0 && self.unanswered == 0, "a connection has one login");
        self.window = window;
        let places = window.max(1).next_power_of_two() as usize;
        if self.in_flight.len() != places {
            self.in_flight = vec![InFlight::default(); places].into();
        }
    }

    /// The connection has ended: what has no answer is to be sent again in the next one.
    pub fn leave(&mut self) {
        let older = std::mem::take(&mut self.again);
        for seq in self.oldest..self.next_seq {
            let slot = self.slot(seq);
            if std::mem::take(&mut slot.waits) {
                let message = slot.message;
                self.again.push_back(message);
            }
        }
        // What was sent again in this connection is older than what still waits for that.
        self.again.extend(older);
        (self.next_seq, self.oldest, self.unanswered, self.window) = (0, 0, 0, 0);
    }

    /// Messages made so far.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// SENDs of this connection without an answer.
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Whether a new message may be sent now.
    pub fn may_send(&self, now_ns: u64) -> bool {
        self.again.is_empty() && self.has_room() && self.sent < u32::MAX && now_ns >= self.resume_ns
    }

    /// Answers may come in any order, so the span of numbers is bounded, too; and a connection sends 2^32 - 1 messages at
    /// most, so that no number comes twice.
    fn has_room(&self) -> bool {
        self.unanswered < self.window
            && self.next_seq < u32::MAX
            && self.next_seq - self.oldest < self.in_flight.len() as u32
    }

    /// When the server's wish to hold back ends.
    pub fn resume_ns(&self) -> u64 {
        self.resume_ns
    }

    /// Appends a new message. `unix_offset_ms` is the server's clock less ours; the time it gives does not go back, so ids
    /// increase (RFC 9562, section 6.2, method 1).
    pub fn send(&mut self, times: Times, unix_offset_ms: u64, out: &mut Vec<u8>) {
        let message = Sent { times, number: self.sent };
        self.sent += 1;
        self.put(message, unix_offset_ms, out);
    }

    /// Appends SENDs of what an ended connection left, as far as the window allows; how many.
    pub fn send_again(&mut self, unix_offset_ms: u64, out: &mut Vec<u8>) -> u64 {
        let mut count = 0;
        while self.has_room()
            && let Some(message) = self.again.pop_front()
        {
            self.put(message, unix_offset_ms, out);
            count += 1;
        }
        count
    }

    fn put(&mut self, message: Sent, unix_offset_ms: u64, out: &mut Vec<u8>) {
        let Sent { times, number } = message;
        let seq = self.next_seq;
        let template = &mut self.templates[number as usize % self.templates.len()];
        let (bytes, payload_at) = (&mut template.bytes, template.payload_at);
        match template.number {
            Number::Iris => {
                let of_user = u128::from(self.user ^ self.run.rotate_left(8));
                let unix_ms = times.sent_ns / 1_000_000 + unix_offset_ms;
                let id = MsgId::v7(unix_ms, u128::from(number) << 32 | of_user);
                bytes[SEQ_AT..ID_AT].copy_from_slice(&seq.to_le_bytes());
                bytes[ID_AT..ID_AT + 16].copy_from_slice(&id.0.to_be_bytes());
            }
            Number::PacketId { at } => {
                let id = (seq % PACKET_IDS + 1) as u16;
                bytes[at..at + 2].copy_from_slice(&id.to_be_bytes());
            }
            Number::ReplyTo { at } => put_hex(&mut bytes[at..at + 8], seq),
            Number::Unanswered => {}
        }
        Head { run: self.run, sender: self.user, seq: number, intended_ns: times.intended_ns }
            .write(&mut bytes[payload_at..payload_at + HEAD_BYTES]);
        out.extend_from_slice(bytes);
        *self.slot(seq) = InFlight { message, waits: true };
        self.next_seq += 1;
        self.unanswered += 1;
    }

    fn slot(&mut self, seq: u32) -> &mut InFlight {
        let mask = self.in_flight.len() - 1;
        &mut self.in_flight[seq as usize & mask]
    }

    /// Takes the answer that names this number; `None` if no message waits for it.
    pub fn answered(&mut self, number: u32) -> Option<Sent> {
        self.through(self.seq_of(number)?)
    }

    /// The message of this connection that an answer means: the first one with this number that is not below the oldest
    /// without an answer.
    fn seq_of(&self, number: u32) -> Option<u32> {
        match self.templates[0].number {
            Number::Iris | Number::ReplyTo { .. } => Some(number),
            Number::PacketId { .. } => {
                let ahead = number.checked_sub(1)? + PACKET_IDS - self.oldest % PACKET_IDS;
                self.oldest.checked_add(ahead % PACKET_IDS)
            }
            Number::Unanswered => None,
        }
    }

    fn through(&mut self, seq: u32) -> Option<Sent> {
        if seq.wrapping_sub(self.oldest) >= self.next_seq - self.oldest {
            return None;
        }
        let slot = self.slot(seq);
        if !std::mem::take(&mut slot.waits) {
            return None;
        }
        let message = slot.message;
        self.unanswered -= 1;
        while self.oldest != self.next_seq && !self.slot(self.oldest).waits {
            self.oldest += 1;
        }
        Some(message)
    }

    /// Takes a refusal, and holds back until `resume_ns`; whether a message waited for this number.
    pub fn refused(&mut self, number: u32, resume_ns: u64) -> bool {
        let Some(Sent { number, .. }) = self.answered(number) else { return false };
        self.refused.insert(number, number + 1);
        self.resume_ns = self.resume_ns.max(resume_ns);
        true
    }

    /// A message has arrived that nothing else answers: it and those before it, lost ones too, wait no longer.
    pub fn arrived(&mut self, seq: u32) {
        while self.oldest <= seq && self.oldest < self.next_seq {
            self.through(self.oldest);
        }
    }

    /// The numbers of all messages that were refused or have no answer; none if nothing answers, since then all count that
    /// were sent.
    pub fn not_accepted(&mut self) -> Ranges {
        if self.templates[0].number == Number::Unanswered {
            return Ranges::default();
        }
        let mut all = self.refused.clone();
        self.leave();
        self.again.iter().for_each(|message| all.insert(message.number, message.number + 1));
        all
    }
}

/// Eight hexadecimal digits.
fn put_hex(out: &mut [u8], number: u32) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (place, digit) in out.iter_mut().rev().enumerate() {
        *digit = DIGITS[(number >> (4 * place)) as usize & 0xf];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Name;
    use iris_proto::wire::{ClientFrame, split_frame};
    use mqtt_proto::v3;

    fn sender(window: u32) -> Sender {
        sender_of(Protocol::Iris, window)
    }

    fn sender_of(protocol: Protocol, window: u32) -> Sender {
        let mut sender = Sender::new(protocol, 0xabc, 0, Topology::Pairs(2), 64);
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
        let times = Times { intended_ns: 7, sent_ns: 8 };
        assert_eq!(sender.answered(0), Some(Sent { times, number: 0 }));
        assert_eq!(sender.answered(0), None);
        assert!(!sender.refused(0, 0));
    }

    #[test]
    fn packet_identifiers_start_over_and_name_the_right_message() {
        let protocol = Protocol::new(Name::Mqtt, None, false).unwrap();
        let mut sender = sender_of(protocol, 4);
        for seq in 0..140_000u32 {
            let bytes = send(&mut sender, u64::from(seq));
            let Ok(Some(v3::Packet::Publish(publish))) = v3::Packet::decode(&bytes) else {
                panic!("not a PUBLISH")
            };
            let id = publish.qos_pid.pid().unwrap().value();
            assert_eq!(&publish.topic_name[..], "lg-000abc-00000001");
            assert_eq!(Head::read(&publish.payload).unwrap().seq, seq);
            // Answers come one late.
            if let Some(before) = seq.checked_sub(1) {
                let of_before = if id == 1 { PACKET_IDS } else { u32::from(id) - 1 };
                assert_eq!(
                    sender.answered(of_before).unwrap().times.intended_ns,
                    u64::from(before)
                );
                assert_eq!(sender.answered(of_before), None);
            }
            assert!(sender.may_send(0) && sender.unanswered() <= 1);
        }
        assert_eq!(sender.answered(0), None, "there is no packet 0");
        assert_eq!(sender.answered(70_000), None);
    }

    #[test]
    fn an_answer_of_a_stream_is_named_by_where_it_goes() {
        let mut sender = sender_of(Protocol::Jetstream, 4);
        for seq in 0..300u32 {
            let text = String::from_utf8_lossy(&send(&mut sender, 1)).into_owned();
            let line = text.split("\r\n").next().unwrap();
            let expected = format!("PUB lg.lg-000abc-00000001 _r.lg-000abc-00000000.{seq:08x} 64");
            assert_eq!(line, expected);
            assert_eq!(sender.answered(seq).unwrap().number, seq);
        }
        assert_eq!(sender.answered(7), None);
    }

    #[test]
    fn what_nothing_answers_waits_until_it_or_a_later_one_has_arrived() {
        let mut sender = sender_of(Protocol::Nats, 3);
        (0..3).for_each(|_| drop(send(&mut sender, 1)));
        assert!(!sender.may_send(9));
        assert_eq!(sender.answered(0), None);
        sender.arrived(1);
        assert_eq!(sender.unanswered(), 1, "0 is through or lost");
        sender.arrived(1);
        sender.arrived(7);
        assert_eq!(sender.unanswered(), 0, "what was never sent frees nothing more");
        assert_eq!(sender.not_accepted(), Ranges::default());
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

    fn decoded(mut bytes: &[u8]) -> Vec<(u32, MsgId, u32)> {
        let mut all = Vec::new();
        while let Some((kind, body, rest)) = split_frame(bytes).unwrap() {
            let ClientFrame::Send(frame) = ClientFrame::decode(kind, body).unwrap() else {
                panic!("not a SEND")
            };
            all.push((frame.seq, frame.id, Head::read(frame.payload).unwrap().seq));
            bytes = rest;
        }
        all
    }

    #[test]
    fn what_an_ended_connection_left_is_sent_again_in_order_under_its_ids_before_anything_new() {
        let mut sender = sender(8);
        let first: Vec<_> = (0..5).flat_map(|at| decoded(&send(&mut sender, at))).collect();
        assert!(sender.answered(1).is_some() && sender.answered(3).is_some());
        sender.leave();
        assert!(!sender.may_send(9), "it is away");
        sender.open(2);
        assert!(!sender.may_send(9), "the old ones come first");
        let mut out = Vec::new();
        assert_eq!(sender.send_again(1_700_000_000_000, &mut out), 2, "as the window allows");
        assert_eq!(decoded(&out), [(0, first[0].1, 0), (1, first[2].1, 2)]);
        // Cut once more: 0 was answered, 2 was not, and 4 was not even sent again.
        assert_eq!(sender.answered(0).unwrap().number, 0);
        sender.leave();
        sender.open(8);
        out.clear();
        sender.send_again(1_700_000_000_000, &mut out);
        assert_eq!(decoded(&out), [(0, first[2].1, 2), (1, first[4].1, 4)]);
        assert!(sender.may_send(9));
        assert_eq!(decoded(&send(&mut sender, 9))[0].2, 5);
        let mut expected = Ranges::default();
        [2, 4, 5].iter().for_each(|number| expected.insert(*number, *number + 1));
        assert_eq!(sender.not_accepted(), expected);
    }

    #[test]
    fn a_message_to_many_goes_to_each_group_of_recipients_in_turn() {
        let topology = Topology::FanOut { senders: 1, recipients: 5, each: 2 };
        let mut sender = Sender::new(Protocol::Iris, 0xabc, 0, topology, 64);
        sender.open(8);
        let to = |bytes: Vec<u8>| {
            let (kind, body, _) = split_frame(&bytes).unwrap().unwrap();
            let ClientFrame::Send(frame) = ClientFrame::decode(kind, body).unwrap() else {
                panic!("not a SEND")
            };
            frame.to.iter().map(|name| name[10..].parse().unwrap()).collect::<Vec<u32>>()
        };
        let all: Vec<Vec<u32>> = (0..4).map(|at| to(send(&mut sender, at))).collect();
        assert_eq!(all, [vec![1, 2], vec![3, 4], vec![5], vec![1, 2]]);
    }
}
