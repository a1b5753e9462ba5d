//! `iris status`

mod table;

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::Status;
use super::exit::{Exit, Failure};
use super::http;
use crate::config::{self, Sources};

/// Nodes asked at once, at most.
const NODES_MAX: usize = 64;
/// Time for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Where a node is asked that nobody named.
const DEFAULT_ADMIN: &str = "127.0.0.1:7480";

pub(super) fn run(args: Status) -> anyhow::Result<Exit> {
    let addresses = addresses(args.admin, args.config)?;
    let token = http::token(args.admin_token.as_deref())?;
    let is_screen = std::io::stdout().is_terminal();
    loop {
        let seen = Seen::of(ask_all(&addresses, token.as_deref()));
        let text = match (args.json, args.watch) {
            (false, _) => table::render(&seen),
            (true, None) => format!("{:#}\n", seen.to_json()),
            (true, Some(_)) => format!("{}\n", seen.to_json()),
        };
        let clear = args.watch.is_some() && !args.json && is_screen;
        let mut out = std::io::stdout().lock();
        let before: &[u8] = if clear { b"\x1b[2J\x1b[H" } else { b"" };
        let shown = out.write_all(before).and_then(|()| out.write_all(text.as_bytes()));
        let is_gone = shown.and_then(|()| out.flush()).is_err();
        match args.watch {
            Some(every) if !is_gone => std::thread::sleep(every.0),
            _ => return Ok(if seen.is_healthy() { Exit::Ok } else { Exit::Unhealthy }),
        }
    }
}

/// Asks all at once, so that one that hangs does not make the others' answers old.
pub(super) fn ask_all(addresses: &[String], token: Option<&str>) -> Vec<Node> {
    std::thread::scope(|scope| {
        let ask = |admin| scope.spawn(move || Node::ask(admin, token));
        let asked: Vec<_> = addresses.iter().map(String::as_str).map(ask).collect();
        let nodes = asked.into_iter().map(|node| node.join().expect("asking does not panic"));
        nodes.collect()
    })
}

/// Whom to ask: those named, the node of a configuration, or the one on this machine.
pub(super) fn addresses(
    admins: Vec<String>,
    file: Option<PathBuf>,
) -> Result<Vec<String>, Failure> {
    let mut addresses = Vec::new();
    for admin in &admins {
        addresses.push(http::address(admin)?);
    }
    if let Some(file) = file {
        addresses.push(of_config(file)?);
    }
    if addresses.is_empty() {
        addresses.push(DEFAULT_ADMIN.to_owned());
    }
    if addresses.len() > NODES_MAX {
        let text = format!("{} nodes at once; ask {NODES_MAX} at most", addresses.len());
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(addresses)
}

/// Where the node of a configuration has its admin server. Keys and certificates are not looked at.
pub(super) fn of_config(file: PathBuf) -> Result<String, Failure> {
    let usage = |text: String| Failure::new(Exit::Usage, text);
    let name = file.display().to_string();
    let written = config::admin_address(&Sources::with_env(Some(file), false));
    let address = written.map_err(|problems| usage(problems.to_string()))?;
    if address.port() == 0 {
        let cause = format!("{name}: listen.admin has port 0, so the node took a free one");
        return Err(usage(format!("{cause}; name it with --admin")));
    }
    // A server that listens on all addresses is asked on this machine.
    let ip = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, address.port()).to_string())
}

/// A node that was asked.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) admin: String,
    /// What `/status` said, or why there is no answer.
    pub(super) status: Result<Value, String>,
}

impl Node {
    pub(super) fn ask(admin: &str, token: Option<&str>) -> Self {
        Self::look(admin, token, "/status")
    }

    /// The same by a page that says more of who asks.
    pub(super) fn look(admin: &str, token: Option<&str>, page: &str) -> Self {
        let reply = http::ask("GET", admin, page, token, ANSWER_MAX);
        let status = reply.and_then(|reply| match reply.status {
            200 => serde_json::from_str(&reply.body)
                .ok()
                .filter(|status: &Value| status["node"]["id"].is_u64())
                .ok_or_else(|| "what answers there is no admin server of Iris".to_owned()),
            401 => Err("it asks for its token: name the file with --admin-token".to_owned()),
            404 => Err("the server is older than this command and has no /status".to_owned()),
            other => Err(format!("the server answered {other}")),
        });
        Self { admin: admin.to_owned(), status }
    }

    /// The node's number, if it answered.
    pub(super) fn id(&self) -> Option<u64> {
        self.status.as_ref().ok()?["node"]["id"].as_u64()
    }

    /// The mirror's number, if the node is a core of a pair that answered.
    fn mirror(&self) -> Option<u64> {
        self.status.as_ref().ok()?["mirror"]["node"].as_u64()
    }

    /// Where to ask it to change something: its socket, if it is of this machine and nothing else would do.
    pub(super) fn changes_at(&self, token: Option<&str>) -> String {
        let host = self.admin.rsplit_once(':').map_or("", |(host, _)| host);
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_here = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
        match self.at("/admin_socket").as_str() {
            Some(socket) if is_here && token.is_none() => format!("{}{socket}", http::SOCKET),
            _ => self.admin.clone(),
        }
    }

    fn is_solo(&self) -> bool {
        self.status.as_ref().is_ok_and(|status| status["mirror"]["state"] == "solo")
    }

    /// Field of the answer; `Null` if there is none.
    pub(super) fn at(&self, pointer: &str) -> &Value {
        self.status.as_ref().ok().and_then(|status| status.pointer(pointer)).unwrap_or(&Value::Null)
    }
}

/// Something that should not be.
#[derive(Debug)]
pub(super) struct Problem {
    /// Where; empty: between nodes.
    pub(super) admin: String,
    pub(super) node: Option<u64>,
    pub(super) name: String,
    pub(super) text: String,
}

/// All that was seen at one moment.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) nodes: Vec<Node>,
    pub(super) problems: Vec<Problem>,
}

impl Seen {
    fn of(nodes: Vec<Node>) -> Self {
        let mut problems: Vec<Problem> = nodes.iter().flat_map(problems_of).collect();
        problems.extend(problems_between(&nodes));
        Self { nodes, problems }
    }

    fn is_healthy(&self) -> bool {
        self.problems.is_empty()
    }

    /// What `--json` prints; `docs/OPERATING.md` has its fields.
    fn to_json(&self) -> Value {
        let problem = |problem: &Problem| {
            json!({
                "node": problem.node,
                "admin": (!problem.admin.is_empty()).then_some(&problem.admin),
                "name": problem.name,
                "text": problem.text,
                "next": next_step(&problem.name),
            })
        };
        let node = |node: &Node| {
            json!({
                "admin": node.admin,
                "reachable": node.status.is_ok(),
                "error": node.status.as_ref().err(),
                "status": node.status.as_ref().ok(),
            })
        };
        json!({
            "healthy": self.is_healthy(),
            "problems": self.problems.iter().map(problem).collect::<Value>(),
            "nodes": self.nodes.iter().map(node).collect::<Value>(),
        })
    }
}

/// What a node says of itself, or that it says nothing.
fn problems_of(node: &Node) -> Vec<Problem> {
    let problem = |name: &str, text: &str| Problem {
        admin: node.admin.clone(),
        node: node.id(),
        name: name.to_owned(),
        text: text.to_owned(),
    };
    match &node.status {
        Err(why) => vec![problem("unreachable", why)],
        Ok(status) => {
            let told = status["problems"].as_array().into_iter().flatten();
            let told =
                told.filter_map(|told| Some((told["name"].as_str()?, told["text"].as_str()?)));
            let mut found: Vec<Problem> = told.map(|(name, text)| problem(name, text)).collect();
            if found.is_empty() && status["healthy"] != true {
                found.push(problem("unhealthy", "it does not call itself healthy"));
            }
            found
        }
    }
}

/// What no node sees alone.
fn problems_between(nodes: &[Node]) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut problem = |name: &str, text: String| {
        let (admin, name) = (String::new(), name.to_owned());
        found.push(Problem { admin, node: None, name, text });
    };
    for (index, a) in nodes.iter().enumerate() {
        for b in &nodes[index + 1..] {
            let (Some(of_a), Some(of_b)) = (a.id(), b.id()) else { continue };
            if of_a == of_b && a.admin != b.admin {
                let text = format!("{} and {} both call themselves node {of_a}", a.admin, b.admin);
                problem("same_node", text);
            }
            let are_pair = a.mirror() == Some(of_b) && b.mirror() == Some(of_a);
            if are_pair && a.is_solo() && b.is_solo() {
                let text = format!("nodes {of_a} and {of_b} both run and do not reach each other");
                problem("split", text);
            }
        }
    }
    found
}

/// What an operator does about a problem.
pub(super) fn next_step(name: &str) -> &'static str {
    match name {
        "unreachable" => "look at the process and its log on that machine; start it again",
        "split" => {
            "mend the network between them (port of cluster.listen); they heal by themselves"
        }
        "same_node" => {
            "give each node a number of its own, node.node_id, and a directory of its own"
        }
        "solo" => "bring the other core back, or retire it if it never comes back",
        "mirror_not_linked" => {
            "bring the other core back: the policy is to refuse while it is away"
        }
        "healing" => "wait; lag and copies=1 fall",
        "recovering" | "draining" => "wait; it takes some seconds",
        "fenced" => "restart the node; it takes a new life by itself",
        "fenced_streams" => "keep both data directories and compare them: iris wal diff",
        "damaged_log" => "bring the other core back: it gives back what it has",
        "damaged" => "see iris wal verify on its data directory",
        "lost_records" => "restore the messages from a copy of a data directory, if there is one",
        "low_disk" => "free or add disk space below node.data_dir",
        "core_not_linked" => "look at that core; the log of the edge says why it is not linked",
        "connection_limit" => "add an edge, or raise reactor.connections_max",
        "not_ready" => "wait; /readyz says why",
        _ => "see docs/OPERATING.md",
    }
}

#[cfg(test)]
mod tests;
