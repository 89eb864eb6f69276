//! Examples of requests and answers in the OpenAPI document.

mod answers;

use serde_json::{Value, json};
use utoipa::Modify;
use utoipa::openapi::{Content, OpenApi, RefOr, Schema};

use self::answers::of_answer;

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
        answer::<images::ImageView>("ImageView");
        answer::<images::ImageHistoryEntry>("ImageHistoryEntry");
        answer::<images::KernelView>("KernelView");
        answer::<banger_api::daemon::DaemonStatus>("DaemonStatus");
        answer::<banger_api::host::HostView>("HostView");
        answer::<disk::DiskUsage>("DiskUsage");
        answer::<disk::DiskPruned>("DiskPruned");
        answer::<doctor::Check>("Check");
        answer::<doctor::Leftover>("Leftover");
        answer::<doctor::RemovedLeftover>("RemovedLeftover");
        answer::<banger_api::stats::VmStats>("VmStats");
        answer::<vm::VmDetails>("VmDetails");
        answer::<banger_api::boot::BootView>("BootView");
        answer::<banger_api::opencode::VmSecrets>("VmSecrets");
        answer::<banger_api::sync::SyncView>("SyncView");
        answer::<banger_agent_proto::archive::Unpacked>("Unpacked");
        answer::<banger_agent_proto::exec::Detached>("Detached");
        let event = of_answer("ServerSentEvent").unwrap();
        let data = event["data"].as_str().unwrap();
        assert!(serde_json::from_str::<banger_api::events::Event>(data).is_ok(), "{data}");
    }

    #[test]
    fn each_body_in_json_has_an_example() {
        let document = serde_json::to_value(super::super::Description::openapi()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let answers = operation["responses"].as_object().unwrap().values();
                for body in answers.chain([&operation["requestBody"]]) {
                    for kind in ["application/json", "application/problem+json"] {
                        let content = &body["content"][kind];
                        // The protocol of the agent describes these requests.
                        let is_ours = content["schema"].is_object()
                            && !(body == &operation["requestBody"]
                                && content["schema"]["$ref"].is_null());
                        let has_example = !content["example"].is_null();
                        assert!(!is_ours || has_example, "{method} {path}: {content}");
                    }
                }
            }
        }
    }
}
