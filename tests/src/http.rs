//! HTTP both ways: a server on a port of the system's choice, and a client that takes every status for an answer.

use std::thread::JoinHandle;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::PATIENCE;
use crate::pprof::gunzip;

/// Bounds what either side reads, in bytes.
pub use spanflame_pprof_reader::BODY_LIMIT;

/// Serves routes on a thread of its own until it is dropped.
pub struct Server {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts to serve on loopback.
    ///
    /// # Panics
    /// When there is no port to listen on.
    pub fn start(routes: Router) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("loopback has a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    served = axum::serve(listener, routes) => served.expect("serving does not fail"),
                    _ = stopped => {}
                }
            });
            // A connection that a client keeps open must not keep the test waiting.
            runtime.shutdown_background();
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens, as `http://host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has failed a request, and with it a test, already.
            let _ = thread.join();
        }
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, decompressed.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in: {}", self.text()))
    }
}

/// A request without a body.
///
/// # Panics
/// When there is no answer.
pub fn get(url: &str) -> Answer {
    send("GET", url, &[], Vec::new()).unwrap_or_else(|error| panic!("GET {url}: {error}"))
}

/// Any request.
///
/// # Errors
/// When there is no answer.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Answer, ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = if body.is_empty() && method == "GET" {
        agent.run(request.body(())?)?
    } else {
        agent.run(request.body(body)?)?
    };
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    let body = response.body_mut().with_config().limit(BODY_LIMIT as u64).read_to_vec()?;
    let mut answer = Answer { status: response.status().as_u16(), headers, body };
    if answer.header("content-encoding") == Some("gzip") {
        answer.body = gunzip(&answer.body);
        answer.headers.retain(|(name, _)| name != "content-encoding");
    }
    Ok(answer)
}
