//! What holds for every route: problem details, version, keys of requests, filters of lists.

use serde_json::{Value, json};

use crate::support::{Daemon, Home, Reply};

fn create(daemon: &Daemon, key: &str, body: &Value) -> Reply {
    let body = body.to_string();
    let head = format!(
        "POST /v1/vms HTTP/1.0\r\nhost: x\r\nidempotency-key: {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    daemon.raw(head.as_bytes())
}

#[test]
fn a_create_with_a_key_is_made_once_also_by_another_daemon() {
    let home = Home::new();
    let daemon = home.start();
    // Without a name each create would make another VM.
    let body = json!({ "no_start": true, "vcpus": 1 });
    let first = create(&daemon, "k-1", &body);
    assert_eq!((first.status, first.headers.get("idempotent-replayed")), (202, None));
    let again = create(&daemon, "k-1", &body);
    assert_eq!((again.status, again.ok()), (202, first.ok()));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let other = create(&daemon, "k-1", &json!({ "no_start": true, "vcpus": 2 }));
    assert_eq!((other.status, other.error().0.as_str()), (409, "in_use"));
    assert_ne!(create(&daemon, "k-2", &body).ok()["vm"], first.ok()["vm"]);
    // A request that was refused does not use up its key.
    let taken = json!({ "name": first.ok()["vm"]["name"] });
    assert_eq!(create(&daemon, "k-3", &taken).status, 409);
    assert_eq!(create(&daemon, "k-3", &body).status, 202);
    for bad in ["", "a b", &"k".repeat(256)] {
        assert_eq!(create(&daemon, bad, &body).status, 400, "{bad}");
    }
    for operation in daemon.get("/v1/operations").ok().as_array().unwrap() {
        daemon.events(operation["id"].as_str().unwrap(), 0);
    }
    daemon.kill();
    let daemon = home.start();
    let again = create(&daemon, "k-1", &body);
    assert_eq!((again.ok(), again.headers["idempotent-replayed"].as_str()), (first.ok(), "true"));
    assert_eq!(daemon.get("/v1/vms").ok().as_array().unwrap().len(), 3);
    daemon.stop();
}

#[test]
fn simultaneous_creates_with_a_key_make_one_vm() {
    let home = Home::new();
    let daemon = home.start();
    let body = json!({ "no_start": true });
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> =
            (0..8).map(|_| scope.spawn(|| create(&daemon, "same", &body).ok())).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    daemon.events(answers[0]["operation"].as_str().unwrap(), 0);
    assert_eq!(daemon.get("/v1/vms").ok().as_array().unwrap().len(), 1);
    daemon.stop();
}

#[test]
fn errors_are_problem_details_and_every_answer_has_the_version() {
    let home = Home::new();
    let daemon = home.start();
    let version = daemon.get("/v1/daemon").ok()["version"].as_str().unwrap().to_owned();
    let wrong_method = daemon.raw(b"PATCH /v1/vms HTTP/1.0\r\nhost: x\r\n\r\n");
    assert_eq!(wrong_method.status, 405);
    let mismatch = daemon.raw(b"GET /v1/vms HTTP/1.0\r\nhost: x\r\nbanger-expect-build: x\r\n\r\n");
    assert!(mismatch.error().1.contains(&version), "{mismatch:?}");
    for (reply, kind, status) in [
        (daemon.get("/v1/vms/none"), "not_found", 404),
        (daemon.get("/v1/vms?x=1"), "bad_request", 400),
        (daemon.post("/v1/vms", "{"), "bad_request", 400),
        (wrong_method, "bad_request", 405),
        (mismatch, "daemon_unavailable", 421),
    ] {
        assert_eq!(reply.headers["content-type"], "application/problem+json", "{reply:?}");
        assert_eq!(reply.headers["banger-version"], version);
        let problem = reply.json();
        assert_eq!(reply.status, status);
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:banger:error:{kind}"));
        assert_eq!((&problem["code"], &problem["detail"]), (&json!(kind), &problem["message"]));
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
    }
    let other = daemon.get("/v2/vms").error().1;
    assert!(other.contains("has the API v1") && other.contains(&version), "{other}");
    assert_eq!(daemon.get("/v1/vms").headers["banger-version"], version);
    daemon.stop();
}

#[test]
fn lists_are_filtered() {
    let home = Home::new();
    let daemon = home.start();
    daemon.make("web");
    daemon.run("db");
    let count = |path: &str| daemon.get(path).ok().as_array().unwrap().len();
    assert_eq!(count("/v1/operations"), 2);
    assert_eq!(count("/v1/operations?kind=create&state=succeeded"), 2);
    assert_eq!(count("/v1/operations?kind=stop"), 0);
    assert_eq!(count("/v1/operations?state=running"), 0);
    assert_eq!(count("/v1/operations?vm=web&limit=1"), 1);
    assert_eq!(daemon.get("/v1/operations?vm=web").ok()[0]["subject"]["name"], "web");
    for bad in ["kind=X", "kind=", "state=x", "vm=a/b", "vm=", "who=x"] {
        assert_eq!(daemon.get(&format!("/v1/operations?{bad}")).status, 400, "{bad}");
    }
    assert_eq!(count("/v1/images?name=deb*"), 1);
    assert_eq!(count("/v1/images?name=x*"), 0);
    assert_eq!(count("/v1/kernels?name=debian-cloud"), 1);
    for bad in ["images?name=", "images?name=a%20b", "kernels?names=x"] {
        assert_eq!(daemon.get(&format!("/v1/{bad}")).status, 400, "{bad}");
    }
    daemon.stop();
}
