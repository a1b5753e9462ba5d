//! Reads the configuration anew while the node runs.
//!
//! Some keys take hold then ([`schema::is_reloaded`]). Whatever else differs is told, and waits for a restart; a file
//! with any problem changes nothing.

use std::time::Duration;

use super::{
    Host, Layers, LimitsConfig, LogConfig, Origin, Problem, Problems, Sources, load, schema,
};
use crate::tls::TlsProblem;

/// Where the configuration came from, and what of it is in force.
#[derive(Debug)]
pub struct Reload {
    sources: Sources,
    layers: Layers,
}

/// What reading anew brought.
#[derive(Debug)]
pub struct Reloaded {
    /// The limits as they are written now.
    pub limits: LimitsConfig,
    /// What is said on stderr.
    pub log: LogConfig,
    /// Time that a drain may take.
    pub drain_time: Duration,
    /// Keys that have another value in force now, as `section.key`.
    pub applied: Vec<String>,
    /// Keys that have another value since the start, and need a restart.
    pub needs_restart: Vec<String>,
}

impl Reload {
    /// What [`load`] gave for these sources is in force.
    pub fn new(sources: Sources, layers: Layers) -> Self {
        Self { sources, layers }
    }

    /// Reads the file and lays the environment and the flags of the start over it again. Keys and certificates that are
    /// named in it are read to check them, and stay those of the start.
    pub fn read(&mut self, host: &Host) -> Result<Reloaded, Problems> {
        let (config, now) = load(&self.sources, host)?;
        let mut reloaded = Reloaded {
            limits: config.limits,
            log: config.log,
            drain_time: config.reactor.drain_time,
            applied: Vec::new(),
            needs_restart: Vec::new(),
        };
        for (section, name, value) in now.iter() {
            if value.data.is_same(&self.layers.value(section, name).data) {
                continue;
            }
            let key = format!("{section}.{name}");
            if schema::is_reloaded(section, name) {
                self.layers.adopt(section, name, &now);
                reloaded.applied.push(key);
            } else {
                reloaded.needs_restart.push(key);
            }
        }
        Ok(reloaded)
    }

    /// Why nothing can be read anew, where files of TLS that are in use cannot be loaded: that, or what is wrong with the
    /// configuration, which may name other files by now.
    pub fn problems(&self, host: &Host, files: Vec<TlsProblem>) -> Problems {
        let of_file = |problem: TlsProblem| Problem {
            origin: Origin::Default,
            key: format!("tls.{}", problem.key),
            cause: problem.cause,
            fix: problem.fix,
        };
        match load(&self.sources, host) {
            Ok(_) => {
                let list = files.into_iter().map(of_file).collect();
                Problems::new(self.sources.file.clone(), list)
            }
            Err(problems) => problems,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn some_keys_take_hold_others_are_named_and_a_problem_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("iris.toml");
        fs::write(&file, "[limits]\naccepts = \"5/s\"\n[node]\nregion = \"a\"\n").unwrap();
        let host = Host { cpus: 2, name: "host".to_owned(), nofile_hard: 1024, credentials: None };
        let sources = Sources { file: Some(file.clone()), dev: true, ..Sources::default() };
        let (_, layers) = load(&sources, &host).unwrap();
        let mut reload = Reload::new(sources, layers);
        let mut read = |text: &str| {
            fs::write(&file, text).unwrap();
            reload.read(&host).map(|now| (now.applied, now.needs_restart))
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let first = "[limits]\naccepts = \"6/s\"\nprefix_v4 = 16\n[node]\nregion = \"b\"\n";
        let restart = names(&["limits.prefix_v4", "node.region"]);
        assert_eq!(read(first).unwrap(), (names(&["limits.accepts"]), restart));
        // What waits for a restart is told again, what is in force is not.
        let restart = names(&["limits.prefix_v4", "node.region"]);
        assert_eq!(read(first).unwrap(), (names(&[]), restart));
        assert!(read("[limits]\naccepts = \"7\"\n").is_err());
        let restart = names(&["node.region"]);
        assert_eq!(read("").unwrap(), (names(&["limits.accepts"]), restart));
        let more =
            "[log]\nlevel = \"debug\"\n[reactor]\ndrain_time = \"1m\"\nslow_timeout = \"3s\"\n";
        let (applied, restart) = (
            names(&["log.level", "reactor.drain_time"]),
            names(&["node.region", "reactor.slow_timeout"]),
        );
        assert_eq!(read(more).unwrap(), (applied, restart));
        let applied = names(&["log.level", "reactor.drain_time"]);
        assert_eq!(read("").unwrap(), (applied, names(&["node.region"])));
        let back = "[node]\nregion = \"a\"\n# moved down\n[limits]\naccepts = \"off\"\n";
        assert_eq!(read(back).unwrap(), (names(&[]), names(&[])));
    }

    #[test]
    fn files_in_use_that_cannot_be_loaded_are_a_problem_though_the_file_names_others_by_now() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("iris.toml");
        fs::write(&file, "[auth]\nkeys = []\n").unwrap();
        let sources = || Sources { file: Some(file.clone()), dev: true, ..Sources::default() };
        let host = Host { cpus: 2, nofile_hard: 1024, ..Host::default() };
        let reload = Reload::new(sources(), load(&sources(), &host).unwrap().1);
        let gone = || {
            let (cause, fix) = ("it is gone".to_owned(), "put it back".to_owned());
            vec![TlsProblem { key: "certs", cause, fix }]
        };
        let problems = reload.problems(&host, gone()).to_string();
        assert!(problems.contains("tls.certs: it is gone; put it back"), "{problems}");
        fs::write(&file, "[auth]\nno_such_key = 1\n").unwrap();
        let problems = reload.problems(&host, gone()).to_string();
        assert!(problems.contains("no_such_key"), "{problems}");
    }
}
