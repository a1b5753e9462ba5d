//! The command line's grammar and help.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use super::drain::PerSecond;
use crate::config::CredentialSource;
use crate::config::units::Span;

mod look;
mod plan;

pub(super) use look::{Completions, Man, Shard, SupportBundle, Top};
pub(super) use plan::Capacity;

/// Iris: keeps clients connected and puts each message exactly once into its inbox.
#[derive(Debug, Parser)]
#[command(name = "iris", version = crate::VERSION)]
#[command(after_help = "\
Start here:
  iris serve --dev                  a server on this machine, with a key and two tokens to try
  iris check --defaults > iris.toml a configuration file to edit
  iris check --config iris.toml     every problem of it, with line and fix
  iris serve --config iris.toml     the server
  iris status                       how it is
  iris top                          what it does, live
  iris capacity --dau 1000000       how many machines a million daily users need
  iris completions bash             for your shell")]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a node
    Serve(Serve),
    /// Check a configuration: every problem at once, each with line and fix
    Check(Check),
    /// Make a token for trying things out
    Token(Token),
    /// Show how nodes are: a pair side by side, its lag, failovers and splits
    Status(Status),
    /// Watch nodes live: rates, how busy each thread is, what waits and what is refused
    Top(Top),
    /// Say which shard a user is in, and which core it goes to
    Shard(Shard),
    /// Work out how many machines so many daily users need, and what they cost
    Capacity(Box<Capacity>),
    /// Gather what helps to find out what is wrong with a node, without secrets
    SupportBundle(SupportBundle),
    /// Steer a core: retire-node
    Core(Core),
    /// Send all clients away and end a node
    Drain(Drain),
    /// End all sessions of a user, wherever they are
    Logout(Logout),
    /// Read logs: verify, dump, stat, diff. Never changes them
    Wal(Wal),
    /// Make certificates for the nodes of a cluster
    Pki(Pki),
    /// Print completions for a shell
    Completions(Completions),
    /// Write manual pages
    Man(Man),
    /// Say which version this is
    Version(Version),
}

/// Run a node until SIGTERM or SIGINT.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  iris serve --dev
  iris serve --dev --tcp 127.0.0.1:0 --admin 127.0.0.1:0 --ports-file ports.json
  iris serve --config /etc/iris/iris.toml
  IRIS_LOG__LEVEL=debug iris serve --config iris.toml")]
pub(super) struct Serve {
    /// The configuration file; `iris check --defaults` prints one
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Loopback, data in ./iris-data, a generated key; prints tokens and what to try next
    #[arg(long)]
    pub(super) dev: bool,
    /// Where the log lives (overrides node.data_dir)
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<String>,
    /// Once ready, write the bound addresses there as JSON: {"tcp": "127.0.0.1:1234", "admin": ...}
    #[arg(long, value_name = "FILE")]
    pub(super) ports_file: Option<PathBuf>,
    /// Address for clients (overrides listen.tcp); port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(super) tcp: Option<String>,
    /// Address for clients by TLS (overrides listen.tls); with --dev a certificate is made
    #[arg(long, value_name = "ADDR")]
    pub(super) tls: Option<String>,
    /// Address of the admin server (overrides listen.admin)
    #[arg(long, value_name = "ADDR")]
    pub(super) admin: Option<String>,
}

/// Check a configuration without starting anything. Exits with 0 if it is sound, else with 1.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  iris check --config iris.toml
  iris check --config iris.toml --json | jq '.problems[]'
  iris check --config /etc/iris/iris.toml --load-credential keys:/etc/iris/keys
  iris check --defaults > iris.toml")]
pub(super) struct Check {
    /// The configuration file
    #[arg(long, value_name = "FILE", required_unless_present = "defaults")]
    pub(super) config: Option<PathBuf>,
    /// Check it as `serve --dev` would read it
    #[arg(long)]
    pub(super) dev: bool,
    /// Where `credential:NAME` comes from, as LoadCredential= of the unit has it; may be repeated
    #[arg(long, value_name = "ID:PATH")]
    pub(super) load_credential: Vec<CredentialSource>,
    /// Print one JSON object: ok, problems, and the values in effect with the place of each
    #[arg(long)]
    pub(super) json: bool,
    /// Print every key with its default and what it does, as a file to start from
    #[arg(long, conflicts_with_all = ["config", "json", "dev", "load_credential"])]
    pub(super) defaults: bool,
}

/// Print a token for a user, signed with HS256. Only the token goes to stdout.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  iris token --user alice
  IRIS_TOKEN=$(iris token --user alice --ttl 1h)
  iris token --user alice --key /etc/iris/secret --kid 2026-11")]
pub(super) struct Token {
    /// Whose token: 1 to 128 bytes, no control characters
    #[arg(long, value_name = "NAME")]
    pub(super) user: String,
    /// The file that holds the secret
    #[arg(long, value_name = "FILE", default_value = "./iris-data/dev.key")]
    pub(super) key: PathBuf,
    /// The key's name in auth.keys, if it has one
    #[arg(long, value_name = "NAME")]
    pub(super) kid: Option<String>,
    /// How long it is valid: 30m, 24h, 7d
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(super) ttl: Span,
}

/// Show how nodes are: those of a pair side by side.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Exits with 0 if all is well, 10 if not, 2 if asked wrongly. Well means: each node that was asked answers
and is ready, each core of a pair has two copies of everything, and no log is damaged or out of disk.
What is not well is listed with what to do.

Without --admin and --config it asks 127.0.0.1:7480. The admin port is mostly bound to loopback; ask other
machines through ssh -L, or run this there.

Examples:
  iris status
  iris status --admin 127.0.0.1:7480 --admin 127.0.0.1:7481
  iris status --config /etc/iris/iris.toml --watch
  iris status --json | jq '.nodes[].status.mirror.lag'
  until iris status >/dev/null; do sleep 1; done    # until the pair has healed")]
pub(super) struct Status {
    /// Address of an admin server (listen.admin); may be given more than once
    #[arg(long, value_name = "ADDR")]
    pub(super) admin: Vec<String>,
    /// Ask the node of this configuration
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The file with the nodes' secret (listen.admin_token), if they ask for one
    #[arg(long, value_name = "FILE")]
    pub(super) admin_token: Option<PathBuf>,
    /// Print one JSON object; its fields are in docs/OPERATING.md and stay
    #[arg(long)]
    pub(super) json: bool,
    /// Look again and again, each TIME, until Ctrl-C; with --json a line each time
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "1s")]
    pub(super) watch: Option<Span>,
}

/// Steer a core.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  iris core retire-node --help
  iris core retire-node --node 2")]
pub(super) struct Core {
    #[command(subcommand)]
    pub(super) command: CoreCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum CoreCommand {
    /// Give up the other core of a pair, which never comes back: its disk is gone
    RetireNode(RetireNode),
}

/// Give up the other core of a pair, which never comes back: its disk is gone.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
A core keeps everything for its mirror until that is back, and its log grows. After this it keeps nothing
more for it. What only the retired node had is lost. It may come back with an empty data directory only,
and is then filled.

Run it on the machine of the core that is left. It is refused while the other one is linked.
Exits with 0 if it is done, 1 if it was refused or not confirmed, 2 if asked wrongly.

Examples:
  iris core retire-node --node 2
  iris core retire-node --node 2 --admin 127.0.0.1:7481 --yes")]
pub(super) struct RetireNode {
    /// The node that never comes back
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) node: u32,
    /// Address of the admin server of the core that is left
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7480")]
    pub(super) admin: String,
    /// The file with the node's secret (listen.admin_token); without it, the node's socket is used
    #[arg(long, value_name = "FILE")]
    pub(super) admin_token: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

/// Send all clients away and end a node.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
/readyz turns 503 first. Then every client is told to go and when to come back, and connections are closed at a
steady rate: as many a second as are asked for, or as fit the time. A core hands over to the other one of its pair.
Then the process ends with exit code 0, as after SIGTERM; whatever starts it again is to be told before.

Progress is shown until nobody is left; Ctrl-C ends the showing, not the drain. SIGTERM to the node hastens it.
Without --admin-token it must run on the node's machine, as root or as the server's user, and uses the node's socket.
Exits with 0 if the node is empty, 1 if it was refused or was not seen empty, 2 if asked wrongly.

Examples:
  iris drain
  iris drain --timeout 10m
  iris drain --rate 500/s --admin unix:/var/lib/iris/admin.sock
  iris drain --json --admin 10.0.0.1:7480 --admin-token /etc/iris/admin-token")]
pub(super) struct Drain {
    /// Connections to close in a second, such as 500/s; without it, as many as fit the time
    #[arg(long, value_name = "RATE")]
    pub(super) rate: Option<PerSecond>,
    /// Time for all of it, up to 24h; it counts if both are given. Without both: reactor.drain_time
    #[arg(long, value_name = "TIME")]
    pub(super) timeout: Option<Span>,
    /// Address of an admin server: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7480")]
    pub(super) admin: String,
    /// The file with the node's secret (listen.admin_token)
    #[arg(long, value_name = "FILE")]
    pub(super) admin_token: Option<PathBuf>,
    /// Print a JSON object in each line
    #[arg(long)]
    pub(super) json: bool,
}

/// End all sessions of a user, wherever they are.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Their clients are told logged_out and do not come back by themselves. It is no ban: whoever has a token that is
still valid can log in again, so have the identity provider refuse a new one, and let tokens live for a short time.

Ask any node of a cluster; all nodes that it is linked to are told, and cores tell their edges. Without
--admin-token it must run on the node's machine, as root or as the server's user, and uses the node's socket.
Exits with 0 if it is done, 1 if it was refused or failed, 2 if asked wrongly.

Examples:
  iris logout --user alice
  iris logout --user alice --admin unix:/var/lib/iris/admin.sock
  iris logout --user alice --admin 10.0.0.1:7480 --admin-token /etc/iris/admin-token")]
pub(super) struct Logout {
    /// Whose sessions
    #[arg(long, value_name = "NAME")]
    pub(super) user: String,
    /// Address of an admin server: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7480")]
    pub(super) admin: String,
    /// The file with the node's secret (listen.admin_token)
    #[arg(long, value_name = "FILE")]
    pub(super) admin_token: Option<PathBuf>,
}

/// Read logs: on a copy, on a broken disk, or beside a running server. Never changes them.
///
/// Exits with 0 if all is sound or alike, 1 if not, 2 if something cannot be read.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
DIR is a node's data directory, its wal directory, or one log such as wal/p000.

Examples:
  iris wal verify ./iris-data
  iris wal verify /var/lib/iris --json | jq 'select(.kind == \"fault\")'
  iris wal dump ./iris-data --json | head
  iris wal diff /var/lib/iris /mnt/copy")]
pub(super) struct Wal {
    #[command(subcommand)]
    pub(super) command: WalCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum WalCommand {
    /// Check every checksum, chain and footer; a torn tail is what a crash leaves, and no damage
    Verify(OneLog),
    /// Print every record, one line each
    Dump {
        #[command(flatten)]
        one: OneLog,
        /// Print payloads, too, in hexadecimal: what users wrote
        #[arg(long)]
        payloads: bool,
    },
    /// Count records, bytes and segments
    Stat(OneLog),
    /// Compare two directories, stream by stream
    Diff {
        /// One directory
        #[arg(value_name = "A")]
        a: PathBuf,
        /// The other
        #[arg(value_name = "B")]
        b: PathBuf,
        /// Print JSON lines
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct OneLog {
    /// The directory
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Print JSON lines
    #[arg(long)]
    pub(super) json: bool,
}

/// Make a certificate authority for a cluster, and certificates of its nodes. Nothing is overwritten.
///
/// Whoever has ca-key.pem can make nodes: keep it off the nodes.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  iris pki init --cluster prod
  iris pki issue --node 1
  iris pki issue --node 2 --days 90 --dir /etc/iris/pki

Each node gets ca.pem, and its own node-N.pem and node-N-key.pem, named in [cluster] of its file.")]
pub(super) struct Pki {
    #[command(subcommand)]
    pub(super) command: PkiCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum PkiCommand {
    /// Make the CA of a cluster
    Init {
        /// The cluster's name, as in cluster.id: 1 to 63 of a-z, 0-9 and - in between
        #[arg(long, value_name = "NAME")]
        cluster: String,
        /// Where to put it
        #[arg(long, value_name = "DIR", default_value = "./pki")]
        dir: PathBuf,
    },
    /// Make the certificate and the key of a node
    Issue {
        /// The node's number, as in node.node_id
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        node: u32,
        /// How long it is valid
        #[arg(long, value_name = "DAYS", default_value_t = 825,
              value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// Where the CA is
        #[arg(long, value_name = "DIR", default_value = "./pki")]
        dir: PathBuf,
    },
}

/// Say which version this is.
#[derive(Debug, ClapArgs)]
pub(super) struct Version {
    /// Print a JSON object
    #[arg(long)]
    pub(super) json: bool,
}
