//! The committed OpenAPI document is current and complete.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use banger_api::routes;
use bangerd::api::Description;
use serde_json::Value;
use utoipa::OpenApi;

fn described() -> Value {
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

#[test]
fn examples_are_valid_against_their_schemas() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join(".cache/tools/fuzz-api/bin/python");
    assert!(python.exists(), "{} is missing: `scripts/setup.sh test`", python.display());
    let run = Command::new(python)
        .arg(root.join("scripts/fuzz-api/examples.py"))
        .arg(root.join("openapi/banger.json"))
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&[run.stdout, run.stderr].concat())
    );
}

/// Calls `visit` with every object of the document.
fn objects(value: &Value, visit: &mut impl FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            visit(object);
            object.values().for_each(|value| objects(value, visit));
        }
        Value::Array(items) => items.iter().for_each(|value| objects(value, visit)),
        _ => {}
    }
}

#[test]
fn every_reference_has_a_target() {
    let described = described();
    objects(&described, &mut |object| {
        if let Some(Value::String(reference)) = object.get("$ref") {
            let target = described.pointer(reference.strip_prefix('#').unwrap());
            assert!(target.is_some_and(Value::is_object), "{reference}");
        }
    });
}

#[test]
fn the_document_states_the_limits_that_the_daemon_checks() {
    use banger_api::{container_ref, images, labels, limits, publish};
    let described = described();
    let schemas = &described["components"]["schemas"];
    let create = &schemas["CreateVm"]["properties"];
    assert_eq!(create["vcpus"]["maximum"], limits::MAX_VCPUS);
    assert_eq!(create["memory_mib"]["minimum"], limits::MIN_MEMORY_MIB);
    assert_eq!(create["memory_mib"]["maximum"], limits::MAX_MEMORY_MIB);
    for disk in ["root_bytes", "work_bytes"] {
        assert_eq!(create[disk]["minimum"], limits::MIN_DISK_BYTES);
        assert_eq!(create[disk]["maximum"], limits::MAX_DISK_BYTES);
    }
    assert_eq!(create["publish"]["maxItems"], publish::MAX_PUBLISHED);
    let labels_schema = &schemas["Labels"];
    assert_eq!(labels_schema["maxProperties"], labels::MAX_LABELS);
    assert_eq!(labels_schema["propertyNames"]["pattern"], labels::KEY_PATTERN);
    assert_eq!(labels_schema["propertyNames"]["maxLength"], labels::MAX_KEY);
    assert_eq!(labels_schema["additionalProperties"]["maxLength"], labels::MAX_VALUE);
    assert_eq!(labels_schema["additionalProperties"]["pattern"], labels::VALUE_PATTERN);
    assert_eq!(schemas["LabelKey"]["pattern"], labels::KEY_PATTERN);
    assert_eq!(schemas["SetVm"]["properties"]["unlabel"]["maxItems"], labels::MAX_LABELS);
    for schema in ["CreateVm", "SetVm"] {
        let reference = &schemas[schema]["properties"]["labels"]["$ref"];
        assert_eq!(reference, "#/components/schemas/Labels", "{schema}");
    }
    // A pattern is not evaluated here: its bound is the longest name that the daemon accepts.
    let name = "^[a-z0-9][a-z0-9._-]{0,127}$";
    assert!(images::is_ref_name(&"x".repeat(128)) && !images::is_ref_name(&"x".repeat(129)));
    for (schema, field) in [
        ("CreateVm", "kernel"),
        ("ImportRequest", "name"),
        ("PullRequest", "name"),
        ("TagRequest", "name"),
    ] {
        assert_eq!(schemas[schema]["properties"][field]["pattern"], name, "{schema}.{field}");
    }
    for (schema, field) in [("CreateVm", "image"), ("ImagePullRequest", "name")] {
        let pattern = &schemas[schema]["properties"][field]["pattern"];
        assert_eq!(pattern, container_ref::REFERENCE_PATTERN, "{schema}.{field}");
    }
}

#[test]
fn streams_are_described_as_events() {
    let described = described();
    let mut streams = 0;
    objects(&described["paths"], &mut |object| {
        if let Some(stream) = object.get("text/event-stream") {
            streams += 1;
            assert_eq!(stream["schema"]["$ref"], "#/components/schemas/ServerSentEvent");
        }
    });
    assert_eq!(streams, 2);
    let event = &described["components"]["schemas"]["ServerSentEvent"];
    assert_eq!(event["required"], serde_json::json!(["id", "data"]));
}

#[test]
fn parameters_of_the_path_are_those_of_the_route() {
    let described = described();
    for (path, item) in described["paths"].as_object().unwrap() {
        let route: BTreeSet<&str> =
            path.split(['{', '}']).skip(1).step_by(2).map(|name| name.trim_matches('*')).collect();
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
            let named = parameters.iter().filter(|parameter| parameter["in"] == "path");
            let named: BTreeSet<&str> = named.filter_map(|param| param["name"].as_str()).collect();
            assert_eq!(named, route, "{method} {path}");
        }
    }
}

#[test]
fn variants_of_requests_have_no_other_properties() {
    let described = described();
    for schema in ["VmAction", "SubjectRef"] {
        let variants = described["components"]["schemas"][schema]["oneOf"].as_array().unwrap();
        for variant in variants {
            objects(variant, &mut |object| {
                if object.get("type").is_some_and(|kind| kind == "object") {
                    assert_eq!(object["additionalProperties"], false, "{schema}: {variant}");
                }
            });
        }
    }
}
