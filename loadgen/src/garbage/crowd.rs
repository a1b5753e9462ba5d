//! What the connections of `garbage` say, and what becomes of them.

use super::kind::{Kind, Mix};
use crate::net::{ConnIndex, Handler};
use hdrhistogram::Histogram;
use iris_proto::wire::{Code, ServerFrame, split_frame};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

/// The longest time that is told apart: a day. Microseconds.
const LONGEST_US: u64 = 86_400_000_000;

/// How connections of one kind ended in one way.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    /// From the connection to its end, microseconds.
    pub(super) took_us: Histogram<u64>,
    /// Shortest and longest wait that they were told.
    pub(super) retry_after_ms: Option<(u32, u32)>,
}

/// What a connection was told.
type Told = (String, u32);

/// The connections.
pub(super) struct Crowd {
    mix: Mix,
    /// When each was connected, while it is open.
    since: Vec<Option<Instant>>,
    /// The start of a frame of the server.
    partial: HashMap<ConnIndex, Vec<u8>>,
    told: HashMap<ConnIndex, Told>,
    random: u64,
    /// Those that leave at the end of the turn.
    pub(super) leaving: Vec<ConnIndex>,
    /// Those of which nothing is left.
    pub(super) free: VecDeque<ConnIndex>,
    /// Connections made.
    pub(super) connected: u64,
    /// Connections under way.
    pub(super) connecting: u32,
    /// Connections that did not come about, by reason.
    pub(super) not_connected: BTreeMap<String, u64>,
    /// How they ended, by kind and by what they were told; without a word, by what their sockets said.
    pub(super) ends: BTreeMap<(Kind, String), Ends>,
}

impl Crowd {
    /// Room for so many.
    pub(super) fn new(mix: Mix, connections: u32, seed: u64) -> Self {
        Self {
            mix,
            since: vec![None; connections as usize],
            partial: HashMap::new(),
            told: HashMap::new(),
            random: seed | 1,
            leaving: Vec::new(),
            free: VecDeque::new(),
            connected: 0,
            connecting: 0,
            not_connected: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    /// Those of a kind that are open.
    pub(super) fn held(&self, kind: Kind) -> u64 {
        let open = (0..).zip(&self.since).filter(|(_, since)| since.is_some());
        open.filter(|(conn, _)| self.mix.kind(*conn) == kind).count() as u64
    }

    /// Whether any is open or under way.
    pub(super) fn is_there(&self) -> bool {
        self.connecting > 0 || self.since.iter().any(Option::is_some)
    }

    /// A connection was cut on our side.
    pub(super) fn left(&mut self, conn: ConnIndex) {
        self.note(conn, "left".to_owned());
    }

    fn note(&mut self, conn: ConnIndex, how: String) {
        self.partial.remove(&conn);
        let told = self.told.remove(&conn);
        let Some(since) = self.since[conn as usize].take() else { return };
        let (how, retry_after_ms) = told.unwrap_or((how, 0));
        let ends = self.ends.entry((self.mix.kind(conn), how)).or_insert_with(|| Ends {
            took_us: Histogram::new_with_max(LONGEST_US, 3).expect("three digits are allowed"),
            retry_after_ms: None,
        });
        ends.took_us.saturating_record(since.elapsed().as_micros() as u64);
        if retry_after_ms > 0 {
            let (least, most) = ends.retry_after_ms.unwrap_or((u32::MAX, 0));
            ends.retry_after_ms = Some((least.min(retry_after_ms), most.max(retry_after_ms)));
        }
    }
}

/// xorshift (Marsaglia 2003): spread is all that is asked of it.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

impl Handler for Crowd {
    fn connected(&mut self, conn: ConnIndex, out: &mut Vec<u8>) {
        self.connecting -= 1;
        self.connected += 1;
        self.since[conn as usize] = Some(Instant::now());
        let kind = self.mix.kind(conn);
        kind.say(out, || next(&mut self.random));
        if kind == Kind::Leave {
            self.leaving.push(conn);
        }
    }

    fn received(&mut self, conn: ConnIndex, bytes: &[u8], _: &mut Vec<u8>) -> Result<(), String> {
        let mut all = self.partial.remove(&conn).unwrap_or_default();
        all.extend_from_slice(bytes);
        let mut rest = &all[..];
        loop {
            match split_frame(rest) {
                Ok(Some((kind, body, after))) => {
                    if let Ok(ServerFrame::Error { code, retry_after_ms, .. }) =
                        ServerFrame::decode(kind, body)
                    {
                        let name = Code::from_u16(code).map_or("unknown_code", Code::name);
                        self.told.insert(conn, (name.to_owned(), retry_after_ms));
                    }
                    rest = after;
                }
                Ok(None) => break,
                Err(_) => return Err("no_frame".to_owned()),
            }
        }
        if !rest.is_empty() {
            self.partial.insert(conn, rest.to_vec());
        }
        Ok(())
    }

    fn ended(&mut self, conn: ConnIndex, reason: &str) {
        if self.since[conn as usize].is_none() {
            self.connecting -= 1;
            *self.not_connected.entry(reason.to_owned()).or_default() += 1;
            return;
        }
        self.note(conn, reason.to_owned());
    }

    fn gone(&mut self, conn: ConnIndex) {
        self.free.push_back(conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iris_proto::wire::put_error;

    #[test]
    fn ends_are_told_apart_by_what_was_said_and_by_what_the_socket_did() {
        let mut crowd = Crowd::new("silent=1".parse().unwrap(), 4, 7);
        let mut error = Vec::new();
        put_error(&mut error, Code::LoginRate, 1500);
        for conn in 0..3 {
            crowd.connecting += 1;
            crowd.connected(conn, &mut Vec::new());
        }
        // One is told in two pieces, one whole, one goes without a word; the last one never came about.
        crowd.received(0, &error[..5], &mut Vec::new()).unwrap();
        crowd.received(0, &error[5..], &mut Vec::new()).unwrap();
        crowd.received(1, &error, &mut Vec::new()).unwrap();
        assert_eq!(crowd.held(Kind::Silent), 3);
        (0..3).for_each(|conn| crowd.ended(conn, "closed_by_server"));
        crowd.connecting += 1;
        crowd.ended(3, "connect_refused");
        let counts: Vec<_> =
            crowd.ends.iter().map(|((_, how), ends)| (how.as_str(), ends.took_us.len())).collect();
        assert_eq!(counts, [("closed_by_server", 1), ("login_rate", 2)]);
        let told = &crowd.ends[&(Kind::Silent, "login_rate".to_owned())];
        assert_eq!(told.retry_after_ms, Some((1500, 1500)));
        assert_eq!(crowd.not_connected["connect_refused"], 1);
        assert!(!crowd.is_there());
    }
}
