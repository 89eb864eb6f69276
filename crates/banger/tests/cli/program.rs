//! Container images without an init: their program is the machine's.

use std::io::Read;

use banger_testkit::{Home, Options, Run, kill, program};

use crate::support::{expect, home, run};

/// A container image of the simulated registry: its entry point is `echo app`, its command
/// `default`.
const IMAGE: &str = "127.0.0.1:5000/app:1";

fn pulled() -> Home {
    let home = home();
    home.ok(&["image", "pull", IMAGE]);
    run(&home, "kernel pull");
    home
}

fn run_image(home: &Home, before: &str, rest: &[&str]) -> Run {
    let words = [&before.split(' ').collect::<Vec<_>>(), &["--image", IMAGE][..], rest].concat();
    home.run(&words)
}

#[test]
fn the_program_runs_as_in_docker() {
    let home = pulled();
    expect(&run_image(&home, "run --rm", &[]), 0, "app default\n", "");
    expect(&run_image(&home, "run --rm", &["--", "x", "y"]), 0, "app x y\n", "");
    expect(&run_image(&home, "run --rm", &["--entrypoint", "uname"]), 0, "Linux\n", "");
    let shell = ["--entrypoint", "sh", "--", "-c", "echo err >&2; exit 7"];
    expect(&run_image(&home, "run --rm", &shell), 7, "", "err\n");
    let input = ["run", "--rm", "-i", "--image", IMAGE, "--entrypoint", "cat"];
    let echoed = home.run_with_input(&input, b"hi\n");
    assert_eq!((echoed.code, echoed.out.as_str()), (0, "hi\n"), "{}", echoed.err);
    let missing = run_image(&home, "run --rm", &["--entrypoint", "nosuch"]);
    expect(&missing, 127, "", "error: `nosuch` was not found\n");
    let killed = run_image(&home, "run --rm", &["--entrypoint", "sh", "--", "-c", "kill -9 $$"]);
    assert_eq!(killed.code, 137, "{}", killed.err);
    let document = run_image(&home, "run --rm --json", &[]);
    let json: serde_json::Value = serde_json::from_str(&document.out).unwrap();
    assert_eq!((&json["exit_code"], &json["stdout"]), (&0.into(), &"app default\n".into()));
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]));
    home.finish();
}

#[test]
fn a_machine_stops_with_its_program_and_starts_it_again() {
    let home = pulled();
    let shell = ["--name", "web", "--entrypoint", "sh", "--", "-c", "exit 3"];
    let ended = run_image(&home, "run -w /srv -u root -e A=1", &shell);
    assert_eq!(ended.code, 3, "{}", ended.err);
    assert!(!ended.err.contains("still running"), "{}", ended.err);
    let show = home.json(&["vm", "show", "web"]);
    assert_eq!(show["stopped_because"], serde_json::json!({"reason": "program_ended", "code": 3}));
    let expected = serde_json::json!({
        "argv": ["sh", "-c", "exit 3"], "cwd": "/srv", "user": "root", "stop_signal": 3,
        "exit_code": 3,
    });
    assert_eq!(show["program"], expected);
    let text = home.ok(&["vm", "show", "web"]);
    assert!(text.contains("because     its program ended with code 3\n"), "{text}");
    assert!(text.contains("program     sh -c \"exit 3\", in /srv, as root\n"), "{text}");
    run(&home, "vm start web");
    let show = home.json(&["vm", "show", "web"]);
    assert_eq!((&show["state"], &show["program"]["exit_code"]), (&"running".into(), &().into()));
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn a_program_in_the_background() {
    let env = |name: &str, value: String| (name.to_owned(), value);
    let home = Home::bare(Options {
        env: vec![
            env("BANGERD", program("bangerd-sim").display().to_string()),
            env("BANGER_SIM_BEHAVIORS", "short=exits-9,gone=exits-0".into()),
        ],
        ..Options::default()
    });
    let web = run_image(&home, "run -d --name web", &["--", "x"]);
    assert_eq!((web.code, web.out.as_str()), (0, "web\n"), "{}", web.err);
    assert!(!web.err.contains("runs as process"), "{}", web.err);
    assert_eq!(home.state("web"), "running");
    assert_eq!(home.json(&["vm", "show", "web"])["program"]["argv"][2], "x");
    assert_eq!(run_image(&home, "run -d --name short", &[]).code, 0);
    home.wait_state("short", "stopped");
    assert_eq!(home.json(&["vm", "show", "short"])["program"]["exit_code"], 9);
    assert_eq!(run_image(&home, "run -d --rm --name gone", &[]).code, 0);
    home.wait_state("gone", "gone");
    run(&home, "vm delete -f web short");
    home.finish();
}

#[test]
fn the_client_of_a_program_takes_its_temporary_machine_along() {
    let home = pulled();
    for (signal, code) in [("KILL", None), ("TERM", Some(143)), ("INT", Some(130))] {
        let mut child = home.spawn(&[
            "run",
            "--rm",
            "--name",
            "web",
            "--image",
            IMAGE,
            "--entrypoint",
            "sh",
            "--",
            "-c",
            "echo ready; sleep 100",
        ]);
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        kill(child.id(), signal);
        assert_eq!(child.wait().unwrap().code(), code, "{signal}");
        home.wait_state("web", "gone");
    }
    home.finish();
}

#[test]
fn an_init_has_no_entry_point() {
    let home = pulled();
    run(&home, "image pull debian");
    let refused = run(&home, "run --rm --entrypoint sh");
    assert_eq!(refused.code, 125, "{}", refused.err);
    let expected = "error: the image `debian` has an init (/sbin/init), not an entry point\n\
        hint: give the program as a command after `--`, which runs it beside the image's init\n";
    assert!(refused.err.starts_with(expected), "{}", refused.err);
    // Its shell needs a terminal; refused before a machine is made.
    let refused = run(&home, "run --rm --image debian");
    let expected = "error: a shell needs a terminal or input, and this is neither\n";
    assert!(refused.err.starts_with(expected), "{}", refused.err);
    let relative = run_image(&home, "run --rm -w srv", &[]);
    expect(&relative, 125, "", "error: working folder `srv` is not absolute\n");
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]));
    home.finish();
}

#[test]
fn an_image_shows_its_program() {
    let home = pulled();
    let text = home.ok(&["image", "show", IMAGE]);
    for line in [
        "init         none: the entry point runs\n",
        "entry point  [\"echo\",\"app\"]\n",
        "command      [\"default\"]\n",
        "env          APP=1\n",
        "folder       /srv\n",
        "port         80/tcp\n",
        "stop signal  SIGQUIT\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    home.finish();
}
