//! The thin layer over glommio: pinned threads, and sleeping until somebody has something for us.
//!
//! A thread of the data path runs one glommio executor with one task, a loop that works while there is work and then
//! parks. Everything that may wake it ends in one eventfd: its own rings signal completions there, and other threads
//! write to it. The eventfd is awaited through glommio, so timers and other tasks of the executor go on meanwhile. The
//! ring's own descriptor is never awaited: a ring with DEFER_TASKRUN does not wake its pollers.

use glommio::io::PollableFd;
use glommio::{LocalExecutorBuilder, Placement};
use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Wakes one thread. Cheap while that thread is awake: one atomic operation.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    eventfd: File,
    asleep: AtomicBool,
}

impl Waker {
    /// A waker for a thread that will park with [`Parker::new`] on it.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a system call without pointers; the result is checked and owned at once.
        let eventfd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            File::from(OwnedFd::from_raw_fd(fd))
        };
        Ok(Self(Arc::new(Shared { eventfd, asleep: AtomicBool::new(false) })))
    }

    /// Wakes the thread if it sleeps or is about to. What was published before is seen by it.
    pub fn wake(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.0.asleep.load(Ordering::Relaxed) && self.0.asleep.swap(false, Ordering::SeqCst) {
            self.signal();
        }
    }

    fn signal(&self) {
        // Any count but 0 wakes (eventfd(2)), so its byte order does not matter. EAGAIN means the count is at its
        // maximum: the thread will wake anyway.
        let _ = (&self.0.eventfd).write(&1_u64.to_le_bytes());
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.0.eventfd.as_raw_fd()
    }
}

/// The sleeping end of a [`Waker`], on its own thread.
pub struct Parker {
    waker: Waker,
    eventfd: PollableFd<Waker>,
}

impl Parker {
    /// To be called inside the executor that will park.
    pub fn new(waker: Waker) -> io::Result<Self> {
        let eventfd = PollableFd::new(waker.clone()).map_err(io::Error::other)?;
        Ok(Self { waker, eventfd })
    }

    /// Sleeps until woken. `is_idle` is asked after the others were told that this thread sleeps: what it finds then,
    /// nobody would wake it for.
    pub async fn park(&self, is_idle: impl FnOnce() -> bool) -> io::Result<()> {
        let shared = &self.waker.0;
        shared.asleep.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        if is_idle() {
            self.eventfd.readable().await.map_err(io::Error::other)?;
        }
        shared.asleep.store(false, Ordering::SeqCst);
        let mut count = [0; 8];
        match (&shared.eventfd).read(&mut count) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Wakes the calling thread's loop at least this often, so that timers are looked at on a quiet node.
pub fn wake_every(period: Duration, waker: Waker) {
    glommio::spawn_local(async move {
        loop {
            glommio::timer::Timer::new(period).await;
            waker.wake();
        }
    })
    .detach();
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
        .preempt_timer(Duration::from_millis(1))
        .spawn(task)
        .map_err(io::Error::other)
}
