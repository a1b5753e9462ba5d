//! Brings a node up, waits, and takes it down.

use std::sync::Arc;

use crate::admin::{Control, Event, NodeInfo, NodeState, Phase};
use crate::cli::announce::{Bound, announce};
use crate::config::Config;
use crate::metrics::Registry;

/// Runs a node until it is told to stop.
pub fn run(config: Config) -> anyhow::Result<()> {
    let registry =
        Registry::new(config.reactor.count, config.core.partitions, config.reactor.connections_max);
    let info = NodeInfo {
        name: config.node.name.clone(),
        region: config.node.region.clone(),
        node_id: config.node.node_id,
    };
    let state = Arc::new(NodeState::new(info, registry));
    let control = Control::start(&config.listen, Arc::clone(&state))?;

    state.registry().mark_baseline();
    state.advance(Phase::Ready);
    announce(&config, Bound { tcp: config.listen.tcp, admin: control.address() })?;

    let event = control.events().recv()?;
    state.advance(Phase::Draining);
    control.stop();
    match event {
        Event::Signal(name) => {
            tracing::info!(signal = name, "stopped");
            Ok(())
        }
        Event::Fatal(failure) => Err(failure.into()),
    }
}
