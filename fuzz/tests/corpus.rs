//! Every input that fuzzing found worth keeping, with every test run. A target that panics fails with the input's name.

use std::path::{Path, PathBuf};

use iris_fuzz::TARGETS;

/// Bytes of all inputs, at most: they are part of the repository.
const CORPUS_BYTES_MAX: u64 = 600 << 10;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Names and contents of the inputs of one target.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = corpus().join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a folder can be read").path();
            let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("an input can be read"))
        })
        .collect();
    inputs.sort();
    inputs
}

fn replay(target: &str) {
    let (_, run) =
        TARGETS.iter().find(|(name, _)| *name == target).expect("there is such a target");
    let inputs = inputs(target);
    assert!(inputs.len() >= 8, "{target}: {} inputs are no corpus", inputs.len());
    run(&[]);
    for (name, bytes) in inputs {
        eprintln!("fuzz/corpus/{target}/{name}");
        run(&bytes);
    }
}

macro_rules! corpora {
    ($($target:ident,)*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target));
            }
        )*
        const REPLAYED: &[&str] = &[$(stringify!($target)),*];
    };
}

corpora! {
    wire_client,
    wire_server,
    session,
    link_to_core,
    link_to_edge,
    link_peer,
    replica,
    wal_recovery,
    wal_records,
    config,
    token,
    tls,
}

#[test]
fn every_target_has_a_corpus_a_binary_and_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, REPLAYED);
    for name in names {
        assert!(root.join(format!("fuzz_targets/{name}.rs")).exists(), "{name} has no binary");
    }
}

#[test]
fn the_corpora_are_small() {
    let sizes =
        TARGETS.iter().flat_map(|(name, _)| inputs(name)).map(|(_, bytes)| bytes.len() as u64);
    let bytes: u64 = sizes.sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes: minimise them (fuzz/README.md)");
}
