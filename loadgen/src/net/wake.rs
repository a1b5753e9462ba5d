//! Sleeping on several rings at once: each writes to one eventfd (`eventfd(2)`) when it has completions.
//!
//! Polling a DEFER_TASKRUN ring's own descriptor would hang: its completions are only made by entering it.

use super::Lane;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Wake {
    eventfd: File,
}

impl Wake {
    pub(super) fn new(lanes: &[Lane]) -> io::Result<Self> {
        // SAFETY: a system call without pointers; the result is checked and owned at once.
        let eventfd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        lanes.iter().try_for_each(|lane| lane.ring.register_eventfd(eventfd.as_raw_fd()))?;
        Ok(Self { eventfd: File::from(eventfd) })
    }

    /// Enters every ring with the eventfd switched on; whether one has events, in which case it is off again.
    pub(super) fn any_ready(&self, lanes: &mut [Lane]) -> io::Result<bool> {
        for lane in lanes.iter_mut() {
            lane.ring.wake_on_events(true);
        }
        // What came before the switch made no sound: look once more after it.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let mut ready = false;
        for lane in lanes.iter_mut() {
            lane.ring.enter()?;
            ready |= lane.ring.has_events();
        }
        if ready {
            lanes.iter_mut().for_each(|lane| lane.ring.wake_on_events(false));
        }
        Ok(ready)
    }

    /// Sleeps until a ring has something or the time is over, and enters them all.
    pub(super) fn wait(&self, lanes: &mut [Lane], wait: Duration) -> io::Result<()> {
        let mut poll =
            libc::pollfd { fd: self.eventfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout = libc::timespec {
            tv_sec: wait.as_secs().min(3600) as libc::time_t,
            tv_nsec: wait.subsec_nanos().into(),
        };
        // SAFETY: both structures are ours and live through the call; no signal mask is given.
        let result = unsafe { libc::ppoll(&raw mut poll, 1, &raw const timeout, std::ptr::null()) };
        let error = io::Error::last_os_error();
        if result < 0 && error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        // Nonblocking: an empty counter is no error here.
        let _ = (&self.eventfd).read(&mut [0; 8]);
        lanes.iter_mut().for_each(|lane| lane.ring.wake_on_events(false));
        lanes.iter_mut().try_for_each(|lane| lane.ring.enter())
    }
}
