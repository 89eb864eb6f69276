//! `banger tui` in a terminal of tmux, with the simulated host.

use std::process::{Command, Output};

use banger_testkit::Home;

use crate::support::{home, run};

/// A terminal of tmux, with a server of its own.
struct Tmux<'a> {
    home: &'a Home,
    /// Name of the server's socket: one that is ending may still have another one.
    socket: &'static str,
}

impl<'a> Tmux<'a> {
    /// Runs a command of a shell in a terminal of this size. The terminal remains after its end.
    fn start(home: &'a Home, socket: &'static str, size: (u16, u16), command: &str) -> Self {
        let tmux = Self { home, socket };
        let (columns, rows) = (size.0.to_string(), size.1.to_string());
        let command = format!("{command}; exec sleep 1000");
        let new = ["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, &command];
        tmux.ok(&new);
        tmux
    }

    fn run(&self, args: &[&str]) -> Output {
        // Environment of the home; the server passes it on.
        let home = self.home.command(&[]);
        let mut tmux = Command::new("tmux");
        for (name, value) in home.get_envs() {
            match value {
                Some(value) => tmux.env(name, value),
                None => tmux.env_remove(name),
            };
        }
        let socket = self.home.path().join(self.socket);
        tmux.env_remove("TMUX").env_remove("NO_COLOR").env("SHELL", "/bin/sh");
        tmux.env("LC_ALL", "C.UTF-8").arg("-u").arg("-S").arg(socket).args(args).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {args:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.ok(&["capture-pane", "-p"])
    }

    /// Waits until the screen contains all of these texts.
    #[track_caller]
    fn wait(&self, texts: &[&str]) -> String {
        let mut screen = String::new();
        let all = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.home.wait(&format!("{texts:?} on the screen"), || {
                screen = self.screen();
                texts.iter().all(|text| screen.contains(text))
            });
        }));
        assert!(all.is_ok(), "{texts:?} are not on the screen:\n{screen}");
        screen
    }

    fn keys(&self, keys: &[&str]) {
        self.ok(&[&["send-keys"], keys].concat());
    }

    fn end(self) {
        self.ok(&["kill-server"]);
    }
}

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
