//! `ssh`, `ssh-config` and what ssh starts.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use banger_testkit::{Home, Run};

use crate::support::{expect, home, run};

/// Runs the CLI with a home folder of its own.
fn run_in(home: &Home, line: &str) -> Run {
    let words: Vec<&str> = line.split(' ').collect();
    home.command(&words).env("HOME", home.path()).output().unwrap().into()
}

#[test]
fn the_proxy_carries_bytes_and_records_the_host_key() {
    let home = home();
    run(&home, "vm create --name web");
    let mut command = home.command(&["ssh-proxy", "web.vm", "22"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut banner = [0; 19];
    output.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"SSH-2.0-simulated\r\n");
    let data: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let sent = data.clone();
    let sending = std::thread::spawn(move || {
        input.write_all(&sent).unwrap();
        input
    });
    let mut back = vec![0; data.len()];
    output.read_exact(&mut back).unwrap();
    assert!(back == data, "other bytes came back");
    drop(sending.join().unwrap());
    assert!(child.wait().unwrap().success(), "the end of the input ends the proxy");
    let known = std::fs::read_to_string(home.path().join("state/ssh/known_hosts")).unwrap();
    assert!(known.starts_with("web.vm ssh-ed25519 AAAA") && known.lines().count() == 1, "{known}");
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn the_ssh_agent_is_forwarded_for_a_session() {
    let home = home();
    run(&home, "vm create --name web");
    let path = home.path().join("agent");
    let listener = UnixListener::bind(&path).unwrap();
    let variable =
        ["exec", "--ssh-agent", "-i", "web", "--", "sh", "-c", "echo $SSH_AUTH_SOCK; cat"];
    let mut command = home.command(&variable);
    let mut child = command.env("SSH_AUTH_SOCK", &path).stdin(Stdio::piped()).spawn().unwrap();
    // The first connection only shows that the agent is there.
    drop(listener.accept().unwrap());
    let (mut guest, _) = listener.accept().unwrap();
    let mut line = [0; 6];
    guest.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"hello\n");
    guest.write_all(b"keys").unwrap();
    guest.read_exact(&mut line[..4]).unwrap();
    assert_eq!(&line[..4], b"KEYS");
    // It ends with the session.
    drop(child.stdin.take());
    let output: Run = child.wait_with_output().unwrap().into();
    assert_eq!(output.out, "/run/banger-forward/1-1/agent.sock\n", "{}", output.err);
    assert_eq!(guest.read(&mut line).unwrap(), 0);
    // Off unless it is asked for, and an error where there is no agent.
    let plain = home.command(&["exec", "web", "env"]).env("SSH_AUTH_SOCK", &path).output().unwrap();
    assert!(!String::from_utf8_lossy(&plain.stdout).contains("SSH_AUTH_SOCK"));
    for (value, error) in [("", "is not set"), ("/nonexistent", "does not answer")] {
        let mut command = home.command(&["run", "--ssh-agent", "--name", "other", "true"]);
        let refused: Run = command.env("SSH_AUTH_SOCK", value).output().unwrap().into();
        assert!(refused.code == 125 && refused.err.contains(error), "{}", refused.err);
    }
    let detached = ["run", "--ssh-agent", "-d", "--name", "other", "true"];
    let refused: Run = home.command(&detached).env("SSH_AUTH_SOCK", &path).output().unwrap().into();
    assert!(refused.err.contains("lasts as long as a session"), "{}", refused.err);
    assert_eq!(home.json(&["vm", "list"]).as_array().unwrap().len(), 1, "nothing was created");
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn failures_are_explained() {
    let home = home();
    let missing = "error: there is no VM `nope`\n";
    for (line, code) in [("ssh nope", 125), ("vm ssh nope -- ls", 125), ("ssh-proxy nope.vm", 3)] {
        let run = run(&home, line);
        assert!(run.code == code && run.err.starts_with(missing), "{line}: {}", run.err);
    }
    let text = "error: `a,b.vm` is not the host name of a VM, such as web.vm\n";
    expect(&run(&home, "ssh-proxy a,b.vm"), 2, "", text);
    run(&home, "vm create --name web --no-start");
    let stopped = run(&home, "ssh web");
    assert_eq!(stopped.code, 125, "{}", stopped.err);
    assert!(stopped.err.contains("hint: "), "{}", stopped.err);
    run(&home, "vm start web");
    let closed = run(&home, "ssh-proxy web.vm 23");
    assert_eq!(closed.code, 1);
    assert!(closed.err.starts_with("error: nothing listens on port 23 of `web`\n"), "{closed:?}");
    let json = run(&home, "ssh --json web");
    assert!(json.err.contains("cannot be shown as JSON"), "{}", json.err);
    let mut command = home.command(&["ssh", "web"]);
    let without: Run = command.env("PATH", "/nowhere").output().unwrap().into();
    assert_eq!(without.code, 125);
    let text = "error: the program `ssh` is not installed\nhint: install OpenSSH's client; on \
        Debian and Ubuntu: openssh-client\n";
    assert_eq!(without.err, text);
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn a_machine_that_runs_after_ssh_is_mentioned() {
    use std::os::unix::fs::PermissionsExt;
    let home = home();
    run(&home, "vm create --name web");
    // In place of OpenSSH, which would need a server in the simulated guest.
    let tools = home.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let banger = program();
    let script = format!(
        "#!/bin/sh\nfor last; do :; done\n\
         [ \"$last\" != poweroff ] || {banger} -q vm stop web >&2\nexit 7\n"
    );
    std::fs::write(tools.join("ssh"), script).unwrap();
    std::fs::set_permissions(tools.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let ssh = |line: &str| -> Run {
        let words: Vec<&str> = line.split(' ').collect();
        home.command(&words).env("PATH", &path).output().unwrap().into()
    };
    let running = "`web` is still running; `banger vm stop web` stops it\n";
    for line in ["ssh web", "ssh web uname -a", "ssh web -- uname -a", "vm ssh web -- true"] {
        expect(&ssh(line), 7, "", running);
    }
    expect(&ssh("ssh -q web -- true"), 7, "", "");
    expect(&ssh("ssh web -- poweroff"), 7, "", "");
    run(&home, "vm delete -f web");
    home.finish();
}

/// The proxy that ssh starts reaches no daemon: it has the connection that `banger ssh` opened.
#[test]
fn the_port_is_connected_to_once() {
    use std::os::unix::fs::PermissionsExt;
    let home = home();
    run(&home, "vm create --name web");
    let tools = home.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let script = "#!/bin/sh
for word; do case $word in ProxyCommand*) proxy=${word#ProxyCommand };; esac; done
proxy=$(echo \"$proxy\" | sed 's/%h/web.vm/; s/%p/22/')
cd \"$BANGER_HOME\" && mkfifo in out && mv run hidden || exit 9
sh -c \"$proxy\" <in >out & exec 3>in
head -n 1 <out
exec 3>&-
wait $!; code=$?
mv hidden run && exit $code
";
    std::fs::write(tools.join("ssh"), script).unwrap();
    std::fs::set_permissions(tools.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let ssh: Run = home.command(&["-q", "ssh", "web"]).env("PATH", &path).output().unwrap().into();
    expect(&ssh, 0, "SSH-2.0-simulated\n", "");
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn the_include_is_added_once_and_removed() {
    let home = home();
    let user = home.path().join(".ssh/config");
    let ours = home.path().join("state/ssh/config");
    let shown = user.display().to_string();
    let printed = run_in(&home, "ssh-config").out;
    assert!(printed.contains("\nHost *.vm\n    User root\n    ProxyCommand env BANGER_HOME="));
    assert!(printed.contains("\n    StrictHostKeyChecking yes\n"), "{printed}");
    assert!(!user.exists() && !ours.exists(), "printing changes nothing");
    let added = format!("the Include of banger added to `{shown}`\n");
    assert_eq!(run_in(&home, "ssh-config --install").err, added);
    let already = format!("the Include of banger is already in `{shown}`\n");
    assert_eq!(run_in(&home, "ssh-config --install").err, already);
    assert_eq!(std::fs::read_to_string(&ours).unwrap(), printed);
    let text = std::fs::read_to_string(&user).unwrap();
    assert!(text.contains(&format!("\nInclude \"{}\"\n", ours.display())), "{text}");
    // OpenSSH itself reads it so.
    let resolved =
        std::process::Command::new("ssh").args(["-G", "-F", &shown, "web.vm"]).output().unwrap();
    let resolved = String::from_utf8_lossy(&resolved.stdout).into_owned();
    for line in ["user root", "stricthostkeychecking true", "identitiesonly yes"] {
        assert!(resolved.lines().any(|l| l == line), "{line}: {resolved}");
    }
    assert!(resolved.contains(&format!("{} ssh-proxy %h %p\n", program())), "{resolved}");
    let removed = format!("the Include of banger removed from `{shown}`\n");
    assert_eq!(run_in(&home, "ssh-config --uninstall").err, removed);
    assert!(!user.exists() && !ours.exists());
    let absent = format!("the Include of banger was not in `{shown}`\n");
    assert_eq!(run_in(&home, "ssh-config --uninstall").err, absent);
    std::fs::create_dir(&user).unwrap();
    let refused = run_in(&home, "ssh-config --install");
    assert_eq!(refused.code, 1);
    assert!(refused.err.starts_with(&format!("error: cannot change `{shown}`")), "{}", refused.err);
    assert_eq!(run_in(&home, "ssh-config --install --uninstall").code, 2);
}

fn program() -> String {
    banger_testkit::program("banger").display().to_string()
}
