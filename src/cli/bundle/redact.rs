//! Cuts out what must not leave the machine: secrets that are known, what looks like one, and names of users.
//!
//! Configuration names files and holds no secret, but people paste: so a value that must name a file is shown only if it
//! does, and within tables only what is known to be harmless is shown at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use crate::config::{Data, Layers, Origin, UnitCredentials, Value};

/// What stands where something was cut out.
const CUT: &str = "[redacted]";
/// Characters of a piece of a secret, at least: shorter ones may be words.
const PIECE_MIN: usize = 16;
/// Characters of a whole secret, at least.
const WHOLE_MIN: usize = 8;
/// Bytes of a file with secrets, at most; they are smaller.
const SECRET_BYTES_MAX: u64 = 256 * 1024;

/// Keys that name a file, and whether it holds a secret.
const FILE_KEYS: [(&str, &str, bool); 7] = [
    ("listen", "admin_token", true),
    ("tls", "ticket_secrets", true),
    ("tls", "client_ca", false),
    ("auth", "jwks_file", true),
    ("cluster", "ca", false),
    ("cluster", "cert", false),
    ("cluster", "key", true),
];
/// Keys that are lists of tables: what is none may be a secret in the wrong place.
const TABLE_KEYS: [(&str, &str); 3] = [("auth", "keys"), ("tls", "certs"), ("cluster", "cores")];
/// Fields of tables in lists that name a file, likewise.
const FILE_FIELDS: [(&str, bool); 3] = [("file", true), ("cert", false), ("key", true)];
/// Fields that are shown.
const PLAIN_FIELDS: [&str; 4] = ["alg", "kid", "node", "addr"];

/// Where files of a configuration are.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// The configuration's folder, from which its paths start.
    pub(super) base: PathBuf,
    /// The unit's credentials.
    pub(super) credentials: Option<UnitCredentials>,
}

impl Places {
    /// Where the file is that a value names.
    pub(super) fn find(&self, text: &str, origin: &Origin) -> Option<PathBuf> {
        if let Some(name) = text.strip_prefix("credential:") {
            return self.credentials.as_ref()?.find(name);
        }
        Some(match origin {
            Origin::File { .. } => self.base.join(text),
            Origin::Env(_) | Origin::Flag(_) | Origin::Default => PathBuf::from(text),
        })
    }
}

/// Knows secrets and cuts them out.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    secrets: Vec<String>,
}

impl Redactor {
    /// Learns what a file holds: all of it, and each long run of letters and digits in it.
    pub(super) fn learn_file(&mut self, path: &Path) {
        let is_small =
            fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= SECRET_BYTES_MAX);
        if let Some(bytes) = is_small.then(|| fs::read(path).ok()).flatten() {
            self.learn(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Learns a text.
    pub(super) fn learn(&mut self, text: &str) {
        let is_piece = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
        let is_edge = |piece: &&str| piece.len() >= PIECE_MIN && !piece.starts_with("-----");
        let pieces = text.split(|c: char| !is_piece(c)).filter(is_edge);
        let whole = Some(text.trim()).filter(|text| text.len() >= WHOLE_MIN);
        self.secrets.extend(whole.into_iter().chain(pieces).map(str::to_owned));
        self.secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.secrets.dedup();
    }

    /// Learns all that files of a configuration hold.
    pub(super) fn learn_config(&mut self, layers: &Layers, places: &Places) {
        for (section, name, value) in layers.iter() {
            if FILE_KEYS.iter().any(|key| (key.0, key.1) == (section, name) && key.2) {
                self.learn_value(value, places);
            }
            let is_of_tables = TABLE_KEYS.contains(&(section, name));
            let one = std::slice::from_ref(value);
            let list = if let Data::List(list) = &value.data { list.as_slice() } else { one };
            for entry in list {
                let Data::Table(fields) = &entry.data else {
                    if is_of_tables {
                        self.learn_value(entry, places);
                    }
                    continue;
                };
                let is_secret =
                    |name: &str| FILE_FIELDS.iter().any(|field| field.0 == name && field.1);
                let secrets = fields.iter().filter(|(name, _)| is_secret(name));
                secrets.for_each(|(_, value)| self.learn_value(value, places));
            }
        }
    }

    /// The file that it names; or, if it names none, itself.
    fn learn_value(&mut self, value: &Value, places: &Places) {
        let Data::Text(text) = &value.data else { return };
        match places.find(text, &value.origin).filter(|path| path.exists()) {
            Some(path) => self.learn_file(&path),
            None if text.starts_with("credential:") => {}
            None => self.learn(text),
        }
    }

    /// The text without secrets, tokens and private keys.
    pub(super) fn scrub(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for secret in &self.secrets {
            if out.contains(secret) {
                out = out.replace(secret, CUT);
            }
        }
        without_tokens(&without_private_keys(&out))
    }
}

/// PEM from the first line of a private key to its last one, or to the end.
fn without_private_keys(text: &str) -> String {
    const END: &str = "PRIVATE KEY-----";
    let mut out = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN ") {
        let Some(head) = rest[begin..].find(END).filter(|at| *at <= 40) else {
            let (before, after) = rest.split_at(begin + 11);
            out += before;
            rest = after;
            continue;
        };
        out += &rest[..begin];
        out += CUT;
        let body = &rest[begin + head + END.len()..];
        rest = body.find(END).map_or("", |end| &body[end + END.len()..]);
    }
    out + rest
}

/// JSON Web Tokens (RFC 7515: base64url of `{"`, two dots), and whatever follows the word Bearer.
fn without_tokens(text: &str) -> String {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || "-_.=+/~".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_of_token(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let is_bearer =
            out.len() >= 7 && out.as_bytes()[out.len() - 7..].eq_ignore_ascii_case(b"bearer ");
        let token = word.find("eyJ").filter(|at| word[*at..].matches('.').count() >= 2);
        match token {
            _ if is_bearer && !word.is_empty() => out += CUT,
            Some(at) => {
                out += &word[..at];
                out += CUT;
            }
            None => out += word,
        }
        let next = after.find(is_of_token).unwrap_or(after.len());
        out += &after[..next];
        rest = &after[next..];
    }
    out
}

/// A log without colours and without names of users: the field `user`, as text and as JSON have it.
pub(super) fn without_users(text: &str) -> String {
    let text = without_escapes(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    const FIELDS: [&str; 3] = ["user=", "\"user\":", "\\\"user\\\":"];
    while let Some((at, field)) = FIELDS
        .iter()
        .filter_map(|field| Some((rest.find(field)?, *field)))
        .min_by_key(|found| found.0)
    {
        let (before, after) = rest.split_at(at + field.len());
        out += before;
        let begins = |c: char| !(c.is_alphanumeric() || c == '_');
        let is_field = field != "user=" || rest[..at].chars().next_back().is_none_or(begins);
        rest = after;
        if !is_field {
            continue;
        }
        let spaces = rest.len() - rest.trim_start_matches(' ').len();
        out += &rest[..spaces];
        out += CUT;
        // JSON within JSON, as a journal has it: the quotes of the value are escaped, and any within it twice.
        let length = match rest[spaces..].strip_prefix("\\\"") {
            Some(quoted) => {
                match quoted.match_indices("\\\"").find(|(at, _)| !quoted[..*at].ends_with('\\')) {
                    Some((end, _)) => end + 4,
                    None => quoted.find('\n').map_or(quoted.len(), |end| end) + 2,
                }
            }
            None => value_len(&rest[spaces..]),
        };
        rest = &rest[spaces + length..];
    }
    out + rest
}

/// Length of a value: a string in quotes, or up to a space, comma or brace.
fn value_len(text: &str) -> usize {
    let Some(quoted) = text.strip_prefix('"') else {
        return text.find([' ', ',', '}', '\n', '\r', '\t']).unwrap_or(text.len());
    };
    let mut is_escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !is_escaped => return at + 2,
            '\n' => return at + 1,
            _ => is_escaped = c == '\\' && !is_escaped,
        }
    }
    text.len()
}

/// Without the escape sequences of colours (ECMA-48, SGR).
fn without_escapes(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |end| end + 1);
        out += &part[end..];
    }
    out
}

/// Every key with its value, without secrets, and where it was written.
pub(super) fn config(layers: &Layers, places: &Places) -> Json {
    let mut sections = Map::new();
    for (section, name, value) in layers.iter() {
        let from = value.origin.to_string();
        let is_file = FILE_KEYS.iter().any(|key| (key.0, key.1) == (section, name));
        let shown = match &value.data {
            _ if is_file => file(value, places),
            Data::List(list) if TABLE_KEYS.contains(&(section, name)) => {
                list.iter().map(|entry| table(entry, places)).collect()
            }
            _ if TABLE_KEYS.contains(&(section, name)) => table(value, places),
            _ => plain(value, places),
        };
        let section = sections.entry(section).or_insert_with(|| json!({}));
        section[name] = json!({ "value": shown, "from": from });
    }
    Json::Object(sections)
}

/// A table; whatever else stands in its place is not shown.
fn table(value: &Value, places: &Places) -> Json {
    match &value.data {
        Data::Table(_) => plain(value, places),
        _ => json!(CUT),
    }
}

fn plain(value: &Value, places: &Places) -> Json {
    match &value.data {
        Data::Text(text) => json!(text),
        Data::Integer(integer) => json!(integer),
        Data::Bool(truth) => json!(truth),
        Data::List(list) => list.iter().map(|entry| plain(entry, places)).collect(),
        Data::Table(fields) => {
            let field = |(name, value): &(String, Value)| {
                let shown = match name.as_str() {
                    name if FILE_FIELDS.iter().any(|field| field.0 == name) => file(value, places),
                    name if PLAIN_FIELDS.contains(&name) => plain(value, places),
                    _ => json!(CUT),
                };
                (name.clone(), shown)
            };
            fields.iter().map(field).collect()
        }
        Data::Other(name) => json!(name),
    }
}

/// A value that names a file: which one, and what is known of it from outside.
fn file(value: &Value, places: &Places) -> Json {
    let Data::Text(text) = &value.data else { return json!(CUT) };
    if text.is_empty() {
        return json!("");
    }
    let found = places.find(text, &value.origin);
    let known = found.and_then(|path| fs::metadata(path).ok());
    match known {
        Some(known) => {
            let (bytes, mode) = (known.len(), known.permissions().mode() & 0o7777);
            json!({ "file": text, "bytes": bytes, "mode": format!("{mode:04o}") })
        }
        None if is_credential(text) => {
            json!({ "file": text, "problem": "not to be seen from here" })
        }
        None => json!(format!(
            "{CUT} {} characters that name no file that can be seen from here",
            text.len()
        )),
    }
}

fn is_credential(text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    text.strip_prefix("credential:")
        .is_some_and(|name| name.len() <= 64 && name.chars().all(is_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";

    #[test]
    fn secrets_are_cut_out_whole_and_in_pieces() {
        let mut redactor = Redactor::default();
        redactor.learn("first 0123456789abcdef0123456789abcdef\n");
        redactor.learn("with spaces\n");
        for (text, wanted) in [
            ("a 0123456789abcdef0123456789abcdef b", "a [redacted] b"),
            ("with spaces, first", "[redacted], first"),
            ("0123456789abcdef", "0123456789abcdef"),
        ] {
            assert_eq!(redactor.scrub(text), wanted);
        }
    }

    #[test]
    fn tokens_and_private_keys_are_cut_out_without_being_known() {
        let redactor = Redactor::default();
        for (text, wanted) in [
            (format!("token {TOKEN}, and"), "token [redacted], and".to_owned()),
            (format!("{{\"t\":\"{TOKEN}\"}}"), "{\"t\":\"[redacted]\"}".to_owned()),
            (format!("x={TOKEN}"), "x=[redacted]".to_owned()),
            (
                "Authorization: Bearer s3cr3t!".to_owned(),
                "Authorization: Bearer [redacted]!".to_owned(),
            ),
            ("version 1.2.3 of a-b.c.d".to_owned(), "version 1.2.3 of a-b.c.d".to_owned()),
            (
                "a\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\nb".to_owned(),
                "a\n[redacted]\nb".to_owned(),
            ),
            ("-----BEGIN EC PRIVATE KEY-----\nAAAA".to_owned(), "[redacted]".to_owned()),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----".to_owned(),
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----".to_owned(),
            ),
        ] {
            assert_eq!(redactor.scrub(&text), wanted);
        }
    }

    #[test]
    fn names_of_users_are_cut_out_of_both_kinds_of_logs() {
        for (text, wanted) in [
            ("ended user=\"al \\\" ice\" sessions=1\n", "ended user=[redacted] sessions=1\n"),
            ("ended user=alice sessions=1", "ended user=[redacted] sessions=1"),
            ("{\"user\":\"al,ice\",\"n\":1}", "{\"user\":[redacted],\"n\":1}"),
            ("{\"user\": \"alice\"}", "{\"user\": [redacted]}"),
            ("\x1b[3muser\x1b[0m\x1b[2m=\x1b[0m\"alice\" x", "user=[redacted] x"),
            ("superuser=root users_online=3", "superuser=root users_online=3"),
            ("user=\"unended\nnext", "user=[redacted]\nnext"),
            (
                r#"{"MESSAGE":"{\"user\":\"al ice\",\"n\":1}"}"#,
                r#"{"MESSAGE":"{\"user\":[redacted],\"n\":1}"}"#,
            ),
        ] {
            assert_eq!(without_users(text), wanted);
        }
    }

    #[test]
    fn a_secret_in_the_place_of_a_table_is_not_shown() {
        for keys in ["\"swordfish-swordfish\"", "[\"swordfish-swordfish\"]"] {
            let mut layers = Layers::defaults(false);
            layers.apply_file(&format!("[auth]\nkeys = {keys}\n"), &mut Vec::new());
            let places = Places::default();
            let shown = config(&layers, &places).to_string();
            assert!(!shown.contains("swordfish"), "{shown}");
            let mut redactor = Redactor::default();
            redactor.learn_config(&layers, &places);
            assert!(!redactor.scrub("it is swordfish-swordfish").contains("swordfish-"));
        }
    }

    #[test]
    fn a_value_that_must_name_a_file_is_shown_only_if_it_does() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
        let mut layers = Layers::defaults(false);
        let mut problems = Vec::new();
        layers.apply_file(
            "[listen]\nadmin_token = \"hunter2hunter2hunter2\"\n[cluster]\nid = \"prod\"\nkey = \"credential:k\"\n\
             cores = [{ node = 1, addr = \"10.0.0.1:7410\" }]\n\
             [auth]\nkeys = [{ file = \"secret\", alg = \"HS256\", pass = \"swordfish\" }]\n",
            &mut problems,
        );
        assert!(problems.is_empty(), "{problems:?}");
        let places = Places { base: dir.path().to_owned(), credentials: None };
        let shown = config(&layers, &places);
        let text = shown.to_string();
        for secret in ["hunter2", "swordfish", "0123456789abcdef"] {
            assert!(!text.contains(secret), "{text}");
        }
        assert_eq!(shown["auth"]["keys"]["value"][0]["file"]["bytes"], 33);
        assert_eq!(shown["cluster"]["key"]["value"]["file"], "credential:k");
        assert_eq!(shown["cluster"]["cores"]["value"][0]["addr"], "10.0.0.1:7410");
        assert_eq!(shown["cluster"]["id"]["from"], "line 4");
        let mut redactor = Redactor::default();
        redactor.learn_config(&layers, &places);
        let leak = "x hunter2hunter2hunter2 y 0123456789abcdef0123456789abcdef";
        assert_eq!(redactor.scrub(leak), "x [redacted] y [redacted]");
    }
}
