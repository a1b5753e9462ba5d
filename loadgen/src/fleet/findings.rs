//! What the threads of another process bring home, in parts of bounded size.

use crate::control::Counts;
use crate::driver::{Findings, SentBy};
use crate::names::Topology;
use crate::net::Handshakes;
use crate::payload::{Arrivals, Came, Verdicts};
use crate::ranges::Ranges;
use crate::stats::Measured;
use serde::{Deserialize, Serialize};

/// Numbers in a part, about: a few hundred kilobytes of text.
const NUMBERS: usize = 20_000;

/// A part of one thread's findings; [`Part::Rest`] is its last one.
#[derive(Serialize, Deserialize)]
pub enum Part {
    /// What came to its receivers, ascending.
    Came(Vec<Came>),
    /// What its senders sent.
    Sent(Vec<SentBy>),
    /// Everything else.
    Rest { measured: Box<Measured>, verdicts: Verdicts, counts: Counts },
}

/// Takes findings apart.
pub fn parts(findings: Findings) -> impl Iterator<Item = Part> {
    // A fleet connects in the clear: there are no handshakes.
    let Findings { measured, verdicts, arrivals, counts, sent, handshakes: _ } = findings;
    let came = chunks(arrivals.into_came(), |came| &came.missing).into_iter().map(Part::Came);
    let sent = chunks(sent, |sent| &sent.not_accepted).into_iter().map(Part::Sent);
    came.chain(sent).chain(std::iter::once(Part::Rest {
        measured: Box::new(measured),
        verdicts,
        counts,
    }))
}

fn chunks<T>(all: Vec<T>, ranges: impl Fn(&T) -> &Ranges) -> Vec<Vec<T>> {
    let (mut chunks, mut numbers) = (Vec::new(), NUMBERS);
    for one in all {
        if numbers >= NUMBERS {
            chunks.push(Vec::new());
            numbers = 0;
        }
        numbers += 2 + 2 * ranges(&one).pieces();
        chunks.last_mut().expect("there is one").push(one);
    }
    chunks
}

/// Puts the findings of one process together.
pub struct Assembly {
    topology: Topology,
    whole: Vec<Findings>,
    arrivals: Arrivals,
    sent: Vec<SentBy>,
}

impl Assembly {
    /// Nothing yet.
    pub fn new(topology: Topology) -> Self {
        let arrivals = Arrivals::none(topology);
        Self { topology, whole: Vec::new(), arrivals, sent: Vec::new() }
    }

    /// Takes a part; fails for what cannot be.
    pub fn take(&mut self, part: Part) -> Result<(), &'static str> {
        match part {
            Part::Came(came) => {
                self.arrivals.add(came).then_some(()).ok_or("messages for users who get none")
            }
            Part::Sent(sent) => {
                let is_sender = |sent: &SentBy| sent.user < self.topology.senders();
                if !sent.iter().all(is_sender) {
                    return Err("messages of users who send none");
                }
                self.sent.extend(sent);
                Ok(())
            }
            Part::Rest { measured, verdicts, counts } => {
                let none = Arrivals::none(self.topology);
                let arrivals = std::mem::replace(&mut self.arrivals, none);
                let (sent, measured) = (std::mem::take(&mut self.sent), *measured);
                let handshakes = Handshakes::default();
                let findings = Findings { measured, verdicts, arrivals, counts, sent, handshakes };
                self.whole.push(findings);
                Ok(())
            }
        }
    }

    /// All findings, one for each thread.
    pub fn finish(self) -> Vec<Findings> {
        self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_come_together_as_they_were_however_many_there_are() {
        let topology = Topology::Pairs(60_000);
        let missing = |from: u32| {
            let mut ranges = Ranges::default();
            ranges.insert(from, from + 1);
            ranges
        };
        let came = |place| Came { place, next: 9, missing: missing(3) };
        let mut arrivals = Arrivals::none(topology);
        assert!(arrivals.add((0..60_000).map(came).collect()));
        let sent = |user| SentBy { user, messages: 9, not_accepted: missing(4) };
        let mut measured = Measured::default();
        measured.accepted.record(7);
        let findings = Findings {
            measured,
            verdicts: Verdicts { delivered: 5, ..Verdicts::default() },
            arrivals,
            counts: Counts { sent: 6, ..Counts::default() },
            sent: (0..60_000).map(sent).collect(),
            handshakes: Handshakes::default(),
        };
        let mut assembly = Assembly::new(topology);
        let mut count = 0;
        for part in parts(findings) {
            let text = serde_json::to_string(&part).unwrap();
            assert!(text.len() < 1 << 20, "{} bytes", text.len());
            assembly.take(serde_json::from_str(&text).unwrap()).unwrap();
            count += 1;
        }
        assert!(count > 10, "{count} parts");
        let found = assembly.finish().pop().unwrap();
        assert_eq!((found.verdicts.delivered, found.counts.sent, found.sent.len()), (5, 6, 60_000));
        assert_eq!(found.measured.accepted.count(), 1);
        let lost = found.arrivals.lost(2, 3, 9, &found.sent[2].not_accepted);
        assert_eq!(lost, 1, "3 did not come, 4 was not accepted");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut assembly = Assembly::new(Topology::FanIn(2));
        let came = Came { place: 2, next: 1, missing: Ranges::default() };
        assert!(assembly.take(Part::Came(vec![came])).is_err());
        let sent = SentBy { user: 2, messages: 1, not_accepted: Ranges::default() };
        assert!(assembly.take(Part::Sent(vec![sent])).is_err());
    }
}
