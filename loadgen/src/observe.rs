//! Flags for looking at a run: what is recorded each second, what is shown, and the files it leaves.

use crate::hgrm;
use crate::live::Live;
use crate::page;
use crate::protocol::Protocol;
use crate::report::Report;
use crate::scrape::{Endpoint, Scraper};
use crate::series::recorder::Sources;
use crate::usage::Generator;
use anyhow::{Context, ensure};
use clap::Args;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

/// Flags of every scenario; none of them changes the load.
#[derive(Clone, Debug, Default, Args)]
pub struct Observe {
    /// The server's metrics, such as http://127.0.0.1:7480/metrics, read each second
    #[arg(long, value_name = "URL")]
    pub metrics: Option<Endpoint>,
    /// A metric to record instead of those that tell most; may be given several times
    #[arg(long = "metric", value_name = "NAME", requires = "metrics")]
    pub names: Vec<String>,
    /// Write a line for each second to this file, while it runs
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write the percentiles of latency_us (or, without answers, of deliveries) to this file, in the .hgrm format
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Write a page with charts to this file, and each chart as a PNG beside it
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// No view that is redrawn in place: a line a second, as where standard error is no terminal
    #[arg(long)]
    pub no_live: bool,
}

impl Observe {
    /// Opens what a run records from and to; `server` is its process.
    pub fn sources(&self, server: Option<u32>, generator: Generator) -> anyhow::Result<Sources> {
        let scraper = self.metrics.clone().map(|url| Scraper::start(url, &self.names));
        let csv = self.csv.as_deref().map(|path| {
            File::create(path).with_context(|| format!("cannot write --csv {}", path.display()))
        });
        Ok(Sources { server, scraper: scraper.transpose()?, csv: csv.transpose()?, generator })
    }

    /// What is shown meanwhile.
    pub fn live(&self, protocol: Protocol) -> Live {
        Live::new(!self.no_live, protocol)
    }

    /// A file that cannot be written is better known before the run than after it.
    pub fn check(&self) -> anyhow::Result<()> {
        for (flag, file) in [("--hgrm", &self.hgrm), ("--report", &self.report)] {
            file.as_deref().map_or(Ok(()), |path| check_writable(flag, path))?;
        }
        Ok(())
    }

    /// For what is many runs, and so has no file for each.
    pub fn check_no_files(&self) -> anyhow::Result<()> {
        let files = [("--csv", &self.csv), ("--hgrm", &self.hgrm), ("--report", &self.report)];
        for (flag, file) in files {
            ensure!(
                file.is_none(),
                "a search is many runs, and {flag} is a file of one: run the load that it finds"
            );
        }
        Ok(())
    }

    /// Writes the files that a run leaves at its end.
    pub fn write(&self, report: &Report) -> anyhow::Result<()> {
        if let Some(path) = &self.hgrm {
            std::fs::write(path, hgrm::text(report.spectrum()))
                .with_context(|| format!("cannot write --hgrm {}", path.display()))?;
        }
        self.report.as_deref().map_or(Ok(()), |path| page::write(path, report))
    }
}

/// Opens a file as it will be written, and leaves it alone.
pub fn check_writable(flag: &str, path: &Path) -> anyhow::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map(drop).with_context(|| format!("cannot write {flag} {}", path.display()))
}
