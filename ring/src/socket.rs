//! Sockets made the ordinary way: listeners with their options, and client sockets bound to a source address.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A listening TCP socket. Accepted sockets inherit TCP_NODELAY and the buffer sizes set here, which saves a system
/// call per connection.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `address` with SO_REUSEPORT, so that each reactor has its own queue. `backlog` is clamped by
    /// `net.core.somaxconn`.
    pub fn bind(address: SocketAddr, backlog: u32) -> io::Result<Self> {
        let fd = stream_socket(&address)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        let (raw, len) = to_raw(&address);
        // SAFETY: `raw` holds an address of `len` bytes.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const raw).cast(), len) })?;
        let mut listener = Self { fd, address };
        listener.listen(backlog)?;
        listener.address = local_address(&listener.fd)?;
        Ok(listener)
    }

    /// A socket that another process made and that listens already, with what waits in its queue.
    pub fn inherit(fd: OwnedFd) -> io::Result<Self> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        if get_option(&fd, libc::SOL_SOCKET, libc::SO_TYPE)? != libc::SOCK_STREAM
            || get_option(&fd, libc::SOL_SOCKET, libc::SO_PROTOCOL)? != libc::IPPROTO_TCP
        {
            return Err(wrong("it is no TCP socket"));
        }
        if get_option(&fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? == 0 {
            return Err(wrong("it does not listen"));
        }
        let address = local_address(&fd)?;
        Ok(Self { fd, address })
    }

    /// Listens, or goes on listening with another bound of its queue: what waits in it stays (`inet_listen` in
    /// net/ipv4/af_inet.c).
    pub fn listen(&self, backlog: u32) -> io::Result<()> {
        set_option(&self.fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        // SAFETY: a system call on a descriptor of ours.
        check(unsafe { libc::listen(self.fd.as_raw_fd(), backlog) })
    }

    /// The same socket again: both take from one queue.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, address: self.address })
    }

    /// Limits the kernel's send buffer of each accepted connection, bytes. The kernel doubles the value for its bookkeeping
    /// (`socket(7)`, `sock_setsockopt` in net/core/sock.c), cuts it at `net.core.wmem_max` first, and leaves off tuning it.
    pub fn limit_send_buffer(&self, bytes: u32) -> io::Result<()> {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)
    }

    /// Has the kernel take bytes for a connection only while fewer than these wait to be sent for the first time: what a
    /// peer that does not read can pile up in the kernel (TCP_NOTSENT_LOWAT, `tcp_notsent_lowat` in
    /// Documentation/networking/ip-sysctl.rst). A segment under way goes beyond it, by 64 KiB at most.
    pub fn limit_unsent(&self, bytes: u32) -> io::Result<()> {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        set_option(&self.fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes)
    }

    /// The address in use; its port is the kernel's choice where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A TCP socket for connecting from `source` with any free port. IP_BIND_ADDRESS_NO_PORT (`ip(7)`) leaves the choice of
/// the port to `connect`, so that a port serves once per destination instead of once.
pub fn bound_stream_socket(source: IpAddr) -> io::Result<OwnedFd> {
    let address = SocketAddr::new(source, 0);
    let fd = stream_socket(&address)?;
    set_option(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set_option(&fd, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    let (raw, len) = to_raw(&address);
    // SAFETY: `raw` holds an address of `len` bytes.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const raw).cast(), len) })?;
    Ok(fd)
}

/// A TCP socket for connecting to `address` within some seconds: the kernel gives up after two SYNs that nobody answers
/// (TCP_SYNCNT, `tcp(7)`).
pub fn stream_socket_to(address: &SocketAddr) -> io::Result<OwnedFd> {
    let fd = stream_socket(address)?;
    set_option(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set_option(&fd, libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1)?;
    Ok(fd)
}

/// Raises the soft limit of open descriptors to the hard limit and returns that: also the largest table of a ring.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the structure is ours.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_max)
}

fn stream_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: a system call without pointers; the result is checked and owned at once.
    unsafe {
        let fd = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        check(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn set_option(fd: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option's value is an int.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as u32,
        )
    })
}

fn get_option(fd: &impl AsRawFd, level: i32, name: i32) -> io::Result<i32> {
    let (mut value, mut len) = (0_i32, size_of::<i32>() as u32);
    // SAFETY: the option's value is an int, and so is ours.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
    })?;
    Ok(value)
}

fn local_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    // SAFETY: all zeros is a valid sockaddr_storage.
    let mut raw: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as u32;
    // SAFETY: `raw` has room for `len` bytes.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut raw).cast(), &raw mut len) })?;
    from_raw(&raw).ok_or_else(|| io::Error::other("the kernel gave an address of another family"))
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(crate) fn to_raw(address: &SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zeros is a valid sockaddr_storage, which is large and aligned enough for either family.
    unsafe {
        let mut raw: libc::sockaddr_storage = std::mem::zeroed();
        match address {
            SocketAddr::V4(v4) => {
                let out = &mut *(&raw mut raw).cast::<libc::sockaddr_in>();
                out.sin_family = libc::AF_INET as u16;
                out.sin_port = v4.port().to_be();
                out.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                (raw, size_of::<libc::sockaddr_in>() as u32)
            }
            SocketAddr::V6(v6) => {
                let out = &mut *(&raw mut raw).cast::<libc::sockaddr_in6>();
                out.sin6_family = libc::AF_INET6 as u16;
                out.sin6_port = v6.port().to_be();
                out.sin6_addr.s6_addr = v6.ip().octets();
                out.sin6_scope_id = v6.scope_id();
                (raw, size_of::<libc::sockaddr_in6>() as u32)
            }
        }
    }
}

pub(crate) fn from_raw(raw: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(raw.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure it is, and the storage is large enough for each.
            let v4 = unsafe { &*(&raw const *raw).cast::<libc::sockaddr_in>() };
            let ip = IpAddr::from(u32::from_be(v4.sin_addr.s_addr).to_be_bytes());
            Some(SocketAddr::new(ip, u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*(&raw const *raw).cast::<libc::sockaddr_in6>() };
            let ip = IpAddr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddr::new(ip, u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_to_the_kernel_and_back() {
        for text in ["127.0.0.1:7400", "[2001:db8::1]:65535", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(from_raw(&to_raw(&address).0), Some(address));
        }
    }

    #[test]
    fn accepted_connections_inherit_the_limits_and_the_kernel_doubles_one() {
        use std::net::{TcpListener, TcpStream};
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        listener.limit_send_buffer(64 << 10).unwrap();
        listener.limit_unsent(16 << 10).unwrap();
        let _client = TcpStream::connect(listener.address()).unwrap();
        let (accepted, _) = TcpListener::from(listener.fd).accept().unwrap();
        assert_eq!(get_option(&accepted, libc::SOL_SOCKET, libc::SO_SNDBUF).unwrap(), 128 << 10);
        assert_eq!(
            get_option(&accepted, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT).unwrap(),
            16 << 10
        );
    }

    #[test]
    fn a_listener_on_port_0_tells_its_port() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        assert_ne!(listener.address().port(), 0);
    }

    #[test]
    fn an_inherited_listener_keeps_its_address_and_what_waits_in_its_queue() {
        use std::net::{TcpListener, TcpStream};
        let first = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let address = first.address();
        let client = TcpStream::connect(address).unwrap();
        let second = Listener::inherit(first.try_clone().unwrap().fd).unwrap();
        drop(first);
        second.listen(32).unwrap();
        assert_eq!(second.address(), address);
        let (_, peer) = TcpListener::from(second.fd).accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }

    #[test]
    fn only_a_tcp_socket_that_listens_is_inherited() {
        use std::net::{TcpListener, UdpSocket};
        use std::os::unix::net::UnixListener;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(Listener::inherit(stream.into()).is_err());
        assert!(Listener::inherit(UdpSocket::bind("127.0.0.1:0").unwrap().into()).is_err());
        let dir = std::env::temp_dir().join(format!("iris-ring-{}", std::process::id()));
        let unix = UnixListener::bind(&dir).unwrap();
        std::fs::remove_file(&dir).unwrap();
        assert!(Listener::inherit(unix.into()).is_err());
        assert!(Listener::inherit(listener.into()).is_ok());
    }
}
