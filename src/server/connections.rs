//! Connections: how many there may be, and how long one may do nothing. A client that connects and says nothing would
//! otherwise be there for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::{Stream, stream};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::codegen::http;
use tonic::transport::server::{Connected, TlsConnectInfo};

use super::request::duration;
use crate::clock::{self, Sleep, stopwatch};
use crate::config::ServerSettings;

/// What a client sends first in HTTP/2; the greeting of TLS is longer.
const PREFACE: usize = 24;
/// Connections that are told why they are refused, at once.
const REFUSED_AT_ONCE: usize = 64;
const REFUSAL: Duration = Duration::from_secs(1);
/// No descriptor is left, for example: trying again at once would only burn the processor.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a connection may do nothing.
#[derive(Debug, Clone, Copy)]
struct Patience {
    handshake: Duration,
    idle: Duration,
}

/// The calls of one connection.
#[derive(Debug)]
pub(super) struct Calls {
    open: AtomicUsize,
    last: Mutex<Instant>,
}

/// Counts as an open call until dropped.
#[derive(Debug)]
pub(super) struct Call(Arc<Calls>);

impl Calls {
    /// The call that a request is; `None` where it came by no connection of ours.
    pub fn begin<B>(request: &http::Request<B>) -> Option<Call> {
        let known = request.extensions();
        let plain = known.get::<Arc<Calls>>();
        let calls = Arc::clone(plain.or_else(|| known.get::<TlsConnectInfo<Arc<Calls>>>().map(TlsConnectInfo::get_ref))?);
        calls.open.fetch_add(1, Ordering::SeqCst);
        Some(Call(calls))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        *self.0.last.lock() = stopwatch();
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection, until it ends or does nothing for too long.
pub(super) struct Connection {
    io: TcpStream,
    _place: OwnedSemaphorePermit,
    calls: Arc<Calls>,
    patience: Patience,
    since: Instant,
    heard: usize,
    check: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(io: TcpStream, place: OwnedSemaphorePermit, patience: Patience) -> Self {
        let since = stopwatch();
        let calls = Arc::new(Calls { open: AtomicUsize::new(0), last: Mutex::new(since) });
        let check = Box::pin(clock::sleep(patience.handshake));
        Connection { io, _place: place, calls, patience, since, heard: 0, check }
    }

    /// How long it may still be silent; `None`: it was for too long.
    fn left(&self) -> Option<Duration> {
        if self.heard < PREFACE {
            return self.patience.handshake.checked_sub(self.since.elapsed()).filter(|left| !left.is_zero());
        }
        if self.calls.open.load(Ordering::SeqCst) > 0 {
            return Some(self.patience.idle);
        }
        let silent = self.calls.last.lock().elapsed();
        self.patience.idle.checked_sub(silent).filter(|left| !left.is_zero())
    }

    fn too_long(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.check.as_mut().poll(cx));
            let Some(left) = self.left() else { return Poll::Ready(()) };
            self.check = Box::pin(clock::sleep(left));
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(read) => {
                this.heard = this.heard.saturating_add(buf.filled().len() - before);
                Poll::Ready(read)
            }
            Poll::Pending => {
                ready!(this.too_long(cx));
                tracing::debug!(heard = this.heard, "a connection that does nothing is closed");
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the connection did nothing for too long")))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Calls>;

    fn connect_info(&self) -> Arc<Calls> {
        Arc::clone(&self.calls)
    }
}

/// The connections that come to `listener`, as many as there may be at once.
pub(super) fn accept(listener: TcpListener, settings: &ServerSettings) -> impl Stream<Item = io::Result<Connection>> + use<> {
    let patience = Patience { handshake: duration(settings.handshake_timeout), idle: duration(settings.idle_timeout) };
    let most = settings.max_connections.clamp(1, Semaphore::MAX_PERMITS);
    let (places, refusals) = (Arc::new(Semaphore::new(most)), Arc::new(Semaphore::new(REFUSED_AT_ONCE)));
    let plain = settings.tls_cert.is_none();
    stream::unfold((listener, places, refusals), move |(listener, places, refusals)| async move {
        loop {
            let io = match listener.accept().await {
                Ok((io, _)) => io,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    clock::sleep(PAUSE).await;
                    continue;
                }
            };
            let _ = io.set_nodelay(true);
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                return Some((Ok(Connection::new(io, place, patience)), (listener, places, refusals)));
            }
            tracing::warn!(connections = most, "refused a connection: there are server.max_connections already");
            if let (true, Ok(turn)) = (plain, Arc::clone(&refusals).try_acquire_owned()) {
                tokio::spawn(async move {
                    let _ = clock::timeout(REFUSAL, refuse(io, most)).await;
                    drop(turn);
                });
            }
        }
    })
}

/// Says why, in HTTP/2: settings, then GOAWAY with ENHANCE_YOUR_CALM (11), which clients show to their users.
async fn refuse(mut io: TcpStream, most: usize) -> io::Result<()> {
    let why = format!("{most} connections are open: close some, or raise server.max_connections");
    let length = u32::try_from(8 + why.len()).unwrap_or(8).to_be_bytes();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let goaway = [&length[1..], &[7, 0, 0, 0, 0, 0], &[0; 4], &11_u32.to_be_bytes(), why.as_bytes()].concat();
    io.write_all(&settings).await?;
    io.write_all(&goaway).await?;
    io.shutdown().await?;
    // what the client has sent is read, or its system would throw our words away
    let mut rest = [0; 1024];
    while io.read(&mut rest).await? > 0 {}
    Ok(())
}
