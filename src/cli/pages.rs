//! `iris completions` and `iris man`: what the grammar says, for shells and for man(1).

use std::path::Path;

use clap::CommandFactory;

use super::args::{Args, Completions, Man};
use super::exit::{Exit, Failure};
use super::print;

pub(super) fn completions(args: Completions) -> anyhow::Result<Exit> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "iris", &mut out);
    print(&String::from_utf8_lossy(&out));
    Ok(Exit::Ok)
}

pub(super) fn man(args: Man) -> anyhow::Result<Exit> {
    let failed = |error: std::io::Error| {
        let cause = format!("{}: failed to write manual pages: {error}", args.out.display());
        Failure::new(Exit::Usage, format!("{cause}; name a writable directory with --out"))
    };
    std::fs::create_dir_all(&args.out).map_err(failed)?;
    let command = Args::command().disable_help_subcommand(true);
    let pages = write(command, &args.out).map_err(failed)?;
    print(&format!("{pages} pages in {}\n", args.out.display()));
    Ok(Exit::Ok)
}

fn write(command: clap::Command, out: &Path) -> std::io::Result<usize> {
    clap_mangen::generate_to(command, out)?;
    let pages = std::fs::read_dir(out)?.flatten();
    let is_ours = |name: &str| name.starts_with("iris") && name.ends_with(".1");
    Ok(pages.filter(|page| page.file_name().to_str().is_some_and(is_ours)).count())
}
