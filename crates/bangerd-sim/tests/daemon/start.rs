//! How a daemon begins and ends.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use banger_api::{ApiError, ErrorCode};
use banger_engine::capabilities::ports::FORWARDER;
use rustix::process::Signal;
use serde_json::json;

use crate::support::{Daemon, Home};

/// Starts a daemon that must refuse to.
fn refused(home: &Home, command: Command) -> ApiError {
    let mut daemon = Daemon::spawn(command, home.path().to_owned());
    let line = daemon.first_line();
    let json = line.strip_prefix("error ").unwrap_or_else(|| panic!("`{line}`"));
    let error: ApiError = serde_json::from_str(json).unwrap();
    assert!(daemon.is_at_end());
    assert_eq!(daemon.ended().code(), Some(1));
    let words = daemon.complaint();
    assert!(words.starts_with(&format!("error: {}\n", error.message)), "{words}");
    error
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_are_private_to_their_owner() {
    let home = Home::new();
    let mut daemon = home.start();
    assert!(daemon.is_at_end(), "standard output is closed after `ready`");
    for folder in ["", "state", "state/log", "data", "cache", "run"] {
        assert_eq!(mode(&home.file(folder)), 0o700, "{folder}");
    }
    for file in [
        "run/bangerd.sock",
        "run/session.sock",
        "state/bangerd.lock",
        "state/log/bangerd.log",
        "state/banger.db",
        "state/sim-world.json",
    ] {
        assert_eq!(mode(&home.file(file)), 0o600, "{file}");
    }
    let status = daemon.get("/v1/daemon").ok();
    assert_eq!(status["pid"], daemon.pid());
    assert_eq!(status["socket"], daemon.socket().to_str().unwrap());
    assert_eq!(status["simulated"], true);
    daemon.stop();
    assert!(!home.file("run/bangerd.sock").exists() && !home.file("run/session.sock").exists());
}

#[test]
fn a_second_daemon_names_the_first() {
    let home = Home::new();
    let daemon = home.start();
    let error = refused(&home, home.command());
    assert_eq!(error.code, ErrorCode::Busy);
    assert!(error.message.contains(&format!("process {}", daemon.pid())), "{}", error.message);
    // A state folder of its own has sockets of its own.
    let mut command = home.command();
    let state = tempfile::tempdir().unwrap();
    command.env("BANGER_STATE_DIR", state.path());
    let mut other = Daemon::spawn(command, home.path().to_owned());
    assert_eq!(other.first_line(), "ready", "they never meet");
    assert_eq!(daemon.get("/v1/vms").status, 200, "the first is not disturbed");
    other.stop();
    daemon.stop();
}

#[test]
fn of_many_at_once_one_lives() {
    let home = Home::new();
    let mut all: Vec<Daemon> =
        (0..6).map(|_| Daemon::spawn(home.command(), home.path().to_owned())).collect();
    let lines: Vec<String> = all.iter_mut().map(Daemon::first_line).collect();
    assert_eq!(lines.iter().filter(|line| *line == "ready").count(), 1, "{lines:?}");
    assert!(lines.iter().filter(|line| *line != "ready").all(|line| line.contains("\"busy\"")));
    let place = lines.iter().position(|line| line == "ready").unwrap();
    let winner = all.swap_remove(place);
    assert_eq!(winner.get("/v1/vms").status, 200);
    winner.stop();
}

/// A daemon with a stop under way that takes `grace_ms`.
fn with_slow_stop(home: &Home, grace_ms: u64) -> (Daemon, String) {
    let daemon = home.start_with(&[("BANGER_SIM_BEHAVIORS", "web=stubborn")]);
    daemon.run("web");
    let body = json!({ "stop": { "grace_ms": grace_ms } }).to_string();
    let accepted = daemon.post("/v1/vms/web/actions", &body).ok();
    (daemon, accepted["operation"].as_str().unwrap().to_owned())
}

#[test]
fn operations_are_finished_before_the_end_and_a_successor_waits() {
    let home = Home::new();
    let (mut daemon, operation) = with_slow_stop(&home, 1500);
    let mut follower = daemon.connect();
    let path = format!("/v1/operations/{operation}/events");
    follower.write_all(format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
    let mut heard = vec![0; 15];
    follower.read_exact(&mut heard).unwrap();
    assert_eq!(daemon.post("/v1/daemon/stop", "{}").status, 202);
    let next = home.start();
    assert_eq!(next.state("web"), "stopped", "the successor came after the end");
    follower.read_to_end(&mut heard).unwrap();
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.contains("\"event\":\"succeeded\""), "{heard}");
    assert_eq!(daemon.ended().code(), Some(0));
    next.stop();
}

#[test]
fn a_second_signal_is_not_kept_waiting() {
    let home = Home::new();
    let (mut daemon, _) = with_slow_stop(&home, 60_000);
    daemon.signal(Signal::TERM);
    assert!(daemon.ended_within(Duration::from_millis(300)).is_none(), "it waits");
    daemon.signal(Signal::TERM);
    // The stop itself would take a minute, longer than this waits.
    assert_eq!(daemon.ended().code(), Some(0));
    // What it did not get to, the next one does.
    let daemon = home.start();
    daemon.wait_for("web", "stopped");
    daemon.stop();
}

#[test]
fn a_stop_keeps_its_grace_period_across_daemons() {
    let home = Home::new();
    let (daemon, _) = with_slow_stop(&home, 2500);
    daemon.wait_for("web", "stopping");
    daemon.kill();
    let daemon = home.start_with(&[("BANGER_SIM_BEHAVIORS", "web=stubborn")]);
    // A new grace period of 90 s would be longer than this waits.
    daemon.wait_for("web", "stopped");
    let because = daemon.get("/v1/vms/web").ok()["stopped_because"].clone();
    assert_eq!(because, json!({ "reason": "asked", "how": "killed_after_grace" }));
    daemon.stop();
}

#[test]
fn files_of_an_earlier_daemon_are_replaced() {
    let home = Home::new();
    let daemon = home.start();
    daemon.run("web");
    let boot_id = daemon.get("/v1/vms/web").ok()["boot_id"].clone();
    daemon.kill();
    assert!(home.file("run/bangerd.sock").exists(), "killed, so nobody removed it");
    let daemon = home.start();
    let vm = daemon.get("/v1/vms/web").ok();
    assert_eq!((&vm["state"], &vm["boot_id"]), (&"running".into(), &boot_id), "adopted");
    daemon.stop();
}

#[test]
fn an_interrupt_ends_it_too() {
    let home = Home::new();
    let mut daemon = home.start();
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().code(), Some(0));
}

#[test]
fn a_home_may_have_a_long_path() {
    let home = Home::at(&format!("{}/{}", "d".repeat(120), "e".repeat(120)));
    let daemon = home.start();
    daemon.run("web");
    let held = crate::session::hold(&daemon, "web");
    drop(held);
    daemon.done("/v1/vms/web/actions", r#"{"delete": {"force": true}}"#);
    daemon.stop();
}

#[test]
fn a_bad_configuration_is_refused_with_its_place() {
    let home = Home::new();
    std::fs::create_dir_all(home.file("config")).unwrap();
    let path = home.file("config/config.toml");
    std::fs::write(&path, "vmm = \"auto\"\nloglevel = \"info\"\n").unwrap();
    let error = refused(&home, home.command());
    assert_eq!(error.code, ErrorCode::BadRequest);
    let place = format!("`{}` line 2, column 1: unknown field `loglevel`", path.display());
    assert!(error.message.starts_with(&place), "{}", error.message);
    std::fs::write(&path, "").unwrap();
    let mut command = home.command();
    command.env("BANGER_LOG_LEVEL", "loud");
    let error = refused(&home, command);
    assert!(error.message.starts_with("`BANGER_LOG_LEVEL`: `loud`"), "{}", error.message);
}

#[test]
fn a_read_only_state_folder_is_named() {
    let home = Home::new();
    let state = home.file("state");
    std::fs::create_dir_all(&state).unwrap();
    // Modes do not bind root, so root gets a mount of its own that is read-only.
    let root = rustix::process::geteuid().is_root();
    let plain = home.command();
    let command = if root {
        let script = "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" && \
            shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&state);
        command.arg(plain.get_program()).args(plain.get_args());
        command.env("BANGER_HOME", home.path()).env_remove("BANGER_STATE_DIR");
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    } else {
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o500)).unwrap();
        plain
    };
    let error = refused(&home, command);
    assert_eq!(error.code, ErrorCode::ReadOnly, "{error:?}");
    assert!(error.message.contains(state.to_str().unwrap()), "{}", error.message);
    assert!(error.hint().is_some());
}

#[test]
fn damaged_files_are_named() {
    let home = Home::new();
    home.start().stop();
    std::fs::write(home.file("state/sim-world.json"), "{").unwrap();
    let error = refused(&home, home.command());
    assert_eq!(error.code, ErrorCode::Corrupt);
    assert!(error.message.contains("sim-world.json"), "{}", error.message);
    std::fs::remove_file(home.file("state/sim-world.json")).unwrap();
    std::fs::write(home.file("state/banger.db"), "not a database, but long enough to look at")
        .unwrap();
    let error = refused(&home, home.command());
    assert_eq!(error.code, ErrorCode::Corrupt, "{error:?}");
}

#[test]
fn a_slow_client_does_not_block_others() {
    let home = Home::new();
    let daemon = home.start();
    // Connections that say nothing do not keep the daemon from ending.
    let idle: Vec<_> = (0..20).map(|_| (daemon.connect(), daemon.connect_session())).collect();
    assert_eq!(daemon.get("/v1/vms").status, 200);
    daemon.stop();
    // Only now: the daemon has ended while they were open.
    drop(idle);
}

#[test]
fn connections_of_other_users_are_closed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can be a stranger to its own daemon");
        return;
    }
    let home = Home::new();
    let daemon = home.start();
    // Only so can a stranger get as far as the check of who it is.
    let mut folder = home.file("run");
    for name in ["bangerd.sock", "session.sock"] {
        let open = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(folder.join(name), open).unwrap();
    }
    while folder != std::env::temp_dir() {
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        folder.pop();
    }
    let heard = std::thread::scope(|scope| {
        let stranger = scope.spawn(|| {
            // Of this thread alone (setresuid(2), "C library/kernel differences").
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            ["bangerd.sock", "session.sock"].map(|name| {
                let path = home.file("run").join(name);
                let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
                // The connection may end before the first byte.
                let _ = stream.write_all(b"GET /v1/vms HTTP/1.0\r\n\r\n");
                let mut heard = Vec::new();
                let _ = stream.read_to_end(&mut heard);
                heard
            })
        });
        stranger.join().unwrap()
    });
    assert_eq!(heard, [Vec::<u8>::new(), Vec::new()]);
    assert_eq!(daemon.get("/v1/vms").status, 200);
    daemon.stop();
}

#[test]
fn a_large_log_is_put_aside_and_standard_error_goes_along() {
    let home = Home::new();
    let log = home.file("state/log/bangerd.log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(&log, vec![b'x'; usize::try_from(bangerd::log::MAX_BYTES).unwrap()]).unwrap();
    let mut command = home.command();
    command.stderr(std::fs::OpenOptions::new().append(true).open(&log).unwrap());
    let mut daemon = Daemon::spawn(command, home.path().to_owned());
    assert_eq!(daemon.first_line(), "ready");
    let stderr = std::fs::read_link(format!("/proc/{}/fd/2", daemon.pid())).unwrap();
    assert_eq!(stderr, log);
    assert!(std::fs::metadata(&log).unwrap().len() < 10_000);
    let aside = std::fs::metadata(home.file("state/log/bangerd.log.1")).unwrap();
    assert_eq!(aside.len(), bangerd::log::MAX_BYTES);
    let text = std::fs::read_to_string(&log).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&line["level"], &line["message"]), (&json!("INFO"), &json!("begin")));
    daemon.stop();
}

#[test]
fn a_dead_port_forwarder_is_restarted() {
    let home = Home::new();
    let daemon = home.start();
    let publish = json!([{ "host_port": 8080, "guest_port": 80 }]);
    daemon.post("/v1/vms", &json!({ "name": "web", "publish": publish }).to_string()).ok();
    daemon.wait_for("web", "running");
    let shown = json!([{ "listen": "127.0.0.1", "host_port": 8080, "guest_port": 80 }]);
    assert_eq!(daemon.get("/v1/vms/web").ok()["publish"], shown);
    daemon.stop();
    let before = home.world();
    let forwarder = |home: &Home| -> String {
        let stored = home.stored();
        stored.vms[0].run.as_ref().unwrap().found(&FORWARDER).unwrap()
    };
    let first = forwarder(&home);

    // As it was it is left alone.
    home.start().stop();
    assert_eq!((home.world(), forwarder(&home)), (before.clone(), first.clone()));

    let mut without = before.clone();
    without.objects.retain(|name, _| !name.starts_with("forward"));
    assert_eq!(without.objects.len() + 2, before.objects.len());
    let file = home.file("state/sim-world.json");
    std::fs::write(file, serde_json::to_vec(&without).unwrap()).unwrap();
    let daemon = home.start();
    daemon.wait_for("web", "running");
    daemon.stop();
    let after = home.world();
    assert!(after.objects.keys().eq(before.objects.keys()), "{after:?}");
    assert_ne!(forwarder(&home), first, "it is another process, and on record");
}
