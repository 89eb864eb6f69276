//! Examples of requests and answers in the OpenAPI document.

use serde_json::{Value, json};
use utoipa::Modify;
use utoipa::openapi::{Content, OpenApi, RefOr, Schema};

/// Adds to each body in JSON the example of its type.
pub struct Examples;

impl Modify for Examples {
    fn modify(&self, document: &mut OpenApi) {
        for item in document.paths.paths.values_mut() {
            let all = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
            for operation in all.into_iter().flatten() {
                if let Some(RefOr::T(body)) = &mut operation.request_body {
                    body.content.values_mut().for_each(add);
                }
                for response in operation.responses.responses.values_mut() {
                    if let RefOr::T(response) = response {
                        response.content.values_mut().for_each(add);
                    }
                }
            }
        }
    }
}

fn add(content: &mut RefOr<Content>) {
    let RefOr::T(content) = content else { return };
    if content.example.is_some() {
        return;
    }
    content.example = match &content.schema {
        Some(RefOr::Ref(reference)) => of_type(&reference.ref_location),
        Some(RefOr::T(Schema::Array(array))) => match &array.items {
            utoipa::openapi::schema::ArrayItems::RefOrSchema(item) => match &**item {
                RefOr::Ref(reference) => of_type(&reference.ref_location).map(|one| json!([one])),
                RefOr::T(_) => None,
            },
            utoipa::openapi::schema::ArrayItems::False => None,
        },
        _ => None,
    };
}

fn of_type(location: &str) -> Option<Value> {
    let name = location.rsplit('/').next()?;
    of_request(name).or_else(|| of_answer(name))
}

/// A request.
fn of_request(name: &str) -> Option<Value> {
    Some(match name {
        "CreateVm" => json!({
            "name": "web", "image": "debian", "vcpus": 2, "memory_mib": 2048,
            "publish": [{ "listen": "127.0.0.1", "host_port": 8080, "guest_port": 80 }],
            "labels": { "team": "shop" }
        }),
        "VmAction" => json!({ "stop": { "grace_ms": 10_000 } }),
        "SubjectRef" => json!({ "vm": "web" }),
        "DiskPrune" => json!({ "objects": [{ "kind": "image", "id": "0123456789abcdef" }] }),
        "RemoveLeftovers" => json!({ "ids": ["e60eb3b27ffd"] }),
        "ImagePullRequest" => json!({ "name": "docker.io/library/debian:trixie" }),
        "ImportRequest" => json!({ "path": "/home/me/rootfs.tar.zst", "name": "mine" }),
        "ImageBuildRequest" => json!({
            "name": "with-git", "from": "debian", "packages": ["git"], "script": "git --version\n"
        }),
        "ImageCommitRequest" => json!({ "vm": "web", "name": "web-ready" }),
        "ImageRegisterRequest" => json!({ "rootfs": "/srv/rootfs.ext4", "name": "mine" }),
        "ImagePromoteRequest" => json!({ "image": "mine" }),
        "TagRequest" => json!({ "name": "stable" }),
        "PullRequest" | "KernelBuildRequest" => json!({ "name": "fast" }),
        "KernelImportRequest" => json!({ "path": "/boot/vmlinuz-6.12", "name": "mine" }),
        _ => return None,
    })
}

/// An answer.
fn of_answer(name: &str) -> Option<Value> {
    let vm = json!({ "id": "e60eb3b27ffd", "name": "web" });
    Some(match name {
        "Accepted" => json!({ "operation": "op-abc123", "vm": vm }),
        "CancelAnswer" => {
            json!({ "operation": "op-abc123", "effect": "cancelling", "state": "running" })
        }
        "OperationView" => json!({
            "id": "op-abc123", "kind": "create",
            "subject": { "type": "vm", "id": "e60eb3b27ffd", "name": "web" },
            "state": "succeeded", "started_at": "2026-01-01T00:00:00Z", "error": null
        }),
        "VmSummary" => json!({
            "id": "e60eb3b27ffd", "name": "web", "state": "running", "image": "debian",
            "vcpus": 2, "memory_mib": 2048, "ip": null, "created_at": "2026-01-01T00:00:00Z",
            "disk": {
                "root_bytes": 8_589_934_592_u64, "root_used_bytes": 9_502_720,
                "work_bytes": 8_589_934_592_u64, "work_used_bytes": 1_138_688
            },
            "publish": [{ "listen": "127.0.0.1", "host_port": 8080, "guest_port": 80 }],
            "labels": { "team": "shop" }
        }),
        "VmHealth" => json!({
            "id": "e60eb3b27ffd", "name": "web", "state": "running", "agent": "ok",
            "round_trip_us": 410, "uptime_ms": 61_000,
            "boot_id": "0d4ad1a4-6f0c-4a37-9a4b-3cb2a1b7a1b1"
        }),
        "Deleted" => {
            json!({ "id": "0123456789abcdef", "freed_bytes": 327_155_712, "names": ["mine"] })
        }
        "ServerSentEvent" => json!({
            "id": "5e1f09c2-17",
            "data": "{\"id\":\"5e1f09c2-17\",\"at_unix_ms\":1767225600000,\"event\":\"gone\",\
                \"vm\":\"e60eb3b27ffd\"}"
        }),
        "Empty" => json!({}),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use utoipa::OpenApi;

    fn request<T: DeserializeOwned>(name: &str) {
        let example = of_request(name).unwrap();
        serde_json::from_value::<T>(example).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    fn answer<T: DeserializeOwned>(name: &str) {
        let example = of_answer(name).unwrap();
        serde_json::from_value::<T>(example).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    #[test]
    fn each_example_has_its_type() {
        use banger_api::{build, disk, doctor, images, operation, vm};
        request::<vm::CreateVm>("CreateVm");
        request::<vm::VmAction>("VmAction");
        request::<operation::SubjectRef>("SubjectRef");
        request::<disk::DiskPrune>("DiskPrune");
        request::<doctor::RemoveLeftovers>("RemoveLeftovers");
        request::<images::ImagePullRequest>("ImagePullRequest");
        request::<images::ImportRequest>("ImportRequest");
        request::<build::ImageBuildRequest>("ImageBuildRequest");
        request::<images::ImageCommitRequest>("ImageCommitRequest");
        request::<images::ImageRegisterRequest>("ImageRegisterRequest");
        request::<images::ImagePromoteRequest>("ImagePromoteRequest");
        request::<images::TagRequest>("TagRequest");
        request::<images::PullRequest>("PullRequest");
        request::<images::KernelBuildRequest>("KernelBuildRequest");
        request::<images::KernelImportRequest>("KernelImportRequest");
        answer::<operation::Accepted>("Accepted");
        answer::<operation::CancelAnswer>("CancelAnswer");
        answer::<operation::OperationView>("OperationView");
        answer::<vm::VmSummary>("VmSummary");
        answer::<vm::VmHealth>("VmHealth");
        answer::<images::Deleted>("Deleted");
        let event = of_answer("ServerSentEvent").unwrap();
        let data = event["data"].as_str().unwrap();
        assert!(serde_json::from_str::<banger_api::events::Event>(data).is_ok(), "{data}");
    }

    #[test]
    fn each_request_in_json_has_an_example() {
        let document = serde_json::to_value(super::super::Description::openapi()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let body = &operation["requestBody"]["content"]["application/json"];
                let reference = &body["schema"]["$ref"];
                let has_example = body["example"].is_object();
                assert!(reference.is_null() || has_example, "{method} {path}: {reference}");
            }
        }
    }
}
