//! What may lie between a server and its bucket: a network that is away, loses answers, or an object store that does not
//! know conditional writes. Everything else passes unchanged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::Response;
use spanflame_tests::PATIENCE;
use spanflame_tests::http::{BODY_LIMIT, Server};
use ureq::Agent;

/// What goes wrong.
#[derive(Default)]
pub(crate) struct Faults {
    /// Nothing gets through.
    pub(crate) away: AtomicBool,
    /// Objects are overwritten, whatever was asked for.
    pub(crate) unconditional: AtomicBool,
    /// Of so many changes one is made and answered with an error; 0 for none.
    pub(crate) lost_answers: AtomicU64,
    /// Changes so far.
    changes: AtomicU64,
}

pub(crate) struct Proxy {
    pub(crate) faults: Arc<Faults>,
    server: Server,
}

type Shared = (String, Agent, Arc<Faults>);

impl Proxy {
    pub(crate) fn before(bucket: &str) -> Self {
        let faults = Arc::new(Faults::default());
        let agent: Agent =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
        let routes = Router::new().fallback(pass_on).layer(DefaultBodyLimit::max(BODY_LIMIT)).with_state((
            bucket.to_owned(),
            agent,
            Arc::clone(&faults),
        ));
        Self { faults, server: Server::start(routes) }
    }

    pub(crate) fn address(&self) -> &str {
        self.server.address()
    }
}

async fn pass_on(
    State((bucket, agent, faults)): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let failed = |status: StatusCode| {
        Response::builder().status(status).body(Body::empty()).expect("nothing is wrong with it")
    };
    if faults.away.load(Ordering::Relaxed) {
        return failed(StatusCode::SERVICE_UNAVAILABLE);
    }
    let changes = method == Method::PUT || method == Method::DELETE;
    let unconditional = faults.unconditional.load(Ordering::Relaxed);
    let passed = tokio::task::spawn_blocking(move || {
        let url = format!("{bucket}{}", uri.path_and_query().map_or("/", |path| path.as_str()));
        let mut request = ureq::http::Request::builder().method(method.clone()).uri(url);
        for (name, value) in &headers {
            let skipped = [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name)
                || unconditional && name == header::IF_NONE_MATCH;
            if !skipped {
                request = request.header(name, value);
            }
        }
        let answer = if method == Method::PUT || method == Method::POST {
            agent.run(request.body(body.to_vec()).expect("what came is a request"))
        } else {
            agent.run(request.body(()).expect("what came is a request"))
        };
        let mut answer = answer.ok()?;
        let bytes = answer.body_mut().with_config().limit(BODY_LIMIT as u64).read_to_vec().ok()?;
        Some((answer.status(), answer.headers().clone(), bytes, method == Method::HEAD))
    });
    let Ok(Some((status, headers, bytes, is_head))) = passed.await else {
        return failed(StatusCode::BAD_GATEWAY);
    };
    let lost = faults.lost_answers.load(Ordering::Relaxed);
    if changes && lost > 0 && faults.changes.fetch_add(1, Ordering::Relaxed).is_multiple_of(lost) {
        return failed(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let mut response = Response::builder().status(status);
    for (name, value) in &headers {
        let of_connection = [header::CONNECTION, header::TRANSFER_ENCODING].contains(name)
            || !is_head && name == header::CONTENT_LENGTH;
        if !of_connection {
            response = response.header(name, value);
        }
    }
    response.body(Body::from(bytes)).expect("what came is an answer")
}
