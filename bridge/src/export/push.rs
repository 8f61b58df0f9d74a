//! The push to a Pyroscope-compatible server: `push.v1.PusherService/Push` as a Connect call with a protobuf body.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::{ExportError, Profile, ProfileExporter, Receiver};
use crate::config::Destination;

const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
/// A whole push. Within the time that a shutdown can be asked to wait.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Of an answer, this much is read.
const MAX_ANSWER: u64 = 64 * 1024;
/// Of an error message, this much is logged.
const MAX_MESSAGE: usize = 300;

/// Pushes profiles to a Spanflame or Pyroscope server. What a [`Profiler`](crate::Profiler) uses unless told
/// otherwise.
pub struct PyroscopeExporter {
    agent: Agent,
    server_address: String,
    authorization: Option<String>,
    tenant_id: Option<String>,
}

impl std::fmt::Debug for PyroscopeExporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Credentials stay out of logs.
        f.debug_struct("PyroscopeExporter")
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

impl PyroscopeExporter {
    pub(crate) fn new(destination: Destination) -> Self {
        let Destination { server_address, basic_auth, tenant_id, profile_dir: _ } = destination;
        let config = Agent::config_builder()
            .user_agent(USER_AGENT)
            .http_status_as_error(false)
            .timeout_global(Some(PUSH_TIMEOUT))
            .timeout_connect(Some(Duration::from_secs(5)))
            .max_redirects(0)
            .max_redirects_will_error(false)
            // One server, one call at a time.
            .max_idle_connections(1);
        #[cfg(feature = "tls")]
        let config = config.tls_config(
            ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build(),
        );
        Self {
            agent: config.build().new_agent(),
            server_address,
            authorization: basic_auth
                .map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
            tenant_id,
        }
    }

    fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let authorization = self.authorization.as_deref().map(|value| ("Authorization", value));
        let tenant = self.tenant_id.as_deref().map(|value| ("X-Scope-OrgID", value));
        authorization.into_iter().chain(tenant)
    }
}

impl ProfileExporter for PyroscopeExporter {
    fn export(&mut self, profile: &Profile) -> Result<(), ExportError> {
        let url = format!("{}/push.v1.PusherService/Push", self.server_address);
        let mut request =
            self.agent.post(&url).content_type("application/proto").header("Connect-Protocol-Version", "1");
        for (name, value) in self.headers() {
            request = request.header(name, value);
        }
        let response = request.send(&push_request(profile)[..]).map_err(|error| transport(&url, &error))?;
        answer(&url, response)
    }

    fn receiver(&mut self) -> Option<Receiver> {
        let url = format!("{}/api/v1/status/buildinfo", self.server_address);
        let mut request = self.agent.get(&url).config().timeout_global(Some(PROBE_TIMEOUT)).build();
        for (name, value) in self.headers() {
            request = request.header(name, value);
        }
        let mut response = request.call().ok()?;
        match response.status().as_u16() {
            200 => {
                let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string().ok()?;
                Some(recognise(&body))
            }
            // There, but not now; or a gateway in front of a server that is not.
            429 | 500.. => None,
            // A gateway that lets pushes through and nothing else.
            _ => Some(Receiver::plain("unidentified server")),
        }
    }
}

/// Reads a build information document.
fn recognise(body: &str) -> Receiver {
    let document: Value = serde_json::from_str(body).unwrap_or_default();
    let field =
        |name: &str| document.pointer(&format!("/data/{name}")).and_then(Value::as_str).unwrap_or_default();
    let version = field("version");
    if field("application") == "spanflame" {
        return Receiver::full(format!("spanflame {version}"));
    }
    if version.is_empty() {
        return Receiver::plain("unidentified server");
    }
    // 2.1 is the first to keep trace ids out of series labels.
    let mut numbers =
        version.trim_start_matches('v').split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    Receiver {
        trace_ids: (major, minor) >= (Some(2), Some(1)),
        ..Receiver::plain(format!("pyroscope {version}"))
    }
}

fn transport(url: &str, error: &ureq::Error) -> ExportError {
    match error {
        // Nothing that waiting could change.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
            ExportError::permanent(format!("{url}: {error}"))
        }
        _ => ExportError::retryable(format!("{url}: {error}")),
    }
}

fn answer(url: &str, mut response: Response<Body>) -> Result<(), ExportError> {
    let status = response.status();
    // In seconds; who gives a date instead gets the pauses that everyone gets.
    let after =
        response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    // Reading it to its end is also what lets the connection be used again.
    let body = response.body_mut().with_config().limit(MAX_ANSWER).lossy_utf8(true).read_to_string();
    if status.is_success() {
        return Ok(());
    }
    let body = body.unwrap_or_default();
    let message = serde_json::from_str::<Value>(&body)
        .ok()
        .and_then(|error| error.get("message")?.as_str().map(str::to_owned))
        .unwrap_or(body);
    let message: String = message.trim().chars().take(MAX_MESSAGE).collect();
    let message = format!("{url}: {status}: {message}");
    match status.as_u16() {
        408 | 429 | 500.. => {
            let error = ExportError::retryable(message);
            Err(match after {
                Some(seconds) => error.after(Duration::from_secs(seconds)),
                None => error,
            })
        }
        _ => Err(ExportError::permanent(message)),
    }
}

fn push_request(profile: &Profile) -> Vec<u8> {
    let labels = profile.labels.iter();
    let mut labels: Vec<LabelPair> =
        labels.map(|(name, value)| LabelPair { name: name.clone(), value: value.clone() }).collect();
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    let sample = RawSample { raw_profile: profile.pprof.clone() };
    PushRequest { series: vec![RawProfileSeries { labels, samples: vec![sample] }] }.encode_to_vec()
}

/// `push.v1.PushRequest`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<RawProfileSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct RawProfileSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelPair>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<RawSample>,
}

#[derive(Clone, PartialEq, Message)]
struct RawSample {
    #[prost(bytes = "vec", tag = "1")]
    raw_profile: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_recognised_by_its_build_information() {
        let info = |application: &str, version: &str| {
            recognise(&format!(
                r#"{{"status":"success","data":{{"application":"{application}","version":"{version}"}}}}"#
            ))
        };
        assert_eq!(info("spanflame", "0.1.0"), Receiver::full("spanflame 0.1.0"));
        for (version, trace_ids) in [
            ("1.13.0", false),
            ("2.0.3", false),
            ("2.1.0", true),
            ("v2.1.0-rc.1", true),
            ("3.0.0", true),
            ("weekly", false),
        ] {
            let receiver = info("pyroscope", version);
            assert_eq!((receiver.nested_spans, receiver.trace_ids), (false, trace_ids), "{version}");
        }
        for body in ["", "<html>", "{}", r#"{"data":[]}"#, r#"{"data":{"version":7}}"#] {
            assert_eq!(recognise(body), Receiver::plain("unidentified server"), "{body}");
        }
    }
}
