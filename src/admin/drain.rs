//! `POST /drain?rate=N&timeout_ms=N`: sends all clients away and ends the node, as SIGTERM does.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use crossbeam_channel::Sender;
use iris_proto::drain::{TIME_MS_MAX, Wish};
use serde_json::{Value, json};

use super::Event;
use super::gate::{answer, refuse};
use super::state::{NodeState, Phase};

/// How long the main thread has to begin. It waits for nothing else.
const BEGIN_MAX: Duration = Duration::from_secs(5);
/// Between looks at whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(super) async fn drain(
    State((state, events)): State<(Arc<NodeState>, Sender<Event>)>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(wish) = wish(query.as_deref().unwrap_or_default()) else {
        let why = "say how: /drain?rate=N (connections a second) and timeout_ms=N (a day at most), or neither";
        return refuse(StatusCode::BAD_REQUEST, why);
    };
    match state.phase() {
        Phase::Starting | Phase::Recovering => {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "the node is starting");
        }
        Phase::Draining | Phase::Stopping => {
            state.await_end();
            let body = json!({ "error": "the node drains already", "drain": shown(&state) });
            return answer(StatusCode::CONFLICT, body);
        }
        Phase::Ready => {}
    }
    // Before: a node without clients is empty at once.
    state.await_end();
    let asked = events.try_send(Event::Drain(wish));
    let started = tokio::time::Instant::now();
    while state.phase() < Phase::Draining {
        if asked.is_err() || started.elapsed() >= BEGIN_MAX {
            state.end_wait();
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "the node is about to stop by itself");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    answer(StatusCode::ACCEPTED, json!({ "drain": shown(&state) }))
}

/// How far it is; `null` before.
pub(super) fn shown(state: &NodeState) -> Value {
    let (registry, drain) = (state.registry(), state.registry().drain());
    let started_unix_ms = drain.started_unix_ms.value();
    if started_unix_ms == 0 {
        return Value::Null;
    }
    json!({
        "connections": drain.connections.value(),
        "left": registry.connections(),
        "rate_per_s": drain.rate_per_s.value(),
        "started_unix_ms": started_unix_ms,
        "closed_unix_ms": drain.closed_unix_ms.value(),
        "end_unix_ms": drain.end_unix_ms.value(),
        "empty": state.is_empty(),
    })
}

fn wish(query: &str) -> Option<Wish> {
    let mut wish = Wish { time_ms: None, rate_per_s: None };
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=')? {
            ("rate", rate) if wish.rate_per_s.is_none() => {
                wish.rate_per_s = Some(rate.parse::<NonZeroU32>().ok()?);
            }
            ("timeout_ms", time) if wish.time_ms.is_none() => {
                wish.time_ms = Some(time.parse().ok().filter(|time| *time <= TIME_MS_MAX)?);
            }
            _ => return None,
        }
    }
    Some(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_taken_whole_or_not_at_all() {
        let of = |time_ms, rate| Wish { time_ms, rate_per_s: NonZeroU32::new(rate) };
        for (query, wanted) in [
            ("", of(None, 0)),
            ("rate=500", of(None, 500)),
            ("timeout_ms=0&rate=1", of(Some(0), 1)),
            ("timeout_ms=86400000", of(Some(86_400_000), 0)),
        ] {
            assert_eq!(wish(query), Some(wanted), "{query}");
        }
        for query in [
            "rate=0",
            "rate",
            "rate=-1",
            "rate=1&rate=2",
            "timeout_ms=86400001",
            "timeout=1",
            "rate=1s",
        ] {
            assert_eq!(wish(query), None, "{query}");
        }
    }
}
