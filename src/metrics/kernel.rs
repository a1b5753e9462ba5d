//! Memory as the kernel counts it: of this process's control group where there is one with a controller for memory
//! (Documentation/admin-guide/cgroup-v2.rst, `memory.stat`, `memory.max`), of the machine otherwise (proc_meminfo(5)).

use std::fs;
use std::path::Path;

use crate::cgroup;

/// Whose memory it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// That of the control group: of this process, if the group has no other.
    Group,
    /// That of the whole machine, and of whatever else runs on it.
    #[default]
    Machine,
}

impl Scope {
    /// A stable word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Machine => "machine",
        }
    }
}

/// A look at memory. A field is 0 where the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelMemory {
    /// Whose it is.
    pub scope: Scope,
    /// Memory of the kernel: sockets, inodes, rings, tables of pages. Of the machine it is the slabs. Bytes.
    pub kernel_bytes: u64,
    /// All memory in use that counts towards the limit, bytes.
    pub used_bytes: u64,
    /// Where that ends: at the limit of the group or of one above it, or at the memory of the machine. Bytes.
    pub limit_bytes: u64,
}

impl KernelMemory {
    /// Looks now. Costs some tens of microseconds.
    pub fn now() -> Self {
        Self::read(Path::new("/"))
    }

    /// `root` is where `proc` and `sys` are.
    fn read(root: &Path) -> Self {
        let meminfo = text(&root.join("proc/meminfo"));
        let of = |name: &str| line(&meminfo, name) * 1024;
        let total = of("MemTotal:");
        let mut memory = Self {
            scope: Scope::Machine,
            kernel_bytes: of("Slab:"),
            used_bytes: total.saturating_sub(of("MemAvailable:")),
            limit_bytes: total,
        };
        let groups = cgroup::groups(root);
        let Some(own) = groups.first().filter(|own| own.join("memory.current").exists()) else {
            return memory;
        };
        let stat = text(&own.join("memory.stat"));
        let kernel = line(&stat, "kernel ") + line(&stat, "sock ");
        if kernel > 0 {
            (memory.scope, memory.kernel_bytes) = (Scope::Group, kernel);
        }
        for group in &groups {
            let number = |name: &str| cgroup::read(group, name)?.parse::<u64>().ok();
            let (Some(max), Some(used)) = (number("memory.max"), number("memory.current")) else {
                continue;
            };
            // What the kernel can drop at once does not count.
            let cache = line(&text(&group.join("memory.stat")), "inactive_file ");
            let used = used.saturating_sub(cache);
            // The one that is fullest ends first, be it wide or narrow.
            let share = |used: u64, of: u64| used as f64 / of.max(1) as f64;
            if share(used, max) > share(memory.used_bytes, memory.limit_bytes) {
                (memory.limit_bytes, memory.used_bytes) = (max, used);
            }
        }
        memory
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The number after a name at the start of a line.
fn line(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_with_a_limit_counts_before_the_machine() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(KernelMemory::read(root.path()), KernelMemory::default());
        at("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable:  400 kB\nSlab:  7 kB\n");
        let (scope, kernel_bytes) = (Scope::Machine, 7 << 10);
        let machine =
            KernelMemory { scope, kernel_bytes, used_bytes: 600 << 10, limit_bytes: 1000 << 10 };
        assert_eq!(KernelMemory::read(root.path()), machine);
        at("proc/self/cgroup", "0::/a.slice/iris.service\n");
        assert_eq!(KernelMemory::read(root.path()), machine, "no controller for memory");
        let service = "sys/fs/cgroup/a.slice/iris.service";
        at(&format!("{service}/memory.current"), "5000\n");
        at(&format!("{service}/memory.max"), "max\n");
        at(&format!("{service}/memory.stat"), "anon 1\nkernel_stack 9\nkernel 300\nsock 20\n");
        let group = KernelMemory { scope: Scope::Group, kernel_bytes: 320, ..machine };
        assert_eq!(KernelMemory::read(root.path()), group);
        at("sys/fs/cgroup/a.slice/memory.current", "9000\n");
        at("sys/fs/cgroup/a.slice/memory.stat", "inactive_file 1000\n");
        at("sys/fs/cgroup/a.slice/memory.max", "10000\n");
        let bounded = KernelMemory { used_bytes: 8000, limit_bytes: 10_000, ..group };
        assert_eq!(KernelMemory::read(root.path()), bounded);
        // A narrow group that is half empty ends later than the wide one around it that is nearly full.
        at(&format!("{service}/memory.max"), "8000\n");
        assert_eq!(KernelMemory::read(root.path()), bounded);
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = KernelMemory::now();
        assert!(memory.kernel_bytes > 100_000, "{memory:?}");
        assert!(memory.used_bytes > 0 && memory.limit_bytes >= memory.used_bytes, "{memory:?}");
    }
}
