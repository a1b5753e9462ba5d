//! What is written and said for recorded machines, compared with what was reviewed.

use std::path::{Path, PathBuf};

use crate::common::{copy, here, tree, tune};

/// A recorded machine, what is asked of it, and whether `check` finds something fatal.
const CASES: [(&str, &str, &str); 6] = [
    ("1-core-1g", "node", "50000"),
    ("2-cores-24g", "node", "1000000"),
    ("2-cores-24g", "loadgen", "100000"),
    ("64-cores-256g", "edge", "10000000"),
    ("64-cores-256g", "latency", "100000"),
    ("container-quota", "node", "200000"),
];

fn snapshot(machine: &str, profile: &str, connections: &str) -> PathBuf {
    here().join("tests/snapshots").join(format!("{machine}-{profile}-{connections}"))
}

#[test]
fn recorded_machines_get_the_reviewed_files_and_undo_takes_them_away() {
    for (machine, profile, connections) in CASES {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        copy(&here().join("tests/profiles").join(machine), root);
        let before = tree(root);
        let asked = ["--profile", profile, "--connections", connections];
        let check = tune("check", root, &asked);
        assert_eq!(check.code, 0, "{machine}: {}", check.out);

        let apply = tune("apply", root, &asked);
        assert_eq!(apply.code, 0, "{machine}: {}{}", apply.out, apply.err);
        let mut written = tree(root);
        written.retain(|path, file| before.get(path) != Some(file));
        written.retain(|path, _| !path.contains("var/lib"));
        let mut files: Vec<(String, Vec<u8>)> =
            written.into_iter().filter_map(|(path, entry)| Some((path, entry.bytes?))).collect();
        files.push(("check.txt".to_owned(), check.out.into_bytes()));
        compare(&snapshot(machine, profile, connections), &files);

        assert_eq!(tune("verify", root, &[]).code, 0, "{machine}");
        let again = tune("apply", root, &asked);
        let is_written = again.out.lines().any(|line| line.starts_with("written"));
        assert!(!is_written, "{machine}: twice is as once: {}", again.out);
        let undo = tune("undo", root, &[]);
        assert_eq!(undo.code, 0, "{machine}: {}", undo.err);
        assert_eq!(tree(root), before, "{machine}: undo gives back what was there");
    }
}

/// The files of the snapshot are these, to the byte.
fn compare(snapshot: &Path, files: &[(String, Vec<u8>)]) {
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        let _ = std::fs::remove_dir_all(snapshot);
        for (path, bytes) in files {
            let path = snapshot.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    let mut reviewed = tree(snapshot);
    for (path, bytes) in files {
        let expected = reviewed.remove(path).and_then(|entry| entry.bytes);
        let expected = expected.unwrap_or_else(|| panic!("{path} is not in {snapshot:?}"));
        let (expected, bytes) =
            (String::from_utf8_lossy(&expected), String::from_utf8_lossy(bytes));
        assert_eq!(expected, bytes, "{path} of {snapshot:?}");
    }
    reviewed.retain(|_, entry| entry.bytes.is_some());
    assert!(reviewed.is_empty(), "only in {snapshot:?}: {:?}", reviewed.keys());
}

/// The server understands what is written for it, and makes of it what was planned.
#[test]
fn the_written_configuration_is_one_of_the_server() {
    for (machine, profile, connections) in CASES {
        let file = snapshot(machine, profile, connections).join("etc/iris/iris-tune.toml");
        let Ok(text) = std::fs::read_to_string(&file) else {
            assert_eq!(profile, "loadgen");
            continue;
        };
        // An edge needs cores, which no tuning can name.
        let text = text.replace("roles = [\"edge\"]\n", "");
        let plan = tune(
            "plan",
            &here().join("tests/profiles").join(machine),
            &["--profile", profile, "--connections", connections, "--json"],
        );
        let plan: serde_json::Value = serde_json::from_str(&plan.out).unwrap();
        let sizing = &plan["sizing"];
        let number = |name: &str| sizing[name].as_u64().unwrap() as usize;
        // The limit of open files is what the plan asks for; everything else is said by the file.
        let nofile_hard = sizing["nofile"].as_u64().unwrap();
        let host =
            iris::config::Host { cpus: 1, name: "host".to_owned(), nofile_hard, credentials: None };
        let (config, _) = iris::config::parse(&text, true, &host)
            .unwrap_or_else(|problems| panic!("{file:?}: {problems}"));
        assert_eq!(config.reactors(), sizing["reactor_cpus"].as_array().unwrap().len());
        assert_eq!(config.reactor.connections_max.to_string(), connections);
        assert_eq!(config.reactor.connections_per_reactor(), number("connections_per_reactor"));
        assert_eq!(config.reactor.rings_per_reactor(), number("rings_per_reactor"));
        if profile != "edge" {
            assert_eq!(config.partitions(), sizing["partition_cpus"].as_array().unwrap().len());
        }
    }
}
