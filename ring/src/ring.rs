//! The ring itself: operations in, events out.

use crate::buffers::{BufferId, Buffers, GROUP};
use crate::slots::Slots;
use crate::socket::{Listener, from_raw, to_raw};
use io_uring::types::{DestinationSlot, Fd, Fixed, SubmitArgs};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

/// The caller's name for an operation: 56 bits, given back with its completion.
pub type Token = u64;

const TOKEN_BITS: u32 = 56;
const ACCEPT: u64 = 1 << TOKEN_BITS;
const POLL: u64 = 2 << TOKEN_BITS;
const RECEIVE: u64 = 3 << TOKEN_BITS;
const SEND: u64 = 4 << TOKEN_BITS;
const CLOSE: u64 = 5 << TOKEN_BITS;
const CANCEL: u64 = 6 << TOKEN_BITS;
const CONNECT: u64 = 7 << TOKEN_BITS;
const SHUTDOWN: u64 = 8 << TOKEN_BITS;
const WAKE: u64 = 9 << TOKEN_BITS;
const RECEIVE_ONCE: u64 = 10 << TOKEN_BITS;
const DISCONNECT: u64 = 11 << TOKEN_BITS;
const OPERATION: u64 = 0xff << TOKEN_BITS;

/// Deferred work is flushed 20 completions an enter (IO_LOCAL_TW_DEFAULT_MAX, io_uring/io_uring.c); this many enters
/// in a turn bound the time a turn takes (I8).
const FLUSHES_PER_TURN: usize = 16;

/// An address of no family (AF_UNSPEC): connecting to it ends a connection.
static NO_ADDRESS: [u8; size_of::<libc::sockaddr>()] = [0; size_of::<libc::sockaddr>()];

/// How large a ring is.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Submission entries; the completion queue has four times as many.
    pub entries: u32,
    /// Direct descriptors, at most RLIMIT_NOFILE.
    pub descriptors: u32,
    /// Provided buffers, a power of two.
    pub buffers: u16,
    /// Bytes of each.
    pub buffer_bytes: u32,
}

/// What completed.
#[derive(Debug)]
pub enum Event {
    /// A connection was accepted into a descriptor of this ring.
    Accepted {
        /// The caller's name.
        token: Token,
        /// Its direct descriptor.
        descriptor: u32,
        /// Where it comes from.
        peer: SocketAddr,
    },
    /// Accepting failed; ENFILE means the table is full.
    AcceptFailed {
        /// The caller's name.
        token: Token,
        /// The positive errno.
        errno: i32,
    },
    /// A poll fired (or failed, which a receive will tell).
    Readable {
        /// The caller's name.
        token: Token,
    },
    /// A receive gave something.
    Received {
        /// The caller's name.
        token: Token,
        /// Bytes; 0 is the end of the stream; negative is an errno.
        result: i32,
        /// Where the bytes are; give it back.
        buffer: Option<BufferId>,
        /// Whether it was a single receive.
        once: bool,
        /// Whether the multishot receive goes on.
        more: bool,
    },
    /// A send ended. One of [`Ring::send`] that was not cut off has sent everything.
    Sent {
        /// The caller's name.
        token: Token,
        /// The buffer, for the next use.
        buffer: Vec<u8>,
        /// Bytes or a negative errno.
        result: i32,
    },
    /// A connect ended.
    Connected {
        /// The caller's name.
        token: Token,
        /// 0 or a negative errno.
        result: i32,
    },
    /// A direction of a stream, or both, has ended.
    ShutDown {
        /// The caller's name.
        token: Token,
    },
    /// Somebody wrote to the eventfd.
    Woken {
        /// The caller's name.
        token: Token,
        /// Whether the poll goes on; else it is to be armed again.
        more: bool,
    },
    /// The descriptor is free again.
    Closed {
        /// The caller's name.
        token: Token,
    },
}

/// A send under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendId(u32);

struct Sending {
    token: Token,
    bytes: Vec<u8>,
}

struct Address {
    token: Token,
    raw: Box<(libc::sockaddr_storage, libc::socklen_t)>,
}

/// One io_uring and everything its operations point at.
pub struct Ring {
    // First, so that it is closed before what it points at is freed.
    uring: IoUring,
    buffers: Buffers,
    sends: Slots<Sending>,
    addresses: Slots<Address>,
    reaped: Vec<cqueue::Entry>,
    reaped_next: usize,
}

impl Ring {
    /// Makes a ring for the calling thread, which is the only one that may use it.
    pub fn new(config: RingConfig) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(config.entries * 4).setup_submit_all();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        let uring = builder.build(config.entries)?;
        uring.submitter().register_files_sparse(config.descriptors)?;
        let buffers = Buffers::register(&uring.submitter(), config.buffers, config.buffer_bytes)?;
        Ok(Self {
            uring,
            buffers,
            sends: Slots::new(),
            addresses: Slots::new(),
            reaped: Vec::new(),
            reaped_next: 0,
        })
    }

    /// Has the kernel write to this eventfd when completions are there to be reaped, while [`Self::wake_on_events`].
    pub fn register_eventfd(&self, eventfd: RawFd) -> io::Result<()> {
        self.uring.submitter().register_eventfd(eventfd)
    }

    /// Switches the eventfd on or off. After switching it on, enter and reap once more before sleeping: what came
    /// before the switch made no sound.
    pub fn wake_on_events(&mut self, on: bool) {
        let completion = self.uring.completion();
        if on { completion.enable_eventfd() } else { completion.disable_eventfd() }
    }

    /// Accepts one connection into any free descriptor.
    pub fn accept(&mut self, listener: &Listener, token: Token) {
        // SAFETY: all zeros is a valid sockaddr_storage.
        let raw: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let index = self.addresses.insert(Address { token, raw: Box::new((raw, len)) });
        let raw = &mut *self.addresses.get_mut(index).raw;
        let entry = opcode::Accept::new(
            Fd(listener.as_raw_fd()),
            (&raw mut raw.0).cast(),
            (&raw mut raw.1).cast(),
        )
        .file_index(Some(DestinationSlot::auto_target()))
        .build();
        self.push(entry.user_data(ACCEPT | u64::from(index)));
    }

    /// Stops all accepts on a listener; each pending one ends as [`Event::AcceptFailed`] with ECANCELED.
    pub fn cancel_accepts(&mut self, listener: &Listener) {
        let entry = opcode::AsyncCancel2::new(
            io_uring::types::CancelBuilder::fd(Fd(listener.as_raw_fd())).all(),
        )
        .build();
        self.push(entry.user_data(CANCEL));
    }

    /// Puts a socket into the table at `descriptor`; the caller's own descriptor may be closed afterwards.
    pub fn install(&mut self, descriptor: u32, fd: &impl AsRawFd) -> io::Result<()> {
        self.uring.submitter().register_files_update(descriptor, &[fd.as_raw_fd()])?;
        Ok(())
    }

    /// Connects the socket at `descriptor`.
    pub fn connect(&mut self, descriptor: u32, to: &SocketAddr, token: Token) {
        let index = self.addresses.insert(Address { token, raw: Box::new(to_raw(to)) });
        let raw = &*self.addresses.get_mut(index).raw;
        let entry =
            opcode::Connect::new(Fixed(descriptor), (&raw const raw.0).cast(), raw.1).build();
        self.push(entry.user_data(CONNECT | u64::from(index)));
    }

    /// Tells once when there is something to read: the cheapest way to wait, 256 bytes of kernel memory.
    pub fn poll_readable(&mut self, descriptor: u32, token: Token) {
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        let entry = opcode::PollAdd::new(Fixed(descriptor), events).build();
        self.push(entry.user_data(POLL | token));
    }

    /// Tells each time somebody writes to an eventfd, so that the thread can sleep in [`Self::enter_wait`] and still be
    /// woken. The eventfd need not be read.
    pub fn poll_eventfd(&mut self, eventfd: RawFd, token: Token) {
        let entry = opcode::PollAdd::new(Fd(eventfd), libc::POLLIN as u32).multi(true).build();
        self.push(entry.user_data(WAKE | token));
    }

    /// Receives once into a provided buffer what is there; EAGAIN if nothing is. Submit no more of these at a time than
    /// there are buffers: the rest would fail with ENOBUFS and be no further.
    pub fn receive(&mut self, descriptor: u32, token: Token) {
        let entry = opcode::Recv::new(Fixed(descriptor), std::ptr::null_mut(), 0)
            .flags(libc::MSG_DONTWAIT)
            .buf_group(GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry.user_data(RECEIVE_ONCE | token));
    }

    /// Receives until cancelled, one event per arrival: no submission per arrival, 864 bytes of kernel memory.
    pub fn receive_multishot(&mut self, descriptor: u32, token: Token) {
        let entry = opcode::RecvMulti::new(Fixed(descriptor), GROUP).build();
        self.push(entry.user_data(RECEIVE | token));
    }

    /// Ends a multishot receive; its last event has `more` false.
    pub fn cancel_receive(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(RECEIVE | token).build();
        self.push(entry.user_data(CANCEL));
    }

    /// Ends a poll; its event still comes.
    pub fn cancel_poll(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(POLL | token).build();
        self.push(entry.user_data(CANCEL));
    }

    /// Sends all of `bytes`. What is returned names the send for [`Self::cancel_send`].
    pub fn send(&mut self, descriptor: u32, bytes: Vec<u8>, token: Token) -> SendId {
        self.push_send(descriptor, (bytes, 0), libc::MSG_WAITALL, token)
    }

    /// Sends what the kernel has room for of the bytes from `start` on, at least one: each event is a step of a peer that
    /// reads, where [`Self::send`] is silent until all is taken.
    pub fn send_some(
        &mut self,
        descriptor: u32,
        bytes: Vec<u8>,
        start: usize,
        token: Token,
    ) -> SendId {
        self.push_send(descriptor, (bytes, start), 0, token)
    }

    fn push_send(
        &mut self,
        descriptor: u32,
        (bytes, start): (Vec<u8>, usize),
        flags: i32,
        token: Token,
    ) -> SendId {
        let rest = &bytes[start..];
        let (rest, len) = (rest.as_ptr(), u32::try_from(rest.len()).expect("a send is bounded"));
        let index = self.sends.insert(Sending { token, bytes });
        let entry = opcode::Send::new(Fixed(descriptor), rest, len)
            .flags(libc::MSG_NOSIGNAL | flags)
            .build();
        self.push(entry.user_data(SEND | u64::from(index)));
        SendId(index)
    }

    /// Ends a send that waits for its peer to read; its event still comes. Only for a send whose event has not come.
    ///
    /// Operations are ended by name, which the kernel looks up in a hash table; ending all on a descriptor would make it
    /// walk every operation of the ring (`io_cancel_cb`, io_uring/cancel.c).
    pub fn cancel_send(&mut self, send: SendId) {
        let entry = opcode::AsyncCancel::new(SEND | u64::from(send.0)).build();
        self.push(entry.user_data(CANCEL));
    }

    /// Ends both directions of the stream, which ends every operation on it.
    pub fn shutdown(&mut self, descriptor: u32) {
        let entry = opcode::Shutdown::new(Fixed(descriptor), libc::SHUT_RDWR).build();
        self.push(entry.user_data(SHUTDOWN));
    }

    /// Ends the connection at once by a reset (`connect(2)` to AF_UNSPEC), as a cut line does: what is under way is thrown
    /// away, the port is free, and operations on it end. Done when it is submitted, so a close may follow.
    pub fn disconnect(&mut self, descriptor: u32) {
        let address = NO_ADDRESS.as_ptr().cast();
        let entry =
            opcode::Connect::new(Fixed(descriptor), address, NO_ADDRESS.len() as u32).build();
        self.push(entry.user_data(DISCONNECT));
    }

    /// Ends our direction of the stream, behind what was sent; the peer's goes on.
    /// The kernel does it on a thread of its own and looks the descriptor up there, so it must not be given back before
    /// the event.
    pub fn shutdown_write(&mut self, descriptor: u32, token: Token) {
        let entry = opcode::Shutdown::new(Fixed(descriptor), libc::SHUT_WR).build();
        self.push(entry.user_data(SHUTDOWN | token));
    }

    /// Frees the descriptor. Operations under way keep the socket alive until they end.
    pub fn close(&mut self, descriptor: u32, token: Token) {
        let entry = opcode::Close::new(Fixed(descriptor)).build();
        self.push(entry.user_data(CLOSE | token));
    }

    /// The bytes of a receive.
    pub fn buffer(&self, id: BufferId, len: usize) -> &[u8] {
        self.buffers.get(id, len)
    }

    /// The bytes of a receive, to be overwritten: the kernel is done with them until [`Self::give_back`].
    pub fn buffer_mut(&mut self, id: BufferId, len: usize) -> &mut [u8] {
        self.buffers.get_mut(id, len)
    }

    /// Lets the kernel use a buffer again.
    pub fn give_back(&mut self, id: BufferId) {
        self.buffers.give_back(id);
    }

    /// Submits what was pushed and has the kernel make the completions that are due. Never blocks.
    pub fn enter(&mut self) -> io::Result<()> {
        for _ in 0..FLUSHES_PER_TURN {
            let queue = self.uring.submission();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                return Ok(());
            }
            drop(queue);
            self.enter_once(0)?;
        }
        Ok(())
    }

    /// As [`Self::enter`], and waits for at least one completion or the timeout.
    pub fn enter_wait(&mut self, timeout: std::time::Duration) -> io::Result<()> {
        if self.has_events() {
            return self.enter();
        }
        let timespec = io_uring::types::Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timespec);
        tolerate(self.uring.submitter().submit_with_args(1, &args))?;
        self.enter()
    }

    fn enter_once(&mut self, want: usize) -> io::Result<()> {
        tolerate(self.uring.submitter().submit_with_args(want, &SubmitArgs::new()))
    }

    /// Whether events are there to be taken, without entering the kernel.
    pub fn has_events(&mut self) -> bool {
        self.reaped_next < self.reaped.len() || !self.uring.completion().is_empty()
    }

    /// The next event, if one is there.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            if self.reaped_next == self.reaped.len() {
                self.reaped.clear();
                self.reaped_next = 0;
                let completion = self.uring.completion();
                self.reaped.extend(completion.take(256));
                if self.reaped.is_empty() {
                    return None;
                }
            }
            let entry = self.reaped[self.reaped_next].clone();
            self.reaped_next += 1;
            if let Some(event) = self.event(&entry) {
                return Some(event);
            }
        }
    }

    fn event(&mut self, entry: &cqueue::Entry) -> Option<Event> {
        let (user_data, result) = (entry.user_data(), entry.result());
        let token = user_data & !OPERATION;
        Some(match user_data & OPERATION {
            operation @ (RECEIVE | RECEIVE_ONCE) => Event::Received {
                token,
                result,
                once: operation == RECEIVE_ONCE,
                buffer: cqueue::buffer_select(entry.flags()),
                more: cqueue::more(entry.flags()),
            },
            SEND => {
                let Sending { token, bytes } = self.sends.remove(token as u32);
                Event::Sent { token, buffer: bytes, result }
            }
            POLL => Event::Readable { token },
            ACCEPT => {
                let Address { token, raw } = self.addresses.remove(token as u32);
                match (u32::try_from(result), from_raw(&raw.0)) {
                    (Ok(descriptor), Some(peer)) => Event::Accepted { token, descriptor, peer },
                    (Ok(descriptor), None) => {
                        self.close(descriptor, 0);
                        Event::AcceptFailed { token, errno: libc::EAFNOSUPPORT }
                    }
                    (Err(_), _) => Event::AcceptFailed { token, errno: -result },
                }
            }
            CONNECT => {
                Event::Connected { token: self.addresses.remove(token as u32).token, result }
            }
            CLOSE => Event::Closed { token },
            WAKE => Event::Woken { token, more: cqueue::more(entry.flags()) },
            SHUTDOWN => Event::ShutDown { token },
            CANCEL | DISCONNECT => return None,
            _ => unreachable!("every operation of ours has a code"),
        })
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: what the entry points at is static, or owned by `self.sends`, `self.addresses` (boxed) or the buffer
            // ring, and is kept until its completion.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.enter_once(0).expect("a full submission queue can be submitted");
        }
    }
}

/// ETIME: nothing came in time. EINTR: a signal. EBUSY: completions wait to be reaped first.
fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
