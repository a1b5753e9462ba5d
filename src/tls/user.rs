//! Whom a client's certificate logs in.

use crate::auth::is_user_name;
use iris_tls::certificate;

/// Which name of a certificate is the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The subject's common name.
    CommonName,
    /// A DNS name among the alternative names.
    Dns,
    /// A URI among them.
    Uri,
    /// A mail address among them.
    Email,
}

/// How a certificate names a user: the first name of that kind that begins with the prefix, without the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRule {
    /// Which kind of name.
    pub field: Field,
    /// What it begins with; not part of the user's name.
    pub prefix: String,
}

/// Who a certificate speaks for, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateUser {
    /// The user's name, as a token could name it.
    pub name: String,
    /// The first second, in Unix time, at which the certificate no longer counts.
    pub expires_unix_s: u64,
}

impl UserRule {
    /// The user of a certificate that was verified, if the rule finds one.
    pub fn user_of(&self, der: &[u8]) -> Option<CertificateUser> {
        let facts = certificate::read(der)?;
        let names = match self.field {
            Field::CommonName => facts.common_name.as_slice(),
            Field::Dns => &facts.dns,
            Field::Uri => &facts.uris,
            Field::Email => &facts.emails,
        };
        let name = names.iter().find_map(|name| name.strip_prefix(&self.prefix))?;
        is_user_name(name).then(|| CertificateUser {
            name: name.to_owned(),
            expires_unix_s: facts.not_after_s.saturating_add(1),
        })
    }
}
