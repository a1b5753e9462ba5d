use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Instant;

/// Sends back whatever it gets, a thread per connection; a `q` ends the connection.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 8192];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    if bytes[..count].contains(&b'q') || stream.write_all(&bytes[..count]).is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    addr
}

#[derive(Default)]
struct Seen {
    hello: Vec<u8>,
    connected: usize,
    bytes: Vec<Vec<u8>>,
    ended: Vec<(ConnIndex, String)>,
    gone: Vec<ConnIndex>,
}

impl Handler for Seen {
    fn connected(&mut self, _conn: ConnIndex, out: &mut Vec<u8>) {
        self.connected += 1;
        out.extend_from_slice(&self.hello);
    }
    fn received(&mut self, conn: ConnIndex, bytes: &[u8], _: &mut Vec<u8>) -> Result<(), String> {
        self.bytes[conn as usize].extend_from_slice(bytes);
        if bytes.contains(&b'x') { Err("an x".to_owned()) } else { Ok(()) }
    }
    fn ended(&mut self, conn: ConnIndex, reason: &str) {
        self.ended.push((conn, reason.to_owned()));
    }
    fn gone(&mut self, conn: ConnIndex) {
        self.gone.push(conn);
    }
}

fn seen(connections: usize, hello: &[u8]) -> Seen {
    Seen { hello: hello.to_vec(), bytes: vec![Vec::new(); connections], ..Seen::default() }
}

/// Turns until `done`, which has to come within two minutes.
fn turn_until(net: &mut Net, seen: &mut Seen, done: impl Fn(&Seen) -> bool) {
    let began = Instant::now();
    while !done(seen) {
        assert!(began.elapsed() < Duration::from_secs(120), "ended: {:?}", seen.ended);
        net.turn(Duration::from_millis(100), seen).unwrap();
    }
}

fn connect(net: &mut Net, connections: u32) {
    let source = "127.0.0.3".parse().unwrap();
    (0..connections).for_each(|conn| assert_eq!(net.connect(source).unwrap(), conn));
}

#[test]
fn more_connections_than_a_table_holds_take_several_rings() {
    for (busy, rings) in [(0, 3), (10, 3), (5, 4)] {
        let mut net = Net::new(echo(), busy, 10 - busy, 4).unwrap();
        assert_eq!(net.lanes.len(), rings);
        let mut seen = seen(10, b"hello");
        connect(&mut net, 10);
        turn_until(&mut net, &mut seen, |seen| seen.bytes.iter().all(|bytes| bytes == b"hello"));
        for conn in 0..10 {
            net.write(conn, |out| out.extend_from_slice(&[b'a' + conn as u8; 2]));
        }
        turn_until(&mut net, &mut seen, |seen| seen.bytes.iter().all(|bytes| bytes.len() == 7));
        assert_eq!(&seen.bytes[9][5..], b"jj");
        assert_eq!(seen.ended, []);
    }
}

#[test]
fn much_data_arrives_whole_and_in_order_and_leaves_no_buffer_behind() {
    let data: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i % 97) as u8 + 1)
        .filter(|b| *b != b'q' && *b != b'x')
        .collect();
    for busy in [0, 1] {
        let mut net = Net::new(echo(), busy, 1 - busy, 1).unwrap();
        let mut seen = seen(1, b"");
        connect(&mut net, 1);
        turn_until(&mut net, &mut seen, |seen| seen.connected == 1);
        for piece in data.chunks(100_000) {
            net.write(0, |out| out.extend_from_slice(piece));
            net.turn(Duration::ZERO, &mut seen).unwrap();
        }
        turn_until(&mut net, &mut seen, |seen| seen.bytes[0].len() == data.len());
        assert!(seen.bytes[0] == data, "the bytes differ");
        net.turn(Duration::ZERO, &mut seen).unwrap();
        assert!(!net.is_sending());
        assert_eq!(net.conns[0].pending.capacity(), 0);
    }
}

#[test]
fn a_connection_that_the_peer_ends_is_told_once_and_others_go_on() {
    let mut net = Net::new(echo(), 0, 2, 8).unwrap();
    let mut seen = seen(2, b"");
    connect(&mut net, 2);
    turn_until(&mut net, &mut seen, |seen| seen.connected == 2);
    net.write(0, |out| out.push(b'q'));
    turn_until(&mut net, &mut seen, |seen| !seen.ended.is_empty());
    assert_eq!(seen.ended, [(0, "closed_by_server".to_owned())]);
    assert!(!net.is_open(0) && net.is_open(1));
    net.write(0, |_| panic!("nothing is written to an ended connection"));
    net.write(1, |out| out.push(b'y'));
    turn_until(&mut net, &mut seen, |seen| seen.bytes[1] == b"y");
    assert_eq!(seen.ended.len(), 1);
}

#[test]
fn a_handler_ends_a_connection_for_its_own_reason() {
    let mut net = Net::new(echo(), 1, 0, 8).unwrap();
    let mut seen = seen(1, b"xx");
    connect(&mut net, 1);
    turn_until(&mut net, &mut seen, |seen| !seen.ended.is_empty());
    assert_eq!(seen.ended, [(0, "an x".to_owned())]);
}

#[test]
fn nobody_listening_is_a_named_end() {
    let target = SocketAddr::new("127.0.0.98".parse().unwrap(), echo().port());
    let mut net = Net::new(target, 0, 1, 8).unwrap();
    let mut seen = seen(1, b"");
    connect(&mut net, 1);
    turn_until(&mut net, &mut seen, |seen| !seen.ended.is_empty());
    assert_eq!(seen.ended, [(0, "connect_refused".to_owned())]);
}

#[test]
fn more_arrivals_at_once_than_buffers_each_take_one_receive() {
    const MANY: u32 = 700;
    let mut net = Net::new(echo(), 0, MANY, MANY).unwrap();
    let mut seen = seen(MANY as usize, b"");
    connect(&mut net, MANY);
    turn_until(&mut net, &mut seen, |seen| seen.connected == MANY as usize);
    for conn in 0..MANY {
        net.write(conn, |out| out.extend_from_slice(b"beat"));
    }
    turn_until(&mut net, &mut seen, |seen| seen.bytes.iter().all(|bytes| bytes == b"beat"));
    let lane = &net.lanes[0];
    assert!(MANY as usize > 2 * lane.buffers);
    assert_eq!((lane.receiving, lane.waiting.len()), (0, 0));
}

#[test]
fn a_connection_that_was_cut_is_gone_and_can_be_made_again_in_its_place() {
    for busy in [0, 3] {
        let mut net = Net::new(echo(), busy, 3 - busy, 8).unwrap();
        let mut seen = seen(3, b"hello");
        connect(&mut net, 3);
        turn_until(&mut net, &mut seen, |seen| seen.bytes.iter().all(|bytes| bytes == b"hello"));
        for round in 1..=20 {
            assert!(net.cut(1) && !net.cut(1), "once");
            net.write(1, |_| panic!("nothing is written to a connection that was cut"));
            turn_until(&mut net, &mut seen, |seen| seen.gone.len() == round);
            net.begin(1, "127.0.0.3".parse().unwrap()).unwrap();
            turn_until(&mut net, &mut seen, |seen| seen.bytes[1].len() == 5 * (1 + round));
        }
        assert_eq!((seen.connected, seen.ended.len()), (3 + 20, 0), "a cut is no end of its own");
        net.write(0, |out| out.push(b'a'));
        turn_until(&mut net, &mut seen, |seen| seen.bytes[0] == b"helloa");
    }
}

#[test]
fn a_connection_is_cut_while_it_is_made_or_while_it_sends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for busy in [0, 1] {
        let mut net = Net::new(listener.local_addr().unwrap(), busy, 1 - busy, 8).unwrap();
        let mut seen = seen(1, b"");
        connect(&mut net, 1);
        assert!(net.cut(0));
        turn_until(&mut net, &mut seen, |seen| seen.gone.len() == 1);
        assert_eq!(seen.connected, 0);
        net.begin(0, "127.0.0.3".parse().unwrap()).unwrap();
        turn_until(&mut net, &mut seen, |seen| seen.connected == 1);
        // Nobody reads: the send waits for ever.
        net.write(0, |out| out.resize(50_000_000, 1));
        net.turn(Duration::ZERO, &mut seen).unwrap();
        assert!(net.is_sending() && net.cut(0));
        turn_until(&mut net, &mut seen, |seen| seen.gone.len() == 2);
        assert!(!net.is_sending() && seen.ended.is_empty());
    }
}

#[test]
fn a_cut_resets_the_connection_at_the_peer_while_others_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut net = Net::new(listener.local_addr().unwrap(), 0, 2, 8).unwrap();
    let mut seen = seen(2, b"");
    connect(&mut net, 2);
    turn_until(&mut net, &mut seen, |seen| seen.connected == 2);
    let mut peers = [listener.accept().unwrap(), listener.accept().unwrap()];
    assert!(net.cut(0));
    turn_until(&mut net, &mut seen, |seen| seen.gone == [0]);
    peers.iter_mut().for_each(|(peer, _)| peer.set_nonblocking(true).unwrap());
    let mut reads = peers.map(|(mut peer, _)| peer.read(&mut [0; 1]).unwrap_err().kind());
    reads.sort_by_key(|kind| format!("{kind:?}"));
    assert_eq!(reads, [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::WouldBlock]);
}

#[test]
fn a_paused_connection_is_not_read_until_it_goes_on() {
    for busy in [0, 2] {
        let mut net = Net::new(echo(), busy, 2 - busy, 8).unwrap();
        let mut seen = seen(2, b"");
        connect(&mut net, 2);
        turn_until(&mut net, &mut seen, |seen| seen.connected == 2);
        net.pause(0, true);
        net.turn(Duration::ZERO, &mut seen).unwrap();
        for round in 1..=5 {
            net.write(0, |out| out.extend_from_slice(b"late"));
            for _ in 0..3 {
                let now = seen.bytes[1].len();
                net.write(1, |out| out.push(b'y'));
                turn_until(&mut net, &mut seen, |seen| seen.bytes[1].len() == now + 1);
            }
            assert_eq!(seen.bytes[0].len(), 4 * (round - 1), "not read");
            net.pause(0, false);
            turn_until(&mut net, &mut seen, |seen| seen.bytes[0].len() == 4 * round);
            net.pause(0, true);
            net.turn(Duration::ZERO, &mut seen).unwrap();
        }
        // Told to go on before the pause is through.
        net.pause(0, false);
        net.pause(0, true);
        net.pause(0, false);
        net.write(0, |out| out.push(b'z'));
        turn_until(&mut net, &mut seen, |seen| seen.bytes[0].ends_with(b"z"));
        assert_eq!(seen.ended, []);
    }
}
