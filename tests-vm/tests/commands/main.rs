//! Commands in a real guest: streams, exit codes, signals, terminals, much data.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod disks;
mod workspace;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use banger_testkit::{Home, Options, kill};
use tests_vm::handover;

#[test]
fn one_command_in_a_new_vm_and_nothing_left() {
    let home = Home::new();
    let app = workspace::repository(&home);
    let script = "echo out; echo err >&2; pwd; git status --short --branch; git fsck; \
                  git commit -qam x && git log -1 --format='%an %ae'; exit 7";
    let run = home.run(&["run", &app, "--name", "app", "--", "sh", "-c", script]);
    assert_eq!(run.code, 7, "{}", run.err);
    assert_eq!(run.out, "out\n/root/app\n## main\n M file\n D gone\nOwn own@x.example\n");
    assert!(run.err.lines().any(|line| line == "err"), "{}", run.err);
    workspace::work_goes_both_ways(&home, Path::new(&app));
    let run = home.run_with_input(&["run", "--rm", "--wait", "ready", "-i", "--", "cat"], b"hi\n");
    assert_eq!((run.code, run.out.as_str()), (0, "hi\n"), "{}", run.err);
    let run = home.run(&["run", "--rm", "--wait", "ready", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(run.code, 128 + 15);
    // The same from the outside, by the product itself.
    let run = home.run(&["doctor", "--try", "--json"]);
    let checks: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    for code in ["boot", "command", "name", "port", "delete"] {
        let code = format!("try.{code}");
        let found = checks.as_array().unwrap().iter().find(|check| check["code"] == code);
        assert_eq!(found.unwrap()["verdict"], "ok", "{found:?}\n{}", run.err);
    }
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]));
    home.finish();
}

#[test]
fn a_running_vm_takes_commands() {
    let (user, options) = handover::user();
    let home = Home::with(options);
    // A little memory, for the program that takes all of it.
    home.ok(&["vm", "create", "--name", "web", "--memory", "512M"]);
    let exec = |args: &[&str]| home.run(&[&["exec", "web", "--"], args].concat());
    assert_eq!(exec(&["true"]).code, 0);
    assert_eq!(exec(&["no-such-command"]).code, 127);
    assert_eq!(exec(&["/etc/passwd"]).code, 126);
    assert_eq!(exec(&["cat"]).out, "", "without -i there is no input");
    assert_eq!(exec(&["uname", "-s"]).out, "Linux\n");
    let whoami = home.run(&[
        "exec",
        "-u",
        "nobody",
        "-w",
        "/tmp",
        "-e",
        "X=1 2",
        "web",
        "--",
        "sh",
        "-c",
        "id -un; pwd; echo \"$X\"",
    ]);
    assert_eq!(whoami.out, "nobody\n/tmp\n1 2\n", "{}", whoami.err);

    much_data_passes_both_ways(&home);

    // A signal to the CLI is a signal to the command.
    let mut child = home.spawn(&["exec", "web", "--", "sh", "-c", "echo ready; exec sleep 100"]);
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    kill(child.id(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));

    // A process that takes all memory dies alone.
    let mut beside = home.spawn(&["exec", "web", "--", "sh", "-c", "echo ready; exec sleep 1000"]);
    beside.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(exec(&["tail", "/dev/zero"]).code, 137);
    let health = &home.json(&["vm", "health", "web"])[0];
    assert_eq!((&health["agent"], &health["agent_restarts"]), (&"ok".into(), &0.into()));
    assert_eq!(exec(&["systemctl", "is-system-running"]).out, "running\n");
    assert!(beside.try_wait().unwrap().is_none(), "a session beside it was ended");
    a_busy_vcpu_shows_in_the_usage(&home);
    a_live_folder_follows_both_sides(&home);
    // A killed agent is restarted, and `vm health` reports it.
    assert_eq!(exec(&["pkill", "-KILL", "-x", "banger-agent"]).code, 125);
    let restarts = || home.json(&["vm", "health", "web"])[0]["agent_restarts"].clone();
    home.wait("the agent to be started again", || restarts() == 1);
    assert!(home.ok(&["vm", "health", "web"]).contains("ended once and was started again"));
    assert!(beside.wait().unwrap().code().is_some());

    // The console has the messages of the init, boot by boot.
    handover::check_ssh_agent(&home, user.path(), "web");
    handover::check(&home, user.path(), "web");
    assert_eq!(exec(&["true"]).code, 0);
    let console = home.ok(&["vm", "logs", "web"]);
    assert_eq!(console.matches("--- VM started ").count(), 2, "{console}");
    assert!(console.contains("Reached target"), "{console}");
    disks::a_reset_keeps_the_work_disk_only(&home);
    home.ok(&["vm", "delete", "-f", "shop"]);
    home.finish();
}

/// 100 MiB through `cat`.
fn much_data_passes_both_ways(home: &Home) {
    let data: Vec<u8> =
        (0..100_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut child = home
        .command(&["exec", "--wait", "ready", "-i", "web", "--", "cat"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = data.clone();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &sent).unwrap());
    let mut back = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(back.len(), data.len());
    assert!(back == data, "the bytes that came back are not those that were sent");
}

/// Through inotify of both kernels; the folder is removed at the end, its files stay.
fn a_live_folder_follows_both_sides(home: &Home) {
    let folder = home.path().join("live");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a.txt"), "of the host").unwrap();
    let added = format!("{}:/srv/live", folder.display());
    home.ok(&["vm", "set", "web", "--sync", &added]);
    home.ok(&["vm", "sync", "web", "--wait"]);
    let guest = |script: &str| home.run(&["exec", "web", "--", "sh", "-c", script]);
    assert_eq!(guest("cat /srv/live/a.txt").out, "of the host");
    assert_eq!(guest("mkdir /srv/live/d && echo guest >/srv/live/d/b").code, 0);
    let arrived = || std::fs::read_to_string(folder.join("d/b")).is_ok_and(|b| b == "guest\n");
    home.wait("the guest's file to arrive", arrived);
    std::fs::write(folder.join("a.txt"), "changed").unwrap();
    let waiting = "until grep -q changed /srv/live/a.txt; do sleep 0.05; done; rm -r /srv/live/d";
    assert_eq!(guest(waiting).code, 0);
    home.wait("the folder to be removed", || !folder.join("d").exists());
    home.ok(&["vm", "sync", "web", "--wait"]);
    let state = &home.json(&["vm", "sync", "web"])[0];
    assert_eq!(state["state"], "watching", "{state:#}");
    assert_eq!(state["problems"], serde_json::json!([]), "{state:#}");
    home.ok(&["vm", "set", "web", "--unsync", "/srv/live"]);
    assert!(folder.join("a.txt").exists());
}

/// Counters of the VMM and of the guest.
fn a_busy_vcpu_shows_in_the_usage(home: &Home) {
    let mut ready = [0; 6];
    let mut busy =
        home.spawn(&["exec", "web", "--", "sh", "-c", "echo ready; while :; do :; done"]);
    busy.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let usage = &home.json(&["vm", "stats", "web"])[0];
    assert!(usage["cpu_percent"].as_f64().is_some_and(|percent| percent > 10.0), "{usage:#}");
    let (memory, disk) = (&usage["run"]["memory"], &usage["run"]["disk_io"]);
    let within = |value: &serde_json::Value, low: u64, high: u64| {
        assert!(
            value.as_u64().is_some_and(|mib| (low << 20..=high << 20).contains(&mib)),
            "{usage:#}"
        );
    };
    assert_eq!(memory["limit_bytes"], 512 << 20);
    within(&memory["resident_bytes"], 128, 2048);
    within(&memory["guest"]["total_bytes"], 256, 512);
    within(&memory["guest"]["available_bytes"], 16, 511);
    assert_eq!(
        (&disk["source"], &usage["run"]["network"]["source"]),
        (&"host".into(), &"guest".into())
    );
    assert!(usage["run"]["uptime_ms"].as_u64().is_some_and(|ms| ms > 1000), "{usage:#}");
    kill(busy.id(), "TERM");
    assert_eq!(busy.wait().unwrap().code(), Some(128 + 15));
}

/// The first bytes that the guest's sshd sends through a published port.
fn greeting(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut output = [0; 8];
    stream.read_exact(&mut output).unwrap();
    String::from_utf8_lossy(&output).into_owned()
}

#[test]
fn published_ports_lead_to_the_guest_from_a_home_in_any_bytes() {
    let deep = OsStr::from_bytes(b"a, b \xff\n'\"$%*\\").to_owned();
    let home = Home::with(Options { deep: Some(deep), ..Options::default() });
    let (open, cut) = (tests_vm::port::free(), tests_vm::port::free());
    let publish = |port: u16| format!("{port}:22");
    home.ok(&["vm", "create", "--name", "web", "-p", &publish(open)]);
    // Of a guest that reaches nothing the ports are reached all the same.
    home.ok(&["vm", "create", "--name", "cut", "--nat", "off", "-p", &publish(cut)]);
    for (vm, port) in [("web", open), ("cut", cut)] {
        home.wait_booted(vm);
        assert_eq!(greeting(port), "SSH-2.0-", "{vm}");
        let show = home.json(&["vm", "show", vm]);
        assert_eq!(show["publish"][0]["host_port"], port, "{show:#}");
    }
    let mut session = TcpStream::connect(("127.0.0.1", open)).unwrap();
    let mut lines = BufReader::new(session.try_clone().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("SSH-2.0-"));
    home.kill_daemon();
    assert_eq!(greeting(open), "SSH-2.0-", "without the daemon");

    let run = home.run(&["vm", "create", "--name", "late", "-p", &publish(open)]);
    assert_eq!(run.code, 4, "{}", run.err);
    let text = format!("port `127.0.0.1:{open}` of this host is taken");
    assert!(run.err.contains(&text) && run.err.contains("hint: "), "{}", run.err);
    assert_eq!(home.json(&["vm", "show", "late"])["state"], "stopped");

    // The connection from before the daemon was killed. sshd answers a line that is no version.
    session.write_all(b"none\r\n").unwrap();
    let answer = lines.next().unwrap().unwrap();
    assert!(answer.starts_with("Invalid SSH identification string"), "{answer}");

    // The work disk and the ports of a guest without an address change at the next start.
    let other = tests_vm::port::free();
    let set = [&publish(other)[..], "--unpublish", &open.to_string(), "--work-size", "9G"];
    let set = home.run(&[&["vm", "set", "web", "-p"][..], &set].concat());
    assert_eq!((set.code, set.out.as_str()), (0, "web changed\n"), "{}", set.err);
    assert!(set.err.contains("`web` changes at its next start: work disk 9 GiB"), "{}", set.err);
    assert_eq!(greeting(open), "SSH-2.0-", "until the next start");
    home.ok(&["vm", "stop", "web"]);
    assert!(TcpStream::connect(("127.0.0.1", open)).is_err(), "a stopped VM publishes nothing");
    home.ok(&["vm", "start", "web"]);
    let size = ["exec", "web", "--", "df", "--output=size", "/root"];
    let size = home.run(&size).out.lines().nth(1).unwrap().trim().parse::<u64>().unwrap();
    assert!(size > 8 << 20, "the work disk has {size} KiB");
    home.wait_booted("web");
    assert_eq!(greeting(other), "SSH-2.0-");
    assert!(TcpStream::connect(("127.0.0.1", open)).is_err(), "the port is still published");
    home.ok(&["vm", "delete", "-f", "web", "cut", "late"]);
    home.finish();
}

#[test]
fn the_default_guest_is_a_whole_machine() {
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("id_rsa");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    let config = format!("ssh_key_path = \"{}\"\n", key.display());
    let home = Home::with(Options { config, ..Options::default() });
    home.ok(&["vm", "create", "--name", "one"]);
    home.ok(&["vm", "create", "--name", "two"]);
    let exec = |vm: &str, script: &str| {
        let run = home.run(&["exec", "--wait", "ready", vm, "--", "sh", "-c", script]);
        assert_eq!(run.code, 0, "{script}\n{}{}", run.out, run.err);
        run.out
    };
    exec("one", "modprobe nft_compat");
    // The root is an overlay, which cannot carry swap files: the work disk can.
    exec(
        "one",
        "cd /root && fallocate -l 16M s && chmod 600 s && mkswap s && swapon s && \
        grep /root/s /proc/swaps && swapoff s && rm s",
    );
    exec(
        "one",
        "cd /var/lib/docker && mkdir l u w m && mount -t overlay overlay \
        -o lowerdir=l,upperdir=u,workdir=w m && touch m/x && umount m",
    );
    home.wait_booted("one");
    assert_eq!(exec("one", "systemctl is-system-running").trim(), "running");
    // What the image does not start at boot is there when it is used.
    exec("one", "busctl status >/dev/null && loginctl list-sessions");
    exec("one", "for n in fuse loop-control net/tun; do test -c /dev/$n || exit 1; done");
    exec("one", "losetup -f && test -d /sys/kernel/debug/block && test -e /dev/mqueue");
    exec("one", "journalctl -b --header | grep -q 'File path: /var/log/journal/'");
    assert_ne!(exec("one", "cat /etc/machine-id"), exec("two", "cat /etc/machine-id"));
    let key = "cat /etc/ssh/ssh_host_ed25519_key.pub";
    assert_ne!(exec("one", key), exec("two", key));
    // An unprivileged process that dials the host (CID 2) gets nothing, and the agent, dialled from
    // inside through the guest's own CID or the local one, does not talk to it either.
    for cid in [1, 2, 3] {
        for port in [10_789, 10_790] {
            let dial = format!(
                "use Socket; socket(S, 40, SOCK_STREAM, 0) or exit 9; alarm 20; \
                 connect(S, pack('SSLLx4', 40, 0, {port}, {cid})) or exit 7; \
                 syswrite(S, \"GET /healthz HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n\"); \
                 exit(sysread(S, $x, 9) ? 0 : 7)"
            );
            let run = home.run(&[
                "exec", "--wait", "ready", "-u", "nobody", "one", "--", "perl", "-e", &dial,
            ]);
            assert_eq!(run.code, 7, "CID {cid} port {port}: {}{}", run.out, run.err);
        }
    }
    exec("one", "ls /etc/ssh/ssh_host_rsa_key 2>/dev/null && exit 1 || exit 0");
    assert_eq!(exec("one", "hostname"), "one\n");
    for (program, answer) in [("git --version", "git version"), ("curl --version", "curl")] {
        assert!(exec("one", program).starts_with(answer));
    }
    let ssh = home.run(&["ssh", "one", "--", "hostname"]);
    assert_eq!((ssh.code, ssh.out.as_str()), (0, "one\n"), "{}", ssh.err);
    disks::copies_are_equal(&home, &exec);
    home.ok(&["vm", "delete", "-f", "one", "two"]);
    home.finish();
}
