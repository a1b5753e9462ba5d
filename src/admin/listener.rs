//! A listener that holds few connections and lets none of them sit idle, so that the admin port cannot use up the
//! process's descriptors, and silent connections cannot keep a probe out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at once; for a further one the one that was silent longest is closed.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request to arrive, from the connection or from its first byte on.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// Time without a byte either way once a request was answered, after which a connection is closed.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Accepts every connection and keeps [`CONNECTIONS_MAX`] of them.
#[derive(Debug)]
pub(super) struct Bounded<L> {
    listener: L,
    permits: Arc<Semaphore>,
    /// Counts bytes moved by any connection: who moved some last has the highest number.
    progress: Arc<AtomicU64>,
    open: Vec<Open>,
}

/// What the listener knows of a connection.
#[derive(Debug)]
struct Open {
    heard: Arc<AtomicU64>,
    end: oneshot::Sender<()>,
}

impl<L> Bounded<L> {
    pub(super) fn new(listener: L) -> Self {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { listener, permits, progress: Arc::default(), open: Vec::new() }
    }

    /// Makes room for a connection.
    async fn permit(&mut self) -> OwnedSemaphorePermit {
        self.open.retain(|open| !open.end.is_closed());
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return permit;
        }
        let silent = self.open.iter().enumerate();
        let silent = silent.min_by_key(|(_, open)| open.heard.load(Ordering::Relaxed));
        if let Some((index, _)) = silent {
            // An error means that it has just ended by itself.
            let _ = self.open.swap_remove(index).end.send(());
        }
        let permits = Arc::clone(&self.permits);
        permits.acquire_owned().await.expect("the semaphore is never closed")
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Connection<L::Io>, L::Addr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let permit = self.permit().await;
        let (end, ended) = oneshot::channel();
        let heard = Arc::new(AtomicU64::new(self.progress.fetch_add(1, Ordering::Relaxed)));
        self.open.push(Open { heard: Arc::clone(&heard), end });
        let connection = Connection {
            stream,
            progress: Arc::clone(&self.progress),
            heard,
            ended,
            asking: true,
            deadline: Box::pin(sleep(REQUEST_MAX)),
            _permit: permit,
        };
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// A stream that fails once its time is over or it has to make room.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    progress: Arc<AtomicU64>,
    heard: Arc<AtomicU64>,
    ended: oneshot::Receiver<()>,
    /// A request is expected or under way: bytes of it put nothing off.
    asking: bool,
    deadline: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl<S> Connection<S> {
    /// The socket itself.
    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// Passes progress on; without any, looks whether the connection's time is over.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        asking: bool,
        progress: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.heard.store(self.progress.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            if !(self.asking && asking) {
                let time = if asking { REQUEST_MAX } else { IDLE_MAX };
                self.deadline.as_mut().reset(Instant::now() + time);
            }
            self.asking = asking;
            return progress;
        }
        if Pin::new(&mut self.ended).poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        self.deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.watch(cx, true, progress)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, false, progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
