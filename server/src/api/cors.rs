//! Which web pages of other origins may ask from a browser: none unless the configuration names them.
//!
//! A browser keeps such a page from reading answers, and from sending what no form could send. It does not keep it from
//! sending a plain POST, with the token that its user once typed in: that is refused here.

use std::time::Duration;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Where a request comes from, as browsers tell; pages cannot change it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long a browser may remember what it was allowed.
const MAX_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// What clients of Connect, gRPC-Web and the plain routes send.
const REQUEST_HEADERS: [HeaderName; 9] = [
    header::AUTHORIZATION,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    HeaderName::from_static("connect-protocol-version"),
    HeaderName::from_static("connect-timeout-ms"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-user-agent"),
    HeaderName::from_static(super::access::TENANT_HEADER),
];

/// What they read.
const RESPONSE_HEADERS: [HeaderName; 4] = [
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-status-details-bin"),
    header::RETRY_AFTER,
];

/// Lets pages of these origins ask, with a token that they send themselves: a browser never adds one that it remembers.
pub(super) fn layer(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let layer = CorsLayer::new().allow_origin(allowed).allow_methods([Method::GET, Method::POST]);
    Some(layer.allow_headers(REQUEST_HEADERS).expose_headers(RESPONSE_HEADERS).max_age(MAX_AGE))
}

/// The origin of the foreign page that sends a request, if one does that is not among those that may.
pub(super) fn stranger<'a>(headers: &'a HeaderMap, origins: &[String]) -> Option<&'a str> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("unreadable"));
    let origin = text(header::ORIGIN);
    let listed = |origin| origins.iter().any(|listed| listed == "*" || listed == origin);
    let foreign = match (text(FETCH_SITE), origin) {
        (Some("same-origin" | "none"), _) | (None, None) => false,
        (Some(_), _) => true,
        // Browsers tell the rest only to whom they trust, which a plain HTTP address of another machine is not.
        (None, Some(origin)) => !same_host(origin, text(header::HOST)),
    };
    (foreign && !origin.is_some_and(listed)).then(|| origin.unwrap_or("unknown"))
}

fn same_host(origin: &str, host: Option<&str>) -> bool {
    let authority = |text: &str| text.parse::<Authority>().ok();
    let origin = origin.split_once("://").and_then(|(_, rest)| authority(rest));
    origin.is_some_and(|origin| host.and_then(authority).is_some_and(|host| host == origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_pages_are_told_apart_from_agents_and_the_own_page() {
        let listed = ["https://app.example".to_owned()];
        let stranger = |pairs: &[(&'static str, &str)], origins: &[String]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
            stranger(&headers.collect(), origins).map(str::to_owned)
        };
        for good in [
            &[][..],
            &[("host", "profiles.example")],
            &[("origin", "http://profiles.example:4040"), ("host", "profiles.example:4040")],
            // A proxy has changed the host.
            &[
                ("origin", "https://profiles.example"),
                ("host", "127.0.0.1:4040"),
                ("sec-fetch-site", "same-origin"),
            ],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://app.example"), ("host", "x"), ("sec-fetch-site", "cross-site")],
            &[("origin", "https://app.example"), ("host", "x")],
        ] {
            assert_eq!(stranger(good, &listed), None, "{good:?}");
        }
        for (bad, wanted) in [
            (&[("origin", "https://evil.example"), ("host", "127.0.0.1:4040")][..], "https://evil.example"),
            (&[("origin", "null"), ("host", "127.0.0.1:4040")], "null"),
            (&[("origin", "http://127.0.0.1:8080"), ("host", "127.0.0.1:4040")], "http://127.0.0.1:8080"),
            (&[("sec-fetch-site", "cross-site")], "unknown"),
            (
                &[("origin", "https://x.app.example"), ("sec-fetch-site", "same-site")],
                "https://x.app.example",
            ),
        ] {
            assert_eq!(stranger(bad, &listed).as_deref(), Some(wanted), "{bad:?}");
        }
        assert_eq!(stranger(&[("origin", "https://evil.example"), ("host", "x")], &["*".to_owned()]), None);
    }
}
