//! Gathers what was written where: defaults, then the file, then the environment, then flags; the last one wins.
//!
//! This layer knows which keys exist and where each value came from. What a value may be is decided in `check`.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problem};
use super::schema::{self, Key};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct Value {
    /// Where it was written.
    pub origin: Origin,
    /// What was written.
    pub data: Data,
}

/// A TOML value, each part with its place.
#[derive(Clone, Debug)]
pub enum Data {
    /// A string.
    Text(String),
    /// An integer; what does not fit 64 bits is `Other`.
    Integer(i64),
    /// A boolean.
    Bool(bool),
    /// An array.
    List(Vec<Value>),
    /// A table: names with the line of each, and values.
    Table(Vec<(String, Value)>),
    /// A type that no key takes, by its TOML name.
    Other(&'static str),
}

impl Data {
    /// Whether the same was written, wherever.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same = |one: &Value, other: &Value| one.data.is_same(&other.data);
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Integer(one), Self::Integer(other)) => one == other,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::List(one), Self::List(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same(a, b))
            }
            (Self::Table(one), Self::Table(other)) => {
                let mut pairs = one.iter().zip(other);
                one.len() == other.len() && pairs.all(|(a, b)| a.0 == b.0 && same(&a.1, &b.1))
            }
            _ => false,
        }
    }

    /// What it is, for messages: `a string`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Bool(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }
}

/// All keys with the value that won.
#[derive(Debug)]
pub struct Layers {
    values: BTreeMap<(&'static str, &'static str), Value>,
}

impl Layers {
    /// Every key with its default.
    pub fn defaults(dev: bool) -> Self {
        let entry = |key: &Key| {
            let text = key.dev.filter(|_| dev).unwrap_or(key.default);
            let value = parse_toml_value(text).expect("defaults are TOML");
            Value { origin: Origin::Default, data: convert(&value, &|_| Origin::Default) }
        };
        let values = schema::KEYS.iter().map(|key| ((key.section, key.name), entry(key)));
        Self { values: values.collect() }
    }

    /// The value of a key of the schema.
    pub fn value(&self, section: &str, name: &str) -> &Value {
        let key = schema::find(section, name);
        let key = key.unwrap_or_else(|| panic!("{section}.{name} is not in the schema"));
        &self.values[&(key.section, key.name)]
    }

    /// Every key and its value, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, &Value)> {
        self.values.iter().map(|((section, name), value)| (*section, *name, value))
    }

    /// Takes the value of a key from others.
    pub(super) fn adopt(&mut self, section: &'static str, name: &'static str, others: &Self) {
        self.values.insert((section, name), others.value(section, name).clone());
    }

    /// Lays the text of a configuration file over what is there.
    pub fn apply_file(&mut self, text: &str, problems: &mut Vec<Problem>) {
        let line_of = |span: Range<usize>| Origin::File { line: line_at(text, span.start) };
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            problems.push(Problem {
                origin: line_of(error.span().unwrap_or(0..0)),
                key: String::new(),
                cause: format!("this is not TOML: {message}"),
                fix: "correct the line; https://toml.io shows the syntax".to_owned(),
            });
        }
        for (section, content) in document.get_ref() {
            let origin = line_of(section.span());
            self.apply_section(section.get_ref(), origin, content, &line_of, problems);
        }
    }

    fn apply_section(
        &mut self,
        section: &str,
        origin: Origin,
        content: &Spanned<DeValue<'_>>,
        line_of: &dyn Fn(Range<usize>) -> Origin,
        problems: &mut Vec<Problem>,
    ) {
        if !schema::is_section(section) {
            problems.push(unknown_section(section, origin));
            return;
        }
        let Some(table) = content.get_ref().as_table() else {
            problems.push(Problem {
                origin,
                key: section.to_owned(),
                cause: "this must be a section".to_owned(),
                fix: format!("write [{section}] on a line of its own, and its keys below"),
            });
            return;
        };
        for (name, value) in table {
            let origin = line_of(name.span());
            match schema::find(section, name.get_ref()) {
                Some(key) => {
                    let data = convert(value, line_of);
                    self.values.insert((key.section, key.name), Value { origin, data });
                }
                None => problems.push(unknown_key(section, name.get_ref(), origin)),
            }
        }
    }

    /// Lays `IRIS_SECTION__KEY` variables over what is there. Others are not looked at, except a key of ours that
    /// was written with one underscore, which would be overlooked without a word.
    pub fn apply_env(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
        problems: &mut Vec<Problem>,
    ) {
        for (variable, text) in variables {
            let Some(path) = variable.strip_prefix("IRIS_") else { continue };
            let origin = Origin::Env(variable.clone());
            let path = path.to_ascii_lowercase();
            let Some((section, name)) = path.split_once("__") else {
                if let Some(key) = schema::KEYS.iter().find(|key| path == one_underscore(key)) {
                    problems.push(Problem {
                        origin,
                        key: format!("{}.{}", key.section, key.name),
                        cause: "one underscore between section and key".to_owned(),
                        fix: format!("name it {}", env_name(key)),
                    });
                }
                continue;
            };
            match schema::find(section, name) {
                Some(key) => match env_data(key, &text) {
                    Ok(data) => {
                        self.values.insert((key.section, key.name), Value { origin, data });
                    }
                    Err(problem) => problems.push(Problem { origin, ..problem }),
                },
                None if schema::is_section(section) => {
                    problems.push(unknown_key(section, name, origin));
                }
                None => problems.push(unknown_section(section, origin)),
            }
        }
    }

    /// Lays one flag of the command line over what is there.
    pub fn apply_flag(&mut self, section: &str, name: &str, flag: &str, text: &str) {
        let key = schema::find(section, name).expect("flags name keys of the schema");
        let value = Value { origin: Origin::Flag(flag.into()), data: Data::Text(text.to_owned()) };
        self.values.insert((key.section, key.name), value);
    }
}

/// Strings are taken as they are; anything else is written as in the file.
fn env_data(key: &Key, text: &str) -> Result<Data, Problem> {
    if key.default.starts_with('"') {
        return Ok(Data::Text(text.to_owned()));
    }
    match parse_toml_value(text) {
        Some(value) => Ok(convert(&value, &|_| Origin::Env(env_name(key)))),
        None => Err(Problem {
            origin: Origin::Default,
            key: format!("{}.{}", key.section, key.name),
            cause: format!("{text:?} is not a TOML value"),
            fix: format!("write it as in the file, for example {}", key.default),
        }),
    }
}

fn parse_toml_value(text: &str) -> Option<Spanned<DeValue<'_>>> {
    DeValue::parse(text.trim()).ok()
}

fn convert(value: &Spanned<DeValue<'_>>, line_of: &dyn Fn(Range<usize>) -> Origin) -> Data {
    match value.get_ref() {
        DeValue::String(text) => Data::Text(text.to_string()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Data::Other("a number beyond 64 bits"), Data::Integer),
        DeValue::Boolean(truth) => Data::Bool(*truth),
        DeValue::Array(array) => {
            let entry = |item: &Spanned<DeValue<'_>>| Value {
                origin: line_of(item.span()),
                data: convert(item, line_of),
            };
            Data::List(array.iter().map(entry).collect())
        }
        DeValue::Table(table) => {
            let entries = table.iter().map(|(name, item)| {
                let value = Value { origin: line_of(name.span()), data: convert(item, line_of) };
                (name.get_ref().to_string(), value)
            });
            Data::Table(entries.collect())
        }
        DeValue::Float(_) => Data::Other("a fraction"),
        DeValue::Datetime(_) => Data::Other("a date"),
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn env_name(key: &Key) -> String {
    format!("IRIS_{}__{}", key.section, key.name).to_ascii_uppercase()
}

fn one_underscore(key: &Key) -> String {
    format!("{}_{}", key.section, key.name)
}

fn unknown_section(section: &str, origin: Origin) -> Problem {
    let names = || schema::SECTIONS.iter().map(|(name, _)| *name);
    // A key of the top level is mostly one whose section line is missing.
    let homes = schema::KEYS.iter().filter(|key| key.name == section).map(|key| key.section);
    let homes: Vec<&str> = homes.collect();
    let fix = match (schema::nearest(section, names()), homes.first()) {
        (Some(name), _) => format!("did you mean {name}?"),
        (None, Some(home)) => format!("put it below [{home}]"),
        (None, None) => format!("sections are {}", names().collect::<Vec<_>>().join(", ")),
    };
    Problem { origin, key: section.to_owned(), cause: "there is no such section".to_owned(), fix }
}

fn unknown_key(section: &str, name: &str, origin: Origin) -> Problem {
    let here = || schema::KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    let elsewhere = schema::KEYS.iter().find(|key| key.name == name);
    let fix = match (schema::nearest(name, here()), elsewhere) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, Some(key)) => format!("it belongs below [{}]", key.section),
        (None, None) => format!("keys here are {}", here().collect::<Vec<_>>().join(", ")),
    };
    let key = format!("{section}.{name}");
    Problem { origin, key, cause: "there is no such key".to_owned(), fix }
}
