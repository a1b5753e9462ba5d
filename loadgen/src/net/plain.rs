//! A few connections on ordinary sockets and `poll(2)`, for one message at a time.
//!
//! A lone message is mostly wakes. The kernel wakes a thread that polls or reads a socket on the CPU of whoever sent to
//! it, who is about to sleep (`wake_up_interruptible_sync_poll`, net/core/sock.c); one that waits in an io_uring it wakes
//! on an idle CPU, which takes 20 us more on a virtual machine. The floor's echo is measured on ordinary sockets, and what
//! is compared to it has to wait in the same way.

use super::tls::{Handshakes, Sealed, Tls};
use super::{ConnIndex, Handler};
use anyhow::Context;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

const READ_BYTES: usize = 64 * 1024;

/// The connections of one thread.
pub struct Plain {
    target: SocketAddr,
    conns: Vec<Conn>,
    read: Vec<u8>,
    tls: Option<Tls>,
}

struct Conn {
    /// `None` once it has ended.
    stream: Option<TcpStream>,
    greeted: bool,
    pending: Vec<u8>,
    /// By TLS.
    sealed: Option<Box<Sealed>>,
    /// What goes to the socket of a connection by TLS.
    records: Vec<u8>,
}

impl Plain {
    /// No connections yet.
    pub fn new(target: SocketAddr) -> Self {
        Self { target, conns: Vec::new(), read: vec![0; READ_BYTES], tls: None }
    }

    /// With connections that are secured, or not.
    pub fn secured(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Handshakes of TLS that were done.
    pub fn handshakes(&self) -> Handshakes {
        self.tls.as_ref().map(|tls| tls.handshakes).unwrap_or_default()
    }

    /// Makes the next connection, and gives its index.
    pub fn connect(&mut self) -> anyhow::Result<ConnIndex> {
        let conn = u32::try_from(self.conns.len()).context("too many connections")?;
        // A failure is an end like any other, told in the next turn.
        let stream = TcpStream::connect(self.target).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        self.conns.push(Conn {
            stream: stream.ok(),
            greeted: false,
            pending: Vec::new(),
            sealed: self.tls.as_ref().map(Tls::connect).transpose()?,
            records: Vec::new(),
        });
        Ok(conn)
    }

    /// Has `fill` append bytes for the server; they leave with the next turn.
    pub fn write(&mut self, conn: ConnIndex, fill: impl FnOnce(&mut Vec<u8>)) {
        let conn = &mut self.conns[conn as usize];
        if conn.greeted && conn.stream.is_some() {
            fill(&mut conn.pending);
        }
    }

    /// Sends what was written, waits up to `wait` for something to happen and has `handler` act on it.
    pub fn turn(&mut self, wait: Duration, handler: &mut impl Handler) -> anyhow::Result<()> {
        self.greet(handler);
        self.flush_all(handler);
        let mut polled: Vec<libc::pollfd> = self.conns.iter().map(Conn::polled).collect();
        let timeout = libc::timespec {
            tv_sec: wait.as_secs().min(3600) as libc::time_t,
            tv_nsec: wait.subsec_nanos().into(),
        };
        let (fds, count) = (polled.as_mut_ptr(), polled.len() as libc::nfds_t);
        // SAFETY: `count` structures and a time, all ours, live through the call; no signal mask is given.
        let result = unsafe { libc::ppoll(fds, count, &raw const timeout, std::ptr::null()) };
        let error = io::Error::last_os_error();
        if result < 0 && error.kind() != io::ErrorKind::Interrupted {
            return Err(error).context("poll failed");
        }
        for (index, polled) in polled.iter().enumerate() {
            if result > 0 && polled.revents & !libc::POLLOUT != 0 {
                self.read(index, handler);
            }
        }
        Ok(())
    }

    fn greet(&mut self, handler: &mut impl Handler) {
        for (index, conn) in self.conns.iter_mut().enumerate() {
            if std::mem::replace(&mut conn.greeted, true) {
                continue;
            }
            match (&conn.stream, &mut conn.sealed) {
                (None, _) => handler.ended(index as ConnIndex, "connect_refused"),
                (Some(_), None) => handler.connected(index as ConnIndex, &mut conn.pending),
                (Some(_), Some(sealed)) => {
                    if let Err(reason) = sealed.start() {
                        conn.stream = None;
                        handler.ended(index as ConnIndex, &reason);
                    }
                }
            }
        }
    }

    fn flush_all(&mut self, handler: &mut impl Handler) {
        for index in 0..self.conns.len() {
            self.flush(index, handler);
        }
    }

    fn flush(&mut self, index: usize, handler: &mut impl Handler) {
        let conn = &mut self.conns[index];
        let Some(stream) = &mut conn.stream else { return };
        let out = match &mut conn.sealed {
            None => &mut conn.pending,
            Some(sealed) => {
                if let Err(reason) = sealed.seal(&mut conn.pending, &mut conn.records) {
                    return self.end(index, &reason, handler);
                }
                &mut conn.records
            }
        };
        while !out.is_empty() {
            match stream.write(out) {
                Ok(written) => {
                    out.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.end(index, &format!("send_{}", error.kind()), handler),
            }
        }
    }

    fn read(&mut self, index: usize, handler: &mut impl Handler) {
        let conn = &mut self.conns[index];
        let Some(stream) = &mut conn.stream else { return };
        let verdict = match stream.read(&mut self.read) {
            Ok(0) => Err("closed_by_server".to_owned()),
            Ok(len) => {
                let (bytes, out) = (&mut self.read[..len], &mut conn.pending);
                match (&mut self.tls, &mut conn.sealed) {
                    (Some(tls), Some(sealed)) => {
                        tls.receive(sealed, index as ConnIndex, bytes, out, handler)
                    }
                    _ => handler.received(index as ConnIndex, bytes, out),
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(format!("receive_{}", error.kind())),
        };
        match verdict {
            Ok(()) => self.flush(index, handler),
            Err(reason) => self.end(index, &reason, handler),
        }
    }

    fn end(&mut self, index: usize, reason: &str, handler: &mut impl Handler) {
        self.conns[index].stream = None;
        handler.ended(index as ConnIndex, reason);
    }
}

impl Conn {
    fn polled(&self) -> libc::pollfd {
        // poll(2) passes over a negative descriptor.
        let fd = self.stream.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let is_sent = match self.sealed {
            None => self.pending.is_empty(),
            Some(_) => self.records.is_empty(),
        };
        let out = if is_sent { 0 } else { libc::POLLOUT };
        libc::pollfd { fd, events: libc::POLLIN | out, revents: 0 }
    }
}
