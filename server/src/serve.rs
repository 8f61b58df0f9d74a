//! Listens, accepts and stops: the server's life from an address to the last answered request. Knows no route.

mod opening;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tower::util::ServiceExt;

use self::opening::Opening;
use crate::api::{self, App};
use crate::config::Config;
use crate::error::ServeError;
use crate::store::{Store, StoreOptions};

/// How long requests in flight may take to end once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a client may take to send its first bytes, and then a request's head, an idle connection's wait included.
const HEADER_READ: Duration = Duration::from_secs(60);
/// Connections beyond this wait in the system's queue.
const MAX_CONNECTIONS: usize = 4096;
/// How long to wait after the system could not hand over a connection, as when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that listens but does not answer yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
}

impl Server {
    /// Opens the store and takes the address.
    ///
    /// # Errors
    /// When the address can be reached from beyond this machine without permission, when it is taken, or when the
    /// store cannot be opened.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let address = resolve(&config).await?;
        let listener =
            TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })?;
        let address = listener.local_addr()?;
        let path = config.data_dir.clone();
        let options = StoreOptions { head_bytes: config.max_head_bytes, ..StoreOptions::new(path.clone()) };
        let store = tokio::task::spawn_blocking(move || Store::open(options))
            .await
            .expect("opening the store does not panic")
            .map_err(|source| ServeError::Store { path, source })?;
        let app = Arc::new(App::new(config, Arc::new(store), address));
        Ok(Self { listener, address, app })
    }

    /// The address that clients reach, its port chosen by the system if the configuration said 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `stop` resolves; then lets those in flight end, for ten seconds at most, and closes the
    /// store.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let router = api::router(Arc::clone(&self.app));
        let connections = Connections::default();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = connections.accept(&self.listener) => match accepted {
                    Ok((stream, permit)) => connections.serve(stream, permit, router.clone()),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        tracing::info!("stopping");
        if tokio::time::timeout(DRAIN, connections.graceful.shutdown()).await.is_err() {
            tracing::warn!(after = ?DRAIN, "requests still in flight are cut off");
        }
        let app = Arc::clone(&self.app);
        if tokio::task::spawn_blocking(move || app.close()).await.is_err() {
            tracing::error!("closing the store panicked");
        }
        tracing::info!("stopped");
    }
}

struct Connections {
    builder: auto::Builder<TokioExecutor>,
    graceful: GracefulShutdown,
    permits: Arc<Semaphore>,
}

type Permit = tokio::sync::OwnedSemaphorePermit;

impl Default for Connections {
    fn default() -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEADER_READ).max_concurrent_streams(256);
        Self {
            builder,
            graceful: GracefulShutdown::new(),
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }
}

impl Connections {
    async fn accept(&self, listener: &TcpListener) -> std::io::Result<(TcpStream, Permit)> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let (stream, _) = listener.accept().await?;
        Ok((stream, permit))
    }

    fn serve(&self, stream: TcpStream, permit: Permit, router: Router) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot disable nagle's algorithm");
        }
        let service = router.map_request(|request: http::Request<_>| request.map(Body::new));
        let connection = self
            .builder
            .serve_connection(
                TokioIo::new(Opening::new(stream, HEADER_READ)),
                TowerToHyperService::new(service),
            )
            .into_owned();
        let connection = self.graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
            drop(permit);
        });
    }
}

/// The address to listen on, if the configuration allows it.
async fn resolve(config: &Config) -> Result<SocketAddr, ServeError> {
    let unknown = |source| ServeError::Address { value: config.listen.clone(), source };
    let addresses: Vec<SocketAddr> = lookup_host(&config.listen).await.map_err(unknown)?.collect();
    let address = *addresses.first().ok_or_else(|| {
        unknown(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"))
    })?;
    if !address.ip().is_loopback() && !config.allow_unauthenticated {
        return Err(ServeError::Exposed { address });
    }
    Ok(address)
}

/// Resolves when the process is asked to end: SIGINT, and on Unix SIGTERM.
///
/// # Errors
/// When the system does not let the signals be watched.
pub fn termination() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(async move {
            tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
        })
    }
    #[cfg(not(unix))]
    {
        Ok(async {
            let _ = tokio::signal::ctrl_c().await;
        })
    }
}
