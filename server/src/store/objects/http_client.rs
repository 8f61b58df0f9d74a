//! The HTTP client of the object store: hyper with rustls, and what the environment says about proxies.
//!
//! `object_store` would bring `reqwest`, whose features are shared by all of a build: with TLS as this server has it, that
//! of a profiler or exporter in the same workspace finds no provider and panics.

use std::error::Error;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use http::uri::Scheme;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::{self, Client};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use object_store::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use tokio::net::TcpStream;
use tower::Service;

/// Longest that reaching the object store may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest that sending a request and waiting for the head of its answer may take, and longest for the rest of that, beside
/// what their bytes may take.
const REQUEST: Duration = Duration::from_secs(60);
/// Bytes that may take another second.
const BYTES_A_SECOND: u64 = 1 << 20;

/// Makes the client.
#[derive(Debug)]
pub(super) struct Connector;

impl object_store::client::HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let provider = rustls::crypto::ring::default_provider();
        let https = match HttpsConnectorBuilder::new().with_provider_and_native_roots(provider.clone()) {
            Ok(https) => https,
            // An image without authorities can still reach a store that speaks no TLS.
            Err(_) if options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true") => {
                let tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider));
                let tls = tls.with_safe_default_protocol_versions().map_err(unable)?;
                let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
                HttpsConnectorBuilder::new().with_tls_config(tls)
            }
            Err(error) => return Err(unable(error)),
        };
        let https = https
            // What may be reached without TLS is checked by `object_store`.
            .https_or_http()
            .enable_http1()
            .wrap_connector(Reach { tcp, proxies: Arc::new(Matcher::from_env()) });
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https);
        Ok(HttpClient::new(Hyper(client)))
    }
}

fn unable(error: impl Error + Send + Sync + 'static) -> object_store::Error {
    object_store::Error::Generic {
        store: "TLS (SSL_CERT_FILE may name a file of trusted authorities)",
        source: Box::new(error),
    }
}

#[derive(Debug)]
struct Hyper(Client<HttpsConnector<Reach>, HttpRequestBody>);

#[async_trait]
impl HttpService for Hyper {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let sent = request.body().content_length() as u64;
        let answer = within(sent, self.0.request(request)).await?;
        let (head, body) = answer.into_parts();
        // All of it, as whoever asks wants it: so it can be told within a time whether it came.
        let body = within(body.size_hint().lower(), body.collect()).await?;
        Ok(HttpResponse::from_parts(head, body.to_bytes().into()))
    }
}

/// What comes of moving that many bytes, unless it takes too long.
async fn within<T, E>(bytes: u64, moved: impl Future<Output = Result<T, E>>) -> Result<T, HttpError>
where
    E: Error + Send + Sync + 'static,
{
    let patience = REQUEST + Duration::from_secs(bytes / BYTES_A_SECOND);
    match tokio::time::timeout(patience, moved).await {
        Ok(moved) => moved.map_err(|error| HttpError::new(kind(&error), error)),
        Err(elapsed) => Err(HttpError::new(HttpErrorKind::Timeout, elapsed)),
    }
}

/// Which tells `object_store` what may be tried again.
fn kind(error: &(dyn Error + 'static)) -> HttpErrorKind {
    for error in std::iter::successors(Some(error), |error| (**error).source()) {
        if error.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect) {
            return HttpErrorKind::Connect;
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            if error.is_timeout() {
                return HttpErrorKind::Timeout;
            }
            if error.is_closed() || error.is_incomplete_message() || error.is_body_write_aborted() {
                return HttpErrorKind::Request;
            }
        }
        match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(ErrorKind::TimedOut) => return HttpErrorKind::Timeout,
            Some(
                ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof,
            ) => return HttpErrorKind::Interrupted,
            _ => {}
        }
    }
    HttpErrorKind::Unknown
}

/// Reaches hosts: through the proxy that `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name for them if they speak TLS, as other
/// programs do, and else directly.
#[derive(Debug, Clone)]
struct Reach {
    tcp: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Service<Uri> for Reach {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, host: Uri) -> Self::Future {
        let proxy = self.proxies.intercept(&host).filter(|_| host.scheme() == Some(&Scheme::HTTPS));
        let Some(proxy) = proxy else {
            let reached = self.tcp.call(host);
            return Box::pin(async { Ok(reached.await?) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
        if let Some(login) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(login.clone());
        }
        let reached = tunnel.call(host);
        Box::pin(async { Ok(reached.await?) })
    }
}
