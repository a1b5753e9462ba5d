//! What the machine says of itself and of the server's process: files of the kernel, each small.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

const INFALLIBLE: &str = "writing to a String cannot fail";
/// Bytes of one file of the kernel, at most.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Files that are listed of a directory, at most.
const LISTED_MAX: usize = 20_000;
/// Folders within folders that are listed.
const DEPTH_MAX: usize = 4;

/// Name in the bundle and file.
pub(super) const FILES: [(&str, &str); 21] = [
    ("machine/version.txt", "/proc/version"),
    ("machine/os-release.txt", "/etc/os-release"),
    ("machine/uptime.txt", "/proc/uptime"),
    ("machine/loadavg.txt", "/proc/loadavg"),
    ("machine/stat.txt", "/proc/stat"),
    ("machine/cpuinfo.txt", "/proc/cpuinfo"),
    ("machine/meminfo.txt", "/proc/meminfo"),
    ("machine/vmstat.txt", "/proc/vmstat"),
    ("machine/slabinfo.txt", "/proc/slabinfo"),
    ("machine/diskstats.txt", "/proc/diskstats"),
    ("machine/pressure-cpu.txt", "/proc/pressure/cpu"),
    ("machine/pressure-memory.txt", "/proc/pressure/memory"),
    ("machine/pressure-io.txt", "/proc/pressure/io"),
    ("network/sockstat.txt", "/proc/net/sockstat"),
    ("network/sockstat6.txt", "/proc/net/sockstat6"),
    ("network/snmp.txt", "/proc/net/snmp"),
    ("network/netstat.txt", "/proc/net/netstat"),
    ("network/softnet_stat.txt", "/proc/net/softnet_stat"),
    ("network/dev.txt", "/proc/net/dev"),
    ("machine/hugepages.txt", "/sys/kernel/mm/transparent_hugepage/enabled"),
    ("machine/clocksource.txt", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
];

/// The same of a process: what stands below its folder in `/proc`.
pub(super) const PROCESS_FILES: [(&str, &str); 6] = [
    ("process/status.txt", "status"),
    ("process/limits.txt", "limits"),
    ("process/stat.txt", "stat"),
    ("process/io.txt", "io"),
    ("process/cgroup.txt", "cgroup"),
    ("process/smaps_rollup.txt", "smaps_rollup"),
];

const SYSCTLS: [&str; 34] = [
    "fs/file-max",
    "fs/file-nr",
    "fs/nr_open",
    "kernel/io_uring_disabled",
    "kernel/io_uring_group",
    "kernel/osrelease",
    "net/core/netdev_budget",
    "net/core/netdev_max_backlog",
    "net/core/rmem_default",
    "net/core/rmem_max",
    "net/core/somaxconn",
    "net/core/wmem_default",
    "net/core/wmem_max",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_congestion_control",
    "net/ipv4/tcp_ehash_entries",
    "net/ipv4/tcp_fin_timeout",
    "net/ipv4/tcp_keepalive_time",
    "net/ipv4/tcp_max_orphans",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_max_tw_buckets",
    "net/ipv4/tcp_mem",
    "net/ipv4/tcp_migrate_req",
    "net/ipv4/tcp_notsent_lowat",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_syncookies",
    "net/ipv4/tcp_timestamps",
    "net/ipv4/tcp_tw_reuse",
    "net/ipv4/tcp_wmem",
    "net/netfilter/nf_conntrack_max",
    "vm/dirty_background_ratio",
    "vm/dirty_ratio",
    "vm/max_map_count",
    "vm/swappiness",
];

const CGROUP_FILES: [&str; 14] = [
    "cgroup.controllers",
    "cpu.max",
    "cpu.pressure",
    "cpu.stat",
    "cpuset.cpus.effective",
    "io.stat",
    "memory.current",
    "memory.events",
    "memory.high",
    "memory.max",
    "memory.pressure",
    "memory.stat",
    "memory.swap.max",
    "pids.max",
];

/// A file's beginning, as text.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Names and values of the kernel's settings.
pub(super) fn sysctls() -> String {
    let mut out = String::new();
    for name in SYSCTLS {
        let value = fs::read_to_string(Path::new("/proc/sys").join(name));
        let value =
            value.map_or_else(|error| format!("({error})"), |value| value.trim().to_owned());
        writeln!(out, "{} = {value}", name.replace('/', ".")).expect(INFALLIBLE);
    }
    out
}

/// What bounds a process: files of its cgroup (v2) and of those above it.
pub(super) fn cgroups(proc: &Path) -> Result<String, String> {
    let text = read(&proc.join("cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    let path = path.ok_or("there is no cgroup of version 2")?.trim_start_matches('/');
    let root = Path::new("/sys/fs/cgroup");
    let mut out = String::new();
    let mut dir = root.join(path);
    loop {
        writeln!(out, "# {}", dir.display()).expect(INFALLIBLE);
        for name in CGROUP_FILES {
            if let Ok(text) = read(&dir.join(name)) {
                let text = text.trim_end().replace('\n', "\n    ");
                writeln!(out, "{name}: {text}").expect(INFALLIBLE);
            }
        }
        if dir == root || !dir.pop() {
            return Ok(out);
        }
    }
}

/// Threads of a process: name, state, CPU time in ticks, times that it gave the CPU up and lost it.
pub(super) fn threads(proc: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("{}: {error}", proc.display());
    let mut out = "thread name state user_ticks system_ticks voluntary involuntary\n".to_owned();
    let mut tasks: Vec<PathBuf> = fs::read_dir(proc.join("task"))
        .map_err(failed)?
        .flatten()
        .map(|task| task.path())
        .collect();
    tasks.sort();
    for task in tasks {
        let (Ok(stat), Ok(status)) = (read(&task.join("stat")), read(&task.join("status"))) else {
            continue;
        };
        // The name may hold anything, also spaces and brackets: fields count from its last bracket.
        let Some((head, fields)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let at = |index: usize| fields.get(index).copied().unwrap_or("?");
        let of = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim()
        };
        let (id, name) = head.split_once(" (").unwrap_or(("?", "?"));
        let switches = (of("voluntary_ctxt_switches:"), of("nonvoluntary_ctxt_switches:"));
        writeln!(out, "{id} {name} {} {} {} {} {}", at(0), at(11), at(12), switches.0, switches.1)
            .expect(INFALLIBLE);
    }
    Ok(out)
}

/// Open files of a process, by kind.
pub(super) fn descriptors(proc: &Path) -> Result<String, String> {
    let folder = proc.join("fd");
    let entries =
        fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut kinds = std::collections::BTreeMap::<String, u64>::new();
    for entry in entries.flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        // `socket:[123]`, `anon_inode:[eventfd]`, or a path.
        let kind = match target.split_once(':') {
            Some(("anon_inode", kind)) => kind.to_owned(),
            Some((kind, _)) => kind.to_owned(),
            None => "file".to_owned(),
        };
        *kinds.entry(kind).or_default() += 1;
    }
    Ok(kinds.iter().map(|(kind, count)| format!("{count} {kind}\n")).collect())
}

/// The mount that a directory is on, as `/proc/self/mountinfo` has it (proc(5)). Others may name what is nobody's business.
pub(super) fn mount(dir: &Path) -> Result<String, String> {
    let dir = dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?;
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    let point = |line: &&str| line.split(' ').nth(4).map(PathBuf::from);
    let holds = |line: &&str| point(line).is_some_and(|point| dir.starts_with(point));
    let depth = |line: &&str| point(line).map_or(0, |point| point.components().count());
    let line = mounts.lines().filter(holds).max_by_key(depth);
    line.map(|line| format!("{line}\n"))
        .ok_or_else(|| format!("{}: no mount holds it", dir.display()))
}

/// What lies in a directory: mode, bytes, bytes on disk, time of the last change, name. Nothing is opened.
pub(super) fn list(dir: &Path) -> Result<(String, u64), String> {
    use std::os::unix::fs::MetadataExt;
    let failed = |error: io::Error| format!("{}: {error}", dir.display());
    let mut out = "mode bytes on_disk changed_unix_s name\n".to_owned();
    let mut bytes = 0;
    let mut left = vec![(dir.to_owned(), 0)];
    let mut listed = 0;
    fs::read_dir(dir).map_err(failed)?;
    while let Some((folder, depth)) = left.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            writeln!(out, "? ? ? ? {}: not readable", folder.display()).expect(INFALLIBLE);
            continue;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            listed += 1;
            if listed > LISTED_MAX {
                writeln!(out, "and more").expect(INFALLIBLE);
                return Ok((out, bytes));
            }
            let Ok(known) = path.symlink_metadata() else { continue };
            let changed =
                known.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy();
            writeln!(
                out,
                "{:06o} {} {} {} {}",
                known.mode(),
                known.len(),
                known.blocks() * 512,
                changed.map_or(0, |time| time.as_secs()),
                name.replace(char::is_control, "?"),
            )
            .expect(INFALLIBLE);
            bytes += known.len();
            if known.is_dir() && depth < DEPTH_MAX {
                left.push((path, depth + 1));
            }
        }
    }
    Ok((out, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_machine_can_be_read() {
        let proc = Path::new("/proc/self");
        assert!(threads(proc).unwrap().lines().count() >= 2);
        assert!(descriptors(proc).unwrap().contains(" file\n"));
        assert!(mount(proc).unwrap().contains(" /proc "));
        assert!(sysctls().contains("\nfs.nr_open = "));
        assert!(read(Path::new("/proc/version")).unwrap().starts_with("Linux"));
        assert!(read(Path::new("/no/such/file")).unwrap_err().starts_with("/no/such/file: "));
    }

    #[test]
    fn a_directory_is_listed_with_sizes_and_nothing_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("wal/p000")).unwrap();
        fs::write(dir.path().join("wal/p000/00000001.seg"), "what users wrote").unwrap();
        let (text, bytes) = list(dir.path()).unwrap();
        assert!(text.contains(" 16 ") && text.contains(" wal/p000/00000001.seg\n"), "{text}");
        assert!(bytes >= 16 && !text.contains("wrote"));
        assert!(list(&dir.path().join("none")).is_err());
    }
}
