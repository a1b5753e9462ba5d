//! What this machine does not hold of what the configuration asks for, where the kernel would cut it without a word
//! (listen(2), SO_SNDBUF of socket(7)), or end the process for it (memory).

use std::path::Path;

use crate::cgroup;
use crate::config::Config;

/// Memory of an idle connection, bytes: the kernel's part and ours, measured (`bench/README.md`), and ours by TLS.
const KERNEL_BYTES: u64 = 4_264;
const OWN_BYTES: u64 = 415;
const OWN_TLS_BYTES: u64 = 4_100;

/// What the kernel allows; `None`: it does not say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Machine {
    /// net.core.somaxconn.
    somaxconn: Option<u64>,
    /// net.core.wmem_max, bytes; a network namespace of its own does not show it.
    wmem_max: Option<u64>,
    /// Memory, or what the control groups of this process leave of it; bytes.
    memory: Option<u64>,
}

/// What is asked for and not there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lack {
    /// Section and name of the key that asks for it.
    pub(super) key: (&'static str, &'static str),
    /// Cause, then what to do.
    pub(super) message: String,
}

impl Machine {
    /// This machine; `root` is where `proc` and `sys` are.
    pub(super) fn read(root: &Path) -> Self {
        let number =
            |path: &str| std::fs::read_to_string(root.join(path)).ok()?.trim().parse::<u64>().ok();
        Self {
            somaxconn: number("proc/sys/net/core/somaxconn"),
            wmem_max: number("proc/sys/net/core/wmem_max"),
            memory: memory(root),
        }
    }

    /// What of `config` it does not hold.
    pub(super) fn lacks(&self, config: &Config) -> Vec<Lack> {
        if !config.roles.edge {
            return Vec::new();
        }
        let backlog = u64::from(config.listen.backlog);
        let of_backlog = self.somaxconn.filter(|allowed| backlog > *allowed).map(|allowed| Lack {
            key: ("listen", "backlog"),
            message: format!(
                "listen.backlog is {backlog}, but the kernel allows {allowed}; sysctl -w net.core.somaxconn={backlog} \
                 (iris-tune apply does it), or lower the key"
            ),
        });
        let buffer = config.reactor.send_buffer.map_or(0, u64::from);
        let of_buffer = self.wmem_max.filter(|allowed| buffer > *allowed).map(|allowed| Lack {
            key: ("reactor", "send_buffer"),
            message: format!(
                "reactor.send_buffer is {buffer} bytes, but the kernel allows {allowed}; sysctl -w \
                 net.core.wmem_max={buffer} (iris-tune apply does it), or lower the key"
            ),
        });
        let of_memory = self.memory.and_then(|memory| {
            // Who comes in the clear as well as by TLS may do so alone: nobody is refused for what may not come.
            let is_tls = config.listen.tls.is_some() && config.listen.tcp.is_none();
            let own = if is_tls { OWN_TLS_BYTES } else { OWN_BYTES };
            let connections = config.reactor.connections_max as u64;
            let held = memory / (KERNEL_BYTES + own);
            (connections > held).then(|| Lack {
                key: ("reactor", "connections_max"),
                message: format!(
                    "reactor.connections_max is {connections}, but the {} MiB of memory hold {held} idle connections; lower \
                     the key, or raise MemoryMax= of the unit if that is less than the machine has",
                    memory >> 20
                ),
            })
        });
        of_backlog.into_iter().chain(of_buffer).chain(of_memory).collect()
    }
}

/// The least of the memory and of memory.max of this process's control group and those above it
/// (`Documentation/admin-guide/cgroup-v2.rst`).
fn memory(root: &Path) -> Option<u64> {
    let info = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = line.split_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1024);
    let limits = cgroup::groups(root)
        .into_iter()
        .filter_map(|group| cgroup::read(&group, "memory.max")?.parse::<u64>().ok());
    Some(limits.fold(total, u64::min))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, parse};

    fn config(text: &str) -> Config {
        let host = Host { cpus: 2, nofile_hard: 20_000, ..Host::default() };
        parse(text, true, &host).unwrap().0
    }

    fn keys(machine: Machine, text: &str) -> Vec<&'static str> {
        machine.lacks(&config(text)).into_iter().map(|lack| lack.key.1).collect()
    }

    #[test]
    fn what_the_kernel_would_cut_is_named_with_its_key() {
        let small = Machine { somaxconn: Some(128), wmem_max: Some(212_992), memory: None };
        assert_eq!(keys(small, ""), ["backlog", "send_buffer"]);
        assert_eq!(keys(small, "listen.backlog = 128\nreactor.send_buffer = \"0B\""), [""; 0]);
        assert_eq!(keys(Machine::default(), "listen.backlog = 65535"), [""; 0]);
        let lack = &small.lacks(&config("listen.backlog = 65535"))[0];
        assert!(lack.message.contains("listen.backlog is 65535"), "{}", lack.message);
        assert!(lack.message.contains("net.core.somaxconn=65535"), "{}", lack.message);
    }

    #[test]
    fn memory_holds_so_many_connections_and_fewer_by_tls() {
        let memory = Machine { memory: Some(1 << 30), ..Machine::default() };
        assert_eq!(keys(memory, "reactor.connections_max = 229481"), [""; 0]);
        assert_eq!(keys(memory, "reactor.connections_max = 229482"), ["connections_max"]);
        let message = &memory.lacks(&config("reactor.connections_max = 1000000"))[0].message;
        assert!(message.contains("1024 MiB of memory hold 229481"), "{message}");
    }

    #[test]
    fn the_narrowest_control_group_counts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(memory(dir.path()), None);
        at("proc/meminfo", "MemTotal:    1024 kB\n");
        assert_eq!(memory(dir.path()), Some(1 << 20));
        at("proc/self/cgroup", "0::/a.slice/iris.service\n");
        at("sys/fs/cgroup/a.slice/iris.service/memory.max", "max\n");
        at("sys/fs/cgroup/a.slice/memory.max", "5000\n");
        assert_eq!(memory(dir.path()), Some(5000));
        assert_eq!(Machine::read(dir.path()).memory, Some(5000));
    }
}
