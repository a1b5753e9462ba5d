//! Control groups of this process (cgroups(7), version 2).

use std::path::{Path, PathBuf};

/// The folder of the process's group and of each above it, the nearest first; none if it is in no group of version 2.
/// `root` is where `proc` and `sys` are.
pub(crate) fn groups(root: &Path) -> Vec<PathBuf> {
    let list = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let Some(own) = list.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    let mounted = root.join("sys/fs/cgroup");
    let own = mounted.join(own);
    own.ancestors().take_while(|group| group.starts_with(&mounted)).map(Path::to_owned).collect()
}

/// What a file of a group says; `None`: it is not there, or not readable.
pub(crate) fn read(group: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(group.join(file)).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_the_own_one_and_those_above_up_to_the_mount() {
        let root = tempfile::tempdir().unwrap();
        assert!(groups(root.path()).is_empty());
        std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
        let list = root.path().join("proc/self/cgroup");
        std::fs::write(&list, "4:memory:/old\n").unwrap();
        assert!(groups(root.path()).is_empty(), "version 1 alone");
        std::fs::write(&list, "4:memory:/old\n0::/a.slice/iris.service\n").unwrap();
        let mounted = root.path().join("sys/fs/cgroup");
        let wanted = [mounted.join("a.slice/iris.service"), mounted.join("a.slice"), mounted];
        assert_eq!(groups(root.path()), wanted);
    }
}
