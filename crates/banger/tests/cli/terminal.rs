//! The program on a pseudo terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use banger_testkit::{Home, kill, program};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize};

use crate::support::{home, run};

/// A pseudo terminal with a program.
struct Screen {
    child: Child,
    keys: File,
    ours: OwnedFd,
    pieces: Receiver<Vec<u8>>,
    seen: String,
}

impl Screen {
    fn open(home: &Home, args: &[&str]) -> Self {
        Self::with(home.command(args))
    }

    fn with(mut command: Command) -> Self {
        let (ours, end) = pseudo_terminal(30, 100);
        command.env("TERM", "xterm").stdin(end.try_clone().unwrap());
        command.stdout(end.try_clone().unwrap()).stderr(end);
        let keys = File::from(ours.try_clone().unwrap());
        let mut reader = keys.try_clone().unwrap();
        let (sender, pieces) = mpsc::channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // EIO after the last program has closed the terminal (pty(7)).
            while let Ok(length) = reader.read(&mut piece) {
                if sender.send(piece[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let child = command.spawn().unwrap();
        Self { child, keys, ours, pieces, seen: String::new() }
    }

    fn resize(&self, rows: u16, cols: u16) {
        set_size(&self.ours, rows, cols);
    }

    fn type_in(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for this output, and discards the output up to it.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            match self.pieces.recv_timeout(Duration::from_secs(30)) {
                Ok(piece) => self.seen.push_str(&String::from_utf8_lossy(&piece)),
                Err(_) => panic!("`{text}` was not shown:\n{}", self.seen),
            }
        }
    }

    /// Whether this is shown within a second.
    fn shows(&mut self, text: &str) -> bool {
        if let Ok(piece) = self.pieces.recv_timeout(Duration::from_secs(1)) {
            self.seen.push_str(&String::from_utf8_lossy(&piece));
        }
        self.seen.contains(text)
    }

    fn is_raw(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.ours).unwrap().local_modes;
        !modes.contains(LocalModes::ICANON) && !modes.contains(LocalModes::ECHO)
    }

    /// Waits for the end; returns the exit code and the remaining output.
    fn end(mut self) -> (i32, String) {
        let code = self.child.wait().unwrap().code().unwrap();
        assert!(!self.is_raw(), "the terminal was left raw");
        drop((self.keys, self.ours));
        while let Ok(piece) = self.pieces.recv_timeout(Duration::from_millis(200)) {
            self.seen.push_str(&String::from_utf8_lossy(&piece));
        }
        (code, self.seen)
    }
}

/// A pseudo terminal: the side of the test, and that of a program.
pub fn pseudo_terminal(rows: u16, cols: u16) -> (OwnedFd, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let path = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
    let end = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
    set_size(&ours, rows, cols);
    (ours, end)
}

fn set_size(terminal: &OwnedFd, rows: u16, cols: u16) {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn a_shell_on_a_terminal() {
    let home = home();
    run(&home, "vm create --name web");
    let mut screen = Screen::open(&home, &["vm", "shell", "web"]);
    screen.wait_for("root@web:~# ");
    assert!(screen.is_raw());
    screen.type_in("stty size\r");
    screen.wait_for("30 100\r\n");
    screen.wait_for("root@web:~# ");
    screen.resize(40, 120);
    kill(screen.child.id(), "WINCH");
    // A signal and input are not ordered: immediate input may arrive before the new size.
    let sizes = (0..100).map(|_| {
        screen.type_in("stty size\r");
        screen.wait_for("root@web:~# ")
    });
    assert!(sizes.into_iter().any(|shown| shown.contains("40 120\r\n")));
    screen.type_in("exit 3\r");
    let (code, rest) = screen.end();
    assert_eq!(code, 3);
    let expected = "`web` is still running; `banger vm stop web` stops it\r\n";
    assert!(rest.ends_with(expected), "{rest}");
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn ctrl_c_goes_to_the_guest_and_a_signal_puts_the_terminal_back() {
    let home = home();
    run(&home, "vm create --name web");
    let args = ["exec", "-t", "web", "--", "sh", "-c", "echo ready; sleep 100"];
    let mut screen = Screen::open(&home, &args);
    screen.wait_for("ready\r\n");
    screen.type_in("\u{3}");
    assert_eq!(screen.end().0, 130);
    for (signal, code) in [("TERM", 143), ("HUP", 129)] {
        let mut screen = Screen::open(&home, &args);
        screen.wait_for("ready\r\n");
        kill(screen.child.id(), signal);
        assert_eq!(screen.end().0, code);
    }
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn bash_completes_what_is_typed() {
    let home = home();
    run(&home, "vm create --name web");
    std::fs::write(home.path().join("a $(touch b) c.tar"), "").unwrap();
    let mut command = Command::new("bash");
    let banger = home.command(&[]);
    command.envs(banger.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let programs = program("banger").parent().unwrap().display().to_string();
    command.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()));
    command.args(["--norc", "--noprofile", "-i"]).env("PS1", "> ").current_dir(home.path());
    command.env("INPUTRC", "/dev/null");
    let mut bash = Screen::with(command);
    bash.wait_for("> ");
    bash.type_in("bind 'set enable-bracketed-paste off'; source <(banger completion bash)\n");
    bash.wait_for("\n");
    bash.wait_for("> ");
    // A second Tab: on a busy host the daemon's answer may come too late for the first one.
    bash.type_in("banger vm stop we\t");
    bash.wait_for("banger vm stop we");
    while !bash.shows("b ") {
        bash.type_in("\t");
    }
    bash.type_in("\n");
    bash.wait_for("web stopped in");
    bash.wait_for("> ");
    // bash quotes the name of a file.
    bash.type_in("echo; banger image import a\t; echo done\n");
    bash.wait_for("banger image import ");
    let shown = bash.wait_for("done\r\n");
    assert!(shown.contains(r"a\ \$\(touch\ b\)\ c.tar"), "{shown}");
    assert!(!home.path().join("b").exists());
    bash.type_in("exit\n");
    bash.child.wait().unwrap();
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn a_bare_run_is_a_shell() {
    let home = home();
    let mut screen = Screen::open(&home, &["run", "--rm", "--name", "web"]);
    screen.wait_for("root@web:~# ");
    screen.type_in("exit\r");
    let (code, rest) = screen.end();
    assert_eq!(code, 0);
    assert!(!rest.contains("still running"), "{rest}");
    assert_eq!(home.state("web"), "gone");
    home.finish();
}

#[test]
fn stages_are_shown_and_colours_are_not_where_they_are_unwanted() {
    let home = home();
    let mut screen = Screen::open(&home, &["vm", "create", "--name", "web"]);
    let shown = screen.wait_for("web: ready in ");
    assert!(shown.contains("web: boot ") && !shown.contains("web: boot 0."), "{shown}");
    // The echo of Ctrl-C fits behind a redrawn line, so that the next redraw erases both.
    let lines = shown.split(['\r', '\n']).map(|line| line.replace("\u{1b}[2K", "").chars().count());
    assert!(lines.max().is_some_and(|widest| (20..=98).contains(&widest)), "{shown:?}");
    let (code, rest) = screen.end();
    assert_eq!(code, 0);
    assert!(rest.ends_with("web\r\n"), "{rest}");
    // SGR sequences begin with a digit and end with an m; those that redraw a line do not.
    let coloured = shown.split("\u{1b}[").skip(1).any(|piece| {
        piece.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m')
    });
    assert!(!coloured, "{shown:?}");
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn a_delete_asks_first() {
    let home = home();
    run(&home, "vm create --name web --no-start");
    run(&home, "vm create --name db --no-start");
    let mut screen = Screen::open(&home, &["vm", "delete", "web", "db"]);
    screen.wait_for("delete web, db with their disks? [y/N] ");
    screen.type_in("\n");
    let (code, rest) = screen.end();
    assert_eq!(code, 1);
    assert!(rest.ends_with("nothing was deleted\r\n"), "{rest}");
    let mut screen = Screen::open(&home, &["vm", "delete", "web"]);
    screen.wait_for("delete web with its disks? [y/N] ");
    screen.type_in("y\n");
    assert_eq!(screen.end().0, 0);
    let screen = Screen::open(&home, &["vm", "delete", "-f", "db"]);
    assert_eq!(screen.end().0, 0);
    home.finish();
}

#[test]
fn a_prune_shows_the_vms_and_asks_first() {
    let home = home();
    run(&home, "vm create --name web --no-start");
    run(&home, "vm create --name up");
    let mut screen = Screen::open(&home, &["vm", "prune"]);
    let shown = screen.wait_for("delete this VM with its disks? [y/N] ");
    assert!(shown.contains("\r\nweb ") && !shown.contains("\r\nup "), "{shown}");
    screen.type_in("\n");
    let (code, rest) = screen.end();
    assert_eq!(code, 1);
    assert!(rest.ends_with("nothing was deleted\r\n"), "{rest}");
    let mut screen = Screen::open(&home, &["vm", "prune"]);
    screen.wait_for("delete this VM with its disks? [y/N] ");
    screen.type_in("y\n");
    let (code, rest) = screen.end();
    assert!(code == 0 && rest.ends_with("web deleted\r\nfreed 8 MiB\r\n"), "{rest}");
    run(&home, "vm delete -f up");
    home.finish();
}

#[test]
fn a_watch_replaces_its_table_and_fits_on_the_screen() {
    let home = home();
    for name in ["a", "b", "c", "d"] {
        run(&home, &format!("create --name {name}"));
    }
    let mut screen = Screen::open(&home, &["vm", "stats", "--watch", "-n", "100ms"]);
    let clear = "\u{1b}[H\u{1b}[2J";
    screen.wait_for(clear);
    let frame = screen.wait_for(clear).replace(clear, "");
    assert!(frame.starts_with("NAME ") && frame.lines().count() == 5, "{frame}");
    screen.resize(4, 40);
    let mut narrow = String::new();
    while !narrow.contains("… and 3 more") {
        narrow = screen.wait_for(clear).replace(clear, "");
    }
    assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
    assert!(narrow.starts_with("NAME ") && narrow.lines().count() == 3, "{narrow}");
    kill(screen.child.id(), "INT");
    assert_eq!(screen.end().0, 0);
    run(&home, "rm -f a b c d");
    home.finish();
}
