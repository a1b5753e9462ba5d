//! Credentials of a systemd unit: files that are named instead of placed (`LoadCredential=`, systemd.exec(5)).

use std::path::PathBuf;
use std::str::FromStr;

/// Where the file is that `credential:NAME` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitCredentials {
    /// Where systemd put those of this unit (CREDENTIALS_DIRECTORY), each under its name.
    Directory(PathBuf),
    /// Where it would take them from.
    Sources(Vec<CredentialSource>),
}

impl UnitCredentials {
    /// The file of this name; `None`: nothing gives it. It may not be there.
    pub(crate) fn find(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Directory(dir) => Some(dir.join(name)),
            Self::Sources(sources) => sources.iter().find_map(|source| source.find(name)),
        }
    }
}

/// The value of one `LoadCredential=`: `ID:PATH`. A folder gives each of its files, as ID_FILE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialSource {
    id: String,
    path: PathBuf,
}

impl CredentialSource {
    fn find(&self, name: &str) -> Option<PathBuf> {
        if name == self.id {
            return Some(self.path.clone());
        }
        let file = name.strip_prefix(&self.id)?.strip_prefix('_')?;
        self.path.is_dir().then(|| self.path.join(file))
    }
}

impl FromStr for CredentialSource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some((id, path)) if !id.is_empty() && path.starts_with('/') => {
                Ok(Self { id: id.to_owned(), path: PathBuf::from(path) })
            }
            _ => Err("write it as in the unit, such as keys:/etc/iris/keys"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(texts: &[String]) -> UnitCredentials {
        UnitCredentials::Sources(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn a_folder_gives_its_files_and_a_file_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("keys")).unwrap();
        std::fs::write(path("one"), "").unwrap();
        let given = sources(&[
            format!("one:{}", path("one").display()),
            format!("keys:{}", path("keys").display()),
        ]);
        assert_eq!(given.find("one"), Some(path("one")));
        assert_eq!(given.find("keys_jwt"), Some(path("keys/jwt")));
        assert_eq!(given.find("one_more"), None, "a file has no files");
        assert_eq!(given.find("keysjwt"), None);
        assert_eq!(given.find("other"), None);
        let placed = UnitCredentials::Directory(dir.path().to_owned());
        assert_eq!(placed.find("one"), Some(path("one")));
    }

    #[test]
    fn a_source_is_an_id_and_an_absolute_path() {
        for text in ["", "keys", "keys:", ":/etc", "keys:etc"] {
            assert!(text.parse::<CredentialSource>().is_err(), "{text:?}");
        }
        assert!("keys:/etc/iris/keys".parse::<CredentialSource>().is_ok());
    }
}
