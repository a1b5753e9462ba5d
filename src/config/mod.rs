//! The configuration: what was written, checked as a whole, with nothing left open.
//!
//! [`load`] lays a TOML file, the environment (`IRIS_SECTION__KEY`) and flags over the defaults, and either gives a
//! [`Config`] in which every value is usable as it stands, or every problem at once. What depends on the machine
//! (number of CPUs, limits) comes in as [`Host`], so that a check gives the same answer in a test.

mod check;
mod layers;
mod limits;
mod problem;
mod reload;
pub mod schema;
mod unit;
pub mod units;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use iris_proto::core::WhenFull;
use iris_proto::limits::ENTRIES_PER_PARTITION_MAX;
use iris_proto::replica::WhenAlone;

use crate::auth::{Key, KeyError, Policy, Secret, Verifier, load_or_create_dev_key};
use crate::cli::exit::{Exit, Failure};
use crate::cluster::Credentials;
use crate::tls::TlsConfig;

pub use layers::{Data, Layers, Value};
pub use limits::LimitsConfig;
pub use problem::{Origin, Problem, Problems};
pub use reload::{Reload, Reloaded};
pub use unit::{CredentialSource, UnitCredentials};

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--dev`: a generated key is accepted, and tokens are printed.
    pub dev: bool,
    /// Where to write the bound addresses once ready (`--ports-file`).
    pub ports_file: Option<PathBuf>,
    /// What this node does.
    pub roles: Roles,
    /// The other nodes; `None`: there are none.
    pub cluster: Option<ClusterConfig>,
    /// Who this node is.
    pub node: NodeConfig,
    /// Where it listens.
    pub listen: ListenConfig,
    /// TLS for clients; `None`: there is no listener for it.
    pub tls: Option<TlsConfig>,
    /// The threads that hold connections.
    pub reactor: ReactorConfig,
    /// How fast clients may go.
    pub limits: LimitsConfig,
    /// The threads that own inboxes.
    pub core: CoreConfig,
    /// The log on disk.
    pub wal: WalConfig,
    /// Who may log in.
    pub auth: AuthConfig,
    /// What is said on stderr.
    pub log: LogConfig,
}

/// What a node does: one or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// It holds clients' connections.
    pub edge: bool,
    /// It holds inboxes.
    pub core: bool,
}

/// Cores of a cluster, at most: the two of a pair.
pub const CORES_MAX: usize = 2;

/// The other nodes, and who this one is to them.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The cluster's name: a label of the DNS.
    pub id: String,
    /// Where a core listens for other nodes.
    pub listen: SocketAddr,
    /// The cores, one or two, this node among them if it is one.
    pub cores: Vec<CoreNode>,
    /// This node's certificate and whom it trusts.
    pub credentials: Credentials,
    /// Between signs of life on a link.
    pub heartbeat: Duration,
    /// How long a SEND waits at an edge for a core's answer.
    pub send_wait: Duration,
    /// How long a core waits for its mirror before it acknowledges alone.
    pub degrade: Duration,
    /// Bytes a second that a partition reads for a mirror that lacks them, besides as many as are written.
    pub heal_rate: u64,
    /// What a core without its mirror does with messages.
    pub when_alone: WhenAlone,
}

impl ClusterConfig {
    /// The core that mirrors this node's.
    pub fn mirror_of(&self, node: u32) -> Option<u32> {
        let mut nodes = self.cores.iter().map(|core| core.node);
        nodes.clone().any(|core| core == node).then(|| nodes.find(|core| *core != node)).flatten()
    }
}

/// A core and where it listens for other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreNode {
    /// Its number in the cluster.
    pub node: u32,
    /// Its `cluster.listen`, as others reach it.
    pub addr: SocketAddr,
}

impl CoreConfig {
    /// Messages in all inboxes of one partition: its share of the node's.
    pub fn partition_messages_max(&self) -> u32 {
        let share = self.messages_max.div_ceil(self.partitions as u64);
        share.min(u64::from(ENTRIES_PER_PARTITION_MAX)) as u32
    }

    /// Bytes in all inboxes of one partition; `None`: as the disk has room.
    pub fn partition_bytes_max(&self) -> Option<u64> {
        self.bytes_max.map(|of_node| of_node.div_ceil(self.partitions as u64))
    }
}

impl Config {
    /// Threads that hold connections: none without the role edge.
    pub fn reactors(&self) -> usize {
        if self.roles.edge { self.reactor.count } else { 0 }
    }

    /// Threads that own inboxes: none without the role core.
    pub fn partitions(&self) -> usize {
        if self.roles.core { self.core.partitions } else { 0 }
    }

    /// The verifier of this configuration's keys. Under `--dev` the key of the data directory is among them; it is made
    /// if there is none.
    pub fn verifier(&self) -> Result<Verifier, Failure> {
        let mut keys = self.auth.keys.clone();
        if self.dev {
            let failed = |error: KeyError| Failure::new(Exit::DataDir, error.to_string());
            let secret = load_or_create_dev_key(&self.node.data_dir).map_err(failed)?;
            keys.push(Key::hs256(&secret, None).map_err(failed)?);
        }
        Ok(Verifier::new(keys, self.auth.policy.clone()))
    }
}

/// Who this node is.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where the log and the node's identity live.
    pub data_dir: PathBuf,
    /// The node's number in its cluster, from 1.
    pub node_id: u32,
    /// Told to clients at login; 0 to 64 bytes.
    pub region: String,
    /// Told to clients at login; 1 to 64 bytes.
    pub name: String,
    /// How long a busy CPU is kept from halting; zero: not at all.
    pub halt_poll: Duration,
    /// Dollars an hour that the machine costs, if that was said: more than 0.
    pub price_per_hour: Option<f64>,
}

/// Where the node listens. Port 0 asks for a free one.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// For clients in the clear; one of this and `tls` is there.
    pub tcp: Option<SocketAddr>,
    /// For clients by TLS.
    pub tls: Option<SocketAddr>,
    /// For the admin server; loopback unless `admin_allow_remote`.
    pub admin: SocketAddr,
    /// Whether `admin` may be other than loopback; only with a token.
    pub admin_allow_remote: bool,
    /// What `admin` asks for, if anything.
    pub admin_token: Option<Secret>,
    /// Where the admin server listens besides.
    pub admin_socket: AdminSocket,
    /// Connections that may wait for accept, per reactor.
    pub backlog: u16,
}

/// A unix socket for the admin server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminSocket {
    /// In the data directory, if there is one.
    Auto,
    /// Nowhere.
    None,
    /// There.
    At(PathBuf),
}

impl Config {
    /// Where the admin server's socket is, if it has one.
    pub fn admin_socket(&self) -> Option<PathBuf> {
        match &self.listen.admin_socket {
            AdminSocket::At(path) => Some(path.clone()),
            AdminSocket::Auto if self.roles.core => Some(self.node.data_dir.join("admin.sock")),
            AdminSocket::Auto | AdminSocket::None => None,
        }
    }
}

/// The threads that hold connections.
#[derive(Clone, Debug)]
pub struct ReactorConfig {
    /// Number of reactors, 1 to 4096.
    pub count: usize,
    /// Connections of the node, at most.
    pub connections_max: usize,
    /// Descriptors of one ring's table, 1 to 2^20.
    pub ring_slots: usize,
    /// Time to log in.
    pub login_timeout: Duration,
    /// Time a connection may be silent.
    pub idle_timeout: Duration,
    /// Time that a client may take nothing of what waits for it.
    pub slow_timeout: Duration,
    /// Time that a drain may take.
    pub drain_time: Duration,
    /// Bytes queued for one connection, above which it is not read.
    pub out_bytes_max: usize,
    /// Bytes queued for all connections of a reactor, above which those that stopped reading are closed.
    pub out_total_max: usize,
    /// SO_SNDBUF of a connection; `None`: the kernel's own.
    pub send_buffer: Option<u32>,
    /// TCP_NOTSENT_LOWAT of a connection; `None`: none.
    pub unsent_max: Option<u32>,
}

impl ReactorConfig {
    /// Connections of one reactor, at most: its share and a quarter more, because SO_REUSEPORT spreads connections
    /// by hash and not evenly. The node as a whole keeps to `connections_max`.
    pub fn connections_per_reactor(&self) -> usize {
        limits::share(self.connections_max, self.count)
    }

    /// Rings that one reactor needs for that many connections: a descriptor table has `ring_slots` at most.
    pub fn rings_per_reactor(&self) -> usize {
        self.connections_per_reactor().div_ceil(self.ring_slots)
    }
}

/// The threads that own inboxes.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Number of partitions, 1 to `num_shards`. Fixed when the data directory is created.
    pub partitions: usize,
    /// Whether that number was left to us: then an existing data directory decides.
    pub partitions_auto: bool,
    /// Shards of the cluster, 1 to 4096.
    pub num_shards: u16,
    /// How long a message id is remembered.
    pub dedup_window: Duration,
    /// How far ahead of this node's clock a message id may be.
    pub id_future_max: Duration,
    /// Messages waiting in one inbox, at most.
    pub inbox_messages_max: u32,
    /// What becomes of one more.
    pub messages_when_full: WhenFull,
    /// Bytes waiting in one inbox, above which it takes no more.
    pub inbox_bytes_max: u64,
    /// What becomes of a message that comes then.
    pub bytes_when_full: WhenFull,
    /// How long a message waits; `None`: for ever.
    pub message_age_max: Option<Duration>,
    /// Messages waiting in all inboxes of the node, at most.
    pub messages_max: u64,
    /// Bytes waiting in all inboxes of the node, above which none takes more; `None`: no bound but the disk.
    pub bytes_max: Option<u64>,
}

/// How a batch is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Whichever a measurement at start finds faster.
    Auto,
    /// Write, then fdatasync(2).
    Fdatasync,
    /// Writes through a descriptor opened with O_DSYNC (open(2)).
    Dsync,
}

/// The log on disk. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct WalConfig {
    /// Size of a segment file: a multiple of 4096, 1 MiB to 2 GiB.
    pub segment_size: u64,
    /// Largest batch of one sync; at most a quarter of a segment.
    pub batch_max: usize,
    /// From the begin of one batch to that of the next, at the least; zero: a batch begins when the one before is done.
    pub batch_interval: Duration,
    /// Newest bytes of the log kept in memory, per partition.
    pub recent_window: usize,
    /// How a batch is made durable.
    pub sync: SyncMode,
    /// Free space below which sends are refused.
    pub disk_reserve: u64,
}

/// Who may log in: keys that were read and understood.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// Keys; empty only under `--dev`, where the generated one is added at start.
    pub keys: Vec<Key>,
    /// What a token must say.
    pub policy: Policy,
    /// How long a live connection may go on after its token, and by chance how much longer.
    pub expiry: (Duration, Duration),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What is said on stderr.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// A filter of [`crate::logging::parse_filter`], checked.
    pub level: String,
}

/// What a configuration depends on besides what is written.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// CPUs this process may use.
    pub cpus: usize,
    /// The machine's name.
    pub name: String,
    /// Hard limit of open files; `u64::MAX`: none.
    pub nofile_hard: u64,
    /// The unit's credentials; `None`: systemd gave none.
    pub credentials: Option<UnitCredentials>,
}

impl Host {
    /// This machine.
    pub fn detect() -> Self {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = name.trim();
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            name: if name.is_empty() { "iris" } else { name }.chars().take(63).collect(),
            nofile_hard: crate::preflight::limits::nofile().hard,
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY")
                .map(|dir| UnitCredentials::Directory(dir.into())),
        }
    }
}

/// What was written, and where.
#[derive(Debug, Default)]
pub struct Sources {
    /// The configuration file, if one was named.
    pub file: Option<PathBuf>,
    /// `--dev`.
    pub dev: bool,
    /// The environment's variables.
    pub env: Vec<(String, String)>,
    /// Flags that stand for a key: section, key, flag, value.
    pub flags: Vec<(&'static str, &'static str, &'static str, String)>,
}

impl Sources {
    /// That file, `--dev` or not, and the environment of this process. Variables that are not UTF-8 are none of ours.
    pub fn with_env(file: Option<PathBuf>, dev: bool) -> Self {
        let env = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self { file, dev, env: env.collect(), flags: Vec::new() }
    }
}

/// The checked configuration and, for display, every value with its place; or all problems.
pub fn load(sources: &Sources, host: &Host) -> Result<(Config, Layers), Problems> {
    let mut problems = Vec::new();
    let layers = written(sources, &mut problems)?;
    let base = sources.file.as_deref().and_then(|file| file.parent()).map(PathBuf::from);
    match check::check(&layers, host, sources.dev, base.unwrap_or_default(), &mut problems) {
        Some(config) if problems.is_empty() => Ok((config, layers)),
        _ => Err(Problems::new(sources.file.clone(), problems)),
    }
}

/// As [`load`], of a file with this text, without environment and flags.
pub fn parse(text: &str, dev: bool, host: &Host) -> Result<(Config, Layers), Problems> {
    let mut problems = Vec::new();
    let mut layers = Layers::defaults(dev);
    layers.apply_file(text, &mut problems);
    match check::check(&layers, host, dev, PathBuf::new(), &mut problems) {
        Some(config) if problems.is_empty() => Ok((config, layers)),
        _ => Err(Problems::new(None, problems)),
    }
}

/// Where the admin server of a configuration listens, whatever else is in it: keys and certificates are not read.
pub fn admin_address(sources: &Sources) -> Result<SocketAddr, Problems> {
    let mut problems = Vec::new();
    let layers = written(sources, &mut problems)?;
    let value = layers.value("listen", "admin");
    let address = match &value.data {
        Data::Text(text) => text.parse().ok(),
        _ => None,
    };
    match address {
        Some(address) if problems.is_empty() => Ok(address),
        Some(_) => Err(Problems::new(sources.file.clone(), problems)),
        None => {
            problems.push(Problem {
                origin: value.origin.clone(),
                key: "listen.admin".to_owned(),
                cause: "this is no address".to_owned(),
                fix: "write an address and a port, such as \"127.0.0.1:7480\"".to_owned(),
            });
            Err(Problems::new(sources.file.clone(), problems))
        }
    }
}

/// What was written, sound or not, and what is wrong with how it was written. An error: the file cannot be read.
pub fn as_written(sources: &Sources) -> Result<(Layers, Vec<Problem>), Problems> {
    let mut problems = Vec::new();
    let layers = written(sources, &mut problems)?;
    Ok((layers, problems))
}

/// How many shards the cluster of a configuration has and which cores, whatever else is in it; none: the node is alone.
pub fn placement(sources: &Sources) -> Result<(u16, Vec<u32>), Problems> {
    let mut problems = Vec::new();
    let layers = written(sources, &mut problems)?;
    let shards = layers.value("core", "num_shards");
    let number = match shards.data {
        Data::Integer(number) => u16::try_from(number).ok().filter(|n| (1..=4096).contains(n)),
        _ => None,
    };
    let node = |core: &Value| match &core.data {
        Data::Table(entries) => match entries.iter().find(|(name, _)| name == "node")?.1.data {
            Data::Integer(node) => u32::try_from(node).ok(),
            _ => None,
        },
        _ => None,
    };
    let cores = match &layers.value("cluster", "cores").data {
        Data::List(list) => list.iter().filter_map(node).collect(),
        _ => Vec::new(),
    };
    match number {
        Some(number) if problems.is_empty() => Ok((number, cores)),
        Some(_) => Err(Problems::new(sources.file.clone(), problems)),
        None => {
            problems.push(Problem {
                origin: shards.origin.clone(),
                key: "core.num_shards".to_owned(),
                cause: "this is no number of shards".to_owned(),
                fix: "use 1 to 4096".to_owned(),
            });
            Err(Problems::new(sources.file.clone(), problems))
        }
    }
}

/// Everything that was written, and what is wrong with how it was.
fn written(sources: &Sources, problems: &mut Vec<Problem>) -> Result<Layers, Problems> {
    let mut layers = Layers::defaults(sources.dev);
    if let Some(file) = &sources.file {
        match read(file) {
            Ok(text) => layers.apply_file(&text, problems),
            Err(problem) => return Err(Problems::new(Some(file.clone()), vec![problem])),
        }
    }
    layers.apply_env(sources.env.iter().cloned(), problems);
    for (section, name, flag, value) in &sources.flags {
        layers.apply_flag(section, name, flag, value);
    }
    Ok(layers)
}

/// Bytes of a configuration file, at most.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

fn read(file: &std::path::Path) -> Result<String, Problem> {
    use std::io::Read;
    let failed = |cause: String| Problem {
        origin: Origin::Default,
        key: String::new(),
        cause,
        fix: "name a readable TOML file; `iris check --defaults` prints one to start from"
            .to_owned(),
    };
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| failed(format!("failed to read the configuration: {error}")))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
