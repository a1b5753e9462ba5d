//! Turns what was written into a [`Config`], noting every value that cannot be used.
//!
//! Each reader takes the value of one key, judges type and range, and on a problem notes it and goes on with a stand-in,
//! so that one run finds them all. A stand-in never reaches a caller: with a problem noted there is no [`Config`].

mod cluster;
mod limits;
mod listen;

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use iris_proto::core::WhenFull;
use iris_proto::limits::INBOX_MESSAGES_MAX;

use super::layers::{Data, Layers, Value};
use super::problem::{Origin, Problem};
use super::units::{ByteSize, Span};
use super::{
    AuthConfig, Config, CoreConfig, Host, LogConfig, LogFormat, NodeConfig, ReactorConfig,
    SyncMode, UnitCredentials, WalConfig, schema,
};
use crate::auth::{Alg, Key, KeyError, Policy, Secret};

/// Reactors of a node, at most: a connection's id has 12 bits for its reactor.
const REACTORS_MAX: i64 = 1 << 12;
/// Entries of a ring's descriptor table, at most (`IORING_MAX_FIXED_FILES`, io_uring/rsrc.c).
const RING_SLOTS_MAX: i64 = 1 << 20;
/// Connections of a node, at most: what 4096 reactors could name; a bound against slips of the pen.
const CONNECTIONS_MAX: i64 = 100_000_000;
/// Messages in all inboxes of a node, at most: 1,024 partitions of as many as one holds.
const MESSAGES_MAX: i64 = 1024 * 100_000_000;
/// Block size of the log; segments are whole blocks.
const BLOCK_BYTES: u64 = 4096;
/// Bytes of the region's and the node's name, at most.
const NAME_BYTES_MAX: usize = 64;
/// Dollars an hour that a machine may cost.
const PRICE: (f64, f64) = (0.000_001, 1_000_000.0);
/// Keys of `auth.keys`, at most.
const KEYS_MAX: usize = 64;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The configuration, complete if `problems` stays as it was.
pub(super) fn check(
    layers: &Layers,
    host: &Host,
    dev: bool,
    base: PathBuf,
    problems: &mut Vec<Problem>,
) -> Option<Config> {
    let credentials = host.credentials.as_ref();
    let mut reader = Reader { layers, base, credentials, problems };
    let roles = reader.roles();
    let node = reader.node(host);
    let listen = reader.listen(roles);
    let tls = reader.tls(dev, listen.as_ref());
    let reactor = reader.reactor(host);
    let limits = reader.limits();
    let core = reader.core(host);
    let wal = reader.wal();
    let auth = reader.auth(dev, roles.is_none_or(|roles| roles.edge));
    let log = reader.log();
    let cluster = reader.cluster(roles, node.as_ref());
    Some(Config {
        dev,
        ports_file: None,
        roles: roles?,
        cluster: cluster?,
        node: node?,
        listen: listen?,
        tls: tls?,
        reactor: reactor?,
        limits: limits?,
        core: core?,
        wal: wal?,
        auth: auth?,
        log: log?,
    })
}

/// Reads one key after another and gathers the problems.
struct Reader<'a> {
    layers: &'a Layers,
    /// Where relative paths of the file start.
    base: PathBuf,
    /// The unit's credentials.
    credentials: Option<&'a UnitCredentials>,
    problems: &'a mut Vec<Problem>,
}

type Name = (&'static str, &'static str);

impl Reader<'_> {
    fn node(&mut self, host: &Host) -> Option<NodeConfig> {
        let data_dir = self.path(("node", "data_dir"));
        let node_id = self.integer(("node", "node_id"), 1..=i64::from(u32::MAX));
        let region = self.label(("node", "region"));
        let name = self.label(("node", "name"));
        let halt_poll = self.integer(("node", "halt_poll_us"), 0..=10_000);
        let price = self.price(("node", "price_per_hour"));
        if data_dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty()) {
            self.note_key(("node", "data_dir"), "it is empty", "name the folder for the log");
        }
        Some(NodeConfig {
            data_dir: data_dir?,
            node_id: u32::try_from(node_id?).ok()?,
            region: region?,
            name: name.map(|name| if name.is_empty() { host.name.clone() } else { name })?,
            halt_poll: Duration::from_micros(halt_poll? as u64),
            price_per_hour: price?,
        })
    }

    fn reactor(&mut self, host: &Host) -> Option<ReactorConfig> {
        let count = self.integer(("reactor", "count"), 0..=REACTORS_MAX);
        let connections = self.integer(("reactor", "connections_max"), 1..=CONNECTIONS_MAX);
        let slots = self.integer(("reactor", "ring_slots"), 0..=RING_SLOTS_MAX);
        let second = Duration::from_secs(1);
        let login = self.span(("reactor", "login_timeout"), second / 10..=second * 300);
        let idle = self.span(("reactor", "idle_timeout"), second..=second * 86_400);
        let slow = self.span(("reactor", "slow_timeout"), second * 2..=second * 3600);
        let drain = self.span(("reactor", "drain_time"), Duration::ZERO..=second * 86_400);
        let out = self.size(("reactor", "out_bytes_max"), 4 * KIB..=GIB);
        let out_total = self.size(("reactor", "out_total_max"), MIB..=1024 * GIB);
        let send_buffer = self.size_or_none(("reactor", "send_buffer"), 4 * KIB..=16 * MIB);
        let unsent = self.size_or_none(("reactor", "unsent_max"), 4 * KIB..=16 * MIB);
        let slots = slots.map(|slots| match slots {
            0 => host.nofile_hard.min(RING_SLOTS_MAX as u64) as usize,
            slots => slots as usize,
        });
        Some(ReactorConfig {
            count: count.map(|count| if count == 0 { host.cpus } else { count as usize })?,
            connections_max: connections? as usize,
            ring_slots: slots?.max(1),
            login_timeout: login?,
            idle_timeout: idle?,
            slow_timeout: slow?,
            drain_time: drain?,
            out_bytes_max: out? as usize,
            out_total_max: out_total? as usize,
            send_buffer: send_buffer?.map(|bytes| bytes as u32),
            unsent_max: unsent?.map(|bytes| bytes as u32),
        })
    }

    fn core(&mut self, host: &Host) -> Option<CoreConfig> {
        let partitions = self.integer(("core", "partitions"), 0..=1024);
        let shards = self.integer(("core", "num_shards"), 1..=4096);
        let minute = Duration::from_secs(60);
        let window = self.span(("core", "dedup_window"), minute..=minute * 60 * 24);
        let future = self.span(("core", "id_future_max"), minute / 60..=minute * 60);
        let inbox = self.integer(("core", "inbox_messages_max"), 1..=i64::from(INBOX_MESSAGES_MAX));
        let policies = [("refuse", WhenFull::Refuse), ("drop-oldest", WhenFull::DropOldest)];
        let messages_when_full = self.one_of(("core", "inbox_messages_when_full"), &policies);
        let inbox_bytes = self.size(("core", "inbox_bytes_max"), 64 * KIB..=1024 * GIB);
        let bytes_when_full = self.one_of(("core", "inbox_bytes_when_full"), &policies);
        let age = self.span_or_none(("core", "message_age_max"), minute / 6..=minute * 1440 * 3650);
        let messages = self.integer(("core", "messages_max"), 1..=MESSAGES_MAX);
        let bytes = self.size_or_none(("core", "bytes_max"), 64 * KIB..=(1 << 20) * GIB);
        if let (Some(partitions), Some(shards)) = (partitions, shards)
            && partitions > shards
        {
            let cause = format!("{partitions} partitions cannot share {shards} shards");
            self.note_key(("core", "partitions"), cause, "use at most core.num_shards");
        }
        let shards = u16::try_from(shards?).ok()?;
        let partitions_auto = partitions? == 0;
        let partitions = match partitions? {
            0 => (host.cpus / 4).clamp(1, usize::from(shards)),
            partitions => partitions as usize,
        };
        Some(CoreConfig {
            partitions,
            partitions_auto,
            num_shards: shards,
            dedup_window: window?,
            id_future_max: future?,
            inbox_messages_max: u32::try_from(inbox?).ok()?,
            messages_when_full: messages_when_full?,
            inbox_bytes_max: inbox_bytes?,
            bytes_when_full: bytes_when_full?,
            message_age_max: age?,
            messages_max: messages? as u64,
            bytes_max: bytes?,
        })
    }

    fn wal(&mut self) -> Option<WalConfig> {
        let segment = self.size(("wal", "segment_size"), MIB..=GIB);
        let batch = self.size(("wal", "batch_max"), 128 * KIB..=8 * MIB);
        let interval =
            self.span(("wal", "batch_interval"), Duration::ZERO..=Duration::from_millis(100));
        let recent = self.size(("wal", "recent_window"), 0..=64 * GIB);
        let reserve = self.size(("wal", "disk_reserve"), 0..=1024 * GIB);
        let methods = [
            ("auto", SyncMode::Auto),
            ("fdatasync", SyncMode::Fdatasync),
            ("dsync", SyncMode::Dsync),
        ];
        let sync = self.one_of(("wal", "sync"), &methods);
        if let Some(segment) = segment
            && !segment.is_multiple_of(BLOCK_BYTES)
        {
            let cause = format!("{} is no multiple of 4KiB", ByteSize(segment));
            self.note_key(("wal", "segment_size"), cause, "use whole MiB, such as \"64MiB\"");
        }
        if let Some(batch) = batch
            && !batch.is_multiple_of(BLOCK_BYTES)
        {
            let cause = format!("{} is no multiple of 4KiB", ByteSize(batch));
            self.note_key(
                ("wal", "batch_max"),
                cause,
                "use whole KiB times four, such as \"1MiB\"",
            );
        }
        if let (Some(segment), Some(batch)) = (segment, batch)
            && batch > segment / 4
        {
            let cause = format!("{} is more than a quarter of a segment", ByteSize(batch));
            let fix = format!("use at most {}, or larger segments", ByteSize(segment / 4));
            self.note_key(("wal", "batch_max"), cause, fix);
        }
        Some(WalConfig {
            segment_size: segment?,
            batch_max: batch? as usize,
            batch_interval: interval?,
            recent_window: recent? as usize,
            sync: sync?,
            disk_reserve: reserve?,
        })
    }

    /// A node that holds no connections needs no key.
    fn auth(&mut self, dev: bool, has_clients: bool) -> Option<AuthConfig> {
        let noted = self.problems.len();
        let mut keys = self.keys();
        let jwks = self.path(("auth", "jwks_file"));
        if let Some(path) = jwks.filter(|path| !path.as_os_str().is_empty()) {
            match Key::load_jwks(&path) {
                Ok(set) => keys.extend(set),
                Err(error) => self.note_key(("auth", "jwks_file"), error.cause, error.fix),
            }
        }
        let leeway = self.span(("auth", "leeway"), Duration::ZERO..=Duration::from_secs(600));
        let day = Duration::from_secs(86_400);
        let grace = self.span(("auth", "expiry_grace"), Duration::ZERO..=day);
        let jitter = self.span(("auth", "expiry_jitter"), Duration::ZERO..=day / 24);
        let issuer = self.text(("auth", "issuer"));
        let audience = self.text(("auth", "audience"));
        if has_clients && keys.is_empty() && !dev && self.problems.len() == noted {
            self.note_key(
                ("auth", "keys"),
                "there is no key, so nobody could log in",
                "add keys = [{ file = \"PATH\", alg = \"HS256\" }] or jwks_file below [auth], \
                 or try things out with `iris serve --dev`",
            );
        }
        let set = |text: String| Some(text).filter(|text| !text.is_empty());
        let policy =
            Policy { leeway_s: leeway?.as_secs(), issuer: set(issuer?), audience: set(audience?) };
        Some(AuthConfig { keys, policy, expiry: (grace?, jitter?) })
    }

    fn keys(&mut self) -> Vec<Key> {
        let name = ("auth", "keys");
        let layers = self.layers;
        let Data::List(list) = &layers.value(name.0, name.1).data else {
            self.wrong_type(name, "a list of tables");
            return Vec::new();
        };
        if list.len() > KEYS_MAX {
            self.note_key(name, format!("more than {KEYS_MAX} keys"), "put them into a jwks_file");
            return Vec::new();
        }
        list.iter().filter_map(|item| self.auth_key(name, item)).collect()
    }

    /// One entry of `auth.keys`: `{ file, alg, kid }`, of which `kid` may be missing.
    fn auth_key(&mut self, name: Name, item: &Value) -> Option<Key> {
        const EXAMPLE: &str = "write { file = \"PATH\", alg = \"HS256\", kid = \"NAME\" }";
        let Data::Table(fields) = &item.data else {
            self.note(
                name,
                &item.origin,
                format!("a key is a table, not {}", item.data.kind()),
                EXAMPLE,
            );
            return None;
        };
        let (mut file, mut alg, mut kid) = (None, None, None);
        for (field, value) in fields {
            let slot = match field.as_str() {
                "file" => &mut file,
                "alg" => &mut alg,
                "kid" => &mut kid,
                _ => {
                    self.note(
                        name,
                        &value.origin,
                        format!("a key has no field {field:?}"),
                        EXAMPLE,
                    );
                    continue;
                }
            };
            match &value.data {
                Data::Text(text) => *slot = Some((text.clone(), &value.origin)),
                other => {
                    let cause = format!("{field} is a string, not {}", other.kind());
                    self.note(name, &value.origin, cause, EXAMPLE);
                    return None;
                }
            }
        }
        let (Some((file, origin)), Some((alg, alg_origin))) = (file, alg) else {
            self.note(name, &item.origin, "a key needs file and alg", EXAMPLE);
            return None;
        };
        let path = self.resolve(name, origin, &file)?;
        let loaded = Alg::from_str(&alg).map_err(|error| (alg_origin, error)).and_then(|alg| {
            Key::load(&path, alg, kid.map(|(kid, _)| kid)).map_err(|error| (origin, error))
        });
        match loaded {
            Ok(key) => Some(key),
            Err((origin, KeyError { cause, fix })) => {
                self.note(name, origin, cause, fix);
                None
            }
        }
    }

    fn log(&mut self) -> Option<LogConfig> {
        let formats =
            [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = self.one_of(("log", "format"), &formats);
        let level = self.text(("log", "level"))?;
        if let Err(error) = crate::logging::parse_filter(&level) {
            self.note_key(
                ("log", "level"),
                error,
                "use off, error, warn, info, debug, trace, or such as \"info,iris::admin=debug\"",
            );
        }
        Some(LogConfig { format: format?, level })
    }
}

/// Readers of one key each.
impl<'a> Reader<'a> {
    fn value(&self, name: Name) -> &'a Value {
        self.layers.value(name.0, name.1)
    }

    fn note(
        &mut self,
        name: Name,
        origin: &Origin,
        cause: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.problems.push(Problem {
            origin: origin.clone(),
            key: format!("{}.{}", name.0, name.1),
            cause: cause.into(),
            fix: fix.into(),
        });
    }

    /// Notes a problem at the place where the key was written.
    fn note_key(&mut self, name: Name, cause: impl Into<String>, fix: impl Into<String>) {
        let origin = self.value(name).origin.clone();
        self.note(name, &origin, cause, fix);
    }

    fn wrong_type(&mut self, name: Name, wanted: &str) {
        let cause = format!("this must be {wanted}, not {}", self.value(name).data.kind());
        let key = schema::find(name.0, name.1).expect("readers name keys of the schema");
        let fix = format!("write it like the default: {} = {}", key.name, key.default);
        self.note_key(name, cause, fix);
    }

    fn text(&mut self, name: Name) -> Option<String> {
        match &self.value(name).data {
            Data::Text(text) => Some(text.clone()),
            _ => {
                self.wrong_type(name, "a string");
                None
            }
        }
    }

    /// A text that clients are shown.
    fn label(&mut self, name: Name) -> Option<String> {
        let text = self.text(name)?;
        if text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
            let cause = format!("longer than {NAME_BYTES_MAX} bytes, or with control characters");
            self.note_key(name, cause, "shorten it");
            return None;
        }
        Some(text)
    }

    /// A path. One from the file starts at the file's folder.
    fn path(&mut self, name: Name) -> Option<PathBuf> {
        let text = self.text(name)?;
        let origin = &self.value(name).origin;
        self.resolve(name, origin, &text)
    }

    /// Where the file is that a value names; `credential:NAME` is one of those that systemd gave the unit.
    fn resolve(&mut self, name: Name, origin: &Origin, text: &str) -> Option<PathBuf> {
        let Some(credential) = text.strip_prefix("credential:") else {
            return Some(match origin {
                Origin::File { .. } if !text.is_empty() => self.base.join(text),
                _ => PathBuf::from(text),
            });
        };
        let is_name = !credential.is_empty() && !credential.starts_with('.');
        if !is_name || credential.contains('/') {
            let cause = format!("{credential:?} is no name of a credential");
            self.note(name, origin, cause, "name it as in LoadCredential= of the unit");
            return None;
        }
        let Some(given) = self.credentials else {
            let cause = "there are no credentials: CREDENTIALS_DIRECTORY is not set";
            let fix = "start it as a systemd unit with LoadCredential=, give `iris check` that line as \
                       --load-credential, or name a file";
            self.note(name, origin, cause, fix);
            return None;
        };
        let file = given.find(credential);
        if file.is_none() {
            let cause = format!("no --load-credential gives {credential}");
            let fix = "give those of the unit, ID:PATH; links in a folder are none to systemd";
            self.note(name, origin, cause, fix);
        }
        file
    }

    /// A secret in a file; `None` inside: no file is named.
    fn secret(&mut self, name: Name) -> Option<Option<Secret>> {
        let path = self.path(name)?;
        if path.as_os_str().is_empty() {
            return Some(None);
        }
        match Secret::load(&path) {
            Ok(secret) => Some(Some(secret)),
            Err(KeyError { cause, fix }) => {
                self.note_key(name, cause, fix);
                None
            }
        }
    }

    fn boolean(&mut self, name: Name) -> Option<bool> {
        match self.value(name).data {
            Data::Bool(truth) => Some(truth),
            _ => {
                self.wrong_type(name, "true or false");
                None
            }
        }
    }

    fn integer(&mut self, name: Name, range: RangeInclusive<i64>) -> Option<i64> {
        match self.value(name).data {
            Data::Integer(number) => self.in_range(name, number, range),
            _ => {
                self.wrong_type(name, "an integer");
                None
            }
        }
    }

    fn span(&mut self, name: Name, range: RangeInclusive<Duration>) -> Option<Duration> {
        let span: Span = self.parsed(name)?;
        self.in_range(name, span, Span(*range.start())..=Span(*range.end())).map(|span| span.0)
    }

    /// A span of which 0 means that there is none.
    fn span_or_none(
        &mut self,
        name: Name,
        range: RangeInclusive<Duration>,
    ) -> Option<Option<Duration>> {
        match self.parsed(name)? {
            Span(Duration::ZERO) => Some(None),
            Span(_) => self.span(name, range).map(Some),
        }
    }

    fn size(&mut self, name: Name, range: RangeInclusive<u64>) -> Option<u64> {
        let size: ByteSize = self.parsed(name)?;
        let range = ByteSize(*range.start())..=ByteSize(*range.end());
        self.in_range(name, size, range).map(|size| size.0)
    }

    /// A size of which 0 means that there is none.
    fn size_or_none(&mut self, name: Name, range: RangeInclusive<u64>) -> Option<Option<u64>> {
        match self.parsed(name)? {
            ByteSize(0) => Some(None),
            ByteSize(_) => self.size(name, range).map(Some),
        }
    }

    /// An amount of money, or none.
    fn price(&mut self, name: Name) -> Option<Option<f64>> {
        let text = self.text(name)?;
        if text.is_empty() {
            return Some(None);
        }
        let price = text.parse().ok().filter(|price| (PRICE.0..=PRICE.1).contains(price));
        if price.is_none() {
            let cause = format!("{text:?} is no price between {} and {}", PRICE.0, PRICE.1);
            self.note_key(name, cause, "write dollars an hour, such as \"0.192\"");
        }
        price.map(Some)
    }

    fn address(&mut self, name: Name) -> Option<SocketAddr> {
        let text = self.text(name)?;
        let parsed = text.parse();
        if parsed.is_err() {
            let key = schema::find(name.0, name.1).expect("readers name keys of the schema");
            self.note_key(
                name,
                format!("{text:?} is not an IP address and port"),
                format!("write it like {}; IPv6 like \"[::1]:7400\"", key.default),
            );
        }
        parsed.ok()
    }

    fn one_of<T: Copy>(&mut self, name: Name, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(choice, _)| *choice == text);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
            let cause = format!("{text:?} is none of the choices");
            self.note_key(name, cause, format!("use one of {}", names.join(", ")));
        }
        found.map(|(_, choice)| *choice)
    }

    fn parsed<T: FromStr<Err = String>>(&mut self, name: Name) -> Option<T> {
        let parsed: Result<T, String> = self.text(name)?.parse();
        if let Err(cause) = &parsed {
            let key = schema::find(name.0, name.1).expect("readers name keys of the schema");
            self.note_key(
                name,
                cause.clone(),
                format!("write it like the default, {}", key.default),
            );
        }
        parsed.ok()
    }

    fn in_range<T: PartialOrd + Display>(
        &mut self,
        name: Name,
        value: T,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        if range.contains(&value) {
            return Some(value);
        }
        let (least, most) = range.into_inner();
        let cause = format!("{value} is out of range");
        self.note_key(name, cause, format!("use {least} to {most}"));
        None
    }
}
