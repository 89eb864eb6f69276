//! Root file systems of Debian's packages for tests of particular images.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::process::Command;

use banger_testkit::test_cache;

/// A hook that gives every process of a guest with systemd the same addresses. QEMU before 8.0
/// keeps what it translated by virtual address, so with random ones it translates a program again
/// each time that it starts, which takes most of the time of a script.
pub const FIXED_ADDRESSES: &str = "mkdir -p \"$1/etc/sysctl.d\" && \
    echo kernel.randomize_va_space=0 >\"$1/etc/sysctl.d/50-emulated.conf\"";

/// The archive of an image, made once and kept for later runs. `packages` are added to the smallest
/// system; `hook` are shell commands that change the tree, whose path is `$1`.
///
/// # Panics
/// mmdebstrap fails.
pub fn archive(name: &str, packages: &str, hook: &str) -> PathBuf {
    let made = make(name, packages, hook);
    made.unwrap_or_else(|error| panic!("cannot make the archive of `{name}`: {error}"))
}

fn make(name: &str, packages: &str, hook: &str) -> std::io::Result<PathBuf> {
    let folder = test_cache().join("inits");
    fs::create_dir_all(&folder)?;
    let mut hasher = DefaultHasher::new();
    (packages, hook).hash(&mut hasher);
    let name = format!("{name}-{:016x}", hasher.finish());
    let lock = fs::File::create(folder.join(format!("{name}.lock")))?;
    lock.lock()?;
    let kept = folder.join(format!("{name}.tar"));
    let partial = folder.join(format!("partial-{name}.tar"));
    if !kept.exists() {
        let output = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase"])
            .arg(format!("--include={packages}"))
            .arg(format!("--customize-hook={hook}"))
            .arg("bookworm")
            .arg(&partial)
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mmdebstrap: {text}");
        fs::rename(&partial, &kept)?;
    }
    Ok(kept)
}
