//! The admin side of a node: health, readiness, metrics and signals, on a thread of their own.
//!
//! The thread `iris-control` runs a current-thread tokio. Nothing on the data path waits for it, and it learns of the
//! data path only through [`NodeState`]: a phase and the blocks of [`Registry`].

mod gate;
mod http;
mod listener;
mod logout;
mod page;
mod reload;
mod retire;
mod snapshot;
mod socket;
mod state;
mod status;
mod watch;

pub(crate) use socket::short;
pub use state::{NodeInfo, NodeState, Phase};

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::cli::complain;
use crate::cli::exit::{Exit, Failure};
use crate::config::{ListenConfig, Reload};
use crate::supervisor::watchdog;
use crate::tls::Reloader;
use reload::Reloads;

/// What makes a node stop.
#[derive(Debug)]
pub enum Event {
    /// SIGTERM or SIGINT: drain and end. A second one ends the process at once, without an event.
    Signal(&'static str),
    /// A thread cannot go on (I6): end now, with this failure.
    Fatal(Failure),
}

/// The control thread.
#[derive(Debug)]
pub struct Control {
    address: SocketAddr,
    events: (Sender<Event>, Receiver<Event>),
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    state: Arc<NodeState>,
    /// Takes the socket, once.
    socket: Option<oneshot::Sender<(UnixListener, u32)>>,
    /// Removed at the end.
    bound: Option<PathBuf>,
}

impl Control {
    /// Binds the admin address and starts the thread. From here on SIGTERM and SIGINT are events, and SIGHUP has the
    /// configuration and the files of TLS read anew.
    pub fn start(
        config: &ListenConfig,
        state: Arc<NodeState>,
        reload: Reload,
        tls: Option<Reloader>,
    ) -> Result<Self, Failure> {
        let listener = bind(config)?;
        let failed = |error: io::Error| {
            Failure::new(Exit::Internal, format!("failed to start the admin server: {error}"))
        };
        let address = listener.local_addr().map_err(failed)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        // Registered before the thread runs, so that no signal comes too early to be an event.
        let signals = {
            let _context = runtime.enter();
            Signals::register().map_err(failed)?
        };
        let events = crossbeam_channel::bounded(64);
        let signal_events = events.0.clone();
        let (stop, stopped) = oneshot::channel();
        let (reloads, asked) = Reloads::new();
        let (pages, opened) = watch::Pages::new();
        let (socket, of_socket) = oneshot::channel();
        let gate = gate::Gate { token: config.admin_token.clone(), owner: None };
        let shared = Arc::clone(&state);
        let main = async move {
            tokio::select! {
                () = http::serve(listener, Arc::clone(&state), (reloads.clone(), pages.clone()), gate) => {}
                () = http::serve_socket(of_socket, Arc::clone(&state), (reloads.clone(), pages)) => {}
                () = watch::run(Arc::clone(&state), opened) => {}
                () = signals.watch(signal_events, reloads) => {}
                () = reload::run(reload, tls, asked, Arc::clone(&state)) => {}
                () = watchdog::run(state.notifier().clone(), Arc::clone(&state)) => {}
                _ = stopped => {}
            }
        };
        let thread = std::thread::Builder::new()
            .name("iris-control".to_owned())
            .spawn(move || runtime.block_on(main))
            .map_err(failed)?;
        let (socket, state, bound) = (Some(socket), shared, None);
        Ok(Self { address, events, stop, thread, state, socket, bound })
    }

    /// Listens on a unix socket, too. Once; and only the process that owns the folder's lock may, because what is left of an
    /// earlier life is removed.
    pub fn open_socket(&mut self, path: &Path) -> Result<(), Failure> {
        let listening = socket::bind(path)?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        self.state.set_socket(path.clone());
        self.bound = Some(path);
        if let Some(socket) = self.socket.take() {
            // An error means that the thread has ended by itself.
            let _ = socket.send(listening);
        }
        Ok(())
    }

    /// Where the admin server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For threads that report what makes the node stop.
    pub fn sender(&self) -> Sender<Event> {
        self.events.0.clone()
    }

    /// The events; wait here.
    pub fn events(&self) -> &Receiver<Event> {
        &self.events.1
    }

    /// Ends the thread. Requests under way are cut.
    pub fn stop(self) {
        // An error means that it has ended by itself.
        let _ = self.stop.send(());
        let _ = self.thread.join();
        if let Some(path) = self.bound {
            // The next life would remove it.
            let _ = std::fs::remove_file(path);
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Needs the runtime's context.
    fn register() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn watch(mut self, events: Sender<Event>, reloads: Reloads) {
        let mut told = false;
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hangup.recv() => {
                    reloads.ask();
                    continue;
                }
            };
            if std::mem::replace(&mut told, true) {
                complain(&format!("{name} again: ending at once; the log is read at start"));
                std::process::exit(Exit::Interrupted as i32);
            }
            // Full means that other reasons to stop are waiting already.
            let _ = events.try_send(Event::Signal(name));
        }
    }
}

/// Binds the admin address, which must be loopback unless remote access was allowed.
fn bind(config: &ListenConfig) -> Result<TcpListener, Failure> {
    let address = config.admin;
    assert!(
        address.ip().is_loopback() || config.admin_allow_remote,
        "a checked configuration has a loopback admin address or allows others"
    );
    let bound = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map_err(|error| crate::preflight::explain_bind("listen.admin", address, &error))
}

#[cfg(test)]
mod tests;
