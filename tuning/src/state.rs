//! What was there before, so that it can be given back: the file that `apply` writes first and `undo` reads.

use std::fmt::Write as _;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sizing::Request;

/// Where it lies.
pub const STATE_FILE: &str = "/var/lib/iris-tune/state.json";
/// The version of its form.
pub const VERSION: u32 = 1;

/// What was changed, and what was there before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// What was asked for last.
    pub request: Request,
    /// Folders that were not there.
    pub folders: Vec<String>,
    /// Files.
    pub files: Vec<FileRecord>,
    /// Kernel settings that were set at once.
    pub settings: Vec<SettingRecord>,
}

/// A file that is ours to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Where, from the root.
    pub path: String,
    /// What was there; `None`: nothing.
    pub before: Option<Kept>,
    /// What we put there, the newest last. More than one only until a change is done: a crash may leave either.
    pub ours: Vec<Contents>,
}

/// A kernel setting that we set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingRecord {
    /// Its name.
    pub name: String,
    /// Its value before.
    pub before: String,
    /// What we set it to, as in [`FileRecord`].
    pub ours: Vec<String>,
}

/// A file with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its bytes.
    pub contents: Contents,
    /// Its mode: the last twelve bits (chmod(2)).
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Bytes of a file. In JSON `{"text": ...}`, or `{"hex": ...}` if they are no UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written {
    Text(String),
    Hex(String),
}

impl Serialize for Contents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = match std::str::from_utf8(&self.0) {
            Ok(text) => Written::Text(text.to_owned()),
            Err(_) => Written::Hex(self.0.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
                hex
            })),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Contents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = match Written::deserialize(deserializer)? {
            Written::Text(text) => Some(text.into_bytes()),
            Written::Hex(hex) => bytes_of(&hex),
        };
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("no pairs of hex digits"))
    }
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

impl State {
    /// Nothing yet.
    pub fn new(request: Request) -> Self {
        Self { version: VERSION, request, folders: vec![], files: vec![], settings: vec![] }
    }

    /// Of all that is ours only the newest: changes are done.
    pub fn settle(&mut self) {
        for file in &mut self.files {
            file.ours.drain(..file.ours.len().saturating_sub(1));
        }
        for setting in &mut self.settings {
            setting.ours.drain(..setting.ours.len().saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_survive_json(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let contents = Contents(bytes);
            let text = serde_json::to_string(&contents).unwrap();
            prop_assert_eq!(serde_json::from_str::<Contents>(&text).unwrap(), contents);
        }
    }

    #[test]
    fn what_is_no_hex_is_refused() {
        for bad in [r#"{"hex":"0"}"#, r#"{"hex":"zz"}"#, r#"{"other":""}"#, r#""text""#] {
            assert!(serde_json::from_str::<Contents>(bad).is_err(), "{bad}");
        }
    }
}
