//! Who may see and who may change what.
//!
//! | through | `/`, `/livez`, `/readyz` | other pages | `POST` |
//! |---|---|---|---|
//! | the socket, as root or as the server's own user | yes | yes | yes |
//! | TCP with the token of `listen.admin_token` | yes | yes | yes |
//! | TCP without it, if one is configured | yes | no | no |
//! | TCP, if none is configured: then from this machine only, by an address or as localhost | yes | yes | no |

use std::net::{Ipv4Addr, SocketAddr};

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};

use super::listener::Bounded;
use crate::auth::Secret;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// A connection to `listen.admin`.
    Tcp(SocketAddr),
    /// One to the socket, by a process of this user; `None`: the kernel does not say.
    Socket(Option<u32>),
}

impl Connected<IncomingStream<'_, Bounded<TcpListener>>> for Asker {
    fn connect_info(stream: IncomingStream<'_, Bounded<TcpListener>>) -> Self {
        Self::Tcp(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, Bounded<UnixListener>>> for Asker {
    fn connect_info(stream: IncomingStream<'_, Bounded<UnixListener>>) -> Self {
        Self::Socket(stream.io().stream().peer_cred().ok().map(|peer| peer.uid()))
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    /// What TCP connections must show, if anything.
    pub(super) token: Option<Secret>,
    /// Whose the socket is.
    pub(super) owner: Option<u32>,
}

/// Lets a request through, or answers why not.
pub(super) async fn guard(
    State(gate): State<Gate>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    request: Request,
    next: Next,
) -> Response {
    // The dashboard's page is the same for everybody: what it shows, it asks for at /events, and for a token if need be.
    let is_open = matches!(request.uri().path(), "/livez" | "/readyz" | "/");
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if is_open {
        return next.run(request).await;
    }
    match gate.judge(asker, request.headers(), changes) {
        Ok(()) => next.run(request).await,
        Err((status, why)) => refuse(status, why),
    }
}

impl Gate {
    fn judge(
        &self,
        asker: Asker,
        headers: &HeaderMap,
        changes: bool,
    ) -> Result<(), (StatusCode, &'static str)> {
        // A page that a browser on this machine shows may not change anything, whatever the browser has, nor look if it is
        // another one's (Fetch Metadata, W3C); a link that somebody follows shows the answer to nobody else.
        let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
        let shows = headers.get("sec-fetch-dest").is_some_and(|what| what == "document");
        let to_show = shows && !changes;
        let is_others = matches!(site, Some(b"cross-site" | b"same-site")) && !to_show;
        if is_others || changes && headers.contains_key(header::ORIGIN) {
            return Err((StatusCode::FORBIDDEN, "not for pages of a browser"));
        }
        let address = match asker {
            Asker::Socket(uid) => {
                let is_theirs = uid.is_some_and(|uid| uid == 0 || Some(uid) == self.owner);
                let why = "the socket is for root and for the server's own user";
                return if is_theirs { Ok(()) } else { Err((StatusCode::FORBIDDEN, why)) };
            }
            Asker::Tcp(address) => address,
        };
        let shown = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let shown = shown.and_then(|value| value.strip_prefix(b"Bearer "));
        match (&self.token, shown) {
            (Some(token), Some(shown)) if token.is(shown) => Ok(()),
            (Some(_), _) => {
                Err((StatusCode::UNAUTHORIZED, "show the secret of listen.admin_token"))
            }
            (None, _) if changes => Err((
                StatusCode::FORBIDDEN,
                "changes need the node's admin socket, or listen.admin_token",
            )),
            // A page whose name leads here by now is nobody on this machine (DNS rebinding).
            (None, _) if !is_own_name(headers) => {
                Err((StatusCode::FORBIDDEN, "ask by an address or localhost, not by another name"))
            }
            (None, _) if address.ip().to_canonical().is_loopback() => Ok(()),
            (None, _) => Err((StatusCode::FORBIDDEN, "only from the node itself")),
        }
    }
}

/// Whether the node is asked by an address or as localhost (RFC 9110, section 7.2), as who sits on it does.
fn is_own_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<Ipv4Addr>().is_ok()
        || host.starts_with('[')
}

/// An answer that says why not.
pub(super) fn refuse(status: StatusCode, why: &str) -> Response {
    answer(status, json!({ "error": why }))
}

/// An answer in JSON.
pub(super) fn answer(status: StatusCode, body: serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
