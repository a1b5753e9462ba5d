//! Why io_uring does not work here: kernel, sysctl, seccomp or limits (io_uring_setup(2)).

use std::fs;
use std::io;

use super::limits;
use crate::cli::exit::{Exit, Failure};

/// What tells the causes apart.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// kernel.io_uring_disabled: 0, 1 (only privileged users and a group) or 2 (nobody); since Linux 6.6.
    disabled: Option<u8>,
    /// kernel.io_uring_group.
    group: Option<i64>,
    /// Whether a seccomp filter is on this process (Seccomp: 2 in /proc/self/status).
    seccomp: bool,
    /// Soft limit of locked memory, bytes.
    memlock: u64,
    /// The kernel's release.
    release: String,
}

impl Facts {
    /// The facts of this process.
    pub(super) fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        Self {
            disabled: read("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            group: read("/proc/sys/kernel/io_uring_group").trim().parse().ok(),
            seccomp: seccomp.is_some_and(|mode| mode.trim() == "2"),
            memlock: limits::memlock().soft,
            release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

const SECCOMP_FIX: &str = "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile \
    (docker run --security-opt seccomp=FILE; systemd: SystemCallFilter=@aio)";

/// Why making a ring failed, and what to do.
pub(super) fn explain(error: &io::Error, facts: &Facts) -> Failure {
    let (cause, fix) = match error.raw_os_error() {
        Some(libc::EPERM) => explain_eperm(facts),
        Some(libc::ENOSYS) if facts.seccomp => {
            ("a seccomp filter blocks io_uring (ENOSYS)".to_owned(), SECCOMP_FIX.to_owned())
        }
        Some(libc::ENOSYS) => (
            format!("this kernel ({}) has no io_uring (ENOSYS)", facts.release),
            "run on Linux 6.1 or newer with CONFIG_IO_URING; gVisor has none".to_owned(),
        ),
        Some(libc::EINVAL) => (
            format!("this kernel ({}) is too old for how io_uring is used", facts.release),
            "run on Linux 6.1 or newer".to_owned(),
        ),
        Some(libc::ENOMEM) => (
            format!(
                "no memory for an io_uring: locked memory is limited to {} bytes for all processes of this user",
                facts.memlock
            ),
            "set LimitMEMLOCK=infinity in the unit, or run `ulimit -l unlimited` before".to_owned(),
        ),
        Some(libc::EMFILE | libc::ENFILE) => (
            "no file descriptor is left for an io_uring".to_owned(),
            "raise LimitNOFILE= in the unit, or fs.file-max".to_owned(),
        ),
        _ => (
            format!("failed to make an io_uring: {error}"),
            "see `dmesg` and the security modules (SELinux, AppArmor)".to_owned(),
        ),
    };
    Failure::new(Exit::Unavailable, format!("{cause}; {fix}"))
}

/// EPERM has three causes; the sysctl is visible, and the filter, too.
fn explain_eperm(facts: &Facts) -> (String, String) {
    let group = facts.group.filter(|group| *group >= 0);
    match (facts.disabled, facts.seccomp) {
        (Some(2), _) => (
            "kernel.io_uring_disabled is 2: nobody may use io_uring".to_owned(),
            "on the host: sysctl -w kernel.io_uring_disabled=0".to_owned(),
        ),
        (Some(1), seccomp) => {
            let group = group.map_or_else(
                || "no group (kernel.io_uring_group)".to_owned(),
                |group| format!("group {group}"),
            );
            let also = if seccomp { "; a seccomp filter is on, too, and may block it" } else { "" };
            (
                format!(
                    "kernel.io_uring_disabled is 1: only root and {group} may use io_uring{also}"
                ),
                "on the host: sysctl -w kernel.io_uring_disabled=0, or run in that group"
                    .to_owned(),
            )
        }
        (_, true) => {
            ("a seccomp filter blocks io_uring (EPERM)".to_owned(), SECCOMP_FIX.to_owned())
        }
        (_, false) => (
            "io_uring is not permitted, and neither the sysctl nor seccomp forbids it".to_owned(),
            "look for a security module: `ausearch -m avc` (SELinux), `dmesg` (AppArmor)"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(errno: i32, disabled: Option<u8>, seccomp: bool) -> String {
        let release = "5.10.0".to_owned();
        let facts = Facts { disabled, group: Some(-1), seccomp, memlock: 65_536, release };
        explain(&io::Error::from_raw_os_error(errno), &facts).to_string()
    }

    #[test]
    fn each_cause_of_eperm_is_told_from_the_others() {
        let sysctl = explained(libc::EPERM, Some(2), true);
        assert!(sysctl.starts_with("kernel.io_uring_disabled is 2"), "{sysctl}");
        let grouped = explained(libc::EPERM, Some(1), false);
        assert!(grouped.contains("is 1") && !grouped.contains("seccomp"), "{grouped}");
        let filter = explained(libc::EPERM, Some(0), true);
        assert!(filter.starts_with("a seccomp filter"), "{filter}");
        assert!(explained(libc::EPERM, None, false).contains("security module"));
    }

    #[test]
    fn kernel_memory_and_descriptor_causes_are_named() {
        assert!(explained(libc::ENOSYS, None, false).contains("5.10.0"));
        assert!(explained(libc::ENOSYS, None, true).starts_with("a seccomp filter"));
        assert!(explained(libc::EINVAL, None, false).contains("too old"));
        assert!(explained(libc::ENOMEM, None, false).contains("65536"));
        assert!(explained(libc::EMFILE, None, false).contains("descriptor"));
    }
}
