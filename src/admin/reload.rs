//! Reading the configuration anew: at SIGHUP and at `POST /reload`. One task does it, one request after the other.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::gate::{answer, refuse};
use super::state::{NodeState, Phase};
use crate::config::{Host, Problems, Reload, Reloaded};
use crate::logging;
use crate::tls::Reloader;

/// Requests that wait for the one before.
const WAITING_MAX: usize = 16;
/// How long reactors have to take limits. They look once a second.
const TAKE_MAX: Duration = Duration::from_secs(5);
/// Between looks at whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The outcome: what was read and as which generation, or what is wrong with it.
type Outcome = Result<(u64, Reloaded), Problems>;

/// For asking the task.
#[derive(Clone, Debug)]
pub(super) struct Reloads(mpsc::Sender<Option<oneshot::Sender<Outcome>>>);

/// The task's end.
pub(super) type Asked = mpsc::Receiver<Option<oneshot::Sender<Outcome>>>;

impl Reloads {
    pub(super) fn new() -> (Self, Asked) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Asks without waiting for the outcome, which is logged. If others wait already, theirs will do.
    pub(super) fn ask(&self) {
        let _ = self.0.try_send(None);
    }

    /// Asks and waits. `None`: the node cannot reload, or too many ask.
    async fn outcome(&self) -> Option<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.0.try_send(Some(sender)).ok()?;
        receiver.await.ok()
    }
}

/// Reloads when asked, for ever.
pub(super) async fn run(
    mut reload: Reload,
    tls: Option<Reloader>,
    mut asked: Asked,
    state: Arc<NodeState>,
) {
    while let Some(teller) = asked.recv().await {
        // While the node starts, READY=1 is not for this to say.
        let is_ready = state.phase() == Phase::Ready;
        if is_ready {
            state.notifier().reloading();
        }
        let outcome = read(&mut reload, tls.as_ref());
        let outcome = outcome.map(|reloaded| (apply(&reloaded, &state), reloaded));
        if outcome.is_err() {
            state.registry().config().note_failed();
        }
        say(&outcome);
        if is_ready {
            state.notifier().ready(&status(&outcome));
        }
        if let Some(teller) = teller {
            // An error means that who asked is gone.
            let _ = teller.send(outcome);
        }
    }
}

/// Reads the configuration and the files of TLS, and has the latter take hold if all of it is sound.
fn read(reload: &mut Reload, tls: Option<&Reloader>) -> Result<Reloaded, Problems> {
    let host = Host::detect();
    let Some(tls) = tls else { return reload.read(&host) };
    let outcome = match tls.load() {
        Ok(loaded) => reload.read(&host).inspect(|_| tls.take(&loaded)),
        Err(problems) => Err(reload.problems(&host, problems)),
    };
    outcome.inspect_err(|_| tls.note_problems())
}

/// What the service manager shows until the next look.
fn status(outcome: &Outcome) -> String {
    match outcome {
        Ok((generation, _)) => format!("reloaded (generation {generation})"),
        Err(_) => "not reloaded: the configuration has problems, see the log".to_owned(),
    }
}

/// Has what was read take hold. Its generation.
fn apply(reloaded: &Reloaded, state: &NodeState) -> u64 {
    logging::apply(&reloaded.log);
    state.set_drain_time(reloaded.drain_time);
    let generation = state.registry().config().note_loaded();
    state.post_limits(generation, reloaded.limits.per_reactor(state.registry().reactors()));
    generation
}

fn say(outcome: &Outcome) {
    match outcome {
        Ok((generation, reloaded)) => {
            tracing::info!(event = "reloaded", generation, "the configuration was read anew");
            for key in &reloaded.applied {
                tracing::info!(key, "applied");
            }
            for key in &reloaded.needs_restart {
                tracing::warn!(event = "restart_needed", key, "needs a restart");
            }
        }
        Err(problems) => {
            for line in problems.to_string().lines() {
                tracing::error!(event = "reload_failed", "not reloaded: {line}");
            }
        }
    }
}

/// `POST /reload`: answers once every reactor has the limits.
pub(super) async fn page(State((state, reloads)): State<(Arc<NodeState>, Reloads)>) -> Response {
    let (generation, reloaded) = match reloads.outcome().await {
        Some(Ok(done)) => done,
        Some(Err(problems)) => {
            let body = json!({
                "error": "the configuration has problems, and nothing was changed",
                "problems": problems.to_json(),
            });
            return answer(StatusCode::UNPROCESSABLE_ENTITY, body);
        }
        None => return refuse(StatusCode::SERVICE_UNAVAILABLE, "not now; try again"),
    };
    let started = tokio::time::Instant::now();
    while state.registry().limits_revision().is_some_and(|taken| taken < generation) {
        if started.elapsed() >= TAKE_MAX {
            let text = "not every reactor has taken the limits yet; see iris_limits_revision";
            return refuse(StatusCode::SERVICE_UNAVAILABLE, text);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let Reloaded { applied, needs_restart, .. } = reloaded;
    let body =
        json!({ "generation": generation, "applied": applied, "needs_restart": needs_restart });
    answer(StatusCode::OK, body)
}
