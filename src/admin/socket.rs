//! The admin server's unix socket.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::cli::exit::{Exit, Failure};

/// A path through its folder's descriptor: a socket's own has 107 bytes at most (`unix(7)`), and a folder's none.
pub(crate) fn short(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new(".")))?;
    let through = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok((folder, through))
}

/// Binds the socket, in the place of one that nobody listens on any more, and says whose it is.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, u32), Failure> {
    let failed = |error: io::Error| {
        let exit = match error.kind() {
            ErrorKind::AddrInUse => Exit::InUse,
            ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Config,
        };
        let what = format!("listen.admin_socket: {}: {error}", path.display());
        Failure::new(exit, format!("{what}; name another place, or \"none\""))
    };
    let (_folder, through) = short(path).map_err(failed)?;
    let listener = match UnixListener::bind(&through) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_left_over(&through) => {
            std::fs::remove_file(&through).map_err(failed)?;
            UnixListener::bind(&through)
        }
        other => other,
    };
    let listener = listener.map_err(failed)?;
    // Until this is done, who connects is told apart by user all the same.
    std::fs::set_permissions(&through, Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let owner = std::fs::metadata(&through).map_err(failed)?.uid();
    Ok((listener, owner))
}

/// Whether it is a socket that nobody listens on.
fn is_left_over(path: &Path) -> bool {
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
    is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_left_over_socket_gives_way_and_one_in_use_or_a_file_does_not() {
        let dir = tempfile::tempdir().unwrap();
        // Longer than a socket's path may be.
        let folder = dir.path().join("x".repeat(120));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("admin.sock");
        let (first, owner) = bind(&path).unwrap();
        let about = std::fs::metadata(&path).unwrap();
        assert_eq!((about.mode() & 0o777, about.uid()), (0o600, owner));
        assert_eq!(bind(&path).unwrap_err().exit, Exit::InUse);
        drop(first);
        assert!(path.exists());
        bind(&path).unwrap();
        let file = folder.join("file");
        std::fs::write(&file, "kept").unwrap();
        assert_eq!(bind(&file).unwrap_err().exit, Exit::InUse);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
        assert!(bind(&folder.join("none/admin.sock")).is_err());
    }
}
