//! Completion of the command line, by the shells themselves.

use std::io::Write;
use std::process::{Command, Stdio};

use banger_testkit::{Home, Run, program};

use crate::fake_daemon::{self, FakeDaemon};
use crate::support::{expect, home, run};

/// What bash offers for the last word of a line, split as bash splits it.
fn bash(home: &Home, line: &[&str]) -> Vec<String> {
    let script = r#"
        source <("$BANGER" completion bash)
        COMP_WORDS=("$BANGER" "$@") COMP_CWORD=$#
        _banger "$BANGER" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        for reply in "${COMPREPLY[@]}"; do printf '%s\n' "$reply"; done"#;
    let words = [&["-c", script, "bash"], line].concat();
    let shown = shell(home, "bash", &words);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""), "{line:?}");
    shown.out.lines().map(str::to_owned).collect()
}

/// Runs a shell for the commands of a home.
fn shell(home: &Home, shell: &str, words: &[&str]) -> Run {
    let mut command = Command::new(shell);
    let banger = home.command(&[]);
    let env = banger.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.envs(env).env("BANGER", program("banger")).args(words).stdin(Stdio::null());
    let folders = program("banger").parent().unwrap().display().to_string();
    let path = format!("{folders}:{}", std::env::var("PATH").unwrap());
    command.env("PATH", path).env("HOME", home.path()).output().unwrap().into()
}

/// Completes until there is an offer: on a busy host the daemon's answer may come too late.
fn offered(complete: impl Fn() -> Vec<String>) -> Vec<String> {
    let tries = std::iter::repeat_with(complete).take(50);
    tries.into_iter().find(|offer| !offer.is_empty()).unwrap_or_default()
}

/// A home with the VMs `db`, stopped, and `web`, running.
fn home_with_vms() -> Home {
    let home = home();
    assert_eq!(run(&home, "vm create --name web").code, 0);
    assert_eq!(run(&home, "vm create --no-start --name db").code, 0);
    home
}

fn end(home: Home) {
    run(&home, "vm delete -f web db");
    home.finish();
}

#[test]
fn bash_offers_the_names_that_fit() {
    let home = home_with_vms();
    for (line, expected) in [
        (&["vm", "stop", ""][..], &["web"][..]),
        (&["vm", "start", ""], &["db"]),
        (&["vm", "show", ""], &["db", "web"]),
        (&["rm", "web", ""], &["db"]),
        (&["exec", "w"], &["web"]),
        (&["ssh", ""], &["web"]),
        (&["daemon", "logs", "--vm", "d"], &["db"]),
        (&["run", "--image", "=", "deb"], &["debian"]),
        (&["image", "show", "deb"], &["debian"]),
        (&["cp", "w"], &["web:"]),
    ] {
        assert_eq!(offered(|| bash(&home, line)), expected, "{line:?}");
    }
    let kernels = offered(|| bash(&home, &["kernel", "delete", ""]));
    assert_eq!(kernels.len(), 1, "{kernels:?}");
    let to_boot = offered(|| bash(&home, &["create", "--kernel", ""]));
    assert_eq!(to_boot.len(), 2, "{to_boot:?}");
    assert!(to_boot.iter().any(|kernel| kernel == "image"), "{to_boot:?}");
    let operations = offered(|| bash(&home, &["operation", "show", ""]));
    assert!(operations.iter().all(|id| id.starts_with("op-")), "{operations:?}");
    let id = home.json(&["vm", "show", "db"])["id"].as_str().unwrap().to_owned();
    assert_eq!(offered(|| bash(&home, &["vm", "show", &id[..6]])), [id.as_str()]);
    // Words of the program need no daemon.
    assert_eq!(bash(&home, &["vm", "sto"]), ["stop"]);
    assert_eq!(bash(&home, &["run", "--nat", "=", ""]), ["on", "off"]);
    assert_eq!(bash(&home, &["run", "--nat", "="]), ["on", "off"]);
    assert_eq!(bash(&home, &["completion", ""]), ["bash", "zsh", "fish"]);
    for nothing in [
        &["exec", "web", ""][..],
        &["exec", "web", "--", "w"],
        &["exec", "web", "ls", "--js"],
        &["run", "--", "w"],
        &["vm", "stop", "xyz"],
        &["vm", "start", "zzz"],
        &["operation", "cancel", ""],
    ] {
        assert_eq!(bash(&home, nothing), [] as [&str; 0], "{nothing:?}");
    }
    end(home);
}

#[test]
fn a_daemon_is_not_started_and_nothing_is_said() {
    let home = home();
    for line in ["vm stop ", "vm stop", "exec ", "image show --", "nope ", "--nope x", ""] {
        let shown = run(&home, &format!("__complete -- {line}"));
        assert_eq!((shown.code, shown.err.as_str()), (0, ""), "{line}");
        assert!(shown.out.starts_with("words\n"), "{line}: {}", shown.out);
    }
    expect(&run(&home, "__complete -- vm stop "), 0, "words\n", "");
    expect(&run(&home, "__complete -- image import "), 0, "files\n", "");
    expect(&run(&home, "__complete"), 0, &run(&home, "__complete -- ").out, "");
    let mut command = home.command(&["__complete", "--", "vm", "stop", ""]);
    let wrong: Run = command.env("BANGER_HOME", "relative").output().unwrap().into();
    expect(&wrong, 0, "words\n", "");
    assert!(!home.path().join("run/bangerd.sock").exists());
    let refused = run(&home, "completion bash --json");
    assert!(refused.code == 2 && refused.err.contains("a script cannot be shown"), "{refused:?}");
    home.finish();
}

#[test]
fn names_are_no_code_and_a_wrong_daemon_is_ignored() {
    let image = |names: &[&str]| {
        serde_json::json!({
            "id": "aaaaaaaa00000001", "names": names, "source": "one\ntwo\u{1b}[2J\tx",
            "virtual_bytes": 1, "used_bytes": 1, "init": null, "created_at": "",
            "fingerprint": "", "used_by": [],
        })
    };
    let daemon = FakeDaemon::new(move |request, stream| match request.line.as_str() {
        "GET /v1/images" => {
            let names = ["good", "$(touch x)", "a b", "`id`", "c\nd", "e\tf", "'", "*", "~root"];
            fake_daemon::reply(stream, 200, &serde_json::json!([image(&names)]));
        }
        "GET /v1/kernels" => fake_daemon::reply(stream, 500, &serde_json::json!({"odd": 1})),
        "GET /v1/operations" => drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nnot JSON")),
        // No answer before the client has gone.
        _ => drop(std::io::copy(stream, &mut std::io::sink())),
    });
    let offered = offered(|| {
        let shown = daemon.run("__complete -- image show ");
        assert_eq!((shown.code, shown.err.as_str()), (0, ""));
        shown.out.lines().skip(1).map(str::to_owned).collect()
    });
    assert_eq!(offered, ["good\tone\\ntwo\\u{1b}[2J\tx"]);
    for line in ["kernel delete ", "operation show ", "vm show "] {
        expect(&daemon.run(&format!("__complete -- {line}")), 0, "words\n", "");
    }
}

/// Whether a shell is installed; `scripts/setup.sh test` installs it.
fn is_installed(shell: &str) -> bool {
    let found = Command::new(shell).arg("--version").output().is_ok();
    if !found {
        let _ = writeln!(std::io::stderr(), "SKIPPED: `{shell}` is not installed");
    }
    found
}

#[test]
fn fish_offers_the_names_that_fit() {
    if !is_installed("fish") {
        return;
    }
    let home = home_with_vms();
    std::fs::write(home.path().join("file.env"), "").unwrap();
    let fish = |line: &str| -> Vec<String> {
        let script = format!(
            "$BANGER completion fish | source; cd {}; complete --do-complete '{line}'",
            home.path().display()
        );
        let shown = shell(&home, "fish", &["--no-config", "--command", &script]);
        assert_eq!((shown.code, shown.err.as_str()), (0, ""), "{line}");
        shown.out.lines().map(str::to_owned).collect()
    };
    assert_eq!(offered(|| fish("banger vm stop ")), ["web\trunning, debian"]);
    assert_eq!(offered(|| fish("banger -q start d")), ["db\tstopped, debian"]);
    assert_eq!(offered(|| fish("banger run --image=deb")).len(), 1);
    assert!(fish("banger vm create --na")[0].starts_with("--name\tName of the VM"));
    assert!(fish("banger exec --env-file file").iter().any(|one| one.starts_with("file.env")));
    assert!(fish("banger exec --env-file=file").iter().any(|one| one.contains("file.env")));
    assert_eq!(fish("banger exec web -- "), [] as [&str; 0]);
    end(home);
}

#[test]
fn zsh_offers_the_names_that_fit() {
    if !is_installed("zsh") {
        return;
    }
    let home = home_with_vms();
    // The function of the script, with the functions of zsh's completion that it calls.
    let zsh = |line: &[&str]| -> Vec<String> {
        let script = r#"
            _describe() { print -rl -- "${(@P)3}" }
            _files() { print -r -- "files $*" }
            compset() { print -r -- "compset $*" }
            source <($BANGER completion zsh)
            words=($BANGER "$@") CURRENT=$#words PREFIX=$words[-1]
            _banger"#;
        let shown = shell(&home, "zsh", &[&["-f", "-c", script, "zsh"], line].concat());
        assert_eq!(shown.err, "", "{line:?}");
        shown.out.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
    };
    assert_eq!(offered(|| zsh(&["vm", "stop", ""])), ["web:running, debian"]);
    assert_eq!(offered(|| zsh(&["cp", "w"])), ["web\\::running, debian"]);
    assert_eq!(offered(|| zsh(&["run", "--image=deb"])).len(), 1);
    assert_eq!(zsh(&["image", "import", ""]), ["files "]);
    assert_eq!(zsh(&["exec", "--env-file=x"]), ["compset -P *=", "files "]);
    assert_eq!(zsh(&["exec", "web", "--", ""]), [] as [&str; 0]);
    end(home);
}
