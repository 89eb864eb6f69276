//! Clients and hosts that leave the daemon few connections and descriptors.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;

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
fn folders_of_vms_that_the_store_lost_are_found() {
    let home = Home::new();
    let daemon = home.start();
    daemon.make("web");
    daemon.stop();
    for file in ["banger.db", "banger.db-wal", "banger.db-shm"] {
        let _ = std::fs::remove_file(home.file("state").join(file));
    }
    std::fs::create_dir_all(home.file("state/vms/0123456789ab/run")).unwrap();
    let daemon = home.start();
    let doctor = daemon.get("/v1/doctor").ok();
    let found = doctor.as_array().unwrap().iter().find(|check| check["code"] == "leftover.vm");
    assert!(found.unwrap()["seen"].as_str().unwrap().contains("state/vms/0123456789ab"));
    daemon.stop();
    let log = std::fs::read_to_string(home.file("state/log/bangerd.log")).unwrap();
    assert!(log.contains("this VM folder is not in the database"), "{log}");
}
