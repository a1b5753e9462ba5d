//! Facts of a machine, from `/proc`, `/sys` and `/etc` under a root: the real one, or a recorded one.
//!
//! What cannot be read is not known; nothing here fails, and each rule says what the lack of a fact means to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::facts::{Configured, Facts, Nic, Place, Quota, UNLIMITED, UnitLine};
use crate::knobs::{KNOBS, WATCHED, spaced};
use crate::plan::{DROP_IN, SYSCTL_FILE};
use crate::sizing::Profile;

/// The folder that is taken for `/`.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// That folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Whether it is the machine itself.
    pub fn is_real(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// Where an absolute path lies.
    pub fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// A file's text without white space around it.
    fn read(&self, path: &str) -> Option<String> {
        let text = fs::read(self.at(path)).ok()?;
        Some(String::from_utf8_lossy(&text).trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// Names of a folder's entries, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// What is known of the machine under `root`, for that profile.
pub fn gather(root: &Root, profile: Profile) -> Facts {
    let memory = |name: &str| meminfo(root, name).unwrap_or_default();
    let mounts = root.read("/proc/self/mountinfo").unwrap_or_default();
    let (nofile, memlock) = process_limits(root);
    Facts {
        kernel: root.read("/proc/sys/kernel/osrelease"),
        cpus: cpus(root),
        quota: quota(root),
        memory: memory("MemTotal:"),
        memory_limit: memory_limit(root),
        swap: memory("SwapTotal:"),
        nics: nics(root),
        sysctls: sysctls(root),
        configured: configured(root),
        container: container(root, &mounts),
        proc_sys_read_only: proc_sys_is_read_only(&mounts),
        systemd: root.read("/proc/1/comm").as_deref() == Some("systemd"),
        huge_pages: root
            .read("/sys/kernel/mm/transparent_hugepage/enabled")
            .and_then(|modes| Some(modes.split_once('[')?.1.split_once(']')?.0.to_owned())),
        clocksource: root.read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        governor: root.read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        nofile,
        memlock,
        unit: profile.unit().map(|unit| unit_lines(root, unit)).unwrap_or_default(),
        log_partitions: log_partitions(root),
        io_uring_errno: root.is_real().then(try_ring),
        seccomp: root
            .read("/proc/self/status")
            .is_some_and(|status| status.lines().any(|line| line == "Seccomp:\t2")),
    }
}

/// The value of the setting now.
pub fn sysctl(root: &Root, name: &str) -> Option<String> {
    Some(spaced(&root.read(&sysctl_path(name))?))
}

/// Where the kernel shows a setting.
pub fn sysctl_path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

fn sysctls(root: &Root) -> BTreeMap<String, String> {
    let names = KNOBS.iter().map(|knob| knob.name).chain(WATCHED);
    names.filter_map(|name| Some((name.to_owned(), sysctl(root, name)?))).collect()
}

/// A line of /proc/meminfo, in bytes.
fn meminfo(root: &Root, name: &str) -> Option<u64> {
    let text = root.read("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// CPUs of the control group, else those that are online.
fn cpus(root: &Root) -> Vec<u32> {
    let of_group =
        root.read("/sys/fs/cgroup/cpuset.cpus.effective").filter(|list| !list.is_empty());
    let list = of_group.or_else(|| root.read("/sys/devices/system/cpu/online"));
    numbers(&list.unwrap_or_default())
}

/// `0-3,8` as numbers; at most as many as Linux has CPUs.
fn numbers(list: &str) -> Vec<u32> {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse::<u32>().ok()?.min(8191))
    };
    list.split(',').filter_map(part).flatten().collect()
}

/// cpu.max of the control group: of version 2, which hides what is above a container's own, or of version 1.
fn quota(root: &Root) -> Option<Quota> {
    if let Some(text) = root.read("/sys/fs/cgroup/cpu.max") {
        let (max, period) = text.split_once(' ')?;
        return Some(Quota { max_us: max.parse().ok()?, period_us: period.trim().parse().ok()? });
    }
    let max_us = root.number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")?;
    Some(Quota { max_us, period_us: root.number("/sys/fs/cgroup/cpu/cpu.cfs_period_us")? })
}

/// memory.max of the control group, likewise. Version 1 writes no limit as the largest whole page.
fn memory_limit(root: &Root) -> Option<u64> {
    let limit = root
        .number("/sys/fs/cgroup/memory.max")
        .or_else(|| root.number("/sys/fs/cgroup/memory/memory.limit_in_bytes"))?;
    (limit < 1 << 62).then_some(limit)
}

/// Interfaces with a device behind them; loopback, bridges and tunnels have none.
fn nics(root: &Root) -> Vec<Nic> {
    let of_hardware = |name: &String| root.at(&format!("/sys/class/net/{name}/device")).exists();
    let nic = |name: String| {
        let queues = format!("/sys/class/net/{name}/queues");
        let receive: Vec<_> =
            root.names(&queues).into_iter().filter(|q| q.starts_with("rx-")).collect();
        let spreads = |queue: &String| {
            let mask = root.read(&format!("{queues}/{queue}/rps_cpus")).unwrap_or_default();
            mask.chars().any(|c| c != '0' && c != ',')
        };
        Nic { queues: receive.len() as u32, spread: receive.iter().any(spreads), name }
    };
    root.names("/sys/class/net").into_iter().filter(of_hardware).map(nic).collect()
}

/// The kind of container, if it is one. Machines that began as an image of containers have its marks, too, but their
/// processes are in the first namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
fn container(root: &Root, mounts: &str) -> Option<String> {
    let namespace = fs::read_link(root.at("/proc/self/ns/pid")).unwrap_or_default();
    if namespace == Path::new("pid:[4026531836]") {
        return None;
    }
    if let Some(kind) = root.read("/run/systemd/container").filter(|kind| !kind.is_empty()) {
        return Some(kind);
    }
    if root.at("/.dockerenv").exists() {
        return Some("docker".to_owned());
    }
    if root.at("/run/.containerenv").exists() {
        return Some("podman".to_owned());
    }
    // A root of layers is an image's; live systems have one, too, and there it is for the better to be careful.
    let is_layers = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let kind = line.split_once(" - ").map(|(_, rest)| rest);
        fields.get(4) == Some(&"/") && kind.is_some_and(|kind| kind.starts_with("overlay"))
    };
    mounts.lines().any(is_layers).then(|| "container".to_owned())
}

/// Whether `/proc/sys` is a mount of its own without the right to write, as container runtimes make it.
fn proc_sys_is_read_only(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        fields.get(4) == Some(&"/proc/sys")
            && fields.get(5).is_some_and(|options| options.split(',').any(|option| option == "ro"))
    })
}

/// Hard limit of open files and soft limit of locked memory of this process.
fn process_limits(root: &Root) -> (u64, u64) {
    let text = root.read("/proc/self/limits").unwrap_or_default();
    let word = |name: &str, index| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().nth(index)?.parse().unwrap_or(UNLIMITED))
    };
    let (nofile, memlock) = (word("Max open files", 1), word("Max locked memory", 0));
    (nofile.unwrap_or(UNLIMITED), memlock.unwrap_or(UNLIMITED))
}

/// Folders of settings, the one that wins first (sysctl.d(5)).
const SYSCTL_DIRS: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];

/// Lines about our settings in files other than ours, in the order of reading.
fn configured(root: &Root) -> Vec<Configured> {
    let ours = SYSCTL_FILE.rsplit('/').next().unwrap_or_default();
    let mut files: Vec<(String, String, bool)> = by_name(root, &SYSCTL_DIRS)
        .into_iter()
        .filter(|(name, _)| name != ours)
        .map(|(name, path)| (name.clone(), path, name.as_str() > ours))
        .collect();
    // `sysctl --system` reads it last; 99-sysctl.conf mostly is a link to it.
    files.push((String::new(), "/etc/sysctl.conf".to_owned(), true));
    let mut lines = Vec::new();
    for (_, file, after_ours) in files {
        for (name, value) in settings_of(&root.read(&file).unwrap_or_default()) {
            if KNOBS.iter().any(|knob| knob.name == name) {
                lines.push(Configured { file: file.clone(), after_ours, name, value });
            }
        }
    }
    lines
}

/// Files that end in `.conf`, by name; of two with one name that of the earlier folder.
fn by_name(root: &Root, folders: &[&str]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for folder in folders {
        for name in root.names(folder).into_iter().filter(|name| name.ends_with(".conf")) {
            let path = format!("{folder}/{name}");
            files.entry(name).or_insert(path);
        }
    }
    files
}

/// `name = value`, with the names' separators as dots: the first separator says which it is (sysctl.d(5)).
fn settings_of(text: &str) -> Vec<(String, String)> {
    let setting = |line: &str| {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            return None;
        }
        let (name, value) = line.trim_start_matches('-').split_once('=')?;
        let name = name.trim();
        let name = match name.find(['.', '/']).map(|at| &name[at..=at]) {
            Some("/") => name.replace('.', "\u{1}").replace('/', ".").replace('\u{1}', "/"),
            _ => name.to_owned(),
        };
        Some((name, spaced(value)))
    };
    text.lines().filter_map(setting).collect()
}

/// Folders of units, the one that wins first (systemd.unit(5)).
const UNIT_DIRS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What the unit and its drop-ins say of limits, in the order of reading: the unit, then drop-ins by name.
fn unit_lines(root: &Root, unit: &str) -> Vec<UnitLine> {
    let mut lines = Vec::new();
    let mut add = |file: &str, place| {
        for (name, value) in limits_of(&root.read(file).unwrap_or_default()) {
            lines.push(UnitLine { file: file.to_owned(), place, name, value });
        }
    };
    let of_unit = UNIT_DIRS.iter().map(|folder| format!("{folder}/{unit}"));
    if let Some(file) = of_unit.into_iter().find(|file| root.at(file).exists()) {
        add(&file, Place::Before);
    }
    let folders: Vec<String> =
        UNIT_DIRS.iter().map(|folder| format!("{folder}/{unit}.d")).collect();
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    for (name, file) in by_name(root, &folders) {
        let place = match name.as_str().cmp(DROP_IN) {
            std::cmp::Ordering::Less => Place::Before,
            std::cmp::Ordering::Equal => Place::Ours,
            std::cmp::Ordering::Greater => Place::After,
        };
        add(&file, place);
    }
    lines
}

fn limits_of(text: &str) -> Vec<(String, String)> {
    let wanted = ["LimitNOFILE", "LimitMEMLOCK", "MemoryMax", "MemorySwapMax"];
    let mut in_service = false;
    let mut limits = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            in_service = line == "[Service]";
        } else if let Some((name, value)) = line.split_once('=').filter(|_| in_service) {
            let (name, value) = (name.trim(), value.trim());
            if wanted.contains(&name) {
                limits.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    limits
}

/// Partitions of the log in the default data directory.
fn log_partitions(root: &Root) -> u32 {
    let names = root.names("/var/lib/iris/wal");
    let is_partition = |name: &&String| {
        name.strip_prefix('p').is_some_and(|rest| rest.len() == 3 && rest.parse::<u32>().is_ok())
    };
    names.iter().filter(is_partition).count() as u32
}

/// Makes and drops a small ring like those of the server: 0, or errno.
fn try_ring() -> i32 {
    let config =
        iris_ring::RingConfig { entries: 8, descriptors: 8, buffers: 8, buffer_bytes: 4096 };
    match iris_ring::Ring::new(config) {
        Ok(_) => 0,
        // An error without a number is none of the kernel's; EIO stands for it.
        Err(error) => error.raw_os_error().unwrap_or(5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        for (path, text) in files {
            let path = root.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (dir, root)
    }

    #[test]
    fn nothing_is_known_of_an_empty_machine_and_nothing_fails() {
        let (_dir, root) = root(&[]);
        let facts = gather(&root, Profile::Node);
        assert_eq!((facts.cpus.len(), facts.memory, facts.nofile), (0, 0, UNLIMITED));
        assert!(
            crate::plan::plan(
                &facts,
                crate::sizing::Request { connections: 1, profile: Profile::Node, tls: false }
            )
            .findings
            .iter()
            .any(|finding| finding.id == "kernel.version" && !finding.passed)
        );
    }

    #[test]
    fn cpus_are_those_of_the_control_group() {
        let online = ("/sys/devices/system/cpu/online", "0-63\n");
        let group = "/sys/fs/cgroup/cpuset.cpus.effective";
        for (files, count) in [
            (vec![online], 64),
            (vec![online, (group, "0-1,5\n")], 3),
            (vec![online, (group, "\n")], 64),
        ] {
            let (_dir, root) = root(&files);
            assert_eq!(cpus(&root).len(), count);
        }
        assert_eq!(numbers("junk,3,9-7"), [3]);
    }

    #[test]
    fn both_versions_of_control_groups_are_read_and_no_limit_is_none() {
        let (_dir, v2) = root(&[
            ("/sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/memory.max", "max\n"),
        ]);
        assert_eq!(quota(&v2), Some(Quota { max_us: 150_000, period_us: 100_000 }));
        assert_eq!(memory_limit(&v2), None);
        let (_dir, v1) = root(&[
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!((quota(&v1), memory_limit(&v1)), (None, None));
        let (_dir, free) = root(&[("/sys/fs/cgroup/cpu.max", "max 100000\n")]);
        assert_eq!(quota(&free), None);
    }

    #[test]
    fn settings_are_read_in_the_order_of_names_and_ours_are_not_among_them() {
        let (_dir, root) = root(&[
            ("/usr/lib/sysctl.d/50-a.conf", "net.core.somaxconn=1\n"),
            ("/etc/sysctl.d/50-a.conf", "# net.core.somaxconn = 2\nnet/core/somaxconn = 3\n"),
            ("/etc/sysctl.d/90-iris.conf", "net.core.somaxconn = 4\n"),
            ("/run/sysctl.d/99-z.conf", "-net.core.somaxconn =  5\nnet.ipv4.ip_forward = 1\n"),
            ("/etc/sysctl.conf", "net.ipv4.tcp_rmem = 1\t2  3\n"),
        ]);
        let lines = configured(&root);
        let shown: Vec<_> = lines
            .iter()
            .map(|line| (line.file.as_str(), line.after_ours, line.value.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("/etc/sysctl.d/50-a.conf", false, "3"),
                ("/run/sysctl.d/99-z.conf", true, "5"),
                ("/etc/sysctl.conf", true, "1 2 3"),
            ]
        );
    }

    #[test]
    fn limits_of_a_unit_come_from_its_service_section_and_drop_ins_by_name() {
        let (_dir, root) = root(&[
            (
                "/lib/systemd/system/iris.service",
                "[Unit]\nLimitNOFILE=1\n[Service]\nLimitNOFILE=2\n",
            ),
            ("/etc/systemd/system/iris.service.d/50-iris-tune.conf", "[Service]\nLimitNOFILE=3\n"),
            ("/etc/systemd/system/iris.service.d/60-local.conf", "[Service]\nMemoryMax=1G\n"),
            ("/run/systemd/system/iris.service.d/10-x.conf", "[Service]\nLimitNOFILE=4\n"),
        ]);
        let lines = unit_lines(&root, "iris.service");
        let shown: Vec<_> = lines.iter().map(|line| (line.place, line.value.as_str())).collect();
        let (before, ours, after) = (Place::Before, Place::Ours, Place::After);
        assert_eq!(shown, [(before, "2"), (before, "4"), (ours, "3"), (after, "1G")]);
    }

    #[test]
    fn containers_and_their_read_only_settings_are_known_by_their_mounts() {
        let overlay = "1 0 0:1 / / rw,relatime - overlay overlay rw\n5 1 0:2 /sys /proc/sys ro,nosuid - proc proc rw\n";
        let (_dir, empty) = root(&[]);
        assert_eq!(container(&empty, overlay).as_deref(), Some("container"));
        assert!(proc_sys_is_read_only(overlay));
        let plain =
            "1 0 8:1 / / rw,relatime - ext4 /dev/vda rw\n2 1 0:5 / /proc rw - proc proc rw\n";
        assert_eq!(container(&empty, plain), None);
        assert!(!proc_sys_is_read_only(plain));
        let (_dir, docker) = root(&[("/.dockerenv", "")]);
        assert_eq!(container(&docker, plain).as_deref(), Some("docker"));
    }

    #[test]
    fn interfaces_of_hardware_are_told_from_others() {
        let (_dir, root) = root(&[
            ("/sys/class/net/eth0/device/uevent", ""),
            ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000000\n"),
            ("/sys/class/net/eth0/queues/rx-1/rps_cpus", "00000000,0000000f\n"),
            ("/sys/class/net/eth0/queues/tx-0/xps_cpus", "0\n"),
            ("/sys/class/net/lo/queues/rx-0/rps_cpus", "0\n"),
        ]);
        assert_eq!(nics(&root), [Nic { name: "eth0".to_owned(), queues: 2, spread: true }]);
    }
}
