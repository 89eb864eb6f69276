//! Two folders of this host, kept alike through the same server that runs in a guest.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod hostile;
mod random;
mod replaced;
mod speed;
mod world;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::atomic::Ordering::Relaxed;

use banger_sync::base::Base;
use banger_sync::reconcile::Place;
use banger_sync::tree::Node;
use banger_sync::{End, Phase};
use banger_sync_side::Reply;
use world::{World, content};

#[test]
fn files_arrive_both_ways_and_leave_both_ways() {
    let world = World::new();
    world.host("src/main.rs", "fn main() {}");
    world.host("run.sh", "#!/bin/sh");
    let program = fs::Permissions::from_mode(0o755);
    fs::set_permissions(world.host.path().join("run.sh"), program).unwrap();
    symlink("src/main.rs", world.host.path().join("main")).unwrap();
    world.guest("only/in/guest", "there");
    let live = world.start();
    live.alike();
    let arrived = world.guest.path().join("run.sh");
    assert_eq!(fs::metadata(arrived).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(content(&world.host, "only/in/guest").as_deref(), Some("there"));
    let link = fs::read_link(world.guest.path().join("main")).unwrap();
    assert_eq!(link.to_str(), Some("src/main.rs"));
    // Saved by a program that writes another file and renames it.
    world.host("src/.main.new", "fn main() { print() }");
    let renamed = world.host.path().join("src/main.rs");
    fs::rename(world.host.path().join("src/.main.new"), renamed).unwrap();
    live.alike();
    assert_eq!(content(&world.guest, "src/main.rs").as_deref(), Some("fn main() { print() }"));
    fs::remove_dir_all(world.guest.path().join("only")).unwrap();
    live.until("the folder is removed", || !world.host.path().join("only").exists());
    fs::rename(world.host.path().join("src"), world.host.path().join("lib")).unwrap();
    live.until("the folder is renamed", || {
        content(&world.guest, "lib/main.rs").is_some() && !world.guest.path().join("src").exists()
    });
    world.guest("lib/main.rs", "third");
    live.until("the renamed folder is watched", || {
        content(&world.host, "lib/main.rs").as_deref() == Some("third")
    });
    live.alike();
    assert_eq!(live.status().problems, []);
}

#[test]
fn what_changes_after_a_folder_was_given_up_stays() {
    let world = World::new();
    world.host("a", "1");
    let live = world.start();
    live.alike();
    world.wanted.store(false, Relaxed);
    world.host("b", "2");
    world.guest("c", "3");
    let end = live.end();
    assert!(matches!(end, End::Stopped), "{end:?}");
    assert_eq!((content(&world.guest, "b"), content(&world.host, "c")), (None, None));
}

#[test]
fn a_conflict_keeps_both_versions_and_is_told() {
    let world = World::new();
    world.host("a.txt", "base");
    let live = world.start();
    live.alike();
    live.stop();
    world.host("a.txt", "of the host");
    world.guest("a.txt", "of the guest");
    let live = world.start();
    live.until("the conflict is told", || live.status().conflicts.len() == 1);
    live.alike();
    assert_eq!(content(&world.guest, "a.txt").as_deref(), Some("of the host"));
    let aside = String::from_utf8(live.status().conflicts[0].clone()).unwrap();
    assert!(aside.starts_with("a.conflict-guest-") && aside.ends_with(".txt"), "{aside}");
    assert_eq!(content(&world.host, &aside).as_deref(), Some("of the guest"));
    fs::remove_file(world.host.path().join(aside)).unwrap();
    live.until("the conflict is over", || live.status().conflicts.is_empty());
}

#[test]
fn nothing_is_removed_when_a_whole_side_is_empty() {
    let world = World::new();
    for name in ["a", "b", "d/c"] {
        world.host(name, name);
    }
    let live = world.start();
    live.alike();
    live.stop();
    for name in ["a", "b"] {
        fs::remove_file(world.guest.path().join(name)).unwrap();
    }
    fs::remove_dir_all(world.guest.path().join("d")).unwrap();
    let live = world.start();
    live.until("it halts", || live.status().phase == Phase::Halted(Place::Guest));
    assert_eq!(content(&world.host, "d/c").as_deref(), Some("d/c"));
    // With content it goes on.
    world.guest("b", "b");
    live.until("it goes on", || live.status().phase == Phase::Watching);
    live.until("the rest is removed", || !world.host.path().join("d").exists());
    live.alike();
}

/// Before the first list of both sides is saved, which is a second later.
#[test]
fn nothing_comes_back_where_a_side_was_emptied_after_the_first_copy() {
    for side in [Place::Host, Place::Guest] {
        let world = World::new();
        let [root, other] = world.from(side);
        for name in ["a", "d/b"] {
            world.host(name, name);
        }
        let empty = || {
            fs::remove_file(root.path().join("a")).unwrap();
            fs::remove_dir_all(root.path().join("d")).unwrap();
        };
        // While the session runs.
        let live = world.start();
        live.alike();
        empty();
        live.until("it halts", || live.status().phase == Phase::Halted(side));
        // And when another one begins.
        live.cut_off();
        let live = world.start();
        live.until("it halts again", || live.status().phase == Phase::Halted(side));
        live.cut_off();
        // The folder itself.
        fs::remove_dir(root.path()).unwrap();
        fs::create_dir(root.path()).unwrap();
        let live = world.start();
        live.until("it halts for a new folder", || live.status().phase == Phase::Halted(side));
        assert_eq!(content(other, "d/b").as_deref(), Some("d/b"));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "nothing was copied again");
        live.stop();
    }
}

#[test]
fn a_disk_that_takes_long_holds_up_the_base_only() {
    let world = World::new();
    world.host("a", "1");
    world.host("c", "1");
    let base = |path: &[u8]| match Base::open(&world.folders().base).unwrap().root().get(path) {
        Some(Node::File { digest, .. }) => Some(*digest),
        _ => None,
    };
    let (live, mut disk) = world.start_with_slow_disk();
    live.alike();
    let mut flush = || {
        // Length and type.
        disk.read_exact(&mut [0; 5]).unwrap();
        let mut answer = Vec::new();
        Reply::Done { stamp: None, now_ns: 0 }.encode(&mut answer);
        (disk.try_clone().unwrap(), answer)
    };
    let (mut to, answer) = flush();
    // The disk is being written.
    world.host("a", "2");
    world.guest("d/b", "3");
    live.alike();
    assert_eq!(base(b"a"), None, "it has what is on no disk");
    to.write_all(&answer).unwrap();
    live.until("the base is saved", || base(b"a").is_some());
    let first = base(b"a");
    assert_eq!(base(b"d/b"), None, "what came later is not on the disk for sure");
    let (mut to, answer) = flush();
    to.write_all(&answer).unwrap();
    live.until("the rest is saved", || base(b"d/b").is_some());
    assert_ne!(base(b"a"), first);
    // The last one, at the end of the session.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut to, answer) = flush();
            to.write_all(&answer).unwrap();
        });
        live.stop();
    });
}

#[test]
fn a_huge_file_is_named_and_holds_up_nothing() {
    let world = World::new();
    world.guest("huge", "");
    world.guest(".gitignore", "");
    for name in ["huge", ".gitignore"] {
        let file = fs::File::options().write(true).open(world.guest.path().join(name)).unwrap();
        file.set_len(300 << 30).unwrap();
    }
    world.host("a", "1");
    let live = world.start();
    live.alike_but(&["huge", ".gitignore"]);
    live.until("it is named", || live.status().problems.len() == 2);
    assert_eq!(live.status().problems[1].why, "it is larger than 4 GiB");
    assert!(!world.host.path().join("huge").exists());
    fs::remove_file(world.guest.path().join("huge")).unwrap();
    live.until("it is forgotten", || live.status().problems.len() == 1);
}

#[test]
fn ignored_files_and_repositories_stay_where_they_are() {
    let world = World::new();
    world.host(".gitignore", "node_modules/\n*.log\n");
    for name in ["node_modules/x/index.js", "a.log", ".git/config", "sub/.git/hooks/post-commit"] {
        world.host(name, "host");
        world.guest(&format!("guest/{name}"), "guest");
    }
    world.guest("own.tmp", "guest");
    world.host("src/a.js", "x");
    let mut world = world;
    world.ignore = vec!["*.tmp".into()];
    let live = world.start();
    live.until("the rest arrives", || content(&world.guest, "src/a.js").is_some());
    live.alike_but(&["node_modules", ".git", "a.log", "own.tmp"]);
    for name in ["node_modules", "a.log", ".git", "sub/.git"] {
        assert!(!world.guest.path().join(name).exists(), "{name}");
        assert!(!world.host.path().join("guest").join(name).exists(), "{name}");
    }
    // The rules change: what is not ignored any more arrives, and nothing is removed.
    world.guest(".gitignore", "*.log\n");
    live.until("it arrives", || content(&world.guest, "node_modules/x/index.js").is_some());
    world.guest(".gitignore", "node_modules/\n");
    live.until("the log arrives", || content(&world.guest, "a.log").is_some());
    assert!(world.guest.path().join("node_modules/x/index.js").exists());
    assert!(world.host.path().join("node_modules/x/index.js").exists());
    assert_eq!(content(&world.host, "own.tmp"), None);
}

#[test]
fn the_base_is_kept_between_sessions() {
    let world = World::new();
    world.host("a", "1");
    world.host("b", "1");
    let live = world.start();
    live.alike();
    live.stop();
    // Without a base, both would come back.
    fs::remove_file(world.host.path().join("a")).unwrap();
    world.guest("b", "2");
    let live = world.start();
    live.until("both changes arrive", || {
        !world.guest.path().join("a").exists() && content(&world.host, "b").as_deref() == Some("2")
    });
    live.alike();
    assert!(live.status().conflicts.is_empty());
}

#[test]
fn a_file_that_is_written_all_the_time_arrives_when_it_rests() {
    let world = World::new();
    world.host("log", "");
    let live = world.start();
    let mut text = String::new();
    for line in 0..400 {
        text.push_str(&format!("line {line}\n"));
        world.host("log", &text);
    }
    live.until("it arrives", || content(&world.guest, "log").as_ref() == Some(&text));
    live.alike();
    assert!(live.status().conflicts.is_empty());
}

/// A million bytes and none, names of any bytes, folders without content.
#[test]
fn odd_files_arrive() {
    use std::os::unix::ffi::OsStrExt as _;
    let world = World::new();
    let odd = std::ffi::OsStr::from_bytes(b"a \xff\n*");
    fs::write(world.host.path().join(odd), "odd").unwrap();
    fs::write(world.host.path().join("large"), vec![7; 3_000_001]).unwrap();
    fs::write(world.host.path().join("empty"), "").unwrap();
    fs::create_dir_all(world.host.path().join("x/y/z")).unwrap();
    let live = world.start();
    live.alike();
    assert_eq!(fs::read(world.guest.path().join("large")).unwrap(), vec![7; 3_000_001]);
    assert!(world.guest.path().join(odd).exists() && world.guest.path().join("x/y/z").is_dir());
    // Kinds change places.
    fs::remove_file(world.guest.path().join("large")).unwrap();
    world.guest("large/inner", "folder now");
    live.until("the file is a folder", || content(&world.host, "large/inner").is_some());
    live.alike();
}
