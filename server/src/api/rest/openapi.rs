//! The document that describes these routes, as it is checked in and as JSON.

use axum::http::header;
use axum::response::IntoResponse;

/// What `docs/openapi.yaml` says; the build script turns it into JSON.
static JSON: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));
static YAML: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.yaml"));

pub(super) async fn json() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], JSON)
}

pub(super) async fn yaml() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml")], YAML)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_document_names_the_routes_and_no_others() {
        let document: Value = serde_json::from_str(JSON).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let documented: BTreeSet<&str> =
            document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        // Of the status routes, the one whose answer is JSON.
        let routes = super::super::PATHS.into_iter().chain(["/api/v1/status/buildinfo"]).collect();
        assert_eq!(documented, routes);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn visit(value: &Value, document: &Value) {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                let place = reference.strip_prefix('#').expect("references stay within the document");
                assert!(document.pointer(place).is_some(), "{reference}");
            }
            match value {
                Value::Object(fields) => fields.values().for_each(|value| visit(value, document)),
                Value::Array(items) => items.iter().for_each(|value| visit(value, document)),
                _ => {}
            }
        }
        let document: Value = serde_json::from_str(JSON).unwrap();
        visit(&document, &document);
    }
}
