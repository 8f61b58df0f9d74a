//! The server's HTTP interface: which route leads where, and what every request passes on its way.
//!
//! Handlers translate between the wire and the rooms behind it; nothing here decodes profiles, keeps or merges them.

mod access;
mod admit;
mod body;
mod bounds;
mod class;
mod cors;
mod error;
mod flame;
mod flame_json;
mod guard;
mod host;
mod ingest;
mod intake;
mod legacy;
mod memory;
mod mount;
mod not_object;
mod not_text;
mod otlp;
mod over_time;
mod push;
mod querier;
mod refusals;
mod rest;
mod side;
mod stack_selector;
mod status;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::post_service;
use axum::{Router, middleware};
use connectrpc::{CompressionRegistry, ConnectRpcBody, ConnectRpcService, DeadlinePolicy};
use spanflame_wire::capabilities::v1::FeatureFlagsServiceExt;
use spanflame_wire::opentelemetry::proto::collector::profiles::v1development::ProfilesServiceExt;
use spanflame_wire::opentelemetry::proto::collector::trace::v1::TraceServiceExt;
use spanflame_wire::push::v1::PusherServiceExt;
use spanflame_wire::querier::v1::QuerierServiceExt;
use spanflame_wire::settings::v1::SettingsServiceExt;
use spanflame_wire::version::v1::VersionExt;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use self::access::Access;
use self::error::ApiError;
use self::workers::Workers;
use crate::config::{Config, MAX_MESSAGE_BYTES, TenantLimits};
use crate::ingest::Limits;
use crate::model::TenantId;
use crate::query::Engine;
use crate::reload::Watched;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::tokens::Tokens;
use crate::traces::TraceStore;
use crate::ui;
use crate::user_settings::UserSettings;

/// What handlers share.
pub(crate) struct App {
    config: Config,
    limits: Arc<Watched<TenantLimits>>,
    store: Arc<Store>,
    traces: Arc<TraceStore>,
    user_settings: UserSettings,
    metrics: Metrics,
    door: access::Door,
    hosts: host::Hosts,
    admission: admit::Admission,
    /// Those who answer queries, who decode what is pushed, and who count: no kind holds up another.
    queries: Workers,
    decoders: Workers,
    status: Workers,
    /// The memory for bodies of pushes.
    bodies: Arc<Semaphore>,
}

impl App {
    /// The handlers' shared state over open stores, for a server that listens on these addresses and lets those in who
    /// bring a token of the configuration or of this file.
    pub(crate) fn new(
        config: Config,
        store: Arc<Store>,
        traces: Arc<TraceStore>,
        addresses: &[SocketAddr],
        tokens: Option<Arc<Watched<Tokens>>>,
        limits: Arc<Watched<TenantLimits>>,
    ) -> Self {
        let door = access::Door::new(&config, tokens);
        Self {
            metrics: Metrics::new(Arc::clone(&store)).with_traces(Arc::clone(&traces)),
            // A page of another name brings no token, so that only an open door needs this lock.
            hosts: host::Hosts::new(
                addresses.iter().all(|address| address.ip().is_loopback()) && !door.is_locked(),
                config.allowed_hosts.clone(),
            ),
            door,
            admission: admit::Admission::new(&config),
            store,
            traces,
            user_settings: UserSettings::new(&config.data_dir),
            queries: Workers::new(),
            decoders: Workers::new(),
            status: Workers::new(),
            bodies: memory::pool(config.max_inflight_bytes),
            limits,
            config,
        }
    }

    /// What this tenant may send and ask for.
    fn limits(&self, tenant: &TenantId) -> Arc<Limits> {
        self.limits.get().of(tenant)
    }

    /// Where in the configuration file a tenant's limits are raised, as ends a sentence; nothing where it has no place of its
    /// own.
    fn place(&self, tenant: Option<&TenantId>) -> String {
        let tenant = tenant.filter(|_| self.config.multi_tenant);
        tenant.map_or_else(String::new, |tenant| format!(", in [tenants.{tenant}]"))
    }

    /// Ends the stores' work.
    pub(crate) fn close(&self) {
        self.store.shutdown();
        self.traces.shutdown();
    }

    /// Answers questions about what a request may read.
    fn engine(&self, access: &Access) -> Engine {
        Engine::new(Arc::clone(&self.store), access.readable())
    }

    /// Computes what answers a query, on a thread that may block: deadlines hold and other requests go on.
    async fn compute<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let app = Arc::clone(self);
        self.queries.run(bounds::carry(move || work(&app))).await
    }
}

/// How busy the server is with the connections that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Requests are answered.
    Bearable,
    /// Nothing is answered but probes.
    TooMuch,
}

/// All routes, under this load.
pub(crate) fn router(app: Arc<App>, load: Load) -> Router {
    let Rpc { service, methods } = rpc_service(&app);
    let mut router = Router::new()
        .merge(ui::router())
        .merge(legacy::router())
        .merge(rest::router(&app))
        .merge(status::router())
        .layer(CompressionLayer::new().gzip(true))
        .merge(ingest::router(&app))
        .merge(otlp::router(&app));
    let rpc = ServiceExt::<Request>::map_response(service, sized);
    for method in methods {
        // Nothing else reads a body, so that nothing else takes memory for one.
        let bounded = middleware::from_fn_with_state(Arc::clone(&app), guard::bound_body);
        router = router.route(&format!("/{method}"), post_service(rpc.clone()).route_layer(bounded));
    }
    let base_path = app.config.base_path.clone();
    let router = router
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), admit::admit))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), access::identify))
        .layer(option_layer(cors::layer(&app.config.cors_origins)))
        .layer(option_layer(
            (load == Load::TooMuch)
                .then(|| middleware::from_fn_with_state(Arc::clone(&app), admit::probes_alone)),
        ));
    let router = outer(router, &app);
    if base_path.is_empty() {
        router
    } else {
        mount::below(base_path, router, outer(Router::new().fallback(unknown), &app))
    }
}

/// What every answer passes, whatever it is to: its form, its name and its count.
fn outer(router: Router<Arc<App>>, app: &Arc<App>) -> Router {
    router
        .layer(middleware::from_fn_with_state(Arc::clone(app), host::check))
        .layer(middleware::from_fn_with_state(Arc::clone(app), guard::bound_head))
        .layer(CatchPanicLayer::custom(guard::answer_panic))
        .layer(middleware::from_fn(guard::explain_errors))
        .layer(middleware::from_fn_with_state(Arc::clone(app), guard::observe))
        .with_state(Arc::clone(app))
}

struct Rpc {
    service: ConnectRpcService,
    methods: Vec<String>,
}

fn rpc_service(app: &Arc<App>) -> Rpc {
    let router = connectrpc::Router::new();
    let router = PusherServiceExt::register(Arc::new(push::Pusher(Arc::clone(app))), router);
    let router = QuerierServiceExt::register(Arc::new(querier::Querier(Arc::clone(app))), router);
    let router = SettingsServiceExt::register(Arc::new(side::Settings(Arc::clone(app))), router);
    let router = FeatureFlagsServiceExt::register(Arc::new(side::FeatureFlags), router);
    let router = VersionExt::register(Arc::new(side::Versions), router);
    let router = ProfilesServiceExt::register(Arc::new(otlp::Profiles(Arc::clone(app))), router);
    let router = TraceServiceExt::register(Arc::new(otlp::Traces(Arc::clone(app))), router);
    let methods = router.methods().map(str::to_owned).collect();
    let longest = Duration::from_millis(app.config.ingest_timeout_ms.max(app.config.query_timeout_ms));
    // Ours comes first: it names the setting.
    let longest = longest.saturating_add(Duration::from_secs(5));
    // Bodies are bounded before they come here; this must not be tighter, since its refusal names no limit. They are
    // decompressed by then, and in front of a message there is its length.
    let limits = connectrpc::Limits::default()
        .with_max_request_body_size(2 * MAX_MESSAGE_BYTES)
        .with_max_message_size(MAX_MESSAGE_BYTES);
    // A dictionary is many small parts by nature; a tenant's limit is seen to later.
    let decoded = app.config.tenants.values().map(|limits| limits.max_decoded_bytes);
    let exports =
        limits.with_element_memory_limit(decoded.fold(app.config.limits.max_decoded_bytes, usize::max));
    let router = router.with_route_limits(otlp::RPC, exports);
    let router = router.with_route_limits(otlp::TRACES_RPC, exports);
    let service = ConnectRpcService::new(router)
        .with_limits(limits)
        .with_interceptor(not_object::NotObject)
        .with_interceptor(not_text::NotText(Arc::clone(app)))
        .with_compression(CompressionRegistry::new().register(guard::Gzip::new(Arc::clone(app))))
        // How long a request may take at most depends on its class, which this does not know.
        .with_deadline_policy(DeadlinePolicy::new().with_max(longest).with_default_timeout(longest));
    Rpc { service, methods }
}

/// Keeps a unary answer's length, which the sum type over all kinds of answers does not tell.
fn sized(response: http::Response<ConnectRpcBody>) -> Response {
    response.map(|body| match body {
        ConnectRpcBody::Full(whole) => Body::new(whole),
        other => Body::new(other),
    })
}

/// Answers paths that no route takes: 501 for what looks like an RPC, so that clients fall back, else 404.
async fn unknown(request: Request) -> Response {
    let path = request.uri().path().to_owned();
    body::skim(request.into_body()).await;
    let rpc =
        path.strip_prefix('/').and_then(|path| path.split_once('/')).is_some_and(|(service, method)| {
            service.contains('.') && !method.is_empty() && !method.contains('/')
        });
    let error = if rpc {
        ApiError::unimplemented(format!("this server has no RPC {path}"))
    } else {
        ApiError::not_found(format!("there is nothing at {path}"))
    };
    error.into_response()
}

#[cfg(test)]
mod tests;
