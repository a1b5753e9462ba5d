//! The queue between threads of the data path.
//!
//! A lock around a ring buffer, and deliberately not a lock-free channel: those reserve a place first and fill it
//! afterwards, and a receiver that finds a place reserved spins until it is filled. Threads that share a CPU preempt
//! each other in between, and then the receiver spins for its whole time slice, some 4 ms, while the sender waits for
//! the CPU (`docs/decisions/0009-queues-and-turns.md` has the trace). Who finds this lock taken sleeps instead, so that
//! its holder goes on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A queue of at most `capacity` items, for any number of threads. Clones are the same queue.
#[derive(Debug)]
pub struct Queue<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    items: Mutex<VecDeque<T>>,
    /// How many there are, readable without the lock.
    len: AtomicUsize,
    capacity: usize,
    closed: AtomicBool,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Queue<T> {
    /// A queue that refuses items beyond `capacity`.
    pub fn bounded(capacity: usize) -> Self {
        Self(Arc::new(Shared {
            items: Mutex::new(VecDeque::new()),
            len: AtomicUsize::new(0),
            capacity,
            closed: AtomicBool::new(false),
        }))
    }

    /// A queue whose users bound what is under way in it themselves.
    pub fn unbounded() -> Self {
        Self::bounded(usize::MAX)
    }

    /// Puts an item at the end, or gives it back if the queue is full. What is put into a closed queue is dropped: its
    /// receiver is gone and nobody waits for an answer.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut items = self.lock();
        if self.is_closed() {
            return Ok(());
        }
        if items.len() >= self.0.capacity {
            return Err(item);
        }
        items.push_back(item);
        self.0.len.store(items.len(), Ordering::SeqCst);
        Ok(())
    }

    /// Takes the first item. Costs one load if there is none.
    pub fn pop(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let mut items = self.lock();
        let item = items.pop_front();
        self.0.len.store(items.len(), Ordering::SeqCst);
        item
    }

    /// Whether nothing is there. Who asks this before going to sleep is woken for what comes later: see
    /// [`crate::rt::Waker::sleep_in`].
    pub fn is_empty(&self) -> bool {
        self.0.len.load(Ordering::SeqCst) == 0
    }

    /// Whether an item would be refused.
    pub fn is_full(&self) -> bool {
        self.0.len.load(Ordering::SeqCst) >= self.0.capacity
    }

    /// Whether half of its places are taken.
    pub fn is_filling(&self) -> bool {
        self.0.len.load(Ordering::SeqCst) >= self.0.capacity.div_ceil(2)
    }

    /// Takes nothing more in. What is there can still be taken out.
    pub fn close(&self) {
        let _items = self.lock();
        self.0.closed.store(true, Ordering::SeqCst);
    }

    /// Whether one end is gone.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        // Nothing panics while it is held; a queue is whole between any two of its operations.
        self.0.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_in_order_and_beyond_the_capacity_come_back() {
        let queue = Queue::bounded(2);
        assert!(queue.is_empty() && queue.pop().is_none());
        queue.push(1).unwrap();
        queue.push(2).unwrap();
        assert!(queue.is_full());
        assert_eq!(queue.push(3), Err(3));
        assert_eq!(queue.pop(), Some(1));
        queue.push(4).unwrap();
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(2), Some(4), None));
        assert!(queue.is_empty() && !queue.is_full());
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_takes_nothing_more() {
        let queue = Queue::bounded(1);
        queue.push(1).unwrap();
        queue.close();
        assert!(queue.is_closed());
        assert_eq!(queue.push(2), Ok(()));
        assert_eq!((queue.pop(), queue.pop()), (Some(1), None));
    }

    /// The state of a thread of this process, as `/proc/self/task/TID/stat` has it: `S` sleeps, `R` runs (`proc(5)`).
    fn state_of(thread: &str) -> Option<char> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks.flatten().find_map(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
            let (name, rest) = stat.split_once(") ")?;
            name.ends_with(thread).then(|| rest.chars().next())?
        })
    }

    #[test]
    fn a_receiver_sleeps_while_a_preempted_sender_holds_the_queue() {
        let queue = Queue::unbounded();
        queue.push(1).unwrap();
        let held = queue.lock();
        let of_receiver = queue.clone();
        let receiver = std::thread::Builder::new().name("queue-receiver".into());
        let receiver = receiver.spawn(move || of_receiver.pop()).unwrap();
        // Bounded by the test runner: one that spins is never seen asleep.
        while state_of("queue-receiver") != Some('S') {
            std::thread::yield_now();
        }
        drop(held);
        assert_eq!(receiver.join().unwrap(), Some(1));
    }

    #[test]
    fn everything_that_several_threads_put_in_comes_out_once_and_in_each_ones_order() {
        const EACH: u32 = 10_000;
        let queue = Queue::bounded(7);
        let senders: Vec<_> = (0..3)
            .map(|sender| {
                let queue = queue.clone();
                std::thread::spawn(move || {
                    for i in 0..EACH {
                        while queue.push((sender, i)).is_err() {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; 3];
        while next != [EACH; 3] {
            let Some((sender, i)) = queue.pop() else {
                std::thread::yield_now();
                continue;
            };
            let expected: &mut u32 = &mut next[sender];
            assert_eq!(i, *expected);
            *expected += 1;
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert!(queue.is_empty());
    }
}
