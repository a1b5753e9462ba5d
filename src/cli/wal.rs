//! `iris wal verify|dump|stat|diff`

use std::io::{self, BufWriter, Write};
use std::path::Path;

use iris_wal::tool::{self, DumpOptions, Summary};

use super::args::{Wal, WalCommand};
use super::exit::{Exit, Failure};

/// Bytes gathered before they are written to stdout.
const OUT_BUFFER_BYTES: usize = 64 * 1024;

pub(super) fn run(args: Wal) -> anyhow::Result<Exit> {
    let mut out = BufWriter::with_capacity(OUT_BUFFER_BYTES, io::stdout().lock());
    let (dir, result) = match &args.command {
        WalCommand::Verify(one) => (&one.dir, tool::verify(&one.dir, &mut out, one.json)),
        WalCommand::Stat(one) => (&one.dir, tool::stat(&one.dir, &mut out, one.json)),
        WalCommand::Dump { one, payloads } => {
            let options = DumpOptions { json: one.json, payloads: *payloads };
            (&one.dir, tool::dump(&one.dir, &mut out, options))
        }
        WalCommand::Diff { a, b, json } => (a, tool::diff(a, b, &mut out, *json)),
    };
    match result.and_then(|summary| out.flush().map(|()| summary)) {
        Ok(summary) => Ok(exit_of(dir, &summary)?),
        // `dump | head` has seen enough. A verdict that nobody could read to its end is none.
        Err(error)
            if error.kind() == io::ErrorKind::BrokenPipe
                && matches!(args.command, WalCommand::Dump { .. }) =>
        {
            Ok(Exit::Ok)
        }
        Err(error) => {
            let cause = format!("{}: failed to read or print the log: {error}", dir.display());
            Err(Failure::new(Exit::Usage, format!("{cause}; no verdict was reached")).into())
        }
    }
}

/// How the command ends. What could not be read is in the output, place by place; stderr says what to do about it.
fn exit_of(dir: &Path, summary: &Summary) -> Result<Exit, Failure> {
    let message = match summary {
        Summary { logs: 0, .. } => format!(
            "{}: there is no log in it that can be read; name a node's data directory, \
             its wal directory or one log such as wal/p000",
            dir.display()
        ),
        Summary { unreadable: 1.., .. } => format!(
            "{}: {} files or directories could not be read; run it as the user that owns them",
            dir.display(),
            summary.unreadable
        ),
        Summary { faults: 1.., .. } => return Ok(Exit::Negative),
        _ => return Ok(Exit::Ok),
    };
    Err(Failure::new(Exit::Usage, message))
}
