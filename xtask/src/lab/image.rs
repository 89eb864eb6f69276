//! The lab's disk, kernel and initramfs: built by `scripts/lab/image`, cached by the hash of the
//! recipe.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::{Lab, digest, lock, must, remove};

/// A bootable lab.
pub struct Image {
    /// Root file system, used read-only.
    pub disk: PathBuf,
    /// Kernel.
    pub kernel: PathBuf,
    /// Initramfs.
    pub initrd: PathBuf,
}

/// The image of this tree's recipe, built if it does not exist yet.
///
/// # Errors
/// No root rights, a missing program, or an unreachable mirror.
pub fn ready(lab: &Lab) -> anyhow::Result<Image> {
    let recipe = lab.root.join("scripts/lab/image");
    let name = format!("image-{}", hash(&recipe)?);
    let folder = lab.folder.join(&name);
    let lock = lock(&lab.folder)?;
    if !folder.exists() {
        eprintln!("lab: making the disk (a minute or two)");
        let staging = lab.folder.join("image-staging");
        remove(&staging)?;
        fs::create_dir(&staging)?;
        let hint = "it needs root, mmdebstrap and Debian's mirrors: `scripts/setup.sh test`";
        // A parent that is gone takes the work with it.
        let mut make = Command::new("setpriv");
        make.args(["--pdeathsig", "KILL", "--"]).arg(recipe.join("build.sh")).arg(&staging);
        must(&mut make, hint)?;
        fs::rename(&staging, &folder).context("cannot publish the lab's disk")?;
        remove_others(&lab.folder, &name)?;
    }
    drop(lock);
    let file = |name: &str| folder.join(name);
    Ok(Image { disk: file("lab.ext4"), kernel: file("vmlinuz"), initrd: file("initrd.img") })
}

/// A running lab keeps its open files.
fn remove_others(folder: &Path, kept: &str) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("image-") && name != kept {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Hash of the recipe, 16 hexadecimal digits: names, modes and contents of all its files.
fn hash(recipe: &Path) -> anyhow::Result<String> {
    let archive = "tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=go-w -c .";
    digest(archive, recipe)
}
