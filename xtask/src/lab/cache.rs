//! Kernels and images for guests inside the lab: the test cache of this host, on a
//! separate disk that is rebuilt only when the cache changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::payload::make;
use super::{Build, Lab, digest, lock, must, remove};

/// Free space for files that tests add, in MiB; they are discarded after the run.
const SPARE_MIB: u64 = 4096;
/// Identifies the state of the cache: names, sizes, times and link targets.
const LISTING: &str =
    "find data cache fetched -name staging -prune -o -printf '%p %y %s %T@ %l\\n' | sort";

/// Number of the default image's recipe: the content of `fetched`, so that a new recipe replaces
/// the image of an old one.
const RECIPE: &str = include_str!("../../../crates/banger-image/src/images/recipe.number");

/// The disk, with the label `cache`: `data`, `cache` and the mark `fetched` of the test cache;
/// `None` if the cache is empty and no programs are built that could fill it.
///
/// # Errors
/// Kernel or image cannot be fetched; no room.
pub fn ready(lab: &Lab, build: Build) -> anyhow::Result<Option<PathBuf>> {
    let tests = match std::env::var_os("BANGER_TEST_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => lab.root.join(".cache/tests"),
    };
    fs::create_dir_all(&tests)?;
    // The lock of the tests, which fetch kernel and image in the same way.
    let _tests = lock(&tests)?;
    for name in ["data", "cache"] {
        fs::create_dir_all(tests.join(name))?;
    }
    if fs::read_to_string(tests.join("fetched")).unwrap_or_default() != RECIPE {
        if build == Build::AsTheyAre {
            return Ok(None);
        }
        fetch(lab, &tests)?;
    }
    let _lab = lock(&lab.folder)?;
    let name = format!("cache-{}.ext4", digest(LISTING, &tests)?);
    let disk = lab.folder.join(&name);
    if !disk.exists() {
        let staging = lab.folder.join("cache-staging");
        remove(&staging)?;
        let tree = staging.join("tree");
        fs::create_dir_all(&tree)?;
        for part in ["data", "cache", "fetched"] {
            let mut copy = Command::new("cp");
            // Links, not copies: the files are only read.
            must(copy.arg("-al").arg(tests.join(part)).arg(&tree), "the test cache")?;
        }
        let staged = staging.join(&name);
        make(&tree, "cache", SPARE_MIB, &staged)?;
        for entry in fs::read_dir(&lab.folder)?.flatten() {
            let old = entry.file_name();
            if old.to_string_lossy().starts_with("cache-") && entry.path().is_file() {
                remove(&entry.path())?;
            }
        }
        fs::rename(&staged, &disk)?;
        remove(&staging)?;
    }
    Ok(Some(disk))
}

/// Fills the cache as the first test that boots a VM does.
fn fetch(lab: &Lab, tests: &Path) -> anyhow::Result<()> {
    eprintln!("lab: fetching kernel and image for guests");
    let home = lab.folder.join("fetch-home");
    remove(&home)?;
    fs::create_dir_all(&home)?;
    for name in ["data", "cache"] {
        std::os::unix::fs::symlink(tests.join(name), home.join(name))?;
    }
    let banger = |words: &[&str]| {
        let mut command = Command::new(lab.root.join("target/debug/banger"));
        command.args(words).env("BANGER_HOME", &home).env_remove("BANGER_STATE_DIR");
        must(&mut command, &format!("`banger {}` for the lab", words.join(" ")))
    };
    let fetched = banger(&["kernel", "pull"]).and_then(|()| banger(&["image", "pull", "debian"]));
    let stopped = banger(&["daemon", "stop"]);
    fetched?;
    stopped?;
    fs::write(tests.join("fetched"), RECIPE)?;
    remove(&home)
}
