//! `iris check`

use serde_json::{Map, Value as Json, json};

use super::args::Check;
use super::exit::Exit;
use super::print;
use super::token::unix_s;
use crate::config::{self, Config, Data, Host, Layers, Sources, UnitCredentials, Value, schema};
use crate::tls::CertSummary;

pub(super) fn run(args: Check) -> anyhow::Result<Exit> {
    if args.defaults {
        print(&schema::reference());
        return Ok(Exit::Ok);
    }
    let sources = Sources::with_env(args.config, args.dev);
    let file = sources.file.as_ref().map(|file| file.display().to_string());
    let mut host = Host::detect();
    if !args.load_credential.is_empty() {
        host.credentials = Some(UnitCredentials::Sources(args.load_credential));
    }
    match config::load(&sources, &host) {
        Ok((config, layers)) if args.json => {
            let report = json!({
                "ok": true, "file": file, "problems": [], "config": values(&layers),
                "effective": {
                    "reactors": config.reactor.count,
                    "rings_per_reactor": config.reactor.rings_per_reactor(),
                    "ring_slots": config.reactor.ring_slots,
                    "partitions": config.core.partitions,
                    "keys": config.auth.keys.len(),
                    "certificates": certificates(&config),
                },
            });
            print(&format!("{report:#}\n"));
            Ok(Exit::Ok)
        }
        Ok((config, _)) => {
            let (reactor, core) = (&config.reactor, &config.core);
            print(&format!(
                "{}: sound: {} reactors with {} rings of {} slots each for {} connections, \
                 {} partitions, {} keys\n",
                file.unwrap_or_default(),
                reactor.count,
                reactor.rings_per_reactor(),
                reactor.ring_slots,
                reactor.connections_max,
                core.partitions,
                config.auth.keys.len(),
            ));
            for cert in summaries(&config) {
                let (names, days) = (cert.names.join(", "), cert.days_left(unix_s()));
                print(&format!("certificate for {names}: valid for {days} more days\n"));
            }
            Ok(Exit::Ok)
        }
        Err(problems) => {
            if args.json {
                let list = problems.to_json();
                print(&format!("{:#}\n", json!({ "ok": false, "file": file, "problems": list })));
            } else {
                print(&format!("{problems}\n"));
            }
            Ok(Exit::Negative)
        }
    }
}

/// The certificates of TLS. They were loaded before, or there would be no configuration.
fn summaries(config: &Config) -> Vec<CertSummary> {
    let loaded = config.tls.as_ref().and_then(|tls| tls.load(unix_s()).ok());
    loaded.map(|loaded| loaded.certs).unwrap_or_default()
}

fn certificates(config: &Config) -> Json {
    let shown =
        |cert: CertSummary| json!({ "names": cert.names, "expires_unix_s": cert.expires_unix_s });
    summaries(config).into_iter().map(shown).collect()
}

/// Every key with its value and where it was written.
fn values(layers: &Layers) -> Json {
    let mut sections = Map::new();
    for (section, name, value) in layers.iter() {
        let from = value.origin.to_string();
        let section = sections.entry(section).or_insert_with(|| json!({}));
        section[name] = json!({ "value": to_json(value), "from": from });
    }
    Json::Object(sections)
}

fn to_json(value: &Value) -> Json {
    match &value.data {
        Data::Text(text) => json!(text),
        Data::Integer(integer) => json!(integer),
        Data::Bool(truth) => json!(truth),
        Data::List(list) => list.iter().map(to_json).collect(),
        Data::Table(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), to_json(value))).collect()
        }
        Data::Other(name) => json!(name),
    }
}
