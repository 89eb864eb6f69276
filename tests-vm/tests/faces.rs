//! The web page and the terminal interface with a real machine, in one boot.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use banger_testkit::{Home, Tmux, Web, program};

#[test]
fn a_machine_of_the_page_has_a_shell_in_the_page_and_in_the_terminal_interface() {
    let home = Home::new();
    let web = Web::serve(&home);
    let mut browser = web
        .program("real.mjs")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(browser.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line == "used\n" {
        shell_in_place(&home);
        browser.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    }
    let ended = browser.wait_with_output().unwrap();
    assert!(ended.status.success(), "{line}{}", String::from_utf8_lossy(&ended.stderr));
    drop(web);
    home.finish();
}

/// A shell in place of the list, and the way back.
fn shell_in_place(home: &Home) {
    let command = format!("{} tui; echo ended $?", program("banger").display());
    let tmux = Tmux::start(home, "tmux", (100, 30), &command);
    tmux.wait(&["web", "● running"]);
    tmux.keys(&["e"]);
    tmux.wait(&["root@web"]);
    tmux.keys(&["stty size; echo $((6*7)) answers", "Enter"]);
    tmux.wait(&["30 100", "42 answers"]);
    tmux.keys(&["exit", "Enter"]);
    tmux.wait(&["NAME▲", "● running"]);
    // What the guest wrote to its console before cannot control this terminal.
    tmux.keys(&["l"]);
    tmux.wait(&["link<img src=x onerror=alert(1)>", "console-end"]);
    tmux.keys(&["q"]);
    tmux.wait(&["ended 0"]);
    tmux.end();
}
