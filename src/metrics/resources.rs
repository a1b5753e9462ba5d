//! Usage beside its limit, in one form for all resources, so that one rule fits them all.

use super::cell::Gauge;
use super::{FrameType, KernelMemory, PartitionMetrics, Process, ReactorMetrics, Registry};

/// Something that the node may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// A stable word for it.
    pub name: &'static str,
    /// How much is in use.
    pub used: u64,
    /// Where that ends.
    pub limit: u64,
}

/// What a connection costs in memory: the growth since the empty server, shared out over the open connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPerConnection {
    /// Bytes of the process.
    pub user_bytes: u64,
    /// Bytes of the kernel.
    pub kernel_bytes: u64,
}

impl Registry {
    /// All resources that have a limit.
    pub fn resources(&self, process: &Process, memory: &KernelMemory) -> Vec<Resource> {
        let bounds = self.bounds();
        // What is shared out over threads ends where the fullest of them has used its part up.
        let fullest = |of: fn(&PartitionMetrics) -> &Gauge| -> u64 {
            self.0.partitions.iter().map(|m| of(m).value()).max().unwrap_or(0)
        };
        let sum = |of: fn(&ReactorMetrics) -> &Gauge| -> u64 {
            self.0.reactors.iter().map(|reactor| of(reactor).value()).sum()
        };
        let most = |of: fn(&ReactorMetrics) -> &Gauge| -> u64 {
            self.0.reactors.iter().map(|reactor| of(reactor).value()).max().unwrap_or(0)
        };
        let of_edge = if self.0.reactors.is_empty() { 0 } else { self.connections_max() };
        let all = [
            ("connections", self.connections(), of_edge),
            ("open_files", process.open_fds, process.max_fds),
            ("memory", memory.used_bytes, memory.limit_bytes),
            ("inbox_messages", fullest(|m| &m.inbox_messages), bounds.inbox_messages.value()),
            ("inbox_bytes", fullest(|m| &m.inbox_content_bytes), bounds.inbox_bytes.value()),
            (
                "one_inbox_messages",
                fullest(|m| &m.fullest_messages),
                bounds.one_inbox_messages.value(),
            ),
            ("one_inbox_bytes", fullest(|m| &m.fullest_bytes), bounds.one_inbox_bytes.value()),
            ("dedup_room", fullest(|m| &m.dedup_room), bounds.dedup_room.value()),
            ("client_backlog_bytes", most(|m| &m.out_bytes), bounds.client_backlog_bytes.value()),
            ("tls_handshakes_waiting", sum(|m| &m.tls_waiting), bounds.handshakes_waiting.value()),
        ];
        let all = all.map(|(name, used, limit)| Resource { name, used, limit });
        all.into_iter().filter(|resource| resource.limit > 0).collect()
    }

    /// What a connection costs; zeros without any.
    pub fn memory_per_connection(
        &self,
        process: &Process,
        memory: &KernelMemory,
    ) -> MemoryPerConnection {
        let connections = self.connections();
        let share = |now: u64, empty: &Gauge| {
            now.saturating_sub(empty.value()).checked_div(connections).unwrap_or(0)
        };
        MemoryPerConnection {
            user_bytes: share(process.resident_bytes, &self.0.baseline_bytes),
            kernel_bytes: share(memory.kernel_bytes, &self.0.baseline_kernel_bytes),
        }
    }

    /// Connections of the fullest reactor over those of an average one; 0 without any.
    pub fn imbalance(&self) -> f64 {
        let of_each = self.0.reactors.iter().map(|reactor| reactor.connections.value());
        let (most, all) = (of_each.clone().max().unwrap_or(0), of_each.sum::<u64>());
        if all == 0 { 0.0 } else { most as f64 * self.reactors() as f64 / all as f64 }
    }

    /// Messages taken in and handed out so far: an edge without inboxes counts those of its clients.
    pub fn messages_moved(&self) -> u64 {
        if self.0.partitions.is_empty() {
            let of_each = self.0.reactors.iter().map(|m| {
                let (taken, given) = (&m.frames_in, &m.frames_out);
                taken.at(FrameType::Send).value() + given.at(FrameType::Message).value()
            });
            return of_each.sum();
        }
        self.0.partitions.iter().map(|m| m.sends.value() + m.delivered.value()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_limit_is_no_resource_and_what_is_shared_out_is_that_of_the_fullest_thread() {
        let registry = Registry::new(2, 2, 100);
        registry.bounds().inbox_messages.set(1000);
        registry.partition(0).inbox_messages.set(3);
        registry.partition(1).inbox_messages.set(4);
        registry.reactor(1).connections.set(5);
        let (process, memory) = (Process::default(), KernelMemory::default());
        let resources = registry.resources(&process, &memory);
        let resource = |name, used, limit| Resource { name, used, limit };
        let wanted = [resource("connections", 5, 100), resource("inbox_messages", 4, 1000)];
        assert_eq!(resources, wanted);
        assert_eq!(registry.imbalance(), 2.0, "all on one of two");
        registry.reactor(0).connections.set(5);
        assert_eq!(registry.imbalance(), 1.0);
        let edge = Registry::new(1, 0, 10);
        edge.reactor(0).frames_in.add(FrameType::Send, 2);
        edge.reactor(0).frames_out.add(FrameType::Message, 3);
        assert_eq!((edge.messages_moved(), edge.imbalance()), (5, 0.0));
    }
}
