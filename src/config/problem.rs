//! What is wrong with a configuration: all of it at once, each with its place and a fix.

use std::fmt;
use std::path::PathBuf;

use serde_json::json;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In the configuration file, at this line from 1.
    File {
        /// Line from 1.
        line: usize,
    },
    /// In the environment, in the variable of this name.
    Env(String),
    /// On the command line, as this flag.
    Flag(String),
    /// Nowhere: the default stands.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { line } => write!(out, "line {line}"),
            Self::Env(name) | Self::Flag(name) => out.write_str(name),
            Self::Default => out.write_str("default"),
        }
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the cause was written.
    pub origin: Origin,
    /// `section.key`, or empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

impl Problem {
    /// Whether a line is broken, so that what the parser made of it says nothing new.
    fn is_syntax(&self) -> bool {
        self.key.is_empty() && matches!(self.origin, Origin::File { .. })
    }
}

/// Every problem of one configuration; never empty.
#[derive(Clone, Debug)]
pub struct Problems {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// In order of place.
    pub list: Vec<Problem>,
}

impl Problems {
    /// Orders the problems by place. A line whose syntax is broken yields only that problem.
    pub fn new(file: Option<PathBuf>, mut list: Vec<Problem>) -> Self {
        assert!(!list.is_empty(), "a configuration without problems is sound");
        list.sort_by(|a, b| (&a.origin, !a.is_syntax()).cmp(&(&b.origin, !b.is_syntax())));
        list.dedup_by(|next, first| {
            *next == *first || (first.is_syntax() && next.origin == first.origin)
        });
        Self { file, list }
    }

    /// Where the problem is: `iris.toml:12`, `IRIS_LOG__LEVEL in the environment`, `--tcp`.
    fn place(&self, problem: &Problem) -> String {
        let file = || self.file.as_ref().map(|file| file.display().to_string());
        match &problem.origin {
            Origin::File { line } => format!("{}:{line}", file().unwrap_or_default()),
            Origin::Env(name) => format!("{name} in the environment"),
            Origin::Flag(flag) => flag.clone(),
            Origin::Default => file().unwrap_or_else(|| "configuration".to_owned()),
        }
    }

    /// The problems as a JSON array of objects with `file`, `line`, `env`, `flag`, `key`, `problem` and `fix`; the
    /// places that do not apply are null.
    pub fn to_json(&self) -> serde_json::Value {
        let file = self.file.as_ref().map(|file| file.display().to_string());
        let entries = self.list.iter().map(|problem| {
            let (mut line, mut env, mut flag) = (None, None, None);
            match &problem.origin {
                Origin::File { line: at } => line = Some(*at),
                Origin::Env(name) => env = Some(name),
                Origin::Flag(name) => flag = Some(name),
                Origin::Default => {}
            }
            json!({
                "file": file, "line": line, "env": env, "flag": flag,
                "key": problem.key, "problem": problem.cause, "fix": problem.fix,
            })
        });
        entries.collect()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.list.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}: ", self.place(problem))?;
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            write!(f, "{}; {}", problem.cause, problem.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
