//! The command `iris-tune`.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use iris_tune::cli::Cli;
use iris_tune::commands::{self, EXIT_FATAL};

fn main() -> ExitCode {
    match commands::run(Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let is_denied = error.chain().any(|cause| {
                let cause = cause.downcast_ref::<io::Error>();
                cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
            });
            let next = if is_denied { "; run it as root" } else { "" };
            eprintln!("iris-tune: {error:#}{next}");
            ExitCode::from(EXIT_FATAL)
        }
    }
}
