//! `iris core retire-node`

use std::io::{IsTerminal, stdin};
use std::time::Duration;

use serde_json::Value;

use super::args::{Core, CoreCommand, RetireNode};
use super::exit::{Exit, Failure};
use super::status::Node;
use super::{http, print};

/// Time for the partitions to hear of it.
const ANSWER_MAX: Duration = Duration::from_secs(20);

pub(super) fn run(args: Core) -> anyhow::Result<Exit> {
    match args.command {
        CoreCommand::RetireNode(args) => Ok(retire_node(args)?),
    }
}

fn retire_node(args: RetireNode) -> Result<Exit, Failure> {
    let admin = http::address(&args.admin)?;
    let token = http::token(args.admin_token.as_deref())?;
    let token = token.as_deref();
    let node = Node::ask(&admin, token);
    let me = check(&node, args.node)?;
    print(&explain(&node, me, args.node));
    if !args.yes && !is_confirmed(args.node) {
        let text = "not confirmed, nothing was changed; --yes goes on without asking";
        return Err(Failure::new(Exit::Negative, text));
    }
    let path = format!("/retire?node={}", args.node);
    let refused = |why: String| Failure::new(Exit::Negative, format!("{admin}: {why}"));
    let reply =
        http::ask("POST", &node.changes_at(token), &path, token, ANSWER_MAX).map_err(|why| {
            refused(format!("{why}; whether it is retired is not known: see iris status"))
        })?;
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    match (reply.status, body["error"].as_str()) {
        (200, _) => {
            print(&format!("node {} is retired: node {me} keeps nothing more for it\n", args.node));
            Ok(Exit::Ok)
        }
        (_, Some(why)) => Err(refused(format!("refused: {why}"))),
        (status, None) => Err(refused(format!("the server answered {status}"))),
    }
}

/// Whether that node can be asked to give up that mirror, and its number.
fn check(node: &Node, retired: u32) -> Result<u64, Failure> {
    let admin = &node.admin;
    let refused = |why: String| Err(Failure::new(Exit::Negative, format!("{admin}: {why}")));
    let status = match &node.status {
        Ok(status) => status,
        Err(why) => return refused(format!("{why}; name the core that is left with --admin")),
    };
    let me = node.id().unwrap_or_default();
    let mirror = &status["mirror"];
    match mirror["node"].as_u64() {
        None => refused(format!("node {me} is no core of a pair; there is nothing to retire")),
        Some(other) if other != u64::from(retired) => {
            refused(format!("the mirror of node {me} is node {other}, not node {retired}"))
        }
        Some(_) if mirror["linked"] == true => refused(format!(
            "node {retired} is linked: stop it first; a node that comes back is not to be retired"
        )),
        Some(_) => Ok(me),
    }
}

/// What is about to happen.
fn explain(node: &Node, me: u64, retired: u32) -> String {
    let copies = node.at("/mirror/one_copy_messages").as_u64().unwrap_or(0);
    let lag = node.at("/mirror/lag/records").as_u64().unwrap_or(0);
    format!(
        "\
Node {me} gives up node {retired}. This cannot be undone.

  lost        what only node {retired} has: messages that it took while the two did not reach each other,
              and copies of what is damaged on node {me}
  given up    node {me} keeps nothing more for node {retired}, {lag} records that it lacks among that
  stays       all that is on node {me}; {copies} messages of it were taken alone. It goes on with one copy of
              everything until another core stands at its side
  afterwards  node {retired} may come back with an empty data directory only, and is then filled

"
    )
}

/// Whether somebody at the terminal types the number.
fn is_confirmed(node: u32) -> bool {
    if !stdin().is_terminal() {
        return false;
    }
    print(&format!("Type {node} to go on: "));
    let mut line = String::new();
    stdin().read_line(&mut line).is_ok() && line.trim() == node.to_string()
}
