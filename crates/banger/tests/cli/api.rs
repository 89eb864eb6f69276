//! `banger api`.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{home, run};

#[test]
fn requests_are_sent_and_answers_are_printed() {
    let home = home();
    let made =
        run(&home, "api POST vms -f name=web -F no_start=true -F vcpus=1 -F labels[team]=shop");
    assert_eq!(made.code, 0, "{}", made.err);
    let made: Value = serde_json::from_str(&made.out).unwrap();
    assert_eq!(made["vm"]["name"], "web");
    let events = format!("api GET /v1/operations/{}/events", made["operation"].as_str().unwrap());
    assert!(run(&home, &events).out.contains("\"succeeded\""));
    let listed = run(&home, "api GET /v1/vms -f filter=label=team=shop");
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!((&listed[0]["name"], &listed[0]["vcpus"]), (&json!("web"), &json!(1)));
    assert_eq!(run(&home, "api GET vms -f filter=state=running").out, "[]");
    let shown = run(&home, "api get vms/web -i").out;
    assert!(shown.starts_with("HTTP/1.1 200\n"), "{shown}");
    assert!(shown.contains("\nbanger-version: ") && shown.contains("\n\n{"), "{shown}");
}

#[test]
fn the_exit_code_is_that_of_the_error() {
    let home = home();
    for (line, code, kind) in [
        ("api GET vms/none", 3, "not_found"),
        ("api GET nowhere", 2, "bad_request"),
        ("api POST vms -F vcpus=0", 2, "bad_request"),
        ("api DELETE vms", 2, "bad_request"),
    ] {
        let ran = run(&home, line);
        let problem: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!((ran.code, &problem["code"]), (code, &json!(kind)), "{line}\n{}", ran.err);
        assert!(ran.err.starts_with("error: "), "{}", ran.err);
    }
    for line in ["api", "api FETCH vms", "api GET vms -f x", "api GET vms -H x", "api GET /"] {
        assert_eq!(run(&home, line).code, 2, "{line}");
    }
}

#[test]
fn bodies_come_from_files_and_answers_are_streamed() {
    let home = home();
    let file = home.path().join("body.json");
    std::fs::write(&file, r#"{"name": "web", "no_start": true}"#).unwrap();
    let path = file.to_str().unwrap();
    let key = "Idempotency-Key: one";
    for _ in 0..2 {
        let ran = home.run(&["api", "POST", "vms", "--input", path, "-H", key]);
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    assert_eq!(run(&home, "api POST vms --input /none").code, 2);
    let mut events = home
        .command(&["api", "GET", "events", "-F", "about=vms"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let mut next = || loop {
        let line = lines.next().unwrap().unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str::<Value>(data).unwrap();
        }
    };
    assert_eq!(next()["event"], "all");
    let mut create = home
        .command(&["api", "POST", "vms", "--input", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    create.stdin.take().unwrap().write_all(br#"{"name": "db", "no_start": true}"#).unwrap();
    assert!(create.wait().unwrap().success());
    while next()["vm"]["name"] != "db" {}
    events.kill().unwrap();
    events.wait().unwrap();
}
