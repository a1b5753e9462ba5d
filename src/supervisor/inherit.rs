//! Listeners that were kept for this process: by an earlier life of the node (FDSTORE), or by a socket unit.
//!
//! Both come the same way, as descriptors with names (`sd_listen_fds(3)`), and are taken the same way: by what they are
//! named and where they listen. What waits in their queues is accepted like any other connection, so that whoever
//! connected while no process was there is served all the same.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use iris_ring::{Listener, take_passed_descriptors};

/// Descriptors taken at most: 4096 reactors with two listeners each.
const PASSED_MAX: u16 = 8192;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Clients in the clear.
    Tcp,
    /// Clients by TLS.
    Tls,
}

impl Kind {
    /// The first part of a name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// The name that the listener of that number is kept under.
    pub fn numbered(self, number: usize) -> String {
        format!("{}-{number}", self.name())
    }

    fn of(name: &str) -> Option<Self> {
        let kind = name.split_once('-').map_or(name, |(kind, _)| kind);
        [Self::Tcp, Self::Tls].into_iter().find(|of| of.name() == kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A listener and the name it came with.
#[derive(Debug)]
struct Kept {
    name: String,
    kind: Kind,
    listener: Listener,
}

/// Listeners that were passed to this process and have not been taken.
#[derive(Debug, Default)]
pub struct Inherited {
    kept: Vec<Kept>,
    /// What was passed and is of no use: names, and what is wrong.
    refused: Vec<(String, String)>,
}

impl Inherited {
    /// What the environment says was passed.
    ///
    /// # Panics
    ///
    /// If called a second time: what was passed has an owner.
    pub fn from_env() -> Self {
        let get = |name: &str| std::env::var(name).ok();
        match names(get, std::process::id()) {
            Ok(names) if names.is_empty() => Self::default(),
            Ok(names) => {
                let descriptors = take_passed_descriptors(names.len() as u16);
                Self::of(names.into_iter().zip(descriptors))
            }
            Err(what) => {
                let refused = vec![("LISTEN_FDS".to_owned(), what)];
                Self { kept: Vec::new(), refused }
            }
        }
    }

    fn of(passed: impl IntoIterator<Item = (String, Option<OwnedFd>)>) -> Self {
        let mut inherited = Self::default();
        for (name, descriptor) in passed {
            let kept = match (Kind::of(&name), descriptor) {
                (_, None) => Err("it is not open".to_owned()),
                (None, _) => {
                    Err("its name is none of tcp and tls (FileDescriptorName=, FDNAME=)".to_owned())
                }
                (Some(kind), Some(descriptor)) => Listener::inherit(descriptor)
                    .map(|listener| (kind, listener))
                    .map_err(|error| error.to_string()),
            };
            match kept {
                Ok((kind, listener)) => inherited.kept.push(Kept { name, kind, listener }),
                Err(what) => inherited.refused.push((name, what)),
            }
        }
        inherited
    }

    /// There is a listener on that port, of whatever kind and address. It shares the port with others, and is closed if
    /// nobody takes it.
    pub fn has_port(&self, port: u16) -> bool {
        self.kept.iter().any(|kept| kept.listener.address().port() == port)
    }

    /// The listeners for an address with their names; port 0 stands for any.
    pub fn take(&mut self, kind: Kind, address: SocketAddr) -> Vec<(String, Listener)> {
        // Those of port 0 are of one port all the same, or clients of one name would land at two.
        let first = self.kept.iter().find(|kept| kept.fits(kind, address));
        let Some(address) = first.map(|kept| kept.listener.address()) else { return Vec::new() };
        let taken = self.kept.extract_if(.., |kept| kept.fits(kind, address));
        taken.map(|kept| (kept.name, kept.listener)).collect()
    }

    /// Closes what nobody took. For each its name, and why it is of no use.
    pub fn leave(self) -> Vec<(String, String)> {
        let left = self.kept.into_iter().map(|kept| {
            let address = kept.listener.address();
            (kept.name, format!("it listens on {address}, which is not configured"))
        });
        self.refused.into_iter().chain(left).collect()
    }
}

impl Kept {
    fn fits(&self, kind: Kind, address: SocketAddr) -> bool {
        let mine = self.listener.address();
        self.kind == kind
            && mine.ip() == address.ip()
            && (address.port() == 0 || mine.port() == address.port())
    }
}

/// A name for each descriptor that was passed; none if they are for another process.
fn names(get: impl Fn(&str) -> Option<String>, pid: u32) -> Result<Vec<String>, String> {
    let (Some(of), Some(count)) = (get("LISTEN_PID"), get("LISTEN_FDS")) else {
        return Ok(Vec::new());
    };
    if of.parse() != Ok(pid) {
        return Ok(Vec::new());
    }
    let count: u16 = count.parse().map_err(|_| format!("{count:?} is no number of descriptors"))?;
    if count > PASSED_MAX {
        return Err(format!("{count} descriptors are more than {PASSED_MAX}"));
    }
    let text = get("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = text.split(':').map(str::to_owned);
    Ok((0..count).map(|_| names.next().unwrap_or_default()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn environment(pid: u32, count: &str, names: &str) -> Result<Vec<String>, String> {
        let get = |name: &str| match name {
            "LISTEN_PID" => Some(pid.to_string()),
            "LISTEN_FDS" => Some(count.to_owned()),
            _ => Some(names.to_owned()),
        };
        super::names(get, 7)
    }

    #[test]
    fn descriptors_of_another_process_and_numbers_that_are_none_are_not_taken() {
        assert_eq!(environment(7, "2", "tcp-0:tls-0").unwrap(), ["tcp-0", "tls-0"]);
        assert_eq!(environment(7, "2", "tcp-0").unwrap(), ["tcp-0", ""]);
        assert!(environment(8, "2", "tcp-0:tls-0").unwrap().is_empty());
        for count in ["x", "-1", "8193", "70000", ""] {
            assert!(environment(7, count, "").is_err(), "{count}");
        }
        assert!(names(|_| None, 7).unwrap().is_empty());
    }

    fn listener() -> (SocketAddr, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (listener.local_addr().unwrap(), listener.into())
    }

    #[test]
    fn listeners_are_taken_by_name_and_address_and_the_rest_is_named() {
        let ((one, first), (other, second)) = (listener(), listener());
        let udp = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let passed = [
            ("tcp-0", Some(first)),
            ("tls-3", Some(second)),
            ("tcp-1", None),
            ("iris.socket", Some(listener().1)),
            ("tcp", Some(udp)),
        ];
        let mut inherited = Inherited::of(passed.map(|(name, fd)| (name.to_owned(), fd)));
        let has = |inherited: &Inherited, kind, address| {
            inherited.kept.iter().any(|kept| kept.fits(kind, address))
        };
        assert!(has(&inherited, Kind::Tcp, one) && !has(&inherited, Kind::Tls, one));
        assert!(inherited.has_port(one.port()) && !inherited.has_port(1));
        assert!(!has(&inherited, Kind::Tcp, other));
        assert!(inherited.take(Kind::Tls, one).is_empty());
        let taken = inherited.take(Kind::Tcp, one);
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].0.as_str(), taken[0].1.address()), ("tcp-0", one));
        let left: Vec<_> = inherited.leave().into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["tcp-1", "iris.socket", "tcp", "tls-3"]);
    }

    #[test]
    fn port_0_takes_listeners_of_one_port() {
        let ((one, first), (_, second)) = (listener(), listener());
        let passed = [("tcp-0", Some(first)), ("tcp-1", Some(second))];
        let mut inherited = Inherited::of(passed.map(|(name, fd)| (name.to_owned(), fd)));
        let taken = inherited.take(Kind::Tcp, "127.0.0.1:0".parse().unwrap());
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].1.address(), one);
        assert_eq!(inherited.leave().len(), 1);
    }
}
