//! Serving below a path prefix, for proxies that pass requests on with it. Knows no route.

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::response::{IntoResponse, Redirect, Response};
use tower::ServiceExt;

/// `inner` below the prefix, which begins with a slash and does not end in one; `outside` for everything else.
pub(super) fn below(prefix: String, inner: Router, outside: Router) -> Router {
    // Routes are chosen after this, so that they, their names in metrics and their middleware know nothing of it.
    Router::new().fallback(move |request: Request| {
        let target = strip(&prefix, request.uri());
        let (inner, outside) = (inner.clone(), outside.clone());
        let page = format!("{prefix}/");
        async move { route(target, page, request, inner, outside).await }
    })
}

/// Where a request leads.
#[derive(Debug, PartialEq)]
enum Target {
    /// Below the prefix, with what is left of its target.
    Inside(Uri),
    /// To the prefix itself: the page's links need the slash that it lacks.
    Bare,
    Outside,
}

async fn route(
    target: Target,
    page: String,
    mut request: Request,
    inner: Router,
    outside: Router,
) -> Response {
    let answer = match target {
        Target::Inside(uri) => {
            *request.uri_mut() = uri;
            inner.oneshot(request).await
        }
        Target::Bare => Ok(Redirect::permanent(&page).into_response()),
        Target::Outside => outside.oneshot(request).await,
    };
    answer.unwrap_or_else(|never| match never {})
}

fn strip(prefix: &str, uri: &Uri) -> Target {
    let Some(path_and_query) = uri.path_and_query() else { return Target::Outside };
    let Some(rest) = path_and_query.as_str().strip_prefix(prefix) else { return Target::Outside };
    if rest.is_empty() || rest.starts_with('?') {
        return Target::Bare;
    }
    if !rest.starts_with('/') {
        return Target::Outside;
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(rest).expect("a part of a good path is one"));
    Target::Inside(Uri::from_parts(parts).expect("only its path has changed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_whole_segments() {
        let strip = |target: &str| strip("/pro/files", &target.parse().unwrap());
        let inside = |target: &str| Target::Inside(target.parse().unwrap());
        assert_eq!(strip("/pro/files/"), inside("/"));
        assert_eq!(strip("/pro/files/ready?a=/b"), inside("/ready?a=/b"));
        assert_eq!(strip("http://host:1/pro/files/ready"), inside("http://host:1/ready"));
        assert_eq!(strip("/pro/files/pro/files/x"), inside("/pro/files/x"));
        assert_eq!(strip("/pro/files//x"), inside("//x"));
        assert_eq!(strip("/pro/files"), Target::Bare);
        assert_eq!(strip("/pro/files?x"), Target::Bare);
        for outside in ["/", "/ready", "/pro/filesx/ready", "/pro", "/PRO/files/", "/x/pro/files/"] {
            assert_eq!(strip(outside), Target::Outside, "{outside}");
        }
    }
}
