//! Listens, accepts and stops: the server's life from an address to the last answered request. Knows no route.

mod connections;
mod opening;
mod stall;
mod tls;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, lookup_host};

use self::connections::{Connections, Routers};
use crate::api::{self, App, Load};
use crate::config::{Config, TenantLimits};
use crate::error::ServeError;
use crate::model::TenantId;
use crate::reload::{Poll, Watched, Watcher};
use crate::store::{Compaction, Keep, Retention, Shared, Shares, Store, StoreOptions};
use crate::telemetry;
use crate::tokens::Tokens;
use crate::traces::{TraceOptions, TraceStore};

/// How long to wait after the system could not hand over a connection, as when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that listens but does not answer yet.
pub struct Server {
    /// The first is the one that is told; the others are for OpenTelemetry's senders.
    listeners: Vec<TcpListener>,
    address: SocketAddr,
    base_path: String,
    drain: Duration,
    max_connections: usize,
    app: Arc<App>,
    files: Files,
}

/// What is read from files again when they change.
struct Files {
    tokens: Option<Arc<Watched<Tokens>>>,
    tls: Option<Arc<Watched<tls::ServerConfig>>>,
    /// What tenants may, of the configuration file if there is one.
    limits: Arc<Watched<TenantLimits>>,
}

impl Files {
    fn open(config: &Config) -> Result<Self, ServeError> {
        let named = |name| move |message| ServeError::Files { name, message };
        let tokens = config.tokens_file.clone().map(|path| {
            let multi_tenant = config.multi_tenant;
            Watched::open("tokens", vec![path], move |files| {
                let text = std::str::from_utf8(&files[0]).map_err(|error| error.to_string())?;
                Tokens::parse(text, multi_tenant).map_err(|problems| problems.join("; "))
            })
        });
        let tls = config.tls_cert_file.clone().zip(config.tls_key_file.clone()).map(|(certificate, key)| {
            let paths = [certificate, key].into_iter().chain(config.tls_client_ca_file.clone()).collect();
            Watched::open("certificates", paths, tls::load)
        });
        let limits = match config.source.clone() {
            Some(source) => {
                let path = source.path().to_owned();
                Watched::open("limits", vec![path], move |files| source.limits(&files[0]))
            }
            None => {
                let limits = config.tenant_limits();
                Watched::open("limits", Vec::new(), move |_| Ok(limits.clone()))
            }
        };
        Ok(Self {
            limits: Arc::new(limits.map_err(named("config"))?),
            tokens: tokens.transpose().map_err(named("tokens_file"))?.map(Arc::new),
            tls: tls.transpose().map_err(named("tls_cert_file, tls_key_file"))?.map(Arc::new),
        })
    }

    fn watch(&self) -> Watcher {
        let tokens = self.tokens.clone().map(|watched| watched as Arc<dyn Poll>);
        let tls = self.tls.clone().map(|watched| watched as Arc<dyn Poll>);
        let limits = Arc::clone(&self.limits) as Arc<dyn Poll>;
        Watcher::spawn(tokens.into_iter().chain(tls).chain([limits]).collect())
    }
}

/// How the store of a server with these settings is set up, but for how long it keeps profiles: for ever.
pub fn store_options(config: &Config) -> StoreOptions {
    let Shares { head_bytes, compaction } = Shares::of(config.max_head_bytes);
    StoreOptions {
        head_bytes,
        flush_bytes: config.flush_bytes,
        flush_after_ms: i64::try_from(config.flush_after_ms).unwrap_or(i64::MAX),
        cache_bytes: config.max_cache_bytes as u64,
        compaction: Compaction {
            cpu_percent: u32::try_from(config.compaction_cpu_percent).unwrap_or(100),
            ..compaction
        },
        shared: config.bucket().map(|bucket| Shared {
            bucket,
            acknowledge: config.acknowledge,
            publish_ms: config.object_publish_ms,
            refresh_ms: config.object_refresh_ms,
            removal_ms: config.object_removal_ms,
        }),
        ..StoreOptions::new(config.data_dir.clone())
    }
}

impl Server {
    /// Opens the stores and takes the addresses.
    ///
    /// # Errors
    /// When an address can be reached from beyond this machine without permission, when one is taken, when files with
    /// tokens or certificates cannot be used, or when a store cannot be opened.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let addresses = resolve(&config).await?;
        let files = Files::open(&config)?;
        let is_loopback = addresses.iter().all(|address| address.ip().is_loopback());
        if config.authenticates() && files.tls.is_none() && !is_loopback {
            tracing::warn!(
                "tokens cross the network in clear text; set tls_cert_file, or have a proxy encrypt"
            );
        }
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            let bound = TcpListener::bind(address).await;
            listeners.push(bound.map_err(|source| ServeError::Bind { address, source })?);
        }
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
        for address in &addresses[1..] {
            tracing::info!(%address, "listening for OpenTelemetry's senders too");
        }
        let path = config.data_dir.clone();
        let retention = retention(&config, Arc::clone(&files.limits));
        let options = StoreOptions { retention, ..store_options(&config) };
        let store = tokio::task::spawn_blocking(move || Store::open(options))
            .await
            .expect("opening the store does not panic")
            .map_err(|source| ServeError::Store { path, source })?;
        let options = trace_options(&config, Arc::clone(&files.limits));
        let traces = tokio::task::spawn_blocking(move || TraceStore::open(options))
            .await
            .expect("opening the store of traces does not panic")?;
        Ok(Self {
            listeners,
            address: addresses[0],
            base_path: config.base_path.clone(),
            drain: Duration::from_millis(config.shutdown_timeout_ms),
            max_connections: config.max_connections,
            app: Arc::new(App::new(
                config,
                Arc::new(store),
                Arc::new(traces),
                &addresses,
                files.tokens.clone(),
                Arc::clone(&files.limits),
            )),
            files,
        })
    }

    /// Where clients reach it, the port chosen by the system if the configuration said 0.
    pub fn url(&self) -> String {
        let scheme = if self.files.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address, self.base_path)
    }

    /// Answers requests until `stop` resolves; then lets those in flight end, for `shutdown_timeout_ms` at most, and
    /// closes the store.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let router = |load| api::router(Arc::clone(&self.app), load);
        let routers = Routers { full: router(Load::Bearable), spare: router(Load::TooMuch) };
        let connections = Connections::new(self.max_connections, self.files.tls.clone());
        let _watcher = self.files.watch();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = connections.accept(&self.listeners) => match accepted {
                    Ok((stream, permit)) => connections.serve(stream, permit, &routers),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listeners);
        tracing::info!("stopping");
        if tokio::time::timeout(self.drain, connections.shutdown()).await.is_err() {
            tracing::warn!(after = ?self.drain, "requests still in flight are cut off");
        }
        let app = Arc::clone(&self.app);
        if tokio::task::spawn_blocking(move || app.close()).await.is_err() {
            tracing::error!("closing the store panicked");
        }
        tracing::info!("stopped");
    }
}

/// How long profiles stay, as the limits in force say.
fn retention(config: &Config, limits: Arc<Watched<TenantLimits>>) -> Retention {
    let bytes = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
    let of_tenant = move |tenant: &TenantId| {
        let limits = limits.get().of(tenant);
        Keep { age_ms: limits.retention_ms, bytes: bytes(limits.retention_bytes) }
    };
    Retention { of_tenant: Arc::new(of_tenant), total_bytes: bytes(config.retention_total_bytes) }
}

/// How the store of traces of a server with these settings is set up.
fn trace_options(config: &Config, limits: Arc<Watched<TenantLimits>>) -> TraceOptions {
    let bytes = config.traces_retention_bytes.and_then(|bytes| u64::try_from(bytes).ok());
    let age_ms = move |tenant: &TenantId| limits.get().of(tenant).retention_ms;
    TraceOptions { age_ms: Arc::new(age_ms), ..TraceOptions::new(config.data_dir.join("traces"), bytes) }
}

/// Finds what would keep a server from starting, short of taking its address and opening its store.
///
/// # Errors
/// The first that is found.
pub async fn preflight(config: &Config) -> Result<(), ServeError> {
    telemetry::log_filter(config)?;
    resolve(config).await?;
    Files::open(config).map(drop)
}

/// The addresses to listen on, the main one first, if the configuration allows them.
async fn resolve(config: &Config) -> Result<Vec<SocketAddr>, ServeError> {
    let mut addresses = Vec::new();
    for (name, value) in [
        ("listen", &config.listen),
        ("otlp_http_listen", &config.otlp_http_listen),
        ("otlp_grpc_listen", &config.otlp_grpc_listen),
    ] {
        if value.is_empty() && name != "listen" {
            continue;
        }
        let unknown = |source| ServeError::Address { name, value: value.clone(), source };
        let found: Vec<SocketAddr> = lookup_host(value).await.map_err(unknown)?.collect();
        let address = *found.first().ok_or_else(|| {
            unknown(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"))
        })?;
        if !address.ip().is_loopback() && !config.allow_unauthenticated && !config.authenticates() {
            return Err(ServeError::Exposed { address });
        }
        addresses.push(address);
    }
    Ok(addresses)
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
