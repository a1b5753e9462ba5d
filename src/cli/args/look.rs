//! The grammar of commands that look at nodes: top, shard, support-bundle; and of those that write pages.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::config::units::Span;

/// Watch nodes live: connections, rates, how busy each thread is, what waits and what is refused.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
On a terminal it draws a screen again and again, a column for each node, until Ctrl-C. Elsewhere it prints a line
for each node and look. Rates are of the time between two looks at /metrics. Lines of busy threads show the share
of the time in which each one worked: near 100 % it is full, whatever the system says of CPUs.

Without --admin and --config it asks 127.0.0.1:7480. Exits with 0, or with 10 if a node did not answer at the
last look, 2 if asked wrongly.

Examples:
  iris top
  iris top --admin 10.0.0.1:7480 --admin 10.0.0.2:7480 --admin-token /etc/iris/admin-token
  iris top --once --json | jq .nodes[0].rates.delivered
  iris top --interval 10s >> top.log")]
pub(in crate::cli) struct Top {
    /// Address of an admin server (listen.admin); may be given more than once
    #[arg(long, value_name = "ADDR")]
    pub(in crate::cli) admin: Vec<String>,
    /// Ask the node of this configuration
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// The file with the nodes' secret (listen.admin_token), if they ask for one
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) admin_token: Option<PathBuf>,
    /// Time between two looks, 100ms to 1h
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub(in crate::cli) interval: Span,
    /// Look twice, --interval apart, print what was between, and end
    #[arg(long)]
    pub(in crate::cli) once: bool,
    /// Print a JSON object for each look; docs/OPERATING.md has its fields
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// Say which shard a user is in, and which core it goes to.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The shard follows from the name and core.num_shards alone. With --config the core that it prefers follows, too.
With --admin of an edge it says which core serves it now, as far as links tell: the preferred one, if it is
linked and its partitions serve. Exits with 0, 1 if no core serves it, 2 if asked wrongly.

Examples:
  iris shard alice
  iris shard alice --config /etc/iris/iris.toml --admin 127.0.0.1:7480
  iris shard alice --num-shards 256 --json")]
pub(in crate::cli) struct Shard {
    /// The user's name
    #[arg(value_name = "USER")]
    pub(in crate::cli) user: String,
    /// Take core.num_shards and cluster.cores from this configuration
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// Shards of the cluster, if there is no configuration here
    #[arg(long, value_name = "N", conflicts_with = "config",
          value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(in crate::cli) num_shards: Option<u16>,
    /// Address of an edge's admin server (listen.admin)
    #[arg(long, value_name = "ADDR")]
    pub(in crate::cli) admin: Option<String>,
    /// The file with the node's secret (listen.admin_token), if it asks for one
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) admin_token: Option<PathBuf>,
    /// Print one JSON object: user, key, num_shards, shard, preferred, serving
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// Gather what helps to find out what is wrong with a node, without secrets, as a .tar.gz.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
In it: versions, the configuration in effect, /status, /health and /metrics (twice), the process's limits, kernel,
sysctls, cgroup, memory and network counters, what lies in the data directory and a count of its log, io_uring,
and what iris-tune check says, if that is installed. MANIFEST.txt says what is in it and what was not to be had:
it is made as well while the server is down.

Not in it: keys, tokens, passwords, certificates, messages. Of files that hold secrets only size and mode are named,
and what they hold is cut out wherever else it stands. A log, if you give one, is cut to its last 4 MiB; tokens and
names of users in it are cut out. Look into it before you send it: it names hosts and addresses.

Run it as root or as the server's user, or much will be missing. Exits with 0 once the file is written, 2 if not.

Examples:
  iris support-bundle --config /etc/iris/iris.toml
  iris support-bundle --dev --out bundle.tar.gz
  journalctl -u iris -o cat | tail -n 20000 > iris.log; iris support-bundle --config iris.toml --log iris.log
  tar tzvf bundle.tar.gz; tar xzOf bundle.tar.gz --wildcards '*/MANIFEST.txt'")]
pub(in crate::cli) struct SupportBundle {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// The node is one of `iris serve --dev`, with its defaults
    #[arg(long)]
    pub(in crate::cli) dev: bool,
    /// Its data directory (overrides node.data_dir)
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) data_dir: Option<String>,
    /// Address of its admin server (overrides listen.admin): HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub(in crate::cli) admin: Option<String>,
    /// The file with the node's secret (overrides listen.admin_token)
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) admin_token: Option<PathBuf>,
    /// A log of the server
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) log: Option<PathBuf>,
    /// The file to write; it must not exist [default: iris-support-HOST-TIME.tar.gz here]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) out: Option<PathBuf>,
    /// Time between the two looks at /metrics, 0s to 1m
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub(in crate::cli) interval: Span,
}

/// Print completions for a shell.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  iris completions bash > /etc/bash_completion.d/iris
  iris completions zsh > /usr/local/share/zsh/site-functions/_iris
  iris completions fish > ~/.config/fish/completions/iris.fish
  source <(iris completions bash)                   # for this shell only")]
pub(in crate::cli) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(in crate::cli) shell: clap_complete::Shell,
}

/// Write manual pages, one for each command.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  iris man --out /usr/local/share/man/man1 && man iris-status
  iris man --out . && man ./iris.1")]
pub(in crate::cli) struct Man {
    /// Where to write iris.1, iris-serve.1 and so on; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) out: PathBuf,
}
