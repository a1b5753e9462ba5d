//! `iris serve`

use super::args::Serve;
use super::exit::{Exit, Failure};
use crate::config::{self, Host, Reload, Sources};
use crate::supervisor::Supervision;
use crate::{boot, logging, preflight};

pub(super) fn run(args: Serve) -> anyhow::Result<Exit> {
    if args.config.is_none() && !args.dev {
        let fix = "use --config FILE, or --dev to try things out on this machine";
        return Err(Failure::new(Exit::Usage, format!("serve needs a configuration; {fix}")).into());
    }
    let mut sources = Sources::with_env(args.config, args.dev);
    let flags = [
        ("node", "data_dir", "--data-dir", args.data_dir),
        ("listen", "tcp", "--tcp", args.tcp),
        ("listen", "tls", "--tls", args.tls),
        ("listen", "admin", "--admin", args.admin),
    ];
    for (section, name, flag, value) in flags {
        sources.flags.extend(value.map(|value| (section, name, flag, value)));
    }
    let (mut config, layers) = config::load(&sources, &Host::detect())
        .map_err(|problems| Failure::new(Exit::Config, problems.to_string()))?;
    config.ports_file = args.ports_file;
    let supervision = Supervision::from_env();
    let notices = preflight::run(&config, &layers, &supervision.inherited)?;
    logging::init(&config.log);
    for notice in notices {
        tracing::warn!("{notice}");
    }
    boot::run(config, Reload::new(sources, layers), supervision)?;
    Ok(Exit::Ok)
}
