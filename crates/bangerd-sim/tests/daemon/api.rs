//! Round trips over the API.

use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::support::Home;

#[test]
fn a_life() {
    let home = Home::new();
    let daemon = home.start();
    assert_eq!(daemon.get("/v1/vms").ok(), json!([]));
    let accepted = daemon.run("web");
    assert_eq!(accepted["vm"]["name"], "web");
    let id = accepted["vm"]["id"].as_str().unwrap();

    let list = daemon.get("/v1/vms").ok();
    assert_eq!(list[0]["state"], "running");
    let shown = daemon.get(&format!("/v1/vms/{}", &id[..4])).ok();
    assert_eq!((&shown["id"], &shown["state"]), (&json!(id), &json!("running")));
    assert!(shown["boot_id"].is_string() && shown["pid"].is_u64());
    let stages = shown["start"]["stages"].as_array().unwrap();
    let names: Vec<&str> = stages.iter().filter_map(|stage| stage["name"].as_str()).collect();
    assert_eq!(names[..2], ["preflight", "prepare_disks"], "the start alone, not the create");
    let once = names.iter().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(once.len(), names.len(), "{names:?}");
    let health = daemon.get("/v1/vms/web/health").ok();
    assert_eq!((&health["agent"], &health["boot_id"]), (&json!("ok"), &shown["boot_id"]));

    let again = daemon.post("/v1/vms/web/actions", r#"{"start": {}}"#);
    assert_eq!((again.status, again.ok()["operation"].clone()), (200, Value::Null));
    daemon.done("/v1/vms/web/actions", r#"{"restart": {}}"#);
    assert_ne!(daemon.get("/v1/vms/web").ok()["boot_id"], shown["boot_id"]);
    daemon.done("/v1/vms/web/actions", r#"{"stop": {"grace_ms": 5000}}"#);
    let stopped = daemon.get("/v1/vms/web").ok();
    assert_eq!(stopped["stopped_because"], json!({ "reason": "asked", "how": "graceful" }));
    assert_eq!(daemon.get("/v1/vms/web/health").ok()["agent"], "not_running");

    daemon.done("/v1/vms/web/actions", r#"{"delete": {}}"#);
    assert_eq!(daemon.get("/v1/vms").ok(), json!([]));
    assert!(home.world().objects.is_empty());
    let operations = daemon.get("/v1/operations?limit=3").ok();
    let kinds: Vec<&str> =
        operations.as_array().unwrap().iter().map(|op| op["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["delete", "stop", "restart"]);
    daemon.stop();
}

#[test]
fn images_and_kernels() {
    let home = Home::new();
    let daemon = home.start();
    let pull = |path, name: &str| daemon.done(path, &json!({ "name": name }).to_string());
    pull("/v1/image-pulls", "debian");
    pull("/v1/kernel-pulls", "debian-cloud");
    daemon.done("/v1/image-imports", r#"{"path": "/x.tar", "name": "mine"}"#);
    assert_eq!(daemon.get("/v1/images").ok().as_array().unwrap().len(), 2);
    assert_eq!(daemon.get("/v1/images/mine").ok()["names"], json!(["mine"]));
    assert_eq!(daemon.get("/v1/kernels").ok()[0]["names"], json!(["debian-cloud"]));
    daemon.make("web");
    let used = daemon.delete("/v1/images/debian");
    assert_eq!((used.status, used.error().0.as_str()), (409, "in_use"));
    assert_eq!(daemon.delete("/v1/kernels/debian-cloud").status, 409);
    assert_eq!(daemon.delete("/v1/images/mine").ok()["freed_bytes"], 64 << 20);
    assert_eq!(daemon.get("/v1/images/mine").status, 404);
    daemon.stop();
}

#[test]
fn events_can_be_left_and_rejoined() {
    let home = Home::new();
    let daemon = home.start();
    let accepted = daemon.run("web");
    let operation = accepted["operation"].as_str().unwrap().to_owned();
    let all = daemon.events(&operation, 0);
    let numbers: Vec<u64> = all.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=all.len() as u64).collect::<Vec<_>>());
    let (subject, id) = (&all[0]["subject"], &accepted["vm"]["id"]);
    assert_eq!(*subject, json!({ "type": "vm", "id": id, "name": "web" }));
    let stages: Vec<&str> = all
        .iter()
        .filter(|event| event["event"] == "stage_done")
        .map(|event| event["stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages.last(), Some(&"ready"));
    assert_eq!(daemon.events(&operation, 5), all[5..]);
    assert_eq!(daemon.events(&operation, all.len() as u64), Vec::<Value>::new());
    daemon.stop();

    // The next daemon remembers the end only.
    let daemon = home.start();
    let end = daemon.events(&operation, 5);
    assert_eq!(end, [json!({ "seq": 6, "at_ms": 0, "event": "succeeded" })]);
    assert_eq!(daemon.get(&format!("/v1/operations/{operation}")).ok()["state"], "succeeded");
    daemon.stop();
}

#[test]
fn events_come_while_they_happen() {
    let home = Home::new();
    let daemon = home.start_with(&[("BANGER_SIM_BEHAVIORS", "web=stubborn")]);
    daemon.run("web");
    let body = r#"{"stop": {"grace_ms": 300}}"#;
    let operation = daemon.post("/v1/vms/web/actions", body).ok()["operation"].clone();
    let head = format!(
        "GET /v1/operations/{}/events HTTP/1.1\r\nhost: x\r\n\r\n",
        operation.as_str().unwrap()
    );
    let mut stream = daemon.connect();
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    let mut early = 0;
    while !String::from_utf8_lossy(&text).contains("\"event\":\"succeeded\"") {
        early = text.len();
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..count]);
    }
    let early = String::from_utf8_lossy(&text[..early]).into_owned();
    assert!(early.contains("\"stage\":\"shutdown\""), "all of it came at the end: {early}");
    // The connection serves on after the stream has ended.
    while !text.ends_with(b"0\r\n\r\n") {
        let count = stream.read(&mut piece).unwrap();
        text.extend_from_slice(&piece[..count]);
    }
    stream.write_all(b"GET /v1/vms HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let count = stream.read(&mut piece).unwrap();
    assert!(piece[..count].starts_with(b"HTTP/1.1 200 OK"));
    daemon.stop();
}

#[test]
fn hanging_vms_can_be_cancelled_and_killed() {
    let home = Home::new();
    let behaviors = ("BANGER_SIM_BEHAVIORS", "hung=silent,stuck=stubborn");
    let daemon = home.start_with(&[behaviors]);
    let accepted = daemon.post("/v1/vms", r#"{"name": "hung"}"#).ok();
    let operation = accepted["operation"].as_str().unwrap();
    daemon.wait_for("hung", "starting");
    assert_eq!(daemon.get("/v1/vms/hung").ok()["operation"], operation);
    assert_eq!(daemon.get("/v1/daemon").ok()["operations"], 1);
    assert_eq!(daemon.post(&format!("/v1/operations/{operation}/cancel"), "").status, 202);
    let end = daemon.events(operation, 0).pop().unwrap();
    assert_eq!(end["error"]["code"], "cancelled");
    assert_eq!(daemon.state("hung"), "stopped", "made, and its start undone");

    daemon.run("stuck");
    let stop = daemon.post("/v1/vms/stuck/actions", r#"{"stop": {"grace_ms": 60000}}"#).ok();
    daemon.wait_for("stuck", "stopping");
    daemon.done("/v1/vms/stuck/actions", r#"{"kill": {}}"#);
    let events = daemon.events(stop["operation"].as_str().unwrap(), 0);
    assert_eq!(events.last().unwrap()["event"], "succeeded");
    let shown = daemon.get("/v1/vms/stuck").ok();
    assert_eq!(shown["stopped_because"], json!({ "reason": "asked", "how": "killed" }));

    daemon.done("/v1/vms/stuck/actions", r#"{"start": {}}"#);
    let stop = daemon.done("/v1/vms/stuck/actions", r#"{"stop": {"grace_ms": 20}}"#);
    let events = daemon.events(stop["operation"].as_str().unwrap(), 0);
    assert!(events.iter().any(|event| event["event"] == "warning"), "{events:?}");
    daemon.stop();
}

#[test]
fn failed_undos_are_shown_and_repaired() {
    let home = Home::new();
    let daemon = home.start_with(&[("BANGER_SIM_FAULTS", "ready:after:1,undo network:before:1")]);
    let accepted = daemon.post("/v1/vms", r#"{"name": "web"}"#).ok();
    let end = daemon.events(accepted["operation"].as_str().unwrap(), 0).pop().unwrap();
    assert_eq!(end["event"], "failed");
    let shown = daemon.get("/v1/vms/web").ok();
    assert_eq!(shown["state"], "broken");
    let problems = shown["problems"].to_string();
    assert!(problems.contains("simulated failure before `undo network`"), "{problems}");
    let refused = daemon.post("/v1/vms/web/actions", r#"{"start": {}}"#);
    assert_eq!((refused.status, refused.error().0.as_str()), (409, "wrong_state"));
    daemon.kill();
    let daemon = home.start();
    assert_eq!(daemon.state("web"), "broken", "a new daemon touches nothing");
    daemon.done("/v1/vms/web/actions", r#"{"repair": {}}"#);
    daemon.done("/v1/vms/web/actions", r#"{"start": {}}"#);
    daemon.stop();
}

#[test]
fn a_client_that_goes_away_leaves_nothing_half_done() {
    let home = Home::new();
    let daemon = home.start();
    let names: Vec<String> = (0..20).map(|n| format!("gone-{n}")).collect();
    for name in &names {
        let body = json!({ "name": name }).to_string();
        let mut stream = daemon.connect();
        let head = "POST /v1/vms HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).unwrap();
    }
    let mut stream = daemon.connect();
    stream.write_all(b"POST /v1/vms HTTP/1.1\r\ncontent-length: 99\r\n\r\n{\"name\"").unwrap();
    drop(stream);
    // Somebody who only follows may leave, too.
    let body = r#"{"name": "followed"}"#;
    let operation = daemon.post("/v1/vms", body).ok()["operation"].clone();
    let path = format!("/v1/operations/{}/events", operation.as_str().unwrap());
    let mut stream = daemon.connect();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
    drop(stream);
    daemon.wait_for("followed", "running");
    daemon.stop();
    // Each request was heard whole, or not at all: each VM has all that this one has.
    let stored = home.stored();
    let followed = stored.vms.iter().find(|vm| vm.plan.name.as_str() == "followed").unwrap();
    let whole = home.world().of(&followed.plan.id).len();
    assert!(stored.open_ops.is_empty());
    for vm in &stored.vms {
        assert_eq!(vm.state, banger_api::vm::VmState::Running, "{}", vm.plan.name);
        assert_eq!(home.world().of(&vm.plan.id).len(), whole, "{}", vm.plan.name);
    }
    assert_eq!(home.world().objects.len(), whole * stored.vms.len());
}

#[test]
fn settings_take_effect() {
    let home = Home::new();
    std::fs::create_dir_all(home.file("config")).unwrap();
    let text = "default_image = \"mine\"\n[vm_defaults]\nvcpus = 3\nmemory = \"768M\"\n";
    std::fs::write(home.file("config/config.toml"), text).unwrap();
    let daemon = home.start_with(&[("BANGER_VM_DEFAULTS_VCPUS", "4")]);
    daemon.done("/v1/image-imports", r#"{"path": "/x.tar", "name": "mine"}"#);
    daemon.run("web");
    let vm = daemon.get("/v1/vms/web").ok();
    assert_eq!((&vm["image"], &vm["vcpus"]), (&json!("mine"), &json!(4)));
    assert_eq!(vm["memory_mib"], 768);
    assert_eq!(daemon.get("/v1/daemon").ok()["defaults"]["vcpus"], 4);
    let doctor = daemon.get("/v1/doctor").ok();
    let seen = |code: &str| {
        let checks = doctor.as_array().unwrap();
        let check = checks.iter().find(|check| check["code"] == code).unwrap();
        check["seen"].as_str().unwrap().to_owned()
    };
    assert_eq!(seen("config.default_image"), "`mine`, from the configuration file");
    assert_eq!(
        seen("config.vm_defaults.vcpus"),
        "`4`, from the variable `BANGER_VM_DEFAULTS_VCPUS`"
    );
    daemon.stop();
}

#[test]
fn a_thousand_vms_are_created_and_listed() {
    let home = Home::new();
    let daemon = home.start();
    let operations: Vec<String> = (0..1000)
        .map(|n| {
            let body = json!({ "name": format!("vm-{n}"), "no_start": true }).to_string();
            daemon.post("/v1/vms", &body).ok()["operation"].as_str().unwrap().to_owned()
        })
        .collect();
    for operation in operations {
        assert_eq!(daemon.events(&operation, 0).last().unwrap()["event"], "succeeded");
    }
    // How long it takes is measured by `cargo xtask bench --simulated`.
    assert_eq!(daemon.get("/v1/vms").ok().as_array().unwrap().len(), 1000);
    daemon.stop();
}

#[test]
fn usage_is_sampled_for_the_selected_vms() {
    let home = Home::new();
    let daemon = home.start();
    assert_eq!(daemon.get("/v1/stats").ok(), json!([]));
    let web = daemon.run("web")["vm"]["id"].clone();
    let db = daemon.make("db");
    let names = |path: &str| {
        let samples = daemon.get(path).ok();
        let samples = samples.as_array().unwrap();
        samples.iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("/v1/stats"), ["web"]);
    assert_eq!(names("/v1/stats?all=true"), ["db", "web"]);
    let id = web.as_str().unwrap();
    assert_eq!(names(&format!("/v1/stats?vms={id},0123456789ab")), ["web"], "unknown ids");
    let first = daemon.get("/v1/stats?guest=false").ok();
    assert!(first[0]["run"]["memory"]["guest"].is_null(), "{first}");
    let counters = |sample: &Value| {
        let run = &sample[0]["run"];
        [&run["sampled_us"], &run["cpu"]["time_us"], &run["network"]["sent_bytes"]]
            .map(|value| value.as_u64().unwrap())
    };
    // The clock of the simulated host has whole milliseconds.
    let mut second = daemon.get("/v1/stats").ok();
    while counters(&second).iter().zip(counters(&first)).any(|(now, then)| *now <= then) {
        second = daemon.get("/v1/stats").ok();
    }
    assert!(second[0]["run"]["memory"]["guest"]["total_bytes"].is_u64(), "{second}");
    for (query, part) in [
        ("vms=web", "`vms` has `web`, not the id of a VM"),
        ("vms=", "`vms` has ``"),
        ("all=1", "the query is invalid"),
        ("vm=x", "the query is invalid"),
    ] {
        let refused = daemon.get(&format!("/v1/stats?{query}"));
        let (_, message) = (refused.status, refused.error().1);
        assert!(refused.status == 400 && message.contains(part), "{query}: {message}");
    }
    drop(db);
    daemon.stop();
}

#[test]
fn metrics_count_vms_and_operations() {
    let home = Home::new();
    let daemon = home.start();
    daemon.run("web");
    daemon.make("db");
    daemon.post("/v1/vms", r#"{"name": "web"}"#);
    let host = daemon.get("/metrics").body;
    assert!(host.contains("banger_host_cpus{} ") && !host.contains("banger_vm_"), "{host}");
    assert!(host.contains("banger_stage_seconds_count{stage=\"boot\"} 1\n"), "{host}");
    assert_eq!(daemon.get("/metrics?vm=web").status, 400);
    let answer = daemon.get("/metrics?vms=true");
    assert_eq!(answer.status, 200);
    let text = answer.body;
    let value = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("{start}\n{text}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    assert_eq!(value("banger_vms{state=\"running\"}"), 1.0);
    assert_eq!(value("banger_vms{state=\"stopped\"}"), 1.0);
    assert!(value("banger_vm_memory_resident_bytes{vm=\"web\",id=") > 1e6);
    assert!(value("banger_vm_disk_used_bytes{vm=\"db\",id=") > 1e6);
    assert!(!text.contains("banger_vm_cpu_seconds_total{vm=\"db\""), "{text}");
    assert!(value("banger_operations_total{kind=\"create\",result=\"succeeded\"}") >= 2.0);
    assert_eq!(value("banger_operations_running{kind=\"create\"}"), 0.0);
    daemon.stop();
}
