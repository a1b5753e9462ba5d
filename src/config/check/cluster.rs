//! Roles and the cluster: what a node is to other nodes.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::layers::{Data, Value};
use super::super::{CORES_MAX, ClusterConfig, CoreNode, NodeConfig, Roles};
use super::{Name, Reader};
use iris_proto::replica::WhenAlone;

use crate::cluster::{CredentialFiles, Credentials, is_cluster_name};

const CORES: Name = ("cluster", "cores");
const CORE_EXAMPLE: &str = "write { node = 1, addr = \"10.0.0.1:7410\" }";

impl Reader<'_> {
    pub(super) fn roles(&mut self) -> Option<Roles> {
        let name = ("node", "roles");
        let value = self.value(name);
        let Data::List(list) = &value.data else {
            self.wrong_type(name, "a list");
            return None;
        };
        let (mut roles, noted) = (Roles::default(), self.problems.len());
        for item in list {
            match &item.data {
                Data::Text(role) if role == "edge" => roles.edge = true,
                Data::Text(role) if role == "core" => roles.core = true,
                Data::Text(role) => self.note(
                    name,
                    &item.origin,
                    format!("there is no role {role:?}"),
                    "roles are \"edge\" and \"core\"",
                ),
                _ => {
                    self.note(name, &item.origin, "a role is a string", "write \"edge\", \"core\"")
                }
            }
        }
        let is_sound = self.problems.len() == noted;
        if is_sound && !(roles.edge || roles.core) {
            self.note_key(name, "a node has a role", "write roles = [\"edge\", \"core\"]");
        }
        is_sound.then_some(roles)
    }

    /// `None` inside: the node is alone.
    pub(super) fn cluster(
        &mut self,
        roles: Option<Roles>,
        node: Option<&NodeConfig>,
    ) -> Option<Option<ClusterConfig>> {
        let noted = self.problems.len();
        let id = self.text(("cluster", "id"))?;
        let listen = self.address(("cluster", "listen"));
        let cores = self.core_nodes();
        let files = CredentialFiles {
            ca: self.path(("cluster", "ca"))?,
            cert: self.path(("cluster", "cert"))?,
            key: self.path(("cluster", "key"))?,
        };
        let beat = Duration::from_millis(10)..=Duration::from_secs(10);
        let heartbeat = self.span(("cluster", "heartbeat"), beat);
        let wait = Duration::from_millis(100)..=Duration::from_secs(60);
        let send_wait = self.span(("cluster", "send_wait"), wait);
        let degrade = Duration::from_millis(50)..=Duration::from_secs(30);
        let degrade = self.span(("cluster", "degrade"), degrade);
        let heal_rate = self.size(("cluster", "heal_rate"), 1 << 20..=4 << 30);
        let choices = [("continue", WhenAlone::Continue), ("refuse", WhenAlone::Refuse)];
        let when_alone = self.one_of(("cluster", "when_alone"), &choices);
        if let (Some(beat), Some(degrade)) = (heartbeat, degrade)
            && degrade < 4 * beat
        {
            let cause = format!("{degrade:?} is less than four heartbeats of {beat:?}");
            self.note_key(("cluster", "degrade"), cause, "raise it, or lower cluster.heartbeat");
        }
        let roles = roles?;
        if id.is_empty() {
            self.check_alone(roles, &cores);
            return Some(None);
        }
        if !is_cluster_name(&id) {
            let cause = format!("{id:?} cannot be the name of a cluster");
            self.note_key(("cluster", "id"), cause, "use 1 to 63 of a-z, 0-9 and - in between");
            return None;
        }
        let node = node?;
        self.check_cores(roles, node, &cores);
        for (key, path) in [("ca", &files.ca), ("cert", &files.cert), ("key", &files.key)] {
            if path.as_os_str().is_empty() {
                let cause = "nodes show each other certificates, and none is named";
                self.note_key(("cluster", key), cause, "`iris pki` makes them");
            }
        }
        if self.problems.len() > noted {
            return None;
        }
        let credentials = match Credentials::load(&files, &id, node.node_id) {
            Ok(credentials) => credentials,
            Err(error) => {
                self.note_key(("cluster", error.key), error.cause, error.fix);
                return None;
            }
        };
        Some(Some(ClusterConfig {
            id,
            listen: listen?,
            cores,
            credentials,
            heartbeat: heartbeat?,
            send_wait: send_wait?,
            degrade: degrade?,
            heal_rate: heal_rate?,
            when_alone: when_alone?,
        }))
    }

    /// Without a cluster's name the rest of the section means nothing.
    fn check_alone(&mut self, roles: Roles, cores: &[CoreNode]) {
        let id = ("cluster", "id");
        if !cores.is_empty() {
            self.note_key(id, "there are cores but no cluster", "give the cluster a name");
        } else if !(roles.edge && roles.core) {
            let cause = "a node with one role needs others";
            let fix = "set cluster.id and the rest of [cluster], or both roles";
            self.note_key(id, cause, fix);
        }
    }

    fn check_cores(&mut self, roles: Roles, node: &NodeConfig, cores: &[CoreNode]) {
        if cores.is_empty() {
            self.note_key(CORES, "a cluster has at least one core", CORE_EXAMPLE);
            return;
        }
        if cores.len() > CORES_MAX {
            let cause = format!("{} cores; {CORES_MAX} at most: a pair", cores.len());
            self.note_key(CORES, cause, "list the two that mirror each other");
        }
        for (index, core) in cores.iter().enumerate() {
            if cores[..index].iter().any(|other| other.node == core.node) {
                let cause = format!("node {} stands twice", core.node);
                self.note_key(CORES, cause, "list each core once");
            }
            if cores[..index].iter().any(|other| other.addr == core.addr) {
                let cause = format!("{} stands twice", core.addr);
                self.note_key(CORES, cause, "give each core its own address");
            }
        }
        let is_listed = cores.iter().any(|core| core.node == node.node_id);
        if roles.core && !is_listed {
            let cause = format!("node {} has the role core and is not listed", node.node_id);
            self.note_key(CORES, cause, "list it, or give it the role edge alone");
        }
        if !roles.core && is_listed {
            let cause = format!("node {} is listed and has not the role core", node.node_id);
            self.note_key(CORES, cause, "give this node another node_id, or the role core");
        }
    }

    fn core_nodes(&mut self) -> Vec<CoreNode> {
        let layers = self.layers;
        let Data::List(list) = &layers.value(CORES.0, CORES.1).data else {
            self.wrong_type(CORES, "a list of tables");
            return Vec::new();
        };
        list.iter().filter_map(|item| self.core_node(item)).collect()
    }

    fn core_node(&mut self, item: &Value) -> Option<CoreNode> {
        let Data::Table(fields) = &item.data else {
            let cause = format!("a core is a table, not {}", item.data.kind());
            self.note(CORES, &item.origin, cause, CORE_EXAMPLE);
            return None;
        };
        let (mut node, mut addr) = (None, None);
        for (field, value) in fields {
            match (field.as_str(), &value.data) {
                ("node", Data::Integer(number)) => {
                    node = u32::try_from(*number).ok().filter(|number| *number > 0);
                    if node.is_none() {
                        let cause = format!("{number} is no number of a node");
                        self.note(CORES, &value.origin, cause, "use 1 to 4294967295");
                        return None;
                    }
                }
                ("addr", Data::Text(text)) => {
                    addr = text.parse::<SocketAddr>().ok();
                    if addr.is_none_or(|addr| addr.port() == 0) {
                        let cause = format!("{text:?} is not an IP address and port");
                        let fix = "write it like \"10.0.0.1:7410\" or \"[fd00::1]:7410\"";
                        self.note(CORES, &value.origin, cause, fix);
                        return None;
                    }
                }
                _ => {
                    let cause = format!("a core has no field {field:?} of this type");
                    self.note(CORES, &value.origin, cause, CORE_EXAMPLE);
                    return None;
                }
            }
        }
        if node.is_none() || addr.is_none() {
            self.note(CORES, &item.origin, "a core needs node and addr", CORE_EXAMPLE);
        }
        Some(CoreNode { node: node?, addr: addr? })
    }
}
