//! Running the program, and folders as data.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crate's folder.
pub(crate) fn here() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    here.into()
}

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a verb on a root.
pub(crate) fn tune(verb: &str, root: &Path, flags: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris-tune"));
    run(command.arg(verb).arg("--root").arg(root).args(flags))
}

pub(crate) fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// A file or folder: mode, and bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) mode: u32,
    pub(crate) bytes: Option<Vec<u8>>,
}

/// All below a folder, by path.
pub(crate) fn tree(folder: &Path) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    collect(folder, folder, &mut entries);
    entries
}

fn collect(top: &Path, folder: &Path, entries: &mut BTreeMap<String, Entry>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let mode = path.symlink_metadata().unwrap().permissions().mode();
        let bytes = path.is_file().then(|| std::fs::read(&path).unwrap());
        let name = path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
        entries.insert(name, Entry { mode, bytes });
        if path.is_dir() {
            collect(top, &path, entries);
        }
    }
}

/// Copies all below a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Writes a file and its folders.
pub(crate) fn write(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}
