//! The command line's grammar and help.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::config::units::Span;

/// Iris: keeps clients connected and puts each message exactly once into its inbox.
#[derive(Debug, Parser)]
#[command(name = "iris", version = crate::VERSION)]
#[command(after_help = "\
Start here:
  iris serve --dev                  a server on this machine, with a key and two tokens to try
  iris check --defaults > iris.toml a configuration file to edit
  iris check --config iris.toml     every problem of it, with line and fix
  iris serve --config iris.toml     the server")]
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
    /// Read logs: verify, dump, stat, diff. Never changes them
    Wal(Wal),
    /// Make certificates for the nodes of a cluster
    Pki(Pki),
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
  iris check --defaults > iris.toml")]
pub(super) struct Check {
    /// The configuration file
    #[arg(long, value_name = "FILE", required_unless_present = "defaults")]
    pub(super) config: Option<PathBuf>,
    /// Check it as `serve --dev` would read it
    #[arg(long)]
    pub(super) dev: bool,
    /// Print one JSON object: ok, problems, and the values in effect with the place of each
    #[arg(long)]
    pub(super) json: bool,
    /// Print every key with its default and what it does, as a file to start from
    #[arg(long, conflicts_with_all = ["config", "json", "dev"])]
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
