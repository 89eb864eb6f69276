//! The process that reads images, with code in it that tries to do harm.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use banger_sys::landlock;
use bangerd_sim::worker::{ARGUMENT, SWITCH};

/// The archive of a root file system.
fn archive(folder: &Path) -> std::path::PathBuf {
    fs::create_dir_all(folder.join("rootfs/bin")).unwrap();
    fs::write(folder.join("rootfs/bin/init"), "x").unwrap();
    let archive = folder.join("rootfs.tar.xz");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder.join("rootfs")).arg("-cJf").arg(&archive).arg(".");
    assert!(tar.status().unwrap().success());
    archive
}

/// Lines of the worker that are not its messages, and its last message.
fn run(folder: &Path, object: &Path) -> (Vec<(String, String)>, String) {
    let mut worker = Command::new(env!("CARGO_BIN_EXE_bangerd-test"));
    worker.arg(ARGUMENT).arg(object).arg("plain").arg(std::env::var_os("PATH").unwrap());
    worker.arg("file").arg(archive(folder)).env(SWITCH, folder);
    let output = worker.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let (messages, attempts): (Vec<&str>, Vec<&str>) =
        printed.lines().partition(|line| line.starts_with('{'));
    let attempts = attempts.iter().map(|line| {
        let (name, result) = line.split_once(": ").unwrap();
        (name.to_owned(), result.to_owned())
    });
    (attempts.collect(), (*messages.last().unwrap()).to_owned())
}

#[test]
fn a_worker_has_limits() {
    let folder = tempfile::tempdir().unwrap();
    let object = folder.path().join("object");
    fs::create_dir(&object).unwrap();
    fs::write(object.join("port"), "0").unwrap();
    let (attempts, _) = run(folder.path(), &object);
    let limit = |name: &str| {
        let found = attempts.iter().find(|(known, _)| known == name).unwrap();
        found.1.parse::<u64>().unwrap()
    };
    assert!(limit("limit of data") <= 8 << 30);
    assert!(limit("limit of files") <= 16 << 40);
    assert!(limit("limit of open files") <= 4096);
    assert_eq!(limit("limit of core dumps"), 0);
}

#[test]
fn a_worker_that_misbehaves_reaches_nothing() {
    if !landlock::is_enforced() || !banger_sys::seccomp::is_supported() {
        eprintln!("SKIPPED: this kernel has no Landlock or no seccomp filters");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let object = folder.join("object");
    fs::create_dir(&object).unwrap();
    fs::write(folder.join("secret"), "x").unwrap();
    let socket = UnixListener::bind(folder.join("socket")).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(object.join("port"), tcp.local_addr().unwrap().port().to_string()).unwrap();
    let (attempts, last) = run(folder, &object);
    assert!(attempts.len() > 15, "{attempts:?}");
    let done: Vec<&str> = attempts
        .iter()
        .filter_map(|(name, result)| (result == "done").then_some(name.as_str()))
        .collect();
    assert_eq!(done, ["write its own file", "remove its own file"], "{attempts:#?}");
    for listening in [socket.set_nonblocking(true), tcp.set_nonblocking(true)] {
        listening.unwrap();
    }
    assert!(socket.accept().is_err() && tcp.accept().is_err(), "nothing has connected");
    assert_eq!(fs::read(folder.join("secret")).unwrap(), b"x");
    // It reads the archive, with xz(1), nevertheless.
    assert!(last.starts_with("{\"done\""), "{last}");
    let mut magic = [0; 2];
    let mut disk = fs::File::open(object.join("root.ext4")).unwrap();
    std::io::copy(&mut (&mut disk).take(1080), &mut std::io::sink()).unwrap();
    disk.read_exact(&mut magic).unwrap();
    assert_eq!(magic, [0x53, 0xef]);
}
