//! A catalog signed by minisign(1), and the web server of its files.

#![expect(clippy::unwrap_used, reason = "only tests use it, and a test may panic")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;

/// A publisher: a key, a catalog, and Python's web server for its files once one is published.
pub struct Publisher {
    folder: TempDir,
    server: OnceLock<Server>,
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

impl Default for Publisher {
    fn default() -> Self {
        Self::new()
    }
}

impl Publisher {
    /// Makes a key.
    ///
    /// # Panics
    /// minisign fails.
    pub fn new() -> Self {
        let publisher = Self { folder: tempfile::tempdir().unwrap(), server: OnceLock::new() };
        fs::create_dir(publisher.at("served")).unwrap();
        let (public, secret) = (publisher.public(), publisher.at("key"));
        run("minisign", &["-G", "-W", "-p", text(&public), "-s", text(&secret)]);
        publisher
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file that the server has.
    pub fn served(&self, name: &str) -> PathBuf {
        self.at("served").join(name)
    }

    /// The catalog.
    pub fn catalog(&self) -> PathBuf {
        self.at("catalog.json")
    }

    /// The public key.
    pub fn public(&self) -> PathBuf {
        self.at("key.pub")
    }

    /// The signature of the catalog.
    pub fn signature(&self) -> PathBuf {
        self.at("catalog.json.minisig")
    }

    /// Writes the catalog and signs it.
    ///
    /// # Panics
    /// minisign fails.
    pub fn sign(&self, catalog: &str) {
        fs::write(self.catalog(), catalog).unwrap();
        run("minisign", &["-S", "-s", text(&self.at("key")), "-m", text(&self.catalog())]);
    }

    /// Lists a file that the server has under a name, as an image or a kernel, and signs the
    /// catalog.
    ///
    /// # Panics
    /// There is no such file; minisign or Python fail.
    pub fn publish(&self, list: &str, name: &str, file: &str) {
        let path = self.served(file);
        let server = self.server.get_or_init(|| Server::start(&self.at("served")));
        let entry = json!({
            "name": name,
            "arch": "x86_64",
            "sha256": run("sha256sum", &[text(&path)])[..64],
            "bytes": fs::metadata(&path).unwrap().len(),
            "url": format!("{}{file}", server.url),
        });
        let mut catalog = json!({ "version": 1, "images": [], "kernels": [] });
        catalog[list] = Value::from(vec![entry]);
        self.sign(&catalog.to_string());
    }
}

/// Python's web server for a folder, on a port of the loopback address.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new("python3")
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // `Serving HTTP on 127.0.0.1 port 1234 (http://127.0.0.1:1234/) ...`
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split(['(', ')']).nth(1).unwrap().to_owned();
        Self { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
