//! `POST /retire?node=N`: gives up a mirror that never comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use serde_json::json;

use super::listener::Bounded;
use super::state::NodeState;

/// How long partitions have to take the wish. They look twice a second.
const TAKE_MAX: Duration = Duration::from_secs(5);
/// Between looks at whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker(SocketAddr);

impl Asker {
    /// Whether a request may change something: whoever may look from elsewhere may not, nor may a page that a browser on
    /// this machine shows.
    pub(super) fn may_change(self, headers: &HeaderMap) -> bool {
        self.0.ip().to_canonical().is_loopback() && !headers.contains_key(header::ORIGIN)
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Asker {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self(*stream.remote_addr())
    }
}

pub(super) async fn retire(
    State(state): State<Arc<NodeState>>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    if !asker.may_change(&headers) {
        return refuse(
            StatusCode::FORBIDDEN,
            "only programs on the node itself may retire its mirror",
        );
    }
    let query = query.unwrap_or_default();
    let node = query.strip_prefix("node=").and_then(|node| node.parse::<u32>().ok());
    let Some(node) = node.filter(|node| *node > 0) else {
        return refuse(StatusCode::BAD_REQUEST, "say which node: /retire?node=N");
    };
    let mirrors = state.registry().mirrors();
    if state.info().mirror != Some(node) || !mirrors.iter().any(|mirror| mirror.is_present()) {
        let text = format!("node {node} is not the mirror of node {}", state.info().node_id);
        return refuse(StatusCode::NOT_FOUND, &text);
    }
    if mirrors.iter().any(|mirror| mirror.is_linked()) {
        return refuse(StatusCode::CONFLICT, &is_linked(node));
    }
    mirrors.iter().for_each(|mirror| mirror.ask_retire(node));
    let started = tokio::time::Instant::now();
    // Said once a crash cannot take it back.
    while mirrors.iter().any(|mirror| mirror.retired.value() != u64::from(node)) {
        if mirrors.iter().any(|mirror| mirror.is_linked()) {
            return refuse(StatusCode::CONFLICT, &is_linked(node));
        }
        if started.elapsed() >= TAKE_MAX {
            let text = "not every partition has it in its log yet; look at /status, and try again";
            return refuse(StatusCode::SERVICE_UNAVAILABLE, text);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tracing::warn!(node, "the mirror was retired by an operator");
    answer(StatusCode::OK, json!({ "retired": node, "partitions": mirrors.len() }))
}

fn is_linked(node: u32) -> String {
    format!("node {node} is linked: stop it first; a node that comes back is not to be retired")
}

pub(super) fn refuse(status: StatusCode, why: &str) -> Response {
    answer(status, json!({ "error": why }))
}

pub(super) fn answer(status: StatusCode, body: serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
