//! Gateways of two cores in one process, with the test in place of their partitions.

use super::*;
use crate::config::CoreNode;
use crate::link::links_into;
use crossbeam_channel::{Receiver, Sender, unbounded};
use iris_proto::id::UserKey;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

const PARTITIONS: u16 = 2;
/// What never comes within this time is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// A core whose partitions are the test.
struct Node {
    news: Vec<Receiver<MirrorNews>>,
    wakers: Vec<Waker>,
    gateway: Waker,
    ejects: Sender<Eject>,
    leave: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<()>>,
    metrics: Arc<GatewayMetrics>,
}

fn config(dir: &Path, node: u32, cores: Vec<CoreNode>) -> ClusterConfig {
    let now = UNIX_EPOCH + Duration::from_millis(crate::clock::unix_ms());
    if !dir.join("ca.pem").exists() {
        pki::init(dir, "test", now).unwrap();
    }
    let files = match pki::issue(dir, node, 90, now) {
        Ok((cert, key)) => CredentialFiles { ca: dir.join("ca.pem"), cert, key },
        Err(_) => CredentialFiles {
            ca: dir.join("ca.pem"),
            cert: dir.join(format!("node-{node}.pem")),
            key: dir.join(format!("node-{node}-key.pem")),
        },
    };
    ClusterConfig {
        id: "test".to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        cores,
        credentials: Credentials::load(&files, "test", node).unwrap(),
        // A machine that keeps a thread waiting for four of them ends the link.
        heartbeat: Duration::from_secs(1),
        send_wait: Duration::from_secs(5),
        degrade: Duration::from_millis(250),
        heal_rate: 16 << 20,
        when_alone: iris_proto::replica::WhenAlone::Continue,
    }
}

impl Node {
    fn start(config: ClusterConfig, node: u32, listener: TcpListener) -> Self {
        let gateway = Waker::of_ring().unwrap();
        let wakers: Vec<Waker> = (0..PARTITIONS).map(|_| Waker::of_parking()).collect();
        let senders: Vec<(u16, Waker)> = (0..).zip(wakers.iter().cloned()).collect();
        let (_, home) = links_into(&gateway, &senders, 4);
        let to_partitions =
            wakers.iter().flat_map(|waker| links_into(waker, &[(0, gateway.clone())], 4).0);
        let (news, mirrors): (Vec<_>, Vec<_>) = wakers
            .iter()
            .map(|_| {
                let (sender, receiver) = unbounded();
                (receiver, sender)
            })
            .unzip();
        let core = CoreParts {
            to_partitions: to_partitions.collect(),
            partitions: wakers.iter().map(|waker| (waker.clone(), unbounded().0)).collect(),
            home,
            mirrors: Some(mirrors),
        };
        let leave = Arc::new(AtomicBool::new(false));
        let metrics = Arc::new(GatewayMetrics::default());
        let (ejects, wishes) = unbounded();
        let parts = Parts {
            config,
            me: Me {
                node,
                incarnation: 7,
                roles: Roles { edge: false, core: true },
                num_shards: 16,
                partitions: PARTITIONS,
                reactors: 0,
                region: "here".to_owned(),
                name: format!("node-{node}"),
            },
            random: node.into(),
            listener: Some(listener),
            waker: gateway.clone(),
            started: crate::clock::now(),
            edge: None,
            core: Some(core),
            states: Arc::new(States::new(usize::from(PARTITIONS))),
            ejects: wishes,
            ejector: Ejector::default(),
            leave: Arc::clone(&leave),
            metrics: Arc::clone(&metrics),
        };
        let thread = std::thread::spawn(move || run(parts));
        Self { news, wakers, gateway, ejects, leave, thread, metrics }
    }

    /// The next link of each partition, all of one number.
    fn up(&self, from: u32) -> (u64, Vec<(Inbox, Outbox)>) {
        let mut number = None;
        let links = self.news.iter().map(|news| match news.recv_timeout(PATIENCE).unwrap() {
            MirrorNews::Up { link, node, incarnation, inbox, outbox, .. } => {
                assert_eq!((node, incarnation), (from, 7));
                assert_eq!(*number.get_or_insert(link), link);
                (inbox, outbox)
            }
            other => panic!("{other:?}"),
        });
        let links = links.collect();
        (number.unwrap(), links)
    }

    fn down(&self, number: u64) {
        for news in &self.news {
            match news.recv_timeout(PATIENCE).unwrap() {
                MirrorNews::Down { link, .. } => assert_eq!(link, number),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Wants the sessions of a user ended, and waits until the `count`-th such wish has come to `there`.
    fn eject(&self, there: &Node, count: u64) {
        let _ = self.ejects.send(Eject { user: UserKey::of("bob"), ended: None });
        self.gateway.wake();
        let deadline = crate::clock::now() + PATIENCE;
        while there.metrics.ejects.value() < count {
            assert!(crate::clock::now() < deadline, "the wish never came");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn stop(self) {
        self.leave.store(true, Ordering::Release);
        self.gateway.wake();
        self.thread.join().unwrap().unwrap();
    }
}

fn pair(dir: &Path) -> [(ClusterConfig, TcpListener); 2] {
    let listeners = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses: Vec<SocketAddr> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
    let cores: Vec<CoreNode> =
        (1..).zip(addresses).map(|(node, addr)| CoreNode { node, addr }).collect();
    let mut node = 0;
    listeners.map(|listener| {
        node += 1;
        (config(dir, node, cores.clone()), listener)
    })
}

/// The kernel takes an io_uring apart after its thread has ended, and the listening socket with it.
fn bind_again(address: SocketAddr) -> TcpListener {
    let deadline = crate::clock::now() + PATIENCE;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(error) if crate::clock::now() > deadline => panic!("{error}"),
            Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
        }
    }
}

/// Sends `bytes` on one end and takes them out at the other, each thread doing its part.
fn carry(outbox: &mut Outbox, there: &Waker, inbox: &Inbox, bytes: &[u8]) {
    let mut got = Vec::new();
    let mut rest = bytes.chunks(100_000);
    let deadline = crate::clock::now() + PATIENCE;
    while got.len() < bytes.len() {
        assert!(crate::clock::now() < deadline, "{} of {} bytes", got.len(), bytes.len());
        if outbox.backlog_bytes() < 1 << 20
            && let Some(part) = rest.next()
        {
            outbox.buffer().extend_from_slice(part);
        }
        outbox.flush();
        while let Some(batch) = inbox.receive() {
            got.extend(batch.bytes);
        }
        if rest.len() == 0 && outbox.may_sleep() {
            there.park(Duration::from_millis(20), || inbox.is_empty());
        }
    }
    assert!(got == bytes, "what comes out is what went in");
}

#[test]
fn mirrors_have_a_stream_for_each_partition_until_the_link_ends() {
    let dir = tempfile::tempdir().unwrap();
    let [(one_config, one_listener), (two_config, two_listener)] = pair(dir.path());
    let two_address = two_listener.local_addr().unwrap();
    let two_again = two_config.clone();
    let one = Node::start(one_config, 1, one_listener);
    let two = Node::start(two_config, 2, two_listener);
    let (number, mut ends_of_one) = one.up(2);
    let (_, mut ends_of_two) = two.up(1);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
    for partition in 0..usize::from(PARTITIONS) {
        let (from, to) = (&mut ends_of_one[partition], &mut ends_of_two[partition]);
        carry(&mut from.1, &two.wakers[partition], &to.0, &bytes);
        carry(&mut to.1, &one.wakers[partition], &from.0, &bytes[7..]);
    }
    assert_eq!(one.metrics.links.value(), 1);
    two.stop();
    one.down(number);
    let two = Node::start(two_again, 2, bind_again(two_address));
    let (later, _) = one.up(2);
    assert!(later > number);
    two.up(1);
    one.stop();
    two.stop();
}

#[test]
fn a_stream_that_is_not_taken_stops_itself_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let [(one_config, one_listener), (two_config, two_listener)] = pair(dir.path());
    let one = Node::start(one_config, 1, one_listener);
    let two = Node::start(two_config, 2, two_listener);
    let (_, mut ends_of_one) = one.up(2);
    let (_, ends_of_two) = two.up(1);
    // Far more than windows and queues hold: it stays with its sender.
    let stuck = &mut ends_of_one[0].1;
    for _ in 0..200 {
        stuck.buffer().resize(1 << 20, 1);
        stuck.flush();
    }
    let bytes = vec![3; 2_000_000];
    carry(&mut ends_of_one[1].1, &two.wakers[1], &ends_of_two[1].0, &bytes);
    assert!(ends_of_one[0].1.backlog_bytes() > 0);
    one.stop();
    two.stop();
}

#[test]
fn wishes_of_two_nodes_of_one_incarnation_are_not_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let [(one_config, one_listener), (two_config, two_listener)] = pair(dir.path());
    let one = Node::start(one_config, 1, one_listener);
    let two = Node::start(two_config, 2, two_listener);
    let _streams = (one.up(2), two.up(1));
    for count in 1..=3 {
        one.eject(&two, count);
        two.eject(&one, count);
    }
    one.stop();
    two.stop();
}
