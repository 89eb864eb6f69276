//! A catalog signed by minisign(1), and the web server of its files.

#![expect(clippy::unwrap_used, reason = "only tests use it, and a test may panic")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A publisher: a key, a catalog with one entry, and Python's web server for the files.
pub struct Publisher {
    folder: TempDir,
    server: Child,
    url: String,
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Publisher {
    /// Makes a key and starts the server, on a port of the loopback address.
    ///
    /// # Panics
    /// minisign or Python fail.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let served = folder.path().join("served");
        fs::create_dir(&served).unwrap();
        let (public, secret) = (folder.path().join("acme.pub"), folder.path().join("acme.key"));
        run("minisign", &["-G", "-W", "-p", text(&public), "-s", text(&secret)]);
        let mut server = Command::new("python3")
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
            .arg(&served)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // `Serving HTTP on 127.0.0.1 port 1234 (http://127.0.0.1:1234/) ...`
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split(['(', ')']).nth(1).unwrap().to_owned();
        Self { folder, server, url }
    }

    /// A file that the server has.
    pub fn served(&self, name: &str) -> PathBuf {
        self.folder.path().join("served").join(name)
    }

    /// The catalog.
    pub fn catalog(&self) -> PathBuf {
        self.folder.path().join("acme.json")
    }

    /// The public key.
    pub fn public(&self) -> PathBuf {
        self.folder.path().join("acme.pub")
    }

    /// Lists a file that the server has under a name, as an image or a kernel, and signs the
    /// catalog.
    ///
    /// # Panics
    /// There is no such file, or minisign fails.
    pub fn publish(&self, list: &str, name: &str, file: &str) {
        let path = self.served(file);
        let entry = json!({
            "name": name,
            "arch": "x86_64",
            "sha256": run("sha256sum", &[text(&path)])[..64],
            "bytes": fs::metadata(&path).unwrap().len(),
            "url": format!("{}{file}", self.url),
        });
        let mut catalog = json!({ "version": 1, "images": [], "kernels": [] });
        catalog[list] = Value::from(vec![entry]);
        fs::write(self.catalog(), catalog.to_string()).unwrap();
        let secret = self.folder.path().join("acme.key");
        run("minisign", &["-S", "-s", text(&secret), "-m", text(&self.catalog())]);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
