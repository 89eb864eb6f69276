//! Workspaces: what changed on either side of an imported repository.

use std::fs;

use banger_workspace::{Options, Workspace};

use crate::local::{Local, Pair};
use crate::world::{World, chmod, git};

#[test]
fn nothing_has_changed_after_an_import() {
    assert_eq!(Pair::new().status(), Vec::<String>::new());
}

#[test]
fn a_dirty_repository_has_no_changes_after_its_import() {
    let world = World::new();
    for name in ["kept", "staged", "edited", "gone", "crlf.txt", "mode", "both"] {
        world.write(name, format!("{name}\n"));
    }
    world.write(".gitattributes", "*.txt eol=crlf\n");
    world.commit("first");
    world.write("staged", "staged now\n");
    world.git(&["add", "staged"]);
    world.write("edited", "edited now\n");
    world.write("both", "staged\n");
    world.git(&["add", "both"]);
    world.write("both", "and edited\n");
    world.write("intended", "intended\n");
    world.git(&["add", "-N", "intended"]);
    world.write("crlf.txt", "crlf\r\nmore\r\n");
    world.chmod("mode", 0o755);
    fs::remove_file(world.host.join("gone")).unwrap();
    world.write("untracked", "mine\n");
    let pair = Pair::of(world, Options { include_untracked: true, ..Options::default() });
    assert_eq!(pair.status(), Vec::<String>::new());
}

#[test]
fn a_repository_without_a_commit_has_a_workspace() {
    let world = World::new();
    world.write("a", "a\n");
    world.git(&["add", "a"]);
    let pair = Pair::of(world, Options::default());
    assert_eq!(pair.status(), Vec::<String>::new());
    pair.guest("b", "b\n");
    git(&pair.world.guest, &["add", "-A"]);
    git(&pair.world.guest, &["commit", "-q", "-m", "the first one"]);
    assert_eq!(pair.status(), ["gA b"]);
    let commits = pair.open().status(&Local).unwrap().guest.commits;
    assert_eq!(commits.len(), 1);
}

#[test]
fn changes_are_found_on_the_side_that_made_them() {
    let pair = Pair::new();
    pair.guest("a", "guest\n");
    fs::remove_file(pair.world.guest.join("b")).unwrap();
    pair.guest("new/deep/file", "new\n");
    pair.guest("built.o", "ignored\n");
    pair.world.write("c", "host\n");
    pair.world.write("notes", "untracked, and not sent\n");
    pair.world.write("d", "same\n");
    pair.guest("d", "same\n");
    pair.world.write("dir/e", "one\n");
    pair.guest("dir/e", "other\n");
    assert_eq!(pair.status(), ["gM a", "gD b", "gA new/deep/file", "hM c", "C dir/e"]);
    // Commits do not change what differs.
    git(&pair.world.guest, &["add", "-A"]);
    git(&pair.world.guest, &["commit", "-q", "-m", "work\x1b[31m"]);
    pair.world.commit("mine");
    let expected = ["gM a", "gD b", "gA new/deep/file", "hM c", "hA notes", "C dir/e"];
    assert_eq!(pair.status(), expected);
    let state = pair.open().status(&Local).unwrap().guest;
    assert_eq!(state.branch.as_deref(), Some(b"refs/heads/main".as_slice()));
    assert_eq!(state.commits[0].subject, b"work\x1b[31m");
    assert_eq!(state.commits.len(), 1);
}

#[test]
fn kinds_of_files_and_folders_may_change() {
    let pair = Pair::new();
    let guest = &pair.world.guest;
    fs::remove_file(guest.join("a")).unwrap();
    pair.guest("a/inner", "a folder now\n");
    fs::remove_dir_all(guest.join("dir")).unwrap();
    pair.guest("dir", "a file now\n");
    fs::remove_file(guest.join("link")).unwrap();
    pair.guest("link", "no link\n");
    chmod(&guest.join("run"), 0o644);
    let expected = ["gD a", "gA a/inner", "gA dir", "gD dir/e", "gD dir/f", "gM link", "gM run"];
    assert_eq!(pair.status(), expected);
}

#[test]
fn a_workspace_needs_a_record_and_its_repository() {
    let folder = tempfile::tempdir().unwrap();
    let error = Workspace::open(&folder.path().join("none"), "web").map(drop).unwrap_err();
    assert!(error.message.contains("no repository of this host is on record"), "{error:?}");
    let pair = Pair::new();
    fs::remove_dir_all(&pair.world.guest).unwrap();
    let error = pair.open().status(&Local).map(drop).unwrap_err();
    assert!(error.message.contains("git failed in"), "{error:?}");
    fs::create_dir(&pair.world.guest).unwrap();
    let error = pair.open().status(&Local).map(drop).unwrap_err();
    assert!(error.causes[0].contains("is not a git repository"), "{error:?}");
    let moved = pair.world.host.with_extension("moved");
    fs::rename(&pair.world.host, &moved).unwrap();
    let open = || Workspace::open(pair.store(), "web").map(drop);
    let error = open().unwrap_err();
    assert!(error.message.contains("is not there any more"), "{error:?}");
    assert!(format!("{:?}", error.hints).contains("`banger cp web:"), "{error:?}");
    fs::create_dir(&pair.world.host).unwrap();
    let error = open().unwrap_err();
    assert!(error.message.contains("is no repository any more"), "{error:?}");
}
