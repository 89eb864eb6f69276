//! `banger tui` in a terminal of tmux, with the simulated host.

use banger_testkit::Tmux;

use crate::support::{home, run};

/// The command line, with the modes of the terminal and the exit code after its end.
fn tui(options: &str) -> String {
    let program = banger_testkit::program("banger");
    format!("stty sane; {} tui {options}; echo ended $?; stty -a", program.display())
}

/// Waits for the end, after which the terminal is as it was before.
#[track_caller]
fn ended(tmux: &Tmux<'_>, code: u8) {
    let screen = tmux.wait(&[&format!("ended {code}\n"), "iutf8"]);
    for mode in ["icanon", "echo", "isig"] {
        assert!(screen.split_whitespace().any(|word| word == mode), "{mode} is off:\n{screen}");
    }
    let cursor =
        tmux.ok(&["display-message", "-p", "#{cursor_flag} #{mouse_any_flag} #{alternate_on}"]);
    assert_eq!(cursor.trim(), "1 0 0", "cursor, mouse and alternate screen");
}

#[test]
fn a_vm_by_keys_alone() {
    let home = home();
    let tmux = Tmux::start(&home, "tmux", (80, 24), &tui(""));
    tmux.wait(&["There is no VM yet", "simulated host", "0/8"]);
    tmux.keys(&["n", "web", "Down", "Down", "Down", "Down", "16M", "Enter"]);
    tmux.wait(&["16 MiB of memory: a VM has 128 MiB to 16 TiB"]);
    tmux.keys(&["C-u", "1G", "Up", "Up", "Up", "no-such-image", "Enter"]);
    tmux.wait(&["New VM", "`no-such-image`"]);
    tmux.keys(&["C-u", "Enter"]);
    tmux.wait(&["web  ● running", "of 1 GiB", "Last start", "2/8"]);
    // Not Escape: with the next key in the same read it would be Alt and that key.
    tmux.keys(&["Enter"]);
    tmux.wait(&["NAME▲", "▌  web"]);
    tmux.keys(&["e"]);
    tmux.wait(&["root@web:~#"]);
    tmux.keys(&["stty size; exit", "Enter"]);
    tmux.wait(&["NAME▲", "● running"]);
    tmux.ok(&["resize-window", "-x", "200", "-y", "50"]);
    tmux.wait(&["Last start", "Console", "2 of 8 reserved"]);
    home.ok(&["daemon", "stop"]);
    tmux.wait(&["no daemon for", "`d` starts it"]);
    tmux.keys(&["d"]);
    tmux.wait(&["● running", "simulated host"]);
    // Another client's change is shown, too.
    run(&home, "vm create --name other --no-start");
    tmux.wait(&["other", "○ stopped"]);
    tmux.keys(&["a", "x"]);
    tmux.wait(&["Stop 2 VMs?", "other, web"]);
    tmux.keys(&["y"]);
    tmux.wait(&["○ stopped", "0 of 8 reserved"]);
    tmux.keys(&["a", "D"]);
    tmux.wait(&["Delete 2 VMs?"]);
    tmux.keys(&["y"]);
    tmux.wait(&["There is no VM yet"]);
    tmux.keys(&["q"]);
    ended(&tmux, 0);
    tmux.end();
    home.finish();
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let home = home();
    run(&home, "vm create --name web --no-start");
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 130)] {
        let tmux = Tmux::start(&home, signal, (100, 30), &tui("--theme light"));
        tmux.wait(&["web", "○ stopped"]);
        let pane = tmux.ok(&["display-message", "-p", "#{pane_pid}"]);
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", pane.trim()));
        let pid = children.unwrap().trim().parse().unwrap();
        banger_testkit::kill(pid, signal);
        ended(&tmux, code);
        tmux.end();
    }
    let tmux = Tmux::start(&home, "key", (100, 30), &tui(""));
    tmux.wait(&["web", "○ stopped"]);
    tmux.keys(&["C-c"]);
    ended(&tmux, 0);
    tmux.end();
    run(&home, "vm delete web");
    home.finish();
}

/// Row of the first line that contains a text.
#[track_caller]
fn row(screen: &str, text: &str) -> usize {
    let row = screen.lines().position(|line| line.contains(text));
    assert!(row.is_some(), "`{text}` is not on the screen:\n{screen}");
    row.unwrap_or_default()
}

#[test]
fn ports_images_restarts_and_another_daemon() {
    let home = home();
    for (socket, size) in [("small", (80, 24)), ("large", (200, 50))] {
        run(&home, "vm create --name one");
        run(&home, "vm create --name two");
        let tmux = Tmux::start(&home, socket, size, &tui(""));
        let screen = tmux.wait(&["▌  one", "two", "● running"]);
        // The mouse: a row, a list, and back.
        tmux.click(6, row(&screen, "two"));
        tmux.wait(&["▌  two"]);
        let header = screen.lines().next().unwrap_or_default();
        tmux.click(header.find("Images").unwrap_or_default(), 0);
        tmux.wait(&["SYSTEM", "debian"]);
        tmux.keys(&["u"]);
        tmux.wait(&["Pull an image"]);
        tmux.keys(&["ghcr.io/acme/app:1", "Enter"]);
        tmux.wait(&["image `ghcr.io/acme/app:1` is here"]);
        tmux.keys(&["/", "acme", "Enter"]);
        tmux.wait(&["1 of 2", "▌ ghcr.io/acme/app:1"]);
        tmux.keys(&["D", "y"]);
        tmux.wait(&["the image was deleted"]);
        tmux.keys(&["1", "P"]);
        tmux.wait(&["Published ports of two"]);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        tmux.keys(&["80", "Enter"]);
        tmux.wait(&["`80` is not a port to publish"]);
        tmux.keys(&["C-u", &format!("{port}:80"), "Enter"]);
        tmux.wait(&["`two` changed", &format!("{port}→80")]);
        for (key, question, done) in
            [("r", "Restart `two`?", "`two` restarted"), ("K", "Kill `two`?", "`two` killed")]
        {
            tmux.keys(&[key]);
            tmux.wait(&[question]);
            tmux.keys(&["y"]);
            tmux.wait(&[done]);
        }
        tmux.keys(&["s"]);
        tmux.wait(&["`two` started"]);
        // Another daemon, which another client has started.
        home.ok(&["daemon", "stop"]);
        tmux.wait(&["no daemon for"]);
        run(&home, "vm list");
        tmux.wait(&["● simulated host", "● running"]);
        tmux.keys(&["4"]);
        tmux.wait(&["restart", "● succeeded"]);
        tmux.keys(&["?"]);
        tmux.wait(&["any other key closes"]);
        tmux.keys(&["q", "q"]);
        ended(&tmux, 0);
        tmux.end();
        run(&home, "vm delete -f one two");
    }
    home.finish();
}

#[test]
fn colours_follow_the_theme_and_no_color() {
    let home = home();
    run(&home, "vm create --name web");
    let colours = |screen: &str| -> std::collections::BTreeSet<String> {
        let sequences = screen.split("\x1b[").skip(1).filter_map(|rest| rest.split_once('m'));
        sequences.map(|(parameters, _)| parameters.to_owned()).collect()
    };
    let program = banger_testkit::program("banger");
    for (socket, line, expected) in [
        ("dark", format!("{} tui --theme dark", program.display()), Some("38;5;10")),
        ("light", format!("{} tui --theme light", program.display()), Some("38;5;28")),
        ("none", format!("NO_COLOR=1 {} tui", program.display()), None),
    ] {
        let tmux = Tmux::start(&home, socket, (80, 24), &line);
        tmux.wait(&["web", "● running"]);
        let seen = colours(&tmux.ok(&["capture-pane", "-e", "-p"]));
        match expected {
            Some(running) => assert!(seen.contains(running), "{line}: {seen:?}"),
            None => {
                let parts: Vec<&str> = seen.iter().flat_map(|one| one.split(';')).collect();
                // 39 and 49 are the terminal's own colours.
                let is_plain = |part: &&str| part.len() == 1 || ["39", "49"].contains(part);
                let is_reversed = parts.contains(&"7");
                assert!(parts.iter().all(is_plain) && is_reversed, "{line}: {seen:?}");
            }
        }
        tmux.keys(&["q"]);
        tmux.end();
    }
    run(&home, "vm delete -f web");
    home.finish();
}
