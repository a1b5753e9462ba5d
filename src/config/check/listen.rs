//! Where a node listens, and TLS.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use iris_tls::server::ClientAuth;
use iris_tls::tickets::Secret;
use iris_tls::{Group, Version};

use super::super::layers::{Data, Value};
use super::super::{AdminSocket, ListenConfig, Roles};
use super::{Name, Reader};
use crate::clock::unix_ms;
use crate::tls::{CertFiles, TlsConfig, UserField, UserRule};

const CERTS: Name = ("tls", "certs");
const CERT_EXAMPLE: &str = "write { cert = \"PATH\", key = \"PATH\" }";
/// Certificates of a node, at most.
const CERTS_MAX: usize = 256;

impl Reader<'_> {
    pub(super) fn listen(&mut self, roles: Option<Roles>) -> Option<ListenConfig> {
        let noted = self.problems.len();
        let tcp = self.address_or_none(("listen", "tcp"));
        let tls = self.address_or_none(("listen", "tls"));
        let admin = self.address(("listen", "admin"));
        let remote = self.boolean(("listen", "admin_allow_remote"));
        let token = self.secret(("listen", "admin_token"));
        let socket = self.path(("listen", "admin_socket"));
        let backlog = self.integer(("listen", "backlog"), 1..=65_535);
        if let (Some(admin), Some(false)) = (admin, remote)
            && !admin.ip().is_loopback()
        {
            self.note_key(
                ("listen", "admin"),
                format!("{} is not loopback", admin.ip()),
                "use 127.0.0.1, or set admin_token and admin_allow_remote = true",
            );
        }
        if remote == Some(true) && matches!(token, Some(None)) {
            self.note_key(
                ("listen", "admin_allow_remote"),
                "whoever reaches the admin server would see everything",
                "name a secret with admin_token: openssl rand -hex 32 > admin-token",
            );
        }
        let listeners = [("tcp", tcp.flatten()), ("tls", tls.flatten()), ("admin", admin)];
        for (index, (name, address)) in listeners.into_iter().enumerate() {
            for (other, taken) in &listeners[..index] {
                if let (Some(address), Some(taken)) = (address, taken)
                    && are_one(address, *taken)
                {
                    let cause = format!("port {} is that of listen.{other}, too", address.port());
                    self.note_key(("listen", name), cause, "give each its own port");
                }
            }
        }
        if self.problems.len() == noted
            && roles.is_none_or(|roles| roles.edge)
            && tcp == Some(None)
            && tls == Some(None)
        {
            let cause = "clients could not connect: neither listen.tcp nor listen.tls is set";
            self.note_key(
                ("listen", "tcp"),
                cause,
                "set one of them, or give the node the role core alone",
            );
        }
        Some(ListenConfig {
            tcp: tcp?,
            tls: tls?,
            admin: admin?,
            admin_allow_remote: remote?,
            admin_token: token?,
            admin_socket: match (socket?, self.text(("listen", "admin_socket"))?.as_str()) {
                (_, "auto") => AdminSocket::Auto,
                (_, "none" | "") => AdminSocket::None,
                (path, _) => AdminSocket::At(path),
            },
            backlog: u16::try_from(backlog?).ok()?,
        })
    }

    /// `None` inside: there is no TLS, and the rest of the section means nothing.
    pub(super) fn tls(
        &mut self,
        dev: bool,
        listen: Option<&ListenConfig>,
    ) -> Option<Option<TlsConfig>> {
        let noted = self.problems.len();
        let certs = self.certs();
        let versions = self.choices(("tls", "versions"), &Version::ALL.map(|v| (v.name(), v)));
        let groups = self.choices(("tls", "groups"), &Group::ALL.map(|g| (g.name(), g)));
        let ticket_secrets = self.path_or_none(("tls", "ticket_secrets"));
        let client_ca = self.path_or_none(("tls", "client_ca"));
        let modes = [
            ("off", ClientAuth::Off),
            ("optional", ClientAuth::Optional),
            ("required", ClientAuth::Required),
        ];
        let client_auth = self.one_of(("tls", "client_auth"), &modes);
        let client_user = self.user_rule();
        let per_turn = self.integer(("tls", "handshakes_per_turn"), 1..=256);
        let waiting = self.integer(("tls", "handshakes_waiting"), 1..=1_000_000);
        if listen?.tls.is_none() {
            return (self.problems.len() == noted).then_some(None);
        }
        let client_auth = client_auth?;
        if client_auth != ClientAuth::Off && client_ca.as_ref().is_some_and(Option::is_none) {
            let cause = "clients show certificates, and nobody is trusted to sign them";
            self.note_key(("tls", "client_ca"), cause, "name the certificates of their CAs");
        }
        if client_auth == ClientAuth::Off && client_user.as_ref().is_some_and(Option::is_some) {
            let cause = "certificates name users, and clients are not asked for any";
            self.note_key(("tls", "client_user"), cause, "set client_auth to optional or required");
        }
        if certs.is_empty() && !dev && self.problems.len() == noted {
            let cause = "listen.tls is set, and there is no certificate";
            self.note_key(CERTS, cause, CERT_EXAMPLE);
        }
        if self.problems.len() > noted {
            return None;
        }
        let config = TlsConfig {
            certs,
            versions: versions?,
            groups: groups?,
            ticket_secrets: ticket_secrets?,
            own_secret: Secret::random(),
            client_auth,
            client_ca: client_ca?,
            client_user: client_user?,
            handshakes_per_turn: per_turn? as usize,
            handshakes_waiting: waiting? as usize,
        };
        if let Err(problems) = config.load(unix_ms() / 1000) {
            for problem in problems {
                self.note_key(("tls", problem.key), problem.cause, problem.fix);
            }
        }
        Some(Some(config))
    }

    fn user_rule(&mut self) -> Option<Option<UserRule>> {
        let fields = [
            ("none", None),
            ("cn", Some(UserField::CommonName)),
            ("dns", Some(UserField::Dns)),
            ("uri", Some(UserField::Uri)),
            ("email", Some(UserField::Email)),
        ];
        let field = self.one_of(("tls", "client_user"), &fields)?;
        let prefix = self.text(("tls", "client_user_prefix"))?;
        Some(field.map(|field| UserRule { field, prefix }))
    }

    /// As [`Self::address`]; `None` inside: it is empty.
    fn address_or_none(&mut self, name: Name) -> Option<Option<SocketAddr>> {
        match &self.value(name).data {
            Data::Text(text) if text.is_empty() => Some(None),
            _ => self.address(name).map(Some),
        }
    }

    /// As [`Self::path`]; `None` inside: it is empty.
    fn path_or_none(&mut self, name: Name) -> Option<Option<std::path::PathBuf>> {
        let path = self.path(name)?;
        Some(Some(path).filter(|path| !path.as_os_str().is_empty()))
    }

    /// A list of names, each of the choices and once.
    fn choices<T: Copy>(&mut self, name: Name, choices: &[(&str, T)]) -> Option<Vec<T>> {
        let layers = self.layers;
        let Data::List(list) = &layers.value(name.0, name.1).data else {
            self.wrong_type(name, "a list of strings");
            return None;
        };
        let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
        let fix = format!("use some of {}", names.join(", "));
        let (mut found, mut seen, noted) = (Vec::new(), BTreeSet::new(), self.problems.len());
        for item in list {
            let text = match &item.data {
                Data::Text(text) => text.as_str(),
                other => {
                    let cause = format!("an item is a string, not {}", other.kind());
                    self.note(name, &item.origin, cause, fix.clone());
                    continue;
                }
            };
            match choices.iter().find(|(choice, _)| *choice == text) {
                Some((choice, value)) if seen.insert(*choice) => found.push(*value),
                Some(_) => {
                    let cause = format!("{text:?} stands twice");
                    self.note(name, &item.origin, cause, "write each once");
                }
                None => {
                    let cause = format!("{text:?} is none of the choices");
                    self.note(name, &item.origin, cause, fix.clone());
                }
            }
        }
        if found.is_empty() && self.problems.len() == noted {
            self.note_key(name, "it is empty", fix);
        }
        (self.problems.len() == noted).then_some(found)
    }

    fn certs(&mut self) -> Vec<CertFiles> {
        let layers = self.layers;
        let Data::List(list) = &layers.value(CERTS.0, CERTS.1).data else {
            self.wrong_type(CERTS, "a list of tables");
            return Vec::new();
        };
        if list.len() > CERTS_MAX {
            let cause = format!("more than {CERTS_MAX} certificates");
            self.note_key(CERTS, cause, "use certificates with several names");
            return Vec::new();
        }
        list.iter().filter_map(|item| self.cert_files(item)).collect()
    }

    fn cert_files(&mut self, item: &Value) -> Option<CertFiles> {
        let Data::Table(fields) = &item.data else {
            let cause = format!("a certificate is a table, not {}", item.data.kind());
            self.note(CERTS, &item.origin, cause, CERT_EXAMPLE);
            return None;
        };
        let (mut cert, mut key) = (None, None);
        for (field, value) in fields {
            let slot = match (field.as_str(), &value.data) {
                ("cert", Data::Text(text)) => Some((&mut cert, text)),
                ("key", Data::Text(text)) => Some((&mut key, text)),
                _ => None,
            };
            let Some((slot, text)) = slot.filter(|(_, text)| !text.is_empty()) else {
                let cause = format!("a certificate has no field {field:?} of this type");
                self.note(CERTS, &value.origin, cause, CERT_EXAMPLE);
                return None;
            };
            *slot = Some(self.resolve(CERTS, &value.origin, text)?);
        }
        if cert.is_none() || key.is_none() {
            self.note(CERTS, &item.origin, "a certificate needs cert and key", CERT_EXAMPLE);
        }
        Some(CertFiles { cert: cert?, key: key? })
    }
}

/// Whether two listeners would get in each other's way.
fn are_one(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}
