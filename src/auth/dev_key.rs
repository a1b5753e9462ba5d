//! The key of `iris serve --dev`: made once, kept in the data directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::key::{self, KeyError};

/// Name of the file in the data directory.
pub const DEV_KEY_FILE: &str = "dev.key";

/// The development secret of a data directory: 64 hexadecimal characters in a file of mode 0600.
///
/// The file appears whole or not at all: it is written under another name and linked into place, so of two servers
/// that start at once, both use the key of the one that came first.
pub fn load_or_create_dev_key(data_dir: &Path) -> Result<Vec<u8>, KeyError> {
    let path = data_dir.join(DEV_KEY_FILE);
    if !path.exists() {
        create(data_dir, &path).map_err(|error| KeyError {
            cause: format!("{}: failed to make a development key: {error}", path.display()),
            fix: "name a data directory that this user may write to (--data-dir)".to_owned(),
        })?;
    }
    load_secret(&path)
}

/// The HS256 secret of a key file.
pub(crate) fn load_secret(path: &Path) -> Result<Vec<u8>, KeyError> {
    let bytes = key::read(path)?;
    let secret = key::secret_of_file(&bytes).to_vec();
    key::check_secret(&secret).map_err(|error| error.of(path))?;
    Ok(secret)
}

fn create(data_dir: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(data_dir)?;
    let mut random = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();

    let draft = data_dir.join(draft_name());
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    let linked = file
        .write_all(format!("{hex}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::File::open(data_dir)?.sync_all()
}

/// A name of this call's own, in this process and among others that run.
fn draft_name() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    format!("{DEV_KEY_FILE}.{}.{call}", std::process::id())
}
