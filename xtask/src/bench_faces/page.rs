//! The web page in headless Chromium: `banger web`, and `scripts/web-tests/speed.mjs`, which takes
//! one request a line and answers each with a line of JSON.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::bench::Bench;

/// The page's server and the browser; ended when dropped.
pub struct Page {
    server: Child,
    browser: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Page {
    /// Serves the page and opens it in a browser.
    ///
    /// # Errors
    /// A program is missing or fails.
    pub fn open(bench: &Bench, home: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(bench.programs.join("banger"));
        command.args(["web", "--no-open", "--listen", "0"]);
        let command = bench.in_home(&mut command, home);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().context("cannot run banger")?;
        let mut link = String::new();
        let output = server.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut link)?;
        let packages = super::web_tests(bench.root())?;
        let mut browser = Command::new("node")
            .arg(bench.root().join("scripts/web-tests/speed.mjs"))
            .arg(link.trim())
            .env("BANGER_WEB_TESTS", packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run node: `scripts/setup.sh test` installs it")?;
        let requests = browser.stdin.take().context("no input")?;
        let answers = BufReader::new(browser.stdout.take().context("no output")?);
        Ok(Self { server, browser, requests, answers })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The browser has failed; it has said why.
    pub fn ask(&mut self, request: &str) -> anyhow::Result<Value> {
        writeln!(self.requests, "{request}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "the browser has failed at `{request}`");
        serde_json::from_str(&answer).with_context(|| answer)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // The script ends the browser at the end of its input.
        let _ = writeln!(self.requests, "end");
        let _ = self.browser.wait();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
