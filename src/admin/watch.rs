//! Looks at the node once a second: reckons the cost score, notes what no thread sees alone, and tells the pages that
//! are open.
//!
//! Pages are told by server-sent events (HTML Living Standard, 9.2): one snapshot each, at once and then at every look.
//! The dashboard reads them by fetch(), because an EventSource can set no header and so could show no token; one in
//! the address would be kept in histories and logs. A page that takes nothing misses looks, and costs one snapshot.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::MissedTickBehavior;

use super::gate::refuse;
use super::snapshot::snapshot;
use super::state::{NodeState, Phase};
use super::status::unready;
use crate::events::{self, Event};
use crate::metrics::cost::{Sample, Window};
use crate::metrics::{Label, LimitHit, Process, Registry, RejectReason};

/// Pages that are told, at most.
const PAGES_MAX: usize = 16;
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Events that are kept, at most.
const EVENTS_MAX: usize = 100;
/// Looks without a refusal after which a spell of refusals is over.
const CALM_LOOKS: u32 = 30;

/// For opening pages.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    opening: mpsc::Sender<mpsc::Sender<Bytes>>,
    room: Arc<Semaphore>,
}

/// Where opened pages come in.
pub(super) type Opened = mpsc::Receiver<mpsc::Sender<Bytes>>;

impl Pages {
    pub(super) fn new() -> (Self, Opened) {
        let (opening, opened) = mpsc::channel(PAGES_MAX);
        (Self { opening, room: Arc::new(Semaphore::new(PAGES_MAX)) }, opened)
    }
}

/// `/events`: snapshots until the page is closed.
pub(super) async fn events(State(pages): State<Pages>) -> Response {
    let full = || refuse(StatusCode::SERVICE_UNAVAILABLE, "as many pages are open as may be");
    let Ok(permit) = Arc::clone(&pages.room).try_acquire_owned() else { return full() };
    let (sender, snapshots) = mpsc::channel(1);
    if pages.opening.try_send(sender).is_err() {
        return full();
    }
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    let body = Body::from_stream(Snapshots { snapshots, _permit: permit });
    (headers, body).into_response()
}

/// The body of an answer that goes on.
struct Snapshots {
    snapshots: mpsc::Receiver<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Stream for Snapshots {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.snapshots.poll_recv(cx).map(|snapshot| snapshot.map(Ok))
    }
}

/// Looks until the future is dropped.
pub(super) async fn run(state: Arc<NodeState>, mut opened: Opened) {
    let mut watcher = Watcher::new(state);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => watcher.look(),
            Some(page) = opened.recv() => {
                watcher.pages.push(page);
                watcher.tell(watcher.pages.len() - 1);
            }
        }
    }
}

struct Watcher {
    state: Arc<NodeState>,
    pages: Vec<mpsc::Sender<Bytes>>,
    /// The last ones, with their numbers, oldest first.
    events: VecDeque<(u64, Event)>,
    next_event: u64,
    window: Window,
    routes: Routes,
    spells: Vec<Spell>,
}

impl Watcher {
    fn new(state: Arc<NodeState>) -> Self {
        Self {
            state,
            pages: Vec::new(),
            events: VecDeque::new(),
            next_event: 1,
            window: Window::default(),
            routes: Routes::default(),
            spells: refusals().map(|_| Spell::default()).collect(),
        }
    }

    fn look(&mut self) {
        let registry = self.state.registry();
        registry.set_ready(unready(&self.state).is_none());
        let process = Process::now();
        let cost = self.window.add(Sample {
            at_ms: self.state.uptime().as_millis() as u64,
            cpu_ms: process.cpu_ms,
            messages: registry.messages_moved(),
            connections: registry.connections(),
            resident_bytes: process.resident_bytes,
        });
        registry.cost().set(&cost);
        if self.state.phase() >= Phase::Ready {
            self.routes.look(registry);
        }
        for (spell, (kind, reason, count)) in self.spells.iter_mut().zip(refusals()) {
            match spell.look(count(registry)) {
                Some(News::Begun) => {
                    tracing::warn!(event = "refusals_began", kind, reason, "refusals began");
                }
                Some(News::Over { refused }) => {
                    let text = "refusals are over";
                    tracing::info!(event = "refusals_over", kind, reason, refused, "{text}");
                }
                None => {}
            }
        }
        for event in events::take() {
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back((self.next_event, event));
            self.next_event += 1;
        }
        self.pages.retain(|page| !page.is_closed());
        self.tell(0);
    }

    /// Gives the pages from that one on a snapshot.
    fn tell(&self, from: usize) {
        let Some(pages) = self.pages.get(from..).filter(|pages| !pages.is_empty()) else { return };
        let text = format!("data: {}\n\n", snapshot(&self.state, self.events.iter()));
        let text = Bytes::from(text);
        for page in pages {
            // Full: the page has not taken the last one; closed: it goes at the next look.
            let _ = page.try_send(text.clone());
        }
    }
}

/// Where this edge's shards go.
#[derive(Debug, Default)]
struct Routes {
    failovers: u64,
    is_unroutable: bool,
}

impl Routes {
    fn look(&mut self, registry: &Registry) {
        let failovers = registry.shard_failovers();
        if failovers > self.failovers {
            let shards = failovers - self.failovers;
            let text = "shards lost their core and went to another";
            tracing::warn!(event = "shards_failed_over", shards, "{text}");
        }
        self.failovers = failovers;
        let unroutable = registry.unroutable_shards();
        if (unroutable > 0) != self.is_unroutable {
            self.is_unroutable = unroutable > 0;
            if self.is_unroutable {
                tracing::warn!(event = "shards_unroutable", unroutable, "shards without a core");
            } else {
                tracing::info!(event = "shards_routed", "every shard has a core");
            }
        }
    }
}

/// Everything that is refused, by kind and reason, and how it is counted.
fn refusals() -> impl Iterator<Item = (&'static str, &'static str, impl Fn(&Registry) -> u64)> {
    enum Of {
        Sends(RejectReason),
        Limit(LimitHit),
    }
    let sends = RejectReason::ALL.iter().map(|reason| ("send", reason.name(), Of::Sends(*reason)));
    let limits = LimitHit::ALL.iter().map(|limit| ("limit", limit.name(), Of::Limit(*limit)));
    sends.chain(limits).map(|(kind, reason, of)| {
        let count = move |registry: &Registry| match of {
            Of::Sends(reason) => registry.rejected(reason),
            Of::Limit(limit) => registry.limited(limit),
        };
        (kind, reason, count)
    })
}

/// Refusals for one reason, from the first one until there were none for a while.
#[derive(Debug, Default)]
struct Spell {
    total: u64,
    /// The total before it began, and looks without a refusal, while it goes on.
    begun: Option<(u64, u32)>,
}

#[derive(Debug, PartialEq, Eq)]
enum News {
    Begun,
    Over { refused: u64 },
}

impl Spell {
    fn look(&mut self, total: u64) -> Option<News> {
        let before = std::mem::replace(&mut self.total, total);
        let is_calm = total == before;
        match &mut self.begun {
            None if is_calm => None,
            None => {
                self.begun = Some((before, 0));
                Some(News::Begun)
            }
            Some((_, calm)) if !is_calm => {
                *calm = 0;
                None
            }
            Some((from, calm)) => {
                *calm += 1;
                if *calm < CALM_LOOKS {
                    return None;
                }
                let refused = total - *from;
                self.begun = None;
                Some(News::Over { refused })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spell_of_refusals_is_told_once_and_its_end_after_a_while_without_any() {
        let mut spell = Spell::default();
        assert_eq!(spell.look(0), None);
        assert_eq!(spell.look(3), Some(News::Begun));
        assert_eq!(spell.look(9), None);
        for _ in 1..CALM_LOOKS {
            assert_eq!(spell.look(9), None);
        }
        assert_eq!(spell.look(10), None, "it goes on");
        for _ in 1..CALM_LOOKS {
            assert_eq!(spell.look(10), None);
        }
        assert_eq!(spell.look(10), Some(News::Over { refused: 10 }));
        assert_eq!(spell.look(10), None);
        assert_eq!(spell.look(11), Some(News::Begun));
    }
}
