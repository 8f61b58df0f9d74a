//! Connections: how many there are, how each begins, and how all of them end. What they carry is not known here.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::util::ServiceExt;

use super::opening::Opening;
use super::stall::Stall;
use super::tls;
use crate::reload::Watched;

/// How long a client may take to send its first bytes, and then a request's head, an idle connection's wait included.
const HEADER_READ: Duration = Duration::from_secs(60);
/// How long a client may take nothing of an answer that it is sent.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections beyond those that there may be, on which nothing is answered but probes; further ones wait in the system's
/// queue.
const SPARE_CONNECTIONS: usize = 64;
/// How long such a connection may last: others wait for its place.
const SPARE_TIME: Duration = Duration::from_secs(10);
/// How much of a request's head is read so that whoever sent too much gets an answer that says so: more than is taken, which
/// the interface decides.
const MAX_HEADERS: usize = 512;
const MAX_HEAD_BYTES: usize = 512 << 10;

/// The right to have one connection.
pub(super) struct Permit {
    /// Whether it is one beyond those that there may be.
    is_spare: bool,
    /// Its place, given back when it ends.
    _place: OwnedSemaphorePermit,
}

/// What answers requests.
pub(super) struct Routers {
    /// On the connections that there may be.
    pub(super) full: Router,
    /// On those beyond.
    pub(super) spare: Router,
}

/// All connections of a server.
pub(super) struct Connections {
    builder: auto::Builder<TokioExecutor>,
    graceful: GracefulShutdown,
    permits: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    tls: Option<Arc<Watched<tls::ServerConfig>>>,
    /// Closed when the server stops.
    handshakes: watch::Sender<()>,
}

impl Connections {
    /// So many, encrypted if there is a TLS configuration; each takes the one that is current when it begins.
    pub(super) fn new(most: usize, tls: Option<Arc<Watched<tls::ServerConfig>>>) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HEADER_READ)
            .max_concurrent_streams(256)
            .max_header_list_size(MAX_HEAD_BYTES as u32);
        Self {
            builder,
            graceful: GracefulShutdown::new(),
            permits: Arc::new(Semaphore::new(most)),
            spare: Arc::new(Semaphore::new(SPARE_CONNECTIONS)),
            tls,
            handshakes: watch::Sender::new(()),
        }
    }

    /// Waits for a client of any of these, and for room for it.
    pub(super) async fn accept(&self, listeners: &[TcpListener]) -> std::io::Result<(TcpStream, Permit)> {
        let never = "the semaphore is never closed";
        let permit = tokio::select! {
            biased;
            full = Arc::clone(&self.permits).acquire_owned() => {
                Permit { is_spare: false, _place: full.expect(never) }
            }
            spare = Arc::clone(&self.spare).acquire_owned() => {
                Permit { is_spare: true, _place: spare.expect(never) }
            }
        };
        let (stream, _) = poll_fn(|context| {
            let mut accepted = listeners.iter().map(|listener| listener.poll_accept(context));
            accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await?;
        // Others may have ended since.
        let full = permit.is_spare.then(|| Arc::clone(&self.permits).try_acquire_owned().ok()).flatten();
        Ok((stream, full.map_or(permit, |full| Permit { is_spare: false, _place: full })))
    }

    /// Serves a client in a task of its own, handshake included: a slow one holds up nobody else.
    pub(super) fn serve(&self, stream: TcpStream, permit: Permit, routers: &Routers) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot disable nagle's algorithm");
        }
        let (builder, watcher) = (self.builder.clone(), self.graceful.watcher());
        let acceptor = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.get().shared()));
        let router = if permit.is_spare { routers.spare.clone() } else { routers.full.clone() };
        let mut stopping = self.handshakes.subscribe();
        let attend = async move {
            let Some(acceptor) = acceptor else { return converse(builder, watcher, stream, router).await };
            let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
            tokio::select! {
                done = handshake => match done {
                    Ok(Ok(stream)) => converse(builder, watcher, stream, router).await,
                    Ok(Err(error)) => tracing::debug!(%error, "tls handshake failed"),
                    Err(_) => tracing::debug!("tls handshake took too long"),
                },
                // It has asked nothing yet, so that stopping need not wait for it.
                _ = stopping.changed() => {}
            }
        };
        tokio::spawn(async move {
            if permit.is_spare {
                let _ = tokio::time::timeout(SPARE_TIME, attend).await;
            } else {
                attend.await;
            }
            drop(permit);
        });
    }

    /// Ends idle connections at once and the others after their requests under way.
    pub(super) async fn shutdown(self) {
        drop(self.handshakes);
        self.graceful.shutdown().await;
    }
}

async fn converse<S>(builder: auto::Builder<TokioExecutor>, watcher: Watcher, stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(|request: http::Request<_>| request.map(Body::new));
    let stream = TokioIo::new(Stall::new(Opening::new(stream, HEADER_READ), WRITE_STALL));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(service)).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection ended");
    }
}
