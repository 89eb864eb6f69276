//! Commands in a guest: streams, exit codes, signals, and VMs that are deleted with their session.

use std::io::{Read, Write};
use std::process::Stdio;

use banger_testkit::{Home, Run, kill};

use crate::support::{expect, home, run};

fn sh(home: &Home, before: &str, script: &str) -> Run {
    home.run(&before.split(' ').chain(["--", "sh", "-c", script]).collect::<Vec<_>>())
}

#[test]
fn a_machine_for_one_command() {
    let home = home();
    let ended = sh(&home, "run --rm", "echo out; echo err >&2; exit 7");
    let fetches: String = ended
        .err
        .lines()
        .filter(|line| !line.contains(": pull_"))
        .map(|l| format!("{l}\n"))
        .collect();
    assert_eq!((ended.code, ended.out.as_str(), fetches.as_str()), (7, "out\n", "err\n"));
    // Image and kernel are stored now, so the only output is that of the command.
    expect(&sh(&home, "run --rm", "echo out; echo err >&2; exit 7"), 7, "out\n", "err\n");
    let echoed = home.run_with_input(&["run", "--rm", "-i", "--", "cat"], b"hi\n");
    expect(&echoed, 0, "hi\n", "");
    let unread = home.run_with_input(&["run", "--rm", "--", "cat"], b"hi\n");
    expect(&unread, 0, "", "");
    let shell = home.run_with_input(&["run", "--rm", "-i"], b"echo in a shell\nexit 4\n");
    assert_eq!((shell.code, shell.out.as_str()), (4, "in a shell\n"), "{}", shell.err);
    let verbose = sh(&home, "run --rm -v", "exit 0");
    assert!(verbose.err.contains(": boot "), "{}", verbose.err);
    home.finish();
}

#[test]
fn a_kept_machine_is_mentioned() {
    let home = home();
    let expected = "`web` is still running; `banger vm stop web` stops it\n";
    let ended = run(&home, "run --name web -- uname");
    assert_eq!((ended.code, ended.out.as_str()), (0, "Linux\n"));
    assert!(ended.err.ends_with(expected), "{}", ended.err);
    let quiet = run(&home, "run --name other -q -- uname");
    expect(&quiet, 0, "Linux\n", "");
    let down = run(&home, "run --name down -- poweroff");
    assert!(!down.err.contains("still running"), "{}", down.err);
    run(&home, "vm delete -f web other down");
    home.finish();
}

#[test]
fn a_machine_in_the_background() {
    let home = home();
    let web = run(&home, "run -d --name web");
    assert_eq!((web.code, web.out.as_str()), (0, "web\n"), "{}", web.err);
    let gone = run(&home, "run -d --rm --name gone --json");
    let json: serde_json::Value = serde_json::from_str(&gone.out).unwrap();
    assert_eq!((&json["state"], &json["lifetime"]), (&"running".into(), &"until_stopped".into()));
    run(&home, "vm stop web gone");
    home.wait_state("gone", "gone");
    assert_eq!(home.state("web"), "stopped");
    run(&home, "vm delete web");
    home.finish();
}

#[test]
fn exit_codes_are_the_guests() {
    let home = home();
    run(&home, "vm create --name web");
    assert_eq!(sh(&home, "exec web", "exit 255").code, 255);
    assert_eq!(sh(&home, "exec web", "kill -9 $$").code, 137);
    assert_eq!(sh(&home, "exec web", "kill -TERM $$").code, 143);
    expect(&run(&home, "exec web -- nosuch"), 127, "", "error: `nosuch` was not found\n");
    expect(&run(&home, "exec web uname -a -q"), 127, "", "error: `uname` was not found\n");
    let env = run(&home, "exec -e A=b=c web -e X= -- env").out;
    assert!(env.contains("\nA=b=c\n") && env.contains("\nX=\n"), "{env}");
    expect(&run(&home, "exec web -w /srv -- pwd"), 0, "/srv\n", "");
    run(&home, "vm stop web");
    let stopped = "error: `web` is stopped\nhint: `banger vm start web` starts it\n";
    expect(&run(&home, "exec web -- true"), 125, "", stopped);
    run(&home, "vm delete web");
    home.finish();
}

#[test]
fn a_command_needs_no_dashes_before_it() {
    let home = home();
    expect(&run(&home, "run --rm -q uname"), 0, "Linux\n", "");
    run(&home, "vm create --name web");
    for line in ["exec web uname", "exec web -- uname", "vm exec web uname"] {
        expect(&run(&home, line), 0, "Linux\n", "");
    }
    // Arguments after the command belong to the command.
    expect(&run(&home, "exec web echo --json -q --help"), 0, "--json -q --help\n", "");
    expect(&run(&home, "exec web echo a -- b"), 0, "a -- b\n", "");
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn environment_and_folder_are_those_asked_for() {
    let home = home();
    let env = |before: &[&str]| -> Run {
        let args = [before, &["--", "env"]].concat();
        let mut command = home.command(&args);
        command.env("HERE", "x y").env_remove("GONE").env("COLORTERM", "truecolor");
        command.output().unwrap().into()
    };
    run(&home, "vm create --name web");
    let expected = "warning: `GONE` is not set here, so it is not passed on\n";
    for before in [vec!["run", "--rm", "-q"], vec!["exec", "web"]] {
        let flags = ["-e", "A=b=c", "-e", "HERE", "-e", "GONE", "-e", "E="];
        let words: Vec<&str> = match before[0] {
            "run" => before.iter().copied().chain(flags).collect(),
            _ => before[..1].iter().copied().chain(flags).chain(["web"]).collect(),
        };
        let shown = env(&words);
        assert_eq!((shown.code, shown.err.as_str()), (0, expected), "{}", shown.out);
        for line in ["A=b=c", "HERE=x y", "E="] {
            assert!(shown.out.lines().any(|shown| shown == line), "{line}\n{}", shown.out);
        }
        // Only output to a terminal has colours.
        assert!(!shown.out.contains("GONE") && !shown.out.contains("COLORTERM"), "{}", shown.out);
    }
    expect(&run(&home, "run --rm -q -w /srv pwd"), 0, "/srv\n", "");
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn files_of_variables_are_read_in_order_and_flags_win() {
    let home = home();
    run(&home, "vm create --name web");
    let file = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let one = file("one.env", b"# first\nA=1\nB=1\nC=1\nHERE\nODD=\xc3\xbc \"x\" \n");
    let two = file("two.env", b"\nB=2\r\nC=2\n");
    let files = ["--env-file", &one, "-e", "C=3", "--env-file", &two];
    for before in [vec!["run", "--rm", "-q"], vec!["exec"], vec!["vm", "exec"]] {
        let vm: &[&str] = if before[0] == "run" { &[] } else { &["web"] };
        let words = [&before, &files[..], vm, &["--", "env"]].concat();
        let shown = home.command(&words).env("HERE", "x y").output().unwrap();
        let lines: Vec<&[u8]> = shown.stdout.split(|byte| *byte == b'\n').collect();
        for line in [&b"A=1"[..], b"B=2", b"C=3", b"HERE=x y", b"ODD=\xc3\xbc \"x\" "] {
            assert!(lines.contains(&line), "{} {shown:?}", String::from_utf8_lossy(line));
        }
    }
    let bad = file("bad.env", b"A=1\nexport B=2\n");
    let missing = home.path().join("none.env").display().to_string();
    let folder = home.path().display().to_string();
    let large = file("large.env", &vec![b'#'; (1 << 20) + 1]);
    for (path, words) in [
        (&bad, format!("error: `{bad}`, line 2: the name `export B` contains white space\n")),
        (&missing, format!("error: cannot read the environment file `{missing}`\n  because No ")),
        (&folder, format!("error: cannot read the environment file `{folder}`\n  because Is a ")),
        (&large, format!("error: the environment file `{large}` has more than 1 MiB\n")),
    ] {
        for before in
            [vec!["run", "--rm", "--env-file", path], vec!["exec", "--env-file", path, "web"]]
        {
            let refused = home.run(&[&before[..], &["--", "true"]].concat());
            assert_eq!(refused.code, 125, "{}", refused.err);
            assert!(refused.err.starts_with(&words), "{}", refused.err);
        }
    }
    // Refused before a VM is created.
    assert_eq!(run(&home, "ps -q").out.lines().count(), 1);
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn a_command_in_the_background() {
    let home = home();
    let started = run(&home, "run -d --name web -- sleep 1000");
    assert_eq!((started.code, started.out.as_str()), (0, "web\n"), "{}", started.err);
    assert!(started.err.contains("the command runs as process "), "{}", started.err);
    assert_eq!(home.state("web"), "running");
    let missing = run(&home, "run -d --name bad -- no-such-program");
    let expected = "error: `no-such-program` was not found\nhint: `bad` runs without the command; \
        `banger vm delete -f bad` removes it\n";
    assert!(
        missing.code == 125 && missing.err.ends_with(expected),
        "{} {}",
        missing.code,
        missing.err
    );
    run(&home, "vm delete -f web bad");
    home.finish();
}

#[test]
fn a_command_as_a_document() {
    let home = home();
    run(&home, "vm create --name web");
    for before in ["exec web --json", "run --rm --json"] {
        let ended = sh(&home, before, "echo out; echo err >&2; exit 3");
        assert_eq!(ended.code, 3, "{}", ended.err);
        let document: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        let expected = serde_json::json!({
            "exit_code": 3, "stdout": "out\n", "stderr": "err\n", "truncated": false,
        });
        assert_eq!(document, expected);
    }
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn much_data_passes_intact() {
    let home = home();
    run(&home, "vm create --name web");
    let data: Vec<u8> =
        (0..25_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut child =
        home.command(&["exec", "-i", "web", "--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut back = Vec::with_capacity(data.len());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stdin.write_all(&data).unwrap();
            drop(stdin);
        });
        stdout.read_to_end(&mut back).unwrap();
    });
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(back == data, "{} bytes of {}", back.len(), data.len());
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn signals_are_passed_on() {
    let home = home();
    run(&home, "vm create --name web");
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129), ("USR1", 138)] {
        let mut child = home.spawn(&["exec", "web", "--", "sh", "-c", "echo ready; sleep 100"]);
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        kill(child.id(), signal);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
    }
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn a_reader_that_leaves_ends_the_command() {
    let home = home();
    run(&home, "vm create --name web");
    let mut child =
        home.command(&["exec", "-i", "web", "--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"unread input\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    let mut list = home.command(&["vm", "list"]).spawn().unwrap();
    drop(list.stdout.take());
    assert_eq!(list.wait().unwrap().code(), Some(141));
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn a_session_takes_its_machine_along_however_it_ends() {
    let home = home();
    for signal in ["KILL", "TERM", "INT"] {
        let mut child = home.spawn(&[
            "run",
            "--rm",
            "--name",
            "web",
            "--",
            "sh",
            "-c",
            "echo ready; sleep 100",
        ]);
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        kill(child.id(), signal);
        child.wait().unwrap();
        home.wait_state("web", "gone");
    }
    let down = run(&home, "run --rm --name web -- poweroff");
    assert_eq!(down.code, 125, "{}", down.err);
    let expected = "error: the connection to the guest ended before the command did\n";
    assert!(down.err.starts_with(expected), "{}", down.err);
    assert_eq!(home.state("web"), "gone");
    home.finish();
}
