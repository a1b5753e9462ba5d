//! Every key of the configuration: its default, its default under `--dev`, and what it does.
//!
//! One table feeds the parser (which keys exist), the defaults (parsed like a value from the file) and the reference
//! that `iris check --defaults` prints, so the three cannot differ.

/// One key of the configuration file.
#[derive(Debug)]
pub struct Key {
    /// The TOML table it stands in.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// The default, as TOML.
    pub default: &'static str,
    /// The default under `--dev`, where it differs.
    pub dev: Option<&'static str>,
    /// What it does, for the reference; lines are kept as they are.
    pub doc: &'static str,
}

/// Sections in the order of the reference, each with a sentence.
pub const SECTIONS: [(&str, &str); 10] = [
    ("node", "Who this node is."),
    ("listen", "Where it listens. Port 0 takes a free one; see --ports-file."),
    (
        "tls",
        "TLS for clients, on listen.tls. SIGHUP loads the files of this section again; the rest needs a restart.",
    ),
    ("reactor", "The threads that hold the client connections."),
    (
        "limits",
        "How fast clients may connect, log in and send: \"off\", or such as \"100/s burst 200\" (s, m, h).\n\
         A reload takes all but the last three.",
    ),
    ("core", "The threads that own the inboxes."),
    ("wal", "The log on disk. Every accepted message is synced to it first."),
    ("auth", "Who may log in: JSON Web Tokens (RFC 7519), whose `sub` is the user's name."),
    (
        "cluster",
        "The other nodes. Without an id the node is alone, and the rest of this means nothing.",
    ),
    ("log", "What the server says on stderr. Nothing is logged per message."),
];

const fn key(
    section: &'static str,
    name: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key { section, name, default, dev: None, doc }
}

const fn key_with_dev(
    section: &'static str,
    name: &'static str,
    (default, dev): (&'static str, &'static str),
    doc: &'static str,
) -> Key {
    Key { section, name, default, dev: Some(dev), doc }
}

/// All keys, in the order of the reference.
pub const KEYS: &[Key] = &[
    key(
        "node",
        "roles",
        r#"["edge", "core"]"#,
        "What this node does: edge holds clients' connections,\ncore holds inboxes. One alone needs [cluster].",
    ),
    key_with_dev(
        "node",
        "data_dir",
        (r#""/var/lib/iris""#, r#""./iris-data""#),
        "Where the log and the node's identity live. A relative path starts at this file's folder.",
    ),
    key("node", "node_id", "1", "The node's number in its cluster, from 1."),
    key("node", "region", r#""local""#, "Told to clients at login; 64 bytes at most."),
    key("node", "name", r#""""#, "Told to clients at login; empty: the machine's host name."),
    key(
        "node",
        "halt_poll_us",
        "0",
        "Microseconds a CPU is kept from halting after its last message, if they come that often (try 200); 0: never.\n\
         Shorter wakes for idle-class CPU time, on hosts of Iris alone. Off by itself under a CPU quota (`cpu.max`).",
    ),
    key(
        "node",
        "price_per_hour",
        r#""""#,
        "Dollars an hour that the machine costs, such as \"0.192\", for what a dollar buys in /metrics; empty: not shown.",
    ),
    key_with_dev(
        "listen",
        "tcp",
        (r#""0.0.0.0:7400""#, r#""127.0.0.1:7400""#),
        "Address and port for clients in the clear; empty: none, when listen.tls is set.",
    ),
    key(
        "listen",
        "tls",
        r#""""#,
        "Address and port for clients by TLS, such as \"0.0.0.0:7443\"; empty: none.",
    ),
    key(
        "listen",
        "admin",
        r#""127.0.0.1:7480""#,
        "Address and port for the dashboard, /livez, /readyz, /health, /status and /metrics.",
    ),
    key(
        "listen",
        "admin_allow_remote",
        "false",
        "Lets `admin` be other than loopback. Needs admin_token. It is not encrypted: a trusted network, or a tunnel.",
    ),
    key(
        "listen",
        "admin_token",
        r#""""#,
        "A file that holds a secret, 32 bytes or more, which `admin` asks for (Authorization: Bearer) for all pages\n\
         but /livez and /readyz. Empty: `admin` shows everything to whoever reaches it, and changes nothing.",
    ),
    key(
        "listen",
        "admin_socket",
        r#""auto""#,
        "A unix socket with the same pages, for root and the server's own user: here changes are made without a token.\n\
         auto: admin.sock in node.data_dir, of a core; none: no socket.",
    ),
    key(
        "listen",
        "backlog",
        "4096",
        "Connections that may wait for accept, per reactor, 1 to 65535.",
    ),
    key(
        "tls",
        "certs",
        "[]",
        "Certificates: { cert = \"PATH\", key = \"PATH\" }, PEM, the chain in cert. The name that a client asks for (SNI)\n\
         picks one; the first serves other names. With --dev and none, one is made in the data directory.",
    ),
    key(
        "tls",
        "versions",
        r#"["1.3", "1.2"]"#,
        "Versions that are spoken. 1.2 only with ECDHE and AEAD.",
    ),
    key(
        "tls",
        "groups",
        r#"["x25519", "secp256r1", "secp384r1"]"#,
        "Groups for the exchange of keys, the favourite first; also x25519mlkem768, which is safe from quantum computers.",
    ),
    key(
        "tls",
        "ticket_secrets",
        r#""""#,
        "A file with secrets for resuming on any node that has it: lines of 64 hex digits, the newest first; 8 at most.\n\
         Empty: a random secret, so that clients resume on this process alone.",
    ),
    key(
        "tls",
        "client_auth",
        r#""off""#,
        "Certificates of clients: off (not asked for), optional, or required.",
    ),
    key("tls", "client_ca", r#""""#, "Certificates of the CAs that sign those of clients, PEM."),
    key(
        "tls",
        "client_user",
        r#""none""#,
        "Which name of a client's certificate is its user: none (a token is needed), cn, dns, uri or email.",
    ),
    key("tls", "client_user_prefix", r#""""#, "What that name must begin with; it is cut off."),
    key(
        "tls",
        "handshakes_per_turn",
        "4",
        "Steps of handshakes in one turn of a reactor, 1 to 256: at some 0.1 ms each, how long live clients wait for them.",
    ),
    key(
        "tls",
        "handshakes_waiting",
        "16384",
        "Handshakes that wait for one reactor, 1 to 1000000; one more is closed at once (handshakes_full).",
    ),
    key(
        "reactor",
        "count",
        "0",
        "Number of reactors; 0: one per CPU. May exceed the CPUs; 4096 at most.",
    ),
    key("reactor", "connections_max", "1000000", "Connections this node holds at most."),
    key(
        "reactor",
        "ring_slots",
        "0",
        "Connections per io_uring descriptor table; 0: the hard limit of open files, at most 1048576.\n\
         The kernel bounds each table by that limit, so more connections need more rings.",
    ),
    key(
        "reactor",
        "login_timeout",
        r#""10s""#,
        "A connection that has not logged in by then is closed.",
    ),
    key(
        "reactor",
        "idle_timeout",
        r#""5m""#,
        "A connection that is silent for this long is closed.",
    ),
    key(
        "reactor",
        "slow_timeout",
        r#""30s""#,
        "A client for whom something waits and who takes nothing for this long is closed (slow_reader), 2s to 1h.",
    ),
    key(
        "reactor",
        "drain_time",
        r#""15s""#,
        "How long SIGTERM takes to send all clients away, 0s to 24h; what stops the server must wait longer. Few are gone\n\
         sooner (1000/s). `iris drain` may ask for another time, or a rate.",
    ),
    key(
        "reactor",
        "out_bytes_max",
        r#""64KiB""#,
        "Bytes queued for one connection, above which nothing is read from it, 4KiB to 1GiB.\n\
         Messages are bounded by credit besides (docs/PROTOCOL.md, section 7).",
    ),
    key(
        "reactor",
        "out_total_max",
        r#""256MiB""#,
        "Bytes queued for all connections of a reactor, above which those that stopped reading are closed, 1MiB to 1TiB.",
    ),
    key(
        "reactor",
        "send_buffer",
        r#""256KiB""#,
        "SO_SNDBUF of a connection, 4KiB to 16MiB: the kernel doubles it, net.core.wmem_max bounds it.\n\
         0B leaves it to the kernel.",
    ),
    key(
        "reactor",
        "unsent_max",
        r#""64KiB""#,
        "TCP_NOTSENT_LOWAT of a connection, 4KiB to 16MiB: what the kernel takes for a client that does not read.\n\
         0B: as much as the buffer holds.",
    ),
    key(
        "limits",
        "connection_messages",
        r#""off""#,
        "SENDs of one connection, at most 1000000/s; more are refused (send_rate). Off: what is much differs.",
    ),
    key(
        "limits",
        "connection_bytes",
        r#""off""#,
        "Bytes of one connection's SENDs, such as \"1MiB/s burst 4MiB\", at most 4GiB/s; the burst takes the largest\n\
         frame, 131076B, or more. Beyond: send_rate.",
    ),
    key(
        "limits",
        "user_messages",
        r#""off""#,
        "SENDs of one user over all connections at a reactor, one after the other; send_rate.",
    ),
    key("limits", "user_bytes", r#""off""#, "Bytes of one user's SENDs, in the same way."),
    key(
        "limits",
        "flood_factor",
        "10",
        "A connection is closed (flood) when its SENDs are refused at more than this many times the rate, up to 1000;\n\
         0: never.",
    ),
    key(
        "limits",
        "user_logins",
        r#""off""#,
        "Logins of one user at a reactor, such as \"30/m burst 10\"; more are sent away (login_rate).",
    ),
    key(
        "limits",
        "accepts",
        r#""off""#,
        "Connections that the node accepts, at most 1000000/s; more are sent away (login_rate) before anything is read.",
    ),
    key(
        "limits",
        "pending_logins_max",
        "250000",
        "Connections of the node that have not logged in; more are sent away (login_rate). 0: no bound but connections_max.",
    ),
    key(
        "limits",
        "prefix_accepts",
        r#""off""#,
        "Connections accepted from one prefix of addresses. Off: all clients behind one NAT or balancer have one.",
    ),
    key(
        "limits",
        "prefix_logins",
        r#""off""#,
        "Logins tried from one prefix, before a token is verified.",
    ),
    key(
        "limits",
        "prefix_connections_max",
        "0",
        "Connections open from one prefix; more are sent away (connection_limit). 0: no bound.",
    ),
    key(
        "limits",
        "prefix_v4",
        "24",
        "Leading bits of an IPv4 address that are its prefix, 8 to 32.",
    ),
    key(
        "limits",
        "prefix_v6",
        "64",
        "Leading bits of an IPv6 address that are its prefix, 16 to 128.",
    ),
    key(
        "limits",
        "table_entries",
        "65536",
        "Prefixes that a reactor keeps, and users, 1024 to 16777216, some 40 bytes each; none while no limit needs them.",
    ),
    key(
        "core",
        "partitions",
        "0",
        "Threads that own inboxes; 0: a quarter of the CPUs, at least 1.\n\
         Fixed when the data directory is created.",
    ),
    key(
        "core",
        "num_shards",
        "64",
        "Parts of the users, 1 to 4096; the same in the whole cluster.",
    ),
    key(
        "core",
        "dedup_window",
        r#""1h""#,
        "How long a message id is remembered. A retry after that is refused, never doubled.",
    ),
    key(
        "core",
        "id_future_max",
        r#""5m""#,
        "How far ahead of this node's clock a message id may be, 1s to 1h: what clocks may differ.",
    ),
    key(
        "core",
        "inbox_messages_max",
        "1000000",
        "Messages that wait in one inbox at most, 1 to 1000000.",
    ),
    key(
        "core",
        "inbox_messages_when_full",
        r#""refuse""#,
        "What becomes of one more: refuse (inbox_full), or drop-oldest: the oldest one gives way, unread.",
    ),
    key(
        "core",
        "inbox_bytes_max",
        r#""1GiB""#,
        "Bytes in one inbox (payloads, names and 81 B a message), above which it takes no more, 64KiB to 1TiB.",
    ),
    key(
        "core",
        "inbox_bytes_when_full",
        r#""refuse""#,
        "What becomes of a message that comes then: refuse, or drop-oldest.",
    ),
    key(
        "core",
        "message_age_max",
        r#""0s""#,
        "Messages that wait longer are dropped, unread, 10s to 3650d; 0s: they wait for ever.",
    ),
    key(
        "core",
        "messages_max",
        "100000000",
        "Messages in all inboxes of this node; more are refused (overloaded). Shared out over its partitions.",
    ),
    key(
        "core",
        "bytes_max",
        r#""0B""#,
        "Bytes in all inboxes of this node, 64KiB to 1024TiB, counted and shared out alike; 0B: as the disk has room.",
    ),
    key(
        "wal",
        "segment_size",
        r#""64MiB""#,
        "Size of a segment file, 1MiB to 1GiB, in steps of 4KiB.",
    ),
    key(
        "wal",
        "batch_max",
        r#""1MiB""#,
        "Largest batch of one sync, 128KiB to 8MiB, in steps of 4KiB; at most a quarter of a segment.",
    ),
    key(
        "wal",
        "batch_interval",
        r#""0ms""#,
        "From one sync to the next, at the least, up to 100ms: fewer and larger batches, later answers. 0ms: a sync \
         begins when the one before is done.",
    ),
    key(
        "wal",
        "recent_window",
        r#""16MiB""#,
        "Newest bytes of the log kept in memory, per partition, to deliver from.",
    ),
    key(
        "wal",
        "sync",
        r#""auto""#,
        "How a batch is made durable: auto (measured at start), fdatasync or dsync.",
    ),
    key_with_dev(
        "wal",
        "disk_reserve",
        (r#""1GiB""#, r#""256MiB""#),
        "Sends are refused (low_disk) when less disk than this is free.",
    ),
    key(
        "auth",
        "keys",
        "[]",
        "Keys that sign tokens: { file = \"PATH\", alg = \"HS256|ES256|RS256|EdDSA\", kid = \"NAME\" }.\n\
         HS256: the file is the secret, 32 bytes or more. Others: a public key in PEM.\n\
         A key with a kid serves tokens that name it; a key without serves tokens without.",
    ),
    key("auth", "jwks_file", r#""""#, "A JSON Web Key Set (RFC 7517); empty: none."),
    key("auth", "leeway", r#""0s""#, "Clock difference granted to `exp` and `nbf`, at most 10m."),
    key(
        "auth",
        "expiry_grace",
        r#""0s""#,
        "How long a live connection may go on after its token has ended, at most 24h.",
    ),
    key(
        "auth",
        "expiry_jitter",
        r#""5s""#,
        "And up to how much longer, by chance, at most 1h: not all who got tokens together come back together.",
    ),
    key("auth", "issuer", r#""""#, "`iss` that a token must carry; empty: any."),
    key("auth", "audience", r#""""#, "`aud` that a token must carry; empty: any."),
    key("cluster", "id", r#""""#, "The cluster's name: 1 to 63 of a-z, 0-9 and - in between."),
    key(
        "cluster",
        "listen",
        r#""0.0.0.0:7410""#,
        "Where a core listens for edges and for its mirror.",
    ),
    key(
        "cluster",
        "cores",
        "[]",
        "The cores: { node = 1, addr = \"10.0.0.1:7410\" }, two at most, alike on all nodes.",
    ),
    key(
        "cluster",
        "ca",
        r#""""#,
        "Certificates of the cluster's CA, PEM. `iris pki init` makes one.",
    ),
    key(
        "cluster",
        "cert",
        r#""""#,
        "This node's certificate, PEM, for node-N.ID.iris. `iris pki issue` makes one.",
    ),
    key("cluster", "key", r#""""#, "The private key of `cert`, PEM."),
    key(
        "cluster",
        "heartbeat",
        r#""50ms""#,
        "Between signs of life, 10ms to 10s. A link is given up after four that did not come.",
    ),
    key(
        "cluster",
        "send_wait",
        r#""5s""#,
        "How long a SEND waits at an edge for a core, 100ms to 60s; then: shard_unavailable.",
    ),
    key(
        "cluster",
        "degrade",
        r#""250ms""#,
        "How long a core waits for its mirror before it acknowledges alone, 50ms to 30s; at least four heartbeats.",
    ),
    key(
        "cluster",
        "heal_rate",
        r#""16MiB""#,
        "Bytes a second of its log that a partition reads for a mirror that lacks them, 1MiB to 4GiB.",
    ),
    key(
        "cluster",
        "when_alone",
        r#""continue""#,
        "What a core without its mirror does with messages: continue (with one copy, and says so), or refuse them.",
    ),
    key("log", "format", r#""auto""#, "text, json, or auto: text on a terminal, json otherwise."),
    key(
        "log",
        "level",
        r#""info""#,
        "off, error, warn, info, debug or trace; also by module: \"info,iris::admin=debug\".",
    ),
];

/// The key of that name, if there is one.
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// Whether another value of the key takes hold without a restart.
pub fn is_reloaded(section: &str, name: &str) -> bool {
    match section {
        "limits" => !["prefix_v4", "prefix_v6", "table_entries"].contains(&name),
        "log" => true,
        _ => (section, name) == ("reactor", "drain_time"),
    }
}

/// Whether the section exists.
pub fn is_section(section: &str) -> bool {
    SECTIONS.iter().any(|(name, _)| *name == section)
}

/// The nearest of `names` to what was written, when it is near enough to be a slip.
pub fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance_max = written.chars().count().div_ceil(3).min(3);
    names
        .map(|name| (edit_distance(written, name), name))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Insertions, deletions and replacements that turn `a` into `b` (Levenshtein). Inputs are cut to 64 characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The whole configuration with its defaults, as a TOML file in which every key is a comment.
pub fn reference() -> String {
    let mut text = String::from(
        "# Iris: every key with its default. Uncomment what you change; unknown keys are errors.\n\
         # IRIS_SECTION__KEY in the environment overrides the file: IRIS_LISTEN__TCP=0.0.0.0:7400\n",
    );
    for (section, doc) in SECTIONS {
        text += "\n";
        for line in doc.lines() {
            text += &format!("# {line}\n");
        }
        text += &format!("[{section}]\n");
        for key in KEYS.iter().filter(|key| key.section == section) {
            for line in key.doc.lines() {
                text += &format!("# {line}\n");
            }
            if let Some(dev) = key.dev {
                text += &format!("# With --dev: {dev}\n");
            }
            if is_reloaded(section, key.name) {
                text += "# Taken by a reload.\n";
            }
            text += &format!("#{} = {}\n", key.name, key.default);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_in_a_section_and_once() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(is_section(key.section), "{}.{}", key.section, key.name);
            let twin = KEYS[..i].iter().any(|k| k.section == key.section && k.name == key.name);
            assert!(!twin, "{}.{} stands twice", key.section, key.name);
        }
    }

    #[test]
    fn the_reference_is_toml_and_says_each_default_once() {
        let text = reference();
        toml::from_str::<toml::Table>(&text).unwrap();
        // Uncommented, it is a file with every key in it.
        let active: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let table: toml::Table = toml::from_str(&active).unwrap();
        let count: usize = table.values().map(|section| section.as_table().unwrap().len()).sum();
        assert_eq!(count, KEYS.len());
    }

    #[test]
    fn a_slip_finds_its_key_and_nonsense_finds_none() {
        let names = || KEYS.iter().map(|key| key.name);
        assert_eq!(nearest("conections_max", names()), Some("connections_max"));
        assert_eq!(nearest("datadir", names()), Some("data_dir"));
        assert_eq!(nearest("zzzzzz", names()), None);
        assert_eq!(nearest("", names()), None);
    }
}
