//! `POST /logout?user=NAME`: ends all sessions of a user, wherever they are.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use iris_proto::id::UserKey;
use serde_json::json;
use tokio::sync::mpsc;

use super::gate::{answer, refuse};
use super::state::NodeState;
use crate::auth::is_user_name;

/// Time for the threads of this node to look for the user.
const LOOK_MAX: Duration = Duration::from_secs(10);

pub(super) async fn logout(
    State(state): State<Arc<NodeState>>,
    RawQuery(query): RawQuery,
) -> Response {
    let user = query.as_deref().and_then(|query| query.strip_prefix("user=")).and_then(decoded);
    let Some(user) = user.filter(|user| is_user_name(user)) else {
        return refuse(StatusCode::BAD_REQUEST, "say who: /logout?user=NAME");
    };
    let Some(ejector) = state.ejector() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the node is starting");
    };
    let key = UserKey::of(&user);
    let (sender, mut ended) = mpsc::unbounded_channel();
    let here = ejector.here(key, Some(&sender));
    let elsewhere = ejector.elsewhere(key);
    drop(sender);
    let (Ok(()), Ok(told)) = (here, elsewhere) else {
        let why = "too many such wishes wait; try again";
        return refuse(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    let count = async {
        let mut sessions = 0;
        while let Some(more) = ended.recv().await {
            sessions += more;
        }
        sessions
    };
    let Ok(sessions) = tokio::time::timeout(LOOK_MAX, count).await else {
        let why = "a thread did not answer in time; it ends the sessions when it gets to it";
        return refuse(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    tracing::info!(user, sessions, told, "an operator ended the sessions of a user");
    answer(StatusCode::OK, json!({ "user": user, "ended": sessions, "other_nodes_told": told }))
}

/// Percent-encoded UTF-8 (RFC 3986, section 2.1).
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push((digit(high)? << 4 | digit(low)?) as u8);
                rest = after;
            }
            (b'%' | b'&' | b'+', _) => return None,
            (plain, _) => bytes.push(*plain),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_from_what_a_query_holds() {
        assert_eq!(decoded("ann"), Some("ann".to_owned()));
        assert_eq!(decoded("J%c3%B6rg%20%2F%26"), Some("J\u{f6}rg /&".to_owned()));
        for wrong in ["%", "%4", "%zz", "a&b=c", "a+b", "%ff"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
