//! Links inside one process: batches over bounded queues, one wake a batch.
//!
//! The sending half gathers frames in one buffer until its thread's turn ends, so a batch is whatever a turn brought. A
//! full queue never blocks: the buffer goes on growing, its size is told ([`Outbox::backlog_bytes`]) and the owner
//! refuses further work by name when it is too much (I7).

mod far;

pub use far::{Attachment, Links};

use crate::queue::Queue;
use crate::rt::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that an outbox makes room for before it knows what its next batch holds.
const ROOM_MAX: usize = 128 << 10;

/// Frames of `iris_proto::link`, one after the other.
#[derive(Debug)]
pub struct Batch {
    /// Which reactor or partition sent it.
    pub from: u16,
    /// The frames.
    pub bytes: Vec<u8>,
}

/// The sending half of a link.
#[derive(Debug)]
pub struct Outbox {
    from: u16,
    queue: Queue<Batch>,
    receiver: Waker,
    starved: Arc<AtomicBool>,
    pending: Vec<u8>,
    frames: u64,
}

/// What arrives at a thread, from any number of links.
#[derive(Debug)]
pub struct Inbox {
    queue: Queue<Batch>,
    senders: Vec<(Waker, Arc<AtomicBool>)>,
}

/// Makes the links into one thread: an outbox for each of `senders` (its number and waker), and the inbox. The queue
/// holds `batches_max`.
pub fn links_into(
    receiver: &Waker,
    senders: &[(u16, Waker)],
    batches_max: usize,
) -> (Vec<Outbox>, Inbox) {
    let queue = Queue::bounded(batches_max);
    let starved: Vec<_> = senders
        .iter()
        .map(|(_, waker)| (waker.clone(), Arc::new(AtomicBool::new(false))))
        .collect();
    let outboxes = senders
        .iter()
        .zip(&starved)
        .map(|((from, _), (_, starved))| Outbox {
            from: *from,
            queue: queue.clone(),
            receiver: receiver.clone(),
            starved: Arc::clone(starved),
            pending: Vec::new(),
            frames: 0,
        })
        .collect();
    (outboxes, Inbox { queue, senders: starved })
}

impl Outbox {
    /// Where one frame is written.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.frames += 1;
        &mut self.pending
    }

    /// Writes a whole frame that has its own memory: handed over as it is, unless others wait before it. Each takes a place
    /// of the queue, so a queue that fills up gets them together.
    pub fn give(&mut self, frame: Vec<u8>) {
        let may_flush = !self.queue.is_filling();
        if may_flush {
            self.flush();
        }
        let buffer = self.buffer();
        if buffer.is_empty() {
            *buffer = frame;
        } else {
            buffer.extend_from_slice(&frame);
        }
        if may_flush {
            self.flush();
        }
    }

    /// Bytes written and not handed over yet.
    pub fn backlog_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Hands over what was written, if there is anything and there is room. Tells how many frames that was. When there is
    /// no room, the receiver wakes this thread once there is.
    pub fn flush(&mut self) -> Option<u64> {
        if self.pending.is_empty() {
            return None;
        }
        // The next batch will be about as long: it does not grow to that by copies.
        let next = Vec::with_capacity(self.pending.len().min(ROOM_MAX));
        let bytes = std::mem::replace(&mut self.pending, next);
        let mut batch = Batch { from: self.from, bytes };
        for attempt in 0..2 {
            match self.queue.push(batch) {
                Ok(()) => {
                    self.receiver.wake();
                    return Some(std::mem::take(&mut self.frames));
                }
                Err(back) => batch = back,
            }
            // Between the attempts, so that a receiver that makes room after the second one sees it.
            if attempt == 0 {
                self.starved.store(true, Ordering::SeqCst);
            }
        }
        self.pending = batch.bytes;
        None
    }

    /// Gives the link up: nothing more is taken, what waits here is dropped, and the receiver sees [`Inbox::is_cut_off`].
    pub fn cut_off(&mut self) {
        self.queue.close();
        self.pending = Vec::new();
        self.frames = 0;
        self.receiver.wake();
    }

    /// Whether this thread may sleep: nothing is left, or there is no room and the receiver will wake it.
    pub fn may_sleep(&self) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        self.starved.store(true, Ordering::SeqCst);
        self.queue.is_full()
    }
}

impl Inbox {
    /// The next batch.
    pub fn receive(&self) -> Option<Batch> {
        let batch = self.queue.pop()?;
        for (waker, starved) in &self.senders {
            if starved.load(Ordering::Relaxed) && starved.swap(false, Ordering::SeqCst) {
                waker.wake();
            }
        }
        Some(batch)
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether a sender has given the link up.
    pub fn is_cut_off(&self) -> bool {
        self.queue.is_closed()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_is_given_moves_and_a_queue_that_fills_gets_them_together() {
        let (here, there) = (Waker::of_parking(), Waker::of_parking());
        let (mut outboxes, inbox) = links_into(&there, &[(3, here)], 4);
        let outbox = &mut outboxes[0];
        outbox.buffer().extend_from_slice(b"a");
        let frame = b"bc".to_vec();
        let place = frame.as_ptr();
        outbox.give(frame);
        for frame in [b"d", b"e", b"f"] {
            outbox.give(frame.to_vec());
        }
        assert_eq!(outbox.backlog_bytes(), 3);
        assert_eq!(inbox.receive().unwrap().bytes, b"a");
        let moved = inbox.receive().unwrap().bytes;
        assert_eq!((moved.as_slice(), moved.as_ptr()), (b"bc".as_slice(), place));
        outbox.flush();
        assert_eq!(inbox.receive().unwrap().bytes, b"def");
    }

    #[test]
    fn a_full_queue_keeps_the_frames_and_says_how_many() {
        let (here, there) = (Waker::of_parking(), Waker::of_parking());
        let (mut outboxes, inbox) = links_into(&there, &[(3, here)], 1);
        let outbox = &mut outboxes[0];
        outbox.buffer().extend_from_slice(b"one");
        assert_eq!(outbox.flush(), Some(1));
        outbox.buffer().extend_from_slice(b"two");
        assert_eq!(outbox.flush(), None);
        outbox.buffer().extend_from_slice(b"three");
        assert_eq!(outbox.backlog_bytes(), 8);
        let batch = inbox.receive().unwrap();
        assert_eq!((batch.from, batch.bytes.as_slice()), (3, b"one".as_slice()));
        assert_eq!(outbox.flush(), Some(2));
        assert_eq!(inbox.receive().unwrap().bytes, b"twothree");
        assert!(inbox.is_empty());
    }
}
