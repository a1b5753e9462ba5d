//! On the running kernel, in a network namespace and with folders of its own: what can be set is set, and undone.

use std::process::Command;

use crate::common::{Run, run};

/// Settings that a network namespace has of its own.
const OF_NAMESPACE: [&str; 5] = [
    "net.core.somaxconn",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
/// Settings of the whole machine, which must stay as they are.
const OF_HOST: [&str; 3] = ["fs.nr_open", "net.core.wmem_max", "kernel.io_uring_disabled"];

/// Runs a script in namespaces for the network and for mounts, with an empty /etc and /var/lib; `None`: that is not
/// permitted here.
fn in_namespaces(script: &str) -> Option<Run> {
    let private = "mount -t tmpfs tmpfs /etc && mount -t tmpfs tmpfs /var/lib";
    Command::new("unshare").arg("--version").output().ok()?;
    let shell = |script: &str| {
        run(Command::new("unshare").args(["--net", "--mount", "sh", "-euc", script]))
    };
    (shell(private).code == 0).then(|| shell(&format!("{private}\n{script}")))
}

fn cat(names: &[&str]) -> String {
    let cat = |name: &&str| format!("cat /proc/sys/{} 2>/dev/null || :", name.replace('.', "/"));
    names.iter().map(cat).collect::<Vec<_>>().join("; ")
}

#[test]
fn settings_of_the_running_kernel_are_set_and_undone() {
    let tune = env!("CARGO_BIN_EXE_iris-tune");
    let (of_namespace, of_host) = (cat(&OF_NAMESPACE), cat(&OF_HOST));
    // --force: this machine may have little memory, which is not what is tried.
    let script = format!(
        "snapshot() {{ {of_namespace}; {of_host}; find /etc /var/lib | sort; }}
         echo 1024 > /proc/sys/net/core/somaxconn
         echo 3000 > /proc/sys/net/ipv4/tcp_max_tw_buckets
         before=$(snapshot)
         {tune} apply -n 20000 --force > /dev/null || :
         echo somaxconn $(cat /proc/sys/net/core/somaxconn)
         {tune} apply -n 20000 --force > /dev/null || :
         {tune} verify > /dev/shm/iris-tune.$$ || :
         grep 'all is as it was applied' /dev/shm/iris-tune.$$ || cat /dev/shm/iris-tune.$$
         rm /dev/shm/iris-tune.$$
         echo 2000 > /proc/sys/net/ipv4/tcp_max_tw_buckets
         {tune} verify > /dev/null || echo verify $?
         {tune} undo || :
         echo buckets $(cat /proc/sys/net/ipv4/tcp_max_tw_buckets)
         echo 3000 > /proc/sys/net/ipv4/tcp_max_tw_buckets
         after=$(snapshot)
         [ \"$before\" = \"$after\" ] && echo same || printf '%s\\n-- is now\\n%s\\n' \"$before\" \"$after\""
    );
    let Some(run) = in_namespaces(&script) else {
        println!("skipped: namespaces cannot be made here (unshare --net --mount needs root)");
        return;
    };
    println!("{}{}", run.out, run.err);
    let has = |text: &str| run.out.lines().any(|line| line.contains(text));
    assert!(has("somaxconn 65535"), "it was set");
    assert!(has("all is as it was applied"));
    assert!(has("verify 2"), "a value that somebody has lowered is found");
    assert!(has("buckets 2000") && has("left       net.ipv4.tcp_max_tw_buckets"));
    assert!(has("same"), "undo gave back what was there");
}
