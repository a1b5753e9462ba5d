//! A secret that is shown to this server to prove a right.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::key::{KeyError, check_secret, read, secret_of_file};

/// A secret of 32 bytes or more. It is never printed.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// The secret in a file: all its bytes but one trailing newline.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let bytes = read(path)?;
        let secret = secret_of_file(&bytes);
        check_secret(secret).map_err(|error| error.of(path))?;
        Ok(Self(secret.into()))
    }

    /// Whether `shown` is the secret. How long it takes says nothing of where they differ.
    pub fn is(&self, shown: &[u8]) -> bool {
        let mut differs = u8::from(shown.len() != self.0.len());
        for (index, byte) in self.0.iter().enumerate() {
            differs |= byte ^ shown.get(index).copied().unwrap_or(0);
        }
        std::hint::black_box(differs) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_itself_and_nothing_else_and_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        let secret = Secret::load(&path).unwrap();
        assert!(secret.is(b"0123456789abcdef0123456789abcdef"));
        for wrong in
            ["", "0", "0123456789abcdef0123456789abcdeX", "0123456789abcdef0123456789abcdef0"]
        {
            assert!(!secret.is(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{secret:?}"), "Secret");
        std::fs::write(&path, "short\n").unwrap();
        assert!(Secret::load(&path).unwrap_err().cause.contains("32"));
    }
}
