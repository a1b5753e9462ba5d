//! `POST /retire?node=N`: gives up a mirror that never comes back.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::gate::{answer, refuse};
use super::state::NodeState;

/// How long partitions have to take the wish. They look twice a second.
const TAKE_MAX: Duration = Duration::from_secs(5);
/// Between looks at whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) async fn retire(
    State(state): State<Arc<NodeState>>,
    RawQuery(query): RawQuery,
) -> Response {
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
    tracing::warn!(event = "mirror_retired", node, "the mirror was retired by an operator");
    answer(StatusCode::OK, json!({ "retired": node, "partitions": mirrors.len() }))
}

fn is_linked(node: u32) -> String {
    format!("node {node} is linked: stop it first; a node that comes back is not to be retired")
}
