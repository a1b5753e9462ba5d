//! Completions for shells and manual pages, from the grammar of the command line.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};

use crate::cli::Cli;

/// Flags of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsFlags {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Flags of `man`.
#[derive(Debug, Args)]
pub struct ManFlags {
    /// Where to write iris-loadgen.1, iris-loadgen-idle.1 and so on; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Prints completions. The exit code.
pub fn completions(flags: &CompletionsFlags) -> anyhow::Result<u8> {
    let mut out = Vec::new();
    clap_complete::generate(flags.shell, &mut Cli::command(), "iris-loadgen", &mut out);
    // A reader that has gone away is no fault.
    let _ = std::io::stdout().write_all(&out);
    Ok(0)
}

/// Writes manual pages. The exit code.
pub fn man(flags: &ManFlags) -> anyhow::Result<u8> {
    let out = flags.out.display();
    let cause = || format!("--out {out}: failed to write manual pages; name a writable directory");
    std::fs::create_dir_all(&flags.out).with_context(cause)?;
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &flags.out).with_context(cause)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_manual_page_and_is_completed() {
        let dir = std::env::temp_dir().join(format!("iris-loadgen-man-{}", std::process::id()));
        man(&ManFlags { out: dir.clone() }).unwrap();
        let mut script = Vec::new();
        clap_complete::generate(
            clap_complete::Shell::Bash,
            &mut Cli::command(),
            "iris-loadgen",
            &mut script,
        );
        let script = String::from_utf8(script).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(script.contains(name), "{name}");
            assert!(dir.join(format!("iris-loadgen-{name}.1")).exists(), "{name}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
