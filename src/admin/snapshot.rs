//! What the dashboard shows: `/status`, and of `/metrics` what changes from second to second. Counters are told as they
//! stand; the page makes rates of two snapshots.

use serde_json::{Map, Value, json};

use super::state::NodeState;
use super::status::report;
use crate::events::Event;
use crate::metrics::{
    CloseReason, Counter, KernelMemory, Label, LimitHit, PartitionMetrics, Process, ReactorMetrics,
    Registry, RejectReason,
};

/// Threads of each kind that are told one by one, at most: a page has room for no more.
const THREADS_MAX: usize = 256;

pub(super) fn snapshot<'a>(
    state: &NodeState,
    events: impl DoubleEndedIterator<Item = &'a (u64, Event)>,
) -> Value {
    let registry = state.registry();
    let (process, memory) = (Process::now(), KernelMemory::now());
    let each = registry.memory_per_connection(&process, &memory);
    let resources = registry.resources(&process, &memory).into_iter().map(
        |resource| json!({ "name": resource.name, "used": resource.used, "limit": resource.limit }),
    );
    let events = events.rev().map(|(number, event)| {
        json!({
            "number": number,
            "unix_ms": event.unix_ms,
            "level": event.level,
            "name": event.name,
            "text": event.text,
        })
    });
    json!({
        "uptime_ms": state.uptime().as_millis() as u64,
        "status": report(state),
        "totals": totals(registry),
        "threads": threads(registry),
        "memory": {
            "resident_bytes": process.resident_bytes,
            "cpu_ms": process.cpu_ms,
            "threads": process.threads,
            "bytes_per_connection": each.user_bytes,
            "kernel_bytes": memory.kernel_bytes,
            "kernel_bytes_per_connection": each.kernel_bytes,
            "kernel_scope": memory.scope.name(),
        },
        "imbalance": registry.imbalance(),
        "resources": resources.collect::<Value>(),
        "inboxes": inboxes(registry),
        "refused": counts(RejectReason::ALL, |reason| registry.rejected(reason)),
        "limited": counts(LimitHit::ALL, |limit| registry.limited(limit)),
        "closed": counts(CloseReason::ALL, |reason| registry.closed(reason)),
        "syncs": syncs(registry),
        "cost": cost(registry),
        "events": events.collect::<Value>(),
        "events_dropped": crate::events::dropped(),
    })
}

fn reactors(registry: &Registry) -> impl Iterator<Item = std::sync::Arc<ReactorMetrics>> {
    (0..registry.reactors()).map(|index| registry.reactor(index))
}

fn partitions(registry: &Registry) -> impl Iterator<Item = std::sync::Arc<PartitionMetrics>> {
    (0..registry.mirrors().len()).map(|index| registry.partition(index))
}

fn totals(registry: &Registry) -> Value {
    let edge = |of: fn(&ReactorMetrics) -> &Counter| -> u64 {
        reactors(registry).map(|reactor| of(&reactor).value()).sum()
    };
    let core = |of: fn(&PartitionMetrics) -> &Counter| -> u64 {
        partitions(registry).map(|partition| of(&partition).value()).sum()
    };
    json!({
        "accepted_connections": edge(|m| &m.accepted),
        "received_bytes": edge(|m| &m.recv_bytes),
        "sent_bytes": edge(|m| &m.sent_bytes),
        "messages": registry.messages_moved(),
        "sends": core(|m| &m.sends),
        "delivered": core(|m| &m.delivered),
        "acked": core(|m| &m.acked),
        "duplicates": core(|m| &m.duplicates),
        "logins": core(|m| &m.logins),
        "link_bytes": registry.gateway().sent_bytes.value() + registry.gateway().received_bytes.value(),
    })
}

/// Each thread with the time that it has worked so far.
fn threads(registry: &Registry) -> Value {
    let of_reactors = (0..).zip(reactors(registry)).map(|(index, m): (usize, _)| {
        json!({
            "name": format!("iris-r{index}"),
            "busy_ns": m.busy_ns.value(),
            "connections": m.connections.value(),
            "backlog_bytes": m.out_bytes.value() + m.link_backlog_bytes.value(),
        })
    });
    let of_partitions = (0..).zip(partitions(registry)).map(|(index, m): (usize, _)| {
        json!({
            "name": format!("iris-p{index}"),
            "busy_ns": m.busy_ns.value(),
            "messages": m.inbox_messages.value(),
            "backlog_bytes": m.link_backlog_bytes.value(),
        })
    });
    let gateway =
        registry.bounds().cores().next().map(
            |_| json!({ "name": "iris-gateway", "busy_ns": registry.gateway().busy_ns.value() }),
        );
    let all = of_reactors.take(THREADS_MAX).chain(of_partitions.take(THREADS_MAX));
    all.chain(gateway).collect()
}

fn inboxes(registry: &Registry) -> Value {
    let each = (0..).zip(partitions(registry)).take(THREADS_MAX).map(|(index, m): (usize, _)| {
        json!({
            "partition": index,
            "messages": m.inbox_messages.value(),
            "bytes": m.inbox_content_bytes.value(),
            "highest_messages": m.fullest_messages.value(),
            "highest_bytes": m.fullest_bytes.value(),
            "users_online": m.users_online.value(),
            "dedup_ids": m.dedup_ids.value(),
        })
    });
    each.collect()
}

/// Those that are not zero.
fn counts<L: Label>(all: &[L], count: impl Fn(L) -> u64) -> Value {
    let counts = all.iter().map(|label| (label.name(), count(*label)));
    let counts = counts.filter(|(_, count)| *count > 0);
    Value::Object(
        counts.map(|(name, count)| (name.to_owned(), json!(count))).collect::<Map<_, _>>(),
    )
}

/// The histogram of syncs of all logs so far: bounds in seconds, and counts, of which one more is above the last bound.
fn syncs(registry: &Registry) -> Value {
    let (mut bounds, mut counts) = (Vec::new(), Vec::new());
    for index in 0..registry.mirrors().len() {
        let snapshot = registry.wal(index).sync_ns.snapshot();
        bounds = snapshot.buckets.iter().map(|(bound, _)| *bound as f64 / 1e9).collect();
        counts.resize(bounds.len() + 1, 0);
        let in_each = snapshot.buckets.iter().map(|(_, count)| *count).chain([snapshot.above]);
        counts.iter_mut().zip(in_each).for_each(|(sum, count)| *sum += count);
    }
    json!({ "bounds_seconds": bounds, "counts": counts })
}

fn cost(registry: &Registry) -> Value {
    let cost = registry.cost().get();
    let price = registry.bounds().price_per_hour.value();
    let dollars = (price > 0.0).then(|| {
        json!({
            "per_hour": price,
            "messages": cost.messages_per_dollar(price),
            "connection_seconds": cost.connection_seconds_per_dollar(price),
        })
    });
    json!({
        "cores": cost.cores,
        "messages_per_second": cost.messages_per_second,
        "messages_per_core_second": cost.messages_per_core_second,
        "connections_per_core_second": cost.connections_per_core_second,
        "messages_per_second_per_gigabyte": cost.messages_per_second_per_gigabyte,
        "connections_per_gigabyte": cost.connections_per_gigabyte,
        "dollar": dollars,
    })
}
