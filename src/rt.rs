//! Threads of the data path: pinned, one glommio executor and one task each, asleep until somebody has something.
//!
//! The task is a loop that works while there is work and then parks the thread. A reactor parks in its own ring and a
//! partition on a futex; neither awaits through glommio, whose park and wake take some ten system calls and a
//! membarrier where one call is enough (`docs/decisions/0002-parking.md` has the figures). glommio places the threads
//! and decides when the loop must let other tasks of its executor run.

use crate::halt_poll::HaltPoll;
use glommio::{LocalExecutorBuilder, Placement};
use std::fs::File;
use std::future::Future;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

/// Wakes one thread. Cheap while that thread is awake: one load.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Of a thread that sleeps in its ring. The others sleep on `asleep` itself: one system call instead of two, and a
    /// lighter one, for each sleep (`futex(2)`).
    eventfd: Option<File>,
    asleep: AtomicU32,
    /// Keeps the thread's CPU awake while it sleeps for moments.
    halt_poll: Option<Arc<HaltPoll>>,
}

const FUTEX_WAIT: libc::c_int = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
const FUTEX_WAKE: libc::c_int = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
/// Allocations from this size on are mappings of their own, which go back at once.
const MMAP_BYTES_MIN: libc::c_int = 4 << 20;
/// Free bytes at the end of an arena that are kept.
const KEPT_BYTES_MAX: libc::c_int = 16 << 20;
const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

impl Waker {
    /// A waker for a thread that calls [`Self::park`].
    pub fn of_parking() -> Self {
        Self::of(None, None)
    }

    /// A waker for a thread that sleeps in a ring with [`Self::sleep_in`], which polls [`Self::eventfd`].
    pub fn of_ring() -> io::Result<Self> {
        // SAFETY: a system call without pointers; the result is checked and owned at once.
        let eventfd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            File::from(OwnedFd::from_raw_fd(fd))
        };
        Ok(Self::of(Some(eventfd), None))
    }

    /// The same for a thread whose CPU is kept awake. Call it before the waker is shared.
    pub fn with_halt_poll(self, halt_poll: Option<Arc<HaltPoll>>) -> Self {
        let shared = Arc::into_inner(self.0).expect("a waker that nobody has yet");
        Self::of(shared.eventfd, halt_poll)
    }

    fn of(eventfd: Option<File>, halt_poll: Option<Arc<HaltPoll>>) -> Self {
        Self(Arc::new(Shared { eventfd, asleep: AtomicU32::new(AWAKE), halt_poll }))
    }

    /// Wakes the thread if it sleeps or is about to. What was published before is seen by it.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        let asleep = &self.0.asleep;
        if asleep.load(Ordering::Relaxed) == AWAKE || asleep.swap(AWAKE, Ordering::SeqCst) == AWAKE
        {
            return;
        }
        match &self.0.eventfd {
            // Any count but 0 wakes (eventfd(2)), so its byte order does not matter. EAGAIN means the count is at its
            // maximum: the thread wakes anyway.
            Some(eventfd) => {
                let mut eventfd: &File = eventfd;
                let _ = eventfd.write(&1_u64.to_le_bytes());
            }
            // SAFETY: the word is ours and outlives the call; nothing is written.
            None => unsafe {
                libc::syscall(libc::SYS_futex, asleep.as_ptr(), FUTEX_WAKE, 1);
            },
        }
    }

    /// Runs `sleep` after the others were told that this thread sleeps, unless `is_idle` then finds something: nobody
    /// would wake it for that.
    pub fn sleep_in<T>(
        &self,
        is_idle: impl FnOnce() -> bool,
        sleep: impl FnOnce() -> T,
    ) -> Option<T> {
        self.0.asleep.store(ASLEEP, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let slept = is_idle().then(|| match &self.0.halt_poll {
            Some(halt_poll) => halt_poll.around(sleep),
            None => sleep(),
        });
        self.0.asleep.store(AWAKE, Ordering::SeqCst);
        slept
    }

    /// Sleeps until woken or for this long, for a thread that waits for nothing else.
    pub fn park(&self, timeout: Duration, is_idle: impl FnOnce() -> bool) {
        assert!(self.0.eventfd.is_none(), "who sleeps in a ring does not park");
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let word = self.0.asleep.as_ptr();
        self.sleep_in(is_idle, || {
            // SAFETY: the word and the time are ours and outlive the call. However it ends, the caller looks for work.
            unsafe { libc::syscall(libc::SYS_futex, word, FUTEX_WAIT, ASLEEP, &raw const timeout) }
        });
    }

    /// What a ring polls, to be woken.
    pub fn eventfd(&self) -> RawFd {
        self.0.eventfd.as_ref().expect("a waker of a thread with a ring").as_raw_fd()
    }
}

/// Puts the calling thread under `SCHED_BATCH`: one that it wakes, or that wakes it, waits until the other is done
/// instead of preempting it in the middle of its turn. Turns bring larger batches then.
pub fn become_batch_class() -> bool {
    set_class(libc::SCHED_BATCH)
}

/// Puts the calling thread under `SCHED_IDLE`: it runs when nobody else wants its CPU.
pub fn become_idle_class() -> bool {
    set_class(libc::SCHED_IDLE)
}

/// Any thread may go to these classes without a privilege (`sched(7)`).
fn set_class(policy: libc::c_int) -> bool {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter is ours and only read; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &raw const param) == 0 }
}

/// Has the allocator keep what it was given back, up to a bound for each of its arenas, instead of returning it to the
/// kernel and faulting it in again page by page: batches of links go through it at their whole rate, made by one thread
/// and let go by another (`mallopt(3)`; glibc's own bounds are 128 KiB).
pub fn keep_freed_memory() {
    for (parameter, bytes) in
        [(libc::M_MMAP_THRESHOLD, MMAP_BYTES_MIN), (libc::M_TRIM_THRESHOLD, KEPT_BYTES_MAX)]
    {
        // SAFETY: two numbers; one that the allocator does not take changes nothing.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

/// Microseconds of CLOCK_MONOTONIC, as the service manager counts them (`clock_gettime(2)`).
pub fn monotonic_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours. This clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// Lets other tasks of this executor run if it is their time.
pub async fn yield_if_needed() {
    glommio::yield_if_needed().await;
}

/// Runs `task` to its end in an executor of its own on a thread of its own, pinned to `cpu` if one is given.
pub fn spawn_pinned<G, F, T>(
    name: &str,
    cpu: Option<usize>,
    task: G,
) -> io::Result<glommio::ExecutorJoinHandle<T>>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
        .name(name)
        // glommio pins three buffers of this size; the sockets and the log do their I/O elsewhere.
        .io_memory(64 << 10)
        .ring_depth(64)
        .preempt_timer(Duration::from_millis(100))
        .spawn(move || {
            become_batch_class();
            task()
        })
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wake_is_lost_between_looking_and_sleeping() {
        let (waker, work) = (Waker::of_parking(), Arc::new(AtomicU32::new(0)));
        let (their_waker, their_work) = (waker.clone(), Arc::clone(&work));
        const ROUNDS: u32 = 20_000;
        let giver = std::thread::spawn(move || {
            for _ in 0..ROUNDS {
                their_work.fetch_add(1, Ordering::SeqCst);
                their_waker.wake();
            }
        });
        let mut taken = 0;
        while taken < ROUNDS {
            taken += work.swap(0, Ordering::SeqCst);
            if taken < ROUNDS {
                // Far longer than the test takes: a lost wake shows as a hang.
                waker.park(Duration::from_secs(600), || work.load(Ordering::SeqCst) == 0);
            }
        }
        giver.join().unwrap();
    }
}
