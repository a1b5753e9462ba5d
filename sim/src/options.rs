//! What a run is told and what it tells.

use iris_proto::edge::Counters;

use crate::faults::Kind;

/// One run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Keep so many of the last events.
    pub trace: usize,
    /// Milliseconds in which things go wrong.
    pub fault_ms: u64,
    /// Milliseconds after the last fault in which everything must be well.
    pub calm_ms: u64,
    /// A way in which the machines are wrong on purpose.
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<iris_proto::sabotage::Sabotage>,
    /// Whether some clients reach the cores through edges.
    pub edges: bool,
    /// Faults to choose from; if empty, some of all, as the seed decides.
    pub kinds: Vec<Kind>,
    /// Inboxes hold so many messages, and the oldest ones give way; `None`: nothing is dropped.
    pub drop_above: Option<u32>,
}

impl Options {
    /// A run of mixed faults. Even seeds have edges; the history of odd ones does not depend on what edges do.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            trace: 0,
            fault_ms: 1500,
            calm_ms: 3000,
            edges: seed.is_multiple_of(2),
            kinds: Vec::new(),
            drop_above: None,
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }
}

/// How a run ended.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What was not true, if anything.
    pub broken: Option<String>,
    /// When, in milliseconds of the run.
    pub at_ms: u64,
    /// Messages that clients were told are in.
    pub accepted: u64,
    /// Of those, with one copy.
    pub accepted_alone: u64,
    /// Messages that recipients got, each counted once.
    pub received: u64,
    /// Deliveries of messages that a recipient had got before.
    pub repeated: u64,
    /// Messages lost with the only disk that held them: allowed, and counted.
    pub excused: u64,
    /// Deliveries whose order was checked.
    pub ordered: u64,
    /// Deliveries put off because the disk refused to read.
    pub put_off: u64,
    /// The last events, as many as were asked for.
    pub trace: Vec<String>,
    /// Faults begun, by kind.
    pub faults: Vec<(Kind, u64)>,
    /// Times a node changed its mode.
    pub mode_changes: u64,
    /// Splits reported.
    pub splits: u64,
    /// Entries removed because both nodes had taken the same id.
    pub collapsed: u64,
    /// Records that a node reported lost.
    pub lost_reported: u64,
    /// Streams fenced.
    pub fenced: u64,
    /// Segments dropped.
    pub dropped: u64,
    /// Messages that gave way in a full inbox before they were read.
    pub displaced: u64,
    /// SENDs that clients behind edges were told are in.
    pub accepted_behind: u64,
    /// Shards that edges moved because a core was lost, and in order.
    pub moves: [u64; 2],
    /// SENDs that edges sent again, and logins that they repeated.
    pub repeats: [u64; 2],
    /// Clients that an edge sent away.
    pub kicked: u64,
    /// A digest of everything that was said: two runs of a seed have the same.
    pub digest: u64,
}

impl Outcome {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.accepted_alone += other.accepted_alone;
        self.received += other.received;
        self.repeated += other.repeated;
        self.excused += other.excused;
        self.ordered += other.ordered;
        self.put_off += other.put_off;
        self.mode_changes += other.mode_changes;
        self.splits += other.splits;
        self.collapsed += other.collapsed;
        self.lost_reported += other.lost_reported;
        self.fenced += other.fenced;
        self.dropped += other.dropped;
        self.displaced += other.displaced;
        self.accepted_behind += other.accepted_behind;
        for part in 0..2 {
            self.moves[part] += other.moves[part];
            self.repeats[part] += other.repeats[part];
        }
        self.kicked += other.kicked;
        self.at_ms += other.at_ms;
        for (kind, count) in &other.faults {
            match self.faults.iter_mut().find(|(of, _)| of == kind) {
                Some((_, sum)) => *sum += count,
                None => self.faults.push((*kind, *count)),
            }
        }
        self.faults.sort();
    }

    /// Adds what an edge counted.
    pub(crate) fn count_edge(&mut self, counters: &Counters) {
        self.moves[0] += counters.failovers;
        self.moves[1] += counters.moves;
        self.repeats[0] += counters.resent;
        self.repeats[1] += counters.relogins;
    }

    /// One object, for programs.
    pub fn to_json(&self, seeds: u64, broken: &[(u64, String)]) -> serde_json::Value {
        let broken: Vec<serde_json::Value> = broken
            .iter()
            .map(|(seed, what)| serde_json::json!({"seed": seed, "what": what}))
            .collect();
        let faults: serde_json::Map<String, serde_json::Value> = self
            .faults
            .iter()
            .map(|(kind, count)| (kind.name().to_owned(), (*count).into()))
            .collect();
        serde_json::json!({
            "seeds": seeds, "broken": broken, "simulated_ms": self.at_ms,
            "accepted": self.accepted, "accepted_alone": self.accepted_alone,
            "received": self.received, "repeated": self.repeated, "excused": self.excused,
            "ordered": self.ordered, "put_off": self.put_off,
            "mode_changes": self.mode_changes, "splits": self.splits, "collapsed": self.collapsed,
            "lost_reported": self.lost_reported, "fenced": self.fenced, "dropped": self.dropped,
            "displaced": self.displaced,
            "accepted_behind": self.accepted_behind, "failovers": self.moves[0],
            "moves": self.moves[1], "resent": self.repeats[0], "relogins": self.repeats[1],
            "kicked": self.kicked,
            "faults": faults,
        })
    }

    /// Some lines, for people.
    pub fn to_text(&self, seeds: u64, broken: usize) -> String {
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, count)| format!("{} {count}", kind.name())).collect();
        format!(
            "{seeds} seeds, {broken} broken, {} s simulated\n\
             {} accepted ({} with one copy), {} received, {} repeated, {} excused, {} in checked order, \
             {} put off\n\
             {} changes of mode, {} splits, {} collapsed, {} records lost by report, {} fenced, \
             {} segments dropped, {} messages displaced\n\
             behind edges: {} accepted, {} failovers, {} moves, {} sent again, {} logged in again, {} kicked\n\
             faults: {}",
            self.at_ms / 1000,
            self.accepted,
            self.accepted_alone,
            self.received,
            self.repeated,
            self.excused,
            self.ordered,
            self.put_off,
            self.mode_changes,
            self.splits,
            self.collapsed,
            self.lost_reported,
            self.fenced,
            self.dropped,
            self.displaced,
            self.accepted_behind,
            self.moves[0],
            self.moves[1],
            self.repeats[0],
            self.repeats[1],
            self.kicked,
            faults.join(", ")
        )
    }
}
