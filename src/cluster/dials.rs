//! The nodes that this one connects to.

use super::Me;
use crate::config::ClusterConfig;
use crate::metrics::LinkEnd;
use iris_proto::peer::Purpose;

/// A node that this one connects to.
pub(super) struct Dial {
    pub(super) core: usize,
    pub(super) purpose: Purpose,
    pub(super) slot: Option<u16>,
    pub(super) attempt: u32,
    pub(super) next_ms: u64,
    pub(super) last: Option<LinkEnd>,
}

/// As an edge each core but itself, as a core mirrors with a higher number.
pub(super) fn dials(config: &ClusterConfig, me: &Me, takes_mirrors: bool) -> Vec<Dial> {
    let mut dials = Vec::new();
    for (core, target) in config.cores.iter().enumerate() {
        let mut dial = |purpose| {
            dials.push(Dial { core, purpose, slot: None, attempt: 0, next_ms: 0, last: None });
        };
        if me.roles.edge && target.node != me.node {
            dial(Purpose::Clients);
        }
        if takes_mirrors && target.node > me.node {
            dial(Purpose::Replication);
        }
    }
    dials
}
