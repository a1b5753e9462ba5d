//! The listeners of clients: those that were inherited, and what is missing.

use std::io::ErrorKind;
use std::net::SocketAddr;

use iris_ring::Listener;

use crate::cli::exit::Failure;
use crate::config::Config;
use crate::preflight::explain_bind;
use crate::reactor::Listeners;
use crate::supervisor::{Inherited, Kind, Notifier};

/// For each reactor its listeners, each kind on one address. With port 0 the kernel picks it once, for all.
///
/// What was inherited is used to the last, because closing a listener resets whoever waits in its queue: if more were kept
/// than there are reactors, some reactors have several. What is made anew is kept for the next life.
pub(super) fn bind(
    config: &Config,
    mut inherited: Inherited,
    notifier: &Notifier,
) -> Result<Vec<Listeners>, Failure> {
    let reactors = config.reactors();
    let mut each: Vec<Listeners> = Vec::new();
    each.resize_with(reactors, Listeners::default);
    let mut kept = Vec::new();
    for (kind, address) in [(Kind::Tcp, config.listen.tcp), (Kind::Tls, config.listen.tls)] {
        let Some(address) = address.filter(|_| reactors > 0) else { continue };
        let found = inherited.take(kind, address);
        if !found.is_empty() {
            tracing::info!(%kind, %address, count = found.len(), reactors, "listeners were kept");
        }
        let mut made = Vec::new();
        let listeners = complete(kind, address, found, config, &mut made)?;
        kept.extend(made);
        for (index, listener) in listeners.into_iter().enumerate() {
            tune(&listener, config)
                .map_err(|error| explain_bind(key(kind), listener.address(), &error))?;
            let of_reactor = &mut each[index % reactors];
            match kind {
                Kind::Tcp => of_reactor.tcp.push(listener),
                Kind::Tls => of_reactor.tls.push(listener),
            }
        }
    }
    for (name, why) in inherited.leave() {
        tracing::warn!(name, why, "a descriptor that was passed is of no use and is closed");
        if !name.contains([':', '\n']) {
            notifier.forget(&name);
        }
    }
    for (name, listener) in &kept {
        notifier.keep(name, listener);
    }
    Ok(each)
}

fn key(kind: Kind) -> &'static str {
    match kind {
        Kind::Tcp => "listen.tcp",
        Kind::Tls => "listen.tls",
    }
}

/// At least one listener for each reactor. Those that are made are put into `made`, with the names to keep them by.
fn complete(
    kind: Kind,
    mut address: SocketAddr,
    found: Vec<(String, Listener)>,
    config: &Config,
    made: &mut Vec<(String, Listener)>,
) -> Result<Vec<Listener>, Failure> {
    let fail = |address, error| explain_bind(key(kind), address, &error);
    let (mut names, mut listeners): (Vec<String>, Vec<Listener>) = found.into_iter().unzip();
    let inherited = listeners.len();
    while listeners.len() < config.reactors() {
        address = listeners.first().map_or(address, Listener::address);
        let listener = match Listener::bind(address, u32::from(config.listen.backlog)) {
            Ok(listener) => listener,
            // One that a socket unit made without ReusePort=, that another user owns, or whose port is privileged, has no
            // second one beside it: reactors take from its queue in turns.
            Err(error)
                if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied)
                    && inherited > 0 =>
            {
                let shared = &listeners[listeners.len() % inherited];
                listeners.push(shared.try_clone().map_err(|error| fail(address, error))?);
                continue;
            }
            Err(error) => return Err(fail(address, error)),
        };
        let name = (0..).map(|number| kind.numbered(number)).find(|name| !names.contains(name));
        let name = name.expect("there are more numbers than listeners");
        names.push(name.clone());
        made.push((name, listener.try_clone().map_err(|error| fail(address, error))?));
        listeners.push(listener);
    }
    Ok(listeners)
}

/// What the configuration says of listeners, which may have changed since an inherited one was made.
fn tune(listener: &Listener, config: &Config) -> std::io::Result<()> {
    listener.listen(u32::from(config.listen.backlog))?;
    // A failure leaves the kernel's own bound in force.
    let limits = [
        config.reactor.send_buffer.map(|bytes| listener.limit_send_buffer(bytes)),
        config.reactor.unsent_max.map(|bytes| listener.limit_unsent(bytes)),
    ];
    for error in limits.into_iter().flatten().filter_map(Result::err) {
        tracing::warn!(%error, "failed to limit send buffers");
    }
    Ok(())
}
