//! Builds the static guest agent. Its compiler flags differ, so it has its own target folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// Largest size of the agent in bytes: every boot initramfs contains it.
const MAX_BYTES: u64 = 2 * 1024 * 1024;
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the agent and copies it to `guest/banger-agent` beside debug and release programs.
///
/// # Errors
/// The build fails, or the program is too large.
pub fn run(root: &Path) -> anyhow::Result<PathBuf> {
    let folder = root.join("target/agent");
    let status = crate::cargo::command()
        .current_dir(root)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .args(["build", "--quiet", "--package", "banger-agent", "--profile", "agent"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&folder)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the agent did not build");
    let built = folder.join(TARGET).join("agent/banger-agent");
    let size = std::fs::metadata(&built).with_context(|| format!("{}", built.display()))?.len();
    ensure!(size <= MAX_BYTES, "the agent has {size} bytes, at most {MAX_BYTES} are allowed");
    for profile in ["debug", "release"] {
        let place = root.join("target").join(profile).join("guest");
        std::fs::create_dir_all(&place)?;
        install(&built, &place.join("banger-agent"))?;
    }
    eprintln!("agent: {size} bytes");
    Ok(built)
}

/// Copies the file only if it changed: the cache key of the boot initramfs is its content and time.
fn install(from: &Path, to: &Path) -> anyhow::Result<()> {
    let new = std::fs::read(from)?;
    if std::fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let staged = to.with_extension("new");
    std::fs::copy(from, &staged)?;
    std::fs::rename(&staged, to).with_context(|| format!("cannot write {}", to.display()))
}
