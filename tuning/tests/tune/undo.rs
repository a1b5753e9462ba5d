//! What `undo` gives back, whatever was there, and what neither it nor `apply` touches.

use crate::common::{Entry, run, tree, tune, write};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const SYSCTL: &str = "etc/sysctl.d/90-iris.conf";
const DROP_IN: &str = "etc/systemd/system/iris.service.d/50-iris-tune.conf";
const CONFIG: &str = "etc/iris/iris-tune.toml";

/// A machine on which nothing is fatal.
fn machine() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "proc/sys/kernel/osrelease", "6.12.0\n");
    write(root, "proc/meminfo", "MemTotal: 8388608 kB\nSwapTotal: 1024 kB\n");
    write(root, "sys/devices/system/cpu/online", "0-3\n");
    write(root, "proc/sys/net/core/somaxconn", "4096\n");
    write(root, "proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n");
    dir
}

fn entry(root: &Path, path: &str) -> Option<Entry> {
    tree(root).remove(path)
}

/// What may lie where `apply` writes: nothing, or any bytes with some mode.
fn existing() -> impl Strategy<Value = Option<(Vec<u8>, u32)>> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "(net\\.core\\.somaxconn = [0-9]{1,6}\n){0,3}".prop_map(String::into_bytes),
    ];
    let mode = prop_oneof![Just(0o644u32), Just(0o600), Just(0o640), Just(0o755)];
    prop::option::of((bytes, mode))
}

fn asked() -> impl Strategy<Value = (u64, &'static str)> {
    let profile = prop_oneof![Just("node"), Just("edge"), Just("core"), Just("loadgen")];
    (1u64..1_000_000, profile)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn undo_gives_back_every_byte_and_mode_after_any_number_of_applies(
        files in prop::array::uniform3(existing()),
        empty_folder in any::<bool>(),
        applies in prop::collection::vec(asked(), 1..4),
    ) {
        let dir = machine();
        let root = dir.path();
        for (path, file) in [SYSCTL, DROP_IN, CONFIG].iter().zip(&files) {
            if let Some((bytes, mode)) = file {
                write(root, path, bytes);
                let mode = std::fs::Permissions::from_mode(*mode);
                std::fs::set_permissions(root.join(path), mode).unwrap();
            }
        }
        if empty_folder {
            std::fs::create_dir_all(root.join("etc/sysctl.d")).unwrap();
        }
        let before = tree(root);
        for (connections, profile) in &applies {
            let flags = ["-n", &connections.to_string(), "--profile", profile];
            let first = tune("apply", root, &flags);
            prop_assert_eq!(first.code, 0, "{}{}", first.out, first.err);
            let once = tree(root);
            let second = tune("apply", root, &flags);
            prop_assert_eq!(second.code, 0, "{}{}", second.out, second.err);
            prop_assert_eq!(tree(root), once, "a second apply changes nothing");
            prop_assert_eq!(tune("verify", root, &[]).code, 0);
        }
        let undo = tune("undo", root, &[]);
        prop_assert_eq!(undo.code, 0, "{}{}", undo.out, undo.err);
        prop_assert_eq!(tree(root), before);
    }

    #[test]
    fn no_value_is_lower_than_it_was_or_than_another_file_says(
        now in 0u64..200_000,
        before in prop::option::of(0u64..200_000),
        after in prop::option::of(0u64..200_000),
        connections in 1u64..100_000,
    ) {
        let dir = machine();
        let root = dir.path();
        write(root, "proc/sys/net/core/somaxconn", format!("{now}\n"));
        for (name, value) in [("10-a.conf", before), ("95-z.conf", after)] {
            if let Some(value) = value {
                write(root, &format!("etc/sysctl.d/{name}"), format!("net.core.somaxconn={value}\n"));
            }
        }
        tune("apply", root, &["-n", &connections.to_string()]);
        let written = std::fs::read_to_string(root.join(SYSCTL)).unwrap();
        let line = written.lines().find_map(|line| line.strip_prefix("net.core.somaxconn = "));
        let value: u64 = line.unwrap().parse().unwrap();
        let required = if connections >= 10_000 { 65_535 } else { 4096 };
        let most = [now, required].into_iter().chain(before).chain(after).max();
        prop_assert_eq!(Some(value), most);
    }
}

#[test]
fn a_file_that_somebody_edited_is_left_alone_until_that_is_asked_for() {
    let dir = machine();
    let root = dir.path();
    write(root, SYSCTL, "# mine\n");
    let before = tree(root);
    assert_eq!(tune("apply", root, &[]).code, 0);
    write(root, SYSCTL, "# edited\n");
    assert_eq!(tune("verify", root, &[]).code, 2);

    let apply = tune("apply", root, &["-n", "5"]);
    assert_eq!(apply.code, 2);
    assert!(apply.err.contains("90-iris.conf changed since"), "{}", apply.err);
    assert_eq!(entry(root, SYSCTL).unwrap().bytes.unwrap(), b"# edited\n");

    let undo = tune("undo", root, &[]);
    assert_eq!(undo.code, 2, "{}", undo.out);
    assert!(undo.out.contains("left       /etc/sysctl.d/90-iris.conf"), "{}", undo.out);
    assert_eq!(entry(root, SYSCTL).unwrap().bytes.unwrap(), b"# edited\n");
    assert_eq!(entry(root, CONFIG), None, "the others are put back");

    assert_eq!(tune("undo", root, &["--force"]).code, 0);
    assert_eq!(tree(root), before);
}

#[test]
fn a_crash_between_the_state_and_the_files_can_be_undone_and_gone_on_with() {
    for verb in ["undo", "apply"] {
        let dir = machine();
        let root = dir.path();
        write(root, SYSCTL, "# mine\n");
        let before = tree(root);
        assert_eq!(tune("apply", root, &[]).code, 0);
        let applied = tree(root);
        // The state was saved, nothing else was done, and a file was half written.
        std::fs::remove_file(root.join(CONFIG)).unwrap();
        write(root, SYSCTL, "# mine\n");
        write(root, "etc/iris/.iris-tune.toml.iris-tune", "half");
        let run = tune(verb, root, &[]);
        assert_eq!(run.code, 0, "{}", run.err);
        assert_eq!(tree(root), if verb == "undo" { before } else { applied });
    }
}

#[test]
fn a_link_in_place_of_a_file_is_a_decision_and_stays() {
    let dir = machine();
    let root = dir.path();
    std::fs::create_dir_all(root.join("etc/sysctl.d")).unwrap();
    std::os::unix::fs::symlink("/dev/null", root.join(SYSCTL)).unwrap();
    let before = tree(root);
    let apply = tune("apply", root, &[]);
    assert_eq!(apply.code, 2);
    assert!(apply.err.contains("90-iris.conf is a link"), "{}", apply.err);
    assert_eq!(tree(root), before);
}

#[test]
fn nothing_is_written_when_something_is_fatal_unless_that_is_asked_for() {
    let dir = machine();
    let root = dir.path();
    let before = tree(root);
    let apply = tune("apply", root, &["-n", "100000000"]);
    assert_eq!(apply.code, 2);
    assert!(apply.out.contains("memory.fits: fewer connections"), "{}", apply.out);
    assert_eq!(tree(root), before);
    assert_eq!(tune("apply", root, &["-n", "100000000", "--force"]).code, 2);
    assert!(entry(root, SYSCTL).is_some());
    write(root, "proc/sys/kernel/osrelease", "5.10.0-9\n");
    assert!(tune("check", root, &["-n", "5"]).out.contains("5.10.0-9"));
    assert_eq!(tune("check", root, &["-n", "5"]).code, 2);
}

#[test]
fn a_damaged_state_stops_everything_that_would_write() {
    let dir = machine();
    let root = dir.path();
    for state in ["{", "{}", "{\"version\": 1}", ""] {
        write(root, "var/lib/iris-tune/state.json", state);
        let before = tree(root);
        for verb in ["apply", "undo", "verify", "check"] {
            let run = tune(verb, root, &[]);
            assert_eq!(run.code, 2, "{verb} with {state:?}");
            assert!(run.err.contains("state.json cannot be understood"), "{}", run.err);
        }
        assert_eq!(tree(root), before);
    }
    assert_eq!(tune("apply", root, &["--force"]).code, 2);
}

#[test]
fn undo_of_nothing_is_no_failure_and_verify_of_nothing_is_one() {
    let dir = machine();
    let before = tree(dir.path());
    assert_eq!(tune("undo", dir.path(), &[]).code, 0);
    assert_eq!(tune("verify", dir.path(), &[]).code, 2);
    assert_eq!(tree(dir.path()), before);
}

#[test]
fn every_verb_speaks_json_with_its_exit_code_in_it() {
    let dir = machine();
    let root = dir.path();
    for (verb, key) in [
        ("check", "findings"),
        ("plan", "files"),
        ("verify", "compared"),
        ("list", "conditions"),
        ("apply", "steps"),
        ("verify", "compared"),
        ("undo", "steps"),
        ("undo", "steps"),
    ] {
        let flags: &[&str] = if verb == "undo" { &["--json"] } else { &["--json", "-n", "20000"] };
        let run = tune(verb, root, flags);
        let value: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!(value["exit"], run.code, "{verb}");
        assert_eq!(value["schema"], 1, "{verb}");
        assert!(value[key].is_array(), "{verb}: {key}");
    }
    let warned = tune("check", root, &["-n", "20000", "--strict", "--json"]);
    assert_eq!(warned.code, 1);
    let mut explain = Command::new(env!("CARGO_BIN_EXE_iris-tune"));
    let explain = run(explain.args(["explain", "net.tcp_mem", "--json"]));
    let value: serde_json::Value = serde_json::from_str(&explain.out).unwrap();
    assert_eq!(value["id"], "net.tcp_mem");
}

#[test]
fn verify_finds_what_was_applied_for_fewer_connections() {
    let dir = machine();
    let root = dir.path();
    assert_eq!(tune("apply", root, &["-n", "20000", "--profile", "edge"]).code, 0);
    assert_eq!(tune("verify", root, &["--connections", "20000"]).code, 0);
    assert_eq!(tune("verify", root, &["--connections", "20001"]).code, 2);
}

/// The scripts do what the program does, on files; values of the kernel are left to a stand-in for sysctl(8).
#[test]
fn scripts_do_what_the_program_does() {
    let dir = machine();
    let root = dir.path();
    write(root, SYSCTL, b"no line's end, and \xff");
    let script = tune("plan", root, &["-n", "20000", "--script"]);
    assert_eq!(tune("apply", root, &["-n", "20000"]).code, 0);
    let by_program = tree(root);
    let undo = tune("undo", root, &["--script"]);
    assert_eq!(tree(root), by_program, "a script was printed and nothing done");

    let bin = tempfile::tempdir().unwrap();
    for name in ["sysctl", "chown", "systemctl"] {
        write(bin.path(), name, "#!/bin/sh\nexit 0\n");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(bin.path().join(name), mode).unwrap();
    }
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    // Paths of the script are those of the machine; here they are below the root.
    let at = |script: &str| {
        let root = root.display();
        let script = script.replace("'/etc/", &format!("'{root}/etc/"));
        script.replace("/var/lib/iris-tune", &format!("{root}/var/lib/iris-tune"))
    };
    let shell = |script: &str| {
        let text = at(script);
        let run = run(Command::new("sh").arg("-c").arg(text).env("PATH", &path));
        assert_eq!(run.code, 0, "{}\n{script}", run.err);
    };
    shell(&undo.out);
    assert_eq!(entry(root, SYSCTL).unwrap().bytes.unwrap(), b"no line's end, and \xff");
    assert_eq!(entry(root, CONFIG), None);
    shell(&script.out);
    let by_script: BTreeMap<_, _> = tree(root);
    for path in [SYSCTL, DROP_IN, CONFIG] {
        assert_eq!(by_script[path].bytes, by_program[path].bytes, "{path}");
    }
}
