//! `/status`: the node as an operator sees it, as JSON. `docs/OPERATING.md` says what each field means; they are stable.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use iris_proto::peer::Purpose;
use serde_json::{Map, Value, json};

use super::drain;
use super::state::{NodeState, Phase};
use crate::metrics::{
    CoreLink, Label, LinkEnd, LinkRefusal, MirrorMetrics, MirrorMode, MirrorState,
};

/// Failovers of partitions that are at most so far apart are one. Milliseconds.
const TOGETHER_MS: u64 = 10_000;

/// Why clients are not served, if so.
pub(super) fn unready(state: &NodeState) -> Option<&'static str> {
    match state.phase() {
        Phase::Ready if state.registry().unroutable_shards() > 0 => {
            Some("no core: some shards are served by none")
        }
        Phase::Ready => None,
        Phase::Starting => Some("starting: threads are not up yet"),
        Phase::Recovering => Some("recovering: reading the log"),
        Phase::Draining => Some("draining: clients are sent elsewhere"),
        Phase::Stopping => Some("stopping"),
    }
}

/// `?awaits=empty`: who asks began a drain, and will not ask again once it has seen the end.
pub(super) async fn status(
    State(state): State<Arc<NodeState>>,
    RawQuery(query): RawQuery,
) -> Response {
    let report = report(&state);
    let drain = &report["drain"];
    let is_over = drain["empty"] == true
        || report["phase"] == Phase::Stopping.name() && drain["left"].as_u64() > Some(0);
    // What counts is what is said: more may have happened since.
    if query.as_deref() == Some("awaits=empty") && is_over {
        state.end_wait();
    }
    let body = format!("{report:#}\n");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// All of it.
pub(super) fn report(state: &NodeState) -> Value {
    let (info, registry) = (state.info(), state.registry());
    let problems = problems(state);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut roles = Vec::new();
    roles.extend(info.roles.edge.then_some("edge"));
    roles.extend(info.roles.core.then_some("core"));
    json!({
        "node": { "id": info.node_id, "name": info.name, "region": info.region },
        "roles": roles,
        "version": crate::VERSION,
        "revision": crate::REVISION,
        "time_unix_ms": now.as_millis() as u64,
        "uptime_seconds": state.uptime().as_secs(),
        "phase": state.phase().name(),
        "ready": unready(state).is_none(),
        "admin_socket": state.socket().map(|path| path.to_string_lossy()),
        "healthy": problems.is_empty(),
        "problems": problems,
        "clients": info.roles.edge.then(|| json!({
            "connections": registry.connections(),
            "logged_in": registry.logged_in(),
            "limit": registry.connections_max(),
            "unanswered_sends": registry.unanswered(),
            "unroutable_shards": registry.unroutable_shards(),
            "shard_failovers": registry.shard_failovers(),
            "routes": routes(state),
        })),
        "inboxes": info.roles.core.then(|| inboxes(state)),
        "mirror": mirror(state),
        "drain": drain::shown(state),
        "links": (!info.cores.is_empty()).then(|| links(state)),
    })
}

/// To which core shards' traffic goes; empty: a node alone.
fn routes(state: &NodeState) -> Value {
    let cores = (0..).zip(&state.info().cores);
    let routes = cores.map(|(place, node): (usize, _)| {
        json!({ "core": node, "shards": state.registry().shards_at(place) })
    });
    routes.collect()
}

fn inboxes(state: &NodeState) -> Value {
    let registry = state.registry();
    json!({
        "partitions": registry.mirrors().len(),
        "messages": registry.waiting(),
        "users_online": registry.users_online(),
        "low_disk": registry.low_disk(),
        "disk_free_bytes": registry.disk_free_bytes(),
        "unreadable_ranges": registry.unreadable(),
    })
}

/// The pair; `null` for a node that is no core of one.
fn mirror(state: &NodeState) -> Value {
    let mirrors = state.registry().mirrors();
    let Some(node) = state.info().mirror.filter(|_| is_paired(mirrors)) else { return Value::Null };
    let mut whole = in_all(mirrors);
    whole.insert("node".to_owned(), json!(node));
    let partitions = (0..).zip(mirrors).map(|(index, mirror): (u32, _)| {
        let mut part = in_all(std::slice::from_ref(mirror));
        part.insert("partition".to_owned(), json!(index));
        Value::Object(part)
    });
    whole.insert("partitions".to_owned(), partitions.collect());
    Value::Object(whole)
}

fn is_paired(mirrors: &[Arc<MirrorMetrics>]) -> bool {
    mirrors.iter().any(|mirror| mirror.is_present())
}

/// What some partitions say together: the worst state, the longest time, the sum of what can be added up. Of failovers,
/// splits and changes of mode, which partitions see alike, it is the most that one saw.
fn in_all(mirrors: &[Arc<MirrorMetrics>]) -> Map<String, Value> {
    let sum = |of: fn(&MirrorMetrics) -> u64| mirrors.iter().map(|m| of(m)).sum::<u64>();
    let most = |of: fn(&MirrorMetrics) -> u64| mirrors.iter().map(|m| of(m)).max().unwrap_or(0);
    let any = |of: fn(&MirrorMetrics) -> bool| mirrors.iter().any(|m| of(m));
    let refused = LinkRefusal::ALL.iter().filter_map(|reason| {
        let links: u64 = mirrors.iter().map(|m| m.refused.at(*reason).value()).sum();
        (links > 0).then(|| (reason.name().to_owned(), json!(links)))
    });
    let value = json!({
        "state": worst_state(mirrors).name(),
        "mode": worst_mode(mirrors).name(),
        "state_id": most(|m| m.state_id.value()),
        "linked": mirrors.iter().all(|m| m.is_linked()),
        "mirror_incarnation": most(|m| m.peer_incarnation.value()),
        "lag": {
            "records": sum(|m| m.lag_records.value()),
            "bytes": sum(|m| m.lag_bytes.value()),
            "ms": most(|m| m.lag_ms.value()),
        },
        "one_copy_messages": sum(|m| m.copies_one.value()),
        "failovers": most(|m| m.failovers.value()),
        "last_failover": last_failover(mirrors),
        "splits": most(|m| m.splits.value()),
        "last_split": any(|m| m.splits.value() > 0).then(|| json!({
            "mine": sum(|m| m.last_split_mine.value()),
            "theirs": sum(|m| m.last_split_theirs.value()),
            "collapsed": sum(MirrorMetrics::last_split_collapsed),
            "conflicts": sum(MirrorMetrics::last_split_conflicts),
        })),
        "collapsed": sum(|m| m.collapsed.value()),
        "conflicts": sum(|m| m.conflicts.value()),
        "fenced_streams": sum(|m| m.fenced_streams.value()),
        "incomplete": any(|m| m.incomplete.value() != 0),
        "damaged": any(|m| m.damaged.value() != 0),
        "retired": any(|m| m.retired.value() != 0),
        "shipped_bytes": sum(|m| m.shipped_bytes.value()),
        "healed_bytes": sum(|m| m.healed_bytes.value()),
        "received_records": sum(|m| m.received_records.value()),
        "received_bytes": sum(|m| m.received_bytes.value()),
        "repeated_records": sum(|m| m.repeated_records.value()),
        "fenced_records": sum(|m| m.fenced_records.value()),
        "lost_records": sum(|m| m.lost_records.value()),
        "links": sum(|m| m.links.value()),
        "links_refused": refused.collect::<Map<_, _>>(),
        "links_refused_by_mirror": sum(|m| m.refused_by_peer.value()),
    });
    let Value::Object(map) = value else { unreachable!("an object was written above") };
    map
}

fn worst_state(mirrors: &[Arc<MirrorMetrics>]) -> MirrorState {
    const FROM_BAD_TO_GOOD: [MirrorState; 6] = [
        MirrorState::Fenced,
        MirrorState::Recovering,
        MirrorState::Solo,
        MirrorState::Healing,
        MirrorState::Draining,
        MirrorState::Normal,
    ];
    let has = |state: &MirrorState| mirrors.iter().any(|mirror| mirror.state() == *state);
    FROM_BAD_TO_GOOD.into_iter().find(has).unwrap_or(MirrorState::Recovering)
}

fn worst_mode(mirrors: &[Arc<MirrorMetrics>]) -> MirrorMode {
    const FROM_BAD_TO_GOOD: [MirrorMode; 3] =
        [MirrorMode::Recovering, MirrorMode::Solo, MirrorMode::Normal];
    let has = |mode: &MirrorMode| mirrors.iter().any(|mirror| mirror.mode() == *mode);
    FROM_BAD_TO_GOOD.into_iter().find(has).unwrap_or(MirrorMode::Recovering)
}

/// The latest, with the longest time that a partition took for it.
fn last_failover(mirrors: &[Arc<MirrorMetrics>]) -> Value {
    let times =
        mirrors.iter().map(|m| (m.last_failover_unix_ms.value(), m.last_failover_ms.value()));
    let Some(latest) = times.clone().map(|(unix_ms, _)| unix_ms).max().filter(|at| *at > 0) else {
        return Value::Null;
    };
    let took = times.filter(|(unix_ms, _)| *unix_ms > 0 && unix_ms + TOGETHER_MS >= latest);
    json!({ "unix_ms": latest, "took_ms": took.map(|(_, took_ms)| took_ms).max() })
}

/// Links to other nodes, and to each other core of the cluster.
fn links(state: &NodeState) -> Value {
    let (info, gateway) = (state.info(), state.registry().gateway());
    let ended = LinkEnd::ALL.iter().filter_map(|reason| {
        let links = gateway.ended.at(*reason).value();
        (links > 0).then(|| (reason.name().to_owned(), json!(links)))
    });
    let others = info.cores.iter().zip(&gateway.cores).filter(|(node, _)| **node != info.node_id);
    let cores = others.map(|(node, core)| {
        let clients = core.link(Purpose::Clients);
        json!({
            "node": node,
            "clients": info.roles.edge.then(|| link(clients)),
            "mirror": info.roles.core.then(|| link(core.link(Purpose::Replication))),
            "serving_partitions": info.roles.edge.then(|| core.serving()),
        })
    });
    json!({
        "up": gateway.links.value(),
        "cores": cores.collect::<Value>(),
        "edges": info.roles.core.then(|| gateway.edges.nodes()),
        "ended": ended.collect::<Map<_, _>>(),
    })
}

fn link(link: &CoreLink) -> Value {
    json!({
        "up": link.up.value() != 0,
        "came_up": link.ups.value(),
        "ended": link.ends.value(),
        "last_end": link.last_end().map(Label::name),
    })
}

/// What keeps the node from being healthy. Names are stable, texts are not.
fn problems(state: &NodeState) -> Vec<Value> {
    let (info, registry) = (state.info(), state.registry());
    let mut found: Vec<(&str, String)> = Vec::new();
    if let Some(why) = unready(state) {
        found.push(("not_ready", why.to_owned()));
    }
    if registry.low_disk() {
        let text = "the disk is nearly full: new messages are refused";
        found.push(("low_disk", text.to_owned()));
    }
    if registry.is_damaged() && !is_paired(registry.mirrors()) {
        let text = format!("{} ranges of the log cannot be read", registry.unreadable());
        found.push(("damaged", text));
    }
    if registry.connections() >= registry.connections_max() && info.roles.edge {
        found.push(("connection_limit", "no more connections are taken".to_owned()));
    }
    if let Some(node) = info.mirror.filter(|_| is_paired(registry.mirrors())) {
        mirror_problems(registry.mirrors(), node, &mut found);
    }
    let gateway = registry.gateway();
    for (node, core) in info.cores.iter().zip(&gateway.cores) {
        let link = core.link(Purpose::Clients);
        if info.roles.edge && *node != info.node_id && link.up.value() == 0 {
            let why = link.last_end().map_or("not tried yet", Label::name);
            found.push(("core_not_linked", format!("core {node} is not linked: {why}")));
        }
    }
    let problem = |(name, text): (&str, String)| json!({ "name": name, "text": text });
    found.into_iter().map(problem).collect()
}

fn mirror_problems(
    mirrors: &[Arc<MirrorMetrics>],
    node: u32,
    found: &mut Vec<(&'static str, String)>,
) {
    let sum = |of: fn(&MirrorMetrics) -> u64| mirrors.iter().map(|m| of(m)).sum::<u64>();
    let copies = sum(|m| m.copies_one.value());
    let is_linked = mirrors.iter().all(|m| m.is_linked());
    let unmet = match mirrors.iter().any(|m| m.incomplete.value() != 0) {
        true => {
            "; inboxes may lack what only the other one has, they have not met since it started"
        }
        false => "",
    };
    match worst_state(mirrors) {
        MirrorState::Normal if is_linked => {}
        MirrorState::Normal => {
            let text = format!("node {node} is not linked; new messages wait or are refused");
            found.push(("mirror_not_linked", text));
        }
        MirrorState::Solo => {
            let text =
                format!("it serves without node {node}; {copies} messages have one copy{unmet}");
            found.push(("solo", text));
        }
        MirrorState::Healing => {
            let text =
                format!("node {node} is back and catches up; {copies} messages have one copy");
            found.push(("healing", text));
        }
        MirrorState::Fenced => {
            let text = "its numbers were given out before: it must start again with a new life";
            found.push(("fenced", text.to_owned()));
        }
        MirrorState::Recovering => {
            found.push(("recovering", format!("it waits for node {node}")));
        }
        MirrorState::Draining => found.push(("draining", "it is about to stop".to_owned())),
    }
    let fenced = sum(|m| m.fenced_streams.value());
    if fenced > 0 {
        let text = format!("{fenced} streams differ on both nodes and are kept apart");
        found.push(("fenced_streams", text));
    }
    if mirrors.iter().any(|m| m.damaged.value() != 0) {
        let text = format!("the log has damage that node {node} may mend");
        found.push(("damaged_log", text));
    }
    let lost = sum(|m| m.lost_records.value());
    if lost > 0 {
        found.push(("lost_records", format!("{lost} records are on neither node any more")));
    }
}
