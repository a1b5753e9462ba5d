//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::sizing::{Profile, Request};
use crate::state::State;

/// Connections, unless said otherwise.
const CONNECTIONS: u64 = 100_000;
/// And at most, as `reactor.connections_max`.
const CONNECTIONS_MAX: u64 = 100_000_000;

/// iris-tune: what this machine needs for so many connections of Iris, checked, set and undone.
#[derive(Debug, Parser)]
#[command(name = "iris-tune", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const AFTER_HELP: &str = "\
Start here:
  iris-tune check --connections 1000000        what is missing, in a table; changes nothing
  iris-tune plan --connections 1000000         what apply would write, to the letter; changes nothing
  sudo iris-tune apply --connections 1000000   writes it and sets the kernel's values
  sudo systemctl daemon-reload && sudo systemctl restart iris
  iris-tune verify                             whether all is still as it was applied
  sudo iris-tune undo                          puts everything back as it was, byte for byte

What apply writes:
  /etc/sysctl.d/90-iris.conf                   kernel settings, also set at once
  /etc/systemd/system/UNIT.d/50-iris-tune.conf limits of the service
  /etc/iris/iris-tune.toml                     keys for the server's configuration, to be taken over by hand
  /var/lib/iris-tune/state.json                what was there before, for undo

It never lowers a value, and a second apply changes nothing. Nothing else is touched: no boot parameter, no governor, no
swap; where only you can do something, it says what. In a container it says what to set on the host.

Each of --connections, --profile and --tls is as in the last apply if it is not given, else 100000 connections of a
node, without TLS.

Exit codes: 0 all is well, or only warnings; 1 warnings, with --strict; 2 something fatal, nothing could be done, or
wrong usage.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// What is required, what there is, and why: a table. Changes nothing
    Check(Flags),
    /// Threads, memory, and every file and setting that apply would change. Changes nothing
    #[command(after_help = "\
Examples:
  iris-tune plan --connections 1000000
  iris-tune plan --connections 1000000 --profile edge --tls
  iris-tune plan --connections 1000000 --script > tune.sh      a shell script for review, without undo
  iris-tune plan --connections 1000000 --json | jq '.settings[] | select(.current != .wanted)'")]
    Plan(Writing),
    /// Write files and set the kernel's values; undo knows what was there before
    #[command(after_help = "\
Refuses if something is fatal that it cannot change (too little memory, an old kernel), or if one of its files was edited
since; --force goes on. Give your own lines a file of their own, such as /etc/sysctl.d/91-local.conf.

Examples:
  sudo iris-tune apply --connections 1000000
  sudo iris-tune apply --connections 200000 --profile edge --tls
  iris-tune apply --connections 1000000 --root image/          an image that is not running: files only")]
    Apply(Writing),
    /// Put back what was there before the first apply, byte for byte
    #[command(after_help = "\
A file or setting that somebody else has changed since is left alone and named; --force puts it back, too.
--connections, --profile and --tls mean nothing here.")]
    Undo(Writing),
    /// Whether files and the kernel's values are still as they were applied. Changes nothing
    Verify(Flags),
    /// Every condition that is looked at, and who can change it
    List(Flags),
    /// Why a condition matters, how its value is computed, how to change it by hand
    #[command(after_help = "\
Examples:
  iris-tune explain net.tcp_mem
  iris-tune explain limit.nofile --json")]
    Explain(Explain),
}

/// Flags of all verbs.
#[derive(Clone, Debug, Default, Args)]
pub struct Flags {
    /// Connections that the machine is to hold; users online for the profile core; underscores are ignored
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_connections)]
    pub connections: Option<u64>,
    /// What the machine is for
    #[arg(long, value_enum)]
    pub profile: Option<Profile>,
    /// Clients come by TLS: 4 KB a connection more
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub tls: Option<bool>,
    /// Take DIR for /: its proc, sys and etc are read, and files are written there; kernel values are not set
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Exit with 1 if there are warnings
    #[arg(long)]
    pub strict: bool,
}

/// Flags of verbs that write.
#[derive(Clone, Debug, Default, Args)]
pub struct Writing {
    /// As for all.
    #[command(flatten)]
    pub flags: Flags,
    /// Print a shell script that does it, and do nothing
    #[arg(long, conflicts_with = "json")]
    pub script: bool,
    /// Go on in spite of fatal conditions and of files that somebody has edited
    #[arg(long)]
    pub force: bool,
}

/// Flags of `explain`.
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// The condition's name; iris-tune list has them
    #[arg(value_name = "ID")]
    pub id: String,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

fn parse_connections(text: &str) -> Result<u64, String> {
    let number = text.replace('_', "").parse::<u64>().ok();
    number
        .filter(|number| (1..=CONNECTIONS_MAX).contains(number))
        .ok_or_else(|| format!("write a number from 1 to {CONNECTIONS_MAX}, such as 1000000"))
}

impl Flags {
    /// What is asked for; what is not said is as it was applied last.
    pub fn request(&self, state: Option<&State>) -> Request {
        let last = state.map(|state| state.request);
        let last = last.unwrap_or(Request {
            connections: CONNECTIONS,
            profile: Profile::Node,
            tls: false,
        });
        Request {
            connections: self.connections.unwrap_or(last.connections),
            profile: self.profile.unwrap_or(last.profile),
            tls: self.tls.unwrap_or(last.tls),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn connections_are_numbers_within_bounds() {
        assert_eq!(parse_connections("1_000_000"), Ok(1_000_000));
        for bad in ["0", "-1", "100000001", "many", ""] {
            assert!(parse_connections(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_said_is_as_it_was_applied() {
        let request = Request { connections: 5, profile: Profile::Edge, tls: true };
        let state = State::new(request);
        assert_eq!(Flags::default().request(Some(&state)), request);
        let said = Flags { connections: Some(7), ..Flags::default() }.request(Some(&state));
        assert_eq!(said, Request { connections: 7, ..request });
        let plain = Flags { tls: Some(false), ..Flags::default() }.request(Some(&state));
        assert_eq!(plain, Request { tls: false, ..request });
        assert_eq!(Flags::default().request(None).connections, CONNECTIONS);
    }
}
