use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const CONFIG: RingConfig = RingConfig { entries: 64, descriptors: 8, buffers: 4, buffer_bytes: 64 };

fn wait_for(ring: &mut Ring) -> Event {
    for _ in 0..1200 {
        if let Some(event) = ring.next_event() {
            return event;
        }
        ring.enter_wait(Duration::from_millis(100)).unwrap();
    }
    panic!("no event in two minutes");
}

fn accepted(ring: &mut Ring) -> (u32, TcpStream) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    ring.accept(&listener, 7);
    let client = TcpStream::connect(listener.address()).unwrap();
    let Event::Accepted { token: 7, descriptor, peer } = wait_for(ring) else {
        panic!("expected accept")
    };
    assert_eq!(peer, client.local_addr().unwrap());
    (descriptor, client)
}

#[test]
fn a_message_goes_in_and_out_through_direct_descriptors() {
    let mut ring = Ring::new(CONFIG).unwrap();
    let (descriptor, mut client) = accepted(&mut ring);
    ring.poll_readable(descriptor, 7);
    client.write_all(b"hello").unwrap();
    assert!(matches!(wait_for(&mut ring), Event::Readable { token: 7 }));
    ring.receive(descriptor, 8);
    let Event::Received { token: 8, result: 5, buffer: Some(id), .. } = wait_for(&mut ring) else {
        panic!("expected five bytes")
    };
    assert_eq!(ring.buffer(id, 5), b"hello");
    ring.give_back(id);
    ring.send(descriptor, b"world".to_vec(), 9);
    let Event::Sent { token: 9, buffer, result: 5 } = wait_for(&mut ring) else {
        panic!("expected a send")
    };
    assert_eq!(buffer, b"world");
    let mut got = [0; 5];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"world");
}

#[test]
fn a_multishot_receive_survives_empty_buffers_and_a_cancel() {
    let mut ring = Ring::new(CONFIG).unwrap();
    let (descriptor, mut client) = accepted(&mut ring);
    ring.receive_multishot(descriptor, 1);
    client.write_all(&[7; 64 * 5]).unwrap();
    let mut held = Vec::new();
    let mut bytes = 0;
    while bytes < 64 * 5 {
        let Event::Received { token: 1, result, buffer, more, .. } = wait_for(&mut ring) else {
            panic!("expected bytes")
        };
        if result > 0 {
            bytes += result;
            held.extend(buffer);
        } else {
            assert_eq!((result, more), (-libc::ENOBUFS, false), "four buffers are all there is");
            held.drain(..).for_each(|id| ring.give_back(id));
            ring.receive_multishot(descriptor, 1);
        }
    }
    held.drain(..).for_each(|id| ring.give_back(id));
    ring.cancel_receive(1);
    loop {
        let Event::Received { more, .. } = wait_for(&mut ring) else { panic!("expected the end") };
        if !more {
            break;
        }
    }
}

#[test]
fn an_eventfd_tells_of_completions_only_while_asked_to() {
    let mut ring = Ring::new(CONFIG).unwrap();
    // SAFETY: a system call without pointers; the descriptor is owned at once.
    let fd = unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        assert!(fd >= 0);
        <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd)
    };
    let mut eventfd = std::fs::File::from(fd);
    ring.register_eventfd(eventfd.as_raw_fd()).unwrap();
    let (descriptor, mut client) = accepted(&mut ring);
    let mut count = [0; 8];
    let _ = eventfd.read(&mut count);

    ring.wake_on_events(false);
    ring.poll_readable(descriptor, 1);
    ring.enter().unwrap();
    client.write_all(b"a").unwrap();
    assert!(matches!(wait_for(&mut ring), Event::Readable { token: 1 }));
    assert!(eventfd.read(&mut count).is_err(), "it was switched off");

    ring.wake_on_events(true);
    ring.receive(descriptor, 2);
    ring.enter().unwrap();
    assert!(matches!(wait_for(&mut ring), Event::Received { result: 1, .. }));
    assert_eq!(eventfd.read(&mut count).unwrap(), 8, "it was switched on");
}

#[test]
fn a_full_table_says_so_and_a_closed_descriptor_is_used_again() {
    let mut ring = Ring::new(RingConfig { descriptors: 1, ..CONFIG }).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    ring.accept(&listener, 1);
    ring.accept(&listener, 2);
    let _one = TcpStream::connect(listener.address()).unwrap();
    let Event::Accepted { descriptor, .. } = wait_for(&mut ring) else { panic!("expected accept") };
    let _two = TcpStream::connect(listener.address()).unwrap();
    let Event::AcceptFailed { errno, .. } = wait_for(&mut ring) else {
        panic!("expected a failure")
    };
    assert_eq!(errno, libc::ENFILE);
    ring.close(descriptor, 5);
    assert!(matches!(wait_for(&mut ring), Event::Closed { token: 5 }));
    ring.accept(&listener, 7);
    let _three = TcpStream::connect(listener.address()).unwrap();
    assert!(matches!(wait_for(&mut ring), Event::Accepted { .. }));
}

#[test]
fn a_send_that_waits_for_its_reader_ends_when_cancelled() {
    let mut ring = Ring::new(CONFIG).unwrap();
    let (descriptor, mut client) = accepted(&mut ring);
    ring.poll_readable(descriptor, 1);
    let send = ring.send(descriptor, vec![7; 64 << 20], 2);
    ring.enter().unwrap();
    ring.cancel_poll(1);
    ring.cancel_send(send);
    ring.close(descriptor, 3);
    let (mut sent, mut polled, mut closed) = (false, false, false);
    while !(sent && polled && closed) {
        match wait_for(&mut ring) {
            Event::Sent { token: 2, buffer, result } => {
                assert!(result < buffer.len() as i32, "64 MiB fit no socket buffer");
                sent = true;
            }
            Event::Readable { token: 1 } => polled = true,
            Event::Closed { token: 3 } => closed = true,
            other => panic!("unexpected {other:?}"),
        }
    }
    let mut rest = Vec::new();
    assert!(client.read_to_end(&mut rest).unwrap() < 64 << 20, "the stream ends early");
}

#[test]
fn a_disconnect_resets_the_stream_at_once_and_ends_what_waits_on_it() {
    let mut ring = Ring::new(CONFIG).unwrap();
    let (descriptor, mut client) = accepted(&mut ring);
    ring.poll_readable(descriptor, 3);
    ring.enter().unwrap();
    ring.disconnect(descriptor);
    ring.close(descriptor, 4);
    let mut tokens = Vec::new();
    while tokens.len() < 2 {
        match wait_for(&mut ring) {
            Event::Readable { token } | Event::Closed { token } => tokens.push(token),
            other => panic!("not expected: {other:?}"),
        }
    }
    tokens.sort_unstable();
    assert_eq!(tokens, [3, 4]);
    let error = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_send_of_some_tells_of_each_step_of_its_reader() {
    const BYTES: usize = 8 << 20;
    let mut ring = Ring::new(CONFIG).unwrap();
    let (descriptor, mut client) = accepted(&mut ring);
    let mut buffer: Vec<u8> = (0..BYTES).map(|place| place as u8).collect();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got
    });
    let (mut start, mut steps) = (0, 0);
    while start < BYTES {
        ring.send_some(descriptor, buffer, start, 1);
        let Event::Sent { token: 1, buffer: back, result } = wait_for(&mut ring) else {
            panic!("expected a send")
        };
        buffer = back;
        start += usize::try_from(result).unwrap();
        steps += 1;
    }
    ring.close(descriptor, 0);
    assert!(matches!(wait_for(&mut ring), Event::Closed { .. }));
    assert!(reader.join().unwrap() == buffer, "what was sent came");
    assert!(steps > 1, "8 MiB do not fit at once");
}
