//! A tap between a service and its server: passes everything on, unchanged, and keeps the profiles that went by.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use prost::Message as _;

use crate::http::{BODY_LIMIT, Server, send};
use crate::pprof::{self, PushRequest, Sample, gunzip};

/// A profile that a service pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Whether the server took it.
    pub acknowledged: bool,
    /// What the series is labelled with.
    pub labels: BTreeMap<String, String>,
    /// The interval that it covers, in Unix nanoseconds.
    pub interval: Range<i64>,
    /// What it holds.
    pub samples: Vec<Sample>,
}

/// Listens for pushes, and passes them on until it is dropped.
pub struct Tap {
    profiles: Profiles,
    server: Server,
}

type Profiles = Arc<Mutex<Vec<Pushed>>>;

impl Tap {
    /// Starts to listen on loopback, before the server at that address.
    pub fn start(server: &str) -> Self {
        let profiles = Profiles::default();
        let routes = Router::new()
            .fallback(pass_on)
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state((server.to_owned(), Arc::clone(&profiles)));
        Self { profiles, server: Server::start(routes) }
    }

    /// What `PYROSCOPE_SERVER_ADDRESS` should be.
    pub fn address(&self) -> &str {
        self.server.address()
    }

    /// The profiles so far, acknowledged or not.
    pub fn profiles(&self) -> Vec<Pushed> {
        self.profiles.lock().clone()
    }
}

async fn pass_on(
    State((server, profiles)): State<(String, Profiles)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let url = format!("{server}{uri}");
    let pushed = (uri.path() == "/push.v1.PusherService/Push").then(|| read(&headers, &body));
    let answer = tokio::task::spawn_blocking(move || {
        let headers: Vec<_> = headers
            .iter()
            .filter(|(name, _)| !of_connection(name.as_str()))
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        send(method.as_str(), &url, &headers, body.to_vec())
    })
    .await
    .expect("sending does not panic");

    let acknowledged = answer.as_ref().is_ok_and(|answer| answer.status == 200);
    let of_push = pushed.into_iter().flatten().map(|profile| Pushed { acknowledged, ..profile });
    profiles.lock().extend(of_push);
    match answer {
        Ok(answer) => {
            let status = StatusCode::from_u16(answer.status).expect("it came as a status");
            let headers = answer.headers.iter().filter(|(name, _)| !of_connection(name));
            let headers: HeaderMap = headers
                .filter_map(|(name, value)| {
                    Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?))
                })
                .collect();
            (status, headers, answer.body).into_response()
        }
        Err(error) => {
            (StatusCode::BAD_GATEWAY, format!("the server does not answer: {error}")).into_response()
        }
    }
}

/// Whether a header is about one connection or one encoding of the body, and so not passed on.
fn of_connection(header: &str) -> bool {
    matches!(
        header,
        "host" | "connection" | "content-length" | "transfer-encoding" | "keep-alive" | "accept-encoding"
    )
}

fn read(headers: &HeaderMap, body: &Bytes) -> Vec<Pushed> {
    let gzipped = headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip");
    let plain = if gzipped { gunzip(body) } else { body.to_vec() };
    let request = PushRequest::decode(plain.as_slice()).expect("a push is a push request");
    let of_series = request.series.into_iter().flat_map(|series| {
        let labels: BTreeMap<_, _> =
            series.labels.into_iter().map(|label| (label.name, label.value)).collect();
        series.samples.into_iter().map(move |sample| {
            let (interval, samples) = pprof::read(&sample.raw_profile);
            Pushed { acknowledged: false, labels: labels.clone(), interval, samples }
        })
    });
    of_series.collect()
}
