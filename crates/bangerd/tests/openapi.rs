//! The committed OpenAPI document is current and complete.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::BTreeSet;
use std::path::Path;

use banger_api::routes;
use bangerd::api::Description;
use utoipa::OpenApi;

fn described() -> serde_json::Value {
    serde_json::to_value(Description::openapi()).unwrap()
}

#[test]
fn the_committed_document_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi/banger.json");
    let text = serde_json::to_string_pretty(&described()).unwrap() + "\n";
    if std::env::var_os("BANGER_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "openapi/banger.json is out of date: run this test with BANGER_BLESS=1"
    );
}

#[test]
fn every_route_is_described() {
    let described = described();
    let paths = described["paths"].as_object().unwrap();
    let paths_of_document: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(paths_of_document, routes::ALL.iter().copied().collect());
    assert_eq!(described["openapi"], "3.1.0");
    // OpenAPI 3.1 requires it; the generator does not.
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(response["description"].is_string(), "{method} {path} {status}");
            }
        }
    }
}
