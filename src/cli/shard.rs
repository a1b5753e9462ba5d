//! `iris shard`

use iris_proto::edge::weight;
use iris_proto::id::{ShardId, UserKey, shard_for_user};
use serde_json::{Value, json};

use super::args::Shard;
use super::exit::{Exit, Failure};
use super::status::Node;
use super::{http, print};
use crate::auth::is_user_name;
use crate::config::{self, Sources, schema};

pub(super) fn run(args: Shard) -> anyhow::Result<Exit> {
    Ok(shard(args)?)
}

fn shard(args: Shard) -> Result<Exit, Failure> {
    if !is_user_name(&args.user) {
        let text = "no user has this name: 1 to 128 bytes, no control characters";
        return Err(Failure::new(Exit::Usage, text));
    }
    let (mut num_shards, mut cores, mut is_default) = (default_shards(), Vec::new(), true);
    if let Some(file) = args.config {
        let placed = config::placement(&Sources::with_env(Some(file), false));
        (num_shards, cores) =
            placed.map_err(|problems| Failure::new(Exit::Usage, problems.to_string()))?;
        is_default = false;
    }
    if let Some(given) = args.num_shards {
        (num_shards, is_default) = (given, false);
    }
    let node = match &args.admin {
        None => None,
        Some(admin) => {
            let token = http::token(args.admin_token.as_deref())?;
            let node = Node::ask(&http::address(admin)?, token.as_deref());
            if let Err(why) = &node.status {
                let text = format!("{}: {why}; leave --admin out for the shard alone", node.admin);
                return Err(Failure::new(Exit::Negative, text));
            }
            Some(node)
        }
    };
    let key = UserKey::of(&args.user);
    let shard = shard_for_user(key, num_shards);
    let served = node.as_ref().map(|node| Served::by(&node.status, shard)).unwrap_or_default();
    if cores.is_empty() {
        cores.clone_from(&served.cores);
    }
    let preferred = cores.iter().copied().max_by_key(|core| weight(shard, *core));
    if args.json {
        let object = json!({
            "user": args.user, "key": format!("{key:?}"), "num_shards": num_shards, "shard": shard.0,
            "preferred": preferred, "serving": served.core, "why_not": served.why_not,
        });
        print(&format!("{object}\n"));
    } else {
        let default = match is_default {
            true => {
                " (the default: give --config or --num-shards if the cluster has another number)"
            }
            false => "",
        };
        let mut text = format!("shard {} of {num_shards}{default}\n", shard.0);
        if let Some(core) = preferred.filter(|_| cores.len() > 1) {
            text += &format!("prefers core {core}\n");
        }
        match (served.core, &served.why_not) {
            (Some(core), _) => text += &format!("served by core {core}\n"),
            (None, Some(why)) => text += &format!("not served: {why}\n"),
            (None, None) if node.is_some() => {
                text += "served by: not known here; ask an edge with --admin\n";
            }
            (None, None) => {}
        }
        print(&text);
    }
    Ok(if served.why_not.is_some() { Exit::Negative } else { Exit::Ok })
}

fn default_shards() -> u16 {
    let key = schema::find("core", "num_shards").expect("the schema has core.num_shards");
    key.default.parse().expect("a number by default")
}

/// Who serves a shard, as a node sees it.
#[derive(Debug, Default, PartialEq)]
struct Served {
    /// All cores that it knows.
    cores: Vec<u32>,
    core: Option<u32>,
    /// Why none does; `None` without `core`: the node does not know.
    why_not: Option<String>,
}

impl Served {
    /// By `/status`. Edges send a shard to the core of the highest weight among those that serve; for some seconds after a
    /// core came back, to the one before.
    fn by(status: &Result<Value, String>, shard: ShardId) -> Self {
        let Ok(status) = status else { return Self::default() };
        let has_role = |role: &str| {
            status["roles"].as_array().is_some_and(|roles| roles.contains(&json!(role)))
        };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let me = id(&status["node"]["id"]).filter(|_| has_role("core"));
        let others = status["links"]["cores"].as_array().into_iter().flatten();
        let cores: Vec<u32> =
            others.clone().filter_map(|core| id(&core["node"])).chain(me).collect();
        if !has_role("edge") {
            return Self { cores, ..Self::default() };
        }
        let serves = |core: &&Value| {
            core["clients"]["up"] == true
                && core["serving_partitions"].as_u64().is_some_and(|n| n > 0)
        };
        let me = me.filter(|_| status["phase"] == "ready");
        let usable = others.filter(serves).filter_map(|core| id(&core["node"])).chain(me);
        let core = usable.max_by_key(|core| weight(shard, *core));
        let why_not = core
            .is_none()
            .then(|| "no core is linked and serves; iris status says more".to_owned());
        Self { cores, core, why_not }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(cores: &[(u32, bool, u64)]) -> Result<Value, String> {
        let core = |(node, up, serving): &(u32, bool, u64)| {
            let clients = json!({ "up": up });
            json!({ "node": node, "clients": clients, "serving_partitions": serving })
        };
        Ok(json!({
            "node": { "id": 101 }, "roles": ["edge"], "phase": "ready",
            "links": { "cores": cores.iter().map(core).collect::<Value>() },
        }))
    }

    /// A shard that prefers core 1 of 1 and 2.
    fn of_core_1() -> ShardId {
        (0..64).map(ShardId).find(|shard| weight(*shard, 1) > weight(*shard, 2)).unwrap()
    }

    #[test]
    fn a_shard_goes_to_the_core_that_it_prefers_or_to_the_one_that_is_left() {
        let shard = of_core_1();
        let serving = |cores: &[(u32, bool, u64)]| Served::by(&edge(cores), shard);
        assert_eq!(serving(&[(1, true, 1), (2, true, 1)]).core, Some(1));
        assert_eq!(serving(&[(1, false, 0), (2, true, 1)]).core, Some(2));
        assert_eq!(serving(&[(1, true, 0), (2, true, 1)]).core, Some(2));
        let none = serving(&[(1, false, 0), (2, false, 0)]);
        assert!(none.core.is_none() && none.why_not.is_some() && none.cores == [1, 2]);
    }

    #[test]
    fn a_node_alone_serves_all_and_a_core_does_not_know_what_edges_do() {
        let alone = json!({ "node": { "id": 7 }, "roles": ["edge", "core"], "phase": "ready", "links": null });
        assert_eq!(Served::by(&Ok(alone), ShardId(0)).core, Some(7));
        let starting =
            json!({ "node": { "id": 7 }, "roles": ["edge", "core"], "phase": "starting" });
        assert!(Served::by(&Ok(starting), ShardId(0)).why_not.is_some());
        let core = json!({ "node": { "id": 1 }, "roles": ["core"], "phase": "ready" });
        let seen = Served::by(&Ok(core), ShardId(0));
        assert_eq!(seen, Served { cores: vec![1], core: None, why_not: None });
    }
}
