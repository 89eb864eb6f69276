//! A terminal of tmux, with a server of its own.

use std::process::{Command, Output};

use crate::home::Home;

/// A terminal; its server is ended with it.
pub struct Tmux<'a> {
    home: &'a Home,
    /// Name of the server's socket: one that is ending may still have another one.
    socket: &'static str,
}

impl<'a> Tmux<'a> {
    /// Runs a command of a shell in a terminal of this many columns and rows. The terminal remains
    /// after its end.
    ///
    /// # Panics
    /// tmux fails.
    #[track_caller]
    pub fn start(home: &'a Home, socket: &'static str, size: (u16, u16), command: &str) -> Self {
        let tmux = Self { home, socket };
        let (columns, rows) = (size.0.to_string(), size.1.to_string());
        let command = format!("{command}; exec sleep 1000");
        let new = ["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, &command];
        tmux.ok(&new);
        tmux
    }

    fn run(&self, args: &[&str]) -> std::io::Result<Output> {
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
        tmux.env("LC_ALL", "C.UTF-8").arg("-u").arg("-S").arg(socket).args(args).output()
    }

    /// Runs a command of tmux; returns its output.
    ///
    /// # Panics
    /// It fails.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = match self.run(args) {
            Ok(output) => output,
            Err(error) => panic!("tmux: {error}"),
        };
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {args:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What the terminal shows, as text.
    #[track_caller]
    pub fn screen(&self) -> String {
        self.ok(&["capture-pane", "-p"])
    }

    /// Waits until the screen contains all of these texts; returns it.
    ///
    /// # Panics
    /// A minute has passed.
    #[track_caller]
    pub fn wait(&self, texts: &[&str]) -> String {
        self.wait_until(&format!("{texts:?}"), |screen| {
            texts.iter().all(|text| screen.contains(text))
        })
    }

    /// Waits until the screen fulfils a condition; returns it.
    ///
    /// # Panics
    /// A minute has passed.
    #[track_caller]
    pub fn wait_until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.home.wait(&format!("{what} on the screen"), || {
                screen = self.screen();
                holds(&screen)
            });
        }));
        assert!(shown.is_ok(), "{what} is not on the screen:\n{screen}");
        screen
    }

    /// Presses keys, by their names in tmux.
    #[track_caller]
    pub fn keys(&self, keys: &[&str]) {
        self.ok(&[&["send-keys"], keys].concat());
    }

    /// Clicks with the left button at a column and row, from 0 (SGR mouse mode of xterm).
    #[track_caller]
    pub fn click(&self, column: usize, row: usize) {
        for end in ['M', 'm'] {
            let report = format!("\x1b[<0;{};{}{end}", column + 1, row + 1);
            self.ok(&["send-keys", "-l", &report]);
        }
    }

    /// Ends the server.
    #[track_caller]
    pub fn end(self) {
        self.ok(&["kill-server"]);
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        let _ = self.run(&["kill-server"]);
    }
}
