//! The node as a whole: readiness, memory, limits beside usage, the cost score, and the cluster as it sees it.

use iris_proto::peer::Purpose;

use super::Cells;
use crate::metrics::cost::Cost;
use crate::metrics::text::Text;
use crate::metrics::{CoreLink, KernelMemory, Process, Registry};

/// Name, help and value of each part of the score.
type Scores = &'static [(&'static str, &'static str, fn(&Cost) -> f64)];

const COST: Scores = &[
    (
        "iris_cost_messages_per_core_second",
        "Messages taken in and handed out for each second of CPU time, over the last minute.",
        |cost| cost.messages_per_core_second,
    ),
    (
        "iris_cost_connections_per_core_second",
        "Seconds of connections held for each second of CPU time, over the last minute.",
        |cost| cost.connections_per_core_second,
    ),
    (
        "iris_cost_messages_per_second_per_gigabyte",
        "Messages a second for each gigabyte of resident memory, over the last minute.",
        |cost| cost.messages_per_second_per_gigabyte,
    ),
    (
        "iris_cost_connections_per_gigabyte",
        "Connections for each gigabyte of resident memory, over the last minute.",
        |cost| cost.connections_per_gigabyte,
    ),
];

const CORE_LINK_GAUGES: Cells<CoreLink> =
    &[("iris_core_link_up", "1 while the link to that core is up.", |link| link.up.value())];
const CORE_LINK_COUNTERS: Cells<CoreLink> = &[
    ("iris_core_link_ups_total", "Times that the link came up.", |link| link.ups.value()),
    ("iris_core_link_ends_total", "Times that it ended or did not come about.", |link| {
        link.ends.value()
    }),
];

pub(super) fn render(text: &mut Text, registry: &Registry) {
    let (process, memory) = (Process::now(), KernelMemory::now());
    let mut gauge = |name, help: &str, value: u64| {
        text.gauges(name, help).sample(&[], value);
    };
    gauge("iris_ready", "1 while clients are served, as /readyz says.", registry.0.ready.value());
    let max = registry.connections_max();
    gauge("iris_connections_limit", "Connections the node may hold.", max);
    gauge("iris_process_resident_bytes", "Resident memory.", process.resident_bytes);
    gauge("iris_process_open_fds", "Open files; direct descriptors not.", process.open_fds);
    gauge("iris_process_max_fds", "Soft limit of open files.", process.max_fds);
    gauge("iris_process_threads", "Threads.", process.threads);
    gauge(
        "iris_host_tcp_memory_bytes",
        "TCP buffers of this network namespace, from /proc/net/sockstat.",
        process.tcp_memory_bytes,
    );
    gauge(
        "iris_host_tcp_sockets",
        "TCP sockets of this network namespace, from /proc/net/sockstat.",
        process.tcp_sockets,
    );
    let reserve = registry.bounds().disk_reserve_bytes.value();
    let help = "Free bytes on the log's disk below which sends are refused.";
    gauge("iris_wal_disk_reserve_bytes", help, reserve);
    let cpu_s = process.cpu_ms as f64 / 1e3;
    text.counters("iris_process_cpu_seconds_total", "CPU time.").sample(&[], cpu_s);
    let help = "Connections of the fullest reactor over those of an average one; 0 without any.";
    text.gauges("iris_connections_imbalance_ratio", help).sample(&[], registry.imbalance());
    render_memory(text, registry, &process, &memory);
    render_resources(text, registry, &process, &memory);
    render_cost(text, registry);
}

fn render_memory(text: &mut Text, registry: &Registry, process: &Process, memory: &KernelMemory) {
    let each = registry.memory_per_connection(process, memory);
    let help =
        "Resident memory above that of the empty server, per open connection; 0 without any.";
    text.gauges("iris_memory_bytes_per_connection", help).sample(&[], each.user_bytes);
    let scope = [("scope", memory.scope.name())];
    let help = "Kernel memory of the control group, or slabs of the machine.";
    text.gauges("iris_kernel_memory_bytes", help).sample(&scope, memory.kernel_bytes);
    let help = "Kernel memory above that at the start, per open connection; 0 without any.";
    text.gauges("iris_kernel_memory_bytes_per_connection", help).sample(&scope, each.kernel_bytes);
}

fn render_resources(
    text: &mut Text,
    registry: &Registry,
    process: &Process,
    memory: &KernelMemory,
) {
    let resources = registry.resources(process, memory);
    let help = "How much is in use of what has a limit.";
    let mut family = text.gauges("iris_resource_used", help);
    for resource in &resources {
        family.sample(&[("resource", resource.name)], resource.used);
    }
    let mut family = text.gauges("iris_resource_limit", "Where its use ends.");
    for resource in &resources {
        family.sample(&[("resource", resource.name)], resource.limit);
    }
}

fn render_cost(text: &mut Text, registry: &Registry) {
    let cost = registry.cost().get();
    for (name, help, value) in COST {
        text.gauges(name, help).sample(&[], value(&cost));
    }
    let price = registry.bounds().price_per_hour.value();
    if price > 0.0 {
        let help = "What the node costs an hour (node.price_per_hour).";
        text.gauges("iris_cost_dollars_per_hour", help).sample(&[], price);
        let help = "Messages for a dollar, at the rate of the last minute.";
        text.gauges("iris_cost_messages_per_dollar", help)
            .sample(&[], cost.messages_per_dollar(price));
        let help = "Seconds of connections held for a dollar, over the last minute.";
        text.gauges("iris_cost_connection_seconds_per_dollar", help)
            .sample(&[], cost.connection_seconds_per_dollar(price));
    }
}

/// Links to the cores of a cluster, and how many shards go to each. A node alone shows nothing of it.
pub(super) fn render_cluster(text: &mut Text, registry: &Registry) {
    let gateway = registry.gateway();
    let bounds = registry.bounds();
    let cores: Vec<(usize, String, bool)> = bounds
        .cores()
        .map(|(place, node)| (place, node.to_string(), bounds.is_own(node)))
        .collect();
    if cores.is_empty() {
        return;
    }
    // Edges link to cores for their clients, cores to each other to mirror.
    let purposes = [
        ("clients", Purpose::Clients, registry.reactors() > 0),
        ("mirror", Purpose::Replication, !registry.mirrors().is_empty()),
    ];
    let mut links = Vec::new();
    for (place, node, _) in cores.iter().filter(|(_, _, is_own)| !is_own) {
        for (name, purpose, _) in purposes.iter().filter(|(_, _, is_used)| *is_used) {
            let labels = [("core", node.as_str()), ("purpose", *name)];
            links.push((labels, gateway.cores[*place].link(*purpose)));
        }
    }
    for (name, help, cell) in CORE_LINK_GAUGES {
        let mut family = text.gauges(name, help);
        for (labels, link) in &links {
            family.sample(labels, cell(link));
        }
    }
    for (name, help, cell) in CORE_LINK_COUNTERS {
        let mut family = text.counters(name, help);
        for (labels, link) in &links {
            family.sample(labels, cell(link));
        }
    }
    let mut family = text.gauges("iris_core_serving_partitions", "Partitions there that serve.");
    for (place, node, _) in cores.iter().filter(|(_, _, is_own)| !is_own) {
        family.sample(&[("core", node)], gateway.cores[*place].serving());
    }
    let help = "Shards whose traffic this edge gives to that core.";
    let mut family = text.gauges("iris_core_shards", help);
    for (place, node, _) in &cores {
        family.sample(&[("core", node)], registry.shards_at(*place));
    }
    let help = "Edges that are linked to this core, the first 64 of them.";
    text.gauges("iris_edges_linked", help).sample(&[], gateway.edges.nodes().len());
}
