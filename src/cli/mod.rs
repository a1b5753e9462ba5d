//! What a user types. Each command returns how it ended, or an error with cause and next step.

pub mod announce;
mod args;
mod bundle;
mod capacity;
mod check;
mod core;
mod drain;
pub mod exit;
mod http;
mod logout;
mod pages;
mod pki;
mod scrape;
mod serve;
mod shard;
mod status;
mod text;
mod token;
mod top;
mod version;
mod wal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use exit::{Exit, exit_of};

/// Parses the command line, runs the command, and says on stderr what went wrong.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are printed the same way, and are no failure. A closed pipe is no news.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    let outcome = match args.command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(args),
        Command::Token(args) => token::run(args),
        Command::Status(args) => status::run(args),
        Command::Capacity(args) => capacity::run(&args),
        Command::Top(args) => top::run(args),
        Command::Shard(args) => shard::run(args),
        Command::SupportBundle(args) => bundle::run(args),
        Command::Core(args) => core::run(args),
        Command::Drain(args) => drain::run(args),
        Command::Logout(args) => logout::run(args),
        Command::Wal(args) => wal::run(args),
        Command::Pki(args) => pki::run(args),
        Command::Completions(args) => pages::completions(args),
        Command::Man(args) => pages::man(args),
        Command::Version(args) => version::run(args),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            for line in format!("{error:#}").lines() {
                complain(line);
            }
            exit_of(&error).into()
        }
    }
}

/// Says to stderr what went wrong, if that can be written: on a full disk it may not, and the exit code says it, too.
pub(crate) fn complain(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "iris: {line}");
}

/// Prints to stdout. A reader that has gone away is not an error of ours: the command has done its work.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
