//! Bytes of another node on a link, from the first one on.
//!
//! The same bytes are given to two ends, to one as they come and to the other in small pieces: both must see the same.
//! What an end says must be taken by an end of ours.

use iris_proto::peer::{
    BATCH_BYTES_MAX, End, Event, Hello, Link, LinkConfig, Purpose, Roles, ShardRanges, VERSION_MAX,
    VERSION_MIN,
};

use crate::Input;

const NOW_MS: u64 = 10_000;
const SHARDS: u16 = 1024;
const PARTITIONS: u16 = 5;

fn hello(roles: Roles, purpose: Purpose) -> Hello {
    let is_core = roles.has(Roles::CORE);
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        purpose,
        roles,
        node: 1,
        incarnation: 3,
        num_shards: SHARDS,
        partitions: if is_core { PARTITIONS } else { 0 },
        reactors: if is_core { 0 } else { 16 },
        heartbeat_ms: 50,
        credit: 2 * BATCH_BYTES_MAX as u32,
        shards: if is_core { ShardRanges::all(SHARDS) } else { ShardRanges::none() },
        cluster: "prod".to_owned(),
        region: "eu".to_owned(),
        name: "core-1".to_owned(),
    }
}

fn end(kind: u8) -> Link {
    let (roles, purpose) = match kind % 4 {
        0 | 1 => (Roles::CORE, Purpose::Clients),
        2 => (Roles::EDGE, Purpose::Clients),
        _ => (Roles::CORE, Purpose::Replication),
    };
    let config = LinkConfig { me: hello(roles, purpose), expected_node: None };
    match kind % 4 {
        0 | 1 => Link::accept(config, NOW_MS),
        _ => Link::dial(config, NOW_MS),
    }
}

/// What an end saw, as text: events, and why it ended.
type Seen = Vec<String>;

fn feed(link: &mut Link, seen: &mut Seen, bytes: &[u8]) -> Result<(), End> {
    let mut rest = bytes;
    loop {
        let Some(event) = link.next(NOW_MS, &mut rest)? else { return Ok(()) };
        match &event {
            Event::Hello(peer) => {
                check_peer(peer);
                link.establish(NOW_MS);
                assert!((1..=SHARDS).contains(&link.channels()), "as many queues are made");
            }
            Event::Batch { channel, bytes } => {
                assert!(bytes.len() <= BATCH_BYTES_MAX);
                // Half of them are put off, so that credit runs out.
                if bytes.len().is_multiple_of(2) {
                    link.consumed(*channel, bytes.len());
                }
            }
            Event::State { partition, .. } => assert!(*partition < link.channels()),
            Event::Eject { .. } => {}
        }
        seen.push(format!("{event:?}"));
    }
}

fn check_peer(peer: &Hello) {
    assert_eq!((peer.cluster.as_str(), peer.num_shards), ("prod", SHARDS));
    assert!(peer.node > 0 && peer.heartbeat_ms > 0);
    for text in [&peer.region, &peer.name] {
        assert!(text.len() <= 64 && !text.chars().any(char::is_control), "a log line of its own");
    }
    assert!(peer.shards.iter().all(|(first, last)| first <= last && last < SHARDS));
}

/// First which end it is, and the length of pieces; then the bytes.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (kind, piece) = (input.u8(), 1 + usize::from(input.u8() % 40));
    let bytes = input.rest();
    let (mut whole, mut pieces) = (end(kind), end(kind));
    let (mut seen, mut seen_in_pieces) = (Seen::new(), Seen::new());
    let result = feed(&mut whole, &mut seen, bytes);
    let in_pieces =
        bytes.chunks(piece).try_for_each(|piece| feed(&mut pieces, &mut seen_in_pieces, piece));
    assert_eq!((&seen, &result), (&seen_in_pieces, &in_pieces), "it depends on how bytes come");
    if let Err(end) = &result {
        assert!(
            !whole.is_up() && end.text.len() <= 2048 && !end.text.chars().any(char::is_control)
        );
    }
    let said = whole.take_output();
    assert_eq!(said, pieces.take_output(), "both say the same");
    check_words(kind, whole.channels(), &said);
    // Time does not make a link that is over come back.
    let _ = whole.poll(NOW_MS + 1);
    let _ = whole.poll(whole.poll_timeout().min(NOW_MS + 10_000));
}

/// What an end says is taken by the other kind of end, up to a word that ends the link.
fn check_words(kind: u8, channels: u16, said: &[u8]) {
    let (roles, purpose) = match kind % 4 {
        0 | 1 => (Roles::EDGE, Purpose::Clients),
        2 => (Roles::CORE, Purpose::Clients),
        _ => (Roles::CORE, Purpose::Replication),
    };
    let mut me = Hello { node: 2, ..hello(roles, purpose) };
    if roles.has(Roles::CORE) && channels > 0 {
        me.partitions = channels;
    }
    let config = LinkConfig { me, expected_node: None };
    let mut other = match kind % 4 {
        0 | 1 => Link::dial(config, NOW_MS),
        _ => Link::accept(config, NOW_MS),
    };
    let mut rest = said;
    loop {
        match other.next(NOW_MS, &mut rest) {
            Ok(None) => return,
            Ok(Some(Event::Hello(_))) => other.establish(NOW_MS),
            Ok(Some(_)) => {}
            Err(end) => {
                let purpose_differs = !end.by_peer && purpose == Purpose::Clients;
                return assert!(end.by_peer || purpose_differs, "ours is refused: {end}");
            }
        }
    }
}
