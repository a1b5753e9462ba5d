//! `iris pki init|issue`

use std::time::{Duration, UNIX_EPOCH};

use super::args::{Pki, PkiCommand};
use super::exit::{Exit, Failure};
use super::print;
use super::token::unix_s;
use crate::cluster::pki::{self, PkiError};

pub(super) fn run(args: Pki) -> anyhow::Result<Exit> {
    let failed = |error: PkiError| Failure::new(Exit::Usage, error.to_string());
    let now = UNIX_EPOCH + Duration::from_secs(unix_s());
    match args.command {
        PkiCommand::Init { cluster, dir } => {
            let ca = pki::init(&dir, &cluster, now).map_err(failed)?;
            print(&format!("{}\n", ca.display()));
        }
        PkiCommand::Issue { node, days, dir } => {
            let (cert, key) = pki::issue(&dir, node, days, now).map_err(failed)?;
            pki::check(&dir, node).map_err(failed)?;
            print(&format!("{}\n{}\n", cert.display(), key.display()));
        }
    }
    Ok(Exit::Ok)
}
