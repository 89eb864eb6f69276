//! A server of a daemon on the simulated host.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use banger_testkit::{Home, Options, program};

/// A process that ends with the test.
pub struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server.
pub struct Served {
    process: Guarded,
    pub home: Home,
    /// `ADDRESS:PORT`.
    pub address: String,
    pub key: String,
}

impl Served {
    pub fn start() -> Self {
        let home = Home::bare(Options {
            env: vec![("BANGERD".into(), program("bangerd-sim").display().to_string())],
            ..Options::default()
        });
        let mut command = home.command(&["serve", "--e2b", "127.0.0.1:0"]);
        let mut process = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut value = |name: &str| {
            let line = lines.next().unwrap().unwrap();
            line.strip_prefix(&format!("export {name}=")).unwrap().to_owned()
        };
        let url = value("E2B_API_URL");
        assert_eq!(value("E2B_SANDBOX_URL"), url);
        let key = value("E2B_API_KEY");
        let address = url.strip_prefix("http://").unwrap().to_owned();
        Self { process: Guarded(process), home, address, key }
    }

    /// A program that uses the server.
    pub fn client(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let url = format!("http://{}", self.address);
        command.env("E2B_API_URL", &url).env("E2B_SANDBOX_URL", url).env("E2B_API_KEY", &self.key);
        command
    }

    /// Ends the server with a signal and waits for it; its exit code.
    pub fn end(&mut self, signal: &str) -> Option<i32> {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.process.0.wait().unwrap().code()
    }

    /// Ends the server with SIGTERM; nothing is left.
    pub fn finish(mut self) {
        assert_eq!(self.end("-TERM"), Some(0));
        assert_eq!(self.machines(), 0);
        self.home.finish();
    }

    /// Number of machines.
    pub fn machines(&self) -> usize {
        self.home.json(&["vm", "list"]).as_array().unwrap().len()
    }
}

/// The root folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
