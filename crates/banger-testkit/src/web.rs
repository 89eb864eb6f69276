//! `banger web`, and programs that drive its page in Chromium.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use sha2::{Digest, Sha256};

use crate::home::Home;

/// A page that is served; ended with this.
pub struct Web {
    server: Child,
    link: String,
}

impl Web {
    /// Serves the page of a home on a free port.
    ///
    /// # Panics
    /// It cannot be served.
    #[track_caller]
    pub fn serve(home: &Home) -> Self {
        let mut server = home.spawn(&["web", "--no-open", "--listen", "0"]);
        let mut link = String::new();
        let read = server.stdout.take().map(|output| BufReader::new(output).read_line(&mut link));
        let is_link = link.contains("/enter?token=");
        assert!(matches!(read, Some(Ok(_))) && is_link, "`banger web` has printed {link:?}");
        Self { server, link: link.trim().to_owned() }
    }

    /// The link, which opens one session.
    pub fn link(&self) -> &str {
        &self.link
    }

    /// Process id of the server.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// A program of `scripts/web-tests` with the link as its first argument.
    ///
    /// # Panics
    /// Its packages are missing.
    #[track_caller]
    pub fn program(&self, name: &str) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut node = Command::new("node");
        node.arg(root.join("scripts/web-tests").join(name)).arg(&self.link);
        node.env("BANGER_WEB_TESTS", packages(&root));
        node
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Folder of the packages of these programs, as `scripts/setup.sh test` keeps them.
fn packages(root: &Path) -> PathBuf {
    let lock = std::fs::read(root.join("scripts/web-tests/package-lock.json")).unwrap_or_default();
    let sum: String = Sha256::digest(lock).iter().take(8).map(|b| format!("{b:02x}")).collect();
    let folder = root.join(".cache/tools").join(format!("web-tests-{sum}"));
    assert!(folder.exists(), "{} is missing: run `scripts/setup.sh test`", folder.display());
    folder
}
