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
        let part = || {
            let names = std::fs::read_dir(guest(&home).join("srv")).into_iter().flatten();
            names.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
        };
        home.wait("the copy to begin", || !part().is_empty());
        banger_testkit::kill(child.id(), signal);
        let ended = child.wait().unwrap();
        if signal == "INT" {
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!((ended.code(), text.as_str()), (Some(1), "error: the copy was cancelled\n"));
        }
        home.wait("the incomplete file to be removed", || part().is_empty());
        drop(input);
    }
    run(&home, "vm delete -f web");
    home.finish();
}

/// The folder with the files of the only guest.
fn guest(home: &Home) -> PathBuf {
    let all = home.path().join("state/sim-files");
    let first = std::fs::read_dir(&all).into_iter().flatten().next();
    first.map_or(all, |entry| entry.unwrap().path())
}
