//! Clients and hosts that leave the daemon few connections and descriptors.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::json;

use crate::support::{Daemon, Home};

/// Connections that send a request, keep the connection, and never read.
fn never_reading(daemon: &Daemon, count: usize) -> Vec<UnixStream> {
    let open = |_| {
        let mut stream = daemon.connect();
        let request = b"GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
        // The daemon may have closed it for the next one already.
        let _ = stream.write_all(&request.repeat(20));
        stream
    };
    (0..count).map(open).collect()
}

#[test]
fn clients_that_never_read_do_not_keep_others_out() {
    let home = Home::new();
    let daemon = home.start();
    let held = never_reading(&daemon, 600);
    daemon.make("web");
    assert_eq!(daemon.state("web"), "stopped");
    // A follower that reads nothing has its answer in the socket's buffer, and no claim to a slot.
    let more = never_reading(&daemon, 100);
    daemon.done("/v1/vms/web/actions", r#"{"start": {}}"#);
    drop((held, more));
    daemon.stop();
}

#[test]
fn a_low_limit_of_open_files_is_named_and_lived_with() {
    let home = Home::new();
    let plain = home.command();
    let mut command = Command::new("prlimit");
    command.arg("--nofile=110:110").arg(plain.get_program());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut daemon = Daemon::spawn(command, home.path().to_owned());
    assert_eq!(daemon.first_line(), "ready");
    let held = never_reading(&daemon, 130);
    daemon.run("web");
    let doctor = daemon.get("/v1/doctor").ok();
    let checks = doctor.as_array().unwrap();
    let check = checks.iter().find(|check| check["code"] == "limit.open_files").unwrap();
    assert_eq!(check["verdict"], "missing");
    assert!(check["seen"].as_str().unwrap().contains("110"), "{check}");
    drop(held);
    daemon.stop();
}

#[test]
fn objects_of_vms_that_the_store_lost_are_found_and_removed_except_disks() {
    let home = Home::new();
    let daemon = home.start();
    let web = daemon.make("web")["vm"]["id"].as_str().unwrap().to_owned();
    daemon.stop();
    for file in ["banger.db", "banger.db-wal", "banger.db-shm"] {
        let _ = std::fs::remove_file(home.file("state").join(file));
    }
    let world = home.file("state/sim-world.json");
    let mut lines = std::fs::read_to_string(&world).unwrap();
    let change = r#"{"spawned":9,"objects":{"network:0123456789ab":"","run:0123456789ab":""}}"#;
    lines.push_str(&format!("{change}\n"));
    std::fs::write(&world, lines).unwrap();
    let daemon = home.start();
    let seen = || {
        let doctor = daemon.get("/v1/doctor").ok();
        let found = doctor.as_array().unwrap().iter();
        let found = found.filter(|check| check["code"] == "leftover.vm");
        found.map(|check| check["seen"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = seen();
    assert_eq!(before.len(), 2, "{before:?}");
    assert!(before.iter().any(|seen| seen.contains("0123456789ab")), "{before:?}");
    let body = json!({ "ids": [web, "0123456789ab", "../x"] }).to_string();
    let removed = daemon.post("/v1/leftover-removals", &body).ok();
    assert_eq!(removed[1]["removed"].as_array().unwrap().len(), 2, "{removed}");
    assert!(removed[0]["error"]["message"].as_str().unwrap().contains("has disks"), "{removed}");
    assert_eq!(removed[2]["error"]["code"], "bad_request");
    let after = seen();
    assert!(after.len() == 1 && after[0].contains(&web), "{after:?}");
    daemon.stop();
    let log = std::fs::read_to_string(home.file("state/log/bangerd.log")).unwrap();
    assert!(log.contains("this VM is not in the database"), "{log}");
}
