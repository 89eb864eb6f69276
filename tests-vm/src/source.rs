//! Sources of Debian's packages, fetched by the package manager.

#![expect(clippy::unwrap_used, reason = "only tests use it, and a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_testkit::test_cache;

/// Where apt finds sources: where the host has its packages from.
const SOURCES: &str = "mkdir -p parts lists/partial cache/archives/partial
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    if [ -e \"$file\" ]; then sed 's/^deb /deb-src /' \"$file\" >\"parts/${file##*/}\"; fi
done
for file in /etc/apt/sources.list.d/*.sources; do
    if [ -e \"$file\" ]; then
        sed 's/^Types:.*/Types: deb-src/' \"$file\" >\"parts/${file##*/}\"
    fi
done
apt() {
    apt-get -q -oDir::Etc::sourcelist=/dev/null -oDir::Etc::sourceparts=\"$PWD/parts\" \
        -oDir::State::lists=\"$PWD/lists\" -oDir::Cache=\"$PWD/cache\" \
        -oAPT::Sandbox::User=root \"$@\"
}
apt update || :
apt source --download-only --tar-only \"$1\"";

/// The archive that upstream released, as Debian has it; fetched once and kept for later runs.
///
/// # Panics
/// It cannot be fetched, or has another digest.
pub fn upstream(package: &str, archive: &str, sha256: &str) -> PathBuf {
    let folder = test_cache().join("sources");
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::File::create(folder.join(format!("{package}.lock"))).unwrap();
    lock.lock().unwrap();
    let kept = folder.join(archive);
    if !kept.exists() {
        let work = tempfile::tempdir().unwrap();
        let mut fetch = Command::new("sh");
        let output =
            fetch.args(["-euc", SOURCES, "sh", package]).current_dir(&work).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "apt-get source {package}: {text}");
        let fetched = work.path().join(archive);
        assert_eq!(digest(&fetched), sha256, "{archive} of the host's Debian");
        fs::copy(fetched, folder.join("partial")).unwrap();
        fs::rename(folder.join("partial"), &kept).unwrap();
    }
    assert_eq!(digest(&kept), sha256, "{}", kept.display());
    kept
}

fn digest(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed.split(' ').next().unwrap_or_default().to_owned()
}
