//! Starting or reaching all workers of a run, and knowing them: version, secret, machine, clock.

use super::secret::{Nonces, Secret, Side, nonce};
use super::wire::{FORMAT, GREETING_BYTES_MAX, Link, Said, Told, VERSION, Welcome};
use super::{Board, FleetFlags, Member, clock};
use anyhow::{Context, bail, ensure};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a worker may take to answer before the run.
const PATIENCE: Duration = Duration::from_secs(10);

/// All workers of a run, ready for a plan.
pub struct Fleet {
    pub(super) members: Vec<Member>,
    pub(super) board: Arc<Board>,
    /// Our clock's zero.
    pub(super) base: Instant,
    /// Threads of each worker.
    pub(super) threads_each: u32,
    /// How many workers before it are on the same machine, by worker.
    pub(super) before_on_its_machine: Vec<u32>,
    /// Source addresses of all, if that was said.
    pub(super) sources: Option<u32>,
    pub(super) pin: bool,
}

/// What a fleet is to be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The server.
    pub target: SocketAddr,
    /// For processes of ours: the key that signs tokens.
    pub key: &'a Path,
    /// Users of the run: each thread has one at least.
    pub users: u32,
    /// Threads of each worker.
    pub threads: u32,
    pub sources: Option<u32>,
    pub pin: bool,
}

impl Fleet {
    /// Starts or reaches the workers that the flags name; none: the run is of this process alone.
    pub fn gather(flags: &FleetFlags, wanted: Wanted<'_>) -> anyhow::Result<Option<Self>> {
        let count = flags.processes.unwrap_or(flags.workers.len() as u32);
        if count == 0 {
            return Ok(None);
        }
        ensure!(
            count <= wanted.users,
            "{count} workers for {} users: each needs one at least",
            wanted.users,
        );
        let secret = flags.secret.as_deref().map(Secret::load).transpose()?;
        let base = Instant::now();
        let boot = this_boot();
        let (mut members, mut boots): (Vec<Member>, Vec<String>) = (Vec::new(), Vec::new());
        let threads_each = wanted.threads.min(wanted.users / count);
        let board = Board::new(count, threads_each);
        for place in 0..count {
            let (name, mut link, child) = match flags.workers.get(place as usize) {
                Some(addr) => {
                    let name = format!("worker {} of {count} ({addr})", place + 1);
                    let link = reach(addr).with_context(|| {
                        format!("{name}: start it with `iris-loadgen worker --listen {addr}`")
                    })?;
                    (name, link, None)
                }
                None => {
                    let (link, child) = start(wanted.key)?;
                    let name = format!("process {} of {count} (pid {})", place + 1, child.id());
                    (name, link, Some(child))
                }
            };
            let welcome = log_in(&mut link, secret.as_ref()).with_context(|| name.clone())?;
            ensure!(
                !wanted.target.ip().is_loopback() || welcome.boot == boot,
                "{name} is on {}, and --addr {} is there another machine than here: name the server's address",
                welcome.host,
                wanted.target,
            );
            let clock = clock::measure(&mut link, base).with_context(|| name.clone())?;
            board.0[place as usize].note(&welcome.used);
            boots.push(welcome.boot);
            members.push(Member { name, host: welcome.host, link, child, clock });
        }
        let before = |(place, its): (usize, &String)| {
            boots[..place].iter().filter(|boot| *boot == its).count() as u32
        };
        let before_on_its_machine = boots.iter().enumerate().map(before).collect();
        let Wanted { sources, pin, .. } = wanted;
        let board = Arc::new(board);
        let fleet =
            Self { members, board, base, threads_each, before_on_its_machine, sources, pin };
        Ok(Some(fleet))
    }

    /// Where the workers' readings are.
    pub fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// Workers.
    pub fn count(&self) -> u32 {
        self.members.len() as u32
    }

    /// Threads of all workers.
    pub fn threads(&self) -> u32 {
        self.threads_each * self.count()
    }
}

fn reach(addr: &str) -> anyhow::Result<Link> {
    let hint = || format!("--workers {addr}: expected HOST:PORT, such as 10.0.0.7:7490");
    let resolved = addr.to_socket_addrs().with_context(hint)?.next().with_context(hint)?;
    let stream = TcpStream::connect_timeout(&resolved, PATIENCE)
        .with_context(|| format!("cannot reach {addr}"))?;
    Ok(Link::try_from(stream)?)
}

/// Starts a process of ours whose standard input is a connection to us.
fn start(key: &Path) -> anyhow::Result<(Link, Child)> {
    let (ours, theirs) = UnixStream::pair().context("cannot make a pair of sockets")?;
    let program = std::env::current_exe().context("cannot name this program")?;
    let mut command = Command::new(&program);
    command.args(["worker", "--listen", "-", "--key"]).arg(key);
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
    let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    // The command holds the other end until it is gone: an end would not be seen.
    drop(command);
    Ok((Link::from(ours), child))
}

/// What the kernel calls this boot of this machine.
pub(super) fn this_boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Versions first, then the secret, then who it is.
fn log_in(link: &mut Link, secret: Option<&Secret>) -> anyhow::Result<Welcome> {
    link.set_patience(PATIENCE)?;
    let silent = "it does not answer as a worker does";
    let (worker, wants_proof) = match link.receive(GREETING_BYTES_MAX).context(silent)? {
        Said::Hello { format, version, .. } if format != FORMAT || version != VERSION => bail!(
            "it is iris-loadgen {version} (frames {format}), this is {VERSION} ({FORMAT}): use the same on all machines"
        ),
        Said::Hello { nonce, wants_proof, .. } => (nonce, wants_proof),
        Said::Refused(why) => bail!("it refuses: {why}"),
        _ => bail!(silent),
    };
    let hint = "name the file that it was started with by --secret";
    ensure!(!wants_proof || secret.is_some(), "it wants a secret: {hint}");
    let controller = nonce()?;
    let nonces = Nonces { controller: &controller, worker: &worker };
    link.send(&Told::Login {
        format: FORMAT,
        version: VERSION.to_owned(),
        nonce: controller.clone(),
        proof: secret.map(|secret| secret.proof(Side::Controller, nonces)),
    })
    .context(silent)?;
    match link.receive(GREETING_BYTES_MAX).context(silent)? {
        Said::Welcome(welcome) => {
            let proof = welcome.proof.as_deref();
            ensure!(
                secret.is_none_or(|secret| secret.is_proof(proof, Side::Worker, nonces)),
                "it has not the secret of --secret: start it with the same file",
            );
            Ok(welcome)
        }
        Said::Refused(why) => bail!("it refuses: {why}"),
        _ => bail!(silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logs in at a worker that says this first and then that.
    fn refusal(first: &Said, then: Option<&Said>, secret: Option<&Secret>) -> String {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut worker = Link::from(theirs);
        worker.send(first).unwrap();
        then.iter().for_each(|said| worker.send(said).unwrap());
        format!("{:#}", log_in(&mut Link::from(ours), secret).unwrap_err())
    }

    fn hello(version: &str, wants_proof: bool) -> Said {
        let (version, nonce) = (version.to_owned(), "1".to_owned());
        Said::Hello { format: FORMAT, version, nonce, wants_proof }
    }

    #[test]
    fn a_worker_of_another_version_is_told_apart_and_named() {
        let error = refusal(&hello("9.9.9", false), None, None);
        assert!(error.contains("9.9.9") && error.contains(VERSION), "{error}");
    }

    #[test]
    fn a_secret_is_wanted_by_both_sides_that_have_one() {
        let error = refusal(&hello(VERSION, true), None, None);
        assert!(error.contains("--secret"), "{error}");
        let path = std::env::temp_dir().join(format!("iris-loadgen-gather-{}", std::process::id()));
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let secret = Secret::load(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let used = super::super::Used::default();
        let (host, boot) = (String::new(), String::new());
        let welcome = Said::Welcome(Welcome { proof: None, host, boot, used });
        let error = refusal(&hello(VERSION, false), Some(&welcome), Some(&secret));
        assert!(error.contains("has not the secret"), "{error}");
        let refused = Said::Refused("no".to_owned());
        let error = refusal(&hello(VERSION, true), Some(&refused), Some(&secret));
        assert!(error.contains("it refuses: no"), "{error}");
    }
}
