//! `banger cp`, on the simulated host, whose guests have files.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use banger_testkit::tree::{self, listing};
use banger_testkit::{Home, Run};

use crate::support::{expect, home, run};

/// Runs `cp` in the folder `files` of the home.
fn cp(home: &Home, args: &[&str]) -> Run {
    let mut command = home.command(&[&["cp"], args].concat());
    command.current_dir(files(home)).output().unwrap().into()
}

#[track_caller]
fn copied(home: &Home, args: &[&str]) {
    let run = cp(home, args);
    assert_eq!(run.code, 0, "{args:?}: {}", run.err);
}

fn files(home: &Home) -> PathBuf {
    let files = home.path().join("files");
    std::fs::create_dir_all(&files).unwrap();
    files
}

#[test]
fn a_tree_arrives_equal_both_ways_and_between_vms() {
    let home = home();
    run(&home, "vm create --name web");
    run(&home, "vm create --name db");
    let files = files(&home);
    tree::make(&files.join("tree"));
    copied(&home, &["tree", "web:/srv/"]);
    copied(&home, &["web:/srv/tree", "db:/srv/moved"]);
    copied(&home, &["db:/srv/moved", "back"]);
    assert_eq!(listing(&files.join("back")), listing(&files.join("tree")));
    copied(&home, &["web:/srv/tree/.", "contents"]);
    assert_eq!(listing(&files.join("contents")), listing(&files.join("tree")));
    run(&home, "vm delete -f web");
    run(&home, "vm delete -f db");
    home.finish();
}

#[test]
fn archives_pass_through_the_standard_streams() {
    let home = home();
    run(&home, "vm create --name web");
    let files = files(&home);
    std::fs::create_dir(files.join("d")).unwrap();
    std::fs::write(files.join("d/file"), "content").unwrap();
    let tar = |args: &[&str], input: &[u8]| {
        let mut tar = std::process::Command::new("tar")
            .current_dir(&files)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(input).unwrap();
        tar.wait_with_output().unwrap().stdout
    };
    let packed = tar(&["c", "d"], b"");
    let sent = home.run_with_input(&["cp", "-", "web:/srv"], &packed);
    assert_eq!(sent.code, 0, "{}", sent.err);
    let back = home.command(&["vm", "cp", "web:/srv/d", "-"]).output().unwrap();
    assert!(back.status.success());
    assert_eq!(tar(&["t"], &back.stdout), b"d/\nd/file\n");
    let cut = home.run_with_input(&["cp", "-", "web:/srv"], &packed[..1100]);
    assert_eq!(cut.code, 2, "{}", cut.err);
    assert!(cut.err.contains("the archive ended before it was whole"), "{}", cut.err);
    let text = home.run_with_input(&["cp", "-", "web:/srv"], &[b'x'; 2000]);
    assert!(text.err.contains("this is not a tar archive"), "{}", text.err);
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn failures_are_explained() {
    let home = home();
    run(&home, "vm create --name web");
    let files = files(&home);
    std::fs::write(files.join("file"), "content").unwrap();
    std::fs::create_dir(files.join("folder")).unwrap();
    copied(&home, &["file", "web:"]);
    let no_vm = "error: neither the source nor the target is in a VM\nhint: a path in a VM is \
        written VM:PATH: `banger cp notes.txt web:/root`\n";
    for (args, code, text) in [
        (["file", "other"], 2, no_vm),
        (["-", "-"], 2, no_vm),
        (["none", "web:"], 3, "error: there is no file or folder `none`\n"),
        (["file", "web:/none/x"], 3, "error: in `web`: there is no file or folder `/none`\n"),
        (["file", "web:none/"], 3, "error: in `web`: there is no file or folder `/root/none/`\n"),
        (["web:/none", "."], 3, "error: in `web`: there is no file or folder `/none`\n"),
        (["web:file", "none/x"], 3, "error: there is no file or folder `none`\n"),
        (["web:file", "none/"], 3, "error: there is no file or folder `none/`\n"),
        (["folder", "web:file"], 2, "error: in `web`: `/root/file` is a file, not a folder\n"),
        (["web:/root", "file"], 2, "error: `file` is a file, not a folder\n"),
        (["web:file", "/dev/null"], 2, "error: `/dev/null` is neither a file nor a folder\n"),
        (["/dev/null", "web:"], 2, "error: `/dev/null` is neither a file nor a folder\n"),
        (
            ["file", "nope:x"],
            3,
            "error: there is no VM `nope`\nhint: `banger vm list` lists all \
            VMs\n",
        ),
    ] {
        expect(&cp(&home, &args), code, "", text);
    }
    let user = cp(&home, &["-u", "dev", "file", "web:"]);
    expect(&user, 2, "", "error: in `web`: the guest has no user `dev`\n");
    std::fs::create_dir(files.join("inner")).unwrap();
    std::fs::create_dir(files.join("inner/file")).unwrap();
    let replaced = "error: `inner/file` is a folder, not a file\n";
    expect(&cp(&home, &["web:file", "inner"]), 2, "", replaced);
    let json = cp(&home, &["--json", "file", "web:"]);
    expect(&json, 0, "{\n  \"bytes\": 7,\n  \"left_out\": 0\n}\n", "");
    expect(&cp(&home, &["-q", "file", "web:"]), 0, "", "");
    let shown = cp(&home, &["file", "web:new"]);
    expect(&shown, 0, "", "web:new: copied 7 B in N s\n");
    run(&home, "vm stop web");
    let stopped = cp(&home, &["file", "web:"]);
    assert!(stopped.code != 0 && stopped.err.contains("hint: "), "{}", stopped.err);
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn a_source_may_be_a_symlink_or_have_an_odd_name() {
    let home = home();
    run(&home, "vm create --name web");
    let files = files(&home);
    std::fs::write(files.join("web:file"), "content").unwrap();
    symlink("web:file", files.join("link")).unwrap();
    copied(&home, &["./web:file", "web:a:b"]);
    copied(&home, &["web:a:b", "back"]);
    assert_eq!(std::fs::read(files.join("back")).unwrap(), b"content");
    copied(&home, &["link", "web:"]);
    copied(&home, &["-L", "link", "web:file"]);
    copied(&home, &["web:link", "second"]);
    copied(&home, &["web:file", "third"]);
    assert_eq!(std::fs::read_link(files.join("second")).unwrap(), Path::new("web:file"));
    assert!(files.join("third").symlink_metadata().unwrap().is_file());
    // A link where a file is to be written is replaced, and its target stays.
    std::fs::write(files.join("precious"), "old").unwrap();
    symlink("precious", files.join("to-precious")).unwrap();
    copied(&home, &["web:file", "to-precious"]);
    assert_eq!(std::fs::read(files.join("precious")).unwrap(), b"old");
    run(&home, "vm delete -f web");
    home.finish();
}

/// The copy reads a pipe that stays open, so it is under way when it is interrupted.
#[test]
fn an_interrupted_copy_leaves_no_part_of_a_file() {
    let home = home();
    run(&home, "vm create --name web");
    let files = files(&home);
    std::fs::write(files.join("big"), vec![1; 3 << 20]).unwrap();
    let packed = std::process::Command::new("tar").current_dir(&files).args(["c", "big"]).output();
    let packed = packed.unwrap().stdout;
    for signal in ["INT", "KILL"] {
        let mut child = home
            .command(&["cp", "-", "web:/srv"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(&packed[..2 << 20]).unwrap();
        let daemon = home.json(&["daemon", "status"])["pid"].as_u64().unwrap();
        let srv = guest(&home).join("srv");
        let part = || written_by(daemon, &srv).is_some() || srv.read_dir().unwrap().count() > 0;
        home.wait("the copy to begin", part);
        banger_testkit::kill(child.id(), signal);
        let ended = child.wait().unwrap();
        if signal == "INT" {
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!((ended.code(), text.as_str()), (Some(1), "error: the copy was cancelled\n"));
        }
        home.wait("the incomplete file to be removed", || !part());
        drop(input);
    }
    run(&home, "vm delete -f web");
    home.finish();
}

/// A file below `folder` that a process has open, also one without a name.
fn written_by(pid: u64, folder: &Path) -> Option<PathBuf> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let mut paths = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    paths.find(|path| path.starts_with(folder) && path != folder)
}

/// A header of an archive (ustar) with a name, a target and a size that are not checked.
fn header(kind: u8, name: &str, link: &str, size: u64) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o} ").as_bytes());
    put(136, b"00000000000 ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(148, b"        ");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// A file of 5 bytes.
fn entry(name: &str) -> Vec<u8> {
    let mut entry = header(b'0', name, "", 5);
    entry.extend_from_slice(b"owned");
    entry.resize(1024, 0);
    entry
}

/// Puts a file into `/hostile` of the only guest, whose content is sent as an archive.
fn hostile(home: &Home, name: &str) -> PathBuf {
    let folder = guest(home).join("hostile");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// Copies a hostile archive to `into`, with 4 GB of address space.
fn copied_with_little_memory(home: &Home, files: &Path, name: &str) -> Run {
    let banger = banger_testkit::program("banger").display().to_string();
    let script = format!("ulimit -v 4000000; exec {banger} cp web:/hostile/{name} into");
    let mut limited = std::process::Command::new("sh");
    let usual = home.command(&[]);
    let env = usual.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let run = limited.args(["-c", &script]).current_dir(files).envs(env).output();
    Run::from(run.unwrap())
}

/// The guest and its archive pass through the daemon; memory is limited to far less than what is
/// sent.
#[test]
fn a_hostile_guest_writes_nothing_outside_of_the_target() {
    let home = home();
    run(&home, "vm create --name web");
    let files = files(&home);
    std::fs::write(files.join("file"), "").unwrap();
    copied(&home, &["file", "web:"]);
    std::fs::create_dir(files.join("outside")).unwrap();
    std::fs::write(files.join("outside/secret"), "secret").unwrap();
    let outside = files.join("outside").display().to_string();
    let end = vec![0; 1024];
    let top = header(b'5', "t/", "", 0);
    let far = "../".repeat(20) + "tmp/out";
    let cases: [(&str, Vec<Vec<u8>>, &str); 11] = [
        ("parent.folder", vec![top.clone(), entry("t/../../outside/x"), end.clone()], "t/../"),
        ("above.contents", vec![entry("../outside/x"), end.clone()], "../outside/x"),
        ("far.file", vec![entry(&far), end.clone()], "tmp/out"),
        (
            "link.folder",
            vec![top.clone(), header(b'2', "t/l", &outside, 0), entry("t/l/x"), end.clone()],
            "t/l/x",
        ),
        (
            "hard.folder",
            vec![top.clone(), header(b'1', "t/h", "../outside/secret", 0), end.clone()],
            "t/h",
        ),
        (
            "hard-through-link.folder",
            vec![
                top.clone(),
                header(b'2', "t/l", &outside, 0),
                header(b'1', "t/h", "t/l/secret", 0),
                end.clone(),
            ],
            "t/h",
        ),
        ("beside.folder", vec![top.clone(), entry("other/x"), end.clone()], "other/x"),
        ("short.file", vec![header(b'0', "f", "", 1 << 20), vec![1; 100]], "ended before"),
        ("huge-name.file", vec![header(b'x', "f", "", 1 << 32), end.clone()], "extension record"),
        ("endless.contents", vec![], "does not end"),
        ("noise.contents", vec![], "not a tar archive"),
    ];
    for (name, archive, text) in cases {
        let path = hostile(&home, name);
        match name {
            "endless.contents" => symlink("/dev/zero", &path).unwrap(),
            "noise.contents" => symlink("/dev/urandom", &path).unwrap(),
            _ => std::fs::write(&path, archive.concat()).unwrap(),
        }
        let into = files.join("into");
        std::fs::create_dir(&into).unwrap();
        let run = copied_with_little_memory(&home, &files, name);
        assert!(run.code == 1 || run.code == 2, "{name}: {} {}", run.code, run.err);
        assert!(run.err.starts_with("error: ") && run.err.contains(text), "{name}: {}", run.err);
        assert_eq!(std::fs::read_dir(files.join("outside")).unwrap().count(), 1, "{name}");
        assert_eq!(std::fs::read_dir(&files).unwrap().count(), 3, "{name}");
        for left in std::fs::read_dir(&into).unwrap() {
            let left = left.unwrap().file_name();
            assert!(!left.to_string_lossy().starts_with(".banger-"), "{name}: {left:?}");
        }
        std::fs::remove_dir_all(&into).unwrap();
    }
    let secret = std::fs::metadata(files.join("outside/secret")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&secret), 1, "a hard link leads out");
    run(&home, "vm delete -f web");
    home.finish();
}

/// The guest sends a part of a file and waits, so that the copy is under way when it is killed.
#[test]
fn a_killed_copy_leaves_nothing_that_stays() {
    let home = home();
    run(&home, "vm create --name web");
    let files = files(&home);
    std::fs::write(files.join("small"), "content").unwrap();
    copied(&home, &["small", "web:"]);
    let fifo = hostile(&home, "slow.file");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
    let into = files.join("into");
    std::fs::create_dir(&into).unwrap();
    let mut child = home.command(&["cp", "web:/hostile/slow.file", "."]);
    let mut child = child.current_dir(&into).spawn().unwrap();
    let mut guest = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    guest.write_all(&header(b'0', "f", "", 1 << 20)).unwrap();
    guest.write_all(&[1; 300_000]).unwrap();
    home.wait("the copy to begin", || written_by(child.id().into(), &into).is_some());
    banger_testkit::kill(child.id(), "KILL");
    child.wait().unwrap();
    copied(&home, &["web:small", "into"]);
    let names: Vec<_> = into.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["small"]);
    drop(guest);
    run(&home, "vm delete -f web");
    home.finish();
}

/// The folder with the files of the only guest.
fn guest(home: &Home) -> PathBuf {
    let all = home.path().join("state/sim-files");
    let first = std::fs::read_dir(&all).into_iter().flatten().next();
    first.map_or(all, |entry| entry.unwrap().path())
}
