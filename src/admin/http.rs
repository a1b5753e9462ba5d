//! The pages of the admin server. Those that change something are POST; who may see and change what is [`super::gate`]'s.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the dashboard: a page that shows what follows, live |
//! | `/events` | what the dashboard shows, each second (server-sent events) |
//! | `/livez` | 200 while the process runs |
//! | `/readyz` | 200 when clients are served; 503 before that and as soon as the node drains, with the reason |
//! | `/health` | JSON, `ok` and the phase; `?verbose` adds every check, with usage and limit |
//! | `/status` | JSON: the node and its mirror as an operator sees them; `iris status` shows it |
//! | `/metrics` | Prometheus text |
//! | `POST /retire?node=N` | gives up a mirror that never comes back |
//! | `POST /reload` | reads the configuration anew, of which some keys take hold |
//! | `POST /drain` | sends all clients away and ends the node |
//! | `POST /logout?user=NAME` | ends all sessions of a user, on other nodes, too |

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use crossbeam_channel::Sender;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Event;
use super::drain::drain;
use super::gate::{Asker, Gate, guard};
use super::listener::Bounded;
use super::logout::logout;
use super::page;
use super::reload::{self, Reloads};
use super::retire::retire;
use super::state::{NodeState, Phase};
use super::status::{status, unready};
use super::watch::{self, Pages};
use crate::metrics::{Process, text};

/// The ways to threads that do what is asked for.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    /// To the task that reads the configuration.
    pub(super) reloads: Reloads,
    /// To the main thread.
    pub(super) events: Sender<Event>,
    /// To the task that watches for dashboards.
    pub(super) pages: Pages,
}

/// Serves the address until the future is dropped.
pub(super) async fn serve(listener: TcpListener, state: Arc<NodeState>, asks: Asks, gate: Gate) {
    let listener = tokio::net::TcpListener::from_std(listener);
    let listener = Bounded::new(listener.expect("a listener that does not block"));
    // It returns only on errors of accept, which axum waits out itself.
    let service = router(state, asks, gate).into_make_service_with_connect_info::<Asker>();
    let _ = axum::serve(listener, service).await;
}

/// The same for the socket, once it is there.
pub(super) async fn serve_socket(
    socket: oneshot::Receiver<(UnixListener, u32)>,
    state: Arc<NodeState>,
    asks: Asks,
) {
    let Ok((listener, owner)) = socket.await else { return std::future::pending().await };
    let listener = tokio::net::UnixListener::from_std(listener);
    let listener = Bounded::new(listener.expect("a listener that does not block"));
    let gate = Gate { token: None, owner: Some(owner) };
    let service = router(state, asks, gate).into_make_service_with_connect_info::<Asker>();
    let _ = axum::serve(listener, service).await;
}

fn router(state: Arc<NodeState>, asks: Asks, gate: Gate) -> Router {
    let events = Router::new().route("/events", get(watch::events));
    let drains = Router::new().route("/drain", post(drain));
    let reload = Router::new().route("/reload", post(reload::page));
    Router::new()
        .route("/", get(page::dashboard))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/health", get(health))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/retire", post(retire))
        .route("/logout", post(logout))
        .fallback(async || {
            let pages =
                "there are /, /events, /livez, /readyz, /health?verbose, /status and /metrics\n";
            (StatusCode::NOT_FOUND, pages)
        })
        .with_state(Arc::clone(&state))
        .merge(events.with_state(asks.pages))
        .merge(reload.with_state((Arc::clone(&state), asks.reloads)))
        .merge(drains.with_state((state, asks.events)))
        .layer(from_fn_with_state(gate, guard))
}

async fn readyz(State(state): State<Arc<NodeState>>) -> Response {
    match unready(&state) {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(state): State<Arc<NodeState>>) -> Response {
    state.registry().set_ready(unready(&state).is_none());
    ([(header::CONTENT_TYPE, text::CONTENT_TYPE)], state.registry().render()).into_response()
}

async fn health(State(state): State<Arc<NodeState>>, RawQuery(query): RawQuery) -> Response {
    let verbose = query.is_some_and(|query| query.split('&').any(|q| q.starts_with("verbose")));
    let checks = checks(&state);
    let ok = checks.iter().all(|check| check["ok"] == true);
    let mut body = json!({ "ok": ok, "phase": state.phase().name() });
    if verbose {
        let info = state.info();
        body["version"] = json!(crate::VERSION);
        body["revision"] = json!(crate::REVISION);
        body["node"] = json!({ "id": info.node_id, "name": info.name, "region": info.region });
        body["uptime_seconds"] = json!(state.uptime().as_secs());
        body["checks"] = Value::Array(checks);
    }
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = format!("{body}\n");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Each check with a name, a verdict and what it saw.
fn checks(state: &NodeState) -> Vec<Value> {
    let registry = state.registry();
    let process = Process::now();
    let (open, max) = (registry.connections(), registry.connections_max());
    let phase = state.phase();
    let unreadable = registry.unreadable();
    vec![
        json!({ "name": "phase", "ok": phase == Phase::Ready, "value": phase.name() }),
        json!({ "name": "disk", "ok": !registry.low_disk(),
                "detail": "sends are refused while the disk is nearly full" }),
        json!({ "name": "log", "ok": !registry.is_damaged(), "value": unreadable,
                "detail": "unreadable ranges; see iris wal verify" }),
        json!({ "name": "routes", "ok": registry.unroutable_shards() == 0,
                "value": registry.unroutable_shards(), "detail": "shards that no core serves" }),
        json!({ "name": "connections", "ok": open < max, "value": open, "limit": max }),
        json!({ "name": "open_files", "ok": process.open_fds < process.max_fds,
                "value": process.open_fds, "limit": process.max_fds }),
    ]
}
