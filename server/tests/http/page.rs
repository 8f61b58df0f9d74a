//! The page and the headers that keep it safe.

use http::Method;

use crate::support::{SPAN, Server};

#[test]
fn pages_are_html_that_may_load_nothing_from_elsewhere() {
    let server = Server::start();
    let views = ["/services", "/operation?service=a&name=b", "/function", "/compare", "/trace/not-an-id"];
    for path in views.into_iter().chain(["/", &format!("/span/{SPAN}"), "/span/not-an-id"]) {
        let page = server.get(path);
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        assert!(page.text().starts_with("<!doctype html>"));
        assert_eq!(page.header("cache-control"), "no-cache");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("referrer-policy"), "same-origin");
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains("connect-src 'self'"), "{policy}");
        // Links from the root would break below a proxy's path prefix.
        assert!(!page.text().contains("=\"/"), "{}", page.text());
    }
}

#[test]
fn assets_are_cached_for_good() {
    let server = Server::start();
    for path in ["/", "/compare", "/trace/x", &format!("/span/{SPAN}")] {
        let page = server.get(path).text().to_owned();
        let links = page.split('"').filter(|text| text.contains("assets/"));
        for link in links {
            let name = &link[link.find("assets/").expect("filtered")..];
            let asset = server.get(&format!("/{name}"));
            assert_eq!(asset.status, 200, "{link}");
            assert_eq!(asset.header("cache-control"), "public, max-age=31536000, immutable");
            assert_eq!(asset.header("x-content-type-options"), "nosniff");
            assert_ne!(asset.header("content-type"), "application/octet-stream", "{link}");
            let packed = server.send(Method::GET, &format!("/{name}"), &[("accept-encoding", "gzip")], "");
            assert!(packed.body.len() <= asset.body.len());
        }
    }
    for path in ["/assets/nope.js", "/assets/../index.html", "/assets/%2e%2e/index.html"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}
