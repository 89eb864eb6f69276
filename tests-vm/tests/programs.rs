//! Container images without an init: their program is the machine's.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use banger_testkit::Home;
use tests_vm::container::umoci;

/// An OCI layout of an image with this configuration of `umoci config` and a layer of these files.
fn image(folder: &Path, config: &[&str], fill: impl FnOnce(&Path)) -> PathBuf {
    let (layout, bundle) = (folder.join("layout"), folder.join("bundle"));
    let (layout_text, bundle_text) = (layout.to_str().unwrap(), bundle.to_str().unwrap());
    let image = format!("{layout_text}:latest");
    umoci(&["init", "--layout", layout_text]);
    umoci(&["new", "--image", &image]);
    umoci(&["unpack", "--image", &image, bundle_text]);
    fill(&bundle.join("rootfs"));
    umoci(&["repack", "--refresh-bundle", "--image", &image, bundle_text]);
    // After the files, in which umoci looks for the user.
    umoci(&[&["config", "--image", &image], config].concat());
    layout
}

/// Adds busybox with these names.
fn busybox(root: &Path, names: &[&str]) {
    for folder in ["bin", "etc", "tmp"] {
        fs::create_dir(root.join(folder)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in names {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

/// A program that shows its arguments, and whether the machine has anything else.
const STATIC: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) printf("%s\n", argv[i]);
    if (access("/bin/sh", F_OK) == 0) return 1;
    fputs("err\n", stderr);
    return 7;
}
"#;

#[test]
fn one_static_program_is_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let config = ["--config.entrypoint", "/app", "--config.entrypoint", "a", "--config.cmd", "b"];
    let layout = image(folder.path(), &config, |root| {
        let source = folder.path().join("app.c");
        fs::write(&source, STATIC).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-static", "-o"]).args([root.join("app"), source]);
        assert!(cc.status().unwrap().success());
    });
    let home = Home::new();
    home.ok(&["image", "import", "--replace", "--name", "static", layout.to_str().unwrap()]);
    assert_eq!(home.json(&["image", "show", "static"])["init"], serde_json::Value::Null);
    let run = ["run", "--image", "static", "--memory", "512M", "--rm"];
    let ended = home.run(&run);
    assert_eq!((ended.code, ended.out.as_str()), (7, "a\nb\n"), "{}", ended.err);
    assert!(ended.err.lines().any(|line| line == "err"), "{}", ended.err);
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]));
    home.ok(&["image", "delete", "static"]);
    home.finish();
}

/// Shows where it runs, reads a line, and ends by its stop signal or when a file exists.
const SERVICE: &str = r#"
trap 'echo stopped by QUIT; exit 42' QUIT
echo "$1 $(id -u):$(id -G) $GREETING $(pwd) $HOME"
read line && echo "read $line"
while [ ! -e /tmp/go ]; do sleep 0.1; done
echo going
exit 9
"#;

/// As s6-overlay's: it runs as process 1 only. It shows the processes, and ends by its stop signal.
const CONTAINER_INIT: &str = r#"#!/bin/sh
[ $$ = 1 ] || exit 99
trap 'echo stopped; exit 43' TERM
echo "$(cat /proc/1/comm) $1, $(cat /proc/[0-9]*/comm | grep -c kthreadd) threads of the kernel"
sh -c 'sleep 0.2 & sleep 0.1' # leaves an orphan
while :; do sleep 0.1; done
"#;

#[test]
fn an_init_of_containers_is_process_1() {
    let folder = tempfile::tempdir().unwrap();
    let config = ["--config.entrypoint", "/init", "--config.cmd", "default"];
    let layout = image(folder.path(), &config, |root| {
        busybox(root, &["sh", "sleep", "cat", "grep", "ps", "whoami"]);
        fs::write(root.join("init"), CONTAINER_INIT).unwrap();
        fs::write(root.join("bin/claude"), "#!/bin/sh\necho \"$* as $(whoami)\"; exit 5\n")
            .unwrap();
        for program in ["init", "bin/claude"] {
            fs::set_permissions(root.join(program), PermissionsExt::from_mode(0o755)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    });
    let home = Home::new();
    home.ok(&["image", "import", "--replace", "--name", "overlay", layout.to_str().unwrap()]);
    home.ok(&["run", "-d", "--name", "web", "--image", "overlay", "--memory", "512M"]);
    let logs = || home.ok(&["vm", "logs", "web"]);
    let own = "init default, 0 threads of the kernel";
    home.wait("the program to start", || logs().contains(own));
    let processes = home.ok(&["exec", "web", "--", "ps", "-o", "pid,args"]);
    let own = processes.lines().find(|line| line.contains("/init default")).unwrap();
    assert!(!own.trim_start().starts_with("1 "), "{processes}");
    home.ok(&["vm", "stop", "web"]);
    let show = home.json(&["vm", "show", "web"]);
    let because = serde_json::json!({ "reason": "asked", "how": "graceful" });
    assert_eq!((&show["stopped_because"], &show["program"]["exit_code"]), (&because, &43.into()));
    assert!(logs().contains("stopped"), "{}", logs());
    // A stop signal before the program handles it is not lost.
    home.ok(&["vm", "start", "web"]);
    home.ok(&["vm", "stop", "web"]);
    assert_eq!(home.json(&["vm", "show", "web"])["program"]["exit_code"], 43);
    home.ok(&["vm", "delete", "web"]);

    // A program that has to be killed has an exit code as well; an agent takes the entry point's
    // place.
    let deaf =
        ["--entrypoint", "sh", "--", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"];
    let run = ["run", "-d", "--name", "web", "--image", "overlay", "--memory", "512M"];
    home.ok(&[&run[..], &deaf].concat());
    home.wait("the program to ignore the signal", || logs().contains("deaf"));
    home.ok(&["vm", "stop", "--timeout", "6", "web"]);
    assert_eq!(home.json(&["vm", "show", "web"])["program"]["exit_code"], 137);
    home.ok(&["vm", "delete", "web"]);
    let run = ["run", "--rm", "--image", "overlay", "--memory", "512M", "--agent", "claude"];
    let ended = home.run(&[&run[..], &["--", "one", "two"]].concat());
    assert_eq!((ended.code, ended.out.as_str()), (5, "one two as root\n"), "{}", ended.err);
    home.ok(&["image", "delete", "overlay"]);
    home.finish();
}

/// An image with the usual settings.
fn service(folder: &Path) -> PathBuf {
    let config = [
        "--config.entrypoint",
        "/bin/sh",
        "--config.entrypoint",
        "/service",
        "--config.cmd",
        "default",
        "--config.env",
        "GREETING=hello world",
        "--config.user",
        "web",
        "--config.workingdir",
        "/srv/work",
        "--config.stopsignal",
        "SIGQUIT",
    ];
    image(folder, &config, |root| {
        busybox(root, &["sh", "id", "sleep", "touch"]);
        fs::write(root.join("service"), SERVICE).unwrap();
        let users = "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n";
        fs::write(root.join("etc/passwd"), users).unwrap();
        fs::write(root.join("etc/group"), "web:x:1000:\nextra:x:2000:web\n").unwrap();
    })
}

#[test]
fn a_program_has_its_settings_a_stop_signal_and_survives_its_client() {
    let folder = tempfile::tempdir().unwrap();
    let layout = service(folder.path());
    let home = Home::new();
    home.ok(&["image", "import", "--replace", "--name", "service", layout.to_str().unwrap()]);

    let run = ["run", "-i", "--name", "web", "--image", "service", "--memory", "512M", "--", "one"];
    let mut client =
        home.command(&run).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    client.stdin.as_mut().unwrap().write_all(b"a line\n").unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
    let settings = "one 1000:1000 2000 hello world /srv/work /home/web";
    assert_eq!(lines.next().as_deref(), Some(settings));
    assert_eq!(lines.next().as_deref(), Some("read a line"));
    client.kill().unwrap();
    client.wait().unwrap();
    // Without a client it goes on, and other commands see the same variables.
    let exec = ["exec", "web", "--", "sh", "-c", "echo $GREETING; id -u"];
    assert_eq!(home.ok(&exec), "hello world\n0\n");
    home.ok(&["vm", "stop", "web"]);
    let show = home.json(&["vm", "show", "web"]);
    let because = serde_json::json!({ "reason": "asked", "how": "graceful" });
    assert_eq!((&show["stopped_because"], &show["program"]["exit_code"]), (&because, &42.into()));
    assert!(home.ok(&["vm", "logs", "web"]).contains("stopped by QUIT"));

    // Every later start runs it without a client, with the console as its output.
    home.ok(&["vm", "start", "web"]);
    let logs = || home.ok(&["vm", "logs", "web"]);
    home.wait("the program to start", || logs().contains(settings));
    home.ok(&["exec", "web", "--", "touch", "/tmp/go"]);
    home.wait_state("web", "stopped");
    let because = home.json(&["vm", "show", "web"])["stopped_because"].clone();
    assert_eq!(because, serde_json::json!({ "reason": "program_ended", "code": 9 }));
    assert!(logs().contains("going"), "{}", logs());
    home.ok(&["vm", "delete", "web"]);
    home.ok(&["image", "delete", "service"]);
    home.finish();
}
