//! What kind of request a route takes: it decides the right that is needed, the time it may last and whose turn it is.
//!
//! A route that is not named here is a query: whoever may not read gets nothing from it. That a route adds profiles is
//! told here so that it is refused before its body is read; [`super::access::Access::writable`] holds in any case.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;

use crate::ui;

/// Routes that add profiles or traces.
const INGEST: &[&str] = &[
    "/push.v1.PusherService/Push",
    "/ingest",
    "/pyroscope/ingest",
    "/v1development/profiles",
    "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
    "/v1/traces",
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
];

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Adds profiles or traces.
    Ingest,
    /// Asks about profiles or traces.
    Query,
    /// Changes what is kept otherwise than by adding to it.
    Admin,
    /// Asks about the server, and nothing of a tenant's: any token will do.
    Status,
    /// Asks for a file of the page: they hold no data, and one of them asks for the token that data needs.
    Page,
    /// Asks for what the server counts, of all tenants.
    Metrics,
    /// Open to all, even when nothing else is answered: load balancers ask.
    Ready,
}

impl Class {
    /// The kind of a request that has been routed.
    pub(super) fn of(request: &Request) -> Self {
        let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        match Self::of_route(matched.unwrap_or_else(|| request.uri().path())) {
            // With any other method nothing happens, which may be told to all who may ask anything.
            Self::Admin if request.method() != Method::DELETE => Self::Query,
            class => class,
        }
    }

    fn of_route(route: &str) -> Self {
        match route {
            "/ready" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/api/v1/status/buildinfo" => Self::Status,
            "/api/v1/profiles" => Self::Admin,
            route if ui::is_page(route) => Self::Page,
            route if INGEST.contains(&route) => Self::Ingest,
            _ => Self::Query,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_be_harmless_needs_the_right_to_read() {
        for (route, class) in [
            ("/ready", Class::Ready),
            ("/metrics", Class::Metrics),
            ("/", Class::Page),
            ("/assets/{*name}", Class::Page),
            ("/services", Class::Page),
            ("/trace/{id}", Class::Page),
            ("/assets/../api/v1/spans", Class::Query),
            ("/push.v1.PusherService/Push", Class::Ingest),
            ("/ingest", Class::Ingest),
            ("/v1/traces", Class::Ingest),
            ("/api/v1/traces", Class::Query),
            ("/api/v1/profiles", Class::Admin),
            ("/querier.v1.QuerierService/Series", Class::Query),
            ("/api/v1/spans/{span_id}", Class::Query),
            ("/no/such", Class::Query),
        ] {
            assert_eq!(Class::of_route(route), class, "{route}");
        }
    }
}
