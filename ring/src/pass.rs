//! Descriptors that come from another process, or go to one (`unix(7)`, SCM_RIGHTS).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that a service manager passes at exec (`sd_listen_fds(3)`).
const FIRST_PASSED: RawFd = 3;

/// The descriptors that a service manager passed to this process at exec, `count` of them, for it to own; those that are not
/// open are `None`. Nobody who is started later inherits them.
///
/// # Panics
///
/// If called a second time: they have an owner.
pub fn take_passed_descriptors(count: u16) -> Vec<Option<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    assert!(!TAKEN.swap(true, Ordering::SeqCst), "passed descriptors are taken once");
    let take = |fd: RawFd| {
        // SAFETY: a system call without pointers, on whatever the number stands for.
        let is_open = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
        // SAFETY: it is open, it was passed to this process for it to own, and it is taken once.
        is_open.then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    };
    (FIRST_PASSED..FIRST_PASSED + RawFd::from(count)).map(take).collect()
}

/// Sends a datagram with a descriptor, which the other side gets a copy of.
pub fn send_with_descriptor(
    socket: &UnixDatagram,
    bytes: &[u8],
    descriptor: &impl AsFd,
) -> io::Result<()> {
    let fd = descriptor.as_fd().as_raw_fd();
    let mut bytes =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // Of u64, so that it is aligned as the header in it must be.
    let mut control = [0_u64; 8];
    // SAFETY: all zeros is a valid msghdr. The macros say where in the buffer header and data are; both fit into 64 bytes.
    // `sendmsg` reads what the message points at, which lives until it returns.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut bytes;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// Receives a datagram with one descriptor.
    fn receive(socket: &UnixDatagram) -> (Vec<u8>, OwnedFd) {
        let (mut bytes, mut control) = ([0_u8; 64], [0_u64; 8]);
        let mut parts = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: as in the sender; the descriptor that came is ours.
        unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut parts;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control);
            let len = libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0);
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            assert!(len >= 0 && !header.is_null());
            assert_eq!((*header).cmsg_type, libc::SCM_RIGHTS);
            let fd = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
            (bytes[..len as usize].to_vec(), OwnedFd::from_raw_fd(fd))
        }
    }

    #[test]
    fn a_descriptor_arrives_beside_its_bytes_and_means_the_same_socket() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        send_with_descriptor(&ours, b"FDSTORE=1", &far).unwrap();
        drop(far);
        let (bytes, fd) = receive(&theirs);
        assert_eq!(bytes, b"FDSTORE=1");
        near.write_all(b"through").unwrap();
        drop(near);
        let mut text = String::new();
        UnixStream::from(fd).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }
}
