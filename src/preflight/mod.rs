//! What the machine must offer, checked before anything is touched. Each lack is one line: cause, then next step.

mod holds;
pub mod limits;
mod uring;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use iris_ring::{Ring, RingConfig};

use crate::cli::exit::{Exit, Failure};
use crate::config::{Config, Layers, Origin};
use crate::supervisor::Inherited;

/// Locked memory that glommio asks for (RLIMIT_MEMLOCK, soft).
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;
/// Open files of one reactor: glommio's three rings, rings of its own, eventfds, the listener.
const FDS_PER_REACTOR: u64 = 24;
/// How long addresses may be in use: the kernel takes io_uring instances of a killed process apart after the process is
/// gone, and the listening socket with them. On a disk that others keep busy that takes seconds: writes under way come
/// first.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(5);
/// Open files of one partition: glommio's rings, eventfds, segments.
const FDS_PER_PARTITION: u64 = 64;
/// Open files of everything else: standard streams, admin server, signals.
const FDS_OTHER: u64 = 128;

/// Looks at limits, io_uring, addresses and the data directory, and raises the soft limit of open files. All that is
/// lacking comes back at once, one line each; the exit code is that of the first. What somebody wrote is refused if the
/// machine does not hold it; of a default that it does not hold a line for the log comes back. An address whose listeners
/// were inherited is this process's already.
pub fn run(
    config: &Config,
    layers: &Layers,
    inherited: &Inherited,
) -> Result<Vec<String>, Failure> {
    let mut failures = Vec::new();
    let is_default =
        |lack: &holds::Lack| layers.value(lack.key.0, lack.key.1).origin == Origin::Default;
    let lacks = holds::Machine::read(Path::new("/")).lacks(config);
    let (notices, lacks): (Vec<_>, Vec<_>) = lacks.into_iter().partition(is_default);
    failures.extend(lacks.into_iter().map(|lack| Failure::new(Exit::Machine, lack.message)));
    let until = Instant::now() + ADDRESS_PATIENCE;
    failures.extend(check_files(config).err());
    // Too little locked memory is one lack, though a ring may fail by it, too.
    failures.extend(check_memlock(limits::memlock().soft).and_then(|()| check_uring()).err());
    if config.roles.edge {
        for (key, address) in [("listen.tcp", config.listen.tcp), ("listen.tls", config.listen.tls)]
        {
            // A port of a listener that was kept is this process's own: another one can be bound beside it.
            let address = address.filter(|address| !inherited.has_port(address.port()));
            failures.extend(address.and_then(|address| check_address(key, address, until).err()));
        }
    }
    failures.extend(check_address("listen.admin", config.listen.admin, until).err());
    if config.roles.core {
        let link = config.cluster.as_ref().map(|cluster| cluster.listen);
        failures.extend(link.and_then(|link| check_address("cluster.listen", link, until).err()));
        failures.extend(check_data_dir(&config.node.data_dir).err());
    }
    let Some(first) = failures.first() else {
        return Ok(notices.into_iter().map(|lack| lack.message).collect());
    };
    let exit = first.exit;
    let mut lines = String::new();
    for failure in failures {
        writeln!(lines, "{failure}").expect("writing to a String cannot fail");
    }
    Err(Failure::new(exit, lines.trim_end()))
}

fn check_files(config: &Config) -> Result<(), Failure> {
    let hard = iris_ring::raise_descriptor_limit().unwrap_or_else(|_| limits::nofile().soft);
    let slots = config.reactor.ring_slots as u64;
    if hard < files_needed(config, slots) {
        // Tables left to us grow with the limit, and larger ones need fewer rings.
        let slots_at = |limit| if slots == hard { limit } else { slots };
        let mut enough = hard.next_power_of_two();
        while files_needed(config, slots_at(enough)) > enough {
            enough *= 2;
        }
        let cause = format!("at most {hard} open files are allowed, and {enough} are needed");
        let fix = format!("raise it to {enough} or more: LimitNOFILE= in the unit, or ulimit -Hn");
        return Err(Failure::new(Exit::Unavailable, format!("{cause}; {fix}")));
    }
    if config.reactor.ring_slots as u64 > hard {
        let slots = config.reactor.ring_slots;
        let cause = format!("reactor.ring_slots is {slots}, but {hard} open files are allowed");
        let fix = "set it to 0, which takes what is allowed and uses more rings";
        return Err(Failure::new(Exit::Unavailable, format!("{cause}; {fix}")));
    }
    Ok(())
}

/// Open files of the whole node when each ring's descriptor table has that many slots.
fn files_needed(config: &Config, slots: u64) -> u64 {
    let (reactors, partitions) = (config.reactors() as u64, config.partitions() as u64);
    let rings = (config.reactor.connections_per_reactor() as u64).div_ceil(slots);
    FDS_OTHER + reactors * (FDS_PER_REACTOR + 2 * rings) + partitions * FDS_PER_PARTITION
}

/// glommio refuses to start below this, for root, too.
fn check_memlock(soft: u64) -> Result<(), Failure> {
    if soft >= MEMLOCK_BYTES_MIN {
        return Ok(());
    }
    let cause = format!(
        "locked memory is limited to {soft} bytes (RLIMIT_MEMLOCK), and {MEMLOCK_BYTES_MIN} are needed"
    );
    let fix = "set LimitMEMLOCK=infinity in the unit, or run `ulimit -l unlimited` before";
    Err(Failure::new(Exit::Unavailable, format!("{cause}; {fix}")))
}

/// Makes and drops a small ring like those of the reactors; an error says why that is not possible here.
pub fn check_uring() -> Result<(), Failure> {
    let config = RingConfig { entries: 8, descriptors: 8, buffers: 8, buffer_bytes: 4096 };
    Ring::new(config).map(drop).map_err(|error| explain_ring(&error))
}

/// Why a ring could not be made, and what to do. A small ring that worked before says nothing of larger ones: locked
/// memory is counted per user, over all processes.
pub fn explain_ring(error: &io::Error) -> Failure {
    uring::explain(error, &uring::Facts::read())
}

/// Tries to bind, without SO_REUSEPORT: with it, a second server would share the port and nobody would notice.
fn check_address(key: &str, address: SocketAddr, until: Instant) -> Result<(), Failure> {
    if address.port() == 0 {
        return Ok(());
    }
    let mut is_told = false;
    loop {
        match TcpListener::bind(address) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                if !std::mem::replace(&mut is_told, true) {
                    // Logging starts after these checks. Without a standard error there is nobody to tell.
                    let _ = writeln!(
                        io::stderr(),
                        "iris: {address} is in use; waiting a few seconds for it"
                    );
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
            Err(error) => return Err(explain_bind(key, address, &error)),
        }
    }
}

/// Why an address could not be bound, and what to do; `key` is where it was configured.
pub fn explain_bind(key: &str, address: SocketAddr, error: &io::Error) -> Failure {
    let port = address.port();
    let (exit, cause, fix) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            Exit::InUse,
            format!("{address} is in use by another process"),
            format!("see who with `ss -ltnp sport = :{port}`, or change {key}"),
        ),
        io::ErrorKind::AddrNotAvailable => (
            Exit::Config,
            format!("{} is no address of this machine", address.ip()),
            format!("see them with `ip address`, and change {key}"),
        ),
        io::ErrorKind::PermissionDenied => (
            Exit::Permission,
            format!("{address} may not be bound by this user"),
            format!("use a port above 1023 in {key}, or grant CAP_NET_BIND_SERVICE"),
        ),
        _ => (
            Exit::Unavailable,
            format!("failed to bind {address}: {error}"),
            format!("change {key}"),
        ),
    };
    Failure::new(exit, format!("{cause}; {fix}"))
}

/// The directory must be one in which files can be made; one that is missing must have a parent of that kind.
fn check_data_dir(data_dir: &Path) -> Result<(), Failure> {
    let mut dir = data_dir;
    while !dir.exists() {
        dir = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
    }
    // An unnamed file: it tries rights, read-only mounts and full disks alike, and leaves nothing behind.
    let made = std::fs::read_dir(dir).and_then(|_| {
        OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(dir)
    });
    let error = match made {
        Ok(_) => return Ok(()),
        // The file system has no unnamed files; opening the log will tell.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        Err(error) => error,
    };
    let exit = match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::Permission,
        _ => Exit::DataDir,
    };
    let cause = format!("{}: the data directory cannot be used: {error}", data_dir.display());
    let fix = match error.kind() {
        io::ErrorKind::NotADirectory => {
            "name a directory in node.data_dir or --data-dir".to_owned()
        }
        _ if dir == data_dir => "let this user read and write it, or name another".to_owned(),
        _ => format!("{} is not writable: make the directory for this user", dir.display()),
    };
    Err(Failure::new(exit, format!("{cause}; {fix}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_its_key() {
        // An address of this test's own, so that nobody takes the port once it is free.
        let holder = TcpListener::bind("127.0.0.77:0").unwrap();
        let address = holder.local_addr().unwrap();
        let failure = check_address("listen.tcp", address, Instant::now()).unwrap_err();
        assert_eq!(failure.exit, Exit::InUse);
        let text = failure.to_string();
        assert!(text.contains(&address.to_string()) && text.contains("listen.tcp"), "{text}");
        let until = Instant::now() + Duration::from_secs(60);
        let waiting = std::thread::spawn(move || check_address("listen.tcp", address, until));
        drop(holder);
        assert!(waiting.join().unwrap().is_ok(), "a port that is given up in time is taken");
    }

    #[test]
    fn a_foreign_address_is_told_from_one_in_use() {
        let foreign = "192.0.2.1:7400".parse().unwrap();
        let failure = check_address("listen.tcp", foreign, Instant::now()).unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.to_string().contains("no address of this machine"));
    }

    #[test]
    fn a_file_in_place_of_the_data_directory_is_refused_and_a_missing_one_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(check_data_dir(&file).unwrap_err().exit, Exit::DataDir);
        let missing = dir.path().join("a/b/c");
        assert!(check_data_dir(&missing).is_ok());
        assert!(!dir.path().join("a").exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn too_little_locked_memory_says_how_much_is_needed() {
        assert!(check_memlock(MEMLOCK_BYTES_MIN).is_ok());
        let text = check_memlock(65_536).unwrap_err().to_string();
        assert!(text.contains("65536") && text.contains("524288"), "{text}");
    }
}
