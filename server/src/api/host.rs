//! Under which names a server on loopback answers.
//!
//! A web page can make its own host name lead to 127.0.0.1 and then read, as its own, whatever answers there without a
//! log-in. What it cannot do is ask under another name than its own.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use connectrpc::ErrorCode;

use super::App;
use super::error::ApiError;

/// The host names of requests that are answered.
pub(super) struct Hosts {
    /// Whether only this machine can reach the server, and nobody has to log in.
    guarded: bool,
    allowed: Vec<String>,
}

impl Hosts {
    /// Only loopback's and these names if `guarded`, else any.
    pub(super) fn new(guarded: bool, allowed: Vec<String>) -> Self {
        Self { guarded, allowed }
    }

    fn allow(&self, authority: &Authority) -> bool {
        let host = authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.is_ok_and(|address| address.is_loopback())
            || host.eq_ignore_ascii_case("localhost")
            || self.allowed.iter().any(|allowed| host.eq_ignore_ascii_case(allowed))
    }

    /// The name under which a request asks that is not allowed, if so. One without any name is no browser's.
    fn stranger(&self, request: &Request) -> Option<String> {
        if !self.guarded {
            return None;
        }
        let bad_header = |value: &&HeaderValue| {
            !Authority::try_from(value.as_bytes()).is_ok_and(|authority| self.allow(&authority))
        };
        let in_target = request.uri().authority().filter(|authority| !self.allow(authority));
        let in_header = || request.headers().get_all(header::HOST).iter().find(bad_header);
        in_target
            .map(ToString::to_string)
            .or_else(|| in_header().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()))
    }
}

/// Refuses requests that ask under a name which is not the server's.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(name) = app.hosts.stranger(&request) else { return next.run(request).await };
    app.metrics.refuse("host");
    let shown: String = name.chars().take(100).collect();
    tracing::info!(host = shown, "request under an unknown host name refused");
    let message = format!(
        "host: this server answers to localhost and 127.0.0.1, not to {shown:?}; add the name to allowed_hosts \
         (--allowed-hosts, SPANFLAME_ALLOWED_HOSTS) if it is yours"
    );
    ApiError::new(ErrorCode::PermissionDenied, message).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn names_of_this_machine_and_listed_ones_are_allowed() {
        let hosts = |guarded| Hosts::new(guarded, vec!["profiles.example".to_owned()]);
        let (loopback, open) = (hosts(true), hosts(false));
        let stranger = |hosts: &Hosts, target: &str, host: Option<&str>| {
            let mut request = Request::builder().uri(target);
            request = host.into_iter().fold(request, |request, host| request.header("host", host));
            hosts.stranger(&request.body(Body::empty()).unwrap())
        };
        for good in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:4040",
            "127.9.9.9",
            "[::1]:80",
            "[::1]",
            "Profiles.Example:5",
        ] {
            assert_eq!(stranger(&loopback, "/", Some(good)), None, "{good}");
            assert_eq!(stranger(&loopback, &format!("http://{good}/"), None), None, "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:4040",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
        ] {
            assert_eq!(stranger(&loopback, "/", Some(bad)).as_deref(), Some(bad));
            assert_eq!(
                stranger(&loopback, &format!("http://{bad}/"), Some("localhost")).as_deref(),
                Some(bad)
            );
            assert_eq!(stranger(&open, "/", Some(bad)), None);
        }
        assert_eq!(stranger(&loopback, "/", Some("")), Some(String::new()));
        assert_eq!(stranger(&loopback, "/", None), None);
    }
}
