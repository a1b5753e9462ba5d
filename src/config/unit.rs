//! Credentials of a systemd unit: files that are named instead of placed (`LoadCredential=`, systemd.exec(5)).

use std::path::{Path, PathBuf};
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

/// The value of one `LoadCredential=`: `ID:PATH`. A folder gives each file in it, as ID_FILE.
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
        find_in(&self.path, name.strip_prefix(&self.id)?.strip_prefix('_')?)
    }
}

/// A file in a folder or in one below it, whose names are put together with `_`. Links in it are passed over, as systemd
/// does.
fn find_in(dir: &Path, name: &str) -> Option<PathBuf> {
    let kind = |path: &Path| path.symlink_metadata().ok().map(|meta| meta.file_type());
    let file = dir.join(name);
    if !name.contains('/') && kind(&file).is_some_and(|kind| kind.is_file()) {
        return Some(file);
    }
    name.match_indices('_').find_map(|(at, _)| {
        let below = dir.join(&name[..at]);
        let is_folder = at > 0 && kind(&below).is_some_and(|kind| kind.is_dir());
        is_folder.then(|| find_in(&below, &name[at + 1..])).flatten()
    })
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
        std::fs::create_dir_all(path("keys/of_b")).unwrap();
        for file in ["one", "keys/jwt", "keys/of_b/jwt"] {
            std::fs::write(path(file), "").unwrap();
        }
        std::os::unix::fs::symlink(path("one"), path("keys/link")).unwrap();
        let given = sources(&[
            format!("one:{}", path("one").display()),
            format!("keys:{}", path("keys").display()),
        ]);
        assert_eq!(given.find("one"), Some(path("one")));
        assert_eq!(given.find("keys_jwt"), Some(path("keys/jwt")));
        assert_eq!(given.find("keys_of_b_jwt"), Some(path("keys/of_b/jwt")));
        assert_eq!(given.find("keys_link"), None, "systemd passes it over");
        assert_eq!(given.find("keys_of_b"), None, "a folder is none");
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
