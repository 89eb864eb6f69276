//! Debian's docker-registry on this host.

#![expect(clippy::unwrap_used, reason = "only tests use it, and a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A running docker-registry.
pub struct Registry {
    process: Child,
    /// Address and port.
    pub host: String,
    blobs: Arc<Mutex<Vec<String>>>,
}

/// The path of a blob that a line of the log says was sent.
fn sent_blob(line: &str) -> Option<String> {
    let of = |key: &str| line.split_once(key)?.1.split([' ', '"']).next().map(str::to_owned);
    let sent = line.contains("response completed") && of("request.method=")? == "GET";
    of("request.uri=\"").filter(|uri| sent && uri.contains("/blobs/"))
}

impl Registry {
    /// Serves the folder; `more` is added to its configuration below `http:` or beside it.
    pub fn start(folder: &Path, http: &str, rest: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        let storage = folder.join("storage");
        let config = folder.join("config.yml");
        let settings = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: \
             {}\nhttp:\n  addr: 127.0.0.1:0\n{http}{rest}",
            storage.display()
        );
        fs::write(&config, settings).unwrap();
        let mut process = Command::new("docker-registry")
            .args(["serve", config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It logs the port that the kernel has chosen.
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let host = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            Some(format!("127.0.0.1:{port}"))
        });
        let blobs = Arc::new(Mutex::new(Vec::new()));
        let seen = blobs.clone();
        std::thread::spawn(move || {
            let sent = lines.map_while(Result::ok).filter_map(|line| sent_blob(&line));
            sent.for_each(|blob| seen.lock().unwrap().push(blob));
        });
        Self { process, host: host.unwrap(), blobs }
    }

    /// Paths of the blobs sent so far, one for each answer.
    pub fn blobs(&self) -> Vec<String> {
        self.blobs.lock().unwrap().clone()
    }

    /// Stops the process (SIGSTOP): connections are accepted and get no answer.
    pub fn hang(&self) {
        crate::kill(self.process.id(), "STOP");
    }

    /// Continues it.
    pub fn go_on(&self) {
        crate::kill(self.process.id(), "CONT");
    }

    /// Pushes the image `latest` of an OCI layout; `more` are options of skopeo(1).
    pub fn push(&self, layout: &Path, name: &str, more: &[&str]) {
        let from = format!("oci:{}:latest", layout.display());
        let to = format!("docker://{}/{name}", self.host);
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--dest-tls-verify=false"]).args(more);
        let output = command.args([from, to]).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {printed}");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
