//! Whatever a client sends, it gets an answer that names what is wrong, and nothing is stored.

use std::io::{Read, Write};

use serde_json::json;

use crate::support::{Home, Reply};

#[test]
fn creates() {
    let home = Home::new();
    let daemon = home.start();
    daemon.make("taken");
    let long = "x".repeat(64);
    let port = |host: u32, guest: u32| json!({ "host_port": host, "guest_port": guest });
    let many: Vec<_> = (1..=65).map(|host| port(host, 80)).collect();
    let many_labels: serde_json::Map<_, _> =
        (0..65).map(|n| (format!("k{n}"), json!(""))).collect();
    let cases = [
        // Names.
        (json!({ "name": "" }), "bad_request", "`` is not a VM name: it is empty"),
        (json!({ "name": "Web" }), "bad_request", "`Web` is not a VM name"),
        (json!({ "name": "-web" }), "bad_request", "`-web` is not a VM name"),
        (json!({ "name": "web-" }), "bad_request", "`web-` is not a VM name"),
        (json!({ "name": "a b" }), "bad_request", "`a b` is not a VM name"),
        (json!({ "name": "a\nb" }), "bad_request", "`a\\nb` is not a VM name"),
        (json!({ "name": "../x" }), "bad_request", "`../x` is not a VM name"),
        (json!({ "name": long }), "bad_request", "longer than 63"),
        (json!({ "name": "taken" }), "name_taken", "there is a VM `taken` already"),
        (json!({ "name": 7 }), "bad_request", "`name` is invalid"),
        // Numbers.
        (json!({ "vcpus": 0 }), "bad_request", "0 vCPUs"),
        (json!({ "vcpus": 33 }), "bad_request", "33 vCPUs"),
        (json!({ "vcpus": -1 }), "bad_request", "`vcpus` is invalid"),
        (json!({ "vcpus": 1.5 }), "bad_request", "`vcpus` is invalid"),
        (json!({ "vcpus": "2" }), "bad_request", "`vcpus` is invalid"),
        (json!({ "vcpus": 5_000_000_000_u64 }), "bad_request", "`vcpus` is invalid"),
        (json!({ "memory_mib": 0 }), "bad_request", "0 MiB of memory"),
        (json!({ "memory_mib": 127 }), "bad_request", "127 MiB of memory"),
        (json!({ "memory_mib": u64::MAX }), "bad_request", "MiB of memory"),
        (json!({ "memory_mib": -5 }), "bad_request", "`memory_mib` is invalid"),
        (json!({ "root_bytes": 0 }), "bad_request", "a root disk of 0 B"),
        (json!({ "root_bytes": u64::MAX }), "bad_request", "a root disk of"),
        (json!({ "work_bytes": 1 }), "bad_request", "a work disk of 1 B"),
        // Ports.
        (json!({ "publish": [port(0, 80)] }), "bad_request", "port 0 cannot be published"),
        (json!({ "publish": [port(1, 80), port(1, 81)] }), "bad_request", "published twice"),
        (json!({ "publish": many }), "bad_request", "a VM has at most 64"),
        (json!({ "publish": [port(65_536, 80)] }), "bad_request", "is invalid"),
        (json!({ "publish": ["80:80"] }), "bad_request", "is invalid"),
        // Labels.
        (json!({ "labels": { "a b": "" } }), "bad_request", "`a b` is not a label key"),
        (json!({ "labels": { "": "x" } }), "bad_request", "it is empty"),
        (json!({ "labels": { "a": "\u{7}" } }), "bad_request", "has control characters"),
        (json!({ "labels": { "a": "x".repeat(257) } }), "bad_request", "longer than 256"),
        (json!({ "labels": many_labels }), "bad_request", "65 labels: a VM has at most 64"),
        (json!({ "labels": ["a"] }), "bad_request", "`labels` is invalid"),
        (json!({ "labels": { "a": 1 } }), "bad_request", "`labels.a` is invalid"),
        // References.
        (json!({ "image": "nope" }), "not_found", "there is no image `nope`"),
        (json!({ "kernel": "nope" }), "not_found", "there is no kernel `nope`"),
        // Shapes.
        (json!({ "colour": "red" }), "bad_request", "`colour`"),
        (json!({ "lifetime": "forever" }), "bad_request", "`lifetime` is invalid"),
        (json!({ "no_start": true, "lifetime": "session" }), "bad_request", "must be started"),
        (json!({ "nat": "on" }), "bad_request", "`nat` is invalid"),
        (json!({ "image": "" }), "bad_request", "`image` is ``"),
        (json!({ "image": "../etc" }), "bad_request", "`image` is `../etc`"),
        (json!({ "kernel": "A" }), "bad_request", "`kernel` is `A`"),
        (json!([]), "bad_request", "it must be a JSON object"),
        (json!(null), "bad_request", "the request has no body"),
    ];
    for (body, code, words) in cases {
        let reply = daemon.post("/v1/vms", &body.to_string());
        let (seen, message) = reply.error();
        assert_eq!(seen, code, "{body}: {message}");
        assert!(message.contains(words), "{body}: {message}");
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for body in ["", "{", "{}{}", "{\"name\":\"a\",\"name\":\"b\"}", "\u{0}", "nul", &deep] {
        let (code, _) = daemon.post("/v1/vms", body).error();
        assert_eq!(code, "bad_request", "{body:.20}");
    }
    assert_eq!(daemon.get("/v1/vms").ok().as_array().unwrap().len(), 1);
    assert_eq!(daemon.get("/v1/operations").ok().as_array().unwrap().len(), 1);
    daemon.stop();
}

#[test]
fn filters_of_the_list() {
    let home = Home::new();
    let daemon = home.start();
    for n in 0..3 {
        daemon.make(&format!("vm-{n}"));
    }
    for path in [
        "/v1/vms?filter=colour=red",
        "/v1/vms?filter=",
        "/v1/vms?filter=state=up",
        "/v1/vms?filter=label=a_",
        "/v1/vms?fitler=state=running",
        "/v1/vms?filter=%ff",
    ] {
        let reply = daemon.get(path);
        assert_eq!((reply.status, reply.error().0.as_str()), (400, "bad_request"), "{path}");
    }
    let many = format!("/v1/vms?{}", ["filter=name=a"; 65].join("&"));
    assert_eq!(daemon.get(&many).error().1, "65 filters: a request has at most 64");
    let found = daemon.get("/v1/vms?filter=name%3Dvm-1&filter=name=vm-2&filter=state=stopped").ok();
    assert_eq!(found.as_array().unwrap().len(), 2, "{found}");
    daemon.stop();
}

#[test]
fn references_and_actions() {
    let home = Home::new();
    let daemon = home.start();
    // With seventeen ids, two begin with the same digit.
    let ids: Vec<String> = (0..17)
        .map(|n| daemon.make(&format!("vm-{n}"))["vm"]["id"].as_str().unwrap().to_owned())
        .collect();
    let twin = ids
        .iter()
        .map(|id| &id[..1])
        .find(|first| ids.iter().filter(|id| id.starts_with(first)).count() > 1);
    let ambiguous = daemon.get(&format!("/v1/vms/{}", twin.unwrap()));
    assert_eq!((ambiguous.status, ambiguous.error().0.as_str()), (409, "ambiguous"));
    assert!(ambiguous.error().1.contains("matches vm-"));

    for path in ["/v1/vms/nope", "/v1/vms/nope/health", "/v1/operations/op-000000", "/v1/images/x"]
    {
        let reply = daemon.get(path);
        assert_eq!((reply.status, reply.error().0.as_str()), (404, "not_found"), "{path}");
    }
    for (path, body) in
        [("/v1/vms/nope/actions", r#"{"start": {}}"#), ("/v1/operations/op-000000/cancel", "{}")]
    {
        assert_eq!(daemon.post(path, body).error().0, "not_found", "{path}");
    }
    for path in [
        "/v1/vms/%ff",
        "/v1/operations/../daemon",
        "/v1/operations/op-1",
        "/v1/operations/op-00000!/events",
        "/v1/operations?limit=0",
        "/v1/operations?limit=-1",
        "/v1/operations?limit=99999999999",
        "/v1/operations?color=red",
        "/v2/vms",
        "/",
        "/v1/vms/",
        "/v1/vms/vm-1/",
    ] {
        let reply = daemon.get(path);
        assert_eq!((reply.status, reply.error().0.as_str()), (400, "bad_request"), "{path}");
    }
    for (path, body, words) in [
        ("/v1/vms/vm-1/actions", r#"{"set": {"unlabel": ["a b"]}}"#, "`set.unlabel[0]` is invalid"),
        ("/v1/vms/vm-1/actions", r#"{"set": {"labels": {"_": ""}}}"#, "`set.labels` is invalid"),
        ("/v1/vms/vm-1/actions", r#"{"explode": {}}"#, "unknown variant `explode`"),
        ("/v1/vms/vm-1/actions", r#"{"stop": {"grace": 1}}"#, "`grace`"),
        ("/v1/vms/vm-1/actions", r#"{"stop": {"grace_ms": -1}}"#, "`stop.grace_ms`"),
        ("/v1/vms/vm-1/actions", r#"{"stop": {"grace_ms": 86400001}}"#, "a grace period of"),
        ("/v1/vms/vm-1/actions", r#"{"stop": {"force": 1}}"#, "`force`"),
        ("/v1/image-pulls", "{}", "missing field `name`"),
        ("/v1/image-pulls", r#"{"name": "../x"}"#, "`../x` is not an image of a registry"),
        ("/v1/image-builds", r#"{"name": "x", "from": ""}"#, "`` is not an image of a registry"),
        ("/v1/image-imports", r#"{"name": "x", "path": "y"}"#, "`y` is not an absolute path"),
        ("/v1/kernel-pulls", r#"{"name": ""}"#, "`` is not a name"),
        ("/v1/daemon/stop", r#"{"now": true}"#, "`now`"),
    ] {
        let (code, message) = daemon.post(path, body).error();
        assert_eq!(code, "bad_request", "{path} {body}: {message}");
        assert!(message.contains(words), "{path} {body}: {message}");
    }
    daemon.run("busy");
    let refused = daemon.post("/v1/vms/busy/actions", r#"{"delete": {}}"#);
    assert_eq!((refused.status, refused.error().0.as_str()), (409, "wrong_state"));
    daemon.stop();
}

#[test]
fn http_that_is_none() {
    let home = Home::new();
    let daemon = home.start();
    let post = |headers: &str, body: &[u8]| -> Reply {
        let mut request = format!("POST /v1/vms HTTP/1.0\r\nhost: x\r\n{headers}\r\n").into_bytes();
        request.extend_from_slice(body);
        daemon.raw(&request)
    };
    let (_, text) = post("content-type: text/plain\r\ncontent-length: 2\r\n", b"{}").error();
    assert!(text.contains("has the type `text/plain`"), "{text}");
    let (_, text) = post("content-length: 2\r\n", b"{}").error();
    assert!(text.contains("it must be `application/json`"), "{text}");
    let huge = vec![b' '; (1 << 20) + 1];
    let head = format!("content-type: application/json\r\ncontent-length: {}\r\n", huge.len());
    let (code, text) = post(&head, &huge).error();
    assert_eq!((code.as_str(), text.as_str()), ("bad_request", "the body is larger than 1 MiB"));
    let chunked = "POST /v1/vms HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(daemon.raw(chunked.as_bytes()).status, 400);
    for method in ["DELETE", "PUT", "PATCH", "OPTIONS", "FROB"] {
        let reply = daemon.raw(format!("{method} /v1/vms HTTP/1.0\r\n\r\n").as_bytes());
        assert_eq!((reply.status, reply.headers["allow"].as_str()), (405, "GET,HEAD,POST"));
        assert!(reply.error().1.contains("has no method"), "{method}");
    }
    assert_eq!(daemon.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").status, 400);
    assert_eq!(daemon.raw(b"GET / HTTP/9.9\r\n\r\n").status, 400);
    let long = format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(200_000));
    assert!(daemon.raw(long.as_bytes()).status >= 400);
    let many = format!("GET / HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(5000));
    assert!(daemon.raw(many.as_bytes()).status >= 400);
    for seq in ["x", "-1", "9223372036854775808"] {
        let path = "/v1/operations/op-000000/events";
        let events = format!("GET {path} HTTP/1.0\r\nlast-event-id: {seq}\r\n\r\n");
        assert!(daemon.raw(events.as_bytes()).error().1.contains("`Last-Event-ID`"), "{seq}");
    }
    let (code, text) = daemon.post("/v1/image-uploads?name=x", "").error();
    assert_eq!(code, "bad_request");
    assert!(text.contains("the data is empty: it needs a tar archive"), "{text}");
    assert_eq!(daemon.get("/v1/vms").ok(), json!([]), "and it still serves");
    daemon.stop();
}

#[test]
fn an_upload_that_breaks_off_and_a_head_of_an_archive_are_answered() {
    let home = Home::new();
    let daemon = home.start();
    daemon.run("web");
    for _ in 0..20 {
        let mut stream = daemon.connect();
        let head = "PUT /v1/vms/web/archive?path=x&source=file HTTP/1.1\r\nhost: x\r\n\
                    content-type: application/x-tar\r\ncontent-length: 8\r\n\r\n1234567";
        stream.write_all(head.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    for (path, status) in [("x?path=/", 404), ("web/archive", 400), ("web/archive?path=/", 200)] {
        let mut stream = daemon.connect();
        let head = format!("HEAD /v1/vms/{path} HTTP/1.0\r\nhost: x\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")), "{path}: {answer}");
    }
    daemon.stop();
}
