//! What operators are shown of the links to the cores of the list.

use super::gateway::Gateway;
use super::wire::Wire;
use crate::metrics::LinkEnd;
use iris_proto::peer::Purpose;

impl Gateway {
    /// A link is up.
    pub(super) fn note_up(&self, wire: &Wire) {
        if let Some((core, purpose)) = self.core_behind(wire) {
            self.metrics.cores[core].note_up(purpose);
        } else if let Some(edge) = edge_behind(wire) {
            self.metrics.edges.note_up(edge);
        }
    }

    /// A link ended. One that came to us and was not up yet has not shown who it is, and counts for nobody.
    pub(super) fn note_end(&self, wire: &Wire, was_up: bool, why: LinkEnd) {
        let known = self.core_behind(wire).filter(|_| was_up || wire.dial.is_some());
        if let Some((core, purpose)) = known {
            self.metrics.cores[core].note_end(purpose, why);
        } else if let Some(edge) = edge_behind(wire).filter(|_| was_up) {
            self.metrics.edges.note_end(edge);
        }
    }

    /// Which core of the list a link goes to, and for what; `None`: it is an edge's.
    fn core_behind(&self, wire: &Wire) -> Option<(usize, Purpose)> {
        if let Some(dial) = wire.dial {
            return Some((self.dials[dial].core, self.dials[dial].purpose));
        }
        let peer = wire.link.peer().filter(|peer| peer.purpose == Purpose::Replication)?;
        let core = self.config.cores.iter().position(|core| core.node == peer.node)?;
        Some((core, peer.purpose))
    }
}

/// The edge that came to us by a link.
fn edge_behind(wire: &Wire) -> Option<u32> {
    let peer = wire.link.peer().filter(|_| wire.dial.is_none())?;
    (peer.purpose == Purpose::Clients).then_some(peer.node)
}
