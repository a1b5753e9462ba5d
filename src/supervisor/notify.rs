//! Telling the service manager where the node is in its life.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::rt::monotonic_us;

/// How long a service manager that does not read may hold up the thread that tells it.
const SEND_MAX: Duration = Duration::from_secs(1);
/// Between two beats while the node stops, and the time that each asks for.
const BEAT_EVERY: Duration = Duration::from_secs(1);
const BEAT_TIME: Duration = Duration::from_secs(10);

/// For telling the service manager. Clones tell the same one; the default tells nobody.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<Arc<SocketAddr>>);

impl Notifier {
    /// To the socket that `NOTIFY_SOCKET` names; without it nobody is told.
    pub fn from_env() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        Self::to(&name).unwrap_or_else(|error| {
            tracing::warn!(?name, %error, "NOTIFY_SOCKET is not usable: nobody is told");
            Self::default()
        })
    }

    /// To a socket: a path, or `@` and a name of the abstract kind (`unix(7)`).
    pub fn to(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => {
                let what = "neither an absolute path nor @NAME";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        };
        Ok(Self(Some(Arc::new(address))))
    }

    /// Somebody is told.
    pub fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// Clients are served: the start is over, or a reload.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\n{}", line(status)));
    }

    /// What the node does, in a line for people.
    pub fn status(&self, status: &str) {
        self.tell(&line(status));
    }

    /// The configuration is read anew; [`Self::ready`] follows, whatever came of it.
    pub fn reloading(&self) {
        // The time is asked for by `Type=notify-reload`, which tells this reload from an earlier one by it.
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_us()));
    }

    /// The node is going to end.
    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\n{}", line(status)));
    }

    /// Whatever is under way, the start or the stop, goes on: give it this much longer from now.
    pub fn extend(&self, time: Duration) {
        self.tell(&format!("EXTEND_TIMEOUT_USEC={}\nWATCHDOG=1\n", time.as_micros()));
    }

    /// The node is alive.
    pub fn feed(&self) {
        self.tell("WATCHDOG=1\n");
    }

    /// Beats of a stop that may take long.
    pub fn beat(&self) -> Beat {
        Beat { notifier: self.clone(), next: None }
    }

    /// Has a descriptor kept for the next life under a name without colons, which comes with it.
    pub fn keep(&self, name: &str, descriptor: &impl AsFd) {
        assert!(!name.contains([':', '\n']), "the protocol's own separators");
        let Some(address) = &self.0 else { return };
        let text = format!("FDSTORE=1\nFDNAME={name}\n");
        let sent = connect(address).and_then(|socket| {
            iris_ring::send_with_descriptor(&socket, text.as_bytes(), descriptor)
        });
        note(sent);
    }

    /// Has what is kept under a name let go.
    pub fn forget(&self, name: &str) {
        assert!(!name.contains([':', '\n']), "the protocol's own separators");
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"));
    }

    fn tell(&self, text: &str) {
        let Some(address) = &self.0 else { return };
        note(connect(address).and_then(|socket| socket.send(text.as_bytes()).map(drop)));
    }
}

/// Tells, about once a second, that a stop goes on: what the service manager would else cut off. Who stops the node calls
/// it as often as it looks whether it is done; when those calls end, the time runs out.
#[derive(Debug)]
pub struct Beat {
    notifier: Notifier,
    next: Option<Instant>,
}

impl Beat {
    /// The stop goes on; `status` says how far it is.
    pub fn tick(&mut self, status: impl FnOnce() -> String) {
        let now = clock::now();
        if self.notifier.is_heard() && self.next.is_none_or(|next| now >= next) {
            self.next = Some(now + BEAT_EVERY);
            self.notifier.extend(BEAT_TIME);
            self.notifier.status(&status());
        }
    }
}

/// As `sd_notify(3)` does it, a socket for each datagram: the service manager may have bound its own anew.
fn connect(address: &SocketAddr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_MAX))?;
    socket.connect_addr(address)?;
    Ok(socket)
}

fn note(sent: io::Result<()>) {
    if let Err(error) = sent {
        tracing::warn!(%error, "failed to tell the service manager");
    }
}

/// A status is one line, whatever is in it.
fn line(status: &str) -> String {
    format!("STATUS={}\n", status.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager() -> (UnixDatagram, Notifier) {
        let name = format!("iris-notify-{}-{:?}", std::process::id(), std::thread::current().id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        (socket, Notifier::to(OsStr::new(&format!("@{name}"))).unwrap())
    }

    fn told(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    #[test]
    fn a_life_is_told_in_the_words_of_the_protocol() {
        let (socket, notifier) = manager();
        notifier.ready("serving");
        assert_eq!(told(&socket), "READY=1\nSTATUS=serving\n");
        notifier.reloading();
        let reload = told(&socket);
        let time = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(time.trim_end().parse::<u64>().unwrap() > 0);
        notifier.stopping("draining");
        assert_eq!(told(&socket), "STOPPING=1\nSTATUS=draining\n");
        notifier.extend(Duration::from_secs(10));
        assert_eq!(told(&socket), "EXTEND_TIMEOUT_USEC=10000000\nWATCHDOG=1\n");
        notifier.feed();
        assert_eq!(told(&socket), "WATCHDOG=1\n");
        notifier.forget("tcp-0");
        assert_eq!(told(&socket), "FDSTOREREMOVE=1\nFDNAME=tcp-0\n");
    }

    #[test]
    fn a_status_with_line_breaks_says_nothing_else() {
        let (socket, notifier) = manager();
        notifier.status("bad\nWATCHDOG=trigger");
        assert_eq!(told(&socket), "STATUS=bad WATCHDOG=trigger\n");
    }

    #[test]
    fn a_socket_may_be_a_path_or_abstract_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Notifier::to(path.as_os_str()).unwrap().feed();
        assert_eq!(told(&socket), "WATCHDOG=1\n");
        for name in ["", "notify", "vsock:2:1"] {
            assert!(Notifier::to(OsStr::new(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_manager_that_is_gone_and_one_that_never_was_hold_nobody_up() {
        let (socket, notifier) = manager();
        drop(socket);
        notifier.ready("");
        Notifier::default().ready("");
    }

    #[test]
    fn beats_come_once_a_second_however_often_the_stop_is_looked_at() {
        let (socket, notifier) = manager();
        let mut beat = notifier.beat();
        for _ in 0..1000 {
            beat.tick(|| "3 connections left".to_owned());
        }
        assert!(told(&socket).starts_with("EXTEND_TIMEOUT_USEC="));
        assert_eq!(told(&socket), "STATUS=3 connections left\n");
        socket.set_nonblocking(true).unwrap();
        // Unless the machine took a second for a thousand calls.
        let more = std::iter::from_fn(|| socket.recv(&mut [0; 512]).ok()).count();
        assert!(more <= 4, "{more} more datagrams");
    }
}
