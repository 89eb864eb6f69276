//! The payload disk of a run: this tree's programs and the command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::machine::{RunFolder, Terminal};
use super::{Build, Lab, must};

/// Programs that the lab does not need: this one, and the agent as it is not in guests.
const OTHERS: [&str; 2] = ["xtask", "banger-agent"];
/// Free space on the disk, in MiB.
const SPARE_MIB: u64 = 128;

/// Programs to copy: name in the lab, file on this host.
pub struct Programs(Vec<(String, PathBuf)>);

/// Content of the disk.
pub struct Load<'a> {
    /// This tree's programs.
    pub programs: &'a Programs,
    /// Folder with Firecracker.
    pub fixture: &'a Path,
    /// Additional files for the folder of programs.
    pub more: &'a [&'a str],
    /// Command to run in the lab.
    pub command: &'a [&'a str],
    /// Terminal of an interactive run.
    pub terminal: Option<&'a Terminal>,
}

/// Builds the programs, or finds the existing ones.
///
/// # Errors
/// A build fails, or a program was never built.
pub fn programs(root: &Path, build: Build) -> anyhow::Result<Programs> {
    let debug = root.join("target/debug");
    let list = debug.join("lab-programs.json");
    if build != Build::AsTheyAre {
        let built = cargo_build(root, build)?;
        super::super::agent::run(root)?;
        let text: Vec<Value> =
            built.iter().map(|(name, path)| serde_json::json!([name, path])).collect();
        fs::write(&list, Value::from(text).to_string())?;
    }
    // Without a build there may be none; a command may not need them.
    let text = fs::read(&list).unwrap_or_else(|_| b"[]".to_vec());
    let built: Vec<Value> = serde_json::from_slice(&text)?;
    let entry =
        |entry: &Value| Some((entry[0].as_str()?.to_owned(), PathBuf::from(entry[1].as_str()?)));
    let mut programs: Vec<_> = built.iter().filter_map(entry).collect();
    programs.push(("guest/banger-agent".to_owned(), debug.join("guest/banger-agent")));
    // In a folder of its own that only some tests search: in all others, VMs run under Firecracker.
    let companion = "vhost-device-vsock";
    programs.push((format!("qemu/{companion}"), debug.join(companion)));
    programs.retain(|(_, path)| build != Build::AsTheyAre || path.exists());
    Ok(Programs(programs))
}

/// All packages, so that the features of crates are those of the main build. Only cargo knows the
/// hash in the test binary's name.
fn cargo_build(root: &Path, build: Build) -> anyhow::Result<Vec<(String, PathBuf)>> {
    eprintln!("lab: building");
    let output = crate::cargo::command()
        .current_dir(root)
        .args(["build", "--quiet", "--workspace", "--bins", "--test", "lab"])
        .arg("--message-format=json")
        .args((build == Build::Optimised).then_some("--release"))
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Value> =
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if !output.status.success() {
        for message in &messages {
            eprint!("{}", message["message"]["rendered"].as_str().unwrap_or_default());
        }
        anyhow::bail!("the lab's programs did not build");
    }
    let program = |message: &Value| {
        let path = PathBuf::from(message["executable"].as_str()?);
        let name = message["target"]["name"].as_str()?.to_owned();
        (!OTHERS.contains(&name.as_str())).then_some((name, path))
    };
    let built: Vec<_> = messages.iter().filter_map(program).collect();
    ensure!(built.iter().any(|(name, _)| name == "lab"), "no test binary `lab` was built");
    Ok(built)
}

/// Makes the disk.
///
/// # Errors
/// A program is missing, the disk is full, or mke2fs is missing.
pub fn disk(lab: &Lab, run: &RunFolder, load: &Load) -> anyhow::Result<PathBuf> {
    let tree = run.path.join("payload");
    let bin = tree.join("bin");
    fs::create_dir_all(bin.join("guest"))?;
    fs::create_dir_all(bin.join("qemu"))?;
    fs::create_dir_all(tree.join("lab"))?;
    for (name, path) in &load.programs.0 {
        bring(path, &bin.join(name))?;
    }
    for name in ["firecracker", "jailer"] {
        bring(&load.fixture.join(name), &bin.join(name))?;
    }
    for path in load.more {
        let path = Path::new(path);
        let name = path.file_name().with_context(|| format!("`{}`", path.display()))?;
        bring(path, &bin.join(name))?;
    }
    bring(&lab.root.join("scripts/lab/start"), &tree.join("lab/start"))?;
    bring(&lab.root.join("bench/floor-firecracker.sh"), &bin.join("floor-firecracker.sh"))?;
    bring(&busybox()?, &tree.join("lab/busybox"))?;
    let mut words = Vec::new();
    for word in load.command {
        words.extend_from_slice(word.as_bytes());
        words.push(0);
    }
    fs::write(tree.join("lab/command"), words)?;
    if let Some(terminal) = load.terminal {
        fs::write(tree.join("lab/terminal"), format!("{terminal}\n"))?;
    }
    let disk = run.path.join("payload.ext4");
    make(&tree, "payload", SPARE_MIB, &disk)?;
    fs::remove_dir_all(&tree)?;
    Ok(disk)
}

/// The static busybox, of which the small guests are made.
fn busybox() -> anyhow::Result<PathBuf> {
    let found = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = found.into_iter().find(|path| path.exists());
    found.context("install `busybox-static`")
}

/// Hard-links the file where possible, since the copy is read-only.
fn bring(from: &Path, to: &Path) -> anyhow::Result<()> {
    let from = fs::canonicalize(from).with_context(|| format!("cannot find {}", from.display()))?;
    if fs::hard_link(&from, to).is_err() {
        fs::copy(&from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// Builds an ext4 file system from a folder, with free space.
pub fn make(tree: &Path, label: &str, spare_mib: u64, disk: &Path) -> anyhow::Result<()> {
    let output = Command::new("du").args(["-s", "-B", "1M"]).arg(tree).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let used: u64 = text.split_whitespace().next().unwrap_or_default().parse().context("du")?;
    let mut make = Command::new("mke2fs");
    make.env("PATH", path_with_sbin());
    make.args(["-q", "-F", "-t", "ext4", "-m", "0", "-E", "assume_storage_prezeroed=1"]);
    make.args(["-L", label, "-d"]).arg(tree).arg(disk);
    // A tenth more for the metadata of the file system.
    make.arg(format!("{}M", used + used / 10 + spare_mib));
    must(&mut make, "install `e2fsprogs`")
}

fn path_with_sbin() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
