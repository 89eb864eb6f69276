//! A usable terminal in a real guest: size, resize, Ctrl-C; script(1) plays the terminal here.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use banger_testkit::{Home, program};

/// Runs a shell line on a terminal of its own; `{banger}` in it is the CLI. Types `typed` when
/// `cue` has been seen.
fn on_a_terminal(home: &Home, line: &str, cue: &str, typed: &[u8]) -> String {
    let line = line.replace("{banger}", &program("banger").display().to_string());
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("BANGER_HOME", home.path())
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = String::new();
    let mut answered = typed.is_empty();
    let mut piece = [0; 4096];
    loop {
        let count = stdout.read(&mut piece).unwrap_or(0);
        if count == 0 {
            break;
        }
        seen.push_str(&String::from_utf8_lossy(&piece[..count]));
        if !answered && seen.contains(cue) {
            answered = true;
            stdin.write_all(typed).unwrap();
            stdin.flush().unwrap();
        }
    }
    child.wait().unwrap();
    seen
}

#[test]
fn size_resize_and_interrupt() {
    let home = Home::new();
    home.ok(&["vm", "create", "--name", "web"]);
    let exec = "{banger} exec -i -t web --";

    let seen = on_a_terminal(
        &home,
        &format!(
            "stty rows 33 cols 101; {exec} sh -c 'stty size; test -t 0 && test -t 1 && echo tty'"
        ),
        "",
        b"",
    );
    assert!(seen.contains("33 101") && seen.contains("tty"), "{seen}");

    // The terminal changes while the command runs.
    let watch = "i=0; while [ $i -lt 100 ]; do stty size; sleep 0.1; i=$((i+1)); \
                 [ \"$(stty size)\" = \"44 111\" ] && echo resized && exit 0; done";
    let seen = on_a_terminal(
        &home,
        &format!(
            "stty rows 33 cols 101; (sleep 2; stty rows 44 cols 111 </dev/tty) & \
             {exec} sh -c '{watch}'"
        ),
        "",
        b"",
    );
    assert!(seen.contains("33 101") && seen.contains("resized"), "{seen}");

    let trap = "trap \"echo interrupted; exit 5\" INT; echo up; sleep 100 & wait";
    let seen = on_a_terminal(&home, &format!("{exec} sh -c '{trap}'; echo code $?"), "up", b"\x03");
    assert!(seen.contains("interrupted") && seen.contains("code 5"), "{seen}");

    // A login shell that is left with the end of input.
    let seen = on_a_terminal(
        &home,
        "{banger} vm shell web; echo code $?",
        "# ",
        b"echo $((6*7)) in $HOME\nexit 4\n",
    );
    assert!(seen.contains("42 in /root") && seen.contains("code 4"), "{seen}");
    assert!(seen.contains("still running"), "{seen}");

    let plain = home.run(&["exec", "-t", "web", "--", "true"]);
    assert_eq!(plain.code, 125, "without a terminal -t is refused");
    home.ok(&["vm", "delete", "-f", "web"]);
    home.finish();
}
