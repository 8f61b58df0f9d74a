//! Serves the page that is embedded in the binary. Knows files and headers, nothing of profiles.
//!
//! `server/ui` builds the files; all links in them are relative, so that they work below any path prefix a proxy adds.

use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Files of the built page, sorted by name.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/ui_files.rs"));

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
];

/// Routes of the page, each with the HTML whose relative links fit its depth. The script tells them apart.
const PAGES: [(&str, &str); 8] = [
    ("/", "index.html"),
    ("/services", "index.html"),
    ("/traces", "index.html"),
    ("/operation", "index.html"),
    ("/function", "index.html"),
    ("/compare", "index.html"),
    ("/span/{id}", "span/index.html"),
    ("/trace/{id}", "trace/index.html"),
];

const ASSETS: &str = "/assets/{*name}";

/// Whether a route is one of the page's, whose files hold no data.
pub(crate) fn is_page(route: &str) -> bool {
    route == ASSETS || PAGES.iter().any(|(path, _)| *path == route)
}

/// The page's routes.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> axum::Router<S> {
    let assets = get(|Path(name): Path<String>| async move { asset(&name) });
    PAGES
        .into_iter()
        .fold(axum::Router::new(), |router, (path, file)| {
            router.route(path, get(move || async move { page(file) }))
        })
        .route(ASSETS, assets)
}

fn find(name: &str) -> Option<&'static [u8]> {
    FILES.binary_search_by(|(file, _)| (*file).cmp(name)).ok().map(|at| FILES[at].1)
}

fn page(name: &str) -> Response {
    match find(name).or_else(|| find("index.html")) {
        Some(body) => answer("index.html", "no-cache", body),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn asset(name: &str) -> Response {
    let name = format!("assets/{name}");
    match find(&name) {
        // The name holds a hash of the content, so that it never changes.
        Some(body) => answer(&name, "public, max-age=31536000, immutable", body),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn answer(name: &str, cache: &'static str, body: &'static [u8]) -> Response {
    let headers = [(header::CONTENT_TYPE, media_type(name)), (header::CACHE_CONTROL, cache)];
    (headers, HEADERS, body).into_response()
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        Some("png") => "image/png",
        Some("json" | "map") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sorted_and_hold_the_page() {
        assert!(FILES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(find("index.html").is_some_and(|page| page.starts_with(b"<!doctype html>")));
        assert_eq!(find("../Cargo.toml"), None);
    }

    #[test]
    fn every_file_has_a_media_type() {
        for (name, _) in FILES {
            assert_ne!(media_type(name), "application/octet-stream", "{name}");
        }
    }
}
