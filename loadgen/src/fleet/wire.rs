//! What a controller and a worker say to each other: frames of JSON over a stream.
//!
//! A frame is the length of its text, four bytes, big-endian, and the text. Before the other side is known to have the
//! secret a frame is short; nothing longer than a bound is ever read. Both sides say [`FORMAT`] and their version first.

use super::findings::Part;
use crate::control::{Counts, Orders};
use crate::series::intervals::Failures;
use crate::stats::Latencies;
use crate::worker::Plan;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Which frames there are. A controller and its workers have the same, and the same version.
pub const FORMAT: u32 = 1;
/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Bytes of a frame, at most, from who is not known yet and from who is.
pub const GREETING_BYTES_MAX: usize = 4096;
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// What a controller says.
#[derive(Serialize, Deserialize)]
pub enum Told {
    /// The answer to [`Said::Hello`].
    Login {
        format: u32,
        version: String,
        nonce: String,
        /// That it has the secret, if it has one.
        proof: Option<String>,
    },
    /// What does your clock say?
    Clock,
    /// Get ready for this.
    Plan(Box<Assignment>),
    /// All orders as they are now: with each change, and at least each second.
    Orders(Orders),
}

/// What a worker says.
#[derive(Serialize, Deserialize)]
pub enum Said {
    /// The first frame of a connection.
    Hello { format: u32, version: String, nonce: String, wants_proof: bool },
    /// No, and why.
    Refused(String),
    /// The login is done.
    Welcome(Welcome),
    /// The answer to [`Told::Clock`].
    Clock(Moment),
    /// All is there that the plan needs; nothing connects yet. What the machine allows, in a line.
    Ready(String),
    /// Counts of all threads, and whether one of them is still sending.
    Counts(Counts, bool),
    /// Memory and CPU time.
    Used(Used),
    /// What all threads recorded up to this interval, and what failed up to now.
    Interval(u32, Latencies, Failures),
    /// A part of what the threads bring home, at the end.
    Part(Part),
    /// That was all.
    Done,
    /// It cannot go on.
    Failed(String),
}

/// Who a worker is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// That it has the secret, if it has one.
    pub proof: Option<String>,
    /// The machine's name.
    pub host: String,
    /// What the kernel calls this boot of the machine: processes with the same one share a machine.
    pub boot: String,
    /// What it uses before anything begins.
    pub used: Used,
}

/// A worker's clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moment {
    /// Nanoseconds since some moment of its own: never set, goes on evenly.
    pub own_ns: u64,
    /// Nanoseconds since 1970 as its machine has them.
    pub unix_ns: u64,
}

/// What a worker's process uses.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Used {
    /// CPU time of all its threads, nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// CPU time of each generator thread, nanoseconds.
    pub threads_ns: Vec<u64>,
}

/// A worker's part of a run.
#[derive(Serialize, Deserialize)]
pub struct Assignment {
    /// The whole run.
    pub plan: Plan,
    /// How long tokens have to last.
    pub time: Duration,
    /// Which part it is.
    pub part: u32,
    /// Which of the run's threads are its own.
    pub threads: Range<u32>,
    /// Users of it, at most: all parts have about as many.
    pub users_max: u32,
    /// Source addresses of it, if that was said.
    pub sources: Option<u32>,
    /// Pin threads, to cores after so many that other workers of this machine take.
    pub pin: Option<u32>,
    /// When the run began, by its own clock, nanoseconds.
    pub epoch_ns: i64,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection between a controller and a worker.
#[derive(Debug)]
pub struct Link {
    stream: Stream,
    frame: Vec<u8>,
}

impl From<UnixStream> for Link {
    fn from(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), frame: Vec::new() }
    }
}

impl TryFrom<TcpStream> for Link {
    type Error = io::Error;

    fn try_from(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream: Stream::Tcp(stream), frame: Vec::new() })
    }
}

impl Link {
    /// A second handle: one thread reads, another one writes.
    pub fn try_clone(&self) -> io::Result<Self> {
        let stream = match &self.stream {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
        };
        Ok(Self { stream, frame: Vec::new() })
    }

    /// How long a read, and a write, may take before the other side counts as gone.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))
            }
        }
    }

    /// Ends the connection for all handles.
    pub fn cut(&self) {
        // It may have ended already.
        let _ = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Both),
            Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Both),
        };
    }

    /// Says something.
    pub fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        self.frame.clear();
        self.frame.extend_from_slice(&[0; 4]);
        serde_json::to_writer(&mut self.frame, message).map_err(io::Error::from)?;
        let length = self.frame.len() - 4;
        if length > FRAME_BYTES_MAX {
            let what = format!("a frame of {length} bytes: {FRAME_BYTES_MAX} at most");
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        self.frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(&self.frame),
            Stream::Unix(stream) => stream.write_all(&self.frame),
        }
    }

    /// Hears something of at most so many bytes. `UnexpectedEof`: the other side has ended.
    pub fn receive<T: DeserializeOwned>(&mut self, bytes_max: usize) -> io::Result<T> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > bytes_max {
            let what = format!("a frame of {length} bytes: {bytes_max} at most");
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        self.frame.resize(length, 0);
        let mut frame = std::mem::take(&mut self.frame);
        let read = self.read(&mut frame);
        self.frame = frame;
        read?;
        serde_json::from_slice(&self.frame)
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read_exact(bytes),
            Stream::Unix(stream) => stream.read_exact(bytes),
        }
    }
}

/// Whether a read took too long, rather than failed.
pub fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Link, Link) {
        let (a, b) = UnixStream::pair().unwrap();
        (a.into(), b.into())
    }

    #[test]
    fn what_is_said_is_heard_in_order_and_an_end_is_an_end() {
        let (mut a, mut b) = pair();
        a.send(&Said::Done).unwrap();
        a.send(&Said::Failed("so".to_owned())).unwrap();
        drop(a);
        assert!(matches!(b.receive(99), Ok(Said::Done)));
        assert!(matches!(b.receive(99), Ok(Said::Failed(why)) if why == "so"));
        let end = b.receive::<Said>(99).err().unwrap();
        assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_frame_that_is_too_long_or_makes_no_sense_is_refused() {
        for bytes in
            [&b"\0\0\x01\0"[..], b"\xff\xff\xff\xff", b"\0\0\0\x02{]", b"\0\0\0\x06\"What\""]
        {
            let (a, mut b) = UnixStream::pair().unwrap();
            b.write_all(bytes).unwrap();
            let error = Link::from(a).receive::<Told>(99).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{bytes:?}");
        }
    }

    #[test]
    fn who_says_nothing_is_late() {
        let (a, _b) = pair();
        a.set_patience(Duration::from_millis(1)).unwrap();
        let mut a = a;
        assert!(is_late(&a.receive::<Told>(99).err().unwrap()));
    }
}
