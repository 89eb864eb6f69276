//! Everything through the API: logs, the stream of events, commands by upgrade, the build.

use std::io::{BufRead, BufReader, Read, Write};

use serde_json::{Value, json};

use crate::support::{Daemon, Home};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_daemons_log_is_filtered_by_vm_and_operation() {
    let home = Home::new();
    let daemon = home.start();
    let web = daemon.run("web");
    daemon.run("db");
    let all = lines(&daemon.get("/v1/daemon/logs").body);
    assert_eq!(all[0]["message"], "begin");
    let of_web = lines(&daemon.get("/v1/daemon/logs?vm=web").body);
    let stages: Vec<&str> = of_web.iter().filter_map(|line| line["stage"].as_str()).collect();
    assert!(stages.contains(&"boot") && stages.contains(&"ready"), "{stages:?}");
    assert!(of_web.iter().all(|line| line["vm_name"] == "web" && line["kind"] == "create"));
    let operation = web["operation"].as_str().unwrap();
    let path = format!("/v1/daemon/logs?operation={operation}&tail=1");
    let last = lines(&daemon.get(&path).body);
    assert_eq!(last.len(), 1);
    assert_eq!(
        (&last[0]["message"], &last[0]["op"]),
        (&json!("operation succeeded"), &json!(operation))
    );
    assert_eq!(daemon.get("/v1/daemon/logs?tail=0").body, "");
    for bad in ["tail=100001", "tail=x", "what=1"] {
        assert_eq!(daemon.get(&format!("/v1/daemon/logs?{bad}")).status, 400, "{bad}");
    }
    daemon.stop();
}

#[test]
fn a_vms_log_is_read_and_followed() {
    let home = Home::new();
    let daemon = home.start();
    daemon.run("web");
    let path = daemon.get("/v1/vms/web").ok()["paths"]["console_log"].as_str().unwrap().to_owned();
    std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
    std::fs::write(&path, "one\ntwo\n").unwrap();
    assert_eq!(daemon.get("/v1/vms/web/logs").body, "one\ntwo\n");
    assert_eq!(daemon.get("/v1/vms/web/logs?tail=1").body, "two\n");
    assert_eq!(daemon.get("/v1/vms/web/logs?source=vmm").body, "");
    let whole = daemon.get("/v1/vms/web/logs");
    let (file, begin) = whole.headers["banger-log-place"].split_once(':').unwrap();
    assert_eq!(begin, "0");
    assert_eq!(daemon.get(&format!("/v1/vms/web/logs?from={file}:4")).body, "two\n");
    for bad in ["from=1", "from=1:0&tail=1", "from=1&source=agent", "places=true", "tail=100001"] {
        assert_eq!(daemon.get(&format!("/v1/vms/web/logs?{bad}")).status, 400, "{bad}");
    }
    std::fs::write(&path, "banger: no clock\r\none\nbanger: x\ntwo\n").unwrap();
    let agent = daemon.get("/v1/vms/web/logs?source=agent").body;
    assert_eq!(agent, "banger: no clock\nbanger: x\n");
    assert_eq!(daemon.get("/v1/vms/web/logs?source=agent&tail=1").body, "banger: x\n");
    let placed = daemon.get("/v1/vms/web/logs?source=agent&places=true").body;
    let (first, rest) = placed.split_once(" banger: no clock\n").unwrap();
    assert!(first.ends_with(":18") && rest.ends_with(":32 banger: x\n"), "{placed}");
    let from_first = daemon.get(&format!("/v1/vms/web/logs?source=agent&from={first}")).body;
    assert_eq!(from_first, "banger: x\n");
    assert_eq!(daemon.get("/v1/vms/web/logs?source=x").status, 400);
    assert_eq!(daemon.get("/v1/vms/db/logs").status, 404);
    let mut stream = daemon.connect();
    stream
        .write_all(b"GET /v1/vms/web/logs?tail=1&follow=true HTTP/1.0\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut follower = BufReader::new(stream);
    let mut line = String::new();
    while line != "two\n" {
        line.clear();
        assert!(follower.read_line(&mut line).unwrap() > 0);
    }
    let mut log = std::fs::File::options().append(true).open(&path).unwrap();
    log.write_all(b"three\n").unwrap();
    line.clear();
    follower.read_line(&mut line).unwrap();
    assert_eq!(line, "three\n");
    // The daemon does not wait for followers.
    daemon.stop();
    assert_eq!(follower.read_line(&mut line).unwrap(), 0);
}

/// Opens the stream of events behind an event.
fn feed(daemon: &Daemon, query: &str, place: &str) -> BufReader<std::os::unix::net::UnixStream> {
    let mut stream = daemon.connect();
    let head =
        format!("GET /v1/events{query} HTTP/1.0\r\nhost: x\r\nlast-event-id: {place}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    BufReader::new(stream)
}

fn next_event(feed: &mut impl BufRead) -> Value {
    loop {
        let mut line = String::new();
        assert!(feed.read_line(&mut line).unwrap() > 0, "the feed ended");
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str(data).unwrap();
        }
    }
}

#[test]
fn changes_of_vms_are_followed_and_resumed() {
    let home = Home::new();
    let daemon = home.start();
    let mut first = feed(&daemon, "?about=vms", "");
    let all = next_event(&mut first);
    assert_eq!((&all["event"], &all["vms"]), (&json!("all"), &json!([])));
    let id = daemon.run("web")["vm"]["id"].clone();
    let mut generation = 0;
    loop {
        let event = next_event(&mut first);
        let vm = &event["vm"];
        assert_eq!((&event["event"], &vm["id"]), (&json!("changed"), &id));
        let now = vm["generation"].as_u64().unwrap();
        assert!(now >= generation, "{event}");
        generation = now;
        if vm["state"] == "running" && vm["operation"].is_null() {
            break;
        }
    }
    drop(first);
    daemon.done("/v1/vms/web/actions", r#"{"delete": {"force": true}}"#);
    // What happened meanwhile comes when the feed is taken up again.
    let mut resumed = feed(&daemon, "?about=vms", all["id"].as_str().unwrap());
    let mut last = next_event(&mut resumed);
    while last["event"] == "changed" {
        last = next_event(&mut resumed);
    }
    assert_eq!((&last["event"], &last["vm"]), (&json!("gone"), &id));
    daemon.stop();
}

#[test]
fn operations_are_followed_in_the_same_stream() {
    let home = Home::new();
    let daemon = home.start();
    let mut stream = feed(&daemon, "", "");
    let all = next_event(&mut stream);
    let nothing = (&json!("all"), &json!([]), &json!([]));
    assert_eq!((&all["event"], &all["vms"], &all["operations"]), nothing);
    let created = daemon.run("web");
    let (mut events, mut running) = (Vec::new(), false);
    loop {
        let event = next_event(&mut stream);
        running |= event["vm"]["state"] == "running";
        if event["event"] == "operation" {
            let now = &event["operation"];
            assert_eq!((&now["id"], &now["kind"]), (&created["operation"], &json!("create")));
            assert_eq!(now["subject"]["name"], "web");
            events.push(now["latest"]["event"].as_str().unwrap().to_owned());
            if now["latest"]["event"] == "succeeded" {
                break;
            }
        }
    }
    assert!(running, "a VM is running before its creation has succeeded");
    assert_eq!(events.first().map(String::as_str), Some("subject"));
    assert!(events.iter().any(|event| event == "stage_done"), "{events:?}");
    let mut selected = feed(&daemon, "?about=operations", all["id"].as_str().unwrap());
    for _ in &events {
        assert_eq!(next_event(&mut selected)["event"], "operation");
    }
    let mut missed = feed(&daemon, "", "another-1");
    let all = next_event(&mut missed);
    assert_eq!((&all["event"], &all["missed"]), (&json!("all"), &json!(true)));
    assert_eq!(daemon.get("/v1/events?about=hosts").status, 400);
    daemon.stop();
}

#[test]
fn a_command_runs_over_an_upgraded_connection() {
    let home = Home::new();
    let daemon = home.start();
    daemon.run("web");
    let body = json!({ "argv": ["echo", "hello"] }).to_string();
    let ask = |path: &str, upgrade: &str| {
        let mut stream = daemon.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\n{upgrade}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let upgrade = "connection: upgrade\r\nupgrade: banger-exec/1\r\n";
    let mut output = Vec::new();
    ask("/v1/vms/web/exec", upgrade).read_to_end(&mut output).unwrap();
    let text = String::from_utf8_lossy(&output);
    assert!(text.starts_with("HTTP/1.1 101"), "{text}");
    assert!(text.contains("hello\n"), "{text}");
    let mut refused = vec![0; 12];
    ask("/v1/vms/web/exec", "").read_exact(&mut refused).unwrap();
    assert_eq!(refused, b"HTTP/1.1 400");
    ask("/v1/vms/none/exec", upgrade).read_exact(&mut refused).unwrap();
    assert_eq!(refused, b"HTTP/1.1 404");
    daemon.stop();
}

#[test]
fn every_answer_names_the_build_and_another_one_is_refused() {
    let home = Home::new();
    let daemon = home.start();
    let build = daemon.get("/v1/daemon").ok()["build_id"].as_str().unwrap().to_owned();
    for path in ["/v1/vms", "/v1/vms/none", "/nowhere"] {
        assert_eq!(daemon.get(path).headers["banger-build"], build, "{path}");
    }
    let create = |expected: &str| {
        let body = r#"{"name": "web", "no_start": true}"#;
        let head = format!(
            "POST /v1/vms HTTP/1.0\r\nhost: x\r\nbanger-expect-build: {expected}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        daemon.raw(head.as_bytes()).status
    };
    assert_eq!(create("0123456789abcdef"), 421);
    assert_eq!(daemon.get("/v1/vms").ok(), json!([]), "nothing was done");
    assert_eq!(create(&build), 202);
    daemon.stop();
}
