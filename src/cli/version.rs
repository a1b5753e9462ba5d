//! `iris version`

use serde_json::json;

use super::args::Version;
use super::exit::Exit;
use super::print;
use crate::{REVISION, VERSION};

pub(super) fn run(args: Version) -> anyhow::Result<Exit> {
    let protocol = iris_proto::wire::VERSION;
    if args.json {
        let object = json!({ "version": VERSION, "revision": REVISION, "protocol": protocol });
        print(&format!("{object}\n"));
    } else {
        print(&format!("iris {VERSION} ({REVISION}), wire protocol {protocol}\n"));
    }
    Ok(Exit::Ok)
}
