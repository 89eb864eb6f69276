//! Operations on VMs, images and kernels: what is on record, also after the daemon was killed, and
//! what a cancel reaches.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Daemon, Home, PATIENCE};

/// Begins something; gives its operation.
fn begin(daemon: &Daemon, path: &str, body: &Value) -> String {
    let accepted = daemon.post(path, &body.to_string()).ok();
    accepted["operation"].as_str().unwrap().to_owned()
}

fn shown(daemon: &Daemon, operation: &str) -> Value {
    daemon.get(&format!("/v1/operations/{operation}")).ok()
}

fn cancel(daemon: &Daemon, operation: &str) -> (u16, Value) {
    let reply = daemon.post(&format!("/v1/operations/{operation}/cancel"), "");
    (reply.status, reply.json())
}

/// The end of an operation: its error code, or none.
fn end(daemon: &Daemon, operation: &str) -> Option<String> {
    let last = daemon.events(operation, 0).pop().unwrap();
    last["error"]["code"].as_str().map(str::to_owned)
}

fn wait_until(what: &str, true_now: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !true_now() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interrupted_fetch_is_on_record_and_cleaned_up() {
    let home = Home::new();
    let daemon = home.start_with(&[("BANGER_SIM_BEHAVIORS", "debian=silent,debian-cloud=silent")]);
    let image = begin(&daemon, "/v1/image-pulls", &json!({ "name": "debian" }));
    let kernel = begin(&daemon, "/v1/kernel-pulls", &json!({ "name": "debian-cloud" }));
    // A VM whose kernel is still being fetched.
    let vm = begin(&daemon, "/v1/vms", &json!({ "name": "web" }));
    wait_until("three unfinished files", || home.world().unfinished.len() == 3);
    daemon.kill();

    let daemon = home.start();
    for (operation, kind, subject) in [
        (&image, "pull_image", json!({ "type": "image", "name": "debian" })),
        (&kernel, "pull_kernel", json!({ "type": "kernel", "name": "debian-cloud" })),
    ] {
        let view = shown(&daemon, operation);
        assert_eq!((&view["kind"], &view["state"]), (&json!(kind), &json!("failed")));
        assert_eq!(view["subject"], subject);
        assert_eq!(view["error"]["code"], "interrupted");
        assert!(view["error"]["message"].as_str().unwrap().contains("the daemon ended"));
        assert_eq!(end(&daemon, operation).as_deref(), Some("interrupted"));
    }
    assert_eq!(shown(&daemon, &vm)["subject"]["name"], "web");
    assert_eq!(end(&daemon, &vm).as_deref(), Some("interrupted"));
    assert_eq!(daemon.state("web"), "gone");
    let list = daemon.get("/v1/operations").ok();
    let failed = list.as_array().unwrap().iter().filter(|op| op["state"] == "failed").count();
    assert_eq!(failed, 3, "{list}");
    daemon.stop();
    assert!(home.world().unfinished.is_empty(), "{:?}", home.world().unfinished);
    assert!(home.stored().open_ops.is_empty());
}

#[test]
fn the_id_of_a_new_image_is_recorded() {
    let home = Home::new();
    let daemon = home.start();
    let image = begin(&daemon, "/v1/image-pulls", &json!({ "name": "debian" }));
    let made = daemon.events(&image, 0).pop().unwrap()["made"].clone();
    assert_eq!(daemon.get("/v1/images/debian").ok()["id"], made);
    daemon.delete("/v1/images/debian").ok();
    daemon.kill();
    let daemon = home.start();
    let last = daemon.events(&image, 1).pop().unwrap();
    assert_eq!((&last["event"], &last["made"]), (&json!("succeeded"), &made));
    let newest = daemon.get("/v1/operations?limit=1").ok()[0].clone();
    assert_eq!(newest["kind"], "delete_image");
    assert_eq!(newest["subject"], json!({ "type": "image", "name": "debian", "id": made }));
    daemon.stop();
}

#[test]
fn a_cancel_reaches_the_right_operation() {
    let home = Home::new();
    let behaviors = "debian=silent,debian-cloud=silent,hung=silent,other=silent";
    let daemon = home.start_with(&[("BANGER_SIM_BEHAVIORS", behaviors)]);
    let image = begin(&daemon, "/v1/image-pulls", &json!({ "name": "debian" }));
    let kernel = begin(&daemon, "/v1/kernel-pulls", &json!({ "name": "debian-cloud" }));
    // Waits for its kernel, so there is no VM yet.
    let vm = begin(&daemon, "/v1/vms", &json!({ "name": "debian" }));

    // The same word names a VM and an image.
    let answers = daemon.post("/v1/cancels", r#"{"vm": "debian"}"#);
    assert_eq!(answers.status, 202);
    let cancelling = |operation: &str| {
        let (effect, state) = ("cancelling", "running");
        json!([{ "operation": operation, "effect": effect, "state": state }])
    };
    assert_eq!(answers.ok(), cancelling(&vm));
    assert_eq!(end(&daemon, &vm).as_deref(), Some("cancelled"));
    for operation in [&image, &kernel] {
        assert_eq!(shown(&daemon, operation)["state"], "running");
    }
    assert_eq!(daemon.post("/v1/cancels", r#"{"image": "debian"}"#).ok(), cancelling(&image));
    let last = daemon.events(&image, 0).pop().unwrap();
    assert_eq!(last["error"]["message"], "pull of image `debian` was cancelled");
    assert_eq!(shown(&daemon, &kernel)["state"], "running");
    let (status, answer) = cancel(&daemon, &kernel);
    assert_eq!((status, &answer["effect"]), (202, &json!("cancelling")));
    assert_eq!(end(&daemon, &kernel).as_deref(), Some("cancelled"));

    let none = daemon.post("/v1/cancels", r#"{"image": "debian"}"#);
    assert_eq!(none.status, 404);
    assert_eq!(none.error().1, "no operation is in progress on image `debian`");
    assert_eq!(daemon.post("/v1/cancels", r#"{"host": {}}"#).status, 404);
    assert_eq!(daemon.post("/v1/cancels", r#"{"disk": "x"}"#).status, 400);
    assert!(home.world().unfinished.is_empty());
    daemon.stop();
}

#[test]
fn two_starts_are_cancelled_one_by_one() {
    let home = Home::new();
    let daemon = home.start_with(&[("BANGER_SIM_BEHAVIORS", "one=silent,two=silent")]);
    let [one, two] = ["one", "two"].map(|name| {
        let operation = begin(&daemon, "/v1/vms", &json!({ "name": name }));
        daemon.wait_for(name, "starting");
        operation
    });
    assert_eq!(cancel(&daemon, &two).0, 202);
    assert_eq!(end(&daemon, &two).as_deref(), Some("cancelled"));
    assert_eq!((daemon.state("one"), daemon.state("two")), ("starting".into(), "stopped".into()));
    daemon.post("/v1/cancels", r#"{"vm": "one"}"#).ok();
    assert_eq!(end(&daemon, &one).as_deref(), Some("cancelled"));
    daemon.stop();
}

#[test]
fn cancelling_an_ended_operation_reports_its_end() {
    let home = Home::new();
    let daemon = home.start();
    let operation = daemon.run("web")["operation"].as_str().unwrap().to_owned();
    let ended = json!({ "operation": operation, "effect": "ended", "state": "succeeded" });
    assert_eq!(cancel(&daemon, &operation), (200, ended.clone()));
    assert_eq!(daemon.state("web"), "running");
    daemon.stop();
    let daemon = home.start();
    assert_eq!(cancel(&daemon, &operation), (200, ended), "also long after");
    assert_eq!(daemon.post("/v1/operations/op-000000/cancel", "").status, 404);
    daemon.stop();
}

#[test]
fn a_stop_continues_and_queued_operations_are_cancelled() {
    let home = Home::new();
    let daemon = home.start_with(&[("BANGER_SIM_BEHAVIORS", "web=stubborn")]);
    daemon.run("web");
    let actions = "/v1/vms/web/actions";
    let stop = begin(&daemon, actions, &json!({ "stop": { "grace_ms": 60_000 } }));
    daemon.wait_for("web", "stopping");
    let (status, refused) = cancel(&daemon, &stop);
    assert_eq!((status, &refused["code"]), (409, &json!("wrong_state")));
    assert_eq!(refused["message"], "stop of `web` cannot be cancelled: it continues");
    let kill = json!({
        "hint": "ask_vm", "vm": "web", "action": { "kill": {} },
        "text": "`banger vm kill web` ends it at once",
    });
    assert_eq!(refused["hints"][0], kill);

    let start = begin(&daemon, actions, &json!({ "start": {} }));
    let (status, answer) = cancel(&daemon, &start);
    assert_eq!((status, &answer["effect"]), (202, &json!("not_begun")));
    assert_eq!(answer["state"], "failed");
    assert_eq!(end(&daemon, &start).as_deref(), Some("cancelled"));

    // By subject, what waits is cancelled although what runs goes on.
    let start = begin(&daemon, actions, &json!({ "start": {} }));
    let answers = daemon.post("/v1/cancels", r#"{"vm": "web"}"#).ok();
    assert_eq!(answers[0]["operation"], json!(start));
    assert_eq!(answers.as_array().unwrap().len(), 1, "{answers}");
    assert_eq!(daemon.post("/v1/cancels", r#"{"vm": "web"}"#).status, 409, "only the stop is left");
    daemon.done(actions, r#"{"kill": {}}"#);
    assert_eq!(end(&daemon, &stop), None);
    assert_eq!(daemon.state("web"), "stopped");
    daemon.stop();
}

/// A guest that ends by itself while somebody waits for its boot.
#[test]
fn a_wait_for_a_boot_ends_with_the_story_of_the_guest() {
    let home = Home::new();
    let behaviors = "early=ends-early,late=sluggish";
    let daemon = home.start_with(&[("BANGER_SIM_BEHAVIORS", behaviors)]);
    let wait = |name: &str| {
        let reply = daemon.get(&format!("/v1/vms/{name}/boot?wait=booted&timeout_ms=20000"));
        (reply.status, reply.json())
    };
    daemon.run("early");
    let (status, error) = wait("early");
    assert!(status >= 400, "{error}");
    assert_eq!(error["causes"][0], "the guest powered itself off", "{error}");
    daemon.wait_for("early", "stopped");
    let (status, error) = wait("early");
    assert_eq!((status, &error["code"]), (409, &json!("wrong_state")));
    assert_eq!(error["causes"], json!(["the guest powered itself off"]), "also afterwards");
    // One that was stopped on request is not waited for, and has no story.
    daemon.run("late");
    daemon.done("/v1/vms/late/actions", r#"{"stop": {"grace_ms": 1000}}"#);
    let (status, error) = wait("late");
    assert_eq!((status, &error["causes"]), (409, &Value::Null));
    daemon.stop();
}

/// A disk of the host that is nearly full.
#[test]
fn a_start_has_the_warnings_that_show_reports_for_the_run() {
    let home = Home::new();
    let daemon = home.start_with(&[("BANGER_SIM_BEHAVIORS", "tight=crowded")]);
    daemon.make("tight");
    let accepted = daemon.post("/v1/vms/tight/actions", r#"{"start": {}}"#).ok();
    let events = daemon.events(accepted["operation"].as_str().unwrap(), 0);
    let warnings: Vec<_> = events.iter().filter(|event| event["event"] == "warning").collect();
    assert_eq!(warnings.len(), 1, "{events:?}");
    let text = &warnings[0]["text"];
    assert_eq!(text, "the disk of the host has 1 MiB left");
    assert_eq!(&daemon.get("/v1/vms/tight").ok()["notices"][0], text);
    daemon.stop();
}
