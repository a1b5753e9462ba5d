//! Reads and writes files under a root, and kernel settings. Each file is replaced as a whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::changes::{Change, Seen};
use crate::gather::{Root, sysctl, sysctl_path};
use crate::state::{Kept, STATE_FILE, State, VERSION};

/// Mode of files that were not there before.
const MODE: u32 = 0o644;
const MODE_BITS: u32 = 0o7777;

/// A file, if it is there. What is no plain file is an error: a link may be a decision (`/dev/null` masks a file).
pub fn read(root: &Root, path: &str) -> anyhow::Result<Option<Kept>> {
    let at = root.at(path);
    let meta = match fs::symlink_metadata(&at) {
        Ok(meta) => meta,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("failed to look at {}", at.display()));
        }
    };
    if !meta.is_file() {
        bail!(
            "{} is a link or a folder and not a file: it stays; move it away first",
            at.display()
        );
    }
    let contents = fs::read(&at).with_context(|| format!("failed to read {}", at.display()))?;
    Ok(Some(Kept {
        contents: crate::state::Contents(contents),
        mode: meta.mode() & MODE_BITS,
        uid: meta.uid(),
        gid: meta.gid(),
    }))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What there is of these files and of the settings of `state`, and the folders that the files and the state lack.
pub fn see(root: &Root, paths: &[String], state: Option<&State>) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let recorded = state.into_iter().flat_map(|state| &state.files).map(|record| &record.path);
    for path in paths.iter().chain(recorded) {
        if let Some(kept) = read(root, path)? {
            seen.files.insert(path.clone(), kept);
        }
    }
    for path in paths.iter().map(String::as_str).chain([STATE_FILE]) {
        let folders = Path::new(path).ancestors().skip(1);
        let missing = folders.take_while(|folder| !root.at(&folder.to_string_lossy()).exists());
        seen.missing_folders.extend(missing.map(|folder| folder.to_string_lossy().into_owned()));
    }
    for record in state.into_iter().flat_map(|state| &state.settings) {
        if let Some(value) = sysctl(root, &record.name) {
            seen.settings.insert(record.name.clone(), value);
        }
    }
    Ok(seen)
}

/// The state of the last `apply`, if there is one.
pub fn load(root: &Root) -> anyhow::Result<Option<State>> {
    let Some(kept) = read(root, STATE_FILE)? else { return Ok(None) };
    let at = root.at(STATE_FILE);
    let state: State = serde_json::from_slice(&kept.contents.0).with_context(|| {
        let at = at.display();
        format!("{at} cannot be understood, so nothing is changed; restore it, or move it away and undo by hand")
    })?;
    if state.version != VERSION {
        let (at, version) = (at.display(), state.version);
        bail!(
            "{at} is of version {version}, and this iris-tune knows {VERSION}: use the one that wrote it"
        );
    }
    Ok(Some(state))
}

/// Saves the state.
pub fn save(root: &Root, state: &State) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(state).expect("the state is plain data");
    text.push('\n');
    put(root, STATE_FILE, text.as_bytes(), None)
}

/// Holds others off until it is dropped: a lock on the folder of the state. `None`: there is no such folder.
pub fn lock(root: &Root) -> anyhow::Result<Option<File>> {
    let at = root.at(STATE_FILE);
    let folder = at.parent().unwrap_or(Path::new("/"));
    let file = match File::open(folder) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("failed to open {}", folder.display()));
        }
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => {
            bail!("another iris-tune is at work; wait for its end")
        }
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("failed to lock {}", folder.display()))
        }
    }
}

/// Makes folders that are not there.
pub fn make_folders(root: &Root, folders: &[String]) -> anyhow::Result<()> {
    for folder in folders {
        let at = root.at(folder);
        fs::create_dir_all(&at).with_context(|| format!("failed to make {}", at.display()))?;
    }
    Ok(())
}

/// Does a change of a file.
pub fn change(root: &Root, change: &Change) -> anyhow::Result<()> {
    match change {
        Change::Put { path, contents, like } => put(root, path, &contents.0, like.as_ref()),
        Change::Restore { path, before: Some(kept) } => {
            put(root, path, &kept.contents.0, Some(kept))
        }
        Change::Restore { path, before: None } => remove(root, path),
    }
}

/// The name under which a file is written before it takes its place.
fn temporary(at: &Path) -> PathBuf {
    let name = at.file_name().unwrap_or_default().to_string_lossy();
    at.with_file_name(format!(".{name}.iris-tune"))
}

fn put(root: &Root, path: &str, contents: &[u8], like: Option<&Kept>) -> anyhow::Result<()> {
    let at = root.at(path);
    let temp = temporary(&at);
    let write = || -> io::Result<()> {
        // What a crash left, whoever owns it.
        match fs::remove_file(&temp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mode = like.map_or(MODE, |kept| kept.mode);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
        file.write_all(contents)?;
        if let Some(kept) = like {
            let meta = file.metadata()?;
            if (meta.uid(), meta.gid()) != (kept.uid, kept.gid) {
                chown(&temp, Some(kept.uid), Some(kept.gid))?;
            }
        }
        // After the owner: chown(2) takes bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temp, &at)?;
        sync_folder(&at)
    };
    write().with_context(|| format!("failed to write {}", at.display()))
}

fn sync_folder(at: &Path) -> io::Result<()> {
    File::open(at.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn remove(root: &Root, path: &str) -> anyhow::Result<()> {
    let at = root.at(path);
    let removed = match fs::remove_file(&at) {
        Err(error) if is_absent(&error) => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(&at),
    };
    removed.with_context(|| format!("failed to remove {}", at.display()))
}

/// Takes the state away, and what a crash left beside the files of it.
pub fn forget(root: &Root, state: &State) -> anyhow::Result<()> {
    for record in &state.files {
        let temp = temporary(Path::new(&record.path));
        remove(root, &temp.to_string_lossy())?;
    }
    remove(root, &temporary(Path::new(STATE_FILE)).to_string_lossy())?;
    remove(root, STATE_FILE)
}

/// Removes folders that are empty, in that order. One that is not, or that something holds, stays.
pub fn remove_folders(root: &Root, folders: &[String]) {
    for folder in folders {
        // Anything in it is somebody's, and then it is no longer ours alone.
        let _ = fs::remove_dir(root.at(folder));
    }
}

/// Sets a setting of the kernel, and reads it back: some values are cut.
pub fn set(root: &Root, name: &str, value: &str) -> anyhow::Result<()> {
    let at = root.at(&sysctl_path(name));
    let written = OpenOptions::new().write(true).open(&at).and_then(|mut file| {
        file.write_all(value.as_bytes())?;
        file.flush()
    });
    written.map_err(|error| {
        let next = match error.kind() {
            io::ErrorKind::PermissionDenied => "; run as root",
            io::ErrorKind::ReadOnlyFilesystem => "; set it on the host",
            _ => "",
        };
        anyhow::anyhow!("failed to set {name} to {value}: {error}{next}")
    })?;
    match sysctl(root, name) {
        Some(current) if current == value => Ok(()),
        current => bail!(
            "{name} was set to {value} and is {}: the kernel cut it",
            current.unwrap_or_default()
        ),
    }
}
