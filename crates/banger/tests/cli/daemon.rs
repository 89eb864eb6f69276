//! Start, loss and replacement of the daemon.

use std::io::{Read, Write};
use std::process::Stdio;

use banger_testkit::{Run, program};

use crate::support::{expect, home, home_with, run};

#[test]
fn many_at_once_start_one_daemon() {
    let home = home();
    let children: Vec<_> = (0..12).map(|_| home.spawn(&["daemon", "start", "--json"])).collect();
    let pids: Vec<serde_json::Value> = children
        .into_iter()
        .map(|child| {
            let run: Run = child.wait_with_output().unwrap().into();
            assert_eq!(run.code, 0, "{}", run.err);
            serde_json::from_str::<serde_json::Value>(&run.out).unwrap()["pid"].clone()
        })
        .collect();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    // The clients know the first daemon before the others have ended.
    home.wait("one daemon to be left", || home.processes().len() == 1);
    home.finish();
}

#[test]
fn a_killed_daemon_is_brought_back() {
    let home = home();
    run(&home, "vm create --name web");
    let before = home.json(&["vm", "show", "web"])["boot_id"].clone();
    home.kill_daemon();
    let after = home.json(&["vm", "show", "web"]);
    assert_eq!((&after["boot_id"], &after["state"]), (&before, &"running".into()));
    let stopped = run(&home, "daemon stop");
    assert!(stopped.out.starts_with("the daemon (pid "), "{}", stopped.out);
    assert_eq!(run(&home, "exec web -- uname").out, "Linux\n");
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn a_log_is_followed_across_daemons_to_the_end_of_its_vm() {
    let home = home();
    run(&home, "vm create --name web");
    let log = home.json(&["vm", "show", "web"])["paths"]["console_log"].clone();
    let log = std::path::PathBuf::from(log.as_str().unwrap());
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(&log, "one\ntwo\n").unwrap();
    let mut follower = home.spawn(&["vm", "logs", "-f", "--tail", "1", "web"]);
    let mut out = std::io::BufReader::new(follower.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        line
    };
    assert_eq!(next(), "two\n");
    run(&home, "daemon stop");
    std::fs::rename(&log, log.with_file_name("console.log.1")).unwrap();
    std::fs::write(&log, "three\n").unwrap();
    // Following a log does not start a daemon; any other command does.
    assert!(!home.path().join("run/bangerd.sock").exists());
    run(&home, "vm list");
    assert_eq!(next(), "three\n");
    home.kill_daemon();
    let mut file = std::fs::File::options().append(true).open(&log).unwrap();
    file.write_all(b"four\n").unwrap();
    run(&home, "vm list");
    assert_eq!(next(), "four\n");
    run(&home, "vm delete -f web");
    // The real host also removes the VM's folder.
    std::fs::remove_dir_all(log.parent().unwrap()).unwrap();
    assert_eq!(next(), "");
    assert_eq!(follower.wait().unwrap().code(), Some(0));
    home.finish();
}

#[test]
fn selected_lines_are_followed_across_daemons_without_loss() {
    let home = home();
    run(&home, "vm create --name web");
    let log = home.json(&["vm", "show", "web"])["paths"]["console_log"].clone();
    let log = std::path::PathBuf::from(log.as_str().unwrap());
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(&log, "one\nbanger: 1\nbanger: 2\n").unwrap();
    let reader = |child: &mut std::process::Child| {
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        move || {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut out, &mut line).unwrap();
            line
        }
    };
    let mut agent = home.spawn(&["vm", "logs", "--agent", "-f", "--tail", "1", "web"]);
    let mut of_agent = reader(&mut agent);
    assert_eq!(of_agent(), "banger: 2\n");
    let mut daemon = home.spawn(&["daemon", "logs", "--json", "-f", "--tail", "0"]);
    let mut of_daemon = reader(&mut daemon);
    run(&home, "vm create --name db");
    let first = of_daemon();
    assert!(first.contains("\"vm_name\":\"db\""), "{first}");

    // Lines that are written while there is no daemon arrive at the next one, each once.
    run(&home, "daemon stop");
    let mut file = std::fs::File::options().append(true).open(&log).unwrap();
    file.write_all(b"banger: 3\ntwo\nbanger: 4\nbanger: in").unwrap();
    std::fs::rename(&log, log.with_file_name("console.log.1")).unwrap();
    file.write_all(b"complete\n").unwrap();
    std::fs::write(&log, "banger: 5\n").unwrap();
    run(&home, "vm delete -f db");
    let found: Vec<String> = (0..4).map(|_| of_agent()).collect();
    assert_eq!(found, ["banger: 3\n", "banger: 4\n", "banger: incomplete\n", "banger: 5\n"]);
    let mut seen = vec![first];
    while !seen.last().unwrap().contains("operation succeeded")
        || !seen.last().unwrap().contains("delete")
    {
        let line = of_daemon();
        assert!(!line.is_empty(), "it ended: {seen:#?}");
        seen.push(line);
    }
    let begins = seen.iter().filter(|line| line.contains("\"message\":\"begin\"")).count();
    assert_eq!(begins, 1, "{seen:#?}");
    let unique: std::collections::BTreeSet<&String> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "a line came twice: {seen:#?}");

    daemon.kill().unwrap();
    run(&home, "vm delete -f web");
    std::fs::remove_dir_all(log.parent().unwrap()).unwrap();
    assert_eq!(of_agent(), "");
    assert_eq!(agent.wait().unwrap().code(), Some(0));
    let run: Run = daemon.wait_with_output().unwrap().into();
    assert!(run.err.contains("the daemon has ended"), "{}", run.err);
    home.finish();
}

#[test]
fn a_session_whose_daemon_was_killed_still_takes_its_machine_along() {
    let home = home();
    let args = ["run", "--rm", "--name", "web", "-i", "--", "cat"];
    let mut child = home.command(&args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    let mut hello = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut hello).unwrap();
    // The simulated guest is part of the daemon, so the command ends with it, and its VM is gone.
    home.kill_daemon();
    assert_eq!(child.wait().unwrap().code(), Some(125));
    assert_eq!(home.state("web"), "gone");
    home.finish();
}

#[test]
fn a_home_may_be_deep() {
    let home = home_with(&format!("{}/{}", "x".repeat(120), "y".repeat(120)));
    let ended = run(&home, "run --rm -- uname");
    assert_eq!((ended.code, ended.out.as_str()), (0, "Linux\n"), "{}", ended.err);
    home.finish();
}

#[test]
fn a_failed_daemon_start_is_reported() {
    let home = home();
    let with = |name: &str, value: &str| -> Run {
        home.command(&["vm", "list"]).env(name, value).output().unwrap().into()
    };
    let missing = with("BANGERD", "/nonexistent/bangerd");
    assert_eq!(missing.code, 5);
    let expected = "error: the daemon `/nonexistent/bangerd` cannot be started\n";
    assert!(missing.err.starts_with(expected), "{}", missing.err);
    let dies = with("BANGERD", "/bin/false");
    assert_eq!(dies.code, 1);
    let expected =
        "error: the daemon ended (exit status: 1) before it was ready\nhint: its log is `";
    assert!(dies.err.starts_with(expected), "{}", dies.err);
    let babbles = with("BANGERD", "/bin/pwd");
    assert!(babbles.err.starts_with("error: the daemon ended"), "{}", babbles.err);
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let no_folder = with("BANGER_HOME", file.to_str().unwrap());
    assert_eq!(no_folder.code, 5, "{}", no_folder.err);
    assert!(no_folder.err.contains("cannot be written\n"), "{}", no_folder.err);
    std::fs::write(home.path().join("config/config.toml"), "nonsense = 1\n").unwrap();
    let config = run(&home, "vm list");
    assert!(config.code != 0 && config.err.contains("nonsense"), "{}", config.err);
    let doctor = run(&home, "doctor");
    assert_eq!(doctor.code, 5);
    assert!(doctor.out.starts_with("missing  daemon.answers: "), "{}", doctor.out);
}

#[test]
fn a_daemon_of_another_build_is_replaced_once_its_file_is() {
    let home = home();
    let current = std::fs::read(program("bangerd-sim")).unwrap();
    let other = "0123456789abcdef";
    let path = home.path().join("bangerd");
    let install = |bytes: &[u8]| {
        use std::os::unix::fs::PermissionsExt;
        let new = home.path().join("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    let status = |verb: &str| -> serde_json::Value {
        let mut command = home.command(&["daemon", verb, "--json"]);
        let run: Run = command.env("BANGERD", &path).output().unwrap().into();
        serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}\n{}", run.err))
    };
    install(&current);
    let status_now = status("start");
    let build = status_now["build_id"].as_str().unwrap();
    run(&home, "daemon stop");
    install(&replaced(&current, build.as_bytes(), other.as_bytes()));
    let old = status("start");
    assert_eq!(old["build_id"], other);
    // Another build of `banger` alone does not replace the daemon.
    assert_eq!(status("start")["pid"], old["pid"]);
    run(&home, "vm create --name web");
    install(&current);
    let new = status("start");
    assert_eq!(new["build_id"], build);
    assert_ne!(new["pid"], old["pid"]);
    assert_eq!(home.state("web"), "running");
    // A command in a guest uses another socket, and replaces the daemon too.
    run(&home, "daemon stop");
    install(&replaced(&current, build.as_bytes(), other.as_bytes()));
    assert_eq!(status("start")["build_id"], other);
    install(&current);
    let mut exec = home.command(&["exec", "web", "echo", "done"]);
    let exec: Run = exec.env("BANGERD", &path).output().unwrap().into();
    assert_eq!((exec.code, exec.out.as_str()), (0, "done\n"), "{}", exec.err);
    let mut now = home.command(&["daemon", "status", "--json"]);
    let now: Run = now.env("BANGERD", &path).output().unwrap().into();
    assert!(now.out.contains(build), "{}", now.out);
    expect(&run(&home, "vm delete -f web"), 0, "web deleted\n", "");
    home.finish();
}

/// The bytes with each occurrence of a text replaced by another of the same length.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut found = 0;
    for at in 0..bytes.len().saturating_sub(from.len()) {
        if bytes[at..].starts_with(from) {
            bytes[at..at + from.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "the build id is not in the program");
    bytes
}
