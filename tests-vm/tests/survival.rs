//! Real VMs whose daemon, VMM, shim or companion is killed: no data is lost, no process is left.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_testkit::{Home, Run, kill, wait_gone};

fn pid_of(home: &Home, vm: &str) -> u32 {
    let pid = home.json(&["vm", "show", vm])["pid"].as_u64().unwrap();
    u32::try_from(pid).unwrap()
}

fn find(home: &Home, program: &str) -> u32 {
    let lines = home.processes();
    let line = lines.iter().find(|line| line.contains(program));
    let line = line.unwrap_or_else(|| panic!("no {program} in {lines:#?}"));
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The user's ssh configuration of a home, with the Include of banger.
fn ssh_config(home: &Home) -> String {
    home.path().join(".ssh/config").display().to_string()
}

/// Uses OpenSSH as a user does after `ssh-config --install`, and leaves a shell open.
fn ssh(home: &Home) -> Child {
    let installed = home.command(&["ssh-config", "--install"]).env("HOME", home.path()).status();
    assert!(installed.unwrap().success());
    let config = ssh_config(home);
    let own = home.path().join("file");
    let data: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&own, &data).unwrap();
    let back = home.path().join("back");
    for (from, to) in
        [(own.to_str().unwrap(), "web.vm:copy"), ("web.vm:copy", back.to_str().unwrap())]
    {
        let copied = Command::new("scp").args(["-q", "-F", &config, from, to]).status();
        assert!(copied.unwrap().success(), "{from} {to}");
    }
    assert!(std::fs::read(&back).unwrap() == data, "other bytes came back");
    let run = home.run(&["ssh", "web", "--", "hostname; exit 7"]);
    assert_eq!((run.code, run.out.as_str()), (7, "web\n"), "{}", run.err);
    // A key that is not the guest's is refused.
    let known = home.path().join("empty");
    std::fs::write(&known, "").unwrap();
    let option = format!("UserKnownHostsFile={}", known.display());
    let strange =
        Command::new("ssh").args(["-F", &config, "-o", &option, "web.vm", "true"]).output();
    let strange = String::from_utf8_lossy(&strange.unwrap().stderr).into_owned();
    assert!(strange.contains("Host key verification failed"), "{strange}");
    other_clients(home);
    let mut shell = Command::new("ssh");
    shell.args(["-F", &config, "-o", "StrictHostKeyChecking=yes", "web.vm", "sh"]);
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// The guest's clock is within 50 ms of the host's. The guest reads its clock between the request
/// to its shell and the answer, which bounds the difference; each of many readings narrows the
/// bounds, until they prove it right or wrong.
fn assert_clock_right(
    stdin: &mut impl Write,
    lines: &mut impl Iterator<Item = std::io::Result<String>>,
    when: &str,
) {
    let now = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i128::try_from(now.as_nanos()).unwrap()
    };
    const LIMIT_NS: i128 = 50_000_000;
    let mut bounds = (i128::MIN, i128::MAX);
    for _ in 0..1000 {
        let sent = now();
        writeln!(stdin, "date +%s%N").unwrap();
        let guest: i128 = lines.next().unwrap().unwrap().parse().unwrap();
        bounds = (bounds.0.max(guest - now()), bounds.1.min(guest - sent));
        if -LIMIT_NS < bounds.0 && bounds.1 < LIMIT_NS {
            return;
        }
        assert!(bounds.0 < LIMIT_NS && -LIMIT_NS < bounds.1, "{when}: wrong by {bounds:?} ns");
    }
    panic!("{when}: the guest answers too slowly: {bounds:?} ns");
}

/// Reads the guest's clock for 5 s of its time; `back` if it was set back meanwhile.
const WATCH_CLOCK: &str = "end=$(($(date +%s) + 5)); last=0; back=forward; \
    while now=$(date +%s%N); [ $now -lt ${end}000000000 ]; do \
    [ $now -ge $last ] || back=back; last=$now; done; echo $back";

/// Open sessions and connections to published ports wait while the VM is paused, across a killed
/// daemon; afterwards the clock is right.
fn pause_and_resume(
    home: &Home,
    port: u16,
    stdin: &mut impl Write,
    lines: &mut impl Iterator<Item = std::io::Result<String>>,
) {
    assert_clock_right(stdin, lines, "before the pause");
    writeln!(stdin, "{WATCH_CLOCK}").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "forward");
    home.ok(&["vm", "pause", "web"]);
    home.kill_daemon();
    assert_eq!(home.state("web"), "paused");
    let refused = home.run(&["exec", "web", "--", "true"]);
    assert!(refused.err.contains("`banger vm resume web`"), "{}", refused.err);
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    writeln!(stdin, "echo waited").unwrap();
    // Long enough that a clock that is not set is wrong.
    std::thread::sleep(Duration::from_secs(3));
    home.ok(&["vm", "resume", "web"]);
    assert_eq!(lines.next().unwrap().unwrap(), "waited");
    assert_clock_right(stdin, lines, "after the resume");
    let mut banner = [0; 4];
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    connection.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"SSH-");
    let shown = home.json(&["vm", "show", "web"]);
    assert_eq!(shown["state"], "running");
}

/// paramiko (SFTP, a forwarded port) and Ansible's ping.
fn other_clients(home: &Home) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = root.join(".cache/tools/ssh-clients/bin/python");
    assert!(python.exists(), "{} is missing: `scripts/setup.sh test`", python.display());
    let run = Command::new(python)
        .arg(root.join("scripts/ssh-clients/clients.py"))
        .arg(ssh_config(home))
        .arg(home.path().join("state/ssh/config"))
        .arg("web.vm")
        .arg(home.path().join("ansible"))
        .output();
    let run = Run::from(run.unwrap());
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
}

#[test]
fn sessions_survive_a_killed_daemon() {
    let home = Home::new();
    let port = tests_vm::port::free();
    let publish = format!("{port}:22");
    home.ok(&["vm", "create", "--name", "web", "-p", &publish]);
    let before = home.json(&["vm", "show", "web"]);
    let mut child = home
        .command(&["exec", "--wait", "ready", "-i", "web", "--", "sh"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    writeln!(stdin, "echo one").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    let mut ssh = ssh(&home);
    let mut ssh_stdin = ssh.stdin.take().unwrap();
    let mut ssh_lines = BufReader::new(ssh.stdout.take().unwrap()).lines();
    writeln!(ssh_stdin, "echo one").unwrap();
    assert_eq!(ssh_lines.next().unwrap().unwrap(), "one");
    home.kill_daemon();
    writeln!(stdin, "echo two").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    writeln!(ssh_stdin, "echo two").unwrap();
    assert_eq!(ssh_lines.next().unwrap().unwrap(), "two");
    let after = home.json(&["vm", "show", "web"]);
    assert_eq!(after["state"], "running");
    assert_eq!(after["boot_id"], before["boot_id"]);
    assert_eq!(after["pid"], before["pid"]);
    writeln!(ssh_stdin, "echo three; exit 4").unwrap();
    assert_eq!(ssh_lines.next().unwrap().unwrap(), "three", "with another daemon");
    assert_eq!(ssh.wait().unwrap().code(), Some(4));
    pause_and_resume(&home, port, &mut stdin, &mut lines);
    writeln!(stdin, "exit 3").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    home.ok(&["vm", "delete", "-f", "web"]);
    home.finish();
}

#[test]
fn killing_any_process_of_a_vm_stops_it_with_a_story() {
    let home = Home::new();
    home.ok(&["vm", "create", "--name", "web"]);
    for (program, word) in [
        ("qemu-system-x86_64", "killed by signal 9"),
        ("vhost-device-vsock", "companion"),
        ("banger-shim", "shim"),
    ] {
        kill(find(&home, program), "KILL");
        home.wait_state("web", "stopped");
        let show = home.json(&["vm", "show", "web"]);
        assert_eq!(show["stopped_because"]["reason"], "vmm_died", "{show:#}");
        let story = show["stopped_because"]["story"].as_str().unwrap().to_owned();
        assert!(story.contains(word), "{program}: {story}");
        let others: Vec<String> =
            home.processes().into_iter().filter(|line| !line.contains("bangerd")).collect();
        assert!(others.is_empty(), "{others:#?}");
        home.ok(&["vm", "start", "web"]);
    }
    // The same without a daemon.
    let vmm = pid_of(&home, "web");
    home.kill_daemon();
    kill(vmm, "KILL");
    wait_gone(vmm);
    home.wait_state("web", "stopped");
    let show = home.json(&["vm", "show", "web"]);
    assert_eq!(show["stopped_because"]["reason"], "vmm_died");
    assert!(show["stopped_because"]["story"].as_str().unwrap().contains("signal 9"));
    all_processes_are_killed(&home);
    home.ok(&["vm", "delete", "-f", "web"]);
    home.finish();
}

/// `web` is started again by the next daemon, unless a user stopped it.
fn all_processes_are_killed(home: &Home) {
    home.ok(&["vm", "start", "web"]);
    home.ok(&["vm", "set", "web", "--autostart", "on"]);
    let before = home.json(&["vm", "show", "web"])["boot_id"].clone();
    let kill_all = || {
        home.kill_daemon();
        for line in home.processes() {
            let pid = line.split(' ').nth(1).unwrap().parse().unwrap();
            kill(pid, "KILL");
            wait_gone(pid);
        }
        assert_eq!(home.processes(), [""; 0]);
    };
    kill_all();
    // This command starts the daemon.
    home.wait_state("web", "running");
    assert_ne!(home.json(&["vm", "show", "web"])["boot_id"], before, "it has booted again");
    assert_eq!(home.run(&["exec", "--wait", "ready", "web", "--", "true"]).code, 0);
    let list = home.json(&["operation", "list"]);
    assert!(list.as_array().unwrap().iter().any(|op| op["kind"] == "autostart"), "{list:#}");
    home.ok(&["vm", "kill", "web"]);
    kill_all();
    assert_eq!(home.state("web"), "stopped");
    let list = home.json(&["operation", "list"]);
    let starts = list.as_array().unwrap().iter().filter(|op| op["kind"] == "autostart").count();
    assert_eq!(starts, 1, "{list:#}");
}

#[test]
fn written_data_survives_every_shutdown() {
    let home = Home::new();
    home.ok(&["vm", "create", "--name", "web"]);
    let exec =
        |script: &str| home.run(&["exec", "--wait", "ready", "web", "--", "sh", "-c", script]);
    exec("echo work >/root/kept; echo root >/etc/kept");
    home.ok(&["vm", "stop", "web"]);
    home.ok(&["vm", "start", "web"]);
    assert_eq!(exec("cat /root/kept /etc/kept").out, "work\nroot\n");

    home.wait_booted("web");
    exec("echo more >>/root/kept; poweroff");
    home.wait_state("web", "stopped");
    let show = home.json(&["vm", "show", "web"]);
    assert_eq!(show["stopped_because"]["reason"], "guest_powered_off");
    home.ok(&["vm", "start", "web"]);
    assert_eq!(exec("cat /root/kept").out, "work\nmore\n");

    let boot = home.json(&["vm", "show", "web"])["boot_id"].clone();
    home.wait_booted("web");
    exec("echo again >>/root/kept; reboot");
    home.wait("another boot", || {
        let show = home.json(&["vm", "show", "web"]);
        show["state"] == "running" && show["boot_id"] != boot
    });
    assert_eq!(exec("cat /root/kept").out, "work\nmore\nagain\n");
    home.ok(&["vm", "delete", "-f", "web"]);
    home.finish();
}

#[test]
fn a_vm_bound_to_its_session_goes_with_it() {
    let home = Home::new();
    for daemon_too in [false, true] {
        let mut child = home.spawn(&[
            "run",
            "--rm",
            "--wait",
            "ready",
            "--name",
            "gone",
            "--",
            "sh",
            "-c",
            "echo up; sleep 100",
        ]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        if daemon_too {
            home.kill_daemon();
        }
        kill(child.id(), "KILL");
        child.wait().unwrap();
        home.wait_state("gone", "gone");
    }
    home.finish();
}

#[test]
fn eight_at_once_become_ready() {
    let home = Home::new();
    let names: Vec<String> = (0..8).map(|n| format!("vm-{n}")).collect();
    let children: Vec<_> =
        names.iter().map(|name| home.spawn(&["vm", "create", "--name", name])).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for name in &names {
        assert_eq!(home.state(name), "running");
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    home.ok(&[&["vm", "delete", "-f"], &all[..]].concat());
    home.finish();
}
